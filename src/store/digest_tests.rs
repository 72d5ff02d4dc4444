use super::*;
use crate::format::chunkfile::ChunkfileHeader;
use crate::format::crc::crc32c;
use crate::format::file_id::{ObjectId, ObjectKind};
use crate::format::ids::{Position, Tag, Token, UNIT, Version};
use crate::format::label::Label;
use crate::format::slot::{HEADER_UNITS, Role, Stay, units};
use crate::store::clock::{Clock, ManualClock};
use crate::store::disk::{DiskFile, Open};
use crate::store::mount::{Body as Content, Mount, PutRequest, TempSingle};
use crate::store::options::MountOptions;
use crate::store::sim_disk::{Fault, Op, Rule, SimDisk, SimFile, SimOptions};
use crate::store::single_writer::SingleWriter;
use crate::store::tokens::TokenTable;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;

const SECRET: [u8; 16] = [9; 16];
const CHUNK: ChunkfileId = ChunkfileId { machine: 1, log_id: 7, chunk: 2 };
const MOUNT: u8 = 3;
const SIZE: u32 = 65_536;

/// A mirror with one chunkfile, written by hand.
struct Mirror {
    disk: SimDisk,
    file: SimFile,
    reader: Reader<SimDisk>,
}

fn mirror() -> Mirror {
    let disk = SimDisk::new(SimOptions::default());
    let file = chunkfile(&disk, CHUNK, SIZE, SECRET);
    Mirror { reader: Reader::new(disk.clone(), MOUNT, 4), disk, file }
}

fn chunkfile(disk: &SimDisk, id: ChunkfileId, size_units: u32, secret: [u8; 16]) -> SimFile {
    let path = paths::chunk(id);
    disk.create_dir_all(paths::folder(&path)).unwrap();
    let file = disk.open(&path, Open::Create).unwrap();
    let (mount, mount_uuid, created_ms) = (MOUNT, [1; 16], 0);
    let header = ChunkfileHeader { id, mount, mount_uuid, size_units, secret, created_ms };
    file.write_all_at(0, &header.encode()).unwrap();
    file.set_len(u64::from(size_units) * UNIT).unwrap();
    file
}

fn header(number: u64, at: u32, capacity_units: u32, payload: &[u8]) -> SlotHeader {
    let tag = Tag { n: number, machine: 1, log_id: 7, sequence: 1000 + number, ..Tag::default() };
    SlotHeader {
        role: Role::Home,
        state: State::Live,
        body: Body::Inline,
        mount: MOUNT,
        creation: Position { machine: 1, log_id: 7, sequence: number },
        cookie: number * 77,
        address: address(at),
        version: Version { tag, vector: [tag.position()].into_iter().collect() },
        token_client: [0; 16],
        token_sequence: 0,
        kind: ObjectKind::Chunk,
        created_s: 5,
        birth_units: capacity_units,
        modified_ms: 10 * number,
        capacity_units,
        payload_crc: crc32c(payload),
        length: payload.len() as u64,
        stay: Stay::default(),
    }
}

const fn address(offset_units: u32) -> Address {
    Address { machine: 1, log_id: 7, chunk: 2, offset_units }
}

impl Mirror {
    fn write(&self, header: &SlotHeader, payload: &[u8]) {
        let bytes = header.encode(&SECRET);
        self.file.write_all_vectored_at(header.address.offset(), &[&bytes, payload]).unwrap();
    }

    fn digest(&self) -> ChunkDigest {
        digest(&self.reader, CHUNK, 1 << 30)
    }

    fn damaged(&self) -> Vec<Address> {
        let mut cursor = DigestCursor::new(CHUNK, true);
        while self.reader.digest_step(&mut cursor, 1 << 20).unwrap().is_none() {}
        cursor.take_damaged()
    }

