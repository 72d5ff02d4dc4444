//! The real engine as a syncgroup: edits anywhere at any time, delivery in any order with duplicates and relays, power
//! cuts and lost synclogs; when everything has been delivered the mirrors are identical, nothing that was deleted is
//! back, and every edit that did not win is in the archive or was built upon (design section 5, P3-P5). `fsck` has nothing
//! to say about any of the mounts, killed, cut off or whole.
//!
//! `FOLIO_MIRRORS_SEED=N` repeats one walk, `FOLIO_MIRRORS_WALKS=N` sets how many are made.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "reads seeds from the environment")]

mod damage;
mod fields;
mod node;
mod stories;
mod world;

use world::World;

fn seeds(default: u64) -> Vec<u64> {
    let read = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match read("FOLIO_MIRRORS_SEED") {
        Some(seed) => vec![seed],
        None => {
            let from = read("FOLIO_MIRRORS_FROM").unwrap_or(0);
            (from..from + read("FOLIO_MIRRORS_WALKS").unwrap_or(default)).collect()
        }
    }
}

/// One walk; whether it kept every promise. What it broke is printed with its seed.
fn walk(seed: u64, members: u16, steps: usize, retention: u64) -> bool {
    let result = std::panic::catch_unwind(|| {
        let mut world = World::new(seed, members, retention);
        for _ in 0..steps {
            world.step();
        }
        world.heal();
        world.judge();
        world.fsck();
    });
    if result.is_err() {
        eprintln!("FOLIO_MIRRORS_SEED={seed} members={members} steps={steps}");
    }
    result.is_ok()
}

/// All walks are made, so that one run names every seed that is worth a look.
fn judge(failed: &[u64]) {
    assert!(failed.is_empty(), "walks failed: FOLIO_MIRRORS_SEED of {failed:?}");
}

#[test]
fn no_two_mirrors_end_different_and_no_edit_vanishes() {
    let mut failed = Vec::new();
    for seed in seeds(150) {
        let two = walk(seed, 2, 60, 1 << 20);
        let three = walk(seed, 3, 120, 1 << 20);
        failed.extend((!two || !three).then_some(seed));
    }
    judge(&failed);
}

#[test]
fn no_small_log_keeps_a_mirror_behind() {
    let mut failed = Vec::new();
    for seed in seeds(60) {
        failed.extend((!walk(seed, 3, 150, 16 << 10)).then_some(seed));
    }
    judge(&failed);
}

/// The same edits, told in many ways: the same versions stand, with the same bytes, whatever came first, twice, or as
/// state instead of records.
#[test]
fn no_order_of_the_same_records_ends_different() {
    const ORDERS: u64 = 8;
    for seed in seeds(40) {
        let mut apart = World::new(seed, 3, 1 << 20);
        apart.edit_apart(6, 30);
        let mut first = None;
        for order in 0..ORDERS {
            let mut world = apart.fork(seed * ORDERS + order);
            for _ in 0..60 {
                world.tell();
            }
            world.heal();
            world.judge();
            let end = world.end();
            let first = first.get_or_insert_with(|| end.clone());
            assert!(*first == end, "FOLIO_MIRRORS_SEED={seed}: order {order} ends different");
        }
    }
}
