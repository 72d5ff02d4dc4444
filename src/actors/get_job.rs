//! A read that left its connection's thread: on a pool thread, or in line with the changes of its chunkfile.
//!
//! Invariants: it holds its share of the budget until its answer is written; it answers exactly once, also when it is
//! dropped; what is unsettled on a pool thread goes to the `ChunkFile` actor, and what is unsettled there is damage.

use super::ask_others::{Question, may_others_know};
use super::budget::Permit;
use super::download::Download;
use super::outbox::{Out, Outbox, RequestTag};
use super::problems;
use super::session::Problem;
use super::shared_mount::SharedMount;
use super::shelf::Shelf;
use super::task::Task;
use crate::format::crc::crc32c;
use crate::format::file_id::ObjectId;
use crate::format::ids::{Tag, UNIT};
use crate::format::slot::{Body, SlotHeader, State};
use crate::messages::error::ErrorCode;
use crate::messages::frame::{Meta, encode};
use crate::messages::heads::{INLINE_MAX, ObjectHead, ObjectKind, ObjectState, StatAnswer};
use crate::store::read::ReadError;
use crate::store::reader::{Content, Got};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// What is asked of an object.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// Its bytes.
    Get {
        /// First byte.
        first: u64,
        /// Last byte, inclusive.
        last: Option<u64>,
        /// This version or a later one.
        min_opver: Option<Tag>,
        /// Bytes of a stream that may be sent before the first window frame.
        window: u32,
    },
    /// What is known about it.
    Stat,
}

/// See the module.
pub struct GetJob {
    mount: Arc<SharedMount>,
    shelf: Arc<dyn Shelf>,
    id: ObjectId,
    ask: Ask,
    /// Others may answer what is not here.
    asks_others: bool,
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    to: Arc<Outbox>,
    tag: RequestTag,
    permit: Permit,
}

impl std::fmt::Debug for GetJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GetJob")
            .field("id", &self.id)
            .field("ask", &self.ask)
            .finish_non_exhaustive()
    }
}

/// The head of an answer, if the object has the version and the range that were asked for.
///
/// # Errors
/// `Behind`, `BadRange`.
pub fn object_head(
    home: &SlotHeader,
    first: u64,
    last: Option<u64>,
    min_opver: Option<Tag>,
) -> Result<ObjectHead, Problem> {
    let tag = home.version.tag;
    if min_opver.is_some_and(|least| tag < least) {
        return Err(Problem::new(ErrorCode::Behind, "the version asked for is not here yet"));
    }
    let length = home.length;
    let end = last.map_or(length, |last| last.saturating_add(1).min(length));
    let whole_of_nothing = first == 0 && length == 0;
    if (first >= length && !whole_of_nothing) || last.is_some_and(|last| last < first) {
        let asked = last.map_or_else(|| format!("{first}-"), |last| format!("{first}-{last}"));
        return Err(Problem::new(
            ErrorCode::BadRange,
            format!("the range {asked} does not lie in the object of {length} bytes"),
        )
        .remedy("a range is FIRST-LAST, zero-based and inclusive"));
    }
    Ok(ObjectHead {
        opver: tag,
        length,
        first,
        count: end - first,
        crc32c: home.payload_crc,
        created_ms: u64::from(home.created_s) * 1000,
        modified_ms: home.modified_ms,
    })
}

impl GetJob {
    /// A read of `id` for the request `tag` of the connection behind `to`.
    #[must_use]
    pub fn new(
        mount: Arc<SharedMount>,
        shelf: Arc<dyn Shelf>,
        id: ObjectId,
        ask: Ask,
        (to, tag, permit): (Arc<Outbox>, RequestTag, Permit),
    ) -> Self {
        Self { mount, shelf, id, ask, asks_others: false, answer: Some(Answer { to, tag, permit }) }
    }

    /// Has other members asked for what is not here.
    #[must_use]
    pub const fn asking_others(mut self, asks_others: bool) -> Self {
        self.asks_others = asks_others;
        self
    }

    /// Has a pool thread do it.
    pub fn to_pool(self) {
        let pool = Arc::clone(&self.mount.pool);
        pool.run(Box::new(move || self.run()));
    }

    /// Has the object's `ChunkFile` do it.
    pub fn to_chunk_file(self) {
        let mount = Arc::clone(&self.mount);
        mount.send(self.id.home().address.chunkfile(), Task::Read(self));
    }

    /// On a pool thread.
    fn run(mut self) {
        if self.answer.as_ref().is_none_or(|answer| answer.to.is_closed()) {
            return;
        }
        match self.read() {
            Ok(()) => {}
            Err(ReadError::Unsettled(_)) => self.to_chunk_file(),
            Err(error) => self.fail(&error),
        }
    }

