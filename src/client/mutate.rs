//! Put, modify, delete, undelete.

use super::body::{Content, Pieces, Prepared, other_length, spent};
use super::connection::{Connection, Reply, Turn};
use super::drive::{Goal, Nature, Nowhere, Operation};
use super::error::{Error, Failure};
use super::pinned::Pinned;
use super::tokens::Ticket;
use crate::cluster::routing;
use crate::cluster::view::ClusterView;
use crate::format::crc::{crc32c, crc32c_combine};
use crate::format::file_id::{FileId, ObjectId};
use crate::format::ids::{Tag, Token};
use crate::messages::heads::{self, Acks, DataEnd, IdBytes, Reserve};
use crate::messages::opcode::Opcode;
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A change that is durable (P1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The object.
    pub id: FileId,
    /// Its version now.
    pub opver: Tag,
    /// What was waited for.
    pub acks: Acks,
    /// On how many machines the change is durable.
    pub copies: u8,
    /// Fewer than the configuration asks for.
    pub degraded: bool,
}

/// What is changed.
pub(super) enum Change {
    Put {
        group: Option<String>,
        ext: Option<String>,
        reserve: Option<Reserve>,
        body: Prepared,
        turn: u64,
        pinned: Option<Pinned>,
    },
    Modify {
        id: FileId,
        if_opver: Option<Tag>,
        body: Prepared,
    },
    Delete {
        id: FileId,
        if_opver: Option<Tag>,
    },
    Undelete {
        id: FileId,
    },
}

/// A change with its token.
pub(super) struct Mutate {
    pub(super) change: Change,
    pub(super) ticket: Ticket,
    /// How long a streamed body may make no progress.
    pub(super) patience: Duration,
}

/// Where requests about an object go.
pub(super) fn goals_of(view: &ClusterView, id: &FileId) -> Result<Vec<Goal>, Nowhere> {
    let ObjectId { machine, mount, .. } = id.object;
    let route = routing::object(view, &id.group, &id.syncgroup, machine, mount)?;
    Ok(Goal::of_route(&id.group, &route))
}

/// An id as it travels.
pub(super) fn bytes_of(id: &FileId) -> IdBytes {
    IdBytes::new(id.object.encode())
}

impl Operation for Mutate {
    type Output = Written;

    fn goals(&mut self, view: &ClusterView) -> Result<Vec<Goal>, Nowhere> {
        match &self.change {
            Change::Put { pinned: Some(pinned), .. } => pinned.place.goals(view),
            Change::Put { group, body, turn, .. } => {
                let length = body.content.length().unwrap_or(0);
                let route = routing::put(view, group.as_deref(), length, *turn)?;
                let name = group.clone().or_else(|| view.groups.keys().next().cloned());
                Ok(Goal::of_route(&name.unwrap_or_default(), &route))
            }
            Change::Modify { id, .. } | Change::Delete { id, .. } | Change::Undelete { id } => {
                goals_of(view, id)
            }
        }
    }

    async fn attempt(
        &mut self,
        connection: &Arc<Connection>,
        goal: &Goal,
        deadline: Instant,
    ) -> Result<Written, Failure> {
        let token = self.ticket.token(connection.server_time_ms());
        let request = Request { connection, deadline, patience: self.patience };
        let reply = self.change.send(&request, token).await?;
        // The change is made: an answer that cannot be read leaves only doubt about its details.
        let understood = |error: Error| Failure::unknown(error.at(connection.node()));
        let written: heads::Written =
            heads::decode(reply.frame.head()).map_err(|e| understood(e.into()))?;
        let id = self.change.name(goal, &written.id).map_err(understood)?;
        let heads::Written { opver, acks, copies, degraded, .. } = written;
        Ok(Written { id, opver, acks, copies, degraded })
    }

    fn nature(&self) -> Nature {
        match self.change {
            Change::Put { .. } => Nature::Create,
            Change::Modify { .. } | Change::Delete { .. } | Change::Undelete { .. } => Nature::Edit,
        }
    }

    fn replayable(&self) -> bool {
        match &self.change {
            Change::Put { body, .. } | Change::Modify { body, .. } => body.content.replayable(),
            Change::Delete { .. } | Change::Undelete { .. } => true,
        }
    }

