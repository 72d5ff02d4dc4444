//! What is on its way out of a connection: small frames gathered, large payloads handed on without a copy.
//!
//! Invariant: a frame enters whole or not at all, and once in is written whole, whoever gives up waiting: a request
//! that is dropped half-way never puts the stream out of step. Whoever adds a frame tries to write it at once (no
//! other task has to wake up); what the socket does not take is left to the writer task.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};

/// Payloads up to this many bytes are copied behind their head: cheaper than another slice.
const COPY_MAX: usize = 16 * 1024;
/// Slices of one write.
const SLICES_MAX: usize = 32;

/// Frames that wait for the socket.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Bytes>,
    /// Younger than everything in the queue.
    tail: BytesMut,
    /// The writer task waits for the socket; others only add.
    pub(super) blocked: bool,
}

impl Outbox {
    /// Where to encode the next head.
    pub(super) const fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Adds the payload of the head just encoded.
    pub(super) fn payload(&mut self, payload: Bytes) {
        if payload.len() <= COPY_MAX {
            self.tail.extend_from_slice(&payload);
        } else {
            self.queue.push_back(self.tail.split().freeze());
            self.queue.push_back(payload);
        }
    }

    /// Writes until all is out (`true`) or the socket takes no more (`false`).
    pub(super) fn flush(
        &mut self,
        write: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        loop {
            let result = if self.queue.is_empty() {
                if self.tail.is_empty() {
                    return Ok(true);
                }
                write(&[IoSlice::new(&self.tail)])
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let mut used = 0;
                for (slice, bytes) in slices.iter_mut().zip(self.queue.iter()) {
                    *slice = IoSlice::new(bytes);
                    used += 1;
                }
                write(&slices[..used])
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let Some(first) = self.queue.front_mut() else {
                self.tail.advance(written);
                return;
            };
            let step = written.min(first.len());
            first.advance(step);
            written -= step;
            if first.is_empty() {
                self.queue.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn no_byte_is_lost_or_swapped_however_little_the_socket_takes() {
        for step in [1, 3, 1000, 20_000, usize::MAX] {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for (head, payload) in [(3, 10), (5, 40_000), (2, 0), (7, 20_000), (1, 5)] {
                let head = vec![head as u8; head];
                let payload = vec![payload as u8; payload];
                outbox.tail().extend_from_slice(&head);
                outbox.payload(Bytes::from(payload.clone()));
                expected.extend(head);
                expected.extend(payload);
            }
            let written = RefCell::new(Vec::new());
            let turn = RefCell::new(0);
            let socket = |slices: &[IoSlice<'_>]| {
                *turn.borrow_mut() += 1;
                if *turn.borrow() % 2 == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let all: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                let taken = all.len().min(step);
                written.borrow_mut().extend_from_slice(&all[..taken]);
                Ok(taken)
            };
            while !outbox.flush(socket).expect("writes") {}
            assert!(*written.borrow() == expected, "step {step}");
        }
    }
}
