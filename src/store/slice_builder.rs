//! Cuts slices out of verified batches: which records go to mirrors, and where a slice ends. No IO.
//!
//! Invariants: records stay in order and whole; what is at or before the position of the slice is cut off; a record
//! that is about this machine's own disk only is left out, but the slice reaches over it; a slice never goes beyond
//! the limit that it was given; a slice has at least one record before it is ended for its length.

use crate::format::ids::{ChunkfileId, Sequence};
use crate::format::log::{
    BatchHeader, RECORD_ALIGN, RECORD_HEADER_LEN, RawRecord, Records, padding,
};
use crate::format::record::{KIND_LOCAL, Record};

/// Longest records of a slice in bytes, unless a single record is longer: leaves room in one frame.
pub const SLICE_BYTES_MAX: usize = 1792 << 10;

/// How far a batch was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All of it.
    All,
    /// The slice is as long as it may be, or has reached its limit, before the end of the batch.
    Part,
    /// A record in it cannot be read; what is in front of it was taken.
    Unreadable,
}

/// A slice being gathered.
#[derive(Debug)]
pub struct SliceBuilder {
    /// Everything up to here is in the slice, or was before it.
    pub to: Sequence,
    /// The records.
    pub records: Vec<u8>,
    /// Chunkfiles that they write to, each once.
    pub chunkfiles: Vec<ChunkfileId>,
    limit: Sequence,
    bytes_max: usize,
}

impl SliceBuilder {
    /// A slice of what follows `from`, up to `limit` and of about `bytes_max` bytes.
    #[must_use]
    pub fn new(from: Sequence, limit: Sequence, bytes_max: usize) -> Self {
        let bytes_max = bytes_max.clamp(1, SLICE_BYTES_MAX);
        Self { to: from, records: Vec::new(), chunkfiles: Vec::new(), limit, bytes_max }
    }

    /// Whether no further batch is wanted.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.to >= self.limit || self.records.len() >= self.bytes_max
    }

    /// Whether the batch is the next one of the log: it holds what follows, and nothing is missing before it (R10).
    #[must_use]
    pub const fn continues_with(&self, batch: &BatchHeader) -> bool {
        batch.predecessor <= self.to && self.to < batch.last
    }

    /// Takes what follows from the next batch, whose header and body were verified.
    pub fn take(&mut self, batch: &BatchHeader, body: &[u8]) -> Taken {
        let mut end = 0;
        for record in Records::new(body) {
            let Ok(record) = record else { return Taken::Unreadable };
            let begin = end;
            end = (begin + record_len(&record)).min(body.len());
            if record.sequence <= self.to {
                continue;
            }
            if record.sequence > batch.last {
                return Taken::Unreadable;
            }
            if record.sequence > self.limit {
                self.to = self.limit;
                return Taken::Part;
            }
            if record.kind < KIND_LOCAL {
                let longer = self.records.len() + (end - begin);
                if !self.records.is_empty() && longer > self.bytes_max {
                    return Taken::Part;
                }
                self.push(&record, &body[begin..end]);
            }
            self.to = record.sequence;
        }
        self.to = batch.last.min(self.limit);
        if self.to == batch.last { Taken::All } else { Taken::Part }
    }

    fn push(&mut self, record: &RawRecord<'_>, bytes: &[u8]) {
        self.records.extend_from_slice(bytes);
        self.records.resize(self.records.len().next_multiple_of(RECORD_ALIGN), 0);
        // One that does not parse is for the receiver to quarantine: it is what the origin wrote.
        if let Ok(Some(Record::Edit(edit))) = Record::decode(record.kind, record.head) {
            self.note(edit.home.address.chunkfile());
            if let Some(target) = &edit.target {
                self.note(target.address.chunkfile());
            }
        }
    }

    fn note(&mut self, id: ChunkfileId) {
        if !self.chunkfiles.contains(&id) {
            self.chunkfiles.push(id);
        }
    }
}

/// Whether every record of a verified body can be read.
#[must_use]
pub fn is_readable(batch: &BatchHeader, body: &[u8]) -> bool {
    Records::new(body).all(|record| record.is_ok_and(|record| record.sequence <= batch.last))
}

/// Bytes of a record in a body.
fn record_len(record: &RawRecord<'_>) -> usize {
    let len = RECORD_HEADER_LEN + record.head.len() + record.payload.len();
    len + padding(len)
}
