//! The reuse of places (R12): `folio::cluster::reuse`, or the simpler rules in its place.

use super::rules::{Off, Rules};
use folio::cluster::coverage::Coverage;
use folio::cluster::reuse::{MemberReport, Reuse};
use folio::format::ids::{MachineId, Position};
use std::collections::{BTreeMap, BTreeSet};

/// The rounds of one mount.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rounds {
    /// Ours.
    Ours(Reuse),
    /// One of the simpler ones.
    Simpler(Simpler),
}

/// R12 with one of its parts left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Simpler {
    off: Off,
    members: BTreeSet<MachineId>,
    completed: u64,
    gathering: Coverage,
    goal: Coverage,
    /// What each member adds to `W`, and all that it reported.
    first: BTreeMap<MachineId, (Coverage, Coverage)>,
    second: Option<Second>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Second {
    w: Coverage,
    seen: Coverage,
    missing: BTreeSet<MachineId>,
}

impl Rounds {
    pub fn new(rules: &Rules, members: &BTreeSet<MachineId>) -> Self {
        match rules.off {
            Some(off @ (Off::SecondWait | Off::BothWaits | Off::ThirdParties | Off::Lives)) => {
                Self::Simpler(Simpler {
                    off,
                    members: members.clone(),
                    completed: 0,
                    gathering: Coverage::new(),
                    goal: Coverage::new(),
                    first: BTreeMap::new(),
                    second: None,
                })
            }
            _ => Self::Ours(Reuse::new(members.iter().copied())),
        }
    }

    pub fn set_members(&mut self, members: &BTreeSet<MachineId>) {
        match self {
            Self::Ours(reuse) => reuse.set_members(members.iter().copied()),
            Self::Simpler(simpler) if simpler.members != *members => {
                simpler.members.clone_from(members);
                simpler.first.clear();
                simpler.second = None;
            }
            Self::Simpler(_) => {}
        }
    }

    pub fn superseded(&mut self, by: Position) -> u64 {
        match self {
            Self::Ours(reuse) => reuse.superseded(by),
            Self::Simpler(simpler) => {
                simpler.gathering.raise(by);
                simpler.completed + if simpler.goal.is_empty() { 1 } else { 2 }
            }
        }
    }

    pub fn completed(&self) -> u64 {
        match self {
            Self::Ours(reuse) => reuse.completed(),
            // No wait at all: whatever round it is, it is over.
            Self::Simpler(simpler) if simpler.off == Off::BothWaits => u64::MAX,
            Self::Simpler(simpler) => simpler.completed,
        }
    }

    pub fn report(&mut self, member: MachineId, report: &MemberReport) {
        match self {
            Self::Ours(reuse) => {
                reuse.report(member, report);
            }
            Self::Simpler(simpler) => simpler.report(member, report),
        }
    }
}

impl Simpler {
    fn report(&mut self, member: MachineId, report: &MemberReport) {
        if !self.members.contains(&member) {
            return;
        }
        if self.goal.is_empty() {
            self.goal = std::mem::take(&mut self.gathering);
        }
        if self.goal.is_empty() {
            return;
        }
        let mut reach = report.coverage.clone();
        reach.join(&report.tails);
        if let Some(second) = &self.second
            && self.off != Off::Lives
            && !names_all_logs(&second.seen, &reach)
        {
            self.first.clear();
            self.second = None;
        }
        if self.second.is_none() && report.coverage.covers_all(&self.goal) {
            let w =
                if self.off == Off::ThirdParties { report.tails.clone() } else { reach.clone() };
            self.first.insert(member, (w, reach));
            self.end_first_wait();
        }
        let Some(second) = &mut self.second else { return };
        if report.coverage.covers_all(&second.w) {
            second.missing.remove(&member);
        }
        if second.missing.is_empty() || self.off == Off::SecondWait {
            self.completed += 1;
            self.goal = Coverage::new();
            self.first.clear();
            self.second = None;
        }
    }

    fn end_first_wait(&mut self) {
        if !self.members.iter().all(|member| self.first.contains_key(member)) {
            return;
        }
        let (mut w, mut seen) = (Coverage::new(), Coverage::new());
        for (part, reach) in self.first.values() {
            w.join(part);
            seen.join(reach);
        }
        let alike = self.first.values().all(|(_, reach)| names_all_logs(reach, &seen));
        if alike || self.off == Off::Lives {
            self.second = Some(Second { w, seen, missing: self.members.clone() });
        }
    }
}

fn names_all_logs(known: &Coverage, named: &Coverage) -> bool {
    named.iter().all(|position| known.get(position.machine, position.log_id) > 0)
}
