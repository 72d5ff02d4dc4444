//! A mount is put back to an older copy of itself, as from a snapshot: no position is given twice, and what it lacks of its own
//! log comes back from its mirror.

use crate::harness::PATIENCE;
use crate::harness::cluster::Cluster;
use crate::harness::content::{content, identify};
use crate::harness::eventually;
use crate::harness::mirrored::until_live;
use crate::harness::run::Cli;
use std::collections::BTreeSet;
use std::path::Path;

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copies");
        }
    }
}

#[test]
fn no_old_copy_of_a_mount_gives_a_position_twice_or_keeps_a_hole() {
    let mut cluster = Cluster::new(1, &["a"; 2], 1)
        .storages_with("store.chunkfile_size", "\"4MiB\"")
        .storages_with("store.single_file_threshold", "\"256KiB\"")
        .started();
    until_live(&cluster);
    let mut stored: Vec<String> = Vec::new();
    let mut put = |cluster: &Cluster, count: u64| {
        let cli = Cli { timeout: Some("30s"), ..cluster.cli() };
        for _ in 0..count {
            let n = stored.len() as u64;
            stored.push(cli.put(content(n, 0, 3000).to_vec()));
        }
        stored.clone()
    };
    put(&cluster, 12);
    cluster.storages[0].stop();
    let (mount, copy) = (cluster.mount_path(0, 0), cluster.dir.path().join("copy"));
    copy_tree(&mount, &copy);
    cluster.storages[0].start();
    until_live(&cluster);
    put(&cluster, 16);
    cluster.storages[0].take().kill();
    std::fs::remove_dir_all(&mount).expect("removed");
    std::fs::rename(&copy, &mount).expect("put back");
    cluster.storages[0].start();
    cluster.storages[0].daemon().wait_stderr("it is noticed", |text| text.contains("old copy"));
    // What has not come back yet is not called gone: another one is asked.
    let first = put(&cluster, 0);
    for (n, id) in first.iter().enumerate() {
        let got = Cli { timeout: Some("20s"), ..cluster.cli() }.run(["get", id]).ok();
        assert_eq!(identify(&got.stdout), Ok((n as u64, 0)), "{id}");
    }
    until_live(&cluster);
    let stored = put(&cluster, 16);
    let ids: BTreeSet<&String> = stored.iter().collect();
    assert_eq!(ids.len(), stored.len(), "a position was given twice");
    let cli = Cli { timeout: Some("5s"), ..cluster.cli() };
    for machine in ["1", "2"] {
        for (n, id) in stored.iter().enumerate() {
            eventually("it is there", PATIENCE, || {
                let got = cli.run(["get", id, "--from", machine]);
                (got.code == 0).then(|| assert_eq!(identify(&got.stdout), Ok((n as u64, 0))))
            });
        }
    }
    cluster.stop_all();
}
