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
//!
//! archived (kind 3): a version lost a conflict; head as in `conflict`; payload: its content, absent if a singlefile
//!
//! dropped (kind 4): an archived version was given up by a person
//!   object 45, 0 u8, position of its edit: machine u16, log id u32, sequence u64
//!
//! begun (kind 5): the first record of every log: a life of this mount began. So no log is without a record, and a
//!   coverage names every log that its machine has heard of
//!   mount uuid 16, instance uuid 16, when u64 (ms since 1970)
//!
//! forgotten (kind 6): a member was removed for good; head as in `forgotten`
//!
//! Kinds from 128 on are about this machine's own disk and never leave it:
//!
//! settled (kind 128): what an edit of another log freed in our chunkfiles
//!   edit: machine u16, log id u32, sequence u64; places u8, 0 u8; the places as in an edit
//!
//! image (kind 129): a version that was taken over from a mirror's slot instead of a log; head and payload as of an
//!   edit, which is never applied but where it wins
//!
//! reached (kind 130): what of other logs is covered without having been received record by record
//!   entries u16, 0 u16; machine u16, 0 u16, log id u32, sequence u64 each
//! ```

use super::bytes::{Reader, Short, Writer};
use super::conflict::Conflict;
use super::file_id::{OBJECT_ID_LEN, ObjectId};
use super::forgotten::Forgotten;
use super::ids::{Address, ChunkfileId, Place, Position};
use smallvec::SmallVec;

/// Kind of an [`Edit`].
pub const KIND_EDIT: u8 = 1;
/// Kind of a [`ChunkfileCreated`].
pub const KIND_CHUNKFILE: u8 = 2;
/// Kind of a [`Conflict`].
pub const KIND_ARCHIVED: u8 = 3;
/// Kind of a [`Dropped`].
pub const KIND_DROPPED: u8 = 4;
/// Kind of a [`Begun`].
pub const KIND_BEGUN: u8 = 5;
/// Kind of a [`Forgotten`].
pub const KIND_FORGOTTEN: u8 = 6;
/// Kinds from here on never leave the machine.
pub const KIND_LOCAL: u8 = 128;
/// Kind of a [`Settled`].
pub const KIND_SETTLED: u8 = 128;
/// Kind of an image: an [`Edit`] that came as state.
pub const KIND_IMAGE: u8 = 129;
/// Kind of what was reached by state.
pub const KIND_REACHED: u8 = 130;

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

/// An archived version was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its object.
    pub object: ObjectId,
    /// Position of its edit.
    pub edit: Position,
}

/// A log began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The mount whose log it is.
    pub mount_uuid: [u8; 16],
    /// The storage that it belongs to.
    pub instance: [u8; 16],
    /// When, ms since 1970.
    pub at_ms: u64,
}

/// What an edit of another log freed in our chunkfiles. Accounts of our own space are settled by our own log only, so
/// that a replay never has to guess what a decision was based on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The edit.
    pub edit: Position,
    /// Places below our log ids that no version uses any more.
    pub freed: SmallVec<[Place; 2]>,
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
    /// Kind 3.
    Archived(Conflict),
    /// Kind 4.
    Dropped(Dropped),
    /// Kind 6.
    Forgotten(Forgotten),
    /// Kind 5.
    Begun(Begun),
    /// Kind 128.
    Settled(Settled),
    /// Kind 129.
    Image(Edit),
    /// Kind 130.
    Reached(Vec<Position>),
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
            Self::Archived(_) => KIND_ARCHIVED,
            Self::Dropped(_) => KIND_DROPPED,
            Self::Forgotten(_) => KIND_FORGOTTEN,
            Self::Begun(_) => KIND_BEGUN,
            Self::Settled(_) => KIND_SETTLED,
            Self::Image(_) => KIND_IMAGE,
            Self::Reached(_) => KIND_REACHED,
        }
    }

    /// Appends the head.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Edit(edit) | Self::Image(edit) => edit.encode(out),
            Self::Chunkfile(created) => created.encode(out),
            Self::Archived(conflict) => out.extend_from_slice(&conflict.encode()),
            Self::Dropped(dropped) => dropped.encode(out),
            Self::Forgotten(forgotten) => forgotten.encode(out),
            Self::Begun(begun) => begun.encode(out),
            Self::Settled(settled) => settled.encode(out),
            Self::Reached(positions) => encode_reached(positions, out),
        }
    }

    /// Reads a head; `None` for a kind that this version does not know.
    pub fn decode(kind: u8, head: &[u8]) -> Result<Option<Self>, Short> {
        match kind {
            KIND_EDIT => Edit::decode(head).map(|edit| Some(Self::Edit(edit))),
            KIND_CHUNKFILE => {
                ChunkfileCreated::decode(head).map(|created| Some(Self::Chunkfile(created)))
            }
            KIND_ARCHIVED => Conflict::decode(head).map(|lost| Some(Self::Archived(lost))),
            KIND_DROPPED => Dropped::decode(head).map(|dropped| Some(Self::Dropped(dropped))),
            KIND_FORGOTTEN => Forgotten::decode(head).map(|gone| Some(Self::Forgotten(gone))),
            KIND_BEGUN => Begun::decode(head).map(|begun| Some(Self::Begun(begun))),
            KIND_SETTLED => Settled::decode(head).map(|settled| Some(Self::Settled(settled))),
            KIND_IMAGE => Edit::decode(head).map(|edit| Some(Self::Image(edit))),
            KIND_REACHED => decode_reached(head).map(|reached| Some(Self::Reached(reached))),
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

impl Dropped {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        w.put(&self.object.encode()).u8(0);
        put_position(&mut w, self.edit);
    }

    fn decode(head: &[u8]) -> Result<Self, Short> {
        let mut r = Reader::new(head);
        let object = ObjectId::decode(&r.array::<OBJECT_ID_LEN>()?).map_err(|_| Short)?;
        r.u8()?;
        Ok(Self { object, edit: take_position(&mut r)? })
    }
}

impl Begun {
    fn encode(&self, out: &mut Vec<u8>) {
        Writer::new(out).put(&self.mount_uuid).put(&self.instance).u64(self.at_ms);
    }

    fn decode(head: &[u8]) -> Result<Self, Short> {
        let mut r = Reader::new(head);
        Ok(Self { mount_uuid: r.array()?, instance: r.array()?, at_ms: r.u64()? })
    }
}

impl Settled {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        put_position(&mut w, self.edit);
        w.u8(u8::try_from(self.freed.len()).unwrap_or(u8::MAX)).u8(0);
        for place in &self.freed {
            put_address(&mut w, place.address);
            w.u32(place.capacity_units);
        }
    }

    fn decode(head: &[u8]) -> Result<Self, Short> {
        let mut r = Reader::new(head);
        let edit = take_position(&mut r)?;
        let (places, _) = (r.u8()?, r.u8()?);
        let mut freed = SmallVec::new();
        for _ in 0..places {
            freed.push(Place { address: take_address(&mut r)?, capacity_units: r.u32()? });
        }
        Ok(Self { edit, freed })
    }
}

