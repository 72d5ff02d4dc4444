//! Disks outlive programs: every structure that a version ever wrote is read, and written again byte for byte.
//!
//! `tests/golden/<structure>-v<major>.<minor>.bin` are never changed once they were shipped. A new structure or
//! version gets its file by `cargo test --test golden -- --ignored`, which only writes files that do not exist.
#![allow(clippy::disallowed_methods, reason = "a test that reads its own files")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use folio::format::checkpoint::{
    AnsweredToken, BadCheckpoint, Checkpoint, ChunkfileState, Counters, FreedPlace, ReceivedLog,
};
use folio::format::chunkfile::ChunkfileHeader;
use folio::format::crc::{crc32c, mac64};
use folio::format::envelope::FormatError;
use folio::format::file_id::{FileId, IdError, ObjectId, ObjectKind};
use folio::format::ids::{Address, ChunkfileId, Place, Position, Tag, Token, Vector, Version};
use folio::format::label::Label;
use folio::format::log::{BatchHeader, NotALog, Records, SegmentHeader, padding, record_header};
use folio::format::members::Member;
use folio::format::memory::Memory;
use folio::format::record::{ChunkfileCreated, Edit, Record, Replaced, SlotImage};
use folio::format::recovery_state::{Cause, Phase, RecoveryState};
use folio::format::scrub_state::{OpenDamage, ScrubState};
use folio::format::single::{BLOCK_LEN, FOOTER_LEN, Footer, TrailerBuilder};
use folio::format::slot::{Body, NotASlot, Role, SlotHeader, State, Stay};
use std::path::PathBuf;

const SECRET: [u8; 16] = *b"0123456789abcdef";
const LOG: u32 = 0x5a40_1111;
const START: u64 = 3 << 48;

fn object() -> ObjectId {
    ObjectId {
        kind: ObjectKind::Chunk,
        machine: 1,
        mount: 2,
        log_id: LOG,
        sequence: START | 7,
        created_s: 1_750_000_000,
        chunk: 3,
        offset_units: 64,
        capacity_units: 80,
        cookie: 0x0123_4567_89ab_cdef,
    }
}

fn file_id() -> FileId {
    FileId::new("books", "a", object(), Some("txt")).unwrap()
}

fn scrub_state() -> ScrubState {
    let id = ChunkfileId { machine: 3, log_id: 0x0102_0304, chunk: 9 };
    let home = Address { machine: 3, log_id: 0x0102_0304, chunk: 9, offset_units: 77 };
    ScrubState {
        running: true,
        paused: true,
        at_once: false,
        next: Some((id, 4711)),
        begun_ms: 1_700_000_000_001,
        finished_ms: 1_700_000_000_000,
        bytes: 1 << 33,
        found: 12,
        repaired: 8,
        gone: 1,
        by_reads: 2,
        open: vec![
            OpenDamage::Object(home),
            OpenDamage::Chunkfile(id),
            OpenDamage::Known(object()),
        ],
    }
}

fn recovery_state() -> RecoveryState {
    RecoveryState {
        phase: Phase::PullData,
        cause: Cause::NewMachine,
        accepted_loss: true,
        paused: false,
        started_ms: 1_760_000_000_000,
        bytes: 123_456_789,
        objects: 4321,
        finished: vec![2, 3],
        missing: vec![4],
        target: vec![Position { machine: 2, log_id: 7, sequence: 1 << 48 | 9 }],
    }
}

fn label() -> Label {
    let member = |machine: u16, log_ids: &[u32]| Member {
        machine,
        address: format!("10.0.0.{machine}:7411"),
        mount_uuid: [0x11; 16],
        instance: [0x22; 16],
        log_ids: log_ids.to_vec(),
    };
    Label {
        group: "books".to_owned(),
        syncgroup: "a".to_owned(),
        machine: 1,
        mount: 2,
        mount_uuid: [0x11; 16],
        instance: [0x22; 16],
        log_id: LOG,
        start_count: 3,
        was_mountpoint: true,
        created_ms: 1_750_000_000_123,
        generation: 4,
        members: vec![member(1, &[5, LOG]), member(2, &[6])],
    }
}

