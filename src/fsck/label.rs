//! Label and memory: whose mount it is (docs/FORMAT.md, "Label", "Memory of a storage").

use super::bytes::{Bad, Flaw, Take, envelope};
use super::finding::Kind;
use super::{Run, hex};

/// A member as label and memory name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub machine: u16,
    /// The current one last.
    pub log_ids: Vec<u32>,
}

/// The label of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub mount: u8,
    pub machine: u16,
    pub log_id: u32,
    pub start_count: u16,
    pub mount_uuid: [u8; 16],
    pub instance: [u8; 16],
    pub group: String,
    pub syncgroup: String,
    pub members: Vec<Member>,
}

impl Label {
    /// The current log of a machine, as far as this mount knows.
    pub fn current_log(&self, machine: u16) -> Option<u32> {
        if machine == self.machine {
            return Some(self.log_id);
        }
        let member = self.members.iter().find(|member| member.machine == machine)?;
        member.log_ids.last().copied()
    }
}

/// Reads a label.
pub fn decode(bytes: &[u8]) -> Result<Label, Flaw> {
    let mut take = Take(envelope(b"FoLa", bytes)?);
    let (mount, _flags, machine, log_id) = (take.u8()?, take.u8()?, take.u16()?, take.u32()?);
    let (start_count, members, _) = (take.u16()?, take.u16()?, take.u32()?);
    let (mount_uuid, instance) = (take.raw16()?, take.raw16()?);
    let (_created, _generation) = (take.u64()?, take.u64()?);
    let (group, syncgroup) = (take.text()?, take.text()?);
    let members = take_members(&mut take, members)?;
    if log_id == 0 || group.is_empty() || syncgroup.is_empty() {
        return Err(Flaw::Damaged);
    }
    Ok(Label {
        mount,
        machine,
        log_id,
        start_count,
        mount_uuid,
        instance,
        group,
        syncgroup,
        members,
    })
}

fn take_members(take: &mut Take<'_>, count: u16) -> Result<Vec<Member>, Bad> {
    let mut members = Vec::new();
    for _ in 0..count {
        let (machine, logs, _) = (take.u16()?, take.u16()?, take.u32()?);
        take.bytes(32)?;
        take.text()?;
        let log_ids = (0..logs).map(|_| take.u32()).collect::<Result<_, _>>()?;
        members.push(Member { machine, log_ids });
    }
    Ok(members)
}

/// What a storage remembers of one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub mount: u8,
    pub mount_uuid: [u8; 16],
    pub path: String,
    pub log_ids: Vec<u32>,
}

/// The memory of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    pub machine: u16,
    pub instance: [u8; 16],
    pub mounts: Vec<Remembered>,
}

/// Reads a memory.
pub fn decode_memory(bytes: &[u8]) -> Result<Memory, Flaw> {
    let mut take = Take(envelope(b"FoMe", bytes)?);
    let (machine, count, _) = (take.u16()?, take.u16()?, take.u32()?);
    let instance = take.raw16()?;
    take.u64()?;
    take.text()?;
    take.text()?;
    let mut mounts = Vec::new();
    for _ in 0..count {
        let (mount, _flags, logs, members) = (take.u8()?, take.u8()?, take.u16()?, take.u16()?);
        let (path_len, mount_uuid) = (take.u16()?, take.raw16()?);
        let path = String::from_utf8(take.bytes(path_len.into())?.to_vec()).map_err(|_| Bad)?;
        let log_ids = (0..logs).map(|_| take.u32()).collect::<Result<_, _>>()?;
        take_members(&mut take, members)?;
        mounts.push(Remembered { mount, mount_uuid, path, log_ids });
    }
    Ok(Memory { machine, instance, mounts })
}

/// Longest label that is read.
const LABEL_MAX: usize = 1 << 20;

/// The label, and what is wrong with it.
pub fn read(medium: &dyn super::medium::Medium) -> Result<Label, (Kind, String)> {
    let wrong = |what: String| (Kind::LabelDamaged, what);
    let len = match medium.len(LABEL) {
        Ok(Some(len)) => usize::try_from(len).unwrap_or(LABEL_MAX).min(LABEL_MAX),
        Ok(None) => return Err((Kind::LabelMissing, "there is no label".to_owned())),
        Err(error) => return Err((Kind::Unreadable, error.to_string())),
    };
    let mut bytes = vec![0; len];
    if let Err(error) = medium.read(LABEL, 0, &mut bytes) {
        return Err((Kind::Unreadable, error.to_string()));
    }
    decode(&bytes).map_err(|flaw| match flaw {
        Flaw::NotThis => wrong("this is no label".to_owned()),
        Flaw::Newer(major) => (Kind::NewerFormat, format!("the label has format {major}")),
        Flaw::Damaged => wrong("its checksum is wrong".to_owned()),
    })
}

/// Name of the label.
pub const LABEL: &str = "folio.mount";

/// Longest list of forgotten members that is read.
const FORGOTTEN_MAX: u64 = 1 << 20;

impl Run<'_> {
    /// The label once more. One that says less was not written any more before a crash.
    pub fn check_label_copy(&mut self, path: &str, len: u64) {
        let bytes = self.read(path, 0, usize::try_from(len).unwrap_or(LABEL_MAX).min(LABEL_MAX));
        let what = match decode(&bytes) {
            Ok(copy) if copy.mount_uuid == self.label.mount_uuid => return,
            Ok(_) => "it is the label of another mount",
            Err(_) => "its checksum is wrong",
        };
        self.found(Kind::LabelCopyDamaged, path, None, what.to_owned());
    }

    /// The list of members that were removed for good.
    pub fn check_forgotten(&mut self, path: &str, len: u64) {
        let bytes = self.read(path, 0, usize::try_from(len.min(FORGOTTEN_MAX)).unwrap_or(0));
        match envelope(b"FoFg", &bytes) {
            Ok(_) => {}
            Err(Flaw::Newer(major)) => {
                self.found(Kind::NewerFormat, path, None, format!("format {major}"));
            }
            Err(_) => {
                let what = "its checksum is wrong".to_owned();
                self.found(Kind::ForgottenDamaged, path, None, what);
            }
        }
    }

    /// Compares the label with what the storage remembers. `path` is for people, `mount` as the operator wrote it.
    pub fn check_memory(&mut self, bytes: &[u8], path: &str) {
        let memory = match decode_memory(bytes) {
            Ok(memory) => memory,
            Err(Flaw::Newer(major)) => {
                return self.found(Kind::NewerFormat, path, None, format!("format {major}"));
            }
            Err(_) => {
                let what = "its checksum is wrong".to_owned();
                return self.found(Kind::MemoryDamaged, path, None, what);
            }
        };
        let label = &self.label;
        if memory.machine != label.machine || memory.instance != label.instance {
            let what = "it is of another storage than the label".to_owned();
            return self.found(Kind::MemoryDisagrees, path, None, what);
        }
        let Some(known) = memory.mounts.iter().find(|known| known.mount == label.mount) else {
            return;
        };
        if known.mount_uuid != label.mount_uuid {
            let what = format!(
                "mount {} is remembered as {} at {}, the label says {}",
                label.mount,
                hex(&known.mount_uuid),
                known.path,
                hex(&label.mount_uuid)
            );
            self.found(Kind::MemoryDisagrees, path, None, what);
        } else if known.log_ids.contains(&label.log_id)
            && known.log_ids.last() != Some(&label.log_id)
        {
            let what = format!("the label's log {:08x} was followed by another one", label.log_id);
            self.found(Kind::LabelOlder, LABEL, None, what);
        }
    }
}
