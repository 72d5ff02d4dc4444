//! What comes in on a connection: bytes to frames, frames to requests, pieces and windows (a part of
//! [`connection`](super::connection)).
//!
//! Invariant (P7): a frame of more than [`LARGE_FRAME`] bytes is gathered only under a permit; without one it is passed
//! over, and what follows it is understood.

use super::connection::{Connection, OUT_HIGH, busy};
use super::outbox::RequestTag;
use super::session::Problem;
use super::storage_room::StorageRoom;
use super::upload::After;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{
    FLAG_LAST, Frame, FrameDecoder, FrameError, HEADER_LEN, Header, Kind, Limits, Meta,
};
use crate::messages::heads::{DataEnd, WindowHead};
use bytes::BytesMut;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Bytes asked from the socket at once.
const READ_LEN: usize = 64 << 10;
/// A frame of more bytes takes its permit before the rest of it is waited for.
const LARGE_FRAME: usize = 64 << 10;

thread_local! {
    /// Where the connections of this thread read to.
    static READ: Cell<BytesMut> = Cell::new(BytesMut::new());
}

impl Connection {
    /// Reads once; `true` if something came. All connections of a thread read into one buffer; one that holds a part
    /// of a frame keeps it, and no other connection holds any.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.ending || self.out.len() >= OUT_HIGH {
            return Poll::Pending;
        }
        if self.input.is_empty() {
            self.input = READ.take();
        }
        if self.input.capacity() - self.input.len() < READ_LEN / 4 {
            self.input.reserve(READ_LEN);
        }
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input);
        match read {
            Poll::Ready(Ok(0)) => {
                // Half closed: what was asked is still answered.
                self.ending = true;
                self.uploads.clear();
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Ok(_)) => {
                (self.active, self.fresh) = (true, true);
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.give_back();
                Poll::Pending
            }
        }
    }

    /// Leaves an empty buffer to the next connection.
    pub(super) fn give_back(&mut self) {
        if self.input.is_empty() {
            READ.set(std::mem::take(&mut self.input));
        }
    }

    pub(super) fn take_requests(&mut self) {
        while !self.ending && self.out.len() < OUT_HIGH {
            if self.skip > 0 {
                let now = self.skip.min(self.input.len());
                drop(self.input.split_to(now));
                self.skip -= now;
                if self.skip > 0 {
                    return;
                }
            }
            match self.decoder.decode(&mut self.input) {
                Ok(Some(frame)) => self.frame(frame),
                Ok(None) => {
                    if self.large.is_none() {
                        self.reserve_large();
                    }
                    if self.skip == 0 {
                        return;
                    }
                }
                Err(error) => self.bad_frame(&error),
            }
        }
    }

    /// A large frame has begun to arrive: its memory is taken from the budget, or the frame is passed over.
    fn reserve_large(&mut self) {
        let Some(header) = self.input.first_chunk::<HEADER_LEN>() else { return };
        // It was parsed and found within the limits by the decoder a moment ago.
        let Ok(header) = Header::parse(header) else { return };
        let total = HEADER_LEN + header.head_len as usize + header.payload_len as usize;
        if total <= LARGE_FRAME {
            return;
        }
        let tag = self.tag(header.meta.opcode, header.meta.request_id);
        let len = u64::from(header.payload_len);
        match header.meta.kind {
            Kind::Request => {
                self.large = self.budget.take(len);
                if self.large.is_some() {
                    self.watch_body();
                    return self.input.reserve(total - self.input.len());
                }
                self.refuse(tag, &busy());
            }
            Kind::Data => match self.uploads.get_mut(&tag.id) {
                // Its window is a part of the upload's permit.
                Some(upload) if upload.expects(len) => {
                    return self.input.reserve(total - self.input.len());
                }
                Some(upload) => upload.refuse(Problem::new(
                    ErrorCode::BadRequest,
                    "the body is longer than it was announced",
                )),
                None => {}
            },
            Kind::Answer | Kind::Window | Kind::Cancel => {}
        }
        self.decoder = FrameDecoder::new(Limits::SESSION);
        self.skip = total - self.input.len();
        self.input.clear();
    }

    /// Whether a body is on its way.
    pub(super) fn has_bodies(&self) -> bool {
        self.large.is_some() || !self.uploads.is_empty()
    }

    /// Gives up uploads of which nothing came since the last look: what they hold is for who sends. `false`: a large frame
    /// stands still, and with it everything behind it.
    pub(super) fn give_up_stalled(&mut self) -> bool {
        for upload in self.uploads.values_mut().filter_map(|upload| upload.stalled()) {
            upload.refuse(
                Problem::new(ErrorCode::Busy, "the body stood still: no byte of it came")
                    .remedy("send it again, without a pause of half a minute"),
            );
        }
        let fresh = std::mem::replace(&mut self.fresh, false);
        self.large.is_none() || fresh
    }

    fn tag(&self, opcode: u16, id: u64) -> RequestTag {
        RequestTag { opcode, id, came_us: self.room.meter.clock.now_us() }
    }

    fn bad_frame(&mut self, error: &FrameError) {
        if let Some(meta) = error.answer() {
            let tag = self.tag(meta.opcode, meta.request_id);
            if let Some(mut upload) = self.uploads.remove(&tag.id) {
                // Its reply says it, with the right to try again.
                upload.refuse(Problem::new(error.code(), error.to_string()));
            } else {
                self.refuse(tag, &Problem::new(error.code(), error.to_string()));
            }
        }
        self.large = None;
        if error.is_fatal() {
            self.ending = true;
            self.uploads.clear();
        }
    }

    fn frame(&mut self, frame: Frame) {
        let Meta { kind, opcode, request_id, .. } = frame.header.meta;
        let tag = self.tag(opcode, request_id);
        match kind {
            Kind::Request => {
                self.request(tag, frame);
                self.large = None;
            }
            Kind::Data => self.data(tag, frame),
            Kind::Window => {
                if let Some((_, download)) = self.downloads.get_mut(&request_id) {
                    match StorageRoom::head::<WindowHead>(frame.head()) {
                        Ok(window) => download.grant(window.bytes),
                        Err(problem) => self.refuse(tag, &problem),
                    }
                }
            }
            Kind::Cancel => {
                self.downloads.remove(&request_id);
                if let Some(mut upload) = self.uploads.remove(&request_id) {
                    upload.refuse(Problem::new(ErrorCode::Cancelled, "given up by the caller"));
                }
            }
            Kind::Answer => {
                self.refuse(tag, &Problem::new(ErrorCode::BadRequest, "nothing was asked here"));
            }
        }
    }

    /// A piece of an upload. One that belongs to none comes too late (it was refused) and is dropped.
    fn data(&mut self, tag: RequestTag, frame: Frame) {
        let Some(upload) = self.uploads.get_mut(&tag.id) else { return };
        let last = frame.header.has(FLAG_LAST);
        let end = last.then(|| StorageRoom::head::<DataEnd>(frame.head()));
        let crc = frame.header.payload_crc;
        let payload = frame.into_payload();
        if !payload.is_empty()
            && let After::Grant(bytes) = upload.piece(payload, crc, &self.outbox)
            && !last
        {
            self.window(tag, bytes);
        }
        let Some(end) = end else { return };
        let Some(mut upload) = self.uploads.remove(&tag.id) else { return };
        match end {
            Ok(end) => upload.end(&end, &self.outbox),
            Err(problem) => upload.refuse(problem),
        }
    }
}
