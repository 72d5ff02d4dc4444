//! A syncgroup and what is known of it from outside: every edit that was acknowledged, and on what it was based.

use crate::node::{AT_THE_END, Node, THRESHOLD};
use folio::format::file_id::ObjectId;
use folio::format::ids::Tag;
use folio::format::paths::MountFile;
use folio::format::slot::State;
use folio::store::archive::{list_archived, read_archived};
use folio::store::list::Cursor;
use folio::store::mount::Staged;
use folio::store::reader::Reader;
use folio::store::sim_disk::{Dice, SimDisk};
use folio::store::sync::Received;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

/// An acknowledged edit.
#[derive(Clone)]
struct Made {
    parent: Option<Tag>,
    /// New content; `None` for deletes and undeletes.
    content: Option<Vec<u8>>,
}

pub struct World {
    nodes: Vec<Node>,
    rng: StdRng,
    dice: Dice,
    ids: Vec<ObjectId>,
    made: BTreeMap<ObjectId, BTreeMap<Tag, Made>>,
    now_ms: u64,
    /// What was current when its object was purged.
    purged: BTreeMap<ObjectId, Vec<Tag>>,
}

impl World {
    pub fn new(seed: u64, members: u16, retention: u64) -> Self {
        let mut nodes: Vec<Node> = (1..=members).map(|m| Node::new(m, retention)).collect();
        let all: Vec<_> = nodes.iter().map(Node::member).collect();
        for node in &mut nodes {
            node.mount.set_members(all.clone()).unwrap();
        }
        Self {
            nodes,
            rng: StdRng::seed_from_u64(seed),
            dice: Dice::new(seed),
            ids: Vec::new(),
            made: BTreeMap::new(),
            now_ms: 1,
            purged: BTreeMap::new(),
        }
    }

