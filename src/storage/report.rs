//! What a storage says of itself: to trackers, to operators.

use super::lately::{Lately, Sample, slow_of};
use super::no_puts;
use crate::actors::ambient;
use crate::actors::caller::Identity;
use crate::actors::reporter::{ReportSource, Reporter, ReporterStatus};
use crate::actors::storage_room::{StorageRoom, Writes};
use crate::cluster::alike::{COMMON_KEYS, Particulars};
use crate::cluster::view::{Load, MountState, MountView, Service, StorageReport, TEXT_LEN_MAX};
use crate::format::ids::MountIndex;
use crate::messages::heads::{Heartbeat, Member, Uuid};
use crate::settings::{Shown, StorageSettings};
use crate::store::mount::MountStats;
use actix::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A mount as an operator sees it.
#[derive(Clone, Debug)]
pub struct MountStatus {
    /// Its index.
    pub index: MountIndex,
    /// Its folder.
    pub path: String,
    /// What it is doing.
    pub state: MountState,
    /// What is wrong with it; empty if nothing.
    pub why: String,
    /// What mends it; empty if nothing.
    pub remedy: String,
    /// Whether it takes new objects.
    pub writable: bool,
    /// Whether it was found full lately.
    pub full: bool,
    /// Free bytes that inserts never eat.
    pub reserve_free: u64,
    /// A member has no room for new objects: why; empty if not so.
    pub full_elsewhere: String,
    /// Its numbers.
    pub stats: MountStats,
}

/// What the mirrors are told of this storage, so that they can say where they differ.
pub(super) fn particulars(settings: &StorageSettings) -> Particulars {
    let common = |shown: &&Shown| COMMON_KEYS.contains(&shown.key.as_str());
    Particulars {
        clock_ms: 0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mounts: settings.mounts.iter().map(|mount| mount.index).collect(),
        settings: settings
            .shown
            .iter()
            .filter(common)
            .map(|shown| (shown.key.clone(), shown.value.clone()))
            .collect(),
    }
}

/// All mounts as they are now.
pub fn mounts(room: &StorageRoom) -> Vec<MountStatus> {
    let mounts = room.placement.mounts().iter();
    mounts
        .map(|mount| {
            let published = mount.published();
            let (mut why, mut remedy) = (published.why.clone(), published.remedy.clone());
            if published.state == MountState::Online {
                (why, remedy) = no_puts::of_mirrors(room, mount);
            }
            let mut status = MountStatus {
                index: mount.index,
                path: mount.path.clone(),
                state: published.state,
                why,
                remedy,
                full: mount.is_full(),
                writable: mount.is_writable() && room.writes() == Writes::Taken,
                reserve_free: mount.reserve_free(),
                full_elsewhere: match mount.mirror.least_room() {
                    0 => mount.mirror.why_no_room(),
                    _some => String::new(),
                },
                stats: *mount.stats(),
            };
            status.writable &= !status.has_no_room();
            status
        })
        .collect()
}

/// Text that a tracker accepts.
fn bounded(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    text[..text.floor_char_boundary(TEXT_LEN_MAX)].to_owned()
}

