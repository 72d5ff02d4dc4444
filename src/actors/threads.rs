//! Who runs where: the one place that makes arbiters (R7).
//!
//! ```text
//! control   Heartbeat Router Reporter AdminConsole Acceptor      never shared with data actors (R3)
//! net-N     Connection SyncPeer
//! disk-M    ChunkFile Binlog of mount M: blocking writes run inline here (R4)
//! ```
//! Invariants
//! - Arbiters are stopped and joined in the reverse order of their creation, under one deadline (R6). What a thread
//!   still does after the deadline is abandoned: correctness rests on the log, never on a clean stop.
//! - With [`Threads::inline`] everything runs on the caller's own arbiter: for tests under a paused clock.

use std::ffi::CString;
use std::io;
use std::time::Duration;

use actix::{Arbiter, ArbiterHandle};

/// Longest thread name that Linux keeps, bytes.
const NAME_LEN_MAX: usize = 15;

/// The arbiters of one daemon.
#[derive(Debug)]
pub struct Threads {
    inline: bool,
    arbiters: Vec<(String, Arbiter)>,
}

/// A thread that did not end in time or panicked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThreadError {
    /// It panicked.
    #[error("thread {0} panicked")]
    Panicked(String),
    /// It was still busy at the deadline.
    #[error("thread {0} was still busy at the deadline and is left behind")]
    Late(String),
}

impl Threads {
    /// Real threads.
    #[must_use]
    pub const fn new() -> Self {
        Self { inline: false, arbiters: Vec::new() }
    }

    /// No threads: every role on the arbiter of the caller, so that a paused clock rules all of them.
    #[must_use]
    pub const fn inline() -> Self {
        Self { inline: true, arbiters: Vec::new() }
    }

    /// Starts the thread `name` (`control`, `net-0`, `disk-3`), at most 15 bytes of it are shown by the system. Must
    /// be called inside an actix `System`.
    ///
    /// # Errors
    /// No thread or no runtime can be made.
    #[allow(clippy::disallowed_methods, reason = "threads are assigned here and nowhere else")]
    pub fn start(&mut self, name: &str) -> io::Result<ArbiterHandle> {
        if self.inline {
            return Arbiter::try_current()
                .ok_or_else(|| io::Error::other("no arbiter runs on this thread"));
        }
        let shown: String =
            name.chars().filter(char::is_ascii_graphic).take(NAME_LEN_MAX).collect();
        let arbiter = Arbiter::try_with_tokio_rt(move || {
            if let Ok(shown) = CString::new(shown) {
                // A thread without its name is no worse a thread.
                rustix::thread::set_name(&shown).unwrap_or_default();
            }
            tokio::runtime::Builder::new_current_thread().enable_all().build()
        })?;
        let handle = arbiter.handle();
        self.arbiters.push((name.to_owned(), arbiter));
        Ok(handle)
    }

    /// Stops and joins them all, the last started first. Blocks up to `limit` in all.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "joining needs a thread that may be left behind")]
    pub fn stop_and_join(self, limit: Duration) -> Vec<ThreadError> {
        let deadline = std::time::Instant::now() + limit;
        let mut errors = Vec::new();
        for (name, arbiter) in self.arbiters.into_iter().rev() {
            arbiter.stop();
            let (done, ended) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                // If nobody waits any more the result is of no use.
                done.send(arbiter.join().is_ok()).unwrap_or_default();
            });
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            match ended.recv_timeout(left) {
                Ok(true) => {}
                Ok(false) => errors.push(ThreadError::Panicked(name)),
                Err(_) => errors.push(ThreadError::Late(name)),
            }
        }
        errors
    }
}

/// Starts a thread without an arbiter, for work that may wait for a disk; it ends by itself.
///
/// # Errors
/// No thread can be made.
#[allow(clippy::disallowed_methods, reason = "threads are assigned here and nowhere else")]
pub fn start_plain(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let shown: String = name.chars().filter(|c| *c != '\0').take(NAME_LEN_MAX).collect();
    std::thread::Builder::new().name(shown).spawn(work).map(drop)
}

impl Default for Threads {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_does_not_hold_up_the_stop_for_ever() {
        let system = actix::System::new();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (begun, busy) = std::sync::mpsc::channel();
        let errors = system.block_on(async move {
            let mut threads = Threads::new();
            let good = threads.start("net-0").expect("a thread");
            let stuck = threads.start("disk-0").expect("a thread");
            assert!(good.spawn_fn(|| {}));
            assert!(stuck.spawn_fn(move || {
                begun.send(()).expect("the test waits");
                released.recv().unwrap_or_default();
            }));
            busy.recv().expect("the task runs");
            threads.stop_and_join(Duration::from_millis(50))
        });
        drop(release);
        assert_eq!(
            errors,
            [ThreadError::Late("disk-0".to_owned()), ThreadError::Late("net-0".to_owned())]
                [..errors.len()]
        );
        assert!(!errors.is_empty());
    }

    #[test]
    fn threads_end_when_they_are_told_to() {
        let system = actix::System::new();
        let errors = system.block_on(async {
            let mut threads = Threads::new();
            for name in ["control", "net-0", "disk-0", "a name that is longer than fifteen"] {
                let handle = threads.start(name).expect("a thread");
                assert!(handle.spawn_fn(|| {}));
            }
            threads.stop_and_join(Duration::from_secs(60))
        });
        assert_eq!(errors, []);
    }

    #[test]
    fn inline_means_the_callers_own_thread() {
        let system = actix::System::new();
        system.block_on(async {
            let here = std::thread::current().id();
            let (send, receive) = tokio::sync::oneshot::channel();
            let handle = Threads::inline().start("control").expect("the caller's arbiter");
            handle
                .spawn_fn(move || send.send(std::thread::current().id()).expect("the test waits"));
            assert_eq!(receive.await, Ok(here));
        });
    }
}
