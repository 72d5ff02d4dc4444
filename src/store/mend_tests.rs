//! Repairs, and power cuts at every point of them; what a repair keeps aside; a label that was damaged while nobody looked.

use super::*;
use crate::cluster::coverage::Coverage;
use crate::format::conflict::Conflict;
use crate::format::paths::MountFile;
use crate::format::record::ChunkfileCreated;
use crate::store::archive_check::ArchivedState;
use crate::store::damaged::Stretch;
use crate::store::error::StoreResult;
use crate::store::label_file::{read_label, read_label_at};
use crate::store::log_check::{Durable, SegmentState};
use crate::store::mend::Look;
use crate::store::reader::Content as Found;
use crate::store::renew::{Part, Renewal};
use crate::store::scrub::{Large, LargeCheck, LargeState};
use crate::store::sim_disk::Dice;
use crate::store::slot_copy::SlotCopy;
use crate::store::sync::LogName;

const LOST: &[u8] = b"a version that lost";

fn opened(disk: &SimDisk) -> StoreResult<Mount<SimDisk>> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(9));
    let options = MountOptions { seed: [77; 32], ..options() };
    Mount::open(disk.clone(), options, clock, Arc::new(TokenTable::default()))
}

fn lost() -> Conflict {
    Conflict {
        object: header(900, 64, 20, LOST).object_id(),
        tag: Tag { n: 2, machine: 9, log_id: 3, sequence: 7, ..Tag::default() },
        modified_ms: 1,
        length: LOST.len() as u64,
        payload_crc: crc32c(LOST),
        single: None,
    }
}

