//! No byte from the network panics a daemon or a client (P7): seeded noise, and good frames bent.
//!
//! 200,000 frames by default. Ten million, and a failing seed again:
//!
//! ```text
//! FOLIO_FUZZ_FRAMES=10000000 cargo test --release --test wire_fuzz
//! FOLIO_FUZZ_SEED=123 cargo test --test wire_fuzz
//! ```
#![allow(clippy::expect_used, reason = "a test")]

use bytes::BytesMut;
use folio::format::crc::crc32c;
use folio::format::file_id::{FileId, OBJECT_ID_LEN, ObjectId};
use folio::messages::frame::{Frame, FrameDecoder, HEADER_LEN, Limits};
use folio::messages::handshake::{
    Auth, AuthAnswer, ClientHandshake, Hello, HelloAnswer, KeyCheck, ServerHandshake,
};
use folio::messages::heads::{self, decode};
use folio::messages::opcode::{Daemon, Opcode, Role, authorize};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};

/// Share of each test in the total.
const TESTS: u64 = 4;

fn share() -> u64 {
    let total = std::env::var("FOLIO_FUZZ_FRAMES")
        .map_or(200_000, |text| text.parse().expect("FOLIO_FUZZ_FRAMES is a number of frames"));
    total / TESTS
}

/// A generator whose seed is printed and can be given back.
fn seeded(test: &str) -> StdRng {
    let seed = std::env::var("FOLIO_FUZZ_SEED")
        .map_or(20_261_122, |text| text.parse().expect("FOLIO_FUZZ_SEED is a number"));
    println!("{test}: FOLIO_FUZZ_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A frame by hand, with right checksums, whatever is in it.
fn sealed(rng: &mut StdRng, kind: u8, opcode: u16, head: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + head.len() + payload.len());
    out.extend_from_slice(b"FOLI\0\0\0\0");
    out.extend_from_slice(&[1, rng.random_range(0..2), kind, rng.random_range(0..4)]);
    out.extend_from_slice(&opcode.to_le_bytes());
    out.extend_from_slice(&rng.random_range(0..30u16).to_le_bytes());
    out.extend_from_slice(&rng.random::<u64>().to_le_bytes());
    out.extend_from_slice(&(head.len() as u32).to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c(payload).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(head);
    let crc = crc32c(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(payload);
    out
}

/// MessagePack that is mostly well formed: what a hostile but able client would send.
fn value(rng: &mut StdRng, depth: u32, out: &mut Vec<u8>) {
    match rng.random_range(0..if depth == 0 { 8 } else { 11 }) {
        0 => out.push(rng.random()),
        1 => out.push(0xc0),
        2 => out.push(0xc2 | rng.random_range(0..2)),
        3 => {
            out.push(0xcf);
            out.extend_from_slice(&rng.random::<u64>().to_be_bytes());
        }
        4 => {
            let len = *[0usize, 1, 16, 32, 45, 200].choose(rng).expect("not empty");
            out.extend_from_slice(&[0xc4, len as u8]);
            out.extend(std::iter::repeat_with(|| rng.random::<u8>()).take(len));
        }
        5 => {
            let len: u8 = rng.random_range(0..32);
            out.push(0xa0 | len);
            out.extend(std::iter::repeat_with(|| rng.random::<u8>()).take(len.into()));
        }
        6 => out.push(rng.random_range(0xd4..=0xff)),
        7 => out.extend_from_slice(&[
            *[0xdd, 0xdb, 0xc6].choose(rng).expect("some"),
            255,
            255,
            255,
            255,
        ]),
        _ => {
            let len: u8 = rng.random_range(0..16);
            out.push(0x90 | len);
            for _ in 0..len {
                value(rng, depth - 1, out);
            }
        }
    }
}

/// Everything that any end does with the head of a frame, before it does anything else.
fn read_all(frame: &Frame) {
    let opcode = frame.header.meta.opcode;
    for daemon in [Daemon::Tracker, Daemon::Storage] {
        for role in [None, Some(Role::Client), Some(Role::Peer), Some(Role::Admin)] {
            drop(authorize(opcode, daemon, role));
        }
    }
    let head = frame.head();
    drop((decode::<heads::ErrorHead>(head), decode::<heads::DataEnd>(head)));
    drop((decode::<heads::WindowHead>(head), decode::<heads::NodeIdentity>(head)));
    match Opcode::from_u16(opcode) {
        Some(Opcode::Hello) => handshake(head),
        Some(Opcode::Auth) => drop((decode::<Auth>(head), decode::<AuthAnswer>(head))),
        Some(Opcode::Ping) => drop((decode::<heads::Ping>(head), decode::<heads::Pong>(head))),
        Some(Opcode::Info) => drop(decode::<heads::Info>(head)),
        Some(Opcode::Put) => drop((decode::<heads::Put>(head), decode::<heads::Written>(head))),
        Some(Opcode::Get) => drop((decode::<heads::Get>(head), decode::<heads::ObjectHead>(head))),
        Some(Opcode::Modify) => drop(decode::<heads::Modify>(head)),
        Some(Opcode::Delete) => drop(decode::<heads::Delete>(head)),
        Some(Opcode::Undelete) => drop(decode::<heads::Undelete>(head)),
        Some(Opcode::Stat) => {
            drop((decode::<heads::Stat>(head), decode::<heads::StatAnswer>(head)))
        }
        Some(Opcode::List) => {
            drop((decode::<heads::List>(head), decode::<heads::ListAnswer>(head)))
        }
        Some(Opcode::Df) => drop((decode::<heads::Df>(head), decode::<heads::DfAnswer>(head))),
        Some(Opcode::View) => {
            drop((decode::<heads::View>(head), decode::<heads::ViewAnswer>(head)))
        }
        Some(Opcode::Route) => {
            drop((decode::<heads::Route>(head), decode::<heads::RouteAnswer>(head)));
        }
        Some(Opcode::Heartbeat) => {
            drop((decode::<heads::Heartbeat>(head), decode::<heads::HeartbeatAnswer>(head)));
        }
        Some(Opcode::SyncHello) => drop(decode::<heads::SyncHello>(head)),
        Some(Opcode::SyncPush) => {
            drop((decode::<heads::SyncPush>(head), decode::<heads::SyncPushed>(head)));
        }
        Some(Opcode::SyncStatus) => {
            drop((decode::<heads::SyncStatus>(head), decode::<heads::SyncReports>(head)));
        }
        Some(Opcode::SyncContent) => {
            drop((decode::<heads::SyncContent>(head), decode::<heads::SyncPiece>(head)));
        }
        Some(Opcode::SyncOffer) => {
            drop((decode::<heads::SyncOffer>(head), decode::<heads::SyncOffered>(head)));
        }
        Some(
            Opcode::SyncChunkfiles
            | Opcode::SyncDigest
            | Opcode::SyncMarks
            | Opcode::SyncCopies
            | Opcode::SyncArchive
            | Opcode::SyncArchived
            | Opcode::SyncPull,
        ) => state_exchange(head, frame.payload()),
        None => {}
    }
    if let Ok(bytes) = <&[u8; OBJECT_ID_LEN]>::try_from(frame.payload()) {
        drop(ObjectId::decode(bytes));
    }
}

fn state_exchange(head: &[u8], payload: &[u8]) {
    drop((decode::<heads::SyncChunkfiles>(head), decode::<heads::SyncChunkfileList>(head)));
    drop((decode::<heads::SyncDigest>(head), decode::<heads::SyncDigested>(head)));
    drop((decode::<heads::SyncMarks>(head), decode::<heads::SyncMarked>(head)));
    drop((decode::<heads::SyncCopies>(head), decode::<heads::SyncCopied>(head)));
    drop((decode::<heads::SyncArchive>(head), decode::<heads::SyncArchiveList>(head)));
    drop((decode::<heads::SyncArchived>(head), decode::<heads::SyncArchivedEntries>(head)));
    drop((decode::<heads::SyncPull>(head), decode::<heads::SyncPulling>(head)));
    drop((decode::<Vec<heads::SyncCopy>>(payload), decode::<Vec<heads::SyncEntry>>(payload)));
    drop(decode::<Vec<heads::SyncArchivedName>>(payload));
    drop(decode::<Vec<heads::SyncChunkfile>>(payload));
}

fn handshake(head: &[u8]) {
    let node = heads::NodeIdentity {
        kind: Daemon::Storage,
        group: "g".into(),
        syncgroup: "a".into(),
        machine: 1,
        instance: heads::Uuid::new([1; 16]),
        version: String::new(),
    };
    let mut server = ServerHandshake::new(node, [1; 32]);
    if let Ok(hello) = decode::<Hello>(head) {
        drop(server.on_hello(&hello, |_| KeyCheck::Required, 0));
    }
    if let Ok(auth) = decode::<Auth>(head) {
        assert!(server.on_auth(&auth, |_| vec![[3; 32]]).is_err(), "a guessed proof");
    }
    let mut client = ClientHandshake::new(Role::Client, "fuzz", [1; 16], vec![[3; 32]], [2; 32]);
    if let Ok(answer) = decode::<HelloAnswer>(head) {
        drop(client.on_hello_answer(answer));
    }
    if let Ok(answer) = decode::<AuthAnswer>(head) {
        assert!(client.on_auth_answer(&answer).is_err(), "a guessed proof");
    }
}

/// Feeds bytes in pieces until they are used up or refused for good.
fn feed(rng: &mut StdRng, bytes: &[u8], limits: Limits) -> usize {
    let mut decoder = FrameDecoder::new(limits);
    let mut buffer = BytesMut::new();
    let mut rest = bytes;
    let mut frames = 0;
    loop {
        match decoder.decode(&mut buffer) {
            Ok(Some(frame)) => {
                read_all(&frame);
                frames += 1;
            }
            Ok(None) if rest.is_empty() => break,
            Ok(None) => {
                let (piece, left) = rest.split_at(rng.random_range(1..=rest.len()));
                buffer.extend_from_slice(piece);
                rest = left;
            }
            Err(error) if error.is_fatal() => break,
            Err(_) => {}
        }
    }
    drop(decoder.finish(&buffer));
    frames
}

fn any_opcode(rng: &mut StdRng) -> u16 {
    if rng.random_ratio(1, 20) {
        rng.random()
    } else {
        Opcode::TABLE.choose(rng).expect("not empty").opcode.as_u16()
    }
}

#[test]
fn noise_never_panics() {
    let mut rng = seeded("noise");
    let mut bytes = [0; 200];
    for _ in 0..share() {
        let len = rng.random_range(0..bytes.len());
        rng.fill_bytes(&mut bytes[..len]);
        if len >= 9 && rng.random_bool(0.9) {
            bytes[..4].copy_from_slice(b"FOLI");
            bytes[8] = 1;
        }
        feed(&mut rng, &bytes[..len], Limits::SESSION);
    }
}

#[test]
fn good_checksums_around_bad_heads_never_panic() {
    let mut rng = seeded("heads");
    let mut understood = 0;
    for _ in 0..share() {
        let mut head = Vec::new();
        value(&mut rng, 3, &mut head);
        head.truncate(1000);
        let mut payload = [0; OBJECT_ID_LEN];
        rng.fill_bytes(&mut payload);
        let (kind, opcode) = (rng.random_range(1..=5), any_opcode(&mut rng));
        let bytes = sealed(&mut rng, kind, opcode, &head, &payload);
        understood += feed(&mut rng, &bytes, Limits::SESSION);
    }
    assert!(
        understood as u64 >= share() / 10,
        "the fuzzer no longer reaches the heads: {understood}"
    );
}

#[test]
fn bent_good_frames_never_panic() {
    let mut rng = seeded("bent");
    let client = ClientHandshake::new(Role::Client, "fuzz", [1; 16], vec![[3; 32]], [2; 32]);
    let heads: Vec<Vec<u8>> = vec![
        rmp_serde::to_vec(client.hello()).expect("encodes"),
        rmp_serde::to_vec(&heads::Get {
            id: heads::IdBytes::new([4; 45]),
            first: 0,
            last: Some(7),
            min_opver: Some(Default::default()),
            local_only: false,
            window: 9,
        })
        .expect("encodes"),
        rmp_serde::to_vec(&heads::Put {
            token: Default::default(),
            mount: Some(1),
            reserve: Some(heads::Reserve::Bytes(5)),
            length: Some(3),
        })
        .expect("encodes"),
    ];
    for _ in 0..share() {
        let mut head = heads.choose(&mut rng).expect("some").clone();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..head.len());
            head[at] = rng.random();
        }
        let (kind, opcode) = (rng.random_range(0..7), any_opcode(&mut rng));
        let mut bytes = sealed(&mut rng, kind, opcode, &head, b"");
        if rng.random_bool(0.5) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
        }
        let limits = *[Limits::SESSION, Limits::HANDSHAKE].choose(&mut rng).expect("two");
        feed(&mut rng, &bytes, limits);
    }
}

