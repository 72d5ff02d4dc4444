//! A mirror with one mount that is gone or full: only that mount's sync stops, and when it is mended it catches up by itself.

use crate::harness::cluster::{Cluster, Node};
use crate::harness::content::{content, identify};
use crate::harness::mirrored::{json, until_live};
use crate::harness::mounting::{Mounted, permitted};
use crate::harness::run::Cli;
use crate::harness::{PATIENCE, eventually};
use folio::format::file_id::FileId;
use serde_json::Value;

/// What stands on the only mirror of the first machine, by index and length.
type Stored = Vec<(u64, String)>;

/// Two storages with two mounts each.
fn two_by_two() -> Cluster {
    Cluster::new(1, &["a"; 2], 2)
        .storages_with("store.chunkfile_size", "\"4MiB\"")
        .storages_with("sync.log_retention_bytes", "\"16MiB\"")
}

/// How it stands with a mount of the other machine.
fn peer(node: &Node, mount: u64) -> Value {
    let all = json(&node.admin("peers json"));
    let rows = all["peers"].as_array().expect("a table").clone();
    rows.into_iter().find(|row| row["mount"] == mount).unwrap_or(Value::Null)
}

/// Machine and mount.
fn made_at(id: &str) -> (u64, u64) {
    let object = id.parse::<FileId>().expect("an id").object;
    (object.machine.into(), object.mount.into())
}

fn mount_of(id: &str) -> u64 {
    made_at(id).1
}

/// Stores so many objects at the first machine; each must be taken, whatever becomes of its copy.
fn store(cluster: &Cluster, stored: &mut Stored, count: u64, length: usize) {
    let cli = Cli { timeout: Some("20s"), ..cluster.cli() };
    for _ in 0..count {
        let index = stored.len() as u64;
        stored.push((index, cli.put(content(index, 0, length).to_vec())));
    }
}

/// Whether the second machine gives this object from its own disk.
fn is_there(cluster: &Cluster, (index, id): &(u64, String)) -> bool {
    let got = cluster.cli().run(["get", id, "--from", "2"]);
    if got.code != 0 {
        return false;
    }
    assert_eq!(identify(&got.stdout), Ok((*index, 0)), "{id}");
    true
}

/// Mount 0 goes on in step: what is stored is on both, acknowledged as such.
fn the_other_mount_goes_on(cluster: &Cluster, stored: &mut Stored) {
    let cli = Cli { timeout: Some("20s"), ..cluster.cli() };
    let mut copies = 0;
    eventually("mount 0 of both takes puts with two copies", PATIENCE, || {
        let index = stored.len() as u64;
        let put =
            cli.run_with(["put", "-", "--json"], content(index, 0, 5000).to_vec()).ok().json();
        let id = put["id"].as_str().expect("an id").to_owned();
        stored.push((index, id.clone()));
        if mount_of(&id) == 0 && put["copies"] == 2 {
            copies += 1;
            assert!(is_there(cluster, stored.last().expect("just stored")), "{id}");
        }
        (copies >= 5).then_some(())
    });
    let first = &cluster.storages[0];
    assert_eq!(peer(first, 0)["state"], "live", "{}", first.admin("peers"));
    assert_ne!(peer(first, 1)["state"], "live", "{}", first.admin("peers"));
}

fn catches_up(cluster: &Cluster, stored: &Stored) {
    until_live(cluster);
    for object in stored {
        eventually("it is on the mirror", PATIENCE, || is_there(cluster, object).then_some(()));
    }
}

#[test]
fn no_missing_mount_of_a_peer_stops_the_sync_of_the_others() {
    let mut cluster = two_by_two().started();
    until_live(&cluster);
    let mut stored = Stored::new();
    store(&cluster, &mut stored, 12, 5000);
    let (mount, away) = (cluster.mount_path(1, 1), cluster.dir.path().join("away"));
    std::fs::rename(&mount, &away).expect("rename");
    eventually("it is noticed", PATIENCE, || {
        (peer(&cluster.storages[0], 1)["state"] != "live").then_some(())
    });
    // Where it is to be mirrored, too: machine 1 alone has it.
    store(&cluster, &mut stored, 30, 5000);
    the_other_mount_goes_on(&cluster, &mut stored);
    assert!(stored.iter().any(|(_, id)| mount_of(id) == 1), "mount 1 is used");
    std::fs::rename(&away, &mount).expect("rename");
    catches_up(&cluster, &stored);
    cluster.stop_all();
}

