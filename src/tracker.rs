//! A tracker, put together: stateless, as many as you like, unaware of each other. Several may run in one process.
//!
//! ```text
//! net-0     sessions (frames)          -> Heartbeat, Router
//! control   Heartbeat -> published view -> Router, consoles;  Acceptor (frames), Acceptor (console), AdminConsole
//! ```
//! Heartbeat's timer runs on the control arbiter, so that a flood of requests on `net-0` never delays the judgement of
//! who is alive (R3).
//!
//! Invariants: what is wrong with the configuration or a port ends the start with an error that names the key; nothing
//! is kept on disk; the stop is ordered (R6): stop accepting, finish the requests in hand, join the threads.

mod console;
mod metrics;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::watch;

use crate::actors::acceptor::{
    Acceptor, AcceptorConfig, BindError, Connections, StopAccepting, bind,
};
use crate::actors::admin_console::{self, ConsoleConfig};
use crate::actors::ambient;
use crate::actors::heartbeat::{Heartbeat, Publication, Published};
use crate::actors::meter::Meter;
use crate::actors::metrics_server;
use crate::actors::router::Router;
use crate::actors::session::{self, Ended, SessionConfig};
use crate::actors::threads::{ThreadError, Threads};
use crate::actors::tracker_service::TrackerService;
use crate::cluster::liveness::LivenessConfig;
use crate::cluster::nodes::Nodes;
use crate::daemon;
use crate::messages::heads::{HeadError, NodeIdentity, Uuid};
use crate::messages::opcode::Daemon;
use crate::rotation::Rotation;
use crate::settings::{LivenessSettings, TrackerSettings};
use crate::tls::{Certified, Stream, TlsProblem};

