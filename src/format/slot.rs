//! The slot header: what stands in front of every payload in a chunkfile (R11).
//!
//! ```text
//!   0  magic u32        "FoSl"
//!   4  major u8         1
//!   5  role u8          home | target of a move
//!   6  state u8         live | deleted (tombstone) | purged
//!   7  body u8          inline | in another slot | in a singlefile | none
//!   8  mount u8, extra u8 (vector entries before the payload), machine u16, log id u32   } who created it:
//!  16  sequence u64                                                                       } the object's identity
//!  24  cookie u64                                                                         }
//!  32  machine u16, vector u8 (entries besides our own), kind u8 (as in the id)
//!  36  log id u32, chunk u32, offset units u32                                            own address
//!  48  life u32, term u32, n u64, machine u16, 0 u16, log id u32, sequence u64            tag of the version
//!  80  2 x (machine u16, 0 u16, log id u32, sequence u64)                                 vector but for our own entry
//! 112  client 16, sequence u64                                                            token of the last edit
//! 136  created u32, home capacity at birth u32    s since 1970; both as in the id, so that a scan can print it
//! 144  modified u64                               ms since 1970
//! 152  capacity units u32, payload CRC32C u32, length u64
//! 168  machine u16, 0 u16, log id u32, then        forward: chunk u32 and offset units u32 of the target slot,
//! 176  8 bytes                                     or the content number u64 of the singlefile;
//!                                                  of a target instead: chunk u32 and offset units u32 of its home
//!                                                  (below the log that created the object), then since u64: sequence
//!                                                  of the edit that moved there, in the log of its own address; all
//!                                                  0 if an early version wrote it
//! 184  MAC u64                                     SipHash-2-4 of 0..184 and the extra entries
//! 192
//! ```
//!
//! Invariants: the tag's own position is always a vector entry and therefore not stored twice; the MAC is keyed with
//! the chunkfile's secret, so bytes that a user stored can never pass for a header; the payload CRC is under the MAC,
//! so payload, version and identity are bound together (P2).

use super::bytes::{Reader, Short, Writer};
use super::crc::{crc32c, mac64};
use super::file_id::{ObjectId, ObjectKind};
use super::ids::{
    Address, ChunkNumber, ChunkfileId, Place, Position, Sequence, Tag, UNIT, Vector, Version,
};

/// Length of a slot header in bytes; a multiple of [`UNIT`].
pub const HEADER_LEN: usize = 192;
const _: () = assert!((HEADER_LEN as u64).is_multiple_of(UNIT));
/// Units that a header takes.
pub const HEADER_UNITS: u32 = 3;
const _: () = assert!(HEADER_UNITS as u64 * UNIT == HEADER_LEN as u64);

const MAGIC: u32 = u32::from_le_bytes(*b"FoSl");
/// The bytes of the magic, for a scan.
pub const MAGIC_BYTES: [u8; 4] = *b"FoSl";
const MAJOR: u8 = 1;
const MAC_AT: usize = HEADER_LEN - 8;
/// Vector entries with room in the header itself, besides the tag's own.
const VECTOR_INLINE: usize = 2;
/// Length of a vector entry.
const ENTRY_LEN: usize = 16;

/// Whether a slot is named by an id, or holds the content of a slot that moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Named by the file id.
    Home,
    /// Counts only while its home names it.
    Target,
}

/// State of the object. The codes are four bits apart from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Answers.
    Live,
    /// Tombstone; the payload stays until the purge.
    Deleted,
    /// Final: refuses undelete; header and payload are free once R12 says so.
    Purged,
}

/// Where the content lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Behind this header.
    Inline,
    /// In the slot at this address, whose header has the same identity and tag.
    Slot(Address),
    /// In the singlefile of this content id. The id is drawn when the upload begins (machine, log id, start count and
    /// a counter: as unique as a position), so that the file's trailer can carry it.
    Single(Position),
    /// Nowhere any more (purged).
    None,
}

