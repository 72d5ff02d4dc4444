//! Edits that reach a mirror while their owner is there: handed to the owner, and answered with its answer (a part of
//! [`connection`](super::connection)).
//!
//! Invariants
//! - What was handed on once is never handed on again: only a client's request is, never another storage's.
//! - The client's token goes along, so that the edit stays one edit however it is retried (R2); here it counts as being
//!   executed until the owner has answered.
//! - No answer, or a connection that breaks: the outcome is unknown, and the answer says so. Nothing is awaited of an owner
//!   that has been silent for [`PATIENCE_MS`].
//! - The order in which a connection asked is the order in which the owner hears it.
//! - Only what stands in one frame is handed on. A streamed body goes to the owner directly (`wrong_node`).

use super::budget::Permit;
use super::caller::CallError;
use super::connection::Connection;
use super::meter::Stages;
use super::outbox::{Out, Outbox, RequestTag};
use super::peer_link::Answer;
use super::peers::{Peer, PeerTable};
use super::reply::Copies;
use super::session::Problem;
use super::storage_room::StorageRoom;
use crate::format::file_id::ObjectId;
use crate::format::ids::Token;
use crate::messages::error::ErrorCode;
use crate::messages::frame::Frame;
use crate::messages::heads::{self, Written};
use crate::messages::opcode::{Opcode, Role};
use crate::store::tokens::{Begin, TokenTable};
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// An owner of whom nothing is heard for so long, in ms, will not answer: a mirror writes in its place by now.
const PATIENCE_MS: u64 = 1_000;
/// How often it is looked whether it is heard.
const LOOK: Duration = Duration::from_millis(100);
/// An owner that is heard and does not answer for so long has lost the request.
const LIMIT: Duration = Duration::from_secs(60);

/// A change, as it travels.
pub(super) struct Edit<H> {
    pub(super) id: ObjectId,
    pub(super) opcode: Opcode,
    pub(super) token: Token,
    pub(super) head: H,
    pub(super) payload: Bytes,
}

impl Connection {
    /// The owner to whom a change of an object must be handed; `None`: it is made here.
    ///
    /// # Errors
    /// Those of [`StorageRoom::may_change`]; `WrongNode` only to another storage.
    pub(super) fn owner_of(
        &self,
        id: &ObjectId,
        conditional: bool,
    ) -> Result<Option<Arc<Peer>>, Problem> {
        match self.room.who_changes(id, conditional)? {
            Some(_) if self.session.role != Role::Client => {
                self.room.may_change(id, conditional).map(|()| None)
            }
            owner => Ok(owner),
        }
    }

    /// Hands a change to the owner of its object.
    pub(super) fn forward<H: Serialize>(
        &mut self,
        tag: RequestTag,
        owner: Arc<Peer>,
        edit: &Edit<H>,
    ) -> Result<(), Problem> {
        self.room.check_writes()?;
        let permit = match self.large.take() {
            Some(permit) => permit,
            None => self.permit(edit.payload.len() as u64)?,
        };
        let tokens = Arc::clone(&self.room.tokens);
        let token = match tokens.begin(&edit.token) {
            Begin::Fresh => Some(edit.token),
            // Done here while the owner was away, or heard of from it.
            Begin::Answered(answered) => {
                super::requests::same_change(&answered, Some(&edit.id))?;
                return self.again(tag, &answered, permit);
            }
            Begin::InFlight => return Err(super::requests::in_flight()),
            // The owner may know more.
            Begin::TooOld => None,
        };
        let to = Arc::clone(&self.outbox);
        let handed = Handed { inner: Some((to, tag, permit)), token, tokens };
        self.in_hand += 1;
        self.room.counters.forwarded.fetch_add(1, Ordering::Relaxed);
        let begun = owner
            .links()
            .map(|links| links.calls.start(edit.opcode, &edit.head, edit.payload.clone()));
        match begun {
            Some(Ok(answer)) => {
                let table = Arc::clone(&self.room.peers);
                actix::spawn(async move { handed.done(heard(answer, &owner, &table).await) });
            }
            // It was heard a moment ago: it comes back, or is replaced.
            Some(Err(_)) | None => handed.done(Err(Problem::new(
                ErrorCode::Busy,
                format!("the connection to machine {}, the owner, is gone", owner.machine),
            )
            .remedy("ask again in a moment"))),
        }
        Ok(())
    }
}

