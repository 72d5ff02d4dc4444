//! Bit rot: real daemons whose files are changed under them, while they run and while they are down. What must not happen:
//! wrong bytes for anybody, damage that stays, damage that spreads, counters that lie.

use crate::harness::cluster::Cluster;
use crate::harness::content::content;
use crate::harness::damage::{
    Scene, Where, files, flip, flip_bit, open_damage, scrub, scrubbed, stored, unchanged_since,
};
use crate::harness::mirrored::{json, until_live};
use crate::harness::{PATIENCE, eventually, from_env};
use crate::mirrors::{conflict, put_on_first};
use std::path::PathBuf;

fn three() -> Cluster {
    Cluster::new(1, &["a", "a", "a"], 1)
        .storages_with("store.chunkfile_size", "\"4MiB\"")
        // Rounds are asked for.
        .storages_with("scrub.enabled", "false")
        .storages_with("scrub.bandwidth", "\"0\"")
}

fn seed() -> u64 {
    let seed = from_env("FOLIO_SEED", 1);
    println!("FOLIO_SEED={seed}");
    seed
}

/// Where an object's home lies on a mount: its chunkfile, and the offset there.
fn home(scene: &Scene, storage: usize, id: &str) -> (PathBuf, u64) {
    let id: folio::format::file_id::FileId = id.parse().unwrap();
    let home = id.object.home().address;
    let path = folio::format::paths::chunk(home.chunkfile());
    (scene.cluster.mount_path(storage, 0).join(path), home.offset())
}

fn number(row: &serde_json::Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("no {key} in {row}"))
}

/// Everything found is repaired, and nothing is left.
fn all_is_mended(row: &serde_json::Value) {
    assert_eq!(number(row, "open"), 0, "{row}");
    assert_eq!(number(row, "found"), number(row, "repaired") + number(row, "gone"), "{row}");
}

