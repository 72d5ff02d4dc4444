//! A mirror that was away for a burst of changes: how fast it has all of them, from the log and without it, and when logs were
//! damaged or deleted meanwhile.

use crate::campaign_dir;
use crate::files::segments;
use crate::harness::cluster::{Cluster, Node};
use crate::harness::{eventually, from_env};
use serde_json::Value;
use std::os::unix::fs::FileExt;
use std::path::Path;
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

/// What becomes of logs while the mirror is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    Nothing,
    /// A bit of a record here and there, a different field of each, in the log of the one and what the other has of it.
    DamagedRecords,
    /// What the mirror had received is deleted.
    NoSynclogs,
    /// The log of the one that was written to is deleted.
    NoBinlog,
}

/// Flips a bit of one field of a record at places that are spread over a log; how many.
fn damage(folder: &Path) -> u64 {
    /// Of the header of a batch, and of the first record in it: kind, head length, sequence, payload length and checksum,
    /// the record's own checksum, its head, its payload.
    const FIELDS: [u64; 12] = [12, 16, 44, 64, 68, 72, 80, 84, 92, 96, 200, 900];
    let mut damaged = 0;
    for path in segments(folder) {
        let file =
            std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("a segment");
        let bytes = std::fs::read(&path).expect("a segment");
        let batches: Vec<u64> = (4096..bytes.len().saturating_sub(4096) as u64)
            .step_by(64)
            .filter(|at| bytes[*at as usize..].starts_with(b"FoBa"))
            .collect();
        // Never the last ones: those are the end of the log.
        for part in 1..4 {
            let Some(batch) = batches.get(batches.len() * part / 4) else { continue };
            if batches.len() < 40 {
                continue;
            }
            let at = batch + FIELDS[damaged as usize % FIELDS.len()];
            file.write_all_at(&[bytes[at as usize] ^ 0x10], at).expect("written");
            damaged += 1;
        }
    }
    damaged
}

fn happens(mishap: Mishap, cluster: &mut Cluster) {
    let (here, there) = (cluster.mount_path(0, 0), cluster.mount_path(1, 0));
    match mishap {
        Mishap::Nothing => {}
        Mishap::DamagedRecords => {
            let both = [damage(&here.join("binlog")), damage(&there.join("synclog"))];
            println!("{both:?} records damaged in the log of the one and what the other has of it");
            assert!(both.iter().all(|count| *count > 0), "{both:?}");
        }
        Mishap::NoSynclogs => std::fs::remove_dir_all(there.join("synclog")).expect("removed"),
        Mishap::NoBinlog => {
            cluster.storages[0].stop();
            std::fs::remove_dir_all(here.join("binlog")).expect("removed");
            cluster.storages[0].start();
        }
    }
}

fn comes_back(log: &str, mishap: Mishap) {
    let changes = from_env("FOLIO_BURST", 200_000);
    let mut cluster = Cluster::in_dir(campaign_dir(), 1, &["a", "a"], 1)
        .storages_with("sync.log_retention_bytes", log)
        .storages_with("sync.compare_period", "\"1s\"")
        .started();
    eventually("both are live", LIMIT, || {
        (peer(&cluster.storages[0])["state"] == "live").then_some(())
    });
    if mishap != Mishap::Nothing {
        // So that there is something in the logs of the mirror.
        burst(&cluster, "put", changes / 10);
        eventually("both are live", LIMIT, || {
            (peer(&cluster.storages[0])["state"] == "live").then_some(())
        });
    }
    cluster.storages[1].stop();
    let rate = burst(&cluster, "put", changes);
    happens(mishap, &mut cluster);
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
        "log {log}, {mishap:?}: {changes} changes written at {rate:.0}/s; back after {:.1} s from its start, {back:.0}/s, {:.0} %; \
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
    comes_back("\"4GiB\"", Mishap::Nothing);
}

/// The same with a log that reaches back over a few percent of them.
#[test]
#[ignore = "long: see docs/TESTING.md"]
fn no_short_log_keeps_a_mirror_behind() {
    comes_back("\"16MiB\"", Mishap::Nothing);
}

/// All in the log, of which records in the middle are damaged, at either end.
#[test]
#[ignore = "long: see docs/TESTING.md"]
fn no_damaged_record_keeps_a_mirror_behind() {
    comes_back("\"4GiB\"", Mishap::DamagedRecords);
}

#[test]
#[ignore = "long: see docs/TESTING.md"]
fn no_deleted_log_keeps_a_mirror_behind() {
    comes_back("\"4GiB\"", Mishap::NoSynclogs);
    comes_back("\"4GiB\"", Mishap::NoBinlog);
}
