//! A person at 3 a.m. with nothing but `nc`: what is typed, what is said, and that it mends. Each scene is a transcript, printed as
//! it goes (`--nocapture`): lines that begin with `>` are typed.
//!
//! What hands do away from the console (start a machine, put a disk in) is told in brackets.

use crate::harness::cluster::{Cluster, Node};
use crate::harness::mirrored::{mirrors, until_live};
use crate::harness::run::Cli;
use crate::harness::wire::Console;
use crate::harness::{PATIENCE, eventually};
use crate::mirrors::{conflict, put_on_first};
use std::process::Command;

/// One session at one console.
struct Session {
    name: String,
    console: Console,
}

impl Session {
    fn at(node: &Node) -> Self {
        let console = Console::connect(&node.console());
        println!("$ nc 127.0.0.1 {}\n{}", node.admin, console.banner);
        Self { name: node.name.clone(), console }
    }

    /// Types a line; the answer.
    fn types(&mut self, line: &str) -> String {
        let answer = self.console.ask(line).join("\n");
        println!("{}> {line}\n{answer}\n.", self.name);
        answer
    }

    /// Types the same line until the answer has all these words; `!word`: has it not.
    #[track_caller]
    fn until(&mut self, line: &str, words: &[&str]) -> String {
        let mut last = String::new();
        let said = |answer: &str| {
            // Of the disk of whoever runs the tests nothing is said here.
            let own = |line: &&str| !line.contains("nearly full");
            let answer = answer.to_lowercase();
            let answer = answer.lines().filter(own).collect::<Vec<_>>().join("\n");
            words.iter().all(|word| match word.strip_prefix('!') {
                Some(word) => !answer.contains(word),
                None => answer.contains(word),
            })
        };
        let deadline = std::time::Instant::now() + PATIENCE;
        while last.is_empty() || !said(&last) {
            assert!(std::time::Instant::now() < deadline, "{line}: no {words:?} in\n{last}");
            last = self.console.ask(line).join("\n");
        }
        println!("{}> {line}\n{last}\n.", self.name);
        last
    }
}

fn hands(what: &str) {
    println!("[{what}]");
}

#[test]
fn a_node_that_is_down_and_a_mirror_that_lags() {
    let mut cluster = mirrors(tempfile::TempDir::new().expect("folder"), 2);
    let (mut first, mut tracker) =
        (Session::at(&cluster.storages[0]), Session::at(&cluster.trackers[0]));
    // Lagging: it is there and takes nothing.
    hands("machine 2 stands still");
    cluster.storages[1].daemon().pause();
    let cli = cluster.cli();
    let ids: Vec<String> = (0..5).map(|n| cli.put(vec![n; 20_000])).collect();
    first.until("status", &["fewer copies", "peers"]);
    first.until("peers json", &["\"lag_records\":", "!\"lag_records\":0,"]);
    first.types("peers");
    hands("it goes on");
    cluster.storages[1].daemon().resume();
    first.until("status", &["!fewer copies"]);
    first.until("peers", &["live"]);
    for id in &ids {
        cli.run(["get", id, "--from", "2"]).ok();
    }
    // Down.
    hands("the power of machine 2 goes");
    cluster.storages[1].take().kill();
    tracker.until("status", &["g/a/2", "silent for", "start it"]);
    let route = tracker.until(&format!("route {}", ids[0]), &["targets"]);
    assert!(route.contains(&cluster.storages[0].address()), "{route}");
    first.until("status", &["mirror 2", "not connected", "start it", "forget 2"]);
    hands("it is started");
    cluster.storages[1].start();
    first.until("status", &["!mirror 2"]);
    tracker.until("status", &["!g/a/2"]);
    tracker.until("nodes", &["online", "!offline"]);
}

#[test]
fn a_mount_that_failed_and_a_blank_disk() {
    let mut cluster = mirrors(tempfile::TempDir::new().expect("folder"), 2);
    let cli = cluster.cli();
    let ids: Vec<String> = (0..30).map(|n| cli.put(vec![n; 9_000])).collect();
    let mut second = Session::at(&cluster.storages[1]);
    let mount = cluster.mount_path(1, 0);
    hands("the cable of its disk comes loose");
    std::fs::rename(&mount, mount.with_extension("loose")).expect("moved");
    second.until("status", &["mount 0 failed", "missing"]);
    second.until("mounts", &["failed"]);
    hands("it is put back");
    std::fs::rename(mount.with_extension("loose"), &mount).expect("back");
    second.until("status", &["!failed"]);
    second.until("mounts", &["online"]);
    hands("the disk dies; a new one is mounted at the same place");
    std::fs::remove_dir_all(&mount).expect("folder");
    std::fs::create_dir(&mount).expect("blank");
    let said = second.until("recover status", &["mount"]);
    assert!(!said.starts_with("error:"), "{said}");
    second.until("recover", &["online", "identical with machine 1"]);
    second.until("status", &["!mount 0"]);
    for (n, id) in ids.iter().enumerate() {
        let answer = cli.run(["get", id, "--from", "2"]).ok();
        assert!(answer.stdout == vec![u8::try_from(n).expect("small"); 9_000]);
    }
    cluster.stop_all();
}

