//! The server's end of a connection that is not on the hot path: handshake, a framed read loop, a bounded writer.
//!
//! A tracker serves all its connections with it; it hands complete, authorized requests to a [`Service`] and writes
//! the answers. (A storage's data connections have their own loop, which pipelines and streams.)
//!
//! Invariants (P7)
//! - Requests of one connection are served one after the other: a connection costs at most one request in hand, one
//!   read buffer that grows with what has arrived, one answer. Who pipelines is held back by TCP.
//! - No head is looked at before the opcode table said that this role may call it on this daemon.
//! - A request in hand is finished before the connection ends for a stop of the daemon.
//! - Who is silent, slow to send or slow to read is cut off: `handshake_timeout` until the session begins,
//!   `idle_timeout` for each whole request, [`WRITE_TIMEOUT`] for each answer.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::ambient;
use crate::format::crc::crc32c;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{Frame, FrameDecoder, FrameError, Kind, Limits, Meta, encode};
use crate::messages::handshake::{self, Hello, Refusal, ServerHandshake, Session};
use crate::messages::heads::{ErrorHead, NodeIdentity};
use crate::messages::opcode::{Daemon, Entry, Opcode, Role, authorize};
use crate::tls::accept::NoTls;
use crate::tls::{Certified, MachineName, Stream, Tls};

/// How long one answer may take to be written.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

pub use super::key_ring::KeyRing;

/// What all connections of one daemon share.
#[derive(Debug)]
pub struct SessionConfig {
    /// Who we are.
    pub node: NodeIdentity,
    /// As we call ourselves in errors: `tracker 127.0.0.1:7400`.
    pub name: String,
    /// Our keys.
    pub keys: KeyRing,
    /// Our certificates.
    pub tls: Tls,
    /// Until then the session must have begun.
    pub handshake_timeout: Duration,
    /// For each whole request.
    pub idle_timeout: Duration,
    /// Turns true when the daemon stops: connections end between two requests.
    pub stopping: watch::Receiver<bool>,
}

/// Why a request was not done, as it goes out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// For programs.
    pub code: ErrorCode,
    /// What failed, on what.
    pub message: String,
    /// What to do about it; may be empty.
    pub remedy: String,
}

impl Problem {
    /// A problem without a remedy.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: String::new() }
    }

    /// With one.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code, message: refusal.message, remedy: refusal.remedy.to_owned() }
    }
}

/// An answer, encoded but for its header.
#[derive(Clone, Debug)]
pub struct Answer {
    /// MessagePack head.
    head: BytesMut,
    meta: Meta,
}

impl Answer {
    /// A good answer to `request`: head and payload.
    ///
    /// # Errors
    /// It does not fit a frame.
    pub fn new<H: Serialize + ?Sized>(
        request: Meta,
        head: &H,
        payload: &Bytes,
    ) -> Result<Self, Problem> {
        let meta = Meta::answer(request.opcode, request.request_id);
        let mut out = BytesMut::new();
        encode(&mut out, meta, head, payload, crc32c(payload))
            .map_err(|error| Problem::new(ErrorCode::TooLarge, error.to_string()))?;
        Ok(Self { head: out, meta })
    }

    /// What it answers.
    #[must_use]
    pub const fn meta(&self) -> Meta {
        self.meta
    }
}

/// What serves complete requests. On one thread: nothing needs to be `Send`.
pub trait Service {
    /// Answers one request that passed the opcode table.
    fn call(
        &self,
        session: &Session,
        opcode: Opcode,
        request: Frame,
    ) -> impl Future<Output = Result<Answer, Problem>>;

    /// The connection is over.
    fn closed(&self, _session: &Session) {}
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The other end closed it between two frames.
    #[error("closed by the other end")]
    Closed,
    /// The daemon stops.
    #[error("the daemon stops")]
    Stopping,
    /// Nothing whole came in time.
    #[error("no whole {0} in time")]
    Silent(&'static str),
    /// It does not read its answers.
    #[error("it does not read its answers")]
    SlowReader,
    /// The bytes are wrong.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The handshake failed.
    #[error("handshake refused: {0}")]
    Refused(Problem),
    /// No TLS, or not with us.
    #[error(transparent)]
    Tls(#[from] NoTls),
    /// The socket broke.
    #[error("{}", crate::tls::connect::broken(.0))]
    Io(#[from] io::Error),
}

/// One end of a connection that reads and writes whole frames.
pub struct Wire<S> {
    stream: S,
    decoder: FrameDecoder,
    buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Around a fresh socket.
    #[must_use]
    pub fn new(stream: S, limits: Limits) -> Self {
        Self { stream, decoder: FrameDecoder::new(limits), buffer: BytesMut::new() }
    }

    /// Other limits from now on.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.decoder.set_limits(limits);
    }

    /// The next frame; `None` when the other end closed between two frames. A damaged payload is an error after which
    /// reading may go on.
    pub async fn read(&mut self) -> Result<Option<Frame>, Ended> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            if self.buffer.capacity() == self.buffer.len() {
                self.buffer.reserve(4096);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                self.decoder.finish(&self.buffer)?;
                return Ok(None);
            }
        }
    }

