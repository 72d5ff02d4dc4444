//! What a mount takes over as state, on its disk arbiter: copies of a mirror's slots, losing versions, and what has been
//! reached with them. (A part of [`mount_room`](super::mount_room) and of [`binlog`](super::binlog).)
//!
//! Invariant: each message is small, so that requests wait for one of them and no longer (R4); what is answered is durable,
//! but for copies to blank places of a mount that is refilled.

use super::binlog::Binlog;
use super::mount_room::MountRoom;
use super::problems;
use super::session::Problem;
use crate::cluster::coverage::Coverage;
use crate::format::conflict::Conflict;
use crate::format::record::ChunkfileCreated;
use crate::store::absorb::Absorbed;
use crate::store::error::{StoreError, StoreResult};
use crate::store::slot_copy::SlotCopy;
use actix::prelude::*;
use bytes::Bytes;
use std::sync::Arc;

/// Copies of a mirror's slots.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Absorbed, Problem>")]
pub struct Absorb {
    /// The chunkfiles that they lie in.
    pub chunkfiles: Arc<Vec<ChunkfileCreated>>,
    /// About a megabyte of them.
    pub copies: Arc<Vec<SlotCopy>>,
    /// The mount is being refilled: what goes to blank places is durable after [`SyncCopies`].
    pub blank: bool,
    /// Instead of copies: a run of slots of the first of the chunkfiles. For a mount that is being refilled.
    pub run: Option<Bytes>,
}

/// Makes durable what was copied to blank places. Takes as long as the disk does; the mount serves nobody.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), Problem>")]
pub struct SyncCopies;

/// A losing version that a mirror keeps, with its content (empty for a large one, which was fetched before).
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), Problem>")]
pub struct AbsorbArchived(pub Conflict, pub Vec<u8>);

/// Everything that this covers is here.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), Problem>")]
pub struct Reached(pub Coverage);

impl MountRoom {
    fn take_over<T>(
        &mut self,
        take: impl FnOnce(&mut dyn super::engine::Engine) -> StoreResult<T>,
    ) -> Result<T, Problem> {
        let Some(engine) = &mut self.engine else { return Err(self.shared.out_of_service()) };
        let taken = take(engine.as_mut());
        let failed = engine.fenced().is_some();
        let taken = taken.map_err(|error: StoreError| {
            tracing::warn!(mount = self.shared.index, %error, "state is not taken over");
            problems::of_store(&error, &self.shared)
        });
        if failed {
            self.leave_fenced();
        } else {
            self.report_is_old = self.shared.mirror.mirroring;
            self.answer_durable();
        }
        taken
    }
}

impl Handler<Absorb> for Binlog {
    type Result = Result<Absorbed, Problem>;

    fn handle(&mut self, state: Absorb, ctx: &mut Context<Self>) -> Self::Result {
        let take = |engine: &mut dyn super::engine::Engine| {
            if let (Some(run), Some(chunkfile)) = (&state.run, state.chunkfiles.first()) {
                engine.absorb_run(chunkfile, run)
            } else if state.blank {
                engine.absorb_blank(&state.chunkfiles, &state.copies)
            } else {
                engine.absorb(&state.chunkfiles, &state.copies)
            }
        };
        let absorbed = self.room.borrow_mut().take_over(take);
        if let Ok(Absorbed { mended, .. }) = &absorbed {
            self.room.borrow().shared.scrub.mended(mended);
        }
        self.checkpoint(ctx);
        self.tick_soon(ctx);
        absorbed
    }
}

impl Handler<SyncCopies> for Binlog {
    type Result = Result<(), Problem>;

    fn handle(&mut self, _: SyncCopies, _: &mut Context<Self>) -> Self::Result {
        self.room.borrow_mut().take_over(|engine| engine.sync_copies())
    }
}

impl Handler<AbsorbArchived> for Binlog {
    type Result = Result<(), Problem>;

    fn handle(&mut self, lost: AbsorbArchived, _: &mut Context<Self>) -> Self::Result {
        let AbsorbArchived(lost, content) = lost;
        self.room.borrow_mut().take_over(|engine| engine.absorb_archived(&lost, &content))
    }
}

impl Handler<Reached> for Binlog {
    type Result = Result<(), Problem>;

    fn handle(&mut self, Reached(coverage): Reached, ctx: &mut Context<Self>) -> Self::Result {
        let reached = self.room.borrow_mut().take_over(|engine| engine.reached(&coverage));
        self.tick_soon(ctx);
        reached
    }
}
