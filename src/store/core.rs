//! The applied state of a mount: slots, singlefiles, free space and counters. Knows nothing of batches or of the log's
//! files; the log's records are applied to it, live or in replay, by the same functions.
//!
//! Invariants: a record is applied only after it is durable in the log (R8); applying is idempotent; the content of a
//! moved object is written before the home header that names it.

use super::chunks::{ALLOCATE_STEP, Chunks};
use super::disk::Disk;
use super::error::{StoreError, StoreResult};
use super::options::{MountOptions, Planted};
use super::space::Space;
use super::tenants::{is_later_tenant, tenant_of};
use crate::cluster::version::{Decision, Winner, compare};
use crate::format::checkpoint::{AnsweredToken, Counters, FreedPlace};
use crate::format::forgotten::Forgotten;
use crate::format::ids::{ChunkNumber, ChunkfileId, Place, Position, Sequence, Token, UNIT};
use crate::format::label::Label;
use crate::format::log::RawRecord;
use crate::format::paths;
use crate::format::record::{ChunkfileCreated, Edit, Record, Replaced, SlotImage};
use crate::format::slot::{Body, HEADER_LEN, SlotHeader, State};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Longest slot header with its extra vector entries.
const HEADER_READ: usize = HEADER_LEN + 16 * 255;

/// Applied state of one mount.
pub struct Core<D: Disk> {
    /// The medium.
    pub disk: D,
    /// Settings.
    pub options: MountOptions,
    /// Who we are.
    pub label: Label,
    /// Chunkfiles.
    pub chunks: Chunks<D>,
    /// Free space below our current log id.
    pub space: Space,
    /// Freed places that are not below our current log id: never handed out again, only punched.
    pub frozen: Vec<FreedPlace>,
    /// Numbers.
    pub counters: Counters,
    /// Number for the next new chunkfile.
    pub next_chunk: ChunkNumber,
    /// Chunkfile of each lane.
    pub lanes: Vec<Option<ChunkfileId>>,
    /// Folders with names that no checkpoint has synced.
    pub dirty_folders: BTreeSet<String>,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// Whether the counters were made from the slots at this start.
    pub rebuilt: bool,
    /// Versions taken over as state that the replay of our own log found: no more than a checkpoint leaves behind.
    pub images: Vec<(Edit, Bytes)>,
    /// Contents that replayed edits gave up, with the homes of their objects: a later edit, of another log perhaps, may
    /// have brought one back, so they are looked at when all logs are replayed.
    pub freed_singles: Vec<(Position, Place)>,
    /// What of other logs the replay of our own showed to be covered.
    pub reached: Vec<Position>,
    /// Removals of members that the replay of our own log showed.
    pub forgotten: Vec<Forgotten>,
    /// Versions in the conflict archive when it was last counted.
    pub(super) archived: u64,
    /// The archive may have changed since.
    pub(super) archive_changed: bool,
}

impl<D: Disk> Core<D> {
    /// Nothing applied yet.
    pub fn new(disk: D, label: Label, options: MountOptions) -> Self {
        let chunks = Chunks::new(disk.clone(), label.mount, label.mount_uuid);
        Self {
            disk,
            lanes: vec![None; options.active_chunkfiles.max(1)],
            options,
            label,
            chunks,
            space: Space::default(),
            frozen: Vec::new(),
            counters: Counters::default(),
            next_chunk: 0,
            dirty_folders: BTreeSet::new(),
            warnings: Vec::new(),
            rebuilt: false,
            images: Vec::new(),
            freed_singles: Vec::new(),
            reached: Vec::new(),
            forgotten: Vec::new(),
            archived: 0,
            archive_changed: true,
        }
    }

    /// Whether we may allocate there.
    #[must_use]
    pub fn is_ours(&self, id: ChunkfileId) -> bool {
        id.machine == self.label.machine && id.log_id == self.label.log_id
    }

    /// Whether the log is one that this mount has had.
    #[must_use]
    pub fn knows_log(&self, position: Position) -> bool {
        let own = position.machine == self.label.machine && position.log_id == self.label.log_id;
        let below = ChunkfileId { machine: position.machine, log_id: position.log_id, chunk: 0 };
        own || self
            .chunks
            .states
            .range(below..)
            .next()
            .is_some_and(|(id, _)| id.machine == below.machine && id.log_id == below.log_id)
    }

