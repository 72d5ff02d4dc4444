//! State exchange, the receiving side: versions that are copied from a mirror's slots instead of its log.
//!
//! Invariants: a copy is in our own log (as an image, which never leaves the machine) before it touches a slot; it
//! stands or falls by the rules of design section 5; absence at the mirror proves nothing, so nothing is ever removed
//! for it.

use super::content::read_footer;
use super::disk::{Disk, Open};
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use super::slot_copy::SlotCopy;
use super::take::{Incoming, is_same_home, replaced};
use crate::cluster::coverage::Coverage;
use crate::cluster::version::{Decision, compare};
use crate::format::conflict::Conflict;
use crate::format::crc::crc32c;
use crate::format::ids::{Address, Position};
use crate::format::paths;
use crate::format::record::{ChunkfileCreated, Edit, Record, Replaced};
use crate::format::slot::{Body, Role, SlotHeader, State};
use bytes::Bytes;
use smallvec::SmallVec;
use std::io::ErrorKind;

/// Bytes of record besides the payload, at most.
const RECORD_OVERHEAD: usize = 1024;

/// What became of copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Absorbed {
    /// Versions that were written.
    pub taken: u64,
    /// Versions that were known, or lost.
    pub known: u64,
    /// Homes of versions that were here, could not be read any more, and were written again; among the known.
    pub mended: Vec<Address>,
    /// Copies that make no sense.
    pub refused: u64,
    /// Contents of large objects that must be fetched before their copies can be taken.
    pub needs: Vec<(Position, u64)>,
}

impl<D: Disk> Mount<D> {
    /// Takes copies of slots of one or more chunkfiles; durable and applied when it returns.
    ///
    /// # Errors
    /// [`StoreError::Fenced`]; `Io` "no space" before anything was changed.
    pub fn absorb(
        &mut self,
        chunkfiles: &[ChunkfileCreated],
        copies: &[SlotCopy],
    ) -> StoreResult<Absorbed> {
        self.check_fence()?;
        self.commit()?;
        for created in chunkfiles {
            self.ensure_chunkfile(created)?;
        }
        let mut absorbed = Absorbed::default();
        let mut wanted = Vec::new();
        for copy in copies {
            let mut edit = image_of(copy);
            let Ok((home, _)) = self.core.headers_of(&edit) else {
                absorbed.refused += 1;
                continue;
            };
            if home.role != Role::Home || !is_whole(&home, copy) {
                absorbed.refused += 1;
                continue;
            }
            if self.mend_copy(&edit, &home, &copy.payload)? {
                absorbed.mended.push(home.address);
            }
            if !self.is_news(&home)? {
                absorbed.known += 1;
                continue;
            }
            if let Body::Single(content) = home.body
                && !self.is_content_whole(content)?
                && !self.is_coming_or_gone(content)?
            {
                absorbed.needs.push((content, home.length));
                continue;
            }
            if let Some(image) = &edit.target {
                self.core.ensure_allocated(image, copy.payload.len())?;
            }
            self.core.ensure_allocated(&edit.home, copy.payload.len())?;
            // A restart counts by what the record says, and finds the slot as it is after it.
            let there = self.core.header_at(home.place())?;
            edit.replaced = replaced(there.as_ref().filter(|there| is_same_home(there, &home)));
            wanted.push((edit, home, copy.payload.clone()));
        }
        for (edit, home, payload) in &wanted {
            self.reserve_log(RECORD_OVERHEAD + payload.len())?;
            let sequence = self.take_sequence();
            let crc = if payload.is_empty() { 0 } else { home.payload_crc };
            self.push_record(&Record::Image(edit.clone()), sequence, payload.clone(), crc);
        }
        self.commit()?;
        for (edit, home, payload) in &wanted {
            let incoming = Incoming { edit, home, payload, at: home.edited_at(), again: false };
            if let Err(error) = self.take_version(&incoming) {
                self.fence(error.to_string());
                return Err(StoreError::Fenced(error.to_string()));
            }
            if let Body::Single(content) = home.body {
                self.waited_for(content);
            }
            absorbed.taken += 1;
        }
        self.commit()?;
        Ok(absorbed)
    }

