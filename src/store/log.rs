//! The write side of a log: one batch, one write, one fdatasync (R8).
//!
//! Invariants: `current.tail` is a multiple of 64 and everything before it is durable or cut; a segment's file is
//! overwritten only after a checkpoint covers all of it; a new segment's name is durable before a batch in it counts.

use super::disk::{Disk, DiskFile, Open};
use super::error::{StoreError, StoreResult};
use super::options::{MountOptions, Planted, SyncMode};
use crate::format::ids::{LogId, MachineId, Sequence};
use crate::format::log::{
    BATCH_HEADER_LEN, BatchHeader, RECORD_HEADER_LEN, SEGMENT_HEADER_LEN, SegmentHeader, padding,
    record_header,
};
use crate::format::paths::{MountFile, SegmentName};
use crate::format::{crc, paths};
use bytes::Bytes;
use std::collections::VecDeque;

/// Whose log it is.
#[derive(Clone, Copy, Debug)]
pub struct LogIdentity {
    /// Machine.
    pub machine: MachineId,
    /// Life of the log.
    pub log_id: LogId,
    /// Mount index.
    pub mount: u8,
    /// Mount.
    pub mount_uuid: [u8; 16],
    /// Whether it is a peer's log, received (a synclog), or our own (the binlog).
    pub received: bool,
}

impl LogIdentity {
    /// The folder of its segments.
    #[must_use]
    pub fn folder(&self) -> String {
        if self.received {
            format!("{}/{}", paths::SYNCLOG, self.machine)
        } else {
            paths::BINLOG.to_owned()
        }
    }

    /// Path of the segment that begins with `first`.
    #[must_use]
    pub fn path(&self, first: Sequence) -> String {
        let name = SegmentName { log_id: self.log_id, first };
        let file = if self.received {
            MountFile::Synclog(self.machine, name)
        } else {
            MountFile::Binlog(name)
        };
        file.path()
    }
}

/// A segment that is full.
#[derive(Clone, Debug)]
pub struct FullSegment {
    /// Its name.
    pub first: Sequence,
    /// Last record in it.
    pub last: Sequence,
    /// Length of the file.
    pub len: u64,
}

/// The segment being written.
pub struct Current<F> {
    /// The file.
    pub file: F,
    /// Its header.
    pub header: SegmentHeader,
    /// Where the next batch goes.
    pub tail: u64,
}

/// A record ready to be appended.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Kind of the record.
    pub kind: u8,
    /// Its number.
    pub sequence: Sequence,
    /// Its head.
    pub head: Vec<u8>,
    /// Its payload.
    pub payload: Bytes,
    /// CRC32C of the payload.
    pub payload_crc: u32,
}

impl Pending {
    /// Bytes in the body of a batch.
    #[must_use]
    pub fn body_len(&self) -> usize {
        let len = RECORD_HEADER_LEN + self.head.len() + self.payload.len();
        len + padding(len)
    }
}

/// A new segment being written with zeros before it is needed: overwriting syncs faster than growing.
struct Spare<F> {
    file: F,
    len: u64,
    written: u64,
}

/// A log.
pub struct Log<D: Disk> {
    disk: D,
    identity: LogIdentity,
    sync: SyncMode,
    len_min: u64,
    len_max: u64,
    /// Full segments, oldest first.
    pub full: VecDeque<FullSegment>,
    /// The one being written.
    pub current: Current<D::File>,
    /// Last sequence written.
    pub last: Sequence,
    spare: Option<Spare<D::File>>,
    /// Bytes appended since the daemon started.
    pub appended: u64,
    scratch: Vec<u8>,
}

const SPARE: &str = "binlog/spare";

impl<D: Disk> Log<D> {
    /// Goes on behind `last` in `current`.
    pub fn resume(
        disk: D,
        identity: LogIdentity,
        options: &MountOptions,
        full: VecDeque<FullSegment>,
        current: Current<D::File>,
        last: Sequence,
    ) -> Self {
        let (len_min, len_max) = (options.segment_len_min, options.segment_len_max);
        Self {
            disk,
            identity,
            sync: options.sync,
            len_min,
            len_max,
            full,
            current,
            last,
            spare: None,
            appended: 0,
            scratch: Vec::new(),
        }
    }

