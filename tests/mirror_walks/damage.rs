//! One bit of one field of one record in the middle of a log is wrong, each field of each kind of record in turn, in the log
//! of who sends and in what a receiver keeps of it: nothing wrong is applied anywhere, everything else arrives, what is missing
//! comes by state, and no place of an acknowledged object is handed out again (P2, P3, P4, R10).

use crate::fields::{Field, batches};
use crate::node::Node;
use crate::world::{archive_of, copy_state, two};
use folio::format::file_id::ObjectId;
use folio::format::ids::Tag;
use folio::format::record::Dropped;
use folio::format::slot::{SlotHeader, State};
use folio::fsck::finding::Kind;
use folio::store::archive::list_archived;
use folio::store::disk::{Disk, DiskFile, Open};
use folio::store::log_reader::LogRead;
use folio::store::mount::Mount;
use folio::store::reader::Reader;
use folio::store::sim_disk::SimDisk;
use folio::store::sync::Received;
use std::collections::{BTreeMap, BTreeSet};

const RETENTION: u64 = 1 << 20;
/// Batches at the end of a log that stay as they are: what is damaged is in the middle.
const END: usize = 2;

/// Three members and what they must hold in the end.
struct Group {
    nodes: Vec<Node>,
    ids: Vec<ObjectId>,
}

/// What stands in the end.
#[derive(PartialEq, Debug)]
struct End {
    objects: BTreeMap<ObjectId, (Tag, Option<Vec<u8>>)>,
    archive: BTreeSet<(ObjectId, Tag)>,
}

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + seed * 31 + at / 251) as u8).collect()
}

impl Group {
    fn put(&mut self, at: usize, len: usize) -> ObjectId {
        let id = self.nodes[at].put(&bytes(self.ids.len(), len)).id;
        self.ids.push(id);
        id
    }

    fn edit(&mut self, at: usize, id: ObjectId, seed: usize, len: usize) {
        self.nodes[at].modify(&id, &bytes(seed, len)).expect("it is modified");
    }

    fn disks(&self) -> Vec<SimDisk> {
        self.nodes.iter().map(|node| node.disk.clone()).collect()
    }

    /// What one has that the other lacks: from the logs, and what they do not tell, by state.
    fn tell(&mut self, from: usize, to: usize) -> bool {
        let (mut moved, disks) = (false, self.disks());
        for (log, up_to) in self.nodes[from].logs() {
            loop {
                let covered = log.covered_by(&self.nodes[to].covers());
                if covered >= up_to {
                    break;
                }
                moved = true;
                match self.nodes[from].read_on(log, covered, up_to) {
                    LogRead::Slice(slice) => {
                        let received = self.nodes[to].receive(&slice, &disks);
                        assert!(matches!(received, Received::Covered(_)), "{received:?}");
                    }
                    LogRead::End => break,
                    LogRead::Gone { .. } | LogRead::Damaged { .. } => self.copy(from, to),
                }
            }
        }
        // What a greeting carries.
        let (source, target) = two(&mut self.nodes, from, to);
        for gone in source.mount.forgotten() {
            target.mount.learn_forgotten(gone).unwrap();
        }
        target.mount.member_report(source.machine, &source.mount.own_report());
        moved
    }

    fn copy(&mut self, from: usize, to: usize) {
        let disks = self.disks();
        let (source, target) = two(&mut self.nodes, from, to);
        let names = Reader::new(source.disk.clone(), 0, 16).archive_names().unwrap();
        copy_state(source, target, &self.ids, &disks);
        for (object, edit) in names.dropped {
            target.mount.drop_archived(&Dropped { object, edit }).unwrap();
        }
    }

    fn heal(&mut self) {
        for round in 0.. {
            assert!(round < 50, "the mirrors do not converge");
            let mut moved = false;
            for from in 0..self.nodes.len() {
                for to in 0..self.nodes.len() {
                    moved |= from != to && self.tell(from, to);
                }
            }
            if !moved && round > 3 {
                break;
            }
        }
    }

    fn fork(&self, seed: u64, damaged: usize, happens: impl Fn(&SimDisk)) -> Self {
        let fork = |(at, node): (usize, &Node)| {
            node.fork_after(seed * 8 + at as u64, |disk| {
                if at == damaged {
                    happens(disk);
                }
            })
        };
        Self { nodes: self.nodes.iter().enumerate().map(fork).collect(), ids: self.ids.clone() }
    }

