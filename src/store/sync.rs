//! What mirrors exchange about one mount (design section 6). Data only; `receive` applies it,
//! `log_reader` reads it.
//!
//! A *slice* is everything of one log in `(from, to]` that is for mirrors, in order. Sequences inside need not be
//! dense: records that are only about this machine's own disk stay at home, and a start begins with a new count. "No
//! gap" means that `from` is covered (R10: linked by predecessor, not by number).

use crate::cluster::coverage::Coverage;
use crate::format::ids::{LogId, MachineId, Position, Sequence};
use crate::format::record::ChunkfileCreated;
use bytes::Bytes;

/// Whose log, and which life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogName {
    /// Origin.
    pub machine: MachineId,
    /// Its log id.
    pub log_id: LogId,
}

impl LogName {
    /// The log in which a record stands.
    #[must_use]
    pub const fn of(position: Position) -> Self {
        Self { machine: position.machine, log_id: position.log_id }
    }

    /// A record in it.
    #[must_use]
    pub const fn at(self, sequence: Sequence) -> Position {
        Position { machine: self.machine, log_id: self.log_id, sequence }
    }

    /// How far `coverage` reaches in it.
    #[must_use]
    pub fn covered_by(self, coverage: &Coverage) -> Sequence {
        coverage.get(self.machine, self.log_id)
    }
}

/// Consecutive records of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSlice {
    /// Whose.
    pub log: LogName,
    /// Everything up to here must be covered already.
    pub from: Sequence,
    /// Whoever applied the slice covers everything up to here.
    pub to: Sequence,
    /// Every chunkfile that a record in it writes to, so that the slice can be applied whatever else is missing.
    pub chunkfiles: Vec<ChunkfileCreated>,
    /// The records as they lie in the body of a batch, each with its own checksums; may be empty.
    pub records: Bytes,
}

/// How the receipt of one slice ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Durable and applied: the coverage of its log is now at least this.
    Covered(Sequence),
    /// Refused: the coverage of its log is only this, less than `from`.
    Gap(Sequence),
    /// Applied up to `covered`; the next record names a large object whose content must be fetched first.
    NeedsContent {
        /// The coverage of its log.
        covered: Sequence,
        /// Which content.
        content: Position,
        /// Its length in bytes.
        length: u64,
    },
    /// Its bytes are not what was sent, or make no sense; nothing of it was taken. Says why.
    Broken(String),
}
