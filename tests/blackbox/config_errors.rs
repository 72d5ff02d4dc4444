//! Wrong configuration: the daemon does not start, and says which key, what was found and what is allowed.

use crate::harness::cluster::Cluster;
use std::net::TcpListener;

/// (key, value as TOML, what the message must contain)
type Case = (&'static str, &'static str, &'static [&'static str]);

const STORAGE: &[Case] = &[
    ("store.chunkfile_sise", "\"64MiB\"", &["store.chunkfile_sise"]),
    ("colour", "\"red\"", &["colour"]),
    ("machine_id", "\"one\"", &["machine_id", "one"]),
    ("machine_id", "0", &["machine_id", "0", "65535"]),
    ("machine_id", "70000", &["machine_id", "70000", "65535"]),
    ("store.chunkfile_size", "\"1KiB\"", &["store.chunkfile_size", "1KiB", "4MiB", "1GiB"]),
    ("store.chunkfile_size", "\"big\"", &["store.chunkfile_size", "big"]),
    ("store.reserve", "\"2000000%\"", &["store.reserve"]),
    ("store.undelete_window", "\"-5s\"", &["store.undelete_window", "-5s"]),
    (
        "store.mount_policy",
        "\"random\"",
        &["store.mount_policy", "random", "round_robin", "most_free"],
    ),
    ("durability.acks", "\"none\"", &["durability.acks", "none", "mirror"]),
    ("durability.sync", "true", &["durability.sync", "fsync"]),
    ("group", "\"No Such Name\"", &["group", "No Such Name"]),
    ("group", "\"\"", &["group"]),
    ("listen", "\"nowhere\"", &["listen", "nowhere"]),
    ("trackers", "[]", &["trackers"]),
    ("trackers", "\"127.0.0.1\"", &["trackers"]),
    ("scrub.enabled", "\"maybe\"", &["scrub.enabled", "maybe"]),
    ("auth.key_file", "\"/no/such/keys\"", &["/no/such/keys"]),
];

const TRACKER: &[Case] = &[
    ("liveness.offline_after", "\"10h\"", &["liveness.offline_after", "10h", "30s"]),
    ("liveness.suspect_after", "3", &["liveness.suspect_after", "3"]),
    ("routing.put_policy", "\"best\"", &["routing.put_policy", "best", "round_robin"]),
    ("machine_id", "1", &["machine_id"]),
    ("limits.max_connections", "0", &["limits.max_connections", "0"]),
];

/// Every kind of wrong value, for both daemons.
#[test]
fn no_wrong_key_or_value_starts_a_daemon() {
    for (key, value, says) in STORAGE {
        let mut cluster = Cluster::new(1, &["a"], 1);
        let (code, stderr) = {
            let node = &mut cluster.storages[0];
            node.config.set(key, value);
            node.start_fails()
        };
        check(key, value, code, &stderr, says);
    }
    for (key, value, says) in TRACKER {
        let mut cluster = Cluster::new(1, &[], 1);
        let node = &mut cluster.trackers[0];
        node.config.set(key, value);
        let (code, stderr) = node.start_fails();
        check(key, value, code, &stderr, says);
    }
}

#[track_caller]
fn check(key: &str, value: &str, code: i32, stderr: &str, says: &[&str]) {
    assert!([1, 2].contains(&code), "{key} = {value}: exit {code}: {stderr}");
    for word in says {
        assert!(stderr.contains(word), "{key} = {value}: no {word:?} in: {stderr}");
    }
}

/// What must be given, and what cannot stand together.
#[test]
fn no_missing_or_contradicting_keys_start_a_storage() {
    for key in ["group", "syncgroup", "machine_id"] {
        let mut cluster = Cluster::new(1, &["a"], 1);
        cluster.storages[0].config.unset(key);
        let (code, stderr) = cluster.storages[0].start_fails();
        check(key, "(missing)", code, &stderr, &[key]);
    }
    // No mount at all; one index twice; one mount inside another.
    let mut cluster = Cluster::new(1, &["a"], 0);
    let (code, stderr) = cluster.storages[0].start_fails();
    check("mounts", "(missing)", code, &stderr, &["mounts"]);

    let mut cluster = Cluster::new(1, &["a"], 1);
    let other = cluster.dir.path().join("other");
    std::fs::create_dir(&other).expect("folder");
    cluster.storages[0].config.mount(0, &other);
    let (code, stderr) = cluster.storages[0].start_fails();
    check("mounts[1].index", "0 twice", code, &stderr, &["index", "0"]);

    let mut cluster = Cluster::new(1, &["a"], 1);
    let inner = cluster.mount_path(0, 0).join("inner");
    std::fs::create_dir(&inner).expect("folder");
    cluster.storages[0].config.mount(1, &inner);
    let (code, stderr) = cluster.storages[0].start_fails();
    check("mounts[1].path", "inside mount 0", code, &stderr, &["path", "inner"]);
}

