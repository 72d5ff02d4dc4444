//! One version that arrives: stored, ignored, or in conflict with the one that is here (design section 5).
//!
//! Invariants
//! - Applying is idempotent, and commutes: any order of the same versions ends in the same slots.
//! - A version that loses a conflict is durable in the archive, and in our log, before its slot is overwritten (P4).
//! - Space in our chunkfiles is accounted for by our own log only ([`Settled`]).

use super::archive::Kept;
use super::disk::Disk;
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use super::tenants::is_later_tenant;
use crate::cluster::archive::{EditToken, loser};
use crate::cluster::version::{Decision, Winner, compare};
use crate::format::conflict::Conflict;
use crate::format::ids::{Address, Place, Position};
use crate::format::paths;
use crate::format::record::{Edit, Record, Replaced, Settled};
use crate::format::slot::{Body, Role, SlotHeader, State};
use bytes::Bytes;
use smallvec::SmallVec;

/// Whether the slot is of the object that a version is of, and not of another tenant of its place.
pub(super) fn is_same_home(there: &SlotHeader, home: &SlotHeader) -> bool {
    there.is_object(&home.object_id()) && there.role == Role::Home
}

/// What an edit over this version takes out of the counters.
pub(super) fn replaced(old: Option<&SlotHeader>) -> Replaced {
    old.map_or(Replaced::Nothing, |old| match old.state {
        State::Live => Replaced::Live(old.length),
        State::Deleted => Replaced::Deleted(old.length),
        State::Purged => Replaced::Purged,
    })
}

/// Bytes of a record about our own accounts, at most.
pub(super) const SETTLED_MAX: usize = 512;

/// A version that arrives, and what carries it.
pub(super) struct Incoming<'a> {
    pub edit: &'a Edit,
    pub home: &'a SlotHeader,
    pub payload: &'a [u8],
    /// The record.
    pub at: Position,
    /// A restart applies it once more: what it did to the accounts may not be in the checkpoint.
    pub again: bool,
}

impl<D: Disk> Mount<D> {
    /// Stores a version that arrives, or keeps the one that is here: the rules of design section 5.
    pub(super) fn take_version(&mut self, incoming: &Incoming<'_>) -> StoreResult<()> {
        let home = incoming.home;
        let (edit, len) = (incoming.edit, incoming.payload.len());
        let counted = incoming.again
            && self.core.replayed_homes.insert(edit.home.address, home.version.tag)
                == Some(home.version.tag);
        if self.core.is_for_former_tenant(edit, home, len, !incoming.again)? {
            return self.drop_former(incoming);
        }
        // Anybody else's header there has to give way.
        let there = self.core.header_at(home.place())?;
        let Some(old) = there.filter(|there| is_same_home(there, home)) else {
            return self.store_version(None, incoming, false);
        };
        match compare(&old.version, &home.version) {
            Decision::Ignore => {
                if incoming.again {
                    self.count_again(&old, incoming, counted)?;
                }
                match home.body {
                    Body::Single(content) if old.version.tag == home.version.tag => {
                        // Its name may not have survived a power cut that the header survived.
                        self.place_content_file(content)?;
                    }
                    _ => self.give_up_content(incoming)?,
                }
                self.mend_payload(&old, incoming)
            }
            Decision::Apply => self.store_version(Some(&old), incoming, false),
            decision @ Decision::Conflict { winner } => {
                let lost = loser(decision, &edit_token(&old), &edit_token(home));
                match winner {
                    Winner::Incoming => {
                        let kept = lost.is_some() && self.archive_local(&old, incoming)?;
                        self.store_version(Some(&old), incoming, kept)
                    }
                    Winner::Local if lost.is_none() => self.give_up_content(incoming),
                    Winner::Local => self.archive_incoming(incoming),
                }
            }
        }
    }

