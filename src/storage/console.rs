//! What a storage's console can be asked: `status`, `mounts`, `nodes`, `peers`, `conflicts`, `forget`. The rest of the table comes with the
//! rooms that it is about.

mod conflicts;
mod forget;
mod inspect;
mod operate;
mod peers;
mod recover;
mod scrub;
mod warnings;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::lately::Lately;
use super::memory_file::MemoryFile;
use super::mirrors::Mirrors;
use super::report::{self, MountStatus};
use super::scrubs::Scrubs;
use crate::actors::admin_console::{
    CommandResult, ConsoleAnswer, ConsoleSource, Value, no_arguments,
};
use crate::actors::ambient::Monotonic;
use crate::actors::reporter::{Registration, ReporterStatus};
use crate::actors::storage_room::{StorageRoom, Writes};
use crate::cluster::view::MountState;
use crate::format::ids::MountIndex;
use crate::rotation::Rotation;
use crate::settings::{Acks, StorageSettings};

/// What the commands look at. Nothing here blocks.
pub(super) struct Sight {
    pub room: Arc<StorageRoom>,
    pub settings: Arc<StorageSettings>,
    pub memory: Arc<MemoryFile>,
    /// With the tracker's address.
    pub trackers: Vec<(String, watch::Receiver<ReporterStatus>)>,
    pub clock: Monotonic,
    pub mirrors: Arc<Mirrors>,
    /// The last minute.
    pub lately: Arc<Mutex<Lately>>,
    pub scrubs: Arc<Scrubs>,
    pub rotation: Arc<Rotation>,
}

/// The commands of one storage.
pub(super) fn source(sight: Arc<Sight>) -> ConsoleSource {
    let node = sight.room.session.name.clone();
    let status = sight;
    let (mounts, nodes) = (Arc::clone(&status), Arc::clone(&status));
    let (peers, sync) = (Arc::clone(&status), Arc::clone(&status));
    let (conflicts, forget) = (Arc::clone(&status), Arc::clone(&status));
    let (recover, scrub) = (Arc::clone(&status), Arc::clone(&status));
    let source = ConsoleSource::new(node, "storage", env!("CARGO_PKG_VERSION"));
    operations(source, &status)
        .command("status", "", "how this storage is, and what mends what is wrong", move |words| {
            let sight = Arc::clone(&status);
            async move { sight.status(&words) }
        })
        .command("mounts", "", "every mount: state, space, chunkfiles, log", move |words| {
            let sight = Arc::clone(&mounts);
            async move { sight.mounts(&words) }
        })
        .command(
            "nodes",
            "",
            "the members of this syncgroup: as remembered, and as the trackers name them",
            move |words| {
                let sight = Arc::clone(&nodes);
                async move { sight.nodes(&words) }
            },
        )
        .command(
            "peers",
            "",
            "every mirror, mount by mount: state, lag, last error",
            move |words| {
                let sight = Arc::clone(&peers);
                async move { sight.peers(&words) }
            },
        )
        .command(
            "conflicts",
            "[list | show N | restore N | drop N]",
            "edits that lost a conflict: look at them, put one back, give one up",
            move |words| {
                let sight = Arc::clone(&conflicts);
                async move { sight.conflicts(&words).await }
            },
        )
        .command(
            "forget",
            "MACHINE",
            "remove a member for good: nothing waits for it any more, and as it was it is refused for ever",
            move |words| {
                let sight = Arc::clone(&forget);
                async move { sight.forget(&words).await }
            },
        )
        .command(
            "recover",
            "[MOUNT] [status | start [--confirm] | pause | resume | accept-loss | bandwidth RATE | streams N]",
            "mounts that are refilled from their mirrors: how far, from whom, what they wait for",
            move |words| {
                let sight = Arc::clone(&recover);
                async move { sight.recover(&words).await }
            },
        )
        .command(
            "scrub",
            "[MOUNT] [status | start | pause | resume]",
            "what is verified in the background: how far, what was found damaged, what was repaired",
            move |words| {
                let sight = Arc::clone(&scrub);
                async move { sight.scrub(&words).await }
            },
        )
        .command("sync", "", "the same as `peers`", move |words| {
            let sight = Arc::clone(&sync);
            async move { sight.peers(&words) }
        })
}

