use super::*;
use crate::format::crc::crc32c;
use crate::format::ids::Sequence;
use crate::format::log::{
    BatchHeader, Records, SEGMENT_HEADER_LEN, SegmentHeader, padding, record_header,
};
use crate::format::paths::{self, MountFile, SegmentName};
use crate::store::disk::{DiskFile, Open};
use crate::store::sim_disk::{Fault, Op, Rule, SimDisk, SimFile, SimOptions};
use std::sync::Arc;

const LOG: LogName = LogName { machine: 5, log_id: 0xabc };
const MOUNT: u8 = 3;

/// (kind, sequence, payload)
type Plain = (u8, Sequence, Vec<u8>);

/// A log written by hand: the read side must not need the engine.
struct Paper {
    disk: SimDisk,
    reader: Reader<SimDisk>,
    own: bool,
    file: Option<SimFile>,
    header: SegmentHeader,
    tail: u64,
    last: Sequence,
    written: Vec<Plain>,
}

fn paper(own: bool) -> Paper {
    let disk = SimDisk::new(SimOptions::default());
    let header = SegmentHeader {
        mount: MOUNT,
        machine: LOG.machine,
        log_id: LOG.log_id,
        first: 0,
        predecessor: 0,
        secret: [0; 16],
        mount_uuid: [1; 16],
        len: 1 << 20,
    };
    let reader = Reader::new(disk.clone(), MOUNT, 4);
    disk.create_dir_all(paths::folder(&path_of(own, 1))).unwrap();
    Paper { disk, reader, own, file: None, header, tail: 0, last: 0, written: Vec::new() }
}

fn path_of(own: bool, first: Sequence) -> String {
    let name = SegmentName { log_id: LOG.log_id, first };
    if own { MountFile::Binlog(name) } else { MountFile::Synclog(LOG.machine, name) }.path()
}

fn payload(sequence: Sequence) -> Vec<u8> {
    (0..sequence * 37 % 90).map(|i| (i * 7 + sequence) as u8).collect()
}

/// Records as they lie in a body.
fn body_bytes(records: &[Plain]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, sequence, payload) in records {
        let head = vec![*sequence as u8; *sequence as usize % 11];
        let crc = crc32c(payload);
        body.extend(record_header(*kind, *sequence, &head, payload.len() as u32, crc));
        body.extend(&head);
        body.extend(payload);
        body.resize(body.len() + padding(32 + head.len() + payload.len()), 0);
    }
    body
}

/// A batch as it lies in a segment.
fn batch_bytes(secret: &[u8; 16], predecessor: Sequence, records: &[Plain]) -> Vec<u8> {
    let body = body_bytes(records);
    let header = BatchHeader {
        log_id: LOG.log_id,
        records: records.len() as u32,
        first: records[0].1,
        last: records[records.len() - 1].1,
        predecessor,
        body_len: body.len() as u32,
        body_crc: crc32c(&body),
    };
    [&header.encode(secret)[..], &body].concat()
}

impl Paper {
    /// Goes on in a new segment.
    fn segment(&mut self, first: Sequence) {
        let file = self.disk.open(&path_of(self.own, first), Open::Create).unwrap();
        file.set_len(1 << 20).unwrap();
        self.activate(file, first);
    }

    /// Goes on in the file of an old segment.
    fn recycle(&mut self, old: Sequence, first: Sequence) {
        let path = path_of(self.own, first);
        self.disk.rename(&path_of(self.own, old), &path).unwrap();
        let file = self.disk.open(&path, Open::Write).unwrap();
        self.activate(file, first);
    }

    fn activate(&mut self, file: SimFile, first: Sequence) {
        self.header.first = first;
        self.header.predecessor = self.last;
        self.header.secret = [first as u8 ^ 0x5a; 16];
        file.write_all_at(0, &self.header.encode()).unwrap();
        self.file = Some(file);
        self.tail = SEGMENT_HEADER_LEN as u64;
    }

    fn batch(&mut self, records: &[(u8, Sequence)]) {
        let records: Vec<Plain> = records.iter().map(|(k, s)| (*k, *s, payload(*s))).collect();
        self.raw_batch(&records);
    }

    fn raw_batch(&mut self, records: &[Plain]) {
        let bytes = batch_bytes(&self.header.secret, self.last, records);
        self.file.as_ref().unwrap().write_all_at(self.tail, &bytes).unwrap();
        self.tail += (bytes.len() as u64).next_multiple_of(64);
        self.last = records[records.len() - 1].1;
        self.written.extend_from_slice(records);
    }

    fn cursor(&self, after: Sequence) -> LogCursor {
        LogCursor::new(self.own, LOG, after)
    }

