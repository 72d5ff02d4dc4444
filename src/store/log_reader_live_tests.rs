//! Cursors that follow a mount while it is written: one that keeps up, and one that falls behind the log's end.

use super::*;
use crate::format::ids::Token;
use crate::format::label::Label;
use crate::format::record::{KIND_EDIT, Record};
use crate::store::clock::{Clock, ManualClock};
use crate::store::mount::{Body, Mount, PutRequest};
use crate::store::options::MountOptions;
use crate::store::os_disk::OsDisk;
use crate::store::tokens::TokenTable;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

fn options(seed: u64) -> MountOptions {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    MountOptions {
        chunkfile_size: 256 << 10,
        single_file_threshold: 16 << 10,
        reserve_free: 0,
        undelete_window_ms: 0,
        segment_len_max: 192 << 10,
        segment_len_min: 160 << 10,
        checkpoint_bytes: 100 << 10,
        batch_bytes_max: 64 << 10,
        seed: bytes,
        ..MountOptions::default()
    }
}

fn label() -> Label {
    Label::blank("g", "a", LOG.machine, MOUNT, [3; 16], [4; 16])
}

fn open<D: Disk>(disk: &D, seed: u64, new: bool) -> Mount<D> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let tokens = Arc::new(TokenTable::default());
    if new {
        Mount::create(disk.clone(), label(), options(seed), clock, tokens).unwrap()
    } else {
        Mount::open(disk.clone(), options(seed), clock, tokens).unwrap()
    }
}

/// Checks that a slice is what was staged, all of it, and can be applied by itself.
fn check(slice: &LogSlice, truth: &BTreeMap<Sequence, Vec<u8>>) {
    let mut found = BTreeMap::new();
    for record in Records::new(&slice.records) {
        let record = record.unwrap();
        assert!(slice.from < record.sequence && record.sequence <= slice.to);
        if let Ok(Some(Record::Edit(edit))) = Record::decode(record.kind, record.head) {
            assert_eq!(record.kind, KIND_EDIT);
            let written = [Some(&edit.home), edit.target.as_ref()];
            for image in written.into_iter().flatten() {
                let id = image.address.chunkfile();
                let created = slice.chunkfiles.iter().find(|c| c.id == id).expect("its chunkfile");
                let decoded =
                    crate::format::slot::SlotHeader::decode(&image.header, &created.secret);
                assert!(decoded.is_ok_and(|header| header.address == image.address));
            }
            if truth.contains_key(&record.sequence) {
                found.insert(record.sequence, record.payload.to_vec());
            }
        }
    }
    let want = truth.range(slice.from + 1..=slice.to).map(|(s, bytes)| (*s, bytes.clone()));
    assert!(found == want.collect(), "a slice lacks records, or has other bytes");
    let mut ids: Vec<_> = slice.chunkfiles.iter().map(|c| c.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), slice.chunkfiles.len(), "each chunkfile once");
}

