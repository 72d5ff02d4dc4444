//! What a storage remembers of itself, outside of its mounts: `state_dir/<group>.<syncgroup>.<machine>/memory`.
//!
//! ```text
//!  0  magic u32 "FoMe", major u8, minor u8, 0 u16
//!  8  length of the body u32, CRC32C of 0..12 and the body u32
//! 16  machine u16, mounts u16, 0 u32
//! 24  instance uuid 16
//! 40  generation u64
//! 48  group, syncgroup (length u8, UTF-8 each), then the mounts, in the order of their index:
//!       mount index u8, flags u8 (1: was the root of a mounted file system), log ids u16, members u16
//!       length of the path u16, mount uuid 16
//!       path (UTF-8), log ids (u32 each, the current one last), members (see `members`)
//!  -  minor 1: of each mount, in the same order: start count of its current log u16
//! ```
//!
//! Invariants: written after the label that it repeats, never before it, so at worst it knows less; replaced as a
//! whole (tmp, fsync, rename, fsync of the folder). It is why an empty folder is known to be a *lost* mount and not
//! a new one, and a mount that was started less often than we know to be an old copy of itself (R10).

use super::bytes::{Reader, Short, Writer};
use super::envelope::{FormatError, Kind};
use super::file_id::is_name;
use super::ids::{LogId, MachineId, MountIndex};
use super::label::Label;
use super::members::{Member, count, put_log_ids, put_members, take_log_ids, take_members};

/// Name of the file in the storage's state folder.
pub const MEMORY: &str = "memory";
/// The same on its way in.
pub const MEMORY_TMP: &str = "memory.tmp";
/// Longest memory that is read, in bytes.
pub const MEMORY_LEN_MAX: usize = 64 << 20;

const KIND: Kind = Kind { magic: *b"FoMe", what: "memory of the storage" };
const WAS_MOUNTPOINT: u8 = 1;
/// With start counts.
const MINOR: u8 = 1;

/// What is remembered of one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RememberedMount {
    /// Its index.
    pub index: MountIndex,
    /// Uuid in its label.
    pub uuid: [u8; 16],
    /// Logs that it has had, the current one last.
    pub log_ids: Vec<LogId>,
    /// Whether it was the root of a mounted file system when it was labelled.
    pub was_mountpoint: bool,
    /// Where it was last seen, for messages; at most 4096 bytes.
    pub path: String,
    /// Who mirrors it.
    pub members: Vec<Member>,
    /// How often it was started in the life of its current log, as far as is known.
    pub start_count: u16,
}

impl RememberedMount {
    /// How often a mount with this log must have been started. One that says less is an old copy of itself, restored from
    /// somewhere, and has given positions and places away that it does not know of. `u16::MAX` for one of a former life.
    #[must_use]
    pub fn starts_of(&self, log_id: LogId) -> u16 {
        match self.log_ids.last() {
            Some(last) if *last == log_id => self.start_count,
            _ if self.log_ids.contains(&log_id) => u16::MAX,
            _ => 0,
        }
    }
}

/// Memory of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Group of the storage.
    pub group: String,
    /// Its syncgroup.
    pub syncgroup: String,
    /// Its machine id.
    pub machine: MachineId,
    /// Drawn once per storage; in each label.
    pub instance: [u8; 16],
    /// Counts the writes.
    pub generation: u64,
    /// Mounts ever labelled, by index.
    pub mounts: Vec<RememberedMount>,
}

impl Memory {
    /// What is remembered of the mount with this index.
    #[must_use]
    pub fn mount(&self, index: MountIndex) -> Option<&RememberedMount> {
        self.mounts.iter().find(|mount| mount.index == index)
    }

    /// The memory of a storage whose first label this is; it knows no mount yet.
    #[must_use]
    pub fn of_instance(label: &Label) -> Self {
        Self {
            group: label.group.clone(),
            syncgroup: label.syncgroup.clone(),
            machine: label.machine,
            instance: label.instance,
            generation: 0,
            mounts: Vec::new(),
        }
    }

    /// Takes over what a label says; `true` if that changed anything and the memory has to be written.
    pub fn remember(&mut self, label: &Label, path: &str) -> bool {
        let at = self.mounts.iter().position(|mount| mount.index >= label.mount);
        let known = at.and_then(|at| self.mounts.get_mut(at)).filter(|m| m.index == label.mount);
        let changed = match known {
            Some(known) => {
                let before = known.clone();
                if !known.log_ids.contains(&label.log_id) {
                    known.log_ids.push(label.log_id);
                    known.start_count = 0;
                }
                if known.log_ids.last() == Some(&label.log_id) {
                    known.start_count = known.start_count.max(label.start_count);
                }
                known.uuid = label.mount_uuid;
                known.was_mountpoint = label.was_mountpoint;
                path.clone_into(&mut known.path);
                known.members.clone_from(&label.members);
                *known != before
            }
            None => {
                let new = RememberedMount {
                    index: label.mount,
                    uuid: label.mount_uuid,
                    log_ids: vec![label.log_id],
                    was_mountpoint: label.was_mountpoint,
                    path: path.to_owned(),
                    members: label.members.clone(),
                    start_count: label.start_count,
                };
                self.mounts.insert(at.unwrap_or(self.mounts.len()), new);
                true
            }
        };
        if changed {
            self.generation = self.generation.saturating_add(1);
        }
        changed
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(1024);
        let mut w = Writer::new(&mut body);
        w.u16(self.machine).u16(count(self.mounts.len())).u32(0);
        w.put(&self.instance).u64(self.generation).text8(&self.group).text8(&self.syncgroup);
        for mount in &self.mounts {
            let flags = if mount.was_mountpoint { WAS_MOUNTPOINT } else { 0 };
            let path = &mount.path[..mount.path.floor_char_boundary(usize::from(u16::MAX))];
            w.u8(mount.index).u8(flags).u16(count(mount.log_ids.len()));
            w.u16(count(mount.members.len())).u16(count(path.len()));
            w.put(&mount.uuid).put(path.as_bytes());
            put_log_ids(&mut w, &mount.log_ids);
            put_members(&mut w, &mount.members);
        }
        for mount in &self.mounts {
            w.u16(mount.start_count);
        }
        KIND.seal_minor(&body, MINOR)
    }

