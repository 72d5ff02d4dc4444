//! `folio fsck`: looks at a mount from outside and says what is wrong with it.
//!
//! Written from `docs/FORMAT.md` and nothing else: this room has its own decoders and names neither the engine nor the
//! engine's formats, so an error there is not made here a second time (`tests/layers.rs` keeps it so).
//!
//! Invariants
//! - Nothing is written, and no lock is kept.
//! - A healthy mount gives no finding, also one whose daemon was killed: what the next start mends by replaying the log
//!   is a note.
//! - Memory does not grow with the number of objects: a bit or two per 64 bytes of the chunkfiles that are looked at
//!   together ([`Options::together`]), a filter of fixed size for the contents of large objects, and lists that end at
//!   `LIST_MAX`.
//!
//! | file | what it looks at |
//! |---|---|
//! | `label` | label and memory |
//! | `checkpoint` | the checkpoint |
//! | `logs`, `records` | binlog and synclogs: segments, batches, what the records say about the slots |
//! | `chunks`, `slots`, `space` | chunkfiles: headers, slots, forwards, and whose every byte is |
//! | `singles`, `conflicts` | large contents, and versions that lost |

mod bits;
mod bytes;
mod checkpoint;
mod chunks;
mod conflicts;
pub mod finding;
mod label;
mod logs;
pub mod medium;
mod names;
mod records;
mod singles;
mod slot;
mod slots;
mod space;

use bits::Sieve;
use bytes::{ChunkId, Position};
use checkpoint::Checkpoint;
use finding::{Finding, Kind, Sink};
use label::Label;
use medium::Medium;
use names::{Named, SegmentName};
use records::Expected;
use std::collections::{BTreeMap, HashSet};

/// Entries of a list that grows with what is wrong, or with what was not replayed yet.
const LIST_MAX: usize = 1 << 20;
/// What a medium loses at a time.
const BLOCK: usize = 4096;

/// How to look.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of chunkfiles that are looked at together. Each takes a 256th part of it in memory; all slot headers are
    /// read once for each such part.
    pub together: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { together: 64 << 30 }
    }
}

/// The memory of the storage, if it was found.
#[derive(Clone, Copy, Debug)]
pub struct MemoryFile<'a> {
    /// Where, for people.
    pub path: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Uuid of the mount, in hexadecimal; empty if the label cannot be read.
    pub mount_uuid: String,
    /// `group.syncgroup.machine`, as in the state folder's name.
    pub storage: String,
    /// Chunkfiles.
    pub chunkfiles: u64,
    /// Homes of live and of deleted objects.
    pub objects: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Singlefiles.
    pub singles: u64,
    /// Log segments.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Archived conflicts.
    pub conflicts: u64,
    /// Records that no checkpoint covers: the next start replays them.
    pub to_replay: u64,
}

/// Name of the storage that a mount belongs to, as its state folder is called; `None` if the label cannot be read.
#[must_use]
pub fn storage_of(medium: &dyn Medium) -> Option<String> {
    label::read(medium).ok().map(|label| storage_name(&label))
}

fn storage_name(label: &Label) -> String {
    format!("{}.{}.{}", label.group, label.syncgroup, label.machine)
}

/// Looks at a mount.
pub fn check(
    medium: &dyn Medium,
    memory: Option<MemoryFile<'_>>,
    options: Options,
    sink: &mut dyn Sink,
) -> Summary {
    let label = match label::read(medium) {
        Ok(label) => label,
        Err((kind, what)) => {
            sink.finding(Finding { kind, path: label::LABEL.to_owned(), offset: None, what });
            sink.note("nothing else was looked at: without its label it is nobody's".to_owned());
            return Summary::default();
        }
    };
    let summary = Summary {
        mount_uuid: hex(&label.mount_uuid),
        storage: storage_name(&label),
        ..Summary::default()
    };
    let mut run = Run {
        medium,
        sink,
        options,
        label,
        summary,
        checkpoint: None,
        chunks: BTreeMap::new(),
        segments: Vec::new(),
        behind: Behind::default(),
        expected: Vec::new(),
        short_conflicts: HashSet::new(),
        large: Sieve::new(),
        suppressed: 0,
        no_undelete: 0,
    };
    if let Some(memory) = memory {
        run.check_memory(memory.bytes, memory.path);
    }
    run.all();
    run.summary
}

/// A chunkfile whose header is right.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    size_units: u32,
    secret: [u8; 16],
}

/// What no checkpoint covers: the next start writes it (again), so nothing is known about it now.
#[derive(Debug, Default)]
struct Behind {
    records: u64,
    /// Places named by these records.
    places: HashSet<(ChunkId, u32)>,
    /// Chunkfiles that they create.
    chunkfiles: HashSet<ChunkId>,
    /// There were too many to list.
    too_many: bool,
}

impl Behind {
    fn covers(&self, chunk: ChunkId, unit: u32) -> bool {
        self.too_many || self.places.contains(&(chunk, unit))
    }
}

