//! The logs: segments, batches, and whether they follow each other (docs/FORMAT.md, "Log").
//!
//! A batch counts by seal, sequence and checksum. Bad bytes in front of a later valid batch are damage; at the end they
//! are a torn tail, which the next start cuts. Our own log has no gaps; a received one may, where the mount caught up by
//! state.

use super::Run;
use super::bytes::{Bad, Take, crc32c, mac};
use super::finding::Kind;
use super::names::{SegmentName, log_segment};
use super::records::{At, Record};

const SEGMENT_HEADER: u64 = 4096;
const BATCH_HEADER: usize = 64;
const RECORD_HEADER: usize = 32;
/// Bytes read at a time while a valid batch is looked for.
const WINDOW: usize = 1 << 20;
/// Longest body that is believed without looking further.
const BODY_MAX: u32 = 1 << 31;

/// Header of a segment.
struct Segment {
    name: SegmentName,
    machine: u16,
    predecessor: u64,
    secret: [u8; 16],
}

/// Header of a batch, sealed.
struct Batch {
    records: u32,
    first: u64,
    last: u64,
    predecessor: u64,
    body_len: u32,
    body_crc: u32,
}

impl Batch {
    const fn stride(&self) -> u64 {
        (BATCH_HEADER as u64 + self.body_len as u64).next_multiple_of(64)
    }
}

/// Why bytes are no segment header.
enum NotASegment {
    /// Never used, or an older tenant's.
    Unused,
    Newer(u8),
    Damaged,
    Foreign(String),
}

/// What a walk over the logs is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Everything is checked.
    Check,
    /// The records explain what the first pass missed.
    Explain,
}

