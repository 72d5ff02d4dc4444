use std::collections::BTreeMap;

use super::super::view::{GroupView, Load, MountView, SyncgroupView};
use super::*;

fn mount(index: u8, free: u64) -> MountView {
    MountView {
        index,
        state: MountState::Online,
        total: 1_000,
        free,
        reserved: 100,
        writable: true,
        reason: String::new(),
    }
}

fn storage(machine: MachineId, state: State, free: u64, weight: u32) -> StorageView {
    StorageView {
        machine,
        instance: [0; 16],
        advertise: format!("host{machine}:1"),
        admin: String::new(),
        state,
        weight,
        version: String::new(),
        mounts: vec![mount(0, free)],
        load: Load::default(),
    }
}

fn view(policy: PutPolicy, storages: Vec<StorageView>) -> ClusterView {
    let mut view = ClusterView::empty([0; 16], policy);
    let storages = storages.into_iter().map(|s| (s.machine, s)).collect();
    let syncgroups = BTreeMap::from([("a".to_owned(), SyncgroupView { storages })]);
    view.groups.insert("books".to_owned(), GroupView { syncgroups });
    view
}

fn machines(route: &Route) -> Vec<MachineId> {
    route.targets().map(|t| t.machine).collect()
}

fn counts(view: &ClusterView, turns: u64) -> BTreeMap<MachineId, u64> {
    let mut counts = BTreeMap::new();
    for turn in 0..turns {
        let route = put(view, None, 10, turn).expect("a route");
        *counts.entry(route.choice.machine).or_default() += 1;
    }
    counts
}

#[test]
fn a_mount_that_too_few_members_have_is_not_called_full() {
    let mut thin = storage(1, State::Online, 900, 1);
    thin.mounts[0].writable = false;
    thin.mounts[0].reason = "machine 1 has it and machine 2 does not".into();
    let refused = put(&view(PutPolicy::RoundRobin, vec![thin.clone()]), None, 10, 0);
    assert!(matches!(refused, Err(NoRoute::NotWritable { .. })), "{refused:?}");
    thin.mounts.push(mount(1, 105));
    let refused = put(&view(PutPolicy::RoundRobin, vec![thin]), None, 10, 0);
    assert!(matches!(refused, Err(NoRoute::Full { .. })), "the other one is: {refused:?}");
}

#[test]
fn only_an_online_storage_with_a_writable_mount_with_room_gets_a_put() {
    let mut full = storage(7, State::Online, 105, 1);
    full.mounts[0].index = 3;
    let mut closed = storage(8, State::Online, 900, 1);
    closed.mounts[0].writable = false;
    let mut failed = storage(9, State::Online, 900, 1);
    failed.mounts[0].state = MountState::Failed;
    failed.mounts[0].reason = "fsync failed".into();
    let states = [
        (1, State::Joining),
        (2, State::Suspect),
        (3, State::Offline),
        (4, State::Recovering),
        (5, State::ReadOnly),
        (6, State::Draining),
    ];
    let mut all: Vec<_> = states.iter().map(|&(m, s)| storage(m, s, 900, 1)).collect();
    all.extend([full, closed, failed, storage(10, State::Online, 900, 1)]);
    let view = view(PutPolicy::RoundRobin, all);
    for turn in 0..20 {
        let route = put(&view, Some("books"), 10, turn).expect("a route");
        assert_eq!(machines(&route), [10]);
        assert_eq!(route.down.len(), 9);
    }
    let why: Vec<_> =
        put(&view, None, 10, 0).expect("a route").down.iter().map(|d| d.why.clone()).collect();
    assert!(why.contains(&"suspect".to_owned()));
    assert!(why.contains(&"mount 3 is full".to_owned()));
    assert!(why.contains(&"mount 0 failed: fsync failed".to_owned()));
}

#[test]
fn round_robin_leaves_nobody_out_and_fallbacks_name_the_rest() {
    let view =
        view(PutPolicy::RoundRobin, (1..=3).map(|m| storage(m, State::Online, 900, 1)).collect());
    assert_eq!(counts(&view, 300), BTreeMap::from([(1, 100), (2, 100), (3, 100)]));
    assert_eq!(machines(&put(&view, None, 10, 1).expect("a route")), [2, 3, 1]);
}

#[test]
fn most_free_takes_the_emptiest_and_shares_a_tie() {
    let view = view(
        PutPolicy::MostFree,
        vec![
            storage(1, State::Online, 300, 1),
            storage(2, State::Online, 900, 1),
            storage(3, State::Online, 900, 1),
        ],
    );
    assert_eq!(counts(&view, 100), BTreeMap::from([(2, 50), (3, 50)]));
}

#[test]
fn weights_are_kept_in_any_run_of_turns_and_zero_means_never() {
    let view = view(
        PutPolicy::Weighted,
        vec![
            storage(1, State::Online, 900, 1),
            storage(2, State::Online, 900, 3),
            storage(3, State::Online, 900, 0),
        ],
    );
    let counts = counts(&view, 4_000);
    assert!(counts[&1].abs_diff(1_000) <= 10 && counts[&2].abs_diff(3_000) <= 10, "{counts:?}");
    assert!(!counts.contains_key(&3));
}

