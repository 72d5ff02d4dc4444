//! Scenes with mirrors, small in `cargo test` and large as campaigns: contended counters, and writers whose storage dies.

use super::cluster::{Cluster, Node};
use super::content::{below, content, identify};
use super::run::Cli;
use super::witness::{Plan, Report, Witness};
use super::{PATIENCE, eventually};
use folio::client::{Body, Client, ErrorCode, GetOptions, PutOptions, Written};
use folio::format::file_id::FileId;
use folio::format::ids::Tag;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// So many storages of one syncgroup, each a process, all live to each other.
pub fn mirrors(dir: TempDir, count: usize) -> Cluster {
    let cluster = Cluster::in_dir(dir, 1, &vec!["a"; count], 1)
        .storages_with("store.single_file_threshold", "\"32KiB\"")
        .started();
    until_live(&cluster);
    cluster
}

/// Waits until every storage holds every other for live.
pub fn until_live(cluster: &Cluster) {
    until_live_with(cluster, &Cli::default());
}

/// The same where the consoles ask for a key.
pub fn until_live_with(cluster: &Cluster, cli: &Cli) {
    let live = |node: &Node| {
        let peers = json(&cli.run(["admin", &node.console(), "peers", "json"]).ok().text());
        let peers = peers["peers"].as_array().expect("a table").clone();
        peers.len() + 1 >= cluster.storages.len()
            && peers.iter().all(|peer| peer["state"] == "live")
    };
    eventually("all mirrors are live", 4 * PATIENCE, || {
        cluster.storages.iter().all(live).then_some(())
    });
}

/// An answer of a console.
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A runtime for clients.
pub fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("runtime")
}

/// What became of the increments.
#[derive(Debug, Default)]
pub struct Tally {
    /// Acknowledged.
    pub acknowledged: AtomicU64,
    /// Somebody else was faster.
    pub contended: AtomicU64,
    /// The owner was away.
    pub unavailable: AtomicU64,
    /// It was not known whether they were made.
    pub unknown: AtomicU64,
}

