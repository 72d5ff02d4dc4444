//! What the actors know of the changing side of a mount: a small trait, so that no actor names a disk.
//!
//! An [`Engine`] lives on its mount's disk arbiter, blocks there (R4) and is used by one thread. The reading side is
//! [`shelf`](super::shelf).

use crate::cluster::coverage::Coverage;
use crate::cluster::reuse::MemberReport;
use crate::format::conflict::Conflict;
use crate::format::file_id::ObjectId;
use crate::format::forgotten::Forgotten;
use crate::format::ids::{Address, ChunkfileId, MachineId, Position, Sequence, Tag, Token};
use crate::format::members::Member;
use crate::format::record::{ChunkfileCreated, Dropped};
use crate::format::recovery_state::RecoveryState;
use crate::store::absorb::Absorbed;
use crate::store::archive::ArchivedName;
use crate::store::archive_check::ArchivedState;
use crate::store::disk::Disk;
use crate::store::error::{StoreError, StoreResult};
use crate::store::mend::Look;
use crate::store::mount::{Body, Mount, MountStats, PutRequest, Staged};
use crate::store::renew::{Identity, Renewal};
use crate::store::slot_copy::SlotCopy;
use crate::store::sync::{LogName, LogSlice, Received};
use bytes::Bytes;
use std::io;

