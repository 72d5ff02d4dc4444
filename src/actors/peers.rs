//! The other storages of our syncgroup, as everybody on this storage sees them: how to call them, whether they live,
//! how far each mount is there.
//!
//! Invariants: a peer's own `SyncPeer` alone writes what is here; anybody may read and call, from any thread. *Live* is said
//! of a peer's mount that is connected, has caught up, and does not let acknowledgements wait; it is said by the clock of this
//! machine only.

use super::ambient::{self, Monotonic};
use super::budget::Budget;
use super::caller::CallError;
use super::content_fetch::Fetches;
use super::offers::Offers;
use super::peer_link::Link;
pub use super::peer_mount::{PeerMount, SyncState};
use super::placement::Placement;
use super::state_pull::pulls::Pulls;
use super::turns::Turns;
use crate::cluster::alike::{Particulars, clock_ahead};
use crate::cluster::coverage::Coverage;
use crate::format::ids::{MachineId, MountIndex};
use crate::messages::frame::Frame;
use crate::messages::opcode::Opcode;
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes that all peers together may have in flight to this storage.
const PEER_BYTES: u64 = 256 << 20;
/// Requests, likewise.
const PEER_REQUESTS: usize = 1 << 16;

/// Two connections to a peer: what is large never stands before what is small.
#[derive(Clone, Debug)]
pub struct Links {
    /// Records, and questions about them.
    pub push: Arc<Link>,
    /// Everything else: contents of large objects, requests that are handed on.
    pub calls: Arc<Link>,
}

/// What a peer told of itself.
#[derive(Clone, Debug)]
pub struct Told {
    /// Within bounds.
    pub particulars: Particulars,
    /// By how much its clock was ahead of ours, milliseconds.
    pub clock_ahead_ms: i64,
}

/// Another storage of our syncgroup.
#[derive(Debug)]
pub struct Peer {
    /// Its machine id.
    pub machine: MachineId,
    address: ArcSwap<String>,
    links: ArcSwapOption<Links>,
    heard: Arc<AtomicU64>,
    connects: AtomicU64,
    /// The last attempt to connect failed.
    unreachable: AtomicBool,
    error: ArcSwap<String>,
    remedy: ArcSwap<&'static str>,
    told: ArcSwapOption<Told>,
    mounts: BTreeMap<MountIndex, Arc<PeerMount>>,
    kick: Notify,
}

impl Peer {
    /// A peer that was never connected, with our mounts.
    #[must_use]
    pub fn new(machine: MachineId, address: String, placement: &Placement) -> Self {
        let mounts = placement.mounts().iter().map(|mount| (mount.index, Arc::default()));
        Self {
            machine,
            address: ArcSwap::from_pointee(address),
            links: ArcSwapOption::empty(),
            heard: Arc::default(),
            connects: AtomicU64::new(0),
            unreachable: AtomicBool::new(false),
            error: ArcSwap::default(),
            remedy: ArcSwap::default(),
            told: ArcSwapOption::empty(),
            mounts: mounts.collect(),
            kick: Notify::new(),
        }
    }

    /// Where it listens, as far as we know.
    #[must_use]
    pub fn address(&self) -> Arc<String> {
        self.address.load_full()
    }

    /// It listens somewhere else now.
    pub fn move_to(&self, address: &str) {
        if !address.is_empty() && self.address.load().as_str() != address {
            self.address.store(Arc::new(address.to_owned()));
            self.kick.notify_one();
        }
    }

    /// Something new is known of it: it is tried at once.
    pub fn kick(&self) {
        self.kick.notify_one();
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.links.load().is_some()
    }

