//! `Connection`: one socket of the data port, one actor on a net arbiter.
//!
//! | thread | a net arbiter |
//! |---|---|
//! | order | requests are taken in the order of their arrival, answers leave in the order in which they are ready |
//! | bound | the budget; beyond [`OUT_HIGH`] bytes that the client does not read, nothing more is taken from it |
//! | from | the socket; the [`Outbox`] (answers made on other threads) |
//! | to | `ChunkFile` (mutations), the read pool (what may wait), the socket |
//!
//! Its mailbox stays empty: answers come through the outbox, which wakes it once for many of them. Within one turn it
//! takes over all answers, handles all requests that have arrived, and then writes once.
//!
//! Invariants: nothing here waits for a disk (R4); a request holds a permit before it enters a queue (R1); a mutation
//! that was handed on is never cancelled by the end of its connection (R2).

use super::acceptor::Accepted;
use super::budget::{Budget, Permit};
use super::download::Download;
use super::meter::{Answered, Stages};
use super::out_buffer::OutBuffer;
use super::outbox::{Out, Outbox, RequestTag};
use super::peer_requests::Reported;
use super::postman::Postman;
use super::reply::Copies;
use super::session::{self, Ended, Problem, SessionConfig, Wire};
use super::storage_room::StorageRoom;
use super::upload::Upload;
use crate::format::file_id::ObjectId;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{
    FLAG_LAST, FLAG_STREAMED, FrameDecoder, FrameError, Kind, Limits, Meta, encode, encode_head,
};
use crate::messages::handshake::Session;
use crate::messages::heads::{ErrorHead, IdBytes, WindowHead, Written};
use crate::messages::opcode::Role;
use crate::tls::Stream;
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, AsyncContext};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Bytes not yet read by the client beyond which no request is taken from it.
pub const OUT_HIGH: usize = 1 << 20;
/// Answers of one turn up to so many bytes wait for the other connections that have something to do.
const LATER_MAX: usize = 64 << 10;
/// A body of which nothing comes for so long, and once more, is given up.
const STALL: std::time::Duration = std::time::Duration::from_secs(30);
/// How long a connection may take to hand over its last answers when the daemon stops.
const LINGER: std::time::Duration = std::time::Duration::from_secs(5);

/// One connection after its handshake.
pub struct Connection {
    pub(super) room: Arc<StorageRoom>,
    pub(super) session: Session,
    pub(super) out: OutBuffer,
    pub(super) outbox: Arc<Outbox>,
    pub(super) uploads: HashMap<u64, Upload>,
    /// Something was read since stalled bodies were looked for.
    pub(super) fresh: bool,
    /// When silence is looked for.
    idle_due: Instant,
    /// The permit of the large frame that is arriving.
    pub(super) large: Option<Permit>,
    /// Requests handed on and not answered.
    pub(super) in_hand: usize,
    pub(super) downloads: HashMap<u64, (RequestTag, Download)>,
    /// Clients and peers have one each.
    pub(super) budget: Arc<Budget>,
    /// What the peer at the other end was told of our mounts.
    pub(super) reported: Reported,
    taken: Vec<Out>,
    /// For the flight recorder: who is at the other end, and what was answered in this turn.
    who: Arc<str>,
    answered: Vec<Answered>,
    pub(super) stream: Stream,
    pub(super) decoder: FrameDecoder,
    pub(super) input: BytesMut,
    /// Bytes of a refused frame that are still to arrive.
    pub(super) skip: usize,
    idle: Pin<Box<Sleep>>,
    /// Bytes went in or out since the idle timer was set.
    pub(super) active: bool,
    stop: CancellationToken,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The timers know whom to wake.
    begun: bool,
    stopping: bool,
    /// No more input is taken; the connection ends when everything is written.
    pub(super) ending: bool,
    /// Hears why it ended.
    over: Option<oneshot::Sender<&'static str>>,
}

impl Actor for Connection {
    type Context = actix::Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(Turns);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.close();
    }
}

/// The turns of a connection: one each time that its socket, an answer or a timer wakes it.
struct Turns;

impl ActorFuture<Connection> for Turns {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        connection: &mut Connection,
        ctx: &mut actix::Context<Connection>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Poll::Ready(ended) = connection.poll(cx) else { return Poll::Pending };
        if let Some(over) = connection.over.take() {
            // Whoever waited may be gone with the daemon.
            over.send(ended).unwrap_or_default();
        }
        ctx.stop();
        Poll::Ready(())
    }
}

