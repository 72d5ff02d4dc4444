//! Who mirrors us: learns of members, has them called, joins their syncgroup.
//!
//! Invariants
//! - A member once known is dropped by `forget` only; what trackers say adds members, and it and what
//!   the members say themselves moves addresses.
//! - A new mount waits for the word of a tracker, at most for a bounded time; then it takes changes only when every
//!   member that can be reached has it in its label. A mount that joined once needs nobody for that.
//! - A mount that too few members have takes no new objects ([`growth`]); that is judged at every look.
//! - With all trackers down the members in the labels are called: nothing here needs a tracker after the birth.

use crate::actors::binlog::Meet;
use crate::actors::caller::Identity;
use crate::actors::disk_recovery::{DiskRecovery, Limits, RecoveryConfig};
use crate::actors::mount_mirror::Meeting;
use crate::actors::peers::{Peer, PeerMount, PeerTable, SyncState};
use crate::actors::reporter::{Registration, ReportNow, Reporter, ReporterStatus};
use crate::actors::shared_mount::SharedMount;
use crate::actors::state_pull::pulls::mend;
use crate::actors::storage_room::StorageRoom;
use crate::actors::sync_peer::{Mender, StopSync, SyncConfig, SyncPeer};
use crate::cluster::acks::{AckPolicy, Wanted};
use crate::cluster::growth;
use crate::format::ids::{MachineId, MountIndex};
use crate::format::members::Member;
use crate::settings::{Acks, DurabilitySettings, StorageSettings, WhenAlone};
use actix::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often members are looked at while a mount has not joined.
const LOOK_JOINING: Duration = Duration::from_millis(20);
/// How often afterwards.
const LOOK: Duration = Duration::from_millis(250);
/// How long a start waits for mirrors to say that we have all of theirs.
const HELD_LIVE_LIMIT_MS: u64 = 10_000;

/// What an acknowledgement asks for, in the words of the decision.
#[must_use]
pub const fn policy(settings: &DurabilitySettings) -> AckPolicy {
    AckPolicy {
        wanted: match settings.acks {
            Acks::Local => Wanted::Local,
            Acks::Mirror => Wanted::Mirror,
            Acks::All => Wanted::All,
        },
        refuse_alone: matches!(settings.when_alone, WhenAlone::Refuse),
    }
}

/// The running lines to mirrors.
pub struct Mirrors {
    room: Arc<StorageRoom>,
    actors: Mutex<BTreeMap<MachineId, Addr<SyncPeer>>>,
    recoveries: BTreeMap<MountIndex, Addr<DiskRecovery>>,
    limits: Arc<Limits>,
    ready: watch::Sender<bool>,
    joined: watch::Sender<bool>,
}

impl Mirrors {
    /// Waits until all mounts have joined and every mirror that can be reached is caught up.
    pub async fn ready(&self) {
        let mut ready = self.ready.subscribe();
        if ready.wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until all mounts that serve have joined.
    pub async fn joined(&self) {
        let mut joined = self.joined.subscribe();
        if joined.wait_for(|joined| *joined).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Who refills a mount, when it has to be.
    pub fn recovery(&self, mount: MountIndex) -> Option<&Addr<DiskRecovery>> {
        self.recoveries.get(&mount)
    }

    /// How fast mounts are refilled.
    pub const fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Ends all lines.
    pub async fn stop(&self) {
        let actors =
            std::mem::take(&mut *self.actors.lock().unwrap_or_else(PoisonError::into_inner));
        for actor in actors.into_values() {
            // One that is gone has stopped.
            actor.send(StopSync).await.unwrap_or_default();
        }
    }

    /// The line to a machine, which is to end.
    fn take(&self, machine: MachineId) -> Option<Addr<SyncPeer>> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner).remove(&machine)
    }

