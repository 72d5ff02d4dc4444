//! Verifying a mount in the background: how fast, when again, and what is known to be damaged (design sections 6 and 10, P3).
//!
//! Invariants: a round is spread over nine tenths of the period and never read faster than the bandwidth, so that one that
//! was held up still ends in time; every damage is counted once when it is found and once when it ends, so that
//! `found = repaired + gone + open` at any time; what reads hand in is bounded, and what does not fit is found by the next round.

use crate::format::file_id::ObjectId;
use crate::format::ids::{Address, ChunkfileId, LogId, MachineId, Position};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// Slowest rate, bytes per second: nearly nothing, and a small mount is done in minutes.
pub const RATE_MIN: u64 = 64 << 10;
/// Suspects that wait.
const SUSPECTS_MAX: usize = 1024;
/// Damages that are kept in the list; more are found again when these are mended.
const OPEN_MAX: usize = 4096;
/// Chunkfiles that are looked at out of turn.
const NEAR_MAX: usize = 16;
/// Shortest and longest pause before something that could not be repaired is tried again, ms.
const RETRY_MS: (u64, u64) = (2_000, 300_000);

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Damage {
    /// Header or content of the object whose home this is, wherever its content lies.
    Object(Address),
    /// The header of a chunkfile.
    Chunkfile(ChunkfileId),
    /// Our own log.
    Binlog(LogId),
    /// What we keep of another machine's log.
    Synclog(MachineId, LogId),
    /// The checkpoint.
    Checkpoint,
    /// The label.
    Label,
    /// The list of members that were removed for good.
    Forgotten,
    /// A losing version in the conflict archive, by its object and the position of its edit.
    Archived(ObjectId, Position),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(home) => {
                write!(f, "object at unit {} of chunkfile {}", home.offset_units, home.chunkfile())
            }
            Self::Chunkfile(id) => write!(f, "header of chunkfile {id}"),
            Self::Binlog(log_id) => write!(f, "own log {log_id:08x}"),
            Self::Synclog(machine, log_id) => write!(f, "log {log_id:08x} of machine {machine}"),
            Self::Checkpoint => f.write_str("checkpoint"),
            Self::Label => f.write_str("label"),
            Self::Forgotten => f.write_str("list of forgotten members"),
            Self::Archived(object, Position { machine, log_id, sequence }) => {
                let home = object.home().address;
                write!(
                    f,
                    "losing version {machine}-{log_id:08x}-{sequence:x} of the object at unit {} of chunkfile {}",
                    home.offset_units,
                    home.chunkfile()
                )
            }
        }
    }
}

/// How fast a mount is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// A round takes so long, ms.
    pub period_ms: u64,
    /// Bytes per second at most; 0: no limit.
    pub bandwidth: u64,
    /// An operator waits for this round.
    pub at_once: bool,
}

impl Pace {
    /// Bytes per second now (0: no limit), `elapsed_ms` after a round over `total` bytes began of which `done` are verified.
    #[must_use]
    pub fn rate(&self, total: u64, done: u64, elapsed_ms: u64) -> u64 {
        if self.at_once {
            return self.bandwidth;
        }
        let left_ms = (self.period_ms / 10 * 9).saturating_sub(elapsed_ms);
        let left = u128::from(total.saturating_sub(done)) * 1000;
        let Some(needed) = left.checked_div(u128::from(left_ms)) else { return self.bandwidth };
        let needed = u64::try_from(needed).unwrap_or(u64::MAX).max(RATE_MIN);
        if self.bandwidth == 0 { needed } else { needed.min(self.bandwidth) }
    }

    /// When the next round begins, ms since 1970, after one that began then.
    #[must_use]
    pub const fn next_round(&self, begun_ms: u64) -> u64 {
        begun_ms.saturating_add(self.period_ms)
    }

    /// Whether the last round that ended (or, if none did, the first one that began) is too long ago.
    #[must_use]
    pub const fn is_overdue(&self, since_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(since_ms) > self.period_ms.saturating_add(self.period_ms / 2)
    }
}

/// How long the reading of `bytes` must take at a rate, ms.
#[must_use]
pub fn time_for(bytes: u64, rate: u64) -> u64 {
    bytes.saturating_mul(1000).checked_div(rate).unwrap_or(0)
}

/// A damage that is not repaired yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// When it was found, ms since 1970.
    pub since_ms: u64,
    /// What is wrong, or why it could not be repaired.
    pub why: String,
    /// The object, if it is known by its id.
    pub object: Option<ObjectId>,
    /// It is tried again then.
    retry_ms: u64,
    tries: u32,
}

