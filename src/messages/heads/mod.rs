//! The MessagePack heads of requests and answers, one struct each.
//!
//! Invariants:
//! - A head is a MessagePack *array*: fields count by position. New fields come only at the end and with a default,
//!   so minor N talks to N-1; fields that a newer version added are skipped.
//! - What grows with the cluster (view, report, route) travels in the payload, as a MessagePack *map* of field names:
//!   fields that one end does not know are skipped, missing ones have a default.
//! - Blobs are MessagePack `bin`, never arrays of numbers.
//! - An object id travels as its fixed 45-byte core; group and syncgroup are those of the node that is asked.

mod client;
mod node;
mod peer;
mod state;
mod states;
mod tracker;

pub use client::{
    DataEnd, Delete, Df, DfAnswer, DfMount, Get, List, ListAnswer, ListItem, Modify, ObjectHead,
    Put, Stat, StatAnswer, Undelete, WindowHead, Written,
};
pub use node::{ErrorHead, Info, NodeIdentity, Ping, Pong};
pub use peer::{
    SyncChunkfile, SyncContent, SyncForgotten, SyncHello, SyncMember, SyncOffer, SyncOffered,
    SyncPiece, SyncPush, SyncPushed, SyncReport, SyncReports, SyncStatus,
};
pub use state::{
    CHUNKFILES_PAGE, COPIES_MAX, MARK_LEN, MARKS_PAGE, NAMES_MAX, NAMES_PAGE, SyncArchive,
    SyncArchiveList, SyncArchived, SyncArchivedEntries, SyncArchivedName, SyncChunkfileList,
    SyncChunkfiles, SyncCopied, SyncCopies, SyncCopy, SyncDigest, SyncDigested, SyncEntry,
    SyncMarked, SyncMarks, SyncPull, SyncPulling, SyncTarget,
};
pub use states::{Acks, ObjectKind, ObjectState, Reserve};
pub use tracker::{Heartbeat, HeartbeatAnswer, Member, Route, RouteAnswer, View, ViewAnswer};

use super::error::ErrorCode;
use serde::{Deserialize, Serialize};

/// Length of the binary core of an object id, bytes.
pub const ID_LEN: usize = 45;
/// The binary core of an object id.
pub type IdBytes = serde_bytes::ByteArray<ID_LEN>;
/// A 128-bit name drawn at random (instance of a node, of a client).
pub type Uuid = serde_bytes::ByteArray<16>;
/// Most entries of one [`ListAnswer`].
pub const LIST_PAGE_MAX: u32 = 512;
/// Longest payload of a Data frame that we send, bytes (a receiver accepts up to the frame limit).
pub const DATA_FRAME: usize = 256 * 1024;
/// Longest body that travels in the request or answer frame itself, bytes; longer ones are streamed.
pub const INLINE_MAX: usize = 1024 * 1024;
/// How much of a streamed body may be on its way unacknowledged, bytes.
pub const WINDOW: u32 = 4 * 1024 * 1024;
/// Longest piece of a content that `sync_content` brings, bytes.
pub const PIECE_MAX: u32 = 1024 * 1024;
/// Deepest nesting in a head.
const DEPTH_MAX: usize = 16;

/// A head that cannot be read: malformed, truncated or of the wrong types.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed head: {0}")]
pub struct HeadError(String);

impl HeadError {
    /// The code to answer with.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        ErrorCode::BadRequest
    }
}

/// Reads a head. Bytes behind the array are ignored.
///
/// # Errors
/// [`HeadError`]; never panics, and allocates at most in proportion to `bytes` (P7).
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, HeadError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut deserializer).map_err(|e| HeadError(e.to_string()))
}

/// A structure of `cluster/` as a payload: a map of field names.
///
/// # Errors
/// [`HeadError`] if it cannot be encoded.
pub fn encode_map<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, HeadError> {
    rmp_serde::to_vec_named(value).map_err(|e| HeadError(e.to_string()))
}

/// Several heads as a payload: an array.
///
/// # Errors
/// [`HeadError`] if it cannot be encoded.
pub fn encode_list<T: Serialize>(values: &[T]) -> Result<Vec<u8>, HeadError> {
    rmp_serde::to_vec(values).map_err(|e| HeadError(e.to_string()))
}

/// Declares a head: serialized as an array; read from one that may be longer (newer sender) or, for the fields with
/// `= default`, shorter (older sender).
macro_rules! heads {
    ($( $(#[$meta:meta])* pub struct $name:ident { $(
        $(#[$field_meta:meta])* pub $field:ident : $type:ty $(= $default:expr)? ,
    )* } )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        pub struct $name { $( $(#[$field_meta])* pub $field: $type, )* }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;

                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("the array of a ", stringify!($name)))
                    }

                    fn visit_seq<A: serde::de::SeqAccess<'de>>(
                        self,
                        mut fields: A,
                    ) -> Result<$name, A::Error> {
                        $(
                            let $field: $type = match fields.next_element()? {
                                Some(value) => value,
                                None => $crate::messages::heads::heads!(@absent A $name $field $($default)?),
                            };
                        )*
                        while fields.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                        Ok($name { $($field,)* })
                    }
                }

                deserializer.deserialize_struct(
                    stringify!($name),
                    &[$(stringify!($field),)*],
                    Fields,
                )
            }
        }
    )* };
    (@absent $access:ident $name:ident $field:ident) => {
        return Err(<$access::Error as serde::de::Error>::custom(concat!(
            stringify!($name), ": the field ", stringify!($field), " is missing"
        )))
    };
    (@absent $access:ident $name:ident $field:ident $default:expr) => { $default };
}
pub(in crate::messages) use heads;

#[cfg(test)]
mod tests;
