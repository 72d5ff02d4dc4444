use super::*;
use crate::format::chunkfile::ChunkfileHeader;
use crate::format::crc::crc32c;
use crate::format::file_id::ObjectKind;
use crate::format::ids::{Tag, Version};
use crate::format::paths;
use crate::format::slot::{HEADER_UNITS, Role, Stay, units};
use crate::store::disk::Open;
use crate::store::sim_disk::{SimDisk, SimOptions};
use crate::store::single_writer::SingleWriter;

const SECRET: [u8; 16] = [9; 16];
const CHUNK: ChunkfileId = ChunkfileId { machine: 1, log_id: 7, chunk: 2 };

/// A mount with one chunkfile, written by hand: the read side must not need the engine.
struct Bench<D: Disk> {
    disk: D,
    file: D::File,
    reader: Reader<D>,
    sequence: u64,
    next: u32,
}

fn bench() -> Bench<SimDisk> {
    let disk = SimDisk::new(SimOptions::default());
    let reader = Reader::new(disk.clone(), 3, 4);
    Bench::new(disk, reader)
}

impl<D: Disk> Bench<D> {
    fn new(disk: D, reader: Reader<D>) -> Self {
        let path = paths::chunk(CHUNK);
        disk.create_dir_all(paths::folder(&path)).unwrap();
        let file = disk.open(&path, Open::Create).unwrap();
        let header = ChunkfileHeader {
            id: CHUNK,
            mount: 3,
            mount_uuid: [1; 16],
            size_units: 16384,
            secret: SECRET,
            created_ms: 0,
        };
        file.write_all_at(0, &header.encode()).unwrap();
        file.set_len(16384 * UNIT).unwrap();
        Self { disk, file, reader, sequence: 100, next: 64 }
    }

    fn header(&mut self, payload: &[u8], at: u32, capacity_units: u32) -> SlotHeader {
        self.sequence += 1;
        let tag = Tag { n: 1, machine: 1, log_id: 7, sequence: self.sequence, ..Tag::default() };
        SlotHeader {
            role: Role::Home,
            state: State::Live,
            body: Body::Inline,
            mount: 3,
            creation: Position { machine: 1, log_id: 7, sequence: self.sequence },
            cookie: 77 + self.sequence,
            address: Address { machine: 1, log_id: 7, chunk: 2, offset_units: at },
            version: Version { tag, vector: [tag.position()].into_iter().collect() },
            token_client: [0; 16],
            token_sequence: 0,
            kind: ObjectKind::Chunk,
            created_s: 5,
            birth_units: capacity_units,
            modified_ms: self.sequence,
            capacity_units,
            payload_crc: crc32c(payload),
            length: payload.len() as u64,
            stay: Stay::default(),
        }
    }

    fn write(&self, header: &SlotHeader, payload: &[u8]) {
        let bytes = header.encode(&SECRET);
        self.file.write_all_vectored_at(header.address.offset(), &[&bytes, payload]).unwrap();
    }

    /// A live object behind the last one.
    fn put(&mut self, payload: &[u8]) -> (ObjectId, SlotHeader) {
        let capacity = units(HEADER_LEN as u64 + payload.len() as u64 + 100) as u32;
        let at = self.next;
        self.next += capacity;
        let header = self.header(payload, at, capacity);
        self.write(&header, payload);
        (id_of(&header), header)
    }

    fn get(&self, id: &ObjectId) -> Result<Vec<u8>, ReadError> {
        let mut buffer = Vec::new();
        match self.reader.get(id, &mut buffer)?.content {
            Content::Buffer(range) => Ok(buffer[range].to_vec()),
            Content::Single(_) => panic!("a slot was expected"),
        }
    }
}

fn id_of(header: &SlotHeader) -> ObjectId {
    ObjectId {
        kind: ObjectKind::Chunk,
        machine: 1,
        mount: 3,
        log_id: 7,
        sequence: header.creation.sequence,
        created_s: 5,
        chunk: 2,
        offset_units: header.address.offset_units,
        capacity_units: header.capacity_units,
        cookie: header.cookie,
    }
}

