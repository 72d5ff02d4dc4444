//! Counting how long or how large things are, from any thread, without waiting: relaxed atomics only.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds for times, in microseconds: 50 us to 10 s.
pub const MICROS: &[u64] = &[
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];
/// Upper bounds for numbers of records.
pub const COUNTS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/// Values by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what is above all of them.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram held at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Upper bounds, each included in its bucket.
    pub bounds: &'static [u64],
    /// Values in each bucket, the one above all bounds last.
    pub buckets: Vec<u64>,
    /// All values together.
    pub sum: u64,
}

impl Histogram {
    /// Nothing counted yet. The bounds grow.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Counts a value.
    pub fn record(&self, value: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What it holds now. Values that are counted meanwhile may be in it or not.
    #[must_use]
    pub fn counted(&self) -> Counted {
        Counted {
            bounds: self.bounds,
            buckets: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_that_takes_it_and_none_is_lost() {
        let histogram = Histogram::new(COUNTS);
        for value in [0, 1, 2, 3, 1_024, 1_025, u64::MAX / 2] {
            histogram.record(value);
        }
        let counted = histogram.counted();
        assert_eq!(counted.buckets, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(counted.sum, 1 + 2 + 3 + 1_024 + 1_025 + u64::MAX / 2);
    }
}
