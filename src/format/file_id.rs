//! The public, permanent name of an object. It says where the bytes are, so nobody keeps an index (P8).
//!
//! ```text
//! books/a/AQEBAAAREUBaBwAAAAAAAQCA4U5oAwAAAEAAAABQAAAA782riWdFIwFQd2-i.txt
//! group/syncgroup/60 characters of base64url[.ext]
//!
//! offset size field            the 45 bytes behind the 60 characters
//!  0     1    format version   1
//!  1     1    kind             1 chunk, 2 single
//!  2     2    machine          that created it: the owner
//!  4     1    mount            index
//!  5     4    log id           of the owner's mount then; never 0
//!  9     8    sequence         of the creation in that log; never 0
//! 17     4    created          seconds since 1970
//! 21     4    chunk            number of the home chunkfile
//! 25     4    offset           of the home slot, in units of 64 bytes
//! 29     4    capacity         of the home slot, in units of 64 bytes; never 0
//! 33     8    cookie           random: an id cannot be guessed from its neighbours
//! 41     4    check            CRC32C
//! ```
//!
//! Invariants:
//! - One object with one extension has one text, and a text that is not exactly that is refused, never repaired.
//! - The bytes travel on the wire and lie in slots and trailers without names: their check covers the 41 bytes
//!   before it. The check in the *text* covers `group/syncgroup/`, the same 41 bytes and `.ext`, so a typo
//!   anywhere, the names included, is an error and not a miss. Any change within 32 neighbouring bits is caught
//!   for certain, hence every changed character.
//! - The version is looked at first, and never guessed over: a newer format says so, whatever its length.

use super::bytes::{Reader, Short, Writer};
use super::crc::{crc32c, crc32c_parts};
use super::ids::{Address, ChunkNumber, LogId, MachineId, MountIndex, Place, Position, Sequence};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Version of the layout that this program writes and reads.
pub const FILE_ID_VERSION: u8 = 1;
/// Bytes of an [`ObjectId`].
pub const OBJECT_ID_LEN: usize = 45;
/// Bytes of it under the check.
const CHECKED_LEN: usize = OBJECT_ID_LEN - 4;
/// Characters of an [`ObjectId`] in text.
pub const OBJECT_ID_TEXT_LEN: usize = 60;
/// Longest group or syncgroup name, in characters.
pub const NAME_LEN_MAX: usize = 32;
/// Longest extension, in characters.
pub const EXT_LEN_MAX: usize = 16;

const _: () = {
    assert!(1 + 1 + 2 + 1 + 4 + 8 + 4 + 4 + 4 + 4 + 8 == CHECKED_LEN);
    // No bits are left over, so there is one text per value without further rules.
    assert!(OBJECT_ID_LEN.is_multiple_of(3) && OBJECT_ID_LEN / 3 * 4 == OBJECT_ID_TEXT_LEN);
    // The bound that users size their database columns by.
    assert!(OBJECT_ID_TEXT_LEN + 1 + EXT_LEN_MAX <= 96);
};

/// Why a text or some bytes are no file id. All of them are the caller's mistake (exit code 2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It does not have the shape of an id.
    #[error("malformed file id: {0}")]
    Malformed(&'static str),
    /// It has the shape, but its check is wrong.
    #[error("mistyped file id: its check does not fit its characters")]
    Typo,
    /// Made by a later format.
    #[error("file id of format version {found}; this program knows version {FILE_ID_VERSION}")]
    NewerVersion {
        /// The version it states.
        found: u8,
    },
}

impl IdError {
    /// What the person who typed it can do.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Malformed(_) => {
                "an id looks like GROUP/SYNCGROUP/<60 characters>[.ext]; pass it exactly as put printed it"
            }
            Self::Typo => {
                "copy the whole id again, names and extension included; upper and lower case differ"
            }
            Self::NewerVersion { .. } => {
                "use a folio that is at least as new as the one that made it"
            }
        }
    }
}

impl From<Short> for IdError {
    fn from(_: Short) -> Self {
        Self::Malformed("it ends too early")
    }
}

/// Where an object was born: packed into a chunkfile or as a file of its own. It may change form later, its id
/// does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum ObjectKind {
    /// Header and payload in a slot.
    Chunk = 1,
    /// Header in a slot, payload in a singlefile.
    Single = 2,
}

impl ObjectKind {
    /// From its number on disk.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Chunk),
            2 => Some(Self::Single),
            _ => None,
        }
    }

    /// Its number on disk.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// The part of an id that names the object inside its syncgroup. Unique for ever (P5): its position is never