    /// Everything that can be read behind `after`, mending over what cannot: records, and the holes.
    fn read_all(&self, after: Sequence, max: usize) -> (Vec<Plain>, Vec<(Sequence, Sequence)>) {
        let (mut cursor, mut found, mut holes) = (self.cursor(after), Vec::new(), Vec::new());
        let mut at = after;
        for _ in 0..1000 {
            match self.reader.read_log(&mut cursor, self.last, max).unwrap() {
                LogRead::Slice(slice) => {
                    assert_eq!(slice.from, at, "a slice begins where the last one ended");
                    assert!(slice.to > at);
                    at = slice.to;
                    found.extend(plain(&slice));
                }
                LogRead::End => {
                    assert_eq!(at, self.last, "the end came too early");
                    return (found, holes);
                }
                LogRead::Gone { oldest } | LogRead::Damaged { before: oldest, .. } => {
                    assert!(oldest > at, "no way on");
                    holes.push((at, oldest));
                    cursor = self.cursor(oldest);
                    at = oldest;
                }
            }
        }
        panic!("the log never ends");
    }

    fn shipped(&self) -> Vec<Plain> {
        self.written.iter().filter(|(kind, ..)| *kind < 0x80).cloned().collect()
    }
}

/// The records of a slice; every byte of it is as it was written.
fn plain(slice: &LogSlice) -> Vec<Plain> {
    let records = Records::new(&slice.records);
    let list: Vec<Plain> = records
        .map(|record| record.unwrap())
        .map(|record| (record.kind, record.sequence, record.payload.to_vec()))
        .collect();
    assert!(body_bytes(&list) == slice.records, "other bytes than were written");
    assert!(list.iter().all(|(_, sequence, _)| (slice.from + 1..=slice.to).contains(sequence)));
    list
}

/// Three segments with two batches each; the last record of the log is local.
fn six_batches(own: bool) -> Paper {
    let mut log = paper(own);
    let start = 1 << 48;
    log.segment(start + 1);
    log.batch(&[(1, start + 1), (1, start + 2), (9, start + 3)]);
    log.batch(&[(1, start + 4)]);
    log.segment(start + 5);
    log.batch(&[(0x80, start + 5), (1, start + 6), (0xff, start + 7), (2, start + 8)]);
    // The daemon started anew.
    let start = 2 << 48;
    log.batch(&[(1, start + 1), (1, start + 2)]);
    log.segment(start + 3);
    log.batch(&[(1, start + 4)]);
    log.batch(&[(1, start + 5), (0x81, start + 6)]);
    log
}

#[test]
fn records_of_this_disk_only_never_leave_it_and_hold_nobody_up() {
    for own in [true, false] {
        let log = six_batches(own);
        for max in [0, 1, 100, 300, 1 << 20, usize::MAX] {
            assert_eq!(log.read_all(0, max), (log.shipped(), Vec::new()), "max {max}");
        }
        let mut local = paper(own);
        local.segment(1);
        local.batch(&[(0x80, 1), (0xff, 2)]);
        let read = local.reader.read_log(&mut local.cursor(0), 2, 100).unwrap();
        let LogRead::Slice(slice) = read else { panic!("{read:?}") };
        assert_eq!((slice.from, slice.to, slice.records.len()), (0, 2, 0));
    }
}

#[test]
fn a_slice_is_never_longer_than_asked_for_unless_one_record_is() {
    let mut log = paper(true);
    log.segment(1);
    let records: Vec<Plain> = (1..=30).map(|s| (1, s, vec![s as u8; 1000])).collect();
    log.raw_batch(&records);
    for max in [1, 2500, 5000] {
        let mut cursor = log.cursor(0);
        let mut records = 0;
        while let LogRead::Slice(slice) = log.reader.read_log(&mut cursor, 30, max).unwrap() {
            assert!(slice.records.len() <= max.max(1100), "{} for {max}", slice.records.len());
            records += plain(&slice).len();
            assert_eq!(cursor.position(), slice.to);
        }
        assert_eq!(records, 30);
    }
    assert_eq!(log.read_all(17, 1 << 20).0, log.written[17..], "cut off inside a batch");
}

#[test]
fn nothing_is_read_beyond_what_is_durable() {
    let log = six_batches(true);
    let all: Vec<Sequence> = log.written.iter().map(|(_, sequence, _)| *sequence).collect();
    for (index, up_to) in all.iter().enumerate() {
        let mut cursor = log.cursor(0);
        let mut found = Vec::new();
        while let LogRead::Slice(slice) = log.reader.read_log(&mut cursor, *up_to, 150).unwrap() {
            assert!(slice.to <= *up_to);
            found.extend(plain(&slice));
        }
        assert_eq!(cursor.position(), *up_to);
        let want: Vec<Plain> =
            log.written[..=index].iter().filter(|(kind, ..)| *kind < 0x80).cloned().collect();
        assert_eq!(found, want);
        // The same cursor goes on from there.
        while let LogRead::Slice(slice) = log.reader.read_log(&mut cursor, log.last, 150).unwrap() {
            found.extend(plain(&slice));
        }
        assert_eq!(found, log.shipped());
    }
}

