//! The header of a chunkfile: 4096 bytes at its front. The first slot begins behind it.
//!
//! ```text
//!  0  magic u32 "FoCh", major u8, minor u8, 0 u16
//!  8  length of the body u32, CRC32C of 0..12 and the body u32
//! 16  mount u8, 0 u8, machine u16, log id u32, chunk u32, size in units of 64 bytes u32
//! 32  created u64, ms since 1970
//! 40  secret 16                      56  mount uuid 16
//! 72  zeros to 4096
//! ```
//!
//! Invariants: the header names its own path, so a misplaced file is recognised; the secret seals every slot
//! header of this file and never leaves the machine but to a mirror, so bytes that a user stored cannot pass for
//! a slot. The size counts this header.

use super::bytes::{Reader, Short, Writer};
use super::envelope::{ENVELOPE_LEN, FormatError, Kind};
use super::ids::{ChunkfileId, MountIndex, UNIT};

/// Length of the header in bytes; the first slot begins here.
pub const CHUNKFILE_HEADER_LEN: usize = 4096;
/// The same in units.
pub const FIRST_SLOT_UNITS: u32 = 64;
/// Body of format 1.0.
const BODY_LEN: usize = 56;
const _: () = {
    assert!(FIRST_SLOT_UNITS as u64 * UNIT == CHUNKFILE_HEADER_LEN as u64);
    assert!(4 * 4 + 8 + 2 * 16 == BODY_LEN);
    assert!(ENVELOPE_LEN + BODY_LEN <= CHUNKFILE_HEADER_LEN);
};

const KIND: Kind = Kind { magic: *b"FoCh", what: "chunkfile header" };

/// Header of a chunkfile. Written once, when the file is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkfileHeader {
    /// Machine, log and number: its path.
    pub id: ChunkfileId,
    /// Mount.
    pub mount: MountIndex,
    /// Uuid of that mount.
    pub mount_uuid: [u8; 16],
    /// Length of the file in units of 64 bytes, this header included.
    pub size_units: u32,
    /// Key of the seals of the slot headers.
    pub secret: [u8; 16],
    /// When it was created, ms since 1970.
    pub created_ms: u64,
}

impl ChunkfileHeader {
    /// The header's 4096 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(BODY_LEN);
        let mut w = Writer::new(&mut body);
        w.u8(self.mount).u8(0).u16(self.id.machine).u32(self.id.log_id).u32(self.id.chunk);
        w.u32(self.size_units).u64(self.created_ms).put(&self.secret).put(&self.mount_uuid);
        let mut out = KIND.seal(&body);
        out.resize(CHUNKFILE_HEADER_LEN, 0);
        out
    }

    /// Reads and checks a header. The caller compares [`id`](Self::id) with the path.
    ///
    /// # Errors
    /// [`FormatError`]: not ours, newer, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let body = KIND.open(bytes)?;
        Self::decode_body(body).map_err(|Short| FormatError::Damaged(KIND.what))
    }

    fn decode_body(body: &[u8]) -> Result<Self, Short> {
        let mut r = Reader::new(body);
        let (mount, _) = (r.u8()?, r.u8()?);
        let id = ChunkfileId { machine: r.u16()?, log_id: r.u32()?, chunk: r.u32()? };
        let (size_units, created_ms) = (r.u32()?, r.u64()?);
        let (secret, mount_uuid) = (r.array()?, r.array()?);
        Ok(Self { id, mount, mount_uuid, size_units, secret, created_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::envelope::tests::as_version;

    fn sample() -> ChunkfileHeader {
        ChunkfileHeader {
            id: ChunkfileId { machine: 0x0102, log_id: 0x0304_0506, chunk: 7 },
            mount: 3,
            mount_uuid: [0xaa; 16],
            size_units: 1 << 20,
            secret: *b"0123456789abcdef",
            created_ms: 1_750_000_000_123,
        }
    }

    #[test]
    fn a_header_fills_its_block_and_comes_back() {
        let bytes = sample().encode();
        assert_eq!(bytes.len(), CHUNKFILE_HEADER_LEN);
        assert_eq!(ChunkfileHeader::decode(&bytes), Ok(sample()));
        for bit in 0..(ENVELOPE_LEN + BODY_LEN) * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ChunkfileHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_major_is_refused_and_a_newer_minor_is_read() {
        let bytes = sample().encode();
        let newer = ChunkfileHeader::decode(&as_version(&bytes, 2, 0, b""));
        assert!(matches!(newer, Err(FormatError::Newer { major: 2, .. })));
        assert_eq!(ChunkfileHeader::decode(&as_version(&bytes, 1, 1, b"more")), Ok(sample()));
    }
}