impl Run<'_> {
    /// All logs of the mount.
    pub fn check_logs(&mut self) {
        self.segments.sort_unstable();
        self.walk_logs(Pass::Check);
        if !self.expected.is_empty() || !self.short_conflicts.is_empty() {
            self.walk_logs(Pass::Explain);
        }
        let covered = self.checkpoint.as_ref().map(|c| (c.machine, c.log_id, c.applied));
        if let Some((machine, log_id, applied)) = covered
            && applied > 0
            && !self.segments.iter().any(|s| s.peer.is_none() && s.log_id == log_id)
        {
            let what =
                format!("machine {machine}'s log {log_id:08x} is gone; it went to {applied:x}");
            self.found(Kind::LogTailLost, "binlog", None, what);
        }
    }

    fn walk_logs(&mut self, pass: Pass) {
        let segments = self.segments.clone();
        for log in segments.chunk_by(|a, b| (a.peer, a.log_id) == (b.peer, b.log_id)) {
            let machine = log[0].peer.unwrap_or(self.label.machine);
            let mut walk = Walk { last: 0, is_first: true, pass, machine, torn: None };
            for (index, name) in log.iter().enumerate() {
                self.walk_segment(name, index + 1 == log.len(), &mut walk);
            }
            if pass == Pass::Check && log[0].peer.is_none() {
                self.end_of_own_log(log[0].log_id, log, walk.last);
            }
        }
    }

    fn end_of_own_log(&mut self, log_id: u32, log: &[SegmentName], last: u64) {
        let Some(name) = log.last() else { return };
        let path = log_segment(name);
        let applied =
            self.checkpoint.as_ref().filter(|c| c.log_id == log_id).map_or(0, |c| c.applied);
        if last < applied {
            let what = format!("it ends at {last:x}, the checkpoint covers {applied:x}");
            self.found(Kind::LogTailLost, &path, None, what);
        }
        if log_id == self.label.log_id && last >> 48 > u64::from(self.label.start_count) {
            let what = format!(
                "the label counts {} starts, the log has records of start {}",
                self.label.start_count,
                last >> 48
            );
            self.found(Kind::LabelOlder, super::label::LABEL, None, what);
        }
        let oldest = log.first().map(log_segment).unwrap_or_default();
        if self.checkpoint.is_none() && log_id == self.label.log_id {
            let header = self.read(&oldest, 0, 128);
            let recycled = Take(header.get(24..).unwrap_or_default()).u64().is_ok_and(|p| p != 0);
            let missing = self.medium.len(super::checkpoint::CHECKPOINT).is_ok_and(|l| l.is_none());
            if recycled && missing && last != 0 {
                let what = "the log does not reach back to its beginning".to_owned();
                self.found(Kind::CheckpointMissing, super::checkpoint::CHECKPOINT, None, what);
            }
        }
    }

    fn segment_header(
        &self,
        name: &SegmentName,
        machine: u16,
        head: &[u8],
    ) -> Result<Segment, NotASegment> {
        let bad = |_: Bad| NotASegment::Damaged;
        let mut take = Take(head);
        if take.bytes(4).ok() != Some(b"FoLo") {
            return Err(NotASegment::Unused);
        }
        let checked = head.get(..72).ok_or(NotASegment::Damaged)?;
        if Take(&head[72..]).u32().map_err(bad)? != crc32c(checked) {
            return Err(NotASegment::Damaged);
        }
        let (major, _minor) = (take.u8().map_err(bad)?, take.u8().map_err(bad)?);
        if major != 1 {
            return Err(NotASegment::Newer(major));
        }
        let (mount, _) = (take.u8().map_err(bad)?, take.u8().map_err(bad)?);
        let (owner, _) = (take.u16().map_err(bad)?, take.u16().map_err(bad)?);
        let log_id = take.u32().map_err(bad)?;
        let (first, predecessor) = (take.u64().map_err(bad)?, take.u64().map_err(bad)?);
        let (secret, uuid) = (take.raw16().map_err(bad)?, take.raw16().map_err(bad)?);
        if uuid != self.label.mount_uuid || mount != self.label.mount || owner != machine {
            return Err(NotASegment::Foreign(format!("it is of machine {owner}, mount {mount}")));
        }
        if log_id != name.log_id || first > name.first {
            return Err(NotASegment::Foreign(format!("it says {log_id:08x}-{first:016x}")));
        }
        if first < name.first {
            // Renamed to be overwritten, and not yet.
            return Err(NotASegment::Unused);
        }
        Ok(Segment { name: *name, machine, predecessor, secret })
    }

    fn walk_segment(&mut self, name: &SegmentName, is_last: bool, walk: &mut Walk) {
        let path = log_segment(name);
        let head = self.read(&path, 0, 128);
        let segment = match self.segment_header(name, walk.machine, &head) {
            Ok(segment) => segment,
            Err(why) => return self.no_segment(&path, why, is_last, walk.pass),
        };
        if walk.pass == Pass::Check {
            self.summary.segments += 1;
        }
        let own = name.peer.is_none();
        if !walk.is_first && own && segment.predecessor != walk.last && walk.pass == Pass::Check {
            let what = format!(
                "it follows {:x}, the segment before ends at {:x}",
                segment.predecessor, walk.last
            );
            self.found(Kind::LogGap, &path, None, what);
        }
        // What looked torn was acknowledged if the next segment goes on behind it.
        if let Some((path, at, last)) = walk.torn.take()
            && segment.predecessor >= last
            && walk.pass == Pass::Check
        {
            let what = format!("records up to {last:x} cannot be read");
            self.found(Kind::LogDamage, &path, Some(at), what);
        }
        walk.is_first = false;
        walk.last = walk.last.max(segment.predecessor);
        self.walk_batches(&segment, &path, walk);
    }

    fn no_segment(&mut self, path: &str, why: NotASegment, is_last: bool, pass: Pass) {
        if pass != Pass::Check {
            return;
        }
        match why {
            // A rotation that was killed leaves such a file at the end of a log; the next start removes it.
            NotASegment::Unused if is_last => {}
            NotASegment::Unused => {
                self.found(Kind::SegmentHeader, path, Some(0), "there is no header".to_owned());
            }
            NotASegment::Newer(major) => {
                self.found(Kind::NewerFormat, path, Some(0), format!("format {major}"));
            }
            NotASegment::Damaged => {
                self.found(Kind::SegmentHeader, path, Some(0), "its checksum is wrong".to_owned());
            }
            NotASegment::Foreign(what) => self.found(Kind::SegmentForeign, path, Some(0), what),
        }
    }

    fn walk_batches(&mut self, segment: &Segment, path: &str, walk: &mut Walk) {
        let mut at = SEGMENT_HEADER;
        loop {
            if let Some((batch, body)) = self.batch_at(segment, path, at, walk.last) {
                let follows = batch.predecessor == walk.last || walk.last == 0;
                if !follows && segment.name.peer.is_none() && walk.pass == Pass::Check {
                    let what =
                        format!("a batch follows {:x} and not {:x}", batch.predecessor, walk.last);
                    self.found(Kind::LogGap, path, Some(at), what);
                }
                self.walk_records(segment, path, at, &batch, &body, walk);
                walk.last = batch.last;
                at += batch.stride();
                continue;
            }
            let Some(next) = self.next_batch(segment, path, at, walk.last) else { break };
            if walk.pass == Pass::Check {
                let what =
                    format!("{} bytes behind record {:x} cannot be read", next - at, walk.last);
                self.found(Kind::LogDamage, path, Some(at), what);
            }
            at = next;
        }
        let head = self.read(path, at, BATCH_HEADER);
        walk.torn =
            self.header_at(segment, &head, walk.last).map(|b| (path.to_owned(), at, b.last));
        self.torn_tail(segment, path, at, walk);
    }

    /// What the checkpoint says was in this segment must be.
    fn torn_tail(&mut self, segment: &Segment, path: &str, at: u64, walk: &Walk) {
        if walk.pass != Pass::Check {
            return;
        }
        let key = (segment.machine, segment.name.log_id);
        let reached = self.checkpoint.as_ref().and_then(|c| c.received.get(&key).copied());
        if let Some(reached) =
            reached.filter(|r| segment.name.peer.is_some() && r.segment == segment.name.first)
            && at < reached.offset
        {
            let what =
                format!("it ends at byte {at}, the checkpoint knows it up to {}", reached.offset);
            self.found(Kind::LogTailLost, path, Some(at), what);
        }
    }

    fn header_at(&self, segment: &Segment, bytes: &[u8], last: u64) -> Option<Batch> {
        let head = bytes.first_chunk::<BATCH_HEADER>()?;
        if head[..4] != *b"FoBa"
            || Take(&head[56..]).u64().ok()? != mac(&segment.secret, &head[..56], &[])
        {
            return None;
        }
        let mut take = Take(&head[8..]);
        let (log_id, records) = (take.u32().ok()?, take.u32().ok()?);
        let (first, end, predecessor) = (take.u64().ok()?, take.u64().ok()?, take.u64().ok()?);
        let (body_len, body_crc) = (take.u32().ok()?, take.u32().ok()?);
        let counts =
            head[4] == 1 && log_id == segment.name.log_id && end > last && body_len < BODY_MAX;
        counts.then_some(Batch { records, first, last: end, predecessor, body_len, body_crc })
    }

    fn batch_at(
        &mut self,
        segment: &Segment,
        path: &str,
        at: u64,
        last: u64,
    ) -> Option<(Batch, Vec<u8>)> {
        let head = self.read(path, at, BATCH_HEADER);
        let batch = self.header_at(segment, &head, last)?;
        let body = self.read(path, at + BATCH_HEADER as u64, batch.body_len as usize);
        let whole = body.len() == batch.body_len as usize && crc32c(&body) == batch.body_crc;
        whole.then_some((batch, body))
    }

    fn next_batch(&mut self, segment: &Segment, path: &str, bad: u64, last: u64) -> Option<u64> {
        let mut at = bad + 64;
        loop {
            let window = self.read(path, at, WINDOW);
            if window.len() < BATCH_HEADER {
                return None;
            }
            for (index, block) in window.chunks(64).enumerate() {
                let here = at + index as u64 * 64;
                if self.header_at(segment, block, last).is_some()
                    && self.batch_at(segment, path, here, last).is_some()
                {
                    return Some(here);
                }
            }
            at += window.len() as u64 & !63;
        }
    }

    fn walk_records(
        &mut self,
        segment: &Segment,
        path: &str,
        at: u64,
        batch: &Batch,
        body: &[u8],
        walk: &Walk,
    ) {
        let mut rest = Take(body);
        let (mut last, mut count) = (walk.last, 0);
        while !rest.0.is_empty() {
            let offset = at + (BATCH_HEADER + body.len() - rest.0.len()) as u64;
            let Ok(record) = take_record(&mut rest) else {
                return self.bad_record(
                    path,
                    offset,
                    "its checksum is wrong".to_owned(),
                    walk.pass,
                );
            };
            if record.sequence <= last || record.sequence > batch.last {
                let what = format!("sequence {:x} is out of order", record.sequence);
                self.bad_record(path, offset, what, walk.pass);
            }
            (last, count) = (record.sequence, count + 1);
            let here = At {
                machine: segment.machine,
                log_id: segment.name.log_id,
                sequence: record.sequence,
                path,
                offset,
            };
            self.record(&here, &record, walk.pass);
        }
        // What concerns only its writer's disk is left out of a received log, so its records may end earlier.
        let ends = last == batch.last || (segment.name.peer.is_some() && last < batch.last);
        if count != batch.records || !ends || batch.first > batch.last {
            let what = format!(
                "a batch of {} records up to {:x} has {count} up to {last:x}",
                batch.records, batch.last
            );
            self.bad_record(path, at, what, walk.pass);
        }
    }

    pub fn bad_record(&mut self, path: &str, offset: u64, what: String, pass: Pass) {
        if pass == Pass::Check {
            self.found(Kind::RecordBad, path, Some(offset), what);
        }
    }
}

/// Where a walk over one log is.
struct Walk {
    last: u64,
    is_first: bool,
    pass: Pass,
    machine: u16,
    /// A sealed batch with a bad body at the end of the segment before: path, offset, its last sequence.
    torn: Option<(String, u64, u64)>,
}

fn take_record<'a>(rest: &mut Take<'a>) -> Result<Record<'a>, Bad> {
    let all = rest.0;
    let mut take = Take(all);
    let (kind, _, _, head_len) = (take.u8()?, take.u8()?, take.u16()?, take.u32()?);
    let sequence = take.u64()?;
    let (payload_len, payload_crc, _, crc) = (take.u32()?, take.u32()?, take.u32()?, take.u32()?);
    let head = take.bytes(head_len as usize)?;
    if super::bytes::Crc::new().add(&all[..RECORD_HEADER - 4]).add(head).value() != crc {
        return Err(Bad);
    }
    let payload = take.bytes(payload_len as usize)?;
    if crc32c(payload) != payload_crc {
        return Err(Bad);
    }
    let len = RECORD_HEADER + head.len() + payload.len();
    rest.0 = all.get(len.next_multiple_of(8)..).unwrap_or_default();
    Ok(Record { kind, sequence, head, payload })
}