fn memory() -> Memory {
    let mut memory = Memory::of_instance(&label());
    memory.remember(&label(), "/srv/folio/m2");
    memory.remember(&Label { mount: 0, was_mountpoint: false, ..label() }, "/srv/folio/m0");
    memory
}

fn chunkfile() -> ChunkfileHeader {
    ChunkfileHeader {
        id: ChunkfileId { machine: 1, log_id: LOG, chunk: 3 },
        mount: 2,
        mount_uuid: [0x11; 16],
        size_units: 1 << 20,
        secret: SECRET,
        created_ms: 1_750_000_000_123,
    }
}

/// A slot whose vector has more entries than the header has room for.
fn slot() -> SlotHeader {
    let tag = Tag { life: 2, term: 0, n: 1 << 20, machine: 3, log_id: 9, sequence: 77 };
    let mut vector: Vector =
        (1..5).map(|i| Position { machine: 1, log_id: i, sequence: u64::from(i) * 10 }).collect();
    vector.push(tag.position());
    SlotHeader {
        role: Role::Home,
        state: State::Live,
        body: Body::Inline,
        mount: 2,
        creation: object().creation(),
        cookie: object().cookie,
        address: object().home().address,
        version: Version { tag, vector },
        token_client: [7; 16],
        token_sequence: 12,
        kind: object().kind,
        created_s: object().created_s,
        birth_units: object().capacity_units,
        modified_ms: 1_750_000_000_456,
        capacity_units: 80,
        payload_crc: crc32c(b"hello"),
        length: 5,
        stay: Stay::default(),
    }
}

/// Of a move; the targets in the batch below are of the early kind, which does not say whose it is.
fn target() -> SlotHeader {
    let home = object().home().address;
    let address = Address { machine: 3, log_id: 9, chunk: 5, offset_units: 640 };
    let stay = Stay { since: 70, home_chunk: home.chunk, home_units: home.offset_units };
    SlotHeader { role: Role::Target, address, stay, ..slot() }
}

fn segment() -> SegmentHeader {
    SegmentHeader {
        mount: 2,
        machine: 1,
        log_id: LOG,
        first: START | 1,
        predecessor: START - 9,
        secret: SECRET,
        mount_uuid: [0x11; 16],
        len: 8 << 20,
    }
}

fn records() -> Vec<(u64, Record, &'static [u8])> {
    let image = |header: &SlotHeader| SlotImage {
        address: header.address,
        header: header.encode(&SECRET).as_slice().into(),
    };
    let target = Address { offset_units: 640, ..object().home().address };
    let home = SlotHeader { body: Body::Slot(target), ..slot() };
    let edit = Edit {
        token_lowest: 11,
        token_issued_ms: 1_750_000_000_000,
        replaced: Replaced::Live(4711),
        rename_single: false,
        has_payload: true,
        freed: [Place { address: target, capacity_units: 9 }].as_slice().into(),
        freed_single: Some(Position { machine: 1, log_id: LOG, sequence: START | 2 }),
        home: image(&home),
        target: Some(image(&SlotHeader { role: Role::Target, address: target, ..slot() })),
    };
    let created = ChunkfileCreated {
        id: chunkfile().id,
        size_units: chunkfile().size_units,
        created_ms: chunkfile().created_ms,
        secret: SECRET,
    };
    vec![(START | 1, Record::Chunkfile(created), b""), (START | 2, Record::Edit(edit), b"hello")]
}

/// A batch with its records, as it lies in a segment.
fn batch() -> Vec<u8> {
    let mut body = Vec::new();
    for (sequence, record, payload) in records() {
        let mut head = Vec::new();
        record.encode(&mut head);
        let len = u32::try_from(payload.len()).unwrap();
        let from = body.len();
        body.extend(record_header(record.kind(), sequence, &head, len, crc32c(payload)));
        body.extend(head);
        body.extend(payload);
        body.resize(body.len() + padding(body.len() - from), 0);
    }
    let header = BatchHeader {
        log_id: LOG,
        records: 2,
        first: START | 1,
        last: START | 2,
        predecessor: START - 9,
        body_len: u32::try_from(body.len()).unwrap(),
        body_crc: crc32c(&body),
    };
    [header.encode(&SECRET).to_vec(), body].concat()
}

