//! One storage from outside, over frames: whole ways through the house, and what must not happen on them.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a test looks at files and starts threads"
)]

mod common;

use common::{Client, Node, content, outcome_of, settings};
use folio::format::file_id::ObjectId;
use folio::messages::error::ErrorCode;
use folio::messages::frame::{FLAG_STREAMED, Kind, Meta};
use folio::messages::heads::{
    Delete, Df, DfAnswer, Get, List, ListAnswer, Put, Stat, StatAnswer, Written,
};
use folio::messages::opcode::{Opcode, Role};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Files below a folder, by name.
fn files(dir: &Path) -> Vec<String> {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect(),
        Err(_) => Vec::new(),
    }
}

#[test]
fn what_was_stored_is_read_back_edited_deleted_and_brought_back() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Node::start(dir.path(), 2, &[]);
    let mut client = node.client();
    for len in [0, 1, 100, 4096, 65_536, 262_143, 262_144, 262_145, 1_000_000, 1_500_000] {
        let first = content(len, len);
        let written = client.put(&first).expect("stored");
        assert_eq!(client.get(&written.id).expect("read"), first, "{len}");
        // Growth, also past the threshold; the id stays.
        let second = content(len + 1, len * 2 + 10);
        if second.len() <= 2_000_000 {
            let edited = client.modify(&written.id, &second).expect("edited");
            assert_eq!(edited.id, written.id);
            assert!(edited.opver > written.opver);
            assert_eq!(client.get(&written.id).expect("read"), second, "{len}");
        }
        client.modify(&written.id, &first).expect("edited back");
        client.delete(&written.id).expect("deleted");
        assert_eq!(client.get(&written.id), Err(ErrorCode::NotFound));
        client.undelete(&written.id).expect("brought back");
        assert_eq!(client.get(&written.id).expect("read"), first, "{len}");
    }
    let stored = client.put(b"0123456789").expect("stored");
    let (head, bytes) = client.get_range(&stored.id, 2, Some(4)).expect("a range");
    assert_eq!((head.length, head.first, head.count, &bytes[..]), (10, 2, 3, &b"234"[..]));
    assert_eq!(client.get_range(&stored.id, 8, Some(99)).expect("to the end").1, b"89");
    assert_eq!(client.get_range(&stored.id, 10, None).err(), Some(ErrorCode::BadRange));
    assert_eq!(client.get_range(&stored.id, 5, Some(4)).err(), Some(ErrorCode::BadRange));
}

#[test]
fn a_large_object_streams_both_ways_and_its_ranges_are_its_own() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Node::start(dir.path(), 1, &[]);
    let mut client = node.client();
    let large = content(5, 9_000_017);
    for length in [Some(large.len() as u64), None] {
        let written = client.put_stream(length, &large).expect("stored");
        assert_eq!(client.get(&written.id).expect("read"), large);
        let (head, range) =
            client.get_range(&written.id, 3_000_000, Some(7_123_456)).expect("a range");
        assert_eq!(head.length, large.len() as u64);
        assert_eq!(range, large[3_000_000..=7_123_456]);
        let small = client.get_range(&written.id, 65_530, Some(65_540)).expect("a range").1;
        assert_eq!(small, large[65_530..=65_540]);
    }
    // A stream that turns out to be small ends in a slot.
    let written = client.put_stream(None, b"small after all").expect("stored");
    assert_eq!(client.get(&written.id).expect("read"), b"small after all");
    let empty = client.put_stream(Some(0), b"").expect("stored");
    assert_eq!(client.get(&empty.id).expect("read"), b"");
}

#[test]
fn a_stream_that_is_not_what_it_says_stores_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Node::start(dir.path(), 1, &[]);
    let mut client = node.client();
    let bytes = content(1, 600_000);
    assert_eq!(client.put_stream(Some(10), &bytes).err(), Some(ErrorCode::BadRequest), "longer");
    let short = client.put_stream(Some(700_000), &bytes).err();
    assert_eq!(short, Some(ErrorCode::BadRequest), "shorter");
    for part in [1000, 600_000] {
        let request = client.begin_stream(None, &bytes[..part]);
        let mut wrong = bytes[..part].to_vec();
        wrong[0] ^= 1;
        client.end_stream(request, &wrong);
        let refused = client.outcome::<Written>(request).err();
        assert_eq!(refused, Some(ErrorCode::Corrupted), "{part}");
    }
    drop(client);
    node.stop();
    assert!(files(&dir.path().join("m0/singles/tmp")).is_empty());
}

