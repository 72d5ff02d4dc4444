//! `Binlog`: the tail of a mount's log. Opens the mount, commits what the `ChunkFile`s staged, works on checkpoints and
//! housekeeping in slices, looks after the folder, starts `ChunkFile` actors.
//!
//! | thread | the mount's disk arbiter; blocks there (R4) |
//! |---|---|
//! | order | one flush at a time |
//! | bound | one [`Flush`] outstanding; everything else is rare |
//! | from | `ChunkFile` (flush), the registry (start an actor), the storage (open, close), `Connection` (slices of other members), `SyncPeer` (acknowledgements) |
//! | to | the mount's engine (calls); the replies of a batch |
//!
//! Invariants: before a flush it yields once, so that the mailboxes of all `ChunkFile`s drain into the same batch;
//! between two slices of anything it yields, so that requests never wait for more than one slice.

use super::chunk_file::ChunkFile;
use super::incoming_slice::Slice;
use super::mount_mirror::{Meeting, Presence};
use super::mount_room::{MountRoom, OpenFailure, Opener};
use super::reply::Reply;
use super::session::Problem;
use super::task::Task;
use crate::cluster::reuse::MemberReport;
use crate::format::ids::{ChunkfileId, MachineId, MountIndex, Position, Sequence};
use crate::format::record::Dropped;
use crate::format::recovery_state::{Cause, RecoveryState};
use crate::store::mount::Staged;
use actix::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// Housekeeping, statistics.
pub const TICK: Duration = Duration::from_secs(1);
/// Label, device and inode are looked at so often.
pub const WATCH: Duration = Duration::from_secs(2);
/// Who waits for a mirror is looked at so often, and what is durable here is said so often.
pub const MIRROR_TICK: Duration = Duration::from_millis(50);
/// First wait before a mount that could not be opened is tried again.
const RETRY_MIN: Duration = Duration::from_secs(2);
/// Longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(6);

/// How the first attempt to open a mount ended.
pub type FirstOpen = UnboundedSender<(MountIndex, Result<(), OpenFailure>)>;

/// See the module.
pub struct Binlog {
    pub(super) room: Rc<RefCell<MountRoom>>,
    opener: Opener,
    first: Option<FirstOpen>,
    retry: Duration,
    checkpointing: bool,
    maintaining: bool,
    /// [`MIRROR_TICK`] is on its way.
    ticking: bool,
    closing: bool,
}

impl Binlog {
    /// The log of the mount `room`, which `opener` opens. `first` hears how the first attempt ended.
    #[must_use]
    pub const fn new(room: Rc<RefCell<MountRoom>>, opener: Opener, first: FirstOpen) -> Self {
        Self {
            room,
            opener,
            first: Some(first),
            retry: RETRY_MIN,
            checkpointing: false,
            maintaining: false,
            ticking: false,
            closing: false,
        }
    }

    fn open(&mut self, ctx: &mut Context<Self>) {
        if self.closing || self.room.borrow().is_open() {
            return;
        }
        let index = self.room.borrow().shared().index;
        let result = match (self.opener)() {
            Ok(opened) => {
                self.room.borrow_mut().enter(opened);
                self.retry = RETRY_MIN;
                Ok(())
            }
            Err(failure) => {
                let known = self.room.borrow().shared().published();
                if known.why != failure.why {
                    tracing::error!(
                        mount = index,
                        why = failure.why,
                        remedy = failure.remedy,
                        "mount failed"
                    );
                }
                self.room.borrow().refuse_open(&failure);
                if failure.retry {
                    self.open_later(ctx);
                }
                Err(failure)
            }
        };
        if let Some(first) = self.first.take() {
            // Nobody waits any more: the start was given up.
            first.send((index, result)).unwrap_or_default();
        }
    }

    fn open_later(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(self.retry, Self::open);
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }

    fn watch(&mut self, ctx: &mut Context<Self>) {
        if self.room.borrow_mut().look() {
            self.open_later(ctx);
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.room.borrow_mut().refresh();
        self.maintain(ctx);
        self.checkpoint(ctx);
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
        self.room.borrow_mut().commit();
        self.checkpoint(ctx);
        self.tick_soon(ctx);
    }

    /// Has the mirrors looked after soon, if there is anything to look after.
    pub(super) fn tick_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.ticking && self.room.borrow().wants_a_tick() {
            self.ticking = true;
            ctx.run_later(MIRROR_TICK, |actor, ctx| {
                actor.ticking = false;
                actor.room.borrow_mut().look_after_mirrors();
                actor.tick_soon(ctx);
            });
        }
    }