    /// Whether nothing is left to wait for.
    fn is_ready(&self) -> bool {
        let table = &self.room.peers;
        let mut mounts = self.room.placement.mounts().iter().filter(|mount| mount.is_online());
        let waited = table.clock.now_ms() > HELD_LIVE_LIMIT_MS;
        let done = |mount: &PeerMount| match mount.state() {
            SyncState::Disconnected => !mount.error().is_empty(),
            SyncState::Away | SyncState::NeedsState => true,
            SyncState::Handshake | SyncState::CatchingUp | SyncState::Live => {
                mount.was_live() && (mount.holds_us_live() || waited)
            }
        };
        // One that is refilled sends nothing.
        let sends = |index| self.room.placement.mount(index).is_ok_and(|mount| mount.is_online());
        mounts.all(|mount| mount.mirror.is_joined())
            && table.all().iter().all(|peer| {
                let mut fed = peer.mounts().filter(|(index, _)| sends(*index));
                peer.is_unreachable() || peer.is_connected() && fed.all(|(_, mount)| done(mount))
            })
    }
}

/// Learns of members and acts on it. On the control arbiter.
pub struct Overseer {
    sync: SyncConfig,
    limits: Arc<Limits>,
    room: Arc<StorageRoom>,
    reporters: Vec<(Addr<Reporter>, watch::Receiver<ReporterStatus>)>,
    net: Vec<ArbiterHandle>,
}

/// What is known of a machine that may be a member.
struct Candidate {
    address: String,
    instance: [u8; 16],
    /// A tracker names it: on these mounts, if it knows.
    by_tracker: Option<Vec<u8>>,
}

impl Overseer {
    /// Of the storage `room`.
    pub fn new(
        settings: &StorageSettings,
        room: &Arc<StorageRoom>,
        identity: Identity,
        reporters: &[(Addr<Reporter>, watch::Receiver<ReporterStatus>)],
        net: Vec<ArbiterHandle>,
    ) -> Self {
        let sync = SyncConfig {
            identity,
            names: (settings.group.clone(), settings.syncgroup.clone()),
            placement: Arc::clone(&room.placement),
            table: Arc::clone(&room.peers),
            window_bytes: settings.sync.window_bytes,
            retry_min: settings.sync.retry_min,
            retry_max: settings.sync.retry_max,
            compare_period: settings.sync.compare_period,
            mender: Some(mender(&room.peers)),
        };
        let recovery = &settings.recovery;
        let limits = Arc::new(Limits {
            bandwidth: Arc::new(recovery.bandwidth.unwrap_or(0).into()),
            streams: usize::from(recovery.streams).into(),
            base_wait: recovery.base_wait,
        });
        Self { sync, limits, room: Arc::clone(room), reporters: reporters.to_vec(), net }
    }

    /// Begins; ends with `stop`.
    pub fn start(
        self,
        control: &ArbiterHandle,
        found_after: Duration,
        stop: CancellationToken,
    ) -> Arc<Mirrors> {
        let mirrors = Arc::new(Mirrors {
            room: Arc::clone(&self.room),
            actors: Mutex::default(),
            recoveries: self.recoveries(),
            limits: Arc::clone(&self.limits),
            ready: watch::channel(false).0,
            joined: watch::channel(false).0,
        });
        let running = Arc::clone(&mirrors);
        control.spawn(async move {
            tokio::select! {
                () = self.run(&running, found_after) => {}
                () = stop.cancelled() => {}
            }
        });
        mirrors
    }

    /// Who looks after the mounts that are to be refilled: one for each mount, supervised.
    fn recoveries(&self) -> BTreeMap<MountIndex, Addr<DiskRecovery>> {
        let mut all = BTreeMap::new();
        for mount in self.room.placement.mounts() {
            let Some(net) = self.net.get(usize::from(mount.index) % self.net.len().max(1)) else {
                continue;
            };
            let config = RecoveryConfig {
                mount: Arc::clone(mount),
                table: Arc::clone(self.table()),
                limits: Arc::clone(&self.limits),
                names: self.sync.names.clone(),
            };
            let actor = Supervisor::start_in_arbiter(net, move |_| DiskRecovery::new(config));
            all.insert(mount.index, actor);
        }
        all
    }

