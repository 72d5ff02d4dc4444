//! No byte that a disk gives back, no id and no file name panics or is taken for what it is not (P3, P7).
//!
//! Every case takes good bytes, breaks them, and makes the checksums right again, so that the fields behind them
//! are reached too. 200,000 cases each by default. Ten million, and a failing seed again:
//!
//! ```text
//! FOLIO_FUZZ_CASES=10000000 cargo test --release --test disk_fuzz -- --nocapture
//! FOLIO_FUZZ_SEED=123 cargo test --test disk_fuzz
//! ```
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test that reads golden files")]

use folio::format::checkpoint::Checkpoint;
use folio::format::chunkfile::ChunkfileHeader;
use folio::format::crc::{crc32c, mac64};
use folio::format::envelope::{ENVELOPE_LEN, Kind as Envelope};
use folio::format::file_id::{FileId, ObjectId, ObjectKind};
use folio::format::label::Label;
use folio::format::log::{BatchHeader, Records, SegmentHeader};
use folio::format::memory::Memory;
use folio::format::paths::MountFile;
use folio::format::record::Record;
use folio::format::single::{FOOTER_LEN, Footer};
use folio::format::slot::SlotHeader;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SECRET: [u8; 16] = *b"0123456789abcdef";
const NUMBERS: [u64; 9] = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// Runs the cases; the seed of a run that failed stands in its output.
fn campaign(name: &str, mut case: impl FnMut(&mut StdRng)) {
    let number = |key: &str| std::env::var(key).ok().and_then(|text| text.parse::<u64>().ok());
    let cases = number("FOLIO_FUZZ_CASES").unwrap_or(200_000);
    let seed = number("FOLIO_FUZZ_SEED").unwrap_or(20_261_122);
    println!("{name}: {cases} cases, FOLIO_FUZZ_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..cases {
        case(&mut random);
    }
}

/// A few changes of the kinds that break parsers: flips, numbers at their borders, cuts, doubled and moved parts.
fn break_it(bytes: &mut Vec<u8>, random: &mut StdRng) {
    for _ in 0..random.random_range(1..5) {
        if bytes.is_empty() {
            bytes.push(random.random());
        }
        let at = random.random_range(0..bytes.len());
        let other = random.random_range(0..bytes.len());
        match random.random_range(0..8) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => bytes.truncate(at),
            3 => {
                bytes.insert(at, random.random());
            }
            4 => bytes.swap(at, other),
            5 => {
                let part = bytes[at.min(other)..at.max(other)].to_vec();
                bytes.splice(at..at, part.into_iter().take(64));
            }
            _ => {
                let number = NUMBERS[random.random_range(0..NUMBERS.len())].to_le_bytes();
                let len = [1, 2, 4, 8][random.random_range(0..4)].min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&number[..len]);
            }
        }
    }
}

fn golden(name: &str) -> Vec<u8> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read(root.join("tests/golden").join(format!("{name}.bin"))).unwrap()
}

fn object(random: &mut StdRng) -> ObjectId {
    let capacity_units = random.random_range(1..=1 << 24);
    ObjectId {
        kind: if random.random() { ObjectKind::Chunk } else { ObjectKind::Single },
        machine: random.random(),
        mount: random.random(),
        log_id: random.random_range(1..=u32::MAX),
        sequence: random.random_range(1..=u64::MAX),
        created_s: random.random(),
        chunk: random.random(),
        offset_units: random.random_range(0..=u32::MAX - capacity_units),
        capacity_units,
        cookie: random.random(),
    }
}

#[test]
fn broken_ids_are_refused_and_never_panic() {
    campaign("ids", |random| {
        let ext = if random.random() { Some("txt") } else { None };
        let id = FileId::new("books", "a", object(random), ext).unwrap();
        let mut text = id.to_string().into_bytes();
        break_it(&mut text, random);
        if let Ok(text) = std::str::from_utf8(&text)
            && let Ok(read) = text.parse::<FileId>()
        {
            // Taken only if nothing was broken after all.
            assert_eq!(read, id);
            assert_eq!(read.to_string(), text);
        }
        let mut bytes = id.object.encode().to_vec();
        break_it(&mut bytes, random);
        if let Ok(mut bytes) = <[u8; 45]>::try_from(bytes) {
            let crc = crc32c(&bytes[..41]);
            bytes[41..].copy_from_slice(&crc.to_le_bytes());
            if let Ok(read) = ObjectId::decode(&bytes) {
                assert_eq!(read.encode(), bytes);
            }
        }
        let position = id.object.creation();
        let mut path = MountFile::Conflict(id.object, position).path().into_bytes();
        break_it(&mut path, random);
        if let Ok(path) = std::str::from_utf8(&path)
            && let Some(file) = MountFile::parse(path)
        {
            assert_eq!(file.path(), path);
        }
    });
}

