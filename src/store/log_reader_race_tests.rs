//! A segment is recycled, or removed, between any two calls of one search.

use super::*;
use crate::store::disk::{Disk, Entry, Space};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

type Meddling = Box<dyn FnOnce(&SimDisk) + Send>;

/// A disk to which something is done just before one of its reading calls.
#[derive(Clone)]
struct Meddled {
    disk: SimDisk,
    left: Arc<AtomicU32>,
    meddling: Arc<Mutex<Option<Meddling>>>,
}

struct MeddledFile {
    file: SimFile,
    disk: Meddled,
}

impl Meddled {
    fn call(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0
            && let Some(meddling) = self.meddling.lock().unwrap().take()
        {
            meddling(&self.disk);
        }
    }
}

impl Disk for Meddled {
    type File = MeddledFile;

    fn open(&self, path: &str, how: Open) -> io::Result<MeddledFile> {
        self.call();
        Ok(MeddledFile { file: self.disk.open(path, how)?, disk: self.clone() })
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.link(from, to)
    }
    fn unlink(&self, path: &str) -> io::Result<()> {
        self.disk.unlink(path)
    }
    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        self.call();
        self.disk.list(path)
    }
    fn stat(&self, path: &str) -> io::Result<Option<u64>> {
        self.disk.stat(path)
    }
    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
}

impl DiskFile for MeddledFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.call();
        self.file.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<usize> {
        self.file.write_at(offset, data)
    }
    fn write_vectored_at(&self, offset: u64, data: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.file.write_vectored_at(offset, data)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.write_back(offset, len)
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.allocate(offset, len)
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

/// What happens to the two oldest segments: the first becomes the newest, the second is removed.
fn meddling(log: &Paper) -> Meddling {
    let (first, second) = ((1 << 48) + 1, (1 << 48) + 5);
    let next = log.last + 1;
    let secret = [0x77; 16];
    let header = SegmentHeader { first: next, predecessor: log.last, secret, ..log.header.clone() };
    let records: Vec<Plain> = (next..next + 30).map(|s| (1, s, payload(s))).collect();
    let batch = batch_bytes(&secret, log.last, &records);
    Box::new(move |disk| {
        disk.rename(&path_of(true, first), &path_of(true, next)).unwrap();
        let file = disk.open(&path_of(true, next), Open::Write).unwrap();
        file.write_all_at(0, &header.encode()).unwrap();
        file.write_all_at(SEGMENT_HEADER_LEN as u64, &batch).unwrap();
        disk.unlink(&path_of(true, second)).unwrap();
    })
}

#[test]
fn a_segment_recycled_in_the_middle_of_a_search_is_not_taken_for_damage() {
    for after in [0, (1 << 48) + 2, (1 << 48) + 4, (1 << 48) + 6, (2 << 48) + 2] {
        for call in 0..16 {
            let log = six_batches(true);
            let left = Arc::new(AtomicU32::new(call));
            let disk = Meddled {
                disk: log.disk.clone(),
                left,
                meddling: Arc::new(Mutex::new(Some(meddling(&log)))),
            };
            let reader = Reader::new(disk, MOUNT, 4);
            let (mut cursor, mut at) = (log.cursor(after), after);
            loop {
                match reader.read_log(&mut cursor, log.last, 1).unwrap() {
                    LogRead::Slice(slice) => {
                        assert!(plain(&slice).iter().all(|r| log.written.contains(r)));
                        at = slice.to;
                    }
                    LogRead::End => break,
                    LogRead::Gone { oldest } => {
                        assert_eq!(oldest, (2 << 48) + 2, "the third segment is the oldest now");
                        (at, cursor) = (oldest, log.cursor(oldest));
                    }
                    LogRead::Damaged { after, before } => {
                        panic!("call {call} from {at:x}: {after:x} to {before:x}")
                    }
                }
            }
            assert_eq!(cursor.position(), log.last);
        }
    }
}
