//! Work between batches, in slices: purging tombstones whose window is over, giving blocks of holes back,
//! preparing the next log segment.

use super::disk::Disk;
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use crate::cluster::members::owner;
use crate::format::chunkfile::FIRST_SLOT_UNITS;
use crate::format::ids::{Address, ChunkfileId, MachineId, UNIT};
use crate::format::slot::{HEADER_LEN, MAGIC_BYTES, Role, SlotHeader, State};
use std::collections::BTreeSet;

/// Holes punched in one slice.
const PUNCHES: usize = 16;
/// Bytes of a chunkfile that one slice of the sweep looks at.
const SWEEP_WINDOW: usize = 1 << 20;

/// The search for tombstones in one chunkfile.
#[derive(Debug, Default)]
pub struct Sweep {
    running: Option<Running>,
    /// Tombstones that were purged before their time, for lack of space.
    pub purged_early: u64,
}

#[derive(Debug)]
struct Running {
    id: ChunkfileId,
    next_units: u32,
    /// Tombstones made at or before this are purged.
    due_ms: u64,
    /// The oldest one that stays.
    oldest_left_ms: u64,
}

impl Sweep {
    /// The chunkfile that is being looked at.
    #[must_use]
    pub fn chunkfile(&self) -> Option<ChunkfileId> {
        self.running.as_ref().map(|running| running.id)
    }
}