#[test]
fn flipped_bits_of_a_mirror_that_runs_are_never_served_and_all_mended() {
    let mut scene = Scene::new(three(), 150, 20_000);
    let mut seed = seed();
    let others: Vec<_> = (0..2).map(|n| stored(&scene.cluster.mount_path(n, 0))).collect();
    let right = stored(&scene.cluster.mount_path(2, 0));
    let mount = scene.cluster.mount_path(2, 0);
    flip(&mount, Where::Data, 60, &mut seed);
    flip(&mount, Where::Headers, 2, &mut seed);
    flip(&mount, Where::Logs, 10, &mut seed);
    let refused = scene.nothing_wrong_from(3);
    let row = scrubbed(&scene.cluster.storages[2]);
    all_is_mended(&row);
    assert!(number(&row, "found") > 0, "{refused} were refused: {row}");
    assert_eq!(scene.nothing_wrong_from(3), 0);
    scene.is_whole();
    let again = scrubbed(&scene.cluster.storages[2]);
    assert_eq!(number(&again, "found"), number(&row, "found"), "nothing is found twice");
    scene.cluster.storages[2].stop();
    let (last, text) = scene.fsck(2);
    assert_eq!(last, "clean", "{text}");
    for (n, before) in others.iter().enumerate() {
        unchanged_since(before, &scene.cluster.mount_path(n, 0));
    }
    let names = |files: &std::collections::BTreeMap<PathBuf, Vec<u64>>| {
        files.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(names(&stored(&mount)), names(&right), "files came or went");
}

#[test]
fn flipped_bits_of_a_mirror_that_was_down_are_never_served_and_all_mended() {
    let mut scene = Scene::new(three(), 120, 20_000);
    let mut seed = seed();
    let mount = scene.cluster.mount_path(1, 0);
    scene.cluster.storages[1].stop();
    flip(&mount, Where::Data, 50, &mut seed);
    flip(&mount, Where::Headers, 1, &mut seed);
    flip(&mount, Where::Logs, 10, &mut seed);
    assert_ne!(scene.fsck(1).0, "clean", "there is something to be found");
    scene.cluster.storages[1].start();
    until_live(&scene.cluster);
    scene.nothing_wrong_from(2);
    all_is_mended(&scrubbed(&scene.cluster.storages[1]));
    assert_eq!(scene.nothing_wrong_from(2), 0);
    scene.is_whole();
    scene.cluster.storages[1].stop();
    let (last, text) = scene.fsck(1);
    assert_eq!(last, "clean", "{text}");
}

/// A file is removed from outside while the storage is down: what was in it is not called gone by anybody, and is there again
/// after one round.
#[test]
fn a_chunkfile_that_was_removed_is_missed_and_filled_from_a_mirror() {
    let mut scene = Scene::new(three(), 60, 20_000);
    let own = scene.cluster.mount_path(0, 0).join("chunks/1");
    scene.cluster.storages[0].stop();
    let chunks = files(&scene.cluster.mount_path(0, 0), Where::Headers);
    let removed: Vec<_> = chunks.into_iter().filter(|path| path.starts_with(&own)).collect();
    assert!(!removed.is_empty(), "machine 1 took some of the objects");
    for path in &removed {
        std::fs::remove_file(path).unwrap();
    }
    scene.cluster.storages[0].start();
    until_live(&scene.cluster);
    let manifest = scene.manifest.to_str().unwrap();
    let verified = scene.cli().run(["verify", manifest]).ok().last_line();
    assert!(verified.ends_with("ok, 0 missing, 0 different"), "{verified}");
    all_is_mended(&scrubbed(&scene.cluster.storages[0]));
    assert_eq!(scene.nothing_wrong_from(1), 0, "all is there again");
    scene.is_whole();
    scene.cluster.storages[0].stop();
    let (last, text) = scene.fsck(0);
    assert_eq!(last, "clean", "{text}");
}

#[test]
fn a_header_of_which_nothing_is_left_is_found_by_comparing_and_the_counters_are_exact() {
    let scene = Scene::new(three(), 20, 5_000);
    let id = scene.cli().put(content(77, 0, 3000));
    let node = &scene.cluster.storages[0];
    let objects = |node: &crate::harness::cluster::Node| {
        json(&node.admin("mounts json"))["mounts"][0]["objects"].clone()
    };
    // Numbers are looked up about once a second.
    eventually("all objects are counted", PATIENCE, || (objects(node) == 21).then_some(()));
    let (path, offset) = home(&scene, 0, &id);
    let file = std::fs::File::options().write(true).open(path).unwrap();
    // Not even the magic.
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 192], offset).unwrap();
    let row = scrubbed(node);
    all_is_mended(&row);
    assert_eq!(number(&row, "found"), 1, "{row}");
    assert_eq!(scene.nothing_wrong_from(1), 0);
    scene.cli().run(["get", &id, "--from", "1"]).ok();
    // One more, and not two.
    scene.cli().put(content(80, 0, 100));
    eventually("no object is counted twice", PATIENCE, || (objects(node) == 22).then_some(()));
    // What was there is kept aside.
    let kept = std::fs::read_dir(scene.cluster.mount_path(0, 0).join("damaged")).unwrap();
    assert_eq!(kept.count(), 1);
}

#[test]
fn damage_that_a_read_meets_is_mended_without_a_command() {
    let scene = Scene::new(three(), 20, 5_000);
    let small = scene.cli().put(content(78, 0, 3000));
    let large = scene.cli().put(content(79, 0, 300_000));
    for id in [&small, &large] {
        let owner = scene.cli().stat(id)["owner"].as_u64().unwrap();
        let storage = usize::try_from(owner).unwrap() - 1;
        let node = &scene.cluster.storages[storage];
        let before = scrub(node);
        if id == &small {
            let (path, offset) = home(&scene, storage, id);
            flip_bit(&path, offset + 192 + 100, 3);
        } else {
            let singles = scene.cluster.mount_path(storage, 0).join("singles");
            let newest = stored(singles.parent().unwrap()).into_keys();
            let newest = newest.filter(|path| path.starts_with(&singles));
            let newest = newest.max_by_key(|path| path.metadata().unwrap().modified().unwrap());
            flip_bit(&newest.unwrap(), 200_000, 5);
        }
        // Whoever reads gets it all the same, if it fits one answer; whoever asks this machine gets nothing.
        if id == &small {
            assert_eq!(scene.cli().get(id), content(78, 0, 3000));
        }
        scene.cli().run(["get", id, "--from", &owner.to_string()]);
        eventually("the object is mended", PATIENCE, || {
            let now = scrub(node);
            let repaired = number(&now, "repaired") == number(&before, "repaired") + 1;
            (repaired && number(&now, "open") == 0).then_some(())
        });
        assert_eq!(number(&scrub(node), "by_reads"), number(&before, "by_reads") + 1);
        let mended = scene.cli().run(["get", id, "--from", &owner.to_string()]).ok();
        assert_eq!(mended.stdout.len(), if id == &small { 3000 } else { 300_000 });
    }
}

