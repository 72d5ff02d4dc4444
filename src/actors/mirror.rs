//! A mount as one of several mirrors, for everybody: how far its log goes, who mirrors it, whether it may be written to.
//!
//! Invariants: written by the mount's disk arbiter only; what is published is durable; a reader never waits. The tail
//! is a hint that something is there to be sent, never the thing itself.

use super::ambient::Monotonic;
use super::session::Problem;
use crate::cluster::acks::{AckPolicy, Wanted};
use crate::cluster::growth::Spread;
use crate::cluster::lag::{Lag, LagMeter};
use crate::cluster::members::owner;
use crate::cluster::reuse::MemberReport;
use crate::cluster::room::{Admission, Gate, Rooms, Said, TIMES};
use crate::format::forgotten::Forgotten;
use crate::format::ids::{MachineId, MountIndex, Position, Sequence};
use crate::format::members::Member;
use crate::messages::error::ErrorCode;
use crate::store::sync::LogName;
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::watch;

/// How far our own log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Which log.
    pub log: LogName,
    /// Everything up to here is durable and applied.
    pub sequence: Sequence,
}

/// Whether changes are taken, as far as mirrors are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outlook {
    /// With as many copies as the configuration asks for.
    Good = 0,
    /// With fewer.
    Degraded = 1,
    /// They are not: copies are asked for that cannot be had.
    Refused = 2,
    /// They are not yet: the members do not know this mount.
    Joining = 3,
}

/// Tells the other members of a large object before a record names it.
pub trait Announcer: Send + Sync {
    /// Calls `then` when every live member has the content, or has given it up.
    fn announce(
        &self,
        mount: MountIndex,
        content: Position,
        length: u64,
        then: Box<dyn FnOnce() + Send>,
    );
}

/// See the module.
pub struct Mirror {
    /// What an acknowledgement asks for.
    pub policy: AckPolicy,
    /// The clock of everything about mirrors on this storage.
    pub clock: Monotonic,
    /// Where others find this storage; empty: nobody is told.
    pub address: String,
    /// Whether there can be other members at all.
    pub mirroring: bool,
    tail: watch::Sender<Option<Tail>>,
    members: watch::Sender<Arc<Vec<Member>>>,
    forgotten: ArcSwap<Vec<Forgotten>>,
    report: ArcSwap<MemberReport>,
    late: ArcSwap<Vec<MachineId>>,
    joined: AtomicBool,
    caught_up: AtomicBool,
    outlook: AtomicU8,
    lag: Mutex<LagMeter>,
    /// Who has the mount at all; the one thing here that the roof writes.
    spread: ArcSwap<Spread>,
    /// What the members have left; whoever hears from them writes it.
    rooms: Mutex<Rooms>,
    /// Contents of large objects: they are not in the log, and take room all the same.
    contents: Mutex<LagMeter>,
    gate: Gate,
    /// Bytes of new objects that are not answered yet.
    coming: AtomicU64,
    announcer: OnceLock<Arc<dyn Announcer>>,
}

impl Mirror {
    /// A mount that others mirror, or will.
    #[must_use]
    pub fn new(policy: AckPolicy, clock: Monotonic, address: String) -> Self {
        Self { policy, clock, address, mirroring: true, ..Self::alone() }
    }

