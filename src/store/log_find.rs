//! Where in a log something stands: the segments by their names, and the batches in one of them.
//!
//! A segment may be renamed and overwritten, or removed, while it is read. Invariants: a segment's name never comes
//! back, and it is renamed before it is overwritten; so whatever was concluded from segments whose names are still
//! there afterwards is true, and anything else is [`Found::Changed`]. Bytes count only under the seal of the
//! segment's present secret.

use super::disk::{Disk, DiskFile, Open};
use super::read::ReadError;
use super::reader::Reader;
use super::slice_builder::is_readable;
use super::sync::LogName;
use crate::format::crc::crc32c;
use crate::format::ids::Sequence;
use crate::format::log::{
    BATCH_ALIGN, BATCH_HEADER_LEN, BatchHeader, NotALog, SEGMENT_HEADER_LEN, SegmentHeader,
};
use crate::format::paths::{self, MountFile, SegmentName};
use std::io;

/// Bytes read at a time while a log's tail is followed.
const WINDOW: usize = 64 << 10;
/// Bytes read at a time while the next valid batch is looked for.
const SEARCH_WINDOW: usize = 1 << 20;
/// What a medium loses at a time.
const BLOCK: usize = 4096;

/// An open segment.
pub struct Segment {
    pub file: Box<dyn DiskFile>,
    pub header: SegmentHeader,
    path: String,
}

/// Which log, and where to look in it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Our own log, or one received from a peer.
    pub own: bool,
    /// Whose.
    pub log: LogName,
    /// The batch behind this is wanted.
    pub position: Sequence,
    /// It is known that the log goes at least to here.
    pub up_to: Sequence,
}

/// What a search came to.
pub enum Found {
    /// A readable batch that continues the log at the position begins in this segment at this offset.
    Batch(Segment, u64),
    /// Segments came or went meanwhile: search again.
    Changed,
    /// The log begins only behind this sequence.
    Gone(Sequence),
    /// Nothing can be read from the position up to this sequence, which is before or at `up_to`.
    Damaged(Sequence),
}

pub(super) enum Opened {
    Segment(Segment),
    /// The name is gone.
    Missing,
    /// It has no valid header: damaged, or about to be used for the first time.
    Unusable,
}

enum Walked {
    At(u64),
    /// The first valid batch behind the position has this predecessor.
    Ahead(Sequence),
    Nothing,
}

impl<D: Disk> Reader<D> {
    /// Looks for the batch that follows a position.
    pub(super) fn find_batch(&self, wanted: Wanted) -> Result<Found, ReadError> {
        let Wanted { position, up_to, .. } = wanted;
        let names = self.segment_names(wanted)?;
        let after = names.partition_point(|first| *first <= position.saturating_add(1));
        // A segment that begins here or before must hold the position, whatever its header says.
        let mut begun = after > 0;
        let (mut best, mut ahead) = (None, None);
        for first in &names[after.saturating_sub(1)..] {
            match self.open_segment(wanted, *first)? {
                Opened::Missing => return Ok(Found::Changed),
                Opened::Unusable => {}
                Opened::Segment(segment) if segment.header.predecessor <= position => {
                    begun = true;
                    best = Some(segment);
                }
                Opened::Segment(segment) => {
                    ahead = Some(segment.header.predecessor);
                    break;
                }
            }
        }
        let mut before = ahead.unwrap_or(up_to);
        if let Some(segment) = best {
            match walk(&segment, wanted)? {
                Walked::At(offset) => return Ok(Found::Batch(segment, offset)),
                Walked::Ahead(predecessor) => before = predecessor,
                Walked::Nothing => {}
            }
        }
        let now = self.segment_names(wanted)?;
        if names.iter().any(|name| now.binary_search(name).is_err()) {
            return Ok(Found::Changed);
        }
        Ok(if begun { Found::Damaged(before.min(up_to)) } else { Found::Gone(before) })
    }

    /// The names of the log's segments, oldest first.
    fn segment_names(&self, wanted: Wanted) -> Result<Vec<Sequence>, ReadError> {
        let folder = if wanted.own {
            paths::BINLOG.to_owned()
        } else {
            format!("{}/{}", paths::SYNCLOG, wanted.log.machine)
        };
        let entries = match self.disk().list(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(ReadError::io(folder)(e)),
        };
        let mut names: Vec<Sequence> = entries
            .iter()
            .filter_map(|entry| match MountFile::parse(&format!("{folder}/{}", entry.name)) {
                Some(MountFile::Binlog(name) | MountFile::Synclog(_, name)) => Some(name),
                Some(_) | None => None,
            })
            .filter(|name| name.log_id == wanted.log.log_id)
            .map(|name| name.first)
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn open_segment(
        &self,
        wanted: Wanted,
        first: Sequence,
    ) -> Result<Opened, ReadError> {
        let LogName { machine, log_id } = wanted.log;
        let name = SegmentName { log_id, first };
        let file =
            if wanted.own { MountFile::Binlog(name) } else { MountFile::Synclog(machine, name) };
        let path = file.path();
        let file = match self.disk().open(&path, Open::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Opened::Missing),
            Err(e) => return Err(ReadError::io(path)(e)),
        };
        let mut bytes = vec![0; SEGMENT_HEADER_LEN];
        let got = file.read_full_at(0, &mut bytes).map_err(ReadError::io(path.as_str()))?;
        match SegmentHeader::decode(&bytes[..got]) {
            Ok(header)
                if header.first == first
                    && header.log_id == log_id
                    && header.machine == machine
                    && header.mount == self.mount() =>
            {
                Ok(Opened::Segment(Segment { file: Box::new(file), header, path }))
            }
            Err(NotALog::Newer(major)) => Err(ReadError::Newer(major)),
            Ok(_) | Err(NotALog::Blank | NotALog::Broken) => Ok(Opened::Unusable),
        }
    }
}

