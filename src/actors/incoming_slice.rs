//! Records of another member on their way in: a slice, and who is to hear how it ended.
//!
//! Invariant: exactly one answer leaves for each slice, also if it is dropped.

use super::budget::Permit;
use super::outbox::{Out, Outbox, RequestTag};
use super::session::Problem;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{Meta, encode};
use crate::messages::heads::SyncPushed;
use crate::store::sync::{LogSlice, Received};
use actix::Message;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// A slice that was received and not yet taken.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Slice {
    /// The records.
    pub slice: LogSlice,
    /// Who hears how it ended.
    pub reply: SliceReply,
}

/// Answers one `sync_push`, once.
#[derive(Debug)]
pub struct SliceReply {
    inner: Option<(Arc<Outbox>, RequestTag, Permit)>,
}

impl SliceReply {
    /// The answer to `tag` goes to `to`.
    #[must_use]
    pub const fn new(to: Arc<Outbox>, tag: RequestTag, permit: Permit) -> Self {
        Self { inner: Some((to, tag, permit)) }
    }

    /// How it ended.
    pub fn received(mut self, received: Received) {
        let Some((to, tag, permit)) = self.inner.take() else { return };
        let nothing =
            SyncPushed { outcome: 0, covered: 0, content: None, length: 0, why: String::new() };
        let head = match received {
            Received::Covered(covered) => SyncPushed { covered, ..nothing },
            Received::Gap(covered) => SyncPushed { outcome: 1, covered, ..nothing },
            Received::NeedsContent { covered, content, length } => {
                SyncPushed { outcome: 2, covered, content: Some(content), length, ..nothing }
            }
            Received::Broken(why) => SyncPushed { outcome: 3, why, ..nothing },
        };
        let mut frame = BytesMut::new();
        let meta = Meta::answer(tag.opcode, tag.id);
        match encode(&mut frame, meta, &head, b"", 0) {
            Ok(()) => {
                to.push(Out::Answer { tag, frame: frame.freeze(), payload: Bytes::new(), permit })
            }
            Err(error) => {
                refuse(&to, tag, permit, Problem::new(ErrorCode::Failed, error.to_string()))
            }
        }
    }

    /// Nothing of it was taken.
    pub fn refused(mut self, problem: Problem) {
        if let Some((to, tag, permit)) = self.inner.take() {
            refuse(&to, tag, permit, problem);
        }
    }
}

fn refuse(to: &Outbox, tag: RequestTag, permit: Permit, problem: Problem) {
    to.push(Out::Refused { tag, problem: Box::new(problem), permit: Some(permit) });
}

impl Drop for SliceReply {
    fn drop(&mut self) {
        if let Some((to, tag, permit)) = self.inner.take() {
            let problem = Problem::new(ErrorCode::Stopped, "the daemon is stopping");
            refuse(&to, tag, permit, problem);
        }
    }
}

/// The outcome on the wire, as the sender understands it.
///
/// # Errors
/// A number of a newer version.
pub fn outcome(head: SyncPushed) -> Result<Received, String> {
    match (head.outcome, head.content) {
        (0, _) => Ok(Received::Covered(head.covered)),
        (1, _) => Ok(Received::Gap(head.covered)),
        (2, Some(content)) => {
            Ok(Received::NeedsContent { covered: head.covered, content, length: head.length })
        }
        (3, _) => Ok(Received::Broken(head.why)),
        (other, _) => Err(format!("the mirror answers with the unknown outcome {other}")),
    }
}
