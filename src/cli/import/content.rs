//! The content of a file at one moment, or the finding that there was no such moment.
//!
//! Small files are read once and kept; what is hashed is what is sent. Large ones are hashed in a first pass and checked
//! again while they are sent: [`Checked`] withholds the last bytes unless length and hash are still those of the first
//! pass, so a file that changes meanwhile is never stored under a wrong hash.

use crate::cli::manifest::Sha256Bytes;
use crate::format::crc::Crc32c;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// Files up to so many bytes are kept in memory between hashing and sending.
pub(super) const SMALL_MAX: u64 = 1 << 20;
/// Bytes read at a time.
const STEP: usize = 256 << 10;

/// What is sent.
#[derive(Clone, Debug)]
pub(in crate::cli) enum Data {
    /// All of it.
    Small(Bytes),
    /// Read again while it is sent.
    Large(PathBuf),
}

/// What is known about it.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Content {
    /// The bytes.
    pub data: Data,
    /// How many.
    pub length: u64,
    /// Their hash.
    pub sha256: Sha256Bytes,
    /// Their checksum, as `stat` states it.
    pub crc32c: u32,
}

impl Content {
    /// Nothing at all.
    pub(super) fn empty() -> Self {
        Self {
            data: Data::Small(Bytes::new()),
            length: 0,
            sha256: Sha256::digest([]).into(),
            crc32c: Crc32c::new().value(),
        }
    }

    /// Reads and hashes a regular file. Blocking.
    ///
    /// # Errors
    /// Why it is not fit to be stored.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let mut file = open_regular(path).map_err(|e| e.to_string())?;
        let before = file.metadata().map_err(|e| e.to_string())?;
        let small = before.len() <= SMALL_MAX;
        let mut kept = Vec::new();
        let mut hash = Sha256::new();
        let mut crc = Crc32c::new();
        let mut length = 0u64;
        let mut buffer =
            vec![0; STEP.min(usize::try_from(before.len()).unwrap_or(STEP).max(1) + 1)];
        loop {
            let n = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.to_string()),
            };
            hash.update(&buffer[..n]);
            crc.update(&buffer[..n]);
            length += n as u64;
            if length > before.len() {
                return Err(CHANGED.to_owned());
            }
            if small {
                kept.extend_from_slice(&buffer[..n]);
            }
        }
        let after = file.metadata().map_err(|e| e.to_string())?;
        if length != before.len() || stamp(&before) != stamp(&after) {
            return Err(CHANGED.to_owned());
        }
        let data = if small { Data::Small(kept.into()) } else { Data::Large(path.to_owned()) };
        Ok(Self { data, length, sha256: hash.finalize().into(), crc32c: crc.value() })
    }
}

const CHANGED: &str = "it changes while it is read; nothing of it was stored";

fn stamp(metadata: &Metadata) -> (u64, u64, i64, i64, i64, i64) {
    let m = metadata;
    (m.ino(), m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec())
}

/// Opens without following a link and without waiting for the other end of a pipe.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

/// A large file on its way out, held against its first reading.
pub(super) struct Checked {
    file: tokio::fs::File,
    hash: Sha256,
    left: u64,
    expected: Sha256Bytes,
}

impl Checked {
    /// Opens the file again.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(path: &Path, content: &Content) -> io::Result<Self> {
        let file = tokio::fs::File::from_std(open_regular(path)?);
        Ok(Self { file, hash: Sha256::new(), left: content.length, expected: content.sha256 })
    }
}

impl AsyncRead for Checked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.file).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        let n = (buf.filled().len() - before) as u64;
        if n == 0 || n > self.left {
            buf.set_filled(before);
            return Poll::Ready(Err(io::Error::other(CHANGED)));
        }
        self.hash.update(&buf.filled()[before..]);
        self.left -= n;
        if self.left == 0 {
            let found: Sha256Bytes = std::mem::take(&mut self.hash).finalize().into();
            if found != self.expected {
                buf.set_filled(before);
                return Poll::Ready(Err(io::Error::other(CHANGED)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn large() -> Vec<u8> {
        (0..SMALL_MAX + 100_000).map(|i| u8::try_from(i % 251).expect("small")).collect()
    }

    async fn send(path: &Path, content: &Content) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Checked::open(path, content)?.read_to_end(&mut out).await.map(|_| out)
    }

    #[tokio::test]
    async fn a_file_that_changed_between_hashing_and_sending_is_never_stored() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("f");
        let bytes = large();
        std::fs::write(&path, &bytes).expect("write");
        let content = Content::read(&path).expect("reads");
        assert_eq!(content.length, bytes.len() as u64);
        assert_eq!(send(&path, &content).await.expect("unchanged"), bytes);

        let mut other = bytes.clone();
        other[0] ^= 1;
        for changed in [other, bytes[1..].to_vec(), [&bytes[..], b"x"].concat()] {
            std::fs::write(&path, &changed).expect("write");
            let sent = send(&path, &content).await;
            // One that only grew may be sent as it was; anything else is stopped.
            assert!(sent.is_err() || sent.is_ok_and(|sent| sent == bytes), "sent something else");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_never_waited_for() {
        let dir = tempfile::tempdir().expect("dir");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/etc/hostname", &link).expect("link");
        assert!(Content::read(&link).is_err());
        assert!(Content::read(dir.path()).is_err());
        assert!(Content::read(&dir.path().join("none")).is_err());
        let empty = dir.path().join("empty");
        std::fs::write(&empty, b"").expect("write");
        let content = Content::read(&empty).expect("reads");
        assert_eq!((content.sha256, content.crc32c), (Content::empty().sha256, 0));
    }
}
