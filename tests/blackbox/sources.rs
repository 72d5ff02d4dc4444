//! What a lost mount is refilled from: sources that are damaged, behind, or have something that others lack; and a
//! machine that was replaced while the only one that knew its last puts was away.

use crate::harness::cluster::{Cluster, Node};
use crate::harness::content::content;
use crate::harness::mirrored::until_live;
use crate::harness::refilled::{empty, until_recovered};
use crate::harness::run::Cli;
use crate::harness::{PATIENCE, eventually};
use std::collections::BTreeSet;
use std::path::Path;

const OBJECTS: u64 = 40;

fn cluster(storages: usize, base_wait: &str) -> Cluster {
    let cluster = Cluster::new(1, &vec!["a"; storages], 1)
        .storages_with("store.chunkfile_size", "\"4MiB\"")
        .storages_with("recovery.base_wait", base_wait)
        .started();
    until_live(&cluster);
    cluster
}

fn patient(cluster: &Cluster) -> Cli {
    Cli { timeout: Some("20s"), ..cluster.cli() }
}

/// So many objects, each with its bytes.
fn store(cluster: &Cluster, first: u64, count: u64) -> Vec<(String, u64)> {
    let cli = patient(cluster);
    (first..first + count).map(|index| (cli.put(content(index, 0, 3000)), index)).collect()
}

/// Every machine comes to answer each of these with its bytes, and never with others.
fn all_have(cluster: &Cluster, stored: &[(String, u64)], machines: &[u64]) {
    let cli = patient(cluster);
    for (id, index) in stored {
        for machine in machines {
            eventually(&format!("{id} is on machine {machine}"), 2 * PATIENCE, || {
                let got = cli.run(["get", id, "--from", &machine.to_string()]);
                if got.code != 0 {
                    return None;
                }
                assert!(got.stdout == content(*index, 0, 3000), "{id} from machine {machine}");
                Some(())
            });
        }
    }
}

/// Flips a bit in the middle of an object's content on a storage that does not run.
fn damage(mount: &Path, index: u64) {
    let content = content(index, 0, 3000);
    let mut todo = vec![mount.join("chunks")];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let mut bytes = std::fs::read(&path).expect("chunkfile");
            let found = bytes.windows(content.len()).position(|part| part == content);
            if let Some(at) = found {
                bytes[at + 1500] ^= 4;
                std::fs::write(&path, bytes).expect("chunkfile");
                return;
            }
        }
    }
    panic!("object {index} is in no chunkfile of {}", mount.display());
}

fn lose(cluster: &mut Cluster, storage: usize) {
    cluster.storages[storage].take().kill();
    empty(&cluster.mount_path(storage, 0));
}

/// Machine 2 has object 7 damaged when machine 1 loses its disk and is refilled; what was stored, and how that ended.
fn refilled_beside_damage(machines: usize) -> (Cluster, Vec<(String, u64)>, serde_json::Value) {
    let mut cluster = cluster(machines, "\"60s\"");
    let stored = store(&cluster, 0, OBJECTS);
    until_live(&cluster);
    cluster.storages[1].stop();
    damage(&cluster.mount_path(1, 0), 7);
    lose(&mut cluster, 0);
    cluster.start();
    let ended = until_recovered(&cluster.storages[0], 0);
    (cluster, stored, ended)
}

#[test]
fn damage_at_a_source_is_not_spread_and_the_other_mirror_gives_the_object() {
    let (mut cluster, stored, ended) = refilled_beside_damage(3);
    assert!(!ended["why"].as_str().unwrap_or("").contains("damaged"), "{ended}");
    all_have(&cluster, &stored, &[1, 3]);
    cluster.stop_all();
}

#[test]
fn what_the_only_source_has_damaged_is_reported_and_never_spread() {
    let (mut cluster, stored, ended) = refilled_beside_damage(2);
    let why = ended["why"].as_str().expect("text");
    assert!(why.contains("damaged everywhere: 1 object"), "{why}");
    let said = cluster.storages[0].daemon().stderr();
    assert!(said.contains("given up") && said.contains("is damaged there"), "{said}");
    let (bad, good): (Vec<_>, Vec<_>) = stored.into_iter().partition(|(_, index)| *index == 7);
    all_have(&cluster, &good, &[1, 2]);
    for machine in ["1", "2"] {
        let got = patient(&cluster).run(["get", &bad[0].0, "--from", machine]);
        assert!(got.code != 0 && got.stdout.is_empty(), "machine {machine} gives {got:?}");
    }
    cluster.stop_all();
}

/// The third one is refilled from two that have object 7 damaged, and finds nothing where nobody could give it anything.
#[test]
fn what_is_damaged_on_all_that_have_it_is_not_called_gone() {
    let mut cluster = cluster(3, "\"10s\"");
    let stored = store(&cluster, 0, OBJECTS);
    until_live(&cluster);
    let owner = |id: &str| patient(&cluster).stat(id)["owner"].as_u64().expect("a machine");
    let (bad, index) = stored.iter().find(|(id, _)| owner(id) == 2).expect("one of them").clone();
    for storage in [1, 2] {
        cluster.storages[storage].stop();
        damage(&cluster.mount_path(storage, 0), index);
    }
    lose(&mut cluster, 0);
    cluster.start();
    until_recovered(&cluster.storages[0], 0);
    let got = patient(&cluster).run(["get", &bad]);
    assert_eq!((got.code, got.stdout.len()), (1, 0), "{}", got.stderr);
    assert!(got.stderr.contains("damaged") || got.stderr.contains("checksum"), "{}", got.stderr);
    let good: Vec<_> = stored.into_iter().filter(|(id, _)| *id != bad).collect();
    all_have(&cluster, &good, &[1, 2, 3]);
    cluster.stop_all();
}

