//! An object that is being read.

use super::connection::Download;
use super::error::{Error, Result};
use crate::format::crc::Crc32c;
use crate::format::ids::Tag;
use crate::messages::error::ErrorCode;
use crate::messages::heads::{DataEnd, ObjectHead};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// What is known about an object that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its version: all bytes are of this one (P2).
    pub opver: Tag,
    /// Length of the whole object, bytes.
    pub length: u64,
    /// First byte delivered.
    pub first: u64,
    /// How many bytes are delivered.
    pub count: u64,
    /// CRC32C of the whole object.
    pub crc32c: u32,
    /// When the object was created, milliseconds since 1970.
    pub created_ms: u64,
    /// When this version was made, milliseconds since 1970.
    pub modified_ms: u64,
}

impl From<ObjectHead> for ObjectInfo {
    fn from(head: ObjectHead) -> Self {
        let ObjectHead { opver, length, first, count, crc32c, created_ms, modified_ms } = head;
        Self { opver, length, first, count, crc32c, created_ms, modified_ms }
    }
}

/// An object that is being read. Dropping it stops the transfer.
#[derive(Debug)]
pub struct Object {
    /// What is known about it.
    pub info: ObjectInfo,
    source: Source,
    /// How long to wait for the next piece.
    patience: Duration,
    node: Arc<str>,
}

#[derive(Debug)]
enum Source {
    /// Came with the answer; its CRC32C, which was checked with the frame.
    Whole(Bytes, u32),
    /// Comes in pieces.
    Stream(Box<Stream>),
    Over,
}

/// A body that comes in pieces, and the sum of those that came.
#[derive(Debug)]
struct Stream {
    download: Download,
    given: u64,
    crc: Crc32c,
}

impl Object {
    /// `crc`: of the bytes, as checked with their frame.
    pub(super) const fn whole(info: ObjectInfo, bytes: Bytes, crc: u32, node: Arc<str>) -> Self {
        let source = Source::Whole(bytes, crc);
        Self { info, source, patience: Duration::ZERO, node }
    }

    pub(super) fn streamed(
        info: ObjectInfo,
        download: Download,
        patience: Duration,
        node: Arc<str>,
    ) -> Self {
        let source = Source::Stream(Box::new(Stream { download, given: 0, crc: Crc32c::new() }));
        Self { info, source, patience, node }
    }

    /// The next bytes; `None` after the last ones. Only then is everything checked: use nothing of an object whose
    /// last chunk was an error.
    ///
    /// # Errors
    /// `Unavailable` if the node falls silent, `Damaged` if the bytes are not those that were stored.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let stream = match &mut self.source {
                Source::Over => return Ok(None),
                Source::Whole(bytes, crc) => {
                    let (bytes, crc) = (std::mem::take(bytes), *crc);
                    self.source = Source::Over;
                    self.check(bytes.len() as u64, crc)?;
                    return Ok((!bytes.is_empty()).then_some(bytes));
                }
                Source::Stream(stream) => stream,
            };
            let (bytes, end) = stream.download.piece(Instant::now() + self.patience).await?;
            stream.crc.update(&bytes);
            stream.given += bytes.len() as u64;
            if let Some(end) = end {
                let (given, crc) = (stream.given, stream.crc.value());
                self.source = Source::Over;
                if end != (DataEnd { length: given, crc32c: crc }) {
                    return Err(self.damaged());
                }
                self.check(given, crc)?;
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    /// What came against what was announced.
    fn check(&self, given: u64, crc: u32) -> Result<()> {
        let info = &self.info;
        let whole = info.count == info.length;
        if given == info.count && (!whole || crc == info.crc32c) {
            Ok(())
        } else {
            Err(self.damaged())
        }
    }

    fn damaged(&self) -> Error {
        Error::new(ErrorCode::Damaged, "the bytes that came are not those that were stored")
            .remedy("read it again; if it stays so, ask the storage for `scrub`")
            .at(&self.node)
    }

    /// All of it at once.
    ///
    /// # Errors
    /// `TooLarge` beyond `max` bytes, else as [`Object::chunk`].
    pub async fn bytes(mut self, max: u64) -> Result<Bytes> {
        if self.info.count > max {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("{} bytes, at most {max} are taken at once", self.info.count),
            ));
        }
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.chunk().await? else { return Ok(first) };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(next) = self.chunk().await? {
            if all.len() as u64 + next.len() as u64 > max {
                return Err(Error::new(ErrorCode::Failed, "more bytes than announced"));
            }
            all.extend_from_slice(&next);
        }
        Ok(all.freeze())
    }

    /// Writes all of it, piece by piece; `progress` is called with the bytes written so far. Flushes at the end.
    ///
    /// # Errors
    /// As [`Object::chunk`], and `Failed` if it cannot be written.
    pub async fn write_to(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin),
        mut progress: impl FnMut(u64),
    ) -> Result<()> {
        let cannot = |e| Error::new(ErrorCode::Failed, format!("cannot write: {e}"));
        let mut written = 0;
        while let Some(bytes) = self.chunk().await? {
            writer.write_all(&bytes).await.map_err(cannot)?;
            written += bytes.len() as u64;
            progress(written);
        }
        writer.flush().await.map_err(cannot)
    }
}
