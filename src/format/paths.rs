//! Where things lie on a mount. Every path is built from integers, and read back strictly: a name that we would
//! not have written ourselves is nobody we know.
//!
//! ```text
//! folio.mount                                                 label
//! folio.mount.copy                                            the label once more
//! folio.forgotten                                             members that were removed for good
//! folio.forgotten.copy                                        the same list once more
//! checkpoint                                                  applied coverage, free space
//! recovery.state                                              while the mount is refilled; it does not serve
//! scrub.state                                                 how far the verification of the mount is
//! damaged/<time>-<number>                                     bytes that were found damaged and replaced, for people
//! chunks/<machine>/<log id>/<xx>/<number>.chunk               xx: bits 8..16 of the number
//! singles/<machine>/<log id>/<xx>/<yy>/<sequence>.single      xx, yy: bits 16..24 and 8..16 of the sequence
//! singles/tmp/<machine>-<log id>-<sequence>.tmp               a large object on its way in
//! binlog/<log id>-<first sequence>.log                        segments of our own log
//! binlog/spare                                                the next segment, being pre-written
//! binlog/<log id>-<first sequence>.log.damaged                a segment with a damaged header, which a start did without; for people
//! synclog/<peer>/<log id>-<first sequence>.log                segments received from a peer
//! conflicts/<object>-<machine>-<log id>-<sequence>            a losing version, by the position of its edit
//! conflicts/<machine>-<log id>-<sequence>.single              the content of a large one (a link of its singlefile)
//! conflicts/<object>-<machine>-<log id>-<sequence>.dropped    empty: it was given up, and is not kept again
//! set-aside-<ms>/                                             what was on the mount before it was refilled, since 1970 in ms, decimal
//! ```
//!
//! Machines are decimal; log ids and chunk numbers are 8, sequences and times (ms since 1970) 16 hexadecimal digits; an object is the 60
//! characters of its id without names. What is about to be renamed into place has `.tmp` behind its name.
//! Neighbouring numbers share a folder, so that a small store has few of them.

use super::file_id::{OBJECT_ID_LEN, ObjectId};
use super::ids::{ChunkfileId, LogId, MachineId, Position, Sequence};
use data_encoding::BASE64URL_NOPAD;
use std::fmt;

/// The label.
pub const LABEL: &str = "folio.mount";
/// The label on its way in: alone in a folder it counts as nothing.
pub const LABEL_TMP: &str = "folio.mount.tmp";
/// The label once more: read where the label itself is damaged.
pub const LABEL_COPY: &str = "folio.mount.copy";
/// Members that were removed for good.
pub const FORGOTTEN: &str = "folio.forgotten";
/// The same on its way in.
pub const FORGOTTEN_TMP: &str = "folio.forgotten.tmp";
/// The same list once more: read where the list itself is damaged.
pub const FORGOTTEN_COPY: &str = "folio.forgotten.copy";
/// The checkpoint.
pub const CHECKPOINT: &str = "checkpoint";
/// The checkpoint on its way in.
pub const CHECKPOINT_TMP: &str = "checkpoint.tmp";
/// State of a running recovery.
pub const RECOVERY_STATE: &str = "recovery.state";
/// The same on its way in.
pub const RECOVERY_STATE_TMP: &str = "recovery.state.tmp";
/// How far the verification of the mount is.
pub const SCRUB_STATE: &str = "scrub.state";
/// The same on its way in.
pub const SCRUB_STATE_TMP: &str = "scrub.state.tmp";
/// Folder of the bytes that were found damaged and replaced.
pub const DAMAGED: &str = "damaged";
/// Folder of the chunkfiles.
pub const CHUNKS: &str = "chunks";
/// Folder of the singlefiles.
pub const SINGLES: &str = "singles";
/// Folder of large objects on their way in.
pub const SINGLES_TMP: &str = "singles/tmp";
/// Folder of our own log.
pub const BINLOG: &str = "binlog";
/// The next segment of our own log, being pre-written so that its syncs are cheap. Holds nothing yet.
pub const BINLOG_SPARE: &str = "binlog/spare";
/// Folder of the peers' logs.
pub const SYNCLOG: &str = "synclog";
/// Folder of the losing versions.
pub const CONFLICTS: &str = "conflicts";
/// What a freshly made file system has in its root.
pub const LOST_AND_FOUND: &str = "lost+found";

/// A segment of a log, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// Its log.
    pub log_id: LogId,
    /// The sequence that its first record has at least.
    pub first: Sequence,
}

