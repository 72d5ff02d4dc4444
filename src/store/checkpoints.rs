//! Checkpoints in slices: what was written is synced piece by piece between batches, then the allocator's state as
//! of the beginning is renamed into place (R8).
//!
//! Invariant: `covered` moves only after the fdatasync of every chunkfile, singlefile and folder that the image
//! covers, and after the checkpoint itself is durable.

use super::disk::{Disk, DiskFile, Open};
use super::error::{StoreError, StoreResult};
use super::mount::Mount;
use super::options::Planted;
use crate::format::checkpoint::{BadCheckpoint, Checkpoint, ChunkfileState, FreedPlace};
use crate::format::envelope::FormatError;
use crate::format::ids::{ChunkfileId, Sequence};
use crate::format::paths;
use std::collections::VecDeque;

/// Bytes that one slice writes back.
const SLICE: u64 = 8 << 20;
/// A checkpoint is due after this time with anything new, in ms.
const IDLE_MS: u64 = 5_000;
/// Full segments that are kept although a checkpoint covers them: they are recycled.
const KEEP_SEGMENTS: usize = 3;

/// Progress of the checkpoints of one mount.
#[derive(Debug, Default)]
pub struct Checkpoints {
    /// Every record up to here is durable in its slot.
    pub covered: Sequence,
    /// `Log::appended` when the last one began.
    begun_at: u64,
    /// Wall clock then.
    begun_ms: u64,
    running: Option<Running>,
}

impl Checkpoints {
    /// At a start: the checkpoint on disk covers this.
    #[must_use]
    pub const fn covering(covered: Sequence) -> Self {
        Self { covered, begun_at: 0, begun_ms: 0, running: None }
    }
}

#[derive(Debug)]
struct Running {
    image: Checkpoint,
    files: VecDeque<(ChunkfileId, u64, u64)>,
    folders: Vec<String>,
}

impl<D: Disk> Mount<D> {
    /// Whether [`checkpoint_step`](Self::checkpoint_step) should be called now.
    #[must_use]
    pub fn checkpoint_due(&self) -> bool {
        if self.fenced.is_some() {
            return false;
        }
        let new = self.log.appended - self.checkpoints.begun_at;
        let idle = self.clock.now_ms().saturating_sub(self.checkpoints.begun_ms) >= IDLE_MS;
        self.checkpoints.running.is_some()
            || new >= self.core.options.checkpoint_bytes
            || (new > 0 && idle)
    }

    /// One slice; begins a checkpoint if none is running. True when it is finished.
    ///
    /// # Errors
    /// The mount is fenced, but for "no space": then the old checkpoint stays and a later one is tried.
    pub fn checkpoint_step(&mut self) -> StoreResult<bool> {
        self.check_fence()?;
        if self.checkpoints.running.is_none() {
            self.begin_checkpoint()?;
        }
        // Only the image itself can be given up. What failed to be synced before it is lost to every later sync (R9).
        let syncs = |running: &Running| !running.files.is_empty() || !running.folders.is_empty();
        let only_image = self.checkpoints.running.as_ref().is_some_and(|running| !syncs(running));
        match self.checkpoint_slice() {
            Ok(finished) => Ok(finished),
            Err(StoreError::Io { error, .. })
                if only_image && error.kind() == std::io::ErrorKind::StorageFull =>
            {
                tracing::warn!(mount = self.core.label.mount, "no space for a checkpoint");
                self.checkpoints.running = None;
                Ok(true)
            }
            Err(error) => {
                self.fence(error.to_string());
                Err(error)
            }
        }
    }

