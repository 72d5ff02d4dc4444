//! The read side of a log: walks batches, tells a torn tail from damage in the middle (R10).
//!
//! Bytes whose sequence is not above the last good one never count. Bad bytes are damage only if a later batch is
//! valid: then they are passed over and reported, and what is intact of them is used. Otherwise they are the torn
//! tail: cut from the first bad record on.

use super::disk::{Disk, DiskFile, Open};
use super::error::{StoreError, StoreResult};
use super::log::LogIdentity;
use crate::format::envelope::FormatError;
use crate::format::ids::Sequence;
use crate::format::log::{
    BATCH_ALIGN, BATCH_HEADER_LEN, BatchHeader, NotALog, RawRecord, Records, SEGMENT_HEADER_LEN,
    SegmentHeader,
};
use crate::format::paths::MountFile;

/// A segment found on disk.
pub struct FoundSegment<F> {
    /// The file.
    pub file: F,
    /// Its header.
    pub header: SegmentHeader,
    /// Last record read in it; 0 if none.
    pub last: Sequence,
}

/// Bytes in the middle of the log that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDamage {
    /// Segment (its first sequence).
    pub segment: Sequence,
    /// Offset of the first bad batch.
    pub offset: u64,
    /// Last record before it.
    pub after: Sequence,
    /// First batch behind it.
    pub before: Sequence,
}

/// Where the walk ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanEnd {
    /// Index of the segment with the tail.
    pub segment: usize,
    /// Where the next batch goes.
    pub tail: u64,
    /// Last good sequence.
    pub last: Sequence,
    /// Damage in the middle.
    pub damage: Vec<LogDamage>,
    /// Whether a torn batch with intact records at its front stands at the tail: they were visited. Who applies them makes
    /// them a batch of their own first, so that the next start reads them, too.
    pub torn: Option<TornBatch>,
}

/// The intact front of the torn batch at the tail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TornBatch {
    /// Bytes of its body that are intact.
    pub body: Vec<u8>,
    /// Records in them.
    pub records: u32,
    /// First and last sequence.
    pub range: (Sequence, Sequence),
    /// Last sequence before the batch.
    pub predecessor: Sequence,
}

/// The segments of the mount's own log, oldest first. Files that never held a batch of this log are removed.
pub fn find_segments<D: Disk>(
    disk: &D,
    identity: &LogIdentity,
) -> StoreResult<Vec<FoundSegment<D::File>>> {
    let mut found = Vec::new();
    let folder = identity.folder();
    let entries = match disk.list(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(StoreError::io(format!("list {folder}"))(e)),
    };
    for entry in entries {
        let path = format!("{folder}/{}", entry.name);
        let name = match MountFile::parse(&path) {
            Some(MountFile::Binlog(name) | MountFile::Synclog(_, name)) => name,
            Some(_) | None => continue,
        };
        if name.log_id != identity.log_id {
            continue;
        }
        let file = disk.open(&path, Open::Write).map_err(StoreError::io(format!("open {path}")))?;
        let mut head = vec![0; SEGMENT_HEADER_LEN];
        file.read_full_at(0, &mut head).map_err(StoreError::io(format!("read {path}")))?;
        match SegmentHeader::decode(&head) {
            Ok(header)
                if header.first == name.first
                    && header.log_id == identity.log_id
                    && header.mount_uuid == identity.mount_uuid =>
            {
                found.push(FoundSegment { file, header, last: 0 });
            }
            Err(NotALog::Newer(major)) => {
                let (what, minor) = ("binlog segment", 0);
                return Err(FormatError::Newer { what, major, minor }.into());
            }
            // Named, but its header never became durable, so no batch in it was ever acknowledged; or its header
            // is damaged, which the walk then sees as a gap between its neighbours.
            Ok(_) | Err(NotALog::Blank | NotALog::Broken) => {
                tracing::warn!(%path, "log segment without a valid header is left out");
            }
        }
    }
    found.sort_by_key(|s| s.header.first);
    Ok(found)
}

/// Walks all batches with records above `after`, from `offset` in segment `start`.
pub fn scan<D: Disk>(
    identity: &LogIdentity,
    segments: &mut [FoundSegment<D::File>],
    start: usize,
    offset: u64,
    after: Sequence,
    visit: &mut dyn FnMut(&RawRecord<'_>) -> StoreResult<()>,
) -> StoreResult<ScanEnd> {
    let mut end = ScanEnd { segment: start, tail: offset, last: after, ..ScanEnd::default() };
    let mut at = offset;
    for index in start..segments.len() {
        let (segment, header) = (&segments[index].file, segments[index].header.clone());
        if index > start {
            at = SEGMENT_HEADER_LEN as u64;
            if header.predecessor != end.last && end.last != 0 {
                end.damage.push(LogDamage {
                    segment: segments[index - 1].header.first,
                    offset: end.tail,
                    after: end.last,
                    before: header.first,
                });
            }
            // A later segment with a valid header: what looked like a torn tail before it was damage.
            end.torn = None;
            end.last = end.last.max(header.predecessor);
        }
        end.segment = index;
        end.tail = at;
        let mut walk = Walk::<D> { identity, file: segment, header: &header, end: &mut end };
        walk.run(at, visit)?;
        let last = end.last;
        segments[index].last = last;
    }
    Ok(end)
}

struct Walk<'a, D: Disk> {
    identity: &'a LogIdentity,
    file: &'a D::File,
    header: &'a SegmentHeader,
    end: &'a mut ScanEnd,
}

