//! Coverage: for one mount, (origin machine, log id) -> highest sequence durably *applied* without a gap.
//!
//! Invariants: no entry has sequence 0 (0 is "nothing yet", the same as no entry); "caught up" is a comparison of
//! coverages and never of clocks or of log tails. The same shape serves for log tails, which say how far a log
//! *goes*; the two are never mixed up because the functions below name which of them they take.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::format::ids::{LogId, MachineId, Position, Sequence};

/// (machine, log id) -> sequence. Absent means 0.
///
/// Travels as a list of positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Position>", into = "Vec<Position>")]
pub struct Coverage {
    entries: BTreeMap<(MachineId, LogId), Sequence>,
}

impl Coverage {
    /// Nothing covered.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new() }
    }

    /// Sequence reached in one log, 0 if none.
    #[must_use]
    pub fn get(&self, machine: MachineId, log_id: LogId) -> Sequence {
        self.entries.get(&(machine, log_id)).copied().unwrap_or(0)
    }

    /// Raises one entry to at least `position`; never lowers it.
    pub fn raise(&mut self, position: Position) {
        if position.sequence == 0 {
            return;
        }
        let entry = self.entries.entry((position.machine, position.log_id)).or_insert(0);
        *entry = (*entry).max(position.sequence);
    }

    /// Whether the record at `position` is covered.
    #[must_use]
    pub fn covers(&self, position: Position) -> bool {
        self.get(position.machine, position.log_id) >= position.sequence
    }

    /// Whether everything that `other` covers is covered here too.
    #[must_use]
    pub fn covers_all(&self, other: &Self) -> bool {
        other.iter().all(|position| self.covers(position))
    }

    /// Per-entry maximum: the coverage of whole copies that were merged by version.
    pub fn join(&mut self, other: &Self) {
        for position in other.iter() {
            self.raise(position);
        }
    }

    /// Per-entry minimum: the coverage of a copy whose parts came from different sources.
    pub fn meet(&mut self, other: &Self) {
        self.entries.retain(|(machine, log_id), sequence| {
            *sequence = (*sequence).min(other.get(*machine, *log_id));
            *sequence != 0
        });
    }

    /// Forgets everything about one log (a forgotten member).
    pub fn remove(&mut self, machine: MachineId, log_id: LogId) {
        self.entries.remove(&(machine, log_id));
    }

    /// All entries in order of (machine, log id).
    pub fn iter(&self) -> impl Iterator<Item = Position> + '_ {
        self.entries.iter().map(|(&(machine, log_id), &sequence)| Position {
            machine,
            log_id,
            sequence,
        })
    }

    /// Number of logs named.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is covered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl From<Vec<Position>> for Coverage {
    fn from(positions: Vec<Position>) -> Self {
        positions.into_iter().collect()
    }
}

impl From<Coverage> for Vec<Position> {
    fn from(coverage: Coverage) -> Self {
        coverage.iter().collect()
    }
}

impl FromIterator<Position> for Coverage {
    fn from_iter<I: IntoIterator<Item = Position>>(positions: I) -> Self {
        let mut coverage = Self::new();
        for position in positions {
            coverage.raise(position);
        }
        coverage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(machine: MachineId, log_id: LogId, sequence: Sequence) -> Position {
        Position { machine, log_id, sequence }
    }

    #[test]
    fn a_new_life_of_a_log_is_not_covered_by_the_old_one() {
        let coverage: Coverage = [at(1, 7, 100)].into_iter().collect();
        assert!(coverage.covers(at(1, 7, 100)));
        assert!(!coverage.covers(at(1, 8, 1)));
        assert!(!coverage.covers(at(2, 7, 1)));
        assert!(!coverage.covers(at(1, 7, 101)));
    }

    #[test]
    fn meet_drops_what_one_source_does_not_know_and_join_keeps_it() {
        let a: Coverage = [at(1, 7, 100), at(2, 9, 5)].into_iter().collect();
        let b: Coverage = [at(1, 7, 60), at(3, 4, 8)].into_iter().collect();
        let mut least = a.clone();
        least.meet(&b);
        assert_eq!(least.iter().collect::<Vec<_>>(), [at(1, 7, 60)]);
        let mut most = a.clone();
        most.join(&b);
        assert!(most.covers_all(&a) && most.covers_all(&b));
        assert!(!a.covers_all(&b) && a.covers_all(&least));
    }

    #[test]
    fn zero_is_nothing_and_never_stored() {
        let mut coverage = Coverage::new();
        coverage.raise(at(1, 1, 0));
        assert!(coverage.is_empty());
        assert!(coverage.covers(at(1, 1, 0)), "nothing is always covered");
    }
}
