//! The rules that the model follows: the functions of `folio::cluster`, unless one is switched off.
//!
//! Each [`Off`] puts the obvious simpler rule in the place of ours. The unchanged checks must catch every one of them.

use folio::cluster::archive::{EditToken, Loser, loser};
use folio::cluster::coverage::Coverage;
use folio::cluster::evidence::{AtHome, Evidence, evidence};
use folio::cluster::members::every_member_covers;
use folio::cluster::tenancy::{Claim, Tenant, claim};
use folio::cluster::version::{Decision, Edit, Winner, compare, is_take_over, next_version};
use folio::format::ids::{MachineId, Position, Tag, Vector, Version};
use std::collections::BTreeMap;

/// A rule that is switched off, and what is done instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Off {
    /// Versions are counters, and only a greater one is applied.
    Vectors,
    /// Ties are broken by the machine, without archive: the last writer wins.
    Conflicts,
    /// The winner of a conflict takes the loser's vector entries along.
    NoJoin,
    /// A take-over adds 1 like everybody.
    TakeOverStep,
    /// A take-over leaps only over versions of other machines, not when a machine goes on from its own.
    EveryStep,
    /// A vector entry counts for the machine, whatever its log id.
    LogIds,
    /// Vector entries count a machine's edits of the object.
    LogPositions,
    /// Vectors shrink at every edit.
    PruneByCoverage,
    /// Losers are not archived.
    Archive,
    /// Losers are archived where the conflict is seen, but not logged.
    LoggedArchive,
    /// An object is copied by state without its archive.
    ArchiveWithState,
    /// A retried edit is a conflict with itself.
    RetriedEdit,
    /// `n` is compared before `life`.
    LifeLeads,
    /// What the other mirror does not have is removed.
    AbsenceProvesNothing,
    /// Records are written over whoever holds the place.
    Tenants,
    /// The object that was born later holds the place.
    Stays,
    /// A place is free after the first wait.
    SecondWait,
    /// A place is free at once.
    BothWaits,
    /// `W` is the tails of the members' own logs alone.
    ThirdParties,
    /// New lives of a log do not begin a round again.
    Lives,
    /// A place that was superseded twice waits for the first time only.
    LastSupersession,
    /// A mount that lost its log goes on under the old log id.
    NewLogId,
    /// The header's identity is not compared with the id.
    Identity,
    /// A hole is "not found".
    Evidence,
    /// A forgotten member may come back with its disk.
    BlankReturn,
    /// A recovered mount serves before it has caught up.
    CatchUp,
    /// A new machine serves when its announcement is known, without having caught up with who knows it.
    Join,
    /// A machine writes for a silent owner, or after a restart, without asking the others.
    Barrier,
}

/// The rules of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    pub off: Option<Off>,
}

impl Rules {
    pub fn is_off(&self, rule: Off) -> bool {
        self.off == Some(rule)
    }

    /// What the next edit is called.
    pub fn next(
        &self,
        prev: Option<&Version>,
        edit: Edit,
        at: Position,
        members: &[Option<&Coverage>],
        owner: MachineId,
    ) -> Version {
        let covered = prev.is_some_and(|prev| every_member_covers(prev, members.iter().copied()));
        let covered = covered || self.is_off(Off::PruneByCoverage);
        let own = prev.is_some_and(|prev| prev.tag.machine == at.machine);
        let take_over = is_take_over(owner, at.machine)
            && !self.is_off(Off::TakeOverStep)
            && !(own && self.is_off(Off::EveryStep));
        let mut version = next_version(prev, edit, at, covered, take_over);
        if self.is_off(Off::LogPositions) {
            version.vector = counted(prev, at);
        }
        version
    }

    /// What to do with a version that arrives.
    pub fn judge(&self, local: &Version, incoming: &Version) -> Decision {
        let greater = |yes: bool| if yes { Decision::Apply } else { Decision::Ignore };
        let (old, new) = (local.tag, incoming.tag);
        match self.off {
            Some(Off::Vectors) => greater((new.life, new.n) > (old.life, old.n)),
            Some(Off::Conflicts) => {
                greater((new.life, new.n, new.machine) > (old.life, old.n, old.machine))
            }
            Some(Off::LogPositions) => by_counters(local, incoming),
            Some(Off::LogIds) => compare(&by_machine(local), &by_machine(incoming)),
            Some(Off::LifeLeads) => with_winner(
                compare(local, incoming),
                |tag| (tag.n, tag.life, tag.machine, tag.log_id, tag.sequence),
                old,
                new,
            ),
            _ => compare(local, incoming),
        }
    }