    /// Takes a version once more that our own log says was taken over as state.
    pub(super) fn replay_image(&mut self, edit: &Edit, payload: &[u8]) -> StoreResult<()> {
        match self.core.headers_of(edit) {
            Ok((home, _)) => {
                let at = home.edited_at();
                self.take_version(&Incoming { edit, home: &home, payload, at, again: true })
            }
            Err(why) => {
                self.core.keep_unapplied(edit);
                self.core.warnings.push(format!("an image in our log is not applied: {why}"));
                Ok(())
            }
        }
    }

    /// Keeps a losing version that a mirror has in its archive. The content of a large one was fetched before.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn absorb_archived(&mut self, lost: &Conflict, content: &[u8]) -> StoreResult<()> {
        self.check_fence()?;
        let kept = self.core.archive(lost, content);
        kept.map(|_| ()).inspect_err(|error| self.fence(error.to_string()))
    }

    /// Everything that `coverage` covers is here: durable when it returns.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn reached(&mut self, coverage: &Coverage) -> StoreResult<()> {
        self.sync_copies()?;
        let own = self.own_log();
        let known = &self.received.coverage;
        let news = coverage.iter().filter(|position| !known.covers(*position));
        let news: Vec<Position> = news.collect();
        let others = news.iter().filter(|p| (p.machine, p.log_id) != (own.machine, own.log_id));
        let others: Vec<Position> = others.copied().collect();
        let ours = own.covered_by(coverage);
        if ours < self.core.label.first_sequence() {
            self.own_former = self.own_former.max(ours);
        }
        if others.is_empty() {
            return Ok(());
        }
        self.reserve_log(RECORD_OVERHEAD + others.len() * 16)?;
        let sequence = self.take_sequence();
        self.push_record(&Record::Reached(others.clone()), sequence, Bytes::new(), 0);
        self.commit()?;
        for position in others {
            self.received.coverage.raise(position);
        }
        self.settle();
        Ok(())
    }

    /// Whether a copy says something that the slot here does not know.
    fn is_news(&mut self, home: &SlotHeader) -> StoreResult<bool> {
        let Some(there) = self.core.header_at(home.place())? else {
            // Of a place that is free here, and perhaps given back to the file system, a purged object says nothing: to take it
            // over would take the place out of what is free, for nobody.
            let at = home.address;
            let free = home.state == State::Purged
                && self.core.is_ours(at.chunkfile())
                && self.core.space.is_free(at.chunk, at.offset_units);
            return Ok(!free);
        };
        if !is_same_home(&there, home) {
            return Ok(!super::tenants::is_later_tenant(&there, home));
        }
        if compare(&there.version, &home.version) != Decision::Ignore {
            return Ok(true);
        }
        if there.version.tag != home.version.tag {
            return Ok(false);
        }
        // The same version: news only if its content is not here.
        if let Body::Single(content) = there.body {
            return Ok(there.state == State::Live && !self.is_content_whole(content)?);
        }
        self.core.has_slot_content(&there).map(|here| !here)
    }

    /// Whether the file of a large object's content is in its place, with its own footer.
    fn is_content_whole(&self, content: Position) -> StoreResult<bool> {
        let path = paths::single(content);
        let footer = match self.core.disk.open(&path, Open::Read) {
            Ok(file) => read_footer(&file),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let footer = footer.map_err(StoreError::io(format!("read {path}")))?;
        Ok(footer.is_some_and(|f| f.content == content && f.mount == self.core.label.mount))
    }
}

/// Whether the content is the one that the header names. That of a tombstone may be missing: a delete carries none,
/// and a concurrent edit may have stood in its place.
pub(super) fn is_whole(home: &SlotHeader, copy: &SlotCopy) -> bool {
    match home.body {
        Body::Inline | Body::Slot(_)
            if home.state == State::Deleted && home.length > 0 && copy.payload.is_empty() =>
        {
            copy.target.is_none()
        }
        Body::Inline | Body::Slot(_) => {
            copy.payload.len() as u64 == home.length && crc32c(&copy.payload) == home.payload_crc
        }
        Body::Single(_) | Body::None => copy.payload.is_empty(),
    }
}

pub(super) fn image_of(copy: &SlotCopy) -> Edit {
    Edit {
        token_lowest: 0,
        token_issued_ms: 0,
        replaced: Replaced::Nothing,
        rename_single: true,
        has_payload: !copy.payload.is_empty() || copy.target.is_some(),
        freed: SmallVec::new(),
        freed_single: None,
        home: copy.home.clone(),
        target: copy.target.clone(),
    }
}