/// How long an ordered stop may take in all.
pub const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Why a tracker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The console beyond loopback without a key.
    #[error("{0}")]
    Console(String),
    /// The system gives no thread, no randomness or no signals.
    #[error("{what}: {source}")]
    System {
        /// What for.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// A certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsProblem),
    /// The empty view cannot be encoded.
    #[error(transparent)]
    View(#[from] HeadError),
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

/// A running tracker.
pub struct Tracker {
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    acceptor: Addr<Acceptor>,
    console: Option<Addr<Acceptor>>,
    metrics: Option<(SocketAddr, Addr<Acceptor>)>,
    connections: Arc<Connections>,
    stopping: watch::Sender<bool>,
    publication: Publication,
    rotation: Arc<Rotation>,
    threads: Threads,
}

/// Starts a tracker. Must be called inside an actix `System`.
///
/// # Errors
/// [`StartError`]; nothing is left running then but threads that end with the system.
pub fn start(settings: &TrackerSettings, mut threads: Threads) -> Result<Tracker, StartError> {
    let listener = bind("listen", settings.listen.data)?;
    let address = listener.local_addr().map_err(system("the listening socket"))?;
    let rotation = Rotation::begin(&settings.auth, settings.tls.as_ref(), None)?;
    let admin_listener = match settings.listen.admin {
        Some(admin) => {
            admin_console::check_address(admin, &rotation.keys).map_err(StartError::Console)?;
            Some(bind("admin_listen", admin)?)
        }
        None => None,
    };
    let metrics_listener = match settings.listen.metrics {
        Some(address) => Some(bind("metrics_listen", address)?),
        None => None,
    };
    let instance = ambient::random().map_err(system("randomness"))?;
    let turn = ambient::random().map(u64::from_le_bytes).map_err(system("randomness"))?;
    let control = threads.start("control").map_err(system("a thread"))?;
    let net = threads.start("net-0").map_err(system("a thread"))?;
    rotation.watch(&control);

    let first = Published::new(Nodes::first_view(instance, settings.put_policy))?;
    let publication: Publication = Arc::new(ArcSwap::from_pointee(first));
    let liveness = liveness(&settings.liveness);
    let published = Arc::clone(&publication);
    let heartbeat =
        Heartbeat::start_in_arbiter(&control, move |_| Heartbeat::new(liveness, published));
    let published = Arc::clone(&publication);
    let router = Router::start_in_arbiter(&control, move |_| Router::new(published, turn));

    let (stopping, hear_stopping) = watch::channel(false);
    let node = node(instance);
    let session = Arc::new(SessionConfig {
        node: node.clone(),
        name: format!("tracker {address}"),
        keys: rotation.keys.clone(),
        tls: rotation.tls.clone(),
        handshake_timeout: settings.limits.handshake_timeout,
        idle_timeout: settings.limits.idle_timeout,
        stopping: hear_stopping,
    });
    let meter = Arc::new(Meter::new());
    let service = Arc::new(TrackerService {
        node,
        heartbeat: heartbeat.clone(),
        router: router.clone(),
        interval_ms: millis(settings.liveness.heartbeat_interval).try_into().unwrap_or(u32::MAX),
        meter: Arc::clone(&meter),
    });
    let acceptor = Acceptor::new(
        AcceptorConfig {
            listener,
            name: "frames",
            max_connections: settings.limits.max_connections,
            too_many: Bytes::new(),
        },
        Box::new(move |accepted| serve_on(&net, accepted, &session, &service)),
    );
    let connections = acceptor.connections();
    let acceptor = Acceptor::start_in_arbiter(&control, move |_| acceptor);

    let metrics = match metrics_listener {
        Some(listener) => {
            let bound = listener.local_addr().map_err(system("the socket of the metrics"))?;
            let (beat, route) = (heartbeat.clone(), router.clone());
            let clock = meter.clock;
            let page = metrics::source(beat, route, Arc::clone(&connections), meter, clock);
            Some((bound, metrics_server::start(listener, page, rotation.tls.clone(), &control)))
        }
        None => None,
    };
    let mut admin_address = None;
    let mut console = None;
    if let Some(listener) = admin_listener {
        admin_address = Some(listener.local_addr().map_err(system("the console's socket"))?);
        let open = Arc::clone(&connections);
        let proofs = Arc::clone(&rotation);
        let source = console::source(address, settings, heartbeat, router, open, proofs);
        let config = ConsoleConfig {
            source,
            keys: rotation.keys.clone(),
            tls: rotation.tls.clone(),
            handshake_timeout: settings.limits.handshake_timeout,
            idle_timeout: settings.limits.idle_timeout,
        };
        console = Some(admin_console::start(listener, config, &control));
    }
    tracing::info!(%address, admin = ?admin_address, "the tracker serves");
    Ok(Tracker {
        address,
        admin_address,
        acceptor,
        console,
        metrics,
        connections,
        stopping,
        publication,
        rotation,
        threads,
    })
}

/// Serves one connection on the net arbiter.
fn serve_on(
    net: &ArbiterHandle,
    accepted: crate::actors::acceptor::Accepted,
    config: &Arc<SessionConfig>,
    service: &Arc<TrackerService>,
) {
    let (config, service) = (Arc::clone(config), Arc::clone(service));
    let crate::actors::acceptor::Accepted { stream, peer, permit } = accepted;
    // An arbiter that is gone drops the socket: the other end sees it.
    net.spawn_fn(move || {
        actix::spawn(async move {
            let ended = match secure(stream, &config).await {
                Ok((stream, certified)) => {
                    session::serve(stream, peer, &certified, config, &*service).await
                }
                Err(ended) => ended,
            };
            tracing::debug!(%peer, %ended, "connection ended");
            drop(permit);
        });
    });
}

async fn secure(
    stream: std::net::TcpStream,
    config: &SessionConfig,
) -> Result<(Stream, Certified), Ended> {
    let stream = tokio::net::TcpStream::from_std(stream)?;
    Ok(session::secure(stream, config).await?)
}

fn node(instance: [u8; 16]) -> NodeIdentity {
    NodeIdentity {
        kind: Daemon::Tracker,
        group: String::new(),
        syncgroup: String::new(),
        machine: 0,
        instance: Uuid::new(instance),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn liveness(settings: &LivenessSettings) -> LivenessConfig {
    LivenessConfig {
        suspect_after_ms: millis(settings.suspect_after),
        offline_after_ms: millis(settings.offline_after),
        readmit_after_ms: millis(settings.readmit_after),
    }
}

impl Tracker {
    /// Where it serves.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its console is.
    #[must_use]
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Where its metrics page is.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(address, _)| *address)
    }

    /// Its keys and certificates.
    #[must_use]
    pub const fn rotation(&self) -> &Arc<Rotation> {
        &self.rotation
    }

    /// The view that it publishes now.
    #[must_use]
    pub fn published(&self) -> Arc<Published> {
        self.publication.load_full()
    }

    /// Stops in order within about `limit`. What could not be finished in time is named.
    pub async fn stop(self, limit: Duration) -> Vec<ThreadError> {
        self.acceptor.do_send(StopAccepting);
        for listener in self.console.iter().chain(self.metrics.as_ref().map(|(_, m)| m)) {
            listener.do_send(StopAccepting);
        }
        self.stopping.send_replace(true);
        if tokio::time::timeout(limit / 2, self.connections.none_left()).await.is_err() {
            tracing::warn!(left = self.connections.count(), "connections did not end in time");
        }
        self.threads.stop_and_join(limit / 2)
    }
}

/// The daemon: starts, says ready, serves until SIGTERM or SIGINT, stops in order.
///
/// # Errors
/// [`StartError`].
pub fn run(settings: &TrackerSettings) -> Result<(), StartError> {
    actix::System::new().block_on(async {
        daemon::raise_descriptors();
        let mut signals = daemon::StopSignals::listen().map_err(system("signals"))?;
        let tracker = start(settings, Threads::new())?;
        daemon::on_hangup(tracker.rotation()).map_err(system("signals"))?;
        daemon::announce_ready(&format!("tracker={}", tracker.address()));
        let signal = signals.wait().await;
        tracing::info!(signal, "stopping");
        daemon::announce_stopping();
        for error in tracker.stop(STOP_LIMIT).await {
            tracing::warn!(%error, "at the stop");
        }
        Ok(())
    })
}
