//! One connection to one node: pipelined requests, answers in any order, streamed bodies both ways.
//!
//! One reader task hands answers to those who wait; requests are written by whoever makes them (see
//! [`super::outbox`]). A request that nobody waits for any more is forgotten here, and a read is cancelled at the
//! node; a mutation never is (R2).

mod transfer;

pub(super) use transfer::{Download, Turn, Upload};

use super::error::{Error, Failure, Result};
use super::flow::{Allowance, Credit};
use super::outbox::Outbox;
use super::write_end::WriteEnd;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{
    self, FLAG_LAST, FLAG_STREAMED, Frame, FrameDecoder, FrameError, Kind, Limits, Meta,
};
use crate::messages::heads::{self, NodeIdentity, WINDOW, WindowHead};
use crate::messages::opcode::Opcode;
use crate::tls::ReadEnd;
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

/// With less room than this a new buffer is taken (answers that are still in use keep the old one), bytes.
const READ_MIN: usize = 8 * 1024;
/// Room of a new one.
const READ_STEP: usize = 64 * 1024;

/// An open connection with a session. Closed when the last handle is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
    /// Who the node is.
    pub(super) identity: NodeIdentity,
    /// Its clock, and ours at that moment.
    clock: (u64, Instant),
}

#[derive(Debug)]
struct Shared {
    /// For messages: `storage books/a machine 1 at 127.0.0.1:7411`.
    node: Arc<str>,
    write: WriteEnd,
    outbox: Mutex<Outbox>,
    /// The outbox is blocked: the writer task has something to do.
    wake: Notify,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last_id: u64,
    slots: HashMap<u64, Slot>,
    /// Why the connection is of no more use.
    dead: Option<String>,
}

/// Who waits for what comes with one request id.
#[derive(Debug)]
enum Slot {
    /// The answer, and meanwhile Window frames for our streamed body.
    Answer(oneshot::Sender<Result<Reply>>, Option<Arc<Credit>>),
    /// The pieces of a streamed body.
    Body(mpsc::UnboundedSender<Result<Frame>>, Arc<Allowance>),
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) frame: Frame,
    /// With a streamed body, its pieces.
    body: Option<(mpsc::UnboundedReceiver<Result<Frame>>, Arc<Allowance>)>,
}

/// A connection of which the handshake is finished, not yet running.
pub(super) struct Opened {
    pub(super) node: String,
    pub(super) read: ReadEnd,
    pub(super) write: crate::tls::WriteEnd,
    pub(super) decoder: FrameDecoder,
    /// Read beyond the handshake.
    pub(super) buffer: BytesMut,
    pub(super) identity: NodeIdentity,
    pub(super) server_time_ms: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these; if it ever did, the data is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// Starts the tasks of an opened connection.
    pub(super) fn start(opened: Opened) -> Arc<Self> {
        let Opened { node, read, write, mut decoder, buffer, identity, server_time_ms } = opened;
        decoder.set_limits(Limits::SESSION);
        let shared = Arc::new(Shared {
            node: node.into(),
            write: WriteEnd::new(write),
            outbox: Mutex::default(),
            wake: Notify::new(),
            waiting: Mutex::default(),
        });
        let reader = tokio::spawn(read_all(Arc::clone(&shared), read, decoder, buffer));
        let writer = tokio::spawn(write_all(Arc::clone(&shared)));
        Arc::new(Self {
            shared,
            tasks: [reader.abort_handle(), writer.abort_handle()],
            identity,
            clock: (server_time_ms, Instant::now()),
        })
    }

    /// For messages.
    pub(super) fn node(&self) -> &str {
        &self.shared.node
    }

    /// For messages that outlive the connection.
    pub(super) fn shared_node(&self) -> Arc<str> {
        Arc::clone(&self.shared.node)
    }

    /// Whether it is of no more use.
    pub(super) fn is_dead(&self) -> bool {
        lock(&self.shared.waiting).dead.is_some()
    }

