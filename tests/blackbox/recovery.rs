//! A disk dies, a machine is new: real daemons from config files, their folders emptied under them.

use crate::harness::cluster::{Cluster, Node};
use crate::harness::content::{below, content};
use crate::harness::mirrored::{json, until_live};
use crate::harness::refilled::{RECOVERED, empty, killed_once, recovery, until_recovered};
use crate::harness::run::Cli;
use crate::harness::{PATIENCE, eventually, from_env};
use std::path::PathBuf;

/// Objects of a tree.
const FILES: u64 = 120;

/// So many storages of one syncgroup with small chunkfiles, and what was stored there.
struct Store {
    cluster: Cluster,
    manifest: PathBuf,
    /// Deleted: it must stay so.
    deleted: Vec<String>,
}

impl Store {
    fn new(storages: usize, mounts: u64) -> Self {
        let cluster = Cluster::new(1, &vec!["a"; storages], mounts)
            .storages_with("store.single_file_threshold", "\"64KiB\"")
            .storages_with("store.chunkfile_size", "\"4MiB\"")
            .storages_with("recovery.base_wait", "\"20s\"")
            .storages_with("durability.acks", "\"all\"")
            .storages_with("durability.when_alone", "\"accept\"")
            .started();
        until_live(&cluster);
        let tree = cluster.dir.path().join("tree");
        std::fs::create_dir(&tree).expect("folder");
        let mut seed = from_env("FOLIO_SEED", 1);
        for index in 0..FILES {
            let large = index % 20 == 0;
            let length =
                if large { 65_536 + below(&mut seed, 300_000) } else { below(&mut seed, 20_000) };
            let bytes = content(index, 0, 28 + usize::try_from(length).expect("small"));
            std::fs::write(tree.join(format!("f{index}")), bytes).expect("file");
        }
        let manifest = cluster.dir.path().join("manifest");
        let cli = cluster.cli();
        cli.import(&tree, &manifest).ok();
        // Grown, shrunk, moved.
        for index in (0..FILES).step_by(7) {
            let length = 28 + usize::try_from(below(&mut seed, 90_000)).expect("small");
            std::fs::write(tree.join(format!("f{index}")), content(index, 1, length))
                .expect("file");
        }
        cli.import(&tree, &manifest).ok();
        let deleted = (0..10).map(|index| cli.put(content(1000 + index, 0, 500)));
        let deleted: Vec<String> = deleted.collect();
        for id in &deleted {
            cli.run(["delete", id]).ok();
        }
        Self { cluster, manifest, deleted }
    }

    fn cli(&self) -> Cli {
        Cli { timeout: Some("30s"), ..self.cluster.cli() }
    }

    /// What a lost disk leaves: an empty folder.
    fn lose_disk(&self, storage: usize, mount: u64) {
        empty(&self.cluster.mount_path(storage, mount));
    }

    fn lose_machine(&self, storage: usize) {
        self.lose_disk(storage, 0);
        empty(&self.cluster.dir.path().join(format!("s{}", storage + 1)).join("state"));
    }

    /// Every mirror has everything, and nothing that was deleted.
    fn is_whole(&self) {
        let manifest = self.manifest.to_str().expect("a path");
        let verified = self.cli().run(["verify", manifest, "--all-mirrors"]);
        let verified = verified.ok().last_line();
        assert!(verified.ends_with("ok, 0 missing, 0 different"), "{verified}");
        for id in &self.deleted {
            for machine in 1..=self.cluster.storages.len() {
                self.cli().run(["get", id, "--from", &machine.to_string()]).exits(3);
            }
        }
    }
}

