//! Both ends of the handshake as pure state machines: heads in, heads out; nonces and time are arguments.
//!
//! ```text
//! client                                        server
//!   | Hello{versions, role, nonce C, name} ------> |   version and role are checked
//!   | <------ HelloAnswer{nonce S, key required?,  |
//!   |                     identity, clock, limits} |
//!   | Auth{HMAC of the transcript, per key} -----> |   only where a key is required
//!   | <------------------- AuthAnswer{server HMAC} |   mutual: the client checks the server, too
//! ```
//!
//! Invariants:
//! - A session exists only after the last step; until then every other opcode is `unauthorized`.
//! - A client that has a key never talks to a server which asks for none: it could be anybody.
//! - The role is under the MAC: the proof for one role is worth nothing for another. So is the direction: a server
//!   cannot be made to answer its own challenge.
//! - Up to two keys per role (rotation); either matches on both ends. Comparison takes constant time.

use super::error::ErrorCode;
use super::frame::{Limits, MAJOR, MINOR};
use super::heads::{self, NodeIdentity, Uuid, heads};
use super::opcode::Role;
use crate::format::ids::MachineId;
use hmac::{Hmac, KeyInit, Mac};
use serde_bytes::ByteArray;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// 32 random bytes, new for every connection.
pub type Nonce = ByteArray<32>;
/// HMAC-SHA256 of a transcript.
pub type Proof = ByteArray<32>;

/// Longest name of a client, bytes.
pub const NAME_MAX: usize = 128;

const CLIENT_TO_SERVER: &[u8] = b"folio client->server";
const SERVER_TO_CLIENT: &[u8] = b"folio server->client";

heads! {
    /// Request `hello`: the first frame of a connection.
    pub struct Hello {
        /// Major version that the client speaks.
        pub major: u8,
        /// Minor version that the client speaks.
        pub minor: u8,
        /// Number of the [`Role`] that it takes.
        pub role: u8,
        /// Its 32 random bytes.
        pub nonce: Nonce,
        /// What it calls itself in logs.
        pub name: String,
        /// Who it is: of a storage its instance, of a client the uuid in its tokens.
        pub instance: Uuid,
    }

    /// Answer to `hello`.
    pub struct HelloAnswer {
        /// Major version of the server.
        pub major: u8,
        /// Minor version of the server.
        pub minor: u8,
        /// Its 32 random bytes.
        pub nonce: Nonce,
        /// Whether `auth` has to follow. If not, the session begins now.
        pub key_required: bool,
        /// Who it is.
        pub node: NodeIdentity,
        /// Its wall clock, milliseconds since 1970: what tokens are issued with.
        pub server_time_ms: u64,
        /// Longest head that it accepts, bytes.
        pub head_max: u32,
        /// Longest payload of one frame that it accepts, bytes.
        pub payload_max: u32,
    }

    /// Request `auth`.
    pub struct Auth {
        /// The proof with the client's first key.
        pub proof: Proof,
        /// And with its second one, if it has two.
        pub second: Option<Proof>,
    }

    /// Answer to `auth`: the session begins.
    pub struct AuthAnswer {
        /// The server's proof, with the key that matched.
        pub proof: Proof,
    }
}

/// Why there is no session; goes out as an error answer, then the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Unauthorized, Version, Usage or BadRequest.
    pub code: ErrorCode,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Daemons have a key file already: what it lacks is a line, and no option of theirs gives it.
const PEER_LINE: &str =
    "put the same `peer` line into the auth.key_file of all daemons; it is read again by itself";

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>, remedy: &'static str) -> Self {
        Self { code, message: message.into(), remedy }
    }

    fn wrong_key(role: Role) -> Self {
        Self::new(
            ErrorCode::Unauthorized,
            format!("the key for the role {role} does not match"),
            match role {
                Role::Peer => PEER_LINE,
                Role::Client | Role::Admin => {
                    "use the key file of this cluster (--key-file or FOLIO_KEY_FILE)"
                }
            },
        )
    }

    fn no_key(role: Role) -> Self {
        Self::new(
            ErrorCode::Unauthorized,
            format!("the cluster asks for a key for the role {role}"),
            match role {
                Role::Peer => PEER_LINE,
                Role::Client | Role::Admin => "give its key file with --key-file or FOLIO_KEY_FILE",
            },
        )
    }
}