/// What an operator does, and looks up.
fn operations(source: ConsoleSource, sight: &Arc<Sight>) -> ConsoleSource {
    let (find, chunk, requests) = (Arc::clone(sight), Arc::clone(sight), Arc::clone(sight));
    let route = Arc::clone(sight);
    let (readonly, drain, config) = (Arc::clone(sight), Arc::clone(sight), Arc::clone(sight));
    source
        .command("find", "ID", "where an object lies on this machine", move |words| {
            let sight = Arc::clone(&find);
            async move { sight.find(&words).await }
        })
        .command(
            "route",
            "ID",
            "who would be asked for an object, as this storage remembers the members",
            move |words| {
                let sight = Arc::clone(&route);
                async move { sight.route(&words) }
            },
        )
        .command(
            "chunk",
            "MOUNT NUMBER|MACHINE/LOG_ID/NUMBER [FROM [MACHINE LOG_ID]]",
            "the slots of a chunkfile, a page at a time",
            move |words| {
                let sight = Arc::clone(&chunk);
                async move { sight.chunk(&words).await }
            },
        )
        .command(
            "requests",
            "[op=NAME] [result=CODE] [who=TEXT] [id=TEXT] [slower=TIME] [last=N]",
            "the last requests: who asked what, how long it took and where",
            move |words| {
                let sight = Arc::clone(&requests);
                async move { sight.requests(&words) }
            },
        )
        .command("readonly", "on|off", "refuse every change of an object, or not", move |words| {
            let sight = Arc::clone(&readonly);
            async move { sight.readonly(&words) }
        })
        .command(
            "drain",
            "[off]",
            "take no new objects; says when the mirrors have everything and it may be stopped",
            move |words| {
                let sight = Arc::clone(&drain);
                async move { sight.drain(&words).await }
            },
        )
        .command(
            "config",
            "[show [PART] | set KEY VALUE]",
            "what holds and why; change what can be changed while it runs",
            move |words| {
                let sight = Arc::clone(&config);
                async move { sight.config(&words) }
            },
        )
        .command("log", "error|warn|info|debug|trace", "how much is logged", |words| async move {
            crate::operate::log(&words)
        })
        .command("shutdown", "", "stop in order, as by SIGTERM", |words| async move {
            crate::operate::shutdown(&words)
        })
}

impl Sight {
    fn status(&self, words: &[String]) -> CommandResult {
        no_arguments(words)?;
        let room = &self.room;
        let mounts = report::mounts(room);
        let warnings = self.warnings(&mounts);
        let counters = &room.counters;
        let (requests, bytes) = room.budget.in_flight();
        let (requests_max, bytes_max) = room.budget.limits();
        let serving = mounts.iter().filter(|m| m.state == MountState::Online).count();
        let answer = ConsoleAnswer::new()
            .fact("node", room.session.name.as_str())
            .fact("state", self.state(&mounts))
            .fact("uptime_ms", Value::Millis(self.clock.now_ms()))
            .fact("mounts_online", serving)
            .fact("mounts_configured", mounts.len())
            .fact("acks", acks_word(self.settings.durability.acks))
            .fact("degraded", room.is_degraded())
            .fact("requests_per_second", counters.per_second.load(Ordering::Relaxed))
            .fact("queue_delay_us", counters.queue_delay_us.load(Ordering::Relaxed))
            .fact("puts", counters.puts.load(Ordering::Relaxed))
            .fact("gets", counters.gets.load(Ordering::Relaxed))
            .fact("modifies", counters.modifies.load(Ordering::Relaxed))
            .fact("deletes", counters.deletes.load(Ordering::Relaxed))
            .fact("forwarded", counters.forwarded.load(Ordering::Relaxed))
            .fact("asked_others", counters.asked_others.load(Ordering::Relaxed))
            .fact("refused", counters.refused.load(Ordering::Relaxed))
            .fact("connections", counters.connections.load(Ordering::Relaxed))
            .fact("in_flight_requests", requests)
            .fact("in_flight_requests_max", requests_max)
            .fact("in_flight_bytes", Value::Bytes(bytes))
            .fact("in_flight_bytes_max", Value::Bytes(bytes_max))
            .fact("busy_answers", room.budget.refused())
            .fact("conflicts_met", mounts.iter().map(|m| m.stats.conflicts).sum::<u64>())
            .fact("conflicts_kept", mounts.iter().map(|m| m.stats.archived).sum::<u64>())
            .table("logs", &["mount", "log_id", "durable", "checkpointed"], self.logs(&mounts))
            .table("trackers", &["tracker", "state", "connects", "why"], self.tracker_rows());
        let row = |(what, remedy): (String, String)| vec![what.into(), remedy.into()];
        let rows = warnings.into_iter().map(row).collect();
        Ok(answer.table("warnings", &["what", "remedy"], rows))
    }

