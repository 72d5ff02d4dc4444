//! Get and stat.

use super::connection::Connection;
use super::drive::{Goal, Nature, Nowhere, Operation};
use super::error::{Error, Failure};
use super::mutate::{bytes_of, goals_of};
use super::object::{Object, ObjectInfo};
use crate::cluster::view::ClusterView;
use crate::format::file_id::FileId;
use crate::format::ids::{MachineId, Tag};
use crate::messages::error::ErrorCode;
use crate::messages::heads::{self, ObjectHead, StatAnswer, WINDOW};
use crate::messages::opcode::Opcode;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The one machine that is asked for, whatever the tracker thinks of it.
fn goal_from(view: &ClusterView, id: &FileId, from: MachineId) -> Result<Vec<Goal>, Nowhere> {
    if let Some(storage) = view.storage(&id.group, &id.syncgroup, from) {
        return Ok(vec![Goal {
            group: id.group.clone(),
            syncgroup: id.syncgroup.clone(),
            machine: from,
            address: storage.advertise.clone(),
        }]);
    }
    let error = Error::new(
        ErrorCode::Unavailable,
        format!("machine {from} is not known in {}/{}", id.group, id.syncgroup),
    );
    Err(Nowhere {
        error: error.remedy("`folio df` names the machines that are known"),
        doubt: Duration::from_secs(1),
    })
}

fn goals(view: &ClusterView, id: &FileId, from: Option<MachineId>) -> Result<Vec<Goal>, Nowhere> {
    from.map_or_else(|| goals_of(view, id), |from| goal_from(view, id, from))
}

const fn nature(from: Option<MachineId>) -> Nature {
    if from.is_some() { Nature::ReadOnce } else { Nature::Read }
}

/// A get.
pub(super) struct Read<'a> {
    pub(super) id: &'a FileId,
    pub(super) first: u64,
    pub(super) last: Option<u64>,
    pub(super) from: Option<MachineId>,
    pub(super) min_opver: Option<Tag>,
    pub(super) patience: Duration,
}

impl Operation for Read<'_> {
    type Output = Object;

    fn goals(&mut self, view: &ClusterView) -> Result<Vec<Goal>, Nowhere> {
        goals(view, self.id, self.from)
    }

    async fn attempt(
        &mut self,
        connection: &Arc<Connection>,
        _goal: &Goal,
        deadline: Instant,
    ) -> Result<Object, Failure> {
        let head = heads::Get {
            id: bytes_of(self.id),
            first: self.first,
            last: self.last,
            min_opver: self.min_opver,
            local_only: self.from.is_some(),
            window: WINDOW,
        };
        let mut reply = connection.call(Opcode::Get, &head, Bytes::new(), 0, deadline).await?;
        let download = reply.download(connection);
        let head: ObjectHead = heads::decode(reply.frame.head())
            .map_err(|e| Failure::answered(Error::from(e).at(connection.node())))?;
        let info = ObjectInfo::from(head);
        let node = connection.shared_node();
        let crc = reply.frame.header.payload_crc;
        Ok(match download {
            Some(download) => Object::streamed(info, download, self.patience, node),
            None => Object::whole(info, reply.frame.into_payload(), crc, node),
        })
    }

    fn nature(&self) -> Nature {
        nature(self.from)
    }
}

/// What is known about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Stat {
    /// The object.
    pub id: FileId,
    /// Who answered.
    pub machine: MachineId,
    /// Length, capacity, version, times and so on.
    pub answer: StatAnswer,
}

/// A stat.
pub(super) struct Look<'a> {
    pub(super) id: &'a FileId,
    pub(super) from: Option<MachineId>,
}

impl Operation for Look<'_> {
    type Output = Stat;

    fn goals(&mut self, view: &ClusterView) -> Result<Vec<Goal>, Nowhere> {
        goals(view, self.id, self.from)
    }

    async fn attempt(
        &mut self,
        connection: &Arc<Connection>,
        goal: &Goal,
        deadline: Instant,
    ) -> Result<Stat, Failure> {
        let head = heads::Stat { id: bytes_of(self.id), local_only: self.from.is_some() };
        let reply = connection.call(Opcode::Stat, &head, Bytes::new(), 0, deadline).await?;
        let answer = heads::decode(reply.frame.head())
            .map_err(|e| Failure::answered(Error::from(e).at(connection.node())))?;
        Ok(Stat { id: self.id.clone(), machine: goal.machine, answer })
    }

    fn nature(&self) -> Nature {
        nature(self.from)
    }
}
