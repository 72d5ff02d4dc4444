//! Bytes that were found damaged and are about to be replaced, kept for people: `damaged/<time>-<number>`.
//!
//! Each file begins with a line that says what it was; the bytes follow as they were found. Invariants: bounded in number and
//! in bytes, the oldest go first; keeping them never stands in the way of a repair.

use super::disk::{Disk, DiskFile, Entry, Open};
use super::read::ReadError;
use super::reader::Reader;
use crate::format::paths::{DAMAGED, MountFile};
use std::io::{self, ErrorKind};

/// Bytes that are kept in all.
const BYTES_MAX: u64 = 64 << 20;
/// Files.
const FILES_MAX: usize = 1000;
/// Bytes of one file; of what is longer the front is kept.
pub const ONE_MAX: usize = 4 << 20;

/// Keeps `bytes`, which were `what`. A failure is only said.
pub fn keep_aside<D: Disk>(disk: &D, now_ms: u64, what: &str, bytes: &[u8]) {
    if let Err(error) = keep(disk, now_ms, what, bytes) {
        tracing::warn!(%error, what, "damaged bytes are replaced and could not be kept aside");
    }
}

/// A part of a file that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The file.
    pub path: String,
    /// Where the damage begins.
    pub from: u64,
    /// Behind it; what is there of it counts.
    pub until: u64,
}

impl Stretch {
    /// All of a file.
    #[must_use]
    pub fn whole(path: &str) -> Self {
        Self { path: path.to_owned(), from: 0, until: u64::MAX }
    }
}

/// Keeps what can be read of a stretch. A file that is gone leaves nothing.
pub fn put_aside<D: Disk>(disk: &D, now_ms: u64, stretch: &Stretch) {
    let Stretch { path, from, until } = stretch;
    let read = || -> io::Result<Vec<u8>> {
        let file = disk.open(path, Open::Read)?;
        let len = until.min(&file.len()?).saturating_sub(*from);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(ONE_MAX).min(ONE_MAX)];
        let got = file.read_full_at(*from, &mut bytes)?;
        bytes.truncate(got);
        Ok(bytes)
    };
    let bytes = match read() {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        // A sector that is lost has nothing to be kept.
        Err(_) => Vec::new(),
    };
    keep_aside(disk, now_ms, &format!("{path} from byte {from} on"), &bytes);
}

impl<D: Disk> Reader<D> {
    /// How many files are kept aside on this mount, and how many bytes they take.
    ///
    /// # Errors
    /// `Io`, `Fenced`.
    pub fn kept_aside(&self) -> Result<(u64, u64), ReadError> {
        self.check()?;
        match self.disk().list(DAMAGED) {
            Ok(kept) => Ok((kept.len() as u64, kept.iter().map(|entry| entry.len).sum())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok((0, 0)),
            Err(e) => Err(ReadError::io(DAMAGED)(e)),
        }
    }
}

fn keep<D: Disk>(disk: &D, now_ms: u64, what: &str, bytes: &[u8]) -> io::Result<()> {
    let bytes = &bytes[..bytes.len().min(ONE_MAX)];
    disk.create_dir_all(DAMAGED)?;
    let mut known: Vec<(String, Entry)> = Vec::new();
    let mut number = 0;
    for entry in disk.list(DAMAGED)? {
        let path = format!("{DAMAGED}/{}", entry.name);
        if let Some(MountFile::Damaged(at, n)) = MountFile::parse(&path) {
            if at == now_ms {
                number = number.max(n.wrapping_add(1));
            }
            known.push((path, entry));
        }
    }
    // Names sort by time.
    let mut total: u64 = known.iter().map(|(_, entry)| entry.len).sum::<u64>();
    total += (what.len() + bytes.len()) as u64;
    let mut count = known.len() + 1;
    for (path, entry) in &known {
        if total <= BYTES_MAX && count <= FILES_MAX {
            break;
        }
        disk.unlink(path)?;
        total -= entry.len;
        count -= 1;
    }
    let file = disk.open(&MountFile::Damaged(now_ms, number).path(), Open::Create)?;
    let line = format!("{what}, {} bytes as they were found:\n", bytes.len());
    file.write_all_vectored_at(0, &[line.as_bytes(), bytes])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sim_disk::SimDisk;

    #[test]
    fn what_is_kept_aside_is_bounded_and_the_oldest_goes_first() {
        let disk = SimDisk::default();
        for n in 0..40u64 {
            keep(&disk, n / 2, "a slot", &vec![7; 2 << 20]).unwrap();
        }
        let left = disk.list(DAMAGED).unwrap();
        let bytes: u64 = left.iter().map(|entry| entry.len).sum();
        assert!(bytes <= BYTES_MAX + 1024 && bytes > BYTES_MAX / 2, "{bytes}");
        assert_eq!(left.last().unwrap().name, format!("{:016x}-{:08x}", 19, 1));
        keep(&disk, 20, "much", &vec![1; 2 * ONE_MAX]).unwrap();
        assert!(disk.list(DAMAGED).unwrap().last().unwrap().len < ONE_MAX as u64 + 100);
        for n in 0..FILES_MAX as u64 + 50 {
            keep(&disk, 100 + n, "x", b"y").unwrap();
        }
        assert!(disk.list(DAMAGED).unwrap().len() <= FILES_MAX);
    }
}
