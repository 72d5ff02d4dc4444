//! What a tracker answers to each opcode: a thin step between a connection and the two actors that know.

use actix::prelude::*;
use bytes::Bytes;
use std::sync::Arc;

use super::ambient;
use super::heartbeat::{Beat, Forgotten, Heartbeat};
use super::meter::Meter;
use super::router::{Router, ShowView, Where};
use super::session::{Answer, Problem, Service};
use crate::cluster::meeting::MEMBERS_MAX;
use crate::cluster::nodes::Refused;
use crate::cluster::routing::NoRoute;
use crate::cluster::view::StorageReport;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{Frame, Meta};
use crate::messages::handshake::Session;
use crate::messages::heads::{self, Member, NodeIdentity, Pong, Uuid};
use crate::messages::opcode::Opcode;

/// Serves the connections of one tracker.
pub struct TrackerService {
    /// Who we are.
    pub node: NodeIdentity,
    /// Takes reports.
    pub heartbeat: Addr<Heartbeat>,
    /// Knows the view.
    pub router: Addr<Router>,
    /// How often storages are to report, milliseconds.
    pub interval_ms: u32,
    /// What was asked.
    pub meter: Arc<Meter>,
}

/// What an actor that has gone leaves behind.
fn stopped(_: MailboxError) -> Problem {
    Problem::new(ErrorCode::Stopped, "the tracker stops").remedy("ask another tracker")
}

fn malformed(error: heads::HeadError) -> Problem {
    Problem::new(error.code(), error.to_string())
}

impl From<NoRoute> for Problem {
    fn from(no_route: NoRoute) -> Self {
        let (code, remedy) = match &no_route {
            NoRoute::UnknownGroup { .. } | NoRoute::UnknownSyncgroup { .. } => (
                ErrorCode::UnknownGroup,
                "check the id, or that this is the tracker of its cluster",
            ),
            NoRoute::GroupNeeded { .. } => (ErrorCode::Usage, "name one with --group"),
            NoRoute::NoStorages => {
                (ErrorCode::Unavailable, "start a storage that names this tracker")
            }
            NoRoute::Full { .. } => (ErrorCode::NoSpace, "make room, or add a mount or a storage"),
            NoRoute::NotWritable { .. } | NoRoute::AllDown { .. } => {
                (ErrorCode::Unavailable, "see `nodes` and `mounts` on the tracker's console")
            }
        };
        Self::new(code, no_route.to_string()).remedy(remedy)
    }
}

impl Service for TrackerService {
    async fn call(
        &self,
        session: &Session,
        opcode: Opcode,
        request: Frame,
    ) -> Result<Answer, Problem> {
        let came_us = self.meter.clock.now_us();
        let answer = self.answer(session, opcode, request).await;
        let refused = answer.as_ref().err().map(|problem| problem.code);
        let took_us = self.meter.clock.now_us().saturating_sub(came_us);
        self.meter.count(opcode.as_u16(), refused, took_us);
        answer
    }
}

impl TrackerService {
    async fn answer(
        &self,
        session: &Session,
        opcode: Opcode,
        request: Frame,
    ) -> Result<Answer, Problem> {
        let meta = request.header.meta;
        match opcode {
            Opcode::Ping => {
                let pong = Pong { server_time_ms: ambient::wall_ms() };
                Answer::new(meta, &pong, &Bytes::new())
            }
            Opcode::Info => Answer::new(meta, &self.node, &Bytes::new()),
            Opcode::View => self.view(meta, &request).await,
            Opcode::Route => self.route(meta, &request).await,
            Opcode::Heartbeat => self.heartbeat(meta, session, &request).await,
            Opcode::Hello
            | Opcode::Auth
            | Opcode::Put
            | Opcode::Get
            | Opcode::Modify
            | Opcode::Delete
            | Opcode::Undelete
            | Opcode::Stat
            | Opcode::List
            | Opcode::Df
            | Opcode::SyncHello
            | Opcode::SyncPush
            | Opcode::SyncStatus
            | Opcode::SyncContent
            | Opcode::SyncOffer
            | Opcode::SyncChunkfiles
            | Opcode::SyncDigest
            | Opcode::SyncMarks
            | Opcode::SyncCopies
            | Opcode::SyncArchive
            | Opcode::SyncArchived
            | Opcode::SyncPull => Err(Problem::new(
                ErrorCode::UnknownOpcode,
                format!("a tracker does not serve {opcode}"),
            )),
        }
    }

