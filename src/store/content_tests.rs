use super::*;
use crate::format::crc::crc32c;
use crate::store::sim_disk::{Fault, Op, Rule, SimDisk, SimOptions};
use crate::store::single_writer::SingleWriter;

const CONTENT: Position = Position { machine: 2, log_id: 0x77, sequence: 0x1_0000_0000_0042 };
const OTHER: Position = Position { sequence: 5, ..CONTENT };
const MOUNT: u8 = 3;

fn reader() -> Reader<SimDisk> {
    Reader::new(SimDisk::new(SimOptions::default()), MOUNT, 2)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((i * i) >> 7) as u8).collect()
}

/// A mirror that has the content, in its place or not yet.
fn source(content: Position, mount: u8, payload: &[u8], placed: bool) -> Reader<SimDisk> {
    let disk = SimDisk::new(SimOptions::default());
    let mut writer = SingleWriter::create(disk.clone(), mount, content).unwrap();
    writer.write(payload).unwrap();
    writer.finish().unwrap();
    if placed {
        let path = paths::single(content);
        disk.create_dir_all(paths::folder(&path)).unwrap();
        disk.rename(&paths::single_tmp(content), &path).unwrap();
    }
    Reader::new(disk, mount, 2)
}

fn raw(source: &Reader<SimDisk>, content: Position) -> Vec<u8> {
    let len = source.content_len(content).unwrap().unwrap();
    let (mut all, mut buffer) = (Vec::new(), Vec::new());
    loop {
        let got = source.read_content(content, all.len() as u64, 70_000, &mut buffer).unwrap();
        if got == 0 {
            break;
        }
        all.extend_from_slice(&buffer[..got]);
    }
    assert_eq!(all.len() as u64, len);
    all
}

/// The temporary file of the content, if there is one.
fn temp(reader: &Reader<SimDisk>) -> Option<u64> {
    reader.disk().stat(&paths::single_tmp(CONTENT)).unwrap()
}

#[test]
fn a_copy_is_the_file_whatever_its_length_and_wherever_it_lay() {
    for len in [0, 1, BLOCK_LEN - 1, BLOCK_LEN, BLOCK_LEN + 1, 16 * BLOCK_LEN, 2_500_000] {
        let payload = bytes(len);
        for placed in [true, false] {
            let source = source(CONTENT, MOUNT, &payload, placed);
            let raw = raw(&source, CONTENT);
            let reader = reader();
            let mut copy = reader.copy_content(CONTENT, len as u64).unwrap();
            assert_eq!(copy.whole_len(), raw.len() as u64);
            for piece in raw.chunks(100_000) {
                copy.write(piece).unwrap();
            }
            let finished = copy.finish().unwrap();
            let (length, crc) = (len as u64, crc32c(&payload));
            assert_eq!(finished, Finished { content: CONTENT, length, crc });
            // It survives a power cut, and is given away in turn.
            let survived = Reader::new(reader.disk().power_cut_with(&[0; 64]), MOUNT, 2);
            assert_eq!(self::raw(&survived, CONTENT), raw);
        }
    }
}

#[test]
fn a_copy_goes_on_where_it_stopped() {
    let payload = bytes(1_000_000);
    let raw = raw(&source(CONTENT, MOUNT, &payload, true), CONTENT);
    let reader = reader();
    let mut rounds = 0;
    loop {
        let mut copy = reader.copy_content(CONTENT, payload.len() as u64).unwrap();
        let at = copy.position() as usize;
        assert_eq!(at, (rounds * 77_777).min(raw.len()));
        if at == raw.len() {
            copy.finish().unwrap();
            break;
        }
        // What is not all here is given to nobody.
        assert_eq!(reader.content_len(CONTENT).unwrap(), None);
        let none = reader.read_content(CONTENT, 0, 10, &mut Vec::new());
        assert!(matches!(none, Err(ReadError::NotFound { .. })));
        copy.write(&raw[at..raw.len().min(at + 77_777)]).unwrap();
        rounds += 1;
    }
    assert_eq!(self::raw(&reader, CONTENT), raw);
}

#[test]
fn no_changed_byte_passes() {
    let payload = bytes(3 * BLOCK_LEN + 100);
    let raw = raw(&source(CONTENT, MOUNT, &payload, true), CONTENT);
    let trailer = payload.len()..raw.len();
    for at in (0..payload.len()).step_by(9973).chain(trailer) {
        let reader = reader();
        let mut copy = reader.copy_content(CONTENT, payload.len() as u64).unwrap();
        let mut bad = raw.clone();
        bad[at] ^= 1 << (at % 8);
        copy.write(&bad).unwrap();
        assert!(matches!(copy.finish(), Err(CopyError::Wrong(_))), "byte {at}");
        assert_eq!(temp(&reader), None, "what is wrong is removed");
    }
}

