//! Runs: slots in one piece, from a source that may be damaged or being edited, over a wire that may lie, to a mount that may
//! have more than was thought, or may be cut off at any time.

use super::*;
use crate::store::absorb::Absorbed;
use crate::store::slot_run::SlotRun;
use bytes::Bytes;

/// Bytes of a chunkfile that a run is made of here: a few slots.
const READ: u64 = 24 << 10;

/// A mount with objects of 3000 bytes each, and their ids in the order of their places.
fn source_of(count: u64) -> (SimDisk, Mount<SimDisk>, Vec<ObjectId>) {
    let disk = SimDisk::new(SimOptions::default());
    let mut mount = live_mount(&disk, 1);
    let mut ids = Vec::new();
    for number in 0..count {
        let body = content(&mount, &disk, &[number as u8; 3000]);
        let put = PutRequest { token: Token::default(), body, reserve: None, lane: 0 };
        ids.push(mount.stage_put(put).unwrap().id);
        mount.commit().unwrap();
    }
    (disk, mount, ids)
}

fn refilling(disk: &SimDisk) -> Mount<SimDisk> {
    let mut mount = live_mount(disk, 2);
    mount.save_recovery(&state(Phase::PullData)).unwrap();
    mount
}

fn runs(source: &Reader<SimDisk>, id: ChunkfileId) -> Vec<SlotRun> {
    let (mut all, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let run = source.copy_run(id, at, READ).unwrap();
        assert!(run.next.is_none_or(|next| next > at), "it goes on");
        from = run.next;
        all.push(run);
    }
    all
}

/// Takes everything by runs, and one by one what they only name; stops after `most` of them.
fn copy_by_runs(copier: &Copier<'_>, mount: &mut Mount<SimDisk>, to: &SimDisk, most: usize) {
    let mirror = Reader::new(to.clone(), MOUNT, 3);
    let mut count = 0;
    for created in &copier.created {
        for run in runs(copier.source, created.id) {
            if count == most {
                return;
            }
            count += 1;
            assert_eq!(run.damaged, Vec::<u32>::new());
            let absorbed = mount.absorb_run(created, &Bytes::from(run.bytes)).unwrap();
            assert_eq!((absorbed.refused, absorbed.needs), (0, Vec::new()));
            for home in run.others {
                let home = Address { offset_units: home, ..first(created.id) };
                let copy = [copier.source.copy_slot(home).unwrap()];
                for (content, length) in mount.absorb_blank(&copier.created, &copy).unwrap().needs {
                    fetch(copier.source, &mirror, content, length);
                }
                let again = mount.absorb_blank(&copier.created, &copy).unwrap();
                assert_eq!((again.refused, again.needs), (0, Vec::new()));
            }
        }
    }
}

#[test]
fn nothing_is_lost_or_torn_by_a_power_cut_in_the_middle_of_runs() {
    let from = std::env::var("FOLIO_SEED").ok().and_then(|text| text.parse().ok());
    let mut hurt = 0;
    for seed in from.map_or(0..24, |seed: u64| seed..seed + 1) {
        println!("FOLIO_SEED={seed}");
        let disk = SimDisk::new(SimOptions::default());
        let live = live_through(&disk, seed);
        let source = Reader::new(disk, MOUNT, 3);
        let copier = Copier::new(&source);
        let mut dice = Dice::new(seed);
        let copy = SimDisk::new(SimOptions::default());
        let mut mount = refilling(&copy);
        let most = usize::try_from(dice.below(60)).unwrap();
        copy_by_runs(&copier, &mut mount, &copy, most);
        let cut = if dice.chance(25) { copy.kill() } else { copy.power_cut(&mut dice) };
        let mut mount = reopen(&cut, 2);
        let mirror = Reader::new(cut.clone(), MOUNT, 3);
        let files = mirror.chunkfiles().unwrap();
        hurt += u32::from(files.iter().any(|id| !damaged(&mirror, *id).is_empty()));
        // What came is told apart; what did not come at all comes by runs.
        copier.copy(&mut mount, &cut, 10);
        copy_by_runs(&copier, &mut mount, &cut, usize::MAX);
        copier.copy(&mut mount, &cut, usize::MAX);
        mount.save_recovery(&state(Phase::CatchUp)).unwrap();
        is_the_same(&source, &cut);
        let cut = cut.power_cut(&mut dice);
        let mut mount = reopen(&cut, 2);
        mount.end_recovery().unwrap();
        is_the_same(&source, &cut);
        assert_eq!(mount.stats().counters.live_objects, live.len() as u64);
        for (id, bytes) in live {
            assert!(mount.read_whole(&id).unwrap() == bytes, "{id:?}");
        }
    }
    assert!(hurt > 0 || from.is_some(), "no power cut hurt anything");
}

