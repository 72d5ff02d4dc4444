//! Damage of what lies on a mount: judged in line with the changes, and mended with what a mirror gave (P3).
//!
//! Invariants
//! - What is judged damaged is so with no change in flight: everything staged is committed before.
//! - Only bytes that were written by the rules of design section 5, and cannot be read any more, are written again: a version
//!   that we are known to have had (our coverage has its edit), verified, into a place that nobody else has had since. So
//!   accounts and counters stay as they are, and no log record is needed: a power cut leaves what was damaged before.
//! - What is overwritten is kept aside before.

use super::damaged::{ONE_MAX, keep_aside};
use super::disk::{Disk, DiskFile, Open};
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use super::scrub::Large;
use crate::format::chunkfile::{CHUNKFILE_HEADER_LEN, ChunkfileHeader};
use crate::format::file_id::ObjectId;
use crate::format::ids::{Address, ChunkfileId, Place, Position};
use crate::format::paths;
use crate::format::record::{ChunkfileCreated, Edit, SlotImage};
use crate::format::slot::{Body, HEADER_LEN, Role, SlotHeader, State, looks_like_home};

/// What a second look in line with the changes came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Header and content are as they were written; of a large object the header only, and this is its content.
    Whole(Option<Large>),
    /// Nothing of an object is to be found here.
    Gone,
    /// What is wrong.
    Damaged(&'static str),
    /// Its content lies in this chunkfile, whose header is damaged: that comes first, the content may be whole.
    Hidden(ChunkfileId),
    /// The content behind a tombstone is not here. It may be on no mirror at all.
    NoContent,
}