/// Serves a socket to its end: handshake, then requests.
pub async fn serve(
    accepted: Accepted,
    room: Arc<StorageRoom>,
    stop: CancellationToken,
    postman: Arc<Postman>,
) {
    let Accepted { stream, peer, permit } = accepted;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%peer, %error, "the socket cannot be used"),
    };
    room.counters.connections.fetch_add(1, Ordering::Relaxed);
    let begun = tokio::select! {
        begun = begin(stream, &room.session) => Some(begun),
        () = stop.cancelled() => None,
    };
    match begun {
        Some(Ok((wire, session))) => {
            tracing::debug!(%peer, role = %session.role, name = session.name, "session begins");
            let (over, ended) = oneshot::channel();
            let who: Arc<str> = match session.name.as_str() {
                "" => format!("{} {peer}", session.role).into(),
                name => format!("{} {name} {peer}", session.role).into(),
            };
            let outbox = Arc::new(Outbox::new(postman));
            Connection::new(wire, Arc::clone(&room), session, stop, outbox, over, who).start();
            let ended = ended.await.unwrap_or("its thread ends");
            tracing::debug!(%peer, ended, "session ends");
        }
        Some(Err(ended)) => tracing::debug!(%peer, %ended, "no session"),
        None => {}
    }
    room.counters.connections.fetch_sub(1, Ordering::Relaxed);
    drop(permit);
}

/// TLS where it is on, then the handshake.
async fn begin(
    stream: TcpStream,
    config: &SessionConfig,
) -> Result<(Wire<Stream>, Session), Ended> {
    let (stream, certified) = session::secure(stream, config).await?;
    let mut wire = Wire::new(stream, Limits::HANDSHAKE);
    let session = session::begin(&mut wire, config, &certified).await?;
    Ok((wire, session))
}

impl Connection {
    fn new(
        wire: Wire<Stream>,
        room: Arc<StorageRoom>,
        session: Session,
        stop: CancellationToken,
        outbox: Arc<Outbox>,
        over: oneshot::Sender<&'static str>,
        who: Arc<str>,
    ) -> Self {
        let (stream, decoder, input) = wire.into_parts();
        let idle_due = Instant::now() + room.session.idle_timeout;
        let idle = Box::pin(tokio::time::sleep_until(idle_due));
        let of_peer = session.role == Role::Peer;
        let budget = Arc::clone(if of_peer { &room.peers.budget } else { &room.budget });
        Self {
            budget,
            reported: Reported::default(),
            room,
            session,
            out: OutBuffer::default(),
            outbox,
            uploads: HashMap::new(),
            fresh: true,
            idle_due,
            large: None,
            in_hand: 0,
            downloads: HashMap::new(),
            taken: Vec::new(),
            who,
            answered: Vec::new(),
            stream,
            decoder,
            input,
            skip: 0,
            idle,
            active: false,
            stopped: Box::pin(stop.clone().cancelled_owned()),
            stop,
            begun: false,
            stopping: false,
            ending: false,
            over: Some(over),
        }
    }

    /// Uploads are given up, downloads dropped; mutations in hand go on without us.
    fn close(&mut self) {
        self.outbox.close();
        self.uploads.clear();
        self.downloads.clear();
    }

