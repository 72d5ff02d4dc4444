//! Wakes the connections of one net arbiter from other threads, many of them with one signal.
//!
//! A wake-up from another thread costs a system call each. A batch of durable puts answers dozens of connections of the
//! same thread at once, so their wake-ups are gathered in a [`Round`] and left here together, the thread is signalled
//! once, and hands them on by itself.
//!
//! Invariants: a wake-up that is left here is handed on as long as the arbiter runs; nothing else is kept; a round that
//! ends, however it ends, leaves what it gathered.

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
        self.wake_all(std::iter::once(waker));
    }

    fn wake_all(&self, wakers: impl IntoIterator<Item = Waker>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.is_empty();
        waiting.extend(wakers);
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

/// Wake-ups of one batch of answers, left at their postmen when it ends: without it a thread that sleeps would be
/// signalled for the first answer, and again for each that comes when it has taken over those before.
#[derive(Debug, Default)]
pub struct Round {
    due: Vec<(Arc<Postman>, Vec<Waker>)>,
}

impl Round {
    /// `waker` is to be handed on by `postman`.
    pub fn add(&mut self, postman: &Arc<Postman>, waker: Waker) {
        // One for each net thread: a handful.
        match self.due.iter_mut().find(|(known, _)| Arc::ptr_eq(known, postman)) {
            Some((_, wakers)) => wakers.push(waker),
            None => self.due.push((Arc::clone(postman), vec![waker])),
        }
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        for (postman, wakers) in self.due.drain(..) {
            postman.wake_all(wakers);
        }
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

    #[test]
    fn no_wake_up_of_a_round_is_lost_and_none_is_early() {
        let thread = Arc::new(Count::default());
        let postmen: Vec<Arc<Postman>> = (0..2).map(|_| Arc::default()).collect();
        let connections: Vec<Arc<Count>> = (0..6).map(|_| Arc::default()).collect();
        let mut threads: Vec<_> =
            postmen.iter().map(|postman| Box::pin(Arc::clone(postman).run())).collect();
        let signal = waker(Arc::clone(&thread));
        let mut cx = std::task::Context::from_waker(&signal);
        let mut run =
            || threads.iter_mut().for_each(|t| assert!(t.as_mut().poll(&mut cx).is_pending()));
        run();
        let mut round = Round::default();
        for (number, connection) in connections.iter().enumerate() {
            round.add(&postmen[number % 2], waker(Arc::clone(connection)));
            run();
            assert_eq!(thread.0.load(Ordering::SeqCst), 0, "signalled within the round");
        }
        drop(round);
        assert_eq!(thread.0.load(Ordering::SeqCst), 2, "one signal for each thread");
        run();
        assert!(connections.iter().all(|c| c.0.load(Ordering::SeqCst) == 1));
    }
}
