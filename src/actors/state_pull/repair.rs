//! What is damaged here, taken from other members: homes that are known, and homes that a mirror has and nothing here tells of
//! (the header itself was hit).
//!
//! Invariants: a member is asked only when it has everything that was here when the damage was seen, so that no older version
//! comes in the place of one that was acknowledged; what comes is judged by the rules of every copy, so a member that is
//! damaged itself, or ahead, does no harm.

use super::source::{Copied, Source};
use super::{Plan, Progress, Pull, prepare};
use crate::actors::content_fetch::on_pool;
use crate::actors::peers::{Peer, PeerTable, SyncState};
use crate::actors::shared_mount::SharedMount;
use crate::cluster::coverage::Coverage;
use crate::format::conflict::Conflict;
use crate::format::crc::crc32c;
use crate::format::ids::ChunkfileId;
use crate::format::record::ChunkfileCreated;
use crate::format::slot::SlotHeader;
use crate::messages::heads::COPIES_MAX;
use crate::store::archive::ArchivedName;
use crate::store::slot_copy::SlotCopy;
use std::sync::Arc;
use std::time::Duration;

/// How long a member is waited for that lacks the last changes.
const CATCH_UP: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// Members that have this mount and serve it.
fn sources(table: &PeerTable, mount: &SharedMount) -> Vec<Arc<Peer>> {
    let mut all = table.all();
    all.retain(|peer| {
        peer.is_connected() && peer.mount(mount.index).is_some_and(|there| there.is_serving())
    });
    all
}

/// Has these homes of a chunkfile copied here from whoever has them. `needed`: what the mount covered when the damage was seen.
/// What could not be had, and why, in words; empty if every home was had from somebody. On an arbiter.
///
/// # Errors
/// Our own mount.
pub async fn homes(
    table: &Arc<PeerTable>,
    mount: &Arc<SharedMount>,
    (id, homes): (ChunkfileId, &[u32]),
    needed: &Coverage,
) -> Result<String, String> {
    let progress = Progress::default();
    let plan = Plan::of(mount, Vec::new());
    let pull = prepare(table, &plan, &progress).await?;
    let shelf = Arc::clone(&pull.shelf);
    let created = on_pool(mount, move || shelf.chunkfile_created(id)).await?;
    let Some(created) = created.map_err(|error| error.to_string())? else {
        return Ok("its chunkfile is gone".to_owned());
    };
    let mut left: Vec<u32> = homes.to_vec();
    let mut why = "no other member that has the mount is connected".to_owned();
    for peer in sources(table, mount) {
        if left.is_empty() {
            return Ok(String::new());
        }
        let machine = peer.machine;
        if !has_all(&peer, mount, needed).await {
            why = format!("machine {machine} lacks changes that were made here");
            continue;
        }
        let source = pull.source(peer);
        match pull.copy_homes(&source, &created, &left).await {
            Ok(had) => {
                left.retain(|home| !had.contains(home));
                why = format!("machine {machine} does not have it whole either");
            }
            Err(failed) => why = failed,
        }
    }
    Ok(if left.is_empty() { String::new() } else { why })
}

