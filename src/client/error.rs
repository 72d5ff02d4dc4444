//! What a caller of the client library is told when something was not done.

use crate::format::file_id::FileId;
use crate::messages::error::ErrorCode;
use crate::messages::frame::FrameError;
use crate::messages::handshake::Refusal;
use crate::messages::heads::{ErrorHead, HeadError};
use std::fmt;
use std::io;

/// Result of the client library.
pub type Result<T> = std::result::Result<T, Error>;

/// What failed, on which id and node, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind of failure.
    pub code: ErrorCode,
    /// What failed.
    pub message: String,
    /// What to do about it; may be empty.
    pub remedy: String,
    /// The node that said so or that is meant.
    pub node: Option<String>,
    /// The object.
    pub id: Option<String>,
}

impl Error {
    /// An error without a node or an id yet.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: String::new(), node: None, id: None }
    }

    /// With what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// With the node, if none is named yet.
    #[must_use]
    pub fn at(mut self, node: &str) -> Self {
        self.node.get_or_insert_with(|| node.to_owned());
        self
    }

    /// With the object, if none is named yet.
    #[must_use]
    pub fn on(mut self, id: &FileId) -> Self {
        self.id.get_or_insert_with(|| id.to_string());
        self
    }

    /// Exit code of the command line for it.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        self.code.exit_code()
    }

    /// The error in the head of an answer.
    pub(super) fn of_answer(status: u16, head: &[u8]) -> Self {
        let code = ErrorCode::of_status(status);
        match crate::messages::heads::decode::<ErrorHead>(head) {
            Ok(head) => Self {
                code,
                message: head.message,
                remedy: head.remedy,
                node: (!head.node.is_empty()).then_some(head.node),
                id: None,
            },
            Err(_) => Self::new(code, format!("error {status} without an explanation")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = &self.id {
            write!(f, "{id}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(node) = &self.node {
            write!(f, " ({node})")?;
        }
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<HeadError> for Error {
    fn from(error: HeadError) -> Self {
        Self::new(ErrorCode::Failed, format!("answer not understood: {error}"))
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message).remedy(refusal.remedy)
    }
}

/// What to do about a file that cannot be read or written.
pub(crate) fn io_remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound => "check the path: there is nothing of that name",
        Kind::NotADirectory => "check the path: a part of it is no folder",
        Kind::IsADirectory => "name a file, not a folder",
        Kind::PermissionDenied => "give this user access to it, or name another path",
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => {
            "make room there, or name another path"
        }
        Kind::ReadOnlyFilesystem => "its file system is read-only: name another path",
        _other => "see to the disk or file system where it lies, then repeat the command",
    }
}

/// Why one attempt at one node failed, and what that leaves.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) left: Left,
}

/// What a failed attempt leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The node did not get the whole request: nothing was done.
    Nothing,
    /// The node answered with an error: what its code says.
    Answered,
    /// It was sent and no answer came: done or not done.
    Unknown,
    /// Nothing was done, but the body has been read and cannot be read again.
    BodySpent,
}

impl Failure {
    pub(super) const fn nothing(error: Error) -> Self {
        Self { error, left: Left::Nothing }
    }

    pub(super) const fn answered(error: Error) -> Self {
        Self { error, left: Left::Answered }
    }

    pub(super) const fn unknown(error: Error) -> Self {
        Self { error, left: Left::Unknown }
    }
}
