//! Who holds a place: slots come and go, and records of former tenants may still arrive (R11, R12, P5).
//!
//! A place lies below one machine and one log id, and only that machine, in that life, ever hands it out. So the
//! sequence of the record which handed it out orders all its tenants: the allocator's newest tenant wins, on every
//! mirror alike, and a record for an older tenant is dropped whole.
//!
//! A home is handed out by the record that creates its object: `since` is the creation's sequence. The target of a
//! move is handed out by the edit that moved there: `since` is that edit's sequence, and it stays when a later edit,
//! of whatever machine, writes in the same place. It is not the sequence of the object's creation nor that of its
//! current version: neither orders two objects that moved into one place after each other.
//!
//! Invariants
//! - Two tenants of one place never share `since`, unless they are the same object in the same stay.
//! - A slot counts as readable content only if identity, place and stay are the ones that were asked for, so a stale
//!   id or a stale forward never shows a newer tenant.
//! - Of what overlaps, whoever holds any part for longer has lost it all: callers ask for every tenant that the
//!   place overlaps.

use crate::format::ids::{Position, Sequence};

/// One stay of one object in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant {
    /// Sequence, in the allocator's log, of the record that handed the place out.
    pub since: Sequence,
    /// Position of the object's creation.
    pub creation: Position,
    /// The random part of its identity.
    pub cookie: u64,
}

/// What a record may do with a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody is there.
    Vacant,
    /// The same stay of the same object: versions decide.
    Same,
    /// A later tenant: takes the place, whatever is there.
    Newer,
    /// A former tenant: the whole record is dropped. It is covered nevertheless.
    Older,
}

/// Judges the claim of `incoming` on a place where `local` was found.
///
/// Two different objects with the same `since` cannot both be right; what is there stays (a damaged or forged record
/// must not overwrite).
#[must_use]
pub fn claim(local: Option<&Tenant>, incoming: &Tenant) -> Claim {
    let Some(local) = local else { return Claim::Vacant };
    if local == incoming {
        return Claim::Same;
    }
    if incoming.since > local.since { Claim::Newer } else { Claim::Older }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn tenant(since: Sequence, created: Sequence) -> Tenant {
        let creation = Position { machine: 1, log_id: 7, sequence: created };
        Tenant { since, creation, cookie: created * 1000 }
    }

    #[test]
    fn a_former_tenant_never_comes_back_over_a_later_one() {
        // Object 2 moved here at 10, left, and object 1 (older by birth) moved here at 20.
        let (first, second) = (tenant(10, 2), tenant(20, 1));
        assert_eq!(claim(Some(&second), &first), Claim::Older);
        assert_eq!(claim(Some(&first), &second), Claim::Newer);
    }

    #[test]
    fn an_object_that_comes_back_to_a_place_is_a_new_tenant() {
        assert_eq!(claim(Some(&tenant(10, 2)), &tenant(30, 2)), Claim::Newer);
        assert_eq!(claim(Some(&tenant(30, 2)), &tenant(10, 2)), Claim::Older);
        assert_eq!(claim(Some(&tenant(30, 2)), &tenant(30, 2)), Claim::Same);
    }

    #[test]
    fn nobody_is_overwritten_by_a_record_with_a_stolen_stay() {
        assert_eq!(claim(Some(&tenant(30, 2)), &tenant(30, 3)), Claim::Older);
        assert_eq!(claim(None, &tenant(30, 3)), Claim::Vacant);
    }
}
