//! The metrics page of a storage. Everything on it was counted or published before: making it blocks nowhere.

use super::console::Sight;
use super::report::{self, MountStatus};
use crate::actors::metrics_page::{self, Kind, Labels, Page};
use crate::actors::mirror::Outlook;
use crate::actors::peers::SyncState;
use crate::actors::reporter::Registration;
use crate::actors::shared_mount::SharedMount;
use crate::actors::storage_room::Writes;
use std::sync::atomic::Ordering;

/// States of a mirror, as `peers` names them.
const STATES: [SyncState; 6] = [
    SyncState::Disconnected,
    SyncState::Handshake,
    SyncState::CatchingUp,
    SyncState::NeedsState,
    SyncState::Away,
    SyncState::Live,
];

impl Sight {
    /// The page.
    pub(super) fn metrics(&self) -> String {
        let mut page = Page::new();
        metrics_page::process(&mut page, "storage", self.clock.now_ms());
        metrics_page::requests(&mut page, &self.room.meter);
        self.load(&mut page);
        let mounts = report::mounts(&self.room);
        self.mounts_work(&mut page);
        mounts_space(&mut page, &mounts);
        self.scrubbing(&mut page);
        self.mirrors(&mut page);
        self.trackers_known(&mut page);
        page.finish()
    }

    fn load(&self, page: &mut Page) {
        let room = &self.room;
        let meter = &room.meter;
        let (requests, bytes) = room.budget.in_flight();
        let (requests_max, bytes_max) = room.budget.limits();
        page.family(
            "folio_queue_seconds",
            Kind::Histogram,
            "Changes: from the frame to the moment when their mount begins with them.",
        )
        .histogram(&[], &meter.queue.counted(), 1e6);
        page.family(
            "folio_content_bytes_total",
            Kind::Counter,
            "Bytes of content from and to clients.",
        )
        .sample(&[("direction", "in")], meter.bytes_in.load(Ordering::Relaxed))
        .sample(&[("direction", "out")], meter.bytes_out.load(Ordering::Relaxed));
        page.family("folio_in_flight_requests", Kind::Gauge, "Requests in hand.")
            .sample(&[], requests as u64);
        page.family("folio_in_flight_requests_max", Kind::Gauge, "As many as may be in hand.")
            .sample(&[], requests_max as u64);
        page.family("folio_in_flight_bytes", Kind::Gauge, "Bytes that requests in hand hold.")
            .sample(&[], bytes);
        page.family("folio_in_flight_bytes_max", Kind::Gauge, "As many as they may hold.")
            .sample(&[], bytes_max);
        page.family(
            "folio_busy_total",
            Kind::Counter,
            "Requests told busy: the budget was used up.",
        )
        .sample(&[], room.budget.refused());
        page.family("folio_connections", Kind::Gauge, "Connections of clients and peers.")
            .sample(&[], room.counters.connections.load(Ordering::Relaxed) as u64);
        page.family("folio_forwarded_total", Kind::Counter, "Changes handed to their owner.")
            .sample(&[], room.counters.forwarded.load(Ordering::Relaxed));
        page.family(
            "folio_degraded",
            Kind::Gauge,
            "1: fewer copies than durability.acks asks for.",
        )
        .sample(&[], room.is_degraded().into());
        let takes = u64::from(room.writes() == Writes::Taken);
        page.family("folio_takes_writes", Kind::Gauge, "0: read-only or draining.")
            .sample(&[], takes);
    }

    fn mounts_work(&self, page: &mut Page) {
        let mounts = self.room.placement.mounts();
        let indices: Vec<String> = mounts.iter().map(|mount| mount.index.to_string()).collect();
        let labelled = || mounts.iter().zip(&indices);
        page.family(
            "folio_commit_seconds",
            Kind::Histogram,
            "One commit: log written and synced, slots written.",
        );
        for (mount, index) in labelled() {
            page.histogram(&[("mount", index)], &mount.meters.commits.counted(), 1e6);
        }
        page.family("folio_sync_seconds", Kind::Histogram, "One fdatasync of log or chunkfile.");
        for (mount, index) in labelled() {
            page.histogram(&[("mount", index)], &mount.meters.syncs.counted(), 1e6);
        }
        page.family("folio_commit_changes", Kind::Histogram, "Changes that one commit answered.");
        for (mount, index) in labelled() {
            page.histogram(&[("mount", index)], &mount.meters.batches.counted(), 1.0);
        }
        page.family("folio_mount_outlook", Kind::Gauge, "1 for how the mount acknowledges now.");
        for (mount, index) in labelled() {
            let outlook = match mount.mirror.outlook() {
                Outlook::Good => "good",
                Outlook::Degraded => "degraded",
                Outlook::Refused => "refused",
                Outlook::Joining => "joining",
            };
            page.sample(&[("mount", index), ("outlook", outlook)], 1);
        }
    }

