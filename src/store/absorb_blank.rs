//! State exchange while a mount is refilled: copies for places behind everything that a chunkfile holds here are written
//! many at a time, straight to their slots, without our log: they are at their source, and nobody counts on ours yet.
//!
//! Invariants
//! - Only what never held anything is written this way. A version that replaces another one goes through the log
//!   ([`Mount::absorb`]), so no power cut takes away what was here.
//! - Nothing is said to be here ([`Mount::reached`]), and no phase is left ([`Mount::save_recovery`]), before all of it is
//!   durable ([`Mount::sync_copies`]).
//! - A mount that is opened in the phase that copies makes its accounts anew from the slots; what was not durable is found
//!   by its checksums, and copied again.

use super::absorb::{Absorbed, image_of, is_whole};
use super::chunks::ALLOCATE_STEP;
use super::disk::Disk;
use super::error::StoreResult;
use super::mount::Mount;
use super::slot_copy::SlotCopy;
use super::slot_run::{BadSlot, first_slot};
use crate::format::ids::{Address, UNIT};
use crate::format::record::{ChunkfileCreated, Replaced, SlotImage};
use crate::format::slot::{Body, Role, SlotHeader};
use bytes::Bytes;
use smallvec::SmallVec;

/// Bytes that are written at once, at most.
const RUN_MAX: u64 = 4 << 20;
/// Room to grow between two slots that is written with them, as zeros, at most.
const GAP_MAX: u64 = 64 << 10;
static ZEROS: [u8; GAP_MAX as usize] = [0; GAP_MAX as usize];

/// Slots that follow each other.
#[derive(Default)]
struct Run<'a> {
    begin: Option<Address>,
    /// Where its bytes end in the chunkfile.
    end: u64,
    /// What is written, gaps included.
    parts: Vec<&'a [u8]>,
    slots: Vec<SlotHeader>,
}

impl<'a> Run<'a> {
    /// Whether a slot at `address` can be written together with those that are here.
    fn takes(&self, address: Address) -> bool {
        let Some(begin) = self.begin else { return true };
        address.chunkfile() == begin.chunkfile()
            && address.offset() >= self.end
            && address.offset() - self.end <= GAP_MAX
            && address.offset() - begin.offset() <= RUN_MAX
    }

    fn push(&mut self, home: SlotHeader, slot: [&'a [u8]; 2]) {
        let offset = home.address.offset();
        if self.begin.is_none() {
            (self.begin, self.end) = (Some(home.address), offset);
        }
        let gap = usize::try_from(offset.saturating_sub(self.end)).unwrap_or(usize::MAX);
        self.parts.push(&ZEROS[..gap.min(ZEROS.len())]);
        self.parts.extend(slot);
        self.end = offset + slot.iter().map(|part| part.len() as u64).sum::<u64>();
        self.slots.push(home);
    }
}

impl<D: Disk> Mount<D> {
    /// Takes copies as [`Self::absorb`] does while the mount is refilled: applied when it returns, and durable after
    /// [`Self::sync_copies`]. A mount that serves absorbs.
    ///
    /// # Errors
    /// As [`Self::absorb`].
    pub fn absorb_blank(
        &mut self,
        chunkfiles: &[ChunkfileCreated],
        copies: &[SlotCopy],
    ) -> StoreResult<Absorbed> {
        self.check_fence()?;
        if !self.refilling {
            return self.absorb(chunkfiles, copies);
        }
        self.commit()?;
        for created in chunkfiles {
            self.ensure_chunkfile(created)?;
        }
        let (mut run, mut rest, mut taken) = (Run::default(), Vec::new(), 0);
        for copy in copies {
            let Some(home) = self.for_a_blank_place(copy, &run) else {
                rest.push(copy.clone());
                continue;
            };
            if !run.takes(home.address) {
                taken += self.write_run(std::mem::take(&mut run))?;
            }
            run.push(home, [&copy.home.header, &copy.payload]);
        }
        taken += self.write_run(run)?;
        let mut absorbed = Absorbed::default();
        if !rest.is_empty() {
            absorbed = self.absorb(&[], &rest)?;
        }
        absorbed.taken += taken;
        Ok(absorbed)
    }