    /// All members hold the same, and it is whole.
    fn end(&self, what: &str) -> End {
        let heads = |node: &Node| -> Vec<Option<SlotHeader>> {
            self.ids.iter().map(|id| node.head(id)).collect()
        };
        let first = heads(&self.nodes[0]);
        let mut objects = BTreeMap::new();
        for node in &self.nodes {
            let machine = node.machine;
            assert_eq!(node.mount.quarantined(), 0, "{what}: machine {machine} put a record aside");
            assert_eq!(
                archive_of(node),
                archive_of(&self.nodes[0]),
                "{what}: archive of {machine}"
            );
            let (here, there) = (node.mount.forgotten(), self.nodes[0].mount.forgotten());
            assert_eq!(here.len(), there.len(), "{what}: forgotten at {machine}");
            for (at, head) in heads(node).iter().enumerate() {
                let gone = |head: &Option<SlotHeader>| {
                    head.clone().filter(|head| head.state != State::Purged)
                };
                let explained: Vec<_> =
                    self.nodes.iter().map(|n| n.explain(&self.ids[at])).collect();
                assert_eq!(gone(head), gone(&first[at]), "{what}: object {at} {explained:?}");
                let Some(head) = gone(head) else { continue };
                let content = node.read(&self.ids[at]);
                let read = content.as_ref().map_err(ToString::to_string);
                let live = head.state == State::Live;
                assert_eq!(
                    read.is_ok(),
                    live,
                    "{what}: object {at} of machine {machine}: {read:?}"
                );
                let here = (head.version.tag, content.ok());
                let before = objects.entry(self.ids[at]).or_insert_with(|| here.clone());
                assert_eq!(*before, here, "{what}: object {at} of machine {machine}");
            }
        }
        End { objects, archive: archive_of(&self.nodes[0]) }
    }

    /// From outside there is nothing wrong but what was damaged.
    fn look(&mut self, at: usize, what: &str) {
        // What was damaged is still there, or put aside.
        const DAMAGE: &[Kind] = &[
            Kind::LogDamage,
            Kind::LogGap,
            Kind::LogTailLost,
            Kind::SegmentHeader,
            Kind::RecordBad,
            Kind::Stranger,
        ];
        {
            let node = &mut self.nodes[at];
            node.mount.finish_checkpoint().unwrap();
            let mut kept = node.findings();
            kept.findings.retain(|found| !DAMAGE.contains(&found.kind));
            kept.findings.retain(|found| found.kind != Kind::SingleUnreferenced);
            let found: Vec<String> = kept.findings.iter().map(ToString::to_string).collect();
            assert!(found.is_empty(), "{what}: machine {}: {found:#?}", node.machine);
        }
    }

    /// Everybody writes on, into whatever he takes for free.
    fn go_on(&mut self) -> Self {
        let mut more = self.fork(1 << 20, usize::MAX, |_| {});
        for turn in 0..30 {
            more.put(turn % 3, 40 + turn * 37);
        }
        more.heal();
        more
    }
}

/// All kinds of records in the log of the first machine, most of which the others have not heard of.
fn story() -> Group {
    let mut nodes: Vec<Node> = (1..=3).map(|machine| Node::new(machine, RETENTION)).collect();
    let gone = Node::new(4, RETENTION);
    let members: Vec<_> = nodes.iter().chain([&gone]).map(Node::member).collect();
    for node in &mut nodes {
        node.mount.set_members(members.clone()).unwrap();
    }
    let mut group = Group { nodes, ids: Vec::new() };
    for turn in 0..16 {
        group.put(0, 100 + turn * 90);
    }
    assert!(group.nodes[0].mount.forget(4).unwrap());
    group.heal();
    let ids = group.ids.clone();
    // Holes, of which the checkpoint knows.
    for id in &ids[8..14] {
        group.edit(0, *id, 1, 10);
    }
    group.heal();
    assert!(group.nodes[0].mount.stats().holes > 0);
    group.nodes[0].mount.finish_checkpoint().unwrap();
    // From here on the second and the third hear nothing of the first.
    group.edit(1, ids[0], 50, 80);
    group.edit(1, ids[1], 51, 81);
    group.edit(1, ids[2], 52, 3000);
    group.edit(0, ids[0], 60, 70);
    group.edit(0, ids[1], 61, 9000);
    group.put(2, 333);
    while group.tell(1, 0) {}
    group.copy(2, 0);
    let lost = list_archived(&group.nodes[0].disk).unwrap()[0];
    let dropped = Dropped { object: lost.object, edit: lost.tag.position() };
    assert!(group.nodes[0].mount.drop_archived(&dropped).unwrap());
    burst(&mut group, &ids);
    group
}

