//! The tracker's node table and its judgement of who is alive.
//!
//! Takes heartbeats, publishes the cluster view. The decisions are [`crate::cluster::nodes`]; this actor brings the
//! clock and the timer.
//!
//! Invariants
//! - What changes routing (a join, a state, a mount that fails or fills) is published with the heartbeat that shows it;
//!   mere free space and load with the next tick, so that N storages cost N and not N x N.
//! - The tick is far shorter than any bound of the configuration: silence is noticed within [`TICK`].
//! - Time in which this tracker itself stood still (a paused machine) counts against nobody: else one hiccup of a tracker
//!   would put the whole cluster out of service for `readmit_after`.
//! - A duplicate machine id is an error in the log when it is first seen, and stands in `nodes` and `status` while it
//!   goes on.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use arc_swap::ArcSwap;
use bytes::Bytes;

use super::ambient::{self, Monotonic};
use crate::cluster::alike::clock_ahead;
use crate::cluster::liveness::LivenessConfig;
use crate::cluster::nodes::{Admitted, Duplicate, Nodes, Refused};
use crate::cluster::view::{ClusterView, Service, State, StorageReport};
use crate::format::ids::MachineId;
use crate::messages::heads::{HeadError, encode_map};

/// How often silence is looked for.
pub const TICK: Duration = Duration::from_millis(TICK_MS);
const TICK_MS: u64 = 100;

/// A view with its encoding, made once for all who ask.
#[derive(Debug)]
pub struct Published {
    /// The view.
    pub view: ClusterView,
    /// The same as a MessagePack map.
    pub encoded: Bytes,
}

impl Published {
    /// Encodes a view.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn new(view: ClusterView) -> Result<Self, HeadError> {
        let encoded = encode_map(&view)?.into();
        Ok(Self { view, encoded })
    }
}

/// Where the last published view is found.
pub type Publication = Arc<ArcSwap<Published>>;

/// Owns the node table.
pub struct Heartbeat {
    nodes: Nodes,
    config: LivenessConfig,
    clock: Monotonic,
    publication: Publication,
    /// Something was reported since the last publication.
    stale: bool,
    /// When this actor last did anything: it ticks, so a long pause is its own.
    awake_ms: u64,
}

impl Heartbeat {
    /// An empty table; `publication` holds the first, empty view.
    #[must_use]
    pub fn new(config: LivenessConfig, publication: Publication) -> Self {
        let (nodes, clock) = (Nodes::new(), Monotonic::start());
        Self { nodes, config, clock, publication, stale: false, awake_ms: 0 }
    }

    /// The time; if this actor has slept for longer than half of `suspect_after`, that is made good first.
    fn now_ms(&mut self) -> u64 {
        let now_ms = self.clock.now_ms();
        let slept_ms = now_ms.saturating_sub(self.awake_ms);
        self.awake_ms = now_ms;
        if slept_ms > self.config.suspect_after_ms / 2 && slept_ms > 4 * TICK_MS {
            tracing::warn!(
                slept_ms,
                "this tracker stood still; the storages are not blamed for it"
            );
            self.nodes.excuse(slept_ms);
        }
        now_ms
    }

    fn publish(&mut self, now_ms: u64) {
        let before = self.publication.load_full();
        let view = self.nodes.view(now_ms, &self.config, &before.view);
        log_changes(&before.view, &view);
        match Published::new(view) {
            Ok(published) => self.publication.store(Arc::new(published)),
            // The old view stands; storages and mounts are bounded, so this says that something is very wrong.
            Err(error) => tracing::error!(%error, "the cluster view cannot be published"),
        }
        self.stale = false;
    }

    /// Publishes if time or reports have changed anything.
    fn tick(&mut self) {
        let now_ms = self.now_ms();
        let judged = self.nodes.iter(now_ms, &self.config).any(|(node, state)| {
            let report = &node.report;
            let before = self.publication.load();
            let known = before.view.storage(&report.group, &report.syncgroup, report.machine);
            known.is_none_or(|storage| storage.state != state)
        });
        if judged || self.stale {
            self.publish(now_ms);
        }
    }

    /// Whether the published view says the same about this storage as far as routing goes.
    fn is_published(&self, report: &StorageReport) -> bool {
        let publication = self.publication.load();
        let known = publication.view.storage(&report.group, &report.syncgroup, report.machine);
        known.is_some_and(|storage| {
            storage.instance == report.instance
                && storage.advertise == report.advertise
                && storage.weight == report.weight
                && (storage.state, report.service) == (State::Online, Service::Serving)
                && storage.mounts.len() == report.mounts.len()
                && storage
                    .mounts
                    .iter()
                    .zip(&report.mounts)
                    .all(|(a, b)| (a.index, a.state, a.writable) == (b.index, b.state, b.writable))
        })
    }
}

impl Actor for Heartbeat {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(TICK, |actor, _| actor.tick());
    }
}

