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
use crate::format::ids::{Address, UNIT};
use crate::format::record::{ChunkfileCreated, Edit, Replaced};
use crate::format::slot::{Body, Role, SlotHeader};

/// Bytes that are written at once, at most.
const RUN_MAX: u64 = 4 << 20;
/// Room to grow between two slots that is written with them, as zeros, at most.
const GAP_MAX: u64 = 64 << 10;

/// Slots that follow each other.
#[derive(Default)]
struct Run {
    begin: Option<Address>,
    bytes: Vec<u8>,
    slots: Vec<(Edit, SlotHeader)>,
}

impl Run {
    /// Whether a slot at `address` can be written together with those that are here.
    fn takes(&self, address: Address) -> bool {
        let Some(begin) = self.begin else { return true };
        let end = begin.offset() + self.bytes.len() as u64;
        address.chunkfile() == begin.chunkfile()
            && address.offset() >= end
            && address.offset() - end <= GAP_MAX
            && address.offset() - begin.offset() <= RUN_MAX
    }

    fn push(&mut self, edit: Edit, home: SlotHeader, payload: &[u8]) {
        let at = edit.home.address;
        let begin = *self.begin.get_or_insert(at);
        let offset = usize::try_from(at.offset() - begin.offset()).unwrap_or(usize::MAX);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(&edit.home.header);
        self.bytes.extend_from_slice(payload);
        self.slots.push((edit, home));
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
            let Some((edit, home)) = self.for_a_blank_place(copy, &run) else {
                rest.push(copy.clone());
                continue;
            };
            if !run.takes(home.address) {
                taken += self.write_run(std::mem::take(&mut run))?;
            }
            run.push(edit, home, &copy.payload);
        }
        taken += self.write_run(run)?;
        let mut absorbed = Absorbed::default();
        if !rest.is_empty() {
            absorbed = self.absorb(&[], &rest)?;
        }
        absorbed.taken += taken;
        Ok(absorbed)
    }

    /// The copy as it is written, if its place lies behind all that the chunkfile holds, and behind `run`.
    fn for_a_blank_place(&mut self, copy: &SlotCopy, run: &Run) -> Option<(Edit, SlotHeader)> {
        let edit = image_of(copy);
        let (home, _) = self.core.headers_of(&edit).ok()?;
        let plain = copy.target.is_none() && matches!(home.body, Body::Inline | Body::None);
        if !plain || home.role != Role::Home || !is_whole(&home, copy) {
            return None;
        }
        let id = home.address.chunkfile();
        let state = self.core.chunks.states.get(&id)?;
        let in_run = run.slots.last().filter(|(edit, _)| edit.home.address.chunkfile() == id);
        let behind = in_run.map_or(0, |(_, last)| end_of(last)).max(state.used_units);
        let fits = home.address.offset_units >= behind && end_of(&home) <= state.size_units;
        let room = (edit.home.header.len() + copy.payload.len()) as u64 <= home.place().capacity();
        (fits && room).then_some((edit, home))
    }

    /// Writes slots that follow each other; how many.
    fn write_run(&mut self, run: Run) -> StoreResult<u64> {
        let Some(begin) = run.begin else { return Ok(0) };
        let (id, offset, len) = (begin.chunkfile(), begin.offset(), run.bytes.len() as u64);
        // "No space" changes nothing.
        self.core.chunks.reserve(id, offset, len, false, ALLOCATE_STEP)?;
        self.unsynced_copies = true;
        let written = self.core.chunks.write(id, offset, &[&run.bytes], false);
        written.inspect_err(|error| self.fence(error.to_string()))?;
        for (edit, home) in &run.slots {
            self.core.note_edit_used(edit, home);
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
