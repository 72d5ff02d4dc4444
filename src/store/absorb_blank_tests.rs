//! Copies that bypass the log, and power cuts in the middle of them.

use super::*;
use crate::format::ids::MachineId;
use crate::format::record::ChunkfileCreated;
use crate::format::recovery_state::{Cause, Phase, RecoveryState};
use crate::store::sim_disk::Dice;
use crate::store::slot_copy::SlotCopy;
use std::collections::{BTreeSet, HashMap};

const OBJECTS: u64 = 100;

fn state(phase: Phase) -> RecoveryState {
    RecoveryState { phase, ..RecoveryState::begin(Cause::Blank, 0) }
}

fn reopen(disk: &SimDisk, machine: MachineId) -> Mount<SimDisk> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(9));
    let options = MountOptions { seed: [machine as u8 + 7; 32], ..options() };
    Mount::open(disk.clone(), options, clock, Arc::new(TokenTable::default())).unwrap()
}

/// What a pull does: it copies what is not here, or cannot be read here; some pages of it only, if told so.
struct Copier<'a> {
    source: &'a Reader<SimDisk>,
    created: Vec<ChunkfileCreated>,
}

impl<'a> Copier<'a> {
    fn new(source: &'a Reader<SimDisk>) -> Self {
        let files = source.chunkfiles().unwrap();
        let created = files.iter().map(|id| source.chunkfile_created(*id).unwrap().unwrap());
        Self { source, created: created.collect() }
    }

    /// How many pages of copies were taken; stops after `most` of them.
    fn copy(&self, mount: &mut Mount<SimDisk>, disk: &SimDisk, most: usize) -> usize {
        let mirror = Reader::new(disk.clone(), MOUNT, 3);
        let mut pages = 0;
        for created in &self.created {
            let id = created.id;
            let (ours, damaged) = (marks(&mirror, id), damaged(&mirror, id));
            let theirs = marks(self.source, id);
            let wanted = theirs
                .iter()
                .filter(|(home, mark)| ours.get(home) != Some(mark) || damaged.contains(home));
            let mut wanted: Vec<u32> = wanted.map(|(home, _)| *home).collect();
            wanted.sort_unstable();
            for homes in wanted.chunks(9) {
                if pages == most {
                    return pages;
                }
                pages += 1;
                let copies = homes.iter().map(|home| {
                    self.source.copy_slot(Address { offset_units: *home, ..first(id) }).unwrap()
                });
                let copies: Vec<SlotCopy> = copies.collect();
                let absorbed = mount.absorb_blank(&self.created, &copies).unwrap();
                for (content, length) in absorbed.needs {
                    fetch(self.source, &mirror, content, length);
                }
                let again = mount.absorb_blank(&self.created, &copies).unwrap();
                assert_eq!((again.refused, again.needs), (0, Vec::new()));
            }
        }
        pages
    }
}

fn marks(reader: &Reader<SimDisk>, id: ChunkfileId) -> HashMap<u32, u64> {
    let (mut all, mut from) = (HashMap::new(), Some(0));
    while let Some(at) = from {
        let page = reader.marks(id, at, 50, 1 << 20).unwrap();
        all.extend(page.marks);
        from = page.next;
    }
    all
}

fn damaged(reader: &Reader<SimDisk>, id: ChunkfileId) -> BTreeSet<u32> {
    let mut cursor = DigestCursor::new(id, true);
    while reader.digest_step(&mut cursor, 1 << 20).unwrap().is_none() {}
    cursor.take_damaged().iter().map(|home| home.offset_units).collect()
}

fn is_the_same(source: &Reader<SimDisk>, disk: &SimDisk) {
    let mirror = Reader::new(disk.clone(), MOUNT, 3);
    for id in source.chunkfiles().unwrap() {
        assert_eq!(digest(&mirror, id, 1 << 20), digest(source, id, 1 << 20), "{id:?}");
        assert_eq!(damaged(&mirror, id), BTreeSet::new(), "{id:?}");
    }
}

/// Copied in part, cut off, copied to the end, cut off again: what was said to be durable is there, nothing damaged is
/// believed, and the accounts are right.
#[test]
fn no_power_cut_while_a_mount_is_refilled_leaves_damage_behind() {
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
        let mut mount = live_mount(&copy, 2);
        mount.save_recovery(&state(Phase::PullData)).unwrap();
        let most = usize::try_from(dice.below(60)).unwrap();
        copier.copy(&mut mount, &copy, most);
        let cut = if dice.chance(25) { copy.kill() } else { copy.power_cut(&mut dice) };
        let mut mount = reopen(&cut, 2);
        let mirror = Reader::new(cut.clone(), MOUNT, 3);
        let files = mirror.chunkfiles().unwrap();
        hurt += u32::from(files.iter().any(|id| !damaged(&mirror, *id).is_empty()));
        copier.copy(&mut mount, &cut, usize::MAX);
        mount.save_recovery(&state(Phase::CatchUp)).unwrap();
        is_the_same(&source, &cut);
        assert_eq!(mount.stats().counters.live_objects, live.len() as u64);
        let cut = cut.power_cut(&mut dice);
        let mut mount = reopen(&cut, 2);
        mount.end_recovery().unwrap();
        is_the_same(&source, &cut);
        assert_eq!(mount.stats().counters.live_objects, live.len() as u64);
        for (id, bytes) in live {
            assert!(mount.read_whole(&id).unwrap() == bytes, "{id:?}");
        }
    }
    assert!(
        hurt > 0 || from.is_some(),
        "no power cut hurt anything: they are not where they should be"
    );
}

/// A mount that is refilled writes no more than the copies.
#[test]
fn copies_for_blank_places_do_not_go_through_the_log() {
    let disk = SimDisk::new(SimOptions::default());
    let mut mount = live_mount(&disk, 1);
    for number in 0..OBJECTS {
        let body = content(&mount, &disk, &[number as u8; 3000]);
        let put = PutRequest { token: Token::default(), body, reserve: None, lane: 0 };
        mount.stage_put(put).unwrap();
        mount.commit().unwrap();
    }
    drop(mount);
    let source = Reader::new(disk, MOUNT, 3);
    let copier = Copier::new(&source);
    let logged = |phase: Option<Phase>| {
        let copy = SimDisk::new(SimOptions::default());
        let mut mount = live_mount(&copy, 2);
        if let Some(phase) = phase {
            mount.save_recovery(&state(phase)).unwrap();
        }
        let before = mount.stats().records;
        copier.copy(&mut mount, &copy, usize::MAX);
        is_the_same(&source, &copy);
        mount.stats().records - before
    };
    let (serving, refilled) = (logged(None), logged(Some(Phase::PullData)));
    assert_eq!((serving, refilled), (OBJECTS, 0), "records");
}

#[path = "absorb_run_tests.rs"]
mod runs;
