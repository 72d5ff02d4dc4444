//! One object as it lies in its slots, verified, for a mirror that lacks it or has it damaged (state exchange, P3).

pub use super::absorb::SlotCopy;
use super::disk::Disk;
use super::read::ReadError;
use super::reader::{Content, Reader};
use crate::format::ids::Address;
use crate::format::record::SlotImage;
use crate::format::slot::{Body, NotASlot, Role, SlotHeader};
use bytes::Bytes;
use smallvec::SmallVec;
use std::ops::Range;

/// Bytes of the first read: header and payload of a small object.
const FIRST_READ: u64 = 16 << 10;
/// How often a copy that met a change in flight is made anew.
const ATTEMPTS: u32 = 3;

impl<D: Disk> Reader<D> {
    /// Header at `home`, target, and content, also of a deleted object: all of one version, all checksums right.
    ///
    /// # Errors
    /// `NotFound` if no home begins there; `Unsettled` after a few attempts: damage, unless a change is in flight;
    /// `Damaged` (the chunkfile's header), `Newer`, `Io`, `Fenced`.
    pub fn copy_slot(&self, home: Address) -> Result<SlotCopy, ReadError> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            match self.try_copy(home) {
                Err(ReadError::Unsettled(_)) if left > 0 => {}
                other => return other.map(|(_, copy)| copy),
            }
        }
    }

    /// As [`Self::copy_slot`], once, with the home's header read.
    pub(super) fn try_copy(&self, at: Address) -> Result<(SlotHeader, SlotCopy), ReadError> {
        self.check()?;
        let absent = ReadError::NotFound { deleted: false };
        let handle = match self.handles().open(self.disk(), self.mount(), at.chunkfile())? {
            Some(handle) if at.offset_units < handle.size_units => handle,
            Some(_) | None => return Err(absent),
        };
        let mut buffer = Vec::new();
        let waited = "a waiting read did not wait";
        let len = self.read(&handle, at, FIRST_READ, &mut buffer, 0, true)?;
        let len = len.ok_or(ReadError::Unsettled(waited))?;
        let header = match SlotHeader::decode(&buffer[..len], &handle.secret) {
            Ok(header) => header,
            Err(NotASlot::Blank) => return Err(absent),
            Err(NotASlot::Broken) => return Err(ReadError::Unsettled("the seal is broken")),
            Err(NotASlot::Newer(version)) => return Err(ReadError::Newer(version)),
        };
        if header.address != at || header.mount != self.mount() {
            return Err(ReadError::Unsettled("the slot header belongs elsewhere"));
        }
        if header.role == Role::Target {
            return Err(absent);
        }
        let front = header.payload_offset();
        let home = SlotImage { address: at, header: SmallVec::from_slice(&buffer[..front]) };
        let copy = match header.body {
            Body::Inline => {
                let got = self.content(&handle, header.clone(), at, len, &mut buffer, true)?;
                let got = got.ok_or(ReadError::Unsettled(waited))?;
                let payload = Bytes::from(buffer).slice(content_range(&got.content)?);
                SlotCopy { home, target: None, payload }
            }
            Body::Slot(to) => {
                let got = self.follow(header.clone(), to, &mut buffer, true)?;
                let got = got.ok_or(ReadError::Unsettled(waited))?;
                let range = content_range(&got.content)?;
                let header = SmallVec::from_slice(&buffer[..range.start]);
                let image = SlotImage { address: to, header };
                let payload = Bytes::from(buffer).slice(range);
                SlotCopy { home, target: Some(image), payload }
            }
            Body::Single(_) | Body::None => SlotCopy { home, target: None, payload: Bytes::new() },
        };
        Ok((header, copy))
    }
}

fn content_range(content: &Content) -> Result<Range<usize>, ReadError> {
    match content {
        Content::Buffer(range) => Ok(range.clone()),
        Content::Single(_) => Err(ReadError::Unsettled("a slot led to a singlefile")),
    }
}