/// given twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// As what it was born.
    pub kind: ObjectKind,
    /// The owner.
    pub machine: MachineId,
    /// Its mount; the mirrors keep the object on the mount of the same index.
    pub mount: MountIndex,
    /// Log of that mount then. Never 0.
    pub log_id: LogId,
    /// Of the creation in that log. Never 0.
    pub sequence: Sequence,
    /// Seconds since 1970.
    pub created_s: u32,
    /// Chunkfile of the home slot.
    pub chunk: ChunkNumber,
    /// Offset of the home slot, in units of 64 bytes.
    pub offset_units: u32,
    /// Room of the home slot at birth, header included, in units of 64 bytes. Never 0.
    pub capacity_units: u32,
    /// Random. A wrong one answers like "not found".
    pub cookie: u64,
}

/// The text that `find` of a storage's console takes: whoever logs an object often does not know its group.
impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl ObjectId {
    /// The 60 characters of the id without names.
    #[must_use]
    pub fn text(&self) -> String {
        BASE64URL_NOPAD.encode(&self.encode())
    }

    /// The object of [`Self::text`]; `None`: it is not such a text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        Self::decode(&bytes.try_into().ok()?).ok()
    }

    /// The home slot as it was at birth.
    #[must_use]
    pub const fn home(&self) -> Place {
        Place {
            address: Address {
                machine: self.machine,
                log_id: self.log_id,
                chunk: self.chunk,
                offset_units: self.offset_units,
            },
            capacity_units: self.capacity_units,
        }
    }

    /// The record that created it.
    #[must_use]
    pub const fn creation(&self) -> Position {
        Position { machine: self.machine, log_id: self.log_id, sequence: self.sequence }
    }

    /// The 45 bytes, as on disk and on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; OBJECT_ID_LEN] {
        let checked = self.checked_bytes();
        seal(&checked, crc32c(&checked))
    }

    /// Reads the 45 bytes.
    ///
    /// # Errors
    /// Another version, a wrong check, or values that no id has.
    pub fn decode(bytes: &[u8; OBJECT_ID_LEN]) -> Result<Self, IdError> {
        Self::decode_checked(bytes, crc32c)
    }

    fn checked_bytes(&self) -> [u8; CHECKED_LEN] {
        let mut out = Vec::with_capacity(CHECKED_LEN);
        Writer::new(&mut out)
            .u8(FILE_ID_VERSION)
            .u8(self.kind.number())
            .u16(self.machine)
            .u8(self.mount)
            .u32(self.log_id)
            .u64(self.sequence)
            .u32(self.created_s)
            .u32(self.chunk)
            .u32(self.offset_units)
            .u32(self.capacity_units)
            .u64(self.cookie);
        let mut bytes = [0; CHECKED_LEN];
        bytes.copy_from_slice(&out);
        bytes
    }

    /// `check` computes the check from the 41 bytes: the text form covers more than the bytes alone.
    fn decode_checked(
        bytes: &[u8; OBJECT_ID_LEN],
        check: impl Fn(&[u8]) -> u32,
    ) -> Result<Self, IdError> {
        let (checked, stated) = bytes.split_at(CHECKED_LEN);
        let mut r = Reader::new(checked);
        let version = r.u8()?;
        if version != FILE_ID_VERSION {
            // A slip in the first character looks like another version; the check tells the two apart.
            let mut ours = [0; CHECKED_LEN];
            ours.copy_from_slice(checked);
            ours[0] = FILE_ID_VERSION;
            return Err(match version {
                _ if check(&ours).to_le_bytes() == stated => IdError::Typo,
                0 => IdError::Malformed("format version 0 does not exist"),
                found => IdError::NewerVersion { found },
            });
        }
        if check(checked).to_le_bytes() != stated {
            return Err(IdError::Typo);
        }
        let kind = ObjectKind::from_number(r.u8()?).ok_or(IdError::Malformed("unknown kind"))?;
        let id = Self {
            kind,
            machine: r.u16()?,
            mount: r.u8()?,
            log_id: r.u32()?,
            sequence: r.u64()?,
            created_s: r.u32()?,
            chunk: r.u32()?,
            offset_units: r.u32()?,
            capacity_units: r.u32()?,
            cookie: r.u64()?,
        };
        if id.log_id == 0 || id.sequence == 0 || id.capacity_units == 0 {
            return Err(IdError::Malformed("a field that is never 0 is 0"));
        }
        if id.offset_units.checked_add(id.capacity_units).is_none() {
            return Err(IdError::Malformed("its slot ends beyond any chunkfile"));
        }
        Ok(id)
    }
}

