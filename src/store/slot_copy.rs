//! One object as it lies in its slots, verified, for a mirror that lacks it or has it damaged (state exchange, P3).

use super::disk::Disk;
use super::handles::Handle;
use super::read::ReadError;
use super::reader::{Content, Reader};
use crate::format::ids::Address;
use crate::format::record::SlotImage;
use crate::format::slot::{Body, NotASlot, Role, SlotHeader, State};
use bytes::Bytes;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of the first read, if nothing is known of the slot: header and payload of a small object.
pub const FIRST_READ: u64 = 16 << 10;
/// And the fewest and most if something is.
const FIRST_READ_BOUNDS: (u64, u64) = (1 << 10, 64 << 10);
/// How often a copy that met a change in flight is made anew.
const ATTEMPTS: u32 = 3;
/// What cannot happen: it was told to wait.
const WAITED: &str = "a waiting read did not wait";

/// One version as it lies in a mirror's slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotCopy {
    /// Header at home, as on disk.
    pub home: SlotImage,
    /// Header of the slot with the content, if it has moved.
    pub target: Option<SlotImage>,
    /// The content, verified; empty for a large object, and for a tombstone whose content is not here.
    pub payload: Bytes,
}

impl<D: Disk> Reader<D> {
    /// Header at `home`, target, and content, also of a deleted object: all of one version, all checksums right. Of a
    /// tombstone whose content is not here (a delete carries none) the home alone.
    ///
    /// # Errors
    /// `NotFound` if no home begins there; `Unsettled` after a few attempts: damage, unless a change is in flight;
    /// `Damaged` (the chunkfile's header), `Newer`, `Io`, `Fenced`.
    pub fn copy_slot(&self, home: Address) -> Result<SlotCopy, ReadError> {
        self.copy_slot_of(home, FIRST_READ)
    }

    /// The same of a slot that has about `room` bytes: no more than that is read of an object that has not moved.
    ///
    /// # Errors
    /// As [`Self::copy_slot`].
    pub fn copy_slot_of(&self, home: Address, room: u64) -> Result<SlotCopy, ReadError> {
        let room = room.clamp(FIRST_READ_BOUNDS.0, FIRST_READ_BOUNDS.1);
        match self.copy_whole(home, room) {
            Err(ReadError::Unsettled(why)) => {
                let mut buffer = Vec::new();
                let (_, header, _) = self.read_home(home, room, &mut buffer)?;
                if header.state != State::Deleted {
                    return Err(ReadError::Unsettled(why));
                }
                let home = image(home, &buffer[..header.payload_offset()]);
                Ok(SlotCopy { home, target: None, payload: Bytes::new() })
            }
            other => other,
        }
    }

    /// The same, but never without its content.
    pub(super) fn copy_whole(&self, home: Address, room: u64) -> Result<SlotCopy, ReadError> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            match self.try_copy_of(home, room) {
                Err(ReadError::Unsettled(_)) if left > 0 => {}
                other => return other.map(|(_, copy)| copy),
            }
        }
    }

    /// Reads a home's header, and what lies behind it, to `buffer`; how many bytes.
    fn read_home(
        &self,
        at: Address,
        room: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<(Arc<Handle<D::File>>, SlotHeader, usize), ReadError> {
        self.check()?;
        let absent = ReadError::NotFound { deleted: false };
        let handle = match self.handles().open(self.disk(), self.mount(), at.chunkfile())? {
            Some(handle) if at.offset_units < handle.size_units => handle,
            Some(_) | None => return Err(absent),
        };
        let len = self.read(&handle, at, room, buffer, 0, true)?;
        let len = len.ok_or(ReadError::Unsettled(WAITED))?;
        let header = match SlotHeader::decode(&buffer[..len], &handle.secret) {
            Ok(header) => header,
            Err(NotASlot::Blank) => return Err(absent),
            Err(NotASlot::Broken) => return Err(ReadError::Unsettled("the seal is broken")),
            Err(NotASlot::Newer(version)) => return Err(ReadError::Newer(version)),
        };
        if header.address != at || header.mount != self.mount() {
            return Err(ReadError::Unsettled("the slot header belongs elsewhere"));
        }
        if header.role == Role::Target { Err(absent) } else { Ok((handle, header, len)) }
    }

    /// As [`Self::copy_whole`], once, with the home's header read.
    pub(super) fn try_copy(&self, at: Address) -> Result<(SlotHeader, SlotCopy), ReadError> {
        self.try_copy_of(at, FIRST_READ)
    }

    fn try_copy_of(&self, at: Address, room: u64) -> Result<(SlotHeader, SlotCopy), ReadError> {
        let mut buffer = Vec::new();
        let (handle, header, len) = self.read_home(at, room, &mut buffer)?;
        let home = image(at, &buffer[..header.payload_offset()]);
        let copy = match header.body {
            Body::Inline => {
                let got = self.content(&handle, header.clone(), at, len, &mut buffer, true)?;
                let got = got.ok_or(ReadError::Unsettled(WAITED))?;
                let payload = Bytes::from(buffer).slice(content_range(&got.content)?);
                SlotCopy { home, target: None, payload }
            }
            Body::Slot(to) => {
                let got = self.follow(header.clone(), to, &mut buffer, true)?;
                let got = got.ok_or(ReadError::Unsettled(WAITED))?;
                let range = content_range(&got.content)?;
                let image = image(to, &buffer[..range.start]);
                let payload = Bytes::from(buffer).slice(range);
                SlotCopy { home, target: Some(image), payload }
            }
            Body::Single(_) | Body::None => SlotCopy { home, target: None, payload: Bytes::new() },
        };
        Ok((header, copy))
    }
}

fn image(address: Address, header: &[u8]) -> SlotImage {
    SlotImage { address, header: SmallVec::from_slice(header) }
}

fn content_range(content: &Content) -> Result<Range<usize>, ReadError> {
    match content {
        Content::Buffer(range) => Ok(range.clone()),
        Content::Single(_) => Err(ReadError::Unsettled("a slot led to a singlefile")),
    }
}
