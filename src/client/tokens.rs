//! Tokens that make a retried mutation idempotent (R2).

use crate::format::ids::Token;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Issues the tokens of one client.
#[derive(Debug)]
pub(super) struct Tokens {
    client: [u8; 16],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// Issued and not yet answered.
    open: BTreeSet<u64>,
}

/// A sequence that is waited for; forgotten when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    tokens: Arc<Tokens>,
    sequence: u64,
    issued_ms: Option<u64>,
    /// A token that was issued before, maybe by another process: used as it is.
    fixed: Option<Token>,
}

impl Tokens {
    pub(super) fn new(client: [u8; 16]) -> Arc<Self> {
        Arc::new(Self { client, state: Mutex::default() })
    }

    /// The next sequence.
    pub(super) fn issue(self: &Arc<Self>) -> Ticket {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last += 1;
        let sequence = state.last;
        state.open.insert(sequence);
        Ticket { tokens: Arc::clone(self), sequence, issued_ms: None, fixed: None }
    }

    /// A token that was issued before; whoever holds its lease keeps it alive.
    pub(super) fn fixed(self: &Arc<Self>, token: Token) -> Ticket {
        let fixed = Some(token);
        Ticket { tokens: Arc::clone(self), sequence: 0, issued_ms: None, fixed }
    }
}

impl Ticket {
    /// The token: issued at the first call, by the server's clock, and the same for every retry.
    pub(super) fn token(&mut self, server_time_ms: u64) -> Token {
        if let Some(token) = self.fixed {
            return token;
        }
        let state = self.tokens.state.lock().unwrap_or_else(PoisonError::into_inner);
        Token {
            client: self.tokens.client,
            sequence: self.sequence,
            lowest_unanswered: state.open.first().copied().unwrap_or(self.sequence),
            issued_ms: *self.issued_ms.get_or_insert(server_time_ms),
        }
    }

    /// Takes a fresh issue time at the next use. Only after an answer which says that nothing was executed.
    pub(super) const fn renew(&mut self) {
        self.issued_ms = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.tokens.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open.remove(&self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_carries_the_same_token_and_no_two_mutations_do() {
        let tokens = Tokens::new([1; 16]);
        let mut first = tokens.issue();
        let mut second = tokens.issue();
        let once = first.token(100);
        let again = first.token(200);
        assert_eq!((once.sequence, once.issued_ms), (again.sequence, again.issued_ms));
        assert_ne!(once.sequence, second.token(100).sequence);
        first.renew();
        assert_eq!(first.token(300).issued_ms, 300);
    }

    #[test]
    fn what_is_still_waited_for_is_never_declared_answered() {
        let tokens = Tokens::new([1; 16]);
        let mut first = tokens.issue();
        let second = tokens.issue();
        let mut third = tokens.issue();
        drop(second);
        assert_eq!(third.token(0).lowest_unanswered, 1);
        assert_eq!(first.token(0).lowest_unanswered, 1);
        drop(first);
        assert_eq!(third.token(0).lowest_unanswered, 3);
    }
}
