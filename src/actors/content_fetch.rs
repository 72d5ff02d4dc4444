//! Fetches the contents of large objects from other members: in pieces, several on their way, resumed where a cut left
//! them.
//!
//! Invariants: a content is fetched once at a time, whoever asks for it; at most `FETCHES_MAX` at once; it counts as here only
//! when its checksums were verified and it is durable (the sink's `finish`); a fetch that fails leaves what it has for the
//! next one.

use super::caller::CallError;
use super::peers::{Peer, PeerTable};
use super::shared_mount::SharedMount;
use super::shelf::{Copying, Shelf};
use crate::format::ids::{MachineId, MountIndex, Position};
use crate::messages::heads::{self, PIECE_MAX, SyncContent, SyncPiece};
use crate::messages::opcode::Opcode;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot, watch};

/// Contents that are fetched at once.
const FETCHES_MAX: usize = 4;
/// Pieces on their way.
const WINDOW: usize = 4;
/// How long one piece may take.
const PIECE_LIMIT: Duration = Duration::from_secs(10);
/// How long a fetch waits for a connection to whoever has it.
const LINK_LIMIT: Duration = Duration::from_secs(2);

/// What became of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It is here, durable and whole.
    Here,
    /// Every member that was asked, whoever offered it among them, says that it does not have it: a later version stands.
    Gone,
}

/// How a fetch ended.
type Ended = Option<Result<Fetched, String>>;

/// Why one member did not give it.
enum Miss {
    /// It says that it does not have it.
    NotThere,
    /// It could not be asked, or the copy failed.
    Failed(String),
}

