//! One fault at a time, and what `status` of the right node says about it: the thing by its name, and what to do.
//!
//! | fault | of | asked |
//! |---|---|---|
//! | 1 a mirror's machine is down | peers | the other storage |
//! | 2 the same | peers | the tracker |
//! | 3 too few copies | peers (P1) | the storage that is left |
//! | 4 a mirror stands still | peers | the other storage |
//! | 5 a conflict is kept | peers (P4) | either storage |
//! | 6 no possible source for a blank disk | P3 | the storage |
//! | 7 changes refused, nobody is there | configuration | the storage |
//! | 8 the folder of a mount is gone | P6 | the storage |
//! | 9 the same | P6 | the tracker |
//! | 10 a folder with files of somebody else | P6 | the storage |
//! | 11 the disk of another machine | P6 | the storage |
//! | 12 no space for new objects | space | the storage |
//! | 13 little space for new objects | space | the storage |
//! | 14 keys that do not match | configuration | the storage |
//! | 15 two machines with one machine id | configuration | the tracker |
//! | 16 the same | configuration | the storage that is refused |
//! | 17 mounts that only one mirror has | configuration | storage and tracker |
//! | 18 settings that differ | configuration | either storage |
//! | 19 a variable that means nothing | configuration | the storage |
//! | 20 writes are not synced | configuration | the storage |
//! | 21 a clock that is a day off | clock | mirror and tracker |
//! | 22 a tracker is down | peers | the storage |
//! | 23 more requests than the budget | clients | the storage |
//! | 24 left read-only; left draining | operator | the storage |
//! | 25 somebody else listens at a mirror's address | P6 | the other storage |
//!
//! What the scrub finds is in the tests of the scrub.

use crate::harness::cluster::{Cluster, Node};
use crate::harness::mirrored::{json, mirrors, until_live};
use crate::harness::run::Cli;
use crate::harness::{PATIENCE, eventually};
use crate::mirrors::{conflict, put_on_first};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The warnings of a node, each with its remedy, in small letters.
fn warnings(node: &Node) -> Vec<String> {
    let status = json(&node.admin("status json"));
    let rows = status["warnings"].as_array().cloned().unwrap_or_default();
    let text = |row: &serde_json::Value| {
        let (what, remedy) = (row["what"].as_str(), row["remedy"].as_str());
        let remedy = remedy.unwrap_or_default();
        assert!(!remedy.is_empty(), "a warning without a remedy: {row}");
        format!("{} -> {remedy}", what.expect("what is wrong")).to_lowercase()
    };
    rows.iter().map(text).collect()
}

/// The same without what the disk of whoever runs the tests may be the reason of.
fn own_warnings(node: &Node) -> Vec<String> {
    warnings(node).into_iter().filter(|line| !line.contains("nearly full")).collect()
}

/// Waits until one warning has all these words.
#[track_caller]
fn says(node: &Node, words: &[&str]) {
    let mut last = Vec::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let now = warnings(node);
        if now.iter().any(|line| words.iter().all(|word| line.contains(word))) {
            return;
        }
        last.clone_from(&now);
        assert!(std::time::Instant::now() < deadline, "{}: no {words:?} in {last:#?}", node.name);
    }
}

/// Waits until nothing is said of this any more.
#[track_caller]
fn is_silent(node: &Node, words: &[&str]) {
    eventually(&format!("no more of {words:?}"), PATIENCE, || {
        let about = |line: &String| words.iter().all(|word| line.contains(word));
        (!own_warnings(node).iter().any(about)).then_some(())
    });
}

fn folder() -> TempDir {
    TempDir::new().expect("temporary folder")
}

fn set_env(node: &mut Node, name: &str, value: &str) {
    node.env(name, value);
}