#[test]
fn an_upload_broken_off_leaves_no_file_behind() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Node::start(dir.path(), 1, &[]);
    let tmp = dir.path().join("m0/singles/tmp");
    let mut client = node.client();
    let request = client.begin_stream(None, &content(1, 9_000_000));
    assert_eq!(files(&tmp).len(), 1, "the upload is on its way");
    // Cancelled: no answer follows, and the connection goes on.
    client.frame(Meta::of_kind(Kind::Cancel, Opcode::Put.as_u16(), request), &(), b"");
    let kept = client.put(b"x").expect("the connection goes on");
    client.begin_stream(Some(20_000_000), &content(2, 9_000_000));
    drop(client);
    // The stop waits for the pool, and the pool removes the files.
    node.stop();
    assert!(files(&tmp).is_empty(), "{:?}", files(&tmp));
    let node = Node::start(dir.path(), 1, &[]);
    assert_eq!(node.client().get(&kept.id).expect("read"), b"x");
}

#[test]
fn everything_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("dir");
    let mut stored = BTreeMap::new();
    for round in 0..3_usize {
        let node = Node::start(dir.path(), 3, &[]);
        let mut client = node.client();
        for (id, expected) in &stored {
            let id = serde_bytes::ByteArray::new(*id);
            assert_eq!(&client.get(&id).expect("read"), expected, "round {round}");
        }
        let requests: Vec<_> = (0..300)
            .map(|i| {
                let bytes = content(round * 1000 + i, i * 37);
                (client.send_put(&bytes, None), bytes)
            })
            .collect();
        for (request, bytes) in requests {
            let written: Written = client.outcome(request).expect("stored");
            stored.insert(written.id.into_array(), bytes.to_vec());
        }
        drop(client);
        node.stop();
    }
    assert_eq!(stored.len(), 900);
}

#[test]
fn a_retried_put_is_answered_again_and_not_stored_twice_also_across_a_restart() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Node::start(dir.path(), 1, &[]);
    let mut client = node.client();
    let token = client.token();
    let head = Put { token, mount: None, reserve: None, length: Some(3) };
    let ask = |client: &mut Client| {
        let request = client.send(Opcode::Put, 0, &head, b"abc");
        client.outcome::<Written>(request).expect("stored")
    };
    let first = ask(&mut client);
    assert_eq!(ask(&mut client).id, first.id);
    drop(client);
    node.stop();
    let node = Node::start(dir.path(), 1, &[]);
    let mut client = node.client();
    assert_eq!(ask(&mut client).id, first.id);
    assert_eq!(list(&mut client, 512).len(), 1);
    // Whoever uses it for another change is not told that this was done.
    let head = Delete { id: first.id, token, if_opver: None };
    let request = client.send(Opcode::Delete, 0, &head, b"");
    let refused = client.outcome::<Written>(request).expect_err("it is a put's");
    assert_eq!(refused, ErrorCode::BadRequest);
    assert_eq!(list(&mut client, 512).len(), 1);
}

fn list(client: &mut Client, limit: u32) -> Vec<[u8; 45]> {
    let (mut found, mut cursor) = (Vec::new(), ByteBuf::new());
    loop {
        let request =
            client.send(Opcode::List, 0, &List { cursor, since_ms: None, limit, of: None }, b"");
        let page: ListAnswer = client.outcome(request).expect("a page");
        found.extend(page.items.iter().map(|item| item.id.into_array()));
        match page.next {
            Some(next) => cursor = next,
            None => return found,
        }
    }
}

