//! Frames: a fixed header, a MessagePack head, a raw payload.
//!
//! ```text
//!  0        4          8     9     10   11    12       14       16           24        28           32           36
//!  | magic  | header   | ma- | mi- | ki-| fl- | opcode | status | request id | head    | payload    | payload    | reserved | head | payload
//!  | "FOLI" | CRC32C   | jor | nor | nd | ags |        |        |            | length  | length     | CRC32C     | 0        | ...  | ...
//!  | u32    | u32      | u8  | u8  | u8 | u8  | u16    | u16    | u64        | u32     | u32        | u32        | u32      |      |
//! ```
//!
//! Invariants:
//! - Little endian. The first 10 bytes and the request id keep their meaning in every major version, so that a newer
//!   one can be told apart and refused by name.
//! - The header checksum covers bytes 8..40 and the head. The payload checksum is CRC32C of the payload alone: the
//!   very number that is stored with the object, so it is made where the bytes enter and checked on every way.
//! - No length is believed before it passed [`Limits`]; memory grows with the bytes that have *arrived* (P7).
//! - A payload is never copied by the decoder: [`Frame::payload`] shares the read buffer.

mod decoder;

pub use decoder::{Frame, FrameDecoder};

use super::error::ErrorCode;
use super::opcode::{HEAD_MAX, PAYLOAD_MAX, limits_of};
use crate::format::crc::crc32c;
use bytes::{Buf, BufMut, BytesMut};
use serde::Serialize;

/// The first four bytes of every frame.
pub const MAGIC: [u8; 4] = *b"FOLI";
/// Major version spoken here: another one is refused.
pub const MAJOR: u8 = 1;
/// Minor version spoken here: talks to `MINOR - 1` and to `MINOR + 1`.
pub const MINOR: u8 = 0;
/// Length of the fixed header, bytes.
pub const HEADER_LEN: usize = 40;
/// Where the bytes under the header checksum begin.
const CHECKED_FROM: usize = 8;

/// The body of this message follows (or comes) in Data frames.
pub const FLAG_STREAMED: u8 = 1;
/// The last Data frame of a body; its head is a [`DataEnd`](super::heads::DataEnd).
pub const FLAG_LAST: u8 = 2;

// The layout as drawn: the fields, added up.
const _: () = assert!(4 + 4 + 1 + 1 + 1 + 1 + 2 + 2 + 8 + 4 + 4 + 4 + 4 == HEADER_LEN);

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Asks for something.
    Request = 1,
    /// Answers a request: the first (and, unless streamed, only) frame with its id.
    Answer = 2,
    /// A piece of a streamed body.
    Data = 3,
    /// Allows the other end to send more bytes of a streamed body.
    Window = 4,
    /// The caller no longer wants the answer (reads), or gives up an unfinished upload.
    Cancel = 5,
}

impl Kind {
    const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Request),
            2 => Some(Self::Answer),
            3 => Some(Self::Data),
            4 => Some(Self::Window),
            5 => Some(Self::Cancel),
            _ => None,
        }
    }
}

/// What the sender of a frame decides; lengths and checksums follow from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// `FLAG_*`.
    pub flags: u8,
    /// [`Opcode`](super::opcode::Opcode) of the request that it belongs to.
    pub opcode: u16,
    /// 0, or in answers the number of an [`ErrorCode`].
    pub status: u16,
    /// Chosen by the caller, unique among its unfinished requests on this connection. Never 0.
    pub request_id: u64,
}

impl Meta {
    /// A request.
    #[must_use]
    pub const fn request(opcode: u16, request_id: u64) -> Self {
        Self { kind: Kind::Request, flags: 0, opcode, status: 0, request_id }
    }

    /// A good answer to a request.
    #[must_use]
    pub const fn answer(opcode: u16, request_id: u64) -> Self {
        Self { kind: Kind::Answer, flags: 0, opcode, status: 0, request_id }
    }

    /// An answer that says why not.
    #[must_use]
    pub const fn refusal(opcode: u16, request_id: u64, code: ErrorCode) -> Self {
        Self { kind: Kind::Answer, flags: 0, opcode, status: code.as_u16(), request_id }
    }

    /// A frame of another kind that belongs to the same request.
    #[must_use]
    pub const fn of_kind(kind: Kind, opcode: u16, request_id: u64) -> Self {
        Self { kind, flags: 0, opcode, status: 0, request_id }
    }

    /// With flags added.
    #[must_use]
    pub const fn with_flags(mut self, flags: u8) -> Self {
        self.flags |= flags;
        self
    }
}