    /// Creates the segment that will begin with `first`, reserved but not written.
    pub fn create_segment(
        disk: &D,
        identity: &LogIdentity,
        len: u64,
        first: Sequence,
        predecessor: Sequence,
        secret: [u8; 16],
    ) -> StoreResult<Current<D::File>> {
        let path = identity.path(first);
        let io = |what: &str| StoreError::io(format!("{what} {path}"));
        if disk.stat(&path).map_err(io("stat"))?.is_some() {
            // No valid batch was ever in it, or the scan would have found it.
            disk.unlink(&path).map_err(io("remove unused"))?;
        }
        let file = disk.open(&path, Open::Create).map_err(io("create"))?;
        file.allocate(0, len).map_err(io("reserve"))?;
        let header = identity.header(first, predecessor, secret, len);
        file.write_all_at(0, &header.encode()).map_err(io("write"))?;
        file.sync_data().map_err(io("fdatasync"))?;
        disk.sync_dir(&identity.folder()).map_err(io("make durable the name of"))?;
        Ok(Current { file, header, tail: SEGMENT_HEADER_LEN as u64 })
    }

    /// Whether a batch with a body of `body` bytes fits the current segment.
    #[must_use]
    pub fn fits(&self, body: usize) -> bool {
        self.current.tail + (BATCH_HEADER_LEN + body) as u64 + 64 <= self.current.header.len
    }

    /// The longest body that a fresh segment takes.
    #[must_use]
    pub const fn body_max(&self) -> u64 {
        self.len_max - (SEGMENT_HEADER_LEN + BATCH_HEADER_LEN + 64) as u64
    }

    /// Goes on in another segment: the oldest one if `covered` covers it, else the spare, else a new one.
    pub fn rotate(
        &mut self,
        covered: Sequence,
        needed: usize,
        secret: [u8; 16],
    ) -> StoreResult<()> {
        let first = self.last + 1;
        let needed = needed as u64 + (SEGMENT_HEADER_LEN + BATCH_HEADER_LEN + 64) as u64;
        let target = (self.current.header.len * 2).min(self.len_max).max(needed).max(self.len_min);
        let next = self.reuse_oldest(covered, target, first, secret)?;
        let next = match next {
            Some(next) => next,
            None => match self.take_spare(target, first, secret)? {
                Some(next) => next,
                None => {
                    let identity = self.identity;
                    Self::create_segment(&self.disk, &identity, target, first, self.last, secret)?
                }
            },
        };
        let before = std::mem::replace(&mut self.current, next);
        // One without a batch had the same name, and is replaced: as a full one it would be recycled under our hands.
        if before.header.first != first {
            let full =
                FullSegment { first: before.header.first, last: self.last, len: before.header.len };
            self.full.push_back(full);
        }
        Ok(())
    }

    fn reuse_oldest(
        &mut self,
        covered: Sequence,
        target: u64,
        first: Sequence,
        secret: [u8; 16],
    ) -> StoreResult<Option<Current<D::File>>> {
        while let Some(oldest) = self.full.front().filter(|s| s.last <= covered).cloned() {
            let path = self.identity.path(oldest.first);
            let io = |what: &str| StoreError::io(format!("{what} {path}"));
            if oldest.len < target {
                // Too short for today's load: its blocks serve better in a longer one.
                self.disk.unlink(&path).map_err(io("remove"))?;
                self.full.pop_front();
                continue;
            }
            let new_path = self.identity.path(first);
            self.disk.rename(&path, &new_path).map_err(io("recycle"))?;
            self.full.pop_front();
            self.disk
                .sync_dir(&self.identity.folder())
                .map_err(io("make durable the recycled name of"))?;
            let file = self.disk.open(&new_path, Open::Write).map_err(io("open recycled"))?;
            return self.activate(file, oldest.len, first, secret).map(Some);
        }
        Ok(None)
    }