    /// The same objects on every mirror: inline, deleted, moved, large, moved and then deleted, and one with
    /// a long vector.
    fn objects(&self) -> Vec<SlotHeader> {
        let small = header(1, 64, 20, b"one");
        self.write(&small, b"one");
        let mut dead = header(2, 100, 30, &[2; 900]);
        (dead.state, dead.version.tag.life) = (State::Deleted, 1);
        self.write(&dead, &[2; 900]);
        let long = vec![3; 100_000];
        let mut home = header(3, 300, HEADER_UNITS, &long);
        home.body = Body::Slot(address(5000));
        self.write(&home, b"");
        let target = SlotHeader {
            role: Role::Target,
            body: Body::Inline,
            address: address(5000),
            capacity_units: units(100_500) as u32,
            ..home.clone()
        };
        self.write(&target, &long);
        let content = Position { machine: 1, log_id: 7, sequence: 44 };
        let mut writer = SingleWriter::create(self.disk.clone(), MOUNT, content).unwrap();
        writer.write(&[4; 200_000]).unwrap();
        writer.finish().unwrap();
        let path = paths::single(content);
        self.disk.create_dir_all(paths::folder(&path)).unwrap();
        self.disk.rename(&paths::single_tmp(content), &path).unwrap();
        let mut large = header(4, 400, HEADER_UNITS, &[4; 200_000]);
        large.body = Body::Single(content);
        self.write(&large, b"");
        let mut wide = header(5, 40_000, 40, b"wide");
        let others = (2..40).map(|machine| Position { machine, log_id: 1, sequence: 9 });
        wide.version.vector.extend(others);
        wide.version.vector.sort_unstable();
        self.write(&wide, b"wide");
        let target = header(6, 50_000, 99, &[6; 5000]);
        let target = SlotHeader { role: Role::Target, ..target };
        self.write(&target, &[6; 5000]);
        let mut moved = header(6, 460, HEADER_UNITS, &[6; 5000]);
        (moved.state, moved.body) = (State::Deleted, Body::Slot(address(50_000)));
        (moved.version.tag.life, moved.version.tag.n) = (1, 7);
        self.write(&moved, b"");
        vec![small, dead, home, large, moved, wide]
    }

    /// What a long life leaves between the objects.
    fn litter(&self, rng: &mut StdRng) {
        let mut noise = vec![0; 30_000];
        rng.fill_bytes(&mut noise);
        self.file.write_all_at(500 * UNIT, &noise).unwrap();
        for number in 0..50 {
            let at = rng.random_range(1000..4500);
            let mut purged = header(100 + number, at, rng.random_range(3..3000), b"");
            (purged.state, purged.body) = (State::Purged, Body::None);
            self.write(&purged, b"");
            let mut stale = header(200 + number, rng.random_range(8000..30_000), 90, b"x");
            stale.role = Role::Target;
            self.write(&stale, b"x");
            // A user's bytes, a header of another file, and a header that stands elsewhere.
            let foreign = header(300 + number, rng.random_range(8000..30_000), 90, b"x");
            let bytes = foreign.encode(&[1; 16]);
            self.file.write_all_at(foreign.address.offset(), &bytes).unwrap();
            let elsewhere = rng.random_range(30_100..39_000) * UNIT;
            self.file.write_all_at(elsewhere, &foreign.encode(&SECRET)).unwrap();
        }
        // Inside a slot, behind its content, an older tenant's live header.
        let inside = header(400, 64 + 10, 5, b"older");
        self.write(&inside, b"older");
    }
}

fn digest<D: Disk>(reader: &Reader<D>, id: ChunkfileId, step: u64) -> ChunkDigest {
    let mut cursor = DigestCursor::new(id, false);
    loop {
        if let Some(digest) = reader.digest_step(&mut cursor, step).unwrap() {
            return digest;
        }
    }
}

