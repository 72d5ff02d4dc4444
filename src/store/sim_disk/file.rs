//! An open file of a [`SimDisk`]: each call asks for its verdict and does what that says.

use std::io::{self, ErrorKind};
use std::sync::MutexGuard;

use super::faults::{Call, Fault, Op, Verdict, crashed, eio, enospc};
use super::inode::Inode;
use super::medium::{Ino, Medium};
use super::{SimDisk, State};
use crate::store::disk::DiskFile;

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    ino: Ino,
    writable: bool,
}

impl SimFile {
    /// The handle was counted already.
    pub(super) const fn new(disk: SimDisk, ino: Ino, writable: bool) -> Self {
        Self { disk, ino, writable }
    }

    /// Starts a call; also refuses to change through a read handle.
    fn begin(&self, op: Op, offset: u64, len: u64) -> io::Result<(MutexGuard<'_, State>, Verdict)> {
        if op.mutates() && !self.writable && !matches!(op, Op::SyncData | Op::WriteBack) {
            return Err(io::Error::new(ErrorKind::PermissionDenied, "opened for reading"));
        }
        if offset.checked_add(len).is_none_or(|end| end > i64::MAX as u64) {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let mut state = self.disk.state();
        let path = state.medium.name(self.ino);
        let verdict = state.begin(Call { op, path, to: None, offset, len })?;
        Ok((state, verdict))
    }

    /// A change that has no parts.
    fn change(
        &self,
        op: Op,
        offset: u64,
        len: u64,
        apply: impl FnOnce(&mut Medium, Ino) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut state, verdict) = self.begin(op, offset, len)?;
        let medium = &mut state.medium;
        match verdict {
            Verdict::Go | Verdict::Fault(Fault::Short(_) | Fault::Torn { .. }) => {
                apply(medium, self.ino)
            }
            Verdict::Crash(share) => {
                if share >= 128 {
                    apply(medium, self.ino)?;
                }
                Err(crashed())
            }
            Verdict::Fault(fault @ (Fault::Eio | Fault::Enospc)) => {
                if matches!(op, Op::SyncData | Op::WriteBack) {
                    medium.change(self.ino, Inode::abandon)?;
                }
                Err(if fault == Fault::Eio { eio() } else { enospc() })
            }
            Verdict::Fault(Fault::Lost | Fault::Misdirect { .. }) => Ok(()),
        }
    }

    /// The bytes that fit, as a file system that is nearly full takes them.
    fn put(medium: &mut Medium, ino: Ino, offset: u64, data: &[u8]) -> io::Result<usize> {
        let fits = medium.file(ino)?.fits(offset, data.len() as u64, medium.free_blocks());
        if fits == 0 && !data.is_empty() {
            return Err(enospc());
        }
        let taken = usize::try_from(fits).map_or(data, |n| &data[..n]);
        medium.change(ino, |inode| inode.write(offset, taken))?;
        Ok(taken.len())
    }

    /// Leaves the end of one sector as it was.
    fn put_torn(
        medium: &mut Medium,
        ino: Ino,
        offset: u64,
        data: &[u8],
        keep: usize,
    ) -> io::Result<usize> {
        let keep = keep.min(data.len());
        let sector = medium.sector();
        let torn_at = offset + keep as u64;
        let left = usize::try_from(sector - torn_at % sector).unwrap_or(usize::MAX);
        let next = keep.saturating_add(left).min(data.len());
        medium.change(ino, |inode| {
            inode.write(offset, &data[..keep]);
            inode.write(offset + next as u64, &data[next..]);
            inode.extend(offset + data.len() as u64);
        })?;
        Ok(data.len())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let (state, verdict) = self.begin(Op::Read, offset, buffer.len() as u64)?;
        let most = match verdict {
            Verdict::Go | Verdict::Fault(Fault::Torn { .. } | Fault::Misdirect { .. }) => {
                buffer.len()
            }
            Verdict::Fault(Fault::Short(n)) => n.min(buffer.len()),
            Verdict::Fault(Fault::Lost) => 0,
            Verdict::Fault(Fault::Eio) => return Err(eio()),
            Verdict::Fault(Fault::Enospc) => return Err(enospc()),
            Verdict::Crash(_) => return Err(crashed()),
        };
        Ok(state.medium.file(self.ino)?.read(offset, &mut buffer[..most]))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<usize> {
        let (mut state, verdict) = self.begin(Op::Write, offset, data.len() as u64)?;
        let medium = &mut state.medium;
        match verdict {
            Verdict::Go => Self::put(medium, self.ino, offset, data),
            Verdict::Crash(share) => {
                let part = data.len() as u64 * share / 256;
                Self::put(medium, self.ino, offset, &data[..usize::try_from(part).unwrap_or(0)])?;
                Err(crashed())
            }
            Verdict::Fault(Fault::Eio) => Err(eio()),
            Verdict::Fault(Fault::Enospc) => Err(enospc()),
            Verdict::Fault(Fault::Short(n)) => {
                Self::put(medium, self.ino, offset, &data[..n.min(data.len())])
            }
            Verdict::Fault(Fault::Lost) => Ok(data.len()),
            Verdict::Fault(Fault::Misdirect { path, offset }) => {
                let ino = path.map_or(Ok(self.ino), |path| medium.find_file(&path))?;
                Self::put(medium, ino, offset, data)
            }
            Verdict::Fault(Fault::Torn { keep }) => {
                Self::put_torn(medium, self.ino, offset, data, keep)
            }
        }
    }

    fn write_vectored_at(&self, offset: u64, data: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match data {
            [one] => self.write_at(offset, one),
            many => {
                let parts: Vec<&[u8]> = many.iter().map(|part| &**part).collect();
                self.write_at(offset, &parts.concat())
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Op::SyncData, 0, 0, |medium, ino| medium.change(ino, Inode::sync))
    }

    fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        // What was started may land, and what was not may land just as well: no change to what is possible.
        self.change(Op::WriteBack, offset, len, |_, _| Ok(()))
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        self.change(Op::Allocate, offset, len, |medium, ino| {
            if medium.file(ino)?.blocks_missing(offset, len) > medium.free_blocks() {
                return Err(enospc());
            }
            medium.change(ino, |inode| inode.allocate(offset, len))
        })
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        self.change(Op::Punch, offset, len, |medium, ino| {
            medium.change(ino, |inode| inode.punch(offset, len))
        })
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        if state.control.crashed { Err(crashed()) } else { Ok(state.medium.file(self.ino)?.len()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Op::SetLen, len, 0, |medium, ino| {
            medium.change(ino, |inode| inode.set_len(len))
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.state().medium.count_handle(self.ino, false);
    }
}