    fn take_spare(
        &mut self,
        target: u64,
        first: Sequence,
        secret: [u8; 16],
    ) -> StoreResult<Option<Current<D::File>>> {
        let Some(spare) = self.spare.take() else { return Ok(None) };
        if spare.len < target || spare.written < spare.len {
            self.disk.unlink(SPARE).map_err(StoreError::io(format!("remove {SPARE}")))?;
            return Ok(None);
        }
        let path = self.identity.path(first);
        let io = |what: &str| StoreError::io(format!("{what} {path}"));
        spare.file.sync_data().map_err(io("fdatasync"))?;
        self.disk.rename(SPARE, &path).map_err(io("name"))?;
        self.disk.sync_dir(&self.identity.folder()).map_err(io("make durable the name of"))?;
        self.activate(spare.file, spare.len, first, secret).map(Some)
    }

    /// The new header goes with the first batch's sync: without it no batch in the file verifies.
    fn activate(
        &self,
        file: D::File,
        len: u64,
        first: Sequence,
        secret: [u8; 16],
    ) -> StoreResult<Current<D::File>> {
        let header = self.identity.header(first, self.last, secret, len);
        file.write_all_at(0, &header.encode())
            .map_err(StoreError::io("write the header of a log segment"))?;
        Ok(Current { file, header, tail: SEGMENT_HEADER_LEN as u64 })
    }

    /// One slice of preparing the next segment; true if there is more to do.
    pub fn prepare(&mut self, covered: Sequence) -> StoreResult<bool> {
        const SLICE: u64 = 1 << 20;
        let target = (self.current.header.len * 2).min(self.len_max).max(self.len_min);
        let recyclable = self.full.front().is_some_and(|s| s.last <= covered && s.len >= target);
        if self.current.tail < self.current.header.len / 4 || recyclable {
            return Ok(false);
        }
        if self.spare.is_none() {
            if self.disk.stat(SPARE).map_err(StoreError::io("stat binlog/spare"))?.is_some() {
                self.disk.unlink(SPARE).map_err(StoreError::io("remove binlog/spare"))?;
            }
            let file = self.disk.open(SPARE, Open::Create);
            let file = file.map_err(StoreError::io("create binlog/spare"))?;
            self.spare = Some(Spare { file, len: target, written: 0 });
        }
        let Some(spare) = &mut self.spare else { return Ok(false) };
        let len = SLICE.min(spare.len - spare.written);
        if len == 0 {
            return Ok(false);
        }
        let zeros = vec![0; usize::try_from(len).unwrap_or(0)];
        let io = || StoreError::io("write binlog/spare");
        spare.file.write_all_at(spare.written, &zeros).map_err(io())?;
        spare.file.write_back(spare.written, len).map_err(io())?;
        spare.written += len;
        Ok(spare.written < spare.len)
    }

    /// Gives up the spare (no space for it).
    pub fn drop_spare(&mut self) {
        if self.spare.take().is_some()
            && let Err(error) = self.disk.unlink(SPARE)
        {
            tracing::warn!(%error, "cannot remove {SPARE}");
        }
    }

