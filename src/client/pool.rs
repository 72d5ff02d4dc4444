//! Connections by address: opened when needed, shared by all requests, replaced when lost.

use super::connection::{Connection, Opened};
use super::error::{Error, Failure, Result};
use super::random;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{self, Frame, FrameDecoder, Kind, Limits, Meta};
use crate::messages::handshake::{self, AuthAnswer, ClientHandshake, HelloAnswer, Next};
use crate::messages::opcode::{Daemon, Opcode, Role};
use crate::settings::keys::{Keys, Secret};
use crate::tls::connect::{broken, looks_like_tls};
use crate::tls::{ClientTls, ReadEnd, Stream, WriteEnd};
use arc_swap::ArcSwapOption;
use bytes::BytesMut;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// How long a connection may take to open before another node is tried.
const OPEN_MAX: Duration = Duration::from_secs(2);

/// What a client says of itself to every node.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    role: Role,
    keys: Vec<Secret>,
    tls: Option<ClientTls>,
    /// Also the client uuid in tokens.
    pub(super) instance: [u8; 16],
}

impl Credentials {
    /// As a client, or as admin if that is the only key at hand.
    pub(super) fn new(keys: Option<&Keys>, tls: Option<ClientTls>, instance: [u8; 16]) -> Self {
        let of = |role| keys.map_or(&[][..], |keys: &Keys| keys.of(role));
        let role = match (of(Role::Client), of(Role::Admin)) {
            ([], [_, ..]) => Role::Admin,
            _ => Role::Client,
        };
        Self { role, keys: of(role).to_vec(), tls, instance }
    }
}

/// All connections of a client.
#[derive(Debug)]
pub(super) struct Pool {
    credentials: Credentials,
    per_node: usize,
    nodes: Mutex<HashMap<String, Arc<Node>>>,
}

/// The connections to one address.
#[derive(Debug)]
struct Node {
    next: AtomicUsize,
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    open: ArcSwapOption<Connection>,
    /// One opens, the others wait for it.
    opening: tokio::sync::Mutex<()>,
}

impl Pool {
    pub(super) fn new(credentials: Credentials, per_node: usize) -> Self {
        Self { credentials, per_node: per_node.max(1), nodes: Mutex::default() }
    }

    pub(super) const fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// A connection to `address`, open or opened now.
    ///
    /// # Errors
    /// [`Left::Nothing`](super::error::Left) if it cannot be opened; `Answered` if the handshake was refused.
    pub(super) async fn get(
        &self,
        address: &str,
        deadline: Instant,
    ) -> std::result::Result<Arc<Connection>, Failure> {
        let node = self.node(address);
        let turn = node.next.fetch_add(1, Ordering::Relaxed);
        let slot = &node.slots[turn % node.slots.len()];
        if let Some(open) = live(slot) {
            return Ok(open);
        }
        let deadline = deadline.min(Instant::now() + OPEN_MAX);
        let _opening = timeout_at(deadline, slot.opening.lock())
            .await
            .map_err(|_| Failure::nothing(cannot_connect(address, "no answer in time")))?;
        if let Some(open) = live(slot) {
            return Ok(open);
        }
        let opened = timeout_at(deadline, open(address, &self.credentials))
            .await
            .unwrap_or_else(|_| Err(cannot_connect(address, "no answer in time")))
            .map_err(|error| match error.code {
                ErrorCode::Unavailable => Failure::nothing(error),
                _ => Failure::answered(error),
            })?;
        let connection = Connection::start(opened);
        slot.open.store(Some(Arc::clone(&connection)));
        Ok(connection)
    }

    fn node(&self, address: &str) -> Arc<Node> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get(address) {
            return Arc::clone(node);
        }
        let slots = std::iter::repeat_with(Slot::default).take(self.per_node).collect();
        let node = Arc::new(Node { next: AtomicUsize::new(0), slots });
        nodes.insert(address.to_owned(), Arc::clone(&node));
        node
    }

    /// Closes the connections to addresses that are no longer part of the cluster.
    pub(super) fn retain(&self, keep: impl Fn(&str) -> bool) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|address, _| keep(address));
    }
}

fn live(slot: &Slot) -> Option<Arc<Connection>> {
    slot.open.load_full().filter(|connection| !connection.is_dead())
}

fn cannot_connect(address: &str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::Unavailable, format!("cannot connect: {why}"))
        .remedy("check that the daemon runs and that the address is right")
        .at(address)
}

