//! A singlefile: the raw payload, then a trailer with a CRC32C per 64 KiB block.
//!
//! ```text
//!  0         payload, length bytes
//!  length    table: for each block of 65536 bytes (the last may be shorter) its check u32
//!  at the end, 80 bytes, the footer:
//!  0  magic u32 "FoSi", major u8, minor u8, mount u8, 0 u8
//!  8  machine u16, 0 u16, log id u32, sequence u64     content id
//! 24  length of the payload u64                        32  length of the trailer u64 (table and footer)
//! 40  CRC32C of the whole payload u32                  44  CRC32C of the table u32
//! 48  block length u32, 0 u32                          56  0, 16 bytes
//! 72  length of the footer u32                         76  CRC32C of 0..76 u32
//!
//! check of a block = CRC32C of (content id as at 8..24, block number u64, CRC32C of the block u32)
//! ```
//!
//! Invariants: the content id is drawn when an upload begins, is never drawn again and is named by the home
//! header, so the trailer is finished before the object has a version; a block counts only for its own content at
//! its own place (P2), hence a sub-range is verified by the footer and the checks of the blocks that it touches;
//! the checksum of the whole ties the file to the home header. Where it lies tells nothing: the file's length,
//! the footer and the name must agree.

use super::bytes::{Reader, Short, Writer};
use super::crc::{Crc32c, crc32c, crc32c_combine, crc32c_parts};
use super::envelope::{FormatError, MAJOR, MINOR};
use super::ids::{MountIndex, Position};
use std::ops::Range;

/// Bytes under one check.
pub const BLOCK_LEN: usize = 65536;
/// Length of the footer: the last bytes of the file.
pub const FOOTER_LEN: usize = 80;
/// Length of a block's check in the table.
const CHECK_LEN: u64 = 4;
const MAGIC: [u8; 4] = *b"FoSi";
const WHAT: &str = "singlefile";
const _: () = assert!(8 + 16 + 2 * 8 + 4 * 4 + 16 + 2 * 4 == FOOTER_LEN);

/// Footer of a singlefile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Which content this is; also its name in the file system.
    pub content: Position,
    /// Mount.
    pub mount: MountIndex,
    /// Length of the payload in bytes.
    pub length: u64,
    /// CRC32C of the whole payload.
    pub payload_crc: u32,
    /// CRC32C of the table.
    pub table_crc: u32,
}

/// Blocks of a payload of `length` bytes.
#[must_use]
pub const fn block_count(length: u64) -> u64 {
    length.div_ceil(BLOCK_LEN as u64)
}

/// Length of the whole file for a payload of `length` bytes; `None` if that is more than a `u64`.
#[must_use]
pub const fn file_len(length: u64) -> Option<u64> {
    length.checked_add(block_count(length) * CHECK_LEN + FOOTER_LEN as u64)
}

