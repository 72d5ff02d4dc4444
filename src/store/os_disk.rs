//! [`Disk`] on a real directory, by system calls through rustix (R4: every call blocks).
//!
//! Invariants:
//! - Every path is resolved *below the descriptor of the root* that was opened once. A mount that is unmounted or
//!   replaced underneath is therefore never followed: the descriptor stays with the old file system, and
//!   [`OsDisk::identity`] against [`Identity::of_path`] tells that the path now leads elsewhere.
//! - Symbolic links are never followed, `..` is never accepted, only regular files are opened as files, and every
//!   descriptor is close-on-exec.
//! - A name that was found rather than made by this value may be one that a killed predecessor never made durable:
//!   [`Disk::create_dir_all`] syncs the parent of a folder the first time it meets it, whoever created it.

mod identity;
mod read_mode;
#[cfg(test)]
mod tests;

pub use identity::{Identity, LockError, is_mount_root};
pub use read_mode::{Nowait, ReadMode};

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::disk::{Disk, DiskFile, Entry, Open, Space};
use super::histogram::Histogram;

/// Rights of new files: the daemon's user only, what is stored is nobody else's business.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Rights of new folders.
const FOLDER_MODE: Mode = Mode::RWXU;
/// How many folders are remembered as durable; past that the memory starts afresh (a few more syncs, no harm).
const DURABLE_FOLDERS_MAX: usize = 4096;

/// One mount: a directory that is held open. Clones share the descriptor, and with it the lock.
#[derive(Clone, Debug)]
pub struct OsDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: OwnedFd,
    /// Folders whose name in their parent is known to be durable.
    durable_folders: Mutex<HashSet<String>>,
    /// How long each fdatasync took, in microseconds.
    syncs: Option<Arc<Histogram>>,
}

/// An open regular file.
#[derive(Debug)]
pub struct OsFile {
    fd: OwnedFd,
    syncs: Option<Arc<Histogram>>,
}

impl OsDisk {
    /// Opens the directory `root` (here, and only here, links in the operator's path are followed).
    ///
    /// # Errors
    /// Those of `open`: `NotFound`, `NotADirectory`, `PermissionDenied`, ...
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = retry(|| rustix::fs::open(root, flags, Mode::empty()))?;
        let durable_folders = Mutex::new(HashSet::new());
        Ok(Self { shared: Arc::new(Shared { root, durable_folders, syncs: None }) })
    }

    /// The same folder; how long each fdatasync of its files takes is counted in `syncs`, in microseconds.
    #[must_use]
    pub fn measured(self, syncs: Arc<Histogram>) -> Self {
        match Arc::try_unwrap(self.shared) {
            Ok(shared) => Self { shared: Arc::new(Shared { syncs: Some(syncs), ..shared }) },
            // Somebody uses it already: it stays as it is.
            Err(shared) => Self { shared },
        }
    }

    /// Opens `path` below the root without following links; `""` is the root itself.
    fn open_below(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = if flags.contains(OFlags::CREATE) { FILE_MODE } else { Mode::empty() };
        if path.is_empty() {
            return Ok(retry(|| rustix::fs::openat(&self.shared.root, ".", flags, mode))?);
        }
        check_path(path)?;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match retry(|| rustix::fs::openat2(&self.shared.root, path, flags, mode, beneath)) {
            // An old kernel, or a sandbox that does not know the call: the same walk by hand.
            Err(Errno::NOSYS | Errno::PERM) => self.walk(path, flags, mode),
            other => Ok(other?),
        }
    }

    /// What `openat2` does, component by component.
    fn walk(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder: Option<OwnedFd> = None;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let (flags, mode) = if last { (flags, mode) } else { (step, Mode::empty()) };
            let next = match &folder {
                None => retry(|| rustix::fs::openat(&self.shared.root, part, flags, mode))?,
                Some(fd) => retry(|| rustix::fs::openat(fd, part, flags, mode))?,
            };
            if last {
                return Ok(next);
            }
            folder = Some(next);
        }
        Err(io::ErrorKind::InvalidInput.into())
    }

    /// The folder that holds `path`, open as a mere place, and the name in it.
    fn parent<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        check_path(path)?;
        let (folder, name) = split(path);
        Ok((self.open_below(folder, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }

    fn known_durable(&self, folder: &str) -> bool {
        let known = self.shared.durable_folders.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(folder)
    }

    fn remember_durable(&self, folder: &str) {
        let mut known = self.shared.durable_folders.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= DURABLE_FOLDERS_MAX {
            known.clear();
        }
        known.insert(folder.to_owned());
    }

    /// Creates one folder (its parent exists) and makes its name durable.
    fn create_folder(&self, path: &str) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        match retry(|| rustix::fs::mkdirat(&parent, name, FOLDER_MODE)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                // A folder is fine; a file or a link of that name is not.
                self.open_below(path, OFlags::PATH | OFlags::DIRECTORY)?;
            }
            Err(e) => return Err(e.into()),
        }
        self.sync_dir(split(path).0)?;
        self.remember_durable(path);
        Ok(())
    }
}

impl Disk for OsDisk {
    type File = OsFile;

