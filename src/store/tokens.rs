//! Answers that a retry gets again instead of being executed twice (R2). One table per storage, shared by its mounts.
//!
//! Invariants: at most [`TABLE_BYTES_MAX`]; what a client has seen (below its lowest unanswered) is forgotten; when the
//! table is full the oldest answers go, and from then on a token issued at or before the youngest of those is
//! refused unless it is still known: never executed twice, at worst "unknown".

use crate::format::checkpoint::AnsweredToken;
use crate::format::ids::Token;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bound of the table in bytes, counted as [`ENTRY_BYTES`] and [`CLIENT_BYTES`].
pub const TABLE_BYTES_MAX: usize = 8 << 20;
/// What an answer takes, map overhead included.
pub const ENTRY_BYTES: usize = 256;
/// What a client takes.
pub const CLIENT_BYTES: usize = 192;

/// What to do with a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Never seen: execute it, then the mount records the answer, or the caller abandons it.
    Fresh,
    /// It is being executed: the caller asks again later.
    InFlight,
    /// It was executed: this was the answer.
    Answered(Box<AnsweredToken>),
    /// Whether it was executed is no longer known: refused. A new edit needs a token with a fresh issue time.
    TooOld,
}

#[derive(Debug, Default)]
struct Client {
    lowest: u64,
    in_flight: BTreeSet<u64>,
    answered: BTreeMap<u64, AnsweredToken>,
}

#[derive(Debug, Default)]
struct Table {
    clients: HashMap<[u8; 16], Client>,
    entries: usize,
    forgotten_ms: u64,
}

/// The table.
#[derive(Debug, Default)]
pub struct TokenTable {
    table: Mutex<Table>,
}

impl TokenTable {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change below is complete before anything can panic, so a poisoned table is still right.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks what to do with a mutation, and notes that it is being executed if it is fresh.
    #[must_use]
    pub fn begin(&self, token: &Token) -> Begin {
        if !token.is_some() {
            return Begin::Fresh;
        }
        let mut table = self.lock();
        let forgotten_ms = table.forgotten_ms;
        if let Some(client) = table.clients.get(&token.client) {
            if let Some(answered) = client.answered.get(&token.sequence) {
                return Begin::Answered(Box::new(*answered));
            }
            if client.in_flight.contains(&token.sequence) {
                return Begin::InFlight;
            }
            if token.sequence < client.lowest {
                return Begin::TooOld;
            }
        }
        if token.issued_ms <= forgotten_ms {
            return Begin::TooOld;
        }
        table.see(token);
        table.client(token).in_flight.insert(token.sequence);
        Begin::Fresh
    }

    /// The mutation was refused and changed nothing: a retry may be executed.
    pub fn abandon(&self, token: &Token) {
        if token.is_some()
            && let Some(client) = self.lock().clients.get_mut(&token.client)
        {
            client.in_flight.remove(&token.sequence);
        }
    }

    /// Notes answers that are durable.
    pub fn answered(&self, answers: &[AnsweredToken]) {
        if answers.is_empty() {
            return;
        }
        let mut table = self.lock();
        for answered in answers {
            table.answer(answered);
        }
        table.shrink();
    }

    /// What a checkpoint of `mount` keeps, and the greatest issue time that was forgotten.
    #[must_use]
    pub fn of_mount(&self, mount: u8) -> (Vec<AnsweredToken>, u64) {
        let table = self.lock();
        let all = table.clients.values().flat_map(|c| c.answered.values());
        (all.filter(|a| a.object.mount == mount).copied().collect(), table.forgotten_ms)
    }

    /// Takes over what a checkpoint kept.
    pub fn restore(&self, answers: &[AnsweredToken], forgotten_ms: u64) {
        let mut table = self.lock();
        table.forgotten_ms = table.forgotten_ms.max(forgotten_ms);
        drop(table);
        self.answered(answers);
    }

    /// (clients, answers, greatest issue time that was forgotten).
    #[must_use]
    pub fn totals(&self) -> (usize, usize, u64) {
        let table = self.lock();
        (table.clients.len(), table.entries, table.forgotten_ms)
    }
}

impl Table {
    fn client(&mut self, token: &Token) -> &mut Client {
        self.clients.entry(token.client).or_default()
    }