    fn receive(&mut self, ctx: &mut Context<Self>) {
        let more = self.room.borrow_mut().receive();
        self.checkpoint(ctx);
        self.tick_soon(ctx);
        if more {
            self.after_others(ctx, Self::receive);
        }
    }

    pub(super) fn checkpoint(&mut self, ctx: &mut Context<Self>) {
        if !self.checkpointing && self.room.borrow().checkpoint_due() {
            self.checkpointing = true;
            self.after_others(ctx, Self::checkpoint_slice);
        }
    }

    fn checkpoint_slice(&mut self, ctx: &mut Context<Self>) {
        self.checkpointing = self.room.borrow_mut().checkpoint_step();
        if self.checkpointing {
            self.after_others(ctx, Self::checkpoint_slice);
        }
    }

    fn maintain(&mut self, ctx: &mut Context<Self>) {
        if !self.maintaining {
            self.maintaining = true;
            self.maintain_slice(ctx);
        }
    }

    fn maintain_slice(&mut self, ctx: &mut Context<Self>) {
        self.maintaining = self.room.borrow_mut().maintain();
        if self.maintaining {
            self.after_others(ctx, Self::maintain_slice);
        }
    }

    /// Goes on after everybody else on this thread had a turn.
    fn after_others(
        &self,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, &mut Context<Self>) + 'static,
    ) {
        ctx.spawn(
            tokio::task::yield_now().into_actor(self).map(move |(), actor, ctx| then(actor, ctx)),
        );
    }
}

impl Actor for Binlog {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.open(ctx);
        ctx.run_interval(TICK, Self::tick);
        ctx.run_interval(WATCH, Self::watch);
    }
}

/// Something is staged.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Flush;

impl Handler<Flush> for Binlog {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Context<Self>) {
        self.after_others(ctx, Self::flush);
    }
}

/// Puts of a mount that has no chunkfile yet.
impl Handler<Task> for Binlog {
    type Result = ();

    fn handle(&mut self, task: Task, ctx: &mut Context<Self>) {
        if self.room.borrow_mut().handle(task) {
            self.after_others(ctx, Self::flush);
        }
    }
}

/// Somebody asked for a chunkfile whose actor does not run.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StartChunkFile(pub ChunkfileId);

impl Handler<StartChunkFile> for Binlog {
    type Result = ();

    fn handle(&mut self, StartChunkFile(id): StartChunkFile, ctx: &mut Context<Self>) {
        let addr = ChunkFile::new(id, Rc::clone(&self.room), ctx.address()).start();
        self.room.borrow().shared().registry.started(id, addr);
    }
}

/// Answered when everything that was sent before it is done.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Settle;

impl Handler<Settle> for Binlog {
    type Result = ();

    fn handle(&mut self, _: Settle, _: &mut Context<Self>) {}
}

/// The mount must not go on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Fence(pub String);

impl Handler<Fence> for Binlog {
    type Result = ();

    fn handle(&mut self, Fence(why): Fence, _: &mut Context<Self>) {
        self.room.borrow_mut().fence(why);
    }
}

/// From now on inserts leave so many bytes free.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct SetReserve(pub u64);

impl Handler<SetReserve> for Binlog {
    type Result = ();

    fn handle(&mut self, SetReserve(bytes): SetReserve, ctx: &mut Context<Self>) {
        self.room.borrow_mut().set_reserve_free(bytes);
        self.tick_soon(ctx);
    }
}

/// Records of another member.
impl Handler<Slice> for Binlog {
    type Result = ();

    fn handle(&mut self, slice: Slice, ctx: &mut Context<Self>) {
        if self.room.borrow_mut().arrived(slice) {
            self.after_others(ctx, Self::receive);
        }
    }
}

/// How it stands with a member.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct PeerAcked {
    /// Which.
    pub machine: MachineId,
    /// Connected and caught up.
    pub live: bool,
    /// Our log up to here is durable and applied there, if it has just said so.
    pub acked: Option<Sequence>,
}

impl Handler<PeerAcked> for Binlog {
    type Result = ();

    fn handle(&mut self, said: PeerAcked, _: &mut Context<Self>) {
        self.room.borrow_mut().peer_acked(said.machine, said.live, said.acked);
    }
}

