//! An object on its way in, in pieces: gathered in memory while it is small, in a temporary file of its mount once it is
//! not.
//!
//! Invariants: what is sent and not yet taken in stays within [`WINDOW`]; the temporary file is written on pool threads
//! only, pieces in order, one thread at a time; an upload that ends without its last frame leaves no file behind; the
//! mutation begins only after length and checksum of the whole are what the sender says (P2).

use super::engine::is_full;
use super::outbox::{Out, Outbox, RequestTag};
use super::reply::Reply;
use super::session::Problem;
use super::shared_mount::{OpenMount, SharedMount};
use super::shelf::Sink;
use super::task::{Change, Content, Task, TempGuard, What};
use crate::format::crc::crc32c_combine;
use crate::format::file_id::ObjectId;
use crate::format::ids::Tag;
use crate::messages::error::ErrorCode;
use crate::messages::heads::{DataEnd, WINDOW};
use crate::messages::opcode::PAYLOAD_MAX;
use crate::store::mount::TempSingle;
use crate::store::options::Reserve;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The free space is looked at whenever so many bytes were written.
const SPACE_LOOK: u64 = 8 << 20;

/// What an upload becomes.
#[derive(Clone, Copy, Debug)]
pub enum Intent {
    /// A new object.
    Put {
        /// Room to grow.
        reserve: Option<Reserve>,
        /// Lane of the chunkfile for its home.
        lane: usize,
        /// Mounts that may be tried when this one is full.
        others: u8,
    },
    /// New content of an object.
    Modify {
        /// Which.
        id: ObjectId,
        /// Only if this is its version.
        if_opver: Option<Tag>,
    },
}

impl Intent {
    /// The object that it changes; `None`: it makes one.
    #[must_use]
    pub const fn object(&self) -> Option<&ObjectId> {
        match self {
            Self::Put { .. } => None,
            Self::Modify { id, .. } => Some(id),
        }
    }