#[test]
fn what_nobody_has_whole_is_named_until_it_is_put_in_again() {
    let mut cluster = Cluster::new(1, &["a"], 1).storages_with("scrub.enabled", "false");
    cluster.start();
    let id = cluster.cli().put(content(1, 0, 9000));
    let scene_home = |id: &str| {
        let id: folio::format::file_id::FileId = id.parse().unwrap();
        let home = id.object.home().address;
        let path = folio::format::paths::chunk(home.chunkfile());
        (cluster.mount_path(0, 0).join(path), home.offset())
    };
    let (path, offset) = scene_home(&id);
    flip_bit(&path, offset + 192 + 5000, 0);
    let row = scrubbed(&cluster.storages[0]);
    assert_eq!((number(&row, "found"), number(&row, "open")), (1, 1), "{row}");
    assert_eq!(open_damage(&cluster.storages[0]).len(), 1);
    cluster.cli().run(["get", &id]).exits(1);
    let says = |node: &crate::harness::cluster::Node| {
        node.admin("status").contains("1 damaged object of mount 0 could not be repaired")
    };
    assert!(says(&cluster.storages[0]));
    // Also after a restart.
    cluster.storages[0].stop();
    cluster.storages[0].start();
    eventually("it is still known", PATIENCE, || says(&cluster.storages[0]).then_some(()));
    let new = cluster.dir.path().join("new");
    std::fs::write(&new, content(1, 1, 9000)).unwrap();
    cluster.cli().run(["modify".as_ref(), id.as_ref(), new.as_os_str()]).ok();
    let row = scrubbed(&cluster.storages[0]);
    assert_eq!((number(&row, "found"), number(&row, "open")), (1, 0), "{row}");
    assert!(!says(&cluster.storages[0]));
    cluster.storages[0].stop();
}

#[test]
fn damaged_logs_checkpoint_and_label_are_renewed_and_say_no_less() {
    let mut scene = Scene::new(three(), 40, 10_000);
    let mount = scene.cluster.mount_path(0, 0);
    let mut logs = 0;
    for path in files(&mount, Where::Logs) {
        // In the first batch behind the header of the segment.
        flip_bit(&path, 4096 + 70, 2);
        logs += 1;
    }
    assert_eq!(logs, 3, "our own log, and one of each mirror");
    flip_bit(&mount.join("checkpoint"), 40, 1);
    flip_bit(&mount.join("folio.mount"), 30, 1);
    let node = &scene.cluster.storages[0];
    eventually("the label is written again", PATIENCE, || {
        (number(&scrub(node), "repaired") > 0).then_some(())
    });
    assert_eq!(json(&node.admin("mounts json"))["mounts"][0]["state"], "online");
    let row = scrubbed(node);
    all_is_mended(&row);
    // A checkpoint may have been written meanwhile.
    assert!((4..=5).contains(&number(&row, "found")), "{row}");
    scene.is_whole();
    let id = scene.cli().put(content(90, 0, 3000));
    assert_eq!(scene.cli().get(&id), content(90, 0, 3000));
    scene.cluster.storages[0].stop();
    let (last, text) = scene.fsck(0);
    assert_eq!(last, "clean", "{text}");
    scene.cluster.storages[0].start();
    until_live(&scene.cluster);
    scene.is_whole();
}

/// Behind the last batch of a log nothing says that there was one; the daemon knows.
#[test]
fn no_last_batch_of_a_log_rots_unseen() {
    let mut scene = Scene::new(three(), 40, 10_000);
    let mount = scene.cluster.mount_path(0, 0);
    for path in files(&mount, Where::Logs) {
        let bytes = std::fs::read(&path).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        flip_bit(&path, last as u64, 3);
    }
    let row = scrubbed(&scene.cluster.storages[0]);
    all_is_mended(&row);
    assert_eq!(number(&row, "found"), 3, "our own log, and one of each mirror: {row}");
    scene.is_whole();
    scene.cluster.storages[0].stop();
    let (last, text) = scene.fsck(0);
    assert_eq!(last, "clean", "{text}");
}

