//! Who holds a place on this disk: what a record would overwrite is looked at before it is written (R11, R12, P5).
//!
//! Invariants
//! - Slots tell since when they hold their place, in the log below which it lies; so any two tenants of a place can be
//!   compared, whichever logs brought them here and in whatever order.
//! - A record for a former tenant is dropped whole: its object has a later version, in another place or in less room,
//!   and that version is on this disk or in a log that is still to be applied.

use super::core::Core;
use super::disk::Disk;
use super::error::StoreResult;
use crate::cluster::tenancy::{Claim, Tenant, claim};
use crate::format::ids::UNIT;
use crate::format::record::{Edit, SlotImage};
use crate::format::slot::{Body, HEADER_LEN, MAGIC_BYTES, SlotHeader};

/// Who stands in a slot. `None`: an early version wrote it, and did not say since when.
#[must_use]
pub fn tenant_of(header: &SlotHeader) -> Option<Tenant> {
    let since = header.held_since()?;
    Some(Tenant { since, creation: header.creation, cookie: header.cookie })
}

/// Whether what stands at an address came there after the slot of `header`, so that it stays.
#[must_use]
pub fn is_later_tenant(there: &SlotHeader, header: &SlotHeader) -> bool {
    match (tenant_of(there), tenant_of(header)) {
        (Some(there), Some(header)) => claim(Some(&there), &header) == Claim::Older,
        // Nothing is known of an early target: what comes is written, and what came later follows.
        (None, _) | (_, None) => false,
    }
}

impl<D: Disk> Core<D> {
    /// Whether an edit is for a place that somebody else has had since: all of it is dropped then.
    ///
    /// `trusted`: the slots here are as they were written, so who keeps within the room that his header names
    /// overwrites nobody. After a restart a header may be older than what was written behind it.
    pub(super) fn is_for_former_tenant(
        &mut self,
        edit: &Edit,
        home: &SlotHeader,
        payload: usize,
        trusted: bool,
    ) -> StoreResult<bool> {
        let inline = if edit.target.is_none() && home.body == Body::Inline { payload } else { 0 };
        if self.is_former(home, inline, trusted)? {
            return Ok(true);
        }
        let Some(image) = edit.target.as_ref().filter(|_| edit.has_payload) else {
            return Ok(false);
        };
        match self.target_of(image)? {
            Some(target) => self.is_former(&target, payload, trusted),
            None => Ok(false),
        }
    }

    fn is_former(&mut self, slot: &SlotHeader, payload: usize, trusted: bool) -> StoreResult<bool> {
        let there = self.header_at(slot.place())?;
        if there.as_ref().is_some_and(|there| is_later_tenant(there, slot)) {
            return Ok(true);
        }
        let len = (slot.payload_offset() + payload) as u64;
        let fits = |there: &SlotHeader| {
            tenant_of(there) == tenant_of(slot) && len <= there.place().capacity()
        };
        if trusted && there.as_ref().is_some_and(fits) {
            return Ok(false);
        }
        self.is_handed_on(slot, payload)
    }

    fn target_of(&mut self, image: &SlotImage) -> StoreResult<Option<SlotHeader>> {
        let secret = self.chunks.secret(image.address.chunkfile())?;
        Ok(SlotHeader::decode(&image.header, &secret).ok())
    }

    /// Whether a part of what a slot with a payload of `payload` bytes would take begins a slot that came later: its
    /// tenant has had less room since, and the rest was handed out.
    fn is_handed_on(&mut self, header: &SlotHeader, payload: usize) -> StoreResult<bool> {
        let id = header.address.chunkfile();
        let (Some(since), Some(state)) = (header.held_since(), self.chunks.states.get(&id)) else {
            return Ok(false);
        };
        let first = header.address.offset_units.saturating_add(1);
        let len = header.payload_offset() + payload;
        if first >= state.used_units || len <= HEADER_LEN {
            return Ok(false);
        }
        let secret = self.chunks.secret(id)?;
        let from = header.address.offset() + UNIT;
        // With the header that begins in the last unit.
        let bytes = self.chunks.read(id, from, len + HEADER_LEN + 16 * 255)?;
        let units = len.div_ceil(UNIT as usize).saturating_sub(1);
        for (unit, at) in (0..units).zip(first..) {
            let Some(slot) = bytes.get(unit * UNIT as usize..) else { break };
            if !slot.starts_with(&MAGIC_BYTES) {
                continue;
            }
            let Ok(inner) = SlotHeader::decode(slot, &secret) else { continue };
            let here = inner.address.chunkfile() == id && inner.address.offset_units == at;
            if here && inner.held_since().is_some_and(|began| began > since) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