#[test]
fn mirrors_with_the_same_objects_agree_whatever_lies_between_them() {
    let plain = mirror();
    plain.objects();
    let digest = plain.digest();
    assert_eq!((digest.objects, digest.newest_ms), (6, 60));
    for seed in 0..20 {
        println!("seed {seed}");
        let other = mirror();
        other.litter(&mut StdRng::seed_from_u64(seed));
        other.objects();
        if seed % 2 == 0 {
            // Older tenants inside a slot in use are jumped over.
            other.write(&header(400, 64 + 10, 5, b"older"), b"older");
        }
        assert_eq!(other.digest(), digest);
        assert_eq!(self::digest(&other.reader, CHUNK, 1), digest, "in small steps");
        assert_eq!(other.damaged(), []);
    }
    let empty = Reader::new(SimDisk::new(SimOptions::default()), MOUNT, 4);
    let nothing = self::digest(&empty, CHUNK, 1 << 20);
    assert_eq!(nothing, mirror().digest(), "no chunkfile is like an empty one");
    assert_ne!(nothing.fingerprint, digest.fingerprint);
    assert_eq!(empty.summaries(CHUNK, 0, 9).unwrap(), SummaryPage::default());
}

#[test]
fn no_difference_goes_unseen() {
    let plain = mirror();
    let objects = plain.objects();
    let digest = plain.digest().fingerprint;
    let changes: [fn(&mut SlotHeader); 9] = [
        |h| h.cookie ^= 1,
        |h| h.creation.sequence += 1,
        |h| h.created_s += 1,
        |h| h.version.tag.n += 1,
        |h| h.version.tag.life ^= 2,
        |h| h.state = if h.state == State::Live { State::Deleted } else { State::Live },
        |h| h.state = State::Purged,
        |h| h.payload_crc ^= 1,
        |h| h.length += 1,
    ];
    for object in &objects {
        for (index, change) in changes.iter().enumerate() {
            let mut other = object.clone();
            change(&mut other);
            plain.write(&other, b"");
            assert_ne!(plain.digest().fingerprint, digest, "change {index}");
            plain.write(object, b"");
        }
        // The capacity and the client's token are no part of what an object is.
        let mut same = object.clone();
        (same.token_sequence, same.capacity_units) = (9, object.capacity_units + 1);
        plain.write(&same, b"");
        assert_eq!(plain.digest().fingerprint, digest);
        plain.write(object, b"");
        // Lost.
        plain.file.write_all_at(object.address.offset(), &[0; 4]).unwrap();
        assert_ne!(plain.digest().fingerprint, digest);
        plain.write(object, b"");
    }
    assert_eq!(plain.digest().fingerprint, digest);
}

#[test]
fn damaged_contents_are_listed_and_not_copied() {
    let mirror = mirror();
    let objects = mirror.objects();
    assert_eq!(mirror.damaged(), []);
    let chunk = paths::chunk(CHUNK);
    let content = Position { machine: 1, log_id: 7, sequence: 44 };
    let footer = (paths::single(content), 200_000 + 16 + 30);
    let damage = [
        (0, (chunk.clone(), objects[0].address.offset() + 193)),
        (1, (chunk.clone(), objects[1].address.offset() + 700)),
        (2, (chunk.clone(), 5000 * UNIT + 50_000)),
        (2, (chunk, 5000 * UNIT + 20)),
        (3, footer),
    ];
    for (index, (path, at)) in damage {
        let home = objects[index].address;
        let digest = mirror.digest();
        assert!(mirror.disk.flip(&path, at, 3));
        assert_eq!(mirror.digest(), digest, "the headers are right");
        assert_eq!(mirror.damaged(), [home], "object {index}");
        match (index, mirror.reader.copy_slot(home)) {
            // A delete carries no content: the tombstone itself is given away.
            (1, Ok(copy)) => assert!(copy.payload.is_empty() && copy.target.is_none()),
            (3, Ok(_)) | (0 | 2, Err(ReadError::Unsettled(_))) => {}
            (_, other) => panic!("object {index}: {other:?}"),
        }
        let file = mirror.disk.open(&path, Open::Write).unwrap();
        let mut byte = [0];
        file.read_full_at(at, &mut byte).unwrap();
        file.write_all_at(at, &[byte[0] ^ 8]).unwrap();
    }
    assert_eq!(mirror.damaged(), []);
    // A lost sector in a content, and a large object that is gone.
    let bad = 5000 * UNIT + 40_960;
    mirror.disk.fail_when(Rule {
        matches: Arc::new(move |call| {
            call.op == Op::Read && call.offset <= bad && bad < call.offset + call.len
        }),
        ..Rule::always("", Op::Read, Fault::Eio)
    });
    mirror.disk.unlink(&paths::single(content)).unwrap();
    assert_eq!(mirror.damaged(), [objects[2].address, objects[3].address]);
    let missing = mirror.reader.copy_slot(address(90));
    assert!(matches!(missing, Err(ReadError::NotFound { .. })), "{missing:?}");
}