/// A mirror that is whole, and one that has copied everything, durably.
struct Pair {
    source: Reader<SimDisk>,
    homes: Vec<(SlotHeader, SlotCopy)>,
    live: BTreeMap<ObjectId, Vec<u8>>,
    disk: SimDisk,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(SimOptions::default());
        let live = live_through(&disk, seed);
        let source = Reader::new(disk, MOUNT, 3);
        let mut homes = Vec::new();
        for id in source.chunkfiles().unwrap() {
            let mut from = Some(0);
            while let Some(at) = from {
                let page = source.summaries(id, at, 50).unwrap();
                from = page.next;
                let all = page.items.into_iter().map(|item| {
                    let home = Address { offset_units: item.offset_units, ..first(id) };
                    source.try_copy(home).unwrap()
                });
                homes.extend(all.filter(|(header, _)| header.state != State::Purged));
            }
        }
        let disk = SimDisk::new(SimOptions::default());
        let mut mount = live_mount(&disk, 2);
        let pair = Self { source, homes, live, disk };
        let copies: Vec<SlotCopy> = pair.homes.iter().map(|(_, copy)| copy.clone()).collect();
        let mirror = Reader::new(pair.disk.clone(), MOUNT, 3);
        for copies in copies.chunks(20) {
            for (content, length) in mount.absorb(&pair.created(), copies).unwrap().needs {
                fetch(&pair.source, &mirror, content, length);
            }
            mount.absorb(&pair.created(), copies).unwrap();
        }
        let mut covered = Coverage::default();
        pair.homes.iter().for_each(|(header, _)| covered.raise(header.edited_at()));
        mount.reached(&covered).unwrap();
        mount.absorb_archived(&lost(), LOST).unwrap();
        while !mount.checkpoint_step().unwrap() {}
        drop(mount);
        // Everything that was written is durable.
        let disk = pair.disk.kill();
        let mut mount = opened(&disk).unwrap();
        while !mount.checkpoint_step().unwrap() {}
        Self { disk, ..pair }
    }

    fn created(&self) -> Vec<crate::format::record::ChunkfileCreated> {
        let files = self.source.chunkfiles().unwrap();
        files.iter().map(|id| self.source.chunkfile_created(*id).unwrap().unwrap()).collect()
    }

    /// What a scrub does with what it finds.
    fn repair(&self, mount: &mut Mount<SimDisk>, disk: &SimDisk) {
        let reader = Reader::new(disk.clone(), MOUNT, 3);
        mount.mend_identity().unwrap();
        for created in self.created() {
            if reader.check_chunkfile(created.id).unwrap() == Some(false) {
                assert!(mount.mend_chunkfile(&created).unwrap());
            }
        }
        for (header, copy) in &self.homes {
            let broken = reader.try_copy(header.address).is_err();
            if broken {
                mount.absorb(&self.created(), std::slice::from_ref(copy)).unwrap();
            }
            let Some(large) = Large::of(header) else { continue };
            if large_state(&reader, LargeCheck::new(large)) != LargeState::Whole {
                fetch(&self.source, &reader, large.content, large.length);
                assert!(mount.mend_content(large.home, large.content).unwrap());
            }
        }
        let name = (lost().object, lost().tag.position());
        if matches!(reader.check_archived(name).unwrap(), ArchivedState::Damaged(_)) {
            assert!(mount.mend_archived(&lost(), LOST).unwrap());
        }
        if reader.check_checkpoint().unwrap() == Some(false) {
            renew(mount, Part::Checkpoint, vec![Stretch::whole(paths::CHECKPOINT)]);
        }
        let segments = reader.log_segments(2).unwrap();
        for (n, segment) in segments.iter().enumerate() {
            let next = segments.get(n + 1).copied();
            let durable = Durable { last: mount.durable(), end: 0 };
            let state = reader.check_segment(*segment, next, durable).unwrap();
            let SegmentState::Damaged(_, places) = state else { continue };
            let aside = |(from, until)| Stretch { path: segment.path(), from, until };
            renew(mount, Part::Binlog, places.into_iter().map(aside).collect());
            break;
        }
    }

    /// Nothing is damaged, nothing is missing.
    fn is_whole(&self, disk: &SimDisk, mount: &mut Mount<SimDisk>, what: &str) {
        let mirror = Reader::new(disk.clone(), MOUNT, 3);
        for id in self.source.chunkfiles().unwrap() {
            assert_eq!(mirror.check_chunkfile(id).unwrap(), Some(true), "{what}");
            assert_eq!(digest(&mirror, id, 1 << 20), digest(&self.source, id, 1 << 20), "{what}");
            let mut from = Some(0);
            while let Some(at) = from {
                let page = mirror.check_slots(id, at, 1 << 20).unwrap();
                assert_eq!(page.suspects, Vec::<u32>::new(), "{what}");
                for large in page.large {
                    let state = large_state(&mirror, LargeCheck::new(large));
                    assert!(large.deleted || state == LargeState::Whole, "{what}: {state:?}");
                }
                from = page.next;
            }
        }
        for (id, bytes) in &self.live {
            assert!(&mount.read_whole(id).unwrap() == bytes, "{what}: {id:?}");
        }
        assert_eq!(mount.stats().counters.live_objects, self.live.len() as u64, "{what}");
        assert_eq!(mirror.archived().unwrap(), [lost()], "{what}");
        assert_eq!(mirror.archived_content(&lost()).unwrap().as_deref(), Some(LOST), "{what}");
        for path in [paths::LABEL, paths::LABEL_COPY] {
            assert_eq!(read_label_at(disk, path).unwrap(), read_label(disk).unwrap(), "{what}");
        }
        assert_ne!(mirror.check_checkpoint().unwrap(), Some(false), "{what}");
    }

    fn home(&self, wanted: impl Fn(&SlotHeader) -> bool) -> SlotHeader {
        let live = |header: &&SlotHeader| header.state == State::Live && wanted(header);
        self.homes.iter().map(|(header, _)| header).find(live).expect("one of that kind").clone()
    }

    /// Every kind of damage: which file, and where.
    fn damages(&self) -> Vec<(&'static str, String, u64)> {
        let inline = self.home(|h| h.body == Body::Inline && h.length > 5000);
        let moved = self.home(|h| matches!(h.body, Body::Slot(_)) && h.length > 0);
        let Body::Slot(target) = moved.body else { unreachable!("asked for") };
        let large = self.home(|h| matches!(h.body, Body::Single(_)));
        let Body::Single(content) = large.body else { unreachable!("asked for") };
        let chunk = |at: Address| paths::chunk(at.chunkfile());
        let log = LogName { machine: 2, log_id: read_label(&self.disk).unwrap().log_id };
        let reader = Reader::new(self.disk.clone(), MOUNT, 3);
        let segments = reader.log_segments(2).unwrap();
        let segment = segments.iter().find(|s| s.own && s.log == log).expect("a segment").path();
        let at = |home: &SlotHeader| home.address.offset();
        let archived = MountFile::Conflict(lost().object, lost().tag.position()).path();
        vec![
            ("content", chunk(inline.address), at(&inline) + inline.payload_offset() as u64 + 9),
            ("header", chunk(inline.address), at(&inline) + 20),
            ("magic of a header", chunk(inline.address), at(&inline)),
            ("moved content", chunk(target), target.offset() + 500),
            ("moved header", chunk(target), target.offset() + 20),
            ("home of a large one", chunk(large.address), at(&large) + 30),
            ("singlefile", paths::single(content), 5),
            ("chunkfile header", chunk(inline.address), 30),
            ("log", segment, 4096 + 70),
            ("checkpoint", paths::CHECKPOINT.to_owned(), 40),
            ("label", paths::LABEL.to_owned(), 30),
            ("copy of the label", paths::LABEL_COPY.to_owned(), 30),
            ("losing version", archived.clone(), 160),
            ("head of a losing version", archived, 50),
        ]
    }
}

