//! Staging: what an edit does, decided and written down as a record. No IO on the log.

use super::disk::Disk;
use super::error::{StoreError, StoreResult};
use super::mount::{Body, Mount, PutRequest, Staged, StagedEdit};
use super::options::Reserve;
use crate::cluster::version::{Edit as EditKind, next_version};
use crate::format::chunkfile::FIRST_SLOT_UNITS;
use crate::format::file_id::{ObjectId, ObjectKind};
use crate::format::ids::{Place, Position, Sequence, Tag, Token, UNIT, Version};
use crate::format::record::{Edit, Record, Replaced, SlotImage};
use crate::format::slot::{
    Body as SlotBody, HEADER_UNITS, Role, SlotHeader, State, Stay, slot_len, units,
};
use bytes::Bytes;
use rand::Rng;
use smallvec::SmallVec;

/// Vector entries that a slot is made for: the own entry and two others need no room of their own.
const VECTOR_ROOM: usize = 3;

/// Bytes of record besides the payload, at most.
const RECORD_OVERHEAD: usize = 1024;

/// Where the content of an edit goes.
struct Target {
    /// Of the home header.
    body: SlotBody,
    /// Room that the home keeps.
    home_units: u32,
    /// Slot of the content, if it is not the home.
    place: Option<Place>,
    /// Since when it is there; `None`: this edit moves there.
    since: Option<Sequence>,
    freed: SmallVec<[Place; 2]>,
    freed_single: Option<Position>,
    rename_single: bool,
    payload: Bytes,
    payload_crc: u32,
    length: u64,
}

impl<D: Disk> Mount<D> {
    /// Stores a new object.
    ///
    /// # Errors
    /// `NoSpace` when the reserve would be eaten; `Fenced`.
    pub fn stage_put(&mut self, request: PutRequest) -> StoreResult<Staged> {
        let length = request.body.length();
        let (kind, capacity, inline) = match &request.body {
            Body::Inline { .. } => {
                let reserve = request.reserve.unwrap_or(self.core.options.reserve);
                (ObjectKind::Chunk, self.capacity(reserve, length)?, length)
            }
            Body::Single(_) => (ObjectKind::Single, u64::from(HEADER_UNITS) * UNIT, 0),
        };
        self.admit(capacity)?;
        self.reserve_log(RECORD_OVERHEAD + to_usize(inline))?;
        let home = self.allocate(to_units(capacity), request.lane)?;
        let sequence = self.take_sequence();
        let creation = self.position(sequence);
        let now_ms = self.clock.now_ms();
        let (body, rename_single, payload, payload_crc) = match request.body {
            Body::Inline { bytes, crc } => (SlotBody::Inline, false, bytes, crc),
            Body::Single(single) => {
                (SlotBody::Single(single.content), true, Bytes::new(), single.crc)
            }
        };
        let header = SlotHeader {
            role: Role::Home,
            state: State::Live,
            body,
            mount: self.core.label.mount,
            creation,
            cookie: self.rng.random(),
            address: home.address,
            version: next_version(None, EditKind::Content, creation, true, false),
            token_client: request.token.client,
            token_sequence: request.token.sequence,
            kind,
            created_s: u32::try_from(now_ms / 1000).unwrap_or(u32::MAX),
            birth_units: home.capacity_units,
            modified_ms: now_ms,
            capacity_units: home.capacity_units,
            payload_crc,
            length,
            stay: Stay::default(),
        };
        let target = Target {
            body,
            home_units: home.capacity_units,
            place: None,
            since: None,
            freed: SmallVec::new(),
            freed_single: None,
            rename_single,
            payload,
            payload_crc,
            length,
        };
        Ok(self.push_edit(header, target, Replaced::Nothing, &request.token, sequence))
    }

    /// Replaces the content of an object. The id stays.
    ///
    /// # Errors
    /// `NotFound`, `Precondition`, `NoSpace` (the old version is intact), `Damaged`, `Fenced`.
    pub fn stage_modify(
        &mut self,
        id: &ObjectId,
        token: Token,
        body: Body,
        if_opver: Option<Tag>,
    ) -> StoreResult<Staged> {
        let inline = if let Body::Inline { bytes, .. } = &body { bytes.len() } else { 0 };
        self.reserve_log(RECORD_OVERHEAD + inline)?;
        let old = self.current(id)?;
        check_opver(&old, if_opver)?;
        if old.state != State::Live {
            return Err(StoreError::NotFound { deleted: old.state == State::Deleted });
        }
        let target = self.place_content(&old, body)?;
        let sequence = self.take_sequence();
        let header = self.next_header(&old, EditKind::Content, &token, sequence, State::Live);
        Ok(self.push_edit(header, target, Replaced::Live(old.length), &token, sequence))
    }

