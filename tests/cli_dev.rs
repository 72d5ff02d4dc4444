//! A whole cluster by `folio dev`, used as a person would: nothing that was acknowledged is lost, also by kill -9.
#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "a test that runs the binary")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// A running `folio dev`.
struct Dev {
    child: Child,
    tracker: String,
    port: u16,
}

fn folio() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_folio"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FOLIO_")) {
        command.env_remove(name);
    }
    command
}

/// A port such that all that `dev` needs above it are free now.
fn free_port() -> u16 {
    static TRIES: AtomicU16 = AtomicU16::new(0);
    // Below the range from which the system takes the ports of outgoing connections: a busy test before us leaves that
    // full of ports that are not quite closed.
    let start = u16::try_from(std::process::id() % 64).expect("small") * 313;
    for _ in 0..100 {
        let base = 10_000 + (start + TRIES.fetch_add(1, Ordering::Relaxed) * 251) % 20_000;
        let needed = [0, 100, 200].into_iter().flat_map(|more| (0..=12).map(move |n| more + n));
        if needed.clone().all(|more| TcpListener::bind(("127.0.0.1", base + more)).is_ok()) {
            return base;
        }
    }
    panic!("no free range of ports");
}

impl Dev {
    fn start(dir: &Path, port: u16) -> Self {
        Self::start_as(folio(), dir, port)
    }

