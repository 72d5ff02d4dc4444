//! Slot headers (docs/FORMAT.md, "Slot").

use super::bytes::{Address, Bad, ChunkId, Position, Take, UNIT, mac};

/// Bytes of a header without the extra vector entries.
pub const HEADER: usize = 192;
/// Bytes of a header with as many of them as there can be.
pub const HEADER_MAX: usize = HEADER + 255 * 16;
/// Units of a header.
pub const HEADER_UNITS: u32 = 3;
/// Where the role stands, and the code of a target.
pub const ROLE_AT: usize = 5;
pub const TARGET: u8 = 0xa5;
/// First unit of a chunkfile's slots.
pub const FIRST_UNIT: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Home,
    Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Live,
    Deleted,
    Purged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Inline,
    Slot(Address),
    Single(Position),
    None,
}

/// The tag of a version, in the order in which tags are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    pub life: u32,
    pub term: u32,
    pub n: u64,
    pub machine: u16,
    pub log_id: u32,
    pub sequence: u64,
}

/// A sealed header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub role: Role,
    pub state: State,
    pub body: Body,
    pub mount: u8,
    /// Vector entries behind the header.
    pub extra: u8,
    pub creation: Position,
    pub cookie: u64,
    pub kind: u8,
    pub address: Address,
    pub tag: Tag,
    pub capacity_units: u32,
    pub payload_crc: u32,
    pub length: u64,
}

/// Why bytes are no slot header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotASlot {
    /// No magic.
    Blank,
    Newer(u8),
    /// Magic without a right seal.
    Broken,
}

impl From<Bad> for NotASlot {
    fn from(_: Bad) -> Self {
        Self::Broken
    }
}

impl Slot {
    /// Reads a header from the front of `bytes`.
    pub fn decode(bytes: &[u8], secret: &[u8; 16]) -> Result<Self, NotASlot> {
        let Some(head) = bytes.first_chunk::<HEADER>() else { return Err(NotASlot::Blank) };
        if head[..4] != *b"FoSl" {
            return Err(NotASlot::Blank);
        }
        let behind = bytes.get(HEADER..HEADER + usize::from(head[9]) * 16);
        let behind = behind.ok_or(NotASlot::Broken)?;
        let seal = Take(&head[184..]).u64()?;
        if mac(secret, &head[..184], behind) != seal {
            return Err(NotASlot::Broken);
        }
        if head[4] != 1 {
            return Err(NotASlot::Newer(head[4]));
        }
        Ok(fields(head)?)
    }

    /// Bytes from the begin of the header to the payload.
    pub fn payload_at(&self) -> u64 {
        HEADER as u64 + u64::from(self.extra) * 16
    }

    /// Whether a scan may jump over it: its place is in use.
    pub fn is_in_use(&self) -> bool {
        self.role == Role::Home && self.state != State::Purged
    }

    pub fn is_same_object(&self, other: &Self) -> bool {
        self.creation == other.creation
            && self.cookie == other.cookie
            && self.mount == other.mount
            && self.kind == other.kind
    }

    /// Why the fields of a sealed header cannot be together, if they cannot.
    pub fn nonsense(&self, size_units: u32) -> Option<String> {
        let end = u64::from(self.address.unit) + u64::from(self.capacity_units);
        let room = u64::from(self.capacity_units) * UNIT;
        let (machine, log_id) = (self.address.chunk.machine, self.address.chunk.log_id);
        let home_elsewhere = (self.creation.machine, self.creation.log_id) != (machine, log_id);
        if self.capacity_units < HEADER_UNITS || end > u64::from(size_units) {
            return Some(format!("{} units do not fit here", self.capacity_units));
        }
        if self.role == Role::Home && home_elsewhere {
            return Some("its object was created in another log".to_owned());
        }
        let inline = self.body == Body::Inline;
        if inline && self.payload_at().saturating_add(self.length) > room {
            return Some(format!("{} bytes do not fit {room}", self.length));
        }
        if self.role == Role::Target && !inline {
            return Some("a target without content".to_owned());
        }
        if (self.state == State::Purged) != (self.body == Body::None) {
            return Some("purged with content, or content nowhere".to_owned());
        }
        (!matches!(self.kind, 1 | 2)).then(|| format!("kind {}", self.kind))
    }

