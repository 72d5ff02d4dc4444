//! The members of a syncgroup, as labels and memories carry them: who mirrors this mount.
//!
//! ```text
//! member: machine u16, log ids u16, 0 u32
//!   8  mount uuid 16, instance uuid 16
//!  40  address (length u8, UTF-8), then the log ids, u32 each, the current one last
//! ```

use super::bytes::{Reader, Short, Writer};
use super::ids::{LogId, MachineId};

/// A member of the syncgroup, for one mount index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its machine id.
    pub machine: MachineId,
    /// `host:port` where its storage listens; at most 255 bytes.
    pub address: String,
    /// Uuid of its mount of this index.
    pub mount_uuid: [u8; 16],
    /// Uuid of its storage.
    pub instance: [u8; 16],
    /// Logs that this mount has had, the current one last.
    pub log_ids: Vec<LogId>,
}

pub(super) fn put_members(w: &mut Writer<'_>, members: &[Member]) {
    for member in members.iter().take(usize::from(count(members.len()))) {
        w.u16(member.machine).u16(count(member.log_ids.len())).u32(0);
        w.put(&member.mount_uuid).put(&member.instance).text8(&member.address);
        put_log_ids(w, &member.log_ids);
    }
}

pub(super) fn take_members(r: &mut Reader<'_>, members: u16) -> Result<Vec<Member>, Short> {
    let mut all = Vec::new();
    for _ in 0..members {
        let (machine, log_ids, _) = (r.u16()?, r.u16()?, r.u32()?);
        let (mount_uuid, instance) = (r.array()?, r.array()?);
        let address = r.text8()?.to_owned();
        let log_ids = take_log_ids(r, log_ids)?;
        all.push(Member { machine, address, mount_uuid, instance, log_ids });
    }
    Ok(all)
}

/// Writes the newest of them, as many as a u16 counts.
pub(super) fn put_log_ids(w: &mut Writer<'_>, log_ids: &[LogId]) {
    for log_id in &log_ids[log_ids.len() - usize::from(count(log_ids.len()))..] {
        w.u32(*log_id);
    }
}

pub(super) fn take_log_ids(r: &mut Reader<'_>, count: u16) -> Result<Vec<LogId>, Short> {
    (0..count).map(|_| r.u32()).collect()
}

/// How many of `n` entries are written. A syncgroup has a handful of members, a mount a handful of logs.
pub(super) fn count(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}
