//! The applied state of a mount: slots, singlefiles, free space and counters. Knows nothing of batches or of the log's
//! files; the log's records are applied to it, live (here, and [`runs`](super::runs) for new slots) or again
//! ([`replay`](super::replay)).
//!
//! Invariants: a record is applied only after it is durable in the log (R8); applying is idempotent; the content of a
//! moved object is written before the home header that names it.

use super::chunks::Chunks;
use super::disk::Disk;
use super::error::{StoreError, StoreResult};
use super::options::{MountOptions, Planted};
use super::space::Space;
use crate::format::checkpoint::{AnsweredToken, Counters, FreedPlace};
use crate::format::forgotten::Forgotten;
use crate::format::ids::{
    Address, ChunkNumber, ChunkfileId, Place, Position, Sequence, Tag, Token,
};
use crate::format::label::Label;
use crate::format::paths;
use crate::format::record::{Edit, Replaced, SlotImage};
use crate::format::slot::{Body, HEADER_LEN, SlotHeader, State};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

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
    /// Homes of which a replay applied a version again, and which one last: what stands there in the end is in use,
    /// whichever record had freed its place before, and what several records say (a copy of a slot, then its log) is
    /// counted once.
    pub replayed_homes: BTreeMap<Address, Tag>,
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
            replayed_homes: BTreeMap::new(),
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
    pub(super) fn account(&mut self, edit: &Edit, home: &SlotHeader, sequence: Sequence) {
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
