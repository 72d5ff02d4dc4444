//! Who may change an object: its owner; a mirror only when the owner is silent and the mirror has caught up with whoever
//! else is there (design section 5, "who writes"). Routing only hints, the storages enforce.
//!
//! Invariants: a conditional change runs on the owner only, so that it is exact among conditional writers; the waits
//! are bounded, so that writes never stop.

/// So long nothing is heard of an owner before a mirror writes in its place, in ms.
pub const SILENCE_MS: u64 = 300;
/// So long a mirror that takes over waits at most to catch up with the others, in ms.
pub const TAKE_OVER_LIMIT_MS: u64 = 500;
/// The same for a machine that has just been started, in ms.
pub const RESTART_LIMIT_MS: u64 = 2_000;

/// What is known when a change arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The object is ours.
    pub own: bool,
    /// The change names the version that it is for.
    pub conditional: bool,
    /// Since when nothing was heard of the owner, ms.
    pub silence_ms: u64,
    /// Everything that the members heard from lately have is here.
    pub caught_up: bool,
    /// Since when we serve, ms.
    pub up_ms: u64,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write.
    Write,
    /// The owner is there.
    AskOwner,
    /// Not yet: in a moment.
    Wait,
    /// Only the owner can, and it is not there.
    OwnerNeeded,
}

/// Decides.
#[must_use]
pub const fn who_writes(sight: Sight) -> Verdict {
    if sight.own {
        let waited = sight.up_ms >= RESTART_LIMIT_MS;
        return if sight.caught_up || waited { Verdict::Write } else { Verdict::Wait };
    }
    if sight.silence_ms < SILENCE_MS {
        return Verdict::AskOwner;
    }
    if sight.conditional {
        return Verdict::OwnerNeeded;
    }
    let waited = sight.silence_ms >= SILENCE_MS + TAKE_OVER_LIMIT_MS;
    let waited = waited && sight.up_ms >= RESTART_LIMIT_MS;
    if sight.caught_up || waited { Verdict::Write } else { Verdict::Wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIRROR: Sight =
        Sight { own: false, conditional: false, silence_ms: 0, caught_up: true, up_ms: 1 << 20 };

    #[test]
    fn no_mirror_writes_while_its_owner_is_heard() {
        for silence_ms in 0..SILENCE_MS {
            assert_eq!(who_writes(Sight { silence_ms, ..MIRROR }), Verdict::AskOwner);
        }
        assert_eq!(who_writes(Sight { silence_ms: SILENCE_MS, ..MIRROR }), Verdict::Write);
    }

    #[test]
    fn no_condition_is_judged_by_anybody_but_the_owner() {
        for silence_ms in [0, SILENCE_MS, u64::MAX] {
            let sight = Sight { silence_ms, conditional: true, ..MIRROR };
            assert_ne!(who_writes(sight), Verdict::Write);
        }
        assert_eq!(who_writes(Sight { own: true, conditional: true, ..MIRROR }), Verdict::Write);
    }

    #[test]
    fn no_wait_is_without_end() {
        let behind = Sight { caught_up: false, silence_ms: SILENCE_MS, ..MIRROR };
        assert_eq!(who_writes(behind), Verdict::Wait);
        let silence_ms = SILENCE_MS + TAKE_OVER_LIMIT_MS;
        assert_eq!(who_writes(Sight { silence_ms, ..behind }), Verdict::Write);
        let young = Sight { own: true, up_ms: 0, ..behind };
        assert_eq!(who_writes(young), Verdict::Wait);
        assert_eq!(who_writes(Sight { up_ms: RESTART_LIMIT_MS, ..young }), Verdict::Write);
    }
}
