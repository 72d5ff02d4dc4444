//! The refilling of a mount from its mirrors, as a machine without hands: events in, actions out.
//!
//! ```text
//!            a member serves          their answers           all named can be had
//!  Assess ------------------> PullLogs ------------> VerifyLogs ------------> PullData
//!    |  ^                        |  nobody is left      |                        |  every member that
//!    |  '------------------------'----------------------'                        |  can be had was copied,
//!    |  nobody has it                                                            v  or waited for
//!    '-----------> Failed -- a member comes, or accept-loss      Online <---- CatchUp
//!                                                                   digests equal
//! ```
//!
//! Whoever runs it (`actors/disk_recovery.rs`) tells it what it sees ([`Event`]) and does what it says ([`Action`]); no
//! phase is decided or asked for anywhere else. What survives a kill is [`RecoveryState`]; the rest begins anew, which costs a
//! comparison of digests and no copy.
//!
//! Invariants
//! - A mount never comes back silently empty: it goes on line when a member that serves has shown the same digests, when every
//!   other member is blank, too, and this one has the most, or when an operator accepted the loss.
//! - A member that is blank or being refilled is nobody's source.
//! - Every configured member is waited for, at most [`Rules::base_wait_ms`]; who did not come is reported.
//! - The log id under which the mount writes is new, and every member that serves knows it before the mount serves;
//!   the mount has by then what they had when they learned it (design R12: they may have freed places before).

pub mod birth;
mod sight;

pub use birth::{
    Failure, Folder, Foreign, LabelFact, MountFacts, Verdict, Wanted, assess, uuid_text,
};

use crate::cluster::coverage::Coverage;
use crate::format::ids::MachineId;
use crate::format::recovery_state::{Phase, RecoveryState};
use sight::{Room, machines, weight};
use std::collections::{BTreeMap, BTreeSet};

/// What is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whose mount it is.
    pub own: MachineId,
    /// How long members that do not come are waited for, ms.
    pub base_wait_ms: u64,
    /// How long a member that failed as a source is left alone, ms.
    pub retry_ms: u64,
}

/// How it stands with another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does not answer, or its mount is out of service.
    Away,
    /// Blank, or being refilled itself; what it has.
    Recovering(Coverage),
    /// It serves; what it has.
    Serving(Coverage),
}

/// What is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passes; the members as they are now.
    Look {
        /// Milliseconds of a clock that never goes back.
        now_ms: u64,
        /// What is here, durable and applied.
        ours: Coverage,
        /// Every other configured member.
        members: BTreeMap<MachineId, Standing>,
    },
    /// Answer to [`Action::PullLogs`]: what each says that it has.
    Logs(BTreeMap<MachineId, Coverage>),
    /// Answer to [`Action::PullData`]: the member's content is here.
    Copied {
        /// Whose.
        from: MachineId,
        /// Objects that it has only damaged.
        damaged: u64,
    },
    /// Answer to [`Action::Introduce`]: the member knows our log; what it had then.
    Introduced(MachineId, Coverage),
    /// Answer to [`Action::Compare`]: the digests are the same.
    Same(Proof),
    /// They are not, and what was found has been mended.
    Different(MachineId),
    /// What was asked of a member failed.
    Missed(MachineId, String),
    /// An operator accepts that what nobody has is lost.
    AcceptLoss,
    /// An operator stops it for a while.
    Pause,
    /// An operator lets it go on.
    Resume,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the state durable, before anything that follows.
    Save,
    /// Ask these members what their logs, and their copies of ours, reach.
    PullLogs(Vec<MachineId>),
    /// Copy what this member has and we lack. `lenient`: what it has only damaged is nobody's, and is given up.
    PullData {
        /// From whom.
        from: MachineId,
        /// See above.
        lenient: bool,
    },
    /// Take the records that the members push.
    Listen,
    /// Tell this member our new log.
    Introduce(MachineId),
    /// Compare digests with this member.
    Compare(MachineId),
    /// Drop what is being done.
    Cancel,
    /// The mount is whole: serve.
    Serve(Ending),
}

/// Two mirrors that are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// With whom.
    pub with: MachineId,
    /// Objects, live and deleted.
    pub objects: u64,
    /// Fingerprint of all of them, in hexadecimal digits.
    pub digest: String,
    /// Chunkfiles that were being edited while they were compared, and of which nothing was missing here.
    pub busy: u64,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A member that serves has the same.
    Proved(Proof),
    /// Nobody serves, and of all that are blank or being refilled this mount has the most.
    Base,
    /// An operator accepted the loss.
    LossAccepted,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Logs,
    Data(MachineId),
    Introduce(MachineId),
    Compare(MachineId),
}

