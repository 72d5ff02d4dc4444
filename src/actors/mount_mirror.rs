//! What a mount's room does as one of several mirrors: takes slices of other logs, meets members, counts copies.
//! (The other half of [`mount_room`](super::mount_room).)
//!
//! Invariants: members are durable in the label before they count or are told to anybody; a mount that is not in its own
//! label has not joined and takes no change; everything published is durable.

use super::incoming_slice::Slice;
use super::mirror::{Outlook, Tail};
use super::mount_room::MountRoom;
use super::reply::Reply;
use super::session::Problem;
use crate::cluster::meeting::{Source, learn, learn_all};
use crate::cluster::reuse::MemberReport;
use crate::format::forgotten::Forgotten;
use crate::format::ids::{LogId, MachineId, Position, Sequence};
use crate::format::members::Member;
use crate::format::recovery_state::Cause;
use crate::messages::error::ErrorCode;
use crate::store::mount::Staged;
use std::sync::Arc;

/// Bytes of slices that are taken in one turn; requests never wait for more.
const TURN_BYTES: usize = 8 << 20;

/// Who a mount is to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountIdentity {
    /// Our machine.
    pub machine: MachineId,
    /// Uuid of the mount.
    pub mount_uuid: [u8; 16],
    /// Our instance.
    pub instance: [u8; 16],
}

/// Writes down the members outside of the mount, durably.
pub type Remember = Box<dyn FnMut(&[Member]) -> Result<(), String> + Send>;

/// What a mount says of itself to another member.
#[derive(Clone, Debug)]
pub struct Presence {
    /// Itself.
    pub this: Member,
    /// The current log.
    pub log_id: LogId,
    /// The last durable sequence of it.
    pub durable: Sequence,
    /// What it has.
    pub report: MemberReport,
    /// The members as its label names them.
    pub members: Vec<Member>,
    /// Members that were removed for good.
    pub forgotten: Vec<Forgotten>,
}

/// Meeting somebody.
#[derive(Clone, Debug, Default)]
pub struct Meeting {
    /// Who, and what it says of itself.
    pub from: Option<Member>,
    /// What it says of others.
    pub others: Vec<Member>,
    /// Who was removed for good, as it says.
    pub forgotten: Vec<Forgotten>,
    /// Everybody who could be reached knows us: we are a member from now on.
    pub join: bool,
}

impl MountRoom {
    /// Puts slices in the queue; `true`: a turn has to be asked for.
    #[must_use]
    pub fn arrived(&mut self, slice: Slice) -> bool {
        self.arrived.push_back(slice);
        !std::mem::replace(&mut self.receive_asked, true)
    }

