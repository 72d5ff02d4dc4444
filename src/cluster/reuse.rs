//! R12: when a place that no current version uses may be used again. Per mount and round, not per place.
//!
//! A round goes through two waits:
//! 1. every configured member reports durable coverage of the edits that superseded the places of the round (`goal`);
//!    all that these reports cover, and the tails of the members' own logs, together are `W`;
//! 2. every member covers `W`.
//!
//! Then the owner of the places looks again: still unused = free. One wait is not enough: a member may have edited in
//! the old place before it heard of the move; that edit is in `W`. Tails of the members' own logs alone are not
//! enough either: the early edit may be one of a log whose machine has lost it since, held by a third one.
//!
//! What a member reported holds only while it keeps its disk. A member that lost it may come back, by a copy of a
//! mirror that lags, to a state before the move, and edit in the old place under a new log id. Hence:
//! **a log that is not in everybody's first report begins the round again.** Every life of a log begins with a record
//! (see [`super::members`]), so no life goes unnoticed.
//!
//! Invariants
//! - Rounds are numbered from 1 and complete in order. A place superseded while round n gathers is free to be looked
//!   at when `completed() >= n`, never before. A place that is superseded *again* waits for the later round: the
//!   number that the last supersession returned counts, and a place that came into use again waits for none.
//! - A change of the members starts the running round's first wait again; an absent member delays and never shortens.
//! - No memory per place: who supersedes remembers the round's number, this machine remembers only coverages (P8).
//! - A sole member needs the first wait only: "durable and applied here". Nobody else could have edited.

use std::collections::{BTreeMap, BTreeSet};

use super::coverage::Coverage;
use crate::format::ids::{MachineId, Position};

/// What one member says of the mount, durable and taken at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemberReport {
    /// What it has durably applied.
    pub coverage: Coverage,
    /// How far its own logs go, current and former ones.
    pub tails: Coverage,
}

/// The rounds of one mount.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reuse {
    members: BTreeSet<MachineId>,
    completed: u64,
    gathering: Coverage,
    running: Option<Round>,
}

/// A round in its first or second wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Round {
    /// The edits which superseded the places of the round.
    goal: Coverage,
    /// Wait 1: members that cover the goal, with all that they reported then.
    first: BTreeMap<MachineId, Coverage>,
    /// Wait 2: all of it together, and who does not cover it yet.
    second: Option<Second>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Second {
    w: Coverage,
    missing: BTreeSet<MachineId>,
}

impl Round {
    const fn new(goal: Coverage) -> Self {
        Self { goal, first: BTreeMap::new(), second: None }
    }

    /// All that the first reports cover together: `W`, once every member has one.
    fn reach(&self) -> Coverage {
        let mut all = Coverage::new();
        for reach in self.first.values() {
            all.join(reach);
        }
        all
    }
}

impl Reuse {
    /// A mount with these configured members, itself included.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = MachineId>) -> Self {
        Self {
            members: members.into_iter().collect(),
            completed: 0,
            gathering: Coverage::new(),
            running: None,
        }
    }

    /// The configured members are now these. If that is a change, the running round begins again.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = MachineId>) {
        let members: BTreeSet<MachineId> = members.into_iter().collect();
        if members != self.members {
            self.members = members;
            if let Some(round) = &mut self.running {
                *round = Round::new(std::mem::take(&mut round.goal));
            }
        }
    }

    /// A place lost its last use through the edit at `by`. Returns the round after whose completion it may be looked
    /// at again.
    pub fn superseded(&mut self, by: Position) -> u64 {
        self.gathering.raise(by);
        self.gathering_round()
    }

    /// The number of the round that gathers now.
    #[must_use]
    pub const fn gathering_round(&self) -> u64 {
        self.completed + if self.running.is_some() { 2 } else { 1 }
    }

    /// The last round that completed; 0 if none has.
    #[must_use]
    pub const fn completed(&self) -> u64 {
        self.completed
    }

    /// Who is being waited for (for `status`: what an absent member keeps from reuse). Empty when nothing waits.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<MachineId> {
        match &self.running {
            None => Vec::new(),
            Some(Round { second: Some(second), .. }) => second.missing.iter().copied().collect(),
            Some(round) => {
                let w = round.reach();
                let lags = |m: &&MachineId| {
                    round.first.get(m).is_none_or(|reach| !names_all_logs(reach, &w))
                };
                self.members.iter().filter(lags).copied().collect()
            }
        }
    }

    /// Takes one member's report. Returns the number of the round which that completes, if it does.
    ///
    /// Reports of machines that are no members are ignored. Call it for the own machine too, with what is durable and
    /// applied here.
    pub fn report(&mut self, member: MachineId, report: &MemberReport) -> Option<u64> {
        if !self.members.contains(&member) {
            return None;
        }
        if self.running.is_none() {
            if self.gathering.is_empty() {
                return None;
            }
            self.running = Some(Round::new(std::mem::take(&mut self.gathering)));
        }
        let sole = self.members.len() == 1;
        let round = self.running.as_mut()?;
        if !advance(round, &self.members, member, report, sole) {
            return None;
        }
        self.running = None;
        self.completed += 1;
        Some(self.completed)
    }
}

