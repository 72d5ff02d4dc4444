//! A storage, put together: mounts on their disk arbiters, connections on the net arbiters, the rest on the control
//! arbiter. Several may run in one process.
//!
//! ```text
//! control   Acceptor  Reporter (one per tracker)  AdminConsole  the tick
//! net-N     Connection  SyncPeer (one per mirror)
//! disk-M    Binlog and ChunkFile of mount M       (blocking writes, R4)
//! read-M    pool threads of mount M, when there is something to wait for
//! ```
//!
//! Invariants: what is wrong with the configuration, the port or the state folder ends the start with an error; what is
//! wrong with a mount is a state of that mount (P6). The stop is ordered (R6): stop accepting, finish what is in hand,
//! drain the chunkfiles, close the logs, join the threads, all under one deadline; correctness never rests on it.

mod console;
mod folder;
mod hand_over;
mod lately;
mod listeners;
mod memory_file;
mod metrics;
mod mirrors;
mod mounts;
pub(crate) mod no_puts;
mod remains;
mod report;
mod scrubs;

pub use report::MountStatus;

use crate::actors::acceptor::{Acceptor, BindError, StopAccepting, bind};
use crate::actors::admin_console::{self, ConsoleConfig};
use crate::actors::ambient::{self, Monotonic};
use crate::actors::binlog::{Binlog, CloseMount};
use crate::actors::caller::Identity;
use crate::actors::mirror::Mirror;
use crate::actors::mount_room::{MountRoom, OpenFailure};
use crate::actors::offers::Announce;
use crate::actors::peers::PeerTable;
use crate::actors::read_pool::{Limit, ReadPool};
use crate::actors::reporter::{Registration, ReportNow, Reporter, ReporterStatus};
use crate::actors::shared_mount::SharedMount;
use crate::actors::storage_room::{StorageRoom, Writes};
use crate::actors::threads::{ThreadError, Threads};
use crate::daemon;
use crate::format::ids::MountIndex;
use crate::messages::opcode::Role;
use crate::rotation::Rotation;
use crate::settings::StorageSettings;
use crate::tls::{MachineName, TlsProblem};
use actix::prelude::*;
use listeners::{accept, bind_console, room_of, serve_metrics, session_of};
use memory_file::{MemoryFile, StateError};
use mirrors::Mirrors;
use mounts::MountOpener;
use scrubs::Scrubs;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest wait of a start for its mounts; what is not open by then is opened while the others serve.
const OPEN_WAIT: Duration = Duration::from_secs(60);
/// Pool threads of all mounts beyond one for each.
const READ_THREADS_MAX: usize = 128;
/// Chunkfiles that all mounts together keep open for reading.
const READ_HANDLES: usize = 8192;
/// How long a stop may take.
pub const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Longest wait of a new mount for the word of a tracker.
const FOUND_AFTER: Duration = Duration::from_secs(5);
/// How long the mirrors may take to get the last changes at a stop.
const HAND_OVER: Duration = Duration::from_secs(1);
/// How long a tracker may take to hear that we leave.
const GOODBYE: Duration = Duration::from_millis(300);

/// Why a storage did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The console beyond loopback without a key.
    #[error("{0}")]
    Console(String),
    /// A certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsProblem),
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// No mount can be used, and waiting would not help.
    #[error("no mount can be used: {}", .0.join("; "))]
    Mounts(Vec<String>),
    /// The system gives no threads or no randomness.
    #[error("{what}: {source}")]
    System {
        /// What for.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}

/// What a start may do besides.
#[derive(Clone, Copy, Debug)]
pub struct StartOptions {
    /// Create the folder of a mount that is not there and was never in use (`folio dev`).
    pub create_folders: bool,
    /// How long a new mount waits for a tracker to name the members of its syncgroup, before it founds one.
    pub found_after: Duration,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self { create_folders: false, found_after: FOUND_AFTER }
    }
}