    /// A mount that nobody else ever has.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            policy: AckPolicy { wanted: Wanted::Local, refuse_alone: false },
            clock: Monotonic::start(),
            address: String::new(),
            mirroring: false,
            tail: watch::channel(None).0,
            members: watch::channel(Arc::default()).0,
            forgotten: ArcSwap::default(),
            report: ArcSwap::default(),
            late: ArcSwap::default(),
            joined: AtomicBool::new(false),
            caught_up: AtomicBool::new(false),
            outlook: AtomicU8::new(Outlook::Joining as u8),
            lag: Mutex::default(),
            spread: ArcSwap::default(),
            rooms: Mutex::default(),
            contents: Mutex::default(),
            gate: Gate::default(),
            coming: AtomicU64::new(0),
            announcer: OnceLock::new(),
        }
    }

    /// Who is told of large objects; set once, before anything is served.
    pub fn attach(&self, announcer: Arc<dyn Announcer>) {
        if self.announcer.set(announcer).is_err() {
            tracing::error!("a mount was given two announcers");
        }
    }

    /// How far the own log goes; `None` while the mount is not open.
    #[must_use]
    pub fn tail(&self) -> watch::Receiver<Option<Tail>> {
        self.tail.subscribe()
    }

    /// The members as the label names them: all that are known, ourselves included once we have joined.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.members.subscribe()
    }

    /// Members that were removed for good.
    #[must_use]
    pub fn forgotten(&self) -> Arc<Vec<Forgotten>> {
        self.forgotten.load_full()
    }

    /// Who alone decides for what `creator` made (compare-and-swap): the creator while it is a member.
    #[must_use]
    pub fn owner(&self, creator: MachineId) -> MachineId {
        let forgotten = self.forgotten.load();
        if !forgotten.iter().any(|gone| gone.machine == creator) {
            return creator;
        }
        let members = self.members.borrow();
        owner(creator, &members.iter().map(|member| member.machine).collect())
    }

    /// What this member says to the others; some milliseconds old.
    #[must_use]
    pub fn report(&self) -> Arc<MemberReport> {
        self.report.load_full()
    }

    /// Whether the members know this mount.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.joined.load(Ordering::Acquire)
    }

    /// Whether a member has not acknowledged in time.
    #[must_use]
    pub fn is_late(&self, machine: MachineId) -> bool {
        self.late.load().contains(&machine)
    }

    /// Whether changes are taken.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        match self.outlook.load(Ordering::Relaxed) {
            0 => Outlook::Good,
            1 => Outlook::Degraded,
            2 => Outlook::Refused,
            _ => Outlook::Joining,
        }
    }

    /// Whether enough members have this mount for new objects.
    #[must_use]
    pub fn spread(&self) -> Arc<Spread> {
        self.spread.load_full()
    }

    /// The same without counting a user.
    #[must_use]
    pub fn takes_puts(&self) -> bool {
        self.spread.load().takes_puts()
    }

    /// Says who has it; whether that is news. Only whoever oversees the members calls this.
    pub fn publish_spread(&self, spread: Spread) -> bool {
        let news = **self.spread.load() != spread;
        if news {
            self.spread.store(Arc::new(spread));
        }
        news
    }

    /// A member says how much new objects may take there (`None`: it is gone, or does not say).
    pub fn member_room(&self, machine: MachineId, said: Option<Said>) {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).say(machine, said);
        self.judge_room();
    }

    /// Looks again at what new objects may take: what was written here and is not there yet is taken already.
    pub fn judge_room(&self) {
        let now = self.clock.now_ms();
        let behind = |meter: &Mutex<LagMeter>, covered| {
            meter.lock().unwrap_or_else(PoisonError::into_inner).behind(covered, now).bytes
        };
        let coming = self.coming.load(Ordering::Relaxed);
        let allowance =
            self.rooms.lock().unwrap_or_else(PoisonError::into_inner).allowance(|covered| {
                let records = behind(&self.lag, covered).saturating_mul(TIMES);
                records.saturating_add(behind(&self.contents, covered)).saturating_add(coming)
            });
        self.gate.set(allowance);
    }

    /// Bytes that the fullest of the connected members has for new objects.
    #[must_use]
    pub fn least_room(&self) -> u64 {
        self.gate.least()
    }

    /// Whether all members have room for a new object.
    pub fn admit(&self, length: u64) -> Admission {
        self.gate.admit(length)
    }

    /// Why not.
    #[must_use]
    pub fn why_no_room(&self) -> String {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).why()
    }

    /// So many bytes of a new object are on their way.
    pub fn coming(&self, bytes: u64) {
        self.coming.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They are stored, or refused.
    pub fn arrived(&self, bytes: u64) {
        self.coming.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Refuses a change that must not be begun.
    ///
    /// # Errors
    /// `Unavailable`: nothing was done.
    pub fn check_writes(&self) -> Result<(), Problem> {
        match self.outlook() {
            Outlook::Good | Outlook::Degraded => Ok(()),
            Outlook::Refused => Err(refused(self.policy.wanted)),
            Outlook::Joining => Err(joining()),
        }
    }

    /// Whether this was made here, in the present life of our log.
    #[must_use]
    pub fn is_ours(&self, made: Position) -> bool {
        self.tail.borrow().is_some_and(|tail| tail.log == LogName::of(made))
    }

    /// Whether this mount has had, since the storage started, everything that the members it heard from had.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        !self.mirroring || self.caught_up.load(Ordering::Acquire)
    }

    /// It has.
    pub fn note_caught_up(&self) {
        self.caught_up.store(true, Ordering::Release);
    }

    /// How far behind a mirror is that has our log up to `covered`.
    #[must_use]
    pub fn behind(&self, covered: Sequence) -> Lag {
        let lag = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        lag.behind(covered, self.clock.now_ms())
    }

    /// Has the live members fetch a large object, then goes on.
    pub fn announce(
        &self,
        mount: MountIndex,
        content: Position,
        length: u64,
        then: Box<dyn FnOnce() + Send>,
    ) {
        let now = self.clock.now_ms();
        // Its record is about to be written.
        let sequence = self.tail.borrow().map_or(0, |tail| tail.sequence) + 1;
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).note(sequence, length, now);
        match self.announcer.get() {
            Some(announcer) => announcer.announce(mount, content, length, then),
            None => then(),
        }
    }
}