#[test]
fn a_source_that_is_behind_takes_nothing_away() {
    let mut cluster = cluster(3, "\"60s\"");
    let mut stored = store(&cluster, 0, OBJECTS);
    until_live(&cluster);
    cluster.storages[2].stop();
    stored.extend(store(&cluster, 100, OBJECTS));
    let gone = patient(&cluster).put(content(999, 0, 3000));
    patient(&cluster).run(["delete", &gone]).ok();
    lose(&mut cluster, 0);
    cluster.start();
    until_recovered(&cluster.storages[0], 0);
    until_live(&cluster);
    all_have(&cluster, &stored, &[1, 2, 3]);
    for machine in ["1", "2", "3"] {
        patient(&cluster).run(["get", &gone, "--from", machine]).exits(3);
    }
    cluster.stop_all();
}

#[test]
fn two_sources_of_which_each_lacks_something_make_a_whole() {
    let mut cluster = cluster(3, "\"60s\"");
    let mut stored = store(&cluster, 0, 10);
    until_live(&cluster);
    cluster.storages[1].stop();
    stored.extend(store(&cluster, 100, OBJECTS));
    cluster.storages[0].stop();
    cluster.storages[2].stop();
    cluster.storages[1].start();
    stored.extend(store(&cluster, 200, OBJECTS));
    cluster.storages[1].stop();
    empty(&cluster.mount_path(0, 0));
    cluster.start();
    until_recovered(&cluster.storages[0], 0);
    until_live(&cluster);
    all_have(&cluster, &stored, &[1, 2, 3]);
    cluster.stop_all();
}

/// Names of the places that objects of machine 1 have on a mount.
fn ids_of_machine_1(cluster: &Cluster, stored: &[(String, u64)]) -> BTreeSet<String> {
    let cli = patient(cluster);
    let owned = stored.iter().filter(|(id, _)| cli.stat(id)["owner"] == 1);
    owned.map(|(id, _)| id.clone()).collect()
}

#[test]
fn a_replaced_machine_repeats_no_id_although_nobody_there_knew_its_last_puts() {
    let mut cluster = cluster(3, "\"3s\"");
    let mut stored = store(&cluster, 0, OBJECTS);
    until_live(&cluster);
    cluster.storages[2].stop();
    stored.extend(store(&cluster, 100, OBJECTS));
    until_live_among(&cluster, &[0, 1]);
    let before = ids_of_machine_1(&cluster, &stored);
    assert!(before.len() > 10, "machine 1 took a share of the puts");
    // Replaced, and only the one that knows less is there.
    cluster.storages[1].take().kill();
    lose(&mut cluster, 0);
    empty(&cluster.dir.path().join("s1").join("state"));
    cluster.storages[2].spawn();
    set_back_a_day(&mut cluster.storages[0]);
    cluster.storages[0].spawn();
    let ended = until_recovered(&cluster.storages[0], 0);
    assert_eq!(ended["missing"], "2", "it says who was not asked: {ended}");
    let (mut after, mut ids, mut next) = (Vec::new(), BTreeSet::new(), 200);
    // The tracker takes it in again when it has been steady for a while.
    eventually("machine 1 takes puts again", PATIENCE, || {
        let more = store(&cluster, next, 10);
        next += 10;
        ids.extend(ids_of_machine_1(&cluster, &more));
        after.extend(more);
        (ids.len() > 10).then_some(())
    });
    assert!(ids.is_disjoint(&before), "an id was given twice");
    stored.extend(after);
    // The other one returns, with puts of the machine's former life.
    cluster.storages[1].start();
    until_live(&cluster);
    all_have(&cluster, &stored, &[1, 2, 3]);
    let ids: BTreeSet<&String> = stored.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), stored.len(), "every id once");
    cluster.stop_all();
}

/// Its clock, from the next start on, where the library that does it is installed.
fn set_back_a_day(node: &mut Node) {
    let library = ["x86_64", "aarch64"].iter().find_map(|arch| {
        let path = format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketimeMT.so.1");
        Path::new(&path).exists().then_some(path)
    });
    let Some(library) = library else {
        println!("the clock stays as it is: libfaketime is not installed");
        return;
    };
    node.env("LD_PRELOAD", &library)
        .env("FAKETIME", "-1d")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

fn until_live_among(cluster: &Cluster, storages: &[usize]) {
    use crate::harness::mirrored::json;
    eventually("those that run are live", PATIENCE, || {
        let live = storages.iter().all(|storage| {
            let peers = json(&cluster.storages[*storage].admin("peers json"));
            let peers = peers["peers"].as_array().expect("a table").clone();
            let live = peers.iter().filter(|peer| peer["state"] == "live").count();
            live + 1 >= storages.len()
        });
        live.then_some(())
    });
}
