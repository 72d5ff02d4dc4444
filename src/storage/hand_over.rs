//! What must be with the mirrors before a storage may go: asked by `drain`, waited for at every ordered stop.

use crate::actors::peers::{Peer, PeerMount, SyncState};
use crate::actors::storage_room::StorageRoom;
use crate::format::ids::MountIndex;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(10);

/// Mounts of which no live mirror has everything, and how far each mirror is.
pub(super) fn uncovered(room: &StorageRoom) -> Vec<(MountIndex, String)> {
    let mut rows = Vec::new();
    let peers = room.peers.all();
    for mount in room.placement.mounts().iter().filter(|mount| mount.is_online()) {
        let mirrors: Vec<(&Arc<Peer>, &Arc<PeerMount>)> = peers
            .iter()
            .filter_map(|peer| peer.mount(mount.index).map(|there| (peer, there)))
            .collect();
        let behind = |there: &PeerMount| mount.mirror.behind(there.acked()).records;
        let whole =
            mirrors.iter().any(|(_, there)| there.state() == SyncState::Live && behind(there) == 0);
        if whole {
            continue;
        }
        let why = match mirrors.len() {
            0 => "no other machine mirrors it: what is here cannot be read while this machine is stopped"
                .to_owned(),
            _ => {
                let lag = |(peer, there): &(&Arc<Peer>, &Arc<PeerMount>)| {
                    let (machine, state) = (peer.machine, there.state().name());
                    format!("mirror {machine} is {state}, {} records behind", behind(there))
                };
                mirrors.iter().map(lag).collect::<Vec<_>>().join("; ")
            }
        };
        rows.push((mount.index, why));
    }
    rows
}

/// Waits until every live mirror has what is here, at most `limit`: nothing is to be changed any more. Best effort, for
/// those who go on working without us; what is missing comes when we are back.
pub(super) async fn wait(room: &StorageRoom, limit: Duration) {
    let behind = || {
        let peers = room.peers.all();
        room.placement.mounts().iter().filter(|mount| mount.is_online()).any(|mount| {
            peers.iter().filter_map(|peer| peer.mount(mount.index)).any(|there| {
                there.state() == SyncState::Live && mount.mirror.behind(there.acked()).records > 0
            })
        })
    };
    let caught_up = async {
        while behind() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(limit, caught_up).await.is_err() {
        tracing::warn!("a live mirror does not have everything yet: it gets it at the next start");
    }
}
