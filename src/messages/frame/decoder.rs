//! Frames out of what was read: incremental, checked, without copying a payload.

use super::{CHECKED_FROM, FrameError, HEADER_LEN, Header, Limits, MAGIC};
use crate::format::crc::crc32c;
use bytes::{Buf, Bytes, BytesMut};

/// A whole frame, checked.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Head and payload, one after the other, sharing the read buffer.
    body: Bytes,
}

impl Frame {
    /// The MessagePack head.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.body[..self.header.head_len as usize]
    }

    /// The payload, borrowed.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.body[self.header.head_len as usize..]
    }

    /// The payload, shared with the read buffer: no copy.
    #[must_use]
    pub fn into_payload(mut self) -> Bytes {
        self.body.advance(self.header.head_len as usize);
        self.body
    }
}

/// Incremental decoder: feed it what was read, take frames out.
#[derive(Clone, Debug)]
pub struct FrameDecoder {
    limits: Limits,
    /// Header of the frame whose rest has not arrived yet; it has passed the limits.
    pending: Option<Header>,
    /// After a fatal error nothing more is decoded.
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// Smallest room asked for at once while a frame arrives, bytes.
    const STEP: usize = 16 * 1024;

    /// A decoder that accepts frames within `limits`.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, pending: None, failed: None }
    }

    /// Other limits from the next frame on (after the handshake).
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The next frame out of `source`; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`]. After a fatal one the same error comes again for ever; after a damaged payload that frame is
    /// consumed and decoding goes on.
    pub fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if let Some(failed) = &self.failed {
            source.clear();
            return Err(failed.clone());
        }
        let result = self.step(source);
        if let Err(error) = &result
            && error.is_fatal()
        {
            self.failed = Some(error.clone());
        }
        result
    }

    /// Call at the end of the stream.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] if it ended inside a frame.
    pub fn finish(&self, source: &BytesMut) -> Result<(), FrameError> {
        if source.is_empty() || self.failed.is_some() { Ok(()) } else { Err(FrameError::Truncated) }
    }

    fn step(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let header = match self.pending {
            Some(header) => header,
            None => {
                let Some(bytes) = source.first_chunk::<HEADER_LEN>() else {
                    // A stranger is turned away at the first wrong byte, not after forty.
                    let seen = source.len().min(MAGIC.len());
                    return if source[..seen] == MAGIC[..seen] {
                        Ok(None)
                    } else {
                        Err(FrameError::Magic)
                    };
                };
                let header = Header::parse(bytes)?;
                self.limits.check(&header)?;
                header
            }
        };
        let total = header.total();
        if source.len() < total {
            self.pending = Some(header);
            // In proportion to what has arrived: an announced length alone costs its sender nothing.
            let missing = total - source.len();
            source.reserve(missing.min(source.len().max(Self::STEP)));
            return Ok(None);
        }
        self.pending = None;
        let mut body = source.split_to(total);
        let head_end = HEADER_LEN + header.head_len as usize;
        if crc32c(&body[CHECKED_FROM..head_end]) != header.header_crc {
            return Err(FrameError::HeaderCrc);
        }
        if crc32c(&body[head_end..]) != header.payload_crc {
            return Err(FrameError::PayloadCrc { meta: header.meta });
        }
        body.advance(HEADER_LEN);
        Ok(Some(Frame { header, body: body.freeze() }))
    }
}