#[test]
fn no_text_panics_the_parser_of_ids() {
    let mut rng = seeded("ids");
    let object = loop {
        let mut bytes = [0; OBJECT_ID_LEN];
        rng.fill_bytes(&mut bytes);
        (bytes[0], bytes[1]) = (1, 1);
        bytes[31] = 0;
        let crc = crc32c(&bytes[..41]);
        bytes[41..].copy_from_slice(&crc.to_le_bytes());
        if let Ok(object) = ObjectId::decode(&bytes) {
            break object;
        }
    };
    let id = FileId::new("books", "a", object, Some("txt")).expect("an id");
    let good = id.to_string();
    assert_eq!(good.parse::<FileId>().as_ref(), Ok(&id));
    for _ in 0..share() {
        let mut text: Vec<char> = good.chars().collect();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..text.len());
            match rng.random_range(0..4) {
                0 => text[at] = rng.random_range('\0'..'\u{250}'),
                1 => text.truncate(at.max(1)),
                2 => {
                    text.insert(at, *['/', '.', '-', 'A', '0', '%'].choose(&mut rng).expect("some"))
                }
                _ => text.swap(at, 0),
            }
        }
        let text: String = text.into_iter().collect();
        if let Ok(parsed) = text.parse::<FileId>() {
            assert_eq!(parsed.to_string(), text, "a second spelling");
            assert_eq!(text, good, "a typo that is another id");
        }
    }
}
