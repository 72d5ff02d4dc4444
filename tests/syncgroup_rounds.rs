//! Rounds of cut, edit and heal on the real engine and actors: seeded partitions with edits on both sides of the same
//! objects, deletes against edits, moves against edits, and places that are used again. After every healing the mirrors
//! are the same byte for byte, every edit that did not win is in the archive with its bytes, nothing that was deleted
//! is back, and no id shows another's bytes (P4, P5).
//!
//! `FOLIO_ROUNDS=N` is how many rounds in all; `FOLIO_ROUNDS_SEED=N` draws others. What is drawn depends on the seed
//! only; how far a record got before its cable was cut is left to the machine.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails here"
)]

mod common;

use common::cables::Cables;
use common::machines::{Machine, PATIENCE, TrackerNode, until_live};
use common::{Outcome, content};
use folio::cluster::version::knows;
use folio::format::file_id::ObjectId;
use folio::format::ids::{ChunkfileId, Tag, Version};
use folio::format::paths::MountFile;
use folio::messages::error::ErrorCode;
use folio::messages::heads::{IdBytes, Written};
use folio::store::archive::{list_archived, read_archived};
use folio::store::digest::{ChunkDigest, DigestCursor};
use folio::store::os_disk::OsDisk;
use folio::store::reader::Reader;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const MACHINES: u16 = 3;
/// Syncgroups that run beside each other: most of a round is waiting for silence.
const GROUPS: u64 = 4;
/// Objects that are edited; older ones are only looked at.
const EDITED: usize = 6;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// An acknowledged edit.
struct Made {
    /// As it stands in the slot; `None` if another edit stood there before we looked.
    version: Option<Version>,
    /// `None` for deletes and undeletes.
    content: Option<Vec<u8>>,
}

struct Object {
    id: IdBytes,
    made: BTreeMap<Tag, Made>,
    /// Nobody else has heard of it before that round is healed.
    born: usize,
    /// What was tried and may have been done.
    perhaps: Vec<Option<Vec<u8>>>,
}

struct Group {
    dir: tempfile::TempDir,
    _tracker: TrackerNode,
    cables: Cables,
    machines: Vec<Machine>,
    dice: StdRng,
    objects: Vec<Object>,
    contents: usize,
    rounds: usize,
}

impl Group {
    fn start(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tracker = TrackerNode::start();
        let cables = Cables::between(1..=MACHINES);
        let machine = |id| {
            let advertise = cables.address(id).to_string();
            let extra = [("advertise", advertise.as_str()), ("store.undelete_window", "1s")];
            let machine = Machine::new(dir.path(), id, tracker.address, &extra);
            cables.lead_to(id, machine.listen.parse().unwrap());
            machine
        };
        let machines: Vec<Machine> = (1..=MACHINES).map(machine).collect();
        until_live(&machines);
        let dice = StdRng::seed_from_u64(seed);
        let objects = Vec::new();
        Self { dir, _tracker: tracker, cables, machines, dice, objects, contents: 0, rounds: 0 }
    }

    fn disk(&self, machine: u16) -> OsDisk {
        OsDisk::open(&self.dir.path().join(format!("s{machine}/m0"))).unwrap()
    }

    fn reader(&self, machine: u16) -> Reader<OsDisk> {
        Reader::new(self.disk(machine), 0, 16)
    }

    fn version(&self, machine: u16, id: &IdBytes) -> Option<Version> {
        let id = ObjectId::decode(id).unwrap();
        self.reader(machine).head(&id).ok().map(|head| head.version)
    }

    // ---- a round

