//! What the bytes at an object's place say (R11): the decisions of every read, without the reading.
//!
//! Invariants:
//! - Bytes become an answer only if the seal, the own address, the identity and the payload's checksum are right
//!   (P2), and, behind a forward, only if the target has the identity *and the tag* that its home has.
//! - A valid header of a later tenant and one with another cookie are "not found" (P5). What is broken, missing, or
//!   older than the id, is [`View::Unsettled`]: a hole, a change in flight or damage, which only the mount itself, in
//!   line with the changes, can tell apart.

use crate::format::file_id::ObjectId;
use crate::format::ids::Address;
use crate::format::slot::{Body, HEADER_LEN, HEADER_UNITS, NotASlot, Role, SlotHeader, State};

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No such object: never was, deleted, purged, or a later tenant has its place.
    #[error("the object does not exist")]
    NotFound {
        /// Whether a tombstone says so (`undelete` may bring it back).
        deleted: bool,
    },
    /// The bytes do not fit each other: a change in flight, or damage. Read again in line with the changes.
    #[error("the bytes do not fit each other: {0}")]
    Unsettled(&'static str),
    /// Still so in line with the changes.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Written by a later version of this program.
    #[error("the object has format version {0}, newer than this program's")]
    Newer(u8),
    /// The mount is out of service.
    #[error("the mount is out of service")]
    Fenced,
    /// The medium refused.
    #[error("{what}: {error}")]
    Io {
        /// What was being read.
        what: String,
        /// The system's word.
        error: std::io::Error,
    },
}

impl ReadError {
    /// What an unsettled read is when no change is in flight.
    #[must_use]
    pub fn settled(self) -> Self {
        match self {
            Self::Unsettled(why) => Self::Damaged(why.to_owned()),
            Self::NotFound { .. }
            | Self::Damaged(_)
            | Self::Newer(_)
            | Self::Fenced
            | Self::Io { .. } => self,
        }
    }

    /// An IO error with what was being read.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

/// What stands at a home.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one for each read, on the stack; a box would be an allocation"
)]
pub enum View {
    /// The object's header: live or deleted.
    Object(SlotHeader),
    /// The object is not, or no longer, here.
    Absent,
    /// See [`ReadError::Unsettled`].
    Unsettled(&'static str),
    /// See [`ReadError::Newer`].
    Newer(u8),
}

/// Looks for the object `id` in the bytes from its home address on.
#[must_use]
pub fn view_home(id: &ObjectId, bytes: &[u8], secret: &[u8; 16]) -> View {
    if id.capacity_units < HEADER_UNITS {
        // Nothing that we gave out is that small: somebody made it up.
        return View::Absent;
    }
    if bytes.len() < HEADER_LEN {
        // A read that may not wait ends where the page cache ends: that says nothing about what is there.
        return View::Unsettled("the slot header is cut short");
    }
    let header = match SlotHeader::decode(bytes, secret) {
        Ok(header) => header,
        Err(NotASlot::Blank) => return View::Unsettled("there is no slot header"),
        Err(NotASlot::Broken) => return View::Unsettled("the seal of the slot header is broken"),
        Err(NotASlot::Newer(version)) => return View::Newer(version),
    };
    if header.address != id.home().address {
        return View::Unsettled("the slot header belongs elsewhere");
    }
    if !header.is_object(id) {
        // Of early targets nothing is known.
        return if header.held_since().is_some_and(|since| since < id.sequence) {
            View::Unsettled("the place still holds an older object")
        } else {
            View::Absent
        };
    }
    match (header.role, header.state) {
        (Role::Home, State::Live | State::Deleted) => View::Object(header),
        (Role::Home, State::Purged) => View::Absent,
        (Role::Target, _) => View::Unsettled("a moved content stands at the home of its object"),
    }
}

/// Checks the bytes from `to` on, which `home` forwards to. A delete writes the home only: behind a tombstone lies the
/// content of an older version, the one that an undelete would bring back.
///
/// # Errors
/// [`ReadError::Unsettled`] for anything but the very version that the home names.
pub fn view_target(
    home: &SlotHeader,
    to: Address,
    bytes: &[u8],
    secret: &[u8; 16],
) -> Result<SlotHeader, ReadError> {
    let header = match SlotHeader::decode(bytes, secret) {
        Ok(header) => header,
        Err(NotASlot::Blank | NotASlot::Broken) => {
            return Err(ReadError::Unsettled("there is no header where the home forwards to"));
        }
        Err(NotASlot::Newer(version)) => return Err(ReadError::Newer(version)),
    };
    let version = header.version.tag == home.version.tag
        || (home.state == State::Deleted && header.version.tag < home.version.tag);
    let same = version
        && header.role == Role::Target
        && header.address == to
        && header.mount == home.mount
        && header.creation == home.creation
        && header.cookie == home.cookie
        && header.length == home.length
        && header.payload_crc == home.payload_crc
        && header.body == Body::Inline;
    if same {
        Ok(header)
    } else {
        Err(ReadError::Unsettled("the home forwards to another version"))
    }
}

/// Bytes of a slot from its header to the end of its content.
#[must_use]
pub fn used_len(header: &SlotHeader) -> u64 {
    (header.payload_offset() as u64).saturating_add(header.length)
}
