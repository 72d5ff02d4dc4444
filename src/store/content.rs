//! Contents of large objects on their way from mirror to mirror: the raw file, trailer included.
//!
//! Invariants: a content is given away only from a file with its own footer, so never from one that is still
//! arriving; nothing is checked block by block when it is given away, because whoever takes it verifies all of it
//! ([`ContentCopy::finish`]) before it counts, so damage is never copied into a good mirror (P3). A copy that was cut
//! off goes on where it stopped; one that is wrong is removed. One copy of a content at a time.

use super::disk::{Disk, DiskFile, Open};
use super::read::ReadError;
use super::reader::Reader;
use super::single_writer::{Finished, remove_temp};
use crate::format::crc::Crc32c;
use crate::format::ids::{MountIndex, Position};
use crate::format::paths;
use crate::format::single::{BLOCK_LEN, FOOTER_LEN, Footer, block_count, file_len};
use std::io;

/// Bytes after which the system is asked to begin writing them.
const BEGIN_WRITE_BACK: u64 = 4 << 20;
/// Dirty bytes at most; then a write waits for the medium.
const WRITE_BACK: u64 = 64 << 20;
/// Blocks that are verified at a time.
const VERIFY_BLOCKS: u64 = 16;

/// Why a copy came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The bytes that came are not the content: take it from another mirror.
    #[error("the copy of a large object is wrong: {0}")]
    Wrong(String),
    /// Our own disk refused.
    #[error("copying a large object: {0}")]
    Io(#[from] io::Error),
}

impl<D: Disk> Reader<D> {
    /// Length of the whole file of a content, in bytes; `None` if it is not here, or not all of it.
    ///
    /// # Errors
    /// `Io`, `Fenced`.
    pub fn content_len(&self, content: Position) -> Result<Option<u64>, ReadError> {
        self.check()?;
        match self.open_content(content)? {
            Some((file, path)) => Ok(Some(file.len().map_err(ReadError::io(path))?)),
            None => Ok(None),
        }
    }

    /// Reads up to `len` bytes of the whole file of a content, from `offset` on, to the front of `buffer`; how many
    /// there are, 0 at the end.
    ///
    /// # Errors
    /// `NotFound` if it is not here, or not all of it; `Io`, `Fenced`.
    pub fn read_content(
        &self,
        content: Position,
        offset: u64,
        len: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<usize, ReadError> {
        self.check()?;
        let Some((file, path)) = self.open_content(content)? else {
            return Err(ReadError::NotFound { deleted: false });
        };
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        file.read_full_at(offset, &mut buffer[..len]).map_err(ReadError::io(path))
    }

    /// The file of a content: in its place, or finished and about to be renamed there.
    fn open_content(&self, content: Position) -> Result<Option<(D::File, String)>, ReadError> {
        // In its place once more: it may be renamed between the first two looks.
        let place = paths::single(content);
        // Perhaps only the archive keeps it any more.
        let kept = paths::conflict_single(content);
        for path in [&place, &paths::single_tmp(content), &place, &kept] {
            let file = match self.disk().open(path, Open::Read) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(ReadError::io(path.as_str())(e)),
            };
            let footer = read_footer(&file).map_err(ReadError::io(path.as_str()))?;
            if footer.is_some_and(|f| f.content == content && f.mount == self.mount()) {
                return Ok(Some((file, path.clone())));
            }
        }
        Ok(None)
    }

    /// Takes a content of `length` bytes of payload from a mirror, or goes on with it.
    ///
    /// # Errors
    /// Those of the disk; a length that no file can have.
    pub fn copy_content(&self, content: Position, length: u64) -> io::Result<ContentCopy<D>> {
        ContentCopy::open(self.disk().clone(), self.mount(), content, length)
    }
}

/// A content on its way in from a mirror. Dropping it leaves what came, to be continued.
#[derive(Debug)]
pub struct ContentCopy<D: Disk> {
    disk: D,
    file: D::File,
    mount: MountIndex,
    content: Position,
    whole_len: u64,
    position: u64,
    begun: u64,
    written_back: u64,
}