/// The changing side of a mount. See [`Mount`] for what each call promises.
pub trait Engine: Send + 'static {
    /// Stages a new object.
    ///
    /// # Errors
    /// Refused: nothing was changed.
    fn stage_put(&mut self, request: PutRequest) -> StoreResult<Staged>;
    /// Stages new content of an object.
    ///
    /// # Errors
    /// Refused: nothing was changed.
    fn stage_modify(
        &mut self,
        id: &ObjectId,
        token: Token,
        body: Body,
        if_opver: Option<Tag>,
    ) -> StoreResult<Staged>;
    /// Stages a tombstone.
    ///
    /// # Errors
    /// Refused: nothing was changed.
    fn stage_delete(
        &mut self,
        id: &ObjectId,
        token: Token,
        if_opver: Option<Tag>,
    ) -> StoreResult<Staged>;
    /// Stages the return of a deleted object.
    ///
    /// # Errors
    /// Refused: nothing was changed.
    fn stage_undelete(&mut self, id: &ObjectId, token: Token) -> StoreResult<Staged>;
    /// Whether there is a reason for the home of an object to hold no header of it; else it is damaged. See
    /// [`Mount::is_gone`].
    ///
    /// # Errors
    /// The mount is fenced, or cannot be read.
    fn is_gone(&mut self, id: &ObjectId) -> StoreResult<bool>;
    /// Whether anything waits for [`Engine::commit`].
    fn has_staged(&self) -> bool;
    /// Whether the batch should be written without waiting for more.
    fn batch_is_full(&self) -> bool;
    /// Makes what is staged durable and applies it.
    ///
    /// # Errors
    /// The mount is fenced: nothing that is staged may be acknowledged (R9).
    fn commit(&mut self) -> StoreResult<Sequence>;
    /// Everything up to here is durable and applied.
    fn durable(&self) -> Sequence;
    /// Whether a checkpoint should be worked on.
    fn checkpoint_due(&self) -> bool;
    /// One slice of it; `true` when it is finished.
    ///
    /// # Errors
    /// The mount is fenced.
    fn checkpoint_step(&mut self) -> StoreResult<bool>;
    /// One slice of housekeeping; `true` if there is more to do now.
    ///
    /// # Errors
    /// The mount is fenced.
    fn maintain(&mut self) -> StoreResult<bool>;
    /// Numbers for people.
    fn stats(&mut self) -> MountStats;
    /// Why it takes nothing more, if so.
    fn fenced(&self) -> Option<&str>;
    /// Takes nothing more from now on.
    fn fence(&mut self, reason: String);
    /// Chunkfile of each lane that has one.
    fn active_chunkfiles(&self) -> Vec<ChunkfileId>;

    // --- mirrors ---

    /// Takes slices of other logs: durable and applied when it returns. What is staged is committed first.
    ///
    /// # Errors
    /// The mount is fenced; whatever was not acknowledged before may be sent again.
    fn receive(&mut self, slices: &[LogSlice]) -> StoreResult<Vec<Received>>;
    /// No mirror has this content any more, because a later version of its object stands: records that name it are
    /// applied without it.
    fn content_is_gone(&mut self, content: Position);
    /// From now on inserts leave so many bytes free.
    fn set_reserve_free(&mut self, bytes: u64);
    /// Takes copies of a mirror's slots: durable and applied when it returns. See [`Mount::absorb`].
    ///
    /// # Errors
    /// The mount is fenced, or has no space: nothing of them was taken.
    fn absorb(
        &mut self,
        chunkfiles: &[ChunkfileCreated],
        copies: &[SlotCopy],
    ) -> StoreResult<Absorbed>;
    /// The same for a mount that is refilled: durable after [`Engine::sync_copies`]. See [`Mount::absorb_blank`].
    ///
    /// # Errors
    /// As `absorb`.
    fn absorb_blank(
        &mut self,
        chunkfiles: &[ChunkfileCreated],
        copies: &[SlotCopy],
    ) -> StoreResult<Absorbed>;
    /// Takes a run of slots of one chunkfile, see [`Mount::absorb_run`].
    ///
    /// # Errors
    /// As [`Engine::absorb`].
    fn absorb_run(&mut self, chunkfile: &ChunkfileCreated, slots: &Bytes) -> StoreResult<Absorbed>;
    /// Makes durable what `absorb_blank` and `absorb_run` took.
    ///
    /// # Errors
    /// The mount is fenced.
    fn sync_copies(&mut self) -> StoreResult<()>;
    /// Keeps a losing version that a mirror has in its archive; durable when it returns.
    ///
    /// # Errors
    /// The mount is fenced.
    fn absorb_archived(&mut self, lost: &Conflict, content: &[u8]) -> StoreResult<()>;
    /// Everything that `coverage` covers is here.
    ///
    /// # Errors
    /// The mount is fenced.
    fn reached(&mut self, coverage: &Coverage) -> StoreResult<()>;
    /// What is durable and applied, the own log included.
    fn coverage(&self) -> Coverage;
    /// What this member says to the others (R12).
    fn own_report(&self) -> MemberReport;
    /// What another member says.
    fn member_report(&mut self, machine: MachineId, report: &MemberReport);
    /// The configured members, ourselves included once this mount has joined.
    fn members(&self) -> &[Member];
    /// Makes these the members; durable when it returns.
    ///
    /// # Errors
    /// The mount is fenced.
    fn set_members(&mut self, members: Vec<Member>) -> StoreResult<()>;
    /// Our own log.
    fn own_log(&self) -> LogName;
    /// Members that were removed for good.
    fn forgotten(&self) -> &[Forgotten];
    /// Removes a member for good, see [`Mount::forget`].
    ///
    /// # Errors
    /// The mount is fenced.
    fn forget(&mut self, machine: MachineId) -> StoreResult<bool>;
    /// Hears that a member was removed, see [`Mount::learn_forgotten`].
    ///
    /// # Errors
    /// The mount is fenced.
    fn learn_forgotten(&mut self, forgotten: &Forgotten) -> StoreResult<()>;
    /// Gives a version in the conflict archive up, on all mirrors; see [`Mount::drop_archived`].
    ///
    /// # Errors
    /// The mount is fenced.
    fn drop_archived(&mut self, dropped: &Dropped) -> StoreResult<bool>;

    // --- damage ---

    /// Looks at a home again, in line with the changes; see [`Mount::look_again`].
    ///
    /// # Errors
    /// The mount is fenced.
    fn look_again(&mut self, home: Address, known: Option<&ObjectId>) -> StoreResult<Look>;
    /// Puts a large content that came anew in the place of a damaged one; see [`Mount::mend_content`].
    ///
    /// # Errors
    /// The mount is fenced.
    fn mend_content(&mut self, home: Address, content: Position) -> StoreResult<bool>;
    /// Free bytes of the file system now; 0 if it does not say.
    fn free(&self) -> u64;
    /// Where a received log ends; see [`Mount::synclog_end`].
    fn synclog_end(&self, log: LogName, first: Sequence) -> u64;
    /// Chunkfiles that have no file; see [`Mount::lost_chunkfiles`].
    ///
    /// # Errors
    /// The file system cannot be asked.
    fn lost_chunkfiles(
        &mut self,
        from: ChunkfileId,
        most: usize,
    ) -> StoreResult<(Vec<ChunkfileId>, Option<ChunkfileId>)>;
    /// Writes the damaged header of a chunkfile again; see [`Mount::mend_chunkfile`].
    ///
    /// # Errors
    /// The mount is fenced.
    fn mend_chunkfile(&mut self, created: &ChunkfileCreated) -> StoreResult<bool>;
    /// One slice of giving up what is damaged of a log or of the checkpoint; see [`Mount::renew`].
    ///
    /// # Errors
    /// The mount is fenced, or has no space.
    fn renew(&mut self, renewal: &mut Renewal) -> StoreResult<bool>;
    /// Writes label and list of forgotten members again if they are damaged; see [`Mount::mend_identity`].
    ///
    /// # Errors
    /// The mount is fenced.
    fn mend_identity(&mut self) -> StoreResult<Vec<Identity>>;
    /// Looks at an entry of the archive again; see [`Mount::look_at_archived`].
    ///
    /// # Errors
    /// The mount is fenced.
    fn look_at_archived(&mut self, name: ArchivedName) -> StoreResult<ArchivedState>;
    /// Puts what a mirror gave in the place of a damaged entry; see [`Mount::mend_archived`].
    ///
    /// # Errors
    /// The mount is fenced.
    fn mend_archived(&mut self, lost: &Conflict, content: &[u8]) -> StoreResult<bool>;

    // --- refilling ---

    /// Makes the state of the mount's recovery durable; from then on it does not serve after a restart either.
    ///
    /// # Errors
    /// The mount is fenced.
    fn save_recovery(&mut self, state: &RecoveryState) -> StoreResult<()>;
    /// The mount is whole: durable when it returns.
    ///
    /// # Errors
    /// The mount is fenced.
    fn end_recovery(&mut self) -> StoreResult<()>;
}

