//! What must never happen to a mount that is refilled, and the stories of issue "a disk dies".

use super::*;
use crate::format::ids::Position;
use crate::format::recovery_state::Cause;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const RULES: Rules = Rules { own: 1, base_wait_ms: 1000, retry_ms: 100 };

fn begin() -> Recovery {
    Recovery::new(RULES, RecoveryState::begin(Cause::Blank, 7))
}

fn has(entries: &[(MachineId, u64)]) -> Coverage {
    entries
        .iter()
        .map(|&(machine, sequence)| Position { machine, log_id: u32::from(machine) * 10, sequence })
        .collect()
}

fn serving(entries: &[(MachineId, u64)]) -> Standing {
    Standing::Serving(has(entries))
}

fn look(now_ms: u64, ours: &[(MachineId, u64)], members: &[(MachineId, Standing)]) -> Event {
    Event::Look { now_ms, ours: has(ours), members: members.iter().cloned().collect() }
}

fn copied(from: MachineId, damaged: u64) -> Event {
    Event::Copied { from, damaged }
}

fn proof(with: MachineId) -> Proof {
    Proof { with, objects: 3, digest: "00".to_owned(), busy: 0 }
}

/// Takes a machine that sees `members` to its copying.
fn to_data(recovery: &mut Recovery, members: &[(MachineId, Standing)]) {
    let _ = recovery.step(look(0, &[], members));
    let _ = recovery.step(look(1, &[], members));
    let said = members.iter().filter_map(|(machine, standing)| match standing {
        Standing::Serving(coverage) => Some((*machine, coverage.clone())),
        Standing::Away | Standing::Recovering(_) => None,
    });
    let _ = recovery.step(Event::Logs(said.collect()));
    let _ = recovery.step(look(2, &[], members));
    assert_eq!(recovery.state().phase, Phase::PullData);
}

#[test]
fn a_lost_disk_is_refilled_compared_and_only_then_serves() {
    let mut recovery = begin();
    let members = [(2, serving(&[(1, 9), (2, 5)]))];
    assert_eq!(recovery.step(look(0, &[], &members)), [Action::Save]);
    assert_eq!(recovery.step(look(1, &[], &members)), [Action::PullLogs(vec![2])]);
    assert_eq!(recovery.step(look(2, &[], &members)), [], "one thing at a time");
    let said = BTreeMap::from([(2, has(&[(1, 9), (2, 5)]))]);
    assert_eq!(recovery.step(Event::Logs(said)), [Action::Save]);
    assert_eq!(recovery.state().phase, Phase::VerifyLogs);
    assert_eq!(recovery.step(look(3, &[], &members)), [Action::Save]);
    let pull = Action::PullData { from: 2, lenient: false };
    assert_eq!(recovery.step(look(4, &[], &members)), [pull]);
    assert_eq!(recovery.step(copied(2, 0)), [Action::Save]);
    assert_eq!(recovery.step(look(5, &[(1, 9), (2, 5)], &members)), [Action::Save]);
    assert_eq!(recovery.state().phase, Phase::CatchUp);

    let ours = [(1, 9), (2, 5)];
    assert_eq!(
        recovery.step(look(6, &ours, &members)),
        [Action::Listen, Action::Introduce(2)],
        "the others must know the new log before anything is written to it"
    );
    let met = Event::Introduced(2, has(&[(1, 9), (2, 8)]));
    assert_eq!(recovery.step(met), []);
    assert_eq!(recovery.step(look(7, &ours, &members)), [], "it had more when it learned of us");
    let ours = [(1, 9), (2, 8)];
    assert_eq!(recovery.step(look(8, &ours, &members)), [Action::Compare(2)]);
    assert_eq!(recovery.step(Event::Different(2)), []);
    assert_eq!(recovery.step(look(9, &ours, &members)), [], "not in a tight circle");
    assert_eq!(recovery.step(look(200, &ours, &members)), [Action::Compare(2)]);
    let end = recovery.step(Event::Same(proof(2)));
    assert_eq!(end, [Action::Save, Action::Serve(Ending::Proved(proof(2)))]);
    assert_eq!(recovery.state().phase, Phase::Online);
}

