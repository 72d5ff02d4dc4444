//! What goes to the conflict archive when two versions meet (design section 5, P4).
//!
//! Invariants
//! - Whoever meets a conflict archives the loser, also when the loser is what arrived, and logs that in its *own* log
//!   before anything else of the object, even if its archive holds the entry already: later edits of that log may
//!   be taken by others for the knowledge that the loser is safe (see [`super::version`]).
//! - Two versions that carry the same client token are one edit that was retried elsewhere (R2): nothing is lost
//!   when one of them yields, so nothing is archived.
//! - The name of an entry is the object and the position of the losing edit, so the archive is a set: duplicates
//!   collapse, and the union of two archives is the right one.
//! - An object that is copied by state brings its archive entries along, and they are stored first: its version may
//!   be younger than the record that archived what it beat.

use crate::format::ids::Token;

use super::version::{Decision, Winner};

/// What of a client token tells edits apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EditToken {
    /// The client.
    pub client: [u8; 16],
    /// Its number of the edit. 0: no token.
    pub sequence: u64,
}

impl EditToken {
    /// Whether both name one edit of one client. Edits without a token are never the same.
    #[must_use]
    pub fn is_same_edit(&self, other: &Self) -> bool {
        self.sequence != 0 && self == other
    }
}

impl From<&Token> for EditToken {
    fn from(token: &Token) -> Self {
        Self { client: token.client, sequence: token.sequence }
    }
}

/// Which of two versions goes to the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loser {
    /// What is stored here; archived and synced before the slot is overwritten.
    Local,
    /// What arrived; the slot is not touched.
    Incoming,
}

/// The version to archive, if any: the loser of a conflict between different edits, live or tombstone.
#[must_use]
pub fn loser(decision: Decision, local: &EditToken, incoming: &EditToken) -> Option<Loser> {
    let Decision::Conflict { winner } = decision else { return None };
    if local.is_same_edit(incoming) {
        return None;
    }
    Some(match winner {
        Winner::Local => Loser::Incoming,
        Winner::Incoming => Loser::Local,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EditToken = EditToken { client: [1; 16], sequence: 7 };
    const B: EditToken = EditToken { client: [2; 16], sequence: 7 };
    const NONE: EditToken = EditToken { client: [0; 16], sequence: 0 };

    #[test]
    fn the_loser_is_archived_on_whichever_side_it_stands() {
        let local_stands = Decision::Conflict { winner: Winner::Local };
        let incoming_stands = Decision::Conflict { winner: Winner::Incoming };
        assert_eq!(loser(local_stands, &A, &B), Some(Loser::Incoming));
        assert_eq!(loser(incoming_stands, &A, &B), Some(Loser::Local));
    }

    #[test]
    fn what_was_known_is_no_loser() {
        assert_eq!(loser(Decision::Apply, &A, &B), None);
        assert_eq!(loser(Decision::Ignore, &A, &B), None);
    }

    #[test]
    fn a_retried_edit_does_not_lose_against_itself_and_no_token_is_no_retry() {
        let conflict = Decision::Conflict { winner: Winner::Local };
        assert_eq!(loser(conflict, &A, &A), None);
        assert_eq!(loser(conflict, &NONE, &NONE), Some(Loser::Incoming));
    }
}
