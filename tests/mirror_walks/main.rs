//! The real engine as a syncgroup: edits anywhere at any time, delivery in any order with duplicates and relays, power
//! cuts and lost synclogs; when everything has been delivered the mirrors are identical, nothing that was deleted is
//! back, and every edit that did not win is in the archive or was built upon (design section 5, P3-P5).
//!
//! `FOLIO_MIRRORS_SEED=N` repeats one walk, `FOLIO_MIRRORS_WALKS=N` sets how many are made.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "reads seeds from the environment")]

mod node;
mod world;

use world::World;

fn seeds(default: u64) -> Vec<u64> {
    let read = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match read("FOLIO_MIRRORS_SEED") {
        Some(seed) => vec![seed],
        None => (0..read("FOLIO_MIRRORS_WALKS").unwrap_or(default)).collect(),
    }
}

fn walk(seed: u64, members: u16, steps: usize, retention: u64) {
    let result = std::panic::catch_unwind(|| {
        let mut world = World::new(seed, members, retention);
        for _ in 0..steps {
            world.step();
        }
        world.heal();
        world.judge();
    });
    if let Err(panic) = result {
        eprintln!("FOLIO_MIRRORS_SEED={seed} members={members} steps={steps}");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn no_two_mirrors_end_different_and_no_edit_vanishes() {
    for seed in seeds(150) {
        walk(seed, 2, 60, 1 << 20);
        walk(seed, 3, 120, 1 << 20);
    }
}

#[test]
fn no_small_log_keeps_a_mirror_behind() {
    for seed in seeds(60) {
        walk(seed, 3, 150, 16 << 10);
    }
}