    /// Deletes an object: a version with a tombstone. The payload stays until the purge.
    ///
    /// # Errors
    /// `NotFound`, `Precondition`, `Damaged`, `Fenced`.
    pub fn stage_delete(
        &mut self,
        id: &ObjectId,
        token: Token,
        if_opver: Option<Tag>,
    ) -> StoreResult<Staged> {
        self.reserve_log(2 * RECORD_OVERHEAD)?;
        let old = self.current(id)?;
        check_opver(&old, if_opver)?;
        if old.state != State::Live {
            return Err(StoreError::NotFound { deleted: old.state == State::Deleted });
        }
        let target = self.keep_content(&old)?;
        let sequence = self.take_sequence();
        let header = self.next_header(&old, EditKind::Delete, &token, sequence, State::Deleted);
        let replaced = Replaced::Live(old.length);
        let staged = self.push_edit(header, target, replaced, &token, sequence);
        if self.core.options.undelete_window_ms == 0 && id.machine == self.core.label.machine {
            // No window: the purge goes into the same batch.
            self.stage_purge(id)?;
        }
        Ok(staged)
    }

    /// Brings a deleted object back, with its last content.
    ///
    /// # Errors
    /// `NotDeleted` when it is live or purged, `NotFound`, `Damaged`, `Fenced`.
    pub fn stage_undelete(&mut self, id: &ObjectId, token: Token) -> StoreResult<Staged> {
        if self.overlay.contains_key(&id.home().address) {
            // The content may still be in the batch.
            self.commit()?;
        }
        let old = self.current(id)?;
        match old.state {
            State::Deleted => {}
            State::Live => return Err(StoreError::NotDeleted("the object is not deleted")),
            State::Purged => {
                return Err(StoreError::NotDeleted("the object was purged: its content is gone"));
            }
        }
        let mut target = Target::unchanged(&old);
        if let SlotBody::Single(content) = old.body
            && !self.place_content_file(content)?
        {
            return Err(StoreError::Damaged(
                "the deleted content is not on this mirror".to_owned(),
            ));
        }
        // The record carries the payload, so that a mirror which lost the place can apply it.
        if let Some(place) = content_place(&old) {
            let Some((content, payload)) = self.core.slot_at(place)? else {
                return Err(StoreError::Damaged("the deleted content cannot be read".to_owned()));
            };
            if content.cookie != old.cookie || content.payload_crc != old.payload_crc {
                return Err(StoreError::Damaged("the deleted content is not the object's".into()));
            }
            target.payload = Bytes::from(payload);
            target.place = (place.address != old.address)
                .then_some(Place { capacity_units: content.capacity_units, ..place });
            target.since = Some(content.stay.since);
        }
        self.reserve_log(RECORD_OVERHEAD + target.payload.len())?;
        let sequence = self.take_sequence();
        let header = self.next_header(&old, EditKind::Undelete, &token, sequence, State::Live);
        Ok(self.push_edit(header, target, Replaced::Deleted(old.length), &token, sequence))
    }

    /// Ends the undelete window of a deleted object: header and content enter the waits of R12.
    ///
    /// # Errors
    /// `NotDeleted`, `NotFound`, `Fenced`.
    pub fn stage_purge(&mut self, id: &ObjectId) -> StoreResult<Staged> {
        self.reserve_log(RECORD_OVERHEAD)?;
        let old = self.current(id)?;
        if old.state != State::Deleted {
            return Err(StoreError::NotDeleted("only a deleted object is purged"));
        }
        let mut target = Target::unchanged(&old);
        target.body = SlotBody::None;
        target.length = 0;
        target.payload_crc = 0;
        target.freed.push(old.place());
        match old.body {
            SlotBody::Single(content) => target.freed_single = Some(content),
            SlotBody::Slot(_) => target.freed.extend(self.moved_place(&old)?),
            SlotBody::Inline | SlotBody::None => {}
        }
        let sequence = self.take_sequence();
        let token = Token::default();
        let header = self.next_header(&old, EditKind::Purge, &token, sequence, State::Purged);
        Ok(self.push_edit(header, target, Replaced::Deleted(old.length), &token, sequence))
    }

    /// The home header of an object as this batch leaves it.
    pub(super) fn current(&mut self, id: &ObjectId) -> StoreResult<SlotHeader> {
        self.check_fence()?;
        let home = id.home();
        if id.mount != self.core.label.mount || !self.core.knows_log(id.creation()) {
            return Err(StoreError::Foreign { machine: id.machine, log_id: id.log_id });
        }
        let found = match self.overlay.get(&home.address) {
            Some(header) => Some(header.clone()),
            None => self.core.header_at(home)?,
        };
        match found {
            Some(header) if header.is_object(id) && header.role == Role::Home => Ok(header),
            Some(header) => Err(self.not_the_object(id, &header)?),
            None => Err(self.no_header(id)?),
        }
    }

