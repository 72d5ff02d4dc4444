//! What arrives from mirrors: made durable in synclogs, then applied by the rules of design section 5.
//!
//! Invariants
//! - A slice is applied only after it is durable here, and what it needs (chunkfiles, blocks, contents of large
//!   objects) is there before it is taken; so a full disk refuses it whole.
//! - Applying is idempotent, and commutes: any order of the same records ends in the same slots.
//! - A version that loses a conflict is durable in the archive, and in our log, before its slot is overwritten (P4).
//! - Space in our chunkfiles is accounted for by our own log only ([`Settled`]).
//! - A record that makes no sense is put aside and reported; the rest goes on.

use super::content::read_footer;
use super::core::{answer_of, is_newer_home};
use super::disk::{Disk, Open};
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use super::sync::{LogName, LogSlice, Received};
use crate::cluster::version::{Decision, Winner, compare};
use crate::format::conflict::Conflict;
use crate::format::ids::{Place, Position, Sequence};
use crate::format::log::{RawRecord, Records};
use crate::format::paths;
use crate::format::record::{ChunkfileCreated, Edit, Record, Replaced, Settled};
use crate::format::slot::{Body, Role, SlotHeader, State};
use bytes::Bytes;
use smallvec::SmallVec;
use std::io::ErrorKind;

/// Bytes of a record about our own accounts, at most.
const SETTLED_MAX: usize = 512;

