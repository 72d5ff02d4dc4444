//! Many slots of a chunkfile in one piece, verified, for a mirror that has nothing of them yet (state exchange).
//!
//! ```text
//! a run is slots one behind the other, as they lie in the chunkfile but for what is between them:
//!   header 192, extra vector entries 16 each, content (of a header whose content is behind it; else none)
//! where each belongs is in its header (its own address), and so is where it ends
//! ```
//!
//! Invariants
//! - What is in a run was verified: the header under the seal of the file, at its own address, the content against its
//!   checksum. Nothing is sent twice, nothing that lies between slots (room to grow, holes, remains) at all.
//! - Homes that are no such slots (moved, large, being changed, hit by damage) are named, and copied one by one.
//! - A run is made of few large reads, whatever the number of slots; its memory does not depend on what there is.

use super::disk::Disk;
use super::log_find::read_around;
use super::read::ReadError;
use super::reader::Reader;
use crate::format::chunkfile::FIRST_SLOT_UNITS;
use crate::format::ids::{Address, ChunkfileId, MountIndex, UNIT};
use crate::format::paths;
use crate::format::slot::{
    Body, HEADER_LEN, MAGIC_BYTES, NotASlot, Role, SlotHeader, looks_like_home,
};

/// Bytes that are read at a time: few calls, and what was read is still in the processor's cache when it is verified.
const WINDOW: usize = 256 << 10;
/// Where a header says how many extra vector entries there are, and their length.
const EXTRA_AT: usize = 9;
const ENTRY_LEN: usize = 16;
/// Broken headers that are named.
const DAMAGED_MAX: usize = 4096;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotRun {
    /// The slots.
    pub bytes: Vec<u8>,
    /// Units of homes that are not among them and have to be copied one by one.
    pub others: Vec<u32>,
    /// Units where homes stand whose headers are damaged.
    pub damaged: Vec<u32>,
    /// The unit to go on at; `None`: that was all.
    pub next: Option<u32>,
}

/// Why bytes of a run are no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSlot {
    /// It cannot be said where the next one begins.
    Lost,
    /// This one makes no sense; the next one begins behind so many bytes.
    Skip(usize),
}

/// The first slot of (the rest of) a run, verified as if nobody had: its header, and how many bytes are its own.
///
/// # Errors
/// [`BadSlot`]: damaged, of another chunkfile or mount, cut off, or not of the kind that runs are made of.
pub fn first_slot(
    bytes: &[u8],
    (id, mount): (ChunkfileId, MountIndex),
    secret: &[u8; 16],
) -> Result<(SlotHeader, usize), BadSlot> {
    let header = SlotHeader::decode(bytes, secret).map_err(|_| BadSlot::Lost)?;
    let len = run_len(&header).filter(|len| *len <= bytes.len()).ok_or(BadSlot::Lost)?;
    let right = header.address.chunkfile() == id && header.mount == mount;
    if right && header.role == Role::Home && is_whole(&header, &bytes[..len]) {
        Ok((header, len))
    } else {
        Err(BadSlot::Skip(len))
    }
}

/// Bytes that a slot takes in a run; `None`: it does not go there.
fn run_len(header: &SlotHeader) -> Option<usize> {
    let content = match header.body {
        Body::Inline => usize::try_from(header.length).ok()?,
        Body::None => 0,
        Body::Slot(_) | Body::Single(_) => return None,
    };
    header.payload_offset().checked_add(content)
}

fn is_whole(header: &SlotHeader, slot: &[u8]) -> bool {
    header.body == Body::None || header.payload(slot).is_some()
}

/// What stands at a place of the window.
#[allow(
    clippy::large_enum_variant,
    reason = "short-lived; a box would be an allocation for each slot"
)]
enum Seen {
    /// Nothing that counts: the next place is a unit further.
    Nothing,
    /// The home of an object: bytes of it in a run, if it may go there.
    Home { header: SlotHeader, len: Option<usize> },
    /// A home whose seal is broken.
    Damaged,
    /// Its header ends behind the window.
    Cut,
}

/// Where a window came to an end, in bytes from its begin.
enum End {
    /// The next one begins there.
    At(usize),
    /// The slot at its begin is so long.
    Longer(usize),
    /// The run is full: the next one begins there.
    Full(usize),
}

