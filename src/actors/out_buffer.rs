//! What a connection has yet to write: small things copied together, large payloads by reference, all in one vectored
//! write.
//!
//! Invariant: a permit that was queued with bytes is given back when the last of them has been handed to the socket.

use super::budget::Permit;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Payloads up to this are copied behind their head; larger ones are referenced.
pub const COPY_MAX: usize = 16 << 10;
/// Buffers of one write call at most.
const SLICES: usize = 64;
/// An emptied buffer larger than this is given back to the system.
const KEEP: usize = 256 << 10;

/// See the module.
#[derive(Debug, Default)]
pub struct OutBuffer {
    /// Written before `tail`.
    segments: VecDeque<Bytes>,
    segments_len: usize,
    tail: BytesMut,
    written: u64,
    /// Something may still be in the stream itself (TLS), on its way to the socket.
    unflushed: bool,
    held: VecDeque<(u64, Permit)>,
}

impl OutBuffer {
    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments_len + self.tail.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether everything is out, also of the stream's own buffer.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.is_empty() && !self.unflushed
    }

    /// Where frames are encoded to: append only.
    pub const fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends a payload, by reference if it is large.
    pub fn push(&mut self, payload: Bytes) {
        if payload.len() <= COPY_MAX {
            return self.tail.extend_from_slice(&payload);
        }
        if !self.tail.is_empty() {
            let head = self.tail.split().freeze();
            self.segments_len += head.len();
            self.segments.push_back(head);
        }
        self.segments_len += payload.len();
        self.segments.push_back(payload);
    }

    /// Keeps a permit until everything that waits now is written.
    pub fn hold(&mut self, permit: Permit) {
        let end = self.written + self.len() as u64;
        self.held.push_back((end, permit));
    }

    /// Writes as much as the socket takes; `true` if that was anything.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        let mut progress = false;
        while !self.is_empty() {
            let written = if self.segments.is_empty() {
                Pin::new(&mut *socket).poll_write(cx, &self.tail)
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let mut count = 0;
                for segment in self.segments.iter().take(SLICES - 1) {
                    slices[count] = IoSlice::new(segment);
                    count += 1;
                }
                if self.segments.len() < SLICES {
                    slices[count] = IoSlice::new(&self.tail);
                    count += 1;
                }
                Pin::new(&mut *socket).poll_write_vectored(cx, &slices[..count])
            };
            let n = match written {
                Poll::Ready(result) => result?,
                Poll::Pending if progress => return Poll::Ready(Ok(true)),
                Poll::Pending => return Poll::Pending,
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            progress = true;
            self.unflushed = true;
            self.advance(n);
        }
        if self.unflushed {
            match Pin::new(&mut *socket).poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Poll::Ready(Ok(progress)),
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(progress))
    }

    fn advance(&mut self, mut n: usize) {
        self.written += n as u64;
        while let Some(front) = self.segments.front_mut()
            && n > 0
        {
            let now = n.min(front.len());
            front.advance(now);
            self.segments_len -= now;
            n -= now;
            if front.is_empty() {
                self.segments.pop_front();
            }
        }
        self.tail.advance(n);
        if self.tail.is_empty() && self.tail.capacity() > KEEP {
            self.tail = BytesMut::new();
        }
        while self.held.front().is_some_and(|(end, _)| *end <= self.written) {
            self.held.pop_front();
        }
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_flush_all<S: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            ready!(self.poll_write(socket, cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;
    use futures_util::task::noop_waker;

    /// Takes `room` bytes at a time, then says "not now" once.
    struct Narrow {
        got: Vec<u8>,
        room: usize,
        now: bool,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.now = !self.now;
            if !self.now {
                return Poll::Pending;
            }
            let n = bytes.len().min(self.room);
            self.got.extend_from_slice(&bytes[..n]);
            Poll::Ready(Ok(n))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_socket_that_takes_little_gets_everything_in_order_and_permits_last_until_then() {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let budget = Budget::new(10, 1 << 30);
        let mut out = OutBuffer::default();
        let mut expected = Vec::new();
        for i in 0..40_u8 {
            let len = [3, COPY_MAX, COPY_MAX + 1, 70_000][usize::from(i) % 4];
            out.tail().extend_from_slice(&[i; 40]);
            expected.extend_from_slice(&[i; 40]);
            out.push(Bytes::from(vec![i ^ 0x55; len]));
            expected.extend(vec![i ^ 0x55; len]);
        }
        out.hold(budget.take(5).expect("room"));
        let mut socket = Narrow { got: Vec::new(), room: 9_999, now: false };
        while socket.got.len() < expected.len() {
            assert_eq!(budget.in_flight(), (1, 5));
            assert_eq!(out.len(), expected.len() - socket.got.len());
            drop(out.poll_write(&mut socket, &mut cx));
        }
        assert_eq!(budget.in_flight(), (0, 0));
        assert!(out.is_empty() && socket.got == expected);
    }
}
