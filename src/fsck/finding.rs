//! What fsck has to say: kinds of findings, each with what it means and what to do.

use std::fmt;

/// What was found.
#[allow(missing_docs, reason = "each says what it means in `texts`")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    LabelMissing,
    LabelDamaged,
    LabelCopyDamaged,
    LabelOlder,
    NewerFormat,
    MemoryDamaged,
    MemoryDisagrees,
    TwoMountsAlike,
    ForgottenDamaged,
    Stranger,
    Unreadable,
    CheckpointDamaged,
    CheckpointForeign,
    CheckpointMissing,
    SegmentHeader,
    SegmentForeign,
    LogDamage,
    LogGap,
    LogTailLost,
    RecordBad,
    ChunkfileHeader,
    ChunkfileMisplaced,
    ChunkfileForeign,
    ChunkfileMissing,
    ChunkfileLong,
    SlotHeader,
    SlotMisdirected,
    SlotFields,
    SlotOverlap,
    SlotPayload,
    SlotGone,
    SlotOlder,
    SlotInFreeSpace,
    SlotUnrecorded,
    SpaceLost,
    ForwardBroken,
    Orphan,
    SingleMissing,
    SingleDamaged,
    SingleLength,
    SingleWrong,
    SingleUnreferenced,
    ConflictDamaged,
    ConflictMisnamed,
    ConflictContent,
}

/// Where a mended copy comes from, for most kinds.
const FROM_MIRROR: &str = "start the storage: what a mirror has is brought back from there; with no mirror, put the \
                           object's content back with `folio modify` from a backup";
const PUT_ASIDE: &str = "move it out of the mount if nobody needs it; Folio never reads it";
const RESTART: &str = "start the storage: it makes this anew from the slots and the log";
const RECOVER: &str = "stop using the mount: let it be recovered from the mirrors (an empty folder in its place), \
                       and keep the damaged one until that is done";

