//! The test of the tests: each deliberate bug is found by the crash campaign as it is, and without a bug it finds none
//! (`crash_campaign.rs`). Prints where each was found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod crash;

use crash::bound::{Folio, Setup};
use crash::exhaustive::{self, Extent};
use crash::{Finding, seeded};
use folio::store::options::Planted;
use folio::store::sim_disk::{NameOrder, Op};

const CUTS: u64 = 20_000;

/// What the campaign says about it, cheapest part first.
fn hunt(setup: &Setup) -> Option<(&'static str, Finding)> {
    let drawn = |cuts| seeded::run::<Folio>(1, cuts, setup).err();
    let short = |steps, sector, names| {
        let extent = Extent { steps, sector, names, drawn_cuts: 64, nested_one_in: 16 };
        exhaustive::run::<Folio>(&extent, setup).err()
    };
    drawn(1000)
        .or_else(|| short(1, 4096, NameOrder::PerFolder))
        .map(|finding| ("a first look", finding))
        .or_else(|| drawn(CUTS).map(|finding| ("drawn workloads", finding)))
        .or_else(|| {
            short(2, 512, NameOrder::Independent).map(|finding| ("short workloads", finding))
        })
}

fn must_be_found(bug: &str, setup: &Setup) {
    match hunt(setup) {
        Some((part, finding)) => println!("{bug} was found by {part}: {finding}"),
        None => panic!("{bug} was not found: the campaign does not prove what it says"),
    }
}

macro_rules! planted {
    ($($name:ident: $bug:ident,)*) => {
        $(#[test]
        fn $name() {
            must_be_found(stringify!($bug), &Setup::planted(Planted::$bug));
        })*
    };
}

macro_rules! forgotten {
    ($($name:ident: $op:ident $path:literal,)*) => {
        $(#[test]
        fn $name() {
            let bug = concat!("forgotten ", stringify!($op), " of ", $path);
            must_be_found(bug, &Setup::forgetting(Op::$op, $path));
        })*
    };
}

planted! {
    a_log_that_is_not_synced_is_found: SkipLogSync,
    a_slot_written_before_its_record_is_found: ApplyBeforeLog,
    an_acknowledgement_before_the_sync_is_found: AckBeforeLog,
    a_checkpoint_that_does_not_wait_for_its_chunkfiles_is_found: SkipChunkfileSync,
    a_checkpoint_that_is_not_synced_is_found: SkipCheckpointSync,
    a_forgotten_directory_sync_is_found: SkipDirectorySync,
    a_slot_believed_for_its_header_is_found: SkipPayloadCheckInReplay,
    a_segment_recycled_too_early_is_found: RecycleUncovered,
    a_replay_that_writes_nothing_is_found: SkipReplayWrites,
    a_start_count_that_stands_still_is_found: ReuseStartCount,
    an_ignored_short_write_is_found: IgnoreShortWrite,
}

forgotten! {
    no_sync_of_the_log_is_found: SyncData "binlog/",
    no_sync_of_chunkfiles_is_found: SyncData ".chunk",
    no_sync_of_large_objects_is_found: SyncData "singles/",
    no_sync_of_the_label_is_found: SyncData "folio.mount",
    no_sync_of_the_names_of_logs_is_found: SyncDir "binlog",
    no_sync_of_the_names_of_chunkfiles_is_found: SyncDir "chunks/",
    no_sync_of_the_names_of_large_objects_is_found: SyncDir "singles/1",
    no_sync_of_the_names_of_uploads_is_found: SyncDir "singles/tmp",
    no_sync_of_any_name_is_found: SyncDir "",
}
