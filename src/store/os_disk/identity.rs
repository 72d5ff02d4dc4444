//! Whose directory is this: lock, identity, mount root, writability. What a daemon re-checks to fence a mount that was
//! unmounted, replaced or went read-only underneath it (design section 4, P6).

use std::io;
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, CWD, FlockOperation, Mode, OFlags, StatVfsMountFlags, StatxAttributes,
    StatxFlags,
};
use rustix::io::Errno;

use super::{OsDisk, retry};

/// Which directory of which file system: equal exactly if it is the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device of the file system.
    pub dev: u64,
    /// Inode number on it.
    pub ino: u64,
}

impl Identity {
    /// Where `path` leads now.
    ///
    /// # Errors
    /// `NotFound` when nothing is there any more, and the others of `stat`.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        let stat = retry(|| rustix::fs::stat(path))?;
        Ok(Self { dev: stat.st_dev, ino: stat.st_ino })
    }
}

/// Why a mount could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another open of the directory, most likely another daemon, holds the lock.
    #[error("already locked by another process")]
    Held,
    /// The lock could not be asked for.
    #[error("cannot be locked: {0}")]
    Io(#[from] io::Error),
}

impl OsDisk {
    /// Takes the exclusive lock on the directory itself (never on a file in it: that could be renamed over and taken
    /// twice). Held until the last clone of this value is gone or the process ends, however it ends. Taking it again
    /// through a clone is fine.
    ///
    /// # Errors
    /// [`LockError::Held`] at once, without waiting.
    pub fn lock(&self) -> Result<(), LockError> {
        let wanted = FlockOperation::NonBlockingLockExclusive;
        match retry(|| rustix::fs::flock(&self.shared.root, wanted)) {
            Ok(()) => Ok(()),
            Err(Errno::WOULDBLOCK) => Err(LockError::Held),
            Err(e) => Err(LockError::Io(e.into())),
        }
    }

    /// Identity of the directory that is held open. Compared with [`Identity::of_path`] it tells whether the
    /// operator's path still leads here.
    ///
    /// # Errors
    /// Those of `fstat`.
    pub fn identity(&self) -> io::Result<Identity> {
        let stat = retry(|| rustix::fs::fstat(&self.shared.root))?;
        Ok(Identity { dev: stat.st_dev, ino: stat.st_ino })
    }

    /// Whether files may be created here: not read-only (also not remounted so after an error), and permitted.
    ///
    /// # Errors
    /// Those that say neither yes nor no.
    pub fn writable(&self) -> io::Result<bool> {
        let mount = retry(|| rustix::fs::fstatvfs(&self.shared.root))?;
        if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(false);
        }
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        let ask = || rustix::fs::accessat(&self.shared.root, ".", wanted, AtFlags::empty());
        match retry(ask) {
            Ok(()) => Ok(true),
            Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// Whether `path` is the root of a mounted file system.
///
/// # Errors
/// `NotFound`, `NotADirectory`, and the others of `open` and `statx`.
pub fn is_mount_root(path: &Path) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = retry(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))?;
    let ask = || rustix::fs::statx(&folder, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    match retry(ask) {
        Ok(found) if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            return Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        }
        Ok(_) | Err(Errno::NOSYS) => {} // before Linux 5.8
        Err(e) => return Err(e.into()),
    }
    // The classic question: is the parent on another device? (Blind to bind mounts of the same file system.)
    let here = retry(|| rustix::fs::fstat(&folder))?;
    let above = retry(|| rustix::fs::statat(&folder, "..", AtFlags::empty()))?;
    Ok(here.st_dev != above.st_dev || here.st_ino == above.st_ino)
}