    /// Draws who can talk to whom: (machines that still can, ...).
    fn part(&mut self) -> Vec<Vec<u16>> {
        let alone = self.dice.random_range(1..=MACHINES);
        let others: Vec<u16> = (1..=MACHINES).filter(|id| *id != alone).collect();
        let sides = match self.dice.random_range(0..8) {
            0 => vec![(1..=MACHINES).collect()],
            1 | 2 => (1..=MACHINES).map(|id| vec![id]).collect(),
            _ => vec![vec![alone], others],
        };
        for a in 1..=MACHINES {
            for b in a + 1..=MACHINES {
                if !sides.iter().any(|side: &Vec<u16>| side.contains(&a) && side.contains(&b)) {
                    self.cables.cut(a, b);
                }
            }
        }
        sides
    }

    fn round(&mut self) {
        self.rounds += 1;
        let sides = self.part();
        for _ in 0..self.dice.random_range(1..4) {
            for side in &sides {
                for _ in 0..self.dice.random_range(1..4) {
                    self.edit(side);
                }
            }
        }
        self.cables.mend_all();
        until_live(&self.machines);
        self.judge();
    }

    /// New bytes that name themselves: no two contents are the same.
    fn content(&mut self) -> Vec<u8> {
        self.contents += 1;
        let len = match self.dice.random_range(0..20) {
            0 => 300_000,
            1..4 => self.dice.random_range(2_000..9_000),
            _ => self.dice.random_range(0..700),
        };
        let mut bytes = format!("content {} ", self.contents).into_bytes();
        bytes.extend_from_slice(&content(self.contents, len));
        bytes
    }

    fn edit(&mut self, side: &[u16]) {
        let at = side[self.dice.random_range(0..side.len())];
        let kind = self.dice.random_range(0..20);
        let newest = self.objects.len().saturating_sub(EDITED);
        let owner = |object: &Object| ObjectId::decode(&object.id).unwrap().machine;
        let known: Vec<usize> = (newest..self.objects.len())
            .filter(|which| {
                let object = &self.objects[*which];
                object.born < self.rounds || side.contains(&owner(object))
            })
            .collect();
        if known.is_empty() || kind < 3 {
            return self.put(at);
        }
        let which = known[self.dice.random_range(0..known.len())];
        let id = self.objects[which].id;
        // Who can reach the owner leaves it to the owner.
        let owner = owner(&self.objects[which]);
        let at = if side.contains(&owner) { owner } else { at };
        let bytes = (kind < 15).then(|| self.content());
        let mut client = self.machines[usize::from(at) - 1].client();
        let done = insist(|| match &bytes {
            Some(bytes) => client.modify(&id, bytes),
            None if kind < 18 => client.delete(&id),
            None => client.undelete(&id),
        });
        match done {
            Ok(written) => {
                let version = self.version(at, &id).filter(|v| v.tag == written.opver);
                let made = Made { version, content: bytes };
                self.objects[which].made.insert(written.opver, made);
            }
            Err(ErrorCode::UnknownOutcome) => self.objects[which].perhaps.push(bytes),
            // Deleted, not deleted, or nobody could take it.
            Err(_) => {}
        }
    }

    fn put(&mut self, at: u16) {
        let bytes = self.content();
        let machine = &self.machines[usize::from(at) - 1];
        let Ok(put) = insist(|| machine.put(0, &bytes)) else { return };
        let version = self.version(at, &put.id).filter(|version| version.tag == put.opver);
        let made = BTreeMap::from([(put.opver, Made { version, content: Some(bytes) })]);
        self.objects.push(Object { id: put.id, made, born: self.rounds, perhaps: Vec::new() });
    }

    // ---- what must hold when everything has been heard by everybody