    /// Runs the present checkpoint to its end, or a whole one.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn finish_checkpoint(&mut self) -> StoreResult<()> {
        while !self.checkpoint_step()? {}
        Ok(())
    }

    /// Makes durable what was copied without the log. One that was being made says nothing of what came since.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn sync_copies(&mut self) -> StoreResult<()> {
        self.check_fence()?;
        if !self.unsynced_copies {
            return Ok(());
        }
        if self.checkpoints.running.is_some() {
            self.finish_checkpoint()?;
        }
        self.finish_checkpoint()?;
        self.unsynced_copies = false;
        Ok(())
    }

    fn begin_checkpoint(&mut self) -> StoreResult<()> {
        // The image must be of an instant with nothing staged.
        self.commit()?;
        self.checkpoints.begun_at = self.log.appended;
        self.checkpoints.begun_ms = self.clock.now_ms();
        let image = self.image_now();
        let files =
            self.core.chunks.take_dirty().into_iter().map(|(id, (from, to))| (id, from, to));
        let files = files.collect();
        let folders = std::mem::take(&mut self.core.dirty_folders).into_iter().collect();
        self.checkpoints.running = Some(Running { image, files, folders });
        Ok(())
    }

    pub(super) fn image_now(&self) -> Checkpoint {
        let (tokens, forgotten_ms) = self.tokens.of_mount(self.core.label.mount);
        let frozen = self.core.frozen.iter();
        let freed: Vec<FreedPlace> = self.core.space.waiting().chain(frozen).copied().collect();
        Checkpoint {
            mount: self.core.label.mount,
            mount_uuid: self.core.label.mount_uuid,
            machine: self.core.label.machine,
            log_id: self.core.label.log_id,
            applied: self.durable,
            segment: self.log.current.header.first,
            offset: self.log.current.tail,
            next_chunk: self.core.next_chunk,
            chunkfiles: self.chunkfile_states(),
            holes: self.core.space.holes().collect(),
            freed,
            tokens,
            folded_damage: 0,
            counters: self.core.counters,
            forgotten_ms,
            received: self.received_logs(),
        }
    }

    /// The table; a chunkfile that is being swept is swept again after a restart.
    fn chunkfile_states(&self) -> Vec<ChunkfileState> {
        let swept = self.sweep.chunkfile();
        let states = self.core.chunks.states.values().copied();
        states
            .map(|state| match swept {
                Some(id) if id == state.id => ChunkfileState { oldest_tombstone_ms: 0, ..state },
                Some(_) | None => state,
            })
            .collect()
    }

    fn checkpoint_slice(&mut self) -> StoreResult<bool> {
        let skip_sync = self.core.options.planted(Planted::SkipChunkfileSync);
        let Some(running) = &mut self.checkpoints.running else { return Ok(true) };
        if let Some((id, from, to)) = running.files.front_mut() {
            if self.unsynced_copies {
                // Nobody waits for this thread: one sync for the whole file.
                *from = *to;
            } else {
                let len = (*to - *from).min(SLICE);
                self.core.chunks.write_back(*id, *from, len)?;
                *from += len;
            }
            if from == to {
                let id = *id;
                if !skip_sync {
                    self.core.chunks.sync(id)?;
                }
                running.files.pop_front();
            }
            return Ok(false);
        }
        if let Some(folder) = running.folders.pop() {
            if !self.core.options.planted(Planted::SkipDirectorySync) {
                let synced = self.core.disk.sync_dir(&folder);
                synced.map_err(StoreError::io(format!("fsync of folder {folder}")))?;
            }
            return Ok(false);
        }
        let bytes = running.image.encode();
        let (applied, disk) = (running.image.applied, self.core.disk.clone());
        let skip_sync = self.core.options.planted(Planted::SkipCheckpointSync);
        write_checkpoint(&disk, &bytes, skip_sync)?;
        let received = std::mem::take(&mut running.image.received);
        self.checkpoints.running = None;
        self.checkpoints.covered = applied;
        self.log.trim(self.recyclable(), KEEP_SEGMENTS)?;
        self.trim_synclogs(&received)?;
        Ok(true)
    }
}

/// Replaces the checkpoint as a whole: tmp, fdatasync, rename, fsync of the folder.
pub(super) fn write_checkpoint<D: Disk>(
    disk: &D,
    bytes: &[u8],
    skip_sync: bool,
) -> StoreResult<()> {
    let io = |what: &str| StoreError::io(format!("{what} {}", paths::CHECKPOINT_TMP));
    if disk.stat(paths::CHECKPOINT_TMP).map_err(io("stat"))?.is_some() {
        disk.unlink(paths::CHECKPOINT_TMP).map_err(io("remove"))?;
    }
    let file = disk.open(paths::CHECKPOINT_TMP, Open::Create).map_err(io("create"))?;
    file.write_all_at(0, bytes).map_err(io("write"))?;
    if !skip_sync {
        file.sync_data().map_err(io("fdatasync"))?;
    }
    disk.rename(paths::CHECKPOINT_TMP, paths::CHECKPOINT).map_err(io("rename"))?;
    disk.sync_dir("").map_err(io("make durable the rename of"))
}

/// The mount's checkpoint; `None` if there is none that can be read.
pub(super) fn read_checkpoint_file<D: Disk>(disk: &D) -> StoreResult<Option<Checkpoint>> {
    match read_checkpoint_bytes(disk)? {
        Some(bytes) => decode_checkpoint(&bytes),
        None => Ok(None),
    }
}

/// The bytes of the mount's checkpoint; `None` if there is none.
pub(super) fn read_checkpoint_bytes<D: Disk>(disk: &D) -> StoreResult<Option<Vec<u8>>> {
    let io = |what: &str| StoreError::io(format!("{what} {}", paths::CHECKPOINT));
    let file = match disk.open(paths::CHECKPOINT, Open::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io("open")(e)),
    };
    let len = usize::try_from(file.len().map_err(io("length of"))?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len];
    let got = file.read_full_at(0, &mut bytes).map_err(io("read"))?;
    bytes.truncate(got);
    Ok(Some(bytes))
}

/// What the file's bytes say; `None`: they are damaged.
pub(super) fn decode_checkpoint(bytes: &[u8]) -> StoreResult<Option<Checkpoint>> {
    match Checkpoint::decode(bytes) {
        Ok(found) => Ok(Some(found)),
        Err(BadCheckpoint::Newer(major)) => {
            let what = "checkpoint";
            Err(FormatError::Newer { what, major, minor: 0 }.into())
        }
        Err(BadCheckpoint::Broken) => Ok(None),
    }
}