#[test]
fn a_sole_member_never_comes_back_silently_empty() {
    let mut recovery = begin();
    for now in 0..100 {
        let actions = recovery.step(look(now * 1000, &[], &[]));
        assert!(!actions.iter().any(|action| matches!(action, Action::Serve(_))), "{actions:?}");
    }
    assert_eq!(recovery.state().phase, Phase::Failed);
    assert!(recovery.why().contains("no other member"), "{}", recovery.why());
    assert_eq!(recovery.step(Event::AcceptLoss), [Action::Save]);
    let end = recovery.step(look(100_000, &[], &[]));
    assert_eq!(end, [Action::Save, Action::Serve(Ending::LossAccepted)]);
}

#[test]
fn a_failed_recovery_goes_on_when_a_member_comes() {
    let mut recovery = begin();
    let _ = recovery.step(look(0, &[], &[(2, Standing::Away)]));
    let _ = recovery.step(look(5000, &[], &[(2, Standing::Away)]));
    assert_eq!(recovery.state().phase, Phase::Failed);
    let actions = recovery.step(look(6000, &[], &[(2, serving(&[(2, 1)]))]));
    assert_eq!((actions, recovery.state().phase), (vec![Action::Save], Phase::PullLogs));
}

#[test]
fn a_blank_or_recovering_member_is_nobodys_source() {
    let mut recovery = begin();
    let members = [(2, Standing::Recovering(has(&[(2, 5)]))), (3, Standing::Recovering(has(&[])))];
    for now in 0..50 {
        for action in recovery.step(look(now * 100, &[], &members)) {
            assert_eq!(action, Action::Save);
        }
    }
    assert!(recovery.why().contains("machine 2 has more"), "{}", recovery.why());
}

#[test]
fn of_all_that_are_blank_but_one_that_one_becomes_the_base() {
    // Each of three sees the others recovering; 2 had been copied whole before its sources vanished.
    let hold = [(1, has(&[])), (2, has(&[(1, 4), (2, 5)])), (3, has(&[(2, 5)]))];
    let mut bases = Vec::new();
    for (own, ours) in &hold {
        let rules = Rules { own: *own, ..RULES };
        let mut recovery = Recovery::new(rules, RecoveryState::begin(Cause::Blank, 0));
        let others = hold.iter().filter(|(machine, _)| machine != own);
        let members: BTreeMap<_, _> =
            others.map(|(machine, has)| (*machine, Standing::Recovering(has.clone()))).collect();
        let event = Event::Look { now_ms: 0, ours: ours.clone(), members };
        if recovery.step(event).contains(&Action::Serve(Ending::Base)) {
            bases.push(*own);
        }
    }
    assert_eq!(bases, [2], "one, and the one with the most");
}

#[test]
fn equal_mounts_choose_the_same_base() {
    let same = has(&[(1, 4), (2, 5)]);
    let mut bases = Vec::new();
    for own in 1..=3 {
        let rules = Rules { own, ..RULES };
        let mut recovery = Recovery::new(rules, RecoveryState::begin(Cause::Blank, 0));
        let others = (1..=3).filter(|machine| *machine != own);
        let members = others.map(|machine| (machine, Standing::Recovering(same.clone())));
        let event = Event::Look { now_ms: 0, ours: same.clone(), members: members.collect() };
        if recovery.step(event).contains(&Action::Serve(Ending::Base)) {
            bases.push(own);
        }
    }
    assert_eq!(bases, [1]);
}

#[test]
fn of_two_sources_each_with_something_the_other_lacks_both_are_copied() {
    let mut recovery = begin();
    let members = [(2, serving(&[(1, 3), (2, 9)])), (3, serving(&[(1, 8), (3, 1)]))];
    to_data(&mut recovery, &members);
    let mut from = Vec::new();
    for now in 10..20 {
        for action in recovery.step(look(now, &[], &members)) {
            if let Action::PullData { from: machine, lenient: false } = action {
                from.push(machine);
                let _ = recovery.step(copied(machine, 0));
            }
        }
    }
    from.sort_unstable();
    assert_eq!(from, [2, 3]);
    assert_eq!(recovery.state().phase, Phase::CatchUp);
    let mut target = has(&[(1, 8), (2, 9)]);
    target.join(&has(&[(3, 1)]));
    let want: Vec<Position> = target.iter().collect();
    assert_eq!(recovery.state().target, want, "the union");
}

