//! Two syncgroups, two trackers, from config files: what is down is avoided and named, and nothing else suffers.

use crate::harness::cluster::Cluster;
use crate::harness::content::content;
use crate::harness::run::Cli;
use crate::harness::{PATIENCE, eventually};
use folio::client::{Body, GetOptions, PutOptions};
use std::time::{Duration, Instant};

/// Stop one storage: after five seconds no put fails and none goes there; its ids are exit 5 and name it; brought back
/// it is served again.
#[test]
fn no_put_fails_five_seconds_after_a_storage_died() {
    let mut cluster = Cluster::new(2, &["a", "b"], 1);
    for tracker in &mut cluster.trackers {
        // As shipped.
        tracker.config.set("liveness.heartbeat_interval", "\"1s\"").unset("liveness.readmit_after");
    }
    let mut cluster = cluster.started();
    let cli = cluster.cli();
    let mut ids: Vec<(String, String)> = (0..8)
        .map(|n| {
            let bytes = format!("object {n}");
            (cli.put(bytes.clone()), bytes)
        })
        .collect();
    let (lost, kept): (Vec<_>, Vec<_>) = ids.drain(..).partition(|(id, _)| id.starts_with("g/b/"));
    assert!(!lost.is_empty() && !kept.is_empty(), "round robin fills both");

    let address = cluster.storages[1].address();
    cluster.storages[1].take().kill();
    let dead_since = Instant::now();
    let mut failed_last = None;
    while dead_since.elapsed() < Duration::from_secs(6) {
        let answer = cli.run_with(["put", "-"], "x");
        if answer.code != 0 {
            failed_last = Some((dead_since.elapsed(), answer.stderr));
        }
    }
    if let Some((at, stderr)) = failed_last {
        assert!(at <= Duration::from_millis(5500), "a put failed after {at:?}: {stderr}");
    }
    for _ in 0..10 {
        assert!(cli.put("y").starts_with("g/a/"));
    }
    let impatient = Cli { timeout: Some("2s"), ..cli.clone() };
    for (id, _) in &lost {
        let started = Instant::now();
        let answer = impatient.run(["get", id]).exits(5);
        assert!(
            answer.stderr.contains(&address) || answer.stderr.contains("machine 2"),
            "{}",
            answer.stderr
        );
        assert!(started.elapsed() < Duration::from_secs(10));
        impatient.run_with(["modify", id, "-"], "x").exits(5);
    }
    for (id, bytes) in &kept {
        assert_eq!(cli.get(id), bytes.as_bytes());
    }
    let nodes = cluster.trackers[0].admin("nodes").to_lowercase();
    assert!(nodes.contains("offline"), "{nodes}");

    cluster.storages[1].start();
    for (id, bytes) in &lost {
        assert_eq!(cli.get(id), bytes.as_bytes());
    }
    eventually("puts go there again", PATIENCE, || cli.put("z").starts_with("g/b/").then_some(()));
}

/// A storage that stands still is Suspect long before it is Offline: from then on no new object is sent there, and
/// when it goes on it is served at once, for it never was away.
#[test]
fn no_put_goes_to_a_suspect_storage() {
    let mut cluster = Cluster::new(2, &["a", "b"], 1);
    for tracker in &mut cluster.trackers {
        tracker.config.set("liveness.suspect_after", "\"1s\"");
        tracker.config.set("liveness.offline_after", "\"30s\"");
    }
    let cluster = cluster.started();
    let cli = cluster.cli();
    // Round robin fills both as soon as both have joined.
    let mut there = vec![eventually("a put goes there", PATIENCE, || {
        Some(cli.put("there")).filter(|id| id.starts_with("g/b/"))
    })];
    cluster.storages[1].daemon().pause();
    for tracker in &cluster.trackers {
        eventually("it is suspected", PATIENCE, || {
            tracker.admin("nodes").to_lowercase().contains("suspect").then_some(())
        });
    }
    for n in 0..20 {
        let id = cli.put(format!("object {n}"));
        assert!(id.starts_with("g/a/"), "{id}");
    }
    cluster.storages[1].daemon().resume();
    for id in &there {
        assert_eq!(cli.get(id), b"there");
    }
    // What had been sent there meanwhile would have been done by now.
    let mut listed: Vec<String> =
        cli.list().into_iter().filter(|id| id.starts_with("g/b/")).collect();
    listed.sort_unstable();
    there.sort_unstable();
    assert_eq!(listed, there);
    eventually("puts go there again", PATIENCE, || cli.put("z").starts_with("g/b/").then_some(()));
}

