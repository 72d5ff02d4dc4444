//! Applying records again that are durable in the log: at a start, after a kill or a power cut.
//!
//! Invariants: what is not there yet is written whole (R8), and never over a later tenant of the place; what a record of one
//! chunkfile cannot do keeps the mount from nothing else (P6): it is a warning.

use super::chunks::ALLOCATE_STEP;
use super::core::{Core, answer_of};
use super::disk::Disk;
use super::error::{StoreError, StoreResult};
use super::options::Planted;
use super::tenants::{is_later_tenant, tenant_of};
use crate::cluster::version::{Decision, Winner, compare};
use crate::format::checkpoint::AnsweredToken;
use crate::format::ids::{Address, ChunkfileId, Place, Sequence, UNIT};
use crate::format::log::RawRecord;
use crate::format::paths;
use crate::format::record::{ChunkfileCreated, Edit, Record, SlotImage};
use crate::format::slot::{Body, SlotHeader};
use bytes::Bytes;

impl<D: Disk> Core<D> {
    /// Applies a record again: writes what is not there yet, whole (R8), and never over a later tenant.
    pub fn replay(&mut self, raw: &RawRecord<'_>) -> StoreResult<Option<AnsweredToken>> {
        match Record::decode(raw.kind, raw.head) {
            Ok(Some(Record::Edit(edit))) => self.replay_edit(&edit, raw),
            Ok(Some(Record::Image(edit))) => {
                // It may have met a conflict, whose loser has to be kept first: the mount applies it.
                self.images.push((edit, Bytes::copy_from_slice(raw.payload)));
                Ok(None)
            }
            Ok(Some(Record::Chunkfile(created))) => {
                self.replay_chunkfile(&created)?;
                Ok(None)
            }
            Ok(Some(Record::Settled(settled))) => {
                self.free(&settled.freed, raw.sequence);
                Ok(None)
            }
            Ok(Some(Record::Reached(positions))) => {
                self.reached.extend(positions);
                Ok(None)
            }
            Ok(Some(Record::Forgotten(forgotten))) => {
                self.forgotten.push(forgotten);
                Ok(None)
            }
            // The file of the one was durable before the record; the other only says that there is a log.
            Ok(Some(Record::Archived(_) | Record::Begun(_))) => Ok(None),
            Ok(Some(Record::Dropped(dropped))) => {
                self.drop_archived(&dropped)?;
                Ok(None)
            }
            Ok(None) => {
                let kind = raw.kind;
                self.warnings
                    .push(format!("log record {:x} has the unknown kind {kind}", raw.sequence));
                Ok(None)
            }
            Err(_) => {
                self.warnings.push(format!("log record {:x} cannot be read", raw.sequence));
                Ok(None)
            }
        }
    }

    pub(super) fn replay_chunkfile(&mut self, created: &ChunkfileCreated) -> StoreResult<()> {
        if created.id.log_id == self.label.log_id && created.id.machine == self.label.machine {
            self.next_chunk = self.next_chunk.max(created.id.chunk + 1);
        }
        self.chunks.know(created);
        if self.chunks.secret(created.id).is_ok_and(|secret| secret == created.secret) {
            return Ok(());
        }
        // Its header never became durable: everything in it is still in the log.
        self.chunks.states.remove(&created.id);
        let path = paths::chunk(created.id);
        self.chunks.create(created, true).map_err(StoreError::io(format!("create {path}")))
    }

    fn replay_edit(
        &mut self,
        edit: &Edit,
        raw: &RawRecord<'_>,
    ) -> StoreResult<Option<AnsweredToken>> {
        let (home, target) = match self.headers_of(edit) {
            Ok(headers) => headers,
            Err(why) => {
                self.warnings.push(format!("log record {:x} is not applied: {why}", raw.sequence));
                return Ok(self.keep_unapplied(edit).and_then(|home| answer_of(edit, &home)));
            }
        };
        if !self.options.planted(Planted::SkipReplayWrites) {
            self.replay_slots(edit, &home, target.as_ref(), raw)?;
        }
        self.account(edit, &home, raw.sequence);
        self.replayed_homes.insert(edit.home.address, home.version.tag);
        if let Some(content) = edit.freed_single {
            self.freed_singles.push((content, home.place()));
        }
        Ok(answer_of(edit, &home))
    }

    /// The headers that a record carries. One chunkfile that cannot be read must not keep the mount from serving the
    /// others (P6): why not is for people.
    pub(super) fn headers_of(
        &mut self,
        edit: &Edit,
    ) -> Result<(SlotHeader, Option<SlotHeader>), String> {
        let home = self.header_of(&edit.home)?;
        let target = match &edit.target {
            Some(image) => Some(self.header_of(image)?),
            None => None,
        };
        Ok((home, target))
    }

    /// A record cannot be applied because the header of a chunkfile is damaged. When that is mended, what the record made lies
    /// there: its places are in use. Its home.
    pub(super) fn keep_unapplied(&mut self, edit: &Edit) -> Option<SlotHeader> {
        let mut read = |image: &SlotImage| {
            let unknown = self.chunks.secret(image.address.chunkfile()).is_err();
            let header = SlotHeader::decode_unsealed(&image.header)
                .filter(|header| unknown && header.address == image.address)?;
            self.note_used(header.place());
            Some(header)
        };
        edit.target.as_ref().map(&mut read);
        read(&edit.home)
    }

