//! Large objects that are offered to mirrors before a record names them, so that no record ever waits behind a big
//! transfer.
//!
//! Invariants: who makes no progress for [`STALLED_MS`] is given up, nobody else; what becomes of an offer never decides
//! whether the object is stored.

use super::ambient::Monotonic;
use super::caller::CallError;
use super::mirror::Announcer;
use super::peers::{Peer, PeerTable, SyncState};
use crate::format::ids::{MachineId, MountIndex, Position};
use crate::messages::heads::{self, SyncOffer, SyncOffered};
use crate::messages::opcode::Opcode;
use actix::ArbiterHandle;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Without a byte asked for in so long an offer is given up, milliseconds.
pub const STALLED_MS: u64 = 2000;
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// (to whom, mount, content)
type Key = (MachineId, MountIndex, Position);

/// Offers that are open, and when each made progress.
#[derive(Debug)]
pub struct Offers {
    clock: Monotonic,
    open: Mutex<HashMap<Key, Progress>>,
}

#[derive(Debug)]
struct Progress {
    moved_ms: u64,
    /// Several may offer the same at once: who announces an edit, and whoever sends its record.
    offers: u32,
}

/// Takes its offer off the list.
struct Open<'a> {
    offers: &'a Offers,
    key: Key,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut open = self.offers.lock();
        if let Some(progress) = open.get_mut(&self.key) {
            progress.offers -= 1;
            if progress.offers == 0 {
                open.remove(&self.key);
            }
        }
    }
}

impl Offers {
    /// None.
    #[must_use]
    pub fn new(clock: Monotonic) -> Self {
        Self { clock, open: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Progress>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, key: Key) -> Open<'_> {
        let moved_ms = self.clock.now_ms();
        let mut open = self.lock();
        let progress = open.entry(key).or_insert(Progress { moved_ms, offers: 0 });
        *progress = Progress { moved_ms, offers: progress.offers + 1 };
        Open { offers: self, key }
    }

    fn stands_still(&self, open: &Open<'_>) -> bool {
        let moved_ms = self.lock().get(&open.key).map_or(0, |progress| progress.moved_ms);
        self.clock.now_ms().saturating_sub(moved_ms) > STALLED_MS
    }

    /// A peer has asked for a piece.
    pub fn progress(&self, machine: MachineId, mount: MountIndex, content: Position) {
        let now = self.clock.now_ms();
        if let Some(progress) = self.lock().get_mut(&(machine, mount, content)) {
            progress.moved_ms = now;
        }
    }

    /// Offers a content to a peer, and waits until it has it or stands still.
    ///
    /// # Errors
    /// Why it does not have it.
    pub async fn offer(
        &self,
        peer: &Peer,
        us: MachineId,
        mount: MountIndex,
        content: Position,
        length: u64,
    ) -> Result<(), String> {
        let Some(links) = peer.links() else { return Err("it is not connected".to_owned()) };
        let open = self.begin((peer.machine, mount, content));
        let head = SyncOffer { machine: us, mount, content, length };
        let text = |error: CallError| error.to_string();
        let answer = links.calls.start(Opcode::SyncOffer, &head, Bytes::new()).map_err(text)?;
        tokio::pin!(answer);
        loop {
            tokio::select! {
                answered = &mut answer => {
                    let frame = answered.map_err(text)?;
                    let head: SyncOffered =
                        heads::decode(frame.head()).map_err(|error| error.to_string())?;
                    return if head.there { Ok(()) } else { Err(head.why) };
                }
                () = tokio::time::sleep(LOOK) => {
                    if self.stands_still(&open) {
                        return Err("it makes no progress".to_owned());
                    }
                }
            }
        }
    }
}

/// Offers large objects of the mounts of this storage to whoever is live.
pub struct Announce {
    table: Arc<PeerTable>,
    arbiter: ArbiterHandle,
}

impl Announce {
    /// The waiting is done on `arbiter`.
    #[must_use]
    pub const fn new(table: Arc<PeerTable>, arbiter: ArbiterHandle) -> Self {
        Self { table, arbiter }
    }
}

impl Announcer for Announce {
    fn announce(
        &self,
        mount: MountIndex,
        content: Position,
        length: u64,
        then: Box<dyn FnOnce() + Send>,
    ) {
        let live = |peer: &Arc<Peer>| {
            peer.mount(mount).is_some_and(|mount| mount.state() == SyncState::Live)
        };
        let peers: Vec<Arc<Peer>> = self.table.all().into_iter().filter(live).collect();
        if peers.is_empty() {
            return then();
        }
        let table = Arc::clone(&self.table);
        // An arbiter that is gone drops it, and with it the reply, which says so.
        self.arbiter.spawn(async move {
            let offers = peers.iter().map(|peer| async {
                let offered = table.offers.offer(peer, table.us, mount, content, length).await;
                if let Err(why) = offered {
                    tracing::info!(
                        peer = peer.machine,
                        mount,
                        why,
                        "a large object is not there yet"
                    );
                }
            });
            futures_util::future::join_all(offers).await;
            then();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_that_ends_takes_no_other_of_the_same_content_with_it() {
        let offers = Offers::new(Monotonic::start());
        let key = (2, 0, Position { machine: 1, log_id: 7, sequence: 9 });
        let (first, second) = (offers.begin(key), offers.begin(key));
        drop(first);
        assert!(offers.lock().contains_key(&key), "the second would be given up at once");
        drop(second);
        assert!(offers.lock().is_empty());
    }
}
