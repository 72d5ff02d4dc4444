//! Heads of the requests that a storage serves, and of their answers.

use super::{Acks, IdBytes, ObjectKind, ObjectState, Reserve, heads};
use crate::cluster::view::MountState;
use crate::format::ids::{MachineId, MountIndex, Tag, Token};
use serde_bytes::ByteBuf;

heads! {
    /// Request `put`. The body is the payload, or with `FLAG_STREAMED` follows in Data frames.
    pub struct Put {
        /// Makes a retry idempotent (R2).
        pub token: Token,
        /// On this mount; `None`: the storage chooses.
        pub mount: Option<MountIndex>,
        /// Room to grow; `None`: the storage's default.
        pub reserve: Option<Reserve>,
        /// Bytes of the body; `None` only for a streamed one whose length is not known.
        pub length: Option<u64>,
    }

    /// Request `modify`: replaces the whole content. Body as in [`Put`].
    pub struct Modify {
        /// Which object.
        pub id: IdBytes,
        /// Makes a retry idempotent (R2).
        pub token: Token,
        /// Only if this is the current version.
        pub if_opver: Option<Tag>,
        /// Bytes of the body; `None` only for a streamed one whose length is not known.
        pub length: Option<u64>,
    }

    /// Request `delete`.
    pub struct Delete {
        /// Which object.
        pub id: IdBytes,
        /// Makes a retry idempotent (R2).
        pub token: Token,
        /// Only if this is the current version.
        pub if_opver: Option<Tag>,
    }

    /// Request `undelete`.
    pub struct Undelete {
        /// Which object.
        pub id: IdBytes,
        /// Makes a retry idempotent (R2).
        pub token: Token,
    }

    /// Answer to `put`, `modify`, `delete`, `undelete`: the change is durable (P1).
    pub struct Written {
        /// Which object.
        pub id: IdBytes,
        /// Its version now.
        pub opver: Tag,
        /// What was waited for.
        pub acks: Acks,
        /// On how many machines the change is durable, this one included.
        pub copies: u8,
        /// Fewer than the configuration asks for.
        pub degraded: bool,
    }

    /// Request `get`.
    pub struct Get {
        /// Which object.
        pub id: IdBytes,
        /// First byte, from 0.
        pub first: u64,
        /// Last byte, inclusive; `None` or past the end: to the end.
        pub last: Option<u64>,
        /// This version or a later one (read your writes).
        pub min_opver: Option<Tag>,
        /// From local bytes only: no forwarding, no question to others, no repair.
        pub local_only: bool,
        /// How many bytes of a streamed answer may be sent before the first Window frame.
        pub window: u32,
    }

    /// Answer to `get`. The bytes are the payload, or with `FLAG_STREAMED` follow in Data frames.
    pub struct ObjectHead {
        /// Version of the object.
        pub opver: Tag,
        /// Length of the whole object, bytes.
        pub length: u64,
        /// First byte delivered.
        pub first: u64,
        /// How many bytes are delivered.
        pub count: u64,
        /// CRC32C of the whole object.
        pub crc32c: u32,
        /// When the object was created, milliseconds since 1970.
        pub created_ms: u64,
        /// When this version was made, milliseconds since 1970.
        pub modified_ms: u64,
    }

    /// Request `stat`.
    pub struct Stat {
        /// Which object.
        pub id: IdBytes,
        /// From local bytes only.
        pub local_only: bool,
    }

    /// Answer to `stat`.
    pub struct StatAnswer {
        /// In a chunkfile or in a file of its own.
        pub kind: ObjectKind,
        /// Mount of its home.
        pub mount: MountIndex,
        /// Bytes of content.
        pub length: u64,
        /// Bytes that it may grow to in place, header included.
        pub capacity: u64,
        /// Version.
        pub opver: Tag,
        /// When the object was created, milliseconds since 1970.
        pub created_ms: u64,
        /// When this version was made, milliseconds since 1970.
        pub modified_ms: u64,
        /// CRC32C of the content.
        pub crc32c: u32,
        /// Live or deleted.
        pub state: ObjectState,
        /// Whether it has moved from its home slot.
        pub forwarded: bool,
    }

    /// Request `list`: live objects that one storage created, this one or another whose objects it mirrors.
    pub struct List {
        /// Where the last page ended; empty: from the beginning.
        pub cursor: ByteBuf,
        /// Only those modified since, milliseconds since 1970.
        pub since_ms: Option<u64>,
        /// At most so many, up to [`LIST_PAGE_MAX`](super::LIST_PAGE_MAX).
        pub limit: u32,
        /// Who created them; `None`: whoever answers. A cursor goes on at any member of the syncgroup.
        pub of: Option<MachineId> = None,
    }

    /// One object of a page.
    pub struct ListItem {
        /// Which.
        pub id: IdBytes,
        /// Bytes of content.
        pub length: u64,
        /// Version.
        pub opver: Tag,
        /// When this version was made, milliseconds since 1970.
        pub modified_ms: u64,
    }

    /// Answer to `list`. A page may be empty and not the last one.
    pub struct ListAnswer {
        /// The page.
        pub items: Vec<ListItem>,
        /// Where to go on; `None`: that was all.
        pub next: Option<ByteBuf>,
        /// With the first page: machines of which there are objects here, also such as are gone for good.
        pub machines: Vec<MachineId> = Vec::new(),
    }

    /// Request `df`.
    pub struct Df {}

    /// Space of one mount, bytes.
    pub struct DfMount {
        /// Which.
        pub index: MountIndex,
        /// What it is doing.
        pub state: MountState,
        /// What is wrong with it; empty if nothing.
        pub why: String,
        /// Size of the file system.
        pub total: u64,
        /// Free in it.
        pub free: u64,
        /// Kept free: refused to inserts.
        pub reserved: u64,
        /// Content of live objects, with headers and room to grow.
        pub live: u64,
        /// Holes and tombstones inside chunkfiles.
        pub dead: u64,
        /// Number of chunkfiles.
        pub chunkfiles: u32,
    }

    /// Answer to `df`.
    pub struct DfAnswer {
        /// Every configured mount.
        pub mounts: Vec<DfMount>,
    }

    /// Head of a Window frame.
    pub struct WindowHead {
        /// So many more bytes of the body may be sent.
        pub bytes: u32,
    }

    /// Head of the last Data frame of a body: what all Data frames together carried.
    pub struct DataEnd {
        /// Bytes.
        pub length: u64,
        /// CRC32C over all of them.
        pub crc32c: u32,
    }
}
