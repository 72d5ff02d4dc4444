//! The questions of a pull to one member, and what its answers mean.
//!
//! Invariants: each question has a limit in time; a member that is busy is asked again for a while; what an answer says is
//! taken within bounds.

use crate::actors::caller::CallError;
use crate::actors::peer_requests::chunkfile;
use crate::actors::peers::Peer;
use crate::cluster::coverage::Coverage;
use crate::format::conflict::Conflict;
use crate::format::file_id::ObjectId;
use crate::format::ids::{Address, ChunkfileId, MachineId, MountIndex};
use crate::format::record::{ChunkfileCreated, SlotImage};
use crate::messages::error::ErrorCode;
use crate::messages::frame::Frame;
use crate::messages::heads::{
    self, IdBytes, MARK_LEN, SyncArchive, SyncArchiveList, SyncArchived, SyncArchivedEntries,
    SyncArchivedName, SyncChunkfile, SyncChunkfileList, SyncChunkfiles, SyncCopied, SyncCopies,
    SyncCopy, SyncDigest, SyncDigested, SyncEntry, SyncMarked, SyncMarks,
};
use crate::messages::opcode::Opcode;
use crate::store::archive::{ArchiveNames, ArchivedName};
use crate::store::slot_copy::SlotCopy;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// How long a member may take for an answer; a digest reads a whole chunkfile.
const LIMIT: Duration = Duration::from_secs(60);
/// Pause before a busy member is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// How often.
const BUSY_MAX: u32 = 200;

/// A page of copies.
pub struct Copied {
    pub next: Option<u32>,
    pub damaged: Vec<u32>,
    pub archive: [u8; 16],
    pub chunkfiles: Arc<Vec<ChunkfileCreated>>,
    pub copies: Arc<Vec<SlotCopy>>,
    /// Instead of copies.
    pub run: Option<Bytes>,
    /// Homes that are not in the run, to be asked for by name.
    pub others: Vec<u32>,
    pub bytes: u64,
}

/// One member's mount.
pub struct Source {
    peer: Arc<Peer>,
    us: MachineId,
    mount: MountIndex,
}

impl Source {
    pub const fn new(peer: Arc<Peer>, us: MachineId, mount: MountIndex) -> Self {
        Self { peer, us, mount }
    }

    pub fn machine(&self) -> MachineId {
        self.peer.machine
    }