    /// Writes a batch. Durable only after [`sync`](Self::sync).
    pub fn append(&mut self, records: &[Pending]) -> StoreResult<()> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
        self.scratch.clear();
        for record in records {
            let payload_len = u32::try_from(record.payload.len()).unwrap_or(u32::MAX);
            let header = record_header(
                record.kind,
                record.sequence,
                &record.head,
                payload_len,
                record.payload_crc,
            );
            self.scratch.extend_from_slice(&header);
            self.scratch.extend_from_slice(&record.head);
        }
        const ZEROS: [u8; 64] = [0; 64];
        let mut parts: Vec<&[u8]> = Vec::with_capacity(records.len() * 3 + 2);
        parts.push(&[]);
        let (mut at, mut body_len) = (0, 0);
        for record in records {
            let to = at + RECORD_HEADER_LEN + record.head.len();
            let len = to - at + record.payload.len();
            parts.push(&self.scratch[at..to]);
            parts.push(&record.payload);
            parts.push(&ZEROS[..padding(len)]);
            body_len += len + padding(len);
            at = to;
        }
        let header = BatchHeader {
            log_id: self.identity.log_id,
            records: u32::try_from(records.len()).unwrap_or(u32::MAX),
            first: first.sequence,
            last: last.sequence,
            predecessor: self.last,
            body_len: u32::try_from(body_len).unwrap_or(u32::MAX),
            body_crc: crc::crc32c_parts(&parts),
        };
        let stride = header.stride();
        let gap = usize::try_from(stride).unwrap_or(0) - BATCH_HEADER_LEN - body_len;
        let header = header.encode(&self.current.header.secret);
        parts[0] = &header;
        parts.push(&ZEROS[..gap]);
        let file = &self.current.file;
        let written = file.write_all_vectored_at(self.current.tail, &parts);
        written.map_err(StoreError::io("append to the binlog"))?;
        self.current.tail += stride;
        self.appended += stride;
        self.last = last.sequence;
        Ok(())
    }

    /// Writes a batch that was received: `body` as it lies in the sender's log. Durable only after
    /// [`sync`](Self::sync).
    pub fn append_received(
        &mut self,
        body: &[u8],
        records: u32,
        first: Sequence,
        last: Sequence,
        predecessor: Sequence,
    ) -> StoreResult<()> {
        const ZEROS: [u8; 64] = [0; 64];
        let header = BatchHeader {
            log_id: self.identity.log_id,
            records,
            first,
            last,
            predecessor,
            body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            body_crc: crc::crc32c(body),
        };
        let stride = header.stride();
        let gap = usize::try_from(stride).unwrap_or(0) - BATCH_HEADER_LEN - body.len();
        let sealed = header.encode(&self.current.header.secret);
        let parts: [&[u8]; 3] = [&sealed, body, &ZEROS[..gap]];
        let parts: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let written = self.current.file.write_all_vectored_at(self.current.tail, &parts);
        written.map_err(StoreError::io("append to a synclog"))?;
        self.current.tail += stride;
        self.appended += stride;
        self.last = last;
        Ok(())
    }

    /// Makes everything appended durable. An error is final (R9).
    pub fn sync(&self, options: &MountOptions) -> StoreResult<()> {
        if self.sync == SyncMode::Os || options.planted(Planted::SkipLogSync) {
            return Ok(());
        }
        self.current.file.sync_data().map_err(StoreError::io("fdatasync of the binlog"))
    }

    /// Log bytes that replay would have to read from `covered` on, counted by whole segments, and all log bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.full.iter().map(|s| s.len).sum::<u64>() + self.current.header.len
    }

    /// Removes full segments up to `covered` for as long as the log takes more than `bytes`.
    pub fn trim_to(&mut self, covered: Sequence, bytes: u64) -> StoreResult<()> {
        while self.bytes() > bytes
            && let Some(oldest) = self.full.front().filter(|s| s.last <= covered)
        {
            let path = self.identity.path(oldest.first);
            self.disk.unlink(&path).map_err(StoreError::io(format!("remove {path}")))?;
            self.full.pop_front();
        }
        Ok(())
    }

    /// Removes full segments that a checkpoint covers beyond what recycling needs, so that the log stays bounded.
    pub fn trim(&mut self, covered: Sequence, keep: usize) -> StoreResult<()> {
        while self.full.len() > keep
            && let Some(oldest) = self.full.front().filter(|s| s.last <= covered)
        {
            let path = self.identity.path(oldest.first);
            self.disk.unlink(&path).map_err(StoreError::io(format!("remove {path}")))?;
            self.full.pop_front();
        }
        Ok(())
    }
}

impl LogIdentity {
    fn header(
        &self,
        first: Sequence,
        predecessor: Sequence,
        secret: [u8; 16],
        len: u64,
    ) -> SegmentHeader {
        SegmentHeader {
            mount: self.mount,
            machine: self.machine,
            log_id: self.log_id,
            first,
            predecessor,
            secret,
            mount_uuid: self.mount_uuid,
            len,
        }
    }
}
