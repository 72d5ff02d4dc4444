//! The log: segments of batches of records (R8, R10). Binlog and synclog have the same format.
//!
//! ```text
//! segment header, 4096 bytes at the front of binlog/<log id>-<first sequence>.log
//!   0  magic u32 "FoLo", major u8, minor u8, mount u8, 0 u8
//!   8  machine u16, 0 u16, log id u32
//!  16  first sequence u64 (equals the name)      24  predecessor u64 (last sequence of the segment before; 0 = none)
//!  32  secret 16                                 48  mount uuid 16
//!  64  segment length u64                        72  CRC32C of 0..72 u32
//!  76  zeros
//!
//! batch, at multiples of 64 bytes
//!   0  magic u32 "FoBa", major u8, minor u8, 0 u16
//!   8  log id u32, records u32
//!  16  first u64    24  last u64    32  predecessor u64 (last sequence of the batch before; 0 = none)
//!  40  body length u32, CRC32C of the body u32
//!  48  0 u64
//!  56  MAC u64      SipHash-2-4 of 0..56 under the segment's secret
//!  64  records
//!
//! record, at multiples of 8 bytes in the body
//!   0  kind u8, 0 u8, 0 u16, head length u32
//!   8  sequence u64
//!  16  payload length u32, payload CRC32C u32
//!  24  0 u32, CRC32C of 0..28 and the head u32
//!  32  head, payload, zeros to the next multiple of 8
//! ```
//!
//! Invariants: sequences grow strictly along a log; a batch whose sequence is not above the last good one never counts
//! (a recycled segment is full of them); each activation of a segment draws a new secret, so neither an older tenant
//! of the file nor a user's payload passes for a batch.

use super::bytes::{Reader, Short, Writer};
use super::crc::{crc32c, crc32c_parts, mac64};
use super::ids::{LogId, MachineId, Sequence};

/// Length of a segment's header; the first batch begins here.
pub const SEGMENT_HEADER_LEN: usize = 4096;
/// Length of a batch header.
pub const BATCH_HEADER_LEN: usize = 64;
/// Batches begin at multiples of this.
pub const BATCH_ALIGN: usize = 64;
/// Length of a record's header.
pub const RECORD_HEADER_LEN: usize = 32;
/// Records begin at multiples of this.
pub const RECORD_ALIGN: usize = 8;
const _: () = {
    assert!(BATCH_HEADER_LEN.is_multiple_of(BATCH_ALIGN));
    assert!(RECORD_HEADER_LEN.is_multiple_of(RECORD_ALIGN));
};

const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"FoLo");
const BATCH_MAGIC: [u8; 4] = *b"FoBa";
/// Format version of segments, batches and records.
pub const MAJOR: u8 = 1;
/// Additions that an older reader may ignore.
pub const MINOR: u8 = 0;

/// Header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Mount index.
    pub mount: u8,
    /// Whose log.
    pub machine: MachineId,
    /// Which life of it.
    pub log_id: LogId,
    /// The sequence that its first record will have at least.
    pub first: Sequence,
    /// Last sequence of the segment before, 0 if there was none.
    pub predecessor: Sequence,
    /// Key of the batch seals; drawn anew each time the file is used.
    pub secret: [u8; 16],
    /// Mount.
    pub mount_uuid: [u8; 16],
    /// Length of the file.
    pub len: u64,
}

/// Why bytes are no log structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotALog {
    /// No magic.
    #[error("there is no log structure here")]
    Blank,
    /// Newer format.
    #[error("the log has format version {0}, newer than this program's")]
    Newer(u8),
    /// Magic, but a wrong checksum, or cut short.
    #[error("the log's checksum is wrong")]
    Broken,
}

impl From<Short> for NotALog {
    fn from(_: Short) -> Self {
        Self::Broken
    }
}