/// A file that is absent, or no TOML, or a wrong override.
#[test]
fn no_unreadable_file_or_wrong_override_starts_a_daemon() {
    let cli = crate::harness::run::Cli::default();
    cli.run(["storage", "--config", "/no/such/file.toml"]).exits(1).says(&["/no/such/file.toml"]);
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("broken.toml");
    std::fs::write(&file, "listen = \n").expect("write");
    let answer = cli.run(["tracker", "--config", file.to_str().expect("text")]);
    assert!([1, 2].contains(&answer.code), "{}", answer.code);
    answer.says(&["broken.toml"]);

    let mut cluster = Cluster::new(1, &["a"], 1);
    cluster.storages[0].env("FOLIO_STORE__RESERVE", "banana");
    let (code, stderr) = cluster.storages[0].start_fails();
    check("FOLIO_STORE__RESERVE", "banana", code, &stderr, &["banana", "RESERVE"]);

    let mut cluster = Cluster::new(1, &["a"], 1);
    cluster.storages[0].env("FOLIO_STORE__RESERV", "10%");
    let (code, stderr) = cluster.storages[0].start_fails();
    check("FOLIO_STORE__RESERV", "10%", code, &stderr, &["RESERV"]);
}

/// Right overrides are obeyed, and a name without `__` is a warning only.
#[test]
fn no_right_override_is_passed_over() {
    let mut cluster = Cluster::new(1, &["a"], 1);
    let tracker = cluster.tracker_addresses().remove(0);
    // The file points at a wrong tracker; the environment knows better.
    let wrong = crate::harness::ports::free_port();
    cluster.storages[0].config.set("trackers", &format!("[\"127.0.0.1:{wrong}\"]"));
    cluster.storages[0]
        .env("FOLIO_TRACKERS", &tracker)
        .env("FOLIO_STORE__RESERVE", "300%")
        .env("FOLIO_COLOUR", "red");
    let cluster = cluster.started();
    let stderr = cluster.storages[0].daemon().stderr();
    assert!(stderr.contains("FOLIO_COLOUR"), "no warning: {stderr}");
    let cli = cluster.cli();
    let id = cli.put(vec![1u8; 1000]);
    let capacity = cli.stat(&id)["capacity"].as_u64().expect("a number");
    assert!(capacity >= 4_000, "{capacity}");
}

/// Each port that somebody else has is named with its key.
#[test]
fn no_port_in_use_is_a_riddle() {
    for key in ["listen", "admin_listen"] {
        for storage in [false, true] {
            let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = taken.local_addr().expect("address").to_string();
            let mut cluster = Cluster::new(1, &["a"], 1);
            let node = if storage { &mut cluster.storages[0] } else { &mut cluster.trackers[0] };
            node.config.set(key, &format!("\"{address}\""));
            let (code, stderr) = node.start_fails();
            check(key, &address, code, &stderr, &[key, &address]);
        }
    }
}

/// Open to the network without a key: refused, with both ways out.
#[test]
fn no_daemon_listens_on_the_network_without_a_key() {
    let mut cluster = Cluster::new(1, &["a"], 1);
    let port = cluster.trackers[0].port;
    cluster.trackers[0].config.set("listen", &format!("\"0.0.0.0:{port}\""));
    let (code, stderr) = cluster.trackers[0].start_fails();
    check("listen", "0.0.0.0", code, &stderr, &["listen", "auth.key_file", "insecure"]);
    let port = cluster.storages[0].port;
    let address = format!("\"127.0.0.1:{port}\"");
    cluster.storages[0]
        .config
        .set("listen", &format!("\"0.0.0.0:{port}\""))
        .set("advertise", &address);
    let (code, stderr) = cluster.storages[0].start_fails();
    check("listen", "0.0.0.0", code, &stderr, &["listen", "auth.key_file", "insecure"]);
}
