//! How it stands between one of our mounts and the same one of another storage, as everybody here sees it (a part of
//! [`peers`](super::peers)).
//!
//! Invariant: the peer's own `SyncPeer` alone writes what is here.

use super::state_pull::compare::Compared;
use crate::cluster::coverage::Coverage;
use crate::format::ids::Sequence;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use tokio::sync::watch;

/// How it stands between one of our mounts and the same one of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SyncState {
    /// No connection, or it failed and is tried again.
    Disconnected = 0,
    /// The two meet.
    Handshake = 1,
    /// Our log is being sent from where the peer has it.
    CatchingUp = 2,
    /// It has all of our log but for what is on its way.
    Live = 3,
    /// Our log no longer holds what it lacks: that comes by state.
    NeedsState = 4,
    /// Its mount is out of service, or there is none.
    Away = 5,
}

impl SyncState {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Handshake => "handshake",
            Self::CatchingUp => "catching_up",
            Self::Live => "live",
            Self::NeedsState => "needs_state",
            Self::Away => "away",
        }
    }

    const fn of(number: u8) -> Self {
        match number {
            1 => Self::Handshake,
            2 => Self::CatchingUp,
            3 => Self::Live,
            4 => Self::NeedsState,
            5 => Self::Away,
            _ => Self::Disconnected,
        }
    }
}

/// One mount of a peer.
#[derive(Debug, Default)]
pub struct PeerMount {
    state: AtomicU8,
    introduced: AtomicBool,
    was_live: AtomicBool,
    holds_us_live: AtomicBool,
    acked: AtomicU64,
    sent_bytes: AtomicU64,
    errors: AtomicU64,
    coverage: ArcSwap<Coverage>,
    error: ArcSwap<String>,
    compared: ArcSwapOption<Compared>,
    /// Comparisons in line that found a difference and could not mend it.
    unlike: AtomicU64,
    /// It says that it is out of service.
    away: watch::Sender<bool>,
    /// It has said anything about it on this connection.
    reported: AtomicBool,
    /// It says that it is being refilled.
    refilling: watch::Sender<bool>,
}

impl PeerMount {
    /// How it stands.
    #[must_use]
    pub fn state(&self) -> SyncState {
        SyncState::of(self.state.load(Ordering::Acquire))
    }

    /// Whether it has answered, on this connection, knowing us as a member.
    #[must_use]
    pub fn is_introduced(&self) -> bool {
        self.introduced.load(Ordering::Acquire)
    }

    /// Whether it was live since it was connected.
    #[must_use]
    pub fn was_live(&self) -> bool {
        self.was_live.load(Ordering::Acquire)
    }

    /// Whether it says that we have all of its log.
    #[must_use]
    pub fn holds_us_live(&self) -> bool {
        self.holds_us_live.load(Ordering::Acquire)
    }

    /// Whether it is being refilled: it takes records, and counts for nothing.
    #[must_use]
    pub fn is_refilling(&self) -> bool {
        *self.refilling.borrow()
    }

    /// Whether it has said, on this connection, that it serves.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.reported.load(Ordering::Acquire) && !*self.away.borrow() && !self.is_refilling()
    }

    /// Our log up to here is durable and applied there.
    #[must_use]
    pub fn acked(&self) -> Sequence {
        self.acked.load(Ordering::Acquire)
    }

    /// What it has of every log, some milliseconds ago.
    #[must_use]
    pub fn coverage(&self) -> Arc<Coverage> {
        self.coverage.load_full()
    }

    /// Bytes of records sent since the start.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Errors since the start.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// What went wrong last; empty if nothing did since it was live.
    #[must_use]
    pub fn error(&self) -> Arc<String> {
        self.error.load_full()
    }

    /// How the last comparison with it ended, since the start.
    #[must_use]
    pub fn compared(&self) -> Option<Arc<Compared>> {
        self.compared.load_full()
    }

    /// How many comparisons in line have found a difference that could not be mended.
    #[must_use]
    pub fn unlike(&self) -> u64 {
        self.unlike.load(Ordering::Relaxed)
    }

    pub(super) fn set_compared(&self, compared: Compared) {
        if compared.is_identical() {
            self.unlike.store(0, Ordering::Relaxed);
        } else {
            self.unlike.fetch_add(1, Ordering::Relaxed);
        }
        self.compared.store(Some(Arc::new(compared)));
    }

    pub(super) fn set_state(&self, state: SyncState) {
        if state == SyncState::Live {
            self.was_live.store(true, Ordering::Release);
            if !self.error.load().is_empty() {
                self.error.store(Arc::default());
            }
        }
        self.state.store(state as u8, Ordering::Release);
    }

    pub(super) fn set_introduced(&self, introduced: bool) {
        self.introduced.store(introduced, Ordering::Release);
    }

    pub(super) fn set_holds_us_live(&self, live: bool) {
        self.holds_us_live.store(live, Ordering::Release);
    }

    pub(super) fn set_away(&self, away: bool) {
        self.away.send_if_modified(|known| std::mem::replace(known, away) != away);
    }

    pub(super) fn set_refilling(&self, refilling: bool) {
        self.refilling.send_if_modified(|known| std::mem::replace(known, refilling) != refilling);
    }

    pub(super) fn set_reported(&self) {
        self.reported.store(true, Ordering::Release);
    }

    /// Waits until it is no longer being refilled.
    pub(super) async fn is_refilled(&self) {
        if self.refilling.subscribe().wait_for(|refilling| !refilling).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether it takes records: it serves, or is being refilled and listens.
    pub(super) fn takes_records(&self) -> bool {
        !*self.away.borrow()
    }

    /// Waits until it no longer says that it is out of service; for ever if it does not say so.
    pub(super) async fn came_back(&self) {
        let mut away = self.away.subscribe();
        if !*away.borrow_and_update() || away.wait_for(|away| !*away).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until it says that it is out of service.
    pub(super) async fn went_away(&self) {
        if self.away.subscribe().wait_for(|away| *away).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn set_acked(&self, acked: Sequence) {
        self.acked.store(acked, Ordering::Release);
    }

    pub(super) fn set_coverage(&self, coverage: Coverage) {
        self.coverage.store(Arc::new(coverage));
    }

    pub(super) fn count_sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, state: SyncState, why: &str) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        if **self.error.load() != why {
            self.error.store(Arc::new(why.to_owned()));
        }
        self.set_state(state);
    }

    /// The connection is gone, and with it all that was true on it.
    pub(super) fn disconnected(&self, why: &str) {
        self.set_introduced(false);
        self.set_holds_us_live(false);
        self.set_away(false);
        self.set_refilling(false);
        self.reported.store(false, Ordering::Release);
        self.was_live.store(false, Ordering::Release);
        if **self.error.load() != why {
            self.error.store(Arc::new(why.to_owned()));
        }
        self.set_state(SyncState::Disconnected);
    }
}
