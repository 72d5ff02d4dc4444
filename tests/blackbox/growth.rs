//! A cluster grows by a line of configuration and a start: what is new is used, and nothing old is moved.
//!
//! How long each took to be used is printed; a machine that is busy with tests asserts nothing about it.

use crate::harness::cluster::Cluster;
use crate::harness::content::{content, identify};
use crate::harness::mirrored::{json, runtime, until_live};
use crate::harness::mounting::{Mounted, permitted};
use crate::harness::{PATIENCE, eventually};
use folio::client::{Body, Client, GetOptions, PutOptions};
use folio::format::file_id::FileId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Puts after which a mount that is chosen at all has been chosen.
const PUTS: usize = 24;

/// Inode and modification time of every file with objects below a folder.
fn files(mount: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![mount.join("chunks"), mount.join("singles")];
    while let Some(folder) = todo.pop() {
        // There may be no large object.
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let entry = entry.expect("entry");
            let meta = entry.metadata().expect("stat");
            if meta.is_dir() {
                todo.push(entry.path());
            } else {
                found.insert(entry.path(), (meta.ino(), meta.mtime(), meta.mtime_nsec()));
            }
        }
    }
    found
}

/// Every file is the one that it was; what was full was not touched. `open`: files that may still be written.
fn stayed(before: &BTreeMap<PathBuf, (u64, i64, i64)>, mount: &Path, open: usize) {
    let after = files(mount);
    let mut written = Vec::new();
    for (path, was) in before {
        let is = after.get(path).unwrap_or_else(|| panic!("{} went away", path.display()));
        assert_eq!(is.0, was.0, "{} is another file", path.display());
        if is != was {
            written.push(path);
        }
    }
    assert!(written.len() <= open, "{written:?} were written, {open} were open");
}

/// Clients that put and read all the time.
struct Load {
    runtime: Runtime,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<(FileId, u64)>>>,
}

impl Load {
    fn begin(cluster: &Cluster) -> Self {
        let runtime = runtime();
        let stop = Arc::new(AtomicBool::new(false));
        let client = runtime.block_on(cluster.client(Duration::from_secs(20)));
        let clients = (0..2).map(|me| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            runtime.spawn(async move { put_and_read(&client, me, &stop).await })
        });
        let clients = clients.collect();
        Self { runtime, stop, clients }
    }

    /// Nothing that was stored meanwhile is missing.
    fn end(self, client: &Client) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.clients {
            let stored = self.runtime.block_on(task).expect("no client failed");
            assert!(!stored.is_empty(), "a client never came to store anything");
            for (id, index) in stored {
                let object = self.runtime.block_on(client.get(&id, GetOptions::default()));
                let bytes = self.runtime.block_on(object.expect("stored").bytes(1 << 20));
                assert_eq!(identify(&bytes.expect("read")), Ok((index, 0)));
            }
        }
    }
}

