//! Reads that this mirror cannot answer by itself: what it lacks, has in too old a version, or has damaged, another member
//! may have (a part of [`connection`](super::connection)).
//!
//! Invariants
//! - Only a client's read that is not for local bytes is asked of others, and they answer from local bytes only: nobody
//!   asks on.
//! - "Not found" leaves only with evidence (see [`evidence`](crate::cluster::evidence)): of a member that says so, or of
//!   all configured ones together.
//! - What does not fit one frame is not passed through: the answer names who has it.

use super::caller::CallError;
use super::connection::Connection;
use super::get_job::Ask;
use super::outbox::{Out, Outbox, RequestTag};
use super::peers::Peer;
use super::session::Problem;
use super::storage_room::StorageRoom;
use crate::cluster::evidence::{Evidence, after_asking};
use crate::format::file_id::ObjectId;
use crate::format::ids::MachineId;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{Frame, Meta, encode};
use crate::messages::heads::{self, Get, INLINE_MAX, IdBytes, ObjectHead, Stat, StatAnswer};
use crate::messages::opcode::{Opcode, Role};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::budget::Permit;

/// How long one member is waited for. One that is there answers in milliseconds.
const LIMIT: Duration = Duration::from_secs(2);

/// A read that others may answer.
#[derive(Debug)]
pub struct Question {
    /// Which object.
    pub id: ObjectId,
    /// What of it.
    pub ask: Ask,
    /// Why it is not answered here.
    pub problem: Problem,
}

/// Whether another member may know more than a mirror that says this.
#[must_use]
pub const fn may_others_know(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Unavailable | ErrorCode::Behind | ErrorCode::Damaged | ErrorCode::Fenced
    )
}

impl Connection {
    /// Whether others may be asked to answer a read of this connection.
    pub(super) fn asks_others(&self, local_only: bool) -> bool {
        !local_only && self.session.role != Role::Peer
    }

    /// Answers a read that failed here, by others if they may know. It is not in hand yet.
    pub(super) fn read_failed(
        &mut self,
        tag: RequestTag,
        question: Question,
        permit: Option<Permit>,
    ) -> Result<(), Problem> {
        if !may_others_know(question.problem.code) {
            return Err(question.problem);
        }
        let permit = match permit {
            Some(permit) => permit,
            None => self.permit(0)?,
        };
        self.in_hand += 1;
        self.ask_others(tag, question, permit);
        Ok(())
    }

    /// Asks the other members of the object's mount; the answer comes through the outbox.
    pub(super) fn ask_others(&mut self, tag: RequestTag, question: Question, permit: Permit) {
        let (room, to) = (Arc::clone(&self.room), Arc::clone(&self.outbox));
        room.counters.asked_others.fetch_add(1, Ordering::Relaxed);
        let mut pending = Pending { inner: Some((to, tag, permit)) };
        actix::spawn(async move {
            let answer = ask(&room, tag, &question).await;
            pending.tell(answer);
        });
    }
}

/// A read that others were asked for. Answered once, also if the daemon stops meanwhile.
struct Pending {
    inner: Option<(Arc<Outbox>, RequestTag, Permit)>,
}

