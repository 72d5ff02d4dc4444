//! The calling end of a connection between daemons: one request at a time. For heartbeats and other control traffic.
//!
//! Invariants: every step has a limit in time; after any error the connection is of no further use and is dropped;
//! nothing that changes objects goes through here (R2).

use std::time::Duration;

use bytes::BytesMut;
use serde::Serialize;
use tokio::net::TcpStream;

use super::ambient;
use super::session::{Ended, KeyRing, Problem, Wire};
use crate::format::crc::crc32c;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{Frame, FrameDecoder, FrameError, Kind, Limits, Meta, encode};
use crate::messages::handshake::{AuthAnswer, ClientHandshake, HelloAnswer, Next, Refusal};
use crate::messages::heads::{self, ErrorHead, HeadError, NodeIdentity};
use crate::messages::opcode::{Daemon, Opcode, Role};
use crate::tls::connect::{looks_like_tls, machines_of};
use crate::tls::{Certified, Stream, Tls};

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answers there.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Too slow.
    #[error("{0}: no answer in time")]
    Timeout(String),
    /// The handshake failed at this end.
    #[error("handshake with {address}: {refusal}; {}", refusal.remedy)]
    Handshake {
        /// With whom.
        address: String,
        /// Why.
        refusal: Refusal,
    },
    /// The other end refused the request.
    #[error("{node} refuses: {problem}{}", tail(&problem.remedy))]
    Refused {
        /// Who.
        node: String,
        /// Why.
        problem: Problem,
    },
    /// The connection broke.
    #[error("connection to {address}: {ended}")]
    Broken {
        /// With whom.
        address: String,
        /// How.
        ended: Ended,
    },
    /// The answer makes no sense.
    #[error("answer of {address}: {what}")]
    Nonsense {
        /// Of whom.
        address: String,
        /// What is wrong.
        what: String,
    },
}

/// A remedy behind what it mends; there may be none.
fn tail(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!("; {remedy}") }
}

impl CallError {
    /// What an operator does about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Broken { ended: Ended::Frame(_), .. } | Self::Nonsense { .. } => {
                "see who listens at that address: `advertise` of the other machine, machine_id, versions"
            }
            Self::Connect { .. } | Self::Timeout(_) | Self::Broken { .. } => {
                "start it, or mend the network; it is tried on and catches up by itself"
            }
            Self::Handshake { refusal, .. } => match refusal.code {
                ErrorCode::Unauthorized => {
                    "give both daemons the same `peer` line in their auth.key_file"
                }
                _ => "see what the other end says; upgrade the older of the two",
            },
            Self::Refused { problem, .. } if problem.code == ErrorCode::Unauthorized => {
                "give both daemons the same `peer` line in their auth.key_file"
            }
            Self::Refused { .. } => "do what it says; it is tried on",
        }
    }
}

/// A connection on which the session has begun.
pub struct Caller {
    address: String,
    wire: Wire<Stream>,
    request_id: u64,
    /// Who the other end is.
    pub node: NodeIdentity,
}

/// As whom to call.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Role.
    pub role: Role,
    /// What we call ourselves in the other end's log.
    pub name: String,
    /// Our instance.
    pub instance: [u8; 16],
    /// Our keys.
    pub keys: KeyRing,
    /// Our certificates.
    pub tls: Tls,
}

