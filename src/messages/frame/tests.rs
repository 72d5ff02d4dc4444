use super::*;
use crate::messages::heads::{Ping, Pong, WindowHead};
use crate::messages::opcode::Opcode;
use bytes::Bytes;

fn ping(request_id: u64) -> BytesMut {
    let mut out = BytesMut::new();
    encode(&mut out, Meta::request(Opcode::Ping.as_u16(), request_id), &Ping {}, b"", 0)
        .expect("encodes");
    out
}

fn answer(payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    let meta = Meta::answer(Opcode::Get.as_u16(), 7);
    encode(&mut out, meta, &Pong { server_time_ms: 5 }, payload, crc32c(payload)).expect("encodes");
    out
}

/// Repairs the header checksum after a test bent the header.
fn reseal(bytes: &mut BytesMut, head_len: usize) {
    let crc = crc32c(&bytes[CHECKED_FROM..HEADER_LEN + head_len]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_frame_in_single_bytes_is_the_same_frame() {
    let whole = answer(&[9; 3000]);
    let mut decoder = FrameDecoder::new(Limits::SESSION);
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for byte in whole.iter().chain(ping(3).iter()) {
        buffer.put_u8(*byte);
        frames.extend(decoder.decode(&mut buffer).expect("good bytes"));
    }
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0].payload(), &[9; 3000]);
    assert_eq!(frames[0].header.meta, Meta::answer(Opcode::Get.as_u16(), 7));
    assert_eq!(frames[0].clone().into_payload(), Bytes::from(vec![9; 3000]));
    assert_eq!(frames[1].header.meta, Meta::request(Opcode::Ping.as_u16(), 3));
    assert_eq!(decoder.finish(&buffer), Ok(()));
}

#[test]
fn the_payload_is_not_copied() {
    let mut buffer = answer(&[1; 5000]);
    let payload_at = buffer[buffer.len() - 5000..].as_ptr();
    let frame =
        FrameDecoder::new(Limits::SESSION).decode(&mut buffer).expect("good").expect("whole");
    assert_eq!(frame.into_payload().as_ptr(), payload_at);
}

#[test]
fn a_truncated_frame_is_never_given_out() {
    let whole = answer(&[1; 100]);
    for cut in 1..whole.len() {
        let mut decoder = FrameDecoder::new(Limits::SESSION);
        let mut buffer = BytesMut::from(&whole[..cut]);
        assert!(decoder.decode(&mut buffer).expect("so far good").is_none());
        assert_eq!(decoder.finish(&buffer), Err(FrameError::Truncated), "cut at {cut}");
    }
}

#[test]
fn no_flipped_bit_gets_through() {
    let whole = answer(&[7; 20]);
    for bit in 0..whole.len() * 8 {
        // The reserved bytes and the minor version are under the checksum like everything else.
        let mut buffer = whole.clone();
        buffer[bit / 8] ^= 1 << (bit % 8);
        let mut decoder = FrameDecoder::new(Limits::SESSION);
        match decoder.decode(&mut buffer) {
            Ok(None) | Err(_) => {}
            Ok(Some(frame)) => panic!("bit {bit} flipped, accepted {frame:?}"),
        }
    }
}

#[test]
fn a_damaged_payload_does_not_cost_the_connection() {
    let mut buffer = answer(&[7; 20]);
    let last = buffer.len() - 1;
    buffer[last] ^= 1;
    buffer.extend_from_slice(&ping(8));
    let mut decoder = FrameDecoder::new(Limits::SESSION);
    let error = decoder.decode(&mut buffer).expect_err("damaged");
    assert!(!error.is_fatal());
    assert_eq!(error.answer().map(|meta| meta.request_id), Some(7));
    assert_eq!(error.code(), ErrorCode::Corrupted);
    let next = decoder.decode(&mut buffer).expect("good").expect("whole");
    assert_eq!(next.header.meta.request_id, 8);
}

#[test]
fn after_a_fatal_error_nothing_is_decoded() {
    let mut buffer = BytesMut::from(&b"GET / HTTP/1.1\r\n"[..]);
    let mut decoder = FrameDecoder::new(Limits::SESSION);
    assert_eq!(decoder.decode(&mut buffer).expect_err("stranger"), FrameError::Magic);
    let mut good = ping(1);
    assert_eq!(decoder.decode(&mut good).expect_err("still"), FrameError::Magic);
}

#[test]
fn a_stranger_is_refused_at_the_first_byte() {
    let mut decoder = FrameDecoder::new(Limits::HANDSHAKE);
    assert_eq!(decoder.decode(&mut BytesMut::from(&b"G"[..])).expect_err("no"), FrameError::Magic);
}