fn report(
    room: &StorageRoom,
    settings: &StorageSettings,
    advertise: &str,
    instance: [u8; 16],
) -> StorageReport {
    let mounts = mounts(room);
    let refilling = mounts.iter().any(|mount| mount.state == MountState::Recovering)
        && !mounts.iter().any(|mount| mount.state == MountState::Online);
    let mounts = mounts.into_iter().map(|mount| MountView {
        index: mount.index,
        state: mount.state,
        total: mount.stats.space.total,
        free: mount.stats.space.free,
        reserved: mount.reserve_free,
        writable: mount.writable,
        reason: bounded(&mount.why),
    });
    let (in_flight_requests, in_flight_bytes) = room.budget.in_flight();
    StorageReport {
        group: settings.group.clone(),
        syncgroup: settings.syncgroup.clone(),
        machine: settings.machine_id,
        instance,
        advertise: advertise.to_owned(),
        admin: settings.listen.admin.map_or_else(String::new, |admin| admin.to_string()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        weight: settings.weight,
        service: match room.writes() {
            Writes::Taken if refilling => Service::Recovering,
            Writes::Taken => Service::Serving,
            Writes::ReadOnly => Service::ReadOnly,
            Writes::Draining | Writes::Stopping => Service::Draining,
        },
        mounts: mounts.collect(),
        load: Load {
            requests_per_second: room.counters.per_second.load(Ordering::Relaxed),
            in_flight_requests: in_flight_requests as u64,
            in_flight_bytes,
            queue_delay_us: room.counters.queue_delay_us.load(Ordering::Relaxed),
        },
        clock_ms: ambient::wall_ms(),
    }
}

/// The members of our syncgroup as our labels name them.
fn members(room: &StorageRoom) -> Vec<Member> {
    let mut all = BTreeMap::new();
    for mount in room.placement.mounts() {
        for member in mount.mirror.members().borrow().iter() {
            all.entry(member.machine).or_insert_with(|| Member {
                machine: member.machine,
                instance: Uuid::new(member.instance),
                address: member.address.clone(),
            });
        }
    }
    all.into_values().collect()
}

/// Who was removed from our syncgroup for good.
fn forgotten(room: &StorageRoom) -> Vec<Member> {
    let mut all = BTreeMap::new();
    for mount in room.placement.mounts() {
        let members = Arc::clone(&mount.mirror.members().borrow());
        for gone in mount.mirror.forgotten().iter() {
            // While it counts, and if it came back with what is its own again, it is not gone.
            if !members.iter().any(|member| member.machine == gone.machine) {
                all.insert((gone.machine, gone.instance), ());
            }
        }
    }
    all.into_keys()
        .map(|(machine, instance)| Member {
            machine,
            instance: Uuid::new(instance),
            address: String::new(),
        })
        .collect()
}

/// Starts a reporter for each tracker.
pub(super) fn start(
    settings: &Arc<StorageSettings>,
    room: &Arc<StorageRoom>,
    advertise: &str,
    identity: &Identity,
    control: &ArbiterHandle,
) -> Vec<(Addr<Reporter>, watch::Receiver<ReporterStatus>)> {
    let source: ReportSource = {
        let (room, settings) = (Arc::clone(room), Arc::clone(settings));
        let (advertise, instance) = (advertise.to_owned(), identity.instance);
        Arc::new(move || {
            let head = Heartbeat { members: members(&room), forgotten: forgotten(&room) };
            (report(&room, &settings, &advertise, instance), head)
        })
    };
    let start = |tracker: &String| {
        let (reporter, status) =
            Reporter::new(tracker.clone(), identity.clone(), Arc::clone(&source));
        (Reporter::start_in_arbiter(control, move |_| reporter), status)
    };
    settings.trackers.iter().map(start).collect()
}

/// Once a second: requests per second, and how long changes wait.
pub(super) fn tick(
    room: &Arc<StorageRoom>,
    control: &ArbiterHandle,
    stop: CancellationToken,
    lately: Arc<Mutex<Lately>>,
) {
    let room = Arc::clone(room);
    control.spawn(async move {
        let mut before = room.counters.total();
        let mut each = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = each.tick() => {}
                () = stop.cancelled() => return,
            }
            let now = room.counters.total();
            room.counters.per_second.store(now - before, Ordering::Relaxed);
            before = now;
            let mounts = room.placement.mounts();
            let syncs = mounts.iter().map(|m| (m.index, slow_of(&m.meters.syncs.counted())));
            let queue = room.meter.queue.counted();
            let sample = Sample {
                busy: room.budget.refused(),
                syncs: syncs.collect(),
                queue: (queue.buckets.iter().sum(), queue.sum),
            };
            let mut lately = lately.lock().unwrap_or_else(PoisonError::into_inner);
            lately.take(sample);
            room.counters.queue_delay_us.store(lately.queue_delay_us(), Ordering::Relaxed);
        }
    });
}
