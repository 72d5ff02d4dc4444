//! A large object on its way out, in pieces.
//!
//! Invariants: never more than one piece is being read, and none is read while the connection's buffer is high or the
//! client has granted no window, so a download costs two pieces of memory whatever the object's size; the version is the
//! one that was opened, to the end.

use super::budget::Permit;
use super::outbox::{Out, Outbox, RequestTag};
use super::problems;
use super::shared_mount::SharedMount;
use super::shelf::Single;
use crate::format::crc::{crc32c, crc32c_combine};
use crate::format::file_id::ObjectId;
use crate::messages::heads::{DATA_FRAME, DataEnd, ObjectHead};
use crate::store::read::ReadError;
use bytes::Bytes;
use std::sync::Arc;

/// See the module.
pub struct Download {
    head: ObjectHead,
    source: Source,
    /// Next byte of the object to be read.
    next: u64,
    end: u64,
    /// Bytes that the client has room for.
    credit: u64,
    reading: bool,
    sent: DataEnd,
    held: Option<(Permit, Arc<SharedMount>, ObjectId)>,
}

enum Source {
    Memory(Bytes),
    Single(Arc<dyn Single>),
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download")
            .field("head", &self.head)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Download {
    /// Of bytes that are all in memory: exactly those that `head` announces.
    #[must_use]
    pub fn of_memory(head: ObjectHead, bytes: Bytes, window: u32) -> Self {
        Self::new(head, Source::Memory(bytes), window)
    }

    /// Of an open singlefile.
    #[must_use]
    pub fn of_single(head: ObjectHead, single: Box<dyn Single>, window: u32) -> Self {
        Self::new(head, Source::Single(Arc::from(single)), window)
    }

    fn new(head: ObjectHead, source: Source, window: u32) -> Self {
        let (next, end) = (head.first, head.first + head.count);
        let sent = DataEnd { length: 0, crc32c: 0 };
        Self { head, source, next, end, credit: window.into(), reading: false, sent, held: None }
    }

    /// Bytes of memory that it needs at most.
    #[must_use]
    pub fn memory(&self) -> u64 {
        match &self.source {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::Single(_) => 2 * DATA_FRAME as u64,
        }
    }

    /// Takes its share of the budget along.
    pub fn hold(&mut self, permit: Permit, mount: Arc<SharedMount>, id: ObjectId) {
        self.held = Some((permit, mount, id));
    }

    /// The head of the answer.
    #[must_use]
    pub const fn head(&self) -> &ObjectHead {
        &self.head
    }

    /// The client can take so many bytes more.
    pub fn grant(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes.into());
    }

    /// Whether all of it was handed out.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.next >= self.end && !self.reading
    }

    /// The next piece, if it is at hand; else has it read, and it comes through the outbox.
    pub fn next(&mut self, to: &Arc<Outbox>, tag: RequestTag) -> Option<Bytes> {
        if self.reading || self.next >= self.end || self.credit == 0 {
            return None;
        }
        // Pieces end where blocks of the singlefile end, so that no block is read twice.
        let frame = DATA_FRAME as u64;
        let until = (self.next / frame + 1) * frame;
        let until = until.min(self.end).min(self.next.saturating_add(self.credit));
        let range = self.next..until;
        self.credit -= range.end - range.start;
        self.next = until;
        match &self.source {
            Source::Memory(bytes) => {
                let at = |n: u64| usize::try_from(n - self.head.first).unwrap_or(usize::MAX);
                Some(bytes.slice(at(range.start).min(bytes.len())..at(range.end).min(bytes.len())))
            }
            Source::Single(single) => {
                let (_, mount, id) = self.held.as_ref()?;
                let id = *id;
                self.reading = true;
                let (single, mount, to) = (Arc::clone(single), Arc::clone(mount), Arc::clone(to));
                let pool = Arc::clone(&mount.pool);
                pool.run(Box::new(move || {
                    if to.is_closed() {
                        return;
                    }
                    let mut buffer = Vec::new();
                    let piece = match single.read(range, &mut buffer) {
                        Ok(at) => Ok(Bytes::from(buffer).slice(at)),
                        Err(error) => {
                            tracing::error!(mount = mount.index, %error, "damage found");
                            if matches!(error, ReadError::Damaged(_)) {
                                mount.scrub.suspect(id);
                            }
                            Err(Box::new(problems::of_read(&error, &mount)))
                        }
                    };
                    to.push(Out::Piece { tag, piece });
                }));
                None
            }
        }
    }

    /// Notes a piece that goes out now: its checksum, and the end if it is the last one.
    pub fn account(&mut self, piece: &[u8]) -> (u32, Option<DataEnd>) {
        self.reading = false;
        let crc = crc32c(piece);
        self.sent.crc32c = crc32c_combine(self.sent.crc32c, crc, piece.len() as u64);
        self.sent.length += piece.len() as u64;
        let last = self.sent.length >= self.head.count;
        (crc, last.then(|| self.sent.clone()))
    }
}