    /// Reads a memory.
    ///
    /// # Errors
    /// [`FormatError`]: not ours, newer, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let sane = |memory: &Self| {
            let sorted = memory.mounts.windows(2).all(|pair| pair[0].index < pair[1].index);
            sorted && is_name(&memory.group) && is_name(&memory.syncgroup)
        };
        KIND.decode(bytes, |body| Ok(Some(Self::decode_body(body)?).filter(sane)))
    }

    fn decode_body(body: &[u8]) -> Result<Self, Short> {
        let mut r = Reader::new(body);
        let (machine, mount_count, _) = (r.u16()?, r.u16()?, r.u32()?);
        let (instance, generation) = (r.array()?, r.u64()?);
        let (group, syncgroup) = (r.text8()?.to_owned(), r.text8()?.to_owned());
        let mut mounts = Vec::new();
        for _ in 0..mount_count {
            let (index, flags, log_ids) = (r.u8()?, r.u8()?, r.u16()?);
            let (members, path_len) = (r.u16()?, r.u16()?);
            let uuid = r.array()?;
            let path = std::str::from_utf8(r.take(usize::from(path_len))?).map_err(|_| Short)?;
            mounts.push(RememberedMount {
                index,
                uuid,
                was_mountpoint: flags & WAS_MOUNTPOINT != 0,
                path: path.to_owned(),
                log_ids: take_log_ids(&mut r, log_ids)?,
                members: take_members(&mut r, members)?,
                start_count: 0,
            });
        }
        if r.rest().len() >= 2 * mounts.len() {
            for mount in &mut mounts {
                mount.start_count = r.u16()?;
            }
        }
        Ok(Self { group, syncgroup, machine, instance, generation, mounts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::envelope::tests::as_version;
    use crate::format::label::tests::sample as label;
    use proptest::prelude::*;

    fn sample() -> Memory {
        let mut memory = Memory::of_instance(&label());
        for index in [9, 2, 0] {
            assert!(memory.remember(&Label { mount: index, ..label() }, "/srv/folio/m"));
        }
        memory
    }

    #[test]
    fn a_memory_comes_back_and_no_flipped_bit_passes() {
        let bytes = sample().encode();
        assert_eq!(Memory::decode(&bytes), Ok(sample()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Memory::decode(&bad).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(Memory::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_newer_major_is_refused_and_a_newer_minor_is_read() {
        let bytes = sample().encode();
        let newer = Memory::decode(&as_version(&bytes, 2, 0, b""));
        assert!(matches!(newer, Err(FormatError::Newer { major: 2, .. })));
        assert_eq!(Memory::decode(&as_version(&bytes, 1, 1, b"more")), Ok(sample()));
    }

    #[test]
    fn an_old_log_id_is_not_forgotten_and_the_same_label_changes_nothing() {
        let mut memory = sample();
        let generation = memory.generation;
        assert!(!memory.remember(&label(), "/srv/folio/m"));
        assert_eq!(memory.generation, generation);
        assert!(memory.remember(&Label { log_id: 77, ..label() }, "/srv/folio/m"));
        assert_eq!(memory.mount(2).unwrap().log_ids, [label().log_id, 77]);
        assert!(memory.remember(&Label { log_id: 77, ..label() }, "/elsewhere"));
        assert_eq!(memory.generation, generation + 2);
        let order: Vec<u8> = memory.mounts.iter().map(|m| m.index).collect();
        assert_eq!(order, [0, 2, 9]);
    }

    #[test]
    fn an_old_copy_of_a_mount_is_known_by_its_start_count() {
        let mut memory = sample();
        let (log_id, starts) = (label().log_id, label().start_count);
        let known = |memory: &Memory, log_id| memory.mount(2).unwrap().starts_of(log_id);
        assert_eq!((known(&memory, log_id), known(&memory, 4711)), (starts, 0));
        assert!(memory.remember(&Label { start_count: starts + 2, ..label() }, "/srv/folio/m"));
        assert!(!memory.remember(&Label { start_count: starts, ..label() }, "/srv/folio/m"));
        assert_eq!(known(&memory, log_id), starts + 2, "an old copy takes nothing back");
        let anew = Label { log_id: 4711, start_count: 1, ..label() };
        assert!(memory.remember(&anew, "/srv/folio/m"));
        assert_eq!((known(&memory, log_id), known(&memory, 4711)), (u16::MAX, 1));
        assert_eq!(Memory::decode(&memory.encode()), Ok(memory));
    }

    proptest! {
        #[test]
        fn bodies_from_anywhere_are_no_danger(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(memory) = Memory::decode(&KIND.seal(&body)) {
                prop_assert_eq!(Memory::decode(&memory.encode()), Ok(memory));
            }
        }
    }
}