impl Serialize for ObjectId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(&self.encode(), serializer)
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes: [u8; OBJECT_ID_LEN] = serde_bytes::deserialize(deserializer)?;
        Self::decode(&bytes).map_err(serde::de::Error::custom)
    }
}

fn seal(checked: &[u8; CHECKED_LEN], check: u32) -> [u8; OBJECT_ID_LEN] {
    let mut bytes = [0; OBJECT_ID_LEN];
    let (front, back) = bytes.split_at_mut(CHECKED_LEN);
    front.copy_from_slice(checked);
    back.copy_from_slice(&check.to_le_bytes());
    bytes
}

/// The whole name of an object, as people and databases keep it.
///
/// Made by [`FileId::new`] or by parsing; both accept only what prints and parses as the same text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Its group.
    pub group: String,
    /// Its syncgroup.
    pub syncgroup: String,
    /// The object in it.
    pub object: ObjectId,
    /// Decoration for browsers and people, without the dot. It names nothing, but its typos are errors too.
    pub ext: Option<String>,
}

impl FileId {
    /// Puts an id together.
    ///
    /// # Errors
    /// Names or an extension that an id cannot carry.
    pub fn new(
        group: &str,
        syncgroup: &str,
        object: ObjectId,
        ext: Option<&str>,
    ) -> Result<Self, IdError> {
        if !is_name(group) {
            return Err(IdError::Malformed("the group must be 1 to 32 of a-z 0-9 . _ -"));
        }
        if !is_name(syncgroup) {
            return Err(IdError::Malformed("the syncgroup must be 1 to 32 of a-z 0-9 . _ -"));
        }
        if !ext.is_none_or(is_ext) {
            return Err(IdError::Malformed("the extension must be 1 to 16 letters or digits"));
        }
        Ok(Self {
            group: group.to_owned(),
            syncgroup: syncgroup.to_owned(),
            object,
            ext: ext.map(str::to_owned),
        })
    }
}

/// Whether `text` may name a group or a syncgroup: 1 to 32 of `a-z 0-9 . _ -`, and not only dots (names also
/// become parts of paths).
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        && text.bytes().any(|b| b != b'.')
}

/// Whether `text` may be an extension: 1 to 16 of `A-Z a-z 0-9`.
#[must_use]
pub fn is_ext(text: &str) -> bool {
    (1..=EXT_LEN_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The check of the text form: names, the 41 bytes, extension.
fn text_check(group: &str, syncgroup: &str, checked: &[u8], ext: Option<&str>) -> u32 {
    let dot = if ext.is_some() { "." } else { "" };
    crc32c_parts(&[
        group.as_bytes(),
        b"/",
        syncgroup.as_bytes(),
        b"/",
        checked,
        dot.as_bytes(),
        ext.unwrap_or_default().as_bytes(),
    ])
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checked = self.object.checked_bytes();
        let check = text_check(&self.group, &self.syncgroup, &checked, self.ext.as_deref());
        let text = BASE64URL_NOPAD.encode(&seal(&checked, check));
        write!(f, "{}/{}/{text}", self.group, self.syncgroup)?;
        match &self.ext {
            Some(ext) => write!(f, ".{ext}"),
            None => Ok(()),
        }
    }
}

impl FromStr for FileId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut parts = text.splitn(3, '/');
        let (Some(group), Some(syncgroup), Some(rest)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(IdError::Malformed("it needs a group, a syncgroup and an object"));
        };
        let (object, ext) = match rest.split_once('.') {
            Some((object, ext)) => (object, Some(ext)),
            None => (rest, None),
        };
        refuse_newer_of_other_length(object)?;
        let bytes = BASE64URL_NOPAD
            .decode(object.as_bytes())
            .map_err(|_| IdError::Malformed("its last part is not base64url"))?;
        let bytes: [u8; OBJECT_ID_LEN] = bytes
            .try_into()
            .map_err(|_| IdError::Malformed("its last part is not 60 characters long"))?;
        let object =
            ObjectId::decode_checked(&bytes, |checked| text_check(group, syncgroup, checked, ext))?;
        Self::new(group, syncgroup, object, ext)
    }
}

/// A later format may be longer or shorter. Its version is in the first byte all the same.
fn refuse_newer_of_other_length(object: &str) -> Result<(), IdError> {
    let head = object.get(..4).and_then(|head| BASE64URL_NOPAD.decode(head.as_bytes()).ok());
    match head.as_deref() {
        Some([found, ..]) if *found > FILE_ID_VERSION && object.len() != OBJECT_ID_TEXT_LEN => {
            Err(IdError::NewerVersion { found: *found })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
#[path = "file_id_tests.rs"]
mod tests;
