//! The room of a mount on its disk arbiter: the engine, and the answers that wait for its next commit.
//!
//! Shared (`Rc<RefCell<..>>`, one thread) by the mount's `ChunkFile` actors, who stage changes in the order of their
//! mailboxes, and its `Binlog` actor, who commits. No borrow lives across an `await`.
//!
//! Invariant: a reply leaves as "written" only when the engine says that its sequence is durable (P1) and the
//! [`AckRoom`] that enough members have it; when a commit
//! fails, every reply that waits says "unknown outcome" and the mount is fenced (R9).

use super::ack_room::AckRoom;
use super::engine::{Engine, wants_another_mount};
use super::incoming_slice::Slice;
use super::mount_mirror::{MountIdentity, Remember, check_begin};
use super::placement::Placement;
use super::problems;
use super::reply::Reply;
use super::session::Problem;
use super::shared_mount::{OpenMount, SharedMount};
use super::task::{Change, Content, Task, What};
use crate::cluster::view::MountState;
use crate::format::ids::Sequence;
use crate::format::record::Dropped;
use crate::format::recovery_state::RecoveryState;
use crate::store::error::StoreError;
use crate::store::mount::{PutRequest, Staged};
use std::collections::VecDeque;
use std::sync::Arc;

/// Rounds of statistics after which a full mount is tried again, whatever its free space says.
const FULL_ROUNDS: u32 = 10;

/// Looks whether the folder is still the one that was opened; why not, otherwise.
pub type Watch = Box<dyn FnMut() -> Result<(), String> + Send>;

/// What an opener made of a mount's folder.
pub struct Opened {
    /// The changing side.
    pub engine: Box<dyn Engine>,
    /// The reading side.
    pub open: OpenMount,
    /// Called every two seconds.
    pub watch: Watch,
    /// Who it is to the others.
    pub identity: MountIdentity,
    /// Keeps the members outside of the mount, too.
    pub remember: Remember,
    /// It is being refilled and must not serve.
    pub refill: Option<RecoveryState>,
}

/// Why a mount could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFailure {
    /// What it is doing instead of serving.
    pub state: MountState,
    /// Why.
    pub why: String,
    /// What mends it.
    pub remedy: String,
    /// Whether looking again from time to time may help.
    pub retry: bool,
}

/// Opens a mount's folder; called on the disk arbiter, may block.
pub type Opener = Box<dyn FnMut() -> Result<Opened, OpenFailure> + Send>;

/// See the module.
pub struct MountRoom {
    pub(super) shared: Arc<SharedMount>,
    placement: Arc<Placement>,
    pub(super) engine: Option<Box<dyn Engine>>,
    watch: Option<Watch>,
    /// Of a mount that was fenced: whether its folder is still the one that failed.
    replaced: Option<Watch>,
    pub(super) identity: MountIdentity,
    pub(super) remember: Option<Remember>,
    waiting: VecDeque<(Staged, Reply)>,
    /// What is durable and waits for copies.
    pub(super) acks: AckRoom,
    /// The tail that the mirrors were told.
    published: Sequence,
    /// Bytes staged since the tail was published, about.
    pub(super) staged_bytes: u64,
    /// Slices of other members, in the order of their arrival.
    pub(super) arrived: VecDeque<Slice>,
    pub(super) receive_asked: bool,
    pub(super) report_is_old: bool,
    flush_asked: bool,
    full_rounds: u32,
    full_free: u64,
}

impl MountRoom {
    /// A room without an engine yet.
    #[must_use]
    pub fn new(shared: Arc<SharedMount>, placement: Arc<Placement>) -> Self {
        let acks = AckRoom::new(shared.mirror.policy);
        Self {
            shared,
            placement,
            engine: None,
            watch: None,
            replaced: None,
            identity: MountIdentity::default(),
            remember: None,
            waiting: VecDeque::new(),
            acks,
            published: 0,
            staged_bytes: 0,
            arrived: VecDeque::new(),
            receive_asked: false,
            report_is_old: false,
            flush_asked: false,
            full_rounds: 0,
            full_free: 0,
        }
    }

    /// The mount as others see it.
    #[must_use]
    pub fn shared(&self) -> &Arc<SharedMount> {
        &self.shared
    }

