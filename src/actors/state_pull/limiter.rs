//! So many bytes per second, on average.
//!
//! Invariants: the rate may change while it is in use; what was spent is waited for afterwards, by whoever spent it; a limit of none costs nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// See the module.
pub struct Limiter {
    /// 0: no limit.
    per_second: Arc<AtomicU64>,
    /// When everything that was spent is paid.
    paid: Mutex<Instant>,
}

impl Limiter {
    /// A limit.
    pub fn new(per_second: Arc<AtomicU64>) -> Self {
        Self { per_second, paid: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes more are within the limit.
    pub async fn spend(&self, bytes: u64) {
        let rate = self.per_second.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let paid = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            let micros = bytes.saturating_mul(1_000_000) / rate;
            *paid = (*paid).max(Instant::now()) + Duration::from_micros(micros);
            *paid
        };
        tokio::time::sleep_until(paid).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_gets_more_than_the_limit() {
        let rate = Arc::new(AtomicU64::new(1000));
        let limiter = Limiter::new(Arc::clone(&rate));
        let begun = Instant::now();
        for _ in 0..10 {
            limiter.spend(500).await;
        }
        assert_eq!(begun.elapsed().as_millis(), 5000);
        rate.store(0, Ordering::Relaxed);
        limiter.spend(u64::MAX).await;
        assert_eq!(begun.elapsed().as_millis(), 5000, "the limit was lifted");
    }
}