/// Counts one object up from many clients at once by compare-and-swap, each its own share, while storages are killed one
/// at a time. The content is one number for each client, so that nothing acknowledged can be lost without being missed.
pub fn count_up(cluster: &mut Cluster, clients: usize, share: u64, kills: u64, seed: u64) -> Tally {
    let runtime = runtime();
    let tally = Arc::new(Tally::default());
    let first = runtime.block_on(cluster.client(Duration::from_secs(20)));
    let zero = vec!["0"; clients].join(" ");
    let put = runtime.block_on(first.put(Body::bytes(zero), PutOptions::default()));
    let id = put.expect("stored").id;
    let done = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..clients)
        .map(|me| {
            let client = runtime.block_on(cluster.client(Duration::from_secs(5)));
            let (id, tally, done) = (id.clone(), Arc::clone(&tally), Arc::clone(&done));
            runtime.spawn(async move {
                counter(&client, &id, me, share, &tally).await;
                done.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    let (total, mut dice) = (share * clients as u64, seed);
    for kill in 0..kills {
        let due = total * (kill + 1) / (kills + 1);
        eventually("the counter goes up", 20 * PATIENCE, || {
            let over = done.load(Ordering::SeqCst) == clients as u64;
            (tally.acknowledged.load(Ordering::SeqCst) >= due || over).then_some(())
        });
        let at = below(&mut dice, cluster.storages.len() as u64) as usize;
        cluster.storages[at].take().kill();
        cluster.storages[at].start();
        until_live(cluster);
    }
    for worker in workers {
        runtime.block_on(worker).expect("no worker lost an increment");
    }
    let (_, numbers) = runtime.block_on(counted(&first, &id, None)).expect("it can be read");
    assert_eq!(numbers, vec![share; clients], "every increment counts once");
    drop(first);
    Arc::try_unwrap(tally).expect("the workers are gone")
}

/// The numbers, of this version or a later one.
async fn counted(
    client: &Client,
    id: &FileId,
    min_opver: Option<Tag>,
) -> folio::client::Result<(Tag, Vec<u64>)> {
    let object = client.get(id, GetOptions { min_opver, ..GetOptions::default() }).await?;
    let opver = object.info.opver;
    let bytes = object.bytes(1 << 16).await?;
    let text = String::from_utf8(bytes.to_vec()).expect("numbers");
    Ok((opver, text.split(' ').map(|number| number.parse().expect("a number")).collect()))
}

async fn counter(client: &Client, id: &FileId, me: usize, share: u64, tally: &Tally) {
    let (mut mine, mut maybe, mut seen) = (0, false, None);
    while mine < share {
        // While the owner is away a mirror may be behind what was seen, and says so.
        let Ok((opver, mut numbers)) = counted(client, id, seen).await else { continue };
        assert!(
            numbers[me] == mine || maybe && numbers[me] == mine + 1,
            "client {me} has {mine} acknowledged, and {numbers:?} are there"
        );
        if numbers[me] == mine + 1 {
            mine += 1;
            maybe = false;
            continue;
        }
        numbers[me] += 1;
        let text: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::SeqCst);
        match client.modify(id, Body::bytes(text.join(" ")), Some(opver)).await {
            Ok(written) => {
                mine += 1;
                (seen, maybe) = (Some(written.opver), false);
                count(&tally.acknowledged);
            }
            Err(error) if error.code == ErrorCode::Precondition => {
                count(&tally.contended);
            }
            Err(error) if error.code == ErrorCode::UnknownOutcome => {
                maybe = true;
                count(&tally.unknown);
            }
            Err(error) if error.exit_code() == 5 => {
                count(&tally.unavailable);
            }
            Err(error) => panic!("client {me}: {error}"),
        }
    }
}

/// How writers fared while a storage died.
#[derive(Debug, Default)]
pub struct Fared {
    /// Edits, all acknowledged.
    pub edits: u64,
    /// Of those with one copy, and said so.
    pub degraded: u64,
    /// Longest time that one writer waited for one edit.
    pub longest: Duration,
}

/// Writers edit objects of both storages without a pause; the second storage is killed, and brought back after so many
/// further edits. Everything is looked at on both mirrors then.
pub fn writers_survive(cluster: &mut Cluster, writers: u64, edits: u64) -> Fared {
    let runtime = runtime();
    let client = runtime.block_on(cluster.client(Duration::from_secs(20)));
    let stop = Arc::new(AtomicBool::new(false));
    let (count, lonely) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..writers)
        .map(|me| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            let (count, lonely) = (Arc::clone(&count), Arc::clone(&lonely));
            runtime.spawn(async move { writer(&client, me, &stop, &count, &lonely).await })
        })
        .collect();
    let reach = |counter: &AtomicU64, more: u64| {
        let due = counter.load(Ordering::SeqCst) + more;
        eventually("the writers go on", 4 * PATIENCE, || {
            (counter.load(Ordering::SeqCst) >= due).then_some(())
        });
    };
    reach(&count, edits);
    cluster.storages[1].take().kill();
    reach(&lonely, edits / 4);
    let status = json(&cluster.storages[0].admin("status json"));
    assert_eq!(status["degraded"], true, "{status}");
    reach(&count, edits);
    cluster.storages[1].start();
    until_live(cluster);
    let id = |n: u64| content(n, 1, 100);
    eventually("answers say two copies again", PATIENCE, || {
        let put = client.put(Body::bytes(id(1 << 30)), PutOptions::default());
        let put = runtime.block_on(put).expect("stored");
        (put.copies == 2 && !put.degraded).then_some(())
    });
    reach(&count, edits);
    stop.store(true, Ordering::SeqCst);
    let mut fared = Fared::default();
    let mut last = BTreeMap::new();
    for task in tasks {
        let (longest, written) = runtime.block_on(task).expect("no writer failed");
        fared.longest = fared.longest.max(longest);
        last.extend(written);
    }
    fared.edits = count.load(Ordering::SeqCst);
    fared.degraded = lonely.load(Ordering::SeqCst);
    until_live(cluster);
    for (id, (index, version)) in &last {
        for machine in [1, 2] {
            eventually("both mirrors have the last version", PATIENCE, || {
                let options = GetOptions { from: Some(machine), ..GetOptions::default() };
                let object = runtime.block_on(client.get(id, options)).ok()?;
                let bytes = runtime.block_on(object.bytes(1 << 20)).ok()?;
                (identify(&bytes) == Ok((*index, *version))).then_some(())
            });
        }
    }
    fared
}

