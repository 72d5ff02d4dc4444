//! Second looks and repairs of what lies on a mount, on its disk arbiter: in line with its changes. (A part of
//! [`mount_room`](super::mount_room) and of [`binlog`](super::binlog).)
//!
//! Invariant: each message is small, so that requests wait for one of them and no longer (R4).

use super::binlog::Binlog;
use super::engine::Engine;
use super::mount_room::MountRoom;
use super::problems;
use super::session::Problem;
use crate::cluster::coverage::Coverage;
use crate::cluster::scrub::Damage;
use crate::format::conflict::Conflict;
use crate::format::file_id::ObjectId;
use crate::format::ids::{Address, ChunkfileId, Position, Sequence};
use crate::format::record::ChunkfileCreated;
use crate::store::archive::ArchivedName;
use crate::store::archive_check::ArchivedState;
use crate::store::error::StoreResult;
use crate::store::mend::Look;
use crate::store::renew::{Identity, Renewal};
use crate::store::sync::LogName;
use actix::prelude::*;

/// Homes in one message at most.
pub const LOOKS_MAX: usize = 16;

/// Looks at homes again; with the object, where it is known. Answered with what the mount covers at that instant.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(Vec<Look>, Coverage), Problem>")]
pub struct LookAgain(pub Vec<(Address, Option<ObjectId>)>);

/// A large content came anew: it takes the place of the damaged one.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<bool, Problem>")]
pub struct MendContent {
    /// Home of the object.
    pub home: Address,
    /// The content.
    pub content: Position,
}

/// Up to which byte the segment of a received log that begins so is durable; 0 if another one follows.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<u64, Problem>")]
pub struct SynclogEnd(pub LogName, pub Sequence);

/// Which chunkfiles have no file: so many from this one on. Answered with them, and where to go on.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(Vec<ChunkfileId>, Option<ChunkfileId>), Problem>")]
pub struct LookForFiles(pub ChunkfileId, pub usize);

/// The header of this chunkfile is damaged, or its file is gone: it is to be written again.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<bool, Problem>")]
pub struct MendChunkfile(pub ChunkfileCreated);

/// One slice of giving up what is damaged of a log or of the checkpoint. Answered with how far it is, and whether it is done.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(Renewal, bool), Problem>")]
pub struct Renew(pub Renewal);

/// Looks at an entry of the conflict archive again.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<ArchivedState, Problem>")]
pub struct LookAtArchived(pub ArchivedName);

/// A losing version with its content (empty for a large one, which came anew if it was damaged): it takes the place of the
/// damaged one.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<bool, Problem>")]
pub struct MendArchived(pub Conflict, pub Vec<u8>);

impl MountRoom {
    /// Looks whether label and list of forgotten members are whole, and has them written again if not.
    pub(super) fn look_at_identity(&mut self) {
        // A mount that failed at it is noticed by whoever uses it next.
        if let Some(Ok(mended)) = self.engine.as_mut().map(|engine| engine.mend_identity()) {
            for what in mended {
                self.shared.scrub.findings().repaired(match what {
                    Identity::Label => Damage::Label,
                    Identity::Forgotten => Damage::Forgotten,
                });
            }
        }
    }

    fn mend<T>(
        &mut self,
        mend: impl FnOnce(&mut dyn Engine) -> StoreResult<T>,
    ) -> Result<T, Problem> {
        let Some(engine) = &mut self.engine else { return Err(self.shared.out_of_service()) };
        let mended = mend(engine.as_mut());
        let failed = engine.fenced().is_some();
        let mended = mended.map_err(|error| problems::of_store(&error, &self.shared));
        if failed {
            self.leave_fenced();
        } else {
            // What was staged is durable now.
            self.answer_durable();
        }
        mended
    }
}

impl Handler<LookAgain> for Binlog {
    type Result = Result<(Vec<Look>, Coverage), Problem>;

    fn handle(&mut self, LookAgain(homes): LookAgain, ctx: &mut Context<Self>) -> Self::Result {
        let look = |engine: &mut dyn Engine| {
            let looks = homes.iter().map(|(home, known)| engine.look_again(*home, known.as_ref()));
            let looks = looks.collect::<StoreResult<Vec<Look>>>()?;
            Ok((looks, engine.coverage()))
        };
        let looks = self.room.borrow_mut().mend(look);
        self.tick_soon(ctx);
        looks
    }
}

impl Handler<Renew> for Binlog {
    type Result = Result<(Renewal, bool), Problem>;

    fn handle(&mut self, Renew(mut renewal): Renew, ctx: &mut Context<Self>) -> Self::Result {
        let done = self.room.borrow_mut().mend(|engine| engine.renew(&mut renewal));
        self.tick_soon(ctx);
        done.map(|done| (renewal, done))
    }
}

impl Handler<LookAtArchived> for Binlog {
    type Result = Result<ArchivedState, Problem>;

    fn handle(
        &mut self,
        LookAtArchived(name): LookAtArchived,
        ctx: &mut Context<Self>,
    ) -> Self::Result {
        let state = self.room.borrow_mut().mend(|engine| engine.look_at_archived(name));
        self.tick_soon(ctx);
        state
    }
}

impl Handler<MendArchived> for Binlog {
    type Result = Result<bool, Problem>;

    fn handle(&mut self, mend: MendArchived, ctx: &mut Context<Self>) -> Self::Result {
        let MendArchived(lost, content) = mend;
        let mended = self.room.borrow_mut().mend(|engine| engine.mend_archived(&lost, &content));
        self.tick_soon(ctx);
        mended
    }
}

impl Handler<MendContent> for Binlog {
    type Result = Result<bool, Problem>;

    fn handle(&mut self, mend: MendContent, ctx: &mut Context<Self>) -> Self::Result {
        let MendContent { home, content } = mend;
        let mended = self.room.borrow_mut().mend(|engine| engine.mend_content(home, content));
        self.tick_soon(ctx);
        mended
    }
}

impl Handler<SynclogEnd> for Binlog {
    type Result = Result<u64, Problem>;

    fn handle(&mut self, of: SynclogEnd, _: &mut Context<Self>) -> Self::Result {
        self.room.borrow_mut().mend(|engine| Ok(engine.synclog_end(of.0, of.1)))
    }
}

impl Handler<LookForFiles> for Binlog {
    type Result = Result<(Vec<ChunkfileId>, Option<ChunkfileId>), Problem>;

    fn handle(&mut self, look: LookForFiles, _: &mut Context<Self>) -> Self::Result {
        self.room.borrow_mut().mend(|engine| engine.lost_chunkfiles(look.0, look.1))
    }
}

impl Handler<MendChunkfile> for Binlog {
    type Result = Result<bool, Problem>;

    fn handle(&mut self, mend: MendChunkfile, ctx: &mut Context<Self>) -> Self::Result {
        let mended = self.room.borrow_mut().mend(|engine| engine.mend_chunkfile(&mend.0));
        self.tick_soon(ctx);
        mended
    }
}
