//! What all connections of one storage share.

use super::budget::Budget;
use super::meter::Meter;
use super::mirror::Outlook;
use super::peers::{Peer, PeerTable, SyncState};
use super::placement::Placement;
use super::session::{Problem, SessionConfig};
use super::shared_mount::SharedMount;
use crate::cluster::takeover::{Sight, Verdict, who_writes};
use crate::format::file_id::ObjectId;
use crate::format::ids::MachineId;
use crate::messages::error::ErrorCode;
use crate::messages::heads::{self, IdBytes};
use crate::settings::DurabilitySettings;
use crate::store::tokens::TokenTable;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// Whether a storage takes changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Writes {
    /// It does.
    Taken = 0,
    /// An operator said no.
    ReadOnly = 1,
    /// It is about to leave: changes, but no new objects.
    Draining = 2,
    /// It leaves.
    Stopping = 3,
}

/// Requests since the start, by kind; for people and metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// New objects.
    pub puts: AtomicU64,
    /// Reads.
    pub gets: AtomicU64,
    /// New contents.
    pub modifies: AtomicU64,
    /// Deletes and undeletes.
    pub deletes: AtomicU64,
    /// Everything else.
    pub others: AtomicU64,
    /// Edits that were handed to their owner.
    pub forwarded: AtomicU64,
    /// Reads that other members were asked for.
    pub asked_others: AtomicU64,
    /// Requests that were refused.
    pub refused: AtomicU64,
    /// Connections now.
    pub connections: AtomicUsize,
    /// Requests in the last second.
    pub per_second: AtomicU64,
    /// How long changes of the last seconds waited for their mount to begin with them, in the mean, microseconds.
    pub queue_delay_us: AtomicU64,
}

impl Counters {
    /// All requests since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        [&self.puts, &self.gets, &self.modifies, &self.deletes, &self.others]
            .iter()
            .map(|counter| counter.load(Ordering::Relaxed))
            .sum()
    }
}

/// See the module.
#[derive(Debug)]
pub struct StorageRoom {
    /// Who we are, our keys, our patience.
    pub session: SessionConfig,
    /// Our machine id.
    pub machine: MachineId,
    /// Our mounts.
    pub placement: Arc<Placement>,
    /// What may be in flight.
    pub budget: Arc<Budget>,
    /// Answers for retries.
    pub tokens: Arc<TokenTable>,
    /// A content of more bytes is a file of its own.
    pub threshold: u64,
    /// What an acknowledgement means.
    pub durability: DurabilitySettings,
    /// The other members, and what may be in flight for them.
    pub peers: Arc<PeerTable>,
    /// Requests.
    pub counters: Counters,
    /// What was asked, and how long it took; shared with the mounts.
    pub meter: Arc<Meter>,
    writes: AtomicU8,
}

impl StorageRoom {
    /// A storage that takes changes and has no other member yet.
    #[must_use]
    pub fn new(
        session: SessionConfig,
        machine: MachineId,
        placement: Arc<Placement>,
        budget: Arc<Budget>,
        tokens: Arc<TokenTable>,
        threshold: u64,
        durability: DurabilitySettings,
        peers: Arc<PeerTable>,
    ) -> Self {
        Self {
            session,
            machine,
            placement,
            budget,
            tokens,
            threshold,
            durability,
            peers,
            counters: Counters::default(),
            meter: Arc::default(),
            writes: AtomicU8::new(Writes::Taken as u8),
        }
    }

    /// Whether it takes changes.
    #[must_use]
    pub fn writes(&self) -> Writes {
        match self.writes.load(Ordering::Relaxed) {
            0 => Writes::Taken,
            1 => Writes::ReadOnly,
            2 => Writes::Draining,
            _ => Writes::Stopping,
        }
    }

    /// Sets it.
    pub fn set_writes(&self, writes: Writes) {
        self.writes.store(writes as u8, Ordering::Relaxed);
    }

