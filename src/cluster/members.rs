//! Who belongs to the syncgroup: join, a new life of a log, forget; and what follows for writes (design section 6).
//!
//! **The first record of every life of a log announces the machine that owns it.** So "knows that life" is "covers
//! something of that log", and no second bookkeeping is needed: a coverage names exactly the lives its owner knows.
//!
//! Invariants
//! - A machine that came with an empty disk (new, or recovered) serves nobody, is nobody's source and takes no writes
//!   until every live member, at least one, has applied its announcement, **and** it covers what those members
//!   covered then ([`may_serve`]). The announcement alone is not enough: before they heard of it, the others may
//!   have freed places in which its copy still has current versions (R12 did not wait for it). One member is
//!   enough, because every round of R12 needs a report of each: those before its answer are covered by now, those
//!   after it name the new log.
//! - A member counts until its forget is complete everywhere that counts: until then it holds back reuse and pruning.
//! - Who has applied a `forget` takes nothing from that machine any more, in whatever life before it; the records of
//!   its logs come from the others only. When all others hold the same prefix, that is all there will ever be.
//! - Vector entries of forgotten logs are *compared* like any others. Leaving them out would let a version that never
//!   heard of a forgotten machine's last edit pass for one that did, and lose that edit without a trace. They vanish
//!   by themselves: once the machine is no member, the next edits of the object drop them.

use std::collections::BTreeSet;

use crate::format::ids::{LogId, MachineId, Position, Version};

use super::coverage::Coverage;

/// Whether `vector` may shrink when `prev` is edited: every configured member, ourselves included, is known to have
/// applied `prev` and everything it was made in the knowledge of.
///
/// `coverages` has one element for each configured member; `None` for one that has not reported since we started.
#[must_use]
pub fn every_member_covers<'a>(
    prev: &Version,
    coverages: impl IntoIterator<Item = Option<&'a Coverage>>,
) -> bool {
    coverages.into_iter().all(|coverage| {
        coverage.is_some_and(|coverage| prev.vector.iter().all(|entry| coverage.covers(*entry)))
    })
}

/// Whether a machine that came with an empty disk may go into service.
///
/// * `own`: its coverage.
/// * `live`: for each other member that is live, the coverage of its first report that covers the announcement of
///   `(machine, log_id)`; `None` if it has not sent one.
#[must_use]
pub fn may_serve<'a>(
    machine: MachineId,
    log_id: LogId,
    own: &Coverage,
    live: impl IntoIterator<Item = Option<&'a Coverage>>,
) -> bool {
    let mut members = live.into_iter().peekable();
    members.peek().is_some()
        && members.all(|coverage| {
            coverage.is_some_and(|c| c.get(machine, log_id) > 0 && own.covers_all(c))
        })
}

/// A logged `forget` of a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Forget {
    /// The member to be forgotten.
    pub machine: MachineId,
    /// Its lives: every log id that it has ever announced to whoever logged this.
    pub log_ids: BTreeSet<LogId>,
    /// Where the forget is logged: who covers this knows of it.
    pub at: Position,
}

impl Forget {
    /// Whether a batch or a connection of this life is refused by somebody who has applied this forget. A life that
    /// it does not name is a blank return of the machine: that one may join.
    #[must_use]
    pub fn refuses(&self, machine: MachineId, log_id: LogId) -> bool {
        machine == self.machine && self.log_ids.contains(&log_id)
    }

    /// Whether the forget is complete: all other configured members know of it, and hold the same prefix of the
    /// forgotten logs. `others`: the coverage that each of them reports, `None` for one that has not reported.
    #[must_use]
    pub fn is_complete<'a>(&self, others: impl IntoIterator<Item = Option<&'a Coverage>>) -> bool {
        let mut first: Option<&Coverage> = None;
        for coverage in others {
            let Some(coverage) = coverage else { return false };
            if !coverage.covers(self.at) {
                return false;
            }
            let reference = *first.get_or_insert(coverage);
            let same = |log_id: &LogId| {
                coverage.get(self.machine, *log_id) == reference.get(self.machine, *log_id)
            };
            if !self.log_ids.iter().all(same) {
                return false;
            }
        }
        true
    }
}

