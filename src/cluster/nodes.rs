//! The tracker's node table: who may join, who is refused, and the view made from it. Pure; `now_ms` is monotonic.
//!
//! Invariants
//! - (group, machine id) names one node. A second machine with the same pair and another instance uuid is refused
//!   while the earlier one's last heartbeat is fresher than `offline_after`; after that it takes the place, as a new
//!   machine does: at once. The refused one is remembered for [`DUPLICATE_SHOWN_MS`], so that it can be shown.
//! - At most [`NODES_MAX`] nodes and as many duplicates: the longest silent offline node gives way, no other (P7).
//! - Nodes that are offline are kept, so that an answer can name who is down; but one that comes under another group (a
//!   typing error was mended) is not kept under the former one.

use std::collections::BTreeMap;

use super::liveness::{Liveness, LivenessConfig};
use super::view::{BadReport, ClusterView, Instance, PutPolicy, State, StorageReport, StorageView};
use crate::format::ids::MachineId;

/// Most nodes that a tracker remembers.
pub const NODES_MAX: usize = 16_384;
/// How long after its last attempt a refused machine is shown.
pub const DUPLICATE_SHOWN_MS: u64 = 60_000;

type Key = (String, MachineId);

/// One accepted storage.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its last report.
    pub report: StorageReport,
    /// What its beats have shown.
    pub liveness: Liveness,
    /// By how much its clock was ahead of the tracker's, milliseconds, see [`alike`](super::alike).
    pub clock_ahead_ms: i64,
}

impl Node {
    fn first(report: StorageReport, now_ms: u64) -> Self {
        Self { report, liveness: Liveness::first(now_ms), clock_ahead_ms: 0 }
    }
}

/// A machine that was refused because its id is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// Group and machine id that it wants.
    pub group: String,
    /// Machine id that it wants.
    pub machine: MachineId,
    /// Its instance uuid.
    pub instance: Instance,
    /// Where it would serve.
    pub advertise: String,
    /// Where the holder of the id serves.
    pub held_by: String,
    /// When it last tried.
    pub last_ms: u64,
    /// How often.
    pub attempts: u64,
}

/// What a heartbeat did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The first of this machine.
    Joined,
    /// A machine with another instance uuid took the place of one that is offline.
    Replaced,
    /// One more.
    Known,
}

/// Why a heartbeat was refused. The text goes to the storage, which logs it and keeps trying.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The loud one.
    #[error(
        "duplicate machine id: {group}/{machine} is in use by the storage at {held_by}, heard {heard_ms} ms ago; give \
         one of the two another machine_id, or stop the other if this machine replaces it"
    )]
    DuplicateMachineId {
        /// Group.
        group: String,
        /// Machine id.
        machine: MachineId,
        /// Address of the holder.
        held_by: String,
        /// How fresh its heartbeat is.
        heard_ms: u64,
        /// Whether this machine is refused for the first time (log it loudly then).
        first: bool,
    },
    /// Out of bounds.
    #[error(transparent)]
    Bad(#[from] BadReport),
    /// [`NODES_MAX`] nodes are in use.
    #[error("the tracker's node table is full ({NODES_MAX} nodes that are up)")]
    TableFull,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    nodes: BTreeMap<Key, Node>,
    duplicates: BTreeMap<(Key, Instance), Duplicate>,
}