fn encode_reached(positions: &[Position], out: &mut Vec<u8>) {
    let mut w = Writer::new(out);
    let entries = u16::try_from(positions.len()).unwrap_or(u16::MAX);
    w.u16(entries).u16(0);
    for position in positions.iter().take(usize::from(entries)) {
        w.u16(position.machine).u16(0).u32(position.log_id).u64(position.sequence);
    }
}

fn decode_reached(head: &[u8]) -> Result<Vec<Position>, Short> {
    let mut r = Reader::new(head);
    let (entries, _) = (r.u16()?, r.u16()?);
    (0..entries)
        .map(|_| {
            let (machine, _) = (r.u16()?, r.u16()?);
            Ok(Position { machine, log_id: r.u32()?, sequence: r.u64()? })
        })
        .collect()
}

fn put_position(w: &mut Writer<'_>, position: Position) {
    w.u16(position.machine).u32(position.log_id).u64(position.sequence);
}

fn take_position(r: &mut Reader<'_>) -> Result<Position, Short> {
    Ok(Position { machine: r.u16()?, log_id: r.u32()?, sequence: r.u64()? })
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
        let at = Position { machine: 1, log_id: 2, sequence: 5 };
        let object = ObjectId {
            kind: crate::format::file_id::ObjectKind::Chunk,
            machine: 2,
            mount: 3,
            log_id: 4,
            sequence: 5,
            created_s: 6,
            chunk: 7,
            offset_units: 64,
            capacity_units: 8,
            cookie: 9,
        };
        let tag = super::super::ids::Tag { n: 3, machine: 1, log_id: 2, ..Default::default() };
        let lost =
            Conflict { object, tag, modified_ms: 1, length: 2, payload_crc: 3, single: Some(at) };
        let settled = Settled { edit: at, freed: edit.freed.clone() };
        for record in [
            Record::Edit(edit.clone()),
            Record::Chunkfile(created),
            Record::Archived(lost),
            Record::Dropped(Dropped { object, edit: at }),
            Record::Forgotten(Forgotten { machine: 3, instance: [4; 16], log_ids: vec![5], at }),
            Record::Begun(Begun { mount_uuid: [1; 16], instance: [2; 16], at_ms: 3 }),
            Record::Settled(settled),
            Record::Image(edit),
            Record::Reached(vec![at, at]),
        ] {
            let mut head = Vec::new();
            record.encode(&mut head);
            assert_eq!(Record::decode(record.kind(), &head), Ok(Some(record.clone())));
            for cut in 0..head.len() {
                assert_eq!(Record::decode(record.kind(), &head[..cut]), Err(Short), "cut at {cut}");
            }
        }
        assert_eq!(Record::decode(99, b""), Ok(None));
        assert_eq!(Record::decode(KIND_LOCAL + 99, b""), Ok(None));
    }
}
