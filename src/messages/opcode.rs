//! ONE table: opcode -> name, who may call it, which daemon serves it, how large it may be, whether it changes
//! anything.
//!
//! Invariant (P7): every request passes [`authorize`] before its head is looked at, and
//! [`limits_of`] before its bytes are waited for.

use super::error::ErrorCode;
use serde::{Deserialize, Serialize};

/// What the other end of a connection says (and, with a key, proves) that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// A program that stores and reads objects.
    Client = 1,
    /// A storage of this cluster.
    Peer = 2,
    /// An operator's tool.
    Admin = 3,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Client, Self::Peer, Self::Admin];

    /// The role of a number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Client),
            2 => Some(Self::Peer),
            3 => Some(Self::Admin),
            _ => None,
        }
    }

    /// As in the key file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of [`Role`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Everybody who finished the handshake.
    pub const ANY: Self = Self::of(&Role::ALL);

    /// Exactly these.
    #[must_use]
    pub const fn of(roles: &[Role]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < roles.len() {
            bits |= roles[at].bit();
            at += 1;
        }
        Self(bits)
    }

    /// Whether `role` is one of them.
    #[must_use]
    pub const fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }
}

/// The two kinds of daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Daemon {
    /// Knows who is alive.
    Tracker = 1,
    /// Keeps the bytes.
    Storage = 2,
}

impl From<Daemon> for u8 {
    fn from(daemon: Daemon) -> Self {
        daemon as Self
    }
}

impl TryFrom<u8> for Daemon {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self::Tracker),
            2 => Ok(Self::Storage),
            other => Err(format!("{other} is no kind of daemon")),
        }
    }
}

impl std::fmt::Display for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tracker => "tracker",
            Self::Storage => "storage",
        })
    }
}

/// Who serves an opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedBy {
    /// Trackers only.
    Tracker,
    /// Storages only.
    Storage,
    /// Both daemons.
    Both,
}

impl ServedBy {
    /// Whether `daemon` is one of them.
    #[must_use]
    pub const fn includes(self, daemon: Daemon) -> bool {
        match self {
            Self::Both => true,
            Self::Tracker => matches!(daemon, Daemon::Tracker),
            Self::Storage => matches!(daemon, Daemon::Storage),
        }
    }
}

/// When in the life of a connection an opcode is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Only while the handshake is not finished.
    Handshake,
    /// Only after it.
    Session,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The opcode.
    pub opcode: Opcode,
    /// As in documents, logs and metrics.
    pub name: &'static str,
    /// Who may call it.
    pub roles: Roles,
    /// Who serves it.
    pub served_by: ServedBy,
    /// When.
    pub stage: Stage,
    /// Longest head of the request, bytes.
    pub head_max: u32,
    /// Longest payload of the request frame, bytes (a streamed body comes in Data frames instead).
    pub payload_max: u32,
    /// Whether it changes objects: carries a token, is never cancelled silently (R2).
    pub mutation: bool,
}

/// Longest payload of any one frame, bytes. Larger bodies are streamed.
pub const PAYLOAD_MAX: u32 = 2 * 1024 * 1024;
/// Longest head of any frame, bytes.
pub const HEAD_MAX: u32 = 64 * 1024;
/// Longest report in a heartbeat, bytes: 256 mounts with a reason each.
const REPORT_MAX: u32 = 256 * 1024;
/// Longest head of an ordinary request, bytes.
const SMALL_HEAD: u32 = 4 * 1024;

