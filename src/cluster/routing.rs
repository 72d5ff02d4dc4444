//! Which storage a request goes to, and where else. Pure; used alike by the tracker's Router, the client library with
//! its cached view, and the console's `route`.
//!
//! Invariants
//! - A put goes to a storage that is `Online` and has a writable mount with room; never to a Suspect one.
//! - A request for an id goes to the owner first, then to its mirrors; only to members of the id's syncgroup. It is a
//!   hint: the storages enforce who may change what.
//! - The answer names everybody worth trying, so that nobody asks twice when the first is down; and who is down, so
//!   that an error can say it.
//! - The choice depends on the view and on `turn` alone. Whoever calls counts `turn` up (and starts it anywhere).

use super::view::{ClusterView, GroupView, MountState, PutPolicy, State, StorageView};
use crate::format::ids::{MachineId, MountIndex};

/// A storage to send a request to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// Its syncgroup (a put may go to any of the group).
    pub syncgroup: String,
    /// Machine id.
    pub machine: MachineId,
    /// Address.
    pub advertise: String,
    /// As the tracker judged it.
    pub state: State,
    /// Whether it owns the object; false for a put.
    pub owner: bool,
}

/// A storage that would have been asked, were it up.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Down {
    /// Its syncgroup.
    pub syncgroup: String,
    /// Machine id.
    pub machine: MachineId,
    /// Address.
    pub advertise: String,
    /// What is wrong: `offline`, `mount 0 failed: ...`.
    pub why: String,
}

impl std::fmt::Display for Down {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "machine {} of {} at {}: {}",
            self.machine, self.syncgroup, self.advertise, self.why
        )
    }
}

/// Where to go.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Route {
    /// First.
    pub choice: Target,
    /// Then these, in this order.
    pub fallbacks: Vec<Target>,
    /// Who is down.
    pub down: Vec<Down>,
}

impl Route {
    /// Choice and fallbacks in order.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        std::iter::once(&self.choice).chain(&self.fallbacks)
    }
}

/// Why there is nowhere to go. All of them are exit 5, but [`NoRoute::Full`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// No storage has registered at all.
    #[error("no storage has registered with the tracker yet")]
    NoStorages,
    /// No group was named and there are several.
    #[error("which group? there are {}; name one with --group", known.join(", "))]
    GroupNeeded {
        /// The groups there are.
        known: Vec<String>,
    },
    /// No such group.
    #[error("unknown group {group:?}; there {}", list(known))]
    UnknownGroup {
        /// The name asked for.
        group: String,
        /// The groups there are.
        known: Vec<String>,
    },
    /// No such syncgroup in the group.
    #[error("unknown syncgroup {group}/{syncgroup}; there {}", list(known))]
    UnknownSyncgroup {
        /// Group.
        group: String,
        /// The name asked for.
        syncgroup: String,
        /// The syncgroups there are.
        known: Vec<String>,
    },
    /// Nobody takes new objects.
    #[error("no storage of group {group} takes new objects: {}", join(down))]
    NotWritable {
        /// Group.
        group: String,
        /// Each storage with the reason.
        down: Vec<Down>,
    },
    /// Nobody has room for a new object: for the caller the same as a storage that says so itself.
    #[error("no space in group {group}: {}", join(down))]
    Full {
        /// Group.
        group: String,
        /// Each storage with its mounts.
        down: Vec<Down>,
    },
    /// Nobody of the id's syncgroup is up.
    #[error("no storage that may hold it is up: {}", join(down))]
    AllDown {
        /// Each storage with the reason.
        down: Vec<Down>,
    },
}

impl NoRoute {
    /// Who is down, if that is the reason.
    #[must_use]
    pub fn down(&self) -> &[Down] {
        match self {
            Self::NotWritable { down, .. } | Self::Full { down, .. } | Self::AllDown { down } => {
                down
            }
            Self::NoStorages
            | Self::GroupNeeded { .. }
            | Self::UnknownGroup { .. }
            | Self::UnknownSyncgroup { .. } => &[],
        }
    }
}

