//! What the paths of a mount mean (docs/FORMAT.md, "Where things lie"). A name that would not come out the same when
//! it is written again is nobody we know.

use super::bytes::{ChunkId, Position, Take, crc32c};
use data_encoding::BASE64URL_NOPAD;

/// A segment of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// Whose log it is: `None` in `binlog`, the machine in `synclog`.
    pub peer: Option<u16>,
    pub log_id: u32,
    pub first: u64,
}

/// A file of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    Label,
    /// The label once more.
    LabelCopy,
    Checkpoint,
    /// Members that were removed for good.
    Forgotten,
    RecoveryState,
    /// On its way in, or the next segment being prepared: nothing to check.
    Temporary,
    Chunk(ChunkId),
    Single(Position),
    Segment(SegmentName),
    Conflict([u8; 45], Position),
    ConflictSingle(Position),
    /// The mark of a version that was given up.
    ConflictDropped([u8; 45], Position),
    /// A segment whose header was damaged: a start did without it and kept it for people.
    DamagedSegment(SegmentName),
    /// The folder that holds what was on the mount before it was refilled.
    SetAside,
}

/// What this path is, if it is anything.
pub fn parse(path: &str) -> Option<Named> {
    let named = guess(path)?;
    (write(&named, path) == path).then_some(named)
}

fn guess(path: &str) -> Option<Named> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["folio.mount"] => Some(Named::Label),
        ["folio.mount.copy"] => Some(Named::LabelCopy),
        ["checkpoint"] => Some(Named::Checkpoint),
        ["folio.forgotten" | "folio.forgotten.copy"] => Some(Named::Forgotten),
        ["recovery.state"] => Some(Named::RecoveryState),
        // Nothing depends on how far a verification is: one that is damaged begins anew.
        ["scrub.state" | "scrub.state.tmp"] => Some(Named::Temporary),
        // What was found damaged and replaced, kept for people.
        ["damaged", name] => {
            let (at, number) = name.split_once('-')?;
            hex64(at)?;
            hex32(number)?;
            Some(Named::Temporary)
        }
        ["folio.mount.tmp" | "folio.forgotten.tmp" | "checkpoint.tmp" | "recovery.state.tmp"]
        | ["binlog", "spare"] => Some(Named::Temporary),
        ["chunks", machine, log_id, _, name] => Some(Named::Chunk(ChunkId {
            machine: machine.parse().ok()?,
            log_id: hex32(log_id)?,
            number: hex32(name.strip_suffix(".chunk")?)?,
        })),
        ["singles", "tmp", name] => {
            let position = position(name.strip_suffix(".tmp")?)?;
            (*name == format!("{}.tmp", position_text(position))).then_some(Named::Temporary)
        }
        ["singles", machine, log_id, _, _, name] => Some(Named::Single(Position {
            machine: machine.parse().ok()?,
            log_id: hex32(log_id)?,
            sequence: hex64(name.strip_suffix(".single")?)?,
        })),
        ["binlog", name] => segment(None, name),
        ["synclog", peer, name] => segment(Some(peer.parse().ok()?), name),
        [folder] if folder.strip_prefix("set-aside-").is_some_and(is_time) => Some(Named::SetAside),
        ["conflicts", name] => archived(name),
        // What an operator had set aside when the mount was refilled.
        [first, _, ..] if first.starts_with("set-aside-") => Some(Named::Temporary),
        _ => None,
    }
}

fn segment(peer: Option<u16>, name: &str) -> Option<Named> {
    let whole = name.strip_suffix(".damaged").unwrap_or(name);
    let (log_id, first) = whole.strip_suffix(".log")?.split_once('-')?;
    let segment = SegmentName { peer, log_id: hex32(log_id)?, first: hex64(first)? };
    Some(if whole == name { Named::Segment(segment) } else { Named::DamagedSegment(segment) })
}

/// Milliseconds since 1970, as a name carries them.
fn is_time(text: &str) -> bool {
    text.parse::<u64>().is_ok_and(|ms| ms.to_string() == text)
}

fn archived(name: &str) -> Option<Named> {
    if let Some(content) = name.strip_suffix(".single") {
        return position(content).map(Named::ConflictSingle);
    }
    if let Some(lost) = name.strip_suffix(".dropped") {
        return losing(lost).map(|(object, edit)| Named::ConflictDropped(object, edit));
    }
    losing(name).map(|(object, edit)| Named::Conflict(object, edit))
}