fn renew(mount: &mut Mount<SimDisk>, part: Part, aside: Vec<Stretch>) {
    let mut renewal = Renewal::of(part, aside);
    while !mount.renew(&mut renewal).unwrap() {}
}

fn large_state(reader: &Reader<SimDisk>, mut check: LargeCheck) -> LargeState {
    loop {
        match reader.check_large(&mut check, 1 << 20).unwrap().0 {
            LargeState::More => {}
            state => return state,
        }
    }
}

/// Damage of each kind, a repair, and the power cut or the process killed before each of its calls of the disk: nothing wrong is
/// ever read, and the next repair makes all of it whole.
#[test]
fn no_power_cut_in_the_middle_of_a_repair_loses_or_halves_anything() {
    let pair = Pair::new(4);
    let (mut dice, mut cuts) = (Dice::new(1), 0);
    for (what, path, offset) in pair.damages() {
        let disk = pair.disk.fork();
        // A start mends the label; the others are met by it after each cut.
        let mut mount = opened(&disk).unwrap();
        assert!(disk.flip(&path, offset, 2), "{what}: {path} has no byte {offset}");
        disk.start_forks();
        pair.repair(&mut mount, &disk);
        let forks = disk.take_forks();
        pair.is_whole(&disk, &mut mount, what);
        assert!(forks.len() > 2, "{what}: nothing was repaired");
        for (n, fork) in forks.iter().enumerate() {
            for kill in [true, false, false] {
                let cut = if kill { fork.kill() } else { fork.power_cut(&mut dice) };
                let what = format!("{what}, cut at call {n}");
                let mut mount = opened(&cut).unwrap_or_else(|error| panic!("{what}: {error}"));
                for (id, bytes) in &pair.live {
                    // What cannot be read yet is an error, never other bytes.
                    if let Ok(read) = mount.read_whole(id) {
                        assert!(&read == bytes, "{what}: {id:?}");
                    }
                }
                pair.repair(&mut mount, &cut);
                pair.is_whole(&cut, &mut mount, &what);
                cuts += 1;
            }
        }
    }
    println!("{cuts} cuts");
}

#[test]
fn no_repair_throws_damaged_bytes_away() {
    let pair = Pair::new(4);
    for (what, path, offset) in pair.damages() {
        let disk = pair.disk.fork();
        // After the start, which writes the label again.
        let mut mount = opened(&disk).unwrap();
        assert!(disk.flip(&path, offset, 2), "{what}");
        let reader = Reader::new(disk.clone(), MOUNT, 3);
        let before = reader.kept_aside().unwrap();
        let from = offset.saturating_sub(8);
        let mut damaged = [0; 16];
        let len = disk.open(&path, Open::Read).unwrap().read_full_at(from, &mut damaged).unwrap();
        pair.repair(&mut mount, &disk);
        assert!(reader.kept_aside().unwrap().0 > before.0, "{what}: nothing is kept aside");
        let kept = disk.list(paths::DAMAGED).unwrap().into_iter().any(|entry| {
            let file =
                disk.open(&format!("{}/{}", paths::DAMAGED, entry.name), Open::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(entry.len).unwrap()];
            file.read_full_at(0, &mut bytes).unwrap();
            // From where the slot, or the batch, begins.
            let bit = &damaged[8.min(usize::try_from(offset).unwrap())..len];
            bytes.windows(bit.len()).any(|window| window == bit)
        });
        assert!(kept, "{what}: other bytes are kept aside");
    }
}

