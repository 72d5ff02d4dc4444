//! What a log record says: the head behind the record header of [`super::log`].
//!
//! ```text
//! edit (kind 1): one new version of one object; everything that replay needs, never a delta
//!   token: lowest unanswered u64, issued ms u64
//!   replaced length u64, replaced state u8 (0 nothing, 1 live, 2 deleted, 3 purged)
//!   flags u8 (1: a singlefile is to be renamed into place; 2: the payload belongs into the slot)
//!   freed places u8, freed singlefile u8 (0 or 1)
//!   places: machine u16, log id u32, chunk u32, offset units u32, capacity units u32 each
//!   singlefile: machine u16, log id u32, content u64
//!   home address: machine u16, log id u32, chunk u32, offset units u32
//!   home header length u16, target header length u16 (0: no target)
//!   target address, if there is a target
//!   home header, target header: sealed, as they go to the disk
//! payload: the content for the target slot, else for the home slot; absent for singlefiles and deletes
//!
//! chunkfile (kind 2): a chunkfile was created
//!   machine u16, log id u32, chunk u32, size in units u32, created ms u64, secret 16
//! ```

use super::bytes::{Reader, Short, Writer};
use super::ids::{Address, ChunkfileId, Place, Position};
use smallvec::SmallVec;

/// Kind of an [`Edit`].
pub const KIND_EDIT: u8 = 1;
/// Kind of a [`ChunkfileCreated`].
pub const KIND_CHUNKFILE: u8 = 2;

/// What was there before an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// Nothing: the object was created.
    Nothing,
    /// A live version of this length.
    Live(u64),
    /// A tombstone over this length.
    Deleted(u64),
    /// A purged one.
    Purged,
}

/// A sealed slot header and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotImage {
    /// Where it goes.
    pub address: Address,
    /// Header and extra vector entries, as they go to the disk.
    pub header: SmallVec<[u8; 192]>,
}

/// One new version of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// See [`super::ids::Token`].
    pub token_lowest: u64,
    /// See [`super::ids::Token`].
    pub token_issued_ms: u64,
    /// What it replaced.
    pub replaced: Replaced,
    /// A singlefile's temporary file is to be renamed into place.
    pub rename_single: bool,
    /// The record's payload goes behind the target's header, else behind the home's.
    pub has_payload: bool,
    /// Places that no version uses any more; they enter the waits of R12.
    pub freed: SmallVec<[Place; 2]>,
    /// Singlefile that no version uses any more.
    pub freed_single: Option<Position>,
    /// The object's home.
    pub home: SlotImage,
    /// Where its content lies, if not behind the home's header.
    pub target: Option<SlotImage>,
}

/// A chunkfile was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkfileCreated {
    /// Which.
    pub id: ChunkfileId,
    /// Its size.
    pub size_units: u32,
    /// When, ms since 1970.
    pub created_ms: u64,
    /// Key of its slot seals.
    pub secret: [u8; 16],
}

/// A record.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all of them are edits, and they are short-lived"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Kind 1.
    Edit(Edit),
    /// Kind 2.
    Chunkfile(ChunkfileCreated),
}

const RENAME_SINGLE: u8 = 1;
const HAS_PAYLOAD: u8 = 2;

impl Record {
    /// Kind for the record header.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Edit(_) => KIND_EDIT,
            Self::Chunkfile(_) => KIND_CHUNKFILE,
        }
    }

    /// Appends the head.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Edit(edit) => edit.encode(out),
            Self::Chunkfile(created) => created.encode(out),
        }
    }

    /// Reads a head; `None` for a kind that this version does not know.
    pub fn decode(kind: u8, head: &[u8]) -> Result<Option<Self>, Short> {
        match kind {
            KIND_EDIT => Edit::decode(head).map(|edit| Some(Self::Edit(edit))),
            KIND_CHUNKFILE => {
                ChunkfileCreated::decode(head).map(|created| Some(Self::Chunkfile(created)))
            }
            _ => Ok(None),
        }
    }
}

