//! Changes that are durable here and wait for their copies, in the order of the log. On the mount's disk arbiter.
//!
//! Invariants: whether a change may be answered is [`acks`](crate::cluster::acks)' word alone; answers leave in the order
//! of their sequences; a member that let the oldest change wait for its whole patience is *late*, and nothing waits for
//! it until it has caught up. A change of another log that is asked for again is judged by what the members said they have.

use super::postman::Round;
use super::reply::{Copies, Reply};
use crate::cluster::acks::{
    AckPolicy, MemberAck, PATIENCE_MS, Verdict, Wanted, is_degraded, judge, may_begin,
};
use crate::cluster::coverage::Coverage;
use crate::format::ids::{MachineId, Position, Sequence};
use crate::messages::heads::Acks;
use crate::store::mount::Staged;
use std::collections::{BTreeMap, VecDeque};

/// A late member is waited for again when it lacks nothing that is older than this, milliseconds.
const FORGIVEN_MS: u64 = PATIENCE_MS / 2;

#[derive(Clone, Debug, Default)]
struct Peer {
    live: bool,
    acked: Sequence,
    late: bool,
    /// What it said that it has of all logs; nothing while it is refilled.
    covers: Coverage,
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
    /// Changes of other logs that were asked for again.
    again: Vec<(Position, Waiting)>,
}

impl AckRoom {
    /// Nobody waits, and there is no other member.
    #[must_use]
    pub const fn new(policy: AckPolicy) -> Self {
        Self { policy, peers: BTreeMap::new(), queue: VecDeque::new(), again: Vec::new() }
    }

    /// The configured members but this one.
    pub fn set_members(&mut self, others: impl IntoIterator<Item = MachineId>) {
        let known = std::mem::take(&mut self.peers);
        let as_known = |machine| (machine, known.get(&machine).cloned().unwrap_or_default());
        self.peers = others.into_iter().map(as_known).collect();
    }

    /// Our log is another one than before: nobody has anything of it.
    pub fn new_log(&mut self) {
        for peer in self.peers.values_mut() {
            *peer = Peer { covers: std::mem::take(&mut peer.covers), ..Peer::default() };
        }
    }

    /// How it stands with a member: whether it is connected and caught up, and up to where it has our log, if it has
    /// just said so (less than before if it lost its disk); what it lacks is up to `behind_ms` old.
    pub fn peer(
        &mut self,
        machine: MachineId,
        live: bool,
        acked: Option<Sequence>,
        behind_ms: u64,
    ) {
        if let Some(peer) = self.peers.get_mut(&machine) {
            peer.live = live;
            peer.acked = acked.unwrap_or(peer.acked);
            if !live || behind_ms < FORGIVEN_MS {
                peer.late = false;
            }
        }
    }

    /// What a member has of all logs; `None`: nothing that counts.
    pub fn member_covers(&mut self, machine: MachineId, coverage: Option<&Coverage>) {
        if let Some(peer) = self.peers.get_mut(&machine) {
            peer.covers = coverage.cloned().unwrap_or_default();
        }
    }

    /// A change that stands in another log and is durable here, too, is asked for again.
    pub fn add_again(&mut self, at: Position, staged: Staged, reply: Reply, now_ms: u64) {
        self.again.push((at, Waiting { staged, reply, since_ms: now_ms }));
    }

    /// A change is durable; what waited longer is before it.
    pub fn add(&mut self, staged: Staged, reply: Reply, now_ms: u64) {
        self.queue.push_back(Waiting { staged, reply, since_ms: now_ms });
    }