    /// Runs until there is nothing to do; ready with the reason when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        if let Poll::Ready(ended) = self.poll_timers(cx) {
            return Poll::Ready(ended);
        }
        self.outbox.register(cx.waker());
        let mut read = false;
        loop {
            self.take_answers();
            if !self.input.is_empty() {
                self.take_requests();
                self.give_back();
            }
            self.pump();
            self.room.meter.record(&mut self.answered);
            if read && !self.out.is_empty() && self.out.len() <= LATER_MAX {
                // After the others whose requests have come: a client that sleeps is woken for all of them at once.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let wrote = match self.out.poll_write(&mut self.stream, cx) {
                Poll::Ready(Ok(wrote)) => wrote,
                Poll::Ready(Err(_)) => return Poll::Ready("the client is gone"),
                Poll::Pending => false,
            };
            self.active |= wrote;
            if self.out.is_flushed() && self.is_done() {
                return Poll::Ready(if self.stopping { "the daemon stops" } else { "closed" });
            }
            read = match self.poll_read(cx) {
                Poll::Ready(Ok(read)) => read,
                Poll::Ready(Err(_)) => return Poll::Ready("the client is gone"),
                Poll::Pending => false,
            };
            if !read && !wrote {
                return Poll::Pending;
            }
        }
    }

    fn is_done(&self) -> bool {
        let quiet = self.in_hand == 0 && self.downloads.is_empty();
        (self.ending && quiet) || (self.stopping && quiet && self.uploads.is_empty())
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        // Both futures know this task from its first turn; until one of them fires there is nothing to poll.
        if self.begun && !self.idle.is_elapsed() && (self.stopping || !self.stop.is_cancelled()) {
            return Poll::Pending;
        }
        self.begun = true;
        if !self.stopping && self.stopped.as_mut().poll(cx).is_ready() {
            self.stopping = true;
            self.idle.as_mut().reset(Instant::now() + LINGER);
        }
        if self.idle.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if !self.give_up_stalled() {
                return Poll::Ready("a frame stopped in its middle");
            }
            if self.stopping || now >= self.idle_due {
                let waits_for_us = self.in_hand > 0 && self.out.is_empty();
                if self.stopping || !(self.active || waits_for_us) {
                    return Poll::Ready("idle, or it does not read its answers");
                }
                self.active = false;
                self.idle_due = now + self.room.session.idle_timeout;
            }
            let due =
                if self.has_bodies() { self.idle_due.min(now + STALL) } else { self.idle_due };
            self.idle.as_mut().reset(due);
            // Has the timer know who waits for it.
            if self.idle.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    /// A body begins to arrive, which holds a share of what everybody has.
    pub(super) fn watch_body(&mut self) {
        let due = Instant::now() + STALL;
        if !self.stopping && due < self.idle.deadline() {
            self.idle.as_mut().reset(due);
        }
    }

    fn take_answers(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        self.outbox.take(&mut taken);
        for out in taken.drain(..) {
            self.answer(out);
        }
        self.taken = taken;
    }

    fn answer(&mut self, out: Out) {
        match out {
            Out::Written { tag, id, opver, copies, stages, permit } => {
                self.in_hand = self.in_hand.saturating_sub(1);
                self.uploads.remove(&tag.id);
                self.written(tag, id, opver, copies);
                let bytes = permit.bytes();
                self.done(tag, Done { object: Some(id), bytes, stages, ..Done::default() });
                drop(permit);
            }
            Out::Refused { tag, problem, permit } => {
                self.in_hand = self.in_hand.saturating_sub(1);
                self.uploads.remove(&tag.id);
                // Who gave up does not wait for an answer.
                if problem.code != ErrorCode::Cancelled {
                    self.refuse(tag, &problem);
                }
                drop(permit);
            }
            Out::Object { tag, id, head, payload, crc, permit } => {
                self.in_hand = self.in_hand.saturating_sub(1);
                let meta = Meta::answer(tag.opcode, tag.id);
                let bytes = payload.len() as u64;
                self.encode_payload(meta, &*head, payload, crc);
                self.done(tag, Done { object: id, bytes, ..Done::default() });
                self.out.hold(permit);
            }
            Out::Answer { tag, frame, payload, permit } => {
                self.in_hand = self.in_hand.saturating_sub(1);
                self.done(tag, Done::default());
                self.out.push(frame);
                self.out.push(payload);
                self.out.hold(permit);
            }
            Out::Ask { tag, question, permit } => self.ask_others(tag, *question, permit),
            Out::Opened { tag, download } => {
                self.in_hand = self.in_hand.saturating_sub(1);
                let meta = Meta::answer(tag.opcode, tag.id).with_flags(FLAG_STREAMED);
                self.encode_payload(meta, download.head(), Bytes::new(), 0);
                self.downloads.insert(tag.id, (tag, *download));
            }
            Out::Piece { tag, piece } => match piece {
                Ok(piece) => self.piece(tag, piece),
                Err(problem) => {
                    if self.downloads.remove(&tag.id).is_some() {
                        self.refuse(tag, &problem);
                    }
                }
            },
            Out::Taken { tag, bytes } => {
                if self.uploads.contains_key(&tag.id) {
                    self.window(tag, bytes);
                }
            }
        }
    }

    /// Sends what the downloads have, as far as the client reads.
    fn pump(&mut self) {
        if self.downloads.is_empty() {
            return;
        }
        let ids: Vec<u64> = self.downloads.keys().copied().collect();
        for id in ids {
            while self.out.len() < OUT_HIGH / 2
                && let Some((tag, download)) = self.downloads.get_mut(&id)
            {
                let tag = *tag;
                let Some(piece) = download.next(&self.outbox, tag) else { break };
                self.piece(tag, piece);
            }
        }
    }

    fn piece(&mut self, tag: RequestTag, piece: Bytes) {
        let Some((_, download)) = self.downloads.get_mut(&tag.id) else { return };
        let (crc, end) = download.account(&piece);
        let meta = Meta::of_kind(Kind::Data, tag.opcode, tag.id);
        match end {
            None => self.encode_payload(meta, &(), piece, crc),
            Some(end) => {
                self.encode_payload(meta.with_flags(FLAG_LAST), &end, piece, crc);
                if let Some((tag, download)) = self.downloads.remove(&tag.id) {
                    let bytes = download.head().count;
                    self.done(tag, Done { bytes, ..Done::default() });
                }
            }
        }
    }

    pub(super) fn window(&mut self, tag: RequestTag, bytes: u32) {
        let meta = Meta::of_kind(Kind::Window, tag.opcode, tag.id);
        self.encode_payload(meta, &WindowHead { bytes }, Bytes::new(), 0);
    }

    pub(super) fn written(
        &mut self,
        tag: RequestTag,
        id: crate::format::file_id::ObjectId,
        opver: crate::format::ids::Tag,
        Copies { acks, copies, degraded }: Copies,
    ) {
        let id = IdBytes::new(id.encode());
        let head = Written { id, opver, acks, copies, degraded };
        self.encode_payload(Meta::answer(tag.opcode, tag.id), &head, Bytes::new(), 0);
    }

    pub(super) fn refuse(&mut self, tag: RequestTag, problem: &Problem) {
        self.room.counters.refused.fetch_add(1, Ordering::Relaxed);
        self.done(tag, Done { refused: Some(problem.code), ..Done::default() });
        let head = ErrorHead {
            code: problem.code.as_u16(),
            message: problem.message.clone(),
            remedy: problem.remedy.clone(),
            node: self.room.session.name.clone(),
        };
        let meta = Meta::refusal(tag.opcode, tag.id, problem.code);
        self.encode_payload(meta, &head, Bytes::new(), 0);
    }

    /// A request is answered: counted, and kept for the flight recorder.
    pub(super) fn done(&mut self, tag: RequestTag, done: Done) {
        let Done { object, bytes, refused, stages } = done;
        let meter = &self.room.meter;
        let now_us = meter.clock.now_us();
        let total_us = now_us.saturating_sub(tag.came_us);
        meter.count(tag.opcode, refused, total_us);
        if stages == Stages::default() && self.session.role == Role::Client {
            meter.bytes_out.fetch_add(bytes, Ordering::Relaxed);
        }
        self.answered.push(Answered {
            at_ms: meter.wall_ms(now_us),
            who: Arc::clone(&self.who),
            opcode: tag.opcode,
            refused,
            object,
            bytes,
            stages,
            total_us,
        });
    }

    fn encode_payload<H: serde::Serialize>(
        &mut self,
        meta: Meta,
        head: &H,
        payload: Bytes,
        crc: u32,
    ) {
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        match encode_head(self.out.tail(), meta, head, len, crc) {
            Ok(()) => self.out.push(payload),
            Err(error) => self.cannot_encode(&error),
        }
    }

    /// Appends an answer whose payload is in a buffer that is used again.
    pub(super) fn encode_copy<H: serde::Serialize>(
        &mut self,
        meta: Meta,
        head: &H,
        payload: &[u8],
        crc: u32,
    ) {
        if let Err(error) = encode(self.out.tail(), meta, head, payload, crc) {
            self.cannot_encode(&error);
        }
    }

    /// Heads are bounded, so this is a bug; the client must not wait for ever.
    fn cannot_encode(&mut self, error: &FrameError) {
        tracing::error!(%error, "an answer cannot be encoded");
        self.ending = true;
    }
}

/// How a request ended.
#[derive(Default)]
pub(super) struct Done {
    /// The object, where it is known.
    pub(super) object: Option<ObjectId>,
    /// Bytes of content that came or left with it.
    pub(super) bytes: u64,
    /// Why it was not done.
    pub(super) refused: Option<ErrorCode>,
    /// Of a mutation that was made here: where its time went.
    pub(super) stages: Stages,
}

/// The budget is exhausted.
pub(super) fn busy() -> Problem {
    Problem::new(ErrorCode::Busy, "too many requests or bytes are in flight").remedy("ask again")
}