#[test]
fn whole_slots_go_in_runs_and_neither_through_the_log_nor_one_by_one() {
    let (disk, mount, _) = source_of(OBJECTS);
    drop(mount);
    let source = Reader::new(disk, MOUNT, 3);
    let copier = Copier::new(&source);
    for created in &copier.created {
        assert!(runs(&source, created.id).iter().all(|run| run.others.is_empty()));
    }
    let copy = SimDisk::new(SimOptions::default());
    let mut mount = refilling(&copy);
    let before = mount.stats().records;
    copy_by_runs(&copier, &mut mount, &copy, usize::MAX);
    is_the_same(&source, &copy);
    assert_eq!(mount.stats().records, before);
    assert_eq!(mount.stats().counters.live_objects, OBJECTS);
}

/// Flips a bit of a file.
fn flip(disk: &SimDisk, id: ChunkfileId, at: u64) {
    let file = disk.open(&paths::chunk(id), Open::Write).unwrap();
    let mut byte = [0];
    file.read_full_at(at, &mut byte).unwrap();
    file.write_all_at(at, &[byte[0] ^ 4]).unwrap();
}

#[test]
fn a_damaged_slot_is_never_sent_with_its_neighbours() {
    let (disk, mount, ids) = source_of(30);
    drop(mount);
    let [content, header] = [ids[3].home().address, ids[17].home().address];
    let id = content.chunkfile();
    assert_eq!(id, header.chunkfile());
    flip(&disk, id, content.offset() + 2000);
    flip(&disk, id, header.offset() + 150);
    let source = Reader::new(disk, MOUNT, 3);
    let created = source.chunkfile_created(id).unwrap().unwrap();
    let (mut others, mut broken) = (Vec::new(), Vec::new());
    let copy = SimDisk::new(SimOptions::default());
    let mut mount = refilling(&copy);
    let mut taken = 0;
    for run in runs(&source, id) {
        others.extend(run.others);
        broken.extend(run.damaged);
        let absorbed = mount.absorb_run(&created, &run.bytes.into()).unwrap();
        assert_eq!(absorbed.refused, 0);
        taken += absorbed.taken;
    }
    assert_eq!((others, broken), (vec![content.offset_units], vec![header.offset_units]));
    let here = ids.iter().filter(|id| id.home().address.chunkfile() == content.chunkfile());
    assert_eq!(taken, here.count() as u64 - 2);
    let mirror = Reader::new(copy, MOUNT, 3);
    let marks = marks(&mirror, id);
    assert!(
        !marks.contains_key(&content.offset_units) && !marks.contains_key(&header.offset_units)
    );
    assert_eq!(damaged(&mirror, id), BTreeSet::new());
}

#[test]
fn a_run_that_comes_late_takes_nothing_back() {
    let (disk, mut mount, ids) = source_of(20);
    let source = Reader::new(disk.clone(), MOUNT, 3);
    let id = ids[0].home().address.chunkfile();
    let created = source.chunkfile_created(id).unwrap().unwrap();
    let old = runs(&source, id);
    let body = content(&mount, &disk, &[200; 2500]);
    mount.stage_modify(&ids[5], Token::default(), body, None).unwrap();
    mount.commit().unwrap();
    let new = runs(&source, id);
    for refilled in [true, false] {
        let copy = SimDisk::new(SimOptions::default());
        let mut mirror = if refilled { refilling(&copy) } else { live_mount(&copy, 2) };
        let mut take = |runs: &[SlotRun]| {
            let taken = runs.iter().map(|run| {
                let absorbed = mirror.absorb_run(&created, &run.bytes.clone().into()).unwrap();
                assert_eq!(absorbed.refused, 0);
                absorbed.taken
            });
            taken.sum::<u64>()
        };
        assert_eq!(take(&new[..1]), take(&new[..1]) + take(&old[..1]) + new_slots(&new[0]));
        assert!(take(&new) > 0);
        assert_eq!(take(&old), 0, "older, or known");
        assert!(mirror.read_whole(&ids[5]).unwrap() == [200; 2500]);
        let count = ids.iter().filter(|at| at.home().address.chunkfile() == id).count();
        assert_eq!(mirror.stats().counters.live_objects, count as u64);
    }
}

