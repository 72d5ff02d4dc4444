//! The executable model of the mirrors: two or three of them, a few objects and places, everything that can happen.
//! See docs/MODEL.md.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod checks;
mod dice;
mod exhaustive;
mod history;
mod mirror;
mod places;
mod rules;
mod stories;
mod takeover;
mod walk;
mod world;

use history::Kind;
use rules::{Off, Rules};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use world::Step;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Walks on all cores, at least so many and at least for so long; the seeds follow each other.
fn walk_on(walks: u64, seconds: u64) {
    let first = from_env("FOLIO_MODEL_SEED").unwrap_or(1);
    let begin = Instant::now();
    let (next, found) = (AtomicU64::new(0), AtomicBool::new(false));
    let some = || -> Result<(u64, usize, u32), String> {
        let (mut done, mut steps, mut conflicts) = (0, 0, 0);
        while !found.load(Ordering::Relaxed) {
            let walk = next.fetch_add(1, Ordering::Relaxed);
            if walk >= walks && begin.elapsed().as_secs() >= seconds {
                break;
            }
            let (taken, seen) = walk::walk(first + walk, Rules::default()).map_err(|finding| {
                found.store(true, Ordering::Relaxed);
                finding.to_string()
            })?;
            done += 1;
            steps += taken;
            conflicts += seen;
        }
        Ok((done, steps, conflicts))
    };
    let threads = threads();
    let (mut done, mut steps, mut conflicts) = (0, 0, 0);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        for one in all {
            let (d, s, c) = one.join().expect("a walk").unwrap_or_else(|found| panic!("{found}"));
            done += d;
            steps += s;
            conflicts += c;
        }
    });
    let took = begin.elapsed();
    println!(
        "FOLIO_MODEL_SEED={first}: {done} walks, {steps} steps, {conflicts} conflicts, {took:?}"
    );
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The share in `cargo test`: five minutes over all cores, or as many walks as FOLIO_MODEL_WALKS says.
#[test]
fn no_walk_breaks_a_promise() {
    match from_env("FOLIO_MODEL_WALKS") {
        Some(walks) => walk_on(walks, 0),
        None => {
            let share = 300_u64.div_ceil(threads() as u64);
            walk_on(20_000, from_env("FOLIO_MODEL_SECONDS").unwrap_or(share));
        }
    }
}

/// As long as asked: 5 minutes unless FOLIO_MODEL_SECONDS says otherwise. Prints its first seed; each one is new.
#[test]
#[ignore = "minutes to hours; see docs/TESTING.md"]
fn no_long_walk_breaks_a_promise() {
    walk_on(0, from_env("FOLIO_MODEL_SECONDS").unwrap_or(300));
}

fn tell(steps: &[Step], mirrors: usize, blank: usize) {
    if let Err(broken) = walk::replay(steps, mirrors, blank, Rules::default()) {
        panic!("{broken}");
    }
}

/// It began anew by a report in the last round of healing, and nobody looked at it again.
#[test]
fn no_joining_machine_that_begins_anew_is_left_blank() {
    let steps = [
        Step::Forget(1, 0),
        Step::Cable(1, 2, true),
        Step::Recover(2, 215, 215),
        Step::Cable(1, 2, false),
        Step::Pull(1, 2),
        Step::Pull(2, 1),
    ];
    tell(&steps, 3, 1);
}

/// A delete reached only a new machine, as state, from one whom the owner then removed without having heard of the new
/// machine: the owner uses the place of the version that wins again, and never takes it.
#[test]
fn no_edit_beside_a_forget_keeps_the_mirrors_from_coming_to_rest() {
    let steps = [
        Step::Put(1, false),
        Step::Recover(2, 241, 0),
        Step::Put(1, false),
        Step::Put(0, false),
        Step::Edit(0, 2, Kind::Move, false),
        Step::Mend(0, 1, 2),
        Step::Edit(1, 2, Kind::Delete, false),
        Step::Mend(1, 2, 2),
        Step::Edit(0, 2, Kind::Move, false),
        Step::Forget(0, 1),
        Step::Report(0, 0),
        Step::Edit(0, 2, Kind::Move, false),
    ];
    tell(&steps, 3, 1);
}

/// It came while one member was cut off, and who alone could tell that one of it was forgotten there.
#[test]
fn no_new_machine_serves_before_those_who_are_away_count_it() {
    let steps = [
        Step::Put(0, false),
        Step::Put(0, false),
        Step::Edit(0, 1, Kind::Delete, false),
        Step::Recover(2, 61, 61),
        Step::Cable(0, 2, true),
        Step::Pull(2, 1),
        Step::Exchange(1, 2),
        Step::Report(1, 2),
        Step::Forget(0, 1),
        Step::Recycle(0),
        Step::Edit(0, 1, Kind::Purge, false),
        Step::Report(0, 0),
        Step::Edit(0, 0, Kind::Move, false),
    ];
    tell(&steps, 3, 1);
}