impl Pending {
    fn tell(&mut self, answer: Result<Passed, Problem>) {
        let Some((to, tag, mut permit)) = self.inner.take() else { return };
        match answer {
            Ok(Passed::Object(head, payload, crc)) => {
                let missing = (payload.len() as u64).saturating_sub(permit.bytes());
                if permit.grow(missing) {
                    return to.push(Out::Object {
                        tag,
                        id: None,
                        head: Box::new(head),
                        payload,
                        crc,
                        permit,
                    });
                }
                let problem = Box::new(super::connection::busy());
                to.push(Out::Refused { tag, problem, permit: Some(permit) });
            }
            Ok(Passed::Whole(frame)) => {
                to.push(Out::Answer { tag, frame, payload: Bytes::new(), permit })
            }
            Err(problem) => {
                to.push(Out::Refused { tag, problem: Box::new(problem), permit: Some(permit) });
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.tell(Err(Problem::new(ErrorCode::Stopped, "the daemon is stopping")));
    }
}

/// What another member answered.
enum Passed {
    Object(ObjectHead, Bytes, u32),
    Whole(Bytes),
}

/// Asks one member after the other, the owner first.
async fn ask(room: &StorageRoom, tag: RequestTag, question: &Question) -> Result<Passed, Problem> {
    let Ok(mount) = room.placement.mount(question.id.mount) else {
        return Err(question.problem.clone());
    };
    let members = Arc::clone(&mount.mirror.members().borrow());
    let mut others: Vec<MachineId> =
        members.iter().map(|member| member.machine).filter(|m| *m != room.machine).collect();
    others.sort_unstable_by_key(|machine| (*machine != question.id.machine, *machine));
    let (mut said, mut away) = (Vec::new(), Vec::new());
    // Damaged on two, and not to be found on a third: that one was refilled from them, and nobody could give it a copy.
    let (mut gone, mut damaged) = (None, false);
    for machine in others {
        let peer = room.peers.get(machine);
        let answer = match &peer {
            Some(peer) => ask_one(peer, tag, question).await,
            None => Heard::Nothing,
        };
        match answer {
            Heard::Answer(passed) => return Ok(passed),
            Heard::Definite(problem)
                if question.problem.code == ErrorCode::Damaged
                    && problem.code == ErrorCode::NotFound =>
            {
                gone = Some(problem);
            }
            Heard::Definite(problem) => return Err(problem),
            Heard::Damaged => {
                damaged = true;
                said.push(Some(Evidence::Unknown));
            }
            Heard::Unknown => said.push(Some(Evidence::Unknown)),
            Heard::Nothing => {
                said.push(None);
                away.push(machine);
            }
        }
    }
    if let Some(problem) = gone
        && !damaged
    {
        return Err(problem);
    }
    let lacking = question.problem.code == ErrorCode::Unavailable;
    match after_asking(&said) {
        Evidence::Gone if lacking => {
            Err(Problem::new(ErrorCode::NotFound, "no member of its syncgroup has such an object"))
        }
        Evidence::Unknown if lacking && !away.is_empty() => {
            let away: Vec<String> = away.iter().map(ToString::to_string).collect();
            Err(Problem::new(
                ErrorCode::Unavailable,
                format!(
                    "no member that answers has the object, and machine {} may have it",
                    away.join(", ")
                ),
            )
            .remedy("start it, or `forget` it on a storage's console if it never comes back"))
        }
        _ => Err(question.problem.clone()),
    }
}

/// What one member said.
enum Heard {
    Answer(Passed),
    /// An error that is the answer.
    Definite(Problem),
    /// It is damaged there, too.
    Damaged,
    /// It does not have it, and knows of no reason.
    Unknown,
    /// It is not there.
    Nothing,
}

async fn ask_one(peer: &Peer, tag: RequestTag, question: &Question) -> Heard {
    let id = IdBytes::new(question.id.encode());
    let (asked, last) = match question.ask {
        Ask::Stat => {
            let head = Stat { id, local_only: true };
            (peer.call(Opcode::Stat, &head, Bytes::new(), LIMIT).await, None)
        }
        Ask::Get { first, last, min_opver, .. } => {
            // Never so much that it would have to be streamed.
            let most = first.saturating_add(INLINE_MAX as u64 - 1);
            let bounded = last.map_or(most, |last| last.min(most));
            let head =
                Get { id, first, last: Some(bounded), min_opver, local_only: true, window: 0 };
            let wanted = last.unwrap_or(u64::MAX);
            (peer.call(Opcode::Get, &head, Bytes::new(), LIMIT).await, Some(wanted))
        }
    };
    match asked {
        Ok(frame) => match last {
            Some(wanted) => object(peer, frame, wanted),
            None => stat(tag, &frame),
        },
        Err(CallError::Refused { problem, .. }) => match problem.code {
            ErrorCode::NotFound | ErrorCode::BadRange => Heard::Definite(problem),
            ErrorCode::Damaged if question.problem.code == ErrorCode::Damaged => Heard::Damaged,
            ErrorCode::Unavailable | ErrorCode::Behind | ErrorCode::Damaged => Heard::Unknown,
            _ => Heard::Nothing,
        },
        Err(_) => Heard::Nothing,
    }
}

/// An object that came in one frame, if that is all of what was asked for.
fn object(peer: &Peer, frame: Frame, wanted: u64) -> Heard {
    let Ok(head) = heads::decode::<ObjectHead>(frame.head()) else { return Heard::Nothing };
    let end = head.first.saturating_add(head.count);
    if end < wanted.saturating_add(1).min(head.length) {
        return Heard::Definite(
            Problem::new(
                ErrorCode::WrongNode,
                format!("machine {} has the object, this one has not", peer.machine),
            )
            .remedy("ask it"),
        );
    }
    let crc = frame.header.payload_crc;
    Heard::Answer(Passed::Object(head, frame.into_payload(), crc))
}

fn stat(tag: RequestTag, frame: &Frame) -> Heard {
    let Ok(head) = heads::decode::<StatAnswer>(frame.head()) else { return Heard::Nothing };
    let mut bytes = BytesMut::with_capacity(256);
    match encode(&mut bytes, Meta::answer(tag.opcode, tag.id), &head, b"", 0) {
        Ok(()) => Heard::Answer(Passed::Whole(bytes.freeze())),
        Err(_) => Heard::Nothing,
    }
}
