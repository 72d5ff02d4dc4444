//! `folio fsck` on the mounts of real daemons: served, killed under load, replayed, stopped.

use crate::harness::cluster::Cluster;
use crate::harness::from_env;
use crate::harness::run::Answer;
use crate::harness::witness::{Scene, scene};
use std::time::Duration;

fn fsck(cluster: &Cluster, storage: usize) -> Answer {
    let home = cluster.dir.path().join(format!("s{}", storage + 1));
    let state = home.join("state");
    let mounts = [cluster.mount_path(storage, 0), cluster.mount_path(storage, 1)];
    let arguments = ["fsck".into(), "--state-dir".into(), state];
    cluster.cli().run(arguments.into_iter().chain(mounts))
}

/// Two mirrors and their log are killed in the middle of a load, again and again.
#[test]
fn a_kill_never_makes_fsck_cry() {
    let rounds = from_env("FOLIO_KILL_ROUNDS", 2);
    let Scene { mut cluster, runtime, mut witness, mut dice } = scene(&["a", "a"], 8, 1);
    let mut replayed = 0;
    for _ in 0..rounds {
        let client = runtime.block_on(cluster.client(Duration::from_secs(20)));
        let load = witness.start(&runtime, &client);
        load.wait_operations(100 + crate::harness::content::below(&mut dice, 400));
        cluster.kill_all();
        for storage in 0..2 {
            let answer = fsck(&cluster, storage).ok();
            assert_eq!(answer.last_line(), "clean");
            replayed += u64::from(answer.text().contains("needs replay"));
        }
        cluster.start();
        load.wait_operations(20);
        load.stop(&runtime);
        cluster.stop_all();
        for storage in 0..2 {
            let answer = fsck(&cluster, storage).ok();
            assert_eq!(answer.last_line(), "clean");
            assert!(!answer.text().contains("needs replay"), "{}", answer.text());
        }
        cluster.start();
    }
    assert!(replayed > 0, "no kill left anything to replay");
    cluster.stop_all();
}

#[test]
fn a_served_mount_is_not_judged_and_findings_are_told() {
    let mut cluster = Cluster::new(1, &["a"], 2).started();
    let id = cluster.cli().put(vec![7; 20_000]);
    fsck(&cluster, 0).exits(2).says(&["a daemon serves this mount", "stop the storage"]);
    cluster.stop_all();
    let answer = fsck(&cluster, 0).ok();
    assert_eq!(answer.last_line(), "clean");
    // Bytes of the object are found in whichever mount has it.
    let mut damaged = None;
    for index in 0..2 {
        let folder = cluster.mount_path(0, index).join("chunks");
        for path in files(&folder) {
            let mut bytes = std::fs::read(&path).expect("a chunkfile");
            if let Some(at) = bytes.windows(64).position(|window| window == [7; 64]) {
                bytes[at + 9_000] ^= 1;
                std::fs::write(&path, &bytes).expect("it is written");
                damaged = Some(cluster.mount_path(0, index));
            }
        }
    }
    let damaged = damaged.unwrap_or_else(|| panic!("{id} is nowhere"));
    let answer = cluster.cli().run(["fsck", damaged.to_str().expect("UTF-8")]).exits(1);
    assert_eq!(answer.last_line(), "1 finding");
    assert!(answer.text().contains("slot-payload: chunks/1/"), "{}", answer.text());
    let answer = cluster.cli().run(["fsck", damaged.to_str().expect("UTF-8"), "--json"]).exits(1);
    let json = answer.json();
    assert_eq!(json["findings"], 1);
    let finding = &json["mounts"][0]["findings"][0];
    assert_eq!(finding["kind"], "slot-payload");
    for key in ["path", "offset", "what", "means", "remedy"] {
        assert!(!finding[key].is_null(), "{finding}");
    }
    cluster.cli().run(["fsck", "/nowhere"]).exits(2);
    cluster.cli().run(["fsck"]).exits(2);
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