    /// Which version goes to the archive.
    pub fn loser(
        &self,
        decision: Decision,
        local: &EditToken,
        incoming: &EditToken,
    ) -> Option<Loser> {
        match self.off {
            Some(Off::Archive) => None,
            Some(Off::RetriedEdit) => loser(decision, local, &EditToken::default()),
            _ => loser(decision, local, incoming),
        }
    }

    /// The vector that is stored for the winner of a conflict.
    pub fn stored_vector(&self, winner: &Version, loser: &Version) -> Vector {
        if !self.is_off(Off::NoJoin) {
            return winner.vector.clone();
        }
        let joined: Coverage = winner.vector.iter().chain(loser.vector.iter()).copied().collect();
        joined.iter().collect()
    }

    /// Who holds a place.
    pub fn claim(&self, local: Option<&Tenant>, incoming: &Tenant) -> Claim {
        match (self.off, local) {
            (Some(Off::Tenants), Some(local)) if local != incoming => Claim::Newer,
            (Some(Off::Stays), Some(local)) if local != incoming => {
                if incoming.creation.sequence >= local.creation.sequence {
                    Claim::Newer
                } else {
                    Claim::Older
                }
            }
            _ => claim(local, incoming),
        }
    }

    /// Whether "not found" may be said.
    pub fn evidence(&self, creation: Position, found: AtHome, coverage: &Coverage) -> Evidence {
        match found {
            AtHome::Hole if self.is_off(Off::Evidence) => Evidence::Gone,
            AtHome::Other { .. } if self.is_off(Off::Identity) => Evidence::Here,
            _ => evidence(creation, found, coverage),
        }
    }
}

/// The same decision with another order of tags.
fn with_winner<K: Ord>(decision: Decision, key: impl Fn(Tag) -> K, old: Tag, new: Tag) -> Decision {
    match decision {
        Decision::Conflict { .. } if key(new) > key(old) => {
            Decision::Conflict { winner: Winner::Incoming }
        }
        Decision::Conflict { .. } => Decision::Conflict { winner: Winner::Local },
        Decision::Apply | Decision::Ignore => decision,
    }
}

/// The vector with the highest position per machine.
fn by_machine(version: &Version) -> Version {
    let mut highest = BTreeMap::new();
    for entry in &version.vector {
        let known = highest.entry(entry.machine).or_insert(0);
        *known = entry.sequence.max(*known);
    }
    let vector = highest
        .into_iter()
        .map(|(machine, sequence)| Position { machine, log_id: 1, sequence })
        .collect();
    Version { tag: version.tag, vector }
}

/// The classical comparison of vectors of counters.
fn by_counters(local: &Version, incoming: &Version) -> Decision {
    let counters = |version: &Version| version.vector.iter().copied().collect::<Coverage>();
    let (old, new) = (counters(local), counters(incoming));
    match (old.covers_all(&new), new.covers_all(&old)) {
        (true, _) => Decision::Ignore,
        (false, true) => Decision::Apply,
        (false, false) if incoming.tag > local.tag => {
            Decision::Conflict { winner: Winner::Incoming }
        }
        (false, false) => Decision::Conflict { winner: Winner::Local },
    }
}

/// A vector of counters: the writer's own is one more than in the version that it edits.
fn counted(prev: Option<&Version>, at: Position) -> Vector {
    let mut counters: BTreeMap<MachineId, u64> = prev
        .map(|prev| prev.vector.iter().map(|entry| (entry.machine, entry.sequence)).collect())
        .unwrap_or_default();
    *counters.entry(at.machine).or_insert(0) += 1;
    counters
        .into_iter()
        .map(|(machine, sequence)| Position { machine, log_id: 1, sequence })
        .collect()
}
