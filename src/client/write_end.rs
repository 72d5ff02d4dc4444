//! The writing half of a connection, as those need it who write without waiting.
//!
//! A plain socket is written by whoever makes a request. Encryption is one for all of them, so with TLS they fill a
//! buffer of at most [`BUFFER_MAX`] bytes, and a task of its own encrypts and writes it.

use crate::tls;
use bytes::{Bytes, BytesMut};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// With more than this nothing is taken until some of it is written, bytes.
const BUFFER_MAX: usize = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) enum WriteEnd {
    /// A socket.
    Plain(OwnedWriteHalf),
    /// A buffer before one.
    Tls(Pump),
}

impl WriteEnd {
    /// Around what a handshake left.
    pub(super) fn new(end: tls::WriteEnd) -> Self {
        match end {
            tls::WriteEnd::Plain(socket) => Self::Plain(socket),
            end @ tls::WriteEnd::Tls(_) => Self::Tls(Pump::start(end)),
        }
    }

    /// Writes what is taken at once; `WouldBlock` if nothing is.
    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            // Cheaper for the kernel than a list of one.
            (Self::Plain(socket), [one]) => socket.try_write(one),
            (Self::Plain(socket), many) => socket.try_write_vectored(many),
            (Self::Tls(pump), slices) => pump.try_write(slices),
        }
    }

    /// Waits until something may be taken.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.writable().await,
            Self::Tls(pump) => pump.writable().await,
        }
    }
}

/// The task that encrypts, and what it has before it.
#[derive(Debug)]
pub(super) struct Pump {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    filled: Notify,
    drained: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: BytesMut,
    broken: Option<(io::ErrorKind, String)>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Bytes {
        self.state().waiting.split().freeze()
    }
}

impl Pump {
    fn start(mut socket: tls::WriteEnd) -> Self {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                let bytes = own.take();
                if bytes.is_empty() {
                    own.filled.notified().await;
                    continue;
                }
                own.drained.notify_one();
                let written = async {
                    socket.write_all(&bytes).await?;
                    socket.flush().await
                };
                if let Err(error) = written.await {
                    own.state().broken = Some((error.kind(), tls::connect::broken(&error)));
                    own.drained.notify_one();
                    return;
                }
            }
        });
        Self { shared, task: task.abort_handle() }
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.shared.state();
        if let Some((kind, why)) = &state.broken {
            return Err(io::Error::new(*kind, why.clone()));
        }
        let mut room = BUFFER_MAX.saturating_sub(state.waiting.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut taken = 0;
        for slice in slices {
            let now = slice.len().min(room);
            state.waiting.extend_from_slice(&slice[..now]);
            taken += now;
            room -= now;
            if room == 0 {
                break;
            }
        }
        drop(state);
        self.shared.filled.notify_one();
        Ok(taken)
    }

    /// Whether there is room, or an error to be told.
    fn takes(&self) -> bool {
        let state = self.shared.state();
        state.waiting.len() < BUFFER_MAX || state.broken.is_some()
    }

    /// One task waits here at a time: the writer of the connection.
    async fn writable(&self) -> io::Result<()> {
        while !self.takes() {
            self.shared.drained.notified().await;
        }
        Ok(())
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.task.abort();
    }
}