    fn judge(&self) {
        let mut last = String::new();
        let begun = Instant::now();
        loop {
            let before = self.coverages();
            let said = self.differences();
            // A purge, or an archived conflict, may still be on its way.
            let quiet = before.iter().all(|c| *c == before[0]) && self.coverages() == before;
            match said {
                None if quiet => return,
                None => {}
                Some(said) => last = said,
            }
            assert!(begun.elapsed() < PATIENCE, "the mirrors do not become the same: {last}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn coverages(&self) -> Vec<folio::cluster::coverage::Coverage> {
        let of = |machine: &Machine| {
            let mount = machine.room().placement.mount(0).expect("mount 0");
            mount.mirror.report().coverage.clone()
        };
        self.machines.iter().map(of).collect()
    }

    /// What is not as it must be; `None`: all is well.
    fn differences(&self) -> Option<String> {
        let digests: Vec<_> = (1..=MACHINES).map(|machine| self.digests(machine)).collect();
        if digests.iter().any(|digest| *digest != digests[0]) {
            return Some(format!("digests {digests:?}"));
        }
        let archives: Vec<_> = (1..=MACHINES).map(|machine| self.archive(machine)).collect();
        if archives.iter().any(|archive| archive.keys().ne(archives[0].keys())) {
            let names: Vec<Vec<_>> = archives.iter().map(|a| a.keys().collect()).collect();
            return Some(format!("archives {names:?}"));
        }
        self.objects.iter().find_map(|object| self.look_at(object, &archives[0]))
    }

    fn digests(&self, machine: u16) -> BTreeMap<ChunkfileId, ChunkDigest> {
        let reader = self.reader(machine);
        let mut all = BTreeMap::new();
        for id in reader.chunkfiles().unwrap() {
            let mut cursor = DigestCursor::new(id, true);
            let digest = loop {
                if let Some(digest) = reader.digest_step(&mut cursor, 1 << 20).unwrap() {
                    break digest;
                }
            };
            // A chunkfile without objects may not have been heard of everywhere.
            if digest.objects > 0 {
                all.insert(id, digest);
            }
        }
        all
    }

    /// Archived versions, with the bytes of those in slots.
    fn archive(&self, machine: u16) -> BTreeMap<(ObjectId, Tag), Option<Vec<u8>>> {
        let disk = self.disk(machine);
        let mut all = BTreeMap::new();
        for lost in list_archived(&disk).unwrap() {
            let path = MountFile::Conflict(lost.object, lost.tag.position()).path();
            let Some((lost, bytes)) = read_archived(&disk, &path).unwrap() else { continue };
            all.insert((lost.object, lost.tag), lost.single.is_none().then_some(bytes));
        }
        all
    }

    fn look_at(
        &self,
        object: &Object,
        archive: &BTreeMap<(ObjectId, Tag), Option<Vec<u8>>>,
    ) -> Option<String> {
        let id = ObjectId::decode(&object.id).unwrap();
        let heads: Vec<_> = (1..=MACHINES).map(|m| self.reader(m).head(&id).ok()).collect();
        let reads: Vec<_> = self.machines.iter().map(|m| m.reads(&object.id)).collect();
        if heads.iter().any(|head| *head != heads[0]) || reads.iter().any(|r| *r != reads[0]) {
            return Some(format!("mirrors differ in {id:?}: {heads:?}"));
        }
        let (head, read) = (heads[0].as_ref(), reads[0].as_ref());
        let deleted = head.is_none_or(|head| head.version.tag.is_deleted());
        if deleted != read.is_none() {
            return Some(format!("{id:?}: deleted {deleted}, but {:?} bytes", read.map(Vec::len)));
        }
        let sure = object.perhaps.is_empty();
        let life = object.made.keys().map(|tag| tag.life).max().unwrap_or(0);
        if sure && deleted != (life % 2 == 1) {
            return Some(format!("{id:?} is deleted: {deleted}, though its life is {life}"));
        }
        self.look_at_bytes(object, head.map(|head| head.version.tag), read)
            .or_else(|| vanished(object, id, head.map(|head| &head.version), archive))
    }

    /// No id shows another's bytes, nor bytes that nobody wrote.
    fn look_at_bytes(
        &self,
        object: &Object,
        current: Option<Tag>,
        read: Option<&Vec<u8>>,
    ) -> Option<String> {
        let read = read?;
        let exact = current.and_then(|tag| object.made.get(&tag)?.content.as_ref());
        let mut own = object.made.values().map(|made| &made.content).chain(&object.perhaps);
        let is_own = own.any(|content| content.as_ref() == Some(read));
        let right = exact.map_or(is_own, |exact| exact == read);
        (!right).then(|| format!("{:?} shows other bytes", ObjectId::decode(&object.id)))
    }
}

/// Every edit with content stands, was built upon, or is archived with its bytes.
fn vanished(
    object: &Object,
    id: ObjectId,
    current: Option<&Version>,
    archive: &BTreeMap<(ObjectId, Tag), Option<Vec<u8>>>,
) -> Option<String> {
    let mut known: BTreeSet<Tag> = current.map(|version| version.tag).into_iter().collect();
    // Who deleted it knew what it gave up for ever: the purge is the owner's.
    known.extend(object.made.keys().filter(|tag| tag.is_deleted()));
    for ((archived, tag), bytes) in archive {
        let wrote = object.made.get(tag).and_then(|made| made.content.as_ref());
        if let (true, Some(bytes), Some(wrote)) = (*archived == id, bytes, wrote)
            && bytes != wrote
        {
            return Some(format!("{id:?} {tag:?} is archived with other bytes"));
        }
        known.extend((*archived == id).then_some(*tag));
    }
    let versions = |tag: &Tag| object.made.get(tag).and_then(|made| made.version.as_ref());
    loop {
        let by: Vec<&Version> = known.iter().filter_map(versions).chain(current).collect();
        let more: Vec<Tag> = object
            .made
            .keys()
            .filter(|tag| !known.contains(*tag))
            .filter(|tag| versions(tag).is_none_or(|v| by.iter().any(|known| knows(known, v))))
            .copied()
            .collect();
        if more.is_empty() {
            break;
        }
        known.extend(more);
    }
    let lost =
        object.made.iter().find(|(tag, made)| made.content.is_some() && !known.contains(*tag));
    // An edit of which nobody can say whether it was made may have been built upon.
    let lost = lost.filter(|_| object.perhaps.is_empty());
    lost.map(|(tag, _)| format!("{id:?}: the edit {tag:?} vanished; {current:?} stands"))
}

/// Asks until somebody takes it, a while at most. `Unavailable` and `Busy` say that nothing was done.
fn insist(mut ask: impl FnMut() -> Outcome<Written>) -> Outcome<Written> {
    let begun = Instant::now();
    loop {
        match ask() {
            Err(ErrorCode::Unavailable | ErrorCode::Busy | ErrorCode::Behind)
                if begun.elapsed() < PATIENCE => {}
            other => return other,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn no_partition_leaves_mirrors_different_or_an_edit_lost() {
    let (rounds, seed) = (number("FOLIO_ROUNDS", 200), number("FOLIO_ROUNDS_SEED", 1));
    eprintln!("FOLIO_ROUNDS={rounds} FOLIO_ROUNDS_SEED={seed}");
    let each = rounds.div_ceil(GROUPS);
    let groups: Vec<_> = (0..GROUPS.min(rounds))
        .map(|number| {
            std::thread::spawn(move || {
                let mut group = Group::start(seed.wrapping_mul(1_000).wrapping_add(number));
                for round in 0..each {
                    let what = format!("group {number}, round {round} of seed {seed}");
                    let _named = Named(&what);
                    group.round();
                }
                let conflicts = group.archive(1).len();
                (group.objects.len(), conflicts)
            })
        })
        .collect();
    let mut conflicts = 0;
    for group in groups {
        let (objects, archived) = group.join().expect("no round breaks a promise");
        eprintln!("{objects} objects, {archived} archived versions");
        conflicts += archived;
    }
    assert!(conflicts > 0 || rounds < 20, "no two edits ever met: the cables were not cut");
}

/// Says which round it was that panicked.
struct Named<'a>(&'a str);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}