/// A running storage. Dropping it without [`Storage::stop`] is like a crash: nothing that was acknowledged is lost.
pub struct Storage {
    address: SocketAddr,
    room: Arc<StorageRoom>,
    settings: Arc<StorageSettings>,
    acceptor: Addr<Acceptor>,
    reporters: Vec<(Addr<Reporter>, watch::Receiver<ReporterStatus>)>,
    /// Heard by handshakes.
    stopping: watch::Sender<bool>,
    /// Heard by connections.
    stop: CancellationToken,
    tasks: TaskTracker,
    threads: Threads,
    control: ArbiterHandle,
    mirrors: Arc<Mirrors>,
    rotation: Arc<Rotation>,
    /// Where it listens, and who accepts.
    console: Option<(SocketAddr, Addr<Acceptor>)>,
    /// The same of the metrics page.
    metrics: Option<(SocketAddr, Addr<Acceptor>)>,
}

/// Starts a storage. Must be called inside an actix `System`.
///
/// # Errors
/// [`StartError`]; nothing is left running then but threads that end with the system.
pub async fn start(
    mut settings: StorageSettings,
    options: StartOptions,
) -> Result<Storage, StartError> {
    daemon::raise_descriptors();
    let listener = bind("listen", settings.listen.data)?;
    let address = listener
        .local_addr()
        .map_err(|source| StartError::System { what: "the listening socket", source })?;
    let machine = MachineName {
        group: settings.group.clone(),
        syncgroup: settings.syncgroup.clone(),
        machine: settings.machine_id,
    };
    let rotation = Rotation::begin(&settings.auth, settings.tls.as_ref(), Some(machine))?;
    let admin_listener = bind_console(&mut settings, &rotation)?;
    let metrics_listener = match settings.listen.metrics {
        Some(address) => Some(bind("metrics_listen", address)?),
        None => None,
    };
    let paths: Vec<PathBuf> = settings.mounts.iter().map(|mount| mount.path.clone()).collect();
    let memory = Arc::new(MemoryFile::open(&settings, &paths)?);
    let settings = Arc::new(settings);
    let (stopping, hear_stopping) = watch::channel(false);
    let clock = Monotonic::start();
    let table = PeerTable::new(settings.machine_id, clock);
    table.tell(report::particulars(&settings));
    let session = session_of(&settings, memory.instance(), hear_stopping, &rotation);
    let room = Arc::new(room_of(&settings, session, Arc::clone(&table)));
    let advertise = settings.advertise.clone().unwrap_or_else(|| address.to_string());
    let identity = Identity {
        role: Role::Peer,
        name: room.session.name.clone(),
        instance: memory.instance(),
        keys: rotation.keys.clone(),
        tls: rotation.tls.clone(),
    };
    let mut threads = Threads::new();
    let thread = |source| StartError::System { what: "a thread", source };
    let control = threads.start("control").map_err(thread)?;
    rotation.watch(&control);
    let mut net = Vec::new();
    for n in 0..settings.threads.net.max(1) {
        net.push(threads.start(&format!("net-{n}")).map_err(thread)?);
    }
    let announcer = Arc::new(Announce::new(table, control.clone()));
    let mirror = || {
        let mirror = Mirror::new(mirrors::policy(&settings.durability), clock, advertise.clone());
        mirror.attach(announcer.clone());
        mirror
    };
    open_mounts(&settings, &room, &memory, options, &mut threads, mirror).await?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let acceptor = accept(listener, &settings, &room, net.clone(), &control, &stop, &tasks);
    let reporters = report::start(&settings, &room, &advertise, &identity, &control);
    let lately = Arc::default();
    report::tick(&room, &control, stop.clone(), Arc::clone(&lately));
    let scrubs = Scrubs::start(&settings.scrub, &room, &net);
    let overseer = mirrors::Overseer::new(&settings, &room, identity, &reporters, net);
    let mirrors = overseer.start(&control, options.found_after, stop.clone());
    let statuses = reporters.iter().map(|(_, status)| status.clone());
    let sight = Arc::new(console::Sight {
        room: Arc::clone(&room),
        settings: Arc::clone(&settings),
        memory: Arc::clone(&memory),
        trackers: settings.trackers.iter().cloned().zip(statuses).collect(),
        clock: Monotonic::start(),
        mirrors: Arc::clone(&mirrors),
        lately,
        scrubs,
        rotation: Arc::clone(&rotation),
    });
    let metrics = match metrics_listener {
        Some(listener) => Some(serve_metrics(listener, Arc::clone(&sight), &control)?),
        None => None,
    };
    let console = admin_listener.map(|(listener, address)| {
        let config = ConsoleConfig {
            source: console::source(sight),
            keys: rotation.keys.clone(),
            tls: rotation.tls.clone(),
            handshake_timeout: settings.limits.handshake_timeout,
            idle_timeout: settings.limits.idle_timeout,
        };
        (address, admin_console::start(listener, config, &control))
    });
    Ok(Storage {
        address,
        room,
        settings,
        acceptor,
        reporters,
        stopping,
        stop,
        tasks,
        threads,
        control,
        console,
        metrics,
        mirrors,
        rotation,
    })
}

