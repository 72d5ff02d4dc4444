//! What walks have found, in a few steps each: the same disks after many different power cuts.

use crate::node::{AT_THE_END, Node};
use folio::format::file_id::ObjectId;
use folio::format::ids::Tag;
use folio::format::slot::State;
use folio::store::archive::list_archived;
use folio::store::sim_disk::{Dice, SimDisk};
use folio::store::sync::Received;
use folio::store::tokens::Begin;
use std::collections::BTreeSet;

const RETENTION: u64 = 1 << 20;
/// Different power cuts that each story goes through.
const CUTS: u64 = 300;

/// Two members that know of each other.
fn pair() -> [Node; 2] {
    acquainted([Node::new(1, RETENTION), Node::new(2, RETENTION)])
}

fn acquainted<const N: usize>(mut nodes: [Node; N]) -> [Node; N] {
    let all: Vec<_> = nodes.iter().map(Node::member).collect();
    for node in &mut nodes {
        node.mount.set_members(all.clone()).unwrap();
    }
    nodes
}

/// The next batches of the log of `from` go to `to`.
fn send(nodes: &mut [Node], from: usize, to: usize, batches: usize) {
    let log = nodes[from].mount.own_log();
    let covered = log.covered_by(&nodes[to].covers());
    let Some(slice) = nodes[from].slice(log, covered, batches) else { return };
    let disks: Vec<SimDisk> = nodes.iter().map(|node| node.disk.clone()).collect();
    let received = nodes[to].receive(&slice, &disks);
    assert!(matches!(received, Received::Covered(_)), "{received:?}");
}

/// Everybody has everything and says so, often enough for R12.
fn settle(nodes: &mut [Node]) {
    let all = 0..nodes.len();
    let pairs: Vec<_> =
        all.clone().flat_map(|from| all.clone().map(move |to| (from, to))).collect();
    for _ in 0..4 {
        for &(from, to) in pairs.iter().filter(|(from, to)| from != to) {
            send(nodes, from, to, usize::MAX);
            let (machine, report) = (nodes[from].machine, nodes[from].mount.own_report());
            nodes[to].mount.member_report(machine, &report);
        }
    }
}

fn archive_of(node: &Node) -> BTreeSet<(ObjectId, Tag)> {
    let all = list_archived(&node.disk).unwrap();
    all.into_iter().map(|lost| (lost.object, lost.tag)).collect()
}

/// The machine as it would come back after each of many power cuts.
fn after_each_cut(node: &mut Node, mut look: impl FnMut(&mut Node, u64)) {
    let before = node.disk.clone();
    for cut in 0..CUTS {
        node.disk = before.power_cut(&mut Dice::new(cut));
        node.reopen();
        look(node, cut);
    }
}

#[test]
fn no_former_tenant_is_written_over_who_was_given_the_end_of_its_place() {
    let mut nodes = pair();
    let first = nodes[0].put(&[1; 500]).id;
    nodes[0].modify(&first, &[2; 3]).unwrap();
    settle(&mut nodes);
    // In the room that the first one gave up.
    let second = nodes[0].put(&[3; 100]).id;
    assert_eq!(second.chunk, first.chunk);
    let end = first.offset_units + first.capacity_units;
    assert!((first.offset_units..end).contains(&second.offset_units), "the place was not reused");
    send(&mut nodes, 0, 1, usize::MAX);
    nodes[1].modify(&second, &[4; 90]).unwrap();
    after_each_cut(&mut nodes[1], |node, cut| {
        assert_eq!(node.read(&second).unwrap(), [4; 90], "cut {cut}");
        assert_eq!(node.read(&first).unwrap(), [2; 3], "cut {cut}");
    });
}

#[test]
fn no_former_content_is_written_over_the_one_that_moved_in_after_it() {
    let mut nodes = pair();
    let (first, second) = (nodes[0].put(&[1; 10]).id, nodes[0].put(&[2; 10]).id);
    // The older object moves out of its home twice, the younger one into what it left.
    nodes[0].modify(&first, &[3; 700]).unwrap();
    let left = nodes[0].home_body(&first);
    nodes[0].modify(&first, &[4; 1500]).unwrap();
    settle(&mut nodes);
    nodes[0].modify(&second, &[5; 700]).unwrap();
    assert_eq!(nodes[0].home_body(&second), left, "the place was not reused");
    send(&mut nodes, 0, 1, usize::MAX);
    nodes[1].modify(&second, &[6; 690]).unwrap();
    assert_eq!(nodes[1].home_body(&second), left);
    after_each_cut(&mut nodes[1], |node, cut| {
        assert_eq!(node.read(&second).unwrap(), [6; 690], "cut {cut}");
        assert_eq!(node.read(&first).unwrap(), [4; 1500], "cut {cut}");
    });
}

#[test]
fn no_power_cut_leaves_a_home_that_forwards_to_an_older_version() {
    let mut nodes = pair();
    let id = nodes[0].put(&[1; 10]).id;
    nodes[0].modify(&id, &[2; 900]).unwrap();
    nodes[0].delete(&id).unwrap();
    settle(&mut nodes);
    nodes[1].undelete(&id).unwrap();
    send(&mut nodes, 1, 0, usize::MAX);
    after_each_cut(&mut nodes[0], |node, cut| {
        assert_eq!(node.read(&id).unwrap(), [2; 900], "cut {cut}");
    });
}

