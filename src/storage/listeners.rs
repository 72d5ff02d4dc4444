//! The sockets of a storage, and what their connections share.

use super::{StartError, console};
use crate::actors::acceptor::{Acceptor, AcceptorConfig, bind};
use crate::actors::admin_console;
use crate::actors::budget::Budget;
use crate::actors::connection;
use crate::actors::metrics_server::{self, PageSource};
use crate::actors::peers::PeerTable;
use crate::actors::placement::Placement;
use crate::actors::postman::Postman;
use crate::actors::session::SessionConfig;
use crate::actors::storage_room::StorageRoom;
use crate::messages::heads::{NodeIdentity, Uuid};
use crate::messages::opcode::Daemon;
use crate::rotation::Rotation;
use crate::settings::StorageSettings;
use crate::store::tokens::TokenTable;
use actix::prelude::*;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
pub(super) fn serve_metrics(
    listener: std::net::TcpListener,
    sight: Arc<console::Sight>,
    control: &ArbiterHandle,
) -> Result<(SocketAddr, Addr<Acceptor>), StartError> {
    let address = listener
        .local_addr()
        .map_err(|source| StartError::System { what: "the socket of the metrics", source })?;
    let tls = sight.rotation.tls.clone();
    let source: PageSource = Arc::new(move || {
        let sight = Arc::clone(&sight);
        Box::pin(async move { sight.metrics() })
    });
    Ok((address, metrics_server::start(listener, source, tls, control)))
}

/// Opens the console's socket; from then on the settings name its real address.
pub(super) fn bind_console(
    settings: &mut StorageSettings,
    rotation: &Rotation,
) -> Result<Option<(std::net::TcpListener, SocketAddr)>, StartError> {
    let Some(admin) = settings.listen.admin else { return Ok(None) };
    admin_console::check_address(admin, &rotation.keys).map_err(StartError::Console)?;
    let listener = bind("admin_listen", admin)?;
    let address = listener
        .local_addr()
        .map_err(|source| StartError::System { what: "the console's socket", source })?;
    settings.listen.admin = Some(address);
    Ok(Some((listener, address)))
}

pub(super) fn session_of(
    settings: &StorageSettings,
    instance: [u8; 16],
    stopping: watch::Receiver<bool>,
    rotation: &Rotation,
) -> SessionConfig {
    let (group, syncgroup) = (settings.group.clone(), settings.syncgroup.clone());
    let machine = settings.machine_id;
    let name = format!("{group}/{syncgroup}/{machine}");
    let node = NodeIdentity {
        kind: Daemon::Storage,
        group,
        syncgroup,
        machine,
        instance: Uuid::new(instance),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let limits = &settings.limits;
    SessionConfig {
        node,
        name,
        keys: rotation.keys.clone(),
        tls: rotation.tls.clone(),
        handshake_timeout: limits.handshake_timeout,
        idle_timeout: limits.idle_timeout,
        stopping,
    }
}

pub(super) fn room_of(
    settings: &StorageSettings,
    session: SessionConfig,
    peers: Arc<PeerTable>,
) -> StorageRoom {
    let limits = &settings.limits;
    StorageRoom::new(
        session,
        settings.machine_id,
        Placement::new(settings.store.mount_policy),
        Budget::new(limits.in_flight_requests, limits.in_flight_bytes),
        Arc::new(TokenTable::default()),
        settings.store.single_file_threshold,
        settings.durability,
        peers,
    )
}

pub(super) fn accept(
    listener: std::net::TcpListener,
    settings: &StorageSettings,
    room: &Arc<StorageRoom>,
    net: Vec<ArbiterHandle>,
    control: &ArbiterHandle,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Addr<Acceptor> {
    let config = AcceptorConfig {
        listener,
        name: "frames",
        max_connections: settings.limits.max_connections,
        too_many: Bytes::new(),
    };
    let (room, stop, tasks) = (Arc::clone(room), stop.clone(), tasks.clone());
    let net: Vec<(ArbiterHandle, Arc<Postman>)> = net
        .into_iter()
        .map(|arbiter| {
            let postman = Arc::new(Postman::default());
            let run = Arc::clone(&postman).run();
            arbiter.spawn(run);
            (arbiter, postman)
        })
        .collect();
    let mut turn = 0;
    let start = Box::new(move |accepted| {
        turn = (turn + 1) % net.len();
        let (room, stop, tasks) = (Arc::clone(&room), stop.clone(), tasks.clone());
        // An arbiter that is gone drops the socket: the client sees the end.
        let (arbiter, postman) = &net[turn];
        let postman = Arc::clone(postman);
        arbiter.spawn_fn(move || {
            actix::spawn(tasks.track_future(connection::serve(accepted, room, stop, postman)));
        });
    });
    Acceptor::start_in_arbiter(control, move |_| Acceptor::new(config, start))
}
