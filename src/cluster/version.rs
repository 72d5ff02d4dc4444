//! Versions of one object: what the next edit is called, and which of two versions stands (design section 5, P4).
//!
//! Invariants
//! - Tag and vector are made here, once, when the edit is made; nobody changes them afterwards. In particular two
//!   vectors are never joined: the winner of a conflict is stored byte for byte as its writer made it, so that the
//!   slots of all mirrors end identical.
//! - A version's vector contains the position of the version's own tag.
//! - One version was made in the knowledge of another exactly if its vector reaches the other's own position
//!   ([`knows`]). The greater tag wins every conflict, and a version always has a greater tag than what it knows: so
//!   the greatest tag stands everywhere, and vectors only tell what has to be archived.
//! - No two edits share a tag, because a tag ends in the edit's own position.

use crate::format::ids::{MachineId, Position, Tag, Vector, Version};

pub use super::opver::{Opver, OpverError};

/// What a non-owner adds to `n` with every edit: the edit made after a take-over beats the ones that the dead owner
/// never managed to send, unless there were more than a million of them.
///
/// With *every* edit, also of a version that it made itself: the owner may have been back in between, and have died
/// again with edits of that very version that it never sent.
pub const TAKE_OVER_STEP: u64 = 1 << 20;

/// What an edit does to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Edit {
    /// Put or modify: new content. Only valid on an object that is not deleted; `life` is kept.
    Content,
    /// Makes `life` odd.
    Delete,
    /// Makes `life` even again.
    Undelete,
    /// The undelete window is over: a version like any other, `life` is kept.
    Purge,
}

/// The version that an edit makes.
///
/// * `prev`: the version edited; `None` when the object is created.
/// * `position`: the edit's own place in the log of the machine that makes it.
/// * `every_member_covers_prev`: every *configured* member is known to have applied `prev`. Only then may the vector
///   shrink to `prev`'s own entry and the new one.
/// * `take_over`: the machine that edits does not own the object.
#[must_use]
pub fn next_version(
    prev: Option<&Version>,
    edit: Edit,
    position: Position,
    every_member_covers_prev: bool,
    take_over: bool,
) -> Version {
    let old = prev.map(|version| version.tag).unwrap_or_default();
    let step = if take_over && prev.is_some() { 1 + TAKE_OVER_STEP } else { 1 };
    let tag = Tag {
        life: next_life(old.life, edit),
        term: old.term,
        n: old.n.saturating_add(step),
        machine: position.machine,
        log_id: position.log_id,
        sequence: position.sequence,
    };
    let mut vector = Vector::new();
    if let Some(version) = prev {
        if every_member_covers_prev {
            vector.push(version.tag.position());
        } else {
            vector = version.vector.clone();
        }
    }
    set_entry(&mut vector, position);
    debug_assert!(vector.contains(&tag.position()), "a vector holds its version's own position");
    Version { tag, vector }
}

/// Delete makes odd, undelete even. After 2^31 deletes the object stays deleted: `life` never wraps.
const fn next_life(life: u32, edit: Edit) -> u32 {
    match edit {
        Edit::Content | Edit::Purge => life,
        Edit::Delete => life | 1,
        Edit::Undelete if life % 2 == 1 && life != u32::MAX => life + 1,
        Edit::Undelete => life,
    }
}

/// Replaces or inserts the entry of `position`'s log, keeping the order by (machine, log id).
fn set_entry(vector: &mut Vector, position: Position) {
    let key = (position.machine, position.log_id);
    match vector.binary_search_by_key(&key, |entry| (entry.machine, entry.log_id)) {
        Ok(at) => vector[at] = position,
        Err(at) => vector.insert(at, position),
    }
}