/// One tracker more or less is not noticed; without any, connected clients go on, and a new one says what is wrong.
#[test]
fn no_connected_client_needs_a_tracker() {
    let mut cluster = Cluster::new(2, &["a", "b"], 1).started();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime");
    let client = runtime.block_on(cluster.client(Duration::from_secs(5)));
    let round = |what: &str| {
        runtime.block_on(async {
            for n in 0..20u64 {
                let bytes = content(n, 1, 2000);
                let put = client.put(Body::bytes(bytes.clone()), PutOptions::default()).await;
                let id = put.unwrap_or_else(|e| panic!("{what}: put: {e}")).id;
                let got = client.get(&id, GetOptions::default()).await;
                let got = got.unwrap_or_else(|e| panic!("{what}: get: {e}"));
                assert_eq!(got.bytes(1 << 20).await.expect("bytes"), bytes);
                let changed = content(n, 2, 3000);
                client.modify(&id, Body::bytes(changed), None).await.expect("modify");
            }
        });
    };
    round("both trackers");
    cluster.trackers[0].stop();
    round("one tracker");
    assert_eq!(cluster.cli().get(&cluster.cli().put("new client")), b"new client");
    cluster.trackers[1].take().kill();
    let blind_since = Instant::now();
    // Longer than any liveness time: the view that clients hold grows old.
    while blind_since.elapsed() < Duration::from_secs(7) {
        round("no tracker");
    }
    let late = Cli { timeout: Some("1s"), ..cluster.cli() };
    late.run_with(["put", "-"], "x").exits(5);
    cluster.start();
    assert_eq!(cluster.cli().get(&cluster.cli().put("again")), b"again");
    round("trackers again");
    cluster.stop_all();
}

/// A storage that was founded serves known clients while it starts without any tracker; it says ready when one is
/// there.
#[test]
fn no_storage_waits_for_a_tracker_to_serve_what_it_has() {
    let mut cluster = Cluster::small();
    let cli = cluster.cli();
    let id = cli.put("kept");
    cluster.kill_all();
    cluster.storages[0].spawn();
    let early = cluster.storages[0].daemon().ready_within(Duration::from_millis(700));
    assert_eq!(early, None, "ready means registered");
    assert!(cluster.storages[0].admin("status").to_lowercase().contains("tracker"));
    cluster.trackers[0].start();
    cluster.storages[0].daemon().wait_ready();
    assert_eq!(cli.get(&id), b"kept");
}

/// A second machine with an id in use is refused, says so, and disturbs nobody; when the first is gone it may join.
#[test]
fn no_machine_id_is_served_by_two_machines() {
    let mut cluster = Cluster::new(1, &["a"], 1);
    let twin = cluster.add_storage("g", "a", 1);
    cluster.storages[twin].config.set("machine_id", "1");
    cluster.trackers[0].start();
    cluster.storages[0].start();
    let cli = cluster.cli();
    let id = cli.put("first");
    cluster.storages[twin].spawn();
    let daemon = cluster.storages[twin].daemon();
    daemon.wait_stderr("the twin is told", |text| {
        text.contains("machine") && (text.contains("in use") || text.contains("another"))
    });
    for n in 0..20 {
        let bytes = format!("{n}");
        assert_eq!(cli.get(&cli.put(bytes.clone())), bytes.as_bytes());
    }
    assert_eq!(cli.get(&id), b"first");
    let nodes = cluster.trackers[0].admin("nodes");
    assert!(nodes.contains(&cluster.storages[0].address()), "{nodes}");
    let twin_address = cluster.storages[twin].address();
    let online = |line: &&str| line.contains(&twin_address) && line.contains("online");
    assert_eq!(nodes.lines().find(online), None, "{nodes}");
    assert_eq!(cluster.storages[twin].daemon().ready_within(Duration::from_millis(10)), None);
    // The first one is unimpressed by all that.
    assert!(cluster.storages[0].take().is_running());
}

/// SIGTERM ends each daemon with 0, also with connections open and work in hand; what was acknowledged is there.
#[test]
fn no_ordered_stop_loses_or_hangs() {
    let mut cluster = Cluster::new(1, &["a", "b"], 1).started();
    let cli = cluster.cli();
    let mut idle: Vec<std::net::TcpStream> = Vec::new();
    for node in cluster.storages.iter().chain(&cluster.trackers) {
        for address in [node.address(), node.console()] {
            idle.push(std::net::TcpStream::connect(address).expect("connect"));
        }
    }
    let ids: Vec<String> = (0..10).map(|n| cli.put(format!("object {n}"))).collect();
    let bench = ["bench", "put", "--connections", "8", "--duration", "30s"];
    let mut load = cli
        .command(bench)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("bench");
    eventually("the load is on", PATIENCE, || (cli.list().len() > 200).then_some(()));
    cluster.stop_all();
    load.kill().expect("our child");
    load.wait().expect("our child");
    cluster.start();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(cli.get(id), format!("object {n}").as_bytes());
    }
    drop(idle);
}
