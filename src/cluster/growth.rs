//! Whether a mount takes new objects, by who has it (design section 6): capacity that only some members have is no capacity yet.
//!
//! Invariants
//! - A new object goes only where as many members have the mount as an acknowledgement asks for; what is on the mount
//!   already is read and edited all the same.
//! - A member that is away counts: it has the mount, and catches up. Whether it is live is asked for each change
//!   ([`acks`](super::acks)).
//! - Who is the only configured member keeps everything to itself, and takes puts.

use super::acks::Wanted;
use crate::format::ids::MachineId;
use std::collections::BTreeSet;

/// Which mounts may take new objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// Enough members have it.
    #[default]
    Enough,
    /// It has to be given to others first.
    Thin {
        /// Members that have it, this one included.
        have: BTreeSet<MachineId>,
        /// Members that do not.
        lack: BTreeSet<MachineId>,
        /// How many must have it.
        needed: usize,
    },
}

/// Judges one mount of member `own`: `have` are the members that have it, `syncgroup` all that there are. Whether `own` is in
/// the sets makes no difference: it is configured, and it has the mount.
#[must_use]
pub fn spread(
    wanted: Wanted,
    own: MachineId,
    have: &BTreeSet<MachineId>,
    syncgroup: &BTreeSet<MachineId>,
) -> Spread {
    let mut have = have.clone();
    have.insert(own);
    let all: BTreeSet<MachineId> = syncgroup.union(&have).copied().collect();
    let needed = match wanted {
        Wanted::Local => 1,
        Wanted::Mirror => all.len().min(2),
        Wanted::All => all.len(),
    };
    if have.len() >= needed {
        return Spread::Enough;
    }
    let lack = all.difference(&have).copied().collect();
    Spread::Thin { have, lack, needed }
}

impl Spread {
    /// Whether it takes new objects.
    #[must_use]
    pub const fn takes_puts(&self) -> bool {
        matches!(self, Self::Enough)
    }

    /// Why it does not, for people; empty if it does.
    #[must_use]
    pub fn why(&self) -> String {
        match self {
            Self::Enough => String::new(),
            Self::Thin { have, lack, needed } => format!(
                "{} {} it and {} {} not; durability.acks asks for {needed} that do",
                machines(have),
                if have.len() == 1 { "has" } else { "have" },
                machines(lack),
                if lack.len() == 1 { "does" } else { "do" },
            ),
        }
    }

    /// What mends it; empty if nothing has to be.
    #[must_use]
    pub fn remedy(&self, index: u8) -> String {
        match self {
            Self::Enough => String::new(),
            Self::Thin { lack, .. } => format!(
                "add a [[mounts]] entry with index = {index} to the configuration of {} and restart it",
                machines(lack)
            ),
        }
    }
}

fn machines(all: &BTreeSet<MachineId>) -> String {
    let names: Vec<String> = all.iter().map(ToString::to_string).collect();
    let word = if names.len() == 1 { "machine" } else { "machines" };
    format!("{word} {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MachineId = 1;

    fn set(bits: u16) -> BTreeSet<MachineId> {
        (1..=4).filter(|machine| bits >> machine & 1 == 1).collect()
    }

    /// Every mount of every syncgroup of up to four.
    fn each(mut look: impl FnMut(Wanted, &BTreeSet<MachineId>, &BTreeSet<MachineId>, &Spread)) {
        for wanted in [Wanted::Local, Wanted::Mirror, Wanted::All] {
            for (have, all) in
                (0..32).flat_map(|have| (0..32).map(move |all| (set(have), set(all))))
            {
                let judged = spread(wanted, OWN, &have, &all);
                look(wanted, &have, &all, &judged);
            }
        }
    }

    #[test]
    fn no_object_goes_where_fewer_members_than_an_acknowledgement_asks_for_could_have_it() {
        each(|wanted, have, all, judged| {
            let own = BTreeSet::from([OWN]);
            let have: BTreeSet<_> = have | &own;
            let members = (all | &have).len();
            let enough = match wanted {
                Wanted::Local => true,
                Wanted::Mirror => have.len() >= 2 || members == 1,
                Wanted::All => have.len() == members,
            };
            assert_eq!(judged.takes_puts(), enough, "{wanted:?} {have:?} of {all:?}");
        });
    }

    #[test]
    fn the_only_configured_member_takes_puts() {
        for wanted in [Wanted::Local, Wanted::Mirror, Wanted::All] {
            let nobody = BTreeSet::new();
            assert_eq!(spread(wanted, OWN, &nobody, &nobody), Spread::Enough);
            assert_eq!(spread(wanted, OWN, &set(2), &set(2)), Spread::Enough);
        }
    }

    #[test]
    fn one_more_member_that_has_it_never_closes_it() {
        each(|wanted, have, all, judged| {
            for more in 1..=4 {
                let more: BTreeSet<_> = have | &BTreeSet::from([more]);
                if judged.takes_puts() && all.is_superset(&more) {
                    assert!(spread(wanted, OWN, &more, all).takes_puts());
                }
            }
        });
    }

    #[test]
    fn what_it_says_names_who_lacks_it_and_where_to_add_it() {
        each(|_, _, _, judged| {
            let Spread::Thin { have, lack, needed } = judged else {
                assert_eq!((judged.why(), judged.remedy(7)), (String::new(), String::new()));
                return;
            };
            assert!(have.contains(&OWN) && have.is_disjoint(lack) && !lack.is_empty());
            assert!(have.len() < *needed && *needed <= have.len() + lack.len());
            assert!(judged.why().len() < 200 && judged.remedy(7).contains("index = 7"));
        });
        let thin = spread(Wanted::Mirror, 1, &set(0), &set(0b110));
        assert_eq!(
            thin.why(),
            "machine 1 has it and machine 2 does not; durability.acks asks for 2 that do"
        );
    }
}