#[test]
fn no_flipped_bit_is_ever_delivered() {
    let mut bench = bench();
    let payload: Vec<u8> = (0..300_u16).map(|i| i as u8).collect();
    let (id, header) = bench.put(&payload);
    assert_eq!(bench.get(&id).unwrap(), payload);
    let at = header.address.offset();
    for bit in 0..used_len(&header) * 8 {
        let mut byte = [0];
        bench.file.read_at(at + bit / 8, &mut byte).unwrap();
        byte[0] ^= 1 << (bit % 8);
        bench.file.write_all_at(at + bit / 8, &byte).unwrap();
        assert!(bench.get(&id).is_err(), "bit {bit}");
        byte[0] ^= 1 << (bit % 8);
        bench.file.write_all_at(at + bit / 8, &byte).unwrap();
    }
    assert_eq!(bench.get(&id).unwrap(), payload);
}

#[test]
fn a_stale_id_never_shows_the_newer_tenant() {
    let mut bench = bench();
    let (old, header) = bench.put(b"old");
    let newer = bench.header(b"new", header.address.offset_units, header.capacity_units);
    bench.write(&newer, b"new");
    assert!(matches!(bench.get(&old), Err(ReadError::NotFound { deleted: false })));
    assert_eq!(bench.get(&id_of(&newer)).unwrap(), b"new");
    let guess = ObjectId { cookie: 1, ..id_of(&newer) };
    assert!(matches!(bench.get(&guess), Err(ReadError::NotFound { deleted: false })));
}

#[test]
fn a_lost_write_is_not_taken_for_an_object_that_never_was() {
    let mut bench = bench();
    let (_, header) = bench.put(b"old");
    let lost = bench.header(b"new", header.address.offset_units, header.capacity_units);
    assert!(matches!(bench.get(&id_of(&lost)), Err(ReadError::Unsettled(_))));
}

#[test]
fn what_is_deleted_purged_or_never_was_is_not_found() {
    let mut bench = bench();
    let (id, mut header) = bench.put(b"gone");
    header.state = State::Deleted;
    bench.write(&header, b"gone");
    assert!(matches!(bench.get(&id), Err(ReadError::NotFound { deleted: true })));
    assert_eq!(bench.reader.head(&id).unwrap().state, State::Deleted);
    header.state = State::Purged;
    bench.write(&header, b"gone");
    assert!(matches!(bench.get(&id), Err(ReadError::NotFound { deleted: false })));
    for nowhere in [
        ObjectId { offset_units: 16383, ..id },
        ObjectId { offset_units: u32::MAX - 1000, ..id },
        ObjectId { capacity_units: u32::MAX - id.offset_units, ..id },
    ] {
        assert!(matches!(bench.get(&nowhere), Err(ReadError::NotFound { .. })), "{nowhere:?}");
    }
    // A chunkfile without a file, and a place without a header, may be lost or never have been: the mount knows.
    let elsewhere = ObjectId { chunk: 99, ..id };
    assert!(matches!(bench.get(&elsewhere), Err(ReadError::Unsettled(_))));
    assert!(matches!(bench.reader.head(&elsewhere), Err(ReadError::Unsettled(_))));
    let blank = ObjectId { offset_units: 9000, ..id };
    assert!(matches!(bench.get(&blank), Err(ReadError::Unsettled(_))));
}

#[test]
fn a_forward_delivers_only_the_version_that_the_home_names() {
    let mut bench = bench();
    let (id, home) = bench.put(b"small");
    let long = vec![7; 5000];
    let to = Address { offset_units: 1000, ..home.address };
    let moved = SlotHeader {
        body: Body::Slot(to),
        length: 5000,
        payload_crc: crc32c(&long),
        ..home.clone()
    };
    let target = SlotHeader {
        role: Role::Target,
        body: Body::Inline,
        address: to,
        capacity_units: 90,
        ..moved.clone()
    };
    bench.write(&moved, b"");
    assert!(matches!(bench.get(&id), Err(ReadError::Unsettled(_))), "the target is not there yet");
    bench.write(&target, &long);
    assert_eq!(bench.get(&id).unwrap(), long);
    let mut other = target.clone();
    other.version.tag.n = 2;
    bench.write(&other, &long);
    assert!(matches!(bench.get(&id), Err(ReadError::Unsettled(_))), "another version stands there");
}

