//! What a tracker's console can be asked: `status`, `nodes`, `mounts`, `route ID`, `find ID`, `chunk MOUNT NUMBER`, and
//! what an operator does to any daemon.

mod holders;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use actix::prelude::*;
use data_encoding::HEXLOWER;

use crate::actors::acceptor::Connections;
use crate::actors::admin_console::{
    CommandResult, ConsoleAnswer, ConsoleSource, Value, no_arguments,
};
use crate::actors::ambient::Monotonic;
use crate::actors::heartbeat::{Heartbeat, Row, ShowTable, Table};
use crate::actors::router::{Router, ShowView, Where};
use crate::cluster::alike::clock_far_off;
use crate::cluster::routing::Target;
use crate::cluster::view::{MountState, State};
use crate::format::file_id::FileId;
use crate::operate;
use crate::rotation::Rotation;
use crate::settings::TrackerSettings;
use crate::storage::no_puts;

/// The commands of one tracker.
pub(super) fn source(
    address: SocketAddr,
    settings: &TrackerSettings,
    heartbeat: Addr<Heartbeat>,
    router: Addr<Router>,
    connections: Arc<Connections>,
    rotation: Arc<Rotation>,
) -> ConsoleSource {
    let version = env!("CARGO_PKG_VERSION");
    let node = format!("tracker@{address}");
    let facts = Facts {
        node: node.clone(),
        policy: settings.put_policy.as_str(),
        warnings: settings.warnings.clone(),
        connections,
        rotation,
        clock: Monotonic::start(),
    };
    let facts = Arc::new(facts);
    let shown = Arc::new(settings.shown.clone());
    let (for_status, router_for_status) = (heartbeat.clone(), router.clone());
    let (for_nodes, for_mounts) = (heartbeat.clone(), heartbeat);
    let (for_find, for_chunk) = (router.clone(), router.clone());
    ConsoleSource::new(node, "tracker", version)
        .command(
            "status",
            "",
            "nodes up, suspect and down per syncgroup; what is wrong",
            move |words| {
                status(words, Arc::clone(&facts), for_status.clone(), router_for_status.clone())
            },
        )
        .command("nodes", "", "the node table", move |words| nodes(words, for_nodes.clone()))
        .command("mounts", "", "every mount of every node", move |words| {
            mounts(words, for_mounts.clone())
        })
        .command(
            "config",
            "[show [PART] | set KEY VALUE]",
            "what holds and why; change what can be changed while it runs",
            move |words| {
                let shown = Arc::clone(&shown);
                async move { operate::config(&words, &shown, &[]) }
            },
        )
        .command("log", "error|warn|info|debug|trace", "how much is logged", |words| async move {
            operate::log(&words)
        })
        .command("shutdown", "", "stop in order, as by SIGTERM", |words| async move {
            operate::shutdown(&words)
        })
        .command(
            "drain",
            "",
            "says that a tracker holds nothing and may be stopped at any time",
            |words| async move {
                no_arguments(&words)?;
                Ok(ConsoleAnswer::new()
                    .fact("may_be_stopped", true)
                    .fact("why", "a tracker keeps nothing; clients and storages ask the others")
                    .fact("next", "`shutdown`"))
            },
        )
        .command(
            "readonly",
            "on|off",
            "says where it is done: objects change on storages",
            |_words| async move {
                Err("a tracker takes no changes of objects: `readonly` on the consoles of the storages"
                    .to_owned())
            },
        )
        .command("find", "ID", "the storages that hold an object", move |words| {
            holders::find(words, for_find.clone())
        })
        .command(
            "chunk",
            "MOUNT NUMBER|MACHINE/LOG_ID/NUMBER [GROUP/SYNCGROUP]",
            "the storages that hold a chunkfile",
            move |words| holders::chunk(words, for_chunk.clone()),
        )
        .command("route", "ID", "the answer that a client would get for an object", move |words| {
            route(words, router.clone())
        })
}

struct Facts {
    node: String,
    policy: &'static str,
    /// What the configuration made us say.
    warnings: Vec<String>,
    rotation: Arc<Rotation>,
    connections: Arc<Connections>,
    clock: Monotonic,
}

fn gone(_: MailboxError) -> String {
    "the tracker is stopping".to_owned()
}