    /// The header at an address, if there is a sealed one that belongs there.
    pub fn header_at(&mut self, place: Place) -> StoreResult<Option<SlotHeader>> {
        let id = place.address.chunkfile();
        if !self.chunks.states.contains_key(&id) {
            return Ok(None);
        }
        let secret = self.chunks.secret(id)?;
        let short = self.chunks.read(id, place.address.offset(), HEADER_LEN)?;
        let extra = short.get(9).map_or(0, |n| usize::from(*n) * 16);
        let bytes = if extra == 0 {
            short
        } else {
            self.chunks.read(id, place.address.offset(), (HEADER_LEN + extra).min(HEADER_READ))?
        };
        let header = SlotHeader::decode(&bytes, &secret).ok();
        Ok(header.filter(|h| h.address == place.address && h.mount == self.label.mount))
    }

    /// Header and verified payload at an address.
    pub fn slot_at(&mut self, place: Place) -> StoreResult<Option<(SlotHeader, Vec<u8>)>> {
        let Some(header) = self.header_at(place)? else { return Ok(None) };
        let Ok(length) = usize::try_from(header.length) else { return Ok(None) };
        let len = header.payload_offset() + length;
        let bytes = self.chunks.read(place.address.chunkfile(), place.address.offset(), len)?;
        Ok(header.payload(&bytes).map(|p| p.to_vec()).map(|payload| (header, payload)))
    }

    /// Whether the content that a home header names is in its slot, such that a reader takes it. True where it is in
    /// none.
    pub fn has_slot_content(&mut self, home: &SlotHeader) -> StoreResult<bool> {
        let place = match home.body {
            Body::Inline => home.place(),
            Body::Slot(address) => Place { address, capacity_units: 0 },
            Body::Single(_) | Body::None => return Ok(true),
        };
        let found = self.slot_at(place)?;
        Ok(found.is_some_and(|(there, _)| {
            there.cookie == home.cookie
                && there.payload_crc == home.payload_crc
                // A delete leaves its target as it was; whoever answers names the version of its home. The same bytes
                // under an older version are there when the target's later header was lost with the power.
                && (home.state != State::Live || there.version.tag == home.version.tag)
        }))
    }

    pub(super) fn write_slot(&mut self, image: &SlotImage, payload: &[u8]) -> StoreResult<()> {
        let short_is_fine = self.options.planted(Planted::IgnoreShortWrite);
        let parts: [&[u8]; 2] = [&image.header, payload];
        let parts = if payload.is_empty() { &parts[..1] } else { &parts[..] };
        let address = image.address;
        self.chunks.write(address.chunkfile(), address.offset(), parts, short_is_fine)
    }

