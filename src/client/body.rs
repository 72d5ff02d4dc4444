//! What is to be stored: bytes, a file, or whatever can be read.
//!
//! Invariant: a body that can be read again is replayable, and only such a one is sent again when an attempt fails.
//! Whatever fits one frame is read into memory first and so always is.

use super::error::{Error, Failure, Left, Result, io_remedy};
use crate::format::crc::crc32c;
use crate::messages::error::ErrorCode;
use crate::messages::heads::{DATA_FRAME, INLINE_MAX};
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};

type Reader = Box<dyn AsyncRead + Unpin + Send>;
type Progress = Box<dyn FnMut(u64) + Send>;

/// What is to be stored.
pub struct Body {
    source: Source,
    progress: Option<Progress>,
}

enum Source {
    Bytes(Bytes),
    File(PathBuf),
    Reader(Reader, Option<u64>),
}

impl Body {
    /// Bytes at hand.
    #[must_use]
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self { source: Source::Bytes(bytes.into()), progress: None }
    }

    /// A file; it is opened again if it has to be sent again.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { source: Source::File(path.into()), progress: None }
    }

    /// Anything that can be read, once. `length` if it is known; a reader that gives less or more is an error.
    #[must_use]
    pub fn reader(reader: Box<dyn AsyncRead + Unpin + Send>, length: Option<u64>) -> Self {
        Self { source: Source::Reader(reader, length), progress: None }
    }

    /// Calls back with the bytes sent so far. After a retry it begins anew.
    #[must_use]
    pub fn on_progress(mut self, progress: impl FnMut(u64) + Send + 'static) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Looks at how long it is and reads what is short.
    pub(super) async fn prepare(self) -> Result<Prepared> {
        let content = match self.source {
            Source::Bytes(bytes) => Content::of_bytes(bytes),
            Source::File(path) => Content::of_file(path).await?,
            Source::Reader(reader, length) => Content::of_reader(reader, length).await?,
        };
        Ok(Prepared { content, progress: self.progress })
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Bytes(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Source::File(path) => write!(f, "Body({})", path.display()),
            Source::Reader(_, length) => write!(f, "Body(reader of {length:?} bytes)"),
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::bytes(bytes)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::bytes(bytes)
    }
}

/// A body that is ready to be sent.
pub(super) struct Prepared {
    pub(super) content: Content,
    progress: Option<Progress>,
}

/// How it is sent.
pub(super) enum Content {
    /// In the request frame.
    Inline(Bytes, u32),
    /// In pieces, from memory.
    Memory(Bytes),
    /// In pieces, from a file of this length.
    File(PathBuf, u64),
    /// In pieces: what was read already, then the rest.
    Reader { begun: Bytes, reader: Reader, length: Option<u64>, spent: bool },
}

impl Content {
    fn of_bytes(bytes: Bytes) -> Self {
        if bytes.len() <= INLINE_MAX {
            let crc = crc32c(&bytes);
            Self::Inline(bytes, crc)
        } else {
            Self::Memory(bytes)
        }
    }

    async fn of_file(path: PathBuf) -> Result<Self> {
        let mut file = open(&path).await?;
        let metadata = file.metadata().await.map_err(|e| unreadable(&path, &e))?;
        if metadata.is_dir() {
            let error = Error::new(ErrorCode::Usage, format!("{} is a folder", path.display()));
            return Err(error.remedy("name a file"));
        }
        if metadata.is_file() && metadata.len() > INLINE_MAX as u64 {
            return Ok(Self::File(path, metadata.len()));
        }
        let begun =
            read_up_to(&mut file, INLINE_MAX + 1).await.map_err(|e| unreadable(&path, &e))?;
        if begun.len() <= INLINE_MAX {
            return Ok(Self::of_bytes(begun));
        }
        // A pipe, or a file that grew just now.
        Ok(Self::Reader { begun, reader: Box::new(file), length: None, spent: false })
    }

    async fn of_reader(mut reader: Reader, length: Option<u64>) -> Result<Self> {
        let begun = read_up_to(&mut reader, INLINE_MAX + 1).await.map_err(|e| cannot_read(&e))?;
        if begun.len() > INLINE_MAX {
            return Ok(Self::Reader { begun, reader, length, spent: false });
        }
        if length.is_some_and(|length| length != begun.len() as u64) {
            return Err(other_length(length, begun.len() as u64));
        }
        Ok(Self::of_bytes(begun))
    }

    /// Bytes, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Inline(bytes, _) | Self::Memory(bytes) => Some(bytes.len() as u64),
            Self::File(_, length) => Some(*length),
            Self::Reader { length, .. } => *length,
        }
    }

    /// Whether it can be sent (again) from the beginning.
    pub(super) const fn replayable(&self) -> bool {
        match self {
            Self::Inline(..) | Self::Memory(_) | Self::File(..) => true,
            Self::Reader { spent, .. } => !*spent,
        }
    }

    /// From the beginning, in pieces.
    pub(super) async fn pieces(&mut self) -> std::result::Result<Pieces<'_>, Failure> {
        Ok(match self {
            Self::Inline(bytes, _) | Self::Memory(bytes) => Pieces::Memory(bytes.clone()),
            Self::File(path, _) => Pieces::File(open(path).await.map_err(spent)?, path),
            Self::Reader { begun, reader, spent, .. } => {
                Pieces::Reader { begun: begun.clone(), reader, spent }
            }
        })
    }
}

