//! The label of a mount, `<mount>/folio.mount`: whose it is, and in which life.
//!
//! ```text
//!  0  magic u32 "FoLa", major u8, minor u8, 0 u16
//!  8  length of the body u32, CRC32C of 0..12 and the body u32
//! 16  mount index u8, flags u8 (1: was the root of a mounted file system), machine u16, current log id u32
//! 24  start count u16, members u16, 0 u32
//! 32  mount uuid 16
//! 48  instance uuid 16
//! 64  created u64, ms since 1970
//! 72  generation u64
//! 80  group, syncgroup (length u8, UTF-8 each), then the members (see `members`)
//! ```
//!
//! Invariants: replaced as a whole (tmp, fsync, rename, fsync of the folder), each time with a greater generation;
//! the start count is raised and durable before the mount serves, so that no position is ever given twice (R10);
//! a log id is drawn at random and never 0.

use super::bytes::{Reader, Short, Writer};
use super::envelope::{FormatError, Kind};
use super::file_id::is_name;
use super::ids::{LogId, MachineId, MountIndex, Sequence, first_sequence};
use super::members::{Member, count, put_members, take_members};

/// Longest label that is read, in bytes: room for a thousand members with a hundred logs each.
pub const LABEL_LEN_MAX: usize = 1 << 20;

const KIND: Kind = Kind { magic: *b"FoLa", what: "label" };
const WAS_MOUNTPOINT: u8 = 1;

/// Label of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Group of the storage.
    pub group: String,
    /// Syncgroup of the storage.
    pub syncgroup: String,
    /// Its machine id.
    pub machine: MachineId,
    /// Index of this mount on it.
    pub mount: MountIndex,
    /// Drawn when the mount was labelled.
    pub mount_uuid: [u8; 16],
    /// Of the storage: all its mounts carry the same, so a label without memory can be adopted.
    pub instance: [u8; 16],
    /// The life of the mount's log. Never 0.
    pub log_id: LogId,
    /// How often the mount was started in this life; the top 16 bits of the sequences. 0: not yet.
    pub start_count: u16,
    /// Whether the folder was the root of a mounted file system when it was labelled.
    pub was_mountpoint: bool,
    /// When it was labelled, ms since 1970.
    pub created_ms: u64,
    /// Counts the writes of this label.
    pub generation: u64,
    /// Who mirrors it, ourselves included.
    pub members: Vec<Member>,
}

impl Label {
    /// A label that nothing was stored under yet: no life, no start, nobody who mirrors it. Creating the mount gives it
    /// its log id.
    #[must_use]
    pub fn blank(
        group: &str,
        syncgroup: &str,
        machine: MachineId,
        mount: MountIndex,
        mount_uuid: [u8; 16],
        instance: [u8; 16],
    ) -> Self {
        Self {
            group: group.to_owned(),
            syncgroup: syncgroup.to_owned(),
            machine,
            mount,
            mount_uuid,
            instance,
            log_id: 0,
            start_count: 0,
            was_mountpoint: false,
            created_ms: 0,
            generation: 0,
            members: Vec::new(),
        }
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(256);
        let mut w = Writer::new(&mut body);
        let flags = if self.was_mountpoint { WAS_MOUNTPOINT } else { 0 };
        w.u8(self.mount).u8(flags).u16(self.machine).u32(self.log_id);
        w.u16(self.start_count).u16(count(self.members.len())).u32(0);
        w.put(&self.mount_uuid).put(&self.instance).u64(self.created_ms).u64(self.generation);
        w.text8(&self.group).text8(&self.syncgroup);
        put_members(&mut w, &self.members);
        KIND.seal(&body)
    }