#[test]
fn no_full_mount_of_a_peer_stops_the_sync_of_the_others() {
    let mut cluster = two_by_two();
    let path = cluster.mount_path(1, 1);
    let at = path.to_str().expect("text").to_owned();
    if !permitted("mount", &["-t", "tmpfs", "-o", "size=100m", "folio-test", &at]) {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let _mounted = Mounted(path.clone());
    cluster.start();
    until_live(&cluster);
    let mut stored = Stored::new();
    while !stored.iter().any(|(_, id)| made_at(id) == (1, 1)) {
        store(&cluster, &mut stored, 12, 5000);
    }
    // Somebody else fills the file system up.
    let filler = path.join("filler");
    let mut file = std::fs::File::create(&filler).expect("file");
    while std::io::Write::write_all(&mut file, &[1; 1 << 16]).is_ok() {}
    drop(file);
    // New objects go elsewhere now; what is there may still grow, by more than what was set aside on the mirror before.
    let first = &cluster.storages[0];
    eventually("machine 1 knows", PATIENCE, || {
        let status = first.admin("status");
        status.contains("machine 2 has no room left for them but its reserve").then_some(())
    });
    let already = stored.len();
    store(&cluster, &mut stored, 8, 5000);
    assert!(stored[already..].iter().all(|(_, id)| mount_of(id) == 0), "{stored:?}");
    // The full machine refuses to have its own grow.
    let there: Vec<_> = stored.iter().filter(|(_, id)| made_at(id) == (1, 1)).cloned().collect();
    let mut grown = there.iter().cycle();
    eventually("its sync stops", 2 * PATIENCE, || {
        let (index, id) = grown.next().expect("an object of mount 1");
        let cli = Cli { timeout: Some("20s"), ..cluster.cli() };
        cli.run_with(["modify", id, "-"], content(*index, 0, 400_000).to_vec()).ok();
        (peer(first, 1)["state"] != "live").then_some(())
    });
    let said = peer(&cluster.storages[0], 1);
    assert!(said["last_error"].as_str().is_some_and(|why| why.contains("pace")), "{said}");
    the_other_mount_goes_on(&cluster, &mut stored);
    assert!(permitted("mount", &["-o", "remount,size=900m", &at]), "it was mounted a moment ago");
    catches_up(&cluster, &stored);
    cluster.stop_all();
}

/// Bytes that are free on the file system of a folder.
fn free_bytes(path: &str) -> u64 {
    let df = std::process::Command::new("df").args(["--output=avail", "-B1", path]).output();
    let said = String::from_utf8(df.expect("df runs").stdout).expect("text");
    said.lines().last().expect("a line").trim().parse().expect("a number")
}

#[test]
fn no_insert_that_another_member_takes_eats_the_reserve_of_a_mirror() {
    const RESERVE: u64 = 64 << 20;
    let mut cluster = Cluster::new(1, &["a"; 2], 1)
        .storages_with("store.chunkfile_size", "\"4MiB\"")
        .storages_with("store.reserve_free", "\"64MiB\"")
        .storages_with("sync.log_retention_bytes", "\"16MiB\"");
    let at = cluster.mount_path(1, 0).to_str().expect("text").to_owned();
    if !permitted("mount", &["-t", "tmpfs", "-o", "size=300m", "folio-test", &at]) {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let _mounted = Mounted(cluster.mount_path(1, 0));
    cluster.start();
    until_live(&cluster);
    // Only the machine with all the room takes objects.
    cluster.storages[1].admin("readonly on");
    let cli = Cli { timeout: Some("20s"), ..cluster.cli() };
    let mut stored = Stored::new();
    let refused = loop {
        let index = stored.len() as u64;
        let length = if index.is_multiple_of(4) { 900_000 } else { 60_000 };
        let put = cli.run_with(["put", "-"], content(index, 0, length).to_vec());
        if put.code != 0 {
            break put;
        }
        stored.push((index, put.line()));
        assert!(index < 5000, "it is never full");
    };
    // Of the storage, or of the routing that has heard of it.
    assert!(matches!(refused.code, 1 | 5), "{}", refused.stderr);
    let why = refused.stderr;
    assert!(["is full", "has no room left"].iter().any(|words| why.contains(words)), "{why}");
    assert!(free_bytes(&at) >= RESERVE, "{} bytes are left on the mirror: {why}", free_bytes(&at));
    // What is there is read, edited and deleted as ever; writing resumes by itself when there is room.
    let (index, id) = stored[1].clone();
    cli.run_with(["modify", &id, "-"], content(index, 1, 61_000).to_vec()).ok();
    for (_, id) in &stored[stored.len() / 2..] {
        cli.run(["delete", id]).ok();
    }
    assert!(permitted("mount", &["-o", "remount,size=900m", &at]), "it was mounted a moment ago");
    eventually("puts are taken again", 2 * PATIENCE, || {
        (cli.run_with(["put", "-"], vec![1; 5000]).code == 0).then_some(())
    });
    cluster.stop_all();
}