async fn put_and_read(client: &Client, me: u64, stop: &AtomicBool) -> Vec<(FileId, u64)> {
    let mut stored = Vec::new();
    let mut index = me << 32;
    while !stop.load(Ordering::SeqCst) {
        index += 1;
        let body = Body::bytes(content(index, 0, 2000));
        let put = client.put(body, PutOptions::default()).await.expect("no put fails");
        let object = client.get(&put.id, GetOptions::default()).await.expect("no get fails");
        assert_eq!(identify(&object.bytes(1 << 20).await.expect("read")), Ok((index, 0)));
        stored.push((put.id, index));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stored
}

/// Stores small objects until one is where it should be.
fn until_used(cluster: &Cluster, what: &str, fits: impl Fn(&Value) -> bool) {
    let (cli, begun) = (cluster.cli(), Instant::now());
    eventually(&format!("{what} is used"), PATIENCE, || {
        let id = cli.put(b"where does it go?");
        fits(&cli.stat(&id)).then_some(())
    });
    println!("{what}: used after {:.1} s", begun.elapsed().as_secs_f64());
}

/// The row of a mount in `mounts`.
fn mount_row(cluster: &Cluster, storage: usize, index: u64) -> Value {
    let mounts = json(&cluster.storages[storage].admin("mounts json"));
    let rows = mounts["mounts"].as_array().expect("a table");
    rows.iter().find(|row| row["mount"] == index).expect("a row").clone()
}

fn with_mount(cluster: &mut Cluster, storage: usize, index: u64) {
    let path = cluster.mount_path(storage, index);
    std::fs::create_dir_all(&path).expect("folder");
    cluster.storages[storage].config.mount(index, &path);
    cluster.storages[storage].stop();
    cluster.storages[storage].start();
}

#[test]
fn what_is_new_is_used_and_nothing_old_is_moved() {
    let mut cluster = Cluster::new(1, &["a"; 2], 1)
        .storages_with("store.chunkfile_size", "\"4MiB\"")
        .storages_with("store.single_file_threshold", "\"64KiB\"")
        .started();
    until_live(&cluster);
    let cli = cluster.cli();
    let mut old = Vec::new();
    for index in 0..200_u64 {
        let length = if index % 20 == 0 { 100_000 } else { 60_000 };
        old.push((cli.put(content(index, 0, length)), index));
    }
    until_live(&cluster);
    let paths: Vec<PathBuf> = (0..2).map(|storage| cluster.mount_path(storage, 0)).collect();
    let before: Vec<_> = paths.iter().map(|path| files(path)).collect();
    assert!(before[0].len() > 8, "several chunkfiles are full: {before:?}");
    let load = Load::begin(&cluster);

    // A new syncgroup.
    for storage in [2, 3] {
        assert_eq!(cluster.add_storage("g", "b", 1), storage);
        cluster.storages[storage].start();
    }
    until_used(&cluster, "a new syncgroup", |stat| stat["syncgroup"] == "b");

    // A new mount: first one member has it, then all.
    with_mount(&mut cluster, 0, 1);
    let row = eventually("the mount is open", PATIENCE, || {
        let row = mount_row(&cluster, 0, 1);
        (row["state"] == "online").then_some(row)
    });
    assert_eq!(row["writable"], false, "only one member has it: {row}");
    assert!(row["why"].as_str().is_some_and(|why| why.contains("machine 2")), "{row}");
    let status = cluster.storages[0].admin("status");
    assert!(status.contains("index = 1"), "status says what to do: {status}");
    for _ in 0..PUTS {
        let id = cli.put(b"not on the new mount yet");
        assert_eq!(cli.stat(&id)["mount"], 0, "too few members have mount 1");
    }
    with_mount(&mut cluster, 1, 1);
    for machine in [1, 2] {
        until_used(&cluster, "a new mount", |stat| {
            stat["syncgroup"] == "a" && stat["mount"] == 1 && stat["owner"] == machine
        });
    }

    // A new machine, with all mounts.
    let storage = cluster.add_storage("g", "a", 2);
    cluster.storages[storage].start();
    until_used(&cluster, "a new machine", |stat| stat["owner"] == storage as u64 + 1);

    let runtime = runtime();
    let client = runtime.block_on(cluster.client(Duration::from_secs(20)));
    load.end(&client);
    for (path, before) in paths.iter().zip(&before) {
        // Each member writes to two of its own, and both are on both.
        stayed(before, path, 4);
    }
    for (id, index) in old {
        assert_eq!(cli.stat(&id)["mount"], 0);
        assert_eq!(identify(&cli.get(&id)), Ok((index, 0)));
    }
    cluster.stop_all();
}

#[test]
fn a_file_system_that_was_enlarged_is_used_without_a_restart() {
    let mut cluster = Cluster::new(1, &["a"], 1)
        .storages_with("store.chunkfile_size", "\"4MiB\"")
        .storages_with("store.reserve_free", "\"64MiB\"");
    let path = cluster.mount_path(0, 0);
    let at = path.to_str().expect("text").to_owned();
    if !permitted("mount", &["-t", "tmpfs", "-o", "size=90m", "folio-test", &at]) {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let _mounted = Mounted(path.clone());
    cluster.start();
    let cli = cluster.cli();
    let mut stored = Vec::new();
    eventually("it is full", PATIENCE, || {
        let answer = cli.run_with(["put", "-"], content(stored.len() as u64, 0, 900_000));
        if answer.code == 0 {
            stored.push(answer.line());
            return None;
        }
        assert!(
            answer.stderr.contains("space") || answer.stderr.contains("full"),
            "{}",
            answer.stderr
        );
        Some(())
    });
    let before = files(&path);
    assert!(permitted("mount", &["-o", "remount,size=600m", &at]), "it was mounted a moment ago");
    let begun = Instant::now();
    eventually("what was added is used", PATIENCE, || {
        let answer = cli.run_with(["put", "-"], content(stored.len() as u64, 0, 900_000));
        (answer.code == 0).then(|| stored.push(answer.line()))
    });
    println!("an enlarged file system: used after {:.1} s", begun.elapsed().as_secs_f64());
    for _ in 0..30 {
        stored.push(cli.put(content(stored.len() as u64, 0, 900_000)));
    }
    // What was left at the ends of old files is filled, too.
    stayed(&before, &path, before.len());
    for (index, id) in stored.iter().enumerate() {
        assert_eq!(identify(&cli.get(id)), Ok((index as u64, 0)));
    }
    cluster.stop_all();
}
