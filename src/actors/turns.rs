//! Steps that read our state for a member that copies it: one after the other while clients ask, so that those go first.
//!
//! Invariant: a step holds no thread while it waits for its turn.

use super::ambient::Monotonic;
use super::read_pool::{Job, ReadPool};
use crate::cluster::pace::Pace;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// See the module.
#[derive(Debug)]
pub struct Turns {
    clock: Monotonic,
    pace: Arc<Mutex<Pace>>,
}

impl Turns {
    /// Nobody copies yet.
    #[must_use]
    pub fn new(clock: Monotonic) -> Self {
        Self { clock, pace: Arc::default() }
    }

    /// Has a thread of the pool do a step in its turn, which is waited for on `net`. `clients` counts the requests of clients.
    pub fn take(&self, net: &Handle, clients: u64, pool: &Arc<ReadPool>, step: Job) {
        let pause = lock(&self.pace).begin(self.clock.now_us(), clients);
        let (clock, pace) = (self.clock, Arc::clone(&self.pace));
        let timed: Job = Box::new(move || {
            let begun = clock.now_us();
            step();
            lock(&pace).took(clock.now_us().saturating_sub(begun));
        });
        if pause == 0 {
            return pool.run(timed);
        }
        let pool = Arc::clone(pool);
        // Detached: when the arbiter stops, the step is dropped, and says so.
        drop(net.spawn(async move {
            tokio::time::sleep(Duration::from_micros(pause)).await;
            pool.run(timed);
        }));
    }
}

fn lock(pace: &Mutex<Pace>) -> MutexGuard<'_, Pace> {
    pace.lock().unwrap_or_else(PoisonError::into_inner)
}