/// One look at one mount.
struct Run<'a> {
    medium: &'a dyn Medium,
    sink: &'a mut dyn Sink,
    options: Options,
    label: Label,
    summary: Summary,
    checkpoint: Option<Checkpoint>,
    chunks: BTreeMap<ChunkId, Chunk>,
    segments: Vec<SegmentName>,
    behind: Behind,
    /// Slots that the log says are there, and where no header was found.
    expected: Vec<Expected>,
    /// Archived conflicts that end too early.
    short_conflicts: HashSet<([u8; 45], Position)>,
    /// Contents that some home names.
    large: Sieve,
    /// What would be a finding if it were not about to be replayed.
    suppressed: u64,
    /// Deleted objects whose content is not here.
    no_undelete: u64,
}

impl Run<'_> {
    fn all(&mut self) {
        let mut chunkfiles = Vec::new();
        self.names("", &mut chunkfiles, 0);
        self.read_checkpoint();
        self.check_conflicts();
        let bad = self.chunkfile_headers(&chunkfiles);
        self.check_logs();
        self.chunkfiles_missing(&bad);
        self.check_slots();
        self.unreferenced_singles();
        if self.no_undelete > 0 {
            self.sink.note(format!(
                "{} deleted objects cannot be undeleted with what is here: a concurrent edit took the place of their \
                 content, or it is damaged; a mirror may have it",
                self.no_undelete
            ));
        }
        let (records, suppressed) = (self.behind.records, self.suppressed);
        self.summary.to_replay = records;
        if records > 0 {
            self.sink.note(format!(
                "needs replay: {records} records are behind the checkpoint; the next start of the daemon applies them{}",
                match suppressed {
                    0 => String::new(),
                    n => format!(", and with them {n} places that are not right yet"),
                }
            ));
        }
    }

    fn found(&mut self, kind: Kind, path: &str, offset: Option<u64>, what: String) {
        self.sink.finding(Finding { kind, path: path.to_owned(), offset, what });
    }

    /// Every name on the mount: strangers are found, chunkfiles and segments noted.
    fn names(&mut self, folder: &str, chunkfiles: &mut Vec<ChunkId>, depth: usize) {
        const DEPTH_MAX: usize = 6;
        for entry in self.list(folder) {
            let path = match folder {
                "" => entry.name.clone(),
                _ => format!("{folder}/{}", entry.name),
            };
            if path == "lost+found" {
                continue;
            }
            if entry.is_dir && depth < DEPTH_MAX && is_folder(&path) {
                self.names(&path, chunkfiles, depth + 1);
                continue;
            }
            match names::parse(&path) {
                Some(Named::Chunk(id)) => chunkfiles.push(id),
                Some(Named::Segment(name)) => self.segments.push(name),
                Some(Named::LabelCopy) => self.check_label_copy(&path, entry.len),
                Some(Named::Forgotten) => self.check_forgotten(&path, entry.len),
                Some(Named::RecoveryState) => {
                    self.sink.note("a recovery of this mount is under way".to_owned());
                }
                Some(Named::DamagedSegment(_)) => self.sink.note(format!(
                    "{path}: a log segment with a damaged header, which a start put aside; its records were lost here. Nobody \
                     reads it any more"
                )),
                Some(Named::SetAside) if entry.is_dir => self.sink.note(format!(
                    "{path}: what was on this mount before it was refilled; it may be removed when nobody needs it"
                )),
                Some(named) if named != Named::SetAside => {}
                Some(_) | None => {
                    self.found(Kind::Stranger, &path, None, "nobody knows this name".to_owned())
                }
            }
        }
    }

    fn list(&mut self, folder: &str) -> Vec<medium::Name> {
        match self.medium.list(folder) {
            Ok(entries) => entries,
            Err(error) => {
                self.found(Kind::Unreadable, folder, None, error.to_string());
                Vec::new()
            }
        }
    }

    fn len(&mut self, path: &str) -> Option<u64> {
        match self.medium.len(path) {
            Ok(len) => len,
            Err(error) => {
                self.found(Kind::Unreadable, path, None, error.to_string());
                None
            }
        }
    }

    /// Up to `len` bytes. Blocks that the medium does not give are reported and read as zeros, which never verify.
    fn read(&mut self, path: &str, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let got = match self.medium.read(path, offset, &mut bytes) {
            Ok(got) => got,
            Err(error) => {
                self.found(Kind::Unreadable, path, Some(offset), error.to_string());
                self.read_around(path, offset, &mut bytes)
            }
        };
        bytes.truncate(got);
        bytes
    }

    fn read_around(&self, path: &str, offset: u64, bytes: &mut [u8]) -> usize {
        let mut got = 0;
        for block in bytes.chunks_mut(BLOCK) {
            match self.medium.read(path, offset + got as u64, block) {
                Ok(n) if n < block.len() => return got + n,
                Ok(n) => got += n,
                Err(_) => {
                    block.fill(0);
                    got += block.len();
                }
            }
        }
        got
    }
}

/// Folders that hold what is ours, at any depth.
fn is_folder(path: &str) -> bool {
    let top = path.split('/').next().unwrap_or(path);
    matches!(top, "chunks" | "singles" | "binlog" | "synclog" | "conflicts" | "damaged")
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