    /// Answers what may be answered.
    pub fn release(&mut self, now_ms: u64) {
        let mut round = Round::default();
        self.release_again(now_ms, &mut round);
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
            let Some(waiting) = self.queue.pop_front() else { return };
            self.answer(waiting, verdict, &mut round);
        }
    }

    fn release_again(&mut self, now_ms: u64, round: &mut Round) {
        for (at, waiting) in std::mem::take(&mut self.again) {
            let waited = now_ms.saturating_sub(waiting.since_ms);
            let has = |peer: &Peer| MemberAck {
                live: peer.live && !peer.late,
                has_it: peer.covers.covers(at),
            };
            let members: smallvec::SmallVec<[MemberAck; 8]> =
                self.peers.values().map(has).collect();
            match judge(self.policy, &members, waited) {
                Verdict::Wait => self.again.push((at, waiting)),
                verdict => self.answer(waiting, verdict, round),
            }
        }
    }

    fn answer(&self, Waiting { staged, reply, .. }: Waiting, verdict: Verdict, round: &mut Round) {
        match verdict {
            Verdict::Answer { copies, degraded } => {
                let acks = word(self.policy.wanted);
                reply.written(&staged, Copies { acks, copies, degraded }, round);
            }
            Verdict::UnknownOutcome | Verdict::Wait => reply.unknown(
                "the change is durable here, but not on as many members as durability.acks asks for",
            ),
        }
    }

    /// Answers everything that still waits: whether it counts is not known.
    pub fn give_up(&mut self, why: &str) {
        let again = self.again.drain(..).map(|(_, waiting)| waiting);
        for waiting in self.queue.drain(..).chain(again) {
            waiting.reply.unknown(why);
        }
    }

    /// Whether anybody waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty() || !self.again.is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::budget::Budget;
    use crate::actors::outbox::{Out, Outbox, RequestTag};
    use crate::format::file_id::{ObjectId, ObjectKind};
    use crate::format::ids::{Tag, Token};
    use crate::store::tokens::TokenTable;
    use std::sync::Arc;

    const MIRROR: AckPolicy = AckPolicy { wanted: Wanted::Mirror, refuse_alone: false };

    /// A room, and what comes out of it: the copies and whether they are too few, by sequence.
    struct Fixture {
        room: AckRoom,
        outbox: Arc<Outbox>,
    }

    impl Fixture {
        fn new(policy: AckPolicy, others: &[MachineId]) -> Self {
            let mut room = AckRoom::new(policy);
            room.set_members(others.iter().copied());
            Self { room, outbox: Arc::default() }
        }

        fn add(&mut self, sequence: Sequence, now_ms: u64) {
            let permit = Budget::new(1, 1).take(0).unwrap();
            let tag = RequestTag { opcode: 1, id: sequence, came_us: 0 };
            let tokens = Arc::new(TokenTable::default());
            let reply = Reply::new(Arc::clone(&self.outbox), tag, Token::default(), tokens, permit);
            let id = ObjectId {
                kind: ObjectKind::Chunk,
                machine: 1,
                mount: 0,
                log_id: 1,
                sequence,
                created_s: 1,
                chunk: 0,
                offset_units: 0,
                capacity_units: 8,
                cookie: 1,
            };
            self.room.add(Staged { sequence, id, tag: Tag::default() }, reply, now_ms);
        }

        fn out(&mut self, now_ms: u64) -> Vec<(u64, Option<(u8, bool)>)> {
            self.room.release(now_ms);
            let mut out = Vec::new();
            self.outbox.take(&mut out);
            out.into_iter()
                .map(|out| match out {
                    Out::Written { tag, copies, .. } => {
                        (tag.id, Some((copies.copies, copies.degraded)))
                    }
                    Out::Refused { tag, .. } => (tag.id, None),
                    other => panic!("{other:?}"),
                })
                .collect()
        }
    }

    #[test]
    fn no_answer_leaves_before_its_copy_or_out_of_order() {
        let mut f = Fixture::new(MIRROR, &[2, 3]);
        f.room.peer(2, true, Some(10), 0);
        f.add(11, 0);
        f.add(12, 0);
        assert_eq!(f.out(1), []);
        f.room.peer(3, false, Some(11), 0);
        assert_eq!(f.out(2), [(11, Some((2, false)))]);
        f.room.peer(2, true, Some(12), 0);
        assert_eq!(f.out(3), [(12, Some((2, false)))]);
    }

    /// A client that asks another member with the same token hears how many have the change now, and no less is enough
    /// than for the first answer.
    #[test]
    fn what_is_asked_for_again_elsewhere_counts_who_has_it() {
        const ALL: AckPolicy = AckPolicy { wanted: Wanted::All, refuse_alone: false };
        let at = Position { machine: 1, log_id: 5, sequence: 9 };
        let has: Coverage = [at].into_iter().collect();
        let mut f = Fixture::new(ALL, &[1, 3]);
        for machine in [1, 3] {
            f.room.peer(machine, true, Some(0), 0);
        }
        let again = |f: &mut Fixture, now_ms| {
            f.add(9, now_ms);
            let Waiting { staged, reply, .. } = f.room.queue.pop_back().unwrap();
            f.room.add_again(at, staged, reply, now_ms);
        };
        again(&mut f, 0);
        f.room.member_covers(1, Some(&has));
        assert_eq!(f.out(1), [], "machine 3 has not said so");
        assert_eq!(f.out(PATIENCE_MS), [(9, None)], "outcome unknown, and no false word");
        again(&mut f, 1000);
        f.room.member_covers(3, Some(&has));
        assert_eq!(f.out(1001), [(9, Some((3, false)))]);
        f.room.member_covers(3, None);
        again(&mut f, 2000);
        assert_eq!(f.out(2001), [], "what is being refilled is no copy");
        let mut f = Fixture::new(MIRROR, &[1, 3]);
        again(&mut f, 0);
        assert_eq!(f.out(1), [(9, Some((1, true)))], "nobody else is there");
    }

    #[test]
    fn a_late_member_is_waited_for_once_and_then_not_until_it_caught_up() {
        let mut f = Fixture::new(MIRROR, &[2]);
        f.room.peer(2, true, Some(10), 0);
        f.add(11, 0);
        f.add(12, 400);
        assert_eq!(f.out(PATIENCE_MS - 1), []);
        assert_eq!(f.out(PATIENCE_MS), [(11, Some((1, true))), (12, Some((1, true)))]);
        assert_eq!(f.room.late(), [2]);
        f.add(13, 600);
        assert_eq!(f.out(600), [(13, Some((1, true)))], "nobody waits for it");
        f.room.peer(2, true, Some(12), FORGIVEN_MS);
        assert_eq!(f.room.late(), [2], "it still lacks something old");
        f.room.peer(2, true, Some(13), 0);
        f.add(14, 700);
        assert_eq!(f.out(701), [], "it is waited for again");
    }

    #[test]
    fn a_member_that_lost_its_disk_is_no_copy_any_more() {
        let mut f = Fixture::new(MIRROR, &[2]);
        f.room.peer(2, true, Some(10), 0);
        f.room.peer(2, false, None, 0);
        f.add(9, 0);
        assert_eq!(f.out(0), [(9, Some((2, false)))], "away, but it has it");
        f.room.peer(2, false, Some(0), 0);
        f.add(10, 0);
        assert_eq!(f.out(0), [(10, Some((1, true)))]);
    }

    #[test]
    fn who_is_given_up_is_told_that_nobody_knows() {
        let mut f = Fixture::new(AckPolicy { refuse_alone: true, ..MIRROR }, &[2]);
        f.room.peer(2, true, Some(0), 0);
        f.add(1, 0);
        f.add(2, 0);
        f.room.give_up("a test");
        assert_eq!(f.out(0), [(1, None), (2, None)]);
    }
}