/// Everything that is known of a mount's damage.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Found since the mount is there.
    pub found: u64,
    /// Of those, repaired.
    pub repaired: u64,
    /// Of those, overwritten or removed before they were repaired.
    pub gone: u64,
    /// Of those found, met by reads.
    pub by_reads: u64,
    open: BTreeMap<Damage, Open>,
    suspects: VecDeque<ObjectId>,
    waiting: BTreeSet<Address>,
    near: VecDeque<ChunkfileId>,
}

impl Findings {
    /// A read met damage of this object. Whether anything is to be done that was not known before.
    pub fn suspect(&mut self, object: ObjectId) -> bool {
        let home = object.home().address;
        let known = self.open.contains_key(&Damage::Object(home));
        if known || self.suspects.len() >= SUSPECTS_MAX || !self.waiting.insert(home) {
            return false;
        }
        self.suspects.push_back(object);
        true
    }

    /// The suspect that is to be looked at.
    pub fn next_suspect(&mut self) -> Option<ObjectId> {
        let object = self.suspects.pop_front()?;
        self.waiting.remove(&object.home().address);
        Some(object)
    }

    /// A hit out of turn: its neighbours are looked at before anything else.
    pub fn look_near(&mut self, id: ChunkfileId) {
        if self.near.len() < NEAR_MAX && !self.near.contains(&id) {
            self.near.push_back(id);
        }
    }

    /// The chunkfile that is to be looked at out of turn.
    pub fn next_near(&mut self) -> Option<ChunkfileId> {
        self.near.pop_front()
    }

    /// Damage was found. Whether it is new.
    pub fn found(&mut self, damage: Damage, why: &str, now_ms: u64) -> bool {
        if let Some(open) = self.open.get_mut(&damage) {
            why.clone_into(&mut open.why);
            return false;
        }
        if self.open.len() >= OPEN_MAX {
            return false;
        }
        self.found += 1;
        let why = why.to_owned();
        let open = Open { since_ms: now_ms, why, object: None, retry_ms: now_ms, tries: 0 };
        self.open.insert(damage, open);
        true
    }

    /// The same, met by a read.
    pub fn found_by_read(&mut self, object: ObjectId, why: &str, now_ms: u64) -> bool {
        let damage = Damage::Object(object.home().address);
        let new = self.found(damage, why, now_ms);
        self.by_reads += u64::from(new);
        if let Some(open) = self.open.get_mut(&damage) {
            open.object = Some(object);
        }
        new
    }

    /// What is known of a damage.
    #[must_use]
    pub fn known(&self, damage: Damage) -> Option<&Open> {
        self.open.get(&damage)
    }

    /// What was damaged is found whole: repaired, if it was known.
    pub fn is_whole(&mut self, damage: Damage) {
        if self.open.contains_key(&damage) {
            self.repaired(damage);
        }
    }

    /// It was repaired: also if it had not been found before.
    pub fn repaired(&mut self, damage: Damage) {
        if self.open.remove(&damage).is_none() {
            self.found += 1;
        }
        self.repaired += 1;
    }

    /// It is no longer there: overwritten, or removed.
    pub fn gone(&mut self, damage: Damage) {
        if self.open.remove(&damage).is_some() {
            self.gone += 1;
        }
    }

    /// It could not be repaired now.
    pub fn failed(&mut self, damage: Damage, why: &str, now_ms: u64) {
        if let Some(open) = self.open.get_mut(&damage) {
            why.clone_into(&mut open.why);
            let pause = RETRY_MS.0.saturating_mul(1 << open.tries.min(10)).min(RETRY_MS.1);
            open.tries = open.tries.saturating_add(1);
            open.retry_ms = now_ms.saturating_add(pause);
        }
    }

    /// What is to be tried again now, a few at a time.
    #[must_use]
    pub fn to_retry(&self, now_ms: u64, limit: usize) -> Vec<Damage> {
        let due = self.open.iter().filter(|(_, open)| open.retry_ms <= now_ms);
        due.map(|(damage, _)| *damage).take(limit).collect()
    }

    /// Everything is tried again at once: who has it may be back.
    pub fn retry_all(&mut self) {
        for open in self.open.values_mut() {
            (open.retry_ms, open.tries) = (0, 0);
        }
    }

    /// What is known and not repaired.
    pub fn open(&self) -> impl Iterator<Item = (&Damage, &Open)> {
        self.open.iter()
    }

