//! A connection to another storage that many requests share: pipelined, answers by request id.
//!
//! Invariants: whoever asks bounds what it has in flight; an answer that nobody waits for any more is dropped; when the
//! connection breaks every request in flight hears it at once. Nothing here knows what is asked.

use super::ambient::Monotonic;
use super::caller::{CallError, Caller, Identity};
use super::session::{Ended, Problem};
use crate::format::crc::crc32c;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{Frame, FrameDecoder, Kind, Meta, encode_head};
use crate::messages::heads::{self, ErrorHead, NodeIdentity};
use crate::messages::opcode::Opcode;
use crate::tls::{ReadEnd, WriteEnd};
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Payloads up to here are written together with their head.
const COPY_MAX: usize = 64 << 10;
/// Bytes gathered for one write.
const GATHER: usize = 256 << 10;

/// The way to another storage. Any thread may use it.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    out: mpsc::UnboundedSender<(BytesMut, Bytes)>,
    next_id: AtomicU64,
    /// Who is at the other end.
    pub node: NodeIdentity,
}

#[derive(Debug)]
struct Shared {
    address: String,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Frame>>>,
    /// When something was last read, by the clock of the storage.
    heard: Arc<AtomicU64>,
    clock: Monotonic,
    closed: CancellationToken,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Frame>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is over: who waits hears it.
    fn close(&self) {
        self.closed.cancel();
        let waiting = std::mem::take(&mut *self.waiting());
        drop(waiting);
    }

    fn broken(&self) -> CallError {
        CallError::Broken { address: self.address.clone(), ended: Ended::Closed }
    }
}

impl Link {
    /// Connects and shakes hands within `limit`; must be called on an arbiter, whose thread then serves the socket.
    /// `heard` is set to the time of `clock` whenever something is read.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn connect(
        address: &str,
        identity: &Identity,
        limit: Duration,
        clock: Monotonic,
        heard: Arc<AtomicU64>,
    ) -> Result<Self, CallError> {
        let caller = Caller::connect(address, identity, limit).await?;
        let node = caller.node.clone();
        let (stream, decoder, buffer, last_id) = caller.into_parts();
        let (read, write) = stream.into_split();
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            waiting: Mutex::default(),
            heard,
            clock,
            closed: CancellationToken::new(),
        });
        shared.heard.store(clock.now_ms(), Ordering::Relaxed);
        let (out, queue) = mpsc::unbounded_channel();
        actix::spawn(write_all(write, queue, Arc::clone(&shared)));
        actix::spawn(read_all(read, decoder, buffer, Arc::clone(&shared)));
        Ok(Self { shared, out, next_id: AtomicU64::new(last_id + 1), node })
    }

    /// Sends a request now, in the order of the calls; the answer comes later.
    ///
    /// # Errors
    /// The request does not fit a frame; the connection is broken.
    pub fn start<H: Serialize + ?Sized>(
        &self,
        opcode: Opcode,
        head: &H,
        payload: Bytes,
    ) -> Result<Answer, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let nonsense =
            |what: String| CallError::Nonsense { address: "this storage".to_owned(), what };
        let len = u32::try_from(payload.len()).map_err(|error| nonsense(error.to_string()))?;
        let mut bytes = BytesMut::new();
        encode_head(&mut bytes, Meta::request(opcode.as_u16(), id), head, len, crc32c(&payload))
            .map_err(|error| nonsense(error.to_string()))?;
        let (tell, hear) = oneshot::channel();
        self.shared.waiting().insert(id, tell);
        let answer = Answer { id, hear, shared: Arc::clone(&self.shared) };
        if self.is_closed() || self.out.send((bytes, payload)).is_err() {
            return Err(self.shared.broken());
        }
        Ok(answer)
    }

    /// Asks, and waits for the answer at most `limit`.
    ///
    /// # Errors
    /// [`CallError`]; the outcome of a change is unknown then, unless it was refused (R2).
    pub async fn call<H: Serialize + ?Sized>(
        &self,
        opcode: Opcode,
        head: &H,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Frame, CallError> {
        let answer = self.start(opcode, head, payload)?;
        tokio::time::timeout(limit, answer)
            .await
            .unwrap_or_else(|_| Err(CallError::Timeout(self.shared.address.clone())))
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }

    /// Waits until it is over.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Ends it.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// An answer that is on its way.
#[derive(Debug)]
pub struct Answer {
    id: u64,
    hear: oneshot::Receiver<Frame>,
    shared: Arc<Shared>,
}

impl Future for Answer {
    type Output = Result<Frame, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(heard) = Pin::new(&mut self.hear).poll(cx) else { return Poll::Pending };
        Poll::Ready(match heard {
            Ok(frame) => good(frame, &self.shared.address),
            Err(_) => Err(self.shared.broken()),
        })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.shared.waiting().remove(&self.id);
    }
}

/// The frame, or what it refuses.
fn good(frame: Frame, address: &str) -> Result<Frame, CallError> {
    if frame.header.meta.status == 0 {
        return Ok(frame);
    }
    let nonsense = |what: String| CallError::Nonsense { address: address.to_owned(), what };
    let head: ErrorHead =
        heads::decode(frame.head()).map_err(|error| nonsense(error.to_string()))?;
    let code = ErrorCode::of_status(head.code);
    let problem = Problem { code, message: head.message, remedy: head.remedy };
    Err(CallError::Refused { node: head.node, problem })
}

async fn write_all(
    mut socket: WriteEnd,
    mut queue: mpsc::UnboundedReceiver<(BytesMut, Bytes)>,
    shared: Arc<Shared>,
) {
    let write = async {
        while let Some((mut bytes, payload)) = queue.recv().await {
            let mut payload = payload;
            while payload.len() <= COPY_MAX && bytes.len() < GATHER {
                bytes.extend_from_slice(&payload);
                let Ok((head, next)) = queue.try_recv() else {
                    payload = Bytes::new();
                    break;
                };
                bytes.extend_from_slice(&head);
                payload = next;
            }
            socket.write_all(&bytes).await?;
            socket.write_all(&payload).await?;
            socket.flush().await?;
        }
        std::io::Result::Ok(())
    };
    tokio::select! {
        written = write => if let Err(error) = written {
            tracing::debug!(address = shared.address, %error, "connection to a peer broke");
        },
        () = shared.closed.cancelled() => {}
    }
    shared.close();
}

async fn read_all(
    mut socket: ReadEnd,
    mut decoder: FrameDecoder,
    mut buffer: BytesMut,
    shared: Arc<Shared>,
) {
    let read = async {
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    if frame.header.meta.kind == Kind::Answer
                        && let Some(waiter) = shared.waiting().remove(&frame.header.meta.request_id)
                    {
                        // Who asked may have given up.
                        waiter.send(frame).map_err(drop).unwrap_or_default();
                    }
                }
                Ok(None) => {
                    if buffer.capacity() == buffer.len() {
                        buffer.reserve(16 << 10);
                    }
                    match socket.read_buf(&mut buffer).await {
                        Ok(0) => return Ended::Closed,
                        Ok(_) => shared.heard.store(shared.clock.now_ms(), Ordering::Relaxed),
                        Err(error) => return error.into(),
                    }
                }
                Err(error) => return error.into(),
            }
        }
    };
    tokio::select! {
        ended = read => tracing::debug!(address = shared.address, %ended, "connection to a peer ended"),
        () = shared.closed.cancelled() => {}
    }
    shared.close();
}
