//! A structure that is written in one piece: label, memory, chunkfile header.
//!
//! ```text
//!  0  magic u32, major u8, minor u8, 0 u16
//!  8  length of the body u32, CRC32C of 0..12 and the body u32
//! 16  body
//! ```
//!
//! Invariants: a newer minor only appends to the body, and whoever reads an older one takes what it knows and
//! ignores the rest; a newer major is refused before anything else is believed, and its file is left untouched;
//! what is behind the body is not looked at.

use super::bytes::{Reader, Short, Writer};
use super::crc::crc32c_parts;

/// Bytes in front of the body.
pub const ENVELOPE_LEN: usize = 16;
/// Bytes of it under the checksum.
const CHECKED_LEN: usize = 12;
/// Format of all such structures.
pub const MAJOR: u8 = 1;
/// Additions that an older reader ignores.
pub const MINOR: u8 = 0;

/// Why bytes are not the structure that was looked for. None of them is ever mended by overwriting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Another magic: not ours at all.
    #[error("this is no {0}")]
    NotOurs(&'static str),
    /// A later program wrote it.
    #[error("the {what} has format {major}.{minor}; this program knows {MAJOR}.{MINOR}")]
    Newer {
        /// Which structure.
        what: &'static str,
        /// Its major version.
        major: u8,
        /// Its minor version.
        minor: u8,
    },
    /// Cut short, a wrong checksum, or values that are never written.
    #[error("the {0} is damaged")]
    Damaged(&'static str),
}

/// Which structure: its magic and what people call it.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// First four bytes.
    pub magic: [u8; 4],
    /// For messages: "label", "chunkfile header" ...
    pub what: &'static str,
}

impl Kind {
    /// Seals `body`.
    #[must_use]
    pub fn seal(self, body: &[u8]) -> Vec<u8> {
        self.seal_minor(body, MINOR)
    }

    /// The same, of a later minor version.
    #[must_use]
    pub fn seal_minor(self, body: &[u8], minor: u8) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENVELOPE_LEN + body.len());
        let mut w = Writer::new(&mut out);
        // Bodies are bounded far below 4 GiB; a longer one would be refused when read.
        w.put(&self.magic).u8(MAJOR).u8(minor).u16(0).u32(u32::try_from(body.len()).unwrap_or(0));
        let crc = crc32c_parts(&[w.written(), body]);
        w.u32(crc).put(body);
        out
    }

    /// The body, checked.
    ///
    /// # Errors
    /// [`FormatError`]: not ours, newer, or damaged.
    pub fn open(self, bytes: &[u8]) -> Result<&[u8], FormatError> {
        if bytes.get(..4) != Some(&self.magic) {
            return Err(FormatError::NotOurs(self.what));
        }
        let damaged = |_: Short| FormatError::Damaged(self.what);
        let mut r = Reader::new(&bytes[4..]);
        let (major, minor) = (r.u8().map_err(damaged)?, r.u8().map_err(damaged)?);
        if major > MAJOR {
            return Err(FormatError::Newer { what: self.what, major, minor });
        }
        r.skip(2).map_err(damaged)?;
        let (len, crc) = (r.u32().map_err(damaged)?, r.u32().map_err(damaged)?);
        let body = r.take(usize::try_from(len).unwrap_or(usize::MAX)).map_err(damaged)?;
        if major != MAJOR || crc32c_parts(&[&bytes[..CHECKED_LEN], body]) != crc {
            return Err(FormatError::Damaged(self.what));
        }
        Ok(body)
    }

    /// A structure of this kind: [`Kind::open`], then its body.
    ///
    /// # Errors
    /// [`FormatError`]: not ours, newer, or damaged, which it also is if the body is short or makes no sense (`None`).
    pub fn decode<T>(
        self,
        bytes: &[u8],
        body: impl FnOnce(&[u8]) -> Result<Option<T>, Short>,
    ) -> Result<T, FormatError> {
        let whole = body(self.open(bytes)?).ok().flatten();
        whole.ok_or(FormatError::Damaged(self.what))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::format::crc::crc32c;

    const TEST: Kind = Kind { magic: *b"FoTe", what: "test" };

    /// The same structure as a later program would write it: another version, and fields appended.
    pub(crate) fn as_version(bytes: &[u8], major: u8, minor: u8, appended: &[u8]) -> Vec<u8> {
        let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        let mut body = bytes[ENVELOPE_LEN..ENVELOPE_LEN + len].to_vec();
        body.extend_from_slice(appended);
        let mut out = bytes[..8].to_vec();
        (out[4], out[5]) = (major, minor);
        out.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        let mut all = out.clone();
        all.extend_from_slice(&body);
        out.extend(crc32c(&all).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    #[test]
    fn no_changed_bit_passes() {
        let sealed = TEST.seal(b"a body");
        assert_eq!(TEST.open(&sealed), Ok(&b"a body"[..]));
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(TEST.open(&bad).is_err(), "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert!(TEST.open(&sealed[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_newer_major_is_refused_and_a_newer_minor_is_read() {
        let sealed = TEST.seal(b"a body");
        let newer = FormatError::Newer { what: "test", major: 2, minor: 0 };
        assert_eq!(TEST.open(&as_version(&sealed, 2, 0, b"")), Err(newer.clone()));
        // Whatever a later format puts behind its version.
        assert_eq!(TEST.open(b"FoTe\x02\x00what?"), Err(newer));
        assert_eq!(TEST.open(&as_version(&sealed, 1, 9, b"more")), Ok(&b"a bodymore"[..]));
    }
}