impl Caller {
    /// Connects to `HOST:PORT` and shakes hands, both within `limit`.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn connect(
        address: &str,
        identity: &Identity,
        limit: Duration,
    ) -> Result<Self, CallError> {
        tokio::time::timeout(limit, Self::begin(address, identity))
            .await
            .unwrap_or_else(|_| Err(CallError::Timeout(address.to_owned())))
    }

    async fn begin(address: &str, identity: &Identity) -> Result<Self, CallError> {
        let io = |source| CallError::Connect { address: address.to_owned(), source };
        let stream = TcpStream::connect(address).await.map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        let stream = match identity.tls.client() {
            Some(tls) => tls.connect(stream, address).await.map_err(io)?,
            None => Stream::Plain(stream),
        };
        let shown = machines_of(&stream);
        let nonce = ambient::random().map_err(io)?;
        let keys = identity.keys.of(identity.role);
        let mut handshake =
            ClientHandshake::new(identity.role, &identity.name, identity.instance, keys, nonce);
        let refused = |refusal| CallError::Handshake { address: address.to_owned(), refusal };
        let mut wire = Wire::new(stream, Limits::SESSION);
        let frame = exchange(&mut wire, address, Opcode::Hello, 1, handshake.hello(), b"").await?;
        let answer: HelloAnswer = read(address, &frame)?;
        let node = answer.node.clone();
        if let (Some(shown), Daemon::Storage) = (shown, node.kind) {
            let claimed = format!("{}/{}/{}", node.group, node.syncgroup, node.machine);
            Certified::Machines(shown)
                .check(&claimed)
                .map_err(|why| nonsense_of(address, why.to_string()))?;
        }
        if let Next::Prove(auth) = handshake.on_hello_answer(answer).map_err(refused)? {
            let frame = exchange(&mut wire, address, Opcode::Auth, 2, &auth, b"").await?;
            let answer: AuthAnswer = read(address, &frame)?;
            handshake.on_auth_answer(&answer).map_err(refused)?;
        }
        Ok(Self { address: address.to_owned(), wire, request_id: 2, node })
    }

    /// Asks and waits for the answer, at most `limit`.
    ///
    /// # Errors
    /// [`CallError`]; except after [`CallError::Refused`] the connection must be dropped.
    pub async fn call<H: Serialize + ?Sized>(
        &mut self,
        opcode: Opcode,
        head: &H,
        payload: &[u8],
        limit: Duration,
    ) -> Result<Frame, CallError> {
        self.request_id += 1;
        let asked = exchange(&mut self.wire, &self.address, opcode, self.request_id, head, payload);
        tokio::time::timeout(limit, asked)
            .await
            .unwrap_or_else(|_| Err(CallError::Timeout(self.address.clone())))
    }

    /// The connection itself, for whoever pipelines: the socket, what was read beyond the last frame, and the last
    /// request id.
    #[must_use]
    pub fn into_parts(self) -> (Stream, FrameDecoder, BytesMut, u64) {
        let (stream, decoder, buffer) = self.wire.into_parts();
        (stream, decoder, buffer, self.request_id)
    }

    /// Reads the head of an answer.
    ///
    /// # Errors
    /// [`CallError::Nonsense`].
    pub fn read<'a, T: serde::Deserialize<'a>>(&self, frame: &'a Frame) -> Result<T, CallError> {
        read(&self.address, frame)
    }

    /// Reads the payload of an answer.
    ///
    /// # Errors
    /// [`CallError::Nonsense`].
    pub fn read_payload<'a, T: serde::Deserialize<'a>>(
        &self,
        frame: &'a Frame,
    ) -> Result<T, CallError> {
        heads::decode(frame.payload()).map_err(|error| nonsense(&self.address, &error))
    }
}

fn nonsense(address: &str, error: &HeadError) -> CallError {
    nonsense_of(address, error.to_string())
}

fn nonsense_of(address: &str, what: String) -> CallError {
    CallError::Nonsense { address: address.to_owned(), what }
}

fn read<'a, T: serde::Deserialize<'a>>(address: &str, frame: &'a Frame) -> Result<T, CallError> {
    heads::decode(frame.head()).map_err(|error| nonsense(address, &error))
}

/// Whoever answers in TLS where plaintext was spoken would look like noise.
fn in_words(wire: &Wire<Stream>, address: &str, ended: Ended) -> CallError {
    if matches!(ended, Ended::Frame(_)) && looks_like_tls(wire.unread()) {
        return nonsense_of(address, "it speaks TLS: set [tls] here, too".to_owned());
    }
    CallError::Broken { address: address.to_owned(), ended }
}

/// One request and its answer.
async fn exchange<H: Serialize + ?Sized>(
    wire: &mut Wire<Stream>,
    address: &str,
    opcode: Opcode,
    request_id: u64,
    head: &H,
    payload: &[u8],
) -> Result<Frame, CallError> {
    let broken = |ended| CallError::Broken { address: address.to_owned(), ended };
    let mut out = BytesMut::new();
    let meta = Meta::request(opcode.as_u16(), request_id);
    let sealed = |error: FrameError| broken(error.into());
    encode(&mut out, meta, head, payload, crc32c(payload)).map_err(sealed)?;
    wire.write(&out).await.map_err(broken)?;
    let Some(frame) = wire.read().await.map_err(|ended| in_words(wire, address, ended))? else {
        return Err(broken(Ended::Closed));
    };
    let got = frame.header.meta;
    if got.status != 0 {
        let head: ErrorHead = read(address, &frame)?;
        let problem = Problem {
            code: ErrorCode::of_status(head.code),
            message: head.message,
            remedy: head.remedy,
        };
        return Err(CallError::Refused { node: head.node, problem });
    }
    if (got.kind, got.request_id) != (Kind::Answer, request_id) {
        return Err(CallError::Nonsense {
            address: address.to_owned(),
            what: "it belongs to no request".to_owned(),
        });
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_ends_with_a_remedy_that_is_not_there() {
        let refused = |problem| CallError::Refused { node: "books/a/2".to_owned(), problem };
        let bare = Problem::new(ErrorCode::WrongNode, "no such mount");
        assert_eq!(refused(bare.clone()).to_string(), "books/a/2 refuses: no such mount");
        let both = refused(bare.remedy("see `mounts`")).to_string();
        assert_eq!(both, "books/a/2 refuses: no such mount; see `mounts`");
    }
}
