//! What can go wrong in the engine; a variant for each thing that a caller can act on.

use crate::format::envelope::FormatError;
use crate::format::ids::Tag;

/// An operation was refused, or the mount failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such object here: never was, or a later tenant has its place.
    #[error("the object does not exist")]
    NotFound {
        /// Whether a tombstone says so (`undelete` may bring it back).
        deleted: bool,
    },
    /// `if_opver` does not name the current version; nothing was changed.
    #[error("the object has another version")]
    Precondition {
        /// The version that it has.
        current: Tag,
    },
    /// Nothing to bring back: it was purged, or is not deleted.
    #[error("{0}")]
    NotDeleted(&'static str),
    /// No room on this mount; the old version is intact.
    #[error("no space: {free} bytes free, {reserve_free} are held in reserve, {needed} needed")]
    NoSpace {
        /// Free bytes of the file system.
        free: u64,
        /// Configured `reserve_free`.
        reserve_free: u64,
        /// Bytes asked for.
        needed: u64,
    },
    /// Larger than a slot can be, and not handed over as a singlefile.
    #[error("a payload of {length} bytes needs a singlefile")]
    TooLarge {
        /// Its length.
        length: u64,
    },
    /// The id names a log that this mount never had.
    #[error(
        "log {log_id:08x} of machine {machine} is none of this mount's: the id is of another cluster"
    )]
    Foreign {
        /// Machine in the id.
        machine: u16,
        /// Log in the id.
        log_id: u32,
    },
    /// The bytes on disk are not what was written. Reported, never copied.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The mount failed and takes nothing more until the daemon restarts (R9).
    #[error("the mount has failed: {0}")]
    Fenced(String),
    /// The mount's files cannot be used.
    #[error("{0}")]
    Format(#[from] FormatError),
    /// The medium refused while the mount was being opened.
    #[error("{what}: {error}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The system's word.
        error: std::io::Error,
    },
}

impl StoreError {
    /// An IO error with what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

/// Result of an engine call.
pub type StoreResult<T> = Result<T, StoreError>;
