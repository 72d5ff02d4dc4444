//! What a storage has been through in the last minute: counters that only rise, sampled each second, so that `status` can
//! say "lately" and not "ever".
//!
//! Invariants: bounded; a restart knows nothing and complains of nothing.

use crate::store::histogram::Counted;
use std::collections::{BTreeMap, VecDeque};

/// Samples that are kept: a minute.
const KEPT: usize = 60;
/// Over how many of them a wait is averaged: it should show what is, not what was.
const RECENT: usize = 10;
/// A sync that takes longer is slow, microseconds.
const SLOW_US: u64 = 250_000;
/// Fewer syncs say nothing.
const SYNCS_MIN: u64 = 8;

/// Rising counters at one instant.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// Requests that were told `Busy`.
    pub busy: u64,
    /// Of each mount: syncs, and slow ones among them.
    pub syncs: BTreeMap<u8, (u64, u64)>,
    /// Changes that their mount began with, and the microseconds that all of them had waited for that.
    pub queue: (u64, u64),
}

/// Syncs, and slow ones among them.
pub(super) fn slow_of(counted: &Counted) -> (u64, u64) {
    let fast = counted.bounds.partition_point(|bound| *bound <= SLOW_US);
    (counted.buckets.iter().sum(), counted.buckets.iter().skip(fast).sum())
}

/// The last minute.
#[derive(Debug, Default)]
pub(super) struct Lately {
    samples: VecDeque<Sample>,
}

impl Lately {
    /// A second went by.
    pub fn take(&mut self, sample: Sample) {
        if self.samples.len() > KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Requests that were told `Busy` in the last minute.
    pub fn busy(&self) -> u64 {
        match (self.samples.front(), self.samples.back()) {
            (Some(first), Some(last)) => last.busy.saturating_sub(first.busy),
            _ => 0,
        }
    }

    /// How long a change of the last seconds waited before its mount began with it, in the mean, microseconds; 0 when there
    /// was none.
    pub fn queue_delay_us(&self) -> u64 {
        let before = self.samples.len().saturating_sub(RECENT + 1);
        let (Some(first), Some(last)) = (self.samples.get(before), self.samples.back()) else {
            return 0;
        };
        let changes = last.queue.0.saturating_sub(first.queue.0);
        let waited = last.queue.1.saturating_sub(first.queue.1);
        waited.checked_div(changes).unwrap_or(0)
    }

    /// Mounts more than half of whose syncs of the last minute were slow: (mount, slow ones, all).
    pub fn slow(&self) -> Vec<(u8, u64, u64)> {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return Vec::new();
        };
        let of = |(mount, (all, slow)): (&u8, &(u64, u64))| {
            let (all_before, slow_before) = first.syncs.get(mount).copied().unwrap_or_default();
            let (all, slow) = (all.saturating_sub(all_before), slow.saturating_sub(slow_before));
            (all >= SYNCS_MIN && slow * 2 > all).then_some((*mount, slow, all))
        };
        last.syncs.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::histogram::{Histogram, MICROS};

    fn sample(busy: u64, all: u64, slow: u64) -> Sample {
        Sample { busy, syncs: [(3, (all, slow))].into(), queue: (0, 0) }
    }

    #[test]
    fn the_queue_delay_is_that_of_the_last_seconds() {
        let mut lately = Lately::default();
        assert_eq!(lately.queue_delay_us(), 0);
        let waited = |changes, us| Sample { queue: (changes, us), ..Sample::default() };
        lately.take(waited(100, 9_000_000));
        assert_eq!(lately.queue_delay_us(), 0, "from before the first sample");
        lately.take(waited(110, 9_005_000));
        assert_eq!(lately.queue_delay_us(), 500);
        for _ in 0..RECENT {
            lately.take(waited(110, 9_005_000));
        }
        assert_eq!(lately.queue_delay_us(), 0, "nothing waited in the last seconds");
    }

    #[test]
    fn what_is_long_ago_is_not_held_against_anybody() {
        let mut lately = Lately::default();
        assert_eq!((lately.busy(), lately.slow()), (0, Vec::new()));
        lately.take(sample(7, 100, 90));
        assert_eq!((lately.busy(), lately.slow()), (0, Vec::new()), "from before the first sample");
        lately.take(sample(9, 120, 105));
        assert_eq!((lately.busy(), lately.slow()), (2, vec![(3, 15, 20)]));
        for _ in 0..=KEPT {
            lately.take(sample(9, 120, 105));
        }
        assert_eq!((lately.busy(), lately.slow()), (0, Vec::new()));
        assert!(lately.samples.len() <= KEPT + 1);
    }

    #[test]
    fn a_few_slow_syncs_among_many_are_none() {
        let mut lately = Lately::default();
        lately.take(sample(0, 0, 0));
        lately.take(sample(0, 100, 40));
        assert_eq!(lately.slow(), []);
        let histogram = Histogram::new(MICROS);
        for us in [10, SLOW_US, SLOW_US + 1, 20_000_000] {
            histogram.record(us);
        }
        assert_eq!(slow_of(&histogram.counted()), (4, 2));
    }
}