    /// The slot holds this version or a later one already: the killed process wrote it, perhaps after the checkpoint.
    fn count_again(
        &mut self,
        there: &SlotHeader,
        incoming: &Incoming<'_>,
        counted: bool,
    ) -> StoreResult<()> {
        let Incoming { edit, home, payload, .. } = *incoming;
        if there.version.tag == home.version.tag {
            self.core.note_edit_used(edit, home);
            self.keep_in_use(home)?;
        }
        // What is there may be there for us only: written by a process that was killed, and never synced.
        for image in [Some(&edit.home), edit.target.as_ref()].into_iter().flatten() {
            let len = (image.header.len() + payload.len()) as u64;
            self.core.chunks.note_dirty(image.address.chunkfile(), image.address.offset(), len);
        }
        if let Body::Single(content) = home.body {
            let path = paths::single(content);
            let found = self.core.disk.stat(&path);
            if found.map_err(StoreError::io(format!("stat {path}")))?.is_some() {
                self.core.dirty_folders.insert(paths::folder(&path).to_owned());
            }
        }
        if !self.core.rebuilt && !counted {
            self.core.count(edit.replaced, home);
        }
        self.core.note_tombstone(home);
        Ok(())
    }

    /// A record for a place that was handed on. Its object may still have its home, with less room behind it: then
    /// records follow whose accounts begin where this one's end.
    fn drop_former(&mut self, incoming: &Incoming<'_>) -> StoreResult<()> {
        let Incoming { edit, home, again, .. } = *incoming;
        let there = self.core.header_at(home.place())?;
        let is_left = there.is_some_and(|there| is_later_tenant(&there, home));
        if again && !is_left && !self.core.rebuilt {
            self.core.count(edit.replaced, home);
        }
        self.give_up_content(incoming)
    }

    /// Writes a version over the one before it, and settles what that frees.
    fn store_version(
        &mut self,
        old: Option<&SlotHeader>,
        incoming: &Incoming<'_>,
        old_is_kept: bool,
    ) -> StoreResult<()> {
        let Incoming { edit, home, payload, .. } = *incoming;
        let before = match old {
            Some(old) => self.places(old)?,
            None => SmallVec::new(),
        };
        if let Body::Single(content) = home.body {
            self.place_content_file(content)?;
        }
        if let Some(target) = &edit.target
            && edit.has_payload
        {
            self.core.ensure_allocated(target, payload.len())?;
            self.core.write_slot(target, payload)?;
        }
        let inline: &[u8] = if edit.target.is_none() { payload } else { &[] };
        self.core.ensure_allocated(&edit.home, inline.len())?;
        self.core.write_slot(&edit.home, inline)?;
        self.core.note_edit_used(edit, home);
        self.keep_in_use(home)?;
        self.core.count(replaced(old), home);
        self.core.note_tombstone(home);
        if let Some(Body::Single(content)) = old.map(|old| old.body)
            && home.body != Body::Single(content)
            && !old_is_kept
        {
            if incoming.again {
                self.core.freed_singles.push((content, home.place()));
            } else {
                self.core.unlink_single(content)?;
            }
        }
        let after = match home.state {
            State::Purged => SmallVec::new(),
            State::Live | State::Deleted => self.places(home)?,
        };
        self.settle_places(incoming.at, &before, &after)
    }

    /// Notes in our log which places of ours an edit of another log has freed.
    fn settle_places(
        &mut self,
        edit: Position,
        before: &[Place],
        after: &[Place],
    ) -> StoreResult<()> {
        let own = self.core.label.machine;
        let freed = no_longer_used(before, after);
        let freed: SmallVec<[Place; 2]> =
            freed.into_iter().filter(|place| place.address.machine == own).collect();
        if freed.is_empty() {
            return Ok(());
        }
        self.reserve_log(SETTLED_MAX)?;
        let settled = Settled { edit, freed };
        let sequence = self.take_sequence();
        self.push_record(&Record::Settled(settled.clone()), sequence, Bytes::new(), 0);
        self.settling.push((settled, sequence));
        Ok(())
    }

    /// A version uses what one that it beats had freed: a shrink that lost to an edit which kept the room, a move that lost to
    /// a delete, whose record names no target but whose content still lies in it. That waits no longer, nor begins to
    /// when the batch is settled.
    fn keep_in_use(&mut self, home: &SlotHeader) -> StoreResult<()> {
        if home.state == State::Purged {
            return Ok(());
        }
        for used in self.places(home)? {
            self.core.note_used(used);
            for (settled, _) in &mut self.settling {
                settled.freed = settled.freed.iter().flat_map(|p| without(*p, used)).collect();
            }
        }
        Ok(())
    }