#[test]
fn a_page_names_every_home_with_its_target_and_the_purged_ones_too() {
    let mirror = mirror();
    let objects = mirror.objects();
    let mut purged = header(9, 45_000, 12, b"");
    (purged.state, purged.body) = (State::Purged, Body::None);
    mirror.write(&purged, b"");
    let (mut found, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let page = mirror.reader.summaries(CHUNK, at, 2).unwrap();
        assert!(page.items.len() <= 2);
        found.extend(page.items);
        from = page.next;
    }
    let want: Vec<SlotHeader> = objects.iter().cloned().chain([purged]).collect();
    assert_eq!(found.len(), want.len());
    for (summary, header) in found.iter().zip(&want) {
        assert_eq!(summary.offset_units, header.address.offset_units);
        assert_eq!(summary.home.as_slice(), header.encode(&SECRET));
        assert_eq!(summary.target.is_some(), matches!(header.body, Body::Slot(_)));
        let copy = mirror.reader.copy_slot(header.address).unwrap();
        assert_eq!((copy.home.header, copy.target), (summary.home.clone(), summary.target.clone()));
    }
    // A target of another version is no target.
    let target = found[2].target.clone().unwrap();
    let mut other = SlotHeader::decode(&target.header, &SECRET).unwrap();
    other.version.tag.n += 1;
    mirror.write(&other, b"");
    assert_eq!(mirror.reader.summaries(CHUNK, 300, 1).unwrap().items[0].target, None);
}

fn options() -> MountOptions {
    MountOptions {
        chunkfile_size: 256 << 10,
        single_file_threshold: 32 << 10,
        reserve_free: 0,
        undelete_window_ms: 1 << 40,
        ..MountOptions::default()
    }
}

fn live_mount(disk: &SimDisk, machine: u16) -> Mount<SimDisk> {
    let label = Label::blank("g", "a", machine, MOUNT, [machine as u8; 16], [4; 16]);
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(5));
    let options = MountOptions { seed: [machine as u8; 32], ..options() };
    Mount::create(disk.clone(), label, options, clock, Arc::new(TokenTable::default())).unwrap()
}

fn content(mount: &Mount<SimDisk>, disk: &SimDisk, bytes: &[u8]) -> Content {
    let crc = crc32c(bytes);
    if bytes.len() as u64 <= options().single_file_threshold {
        return Content::Inline { bytes: bytes.to_vec().into(), crc };
    }
    let content = mount.content_ids().next();
    let mut writer = SingleWriter::create(disk.clone(), MOUNT, content).unwrap();
    writer.write(bytes).unwrap();
    let done = writer.finish().unwrap();
    Content::Single(TempSingle { content, length: done.length, crc })
}

/// Edits a mount at random; what is live in it.
fn live_through(disk: &SimDisk, seed: u64) -> BTreeMap<ObjectId, Vec<u8>> {
    let mut mount = live_mount(disk, 1);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut live: BTreeMap<ObjectId, Vec<u8>> = BTreeMap::new();
    for _ in 0..600 {
        let mut bytes = vec![0; rng.random_range(0..5) * rng.random_range(0..9000)];
        rng.fill_bytes(&mut bytes);
        let body = content(&mount, disk, &bytes);
        let some = live.keys().nth(rng.random_range(0..live.len().max(1))).copied();
        match (some, rng.random_range(0..10)) {
            (Some(id), 0..6) => {
                mount.stage_modify(&id, Token::default(), body, None).unwrap();
                live.insert(id, bytes);
            }
            (Some(id), 6) => {
                mount.stage_delete(&id, Token::default(), None).unwrap();
                if rng.random_bool(0.5) {
                    mount.stage_purge(&id).unwrap();
                }
                live.remove(&id);
            }
            _ => {
                let put = PutRequest { token: Token::default(), body, reserve: None, lane: 0 };
                live.insert(mount.stage_put(put).unwrap().id, bytes);
            }
        }
        mount.commit().unwrap();
        mount.maintain().unwrap();
    }
    live
}