/// Of the target of a move: since when it is there, and whose it is. A home, and a target that an early version wrote,
/// has the default: a home tells the same by its creation and its own address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stay {
    /// Sequence of the edit that handed the place out, in the log below which the place lies. 0: not known.
    pub since: Sequence,
    /// Chunkfile of the home, below the log that created the object.
    pub home_chunk: ChunkNumber,
    /// Offset of the home in it; 0: not known.
    pub home_units: u32,
}

/// A slot header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotHeader {
    /// Named by an id, or the target of a move.
    pub role: Role,
    /// Live or dead.
    pub state: State,
    /// Where the content is.
    pub body: Body,
    /// Mount of the object.
    pub mount: u8,
    /// Position of creation.
    pub creation: Position,
    /// The random part of the identity.
    pub cookie: u64,
    /// Where this header itself stands (finds misdirected writes, R11).
    pub address: Address,
    /// Version: fixed when the edit was made.
    pub version: Version,
    /// Client of the last edit.
    pub token_client: [u8; 16],
    /// That client's number of it; 0 = none.
    pub token_sequence: u64,
    /// As what the object was born; part of its id.
    pub kind: ObjectKind,
    /// Creation, s since 1970; part of the id.
    pub created_s: u32,
    /// Capacity of the home slot at birth; part of the id.
    pub birth_units: u32,
    /// Last edit, ms since 1970.
    pub modified_ms: u64,
    /// Room of this slot, header included.
    pub capacity_units: u32,
    /// CRC32C of the content.
    pub payload_crc: u32,
    /// Length of the content in bytes.
    pub length: u64,
    /// Of a target only.
    pub stay: Stay,
}

/// Why bytes are no slot header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASlot {
    /// No magic: empty, a hole, or payload.
    #[error("there is no slot header here")]
    Blank,
    /// A header of a format that this version does not know.
    #[error("the slot header has format version {0}, newer than this program's")]
    Newer(u8),
    /// Magic without a right seal: damaged, half written, or a user's bytes.
    #[error("the slot header's seal is broken")]
    Broken,
}

impl From<Short> for NotASlot {
    fn from(_: Short) -> Self {
        Self::Broken
    }
}

impl SlotHeader {
    /// Vector entries that do not fit the header.
    fn extra_entries(&self) -> usize {
        self.version.vector.len().saturating_sub(1 + VECTOR_INLINE)
    }

    /// Bytes from the header's begin to the payload.
    #[must_use]
    pub fn payload_offset(&self) -> usize {
        HEADER_LEN + self.extra_entries() * ENTRY_LEN
    }

    /// Place of this slot.
    #[must_use]
    pub const fn place(&self) -> Place {
        Place { address: self.address, capacity_units: self.capacity_units }
    }

    /// Whether this is the object that `id` names.
    #[must_use]
    pub fn is_object(&self, id: &ObjectId) -> bool {
        self.cookie == id.cookie
            && self.mount == id.mount
            && self.creation == id.creation()
            && self.kind == id.kind
    }

    /// The id of the object whose home this is.
    #[must_use]
    pub const fn object_id(&self) -> ObjectId {
        ObjectId {
            kind: self.kind,
            machine: self.creation.machine,
            mount: self.mount,
            log_id: self.creation.log_id,
            sequence: self.creation.sequence,
            created_s: self.created_s,
            chunk: self.address.chunk,
            offset_units: self.address.offset_units,
            capacity_units: self.birth_units,
            cookie: self.cookie,
        }
    }

    /// Position of the last edit.
    #[must_use]
    pub const fn edited_at(&self) -> Position {
        self.version.tag.position()
    }

    /// The sequence, in the log below which the slot lies, of the record that handed its place out: that orders all
    /// tenants of a place. `None`: an early version wrote this target.
    #[must_use]
    pub const fn held_since(&self) -> Option<Sequence> {
        match self.role {
            Role::Home => Some(self.creation.sequence),
            Role::Target if self.stay.since == 0 => None,
            Role::Target => Some(self.stay.since),
        }
    }

