//! What is on its way to one connection: answers made on other threads, taken over by the connection's task.
//!
//! Invariants: it is unbounded, because everything in it holds a permit of the budget (or is one of the few words
//! that a connection says for itself); a push wakes the connection only if it was empty, so a batch of answers costs
//! one wake-up for each connection, and one signal for each thread if it is pushed in a [`Round`]; after
//! [`Outbox::close`] nothing is kept.

use super::ask_others::Question;
use super::budget::Permit;
use super::meter::Stages;
use super::postman::{Postman, Round};
use super::reply::Copies;
use super::session::Problem;
use crate::format::file_id::ObjectId;
use crate::format::ids::Tag;
use crate::messages::heads::ObjectHead;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// Which request an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTag {
    /// Opcode of the request.
    pub opcode: u16,
    /// Its id on its connection.
    pub id: u64,
    /// When its frame came, microseconds of the daemon's clock.
    pub came_us: u64,
}

/// One thing to be told.
#[derive(Debug)]
pub enum Out {
    /// A mutation is durable.
    Written {
        /// Whose answer.
        tag: RequestTag,
        /// The object.
        id: ObjectId,
        /// Its version.
        opver: Tag,
        /// On how many machines.
        copies: Copies,
        /// Where its time went.
        stages: Stages,
        /// Held until it is encoded.
        permit: Permit,
    },
    /// A request was not done.
    Refused {
        /// Whose answer.
        tag: RequestTag,
        /// Why.
        problem: Box<Problem>,
        /// Held until it is encoded.
        permit: Option<Permit>,
    },
    /// An object, or a range of it, in one frame.
    Object {
        /// Whose answer.
        tag: RequestTag,
        /// Which object, if whoever answers knows.
        id: Option<ObjectId>,
        /// About it.
        head: Box<ObjectHead>,
        /// The bytes.
        payload: Bytes,
        /// Their CRC32C.
        crc: u32,
        /// Held until it has been written.
        permit: Permit,
    },
    /// Any other good answer.
    Answer {
        /// Whose answer.
        tag: RequestTag,
        /// The whole frame, or all of it but its payload.
        frame: Bytes,
        /// Its payload, if that is apart: large ones are not copied.
        payload: Bytes,
        /// Held until it is encoded.
        permit: Permit,
    },
    /// A read that this storage cannot answer, and others perhaps can.
    Ask {
        /// Whose answer.
        tag: RequestTag,
        /// What is asked.
        question: Box<Question>,
        /// Held until it is answered.
        permit: Permit,
    },
    /// A large object was opened: the connection streams it.
    Opened {
        /// Whose answer.
        tag: RequestTag,
        /// What to stream.
        download: Box<super::download::Download>,
    },
    /// The next piece of a large object.
    Piece {
        /// Whose answer.
        tag: RequestTag,
        /// The bytes, or why there are none.
        piece: Result<Bytes, Box<Problem>>,
    },
    /// So many bytes of an upload were taken in.
    Taken {
        /// Whose upload.
        tag: RequestTag,
        /// Bytes.
        bytes: u32,
    },
}

/// The queue to one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Of the connection's arbiter; without one every push signals the thread by itself.
    postman: Option<Arc<Postman>>,
    items: Mutex<Vec<Out>>,
    waker: AtomicWaker,
    closed: AtomicBool,
}

impl Outbox {
    /// The queue to a connection on the arbiter of `postman`.
    #[must_use]
    pub fn new(postman: Arc<Postman>) -> Self {
        let (waker, closed) = (AtomicWaker::new(), AtomicBool::new(false));
        Self { postman: Some(postman), items: Mutex::default(), waker, closed }
    }

    /// Queues and wakes. What comes after the connection's end is dropped (after the lock is free: a dropped permit
    /// or reply may do anything).
    pub fn push(&self, out: Out) {
        if let Some(waker) = self.keep(out) {
            match &self.postman {
                Some(postman) => postman.wake(waker),
                None => waker.wake(),
            }
        }
    }

    /// The same; the connection is woken when the round ends.
    pub fn push_in(&self, out: Out, round: &mut Round) {
        if let Some(waker) = self.keep(out) {
            match &self.postman {
                Some(postman) => round.add(postman, waker),
                None => waker.wake(),
            }
        }
    }

    /// Queues; who is to be woken, if anybody.
    fn keep(&self, out: Out) -> Option<Waker> {
        if self.is_closed() {
            return None;
        }
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = items.is_empty();
        items.push(out);
        drop(items);
        if was_empty { self.waker.take() } else { None }
    }

    /// Takes everything into `into`, which is empty; the two swap their memory.
    pub fn take(&self, into: &mut Vec<Out>) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *items, into);
    }

    /// Who is to be woken by the next push.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// The connection is over.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let mut rest = Vec::new();
        self.take(&mut rest);
        drop(rest);
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