    /// How much of it there is.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// What an earlier run of the daemon knew.
    pub fn remember(&mut self, open: impl Iterator<Item = (Damage, Option<ObjectId>)>) {
        for (damage, object) in open.take(OPEN_MAX) {
            let why = "found before the last restart".to_owned();
            let known = Open { since_ms: 0, why, object, retry_ms: 0, tries: 0 };
            self.open.entry(damage).or_insert(known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400_000;

    fn home(offset_units: u32) -> Address {
        Address { machine: 1, log_id: 2, chunk: 3, offset_units }
    }

    fn object(offset_units: u32) -> ObjectId {
        ObjectId {
            kind: crate::format::file_id::ObjectKind::Chunk,
            machine: 1,
            mount: 0,
            log_id: 2,
            sequence: 1,
            created_s: 1,
            chunk: 3,
            offset_units,
            capacity_units: 3,
            cookie: 1,
        }
    }

    #[test]
    fn a_round_ends_within_its_period_and_never_reads_faster_than_allowed() {
        let pace = Pace { period_ms: 21 * DAY, bandwidth: 32 << 20, at_once: false };
        for total in [1 << 20, 1 << 30, 1 << 40, 8 << 40] {
            let (mut done, mut now) = (0u64, 0u64);
            while done < total {
                let rate = pace.rate(total, done, now);
                assert!((RATE_MIN..=32 << 20).contains(&rate), "{rate}");
                let slice = (total / 1000).max(1 << 20);
                now += time_for(slice, rate);
                done += slice;
            }
            assert!(now <= 21 * DAY, "{total} bytes took {} h", now / 3_600_000);
        }
        // Nothing can be done about more than the bandwidth reads in a period.
        assert_eq!(pace.rate(u64::MAX, 0, 0), 32 << 20);
        // One that was held up for longer than its period reads as fast as it may.
        assert_eq!(pace.rate(1 << 30, 0, 30 * DAY), 32 << 20);
        let at_once = Pace { at_once: true, ..pace };
        assert_eq!(at_once.rate(1 << 20, 0, 0), 32 << 20);
        assert_eq!(Pace { bandwidth: 0, ..at_once }.rate(1 << 20, 0, 0), 0);
        assert_eq!(time_for(1 << 20, 0), 0);
    }

    #[test]
    fn a_round_is_overdue_only_after_half_a_period_more() {
        let pace = Pace { period_ms: DAY, bandwidth: 0, at_once: false };
        assert_eq!(pace.next_round(7), DAY + 7);
        assert!(!pace.is_overdue(5, 5 + DAY + DAY / 2));
        assert!(pace.is_overdue(5, 6 + DAY + DAY / 2));
        assert!(!pace.is_overdue(10, 5), "a clock that was put back");
    }

    #[test]
    fn reads_cannot_fill_the_memory_nor_ask_twice_for_the_same() {
        let mut findings = Findings::default();
        assert!(findings.suspect(object(1)));
        assert!(!findings.suspect(object(1)), "it waits already");
        for n in 2..10_000 {
            findings.suspect(object(n));
        }
        assert_eq!(findings.suspects.len(), SUSPECTS_MAX);
        assert_eq!(findings.next_suspect(), Some(object(1)));
        findings.found(Damage::Object(home(1)), "bad", 0);
        assert!(!findings.suspect(object(1)), "it is known");
        findings.repaired(Damage::Object(home(1)));
        assert!(findings.suspect(object(1)), "it may happen again");
        for chunk in 0..100 {
            findings.look_near(ChunkfileId { machine: 1, log_id: 1, chunk: chunk % 50 });
        }
        assert_eq!(findings.near.len(), NEAR_MAX);
    }

    #[test]
    fn what_could_not_be_repaired_is_tried_again_ever_more_seldom_and_at_once_if_told() {
        let mut findings = Findings::default();
        let damage = Damage::Object(home(1));
        findings.found(damage, "bad", 0);
        assert_eq!(findings.to_retry(0, 8), [damage]);
        let mut now = 0;
        for _ in 0..20 {
            findings.failed(damage, "nobody has it", now);
            assert!(findings.to_retry(now + RETRY_MS.0 - 1, 8).is_empty());
            assert_eq!(findings.to_retry(now + RETRY_MS.1, 8), [damage]);
            now += RETRY_MS.1;
        }
        findings.failed(damage, "nobody has it", now);
        assert!(findings.to_retry(now, 8).is_empty());
        findings.retry_all();
        assert_eq!(findings.to_retry(now, 8), [damage]);
    }

    proptest! {
        /// Whatever happens in whatever order: nothing is counted twice, nothing is lost.
        #[test]
        fn the_counters_are_exact(steps in proptest::collection::vec((0u8..6, 0u32..12), 0..200)) {
            let mut findings = Findings::default();
            for (what, at) in steps {
                let damage = Damage::Object(home(at));
                let before = findings.found;
                match what {
                    0 | 1 => {
                        let new = findings.found(damage, "bad", 1);
                        prop_assert_eq!(findings.found, before + u64::from(new));
                    }
                    2 => findings.repaired(damage),
                    3 => findings.gone(damage),
                    4 => findings.failed(damage, "why", 2),
                    _ => { findings.suspect(object(at)); }
                }
                let ended = findings.repaired + findings.gone;
                prop_assert_eq!(findings.found, ended + findings.open_count() as u64);
            }
        }
    }
}