/// Moves one round on by one report; true when it is complete.
fn advance(
    round: &mut Round,
    members: &BTreeSet<MachineId>,
    member: MachineId,
    report: &MemberReport,
    sole: bool,
) -> bool {
    let mut reach = report.coverage.clone();
    reach.join(&report.tails);
    if let Some(second) = &mut round.second {
        if names_all_logs(&second.w, &reach) {
            if report.coverage.covers_all(&second.w) {
                second.missing.remove(&member);
            }
            return second.missing.is_empty();
        }
        // A log that was born since: whoever owns it may have forgotten what it had reported.
        *round = Round::new(std::mem::take(&mut round.goal));
    }
    if !report.coverage.covers_all(&round.goal) {
        round.first.remove(&member);
        return false;
    }
    round.first.insert(member, reach);
    if !members.iter().all(|m| round.first.contains_key(m)) {
        return false;
    }
    if sole {
        return true;
    }
    let w = round.reach();
    if !round.first.values().all(|reach| names_all_logs(reach, &w)) {
        return false;
    }
    let mut second = Second { w, missing: members.clone() };
    if report.coverage.covers_all(&second.w) {
        second.missing.remove(&member);
    }
    let done = second.missing.is_empty();
    round.second = Some(second);
    done
}

/// Whether `known` names every log that `named` names, however far it reaches.
fn names_all_logs(known: &Coverage, named: &Coverage) -> bool {
    named.iter().all(|position| known.get(position.machine, position.log_id) > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(machine: MachineId, sequence: u64) -> Position {
        Position { machine, log_id: 1, sequence }
    }

    fn says(coverage: &[Position], tail: Position) -> MemberReport {
        MemberReport {
            coverage: coverage.iter().copied().collect(),
            tails: [tail].into_iter().collect(),
        }
    }

    #[test]
    fn a_sole_member_waits_for_durable_and_applied_only() {
        let mut reuse = Reuse::new([1]);
        let round = reuse.superseded(at(1, 10));
        assert_eq!(reuse.report(1, &says(&[at(1, 9)], at(1, 12))), None);
        assert_eq!(reuse.report(1, &says(&[at(1, 10)], at(1, 12))), Some(round));
    }

    #[test]
    fn an_edit_made_in_the_old_place_before_the_move_was_heard_holds_the_place_back() {
        let mut reuse = Reuse::new([1, 2]);
        let round = reuse.superseded(at(1, 10));
        assert_eq!(reuse.report(1, &says(&[at(1, 10), at(2, 6)], at(1, 10))), None);
        // Member 2 hears of the move, having edited in the old place at 2:7.
        assert_eq!(reuse.report(2, &says(&[at(1, 10), at(2, 7)], at(2, 7))), None);
        assert_eq!(reuse.report(1, &says(&[at(1, 11), at(2, 6)], at(1, 11))), None);
        assert_eq!(reuse.waiting_for(), [1]);
        assert_eq!(reuse.report(1, &says(&[at(1, 11), at(2, 7)], at(1, 11))), Some(round));
    }

    #[test]
    fn an_absent_member_delays_and_never_shortens() {
        let mut reuse = Reuse::new([1, 2, 3]);
        reuse.superseded(at(1, 10));
        for _ in 0..10 {
            assert_eq!(reuse.report(1, &says(&[at(1, 99), at(2, 9)], at(1, 99))), None);
            assert_eq!(reuse.report(2, &says(&[at(1, 99), at(2, 9)], at(2, 9))), None);
            assert_eq!(
                reuse.report(9, &says(&[at(1, 99)], at(9, 1))),
                None,
                "a stranger counts for nothing"
            );
        }
        assert_eq!(reuse.waiting_for(), [3]);
        assert_eq!(reuse.completed(), 0);
    }

    #[test]
    fn an_early_edit_of_a_lost_log_that_a_third_machine_holds_is_waited_for() {
        let mut reuse = Reuse::new([1, 2, 3]);
        let round = reuse.superseded(at(1, 10));
        // 3:4 was made in the old place; its machine lost it, and only 2 has received it.
        let knows = |third| says(&[at(1, 10), at(2, 1), at(3, third)], at(1, 10));
        assert_eq!(reuse.report(1, &knows(3)), None);
        assert_eq!(reuse.report(3, &knows(3)), None);
        assert_eq!(reuse.report(2, &knows(4)), None);
        assert_eq!(reuse.report(1, &knows(3)), None);
        assert_eq!(reuse.report(3, &knows(4)), None);
        assert_eq!(reuse.waiting_for(), [1]);
        assert_eq!(reuse.report(1, &knows(4)), Some(round));
    }

    #[test]
    fn what_a_member_reported_before_it_lost_its_disk_counts_for_nothing() {
        let mut reuse = Reuse::new([1, 2, 3]);
        let round = reuse.superseded(at(1, 10));
        let knows = says(&[at(1, 10), at(2, 1), at(3, 1)], at(1, 10));
        for member in [1, 2, 3] {
            assert_eq!(reuse.report(member, &knows), None);
        }
        assert_eq!(reuse.report(1, &knows), None);
        // 3 is back from a copy that lagged, and has edited in the old place in its new life.
        let reborn = Position { machine: 3, log_id: 9, sequence: 2 };
        let mut back = knows.clone();
        back.coverage.raise(reborn);
        assert_eq!(reuse.report(3, &back), None);
        assert_eq!(reuse.report(2, &knows), None);
        assert_eq!(reuse.report(1, &knows), None);
        assert_eq!(reuse.waiting_for(), [1, 2], "both must have heard of the new life");
        assert_eq!(reuse.report(2, &back), None);
        assert_eq!(reuse.report(1, &back), None);
        assert_eq!(reuse.report(2, &back), None);
        assert_eq!(reuse.report(3, &back), Some(round));
    }

    #[test]
    fn a_new_member_starts_the_first_wait_again() {
        let mut reuse = Reuse::new([1, 2]);
        reuse.superseded(at(1, 10));
        assert_eq!(reuse.report(1, &says(&[at(1, 10)], at(1, 10))), None);
        reuse.set_members([1, 2, 3]);
        assert_eq!(reuse.report(2, &says(&[at(1, 10)], at(2, 0))), None);
        assert_eq!(reuse.report(3, &says(&[at(1, 10)], at(3, 0))), None);
        assert_eq!(reuse.waiting_for(), [1]);
    }

    #[test]
    fn what_is_superseded_during_a_round_waits_for_the_next_one() {
        let mut reuse = Reuse::new([1]);
        let first = reuse.superseded(at(1, 10));
        assert_eq!(reuse.report(1, &says(&[at(1, 9)], at(1, 9))), None);
        let second = reuse.superseded(at(1, 11));
        assert!(second > first);
        assert_eq!(reuse.report(1, &says(&[at(1, 10)], at(1, 11))), Some(first));
        assert_eq!(reuse.report(1, &says(&[at(1, 10)], at(1, 11))), None);
        assert_eq!(reuse.report(1, &says(&[at(1, 11)], at(1, 11))), Some(second));
        assert_eq!(
            reuse.report(1, &says(&[at(1, 11)], at(1, 11))),
            None,
            "nothing gathers: no round"
        );
    }

    proptest! {
        /// Three machines log edits and replicate in random order. The fear: a round completes although some member
        /// may still hold an edit, made before it knew of the supersession, that another member has not applied.
        #[test]
        fn no_round_completes_before_all_early_edits_are_everywhere(
            steps in prop::collection::vec((0u16..3, 0u16..3, 0u8..4), 1..200),
        ) {
            let mut logs = [0u64; 3];
            let mut covered = [[0u64; 3]; 3];
            let mut reuse = Reuse::new([0, 1, 2]);
            logs[0] = 1;
            covered[0][0] = 1;
            let goal = reuse.superseded(at(0, 1));
            // The tail of each member at the instant it applied the superseding edit: no edit below it knew.
            let mut early: [Option<u64>; 3] = [Some(1), None, None];
            for (who, other, what) in steps {
                let (a, b) = (usize::from(who), usize::from(other));
                match what {
                    0 => {
                        logs[a] += 1;
                        covered[a][a] = logs[a];
                    }
                    1 | 2 if a != b && covered[a][b] < covered[b][b] => {
                        covered[a][b] += 1;
                        if b == 0 && early[a].is_none() {
                            early[a] = Some(logs[a]);
                        }
                    }
                    1 | 2 => {}
                    _ => {
                        let report = MemberReport {
                            coverage: (0..3u16).map(|m| at(m, covered[a][usize::from(m)])).collect(),
                            tails: [at(who, logs[a])].into_iter().collect(),
                        };
                        if reuse.report(who, &report) == Some(goal) {
                            for member in 0..3usize {
                                let tail = early[member];
                                prop_assert!(tail.is_some(), "member {} never heard of the edit", member);
                                for row in &covered {
                                    prop_assert!(row[member] >= tail.unwrap_or(u64::MAX));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
