//! The one seam between the engine and the medium (R4: blocking; design section 11).
//!
//! A [`Disk`] is one mount: every path is relative to its root, uses `/`, and is built from parsed integers only.
//! Two implementations: [`OsDisk`](super::os_disk::OsDisk) and, for tests, [`SimDisk`](super::sim_disk::SimDisk),
//! which loses un-synced sectors, tears, flips, misdirects, fills up and fails the n-th call.

use std::io;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Existing, read only.
    Read,
    /// Existing, read and write.
    Write,
    /// Must not exist; read and write. Durable only after `sync_dir` of its folder.
    Create,
}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The last part of the path.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// Length in bytes (0 for a folder).
    pub len: u64,
}

/// Space of the file system under the mount, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Size.
    pub total: u64,
    /// What an unprivileged writer may still take.
    pub free: u64,
}

/// A mount's folder.
///
/// `sync_dir(folder)` makes creates, renames and unlinks *in that folder* durable, and nothing else does.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens or creates a file.
    fn open(&self, path: &str, how: Open) -> io::Result<Self::File>;
    /// Renames over whatever is there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// A second name for a file (conflict archive).
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn unlink(&self, path: &str) -> io::Result<()>;
    /// Creates a folder and those above it; fine if it exists. New folders are made durable (each parent is synced).
    fn create_dir_all(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a folder durable. `""` is the mount's root.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Names in a folder, sorted; `NotFound` if there is none.
    fn list(&self, path: &str) -> io::Result<Vec<Entry>>;
    /// Length of a file, `None` if there is none.
    fn stat(&self, path: &str) -> io::Result<Option<u64>>;
    /// Space of the file system.
    fn space(&self) -> io::Result<Space>;
}

/// An open file. Positioned calls only, so that a handle may be shared.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes; 0 at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes up to `data.len()` bytes; may be short.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<usize>;
    /// Writes several buffers as one; may be short.
    fn write_vectored_at(&self, offset: u64, data: &[io::IoSlice<'_>]) -> io::Result<usize>;
    /// fdatasync: what was written and the length are durable when it returns. An error is final (R9).
    fn sync_data(&self) -> io::Result<()>;
    /// Starts write-back of a range and waits for it, without any durability promise (slices of a checkpoint).
    fn write_back(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Has the system begin to write freshly appended bytes, without waiting and without any promise. Only for ranges
    /// that nobody reads soon from before the append: what is clean in them may leave the page cache.
    fn begin_write_back(&self, _offset: u64, _len: u64) {}
    /// Reserves blocks without changing what is read; grows the length.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Gives the blocks of a range back; it reads as zeros from now on. The length stays.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the length is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reads until `buffer` is full or the file ends; how many bytes were read.
    fn read_full_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(offset + done as u64, &mut buffer[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// Writes all of `data`; a short write is continued, a write of nothing is an error.
    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_vectored_at(offset, &[data])
    }

    /// Writes all of `parts`, one after the other, in as few calls as the medium allows.
    fn write_all_vectored_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        /// What one `pwritev` takes at most (IOV_MAX).
        const SLICES_MAX: usize = 1024;
        let mut at = offset;
        for group in parts.chunks(SLICES_MAX) {
            let mut slices: Vec<io::IoSlice<'_>> =
                group.iter().filter(|p| !p.is_empty()).map(|p| io::IoSlice::new(p)).collect();
            let mut rest: &mut [io::IoSlice<'_>] = &mut slices;
            while !rest.is_empty() {
                match self.write_vectored_at(at, rest) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(n) => {
                        at += n as u64;
                        io::IoSlice::advance_slices(&mut rest, n);
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }
}
