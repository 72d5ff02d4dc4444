//! Heads of what storages of one syncgroup ask of each other (design section 6).

use super::{Uuid, heads};
use crate::cluster::alike::Particulars;
use crate::cluster::coverage::Coverage;
use crate::cluster::view::MountState;
use crate::format::ids::{LogId, MachineId, MountIndex, Position, Sequence};
use serde::{Deserialize, Serialize};

heads! {
    /// A member of the syncgroup, for one mount index.
    pub struct SyncMember {
        /// Machine id.
        pub machine: MachineId,
        /// Where its storage listens.
        pub address: String,
        /// Uuid of its mount; zeros: not known.
        pub mount_uuid: Uuid,
        /// Its instance; zeros: not known.
        pub instance: Uuid,
        /// Logs that this mount has had, the current one last.
        pub log_ids: Vec<LogId>,
    }

    /// Request `sync_hello`, and its answer: who the mirrors of a mount are, and what they have.
    pub struct SyncHello {
        /// Group of the caller.
        pub group: String,
        /// Its syncgroup.
        pub syncgroup: String,
        /// The mount that it is about.
        pub mount: MountIndex,
        /// What the caller's mount is doing.
        pub state: MountState,
        /// The caller itself.
        pub this: SyncMember,
        /// Start count of its mount.
        pub start_count: u16,
        /// What it has durable and applied.
        pub coverage: Coverage,
        /// How far its own logs go.
        pub tails: Coverage,
        /// The members as its label names them.
        pub members: Vec<SyncMember>,
        /// Members that were removed for good.
        pub forgotten: Vec<SyncForgotten> = Vec::new(),
    }

    /// A member that was removed for good.
    pub struct SyncForgotten {
        /// Its machine id.
        pub machine: MachineId,
        /// Its storage.
        pub instance: Uuid,
        /// The lives of its mount that are shut out.
        pub log_ids: Vec<LogId>,
        /// Where that is logged.
        pub at: Position,
    }

    /// A chunkfile that records of a slice write to.
    pub struct SyncChunkfile {
        /// Machine that made it.
        pub machine: MachineId,
        /// Its log id then.
        pub log_id: LogId,
        /// Number of the chunkfile.
        pub chunk: u32,
        /// Its size in units of 64 bytes.
        pub size_units: u32,
        /// When it was made, milliseconds since 1970.
        pub created_ms: u64,
        /// What its slot headers are sealed with.
        pub secret: Uuid,
    }

    /// Request `sync_push`: everything of one log in `(from, to]` that is for mirrors. The records are the payload.
    pub struct SyncPush {
        /// The mount.
        pub mount: MountIndex,
        /// Whose log.
        pub machine: MachineId,
        /// Which life of it.
        pub log_id: LogId,
        /// Must be covered already.
        pub from: Sequence,
        /// Is covered then.
        pub to: Sequence,
        /// Every chunkfile that a record in it writes to.
        pub chunkfiles: Vec<SyncChunkfile>,
    }

    /// Answer to `sync_push`.
    pub struct SyncPushed {
        /// How it ended: 0 covered, 1 gap, 2 needs content, 3 broken.
        pub outcome: u8,
        /// What is covered of that log now.
        pub covered: Sequence,
        /// Needs content: which.
        pub content: Option<Position>,
        /// Needs content: its length in bytes.
        pub length: u64,
        /// Broken: why.
        pub why: String,
    }

    /// Request `sync_status`, and its answer. The payload is a [`SyncReports`] as a map. Also says "I am here".
    pub struct SyncStatus {
        /// Who says it.
        pub machine: MachineId,
    }

    /// Request `sync_content`: a piece of a large object's content, as it lies on the disk.
    pub struct SyncContent {
        /// Who asks.
        pub machine: MachineId,
        /// The mount.
        pub mount: MountIndex,
        /// Which content.
        pub content: Position,
        /// First byte.
        pub offset: u64,
        /// At most so many bytes, up to [`PIECE_MAX`](super::PIECE_MAX).
        pub length: u32,
    }

    /// Answer to `sync_content`; the bytes are the payload.
    pub struct SyncPiece {
        /// Length of the whole content in bytes; `None`: it is not here.
        pub total: Option<u64>,
    }

    /// Request `sync_offer`: fetch this content from the caller now, a record that names it follows. Answered when it is
    /// there.
    pub struct SyncOffer {
        /// Who offers.
        pub machine: MachineId,
        /// The mount.
        pub mount: MountIndex,
        /// Which content.
        pub content: Position,
        /// Its length in bytes, without the trailer of its file.
        pub length: u64,
    }

    /// Answer to `sync_offer`.
    pub struct SyncOffered {
        /// Whether a record that names it may come: the content is there, durable and whole, or every member that was
        /// asked says that it is gone.
        pub there: bool,
        /// Why not; empty if it is.
        pub why: String,
    }
}

/// What a storage has of each mount; travels as a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReports {
    /// The mounts that changed since the last report on this connection.
    #[serde(default)]
    pub mounts: Vec<SyncReport>,
    /// What it tells of itself; now and then.
    #[serde(default)]
    pub told: Option<Particulars>,
}

/// What a storage has of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// Index of the mount.
    pub mount: MountIndex,
    /// What is durable and applied.
    #[serde(default)]
    pub coverage: Coverage,
    /// How far the own logs go; taken at the same instant.
    #[serde(default)]
    pub tails: Coverage,
    /// Whether whoever says this holds the other end for caught up.
    #[serde(default)]
    pub live: bool,
    /// The mount is out of service; nothing else is said of it.
    #[serde(default)]
    pub away: bool,
    /// It is being refilled: nobody's source, and no copy in it counts.
    #[serde(default)]
    pub refilling: bool,
    /// It is being refilled and takes records.
    #[serde(default)]
    pub listening: bool,
    /// Bytes that new objects may take there: what is free beyond the reserve, about a second ago. `None`: not known.
    #[serde(default)]
    pub room: Option<u64>,
}