    fn content(&mut self) -> Vec<u8> {
        let len = match self.rng.random_range(0..20) {
            0 => 0,
            1 => self.rng.random_range(THRESHOLD..3 * THRESHOLD),
            2..6 => self.rng.random_range(1000..THRESHOLD),
            _ => self.rng.random_range(1..600),
        };
        let mut bytes = vec![0; len];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    fn node(&mut self) -> usize {
        self.rng.random_range(0..self.nodes.len())
    }

    fn note(&mut self, parent: Option<Tag>, staged: Staged, content: Option<Vec<u8>>) {
        let made = Made { parent, content };
        self.made.entry(staged.id).or_default().insert(staged.tag, made);
    }

    pub fn trace(&self, step: usize, what: &str) {
        if let Ok(which) = std::env::var("FOLIO_MIRRORS_TRACE")
            && let Some(id) = self.ids.iter().find(|id| id.cookie.to_string() == which)
        {
            eprintln!("{step} {what}");
            for node in &self.nodes {
                eprintln!("   {} {}", node.machine, node.explain(id));
                eprintln!("      covers {:?}", node.covers().iter().collect::<Vec<_>>());
                eprintln!("      {:?}", node.mount.reuse_waits_for());
                let archive = archive_of(node).into_iter().filter(|(object, _)| object == id);
                eprintln!("      keeps {:?}", archive.map(|(_, tag)| tag).collect::<Vec<_>>());
            }
        }
    }

    /// Edits at every machine, of objects that all know, of which no other hears.
    pub fn edit_apart(&mut self, objects: usize, edits: usize) {
        for turn in 0..objects {
            let (at, content) = (turn % self.nodes.len(), self.content());
            let staged = self.nodes[at].put(&content);
            self.ids.push(staged.id);
            self.note(None, staged, Some(content));
        }
        self.heal();
        for _ in 0..edits {
            self.now_ms += 1;
            for node in &self.nodes {
                node.clock.set(self.now_ms);
            }
            self.edit();
        }
    }

    /// The same disks, to be told in another order.
    pub fn fork(&self, seed: u64) -> Self {
        Self {
            nodes: self.nodes.iter().map(|node| node.fork(seed)).collect(),
            rng: StdRng::seed_from_u64(seed),
            dice: Dice::new(seed),
            ids: self.ids.clone(),
            made: self.made.clone(),
            now_ms: self.now_ms,
            purged: self.purged.clone(),
        }
    }

    /// Records in any order of the logs, twice, by third machines, between restarts and copies by state.
    pub fn tell(&mut self) {
        let what = self.rng.random_range(0..20);
        self.trace(0, &format!("telling {what}"));
        match what {
            0..14 => self.deliver(),
            14 | 15 => self.report(),
            16 => self.exchange_state(),
            17 => {
                let at = self.node();
                self.nodes[at].mount.finish_checkpoint().unwrap();
            }
            18 => {
                let at = self.node();
                self.nodes[at].power_cut(&mut self.dice);
            }
            _ => {
                let at = self.node();
                self.nodes[at].kill();
            }
        }
    }

    /// What stands: of every object its version, and its bytes as people see them.
    pub fn end(&self) -> Vec<(Option<Tag>, Option<Vec<u8>>)> {
        let node = &self.nodes[0];
        self.ids.iter().map(|id| (node.tag(id), node.read(id).ok())).collect()
    }

    pub fn step(&mut self) {
        self.now_ms += self.rng.random_range(0..50);
        for node in &self.nodes {
            node.clock.set(self.now_ms);
        }
        let what = self.rng.random_range(0..100);
        self.trace(0, &format!("before {what}"));
        match what {
            0..12 => {
                let (at, content) = (self.node(), self.content());
                let staged = self.nodes[at].put(&content);
                self.ids.push(staged.id);
                self.note(None, staged, Some(content));
            }
            12..45 => self.edit(),
            45..80 => self.deliver(),
            80..86 => self.report(),
            86..91 => {
                let at = self.node();
                let mount = &mut self.nodes[at].mount;
                mount.finish_checkpoint().unwrap();
            }
            91..95 => {
                let at = self.node();
                self.maintain(at);
            }
            95..97 => {
                let at = self.node();
                self.nodes[at].power_cut(&mut self.dice);
                self.tell_members();
            }
            97 => {
                let at = self.node();
                self.nodes[at].kill();
                self.tell_members();
            }
            98 => self.now_ms += 2_000,
            _ => self.exchange_state(),
        }
    }

    /// Work between batches. What that purges is an edit, too: it was made in the knowledge of what it gives up.
    fn maintain(&mut self, at: usize) {
        let heads = |node: &Node, ids: &[ObjectId]| -> Vec<_> {
            let slot = |id: &ObjectId| node.slot(id.home().address).filter(|s| s.is_object(id));
            ids.iter().map(slot).collect()
        };
        let before = heads(&self.nodes[at], &self.ids);
        while self.nodes[at].mount.maintain().unwrap() {}
        self.nodes[at].mount.commit().unwrap();
        let after = heads(&self.nodes[at], &self.ids);
        for ((id, before), after) in self.ids.iter().zip(before).zip(after) {
            let (Some(before), Some(after)) = (before, after) else { continue };
            if after.state == State::Purged && before.state != State::Purged {
                self.purged.entry(*id).or_default().push(before.version.tag);
            }
        }
    }

    /// After a restart everybody's reports are heard again before long; which ones is left to chance.
    fn tell_members(&mut self) {
        self.report();
    }

    fn edit(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let newest = self.ids.len().min(4);
        let id = if self.rng.random_bool(0.8) {
            self.ids[self.ids.len() - 1 - self.rng.random_range(0..newest)]
        } else {
            self.ids[self.rng.random_range(0..self.ids.len())]
        };
        let at = self.node();
        let parent = self.nodes[at].tag(&id);
        match self.rng.random_range(0..10) {
            0..7 => {
                let content = self.content();
                if let Some(staged) = self.nodes[at].modify(&id, &content) {
                    self.note(parent, staged, Some(content));
                }
            }
            7 | 8 => {
                if let Some(staged) = self.nodes[at].delete(&id) {
                    self.note(parent, staged, None);
                }
            }
            _ => {
                if let Some(staged) = self.nodes[at].undelete(&id) {
                    self.note(parent, staged, None);
                }
            }
        }
    }

    fn pair(&mut self) -> (usize, usize) {
        let from = self.node();
        let mut to = self.node();
        while to == from {
            to = self.node();
        }
        (from, to)
    }

    /// A random log that `from` holds, or what follows a random older point of it: duplicates, relays, reorderings.
    fn deliver(&mut self) {
        let (from, to) = self.pair();
        let logs = self.nodes[from].logs();
        let (log, _) = logs[self.rng.random_range(0..logs.len())];
        let covered = log.covered_by(&self.nodes[to].covers());
        let after = if self.rng.random_bool(0.2) { 0 } else { covered };
        let batches = self.rng.random_range(1..6);
        let Some(slice) = self.nodes[from].slice(log, after, batches) else { return };
        show(from, to, &slice);
        let disks = self.disks();
        let target = &mut self.nodes[to];
        let received = target.receive(&slice, &disks);
        if std::env::var("FOLIO_MIRRORS_TRACE").is_ok() {
            eprintln!("  {received:?} {}", target.mount.quarantined());
        }
        match received {
            Received::Covered(_) | Received::NeedsContent { .. } => {}
            Received::Gap(have) => assert!(slice.from > have, "a gap that is none"),
            Received::Broken(why) => {
                assert!(log == target.mount.own_log(), "broken: {why}");
            }
        }
    }

    fn report(&mut self) {
        let (from, to) = self.pair();
        let report = self.nodes[from].mount.own_report();
        let machine = self.nodes[from].machine;
        self.nodes[to].mount.member_report(machine, &report);
    }

    fn disks(&self) -> Vec<SimDisk> {
        self.nodes.iter().map(|node| node.disk.clone()).collect()
    }

    /// `to` copies all that `from` has, slot by slot.
    fn exchange_state(&mut self) {
        let (from, to) = self.pair();
        self.copy_state(from, to);
    }

    fn copy_state(&mut self, from: usize, to: usize) {
        let disks = self.disks();
        let (source, target) = two(&mut self.nodes, from, to);
        copy_state(source, target, &self.ids, &disks);
    }

    /// Everything reaches everybody; what no log holds any more comes as state.
    pub fn heal(&mut self) {
        for round in 0.. {
            assert!(round < 200, "the mirrors do not converge");
            let mut moved = false;
            for from in 0..self.nodes.len() {
                for to in 0..self.nodes.len() {
                    if from != to {
                        moved |= self.catch_up(from, to);
                    }
                }
            }
            if !moved {
                break;
            }
        }
        let whole = self.nodes[0].covers();
        for node in &self.nodes {
            assert_eq!(node.covers(), whole, "coverage of machine {}", node.machine);
            assert_eq!(node.mount.quarantined(), 0);
        }
    }

    fn catch_up(&mut self, from: usize, to: usize) -> bool {
        let mut moved = false;
        for (log, reached) in self.nodes[from].logs() {
            loop {
                let covered = log.covered_by(&self.nodes[to].covers());
                if covered >= reached {
                    break;
                }
                moved = true;
                match self.nodes[from].slice(log, covered, 3) {
                    Some(slice) => {
                        show(from, to, &slice);
                        let disks = self.disks();
                        let received = self.nodes[to].receive(&slice, &disks);
                        assert!(matches!(received, Received::Covered(_)), "{received:?}");
                    }
                    None => self.copy_state(from, to),
                }
            }
        }
        let report = self.nodes[from].mount.own_report();
        let machine = self.nodes[from].machine;
        self.nodes[to].mount.member_report(machine, &report);
        moved
    }

    pub fn judge(&self) {
        for id in &self.ids {
            self.judge_object(id);
        }
        let archives: Vec<BTreeSet<_>> = self.nodes.iter().map(archive_of).collect();
        for archive in &archives[1..] {
            assert_eq!(archive, &archives[0], "the archives differ");
        }
        self.judge_lists();
    }

    fn judge_object(&self, id: &ObjectId) {
        let made = &self.made[id];
        let heads: Vec<_> = self.nodes.iter().map(|node| node.head(id)).collect();
        for head in &heads[1..] {
            let strip = |head: &Option<folio::format::slot::SlotHeader>| {
                head.as_ref().filter(|head| head.state != State::Purged).cloned()
            };
            assert_eq!(
                strip(head),
                strip(&heads[0]),
                "mirrors differ in {id:?}: {:?}",
                self.nodes.iter().map(|node| node.explain(id)).collect::<Vec<_>>()
            );
        }
        let Some(head) = heads[0].as_ref().filter(|head| head.state != State::Purged) else {
            // Purged: its last version was a delete; nothing may be readable anywhere.
            for node in &self.nodes {
                assert!(node.read(id).is_err(), "{id:?} is back");
            }
            assert!(made.keys().any(Tag::is_deleted), "{id:?} is gone although nobody deleted it");
            return;
        };
        let current = head.version.tag;
        assert!(made.contains_key(&current), "{id:?} has a version that nobody made");
        let greatest = made.keys().map(|tag| tag.life).max().unwrap();
        assert_eq!(current.life, greatest, "{id:?}: a delete or an undelete was undone");
        let content = made[&current].content.as_ref().or_else(|| content_below(made, current));
        for node in &self.nodes {
            match node.read(id) {
                Ok(bytes) => {
                    assert_eq!(head.state, State::Live);
                    assert_eq!(Some(&bytes), content, "machine {} {id:?}", node.machine);
                }
                Err(error) => assert_eq!(
                    head.state,
                    State::Deleted,
                    "machine {} {id:?}: {error}",
                    node.machine
                ),
            }
        }
        self.judge_edits(id, current);
    }

    /// No edit with content vanished: it stands, was built upon, is kept, or was deleted by somebody who knew it and
    /// purged when the time to undo that was over. A delete that loses is not kept if what it deleted is, byte for byte,
    /// what stands: then the bytes are what counts.
    fn judge_edits(&self, id: &ObjectId, current: Tag) {
        let made = &self.made[id];
        let mut known: BTreeSet<Tag> = ancestors(made, current);
        for (object, tag) in archive_of(&self.nodes[0]) {
            if object == *id {
                known.extend(ancestors(made, tag));
            }
        }
        for tag in self.purged.get(id).into_iter().flatten() {
            known.extend(ancestors(made, *tag));
        }
        let bytes: BTreeSet<&Vec<u8>> =
            known.iter().filter_map(|t| made.get(t)?.content.as_ref()).collect();
        let deleted = made.iter().filter(|(tag, edit)| tag.is_deleted() && edit.content.is_none());
        let deleted: Vec<Tag> = deleted.filter_map(|(_, edit)| edit.parent).collect();
        for tag in deleted {
            let content = made.get(&tag).and_then(|edit| edit.content.as_ref());
            if content.is_some_and(|content| bytes.contains(content)) {
                known.extend(ancestors(made, tag));
            }
        }
        for (tag, edit) in made {
            let lost_by_design = edit.content.is_none();
            assert!(
                lost_by_design || known.contains(tag),
                "{id:?}: the edit {tag:?} vanished; {current:?} stands"
            );
        }
    }

    /// Looked at from outside, every mount is healthy: with everything in a checkpoint, and before.
    pub fn fsck(&mut self) {
        for node in &mut self.nodes {
            node.mount.commit().unwrap();
            node.fsck("before a checkpoint");
            node.mount.finish_checkpoint().unwrap();
            node.fsck(AT_THE_END);
        }
    }

    /// What a scan finds is what stands, and nothing twice.
    fn judge_lists(&self) {
        let mut lists = Vec::new();
        for node in &self.nodes {
            let reader = Reader::new(node.disk.clone(), 0, 16);
            let mut ids = BTreeSet::new();
            for owner in &self.nodes {
                let mut cursor: Option<Cursor> = None;
                loop {
                    let page = reader.list(owner.machine, cursor, 0, 100).unwrap();
                    for object in page.items {
                        assert!(ids.insert(object.id), "listed twice");
                    }
                    cursor = page.next;
                    if cursor.is_none() {
                        break;
                    }
                }
            }
            lists.push(ids);
        }
        for list in &lists[1..] {
            assert_eq!(list, &lists[0]);
        }
    }
}

/// `target` copies all that `source` has of these objects, slot by slot, and its archive.
pub fn copy_state(source: &Node, target: &mut Node, ids: &[ObjectId], disks: &[SimDisk]) {
    let reached = source.covers();
    for id in ids {
        let Some(copy) = source.copy(id) else { continue };
        let mut files = vec![source.chunkfile(copy.home.address.chunkfile()).unwrap()];
        let target_file = copy.target.as_ref().map(|image| image.address.chunkfile());
        files.extend(target_file.and_then(|file| source.chunkfile(file)));
        let absorbed = target.mount.absorb(&files, std::slice::from_ref(&copy)).unwrap();
        assert_eq!(
            absorbed.refused,
            0,
            "{} {} {:?} {:?}",
            source.explain(id),
            target.explain(id),
            source.slot(id.home().address),
            source.slot(copy.target.as_ref().map_or(id.home().address, |t| t.address)),
        );
        for (content, _) in &absorbed.needs {
            if !target.fetch(*content, disks) {
                target.mount.content_is_gone(*content);
            }
        }
        if !absorbed.needs.is_empty() {
            let again = target.mount.absorb(&files, &[copy]).unwrap();
            assert!(again.needs.is_empty());
        }
    }
    for lost in list_archived(&source.disk).unwrap() {
        let path = MountFile::Conflict(lost.object, lost.tag.position()).path();
        let (lost, content) = read_archived(&source.disk, &path).unwrap().unwrap();
        if let Some(content) = lost.single {
            assert!(target.fetch(content, disks));
        }
        target.mount.absorb_archived(&lost, &content).unwrap();
    }
    target.mount.reached(&reached).unwrap();
}

fn content_below(made: &BTreeMap<Tag, Made>, from: Tag) -> Option<&Vec<u8>> {
    let mut at = Some(from);
    while let Some(tag) = at {
        let edit = made.get(&tag)?;
        if edit.content.is_some() {
            return edit.content.as_ref();
        }
        at = edit.parent;
    }
    None
}

fn ancestors(made: &BTreeMap<Tag, Made>, from: Tag) -> BTreeSet<Tag> {
    let mut all = BTreeSet::new();
    let mut at = Some(from);
    while let Some(tag) = at {
        all.insert(tag);
        at = made.get(&tag).and_then(|edit| edit.parent);
    }
    all
}

pub fn archive_of(node: &Node) -> BTreeSet<(ObjectId, Tag)> {
    let all = list_archived(&node.disk).unwrap();
    all.into_iter().map(|lost| (lost.object, lost.tag)).collect()
}

pub fn two(nodes: &mut [Node], from: usize, to: usize) -> (&Node, &mut Node) {
    if from < to {
        let (left, right) = nodes.split_at_mut(to);
        (&left[from], &mut right[0])
    } else {
        let (left, right) = nodes.split_at_mut(from);
        (&right[0], &mut left[to])
    }
}

fn show(from: usize, to: usize, slice: &folio::store::sync::LogSlice) {
    if std::env::var("FOLIO_MIRRORS_TRACE").is_ok() {
        let all = folio::format::log::Records::new(&slice.records).flatten();
        let all: Vec<_> = all
            .map(|raw| match folio::format::record::Record::decode(raw.kind, raw.head) {
                Ok(Some(folio::format::record::Record::Edit(e))) => format!(
                    "edit {} home {:?} target {:?} freed {:?} payload {}",
                    raw.sequence,
                    e.home.address,
                    e.target.map(|t| t.address),
                    e.freed,
                    raw.payload.len()
                ),
                _ => format!("{} {}", raw.kind, raw.sequence),
            })
            .collect();
        eprintln!("{from} -> {to} {:?} {}..{} {all:?}", slice.log, slice.from, slice.to);
    }
}
