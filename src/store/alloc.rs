//! Where new content goes: a hole first (best fit), then fresh space of an active chunkfile, then a new chunkfile.

use super::disk::Disk;
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use super::options::Planted;
use crate::format::chunkfile::FIRST_SLOT_UNITS;
use crate::format::ids::{Address, ChunkfileId, Place, UNIT};
use crate::format::paths;
use crate::format::record::{ChunkfileCreated, Record};
use bytes::Bytes;

impl<D: Disk> Mount<D> {
    /// Refuses an insert before it eats the reserve.
    pub(super) fn admit(&mut self, needed: u64) -> StoreResult<()> {
        self.check_fence()?;
        if self.pending.is_empty() {
            // What was seen before the last refusal says nothing: writing resumes by itself when space returns.
            self.free_seen = None;
        }
        let space = self.disk_space()?;
        if space.free < self.core.options.reserve_free.saturating_add(needed) {
            return Err(self.no_space(needed));
        }
        // What this batch takes is not in the file system's figure yet.
        self.free_seen = Some(super::disk::Space { free: space.free - needed, ..space });
        Ok(())
    }

    /// A place of at least `units`, with its blocks reserved.
    pub(super) fn allocate(&mut self, wanted: u32, lane: usize) -> StoreResult<Place> {
        if let Some((chunk, offset_units, capacity_units)) = self.core.space.take(wanted) {
            let place = self.place_in(chunk, offset_units, capacity_units);
            return self.reserve_blocks(place, true);
        }
        let lane = lane % self.core.lanes.len();
        let id = self.lane_with_room(lane, wanted)?;
        let Some(state) = self.core.chunks.states.get_mut(&id) else {
            return Err(StoreError::Damaged(format!("chunkfile {id:?} is not in the table")));
        };
        let offset_units = state.used_units;
        state.used_units += wanted;
        let place = self.place_in(id.chunk, offset_units, wanted);
        self.reserve_blocks(place, false)
    }

    fn place_in(&self, chunk: u32, offset_units: u32, capacity_units: u32) -> Place {
        let (machine, log_id) = (self.core.label.machine, self.core.label.log_id);
        Place { address: Address { machine, log_id, chunk, offset_units }, capacity_units }
    }

    fn reserve_blocks(&mut self, place: Place, hole: bool) -> StoreResult<Place> {
        let id = place.address.chunkfile();
        // Opens the file, so that its secret is known when the header is sealed.
        // What is reserved ahead of its use must not eat what is kept from inserts.
        let kept = self.core.options.reserve_free;
        let kept = kept.saturating_add(place.capacity());
        let ahead = self.disk_space().map_or(0, |space| space.free.saturating_sub(kept));
        let reserved = self.core.chunks.secret(id).and_then(|_| {
            self.core.chunks.reserve(id, place.address.offset(), place.capacity(), hole, ahead)
        });
        match reserved {
            Ok(()) => Ok(place),
            Err(error) => {
                self.core.space.give(id.chunk, place.address.offset_units, place.capacity_units);
                match error {
                    StoreError::Io { error, .. }
                        if error.kind() == std::io::ErrorKind::StorageFull =>
                    {
                        Err(self.no_space(place.capacity()))
                    }
                    other => Err(other),
                }
            }
        }
    }

    /// The lane's chunkfile if it has room; else the next one, and what is left of the old one becomes a hole.
    fn lane_with_room(&mut self, lane: usize, wanted: u32) -> StoreResult<ChunkfileId> {
        if let Some(id) = self.core.lanes[lane]
            && let Some(state) = self.core.chunks.states.get_mut(&id)
        {
            if state.size_units - state.used_units >= wanted {
                return Ok(id);
            }
            let (from, rest) = (state.used_units, state.size_units - state.used_units);
            state.used_units = state.size_units;
            self.core.space.give(id.chunk, from, rest);
            self.core.lanes[lane] = None;
        }
        let id = self.new_chunkfile(wanted)?;
        self.core.lanes[lane] = Some(id);
        Ok(id)
    }

    fn new_chunkfile(&mut self, wanted: u32) -> StoreResult<ChunkfileId> {
        /// Bytes of its record, at most.
        const RECORD: usize = 256;
        self.reserve_log(RECORD)?;
        let needed = wanted.saturating_add(FIRST_SLOT_UNITS);
        let size = u32::try_from(self.core.options.chunkfile_size / UNIT).unwrap_or(u32::MAX);
        let id = ChunkfileId {
            machine: self.core.label.machine,
            log_id: self.core.label.log_id,
            chunk: self.core.next_chunk,
        };
        let created = ChunkfileCreated {
            id,
            size_units: size.max(needed),
            created_ms: self.clock.now_ms(),
            secret: self.random_secret(),
        };
        let sync_names = !self.core.options.planted(Planted::SkipDirectorySync);
        if let Err(error) = self.core.chunks.create(&created, sync_names) {
            if error.kind() == std::io::ErrorKind::StorageFull {
                return Err(self.no_space(u64::from(needed) * UNIT));
            }
            let error = StoreError::io(format!("create {}", paths::chunk(id)))(error);
            self.fence(error.to_string());
            return Err(error);
        }
        self.core.next_chunk += 1;
        let sequence = self.take_sequence();
        self.push_record(&Record::Chunkfile(created), sequence, Bytes::new(), 0);
        Ok(id)
    }
}
