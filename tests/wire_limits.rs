//! A length in a frame is a claim of a stranger: nothing is allocated for it beyond the limits (P7).
//!
//! The only test binary with a counting allocator, and one test only, so that nobody else's memory is counted.
#![allow(clippy::expect_used, reason = "a test")]

use bytes::{BufMut, BytesMut};
use folio::format::crc::crc32c;
use folio::messages::error::ErrorCode;
use folio::messages::frame::{
    FrameDecoder, FrameError, HEADER_LEN, Limits, MAGIC, MAJOR, MINOR, Meta, encode,
};
use folio::messages::heads::{self, Ping};
use folio::messages::opcode::{Entry, Opcode};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a refused frame may cost at most while it is looked at, bytes.
const REFUSAL_MAX: usize = 4 * 1024;
/// What a frame may cost of which only the first bytes came, bytes.
const WAITING_MAX: usize = 64 * 1024;

/// Runs and says how far memory rose above where it was.
fn rise<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = run();
    (result, MEMORY.peak_usage().saturating_sub(before))
}

fn frame(entry: &Entry) -> BytesMut {
    let mut out = BytesMut::new();
    let meta = Meta::request(entry.opcode.as_u16(), 9);
    let payload = vec![7; entry.payload_max.min(100) as usize];
    encode(&mut out, meta, &Ping {}, &payload, crc32c(&payload)).expect("encodes");
    out
}

fn refused(entry: &Entry, what: &str, mut bytes: BytesMut) -> FrameError {
    let (result, bytes_allocated) = rise(|| {
        let mut decoder = FrameDecoder::new(Limits::SESSION);
        decoder.decode(&mut bytes).map(|frame| frame.is_some())
    });
    assert!(bytes_allocated <= REFUSAL_MAX, "{} {what}: {bytes_allocated} bytes", entry.name);
    result.expect_err(what)
}

#[test]
fn no_opcode_is_an_open_door_to_memory() {
    for entry in Opcode::TABLE {
        let good = frame(entry);

        for (at, max) in [(24, entry.head_max), (28, entry.payload_max)] {
            for claimed in [max + 1, 1 << 24, i32::MAX as u32, u32::MAX] {
                let mut bytes = good.clone();
                bytes[at..at + 4].copy_from_slice(&claimed.to_le_bytes());
                let error = refused(entry, "oversized", bytes);
                assert_eq!(error.code(), ErrorCode::TooLarge, "{}", entry.name);
            }
            // The longest that is allowed, of which only the header comes.
            let mut bytes = good.clone();
            bytes.truncate(HEADER_LEN);
            bytes[at..at + 4].copy_from_slice(&max.to_le_bytes());
            let (result, bytes_allocated) =
                rise(|| FrameDecoder::new(Limits::SESSION).decode(&mut bytes).map(|f| f.is_some()));
            assert!(matches!(result, Ok(waiting) if !waiting || max == 0), "{}", entry.name);
            assert!(bytes_allocated <= WAITING_MAX, "{}: {bytes_allocated} bytes", entry.name);
        }

        for cut in 0..good.len() {
            let mut decoder = FrameDecoder::new(Limits::SESSION);
            let mut bytes = BytesMut::from(&good[..cut]);
            assert!(matches!(decoder.decode(&mut bytes), Ok(None)), "{} cut at {cut}", entry.name);
            assert_eq!(decoder.finish(&bytes).is_ok(), cut == 0);
        }

        let mut bytes = good.clone();
        bytes[HEADER_LEN] ^= 1;
        assert_eq!(refused(entry, "damaged head", bytes), FrameError::HeaderCrc);

        if entry.payload_max > 0 {
            let mut bytes = good.clone();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            assert_eq!(refused(entry, "damaged payload", bytes).code(), ErrorCode::Corrupted);
        }

        let mut bytes = good.clone();
        bytes[0] ^= 1;
        assert_eq!(refused(entry, "wrong magic", bytes), FrameError::Magic);

        let mut bytes = good;
        bytes[8] = MAJOR + 1;
        let error = refused(entry, "newer major", bytes);
        assert_eq!(error, FrameError::Major { theirs: MAJOR + 1, request_id: 9 });
    }
    a_whole_frame_costs_what_it_carries();
    a_head_costs_in_proportion_to_its_bytes();
}

fn a_whole_frame_costs_what_it_carries() {
    let payload = vec![1; 1 << 20];
    let mut bytes = BytesMut::new();
    let meta = Meta::request(Opcode::Put.as_u16(), 1);
    encode(&mut bytes, meta, &Ping {}, &payload, crc32c(&payload)).expect("encodes");
    let whole = bytes.freeze();
    let (frames, allocated) = rise(|| {
        let mut decoder = FrameDecoder::new(Limits::SESSION);
        let mut buffer = BytesMut::new();
        let mut frames = 0;
        for part in whole.chunks(8 * 1024) {
            buffer.extend_from_slice(part);
            frames += usize::from(decoder.decode(&mut buffer).expect("good").is_some());
        }
        frames
    });
    assert_eq!(frames, 1);
    // A buffer that doubles, old and new at once.
    assert!(allocated <= 4 * whole.len(), "{allocated} bytes for {}", whole.len());
}

fn a_head_costs_in_proportion_to_its_bytes() {
    // Arrays, strings and blobs that claim 4 G of elements.
    for claim in [&[0xdd][..], &[0xdb], &[0xc6], &[0xdf]] {
        let mut head = vec![0x92];
        head.extend_from_slice(claim);
        head.extend_from_slice(&[0xff; 4]);
        head.put_bytes(0x01, 100);
        let (result, allocated) = rise(|| heads::decode::<heads::ListAnswer>(&head).is_err());
        assert!(result);
        assert!(allocated <= 2 << 20, "{allocated} bytes for a claim");
    }
    assert_eq!((MAGIC.len(), MINOR), (4, 0));
}