/// A storage reported.
#[derive(Message)]
#[rtype(result = "Result<Taken, Refused>")]
pub struct Beat(pub StorageReport);

/// What a report led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Epoch of the view with the report in it.
    pub epoch: u64,
}

impl Handler<Beat> for Heartbeat {
    type Result = Result<Taken, Refused>;

    fn handle(&mut self, Beat(report): Beat, _: &mut Context<Self>) -> Self::Result {
        let news = !self.is_published(&report);
        let name = format!("{}/{}/{}", report.group, report.syncgroup, report.machine);
        let address = report.advertise.clone();
        let now_ms = self.now_ms();
        let clock_ahead_ms = clock_ahead(ambient::wall_ms(), report.clock_ms);
        let (group, machine) = (report.group.clone(), report.machine);
        match self.nodes.beat(now_ms, report, &self.config) {
            Ok(Admitted::Known) => {}
            Ok(Admitted::Joined) => tracing::info!(storage = name, address, "joined"),
            Ok(Admitted::Replaced) => {
                tracing::warn!(storage = name, address, "another machine took this machine id");
            }
            Err(refused) => {
                log_refusal(&name, &address, &refused);
                return Err(refused);
            }
        }
        self.nodes.note_clock(&group, machine, clock_ahead_ms);
        self.stale = true;
        if news {
            self.publish(now_ms);
        }
        Ok(Taken { epoch: self.publication.load().view.epoch })
    }
}

/// Storages that their syncgroup has removed for good.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Forgotten {
    /// Group and syncgroup of whoever says so.
    pub names: (String, String),
    /// Machine and instance of each.
    pub storages: Vec<(MachineId, [u8; 16])>,
}

impl Handler<Forgotten> for Heartbeat {
    type Result = ();

    fn handle(&mut self, Forgotten { names, storages }: Forgotten, _: &mut Context<Self>) {
        let now_ms = self.now_ms();
        let (group, syncgroup) = (names.0.as_str(), names.1.as_str());
        for (machine, instance) in storages {
            let storage = (machine, instance);
            if self.nodes.forget(now_ms, (group, syncgroup), storage, &self.config) {
                tracing::info!(group, syncgroup, machine, "removed from its syncgroup, forgotten");
                self.publish(now_ms);
            }
        }
    }
}

/// The table, for the console.
#[derive(Message)]
#[rtype(result = "Table")]
pub struct ShowTable;

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What the storage reported last.
    pub report: StorageReport,
    /// The judgement.
    pub state: State,
    /// For how long nothing was heard, milliseconds.
    pub silence_ms: u64,
    /// By how much its clock is ahead of ours, milliseconds.
    pub clock_ahead_ms: i64,
}

/// Nodes and duplicates.
#[derive(Clone, Debug, Default, MessageResponse)]
pub struct Table {
    /// In order of group and machine id.
    pub rows: Vec<Row>,
    /// Refused machines, with the time since their last attempt in milliseconds.
    pub duplicates: Vec<(Duplicate, u64)>,
}

impl Handler<ShowTable> for Heartbeat {
    type Result = Table;

    fn handle(&mut self, _: ShowTable, _: &mut Context<Self>) -> Table {
        let now_ms = self.now_ms();
        let row = |(node, state): (&crate::cluster::nodes::Node, State)| Row {
            report: node.report.clone(),
            state,
            silence_ms: node.liveness.silence_ms(now_ms),
            clock_ahead_ms: node.clock_ahead_ms,
        };
        Table {
            rows: self.nodes.iter(now_ms, &self.config).map(row).collect(),
            duplicates: self
                .nodes
                .duplicates(now_ms)
                .map(|d| (d.clone(), now_ms.saturating_sub(d.last_ms)))
                .collect(),
        }
    }
}

fn log_refusal(name: &str, address: &str, refused: &Refused) {
    match refused {
        Refused::DuplicateMachineId { first: true, .. } => {
            tracing::error!(storage = name, address, "REFUSED: {refused}");
        }
        Refused::DuplicateMachineId { first: false, .. } => {
            tracing::debug!(storage = name, address, "still refused: {refused}");
        }
        Refused::Bad(_) | Refused::TableFull => {
            tracing::warn!(storage = name, address, "refused: {refused}");
        }
    }
}