#[test]
fn a_mirror_made_from_copies_of_slots_has_the_same_digests() {
    let seed = std::env::var("FOLIO_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    println!("FOLIO_SEED={seed}");
    let disk = SimDisk::new(SimOptions::default());
    let live = live_through(&disk, seed);
    let source = Reader::new(disk, MOUNT, 3);
    let copy = SimDisk::new(SimOptions::default());
    let mut mount = live_mount(&copy, 2);
    let mirror = Reader::new(copy, MOUNT, 3);
    let files = source.chunkfiles().unwrap();
    assert!(files.len() > 2);
    let created: Vec<_> =
        files.iter().map(|id| source.chunkfile_created(*id).unwrap().unwrap()).collect();
    let (mut homes, mut moved, mut deleted) = (0, 0, 0);
    for id in &files {
        let mut from = Some(0);
        while let Some(at) = from {
            let page = source.summaries(*id, at, 10).unwrap();
            from = page.next;
            let mut copies = Vec::new();
            for summary in page.items {
                let home = Address { offset_units: summary.offset_units, ..first(*id) };
                let (header, slot) = source.try_copy(home).unwrap();
                assert_eq!((&slot.home.header, &slot.target), (&summary.home, &summary.target));
                let single = matches!(header.body, Body::Single(_));
                if let Some(bytes) = live.get(&header.object_id()).filter(|_| !single) {
                    assert!(slot.payload == bytes, "other bytes");
                }
                homes += u32::from(header.state == State::Live);
                deleted += u32::from(header.state == State::Deleted);
                moved += u32::from(slot.target.is_some());
                copies.push(slot);
            }
            for (content, length) in mount.absorb(&created, &copies).unwrap().needs {
                fetch(&source, &mirror, content, length);
            }
            let absorbed = mount.absorb(&created, &copies).unwrap();
            assert_eq!((absorbed.refused, absorbed.needs), (0, Vec::new()));
        }
    }
    assert_eq!(homes as usize, live.len(), "every live object once");
    assert!(moved > 0 && deleted > 0, "{moved} moved, {deleted} deleted");
    assert_eq!(mirror.chunkfiles().unwrap(), files);
    for id in &files {
        let mut cursor = DigestCursor::new(*id, true);
        let verified = loop {
            if let Some(digest) = mirror.digest_step(&mut cursor, 300_000).unwrap() {
                break digest;
            }
        };
        assert_eq!(verified, digest(&source, *id, 1 << 20), "{id:?}");
        assert_eq!(cursor.take_damaged(), []);
    }
    for (id, bytes) in live {
        assert!(mount.read_whole(&id).unwrap() == bytes, "{id:?}");
    }
}

/// Takes the content of a large object from a mirror.
fn fetch(source: &Reader<SimDisk>, to: &Reader<SimDisk>, content: Position, length: u64) {
    let (mut copy, mut buffer) = (to.copy_content(content, length).unwrap(), Vec::new());
    assert_eq!(source.content_len(content).unwrap(), Some(copy.whole_len()));
    while copy.position() < copy.whole_len() {
        let got = source.read_content(content, copy.position(), 10_000, &mut buffer).unwrap();
        copy.write(&buffer[..got]).unwrap();
    }
    assert_eq!(copy.finish().unwrap().length, length);
}

fn first(id: ChunkfileId) -> Address {
    Address { machine: id.machine, log_id: id.log_id, chunk: id.chunk, offset_units: 0 }
}

#[path = "absorb_blank_tests.rs"]
mod absorb_blank;

#[path = "mend_tests.rs"]
mod mend;