#[test]
fn no_mirror_archives_a_large_content_that_the_others_do_not_have() {
    let mut nodes = pair();
    let id = nodes[0].put(&[1; 10]).id;
    settle(&mut nodes);
    nodes[1].modify(&id, &[2; 20]).unwrap();
    // Nobody knows of the other's edits. The large content is gone before the other machine hears of it.
    nodes[0].modify(&id, &[3; 9000]).unwrap();
    nodes[0].modify(&id, &[4; 30]).unwrap();
    send(&mut nodes, 0, 1, 1);
    send(&mut nodes, 0, 1, usize::MAX);
    send(&mut nodes, 1, 0, usize::MAX);
    let here = archive_of(&nodes[1]);
    assert_eq!(archive_of(&nodes[0]), here);
    // The name of the large content may come back with the power, before the log that speaks of it is read again.
    after_each_cut(&mut nodes[0], |node, cut| {
        assert_eq!(archive_of(node), here, "cut {cut}");
    });
}

#[test]
fn no_undelete_brings_back_an_object_whose_content_is_gone() {
    let mut nodes = pair();
    let id = nodes[0].put(&[1; 9000]).id;
    nodes[0].delete(&id).unwrap();
    let copy = nodes[0].copy(&id).unwrap();
    let file = nodes[0].chunkfile(copy.home.address.chunkfile()).unwrap();
    nodes[0].clock.set(1_000_000);
    while nodes[0].mount.maintain().unwrap() {}
    nodes[0].mount.commit().unwrap();
    // The other machine hears of the delete when nobody has the content any more.
    let mirror = &mut nodes[1].mount;
    let absorbed = mirror.absorb(&[file], std::slice::from_ref(&copy)).unwrap();
    assert_eq!(absorbed.needs.len(), 1);
    mirror.content_is_gone(absorbed.needs[0].0);
    assert_eq!(mirror.absorb(&[file], &[copy]).unwrap().taken, 1);
    assert_eq!(nodes[1].slot(id.home().address).map(|slot| slot.state), Some(State::Deleted));
    assert!(nodes[1].undelete(&id).is_none(), "an object without content lives");
}

/// A member that comes back is sent the records that it lacks by one mirror, while another one, to which it is live, sends
/// new ones all the time.
#[test]
fn no_live_mirror_keeps_the_records_of_another_waiting_for_a_content_that_is_gone() {
    let mut nodes = acquainted([1, 2, 3].map(|machine| Node::new(machine, RETENTION)));
    let id = nodes[0].put(&[1; 9000]).id;
    nodes[0].modify(&id, &[2; 9001]).unwrap();
    let log = nodes[0].mount.own_log();
    let slice = nodes[0].slice(log, log.covered_by(&nodes[1].covers()), usize::MAX).unwrap();
    let mut asked = BTreeSet::new();
    let received = loop {
        let received = nodes[1].mount.receive(std::slice::from_ref(&slice)).unwrap().remove(0);
        let Received::NeedsContent { content, .. } = received else { break received };
        assert!(asked.insert(content), "asked for twice");
        let disk = nodes[0].disk.clone();
        if !nodes[1].fetch(content, &[disk]) {
            nodes[1].mount.content_is_gone(content);
        }
        nodes[2].put(&[3; 10]);
        send(&mut nodes, 2, 1, usize::MAX);
    };
    assert!(matches!(received, Received::Covered(_)), "{received:?}");
    assert_eq!(asked.len(), 2, "the first content is gone, the second is fetched");
}

/// A client whose machine is gone asks a mirror with the same token, and the mirror was killed meanwhile.
#[test]
fn no_mirror_that_was_killed_does_a_change_twice() {
    let mut nodes = pair();
    let id = nodes[0].put(&[1; 900]).id;
    nodes[0].modify(&id, &[2; 800]).unwrap();
    send(&mut nodes, 0, 1, usize::MAX);
    let known = |node: &Node| node.tokens.of_mount(0).0;
    let before = known(&nodes[1]);
    assert_eq!(
        before.len(),
        1,
        "the mirror has heard of the last answer; the client has seen the one before"
    );
    nodes[1].kill();
    assert_eq!(known(&nodes[1]), before);
    for answered in before {
        assert!(matches!(nodes[1].tokens.begin(&answered.token), Begin::Answered(_)));
    }
}

#[test]
fn no_log_is_without_a_record_and_so_without_a_place_in_the_coverage() {
    let mut nodes = pair();
    for node in &mut nodes {
        let log = node.mount.own_log();
        assert!(log.covered_by(&node.covers()) > 0, "a log without a record");
        node.kill();
        assert_eq!(node.mount.own_log(), log, "the same life");
    }
    send(&mut nodes, 0, 1, usize::MAX);
    let log = nodes[0].mount.own_log();
    assert_eq!(log.covered_by(&nodes[1].covers()), nodes[0].mount.durable());
    // A second life is another log, and a second start none.
    let reborn = Node::of_life(1, RETENTION, 1);
    assert_ne!(reborn.mount.own_log(), log);
}