/// What both ends agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// What the client may do.
    pub role: Role,
    /// The minor version to speak: the smaller of both.
    pub minor: u8,
    /// What the client calls itself.
    pub name: String,
    /// Who the client is.
    pub instance: [u8; 16],
    /// The machine that its certificate names, where one was asked for.
    pub machine: Option<MachineId>,
}

impl Session {
    /// Whether the client may speak as this machine: as any, where no certificate was asked for.
    #[must_use]
    pub fn may_be(&self, machine: MachineId) -> bool {
        self.machine.is_none_or(|certified| certified == machine)
    }
}

/// The minor version to speak with an end of version `major.minor`.
///
/// # Errors
/// `Version`: another major, or a minor that is more than one step away.
#[allow(clippy::unnecessary_min_or_max, reason = "true only while MINOR is 0")]
pub fn agree(major: u8, minor: u8) -> Result<u8, Refusal> {
    if major == MAJOR && minor.abs_diff(MINOR) <= 1 {
        return Ok(minor.min(MINOR));
    }
    Err(Refusal::new(
        ErrorCode::Version,
        format!("protocol version {major}.{minor} is not spoken here (this is {MAJOR}.{MINOR})"),
        "upgrade the older of the two; neighbouring minor versions talk to each other",
    ))
}

/// Everything that a proof is about.
struct Transcript<'a> {
    role: Role,
    client: (u8, u8),
    server: (u8, u8),
    client_nonce: &'a [u8; 32],
    server_nonce: &'a [u8; 32],
}

impl Transcript<'_> {
    /// HMAC-SHA256(key, label | 0 | role | versions of client and server | nonces of client and server).
    fn proof(&self, key: &[u8], label: &[u8]) -> Option<[u8; 32]> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).ok()?;
        mac.update(label);
        mac.update(&[
            0,
            self.role as u8,
            self.client.0,
            self.client.1,
            self.server.0,
            self.server.1,
        ]);
        mac.update(self.client_nonce);
        mac.update(self.server_nonce);
        Some(mac.finalize().into_bytes().into())
    }
}

/// The server's end, one per connection.
#[derive(Debug)]
pub struct ServerHandshake {
    node: NodeIdentity,
    nonce: [u8; 32],
    state: ServerState,
}

#[derive(Debug)]
enum ServerState {
    Fresh,
    /// Hello is answered, the proof is awaited.
    Challenged {
        client: (u8, u8),
        client_nonce: [u8; 32],
        session: Session,
    },
    /// Finished, well or not.
    Over,
}

impl ServerHandshake {
    /// Waits for `hello`. `nonce`: 32 fresh random bytes.
    #[must_use]
    pub const fn new(node: NodeIdentity, nonce: [u8; 32]) -> Self {
        Self { node, nonce, state: ServerState::Fresh }
    }