fn burst(group: &mut Group, ids: &[ObjectId]) {
    for turn in 0..40 {
        group.put(0, 30 + turn * 113 % 3500);
    }
    group.put(0, 6000);
    // In place, with a shorter content, into another slot, into a file and back.
    for (turn, len) in [(3, 300), (4, 20), (5, 3500), (6, 8000), (7, 3900)] {
        group.edit(0, ids[turn], turn + 70, len);
    }
    group.edit(0, ids[6], 90, 100);
    group.edit(0, ids[5], 91, 3000);
    for at in [14, 15, 3] {
        group.nodes[0].delete(&ids[at]).unwrap();
    }
    group.nodes[0].undelete(&ids[14]).unwrap();
    group.nodes[0].clock.set(1_000_000);
    let mount: &mut Mount<SimDisk> = &mut group.nodes[0].mount;
    while mount.maintain().unwrap() {}
    mount.commit().unwrap();
    for turn in 0..10 {
        group.put(0, 50 + turn * 60);
    }
}

/// The fields of batches in the middle of a log, each kind of field of each kind of record at least once: the first, and the
/// last, of each name.
fn in_the_middle(disk: &SimDisk, folder: &str) -> Vec<Field> {
    let mut names: Vec<String> = disk.list(folder).unwrap().into_iter().map(|e| e.name).collect();
    names.sort();
    let mut all = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".log")) {
        let path = format!("{folder}/{name}");
        let file = disk.open(&path, Open::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_full_at(0, &mut bytes).unwrap();
        all.extend(batches(&path, &bytes));
    }
    all.truncate(all.len() - END);
    let mut by_name: BTreeMap<String, Vec<Field>> = BTreeMap::new();
    for field in all.into_iter().flatten() {
        by_name.entry(field.name.clone()).or_default().push(field);
    }
    let every: usize = std::env::var("FOLIO_FIELDS").map_or(1, |all| all.parse().unwrap());
    let ends = |fields: Vec<Field>| {
        let chosen: BTreeSet<usize> = match every {
            1 => [fields.len() / 2].into(),
            more => (0..more).map(|part| part * (fields.len() - 1) / (more - 1)).collect(),
        };
        chosen.into_iter().map(|at| fields[at].clone()).collect::<Vec<_>>()
    };
    // One field, by its name.
    let only = std::env::var("FOLIO_FIELD").ok();
    by_name.retain(|name, _| only.as_ref().is_none_or(|only| only == name));
    by_name.into_values().flat_map(ends).collect()
}

fn flip(disk: &SimDisk, field: &Field, turn: usize) {
    let at = [0, field.len - 1, field.len / 2][turn % 3];
    assert!(disk.flip(&field.path, field.offset + at, (turn * 5 % 8) as u8), "{field:?}");
}

/// Each field in turn, at one machine, before it starts or while it runs.
fn each_field(group: &Group, damaged: usize, folder: &str, restarted: bool, reference: &End) {
    let fields = in_the_middle(&group.nodes[damaged].disk, folder);
    let kinds: BTreeSet<&str> = fields.iter().filter_map(|f| f.name.split(':').next()).collect();
    println!("{folder}: {} fields of {kinds:?}", fields.len());
    // Under a member that runs nothing is read again but for others: a share of the fields will do.
    let share = if restarted { 1 } else { 4 };
    for (turn, field) in fields.iter().enumerate().step_by(share) {
        let what = format!("{folder} of {}, {field:?}, restarted {restarted}", damaged + 1);
        let mut now = group.fork(turn as u64, damaged, |disk| {
            if restarted {
                flip(disk, field, turn);
            }
        });
        if !restarted {
            flip(&now.nodes[damaged].disk, field, turn);
        }
        now.heal();
        assert!(now.end(&what) == *reference, "{what}: something else stands");
        now.look(damaged, &what);
        if !restarted || turn % 4 > 0 {
            continue;
        }
        let more = now.go_on();
        for (id, before) in &more.end(&what).objects {
            if let Some(then) = reference.objects.get(id) {
                assert_eq!(before, then, "{what}: writing on changed {id:?}");
            }
        }
    }
}

fn reference(group: &Group) -> End {
    let mut whole = group.fork(1 << 30, usize::MAX, |_| {});
    whole.heal();
    whole.end("undamaged")
}

#[test]
fn no_damaged_field_of_a_senders_log_keeps_anything_from_its_mirrors() {
    let group = story();
    let reference = reference(&group);
    assert!(!reference.archive.is_empty());
    for restarted in [true, false] {
        each_field(&group, 0, "binlog", restarted, &reference);
    }
}

#[test]
fn no_damaged_field_of_a_receivers_log_is_applied_or_passed_on() {
    let mut group = story();
    let reference = reference(&group);
    while group.tell(0, 1) {}
    for restarted in [true, false] {
        each_field(&group, 1, "synclog/1", restarted, &reference);
    }
}