fn read_batch(bytes: &[u8]) -> Vec<u8> {
    let header = BatchHeader::decode(bytes, &SECRET).unwrap();
    let body = &bytes[64..64 + header.body_len as usize];
    assert_eq!(crc32c(body), header.body_crc);
    let read: Vec<_> = Records::new(body)
        .map(|raw| {
            let raw = raw.unwrap();
            (raw.sequence, Record::decode(raw.kind, raw.head).unwrap().unwrap(), raw.payload)
        })
        .collect();
    assert_eq!(read, records());
    batch()
}

fn checkpoint() -> Checkpoint {
    let token = Token {
        client: [7; 16],
        sequence: 12,
        lowest_unanswered: 11,
        issued_ms: 1_750_000_000_000,
    };
    Checkpoint {
        mount: 2,
        mount_uuid: [0x11; 16],
        machine: 1,
        log_id: LOG,
        applied: START | 2,
        segment: START | 1,
        offset: 8192,
        next_chunk: 4,
        chunkfiles: vec![ChunkfileState {
            id: chunkfile().id,
            size_units: chunkfile().size_units,
            used_units: 4096,
            oldest_tombstone_ms: u64::MAX,
        }],
        holes: vec![(3, 144, 10), (3, 200, 1)],
        freed: vec![FreedPlace { place: object().home(), superseded_by: START | 2 }],
        tokens: vec![AnsweredToken { token, object: object(), tag: slot().version.tag }],
        folded_damage: 1,
        counters: Counters {
            live_objects: 1,
            live_bytes: 2,
            deleted_objects: 3,
            deleted_bytes: 4,
            single_bytes: 5,
        },
        forgotten_ms: 6,
        received: vec![ReceivedLog {
            machine: 2,
            log_id: LOG + 1,
            applied: START | 9,
            segment: START | 1,
            offset: 4096,
        }],
    }
}

/// One full block and a bit of the next.
fn single() -> (Vec<u8>, Footer) {
    let payload: Vec<u8> = (0..BLOCK_LEN + 10).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let mut builder =
        TrailerBuilder::new(Position { machine: 1, log_id: LOG, sequence: START | 5 }, 2);
    builder.update(&payload);
    let (trailer, footer) = builder.finish();
    // The payload is known; the golden file holds what is behind it.
    (trailer, footer)
}

fn read_single(bytes: &[u8]) -> Vec<u8> {
    let (trailer, expected) = single();
    let file_length = expected.length + bytes.len() as u64;
    let footer = Footer::decode(bytes.last_chunk().unwrap(), file_length).unwrap();
    assert_eq!(footer, expected);
    assert!(footer.table_is_whole(&bytes[..bytes.len() - FOOTER_LEN]));
    trailer
}

