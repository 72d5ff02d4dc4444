//! What two mirrors compare when no log tells them (state exchange, design section 6): a digest of each chunkfile,
//! and, where those differ, the headers of its slots.
//!
//! ```text
//! a digest is the fingerprint of one entry for each home slot that is live or deleted, in the order of their places
//!   object id 45, as in a file id
//!   tag: life u32, term u32, n u64, machine u16, log id u32, sequence u64
//!   state u8 (0 live, 1 deleted), body u8 (0 inline, 1 in another slot, 2 in a singlefile, 3 none)
//!   payload CRC32C u32, length u64
//! ```
//!
//! Invariants: what is free, purged or stale is not in a digest, so mirrors with the same objects have the same
//! digests whatever became of the room between them; *absence proves nothing* (a chunkfile that is not here has the
//! digest of an empty one), so a difference is settled by the headers, which include those of purged objects. A step
//! reads no more than it was told to.

use super::disk::Disk;
use super::read::{ReadError, view_target};
use super::reader::Reader;
use super::rebuild::walk;
use super::slot_walk::{Home, SlotWalk, Step};
use crate::format::bytes::Writer;
use crate::format::chunkfile::FIRST_SLOT_UNITS;
use crate::format::crc::Fingerprint;
use crate::format::ids::{Address, ChunkfileId};
use crate::format::paths::{self, MountFile};
use crate::format::record::SlotImage;
use crate::format::slot::{Body, HEADER_LEN, SlotHeader, State};
use smallvec::SmallVec;

/// Bytes that one page of summaries reads of its chunkfile, about.
pub const PAGE_BYTES: u64 = 16 << 20;
/// Longest header that a target is looked for with: 192 bytes and all the extra entries there can be.
const TARGET_LOOK: u64 = HEADER_LEN as u64 + 255 * 16;

/// What a chunkfile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkDigest {
    /// See the module.
    pub fingerprint: [u8; 16],
    /// Objects in it, live and deleted.
    pub objects: u64,
    /// When the last of them was edited, ms since 1970: a chunkfile that is not quiet need not be compared.
    pub newest_ms: u64,
}

/// Which contents are looked at besides the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verify {
    Nothing,
    /// Those of large objects, by their footers.
    Large,
    All,
}

/// A digest that is being made.
#[derive(Clone, Debug)]
pub struct DigestCursor {
    id: ChunkfileId,
    next_units: u32,
    fingerprint: Fingerprint,
    objects: u64,
    newest_ms: u64,
    verify: Verify,
    damaged: Vec<Address>,
}

impl DigestCursor {
    /// Of a chunkfile. `verify`: the contents are read, too, and the homes of those that are damaged are listed.
    #[must_use]
    pub fn new(id: ChunkfileId, verify: bool) -> Self {
        Self::with(id, if verify { Verify::All } else { Verify::Nothing })
    }

    /// Of a chunkfile; the homes of large objects whose content is missing, or is another, are listed.
    #[must_use]
    pub fn with_large(id: ChunkfileId) -> Self {
        Self::with(id, Verify::Large)
    }

    fn with(id: ChunkfileId, verify: Verify) -> Self {
        Self {
            id,
            next_units: FIRST_SLOT_UNITS,
            fingerprint: Fingerprint::new(),
            objects: 0,
            newest_ms: 0,
            verify,
            damaged: Vec::new(),
        }
    }

    /// Homes whose content cannot be read as it was written; drained. A large object counts by its
    /// footer only; a tombstone's content may be on no mirror at all.
    pub fn take_damaged(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.damaged)
    }

    fn take(&mut self, header: &SlotHeader) {
        self.fingerprint.update(&entry(header));
        self.objects += 1;
        self.newest_ms = self.newest_ms.max(header.modified_ms);
    }

    fn digest(&self) -> ChunkDigest {
        let fingerprint = self.fingerprint.value();
        ChunkDigest { fingerprint, objects: self.objects, newest_ms: self.newest_ms }
    }
}