#[test]
fn what_was_recycled_is_gone_and_never_somebody_elses() {
    let mut log = six_batches(true);
    let (first, second) = ((1 << 48) + 1, (1 << 48) + 5);
    let mut warm = log.cursor(0);
    let read = log.reader.read_log(&mut warm, log.last, 1).unwrap();
    assert!(matches!(read, LogRead::Slice(_)));
    let start = log.last;
    log.recycle(first, start + 1);
    log.batch(&[(1, start + 1)]);
    // The warm cursor is in the file that was overwritten; the bytes behind the new batch are the old ones still.
    for _ in 0..40 {
        let last = log.last;
        let read = log.reader.read_log(&mut warm, last, 1).unwrap();
        let gone = LogRead::Gone { oldest: second - 1 };
        match read {
            LogRead::Slice(slice) => {
                assert!(log.written.ends_with(&plain(&slice)) || slice.to < second)
            }
            other => assert_eq!(other, gone),
        }
        log.batch(&[(1, last + 1), (1, last + 2)]);
    }
    let (found, holes) = log.read_all(0, 1 << 20);
    assert_eq!(holes, [(0, second - 1)]);
    assert_eq!(found, log.shipped()[4..]);
    // A cursor at the tail goes on into the recycled file.
    let mut tail = log.cursor(start);
    let read = log.reader.read_log(&mut tail, log.last, 1 << 20).unwrap();
    assert!(matches!(read, LogRead::Slice(slice) if slice.to == log.last));
}

#[test]
fn a_log_that_is_not_there_is_gone_and_no_error() {
    for own in [true, false] {
        let log = paper(own);
        let read = log.reader.read_log(&mut log.cursor(3), 9, 100).unwrap();
        assert_eq!(read, LogRead::Gone { oldest: 9 });
        assert_eq!(log.reader.read_log(&mut log.cursor(9), 9, 100).unwrap(), LogRead::End);
        let log = six_batches(own);
        let other = LogName { log_id: 7, ..LOG };
        let mut cursor = LogCursor::new(own, other, 0);
        assert_eq!(log.reader.read_log(&mut cursor, 9, 9).unwrap(), LogRead::Gone { oldest: 9 });
        // Removed while a cursor stands in it: the descriptor still reads, and then the next segment.
        let mut warm = log.cursor(0);
        log.reader.read_log(&mut warm, log.last, 1).unwrap();
        log.disk.unlink(&path_of(own, (1 << 48) + 1)).unwrap();
        assert!(matches!(log.reader.read_log(&mut warm, log.last, 1).unwrap(), LogRead::Slice(_)));
        let (found, holes) = log.read_all(0, 100);
        assert_eq!((found, holes), (log.shipped().split_off(4), vec![(0, (1 << 48) + 4)]));
        log.reader.fence();
        assert!(matches!(log.reader.read_log(&mut warm, 1, 1), Err(ReadError::Fenced)));
    }
}

/// Reads everything with one byte changed: what comes is what was written, what is missing is said to be missing.
fn judge(log: &Paper, what: &str, most: usize) {
    let (found, holes) = log.read_all(0, 120);
    let inside = |s: Sequence| holes.iter().any(|(after, to)| *after < s && s <= *to);
    let want: Vec<Plain> = log.shipped().into_iter().filter(|(_, s, _)| !inside(*s)).collect();
    assert_eq!(found, want, "{what}: {holes:x?}");
    let lost = log.shipped().len() - found.len();
    assert!(lost <= most, "{what}: {lost} records lost, {holes:x?}");
}

#[test]
fn no_changed_byte_is_delivered_nor_loses_more_than_its_batch() {
    let log = six_batches(true);
    for first in [(1 << 48) + 1, (1 << 48) + 5, (2 << 48) + 3] {
        let path = path_of(true, first);
        let file = log.disk.open(&path, Open::Write).unwrap();
        let batches = SEGMENT_HEADER_LEN..SEGMENT_HEADER_LEN + 640;
        for at in (0..76).chain(batches) {
            let bit = (at * 5 % 8) as u8;
            // A cursor that stands in the segment when the damage comes sees it as well.
            let mut warm = log.cursor(0);
            log.reader.read_log(&mut warm, log.last, 1).unwrap();
            assert!(log.disk.flip(&path, at as u64, bit));
            judge(&log, &format!("{path} byte {at}"), if at < 76 { 4 } else { 3 });
            let mut found = plain_rest(&log, &mut warm);
            found.retain(|record| !log.written.contains(record));
            assert!(found.is_empty(), "{found:?}");
            let mut byte = [0];
            file.read_full_at(at as u64, &mut byte).unwrap();
            file.write_all_at(at as u64, &[byte[0] ^ (1 << bit)]).unwrap();
        }
    }
    assert_eq!(log.read_all(0, 120), (log.shipped(), Vec::new()));
}