/// It had heard that it was forgotten, with everything that was done since, and was copied from all the same.
#[test]
fn no_new_machine_copies_from_one_that_knows_it_is_forgotten() {
    let steps = [
        Step::Pull(0, 1),
        Step::Put(1, false),
        Step::Pull(1, 0),
        Step::Forget(1, 0),
        Step::Edit(1, 0, Kind::Delete, false),
        Step::Put(1, false),
        Step::Edit(1, 0, Kind::Purge, false),
        Step::Report(1, 1),
        Step::Edit(1, 1, Kind::Move, false),
        Step::Edit(1, 1, Kind::Move, false),
        Step::Recover(2, 225, 225),
        Step::Exchange(1, 0),
        Step::Exchange(0, 2),
    ];
    tell(&steps, 3, 1);
}

/// Copied, deleted, purged, its place used again by who did not count the joining machine yet: then it copies once more,
/// and no record will ever tell it.
#[test]
fn no_joining_machine_keeps_what_was_purged_between_two_of_its_copies() {
    let steps = [
        Step::Put(1, false),
        Step::Put(1, false),
        Step::Forget(1, 0),
        Step::Return(0, false),
        Step::Recover(0, 171, 0),
        Step::Edit(1, 1, Kind::Delete, false),
        Step::Edit(1, 1, Kind::Purge, false),
        Step::Report(1, 1),
        Step::Edit(1, 0, Kind::Move, false),
        Step::Edit(1, 0, Kind::Move, false),
        Step::Exchange(1, 0),
    ];
    tell(&steps, 2, 0);
}

#[test]
fn no_order_of_a_few_steps_breaks_a_promise() {
    let deeper = from_env("FOLIO_MODEL_DEPTH").map_or(0, |deeper| deeper as usize);
    for corner in [
        exhaustive::two_writers(4 + deeper),
        exhaustive::places(5 + deeper),
        exhaustive::lost_disk(4 + deeper),
    ] {
        let begin = std::time::Instant::now();
        match exhaustive::explore(&corner, Rules::default()) {
            Ok(tally) => println!(
                "{}, depth {}: {tally:?}, {:?}",
                corner.name,
                corner.depth,
                begin.elapsed()
            ),
            Err(broken) => panic!("{broken}"),
        }
    }
}

#[test]
fn no_acknowledged_edit_loses_to_one_that_was_never_sent() {
    let first = from_env("FOLIO_MODEL_SEED").unwrap_or(1);
    for seed in first..first + from_env("FOLIO_MODEL_WALKS").unwrap_or(5_000) {
        if let Err(broken) = takeover::run(seed, Rules::default()) {
            panic!("{broken}\n  at FOLIO_MODEL_SEED={seed}");
        }
    }
}

/// Each rule that walks find to be needed, by chance, within a few thousand of them.
const BY_CHANCE: &[Off] = &[
    Off::Vectors,
    Off::Conflicts,
    Off::NoJoin,
    Off::PruneByCoverage,
    Off::Archive,
    Off::RetriedEdit,
    Off::LifeLeads,
    Off::AbsenceProvesNothing,
    Off::Tenants,
    Off::Stays,
    Off::SecondWait,
    Off::BothWaits,
    Off::NewLogId,
    Off::Identity,
    Off::Evidence,
    Off::CatchUp,
];

#[test]
fn every_rule_that_is_switched_off_is_caught_by_walks() {
    let first = from_env("FOLIO_MODEL_SEED").unwrap_or(1);
    let walks = from_env("FOLIO_MODEL_WALKS").unwrap_or(60_000);
    for off in BY_CHANCE {
        let rules = Rules { off: Some(*off) };
        match (first..first + walks).find_map(|seed| walk::walk(seed, rules).err()) {
            Some(found) => println!("{off:?} switched off: {found}"),
            None => panic!(
                "{off:?} can be switched off and nobody objects: the checks do not prove what they say"
            ),
        }
    }
}

#[test]
fn every_rule_that_is_switched_off_is_caught_by_its_story() {
    let mut wrong = Vec::new();
    for story in stories::STORIES {
        let steps = [stories::warm_up(story.mirrors).as_slice(), story.steps].concat();
        let tell = |rules| walk::replay(&steps, story.mirrors, 0, rules);
        if let Err(broken) = tell(Rules::default()) {
            wrong.push(format!(
                "{:?}: the story breaks a promise with all rules: {broken}",
                story.off
            ));
        }
        match tell(Rules { off: Some(story.off) }) {
            Err(broken) => println!("{:?} switched off: {broken}", story.off),
            Ok(()) => wrong.push(format!("{:?} can be switched off and nobody objects", story.off)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_take_over_without_its_rules_loses_acknowledged_edits() {
    for off in [Off::Barrier, Off::TakeOverStep, Off::EveryStep] {
        let rules = Rules { off: Some(off) };
        let found = (1..20_000)
            .find_map(|seed| takeover::run(seed, rules).err().map(|broken| (seed, broken)));
        match found {
            Some((seed, broken)) => println!("{off:?} switched off, seed {seed}: {broken}"),
            None => panic!("{off:?} can be switched off and nobody objects"),
        }
    }
}
