//! Wakes the connections of one net arbiter from other threads, many of them with one signal.
//!
//! A wake-up from another thread costs a system call each. A batch of durable puts answers dozens of connections of the
//! same thread at once, so their wake-ups are left here, the thread is signalled once, and hands them on by itself.
//!
//! Invariants: a wake-up that is left here is handed on as long as the arbiter runs; nothing else is kept.

use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// See the module. One for each net arbiter.
#[derive(Debug, Default)]
pub struct Postman {
    waiting: Mutex<Vec<Waker>>,
    round: AtomicWaker,
}

impl Postman {
    /// Leaves a wake-up; signals the thread only if it is the first one.
    pub fn wake(&self, waker: Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.is_empty();
        waiting.push(waker);
        drop(waiting);
        if first {
            self.round.wake();
        }
    }

    /// Hands wake-ups on; runs on the arbiter until that stops.
    pub async fn run(self: Arc<Self>) {
        let mut due = Vec::new();
        poll_fn(|cx| {
            self.round.register(cx.waker());
            std::mem::swap(
                &mut due,
                &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner),
            );
            for waker in due.drain(..) {
                waker.wake();
            }
            Poll::<()>::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::{ArcWake, waker};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl ArcWake for Count {
        fn wake_by_ref(this: &Arc<Self>) {
            this.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn no_wake_up_is_lost_and_the_thread_is_signalled_once() {
        let (postman, thread) = (Arc::new(Postman::default()), Arc::new(Count::default()));
        let connections: Vec<Arc<Count>> = (0..5).map(|_| Arc::default()).collect();
        let mut run = Box::pin(Arc::clone(&postman).run());
        let signal = waker(Arc::clone(&thread));
        let mut cx = std::task::Context::from_waker(&signal);
        assert!(run.as_mut().poll(&mut cx).is_pending());
        for round in 1..=3 {
            for connection in &connections {
                postman.wake(waker(Arc::clone(connection)));
            }
            assert_eq!(thread.0.load(Ordering::SeqCst), round);
            assert!(run.as_mut().poll(&mut cx).is_pending());
            assert!(connections.iter().all(|c| c.0.load(Ordering::SeqCst) == round));
        }
    }
}