    /// Sends the mutation to the actor that orders it.
    pub fn send(self, mount: &SharedMount, content: Content, reply: Reply) {
        match self {
            Self::Put { reserve, lane, others } => {
                let what = What::Put { content, reserve, lane, others };
                mount.send_put(lane, Task::Change(Change { what, reply }));
            }
            Self::Modify { id, if_opver } => {
                let what = What::Modify { id, content, if_opver };
                mount.send(id.home().address.chunkfile(), Task::Change(Change { what, reply }));
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Upload {
    mount: Arc<SharedMount>,
    intent: Intent,
    /// As announced.
    length: Option<u64>,
    threshold: u64,
    received: u64,
    crc: u32,
    body: Body,
    /// Something came since [`stalled`](Self::stalled) was asked.
    moved: bool,
}

#[derive(Debug)]
enum Body {
    Gathering {
        parts: Vec<Bytes>,
        reply: Reply,
    },
    Spilling(Arc<Spill>),
    /// Refused: what still arrives is dropped.
    Over,
}

/// What the connection has to do after a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing (the pool grants window when it has written).
    Nothing,
    /// Grant so many bytes more.
    Grant(u32),
}

impl Upload {
    /// Begins an upload to `mount`. A body of more than `threshold` bytes goes to a file.
    #[must_use]
    pub fn new(
        mount: Arc<SharedMount>,
        intent: Intent,
        length: Option<u64>,
        threshold: u64,
        reply: Reply,
    ) -> Self {
        let body = Body::Gathering { parts: Vec::new(), reply };
        Self { mount, intent, length, threshold, received: 0, crc: 0, body, moved: true }
    }

    /// Bytes of the budget that such an upload takes.
    #[must_use]
    pub fn memory(length: Option<u64>, threshold: u64) -> u64 {
        let most = threshold.max(WINDOW.into());
        length.map_or(
            most,
            |length| if length <= threshold { length } else { length.min(WINDOW.into()) },
        )
    }

    /// Whether a piece of `len` bytes may come.
    #[must_use]
    pub fn expects(&self, len: u64) -> bool {
        let room = self.length.map_or(u64::MAX, |length| length.saturating_sub(self.received));
        !matches!(self.body, Body::Over) && len <= room
    }

    /// Itself, if nothing of the body came since the last look although it could have.
    pub fn stalled(&mut self) -> Option<&mut Self> {
        let moved = std::mem::replace(&mut self.moved, false);
        let at_work = match &self.body {
            // What was gathered was granted again.
            Body::Gathering { .. } => false,
            // The disk is slow, nobody else.
            Body::Spilling(spill) => spill.lock().queued > 0,
            Body::Over => true,
        };
        (!moved && !at_work).then_some(self)
    }

    /// Takes the next piece, whose checksum was verified.
    pub fn piece(&mut self, bytes: Bytes, crc: u32, to: &Arc<Outbox>) -> After {
        self.moved = true;
        self.crc = crc32c_combine(self.crc, crc, bytes.len() as u64);
        self.received = self.received.saturating_add(bytes.len() as u64);
        if self.length.is_some_and(|length| self.received > length) {
            self.refuse(Problem::new(
                ErrorCode::BadRequest,
                "the body is longer than it was announced",
            ));
            return After::Nothing;
        }
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        match &mut self.body {
            Body::Over => After::Nothing,
            Body::Spilling(spill) => {
                if !spill.piece(bytes) {
                    self.refuse(Problem::new(
                        ErrorCode::BadRequest,
                        "more was sent than the window allows",
                    ));
                }
                After::Nothing
            }
            Body::Gathering { parts, .. } => {
                parts.push(bytes);
                if self.received <= self.threshold {
                    return After::Grant(len);
                }
                // What was gathered is granted again when it has been written; of this, only the last piece was not.
                self.spill(to, u64::from(len));
                After::Nothing
            }
        }
    }

    /// From memory to a file. `grant`: bytes whose window was not given back yet.
    fn spill(&mut self, to: &Arc<Outbox>, grant: u64) {
        let Body::Gathering { parts, reply } = std::mem::replace(&mut self.body, Body::Over) else {
            return;
        };
        let open = match self.mount.open() {
            Ok(open) => open,
            Err(problem) => return reply.refused(problem),
        };
        let Some(tag) = reply.tag() else { return };
        let queued = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let state = State {
            sink: None,
            queue: parts.into(),
            queued,
            silent: queued.saturating_sub(grant),
            written: 0,
            looked: None,
            running: false,
            reply: Some(reply),
            end: None,
        };
        let spill = Arc::new(Spill {
            mount: Arc::clone(&self.mount),
            open,
            to: Arc::clone(to),
            tag,
            length: self.length,
            state: Mutex::new(state),
        });
        spill.kick(spill.lock());
        self.body = Body::Spilling(spill);
    }

    /// The last piece has arrived.
    pub fn end(mut self, end: &DataEnd, to: &Arc<Outbox>) {
        let announced = self.length.is_none_or(|length| length == self.received);
        if end.length != self.received || !announced {
            return self.refuse(Problem::new(
                ErrorCode::BadRequest,
                format!("the body has {} bytes, not as many as announced", self.received),
            ));
        }
        if end.crc32c != self.crc {
            return self.refuse(
                Problem::new(ErrorCode::Corrupted, "the body was damaged on the way")
                    .remedy("send it again"),
            );
        }
        if matches!(self.body, Body::Gathering { .. }) && self.received > self.threshold {
            self.spill(to, 0);
        }
        match std::mem::replace(&mut self.body, Body::Over) {
            Body::Gathering { parts, reply } => {
                let bytes = join(parts);
                self.intent.send(&self.mount, Content::Inline { bytes, crc: self.crc }, reply);
            }
            Body::Spilling(spill) => spill.end(End { intent: self.intent, crc: self.crc }),
            Body::Over => {}
        }
    }

    /// A body that arrived in one frame and is too large for a slot.
    pub fn whole(mut self, bytes: Bytes, crc: u32, to: &Arc<Outbox>) {
        let end = DataEnd { length: bytes.len() as u64, crc32c: crc };
        self.piece(bytes, crc, to);
        self.end(&end, to);
    }

    /// Gives the upload up: the sender is gone, has cancelled, or has sent nonsense. Nothing was changed.
    pub fn refuse(&mut self, problem: Problem) {
        match std::mem::replace(&mut self.body, Body::Over) {
            Body::Gathering { reply, .. } => reply.refused(problem),
            Body::Spilling(spill) => spill.give_up(problem),
            Body::Over => {}
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.refuse(Problem::new(ErrorCode::Cancelled, "the upload was given up"));
    }
}

fn join(mut parts: Vec<Bytes>) -> Bytes {
    match (parts.pop(), parts.is_empty()) {
        (None, _) => Bytes::new(),
        (Some(only), true) => only,
        (Some(last), false) => {
            parts.push(last);
            let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
            for part in parts {
                all.extend_from_slice(&part);
            }
            all.freeze()
        }
    }
}

/// The part of an upload that the pool works on.
struct Spill {
    mount: Arc<SharedMount>,
    open: Arc<OpenMount>,
    to: Arc<Outbox>,
    tag: RequestTag,
    length: Option<u64>,
    state: Mutex<State>,
}

struct End {
    intent: Intent,
    crc: u32,
}

struct State {
    sink: Option<Box<dyn Sink>>,
    queue: VecDeque<Bytes>,
    /// Bytes in the queue.
    queued: u64,
    /// Bytes at the front whose window was given back already.
    silent: u64,
    written: u64,
    /// Written when the free space was last looked at.
    looked: Option<u64>,
    /// A pool thread has it.
    running: bool,
    /// `None`: answered or given up; the file goes.
    reply: Option<Reply>,
    end: Option<End>,
}

impl std::fmt::Debug for Spill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spill").field("tag", &self.tag).finish_non_exhaustive()
    }
}

impl Spill {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a pool thread look at it, unless one does.
    fn kick(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if !std::mem::replace(&mut state.running, true) {
            drop(state);
            let spill = Arc::clone(self);
            self.mount.pool.run(Box::new(move || spill.work()));
        }
    }

    /// `false`: more than the window allows.
    fn piece(self: &Arc<Self>, bytes: Bytes) -> bool {
        let mut state = self.lock();
        if state.reply.is_none() {
            return true;
        }
        state.queued += bytes.len() as u64;
        if state.queued > u64::from(WINDOW) + u64::from(PAYLOAD_MAX) + state.silent {
            return false;
        }
        state.queue.push_back(bytes);
        self.kick(state);
        true
    }

    fn end(self: &Arc<Self>, end: End) {
        let mut state = self.lock();
        state.end = Some(end);
        self.kick(state);
    }

    fn give_up(self: &Arc<Self>, problem: Problem) {
        let mut state = self.lock();
        state.queue.clear();
        let reply = state.reply.take();
        self.kick(state);
        if let Some(reply) = reply {
            reply.refused(problem);
        }
    }

    /// On a pool thread: writes until the queue is empty.
    fn work(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            if state.reply.is_none() {
                let sink = state.sink.take();
                // It stays `running`: nobody needs to look at it again.
                drop(state);
                return if let Some(sink) = sink {
                    sink.abort()
                };
            }
            let Some(bytes) = state.queue.pop_front() else {
                if state.end.is_none() {
                    state.running = false;
                    return;
                }
                return self.finish(state);
            };
            state.queued -= bytes.len() as u64;
            let sink = state.sink.take();
            let (written, looked) = (state.written, state.looked);
            drop(state);
            match self.write(sink, &bytes, written, looked) {
                Ok((sink, looked)) => self.written(sink, bytes.len() as u64, looked),
                Err(problem) => {
                    let reply = self.lock().reply.take();
                    if let Some(reply) = reply {
                        reply.refused(problem);
                    }
                }
            }
        }
    }

    fn written(&self, sink: Box<dyn Sink>, len: u64, looked: u64) {
        let mut state = self.lock();
        state.sink = Some(sink);
        state.written += len;
        state.looked = Some(looked);
        let grant = len - state.silent.min(len);
        state.silent -= len - grant;
        drop(state);
        if let Ok(bytes @ 1..) = u32::try_from(grant) {
            self.to.push(Out::Taken { tag: self.tag, bytes });
        }
    }

    fn write(
        &self,
        sink: Option<Box<dyn Sink>>,
        bytes: &[u8],
        written: u64,
        looked: Option<u64>,
    ) -> Result<(Box<dyn Sink>, u64), Problem> {
        let mut seen = looked.unwrap_or(0);
        if looked.is_none_or(|at| written - at >= SPACE_LOOK) {
            let room = self.room(bytes.len() as u64, written);
            if let Err(problem) = room {
                if let Some(sink) = sink {
                    sink.abort();
                }
                return Err(problem);
            }
            seen = written;
        }
        let mut sink = match sink {
            Some(sink) => sink,
            None => {
                let content = self.open.content_ids.next();
                self.open.shelf.create_single(content).map_err(|error| self.failed(&error))?
            }
        };
        match sink.write(bytes) {
            Ok(()) => Ok((sink, seen)),
            Err(error) => {
                sink.abort();
                Err(self.failed(&error))
            }
        }
    }

    /// Whether what is left of the body fits without eating the reserve.
    fn room(&self, next: u64, written: u64) -> Result<(), Problem> {
        let free = self.open.shelf.space().map_err(|error| self.failed(&error))?.free;
        let needed = self.length.map_or(next, |length| length.saturating_sub(written));
        if free.saturating_sub(needed) >= self.mount.reserve_free() {
            return Ok(());
        }
        Err(self.no_space(format!(
            "{free} bytes free, {} are held in reserve, {needed} needed",
            self.mount.reserve_free()
        )))
    }

    fn no_space(&self, why: String) -> Problem {
        Problem::new(
            ErrorCode::NoSpace,
            format!("mount {} ({}): no space: {why}", self.mount.index, self.mount.path),
        )
        .remedy("delete something, add a mount or a machine, or lower store.reserve_free")
    }

    /// An error of the disk: that it is full is no fault of it, anything else puts the mount out of service (R9).
    fn failed(&self, error: &std::io::Error) -> Problem {
        if is_full(error) {
            return self.no_space(error.to_string());
        }
        let why = format!("a large object could not be written: {error}");
        self.mount.fence(why.clone());
        Problem::new(
            ErrorCode::Fenced,
            format!("mount {} ({}) is out of service: {why}", self.mount.index, self.mount.path),
        )
    }

    /// Everything is written: makes the file durable and begins the mutation.
    fn finish(&self, mut state: MutexGuard<'_, State>) {
        let (Some(end), Some(sink), Some(reply)) =
            (state.end.take(), state.sink.take(), state.reply.take())
        else {
            return;
        };
        drop(state);
        let finished = match sink.finish() {
            Ok(finished) => finished,
            Err(error) => return reply.refused(self.failed(&error)),
        };
        let temp =
            TempSingle { content: finished.content, length: finished.length, crc: finished.crc };
        let guard = TempGuard::new(temp, Arc::clone(&self.open.shelf));
        if finished.crc != end.crc {
            drop(guard);
            return reply.refused(
                Problem::new(ErrorCode::Corrupted, "the body was damaged on the way")
                    .remedy("send it again"),
            );
        }
        // The mirrors fetch it first: the record that names it never waits behind it there.
        let (mount, intent) = (Arc::clone(&self.mount), end.intent);
        let then = Box::new(move || intent.send(&mount, Content::Single(guard), reply));
        let mirror = &self.mount.mirror;
        mirror.announce(self.mount.index, finished.content, finished.length, then);
    }
}
