//! What a daemon has in hand: requests and bytes in flight. The only backpressure there is (R1).
//!
//! Invariants: a permit is taken *before* anything enters a mailbox or a queue, and lives until the answer has left for
//! the socket; what is taken is always given back (Drop); nobody waits for a permit, exhausted means `Busy`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The budget of one daemon.
#[derive(Debug)]
pub struct Budget {
    requests_max: AtomicUsize,
    bytes_max: AtomicU64,
    requests: AtomicUsize,
    bytes: AtomicU64,
    refused: AtomicU64,
}

impl Budget {
    /// So many requests and bytes at a time.
    #[must_use]
    pub fn new(requests_max: usize, bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            requests_max: AtomicUsize::new(requests_max),
            bytes_max: AtomicU64::new(bytes_max),
            requests: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Room for one request with so many bytes, if there is any. A request that is larger than the whole budget is
    /// let through alone, else it never would be.
    #[must_use]
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<Permit> {
        let max = self.requests_max.load(Ordering::Relaxed);
        if self.requests.fetch_add(1, Ordering::Relaxed) >= max {
            self.requests.fetch_sub(1, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let mut permit = Permit { budget: Arc::clone(self), bytes: 0 };
        permit.grow(bytes).then_some(permit)
    }

    /// (requests, bytes) in flight.
    #[must_use]
    pub fn in_flight(&self) -> (usize, u64) {
        (self.requests.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// (requests, bytes) at most.
    #[must_use]
    pub fn limits(&self) -> (usize, u64) {
        (self.requests_max.load(Ordering::Relaxed), self.bytes_max.load(Ordering::Relaxed))
    }

    /// From now on so many requests at a time. What is in flight goes on.
    pub fn set_requests_max(&self, requests_max: usize) {
        self.requests_max.store(requests_max, Ordering::Relaxed);
    }

    /// From now on so many bytes at a time. What is in flight goes on.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// How often somebody was told `Busy`.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// One request's share. Given back when dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Permit {
    /// Takes so many bytes more; `false` if there is no room for them.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        if bytes == 0 {
            return true;
        }
        let before = self.budget.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before != 0 && before.saturating_add(bytes) > self.budget.limits().1 {
            self.budget.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.budget.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Bytes that it stands for.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_beyond_the_limits_and_nothing_is_lost() {
        let budget = Budget::new(3, 100);
        let first = budget.take(60).expect("room");
        assert!(budget.take(50).is_none(), "bytes");
        assert_eq!(budget.in_flight(), (1, 60), "a refusal takes nothing");
        let second = budget.take(40).expect("room");
        let third = budget.take(0).expect("room");
        assert!(budget.take(0).is_none(), "requests");
        drop((first, second, third));
        assert_eq!(budget.in_flight(), (0, 0));
        assert_eq!(budget.refused(), 2);
    }

    #[test]
    fn a_request_larger_than_the_whole_budget_gets_through_alone() {
        let budget = Budget::new(10, 100);
        let large = budget.take(1000).expect("alone");
        assert!(budget.take(1).is_none());
        drop(large);
        let _small = budget.take(1).expect("room");
        assert!(budget.take(1000).is_none(), "not alone");
    }
}