impl<D: Disk> Walk<'_, D> {
    fn run(
        &mut self,
        mut at: u64,
        visit: &mut dyn FnMut(&RawRecord<'_>) -> StoreResult<()>,
    ) -> StoreResult<()> {
        loop {
            self.end.tail = at;
            let Some(batch) = self.batch_at(at)? else {
                match self.next_valid(at)? {
                    None => {
                        self.torn_tail(at, visit)?;
                        return Ok(());
                    }
                    Some((next, batch)) => {
                        self.damaged(at, visit)?;
                        let segment = self.header.first;
                        let (after, before) = (self.end.last, batch.first);
                        self.end.damage.push(LogDamage { segment, offset: at, after, before });
                        at = next;
                        continue;
                    }
                }
            };
            let body = self.body(at, &batch)?;
            for record in Records::new(&body) {
                // The body's checksum is right, so a record that does not parse was written so by a newer minor.
                let Ok(record) = record else { break };
                if record.sequence > self.end.last {
                    visit(&record)?;
                }
            }
            self.end.last = self.end.last.max(batch.last);
            at += batch.stride();
        }
    }

    /// A batch with a right seal, a plausible place in the order, and a right body.
    fn batch_at(&self, at: u64) -> StoreResult<Option<BatchHeader>> {
        let Some(batch) = self.header_at(at)? else { return Ok(None) };
        let body = self.body(at, &batch)?;
        let right = body.len() == batch.body_len as usize
            && crate::format::crc::crc32c(&body) == batch.body_crc;
        Ok(right.then_some(batch))
    }

    fn header_at(&self, at: u64) -> StoreResult<Option<BatchHeader>> {
        let mut head = [0; BATCH_HEADER_LEN];
        let got = self.file.read_full_at(at, &mut head).map_err(StoreError::io("read binlog"))?;
        match BatchHeader::decode(&head[..got], &self.header.secret) {
            Ok(batch) if batch.log_id == self.identity.log_id && batch.last > self.end.last => {
                Ok(Some(batch))
            }
            Ok(_) | Err(NotALog::Blank | NotALog::Broken) => Ok(None),
            Err(NotALog::Newer(major)) => {
                Err(FormatError::Newer { what: "binlog batch", major, minor: 0 }.into())
            }
        }
    }

    fn body(&self, at: u64, batch: &BatchHeader) -> StoreResult<Vec<u8>> {
        let mut body = vec![0; batch.body_len as usize];
        let from = at + BATCH_HEADER_LEN as u64;
        let got = self.file.read_full_at(from, &mut body).map_err(StoreError::io("read binlog"))?;
        body.truncate(got);
        Ok(body)
    }

    /// The next valid batch behind a bad one.
    fn next_valid(&self, bad: u64) -> StoreResult<Option<(u64, BatchHeader)>> {
        const WINDOW: usize = 1 << 20;
        let mut at = bad + BATCH_ALIGN as u64;
        let mut window = vec![0; WINDOW.min(usize::try_from(self.header.len).unwrap_or(WINDOW))];
        loop {
            let got = self.file.read_full_at(at, &mut window);
            let got = got.map_err(StoreError::io("read binlog"))?;
            if got == 0 {
                return Ok(None);
            }
            for (index, block) in window[..got].chunks(BATCH_ALIGN).enumerate() {
                if BatchHeader::decode(block, &self.header.secret).is_ok() {
                    let here = at + (index * BATCH_ALIGN) as u64;
                    if let Some(batch) = self.batch_at(here)? {
                        return Ok(Some((here, batch)));
                    }
                }
            }
            at += got as u64;
        }
    }

    /// Visits what is intact at the front of a bad batch; its bytes and last sequence.
    fn intact_front(
        &mut self,
        at: u64,
        visit: &mut dyn FnMut(&RawRecord<'_>) -> StoreResult<()>,
    ) -> StoreResult<TornBatch> {
        let mut torn = TornBatch { predecessor: self.end.last, ..TornBatch::default() };
        let Some(batch) = self.header_at(at)? else { return Ok(torn) };
        let body = self.body(at, &batch)?;
        let mut len = 0;
        for record in Records::new(&body) {
            let Ok(record) = record else { break };
            if record.sequence <= self.end.last || record.sequence > batch.last {
                break;
            }
            let bytes =
                crate::format::log::RECORD_HEADER_LEN + record.head.len() + record.payload.len();
            len += bytes + crate::format::log::padding(bytes);
            if torn.records == 0 {
                torn.range.0 = record.sequence;
            }
            torn.range.1 = record.sequence;
            torn.records += 1;
            self.end.last = record.sequence;
            visit(&record)?;
        }
        torn.body = body[..len.min(body.len())].to_vec();
        Ok(torn)
    }

    fn damaged(
        &mut self,
        at: u64,
        visit: &mut dyn FnMut(&RawRecord<'_>) -> StoreResult<()>,
    ) -> StoreResult<()> {
        self.intact_front(at, visit).map(|_| ())
    }

    fn torn_tail(
        &mut self,
        at: u64,
        visit: &mut dyn FnMut(&RawRecord<'_>) -> StoreResult<()>,
    ) -> StoreResult<()> {
        let torn = self.intact_front(at, visit)?;
        self.end.torn = (torn.records > 0).then_some(torn);
        Ok(())
    }
}