#[test]
fn damaged_logs_of_a_mirror_that_was_down_are_renewed() {
    let mut scene = Scene::new(three(), 40, 10_000);
    let mount = scene.cluster.mount_path(0, 0);
    scene.cluster.storages[0].stop();
    for path in files(&mount, Where::Logs) {
        flip_bit(&path, 4096 + 70, 2);
    }
    assert_ne!(scene.fsck(0).0, "clean", "there is something to be found");
    scene.cluster.storages[0].start();
    until_live(&scene.cluster);
    all_is_mended(&scrubbed(&scene.cluster.storages[0]));
    scene.is_whole();
    scene.cluster.storages[0].stop();
    let (last, text) = scene.fsck(0);
    assert_eq!(last, "clean", "{text}");
}

/// Losing versions are as dear as those that won: they are verified, and come from a mirror when they are damaged, small and large.
#[test]
fn no_losing_version_rots_away() {
    let mut cluster = crate::harness::mirrored::mirrors(tempfile::TempDir::new().unwrap(), 2);
    for loses in [b"the edit that loses".to_vec(), vec![b'L'; 100_000]] {
        let id = put_on_first(&cluster, b"first");
        conflict(&mut cluster, &id, &loses, b"the edit that wins");
    }
    let archives: Vec<PathBuf> = [0, 1].map(|n| cluster.mount_path(n, 0).join("conflicts")).into();
    eventually("both keep both", PATIENCE, || {
        let kept = |path: &PathBuf| std::fs::read_dir(path).map_or(0, |entries| entries.count());
        archives.iter().all(|path| kept(path) == 3).then_some(())
    });
    let content = |path: &PathBuf| -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
        let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| (PathBuf::from(path.file_name().unwrap()), std::fs::read(&path).unwrap()))
            .collect()
    };
    let (before, other) = (content(&archives[0]), content(&archives[1]));
    for (name, bytes) in &before {
        // In the content of the small one, the head of the other, a block of the large content.
        let offset = bytes.len() as u64 * 9 / 10;
        flip_bit(&archives[0].join(name), offset, 3);
    }
    let row = scrubbed(&cluster.storages[0]);
    all_is_mended(&row);
    // The entry of the large one and its content are one damage.
    assert_eq!(number(&row, "found"), 2, "{row}");
    assert!(number(&row, "kept_aside") > 100_000, "the damaged bytes are kept aside: {row}");
    assert_eq!(content(&archives[0]), before, "as it was written");
    assert_eq!(content(&archives[1]), other, "the mirror is as it was");
    let again = scrubbed(&cluster.storages[0]);
    assert_eq!(number(&again, "found"), 2, "{again}");
    cluster.stop_all();
}

/// A label that rotted while nobody looked needs no operator; if its copy rotted, too, what is said names the command that helps.
#[test]
fn a_label_that_rotted_while_the_daemon_was_down_needs_nobody() {
    let mut scene = Scene::new(three(), 40, 10_000);
    let mount = scene.cluster.mount_path(0, 0);
    scene.cluster.storages[0].stop();
    flip_bit(&mount.join("folio.mount"), 30, 1);
    assert_ne!(scene.fsck(0).0, "clean", "there is something to be found");
    scene.cluster.storages[0].start();
    until_live(&scene.cluster);
    assert_eq!(
        json(&scene.cluster.storages[0].admin("mounts json"))["mounts"][0]["state"],
        "online"
    );
    assert!(number(&scrub(&scene.cluster.storages[0]), "kept_aside") > 0);
    scene.is_whole();
    scene.cluster.storages[0].stop();
    let (last, text) = scene.fsck(0);
    assert_eq!(last, "clean", "{text}");

    flip_bit(&mount.join("folio.mount"), 30, 1);
    flip_bit(&mount.join("folio.mount.copy"), 31, 1);
    scene.cluster.storages[0].spawn();
    let node = &scene.cluster.storages[0];
    eventually("status names what helps", PATIENCE, || {
        node.try_admin("status").filter(|text| text.contains("recover 0 start --confirm"))
    });
    node.admin("recover 0 start --confirm");
    eventually("it is refilled", 4 * PATIENCE, || {
        (json(&node.admin("mounts json"))["mounts"][0]["state"] == "online").then_some(())
    });
    until_live(&scene.cluster);
    scene.is_whole();
}