impl<D: Disk> Mount<D> {
    /// Looks at a home again. `known`: the object that is said to have its home there, so that finding nothing is damage
    /// unless there is a reason for it.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn look_again(&mut self, home: Address, known: Option<&ObjectId>) -> StoreResult<Look> {
        self.commit()?;
        let place = Place { address: home, capacity_units: 0 };
        if self.core.chunks.secret(home.chunkfile()).is_err() {
            let is_here = self.core.chunks.states.contains_key(&home.chunkfile());
            let why = "the header of its chunkfile is damaged";
            return Ok(if is_here { Look::Damaged(why) } else { Look::Gone });
        }
        let Some(header) = self.header_if_readable(place) else {
            let lost = known.is_some_and(|id| !self.is_gone(id).unwrap_or(false));
            return Ok(if lost || self.was_a_home(home) {
                Look::Damaged("the slot header is broken or lost")
            } else {
                Look::Gone
            });
        };
        if header.role != Role::Home || header.state == State::Purged {
            return Ok(Look::Gone);
        }
        if let Some(large) = Large::of(&header) {
            return Ok(Look::Whole(Some(large)));
        }
        if self.has_slot_of(&header) {
            return Ok(Look::Whole(None));
        }
        if let Body::Slot(target) = header.body {
            let id = target.chunkfile();
            let is_here = self.core.chunks.states.contains_key(&id);
            if is_here && self.core.chunks.secret(id).is_err() {
                return Ok(Look::Hidden(id));
            }
        }
        Ok(match header.state {
            State::Live => Look::Damaged("the checksum of the content is wrong"),
            State::Deleted | State::Purged => Look::NoContent,
        })
    }

    /// What a lost sector holds counts as unreadable, not as an error.
    fn header_if_readable(&mut self, place: Place) -> Option<SlotHeader> {
        self.core.header_at(place).ok().flatten()
    }

    fn has_slot_of(&mut self, home: &SlotHeader) -> bool {
        self.core.has_slot_content(home).unwrap_or(false)
    }

    /// Whether something that looks like the header of a home in use stands there, in a place that is not free.
    fn was_a_home(&mut self, at: Address) -> bool {
        let id = at.chunkfile();
        if self.core.is_ours(id) && self.core.space.is_free(at.chunk, at.offset_units) {
            return false;
        }
        match self.core.chunks.read(id, at.offset(), HEADER_LEN) {
            Ok(bytes) => looks_like_home(&bytes, at),
            Err(_) => true,
        }
    }

    /// Whether this version of an object was here: then what is missing of it was damaged.
    fn had(&self, home: &SlotHeader) -> bool {
        let edited = home.edited_at();
        let own = self.own_log();
        let ours = (edited.machine, edited.log_id) == (own.machine, own.log_id);
        if ours { edited.sequence <= self.durable } else { self.received.coverage.covers(edited) }
    }

    /// Writes a verified copy where its very version was and cannot be read any more. `false`: it is not that.
    pub(super) fn mend_copy(
        &mut self,
        edit: &Edit,
        home: &SlotHeader,
        payload: &[u8],
    ) -> StoreResult<bool> {
        if home.state == State::Purged || !self.had(home) {
            return Ok(false);
        }
        match self.header_if_readable(home.place()) {
            Some(there) => {
                let same = there.is_object(&home.object_id())
                    && there.role == Role::Home
                    && there.version.tag == home.version.tag
                    && there.body == home.body;
                let large = matches!(there.body, Body::Single(_) | Body::None);
                if !same || large || !edit.has_payload || self.has_slot_of(&there) {
                    return Ok(false);
                }
            }
            None => {
                let at = home.address;
                let free = self.core.is_ours(at.chunkfile())
                    && self.core.space.is_free(at.chunk, at.offset_units);
                if self.quarantined > 0 {
                    // It may be one that could not be applied: that was never here, and is to be counted.
                    return Ok(false);
                }
                // Where nothing can be read nobody else can have been.
                let former = self.core.is_for_former_tenant(edit, home, payload.len(), true);
                if free || former.unwrap_or(false) {
                    return Ok(false);
                }
            }
        }
        // A chunkfile that was closed meanwhile and whose header is damaged cannot be written to: that header comes first.
        let target = edit.target.as_ref().map(|image| image.address.chunkfile());
        for id in [Some(home.address.chunkfile()), target].into_iter().flatten() {
            if self.core.chunks.read(id, 0, 1).is_err() {
                return Ok(false);
            }
        }
        let written = self.write_again(edit, home, payload);
        written.map(|()| true).inspect_err(|error| self.fence(error.to_string()))
    }

    fn write_again(&mut self, edit: &Edit, home: &SlotHeader, payload: &[u8]) -> StoreResult<()> {
        if let Some(target) = edit.target.as_ref().filter(|_| edit.has_payload) {
            self.put_aside_slot(target, payload.len());
            self.core.ensure_allocated(target, payload.len())?;
            self.core.write_slot(target, payload)?;
        }
        let inline: &[u8] =
            if edit.target.is_none() && home.body == Body::Inline { payload } else { &[] };
        self.put_aside_slot(&edit.home, inline.len());
        self.core.ensure_allocated(&edit.home, inline.len())?;
        self.core.write_slot(&edit.home, inline)?;
        // No harm where it is in use already; where the free space was made from headers, this one was not among them.
        self.core.note_edit_used(edit, home);
        tracing::warn!(mount = self.core.label.mount, home = ?home.address, "a damaged object is mended");
        Ok(())
    }

    fn put_aside_slot(&mut self, image: &SlotImage, payload: usize) {
        let len = (image.header.len() + payload).min(ONE_MAX);
        let Address { machine, log_id, chunk, offset_units } = image.address;
        let what =
            format!("slot at unit {offset_units} of chunkfile {machine}/{log_id:08x}/{chunk}");
        // A sector that is lost has nothing to be kept.
        let id = image.address.chunkfile();
        let bytes = self.core.chunks.read(id, image.address.offset(), len).unwrap_or_default();
        keep_aside(&self.core.disk, self.clock.now_ms(), &what, &bytes);
    }

    /// Puts the content of a large object, which came anew from a mirror and waits under its temporary name, in the place of
    /// the damaged one. `false`: the object does not name it any more.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn mend_content(&mut self, home: Address, content: Position) -> StoreResult<bool> {
        self.commit()?;
        let place = Place { address: home, capacity_units: 0 };
        let named = self.header_if_readable(place);
        if !named.is_some_and(|header| header.body == Body::Single(content))
            || !self.is_complete_temporary(content)?
        {
            super::single_writer::remove_temp(&self.core.disk, content);
            return Ok(false);
        }
        let path = paths::single(content);
        let now_ms = self.clock.now_ms();
        let front = self.core.disk.open(&path, Open::Read).and_then(|file| {
            let len = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(ONE_MAX);
            let mut bytes = vec![0; len];
            let got = file.read_full_at(0, &mut bytes)?;
            bytes.truncate(got);
            Ok(bytes)
        });
        // One that is gone, or cannot be read, leaves nothing to keep.
        if let Ok(bytes) = front {
            keep_aside(&self.core.disk, now_ms, &path, &bytes);
        }
        self.core.place_single(content).inspect_err(|error| self.fence(error.to_string()))?;
        tracing::warn!(mount = self.core.label.mount, %path, "a damaged content is mended");
        Ok(true)
    }

    /// Chunkfiles of the mount that have no file, among some from `from` on; and where to go on.
    ///
    /// # Errors
    /// The file system cannot be asked.
    pub fn lost_chunkfiles(
        &mut self,
        from: ChunkfileId,
        most: usize,
    ) -> StoreResult<(Vec<ChunkfileId>, Option<ChunkfileId>)> {
        let known = self.core.chunks.states.range(from..).map(|(id, _)| *id);
        let mut known: Vec<ChunkfileId> = known.take(most + 1).collect();
        let next = if known.len() > most { known.pop() } else { None };
        let mut lost = Vec::new();
        for id in known {
            if self.is_lost(id)? {
                lost.push(id);
            }
        }
        Ok((lost, next))
    }

    fn is_lost(&self, id: ChunkfileId) -> StoreResult<bool> {
        let path = paths::chunk(id);
        let found = self.core.disk.stat(&path).map_err(StoreError::io(format!("stat {path}")))?;
        Ok(found.is_none())
    }

    /// Writes the header of a chunkfile again, which is damaged on the medium, or makes its file, which is gone: what we know of it
    /// goes before what a mirror says. `false`: it is not damaged, or nothing is known of it.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn mend_chunkfile(&mut self, created: &ChunkfileCreated) -> StoreResult<bool> {
        self.commit()?;
        let id = created.id;
        let size = self.core.chunks.states.get(&id).map(|state| state.size_units);
        let secret = self.core.chunks.known_secret(id);
        let same = secret.is_none_or(|secret| secret == created.secret);
        if size != Some(created.size_units) || !same {
            return Ok(false);
        }
        let header = ChunkfileHeader {
            id,
            mount: self.core.label.mount,
            mount_uuid: self.core.label.mount_uuid,
            size_units: created.size_units,
            secret: created.secret,
            created_ms: created.created_ms,
        };
        let path = paths::chunk(id);
        let io = |what: &str| StoreError::io(format!("{what} {path}"));
        if self.is_lost(id)? {
            let made = self.core.chunks.create(created, true).map_err(io("create"));
            made.inspect_err(|error| self.fence(error.to_string()))?;
            tracing::warn!(mount = self.core.label.mount, %path, "a chunkfile that was gone is there again, empty");
            return Ok(true);
        }
        let file = self.core.disk.open(&path, Open::Write).map_err(io("open"))?;
        let mut there = vec![0; CHUNKFILE_HEADER_LEN];
        let got = file.read_full_at(0, &mut there).unwrap_or(0);
        if ChunkfileHeader::decode(&there[..got]).is_ok_and(|there| there == header) {
            return Ok(false);
        }
        keep_aside(
            &self.core.disk,
            self.clock.now_ms(),
            &format!("header of {path}"),
            &there[..got],
        );
        let written = file.write_all_at(0, &header.encode()).and_then(|()| file.sync_data());
        written.map_err(io("write the header of")).inspect_err(|error| {
            self.fence(error.to_string());
        })?;
        tracing::warn!(mount = self.core.label.mount, %path, "a damaged chunkfile header is mended");
        Ok(true)
    }
}