#[test]
fn list_stat_and_df_tell_what_is_there() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Node::start(dir.path(), 3, &[]);
    let mut client = node.client();
    let mut ids: Vec<_> = (0..100)
        .map(|i| client.put(&content(i, i * 3000)).expect("stored").id.into_array())
        .collect();
    for id in ids.iter().step_by(4) {
        // Moved, and past the threshold: still listed by the same id.
        client.modify(&serde_bytes::ByteArray::new(*id), &content(1, 500_000)).expect("edited");
    }
    client.delete(&serde_bytes::ByteArray::new(ids[1])).expect("deleted");
    let request = client.send(
        Opcode::Stat,
        0,
        &Stat { id: serde_bytes::ByteArray::new(ids[0]), local_only: false },
        b"",
    );
    let stat: StatAnswer = client.outcome(request).expect("known");
    assert_eq!((stat.length, stat.forwarded), (500_000, true));
    ids.remove(1);
    let mut found = list(&mut client, 7);
    found.sort_unstable();
    ids.sort_unstable();
    assert_eq!(found, ids);
    let request = client.send(Opcode::Df, 0, &Df {}, b"");
    let df: DfAnswer = client.outcome(request).expect("space");
    assert_eq!(df.mounts.iter().map(|mount| mount.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(df.mounts.iter().all(|mount| mount.total > 0 && mount.why.is_empty()));
}

#[test]
fn puts_are_spread_evenly_over_the_mounts() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Node::start(dir.path(), 4, &[]);
    let mut client = node.client();
    let mut count = [0_usize; 4];
    for i in 0..400 {
        let written = client.put(&content(i, 100)).expect("stored");
        let id = folio::format::file_id::ObjectId::decode(&written.id).expect("an id");
        count[usize::from(id.mount)] += 1;
    }
    assert!(count.iter().all(|n| (90..=110).contains(n)), "{count:?}");
}