    /// Takes what has arrived, with one sync for each log. `true`: there is more.
    #[must_use]
    pub fn receive(&mut self) -> bool {
        let (mut slices, mut replies, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < TURN_BYTES
            && let Some(Slice { slice, reply }) = self.arrived.pop_front()
        {
            bytes += slice.records.len();
            slices.push(slice);
            replies.push(reply);
        }
        self.receive_asked = !self.arrived.is_empty();
        let Some(engine) = &mut self.engine else {
            for reply in replies {
                reply.refused(self.shared.out_of_service());
            }
            return self.receive_asked;
        };
        match engine.receive(&slices) {
            Ok(received) => {
                for (received, reply) in received.into_iter().zip(replies) {
                    reply.received(received);
                }
                self.report_is_old = self.shared.mirror.mirroring;
                self.answer_durable();
                self.members_changed();
            }
            Err(error) => {
                tracing::error!(mount = self.shared.index, %error, "receiving failed");
                self.leave_fenced();
                for reply in replies {
                    reply.refused(self.shared.out_of_service());
                }
            }
        }
        self.receive_asked
    }

    /// Nobody has this content any more.
    pub fn content_is_gone(&mut self, content: Position) {
        if let Some(engine) = &mut self.engine {
            engine.content_is_gone(content);
        }
    }

    /// How it stands with a member.
    pub fn peer_acked(&mut self, machine: MachineId, live: bool, acked: Option<Sequence>) {
        let behind = self.shared.mirror.behind(acked.unwrap_or(0));
        self.acks.peer(machine, live, acked, behind.ms);
        self.release();
    }

    /// What a member says of itself (R12).
    pub fn peer_report(&mut self, machine: MachineId, report: &MemberReport, refilling: bool) {
        self.acks.member_covers(machine, (!refilling).then_some(&report.coverage));
        if self.acks.is_waiting() {
            self.release();
        }
        if let Some(engine) = &mut self.engine {
            engine.member_report(machine, report);
            self.after_housekeeping();
            self.members_changed();
        }
    }

    /// Meets somebody: what is new goes into the label first.
    ///
    /// # Errors
    /// The mount is out of service; somebody claims to be us.
    pub fn meet(&mut self, meeting: &Meeting) -> Result<Presence, Problem> {
        self.hear_forgotten(&meeting.forgotten)?;
        let Some(engine) = &mut self.engine else { return Err(self.shared.out_of_service()) };
        let shut_out = |member: &Member| {
            let mut refused =
                engine.forgotten().iter().filter(|gone| gone.machine == member.machine);
            match member.log_ids.last() {
                Some(log_id) => refused.any(|gone| gone.refuses(member.machine, *log_id)),
                // Hearsay of trackers: they may not know yet.
                None => refused.any(|gone| gone.instance == member.instance),
            }
        };
        if let Some(from) = meeting.from.as_ref().filter(|from| shut_out(from)) {
            return Err(forgotten_problem(from.machine));
        }
        let others = meeting.others.iter().filter(|member| !shut_out(member)).cloned();
        let others: Vec<Member> = others.collect();
        let own = self.identity.machine;
        let mut members = engine.members().to_vec();
        let joined = members.iter().any(|member| member.machine == own);
        if let Some(from) = &meeting.from {
            if from.machine == own {
                return Err(Problem::new(
                    ErrorCode::Refused,
                    format!("another storage at {} has our machine id {own}", from.address),
                )
                .remedy("give one of the two another machine_id"));
            }
            learn(&mut members, from, Source::Itself);
            if !joined && self.shared.is_online() && self.was_somebody(&meeting.others) {
                self.begin_refill(Cause::NewMachine)?;
                let former: &[MachineId] = &[from.machine];
                learn_all(&mut members, &meeting.others, former);
                return self.meet_as(members, true);
            }
            let except: &[MachineId] = if joined { &[from.machine] } else { &[from.machine, own] };
            learn_all(&mut members, &others, except);
        } else {
            learn_all(&mut members, &others, &[own]);
        }
        self.meet_as(members, joined || meeting.join)
    }

    fn meet_as(&mut self, mut members: Vec<Member>, joined: bool) -> Result<Presence, Problem> {
        if joined {
            let this = self.this();
            learn(&mut members, &this, Source::Itself);
        }
        self.make_members(members)?;
        self.presence().ok_or_else(|| self.shared.out_of_service())
    }

    /// Takes over who was removed for good.
    fn hear_forgotten(&mut self, all: &[Forgotten]) -> Result<(), Problem> {
        for forgotten in all {
            let Some(engine) = &mut self.engine else { return Err(self.shared.out_of_service()) };
            if let Err(error) = engine.learn_forgotten(forgotten) {
                tracing::error!(mount = self.shared.index, %error, "a removed member");
                self.leave_fenced();
                return Err(self.shared.out_of_service());
            }
        }
        if !all.is_empty() {
            self.members_changed();
        }
        Ok(())
    }

    /// Removes a member for good; `false`: it is none.
    ///
    /// # Errors
    /// The mount is out of service.
    pub fn forget(&mut self, machine: MachineId) -> Result<bool, Problem> {
        let Some(engine) = &mut self.engine else { return Err(self.shared.out_of_service()) };
        match engine.forget(machine) {
            Ok(known) => {
                self.answer_durable();
                self.members_changed();
                Ok(known)
            }
            Err(error) => {
                tracing::error!(mount = self.shared.index, %error, "cannot forget a member");
                if self.engine.as_ref().is_some_and(|engine| engine.fenced().is_some()) {
                    self.leave_fenced();
                }
                Err(super::problems::of_store(&error, &self.shared))
            }
        }
    }

    /// The engine may have taken a member out.
    pub(super) fn members_changed(&mut self) {
        let Some(engine) = &self.engine else { return };
        let published = Arc::clone(&self.shared.mirror.members().borrow());
        let same = published.as_slice() == engine.members()
            && self.shared.mirror.forgotten().as_slice() == engine.forgotten();
        if same {
            return;
        }
        let members = engine.members().to_vec();
        if let Some(remember) = &mut self.remember
            && let Err(error) = remember(&members)
        {
            // The label has it; the memory is written again at the next start.
            tracing::warn!(mount = self.shared.index, error, "the memory cannot be written");
        }
        self.know_members();
    }

    /// Whether others remember a mount of ours that this one, which has not joined, is not: the machine was replaced, and
    /// what it had is with them.
    fn was_somebody(&self, said: &[Member]) -> bool {
        let log_id = self.engine.as_ref().map(|engine| engine.own_log().log_id);
        let us = said.iter().find(|member| member.machine == self.identity.machine);
        // Whoever heard of us already added the log that we have now.
        us.zip(log_id).is_some_and(|(us, log_id)| us.log_ids.iter().any(|id| *id != log_id))
    }

    /// Makes these the members, durably, here and in the storage's memory.
    fn make_members(&mut self, members: Vec<Member>) -> Result<(), Problem> {
        let Some(engine) = &mut self.engine else { return Err(self.shared.out_of_service()) };
        if engine.members() != members.as_slice() {
            if let Err(error) = engine.set_members(members.clone()) {
                self.leave_fenced();
                tracing::error!(mount = self.shared.index, %error, "the label cannot be written");
                return Err(self.shared.out_of_service());
            }
            let names: Vec<MachineId> = members.iter().map(|member| member.machine).collect();
            tracing::info!(mount = self.shared.index, members = ?names, "members");
            if let Some(remember) = &mut self.remember
                && let Err(error) = remember(&members)
            {
                // The label has it; the memory is written again at the next start.
                tracing::warn!(mount = self.shared.index, error, "the memory cannot be written");
            }
        }
        self.know_members();
        Ok(())
    }

    /// Publishes the members, and counts them.
    pub(super) fn know_members(&mut self) {
        let Some(engine) = &self.engine else { return };
        let own = self.identity.machine;
        let members = engine.members();
        let joined = !self.shared.mirror.mirroring || members.iter().any(|m| m.machine == own);
        let others = members.iter().map(|member| member.machine).filter(|m| *m != own);
        self.acks.set_members(others);
        self.shared.mirror.publish_forgotten(engine.forgotten());
        self.shared.mirror.publish_members(members);
        self.shared.mirror.publish_joined(joined);
        self.release();
    }

    /// Announces ourselves if this mount is known by another log than it has now.
    pub(super) fn know_own_log(&mut self) {
        self.acks.new_log();
        let joined = self.engine.as_ref().is_some_and(|engine| {
            engine.members().iter().any(|member| member.machine == self.identity.machine)
        });
        if joined && let Err(problem) = self.meet(&Meeting::default()) {
            tracing::error!(mount = self.shared.index, %problem, "cannot write who we are");
        }
    }

    /// Ourselves, as others should know us.
    fn this(&self) -> Member {
        let MountIdentity { machine, mount_uuid, instance } = self.identity;
        let mut log_ids = Vec::new();
        if let Some(engine) = &self.engine {
            let known = engine.members().iter().find(|member| member.machine == machine);
            log_ids = known.map_or_else(Vec::new, |member| member.log_ids.clone());
            let log_id = engine.own_log().log_id;
            log_ids.retain(|known| *known != log_id);
            log_ids.push(log_id);
        }
        Member {
            machine,
            address: self.shared.mirror.address.clone(),
            mount_uuid,
            instance,
            log_ids,
        }
    }

    fn presence(&self) -> Option<Presence> {
        let engine = self.engine.as_ref()?;
        Some(Presence {
            this: self.this(),
            log_id: engine.own_log().log_id,
            durable: engine.durable(),
            report: engine.own_report(),
            members: engine.members().to_vec(),
            forgotten: engine.forgotten().to_vec(),
        })
    }

    /// Answers a change again that was durable before: with the copies that it has now.
    pub fn answer_again(&mut self, staged: Staged, reply: Reply) {
        let own = self.engine.as_ref().map(|engine| engine.own_log());
        let log = (staged.tag.machine, staged.tag.log_id);
        if own.is_some_and(|own| (own.machine, own.log_id) == log) {
            self.acks.add(staged, reply, self.shared.mirror.clock.now_ms());
            return self.release();
        }
        let at = staged.tag.position();
        self.acks.add_again(at, staged, reply, self.shared.mirror.clock.now_ms());
        self.release();
    }

    /// Answers what may be answered, and says what can be expected of the next change.
    pub(super) fn release(&mut self) {
        let mirror = &self.shared.mirror;
        self.acks.release(mirror.clock.now_ms());
        mirror.publish_late(self.acks.late());
        mirror.publish_outlook(if !mirror.is_joined() {
            Outlook::Joining
        } else if !self.acks.may_begin() {
            Outlook::Refused
        } else if self.acks.is_degraded() {
            Outlook::Degraded
        } else {
            Outlook::Good
        });
    }

    /// Says how far our log goes.
    pub(super) fn publish_tail(&mut self) {
        let serving = self.engine.as_ref().filter(|_| self.shared.is_online());
        let tail = serving.map(|engine| Tail { log: engine.own_log(), sequence: engine.durable() });
        let bytes = std::mem::take(&mut self.staged_bytes);
        self.shared.mirror.publish_tail(tail, bytes);
        self.report_is_old = self.shared.mirror.mirroring;
    }

    /// Whether [`MountRoom::look_after_mirrors`] should be called some milliseconds from now.
    #[must_use]
    pub fn wants_a_tick(&self) -> bool {
        self.acks.is_waiting() || self.report_is_old
    }

    /// Lets go who waited too long, and says what is durable here.
    pub fn look_after_mirrors(&mut self) {
        self.release();
        if let Some(engine) = &self.engine
            && std::mem::take(&mut self.report_is_old)
        {
            self.shared.mirror.publish_report(engine.own_report());
            // The two belong together: what others send is counted until it is here.
            self.shared.publish_free(engine.free());
        }
    }

    fn after_housekeeping(&mut self) {
        if self.engine.as_ref().is_some_and(|engine| engine.has_staged()) {
            self.commit();
        }
    }
}

/// A machine that was removed for good comes back as it was.
pub(super) fn forgotten_problem(machine: MachineId) -> Problem {
    Problem::new(
        ErrorCode::Forgotten,
        format!("machine {machine} was removed from this syncgroup for good (`forget`)"),
    )
    .remedy("empty its mounts and its state_dir, then start it: it joins as a new member")
}

/// Whether a change may be begun, in the engine's words.
pub(super) fn check_begin(room: &MountRoom) -> Result<(), Problem> {
    if !room.shared.mirror.is_joined() {
        return room.shared.mirror.check_writes();
    }
    if room.acks.may_begin() {
        Ok(())
    } else {
        Err(super::mirror::refused(room.shared.mirror.policy.wanted))
    }
}