impl SegmentHeader {
    /// The header's block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_LEN);
        let mut w = Writer::new(&mut out);
        w.u32(SEGMENT_MAGIC).u8(MAJOR).u8(MINOR).u8(self.mount).u8(0);
        w.u16(self.machine).u16(0).u32(self.log_id).u64(self.first).u64(self.predecessor);
        w.put(&self.secret).put(&self.mount_uuid).u64(self.len);
        let crc = crc32c(w.written());
        w.u32(crc).zeros_to(SEGMENT_HEADER_LEN);
        out
    }

    /// Reads and checks a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotALog> {
        let mut r = Reader::new(bytes);
        if r.u32() != Ok(SEGMENT_MAGIC) {
            return Err(NotALog::Blank);
        }
        let (major, _minor, mount, _) = (r.u8()?, r.u8()?, r.u8()?, r.u8()?);
        let (machine, _, log_id) = (r.u16()?, r.u16()?, r.u32()?);
        let (first, predecessor) = (r.u64()?, r.u64()?);
        let (secret, mount_uuid, len) = (r.array()?, r.array()?, r.u64()?);
        if r.u32()? != crc32c(&bytes[..72]) {
            return Err(NotALog::Broken);
        }
        if major != MAJOR {
            return Err(NotALog::Newer(major));
        }
        Ok(Self { mount, machine, log_id, first, predecessor, secret, mount_uuid, len })
    }
}

/// Header of a batch: what one write and one fdatasync made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Log.
    pub log_id: LogId,
    /// Number of records.
    pub records: u32,
    /// First sequence.
    pub first: Sequence,
    /// Last sequence.
    pub last: Sequence,
    /// Last sequence of the batch before.
    pub predecessor: Sequence,
    /// Bytes of the records.
    pub body_len: u32,
    /// CRC32C of them.
    pub body_crc: u32,
}

impl BatchHeader {
    /// The sealed header.
    #[must_use]
    pub fn encode(&self, secret: &[u8; 16]) -> [u8; BATCH_HEADER_LEN] {
        let mut out = Vec::with_capacity(BATCH_HEADER_LEN);
        let mut w = Writer::new(&mut out);
        w.put(&BATCH_MAGIC).u8(MAJOR).u8(MINOR).u16(0).u32(self.log_id).u32(self.records);
        w.u64(self.first).u64(self.last).u64(self.predecessor);
        w.u32(self.body_len).u32(self.body_crc).u64(0);
        let mac = mac64(secret, &[w.written()]);
        w.u64(mac);
        let mut block = [0; BATCH_HEADER_LEN];
        block.copy_from_slice(&out);
        block
    }

    /// Reads a header and checks its seal; the body is not looked at.
    pub fn decode(bytes: &[u8], secret: &[u8; 16]) -> Result<Self, NotALog> {
        let Some(block) = bytes.first_chunk::<BATCH_HEADER_LEN>() else {
            return Err(NotALog::Blank);
        };
        if block[..4] != BATCH_MAGIC {
            return Err(NotALog::Blank);
        }
        let mut r = Reader::new(&block[4..]);
        let (major, _minor, _) = (r.u8()?, r.u8()?, r.u16()?);
        let (log_id, records) = (r.u32()?, r.u32()?);
        let (first, last, predecessor) = (r.u64()?, r.u64()?, r.u64()?);
        let (body_len, body_crc, _) = (r.u32()?, r.u32()?, r.u64()?);
        if r.u64()? != mac64(secret, &[&block[..56]]) {
            return Err(NotALog::Broken);
        }
        if major != MAJOR {
            return Err(NotALog::Newer(major));
        }
        Ok(Self { log_id, records, first, last, predecessor, body_len, body_crc })
    }

    /// Bytes from this batch's begin to the next one's.
    #[must_use]
    pub const fn stride(&self) -> u64 {
        (BATCH_HEADER_LEN as u64 + self.body_len as u64).next_multiple_of(BATCH_ALIGN as u64)
    }
}

/// One record as it lies in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// What it says; see `format::record`.
    pub kind: u8,
    /// Its number.
    pub sequence: Sequence,
    /// The decision: headers, places.
    pub head: &'a [u8],
    /// The bytes.
    pub payload: &'a [u8],
    /// CRC32C of the payload, checked.
    pub payload_crc: u32,
}