/// Every file that a mount may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MountFile {
    /// See [`LABEL`].
    Label,
    /// See [`LABEL_TMP`].
    LabelTmp,
    /// See [`LABEL_COPY`].
    LabelCopy,
    /// See [`FORGOTTEN`].
    Forgotten,
    /// See [`FORGOTTEN_TMP`].
    ForgottenTmp,
    /// See [`FORGOTTEN_COPY`].
    ForgottenCopy,
    /// See [`CHECKPOINT`].
    Checkpoint,
    /// See [`CHECKPOINT_TMP`].
    CheckpointTmp,
    /// See [`RECOVERY_STATE`].
    RecoveryState,
    /// See [`RECOVERY_STATE_TMP`].
    RecoveryStateTmp,
    /// See [`SCRUB_STATE`].
    ScrubState,
    /// See [`SCRUB_STATE_TMP`].
    ScrubStateTmp,
    /// Bytes that were found damaged: when, ms since 1970, and a number.
    Damaged(u64, u32),
    /// A chunkfile.
    Chunk(ChunkfileId),
    /// A singlefile, by the id of its content.
    Single(Position),
    /// The same on its way in.
    SingleTmp(Position),
    /// A segment of our own log.
    Binlog(SegmentName),
    /// See [`BINLOG_SPARE`].
    BinlogSpare,
    /// A segment of a peer's log.
    Synclog(MachineId, SegmentName),
    /// A losing version: object, position of its edit.
    Conflict(ObjectId, Position),
    /// The content of a large losing version, by its content id.
    ConflictSingle(Position),
    /// A losing version that was given up: object, position of its edit.
    ConflictDropped(ObjectId, Position),
}

impl MountFile {
    /// Path below the mount's root.
    #[must_use]
    pub fn path(&self) -> String {
        self.to_string()
    }

    /// The file at this path, if it is one that we would have written.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let file = Self::guess(path)?;
        // One text per file: leading zeros, other case or another folder are refused by writing it again.
        (file.to_string() == path).then_some(file)
    }

    fn guess(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.splitn(7, '/').collect();
        match parts.as_slice() {
            [name] => Self::guess_top(name),
            [CHUNKS, machine, log_id, _, name] => Some(Self::Chunk(ChunkfileId {
                machine: machine.parse().ok()?,
                log_id: hex32(log_id)?,
                chunk: hex32(name.strip_suffix(".chunk")?)?,
            })),
            [SINGLES, "tmp", name] => position(name.strip_suffix(".tmp")?).map(Self::SingleTmp),
            [SINGLES, machine, log_id, _, _, name] => Some(Self::Single(Position {
                machine: machine.parse().ok()?,
                log_id: hex32(log_id)?,
                sequence: hex64(name.strip_suffix(".single")?)?,
            })),
            [BINLOG, "spare"] => Some(Self::BinlogSpare),
            [BINLOG, name] => segment(name).map(Self::Binlog),
            [SYNCLOG, peer, name] => Some(Self::Synclog(peer.parse().ok()?, segment(name)?)),
            [DAMAGED, name] => {
                let (at, number) = name.split_once('-')?;
                Some(Self::Damaged(hex64(at)?, hex32(number)?))
            }
            [CONFLICTS, name] if name.ends_with(".single") => {
                position(name.strip_suffix(".single")?).map(Self::ConflictSingle)
            }
            [CONFLICTS, name] => match name.strip_suffix(".dropped") {
                Some(name) => losing(name).map(|(object, at)| Self::ConflictDropped(object, at)),
                None => losing(name).map(|(object, at)| Self::Conflict(object, at)),
            },
            _ => None,
        }
    }

    fn guess_top(name: &str) -> Option<Self> {
        match name {
            LABEL => Some(Self::Label),
            LABEL_TMP => Some(Self::LabelTmp),
            LABEL_COPY => Some(Self::LabelCopy),
            FORGOTTEN => Some(Self::Forgotten),
            FORGOTTEN_TMP => Some(Self::ForgottenTmp),
            FORGOTTEN_COPY => Some(Self::ForgottenCopy),
            CHECKPOINT => Some(Self::Checkpoint),
            CHECKPOINT_TMP => Some(Self::CheckpointTmp),
            RECOVERY_STATE => Some(Self::RecoveryState),
            RECOVERY_STATE_TMP => Some(Self::RecoveryStateTmp),
            SCRUB_STATE => Some(Self::ScrubState),
            SCRUB_STATE_TMP => Some(Self::ScrubStateTmp),
            _ => None,
        }
    }
}

