//! When "not found" may be said (design section 5): absence alone proves nothing.
//!
//! A mirror that has nothing at an object's home may simply not have heard of it. It says "not found" only on a
//! tombstone, a purge, a later tenant of the home, or a hole although it has applied the creation. In every other
//! case the caller asks the live members, and if none has it and a configured one is away, the answer is
//! "unavailable" and not "not found".
//!
//! Invariant: what is said of an object that was never deleted is never `Gone`.

use crate::format::ids::{Position, Sequence};
use crate::format::slot::State;

use super::coverage::Coverage;

/// What a mirror sees at the home of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtHome {
    /// Readable, and nobody's header.
    Hole,
    /// Cannot be read, or a header with a broken seal that no later tenant explains.
    Damaged,
    /// The object's own header.
    Object(State),
    /// Another object's slot covers the place, as home or as target.
    Other {
        /// Since when it holds the place (see [`super::tenancy::Tenant::since`]).
        since: Sequence,
    },
}

/// What that proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The object is here.
    Here,
    /// "Not found" is the answer.
    Gone,
    /// Nothing: ask the others.
    Unknown,
}

/// Judges what was found at the home of the object created at `creation`, by a mirror with this coverage.
///
/// The home was handed out by the creation, so a tenant since earlier is one that the object has replaced elsewhere.
#[must_use]
pub fn evidence(creation: Position, found: AtHome, coverage: &Coverage) -> Evidence {
    match found {
        AtHome::Object(State::Live) => Evidence::Here,
        AtHome::Object(State::Deleted | State::Purged) => Evidence::Gone,
        AtHome::Other { since } if since > creation.sequence => Evidence::Gone,
        AtHome::Hole if coverage.covers(creation) => Evidence::Gone,
        AtHome::Hole | AtHome::Damaged | AtHome::Other { .. } => Evidence::Unknown,
    }
}

/// What is known after all other members were asked for an object that none of them has: for each configured one what it
/// said, `None` if it is away. One that knows it is gone is believed; without one, that nobody has it is a fact only if
/// everybody was asked.
#[must_use]
pub fn after_asking(said: &[Option<Evidence>]) -> Evidence {
    if said.contains(&Some(Evidence::Gone)) || said.iter().all(Option::is_some) {
        return Evidence::Gone;
    }
    Evidence::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATION: Position = Position { machine: 1, log_id: 7, sequence: 10 };

    fn covering(sequence: Sequence) -> Coverage {
        [Position { sequence, ..CREATION }].into_iter().collect()
    }

    #[test]
    fn a_hole_proves_nothing_to_who_has_not_applied_the_creation() {
        assert_eq!(evidence(CREATION, AtHome::Hole, &covering(9)), Evidence::Unknown);
        assert_eq!(evidence(CREATION, AtHome::Hole, &Coverage::new()), Evidence::Unknown);
        assert_eq!(evidence(CREATION, AtHome::Hole, &covering(10)), Evidence::Gone);
    }

    #[test]
    fn a_tenant_from_before_proves_nothing_and_a_later_one_does() {
        let full = covering(99);
        let other = |since| evidence(CREATION, AtHome::Other { since }, &full);
        assert_eq!(other(9), Evidence::Unknown);
        assert_eq!(other(11), Evidence::Gone);
    }

    #[test]
    fn damage_is_never_an_answer_and_a_tombstone_is() {
        let full = covering(99);
        assert_eq!(evidence(CREATION, AtHome::Damaged, &full), Evidence::Unknown);
        assert_eq!(evidence(CREATION, AtHome::Object(State::Live), &full), Evidence::Here);
        for state in [State::Deleted, State::Purged] {
            assert_eq!(evidence(CREATION, AtHome::Object(state), &Coverage::new()), Evidence::Gone);
        }
    }

    #[test]
    fn silence_is_no_evidence_and_what_nobody_has_is_gone() {
        let (gone, unknown) = (Some(Evidence::Gone), Some(Evidence::Unknown));
        assert_eq!(after_asking(&[unknown, None]), Evidence::Unknown);
        assert_eq!(after_asking(&[None, gone]), Evidence::Gone);
        assert_eq!(after_asking(&[unknown, unknown]), Evidence::Gone);
        assert_eq!(after_asking(&[]), Evidence::Gone, "there is nobody else");
    }
}
