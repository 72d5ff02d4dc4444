//! Writes the temporary file of a large object on its way in, before its version exists.
//!
//! Invariants: the content's id is drawn before the first byte and is in the trailer, so a file never passes for
//! another; the file and its name are durable before [`SingleWriter::finish`] returns (R8: only record and rename are
//! left to the engine); dirty pages stay bounded, because each [`WRITE_BACK`] bytes are written back while the next
//! ones arrive; whoever does not finish calls [`SingleWriter::abort`]. What a crash leaves behind is removed when
//! the mount is opened.

use super::disk::{Disk, DiskFile, Open};
use crate::format::ids::{MountIndex, Position};
use crate::format::paths;
use crate::format::single::TrailerBuilder;
use std::io;

/// Bytes gathered before they are written.
pub const WRITE_LEN: usize = 512 << 10;
/// Bytes written before they are pushed to the medium.
pub const WRITE_BACK: u64 = 32 << 20;

/// What is ready to become an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Id of the content.
    pub content: Position,
    /// Its length in bytes.
    pub length: u64,
    /// Its CRC32C.
    pub crc: u32,
}

/// A large object on its way in.
#[derive(Debug)]
pub struct SingleWriter<D: Disk> {
    disk: D,
    file: D::File,
    content: Position,
    trailer: TrailerBuilder,
    gathered: Vec<u8>,
    written: u64,
    written_back: u64,
}

impl<D: Disk> SingleWriter<D> {
    /// Creates the temporary file of the content `content`, which was never drawn before.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn create(disk: D, mount: MountIndex, content: Position) -> io::Result<Self> {
        disk.create_dir_all(paths::SINGLES_TMP)?;
        let file = disk.open(&paths::single_tmp(content), Open::Create)?;
        let trailer = TrailerBuilder::new(content, mount);
        let gathered = Vec::with_capacity(WRITE_LEN);
        Ok(Self { disk, file, content, trailer, gathered, written: 0, written_back: 0 })
    }

    /// Length so far.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.trailer.length()
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// Those of the disk; then only [`Self::abort`] is left.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.trailer.update(bytes);
        if self.gathered.len() + bytes.len() < WRITE_LEN {
            self.gathered.extend_from_slice(bytes);
            return Ok(());
        }
        self.file.write_all_vectored_at(self.written, &[&self.gathered, bytes])?;
        self.written += (self.gathered.len() + bytes.len()) as u64;
        self.gathered.clear();
        if self.written - self.written_back >= WRITE_BACK {
            self.file.write_back(self.written_back, self.written - self.written_back)?;
            self.written_back = self.written;
        }
        Ok(())
    }

    /// Writes the trailer and makes file and name durable.
    ///
    /// # Errors
    /// Those of the disk; the temporary file is removed then, as far as the disk allows.
    pub fn finish(mut self) -> io::Result<Finished> {
        match self.complete() {
            Ok(finished) => Ok(finished),
            Err(error) => {
                self.abort();
                Err(error)
            }
        }
    }

    fn complete(&mut self) -> io::Result<Finished> {
        let (trailer, footer) = self.trailer.clone().finish();
        self.file.write_all_vectored_at(self.written, &[&self.gathered, &trailer])?;
        self.file.sync_data()?;
        self.disk.sync_dir(paths::SINGLES_TMP)?;
        Ok(Finished { content: self.content, length: footer.length, crc: footer.payload_crc })
    }

    /// Removes the temporary file. A failure is harmless: it is removed when the mount is opened next.
    pub fn abort(self) {
        drop(self.file);
        remove_temp(&self.disk, self.content);
    }
}

/// Removes the temporary file of a content that will not become an object. Failures are harmless, see
/// [`SingleWriter::abort`].
pub fn remove_temp<D: Disk>(disk: &D, content: Position) {
    if let Err(error) = disk.unlink(&paths::single_tmp(content))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, path = paths::single_tmp(content), "a temporary file stays behind");
    }
}
