//! `forget MACHINE`: removes a member for good. What that does is said in the answer; who is there is not forgotten.

use super::Sight;
use crate::actors::admin_console::{CommandResult, ConsoleAnswer, Value};
use crate::actors::binlog::ForgetMember;
use crate::format::ids::MachineId;
use crate::storage::no_puts;

/// A machine of which something was heard within so many milliseconds is there.
const HEARD_MS: u64 = 3_000;

impl Sight {
    /// `forget MACHINE`.
    pub(super) async fn forget(&self, words: &[String]) -> CommandResult {
        let [word] = words else {
            return Err("expected `forget MACHINE`, with a machine id out of `nodes`".to_owned());
        };
        let machine: MachineId =
            word.parse().map_err(|_| format!("{word:?} is no machine id; see `nodes`"))?;
        self.may_be_forgotten(machine)?;
        let mut rows = Vec::new();
        let mut known = false;
        for mount in self.room.placement.mounts() {
            let done = match mount.registry.binlog() {
                Some(binlog) => binlog.send(ForgetMember(machine)).await.ok(),
                None => None,
            };
            let state = match done {
                Some(Ok(forgotten)) => {
                    known |= forgotten;
                    self.forget_state(mount.index, machine)
                }
                Some(Err(problem)) => format!("not done: {}", problem.message),
                None => {
                    "not done: the mount is out of service; say it again when it is back".to_owned()
                }
            };
            rows.push(vec![mount.index.into(), Value::from(state)]);
        }
        if !known && rows.iter().all(|row| row.last() == Some(&Value::from(NO_MEMBER))) {
            return Err(format!("machine {machine} is no member of this syncgroup; see `nodes`"));
        }
        Ok(ConsoleAnswer::new()
            .fact("forgotten", u64::from(machine))
            .fact(
                "meaning",
                "it is no mirror any more: nothing waits for it, and what only it had is lost. As it was it is refused for \
                 ever; with empty mounts and an empty state_dir it may join again",
            )
            .fact(
                "owner",
                format!("what it owned is owned by the lowest member left ({})", self.lowest(machine)),
            )
            .table("mounts", &["mount", "state"], rows))
    }

    /// Refuses what would be a mistake.
    fn may_be_forgotten(&self, machine: MachineId) -> Result<(), String> {
        if machine == self.room.machine {
            return Err("this is that machine: say it on the console of another member".to_owned());
        }
        if let Some(peer) = self.room.peers.get(machine)
            && peer.heard_ms() > 0
            && self.room.peers.clock.now_ms().saturating_sub(peer.heard_ms()) < HEARD_MS
        {
            return Err(format!(
                "machine {machine} is there: stop it first, then say it again. One that has just died is taken for there \
                 until it was silent for {} s",
                HEARD_MS / 1_000
            ));
        }
        Ok(())
    }

    /// Members of any mount without a machine; the lowest of them.
    fn lowest(&self, without: MachineId) -> String {
        let mounts = self.room.placement.mounts().iter();
        let members = mounts.flat_map(|mount| {
            let members = mount.mirror.members().borrow().clone();
            members.iter().map(|member| member.machine).collect::<Vec<_>>()
        });
        let lowest = members.filter(|machine| *machine != without).min();
        lowest.map_or_else(|| "none".to_owned(), |machine| format!("machine {machine}"))
    }

    /// How far it is on a mount.
    fn forget_state(&self, index: u8, machine: MachineId) -> String {
        let Ok(mount) = self.room.placement.mount(index) else { return NO_MEMBER.to_owned() };
        let members = mount.mirror.members().borrow().clone();
        let forgotten = mount.mirror.forgotten();
        match (
            forgotten.iter().any(|gone| gone.machine == machine),
            members.iter().any(|member| member.machine == machine),
        ) {
            (true, false) => "done".to_owned(),
            (true, true) => {
                let waits = members.iter().map(|member| member.machine);
                let waits = waits.filter(|m| *m != machine && *m != self.room.machine);
                let waits: Vec<String> = waits.map(|m| m.to_string()).collect();
                format!("logged; done when machine {} has it, too", waits.join(" and "))
            }
            (false, _) => NO_MEMBER.to_owned(),
        }
    }

    /// Who was removed, for `nodes`.
    pub(super) fn forgotten_rows(&self) -> Vec<Vec<Value>> {
        let mut rows = Vec::new();
        for mount in self.room.placement.mounts() {
            for gone in mount.mirror.forgotten().iter() {
                let log_ids: Vec<String> =
                    gone.log_ids.iter().map(|id| format!("{id:08x}")).collect();
                rows.push(vec![
                    mount.index.into(),
                    gone.machine.into(),
                    data_encoding::HEXLOWER.encode(&gone.instance).into(),
                    log_ids.join(" ").into(),
                    self.forget_state(mount.index, gone.machine).into(),
                ]);
            }
        }
        rows
    }

    /// What absent members keep from being used again, and forgets that wait.
    pub(super) fn absent_warnings(&self) -> Vec<(String, String)> {
        let mut warnings = Vec::new();
        for mount in self.room.placement.mounts().iter().filter(|mount| mount.is_online()) {
            let (index, kept) = (mount.index, mount.stats().waiting_bytes);
            for member in mount.mirror.members().borrow().iter() {
                let machine = member.machine;
                let there = self.room.peers.get(machine).is_some_and(|peer| peer.is_connected());
                if machine == self.room.machine || there {
                    continue;
                }
                if mount.mirror.forgotten().iter().any(|gone| gone.machine == machine) {
                    let state = self.forget_state(index, machine);
                    let what = format!("mount {index}: `forget {machine}` is {state}");
                    warnings.push((what, "start those machines, or forget them, too".to_owned()));
                } else if kept > 0 {
                    warnings.push((
                        format!(
                            "machine {machine} is away and keeps {} of mount {index} from being used again",
                            no_puts::shown(kept)
                        ),
                        format!("start it, or `forget {machine}` if it never comes back"),
                    ));
                }
            }
        }
        warnings
    }
}

const NO_MEMBER: &str = "it is no member";