/// Whether `vector` is in the form in which it is made: sorted by (machine, log id), without duplicates, holding the
/// tag's own position. What comes from a disk or the network is checked with it.
#[must_use]
pub fn is_well_formed(version: &Version) -> bool {
    let sorted = version
        .vector
        .windows(2)
        .all(|pair| (pair[0].machine, pair[0].log_id) < (pair[1].machine, pair[1].log_id));
    sorted && version.vector.contains(&version.tag.position())
}

/// Which side of a conflict stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Winner {
    /// What is stored here; the incoming version goes to the archive.
    Local,
    /// The incoming version; what is stored here goes to the archive first.
    Incoming,
}

/// What to do with a version that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It was made in the knowledge of ours: store it.
    Apply,
    /// Ours was made in the knowledge of it, or it is the same: nothing to do (idempotent).
    Ignore,
    /// Neither knew of the other: the greater tag stands, the other is archived and reported (P4).
    ///
    /// If both carry the same client token they are one edit that was retried elsewhere: the caller then archives
    /// nothing.
    Conflict {
        /// Which one stands. Every machine computes the same.
        winner: Winner,
    },
}

/// Compares what is stored here with what arrives. Symmetric: the other machine, with the roles exchanged, comes to
/// the same version.
#[must_use]
pub fn compare(local: &Version, incoming: &Version) -> Decision {
    if local.tag == incoming.tag {
        return Decision::Ignore;
    }
    match (knows(local, incoming), knows(incoming, local)) {
        (true, false) => Decision::Ignore,
        (false, true) => Decision::Apply,
        // Both only if one of them was forged; the tag decides that too, so that all mirrors agree.
        (false, false) | (true, true) => {
            let winner = if incoming.tag > local.tag { Winner::Incoming } else { Winner::Local };
            Decision::Conflict { winner }
        }
    }
}

/// Whether `version` was made in the knowledge of `other`: its vector reaches `other`'s own position.
///
/// That is enough. An entry (log, sequence) says that an edit of that log was an ancestor. If it is a later one than
/// `other`, whoever made both had `other` before it: it is an ancestor too, or lost a conflict there and was archived
/// in that very log ahead of the later edit.
///
/// It must not ask for *all* entries of `other`: a vector that shrank (see [`next_version`]) keeps only one of the
/// entries of the version that it was made from, and would be in conflict with its own ancestor on every mirror.
#[must_use]
pub fn knows(version: &Version, other: &Version) -> bool {
    let own = other.tag.position();
    let key = (own.machine, own.log_id);
    version
        .vector
        .binary_search_by_key(&key, |entry| (entry.machine, entry.log_id))
        .is_ok_and(|at| version.vector[at].sequence >= own.sequence)
}