    /// Whether an engine is there.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.engine.is_some()
    }

    /// Begins to serve.
    pub fn enter(&mut self, opened: Opened) {
        let Opened { mut engine, open, watch, identity, remember, refill } = opened;
        self.shared.publish_stats(engine.stats());
        self.shared.publish_lanes(engine.active_chunkfiles());
        self.shared.publish_full(false);
        self.engine = Some(engine);
        self.watch = Some(watch);
        self.replaced = None;
        (self.identity, self.remember) = (identity, Some(remember));
        self.know_members();
        self.know_own_log();
        // Nobody must see the mount together with what another one had in its place.
        self.report_is_old = self.shared.mirror.mirroring;
        self.look_after_mirrors();
        match refill {
            Some(state) => self.shared.publish_refilling(Arc::new(open), state),
            None => self.shared.publish_open(Arc::new(open)),
        }
        self.publish_tail();
        self.look_after_mirrors();
    }

    /// Does what the queue of a chunkfile says. `true`: a flush has to be asked for.
    #[must_use]
    pub fn handle(&mut self, task: Task) -> bool {
        match task {
            Task::Change(change) => {
                self.change(change);
                self.after_staging()
            }
            Task::Read(job) => {
                // No change is in flight on this thread between two messages, so what is read now is settled.
                let engine = self.engine.as_mut();
                job.run_settled(|id| engine.is_some_and(|e| e.is_gone(id).unwrap_or(false)));
                false
            }
        }
    }

    fn after_staging(&mut self) -> bool {
        let Some(engine) = &self.engine else { return false };
        if engine.batch_is_full() {
            self.commit();
        } else {
            // Staging may have had to commit what was staged before.
            self.answer_durable();
        }
        let staged = self.engine.as_ref().is_some_and(|engine| engine.has_staged());
        if self.flush_asked || !(staged || self.wants_a_tick()) {
            return false;
        }
        self.flush_asked = true;
        true
    }

    fn change(&mut self, change: Change) {
        let Change { what, mut reply } = change;
        if self.engine.is_none() {
            return reply.refused(self.shared.out_of_service());
        }
        if let Err(problem) = check_begin(self) {
            return reply.refused(problem);
        }
        let Some(engine) = &mut self.engine else { return };
        let meter = &self.shared.meters.meter;
        meter.queue.record(reply.staged(meter.clock.now_us()));
        let token = reply.token();
        let bytes = what.bytes();
        let staged = match &what {
            What::Put { content, reserve, lane, .. } => engine.stage_put(PutRequest {
                token,
                body: content.body(),
                reserve: *reserve,
                lane: *lane,
            }),
            What::Modify { id, content, if_opver } => {
                engine.stage_modify(id, token, content.body(), *if_opver)
            }
            What::Delete { id, if_opver } => engine.stage_delete(id, token, *if_opver),
            What::Undelete { id } => engine.stage_undelete(id, token),
        };
        match staged {
            Ok(staged) => {
                if let What::Put { content, .. } | What::Modify { content, .. } = what {
                    content.taken();
                }
                reply.begun();
                self.staged_bytes += bytes;
                self.waiting.push_back((staged, reply));
            }
            Err(error) => self.refuse(what, reply, &error),
        }
    }

    fn refuse(&mut self, what: What, reply: Reply, error: &StoreError) {
        if self.engine.as_ref().is_some_and(|engine| engine.fenced().is_some()) {
            reply.refused(problems::of_store(error, &self.shared));
            return self.leave_fenced();
        }
        let id = match &what {
            What::Put { .. } => None,
            What::Modify { id, .. } | What::Delete { id, .. } | What::Undelete { id } => Some(*id),
        };
        if let (StoreError::Damaged(_), Some(id)) = (error, id) {
            self.shared.scrub.suspect(id);
        }
        if wants_another_mount(error) {
            self.note_full();
            if let What::Put { content: content @ Content::Inline { .. }, reserve, lane, others } =
                what
                && others > 0
            {
                let others = others - 1;
                let change = Change { what: What::Put { content, reserve, lane, others }, reply };
                return self.placement.elsewhere(self.shared.index, change, error);
            }
        }
        reply.refused(match id {
            Some(id) => problems::of_change(error, &self.shared, &id),
            None => problems::of_store(error, &self.shared),
        });
    }

    fn note_full(&mut self) {
        self.shared.publish_full(true);
        self.full_rounds = FULL_ROUNDS;
        self.full_free = self.shared.free();
    }

    /// From now on inserts leave so many bytes free. What was full may not be any more.
    pub fn set_reserve_free(&mut self, bytes: u64) {
        if let Some(engine) = &mut self.engine {
            engine.set_reserve_free(bytes);
        }
        self.full_rounds = 0;
        self.shared.publish_full(false);
    }

    /// Makes durable what is staged and answers it.
    pub fn commit(&mut self) {
        self.flush_asked = false;
        let Some(engine) = &mut self.engine else { return };
        let clock = self.shared.meters.meter.clock;
        let begun_us = clock.now_us();
        match engine.commit() {
            Ok(_) => {
                self.shared.meters.commits.record(clock.now_us().saturating_sub(begun_us));
                let lanes = engine.active_chunkfiles();
                self.answer_durable();
                self.shared.publish_lanes(lanes);
            }
            Err(error) => {
                tracing::error!(mount = self.shared.index, %error, "commit failed");
                self.leave_fenced();
            }
        }
    }

    /// Hands on what is durable to where it waits for copies, and tells the mirrors.
    pub(super) fn answer_durable(&mut self) {
        let Some(engine) = &self.engine else { return };
        let durable = engine.durable();
        let now = self.shared.mirror.clock.now_ms();
        let meters = &self.shared.meters;
        let now_us = meters.meter.clock.now_us();
        let mut batch = 0;
        while let Some((staged, mut reply)) =
            self.waiting.pop_front_if(|(staged, _)| staged.sequence <= durable)
        {
            batch += 1;
            reply.durable(now_us);
            self.acks.add(staged, reply, now);
        }
        if batch > 0 {
            meters.batches.record(batch);
        }
        if durable != self.published {
            self.published = durable;
            self.publish_tail();
        }
        self.release();
    }

    /// Gives a version in the conflict archive up; see [`Engine::drop_archived`].
    ///
    /// # Errors
    /// The mount is out of service.
    pub fn drop_archived(&mut self, dropped: &Dropped) -> Result<bool, Problem> {
        let Some(engine) = &mut self.engine else { return Err(self.shared.out_of_service()) };
        match engine.drop_archived(dropped) {
            Ok(done) => {
                let stats = engine.stats();
                self.shared.publish_stats(stats);
                self.answer_durable();
                Ok(done)
            }
            Err(error) => {
                tracing::error!(mount = self.shared.index, %error, "cannot drop a conflict");
                if self.engine.as_ref().is_some_and(|engine| engine.fenced().is_some()) {
                    self.leave_fenced();
                }
                Err(problems::of_store(&error, &self.shared))
            }
        }
    }

    /// Puts the mount out of service.
    pub fn fence(&mut self, why: String) {
        if let Some(engine) = &mut self.engine {
            engine.fence(why);
            self.leave_fenced();
        }
    }

    pub(super) fn leave_fenced(&mut self) {
        self.answer_durable();
        let Some(engine) = self.engine.take() else { return };
        let why = engine.fenced().unwrap_or("the engine stopped").to_owned();
        // The same disk is not trusted again (R9); another one in its place may be.
        self.replaced = self.watch.take();
        self.shared.publish_closed(MountState::Failed, &why, problems::fence_remedy(&why));
        for (_, reply) in self.waiting.drain(..) {
            reply.unknown(&why);
        }
        // What is durable here may have reached others, or not.
        self.acks.give_up(&why);
        self.flush_asked = false;
        self.publish_tail();
    }

    /// Publishes why the mount does not serve.
    pub fn refuse_open(&self, failure: &OpenFailure) {
        self.shared.publish_closed(failure.state, &failure.why, &failure.remedy);
    }

    /// Whether a checkpoint should be worked on.
    #[must_use]
    pub fn checkpoint_due(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.checkpoint_due())
    }

    /// One slice of a checkpoint; `true` if there is more to do.
    pub fn checkpoint_step(&mut self) -> bool {
        self.slice(|engine| engine.checkpoint_step().map(|finished| !finished))
    }

    /// One slice of housekeeping; `true` if there is more to do.
    pub fn maintain(&mut self) -> bool {
        self.slice(|engine| engine.maintain())
    }

    fn slice(&mut self, step: impl FnOnce(&mut dyn Engine) -> Result<bool, StoreError>) -> bool {
        let Some(engine) = &mut self.engine else { return false };
        let result = step(engine.as_mut());
        // Housekeeping may stage records of its own, and may have committed.
        match result {
            Ok(more) => {
                if engine.has_staged() {
                    self.commit();
                } else {
                    self.answer_durable();
                }
                more
            }
            Err(error) => {
                if engine.fenced().is_some() {
                    tracing::error!(mount = self.shared.index, %error, "mount failed");
                    self.leave_fenced();
                } else {
                    tracing::warn!(mount = self.shared.index, %error, "housekeeping is put off");
                }
                false
            }
        }
    }

    /// Refreshes what is published of the mount. Called about once a second.
    pub fn refresh(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        let stats = engine.stats();
        if self.full_rounds > 0 {
            self.full_rounds -= 1;
            if self.full_rounds == 0 || stats.space.free > self.full_free {
                self.full_rounds = 0;
                self.shared.publish_full(false);
            }
        }
        self.shared.publish_stats(stats);
        self.shared.publish_lanes(engine.active_chunkfiles());
    }

    /// Looks whether the folder is still ours; fences the mount if not. `true`: it may be opened again later.
    pub fn look(&mut self) -> bool {
        if let Some(replaced) = &mut self.replaced {
            let gone = replaced().is_err();
            if gone {
                self.replaced = None;
            }
            return gone;
        }
        self.look_at_identity();
        let Some(watch) = &mut self.watch else { return false };
        match watch() {
            Ok(()) => false,
            Err(why) => {
                self.fence(why);
                self.replaced = None;
                true
            }
        }
    }

    /// The end: everything staged is made durable and answered, and a checkpoint covers it.
    pub fn close(&mut self) {
        self.commit();
        while self.engine.is_some() && self.checkpoint_step() {}
        self.engine = None;
        self.watch = None;
        let stopped =
            Problem::new(crate::messages::error::ErrorCode::Stopped, "the daemon is stopping");
        for (_, reply) in self.waiting.drain(..) {
            reply.unknown(&stopped.message);
        }
        self.acks.give_up(&stopped.message);
        self.arrived.clear();
        self.publish_tail();
        self.shared.publish_closed(MountState::Failed, "the daemon is stopping", "");
    }
}