/// Name, what today's code writes, and how it reads: decodes, compares with the value, writes again.
type Golden = (&'static str, Vec<u8>, fn(&[u8]) -> Vec<u8>);

fn all() -> Vec<Golden> {
    vec![
        ("file-id-v1", file_id().to_string().into_bytes(), |bytes| {
            let id: FileId = std::str::from_utf8(bytes).unwrap().parse().unwrap();
            assert_eq!(id, file_id());
            id.to_string().into_bytes()
        }),
        ("object-id-v1", object().encode().to_vec(), |bytes| {
            let id = ObjectId::decode(bytes.try_into().unwrap()).unwrap();
            assert_eq!(id, object());
            id.encode().to_vec()
        }),
        ("label-v1.0", label().encode(), |bytes| {
            let read = Label::decode(bytes).unwrap();
            assert_eq!(read, label());
            read.encode()
        }),
        ("scrub-state-v1.0", scrub_state().encode(), |bytes| {
            let read = ScrubState::decode(bytes).unwrap();
            assert_eq!(read, scrub_state());
            read.encode()
        }),
        ("recovery-state-v1.0", recovery_state().encode(), |bytes| {
            let read = RecoveryState::decode(bytes).unwrap();
            assert_eq!(read, recovery_state());
            read.encode()
        }),
        ("memory-v1.1", memory().encode(), |bytes| {
            let read = Memory::decode(bytes).unwrap();
            assert_eq!(read, memory());
            read.encode()
        }),
        ("chunkfile-v1.0", chunkfile().encode(), |bytes| {
            let read = ChunkfileHeader::decode(bytes).unwrap();
            assert_eq!(read, chunkfile());
            read.encode()
        }),
        ("slot-v1", [slot().encode(&SECRET), b"hello".to_vec()].concat(), |bytes| {
            let read = SlotHeader::decode(bytes, &SECRET).unwrap();
            assert_eq!(read, slot());
            assert_eq!(read.object_id(), object());
            assert_eq!(read.payload(bytes), Some(&b"hello"[..]));
            [read.encode(&SECRET), b"hello".to_vec()].concat()
        }),
        ("slot-target-v1", target().encode(&SECRET), |bytes| {
            let read = SlotHeader::decode(bytes, &SECRET).unwrap();
            assert_eq!(read, target());
            assert_eq!(read.home_address(), Some(object().home().address));
            read.encode(&SECRET)
        }),
        ("segment-v1.0", segment().encode(), |bytes| {
            let read = SegmentHeader::decode(bytes).unwrap();
            assert_eq!(read, segment());
            read.encode()
        }),
        ("batch-v1.0", batch(), read_batch),
        ("checkpoint-v1.1", checkpoint().encode(), |bytes| {
            let read = Checkpoint::decode(bytes).unwrap();
            assert_eq!(read, checkpoint());
            read.encode()
        }),
        ("single-v1.0", single().0, read_single),
    ]
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.bin"))
}

#[test]
fn what_an_older_program_wrote_is_read_and_written_the_same() {
    for (name, written_today, read) in all() {
        let golden = std::fs::read(path(name)).expect(name);
        assert_eq!(read(&golden), golden, "{name} comes back otherwise");
        assert_eq!(written_today, golden, "{name} is written otherwise");
    }
}

#[test]
fn a_memory_without_start_counts_is_read() {
    let golden = std::fs::read(path("memory-v1.0")).unwrap();
    let mut expected = memory();
    for mount in &mut expected.mounts {
        mount.start_count = 0;
    }
    assert_eq!(Memory::decode(&golden), Ok(expected));
}

#[test]
fn a_checkpoint_without_received_logs_is_read() {
    let golden = std::fs::read(path("checkpoint-v1.0")).unwrap();
    let expected = Checkpoint { received: Vec::new(), ..checkpoint() };
    assert_eq!(Checkpoint::decode(&golden), Ok(expected));
}

#[test]
#[ignore = "writes golden files that are missing"]
fn write_missing_golden_files() {
    for (name, written_today, _) in all() {
        if !path(name).exists() {
            std::fs::write(path(name), written_today).unwrap();
        }
    }
}

/// Changes the version and makes the structure's check right again.
fn with_version(golden: &[u8], major: u8, minor: Option<u8>, seal: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = golden.to_vec();
    bytes[4] = major;
    if let Some(minor) = minor {
        bytes[5] = minor;
    }
    seal(&mut bytes);
    bytes
}

fn crc_at(from: usize) -> impl Fn(&mut [u8]) {
    move |bytes| {
        let crc = crc32c(&bytes[..from]);
        bytes[from..from + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

fn seal_envelope(bytes: &mut [u8]) {
    let len = usize::try_from(u32::from_le_bytes(bytes[8..12].try_into().unwrap())).unwrap();
    let crc = crc32c(&[&bytes[..12], &bytes[16..16 + len]].concat());
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
}

fn seal_batch(bytes: &mut [u8]) {
    let mac = mac64(&SECRET, &[&bytes[..56]]);
    bytes[56..64].copy_from_slice(&mac.to_le_bytes());
}

fn seal_slot(bytes: &mut [u8]) {
    let end = bytes.len() - 5;
    let mac = mac64(&SECRET, &[&bytes[..184], &bytes[192..end]]);
    bytes[184..192].copy_from_slice(&mac.to_le_bytes());
}

fn seal_checkpoint(bytes: &mut [u8]) {
    crc_at(bytes.len() - 4)(bytes);
}

#[test]
fn a_newer_minor_is_read() {
    let envelope = |bytes: &[u8]| with_version(bytes, 1, Some(1), seal_envelope);
    assert_eq!(Label::decode(&envelope(&label().encode())), Ok(label()));
    assert_eq!(Memory::decode(&envelope(&memory().encode())), Ok(memory()));
    let state = recovery_state();
    assert_eq!(RecoveryState::decode(&envelope(&state.encode())), Ok(state));
    assert_eq!(ScrubState::decode(&envelope(&scrub_state().encode())), Ok(scrub_state()));
    assert_eq!(ChunkfileHeader::decode(&envelope(&chunkfile().encode())), Ok(chunkfile()));
    let newer = with_version(&segment().encode(), 1, Some(1), crc_at(72));
    assert_eq!(SegmentHeader::decode(&newer), Ok(segment()));
    let newer = with_version(&batch(), 1, Some(1), seal_batch);
    assert!(BatchHeader::decode(&newer, &SECRET).is_ok());
    let newer = with_version(&checkpoint().encode(), 1, Some(2), seal_checkpoint);
    assert_eq!(Checkpoint::decode(&newer), Ok(checkpoint()));
    let (trailer, footer) = single();
    let newer = with_version(&trailer[trailer.len() - FOOTER_LEN..], 1, Some(1), crc_at(76));
    let file_length = footer.length + trailer.len() as u64;
    assert_eq!(Footer::decode(newer.last_chunk().unwrap(), file_length), Ok(footer));
}

#[test]
fn a_newer_major_is_refused_by_name() {
    let newer = |bytes: &[u8]| with_version(bytes, 2, Some(0), seal_envelope);
    let refused = |error: FormatError| matches!(error, FormatError::Newer { major: 2, .. });
    assert!(refused(Label::decode(&newer(&label().encode())).unwrap_err()));
    assert!(refused(Memory::decode(&newer(&memory().encode())).unwrap_err()));
    assert!(refused(RecoveryState::decode(&newer(&recovery_state().encode())).unwrap_err()));
    assert!(refused(ScrubState::decode(&newer(&scrub_state().encode())).unwrap_err()));
    assert!(refused(ChunkfileHeader::decode(&newer(&chunkfile().encode())).unwrap_err()));
    let (trailer, footer) = single();
    let newer = with_version(&trailer[trailer.len() - FOOTER_LEN..], 2, Some(0), crc_at(76));
    let file_length = footer.length + trailer.len() as u64;
    assert!(refused(Footer::decode(newer.last_chunk().unwrap(), file_length).unwrap_err()));

    let newer = with_version(&segment().encode(), 2, Some(0), crc_at(72));
    assert_eq!(SegmentHeader::decode(&newer), Err(NotALog::Newer(2)));
    let newer = with_version(&batch(), 2, Some(0), seal_batch);
    assert_eq!(BatchHeader::decode(&newer, &SECRET), Err(NotALog::Newer(2)));
    let newer = with_version(&checkpoint().encode(), 2, Some(0), seal_checkpoint);
    assert_eq!(Checkpoint::decode(&newer), Err(BadCheckpoint::Newer(2)));
    let slot_bytes = [slot().encode(&SECRET), b"hello".to_vec()].concat();
    let newer = with_version(&slot_bytes, 2, None, seal_slot);
    assert_eq!(SlotHeader::decode(&newer, &SECRET), Err(NotASlot::Newer(2)));

    let mut id = object().encode();
    id[0] = 2;
    let crc = crc32c(&id[..41]);
    id[41..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(ObjectId::decode(&id), Err(IdError::NewerVersion { found: 2 }));
}