    /// Applies a record that is durable in the log and was never applied before.
    pub fn apply(
        &mut self,
        edit: &Edit,
        home: &SlotHeader,
        payload: &[u8],
        sequence: Sequence,
    ) -> StoreResult<()> {
        if edit.rename_single
            && let Body::Single(content) = home.body
        {
            self.place_single(content)?;
        }
        match &edit.target {
            Some(target) => {
                self.write_slot(target, payload)?;
                self.write_slot(&edit.home, &[])?;
            }
            None => self.write_slot(&edit.home, payload)?,
        }
        self.account(edit, home, sequence);
        self.remove_single(edit)
    }

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
                return Ok(None);
            }
        };
        if !self.options.planted(Planted::SkipReplayWrites) {
            self.replay_slots(edit, &home, target.as_ref(), raw)?;
        }
        self.account(edit, &home, raw.sequence);
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

    /// Renames a singlefile into place. Its content is durable, and its temporary name too.
    pub(super) fn place_single(&mut self, content: Position) -> StoreResult<()> {
        let (tmp, path) = (paths::single_tmp(content), paths::single(content));
        let folder = paths::folder(&path);
        let io = |what: &str| StoreError::io(format!("{what} {path}"));
        self.disk.create_dir_all(folder).map_err(io("create the folder of"))?;
        self.disk.rename(&tmp, &path).map_err(io("rename into place"))?;
        if !self.options.planted(Planted::SkipDirectorySync) {
            self.disk.sync_dir(folder).map_err(io("make durable the name of"))?;
        }
        Ok(())
    }

    fn remove_single(&mut self, edit: &Edit) -> StoreResult<()> {
        match edit.freed_single {
            Some(content) => self.unlink_single(content),
            None => Ok(()),
        }
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

    /// A content that no version uses any more.
    pub(super) fn unlink_single(&mut self, content: Position) -> StoreResult<()> {
        let path = paths::single(content);
        match self.disk.unlink(&path) {
            Ok(()) => {
                self.dirty_folders.insert(paths::folder(&path).to_owned());
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(StoreError::io(format!("remove {path}"))(e)),
        }
    }

    /// Free space, counters and tombstones after an edit.
    fn account(&mut self, edit: &Edit, home: &SlotHeader, sequence: Sequence) {
        self.note_edit_used(edit, home);
        self.free(&edit.freed, sequence);
        self.count(edit.replaced, home);
        self.note_tombstone(home);
    }

    /// Home and target of an edit are in use.
    pub(super) fn note_edit_used(&mut self, edit: &Edit, home: &SlotHeader) {
        self.note_used(home.place());
        if let (Some(target), Body::Slot(address)) = (&edit.target, home.body) {
            let units = self.target_units(target).unwrap_or(0);
            self.note_used(Place { address, capacity_units: units });
        }
    }

    /// Places that no version uses any more begin their waits. Those of other machines are theirs to free.
    pub(super) fn free(&mut self, places: &[Place], sequence: Sequence) {
        for place in places {
            let freed = FreedPlace { place: *place, superseded_by: sequence };
            if self.is_ours(place.address.chunkfile()) {
                self.space.wait(freed);
            } else if place.address.machine == self.label.machine {
                self.frozen.push(freed);
            }
        }
    }

    pub(super) fn note_tombstone(&mut self, home: &SlotHeader) {
        if home.state == State::Deleted
            && let Some(state) = self.chunks.states.get_mut(&home.address.chunkfile())
        {
            state.oldest_tombstone_ms = state.oldest_tombstone_ms.min(home.modified_ms);
        }
    }

    fn target_units(&mut self, target: &SlotImage) -> Option<u32> {
        let secret = self.chunks.secret(target.address.chunkfile()).ok()?;
        SlotHeader::decode(&target.header, &secret).ok().map(|h| h.capacity_units)
    }

    /// A place is in use: neither hole nor waiting nor fresh space.
    pub(super) fn note_used(&mut self, place: Place) {
        let id = place.address.chunkfile();
        let (from, units) = (place.address.offset_units, place.capacity_units);
        if !self.is_ours(id) {
            // Who allocates there keeps the accounts; here it is only known how far the file is filled.
            if let Some(state) = self.chunks.states.get_mut(&id) {
                state.used_units = state.used_units.max(from.saturating_add(units));
            }
            return;
        }
        self.space.carve(id.chunk, from, units);
        if let Some(state) = self.chunks.states.get_mut(&id)
            && from + units > state.used_units
        {
            let gap = from.saturating_sub(state.used_units);
            let gap_at = state.used_units;
            state.used_units = from + units;
            self.space.give(id.chunk, gap_at, gap);
        }
    }

    pub(super) fn count(&mut self, replaced: Replaced, home: &SlotHeader) {
        let c = &mut self.counters;
        match replaced {
            Replaced::Nothing | Replaced::Purged => {}
            Replaced::Live(length) => {
                c.live_objects = c.live_objects.saturating_sub(1);
                c.live_bytes = c.live_bytes.saturating_sub(length);
            }
            Replaced::Deleted(length) => {
                c.deleted_objects = c.deleted_objects.saturating_sub(1);
                c.deleted_bytes = c.deleted_bytes.saturating_sub(length);
            }
        }
        match home.state {
            State::Live => {
                c.live_objects += 1;
                c.live_bytes += home.length;
            }
            State::Deleted => {
                c.deleted_objects += 1;
                c.deleted_bytes += home.length;
            }
            State::Purged => {}
        }
    }

    /// Takes over the slots at the frontier of a chunkfile that are ahead of the log, which ends with `last`. Returns
    /// how many.
    pub fn adopt_frontier(&mut self, id: ChunkfileId, last: Sequence) -> StoreResult<u32> {
        let mut adopted = 0;
        while let Some(state) = self.chunks.states.get(&id).copied() {
            let mut address = crate::format::ids::Address {
                machine: id.machine,
                log_id: id.log_id,
                chunk: id.chunk,
                offset_units: state.used_units,
            };
            address.offset_units = state.used_units;
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

/// The answer that an edit gave, for the table of R2.
#[must_use]
pub fn answer_of(edit: &Edit, home: &SlotHeader) -> Option<AnsweredToken> {
    let token = Token {
        client: home.token_client,
        sequence: home.token_sequence,
        lowest_unanswered: edit.token_lowest,
        issued_ms: edit.token_issued_ms,
    };
    token.is_some().then(|| AnsweredToken {
        token,
        object: home.object_id(),
        tag: home.version.tag,
    })
}
