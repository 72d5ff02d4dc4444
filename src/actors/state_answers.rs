//! What a connection does when a mirror copies our state (a part of [`connection`](super::connection)): which chunkfiles
//! and losing versions there are, what tells them apart, and themselves.
//!
//! Invariants: the coverage that is said was durable and applied before anything of the mount was read; what cannot be
//! verified here is named and never sent; each answer is bounded, its bytes come out of the peers' budget, and all
//! reading is done by the mount's read pool, in steps that let others read in between, and with pauses while clients ask
//! ([`pace`](crate::cluster::pace)).

use super::connection::{Connection, busy};
use super::outbox::RequestTag;
use super::peer_requests::{Later, sync_chunkfile};
use super::problems;
use super::session::Problem;
use super::shared_mount::SharedMount;
use super::shelf::Shelf;
use super::state_pull::pulls;
use super::storage_room::StorageRoom;
use crate::format::file_id::ObjectId;
use crate::format::ids::{Address, ChunkfileId, MountIndex, UNIT};
use crate::messages::error::ErrorCode;
use crate::messages::frame::Frame;
use crate::messages::heads::{
    CHUNKFILES_PAGE, COPIES_MAX, IdBytes, MARK_LEN, MARKS_PAGE, NAMES_MAX, NAMES_PAGE, SyncArchive,
    SyncArchiveList, SyncArchived, SyncArchivedEntries, SyncArchivedName, SyncChunkfileList,
    SyncChunkfiles, SyncCopied, SyncCopies, SyncCopy, SyncDigest, SyncDigested, SyncEntry,
    SyncMarked, SyncMarks, SyncPull, SyncTarget, Uuid, encode_list,
};
use crate::messages::opcode::{Opcode, PAYLOAD_MAX};
use crate::store::archive::ArchivedName;
use crate::store::digest::DigestCursor;
use crate::store::read::ReadError;
use crate::store::slot_copy::{FIRST_READ, SlotCopy};
use crate::store::slot_run::SlotRun;
use bytes::Bytes;
use serde::Serialize;
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Bytes that a digest reads before others have a turn.
const DIGEST_STEP: u64 = 4 << 20;
/// Bytes that a page of marks reads, about.
const MARKS_READ: u64 = 16 << 20;
/// Bytes that are walked for one page of copies, about.
const COPIES_WALK: u64 = 1 << 20;
/// Bytes of a chunkfile that one run is made of.
const RUN_READ: u64 = 1 << 20;
/// Bytes of copies after which a page is full.
const COPIES_BYTES: usize = 1 << 20;
/// Bytes of a page beyond which nothing is added.
const PAGE_MAX: usize = PAYLOAD_MAX as usize - (64 << 10);
/// Bytes of an item besides headers and content, at most.
const ITEM: usize = 64;

type Answered<H> = Result<(H, Vec<u8>), ReadError>;

impl Connection {
    /// A request of a mirror that copies our state.
    pub(super) fn of_puller(
        &mut self,
        opcode: Opcode,
        tag: RequestTag,
        frame: &Frame,
    ) -> Result<(), Problem> {
        match opcode {
            Opcode::SyncChunkfiles => self.sync_chunkfiles(tag, frame),
            Opcode::SyncDigest => self.sync_digest(tag, frame),
            Opcode::SyncMarks => {
                let head: SyncMarks = StorageRoom::head(frame.head())?;
                let bytes = (MARKS_PAGE * MARK_LEN) as u64;
                self.on_pool(tag, head.mount, bytes, move |shelf| marks(shelf, &head))
            }
            Opcode::SyncCopies => {
                let head: SyncCopies = StorageRoom::head(frame.head())?;
                if head.homes.len() > COPIES_MAX {
                    return Err(too_many("homes"));
                }
                let bytes = PAYLOAD_MAX.into();
                if head.runs && head.homes.is_empty() {
                    return self.on_pool(tag, head.mount, bytes, move |shelf| a_run(shelf, &head));
                }
                self.on_pool(tag, head.mount, bytes, move |shelf| copies(shelf, &head))
            }
            Opcode::SyncArchive => {
                let head: SyncArchive = StorageRoom::head(frame.head())?;
                let after = head.after.as_ref().map(archived_name).transpose()?;
                let bytes = PAYLOAD_MAX.into();
                self.on_pool(tag, head.mount, bytes, move |shelf| archive(shelf, after))
            }
            Opcode::SyncArchived => {
                let head: SyncArchived = StorageRoom::head(frame.head())?;
                if head.names.len() > NAMES_MAX {
                    return Err(too_many("names"));
                }
                let names = head.names.iter().map(archived_name).collect::<Result<Vec<_>, _>>()?;
                let bytes = PAYLOAD_MAX.into();
                self.on_pool(tag, head.mount, bytes, move |shelf| archived(shelf, &names))
            }
            // To copy somebody's state ourselves; no other opcode gets here.
            _other => self.sync_pull(tag, frame),
        }
    }