/// The object and the edit that name a losing version.
fn losing(name: &str) -> Option<([u8; 45], Position)> {
    let (object, edit) = name.split_at_checked(60)?;
    let object = BASE64URL_NOPAD.decode(object.as_bytes()).ok()?;
    let object: [u8; 45] = object.try_into().ok()?;
    let mut check = Take(&object[41..]);
    let right = check.u32() == Ok(crc32c(&object[..41]));
    let edit = position(edit.strip_prefix('-')?)?;
    right.then_some((object, edit))
}

/// The path of a file; `path` for those that have only one.
fn write(named: &Named, path: &str) -> String {
    match named {
        Named::Label
        | Named::LabelCopy
        | Named::Checkpoint
        | Named::Forgotten
        | Named::RecoveryState
        | Named::SetAside
        | Named::Temporary => path.to_owned(),
        Named::Chunk(id) => chunk(*id),
        Named::Single(content) => single(*content),
        Named::Segment(name) => log_segment(name),
        Named::DamagedSegment(name) => format!("{}.damaged", log_segment(name)),
        Named::Conflict(object, edit) => conflict(object, *edit),
        Named::ConflictSingle(content) => conflict_single(*content),
        Named::ConflictDropped(object, edit) => format!("{}.dropped", conflict(object, *edit)),
    }
}

/// Path of a chunkfile.
pub fn chunk(id: ChunkId) -> String {
    let ChunkId { machine, log_id, number } = id;
    format!("chunks/{machine}/{log_id:08x}/{:02x}/{number:08x}.chunk", (number >> 8) & 0xff)
}

/// Path of a singlefile.
pub fn single(content: Position) -> String {
    let Position { machine, log_id, sequence } = content;
    let (xx, yy) = ((sequence >> 16) & 0xff, (sequence >> 8) & 0xff);
    format!("singles/{machine}/{log_id:08x}/{xx:02x}/{yy:02x}/{sequence:016x}.single")
}

/// Path of the content of a large version that lost.
pub fn conflict_single(content: Position) -> String {
    format!("conflicts/{}.single", position_text(content))
}

/// Path of an archived conflict.
pub fn conflict(object: &[u8; 45], edit: Position) -> String {
    format!("conflicts/{}-{}", BASE64URL_NOPAD.encode(object), position_text(edit))
}

/// Path of a log segment.
pub fn log_segment(name: &SegmentName) -> String {
    let SegmentName { peer, log_id, first } = name;
    match peer {
        None => format!("binlog/{log_id:08x}-{first:016x}.log"),
        Some(peer) => format!("synclog/{peer}/{log_id:08x}-{first:016x}.log"),
    }
}

fn position_text(position: Position) -> String {
    format!("{}-{:08x}-{:016x}", position.machine, position.log_id, position.sequence)
}

fn position(text: &str) -> Option<Position> {
    let mut parts = text.splitn(3, '-');
    Some(Position {
        machine: parts.next()?.parse().ok()?,
        log_id: hex32(parts.next()?)?,
        sequence: hex64(parts.next()?)?,
    })
}

fn hex32(text: &str) -> Option<u32> {
    (text.len() == 8).then(|| u32::from_str_radix(text, 16).ok())?
}

fn hex64(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_not_be_written_so_are_strangers() {
        for path in [
            "chunks/7/0000abcd/12/00001234.chunk",
            "singles/7/0000abcd/12/34/0001000000123456.single",
            "singles/tmp/7-0000abcd-0001000000123456.tmp",
            "binlog/0000abcd-0001000000123456.log",
            "synclog/9/0000abcd-0001000000123456.log",
            "conflicts/7-0000abcd-0001000000123456.single",
            "binlog/spare",
            "scrub.state",
            "damaged/0001000000123456-00000000",
            "binlog/0000abcd-0001000000123456.log.damaged",
            "synclog/9/0000abcd-0001000000123456.log.damaged",
            "set-aside-1700000000000",
        ] {
            assert!(parse(path).is_some(), "{path}");
        }
        for path in [
            "",
            "x",
            "chunks/07/0000abcd/12/00001234.chunk",
            "chunks/7/0000abcd/13/00001234.chunk",
            "chunks/7/0000ABCD/12/00001234.chunk",
            "singles/tmp/07-0000abcd-0001000000123456.tmp",
            "binlog/0000ABCD-0001000000123456.log.damaged",
            "set-aside-",
            "set-aside-by-hand",
            "set-aside-01",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