fn join(down: &[Down]) -> String {
    down.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn list(known: &[String]) -> String {
    match known {
        [] => "is none".to_owned(),
        [one] => format!("is {one}"),
        many => format!("are {}", many.join(", ")),
    }
}

/// The group to use: the one named, or the only one.
fn group<'a>(
    view: &'a ClusterView,
    name: Option<&str>,
) -> Result<(&'a str, &'a GroupView), NoRoute> {
    let known = || view.groups.keys().cloned().collect();
    match name {
        Some(name) => view
            .groups
            .get_key_value(name)
            .map(|(name, group)| (name.as_str(), group))
            .ok_or_else(|| NoRoute::UnknownGroup { group: name.to_owned(), known: known() }),
        None => {
            let mut groups = view.groups.iter();
            match (groups.next(), groups.next()) {
                (None, _) => Err(NoRoute::NoStorages),
                (Some((name, group)), None) => Ok((name, group)),
                (Some(_), Some(_)) => Err(NoRoute::GroupNeeded { known: known() }),
            }
        }
    }
}

/// A storage for a new object of `length` bytes.
///
/// `group`: `None` takes the only one there is. `turn` counts the puts of the caller.
pub fn put(
    view: &ClusterView,
    group_name: Option<&str>,
    length: u64,
    turn: u64,
) -> Result<Route, NoRoute> {
    let (group_name, group) = group(view, group_name)?;
    let mut takers: Vec<(&str, &StorageView)> = Vec::new();
    let mut down = Vec::new();
    let mut only_full = true;
    for (syncgroup, members) in &group.syncgroups {
        for storage in members.storages.values() {
            match why_no_put(storage, length) {
                None => takers.push((syncgroup, storage)),
                Some(why) => {
                    only_full &= is_online(storage);
                    down.push(down_entry(syncgroup, storage, why));
                }
            }
        }
    }
    let first = pick(view.put_policy, &takers, length, turn);
    takers.rotate_left(first);
    let mut targets =
        takers.into_iter().map(|(syncgroup, storage)| target(syncgroup, storage, false));
    let Some(choice) = targets.next() else {
        let group = group_name.to_owned();
        return Err(if only_full && !down.is_empty() {
            NoRoute::Full { group, down }
        } else {
            NoRoute::NotWritable { group, down }
        });
    };
    Ok(Route { choice, fallbacks: targets.collect(), down })
}

/// Index of the storage that the policy takes. `takers` is not empty.
fn pick(policy: PutPolicy, takers: &[(&str, &StorageView)], length: u64, turn: u64) -> usize {
    let modulo = |value: u64, n: usize| usize::try_from(value % n.max(1) as u64).unwrap_or(0);
    match policy {
        PutPolicy::RoundRobin => modulo(turn, takers.len()),
        PutPolicy::MostFree => {
            let free = |s: &StorageView| room(s, length);
            let most = takers.iter().map(|(_, s)| free(s)).max().unwrap_or(0);
            let best: Vec<usize> =
                (0..takers.len()).filter(|&i| free(takers[i].1) == most).collect();
            best.get(modulo(turn, best.len())).copied().unwrap_or(0)
        }
        PutPolicy::Weighted => {
            let total: u64 = takers.iter().map(|(_, s)| u64::from(s.weight)).sum();
            if total == 0 {
                return modulo(turn, takers.len());
            }
            // Steps of the golden ratio spread any run of turns evenly over the weights.
            let spread = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let scaled = (u128::from(spread) * u128::from(total)) >> 64;
            let mut left = u64::try_from(scaled).unwrap_or(0);
            for (index, (_, storage)) in takers.iter().enumerate() {
                let weight = u64::from(storage.weight);
                if left < weight {
                    return index;
                }
                left -= weight;
            }
            0
        }
    }
}

/// Bytes that the storage's writable mounts offer to an object of `length` bytes.
fn room(storage: &StorageView, length: u64) -> u64 {
    storage
        .mounts
        .iter()
        .filter(|m| m.writable && m.state == MountState::Online && m.usable() >= length)
        .fold(0, |sum, m| sum.saturating_add(m.usable()))
}

/// Whether the storage and one of its mounts serve, and nothing else is said of it: if it gets no put, then for want of
/// room.
fn is_online(storage: &StorageView) -> bool {
    let open = |mount: &super::view::MountView| {
        mount.state == MountState::Online && (mount.writable || mount.reason.is_empty())
    };
    storage.state == State::Online && storage.mounts.iter().any(open)
}