/// A header as it arrived; magic, major and kind are right, the lengths are not yet believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Minor version of the sender.
    pub minor: u8,
    /// Kind, flags, opcode, status, request id.
    pub meta: Meta,
    /// Length of the head, bytes.
    pub head_len: u32,
    /// Length of the payload, bytes.
    pub payload_len: u32,
    /// CRC32C of the payload (0 of none).
    pub payload_crc: u32,
    /// CRC32C of header (from byte 8) and head.
    pub header_crc: u32,
}

impl Header {
    /// Reads the fixed header.
    ///
    /// # Errors
    /// [`FrameError::Magic`], [`FrameError::Major`], [`FrameError::Kind`]; all fatal for the connection.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        if bytes[..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        let mut rest = &bytes[4..];
        let header_crc = rest.get_u32_le();
        let major = rest.get_u8();
        let minor = rest.get_u8();
        let kind = rest.get_u8();
        let flags = rest.get_u8();
        let opcode = rest.get_u16_le();
        let status = rest.get_u16_le();
        let request_id = rest.get_u64_le();
        if major != MAJOR {
            return Err(FrameError::Major { theirs: major, request_id });
        }
        let Some(kind) = Kind::from_u8(kind) else {
            return Err(FrameError::Kind { kind, request_id });
        };
        Ok(Self {
            minor,
            meta: Meta { kind, flags, opcode, status, request_id },
            head_len: rest.get_u32_le(),
            payload_len: rest.get_u32_le(),
            payload_crc: rest.get_u32_le(),
            header_crc,
        })
    }

    /// Whether a flag is set.
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.meta.flags & flag != 0
    }

    const fn total(&self) -> usize {
        HEADER_LEN + self.head_len as usize + self.payload_len as usize
    }
}

/// What one end is ready to receive, bytes. Checked before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest head.
    pub head_max: u32,
    /// Longest payload.
    pub payload_max: u32,
}

impl Limits {
    /// Before the handshake is finished.
    pub const HANDSHAKE: Self = Self { head_max: 1024, payload_max: 0 };
    /// After it.
    pub const SESSION: Self = Self { head_max: HEAD_MAX, payload_max: PAYLOAD_MAX };

    /// Applies these and, to requests, those of the opcode table; the smaller counts.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`].
    pub const fn check(&self, header: &Header) -> Result<(), FrameError> {
        let (head_max, payload_max) = match header.meta.kind {
            Kind::Request => limits_of(header.meta.opcode),
            Kind::Answer | Kind::Data => (HEAD_MAX, PAYLOAD_MAX),
            Kind::Window | Kind::Cancel => (64, 0),
        };
        let head_max = if head_max < self.head_max { head_max } else { self.head_max };
        let payload_max =
            if payload_max < self.payload_max { payload_max } else { self.payload_max };
        let (what, len, max) = if header.head_len > head_max {
            ("head", header.head_len, head_max)
        } else if header.payload_len > payload_max {
            ("payload", header.payload_len, payload_max)
        } else {
            return Ok(());
        };
        Err(FrameError::TooLarge { what, len, max, meta: header.meta })
    }
}

/// Why a frame is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not a Folio frame at all, or the stream is out of step.
    #[error("this is not the Folio protocol (wrong magic)")]
    Magic,
    /// Another major version.
    #[error("protocol major version {theirs} is not spoken here (this is {MAJOR}.{MINOR})")]
    Major {
        /// What was found.
        theirs: u8,
        /// To answer with.
        request_id: u64,
    },
    /// No kind of frame that is known here.
    #[error("frame kind {kind} is not known")]
    Kind {
        /// What was found.
        kind: u8,
        /// To answer with.
        request_id: u64,
    },
    /// A length over its limit.
    #[error("{what} of {len} bytes, at most {max} are allowed here")]
    TooLarge {
        /// Head or payload.
        what: &'static str,
        /// Announced length.
        len: u32,
        /// Allowed length.
        max: u32,
        /// The frame.
        meta: Meta,
    },
    /// Header or head were damaged on the way.
    #[error("frame header checksum does not match")]
    HeaderCrc,
    /// The payload was damaged on the way (or by its sender). The stream itself is still in step.
    #[error("payload checksum does not match")]
    PayloadCrc {
        /// The frame.
        meta: Meta,
    },
    /// The stream ended inside a frame.
    #[error("connection ended inside a frame")]
    Truncated,
    /// A head to be sent does not fit.
    #[error("head cannot be encoded: {0}")]
    Encode(String),
}