async fn status(
    words: Vec<String>,
    facts: Arc<Facts>,
    heartbeat: Addr<Heartbeat>,
    router: Addr<Router>,
) -> CommandResult {
    no_arguments(&words)?;
    let table = heartbeat.send(ShowTable).await.map_err(gone)?;
    let epoch = router.send(ShowView).await.map_err(gone)?.view.epoch;
    let mut warnings = warnings(&table);
    for warning in &facts.warnings {
        let remedy = "correct it, and start the daemon again";
        warnings.push(vec![warning.as_str().into(), remedy.into()]);
    }
    for (what, remedy) in facts.rotation.warnings() {
        warnings.push(vec![what.into(), remedy.into()]);
    }
    let answer = ConsoleAnswer::new()
        .fact("node", facts.node.as_str())
        .fact("state", if warnings.is_empty() { "ok" } else { "warnings" })
        .fact("uptime_ms", Value::Millis(facts.clock.now_ms()))
        .fact("put_policy", facts.policy)
        .fact("epoch", epoch)
        .fact("connections", facts.connections.count())
        .table("syncgroups", &["group", "syncgroup", "up", "suspect", "down"], syncgroups(&table));
    Ok(answer.table("warnings", &["what", "remedy"], warnings))
}

fn syncgroups(table: &Table) -> Vec<Vec<Value>> {
    let mut counts: BTreeMap<(&str, &str), [u64; 3]> = BTreeMap::new();
    for row in &table.rows {
        let counts = counts.entry((&row.report.group, &row.report.syncgroup)).or_default();
        let column = match row.state {
            State::Online | State::ReadOnly | State::Draining => 0,
            State::Suspect | State::Joining | State::Recovering => 1,
            State::Offline => 2,
        };
        counts[column] += 1;
    }
    counts
        .into_iter()
        .map(|((group, syncgroup), [up, suspect, down])| {
            vec![group.into(), syncgroup.into(), up.into(), suspect.into(), down.into()]
        })
        .collect()
}

/// What an operator should do something about.
fn warnings(table: &Table) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    let mut warn = |what: String, remedy: String| rows.push(vec![what.into(), remedy.into()]);
    for (duplicate, ago_ms) in &table.duplicates {
        warn(
            format!(
                "duplicate machine id {}/{}: {} is refused ({} attempts, last {} s ago), {} holds it",
                duplicate.group,
                duplicate.machine,
                duplicate.advertise,
                duplicate.attempts,
                ago_ms / 1_000,
                duplicate.held_by
            ),
            "give one of the two another machine_id, or stop the one that is to be replaced"
                .to_owned(),
        );
    }
    for Row { report, state, silence_ms, clock_ahead_ms } in &table.rows {
        let name = format!("{}/{}/{}", report.group, report.syncgroup, report.machine);
        if matches!(state, State::Suspect | State::Offline) {
            warn(
                format!(
                    "{name} at {} is {state}: silent for {} s",
                    report.advertise,
                    silence_ms / 1_000
                ),
                "start it, or see why it cannot reach this tracker".to_owned(),
            );
            continue;
        }
        if let Some(off) = clock_far_off(*clock_ahead_ms) {
            warn(
                format!("the clock of {name} at {} is {off} of ours", report.advertise),
                "set the clock that is wrong (NTP): undelete windows, creation times and retries follow it"
                    .to_owned(),
            );
        }
        for mount in &report.mounts {
            let what = match mount.state {
                MountState::Failed | MountState::Recovering => {
                    format!("{name} mount {} {}: {}", mount.index, mount.state, mount.reason)
                }
                MountState::Online if mount.total > 0 && mount.usable() == 0 => format!(
                    "{name} mount {} is full, no member takes new objects of it: {}",
                    mount.index,
                    no_puts::of_space(mount.free, mount.reserved)
                ),
                MountState::Online | MountState::ReadOnly => continue,
            };
            warn(what, format!("folio admin {} status", report.admin));
        }
    }
    for (what, remedy) in unlike_mounts(table) {
        warn(what, remedy);
    }
    rows
}

/// Storages of one syncgroup that do not have the same mounts.
fn unlike_mounts(table: &Table) -> Vec<(String, String)> {
    let mut groups: BTreeMap<(&str, &str), Vec<(u16, BTreeSet<u8>)>> = BTreeMap::new();
    for Row { report, .. } in &table.rows {
        let mounts = report.mounts.iter().map(|mount| mount.index).collect();
        let members = groups.entry((&report.group, &report.syncgroup)).or_default();
        members.push((report.machine, mounts));
    }
    let mut found = Vec::new();
    for ((group, syncgroup), members) in groups {
        let all: BTreeSet<u8> = members.iter().flat_map(|(_, mounts)| mounts).copied().collect();
        for (machine, mounts) in &members {
            let missing: Vec<String> = all.difference(mounts).map(u8::to_string).collect();
            if !missing.is_empty() {
                found.push((
                    format!(
                        "config drift: {group}/{syncgroup}/{machine} has no mount {}, other members have it",
                        missing.join(", ")
                    ),
                    "give every member of the syncgroup the same [[mounts]] indexes".to_owned(),
                ));
            }
        }
    }
    found
}

