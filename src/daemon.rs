//! What both daemons owe to whoever started them: the line `ready ...`, systemd's notification, the signals,
//! descriptors enough.

use crate::rotation::Rotation;
use std::io::Write;
use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Descriptors that are asked for.
const DESCRIPTORS: u64 = 1 << 20;

/// The signals that end a daemon in order. Take it before saying ready, so that none is missed.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for SIGTERM or SIGINT; its name.
    pub async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// On SIGHUP keys and certificates are read again.
///
/// # Errors
/// The system refuses.
pub fn on_hangup(rotation: &Arc<Rotation>) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let rotation = Arc::clone(rotation);
    actix::spawn(async move {
        while hangup.recv().await.is_some() {
            rotation.ask();
        }
    });
    Ok(())
}

/// Prints `ready DETAILS` on stdout, and tells systemd if it asked (`NOTIFY_SOCKET`).
pub fn announce_ready(details: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "ready {details}").and_then(|()| out.flush()) {
        tracing::warn!(%error, "nobody reads standard output");
    }
    notify(&[NotifyState::Ready, NotifyState::Status(details)]);
}

/// Tells systemd that the stop has begun.
pub fn announce_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be notified");
    }
}

/// How many files and sockets this process may have open; `None`: no limit.
#[must_use]
pub fn descriptors() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current
}

/// Raises the limit of open files as far as the system lets us: many mounts and many connections need them.
pub fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    if now.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: now.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
}