/// What a cursor delivers until it stops.
fn plain_rest(log: &Paper, cursor: &mut LogCursor) -> Vec<Plain> {
    let mut found = Vec::new();
    while let LogRead::Slice(slice) = log.reader.read_log(cursor, log.last, 100).unwrap() {
        found.extend(plain(&slice));
    }
    found
}

#[test]
fn a_missing_segment_and_a_lost_tail_are_damage() {
    let mut log = six_batches(false);
    log.disk.unlink(&path_of(false, (1 << 48) + 5)).unwrap();
    let read = {
        let mut cursor = log.cursor((1 << 48) + 4);
        log.reader.read_log(&mut cursor, log.last, 100).unwrap()
    };
    let hole = ((1 << 48) + 4, (2 << 48) + 2);
    assert_eq!(read, LogRead::Damaged { after: hole.0, before: hole.1 });
    assert_eq!(log.read_all(0, 100).1, [hole]);
    // Said to be durable, and not there.
    let end = log.last;
    log.last += 10;
    assert_eq!(log.read_all(0, 100).1, [hole, (end, end + 10)]);
}

#[test]
fn a_gap_in_the_chain_is_not_read_over() {
    let mut log = paper(false);
    log.segment(1);
    log.batch(&[(1, 1), (1, 2)]);
    // What is between came as state: the next slice was received from there on.
    log.last = 50;
    log.batch(&[(1, 51), (1, 52)]);
    for max in [1, 1 << 20] {
        assert_eq!(log.read_all(0, max), (log.written.clone(), vec![(2, 50)]));
    }
}

#[test]
fn a_segment_between_two_lives_is_nobody() {
    let log = six_batches(true);
    // Renamed to be recycled; its new header is not written yet.
    let (first, next) = (path_of(true, (1 << 48) + 1), path_of(true, log.last + 1));
    log.disk.rename(&first, &next).unwrap();
    let rest = log.shipped().split_off(4);
    assert_eq!(log.read_all(0, 1), (rest.clone(), vec![(0, (1 << 48) + 4)]));
    let last = (2 << 48) + 4;
    assert_eq!(log.read_all(last, 1), (rest[rest.len() - 1..].to_vec(), Vec::new()));
}

#[test]
fn a_lost_sector_costs_its_batches_and_no_more() {
    let mut log = paper(true);
    log.segment(1);
    for number in 0..100 {
        let records: Vec<Plain> = (1..=2).map(|i| (1, number * 2 + i, vec![9; 1500])).collect();
        log.raw_batch(&records);
    }
    let bad = 20 * 4096..21 * 4096_u64;
    log.disk.fail_when(Rule {
        matches: Arc::new(move |call| {
            call.op == Op::Read && call.offset < bad.end && call.offset + call.len > bad.start
        }),
        ..Rule::always("", Op::Read, Fault::Eio)
    });
    let (found, holes) = log.read_all(0, 1 << 20);
    assert!(found.len() >= 194, "{} records, {holes:?}", found.len());
    assert!(!holes.is_empty() && found.iter().all(|record| log.written.contains(record)));
    // A medium that reads nothing at all is an error, and not damage.
    log.disk.fail_when(Rule::always("binlog/", Op::Read, Fault::Eio));
    log.disk.fail_when(Rule {
        matches: Arc::new(|call| call.op == Op::Read),
        ..Rule::always("", Op::Read, Fault::Eio)
    });
    assert!(log.reader.read_log(&mut log.cursor(0), log.last, 100).is_err());
}

#[test]
fn following_the_tail_costs_one_read() {
    let mut log = six_batches(true);
    let mut cursor = log.cursor(0);
    plain_rest(&log, &mut cursor);
    for _ in 0..20 {
        let last = log.last;
        log.batch(&[(1, last + 1), (1, last + 2), (1, last + 3)]);
        log.disk.start_trace();
        let read = log.reader.read_log(&mut cursor, log.last, 1 << 20).unwrap();
        assert!(matches!(read, LogRead::Slice(slice) if plain(&slice).len() == 3));
        let calls = log.disk.take_trace();
        assert_eq!(calls.iter().filter(|call| call.op == Op::Read).count(), 1, "{calls:?}");
        assert_eq!(calls.len(), 1, "{calls:?}");
    }
}

#[path = "log_reader_live_tests.rs"]
mod live;
#[path = "log_reader_race_tests.rs"]
mod race;
