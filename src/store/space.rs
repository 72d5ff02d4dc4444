//! Free space below our current log id: holes, and places that wait to become holes (R12).
//!
//! Invariants: holes do not touch or overlap (neighbours merge); both maps hold the same holes; a place is in use,
//! waiting, or free, never two of them: what begins to wait leaves whatever it was, and what is used again (a
//! concurrent edit won over the one that freed it) waits no more. Memory is per hole and per place that waits, not per
//! object (P8).

use crate::format::checkpoint::FreedPlace;
use crate::format::ids::{Address, ChunkNumber, Sequence};
use std::collections::{BTreeMap, BTreeSet};

/// A hole of at least this many units (32 KiB) gives its blocks back to the file system.
pub const PUNCH_MIN_UNITS: u32 = 512;
/// A remainder of fewer units is not worth a hole of its own: the place takes it.
const SPLIT_MIN_UNITS: u32 = 8;

/// Free space of one mount.
#[derive(Debug, Default)]
pub struct Space {
    by_len: BTreeSet<(u32, ChunkNumber, u32)>,
    by_place: BTreeMap<(ChunkNumber, u32), u32>,
    free_units: u64,
    waiting: BTreeMap<(ChunkNumber, u32), FreedPlace>,
    /// The same by the edit that freed them.
    by_edit: BTreeSet<(Sequence, ChunkNumber, u32)>,
    waiting_units: u64,
    to_punch: BTreeSet<(ChunkNumber, u32)>,
}

impl Space {
    /// Takes the best fitting hole: (chunkfile, offset, units), at least `units` long.
    pub fn take(&mut self, units: u32) -> Option<(ChunkNumber, u32, u32)> {
        let (len, chunk, offset) = *self.by_len.range((units, 0, 0)..).next()?;
        self.remove(chunk, offset, len);
        let rest = len - units;
        if rest < SPLIT_MIN_UNITS {
            return Some((chunk, offset, len));
        }
        self.insert(chunk, offset + units, rest);
        Some((chunk, offset, units))
    }

    /// Takes exactly this range out of the holes and the waiting places, as far as it is in them (replay).
    pub fn carve(&mut self, chunk: ChunkNumber, offset: u32, units: u32) {
        let end = offset + units;
        let touching: Vec<(u32, u32)> = self
            .by_place
            .range((chunk, 0)..(chunk, end))
            .rev()
            .map_while(|(&(_, at), &len)| (at + len > offset).then_some((at, len)))
            .collect();
        for (at, len) in touching {
            self.remove(chunk, at, len);
            if at < offset {
                self.insert(chunk, at, offset - at);
            }
            if at + len > end {
                self.insert(chunk, end, at + len - end);
            }
        }
        self.carve_waiting(chunk, offset, end);
    }

    fn carve_waiting(&mut self, chunk: ChunkNumber, offset: u32, end: u32) {
        let overlapping: Vec<FreedPlace> = self
            .waiting
            .range((chunk, 0)..(chunk, end))
            .rev()
            .map_while(|(&(_, at), freed)| {
                (at + freed.place.capacity_units > offset).then_some(*freed)
            })
            .collect();
        for freed in overlapping {
            let at = freed.place.address.offset_units;
            let until = at + freed.place.capacity_units;
            self.forget_waiting(chunk, at);
            for (from, to) in [(at, offset.max(at)), (end.min(until), until)] {
                if from < to {
                    let mut part = freed;
                    part.place.address.offset_units = from;
                    part.place.capacity_units = to - from;
                    self.insert_waiting(part);
                }
            }
        }
    }

    fn insert_waiting(&mut self, freed: FreedPlace) {
        let at = (freed.place.address.chunk, freed.place.address.offset_units);
        self.waiting_units += u64::from(freed.place.capacity_units);
        self.by_edit.insert((freed.superseded_by, at.0, at.1));
        self.waiting.insert(at, freed);
    }

    fn forget_waiting(&mut self, chunk: ChunkNumber, offset: u32) -> Option<FreedPlace> {
        let freed = self.waiting.remove(&(chunk, offset))?;
        self.by_edit.remove(&(freed.superseded_by, chunk, offset));
        self.waiting_units -= u64::from(freed.place.capacity_units);
        Some(freed)
    }

    /// A place that no version uses any more begins its waits.
    pub fn wait(&mut self, freed: FreedPlace) {
        let Address { chunk, offset_units, .. } = freed.place.address;
        self.carve(chunk, offset_units, freed.place.capacity_units);
        self.insert_waiting(freed);
    }

    /// Ends the waits of every place superseded at or before `covered`: they are free now.
    pub fn release(&mut self, covered: Sequence) {
        while let Some(&(by, chunk, offset)) = self.by_edit.first().filter(|e| e.0 <= covered) {
            self.by_edit.remove(&(by, chunk, offset));
            if let Some(freed) = self.forget_waiting(chunk, offset) {
                self.give(chunk, offset, freed.place.capacity_units);
            }
        }
    }