#[test]
fn a_header_that_stands_elsewhere_is_damage_and_not_an_answer() {
    let mut bench = bench();
    let (_, header) = bench.put(b"misdirected");
    let bytes = header.encode(&SECRET);
    bench.file.write_all_vectored_at(500 * UNIT, &[&bytes, b"misdirected"]).unwrap();
    let id = ObjectId { offset_units: 500, ..id_of(&header) };
    assert!(matches!(bench.get(&id), Err(ReadError::Unsettled(_))));
}

#[test]
fn a_fenced_mount_answers_nothing() {
    let mut bench = bench();
    let (id, _) = bench.put(b"x");
    bench.get(&id).unwrap();
    bench.reader.fence();
    assert!(matches!(bench.get(&id), Err(ReadError::Fenced)));
    assert!(matches!(bench.reader.get_fast(&id, &mut Vec::new()), Fast::Failed(ReadError::Fenced)));
}

fn large(bench: &Bench<SimDisk>, content: Position, bytes: &[u8]) -> SlotHeader {
    let mut writer = SingleWriter::create(bench.disk.clone(), 3, content).unwrap();
    for piece in bytes.chunks(70_001) {
        writer.write(piece).unwrap();
    }
    let finished = writer.finish().unwrap();
    assert_eq!((finished.length, finished.crc), (bytes.len() as u64, crc32c(bytes)));
    let path = paths::single(content);
    bench.disk.create_dir_all(paths::folder(&path)).unwrap();
    bench.disk.rename(&paths::single_tmp(content), &path).unwrap();
    let tag = Tag { n: 1, ..Tag::default() };
    SlotHeader {
        role: Role::Home,
        state: State::Live,
        body: Body::Single(content),
        mount: 3,
        creation: content,
        cookie: 1,
        address: Address::default(),
        version: Version { tag, vector: [tag.position()].into_iter().collect() },
        token_client: [0; 16],
        token_sequence: 0,
        kind: ObjectKind::Single,
        created_s: 0,
        birth_units: HEADER_UNITS,
        modified_ms: 0,
        capacity_units: HEADER_UNITS,
        payload_crc: crc32c(bytes),
        length: bytes.len() as u64,
        stay: Stay::default(),
    }
}

#[test]
fn ranges_of_a_large_object_are_its_own_bytes_or_an_error() {
    let bench = bench();
    let content = Position { machine: 1, log_id: 7, sequence: 1 };
    let bytes: Vec<u8> = (0..1_500_000_u32).map(|i| ((i * 31) >> 3) as u8).collect();
    let home = large(&bench, content, &bytes);
    let single = bench.reader.open_single(&home, content).unwrap();
    let mut buffer = Vec::new();
    for (from, to) in [(0, 1), (65_535, 65_537), (131_072, 262_144), (1_499_999, 1_500_000), (3, 3)]
    {
        let at = single.read(from as u64..to as u64, &mut buffer).unwrap();
        assert_eq!(buffer[at], bytes[from..to]);
    }
    assert!(bench.disk.flip(&paths::single(content), 70_000, 3));
    assert!(matches!(single.read(65_536..65_540, &mut buffer), Err(ReadError::Damaged(_))));
    assert!(single.read(0..65_536, &mut buffer).is_ok(), "its neighbours still answer");
}

#[test]
fn another_file_under_the_name_is_never_delivered() {
    let bench = bench();
    let content = Position { machine: 1, log_id: 7, sequence: 1 };
    let home = large(&bench, content, b"what the home names");
    let other = Position { sequence: 2, ..content };
    large(&bench, other, b"what it does not...");
    bench.disk.rename(&paths::single(other), &paths::single(content)).unwrap();
    let opened = bench.reader.open_single(&home, content);
    assert!(matches!(opened, Err(ReadError::Unsettled(_))));
    let gone = bench.reader.open_single(&home, other);
    assert!(matches!(gone, Err(ReadError::Unsettled(_))));
}