impl fmt::Display for MountFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label => f.write_str(LABEL),
            Self::LabelTmp => f.write_str(LABEL_TMP),
            Self::Forgotten => f.write_str(FORGOTTEN),
            Self::ForgottenTmp => f.write_str(FORGOTTEN_TMP),
            Self::LabelCopy => f.write_str(LABEL_COPY),
            Self::ForgottenCopy => f.write_str(FORGOTTEN_COPY),
            Self::Checkpoint => f.write_str(CHECKPOINT),
            Self::CheckpointTmp => f.write_str(CHECKPOINT_TMP),
            Self::RecoveryState => f.write_str(RECOVERY_STATE),
            Self::RecoveryStateTmp => f.write_str(RECOVERY_STATE_TMP),
            Self::ScrubState => f.write_str(SCRUB_STATE),
            Self::ScrubStateTmp => f.write_str(SCRUB_STATE_TMP),
            Self::Damaged(at, number) => write!(f, "{DAMAGED}/{at:016x}-{number:08x}"),
            Self::Chunk(id) => {
                let (m, l, n) = (id.machine, id.log_id, id.chunk);
                write!(f, "{CHUNKS}/{m}/{l:08x}/{:02x}/{n:08x}.chunk", (n >> 8) & 0xff)
            }
            Self::Single(c) => {
                let (m, l, s) = (c.machine, c.log_id, c.sequence);
                let (xx, yy) = ((s >> 16) & 0xff, (s >> 8) & 0xff);
                write!(f, "{SINGLES}/{m}/{l:08x}/{xx:02x}/{yy:02x}/{s:016x}.single")
            }
            Self::SingleTmp(c) => {
                write!(f, "{SINGLES_TMP}/{}-{:08x}-{:016x}.tmp", c.machine, c.log_id, c.sequence)
            }
            Self::Binlog(s) => write!(f, "{BINLOG}/{:08x}-{:016x}.log", s.log_id, s.first),
            Self::BinlogSpare => f.write_str(BINLOG_SPARE),
            Self::Synclog(peer, s) => {
                write!(f, "{SYNCLOG}/{peer}/{:08x}-{:016x}.log", s.log_id, s.first)
            }
            Self::Conflict(object, e) => {
                let object = object.text();
                let (m, l, s) = (e.machine, e.log_id, e.sequence);
                write!(f, "{CONFLICTS}/{object}-{m}-{l:08x}-{s:016x}")
            }
            Self::ConflictDropped(object, edit) => {
                write!(f, "{}.dropped", Self::Conflict(*object, *edit))
            }
            Self::ConflictSingle(c) => {
                write!(f, "{CONFLICTS}/{}-{:08x}-{:016x}.single", c.machine, c.log_id, c.sequence)
            }
        }
    }
}

/// Path of a chunkfile.
#[must_use]
pub fn chunk(id: ChunkfileId) -> String {
    MountFile::Chunk(id).path()
}

/// Path of a singlefile, by the id of its content.
#[must_use]
pub fn single(content: Position) -> String {
    MountFile::Single(content).path()
}

/// Path of a singlefile on its way in.
#[must_use]
pub fn single_tmp(content: Position) -> String {
    MountFile::SingleTmp(content).path()
}

/// Path of the content of a large version that lost, by its content id.
#[must_use]
pub fn conflict_single(content: Position) -> String {
    MountFile::ConflictSingle(content).path()
}

/// Path of a segment of our own log.
#[must_use]
pub fn binlog(log_id: LogId, first: Sequence) -> String {
    MountFile::Binlog(SegmentName { log_id, first }).path()
}

/// The folder in which a path lies; `""` is the mount's root.
#[must_use]
pub fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn hex32(text: &str) -> Option<u32> {
    (text.len() == 8).then(|| u32::from_str_radix(text, 16).ok())?
}

fn hex64(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?
}

fn position(text: &str) -> Option<Position> {
    let mut parts = text.splitn(3, '-');
    Some(Position {
        machine: parts.next()?.parse().ok()?,
        log_id: hex32(parts.next()?)?,
        sequence: hex64(parts.next()?)?,
    })
}

/// The object and the edit that name a losing version.
fn losing(name: &str) -> Option<(ObjectId, Position)> {
    let (object, edit) = name.split_at_checked(60)?;
    let bytes = BASE64URL_NOPAD.decode(object.as_bytes()).ok()?;
    let bytes: [u8; OBJECT_ID_LEN] = bytes.try_into().ok()?;
    Some((ObjectId::decode(&bytes).ok()?, position(edit.strip_prefix('-')?)?))
}

