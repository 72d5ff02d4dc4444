//! Edits and reads that reach a mirror: what must not happen while the owner is there, and when it is not.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails here"
)]

mod common;

use common::Client;
use common::machines::{Machine, insist, put_copies, syncgroup, until, wired};
use common::proxy::Wire;
use folio::format::file_id::ObjectId;
use folio::format::ids::Tag;
use folio::messages::error::ErrorCode;
use folio::messages::frame::FLAG_STREAMED;
use folio::messages::heads::{
    Get, IdBytes, Modify, ObjectHead, ObjectState, Stat, StatAnswer, WINDOW, Written,
};
use folio::messages::opcode::{Opcode, Role};

/// While its owner is there a mirror hands every change to it, and answers what the owner answers.
#[test]
fn no_edit_beside_its_owner_is_made_by_anybody_else_or_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, machines) = syncgroup(dir.path(), 2, &[]);
    let put = put_copies(&machines[0], 0, 2);
    let mut mirror = machines[1].client();
    let token = mirror.token();
    let head = Modify { id: put.id, token, if_opver: Some(put.opver), length: Some(4) };
    let request = mirror.send(Opcode::Modify, 0, &head, b"once");
    let first: Written = mirror.outcome(request).expect("handed on, and compared by the owner");
    assert_eq!((first.opver.machine, first.opver.n, first.copies), (1, 2, 2));
    // The same again, here and there: the same answer, and no second edit.
    for machine in [1, 0, 1] {
        let mut other = machines[machine].client();
        let again = insist(|| {
            let request = other.send(Opcode::Modify, 0, &head, b"once");
            other.outcome::<Written>(request)
        });
        assert_eq!(again.opver, first.opver);
    }
    let token = mirror.token();
    let stale = Modify { id: put.id, token, if_opver: Some(put.opver), length: Some(5) };
    let request = mirror.send(Opcode::Modify, 0, &stale, b"stale");
    assert_eq!(mirror.outcome::<Written>(request).err(), Some(ErrorCode::Precondition));
    // What the owner refused may be tried again with the same token.
    let fresh = Modify { if_opver: Some(first.opver), ..stale };
    let request = mirror.send(Opcode::Modify, 0, &fresh, b"fresh");
    let second: Written = mirror.outcome(request).expect("compared by the owner");
    assert_eq!((second.opver.machine, second.opver.n), (1, 3));
    let deleted = mirror.delete(&put.id).expect("handed on");
    let back = mirror.undelete(&put.id).expect("handed on");
    assert_eq!((deleted.opver.machine, back.opver.machine, back.opver.life), (1, 1, 2));
    assert_eq!(machines[0].client().get(&put.id).expect("there"), b"fresh");
    // Many at once keep their order.
    let requests: Vec<u64> = (0..50_u8).map(|n| mirror.send_modify(&put.id, &[n; 2000])).collect();
    for request in requests {
        mirror.outcome::<Written>(request).expect("handed on");
    }
    assert_eq!(machines[0].client().get(&put.id).expect("there"), [49; 2000]);
    // A streamed body is not handed on: its owner takes it.
    let token = mirror.token();
    let head = Modify { id: put.id, token, if_opver: None, length: Some(3_000_000) };
    let request = mirror.send(Opcode::Modify, FLAG_STREAMED, &head, b"");
    assert_eq!(mirror.outcome::<Written>(request).err(), Some(ErrorCode::WrongNode));
    // A storage that asks is the one that handed it on: it is told, not handed on again.
    let mut peer = Client::connect(machines[1].running.as_ref().unwrap().0.address, Role::Peer);
    assert_eq!(peer.modify(&put.id, b"round and round").err(), Some(ErrorCode::WrongNode));
    assert_eq!(peer.delete(&put.id).err(), Some(ErrorCode::WrongNode));
    assert_eq!(peer.undelete(&put.id).err(), Some(ErrorCode::WrongNode));
}

/// An owner that falls silent with an edit in hand may have made it: the answer says so, and the retry tells.
#[test]
fn what_an_owner_that_fell_silent_made_of_an_edit_is_not_guessed() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, proxy, machines) = wired(dir.path(), &[]);
    let put = put_copies(&machines[1], 0, 2);
    until("it is here", || machines[0].reads(&put.id).is_some());
    let mut mirror = machines[0].client();
    proxy.set(Wire::Holds);
    let token = mirror.token();
    let head = Modify { id: put.id, token, if_opver: None, length: Some(7) };
    let request = mirror.send(Opcode::Modify, 0, &head, b"unknown");
    assert_eq!(mirror.outcome::<Written>(request).err(), Some(ErrorCode::UnknownOutcome));
    proxy.set(Wire::Passes);
    let told = insist(|| {
        let request = mirror.send(Opcode::Modify, 0, &head, b"unknown");
        mirror.outcome::<Written>(request)
    });
    until("both have it", || {
        machines.iter().all(|m| m.reads(&put.id) == Some(b"unknown".to_vec()))
    });
    assert!(told.opver > put.opver);
    let archived = |machine: &Machine| {
        machine.room().placement.mounts().iter().map(|m| m.stats().archived).sum::<u64>()
    };
    assert_eq!(
        machines.iter().map(archived).sum::<u64>(),
        0,
        "one edit is no conflict with itself"
    );
}