fn follow<D: Disk>(disk: &D, seed: u64, steps: u32) {
    println!("FOLIO_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut mount = open(disk, seed, true);
    let reader = Reader::new(disk.clone(), MOUNT, 3);
    let name = LogName { machine: LOG.machine, log_id: mount.label().log_id };
    let (mut near, mut far) = (LogCursor::new(true, name, 0), LogCursor::new(true, name, 0));
    let (mut truth, mut ids, mut gone, mut far_slices) = (BTreeMap::new(), Vec::new(), 0, 0);
    for step in 0..steps {
        let mut payload = vec![0; rng.random_range(0..9000)];
        rng.fill_bytes(&mut payload);
        let body = Body::Inline { crc: crc32c(&payload), bytes: payload.clone().into() };
        let token = Token::default();
        let staged = if ids.len() < 20 || rng.random_bool(0.2) {
            let put = PutRequest { token, body, reserve: None, lane: rng.random_range(0..3) };
            mount.stage_put(put).unwrap()
        } else {
            mount.stage_modify(&ids[rng.random_range(0..ids.len())], token, body, None).unwrap()
        };
        ids.push(staged.id);
        truth.insert(staged.sequence, payload);
        if !(mount.batch_is_full() || rng.random_bool(0.3)) {
            continue;
        }
        // Staging may have written a batch of its own accord; what is not durable is not read.
        let early = mount.durable();
        while let LogRead::Slice(slice) = reader.read_log(&mut near, early, 1 << 20).unwrap() {
            check(&slice, &truth);
        }
        assert_eq!(near.position(), early);
        mount.commit().unwrap();
        if mount.checkpoint_due() {
            mount.finish_checkpoint().unwrap();
        }
        mount.maintain().unwrap();
        let durable = mount.durable();
        let max = rng.random_range(1..60 << 10);
        loop {
            match reader.read_log(&mut near, durable, max).unwrap() {
                LogRead::Slice(slice) => check(&slice, &truth),
                LogRead::End => break,
                LogRead::Gone { .. } | LogRead::Damaged { .. } => panic!("step {step}"),
            }
        }
        assert_eq!(near.position(), durable);
        if rng.random_bool(0.1) {
            match reader.read_log(&mut far, durable, 2000).unwrap() {
                LogRead::Slice(slice) => {
                    check(&slice, &truth);
                    far_slices += 1;
                }
                LogRead::End => {}
                LogRead::Gone { oldest } => {
                    gone += 1;
                    far = LogCursor::new(true, name, oldest);
                }
                LogRead::Damaged { .. } => panic!("step {step}"),
            }
        }
        if rng.random_bool(0.02) {
            drop(mount);
            mount = open(disk, seed + u64::from(step), false);
        }
    }
    assert!(gone > 0 && far_slices > 0, "the slow cursor saw {far_slices} slices, gone {gone}");
}

fn seed() -> u64 {
    std::env::var("FOLIO_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5eed)
}

#[test]
fn a_cursor_follows_a_live_log_through_rotation_recycling_and_restarts() {
    for round in 0..4 {
        follow(&SimDisk::new(SimOptions::default()), seed() + round, 2500);
    }
}

#[test]
fn the_same_on_a_real_file_system() {
    let folder = tempfile::tempdir().unwrap();
    follow(&OsDisk::open(folder.path()).unwrap(), seed(), 2500);
}

/// Readers on threads of their own, while the engine writes: none ever takes a change in flight for damage.
#[test]
fn readers_beside_the_engine_see_no_damage() {
    let seed = seed();
    println!("FOLIO_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let disk = OsDisk::open(folder.path()).unwrap();
    let mut mount = open(&disk, seed, true);
    let name = LogName { machine: LOG.machine, log_id: mount.label().log_id };
    let reader = Reader::new(disk, MOUNT, 3);
    let (durable, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let truth = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for max in [1, 20_000] {
            let (reader, durable, done, truth) = (&reader, &durable, &done, &truth);
            scope.spawn(move || {
                let mut cursor = LogCursor::new(true, name, 0);
                loop {
                    // In this order: what was durable when it ended is read to the end.
                    let last = done.load(SeqCst);
                    let up_to = durable.load(SeqCst);
                    match reader.read_log(&mut cursor, up_to, max) {
                        Ok(LogRead::Slice(slice)) => check(&slice, &truth.lock().unwrap()),
                        Ok(LogRead::End) if last => break,
                        Ok(LogRead::End) | Err(ReadError::Unsettled(_)) => std::thread::yield_now(),
                        Ok(LogRead::Gone { oldest }) => {
                            cursor = LogCursor::new(true, name, oldest);
                        }
                        Ok(LogRead::Damaged { after, before }) => {
                            panic!("{after:x} to {before:x} of {up_to:x} taken for damage")
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                assert_eq!(cursor.position(), durable.load(SeqCst));
            });
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let mut ids = Vec::new();
        for _ in 0..3000 {
            let mut payload = vec![0; rng.random_range(0..9000)];
            rng.fill_bytes(&mut payload);
            let body = Body::Inline { crc: crc32c(&payload), bytes: payload.clone().into() };
            let staged = if ids.len() < 20 {
                let put = PutRequest { token: Token::default(), body, reserve: None, lane: 0 };
                mount.stage_put(put).unwrap()
            } else {
                let id = &ids[rng.random_range(0..ids.len())];
                mount.stage_modify(id, Token::default(), body, None).unwrap()
            };
            ids.push(staged.id);
            truth.lock().unwrap().insert(staged.sequence, payload);
            mount.commit().unwrap();
            durable.store(mount.durable(), SeqCst);
            if mount.checkpoint_due() {
                mount.finish_checkpoint().unwrap();
            }
            mount.maintain().unwrap();
            durable.store(mount.durable(), SeqCst);
        }
        done.store(true, SeqCst);
    });
}
