//! `SyncPeer`: our line to one mirror. Pushes the log of each of our mounts from where the mirror has it, passes on the
//! logs of those who cannot do it themselves, says what we have and hears what the mirror has.
//!
//! | thread | a net arbiter; reads through the pool of each mount |
//! |---|---|
//! | order | the log of a mount, by its own cursor; mounts do not wait for each other |
//! | bound | `sync.window_bytes` for each mount |
//! | from | `Binlog` (the tail of its log, a hint), the roof (start, stop) |
//! | to | the mirror; `Binlog` (acknowledgements, reports) |
//!
//! Invariants (R5): whatever the mirror does, this goes on: a mirror that is away, or refuses, is a state with a pause
//! between `sync.retry_min` and `sync.retry_max`; a mount that fails there costs the others nothing. What the mirror has
//! is asked at each connection and never remembered, so a flapping link costs the resend of a window and no more.

mod compare;
mod feed;
mod relay;
mod session;

use super::caller::Identity;
use super::peers::{Peer, PeerTable};
use super::placement::Placement;
use crate::format::ids::{MachineId, MountIndex, Sequence};
use crate::store::sync::LogName;
use actix::prelude::*;
use futures_util::future::BoxFuture;
use session::Session;
use std::sync::Arc;
use std::time::Duration;

/// What a mirror lacks and no log holds any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Who lacks it.
    pub machine: MachineId,
    /// On which mount.
    pub mount: MountIndex,
    /// Of which log.
    pub log: LogName,
    /// What the mirror has of it.
    pub has: Sequence,
    /// Only what is behind this can be read here.
    pub from: Sequence,
}

/// Brings a mirror by state what no log holds. It returns when the mirror's coverage may have grown, or could not; the
/// mirror is asked again then.
pub type Mender = Arc<dyn Fn(Need) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What a `SyncPeer` is told.
#[derive(Clone)]
pub struct SyncConfig {
    /// As whom we call.
    pub identity: Identity,
    /// Our group and syncgroup.
    pub names: (String, String),
    /// Our mounts.
    pub placement: Arc<Placement>,
    /// Who else is there.
    pub table: Arc<PeerTable>,
    /// Unacknowledged bytes per mount.
    pub window_bytes: u64,
    /// First pause after a failure.
    pub retry_min: Duration,
    /// Longest pause after a failure.
    pub retry_max: Duration,
    /// How often the mounts of two mirrors are compared, at most.
    pub compare_period: Duration,
    /// Who brings what the logs no longer hold.
    pub mender: Option<Mender>,
}

/// See the module.
pub struct SyncPeer {
    session: Option<Session>,
    at_work: Option<SpawnHandle>,
}

impl SyncPeer {
    /// Our line to `peer`.
    #[must_use]
    pub fn new(peer: Arc<Peer>, config: SyncConfig) -> Self {
        Self { session: Some(Session::new(peer, config)), at_work: None }
    }
}

impl Actor for SyncPeer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // Started once only: a mirror that is away is a state, not an end (R5).
        if let Some(session) = self.session.take() {
            self.at_work = Some(ctx.spawn(session.run().into_actor(self)));
        }
    }
}

/// The daemon stops: closes the connection and ends.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopSync;

impl Handler<StopSync> for SyncPeer {
    type Result = ();

    fn handle(&mut self, _: StopSync, ctx: &mut Context<Self>) {
        if let Some(at_work) = self.at_work.take() {
            ctx.cancel_future(at_work);
        }
        ctx.stop();
    }
}

/// A pause before attempt `failures + 1`: doubling from `min` to `max`, between half and all of it by chance.
#[must_use]
pub fn backoff(failures: u32, min: Duration, max: Duration, chance: u64) -> Duration {
    let whole = min.saturating_mul(1 << failures.min(20)).min(max.max(min));
    let half = whole / 2;
    let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    half + Duration::from_nanos(chance.checked_rem(span).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_away_is_tried_within_bounds_and_not_all_at_once() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(10));
        for failures in 0..100 {
            for chance in [0, 1, 12_345, u64::MAX] {
                let pause = backoff(failures, min, max, chance);
                assert!(pause >= min / 2 && pause <= max, "{failures} {chance} {pause:?}");
            }
        }
        assert!(backoff(50, min, max, 0) >= max / 2);
        assert_ne!(backoff(5, min, max, 1), backoff(5, min, max, 1 << 30));
    }
}
