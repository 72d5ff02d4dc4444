//! An upgrade of a running cluster, one storage after the other: no operation of any client may fail meanwhile.

use crate::harness::cluster::Cluster;
use crate::harness::content::content;
use crate::harness::mirrored::{json, mirrors, runtime, until_live};
use crate::harness::{PATIENCE, eventually};
use bytes::Bytes;
use folio::client::{Body, Client, GetOptions, PutOptions};
use folio::format::file_id::FileId;
use folio::format::ids::Tag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Clients at a time, each with connections of its own.
const CLIENTS: u64 = 16;
/// What a client works on before it begins with fresh objects.
const KEPT: usize = 24;

/// What one client left behind: every object with its version, and its content; `None`: deleted.
type Left = Vec<(FileId, Tag, Option<Bytes>)>;

/// Puts, edits, reads and deletes until it is told to stop. The first operation that fails ends it with its words.
async fn work(
    client: Client,
    me: u64,
    over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> Result<Left, String> {
    let mut left: Left = Vec::new();
    let mut turn = me << 32;
    while !over.load(Ordering::SeqCst) {
        turn += 1;
        // One in eight is large: a body of several frames, in a file of its own.
        let len =
            if turn.is_multiple_of(8) { 300_000 } else { 200 + (turn * 131 % 3_000) as usize };
        let bytes = content(me, turn, len);
        let told = |what: &'static str| move |e: folio::client::Error| format!("{what}: {e:?}");
        if left.len() < KEPT || turn.is_multiple_of(4) {
            let put = client.put(Body::bytes(bytes.clone()), PutOptions::default()).await;
            let put = put.map_err(told("put"))?;
            left.push((put.id, put.opver, Some(bytes)));
        } else {
            let at = turn as usize % left.len();
            let (id, opver, now) = &mut left[at];
            match now {
                Some(_) if turn.is_multiple_of(7) => {
                    client.delete(id, None).await.map_err(told("delete"))?;
                    *now = None;
                }
                Some(_) => {
                    let body = Body::bytes(bytes.clone());
                    let edit = client.modify(id, body, None).await;
                    *opver = edit.map_err(told("modify"))?.opver;
                    *now = Some(bytes);
                }
                None => {}
            }
        }
        let (id, opver, now) = &left[(turn * 7) as usize % left.len()];
        if let Some(expected) = now {
            let own = GetOptions { min_opver: Some(*opver), ..GetOptions::default() };
            let got = client.get(id, own).await.map_err(told("get"))?;
            let got = got.bytes(1 << 24).await.map_err(told("get"))?;
            if got[..] != expected[..] {
                return Err(format!("{id}: other bytes were read than written"));
            }
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
    Ok(left)
}

/// What is done with each storage in turn.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// As docs/OPERATIONS.md has it.
    Drained,
    /// Only SIGTERM.
    Terminated,
}

fn roll(way: Way) {
    let mut cluster = mirrors(TempDir::new().expect("folder"), 3);
    let runtime = runtime();
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (0..CLIENTS)
        .map(|me| {
            let client = runtime.block_on(cluster.client(Duration::from_secs(10)));
            runtime.spawn(work(client, me, Arc::clone(&over), Arc::clone(&done)))
        })
        .collect();
    let by_hand = std::thread::spawn({
        let (cli, over) = (cluster.cli(), Arc::clone(&over));
        move || {
            while !over.load(Ordering::SeqCst) {
                let id = cli.put("by hand");
                assert_eq!(cli.get(&id), b"by hand");
            }
        }
    });
    let more = |count: u64| {
        let before = done.load(Ordering::SeqCst);
        eventually("the clients go on", 2 * PATIENCE, || {
            (done.load(Ordering::SeqCst) >= before + count
                || workers.iter().any(|worker| worker.is_finished()))
            .then_some(())
        });
    };
    more(200);
    for number in 0..3 {
        if way == Way::Drained {
            let answer = json(&cluster.storages[number].admin("drain json"));
            assert_eq!(answer["may_be_stopped"], true, "{answer}");
            more(100);
        }
        cluster.storages[number].stop();
        more(100);
        cluster.storages[number].start();
        until_live(&cluster);
        more(200);
    }
    over.store(true, Ordering::SeqCst);
    by_hand.join().expect("no command failed");
    let mut all: Left = Vec::new();
    for worker in workers {
        match runtime.block_on(worker).expect("no panic") {
            Ok(left) => all.extend(left),
            Err(failed) => panic!("an operation failed: {failed}"),
        }
    }
    println!("{} operations, {} objects", done.load(Ordering::SeqCst), all.len());
    read_back(&cluster, &runtime, &all);
    cluster.stop_all();
}

/// Everything, from every mirror.
fn read_back(cluster: &Cluster, runtime: &tokio::runtime::Runtime, all: &Left) {
    let client = runtime.block_on(cluster.client(Duration::from_secs(10)));
    for (id, _, expected) in all {
        for machine in 1..=3 {
            let from = GetOptions { from: Some(machine), ..GetOptions::default() };
            let read = || {
                let got =
                    runtime.block_on(async { client.get(id, from).await?.bytes(1 << 24).await });
                match (got, expected) {
                    (Ok(got), Some(expected)) => (got[..] == expected[..]).then_some(()),
                    (Err(error), None) => {
                        (error.code == folio::client::ErrorCode::NotFound).then_some(())
                    }
                    (Ok(_), None) | (Err(_), Some(_)) => None,
                }
            };
            eventually(&format!("{id} on machine {machine}"), PATIENCE, read);
        }
    }
}

#[test]
fn no_operation_fails_while_the_storages_are_drained_and_upgraded_one_by_one() {
    roll(Way::Drained);
}

#[test]
fn no_operation_fails_when_the_storages_are_terminated_without_a_word() {
    roll(Way::Terminated);
}
