//! When a change may be acknowledged (P1; design section 6).
//!
//! Invariants
//! - "copies" counts machines on whose disk the change is durable *and applied*, this one included; never one that has
//!   merely been sent to.
//! - With `mirror` an answer with fewer than two copies is marked degraded, unless this machine is the only configured
//!   member. With `all` no answer is good that lacks a configured member.
//! - What is known to be refused is refused before anything is written; after that the worst answer is "outcome
//!   unknown", never "not done".
//! - Nobody waits for a member longer than [`PATIENCE_MS`]: it is not live then, whatever its connection says.

/// A member that has not acknowledged for so long is not live, milliseconds.
pub const PATIENCE_MS: u64 = 500;

/// On whose disk a change must be before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// On this machine's.
    Local,
    /// On another member's too.
    Mirror,
    /// On every configured member's.
    All,
}

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckPolicy {
    /// How many.
    pub wanted: Wanted,
    /// `mirror` without a live member: refuse, instead of accepting with one copy.
    pub refuse_alone: bool,
}

/// How it stands with one other configured member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberAck {
    /// Connected, caught up, and not late.
    pub live: bool,
    /// It has this change durable and applied.
    pub has_it: bool,
}

/// What to do with a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet.
    Wait,
    /// Acknowledge.
    Answer {
        /// Machines that have it.
        copies: u8,
        /// Fewer than the configuration asks for.
        degraded: bool,
    },
    /// It is durable here, and whether it counts is not known.
    UnknownOutcome,
}

/// Whether a change may be begun at all: `false` is exit 5, and nothing is done. `others` are all configured members
/// but this one.
#[must_use]
pub fn may_begin(policy: AckPolicy, others: &[MemberAck]) -> bool {
    match policy.wanted {
        Wanted::Local => true,
        Wanted::Mirror => {
            others.is_empty() || !policy.refuse_alone || others.iter().any(|other| other.live)
        }
        Wanted::All => others.iter().all(|other| other.live),
    }
}

/// Whether an acknowledgement now would say less than the configuration asks for.
#[must_use]
pub fn is_degraded(policy: AckPolicy, others: &[MemberAck]) -> bool {
    match policy.wanted {
        Wanted::Local => false,
        Wanted::Mirror => !others.is_empty() && !others.iter().any(|other| other.live),
        Wanted::All => others.iter().any(|other| !other.live),
    }
}

/// What to do with a change that is durable here since `outstanding_ms`.
#[must_use]
pub fn judge(policy: AckPolicy, others: &[MemberAck], outstanding_ms: u64) -> Verdict {
    let have = others.iter().filter(|other| other.has_it).count();
    let copies = u8::try_from(have + 1).unwrap_or(u8::MAX);
    let patient = outstanding_ms < PATIENCE_MS;
    let good = Verdict::Answer { copies, degraded: false };
    match policy.wanted {
        Wanted::Local => good,
        Wanted::Mirror if others.is_empty() || have > 0 => good,
        Wanted::Mirror if patient && others.iter().any(|other| other.live) => Verdict::Wait,
        Wanted::Mirror if policy.refuse_alone => Verdict::UnknownOutcome,
        Wanted::Mirror => Verdict::Answer { copies, degraded: true },
        Wanted::All if have == others.len() => good,
        // One that is away and lacks it will not have it in time.
        Wanted::All if patient && others.iter().all(|other| other.has_it || other.live) => {
            Verdict::Wait
        }
        Wanted::All => Verdict::UnknownOutcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: [Wanted; 3] = [Wanted::Local, Wanted::Mirror, Wanted::All];
    const STATES: [MemberAck; 4] = [
        MemberAck { live: false, has_it: false },
        MemberAck { live: false, has_it: true },
        MemberAck { live: true, has_it: false },
        MemberAck { live: true, has_it: true },
    ];

    /// Every policy with every state of up to three other members, before and after patience ends.
    fn each(mut look: impl FnMut(AckPolicy, &[MemberAck], u64)) {
        for wanted in WANTED {
            for refuse_alone in [false, true] {
                let policy = AckPolicy { wanted, refuse_alone };
                for count in 0..=3_u32 {
                    for number in 0..4_usize.pow(count) {
                        let others: Vec<MemberAck> =
                            (0..count).map(|i| STATES[number / 4_usize.pow(i) % 4]).collect();
                        for outstanding in [0, PATIENCE_MS - 1, PATIENCE_MS, u64::MAX] {
                            look(policy, &others, outstanding);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn no_copy_is_claimed_that_is_not_there_and_none_is_kept_quiet() {
        each(|policy, others, outstanding| {
            if let Verdict::Answer { copies, .. } = judge(policy, others, outstanding) {
                let have = others.iter().filter(|other| other.has_it).count();
                assert_eq!(usize::from(copies), have + 1, "{policy:?} {others:?} {outstanding}");
            }
        });
    }

    #[test]
    fn fewer_copies_than_asked_for_never_pass_for_enough() {
        each(|policy, others, outstanding| {
            let verdict = judge(policy, others, outstanding);
            let Verdict::Answer { copies, degraded } = verdict else { return };
            let enough = match policy.wanted {
                Wanted::Local => true,
                Wanted::Mirror => copies >= 2 || others.is_empty(),
                Wanted::All => usize::from(copies) == others.len() + 1,
            };
            assert_eq!(degraded, !enough, "{policy:?} {others:?} {outstanding}");
            let allowed = policy.wanted == Wanted::Mirror && !policy.refuse_alone;
            assert!(enough || allowed, "{policy:?} {others:?} {outstanding}: {verdict:?}");
        });
    }

    #[test]
    fn nobody_waits_longer_than_patience_or_for_a_member_that_is_away() {
        each(|policy, others, outstanding| {
            if judge(policy, others, outstanding) == Verdict::Wait {
                assert!(outstanding < PATIENCE_MS);
                assert!(others.iter().any(|other| other.live && !other.has_it));
                assert_ne!(policy.wanted, Wanted::Local);
            }
        });
    }

    #[test]
    fn an_answer_is_never_taken_back_when_more_is_known() {
        // More acknowledgements turn no good answer into a wait or a doubt.
        each(|policy, others, outstanding| {
            let before = judge(policy, others, outstanding);
            for at in 0..others.len() {
                let mut more = others.to_vec();
                more[at].has_it = true;
                let after = judge(policy, &more, outstanding);
                if let Verdict::Answer { degraded: false, .. } = before {
                    assert!(matches!(after, Verdict::Answer { degraded: false, .. }));
                }
            }
        });
    }

    #[test]
    fn what_cannot_be_acknowledged_is_refused_before_it_is_written() {
        each(|policy, others, _| {
            let none_has_it: Vec<MemberAck> =
                others.iter().map(|other| MemberAck { has_it: false, ..*other }).collect();
            if may_begin(policy, &none_has_it) {
                // Then it is not hopeless from the start.
                assert_ne!(judge(policy, &none_has_it, 0), Verdict::UnknownOutcome);
            } else {
                assert_eq!(judge(policy, &none_has_it, 0), Verdict::UnknownOutcome);
                assert!(is_degraded(policy, &none_has_it));
            }
        });
    }

    #[test]
    fn a_sole_member_is_not_degraded() {
        for wanted in WANTED {
            for refuse_alone in [false, true] {
                let policy = AckPolicy { wanted, refuse_alone };
                assert!(may_begin(policy, &[]));
                assert!(!is_degraded(policy, &[]));
                let good = Verdict::Answer { copies: 1, degraded: false };
                assert_eq!(judge(policy, &[], u64::MAX), good);
            }
        }
    }
}
