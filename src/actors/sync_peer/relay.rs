//! Passes on the logs of others: what we have and the mirror lacks, as long as whose log it is does not bring it itself.
//!
//! Invariants: one slice at a time for each mount, behind nobody's window; it begins from what the mirror says it has, and
//! stops as soon as the mirror has it from somebody else.

use super::feed::{SLICE_BYTES, Stop, received, start_push, start_read};
use super::session::Session;
use crate::actors::peer_link::Link;
use crate::actors::peers::{PeerMount, SyncState};
use crate::actors::shared_mount::SharedMount;
use crate::cluster::coverage::Coverage;
use crate::cluster::relay::due;
use crate::format::ids::{MountIndex, Position};
use crate::store::log_reader::{LogCursor, LogRead};
use crate::store::sync::{LogName, Received};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often what the mirror has is compared with what we have.
const COMPARE: Duration = Duration::from_millis(500);
/// Slices of one log between two comparisons: then the others have a turn.
const SLICES_MAX: u32 = 64;

/// Compares and passes on, for as long as the connection lives.
pub async fn run(session: Arc<Session>, link: Arc<Link>) {
    let mut before: BTreeMap<MountIndex, (Coverage, Arc<Coverage>)> = BTreeMap::new();
    let mut each = tokio::time::interval(COMPARE);
    each.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        each.tick().await;
        let mounts = session.config.placement.mounts().iter().filter(|mount| mount.is_online());
        let work = mounts.filter_map(|mount| {
            let known = session.peer.mount(mount.index)?;
            let fed = matches!(
                known.state(),
                SyncState::CatchingUp | SyncState::Live | SyncState::NeedsState
            );
            if !fed || !known.takes_records() {
                before.remove(&mount.index);
                return None;
            }
            let own = (*mount.mirror.tail().borrow())?.log;
            let (ours, theirs) = (mount.mirror.report().coverage.clone(), known.coverage());
            let last = before.insert(mount.index, (ours, Arc::clone(&theirs)));
            let (had, was) = last?;
            let due = due(&had, &was, &theirs, (own.machine, own.log_id));
            (!due.is_empty()).then(|| pass_on(&session, &link, mount, known, due, had))
        });
        // The mounts do not wait for each other, but the next comparison for all of them.
        let work: Vec<_> = work.collect();
        futures_util::future::join_all(work).await;
    }
}

async fn pass_on(
    session: &Session,
    link: &Link,
    mount: &SharedMount,
    known: &PeerMount,
    due: Vec<Position>,
    ours: Coverage,
) {
    for at in due {
        let log = LogName::of(at);
        let (peer, index) = (session.peer.machine, mount.index);
        tracing::debug!(
            peer,
            mount = index,
            origin = log.machine,
            from = at.sequence,
            "passing on"
        );
        if let Err(stop) = one_log(session, link, mount, known, at, log.covered_by(&ours)).await {
            match stop {
                Stop::Failed(_, why) => {
                    tracing::warn!(
                        peer,
                        mount = index,
                        origin = log.machine,
                        why,
                        "cannot pass on a log"
                    );
                }
                Stop::NeedsState(need) => {
                    if let Some(mender) = &session.config.mender
                        && let Err(why) = mender(need).await
                    {
                        tracing::warn!(
                            peer,
                            mount = index,
                            origin = log.machine,
                            why,
                            "cannot mend by state"
                        );
                    }
                }
                Stop::Broken => return,
            }
        }
    }
}

/// Passes on one log up to `up_to`.
async fn one_log(
    session: &Session,
    link: &Link,
    mount: &SharedMount,
    known: &PeerMount,
    at: Position,
    up_to: u64,
) -> Result<(), Stop> {
    let (log, mut from) = (LogName::of(at), at.sequence);
    let own = log.machine == session.config.table.us;
    let mut cursor = LogCursor::new(own, log, from);
    for _ in 0..SLICES_MAX {
        let reading = start_read(mount, cursor, up_to, SLICE_BYTES)?;
        let Ok((next, read)) = reading.await else { return Ok(()) };
        cursor = next;
        let need = |oldest| {
            let machine = session.peer.machine;
            let need = super::Need { machine, mount: mount.index, log, has: from, from: oldest };
            Err(Stop::NeedsState(need))
        };
        let slice = match read {
            Ok(LogRead::Slice(slice)) => slice,
            Ok(LogRead::End) => return Ok(()),
            Ok(LogRead::Gone { oldest }) => return need(oldest),
            Ok(LogRead::Damaged { before, .. }) => return need(before),
            Err(error) => return Err(Stop::Failed(known.state(), error.to_string())),
        };
        let (to, bytes) = (slice.to, slice.records.len() as u64);
        let frame = start_push(link, mount, slice)?.await?;
        known.count_sent(bytes);
        match received(&frame, "the mirror")? {
            Received::Covered(covered) if covered > to => return Ok(()),
            Received::Covered(_) => from = to,
            // Somebody else is at it, or it is not what we thought: the next comparison tells.
            Received::Gap(_) => return Ok(()),
            Received::NeedsContent { covered, content, length } => {
                let table = &session.config.table;
                let offered =
                    table.offers.offer(&session.peer, table.us, mount.index, content, length).await;
                offered.map_err(|why| Stop::Failed(known.state(), why))?;
                from = covered;
                cursor = LogCursor::new(own, log, from);
            }
            Received::Broken(why) => return Err(Stop::Failed(known.state(), why)),
        }
    }
    Ok(())
}
