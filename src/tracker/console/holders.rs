//! `find ID` and `chunk MOUNT NUMBER` of a tracker: which storages hold it.
//!
//! Invariant: this tells what the node table tells. Whoever mirrors a mount holds what is on it, up or down; whether the
//! object is there, only a storage can say, so every row names the console that can.

use actix::prelude::*;

use super::gone;
use crate::actors::admin_console::{CommandResult, ConsoleAnswer, Value};
use crate::actors::router::{Router, ShowView};
use crate::cluster::view::{ClusterView, StorageView};
use crate::format::file_id::FileId;
use crate::format::ids::{ChunkfileId, MachineId, MountIndex};

const COLUMNS: [&str; 10] = [
    "group",
    "syncgroup",
    "machine",
    "role",
    "state",
    "mount_state",
    "address",
    "admin",
    "why",
    "next",
];

/// `find ID`: the members of the id's syncgroup that have its mount.
pub(super) async fn find(words: Vec<String>, router: Addr<Router>) -> CommandResult {
    let [id] = words.as_slice() else { return Err("expected one id: find ID".to_owned()) };
    let id: FileId = id.parse().map_err(|error| format!("{id:?}: {error}"))?;
    let published = router.send(ShowView).await.map_err(gone)?;
    let (owner, mount) = (id.object.machine, id.object.mount);
    let ours = |group: &str, syncgroup: &str| (group, syncgroup) == (&*id.group, &*id.syncgroup);
    let rows = holders(&published.view, mount, Some(owner), &format!("find {id}"), ours);
    if rows.is_empty() {
        return Err(format!(
            "no storage of {}/{} that has mount {mount} has registered; `nodes` lists who has",
            id.group, id.syncgroup
        ));
    }
    let home = id.object.home().address.chunkfile();
    Ok(ConsoleAnswer::new()
        .fact("id", id.to_string())
        .fact("owner", owner)
        .fact("mount", mount)
        .fact("chunkfile", home.to_string())
        .table("storages", &COLUMNS, rows))
}

/// `chunk MOUNT NUMBER [GROUP/SYNCGROUP]`. The number alone is one chunkfile of each member; `MACHINE/LOG_ID/NUMBER` is one.
pub(super) async fn chunk(words: Vec<String>, router: Addr<Router>) -> CommandResult {
    let usage = || "expected chunk MOUNT NUMBER|MACHINE/LOG_ID/NUMBER [GROUP/SYNCGROUP]".to_owned();
    let (mount, number, place) = match words.as_slice() {
        [mount, number] => (mount, number, None),
        [mount, number, place] => (mount, number, Some(place.split_once('/').ok_or_else(usage)?)),
        _ => return Err(usage()),
    };
    let mount: MountIndex = mount.parse().map_err(|_| usage())?;
    let named: Option<ChunkfileId> = match number.parse::<u32>() {
        Ok(_) => None,
        Err(_) => Some(number.parse().map_err(|_| usage())?),
    };
    let published = router.send(ShowView).await.map_err(gone)?;
    let ours = |group: &str, syncgroup: &str| place.is_none_or(|place| place == (group, syncgroup));
    let owner = named.map(|id| id.machine);
    let rows = holders(&published.view, mount, owner, &format!("chunk {mount} {number}"), ours);
    if rows.is_empty() {
        let of = place.map_or_else(String::new, |(group, name)| format!(" of {group}/{name}"));
        return Err(format!(
            "no storage{of} that has mount {mount} has registered; `nodes` lists who has"
        ));
    }
    Ok(ConsoleAnswer::new()
        .fact("chunkfile", number.as_str())
        .fact("mount", mount)
        .fact("owner", owner)
        .table("storages", &COLUMNS, rows))
}

/// The storages that have a mount, in the syncgroups that are meant. Without an owner everybody is that of its own
/// chunkfiles and a mirror of the others'.
fn holders(
    view: &ClusterView,
    mount: MountIndex,
    owner: Option<MachineId>,
    command: &str,
    meant: impl Fn(&str, &str) -> bool,
) -> Vec<Vec<Value>> {
    let row = |(group, syncgroup, storage): (&str, &str, &StorageView)| {
        let there = storage.mount(mount)?;
        let role = match owner {
            Some(owner) if owner == storage.machine => "owner",
            Some(_) => "mirror",
            None => "owner of its own, mirror of the others",
        };
        let next = match storage.admin.as_str() {
            "" => String::new(),
            admin => format!("folio admin {admin} {command}"),
        };
        Some(vec![
            group.into(),
            syncgroup.into(),
            storage.machine.into(),
            role.into(),
            storage.state.as_str().into(),
            there.state.as_str().into(),
            storage.advertise.as_str().into(),
            storage.admin.as_str().into(),
            there.reason.as_str().into(),
            next.into(),
        ])
    };
    view.storages().filter(|(group, name, _)| meant(group, name)).filter_map(row).collect()
}