impl Edit {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        w.u64(self.token_lowest).u64(self.token_issued_ms);
        let (state, length) = match self.replaced {
            Replaced::Nothing => (0, 0),
            Replaced::Live(length) => (1, length),
            Replaced::Deleted(length) => (2, length),
            Replaced::Purged => (3, 0),
        };
        let flags = if self.rename_single { RENAME_SINGLE } else { 0 }
            | if self.has_payload { HAS_PAYLOAD } else { 0 };
        w.u64(length).u8(state).u8(flags);
        w.u8(u8::try_from(self.freed.len()).unwrap_or(u8::MAX));
        w.u8(self.freed_single.is_some().into());
        for place in &self.freed {
            put_address(&mut w, place.address);
            w.u32(place.capacity_units);
        }
        if let Some(content) = self.freed_single {
            w.u16(content.machine).u32(content.log_id).u64(content.sequence);
        }
        put_address(&mut w, self.home.address);
        let target_len = self.target.as_ref().map_or(0, |t| t.header.len());
        w.u16(u16::try_from(self.home.header.len()).unwrap_or(u16::MAX));
        w.u16(u16::try_from(target_len).unwrap_or(u16::MAX));
        if let Some(target) = &self.target {
            put_address(&mut w, target.address);
        }
        w.put(&self.home.header);
        if let Some(target) = &self.target {
            w.put(&target.header);
        }
    }

    fn decode(head: &[u8]) -> Result<Self, Short> {
        let mut r = Reader::new(head);
        let (token_lowest, token_issued_ms) = (r.u64()?, r.u64()?);
        let (length, state, flags) = (r.u64()?, r.u8()?, r.u8()?);
        let (places, singles) = (r.u8()?, r.u8()?);
        let replaced = match state {
            0 => Replaced::Nothing,
            1 => Replaced::Live(length),
            2 => Replaced::Deleted(length),
            3 => Replaced::Purged,
            _ => return Err(Short),
        };
        let mut freed = SmallVec::new();
        for _ in 0..places {
            freed.push(Place { address: take_address(&mut r)?, capacity_units: r.u32()? });
        }
        let freed_single = match singles {
            0 => None,
            _ => Some(Position { machine: r.u16()?, log_id: r.u32()?, sequence: r.u64()? }),
        };
        let home_address = take_address(&mut r)?;
        let (home_len, target_len) = (usize::from(r.u16()?), usize::from(r.u16()?));
        let target_address = if target_len > 0 { Some(take_address(&mut r)?) } else { None };
        let home =
            SlotImage { address: home_address, header: SmallVec::from_slice(r.take(home_len)?) };
        let target = match target_address {
            None => None,
            Some(address) => {
                Some(SlotImage { address, header: SmallVec::from_slice(r.take(target_len)?) })
            }
        };
        let rename_single = flags & RENAME_SINGLE != 0;
        let has_payload = flags & HAS_PAYLOAD != 0;
        Ok(Self {
            token_lowest,
            token_issued_ms,
            replaced,
            rename_single,
            has_payload,
            freed,
            freed_single,
            home,
            target,
        })
    }
}

impl ChunkfileCreated {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        w.u16(self.id.machine).u32(self.id.log_id).u32(self.id.chunk);
        w.u32(self.size_units).u64(self.created_ms).put(&self.secret);
    }

    fn decode(head: &[u8]) -> Result<Self, Short> {
        let mut r = Reader::new(head);
        let id = ChunkfileId { machine: r.u16()?, log_id: r.u32()?, chunk: r.u32()? };
        Ok(Self { id, size_units: r.u32()?, created_ms: r.u64()?, secret: r.array()? })
    }
}

/// Appends an address: 14 bytes.
pub(super) fn put_address(w: &mut Writer<'_>, address: Address) {
    w.u16(address.machine).u32(address.log_id).u32(address.chunk).u32(address.offset_units);
}

/// Reads an address.
pub(super) fn take_address(r: &mut Reader<'_>) -> Result<Address, Short> {
    Ok(Address { machine: r.u16()?, log_id: r.u32()?, chunk: r.u32()?, offset_units: r.u32()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_short_ones_are_refused() {
        let address = Address { machine: 1, log_id: 2, chunk: 3, offset_units: 4 };
        let edit = Edit {
            token_lowest: 1,
            token_issued_ms: 2,
            replaced: Replaced::Deleted(77),
            rename_single: true,
            has_payload: false,
            freed: SmallVec::from_slice(&[Place { address, capacity_units: 9 }]),
            freed_single: Some(Position { machine: 1, log_id: 2, sequence: 5 }),
            home: SlotImage { address, header: SmallVec::from_slice(&[1; 192]) },
            target: Some(SlotImage { address, header: SmallVec::from_slice(&[2; 208]) }),
        };
        let id = ChunkfileId { machine: 1, log_id: 2, chunk: 3 };
        let created = ChunkfileCreated { id, size_units: 5, created_ms: 6, secret: [7; 16] };
        for record in [Record::Edit(edit), Record::Chunkfile(created)] {
            let mut head = Vec::new();
            record.encode(&mut head);
            assert_eq!(Record::decode(record.kind(), &head), Ok(Some(record.clone())));
            for cut in 0..head.len() {
                assert_eq!(Record::decode(record.kind(), &head[..cut]), Err(Short), "cut at {cut}");
            }
        }
        assert_eq!(Record::decode(99, b""), Ok(None));
    }
}