    /// Writes encoded frames.
    pub async fn write(&mut self, frames: &[u8]) -> Result<(), Ended> {
        let written = async {
            self.stream.write_all(frames).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(WRITE_TIMEOUT, written).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(Ended::SlowReader),
        }
    }
}

impl<S> Wire<S> {
    /// What was read and is no frame yet.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// The socket, and what was read beyond the last frame.
    pub fn into_parts(self) -> (S, FrameDecoder, BytesMut) {
        (self.stream, self.decoder, self.buffer)
    }
}

/// Makes a session on a fresh socket, within `handshake_timeout`.
///
/// # Errors
/// [`Ended`]: the other end was told why, as far as it speaks frames.
pub async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    config: &SessionConfig,
    certified: &Certified,
) -> Result<Session, Ended> {
    let shaken = shake_hands(wire, config, certified);
    let begun = tokio::time::timeout(config.handshake_timeout, shaken).await;
    let mut session = begun.map_err(|_| Ended::Silent("handshake"))??;
    if let (Role::Peer, Certified::Machines(_)) = (session.role, certified) {
        // Checked with `hello`: its name is one of them.
        session.machine = MachineName::parse(&session.name).map(|name| name.machine);
    }
    wire.set_limits(Limits::SESSION);
    Ok(session)
}

/// Serves one connection to its end.
pub async fn serve<S, T>(
    stream: S,
    peer: SocketAddr,
    certified: &Certified,
    config: Arc<SessionConfig>,
    service: &T,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Service,
{
    let mut wire = Wire::new(stream, Limits::HANDSHAKE);
    let session = match begin(&mut wire, &config, certified).await {
        Ok(session) => session,
        Err(ended) => return ended,
    };
    tracing::debug!(%peer, role = %session.role, name = session.name, "session begins");
    let ended = loop {
        if let Err(ended) = one_request(&mut wire, &config, &session, service).await {
            break ended;
        }
    };
    service.closed(&session);
    ended
}

/// Reads, serves and answers one request.
async fn one_request<S, T>(
    wire: &mut Wire<S>,
    config: &SessionConfig,
    session: &Session,
    service: &T,
) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Service,
{
    let frame = read_request(wire, config, config.idle_timeout, "request").await?;
    let Some(frame) = frame else { return Ok(()) };
    let meta = frame.header.meta;
    let answer = match check(meta, config.node.kind, Some(session.role)) {
        Ok(entry) => service.call(session, entry.opcode, frame).await,
        Err(problem) => Err(problem),
    };
    let bytes = match answer {
        Ok(answer) => answer.head,
        Err(problem) => refusal(config, meta, &problem)?,
    };
    wire.write(&bytes).await
}

/// The next request frame. `None`: something that needs no answer. A broken frame is answered before the error.
async fn read_request<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    config: &SessionConfig,
    limit: Duration,
    what: &'static str,
) -> Result<Option<Frame>, Ended> {
    let mut stopping = config.stopping.clone();
    // Both branches may be dropped: what has arrived stays in the buffer.
    let read = tokio::select! {
        biased;
        _ = stopping.wait_for(|stop| *stop) => return Err(Ended::Stopping),
        read = tokio::time::timeout(limit, wire.read()) => read,
    };
    let frame = match read {
        Err(_) => return Err(Ended::Silent(what)),
        Ok(Ok(None)) => return Err(Ended::Closed),
        Ok(Ok(Some(frame))) => frame,
        Ok(Err(Ended::Frame(error))) => {
            if let Some(meta) = error.answer() {
                let problem = Problem::new(error.code(), error.to_string());
                wire.write(&refusal(config, meta, &problem)?).await?;
            }
            return if error.is_fatal() { Err(error.into()) } else { Ok(None) };
        }
        Ok(Err(ended)) => return Err(ended),
    };
    match frame.header.meta.kind {
        Kind::Request => Ok(Some(frame)),
        // An answer may have crossed the wish not to have it.
        Kind::Cancel | Kind::Window => Ok(None),
        Kind::Answer | Kind::Data => {
            let meta = frame.header.meta;
            let problem = Problem::new(ErrorCode::BadRequest, "only requests are expected here");
            wire.write(&refusal(config, meta, &problem)?).await?;
            Ok(None)
        }
    }
}