    /// Whether the last attempt to connect failed.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Acquire)
    }

    /// When anything was last read from it, milliseconds of [`PeerTable::clock`]; 0: never.
    #[must_use]
    pub fn heard_ms(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// How often a connection was made.
    #[must_use]
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// Why there is no connection; empty if there is one.
    #[must_use]
    pub fn error(&self) -> Arc<String> {
        self.error.load_full()
    }

    /// What mends that; empty if there is nothing to mend.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        **self.remedy.load()
    }

    /// What it told of itself last.
    #[must_use]
    pub fn told(&self) -> Option<Arc<Told>> {
        self.told.load_full()
    }

    pub(super) fn take_told(&self, said: Particulars) {
        let clock_ahead_ms = clock_ahead(ambient::wall_ms(), said.clock_ms);
        self.told.store(Some(Arc::new(Told { particulars: said.bounded(), clock_ahead_ms })));
    }

    /// Its mount of this index, if we have one.
    #[must_use]
    pub fn mount(&self, index: MountIndex) -> Option<&Arc<PeerMount>> {
        self.mounts.get(&index)
    }

    /// Its mounts of our indices.
    pub fn mounts(&self) -> impl Iterator<Item = (MountIndex, &Arc<PeerMount>)> {
        self.mounts.iter().map(|(index, mount)| (*index, mount))
    }

    /// The connections, if there are any.
    #[must_use]
    pub fn links(&self) -> Option<Arc<Links>> {
        self.links.load_full()
    }

    /// Asks it something, and waits for the answer at most `limit`. For changes see R2: no answer means that the outcome
    /// is not known.
    ///
    /// # Errors
    /// [`CallError`]; at once if there is no connection.
    pub async fn call<H: Serialize + ?Sized>(
        &self,
        opcode: Opcode,
        head: &H,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Frame, CallError> {
        let Some(links) = self.links() else {
            let source = std::io::ErrorKind::NotConnected.into();
            return Err(CallError::Connect { address: self.address().to_string(), source });
        };
        links.calls.call(opcode, head, payload, limit).await
    }

    pub(super) fn heard(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.heard)
    }

    pub(super) async fn kicked(&self) {
        self.kick.notified().await;
    }

    pub(super) fn connected(&self, links: Links) {
        self.connects.fetch_add(1, Ordering::Relaxed);
        self.unreachable.store(false, Ordering::Release);
        self.error.store(Arc::default());
        self.links.store(Some(Arc::new(links)));
    }

    pub(super) fn disconnected(&self, why: &str, remedy: &'static str) {
        self.links.store(None);
        self.remedy.store(Arc::new(remedy));
        self.unreachable.store(true, Ordering::Release);
        if **self.error.load() != why {
            tracing::warn!(peer = self.machine, address = %self.address(), why, "no connection to a mirror, trying on");
            self.error.store(Arc::new(why.to_owned()));
        }
        for mount in self.mounts.values() {
            mount.disconnected(why);
        }
    }
}

/// All of them, and what they share.
#[derive(Debug)]
pub struct PeerTable {
    /// Our machine.
    pub us: MachineId,
    /// The clock that [`Peer::heard_ms`] counts on.
    pub clock: Monotonic,
    /// What peers may have in flight to us: apart from clients, so that neither starves the other.
    pub budget: Arc<Budget>,
    /// Contents of large objects on their way here.
    pub fetches: Fetches,
    /// Contents of large objects on their way from here.
    pub offers: Offers,
    /// States of members that are being copied because a log does not reach back.
    pub pulls: Pulls,
    /// What we tell the others of ourselves, but for the clock.
    particulars: ArcSwap<Particulars>,
    /// Steps of what they copy from us.
    pub turns: Turns,
    peers: Mutex<BTreeMap<MachineId, Arc<Peer>>>,
}

impl PeerTable {
    /// Nobody yet.
    #[must_use]
    pub fn new(us: MachineId, clock: Monotonic) -> Arc<Self> {
        Arc::new(Self {
            us,
            clock,
            budget: Budget::new(PEER_REQUESTS, PEER_BYTES),
            fetches: Fetches::default(),
            offers: Offers::new(clock),
            pulls: Pulls::default(),
            particulars: ArcSwap::default(),
            turns: Turns::new(clock),
            peers: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MachineId, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The storage with this machine id.
    #[must_use]
    pub fn get(&self, machine: MachineId) -> Option<Arc<Peer>> {
        self.lock().get(&machine).cloned()
    }

    /// All, in the order of their machine ids.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Peer>> {
        self.lock().values().cloned().collect()
    }

    /// Whether a mount with this coverage has what every member that answers has. One that has neither answered nor
    /// refused yet may have more.
    #[must_use]
    pub fn all_covered_by(&self, mount: MountIndex, coverage: &Coverage) -> bool {
        self.lock().values().all(|peer| match peer.mount(mount) {
            Some(theirs) if peer.is_connected() && theirs.is_introduced() => {
                let theirs = theirs.coverage();
                // How far our own log goes is known to us alone; what was published of it is some milliseconds old.
                theirs.iter().all(|at| at.machine == self.us || coverage.covers(at))
            }
            Some(_) => peer.is_unreachable(),
            None => true,
        })
    }

    /// Sets what the others are told of us.
    pub fn tell(&self, particulars: Particulars) {
        self.particulars.store(Arc::new(particulars));
    }

    /// What the others are told of us, with the clock as it is now.
    #[must_use]
    pub fn particulars(&self) -> Particulars {
        Particulars { clock_ms: ambient::wall_ms(), ..(**self.particulars.load()).clone() }
    }

    /// It was removed for good. The roof stops its `SyncPeer`.
    pub fn remove(&self, machine: MachineId) {
        self.lock().remove(&machine);
    }

    /// Takes in a peer. The roof starts its `SyncPeer`.
    pub fn add(&self, peer: Arc<Peer>) {
        self.lock().insert(peer.machine, peer);
    }
}