/// Copies are demanded that cannot be had: nothing was done.
#[must_use]
pub fn refused(wanted: Wanted) -> Problem {
    let (what, remedy) = match wanted {
        Wanted::All => (
            "durability.acks = \"all\" asks for a copy on every member, and one is not connected and caught up",
            "bring the other members back, `forget` one that never comes back, or ask for fewer copies in the configuration",
        ),
        Wanted::Mirror | Wanted::Local => (
            "durability.acks asks for a copy on another member, and none is connected and caught up",
            "bring the other members back, or allow fewer copies in the configuration",
        ),
    };
    Problem::new(ErrorCode::Unavailable, what).remedy(remedy)
}

fn joining() -> Problem {
    Problem::new(ErrorCode::Unavailable, "the mount is joining its syncgroup").remedy("ask again")
}

// --- what only the mount's own arbiter does ---

impl Mirror {
    pub(super) fn publish_tail(&self, tail: Option<Tail>, bytes: u64) {
        if let Some(tail) = tail {
            let now = self.clock.now_ms();
            let mut lag = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
            lag.note(tail.sequence, bytes, now);
        }
        self.tail.send_if_modified(|known| std::mem::replace(known, tail) != tail);
    }

    pub(super) fn publish_members(&self, members: &[Member]) {
        self.members.send_if_modified(|known| {
            let changed = **known != members;
            if changed {
                *known = Arc::new(members.to_vec());
            }
            changed
        });
    }

    pub(super) fn publish_forgotten(&self, forgotten: &[Forgotten]) {
        if self.forgotten.load().as_slice() != forgotten {
            self.forgotten.store(Arc::new(forgotten.to_vec()));
        }
    }

    pub(super) fn publish_report(&self, report: MemberReport) {
        self.report.store(Arc::new(report));
    }

    pub(super) fn publish_late(&self, late: Vec<MachineId>) {
        if **self.late.load() != late {
            self.late.store(Arc::new(late));
        }
    }

    pub(super) fn publish_joined(&self, joined: bool) {
        self.joined.store(joined, Ordering::Release);
    }

    pub(super) fn publish_outlook(&self, outlook: Outlook) {
        self.outlook.store(outlook as u8, Ordering::Relaxed);
    }
}