/// The owner's answer.
async fn heard(mut answer: Answer, owner: &Peer, table: &PeerTable) -> Result<Written, Problem> {
    let unknown = |why: String| {
        Problem::new(ErrorCode::UnknownOutcome, why)
            .remedy("ask again with the same token, or read the object")
    };
    let machine = owner.machine;
    let begun_ms = table.clock.now_ms();
    loop {
        match tokio::time::timeout(LOOK, &mut answer).await {
            Ok(Ok(frame)) => {
                return read(&frame).map_err(|error| {
                    unknown(format!(
                        "machine {machine} made the change and answers nonsense: {error}"
                    ))
                });
            }
            Ok(Err(CallError::Refused { problem, .. })) => return Err(problem),
            Ok(Err(error)) => {
                return Err(unknown(format!(
                    "machine {machine}, the owner, may have made it: {error}"
                )));
            }
            Err(_) => {}
        }
        let now_ms = table.clock.now_ms();
        let silent = now_ms.saturating_sub(owner.heard_ms()) >= PATIENCE_MS;
        if silent || Duration::from_millis(now_ms - begun_ms) >= LIMIT {
            return Err(unknown(format!("machine {machine}, the owner, does not answer")));
        }
    }
}

fn read(frame: &Frame) -> Result<Written, heads::HeadError> {
    heads::decode(frame.head())
}

/// A request that is with its owner. Answered once, also if this daemon stops meanwhile.
struct Handed {
    inner: Option<(Arc<Outbox>, RequestTag, Permit)>,
    token: Option<Token>,
    tokens: Arc<TokenTable>,
}

impl Handed {
    fn done(mut self, answer: Result<Written, Problem>) {
        self.tell(answer);
    }

    fn tell(&mut self, answer: Result<Written, Problem>) {
        let Some((to, tag, permit)) = self.inner.take() else { return };
        if let Some(token) = self.token.take() {
            // Nothing is executed here. If the owner did it, its log says so, and then the table knows the answer.
            self.tokens.abandon(&token);
        }
        let told = answer.and_then(|written| {
            let id = ObjectId::decode(&written.id)
                .map_err(|error| Problem::new(ErrorCode::UnknownOutcome, error.to_string()))?;
            Ok((id, written))
        });
        match told {
            Ok((id, Written { opver, acks, copies, degraded, .. })) => {
                let copies = Copies { acks, copies, degraded };
                let stages = Stages::default();
                to.push(Out::Written { tag, id, opver, copies, stages, permit });
            }
            Err(problem) => {
                to.push(Out::Refused { tag, problem: Box::new(problem), permit: Some(permit) });
            }
        }
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.tell(Err(Problem::new(
            ErrorCode::UnknownOutcome,
            "the daemon stopped while the owner made the change",
        )
        .remedy("ask again with the same token, or read the object")));
    }
}

impl StorageRoom {
    /// Whether a change of an object may be made here, now; if not, what to say.
    ///
    /// # Errors
    /// As [`StorageRoom::who_changes`], and `WrongNode`: its owner is there.
    pub fn may_change(&self, id: &ObjectId, conditional: bool) -> Result<(), Problem> {
        match self.who_changes(id, conditional)? {
            None => Ok(()),
            Some(owner) => Err(wrong_node(&owner)),
        }
    }
}

/// The owner is there, and has to be asked itself.
pub(super) fn wrong_node(owner: &Peer) -> Problem {
    Problem::new(
        ErrorCode::WrongNode,
        format!("machine {} owns the object and is there", owner.machine),
    )
    .remedy("ask the owner")
}
