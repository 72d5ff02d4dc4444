//! Heads of state exchange: what storages ask of each other when no log tells them (design section 6).
//!
//! What grows with a mount travels in the payload, as a MessagePack array of these; the marks of a chunkfile are packed
//! tighter, see [`SyncMarked`].

use super::{IdBytes, SyncChunkfile, Uuid, heads};
use crate::cluster::coverage::Coverage;
use crate::format::ids::{ChunkfileId, LogId, MachineId, MountIndex, Position, Sequence};
use serde_bytes::ByteBuf;

/// Most chunkfiles in one answer to `sync_chunkfiles`.
pub const CHUNKFILES_PAGE: usize = 4096;
/// Most marks in one answer to `sync_marks`.
pub const MARKS_PAGE: usize = 65_536;
/// Length of a mark in a payload, bytes.
pub const MARK_LEN: usize = 12;
/// Most homes that one `sync_copies` names.
pub const COPIES_MAX: usize = 4096;
/// Most names in one answer to `sync_archive`.
pub const NAMES_PAGE: usize = 8192;
/// Most names in one `sync_archived`.
pub const NAMES_MAX: usize = 512;

heads! {
    /// Request `sync_chunkfiles`: which chunkfiles a mount has, in their order.
    pub struct SyncChunkfiles {
        /// Who asks.
        pub machine: MachineId,
        /// The mount.
        pub mount: MountIndex,
        /// Only those behind this one.
        pub after: Option<ChunkfileId>,
    }

    /// Answer to `sync_chunkfiles`. The payload is an array of [`SyncChunkfile`], at most [`CHUNKFILES_PAGE`].
    pub struct SyncChunkfileList {
        /// What was durable and applied before the mount was looked at.
        pub coverage: Coverage,
        /// Whether there are more; if the payload is empty, ask on behind this one.
        pub more: Option<ChunkfileId>,
        /// Chunkfiles whose own headers are damaged.
        pub damaged: u32,
    }

    /// Request `sync_digest`: what a chunkfile holds.
    pub struct SyncDigest {
        /// Who asks.
        pub machine: MachineId,
        /// The mount.
        pub mount: MountIndex,
        /// Which chunkfile.
        pub chunkfile: ChunkfileId,
    }

    /// Answer to `sync_digest`.
    pub struct SyncDigested {
        /// Of all homes that are live or deleted; one that is not here is like an empty one.
        pub fingerprint: Uuid,
        /// How many those are.
        pub objects: u64,
        /// When the last of them was edited, milliseconds since 1970.
        pub newest_ms: u64,
    }

    /// Request `sync_marks`: the homes of a chunkfile, told apart and no more.
    pub struct SyncMarks {
        /// Who asks.
        pub machine: MachineId,
        /// The mount.
        pub mount: MountIndex,
        /// Which chunkfile.
        pub chunkfile: ChunkfileId,
        /// From this unit on.
        pub from: u32,
    }

    /// Answer to `sync_marks`. The payload holds 12 bytes for each home, at most [`MARKS_PAGE`]: offset u32 in units of 64
    /// bytes, mark u64, little endian, in the order of their places.
    pub struct SyncMarked {
        /// The unit to go on at; `None`: that was all.
        pub next: Option<u32>,
        /// Where homes stand whose headers are damaged.
        pub damaged: Vec<u32>,
    }

    /// Request `sync_copies`: objects as they lie in their slots.
    pub struct SyncCopies {
        /// Who asks.
        pub machine: MachineId,
        /// The mount.
        pub mount: MountIndex,
        /// Which chunkfile their homes are in.
        pub chunkfile: ChunkfileId,
        /// From this unit on.
        pub from: u32,
        /// The units of the homes, ascending, at most [`COPIES_MAX`]; empty: all that there are.
        pub homes: Vec<u32>,
        /// If no homes are named: what can be sent as a run is.
        pub runs: bool = false,
    }

    /// Answer to `sync_copies`. The payload is an array of [`SyncCopy`], about a megabyte; or a run of slots, as they lie in the
    /// chunkfile one behind the other without what is between them ([`slot_run`](crate::store::slot_run)).
    pub struct SyncCopied {
        /// The unit to go on at; `None`: that was all.
        pub next: Option<u32>,
        /// Units of homes that cannot be copied, because they are damaged or being changed.
        pub damaged: Vec<u32>,
        /// The archive after they were read: what they have won against is in it.
        pub archive: Uuid,
        /// The chunkfiles that they lie in.
        pub chunkfiles: Vec<SyncChunkfile>,
        /// Of a run: the units of the homes that are not in it and are to be asked for by name. `None`: it is no run.
        pub others: Option<Vec<u32>> = None,
    }

    /// The slot to which a home forwards.
    pub struct SyncTarget {
        /// Its chunkfile.
        pub chunkfile: ChunkfileId,
        /// Where in it, in units.
        pub offset: u32,
        /// Its header, as on the disk.
        pub header: ByteBuf,
    }

    /// One object as it lies in its slots.
    pub struct SyncCopy {
        /// Where its home begins, in units.
        pub offset: u32,
        /// The header there, as on the disk.
        pub home: ByteBuf,
        /// Where the content is, if it has moved.
        pub target: Option<SyncTarget>,
        /// The content, verified; empty for a large object.
        pub payload: ByteBuf,
    }

    /// What names an archived version.
    pub struct SyncArchivedName {
        /// Its object.
        pub object: IdBytes,
        /// The position of its edit.
        pub edit: Position,
        /// It was given up, and is not kept again.
        pub dropped: bool,
    }

    /// Request `sync_archive`: which losing versions a mount keeps, in their order.
    pub struct SyncArchive {
        /// Who asks.
        pub machine: MachineId,
        /// The mount.
        pub mount: MountIndex,
        /// Only those behind this one.
        pub after: Option<SyncArchivedName>,
    }

    /// Answer to `sync_archive`. The payload is an array of [`SyncArchivedName`], at most [`NAMES_PAGE`].
    pub struct SyncArchiveList {
        /// The fingerprint of all names.
        pub archive: Uuid,
        /// Whether there are more.
        pub more: bool,
    }

    /// Request `sync_archived`: losing versions themselves.
    pub struct SyncArchived {
        /// Who asks.
        pub machine: MachineId,
        /// The mount.
        pub mount: MountIndex,
        /// Which, at most [`NAMES_MAX`].
        pub names: Vec<SyncArchivedName>,
    }

    /// Answer to `sync_archived`. The payload is an array of [`SyncEntry`], about a megabyte.
    pub struct SyncArchivedEntries {
        /// How many of the names it deals with.
        pub done: u32,
        /// How many of those cannot be read.
        pub damaged: u32,
    }

    /// A losing version.
    pub struct SyncEntry {
        /// What it is, as in its file.
        pub head: ByteBuf,
        /// Its content; empty for a large one.
        pub content: ByteBuf,
    }

    /// Request `sync_pull`: the log that the caller sends no longer holds what this mount lacks: copy the caller's state.
    pub struct SyncPull {
        /// Who asks.
        pub machine: MachineId,
        /// The mount.
        pub mount: MountIndex,
        /// Whose log.
        pub origin: MachineId,
        /// Which life of it.
        pub log_id: LogId,
        /// Only what is behind this can be sent.
        pub from: Sequence,
    }

    /// Answer to `sync_pull`, at once.
    pub struct SyncPulling {
        /// Whether the state is being copied.
        pub running: bool,
        /// Bytes compared or copied.
        pub done: u64,
        /// Bytes to compare or copy, about.
        pub total: u64,
        /// Why the last attempt failed; empty if it did not.
        pub why: String,
    }
}