/// Why a storage gets no put; `None` if it does.
fn why_no_put(storage: &StorageView, length: u64) -> Option<String> {
    if storage.state != State::Online {
        return Some(storage.state.to_string());
    }
    let online = |m: &&super::view::MountView| m.state == MountState::Online;
    if storage.mounts.iter().filter(online).any(|m| m.writable && m.usable() >= length) {
        return None;
    }
    let reasons: Vec<String> = storage
        .mounts
        .iter()
        .map(|m| match (m.state, m.writable) {
            (MountState::Online, true) => format!("mount {} is full", m.index),
            (MountState::Online, false) if m.reason.is_empty() && m.usable() > 0 => {
                format!("mount {} is full on another member of its syncgroup", m.index)
            }
            (MountState::Online, false) if m.reason.is_empty() => {
                format!("mount {} is full: its reserve is reached", m.index)
            }
            (MountState::Online, false) => {
                format!("mount {} takes no new objects: {}", m.index, m.reason)
            }
            (MountState::Recovering | MountState::ReadOnly | MountState::Failed, _) => {
                mount_trouble(m)
            }
        })
        .collect();
    Some(if reasons.is_empty() { "no mounts".to_owned() } else { reasons.join(", ") })
}

fn mount_trouble(mount: &super::view::MountView) -> String {
    if mount.reason.is_empty() {
        format!("mount {} {}", mount.index, mount.state)
    } else {
        format!("mount {} {}: {}", mount.index, mount.state, mount.reason)
    }
}

/// How good a member is for requests about an id on `mount`: lower is better; `Err` says why it is none.
fn rank(storage: &StorageView, mount: MountIndex, owner: MachineId) -> Result<u8, String> {
    let reachable = match storage.state {
        State::Online | State::ReadOnly | State::Draining => 0,
        State::Suspect => 1,
        State::Joining => 2,
        State::Offline | State::Recovering => return Err(storage.state.to_string()),
    };
    match storage.mount(mount) {
        Some(m) if matches!(m.state, MountState::Online | MountState::ReadOnly) => {}
        Some(m) => return Err(mount_trouble(m)),
        None => return Err(format!("has no mount {mount}")),
    }
    // The owner goes first as long as it answers at all; all edits of an object meet in its mailbox.
    Ok(if storage.machine == owner { 0 } else { 10 + reachable })
}

/// The storages for get, modify, delete and the like: from the id's group, syncgroup, owner and mount.
pub fn object(
    view: &ClusterView,
    group_name: &str,
    syncgroup: &str,
    owner: MachineId,
    mount: MountIndex,
) -> Result<Route, NoRoute> {
    let (_, group) = group(view, Some(group_name))?;
    let members = group.syncgroups.get(syncgroup).ok_or_else(|| NoRoute::UnknownSyncgroup {
        group: group_name.to_owned(),
        syncgroup: syncgroup.to_owned(),
        known: group.syncgroups.keys().cloned().collect(),
    })?;
    let mut ranked: Vec<(u8, &StorageView)> = Vec::new();
    let mut down = Vec::new();
    for storage in members.storages.values() {
        match rank(storage, mount, owner) {
            Ok(rank) => ranked.push((rank, storage)),
            Err(why) => down.push(down_entry(syncgroup, storage, why)),
        }
    }
    if !members.storages.contains_key(&owner) {
        down.push(Down {
            syncgroup: syncgroup.to_owned(),
            machine: owner,
            advertise: "unknown address".to_owned(),
            why: "not registered with the tracker".to_owned(),
        });
    }
    ranked.sort_by_key(|(rank, storage)| (*rank, storage.machine));
    let mut targets =
        ranked.into_iter().map(|(_, storage)| target(syncgroup, storage, storage.machine == owner));
    match targets.next() {
        Some(choice) => Ok(Route { choice, fallbacks: targets.collect(), down }),
        None => Err(NoRoute::AllDown { down }),
    }
}

fn target(syncgroup: &str, storage: &StorageView, owner: bool) -> Target {
    Target {
        syncgroup: syncgroup.to_owned(),
        machine: storage.machine,
        advertise: storage.advertise.clone(),
        state: storage.state,
        owner,
    }
}

fn down_entry(syncgroup: &str, storage: &StorageView, why: String) -> Down {
    Down {
        syncgroup: syncgroup.to_owned(),
        machine: storage.machine,
        advertise: storage.advertise.clone(),
        why,
    }
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