#[test]
fn the_bytes_of_another_content_do_not_pass() {
    let payload = bytes(200_000);
    for (content, mount) in [(OTHER, MOUNT), (CONTENT, MOUNT + 1)] {
        let raw = raw(&source(content, mount, &payload, true), content);
        let reader = reader();
        let mut copy = reader.copy_content(CONTENT, payload.len() as u64).unwrap();
        copy.write(&raw).unwrap();
        assert!(matches!(copy.finish(), Err(CopyError::Wrong(_))));
        assert_eq!(temp(&reader), None);
        // Nor does a file give away what is not named in its footer.
        let disk = reader.disk();
        let path = paths::single(CONTENT);
        disk.create_dir_all(paths::folder(&path)).unwrap();
        disk.open(&path, Open::Create).unwrap().write_all_at(0, &raw).unwrap();
        assert_eq!(reader.content_len(CONTENT).unwrap(), None);
    }
    // A block of another content in the middle of the right one.
    let good = raw(&source(CONTENT, MOUNT, &payload, true), CONTENT);
    let other = raw(&source(OTHER, MOUNT, &bytes(200_001)[1..], true), OTHER);
    let reader = reader();
    let mut copy = reader.copy_content(CONTENT, payload.len() as u64).unwrap();
    copy.write(&good[..BLOCK_LEN]).unwrap();
    copy.write(&other[BLOCK_LEN..2 * BLOCK_LEN]).unwrap();
    copy.write(&good[2 * BLOCK_LEN..]).unwrap();
    assert!(matches!(copy.finish(), Err(CopyError::Wrong(_))));
}

#[test]
fn neither_too_much_nor_too_little_is_taken() {
    let payload = bytes(100_000);
    let raw = raw(&source(CONTENT, MOUNT, &payload, true), CONTENT);
    let reader = reader();
    let mut copy = reader.copy_content(CONTENT, payload.len() as u64).unwrap();
    copy.write(&raw[..50_000]).unwrap();
    let error = copy.write(&raw).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(copy.position(), 50_000);
    assert!(matches!(copy.finish(), Err(CopyError::Wrong(_))), "half of it");
    assert_eq!(temp(&reader), None);
    // Something longer was left there: it is no beginning of this.
    let mut longer = reader.copy_content(CONTENT, 300_000).unwrap();
    longer.write(&[1; 200_000]).unwrap();
    drop(longer);
    assert_eq!(reader.copy_content(CONTENT, 100_000).unwrap().position(), 0);
    assert!(reader.copy_content(CONTENT, u64::MAX).is_err());
}

#[test]
fn a_copy_that_could_not_be_made_durable_does_not_count() {
    let payload = bytes(100_000);
    let raw = raw(&source(CONTENT, MOUNT, &payload, true), CONTENT);
    for op in [Op::SyncData, Op::SyncDir, Op::Read] {
        let reader = reader();
        let mut copy = reader.copy_content(CONTENT, payload.len() as u64).unwrap();
        copy.write(&raw).unwrap();
        reader.disk().fail_when(Rule::once("singles/tmp", op, Fault::Eio));
        assert!(matches!(copy.finish(), Err(CopyError::Io(_))), "{op:?}");
        assert_eq!(temp(&reader), None);
    }
    // A write that the disk lost is seen when it is read again.
    let reader = reader();
    let mut copy = reader.copy_content(CONTENT, payload.len() as u64).unwrap();
    copy.write(&raw[..70_000]).unwrap();
    reader.disk().fail_when(Rule::once("singles/tmp", Op::Write, Fault::Lost));
    copy.write(&raw[70_000..90_000]).unwrap();
    copy.write(&raw[90_000..]).unwrap();
    assert!(matches!(copy.finish(), Err(CopyError::Wrong(_))));
}

#[test]
fn a_fenced_mount_gives_nothing_away() {
    let source = source(CONTENT, MOUNT, b"x", true);
    source.fence();
    assert!(matches!(source.content_len(CONTENT), Err(ReadError::Fenced)));
    let read = source.read_content(CONTENT, 0, 1, &mut Vec::new());
    assert!(matches!(read, Err(ReadError::Fenced)));
}