/// What a member has (R12).
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct PeerReport {
    /// Which member.
    pub machine: MachineId,
    /// What it says.
    pub report: MemberReport,
    /// It is being refilled: nothing of it is a copy yet.
    pub refilling: bool,
}

impl Handler<PeerReport> for Binlog {
    type Result = ();

    fn handle(&mut self, said: PeerReport, ctx: &mut Context<Self>) {
        self.room.borrow_mut().peer_report(said.machine, &said.report, said.refilling);
        self.tick_soon(ctx);
    }
}

/// A large object's content that no member has any more. Answered when it is noted.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct ContentIsGone(pub Position);

impl Handler<ContentIsGone> for Binlog {
    type Result = ();

    fn handle(&mut self, ContentIsGone(content): ContentIsGone, _: &mut Context<Self>) {
        self.room.borrow_mut().content_is_gone(content);
    }
}

/// A version in the conflict archive that is given up, on all mirrors. Answered when that is durable here; `false`: there
/// is none of that name.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<bool, Problem>")]
pub struct DropArchived(pub Dropped);

impl Handler<DropArchived> for Binlog {
    type Result = Result<bool, Problem>;

    fn handle(
        &mut self,
        DropArchived(dropped): DropArchived,
        ctx: &mut Context<Self>,
    ) -> Self::Result {
        let result = self.room.borrow_mut().drop_archived(&dropped);
        self.tick_soon(ctx);
        result
    }
}

/// A member that is removed for good. Answered when that is durable here; `false`: it is none.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<bool, Problem>")]
pub struct ForgetMember(pub MachineId);

impl Handler<ForgetMember> for Binlog {
    type Result = Result<bool, Problem>;

    fn handle(
        &mut self,
        ForgetMember(machine): ForgetMember,
        ctx: &mut Context<Self>,
    ) -> Self::Result {
        let result = self.room.borrow_mut().forget(machine);
        self.tick_soon(ctx);
        result
    }
}

/// Meets a member, or hears of some. Answered when the label has it.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Presence, Problem>")]
pub struct Meet(pub Meeting);

impl Handler<Meet> for Binlog {
    type Result = Result<Presence, Problem>;

    fn handle(&mut self, Meet(meeting): Meet, _: &mut Context<Self>) -> Self::Result {
        self.room.borrow_mut().meet(&meeting)
    }
}

/// Makes the state of this mount's refilling durable. Answered when it is.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), Problem>")]
pub struct SaveRecovery(pub RecoveryState);

impl Handler<SaveRecovery> for Binlog {
    type Result = Result<(), Problem>;

    fn handle(&mut self, SaveRecovery(state): SaveRecovery, _: &mut Context<Self>) -> Self::Result {
        self.room.borrow_mut().save_recovery(&state)
    }
}

/// Takes the mount out of service, to be refilled. Answered when it is.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), Problem>")]
pub struct BeginRefill(pub Cause);

impl Handler<BeginRefill> for Binlog {
    type Result = Result<(), Problem>;

    fn handle(&mut self, BeginRefill(cause): BeginRefill, _: &mut Context<Self>) -> Self::Result {
        self.room.borrow_mut().begin_refill(cause)
    }
}

/// The mount is whole: it serves when this is answered.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), Problem>")]
pub struct EndRefill;

impl Handler<EndRefill> for Binlog {
    type Result = Result<(), Problem>;

    fn handle(&mut self, _: EndRefill, _: &mut Context<Self>) -> Self::Result {
        self.room.borrow_mut().end_refill()
    }
}

/// A change that was done before is asked for again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct AnswerAgain(pub Staged, pub Reply);

impl Handler<AnswerAgain> for Binlog {
    type Result = ();

    fn handle(&mut self, AnswerAgain(staged, reply): AnswerAgain, ctx: &mut Context<Self>) {
        self.room.borrow_mut().answer_again(staged, reply);
        self.tick_soon(ctx);
    }
}

/// The daemon stops, and no `ChunkFile` is left. Answered when everything is durable and covered by a checkpoint.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CloseMount;

impl Handler<CloseMount> for Binlog {
    type Result = ();

    fn handle(&mut self, _: CloseMount, ctx: &mut Context<Self>) {
        self.closing = true;
        self.room.borrow_mut().close();
        ctx.stop();
    }
}