/// A home slot, for comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSummary {
    /// Where it begins in its chunkfile.
    pub offset_units: u32,
    /// Header and extra vector entries, sealed as on the disk.
    pub home: SmallVec<[u8; 192]>,
    /// The slot that it forwards to. `None` for a home that forwards to a slot: that one is damaged.
    pub target: Option<SlotImage>,
}

/// Some home slots of a chunkfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SummaryPage {
    /// In the order of their places; may be empty without being the last.
    pub items: Vec<SlotSummary>,
    /// The unit to go on at; `None`: that was all.
    pub next: Option<u32>,
}

/// Some home slots of a chunkfile, told apart and no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkPage {
    /// (where it begins, its [`mark`]), in the order of their places; may be empty without being the last.
    pub marks: Vec<(u32, u64)>,
    /// Where homes stand whose headers are damaged.
    pub damaged: Vec<u32>,
    /// The unit to go on at; `None`: that was all.
    pub next: Option<u32>,
}

impl<D: Disk> Reader<D> {
    /// Every chunkfile of the mount, of all machines and log ids.
    ///
    /// # Errors
    /// `Io`, `Fenced`.
    pub fn chunkfiles(&self) -> Result<Vec<ChunkfileId>, ReadError> {
        self.check()?;
        let mut found = Vec::new();
        let walked = walk(self.disk(), paths::CHUNKS, 3, &mut |path| {
            if let Some(MountFile::Chunk(id)) = MountFile::parse(path) {
                found.push(id);
            }
        });
        walked.map_err(|e| ReadError::io(paths::CHUNKS)(std::io::Error::other(e)))?;
        found.sort_unstable();
        Ok(found)
    }

    /// Goes on with a digest, reading about `max_bytes`. `None`: there is more to do.
    ///
    /// # Errors
    /// `Damaged` if the chunkfile's own header is; `Io`, `Fenced`.
    pub fn digest_step(
        &self,
        cursor: &mut DigestCursor,
        max_bytes: u64,
    ) -> Result<Option<ChunkDigest>, ReadError> {
        self.check()?;
        let Some(handle) = self.handles().open(self.disk(), self.mount(), cursor.id)? else {
            return Ok(Some(cursor.digest()));
        };
        let budget = max_bytes.max(1);
        let mut walk = SlotWalk::new(&handle, cursor.id, self.mount(), cursor.next_units, budget);
        loop {
            match walk.step()? {
                Step::Home(home) => {
                    if home.header.state != State::Purged {
                        cursor.take(&home.header);
                        let large = matches!(home.header.body, Body::Single(_));
                        let look = match cursor.verify {
                            Verify::Nothing => false,
                            Verify::Large => large,
                            Verify::All => true,
                        };
                        if look && !self.is_whole(&home.header)? {
                            cursor.damaged.push(home.header.address);
                        }
                        if look && !large {
                            walk.spend(home.header.length);
                        }
                    }
                    cursor.next_units = walk.position();
                }
                Step::Pause => {
                    cursor.next_units = walk.position();
                    return Ok(None);
                }
                Step::End => return Ok(Some(cursor.digest())),
            }
        }
    }

    /// Whether the content of a home can be read. One that changes meanwhile can.
    pub(super) fn is_whole(&self, home: &SlotHeader) -> Result<bool, ReadError> {
        let found = match home.body {
            Body::Single(content) => self.open_single(home, content).map(|_| ()),
            Body::Inline | Body::Slot(_) | Body::None => {
                self.copy_whole(home.address, home.place().capacity()).map(|_| ())
            }
        };
        match found {
            Ok(()) => Ok(true),
            Err(error @ (ReadError::Fenced | ReadError::Newer(_))) => Err(error),
            Err(_) => match self.try_copy(home.address) {
                // Replaced or purged meanwhile.
                Ok((now, _)) => Ok(now.version.tag != home.version.tag),
                Err(error) => Ok(matches!(error, ReadError::NotFound { .. })),
            },
        }
    }

