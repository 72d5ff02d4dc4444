//! No header of the object at its home: is it gone, or is the place damaged? (P2, P5)
//!
//! "Not found" needs a reason: a hole, fresh space, or a slot that covers the place. A place that is in use, with nobody's
//! slot on it, has lost its header: to a flipped bit, a write that never landed, or one that landed in the wrong place.
//!
//! Invariants
//! - The headers of homes are never stale: whoever leaves his place says so in his header. So nothing that begins
//!   before the nearest home in front of a place can reach it, and a search goes no further.
//! - The headers of targets may be stale: one is there exactly if its home names it. Early targets do not tell their
//!   home: of two such slots that overlap, the one that was edited last is there.
//! - No memory per object (P8): what free space does not tell is read from the chunkfile around the place.

use super::disk::Disk;
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use crate::format::chunkfile::FIRST_SLOT_UNITS;
use crate::format::file_id::ObjectId;
use crate::format::ids::{Address, ChunkfileId, LogId, MachineId, Place, Sequence, UNIT};
use crate::format::slot::{Body, HEADER_LEN, MAGIC_BYTES, Role, SlotHeader, State};

/// Units that one step of the search looks at (64 KiB).
const WINDOW_UNITS: u32 = 1024;
/// Longest header, bytes.
const HEADER_MAX: usize = HEADER_LEN + 16 * 255;

/// A slot as the search sees it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    from: u32,
    until: u32,
    role: Role,
    edited: Sequence,
    /// Whose edit that was.
    log: (MachineId, LogId),
    /// Of a target that tells it: its home, and whose that is.
    home: Option<(Address, u64)>,
}

impl Slot {
    fn of(header: &SlotHeader) -> Self {
        let from = header.address.offset_units;
        let until = from.saturating_add(header.capacity_units);
        let edited = header.edited_at();
        let log = (edited.machine, edited.log_id);
        let home = match header.role {
            Role::Home => None,
            Role::Target => header.home_address().map(|at| (at, header.cookie)),
        };
        Self { from, until, role: header.role, edited: edited.sequence, log, home }
    }

    const fn overlaps(&self, other: &Self) -> bool {
        self.from < other.until && other.from < self.until
    }
}