    fn start_as(mut command: Command, dir: &Path, port: u16) -> Self {
        let mut child = command
            .args(["dev", "--storages", "2", "--port", &port.to_string(), "--dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("stdout");
        BufReader::new(out).read_line(&mut line).expect("a line");
        assert_eq!(line, format!("ready tracker=127.0.0.1:{port}\n"));
        Self { child, tracker: format!("127.0.0.1:{port}"), port }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        folio().args(["--tracker", &self.tracker]).args(arguments).output().expect("runs")
    }

    /// Standard output of a command that succeeds.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {err}");
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }

    fn code(&self, arguments: &[&str]) -> Option<i32> {
        self.run(arguments).status.code()
    }

    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    fn terminate(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
        let status = self.child.wait().expect("ends");
        assert_eq!(status.code(), Some(0), "an ordered stop is exit 0");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // A test that failed must not leave a cluster behind.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn the_first_five_minutes_of_a_user_work() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("hello.txt");
    std::fs::write(&file, "hello").expect("write");
    let data = dir.path().join("data");
    let dev = Dev::start(&data, free_port());
    let id = dev.ok(&["put", text(&file), "--ext", "txt"]);
    assert!(id.starts_with("dev/a/") && id.ends_with(".txt"), "{id}");
    assert_eq!(dev.ok(&["get", &id]), "hello");
    std::fs::write(&file, "hello again, and longer than before").expect("write");
    assert_eq!(dev.ok(&["modify", &id, text(&file)]), id, "an id is for life");
    assert_eq!(dev.ok(&["get", &id, "--range", "0-4"]), "hello");

    let stat: serde_json::Value =
        serde_json::from_str(&dev.ok(&["stat", &id, "--json"])).expect("JSON");
    for key in [
        "id",
        "group",
        "syncgroup",
        "owner",
        "mount",
        "kind",
        "length",
        "capacity",
        "opver",
        "created",
        "modified",
        "crc32c",
        "state",
        "forwarded",
    ] {
        assert!(!stat[key].is_null(), "{key} is missing: {stat}");
    }
    assert_eq!(stat["length"], 35);
    let old = stat["opver"].as_str().expect("opver").to_owned();
    dev.ok(&["modify", &id, text(&file), "--if-opver", &old]);
    assert_eq!(dev.code(&["modify", &id, text(&file), "--if-opver", &old]), Some(4));
    assert_eq!(dev.code(&["get", &id, "--range", "900-901"]), Some(2));
    assert_eq!(dev.code(&["put", text(&file), "--group", "other"]), Some(5));

    dev.ok(&["delete", &id]);
    assert_eq!(dev.code(&["get", &id]), Some(3));
    dev.ok(&["undelete", &id]);
    let out = dir.path().join("out");
    dev.ok(&["get", &id, "-o", text(&out)]);
    assert_eq!(std::fs::read(&out).expect("out"), std::fs::read(&file).expect("file"));
    // The extension is decoration that is not stored; the check at the end of an id covers it.
    let listed = dev.ok(&["list"]);
    assert!(listed.starts_with(&id[..50]), "{listed} does not name {id}");
    let listed = listed.split('\t').next().expect("an id");
    assert_eq!(dev.ok(&["get", listed, "--range", "0-4"]), "hello");
    assert!(dev.ok(&["df"]).contains("online"));
    let console = format!("127.0.0.1:{}", dev.port + 100);
    assert!(!dev.ok(&["admin", &console, "nodes"]).is_empty());
    assert_eq!(dev.code(&["admin", &console, "frobnicate"]), Some(1));
    dev.terminate();
}

#[test]
fn an_import_into_an_unknown_group_never_begins() {
    let dir = tempfile::tempdir().expect("dir");
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).expect("mkdir");
    for n in 0..40 {
        std::fs::write(tree.join(n.to_string()), "x").expect("write");
    }
    let manifest = dir.path().join("M");
    let dev = Dev::start(&dir.path().join("data"), free_port());
    let told = dev.run(&["import", text(&tree), "-m", text(&manifest), "--group", "nope"]);
    let err = String::from_utf8(told.stderr).expect("text");
    assert_eq!(told.status.code(), Some(5), "{err}");
    assert_eq!(err.matches("nope").count(), 1, "once, not for every file: {err}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 2, "no manifest, no journal");
    dev.terminate();
}

#[test]
fn a_load_never_outlasts_its_duration_when_the_storage_stands_still() {
    use rustix::process::{Pid, Signal, kill_process};
    let dir = tempfile::tempdir().expect("dir");
    let dev = Dev::start(&dir.path().join("data"), free_port());
    let mut load = folio()
        .args(["--tracker", &dev.tracker, "--timeout", "2s", "bench", "modify", "--json"])
        .args(["--duration", "3s", "--objects", "10", "--connections", "4"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(load.stderr.take().expect("piped")).lines();
    let works = lines.any(|line| line.is_ok_and(|line| line.contains("ops/s")));
    assert!(works, "it ends before it begins");
    let pid = Pid::from_child(&dev.child);
    kill_process(pid, Signal::STOP).expect("stopped");
    let begun = std::time::Instant::now();
    let told = load.wait_with_output().expect("ends");
    let took = begun.elapsed();
    kill_process(pid, Signal::CONT).expect("goes on");
    // Two seconds of the load were left, and two are the timeout; the rest is for a machine that is busy.
    assert!(took < std::time::Duration::from_secs(15), "{took:?}");
    assert_eq!(told.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&told.stdout).expect("a report");
    assert_eq!(report["errors"], 4, "one for each connection: {report}");
    dev.terminate();
}

#[test]
fn an_option_behind_a_console_command_is_never_a_word_of_it() {
    let dir = tempfile::tempdir().expect("dir");
    let dev = Dev::start(&dir.path().join("data"), free_port());
    let console = format!("127.0.0.1:{}", dev.port + 100);
    for words in [
        &["status", "--json"][..],
        &["status", "--timeout", "3s", "--json"],
        &["status", "--key-file=/nowhere", "--json"],
        &["status", "--tracker", "a:1", "--json"],
    ] {
        let answer = dev.ok(&[&["admin", &console], words].concat());
        serde_json::from_str::<serde_json::Value>(&answer).expect("one JSON document");
    }
    // Behind `--` a word is the console's, which does not know this one.
    assert_eq!(dev.code(&["admin", &console, "status", "--", "--json"]), Some(1));
    // No console: the tracker's own port, and one where nobody speaks.
    let other = TcpListener::bind("127.0.0.1:0").expect("bound");
    let silent = other.local_addr().expect("bound").to_string();
    for address in [&dev.tracker, &silent] {
        let told = dev.run(&["admin", address, "status", "--timeout", "1s"]);
        let err = String::from_utf8(told.stderr).expect("text");
        assert_eq!(told.status.code(), Some(5), "{err}");
        assert!(err.contains("probably no admin_listen port"), "{err}");
    }
    dev.terminate();
}

#[test]
fn what_is_no_tracker_and_what_cannot_be_written_is_named_with_a_remedy() {
    let dir = tempfile::tempdir().expect("dir");
    let dev = Dev::start(&dir.path().join("data"), free_port());
    let storage = format!("127.0.0.1:{}", dev.port + 11);
    let told = folio().args(["--tracker", &storage, "df"]).output().expect("runs");
    let err = String::from_utf8(told.stderr).expect("text");
    assert!(err.contains("a storage, no tracker") && err.contains("7400"), "{err}");
    let file = dir.path().join("f");
    std::fs::write(&file, "hello").expect("write");
    let id = dev.ok(&["put", text(&file)]);
    let nowhere = dir.path().join("none/out");
    let told = dev.run(&["get", &id, "-o", text(&nowhere)]);
    let err = String::from_utf8(told.stderr).expect("text");
    assert_eq!(told.status.code(), Some(1), "{err}");
    assert!(err.contains("create the folder that it is to lie in"), "{err}");
    dev.terminate();
}

/// Where nothing can be written.
fn full() -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device that is always full")
}

/// A pipe that nobody reads any more.
fn unread() -> std::io::PipeWriter {
    std::io::pipe().expect("pipe").1
}

#[test]
fn no_command_panics_or_stops_when_what_it_says_cannot_be_written() {
    let dir = tempfile::tempdir().expect("dir");
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).expect("mkdir");
    let file = tree.join("f");
    std::fs::write(&file, "hello").expect("write");
    std::os::unix::fs::symlink("f", tree.join("left out")).expect("link");
    let file = text(&file);
    let dev = Dev::start(&dir.path().join("data"), free_port());
    let command = |words: &[&str]| {
        let mut command = folio();
        command.args(["--tracker", &dev.tracker]).args(words);
        command
    };
    let id = dev.ok(&["put", file]);
    let (manifest, out) = (dir.path().join("M"), dir.path().join("out"));
    let (manifest, out, tree) = (text(&manifest), text(&out), text(&tree));
    let console = format!("127.0.0.1:{}", dev.port + 100);
    let keys = dir.path().join("keys");
    let cases: &[&[&str]] = &[
        &["put", file],
        &["modify", &id, file],
        &["delete", &id],
        &["undelete", &id],
        &["get", &id],
        &["stat", &id],
        &["list"],
        &["df"],
        &["import", tree, "-m", manifest],
        &["verify", manifest],
        &["export", manifest, out],
        &["admin", &console, "status"],
        &["bench", "put", "--count", "3", "--connections", "1"],
        &["keygen", text(&keys)],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
    ];
    // What a run did stands in the way of its repetition.
    let again = |case: &[&str]| match case[0] {
        "delete" => drop(dev.run(&["undelete", &id])),
        "undelete" => drop(dev.run(&["delete", &id])),
        "keygen" if keys.exists() => std::fs::remove_file(&keys).expect("removed"),
        _ => {}
    };
    for case in cases {
        for json in [&[][..], &["--json"]] {
            let words = [case, json].concat();
            again(case);
            let told = command(&words).stdout(full()).output().expect("runs");
            let err = String::from_utf8_lossy(&told.stderr).into_owned();
            assert_eq!(told.status.code(), Some(1), "{words:?}: {err}");
            assert!(err.contains("cannot write to standard output: "), "{words:?}: {err}");
            again(case);
            let status = command(&words).stdout(unread()).stderr(full()).status().expect("runs");
            assert_eq!(status.code(), Some(1), "{words:?} when neither can be written");
            again(case);
            let told = command(&words).stderr(full()).output().expect("runs");
            assert_eq!(told.status.code(), Some(0), "{words:?} when nobody hears of problems");
            assert!(!told.stdout.is_empty(), "{words:?}");
        }
    }
    // What was stored is not lost with the line that named it.
    let told = command(&["put", file]).stdout(full()).output().expect("runs");
    let err = String::from_utf8(told.stderr).expect("text");
    let id = err.split_whitespace().find(|word| word.starts_with("dev/a/")).expect("an id");
    assert_eq!(dev.ok(&["get", id]), "hello");
    dev.terminate();
}

#[test]
fn no_daemon_ends_because_its_log_cannot_be_written() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("f");
    std::fs::write(&file, "hello").expect("write");
    let mut command = folio();
    command.env("FOLIO_LOG__LEVEL", "debug").stderr(full());
    let dev = Dev::start_as(command, &dir.path().join("data"), free_port());
    let id = dev.ok(&["put", text(&file)]);
    assert_eq!(dev.ok(&["get", &id]), "hello");
    dev.terminate();
}

#[test]
fn a_tree_survives_import_kill_verify_and_export() {
    let dir = tempfile::tempdir().expect("dir");
    let tree = dir.path().join("tree");
    for (name, len) in [
        ("empty", 0),
        ("one", 1),
        ("a/under", 1 << 20),
        ("a/over", (1 << 20) + 1),
        ("a/b/c%\t.x", 5000),
    ] {
        let path = tree.join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        let bytes: Vec<u8> = (0..len).map(|i: usize| (i % 251) as u8).collect();
        std::fs::write(path, bytes).expect("write");
    }
    let (manifest, data) = (dir.path().join("M"), dir.path().join("data"));
    let port = free_port();
    let dev = Dev::start(&data, port);
    let import = ["import", text(&tree), "-m", text(&manifest)];
    assert_eq!(dev.ok(&import), "5 stored, 0 modified, 0 unchanged, 0 failed");
    assert_eq!(dev.ok(&["verify", text(&manifest)]), "5 ok, 0 missing, 0 different");
    dev.kill();

    let dev = Dev::start(&data, port);
    assert_eq!(dev.ok(&["verify", text(&manifest)]), "5 ok, 0 missing, 0 different");
    std::fs::write(tree.join("one"), "changed").expect("write");
    let before = ids(&manifest);
    assert_eq!(dev.ok(&import), "0 stored, 1 modified, 4 unchanged, 0 failed");
    let (mut after, mut sorted) = (ids(&manifest), before);
    after.sort();
    sorted.sort();
    assert_eq!(after, sorted, "ids are for life");
    let out = dir.path().join("out");
    assert_eq!(dev.ok(&["export", text(&manifest), text(&out)]), "5 written, 0 failed");
    let same = Command::new("diff").arg("-r").args([&tree, &out]).status().expect("diff");
    assert!(same.success());
    let victim = ids(&manifest).remove(0);
    dev.ok(&["delete", &victim]);
    let verify = dev.run(&["verify", text(&manifest)]);
    assert_eq!(verify.status.code(), Some(1));
    let last = String::from_utf8(verify.stdout).expect("text");
    assert_eq!(last.lines().last(), Some("4 ok, 1 missing, 0 different"));
    dev.terminate();
}

fn ids(manifest: &PathBuf) -> Vec<String> {
    let text = std::fs::read_to_string(manifest).expect("manifest");
    text.lines().filter_map(|line| line.split('\t').next()).map(str::to_owned).collect()
}
