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

use rules::{Off, Rules};

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn walk_on(walks: impl Fn(u64) -> bool) {
    let first = from_env("FOLIO_MODEL_SEED").unwrap_or(1);
    let begin = std::time::Instant::now();
    let (mut done, mut steps, mut conflicts) = (0, 0, 0);
    while walks(done) {
        match walk::walk(first + done, Rules::default()) {
            Ok((taken, seen)) => {
                steps += taken;
                conflicts += seen;
            }
            Err(finding) => panic!("{finding}"),
        }
        done += 1;
    }
    let took = begin.elapsed();
    println!(
        "FOLIO_MODEL_SEED={first}: {done} walks, {steps} steps, {conflicts} conflicts, {took:?}"
    );
}

#[test]
fn no_walk_breaks_a_promise() {
    let walks = from_env("FOLIO_MODEL_WALKS").unwrap_or(20_000);
    walk_on(|done| done < walks);
}

/// As long as asked: 5 minutes unless FOLIO_MODEL_SECONDS says otherwise. Prints its first seed; each one is new.
#[test]
#[ignore = "minutes to hours; see docs/TESTING.md"]
fn no_long_walk_breaks_a_promise() {
    let seconds = from_env("FOLIO_MODEL_SECONDS").unwrap_or(300);
    let begin = std::time::Instant::now();
    walk_on(|_| begin.elapsed().as_secs() < seconds);
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