impl Prepared {
    /// Content and callback, apart.
    pub(super) fn split(&mut self) -> (&mut Content, impl FnMut(u64) + Send) {
        let progress = &mut self.progress;
        (&mut self.content, move |sent| {
            if let Some(progress) = progress {
                progress(sent);
            }
        })
    }
}

/// One pass over a body.
pub(super) enum Pieces<'a> {
    Memory(Bytes),
    File(File, &'a Path),
    Reader { begun: Bytes, reader: &'a mut Reader, spent: &'a mut bool },
}

impl Pieces<'_> {
    /// The next piece, at most [`DATA_FRAME`] long; empty at the end.
    pub(super) async fn next(&mut self) -> std::result::Result<Bytes, Failure> {
        match self {
            Self::Memory(bytes) => Ok(bytes.split_to(bytes.len().min(DATA_FRAME))),
            Self::File(file, path) => {
                read_up_to(file, DATA_FRAME).await.map_err(|e| spent(unreadable(path, &e)))
            }
            Self::Reader { begun, .. } if !begun.is_empty() => {
                Ok(begun.split_to(begun.len().min(DATA_FRAME)))
            }
            Self::Reader { reader, spent: read, .. } => {
                **read = true;
                read_up_to(reader, DATA_FRAME).await.map_err(|e| spent(cannot_read(&e)))
            }
        }
    }
}

/// Reads until `max` bytes are there or the end is reached.
async fn read_up_to(reader: &mut (impl AsyncRead + Unpin), max: usize) -> std::io::Result<Bytes> {
    let mut buffer = BytesMut::with_capacity(max.min(DATA_FRAME));
    let mut reader = reader.take(max as u64);
    while reader.read_buf(&mut buffer).await? > 0 {}
    Ok(buffer.freeze())
}

async fn open(path: &Path) -> Result<File> {
    File::open(path).await.map_err(|e| unreadable(path, &e))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorCode::Failed, format!("cannot read {}: {error}", path.display()))
        .remedy(io_remedy(error))
}

fn cannot_read(error: &std::io::Error) -> Error {
    Error::new(ErrorCode::Failed, format!("cannot read the body: {error}"))
        .remedy("see to where it comes from, then repeat the command")
}

/// The body gave another number of bytes than it said.
pub(super) fn other_length(said: Option<u64>, gave: u64) -> Error {
    let said = said.unwrap_or_default();
    Error::new(
        ErrorCode::Failed,
        format!("the body was to have {said} bytes and has {gave}: it changed while it was read"),
    )
    .remedy("nothing was stored; try again when it no longer changes")
}

/// A failure at this end: nothing was stored, and another attempt is of no use.
pub(super) const fn spent(error: Error) -> Failure {
    Failure { error, left: Left::BodySpent }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(content: &mut Content) -> Vec<u8> {
        let mut pieces = content.pieces().await.expect("opens");
        let mut out = Vec::new();
        loop {
            let piece = pieces.next().await.expect("reads");
            if piece.is_empty() {
                return out;
            }
            assert!(piece.len() <= DATA_FRAME);
            out.extend_from_slice(&piece);
        }
    }

    #[tokio::test]
    async fn a_short_reader_can_be_sent_again() {
        let body = Body::reader(Box::new(&b"short"[..]), None).prepare().await.expect("reads");
        assert!(matches!(&body.content, Content::Inline(bytes, _) if bytes == "short"));
    }

    #[tokio::test]
    async fn a_long_reader_is_not_sent_again_once_it_is_spent() {
        let bytes: Vec<u8> = (0..INLINE_MAX + 500_000).map(|i| (i % 251) as u8).collect();
        let reader = std::io::Cursor::new(bytes.clone());
        let mut body = Body::reader(Box::new(reader), None).prepare().await.expect("reads");
        assert!(body.content.replayable());
        assert_eq!(body.content.length(), None);
        assert!(all(&mut body.content).await == bytes);
        assert!(!body.content.replayable());
    }

    #[tokio::test]
    async fn a_file_and_bytes_can_be_sent_again() {
        let bytes: Vec<u8> = (0..INLINE_MAX + 300_000).map(|i| (i % 253) as u8).collect();
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("body");
        tokio::fs::write(&path, &bytes).await.expect("writes");
        for body in [Body::file(&path), Body::bytes(bytes.clone())] {
            let mut body = body.prepare().await.expect("reads");
            assert_eq!(body.content.length(), Some(bytes.len() as u64));
            for _ in 0..2 {
                assert!(body.content.replayable());
                assert!(all(&mut body.content).await == bytes);
            }
        }
    }

    #[tokio::test]
    async fn a_body_of_another_length_is_not_stored() {
        let wrong = Body::reader(Box::new(&b"short"[..]), Some(6)).prepare().await;
        assert_eq!(wrong.err().map(|e| e.code), Some(ErrorCode::Failed));
        assert!(Body::file("/nonexistent/file").prepare().await.is_err());
    }
}
