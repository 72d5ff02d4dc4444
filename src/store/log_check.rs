//! Verifying the logs of a mount, segment by segment, beside everything else (P3): our own and what is kept of others'.
//!
//! Invariants: what is beyond the durable tail, or stems from an earlier use of a recycled segment, is not judged; a segment
//! whose name goes away while it is read is not judged either. A received log may have gaps, where the mount caught up by
//! state: a batch that begins further on is no damage, bytes that are no batch in front of one are.

use super::checkpoints::{decode_checkpoint, read_checkpoint_bytes};
use super::disk::Disk;
use super::log_find::{Opened, Segment, Wanted, Window};
use super::read::ReadError;
use super::reader::Reader;
use super::sync::LogName;
use crate::format::ids::{MachineId, Sequence};
use crate::format::log::{BATCH_ALIGN, SEGMENT_HEADER_LEN};
use crate::format::paths::{BINLOG, MountFile, SYNCLOG, SegmentName};
use std::io::ErrorKind;

/// A segment of a log, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentRef {
    /// Of our own log, or received.
    pub own: bool,
    /// Which log.
    pub log: LogName,
    /// Where it begins.
    pub first: Sequence,
}

impl SegmentRef {
    const fn wanted(&self) -> Wanted {
        Wanted { own: self.own, log: self.log, position: 0, up_to: 0 }
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> String {
        let name = SegmentName { log_id: self.log.log_id, first: self.first };
        if self.own {
            MountFile::Binlog(name).path()
        } else {
            MountFile::Synclog(self.log.machine, name).path()
        }
    }
}

/// What is known to be durable of a segment behind which none is; zero where nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// Records up to here.
    pub last: Sequence,
    /// Batches up to this byte.
    pub end: u64,
}

/// How a segment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// It came or went while it was read.
    Changed,
    /// As it was written; so many bytes.
    Whole(u64),
    /// What is wrong, and where: bytes from, until.
    Damaged(&'static str, Vec<(u64, u64)>),
}

/// Damaged places of a segment that are named.
const PLACES_MAX: usize = 16;
/// How much is named as damaged where nothing follows, bytes.
const TAIL: u64 = 256 << 10;

impl<D: Disk> Reader<D> {
    /// Every segment of every log on the mount, in order; `us` is whose binlog it is.
    ///
    /// # Errors
    /// `Io`, `Fenced`.
    pub fn log_segments(&self, us: MachineId) -> Result<Vec<SegmentRef>, ReadError> {
        self.check()?;
        let mut found = Vec::new();
        let mut folders = vec![BINLOG.to_owned()];
        folders.extend(self.names_in(SYNCLOG)?.iter().map(|name| format!("{SYNCLOG}/{name}")));
        for folder in folders {
            for name in self.names_in(&folder)? {
                let (own, machine, name) = match MountFile::parse(&format!("{folder}/{name}")) {
                    Some(MountFile::Binlog(name)) => (true, us, name),
                    Some(MountFile::Synclog(machine, name)) => (false, machine, name),
                    Some(_) | None => continue,
                };
                let log = LogName { machine, log_id: name.log_id };
                found.push(SegmentRef { own, log, first: name.first });
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn names_in(&self, folder: &str) -> Result<Vec<String>, ReadError> {
        match self.disk().list(folder) {
            Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(ReadError::io(folder)(e)),
        }
    }

    /// Verifies a segment. `next`: the one behind it in the same log; `durable`: what is known if there is none.
    ///
    /// # Errors
    /// `Io`, `Fenced`, `Newer`.
    pub fn check_segment(
        &self,
        at: SegmentRef,
        next: Option<SegmentRef>,
        durable: Durable,
    ) -> Result<SegmentState, ReadError> {
        self.check()?;
        let segment = match self.open_segment(at.wanted(), at.first)? {
            Opened::Segment(segment) => segment,
            Opened::Missing => return Ok(SegmentState::Changed),
            Opened::Unusable => {
                let header = vec![(0, SEGMENT_HEADER_LEN as u64)];
                return Ok(SegmentState::Damaged("the header of a segment is damaged", header));
            }
        };
        let target = match next {
            None => durable,
            Some(next) => match self.open_segment(next.wanted(), next.first)? {
                Opened::Segment(next) => Durable { last: next.header.predecessor, end: 0 },
                Opened::Missing => return Ok(SegmentState::Changed),
                // It is judged by itself.
                Opened::Unusable => Durable::default(),
            },
        };
        let state = check_batches(&segment, target)?;
        if matches!(state, SegmentState::Damaged(..)) {
            let path = at.path();
            let there = self.disk().stat(&path).map_err(ReadError::io(path.as_str()))?;
            if there.is_none() {
                return Ok(SegmentState::Changed);
            }
        }
        Ok(state)
    }

    /// Whether the checkpoint on the medium is as it was written; `None`: there is none.
    ///
    /// # Errors
    /// `Fenced`, `Newer`.
    pub fn check_checkpoint(&self) -> Result<Option<bool>, ReadError> {
        self.check()?;
        match read_checkpoint_bytes(self.disk()) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => match decode_checkpoint(&bytes) {
                Ok(found) => Ok(Some(found.is_some())),
                // A later program wrote it.
                Err(_) => Ok(None),
            },
            Err(_) => Ok(Some(false)),
        }
    }
}

/// Walks the batches until they have reached what is durable, or there are none.
fn check_batches(segment: &Segment, durable: Durable) -> Result<SegmentState, ReadError> {
    let mut window = Window::new(segment);
    let (mut at, mut last) = (SEGMENT_HEADER_LEN as u64, segment.header.predecessor);
    let mut damaged = Vec::new();
    loop {
        if durable.last > 0 && last >= durable.last {
            break;
        }
        let batch = window.header_at(at)?.filter(|batch| batch.last > last);
        if let Some(batch) = batch
            && window.body(at, &batch)?.is_some()
        {
            last = batch.last;
            at += batch.stride();
            continue;
        }
        let behind = window.next_header(at + BATCH_ALIGN as u64)?;
        let later = match behind {
            Some(behind) => window.header_at(behind)?.filter(|b| b.last > last).map(|_| behind),
            None => None,
        };
        match later {
            Some(behind) if damaged.len() < PLACES_MAX => {
                damaged.push((at, behind));
                at = behind;
            }
            Some(_) => break,
            None if last < durable.last || at < durable.end => {
                damaged.push((at, at + TAIL));
                return Ok(SegmentState::Damaged(
                    "the last batches of a segment are damaged",
                    damaged,
                ));
            }
            None => break,
        }
    }
    if damaged.is_empty() {
        return Ok(SegmentState::Whole(at));
    }
    Ok(SegmentState::Damaged("a batch in the middle of a segment is damaged", damaged))
}