#[test]
fn a_conflict_that_is_restored() {
    let mut cluster = mirrors(tempfile::TempDir::new().expect("folder"), 2);
    let id = put_on_first(&cluster, b"first");
    conflict(&mut cluster, &id, b"the chapter that was lost", b"the chapter that won");
    let mut second = Session::at(&cluster.storages[1]);
    second.until("status", &["lost a conflict", "conflicts list"]);
    let list = second.until("conflicts list", &[&id.to_lowercase()]);
    let row = list.lines().find(|line| line.contains(&id)).expect("its row");
    let word = row.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| !word.is_empty());
    let number = word.expect("its number").to_owned();
    let shown = second.types(&format!("conflicts show {number}"));
    assert!(shown.contains("bytes"), "{shown}");
    // It is restored where its owner is: the other console says so.
    let elsewhere = second.types(&format!("conflicts restore {number}"));
    if elsewhere.starts_with("error:") {
        assert!(elsewhere.contains("on the console of machine 1"), "{elsewhere}");
        let said = Session::at(&cluster.storages[0]).types(&format!("conflicts restore {number}"));
        assert!(!said.starts_with("error:"), "{said}");
    }
    assert_eq!(cluster.cli().get(&id), b"the chapter that was lost");
    second.until("status", &["!lost a conflict"]);
    second.until("find ", &["error:"]);
    second.until(&format!("find {id}"), &["live"]);
}

#[test]
fn a_disk_that_is_full() {
    let mut cluster = Cluster::new(1, &["a"], 1);
    cluster.storages[0].config.set("store.reserve_free", "\"900TiB\"");
    cluster.start();
    let mut first = Session::at(&cluster.storages[0]);
    let cli = Cli { timeout: Some("2s"), ..cluster.cli() };
    cli.run_with(["put", "-"], "x").exits(1).says(&["full"]);
    first.until("status", &["mount 0 is full", "reserve_free", "free space"]);
    // Until a disk is there, a part of the reserve.
    first.until("config show reserve", &["store.reserve_free"]);
    let refused = first.types("config set store.reserve_free lots");
    assert!(refused.starts_with("error:"), "{refused}");
    first.types("config set store.reserve_free 16MiB");
    first.until("status", &["!is full"]);
    eventually("it goes on by itself", PATIENCE, || {
        (cli.run_with(["put", "-"], "x").code == 0).then_some(())
    });
}

#[test]
fn a_wrong_key() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: there is no openssl here");
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let [right, wrong] = ["right", "wrong"].map(|name| {
        let path = dir.path().join(name).to_str().expect("text").to_owned();
        Cli::default().run(["keygen", &path]).ok();
        path
    });
    let mut cluster = Cluster::new(1, &["a"], 1);
    for node in cluster.trackers.iter_mut().chain(&mut cluster.storages) {
        node.config.set("auth.key_file", &format!("{right:?}"));
    }
    cluster.start();
    let mut first = Session::at(&cluster.storages[0]);
    assert!(first.types("status").starts_with("error:"));
    let help = first.types("help auth");
    let line = help.lines().find(|line| line.contains("openssl")).expect("the line");
    let prove = |first: &mut Session, keys: &str| {
        let made = Command::new("sh").args(["-c", &line.replace("KEYFILE", keys)]).output();
        let proof = String::from_utf8(made.expect("sh").stdout).expect("text");
        first.types(proof.trim())
    };
    let refused = prove(&mut first, &wrong);
    assert!(refused.starts_with("error:") && refused.contains("help auth"), "{refused}");
    let taken = prove(&mut first, &right);
    assert!(!taken.starts_with("error:"), "{taken}");
    first.until("status", &["serving"]);
}

#[test]
fn a_member_that_is_gone_for_good() {
    let mut cluster = mirrors(tempfile::TempDir::new().expect("folder"), 3);
    let cli = cluster.cli();
    let ids: Vec<String> = (0..10).map(|n| cli.put(vec![n; 3_000])).collect();
    until_live(&cluster);
    let mut first = Session::at(&cluster.storages[0]);
    hands("machine 3 burns");
    cluster.storages[2].take().kill();
    first.until("status", &["mirror 3", "not connected", "forget 3"]);
    let listed = |when: &str| {
        let mut listed = cli.list();
        let mut expected = ids.clone();
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected, "{when}: also what machine 3 created is listed");
    };
    listed("while it is away");
    first.until("forget 3", &["!error:"]);
    first.until("nodes", &["forgotten"]);
    first.until("status", &["!mirror 3", "!machine 3"]);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(cli.get(id), vec![u8::try_from(n).expect("small"); 3_000]);
    }
    listed("when it is forgotten");
}