/// How many slots of 3000 bytes, more or less, there are in a run.
fn new_slots(run: &SlotRun) -> u64 {
    run.bytes.len() as u64 / 3000
}

/// The same run twice in one frame, cut off anywhere, with any bit flipped, under the name of another chunkfile.
#[test]
fn a_lying_run_writes_nothing_that_is_not_at_its_source() {
    let (disk, mount, ids) = source_of(12);
    drop(mount);
    let source = Reader::new(disk, MOUNT, 3);
    let id = ids[0].home().address.chunkfile();
    let created = source.chunkfile_created(id).unwrap().unwrap();
    let whole = source.copy_run(id, 0, 1 << 20).unwrap().bytes;
    let theirs = marks(&source, id);
    let attempt = |bytes: Vec<u8>, created: &ChunkfileCreated| -> (Absorbed, usize) {
        let copy = SimDisk::new(SimOptions::default());
        let mut mount = refilling(&copy);
        let absorbed = mount.absorb_run(created, &bytes.into()).unwrap();
        let mirror = Reader::new(copy, MOUNT, 3);
        let ours = marks(&mirror, created.id);
        assert!(ours.iter().all(|(home, mark)| theirs.get(home) == Some(mark)), "what is there");
        assert_eq!(damaged(&mirror, created.id), BTreeSet::new());
        assert_eq!(mount.stats().counters.live_objects, ours.len() as u64);
        (absorbed, ours.len())
    };
    let (absorbed, count) = attempt(whole.clone(), &created);
    assert_eq!((absorbed.refused, absorbed.taken, count), (0, 12, 12));
    let twice = [whole.clone(), whole.clone()].concat();
    let (absorbed, count) = attempt(twice, &created);
    assert_eq!((absorbed.taken, absorbed.known, count), (12, 12, 12));
    for cut in (1..whole.len()).step_by(97) {
        let (absorbed, count) = attempt(whole[..cut].to_vec(), &created);
        let slot = whole.len() / 12;
        assert_eq!((absorbed.refused, count), (u64::from(cut % slot != 0), cut / slot), "{cut}");
    }
    for at in (0..whole.len()).step_by(53) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let (absorbed, count) = attempt(bytes, &created);
        assert!(absorbed.refused > 0 && count < 12, "{at}");
    }
    let other = ChunkfileCreated { id: ChunkfileId { chunk: 77, ..id }, ..created };
    assert_eq!(attempt(whole.clone(), &other).1, 0);
    let foreign = ChunkfileCreated { secret: [3; 16], ..created };
    assert_eq!(attempt(whole, &foreign).1, 0);
}

/// A copy of a slot takes the place of an older version, and what a restart replays says so: also twice.
#[test]
fn no_restart_counts_a_copied_version_twice() {
    let (disk, mut mount, ids) = source_of(3);
    let source = Reader::new(disk.clone(), MOUNT, 3);
    let home = ids[1].home().address;
    let created = [source.chunkfile_created(home.chunkfile()).unwrap().unwrap()];
    let copy = SimDisk::new(SimOptions::default());
    let mut mirror = live_mount(&copy, 2);
    let absorb = |mirror: &mut Mount<SimDisk>| {
        let absorbed = mirror.absorb(&created, &[source.copy_slot(home).unwrap()]).unwrap();
        assert_eq!((absorbed.taken, absorbed.refused), (1, 0));
    };
    absorb(&mut mirror);
    while !mirror.checkpoint_step().unwrap() {}
    let body = content(&mount, &disk, &[200; 2500]);
    mount.stage_modify(&ids[1], Token::default(), body, None).unwrap();
    mount.commit().unwrap();
    absorb(&mut mirror);
    let expected = mirror.stats().counters;
    assert_eq!((expected.live_objects, expected.live_bytes), (1, 2500));
    mount.stage_delete(&ids[1], Token::default(), None).unwrap();
    mount.commit().unwrap();
    for deleted in [false, true] {
        if deleted {
            absorb(&mut mirror);
        }
        let expected = mirror.stats().counters;
        drop(mirror);
        mirror = reopen(&copy, 2);
        assert_eq!(mirror.stats().counters, expected, "{deleted}");
    }
}