    /// The logs were replayed one after the other, and not in the order in which they were applied: what stands now
    /// uses its places, also where a record of one log freed them after a record of another had used them again.
    pub(super) fn keep_replayed_in_use(&mut self) -> StoreResult<()> {
        for address in std::mem::take(&mut self.core.replayed_homes).into_keys() {
            let there = self.core.header_at(Place { address, capacity_units: 0 })?;
            if let Some(home) = there.filter(|there| there.role == Role::Home) {
                self.keep_in_use(&home)?;
            }
        }
        Ok(())
    }

    /// The places that a version uses.
    fn places(&mut self, home: &SlotHeader) -> StoreResult<SmallVec<[Place; 2]>> {
        let mut places = SmallVec::new();
        places.push(home.place());
        places.extend(self.moved_place(home)?);
        Ok(places)
    }

    /// A record that carries no content (a delete) may have come before the one that does: its content is written
    /// behind the later header.
    fn mend_payload(&mut self, old: &SlotHeader, incoming: &Incoming<'_>) -> StoreResult<()> {
        let Incoming { edit, home, payload, .. } = *incoming;
        let same = old.payload_crc == home.payload_crc
            && old.length == home.length
            && old.body == home.body
            && old.state != State::Purged;
        if !edit.has_payload || !same {
            return Ok(());
        }
        if self.core.has_slot_content(old)? {
            return Ok(());
        }
        match (old.body, &edit.target) {
            (Body::Inline, None) => {
                let offset = old.address.offset() + old.payload_offset() as u64;
                self.core.chunks.write(old.address.chunkfile(), offset, &[payload], false)
            }
            (Body::Slot(address), Some(target)) if address == target.address => {
                self.core.write_slot(target, payload)
            }
            (Body::Inline | Body::Slot(_) | Body::Single(_) | Body::None, _) => Ok(()),
        }
    }

    /// Keeps what is here before it is overwritten. `false`: there was nothing to keep.
    fn archive_local(&mut self, old: &SlotHeader, incoming: &Incoming<'_>) -> StoreResult<bool> {
        if !is_worth_keeping(old, incoming.home) {
            return Ok(false);
        }
        let content = match old.body {
            Body::Single(_) | Body::None => Vec::new(),
            Body::Inline => match self.core.slot_at(old.place())? {
                Some((_, payload)) => payload,
                None => return Ok(self.lost_loser(old)),
            },
            Body::Slot(address) => {
                match self.core.slot_at(Place { address, capacity_units: 0 })? {
                    Some((header, payload)) if header.payload_crc == old.payload_crc => payload,
                    Some(_) | None => return Ok(self.lost_loser(old)),
                }
            }
        };
        self.archive(old, Bytes::from(content))?;
        Ok(true)
    }

    /// The loser's bytes are damaged here. Another mirror that has them keeps them.
    fn lost_loser(&mut self, old: &SlotHeader) -> bool {
        if old.state != State::Live {
            return false;
        }
        let what = format!("the losing version of {:?} cannot be read here", old.object_id());
        tracing::error!(mount = self.core.label.mount, "{what}");
        self.core.warnings.push(what);
        false
    }

    fn archive_incoming(&mut self, incoming: &Incoming<'_>) -> StoreResult<()> {
        let home = incoming.home;
        if home.state != State::Live {
            // A delete carries no content: who made it has it, and keeps it if need be.
            return Ok(());
        }
        self.archive(home, Bytes::copy_from_slice(incoming.payload))
    }

