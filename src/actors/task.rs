//! What the actors of a mount are asked to do.

use super::get_job::GetJob;
use super::reply::Reply;
use super::session::Problem;
use super::shelf::Shelf;
use crate::format::file_id::ObjectId;
use crate::format::ids::Tag;
use crate::messages::error::ErrorCode;
use crate::store::mount::{Body, TempSingle};
use crate::store::options::Reserve;
use actix::Message;
use bytes::Bytes;
use std::sync::Arc;

/// One entry of a chunkfile's queue.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum Task {
    /// A mutation.
    Change(Change),
    /// A read that must see no change in flight.
    Read(GetJob),
}

impl Task {
    /// There is no room for it now: nothing was changed.
    pub fn refuse_busy(self) {
        let busy =
            Problem::new(ErrorCode::Busy, "too many chunkfiles are in use").remedy("ask again");
        match self {
            Self::Change(change) => change.reply.refused(busy),
            Self::Read(mut job) => job.refuse(busy),
        }
    }
}

/// A mutation and who is to be told.
#[derive(Debug)]
pub struct Change {
    /// What to do.
    pub what: What,
    /// Whom to tell.
    pub reply: Reply,
}

/// What a mutation does.
#[derive(Debug)]
pub enum What {
    /// A new object.
    Put {
        /// Its content.
        content: Content,
        /// Room to grow, if not the mount's default.
        reserve: Option<Reserve>,
        /// Which of the active chunkfiles.
        lane: usize,
        /// Mounts that may be tried when this one is full.
        others: u8,
    },
    /// New content of an object.
    Modify {
        /// Which.
        id: ObjectId,
        /// Its content.
        content: Content,
        /// Only if this is its version.
        if_opver: Option<Tag>,
    },
    /// A tombstone.
    Delete {
        /// Which.
        id: ObjectId,
        /// Only if this is its version.
        if_opver: Option<Tag>,
    },
    /// The return of a deleted object.
    Undelete {
        /// Which.
        id: ObjectId,
    },
}

impl What {
    /// Bytes of log that it makes, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let content = match self {
            Self::Put { content, .. } | Self::Modify { content, .. } => match content {
                Content::Inline { bytes, .. } => bytes.len() as u64,
                Content::Single(_) => 0,
            },
            Self::Delete { .. } | Self::Undelete { .. } => 0,
        };
        content + RECORD_BYTES
    }
}

/// A record without its payload, about.
const RECORD_BYTES: u64 = 320;

/// Content on its way in.
#[derive(Debug)]
pub enum Content {
    /// In memory, verified against its CRC32C.
    Inline {
        /// The bytes.
        bytes: Bytes,
        /// Their CRC32C.
        crc: u32,
    },
    /// In a finished temporary file.
    Single(TempGuard),
}

impl Content {
    /// What the engine takes.
    #[must_use]
    pub fn body(&self) -> Body {
        match self {
            Self::Inline { bytes, crc } => Body::Inline { bytes: bytes.clone(), crc: *crc },
            Self::Single(guard) => Body::Single(guard.temp),
        }
    }

    /// The engine has taken it.
    pub fn taken(self) {
        match self {
            Self::Inline { .. } => {}
            Self::Single(mut guard) => guard.shelf = None,
        }
    }
}

/// Removes a finished temporary file unless the engine takes it. Blocks when dropped: on disk arbiters and pool
/// threads only.
pub struct TempGuard {
    temp: TempSingle,
    shelf: Option<Arc<dyn Shelf>>,
}

impl std::fmt::Debug for TempGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TempGuard").field(&self.temp).finish()
    }
}

impl TempGuard {
    /// Guards a file of `shelf`.
    #[must_use]
    pub fn new(temp: TempSingle, shelf: Arc<dyn Shelf>) -> Self {
        Self { temp, shelf: Some(shelf) }
    }
}

impl Drop for TempGuard {
    fn drop(&mut self) {
        if let Some(shelf) = self.shelf.take() {
            shelf.remove_temp(self.temp.content);
        }
    }
}