#[test]
fn an_absent_member_is_waited_for_but_not_for_ever_and_is_named() {
    let mut recovery = begin();
    let members = [(2, serving(&[(2, 9)])), (3, Standing::Away)];
    to_data(&mut recovery, &members);
    let _ = recovery.step(look(10, &[], &members));
    let _ = recovery.step(copied(2, 0));
    assert_eq!(recovery.step(look(500, &[(2, 9)], &members)), []);
    assert!(recovery.why().contains("machine 3"), "{}", recovery.why());
    assert_eq!(recovery.state().phase, Phase::PullData);
    assert_eq!(recovery.step(look(1500, &[(2, 9)], &members)), [Action::Save]);
    assert_eq!(recovery.state().phase, Phase::CatchUp);
    assert_eq!(recovery.state().missing, [3]);
}

#[test]
fn accept_loss_ends_the_wait() {
    let mut recovery = begin();
    let members = [(2, serving(&[(2, 9)])), (3, Standing::Away)];
    to_data(&mut recovery, &members);
    let _ = recovery.step(look(10, &[], &members));
    let _ = recovery.step(copied(2, 0));
    let _ = recovery.step(Event::AcceptLoss);
    let _ = recovery.step(look(11, &[(2, 9)], &members));
    assert_eq!(recovery.state().phase, Phase::CatchUp);
    assert_eq!(recovery.state().missing, [3]);
}

#[test]
fn a_source_that_goes_away_is_left_and_another_one_taken() {
    let mut recovery = begin();
    let both = [(2, serving(&[(2, 9)])), (3, serving(&[(2, 8)]))];
    to_data(&mut recovery, &both);
    let pull = recovery.step(look(10, &[], &both));
    assert_eq!(pull, [Action::PullData { from: 2, lenient: false }]);
    let left = [(2, Standing::Away), (3, serving(&[(2, 8)]))];
    assert_eq!(recovery.step(look(11, &[], &left)), [Action::Cancel]);
    let pull = recovery.step(look(12, &[], &left));
    assert_eq!(pull, [Action::PullData { from: 3, lenient: false }]);
    let _ = recovery.step(Event::Missed(3, "the connection broke".to_owned()));
    assert_eq!(recovery.step(look(13, &[], &left)), [], "it rests");
    let pull = recovery.step(look(300, &[], &left));
    assert_eq!(pull, [Action::PullData { from: 3, lenient: false }]);
}

#[test]
fn what_one_source_has_damaged_is_looked_for_at_the_others_and_given_up_last() {
    let mut recovery = begin();
    let members = [(2, serving(&[(2, 9)])), (3, serving(&[(2, 8)]))];
    to_data(&mut recovery, &members);
    let _ = recovery.step(look(10, &[], &members));
    let _ = recovery.step(copied(2, 4));
    let pull = recovery.step(look(11, &[], &members));
    assert_eq!(pull, [Action::PullData { from: 3, lenient: false }]);
    let _ = recovery.step(copied(3, 1));
    assert!(recovery.state().finished.is_empty());
    let pull = recovery.step(look(12, &[], &members));
    assert_eq!(pull, [Action::PullData { from: 2, lenient: true }]);
    let _ = recovery.step(copied(2, 1));
    assert_eq!(recovery.given_up(), 1);
    let _ = recovery.step(look(13, &[], &members));
    assert_eq!(recovery.state().phase, Phase::CatchUp);
}

#[test]
fn a_kill_in_any_phase_repeats_no_finished_source() {
    let mut recovery = begin();
    let members = [(2, serving(&[(2, 9)])), (3, serving(&[(3, 9)]))];
    to_data(&mut recovery, &members);
    let Some(Action::PullData { from, .. }) = recovery.step(look(10, &[], &members)).pop() else {
        panic!("nothing is copied");
    };
    let _ = recovery.step(copied(from, 0));
    let saved = RecoveryState::decode(&recovery.state().encode());
    let mut again = Recovery::new(RULES, saved.expect("it was just written"));
    let Some(Action::PullData { from: next, .. }) = again.step(look(0, &[], &members)).pop() else {
        panic!("nothing is copied after the restart");
    };
    assert_ne!(from, next);
}

