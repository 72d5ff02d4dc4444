//! A bad mount is reported and the others serve; a disk that belongs to somebody else is never touched.

use crate::harness::cluster::Cluster;
use crate::harness::{PATIENCE, eventually};
use std::path::{Path, PathBuf};

/// Everything below a folder with sizes, to see that it was left alone.
fn listing(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).expect("readable") {
            let path = entry.expect("entry").path();
            let meta = std::fs::symlink_metadata(&path).expect("stat");
            if meta.is_dir() {
                todo.push(path.clone());
            }
            found.push((path, meta.len()));
        }
    }
    found.sort();
    found
}

/// The line of a mount in `mounts`.
fn mount_says(cluster: &Cluster, storage: usize, path: &Path, words: &[&str]) -> bool {
    let text = cluster.storages[storage].admin("mounts json").to_lowercase();
    let found = words.iter().all(|word| text.contains(&word.to_lowercase()));
    found && text.contains(&path.to_str().expect("text").to_lowercase())
}

#[track_caller]
fn is_reported(cluster: &Cluster, storage: usize, path: &Path, words: &[&str]) {
    eventually(&format!("mounts says {words:?}"), PATIENCE, || {
        mount_says(cluster, storage, path, words).then_some(())
    });
}

fn serves(cluster: &Cluster) {
    let cli = cluster.cli();
    for n in 0..6 {
        let bytes = format!("object {n}");
        let id = cli.put(bytes.clone());
        assert_eq!(cli.stat(&id)["mount"], 0, "only mount 0 is whole");
        assert_eq!(cli.get(&id), bytes.as_bytes());
    }
}

/// Absent, or no folder: reported; it comes back by itself when the folder appears.
#[test]
fn no_bad_mount_stops_the_others() {
    let mut cluster = Cluster::new(1, &["a"], 1);
    let (absent, file) = (cluster.dir.path().join("absent"), cluster.dir.path().join("file"));
    std::fs::write(&file, b"a file").expect("write");
    cluster.storages[0].config.mount(1, &absent).mount(2, &file);
    let cluster = cluster.started();
    is_reported(&cluster, 0, &absent, &["failed", "missing"]);
    is_reported(&cluster, 0, &file, &["failed"]);
    serves(&cluster);
    assert_eq!(std::fs::read(&file).expect("read"), b"a file");
    assert!(!absent.exists(), "a missing mount must never be created: a disk may be away");

    std::fs::create_dir(&absent).expect("folder");
    let cli = cluster.cli();
    eventually("the mount is taken in", PATIENCE, || {
        let id = cli.put("x");
        (cli.stat(&id)["mount"] == 1).then_some(())
    });
}

/// Label of another machine, files of somebody else, a label of a newer format: reported and untouched.
#[test]
fn no_foreign_disk_is_touched() {
    let mut cluster = Cluster::new(1, &["a", "b"], 1);
    cluster.start();
    cluster.cli().put("x");
    cluster.cli().put("x");
    cluster.stop_all();
    // Storage 1 gets the disk of storage 2, and a folder full of other things.
    let foreign = cluster.mount_path(1, 0);
    let other = cluster.dir.path().join("photos");
    std::fs::create_dir(&other).expect("folder");
    std::fs::write(other.join("cat.jpg"), b"meow").expect("write");
    let before = (listing(&foreign), listing(&other));
    cluster.storages[0].config.mount(1, &foreign).mount(2, &other);
    cluster.trackers[0].start();
    cluster.storages[0].start();
    is_reported(&cluster, 0, &foreign, &["failed", "foreign"]);
    is_reported(&cluster, 0, &other, &["failed", "foreign"]);
    serves(&cluster);
    cluster.stop_all();
    assert_eq!((listing(&foreign), listing(&other)), before, "a foreign disk was touched");
}

/// Two daemons never work on one mount.
#[test]
fn no_mount_is_used_twice() {
    let cluster = Cluster::new(1, &["a"], 1).started();
    let cli = cluster.cli();
    let id = cli.put("mine");
    let mut twin = Cluster::new(1, &["a"], 1);
    let (mount, state) = (cluster.mount_path(0, 0), cluster.dir.path().join("s1/state"));
    let own = twin.mount_path(0, 0);
    let node = &mut twin.storages[0];
    let config = std::mem::take(&mut node.config);
    node.config = config.moved(&own, &mount);
    node.config.set("state_dir", &format!("{state:?}"));
    twin.trackers[0].start();
    let node = &mut twin.storages[0];
    node.spawn();
    // It may give up at once, or stay and report the mount; it never serves.
    eventually("the second daemon says that the mount is in use", PATIENCE, || {
        let stderr = node.daemon().stderr().to_lowercase();
        let says = ["lock", "in use", "another"].iter().any(|word| stderr.contains(word));
        says.then_some(())
    });
    let twin_cli = crate::harness::run::Cli { timeout: Some("1s"), ..twin.cli() };
    assert_ne!(twin_cli.run_with(["put", "-"], "x").code, 0);
    assert_eq!(cli.get(&id), b"mine");
    cli.put("still");
}

/// A mount that loses its label while the daemon runs is fenced, and the daemon stays.
#[test]
fn no_mount_is_served_after_its_disk_is_gone() {
    let cluster = Cluster::new(1, &["a"], 2).started();
    let gone = cluster.mount_path(0, 1);
    let cli = cluster.cli();
    let ids: Vec<String> = (0..6).map(|n| cli.put(format!("object {n}"))).collect();
    let away = cluster.dir.path().join("away");
    std::fs::rename(&gone, &away).expect("rename");
    is_reported(&cluster, 0, &gone, &["failed"]);
    serves(&cluster);
    for (n, id) in ids.iter().enumerate() {
        let answer = cli.run(["get", id]);
        if id_mount(id) == 0 {
            assert_eq!(answer.ok().stdout, format!("object {n}").as_bytes());
        } else {
            assert!([1, 5].contains(&answer.code), "{}: {}", answer.code, answer.stderr);
        }
    }
    std::fs::rename(&away, &gone).expect("rename");
    eventually("the mount is back", PATIENCE, || {
        ids.iter().all(|id| cli.run(["get", id]).code == 0).then_some(())
    });
}

fn id_mount(id: &str) -> u8 {
    id.parse::<folio::format::file_id::FileId>().expect("an id").object.mount
}