    async fn run(&self, mirrors: &Mirrors, found_after: Duration) {
        let begun = self.table().clock.now_ms();
        loop {
            let candidates = self.candidates();
            self.part(mirrors).await;
            self.call(&candidates, mirrors);
            self.learn(&candidates).await;
            self.spread();
            let waited = self.table().clock.now_ms().saturating_sub(begun);
            let settled = u128::from(waited) >= found_after.as_millis() || self.has_view();
            let joining = self.join(settled).await;
            self.spread();
            mirrors
                .joined
                .send_if_modified(|joined| std::mem::replace(joined, !joining) == joining);
            if mirrors.is_ready() {
                mirrors.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
            }
            let ready = *mirrors.ready.borrow();
            tokio::time::sleep(if joining || !ready { LOOK_JOINING } else { LOOK }).await;
        }
    }

    fn table(&self) -> &Arc<PeerTable> {
        &self.room.peers
    }

    /// Whether a tracker has said who the members are, or there is none to ask.
    fn has_view(&self) -> bool {
        let registered = |status: &watch::Receiver<ReporterStatus>| {
            status.borrow().registration == Registration::Registered
        };
        self.reporters.is_empty() || self.reporters.iter().any(|(_, status)| registered(status))
    }

    /// Every other machine that is or may become a member.
    fn candidates(&self) -> BTreeMap<MachineId, Candidate> {
        let mut all = BTreeMap::new();
        for mount in self.room.placement.mounts() {
            for member in mount.mirror.members().borrow().iter() {
                let candidate = || Candidate {
                    address: member.address.clone(),
                    instance: member.instance,
                    by_tracker: None,
                };
                all.entry(member.machine).or_insert_with(candidate);
            }
        }
        for (_, status) in &self.reporters {
            let status = status.borrow();
            let (group, syncgroup) = &self.sync.names;
            for said in &status.members {
                let view = status.view.as_ref();
                let seen = view.and_then(|view| view.storage(group, syncgroup, said.machine));
                let mounts = seen.map(|storage| storage.mounts.iter().map(|m| m.index).collect());
                let candidate = Candidate {
                    address: said.address.clone(),
                    instance: said.instance.into_array(),
                    by_tracker: Some(mounts.unwrap_or_default()),
                };
                // The tracker has heard from it lately: it knows where it listens now.
                all.insert(said.machine, candidate);
            }
        }
        all.remove(&self.table().us);
        all.retain(|machine, candidate| !self.is_forgotten(*machine, candidate.instance));
        all.retain(|_, candidate| !candidate.address.is_empty());
        all
    }

    /// Whether a storage was removed for good, and has not come back blank.
    fn is_forgotten(&self, machine: MachineId, instance: [u8; 16]) -> bool {
        self.room.placement.mounts().iter().any(|mount| {
            let mirror = &mount.mirror;
            mirror
                .forgotten()
                .iter()
                .any(|gone| (gone.machine, gone.instance) == (machine, instance))
                && !mirror.members().borrow().iter().any(|member| member.machine == machine)
        })
    }

    /// Ends the lines to those who were removed.
    async fn part(&self, mirrors: &Mirrors) {
        let members = |machine| {
            let mut mounts = self.room.placement.mounts().iter();
            mounts.any(|m| m.mirror.members().borrow().iter().any(|m| m.machine == machine))
        };
        let gone = |machine: MachineId| {
            let mut mounts = self.room.placement.mounts().iter();
            mounts.any(|mount| mount.mirror.forgotten().iter().any(|gone| gone.machine == machine))
                && !members(machine)
        };
        for peer in self.table().all().into_iter().filter(|peer| gone(peer.machine)) {
            self.table().remove(peer.machine);
            let actor = mirrors.take(peer.machine);
            if let Some(actor) = actor {
                // One that is gone has stopped.
                actor.send(StopSync).await.unwrap_or_default();
            }
        }
    }

    /// Has everybody called who is known.
    fn call(&self, candidates: &BTreeMap<MachineId, Candidate>, mirrors: &Mirrors) {
        for (machine, candidate) in candidates {
            if let Some(known) = self.table().get(*machine) {
                known.move_to(&candidate.address);
                continue;
            }
            let address = candidate.address.clone();
            let peer = Arc::new(Peer::new(*machine, address, &self.room.placement));
            self.table().add(Arc::clone(&peer));
            let Some(net) = self.net.get(usize::from(*machine) % self.net.len().max(1)) else {
                continue;
            };
            let config = self.sync.clone();
            let actor = SyncPeer::start_in_arbiter(net, move |_| SyncPeer::new(peer, config));
            let mut actors = mirrors.actors.lock().unwrap_or_else(PoisonError::into_inner);
            actors.insert(*machine, actor);
        }
    }

