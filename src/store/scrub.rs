//! Verifying what lies on a mount, in slices, beside everything else (P3): slots, contents of large objects, chunkfile headers.
//!
//! Invariants: a slice reads about as much as it was told to; what it names is only *suspected*, because a change may have
//! been in flight: the mount looks again in line with its changes ([`Mount::look_again`](super::mount::Mount::look_again)).
//! The content of a large object is never rewritten, so of that a second look by a reader is enough. What nobody uses (holes,
//! room to grow, slots of former tenants) is not looked at.

use super::content::read_footer;
use super::disk::{Disk, DiskFile, Open};
use super::read::ReadError;
use super::reader::Reader;
use super::slot_walk::{SlotWalk, Step};
use crate::format::chunkfile::{CHUNKFILE_HEADER_LEN, ChunkfileHeader, FIRST_SLOT_UNITS};
use crate::format::conflict::Conflict;
use crate::format::crc::Crc32c;
use crate::format::ids::{Address, ChunkfileId, Position, UNIT};
use crate::format::paths;
use crate::format::scrub_state::{SCRUB_STATE_LEN_MAX, ScrubState};
use crate::format::single::{BLOCK_LEN, block_count};
use crate::format::slot::{Body, SlotHeader, State};
use std::io::{self, ErrorKind};

/// Blocks of a singlefile that are read at a time.
const BLOCKS: u64 = 16;
/// Large objects in one part of a chunkfile at most: they take their time.
const LARGE_MAX: usize = 64;

/// A part of a chunkfile, verified.
#[derive(Clone, Debug, Default)]
pub struct SlotsChecked {
    /// The unit to go on at; `None`: that was all.
    pub next: Option<u32>,
    /// Bytes of the file that this part covers.
    pub bytes: u64,
    /// Objects in it.
    pub objects: u64,
    /// Homes whose header or content cannot be read as it was written.
    pub suspects: Vec<u32>,
    /// Contents in singlefiles, which are to be verified one by one.
    pub large: Vec<Large>,
}

/// The content of a large object, as its home names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Large {
    /// The home.
    pub home: Address,
    /// The content.
    pub content: Position,
    /// Its length.
    pub length: u64,
    /// Its CRC32C.
    pub payload_crc: u32,
    /// Behind a tombstone: it may be on no mirror at all.
    pub deleted: bool,
}

impl Large {
    /// What a home header names.
    #[must_use]
    pub fn of(header: &SlotHeader) -> Option<Self> {
        match header.body {
            Body::Single(content) => Some(Self {
                home: header.address,
                content,
                length: header.length,
                payload_crc: header.payload_crc,
                deleted: header.state != State::Live,
            }),
            Body::Inline | Body::Slot(_) | Body::None => None,
        }
    }
}

/// The verification of one singlefile, in slices.
#[derive(Clone, Debug)]
pub struct LargeCheck {
    large: Large,
    /// Of a losing version: it has a name of its own in the archive.
    archived: bool,
    next_block: u64,
    whole: Crc32c,
    table: Crc32c,
}

impl LargeCheck {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(large: Large) -> Self {
        let (whole, table) = (Crc32c::new(), Crc32c::new());
        Self { large, archived: false, next_block: 0, whole, table }
    }

    /// Of a losing version, if its content is a large one.
    #[must_use]
    pub fn archived(lost: &Conflict) -> Option<Self> {
        let large = Large {
            home: lost.object.home().address,
            content: lost.single?,
            length: lost.length,
            payload_crc: lost.payload_crc,
            deleted: false,
        };
        Some(Self { archived: true, ..Self::new(large) })
    }
}

/// How the content of a large object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LargeState {
    /// There is more to read.
    More,
    /// As it was written.
    Whole,
    /// There is no file.
    Missing,
    /// What is wrong with it.
    Damaged(String),
}

impl<D: Disk> Reader<D> {
    /// Whether the header of a chunkfile on the medium is as it was written; `None`: there is no such file.
    ///
    /// # Errors
    /// `Newer`, `Fenced`.
    pub fn check_chunkfile(&self, id: ChunkfileId) -> Result<Option<bool>, ReadError> {
        self.check()?;
        let file = match self.disk().open(&paths::chunk(id), Open::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(_) => return Ok(Some(false)),
        };
        let mut bytes = vec![0; CHUNKFILE_HEADER_LEN];
        let Ok(got) = file.read_full_at(0, &mut bytes) else { return Ok(Some(false)) };
        let header = ChunkfileHeader::decode(&bytes[..got]);
        Ok(Some(header.is_ok_and(|header| header.id == id && header.mount == self.mount())))
    }

    /// Verifies homes and contents of a chunkfile from unit `from` on, reading about `max_bytes`.
    ///
    /// # Errors
    /// `Damaged` if the chunkfile's own header is; `Io` if nothing at all can be read; `Fenced`, `Newer`.
    pub fn check_slots(
        &self,
        id: ChunkfileId,
        from: u32,
        max_bytes: u64,
    ) -> Result<SlotsChecked, ReadError> {
        self.check()?;
        let mut page = SlotsChecked::default();
        let Some(handle) = self.handles().open(self.disk(), self.mount(), id)? else {
            return Ok(page);
        };
        let from = from.max(FIRST_SLOT_UNITS);
        let mut walk = SlotWalk::new(&handle, id, self.mount(), from, max_bytes.max(1));
        let ended = loop {
            if page.large.len() >= LARGE_MAX {
                break false;
            }
            match walk.step()? {
                Step::Home(home) if home.header.state == State::Purged => {}
                Step::Home(home) => {
                    page.objects += 1;
                    match Large::of(&home.header) {
                        Some(large) => page.large.push(large),
                        None => {
                            if !self.is_whole(&home.header)? {
                                page.suspects.push(home.header.address.offset_units);
                            }
                            walk.spend(home.header.length);
                        }
                    }
                }
                Step::Pause => break false,
                Step::End => break true,
            }
        };
        page.suspects.extend(walk.take_damaged());
        page.next = (!ended).then_some(walk.position());
        let len = handle.file.len().unwrap_or(0) / UNIT;
        let until = u64::from(walk.position()).min(len.max(u64::from(from)));
        page.bytes = until.saturating_sub(u64::from(from)) * UNIT;
        Ok(page)
    }