#[test]
fn a_lost_disk_is_refilled_without_a_command_while_the_others_serve() {
    let mut store = Store::new(3, 2);
    // While it was down.
    store.cluster.storages[0].take().kill();
    store.lose_disk(0, 1);
    store.cluster.storages[0].start();
    until_recovered(&store.cluster.storages[0], 1);
    assert_eq!(recovery(&store.cluster.storages[0], 0)["phase"], "none", "the other mount served");
    store.is_whole();
    // Under the live process.
    let other = store.cli().put(b"stored before");
    store.lose_disk(1, 0);
    until_recovered(&store.cluster.storages[1], 0);
    until_live(&store.cluster);
    store.is_whole();
    assert_eq!(store.cli().get(&other), b"stored before");
    // It takes part again: what is stored now is on all.
    for round in 0..12_u8 {
        let id = store.cli().put(vec![round; 1000]);
        for machine in 1..=3 {
            let got = store.cli().run(["get", &id, "--from", &machine.to_string()]).ok();
            assert_eq!(got.stdout, vec![round; 1000]);
        }
    }
    store.cluster.stop_all();
}

#[test]
fn a_replaced_machine_fills_itself_and_repeats_no_id() {
    let mut store = Store::new(3, 1);
    let before = log_id(&store.cluster.storages[2]);
    store.cluster.storages[2].take().kill();
    store.lose_machine(2);
    store.cluster.storages[2].start();
    let ended = until_recovered(&store.cluster.storages[2], 0);
    assert_eq!(ended["cause"], "new_machine");
    assert_ne!(log_id(&store.cluster.storages[2]), before, "a new life has a new log");
    until_live(&store.cluster);
    store.is_whole();
    store.cluster.stop_all();
}

fn log_id(node: &Node) -> String {
    json(&node.admin("status json"))["logs"][0]["log_id"].as_str().expect("a log").to_owned()
}

#[test]
fn slot_headers_are_enough_when_all_logs_everywhere_are_lost() {
    let mut store = Store::new(3, 1);
    for node in &mut store.cluster.storages {
        node.take().kill();
    }
    for storage in 0..3 {
        let mount = store.cluster.mount_path(storage, 0);
        for folder in ["binlog", "synclog"] {
            std::fs::remove_dir_all(mount.join(folder)).expect("folder");
        }
    }
    store.lose_disk(0, 0);
    store.cluster.start();
    until_recovered(&store.cluster.storages[0], 0);
    store.is_whole();
    store.cluster.stop_all();
}

#[test]
fn two_that_are_blank_fill_themselves_from_the_one_that_is_not() {
    let mut store = Store::new(3, 1);
    for storage in [0, 1] {
        store.cluster.storages[storage].take().kill();
        store.lose_disk(storage, 0);
    }
    store.cluster.start();
    for storage in [0, 1] {
        until_recovered(&store.cluster.storages[storage], 0);
    }
    until_live(&store.cluster);
    store.is_whole();
    store.cluster.stop_all();
}

#[test]
fn two_machines_refill_each_others_disks_at_once() {
    let mut store = Store::new(2, 2);
    store.cluster.storages[0].take().kill();
    store.cluster.storages[1].take().kill();
    store.lose_disk(0, 0);
    store.lose_disk(1, 1);
    store.cluster.start();
    until_recovered(&store.cluster.storages[0], 0);
    until_recovered(&store.cluster.storages[1], 1);
    until_live(&store.cluster);
    store.is_whole();
    store.cluster.stop_all();
}

#[test]
fn nobody_comes_back_silently_empty() {
    let mut store = Store::new(2, 1);
    let manifest = std::fs::read_to_string(&store.manifest).expect("manifest");
    let id = manifest.lines().next().and_then(|line| line.split('\t').next()).expect("an id");
    for storage in [0, 1] {
        store.cluster.storages[storage].take().kill();
        store.lose_disk(storage, 0);
    }
    store.cluster.start();
    for storage in [0, 1] {
        let why = eventually("it says that nobody has the content", RECOVERED, || {
            let now = recovery(&store.cluster.storages[storage], 0);
            (now["phase"] == "failed").then(|| now["why"].as_str().unwrap_or("").to_owned())
        });
        assert!(why.contains("no other member has"), "{why}");
        let status = store.cluster.storages[storage].admin("status");
        assert!(status.contains("accept-loss"), "status says what to type: {status}");
    }
    // Not there is not the same as never there.
    let cli = Cli { timeout: Some("2s"), ..store.cli() };
    cli.run(["get", id]).exits(5);
    store.cluster.storages[0].admin("recover 0 accept-loss");
    for storage in [0, 1] {
        eventually("an operator's word is enough", RECOVERED, || {
            let now = recovery(&store.cluster.storages[storage], 0);
            (now["state"] == "online").then_some(())
        });
    }
    until_live(&store.cluster);
    let id = store.cli().put(b"after the loss");
    assert_eq!(store.cli().get(&id), b"after the loss");
    store.cluster.stop_all();
}

