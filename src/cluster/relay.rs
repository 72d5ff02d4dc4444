//! Which logs a mirror passes on for others: those whose origin does not do it.
//!
//! Invariants: a log that moves at the peer is left to whoever moves it; what is passed on was covered here a whole
//! comparison ago, so what is merely on its way is not sent twice. A peer's own log is among them: it may have lost the
//! end of it.

use super::coverage::Coverage;
use crate::format::ids::{LogId, MachineId, Position};

/// The logs to pass on to a peer, each from where the peer covers it (a sequence of 0: from the beginning).
///
/// `before` and `now` are the peer's coverages at the last comparison and now, `ours` what was covered here at the last
/// one. `own` is our log, which is pushed anyway.
#[must_use]
pub fn due(
    ours: &Coverage,
    before: &Coverage,
    now: &Coverage,
    own: (MachineId, LogId),
) -> Vec<Position> {
    ours.iter()
        .filter(|at| (at.machine, at.log_id) != own)
        .filter_map(|at| {
            let (was, is) = (before.get(at.machine, at.log_id), now.get(at.machine, at.log_id));
            (is < at.sequence && is <= was).then_some(Position { sequence: is, ..at })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(machine: MachineId, sequence: u64) -> Position {
        Position { machine, log_id: 1, sequence }
    }

    fn coverage(positions: &[Position]) -> Coverage {
        positions.iter().copied().collect()
    }

    #[test]
    fn a_lost_origin_is_passed_on_and_a_living_one_is_left_alone() {
        let ours = coverage(&[at(1, 50), at(2, 40), at(3, 30), at(4, 20)]);
        let before = coverage(&[at(1, 10), at(2, 10), at(3, 10)]);
        // 2 moves at the peer, 3 stands still, 4 was never heard of there.
        let now = coverage(&[at(1, 10), at(2, 11), at(3, 10)]);
        assert_eq!(due(&ours, &before, &now, (1, 1)), [at(3, 10), at(4, 0)]);
    }

    #[test]
    fn nothing_is_sent_that_the_peer_has() {
        let ours = coverage(&[at(1, 50), at(2, 40), at(3, 30)]);
        let now = coverage(&[at(2, 40), at(3, 99)]);
        assert_eq!(due(&ours, &now, &now, (1, 1)), []);
    }

    #[test]
    fn a_peer_gets_the_lost_end_of_its_own_log_back() {
        let ours = coverage(&[at(2, 40)]);
        let now = coverage(&[at(2, 30)]);
        assert_eq!(due(&ours, &now, &now, (1, 1)), [at(2, 30)]);
    }
}