    fn state(&self, mounts: &[MountStatus]) -> &'static str {
        let online = mounts.iter().any(|mount| mount.state == MountState::Online);
        match (self.room.writes(), online) {
            (Writes::Draining, _) => "draining",
            (Writes::Stopping, _) => "stopping",
            (Writes::ReadOnly, _) => "readonly",
            (Writes::Taken, true) => "serving",
            (Writes::Taken, false) => "no mount serves",
        }
    }

    fn logs(&self, mounts: &[MountStatus]) -> Vec<Vec<Value>> {
        let log_id = |index: MountIndex| {
            self.memory.with(|memory| {
                let known = memory.mounts.iter().find(|mount| mount.index == index);
                known.and_then(|mount| mount.log_ids.last()).map(|id| format!("{id:08x}"))
            })
        };
        let row = |mount: &MountStatus| {
            vec![
                mount.index.into(),
                log_id(mount.index).into(),
                format!("{:x}", mount.stats.durable).into(),
                format!("{:x}", mount.stats.checkpointed).into(),
            ]
        };
        mounts.iter().map(row).collect()
    }

    fn tracker_rows(&self) -> Vec<Vec<Value>> {
        let row = |(address, status): &(String, watch::Receiver<ReporterStatus>)| {
            let status = status.borrow();
            let (state, why) = match &status.registration {
                Registration::Connecting => ("connecting", ""),
                Registration::Registered => ("registered", ""),
                Registration::Refused(why) => ("refused", why.as_str()),
                Registration::Unreachable { why, .. } => ("unreachable", why.as_str()),
            };
            vec![address.as_str().into(), state.into(), status.connects.into(), why.into()]
        };
        self.trackers.iter().map(row).collect()
    }

    fn mounts(&self, words: &[String]) -> CommandResult {
        no_arguments(words)?;
        let writes = self.room.writes();
        let rows = report::mounts(&self.room).into_iter().map(|mount| {
            let why = mount.why_no_puts(writes);
            let stats = &mount.stats;
            let dead = stats.hole_bytes + stats.waiting_bytes + stats.counters.deleted_bytes;
            vec![
                mount.index.into(),
                mount.state.as_str().into(),
                mount.path.into(),
                mount.writable.into(),
                Value::Bytes(stats.space.free),
                Value::Bytes(stats.space.total),
                Value::Bytes(mount.reserve_free),
                stats.counters.live_objects.into(),
                Value::Bytes(stats.counters.live_bytes),
                Value::Bytes(dead),
                stats.chunkfiles.into(),
                stats.holes.into(),
                Value::Bytes(stats.log_bytes),
                self.last_scrub(mount.index).into(),
                why.into(),
            ]
        });
        let columns = [
            "mount",
            "state",
            "path",
            "writable",
            "free",
            "total",
            "reserved",
            "objects",
            "live",
            "dead",
            "chunkfiles",
            "holes",
            "log",
            "last_scrub",
            "why",
        ];
        Ok(ConsoleAnswer::new().table("mounts", &columns, rows.collect()))
    }

    /// When everything on a mount was verified last; empty: never yet.
    fn last_scrub(&self, index: MountIndex) -> String {
        let mount = self.room.placement.mount(index);
        mount.map_or_else(|_| String::new(), |mount| scrub::since(mount.scrub.status().finished_ms))
    }

    fn nodes(&self, words: &[String]) -> CommandResult {
        no_arguments(words)?;
        let (group, syncgroup) = (&self.settings.group, &self.settings.syncgroup);
        let mut rows = Vec::new();
        for (tracker, status) in &self.trackers {
            let status = status.borrow();
            let Some(view) = &status.view else { continue };
            for (_, _, storage) in
                view.storages().filter(|(g, s, _)| (*g, *s) == (group.as_str(), syncgroup.as_str()))
            {
                rows.push(vec![
                    storage.machine.into(),
                    storage.state.as_str().into(),
                    storage.advertise.as_str().into(),
                    storage.admin.as_str().into(),
                    storage.version.as_str().into(),
                    (storage.machine == self.settings.machine_id).into(),
                    tracker.as_str().into(),
                ]);
            }
        }
        let columns = ["machine", "state", "address", "admin", "version", "this", "tracker"];
        Ok(ConsoleAnswer::new()
            .fact("group", group.as_str())
            .fact("syncgroup", syncgroup.as_str())
            .table(
                "members",
                &["mount", "machine", "address", "instance", "log_ids", "this", "connected"],
                self.members(),
            )
            .table(
                "forgotten",
                &["mount", "machine", "instance", "log_ids", "state"],
                self.forgotten_rows(),
            )
            .table("nodes", &columns, rows))
    }
}

const fn acks_word(acks: Acks) -> &'static str {
    match acks {
        Acks::Local => "local",
        Acks::Mirror => "mirror",
        Acks::All => "all",
    }
}
