//! One connection with one outstanding request: frames straight over a socket, as little as possible besides.
//!
//! The load shares its cores with what it measures, so it does not go through the client library.

use super::super::exit::{Failure, Outcome};
use crate::actors::ambient;
use crate::client;
use crate::format::ids::Token;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{self, Frame, FrameDecoder, Limits, Meta};
use crate::messages::handshake::{self, ClientHandshake, Next, Refusal};
use crate::messages::heads::{self, ErrorHead};
use crate::messages::opcode::{Opcode, Role};
use crate::settings::{Keys, Secret};
use crate::tls::{ClientTls, Stream};
use bytes::BytesMut;
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes asked for at once.
const READ: usize = 64 << 10;

/// A connection as client.
pub(super) struct Wire {
    stream: Stream,
    decoder: FrameDecoder,
    input: BytesMut,
    output: BytesMut,
    next: u64,
    instance: [u8; 16],
    tokens: u64,
    /// For messages.
    address: String,
    /// How long an answer may take.
    timeout: Duration,
    /// No answer is waited for any longer than until then.
    limit: Option<Instant>,
    /// The server's clock at the handshake, and ours.
    server_time: (u64, Instant),
    /// Group of the node.
    pub group: String,
}

fn lost(error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::Unavailable, format!("connection lost: {error}"), "")
}

fn refused(refusal: Refusal) -> Failure {
    Failure::new(refusal.code, refusal.message, refusal.remedy)
}

impl Wire {
    /// Connects and introduces itself.
    pub(super) async fn open(
        address: &str,
        (keys, tls): (Option<&Keys>, Option<&ClientTls>),
        timeout: Duration,
    ) -> Outcome<Self> {
        let open = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            match tls {
                Some(tls) => tls.connect(stream, address).await,
                None => Ok(Stream::Plain(stream)),
            }
        };
        let stream = tokio::time::timeout(timeout, open)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|e| {
                let message = format!("cannot connect to {address}: {e}");
                Failure::new(ErrorCode::Unavailable, message, "start it, or name another target")
            })?;
        let instance = ambient::random().map_err(lost)?;
        let mut wire = Self {
            stream,
            decoder: FrameDecoder::new(Limits::SESSION),
            input: BytesMut::with_capacity(READ),
            output: BytesMut::with_capacity(READ),
            next: 0,
            instance,
            tokens: 0,
            address: address.to_owned(),
            timeout,
            limit: None,
            server_time: (0, Instant::now()),
            group: String::new(),
        };
        let keys: Vec<Secret> = keys.map(|keys| keys.of(Role::Client).to_vec()).unwrap_or_default();
        wire.introduce(keys).await?;
        Ok(wire)
    }

    async fn introduce(&mut self, keys: Vec<Secret>) -> Outcome {
        let nonce = ambient::random().map_err(lost)?;
        let mut hands = ClientHandshake::new(Role::Client, "bench", self.instance, keys, nonce);
        let hello = hands.hello().clone();
        let frame = self.call(Opcode::Hello, &hello, &[], 0).await?;
        let answer: handshake::HelloAnswer = handshake::read(frame.head()).map_err(refused)?;
        self.server_time = (answer.server_time_ms, Instant::now());
        self.group.clone_from(&answer.node.group);
        if let Next::Prove(auth) = hands.on_hello_answer(answer).map_err(refused)? {
            let frame = self.call(Opcode::Auth, &auth, &[], 0).await?;
            let answer = handshake::read(frame.head()).map_err(refused)?;
            hands.on_auth_answer(&answer).map_err(refused)?;
        }
        Ok(())
    }

    /// The next token.
    pub(super) fn token(&mut self) -> Token {
        self.tokens += 1;
        let (server_ms, at) = self.server_time;
        let passed = u64::try_from(at.elapsed().as_millis()).unwrap_or(0);
        Token {
            client: self.instance,
            sequence: self.tokens,
            lowest_unanswered: self.tokens,
            issued_ms: server_ms + passed,
        }
    }

    /// Waits for no answer any longer than the timeout after `end`: a load ends also when a node stands still.
    pub(super) fn end_with(&mut self, end: Option<Instant>) {
        self.limit = end.and_then(|end| end.checked_add(self.timeout));
    }

    /// One request, one answer. Without one in time the connection is lost: an answer that came late would be taken for
    /// that of the next request.
    pub(super) async fn call<H: Serialize>(
        &mut self,
        opcode: Opcode,
        head: &H,
        payload: &[u8],
        crc: u32,
    ) -> Outcome<Frame> {
        let own = Instant::now() + self.timeout;
        let until = self.limit.map_or(own, |limit| limit.min(own));
        let exchange = self.exchange(opcode, head, payload, crc);
        if let Ok(answer) = tokio::time::timeout_at(until.into(), exchange).await {
            return answer;
        }
        let mut failure = lost(format!("{} did not answer in time", self.address));
        "`folio df` shows which storages are down".clone_into(&mut failure.remedy);
        Err(failure)
    }

    async fn exchange<H: Serialize>(
        &mut self,
        opcode: Opcode,
        head: &H,
        payload: &[u8],
        crc: u32,
    ) -> Outcome<Frame> {
        self.next += 1;
        self.output.clear();
        let meta = Meta::request(opcode.as_u16(), self.next);
        frame::encode(&mut self.output, meta, head, payload, crc).map_err(client::Error::from)?;
        self.stream.write_all(&self.output).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)?;
        let frame = loop {
            if let Some(frame) =
                FrameDecoder::decode(&mut self.decoder, &mut self.input).map_err(lost)?
            {
                break frame;
            }
            self.input.reserve(READ);
            if self.stream.read_buf(&mut self.input).await.map_err(lost)? == 0 {
                return Err(lost("closed by the other end"));
            }
        };
        let Meta { status, request_id, .. } = frame.header.meta;
        if request_id != self.next && status == 0 {
            return Err(Failure::failed("an answer to another request", ""));
        }
        if status == 0 {
            return Ok(frame);
        }
        let code = ErrorCode::of_status(status);
        Err(match heads::decode::<ErrorHead>(frame.head()) {
            Ok(head) => Failure::new(code, head.message, head.remedy),
            Err(error) => Failure::new(code, error.to_string(), ""),
        })
    }
}