    /// Vector entries of the next version of an object, at most.
    fn entries_after(&self, old: &SlotHeader) -> usize {
        let pruned = self.all_cover(&old.version);
        if pruned { VECTOR_ROOM } else { VECTOR_ROOM.max(old.version.vector.len() + 1) }
    }

    /// The content of a delete stays where it is, unless the header grows over it.
    fn keep_content(&mut self, old: &SlotHeader) -> StoreResult<Target> {
        let mut target = Target::unchanged(old);
        let needed = slot_len(old.length, self.entries_after(old));
        let begins = needed - old.length;
        if old.body != SlotBody::Inline || begins <= old.payload_offset() as u64 {
            return Ok(target);
        }
        if self.overlay.contains_key(&old.address) {
            self.commit()?;
        }
        let Some((_, payload)) = self.core.slot_at(old.place())? else {
            return Err(StoreError::Damaged("the deleted content cannot be read".to_owned()));
        };
        self.reserve_log(2 * RECORD_OVERHEAD + payload.len())?;
        target.payload = Bytes::from(payload);
        self.place_inline(old, needed, &mut target)?;
        Ok(target)
    }

    /// Decides where new content of a live object goes.
    fn place_content(&mut self, old: &SlotHeader, body: Body) -> StoreResult<Target> {
        let mut target = Target::unchanged(old);
        target.length = body.length();
        match body {
            Body::Single(single) => {
                target.body = SlotBody::Single(single.content);
                target.payload_crc = single.crc;
                target.rename_single = true;
                self.leave(old, &mut target)?;
            }
            Body::Inline { bytes, crc } => {
                let needed = slot_len(bytes.len() as u64, self.entries_after(old));
                target.payload = bytes;
                target.payload_crc = crc;
                self.place_inline(old, needed, &mut target)?;
            }
        }
        Ok(target)
    }

    fn place_inline(
        &mut self,
        old: &SlotHeader,
        needed: u64,
        target: &mut Target,
    ) -> StoreResult<()> {
        let moved = self.moved_slot(old)?;
        let here = match old.body {
            SlotBody::Inline => Some(old.place()),
            SlotBody::Slot(_) => moved.as_ref().map(SlotHeader::place),
            SlotBody::Single(_) | SlotBody::None => None,
        };
        let wanted = self.capacity(self.core.options.reserve, target.length)?.max(needed);
        if let Some(here) = here.filter(|place| needed <= place.capacity()) {
            let keep = if needed * 2 < here.capacity() {
                to_units(wanted).min(here.capacity_units)
            } else {
                here.capacity_units
            };
            if keep < here.capacity_units {
                target.freed.push(tail(here, keep));
            }
            if here.address == old.address {
                target.home_units = keep;
            } else {
                target.place = Some(Place { capacity_units: keep, ..here });
                target.since = moved.map(|moved| moved.stay.since);
            }
            return Ok(());
        }
        let place = self.allocate(to_units(wanted), 0)?;
        self.leave(old, target)?;
        target.body = SlotBody::Slot(place.address);
        target.place = Some(place);
        Ok(())
    }

    /// The content leaves where it was: the home keeps its header, the rest is freed.
    fn leave(&mut self, old: &SlotHeader, target: &mut Target) -> StoreResult<()> {
        match old.body {
            SlotBody::Inline => {
                let keep = to_units(slot_len(0, VECTOR_ROOM));
                if keep < old.capacity_units {
                    target.freed.push(tail(old.place(), keep));
                    target.home_units = keep;
                }
            }
            SlotBody::Slot(_) => target.freed.extend(self.moved_place(old)?),
            SlotBody::Single(content) => target.freed_single = Some(content),
            SlotBody::None => {}
        }
        Ok(())
    }

    /// The room of the slot that a home forwards to.
    pub(super) fn moved_place(&mut self, home: &SlotHeader) -> StoreResult<Option<Place>> {
        Ok(self.moved_slot(home)?.as_ref().map(SlotHeader::place))
    }

    /// The slot that a home forwards to.
    fn moved_slot(&mut self, home: &SlotHeader) -> StoreResult<Option<SlotHeader>> {
        let SlotBody::Slot(address) = home.body else { return Ok(None) };
        let place = Place { address, capacity_units: 0 };
        let found = match self.overlay.get(&address) {
            Some(header) => Some(header.clone()),
            None => self.core.header_at(place)?,
        };
        match found {
            Some(header) if header.cookie == home.cookie && header.creation == home.creation => {
                Ok(Some(header))
            }
            Some(_) | None => {
                // The content is damaged or lost. The edit replaces it; its place stays out of use.
                tracing::warn!(?address, "a forward leads to no slot of its object");
                Ok(None)
            }
        }
    }

