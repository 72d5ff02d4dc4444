//! How a mount can be read without blocking the thread that asks (design section 3: "a get: no hop").

use std::io;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{OsDisk, OsFile, retry};
use crate::store::disk::Disk;

/// `f_type` of tmpfs: reads are copies from memory and never wait.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// `f_type` of ramfs.
const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// What a read that may not wait came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nowait {
    /// So many bytes were in the page cache; fewer than asked for may mean "the rest is not", 0 may mean the end.
    Read(usize),
    /// Not in the page cache, or a write holds the file: ask again where waiting is allowed.
    WouldBlock,
    /// This file system does not know the question.
    Unsupported,
}

/// How gets are to be read on a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// Try [`OsFile::read_nowait`] inline, go to the read pool when it would block.
    Nowait,
    /// A plain read never waits (tmpfs): always inline.
    InlinePlain,
    /// Plain reads in the pool only (overlayfs, fuse, nfs ...).
    Pool,
}

impl OsFile {
    /// Reads what can be had without waiting for the medium, in one call.
    ///
    /// # Errors
    /// Those of `preadv2`; "would block" and "not supported" are values.
    pub fn read_nowait(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Nowait> {
        let flags = ReadWriteFlags::NOWAIT;
        let mut parts = [io::IoSliceMut::new(buffer)];
        loop {
            return match rustix::io::preadv2(&self.fd, &mut parts, offset, flags) {
                Ok(n) => Ok(Nowait::Read(n)),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(Nowait::WouldBlock),
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Nowait::Unsupported),
                Err(e) => Err(e.into()),
            };
        }
    }
}

impl OsDisk {
    /// Finds out how this mount is to be read, by its kind and by trying. Leaves no name behind.
    ///
    /// # Errors
    /// Those of `fstatfs`. A mount on which nothing can be tried is [`ReadMode::Pool`]: always right, only slower.
    pub fn probe_nowait(&self) -> io::Result<ReadMode> {
        let kind = retry(|| rustix::fs::fstatfs(&self.shared.root))?.f_type;
        if kind == TMPFS_MAGIC || kind == RAMFS_MAGIC {
            return Ok(ReadMode::InlinePlain);
        }
        let Some(file) = self.scratch_file() else { return Ok(ReadMode::Pool) };
        let mut byte = [0];
        Ok(match file.read_nowait(0, &mut byte) {
            Ok(Nowait::Read(_) | Nowait::WouldBlock) => ReadMode::Nowait,
            Ok(Nowait::Unsupported) | Err(_) => ReadMode::Pool,
        })
    }

    /// A file without a name, else any that lies in the root already.
    fn scratch_file(&self) -> Option<OsFile> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        if let Ok(fd) = retry(|| rustix::fs::openat(&self.shared.root, ".", flags, mode))
            && rustix::io::pwrite(&fd, b"?", 0).is_ok()
        {
            return Some(OsFile { fd, syncs: None });
        }
        let entry = self.list("").ok()?.into_iter().find(|entry| !entry.is_dir && entry.len > 0)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd = self.open_below(&entry.name, flags).ok()?;
        let found = rustix::fs::fstat(&fd).ok()?;
        (FileType::from_raw_mode(found.st_mode) == FileType::RegularFile)
            .then_some(OsFile { fd, syncs: None })
    }
}