/// Opens all mounts, each on its own arbiter, and waits for how that ends.
async fn open_mounts(
    settings: &Arc<StorageSettings>,
    room: &Arc<StorageRoom>,
    memory: &Arc<MemoryFile>,
    options: StartOptions,
    threads: &mut Threads,
    mirror: impl Fn() -> Mirror,
) -> Result<(), StartError> {
    let (first, mut opened) = mpsc::unbounded_channel();
    let limit = Limit::new(READ_THREADS_MAX);
    let handles = (READ_HANDLES / settings.mounts.len().max(1)).max(16);
    let shared: Vec<Arc<SharedMount>> = settings
        .mounts
        .iter()
        .map(|mount| {
            let max = usize::from(settings.threads.read_per_mount);
            let pool = ReadPool::new(format!("read-{}", mount.index), max, Arc::clone(&limit));
            let path = mount.path.display().to_string();
            let reserve_free = settings.store.reserve_free;
            Arc::new(SharedMount::mirrored(
                mount.index,
                path,
                pool,
                reserve_free,
                mirror(),
                Arc::clone(&room.meter),
            ))
        })
        .collect();
    room.placement.set(shared.clone());
    for (mount, shared) in settings.mounts.iter().zip(shared) {
        let seed = ambient::random()
            .map_err(|source| StartError::System { what: "randomness", source })?;
        let opener = MountOpener {
            settings: Arc::clone(settings),
            index: mount.index,
            path: mount.path.clone(),
            memory: Arc::clone(memory),
            tokens: Arc::clone(&room.tokens),
            create_folder: options.create_folders,
            shared: Arc::clone(&shared),
            handles,
            seed,
            syncs: Arc::clone(&shared.meters.syncs),
        };
        let arbiter = threads
            .start(&format!("disk-{}", mount.index))
            .map_err(|source| StartError::System { what: "a thread for a mount", source })?;
        let (placement, first) = (Arc::clone(&room.placement), first.clone());
        arbiter.spawn_fn(move || {
            let registry = Arc::clone(&shared);
            let room = Rc::new(RefCell::new(MountRoom::new(shared, placement)));
            let binlog = Binlog::new(room, opener.into_opener(), first).start();
            registry.registry.attach(binlog);
        });
    }
    drop(first);
    let mut failures: Vec<(MountIndex, OpenFailure)> = Vec::new();
    let waited = tokio::time::timeout(OPEN_WAIT, async {
        while let Some((index, result)) = opened.recv().await {
            if let Err(failure) = result {
                failures.push((index, failure));
            }
        }
    });
    if waited.await.is_err() {
        tracing::error!("not all mounts are open yet; going on with the others");
    }
    let hopeless = failures.iter().filter(|(_, failure)| !failure.retry).count();
    if hopeless == settings.mounts.len() {
        let text = |(index, failure): &(MountIndex, OpenFailure)| {
            format!("mount {index}: {} ({})", failure.why, failure.remedy)
        };
        return Err(StartError::Mounts(failures.iter().map(text).collect()));
    }
    Ok(())
}