    /// The home slots of a chunkfile from unit `from_units` on, purged ones too, at most `limit`.
    ///
    /// # Errors
    /// `Damaged` if the chunkfile's own header is; `Io`, `Fenced`.
    pub fn summaries(
        &self,
        id: ChunkfileId,
        from_units: u32,
        limit: usize,
    ) -> Result<SummaryPage, ReadError> {
        self.check()?;
        let mut page = SummaryPage::default();
        let Some(handle) = self.handles().open(self.disk(), self.mount(), id)? else {
            return Ok(page);
        };
        let mut walk = SlotWalk::new(&handle, id, self.mount(), from_units, PAGE_BYTES);
        while page.items.len() < limit {
            match walk.step()? {
                Step::Home(Home { header, bytes }) => {
                    let offset_units = header.address.offset_units;
                    let target = self.target_image(&header)?;
                    page.items.push(SlotSummary { offset_units, home: bytes, target });
                }
                Step::Pause => break,
                Step::End => return Ok(page),
            }
        }
        page.next = Some(walk.position());
        Ok(page)
    }

    /// The marks of the homes of a chunkfile from unit `from_units` on, at most `limit`, reading about `max_bytes`.
    ///
    /// # Errors
    /// `Damaged` if the chunkfile's own header is; `Io`, `Fenced`.
    pub fn marks(
        &self,
        id: ChunkfileId,
        from_units: u32,
        limit: usize,
        max_bytes: u64,
    ) -> Result<MarkPage, ReadError> {
        self.check()?;
        let mut page = MarkPage::default();
        let Some(handle) = self.handles().open(self.disk(), self.mount(), id)? else {
            return Ok(page);
        };
        let mut walk = SlotWalk::new(&handle, id, self.mount(), from_units, max_bytes.max(1));
        let ended = loop {
            if page.marks.len() >= limit {
                break false;
            }
            match walk.step()? {
                Step::Home(Home { header, .. }) => {
                    page.marks.push((header.address.offset_units, mark(&header)));
                }
                Step::Pause => break false,
                Step::End => break true,
            }
        };
        page.next = (!ended).then_some(walk.position());
        page.damaged = walk.take_damaged();
        Ok(page)
    }

    /// The header that a home forwards to, if it is of the same version.
    fn target_image(&self, home: &SlotHeader) -> Result<Option<SlotImage>, ReadError> {
        let Body::Slot(to) = home.body else { return Ok(None) };
        let handle = match self.handles().open(self.disk(), self.mount(), to.chunkfile()) {
            Ok(Some(handle)) if to.offset_units < handle.size_units => handle,
            Ok(Some(_) | None) | Err(ReadError::Damaged(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut buffer = Vec::new();
        let len = self.read(&handle, to, TARGET_LOOK, &mut buffer, 0, true)?.unwrap_or(0);
        match view_target(home, to, &buffer[..len], &handle.secret) {
            Ok(target) => {
                let header = SmallVec::from_slice(&buffer[..target.payload_offset()]);
                Ok(Some(SlotImage { address: to, header }))
            }
            Err(_) => Ok(None),
        }
    }
}

/// 64 bits that tell whether two mirrors have the same version at a home: of what it adds to the digest, purged ones too.
#[must_use]
pub fn mark(header: &SlotHeader) -> u64 {
    let mut fingerprint = Fingerprint::new();
    fingerprint.update(&entry(header));
    fingerprint.value().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// What a home slot adds to the digest.
fn entry(header: &SlotHeader) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    let tag = &header.version.tag;
    let state = match header.state {
        State::Live => 0,
        State::Deleted => 1,
        State::Purged => 2,
    };
    let body = match header.body {
        Body::Inline => 0,
        Body::Slot(_) => 1,
        Body::Single(_) => 2,
        Body::None => 3,
    };
    let mut w = Writer::new(&mut out);
    w.put(&header.object_id().encode()).u32(tag.life).u32(tag.term).u64(tag.n);
    w.u16(tag.machine).u32(tag.log_id).u64(tag.sequence).u8(state).u8(body);
    w.u32(header.payload_crc).u64(header.length);
    out
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