    /// Whether a mount's acknowledgements say less than the configuration asks for, or are refused for that.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        let short = |mount: &Arc<SharedMount>| {
            matches!(mount.mirror.outlook(), Outlook::Degraded | Outlook::Refused)
        };
        self.placement.mounts().iter().any(|mount| mount.is_online() && short(mount))
    }

    /// Refuses a change that must not be begun.
    ///
    /// # Errors
    /// Read-only, or draining.
    pub fn check_writes(&self) -> Result<(), Problem> {
        match self.writes() {
            Writes::Taken | Writes::Draining => {}
            Writes::ReadOnly => {
                return Err(Problem::new(ErrorCode::ReadOnly, "the storage is read-only")
                    .remedy("`folio admin ... readonly off`"));
            }
            // Not read-only: that would be an answer. A mirror takes it as soon as this one is silent.
            Writes::Stopping => {
                return Err(Problem::new(ErrorCode::Stopped, "the storage is stopping")
                    .remedy("ask again in a moment: a mirror will take it"));
            }
        }
        Ok(())
    }

    /// Refuses a new object that must not be begun.
    ///
    /// # Errors
    /// Read-only, draining, or stopping.
    pub fn check_puts(&self) -> Result<(), Problem> {
        match self.writes() {
            Writes::Draining => {
                Err(Problem::new(ErrorCode::ReadOnly, "the storage is draining: no new objects")
                    .remedy("ask another storage, or `folio admin ... drain off`"))
            }
            Writes::Taken | Writes::ReadOnly | Writes::Stopping => self.check_writes(),
        }
    }

    /// The object that an id on the wire names, if we or one of our mirrors own it.
    ///
    /// # Errors
    /// `BadId`; `WrongNode` if a machine owns it that we do not know.
    pub fn object(&self, id: &IdBytes) -> Result<ObjectId, Problem> {
        let id = ObjectId::decode(id).map_err(|error| {
            Problem::new(ErrorCode::BadId, error.to_string()).remedy(error.remedy())
        })?;
        let known = |machine| machine == self.machine || self.peers.get(machine).is_some();
        let forgotten = || {
            let mount = self.placement.mount(id.mount);
            mount.is_ok_and(|mount| known(mount.mirror.owner(id.machine)))
        };
        if !known(id.machine) && !forgotten() {
            return Err(Problem::new(
                ErrorCode::WrongNode,
                format!("machine {} owns the object, this is machine {}", id.machine, self.machine),
            )
            .remedy("ask the owner"));
        }
        Ok(id)
    }

    /// Who has to make a change of an object now: the owner, if it is another machine and there; `None`: this one.
    ///
    /// # Errors
    /// `Unavailable`: only the owner could, and it is away; `Busy`: in a moment.
    pub fn who_changes(
        &self,
        id: &ObjectId,
        conditional: bool,
    ) -> Result<Option<Arc<Peer>>, Problem> {
        let mount = self.placement.mount(id.mount)?;
        let machine = mount.mirror.owner(id.machine);
        let own = machine == self.machine;
        if own && mount.mirror.has_caught_up() {
            return Ok(None);
        }
        let now_ms = self.peers.clock.now_ms();
        let owner = if own { None } else { self.peers.get(machine) };
        let silence_ms = owner.as_ref().map_or(0, |owner| match owner.mount(id.mount) {
            // It is heard and says that this mount of it does not serve, or is refilled: nobody else could write (P6).
            Some(theirs) if theirs.state() == SyncState::Away || theirs.is_refilling() => u64::MAX,
            Some(_) | None => now_ms.saturating_sub(owner.heard_ms()),
        });
        let caught_up = self.peers.all_covered_by(id.mount, &mount.mirror.report().coverage);
        if caught_up {
            mount.mirror.note_caught_up();
        }
        let sight = Sight { own, conditional, silence_ms, caught_up, up_ms: now_ms };
        match who_writes(sight) {
            Verdict::Write => Ok(None),
            Verdict::AskOwner => owner.map(Some).ok_or_else(|| {
                Problem::new(ErrorCode::WrongNode, "the owner of the object is not known here")
                    .remedy("ask the owner")
            }),
            Verdict::Wait => Err(Problem::new(
                ErrorCode::Busy,
                "this mirror catches up with the others before it writes",
            )
            .remedy("ask again in a moment")),
            Verdict::OwnerNeeded => Err(Problem::new(
                ErrorCode::Unavailable,
                format!("only machine {machine}, the owner, can compare, and it is away"),
            )
            .remedy("start it, or change the object without --if-opver")),
        }
    }

    /// A head of a request.
    ///
    /// # Errors
    /// `BadRequest`.
    pub fn head<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
        heads::decode(bytes).map_err(|error| Problem::new(error.code(), error.to_string()))
    }
}