#[test]
fn a_given_up_upload_leaves_no_file() {
    let bench = bench();
    let content = Position { machine: 1, log_id: 7, sequence: 1 };
    let mut writer = SingleWriter::create(bench.disk.clone(), 3, content).unwrap();
    writer.write(&vec![1; 700_000]).unwrap();
    assert_eq!(bench.disk.list(paths::SINGLES_TMP).unwrap().len(), 1);
    writer.abort();
    assert!(bench.disk.list(paths::SINGLES_TMP).unwrap().is_empty());
}

#[test]
fn a_list_misses_no_live_object_and_shows_no_dead_one() {
    let mut bench = bench();
    let mut live = Vec::new();
    for i in 0..200_usize {
        // Payloads that look like headers must not be listed, nor hide what follows.
        let (id, header) = bench.put(&b"FoSl".repeat(i * 3));
        if i % 3 == 0 {
            bench.write(&SlotHeader { state: State::Deleted, ..header }, &b"FoSl".repeat(i * 3));
        } else {
            live.push(id);
        }
    }
    let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = bench.reader.list(1, cursor, 0, 7).unwrap();
        assert!(page.items.len() <= 7);
        found.extend(page.items.iter().map(|item| item.id));
        pages += 1;
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(found, live);
    assert!(pages >= live.len() / 7);
    let late = bench.reader.list(1, None, 290, 512).unwrap();
    assert!(!late.items.is_empty() && late.items.iter().all(|item| item.modified_ms >= 290));
    assert!(bench.reader.list(2, None, 0, 512).unwrap().items.is_empty());
}

#[test]
fn a_read_cut_short_by_the_page_cache_is_no_not_found() {
    use std::cell::Cell;
    thread_local!(static CUT: Cell<usize> = const { Cell::new(0) });
    let mut bench = bench();
    let (id, header) = bench.put(&[5; 1000]);
    assert_eq!(bench.get(&id).unwrap(), [5; 1000]);
    bench.reader.mode = ReadMode::Nowait;
    bench.reader.nowait = Some(|file, at, buffer| {
        let len = buffer.len().min(CUT.get());
        file.read_full_at(at, &mut buffer[..len]).map(Nowait::Read)
    });
    for cut in 0..used_len(&header) as usize {
        CUT.set(cut);
        let fast = bench.reader.get_fast(&id, &mut Vec::new());
        // Two reads of half the slot each are a whole one.
        let whole = cut as u64 * 2 >= used_len(&header) && matches!(fast, Fast::Done(_));
        assert!(whole || matches!(fast, Fast::WouldBlock), "{cut} bytes: {fast:?}");
    }
    // Nor is a made-up id damage.
    let small = ObjectId { capacity_units: 1, ..id };
    assert!(matches!(bench.get(&small), Err(ReadError::NotFound { .. })));
    CUT.set(usize::MAX);
    assert!(matches!(bench.reader.get_fast(&id, &mut Vec::new()), Fast::Done(_)));
}

#[test]
fn reads_that_may_not_wait_open_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = OsDisk::open(folder.path()).unwrap();
    let mode = disk.probe_nowait().unwrap();
    let mut bench = Bench::new(disk.clone(), Reader::of_os(disk, 3, mode, 1));
    let (id, _) = bench.put(&[5; 4096]);
    let mut buffer = Vec::new();
    assert!(matches!(bench.reader.get_fast(&id, &mut buffer), Fast::WouldBlock));
    assert!(bench.reader.handles().is_empty());
    assert_eq!(bench.get(&id).unwrap(), [5; 4096]);
    match (mode, bench.reader.get_fast(&id, &mut buffer)) {
        (ReadMode::Pool, fast) => assert!(matches!(fast, Fast::WouldBlock)),
        // The file was just written, so it is in the page cache; a file system may still say "not now".
        (_, Fast::Done(Got { content: Content::Buffer(range), .. })) => {
            assert_eq!(buffer[range], [5; 4096]);
        }
        (_, fast) => assert!(matches!(fast, Fast::WouldBlock), "{fast:?}"),
    }
}
