//! The home slots of a chunkfile, one after the other, in windows.
//!
//! Invariants: jumps by capacity over homes in use, else goes on unit by unit, so that nothing hides behind stale
//! bytes; a header counts only under the seal of the file, at its own address; blocks that the medium lost are passed
//! over. A walk reads no more than its budget and one window, and can be taken up again where it stopped.

use super::disk::DiskFile;
use super::handles::Handle;
use super::log_find::read_around;
use super::read::ReadError;
use crate::format::chunkfile::FIRST_SLOT_UNITS;
use crate::format::ids::{Address, ChunkfileId, MountIndex, UNIT};
use crate::format::paths;
use crate::format::slot::{
    HEADER_LEN, HEADER_UNITS, MAGIC_BYTES, NotASlot, Role, SlotHeader, looks_like_home,
};
use smallvec::SmallVec;

/// Bytes read at a time while slots lie close to each other: few calls, and what was read is still in the processor's cache.
const WINDOW: u64 = 256 << 10;
/// Bytes read behind a jump: the next slot may be as long as the one that was jumped over.
const WINDOW_AFTER_JUMP: u64 = 64 << 10;
/// Broken headers that are remembered.
const DAMAGED_MAX: usize = 4096;
/// Length of an extra vector entry behind a header.
const ENTRY_LEN: usize = 16;
/// Where a header says how many there are.
const EXTRA_AT: usize = 9;

/// A home header and how it lies on the disk.
#[derive(Clone, Debug)]
pub struct Home {
    /// What it says.
    pub header: SlotHeader,
    /// Header and extra vector entries, sealed.
    pub bytes: SmallVec<[u8; 192]>,
}

/// What a walk came to next.
#[allow(
    clippy::large_enum_variant,
    reason = "short-lived; a box would be an allocation for each slot"
)]
#[derive(Clone, Debug)]
pub enum Step {
    /// A home slot, in use or purged.
    Home(Home),
    /// The budget is used up.
    Pause,
    /// The end of the chunkfile.
    End,
}

/// A walk over one chunkfile.
pub struct SlotWalk<'a, F> {
    handle: &'a Handle<F>,
    id: ChunkfileId,
    mount: MountIndex,
    next: u32,
    window: Vec<u8>,
    window_at: u32,
    /// Nothing lies behind the window.
    is_last: bool,
    budget: u64,
    damaged: Vec<u32>,
}

impl<'a, F: DiskFile> SlotWalk<'a, F> {
    /// Begins at unit `from`, reading about `budget` bytes.
    pub fn new(
        handle: &'a Handle<F>,
        id: ChunkfileId,
        mount: MountIndex,
        from: u32,
        budget: u64,
    ) -> Self {
        let next = from.max(FIRST_SLOT_UNITS);
        let (window, damaged) = (Vec::new(), Vec::new());
        Self { handle, id, mount, next, window, window_at: next, is_last: false, budget, damaged }
    }

    /// The unit that is looked at next.
    pub const fn position(&self) -> u32 {
        self.next
    }

    /// Where headers of homes stand whose seal is broken; drained.
    pub fn take_damaged(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.damaged)
    }

    /// Others have read that many bytes for this walk.
    pub const fn spend(&mut self, bytes: u64) {
        self.budget = self.budget.saturating_sub(bytes);
    }

    /// The next home slot.
    ///
    /// # Errors
    /// `Io`: nothing at all can be read here.
    pub fn step(&mut self) -> Result<Step, ReadError> {
        while self.next < self.handle.size_units {
            let Some(from) = self.look(HEADER_LEN)? else { return Ok(Step::Pause) };
            let Some(bytes) = self.window.get(from..from + HEADER_LEN) else { break };
            if bytes[..MAGIC_BYTES.len()] != MAGIC_BYTES {
                self.next += 1;
                continue;
            }
            let len = HEADER_LEN + usize::from(bytes[EXTRA_AT]) * ENTRY_LEN;
            let Some(from) = self.look(len)? else { return Ok(Step::Pause) };
            let bytes = self.window.get(from..from + len).unwrap_or_default();
            let Some(header) = self.home(bytes) else {
                if self.damaged.len() < DAMAGED_MAX && self.was_a_home(from) {
                    self.damaged.push(self.next);
                }
                self.next += 1;
                continue;
            };
            let bytes = SmallVec::from_slice(&bytes[..header.payload_offset()]);
            let units =
                if header.is_in_use() { header.capacity_units.max(HEADER_UNITS) } else { 1 };
            self.next = self.next.saturating_add(units);
            return Ok(Step::Home(Home { header, bytes }));
        }
        Ok(Step::End)
    }

    const fn here(&self) -> Address {
        let ChunkfileId { machine, log_id, chunk } = self.id;
        Address { machine, log_id, chunk, offset_units: self.next }
    }

    /// Whether the bytes from there on in the window are a home whose seal is broken.
    fn was_a_home(&self, from: usize) -> bool {
        let bytes = self.window.get(from..).unwrap_or_default();
        looks_like_home(bytes, self.here())
            && matches!(SlotHeader::decode(bytes, &self.handle.secret), Err(NotASlot::Broken))
    }

    /// The home whose header these bytes are.
    fn home(&self, bytes: &[u8]) -> Option<SlotHeader> {
        let here = self.here();
        let header = SlotHeader::decode(bytes, &self.handle.secret).ok()?;
        let right = header.address == here && header.mount == self.mount;
        (right && header.role == Role::Home).then_some(header)
    }

    /// Makes the window hold `len` bytes from the next unit on, unless the file ends; where in it. `None`: it would
    /// have to be read, and the budget is used up.
    fn look(&mut self, len: usize) -> Result<Option<usize>, ReadError> {
        let begin = (self.next - self.window_at) as usize * UNIT as usize;
        if begin + len <= self.window.len() || self.is_last {
            return Ok(Some(begin));
        }
        if self.budget == 0 {
            return Ok(None);
        }
        let jumped = begin > self.window.len();
        let rest = u64::from(self.handle.size_units - self.next) * UNIT;
        let ahead = if jumped { WINDOW_AFTER_JUMP } else { WINDOW }.min(rest);
        self.spend(ahead);
        // What it held is overwritten, or cut off below.
        self.window.resize(usize::try_from(ahead).unwrap_or(0), 0);
        let at = u64::from(self.next) * UNIT;
        let got = read_around(&self.handle.file, at, &mut self.window);
        let got = got.map_err(ReadError::io(paths::chunk(self.id)))?;
        self.is_last = got < self.window.len() || ahead == rest;
        self.window.truncate(got);
        self.window_at = self.next;
        Ok(Some(0))
    }
}
