//! The listening socket, and the limit on how many connections there are.
//!
//! Used for frames and for the console by both daemons: what is started for a socket is an argument.
//!
//! Invariants
//! - Never more than `max_connections` sockets are handed out and not yet ended: a [`Permit`] lives as long as its
//!   connection. One too many is told so and closed, at once (P7).
//! - An error of `accept` (no descriptors left, a connection that broke off) never ends the daemon: it is logged and
//!   tried again after a pause.
//! - After [`StopAccepting`] nothing is accepted, and new connections are refused by the system.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Pause after an error of `accept`.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A socket cannot be listened on. Says which key of the configuration is to be changed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program listens there.
    #[error(
        "`{key}` = {address}: the port is in use; stop the program that listens there or choose another port"
    )]
    InUse {
        /// Key of the configuration.
        key: String,
        /// The address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("`{key}` = {address}: cannot listen there: {source}")]
    Io {
        /// Key of the configuration.
        key: String,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// Opens the listening socket. `key` is the configuration's name for it (`listen`, `admin_listen`).
///
/// # Errors
/// [`BindError`]. Called before anything is started, so that a daemon with a bad address ends with a clear message.
pub fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let key = key.to_owned();
    let listener = match TcpListener::bind(address) {
        Ok(listener) => listener,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            return Err(BindError::InUse { key, address });
        }
        Err(source) => return Err(BindError::Io { key, address, source }),
    };
    match listener.set_nonblocking(true) {
        Ok(()) => Ok(listener),
        Err(source) => Err(BindError::Io { key, address, source }),
    }
}

/// How many connections of one acceptor are open.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    ended: Notify,
}

impl Connections {
    /// Now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Waits until none is left. Of use after [`StopAccepting`].
    pub async fn none_left(&self) {
        loop {
            let ended = self.ended.notified();
            if self.count() == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// The right to be one of the connections. Dropped when the connection ends.
#[derive(Debug)]
pub struct Permit {
    _slot: OwnedSemaphorePermit,
    connections: Arc<Connections>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Release);
        self.connections.ended.notify_waiters();
    }
}

/// A connection that was accepted: a non-blocking socket, not yet bound to any runtime, so that it may be served on
/// another thread.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, non-blocking, `TCP_NODELAY` set.
    pub stream: std::net::TcpStream,
    /// The other end.
    pub peer: SocketAddr,
    /// Keep it as long as the connection lives.
    pub permit: Permit,
}

/// Starts whatever serves a socket. Must not block.
pub type StartConnection = Box<dyn FnMut(Accepted) + Send>;

/// What an acceptor is told at its start.
pub struct AcceptorConfig {
    /// The socket, from [`bind`].
    pub listener: TcpListener,
    /// For logs: `frames`, `console`.
    pub name: &'static str,
    /// Most connections at a time.
    pub max_connections: usize,
    /// Written to a connection that is one too many before it is closed; may be empty. Only what the socket takes at
    /// once is written.
    pub too_many: Bytes,
}

/// Owns the listening socket.
pub struct Acceptor {
    config: Option<AcceptorConfig>,
    start: Option<StartConnection>,
    connections: Arc<Connections>,
    accepting: Option<SpawnHandle>,
}

impl Acceptor {
    /// Accepts as soon as it is started; calls `start` for each connection.
    #[must_use]
    pub fn new(config: AcceptorConfig, start: StartConnection) -> Self {
        let connections = Arc::new(Connections::default());
        Self { config: Some(config), start: Some(start), connections, accepting: None }
    }

    /// How many connections are open; for `status`, and to wait for their end.
    #[must_use]
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }
}

impl Actor for Acceptor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // A supervisor never restarts this actor: the socket went into the loop.
        let (Some(config), Some(start)) = (self.config.take(), self.start.take()) else { return };
        let connections = Arc::clone(&self.connections);
        self.accepting = Some(ctx.spawn(accept_loop(config, start, connections).into_actor(self)));
    }
}

/// Closes the listening socket. Connections that are open go on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopAccepting;

impl Handler<StopAccepting> for Acceptor {
    type Result = ();

    fn handle(&mut self, _: StopAccepting, ctx: &mut Context<Self>) {
        if let Some(accepting) = self.accepting.take() {
            ctx.cancel_future(accepting);
        }
        ctx.stop();
    }
}

async fn accept_loop(
    config: AcceptorConfig,
    mut start: StartConnection,
    connections: Arc<Connections>,
) {
    let AcceptorConfig { listener, name, max_connections, too_many } = config;
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(listener = name, %error, "the listening socket cannot be used");
            return;
        }
    };
    let slots = Arc::new(Semaphore::new(max_connections));
    let mut turned_away: u64 = 0;
    let mut errors: u64 = 0;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                errors += 1;
                if errors.is_power_of_two() {
                    tracing::warn!(listener = name, %error, errors, "a connection could not be accepted");
                }
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            turned_away += 1;
            // The first one, then ever rarer: a flood of connections must not become a flood of lines.
            if turned_away.is_power_of_two() {
                tracing::warn!(
                    listener = name, %peer, turned_away, max_connections,
                    "connection refused: limits.max_connections are open"
                );
            }
            // If not even this fits, closing says enough.
            stream.try_write(&too_many).unwrap_or_default();
            continue;
        };
        connections.open.fetch_add(1, Ordering::Release);
        let permit = Permit { _slot: slot, connections: Arc::clone(&connections) };
        match stream.set_nodelay(true).and_then(|()| stream.into_std()) {
            Ok(stream) => start(Accepted { stream, peer, permit }),
            Err(error) => tracing::debug!(listener = name, %peer, %error, "connection broke off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;

    use super::*;

    fn listener() -> TcpListener {
        bind("listen", SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port")
    }

    #[test]
    fn a_port_in_use_names_the_key() {
        let taken = listener();
        let address = taken.local_addr().expect("address");
        let error = bind("admin_listen", address).expect_err("in use");
        assert!(matches!(&error, BindError::InUse { key, .. } if key == "admin_listen"));
        assert!(error.to_string().contains("`admin_listen`"), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn one_connection_too_many_is_told_so_and_a_freed_slot_serves_again() {
        actix::System::new().block_on(async {
            let listener = listener();
            let address = listener.local_addr().expect("address");
            let (send, mut accepted) = tokio::sync::mpsc::unbounded_channel();
            let config = AcceptorConfig {
                listener,
                name: "test",
                max_connections: 1,
                too_many: Bytes::from_static(b"too many"),
            };
            let acceptor = Acceptor::new(
                config,
                Box::new(move |connection| send.send(connection).expect("the test waits")),
            );
            let open = acceptor.connections();
            let acceptor = acceptor.start();
            let _first = TcpStream::connect(address).expect("connects");
            let first = accepted.recv().await.expect("accepted");
            assert_eq!(open.count(), 1);
            let refused = tokio::task::spawn_blocking(move || {
                let mut text = String::new();
                let read = TcpStream::connect(address).map(|mut s| s.read_to_string(&mut text));
                read.expect("connects").expect("reads to the end");
                text
            });
            assert_eq!(refused.await.expect("no panic"), "too many");
            drop(first);
            open.none_left().await;
            let _second = TcpStream::connect(address).expect("connects");
            let _permit = accepted.recv().await.expect("accepted again");
            acceptor.send(StopAccepting).await.expect("the actor answers");
            while acceptor.connected() {
                tokio::task::yield_now().await;
            }
            assert!(TcpStream::connect(address).is_err(), "the socket is closed");
        });
    }
}