impl Storage {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its console is.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.console.as_ref().map(|(address, _)| *address)
    }

    /// Where its metrics page is.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(address, _)| *address)
    }

    /// What its connections share: for status, metrics and operators.
    #[must_use]
    pub const fn room(&self) -> &Arc<StorageRoom> {
        &self.room
    }

    /// What it was told.
    #[must_use]
    pub const fn settings(&self) -> &Arc<StorageSettings> {
        &self.settings
    }

    /// The thread of everything that is no data (consoles, metrics).
    #[must_use]
    pub const fn control(&self) -> &ArbiterHandle {
        &self.control
    }

    /// What it knows from each tracker, in the order of the configuration.
    #[must_use]
    pub fn trackers(&self) -> Vec<watch::Receiver<ReporterStatus>> {
        self.reporters.iter().map(|(_, status)| status.clone()).collect()
    }

    /// Its keys and certificates.
    #[must_use]
    pub const fn rotation(&self) -> &Arc<Rotation> {
        &self.rotation
    }

    /// Its mounts as they are now.
    #[must_use]
    pub fn mounts(&self) -> Vec<MountStatus> {
        report::mounts(&self.room)
    }

    /// Waits until a tracker has it in its view. With no tracker configured: at once.
    pub async fn registered(&self) {
        let waits = self.reporters.iter().map(|(_, status)| {
            let mut status = status.clone();
            Box::pin(async move {
                let registered =
                    |status: &ReporterStatus| status.registration == Registration::Registered;
                if status.wait_for(registered).await.is_err() {
                    // The reporter is gone: it will never be registered there.
                    std::future::pending::<()>().await;
                }
            })
        });
        let waits: Vec<_> = waits.collect();
        if !waits.is_empty() {
            futures_util::future::select_all(waits).await;
        }
    }

    /// Waits until it is ready: a tracker has it in its view, its mounts have joined their syncgroup, and every mirror
    /// that can be reached has what we have, and we what it has.
    pub async fn ready(&self) {
        self.registered().await;
        self.mirrors.ready().await;
    }

    /// Waits until its mounts take changes: they have joined their syncgroup.
    pub async fn joined(&self) {
        self.mirrors.joined().await;
    }

    /// Stops in order, all within about `limit`. What could not be finished in time is named.
    pub async fn stop(self, limit: Duration) -> Vec<ThreadError> {
        let step = limit / 4;
        self.room.set_writes(Writes::Stopping);
        for (reporter, _) in &self.reporters {
            // Best effort: a tracker that hears nothing notices by itself.
            let said = tokio::time::timeout(GOODBYE, reporter.send(ReportNow)).await;
            tracing::debug!(heard = ?said.is_ok(), "tracker told");
        }
        self.acceptor.do_send(StopAccepting);
        for (_, listener) in self.console.iter().chain(&self.metrics) {
            listener.do_send(StopAccepting);
        }
        self.stopping.send_replace(true);
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(step, self.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        hand_over::wait(&self.room, HAND_OVER).await;
        let mounts = self.room.placement.mounts();
        let closed = futures_util::future::join_all(mounts.iter().map(|mount| async move {
            mount.registry.shut().await;
            if let Some(binlog) = mount.registry.binlog() {
                // An actor that is gone has nothing left to close.
                binlog.send(CloseMount).await.unwrap_or_default();
            }
        }));
        if tokio::time::timeout(step, closed).await.is_err() {
            tracing::warn!(
                "some mounts were not closed in time: they replay their log at the next start"
            );
        }
        self.mirrors.stop().await;
        for mount in mounts {
            mount.pool.stop(Duration::from_millis(200));
        }
        self.threads.stop_and_join(step)
    }
}

/// The daemon: starts, says when it is [ready](Storage::ready), serves until SIGTERM or SIGINT, stops in order.
///
/// # Errors
/// [`StartError`].
pub fn run(settings: StorageSettings) -> Result<(), StartError> {
    actix::System::new().block_on(async {
        let mut signals = daemon::StopSignals::listen()
            .map_err(|source| StartError::System { what: "signals", source })?;
        let storage = start(settings, StartOptions::default()).await?;
        daemon::on_hangup(storage.rotation())
            .map_err(|source| StartError::System { what: "signals", source })?;
        let mut signal = tokio::select! {
            () = storage.ready() => None,
            signal = signals.wait() => Some(signal),
        };
        if signal.is_none() {
            daemon::announce_ready(&format!("storage={}", storage.address()));
            signal = Some(signals.wait().await);
        }
        tracing::info!(signal, "stopping");
        daemon::announce_stopping();
        for error in storage.stop(STOP_LIMIT).await {
            tracing::warn!(%error, "at the stop");
        }
        Ok(())
    })
}