    /// Where the home of the object stands. `None`: an early version wrote this target.
    #[must_use]
    pub const fn home_address(&self) -> Option<Address> {
        let Stay { home_chunk, home_units, .. } = self.stay;
        match self.role {
            Role::Home => Some(self.address),
            Role::Target if home_units == 0 => None,
            Role::Target => Some(Address {
                machine: self.creation.machine,
                log_id: self.creation.log_id,
                chunk: home_chunk,
                offset_units: home_units,
            }),
        }
    }

    /// Header and extra vector entries, sealed with the chunkfile's secret.
    #[must_use]
    pub fn encode(&self, secret: &[u8; 16]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload_offset());
        let own = self.edited_at();
        let others: Vector = self.version.vector.iter().copied().filter(|p| *p != own).collect();
        let extra = others.len().saturating_sub(VECTOR_INLINE);
        let mut w = Writer::new(&mut out);
        w.u32(MAGIC).u8(MAJOR).u8(self.role.code()).u8(self.state.code()).u8(self.body.code());
        w.u8(self.mount).u8(count(extra)).u16(self.creation.machine).u32(self.creation.log_id);
        w.u64(self.creation.sequence).u64(self.cookie);
        w.u16(self.address.machine).u8(count(others.len())).u8(self.kind.number());
        w.u32(self.address.log_id);
        w.u32(self.address.chunk).u32(self.address.offset_units);
        let tag = &self.version.tag;
        w.u32(tag.life).u32(tag.term).u64(tag.n).u16(tag.machine).u16(0).u32(tag.log_id);
        w.u64(tag.sequence);
        for slot in 0..VECTOR_INLINE {
            put_entry(&mut w, others.get(slot).copied().unwrap_or_default());
        }
        w.put(&self.token_client).u64(self.token_sequence);
        w.u32(self.created_s).u32(self.birth_units).u64(self.modified_ms);
        w.u32(self.capacity_units).u32(self.payload_crc).u64(self.length);
        match self.role {
            Role::Home => w.put(&self.body.forward()),
            Role::Target => {
                w.u32(self.stay.home_chunk).u32(self.stay.home_units).u64(self.stay.since)
            }
        };
        debug_assert_eq!(w.len(), MAC_AT);
        w.u64(0);
        for entry in others.iter().skip(VECTOR_INLINE) {
            put_entry(&mut w, *entry);
        }
        let mac = mac64(secret, &[&out[..MAC_AT], &out[HEADER_LEN..]]);
        out[MAC_AT..HEADER_LEN].copy_from_slice(&mac.to_le_bytes());
        out
    }

    /// Reads a header (and the entries behind it) from the front of `bytes`, and checks its seal. The caller
    /// compares address and identity.
    pub fn decode(bytes: &[u8], secret: &[u8; 16]) -> Result<Self, NotASlot> {
        let Some(head) = bytes.first_chunk::<HEADER_LEN>() else { return Err(NotASlot::Blank) };
        if head[..4] != MAGIC_BYTES {
            return Err(NotASlot::Blank);
        }
        let extra = usize::from(head[9]);
        let Some(behind) = bytes.get(HEADER_LEN..HEADER_LEN + extra * ENTRY_LEN) else {
            return Err(NotASlot::Broken);
        };
        let seal = u64::from_le_bytes(*head.last_chunk::<8>().ok_or(NotASlot::Broken)?);
        if mac64(secret, &[&head[..MAC_AT], behind]) != seal {
            return Err(NotASlot::Broken);
        }
        if head[4] != MAJOR {
            return Err(NotASlot::Newer(head[4]));
        }
        Self::decode_sealed(head, behind)
    }

    /// Reads a header whose seal cannot be checked, because the secret of its chunkfile is not known. Only for what some
    /// other checksum vouches for: a record of a log.
    #[must_use]
    pub fn decode_unsealed(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEADER_LEN>().filter(|head| head[..4] == MAGIC_BYTES)?;
        let behind = bytes.get(HEADER_LEN..HEADER_LEN + usize::from(head[9]) * ENTRY_LEN)?;
        Self::decode_sealed(head, behind).ok().filter(|_| head[4] == MAJOR)
    }

    fn decode_sealed(head: &[u8; HEADER_LEN], behind: &[u8]) -> Result<Self, NotASlot> {
        let mut r = Reader::new(&head[5..]);
        let (role, state, body) = (r.u8()?, r.u8()?, r.u8()?);
        let (mount, _extra) = (r.u8()?, r.u8()?);
        let creation = Position { machine: r.u16()?, log_id: r.u32()?, sequence: r.u64()? };
        let cookie = r.u64()?;
        let (machine, entries, kind) = (r.u16()?, usize::from(r.u8()?), r.u8()?);
        let address =
            Address { machine, log_id: r.u32()?, chunk: r.u32()?, offset_units: r.u32()? };
        let (life, term, n, machine, _) = (r.u32()?, r.u32()?, r.u64()?, r.u16()?, r.u16()?);
        let tag = Tag { life, term, n, machine, log_id: r.u32()?, sequence: r.u64()? };
        let mut vector = Vector::new();
        for slot in 0..VECTOR_INLINE {
            let entry = take_entry(&mut r)?;
            if slot < entries {
                vector.push(entry);
            }
        }
        let mut more = Reader::new(behind);
        while !more.is_empty() {
            vector.push(take_entry(&mut more)?);
        }
        if vector.len() != entries {
            return Err(NotASlot::Broken);
        }
        vector.push(tag.position());
        vector.sort_unstable();
        // One entry per log; a second one could not have been written.
        if vector.windows(2).any(|w| (w[0].machine, w[0].log_id) == (w[1].machine, w[1].log_id)) {
            return Err(NotASlot::Broken);
        }
        let (token_client, token_sequence) = (r.array()?, r.u64()?);
        let (created_s, birth_units, modified_ms) = (r.u32()?, r.u32()?, r.u64()?);
        let (capacity_units, payload_crc, length) = (r.u32()?, r.u32()?, r.u64()?);
        let forward = r.array::<16>()?;
        let role = Role::from_code(role).ok_or(NotASlot::Broken)?;
        let body = Body::from_parts(body, &forward).ok_or(NotASlot::Broken)?;
        let stay = match role {
            Role::Home => Stay::default(),
            // Nobody is forwarded twice.
            Role::Target if body != Body::Inline => return Err(NotASlot::Broken),
            Role::Target => Stay::read(&forward)?,
        };
        Ok(Self {
            role,
            state: State::from_code(state).ok_or(NotASlot::Broken)?,
            body,
            mount,
            creation,
            cookie,
            address,
            version: Version { tag, vector },
            token_client,
            token_sequence,
            kind: ObjectKind::from_number(kind).ok_or(NotASlot::Broken)?,
            created_s,
            birth_units,
            modified_ms,
            capacity_units,
            payload_crc,
            length,
            stay,
        })
    }

    /// The content that lies behind this header in `slot` (the bytes from the header on), if it is all there and
    /// its CRC is right.
    #[must_use]
    pub fn payload<'a>(&self, slot: &'a [u8]) -> Option<&'a [u8]> {
        let from = self.payload_offset();
        let to = from.checked_add(usize::try_from(self.length).ok()?)?;
        let payload = slot.get(from..to)?;
        (crc32c(payload) == self.payload_crc).then_some(payload)
    }

    /// Whether a scan may jump over the whole slot. A purged home or a target may lie in free space that has new
    /// tenants in its middle: behind those a scan goes on unit by unit.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.role == Role::Home && self.state != State::Purged
    }

    /// Chunkfile of a forward.
    #[must_use]
    pub const fn forward_chunkfile(&self) -> Option<ChunkfileId> {
        match self.body {
            Body::Slot(address) => Some(address.chunkfile()),
            Body::Inline | Body::Single(_) | Body::None => None,
        }
    }
}

