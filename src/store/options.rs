//! What a mount is told when it is opened.

use crate::format::slot::slot_len;

/// Room to grow that an insert leaves behind the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Of the payload's length, in percent.
    Percent(u32),
    /// In bytes.
    Bytes(u64),
}

impl Reserve {
    /// Bytes of slot for a payload of `length`, header and room included.
    #[must_use]
    pub const fn capacity(self, length: u64, vector: usize) -> u64 {
        let room = match self {
            Self::Percent(percent) => {
                (length / 100).saturating_mul(percent as u64)
                    + (length % 100) * percent as u64 / 100
            }
            Self::Bytes(bytes) => bytes,
        };
        slot_len(length, vector).saturating_add(room)
    }
}

/// When an acknowledged change is on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Before the acknowledgement (P1).
    Fsync,
    /// When the system writes it: survives `kill -9`, not power loss.
    Os,
}

/// Settings of a mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Size of new chunkfiles in bytes.
    pub chunkfile_size: u64,
    /// Longest payload that lives in a slot, in bytes.
    pub single_file_threshold: u64,
    /// Room to grow unless the request says otherwise.
    pub reserve: Reserve,
    /// Free bytes of the file system that inserts do not eat.
    pub reserve_free: u64,
    /// How long a delete can be taken back, in ms.
    pub undelete_window_ms: u64,
    /// Chunkfiles that take inserts side by side.
    pub active_chunkfiles: usize,
    /// See [`SyncMode`].
    pub sync: SyncMode,
    /// Longest log segment, in bytes. The first one of a mount is shorter; each new one doubles up to here.
    pub segment_len_max: u64,
    /// First segment, in bytes.
    pub segment_len_min: u64,
    /// Bytes that a log (our own, and each that was received) may take although a checkpoint covers it, for members
    /// that have not caught up.
    pub log_retention_bytes: u64,
    /// Log bytes that are not covered by a checkpoint before one is begun.
    pub checkpoint_bytes: u64,
    /// Batch size in bytes at which the log is written without waiting for more.
    pub batch_bytes_max: usize,
    /// How often the mount is known to have been started in this life of its log: a label that says less is an old one.
    pub starts_known: u16,
    /// Seed of cookies, secrets and log ids.
    pub seed: [u8; 32],
    /// A deliberate bug, for the test of the tests.
    #[cfg(feature = "planted")]
    pub planted: Option<Planted>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            chunkfile_size: 64 << 20,
            single_file_threshold: 1 << 20,
            reserve: Reserve::Percent(20),
            reserve_free: 4 << 30,
            undelete_window_ms: 24 * 3600 * 1000,
            active_chunkfiles: 2,
            sync: SyncMode::Fsync,
            segment_len_max: 64 << 20,
            segment_len_min: 4 << 20,
            log_retention_bytes: 1 << 30,
            checkpoint_bytes: 32 << 20,
            batch_bytes_max: 1 << 20,
            starts_known: 0,
            seed: [0; 32],
            #[cfg(feature = "planted")]
            planted: None,
        }
    }
}

/// Bugs that the crash campaign must find (tests/planted_bugs.rs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The log is written but not synced.
    SkipLogSync,
    /// Slots are written before the log is synced.
    ApplyBeforeLog,
    /// The operation counts as durable as soon as it is staged.
    AckBeforeLog,
    /// A checkpoint does not wait for its chunkfiles.
    SkipChunkfileSync,
    /// A checkpoint is renamed into place without being synced.
    SkipCheckpointSync,
    /// New names are not made durable.
    SkipDirectorySync,
    /// A short write of a slot passes for a whole one.
    IgnoreShortWrite,
    /// Replay believes a slot whose header verifies, whatever its payload.
    SkipPayloadCheckInReplay,
    /// A segment is recycled before a checkpoint covers it.
    RecycleUncovered,
    /// Replay begins at the checkpoint but never rewrites a slot.
    SkipReplayWrites,
    /// The start count is not raised, so positions repeat.
    ReuseStartCount,
}

impl MountOptions {
    /// Whether `bug` was planted; a constant `false` outside tests.
    #[inline]
    #[must_use]
    pub fn planted(&self, bug: Planted) -> bool {
        #[cfg(feature = "planted")]
        {
            self.planted == Some(bug)
        }
        #[cfg(not(feature = "planted"))]
        {
            let _ = bug;
            false
        }
    }
}
