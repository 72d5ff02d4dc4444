//! How far a mirror is behind, in bytes and in time: a log's recent history, thinned as it ages.
//!
//! Invariant: at most `SAMPLES_MAX` samples, whatever the rate (P8); what is older than the history is "at least".

use crate::format::ids::Sequence;
use std::collections::VecDeque;

/// Most samples that are kept.
const SAMPLES_MAX: usize = 512;
/// Commits closer together than this share a sample at first, milliseconds.
const STEP_MS: u64 = 10;

#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Everything up to here was durable ...
    sequence: Sequence,
    /// ... after so many bytes since the start ...
    bytes: u64,
    /// ... at this time.
    at_ms: u64,
}

/// A lag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Sequences between. Nearly the records: a restart leaves a gap that is not counted.
    pub records: u64,
    /// Bytes, about.
    pub bytes: u64,
    /// Age of the oldest change that the mirror lacks, milliseconds.
    pub ms: u64,
}

/// The recent history of one log.
#[derive(Clone, Debug, Default)]
pub struct LagMeter {
    samples: VecDeque<Sample>,
    bytes: u64,
}

impl LagMeter {
    /// Everything up to `sequence` is durable, `bytes` more than before.
    pub fn note(&mut self, sequence: Sequence, bytes: u64, now_ms: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        let (total, begun) = (self.bytes, self.samples.len() > 1);
        match self.samples.back_mut() {
            Some(last) if begun && now_ms.saturating_sub(last.at_ms) < STEP_MS => {
                (last.sequence, last.bytes) = (sequence, total);
            }
            _ => self.samples.push_back(Sample { sequence, bytes: total, at_ms: now_ms }),
        }
        if self.samples.len() > SAMPLES_MAX {
            // The older half is kept at half its density.
            let mut place = 0;
            self.samples.retain(|_| {
                place += 1;
                place > SAMPLES_MAX / 2 || place % 2 == 0
            });
        }
    }

    /// How far behind a mirror is that covers `covered`.
    #[must_use]
    pub fn behind(&self, covered: Sequence, now_ms: u64) -> Lag {
        let Some(last) = self.samples.back() else { return Lag::default() };
        if covered >= last.sequence {
            return Lag::default();
        }
        let next = self.samples.partition_point(|sample| sample.sequence <= covered);
        let has = next.checked_sub(1).and_then(|at| self.samples.get(at)).map_or(0, |s| s.bytes);
        let since = self.samples.get(next).map_or(now_ms, |sample| sample.at_ms);
        let same_start = covered >> 48 == last.sequence >> 48;
        Lag {
            records: if same_start {
                last.sequence - covered
            } else {
                last.sequence & ((1 << 48) - 1)
            },
            bytes: last.bytes.saturating_sub(has),
            ms: now_ms.saturating_sub(since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_everything_is_not_behind() {
        let mut meter = LagMeter::default();
        assert_eq!(meter.behind(0, 99), Lag::default());
        meter.note(10, 1000, 50);
        assert_eq!(meter.behind(10, 5000), Lag::default());
        assert_eq!(meter.behind(11, 5000), Lag::default());
    }

    #[test]
    fn the_oldest_missing_change_counts() {
        let mut meter = LagMeter::default();
        for i in 1..=100 {
            meter.note(i, 100, i * 1000);
        }
        let lag = meter.behind(40, 100_500);
        assert_eq!(lag, Lag { records: 60, bytes: 6000, ms: 100_500 - 41_000 });
    }

    #[test]
    fn the_history_stays_small_and_never_understates() {
        let mut meter = LagMeter::default();
        for i in 1..=100_000_u64 {
            meter.note(i, 1, i * 20);
            assert!(meter.samples.len() <= SAMPLES_MAX + 1);
        }
        let now = 100_000 * 20;
        for covered in [1, 50_000, 99_000, 99_999] {
            let lag = meter.behind(covered, now);
            assert_eq!(lag.records, 100_000 - covered);
            assert!(lag.bytes >= 100_000 - covered, "{lag:?}");
        }
    }
}