    /// Takes `hello`. `keys` are those of the daemon *for the role that hello names* (none: no key is required).
    /// With the second value the session has begun.
    ///
    /// # Errors
    /// [`Refusal`]: answer it and close.
    pub fn on_hello(
        &mut self,
        hello: &Hello,
        keys: impl FnOnce(Role) -> KeyCheck,
        server_time_ms: u64,
    ) -> Result<(HelloAnswer, Option<Session>), Refusal> {
        if !matches!(std::mem::replace(&mut self.state, ServerState::Over), ServerState::Fresh) {
            return Err(Refusal::new(ErrorCode::BadRequest, "hello was already said", ""));
        }
        let minor = agree(hello.major, hello.minor)?;
        let Some(role) = Role::from_u8(hello.role) else {
            return Err(Refusal::new(
                ErrorCode::Usage,
                format!("{} is no role", hello.role),
                "1 client, 2 peer, 3 admin",
            ));
        };
        if hello.name.len() > NAME_MAX {
            return Err(Refusal::new(ErrorCode::TooLarge, "the name is too long", "128 bytes"));
        }
        let session = Session {
            role,
            minor,
            name: hello.name.clone(),
            instance: hello.instance.into_array(),
            machine: None,
        };
        let key_required = match keys(role) {
            KeyCheck::Required => true,
            KeyCheck::Open => false,
            KeyCheck::Shut => {
                return Err(Refusal::new(
                    ErrorCode::Unauthorized,
                    format!("no key for the role {role} is configured here"),
                    "add one to the key file of this daemon",
                ));
            }
        };
        let answer = HelloAnswer {
            major: MAJOR,
            minor: MINOR,
            nonce: Nonce::new(self.nonce),
            key_required,
            node: self.node.clone(),
            server_time_ms,
            head_max: Limits::SESSION.head_max,
            payload_max: Limits::SESSION.payload_max,
        };
        if !key_required {
            return Ok((answer, Some(session)));
        }
        self.state = ServerState::Challenged {
            client: (hello.major, hello.minor),
            client_nonce: hello.nonce.into_array(),
            session,
        };
        Ok((answer, None))
    }

    /// Takes `auth`. `keys`: those of the role; any of them may match any of the proofs.
    ///
    /// # Errors
    /// [`Refusal`]: answer it and close.
    pub fn on_auth<K: AsRef<[u8]>>(
        &mut self,
        auth: &Auth,
        keys: impl FnOnce(Role) -> Vec<K>,
    ) -> Result<(AuthAnswer, Session), Refusal> {
        let state = std::mem::replace(&mut self.state, ServerState::Over);
        let ServerState::Challenged { client, client_nonce, session } = state else {
            return Err(Refusal::new(ErrorCode::BadRequest, "auth without a challenge", ""));
        };
        let transcript = Transcript {
            role: session.role,
            client,
            server: (MAJOR, MINOR),
            client_nonce: &client_nonce,
            server_nonce: &self.nonce,
        };
        for key in keys(session.role) {
            let key = key.as_ref();
            let Some(expected) = transcript.proof(key, CLIENT_TO_SERVER) else { continue };
            if any_equal(&expected, &[Some(auth.proof), auth.second])
                && let Some(own) = transcript.proof(key, SERVER_TO_CLIENT)
            {
                return Ok((AuthAnswer { proof: Proof::new(own) }, session));
            }
        }
        Err(Refusal::wrong_key(session.role))
    }
}

/// What a daemon asks of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyCheck {
    /// Keys are configured for it.
    Required,
    /// No keys at all are configured: the declared role is believed (loopback or `insecure`).
    Open,
    /// Keys are configured, but none for this role.
    Shut,
}

/// The client's end, one per connection.
#[derive(Debug)]
pub struct ClientHandshake<K> {
    hello: Hello,
    role: Role,
    keys: Vec<K>,
    /// After `hello` was answered with a challenge.
    server: Option<HelloAnswer>,
}

/// What a client does after `hello` was answered.
#[derive(Debug)]
pub enum Next {
    /// Send this, wait for its answer.
    Prove(Auth),
    /// The session has begun.
    Begin(Session),
}

impl<K: AsRef<[u8]>> ClientHandshake<K> {
    /// A handshake as `role`; `keys`: those of that role, none for a keyless cluster. `nonce`: 32 fresh random bytes.
    pub fn new(role: Role, name: &str, instance: [u8; 16], keys: Vec<K>, nonce: [u8; 32]) -> Self {
        let hello = Hello {
            major: MAJOR,
            minor: MINOR,
            role: role as u8,
            nonce: Nonce::new(nonce),
            name: name.to_owned(),
            instance: Uuid::new(instance),
        };
        Self { hello, role, keys, server: None }
    }

