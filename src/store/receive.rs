//! What arrives from mirrors: made durable in synclogs, then applied by the rules of design section 5.
//!
//! Invariants
//! - A slice is applied only after it is durable here, and what it needs (chunkfiles, blocks, contents of large
//!   objects, room in the logs) is there before it is taken; so a full disk refuses it whole, and is no failed one.
//! - A record that makes no sense is put aside and reported; the rest goes on.

use super::content::read_footer;
use super::core::answer_of;
use super::disk::{Disk, Open};
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use super::sync::{LogName, LogSlice, Received};
use super::take::{Incoming, SETTLED_MAX};
use crate::format::conflict::Conflict;
use crate::format::ids::{Position, Sequence};
use crate::format::log::{RawRecord, Records};
use crate::format::paths;
use crate::format::record::{ChunkfileCreated, Edit, Record};
use crate::format::slot::{Body, Role};
use bytes::Bytes;
use std::io::ErrorKind;

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
        // What a mirror has of our log may run on into this start, whose records nobody has to bring.
        let end = if own { self.core.label.first_sequence() } else { Sequence::MAX };
        if slice.to <= have || slice.from >= end {
            return Ok(Admitted::Not(Received::Covered(have)));
        }
        if slice.from > have {
            return Ok(Admitted::Not(Received::Gap(have)));
        }
        let admitted = self.admit_records(slice, have, end);
        let admitted = admitted.and_then(|admitted| self.ready_logs(slice.log, admitted));
        match admitted {
            Ok(admitted) => Ok(admitted),
            Err(StoreError::Io { error, what }) if is_full(&error) => {
                Ok(Admitted::Not(Received::Broken(format!("no space: {what}"))))
            }
            Err(StoreError::NoSpace { .. }) => {
                Ok(Admitted::Not(Received::Broken("no space for our own log".to_owned())))
            }
            Err(error) => Err(error),
        }
    }

    /// Room for what is taken, in the synclog and for what our own log will say of it: nothing may fail for lack of space
    /// from here on.
    fn ready_logs(&mut self, log: LogName, admitted: Admitted) -> StoreResult<Admitted> {
        let (from, records) = match &admitted {
            Admitted::Take { from, records, .. } => (*from, records),
            Admitted::TakeSome { from, to, records, .. } if to > from => (*from, records),
            Admitted::TakeSome { .. } | Admitted::Not(_) => return Ok(admitted),
        };
        self.ready_synclog(log, from, records.len())?;
        let said = Records::new(records).flatten().count().saturating_mul(SETTLED_MAX);
        let most = usize::try_from(self.log.body_max()).unwrap_or(usize::MAX);
        self.reserve_log(said.min(most))?;
        Ok(admitted)
    }

    fn admit_records(
        &mut self,
        slice: &LogSlice,
        have: Sequence,
        end: Sequence,
    ) -> StoreResult<Admitted> {
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
            if raw.sequence >= end {
                let records = slice.records.slice(skip..at);
                return Ok(match good > have {
                    true => Admitted::Take { from: have, to: good, records },
                    false => Admitted::Not(Received::Covered(have)),
                });
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
        let to = if slice.to >= end { good } else { slice.to };
        if to <= have {
            return Ok(Admitted::Not(Received::Covered(have)));
        }
        Ok(Admitted::Take { from: have, to, records })
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
                    // Also of a delete: what it keeps for an undelete may have been given up here for a concurrent edit.
                    Body::Single(content) if !self.need_not_fetch(content)? => {
                        Ok(Some((content, home.length)))
                    }
                    Body::Inline | Body::Slot(_) | Body::Single(_) | Body::None => Ok(None),
                }
            }
            Ok(Some(Record::Archived(lost @ Conflict { single: Some(content), length, .. })))
                if !self.core.is_dropped(&lost)? =>
            {
                let kept = paths::conflict_single(content);
                let found = self.core.disk.stat(&kept);
                let found = found.map_err(StoreError::io(format!("stat {kept}")))?.is_some();
                Ok((!found && !self.need_not_fetch(content)?).then_some((content, length)))
            }
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// No mirror has this content any more, because a later version of its object stands: the records that are waiting for
    /// it are applied without it.
    pub fn content_is_gone(&mut self, content: Position) {
        /// A mirror that says so of more is not believed for ever.
        const GONE_MAX: usize = 1 << 16;
        if self.gone_contents.len() >= GONE_MAX {
            self.gone_contents.clear();
        }
        self.gone_contents.insert(content);
    }

    /// What was waiting for it has been applied; for whatever else names it somebody may have it all the same. What other
    /// logs bring meanwhile changes nothing: a busy mirror would send whoever waits back to ask for ever.
    pub(super) fn waited_for(&mut self, content: Position) {
        self.gone_contents.remove(&content);
    }

    /// Whether a record that names this content may be applied: it is here, or nobody has it any more.
    pub(super) fn need_not_fetch(&self, content: Position) -> StoreResult<bool> {
        Ok(self.gone_contents.contains(&content) || self.has_content(content)?)
    }

    /// Whether the content of a large object is here, in place or on its way in.
    pub(super) fn has_content(&self, content: Position) -> StoreResult<bool> {
        let place = paths::single(content);
        let found = self.core.disk.stat(&place);
        if found.map_err(StoreError::io(format!("stat {place}")))?.is_some() {
            return Ok(true);
        }
        self.has_content_coming(content)
    }

    /// Whether a copy that names this content may be taken although there is no good file in its place.
    pub(super) fn is_coming_or_gone(&self, content: Position) -> StoreResult<bool> {
        Ok(self.gone_contents.contains(&content) || self.has_content_coming(content)?)
    }

    /// Whether a whole content waits under the name of one that is on its way in, or can be had from the archive.
    fn has_content_coming(&self, content: Position) -> StoreResult<bool> {
        Ok(self.is_complete_temporary(content)? || self.take_from_archive(content)?)
    }

    /// Whether a content has arrived and is not in place yet. What is still arriving has no footer: somebody else may
    /// bring the record before the rest of it came.
    pub(super) fn is_complete_temporary(&self, content: Position) -> StoreResult<bool> {
        let tmp = paths::single_tmp(content);
        let footer = match self.core.disk.open(&tmp, Open::Read) {
            Ok(file) => read_footer(&file),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => Err(error),
        };
        let footer = footer.map_err(StoreError::io(format!("read {tmp}")))?;
        let mount = self.core.label.mount;
        Ok(footer.is_some_and(|f| f.content == content && f.mount == mount))
    }

    /// Has the content that a losing version left in the archive once more under the name of one that is on its way in.
    fn take_from_archive(&self, content: Position) -> StoreResult<bool> {
        let (kept, tmp) = (paths::conflict_single(content), paths::single_tmp(content));
        let disk = &self.core.disk;
        let io = |what: &str| StoreError::io(format!("{what} {kept}"));
        if disk.stat(&kept).map_err(io("stat"))?.is_none() {
            return Ok(false);
        }
        super::single_writer::remove_temp(disk, content);
        match disk.link(&kept, &tmp) {
            Ok(()) => disk.sync_dir(paths::SINGLES_TMP).map(|()| true).map_err(io("link")),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(io("link")(e)),
        }
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
        // The folders above it are durable when they are created.
        let path = paths::chunk(created.id);
        self.core.chunks.create(created, true).map_err(StoreError::io(format!("create {path}")))
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
            Ok(Some(Record::Archived(lost))) => {
                self.core.archive(&lost, raw.payload)?;
                lost.single.into_iter().for_each(|content| self.waited_for(content));
                Ok(())
            }
            Ok(Some(Record::Dropped(dropped))) => self.core.drop_archived(&dropped),
            Ok(Some(Record::Forgotten(forgotten))) if forgotten.at == at => {
                self.learn_forgotten(&forgotten)
            }
            Ok(Some(Record::Forgotten(_))) => {
                self.put_aside(at, "it is not the removal that it carries");
                Ok(())
            }
            // It only says that there is a log: the coverage names it from now on.
            Ok(Some(Record::Begun(_))) => Ok(()),
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
                self.core.keep_unapplied(edit);
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
        self.take_version(&incoming)?;
        if let Body::Single(content) = home.body {
            self.waited_for(content);
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