macro_rules! opcodes {
    ($( $(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $roles:expr, $by:ident, $stage:ident,
        head $head:expr, payload $payload:expr, $mutation:literal; )*) => {
        /// What a request asks for. Numbers are never given a second meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Opcode { $( $(#[$doc])* $name = $number, )* }

        impl Opcode {
            /// The table.
            pub const TABLE: &'static [Entry] = &[ $( Self::$name.entry(), )* ];

            /// The opcode of a number.
            #[must_use]
            pub const fn from_u16(number: u16) -> Option<Self> {
                match number { $( $number => Some(Self::$name), )* _ => None }
            }

            /// Its row.
            #[must_use]
            pub const fn entry(self) -> Entry {
                match self {
                    $( Self::$name => Entry {
                        opcode: self,
                        name: $text,
                        roles: $roles,
                        served_by: ServedBy::$by,
                        stage: Stage::$stage,
                        head_max: $head,
                        payload_max: $payload,
                        mutation: $mutation,
                    }, )*
                }
            }
        }
    };
}

const CLIENT: Roles = Roles::of(&[Role::Client]);
const PEER: Roles = Roles::of(&[Role::Peer]);
const CLIENT_ADMIN: Roles = Roles::of(&[Role::Client, Role::Admin]);
/// Peers forward the edits that reach a mirror to the owner.
const CLIENT_PEER: Roles = Roles::of(&[Role::Client, Role::Peer]);

// 0x0001.. handshake and both daemons, 0x0010.. storage, 0x0030.. tracker, 0x0050.. storages among themselves.
opcodes! {
    /// First request of a connection: version, role, nonce.
    Hello = 0x0001, "hello", Roles::ANY, Both, Handshake, head 1024, payload 0, false;
    /// Second one where a key is required: the proof.
    Auth = 0x0002, "auth", Roles::ANY, Both, Handshake, head 1024, payload 0, false;
    /// Nothing; answers the server's clock. Also keeps an idle connection.
    Ping = 0x0003, "ping", Roles::ANY, Both, Session, head SMALL_HEAD, payload 0, false;
    /// Who the node is.
    Info = 0x0004, "info", Roles::ANY, Both, Session, head SMALL_HEAD, payload 0, false;

    /// Stores a new object.
    Put = 0x0010, "put", CLIENT, Storage, Session, head SMALL_HEAD, payload PAYLOAD_MAX, true;
    /// Reads an object or a range of it.
    Get = 0x0011, "get", Roles::ANY, Storage, Session, head SMALL_HEAD, payload 0, false;
    /// Replaces the whole content under the same id.
    Modify = 0x0012, "modify", CLIENT_PEER, Storage, Session, head SMALL_HEAD, payload PAYLOAD_MAX, true;
    /// Deletes (a tombstone; see undelete).
    Delete = 0x0013, "delete", CLIENT_PEER, Storage, Session, head SMALL_HEAD, payload 0, true;
    /// Brings a deleted object back while its window lasts.
    Undelete = 0x0014, "undelete", CLIENT_PEER, Storage, Session, head SMALL_HEAD, payload 0, true;
    /// What is known about an object, without its bytes.
    Stat = 0x0015, "stat", Roles::ANY, Storage, Session, head SMALL_HEAD, payload 0, false;
    /// A page of the live ids that this storage created.
    List = 0x0016, "list", CLIENT_ADMIN, Storage, Session, head SMALL_HEAD, payload 0, false;
    /// Space per mount.
    Df = 0x0017, "df", CLIENT_ADMIN, Storage, Session, head SMALL_HEAD, payload 0, false;

    /// The cluster view.
    View = 0x0030, "view", Roles::ANY, Tracker, Session, head SMALL_HEAD, payload 0, false;
    /// Where a request should go.
    Route = 0x0031, "route", CLIENT_ADMIN, Tracker, Session, head SMALL_HEAD, payload 0, false;
    /// A storage reports.
    Heartbeat = 0x0032, "heartbeat", PEER, Tracker, Session, head HEAD_MAX, payload REPORT_MAX, false;

    /// Mirrors of one mount meet.
    SyncHello = 0x0050, "sync_hello", PEER, Storage, Session, head HEAD_MAX, payload 0, false;
    /// Consecutive records of one log.
    SyncPush = 0x0051, "sync_push", PEER, Storage, Session, head HEAD_MAX, payload PAYLOAD_MAX, false;
    /// What the caller has; answered by what this storage has.
    SyncStatus = 0x0052, "sync_status", PEER, Storage, Session, head SMALL_HEAD, payload REPORT_MAX, false;
    /// A piece of a large object's content.
    SyncContent = 0x0053, "sync_content", PEER, Storage, Session, head SMALL_HEAD, payload 0, false;
    /// A large object's content that should be fetched.
    SyncOffer = 0x0054, "sync_offer", PEER, Storage, Session, head SMALL_HEAD, payload 0, false;
    /// The chunkfiles of a mount.
    SyncChunkfiles = 0x0055, "sync_chunkfiles", PEER, Storage, Session, head SMALL_HEAD, payload 0, false;
    /// What a chunkfile holds, in 16 bytes.
    SyncDigest = 0x0056, "sync_digest", PEER, Storage, Session, head SMALL_HEAD, payload 0, false;
    /// The homes of a chunkfile, in 12 bytes each.
    SyncMarks = 0x0057, "sync_marks", PEER, Storage, Session, head SMALL_HEAD, payload 0, false;
    /// Objects as they lie in their slots.
    SyncCopies = 0x0058, "sync_copies", PEER, Storage, Session, head HEAD_MAX, payload 0, false;
    /// The names of the losing versions that a mount keeps.
    SyncArchive = 0x0059, "sync_archive", PEER, Storage, Session, head SMALL_HEAD, payload 0, false;
    /// Losing versions.
    SyncArchived = 0x005a, "sync_archived", PEER, Storage, Session, head HEAD_MAX, payload 0, false;
    /// A log no longer holds what the callee lacks: it should copy the caller's state.
    SyncPull = 0x005b, "sync_pull", PEER, Storage, Session, head SMALL_HEAD, payload 0, false;
}

impl Opcode {
    /// The number that travels.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self as u16
    }

    /// As in documents, logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.entry().name
    }
}