    /// Takes a run of slots of one chunkfile ([`slot_run`](super::slot_run)) as [`Self::absorb_blank`] takes copies: each is
    /// verified here, once; those for blank places are written as they came, in few large writes, the others absorbed.
    ///
    /// # Errors
    /// As [`Self::absorb`].
    pub fn absorb_run(
        &mut self,
        created: &ChunkfileCreated,
        slots: &Bytes,
    ) -> StoreResult<Absorbed> {
        self.check_fence()?;
        self.commit()?;
        self.ensure_chunkfile(created)?;
        let (of, mut at) = ((created.id, self.core.label.mount), 0);
        let (mut run, mut rest, mut taken) = (Run::default(), Vec::new(), 0);
        let mut absorbed = Absorbed::default();
        // By the seal of the file that is here, whatever the other side says.
        let here = self.core.chunks.find(created.id)?;
        let secret = if here { self.core.chunks.secret(created.id).ok() } else { None };
        let Some(secret) = secret else {
            absorbed.refused += 1;
            return Ok(absorbed);
        };
        while at < slots.len() {
            let (home, len) = match first_slot(&slots[at..], of, &secret) {
                Ok(found) => found,
                Err(BadSlot::Skip(len)) => {
                    absorbed.refused += 1;
                    at += len;
                    continue;
                }
                Err(BadSlot::Lost) => {
                    absorbed.refused += 1;
                    break;
                }
            };
            let slot = &slots[at..at + len];
            if self.refilling && self.is_blank_for(&home, len, &run) {
                if !run.takes(home.address) {
                    taken += self.write_run(std::mem::take(&mut run))?;
                }
                run.push(home, [slot, &[]]);
            } else {
                let (header, payload) = slot.split_at(home.payload_offset());
                let header = SmallVec::from_slice(header);
                let home = SlotImage { address: home.address, header };
                rest.push(SlotCopy { home, target: None, payload: slots.slice_ref(payload) });
            }
            at += len;
        }
        taken += self.write_run(run)?;
        if !rest.is_empty() {
            let refused = absorbed.refused;
            absorbed = self.absorb(&[], &rest)?;
            absorbed.refused += refused;
        }
        absorbed.taken += taken;
        Ok(absorbed)
    }

    /// The header of the copy as it is written, if its place lies behind all that the chunkfile holds, and behind `run`.
    fn for_a_blank_place(&mut self, copy: &SlotCopy, run: &Run<'_>) -> Option<SlotHeader> {
        let (home, _) = self.core.headers_of(&image_of(copy)).ok()?;
        let plain = copy.target.is_none() && matches!(home.body, Body::Inline | Body::None);
        if !plain || home.role != Role::Home || !is_whole(&home, copy) {
            return None;
        }
        let len = copy.home.header.len() + copy.payload.len();
        self.is_blank_for(&home, len, run).then_some(home)
    }

    /// Whether the place of a slot of `len` bytes lies behind all that the chunkfile holds, and behind `run`.
    fn is_blank_for(&self, home: &SlotHeader, len: usize, run: &Run<'_>) -> bool {
        let id = home.address.chunkfile();
        let Some(state) = self.core.chunks.states.get(&id) else { return false };
        let in_run = run.slots.last().filter(|last| last.address.chunkfile() == id);
        let behind = in_run.map_or(0, end_of).max(state.used_units);
        home.address.offset_units >= behind
            && end_of(home) <= state.size_units
            && len as u64 <= home.place().capacity()
    }

    /// Writes slots that follow each other; how many.
    fn write_run(&mut self, run: Run<'_>) -> StoreResult<u64> {
        let Some(begin) = run.begin else { return Ok(0) };
        let (id, offset) = (begin.chunkfile(), begin.offset());
        // "No space" changes nothing.
        self.core.chunks.reserve(id, offset, run.end - offset, false, ALLOCATE_STEP)?;
        self.unsynced_copies = true;
        let written = self.core.chunks.write(id, offset, &run.parts, false);
        written.inspect_err(|error| self.fence(error.to_string()))?;
        for home in &run.slots {
            self.core.note_used(home.place());
            self.core.count(Replaced::Nothing, home);
            self.core.note_tombstone(home);
        }
        Ok(run.slots.len() as u64)
    }
}

fn end_of(home: &SlotHeader) -> u32 {
    let needed = (home.payload_offset() as u64).div_ceil(UNIT);
    let units = home.capacity_units.max(u32::try_from(needed).unwrap_or(u32::MAX));
    home.address.offset_units.saturating_add(units)
}