/// The opcode table's word on a request.
fn check(meta: Meta, daemon: Daemon, role: Option<Role>) -> Result<Entry, Problem> {
    authorize(meta.opcode, daemon, role).map_err(|(code, message)| Problem::new(code, message))
}

/// An error answer, encoded.
fn refusal(config: &SessionConfig, meta: Meta, problem: &Problem) -> Result<BytesMut, FrameError> {
    let mut out = BytesMut::new();
    let head = ErrorHead {
        code: problem.code.as_u16(),
        message: problem.message.clone(),
        remedy: problem.remedy.clone(),
        node: config.name.clone(),
    };
    let meta = Meta::refusal(meta.opcode, meta.request_id, problem.code);
    encode(&mut out, meta, &head, b"", 0)?;
    Ok(out)
}

async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    config: &SessionConfig,
    certified: &Certified,
) -> Result<Session, Ended> {
    let mut server = ServerHandshake::new(config.node.clone(), ambient::random()?);
    loop {
        let limit = config.handshake_timeout;
        let Some(frame) = read_request(wire, config, limit, "handshake").await? else {
            // Nothing but requests makes sense before a session.
            return Err(Ended::Closed);
        };
        let meta = frame.header.meta;
        let step = check(meta, config.node.kind, None)
            .and_then(|entry| handshake_step(&mut server, config, certified, entry.opcode, &frame));
        match step {
            Ok((answer, session)) => {
                wire.write(&answer.head).await?;
                if let Some(session) = session {
                    return Ok(session);
                }
            }
            Err(problem) => {
                wire.write(&refusal(config, meta, &problem)?).await?;
                return Err(Ended::Refused(problem));
            }
        }
    }
}

fn handshake_step(
    server: &mut ServerHandshake,
    config: &SessionConfig,
    certified: &Certified,
    opcode: Opcode,
    frame: &Frame,
) -> Result<(Answer, Option<Session>), Problem> {
    let meta = frame.header.meta;
    if opcode == Opcode::Hello {
        let hello: Hello = handshake::read(frame.head())?;
        if hello.role == Role::Peer as u8 {
            certified.check(&hello.name).map_err(not_certified)?;
        }
        let (answer, session) =
            server.on_hello(&hello, |role| config.keys.check(role), ambient::wall_ms())?;
        Ok((Answer::new(meta, &answer, &Bytes::new())?, session))
    } else {
        let auth = handshake::read(frame.head())?;
        let (answer, session) = server.on_auth(&auth, |role| config.keys.of(role))?;
        Ok((Answer::new(meta, &answer, &Bytes::new())?, Some(session)))
    }
}

/// A machine that is not the one it says it is.
pub(super) fn not_certified(why: impl std::fmt::Display) -> Problem {
    Problem::new(ErrorCode::Unauthorized, why.to_string()).remedy(
        "its `tls.cert` must be made for it: subjectAltName URI:folio://GROUP/SYNCGROUP/MACHINE",
    )
}

/// Makes a stream of an accepted socket: TLS where it is on, within `handshake_timeout`. Who comes in plaintext then is
/// told so in a frame.
///
/// # Errors
/// [`NoTls`]: the socket is closed.
pub async fn secure(
    stream: TcpStream,
    config: &SessionConfig,
) -> Result<(Stream, Certified), NoTls> {
    let secured = config.tls.accept(stream, config.handshake_timeout).await;
    if let Err(NoTls::Plaintext(stream)) = secured {
        let problem = Problem::new(ErrorCode::Unauthorized, "this node speaks TLS only")
            .remedy("name the CA of the cluster: --ca FILE or FOLIO_CA_FILE (a daemon: [tls])");
        let mut wire = Wire::new(stream, Limits::HANDSHAKE);
        let told = async {
            if let Some(frame) = wire.read().await? {
                wire.write(&refusal(config, frame.header.meta, &problem)?).await?;
            }
            Ok::<(), Ended>(())
        };
        // Nothing more can be done for who does not even speak frames.
        drop(tokio::time::timeout(config.handshake_timeout, told).await);
        return Err(NoTls::Told);
    }
    secured
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
