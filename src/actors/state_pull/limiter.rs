//! So many bytes per second, on average.
//!
//! Invariant: what was spent is waited for afterwards, by whoever spent it; a limit of none costs nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// See the module.
pub struct Limiter {
    per_second: Option<u64>,
    /// When everything that was spent is paid.
    paid: Mutex<Instant>,
}

impl Limiter {
    /// A limit.
    pub fn new(per_second: Option<u64>) -> Self {
        Self { per_second: per_second.filter(|rate| *rate > 0), paid: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes more are within the limit.
    pub async fn spend(&self, bytes: u64) {
        let Some(rate) = self.per_second else { return };
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
        let limiter = Limiter::new(Some(1000));
        let begun = Instant::now();
        for _ in 0..10 {
            limiter.spend(500).await;
        }
        assert_eq!(begun.elapsed().as_millis(), 5000);
        Limiter::new(None).spend(u64::MAX).await;
        Limiter::new(Some(0)).spend(u64::MAX).await;
        assert_eq!(begun.elapsed().as_millis(), 5000);
    }
}