    fn scrubbing(&self, page: &mut Page) {
        let mounts = self.room.placement.mounts();
        let indices: Vec<String> = mounts.iter().map(|mount| mount.index.to_string()).collect();
        for (name, kind, help, value) in SCRUBS {
            page.family(name, kind, help);
            for (mount, index) in mounts.iter().zip(&indices) {
                page.sample(&[("mount", index)], value(mount));
            }
        }
    }

    fn mirrors(&self, page: &mut Page) {
        let peers = self.room.peers.all();
        let names: Vec<String> = peers.iter().map(|peer| peer.machine.to_string()).collect();
        page.family("folio_mirror_connected", Kind::Gauge, "1: the mirror is connected.");
        for (peer, name) in peers.iter().zip(&names) {
            page.sample(&[("peer", name)], peer.is_connected().into());
        }
        page.family("folio_mirror_connects_total", Kind::Counter, "Connections made to it.");
        for (peer, name) in peers.iter().zip(&names) {
            page.sample(&[("peer", name)], peer.connects());
        }
        let mut rows = Vec::new();
        for (peer, name) in peers.iter().zip(&names) {
            for mount in self.room.placement.mounts() {
                if let Some(there) = peer.mount(mount.index) {
                    let lag = mount.mirror.behind(there.acked());
                    rows.push((name, mount.index.to_string(), lag, there));
                }
            }
        }
        page.family("folio_mirror_state", Kind::Gauge, "1 for the state of the mirror of a mount.");
        for (name, mount, _, there) in &rows {
            for state in STATES {
                let labels: Labels<'_> =
                    &[("peer", name), ("mount", mount), ("state", state.name())];
                page.sample(labels, u64::from(there.state() == state));
            }
        }
        page.family("folio_mirror_lag_records", Kind::Gauge, "Records that the mirror lacks.");
        for (name, mount, lag, _) in &rows {
            page.sample(&[("peer", name), ("mount", mount)], lag.records);
        }
        page.family("folio_mirror_lag_bytes", Kind::Gauge, "Bytes of log that it lacks.");
        for (name, mount, lag, _) in &rows {
            page.sample(&[("peer", name), ("mount", mount)], lag.bytes);
        }
        page.family("folio_mirror_lag_seconds", Kind::Gauge, "Age of the oldest that it lacks.");
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of lag")]
        for (name, mount, lag, _) in &rows {
            page.seconds(&[("peer", name), ("mount", mount)], lag.ms as f64 / 1e3);
        }
        page.family("folio_mirror_sent_bytes_total", Kind::Counter, "Bytes of log sent to it.");
        for (name, mount, _, there) in &rows {
            page.sample(&[("peer", name), ("mount", mount)], there.sent_bytes());
        }
        page.family("folio_mirror_errors_total", Kind::Counter, "What went wrong on the way.");
        for (name, mount, _, there) in &rows {
            page.sample(&[("peer", name), ("mount", mount)], there.errors());
        }
    }

    fn trackers_known(&self, page: &mut Page) {
        page.family("folio_tracker_registered", Kind::Gauge, "1: this tracker has us in its view.");
        for (address, status) in &self.trackers {
            let known = status.borrow().registration == Registration::Registered;
            page.sample(&[("tracker", address)], known.into());
        }
    }
}

/// One about the verification of a mount.
type ScrubFamily = (&'static str, Kind, &'static str, fn(&SharedMount) -> u64);

