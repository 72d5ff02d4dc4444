//! Whose every byte is: the units of the chunkfiles that are looked at together.
//!
//! A place is claimed by the home slots in use and by the targets that they name. In the chunkfiles from which this
//! mount hands out places, everything below the frontier is claimed or free; elsewhere only claims are known.

use super::bits::Units;
use super::bytes::{Address, ChunkId, UNIT};
use super::finding::Kind;
use super::slot::{FIRST_UNIT, NotASlot, Slot};
use super::{Chunk, LIST_MAX, Run, names};
use std::collections::{BTreeMap, HashSet};

/// Bytes that look like a slot header and are none.
#[derive(Clone, Debug)]
pub struct LookAlike {
    pub unit: u32,
    pub what: String,
    pub kind: Kind,
}

/// What is known of one chunkfile in a round.
pub struct Ground {
    pub chunk: Chunk,
    pub claimed: Units,
    /// In use or not: told already, or no damage.
    pub unsure: Units,
    pub look_alikes: Vec<LookAlike>,
    /// Where homes name a target that is not right: told already.
    pub named: HashSet<u32>,
}

/// What is not in use of a chunkfile, by the checkpoint.
struct Free {
    holes: Units,
    waiting: Units,
    /// The frontier: behind it nothing was handed out.
    used: u32,
}

/// A round: chunkfiles that are looked at together.
pub type Round = BTreeMap<ChunkId, Ground>;

impl Ground {
    pub fn new(chunk: Chunk) -> Self {
        Self {
            chunk,
            claimed: Units::new(chunk.size_units),
            unsure: Units::new(chunk.size_units),
            look_alikes: Vec::new(),
            named: HashSet::new(),
        }
    }

    pub fn note(&mut self, look_alike: LookAlike) {
        if self.look_alikes.len() < LIST_MAX {
            self.look_alikes.push(look_alike);
        }
    }
}

impl Run<'_> {
    /// A slot in use takes its place.
    pub fn claim(&mut self, round: &mut Round, slot: &Slot) {
        let Address { chunk, unit } = slot.address;
        let Some(ground) = round.get_mut(&chunk) else { return };
        if let Some(twice) = ground.claimed.set(unit, slot.capacity_units) {
            if self.behind.covers(chunk, unit) {
                self.suppressed += 1;
                return;
            }
            let what = format!("{} and another one from unit {twice} on", slot.object());
            self.found(Kind::SlotOverlap, &names::chunk(chunk), Some(slot.address.offset()), what);
        }
    }

    /// What is left when all slots of a round have taken their places.
    pub fn end_round(&mut self, round: Round) {
        for (id, ground) in round {
            let free = self.free_units(id, &ground);
            self.look_alikes(id, &ground, free.as_ref());
            if let Some(free) = free {
                self.account(id, &ground, &free);
            }
        }
    }

    /// What is not in use of a chunkfile, if we hand out its places and nothing is about to be replayed.
    fn free_units(&self, id: ChunkId, ground: &Ground) -> Option<Free> {
        let ours = (id.machine, id.log_id) == (self.label.machine, self.label.log_id);
        let checkpoint = self.checkpoint.as_ref().filter(|_| ours && self.behind.records == 0)?;
        if checkpoint.log_id != id.log_id {
            return None;
        }
        let known = checkpoint.chunkfiles.get(&id)?;
        let marked = |places: &[(u32, u32, u32)]| {
            let mut marked = Units::new(ground.chunk.size_units);
            for (_, unit, units) in places.iter().filter(|(number, _, _)| *number == id.number) {
                marked.set(*unit, *units);
            }
            marked
        };
        Some(Free {
            holes: marked(&checkpoint.holes),
            waiting: marked(&checkpoint.waiting),
            used: known.used_units.min(ground.chunk.size_units),
        })
    }

    fn look_alikes(&mut self, id: ChunkId, ground: &Ground, free: Option<&Free>) {
        let path = names::chunk(id);
        let is_free =
            |unit: u32| free.is_some_and(|free| free.holes.get(unit) || free.waiting.get(unit));
        for look_alike in &ground.look_alikes {
            let LookAlike { unit, what, kind } = look_alike;
            // Inside a slot in use they are a user's bytes, in free space nobody's.
            if ground.claimed.get(*unit) || (is_free(*unit) && *kind == Kind::SlotHeader) {
                continue;
            }
            if self.behind.covers(id, *unit) {
                self.suppressed += 1;
                continue;
            }
            self.found(*kind, &path, Some(u64::from(*unit) * UNIT), what.clone());
        }
        let known = |unit: u32| ground.look_alikes.iter().any(|l| l.unit == unit);
        let gone: Vec<_> = self
            .expected
            .extract_if(.., |e| e.address.chunk == id)
            .filter(|e| free.is_none() && !ground.claimed.get(e.address.unit))
            .filter(|e| !known(e.address.unit))
            .collect();
        for expected in gone {
            if self.behind.covers(id, expected.address.unit) {
                self.suppressed += 1;
                continue;
            }
            let what = format!("{} put version {} here", expected.record, expected.tag.n);
            self.found(Kind::SlotGone, &path, Some(expected.address.offset()), what);
        }
    }

    /// Every unit below the frontier is claimed or free. Not both, but for what waits: it was freed by an edit that may
    /// have lost against another one since.
    fn account(&mut self, id: ChunkId, ground: &Ground, free: &Free) {
        let used = free.used;
        let state_of =
            |unit| (ground.claimed.get(unit), free.holes.get(unit), free.waiting.get(unit));
        let path = names::chunk(id);
        let known =
            |from: u32, to: u32| ground.look_alikes.iter().any(|l| (from..to).contains(&l.unit));
        let mut unit = FIRST_UNIT;
        while unit < ground.chunk.size_units {
            let state = state_of(unit);
            let from = unit;
            while unit < ground.chunk.size_units
                && state_of(unit) == state
                && (unit < used) == (from < used)
            {
                unit += 1;
            }
            let offset = Some(u64::from(from) * UNIT);
            let bytes = u64::from(unit - from) * UNIT;
            match state {
                (true, true, _) => {
                    self.found(Kind::SlotInFreeSpace, &path, offset, format!("{bytes} bytes"));
                }
                (true, false, _) if from >= used => {
                    let what = format!("{bytes} bytes behind unit {used}");
                    self.found(Kind::SlotUnrecorded, &path, offset, what);
                }
                (false, false, false)
                    if from < used
                        && !known(from, unit)
                        && !ground.named.contains(&from)
                        && !ground.unsure.get(from) =>
                {
                    self.nobody(id, ground, &path, from, bytes);
                }
                _ => {}
            }
        }
    }

    fn nobody(&mut self, id: ChunkId, ground: &Ground, path: &str, unit: u32, bytes: u64) {
        let address = Address { chunk: id, unit };
        let head = self.read(path, address.offset(), super::slot::HEADER_MAX);
        let offset = Some(address.offset());
        match Slot::decode(&head, &ground.chunk.secret) {
            Ok(slot) if slot.address == address => {
                self.found(Kind::Orphan, path, offset, format!("{bytes} bytes, {}", slot.object()));
            }
            Ok(_) | Err(NotASlot::Blank | NotASlot::Broken | NotASlot::Newer(_)) => {
                self.found(Kind::SpaceLost, path, offset, format!("{bytes} bytes"));
            }
        }
    }
}
