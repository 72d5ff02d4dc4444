//! Mirrors at full size: contended counters and writers, while storages are killed.

use crate::campaign_dir;
use crate::harness::from_env;
use crate::harness::mirrored::{count_up, machine_burns, mirrors, writers_survive};
use std::time::{Duration, Instant};

/// 100,000 increments from 16 clients by compare-and-swap, storages killed one at a time: the counter is exact.
#[test]
#[ignore = "a campaign: see docs/TESTING.md"]
fn no_contended_increment_is_lost_or_counted_twice() {
    let total = from_env("FOLIO_COUNT", 100_000);
    let kills = from_env("FOLIO_COUNT_KILLS", 20);
    let seed = from_env("FOLIO_COUNT_SEED", 1);
    let mut cluster = mirrors(campaign_dir(), 3);
    let begun = Instant::now();
    let tally = count_up(&mut cluster, 16, total / 16, kills, seed);
    println!("{total} increments, {kills} kills in {:?}: {tally:?}", begun.elapsed());
    cluster.stop_all();
}

/// One of two storages is killed under unconditional writes, again and again: the longest gap of a writer is a second.
#[test]
#[ignore = "a campaign: see docs/TESTING.md"]
fn no_writer_waits_longer_than_a_second_for_a_dead_storage() {
    let rounds = from_env("FOLIO_GAP_ROUNDS", 10);
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        let mut cluster = mirrors(campaign_dir(), 2);
        let fared = writers_survive(&mut cluster, 16, 5_000);
        println!("round {round}: {fared:?}");
        longest = longest.max(fared.longest);
        cluster.stop_all();
    }
    println!("longest gap in {rounds} rounds: {longest:?}");
    assert!(longest <= Duration::from_secs(1), "{longest:?}");
}

/// Twenty clusters, and in each the machine that acknowledges dies with its disks.
#[test]
#[ignore = "a campaign: see docs/TESTING.md"]
fn no_change_with_two_copies_dies_with_a_machine() {
    let (rounds, seed) = (from_env("FOLIO_BURN_ROUNDS", 20), from_env("FOLIO_BURN_SEED", 1));
    for round in 0..rounds {
        let report = machine_burns(campaign_dir(), seed + round);
        println!("round {round} (FOLIO_BURN_SEED={}): {report}", seed + round);
    }
}