/// Bytes of a slot with a payload of `length` and a vector of `entries`.
#[must_use]
pub const fn slot_len(length: u64, entries: usize) -> u64 {
    let extra = entries.saturating_sub(1 + VECTOR_INLINE);
    HEADER_LEN as u64 + (extra * ENTRY_LEN) as u64 + length
}

/// Units that `bytes` take, rounded up.
#[must_use]
pub const fn units(bytes: u64) -> u64 {
    bytes.div_ceil(UNIT)
}

fn count(n: usize) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

fn put_entry(w: &mut Writer<'_>, entry: Position) {
    w.u16(entry.machine).u16(0).u32(entry.log_id).u64(entry.sequence);
}

fn take_entry(r: &mut Reader<'_>) -> Result<Position, Short> {
    let (machine, _) = (r.u16()?, r.u16()?);
    Ok(Position { machine, log_id: r.u32()?, sequence: r.u64()? })
}

/// Whether bytes whose seal is broken were the header of a home in use: magic, role and state are, and the address says
/// that it belongs where it stands. What is stale, purged or a user's does not look so.
#[must_use]
pub fn looks_like_home(bytes: &[u8], here: Address) -> bool {
    let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else { return false };
    let u32_at = |at: usize| bytes[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
    let machine = u16::from_le_bytes([bytes[32], bytes[33]]);
    let in_use = matches!(State::from_code(bytes[6]), Some(State::Live | State::Deleted));
    bytes[..4] == MAGIC_BYTES
        && bytes[5] == Role::Home.code()
        && in_use
        && (machine, u32_at(36)) == (here.machine, here.log_id)
        && (u32_at(40), u32_at(44)) == (here.chunk, here.offset_units)
}

impl Stay {
    fn read(forward: &[u8; 16]) -> Result<Self, Short> {
        let mut r = Reader::new(forward);
        Ok(Self { home_chunk: r.u32()?, home_units: r.u32()?, since: r.u64()? })
    }
}

impl Role {
    const fn code(self) -> u8 {
        match self {
            Self::Home => 0x5a,
            Self::Target => 0xa5,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x5a => Some(Self::Home),
            0xa5 => Some(Self::Target),
            _ => None,
        }
    }
}

impl State {
    const fn code(self) -> u8 {
        match self {
            Self::Live => 0x1e,
            Self::Deleted => 0xe1,
            Self::Purged => 0x78,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x1e => Some(Self::Live),
            0xe1 => Some(Self::Deleted),
            0x78 => Some(Self::Purged),
            _ => None,
        }
    }
}

impl Body {
    const fn code(self) -> u8 {
        match self {
            Self::Inline => 0x2d,
            Self::Slot(_) => 0x4b,
            Self::Single(_) => 0x87,
            Self::None => 0xb4,
        }
    }

    fn forward(self) -> [u8; 16] {
        let mut out = [0; 16];
        match self {
            Self::Inline | Self::None => {}
            Self::Single(content) => {
                out[..2].copy_from_slice(&content.machine.to_le_bytes());
                out[4..8].copy_from_slice(&content.log_id.to_le_bytes());
                out[8..].copy_from_slice(&content.sequence.to_le_bytes());
            }
            Self::Slot(to) => {
                out[..2].copy_from_slice(&to.machine.to_le_bytes());
                out[4..8].copy_from_slice(&to.log_id.to_le_bytes());
                out[8..12].copy_from_slice(&to.chunk.to_le_bytes());
                out[12..].copy_from_slice(&to.offset_units.to_le_bytes());
            }
        }
        out
    }

    fn from_parts(code: u8, forward: &[u8; 16]) -> Option<Self> {
        match code {
            0x2d => Some(Self::Inline),
            0xb4 => Some(Self::None),
            0x87 => take_entry(&mut Reader::new(forward)).ok().map(Self::Single),
            0x4b => {
                let mut r = Reader::new(forward);
                let (machine, _) = (r.u16().ok()?, r.u16().ok()?);
                let (log_id, chunk) = (r.u32().ok()?, r.u32().ok()?);
                Some(Self::Slot(Address { machine, log_id, chunk, offset_units: r.u32().ok()? }))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
