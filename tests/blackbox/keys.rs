//! Keys: right, wrong, none, open to others.

use crate::harness::cluster::Cluster;
use crate::harness::run::Cli;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn keygen(path: &Path) -> PathBuf {
    Cli::default().run(["keygen", path.to_str().expect("text")]).ok();
    path.to_owned()
}

fn with_key(path: &Path) -> Cluster {
    let mut cluster = Cluster::new(1, &["a"], 1);
    let value = format!("{path:?}");
    for node in cluster.trackers.iter_mut().chain(cluster.storages.iter_mut()) {
        node.config.set("auth.key_file", &value);
    }
    cluster.started()
}

/// The right key works; a wrong one, and none, are refused with what to do.
#[test]
fn no_client_without_the_key_is_served() {
    let dir = tempfile::tempdir().expect("folder");
    let right = keygen(&dir.path().join("right"));
    let wrong = keygen(&dir.path().join("wrong"));
    let mode = std::fs::metadata(&right).expect("stat").permissions().mode() & 0o7777;
    assert_eq!(mode, 0o600);
    Cli::default().run(["keygen", right.to_str().expect("text")]).exits(1);
    let cluster = with_key(&right);

    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let cli = Cli { key_file: Some(text(&right)), ..cluster.cli() };
    let id = cli.put("secret");
    assert_eq!(cli.get(&id), b"secret");

    let none = Cli { timeout: Some("2s"), ..cluster.cli() };
    let stranger = Cli { key_file: Some(text(&wrong)), timeout: Some("2s"), ..cluster.cli() };
    for cli in [&none, &stranger] {
        for args in [vec!["get", &id], vec!["put", "-"], vec!["list"], vec!["delete", &id]] {
            let answer = cli.run_with(args, "x");
            assert!([1, 5].contains(&answer.code), "{}: {}", answer.code, answer.stderr);
            assert!(answer.stdout.is_empty());
            answer.says(&["key"]);
        }
    }
    none.run(["get", &id]).says(&["key-file"]);

    // Only the client line: enough for a client.
    let all = std::fs::read_to_string(&right).expect("read");
    let line = all.lines().find(|line| line.starts_with("client")).expect("a client key");
    let client_only = dir.path().join("client");
    std::fs::write(&client_only, format!("{line}\n")).expect("write");
    std::fs::set_permissions(&client_only, PermissionsExt::from_mode(0o600)).expect("chmod");
    let cli = Cli { key_file: Some(text(&client_only)), ..cluster.cli() };
    assert_eq!(cli.get(&id), b"secret");
}

/// A key file that others can read is refused by daemons and clients alike.
#[test]
fn no_key_file_that_others_can_read_is_used() {
    let dir = tempfile::tempdir().expect("folder");
    let path = keygen(&dir.path().join("keys"));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("chmod");
    let text = path.to_str().expect("text").to_owned();
    let mut cluster = Cluster::new(1, &["a"], 1);
    let value = format!("{text:?}");
    cluster.trackers[0].config.set("auth.key_file", &value);
    cluster.storages[0].config.set("auth.key_file", &value);
    for node in [&mut cluster.trackers[0], &mut cluster.storages[0]] {
        let (code, stderr) = node.start_fails();
        assert!([1, 2].contains(&code), "{code}: {stderr}");
        assert!(stderr.contains(&text) && stderr.contains("600"), "{stderr}");
    }
    let cli = Cli { key_file: Some(text.clone()), ..cluster.cli() };
    let answer = cli.run(["list"]);
    assert!([1, 2].contains(&answer.code), "{}", answer.code);
    answer.says(&[&text, "600"]);
}

/// With a key the console asks for it before it answers anything.
#[test]
fn no_console_answers_without_the_key() {
    let dir = tempfile::tempdir().expect("folder");
    let right = keygen(&dir.path().join("right"));
    let cluster = with_key(&right);
    for node in [&cluster.trackers[0], &cluster.storages[0]] {
        let mut console = crate::harness::wire::Console::connect(&node.console());
        assert!(console.banner.contains("challenge="), "{}", console.banner);
        let answer = console.ask("status").join("\n");
        assert!(answer.starts_with("error:"), "{answer}");
        let help = console.ask("help auth").join("\n");
        assert!(help.contains("openssl"), "{help}");
        let refused = console.ask(&format!("auth {}", "00".repeat(32))).join("\n");
        assert!(refused.starts_with("error:"), "{refused}");
        let cli = Cli { key_file: right.to_str().map(str::to_owned), ..Cli::default() };
        let text = cli.run(["admin", &node.console(), "status"]).ok().text();
        assert!(!text.contains("error:") && !text.is_empty(), "{text}");
    }
}