    /// Members that only a tracker knows go into the labels: what they do not have yet is missing there.
    async fn learn(&self, candidates: &BTreeMap<MachineId, Candidate>) {
        for mount in self.room.placement.mounts().iter().filter(|mount| mount.is_online()) {
            let known = Arc::clone(&mount.mirror.members().borrow());
            let new = candidates.iter().filter(|(machine, candidate)| {
                let here = candidate.by_tracker.as_ref();
                here.is_some_and(|mounts| mounts.contains(&mount.index))
                    && !known.iter().any(|member| member.machine == **machine)
            });
            let others: Vec<Member> = new
                .map(|(machine, candidate)| Member {
                    machine: *machine,
                    address: candidate.address.clone(),
                    mount_uuid: [0; 16],
                    instance: candidate.instance,
                    log_ids: Vec::new(),
                })
                .collect();
            if !others.is_empty() {
                meet(mount, Meeting { others, ..Meeting::default() }).await;
            }
        }
    }

    /// Says of every mount whether enough members have it.
    fn spread(&self) {
        let us = self.table().us;
        let mounts = self.room.placement.mounts();
        let have = |mount: &SharedMount| -> BTreeSet<MachineId> {
            mount.mirror.members().borrow().iter().map(|member| member.machine).collect()
        };
        let syncgroup: BTreeSet<MachineId> = mounts.iter().flat_map(|mount| have(mount)).collect();
        let mut news = false;
        for mount in mounts.iter().filter(|mount| mount.is_online()) {
            let wanted = mount.mirror.policy.wanted;
            let spread = growth::spread(wanted, us, &have(mount), &syncgroup);
            let why = spread.why();
            if mount.mirror.publish_spread(spread) {
                news = true;
                if why.is_empty() {
                    tracing::info!(mount = mount.index, "enough members have it: it takes puts");
                } else {
                    tracing::warn!(mount = mount.index, why, "it takes no new objects");
                }
            }
        }
        if news {
            self.report_now();
        }
    }

    /// Trackers send us puts as soon as they know.
    fn report_now(&self) {
        for (reporter, _) in &self.reporters {
            reporter.do_send(ReportNow);
        }
    }

    /// Joins where everybody who can be reached knows us. Whether a mount is still joining.
    async fn join(&self, settled: bool) -> bool {
        let (mut joining, mut joined) = (false, false);
        for mount in self.room.placement.mounts().iter().filter(|mount| mount.is_online()) {
            if mount.mirror.is_joined() {
                continue;
            }
            if settled && self.is_known(mount) {
                meet(mount, Meeting { join: true, ..Meeting::default() }).await;
            }
            joined |= mount.mirror.is_joined();
            joining |= !mount.mirror.is_joined();
        }
        if joined {
            self.report_now();
        }
        joining
    }

    /// Whether every member that can be reached has the mount in its label.
    fn is_known(&self, mount: &SharedMount) -> bool {
        let members = Arc::clone(&mount.mirror.members().borrow());
        let us = self.table().us;
        members.iter().filter(|member| member.machine != us).all(|member| {
            let Some(peer) = self.table().get(member.machine) else { return false };
            let Some(there) = peer.mount(mount.index) else { return false };
            peer.is_unreachable()
                || there.is_introduced()
                || matches!(there.state(), SyncState::Away)
                || (there.state() == SyncState::Disconnected && !there.error().is_empty())
        })
    }
}

/// What no log holds any more is brought by state.
fn mender(table: &Arc<PeerTable>) -> Mender {
    let table = Arc::clone(table);
    Arc::new(move |need| {
        let table = Arc::clone(&table);
        Box::pin(async move { mend(&table, need).await })
    })
}

async fn meet(mount: &SharedMount, meeting: Meeting) {
    let Some(binlog) = mount.registry.binlog() else { return };
    // What fails here is tried again; the mount itself says what is wrong with it.
    if let Ok(Err(problem)) = binlog.send(Meet(meeting)).await {
        tracing::debug!(mount = mount.index, %problem, "members");
    }
}