#[test]
fn weights_that_are_all_zero_do_not_stop_puts() {
    let view = view(
        PutPolicy::Weighted,
        vec![storage(1, State::Online, 900, 0), storage(2, State::Online, 900, 0)],
    );
    assert_eq!(counts(&view, 10), BTreeMap::from([(1, 5), (2, 5)]));
}

#[test]
fn an_id_goes_to_its_owner_first_and_to_mirrors_when_the_owner_is_down() {
    let mut all: Vec<_> = (1..=3).map(|m| storage(m, State::Online, 900, 1)).collect();
    let route =
        object(&view(PutPolicy::RoundRobin, all.clone()), "books", "a", 2, 0).expect("a route");
    assert_eq!(machines(&route), [2, 1, 3]);
    assert!(route.choice.owner && !route.fallbacks[0].owner);
    all[1].state = State::Suspect;
    let route =
        object(&view(PutPolicy::RoundRobin, all.clone()), "books", "a", 2, 0).expect("a route");
    assert_eq!(machines(&route), [2, 1, 3], "a suspect owner still orders the edits");
    all[1].state = State::Offline;
    all[0].state = State::Joining;
    let route = object(&view(PutPolicy::RoundRobin, all), "books", "a", 2, 0).expect("a route");
    assert_eq!(machines(&route), [3, 1]);
    assert_eq!(route.down[0].to_string(), "machine 2 of a at host2:1: offline");
}

#[test]
fn an_id_on_a_failed_mount_goes_to_a_mirror_of_that_mount() {
    let mut all: Vec<_> = (1..=2).map(|m| storage(m, State::Online, 900, 1)).collect();
    all[0].mounts.push(mount(1, 900));
    all[0].mounts[0].state = MountState::Failed;
    let view = view(PutPolicy::RoundRobin, all);
    assert_eq!(machines(&object(&view, "books", "a", 1, 0).expect("a route")), [2]);
    assert_eq!(
        machines(&object(&view, "books", "a", 1, 1).expect("a route")),
        [1],
        "machine 2 has no mount 1"
    );
}

#[test]
fn nowhere_to_go_names_who_is_down_or_what_is_unknown() {
    let none = ClusterView::empty([0; 16], PutPolicy::RoundRobin);
    assert_eq!(put(&none, None, 1, 0), Err(NoRoute::NoStorages));
    let view = view(PutPolicy::RoundRobin, vec![storage(4, State::Offline, 900, 1)]);
    let error = object(&view, "books", "a", 4, 0).expect_err("down");
    assert_eq!(
        error.to_string(),
        "no storage that may hold it is up: machine 4 of a at host4:1: offline"
    );
    let error = object(&view, "books", "a", 5, 0).expect_err("down");
    assert!(
        error.to_string().contains("machine 5 of a at unknown address: not registered"),
        "{error}"
    );
    let error = object(&view, "films", "a", 4, 0).expect_err("unknown");
    assert_eq!(error.to_string(), "unknown group \"films\"; there is books");
    let error = object(&view, "books", "z", 4, 0).expect_err("unknown");
    assert_eq!(error.to_string(), "unknown syncgroup books/z; there is a");
    let error = put(&view, None, 1, 0).expect_err("down");
    assert_eq!(
        error.to_string(),
        "no storage of group books takes new objects: machine 4 of a at host4:1: offline"
    );
}

#[test]
fn a_full_cluster_is_never_taken_for_one_that_is_down() {
    let mut closed = storage(1, State::Online, 900, 1);
    closed.mounts[0].writable = false;
    let full = storage(2, State::Online, 105, 1);
    for policy in [PutPolicy::RoundRobin, PutPolicy::MostFree, PutPolicy::Weighted] {
        let all_full = view(policy, vec![closed.clone(), full.clone()]);
        let error = put(&all_full, None, 10, 7).expect_err("full");
        assert!(matches!(&error, NoRoute::Full { down, .. } if down.len() == 2), "{error:?}");
        assert_eq!(error.down().len(), 2);
        assert!(error.to_string().starts_with("no space in group books: machine 1"), "{error}");
    }
    // Who is away may come back with room.
    let away = storage(3, State::Offline, 900, 1);
    let mut failed = storage(3, State::Online, 900, 1);
    failed.mounts[0].state = MountState::Failed;
    for other in [away, failed] {
        let mixed = view(PutPolicy::RoundRobin, vec![full.clone(), other]);
        let error = put(&mixed, None, 10, 0).expect_err("nobody");
        assert!(matches!(error, NoRoute::NotWritable { .. }), "{error:?}");
    }
}

#[test]
fn two_groups_need_a_name() {
    let mut view = view(PutPolicy::RoundRobin, vec![storage(1, State::Online, 900, 1)]);
    view.groups.insert("films".to_owned(), GroupView::default());
    let error = put(&view, None, 1, 0).expect_err("which");
    assert_eq!(error.to_string(), "which group? there are books, films; name one with --group");
    assert!(put(&view, Some("books"), 1, 0).is_ok());
}