/// One changed bit is one damage: what lies behind a damaged header is not damaged itself, wherever its home is.
#[test]
fn contents_behind_a_damaged_chunkfile_header_do_not_count_as_damaged() {
    let pair = Pair::new(4);
    let elsewhere = pair.home(|home| match home.body {
        Body::Slot(target) => target.chunkfile() != home.address.chunkfile(),
        _ => false,
    });
    let Body::Slot(target) = elsewhere.body else { unreachable!("asked for") };
    let disk = pair.disk.fork();
    assert!(disk.flip(&paths::chunk(target.chunkfile()), 30, 2));
    let mut mount = opened(&disk).unwrap();
    let look = mount.look_again(elsewhere.address, None).unwrap();
    assert_eq!(look, Look::Hidden(target.chunkfile()));
    let created = pair.created().into_iter().find(|c| c.id == target.chunkfile()).unwrap();
    assert!(mount.mend_chunkfile(&created).unwrap());
    assert_eq!(mount.look_again(elsewhere.address, None).unwrap(), Look::Whole(None));
}

/// Nobody needs an operator for a label that rotted while the daemon was down; without its copy nothing proves whose it is.
#[test]
fn a_label_damaged_while_the_mount_was_closed_is_taken_from_its_copy() {
    let pair = Pair::new(4);
    let label = read_label(&pair.disk).unwrap();
    for offset in [0, 5, 30] {
        let disk = pair.disk.fork();
        assert!(disk.flip(paths::LABEL, offset, 1));
        assert_eq!(read_label(&disk).unwrap(), label, "byte {offset}");
        let mut mount = opened(&disk).unwrap();
        pair.is_whole(&disk, &mut mount, "label");
        let now = read_label(&disk).unwrap();
        assert_eq!((now.log_id, now.mount_uuid), (label.log_id, label.mount_uuid));
        assert_eq!(now.start_count, label.start_count + 1, "no position is given twice");
        assert!(disk.flip(paths::LABEL, 30, 1) && disk.flip(paths::LABEL_COPY, 30, 1));
        drop(mount);
        assert!(opened(&disk).is_err(), "nothing proves whose it is");
        // A label that is gone is not made up: the folder may be another one.
        disk.unlink(paths::LABEL).unwrap();
        assert!(opened(&disk).is_err());
    }
}

/// A mirror may still have the header of a purged object whose place we have given back to the file system.
#[test]
fn no_purged_copy_takes_a_free_place_away() {
    let disk = SimDisk::new(SimOptions::default());
    let mut mount = live_mount(&disk, 1);
    let body = content(&mount, &disk, &[5; 32 << 10]);
    let put = PutRequest { token: Token::default(), body, reserve: None, lane: 0 };
    let id = mount.stage_put(put).unwrap().id;
    mount.commit().unwrap();
    let body = content(&mount, &disk, b"behind it");
    mount.stage_put(PutRequest { token: Token::default(), body, reserve: None, lane: 0 }).unwrap();
    mount.commit().unwrap();
    mount.stage_delete(&id, Token::default(), None).unwrap();
    mount.stage_purge(&id).unwrap();
    mount.commit().unwrap();
    let reader = Reader::new(disk, MOUNT, 3);
    let home = id.home().address;
    let (header, copy) = reader.try_copy(home).unwrap();
    assert_eq!(header.state, State::Purged);
    for _ in 0..10 {
        while !mount.checkpoint_step().unwrap() {}
        while mount.maintain().unwrap() {}
    }
    assert!(reader.try_copy(home).is_err(), "its blocks were given back");
    let created = reader.chunkfile_created(home.chunkfile()).unwrap().unwrap();
    let before = mount.stats();
    assert!(before.hole_bytes >= 32 << 10, "{} bytes are free", before.hole_bytes);
    mount.absorb(&[created], &[copy]).unwrap();
    let after = mount.stats();
    assert_eq!(after.hole_bytes, before.hole_bytes, "free space is gone for nobody");
    assert_eq!(after.counters, before.counters);
}