    async fn view(&self, meta: Meta, request: &Frame) -> Result<Answer, Problem> {
        let head: heads::View = heads::decode(request.head()).map_err(malformed)?;
        let published = self.router.send(ShowView).await.map_err(stopped)?;
        let view = &published.view;
        let known = (head.known_epoch, head.known_tracker.into_array());
        let changed = known != (view.epoch, view.tracker);
        let payload = if changed { published.encoded.clone() } else { Bytes::new() };
        let answer = heads::ViewAnswer { epoch: view.epoch, changed };
        Answer::new(meta, &answer, &payload)
    }

    async fn route(&self, meta: Meta, request: &Frame) -> Result<Answer, Problem> {
        let head: heads::Route = heads::decode(request.head()).map_err(malformed)?;
        let question = match (head.group, head.syncgroup, head.machine) {
            (group, None, None) => Where::Put { group, length: head.length },
            (Some(group), Some(syncgroup), Some(owner)) => {
                Where::Object { group, syncgroup, owner, mount: head.mount.unwrap_or(0) }
            }
            _ => {
                return Err(Problem::new(
                    ErrorCode::Usage,
                    "a route to an object needs group, syncgroup and machine",
                ));
            }
        };
        let (route, epoch) = self.router.send(question).await.map_err(stopped)??;
        let payload = heads::encode_map(&route).map_err(malformed)?;
        Answer::new(meta, &heads::RouteAnswer { epoch }, &payload.into())
    }

    async fn heartbeat(
        &self,
        meta: Meta,
        session: &Session,
        request: &Frame,
    ) -> Result<Answer, Problem> {
        let head: heads::Heartbeat = heads::decode(request.head()).map_err(malformed)?;
        let report: StorageReport = heads::decode(request.payload()).map_err(malformed)?;
        if report.instance != session.instance {
            return Err(Problem::new(
                ErrorCode::Refused,
                "the heartbeat names another instance than the handshake",
            ));
        }
        let names = (report.group.clone(), report.syncgroup.clone());
        if session.machine.is_some() {
            let claimed = format!("{}/{}/{}", names.0, names.1, report.machine);
            if claimed != session.name {
                let said = format!(
                    "its certificate is for {}, and the heartbeat is of {claimed}",
                    session.name
                );
                return Err(super::session::not_certified(said));
            }
        }
        let beat = self.heartbeat.send(Beat(report)).await.map_err(stopped)?;
        let mut answer = heads::HeartbeatAnswer {
            accepted: beat.is_ok(),
            why: String::new(),
            epoch: 0,
            members: Vec::new(),
            interval_ms: self.interval_ms,
            clock_ms: super::ambient::wall_ms(),
        };
        match beat {
            Ok(taken) => {
                answer.epoch = taken.epoch;
                if !head.forgotten.is_empty() {
                    let gone = head.forgotten.iter().take(MEMBERS_MAX);
                    let storages = gone.map(|m| (m.machine, m.instance.into_array())).collect();
                    let names = names.clone();
                    self.heartbeat.send(Forgotten { names, storages }).await.map_err(stopped)?;
                }
                answer.members = self.members(&names.0, &names.1).await?;
            }
            Err(refused @ (Refused::DuplicateMachineId { .. } | Refused::TableFull)) => {
                answer.why = refused.to_string();
            }
            Err(Refused::Bad(bad)) => {
                return Err(Problem::new(ErrorCode::BadRequest, bad.to_string()));
            }
        }
        Answer::new(meta, &answer, &Bytes::new())
    }

    async fn members(&self, group: &str, syncgroup: &str) -> Result<Vec<Member>, Problem> {
        let published = self.router.send(ShowView).await.map_err(stopped)?;
        let members = published
            .view
            .groups
            .get(group)
            .and_then(|group| group.syncgroups.get(syncgroup))
            .map(|members| members.storages.values())
            .into_iter()
            .flatten()
            .map(|storage| Member {
                machine: storage.machine,
                instance: Uuid::new(storage.instance),
                address: storage.advertise.clone(),
            })
            .collect();
        Ok(members)
    }
}