/// Looks for the batch that follows the position in a segment which begins at it or before.
fn walk(segment: &Segment, wanted: Wanted) -> Result<Walked, ReadError> {
    let mut window = Window::new(segment);
    let mut at = SEGMENT_HEADER_LEN as u64;
    loop {
        if let Some(batch) = window.header_at(at)? {
            if batch.last <= wanted.position {
                at += batch.stride();
                continue;
            }
            if batch.predecessor > wanted.position {
                return Ok(Walked::Ahead(batch.predecessor));
            }
            if window.body(at, &batch)?.is_some_and(|body| is_readable(&batch, body)) {
                return Ok(Walked::At(at));
            }
        }
        // Damage, or the end: whatever valid batch comes next.
        match window.next_header(at + BATCH_ALIGN as u64)? {
            Some(next) => at = next,
            None => return Ok(Walked::Nothing),
        }
    }
}

/// The bytes of a segment, read ahead. Lives for one call: what it holds is as old as its last read.
pub struct Window<'a> {
    segment: &'a Segment,
    at: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    /// Nothing is read yet.
    #[must_use]
    pub const fn new(segment: &'a Segment) -> Self {
        Self { segment, at: 0, bytes: Vec::new() }
    }

    /// A sealed batch header of this log.
    ///
    /// # Errors
    /// `Io`, `Newer`.
    pub fn header_at(&mut self, at: u64) -> Result<Option<BatchHeader>, ReadError> {
        let header = &self.segment.header;
        match BatchHeader::decode(self.get(at, BATCH_HEADER_LEN, WINDOW)?, &header.secret) {
            Ok(batch) => {
                let inside = at.saturating_add(batch.stride()) <= header.len;
                let grows = batch.predecessor < batch.last;
                Ok((batch.log_id == header.log_id && inside && grows).then_some(batch))
            }
            Err(NotALog::Newer(major)) => Err(ReadError::Newer(major)),
            Err(NotALog::Blank | NotALog::Broken) => Ok(None),
        }
    }

    /// The verified body of the batch at `at`.
    ///
    /// # Errors
    /// `Io`.
    pub fn body(&mut self, at: u64, batch: &BatchHeader) -> Result<Option<&[u8]>, ReadError> {
        let len = batch.body_len as usize;
        let all = self.get(at, BATCH_HEADER_LEN + len, WINDOW)?;
        let body = all.get(BATCH_HEADER_LEN..BATCH_HEADER_LEN + len);
        Ok(body.filter(|body| crc32c(body) == batch.body_crc))
    }

    /// Where the next sealed header stands, at or behind `from`.
    pub(super) fn next_header(&mut self, from: u64) -> Result<Option<u64>, ReadError> {
        let mut at = from;
        loop {
            let block = self.get(at, BATCH_HEADER_LEN, SEARCH_WINDOW)?;
            if block.len() < BATCH_HEADER_LEN {
                return Ok(None);
            }
            if self.header_at(at)?.is_some() {
                return Ok(Some(at));
            }
            at += BATCH_ALIGN as u64;
        }
    }

    /// `len` bytes from `at` on, fewer if the file ends. Reads at least `ahead` bytes if it has to read.
    fn get(&mut self, at: u64, len: usize, ahead: usize) -> Result<&[u8], ReadError> {
        let have = at.checked_sub(self.at).and_then(|from| usize::try_from(from).ok());
        let from = match have {
            Some(from) if from + len <= self.bytes.len() => from,
            Some(_) | None => {
                self.fill(at, len.max(ahead))?;
                0
            }
        };
        Ok(&self.bytes[from..self.bytes.len().min(from + len)])
    }

    fn fill(&mut self, at: u64, len: usize) -> Result<(), ReadError> {
        let rest = usize::try_from(self.segment.header.len.saturating_sub(at)).unwrap_or(len);
        self.bytes.clear();
        self.bytes.resize(len.min(rest), 0);
        self.at = at;
        let got = read_around(&*self.segment.file, at, &mut self.bytes);
        let got = got.map_err(ReadError::io(self.segment.path.as_str()))?;
        self.bytes.truncate(got);
        Ok(())
    }
}

/// Reads; blocks that the medium has lost read as zeros, which never verify, so that the rest can be had (P3).
///
/// # Errors
/// Not a single block can be read.
pub(super) fn read_around(file: &dyn DiskFile, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let error = match file.read_full_at(at, buffer) {
        Ok(got) => return Ok(got),
        Err(error) => error,
    };
    let (mut got, mut any) = (0, false);
    for block in buffer.chunks_mut(BLOCK) {
        match file.read_full_at(at + got as u64, block) {
            Ok(n) => {
                any = true;
                got += n;
                if n < block.len() {
                    break;
                }
            }
            Err(_) => {
                block.fill(0);
                got += block.len();
            }
        }
    }
    if any { Ok(got) } else { Err(error) }
}
