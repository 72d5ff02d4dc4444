//! A losing version: what `conflicts/<object>-<position of its edit>` holds, and the head of the log record that
//! carries it to the mirrors (design section 5, P4).
//!
//! ```text
//! head, 128 bytes
//!   0  object 45, state u8 (0: the content follows, 1: the content is a singlefile), 0 u16
//!  48  life u32, term u32, n u64                  64  machine u16, 0 u16, log id u32, sequence u64   (the tag)
//!  80  modified u64, ms since 1970                88  length of the content u64
//!  96  singlefile: machine u16, 0 u16, log id u32, sequence u64 (zeros if the content follows)
//! 112  CRC32C of the content u32, 0 u32, 0 u32, CRC32C of 0..124 u32
//!
//! file: magic u32 "FoCf", major u8, minor u8, 0 u16, length u32, CRC32C u32; the head; the content
//! ```
//!
//! Invariants: the name (object and position of the edit) makes the archive a set, so a version that is found to
//! have lost by several machines is kept once; a file is written whole and durable before the slot is overwritten.

use super::bytes::{Reader, Short, Writer};
use super::crc::crc32c;
use super::envelope::{FormatError, Kind};
use super::file_id::{OBJECT_ID_LEN, ObjectId};
use super::ids::{Position, Tag};

/// Length of the head.
pub const CONFLICT_HEAD_LEN: usize = 128;
/// Length of what stands before the head in a file.
pub const CONFLICT_PREFIX_LEN: usize = 16;

const KIND: Kind = Kind { magic: *b"FoCf", what: "archived conflict" };
const _: () = assert!(OBJECT_ID_LEN == 45);

/// A version that lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its object.
    pub object: ObjectId,
    /// Its tag; the position of its edit names it.
    pub tag: Tag,
    /// When it was made, ms since 1970.
    pub modified_ms: u64,
    /// Length of its content.
    pub length: u64,
    /// CRC32C of its content.
    pub payload_crc: u32,
    /// Its singlefile, if it is large.
    pub single: Option<Position>,
}

impl Conflict {
    /// The head's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(CONFLICT_HEAD_LEN);
        let mut w = Writer::new(&mut out);
        w.put(&self.object.encode()).u8(self.single.is_some().into()).u16(0);
        let tag = &self.tag;
        w.u32(tag.life).u32(tag.term).u64(tag.n);
        w.u16(tag.machine).u16(0).u32(tag.log_id).u64(tag.sequence);
        w.u64(self.modified_ms).u64(self.length);
        let single = self.single.unwrap_or_default();
        w.u16(single.machine).u16(0).u32(single.log_id).u64(single.sequence);
        w.u32(self.payload_crc).u32(0).u32(0);
        let crc = crc32c(w.written());
        w.u32(crc);
        debug_assert_eq!(out.len(), CONFLICT_HEAD_LEN);
        out
    }

    /// Reads a head.
    ///
    /// # Errors
    /// [`Short`]: cut off, or its checksum is wrong.
    pub fn decode(head: &[u8]) -> Result<Self, Short> {
        let head = head.first_chunk::<CONFLICT_HEAD_LEN>().ok_or(Short)?;
        let (checked, crc) = head.split_last_chunk::<4>().ok_or(Short)?;
        if crc32c(checked) != u32::from_le_bytes(*crc) {
            return Err(Short);
        }
        let mut r = Reader::new(checked);
        let object = ObjectId::decode(&r.array::<OBJECT_ID_LEN>()?).map_err(|_| Short)?;
        let (state, _) = (r.u8()?, r.u16()?);
        let (life, term, n) = (r.u32()?, r.u32()?, r.u64()?);
        let (machine, _, log_id, sequence) = (r.u16()?, r.u16()?, r.u32()?, r.u64()?);
        let tag = Tag { life, term, n, machine, log_id, sequence };
        let (modified_ms, length) = (r.u64()?, r.u64()?);
        let (machine, _, log_id, sequence) = (r.u16()?, r.u16()?, r.u32()?, r.u64()?);
        let single = (state == 1).then_some(Position { machine, log_id, sequence });
        Ok(Self { object, tag, modified_ms, length, payload_crc: r.u32()?, single })
    }

    /// What stands before the content in the file.
    #[must_use]
    pub fn encode_file(&self) -> Vec<u8> {
        KIND.seal(&self.encode())
    }

    /// Reads the front of a file, prefix and head.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode_file(front: &[u8]) -> Result<Self, FormatError> {
        let len = CONFLICT_PREFIX_LEN + CONFLICT_HEAD_LEN;
        let body = KIND.open(front.get(..len).ok_or(FormatError::Damaged(KIND.what))?)?;
        Self::decode(body).map_err(|Short| FormatError::Damaged(KIND.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::file_id::ObjectKind;

    #[test]
    fn a_conflict_comes_back_and_no_flipped_bit_passes() {
        let object = ObjectId {
            kind: ObjectKind::Chunk,
            machine: 2,
            mount: 3,
            log_id: 4,
            sequence: 5,
            created_s: 6,
            chunk: 7,
            offset_units: 64,
            capacity_units: 8,
            cookie: 9,
        };
        let tag = Tag { life: 0, term: 0, n: 3, machine: 1, log_id: 2, sequence: 9 };
        let single = Some(Position { machine: 1, log_id: 2, sequence: 3 });
        for single in [None, single] {
            let conflict =
                Conflict { object, tag, modified_ms: 1, length: 2, payload_crc: 3, single };
            let bytes = conflict.encode();
            assert_eq!(bytes.len(), CONFLICT_HEAD_LEN);
            assert_eq!(Conflict::decode(&bytes), Ok(conflict));
            let file = conflict.encode_file();
            assert_eq!(file.len(), CONFLICT_PREFIX_LEN + CONFLICT_HEAD_LEN);
            assert_eq!(Conflict::decode_file(&file), Ok(conflict));
            for bit in 0..file.len() * 8 {
                let mut bad = file.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(Conflict::decode_file(&bad).is_err(), "bit {bit}");
            }
        }
    }
}