    /// For people: which object.
    pub fn object(&self) -> String {
        let Position { machine, log_id, sequence } = self.creation;
        format!("object created by machine {machine} at {log_id:08x}-{sequence:x}")
    }
}

fn fields(head: &[u8; HEADER]) -> Result<Slot, Bad> {
    let mut take = Take(&head[5..]);
    let (role, state, body) = (take.u8()?, take.u8()?, take.u8()?);
    let (mount, extra) = (take.u8()?, take.u8()?);
    let creation = Position::take_packed(&mut take)?;
    let cookie = take.u64()?;
    let (machine, vector, kind, log_id) = (take.u16()?, take.u8()?, take.u8()?, take.u32()?);
    let chunk = ChunkId { machine, log_id, number: take.u32()? };
    let address = Address { chunk, unit: take.u32()? };
    let (life, term, n, machine, _) =
        (take.u32()?, take.u32()?, take.u64()?, take.u16()?, take.u16()?);
    let tag = Tag { life, term, n, machine, log_id: take.u32()?, sequence: take.u64()? };
    if extra != vector.saturating_sub(2) {
        return Err(Bad);
    }
    let mut take = Take(&head[152..]);
    let (capacity_units, payload_crc, length) = (take.u32()?, take.u32()?, take.u64()?);
    let forward = take.0;
    Ok(Slot {
        role: role_of(role).ok_or(Bad)?,
        state: state_of(state).ok_or(Bad)?,
        body: body_of(body, forward)?,
        mount,
        extra,
        creation,
        cookie,
        kind,
        address,
        tag,
        capacity_units,
        payload_crc,
        length,
    })
}

fn role_of(code: u8) -> Option<Role> {
    match code {
        0x5a => Some(Role::Home),
        TARGET => Some(Role::Target),
        _ => None,
    }
}

fn state_of(code: u8) -> Option<State> {
    match code {
        0x1e => Some(State::Live),
        0xe1 => Some(State::Deleted),
        0x78 => Some(State::Purged),
        _ => None,
    }
}

fn body_of(code: u8, forward: &[u8]) -> Result<Body, Bad> {
    match code {
        0x2d => Ok(Body::Inline),
        0xb4 => Ok(Body::None),
        0x87 => Position::take(&mut Take(forward)).map(Body::Single),
        0x4b => {
            let mut take = Take(forward);
            let (machine, _, log_id) = (take.u16()?, take.u16()?, take.u32()?);
            let chunk = ChunkId { machine, log_id, number: take.u32()? };
            Ok(Body::Slot(Address { chunk, unit: take.u32()? }))
        }
        _ => Err(Bad),
    }
}

/// What an unsealed header says of itself, if the bytes look like one: its own address, and how many of its three
/// codes are right.
pub fn looks_like(bytes: &[u8]) -> Option<(Address, usize)> {
    let head = bytes.first_chunk::<HEADER>()?;
    let codes = [role_of(head[5]).is_some(), state_of(head[6]).is_some()];
    let known_body = matches!(head[7], 0x2d | 0xb4 | 0x87 | 0x4b);
    let right = codes.iter().filter(|right| **right).count() + usize::from(known_body);
    let mut take = Take(&head[32..]);
    let (machine, _, log_id) = (take.u16().ok()?, take.u16().ok()?, take.u32().ok()?);
    let chunk = ChunkId { machine, log_id, number: take.u32().ok()? };
    Some((Address { chunk, unit: take.u32().ok()? }, right))
}

/// Checksum and length of the content, and how far behind the header it begins, as an unsealed header says it.
pub fn content_of(bytes: &[u8]) -> Option<(u32, u64, u64)> {
    let head = bytes.first_chunk::<HEADER>()?;
    let mut take = Take(&head[156..]);
    let (crc, length) = (take.u32().ok()?, take.u64().ok()?);
    Some((crc, length, HEADER as u64 + u64::from(head[9]) * 16))
}