async fn has_all(peer: &Peer, mount: &SharedMount, needed: &Coverage) -> bool {
    let Some(there) = peer.mount(mount.index) else { return false };
    let caught_up = async {
        while !there.coverage().covers_all(needed) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(CATCH_UP, caught_up).await.is_ok()
}

/// Compares a chunkfile with every mirror that is caught up, and has what is missing here copied: a home whose header was hit
/// such that nothing tells of it any more. On an arbiter.
///
/// # Errors
/// A member that does not answer, our own mount.
pub async fn lacking(
    table: &Arc<PeerTable>,
    mount: &Arc<SharedMount>,
    id: ChunkfileId,
) -> Result<(), String> {
    let live: Vec<Arc<Peer>> = sources(table, mount)
        .into_iter()
        .filter(|peer| {
            let there = peer.mount(mount.index);
            there.is_some_and(|t| t.state() == SyncState::Live && t.holds_us_live())
        })
        .collect();
    if live.is_empty() {
        return Ok(());
    }
    let progress = Progress::default();
    let plan = Plan::of(mount, Vec::new());
    let pull = prepare(table, &plan, &progress).await?;
    let shelf = Arc::clone(&pull.shelf);
    let created = on_pool(mount, move || shelf.chunkfile_created(id)).await?;
    let Some(created) = created.map_err(|error| error.to_string())? else { return Ok(()) };
    for peer in live {
        let needed = mount.mirror.report().coverage.clone();
        if !has_all(&peer, mount, &needed).await {
            continue;
        }
        let source = pull.source(peer);
        pull.copy_lacking(&source, &created).await?;
    }
    Ok(())
}

/// What makes a chunkfile's header, from a member that has it; `None`: nobody that is connected has.
pub async fn created(
    table: &Arc<PeerTable>,
    mount: &Arc<SharedMount>,
    id: ChunkfileId,
) -> Option<ChunkfileCreated> {
    for peer in sources(table, mount) {
        let source = Source::new(peer, table.us, mount.index);
        match source.chunkfiles().await {
            Ok((_, all, _)) => {
                if let Some(found) = all.into_iter().find(|created| created.id == id) {
                    return Some(found);
                }
            }
            Err(why) => tracing::debug!(why, "a mirror does not say its chunkfiles"),
        }
    }
    None
}

/// A losing version as a member has it, with its content (empty for a large one).
///
/// # Errors
/// Why nobody gave it.
pub async fn archived(
    table: &Arc<PeerTable>,
    mount: &Arc<SharedMount>,
    name: ArchivedName,
) -> Result<(Conflict, Vec<u8>), String> {
    let mut why = "no other member that has the mount is connected".to_owned();
    for peer in sources(table, mount) {
        let machine = peer.machine;
        let source = Source::new(peer, table.us, mount.index);
        match source.archived(&[name]).await {
            Ok((_, entries)) => {
                let found = entries.into_iter().find(|(lost, content)| {
                    let right = lost.single.is_some()
                        || (lost.length == content.len() as u64
                            && lost.payload_crc == crc32c(content));
                    right && (lost.object, lost.tag.position()) == name
                });
                match found {
                    Some(found) => return Ok(found),
                    None => why = format!("machine {machine} does not have it whole either"),
                }
            }
            Err(failed) => why = failed,
        }
    }
    Err(why)
}

impl Pull<'_> {
    async fn copy_lacking(
        &self,
        source: &Source,
        created: &ChunkfileCreated,
    ) -> Result<(), String> {
        let id = created.id;
        let (theirs, (ours, _)) =
            futures_util::future::try_join(source.digest(id), self.own_digest(id)).await?;
        if theirs.fingerprint.into_array() == ours.fingerprint {
            return Ok(());
        }
        let mut from = 0;
        loop {
            let (theirs, page) = source.marks(id, from).await?;
            let ours = self.own_marks(id, from, page.next.unwrap_or(u32::MAX)).await?;
            let lacking = theirs.into_iter().map(|(home, _)| home);
            let lacking: Vec<u32> = lacking.filter(|home| !ours.contains_key(home)).collect();
            for homes in lacking.chunks(COPIES_MAX) {
                self.take_lacking(source, created, homes).await?;
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// Takes those of these homes that are in use there: what is purged may be free here already.
    async fn take_lacking(
        &self,
        source: &Source,
        created: &ChunkfileCreated,
        homes: &[u32],
    ) -> Result<(), String> {
        let (mut from, mut homes) = (0, homes);
        loop {
            let page = source.copies(created.id, from, homes, false).await?;
            let in_use = |copy: &SlotCopy| {
                let header = SlotHeader::decode(&copy.home.header, &created.secret);
                header.is_ok_and(|header| header.is_in_use())
            };
            let copies = page.copies.iter().filter(|copy| in_use(copy)).cloned().collect();
            let next = page.next;
            self.take(source, &Copied { copies: Arc::new(copies), ..page }).await?;
            match next {
                Some(next) => {
                    from = next;
                    homes = &homes[homes.partition_point(|home| *home < next)..];
                    if homes.is_empty() {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            }
        }
    }
}