const SCRUBS: [ScrubFamily; 8] = [
    ("folio_scrub_bytes_total", Kind::Counter, "Bytes verified since the start.", |m| {
        m.scrub.verified()
    }),
    ("folio_scrub_found_total", Kind::Counter, "Damages found.", |m| m.scrub.findings().found),
    ("folio_scrub_repaired_total", Kind::Counter, "Of those, repaired.", |m| {
        m.scrub.findings().repaired
    }),
    ("folio_scrub_gone_total", Kind::Counter, "Of those, overwritten or removed.", |m| {
        m.scrub.findings().gone
    }),
    ("folio_scrub_open", Kind::Gauge, "Of those, neither: nobody has them whole.", |m| {
        m.scrub.findings().open_count() as u64
    }),
    ("folio_read_repairs_total", Kind::Counter, "Of those found, met by reads.", |m| {
        m.scrub.findings().by_reads
    }),
    ("folio_scrub_running", Kind::Gauge, "1: a round runs.", |m| {
        let status = m.scrub.status();
        u64::from(status.running && !status.paused)
    }),
    ("folio_scrub_finished_seconds", Kind::Gauge, "When the last round ended, Unix time.", |m| {
        m.scrub.status().finished_ms / 1000
    }),
];

/// A gauge or counter of a mount: name, kind, help, value.
type MountFamily = (&'static str, Kind, &'static str, fn(&MountStatus) -> u64);

const MOUNTS: [MountFamily; 15] = [
    ("folio_conflicts_kept", Kind::Gauge, "Versions that lost a conflict.", |m| m.stats.archived),
    ("folio_conflicts_met_total", Kind::Counter, "Conflicts since the start.", |m| {
        m.stats.conflicts
    }),
    ("folio_mount_writable", Kind::Gauge, "1: it takes new objects.", |m| m.writable.into()),
    ("folio_mount_full", Kind::Gauge, "1: its reserve is reached.", |m| m.full.into()),
    ("folio_mount_free_bytes", Kind::Gauge, "Free on its file system.", |m| m.stats.space.free),
    ("folio_mount_total_bytes", Kind::Gauge, "Size of its file system.", |m| m.stats.space.total),
    ("folio_mount_reserve_bytes", Kind::Gauge, "Inserts leave so much free.", |m| m.reserve_free),
    ("folio_mount_chunkfiles", Kind::Gauge, "Chunkfiles.", |m| m.stats.chunkfiles),
    ("folio_mount_handed_out_bytes", Kind::Gauge, "Handed out in chunkfiles.", |m| {
        m.stats.used_bytes
    }),
    ("folio_mount_holes", Kind::Gauge, "Free places in chunkfiles.", |m| m.stats.holes),
    ("folio_mount_hole_bytes", Kind::Gauge, "Bytes of them.", |m| m.stats.hole_bytes),
    ("folio_mount_waiting_bytes", Kind::Gauge, "Freed, kept until all members know.", |m| {
        m.stats.waiting_bytes
    }),
    ("folio_mount_log_bytes", Kind::Gauge, "Its own log.", |m| m.stats.log_bytes),
    ("folio_mount_commits_total", Kind::Counter, "Batches written.", |m| m.stats.batches),
    ("folio_mount_records_total", Kind::Counter, "Records in them.", |m| m.stats.records),
];

fn mounts_space(page: &mut Page, mounts: &[MountStatus]) {
    let indices: Vec<String> = mounts.iter().map(|mount| mount.index.to_string()).collect();
    page.family("folio_mount_state", Kind::Gauge, "1 for what the mount is doing.");
    for (mount, index) in mounts.iter().zip(&indices) {
        page.sample(&[("mount", index), ("path", &mount.path), ("state", mount.state.as_str())], 1);
    }
    for (name, kind, help, value) in MOUNTS {
        page.family(name, kind, help);
        for (mount, index) in mounts.iter().zip(&indices) {
            page.sample(&[("mount", index)], value(mount));
        }
    }
    page.family("folio_mount_objects", Kind::Gauge, "Objects, by whether they answer.");
    for (mount, index) in mounts.iter().zip(&indices) {
        let counters = &mount.stats.counters;
        page.sample(&[("mount", index), ("state", "live")], counters.live_objects);
        page.sample(&[("mount", index), ("state", "deleted")], counters.deleted_objects);
    }
    page.family("folio_mount_object_bytes", Kind::Gauge, "Bytes of their contents.");
    for (mount, index) in mounts.iter().zip(&indices) {
        let counters = &mount.stats.counters;
        page.sample(&[("mount", index), ("state", "live")], counters.live_bytes);
        page.sample(&[("mount", index), ("state", "deleted")], counters.deleted_bytes);
    }
}