#[test]
fn an_exhausted_budget_is_busy_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("dir");
    let extra = [("limits.in_flight_requests", "2"), ("limits.in_flight_bytes", "4MiB")];
    let node = Node::start(dir.path(), 1, &extra);
    // Two uploads hold the whole budget.
    let (mut first, mut second) = (node.client(), node.client());
    let one = first.begin_stream(Some(1000), b"one");
    let two = second.begin_stream(Some(1000), b"two");
    let mut third = node.client();
    assert_eq!(third.put(b"x").err(), Some(ErrorCode::Busy));
    // A large frame is refused by its header, and what follows it is understood.
    assert_eq!(third.put(&content(1, 1 << 20)).err(), Some(ErrorCode::Busy));
    assert_eq!(third.put(b"x").err(), Some(ErrorCode::Busy));
    drop(second);
    let mut fourth = node.client();
    let rest = content(1, 997);
    let all = [b"one", &rest[..]].concat();
    first.frame(Meta::of_kind(Kind::Data, Opcode::Put.as_u16(), one), &(), &rest);
    first.end_stream(one, &all);
    let written: Written = first.outcome(one).expect("the upload goes on");
    assert_eq!(fourth.get(&written.id).expect("read"), all);
    assert!(fourth.put(b"x").is_ok(), "the budget was given back");
    let _ = two;
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_gives_everything_back() {
    let dir = tempfile::tempdir().expect("dir");
    let extra = [("limits.idle_timeout", "1s"), ("limits.in_flight_bytes", "32MiB")];
    let (tell, hear) = std::sync::mpsc::channel();
    let node = Node::start_with(settings(dir.path(), 1, &extra), move |storage| {
        tell.send(Arc::clone(storage.room())).expect("the test waits");
    });
    let room = hear.recv().expect("the room");
    let mut client = node.client();
    let id = client.put(&content(1, 200_000)).expect("stored").id;
    let get = Get { id, first: 0, last: None, min_opver: None, local_only: false, window: 0 };
    for _ in 0..500 {
        client.send(Opcode::Get, 0, &get, b"");
    }
    // What is not read stays within the budget, the sockets' buffers and one high-water mark.
    let begun = std::time::Instant::now();
    while room.counters.connections.load(Ordering::Relaxed) > 0 {
        assert!(room.budget.in_flight().1 <= 32 << 20);
        assert!(begun.elapsed().as_secs() < 60, "it was never dropped");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(room.budget.in_flight(), (0, 0));
    assert_eq!(node.client().get(&id).expect("others are served"), content(1, 200_000));
}

#[test]
fn nonsense_is_refused_and_the_connection_goes_on() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Node::start(dir.path(), 1, &[]);
    let mut client = node.client();
    let written = client.put(b"x").expect("stored");
    let mut wrong = written.id;
    wrong[20] ^= 1;
    assert_eq!(client.get(&wrong).err(), Some(ErrorCode::BadId));
    let id = folio::format::file_id::ObjectId::decode(&written.id).expect("an id");
    let forge = |id: folio::format::file_id::ObjectId| serde_bytes::ByteArray::new(id.encode());
    let elsewhere = forge(folio::format::file_id::ObjectId { machine: 9, ..id });
    assert_eq!(client.get(&elsewhere).err(), Some(ErrorCode::WrongNode));
    let no_mount = forge(folio::format::file_id::ObjectId { mount: 9, ..id });
    assert_eq!(client.get(&no_mount).err(), Some(ErrorCode::WrongNode));
    let guess = forge(folio::format::file_id::ObjectId { cookie: 0, ..id });
    assert_eq!(client.get(&guess).err(), Some(ErrorCode::NotFound));
    assert_eq!(client.modify(&guess, b"y").err(), Some(ErrorCode::NotFound));
    let request = client.send(Opcode::View, 0, &(), b"");
    assert_eq!(client.outcome::<()>(request).err(), Some(ErrorCode::UnknownOpcode));
    let request = client.send(Opcode::Put, 0, &("not", "a", "put"), b"x");
    assert_eq!(client.outcome::<()>(request).err(), Some(ErrorCode::BadRequest));
    let token = client.token();
    let head = Put { token, mount: None, reserve: None, length: Some(5) };
    let request = client.send(Opcode::Put, 0, &head, b"x");
    assert_eq!(client.outcome::<()>(request).err(), Some(ErrorCode::BadRequest), "length");
    let request = client.send(Opcode::Put, FLAG_STREAMED, &head, b"x");
    assert_eq!(client.outcome::<()>(request).err(), Some(ErrorCode::BadRequest), "streamed");
    // Large pieces of an upload that nobody began, or that is shorter, are passed over.
    let piece = content(1, 1 << 20);
    client.frame(Meta::of_kind(Kind::Data, Opcode::Put.as_u16(), 999), &(), &piece);
    let request = client.begin_stream(Some(1000), b"short");
    client.frame(Meta::of_kind(Kind::Data, Opcode::Put.as_u16(), request), &(), &piece);
    assert_eq!(client.outcome::<()>(request).err(), Some(ErrorCode::BadRequest));
    assert_eq!(client.get(&written.id).expect("still there"), b"x");
    let mut admin = Client::connect(node.address, Role::Admin);
    assert_eq!(admin.put(b"x").err(), Some(ErrorCode::Forbidden));
    let mut stranger = Client::raw(node.address);
    let request = stranger.send(Opcode::Df, 0, &Df {}, b"");
    let frame = stranger.answer(request);
    assert_eq!(outcome_of::<()>(&frame).err(), Some(ErrorCode::Unauthorized));
}