/// Its file was removed from outside: its objects are not called gone, and it is made again for what the mirrors have of it.
#[test]
fn a_chunkfile_whose_file_is_gone_is_missed_and_made_again() {
    let disk = SimDisk::new(SimOptions::default());
    let mut mount = live_mount(&disk, 1);
    let body = content(&mount, &disk, b"of a file that goes");
    let put = PutRequest { token: Token::default(), body, reserve: None, lane: 0 };
    let id = mount.stage_put(put).unwrap().id;
    while !mount.checkpoint_step().unwrap() {}
    let file = id.home().address.chunkfile();
    let reader = Reader::new(disk.clone(), MOUNT, 3);
    let created = reader.chunkfile_created(file).unwrap().unwrap();
    let lost = |mount: &mut Mount<SimDisk>| mount.lost_chunkfiles(file, 1).unwrap().0;
    assert_eq!(lost(&mut mount), []);
    drop(mount);
    disk.unlink(&paths::chunk(file)).unwrap();
    let mut mount = opened(&disk).unwrap();
    assert_eq!(lost(&mut mount), [file]);
    let reader = Reader::new(disk.clone(), MOUNT, 3);
    let mut buffer = Vec::new();
    assert!(matches!(reader.get(&id, &mut buffer), Err(ReadError::Unsettled(_))));
    assert!(!mount.is_gone(&id).unwrap_or(false), "nothing explains that it is not there");
    assert!(mount.mend_chunkfile(&created).unwrap());
    assert_eq!((lost(&mut mount), reader.check_chunkfile(file).unwrap()), (vec![], Some(true)));
    let never = ChunkfileId { chunk: 77, ..file };
    assert!(!mount.mend_chunkfile(&ChunkfileCreated { id: never, ..created }).unwrap());
    assert_eq!(reader.check_chunkfile(never).unwrap(), None, "what was never here is not made");
}

/// The records behind the checkpoint could not be applied: their places are in use all the same, and nothing new is put there
/// when the header is mended. What they answered is known, too.
#[test]
fn no_object_lies_where_another_one_waits_for_its_chunkfiles_header() {
    let disk = SimDisk::new(SimOptions::default());
    let mut mount = live_mount(&disk, 1);
    let mut ids = Vec::new();
    let put = |mount: &mut Mount<SimDisk>, disk: &SimDisk, ids: &mut Vec<(ObjectId, Vec<u8>)>| {
        let sequence = ids.len() as u64 + 1;
        let bytes = vec![u8::try_from(sequence % 251).unwrap(); 700];
        let body = content(mount, disk, &bytes);
        let token = Token { client: [7; 16], sequence, lowest_unanswered: 1, issued_ms: 1 };
        let id = mount.stage_put(PutRequest { token, body, reserve: None, lane: 0 }).unwrap().id;
        mount.commit().unwrap();
        ids.push((id, bytes));
    };
    (0..10).for_each(|_| put(&mut mount, &disk, &mut ids));
    while !mount.checkpoint_step().unwrap() {}
    (0..10).for_each(|_| put(&mut mount, &disk, &mut ids));
    // One that moves, and one that shrinks: the records behind a checkpoint are of all kinds.
    for (n, len) in [(3, 5000), (4, 10)] {
        let bytes = vec![9; len];
        let body = content(&mount, &disk, &bytes);
        mount.stage_modify(&ids[n].0, Token::default(), body, None).unwrap();
        mount.commit().unwrap();
        ids[n].1 = bytes;
    }
    let file = ids[0].0.home().address.chunkfile();
    let created = Reader::new(disk.clone(), MOUNT, 3).chunkfile_created(file).unwrap().unwrap();
    drop(mount);
    let disk = disk.kill();
    assert!(disk.flip(&paths::chunk(file), 42, 2));
    let tokens = Arc::new(TokenTable::default());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(9));
    let mut mount = Mount::open(disk.clone(), options(), clock, Arc::clone(&tokens)).unwrap();
    let (_, answers, _) = tokens.totals();
    assert_eq!(answers, 20, "a retry is answered, and not done twice");
    assert!(mount.mend_chunkfile(&created).unwrap());
    while !mount.checkpoint_step().unwrap() {}
    drop(mount);
    let disk = disk.kill();
    let mut mount = opened(&disk).unwrap();
    (0..40).for_each(|_| put(&mut mount, &disk, &mut ids));
    let reader = Reader::new(disk.clone(), MOUNT, 3);
    for (id, bytes) in &ids {
        let mut got = Vec::new();
        let found = reader.get(id, &mut got).map(|found| found.content);
        let Ok(Found::Buffer(range)) = found else { panic!("{id:?}: {found:?}") };
        assert_eq!(got[range], *bytes, "{id:?}");
    }
}