fn segment(name: &str) -> Option<SegmentName> {
    let (log_id, first) = name.strip_suffix(".log")?.split_once('-')?;
    Some(SegmentName { log_id: hex32(log_id)?, first: hex64(first)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::file_id::ObjectKind;
    use proptest::prelude::*;

    fn files(p: Position, n: u32, peer: u16, cookie: u64) -> [MountFile; 21] {
        let name = SegmentName { log_id: p.log_id, first: p.sequence };
        let object = ObjectId {
            kind: ObjectKind::Chunk,
            machine: peer,
            mount: 0,
            log_id: p.log_id.max(1),
            sequence: p.sequence.max(1),
            created_s: n,
            chunk: n,
            offset_units: 64,
            capacity_units: 3,
            cookie,
        };
        [
            MountFile::Label,
            MountFile::LabelTmp,
            MountFile::Checkpoint,
            MountFile::CheckpointTmp,
            MountFile::RecoveryState,
            MountFile::Chunk(ChunkfileId { machine: p.machine, log_id: p.log_id, chunk: n }),
            MountFile::Single(p),
            MountFile::SingleTmp(p),
            MountFile::Binlog(name),
            MountFile::Synclog(peer, name),
            MountFile::Conflict(object, p),
            MountFile::BinlogSpare,
            MountFile::ConflictSingle(p),
            MountFile::ConflictDropped(object, p),
            MountFile::Forgotten,
            MountFile::ForgottenTmp,
            MountFile::ScrubState,
            MountFile::ScrubStateTmp,
            MountFile::Damaged(p.sequence, n),
            MountFile::LabelCopy,
            MountFile::ForgottenCopy,
        ]
    }

    #[test]
    fn the_paths_are_the_documented_ones() {
        let p = Position { machine: 7, log_id: 0xabcd, sequence: 0x0001_0000_0012_3456 };
        let paths: Vec<String> = files(p, 0x1234, 9, 0).iter().map(MountFile::path).collect();
        assert_eq!(
            paths[5..10],
            [
                "chunks/7/0000abcd/12/00001234.chunk",
                "singles/7/0000abcd/12/34/0001000000123456.single",
                "singles/tmp/7-0000abcd-0001000000123456.tmp",
                "binlog/0000abcd-0001000000123456.log",
                "synclog/9/0000abcd-0001000000123456.log",
            ]
        );
        assert_eq!(folder(&paths[5]), "chunks/7/0000abcd/12");
        assert_eq!(folder(LABEL), "");
    }

    #[test]
    fn names_that_we_would_not_write_are_nobody() {
        for path in [
            "",
            "/",
            "folio.mount/",
            "Folio.mount",
            "chunks/7/0000abcd/13/00001234.chunk",
            "chunks/07/0000abcd/12/00001234.chunk",
            "chunks/+7/0000abcd/12/00001234.chunk",
            "chunks/7/0000ABCD/12/00001234.chunk",
            "chunks/7/+000abcd/12/00001234.chunk",
            "chunks/7/0000abcd/12/1234.chunk",
            "chunks/7/0000abcd/12/00001234.chunk.tmp",
            "chunks/../0000abcd/12/00001234.chunk",
            "chunks//7/0000abcd/12/00001234.chunk",
            "chunks/65536/0000abcd/12/00001234.chunk",
            "singles/tmp/7-0000abcd-0001000000123456.tmp.tmp",
            "binlog/0000abcd-0001000000123456.log~",
            "binlog/0000abcd-000100000012345g.log",
            "binlog/a/0000abcd-0001000000123456.log",
            "conflicts/ääääääääääääääääääääääääääääää-7-0000abcd-0001000000123456",
        ] {
            assert_eq!(MountFile::parse(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_names_one_file(
            machine: u16, log_id: u32, sequence: u64, n: u32, peer: u16, cookie: u64,
        ) {
            for file in files(Position { machine, log_id, sequence }, n, peer, cookie) {
                let path = file.path();
                prop_assert_eq!(MountFile::parse(&path), Some(file));
                for at in 0..path.len() {
                    let mut other = path.clone();
                    other.remove(at);
                    if let Some(found) = MountFile::parse(&other) {
                        prop_assert_eq!(found.path(), other);
                        prop_assert_ne!(found, file);
                    }
                }
            }
        }

        #[test]
        fn names_from_anywhere_are_no_danger(path in "\\PC{0,80}|[a-z]{1,9}/[0-9a-f/.-]{0,60}") {
            if let Some(file) = MountFile::parse(&path) {
                prop_assert_eq!(file.path(), path);
            }
        }
    }
}