impl<D: Disk> Reader<D> {
    /// The slots of a chunkfile from unit `from_units` on: at most `max_bytes` of them, in about as many bytes of it.
    ///
    /// # Errors
    /// `Damaged` if the chunkfile's own header is; `Io`, `Fenced`.
    pub fn copy_run(
        &self,
        id: ChunkfileId,
        from_units: u32,
        max_bytes: u64,
    ) -> Result<SlotRun, ReadError> {
        self.check()?;
        let mut run = SlotRun::default();
        let Some(handle) = self.handles().open(self.disk(), self.mount(), id)? else {
            return Ok(run);
        };
        let ChunkfileId { machine, log_id, chunk } = id;
        let begin = from_units.max(FIRST_SLOT_UNITS);
        let rest_of = |at: u32| u64::from(handle.size_units.saturating_sub(at)) * UNIT;
        let max = usize::try_from(max_bytes.min(rest_of(begin))).unwrap_or(usize::MAX);
        run.bytes.reserve_exact(max);
        let (mut at, mut want, mut window) = (begin, WINDOW, Vec::new());
        loop {
            let rest = rest_of(at);
            let len = usize::try_from(rest).unwrap_or(usize::MAX).min(want);
            window.resize(len, 0);
            let got = read_around(&handle.file, u64::from(at) * UNIT, &mut window);
            window.truncate(got.map_err(ReadError::io(paths::chunk(id)))?);
            let more = window.len() == len && rest > len as u64;
            let first = Address { machine, log_id, chunk, offset_units: at };
            let end = self.pack(&mut run, &window, first, &handle.secret, (max, more));
            want = WINDOW;
            match end {
                End::Full(seen) => {
                    run.next = Some(at.saturating_add(units(seen)));
                    return Ok(run);
                }
                End::At(_) if !more => return Ok(run),
                End::At(seen) => at = at.saturating_add(units(seen)),
                End::Longer(len) => want = len.next_multiple_of(UNIT as usize),
            }
            if u64::from(at - begin) * UNIT >= max_bytes {
                run.next = Some(at);
                return Ok(run);
            }
        }
    }

    /// Takes the slots of a window, which begins at `first`. `max`: bytes of the run; `more`: the file goes on behind the window.
    fn pack(
        &self,
        run: &mut SlotRun,
        window: &[u8],
        first: Address,
        secret: &[u8; 16],
        (max, more): (usize, bool),
    ) -> End {
        let mut at = 0;
        while at < window.len() {
            let here =
                Address { offset_units: first.offset_units.saturating_add(units(at)), ..first };
            match self.see(&window[at..], here, secret, more && at > 0) {
                Seen::Nothing => at += UNIT as usize,
                Seen::Damaged => {
                    if run.damaged.len() < DAMAGED_MAX {
                        run.damaged.push(here.offset_units);
                    }
                    at += UNIT as usize;
                }
                // The next window begins with it.
                Seen::Cut => return End::At(at),
                Seen::Home { header, len } => {
                    let cut = len.filter(|len| *len <= max && more && at + len > window.len());
                    if let Some(len) = cut {
                        return if at > 0 { End::At(at) } else { End::Longer(len) };
                    }
                    let slot = len.and_then(|len| window.get(at..at + len));
                    match slot.filter(|slot| slot.len() <= max && is_whole(&header, slot)) {
                        Some(slot) if run.bytes.len() + slot.len() > max => return End::Full(at),
                        Some(slot) => run.bytes.extend_from_slice(slot),
                        None => run.others.push(here.offset_units),
                    }
                    at += if header.is_in_use() { room(&header) } else { UNIT as usize };
                }
            }
        }
        End::At(at)
    }

    fn see(&self, bytes: &[u8], here: Address, secret: &[u8; 16], more: bool) -> Seen {
        if !bytes.starts_with(&MAGIC_BYTES) {
            return Seen::Nothing;
        }
        let header_len = bytes.get(EXTRA_AT).map(|n| HEADER_LEN + usize::from(*n) * ENTRY_LEN);
        if more && header_len.is_none_or(|len| len > bytes.len()) {
            return Seen::Cut;
        }
        match SlotHeader::decode(bytes, secret) {
            Ok(header)
                if header.address == here
                    && header.mount == self.mount()
                    && header.role == Role::Home =>
            {
                let len = run_len(&header);
                Seen::Home { header, len }
            }
            Err(NotASlot::Broken) if looks_like_home(bytes, here) => Seen::Damaged,
            Ok(_) | Err(NotASlot::Blank | NotASlot::Broken | NotASlot::Newer(_)) => Seen::Nothing,
        }
    }
}

/// Bytes from the begin of a slot to the next one.
fn room(header: &SlotHeader) -> usize {
    header.capacity_units.max(units(HEADER_LEN)) as usize * UNIT as usize
}

/// Units of bytes, which are whole ones.
fn units(bytes: usize) -> u32 {
    u32::try_from(bytes / UNIT as usize).unwrap_or(u32::MAX)
}
