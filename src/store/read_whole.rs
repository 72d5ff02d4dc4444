//! Reading an object on the mount's own thread: what the home header of this instant says, whole and checked.
//!
//! The hot path reads without the engine (see `reader`); this is the word of last resort, and what tests ask.

use super::disk::{Disk, DiskFile, Open};
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use crate::format::crc::crc32c;
use crate::format::file_id::ObjectId;
use crate::format::ids::{Place, Position};
use crate::format::paths;
use crate::format::slot::{Body, SlotHeader, State};

impl<D: Disk> Mount<D> {
    /// The last committed content of an object.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `Foreign`, `Fenced`, `Io`.
    pub fn read_whole(&mut self, id: &ObjectId) -> StoreResult<Vec<u8>> {
        let home = self.committed(id)?;
        match home.state {
            State::Live => {}
            State::Deleted => return Err(StoreError::NotFound { deleted: true }),
            State::Purged => return Err(StoreError::NotFound { deleted: false }),
        }
        match home.body {
            Body::Inline => self.content_at(home.place(), &home),
            Body::Slot(address) => self.content_at(Place { address, capacity_units: 0 }, &home),
            Body::Single(content) => self.read_single(content, &home),
            Body::None => Err(StoreError::Damaged("a live object without content".to_owned())),
        }
    }

    /// The home header as the disk has it, without what is staged.
    fn committed(&mut self, id: &ObjectId) -> StoreResult<SlotHeader> {
        let staged = self.overlay.remove(&id.home().address);
        let found = self.current(id);
        if let Some(header) = staged {
            self.overlay.insert(header.address, header);
        }
        found
    }

    fn content_at(&mut self, place: Place, home: &SlotHeader) -> StoreResult<Vec<u8>> {
        match self.core.slot_at(place)? {
            Some((slot, payload))
                if slot.cookie == home.cookie
                    && slot.creation == home.creation
                    && slot.version.tag == home.version.tag =>
            {
                Ok(payload)
            }
            Some(_) => Err(StoreError::Damaged("the content is of another version".to_owned())),
            None => Err(StoreError::Damaged("header or content fails its checksum".to_owned())),
        }
    }

    fn read_single(&mut self, content: Position, home: &SlotHeader) -> StoreResult<Vec<u8>> {
        let path = paths::single(content);
        let file = self.core.disk.open(&path, Open::Read);
        let file = file.map_err(|e| StoreError::Damaged(format!("open {path}: {e}")))?;
        let length = usize::try_from(home.length).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        let got = file.read_full_at(0, &mut bytes);
        let got = got.map_err(|e| StoreError::Damaged(format!("read {path}: {e}")))?;
        if got != length || crc32c(&bytes) != home.payload_crc {
            return Err(StoreError::Damaged(format!("{path} fails its checksum")));
        }
        Ok(bytes)
    }
}
