//! How much new objects may still take of a mount, by the least free space over its members (design section 4): what one
//! member takes has to fit on all of them.
//!
//! Invariants
//! - A member that has said nothing, or is not connected, sets no bound: it catches up, and says so then.
//! - What a member said is some time old, and several take objects at once: between two looks each takes at most its share of
//!   what is left, and what it took and the member does not have yet is taken off. So the reserve is not eaten, whoever
//!   is how fast; who has used up his share waits for the next look, and is not told that there is no room.

use crate::format::ids::{MachineId, Sequence};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// A byte of our log takes room twice on a mirror: in its synclog, and in its place.
pub const TIMES: u64 = 2;

/// What a member said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Bytes that it has beyond its reserve.
    pub room: u64,
    /// What it had of our log at that moment.
    pub covered: Sequence,
}

/// What members have left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rooms {
    said: BTreeMap<MachineId, Said>,
}

/// What may be taken until the next look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Bytes that the fullest member has.
    pub least: u64,
    /// Bytes of them that we may take.
    pub share: u64,
    /// Nothing is on its way: whoever comes first may take more than a share.
    pub quiet: bool,
}

impl Rooms {
    /// A member says how much it has; `None`: it is gone, or does not say.
    pub fn say(&mut self, machine: MachineId, said: Option<Said>) {
        match said {
            Some(said) => self.said.insert(machine, said),
            None => self.said.remove(&machine),
        };
    }

    /// What may be taken; `pending`: bytes that are on their way to who has so much of our log. `None`: nobody sets a
    /// bound.
    #[must_use]
    pub fn allowance(&self, pending: impl Fn(Sequence) -> u64) -> Option<Allowance> {
        let takers = self.said.len() as u64 + 1;
        let mut all: Option<Allowance> = None;
        for said in self.said.values() {
            let pending = pending(said.covered);
            let share = (said.room / takers).saturating_sub(pending);
            let before = all.unwrap_or(Allowance { least: u64::MAX, share: u64::MAX, quiet: true });
            all = Some(Allowance {
                least: before.least.min(said.room),
                share: before.share.min(share),
                quiet: before.quiet && pending == 0,
            });
        }
        all
    }
}

/// What becomes of a new object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is room.
    Taken,
    /// Our share is used up: there may be room in a moment.
    Later,
    /// A member has no room.
    Full,
}

/// What is left until the next look, for everybody who takes objects at once.
#[derive(Debug)]
pub struct Gate {
    least: AtomicU64,
    share: AtomicI64,
    left: AtomicI64,
    quiet: AtomicBool,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            least: AtomicU64::new(u64::MAX),
            share: AtomicI64::new(i64::MAX),
            left: AtomicI64::new(i64::MAX),
            quiet: AtomicBool::new(true),
        }
    }
}

impl Gate {
    /// The next look.
    pub fn set(&self, allowance: Option<Allowance>) {
        let Some(Allowance { least, share, quiet }) = allowance else {
            return self.least.store(u64::MAX, Ordering::Relaxed);
        };
        let share = i64::try_from(share).unwrap_or(i64::MAX);
        self.share.store(share, Ordering::Relaxed);
        self.quiet.store(quiet, Ordering::Relaxed);
        self.left.store(share, Ordering::Relaxed);
        self.least.store(least, Ordering::Relaxed);
    }

    /// Bytes that the fullest member has.
    #[must_use]
    pub fn least(&self) -> u64 {
        self.least.load(Ordering::Relaxed)
    }

    /// A new object of so many bytes comes.
    pub fn admit(&self, length: u64) -> Admission {
        let least = self.least();
        if least == u64::MAX {
            return Admission::Taken;
        }
        if length.max(1) > least {
            return Admission::Full;
        }
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        let left = self.left.fetch_sub(length, Ordering::Relaxed);
        let first =
            self.quiet.load(Ordering::Relaxed) && left == self.share.load(Ordering::Relaxed);
        if left >= length || first {
            return Admission::Taken;
        }
        self.left.fetch_add(length, Ordering::Relaxed);
        Admission::Later
    }
}

impl Rooms {
    /// Why a mount takes no new objects that has room itself.
    #[must_use]
    pub fn why(&self) -> String {
        match self.said.iter().min_by_key(|(_, said)| said.room) {
            Some((machine, Said { room: 0, .. })) => {
                format!("machine {machine} has no room left for them but its reserve")
            }
            Some((machine, said)) => {
                format!(
                    "machine {machine} has only {} bytes left for them beside its reserve",
                    said.room
                )
            }
            None => String::new(),
        }
    }
}

/// What mends it.
pub const REMEDY: &str = "free space on that mount there (`folio admin ... mounts` of that machine), or add a mount or a syncgroup";

#[cfg(test)]
mod tests {
    use super::*;

    const fn said(room: u64, covered: Sequence) -> Option<Said> {
        Some(Said { room, covered })
    }

    #[test]
    fn no_member_has_its_reserve_eaten_for_the_room_of_another() {
        let mut rooms = Rooms::default();
        assert_eq!(rooms.allowance(|_| 7), None, "alone");
        rooms.say(2, said(3000, 5));
        rooms.say(3, said(600, 9));
        let pending = |covered| 10 * (9 - covered);
        let all = rooms.allowance(pending).unwrap();
        assert_eq!((all.least, all.share, all.quiet), (600, 200, false), "three may take at once");
        rooms.say(3, said(0, 9));
        assert_eq!(rooms.allowance(pending).map(|all| (all.least, all.share)), Some((0, 0)));
        assert!(rooms.why().contains("machine 3 has no room"), "{}", rooms.why());
        rooms.say(3, None);
        assert!(rooms.why().contains("machine 2 has only 3000 bytes"), "who is away sets no bound");
        assert_eq!(rooms.allowance(|_| 1400).unwrap().share, 100, "what is on its way is taken");
    }

    #[test]
    fn who_has_used_up_his_share_waits_and_is_not_told_that_there_is_no_room() {
        let gate = Gate::default();
        assert_eq!(gate.admit(u64::MAX), Admission::Taken, "nobody sets a bound");
        gate.set(Some(Allowance { least: 600, share: 200, quiet: false }));
        let taken: Vec<_> = [150, 100, 50, 1].map(|length| gate.admit(length)).into();
        use Admission::{Full, Later, Taken};
        assert_eq!(taken, [Taken, Later, Taken, Later]);
        assert_eq!(gate.admit(601), Full);
        // What is larger than a share gets in when nothing else is under way.
        gate.set(Some(Allowance { least: 600, share: 200, quiet: true }));
        assert_eq!([gate.admit(500), gate.admit(1)], [Taken, Later]);
        gate.set(Some(Allowance { least: 0, share: 0, quiet: true }));
        assert_eq!(gate.admit(0), Full);
        gate.set(None);
        assert_eq!(gate.admit(1 << 40), Taken);
    }
}