#[test]
fn broken_disks_are_refused_and_never_panic() {
    let envelopes =
        [("label-v1.0", *b"FoLa"), ("memory-v1.0", *b"FoMe"), ("chunkfile-v1.0", *b"FoCh")]
            .map(|(name, magic)| (golden(name), magic));
    let [slot, segment, batch, checkpoint, single] =
        ["slot-v1", "segment-v1.0", "batch-v1.0", "checkpoint-v1.0", "single-v1.0"].map(golden);
    campaign("disk structures", |random| {
        let (good, magic) = &envelopes[random.random_range(0..envelopes.len())];
        let mut body = good[ENVELOPE_LEN..good.len().min(512)].to_vec();
        break_it(&mut body, random);
        let sealed = Envelope { magic: *magic, what: "test" }.seal(&body);
        if let Ok(label) = Label::decode(&sealed) {
            assert_eq!(Label::decode(&label.encode()), Ok(label));
        }
        if let Ok(memory) = Memory::decode(&sealed) {
            assert_eq!(Memory::decode(&memory.encode()), Ok(memory));
        }
        if let Ok(header) = ChunkfileHeader::decode(&sealed) {
            assert_eq!(ChunkfileHeader::decode(&header.encode()), Ok(header));
        }
        match random.random_range(0..5) {
            0 => broken_slot(slot.clone(), random),
            1 => broken_segment(segment[..128].to_vec(), random),
            2 => broken_batch(batch.clone(), random),
            3 => broken_checkpoint(checkpoint.clone(), random),
            _ => broken_footer(single[single.len() - FOOTER_LEN..].to_vec(), random),
        }
    });
}

fn seal(bytes: &mut [u8], at: usize, check: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + check.len()) {
        place.copy_from_slice(check);
    }
}

fn broken_slot(mut bytes: Vec<u8>, random: &mut StdRng) {
    break_it(&mut bytes, random);
    if bytes.len() >= 192 && random.random_ratio(7, 8) {
        let end = (192 + usize::from(bytes[9]) * 16).min(bytes.len());
        let mac = mac64(&SECRET, &[&bytes[..184], &bytes[192..end]]);
        seal(&mut bytes, 184, &mac.to_le_bytes());
    }
    if let Ok(header) = SlotHeader::decode(&bytes, &SECRET) {
        let _payload = header.payload(&bytes);
        let again = header.encode(&SECRET);
        assert_eq!(SlotHeader::decode(&again, &SECRET).as_ref(), Ok(&header));
    }
}

fn broken_segment(mut bytes: Vec<u8>, random: &mut StdRng) {
    break_it(&mut bytes, random);
    let crc = crc32c(&bytes[..72.min(bytes.len())]);
    seal(&mut bytes, 72, &crc.to_le_bytes());
    if let Ok(header) = SegmentHeader::decode(&bytes) {
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }
}

fn broken_batch(mut bytes: Vec<u8>, random: &mut StdRng) {
    break_it(&mut bytes, random);
    let mac = mac64(&SECRET, &[&bytes[..56.min(bytes.len())]]);
    seal(&mut bytes, 56, &mac.to_le_bytes());
    if let Ok(header) = BatchHeader::decode(&bytes, &SECRET) {
        assert!(header.stride() >= 64 && header.stride().is_multiple_of(64));
    }
    // The first record's head gets a right checksum, so that its lengths are believed.
    let mut body = bytes.get(64..).unwrap_or_default().to_vec();
    if let Some(len) = body.get(4..8).map(|len| u32::from_le_bytes(len.try_into().unwrap()))
        && let Some(head) = body.get(32..32 + len as usize)
    {
        let crc = crc32c(&[&body[..28], head].concat());
        seal(&mut body, 28, &crc.to_le_bytes());
    }
    let mut seen = 0;
    for record in Records::new(&body) {
        seen += 1;
        if let Ok(record) = record
            && let Ok(Some(read)) = Record::decode(record.kind, record.head)
        {
            let mut again = Vec::new();
            read.encode(&mut again);
            assert_eq!(Record::decode(read.kind(), &again), Ok(Some(read)));
        }
    }
    assert!(seen <= body.len() / 32 + 1);
}

fn broken_checkpoint(mut bytes: Vec<u8>, random: &mut StdRng) {
    break_it(&mut bytes, random);
    if bytes.len() >= 20 {
        let len = bytes.len();
        seal(&mut bytes, 8, &(len as u64).to_le_bytes());
        let crc = crc32c(&bytes[..len - 4]);
        seal(&mut bytes, len - 4, &crc.to_le_bytes());
    }
    if let Ok(checkpoint) = Checkpoint::decode(&bytes) {
        assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
    }
}

fn broken_footer(mut bytes: Vec<u8>, random: &mut StdRng) {
    break_it(&mut bytes, random);
    let crc = crc32c(&bytes[..76.min(bytes.len())]);
    seal(&mut bytes, 76, &crc.to_le_bytes());
    let Some(footer) = bytes.first_chunk::<FOOTER_LEN>() else { return };
    for file_length in [65_546 + 88, random.random()] {
        if let Ok(footer) = Footer::decode(footer, file_length) {
            let all = footer.blocks(0..u64::MAX);
            assert_eq!(footer.payload_range(all.clone()), 0..footer.length);
            assert_eq!(footer.table_range(all).end + FOOTER_LEN as u64, file_length);
        }
    }
}