/// The machine. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    rules: Rules,
    state: RecoveryState,
    doing: Option<Doing>,
    /// When this run began to look.
    since_ms: Option<u64>,
    now_ms: u64,
    listening: bool,
    /// What the members that know our log had when they learned it.
    introduced: BTreeMap<MachineId, Coverage>,
    /// Members that failed as a source, and when.
    missed: BTreeMap<MachineId, u64>,
    /// Members whose content is here but for what they have only damaged.
    with_damage: BTreeMap<MachineId, u64>,
    why: String,
}

impl Recovery {
    /// Goes on from `state`.
    #[must_use]
    pub const fn new(rules: Rules, state: RecoveryState) -> Self {
        Self {
            rules,
            state,
            doing: None,
            since_ms: None,
            now_ms: 0,
            listening: false,
            introduced: BTreeMap::new(),
            missed: BTreeMap::new(),
            with_damage: BTreeMap::new(),
            why: String::new(),
        }
    }

    /// What has to survive a kill.
    #[must_use]
    pub const fn state(&self) -> &RecoveryState {
        &self.state
    }

    /// What it waits for, or failed of, for people; empty if nothing.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }

    /// What an operator can do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self.state.phase {
            _ if self.state.paused => "`recover MOUNT resume` lets it go on",
            Phase::Failed => {
                "bring a member back that has the content; if nobody has, `recover MOUNT accept-loss` begins anew"
            }
            Phase::Assess | Phase::PullLogs | Phase::VerifyLogs | Phase::PullData
                if !self.state.missing.is_empty() =>
            {
                "nothing: it goes on line by itself, `recover status` shows how far it is; `recover MOUNT accept-loss` \
                 ends the wait for members that do not come"
            }
            _ => "nothing: it goes on line by itself, `recover status` shows how far it is",
        }
    }

    /// From whom it copies, or with whom it compares.
    #[must_use]
    pub const fn with(&self) -> Option<MachineId> {
        match self.doing {
            Some(Doing::Data(machine) | Doing::Introduce(machine) | Doing::Compare(machine)) => {
                Some(machine)
            }
            Some(Doing::Logs) | None => None,
        }
    }

    /// Objects that no member that was asked has undamaged.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.with_damage.values().copied().min().unwrap_or(0)
    }

    /// Counts what was copied.
    pub const fn count(&mut self, bytes: u64, objects: u64) {
        self.state.bytes = self.state.bytes.saturating_add(bytes);
        self.state.objects = self.state.objects.saturating_add(objects);
    }

    /// Something happened: what is to be done.
    #[must_use]
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Look { now_ms, ours, members } => self.look(now_ms, &ours, &members),
            Event::Logs(said) => self.logs(&said),
            Event::Copied { from, damaged } => self.copied(from, damaged),
            Event::Introduced(machine, coverage) => {
                if self.ended(Doing::Introduce(machine)) {
                    self.introduced.insert(machine, coverage);
                }
                Vec::new()
            }
            Event::Same(proof) => {
                if self.ended(Doing::Compare(proof.with)) {
                    return self.serve(Ending::Proved(proof));
                }
                Vec::new()
            }
            Event::Different(machine) => {
                if !self.ended(Doing::Compare(machine)) {
                    return Vec::new();
                }
                self.missed.insert(machine, self.now_ms);
                self.why = format!("machine {machine} still had something else; comparing again");
                Vec::new()
            }
            Event::Missed(machine, why) => self.miss(machine, &why),
            Event::AcceptLoss => {
                self.state.accepted_loss = true;
                vec![Action::Save]
            }
            Event::Pause => {
                self.state.paused = true;
                self.doing = None;
                vec![Action::Save, Action::Cancel]
            }
            Event::Resume => {
                self.state.paused = false;
                vec![Action::Save]
            }
        }
    }

    fn look(
        &mut self,
        now_ms: u64,
        ours: &Coverage,
        members: &BTreeMap<MachineId, Standing>,
    ) -> Vec<Action> {
        self.now_ms = now_ms;
        let since = *self.since_ms.get_or_insert(now_ms);
        if self.state.paused {
            "paused by an operator; `recover MOUNT resume` goes on".clone_into(&mut self.why);
            return Vec::new();
        }
        let waited = now_ms.saturating_sub(since) >= self.rules.base_wait_ms;
        let room = Room { waited: waited || self.state.accepted_loss, ours, members };
        match self.state.phase {
            Phase::Assess | Phase::Failed => self.look_for_sources(&room),
            Phase::PullLogs => self.pull_logs(&room),
            Phase::VerifyLogs => self.verify_logs(&room),
            Phase::PullData => self.pull_data(&room),
            Phase::CatchUp => self.catch_up(&room),
            Phase::Online => Vec::new(),
        }
    }

    fn enter(&mut self, phase: Phase) -> Vec<Action> {
        self.state.phase = phase;
        self.doing = None;
        self.why.clear();
        vec![Action::Save]
    }

    /// Whether this is what was being done. What was cancelled says nothing any more.
    fn ended(&mut self, what: Doing) -> bool {
        let was = self.doing == Some(what);
        if was {
            self.doing = None;
            self.why.clear();
        }
        was
    }

    fn serve(&mut self, ending: Ending) -> Vec<Action> {
        let mut actions = self.enter(Phase::Online);
        actions.push(Action::Serve(ending));
        actions
    }

    /// `Assess`, `Failed`.
    fn look_for_sources(&mut self, room: &Room<'_>) -> Vec<Action> {
        if room.serving().next().is_some() {
            return self.enter(Phase::PullLogs);
        }
        let away: Vec<MachineId> = room.away().collect();
        if !room.waited && !away.is_empty() {
            self.why = format!("waiting for {} to come back", machines(&away));
            return Vec::new();
        }
        if self.is_base(room) && (away.is_empty() || self.state.accepted_loss) {
            self.state.missing = away;
            return self.serve(Ending::Base);
        }
        if self.state.accepted_loss && room.greater(self.rules.own).is_empty() {
            self.state.missing = away;
            return self.serve(Ending::LossAccepted);
        }
        let greater = room.greater(self.rules.own);
        let why = if !greater.is_empty() {
            format!("{} has more and comes first", machines(&greater))
        } else if away.is_empty() {
            "no other member has this mount's content".to_owned()
        } else {
            format!("nobody has this mount's content but, perhaps, {}", machines(&away))
        };
        let actions = if self.state.phase == Phase::Failed || !greater.is_empty() {
            Vec::new()
        } else {
            self.enter(Phase::Failed)
        };
        self.why = why;
        actions
    }

    /// Whether, nobody serving, this mount is the one that the others are refilled from.
    fn is_base(&self, room: &Room<'_>) -> bool {
        !room.ours.is_empty() && room.greater(self.rules.own).is_empty()
    }

    fn pull_logs(&mut self, room: &Room<'_>) -> Vec<Action> {
        if self.doing.is_some() {
            return Vec::new();
        }
        let sources: Vec<MachineId> = room.serving().map(|(machine, _)| machine).collect();
        if sources.is_empty() {
            return self.enter(Phase::Assess);
        }
        self.doing = Some(Doing::Logs);
        vec![Action::PullLogs(sources)]
    }

    fn logs(&mut self, said: &BTreeMap<MachineId, Coverage>) -> Vec<Action> {
        if !self.ended(Doing::Logs) || said.is_empty() {
            return Vec::new();
        }
        let mut target: Coverage = self.state.target.iter().copied().collect();
        for coverage in said.values() {
            target.join(coverage);
        }
        self.state.target = target.iter().collect();
        self.enter(Phase::VerifyLogs)
    }

    /// Everything that any log names must be with somebody who serves, or here.
    fn verify_logs(&mut self, room: &Room<'_>) -> Vec<Action> {
        let mut there = room.ours.clone();
        for (_, coverage) in room.serving() {
            there.join(coverage);
        }
        let lacking = self.state.target.iter().filter(|position| !there.covers(**position));
        let lacking: BTreeSet<MachineId> = lacking.map(|position| position.machine).collect();
        if lacking.is_empty() || room.waited {
            return self.enter(Phase::PullData);
        }
        let lacking: Vec<MachineId> = lacking.into_iter().collect();
        self.why = format!("nobody who serves has all of the log of {}", machines(&lacking));
        Vec::new()
    }

    fn pull_data(&mut self, room: &Room<'_>) -> Vec<Action> {
        if let Some(doing) = self.doing {
            // A source that went away is noticed by whoever copies from it.
            let Doing::Data(from) = doing else { return Vec::new() };
            if room.members.get(&from).is_some_and(Standing::is_serving) {
                return Vec::new();
            }
            let mut actions = self.miss(from, "it went away");
            actions.insert(0, Action::Cancel);
            return actions;
        }
        let mut sources: Vec<(MachineId, &Coverage)> = room.serving().collect();
        if sources.is_empty() && self.state.finished.is_empty() {
            return self.enter(Phase::Assess);
        }
        // Who has the most first: of the others only differences are left.
        sources.sort_by_key(|(machine, coverage)| (std::cmp::Reverse(weight(coverage)), *machine));
        let is_open = |machine: &MachineId| {
            !self.state.finished.contains(machine) && !self.with_damage.contains_key(machine)
        };
        let next = sources.iter().map(|(machine, _)| *machine).filter(is_open);
        let (ready, resting): (Vec<MachineId>, Vec<MachineId>) =
            next.partition(|machine| !self.rests(*machine));
        if let Some(from) = ready.first() {
            self.doing = Some(Doing::Data(*from));
            return vec![Action::PullData { from: *from, lenient: false }];
        }
        if !resting.is_empty() {
            return Vec::new();
        }
        let away: Vec<MachineId> =
            room.away().filter(|machine| !self.state.finished.contains(machine)).collect();
        if !away.is_empty() && !room.waited {
            self.why = format!("all is copied; waiting for {} to come back", machines(&away));
            return Vec::new();
        }
        self.state.missing = away;
        if self.state.finished.is_empty() {
            // Nobody had everything undamaged: what nobody has is given up, and said.
            let first = sources.iter().map(|(m, _)| *m).find(|m| self.with_damage.contains_key(m));
            let Some(from) = first else { return self.enter(Phase::Assess) };
            self.doing = Some(Doing::Data(from));
            return vec![Action::PullData { from, lenient: true }];
        }
        self.enter(Phase::CatchUp)
    }

    fn copied(&mut self, from: MachineId, damaged: u64) -> Vec<Action> {
        if !self.ended(Doing::Data(from)) {
            return Vec::new();
        }
        let again = self.with_damage.contains_key(&from);
        if damaged > 0 {
            self.with_damage.insert(from, damaged);
        }
        if (damaged == 0 || again) && !self.state.finished.contains(&from) {
            self.state.finished.push(from);
        }
        vec![Action::Save]
    }

    fn catch_up(&mut self, room: &Room<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        if !std::mem::replace(&mut self.listening, true) {
            actions.push(Action::Listen);
        }
        if let Some(doing) = self.doing {
            let gone = self.with().is_some_and(|machine| {
                !room.members.get(&machine).is_some_and(Standing::is_serving)
            });
            if gone && let Doing::Compare(machine) | Doing::Introduce(machine) = doing {
                actions.push(Action::Cancel);
                actions.extend(self.miss(machine, "it went away"));
            }
            return actions;
        }
        let serving: Vec<MachineId> = room.serving().map(|(machine, _)| machine).collect();
        if serving.is_empty() {
            actions.extend(self.nobody_to_prove_it(room));
            return actions;
        }
        let new = serving.iter().find(|m| !self.introduced.contains_key(m) && !self.rests(**m));
        if let Some(machine) = new {
            self.doing = Some(Doing::Introduce(*machine));
            actions.push(Action::Introduce(*machine));
            return actions;
        }
        let known = serving.iter().filter_map(|machine| self.introduced.get(machine));
        let target: Coverage = self.state.target.iter().copied().collect();
        let behind = known.chain([&target]).any(|coverage| !room.ours.covers_all(coverage));
        if behind && !(room.waited && self.given_up() > 0) {
            "taking what was changed meanwhile from the logs".clone_into(&mut self.why);
            return actions;
        }
        let ready =
            |machine: &&MachineId| self.introduced.contains_key(machine) && !self.rests(**machine);
        if let Some(machine) = serving.iter().find(ready) {
            self.doing = Some(Doing::Compare(*machine));
            actions.push(Action::Compare(*machine));
        }
        actions
    }

    /// All is here, and nobody serves who could show the same.
    fn nobody_to_prove_it(&mut self, room: &Room<'_>) -> Vec<Action> {
        let away: Vec<MachineId> = room.away().collect();
        if self.is_base(room) && (away.is_empty() || self.state.accepted_loss) {
            self.state.missing = away;
            return self.serve(Ending::Base);
        }
        self.why = if away.is_empty() {
            format!("{} has more and comes first", machines(&room.greater(self.rules.own)))
        } else {
            format!("all is copied; {} must come back to compare with", machines(&away))
        };
        Vec::new()
    }

    fn miss(&mut self, machine: MachineId, why: &str) -> Vec<Action> {
        let logs = self.doing == Some(Doing::Logs);
        if logs || self.with() == Some(machine) {
            self.doing = None;
        }
        self.introduced.remove(&machine);
        self.missed.insert(machine, self.now_ms);
        self.why = format!("machine {machine}: {why}");
        Vec::new()
    }

    /// Whether a member failed so lately that it is left alone.
    fn rests(&self, machine: MachineId) -> bool {
        let since = self.missed.get(&machine).map(|at| self.now_ms.saturating_sub(*at));
        since.is_some_and(|ms| ms < self.rules.retry_ms)
    }
}

#[cfg(test)]
#[path = "recovery/machine_tests.rs"]
mod tests;
