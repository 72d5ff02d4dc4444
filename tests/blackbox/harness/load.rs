//! Clients that store and edit all the time, and remember what they were told.

use super::cluster::Cluster;
use super::content::{content, identify};
use super::mirrored::runtime;
use super::{PATIENCE, eventually};
use folio::client::{Body, Client, ErrorCode, GetOptions, PutOptions};
use folio::format::file_id::FileId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// What was acknowledged last of each object: its index, and its version.
type Stored = BTreeMap<FileId, (u64, u64)>;

/// See the module.
pub struct Load {
    runtime: Runtime,
    client: Client,
    stop: Arc<AtomicBool>,
    changes: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Stored>>,
}

impl Load {
    /// So many clients, each with a pause between two changes.
    pub fn begin(cluster: &Cluster, clients: u64, pause: Duration) -> Self {
        let runtime = runtime();
        let (stop, changes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = runtime.block_on(cluster.client(Duration::from_secs(30)));
        let clients = (0..clients).map(|me| {
            let (client, stop, changes) = (client.clone(), Arc::clone(&stop), Arc::clone(&changes));
            runtime.spawn(async move { work(&client, me, &stop, &changes, pause).await })
        });
        let clients = clients.collect();
        Self { runtime, client, stop, changes, clients }
    }

    /// Changes that were acknowledged so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Waits for so many more.
    pub fn go_on(&self, more: u64) {
        let due = self.changes() + more;
        eventually("clients are served all the time", 2 * PATIENCE, || {
            (self.changes() >= due).then_some(())
        });
    }

    /// Every acknowledged change is on every machine; how many objects there are.
    pub fn end(self, machines: u16) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Stored::new();
        for task in self.clients {
            all.extend(self.runtime.block_on(task).expect("no client failed"));
        }
        for (id, stored) in &all {
            for machine in 1..=machines {
                eventually("each mirror has the last version", 2 * PATIENCE, || {
                    let options = GetOptions { from: Some(machine), ..GetOptions::default() };
                    let object = self.runtime.block_on(self.client.get(id, options)).ok()?;
                    let bytes = self.runtime.block_on(object.bytes(1 << 20)).ok()?;
                    (identify(&bytes) == Ok(*stored)).then_some(())
                });
            }
        }
        all.len()
    }
}

async fn work(
    client: &Client,
    me: u64,
    stop: &AtomicBool,
    changes: &AtomicU64,
    pause: Duration,
) -> Stored {
    let (mut stored, mut ids): (Stored, Vec<FileId>) = (Stored::new(), Vec::new());
    let mut turn = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        turn += 1;
        let length = 100 + usize::try_from(turn * 997 % 9000).expect("small");
        if turn % 3 == 1 || ids.is_empty() {
            let index = (me << 32) + turn;
            let body = Body::bytes(content(index, 0, length));
            match client.put(body, PutOptions::default()).await {
                Ok(put) => {
                    stored.insert(put.id.clone(), (index, 0));
                    ids.push(put.id);
                }
                // The machine that had it in hand was lost with its disks: nobody can say, and the client says so.
                Err(error) if error.code == ErrorCode::UnknownOutcome => continue,
                Err(error) => panic!("no put fails: {error}"),
            }
        } else {
            let id = &ids[usize::try_from(turn * 7919).expect("small") % ids.len()];
            let entry = stored.get_mut(id).expect("stored");
            let next = (entry.0, entry.1 + 1);
            let body = Body::bytes(content(next.0, next.1, length));
            client.modify(id, body, None).await.expect("no edit fails");
            *entry = next;
        }
        changes.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(pause).await;
    }
    stored
}