impl From<String> for Miss {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// What is being fetched.
#[derive(Debug)]
pub struct Fetches {
    running: Mutex<HashMap<(MountIndex, Position), watch::Receiver<Ended>>>,
    permits: Arc<Semaphore>,
}

impl Default for Fetches {
    fn default() -> Self {
        Self { running: Mutex::default(), permits: Arc::new(Semaphore::new(FETCHES_MAX)) }
    }
}

impl Fetches {
    fn lock(&self) -> MutexGuard<'_, HashMap<(MountIndex, Position), watch::Receiver<Ended>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has a content of `length` bytes here: durable and whole when it returns. Asks `from` first, then all others. On an arbiter.
///
/// # Errors
/// Why it is not here.
pub async fn fetch(
    table: &Arc<PeerTable>,
    mount: &Arc<SharedMount>,
    (content, length): (Position, u64),
    from: MachineId,
) -> Result<Fetched, String> {
    let key = (mount.index, content);
    let (tell, mut hear) = watch::channel(None);
    let running = {
        let mut running = table.fetches.lock();
        match running.get(&key) {
            Some(known) => Some(known.clone()),
            None => {
                running.insert(key, hear.clone());
                None
            }
        }
    };
    if let Some(known) = running {
        hear = known;
    } else {
        let (table, mount) = (Arc::clone(table), Arc::clone(mount));
        // It goes on when whoever asked is gone: the next who asks finds it here.
        actix::spawn(async move {
            let fetched = match table.fetches.permits.acquire().await {
                Ok(_permit) => from_anybody(&table, &mount, (content, length), from).await,
                Err(closed) => Err(closed.to_string()),
            };
            table.fetches.lock().remove(&key);
            tell.send_replace(Some(fetched));
        });
    }
    match hear.wait_for(Option::is_some).await {
        Ok(ended) => ended.clone().unwrap_or(Ok(Fetched::Here)),
        Err(_) => Err("the daemon is stopping".to_owned()),
    }
}

/// Has a content here once more, although a file of it is in place: that one is damaged. It waits, durable and verified, under
/// its temporary name when this returns. On an arbiter.
///
/// # Errors
/// Why nobody gave it.
pub async fn fetch_anew(
    table: &Arc<PeerTable>,
    mount: &Arc<SharedMount>,
    large: (Position, u64),
) -> Result<(), String> {
    let shelf = Arc::clone(&mount.open().map_err(|problem| problem.message)?.shelf);
    let _permit = table.fetches.permits.acquire().await.map_err(|closed| closed.to_string())?;
    let mut why = "no other member is connected".to_owned();
    for source in table.all().into_iter().filter(|peer| peer.is_connected()) {
        if !source.mount(mount.index).is_some_and(|there| there.is_serving()) {
            continue;
        }
        match from_peer(table, &source, mount, &shelf, large).await {
            Ok(()) => return Ok(()),
            Err(Miss::NotThere) => why = format!("machine {} does not have it", source.machine),
            Err(Miss::Failed(failed)) => why = format!("machine {}: {failed}", source.machine),
        }
    }
    Err(why)
}

async fn from_anybody(
    table: &PeerTable,
    mount: &Arc<SharedMount>,
    (content, length): (Position, u64),
    from: MachineId,
) -> Result<Fetched, String> {
    let open = mount.open_to_members().map_err(|problem| problem.message)?;
    let shelf = Arc::clone(&open.shelf);
    let there = on_pool(mount, {
        let shelf = Arc::clone(&shelf);
        move || shelf.content_len(content).map_err(|error| error.to_string())
    });
    if there.await??.is_some() {
        return Ok(Fetched::Here);
    }
    wait_for_link(table, from).await;
    let mut sources = table.all();
    sources.sort_by_key(|peer| peer.machine != from);
    let (mut denied, mut failed) = (false, None);
    for source in sources.into_iter().filter(|peer| peer.is_connected()) {
        match from_peer(table, &source, mount, &shelf, (content, length)).await {
            Ok(()) => return Ok(Fetched::Here),
            Err(Miss::NotThere) => denied |= source.machine == from,
            Err(Miss::Failed(why)) => failed = Some(format!("machine {}: {why}", source.machine)),
        }
    }
    match failed {
        Some(why) => Err(why),
        None if denied => Ok(Fetched::Gone),
        None => Err(format!("machine {from} is not connected")),
    }
}

/// The other direction of a fresh connection may take a moment.
async fn wait_for_link(table: &PeerTable, from: MachineId) {
    let connected = async {
        while !table.get(from).is_some_and(|peer| peer.is_connected()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Without it the others are asked.
    tokio::time::timeout(LINK_LIMIT, connected).await.unwrap_or_default();
}

async fn from_peer(
    table: &PeerTable,
    peer: &Peer,
    mount: &Arc<SharedMount>,
    shelf: &Arc<dyn Shelf>,
    (content, length): (Position, u64),
) -> Result<(), Miss> {
    let ask = |offset: u64, length: u32| {
        let head = SyncContent { machine: table.us, mount: mount.index, content, offset, length };
        async move {
            let frame = peer
                .call(Opcode::SyncContent, &head, Bytes::new(), PIECE_LIMIT)
                .await
                .map_err(|error: CallError| error.to_string())?;
            let piece: SyncPiece =
                heads::decode(frame.head()).map_err(|error| error.to_string())?;
            let total = piece.total.ok_or(Miss::NotThere)?;
            Ok::<_, Miss>((total, offset, frame.into_payload()))
        }
    };
    let (total, ..) = ask(0, 0).await?;
    let shelf = Arc::clone(shelf);
    let begun = on_pool(mount, move || shelf.copy_content(content, length)).await?;
    let mut sink: Box<dyn Copying> = begun.map_err(|error| error.to_string())?;
    if sink.whole_len() != total {
        return Err(format!("it has {total} bytes there, not {}", sink.whole_len()).into());
    }
    let mut next = sink.position();
    let mut pieces = FuturesOrdered::new();
    loop {
        while next < total && pieces.len() < WINDOW {
            let length = u32::try_from((total - next).min(PIECE_MAX.into())).unwrap_or(PIECE_MAX);
            pieces.push_back(ask(next, length));
            next += u64::from(length);
        }
        let Some(piece) = pieces.next().await else { break };
        let (_, offset, bytes) = piece?;
        if bytes.is_empty() || offset != sink.position() {
            return Err("a piece of it is shorter than asked for".to_owned().into());
        }
        let (back, written) = on_pool(mount, move || {
            let written = sink.write(&bytes);
            (sink, written)
        })
        .await?;
        sink = back;
        written.map_err(|error| error.to_string())?;
    }
    let finished = on_pool(mount, move || sink.finish()).await?;
    Ok(finished.map(drop).map_err(|error| error.to_string())?)
}

/// Does something that may wait for the disk.
///
/// # Errors
/// The mount is being closed.
pub async fn on_pool<T: Send + 'static>(
    mount: &SharedMount,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (tell, hear) = oneshot::channel();
    mount.pool.run(Box::new(move || {
        // Whoever asked may be gone.
        tell.send(work()).map_err(drop).unwrap_or_default();
    }));
    hear.await.map_err(|_| "the mount is being closed".to_owned())
}
