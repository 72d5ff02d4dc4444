//! What a recovery sees around it, and the questions that it asks of that.

use super::Standing;
use crate::cluster::coverage::Coverage;
use crate::format::ids::MachineId;
use std::collections::BTreeMap;

impl Standing {
    pub(super) const fn is_serving(&self) -> bool {
        matches!(self, Self::Serving(_))
    }
}

/// What is to be seen around.
pub(super) struct Room<'a> {
    /// Nobody is waited for any more.
    pub waited: bool,
    /// What is here.
    pub ours: &'a Coverage,
    /// The other members.
    pub members: &'a BTreeMap<MachineId, Standing>,
}

impl Room<'_> {
    pub fn serving(&self) -> impl Iterator<Item = (MachineId, &Coverage)> {
        self.members.iter().filter_map(|(machine, standing)| match standing {
            Standing::Serving(coverage) => Some((*machine, coverage)),
            Standing::Away | Standing::Recovering(_) => None,
        })
    }

    pub fn away(&self) -> impl Iterator<Item = MachineId> {
        let away = self.members.iter().filter(|(_, standing)| **standing == Standing::Away);
        away.map(|(machine, _)| *machine)
    }

    /// Members that are being refilled themselves, and go before us as the base of all: those that have more, or as much and
    /// a lower machine id.
    pub fn greater(&self, own: MachineId) -> Vec<MachineId> {
        let ours = weight(self.ours);
        let greater = self.members.iter().filter(|(machine, standing)| match standing {
            Standing::Recovering(theirs) if !theirs.is_empty() => {
                (weight(theirs), std::cmp::Reverse(**machine)) > (ours, std::cmp::Reverse(own))
            }
            Standing::Recovering(_) | Standing::Away | Standing::Serving(_) => false,
        });
        greater.map(|(machine, _)| *machine).collect()
    }
}

/// Orders coverages that need not be comparable: more records, over all logs.
pub(super) fn weight(coverage: &Coverage) -> u128 {
    coverage.iter().map(|position| u128::from(position.sequence)).sum()
}

pub(super) fn machines(all: &[MachineId]) -> String {
    let names: Vec<String> = all.iter().map(ToString::to_string).collect();
    format!("machine {}", names.join(", "))
}
