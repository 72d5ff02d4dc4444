//! Who mirrors this mount, and what they have: R12, pruning of vectors, retention.
//!
//! Invariants: members are durable in the label before they count; an absent member delays reuse and never shortens a
//! wait; a vector is pruned only by what *every* configured member covers.

use super::disk::Disk;
use super::error::StoreResult;
use super::label_file::write_label;
use super::mount::Mount;
use super::sync::LogName;
use crate::cluster::coverage::Coverage;
use crate::cluster::members::every_member_covers;
use crate::cluster::reuse::MemberReport;
use crate::format::ids::{MachineId, Sequence, Version};
use crate::format::label::Label;
use crate::format::members::Member;

impl<D: Disk> Mount<D> {
    /// The configured members, ourselves included once there are others.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.core.label.members
    }

    /// Makes these the members; durable when it returns.
    ///
    /// # Errors
    /// The mount is fenced: its label cannot be written.
    pub fn set_members(&mut self, members: Vec<Member>) -> StoreResult<()> {
        self.check_fence()?;
        if members == self.core.label.members {
            return Ok(());
        }
        let generation = self.core.label.generation.saturating_add(1);
        let label = Label { members, generation, ..self.core.label.clone() };
        if let Err(error) = write_label(&self.core.disk, &label) {
            self.fence(error.to_string());
            return Err(error);
        }
        self.core.label = label;
        self.count_members();
        Ok(())
    }

    /// Tells R12 who is waited for.
    pub(super) fn count_members(&mut self) {
        let own = self.core.label.machine;
        let others = self.core.label.members.iter().map(|member| member.machine);
        let all: Vec<MachineId> = others.chain([own]).collect();
        self.reports.retain(|machine, _| all.contains(machine));
        self.reuse.set_members(all);
    }

    /// Our own log.
    #[must_use]
    pub const fn own_log(&self) -> LogName {
        LogName { machine: self.core.label.machine, log_id: self.core.label.log_id }
    }

    /// What is durable and applied here, of every log.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let mut coverage = self.received.coverage.clone();
        coverage.raise(self.position(self.own_covered()));
        coverage
    }

    /// Of our own log: all of it, unless this disk lost a part that a member still has. While the mount is refilled there is
    /// nothing in it that others could lack.
    fn own_covered(&self) -> Sequence {
        if self.refilling {
            return 0;
        }
        if self.own_missing > self.own_former { self.own_former } else { self.durable }
    }

    /// What we say to the others (R12).
    #[must_use]
    pub fn own_report(&self) -> MemberReport {
        let coverage = self.coverage();
        let machine = self.core.label.machine;
        let tails = coverage.iter().filter(|position| position.machine == machine);
        let mut tails: Coverage = tails.collect();
        tails.raise(self.position(self.durable));
        MemberReport { coverage, tails }
    }

    /// What another member says.
    pub fn member_report(&mut self, machine: MachineId, report: &MemberReport) {
        if machine == self.core.label.machine {
            return;
        }
        let theirs = self.own_log().covered_by(&report.coverage);
        if theirs > self.own_former && theirs < self.core.label.first_sequence() {
            // Of an earlier start: our disk lost the end of our log (R10).
            self.own_missing = self.own_missing.max(theirs);
        }
        if let Some(completed) = self.reuse.report(machine, report) {
            self.release(completed);
        }
        if self.core.label.members.iter().any(|member| member.machine == machine) {
            self.reports.insert(machine, report.clone());
        }
        self.settle();
        if let Err(error) = self.end_forgets() {
            tracing::error!(%error, "a forget cannot be finished");
        }
    }

    /// Who keeps places from being used again.
    #[must_use]
    pub fn reuse_waits_for(&self) -> Vec<MachineId> {
        self.reuse.waiting_for()
    }

    /// Whether every configured member is known to have applied a version and all that it was made in the knowledge of.
    pub(super) fn all_cover(&self, version: &Version) -> bool {
        let own = self.core.label.machine;
        let others = self.core.label.members.iter().filter(|member| member.machine != own);
        let coverages = others.map(|member| self.reports.get(&member.machine).map(|r| &r.coverage));
        every_member_covers(version, coverages)
    }

    /// Records of other logs that could not be applied since the start.
    #[must_use]
    pub const fn quarantined(&self) -> u64 {
        self.quarantined
    }
}
