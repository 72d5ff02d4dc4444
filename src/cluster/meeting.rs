//! Who mirrors a mount: lists of members that meet become one list.
//!
//! Invariants
//! - Nobody is ever dropped by meeting (only `forget` does that), and no log id of a member either.
//! - What a member says of itself stands: address, uuids, and which of its logs is the current one. What others say of
//!   it only fills gaps.
//! - Members stand in the order of their machine ids; the same facts make the same list on every machine.

use crate::format::ids::{LogId, MachineId};
use crate::format::members::Member;

/// Most members of one mount: a syncgroup has a handful, and a label is bounded (P7).
pub const MEMBERS_MAX: usize = 64;
/// Most logs that are remembered of one member.
pub const LOG_IDS_MAX: usize = 256;

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The member itself.
    Itself,
    /// Somebody else.
    Others,
}

/// Takes over what is said of one member; `true` if that changed anything.
pub fn learn(members: &mut Vec<Member>, said: &Member, source: Source) -> bool {
    let mut said = said.clone();
    said.log_ids.retain(|id| *id != 0);
    said.log_ids.truncate(LOG_IDS_MAX);
    match members.binary_search_by_key(&said.machine, |member| member.machine) {
        Err(_) if said.machine == 0 || members.len() >= MEMBERS_MAX => false,
        Err(at) => {
            members.insert(at, said);
            true
        }
        Ok(at) => members.get_mut(at).is_some_and(|known| {
            let before = known.clone();
            known.log_ids = join_logs(&known.log_ids, &said.log_ids, source);
            let fill = |known: &mut [u8; 16], said: [u8; 16]| {
                if said != [0; 16] && (source == Source::Itself || *known == [0; 16]) {
                    *known = said;
                }
            };
            fill(&mut known.mount_uuid, said.mount_uuid);
            fill(&mut known.instance, said.instance);
            if !said.address.is_empty() && (source == Source::Itself || known.address.is_empty()) {
                known.address = said.address;
            }
            *known != before
        }),
    }
}

/// Takes over a whole list that somebody keeps; `true` if that changed anything. What it says of `except` is left out:
/// a machine knows best about itself.
pub fn learn_all(members: &mut Vec<Member>, said: &[Member], except: &[MachineId]) -> bool {
    let mut changed = false;
    for member in said.iter().filter(|member| !except.contains(&member.machine)) {
        changed |= learn(members, member, Source::Others);
    }
    changed
}

/// All logs of both lists, the current one last.
fn join_logs(known: &[LogId], said: &[LogId], source: Source) -> Vec<LogId> {
    let newer = source == Source::Itself
        || known.is_empty()
        || known.last().is_some_and(|last| said.contains(last));
    let (first, then) = if newer { (known, said) } else { (said, known) };
    let mut all: Vec<LogId> = first.iter().copied().filter(|id| !then.contains(id)).collect();
    all.extend_from_slice(then);
    let too_many = all.len().saturating_sub(LOG_IDS_MAX);
    all.drain(..too_many);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(machine: MachineId, log_ids: &[LogId]) -> Member {
        Member {
            machine,
            address: format!("10.0.0.{machine}:7411"),
            mount_uuid: [1; 16],
            instance: [2; 16],
            log_ids: log_ids.to_vec(),
        }
    }

    #[test]
    fn founders_that_meet_become_one_group_and_agree() {
        let (mut a, mut b) = (vec![member(1, &[10])], vec![member(2, &[20])]);
        let (said_a, said_b) = (a.clone(), b.clone());
        assert!(learn_all(&mut a, &said_b, &[1]));
        assert!(learn_all(&mut b, &said_a, &[2]));
        assert_eq!(a, b);
        assert_eq!(a, [member(1, &[10]), member(2, &[20])]);
        assert!(!learn_all(&mut a, &said_b, &[1]), "nothing new is no change");
    }

    #[test]
    fn a_machine_that_came_back_blank_keeps_its_former_log_and_gains_the_new_one() {
        let mut members = vec![member(1, &[10]), member(2, &[20])];
        let mut back = member(2, &[21]);
        back.instance = [9; 16];
        back.address = "10.0.0.22:7411".to_owned();
        assert!(learn(&mut members, &back, Source::Itself));
        assert_eq!(members[1].log_ids, [20, 21], "the current one last");
        assert_eq!((members[1].instance, members[1].address.as_str()), ([9; 16], "10.0.0.22:7411"));
        // Somebody who has not heard of it yet changes nothing.
        assert!(!learn(&mut members, &member(2, &[20]), Source::Others));
        assert_eq!(members[1].log_ids, [20, 21]);
        // Somebody who knows of one more life passes it on.
        assert!(learn(&mut members, &member(2, &[20, 21, 22]), Source::Others));
        assert_eq!(members[1].log_ids, [20, 21, 22]);
        assert_eq!(members[1].instance, [9; 16], "hearsay replaces no fact");
    }

    #[test]
    fn hearsay_fills_gaps_only() {
        let blank = Member { mount_uuid: [0; 16], log_ids: Vec::new(), ..member(3, &[]) };
        let mut members = vec![blank];
        assert!(learn(&mut members, &member(3, &[30]), Source::Others));
        assert_eq!(members, [member(3, &[30])]);
        let nothing = Member {
            address: String::new(),
            instance: [0; 16],
            mount_uuid: [0; 16],
            ..member(3, &[])
        };
        assert!(!learn(&mut members, &nothing, Source::Itself));
    }

    #[test]
    fn a_flood_of_names_stays_bounded() {
        let mut members = Vec::new();
        for machine in 0..1000 {
            learn(&mut members, &member(machine, &[1]), Source::Others);
        }
        assert_eq!(members.len(), MEMBERS_MAX);
        for id in 1..2000 {
            learn(&mut members, &member(1, &[id]), Source::Itself);
        }
        assert_eq!(members[0].log_ids.len(), LOG_IDS_MAX);
        assert_eq!(members[0].log_ids.last(), Some(&1999));
    }
}
