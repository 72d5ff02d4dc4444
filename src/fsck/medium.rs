//! Where fsck reads from: names and bytes, never a write.
//!
//! Invariant: nothing here can change a disk; a folder is opened read only, and no lock is kept that a daemon could
//! stumble over.
#![allow(
    clippy::disallowed_methods,
    reason = "the offline check must not share the engine's way to the disk, so it opens files itself"
)]

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Files that stay open between two reads.
const OPEN_MAX: usize = 32;

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The last part of its path.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// Length in bytes.
    pub len: u64,
}

/// A mount as it lies on a disk. Paths are relative to its root.
pub trait Medium {
    /// Names in a folder, sorted; none if there is no such folder.
    ///
    /// # Errors
    /// Those of the system.
    fn list(&self, folder: &str) -> io::Result<Vec<Name>>;
    /// Length of a file; `None` if there is none.
    ///
    /// # Errors
    /// Those of the system.
    fn len(&self, path: &str) -> io::Result<Option<u64>>;
    /// Fills `buffer` from `offset` on; fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// Those of the system, `NotFound` among them.
    fn read(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A folder of the operating system.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    open: RefCell<VecDeque<(String, File)>>,
}

impl Folder {
    /// The folder at `root`.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn open(root: &Path) -> io::Result<Self> {
        std::fs::read_dir(root)?;
        Ok(Self { root: root.to_owned(), open: RefCell::default() })
    }

    /// Whether a daemon has the mount: it keeps an exclusive lock on the folder for as long as it serves. Looks by
    /// taking a shared lock and giving it back at once.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub fn is_served(&self) -> io::Result<bool> {
        let folder = File::open(&self.root)?;
        match flock(&folder, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                flock(&folder, FlockOperation::Unlock)?;
                Ok(false)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            // A file system without locks: no daemon would have started on it.
            Err(_) => Ok(false),
        }
    }

    fn with<T>(&self, path: &str, read: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        let mut open = self.open.borrow_mut();
        let at = match open.iter().position(|(name, _)| name == path) {
            Some(at) => at,
            None => {
                if open.len() >= OPEN_MAX {
                    open.pop_front();
                }
                open.push_back((path.to_owned(), open_regular(&self.root.join(path))?));
                open.len() - 1
            }
        };
        match open.get(at) {
            Some((_, file)) => read(file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Opens a file that can be read to an end. A pipe, a device, a socket or a link lies where a file should be: opening one
/// may hang for ever, or do something. What was put there between the look and the opening is looked at again.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let other = |kind: std::fs::FileType| {
        let what = if kind.is_dir() { "a folder" } else { "no regular file" };
        io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, and is not opened"))
    };
    let about = std::fs::symlink_metadata(path)?;
    if !about.is_file() {
        return Err(other(about.file_type()));
    }
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let about = file.metadata()?;
    if about.is_file() { Ok(file) } else { Err(other(about.file_type())) }
}

impl Medium for Folder {
    fn list(&self, folder: &str) -> io::Result<Vec<Name>> {
        let entries = match std::fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let about = std::fs::symlink_metadata(entry.path())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            names.push(Name { name, is_dir: about.is_dir(), len: about.len() });
        }
        names.sort_unstable();
        Ok(names)
    }

    fn len(&self, path: &str) -> io::Result<Option<u64>> {
        match std::fs::symlink_metadata(self.root.join(path)) {
            Ok(about) => Ok(Some(about.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(path, |file| {
            let mut done = 0;
            while done < buffer.len() {
                match file.read_at(&mut buffer[done..], offset + done as u64) {
                    Ok(0) => break,
                    Ok(n) => done += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(done)
        })
    }
}