/// The header of a record with this head; head, payload and [`padding`] follow it.
#[must_use]
pub fn record_header(
    kind: u8,
    sequence: Sequence,
    head: &[u8],
    payload_len: u32,
    payload_crc: u32,
) -> [u8; RECORD_HEADER_LEN] {
    let mut out = Vec::with_capacity(RECORD_HEADER_LEN);
    let mut w = Writer::new(&mut out);
    let head_len = u32::try_from(head.len()).unwrap_or(u32::MAX);
    w.u8(kind).u8(0).u16(0).u32(head_len).u64(sequence).u32(payload_len).u32(payload_crc).u32(0);
    let crc = crc32c_parts(&[w.written(), head]);
    w.u32(crc);
    let mut block = [0; RECORD_HEADER_LEN];
    block.copy_from_slice(&out);
    block
}

/// Zeros between the end of a record of `len` bytes and the next one.
#[must_use]
pub const fn padding(len: usize) -> usize {
    len.next_multiple_of(RECORD_ALIGN) - len
}

/// Walks the records of a body; stops for good at the first bad one.
#[derive(Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    bad: bool,
}

impl<'a> Records<'a> {
    /// Walks `body`.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body, bad: false }
    }

    fn read(&mut self) -> Result<RawRecord<'a>, NotALog> {
        let all = self.rest;
        let mut r = Reader::new(all);
        let (kind, _, _, head_len) = (r.u8()?, r.u8()?, r.u16()?, r.u32()?);
        let (sequence, payload_len, payload_crc, _) = (r.u64()?, r.u32()?, r.u32()?, r.u32()?);
        let crc = r.u32()?;
        let head = r.take(head_len as usize)?;
        if crc32c_parts(&[&all[..RECORD_HEADER_LEN - 4], head]) != crc {
            return Err(NotALog::Broken);
        }
        let payload = r.take(payload_len as usize)?;
        if crc32c(payload) != payload_crc {
            return Err(NotALog::Broken);
        }
        let len = RECORD_HEADER_LEN + head.len() + payload.len();
        r.skip(padding(len).min(r.rest().len()))?;
        self.rest = r.rest();
        Ok(RawRecord { kind, sequence, head, payload, payload_crc })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RawRecord<'a>, NotALog>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bad || self.rest.is_empty() {
            return None;
        }
        let record = self.read();
        self.bad = record.is_err();
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Vec<u8> {
        let mut body = Vec::new();
        for (sequence, payload) in [(5, &b"abc"[..]), (6, b""), (7, b"12345678")] {
            let head = vec![sequence as u8; 13];
            let len = payload.len() as u32;
            body.extend(record_header(1, sequence, &head, len, crc32c(payload)));
            body.extend(&head);
            body.extend(payload);
            body.resize(body.len() + padding(RECORD_HEADER_LEN + 13 + payload.len()), 0);
        }
        body
    }

    #[test]
    fn records_come_back_and_stop_at_the_first_bad_bit() {
        let mut body = body();
        let good: Vec<_> = Records::new(&body).map(|r| r.unwrap().sequence).collect();
        assert_eq!(good, [5, 6, 7]);
        let second = RECORD_HEADER_LEN + 16;
        body[second + 9] ^= 4;
        let read: Vec<_> = Records::new(&body).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1], Err(NotALog::Broken));
    }

    #[test]
    fn no_flipped_bit_passes_in_headers() {
        let segment = SegmentHeader {
            mount: 1,
            machine: 2,
            log_id: 3,
            first: 4,
            predecessor: 3,
            secret: [5; 16],
            mount_uuid: [6; 16],
            len: 1 << 20,
        };
        let bytes = segment.encode();
        assert_eq!(bytes.len(), SEGMENT_HEADER_LEN);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(segment));
        let batch = BatchHeader {
            log_id: 3,
            records: 3,
            first: 5,
            last: 7,
            predecessor: 4,
            body_len: 9,
            body_crc: 8,
        };
        let sealed = batch.encode(&[5; 16]);
        assert_eq!(BatchHeader::decode(&sealed, &[5; 16]), Ok(batch));
        for bit in 0..76 * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "segment bit {bit}");
            if let Some(byte) = sealed.get(bit / 8) {
                let mut bad = sealed;
                bad[bit / 8] = byte ^ (1 << (bit % 8));
                assert!(BatchHeader::decode(&bad, &[5; 16]).is_err(), "batch bit {bit}");
            }
        }
    }
}
