//! Why a mount that serves takes no new objects, in the words that `mounts`, `status` and, through the heartbeat, every
//! refused client get.
//!
//! Invariant: one place says it, so that no two of them tell different things. A full mount has no reason in the
//! heartbeat: with none given, routing takes it for full.

use crate::actors::mirror::Outlook;
use crate::actors::peers::SyncState;
use crate::actors::shared_mount::SharedMount;
use crate::actors::storage_room::{StorageRoom, Writes};
use crate::cluster::acks::Wanted;
use crate::cluster::view::MountState;
use crate::format::ids::MachineId;
use crate::storage::report::MountStatus;
use bytesize::ByteSize;

/// What an operator does about a mount that joins.
pub(super) const JOINING: &str = "wait; if it lasts, `peers` says which member does not answer";

/// Bytes for people, as the tables show them.
pub(super) fn shown(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// What the mirrors have against changes, and what mends it; empty if nothing.
pub(super) fn of_mirrors(room: &StorageRoom, mount: &SharedMount) -> (String, String) {
    let spread = mount.mirror.spread();
    if !spread.takes_puts() {
        return (spread.why(), spread.remedy(mount.index));
    }
    match mount.mirror.outlook() {
        Outlook::Good | Outlook::Degraded => (String::new(), String::new()),
        Outlook::Joining => {
            ("it is joining its syncgroup and takes no changes yet".to_owned(), JOINING.to_owned())
        }
        Outlook::Refused => of_copies(mount.mirror.policy.wanted, &missing(room, mount)),
    }
}

/// Members that cannot take a copy now.
fn missing(room: &StorageRoom, mount: &SharedMount) -> Vec<MachineId> {
    let cannot = |machine: &MachineId| {
        let Some(peer) = room.peers.get(*machine) else { return true };
        let live = peer.mount(mount.index).is_some_and(|there| there.state() == SyncState::Live);
        !peer.is_connected() || !live || mount.mirror.is_late(*machine)
    };
    let members = mount.mirror.members();
    let members: Vec<MachineId> = members.borrow().iter().map(|member| member.machine).collect();
    members.into_iter().filter(|machine| *machine != room.machine).filter(cannot).collect()
}

fn of_copies(wanted: Wanted, missing: &[MachineId]) -> (String, String) {
    let names = match missing {
        // They came back just now: the next look says so.
        [] => "a member".to_owned(),
        [one] => format!("machine {one}"),
        many => {
            let many: Vec<String> = many.iter().map(ToString::to_string).collect();
            format!("machines {}", many.join(", "))
        }
    };
    let gone = missing.first().map_or("MACHINE".to_owned(), ToString::to_string);
    let back = format!("bring {names} back, see `peers`");
    match wanted {
        // `when_alone` says nothing about `all`: only fewer members, or fewer copies asked for, help.
        Wanted::All => (
            format!("durability.acks = \"all\" asks for a copy on every member; missing: {names}"),
            format!(
                "{back}; `forget {gone}` if it never comes back; or durability.acks = \"mirror\" in the configuration, \
                 and a restart"
            ),
        ),
        Wanted::Mirror | Wanted::Local => (
            format!(
                "durability.acks = \"mirror\" asks for a copy on another member, and durability.when_alone = \"refuse\"; \
                 missing: {names}"
            ),
            format!(
                "{back}; `forget {gone}` if it never comes back; or durability.when_alone = \"accept\" in the \
                 configuration, and a restart"
            ),
        ),
    }
}

/// What a full mount has left, and what of it nobody gets.
pub(crate) fn of_space(free: u64, reserved: u64) -> String {
    format!("{} are free, {} are kept free (store.reserve_free)", shown(free), shown(reserved))
}

impl MountStatus {
    /// Whether its reserve is reached, or it was found full lately.
    pub(super) const fn has_no_room(&self) -> bool {
        let space = &self.stats.space;
        self.full || (space.total > 0 && space.free <= self.reserve_free)
    }

    /// Why it takes no new objects; empty if it does.
    pub(super) fn why_no_puts(&self, writes: Writes) -> String {
        if !self.why.is_empty() || self.state != MountState::Online {
            return self.why.clone();
        }
        match writes {
            Writes::ReadOnly => "`readonly on` was given".to_owned(),
            Writes::Draining => "`drain` was given".to_owned(),
            Writes::Stopping => "the daemon is stopping".to_owned(),
            Writes::Taken if self.has_no_room() => {
                format!("it is full: {}", of_space(self.stats.space.free, self.reserve_free))
            }
            Writes::Taken => self.full_elsewhere.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mount::MountStats;

    #[test]
    fn what_is_advised_for_a_missing_copy_helps() {
        let (why, remedy) = of_copies(Wanted::All, &[2, 3]);
        assert!(why.contains("\"all\"") && why.ends_with("missing: machines 2, 3"), "{why}");
        assert!(!remedy.contains("when_alone") && remedy.contains("`forget 2`"), "{remedy}");
        let (why, remedy) = of_copies(Wanted::Mirror, &[2]);
        assert!(why.contains("\"mirror\"") && why.ends_with("missing: machine 2"), "{why}");
        assert!(remedy.contains("when_alone = \"accept\""), "{remedy}");
    }

    #[test]
    fn a_mount_whose_reserve_is_reached_says_so_before_a_put_fails() {
        let mut mount = MountStatus {
            index: 0,
            path: String::new(),
            state: MountState::Online,
            why: String::new(),
            remedy: String::new(),
            writable: true,
            full: false,
            reserve_free: 64 << 20,
            full_elsewhere: String::new(),
            stats: MountStats::default(),
        };
        assert_eq!(mount.why_no_puts(Writes::Taken), "", "nothing is known of its space yet");
        mount.stats.space.total = 1 << 30;
        mount.stats.space.free = 24 << 20;
        let why = mount.why_no_puts(Writes::Taken);
        assert_eq!(
            why,
            "it is full: 24.0 MiB are free, 64.0 MiB are kept free (store.reserve_free)"
        );
        assert!(mount.why_no_puts(Writes::ReadOnly).contains("readonly"));
        mount.stats.space.free = 65 << 20;
        assert_eq!(mount.why_no_puts(Writes::Taken), "");
    }
}