#[test]
fn a_lost_mount_fails_alone_and_the_others_serve() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Node::start(dir.path(), 3, &[]);
    let mut client = node.client();
    let ids: Vec<_> = (0..30).map(|i| client.put(&content(i, 500)).expect("stored").id).collect();
    std::fs::rename(dir.path().join("m1"), dir.path().join("gone")).expect("renamed");
    // The watch looks each two seconds.
    let mount_of = |id: &serde_bytes::ByteArray<45>| {
        folio::format::file_id::ObjectId::decode(id).expect("an id").mount
    };
    let on_lost = ids.iter().find(|id| mount_of(id) == 1).expect("one of them");
    let waited = std::time::Instant::now();
    while client.get(on_lost).is_ok() {
        assert!(waited.elapsed().as_secs() < 30, "the loss was never noticed");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(client.get(on_lost).err(), Some(ErrorCode::Fenced));
    for (i, id) in ids.iter().enumerate().filter(|(_, id)| mount_of(id) != 1) {
        assert_eq!(client.get(id).expect("read"), content(i, 500));
    }
    for i in 0..10 {
        let written = client.put(&content(i, 10)).expect("the others take puts");
        assert_ne!(mount_of(&written.id), 1);
    }
    // It comes back by itself.
    std::fs::rename(dir.path().join("gone"), dir.path().join("m1")).expect("renamed");
    while client.get(on_lost).is_err() {
        assert!(waited.elapsed().as_secs() < 60, "it never came back");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn two_daemons_never_share_a_mount_and_bad_mounts_are_named() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Node::start(dir.path(), 1, &[]);
    let other_state = dir.path().join("other-state");
    let mut second = settings(dir.path(), 1, &[]);
    second.state_dir = other_state;
    let text = start_error(second);
    assert!(text.contains("locked by another daemon"), "{text}");
    let text = start_error(settings(dir.path(), 1, &[]));
    assert!(text.contains("state_dir") && text.contains("another daemon"), "{text}");
    let taken = node.address.to_string();
    let text = start_error(settings(&dir.path().join("x"), 1, &[("listen", &taken)]));
    assert!(text.contains("listen") && text.contains("in use"), "{text}");
}

fn start_error(settings: folio::settings::StorageSettings) -> String {
    std::thread::spawn(move || {
        actix::System::new().block_on(async move {
            let started = folio::storage::start(settings, Default::default()).await;
            started.err().expect("refused").to_string()
        })
    })
    .join()
    .expect("no panic")
}

/// A header that is gone from its place is damage, whatever stands there now; a purged id stays "not found" whatever
/// comes to its place.
#[test]
fn a_lost_header_is_never_taken_for_an_object_that_never_was() {
    let dir = tempfile::tempdir().expect("dir");
    let node = Node::start(dir.path(), 1, &[("store.undelete_window", "0s")]);
    let mut client = node.client();
    let ids: Vec<_> = (0..20).map(|n| client.put(&content(n, 3000)).expect("stored").id).collect();
    let at = |id: &folio::messages::heads::IdBytes| {
        let home = ObjectId::decode(id).expect("an id").home().address;
        let path = dir.path().join("m0").join(folio::format::paths::chunk(home.chunkfile()));
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("open");
        (file, home.offset())
    };
    let (file, offset) = at(&ids[7]);
    let mut good = [0; 192];
    file.read_exact_at(&mut good, offset).expect("read");
    let (mut flipped, mut other) = (good, [0; 192]);
    flipped[2] ^= 0x10;
    file.read_exact_at(&mut other, at(&ids[8]).1).expect("read");
    for bad in [flipped, [0; 192], [0x5a; 192], other] {
        file.write_all_at(&bad, offset).expect("write");
        assert_eq!(client.get(&ids[7]), Err(ErrorCode::Damaged));
        let stat = Stat { id: ids[7], local_only: true };
        let request = client.send(Opcode::Stat, 0, &stat, b"");
        assert_eq!(client.outcome::<StatAnswer>(request).err(), Some(ErrorCode::Damaged));
        assert_eq!(client.modify(&ids[7], b"new").err(), Some(ErrorCode::Damaged));
        assert_eq!(client.delete(&ids[7]).err(), Some(ErrorCode::Damaged));
    }
    file.write_all_at(&good, offset).expect("write");
    assert_eq!(client.get(&ids[7]).expect("read"), content(7, 3000));

    for id in &ids {
        client.delete(id).expect("deleted");
    }
    // Larger ones: the homes of the old ones end up inside their content.
    let newer: Vec<_> =
        (0..40).map(|n| client.put(&content(n, 7000)).expect("stored").id).collect();
    for id in &ids {
        assert_eq!(client.get(id), Err(ErrorCode::NotFound));
    }
    for (n, id) in newer.iter().enumerate() {
        assert_eq!(client.get(id).expect("read"), content(n, 7000));
    }
}
