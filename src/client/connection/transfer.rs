//! Streamed bodies on a connection: up, as the node's window allows, and down, within ours.

use super::{Connection, Pending, PendingState, Reply, lock};
use crate::client::error::{Error, Failure, Left, Result};
use crate::client::flow::{Allowance, Credit};
use crate::messages::error::ErrorCode;
use crate::messages::frame::{FLAG_LAST, Frame, Kind, Meta};
use crate::messages::heads::{self, DataEnd, WINDOW, WindowHead};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// A request whose body is on its way.
#[derive(Debug)]
pub(in crate::client) struct Upload {
    pub(super) pending: Pending,
    pub(super) credit: Arc<Credit>,
}

/// What comes first while a body is sent.
pub(in crate::client) enum Turn {
    /// So many bytes may be sent.
    Send(usize),
    /// The node answered before the end of the body.
    Answered(std::result::Result<Reply, Failure>),
}

impl Upload {
    /// Waits until something may be sent, at most `wanted` bytes, or an answer came.
    pub(in crate::client) async fn turn(
        &mut self,
        wanted: usize,
        deadline: Instant,
    ) -> std::result::Result<Turn, Failure> {
        self.pending.state = PendingState::Uploading;
        let waited = timeout_at(deadline, async {
            tokio::select! {
                biased;
                received = &mut self.pending.receiver => Err(received),
                bytes = self.credit.available(wanted) => Ok(bytes),
            }
        });
        match waited.await {
            Ok(Ok(bytes)) => Ok(Turn::Send(bytes)),
            Ok(Err(received)) => {
                let mut answer = self.pending.received(received);
                if let Err(failure) = &mut answer
                    && failure.left == Left::Unknown
                {
                    // The end of the body was never sent.
                    failure.left = Left::Nothing;
                }
                Ok(Turn::Answered(answer))
            }
            Err(_) => {
                let error = Error::new(ErrorCode::Unavailable, "the node takes no more bytes");
                Err(Failure::nothing(error.at(self.pending.connection.node())))
            }
        }
    }

    /// Sends a piece, not more than [`Upload::turn`] allowed.
    pub(in crate::client) fn piece(
        &self,
        payload: Bytes,
        crc: u32,
    ) -> std::result::Result<(), Failure> {
        self.credit.take(payload.len());
        let meta = Meta::of_kind(Kind::Data, self.pending.opcode.as_u16(), self.pending.id);
        let sent = self.pending.connection.send(meta, &(), payload, crc);
        sent.map_err(Failure::nothing)
    }

    /// Sends the end and waits for the answer.
    pub(in crate::client) async fn finish(
        mut self,
        end: DataEnd,
        deadline: Instant,
    ) -> std::result::Result<Reply, Failure> {
        let meta = Meta::of_kind(Kind::Data, self.pending.opcode.as_u16(), self.pending.id)
            .with_flags(FLAG_LAST);
        // From here on the change may be made: it is no longer ours to cancel.
        self.pending.state = PendingState::Open;
        let sent = self.pending.connection.send(meta, &end, Bytes::new(), 0);
        sent.map_err(Failure::nothing)?;
        self.pending.answer(deadline).await
    }
}

/// A streamed body on its way to us. Dropping it before its end cancels it at the node.
#[derive(Debug)]
pub(in crate::client) struct Download {
    connection: Arc<Connection>,
    pieces: mpsc::UnboundedReceiver<Result<Frame>>,
    allowance: Arc<Allowance>,
    meta: Meta,
    /// Taken by the caller and not yet allowed again, bytes.
    taken: u32,
    over: bool,
}

impl Reply {
    /// The body, if it is streamed.
    pub(in crate::client) fn download(&mut self, connection: &Arc<Connection>) -> Option<Download> {
        let (pieces, allowance) = self.body.take()?;
        let meta = self.frame.header.meta;
        let connection = Arc::clone(connection);
        Some(Download { connection, pieces, allowance, meta, taken: 0, over: false })
    }
}

impl Download {
    /// The next piece; with the end mark on the last one.
    pub(in crate::client) async fn piece(
        &mut self,
        deadline: Instant,
    ) -> Result<(Bytes, Option<DataEnd>)> {
        let node = || self.connection.node();
        let frame = match timeout_at(deadline, self.pieces.recv()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                self.over = true;
                return Err(error);
            }
            Ok(None) => {
                self.over = true;
                return Err(self.connection.shared.why_dead());
            }
            Err(_) => {
                return Err(Error::new(ErrorCode::Unavailable, "the node sends nothing").at(node()));
            }
        };
        let end = if frame.header.has(FLAG_LAST) {
            self.over = true;
            Some(heads::decode::<DataEnd>(frame.head()).map_err(|e| Error::from(e).at(node()))?)
        } else {
            None
        };
        let bytes = frame.into_payload();
        if end.is_none() {
            self.allow(bytes.len());
        }
        Ok((bytes, end))
    }

    /// What the caller has taken may be sent again, in steps that are worth a frame.
    fn allow(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.taken < WINDOW / 4 {
            return;
        }
        let bytes = std::mem::take(&mut self.taken);
        self.allowance.allow(bytes);
        let meta = Meta::of_kind(Kind::Window, self.meta.opcode, self.meta.request_id);
        // A connection that is gone shows at the next piece.
        drop(self.connection.send(meta, &WindowHead { bytes }, Bytes::new(), 0));
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let id = self.meta.request_id;
        lock(&self.connection.shared.waiting).slots.remove(&id);
        self.connection.shared.cancel(self.meta.opcode, id);
    }
}