impl Nodes {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self { nodes: BTreeMap::new(), duplicates: BTreeMap::new() }
    }

    /// Takes one heartbeat.
    pub fn beat(
        &mut self,
        now_ms: u64,
        report: StorageReport,
        config: &LivenessConfig,
    ) -> Result<Admitted, Refused> {
        report.validate()?;
        let key = (report.group.clone(), report.machine);
        let Some(node) = self.nodes.get_mut(&key) else {
            self.make_room(now_ms, config)?;
            self.moved(now_ms, &report, config);
            self.nodes.insert(key, Node::first(report, now_ms));
            return Ok(Admitted::Joined);
        };
        if node.report.instance == report.instance {
            node.liveness.beat(now_ms, config);
            node.report = report;
            return Ok(Admitted::Known);
        }
        let heard_ms = node.liveness.silence_ms(now_ms);
        if heard_ms >= config.offline_after_ms {
            self.duplicates.remove(&(key, report.instance));
            *node = Node::first(report, now_ms);
            return Ok(Admitted::Replaced);
        }
        let held_by = node.report.advertise.clone();
        let first = self.note_duplicate(now_ms, key, &report, held_by.clone());
        let StorageReport { group, machine, .. } = report;
        Err(Refused::DuplicateMachineId { group, machine, held_by, heard_ms, first })
    }

    /// How a storage's clock stands.
    pub fn note_clock(&mut self, group: &str, machine: MachineId, ahead_ms: i64) {
        if let Some(node) = self.nodes.get_mut(&(group.to_owned(), machine)) {
            node.clock_ahead_ms = ahead_ms;
        }
    }

    /// Its syncgroup has removed a storage for good: it is shown no more, once it is silent. Whether that is news.
    pub fn forget(
        &mut self,
        now_ms: u64,
        (group, syncgroup): (&str, &str),
        (machine, instance): (MachineId, Instance),
        config: &LivenessConfig,
    ) -> bool {
        let key = (group.to_owned(), machine);
        let gone = self.nodes.get(&key).is_some_and(|node| {
            node.report.syncgroup == syncgroup
                && node.report.instance == instance
                && node.liveness.silence_ms(now_ms) >= config.offline_after_ms
        });
        gone && self.nodes.remove(&key).is_some()
    }

    /// The tracker itself stood still for `stall_ms` (a paused machine, an overloaded one): nobody is blamed for it.
    pub fn excuse(&mut self, stall_ms: u64) {
        for node in self.nodes.values_mut() {
            node.liveness.excuse(stall_ms);
        }
    }

    /// Remembers a refused machine; whether it is news.
    fn note_duplicate(
        &mut self,
        now_ms: u64,
        key: Key,
        report: &StorageReport,
        held_by: String,
    ) -> bool {
        self.duplicates.retain(|_, d| now_ms.saturating_sub(d.last_ms) < DUPLICATE_SHOWN_MS);
        if self.duplicates.len() >= NODES_MAX {
            return false;
        }
        let duplicate =
            self.duplicates.entry((key, report.instance)).or_insert_with(|| Duplicate {
                group: report.group.clone(),
                machine: report.machine,
                instance: report.instance,
                advertise: report.advertise.clone(),
                held_by: String::new(),
                last_ms: now_ms,
                attempts: 0,
            });
        duplicate.held_by = held_by;
        duplicate.last_ms = now_ms;
        duplicate.attempts += 1;
        duplicate.attempts == 1
    }

    /// Whoever joins was perhaps here under another name: at the same address it cannot still be that one.
    fn moved(&mut self, now_ms: u64, joins: &StorageReport, config: &LivenessConfig) {
        self.nodes.retain(|_, node| {
            let silent = node.liveness.silence_ms(now_ms) >= config.offline_after_ms;
            let there = node.report.advertise == joins.advertise;
            let same =
                (node.report.instance, node.report.machine) == (joins.instance, joins.machine);
            !(same && (silent || there))
        });
    }

    fn make_room(&mut self, now_ms: u64, config: &LivenessConfig) -> Result<(), Refused> {
        if self.nodes.len() < NODES_MAX {
            return Ok(());
        }
        let silent = self
            .nodes
            .iter()
            .max_by_key(|(_, node)| node.liveness.silence_ms(now_ms))
            .filter(|(_, node)| node.liveness.silence_ms(now_ms) >= config.offline_after_ms)
            .map(|(key, _)| key.clone());
        match silent {
            Some(key) => {
                self.nodes.remove(&key);
                Ok(())
            }
            None => Err(Refused::TableFull),
        }
    }

    /// Every node with its state now, in order of group and machine id.
    pub fn iter<'a>(
        &'a self,
        now_ms: u64,
        config: &'a LivenessConfig,
    ) -> impl Iterator<Item = (&'a Node, State)> {
        self.nodes
            .values()
            .map(move |node| (node, node.liveness.state(now_ms, node.report.service, config)))
    }

    /// The refused machines that tried within [`DUPLICATE_SHOWN_MS`].
    pub fn duplicates(&self, now_ms: u64) -> impl Iterator<Item = &Duplicate> {
        self.duplicates
            .values()
            .filter(move |d| now_ms.saturating_sub(d.last_ms) < DUPLICATE_SHOWN_MS)
    }

    /// The view as of now. The epoch is `before`'s, raised by one if the two would route differently.
    #[must_use]
    pub fn view(&self, now_ms: u64, config: &LivenessConfig, before: &ClusterView) -> ClusterView {
        let mut view = ClusterView::empty(before.tracker, before.put_policy);
        for (node, state) in self.iter(now_ms, config) {
            let report = &node.report;
            let group = view.groups.entry(report.group.clone()).or_default();
            let syncgroup = group.syncgroups.entry(report.syncgroup.clone()).or_default();
            syncgroup.storages.insert(report.machine, storage_view(report, state));
        }
        view.epoch = before.epoch + u64::from(!view.routes_alike(before));
        view
    }

    /// When any judgement can next change without a beat.
    #[must_use]
    pub fn next_change_ms(&self, now_ms: u64, config: &LivenessConfig) -> Option<u64> {
        self.nodes.values().filter_map(|n| n.liveness.next_change_ms(now_ms, config)).min()
    }

    /// The view of a tracker that has just started.
    #[must_use]
    pub const fn first_view(tracker: Instance, put_policy: PutPolicy) -> ClusterView {
        ClusterView::empty(tracker, put_policy)
    }
}

