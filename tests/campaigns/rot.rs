//! Bit rot at full size: round after round of changed bits on one mirror of three.

use crate::harness::content::below;
use crate::harness::damage::{Scene, Where, flip, scrubbed, stored, unchanged_since};
use crate::harness::from_env;
use crate::harness::mirrored::until_live;

/// Objects of up to 40,000 bytes, one in twenty up to ten times that: about 200 MB of content.
const FILES: u64 = 6000;

#[test]
#[ignore = "writes some 800 MB and reads it twenty times"]
fn no_flipped_bit_is_served_or_stays_or_spreads() {
    let (rounds, bits) = (from_env("FOLIO_ROT_ROUNDS", 20), from_env("FOLIO_ROT_BITS", 100));
    let mut seed = from_env("FOLIO_SEED", 1);
    println!("FOLIO_SEED={seed}");
    let cluster = super::cluster(&["a", "a", "a"], 1)
        .storages_with("store.chunkfile_size", "\"16MiB\"")
        .storages_with("scrub.enabled", "false")
        .storages_with("scrub.bandwidth", "\"0\"");
    let mut scene = Scene::new(cluster, from_env("FOLIO_ROT_FILES", FILES), 40_000);
    let others: Vec<_> = [0, 2].map(|n| (n, stored(&scene.cluster.mount_path(n, 0)))).into();
    let mount = scene.cluster.mount_path(1, 0);
    let megabytes = super::disk_usage(&mount) >> 20;
    let (mut found, mut refused) = (0, 0);
    for round in 0..rounds {
        let down = round % 2 == 1;
        if down {
            scene.cluster.storages[1].stop();
        }
        let headers = below(&mut seed, 3);
        let logs = bits / 10;
        flip(&mount, Where::Headers, headers, &mut seed);
        flip(&mount, Where::Logs, logs, &mut seed);
        flip(&mount, Where::Data, bits - headers - logs, &mut seed);
        if down {
            scene.cluster.storages[1].start();
            until_live(&scene.cluster);
        }
        refused += scene.nothing_wrong_from(2);
        let row = scrubbed(&scene.cluster.storages[1]);
        let number = |key: &str| row[key].as_u64().expect("a number");
        assert_eq!(number("open"), 0, "round {round}: {row}");
        assert_eq!(number("found"), number("repaired") + number("gone"), "round {round}: {row}");
        assert!(number("found") > found, "round {round}: nothing was found: {row}");
        // One changed bit is one damage at most.
        assert!(
            number("found") <= found + bits,
            "round {round}: more than {found} and {bits}: {row}"
        );
        found = number("found");
        assert_eq!(scene.nothing_wrong_from(2), 0, "round {round}");
        scene.cluster.storages[1].stop();
        let (last, text) = scene.fsck(1);
        assert_eq!(last, "clean", "round {round}: {text}");
        scene.cluster.storages[1].start();
        until_live(&scene.cluster);
        println!("round {round}: found {found} in all, {refused} reads refused in all");
    }
    scene.is_whole();
    for (n, before) in &others {
        scene.cluster.storages[*n].stop();
        let (last, text) = scene.fsck(*n);
        assert_eq!(last, "clean", "{text}");
        unchanged_since(before, &scene.cluster.mount_path(*n, 0));
    }
    println!("{rounds} rounds of {bits} bits in {megabytes} MiB: {found} damages, all mended");
}