#[test]
fn a_newer_major_is_refused_by_name_and_answered_in_ours() {
    let mut buffer = ping(77);
    buffer[8] = MAJOR + 1;
    let error = FrameDecoder::new(Limits::SESSION).decode(&mut buffer).expect_err("newer");
    assert_eq!(error, FrameError::Major { theirs: 2, request_id: 77 });
    assert_eq!(error.answer(), Some(Meta::refusal(0, 77, ErrorCode::Version)));
    let mut out = BytesMut::new();
    encode_bare(&mut out, error.answer().expect("an answer"));
    assert_eq!((out[8], out[9]), (MAJOR, MINOR));
}

#[test]
fn another_minor_is_read() {
    let mut buffer = ping(1);
    buffer[9] = MINOR + 1;
    reseal(&mut buffer, 1);
    let frame = FrameDecoder::new(Limits::SESSION).decode(&mut buffer).expect("good");
    assert_eq!(frame.expect("whole").header.minor, MINOR + 1);
}

#[test]
fn an_unknown_kind_is_refused() {
    let mut buffer = ping(1);
    buffer[10] = 99;
    let error = FrameDecoder::new(Limits::SESSION).decode(&mut buffer).expect_err("unknown");
    assert_eq!(error, FrameError::Kind { kind: 99, request_id: 1 });
}

#[test]
fn no_opcode_brings_more_than_its_row_allows() {
    for entry in Opcode::TABLE {
        let mut frame = ping(5);
        frame[12..14].copy_from_slice(&entry.opcode.as_u16().to_le_bytes());
        for (at, max, what) in [(24, entry.head_max, "head"), (28, entry.payload_max, "payload")] {
            for len in [max + 1, u32::MAX] {
                let mut buffer = frame.clone();
                buffer[at..at + 4].copy_from_slice(&len.to_le_bytes());
                let error =
                    FrameDecoder::new(Limits::SESSION).decode(&mut buffer).expect_err("long");
                assert!(
                    matches!(error, FrameError::TooLarge { what: w, len: l, .. } if w == what && l == len),
                    "{}: {error:?}",
                    entry.name
                );
                assert_eq!(error.answer().map(|meta| meta.request_id), Some(5));
            }
        }
    }
}

#[test]
fn before_the_handshake_nothing_large_is_accepted() {
    let mut out = BytesMut::new();
    let meta = Meta::request(Opcode::Put.as_u16(), 1);
    encode(&mut out, meta, &Ping {}, b"x", crc32c(b"x")).expect("encodes");
    let error = FrameDecoder::new(Limits::HANDSHAKE).decode(&mut out).expect_err("too early");
    assert!(matches!(error, FrameError::TooLarge { what: "payload", .. }));
}

#[test]
fn an_announced_length_alone_costs_no_memory() {
    let mut buffer = BytesMut::new();
    let mut whole = BytesMut::new();
    let meta = Meta::request(Opcode::Put.as_u16(), 1);
    encode_head(&mut whole, meta, &Ping {}, PAYLOAD_MAX, 0).expect("encodes");
    buffer.extend_from_slice(&whole);
    let mut decoder = FrameDecoder::new(Limits::SESSION);
    assert!(decoder.decode(&mut buffer).expect("within limits").is_none());
    assert!(buffer.capacity() < 64 * 1024, "{}", buffer.capacity());
}

#[test]
fn a_head_that_cannot_be_sent_leaves_no_half_frame() {
    let mut out = ping(1);
    let before = out.clone();
    let long = "x".repeat(HEAD_MAX as usize + 1);
    let error = encode_head(&mut out, Meta::request(1, 2), &long, 0, 0).expect_err("too long");
    assert!(matches!(error, FrameError::Encode(_)));
    assert_eq!(out, before);
}

#[test]
fn window_and_cancel_are_small() {
    let mut out = BytesMut::new();
    let meta = Meta::of_kind(Kind::Window, Opcode::Put.as_u16(), 4);
    encode(&mut out, meta, &WindowHead { bytes: 1 << 20 }, b"", 0).expect("encodes");
    encode_bare(&mut out, Meta::of_kind(Kind::Cancel, Opcode::Put.as_u16(), 4));
    let mut decoder = FrameDecoder::new(Limits::SESSION);
    for kind in [Kind::Window, Kind::Cancel] {
        let frame = decoder.decode(&mut out).expect("good").expect("whole");
        assert_eq!(frame.header.meta.kind, kind);
    }
}