impl<D: Disk> Mount<D> {
    /// Whether there is a reason for the home of `id` to hold nothing of it: purged, a hole, a later tenant. `false`:
    /// the object is there, or damaged.
    ///
    /// # Errors
    /// `Io`, `Fenced`.
    pub fn is_gone(&mut self, id: &ObjectId) -> StoreResult<bool> {
        match self.current(id) {
            Ok(header) => Ok(header.state == State::Purged),
            Err(StoreError::Damaged(_)) => Ok(false),
            Err(StoreError::NotFound { .. } | StoreError::Foreign { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Somebody's valid header stands at the home of `id`: a later tenant's, or one that should have been overwritten.
    pub(super) fn not_the_object(
        &mut self,
        id: &ObjectId,
        header: &SlotHeader,
    ) -> StoreResult<StoreError> {
        let at = id.home().address;
        // Of early targets nothing is known.
        let later = header.held_since().is_none_or(|since| since >= id.sequence);
        if later || self.is_place_explained(id, at)? {
            return Ok(StoreError::NotFound { deleted: false });
        }
        Ok(StoreError::Damaged(format!("the slot at {at:?} still holds an older object")))
    }

    /// No header that belongs there stands at the home of `id`.
    pub(super) fn no_header(&mut self, id: &ObjectId) -> StoreResult<StoreError> {
        let at = id.home().address;
        if self.is_place_explained(id, at)? {
            return Ok(StoreError::NotFound { deleted: false });
        }
        Ok(StoreError::Damaged(format!("the header of the slot at {at:?} is broken or lost")))
    }

    fn is_place_explained(&mut self, id: &ObjectId, at: Address) -> StoreResult<bool> {
        let chunkfile = at.chunkfile();
        let Some(state) = self.core.chunks.states.get(&chunkfile) else { return Ok(true) };
        // Free space of former logs is not kept: of their places only the bytes speak.
        let ours = self.core.is_ours(chunkfile);
        if at.offset_units < FIRST_SLOT_UNITS
            || at.offset_units >= state.used_units
            || (ours && id.sequence > self.durable)
            || (ours && self.core.space.is_free(at.chunk, at.offset_units))
        {
            return Ok(true);
        }
        let covers = |header: &SlotHeader| {
            let slot = Slot::of(header);
            header.address.chunkfile() == chunkfile
                && slot.from != at.offset_units
                && (slot.from..slot.until).contains(&at.offset_units)
        };
        // Of this batch: slots that are not written yet, and what they already left again.
        let left = |place: &Place| {
            let from = place.address.offset_units;
            place.address.chunkfile() == chunkfile
                && (from..from.saturating_add(place.capacity_units)).contains(&at.offset_units)
        };
        let freed = self.staged.iter().flat_map(|staged| &staged.edit.freed);
        let settled = self.settling.iter().flat_map(|(settled, _)| &settled.freed);
        if self.overlay.values().any(covers) || freed.chain(settled).any(left) {
            return Ok(true);
        }
        if !ours && !self.was_a_header(at)? {
            return Ok(true);
        }
        self.is_covered(chunkfile, id)
    }

    /// Whether the bytes are a header but for their magic, or begin like one.
    fn was_a_header(&mut self, at: Address) -> StoreResult<bool> {
        let id = at.chunkfile();
        let secret = self.core.chunks.secret(id)?;
        let mut bytes = self.core.chunks.read(id, at.offset(), HEADER_MAX)?;
        let Some(magic) = bytes.get_mut(..MAGIC_BYTES.len()) else { return Ok(false) };
        if magic == MAGIC_BYTES {
            return Ok(true);
        }
        magic.copy_from_slice(&MAGIC_BYTES);
        Ok(SlotHeader::decode(&bytes, &secret).is_ok())
    }

    /// Whether a slot that begins before the home of `object` reaches over it.
    fn is_covered(&mut self, id: ChunkfileId, object: &ObjectId) -> StoreResult<bool> {
        let place = object.home().address.offset_units;
        // What stood there before the object was created had left by then.
        let left = |slot: &Slot| {
            slot.log == (object.machine, object.log_id) && slot.edited < object.sequence
        };
        let mut targets: Vec<Slot> = Vec::new();
        let mut end = place;
        let home = 'search: loop {
            if end <= FIRST_SLOT_UNITS {
                break None;
            }
            let from = end.saturating_sub(WINDOW_UNITS).max(FIRST_SLOT_UNITS);
            for slot in self.slots_between(id, from, end)?.into_iter().rev() {
                match slot.role {
                    Role::Home => break 'search Some(slot),
                    Role::Target => targets.push(slot),
                }
            }
            end = from;
        };
        if home.is_some_and(|home| home.until > place) {
            return Ok(true);
        }
        targets.retain(|slot| {
            slot.until > place && !left(slot) && home.is_none_or(|home| !home.overlaps(slot))
        });
        for target in targets.iter().filter(|target| target.home.is_some()) {
            if self.is_named(id, target)? {
                return Ok(true);
            }
        }
        targets.retain(|target| target.home.is_none());
        let Some(last) = targets.iter().copied().max_by_key(|slot| slot.edited) else {
            return Ok(false);
        };
        // Stale if somebody has moved in since.
        let behind = self.slots_between(id, place + 1, last.until)?;
        Ok(!behind.iter().any(|slot| slot.role == Role::Home || slot.edited > last.edited))
    }

    /// Whether a target's home forwards to it: on the disk, or in the batch. A place that the batch frees is not among
    /// the free ones yet.
    fn is_named(&mut self, id: ChunkfileId, target: &Slot) -> StoreResult<bool> {
        let Some((at, cookie)) = target.home else { return Ok(false) };
        let names = |home: &SlotHeader| {
            let here = |to: Address| to.chunkfile() == id && to.offset_units == target.from;
            home.cookie == cookie && matches!(home.body, Body::Slot(to) if here(to))
        };
        if self.overlay.get(&at).is_some_and(names) {
            return Ok(true);
        }
        let found = self.core.header_at(Place { address: at, capacity_units: 0 })?;
        Ok(found.as_ref().is_some_and(names))
    }

    /// Slots in use whose header stands in a range of a chunkfile, in order.
    fn slots_between(&mut self, id: ChunkfileId, from: u32, until: u32) -> StoreResult<Vec<Slot>> {
        let secret = self.core.chunks.secret(id)?;
        let ours = self.core.is_ours(id);
        let units = until.saturating_sub(from) as usize;
        let len = units * UNIT as usize + HEADER_MAX;
        let bytes = self.core.chunks.read(id, u64::from(from) * UNIT, len)?;
        let mut slots = Vec::new();
        for (unit, at) in (from..until).enumerate() {
            let Some(slot) = bytes.get(unit * UNIT as usize..) else { break };
            if !slot.starts_with(&MAGIC_BYTES) || (ours && self.core.space.is_free(id.chunk, at)) {
                continue;
            }
            let Ok(header) = SlotHeader::decode(slot, &secret) else { continue };
            let here = header.address.chunkfile() == id && header.address.offset_units == at;
            if here && (header.role == Role::Target || header.is_in_use()) {
                slots.push(Slot::of(&header));
            }
        }
        Ok(slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crc::crc32c;
    use crate::format::ids::Token;
    use crate::format::label::Label;
    use crate::store::clock::ManualClock;
    use crate::store::mount::{Body as Content, PutRequest};
    use crate::store::options::MountOptions;
    use crate::store::sim_disk::SimDisk;
    use crate::store::tokens::TokenTable;
    use std::sync::Arc;

    fn content(len: usize) -> Content {
        let bytes = vec![7; len];
        Content::Inline { crc: crc32c(&bytes), bytes: bytes.into() }
    }

    fn put(mount: &mut Mount<SimDisk>, len: usize) -> ObjectId {
        let (token, body) = (Token::default(), content(len));
        mount.stage_put(PutRequest { token, body, reserve: None, lane: 0 }).unwrap().id
    }

    /// A home that is gone lies under a slot of this batch, which moves away within the batch: what it left is neither free yet
    /// nor covered by anything.
    #[test]
    fn what_a_batch_left_again_is_no_damage_of_those_who_were_there_before() {
        let label = Label::blank("g", "a", 1, 0, [1; 16], [4; 16]);
        let options = MountOptions { undelete_window_ms: 0, ..MountOptions::default() };
        let clock = Arc::new(ManualClock::at(1));
        let tokens = Arc::new(TokenTable::default());
        let mut mount = Mount::create(SimDisk::default(), label, options, clock, tokens).unwrap();
        let gone = [put(&mut mount, 600), put(&mut mount, 600)];
        mount.commit().unwrap();
        for id in &gone {
            mount.stage_delete(id, Token::default(), None).unwrap();
        }
        mount.commit().unwrap();
        let over = put(&mut mount, 1300);
        let [under, over_until] =
            [gone[1].home().address, over.home().address].map(|a| a.offset_units);
        assert!(over_until < under && over.home().capacity_units > under - over_until, "{over:?}");
        mount.stage_modify(&over, Token::default(), content(20_000), None).unwrap();
        for when in ["staged", "written"] {
            for id in &gone {
                assert!(mount.is_gone(id).unwrap(), "{when}: {id:?}");
                let read = mount.stage_undelete(id, Token::default());
                assert!(!matches!(read, Err(StoreError::Damaged(_))), "{when}: {read:?}");
            }
            mount.commit().unwrap();
        }
    }
}