    async fn ask<H: Serialize + Sync>(&self, opcode: Opcode, head: &H) -> Result<Frame, String> {
        let mut left = BUSY_MAX;
        loop {
            match self.peer.call(opcode, head, Bytes::new(), LIMIT).await {
                Err(CallError::Refused { problem, .. })
                    if problem.code == ErrorCode::Busy && left > 0 =>
                {
                    left -= 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(error) => return Err(format!("machine {}: {error}", self.machine())),
                Ok(frame) => return Ok(frame),
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, String> {
        heads::decode(bytes).map_err(|error| format!("machine {}: {error}", self.machine()))
    }

    /// What it covered before anything of it was read; its chunkfiles; how many of them cannot be read.
    pub async fn chunkfiles(&self) -> Result<(Coverage, Vec<ChunkfileCreated>, u32), String> {
        let (mut first, mut all, mut damaged, mut after) = (None, Vec::new(), 0, None);
        loop {
            let head = SyncChunkfiles { machine: self.us, mount: self.mount, after };
            let frame = self.ask(Opcode::SyncChunkfiles, &head).await?;
            let page: SyncChunkfileList = self.read(frame.head())?;
            let found: Vec<SyncChunkfile> = self.read(frame.payload())?;
            all.extend(found.iter().map(chunkfile));
            first.get_or_insert(page.coverage);
            damaged += page.damaged;
            // Always onwards, whatever it says.
            match page.more.filter(|more| after.is_none_or(|after| *more > after)) {
                Some(more) => after = Some(more),
                None => return Ok((first.unwrap_or_default(), all, damaged)),
            }
        }
    }

    pub async fn digest(&self, chunkfile: ChunkfileId) -> Result<SyncDigested, String> {
        let head = SyncDigest { machine: self.us, mount: self.mount, chunkfile };
        let frame = self.ask(Opcode::SyncDigest, &head).await?;
        self.read(frame.head())
    }

    /// A page of marks from a unit on: (unit, mark), damaged units, where to go on.
    pub async fn marks(
        &self,
        chunkfile: ChunkfileId,
        from: u32,
    ) -> Result<(Vec<(u32, u64)>, SyncMarked), String> {
        let head = SyncMarks { machine: self.us, mount: self.mount, chunkfile, from };
        let frame = self.ask(Opcode::SyncMarks, &head).await?;
        let mut page: SyncMarked = self.read(frame.head())?;
        page.next = page.next.filter(|next| *next > from);
        let marks = frame.payload().chunks_exact(MARK_LEN).filter_map(|item| {
            let (offset, mark) = item.split_first_chunk::<4>()?;
            Some((u32::from_le_bytes(*offset), u64::from_le_bytes(*mark.first_chunk()?)))
        });
        Ok((marks.collect(), page))
    }

    /// A page of copies from a unit on: of these homes, or of all. `runs`: of all, a run will do; a member of an earlier
    /// version answers with copies all the same.
    pub async fn copies(
        &self,
        chunkfile: ChunkfileId,
        from: u32,
        homes: &[u32],
        runs: bool,
    ) -> Result<Copied, String> {
        let (machine, mount, homes) = (self.us, self.mount, homes.to_vec());
        let runs = runs && homes.is_empty();
        let head = SyncCopies { machine, mount, chunkfile, from, homes, runs };
        let frame = self.ask(Opcode::SyncCopies, &head).await?;
        let page: SyncCopied = self.read(frame.head())?;
        let bytes = frame.payload().len() as u64;
        let files = page.chunkfiles.iter().map(crate::actors::peer_requests::chunkfile);
        let (copies, run, others) = match page.others {
            Some(others) if runs => (Vec::new(), Some(frame.into_payload()), others),
            Some(_) | None => (self.read::<Vec<SyncCopy>>(frame.payload())?, None, Vec::new()),
        };
        Ok(Copied {
            next: page.next.filter(|next| *next > from),
            damaged: page.damaged,
            archive: page.archive.into_array(),
            chunkfiles: Arc::new(files.collect()),
            copies: Arc::new(copies.into_iter().map(|copy| slot_copy(chunkfile, copy)).collect()),
            run: run.filter(|run| !run.is_empty()),
            others,
            bytes,
        })
    }

    /// The fingerprint of its archive, and the names of all that is in it.
    pub async fn archive(&self) -> Result<([u8; 16], ArchiveNames), String> {
        let (mut first, mut all) = (None, ArchiveNames::default());
        let (mut after, mut last): (_, Option<ArchivedName>) = (None, None);
        loop {
            let head = SyncArchive { machine: self.us, mount: self.mount, after };
            let frame = self.ask(Opcode::SyncArchive, &head).await?;
            let page: SyncArchiveList = self.read(frame.head())?;
            let names: Vec<SyncArchivedName> = self.read(frame.payload())?;
            first.get_or_insert(page.archive.into_array());
            let before = last;
            for said in names {
                let object = ObjectId::decode(&said.object)
                    .map_err(|error| format!("machine {}: {error}", self.machine()))?;
                let name = (object, said.edit);
                last = Some(name);
                if said.dropped { &mut all.dropped } else { &mut all.kept }.push(name);
            }
            match last {
                Some(name) if page.more && last > before => after = Some(said(&name)),
                Some(_) | None => return Ok((first.unwrap_or_default(), all)),
            }
        }
    }

    /// Some losing versions: how many of the names they are of, how many of those cannot be read, and the others.
    pub async fn archived(
        &self,
        names: &[ArchivedName],
    ) -> Result<(SyncArchivedEntries, Vec<(Conflict, Vec<u8>)>), String> {
        let names = names.iter().map(said).collect();
        let head = SyncArchived { machine: self.us, mount: self.mount, names };
        let frame = self.ask(Opcode::SyncArchived, &head).await?;
        let page: SyncArchivedEntries = self.read(frame.head())?;
        let entries: Vec<SyncEntry> = self.read(frame.payload())?;
        let mut found = Vec::with_capacity(entries.len());
        for entry in entries {
            let Ok(lost) = Conflict::decode(&entry.head) else {
                return Err(format!("machine {}: a losing version makes no sense", self.machine()));
            };
            found.push((lost, entry.content.into_vec()));
        }
        Ok((page, found))
    }
}

fn said((object, edit): &ArchivedName) -> SyncArchivedName {
    SyncArchivedName { object: IdBytes::new(object.encode()), edit: *edit, dropped: false }
}

fn slot_copy(id: ChunkfileId, copy: SyncCopy) -> SlotCopy {
    let at = |id: ChunkfileId, offset_units| Address {
        machine: id.machine,
        log_id: id.log_id,
        chunk: id.chunk,
        offset_units,
    };
    SlotCopy {
        home: SlotImage {
            address: at(id, copy.offset),
            header: SmallVec::from_vec(copy.home.into_vec()),
        },
        target: copy.target.map(|target| SlotImage {
            address: at(target.chunkfile, target.offset),
            header: SmallVec::from_vec(target.header.into_vec()),
        }),
        payload: Bytes::from(copy.payload.into_vec()),
    }
}