    /// In line with the changes. `is_gone` says whether the mount knows a reason for finding nothing.
    pub fn run_settled(mut self, is_gone: impl FnOnce(&ObjectId) -> bool) {
        if let Err(error) = self.read() {
            let error = match error {
                ReadError::Unsettled(_) if is_gone(&self.id) => {
                    ReadError::NotFound { deleted: false }
                }
                other => other.settled(),
            };
            if matches!(error, ReadError::Damaged(_)) {
                tracing::error!(mount = self.mount.index, id = ?self.id, %error, "damage found");
            }
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &ReadError) {
        if matches!(error, ReadError::Damaged(_)) {
            self.mount.scrub.suspect(self.id);
        }
        let problem = problems::of_object(error, &self.mount, &self.id);
        self.failed(problem);
    }

    /// It cannot be answered here.
    fn failed(&mut self, problem: Problem) {
        if !(self.asks_others && may_others_know(problem.code)) {
            return self.refuse(problem);
        }
        if let Some(Answer { to, tag, permit }) = self.answer.take() {
            let question = Box::new(Question { id: self.id, ask: self.ask, problem });
            to.push(Out::Ask { tag, question, permit });
        }
    }

    pub(super) fn refuse(&mut self, problem: Problem) {
        if let Some(Answer { to, tag, permit }) = self.answer.take() {
            to.push(Out::Refused { tag, problem: Box::new(problem), permit: Some(permit) });
        }
    }

    fn read(&mut self) -> Result<(), ReadError> {
        match self.ask {
            Ask::Get { first, last, min_opver, window } => {
                let mut buffer = Vec::new();
                let got = self.shelf.get(&self.id, &mut buffer)?;
                match object_head(&got.home, first, last, min_opver) {
                    Ok(head) => self.deliver(head, window, &got, buffer),
                    Err(problem) => {
                        self.failed(problem);
                        Ok(())
                    }
                }
            }
            Ask::Stat => self.stat(),
        }
    }

    fn deliver(
        &mut self,
        head: ObjectHead,
        window: u32,
        got: &Got,
        mut buffer: Vec<u8>,
    ) -> Result<(), ReadError> {
        let small = head.count <= INLINE_MAX as u64;
        let range = head.first..head.first + head.count;
        let payload = match &got.content {
            Content::Buffer(at) => {
                let whole = Bytes::from(buffer).slice(at.clone());
                // The object is in memory as a whole, so the range is a part of what was read.
                let from = usize::try_from(range.start).unwrap_or(usize::MAX).min(whole.len());
                let to = usize::try_from(range.end).unwrap_or(usize::MAX).min(whole.len());
                let payload = whole.slice(from..to);
                if !small {
                    self.stream(Download::of_memory(head, payload, window));
                    return Ok(());
                }
                payload
            }
            Content::Single(content) => {
                let single = self.shelf.open_single(&got.home, *content)?;
                if !small {
                    self.stream(Download::of_single(head, single, window));
                    return Ok(());
                }
                let at = single.read(range, &mut buffer)?;
                Bytes::from(buffer).slice(at)
            }
        };
        let crc = if head.count == head.length { head.crc32c } else { crc32c(&payload) };
        if let Some(Answer { to, tag, permit }) = self.answer.take() {
            to.push(Out::Object {
                tag,
                id: Some(self.id),
                head: Box::new(head),
                payload,
                crc,
                permit,
            });
        }
        Ok(())
    }

    fn stream(&mut self, mut download: Download) {
        let Some(Answer { to, tag, mut permit }) = self.answer.take() else { return };
        let needs = download.memory();
        let missing = needs.saturating_sub(permit.bytes());
        if !permit.grow(missing) {
            let problem =
                Problem::new(ErrorCode::Busy, "too many bytes are in flight").remedy("ask again");
            return to.push(Out::Refused { tag, problem: Box::new(problem), permit: Some(permit) });
        }
        download.hold(permit, Arc::clone(&self.mount), self.id);
        to.push(Out::Opened { tag, download: Box::new(download) });
    }

    fn stat(&mut self) -> Result<(), ReadError> {
        let home = self.shelf.head(&self.id)?;
        if home.state == State::Purged {
            return Err(ReadError::NotFound { deleted: false });
        }
        let capacity = match (home.state, home.body) {
            (State::Live, Body::Slot(_)) => {
                let got = self.shelf.get(&self.id, &mut Vec::new())?;
                u64::from(got.capacity_units) * UNIT
            }
            (_, Body::Single(_)) => home.length,
            (_, Body::Inline | Body::Slot(_) | Body::None) => u64::from(home.capacity_units) * UNIT,
        };
        let head = StatAnswer {
            kind: match home.body {
                Body::Single(_) => ObjectKind::Single,
                Body::Inline | Body::Slot(_) | Body::None => ObjectKind::Chunk,
            },
            mount: home.mount,
            length: home.length,
            capacity,
            opver: home.version.tag,
            created_ms: u64::from(home.created_s) * 1000,
            modified_ms: home.modified_ms,
            crc32c: home.payload_crc,
            state: if home.state == State::Live { ObjectState::Live } else { ObjectState::Deleted },
            forwarded: !matches!(home.body, Body::Inline),
        };
        if let Some(Answer { to, tag, permit }) = self.answer.take() {
            let mut frame = BytesMut::with_capacity(256);
            let meta = Meta::answer(tag.opcode, tag.id);
            match encode(&mut frame, meta, &head, b"", 0) {
                Ok(()) => to.push(Out::Answer {
                    tag,
                    frame: frame.freeze(),
                    payload: Bytes::new(),
                    permit,
                }),
                Err(error) => {
                    let problem = Problem::new(ErrorCode::Failed, error.to_string());
                    to.push(Out::Refused { tag, problem: Box::new(problem), permit: Some(permit) });
                }
            }
        }
        Ok(())
    }
}

impl Drop for GetJob {
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.refuse(Problem::new(
                ErrorCode::Stopped,
                "the read was not begun: the daemon is stopping",
            ));
        }
    }
}