/// A member that lost its disk may have come back to what was before the edit that freed a place: what it reported
/// before counts for nothing.
#[test]
fn no_place_is_reused_on_the_word_of_a_former_life() {
    let mut nodes = pair();
    let id = nodes[0].put(&[1; 900]).id;
    settle(&mut nodes);
    nodes[0].modify(&id, &[2; 10]).unwrap();
    send(&mut nodes, 0, 1, usize::MAX);
    // Something that the second wait is for.
    nodes[0].put(&[3; 10]);
    let word = nodes[1].mount.own_report();
    nodes[0].mount.member_report(2, &word);
    assert!(nodes[0].mount.stats().waiting_bytes > 0, "freed after one wait");
    // Its next life has all that the first one covered, by copies of a mirror.
    nodes[1] = Node::of_life(2, RETENTION, 1);
    let covered = nodes[0].covers();
    nodes[1].mount.reached(&covered).unwrap();
    let word = nodes[1].mount.own_report();
    assert!(word.coverage.covers_all(&covered));
    nodes[0].mount.member_report(2, &word);
    assert!(nodes[0].mount.stats().waiting_bytes > 0, "a life went unnoticed");
    settle(&mut nodes);
    assert_eq!(nodes[0].mount.stats().waiting_bytes, 0, "the waits never end");
}

/// Of two records in one slice the first loses a conflict, and its large content goes to the archive; the second, a
/// delete over that content, wins it.
#[test]
fn no_content_of_what_stands_is_in_the_archive_only() {
    let mut nodes = pair();
    let id = nodes[0].put(&[1; 10]).id;
    settle(&mut nodes);
    nodes[1].modify(&id, &[2; 20]).unwrap();
    nodes[0].modify(&id, &[3; 9000]).unwrap();
    nodes[0].delete(&id).unwrap();
    send(&mut nodes, 0, 1, usize::MAX);
    assert!(nodes[1].undelete(&id).is_some(), "the deleted content is not here");
    assert_eq!(nodes[1].read(&id).unwrap(), [3; 9000]);
    after_each_cut(&mut nodes[1], |node, cut| {
        assert_eq!(node.read(&id).unwrap(), [3; 9000], "cut {cut}");
    });
}

/// A place is freed by a record of one log and used again by one of another; then its object is deleted, which says nothing of
/// the place. After a restart our own log, in which it was freed, is replayed before the others.
#[test]
fn no_content_under_a_tombstone_is_free_space_after_a_restart() {
    let mut nodes = acquainted([1, 2, 3].map(|machine| Node::new(machine, RETENTION)));
    let id = nodes[0].put(&[1; 10]).id;
    nodes[0].modify(&id, &[2; 900]).unwrap();
    settle(&mut nodes);
    let place = nodes[0].home_body(&id);
    nodes[1].modify(&id, &[3; 2000]).unwrap();
    nodes[2].modify(&id, &[4; 890]).unwrap();
    send(&mut nodes, 1, 0, usize::MAX);
    assert_ne!(nodes[0].home_body(&id), place, "the first edit moved it");
    send(&mut nodes, 2, 0, usize::MAX);
    assert_eq!(nodes[0].home_body(&id), place, "the other one is where it was, and wins");
    nodes[0].delete(&id).unwrap();
    nodes[0].kill();
    settle(&mut nodes);
    settle(&mut nodes);
    assert_eq!(nodes[0].mount.stats().waiting_bytes, 0, "the waits never end");
    for turn in 0..8 {
        nodes[0].put(&[10 + turn; 880]);
    }
    assert!(nodes[0].undelete(&id).is_some(), "what was deleted is overwritten");
    assert_eq!(nodes[0].read(&id).unwrap(), [4; 890]);
    nodes[0].mount.finish_checkpoint().unwrap();
    nodes[0].fsck(AT_THE_END);
}

/// Of two members each edits and deletes; one of them takes its delete back. What the other one deleted is kept, unless it is
/// what stands, byte for byte.
#[test]
fn no_deleted_edit_that_loses_vanishes_unless_its_bytes_stand() {
    for (here, there, kept) in
        [(&[5; 40][..], &[6; 40][..], true), (&[7; 40], &[7; 40], false), (&[], &[], false)]
    {
        let mut nodes = pair();
        let id = nodes[0].put(&[1; 300]).id;
        settle(&mut nodes);
        nodes[0].modify(&id, here).unwrap();
        let lost = nodes[0].delete(&id).unwrap().tag;
        nodes[1].modify(&id, there).unwrap();
        nodes[1].delete(&id).unwrap();
        nodes[1].undelete(&id).unwrap();
        send(&mut nodes, 1, 0, usize::MAX);
        send(&mut nodes, 0, 1, usize::MAX);
        settle(&mut nodes);
        for node in &nodes {
            assert_eq!(node.read(&id).unwrap(), there);
            assert_eq!(archive_of(node).contains(&(id, lost)), kept, "machine {}", node.machine);
        }
    }
}