impl<D: Disk> Mount<D> {
    /// One slice. True if there is more to do now.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn maintain(&mut self) -> StoreResult<bool> {
        self.check_fence()?;
        let more = self.punch_some()?;
        let more = self.sweep_some()? || more;
        let more = self.prepare_log()? || more;
        Ok(more)
    }

    fn prepare_log(&mut self) -> StoreResult<bool> {
        match self.log.prepare(self.recyclable()) {
            Ok(more) => Ok(more),
            // A full disk: the present segment and recycled ones have to do.
            Err(StoreError::Io { error, .. })
                if error.kind() == std::io::ErrorKind::StorageFull =>
            {
                self.log.drop_spare();
                Ok(false)
            }
            Err(error) => {
                self.fence(error.to_string());
                Err(error)
            }
        }
    }

    fn punch_some(&mut self) -> StoreResult<bool> {
        for _ in 0..PUNCHES {
            let Some((chunk, offset, units)) = self.core.space.next_to_punch() else {
                return self.punch_frozen();
            };
            let (machine, log_id) = (self.core.label.machine, self.core.label.log_id);
            let id = ChunkfileId { machine, log_id, chunk };
            self.punch(id, offset, units)?;
        }
        Ok(true)
    }

    /// Places below older log ids are never handed out again: their blocks go back once R12 allows it.
    fn punch_frozen(&mut self) -> StoreResult<bool> {
        if !self.rounds.is_empty() || self.core.frozen.is_empty() {
            return Ok(false);
        }
        for freed in std::mem::take(&mut self.core.frozen) {
            let at = freed.place.address;
            self.punch(at.chunkfile(), at.offset_units, freed.place.capacity_units)?;
        }
        Ok(false)
    }

    fn punch(&mut self, id: ChunkfileId, offset: u32, units: u32) -> StoreResult<()> {
        let (offset, len) = (u64::from(offset) * UNIT, u64::from(units) * UNIT);
        match self.core.chunks.punch(id, offset, len) {
            Ok(()) => Ok(()),
            Err(error) => {
                // Only space is lost by this; writes will tell whether the disk is.
                tracing::warn!(%error, "cannot give blocks back");
                Ok(())
            }
        }
    }

    /// Looks for tombstones whose window is over, one window of one chunkfile at a time. Memory is per chunkfile: the
    /// table remembers the oldest tombstone of each.
    fn sweep_some(&mut self) -> StoreResult<bool> {
        if self.sweep.running.is_none() && !self.begin_sweep() {
            return Ok(false);
        }
        let Some(mut running) = self.sweep.running.take() else { return Ok(false) };
        let done = self.sweep_window(&mut running)?;
        if done {
            if let Some(state) = self.core.chunks.states.get_mut(&running.id) {
                state.oldest_tombstone_ms = state.oldest_tombstone_ms.min(running.oldest_left_ms);
            }
        } else {
            self.sweep.running = Some(running);
        }
        Ok(true)
    }

    fn begin_sweep(&mut self) -> bool {
        let window = self.core.options.undelete_window_ms;
        let now_ms = self.clock.now_ms();
        let states = self.core.chunks.states.values();
        // Only the owner purges; what a removed member made has another one.
        let own = self.core.label.machine;
        let members = self.core.label.members.iter().map(|member| member.machine);
        let members: BTreeSet<MachineId> = members.collect();
        let gone = |machine| self.forgotten.iter().any(|gone| gone.machine == machine);
        let ours = |machine| machine == own || gone(machine) && owner(machine, &members) == own;
        let Some(oldest) = states
            .filter(|s| s.oldest_tombstone_ms != u64::MAX && ours(s.id.machine))
            .min_by_key(|s| s.oldest_tombstone_ms)
        else {
            return false;
        };
        let (id, oldest_ms) = (oldest.id, oldest.oldest_tombstone_ms);
        let short =
            self.disk_space().is_ok_and(|space| space.free < self.core.options.reserve_free);
        let due_ms = if short {
            self.sweep.purged_early += 1;
            tracing::warn!(
                mount = self.core.label.mount,
                "disk is full: oldest tombstones go early"
            );
            now_ms
        } else {
            now_ms.saturating_sub(window)
        };
        if oldest_ms > due_ms {
            return false;
        }
        let next_units = FIRST_SLOT_UNITS;
        // A tombstone made while we look is noted in the table by its edit; ours is joined with it at the end.
        if let Some(state) = self.core.chunks.states.get_mut(&id) {
            state.oldest_tombstone_ms = u64::MAX;
        }
        self.sweep.running = Some(Running { id, next_units, due_ms, oldest_left_ms: u64::MAX });
        true
    }

    fn sweep_window(&mut self, running: &mut Running) -> StoreResult<bool> {
        let id = running.id;
        let Some(used) = self.core.chunks.states.get(&id).map(|s| s.used_units) else {
            return Ok(true);
        };
        let from = running.next_units;
        let bytes = self.core.chunks.read(id, u64::from(from) * UNIT, SWEEP_WINDOW)?;
        let secret = self.core.chunks.secret(id)?;
        let window_units = u32::try_from(bytes.len() as u64 / UNIT).unwrap_or(0);
        let mut due = Vec::new();
        let mut at = from;
        while at < used && at < from + window_units {
            let begin = (at - from) as usize * UNIT as usize;
            let slot = &bytes[begin..];
            if slot.len() < HEADER_LEN && at > from {
                break;
            }
            let step = match slot.get(..4) {
                Some(magic) if magic == MAGIC_BYTES => match SlotHeader::decode(slot, &secret) {
                    Ok(header) if header.address == address(id, at) => {
                        note(&header, running, &mut due);
                        if header.is_in_use() { header.capacity_units.max(1) } else { 1 }
                    }
                    Ok(_) | Err(_) => 1,
                },
                Some(_) | None => 1,
            };
            at = at.saturating_add(step);
        }
        running.next_units = at;
        for header in due {
            self.purge_found(&header)?;
        }
        Ok(at >= used || window_units == 0)
    }

    fn purge_found(&mut self, header: &SlotHeader) -> StoreResult<()> {
        match self.stage_purge(&header.object_id()) {
            Ok(_) => Ok(()),
            // Undeleted, or purged, in this very batch.
            Err(StoreError::NotDeleted(_) | StoreError::NotFound { .. }) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "cannot purge a tombstone");
                self.check_fence()
            }
        }
    }

    /// Tombstones purged before their window was over.
    #[must_use]
    pub const fn purged_early(&self) -> u64 {
        self.sweep.purged_early
    }
}

const fn address(id: ChunkfileId, offset_units: u32) -> Address {
    Address { machine: id.machine, log_id: id.log_id, chunk: id.chunk, offset_units }
}

fn note(header: &SlotHeader, running: &mut Running, due: &mut Vec<SlotHeader>) {
    if header.role != Role::Home || header.state != State::Deleted {
        return;
    }
    if header.modified_ms <= running.due_ms {
        due.push(header.clone());
    } else {
        running.oldest_left_ms = running.oldest_left_ms.min(header.modified_ms);
    }
}