/// Who decides alone for the objects created by `creator` (compare-and-swap, purge): the creator while it is
/// configured, else the lowest configured member.
#[must_use]
pub fn owner(creator: MachineId, configured: &BTreeSet<MachineId>) -> MachineId {
    if configured.contains(&creator) {
        return creator;
    }
    configured.first().copied().unwrap_or(creator)
}

#[cfg(test)]
mod tests {
    use crate::cluster::version::{Edit, next_version};

    use super::*;

    const fn at(machine: MachineId, sequence: u64) -> Position {
        Position { machine, log_id: 1, sequence }
    }

    fn covering(positions: &[Position]) -> Coverage {
        positions.iter().copied().collect()
    }

    #[test]
    fn a_vector_is_kept_while_one_member_may_lack_an_ancestor() {
        let first = next_version(None, Edit::Content, at(1, 5), true, false);
        let second = next_version(Some(&first), Edit::Content, at(2, 3), false, true);
        let all = covering(&[at(1, 5), at(2, 3)]);
        let only_the_last = covering(&[at(2, 3)]);
        assert!(every_member_covers(&second, [Some(&all), Some(&all)]));
        assert!(!every_member_covers(&second, [Some(&all), Some(&only_the_last)]));
        assert!(!every_member_covers(&second, [Some(&all), None]), "silence is no coverage");
    }

    #[test]
    fn a_machine_that_nobody_has_heard_of_does_not_serve() {
        let own = covering(&[at(1, 9), at(3, 1)]);
        let knows = covering(&[at(1, 9), at(3, 1)]);
        let unaware = covering(&[at(1, 9)]);
        assert!(may_serve(3, 1, &own, [Some(&knows), Some(&knows)]));
        assert!(!may_serve(3, 1, &own, [Some(&knows), Some(&unaware)]));
        assert!(!may_serve(3, 1, &own, [Some(&knows), None]));
        assert!(!may_serve(3, 2, &own, [Some(&knows)]), "another life was announced");
        assert!(!may_serve(3, 1, &own, []), "nobody can say what it missed");
    }

    #[test]
    fn a_machine_that_is_known_but_behind_does_not_serve() {
        let knows = covering(&[at(1, 9), at(3, 1)]);
        assert!(!may_serve(3, 1, &covering(&[at(1, 8), at(3, 1)]), [Some(&knows)]));
        assert!(may_serve(3, 1, &covering(&[at(1, 9), at(2, 4), at(3, 1)]), [Some(&knows)]));
    }

    #[test]
    fn a_forget_waits_until_all_others_hold_the_same_of_the_forgotten_logs() {
        let forget = Forget { machine: 3, log_ids: BTreeSet::from([1, 4]), at: at(1, 9) };
        let here = covering(&[at(1, 9), at(3, 7)]);
        let there = covering(&[at(1, 9), at(2, 1), at(3, 7)]);
        let behind = covering(&[at(1, 9), at(3, 6)]);
        let unaware = covering(&[at(1, 8), at(3, 7)]);
        assert!(forget.is_complete([Some(&here), Some(&there)]));
        assert!(!forget.is_complete([Some(&here), Some(&behind)]));
        assert!(!forget.is_complete([Some(&behind), Some(&here)]));
        assert!(!forget.is_complete([Some(&here), Some(&unaware)]));
        assert!(!forget.is_complete([Some(&here), None]));
    }

    #[test]
    fn a_forgotten_machine_returns_blank_only() {
        let forget = Forget { machine: 3, log_ids: BTreeSet::from([1, 4]), at: at(1, 9) };
        assert!(forget.refuses(3, 1) && forget.refuses(3, 4));
        assert!(!forget.refuses(3, 5) && !forget.refuses(2, 1));
    }

    #[test]
    fn what_a_forgotten_machine_owned_passes_to_the_lowest_member() {
        let configured = BTreeSet::from([2, 3]);
        assert_eq!((owner(1, &configured), owner(3, &configured)), (2, 3));
        assert_eq!(owner(1, &BTreeSet::new()), 1);
    }
}