    /// The content that a home names, if it is one of a large object.
    ///
    /// # Errors
    /// `Damaged` if the chunkfile's own header is; `Io`, `Fenced`, `Newer`.
    pub fn large_at(&self, home: Address) -> Result<Option<Large>, ReadError> {
        match self.copy_slot(home) {
            Ok(copy) => {
                let Some(handle) =
                    self.handles().open(self.disk(), self.mount(), home.chunkfile())?
                else {
                    return Ok(None);
                };
                let header = SlotHeader::decode(&copy.home.header, &handle.secret);
                Ok(header.ok().and_then(|header| Large::of(&header)))
            }
            Err(ReadError::NotFound { .. } | ReadError::Unsettled(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Goes on with the verification of a large content, reading about `max_bytes`; and how many bytes were read.
    ///
    /// # Errors
    /// `Fenced`.
    pub fn check_large(
        &self,
        check: &mut LargeCheck,
        max_bytes: u64,
    ) -> Result<(LargeState, u64), ReadError> {
        self.check()?;
        let large = check.large;
        let bad = |what: &str, bytes| Ok((LargeState::Damaged(what.to_owned()), bytes));
        let path = if check.archived {
            paths::conflict_single(large.content)
        } else {
            paths::single(large.content)
        };
        let file = match self.disk().open(&path, Open::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok((LargeState::Missing, 0)),
            Err(e) => return bad(&format!("the singlefile cannot be opened: {e}"), 0),
        };
        let footer = match read_footer(&file) {
            Ok(Some(footer)) => footer,
            Ok(None) => return bad("the footer of the singlefile is damaged", 0),
            Err(e) => return bad(&format!("the singlefile cannot be read: {e}"), 0),
        };
        if (footer.content, footer.mount) != (large.content, self.mount())
            || (footer.length, footer.payload_crc) != (large.length, large.payload_crc)
        {
            return bad("the singlefile is not the one that the home names", 0);
        }
        let count = block_count(footer.length);
        let mut payload = vec![0; BLOCKS as usize * BLOCK_LEN];
        let mut checks = vec![0; BLOCKS as usize * 4];
        let mut bytes = 0;
        while check.next_block < count && bytes < max_bytes.max(1) {
            let blocks = check.next_block..count.min(check.next_block + BLOCKS);
            let (at, entries) =
                (footer.payload_range(blocks.clone()), footer.table_range(blocks.clone()));
            let payload = read_range(&file, &at, &mut payload);
            let entries = read_range(&file, &entries, &mut checks);
            let (Ok(payload), Ok(entries)) = (payload, entries) else {
                return bad("a part of the singlefile cannot be read", bytes);
            };
            bytes += payload.len() as u64;
            if let Err(block) = footer.verify(blocks.start, payload, entries) {
                return bad(&format!("block {block} of the singlefile is damaged"), bytes);
            }
            check.whole.update(payload);
            check.table.update(entries);
            check.next_block = blocks.end;
        }
        if check.next_block < count {
            return Ok((LargeState::More, bytes));
        }
        if check.whole.value() != footer.payload_crc || check.table.value() != footer.table_crc {
            return bad("the blocks of the singlefile are not those that its footer names", bytes);
        }
        Ok((LargeState::Whole, bytes))
    }

    /// How far the verification of this mount has come; `None`: nothing is known.
    ///
    /// # Errors
    /// `Fenced`.
    pub fn load_scrub(&self) -> Result<Option<ScrubState>, ReadError> {
        self.check()?;
        let Ok(file) = self.disk().open(paths::SCRUB_STATE, Open::Read) else { return Ok(None) };
        let len = usize::try_from(file.len().unwrap_or(0)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(SCRUB_STATE_LEN_MAX)];
        let Ok(got) = file.read_full_at(0, &mut bytes) else { return Ok(None) };
        Ok(ScrubState::decode(&bytes[..got]).ok())
    }

    /// Keeps it. Nothing depends on it, so it is not waited for until it is durable.
    ///
    /// # Errors
    /// `Io`, `Fenced`.
    pub fn save_scrub(&self, state: &ScrubState) -> Result<(), ReadError> {
        self.check()?;
        let save = || -> io::Result<()> {
            let disk = self.disk();
            if disk.stat(paths::SCRUB_STATE_TMP)?.is_some() {
                disk.unlink(paths::SCRUB_STATE_TMP)?;
            }
            let file = disk.open(paths::SCRUB_STATE_TMP, Open::Create)?;
            file.write_all_at(0, &state.encode())?;
            disk.rename(paths::SCRUB_STATE_TMP, paths::SCRUB_STATE)
        };
        save().map_err(ReadError::io(paths::SCRUB_STATE))
    }
}

fn read_range<'a, F: DiskFile>(
    file: &F,
    range: &std::ops::Range<u64>,
    buffer: &'a mut [u8],
) -> io::Result<&'a [u8]> {
    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(buffer.len());
    let got = file.read_full_at(range.start, &mut buffer[..len])?;
    Ok(&buffer[..got])
}
