//! A mirror that was away for a burst of changes: how fast it has all of them, from the log and without it.

use crate::campaign_dir;
use crate::harness::cluster::{Cluster, Node};
use crate::harness::{eventually, from_env};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Nothing takes so long.
const LIMIT: Duration = Duration::from_secs(600);

/// What a storage says of its only mirror.
fn peer(node: &Node) -> Value {
    let text = node.admin("peers json");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    all["peers"].as_array().and_then(|rows| rows.first()).cloned().unwrap_or(Value::Null)
}

/// Changes per second of a burst of so many; the CLI's own load.
fn burst(cluster: &Cluster, what: &str, count: u64) -> f64 {
    let count = count.to_string();
    let begun = Instant::now();
    cluster
        .cli()
        .run(["bench", what, "--size", "4k", "--connections", "64", "--count", &count, "--json"])
        .ok();
    count.parse::<f64>().expect("a number") / begun.elapsed().as_secs_f64()
}

fn comes_back(log: &str) {
    let changes = from_env("FOLIO_BURST", 200_000);
    let mut cluster = Cluster::in_dir(campaign_dir(), 1, &["a", "a"], 1)
        .storages_with("sync.log_retention_bytes", log)
        .storages_with("sync.compare_period", "\"1s\"")
        .started();
    eventually("both are live", LIMIT, || {
        (peer(&cluster.storages[0])["state"] == "live").then_some(())
    });
    cluster.storages[1].stop();
    let rate = burst(&cluster, "put", changes);
    let begun = Instant::now();
    cluster.storages[1].spawn();
    let mut served = 0;
    let mut slowest = Duration::ZERO;
    eventually("it has all of it", LIMIT, || {
        let asked = Instant::now();
        let id = cluster.cli().put(b"served meanwhile");
        assert_eq!(cluster.cli().run(["get", &id]).ok().stdout, b"served meanwhile");
        slowest = slowest.max(asked.elapsed());
        served += 1;
        (peer(&cluster.storages[0])["state"] == "live").then_some(())
    });
    let back = changes as f64 / begun.elapsed().as_secs_f64();
    let whole = eventually("they are identical", LIMIT, || {
        let both = [peer(&cluster.storages[0]), peer(&cluster.storages[1])];
        let digests = [&both[0]["digest"], &both[1]["digest"]];
        let same = both.iter().all(|said| said["contents"] == "identical");
        (same && digests[0] == digests[1] && both[0]["objects"].as_u64() >= Some(changes))
            .then(|| both[0].clone())
    });
    println!(
        "log {log}: {changes} changes written at {rate:.0}/s; back after {:.1} s from its start, {back:.0}/s, {:.0} %; \
         served {served} meanwhile, the slowest put and get took {} ms; {} objects identical, digest {}",
        changes as f64 / back,
        back / rate * 100.0,
        slowest.as_millis(),
        whole["objects"],
        whole["digest"],
    );
    assert!(back >= rate / 2.0, "{back:.0}/s is less than half of {rate:.0}/s");
}

/// 200,000 puts while it is away, all of them in the log.
#[test]
#[ignore = "long: see docs/TESTING.md"]
fn no_burst_keeps_a_mirror_behind() {
    comes_back("\"4GiB\"");
}

/// The same with a log that reaches back over a few percent of them.
#[test]
#[ignore = "long: see docs/TESTING.md"]
fn no_short_log_keeps_a_mirror_behind() {
    comes_back("\"16MiB\"");
}