impl Footer {
    /// The footer's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; FOOTER_LEN] {
        let mut out = Vec::with_capacity(FOOTER_LEN);
        let mut w = Writer::new(&mut out);
        w.put(&MAGIC).u8(MAJOR).u8(MINOR).u8(self.mount).u8(0).put(&content_bytes(self.content));
        w.u64(self.length).u64(block_count(self.length) * CHECK_LEN + FOOTER_LEN as u64);
        w.u32(self.payload_crc).u32(self.table_crc).u32(BLOCK_LEN as u32).u32(0).put(&[0; 16]);
        w.u32(FOOTER_LEN as u32);
        let crc = crc32c(w.written());
        w.u32(crc);
        let mut block = [0; FOOTER_LEN];
        block.copy_from_slice(&out);
        block
    }

    /// Reads the last [`FOOTER_LEN`] bytes of a file that is `file_length` bytes long.
    ///
    /// # Errors
    /// Not a singlefile, newer, or damaged; also when the file is cut short or longer than it was written.
    pub fn decode(bytes: &[u8; FOOTER_LEN], file_length: u64) -> Result<Self, FormatError> {
        if bytes[..4] != MAGIC {
            return Err(FormatError::NotOurs(WHAT));
        }
        let (major, minor) = (bytes[4], bytes[5]);
        if major > MAJOR {
            return Err(FormatError::Newer { what: WHAT, major, minor });
        }
        let (checked, crc) = bytes.split_at(FOOTER_LEN - 4);
        if crc32c(checked).to_le_bytes() != crc {
            return Err(FormatError::Damaged(WHAT));
        }
        let footer = Self::decode_checked(checked).map_err(|Short| FormatError::Damaged(WHAT))?;
        if file_len(footer.length) != Some(file_length) {
            return Err(FormatError::Damaged(WHAT));
        }
        Ok(footer)
    }

    fn decode_checked(bytes: &[u8]) -> Result<Self, Short> {
        let mut r = Reader::new(bytes);
        r.skip(4)?;
        let (major, _minor, mount, _) = (r.u8()?, r.u8()?, r.u8()?, r.u8()?);
        let (machine, _) = (r.u16()?, r.u16()?);
        let content = Position { machine, log_id: r.u32()?, sequence: r.u64()? };
        let (length, trailer_len) = (r.u64()?, r.u64()?);
        let (payload_crc, table_crc, block_len) = (r.u32()?, r.u32()?, r.u32()?);
        r.skip(4 + 16)?;
        let footer_len = r.u32()?;
        let fits = file_len(length).and_then(|len| len.checked_sub(length)) == Some(trailer_len);
        let sizes = block_len as usize == BLOCK_LEN && footer_len as usize == FOOTER_LEN;
        if major != MAJOR || !fits || !sizes {
            return Err(Short);
        }
        Ok(Self { content, mount, length, payload_crc, table_crc })
    }

    /// Numbers of the blocks that hold the payload bytes `range`; empty if the range is.
    #[must_use]
    pub fn blocks(&self, range: Range<u64>) -> Range<u64> {
        let end = range.end.min(self.length);
        if range.start >= end {
            return 0..0;
        }
        range.start / BLOCK_LEN as u64..end.div_ceil(BLOCK_LEN as u64)
    }

    /// Where the bytes of some blocks lie in the file.
    #[must_use]
    pub fn payload_range(&self, blocks: Range<u64>) -> Range<u64> {
        let at = |block: u64| block.saturating_mul(BLOCK_LEN as u64).min(self.length);
        at(blocks.start)..at(blocks.end)
    }

    /// Where the checks of some blocks lie in the file.
    #[must_use]
    pub fn table_range(&self, blocks: Range<u64>) -> Range<u64> {
        let count = block_count(self.length);
        let at = |block: u64| self.length + block.min(count) * CHECK_LEN;
        at(blocks.start)..at(blocks.end)
    }

    /// Whether `payload`, the bytes of whole neighbouring blocks from number `first` on, fits `checks`, the part
    /// of the table that belongs to them. The first bad block's number is the error.
    ///
    /// # Errors
    /// The number of the first block that is damaged, belongs elsewhere, or is missing in either of the two.
    pub fn verify(&self, first: u64, payload: &[u8], checks: &[u8]) -> Result<(), u64> {
        let mut checks = Reader::new(checks);
        let mut number = first;
        for block in payload.chunks(BLOCK_LEN) {
            let range = self.payload_range(number..number.saturating_add(1));
            let whole = range.end - range.start == block.len() as u64;
            let expected = block_check(self.content, number, crc32c(block));
            if !whole || checks.u32() != Ok(expected) {
                return Err(number);
            }
            number += 1;
        }
        if checks.is_empty() { Ok(()) } else { Err(number) }
    }

    /// Whether the whole table is what was written.
    #[must_use]
    pub fn table_is_whole(&self, table: &[u8]) -> bool {
        table.len() as u64 == block_count(self.length) * CHECK_LEN
            && crc32c(table) == self.table_crc
    }
}

/// Makes the trailer while the payload streams past. Memory: 4 bytes for each 64 KiB.
#[derive(Clone, Debug)]
pub struct TrailerBuilder {
    content: Position,
    mount: MountIndex,
    length: u64,
    payload_crc: u32,
    block: Crc32c,
    /// Bytes in the unfinished block; below [`BLOCK_LEN`].
    filled: usize,
    table: Vec<u8>,
}

impl TrailerBuilder {
    /// For a content that was just given its id.
    #[must_use]
    pub fn new(content: Position, mount: MountIndex) -> Self {
        Self {
            content,
            mount,
            length: 0,
            payload_crc: 0,
            block: Crc32c::new(),
            filled: 0,
            table: Vec::new(),
        }
    }

    /// Takes the next bytes of the payload, in pieces of any size.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_LEN - self.filled));
            self.block.update(now);
            self.filled += now.len();
            self.length += now.len() as u64;
            if self.filled == BLOCK_LEN {
                self.close_block();
            }
            bytes = later;
        }
    }

    /// Length of the payload so far, in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// What goes behind the payload, and the footer in it.
    #[must_use]
    pub fn finish(mut self) -> (Vec<u8>, Footer) {
        if self.filled > 0 {
            self.close_block();
        }
        let footer = Footer {
            content: self.content,
            mount: self.mount,
            length: self.length,
            payload_crc: self.payload_crc,
            table_crc: crc32c(&self.table),
        };
        self.table.extend_from_slice(&footer.encode());
        (self.table, footer)
    }

    fn close_block(&mut self) {
        let crc = self.block.value();
        let number = self.table.len() as u64 / CHECK_LEN;
        let check = block_check(self.content, number, crc);
        self.table.extend_from_slice(&check.to_le_bytes());
        self.payload_crc = crc32c_combine(self.payload_crc, crc, self.filled as u64);
        self.block = Crc32c::new();
        self.filled = 0;
    }
}

fn content_bytes(content: Position) -> [u8; 16] {
    let mut out = [0; 16];
    out[..2].copy_from_slice(&content.machine.to_le_bytes());
    out[4..8].copy_from_slice(&content.log_id.to_le_bytes());
    out[8..].copy_from_slice(&content.sequence.to_le_bytes());
    out
}

/// Binds a block's checksum to its content and its place in it.
fn block_check(content: Position, number: u64, crc: u32) -> u32 {
    crc32c_parts(&[&content_bytes(content), &number.to_le_bytes(), &crc.to_le_bytes()])
}

#[cfg(test)]
#[path = "single_tests.rs"]
mod tests;
