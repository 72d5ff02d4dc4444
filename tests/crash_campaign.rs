//! Nothing that was acknowledged is lost, and nothing is ever mixed, whenever the power goes (P1, P2, P5; R8-R10).
//!
//! Budget: two minutes of CPU in all. Seeds are printed; `FOLIO_CRASH_SEED=n` starts there, `FOLIO_CRASH_CUTS=n` sets
//! how many power cuts the long run takes, `FOLIO_CRASH_LOG=1` tells every call of the disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod crash;

use crash::bound::{Folio, Setup};
use crash::exhaustive::{self, Extent};
use crash::{faults, seeded};
use folio::store::sim_disk::NameOrder;

fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn first_seed() -> u64 {
    from_env("FOLIO_CRASH_SEED", 1)
}

/// Runs `count` seeds of a fault test; how many said yes.
fn seeds(count: u64, mut one: impl FnMut(u64, &Setup) -> Result<bool, String>) -> u64 {
    let first = first_seed();
    let setup = Setup::default();
    let hits = (first..first + count).filter(|seed| {
        one(*seed, &setup).unwrap_or_else(|what| panic!("{what}\n  at FOLIO_CRASH_SEED={seed}"))
    });
    let hits = hits.count() as u64;
    println!("seeds {first}..{}: {hits} hits", first + count);
    hits
}

fn exhaust(extent: Extent) {
    match exhaustive::run::<Folio>(&extent, &Setup::default()) {
        Ok(tally) => println!("{extent:?}: {tally}"),
        Err(finding) => panic!("{finding}"),
    }
}

#[test]
fn twenty_thousand_power_cuts_lose_nothing_that_was_acknowledged() {
    let (first, cuts) = (first_seed(), from_env("FOLIO_CRASH_CUTS", 20_000));
    match seeded::run::<Folio>(first, cuts, &Setup::default()) {
        Ok(tally) => println!("from FOLIO_CRASH_SEED={first}: {tally}"),
        Err(finding) => panic!("{finding}"),
    }
}

#[test]
fn no_workload_of_three_steps_loses_anything_at_any_crash_point() {
    let (sector, names) = (4096, NameOrder::PerFolder);
    exhaust(Extent { steps: 3, sector, names, drawn_cuts: 64, nested_one_in: 16 });
}

#[test]
fn nor_on_small_sectors_with_names_that_land_in_any_order() {
    let (sector, names) = (512, NameOrder::Independent);
    exhaust(Extent { steps: 2, sector, names, drawn_cuts: 64, nested_one_in: 8 });
}

#[test]
fn a_failed_call_is_never_followed_by_an_empty_promise() {
    seeds(800, |seed, setup| faults::failing_call::<Folio>(seed, setup).map(|()| false));
}

#[test]
fn a_full_disk_loses_nothing_and_goes_on_when_there_is_room() {
    seeds(60, |seed, setup| faults::full_disk::<Folio>(seed, setup).map(|()| false));
}

#[test]
fn a_lying_disk_never_makes_us_answer_with_what_nobody_wrote() {
    let hits = seeds(1500, faults::lying_disk::<Folio>);
    assert!(hits > 300, "the lies must hurt often enough to prove anything");
}