#[test]
fn an_unmounted_disk_or_a_strangers_folder_is_refilled_only_when_an_operator_confirms() {
    let mut store = Store::new(2, 1);
    store.cluster.storages[0].take().kill();
    store.lose_disk(0, 0);
    let stranger = store.cluster.mount_path(0, 0).join("somebody's file");
    std::fs::write(&stranger, b"not ours").expect("file");
    store.cluster.storages[0].start();
    let node = &store.cluster.storages[0];
    assert!(node.admin("status").contains("foreign"), "{}", node.admin("status"));
    let refused = Cli::default().run(["admin", &node.console(), "recover", "0", "start"]).exits(1);
    refused.says(&["--confirm"]);
    node.admin("recover 0 start --confirm");
    until_recovered(node, 0);
    let mount = store.cluster.mount_path(0, 0);
    let aside = std::fs::read_dir(&mount).expect("folder").filter_map(|entry| {
        let path = entry.expect("entry").path().join("somebody's file");
        path.exists().then_some(path)
    });
    let aside: Vec<PathBuf> = aside.collect();
    assert_eq!(std::fs::read(&aside[0]).expect("file"), b"not ours", "nothing is thrown away");
    until_live(&store.cluster);
    store.is_whole();
    store.cluster.stop_all();
}

#[test]
fn an_operator_pauses_and_resumes() {
    let mut store = Store::new(2, 1);
    store.cluster.storages[0].take().kill();
    store.cluster.storages[1].take().kill();
    store.lose_disk(0, 0);
    store.cluster.storages[0].start();
    let node = &store.cluster.storages[0];
    eventually("it waits", PATIENCE, || (recovery(node, 0)["state"] == "recovering").then_some(()));
    node.admin("recover 0 pause");
    store.cluster.storages[1].start();
    let node = &store.cluster.storages[0];
    eventually("it says why it does nothing", PATIENCE, || {
        recovery(node, 0)["why"].as_str().is_some_and(|why| why.contains("resume")).then_some(())
    });
    node.admin("recover 0 resume");
    until_recovered(node, 0);
    Cli::default().run(["admin", &node.console(), "recover", "0", "pause"]).exits(1);
    Cli::default().run(["admin", &node.console(), "recover", "7"]).exits(1).says(&["mounts"]);
    store.is_whole();
    store.cluster.stop_all();
}

/// One kill of the source or the target in each of these phases; the campaign does it in all of them with more data.
#[test]
fn what_was_copied_before_a_kill_is_not_copied_again() {
    let mut store = Store::new(2, 1);
    let args = ["bench", "put", "--sizes", "4k:70,32k:25,200k:5", "--count", "800", "--json"];
    store.cli().run(args).ok();
    until_live(&store.cluster);
    let data = used(&store.cluster.mount_path(0, 0));
    for (phase, part, source) in
        [("pull_data", 50, false), ("pull_data", 30, true), ("catch_up", 0, false)]
    {
        let killed = killed_once(&mut store.cluster, phase, part, source);
        println!("killed in {}: {} of {data} bytes transferred", killed.phase, killed.transferred);
        assert!(killed.transferred * 5 <= data * 6, "{killed:?} of {data}");
        until_live(&store.cluster);
    }
    store.is_whole();
    store.cluster.stop_all();
}

/// Bytes of chunkfiles and large objects.
fn used(mount: &std::path::Path) -> u64 {
    let (mut sum, mut todo) = (0, vec![mount.join("chunks"), mount.join("singles")]);
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let meta = entry.metadata().expect("stat");
            if meta.is_dir() {
                todo.push(entry.path());
            } else {
                sum += meta.len();
            }
        }
    }
    sum
}