    fn open(&self, path: &str, how: Open) -> io::Result<OsFile> {
        if path.is_empty() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let flags = match how {
            Open::Read => OFlags::RDONLY,
            Open::Write => OFlags::RDWR,
            Open::Create => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        // NONBLOCK: a fifo that someone left at our name must not hang the mount. No effect on regular files.
        let flags = flags | OFlags::NONBLOCK;
        // Nobody asks when a chunkfile was last read, and every read would look whether that is to be noted. Only the owner
        // of a file may say so.
        let fd = match self.open_below(path, flags | OFlags::NOATIME) {
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                self.open_below(path, flags)?
            }
            other => other?,
        };
        match FileType::from_raw_mode(retry(|| rustix::fs::fstat(&fd))?.st_mode) {
            FileType::RegularFile => Ok(OsFile { fd, syncs: self.shared.syncs.clone() }),
            FileType::Directory => Err(io::ErrorKind::IsADirectory.into()),
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
            }
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_folder, from_name) = self.parent(from)?;
        let (to_folder, to_name) = self.parent(to)?;
        Ok(retry(|| rustix::fs::renameat(&from_folder, from_name, &to_folder, to_name))?)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_folder, from_name) = self.parent(from)?;
        let (to_folder, to_name) = self.parent(to)?;
        let none = AtFlags::empty();
        Ok(retry(|| rustix::fs::linkat(&from_folder, from_name, &to_folder, to_name, none))?)
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        Ok(retry(|| rustix::fs::unlinkat(&folder, name, AtFlags::empty()))?)
    }

    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        check_path(path)?;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for folder in ends.map(|end| &path[..end]) {
            if !self.known_durable(folder) {
                self.create_folder(folder)?;
            }
        }
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let fd = self.open_below(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(rustix::fs::fsync(&fd)?)
    }

    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        let fd = self.open_below(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for found in rustix::fs::Dir::read_from(&fd)? {
            let found = found?;
            let name = found.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue, // removed since it was read
                Err(e) => return Err(e.into()),
            };
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let len = if is_dir { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
            entries.push(Entry { name: name.to_string_lossy().into_owned(), is_dir, len });
        }
        entries.sort();
        Ok(entries)
    }

    fn stat(&self, path: &str) -> io::Result<Option<u64>> {
        let (folder, name) = match self.parent(path) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        match retry(|| rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Some(u64::try_from(stat.st_size).unwrap_or(0)))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn space(&self) -> io::Result<Space> {
        let found = retry(|| rustix::fs::fstatvfs(&self.shared.root))?;
        let block = found.f_frsize;
        Ok(Space {
            total: found.f_blocks.saturating_mul(block),
            free: found.f_bavail.saturating_mul(block),
        })
    }
}

impl DiskFile for OsFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.fd, buffer, offset)?)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::pwrite(&self.fd, data, offset)?)
    }

    fn write_vectored_at(&self, offset: u64, data: &[io::IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.fd, data, offset)?)
    }

    #[allow(clippy::disallowed_methods, reason = "measures, decides nothing")]
    fn sync_data(&self) -> io::Result<()> {
        let begun = self.syncs.as_ref().map(|_| std::time::Instant::now());
        let done = rustix::fs::fdatasync(&self.fd);
        if let (Some(syncs), Some(begun)) = (&self.syncs, begun) {
            syncs.record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        Ok(done?)
    }

    /// There is no `sync_file_range` without `unsafe` in the libraries in use, so this is a whole fdatasync: more than
    /// was promised, slower than need be on a file with much dirty data elsewhere. An error is as final as there.
    fn write_back(&self, _offset: u64, len: u64) -> io::Result<()> {
        if len == 0 { Ok(()) } else { self.sync_data() }
    }

    /// `POSIX_FADV_DONTNEED` starts the write-back of dirty pages and drops clean ones only.
    fn begin_write_back(&self, offset: u64, len: u64) {
        let Some(len) = std::num::NonZeroU64::new(len) else { return };
        // Advice: where it is not taken, the next sync has more to do.
        rustix::fs::fadvise(&self.fd, offset, Some(len), rustix::fs::Advice::DontNeed)
            .unwrap_or_default();
    }

    /// Where the file system cannot reserve, the file is merely extended: a later write may then meet `StorageFull`.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match retry(|| rustix::fs::fallocate(&self.fd, FallocateFlags::empty(), offset, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let end = offset.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
                if self.len()? < end { self.set_len(end) } else { Ok(()) }
            }
            other => Ok(other?),
        }
    }

    /// Where the file system cannot punch, nothing happens: the space stays taken, **and the range still reads as
    /// before**. Callers must not take zeros for granted; what is in use is said by headers, never by holes.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry(|| rustix::fs::fallocate(&self.fd, flags, offset, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => Ok(other?),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(&self.fd)?.st_size).unwrap_or(0))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(retry(|| rustix::fs::ftruncate(&self.fd, len))?)
    }
}

/// Repeats a call that a signal interrupted. Reads, writes and syncs do not come here: their callers know better.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Folder and name of a path that was checked.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Paths are built from integers by ourselves; anything else is a bug or an attack.
fn check_path(path: &str) -> io::Result<()> {
    let fine = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if path.split('/').all(fine) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path below the mount"))
    }
}
