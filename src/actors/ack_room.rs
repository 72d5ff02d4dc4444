//! Changes that are durable here and wait for their copies, in the order of the log. On the mount's disk arbiter.
//!
//! Invariants: whether a change may be answered is [`acks`](crate::cluster::acks)' word alone; answers leave in the order
//! of their sequences; a member that let the oldest change wait for its whole patience is *late*, and nothing waits for
//! it until it has caught up.

use super::reply::{Copies, Reply};
use crate::cluster::acks::{
    AckPolicy, MemberAck, PATIENCE_MS, Verdict, Wanted, is_degraded, judge, may_begin,
};
use crate::format::ids::{MachineId, Sequence};
use crate::messages::heads::Acks;
use crate::store::mount::Staged;
use std::collections::{BTreeMap, VecDeque};

/// A late member is waited for again when it lacks nothing that is older than this, milliseconds.
const FORGIVEN_MS: u64 = PATIENCE_MS / 2;

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    live: bool,
    acked: Sequence,
    late: bool,
}

struct Waiting {
    staged: Staged,
    reply: Reply,
    since_ms: u64,
}

/// See the module.
pub struct AckRoom {
    policy: AckPolicy,
    /// Every configured member but this one.
    peers: BTreeMap<MachineId, Peer>,
    queue: VecDeque<Waiting>,
}

impl AckRoom {
    /// Nobody waits, and there is no other member.
    #[must_use]
    pub const fn new(policy: AckPolicy) -> Self {
        Self { policy, peers: BTreeMap::new(), queue: VecDeque::new() }
    }

    /// The configured members but this one.
    pub fn set_members(&mut self, others: impl IntoIterator<Item = MachineId>) {
        let known = std::mem::take(&mut self.peers);
        let as_known = |machine| (machine, known.get(&machine).copied().unwrap_or_default());
        self.peers = others.into_iter().map(as_known).collect();
    }

    /// Our log is another one than before: nobody has anything of it.
    pub fn new_log(&mut self) {
        for peer in self.peers.values_mut() {
            *peer = Peer::default();
        }
    }

    /// How it stands with a member: connected and caught up, has our log up to `acked`; what it lacks is up to
    /// `behind_ms` old.
    pub fn peer(&mut self, machine: MachineId, live: bool, acked: Sequence, behind_ms: u64) {
        if let Some(peer) = self.peers.get_mut(&machine) {
            peer.live = live;
            peer.acked = peer.acked.max(acked);
            if !live || behind_ms < FORGIVEN_MS {
                peer.late = false;
            }
        }
    }

    /// A change is durable; what waited longer is before it.
    pub fn add(&mut self, staged: Staged, reply: Reply, now_ms: u64) {
        self.queue.push_back(Waiting { staged, reply, since_ms: now_ms });
    }

    /// Answers what may be answered.
    pub fn release(&mut self, now_ms: u64) {
        while let Some(front) = self.queue.front() {
            let (sequence, waited) = (front.staged.sequence, now_ms.saturating_sub(front.since_ms));
            if waited >= PATIENCE_MS {
                for peer in self.peers.values_mut() {
                    peer.late |= peer.live && peer.acked < sequence;
                }
            }
            let verdict = judge(self.policy, &self.members(sequence), waited);
            if verdict == Verdict::Wait {
                return;
            }
            let Some(Waiting { staged, reply, .. }) = self.queue.pop_front() else { return };
            match verdict {
                Verdict::Answer { copies, degraded } => {
                    let acks = word(self.policy.wanted);
                    reply.written(&staged, Copies { acks, copies, degraded });
                }
                Verdict::UnknownOutcome | Verdict::Wait => reply.unknown(
                    "the change is durable here, but not on as many members as durability.acks asks for",
                ),
            }
        }
    }

    /// Answers everything that still waits: whether it counts is not known.
    pub fn give_up(&mut self, why: &str) {
        for waiting in self.queue.drain(..) {
            waiting.reply.unknown(why);
        }
    }

    /// Whether anybody waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether a change may be begun.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        may_begin(self.policy, &self.members(Sequence::MAX))
    }

    /// Whether an answer would say less than the configuration asks for.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        is_degraded(self.policy, &self.members(Sequence::MAX))
    }

    /// Members that did not acknowledge in time.
    #[must_use]
    pub fn late(&self) -> Vec<MachineId> {
        self.peers.iter().filter(|(_, peer)| peer.late).map(|(machine, _)| *machine).collect()
    }

    fn members(&self, sequence: Sequence) -> smallvec::SmallVec<[MemberAck; 8]> {
        let ack = |peer: &Peer| MemberAck {
            live: peer.live && !peer.late,
            has_it: peer.acked >= sequence,
        };
        self.peers.values().map(ack).collect()
    }
}

/// As it stands in answers.
#[must_use]
pub const fn word(wanted: Wanted) -> Acks {
    match wanted {
        Wanted::Local => Acks::Local,
        Wanted::Mirror => Acks::Mirror,
        Wanted::All => Acks::All,
    }
}
