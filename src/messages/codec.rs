//! [`FrameDecoder`] as a `tokio_util` codec, for ends that read with `FramedRead`.

use super::frame::{Frame, FrameDecoder, FrameError};
use bytes::BytesMut;
use std::io;
use tokio_util::codec::Decoder;

/// What ends a connection, or one frame of it.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes are wrong.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The socket is.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Decoder for FrameDecoder {
    type Item = Frame;
    type Error = CodecError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        Ok(Self::decode(self, source)?)
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        if let Some(frame) = Self::decode(self, source)? {
            return Ok(Some(frame));
        }
        self.finish(source)?;
        Ok(None)
    }
}
