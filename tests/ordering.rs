//! The fear: two edits of one key are applied in another order than they arrived in.
//!
//! `ChunkFile`'s mailbox is what keeps the order. The same workload runs twice: through the actor, and with the
//! mailbox taken away (two threads call its handler, the mount behind a mutex). The check must pass the first and fail
//! the second, else the actor would be a decoration.
#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "tests start threads")]

mod common;

use common::rooms::{Asker, House, Told, engine, opened, shared};
use common::{Node, content};
use folio::actors::mount_room::MountRoom;
use folio::actors::placement::Placement;
use folio::actors::task::Task;
use folio::format::file_id::ObjectId;
use folio::messages::heads::Written;
use folio::settings::MountPolicy;
use folio::store::sim_disk::SimDisk;
use folio::store::tokens::TokenTable;
use std::collections::VecDeque;
use std::sync::{Arc, Barrier, Mutex};

const KEYS: usize = 3;
const EDITS: usize = 400;

/// Whether the edits of each key were applied in the order in which they were sent: the versions rise with the request
/// numbers, without a hole.
fn in_order(answers: &[(u64, Told)], keys: &[ObjectId]) -> Result<(), String> {
    let mut seen = 0;
    for key in keys {
        let edits = answers.iter().filter_map(|(request, told)| match told {
            Ok((id, tag)) if id == key => Some(Ok((*request, tag.n))),
            Ok(_) => None,
            Err(code) => Some(Err(format!("request {request} was refused: {code}"))),
        });
        let mut last = 0;
        for edit in edits {
            let (request, n) = edit?;
            if last != 0 && n != last + 1 {
                return Err(format!("request {request} became version {n}, the one before {last}"));
            }
            last = n;
            seen += 1;
        }
    }
    if seen == EDITS { Ok(()) } else { Err(format!("{seen} edits of {EDITS} were answered")) }
}

/// The edits of all keys, in the order in which they arrive: several of a key in a row, because neighbours are what two
/// threads swap.
fn edits(asker: &mut Asker, keys: &[ObjectId]) -> VecDeque<Task> {
    (0..EDITS).map(|i| asker.modify(keys[i / 4 % keys.len()], &content(i, 50 + i % 20)).1).collect()
}

fn created(answers: &[(u64, Told)]) -> Vec<ObjectId> {
    answers.iter().map(|(_, told)| told.expect("stored").0).collect()
}

#[test]
fn edits_of_one_key_are_applied_in_the_order_of_arrival() {
    let house = House::new(vec![SimDisk::default()]);
    let mut asker = house.asker();
    for i in 0..KEYS {
        house.mounts[0].send_put(0, asker.put(&content(i, 64)).1);
    }
    let keys = created(&asker.answers(KEYS));
    for task in edits(&mut asker, &keys) {
        let Task::Change(change) = &task else { continue };
        let folio::actors::task::What::Modify { id, .. } = &change.what else { continue };
        house.mounts[0].send(id.home().address.chunkfile(), task);
    }
    assert_eq!(in_order(&asker.answers(EDITS), &keys), Ok(()));
}

#[test]
fn without_the_mailbox_the_same_check_fails() {
    let tokens = Arc::new(TokenTable::default());
    let disk = SimDisk::default();
    let shared = shared(0);
    let placement = Placement::new(MountPolicy::RoundRobin);
    placement.set(vec![Arc::clone(&shared)]);
    let mut room = MountRoom::new(shared, placement);
    room.enter(opened(&disk, engine(&disk, 0, &tokens), 0));
    let mut asker = Asker::new(tokens);
    for i in 0..KEYS {
        let _asks_for_a_flush = room.handle(asker.put(&content(i, 64)).1);
    }
    room.commit();
    let keys = created(&asker.answers(KEYS));

    let queue = Mutex::new(edits(&mut asker, &keys));
    let room = Mutex::new(room);
    // Both threads have taken their task before either handles it: what two threads without a queue do all the time.
    let both = Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..EDITS / 2 {
                    let task = queue.lock().expect("queue").pop_front().expect("a task");
                    both.wait();
                    let _asks_for_a_flush = room.lock().expect("room").handle(task);
                }
            });
        }
    });
    room.lock().expect("room").commit();
    let answers = asker.answers(EDITS);
    assert!(answers.iter().all(|(_, told)| told.is_ok()), "every edit is applied");
    assert!(in_order(&answers, &keys).is_err(), "the order was kept by luck alone");
}

#[test]
fn pipelined_edits_of_one_connection_are_applied_in_the_order_of_arrival() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Node::start(dir.path(), 2, &[("threads.net", "2")]);
    let mut client = node.client();
    let keys: Vec<_> = (0..KEYS).map(|i| client.put(&content(i, 64)).expect("stored").id).collect();
    let requests: Vec<u64> =
        (0..EDITS).map(|i| client.send_modify(&keys[i % KEYS], &content(i, 40 + i % 50))).collect();
    let mut last = [1; KEYS];
    for (i, request) in requests.into_iter().enumerate() {
        let written: Written = client.outcome(request).expect("edited");
        assert_eq!(written.opver.n, last[i % KEYS] + 1, "edit {i}");
        last[i % KEYS] = written.opver.n;
    }
    for (k, key) in keys.iter().enumerate() {
        let i = (0..EDITS).rev().find(|i| i % KEYS == k).expect("the last edit");
        assert_eq!(client.get(key).expect("read"), content(i, 40 + i % 50));
    }
}
