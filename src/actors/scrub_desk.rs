//! What is known of damage on a mount, and how far its verification is: for whoever meets damage, and for people.
//!
//! Any thread writes what it met; only the mount's [`Scrubber`](super::scrubber) takes it up and says how far it is. Invariant:
//! whoever reports waits for nobody.

use super::ambient;
use crate::cluster::scrub::{Damage, Findings};
use crate::format::file_id::ObjectId;
use crate::format::ids::Address;
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How far the verification is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// A round has begun and not ended.
    pub running: bool,
    /// An operator paused it.
    pub paused: bool,
    /// As fast as it may.
    pub at_once: bool,
    /// When this round, or the last one, began, ms since 1970; 0: never.
    pub begun_ms: u64,
    /// When the last round ended, ms since 1970; 0: never.
    pub finished_ms: u64,
    /// Bytes verified in this round.
    pub done: u64,
    /// Bytes that are to be verified in it, about.
    pub total: u64,
    /// Bytes per second now; 0: no limit, or it waits.
    pub rate: u64,
    /// Why it does not go on; empty if it does.
    pub why: String,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ScrubDesk {
    findings: Mutex<Findings>,
    status: ArcSwap<ScrubStatus>,
    verified: AtomicU64,
    /// An operator has said something that the scrubber has not taken up yet.
    ordered: AtomicBool,
    wake: Notify,
}

impl ScrubDesk {
    /// A read met damage of this object.
    pub fn suspect(&self, object: ObjectId) {
        if self.findings().suspect(object) {
            self.wake.notify_one();
        }
    }

    /// These homes were damaged, and are written again.
    pub fn mended(&self, homes: &[Address]) {
        if homes.is_empty() {
            return;
        }
        let mut findings = self.findings();
        for home in homes {
            findings.repaired(Damage::Object(*home));
        }
    }

    /// What is known.
    pub fn findings(&self) -> MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is.
    #[must_use]
    pub fn status(&self) -> Arc<ScrubStatus> {
        self.status.load_full()
    }

    /// Bytes verified since the daemon started.
    #[must_use]
    pub fn verified(&self) -> u64 {
        self.verified.load(Ordering::Relaxed)
    }

    /// Whether an order waits to be taken up: what [`Self::status`] says is older.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.ordered.load(Ordering::Acquire)
    }

    pub(super) fn set_ordered(&self, ordered: bool) {
        self.ordered.store(ordered, Ordering::Release);
    }

    /// Has the scrubber look what there is to do.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn publish(&self, status: ScrubStatus) {
        if **self.status.load() != status {
            self.status.store(Arc::new(status));
        }
    }

    pub(super) fn count_verified(&self, bytes: u64) {
        self.verified.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Damage was found. Said once.
    pub(super) fn found(&self, mount: u8, damage: Damage, object: Option<ObjectId>, why: &str) {
        let now_ms = ambient::wall_ms();
        let new = match object {
            Some(object) => self.findings().found_by_read(object, why, now_ms),
            None => self.findings().found(damage, why, now_ms),
        };
        if new {
            tracing::error!(mount, %damage, why, "damage found");
        }
    }
}