type Last = Vec<(FileId, (u64, u64))>;

/// New objects that a writer remembers.
const KEPT: usize = 16;

/// Edits its two objects in turn and makes a new one; how long the longest change took, and what was written last.
async fn writer(
    client: &Client,
    me: u64,
    stop: &AtomicBool,
    count: &AtomicU64,
    lonely: &AtomicU64,
) -> (Duration, Last) {
    let mut objects = Vec::new();
    for index in [2 * me, 2 * me + 1] {
        let body = Body::bytes(content(index, 0, 2000));
        let put = client.put(body, PutOptions::default()).await.expect("stored");
        objects.push((put.id, (index, 0)));
    }
    let (mut longest, mut made) = (Duration::ZERO, VecDeque::new());
    let mut done = |written: &Written, begun: Instant| {
        longest = longest.max(begun.elapsed());
        assert_eq!(written.degraded, written.copies < 2, "an answer says what it is");
        lonely.fetch_add(u64::from(written.copies == 1), Ordering::SeqCst);
        count.fetch_add(1, Ordering::SeqCst);
    };
    let mut round = 0;
    while !stop.load(Ordering::SeqCst) {
        for (id, (index, version)) in &mut objects {
            *version += 1;
            let body = Body::bytes(content(*index, *version, 2000));
            let begun = Instant::now();
            done(&client.modify(id, body, None).await.expect("no edit fails"), begun);
        }
        round += 1;
        let (new, begun) = (((me + 1) << 32) + round, Instant::now());
        let body = Body::bytes(content(new, 0, 2000));
        let put = client.put(body, PutOptions::default()).await.expect("no put fails");
        done(&put, begun);
        made.push_back((put.id, (new, 0)));
        if made.len() > KEPT {
            made.pop_front();
        }
    }
    objects.extend(made);
    (longest, objects)
}

/// The machine that acknowledges dies in the middle of a load and its disks with it: no change that was acknowledged with two
/// copies is missing on the two that are left, and these become identical.
pub fn machine_burns(dir: TempDir, seed: u64) -> Report {
    let mut dice = seed;
    let mut cluster = Cluster::in_dir(dir, 1, &["a"; 3], 2)
        .storages_with("store.single_file_threshold", "\"32KiB\"")
        .storages_with("store.chunkfile_size", "\"4MiB\"")
        .storages_with("sync.compare_period", "\"1s\"")
        .started();
    until_live(&cluster);
    let runtime = runtime();
    let client = runtime.block_on(cluster.client(Duration::from_secs(20)));
    let plan =
        Plan { workers: 12, readers: 2, objects_per_worker: 24, size_max: 48 << 10, copies: 2 };
    let mut witness = Witness::new(plan, seed);
    let load = witness.start(&runtime, &client);
    load.wait_operations(50 + below(&mut dice, 1500));
    let burns = below(&mut dice, 3) as usize;
    cluster.storages[burns].take().kill();
    std::fs::remove_dir_all(cluster.dir.path().join(format!("s{}", burns + 1))).expect("its disks");
    load.wait_operations(300);
    let report = load.stop(&runtime);
    // Whoever looks knows nothing.
    drop(client);
    let client = runtime.block_on(cluster.client(Duration::from_secs(20)));
    runtime.block_on(witness.settle(&client));
    let left: Vec<usize> = (0..3).filter(|at| *at != burns).collect();
    eventually("what is left is identical", 4 * PATIENCE, || {
        let peers = json(&cluster.storages[left[0]].admin("peers json"));
        let rows = peers["peers"].as_array().expect("a table").clone();
        let other = (left[1] + 1) as u64;
        let mut rows = rows.iter().filter(|row| row["peer"] == other);
        rows.all(|row| row["contents"] == "identical").then_some(())
    });
    cluster.storages.remove(burns);
    cluster.stop_all();
    report
}
