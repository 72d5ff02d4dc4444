//! Reads a log of this mount record by record for those who mirror it: our own binlog, or what we have received of a
//! peer's (design section 6). Beside the engine: any thread, while the log is written, rotated and recycled.
//!
//! Invariants
//! - Bytes are delivered only under the seal of their batch, its checksum and theirs, and in the order of the log: a
//!   batch counts if its predecessor is covered and its end is not (R10).
//! - Nothing is read beyond what the caller knows to be durable.
//! - A cursor is a hint about where to read; the log itself says whether it still holds. Following the tail costs one
//!   read.

use super::disk::Disk;
use super::log_find::{Found, Segment, Wanted, Window};
use super::read::ReadError;
use super::reader::Reader;
pub use super::slice_builder::SLICE_BYTES_MAX;
use super::slice_builder::{SliceBuilder, Taken};
use super::sync::{LogName, LogSlice};
use crate::format::ids::{ChunkfileId, Sequence};
use crate::format::paths;
use crate::format::record::ChunkfileCreated;
use bytes::Bytes;

/// How often a log that changes under the search is searched again.
const ATTEMPTS: u32 = 8;

/// A place in one log.
pub struct LogCursor {
    own: bool,
    log: LogName,
    position: Sequence,
    /// The segment that was read last, and where its next batch begins.
    place: Option<(Segment, u64)>,
}

impl LogCursor {
    /// What follows `after` will be read. `own`: in our own log, else in what we have received from its machine.
    #[must_use]
    pub const fn new(own: bool, log: LogName, after: Sequence) -> Self {
        Self { own, log, position: after, place: None }
    }

    /// Everything up to here was read.
    #[must_use]
    pub const fn position(&self) -> Sequence {
        self.position
    }

    /// Whose log it is.
    #[must_use]
    pub const fn log(&self) -> LogName {
        self.log
    }
}

impl std::fmt::Debug for LogCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (log, position) = (self.log, self.position);
        f.debug_struct("LogCursor").field("log", &log).field("position", &position).finish()
    }
}

/// What a log has behind a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRead {
    /// The next records; the cursor stands behind them.
    Slice(LogSlice),
    /// Nothing that is durable.
    End,
    /// The log begins only behind `oldest`: it was recycled, or is gone. What is missing comes by state; a cursor at
    /// `oldest` reads on.
    Gone {
        /// Nothing at or before this can be read.
        oldest: Sequence,
    },
    /// Nothing in `(after, before]` can be read, though it was written: damage. What is missing comes by state; a
    /// cursor at `before` reads on.
    Damaged {
        /// Where the cursor stands.
        after: Sequence,
        /// End of the damage; at most what was said to be durable.
        before: Sequence,
    },
}

impl<D: Disk> Reader<D> {
    /// The next records of a log, at most `max_bytes` of them (and never more than
    /// [`SLICE_BYTES_MAX`]), but at least one. `up_to`: the log is durable
    /// at least to here, and nothing behind it is read.
    ///
    /// # Errors
    /// `Io`, `Fenced`, `Newer`; `Unsettled` if the log changes faster than it can be searched. The cursor stays.
    pub fn read_log(
        &self,
        cursor: &mut LogCursor,
        up_to: Sequence,
        max_bytes: usize,
    ) -> Result<LogRead, ReadError> {
        self.check()?;
        let (own, log, position) = (cursor.own, cursor.log, cursor.position);
        if position >= up_to {
            return Ok(LogRead::End);
        }
        for _ in 0..ATTEMPTS {
            if let Some((segment, offset)) = &mut cursor.place {
                let mut slice = SliceBuilder::new(position, up_to, max_bytes);
                let next = gather(segment, *offset, &mut slice)?;
                if slice.to > position {
                    let slice = self.finish_slice(log, position, slice)?;
                    *offset = next;
                    cursor.position = slice.to;
                    return Ok(LogRead::Slice(slice));
                }
                cursor.place = None;
            }
            match self.find_batch(Wanted { own, log, position, up_to })? {
                Found::Batch(segment, offset) => cursor.place = Some((segment, offset)),
                Found::Changed => {}
                Found::Gone(oldest) => return Ok(LogRead::Gone { oldest }),
                Found::Damaged(before) => {
                    return Ok(LogRead::Damaged { after: position, before });
                }
            }
        }
        Err(ReadError::Unsettled("the log changes faster than it can be read"))
    }

    fn finish_slice(
        &self,
        log: LogName,
        from: Sequence,
        built: SliceBuilder,
    ) -> Result<LogSlice, ReadError> {
        let mut chunkfiles = Vec::with_capacity(built.chunkfiles.len());
        for id in built.chunkfiles {
            match self.chunkfile_created(id) {
                Ok(Some(created)) => chunkfiles.push(created),
                // Who has it from nobody quarantines what goes there.
                Ok(None) => {
                    let path = paths::chunk(id);
                    tracing::warn!(path, "the log names a chunkfile that is not here");
                }
                Err(ReadError::Damaged(why)) => {
                    tracing::warn!(%why, "the log names a damaged chunkfile");
                }
                Err(error) => return Err(error),
            }
        }
        let records = Bytes::from(built.records);
        Ok(LogSlice { log, from, to: built.to, chunkfiles, records })
    }

    /// What a mirror needs to have the same chunkfile; `None` if it is not here.
    ///
    /// # Errors
    /// `Damaged` if its header is; `Io`, `Fenced`.
    pub fn chunkfile_created(
        &self,
        id: ChunkfileId,
    ) -> Result<Option<ChunkfileCreated>, ReadError> {
        self.check()?;
        let handle = self.handles().open(self.disk(), self.mount(), id)?;
        Ok(handle.map(|handle| ChunkfileCreated {
            id,
            size_units: handle.size_units,
            created_ms: handle.created_ms,
            secret: handle.secret,
        }))
    }
}

/// Gathers batches from `offset` on as long as they verify and the slice takes them; where the next one begins.
fn gather(segment: &Segment, offset: u64, slice: &mut SliceBuilder) -> Result<u64, ReadError> {
    let mut window = Window::new(segment);
    let mut at = offset;
    while !slice.is_full() {
        let Some(batch) = window.header_at(at)?.filter(|b| slice.continues_with(b)) else { break };
        let Some(body) = window.body(at, &batch)? else { break };
        match slice.take(&batch, body) {
            Taken::All => at += batch.stride(),
            Taken::Part | Taken::Unreadable => break,
        }
    }
    Ok(at)
}

#[cfg(test)]
#[path = "log_reader_tests.rs"]
mod tests;