    fn header_of(&mut self, image: &SlotImage) -> Result<SlotHeader, String> {
        let chunkfile = image.address.chunkfile();
        if !self.chunks.find(chunkfile).map_err(|error| error.to_string())? {
            return Err("it is for a chunkfile that is gone".to_owned());
        }
        let secret = self.chunks.secret(chunkfile).map_err(|error| error.to_string())?;
        let header = SlotHeader::decode(&image.header, &secret);
        let header = header.map_err(|_| "it carries a header of another chunkfile".to_owned())?;
        if header.address != image.address || header.mount != self.label.mount {
            return Err("it carries a header of another place".to_owned());
        }
        Ok(header)
    }

    fn replay_slots(
        &mut self,
        edit: &Edit,
        home: &SlotHeader,
        target_header: Option<&SlotHeader>,
        raw: &RawRecord<'_>,
    ) -> StoreResult<()> {
        if edit.rename_single
            && let Body::Single(content) = home.body
        {
            let (tmp, path) = (paths::single_tmp(content), paths::single(content));
            if self.disk.stat(&tmp).map_err(StoreError::io(format!("stat {tmp}")))?.is_some() {
                self.place_single(content)?;
            } else if self.disk.stat(&path).map_err(StoreError::io("stat singlefile"))?.is_some() {
                // Renamed by a process that was killed, perhaps before it made that durable.
                self.dirty_folders.insert(paths::folder(&path).to_owned());
            } else {
                // A later record of the log frees it, or it is lost: reading the object tells.
                tracing::debug!(%path, "singlefile of a log record is gone");
            }
        }
        if let (Some(target), Some(header)) = (&edit.target, target_header)
            && edit.has_payload
            && self.needs_writing(target, header, raw)?
        {
            self.ensure_allocated(target, raw.payload.len())?;
            self.write_slot(target, raw.payload)?;
        }
        if self.needs_writing(&edit.home, home, raw)? {
            let inline: &[u8] = if edit.target.is_none() { raw.payload } else { &[] };
            self.ensure_allocated(&edit.home, inline.len())?;
            self.write_slot(&edit.home, inline)?;
        }
        Ok(())
    }

    /// The file's length may not have survived a power cut.
    pub(super) fn ensure_allocated(
        &mut self,
        image: &SlotImage,
        payload: usize,
    ) -> StoreResult<()> {
        let len = (image.header.len() + payload) as u64;
        let (id, offset) = (image.address.chunkfile(), image.address.offset());
        self.chunks.reserve(id, offset, len, false, ALLOCATE_STEP)
    }

    /// Whether a slot must be written again: not if it holds this version, or one that stands against it, with header
    /// *and* payload. A later header over a payload that did not land is not enough: the later record may have
    /// carried no payload (a delete), so ours is written again and the later record follows.
    fn needs_writing(
        &mut self,
        image: &SlotImage,
        header: &SlotHeader,
        raw: &RawRecord<'_>,
    ) -> StoreResult<bool> {
        let place = Place { address: image.address, capacity_units: 0 };
        // What is there may be there for us only: written by a process that was killed, and never synced.
        let len = (image.header.len() + raw.payload.len()) as u64;
        self.chunks.note_dirty(image.address.chunkfile(), image.address.offset(), len);
        let Some(there) = self.header_at(place)? else { return Ok(true) };
        if is_later_tenant(&there, header) {
            return Ok(false);
        }
        if tenant_of(&there) != tenant_of(header) {
            return Ok(true);
        }
        match compare(&there.version, &header.version) {
            Decision::Apply | Decision::Conflict { winner: Winner::Incoming } => return Ok(true),
            Decision::Conflict { winner: Winner::Local } => return Ok(false),
            Decision::Ignore => {}
        }
        let same = there.version.tag == header.version.tag;
        let bodiless = same && raw.payload.is_empty();
        if there.body != Body::Inline
            || bodiless
            || self.options.planted(Planted::SkipPayloadCheckInReplay)
        {
            return Ok(false);
        }
        Ok(self.slot_at(place)?.is_none())
    }

    /// Removes the contents that replayed edits gave up, but for those that are in use again.
    pub(super) fn remove_freed_singles(&mut self) -> StoreResult<()> {
        for (content, home) in std::mem::take(&mut self.freed_singles) {
            let used = self.header_at(home)?.is_some_and(|h| h.body == Body::Single(content));
            if !used {
                self.unlink_single(content)?;
            }
        }
        Ok(())
    }

    /// Takes over the slots at the frontier of a chunkfile that are ahead of the log, which ends with `last`. Returns
    /// how many.
    pub fn adopt_frontier(&mut self, id: ChunkfileId, last: Sequence) -> StoreResult<u32> {
        let mut adopted = 0;
        while let Some(state) = self.chunks.states.get(&id).copied() {
            let ChunkfileId { machine, log_id, chunk } = id;
            let address = Address { machine, log_id, chunk, offset_units: state.used_units };
            let place = Place { address, capacity_units: 0 };
            let Some(header) = self.header_at(place)? else { break };
            let edited = header.edited_at();
            let ours = edited.machine == self.label.machine && edited.log_id == self.label.log_id;
            if ours && edited.sequence <= last {
                // The log knows of it, and that nobody uses the place: left behind by a former tenant.
                break;
            }
            let end = state.used_units.saturating_add(header.capacity_units.max(1));
            if u64::from(end) * UNIT > u64::from(state.size_units) * UNIT {
                break;
            }
            if let Some(state) = self.chunks.states.get_mut(&id) {
                state.used_units = end;
            }
            adopted += 1;
        }
        Ok(adopted)
    }
}