fn storage_view(report: &StorageReport, state: State) -> StorageView {
    StorageView {
        machine: report.machine,
        instance: report.instance,
        advertise: report.advertise.clone(),
        admin: report.admin.clone(),
        state,
        weight: report.weight,
        version: report.version.clone(),
        mounts: report.mounts.clone(),
        load: report.load,
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::{Load, MountState, MountView, Service};
    use super::*;

    const CONFIG: LivenessConfig = LivenessConfig {
        suspect_after_ms: 3_000,
        offline_after_ms: 5_000,
        readmit_after_ms: 5_000,
    };

    fn report(machine: MachineId, instance: u8) -> StorageReport {
        StorageReport {
            group: "books".into(),
            syncgroup: "a".into(),
            machine,
            instance: [instance; 16],
            advertise: format!("10.0.0.{instance}:7411"),
            admin: String::new(),
            version: "0.1.0".into(),
            weight: 1,
            service: Service::Serving,
            mounts: vec![MountView {
                index: 0,
                state: MountState::Online,
                total: 100,
                free: 50,
                reserved: 10,
                writable: true,
                reason: String::new(),
            }],
            load: Load::default(),
            clock_ms: 0,
        }
    }

    #[test]
    fn no_storage_is_kept_under_a_group_that_it_was_given_by_mistake() {
        let mut nodes = Nodes::new();
        let mistaken = StorageReport { group: "boooks".into(), ..report(1, 1) };
        nodes.beat(0, mistaken.clone(), &CONFIG).unwrap();
        assert_eq!(nodes.beat(1_000, report(1, 1), &CONFIG), Ok(Admitted::Joined));
        let groups = |nodes: &Nodes, now| -> Vec<String> {
            nodes.iter(now, &CONFIG).map(|(node, _)| node.report.group.clone()).collect()
        };
        assert_eq!(groups(&nodes, 1_000), ["books"]);
        // A copy of a state folder elsewhere takes nobody's place, unless that one is silent.
        let copy = StorageReport { advertise: "10.0.0.9:7411".into(), ..mistaken };
        nodes.beat(2_000, copy.clone(), &CONFIG).unwrap();
        assert_eq!(groups(&nodes, 2_000), ["books", "boooks"]);
        let elsewhere = StorageReport { group: "papers".into(), ..copy };
        nodes.beat(2_000 + CONFIG.offline_after_ms, elsewhere, &CONFIG).unwrap();
        assert_eq!(groups(&nodes, 7_000), ["papers"]);
    }

    #[test]
    fn a_second_machine_with_the_same_id_is_refused_loudly_until_the_first_is_offline() {
        let mut nodes = Nodes::new();
        assert_eq!(nodes.beat(0, report(1, 1), &CONFIG), Ok(Admitted::Joined));
        for (now, first) in [(1_000, true), (4_999, false)] {
            match nodes.beat(now, report(1, 2), &CONFIG) {
                Err(Refused::DuplicateMachineId { held_by, first: news, .. }) => {
                    assert_eq!(held_by, "10.0.0.1:7411");
                    assert_eq!(news, first);
                }
                other => panic!("{other:?}"),
            }
        }
        let shown: Vec<_> = nodes.duplicates(5_000).collect();
        assert_eq!((shown.len(), shown[0].attempts), (1, 2));
        let before = ClusterView::empty([0; 16], PutPolicy::RoundRobin);
        let view = nodes.view(4_999, &CONFIG, &before);
        assert_eq!(view.storage("books", "a", 1).map(|s| s.instance), Some([1; 16]));
        assert_eq!(nodes.beat(5_000, report(1, 2), &CONFIG), Ok(Admitted::Replaced));
        assert_eq!(nodes.duplicates(5_000).count(), 0);
        assert!(nodes.beat(5_001, report(1, 1), &CONFIG).is_err(), "now the former is the second");
    }

    #[test]
    fn a_refused_attempt_does_not_keep_the_dead_holder_alive() {
        let mut nodes = Nodes::new();
        let _ = nodes.beat(0, report(1, 1), &CONFIG);
        for now in (500..5_000).step_by(500) {
            assert!(nodes.beat(now, report(1, 2), &CONFIG).is_err());
        }
        assert_eq!(nodes.beat(5_000, report(1, 2), &CONFIG), Ok(Admitted::Replaced));
    }

    #[test]
    fn a_tracker_that_stood_still_blames_nobody_and_still_finds_the_dead() {
        let mut nodes = Nodes::new();
        let _ = nodes.beat(0, report(1, 1), &CONFIG);
        let _ = nodes.beat(0, report(2, 2), &CONFIG);
        nodes.excuse(60_000);
        assert_eq!(nodes.beat(61_000, report(1, 1), &CONFIG), Ok(Admitted::Known));
        let states: Vec<_> = nodes.iter(61_000, &CONFIG).map(|(_, state)| state).collect();
        assert_eq!(states, [State::Online, State::Online]);
        let states: Vec<_> = nodes.iter(65_000, &CONFIG).map(|(_, state)| state).collect();
        assert_eq!(states, [State::Suspect, State::Offline]);
    }

    #[test]
    fn the_same_id_in_another_group_is_no_duplicate() {
        let mut nodes = Nodes::new();
        let _ = nodes.beat(0, report(1, 1), &CONFIG);
        let other = StorageReport { group: "films".into(), ..report(1, 2) };
        assert_eq!(nodes.beat(0, other, &CONFIG), Ok(Admitted::Joined));
    }

    #[test]
    fn the_epoch_rises_for_routing_and_not_for_free_space() {
        let mut nodes = Nodes::new();
        let _ = nodes.beat(0, report(1, 1), &CONFIG);
        let one = nodes.view(0, &CONFIG, &ClusterView::empty([0; 16], PutPolicy::RoundRobin));
        assert_eq!(one.epoch, 1);
        let mut filled = report(1, 1);
        filled.mounts[0].free = 20;
        let _ = nodes.beat(1_000, filled.clone(), &CONFIG);
        let two = nodes.view(1_000, &CONFIG, &one);
        assert_eq!(
            (two.epoch, two.storage("books", "a", 1).map(|s| s.mounts[0].free)),
            (1, Some(20))
        );
        filled.mounts[0].writable = false;
        let _ = nodes.beat(2_000, filled, &CONFIG);
        let three = nodes.view(2_000, &CONFIG, &two);
        assert_eq!(three.epoch, 2);
        let four = nodes.view(5_000, &CONFIG, &three);
        assert_eq!(
            (four.epoch, four.storage("books", "a", 1).map(|s| s.state)),
            (3, Some(State::Suspect))
        );
    }

    #[test]
    fn a_machine_that_moves_to_another_syncgroup_stands_once() {
        let mut nodes = Nodes::new();
        let _ = nodes.beat(0, report(1, 1), &CONFIG);
        let moved = StorageReport { syncgroup: "b".into(), ..report(1, 1) };
        assert_eq!(nodes.beat(1, moved, &CONFIG), Ok(Admitted::Known));
        let view = nodes.view(1, &CONFIG, &ClusterView::empty([0; 16], PutPolicy::RoundRobin));
        assert_eq!(view.storages().count(), 1);
        assert!(view.storage("books", "b", 1).is_some());
    }

    #[test]
    fn a_full_table_gives_up_only_a_dead_node() {
        let mut nodes = Nodes::new();
        for number in 0..NODES_MAX {
            let machine = MachineId::try_from(number).unwrap_or(0);
            let now = u64::from(number == 77) * 10;
            assert_eq!(nodes.beat(10 - now, report(machine, 1), &CONFIG), Ok(Admitted::Joined));
        }
        let late = report(60_000, 1);
        assert_eq!(nodes.beat(4_999, late.clone(), &CONFIG), Err(Refused::TableFull));
        assert_eq!(nodes.beat(5_000, late, &CONFIG), Ok(Admitted::Joined));
        assert_eq!(nodes.beat(5_001, report(60_001, 1), &CONFIG), Err(Refused::TableFull));
    }

    #[test]
    fn a_removed_storage_is_shown_until_it_is_silent_and_nobody_else_is_dropped() {
        let mut nodes = Nodes::new();
        nodes.beat(0, report(1, 1), &CONFIG).unwrap();
        let real = report(1, 1);
        let group = (real.group.as_str(), real.syncgroup.as_str());
        assert!(!nodes.forget(4_999, group, (1, real.instance), &CONFIG), "it is heard");
        assert!(!nodes.forget(9_000, group, (1, [9; 16]), &CONFIG), "that was somebody else");
        assert!(!nodes.forget(9_000, (group.0, "other"), (1, real.instance), &CONFIG));
        assert!(!nodes.forget(9_000, group, (2, real.instance), &CONFIG));
        assert!(nodes.forget(9_000, group, (1, real.instance), &CONFIG));
        assert_eq!(nodes.iter(9_000, &CONFIG).count(), 0);
    }
}
