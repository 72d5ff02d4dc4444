//! Compares our mounts with those of a mirror from time to time, and keeps what came of it where people look.
//!
//! Invariants: one mount at a time; only while both hold each other for live; at most a tenth of the time, however large
//! the mounts are; a comparison that finds a difference is followed by another one soon.

use super::session::Session;
use crate::actors::ambient;
use crate::actors::peers::{PeerMount, SyncState};
use crate::actors::shared_mount::SharedMount;
use crate::actors::state_pull::compare::{Compared, compare};
use crate::actors::state_pull::{Plan, Progress};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether the mirror is live.
const LOOK: Duration = Duration::from_millis(250);
/// A comparison after one that found something.
const SOON: Duration = Duration::from_secs(10);
/// The first one after a connection.
const FIRST: Duration = Duration::from_secs(30);
/// Bytes of chunkfiles per second.
const BANDWIDTH: u64 = 64 << 20;
/// The pause is so many times as long as the comparison before it took, at least.
const REST: u32 = 9;

/// Compares, for as long as the connection lives.
pub async fn run(session: Arc<Session>, mount: Arc<SharedMount>, known: Arc<PeerMount>) {
    let period = session.config.compare_period;
    let mut pause = period.min(FIRST);
    loop {
        tokio::time::sleep(by_chance(pause)).await;
        let both_live = || known.state() == SyncState::Live && known.holds_us_live();
        while !(both_live() && mount.is_online()) {
            tokio::time::sleep(LOOK).await;
        }
        let plan = Plan {
            bandwidth: Arc::new(BANDWIDTH.into()),
            ..Plan::of(&mount, vec![Arc::clone(&session.peer)])
        };
        let begun = tokio::time::Instant::now();
        let compared = compare(&session.config.table, &plan, &Progress::default()).await;
        pause = period.max(begun.elapsed() * REST);
        match compared {
            Ok(compared) => {
                if say(&session, &mount, &known, compared) {
                    pause = pause.min(SOON);
                }
            }
            Err(why) => {
                let (peer, mount) = (session.peer.machine, mount.index);
                tracing::debug!(peer, mount, why, "not compared");
            }
        }
    }
}

/// Keeps it; whether to look again soon.
fn say(session: &Session, mount: &SharedMount, known: &PeerMount, compared: Compared) -> bool {
    let (peer, mount) = (session.peer.machine, mount.index);
    let Compared { objects, busy, mended, different, .. } = compared;
    if mended > 0 || different > 0 {
        tracing::warn!(peer, mount, mended, different, objects, busy, "a mirror differed");
    } else {
        tracing::debug!(peer, mount, objects, busy, "compared with a mirror");
    }
    known.set_compared(compared);
    mended > 0 || different > 0
}

/// Between half and all of it.
fn by_chance(pause: Duration) -> Duration {
    let half = pause / 2;
    let chance = ambient::random().map_or(0, u32::from_le_bytes);
    half + half.mul_f64(f64::from(chance) / f64::from(u32::MAX))
}