    /// Answers with what a thread of the mount's pool reads, at most `bytes` of payload.
    fn on_pool<H: Serialize + 'static>(
        &mut self,
        tag: RequestTag,
        mount: MountIndex,
        bytes: u64,
        read: impl FnOnce(&dyn Shelf) -> Answered<H> + Send + 'static,
    ) -> Result<(), Problem> {
        let mount = Arc::clone(self.room.placement.mount(mount)?);
        let shelf = Arc::clone(&mount.open()?.shelf);
        let mut later = self.later(tag)?;
        if !later.grow(bytes) {
            return Err(busy());
        }
        let room = Arc::clone(&self.room);
        let pool = Arc::clone(&mount.pool);
        let step = Box::new(move || answer(later, &mount, read(&*shelf)));
        room.peers.turns.take(&Handle::current(), room.counters.total(), &pool, step);
        Ok(())
    }

    fn sync_chunkfiles(&mut self, tag: RequestTag, frame: &Frame) -> Result<(), Problem> {
        let head: SyncChunkfiles = StorageRoom::head(frame.head())?;
        // Before the first byte is read: what is said to be covered is in what is read.
        let mount = self.room.placement.mount(head.mount)?;
        let coverage = mount.mirror.report().coverage.clone();
        self.on_pool(tag, head.mount, PAYLOAD_MAX.into(), move |shelf| {
            let mut all = shelf.chunkfiles()?;
            all.retain(|id| head.after.is_none_or(|after| *id > after));
            let more = all.len() > CHUNKFILES_PAGE;
            all.truncate(CHUNKFILES_PAGE);
            let (mut found, mut damaged) = (Vec::with_capacity(all.len()), 0);
            for id in &all {
                match shelf.chunkfile_created(*id) {
                    Ok(Some(created)) => found.push(sync_chunkfile(&created)),
                    Ok(None) => {}
                    Err(ReadError::Damaged(why)) => {
                        tracing::warn!(?id, why, "a chunkfile cannot be passed on");
                        damaged += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
            let more = all.last().copied().filter(|_| more);
            Ok((SyncChunkfileList { coverage, more, damaged }, list(&found)?))
        })
    }

    fn sync_digest(&mut self, tag: RequestTag, frame: &Frame) -> Result<(), Problem> {
        let head: SyncDigest = StorageRoom::head(frame.head())?;
        let mount = Arc::clone(self.room.placement.mount(head.mount)?);
        let shelf = Arc::clone(&mount.open()?.shelf);
        let later = self.later(tag)?;
        let cursor = DigestCursor::new(head.chunkfile, false);
        let room = Arc::clone(&self.room);
        let net = Handle::current();
        Digesting { room, net, mount, shelf, cursor, later }.go_on();
        Ok(())
    }

    fn sync_pull(&mut self, tag: RequestTag, frame: &Frame) -> Result<(), Problem> {
        let head: SyncPull = StorageRoom::head(frame.head())?;
        self.speaks_as(head.machine)?;
        let mount = Arc::clone(self.room.placement.mount(head.mount)?);
        mount.check_push()?;
        let Some(peer) = self.room.peers.get(head.machine) else {
            let what = format!("machine {} is not known here yet", head.machine);
            return Err(Problem::new(ErrorCode::Unavailable, what).remedy("ask again"));
        };
        let pulling = pulls::ask(&self.room.peers, &mount, &peer);
        self.later(tag)?.done(Ok((pulling, Bytes::new())));
        Ok(())
    }
}

/// A digest that is made step by step.
struct Digesting {
    room: Arc<StorageRoom>,
    /// Where its pauses are waited for.
    net: Handle,
    mount: Arc<SharedMount>,
    shelf: Arc<dyn Shelf>,
    cursor: DigestCursor,
    later: Later,
}

impl Digesting {
    fn go_on(self) {
        let (room, net) = (Arc::clone(&self.room), self.net.clone());
        let pool = Arc::clone(&self.mount.pool);
        let step = Box::new(move || self.step());
        room.peers.turns.take(&net, room.counters.total(), &pool, step);
    }

    fn step(mut self) {
        match self.shelf.digest_step(&mut self.cursor, DIGEST_STEP) {
            Ok(None) => self.go_on(),
            Ok(Some(digest)) => {
                let fingerprint = Uuid::new(digest.fingerprint);
                let (objects, newest_ms) = (digest.objects, digest.newest_ms);
                let head = SyncDigested { fingerprint, objects, newest_ms };
                self.later.done(Ok((head, Bytes::new())));
            }
            Err(error) => answer::<()>(self.later, &self.mount, Err(error)),
        }
    }
}

fn answer<H: Serialize>(later: Later, mount: &SharedMount, read: Answered<H>) {
    later.done(match read {
        Ok((head, payload)) => Ok((head, payload.into())),
        Err(error) => Err(problems::of_read(&error, mount)),
    });
}

fn list<T: Serialize>(values: &[T]) -> Result<Vec<u8>, ReadError> {
    // What is encoded are structures of ours: it does not fail.
    encode_list(values).map_err(|error| ReadError::Damaged(error.to_string()))
}

fn too_many(what: &str) -> Problem {
    Problem::new(ErrorCode::BadRequest, format!("too many {what} in one request"))
}

fn archived_name(said: &SyncArchivedName) -> Result<ArchivedName, Problem> {
    let object = ObjectId::decode(&said.object)
        .map_err(|error| Problem::new(ErrorCode::BadId, error.to_string()))?;
    Ok((object, said.edit))
}

fn marks(shelf: &dyn Shelf, head: &SyncMarks) -> Answered<SyncMarked> {
    let page = shelf.marks(head.chunkfile, head.from, MARKS_PAGE, MARKS_READ)?;
    let mut payload = Vec::with_capacity(page.marks.len() * MARK_LEN);
    for (offset, mark) in &page.marks {
        payload.extend_from_slice(&offset.to_le_bytes());
        payload.extend_from_slice(&mark.to_le_bytes());
    }
    Ok((SyncMarked { next: page.next, damaged: page.damaged }, payload))
}

fn a_run(shelf: &dyn Shelf, head: &SyncCopies) -> Answered<SyncCopied> {
    let run = shelf.copy_run(head.chunkfile, head.from, RUN_READ)?;
    let chunkfiles = shelf.chunkfile_created(head.chunkfile)?;
    let chunkfiles = chunkfiles.as_ref().map(sync_chunkfile).into_iter().collect();
    // After they were read, as with copies.
    let archive = Uuid::new(shelf.archive_names()?.fingerprint());
    let SlotRun { bytes, others, damaged, next } = run;
    Ok((SyncCopied { next, damaged, archive, chunkfiles, others: Some(others) }, bytes))
}

fn copies(shelf: &dyn Shelf, head: &SyncCopies) -> Answered<SyncCopied> {
    let (homes, next, mut damaged) = if head.homes.is_empty() {
        let page = shelf.marks(head.chunkfile, head.from, MARKS_PAGE, COPIES_WALK)?;
        let homes: Vec<u32> = page.marks.iter().map(|(offset, _)| *offset).collect();
        (homes, page.next, page.damaged)
    } else {
        let homes = head.homes.iter().copied().filter(|home| *home >= head.from).collect();
        (homes, None, Vec::new())
    };
    let ChunkfileId { machine, log_id, chunk } = head.chunkfile;
    let (mut found, mut files, mut bytes) = (Vec::new(), BTreeSet::from([head.chunkfile]), 0);
    let mut next = next;
    for (index, offset_units) in homes.iter().copied().enumerate() {
        if bytes >= COPIES_BYTES {
            next = Some(offset_units);
            break;
        }
        let home = Address { machine, log_id, chunk, offset_units };
        // Mostly the next home begins where this slot ends.
        let room = homes
            .get(index + 1)
            .map_or(FIRST_READ, |next| u64::from(next.saturating_sub(offset_units)) * UNIT);
        let copy = match shelf.copy_slot(home, room) {
            Ok(copy) => copy,
            // Free again, or taken by a target.
            Err(ReadError::NotFound { .. }) => continue,
            Err(error @ (ReadError::Fenced | ReadError::Newer(_))) => return Err(error),
            Err(ReadError::Unsettled(_) | ReadError::Damaged(_) | ReadError::Io { .. }) => {
                damaged.push(offset_units);
                continue;
            }
        };
        let size = size_of(&copy);
        if bytes > 0 && bytes + size > PAGE_MAX {
            next = Some(offset_units);
            break;
        }
        if size > PAGE_MAX {
            damaged.push(offset_units);
            continue;
        }
        bytes += size;
        files.extend(copy.target.as_ref().map(|target| target.address.chunkfile()));
        found.push(sync_copy(offset_units, copy));
    }
    let mut chunkfiles = Vec::with_capacity(files.len());
    for id in files {
        chunkfiles.extend(shelf.chunkfile_created(id)?.as_ref().map(sync_chunkfile));
    }
    // Those behind the next one are named again.
    damaged.retain(|at| next.is_none_or(|next| *at < next));
    // After they were read: whatever they won against is in there.
    let archive = Uuid::new(shelf.archive_names()?.fingerprint());
    Ok((SyncCopied { next, damaged, archive, chunkfiles, others: None }, list(&found)?))
}

fn size_of(copy: &SlotCopy) -> usize {
    let target = copy.target.as_ref().map_or(0, |target| target.header.len());
    copy.home.header.len() + target + copy.payload.len() + ITEM
}

fn sync_copy(offset: u32, copy: SlotCopy) -> SyncCopy {
    let target = copy.target.map(|target| SyncTarget {
        chunkfile: target.address.chunkfile(),
        offset: target.address.offset_units,
        header: ByteBuf::from(target.header.into_vec()),
    });
    SyncCopy {
        offset,
        home: ByteBuf::from(copy.home.header.into_vec()),
        target,
        payload: ByteBuf::from(copy.payload.to_vec()),
    }
}

fn archive(shelf: &dyn Shelf, after: Option<ArchivedName>) -> Answered<SyncArchiveList> {
    let names = shelf.archive_names()?;
    let archive = Uuid::new(names.fingerprint());
    let kept = names.kept.into_iter().map(|name| (name, false));
    let mut all: Vec<(ArchivedName, bool)> = kept.collect();
    all.extend(names.dropped.into_iter().map(|name| (name, true)));
    all.sort_unstable();
    // What was given up a moment ago may stand there twice.
    all.dedup_by_key(|(name, _)| *name);
    let from = after.map_or(0, |after| all.partition_point(|(name, _)| *name <= after));
    let page = &all[from..all.len().min(from + NAMES_PAGE)];
    let more = from + page.len() < all.len();
    let page: Vec<SyncArchivedName> = page
        .iter()
        .map(|((object, edit), dropped)| SyncArchivedName {
            object: IdBytes::new(object.encode()),
            edit: *edit,
            dropped: *dropped,
        })
        .collect();
    Ok((SyncArchiveList { archive, more }, list(&page)?))
}

fn archived(shelf: &dyn Shelf, names: &[ArchivedName]) -> Answered<SyncArchivedEntries> {
    let (mut found, mut bytes, mut done, mut damaged) = (Vec::new(), 0, 0, 0);
    for name in names {
        if bytes >= COPIES_BYTES {
            break;
        }
        let entry = shelf.archived_version(*name)?;
        let size = entry.as_ref().map_or(0, |(_, content)| content.len() + 256);
        if bytes > 0 && bytes + size > PAGE_MAX {
            break;
        }
        done += 1;
        match entry {
            Some((lost, content)) if size <= PAGE_MAX => {
                bytes += size;
                let head = ByteBuf::from(lost.encode());
                found.push(SyncEntry { head, content: ByteBuf::from(content) });
            }
            Some(_) | None => damaged += 1,
        }
    }
    Ok((SyncArchivedEntries { done, damaged }, list(&found)?))
}