impl<D: Disk> ContentCopy<D> {
    fn open(disk: D, mount: MountIndex, content: Position, length: u64) -> io::Result<Self> {
        let whole_len = file_len(length).ok_or(io::ErrorKind::FileTooLarge)?;
        let path = paths::single_tmp(content);
        let file = match disk.open(&path, Open::Write) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                disk.create_dir_all(paths::SINGLES_TMP)?;
                disk.open(&path, Open::Create)?
            }
            Err(e) => return Err(e),
        };
        let mut position = file.len()?;
        if position > whole_len {
            file.set_len(0)?;
            position = 0;
        }
        let (begun, written_back) = (position, position);
        Ok(Self { disk, file, mount, content, whole_len, position, begun, written_back })
    }

    /// How many bytes of the file are here: the next ones are wanted from there.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Length of the whole file.
    #[must_use]
    pub const fn whole_len(&self) -> u64 {
        self.whole_len
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// Those of the disk; `InvalidData` for more than the content has. What came before stays.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > self.whole_len - self.position {
            let what = "a mirror sent more than the large object has";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        self.file.write_all_at(self.position, bytes)?;
        self.position += bytes.len() as u64;
        if self.position - self.begun >= BEGIN_WRITE_BACK {
            self.file.begin_write_back(self.begun, self.position - self.begun);
            self.begun = self.position;
        }
        if self.position - self.written_back >= WRITE_BACK {
            self.file.write_back(self.written_back, self.position - self.written_back)?;
            self.written_back = self.position;
        }
        Ok(())
    }

    /// Reads all of it again, verifies it, and makes file and name durable. Only record and rename are left (R8).
    ///
    /// # Errors
    /// `Wrong`, `Io`; the file is removed then, as far as the disk allows.
    pub fn finish(self) -> Result<Finished, CopyError> {
        match self.complete() {
            Ok(finished) => Ok(finished),
            Err(error) => {
                self.abort();
                Err(error)
            }
        }
    }

    fn complete(&self) -> Result<Finished, CopyError> {
        if self.position != self.whole_len {
            let (have, whole) = (self.position, self.whole_len);
            return Err(CopyError::Wrong(format!("{have} of {whole} bytes came")));
        }
        let footer = verify_content(&self.file, self.content, self.mount, self.whole_len)?;
        self.file.sync_data()?;
        self.disk.sync_dir(paths::SINGLES_TMP)?;
        let (length, crc) = (footer.length, footer.payload_crc);
        Ok(Finished { content: self.content, length, crc })
    }

    /// Removes what came. A failure is harmless: it is removed when the mount is opened next.
    pub fn abort(self) {
        drop(self.file);
        remove_temp(&self.disk, self.content);
    }
}

/// The footer of a file, if it has one that fits its length.
pub(super) fn read_footer<F: DiskFile>(file: &F) -> io::Result<Option<Footer>> {
    let len = file.len()?;
    let mut bytes = [0; FOOTER_LEN];
    let Some(at) = len.checked_sub(FOOTER_LEN as u64) else { return Ok(None) };
    let got = file.read_full_at(at, &mut bytes)?;
    Ok(if got == FOOTER_LEN { Footer::decode(&bytes, len).ok() } else { None })
}

/// Reads a whole file of `whole_len` bytes and compares it with its own trailer: footer, table, each block, and the
/// checksum of the whole. Memory does not depend on its length.
///
/// # Errors
/// `Wrong` if it is damaged or another content's; `Io`.
pub fn verify_content<F: DiskFile>(
    file: &F,
    content: Position,
    mount: MountIndex,
    whole_len: u64,
) -> Result<Footer, CopyError> {
    let wrong = |what: String| Err(CopyError::Wrong(what));
    let footer = match read_footer(file)? {
        Some(footer) if file_len(footer.length) == Some(whole_len) => footer,
        Some(_) | None => return wrong("its footer is damaged".to_owned()),
    };
    if footer.content != content || footer.mount != mount {
        return wrong(format!("it is {:?} of mount {}", footer.content, footer.mount));
    }
    let (mut whole, mut table) = (Crc32c::new(), Crc32c::new());
    let mut payload = vec![0; VERIFY_BLOCKS as usize * BLOCK_LEN];
    let mut checks = vec![0; VERIFY_BLOCKS as usize * 4];
    let count = block_count(footer.length);
    for first in (0..count).step_by(VERIFY_BLOCKS as usize) {
        let blocks = first..count.min(first + VERIFY_BLOCKS);
        let bytes = footer.payload_range(blocks.clone());
        let entries = footer.table_range(blocks);
        let payload = read_range(file, bytes.start, bytes.end - bytes.start, &mut payload)?;
        let checks = read_range(file, entries.start, entries.end - entries.start, &mut checks)?;
        if let Err(bad) = footer.verify(first, payload, checks) {
            return wrong(format!("block {bad} (of {BLOCK_LEN} bytes each) is damaged"));
        }
        whole.update(payload);
        table.update(checks);
    }
    if whole.value() != footer.payload_crc || table.value() != footer.table_crc {
        return wrong("its blocks are not those that its footer names".to_owned());
    }
    Ok(footer)
}

fn read_range<'a, F: DiskFile>(
    file: &F,
    at: u64,
    len: u64,
    buffer: &'a mut [u8],
) -> io::Result<&'a [u8]> {
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(buffer.len());
    let got = file.read_full_at(at, &mut buffer[..len])?;
    Ok(&buffer[..got])
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