impl<D: Disk> Engine for Mount<D> {
    fn stage_put(&mut self, request: PutRequest) -> StoreResult<Staged> {
        Self::stage_put(self, request)
    }

    fn stage_modify(
        &mut self,
        id: &ObjectId,
        token: Token,
        body: Body,
        if_opver: Option<Tag>,
    ) -> StoreResult<Staged> {
        Self::stage_modify(self, id, token, body, if_opver)
    }

    fn stage_delete(
        &mut self,
        id: &ObjectId,
        token: Token,
        if_opver: Option<Tag>,
    ) -> StoreResult<Staged> {
        Self::stage_delete(self, id, token, if_opver)
    }

    fn stage_undelete(&mut self, id: &ObjectId, token: Token) -> StoreResult<Staged> {
        Self::stage_undelete(self, id, token)
    }

    fn is_gone(&mut self, id: &ObjectId) -> StoreResult<bool> {
        Self::is_gone(self, id)
    }

    fn has_staged(&self) -> bool {
        Self::has_staged(self)
    }

    fn batch_is_full(&self) -> bool {
        Self::batch_is_full(self)
    }

    fn commit(&mut self) -> StoreResult<Sequence> {
        Self::commit(self)
    }

    fn durable(&self) -> Sequence {
        Self::durable(self)
    }

    fn checkpoint_due(&self) -> bool {
        Self::checkpoint_due(self)
    }

    fn checkpoint_step(&mut self) -> StoreResult<bool> {
        Self::checkpoint_step(self)
    }

    fn maintain(&mut self) -> StoreResult<bool> {
        Self::maintain(self)
    }

    fn stats(&mut self) -> MountStats {
        Self::stats(self)
    }

    fn fenced(&self) -> Option<&str> {
        Self::fenced(self)
    }

    fn fence(&mut self, reason: String) {
        Self::fence(self, reason);
    }

    fn active_chunkfiles(&self) -> Vec<ChunkfileId> {
        Self::active_chunkfiles(self)
    }

    fn receive(&mut self, slices: &[LogSlice]) -> StoreResult<Vec<Received>> {
        Self::receive(self, slices)
    }

    fn content_is_gone(&mut self, content: Position) {
        Self::content_is_gone(self, content);
    }

