//! The threads of a mount that may wait for its disk: reads that are not in the page cache, and the temporary files of
//! large objects.
//!
//! Invariants: threads start when there is work and end after [`IDLE`] without; a mount has at most `max` of them, all
//! mounts together [`Limit`], but each may always have one, so no mount starves another; the queue is bounded by the
//! budget that every job holds a share of.

use super::threads;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A thread without work ends after this.
pub const IDLE: Duration = Duration::from_secs(10);

/// Something that may wait for the disk.
pub type Job = Box<dyn FnOnce() + Send>;

/// How many pool threads a daemon may have beyond one for each mount.
#[derive(Debug)]
pub struct Limit {
    now: AtomicUsize,
    max: usize,
}

impl Limit {
    /// So many.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { now: AtomicUsize::new(0), max })
    }

    fn take(&self) -> bool {
        let taken = self.now.fetch_add(1, Ordering::Relaxed) < self.max;
        if !taken {
            self.give();
        }
        taken
    }

    fn give(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    stopped: bool,
}

/// The pool of one mount.
pub struct ReadPool {
    name: String,
    max: usize,
    limit: Arc<Limit>,
    state: Mutex<State>,
    changed: Condvar,
}

impl std::fmt::Debug for ReadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadPool").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ReadPool {
    /// A pool without threads yet.
    #[must_use]
    pub fn new(name: String, max: usize, limit: Arc<Limit>) -> Arc<Self> {
        Arc::new(Self {
            name,
            max: max.max(1),
            limit,
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job. After [`ReadPool::stop`], or if no thread can be had, it is dropped.
    pub fn run(self: &Arc<Self>, job: Job) {
        let mut state = self.lock();
        if state.stopped {
            drop(state);
            return drop(job);
        }
        state.queue.push_back(job);
        if state.idle >= state.queue.len() {
            drop(state);
            return self.changed.notify_one();
        }
        let first = state.threads == 0;
        if state.threads >= self.max || (!first && !self.limit.take()) {
            return;
        }
        state.threads += 1;
        drop(state);
        let pool = Arc::clone(self);
        if let Err(error) = threads::start_plain(&self.name, move || pool.work(first)) {
            tracing::error!(%error, pool = self.name, "no thread for a read");
            self.one_less(first);
        }
    }

    fn one_less(&self, first: bool) {
        let mut state = self.lock();
        state.threads -= 1;
        let stranded =
            if state.threads == 0 { std::mem::take(&mut state.queue) } else { VecDeque::new() };
        drop(state);
        drop(stranded);
        if !first {
            self.limit.give();
        }
        self.changed.notify_all();
    }

    /// A thread's life.
    fn work(&self, first: bool) {
        loop {
            let mut state = self.lock();
            let job = loop {
                if let Some(job) = state.queue.pop_front() {
                    break Some(job);
                }
                if state.stopped {
                    break None;
                }
                state.idle += 1;
                let (next, timeout) =
                    self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
                state = next;
                state.idle -= 1;
                if timeout.timed_out() && state.queue.is_empty() {
                    break None;
                }
            };
            match job {
                Some(job) => {
                    drop(state);
                    job();
                }
                None => {
                    // Counted down under the same lock under which the queue was seen empty: nothing is stranded.
                    state.threads -= 1;
                    drop(state);
                    if !first {
                        self.limit.give();
                    }
                    return self.changed.notify_all();
                }
            }
        }
    }

    /// Threads now.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.lock().threads
    }

    /// Finishes what is queued, takes nothing more, and waits up to `limit` for the threads to end. Blocks.
    pub fn stop(&self, limit: Duration) {
        let mut state = self.lock();
        state.stopped = true;
        self.changed.notify_all();
        while state.threads > 0 {
            let (next, timeout) =
                self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn threads_are_bounded_and_every_mount_gets_one() {
        let limit = Limit::new(1);
        let pools: Vec<_> =
            (0..3).map(|i| ReadPool::new(format!("read-{i}"), 4, Arc::clone(&limit))).collect();
        let (begun, hear) = mpsc::channel();
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock().unwrap();
        for pool in &pools {
            for _ in 0..8 {
                let (begun, gate) = (begun.clone(), Arc::clone(&gate));
                pool.run(Box::new(move || {
                    begun.send(()).unwrap();
                    drop(gate.lock());
                }));
            }
        }
        // One for each mount, and one more that the limit allows.
        for _ in 0..4 {
            hear.recv().unwrap();
        }
        assert_eq!(pools.iter().map(|pool| pool.threads()).sum::<usize>(), 4);
        drop(held);
        for _ in 0..20 {
            hear.recv().unwrap();
        }
        for pool in &pools {
            pool.stop(Duration::from_secs(60));
            assert_eq!(pool.threads(), 0);
        }
        assert_eq!(limit.now.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_job_that_comes_too_late_is_dropped_and_not_kept() {
        let pool = ReadPool::new("read".to_owned(), 1, Limit::new(0));
        pool.stop(Duration::from_secs(1));
        let (send, receive) = mpsc::channel::<()>();
        pool.run(Box::new(move || send.send(()).unwrap()));
        assert!(receive.recv().is_err(), "dropped without being run");
    }
}