    fn renew(&mut self) {
        self.ticket.renew();
    }
}

impl Change {
    async fn send(&mut self, request: &Request<'_>, token: Token) -> Result<Reply, Failure> {
        match self {
            Self::Put { body, reserve, .. } => {
                let length = body.content.length();
                let head = heads::Put { token, mount: None, reserve: *reserve, length };
                request.with_body(Opcode::Put, &head, body).await
            }
            Self::Modify { id, if_opver, body } => {
                let length = body.content.length();
                let head = heads::Modify { id: bytes_of(id), token, if_opver: *if_opver, length };
                request.with_body(Opcode::Modify, &head, body).await
            }
            Self::Delete { id, if_opver } => {
                let head = heads::Delete { id: bytes_of(id), token, if_opver: *if_opver };
                request.bare(Opcode::Delete, &head).await
            }
            Self::Undelete { id } => {
                let head = heads::Undelete { id: bytes_of(id), token };
                request.bare(Opcode::Undelete, &head).await
            }
        }
    }

    /// The id of what was changed, whole.
    fn name(&self, goal: &Goal, core: &IdBytes) -> Result<FileId, Error> {
        match self {
            Self::Put { ext, .. } => name(&goal.group, &goal.syncgroup, core, ext.as_deref()),
            Self::Modify { id, .. } | Self::Delete { id, .. } | Self::Undelete { id } => {
                Ok(id.clone())
            }
        }
    }
}

/// A whole id from its core.
pub(super) fn name(
    group: &str,
    syncgroup: &str,
    core: &IdBytes,
    ext: Option<&str>,
) -> Result<FileId, Error> {
    let not_an_id = |error: crate::format::file_id::IdError| {
        Error::new(
            crate::messages::error::ErrorCode::Failed,
            format!("answer with a bad id: {error}"),
        )
    };
    let object = ObjectId::decode(core).map_err(not_an_id)?;
    FileId::new(group, syncgroup, object, ext).map_err(not_an_id)
}

/// One request on its way to one node.
struct Request<'a> {
    connection: &'a Arc<Connection>,
    deadline: Instant,
    patience: Duration,
}

impl Request<'_> {
    async fn bare<H: Serialize + Sync>(&self, opcode: Opcode, head: &H) -> Result<Reply, Failure> {
        self.connection.call(opcode, head, Bytes::new(), 0, self.deadline).await
    }

    async fn with_body<H: Serialize + Sync>(
        &self,
        opcode: Opcode,
        head: &H,
        body: &mut Prepared,
    ) -> Result<Reply, Failure> {
        let (content, mut progress) = body.split();
        if let Content::Inline(bytes, crc) = content {
            let reply =
                self.connection.call(opcode, head, bytes.clone(), *crc, self.deadline).await?;
            progress(bytes.len() as u64);
            return Ok(reply);
        }
        let length = content.length();
        let mut pieces = content.pieces().await?;
        self.stream(opcode, head, &mut pieces, length, progress).await
    }

    /// Sends a body in pieces, as the node's window allows.
    async fn stream<H: Serialize + Sync>(
        &self,
        opcode: Opcode,
        head: &H,
        pieces: &mut Pieces<'_>,
        length: Option<u64>,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<Reply, Failure> {
        let mut upload = self.connection.upload(opcode, head)?;
        let mut end = DataEnd { length: 0, crc32c: 0 };
        loop {
            let mut piece = pieces.next().await?;
            if piece.is_empty() {
                break;
            }
            while !piece.is_empty() {
                match upload.turn(piece.len(), Instant::now() + self.patience).await? {
                    Turn::Answered(answer) => return answer,
                    Turn::Send(allowed) => {
                        let part = piece.split_to(allowed);
                        let (len, crc) = (part.len() as u64, crc32c(&part));
                        upload.piece(part, crc)?;
                        end.length += len;
                        end.crc32c = crc32c_combine(end.crc32c, crc, len);
                        progress(end.length);
                    }
                }
            }
        }
        if length.is_some_and(|length| length != end.length) {
            return Err(spent(other_length(length, end.length)));
        }
        upload.finish(end, self.deadline.max(Instant::now() + self.patience)).await
    }
}