#[test]
fn paused_nothing_happens_and_resumed_it_goes_on() {
    let mut recovery = begin();
    let members = [(2, serving(&[(2, 9)]))];
    to_data(&mut recovery, &members);
    let _ = recovery.step(look(10, &[], &members));
    assert_eq!(recovery.step(Event::Pause), [Action::Save, Action::Cancel]);
    for now in 11..20 {
        assert_eq!(recovery.step(look(now, &[], &members)), []);
    }
    let saved = RecoveryState::decode(&recovery.state().encode()).expect("it was just written");
    assert!(saved.paused, "a restart does not end the pause");
    let _ = recovery.step(Event::Resume);
    assert!(!recovery.step(look(21, &[], &members)).is_empty());
}

/// Whatever happens in whatever order: a mount serves only for one of the three reasons.
#[test]
fn no_order_of_events_puts_a_mount_on_line_that_nobody_vouches_for() {
    for seed in 0..3000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut recovery = begin();
        let (mut compared, mut accepted, mut introduced) = (None, false, BTreeSet::new());
        for now in 0..60 {
            let members: BTreeMap<MachineId, Standing> =
                (2..=3).map(|machine| (machine, standing(&mut rng))).collect();
            let ours = coverage(&mut rng);
            let machine = rng.random_range(2..=3);
            let event = match rng.random_range(0..12) {
                0 => Event::Logs(BTreeMap::from([(machine, coverage(&mut rng))])),
                1 => copied(machine, rng.random_range(0..2)),
                2 => Event::Introduced(machine, coverage(&mut rng)),
                3 => Event::Different(machine),
                4 => Event::Missed(machine, "it broke".to_owned()),
                5 if rng.random_bool(0.1) => Event::AcceptLoss,
                6 if rng.random_bool(0.1) => Event::Pause,
                7 => Event::Resume,
                8 if compared.is_some() => Event::Same(proof(compared.take().unwrap_or(2))),
                _ => Event::Look { now_ms: now * 50, ours: ours.clone(), members: members.clone() },
            };
            accepted |= event == Event::AcceptLoss;
            if let Event::Introduced(machine, _) = &event {
                introduced.insert(*machine);
            }
            let was = recovery.state().phase;
            for action in recovery.step(event.clone()) {
                match action {
                    Action::Compare(machine) => {
                        assert!(introduced.contains(&machine), "seed {seed}");
                        assert_eq!(was, Phase::CatchUp, "seed {seed}");
                        compared = Some(machine);
                    }
                    Action::Serve(Ending::Proved(_)) => {
                        assert!(matches!(event, Event::Same(_)), "seed {seed}");
                    }
                    Action::Serve(Ending::Base) => {
                        let served = members.values().any(Standing::is_serving);
                        assert!(!served && !ours.is_empty(), "seed {seed}");
                    }
                    Action::Serve(Ending::LossAccepted) => assert!(accepted, "seed {seed}"),
                    Action::PullData { from, .. } => {
                        assert!(members[&from].is_serving(), "seed {seed}: no source");
                    }
                    Action::Save
                    | Action::PullLogs(_)
                    | Action::Listen
                    | Action::Introduce(_)
                    | Action::Cancel => {}
                }
            }
            if recovery.state().phase == Phase::Online {
                break;
            }
        }
    }
}

fn coverage(rng: &mut StdRng) -> Coverage {
    has(&[(1, rng.random_range(0..3)), (2, rng.random_range(0..3)), (3, rng.random_range(0..3))])
}

fn standing(rng: &mut StdRng) -> Standing {
    match rng.random_range(0..5) {
        0 => Standing::Away,
        1 => Standing::Recovering(coverage(rng)),
        _ => Standing::Serving(coverage(rng)),
    }
}