/// A read of a whole object with all that may be asked of it.
fn read(
    client: &mut Client,
    id: &IdBytes,
    min_opver: Option<Tag>,
    local_only: bool,
) -> common::Outcome<(Tag, Vec<u8>)> {
    let head = Get { id: *id, first: 0, last: None, min_opver, local_only, window: WINDOW };
    let request = client.send(Opcode::Get, 0, &head, b"");
    let frame = client.answer(request);
    let object: ObjectHead = common::outcome_of(&frame)?;
    assert_eq!(object.length, object.count, "the whole of it");
    Ok((object.opver, frame.into_payload().to_vec()))
}

fn stat(client: &mut Client, id: &IdBytes, local_only: bool) -> common::Outcome<StatAnswer> {
    let request = client.send(Opcode::Stat, 0, &Stat { id: *id, local_only }, b"");
    client.outcome(request)
}

/// "Not found" is said with evidence only: what a mirror has not heard of it asks the others for, and who is away may have it.
#[test]
fn no_object_is_not_found_because_a_mirror_is_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, proxy, mut machines) = wired(dir.path(), &[]);
    let before = put_copies(&machines[0], 0, 2);
    until("it is there", || machines[1].reads(&before.id).is_some());
    // Nothing of the first reaches the second; the second can ask the first.
    proxy.set(Wire::Holds);
    let hidden = machines[0].put(0, b"unheard of").expect("stored");
    assert_eq!(hidden.copies, 1);
    let large = machines[0].put(0, &vec![7; 700_000]).expect("stored");
    let edited = machines[0].client().modify(&before.id, b"edited").expect("stored");
    let mut mirror = machines[1].client();
    for id in [&hidden.id, &large.id] {
        let local = read(&mut mirror, id, None, true);
        assert_eq!(local.err(), Some(ErrorCode::Unavailable), "local bytes only");
        assert_eq!(stat(&mut mirror, id, true).err(), Some(ErrorCode::Unavailable));
    }
    let (opver, bytes) = read(&mut mirror, &hidden.id, None, false).expect("the owner has it");
    assert_eq!((opver, bytes), (hidden.opver, b"unheard of".to_vec()));
    let (_, bytes) = read(&mut mirror, &large.id, None, false).expect("the owner has it");
    assert_eq!(bytes, vec![7; 700_000]);
    assert_eq!(stat(&mut mirror, &hidden.id, false).expect("the owner has it").length, 10);
    // Read your writes: this or a later version, of whomever has it.
    let (opver, _) = read(&mut mirror, &before.id, None, false).expect("an old one will do");
    assert_eq!(opver, before.opver);
    let seen = read(&mut mirror, &before.id, Some(edited.opver), false).expect("the owner has it");
    assert_eq!(seen, (edited.opver, b"edited".to_vec()));
    let local = read(&mut mirror, &before.id, Some(edited.opver), true);
    assert_eq!(local.err(), Some(ErrorCode::Behind));
    let later = Tag { n: edited.opver.n + 1, ..edited.opver };
    let nobody = read(&mut mirror, &before.id, Some(later), false);
    assert_eq!(nobody.err(), Some(ErrorCode::Behind), "after all were asked");
    // What nobody has does not exist, if everybody says so.
    let mut made_up = ObjectId::decode(&hidden.id).unwrap();
    made_up.sequence += 1000;
    made_up.cookie ^= 1;
    let made_up = IdBytes::new(made_up.encode());
    assert_eq!(read(&mut mirror, &made_up, None, false).err(), Some(ErrorCode::NotFound));
    // Who is away may have it.
    machines[0].stop();
    until("it is away", || !machines[1].room().peers.get(1).unwrap().is_connected());
    for id in [&hidden.id, &made_up] {
        let gone = read(&mut mirror, id, None, false);
        assert_eq!(gone.err(), Some(ErrorCode::Unavailable), "the owner may have it");
        assert_eq!(stat(&mut mirror, id, false).err(), Some(ErrorCode::Unavailable));
        let edit = insist(|| match mirror.modify(id, b"blind") {
            Err(ErrorCode::Unavailable) => Ok(None),
            Err(code) => Err(code),
            Ok(written) => Ok(Some(written)),
        });
        assert_eq!(edit, None, "nor can it be edited");
    }
    let behind = read(&mut mirror, &before.id, Some(edited.opver), false);
    assert_eq!(behind.err(), Some(ErrorCode::Behind));
    proxy.set(Wire::Passes);
    machines[0].start();
    until("it is there", || machines[1].reads(&hidden.id).is_some());
    mirror.delete(&hidden.id).expect("handed on");
    until("it is deleted", || {
        stat(&mut mirror, &hidden.id, true).is_ok_and(|s| s.state == ObjectState::Deleted)
    });
    machines[0].stop();
    let deleted = read(&mut mirror, &hidden.id, None, false);
    assert_eq!(deleted.err(), Some(ErrorCode::NotFound), "a tombstone is evidence");
}

/// What is damaged here is read from a mirror, and local bytes are still what they are.
#[test]
fn no_damaged_copy_hides_a_good_one() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, machines) = syncgroup(dir.path(), 2, &[]);
    let put = put_copies(&machines[0], 0, 2);
    until("it is there", || machines[1].reads(&put.id).is_some());
    let id = ObjectId::decode(&put.id).unwrap();
    let chunk = folio::format::paths::chunk(id.home().address.chunkfile());
    let file = dir.path().join("s1/m0").join(chunk);
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.write_all_at(b"!", id.home().address.offset() + 192).unwrap();
    let mut owner = machines[0].client();
    assert_eq!(read(&mut owner, &put.id, None, true).err(), Some(ErrorCode::Damaged));
    let (opver, bytes) = read(&mut owner, &put.id, None, false).expect("the mirror has it");
    assert_eq!((opver, bytes), (put.opver, b"enough copies".to_vec()));
}