/// What stands at the home of an object.
enum Tenant {
    /// The object.
    Same(Box<SlotHeader>),
    /// Nothing, or somebody who has to give way.
    None,
    /// Who came after it.
    Newer,
}

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
    /// Takes slices of other logs: durable and applied when it returns.
    ///
    /// # Errors
    /// [`StoreError::Fenced`]: the mount has failed; whatever was not acknowledged before may be sent again.
    pub fn receive(&mut self, slices: &[LogSlice]) -> StoreResult<Vec<Received>> {
        self.check_fence()?;
        self.commit()?;
        match self.receive_all(slices) {
            Ok(received) => Ok(received),
            Err(error) => {
                self.fence(error.to_string());
                Err(StoreError::Fenced(error.to_string()))
            }
        }
    }

    fn receive_all(&mut self, slices: &[LogSlice]) -> StoreResult<Vec<Received>> {
        let mut answers = Vec::with_capacity(slices.len());
        let mut taken: Vec<(LogName, Sequence, Bytes)> = Vec::new();
        // Up to where each log is on its way.
        let mut reached = self.received.coverage.clone();
        for slice in slices {
            let answer = match self.admit_slice(slice, &reached)? {
                Admitted::Take { to, records, from } => {
                    self.append_slice(slice.log, from, to, &records)?;
                    reached.raise(slice.log.at(to));
                    taken.push((slice.log, to, records));
                    Received::Covered(to)
                }
                Admitted::TakeSome { to, records, from, content, length } => {
                    if to > from {
                        self.append_slice(slice.log, from, to, &records)?;
                        reached.raise(slice.log.at(to));
                        taken.push((slice.log, to, records));
                    }
                    Received::NeedsContent { covered: to.max(from), content, length }
                }
                Admitted::Not(answer) => answer,
            };
            answers.push(answer);
        }
        let mut logs: Vec<LogName> = taken.iter().map(|(log, ..)| *log).collect();
        logs.sort_unstable();
        logs.dedup();
        for log in logs {
            if let Some(open) = self.received.logs.get(&log) {
                open.sync(&self.core.options)?;
            }
        }
        for (log, to, records) in taken {
            for raw in Records::new(&records).flatten() {
                self.apply_received(log.at(raw.sequence), &raw, false)?;
            }
            self.note_covered(log.at(to));
        }
        self.commit()?;
        self.settle();
        Ok(answers)
    }

    fn note_covered(&mut self, position: Position) {
        if LogName::of(position) == self.own_log() {
            self.own_former = self.own_former.max(position.sequence);
        } else {
            self.received.coverage.raise(position);
        }
        let heard = std::mem::take(&mut self.heard);
        self.tokens.answered(&heard);
    }

    fn append_slice(
        &mut self,
        log: LogName,
        from: Sequence,
        to: Sequence,
        records: &[u8],
    ) -> StoreResult<()> {
        self.ready_synclog(log, from, records.len())?;
        let (mut count, mut first) = (0, to);
        for raw in Records::new(records).flatten() {
            if count == 0 {
                first = raw.sequence;
            }
            count += 1;
        }
        match self.received.logs.get_mut(&log) {
            Some(open) => open.append_received(records, count, first, to, from),
            None => Ok(()),
        }
    }

    /// Looks whether a slice can be taken, and makes ready what it needs.
    fn admit_slice(
        &mut self,
        slice: &LogSlice,
        reached: &crate::cluster::coverage::Coverage,
    ) -> StoreResult<Admitted> {
        let own = slice.log == self.own_log();
        let have = if own { self.own_former } else { slice.log.covered_by(reached) };
        if own && slice.to >= self.core.label.first_sequence() {
            let why = "a mirror sends this start's own records back".to_owned();
            return Ok(Admitted::Not(Received::Broken(why)));
        }
        if slice.to <= have {
            return Ok(Admitted::Not(Received::Covered(have)));
        }
        if slice.from > have {
            return Ok(Admitted::Not(Received::Gap(have)));
        }
        match self.admit_records(slice, have) {
            Ok(admitted) => Ok(admitted),
            Err(StoreError::Io { error, what }) if is_full(&error) => {
                Ok(Admitted::Not(Received::Broken(format!("no space: {what}"))))
            }
            Err(error) => Err(error),
        }
    }

    fn admit_records(&mut self, slice: &LogSlice, have: Sequence) -> StoreResult<Admitted> {
        for created in &slice.chunkfiles {
            self.ensure_chunkfile(created)?;
        }
        let broken = |why: &str| Ok(Admitted::Not(Received::Broken(why.to_owned())));
        let (mut last, mut skip, mut at, mut good) = (slice.from, 0, 0, have);
        for raw in Records::new(&slice.records) {
            let Ok(raw) = raw else { return broken("a record's checksum is wrong") };
            if raw.sequence <= last || raw.sequence > slice.to {
                return broken("records are out of order");
            }
            let bytes = record_len(&raw);
            last = raw.sequence;
            at += bytes;
            if raw.sequence <= have {
                skip = at;
                continue;
            }
            if let Some((content, length)) = self.ready_record(&raw)? {
                let records = slice.records.slice(skip.min(at - bytes)..at - bytes);
                return Ok(Admitted::TakeSome { from: have, to: good, records, content, length });
            }
            good = raw.sequence;
        }
        if at != slice.records.len() {
            return broken("there are bytes behind the records");
        }
        let records = slice.records.slice(skip..);
        Ok(Admitted::Take { from: have, to: slice.to, records })
    }

    /// Makes ready what applying a record needs; the content that is missing, if one is.
    fn ready_record(&mut self, raw: &RawRecord<'_>) -> StoreResult<Option<(Position, u64)>> {
        match Record::decode(raw.kind, raw.head) {
            Ok(Some(Record::Chunkfile(created))) => {
                self.ensure_chunkfile(&created)?;
                Ok(None)
            }
            Ok(Some(Record::Edit(edit))) => {
                // What makes no sense is put aside when it is applied.
                let Ok((home, _)) = self.core.headers_of(&edit) else { return Ok(None) };
                if let Some(target) = &edit.target {
                    self.core.ensure_allocated(target, raw.payload.len())?;
                }
                let inline = if edit.target.is_none() { raw.payload.len() } else { 0 };
                self.core.ensure_allocated(&edit.home, inline)?;
                match home.body {
                    Body::Single(content)
                        if edit.rename_single && !self.has_content(content)? =>
                    {
                        Ok(Some((content, home.length)))
                    }
                    Body::Inline | Body::Slot(_) | Body::Single(_) | Body::None => Ok(None),
                }
            }
            Ok(Some(Record::Archived(Conflict { single: Some(content), length, .. }))) => {
                let kept = paths::conflict_single(content);
                let found = self.core.disk.stat(&kept);
                let found = found.map_err(StoreError::io(format!("stat {kept}")))?.is_some();
                Ok((!found && !self.has_content(content)?).then_some((content, length)))
            }
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// No mirror has this content any more, because a later version of its object stands: records that name it are
    /// applied without it.
    pub fn content_is_gone(&mut self, content: Position) {
        /// A mirror that says so of more is not believed for ever.
        const GONE_MAX: usize = 1 << 16;
        if self.gone_contents.len() >= GONE_MAX {
            self.gone_contents.clear();
        }
        self.gone_contents.insert(content);
    }

    /// Whether the content of a large object is here, in place or on its way in.
    pub(super) fn has_content(&self, content: Position) -> StoreResult<bool> {
        if self.gone_contents.contains(&content) {
            return Ok(true);
        }
        let place = paths::single(content);
        let found = self.core.disk.stat(&place);
        if found.map_err(StoreError::io(format!("stat {place}")))?.is_some() {
            return Ok(true);
        }
        // What is still arriving has no footer yet: somebody else may bring the record before the rest of it came.
        let tmp = paths::single_tmp(content);
        let footer = match self.core.disk.open(&tmp, Open::Read) {
            Ok(file) => read_footer(&file),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let footer = footer.map_err(StoreError::io(format!("read {tmp}")))?;
        let mount = self.core.label.mount;
        Ok(footer.is_some_and(|f| f.content == content && f.mount == mount))
    }

    /// Makes sure that a chunkfile of another machine is here, durably.
    pub(super) fn ensure_chunkfile(&mut self, created: &ChunkfileCreated) -> StoreResult<()> {
        if self.core.chunks.find(created.id)? {
            return Ok(());
        }
        if self.core.is_ours(created.id) {
            // Ours are made by us only; a record for one that we do not have is put aside.
            return Ok(());
        }
        let path = paths::chunk(created.id);
        self.core.chunks.create(created, true).map_err(StoreError::io(format!("create {path}")))?;
        // The folders above it may be new, too.
        let mut folder = paths::folder(&path);
        while !folder.is_empty() {
            folder = paths::folder(folder);
            let synced = self.core.disk.sync_dir(folder);
            synced.map_err(StoreError::io(format!("make durable a folder of {path}")))?;
        }
        Ok(())
    }

    /// Applies a record of another log that is durable here.
    pub(super) fn apply_received(
        &mut self,
        at: Position,
        raw: &RawRecord<'_>,
        again: bool,
    ) -> StoreResult<()> {
        match Record::decode(raw.kind, raw.head) {
            Ok(Some(Record::Edit(edit))) => self.apply_edit(at, &edit, raw.payload, again),
            Ok(Some(Record::Chunkfile(created))) => self.ensure_chunkfile(&created),
            Ok(Some(Record::Archived(lost))) => self.core.archive(&lost, raw.payload).map(|_| ()),
            Ok(Some(Record::Dropped(dropped))) => self.core.drop_archived(&dropped),
            Ok(Some(Record::Settled(_) | Record::Image(_) | Record::Reached(_))) => {
                self.put_aside(at, "it should not have left its machine");
                Ok(())
            }
            Ok(None) => {
                self.put_aside(at, "its kind is not known here");
                Ok(())
            }
            Err(_) => {
                self.put_aside(at, "it cannot be read");
                Ok(())
            }
        }
    }

    fn put_aside(&mut self, at: Position, why: &str) {
        self.quarantined += 1;
        let (machine, log_id, sequence) = (at.machine, at.log_id, at.sequence);
        let what = format!(
            "record {sequence:x} of log {log_id:08x} of machine {machine} is put aside: {why}"
        );
        tracing::error!(mount = self.core.label.mount, "{what}");
        self.core.warnings.push(what);
    }

    fn apply_edit(
        &mut self,
        at: Position,
        edit: &Edit,
        payload: &[u8],
        again: bool,
    ) -> StoreResult<()> {
        let (home, _) = match self.core.headers_of(edit) {
            Ok(headers) => headers,
            Err(why) => {
                self.put_aside(at, &why);
                return Ok(());
            }
        };
        if home.edited_at() != at || home.role != Role::Home {
            self.put_aside(at, "it is not the edit that it carries");
            return Ok(());
        }
        self.heard.extend(answer_of(edit, &home));
        let incoming = Incoming { edit, home: &home, payload, at, again };
        self.take_version(&incoming)
    }

    /// Stores a version that arrives, or keeps the one that is here: the rules of design section 5.
    pub(super) fn take_version(&mut self, incoming: &Incoming<'_>) -> StoreResult<()> {
        let home = incoming.home;
        let old = match self.tenant(home)? {
            Tenant::Newer => return self.give_up_content(incoming),
            Tenant::None => return self.store_version(None, incoming, false),
            Tenant::Same(old) => old,
        };
        match compare(&old.version, &home.version) {
            Decision::Ignore => {
                if incoming.again {
                    self.count_again(&old, incoming)?;
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
            Decision::Conflict { winner } => {
                let retried = home.token_sequence != 0
                    && home.token_client == old.token_client
                    && home.token_sequence == old.token_sequence;
                match winner {
                    Winner::Incoming => {
                        let kept = !retried && self.archive_local(&old, incoming)?;
                        self.store_version(Some(&old), incoming, kept)
                    }
                    Winner::Local if retried => self.give_up_content(incoming),
                    Winner::Local => self.archive_incoming(incoming),
                }
            }
        }
    }

    /// The slot holds this version or a later one already: the killed process wrote it, perhaps after the checkpoint.
    fn count_again(&mut self, there: &SlotHeader, incoming: &Incoming<'_>) -> StoreResult<()> {
        let Incoming { edit, home, payload, .. } = *incoming;
        if there.version.tag == home.version.tag {
            self.core.note_edit_used(edit, home);
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
        if !self.core.rebuilt {
            self.core.count(edit.replaced, home);
        }
        self.core.note_tombstone(home);
        Ok(())
    }

    fn tenant(&mut self, home: &SlotHeader) -> StoreResult<Tenant> {
        Ok(match self.core.header_at(home.place())? {
            Some(there) if there.is_object(&home.object_id()) && there.role == Role::Home => {
                Tenant::Same(Box::new(there))
            }
            Some(there) if is_newer_home(&there, home) => Tenant::Newer,
            Some(_) | None => Tenant::None,
        })
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
        let replaced = old.map_or(Replaced::Nothing, |old| match old.state {
            State::Live => Replaced::Live(old.length),
            State::Deleted => Replaced::Deleted(old.length),
            State::Purged => Replaced::Purged,
        });
        self.core.count(replaced, home);
        self.core.note_tombstone(home);
        if let Some(Body::Single(content)) = old.map(|old| old.body)
            && home.body != Body::Single(content)
            && !old_is_kept
        {
            self.core.unlink_single(content)?;
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
        self.archive(old, Bytes::from(content), incoming.again)?;
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
        self.archive(home, Bytes::copy_from_slice(incoming.payload), incoming.again)
    }

    fn archive(&mut self, loser: &SlotHeader, content: Bytes, again: bool) -> StoreResult<()> {
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
        // After a restart the file may be there, and the record not: a second one does no harm.
        if !self.core.archive(&lost, &content)? && !again {
            return Ok(());
        }
        let object = lost.object;
        tracing::warn!(?object, edit = ?lost.tag, "two edits met: the older one is in the archive");
        self.reserve_log(SETTLED_MAX + content.len())?;
        let sequence = self.take_sequence();
        let crc = if content.is_empty() { 0 } else { lost.payload_crc };
        self.push_record(&Record::Archived(lost), sequence, content, crc);
        // Durable before the slot is overwritten.
        self.commit().map(|_| ())
    }

    /// Renames a content into place, if it is not there yet.
    fn place_content_file(&mut self, content: Position) -> StoreResult<()> {
        let tmp = paths::single_tmp(content);
        let found = self.core.disk.stat(&tmp).map_err(StoreError::io(format!("stat {tmp}")))?;
        if found.is_some() { self.core.place_single(content) } else { Ok(()) }
    }

    /// The content of a version that is not taken has no use.
    fn give_up_content(&mut self, incoming: &Incoming<'_>) -> StoreResult<()> {
        if let Body::Single(content) = incoming.home.body {
            super::single_writer::remove_temp(&self.core.disk, content);
        }
        Ok(())
    }
}

enum Admitted {
    /// All of it that is new.
    Take { from: Sequence, to: Sequence, records: Bytes },
    /// Up to the record whose content is missing.
    TakeSome { from: Sequence, to: Sequence, records: Bytes, content: Position, length: u64 },
    /// Nothing.
    Not(Received),
}

/// Bytes of a record in a body.
fn record_len(raw: &RawRecord<'_>) -> usize {
    use crate::format::log::{RECORD_HEADER_LEN, padding};
    let len = RECORD_HEADER_LEN + raw.head.len() + raw.payload.len();
    len + padding(len)
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Whether something would vanish with a losing version: not if it is a tombstone over the content that stands.
fn is_worth_keeping(loser: &SlotHeader, winner: &SlotHeader) -> bool {
    match loser.state {
        State::Live => true,
        State::Deleted => (loser.payload_crc, loser.length) != (winner.payload_crc, winner.length),
        State::Purged => false,
    }
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
