//! Endless edits: the content stays right and the disk does not fill.

use crate::harness::content::{below, content, identify, next};
use crate::harness::from_env;
use crate::{cluster, disk_usage};
use folio::client::{Body, Client, ErrorCode, GetOptions, PutOptions};
use folio::format::file_id::FileId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const CONNECTIONS: u64 = 64;
/// Samples of the space used, over the campaign.
const SAMPLES: u64 = 20;

#[derive(Debug)]
struct Object {
    index: u64,
    version: u64,
    original: u64,
    length: u64,
    id: FileId,
    /// Ids that this place had before; each must answer "not found" for ever.
    dead: Option<FileId>,
}

async fn worker(
    client: Client,
    mut objects: Vec<Object>,
    mut dice: u64,
    todo: Arc<AtomicU64>,
    live: Arc<AtomicU64>,
) -> Vec<Object> {
    while todo.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    {
        let at = below(&mut dice, objects.len() as u64) as usize;
        let object = &mut objects[at];
        // 0.2x to 5x of the original, evenly.
        let length = (object.original / 5 + below(&mut dice, object.original * 24 / 5)).max(28);
        object.version += 1;
        let bytes = content(object.index, object.version, length as usize);
        if below(&mut dice, 50) == 0 {
            client.delete(&object.id, None).await.expect("delete");
            let written = client.put(Body::bytes(bytes), PutOptions::default()).await.expect("put");
            object.dead = Some(std::mem::replace(&mut object.id, written.id));
        } else {
            let written =
                client.modify(&object.id, Body::bytes(bytes), None).await.expect("modify");
            assert_eq!(written.id, object.id);
        }
        live.fetch_add(length, Ordering::SeqCst);
        live.fetch_sub(object.length, Ordering::SeqCst);
        object.length = length;
    }
    objects
}

/// 10,000 objects, 1,000,000 edits: every id answers with its last content; chunks and singles take at most 1.6x of
/// the live payload and stay flat over the last half; logs stay bounded and flat.
#[test]
#[ignore = "long: see docs/TESTING.md"]
fn no_number_of_edits_eats_the_disk() {
    let edits = from_env("FOLIO_EDITS", 1_000_000);
    let count = from_env("FOLIO_EDIT_OBJECTS", 10_000);
    let seed = from_env("FOLIO_EDIT_SEED", 1);
    let cluster = cluster(&["a"], 1)
        .storages_with("store.undelete_window", "\"0s\"")
        .storages_with("store.single_file_threshold", "\"128KiB\"")
        .storages_with("sync.log_retention_bytes", "\"256MiB\"")
        .started();
    let mount = cluster.mount_path(0, 0);
    let space = || {
        (
            disk_usage(&mount.join("chunks")) + disk_usage(&mount.join("singles")),
            disk_usage(&mount.join("binlog")),
        )
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let client = runtime.block_on(cluster.client(Duration::from_secs(30)));
    let mut dice = seed;
    let live = Arc::new(AtomicU64::new(0));
    let todo = Arc::new(AtomicU64::new(0));

    let mut shares: Vec<Vec<Object>> = (0..CONNECTIONS).map(|_| Vec::new()).collect();
    for index in 0..count {
        let original = 4096 + below(&mut dice, 60 << 10);
        let bytes = content(index, 1, original as usize);
        let id = runtime
            .block_on(client.put(Body::bytes(bytes), PutOptions::default()))
            .expect("put")
            .id;
        live.fetch_add(original, Ordering::SeqCst);
        let object = Object { index, version: 1, original, length: original, id, dead: None };
        shares[(index % CONNECTIONS) as usize].push(object);
    }
    let mut samples = Vec::new();
    for sample in 0..SAMPLES {
        todo.store(edits / SAMPLES, Ordering::SeqCst);
        let tasks: Vec<_> = shares
            .drain(..)
            .map(|objects| {
                let seed = next(&mut dice);
                runtime.spawn(worker(
                    client.clone(),
                    objects,
                    seed,
                    Arc::clone(&todo),
                    Arc::clone(&live),
                ))
            })
            .collect();
        shares = tasks.into_iter().map(|task| runtime.block_on(task).expect("no panic")).collect();
        let (data, logs) = space();
        let live = live.load(Ordering::SeqCst);
        println!(
            "{:3} %: live {} MiB, chunks + singles {} MiB ({:.3}x), logs {} MiB, RSS {} MiB",
            (sample + 1) * 100 / SAMPLES,
            live >> 20,
            data >> 20,
            data as f64 / live as f64,
            logs >> 20,
            cluster.storages[0].daemon().proc_status("VmRSS") >> 10
        );
        samples.push((data as f64 / live as f64, logs as f64));
    }
    let problems = Mutex::new(Vec::new());
    runtime.block_on(async {
        for object in shares.iter().flatten() {
            let found = client.get(&object.id, GetOptions::default()).await.expect("there");
            let bytes = found.bytes(1 << 30).await.expect("whole");
            let found = identify(&bytes);
            if found != Ok((object.index, object.version)) {
                problems.lock().expect("lock").push(format!("{found:?} instead of {object:?}"));
            }
            if let Some(dead) = &object.dead {
                let answer = client.get(dead, GetOptions::default()).await.map(|_| ());
                let code = answer.expect_err("a deleted id answers").code;
                assert_eq!(code, ErrorCode::NotFound, "{dead}");
            }
        }
    });
    let problems = problems.into_inner().expect("lock");
    assert!(problems.is_empty(), "{problems:#?}");
    let last = samples[SAMPLES as usize - 1];
    assert!(last.0 <= 1.6, "{:.3}x of the live payload", last.0);
    let mean = |part: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| {
        part.iter().map(pick).sum::<f64>() / part.len() as f64
    };
    let (third, fourth) = samples[SAMPLES as usize / 2..].split_at(SAMPLES as usize / 4);
    let (data_third, data_fourth) = (mean(third, |s| s.0), mean(fourth, |s| s.0));
    assert!(data_fourth <= data_third * 1.05, "still growing: {data_third:.3}x, {data_fourth:.3}x");
    let (logs_third, logs_fourth) = (mean(third, |s| s.1), mean(fourth, |s| s.1));
    assert!(logs_fourth <= logs_third * 1.05 + 1.0, "logs grow: {logs_third}, {logs_fourth}");
    assert!(logs_fourth <= (512u64 << 20) as f64, "logs take {logs_fourth}");
}
