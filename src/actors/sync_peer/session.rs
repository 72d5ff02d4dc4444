//! The life of a line to one mirror: connect, feed every mount, say and hear what both have, until it breaks; again.

use super::{SyncConfig, backoff};
use crate::actors::ambient;
use crate::actors::binlog::PeerAcked;
use crate::actors::caller::CallError;
use crate::actors::peer_link::Link;
use crate::actors::peer_requests::{Reported, reports_since, take_report};
use crate::actors::peers::{Links, Peer};
use crate::messages::heads::{self, SyncReports, SyncStatus, encode_map};
use crate::messages::opcode::{Daemon, Opcode};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How often both say what they have.
const STATUS: Duration = Duration::from_millis(100);
/// A mirror that does not answer for so long is gone.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

/// What the parts of a line share.
pub struct Session {
    pub peer: Arc<Peer>,
    pub config: SyncConfig,
}

impl Session {
    pub const fn new(peer: Arc<Peer>, config: SyncConfig) -> Self {
        Self { peer, config }
    }

    pub async fn run(self) {
        let session = Arc::new(self);
        let mut failures = 0;
        loop {
            let (error, lasted) = session.once().await;
            session.over(&error);
            failures = if lasted { 0 } else { failures + 1 };
            let chance = ambient::random().map_or(0, u64::from_le_bytes);
            let (min, max) = (session.config.retry_min, session.config.retry_max);
            tokio::select! {
                () = tokio::time::sleep(backoff(failures, min, max, chance)) => {}
                () = session.peer.kicked() => {
                    // Never in a tight circle, whoever kicks.
                    tokio::time::sleep(min).await;
                }
            }
        }
    }

    /// One connection, to its end; and whether it was of any use.
    async fn once(self: &Arc<Self>) -> (CallError, bool) {
        let links = match self.connect().await {
            Ok(links) => links,
            Err(error) => return (error, false),
        };
        self.peer.connected(links.clone());
        tracing::info!(peer = self.peer.machine, address = %self.peer.address(), "connected to a mirror");
        let mut tasks = JoinSet::new();
        for mount in self.config.placement.mounts() {
            let Some(known) = self.peer.mount(mount.index) else { continue };
            let (session, mount, known) = (Arc::clone(self), Arc::clone(mount), Arc::clone(known));
            let push = Arc::clone(&links.push);
            let (again, ours) = (Arc::clone(&session), Arc::clone(&mount));
            tasks.spawn_local(super::compare::run(again, ours, Arc::clone(&known)));
            tasks.spawn_local(super::feed::run(session, push, mount, known));
        }
        let relay = super::relay::run(Arc::clone(self), Arc::clone(&links.push));
        tasks.spawn_local(relay);
        let error = tokio::select! {
            error = self.statuses(&links.push) => error,
            () = links.calls.closed() => CallError::Broken {
                address: self.peer.address().to_string(),
                ended: crate::actors::session::Ended::Closed,
            },
        };
        // Whatever they are doing ends here (they are dropped).
        tasks.abort_all();
        links.push.close();
        links.calls.close();
        (error, true)
    }

    fn over(&self, error: &CallError) {
        self.peer.disconnected(&error.to_string(), error.remedy());
        for mount in self.config.placement.mounts() {
            let machine = self.peer.machine;
            mount.mirror.member_room(machine, None);
            if let Some(binlog) = mount.registry.binlog() {
                binlog.do_send(PeerAcked { machine, live: false, acked: None });
            }
        }
    }

    async fn connect(&self) -> Result<Links, CallError> {
        let push = Arc::new(self.link().await?);
        let calls = Arc::new(self.link().await?);
        Ok(Links { push, calls })
    }

    async fn link(&self) -> Result<Link, CallError> {
        let address = self.peer.address();
        let (identity, clock) = (&self.config.identity, self.config.table.clock);
        let link =
            Link::connect(&address, identity, CONNECT_LIMIT, clock, self.peer.heard()).await?;
        let node = &link.node;
        let (group, syncgroup) = &self.config.names;
        let expected = (Daemon::Storage, group, syncgroup, self.peer.machine);
        if (node.kind, &node.group, &node.syncgroup, node.machine) != expected {
            let what = format!(
                "a {} {}/{}/{} listens there, not machine {} of our syncgroup",
                node.kind, node.group, node.syncgroup, node.machine, self.peer.machine
            );
            return Err(CallError::Nonsense { address: address.to_string(), what });
        }
        Ok(link)
    }

    /// Says and hears what both have, until that fails.
    async fn statuses(&self, push: &Link) -> CallError {
        let mut each = tokio::time::interval(STATUS);
        each.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reported = Reported::default();
        loop {
            each.tick().await;
            let mounts = self.config.placement.mounts().iter();
            let (reports, now) =
                reports_since(mounts, Some(&self.peer), reported, &self.config.table);
            reported = now;
            if let Err(error) = self.status(push, &reports).await {
                return error;
            }
            self.config.placement.mounts().iter().for_each(|mount| mount.mirror.judge_room());
        }
    }

    async fn status(&self, push: &Link, reports: &SyncReports) -> Result<(), CallError> {
        let nonsense = |error: heads::HeadError| CallError::Nonsense {
            address: self.peer.address().to_string(),
            what: error.to_string(),
        };
        let payload = encode_map(reports).map_err(nonsense)?;
        let head = SyncStatus { machine: self.config.table.us };
        let frame = push.call(Opcode::SyncStatus, &head, payload.into(), STATUS_LIMIT).await?;
        let theirs: SyncReports = heads::decode(frame.payload()).map_err(nonsense)?;
        if let Some(told) = theirs.told {
            self.peer.take_told(told);
        }
        for said in theirs.mounts {
            if let Ok(mount) = self.config.placement.mount(said.mount) {
                take_report(mount, Some(&self.peer), self.peer.machine, said);
            }
        }
        Ok(())
    }
}