    /// The client says what it has seen: that is forgotten.
    fn see(&mut self, token: &Token) {
        let client = self.clients.entry(token.client).or_default();
        if token.lowest_unanswered > client.lowest {
            client.lowest = token.lowest_unanswered;
            let kept = client.answered.split_off(&client.lowest);
            self.entries -= std::mem::replace(&mut client.answered, kept).len();
        }
    }

    fn answer(&mut self, answered: &AnsweredToken) {
        let token = &answered.token;
        self.see(token);
        let client = self.client(token);
        client.in_flight.remove(&token.sequence);
        if token.sequence >= client.lowest
            && client.answered.insert(token.sequence, *answered).is_none()
        {
            self.entries += 1;
        }
    }

    /// Forgets the oldest eighth whenever the bound is passed.
    fn shrink(&mut self) {
        while self.entries * ENTRY_BYTES + self.clients.len() * CLIENT_BYTES > TABLE_BYTES_MAX {
            let mut times: Vec<u64> = self
                .clients
                .values()
                .map(|c| c.answered.values().map(|a| a.token.issued_ms).max().unwrap_or(0))
                .chain(
                    self.clients
                        .values()
                        .flat_map(|c| c.answered.values().map(|a| a.token.issued_ms)),
                )
                .collect();
            times.sort_unstable();
            let Some(&until) = times.get(times.len() / 8) else { return };
            self.forgotten_ms = self.forgotten_ms.max(until);
            for client in self.clients.values_mut() {
                client.answered.retain(|_, a| a.token.issued_ms > until);
            }
            self.clients.retain(|_, c| !(c.answered.is_empty() && c.in_flight.is_empty()));
            self.entries = self.clients.values().map(|c| c.answered.len()).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::file_id::{ObjectId, ObjectKind};
    use crate::format::ids::Tag;

    fn token(client: u32, sequence: u64, lowest_unanswered: u64, issued_ms: u64) -> Token {
        let mut uuid = [0; 16];
        uuid[..4].copy_from_slice(&client.to_le_bytes());
        Token { client: uuid, sequence, lowest_unanswered, issued_ms }
    }

    fn answer(token: Token) -> AnsweredToken {
        let object = ObjectId {
            kind: ObjectKind::Chunk,
            machine: 1,
            mount: 0,
            log_id: 1,
            sequence: token.sequence,
            created_s: 0,
            chunk: 0,
            offset_units: 64,
            capacity_units: 3,
            cookie: 9,
        };
        AnsweredToken { token, object, tag: Tag::default() }
    }

    #[test]
    fn a_retry_is_never_executed_twice() {
        let table = TokenTable::default();
        let first = token(1, 5, 1, 100);
        assert_eq!(table.begin(&first), Begin::Fresh);
        assert_eq!(table.begin(&first), Begin::InFlight);
        table.answered(&[answer(first)]);
        assert_eq!(table.begin(&first), Begin::Answered(Box::new(answer(first))));
        // Seen by the client: forgotten, but still not executed again.
        assert_eq!(table.begin(&token(1, 6, 6, 100)), Begin::Fresh);
        assert_eq!(table.begin(&first), Begin::TooOld);
    }

    #[test]
    fn a_refused_mutation_may_be_tried_again() {
        let table = TokenTable::default();
        let first = token(1, 5, 1, 100);
        assert_eq!(table.begin(&first), Begin::Fresh);
        table.abandon(&first);
        assert_eq!(table.begin(&first), Begin::Fresh);
    }

    #[test]
    fn a_full_table_stays_bounded_and_refuses_what_it_forgot() {
        let table = TokenTable::default();
        for client in 0..200_000 {
            let token = token(client, 1, 1, 1000 + u64::from(client));
            if table.begin(&token) == Begin::Fresh {
                table.answered(&[answer(token)]);
            }
        }
        let (clients, answers, forgotten) = table.totals();
        assert!(answers * ENTRY_BYTES + clients * CLIENT_BYTES <= TABLE_BYTES_MAX);
        assert!(forgotten > 1000);
        assert_eq!(table.begin(&token(0, 1, 1, 1000)), Begin::TooOld);
        assert_eq!(table.begin(&token(900_000, 1, 1, forgotten)), Begin::TooOld);
        assert_eq!(table.begin(&token(900_000, 1, 1, forgotten + 1)), Begin::Fresh);
    }
}
