//! Numbers out of bytes, and the two checks of the format: CRC32C and SipHash-2-4 (docs/FORMAT.md, "Common rules").

use siphasher::sip::SipHasher24;
use std::hash::Hasher;

/// A structure ends before its last field, or holds a value that is never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad;

/// Takes numbers from the front, little endian.
#[derive(Clone, Debug)]
pub struct Take<'a>(pub &'a [u8]);

impl<'a> Take<'a> {
    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Bad> {
        let (now, later) = self.0.split_at_checked(len).ok_or(Bad)?;
        self.0 = later;
        Ok(now)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        self.bytes(N)?.try_into().map_err(|_| Bad)
    }

    pub fn u8(&mut self) -> Result<u8, Bad> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, Bad> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Bad> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Bad> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn raw16(&mut self) -> Result<[u8; 16], Bad> {
        self.array()
    }

    /// A short text: a byte of length, UTF-8.
    pub fn text(&mut self) -> Result<String, Bad> {
        let len = self.u8()?;
        let bytes = self.bytes(len.into())?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Bad)
    }
}

/// CRC32C of bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// A CRC32C that grows.
#[derive(Clone, Debug)]
pub struct Crc(crc_fast::Digest);

impl Crc {
    pub fn new() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }

    pub fn add(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    pub fn value(&self) -> u32 {
        // The library widens every checksum to 64 bits.
        u32::try_from(self.0.finalize() & u64::from(u32::MAX)).unwrap_or(0)
    }
}

/// SipHash-2-4 of two parts under a secret.
pub fn mac(secret: &[u8; 16], first: &[u8], second: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write(first);
    hasher.write(second);
    hasher.finish()
}

/// One record in one log; also the id of a content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub machine: u16,
    pub log_id: u32,
    pub sequence: u64,
}

impl Position {
    /// As in most structures: machine, two zeros, log id, sequence.
    pub fn take(from: &mut Take<'_>) -> Result<Self, Bad> {
        let (machine, _) = (from.u16()?, from.u16()?);
        Ok(Self { machine, log_id: from.u32()?, sequence: from.u64()? })
    }

    /// As in records: without the zeros.
    pub fn take_packed(from: &mut Take<'_>) -> Result<Self, Bad> {
        Ok(Self { machine: from.u16()?, log_id: from.u32()?, sequence: from.u64()? })
    }
}

/// A chunkfile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId {
    pub machine: u16,
    pub log_id: u32,
    pub number: u32,
}

/// Where a slot begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub chunk: ChunkId,
    /// In units of 64 bytes.
    pub unit: u32,
}

impl Address {
    pub fn take(from: &mut Take<'_>) -> Result<Self, Bad> {
        let chunk = ChunkId { machine: from.u16()?, log_id: from.u32()?, number: from.u32()? };
        Ok(Self { chunk, unit: from.u32()? })
    }

    /// In bytes.
    pub fn offset(self) -> u64 {
        u64::from(self.unit) * UNIT
    }
}

/// Bytes in a unit.
pub const UNIT: u64 = 64;

/// Which version of a structure was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Another magic.
    NotThis,
    /// A later major version.
    Newer(u8),
    /// Cut short, or a wrong check.
    Damaged,
}

impl From<Bad> for Flaw {
    fn from(_: Bad) -> Self {
        Self::Damaged
    }
}

/// Opens the envelope of label, memory, chunkfile header and archived conflict: its body.
pub fn envelope<'a>(magic: &[u8; 4], bytes: &'a [u8]) -> Result<&'a [u8], Flaw> {
    if bytes.get(..4) != Some(magic) {
        return Err(Flaw::NotThis);
    }
    let mut take = Take(bytes);
    take.u32()?;
    let (major, _minor, _) = (take.u8()?, take.u8()?, take.u16()?);
    if major > 1 {
        return Err(Flaw::Newer(major));
    }
    let (len, crc) = (take.u32()?, take.u32()?);
    let body = take.bytes(usize::try_from(len).map_err(|_| Bad)?)?;
    let right = Crc::new().add(&bytes[..12]).add(body).value() == crc;
    if major == 1 && right { Ok(body) } else { Err(Flaw::Damaged) }
}