async fn nodes(words: Vec<String>, heartbeat: Addr<Heartbeat>) -> CommandResult {
    no_arguments(&words)?;
    let table = heartbeat.send(ShowTable).await.map_err(gone)?;
    let rows = table.rows.iter().map(|Row { report, state, silence_ms, .. }| {
        vec![
            report.group.as_str().into(),
            report.syncgroup.as_str().into(),
            report.machine.into(),
            state.as_str().into(),
            report.advertise.as_str().into(),
            report.admin.as_str().into(),
            Value::Millis(*silence_ms),
            report.mounts.len().into(),
            report.load.requests_per_second.into(),
            report.load.queue_delay_us.into(),
            report.weight.into(),
            report.version.as_str().into(),
            HEXLOWER.encode(&report.instance).into(),
        ]
    });
    let columns = [
        "group",
        "syncgroup",
        "machine",
        "state",
        "address",
        "admin",
        "silence_ms",
        "mounts",
        "requests_per_second",
        "queue_delay_us",
        "weight",
        "version",
        "instance",
    ];
    let answer = ConsoleAnswer::new().table("nodes", &columns, rows.collect());
    let refused = table.duplicates.iter().map(|(duplicate, ago_ms)| {
        vec![
            duplicate.group.as_str().into(),
            duplicate.machine.into(),
            duplicate.advertise.as_str().into(),
            duplicate.held_by.as_str().into(),
            duplicate.attempts.into(),
            Value::Millis(*ago_ms),
            HEXLOWER.encode(&duplicate.instance).into(),
        ]
    });
    let columns =
        ["group", "machine", "address", "held_by", "attempts", "last_attempt_ms", "instance"];
    Ok(answer.table("duplicate machine id", &columns, refused.collect()))
}

async fn mounts(words: Vec<String>, heartbeat: Addr<Heartbeat>) -> CommandResult {
    no_arguments(&words)?;
    let table = heartbeat.send(ShowTable).await.map_err(gone)?;
    let mut rows = Vec::new();
    for Row { report, state, .. } in &table.rows {
        for mount in &report.mounts {
            // A storage that gives no reason has no room.
            let full = mount.state == MountState::Online
                && mount.reason.is_empty()
                && *state == State::Online
                && (!mount.writable || (mount.total > 0 && mount.usable() == 0));
            let why = match mount.reason.as_str() {
                "" if full && mount.usable() > 0 => "it is full here or on a mirror".to_owned(),
                "" if full => {
                    format!("it is full: {}", no_puts::of_space(mount.free, mount.reserved))
                }
                reason => reason.to_owned(),
            };
            rows.push(vec![
                report.group.as_str().into(),
                report.syncgroup.as_str().into(),
                report.machine.into(),
                state.as_str().into(),
                mount.index.into(),
                mount.state.as_str().into(),
                (mount.writable && !full).into(),
                Value::Bytes(mount.free),
                Value::Bytes(mount.total),
                Value::Bytes(mount.reserved),
                why.into(),
            ]);
        }
    }
    let columns = [
        "group",
        "syncgroup",
        "machine",
        "node",
        "mount",
        "state",
        "writable",
        "free",
        "total",
        "reserved",
        "why",
    ];
    Ok(ConsoleAnswer::new().table("mounts", &columns, rows))
}

async fn route(words: Vec<String>, router: Addr<Router>) -> CommandResult {
    let [id] = words.as_slice() else {
        return Err("expected one id: route ID".to_owned());
    };
    let id: FileId = id.parse().map_err(|error| format!("{id:?}: {error}"))?;
    let question = Where::Object {
        group: id.group.clone(),
        syncgroup: id.syncgroup.clone(),
        owner: id.object.machine,
        mount: id.object.mount,
    };
    let (route, epoch) =
        router.send(question).await.map_err(gone)?.map_err(|error| error.to_string())?;
    let target = |(order, target): (usize, &Target)| {
        vec![
            (order + 1).into(),
            target.machine.into(),
            if target.owner { "owner" } else { "mirror" }.into(),
            target.state.as_str().into(),
            target.advertise.as_str().into(),
        ]
    };
    let targets = route.targets().enumerate().map(target).collect();
    let down = route.down.iter().map(|down| {
        vec![down.machine.into(), down.advertise.as_str().into(), down.why.as_str().into()]
    });
    let answer = ConsoleAnswer::new()
        .fact("group", id.group)
        .fact("syncgroup", id.syncgroup)
        .fact("owner", id.object.machine)
        .fact("mount", id.object.mount)
        .fact("epoch", epoch)
        .table("targets", &["order", "machine", "role", "state", "address"], targets);
    Ok(answer.table("down", &["machine", "address", "why"], down.collect()))
}
