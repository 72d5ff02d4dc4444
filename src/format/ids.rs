//! The names of things: machines, logs, positions, places, versions.
//!
//! All of them are plain integers on disk and on the wire. Nothing here knows how they are laid out; that is in
//! the module of the structure which carries them.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::fmt;
use std::str::FromStr;

/// Unique inside a group; given by the operator (`machine_id`).
pub type MachineId = u16;
/// Index of a mount on its storage, `0..=255`. Mirrors mirror mount by mount.
pub type MountIndex = u8;
/// One life of a mount's log. Drawn at random when a log is created blank; never comes back (P5). Never 0.
pub type LogId = u32;
/// Number of a record in one log. The top 16 bits are the start count of the mount, the rest counts up (R10).
pub type Sequence = u64;
/// Number of a chunkfile below `chunks/<machine>/<log id>`.
pub type ChunkNumber = u32;

/// Slots, capacities and offsets are counted in units of this many bytes.
pub const UNIT: u64 = 64;

/// Bits of a [`Sequence`] that count inside one start; the 16 bits above are the start count.
pub const SEQUENCE_COUNTER_BITS: u32 = 48;

/// First sequence of a start. Counting begins at 1 so that 0 means "nothing yet".
#[must_use]
pub const fn first_sequence(start_count: u16) -> Sequence {
    ((start_count as u64) << SEQUENCE_COUNTER_BITS) | 1
}

/// One record in one log. No two records ever share a position (P5).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Machine whose log it is.
    pub machine: MachineId,
    /// Life of that log.
    pub log_id: LogId,
    /// Number in it.
    pub sequence: Sequence,
}

/// Where a slot begins: below which machine's and log's chunkfiles of the mount, in which chunkfile, at which unit.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// Machine that allocated the place.
    pub machine: MachineId,
    /// Its log id then.
    pub log_id: LogId,
    /// Chunkfile.
    pub chunk: ChunkNumber,
    /// Offset of the slot header in the chunkfile, in [`UNIT`]s.
    pub offset_units: u32,
}

impl Address {
    /// Offset in bytes.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset_units as u64 * UNIT
    }

    /// The chunkfile in which it lies.
    #[must_use]
    pub const fn chunkfile(&self) -> ChunkfileId {
        ChunkfileId { machine: self.machine, log_id: self.log_id, chunk: self.chunk }
    }
}

/// A chunkfile of a mount: `chunks/<machine>/<log id>/<xx>/<number>.chunk`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChunkfileId {
    /// Machine that allocates in it.
    pub machine: MachineId,
    /// Log id under which it was created.
    pub log_id: LogId,
    /// Number.
    pub chunk: ChunkNumber,
}

/// As file names carry it: a position that stands in a message is looked up by this text.
impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}-{:016x}", self.machine, self.log_id, self.sequence)
    }
}

/// What is printed of a damage is pasted into the console, however the message prints it.
impl fmt::Debug for ChunkfileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The same as for people, see [`ChunkfileId`].
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `1/0a1b2c3d/7`: machine, log id in hexadecimal, number; as the consoles' `chunk` takes it.
impl fmt::Display for ChunkfileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:08x}/{}", self.machine, self.log_id, self.chunk)
    }
}

impl FromStr for ChunkfileId {
    type Err = BadChunkfile;

    fn from_str(text: &str) -> Result<Self, BadChunkfile> {
        let mut parts = text.split('/');
        let (Some(machine), Some(log_id), Some(chunk), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadChunkfile);
        };
        let decimal = |text: &str| text.parse::<u32>().map_err(|_| BadChunkfile);
        Ok(Self {
            machine: decimal(machine)?.try_into().map_err(|_| BadChunkfile)?,
            log_id: u32::from_str_radix(log_id, 16).map_err(|_| BadChunkfile)?,
            chunk: decimal(chunk)?,
        })
    }
}

/// A text that names no chunkfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a chunkfile is named MACHINE/LOG_ID/NUMBER, the log id in hexadecimal")]
pub struct BadChunkfile;

/// The chunkfile, and the byte in it: what people look up with `chunk`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.chunkfile(), self.offset())
    }
}

/// A slot with its room: address and capacity (header included).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Place {
    /// Where it begins.
    pub address: Address,
    /// How long it is, in [`UNIT`]s.
    pub capacity_units: u32,
}

impl Place {
    /// Capacity in bytes.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.capacity_units as u64 * UNIT
    }
}

/// What orders versions (design section 5). Field order is comparison order: `life` leads, so a delete beats every
/// concurrent modify; the last three are the edit's own position, so no two edits ever share a tag.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Tag {
    /// 0 at birth; a delete makes it odd, an undelete even.
    pub life: u32,
    /// Reserved for conditional writes by majority; 0.
    pub term: u32,
    /// n of the version edited, plus 1 (plus 2^20 if a non-owner edits).
    pub n: u64,
    /// Machine that made the edit.
    pub machine: MachineId,
    /// Its log.
    pub log_id: LogId,
    /// Sequence in it.
    pub sequence: Sequence,
}

impl Tag {
    /// Position of the edit.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { machine: self.machine, log_id: self.log_id, sequence: self.sequence }
    }

    /// Whether this version is a tombstone.
    #[must_use]
    pub const fn is_deleted(&self) -> bool {
        self.life % 2 == 1
    }
}

/// {(machine, log id) -> sequence of that log's last edit of the object}, sorted, without duplicates.
pub type Vector = SmallVec<[Position; 3]>;

/// Tag and vector of one version: fixed when the edit is made, never changed afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Orders.
    pub tag: Tag,
    /// Decides what was known. Contains the tag's own position.
    pub vector: Vector,
}

/// Makes a retried mutation idempotent (R2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The client, for as long as its process lives.
    #[serde(with = "serde_bytes")]
    pub client: [u8; 16],
    /// Counts that client's mutations, from 1. 0: the request carries no token.
    pub sequence: u64,
    /// The lowest of them that it still waits for: everything below may be forgotten.
    pub lowest_unanswered: u64,
    /// When it was issued, in milliseconds of the *server's* wall clock (from the handshake).
    pub issued_ms: u64,
}

impl Token {
    /// Whether the request carries a token at all.
    #[must_use]
    pub const fn is_some(&self) -> bool {
        self.sequence != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunkfile_is_found_by_the_name_that_messages_give_it() {
        let id = ChunkfileId { machine: 3, log_id: 0x00ab_cdef, chunk: 17 };
        assert_eq!(id.to_string(), "3/00abcdef/17");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "3", "3/00abcdef", "3/00abcdef/17/1", "70000/1/1", "3/xyz/1", "3/1/-1"] {
            assert_eq!(wrong.parse::<ChunkfileId>(), Err(BadChunkfile), "{wrong}");
        }
        let address = Address { machine: 3, log_id: 0x00ab_cdef, chunk: 17, offset_units: 2 };
        assert_eq!(address.to_string(), "3/00abcdef/17 at byte 128");
        assert_eq!(format!("{address:?}"), address.to_string(), "in a log, too");
        let position = Position { machine: 3, log_id: 0x00ab_cdef, sequence: 18 };
        assert_eq!(format!("{position:?}"), "3-00abcdef-0000000000000012");
    }
}
