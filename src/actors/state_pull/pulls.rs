//! The pulls that run because a log does not reach back: one for each of our mounts and member, joined by later askers.
//!
//! Invariants: who asks is answered at once; a pull that failed is not begun again before a pause, which grows; what is
//! asked for again and again costs nothing but the answer.

use super::{Plan, Progress, Pulled, lock, pull};
use crate::actors::ambient;
use crate::actors::peers::{Peer, PeerTable};
use crate::actors::shared_mount::SharedMount;
use crate::actors::sync_peer::{Need, backoff};
use crate::format::ids::{MachineId, MountIndex};
use crate::messages::heads::{self, SyncPull, SyncPulling};
use crate::messages::opcode::Opcode;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Shortest and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How long a member may take to say that it pulls.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// How often a sender looks whether the coverage has grown, and for how long.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 40;

/// See the module.
#[derive(Debug, Default)]
pub struct Pulls {
    pulls: Mutex<HashMap<(MountIndex, MachineId), State>>,
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    progress: Arc<Progress>,
    failures: u32,
    /// By the clock of the table.
    not_before_ms: u64,
    why: String,
}

impl Pulls {
    /// How it stands between a mount and a member; `None` if nothing was ever asked for.
    #[must_use]
    pub fn of(&self, mount: MountIndex, machine: MachineId) -> Option<SyncPulling> {
        lock(&self.pulls).get(&(mount, machine)).map(State::said)
    }
}

impl State {
    fn said(&self) -> SyncPulling {
        SyncPulling {
            running: self.running,
            done: self.progress.done(),
            total: self.progress.total(),
            why: self.why.clone(),
        }
    }
}

/// A member says that we should copy its state: begins, or says how far it is. On an arbiter.
pub fn ask(table: &Arc<PeerTable>, mount: &Arc<SharedMount>, peer: &Arc<Peer>) -> SyncPulling {
    let mut pulls = lock(&table.pulls.pulls);
    let state = pulls.entry((mount.index, peer.machine)).or_default();
    if !state.running && table.clock.now_ms() >= state.not_before_ms {
        state.running = true;
        state.progress = Arc::default();
        let (table, progress) = (Arc::clone(table), Arc::clone(&state.progress));
        let (mount, peer) = (Arc::clone(mount), Arc::clone(peer));
        actix::spawn(async move { run(&table, &mount, peer, &progress).await });
    }
    state.said()
}

async fn run(
    table: &Arc<PeerTable>,
    mount: &Arc<SharedMount>,
    peer: Arc<Peer>,
    progress: &Progress,
) {
    let (index, machine) = (mount.index, peer.machine);
    tracing::info!(mount = index, peer = machine, "a log does not reach back: copying state");
    let done = pull(table, &Plan::of(mount, vec![peer]), progress).await;
    let why = match &done {
        Ok(pulled @ Pulled { reached: Some(_), .. }) => {
            let Pulled { chunkfiles, different, taken, archived, .. } = pulled;
            tracing::info!(
                mount = index,
                peer = machine,
                chunkfiles,
                different,
                taken,
                archived,
                "state is copied"
            );
            String::new()
        }
        Ok(Pulled { missing, named, .. }) => {
            let some = named.first().map_or("", String::as_str);
            format!("{missing} objects cannot be had from any member, among them: {some}")
        }
        Err(why) => why.clone(),
    };
    if !why.is_empty() {
        tracing::warn!(mount = index, peer = machine, why, "state is not copied, trying on");
    }
    let mut pulls = lock(&table.pulls.pulls);
    let state = pulls.entry((index, machine)).or_default();
    state.running = false;
    state.failures = if why.is_empty() { 0 } else { state.failures.saturating_add(1) };
    let chance = ambient::random().map_or(0, u64::from_le_bytes);
    let pause = if why.is_empty() {
        Duration::ZERO
    } else {
        backoff(state.failures, PAUSE.0, PAUSE.1, chance)
    };
    let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    state.not_before_ms = table.clock.now_ms().saturating_add(pause);
    state.why = why;
}

/// The sender's side: our log (or one that we pass on) begins only behind what a mirror lacks. Tells it to copy our state,
/// and gives it a while.
///
/// # Errors
/// Why it does not.
pub async fn mend(table: &PeerTable, need: Need) -> Result<(), String> {
    let peer = table.get(need.machine).ok_or("the mirror is not known")?;
    let head = SyncPull {
        machine: table.us,
        mount: need.mount,
        origin: need.log.machine,
        log_id: need.log.log_id,
        from: need.from,
    };
    let frame = peer.call(Opcode::SyncPull, &head, Bytes::new(), ASK_LIMIT).await;
    let frame = frame.map_err(|error| error.to_string())?;
    let said: SyncPulling = heads::decode(frame.head()).map_err(|error| error.to_string())?;
    if !said.running {
        return Err(format!("it cannot copy our state: {}", said.why));
    }
    let Some(there) = peer.mount(need.mount) else { return Ok(()) };
    for _ in 0..LOOKS {
        if need.log.covered_by(&there.coverage()) > need.has {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
