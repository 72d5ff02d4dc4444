//! `ChunkFile`: the one queue of every change to the objects whose home is in one chunkfile.
//!
//! | thread | the mount's disk arbiter |
//! |---|---|
//! | order | FIFO: two changes of one key are applied in the order in which they entered the mailbox |
//! | bound | the budget of requests and bytes in flight, taken before a task gets here (R1) |
//! | from | `Connection`, the read pool |
//! | to | the mount's engine (a call), `Binlog` (a flush, when the batch has its first record) |
//!
//! Invariants: it is started and stopped on its own arbiter only; it stops after [`IDLE`] without a task, when its
//! entry in the registry says that tasks wait and its mailbox has run empty, so no task ever meets two queues.

use super::binlog::{Binlog, Flush};
use super::mount_room::MountRoom;
use super::task::Task;
use crate::format::ids::ChunkfileId;
use actix::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Without a task for so long it stops.
pub const IDLE: Duration = Duration::from_secs(10);

/// See the module.
pub struct ChunkFile {
    id: ChunkfileId,
    room: Rc<RefCell<MountRoom>>,
    binlog: Addr<Binlog>,
    /// Tasks since the last look.
    served: u64,
}

impl ChunkFile {
    /// The actor of a chunkfile of the mount `room`.
    #[must_use]
    pub const fn new(id: ChunkfileId, room: Rc<RefCell<MountRoom>>, binlog: Addr<Binlog>) -> Self {
        Self { id, room, binlog, served: 0 }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        if std::mem::take(&mut self.served) == 0 {
            self.room.borrow().shared().registry.stopping(self.id);
            // Everything that entered the mailbox before the line above is handled before this.
            ctx.address().do_send(Emptied);
        }
    }
}

impl Actor for ChunkFile {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(IDLE, Self::look);
    }
}

impl Handler<Task> for ChunkFile {
    type Result = ();

    fn handle(&mut self, task: Task, _: &mut Context<Self>) {
        self.served += 1;
        if self.room.borrow_mut().handle(task) {
            self.binlog.do_send(Flush);
        }
    }
}

/// The mailbox has run empty.
#[derive(Message)]
#[rtype(result = "()")]
struct Emptied;

impl Handler<Emptied> for ChunkFile {
    type Result = ();

    fn handle(&mut self, _: Emptied, ctx: &mut Context<Self>) {
        let shared = Rc::clone(&self.room);
        if shared.borrow().shared().registry.stopped(self.id, ctx.address()) {
            ctx.stop();
        }
    }
}

/// The daemon stops; the registry lets nothing in any more. Answered when all before it is staged.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopChunkFile;

impl Handler<StopChunkFile> for ChunkFile {
    type Result = ();

    fn handle(&mut self, _: StopChunkFile, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