    fn next_header(
        &mut self,
        old: &SlotHeader,
        kind: EditKind,
        token: &Token,
        sequence: Sequence,
        state: State,
    ) -> SlotHeader {
        let position = self.position(sequence);
        let take_over = old.creation.machine != position.machine;
        let pruned = self.all_cover(&old.version);
        let version: Version = next_version(Some(&old.version), kind, position, pruned, take_over);
        SlotHeader {
            state,
            version,
            token_client: token.client,
            token_sequence: token.sequence,
            modified_ms: self.clock.now_ms(),
            ..old.clone()
        }
    }

    /// Writes an edit down. Cannot fail: everything that can was done before the sequence was taken.
    fn push_edit(
        &mut self,
        mut home: SlotHeader,
        target: Target,
        replaced: Replaced,
        token: &Token,
        sequence: Sequence,
    ) -> Staged {
        home.body = target.body;
        home.capacity_units = target.home_units;
        home.length = target.length;
        home.payload_crc = target.payload_crc;
        let moved = target.place.map(|place| SlotHeader {
            role: Role::Target,
            body: SlotBody::Inline,
            address: place.address,
            capacity_units: place.capacity_units,
            stay: Stay {
                // Whoever moves somewhere moves into a place of his own: the sequence is one of the place's log.
                since: target.since.unwrap_or(sequence),
                home_chunk: home.address.chunk,
                home_units: home.address.offset_units,
            },
            ..home.clone()
        });
        let edit = Edit {
            token_lowest: token.lowest_unanswered,
            token_issued_ms: token.issued_ms,
            replaced,
            rename_single: target.rename_single,
            has_payload: !target.payload.is_empty() || target.place.is_some(),
            freed: target.freed,
            freed_single: target.freed_single,
            home: self.image(&home),
            target: moved.as_ref().map(|m| self.image(m)),
        };
        let payload_crc = if target.payload.is_empty() { 0 } else { target.payload_crc };
        let record = Record::Edit(edit);
        self.push_record(&record, sequence, target.payload.clone(), payload_crc);
        let staged = Staged { sequence, id: home.object_id(), tag: home.version.tag };
        if let Record::Edit(edit) = record {
            self.answers.extend(super::core::answer_of(&edit, &home));
            self.overlay.insert(home.address, home.clone());
            if let Some(moved) = moved {
                self.overlay.insert(moved.address, moved);
            }
            self.staged.push(StagedEdit { edit, home, payload: target.payload, sequence });
        }
        staged
    }

    fn image(&mut self, header: &SlotHeader) -> SlotImage {
        let secret = self.core.chunks.known_secret(header.address.chunkfile());
        if secret.is_none() {
            // Its header was read or its place allocated just before, so this is a bug; fail closed.
            self.fenced = Some(format!("no secret for {:?}", header.address));
        }
        let secret = secret.unwrap_or_default();
        SlotImage { address: header.address, header: SmallVec::from_vec(header.encode(&secret)) }
    }

    fn capacity(&self, reserve: Reserve, length: u64) -> StoreResult<u64> {
        let largest = self.core.options.chunkfile_size - u64::from(FIRST_SLOT_UNITS) * UNIT;
        let needed = slot_len(length, VECTOR_ROOM);
        if needed > largest || length > self.core.options.single_file_threshold {
            return Err(StoreError::TooLarge { length });
        }
        Ok(reserve.capacity(length, VECTOR_ROOM).clamp(needed, largest.max(needed)))
    }
}

impl Target {
    /// Nothing moves and no payload is carried.
    fn unchanged(old: &SlotHeader) -> Self {
        Self {
            body: old.body,
            home_units: old.capacity_units,
            place: None,
            since: None,
            freed: SmallVec::new(),
            freed_single: None,
            rename_single: false,
            payload: Bytes::new(),
            payload_crc: old.payload_crc,
            length: old.length,
        }
    }
}

/// The slot with the content behind a header, if it is in a slot at all.
const fn content_place(home: &SlotHeader) -> Option<Place> {
    match home.body {
        SlotBody::Inline => Some(home.place()),
        SlotBody::Slot(address) => Some(Place { address, capacity_units: 0 }),
        SlotBody::Single(_) | SlotBody::None => None,
    }
}

/// What is left of a place behind its first `keep` units.
fn tail(place: Place, keep: u32) -> Place {
    let mut rest = place;
    rest.address.offset_units += keep;
    rest.capacity_units -= keep;
    rest
}

fn check_opver(current: &SlotHeader, if_opver: Option<Tag>) -> StoreResult<()> {
    match if_opver {
        Some(wanted) if wanted != current.version.tag => {
            Err(StoreError::Precondition { current: current.version.tag })
        }
        Some(_) | None => Ok(()),
    }
}

fn to_units(bytes: u64) -> u32 {
    u32::try_from(units(bytes)).unwrap_or(u32::MAX)
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