impl std::fmt::Display for Opcode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a request may be looked at: `session` is the role that the handshake gave, `None` before it is finished.
///
/// # Errors
/// The code to answer with: `UnknownOpcode` (also: another kind of daemon), `Unauthorized` (no handshake yet),
/// `Forbidden` (wrong role), `BadRequest` (a second handshake).
pub fn authorize(
    opcode: u16,
    daemon: Daemon,
    session: Option<Role>,
) -> Result<Entry, (ErrorCode, String)> {
    let Some(opcode) = Opcode::from_u16(opcode) else {
        return Err((ErrorCode::UnknownOpcode, format!("opcode {opcode:#06x} is not known here")));
    };
    let entry = opcode.entry();
    match (entry.stage, session) {
        (Stage::Handshake, None) => {}
        (Stage::Handshake, Some(_)) => {
            return Err((
                ErrorCode::BadRequest,
                format!("{opcode}: the handshake is already finished"),
            ));
        }
        (Stage::Session, None) => {
            return Err((
                ErrorCode::Unauthorized,
                format!("{opcode}: the handshake (hello, auth) comes first"),
            ));
        }
        (Stage::Session, Some(role)) if !entry.roles.contains(role) => {
            return Err((ErrorCode::Forbidden, format!("{opcode} is not for the role {role}")));
        }
        (Stage::Session, Some(_)) => {}
    }
    if entry.served_by.includes(daemon) {
        Ok(entry)
    } else {
        Err((ErrorCode::UnknownOpcode, format!("a {daemon} does not serve {opcode}")))
    }
}

/// Longest head and payload of a request with this opcode; unknown opcodes get a small head and no payload, so that
/// they can be skipped and answered.
#[must_use]
pub const fn limits_of(opcode: u16) -> (u32, u32) {
    match Opcode::from_u16(opcode) {
        Some(known) => {
            let entry = known.entry();
            (entry.head_max, entry.payload_max)
        }
        None => (SMALL_HEAD, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrong_role_gets_through_nowhere() {
        for entry in Opcode::TABLE {
            for daemon in [Daemon::Tracker, Daemon::Storage] {
                for role in [None, Some(Role::Client), Some(Role::Peer), Some(Role::Admin)] {
                    let allowed = authorize(entry.opcode.as_u16(), daemon, role).is_ok();
                    let expected = entry.served_by.includes(daemon)
                        && match (entry.stage, role) {
                            (Stage::Handshake, role) => role.is_none(),
                            (Stage::Session, None) => false,
                            (Stage::Session, Some(role)) => entry.roles.contains(role),
                        };
                    assert_eq!(allowed, expected, "{} {daemon} {role:?}", entry.name);
                }
            }
        }
        // The table itself, by hand, where a mistake would be an open door.
        assert!(authorize(0x32, Daemon::Tracker, Some(Role::Client)).is_err());
        assert!(authorize(0x10, Daemon::Storage, Some(Role::Admin)).is_err());
        assert!(authorize(0x10, Daemon::Storage, None).is_err());
        assert!(authorize(0x13, Daemon::Tracker, Some(Role::Client)).is_err());
    }

    #[test]
    fn an_unknown_opcode_is_refused_and_may_not_bring_a_payload() {
        for number in 0..=u16::MAX {
            if Opcode::from_u16(number).is_none() {
                assert_eq!(limits_of(number).1, 0);
                assert!(authorize(number, Daemon::Storage, Some(Role::Client)).is_err());
            }
        }
    }

    #[test]
    fn no_row_exceeds_the_frame_limits() {
        for entry in Opcode::TABLE {
            assert!(entry.head_max <= HEAD_MAX && entry.payload_max <= PAYLOAD_MAX);
            assert_eq!(Opcode::from_u16(entry.opcode.as_u16()), Some(entry.opcode));
        }
    }
}