    fn set_reserve_free(&mut self, bytes: u64) {
        Self::set_reserve_free(self, bytes);
    }

    fn absorb(
        &mut self,
        chunkfiles: &[ChunkfileCreated],
        copies: &[SlotCopy],
    ) -> StoreResult<Absorbed> {
        Self::absorb(self, chunkfiles, copies)
    }

    fn absorb_blank(
        &mut self,
        chunkfiles: &[ChunkfileCreated],
        copies: &[SlotCopy],
    ) -> StoreResult<Absorbed> {
        Self::absorb_blank(self, chunkfiles, copies)
    }

    fn absorb_run(&mut self, chunkfile: &ChunkfileCreated, slots: &Bytes) -> StoreResult<Absorbed> {
        Self::absorb_run(self, chunkfile, slots)
    }

    fn sync_copies(&mut self) -> StoreResult<()> {
        Self::sync_copies(self)
    }

    fn absorb_archived(&mut self, lost: &Conflict, content: &[u8]) -> StoreResult<()> {
        Self::absorb_archived(self, lost, content)
    }

    fn reached(&mut self, coverage: &Coverage) -> StoreResult<()> {
        Self::reached(self, coverage)
    }

    fn coverage(&self) -> Coverage {
        Self::coverage(self)
    }

    fn own_report(&self) -> MemberReport {
        Self::own_report(self)
    }

    fn member_report(&mut self, machine: MachineId, report: &MemberReport) {
        Self::member_report(self, machine, report);
    }

    fn members(&self) -> &[Member] {
        Self::members(self)
    }

    fn set_members(&mut self, members: Vec<Member>) -> StoreResult<()> {
        Self::set_members(self, members)
    }

    fn own_log(&self) -> LogName {
        Self::own_log(self)
    }

    fn forgotten(&self) -> &[Forgotten] {
        Self::forgotten(self)
    }

    fn forget(&mut self, machine: MachineId) -> StoreResult<bool> {
        Self::forget(self, machine)
    }

    fn learn_forgotten(&mut self, forgotten: &Forgotten) -> StoreResult<()> {
        Self::learn_forgotten(self, forgotten)
    }

    fn drop_archived(&mut self, dropped: &Dropped) -> StoreResult<bool> {
        Self::drop_archived(self, dropped)
    }

    fn look_again(&mut self, home: Address, known: Option<&ObjectId>) -> StoreResult<Look> {
        Self::look_again(self, home, known)
    }

    fn mend_content(&mut self, home: Address, content: Position) -> StoreResult<bool> {
        Self::mend_content(self, home, content)
    }

    fn free(&self) -> u64 {
        Self::free(self)
    }

    fn synclog_end(&self, log: LogName, first: Sequence) -> u64 {
        Self::synclog_end(self, log, first)
    }

    fn lost_chunkfiles(
        &mut self,
        from: ChunkfileId,
        most: usize,
    ) -> StoreResult<(Vec<ChunkfileId>, Option<ChunkfileId>)> {
        Self::lost_chunkfiles(self, from, most)
    }

    fn mend_chunkfile(&mut self, created: &ChunkfileCreated) -> StoreResult<bool> {
        Self::mend_chunkfile(self, created)
    }

    fn renew(&mut self, renewal: &mut Renewal) -> StoreResult<bool> {
        Self::renew(self, renewal)
    }

    fn mend_identity(&mut self) -> StoreResult<Vec<Identity>> {
        Self::mend_identity(self)
    }

    fn look_at_archived(&mut self, name: ArchivedName) -> StoreResult<ArchivedState> {
        Self::look_at_archived(self, name)
    }

    fn mend_archived(&mut self, lost: &Conflict, content: &[u8]) -> StoreResult<bool> {
        Self::mend_archived(self, lost, content)
    }

    fn save_recovery(&mut self, state: &RecoveryState) -> StoreResult<()> {
        Self::save_recovery(self, state)
    }

    fn end_recovery(&mut self) -> StoreResult<()> {
        Self::end_recovery(self)
    }
}

/// Whether an error of a temporary file only says that there is no room.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a refusal only says that this mount has no room: another one may take the object.
#[must_use]
pub const fn wants_another_mount(error: &StoreError) -> bool {
    matches!(error, StoreError::NoSpace { .. })
}