    /// The node's wall clock, milliseconds since 1970, as far as we know.
    pub(super) fn server_time_ms(&self) -> u64 {
        let (then, at) = self.clock;
        then.saturating_add(u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn call<H: Serialize>(
        self: &Arc<Self>,
        opcode: Opcode,
        head: &H,
        payload: Bytes,
        payload_crc: u32,
        deadline: Instant,
    ) -> std::result::Result<Reply, Failure> {
        let mut pending = self.register(opcode, None)?;
        let meta = Meta::request(opcode.as_u16(), pending.id);
        self.send(meta, head, payload, payload_crc).map_err(Failure::nothing)?;
        pending.answer(deadline).await
    }

    /// Sends a request whose body follows through [`Upload`].
    pub(super) fn upload<H: Serialize>(
        self: &Arc<Self>,
        opcode: Opcode,
        head: &H,
    ) -> std::result::Result<Upload, Failure> {
        let credit = Arc::new(Credit::default());
        let pending = self.register(opcode, Some(Arc::clone(&credit)))?;
        let meta = Meta::request(opcode.as_u16(), pending.id).with_flags(FLAG_STREAMED);
        self.send(meta, head, Bytes::new(), 0).map_err(Failure::nothing)?;
        Ok(Upload { pending, credit })
    }

    fn register(
        self: &Arc<Self>,
        opcode: Opcode,
        credit: Option<Arc<Credit>>,
    ) -> std::result::Result<Pending, Failure> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = lock(&self.shared.waiting);
        if let Some(why) = &waiting.dead {
            return Err(Failure::nothing(self.shared.lost(why)));
        }
        waiting.last_id += 1;
        let id = waiting.last_id;
        waiting.slots.insert(id, Slot::Answer(sender, credit));
        Ok(Pending {
            connection: Arc::clone(self),
            opcode,
            id,
            receiver,
            state: PendingState::Open,
        })
    }

    /// Puts a whole frame on its way; never waits.
    fn send<H: Serialize>(&self, meta: Meta, head: &H, payload: Bytes, crc: u32) -> Result<()> {
        let len = frame::payload_len(&payload)?;
        self.shared.push(|outbox| {
            frame::encode_head(outbox.tail(), meta, head, len, crc)?;
            if !payload.is_empty() {
                outbox.payload(payload);
            }
            Ok(())
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn lost(&self, why: &str) -> Error {
        Error::new(ErrorCode::Unavailable, format!("connection lost: {why}")).at(&self.node)
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write.try_write(slices)
    }

    fn push(
        &self,
        add: impl FnOnce(&mut Outbox) -> std::result::Result<(), FrameError>,
    ) -> Result<()> {
        let mut outbox = lock(&self.outbox);
        add(&mut outbox)?;
        if outbox.blocked {
            return Ok(());
        }
        match outbox.flush(|slices| self.write(slices)) {
            Ok(true) => Ok(()),
            Ok(false) => {
                outbox.blocked = true;
                self.wake.notify_one();
                Ok(())
            }
            Err(error) => {
                drop(outbox);
                self.fail(&error.to_string());
                // Those who wait, this caller among them, learn it from their slots.
                Ok(())
            }
        }
    }

    /// Tells the node that nobody waits for a request any more.
    fn cancel(&self, opcode: u16, request_id: u64) {
        let pushed = self.push(|outbox| {
            frame::encode_bare(outbox.tail(), Meta::of_kind(Kind::Cancel, opcode, request_id));
            Ok(())
        });
        // A connection that is gone needs no Cancel.
        drop(pushed);
    }

    /// Ends everything that waits.
    fn fail(&self, why: &str) {
        let slots = {
            let mut waiting = lock(&self.waiting);
            waiting.dead.get_or_insert_with(|| why.to_owned());
            std::mem::take(&mut waiting.slots)
        };
        drop(slots);
    }

    fn why_dead(&self) -> Error {
        let why = lock(&self.waiting).dead.clone();
        self.lost(why.as_deref().unwrap_or("closed"))
    }

    /// Hands a frame to who waits for it; what nobody waits for is dropped.
    fn deliver(&self, frame: Frame) -> std::result::Result<(), &'static str> {
        let meta = frame.header.meta;
        match meta.kind {
            Kind::Answer => {
                self.deliver_answer(meta, frame);
                Ok(())
            }
            Kind::Data => self.deliver_data(meta, frame),
            Kind::Window => {
                let granted = heads::decode::<WindowHead>(frame.head());
                let granted = granted.map_err(|_| "malformed window")?;
                let waiting = lock(&self.waiting);
                if let Some(Slot::Answer(_, Some(credit))) = waiting.slots.get(&meta.request_id) {
                    credit.grant(granted.bytes);
                }
                Ok(())
            }
            Kind::Request | Kind::Cancel => Err("the node sent a request"),
        }
    }

    fn deliver_answer(&self, meta: Meta, frame: Frame) {
        let mut waiting = lock(&self.waiting);
        match waiting.slots.remove(&meta.request_id) {
            Some(Slot::Answer(sender, _)) => {
                let answer = if meta.status != 0 {
                    Err(Error::of_answer(meta.status, frame.head()).at(&self.node))
                } else if frame.header.has(FLAG_STREAMED) {
                    let (pieces, body) = mpsc::unbounded_channel();
                    let allowance = Arc::new(Allowance::new(WINDOW));
                    let slot = Slot::Body(pieces, Arc::clone(&allowance));
                    waiting.slots.insert(meta.request_id, slot);
                    Ok(Reply { frame, body: Some((body, allowance)) })
                } else {
                    Ok(Reply { frame, body: None })
                };
                let streamed = matches!(&answer, Ok(Reply { body: Some(_), .. }));
                drop(waiting);
                // Nobody there any more: the caller gave up and does not want the body either.
                if sender.send(answer).is_err() && streamed {
                    lock(&self.waiting).slots.remove(&meta.request_id);
                    self.cancel(meta.opcode, meta.request_id);
                }
            }
            // A second answer ends a body that could not be delivered to its end.
            Some(Slot::Body(pieces, _)) => {
                let error = Error::of_answer(meta.status, frame.head()).at(&self.node);
                drop(pieces.send(Err(error)));
            }
            None => {}
        }
    }

    fn deliver_data(&self, meta: Meta, frame: Frame) -> std::result::Result<(), &'static str> {
        let mut waiting = lock(&self.waiting);
        let Some(Slot::Body(pieces, allowance)) = waiting.slots.get(&meta.request_id) else {
            return Ok(());
        };
        if !allowance.receive(frame.payload().len()) {
            return Err("the node sends more than the window allows");
        }
        let last = frame.header.has(FLAG_LAST);
        drop(pieces.send(Ok(frame)));
        if last {
            waiting.slots.remove(&meta.request_id);
        }
        Ok(())
    }

    /// A payload that was damaged on the way ends its request, not the connection.
    fn deliver_damage(&self, meta: Meta, error: FrameError) {
        let slot = lock(&self.waiting).slots.remove(&meta.request_id);
        let error = Error::from(error).at(&self.node);
        match slot {
            Some(Slot::Answer(sender, _)) => drop(sender.send(Err(error))),
            Some(Slot::Body(pieces, _)) => drop(pieces.send(Err(error))),
            None => {}
        }
    }
}

async fn read_all(
    shared: Arc<Shared>,
    mut read: ReadEnd,
    mut decoder: FrameDecoder,
    mut buffer: BytesMut,
) {
    let why = loop {
        match decoder.decode(&mut buffer) {
            Ok(Some(frame)) => match shared.deliver(frame) {
                Ok(()) => continue,
                Err(why) => break why.to_owned(),
            },
            Ok(None) => {}
            Err(FrameError::PayloadCrc { meta }) => {
                shared.deliver_damage(meta, FrameError::PayloadCrc { meta });
                continue;
            }
            Err(error) => break error.to_string(),
        }
        if buffer.spare_capacity_mut().len() < READ_MIN {
            buffer.reserve(READ_STEP);
        }
        match read.read_buf(&mut buffer).await {
            Ok(0) => break "closed by the node".to_owned(),
            Ok(_) => {}
            Err(error) => break crate::tls::connect::broken(&error),
        }
    };
    shared.fail(&why);
}

async fn write_all(shared: Arc<Shared>) {
    loop {
        shared.wake.notified().await;
        loop {
            if let Err(error) = shared.write.writable().await {
                shared.fail(&error.to_string());
                return;
            }
            let mut outbox = lock(&shared.outbox);
            match outbox.flush(|slices| shared.write(slices)) {
                Ok(true) => {
                    outbox.blocked = false;
                    break;
                }
                Ok(false) => {}
                Err(error) => {
                    drop(outbox);
                    shared.fail(&error.to_string());
                    return;
                }
            }
        }
    }
}

/// A request whose answer is awaited.
#[derive(Debug)]
struct Pending {
    connection: Arc<Connection>,
    opcode: Opcode,
    id: u64,
    receiver: oneshot::Receiver<Result<Reply>>,
    state: PendingState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PendingState {
    /// The answer is awaited.
    Open,
    /// A body is being sent that a Cancel ends.
    Uploading,
    /// Answered, or nothing more will come.
    Over,
}

impl Pending {
    async fn answer(&mut self, deadline: Instant) -> std::result::Result<Reply, Failure> {
        match timeout_at(deadline, &mut self.receiver).await {
            Ok(received) => self.received(received),
            Err(_) => {
                let error = Error::new(ErrorCode::Unavailable, "no answer in time");
                Err(Failure::unknown(error.at(self.connection.node())))
            }
        }
    }

    fn received(
        &mut self,
        received: std::result::Result<Result<Reply>, oneshot::error::RecvError>,
    ) -> std::result::Result<Reply, Failure> {
        self.state = PendingState::Over;
        match received {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(Failure::answered(error)),
            Err(_) => Err(Failure::unknown(self.connection.shared.why_dead())),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.state == PendingState::Over {
            return;
        }
        lock(&self.connection.shared.waiting).slots.remove(&self.id);
        if self.state == PendingState::Uploading || !self.opcode.entry().mutation {
            self.connection.shared.cancel(self.opcode.as_u16(), self.id);
        }
    }
}
