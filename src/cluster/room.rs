//! How much new objects may still take of a mount, by the least free space over its members (design section 4): what one
//! member takes has to fit on all of them.
//!
//! Invariants
//! - A member that has said nothing, or is not connected, sets no bound: it catches up, and says so then.
//! - What a member said is some time old. All that was written here since, and shortly before, counts as not yet there.

use crate::format::ids::MachineId;
use std::collections::BTreeMap;

/// What a member says of its free space may be so old when it arrives, milliseconds.
pub const SAID_BEFORE_MS: u64 = 1500;

/// A byte of our log takes room twice on a mirror: in its synclog, and in its place.
const TIMES: u64 = 2;

/// What members have left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rooms {
    /// By member: what it said, in bytes beyond its reserve.
    said: BTreeMap<MachineId, u64>,
}

impl Rooms {
    /// A member says how much it has; `None`: it is gone, or does not say.
    pub fn say(&mut self, machine: MachineId, room: Option<u64>) {
        match room {
            Some(room) => self.said.insert(machine, room),
            None => self.said.remove(&machine),
        };
    }

    /// Bytes that new objects may still take on every member, if `lately` bytes were written here within
    /// [`SAID_BEFORE_MS`]; `u64::MAX` if nobody sets a bound.
    #[must_use]
    pub fn least(&self, lately: u64) -> u64 {
        let taken = lately.saturating_mul(TIMES);
        self.said.values().min().map_or(u64::MAX, |said| said.saturating_sub(taken))
    }

    /// Members that have nothing left.
    #[must_use]
    pub fn without(&self) -> Vec<MachineId> {
        self.said.iter().filter(|(_, room)| **room == 0).map(|(machine, _)| *machine).collect()
    }
}

/// Why a mount takes no new objects that has room itself; `without`: the members that have none, if any says so.
#[must_use]
pub fn why(without: &[MachineId]) -> String {
    let names: Vec<String> = without.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => "a member has no room left for them but its reserve".to_owned(),
        [one] => format!("machine {one} has no room left for them but its reserve"),
        many => {
            format!("machines {} have no room left for them but their reserve", many.join(", "))
        }
    }
}

/// What mends it.
pub const REMEDY: &str = "free space on that mount there (`folio admin ... mounts` of that machine), or add a mount or a syncgroup";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_member_has_its_reserve_eaten_for_the_room_of_another() {
        let mut rooms = Rooms::default();
        assert_eq!(rooms.least(u64::MAX), u64::MAX, "alone");
        rooms.say(2, Some(1000));
        rooms.say(3, Some(70));
        assert_eq!(rooms.least(0), 70);
        assert_eq!(rooms.least(30), 10, "what was written since may be there");
        assert_eq!(rooms.least(36), 0);
        rooms.say(3, Some(0));
        assert_eq!((rooms.least(0), rooms.without()), (0, vec![3]));
        rooms.say(3, None);
        assert_eq!((rooms.least(0), rooms.without()), (1000, vec![]), "who is away sets no bound");
    }
}