    /// The first head to send.
    #[must_use]
    pub const fn hello(&self) -> &Hello {
        &self.hello
    }

    fn session(&self, minor: u8) -> Session {
        Session {
            role: self.role,
            minor,
            name: self.hello.name.clone(),
            instance: self.hello.instance.into_array(),
            machine: None,
        }
    }

    fn transcript<'a>(&'a self, server: &'a HelloAnswer) -> Transcript<'a> {
        Transcript {
            role: self.role,
            client: (self.hello.major, self.hello.minor),
            server: (server.major, server.minor),
            client_nonce: &self.hello.nonce,
            server_nonce: &server.nonce,
        }
    }

    /// Takes the answer to `hello`.
    ///
    /// # Errors
    /// [`Refusal`]: close. Also if one end has a key and the other has none.
    pub fn on_hello_answer(&mut self, answer: HelloAnswer) -> Result<Next, Refusal> {
        let minor = agree(answer.major, answer.minor)?;
        match (answer.key_required, self.keys.is_empty()) {
            (false, true) => return Ok(Next::Begin(self.session(minor))),
            (true, true) => {
                return Err(Refusal::no_key(self.role));
            }
            (false, false) => {
                return Err(Refusal::new(
                    ErrorCode::Unauthorized,
                    "a key is given, but the node asks for none: it may be the wrong one",
                    "leave out the key file, or configure it at the node",
                ));
            }
            (true, false) => {}
        }
        let mut proofs = self
            .keys
            .iter()
            .take(2)
            .filter_map(|key| self.transcript(&answer).proof(key.as_ref(), CLIENT_TO_SERVER))
            .map(Proof::new);
        let Some(proof) = proofs.next() else {
            return Err(Refusal::wrong_key(self.role));
        };
        let second = proofs.next();
        drop(proofs);
        self.server = Some(answer);
        Ok(Next::Prove(Auth { proof, second }))
    }

    /// Takes the answer to `auth`: the server has to prove that it knows the key, too.
    ///
    /// # Errors
    /// [`Refusal`]: close, this is somebody else.
    pub fn on_auth_answer(&mut self, answer: &AuthAnswer) -> Result<Session, Refusal> {
        let Some(server) = self.server.take() else {
            return Err(Refusal::new(ErrorCode::BadRequest, "an answer without a request", ""));
        };
        let minor = agree(server.major, server.minor)?;
        let transcript = self.transcript(&server);
        let known = self.keys.iter().take(2).any(|key| {
            transcript
                .proof(key.as_ref(), SERVER_TO_CLIENT)
                .is_some_and(|expected| any_equal(&expected, &[Some(answer.proof)]))
        });
        if known {
            Ok(self.session(minor))
        } else {
            Err(Refusal::new(
                ErrorCode::Unauthorized,
                "the node does not know the key: it is not part of this cluster",
                "check the address",
            ))
        }
    }
}

/// Whether one of `given` equals `expected`; the time it takes does not tell where they differ.
fn any_equal(expected: &[u8; 32], given: &[Option<Proof>]) -> bool {
    given
        .iter()
        .flatten()
        .fold(subtle::Choice::from(0), |found, proof| found | expected.ct_eq(&proof[..]))
        .into()
}

/// Reads a head of the handshake; a malformed one is a refusal.
///
/// # Errors
/// [`Refusal`] with `BadRequest`.
pub fn read<'a, T: serde::Deserialize<'a>>(head: &'a [u8]) -> Result<T, Refusal> {
    heads::decode(head).map_err(|error| Refusal::new(error.code(), error.to_string(), ""))
}

#[cfg(test)]
mod tests;