impl FrameError {
    /// Whether the connection is of no further use (all but a damaged payload).
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        !matches!(self, Self::PayloadCrc { .. })
    }

    /// What to answer with before closing; `None` if the other end does not speak frames.
    #[must_use]
    pub const fn answer(&self) -> Option<Meta> {
        match self {
            Self::Major { request_id, .. } => {
                Some(Meta::refusal(0, *request_id, ErrorCode::Version))
            }
            Self::Kind { request_id, .. } => {
                Some(Meta::refusal(0, *request_id, ErrorCode::BadRequest))
            }
            Self::TooLarge { meta, .. } => {
                Some(Meta::refusal(meta.opcode, meta.request_id, ErrorCode::TooLarge))
            }
            Self::PayloadCrc { meta } => {
                Some(Meta::refusal(meta.opcode, meta.request_id, ErrorCode::Corrupted))
            }
            Self::HeaderCrc => Some(Meta::refusal(0, 0, ErrorCode::Corrupted)),
            Self::Magic | Self::Truncated | Self::Encode(_) => None,
        }
    }

    /// The code for it.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Major { .. } => ErrorCode::Version,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::PayloadCrc { .. } | Self::HeaderCrc => ErrorCode::Corrupted,
            Self::Magic | Self::Kind { .. } | Self::Truncated | Self::Encode(_) => {
                ErrorCode::BadRequest
            }
        }
    }
}

/// Appends header and head to `out`; the caller sends `payload_len` bytes with this checksum right behind them
/// (vectored, so that large payloads are not copied). Allocates nothing while `out` has room.
///
/// # Errors
/// [`FrameError::Encode`] if the head cannot be encoded or is longer than [`HEAD_MAX`]; `out` is as before then.
pub fn encode_head<H: Serialize + ?Sized>(
    out: &mut BytesMut,
    meta: Meta,
    head: &H,
    payload_len: u32,
    payload_crc: u32,
) -> Result<(), FrameError> {
    let start = out.len();
    out.put_bytes(0, HEADER_LEN);
    if let Err(error) = head.serialize(&mut rmp_serde::Serializer::new(out.writer())) {
        out.truncate(start);
        return Err(FrameError::Encode(error.to_string()));
    }
    let head_len = out.len() - start - HEADER_LEN;
    let Some(head_len) = u32::try_from(head_len).ok().filter(|len| *len <= HEAD_MAX) else {
        out.truncate(start);
        return Err(FrameError::Encode(format!("{head_len} bytes, at most {HEAD_MAX}")));
    };
    seal(&mut out[start..], meta, head_len, payload_len, payload_crc);
    Ok(())
}

/// Appends a whole frame to `out`, payload copied. For payloads that are small or already in the cache;
/// `payload_crc` is what is stored with the bytes, not computed again.
///
/// # Errors
/// As [`encode_head`], and if the payload is longer than [`PAYLOAD_MAX`].
pub fn encode<H: Serialize + ?Sized>(
    out: &mut BytesMut,
    meta: Meta,
    head: &H,
    payload: &[u8],
    payload_crc: u32,
) -> Result<(), FrameError> {
    let len = payload_len(payload)?;
    encode_head(out, meta, head, len, payload_crc)?;
    out.extend_from_slice(payload);
    Ok(())
}

/// Appends a frame with neither head nor payload (Cancel).
pub fn encode_bare(out: &mut BytesMut, meta: Meta) {
    let start = out.len();
    out.put_bytes(0, HEADER_LEN);
    seal(&mut out[start..], meta, 0, 0, 0);
}

/// The length of a payload that may travel in one frame.
///
/// # Errors
/// [`FrameError::Encode`] over [`PAYLOAD_MAX`].
pub fn payload_len(payload: &[u8]) -> Result<u32, FrameError> {
    u32::try_from(payload.len()).ok().filter(|len| *len <= PAYLOAD_MAX).ok_or_else(|| {
        FrameError::Encode(format!("payload of {} bytes, at most {PAYLOAD_MAX}", payload.len()))
    })
}

/// Fills in the fixed header at the beginning of `frame`, which holds header and head.
fn seal(frame: &mut [u8], meta: Meta, head_len: u32, payload_len: u32, payload_crc: u32) {
    let mut rest = &mut frame[CHECKED_FROM..HEADER_LEN];
    rest.put_u8(MAJOR);
    rest.put_u8(MINOR);
    rest.put_u8(meta.kind as u8);
    rest.put_u8(meta.flags);
    rest.put_u16_le(meta.opcode);
    rest.put_u16_le(meta.status);
    rest.put_u64_le(meta.request_id);
    rest.put_u32_le(head_len);
    rest.put_u32_le(payload_len);
    rest.put_u32_le(payload_crc);
    rest.put_u32_le(0);
    let crc = crc32c(&frame[CHECKED_FROM..]);
    frame[..4].copy_from_slice(&MAGIC);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests;