/// Somebody who answers what makes no sense.
struct Stranger {
    leave: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Stranger {
    fn at(address: &str) -> Self {
        let listener = std::net::TcpListener::bind(address).expect("its port is free");
        listener.set_nonblocking(true).expect("a socket");
        let leave = Arc::new(AtomicBool::new(false));
        let left = Arc::clone(&leave);
        let thread = std::thread::spawn(move || {
            while !left.load(Ordering::SeqCst) {
                if let Ok((mut guest, _)) = listener.accept() {
                    let _gone = guest.write_all(b"220 mail.example.org ESMTP, at your service\r\n");
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { leave, thread }
    }

    /// Returns when the port is free: a child of another test that was just being started may hold it for a moment.
    fn leave(self, port: u16) {
        self.leave.store(true, Ordering::SeqCst);
        self.thread.join().expect("it left");
        crate::harness::process::wait_port_free(port);
    }
}

#[test]
fn no_machine_that_is_missing_is_passed_over() {
    let mut cluster = mirrors(folder(), 2);
    for node in &cluster.storages {
        assert_eq!(
            own_warnings(node),
            Vec::<String>::new(),
            "a healthy storage complains of nothing"
        );
    }
    assert_eq!(warnings(&cluster.trackers[0]), Vec::<String>::new());
    // 4: it stands still.
    cluster.storages[1].daemon().pause();
    cluster.cli().put("while it stands still");
    says(&cluster.storages[0], &["fewer copies", "bring the other members back"]);
    cluster.storages[1].daemon().resume();
    is_silent(&cluster.storages[0], &["fewer copies"]);
    // 1, 2, 3.
    cluster.storages[1].take().kill();
    says(&cluster.storages[0], &["mirror 2", "not connected", "start it"]);
    says(&cluster.trackers[0], &["g/a/2", "silent", "start it"]);
    says(&cluster.storages[0], &["mount 0", "fewer copies", "peers"]);
    // 25: somebody else listens there.
    let stranger = Stranger::at(&cluster.storages[1].address());
    says(&cluster.storages[0], &["mirror 2", "not connected", "who listens"]);
    stranger.leave(cluster.storages[1].port);
    cluster.storages[1].start();
    until_live(&cluster);
    for node in &cluster.storages {
        is_silent(node, &["mirror"]);
    }
    // 22: the tracker is down.
    cluster.trackers[0].take().kill();
    says(&cluster.storages[0], &["tracker", "not reached", "start it"]);
    // 24: what an operator left behind.
    cluster.storages[0].admin("readonly on");
    says(&cluster.storages[0], &["every change", "readonly off"]);
    cluster.storages[0].admin("readonly off");
    cluster.storages[0].admin("drain");
    says(&cluster.storages[0], &["no new objects", "drain off"]);
    cluster.storages[0].admin("drain off");
    is_silent(&cluster.storages[0], &["no new objects"]);
}

#[test]
fn no_conflict_goes_unread() {
    let mut cluster = mirrors(folder(), 2);
    let id = put_on_first(&cluster, b"first");
    conflict(&mut cluster, &id, b"loses", b"wins");
    for node in &cluster.storages {
        says(node, &["lost a conflict", "conflicts list", "conflicts restore"]);
    }
}

#[test]
fn no_disk_is_lost_without_a_word() {
    let mut cluster = Cluster::new(1, &["a", "b"], 4);
    cluster.start();
    cluster.cli().put("x");
    cluster.stop_all();
    // 11: storage 1 gets a disk of storage 2; 10: a folder with somebody's files.
    let (first, second) = (cluster.mount_path(0, 1), cluster.mount_path(1, 1));
    std::fs::remove_dir_all(&first).expect("folder");
    std::fs::rename(&second, &first).expect("moved");
    let files = cluster.mount_path(0, 2);
    std::fs::remove_dir_all(&files).expect("folder");
    std::fs::create_dir(&files).expect("folder");
    std::fs::write(files.join("thesis.txt"), b"precious").expect("file");
    cluster.start();
    let node = &cluster.storages[0];
    says(node, &["mount 1 failed", "foreign"]);
    says(node, &["mount 2 failed", "foreign"]);
    assert_eq!(std::fs::read(files.join("thesis.txt")).expect("there"), b"precious");
    // 8, 9: a folder goes while it is served.
    let lost = cluster.mount_path(0, 3);
    std::fs::rename(&lost, lost.with_extension("away")).expect("moved");
    says(node, &["mount 3 failed", "missing"]);
    says(&cluster.trackers[0], &["g/a/1 mount 3 failed", "folio admin"]);
    std::fs::rename(lost.with_extension("away"), &lost).expect("back");
    is_silent(node, &["mount 3"]);
    // 6: blank, and nobody has what was there.
    std::fs::remove_dir_all(&lost).expect("folder");
    std::fs::create_dir(&lost).expect("blank");
    says(node, &["mount 3", "accept-loss"]);
    assert_eq!(node.admin("status json").matches("\"serving\"").count(), 1, "the others serve");
}

/// Free bytes of the file system, and all of them.
fn space(path: &Path) -> (u64, u64) {
    let space = rustix::fs::statvfs(path).expect("space");
    (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize)
}

#[test]
fn no_disk_fills_up_unseen() {
    let mut cluster = Cluster::new(1, &["a"], 1);
    let (free, total) = space(cluster.dir.path());
    // 12: nothing is left above the reserve.
    let all = format!("\"{}\"", total.saturating_mul(2));
    cluster.storages[0].config.set("store.reserve_free", &all);
    cluster.start();
    let cli = Cli { timeout: Some("2s"), ..cluster.cli() };
    cli.run_with(["put", "-"], "x").exits(1).says(&["full", "add a mount"]);
    says(&cluster.storages[0], &["mount 0 is full", "reserve_free", "add a mount", "ib are free"]);
    // `mounts` of both tells the same as `status`.
    for node in [&cluster.storages[0], &cluster.trackers[0]] {
        let mounts = json(&node.admin("mounts json"));
        let mount = &mounts["mounts"][0];
        assert_eq!(mount["writable"], false, "{mounts}");
        assert!(mount["why"].as_str().is_some_and(|why| why.contains("full")), "{mounts}");
    }
    cluster.storages[0].stop();
    // 13: a twentieth of what may be used is left.
    let left = (total - free) / 20;
    let reserve = format!("\"{}\"", free - left.min(free / 2));
    cluster.storages[0].config.set("store.reserve_free", &reserve);
    cluster.storages[0].start();
    says(&cluster.storages[0], &["mount 0 is nearly full", "add a mount"]);
}

#[test]
fn no_wrong_configuration_is_kept_to_itself() {
    let dir = folder();
    let keys: Vec<String> = ["one", "two"]
        .iter()
        .map(|name| {
            let path = dir.path().join(name).to_str().expect("text").to_owned();
            Cli::default().run(["keygen", &path]).ok();
            path
        })
        .collect();
    // Trackers know both keys, as while keys are changed; each storage only one.
    let both = dir.path().join("both");
    let text = |path: &String| std::fs::read_to_string(path).expect("keys");
    std::fs::write(&both, keys.iter().map(text).collect::<String>()).expect("keys");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&both, mode).expect("closed");
    let mut cluster = Cluster::new(1, &["a", "a"], 1);
    cluster.trackers[0].config.set("auth.key_file", &format!("{both:?}"));
    for (node, key) in cluster.storages.iter_mut().zip(&keys) {
        node.config.set("auth.key_file", &format!("{key:?}"));
    }
    for node in cluster.trackers.iter_mut().chain(&mut cluster.storages) {
        node.spawn();
    }
    for (machine, node) in [("mirror 2", &cluster.storages[0]), ("mirror 1", &cluster.storages[1])]
    {
        let cli = Cli { key_file: node.key_file(), ..Cli::default() };
        let ask = || cli.run(["admin", &node.console(), "status"]);
        eventually("the key is named", PATIENCE, || {
            let answer = ask();
            let text = answer.text().to_lowercase();
            (text.contains(machine) && text.contains("key_file") && text.contains("does not match"))
                .then_some(())
        });
    }
}

#[test]
fn no_two_machines_with_one_number_go_unnoticed() {
    let mut cluster = Cluster::new(1, &["a"], 1).started();
    let twin = cluster.add_storage("g", "a", 1);
    cluster.storages[twin].config.set("machine_id", "1");
    cluster.storages[twin].spawn();
    let twin = &cluster.storages[twin];
    says(&cluster.trackers[0], &["duplicate machine id", "another machine_id"]);
    eventually("its console answers", PATIENCE, || {
        let answer = Cli::default().run(["admin", &twin.console(), "status"]);
        (answer.code == 0).then_some(())
    });
    says(twin, &["refuses this storage", "another machine_id"]);
}

#[test]
fn no_mirror_drifts_away_in_silence() {
    let mut cluster = Cluster::new(1, &["a", "a"], 1);
    // 17, 18, 19, 20.
    let extra = cluster.mount_path(1, 1);
    std::fs::create_dir_all(&extra).expect("folder");
    cluster.storages[1]
        .config
        .mount(1, &extra)
        .set("store.undelete_window", "\"3h\"")
        .set("durability.sync", "\"os\"");
    set_env(&mut cluster.storages[1], "FOLIO_RESERVE", "1");
    cluster.start();
    for (node, there) in [(&cluster.storages[0], "mirror 2"), (&cluster.storages[1], "mirror 1")] {
        says(node, &["config drift", "store.undelete_window", there, "same value"]);
        says(node, &["config drift", "durability.sync", there]);
        says(node, &["config drift", "other mounts", "mount 1 only", "[[mounts]]"]);
    }
    says(&cluster.trackers[0], &["config drift", "g/a/1 has no mount 1", "[[mounts]]"]);
    says(&cluster.storages[1], &["durability.sync", "power cut", "fsync"]);
    says(&cluster.storages[1], &["folio_reserve", "correct it"]);
}

/// Where Debian's package `faketime` has its library.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

#[test]
fn no_clock_that_is_a_day_off_goes_unnoticed() {
    if !Path::new(FAKETIME).exists() {
        println!(
            "skipped: no {FAKETIME} (package faketime); the decision is tested in cluster/alike.rs"
        );
        return;
    }
    let mut cluster = Cluster::new(1, &["a", "a"], 1);
    set_env(&mut cluster.storages[1], "LD_PRELOAD", FAKETIME);
    set_env(&mut cluster.storages[1], "FAKETIME", "-1d");
    set_env(&mut cluster.storages[1], "FAKETIME_DONT_FAKE_MONOTONIC", "1");
    cluster.start();
    says(&cluster.storages[0], &["clock of mirror 2", "behind", "ntp"]);
    says(&cluster.storages[1], &["clock of mirror 1", "ahead", "ntp"]);
    says(&cluster.storages[1], &["clock of tracker", "ahead"]);
    says(&cluster.trackers[0], &["clock of g/a/2", "behind", "ntp"]);
    // It works nevertheless, and what one of them writes the other has.
    let cli = cluster.cli();
    for n in 0..10 {
        let id = cli.put(format!("object {n}"));
        assert_eq!(cli.get(&id), format!("object {n}").into_bytes());
    }
}

#[test]
fn no_flood_goes_unnoticed_and_no_refusal_is_silent() {
    let mut cluster = Cluster::new(1, &["a", "a"], 1)
        .storages_with("durability.when_alone", "\"refuse\"")
        .storages_with("limits.in_flight_requests", "1");
    cluster.start();
    until_live(&cluster);
    // 23.
    let flood = cluster.cli();
    eventually("a put is taken", PATIENCE, || {
        (flood.run_with(["put", "-"], "x").code == 0).then_some(())
    });
    let args = ["bench", "put", "--connections", "16", "--count", "400", "--size", "4k"];
    let answer = flood.run(args);
    let words = ["busy", "limits.in_flight_requests"];
    let named = |line: &String| words.iter().all(|word| line.contains(word));
    eventually(&format!("one of the two names it; bench says {}", answer.stderr), PATIENCE, || {
        cluster.storages.iter().any(|node| warnings(node).iter().any(named)).then_some(())
    });
    // 7.
    cluster.storages[1].take().kill();
    says(&cluster.storages[0], &["changes are refused", "when_alone", "missing: machine 2"]);
    // Whoever is refused hears the same, and not that a mount is full.
    let cli = Cli { timeout: Some("1s"), ..cluster.cli() };
    eventually("the true reason is told", PATIENCE, || {
        let answer = cli.run_with(["put", "-"], "x");
        let told = answer.code == 5 && answer.stderr.contains("missing: machine 2");
        (told && !answer.stderr.contains("full")).then_some(())
    });
}