/// A certificate that is not trusted is no reason to try again; a daemon that just went away is.
fn no_tls(address: &str, error: &std::io::Error) -> Error {
    if error.kind() != std::io::ErrorKind::InvalidData {
        return cannot_connect(address, error);
    }
    Error::new(ErrorCode::Unauthorized, format!("cannot connect: {error}"))
        .remedy("check the CA (--ca, FOLIO_CA_FILE) and the address")
        .at(address)
}

/// Connects and goes through the handshake.
async fn open(address: &str, credentials: &Credentials) -> Result<Opened> {
    let stream = TcpStream::connect(address).await.map_err(|e| cannot_connect(address, e))?;
    stream.set_nodelay(true).map_err(|e| cannot_connect(address, e))?;
    let stream = match &credentials.tls {
        Some(tls) => tls.connect(stream, address).await.map_err(|e| no_tls(address, &e))?,
        None => Stream::Plain(stream),
    };
    let (read, write) = stream.into_split();
    let mut wire = Greeting {
        address,
        read,
        write,
        decoder: FrameDecoder::new(Limits::SESSION),
        buffer: BytesMut::with_capacity(4096),
    };
    let name = concat!("folio client ", env!("CARGO_PKG_VERSION"));
    let keys = credentials.keys.iter().map(Secret::bytes).collect();
    let mut shake =
        ClientHandshake::new(credentials.role, name, credentials.instance, keys, random::bytes()?);
    let at = |error: Error| error.at(address);
    let answer = wire.ask(Opcode::Hello, shake.hello()).await?;
    let hello: HelloAnswer = handshake::read(answer.head()).map_err(Error::from).map_err(at)?;
    let (identity, server_time_ms) = (hello.node.clone(), hello.server_time_ms);
    match shake.on_hello_answer(hello).map_err(Error::from).map_err(at)? {
        Next::Begin(_) => {}
        Next::Prove(auth) => {
            let answer = wire.ask(Opcode::Auth, &auth).await?;
            let proof: AuthAnswer =
                handshake::read(answer.head()).map_err(Error::from).map_err(at)?;
            shake.on_auth_answer(&proof).map_err(Error::from).map_err(at)?;
        }
    }
    let node = match identity.kind {
        Daemon::Tracker => format!("tracker {address}"),
        Daemon::Storage => format!(
            "storage {}/{} machine {} at {address}",
            identity.group, identity.syncgroup, identity.machine
        ),
    };
    let Greeting { read, write, decoder, buffer, .. } = wire;
    Ok(Opened { node, read, write, decoder, buffer, identity, server_time_ms })
}

/// A connection during its handshake: one question, one answer.
struct Greeting<'a> {
    address: &'a str,
    read: ReadEnd,
    write: WriteEnd,
    decoder: FrameDecoder,
    buffer: BytesMut,
}

impl Greeting<'_> {
    async fn ask<H: Serialize>(&mut self, opcode: Opcode, head: &H) -> Result<Frame> {
        let mut out = BytesMut::with_capacity(512);
        frame::encode(&mut out, Meta::request(opcode.as_u16(), 1), head, &[], 0)?;
        let address = self.address;
        let written = async {
            self.write.write_all(&out).await?;
            self.write.flush().await
        };
        written.await.map_err(|e| cannot_connect(address, broken(&e)))?;
        loop {
            let decoded = self.decoder.decode(&mut self.buffer);
            if decoded.is_err() && looks_like_tls(&self.buffer) {
                return Err(Error::new(ErrorCode::Unauthorized, "the node speaks TLS")
                    .remedy("name the CA of the cluster: --ca FILE or FOLIO_CA_FILE")
                    .at(address));
            }
            if let Some(frame) = decoded.map_err(|e| Error::from(e).at(address))? {
                let meta = frame.header.meta;
                return match (meta.kind, meta.status) {
                    (Kind::Answer, 0) => Ok(frame),
                    (Kind::Answer, status) => {
                        Err(Error::of_answer(status, frame.head()).at(address))
                    }
                    (Kind::Request | Kind::Data | Kind::Window | Kind::Cancel, _) => {
                        Err(cannot_connect(address, "it does not answer the handshake"))
                    }
                };
            }
            let read = self.read.read_buf(&mut self.buffer).await;
            if read.map_err(|e| cannot_connect(address, broken(&e)))? == 0 {
                return Err(cannot_connect(address, "closed by the node during the handshake"));
            }
        }
    }
}
