//! What a daemon says at its most talkative: everything an operator changed, and no secret.

use crate::harness::cluster::Cluster;
use crate::harness::mirrored::until_live_with;
use crate::harness::run::Cli;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Every command that changes something, on a storage; what it is refused for does not matter here.
const CHANGING: [&str; 19] = [
    "readonly on",
    "readonly off",
    "drain",
    "drain off",
    "config set limits.in_flight_requests 5000",
    "config set machine_id 9",
    "log trace",
    "recover 0 start",
    "recover 0 pause",
    "recover 0 resume",
    "recover 0 accept-loss",
    "recover bandwidth 50MiB",
    "recover streams 2",
    "scrub 0 start",
    "scrub 0 pause",
    "scrub resume",
    "conflicts restore 1",
    "conflicts drop 1",
    "forget 9",
];

/// Commands that only look: they would bury the others.
const LOOKING: [&str; 13] = [
    "status",
    "mounts",
    "nodes",
    "peers",
    "sync",
    "recover",
    "recover 0 status",
    "scrub",
    "scrub status",
    "conflicts list",
    "config show",
    "requests",
    "help",
];

/// Chunkfiles below a folder.
fn chunkfiles(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).expect("folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|ext| ext == "chunk") {
                found.push(path);
            }
        }
    }
    found
}

/// Keys of the cluster, and keys of the chunkfiles, as they would be printed.
fn secrets(cluster: &Cluster, keys: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(keys).expect("keys");
    let mut all: Vec<String> =
        text.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect();
    for storage in 0..cluster.storages.len() {
        for path in chunkfiles(&cluster.mount_path(storage, 0)) {
            let file = std::fs::File::open(&path).expect("chunkfile");
            let mut header = vec![0; 4096];
            file.read_exact_at(&mut header, 0).expect("header");
            let header = folio::format::chunkfile::ChunkfileHeader::decode(&header);
            let secret = header.expect("whole").secret;
            all.push(data_encoding::HEXLOWER.encode(&secret));
            all.push(format!("{secret:?}"));
        }
    }
    all
}

fn metrics(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("metrics");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("a page");
    assert!(page.contains("folio_"), "{page}");
    page
}

#[test]
fn nothing_that_is_said_at_trace_tells_a_secret_and_no_change_is_missing_in_the_audit_log() {
    let dir = tempfile::tempdir().expect("folder");
    let keys = dir.path().join("keys");
    let path = keys.to_str().expect("text").to_owned();
    Cli::default().run(["keygen", &path]).ok();
    let mut cluster = Cluster::new(1, &["a", "a"], 1);
    for node in cluster.trackers.iter_mut().chain(&mut cluster.storages) {
        node.config.set("auth.key_file", &format!("{path:?}")).set("log.level", "\"trace\"");
    }
    cluster.start();
    let cli = Cli { key_file: Some(path.clone()), ..cluster.cli() };
    let console = |address: &str, command: &str| {
        let mut args = vec!["admin".to_owned(), address.to_owned()];
        args.extend(command.split(' ').map(str::to_owned));
        let answer = cli.run(args);
        format!("{}{}", String::from_utf8_lossy(&answer.stdout), answer.stderr)
    };
    until_live_with(&cluster, &cli);
    let id = cli.put(vec![1; 9_000]);
    cli.run_with(["modify", &id, "-"], vec![2; 60_000]).ok();
    assert_eq!(cli.get(&id), vec![2; 60_000]);
    let first = cluster.storages[0].console();
    let mut said = String::new();
    for command in LOOKING.iter().chain(&CHANGING) {
        said += &console(&first, command);
    }
    said += &console(&first, &format!("find {id}"));
    said += &console(&first, "chunk 0 0");
    for command in ["status", "nodes", "mounts", "config show"] {
        said += &console(&cluster.trackers[0].console(), command);
    }
    for node in cluster.trackers.iter().chain(&cluster.storages) {
        said += &metrics(node.metrics);
    }
    let secrets = secrets(&cluster, &keys);
    assert!(secrets.len() > 4, "keys of three roles and of chunkfiles");
    console(&first, "shutdown");
    let (_, log) = cluster.storages[0].take().wait_end();
    let audited: Vec<&str> = log.lines().filter(|line| line.contains("console: ")).collect();
    for command in CHANGING.iter().chain(&["shutdown"]) {
        let named = |line: &&&str| line.contains(&format!("command=\"{command}\""));
        assert_eq!(audited.iter().filter(named).count(), 1, "{command}: {audited:#?}");
    }
    for command in LOOKING {
        let named = |line: &&str| line.contains(&format!("command=\"{command}\""));
        assert!(!audited.iter().any(named), "{command} changes nothing");
    }
    said += &log;
    for node in cluster.trackers.iter_mut().chain(&mut cluster.storages[1..]) {
        said += &node.take().terminate().1;
    }
    assert!(said.contains("TRACE") || said.contains("DEBUG"), "nobody was talkative");
    for secret in &secrets {
        assert!(!said.contains(secret.as_str()), "a secret is told");
    }
}