impl Kind {
    /// Its name for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.texts().0
    }

    /// What it means.
    #[must_use]
    pub const fn means(self) -> &'static str {
        self.texts().1
    }

    /// What to do.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        self.texts().2
    }

    const fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::LabelMissing
            | Self::LabelDamaged
            | Self::LabelCopyDamaged
            | Self::LabelOlder
            | Self::NewerFormat
            | Self::MemoryDamaged
            | Self::MemoryDisagrees
            | Self::TwoMountsAlike
            | Self::ForgottenDamaged
            | Self::Stranger
            | Self::Unreadable => self.about_the_mount(),
            Self::CheckpointDamaged
            | Self::CheckpointForeign
            | Self::CheckpointMissing
            | Self::SegmentHeader
            | Self::SegmentForeign
            | Self::LogDamage
            | Self::LogGap
            | Self::LogTailLost
            | Self::RecordBad => self.about_logs(),
            Self::ChunkfileHeader
            | Self::ChunkfileMisplaced
            | Self::ChunkfileForeign
            | Self::ChunkfileMissing
            | Self::ChunkfileLong => self.about_chunkfiles(),
            Self::SlotHeader
            | Self::SlotMisdirected
            | Self::SlotFields
            | Self::SlotOverlap
            | Self::SlotPayload
            | Self::SlotGone
            | Self::SlotOlder
            | Self::SlotInFreeSpace
            | Self::SlotUnrecorded
            | Self::SpaceLost
            | Self::ForwardBroken
            | Self::Orphan => self.about_slots(),
            Self::SingleMissing
            | Self::SingleDamaged
            | Self::SingleLength
            | Self::SingleWrong
            | Self::SingleUnreferenced
            | Self::ConflictDamaged
            | Self::ConflictMisnamed
            | Self::ConflictContent => self.about_files(),
        }
    }

    const fn about_the_mount(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::LabelMissing => (
                "label-missing",
                "nothing says whose mount this is: no daemon will serve it",
                "check the path and whether the disk is mounted; a lost label is recovered with the mount",
            ),
            Self::LabelDamaged => (
                "label-damaged",
                "whose mount this is stands in the copy only, if that is whole",
                "start the storage: it writes the label again from the copy; if it cannot, `recover MOUNT start --confirm` \
                 on its console refills the mount from its mirrors",
            ),
            Self::LabelCopyDamaged => (
                "label-copy-damaged",
                "if the label is damaged, too, nothing will say whose mount this is",
                "start the storage: it is written again",
            ),
            Self::LabelOlder => (
                "label-older",
                "the label is older than what was written under it (a restored copy?): positions could be given twice",
                RECOVER,
            ),
            Self::NewerFormat => (
                "newer-format",
                "a newer Folio wrote this, and this one cannot read it",
                "run the `folio fsck` of the newer version",
            ),
            Self::MemoryDamaged => (
                "memory-damaged",
                "what the storage remembers of its mounts cannot be read: it will not start",
                "move the file away; at the next start the labels of the mounts are adopted",
            ),
            Self::MemoryDisagrees => (
                "memory-disagrees",
                "the storage remembers another mount at this place: it will call this one foreign",
                "put the right disk in place, or let the mount recover",
            ),
            Self::TwoMountsAlike => (
                "two-mounts-alike",
                "two folders are the same mount (a copy?): if both were served, positions would be given twice",
                "take the copy away",
            ),
            Self::ForgottenDamaged => (
                "forgotten-damaged",
                "which members were removed for good stands in one of two files only",
                "start the storage: it is written again from the other one; if both are damaged, take the file from the same \
                 mount of a mirror, or let the mount recover",
            ),
            Self::Stranger => ("stranger", "this is no file of Folio's", PUT_ASIDE),
            _ => (
                "unreadable",
                "the medium gives no bytes here",
                "replace the disk and let the mount recover",
            ),
        }
    }

    const fn about_logs(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::CheckpointDamaged => (
                "checkpoint-damaged",
                "free space and the begin of the replay are not known",
                RESTART,
            ),
            Self::CheckpointForeign => {
                ("checkpoint-foreign", "this is the checkpoint of another mount", RESTART)
            }
            Self::CheckpointMissing => (
                "checkpoint-missing",
                "there is none although the log was recycled: free space is not known",
                RESTART,
            ),
            Self::SegmentHeader => (
                "segment-header",
                "nothing in this log segment can be read: its secret is lost",
                "start the storage: what members have of this log is asked for; keep the file until then",
            ),
            Self::SegmentForeign => (
                "segment-foreign",
                "the segment's header does not say what its name says",
                PUT_ASIDE,
            ),
            Self::LogDamage => (
                "log-damage",
                "records in the middle of the log cannot be read: members that need them get them by state exchange",
                "nothing to do by hand if all members are Live (`peers`): the segment is overwritten in time",
            ),
            Self::LogGap => (
                "log-gap",
                "records that follow each other do not: a part of the log is missing",
                "nothing to do by hand if all members are Live (`peers`); else members catch up by state exchange",
            ),
            Self::LogTailLost => (
                "log-tail-lost",
                "the log ends before what the checkpoint says was in it",
                "start the storage: the slots have it; members that lack it catch up by state exchange",
            ),
            _ => (
                "record-bad",
                "a record with a right checksum makes no sense: it was written wrong",
                "keep a copy of the file and report it as a bug",
            ),
        }
    }

    const fn about_chunkfiles(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::ChunkfileHeader => (
                "chunkfile-header",
                "no slot in this chunkfile can be read: its secret is lost",
                RECOVER,
            ),
            Self::ChunkfileMisplaced => {
                ("chunkfile-misplaced", "the chunkfile does not belong at this path", PUT_ASIDE)
            }
            Self::ChunkfileForeign => {
                ("chunkfile-foreign", "the chunkfile belongs to another mount", PUT_ASIDE)
            }
            Self::ChunkfileMissing => (
                "chunkfile-missing",
                "all objects of this chunkfile are lost on this mount",
                RECOVER,
            ),
            _ => (
                "chunkfile-long",
                "the chunkfile is longer than its header says: what is behind is never read",
                "nothing; it only takes space",
            ),
        }
    }

    const fn about_slots(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::SlotHeader => (
                "slot-header",
                "a slot's header is damaged: its object cannot be read here",
                FROM_MIRROR,
            ),
            Self::SlotMisdirected => (
                "slot-misdirected",
                "a slot header that belongs elsewhere was written here: the disk or its driver misdirects writes",
                "look for what this write has overwritten, and replace the disk",
            ),
            Self::SlotFields => (
                "slot-fields",
                "a sealed slot header makes no sense: it was written wrong",
                FROM_MIRROR,
            ),
            Self::SlotOverlap => (
                "slot-overlap",
                "two slots in use claim the same bytes: one of them is damaged",
                FROM_MIRROR,
            ),
            Self::SlotPayload => (
                "slot-payload",
                "the content does not fit its checksum: the object cannot be read here",
                FROM_MIRROR,
            ),
            Self::SlotGone => (
                "slot-gone",
                "the log says that an object lies here, and there is no slot header",
                FROM_MIRROR,
            ),
            Self::SlotOlder => (
                "slot-older",
                "the slot holds an older version than the log says was stored: the disk lost a write",
                FROM_MIRROR,
            ),
            Self::SlotInFreeSpace => (
                "slot-in-free-space",
                "a slot in use lies in space that the checkpoint calls free: it would be overwritten",
                "move the checkpoint away before the next start: free space is then found from the slots",
            ),
            Self::SlotUnrecorded => (
                "slot-unrecorded",
                "a slot lies behind the space that the checkpoint says was handed out: the log lost its end",
                "start the storage: it keeps the slot",
            ),
            Self::SpaceLost => (
                "space-lost",
                "bytes that were handed out belong to no slot and are not free: a slot's header may be gone",
                FROM_MIRROR,
            ),
            Self::ForwardBroken => (
                "forward-broken",
                "the object moved, and what its home names is not its content",
                FROM_MIRROR,
            ),
            _ => (
                "orphan",
                "a slot that no home names and that is not recorded as free: its space is never used again",
                "move the checkpoint away before the next start: free space is then found from the slots",
            ),
        }
    }

    const fn about_files(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::SingleMissing => {
                ("single-missing", "the content of a large object is not there", FROM_MIRROR)
            }
            Self::SingleDamaged => (
                "single-damaged",
                "a part of a large object does not fit its checksum",
                FROM_MIRROR,
            ),
            Self::SingleLength => {
                ("single-length", "a large object's file is too short or too long", FROM_MIRROR)
            }
            Self::SingleWrong => {
                ("single-wrong", "the file is not the content that its object names", FROM_MIRROR)
            }
            Self::SingleUnreferenced => (
                "single-unreferenced",
                "no object names this content: it only takes space",
                "remove it once `folio fsck` says so twice, with a start of the storage in between",
            ),
            Self::ConflictDamaged => (
                "conflict-damaged",
                "a version that lost a conflict cannot be read here",
                "look for it in `conflicts` of another mirror; then remove the file",
            ),
            Self::ConflictMisnamed => (
                "conflict-misnamed",
                "an archived conflict is not the one that its name says",
                PUT_ASIDE,
            ),
            _ => (
                "conflict-content",
                "the content of a large version that lost a conflict is missing or damaged",
                "look for it in `conflicts` of another mirror",
            ),
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// In which file, below the mount.
    pub path: String,
    /// Where in it, in bytes; `None` if it is about the whole file.
    pub offset: Option<u64>,
    /// Which object, version, record ...
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, path, offset, what } = self;
        let name = kind.name();
        match offset {
            Some(offset) => writeln!(f, "{name}: {path} at byte {offset}: {what}")?,
            None => writeln!(f, "{name}: {path}: {what}")?,
        }
        writeln!(f, "  means: {}", kind.means())?;
        write!(f, "  do: {}", kind.remedy())
    }
}

/// Takes what is found, as it is found.
pub trait Sink {
    /// Something is wrong.
    fn finding(&mut self, finding: Finding);
    /// Nothing is wrong, but a person should know.
    fn note(&mut self, note: String);
}

/// Keeps what is found, up to a number.
#[derive(Debug, Default)]
pub struct Kept {
    /// The first of them.
    pub findings: Vec<Finding>,
    /// Of how many.
    pub count: u64,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Findings that are kept.
pub const KEPT_MAX: usize = 10_000;

impl Sink for Kept {
    fn finding(&mut self, finding: Finding) {
        self.count += 1;
        if self.findings.len() < KEPT_MAX {
            self.findings.push(finding);
        }
    }

    fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}
