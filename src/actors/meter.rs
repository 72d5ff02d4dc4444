//! What a daemon counts of its requests, for its metrics, and the flight recorder of the last ones.
//!
//! Invariants: counting never waits for anybody (relaxed atomics); the recorder keeps [`RECORDED`] requests and no
//! payload; what a connection has finished in one turn goes into it under one lock.

use super::ambient::{self, Monotonic};
use crate::format::file_id::ObjectId;
use crate::messages::error::ErrorCode;
use crate::messages::opcode::Opcode;
use crate::store::histogram::{COUNTS, Histogram, MICROS};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Requests that the flight recorder keeps.
pub const RECORDED: usize = 4_096;

/// Where the time of a mutation went, microseconds since its frame came. 0: it did not get there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// Its mount began with it: what it waited for is the queue.
    pub staged_us: u64,
    /// It was in the log and in its slot.
    pub durable_us: u64,
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// When the answer was made, ms since 1970.
    pub at_ms: u64,
    /// Who asked.
    pub who: Arc<str>,
    /// Opcode as it came.
    pub opcode: u16,
    /// `None`: done.
    pub refused: Option<ErrorCode>,
    /// The object, where it is known.
    pub object: Option<ObjectId>,
    /// Bytes of content that came or went.
    pub bytes: u64,
    /// See [`Stages`].
    pub stages: Stages,
    /// From the frame to the answer, microseconds.
    pub total_us: u64,
}

/// Requests of one opcode.
#[derive(Debug)]
struct Row {
    opcode: Opcode,
    done: AtomicU64,
    /// By place in [`ErrorCode::ALL`].
    refused: Box<[AtomicU64]>,
    latency: Histogram,
}

/// The requests of one daemon.
#[derive(Debug)]
pub struct Meter {
    /// Counts from the start of the daemon.
    pub clock: Monotonic,
    started_ms: u64,
    rows: Vec<Row>,
    /// Mutations: from the frame to the moment when the mount began with them.
    pub queue: Histogram,
    /// Bytes of content that came with requests.
    pub bytes_in: AtomicU64,
    /// Bytes of content that left with answers.
    pub bytes_out: AtomicU64,
    recorded: Mutex<VecDeque<Answered>>,
}

/// Requests of one opcode, as they are told.
#[derive(Debug)]
pub struct Counted<'a> {
    /// Which.
    pub opcode: Opcode,
    /// Done.
    pub done: u64,
    /// Not done, with why.
    pub refused: Vec<(ErrorCode, u64)>,
    /// Times of all of them, microseconds.
    pub latency: &'a Histogram,
}

/// What is counted of one mount.
#[derive(Debug)]
pub struct MountMeters {
    /// The daemon's.
    pub meter: Arc<Meter>,
    /// One commit: the log written and synced, the slots written. Microseconds.
    pub commits: Histogram,
    /// Changes in one commit.
    pub batches: Histogram,
    /// One fdatasync, of the log or of a checkpoint. Microseconds.
    pub syncs: Arc<Histogram>,
}

impl MountMeters {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(meter: Arc<Meter>) -> Self {
        Self {
            meter,
            commits: Histogram::new(MICROS),
            batches: Histogram::new(COUNTS),
            syncs: Arc::new(Histogram::new(MICROS)),
        }
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

impl Meter {
    /// Nothing asked yet.
    #[must_use]
    pub fn new() -> Self {
        let rows = Opcode::TABLE.iter().map(|entry| Row {
            opcode: entry.opcode,
            done: AtomicU64::new(0),
            refused: ErrorCode::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            latency: Histogram::new(MICROS),
        });
        Self {
            clock: Monotonic::start(),
            started_ms: ambient::wall_ms(),
            rows: rows.collect(),
            queue: Histogram::new(MICROS),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            recorded: Mutex::new(VecDeque::with_capacity(RECORDED)),
        }
    }

    /// Counts a request that took so many microseconds. Opcodes that nobody knows are not counted here.
    pub fn count(&self, opcode: u16, refused: Option<ErrorCode>, us: u64) {
        let Some(row) = self.rows.iter().find(|row| row.opcode.as_u16() == opcode) else { return };
        let counter = match refused {
            None => Some(&row.done),
            Some(code) => {
                let at = ErrorCode::ALL.iter().position(|known| *known == code);
                at.and_then(|at| row.refused.get(at))
            }
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        row.latency.record(us);
    }

    /// The wall clock time of a moment of [`Self::clock`].
    #[must_use]
    pub fn wall_ms(&self, now_us: u64) -> u64 {
        self.started_ms + now_us / 1_000
    }

    /// Everything counted, opcode by opcode; those that were never asked are left out.
    #[must_use]
    pub fn counted(&self) -> Vec<Counted<'_>> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rows = self.rows.iter().map(|row| {
            let codes = ErrorCode::ALL.iter().copied().zip(row.refused.iter().map(load));
            Counted {
                opcode: row.opcode,
                done: load(&row.done),
                refused: codes.filter(|(_, n)| *n > 0).collect(),
                latency: &row.latency,
            }
        });
        rows.filter(|row| row.done > 0 || !row.refused.is_empty()).collect()
    }

    /// Remembers requests; the oldest ones are forgotten for them. Leaves `answered` empty.
    pub fn record(&self, answered: &mut Vec<Answered>) {
        if answered.is_empty() {
            return;
        }
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        for answered in answered.drain(..) {
            if recorded.len() >= RECORDED {
                recorded.pop_front();
            }
            recorded.push_back(answered);
        }
    }

    /// The last requests that pass, the newest first, at most `most`.
    pub fn recorded(&self, most: usize, pass: impl Fn(&Answered) -> bool) -> Vec<Answered> {
        let recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.iter().rev().filter(|answered| pass(answered)).take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(bytes: u64) -> Answered {
        Answered {
            at_ms: 0,
            who: "somebody".into(),
            opcode: Opcode::Get.as_u16(),
            refused: None,
            object: None,
            bytes,
            stages: Stages::default(),
            total_us: 1,
        }
    }

    #[test]
    fn every_request_is_counted_once_by_what_became_of_it() {
        let meter = Meter::new();
        meter.count(Opcode::Get.as_u16(), None, 70);
        meter.count(Opcode::Get.as_u16(), Some(ErrorCode::NotFound), 10);
        meter.count(Opcode::Get.as_u16(), Some(ErrorCode::NotFound), 10);
        meter.count(0xffff, None, 10);
        let counted = meter.counted();
        assert_eq!(counted.len(), 1, "what was never asked is left out");
        assert_eq!((counted[0].opcode, counted[0].done), (Opcode::Get, 1));
        assert_eq!(counted[0].refused, [(ErrorCode::NotFound, 2)]);
        assert_eq!(counted[0].latency.counted().buckets.iter().sum::<u64>(), 3);
    }

    #[test]
    fn the_recorder_never_grows_and_keeps_the_newest() {
        let meter = Meter::new();
        for n in 0..RECORDED as u64 + 10 {
            meter.record(&mut vec![answered(n)]);
        }
        let all = meter.recorded(usize::MAX, |_| true);
        assert_eq!(all.len(), RECORDED);
        assert_eq!((all[0].bytes, all[RECORDED - 1].bytes), (RECORDED as u64 + 9, 10));
        assert_eq!(meter.recorded(2, |a| a.bytes % 2 == 0).len(), 2);
    }
}
