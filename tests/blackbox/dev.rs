//! `folio dev`: a whole cluster by one word, which carries on where it stopped.

use crate::harness::cluster::spawn_dev;
use crate::harness::content::content;
use crate::harness::ports::free_block;
use crate::harness::process::{folio, wait_port_free};
use crate::harness::run::Cli;

/// Put, kill -9, start again in the same folder: everything is there; SIGTERM ends with 0.
#[test]
fn no_restart_of_dev_forgets_anything() {
    let dir = tempfile::tempdir().expect("folder");
    let data = dir.path().join("data");
    let port = free_block();
    let tracker = format!("127.0.0.1:{port}");
    let cli = Cli { trackers: vec![tracker.clone()], ..Cli::default() };
    let dev = spawn_dev(&data, port, &[]);
    let ready = dev.wait_ready();
    assert_eq!(ready, format!("ready tracker={tracker}"));
    let mut stored = Vec::new();
    let sizes = [0, 1, 100, 5000, 1 << 20, (1 << 20) + 1, 5 << 20];
    for (n, size) in sizes.into_iter().enumerate() {
        let bytes = match size {
            0..=27 => vec![b'x'; size],
            _ => content(n as u64, 1, size).to_vec(),
        };
        stored.push((cli.put(bytes.clone()), bytes));
    }
    assert!(data.join("s1/m0").is_dir() && data.join("s3/m0").is_dir());
    dev.kill();
    for round in 0..2 {
        wait_port_free(port);
        let dev = spawn_dev(&data, port, &[]);
        dev.wait_ready();
        for (id, bytes) in &stored {
            assert!(cli.get(id) == *bytes, "round {round}: {id}");
        }
        assert_eq!(cli.list().len(), stored.len());
        let id = cli.put("more");
        stored.push((id, b"more".to_vec()));
        for n in 1..=3 {
            let console = format!("127.0.0.1:{}", port + 110 + n);
            assert!(!cli.run(["admin", &console, "status"]).ok().text().is_empty());
        }
        let console = format!("127.0.0.1:{}", port + 100);
        assert!(!cli.run(["admin", &console, "nodes"]).ok().text().is_empty());
        let (status, stderr) = dev.terminate();
        assert_eq!(status.code(), Some(0), "{stderr}");
    }
}

/// Its port taken: it says which, and ends.
#[test]
fn no_dev_starts_beside_another() {
    let dir = tempfile::tempdir().expect("folder");
    let port = free_block();
    let dev = spawn_dev(&dir.path().join("one"), port, &["--storages", "1", "--mounts", "2"]);
    dev.wait_ready();
    let other = spawn_dev(&dir.path().join("two"), port, &["--storages", "1"]);
    let (status, stderr) = other.wait_end();
    assert!(matches!(status.code(), Some(1..=5)), "{status}: {stderr}");
    assert!(stderr.contains(&port.to_string()), "{stderr}");
    // The same folder on other ports: the first one keeps it.
    let other =
        spawn_dev(&dir.path().join("one"), free_block(), &["--storages", "1", "--mounts", "2"]);
    let (status, stderr) = other.wait_end();
    assert!(matches!(status.code(), Some(1..=5)), "{status}: {stderr}");
    let cli = Cli { trackers: vec![format!("127.0.0.1:{port}")], ..Cli::default() };
    assert_eq!(cli.get(&cli.put("x")), b"x");
}

/// What a new user types first.
#[test]
fn no_first_command_fails() {
    let run = |args: &[&str]| {
        let output = folio().args(args).output().expect("runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let version = run(&["--version"]);
    assert!(
        version.starts_with("folio ") && version.contains(env!("CARGO_PKG_VERSION")),
        "{version}"
    );
    let help = run(&["--help"]);
    for command in [
        "dev",
        "tracker",
        "storage",
        "put",
        "get",
        "modify",
        "delete",
        "undelete",
        "stat",
        "list",
        "df",
        "import",
        "export",
        "verify",
        "keygen",
        "completions",
        "bench",
        "admin",
    ] {
        assert!(help.contains(command), "no {command} in --help");
        assert!(!run(&[command, "--help"]).is_empty());
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell]).contains("folio"));
    }
}

/// `bench` measures what it says, verifies what it reads, and leaves with 0.
#[test]
fn no_bench_reports_errors_on_a_sound_cluster() {
    let dir = tempfile::tempdir().expect("folder");
    let port = free_block();
    let dev = spawn_dev(dir.path(), port, &["--storages", "1"]);
    dev.wait_ready();
    let cli = Cli { trackers: vec![format!("127.0.0.1:{port}")], ..Cli::default() };
    for kind in ["put", "get", "modify", "delete", "mixed"] {
        let args =
            ["bench", kind, "--count", "300", "--connections", "4", "--size", "4k", "--json"];
        let answer = cli.run(args).ok();
        let text = answer.last_line();
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["errors"], 0, "{kind}: {text}");
    }
}