    /// Reads a label.
    ///
    /// # Errors
    /// [`FormatError`]: not ours, newer, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let sane =
            |label: &Self| label.log_id != 0 && is_name(&label.group) && is_name(&label.syncgroup);
        KIND.decode(bytes, |body| Ok(Some(Self::decode_body(body)?).filter(sane)))
    }

    fn decode_body(body: &[u8]) -> Result<Self, Short> {
        let mut r = Reader::new(body);
        let (mount, flags, machine, log_id) = (r.u8()?, r.u8()?, r.u16()?, r.u32()?);
        let (start_count, members, _) = (r.u16()?, r.u16()?, r.u32()?);
        let (mount_uuid, instance) = (r.array()?, r.array()?);
        let (created_ms, generation) = (r.u64()?, r.u64()?);
        let (group, syncgroup) = (r.text8()?.to_owned(), r.text8()?.to_owned());
        Ok(Self {
            group,
            syncgroup,
            machine,
            mount,
            mount_uuid,
            instance,
            log_id,
            start_count,
            was_mountpoint: flags & WAS_MOUNTPOINT != 0,
            created_ms,
            generation,
            members: take_members(&mut r, members)?,
        })
    }

    /// The label to write before the mount serves again; `None` when this life has had all its 65,535 starts and
    /// needs a new log id.
    #[must_use]
    pub fn with_next_start(&self) -> Option<Self> {
        let start_count = self.start_count.checked_add(1)?;
        let generation = self.generation.saturating_add(1);
        Some(Self { start_count, generation, ..self.clone() })
    }

    /// The first sequence of the present start.
    #[must_use]
    pub const fn first_sequence(&self) -> Sequence {
        first_sequence(self.start_count)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::format::envelope::tests::as_version;
    use proptest::prelude::*;

    pub(crate) fn sample() -> Label {
        let member = |machine: u16, log_ids: &[LogId]| Member {
            machine,
            address: format!("10.0.0.{machine}:7411"),
            mount_uuid: [0x11; 16],
            instance: [0x22; 16],
            log_ids: log_ids.to_vec(),
        };
        Label {
            group: "books".to_owned(),
            syncgroup: "a".to_owned(),
            machine: 1,
            mount: 2,
            mount_uuid: [0x11; 16],
            instance: [0x22; 16],
            log_id: 0xdead_beef,
            start_count: 3,
            was_mountpoint: true,
            created_ms: 1_750_000_000_123,
            generation: 4,
            members: vec![member(1, &[5, 0xdead_beef]), member(2, &[])],
        }
    }

    #[test]
    fn a_label_comes_back_and_no_flipped_bit_passes() {
        let bytes = sample().encode();
        assert_eq!(Label::decode(&bytes), Ok(sample()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Label::decode(&bad).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(Label::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_newer_major_is_refused_and_a_newer_minor_is_read() {
        let bytes = sample().encode();
        let newer = Label::decode(&as_version(&bytes, 2, 0, b""));
        assert!(matches!(newer, Err(FormatError::Newer { major: 2, .. })));
        assert_eq!(Label::decode(&as_version(&bytes, 1, 1, b"more")), Ok(sample()));
    }

    #[test]
    fn impossible_values_are_damage() {
        for bad in [
            Label { log_id: 0, ..sample() },
            Label { group: "..".to_owned(), ..sample() },
            Label { syncgroup: "A".to_owned(), ..sample() },
        ] {
            assert_eq!(Label::decode(&bad.encode()), Err(FormatError::Damaged("label")));
        }
    }

    #[test]
    fn a_start_count_never_comes_back() {
        let label = sample();
        let next = label.with_next_start().unwrap();
        assert_eq!((next.start_count, next.generation), (4, 5));
        assert!(next.first_sequence() > label.first_sequence());
        assert_eq!(Label { start_count: u16::MAX, ..label }.with_next_start(), None);
    }

    proptest! {
        #[test]
        fn bodies_from_anywhere_are_no_danger(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let sealed = KIND.seal(&body);
            if let Ok(label) = Label::decode(&sealed) {
                prop_assert_eq!(Label::decode(&label.encode()), Ok(label));
            }
        }
    }
}
