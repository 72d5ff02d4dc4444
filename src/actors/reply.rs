//! The answer of a mutation travels with its request: whoever finishes it, answers (R1).
//!
//! Invariants: exactly one answer leaves for each reply, also if the message that carried it is dropped; a refusal
//! means that nothing was changed and frees the token for a retry; after [`Reply::begun`] a lost reply says "outcome
//! unknown" and never "stopped".

use super::budget::Permit;
use super::meter::Stages;
use super::outbox::{Out, Outbox, RequestTag};
use super::postman::Round;
use super::session::Problem;
use super::shared_mount::SharedMount;
use crate::format::ids::Token;
use crate::messages::error::ErrorCode;
use crate::messages::heads::Acks;
use crate::store::mount::Staged;
use crate::store::tokens::TokenTable;
use std::sync::Arc;

/// What an acknowledgement says of copies (P1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// What was waited for.
    pub acks: Acks,
    /// Machines that have the change durable and applied.
    pub copies: u8,
    /// Fewer than the configuration asks for.
    pub degraded: bool,
}

/// Answers one mutation, once.
#[derive(Debug)]
pub struct Reply {
    inner: Option<Inner>,
    begun: bool,
    stages: Stages,
}

#[derive(Debug)]
struct Inner {
    to: Arc<Outbox>,
    tag: RequestTag,
    token: Token,
    tokens: Arc<TokenTable>,
    permit: Permit,
    coming: Option<Coming>,
}

/// Bytes of a new object that is not stored yet: on all members they count as taken.
struct Coming {
    mount: Arc<SharedMount>,
    bytes: u64,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.mount.mirror.arrived(self.bytes);
    }
}

impl std::fmt::Debug for Coming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coming").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Reply {
    /// For a mutation whose token was found fresh.
    #[must_use]
    pub fn new(
        to: Arc<Outbox>,
        tag: RequestTag,
        token: Token,
        tokens: Arc<TokenTable>,
        permit: Permit,
    ) -> Self {
        Self {
            inner: Some(Inner { to, tag, token, tokens, permit, coming: None }),
            begun: false,
            stages: Stages::default(),
        }
    }

    /// It is for a new object of so many bytes: until the answer they are on their way. Where nobody sets a bound they are
    /// not counted.
    pub fn coming(&mut self, mount: &Arc<SharedMount>, bytes: u64) {
        if mount.mirror.least_room() < u64::MAX
            && let Some(inner) = &mut self.inner
        {
            mount.mirror.coming(bytes);
            inner.coming = Some(Coming { mount: Arc::clone(mount), bytes });
        }
    }

    /// The request's token.
    #[must_use]
    pub fn token(&self) -> Token {
        self.inner.as_ref().map_or_else(Token::default, |inner| inner.token)
    }

    /// Which request it answers.
    #[must_use]
    pub fn tag(&self) -> Option<RequestTag> {
        self.inner.as_ref().map(|inner| inner.tag)
    }

    /// Whether the one who asked is gone.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.inner.as_ref().is_none_or(|inner| inner.to.is_closed())
    }

    /// The share of the budget that the request holds.
    pub fn permit_mut(&mut self) -> Option<&mut Permit> {
        self.inner.as_mut().map(|inner| &mut inner.permit)
    }

    /// From now on the change may become durable.
    pub const fn begun(&mut self) {
        self.begun = true;
    }

    /// Its mount begins with it; the microseconds that it waited for that.
    pub fn staged(&mut self, now_us: u64) -> u64 {
        let waited = now_us.saturating_sub(self.came_us());
        self.stages.staged_us = waited;
        waited
    }

    /// It is durable here.
    pub fn durable(&mut self, now_us: u64) {
        self.stages.durable_us = now_us.saturating_sub(self.came_us());
    }

    fn came_us(&self) -> u64 {
        self.inner.as_ref().map_or(u64::MAX, |inner| inner.tag.came_us)
    }

    /// The change is durable and applied (P1), on so many machines. Who asked is woken when the round ends.
    pub fn written(mut self, staged: &Staged, copies: Copies, round: &mut Round) {
        let stages = self.stages;
        if let Some(Inner { to, tag, permit, .. }) = self.inner.take() {
            let (id, opver) = (staged.id, staged.tag);
            to.push_in(Out::Written { tag, id, opver, copies, stages, permit }, round);
        }
    }

    /// Nothing was changed.
    pub fn refused(mut self, problem: Problem) {
        if let Some(Inner { to, tag, permit, token, tokens, coming: _ }) = self.inner.take() {
            tokens.abandon(&token);
            to.push(Out::Refused { tag, problem: Box::new(problem), permit: Some(permit) });
        }
    }

    /// It may or may not have been done.
    pub fn unknown(mut self, why: &str) {
        if let Some(Inner { to, tag, permit, .. }) = self.inner.take() {
            let problem = Problem::new(ErrorCode::UnknownOutcome, why)
                .remedy("ask again with the same token, or read the object");
            to.push(Out::Refused { tag, problem: Box::new(problem), permit: Some(permit) });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        let lost = Self { inner: Some(inner), begun: false, stages: self.stages };
        if self.begun {
            lost.unknown("the daemon stopped while the change was being written");
        } else {
            lost.refused(Problem::new(ErrorCode::Stopped, "the daemon is stopping"));
        }
    }
}