    fn archive(&mut self, loser: &SlotHeader, content: Bytes) -> StoreResult<()> {
        let single = match loser.body {
            Body::Single(content) => Some(content),
            Body::Inline | Body::Slot(_) | Body::None => None,
        };
        let lost = Conflict {
            object: loser.object_id(),
            tag: loser.version.tag,
            modified_ms: loser.modified_ms,
            length: loser.length,
            payload_crc: loser.payload_crc,
            single,
        };
        // Whoever sees a conflict says so, even if it is kept already: the record may not have followed its file, and
        // a second one does no harm.
        if self.core.archive(&lost, &content)? == Kept::NoContent {
            // Everybody who had it has a version that was made upon it. A record would make an entry at whoever has
            // the content for some other reason (a power cut brought its name back), and at nobody else.
            return Ok(());
        }
        let object = lost.object;
        self.conflicts += 1;
        tracing::warn!(?object, edit = ?lost.tag, "two edits met: the older one is in the archive");
        self.reserve_log(SETTLED_MAX + content.len())?;
        let sequence = self.take_sequence();
        let crc = if content.is_empty() { 0 } else { lost.payload_crc };
        self.push_record(&Record::Archived(lost), sequence, content, crc);
        // Durable before the slot is overwritten.
        self.commit().map(|_| ())
    }

    /// Brings a content into place that is on its way in, or that only the archive has: of two records in one slice,
    /// the first may have lost a conflict, and the second (a delete over the same content) have won it. Whether it is in
    /// place then.
    pub(super) fn place_content_file(&mut self, content: Position) -> StoreResult<bool> {
        let there = |disk: &D, path: &str| {
            let found = disk.stat(path).map_err(StoreError::io(format!("stat {path}")))?;
            Ok::<bool, StoreError>(found.is_some())
        };
        if self.is_complete_temporary(content)? {
            return self.core.place_single(content).map(|()| true);
        }
        let (path, kept) = (paths::single(content), paths::conflict_single(content));
        if there(&self.core.disk, &path)? {
            return Ok(true);
        }
        if !there(&self.core.disk, &kept)? {
            return Ok(false);
        }
        let folder = paths::folder(&path);
        let io = |what: &str| StoreError::io(format!("{what} {path}"));
        self.core.disk.create_dir_all(folder).map_err(io("create the folder of"))?;
        self.core.disk.link(&kept, &path).map_err(io("link from the archive"))?;
        self.core.disk.sync_dir(folder).map_err(io("make durable the name of"))?;
        Ok(true)
    }

    /// The content of a version that is not taken has no use.
    fn give_up_content(&mut self, incoming: &Incoming<'_>) -> StoreResult<()> {
        if let Body::Single(content) = incoming.home.body {
            super::single_writer::remove_temp(&self.core.disk, content);
        }
        Ok(())
    }
}

/// The client's name of the edit that made a version.
const fn edit_token(header: &SlotHeader) -> EditToken {
    EditToken { client: header.token_client, sequence: header.token_sequence }
}

/// Whether something would vanish with a losing version: not if it is a tombstone over the content that stands.
fn is_worth_keeping(loser: &SlotHeader, winner: &SlotHeader) -> bool {
    match loser.state {
        State::Live => true,
        State::Deleted => (loser.payload_crc, loser.length) != (winner.payload_crc, winner.length),
        State::Purged => false,
    }
}

/// What of `place` is left beside `used`.
fn without(place: Place, used: Place) -> SmallVec<[Place; 2]> {
    let (from, until) = (place.address.offset_units, end_of(place));
    let (start, end) = (used.address.offset_units, end_of(used));
    if place.address.chunkfile() != used.address.chunkfile() || end <= from || until <= start {
        return SmallVec::from_slice(&[place]);
    }
    let mut left = SmallVec::new();
    for (from, until) in [(from, start.max(from)), (end.min(until), until)] {
        if from < until {
            let address = Address { offset_units: from, ..place.address };
            left.push(Place { address, capacity_units: until - from });
        }
    }
    left
}

const fn end_of(place: Place) -> u32 {
    place.address.offset_units.saturating_add(place.capacity_units)
}

/// What of `before` no place of `after` uses.
fn no_longer_used(before: &[Place], after: &[Place]) -> SmallVec<[Place; 2]> {
    let mut freed = SmallVec::new();
    for place in before {
        let keeps = after.iter().find(|kept| kept.address == place.address);
        match keeps.map_or(0, |kept| kept.capacity_units) {
            0 => freed.push(*place),
            keep if keep < place.capacity_units => {
                let mut rest = *place;
                rest.address.offset_units += keep;
                rest.capacity_units -= keep;
                freed.push(rest);
            }
            _ => {}
        }
    }
    freed
}