/// One line for each storage whose state changed.
fn log_changes(before: &ClusterView, after: &ClusterView) {
    for (group, syncgroup, storage) in after.storages() {
        let Some(old) = before.storage(group, syncgroup, storage.machine) else { continue };
        if old.state == storage.state {
            continue;
        }
        let (from, to) = (old.state, storage.state);
        let name = format!("{group}/{syncgroup}/{}", storage.machine);
        match to {
            State::Suspect | State::Offline => {
                tracing::warn!(storage = name, address = storage.advertise, "{from} -> {to}");
            }
            State::Joining
            | State::Online
            | State::Recovering
            | State::ReadOnly
            | State::Draining => {
                tracing::info!(storage = name, address = storage.advertise, "{from} -> {to}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::{Load, MountState, MountView, PutPolicy};

    fn report(machine: u16, instance: u8) -> StorageReport {
        StorageReport {
            group: "books".into(),
            syncgroup: "a".into(),
            machine,
            instance: [instance; 16],
            advertise: format!("10.0.0.{instance}:1"),
            admin: String::new(),
            version: "1".into(),
            weight: 1,
            service: Service::Serving,
            mounts: vec![MountView {
                index: 0,
                state: MountState::Online,
                total: 100,
                free: 90,
                reserved: 10,
                writable: true,
                reason: String::new(),
            }],
            load: Load::default(),
            clock_ms: 0,
        }
    }

    fn start() -> (Addr<Heartbeat>, Publication) {
        let view = ClusterView::empty([1; 16], PutPolicy::RoundRobin);
        let published = Published::new(view).expect("an empty view");
        let publication = Arc::new(ArcSwap::from_pointee(published));
        let config = LivenessConfig::default();
        (Heartbeat::new(config, Arc::clone(&publication)).start(), publication)
    }

    fn state(publication: &Publication, machine: u16) -> Option<State> {
        publication.load().view.storage("books", "a", machine).map(|s| s.state)
    }

    #[actix_rt::test]
    async fn a_dead_storage_leaves_the_view_without_anybody_asking() {
        tokio::time::pause();
        let (heartbeat, publication) = start();
        let taken = heartbeat.send(Beat(report(1, 1))).await.expect("alive").expect("taken");
        assert_eq!(taken.epoch, 1);
        assert_eq!(state(&publication, 1), Some(State::Online));
        tokio::time::sleep(Duration::from_millis(2_900)).await;
        assert_eq!(state(&publication, 1), Some(State::Online));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(state(&publication, 1), Some(State::Suspect));
        tokio::time::sleep(Duration::from_millis(2_000)).await;
        assert_eq!(state(&publication, 1), Some(State::Offline));
        let decoded: ClusterView =
            crate::messages::heads::decode(&publication.load().encoded).expect("as published");
        assert_eq!(decoded, publication.load().view);
    }

    #[actix_rt::test]
    async fn a_tracker_that_was_paused_does_not_put_the_cluster_out_of_service() {
        tokio::time::pause();
        let (heartbeat, publication) = start();
        let _ = heartbeat.send(Beat(report(1, 1))).await.expect("alive");
        // One step of the clock, without a tick in between: the whole process stood still.
        tokio::time::advance(Duration::from_secs(60)).await;
        let _ = heartbeat.send(Beat(report(1, 1))).await.expect("alive");
        assert_eq!(state(&publication, 1), Some(State::Online));
        tokio::time::sleep(Duration::from_millis(5_200)).await;
        assert_eq!(state(&publication, 1), Some(State::Offline), "and the dead are still found");
    }

    #[actix_rt::test]
    async fn a_mount_that_fails_is_published_with_the_beat_that_says_it() {
        tokio::time::pause();
        let (heartbeat, publication) = start();
        let _ = heartbeat.send(Beat(report(1, 1))).await.expect("alive");
        let mut failed = report(1, 1);
        failed.mounts[0].state = MountState::Failed;
        let taken = heartbeat.send(Beat(failed)).await.expect("alive").expect("taken");
        assert_eq!(taken.epoch, 2);
        let view = publication.load();
        let mount = view.view.storage("books", "a", 1).and_then(|s| s.mount(0)).map(|m| m.state);
        assert_eq!(mount, Some(MountState::Failed));
    }

    #[actix_rt::test]
    async fn free_space_is_published_with_the_next_tick() {
        tokio::time::pause();
        let (heartbeat, publication) = start();
        let _ = heartbeat.send(Beat(report(1, 1))).await.expect("alive");
        let mut filled = report(1, 1);
        filled.mounts[0].free = 11;
        let _ = heartbeat.send(Beat(filled)).await.expect("alive");
        let free = || publication.load().view.storage("books", "a", 1).map(|s| s.mounts[0].free);
        assert_eq!(free(), Some(90));
        tokio::time::sleep(TICK * 2).await;
        assert_eq!(free(), Some(11));
    }

    #[actix_rt::test]
    async fn a_duplicate_is_refused_and_shown() {
        tokio::time::pause();
        let (heartbeat, publication) = start();
        let _ = heartbeat.send(Beat(report(1, 1))).await.expect("alive");
        let refused = heartbeat.send(Beat(report(1, 2))).await.expect("alive");
        assert!(matches!(refused, Err(Refused::DuplicateMachineId { .. })));
        let table = heartbeat.send(ShowTable).await.expect("alive");
        assert_eq!((table.rows.len(), table.duplicates.len()), (1, 1));
        assert_eq!(publication.load().view.storages().count(), 1);
    }
}
