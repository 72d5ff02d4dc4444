//! What a recovery does with other members: copy, introduce itself, compare. Each ends with an event for the machine.
//!
//! Invariant: nothing here fails otherwise than by saying [`Event::Missed`]; dropped, it leaves what came.

use super::RecoveryConfig;
use crate::actors::absorb_room::Reached;
use crate::actors::mount_mirror::Meeting;
use crate::actors::peer_requests::{hello, meet, member};
use crate::actors::peers::Peer;
use crate::actors::state_pull::{Plan, Progress, Pulled, pull};
use crate::cluster::coverage::Coverage;
use crate::cluster::view::MountState;
use crate::format::ids::MachineId;
use crate::messages::heads::{self, SyncHello};
use crate::messages::opcode::Opcode;
use crate::recovery::{Event, Proof};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a member may take to say hello: it waits for its disk.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Comparisons in one go.
const COMPARISONS_MAX: u32 = 10;
/// Pause between two.
const COMPARISON_PAUSE: Duration = Duration::from_millis(300);
/// So many in a row that found nothing missing are enough, although something is being edited all the time.
const QUIET: u32 = 3;

/// What differs while it is compared has so long to come by the log.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Copy what this member has.
    Copy {
        /// From whom.
        from: MachineId,
        /// What it has only damaged is given up.
        lenient: bool,
        /// What is here may not have been durable in a crash.
        verify: bool,
    },
    /// Tell this member our log.
    Introduce(MachineId),
    /// Compare with this member.
    Compare(MachineId),
}

/// Does it.
pub async fn run(config: &RecoveryConfig, work: Work, progress: &Progress) -> Event {
    let (with, done) = match work {
        Work::Copy { from, lenient, verify } => {
            let plan = |sources| Plan { blank: true, verify, ..plan(config, sources) };
            (from, copy(config, from, lenient, plan, progress).await)
        }
        Work::Introduce(to) => (to, introduce(config, to).await),
        Work::Compare(with) => (with, compare(config, with, progress).await),
    };
    done.unwrap_or_else(|why| Event::Missed(with, why))
}

fn peer(config: &RecoveryConfig, machine: MachineId) -> Result<Arc<Peer>, String> {
    config.table.get(machine).ok_or_else(|| "it is not known".to_owned())
}

fn plan(config: &RecoveryConfig, sources: Vec<Arc<Peer>>) -> Plan {
    let limits = &config.limits;
    Plan {
        streams: limits.streams.load(Ordering::Relaxed).max(1),
        bandwidth: Arc::clone(&limits.bandwidth),
        ..Plan::of(&config.mount, sources)
    }
}

/// First each chunkfile from one of all that serve, then what this one has besides.
async fn copy(
    config: &RecoveryConfig,
    from: MachineId,
    lenient: bool,
    plan: impl Fn(Vec<Arc<Peer>>) -> Plan,
    progress: &Progress,
) -> Result<Event, String> {
    let source = peer(config, from)?;
    let index = config.mount.index;
    let covered = source.mount(index).map(|mount| mount.coverage()).unwrap_or_default();
    let serves = |peer: &Arc<Peer>| {
        peer.is_connected() && peer.mount(index).is_some_and(|mount| mount.is_serving())
    };
    let all: Vec<Arc<Peer>> = config.table.all().into_iter().filter(serves).collect();
    if all.len() > 1 {
        // What fails here is not lost: the copy of the one source says what is still to be had.
        if let Err(why) = pull(&config.table, &plan(all), progress).await {
            tracing::debug!(mount = index, why, "copying from several members at once");
        }
    }
    let pulled = pull(&config.table, &plan(vec![source]), progress).await?;
    if pulled.reached.is_none() && lenient {
        for what in &pulled.named {
            tracing::error!(mount = index, what, "given up: no member has it undamaged");
        }
        claim(config, &covered).await?;
    }
    Ok(Event::Copied { from, damaged: pulled.missing })
}

/// Says that everything is here that can be had.
async fn claim(config: &RecoveryConfig, covered: &Coverage) -> Result<(), String> {
    let gone = || "our own mount is not in service".to_owned();
    let binlog = config.mount.registry.binlog().ok_or_else(gone)?;
    let claimed = binlog.send(Reached(covered.clone())).await.map_err(|_| gone())?;
    claimed.map_err(|problem| problem.message)
}

/// The member puts us into its label, with the log that we have now, before it answers.
async fn introduce(config: &RecoveryConfig, to: MachineId) -> Result<Event, String> {
    let (peer, mount) = (peer(config, to)?, &config.mount);
    let presence = meet(mount, Meeting::default()).await.map_err(|problem| problem.message)?;
    let (group, syncgroup) = &config.names;
    let head = hello(group, syncgroup, mount, &presence);
    let frame = peer.call(Opcode::SyncHello, &head, Bytes::new(), HELLO_LIMIT).await;
    let frame = frame.map_err(|error| error.to_string())?;
    let theirs: SyncHello = heads::decode(frame.head()).map_err(|error| error.to_string())?;
    if theirs.state != MountState::Online {
        return Err(format!("its mount is {}", theirs.state));
    }
    let mut knows_us = false;
    for said in &theirs.members {
        let said = member(said).map_err(|problem| problem.message)?;
        knows_us |= said.machine == config.table.us && said.log_ids.contains(&presence.log_id);
    }
    if !knows_us {
        return Err("it does not know our new log yet".to_owned());
    }
    Ok(Event::Introduced(to, theirs.coverage))
}

/// Compares all digests; what differs is copied. What is being edited differs for as long as it takes to come.
async fn compare(
    config: &RecoveryConfig,
    with: MachineId,
    progress: &Progress,
) -> Result<Event, String> {
    let source = peer(config, with)?;
    let plan = Plan { patience: PATIENCE, ..plan(config, vec![source]) };
    let (mut quiet, mut last) = (0, Pulled::default());
    for _ in 0..COMPARISONS_MAX {
        last = pull(&config.table, &plan, progress).await?;
        // Nothing of it was missing here: but for what the two are just being told.
        quiet = if last.taken == 0 && last.archived == 0 { quiet + 1 } else { 0 };
        if (quiet > 0 && last.different == 0) || quiet >= QUIET {
            break;
        }
        tokio::time::sleep(COMPARISON_PAUSE).await;
    }
    if quiet == 0 {
        return Ok(Event::Different(with));
    }
    let digest = data_encoding::HEXLOWER.encode(&last.fingerprint);
    Ok(Event::Same(Proof { with, objects: last.objects, digest, busy: last.different }))
}