/// Whether `owner` owns the object of which `position` is the creation: its machine id is in the file id.
#[must_use]
pub const fn is_take_over(owner: MachineId, editor: MachineId) -> bool {
    owner != editor
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(machine: u16, sequence: u64) -> Position {
        Position { machine, log_id: machine as u32 * 10, sequence }
    }

    fn create(position: Position) -> Version {
        next_version(None, Edit::Content, position, true, false)
    }

    #[test]
    fn a_created_object_starts_alive_at_one() {
        let version = create(at(1, 5));
        assert_eq!((version.tag.life, version.tag.n, version.tag.position()), (0, 1, at(1, 5)));
        assert_eq!(version.vector.as_slice(), [at(1, 5)]);
    }

    #[test]
    fn an_edit_after_a_take_over_beats_what_the_dead_owner_never_sent() {
        let base = create(at(1, 5));
        let mut unsent = base.clone();
        for sequence in 6..1000 {
            unsent = next_version(Some(&unsent), Edit::Content, at(1, sequence), true, false);
        }
        let taken = next_version(Some(&base), Edit::Content, at(2, 1), false, true);
        assert_eq!(taken.tag.n, 2 + TAKE_OVER_STEP);
        assert_eq!(compare(&taken, &unsent), Decision::Conflict { winner: Winner::Local });
        assert_eq!(compare(&unsent, &taken), Decision::Conflict { winner: Winner::Incoming });
    }

    #[test]
    fn an_owner_that_was_back_in_between_does_not_beat_the_next_take_over() {
        let base = create(at(1, 5));
        let first = next_version(Some(&base), Edit::Content, at(2, 1), false, true);
        let mut unsent = first.clone();
        for sequence in 6..9 {
            unsent = next_version(Some(&unsent), Edit::Content, at(1, sequence), false, false);
        }
        assert_eq!(unsent.tag.n, first.tag.n + 3, "the owner never leaps");
        let again = next_version(Some(&first), Edit::Content, at(2, 2), false, true);
        assert_eq!(compare(&again, &unsent), Decision::Conflict { winner: Winner::Local });
    }

    #[test]
    fn a_delete_beats_every_concurrent_modify_and_only_an_undelete_revives() {
        let base = create(at(1, 5));
        let deleted = next_version(Some(&base), Edit::Delete, at(1, 6), false, false);
        let mut modified = next_version(Some(&base), Edit::Content, at(2, 1), false, true);
        for sequence in 2..50 {
            modified = next_version(Some(&modified), Edit::Content, at(2, sequence), false, true);
        }
        assert_eq!(compare(&deleted, &modified), Decision::Conflict { winner: Winner::Local });
        let purged = next_version(Some(&deleted), Edit::Purge, at(1, 7), true, false);
        assert!(purged.tag.is_deleted());
        assert_eq!(compare(&deleted, &purged), Decision::Apply);
        let revived = next_version(Some(&deleted), Edit::Undelete, at(1, 7), true, false);
        assert!(!revived.tag.is_deleted());
        assert_eq!(revived.tag.life, 2);
    }

    #[test]
    fn deleting_twice_or_undeleting_the_living_does_not_flip_life() {
        let base = create(at(1, 5));
        let once = next_version(Some(&base), Edit::Delete, at(1, 6), true, false);
        let twice = next_version(Some(&once), Edit::Delete, at(1, 7), true, false);
        assert_eq!((once.tag.life, twice.tag.life), (1, 1));
        let alive = next_version(Some(&base), Edit::Undelete, at(1, 8), true, false);
        assert_eq!(alive.tag.life, 0);
        assert_eq!(next_life(u32::MAX, Edit::Undelete), u32::MAX, "life never wraps");
    }

    #[test]
    fn a_vector_shrinks_only_when_every_member_covers_what_is_edited() {
        let one = create(at(1, 5));
        let two = next_version(Some(&one), Edit::Content, at(2, 1), false, true);
        let three = next_version(Some(&two), Edit::Content, at(3, 1), false, true);
        assert_eq!(three.vector.as_slice(), [at(1, 5), at(2, 1), at(3, 1)]);
        let pruned = next_version(Some(&three), Edit::Content, at(1, 6), true, false);
        assert_eq!(pruned.vector.as_slice(), [at(1, 6), at(3, 1)]);
        let same_log = next_version(Some(&pruned), Edit::Content, at(1, 7), true, false);
        assert_eq!(same_log.vector.as_slice(), [at(1, 7)]);
    }

    #[test]
    fn a_version_whose_vector_shrank_is_in_no_conflict_with_what_it_was_made_from() {
        let one = create(at(1, 5));
        let two = next_version(Some(&one), Edit::Content, at(2, 1), false, true);
        for editor in [at(1, 6), at(2, 2), at(3, 1)] {
            let three = next_version(Some(&two), Edit::Content, editor, true, editor.machine != 1);
            assert_eq!(compare(&two, &three), Decision::Apply, "{editor:?}");
            assert_eq!(compare(&three, &two), Decision::Ignore, "{editor:?}");
        }
    }

    #[test]
    fn the_same_version_twice_changes_nothing() {
        let one = create(at(1, 5));
        let two = next_version(Some(&one), Edit::Content, at(1, 6), true, false);
        assert_eq!(compare(&two, &two), Decision::Ignore);
        assert_eq!(compare(&two, &one), Decision::Ignore);
        assert_eq!(compare(&one, &two), Decision::Apply);
    }

    /// Applies as a mirror does: the greater stands, no join.
    fn deliver(slot: &mut Version, incoming: &Version) {
        match compare(slot, incoming) {
            Decision::Apply | Decision::Conflict { winner: Winner::Incoming } => {
                *slot = incoming.clone();
            }
            Decision::Ignore | Decision::Conflict { winner: Winner::Local } => {}
        }
    }

    proptest! {
        /// Random edits at three machines with random exchange; then everybody gets everything, in any order.
        #[test]
        fn mirrors_never_end_different(
            steps in prop::collection::vec((0usize..3, 0usize..3, 0u8..6), 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 60),
        ) {
            let base = create(at(1, 1));
            let mut slots = vec![base.clone(); 3];
            let mut made = vec![base];
            let mut sequences = [1u64, 0, 0];
            for (who, other, what) in steps {
                let machine = u16::try_from(who + 1).unwrap_or(1);
                if what == 5 {
                    let incoming = slots[other].clone();
                    deliver(&mut slots[who], &incoming);
                    continue;
                }
                let edit = match what {
                    0 if !slots[who].tag.is_deleted() => Edit::Delete,
                    1 if slots[who].tag.is_deleted() => Edit::Undelete,
                    _ if slots[who].tag.is_deleted() => Edit::Purge,
                    _ => Edit::Content,
                };
                sequences[who] += 1;
                let next = next_version(
                    Some(&slots[who]), edit, at(machine, sequences[who]), false, machine != 1,
                );
                prop_assert!(is_well_formed(&next));
                prop_assert_eq!(compare(&slots[who], &next), Decision::Apply);
                slots[who] = next.clone();
                made.push(next);
            }
            for (slot, shift) in slots.iter_mut().zip([0usize, 20, 40]) {
                let mut left: Vec<_> = made.clone();
                let mut turn = shift;
                while !left.is_empty() {
                    let pick = order[turn % order.len()].index(left.len());
                    let incoming = left.swap_remove(pick);
                    deliver(slot, &incoming);
                    turn += 1;
                }
            }
            for index in 0..3 {
                let seen = slots[index].clone();
                for slot in &mut slots {
                    deliver(slot, &seen);
                }
            }
            prop_assert_eq!(&slots[0], &slots[1]);
            prop_assert_eq!(&slots[1], &slots[2]);
        }

        #[test]
        fn two_machines_never_judge_a_pair_differently(
            a in prop::collection::btree_map(1u16..5, 1u64..6, 1..5),
            b in prop::collection::btree_map(1u16..5, 1u64..6, 1..5),
            n in (1u64..4, 1u64..4),
        ) {
            let make = |entries: &std::collections::BTreeMap<u16, u64>, n| {
                let vector: Vector = entries.iter().map(|(&m, &s)| at(m, s)).collect();
                let own = vector[0];
                Version {
                    tag: Tag { n, machine: own.machine, log_id: own.log_id, sequence: own.sequence, ..Tag::default() },
                    vector,
                }
            };
            let (a, b) = (make(&a, n.0), make(&b, n.1));
            prop_assume!(a.tag != b.tag);
            let there = compare(&a, &b);
            let back = compare(&b, &a);
            let agree = matches!(
                (there, back),
                (Decision::Apply, Decision::Ignore)
                    | (Decision::Ignore, Decision::Apply)
                    | (Decision::Conflict { winner: Winner::Local }, Decision::Conflict { winner: Winner::Incoming })
                    | (Decision::Conflict { winner: Winner::Incoming }, Decision::Conflict { winner: Winner::Local })
            ) || (a.vector == b.vector && there == Decision::Ignore && back == Decision::Ignore);
            prop_assert!(agree, "{:?} {:?}", there, back);
        }
    }
}
