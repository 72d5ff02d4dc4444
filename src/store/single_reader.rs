//! Reads the content of a large object, block by block, each checked for its own place (P2).
//!
//! Invariant: a singlefile answers only if its footer names the content, the length and the checksum that the home
//! header names. A descriptor once open is kept by its reader: the version that was found is the one delivered,
//! whatever happens to its name meanwhile.

use super::disk::{Disk, DiskFile, Open};
use super::read::ReadError;
use super::reader::Reader;
use crate::format::ids::Position;
use crate::format::paths;
use crate::format::single::{BLOCK_LEN, FOOTER_LEN, Footer};
use crate::format::slot::SlotHeader;
use std::io;
use std::ops::Range;

/// An open singlefile.
#[derive(Debug)]
pub struct SingleReader<F> {
    file: F,
    footer: Footer,
}

impl<D: Disk> Reader<D> {
    /// Opens the singlefile `content` that `home` names.
    ///
    /// # Errors
    /// [`ReadError::Unsettled`] if it is gone or another one: the home has to be read again.
    pub fn open_single(
        &self,
        home: &SlotHeader,
        content: Position,
    ) -> Result<SingleReader<D::File>, ReadError> {
        self.check()?;
        let path = paths::single(content);
        self.open_single_at(&path, content, (home.length, home.payload_crc))
    }

    /// Opens the file `path`, which must have this content, of this length and CRC32C.
    pub(super) fn open_single_at(
        &self,
        path: &str,
        content: Position,
        (length, payload_crc): (u64, u32),
    ) -> Result<SingleReader<D::File>, ReadError> {
        let file = match self.disk().open(path, Open::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(ReadError::Unsettled("the singlefile is gone"));
            }
            Err(e) => return Err(ReadError::io(path)(e)),
        };
        let len = file.len().map_err(ReadError::io(path))?;
        let mut bytes = [0; FOOTER_LEN];
        let Some(at) = len.checked_sub(FOOTER_LEN as u64) else {
            return Err(ReadError::Unsettled("the singlefile is cut short"));
        };
        let got = file.read_full_at(at, &mut bytes).map_err(ReadError::io(path))?;
        if got < FOOTER_LEN {
            return Err(ReadError::Unsettled("the singlefile is cut short"));
        }
        let Ok(footer) = Footer::decode(&bytes, len) else {
            return Err(ReadError::Unsettled("the footer of the singlefile is damaged"));
        };
        let same = footer.content == content
            && footer.mount == self.mount()
            && footer.length == length
            && footer.payload_crc == payload_crc;
        if same {
            Ok(SingleReader { file, footer })
        } else {
            Err(ReadError::Unsettled("the singlefile is not the one that the home names"))
        }
    }
}

impl<F: DiskFile> SingleReader<F> {
    /// Length of the content.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.footer.length
    }

    /// Reads the bytes `range` of the content into `buffer` (and what is around them in their blocks); where in
    /// the buffer they are. The buffer grows to the range's length plus two blocks and their checks.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] with the number of the first bad block; [`ReadError::Io`].
    pub fn read(&self, range: Range<u64>, buffer: &mut Vec<u8>) -> Result<Range<usize>, ReadError> {
        let blocks = self.footer.blocks(range.clone());
        if blocks.is_empty() {
            return Ok(0..0);
        }
        let bytes = self.footer.payload_range(blocks.clone());
        let table = self.footer.table_range(blocks.clone());
        let bytes_len = to_len(&bytes);
        let all = bytes_len.saturating_add(to_len(&table));
        if buffer.len() < all {
            buffer.resize(all, 0);
        }
        let (payload, rest) = buffer.split_at_mut(bytes_len);
        let checks = &mut rest[..to_len(&table)];
        let io = |e| ReadError::Io { what: paths::single(self.footer.content), error: e };
        let whole = self.file.read_full_at(bytes.start, payload).map_err(io)? == payload.len()
            && self.file.read_full_at(table.start, checks).map_err(io)? == checks.len();
        let verified = self.footer.verify(blocks.start, payload, checks);
        if let (true, Ok(())) = (whole, verified) {
            let from = to_len(&(bytes.start..range.start));
            let end = range.end.min(self.footer.length);
            return Ok(from..from + to_len(&(range.start..end)));
        }
        let bad = verified.err().unwrap_or(blocks.start);
        Err(ReadError::Damaged(format!(
            "{}: block {bad} (of {BLOCK_LEN} bytes each)",
            paths::single(self.footer.content)
        )))
    }
}

fn to_len(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}