    /// Adds a free range and merges it with its neighbours.
    pub fn give(&mut self, chunk: ChunkNumber, offset: u32, units: u32) {
        if units == 0 {
            return;
        }
        let (mut from, mut to) = (offset, offset + units);
        let before = self.by_place.range(..(chunk, offset)).next_back();
        if let Some((&(c, at), &len)) = before
            && c == chunk
            && at + len >= from
        {
            self.remove(chunk, at, len);
            from = at;
            to = to.max(at + len);
        }
        while let Some((&(c, at), &len)) = self.by_place.range((chunk, from)..).next()
            && c == chunk
            && at <= to
        {
            self.remove(chunk, at, len);
            to = to.max(at + len);
        }
        self.insert(chunk, from, to - from);
        if to - from >= PUNCH_MIN_UNITS {
            self.to_punch.insert((chunk, from));
        }
    }

    /// The next hole whose blocks should go back: (chunkfile, offset, units).
    pub fn next_to_punch(&mut self) -> Option<(ChunkNumber, u32, u32)> {
        while let Some((chunk, offset)) = self.to_punch.pop_first() {
            // It may have been taken, or have grown to the front, since it was noted.
            if let Some(&len) = self.by_place.get(&(chunk, offset))
                && len >= PUNCH_MIN_UNITS
            {
                return Some((chunk, offset, len));
            }
        }
        None
    }

    fn insert(&mut self, chunk: ChunkNumber, offset: u32, units: u32) {
        self.by_place.insert((chunk, offset), units);
        self.by_len.insert((units, chunk, offset));
        self.free_units += u64::from(units);
    }

    fn remove(&mut self, chunk: ChunkNumber, offset: u32, units: u32) {
        self.by_place.remove(&(chunk, offset));
        self.by_len.remove(&(units, chunk, offset));
        self.free_units -= u64::from(units);
    }

    /// Holes in order of place.
    pub fn holes(&self) -> impl Iterator<Item = (ChunkNumber, u32, u32)> + '_ {
        self.by_place.iter().map(|(&(chunk, offset), &len)| (chunk, offset, len))
    }

    /// Places that wait.
    pub fn waiting(&self) -> impl Iterator<Item = &FreedPlace> {
        self.waiting.values()
    }

    /// Whether this unit is in a hole or in a waiting place.
    #[must_use]
    pub fn is_free(&self, chunk: ChunkNumber, offset: u32) -> bool {
        let before = self.by_place.range(..=(chunk, offset)).next_back();
        let in_hole = before.is_some_and(|(&(c, at), &len)| c == chunk && at + len > offset);
        let waits = self.waiting.range(..=(chunk, offset)).next_back();
        let waits = waits.is_some_and(|(&(c, at), freed)| {
            c == chunk && at + freed.place.capacity_units > offset
        });
        in_hole || waits
    }

    /// (holes, units in them, units that wait).
    #[must_use]
    pub fn totals(&self) -> (usize, u64, u64) {
        (self.by_place.len(), self.free_units, self.waiting_units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ids::Place;
    use proptest::prelude::*;

    fn freed(chunk: u32, offset_units: u32, capacity_units: u32, superseded_by: u64) -> FreedPlace {
        let address = Address { machine: 1, log_id: 1, chunk, offset_units };
        FreedPlace { place: Place { address, capacity_units }, superseded_by }
    }

    proptest! {
        /// Against a bitmap: nothing is handed out twice, nothing is lost, neighbours are merged.
        #[test]
        fn no_unit_is_handed_out_twice(steps in proptest::collection::vec((0u8..4, 0u32..200, 1u32..40), 1..200)) {
            let mut space = Space::default();
            let mut map = vec![0u8; 256];
            let mut seq = 0;
            for (what, at, len) in steps {
                let len = len.min(256 - at.min(255));
                let range = at as usize..(at + len) as usize;
                match what {
                    0 => if map[range.clone()].iter().all(|u| *u == 0) {
                        space.give(7, at, len);
                        map[range].fill(1);
                    },
                    1 => if let Some((_, at, got)) = space.take(len) {
                        prop_assert!(got >= len && got < len + SPLIT_MIN_UNITS);
                        for unit in &mut map[at as usize..(at + got) as usize] {
                            prop_assert_eq!(*unit, 1);
                            *unit = 0;
                        }
                    },
                    2 => { space.carve(7, at, len); map[range].fill(0); }
                    _ => if map[range.clone()].iter().all(|u| *u == 0) {
                        seq += 1;
                        space.wait(freed(7, at, len, seq));
                        map[range].fill(2);
                        if at % 2 == 0 {
                            space.release(seq);
                            for unit in &mut map { if *unit == 2 { *unit = 1; } }
                        }
                    },
                }
                let (_, free, waiting) = space.totals();
                prop_assert_eq!(free, map.iter().filter(|u| **u == 1).count() as u64);
                prop_assert_eq!(waiting, map.iter().filter(|u| **u == 2).count() as u64);
                let mut last = None;
                for (_, at, len) in space.holes() {
                    prop_assert!(map[at as usize..(at + len) as usize].iter().all(|u| *u == 1));
                    prop_assert!(last.is_none_or(|end| end < at), "holes that touch are one hole");
                    last = Some(at + len);
                }
            }
        }
    }
}
