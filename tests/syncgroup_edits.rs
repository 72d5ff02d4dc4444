//! Edits and reads that reach a mirror: what must not happen while the owner is there, and when it is not.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails here"
)]

mod common;

use common::Client;
use common::machines::{Machine, TrackerNode, insist, put_copies, syncgroup, until, until_live};
use common::proxy::{Proxy, Wire};
use folio::messages::error::ErrorCode;
use folio::messages::frame::FLAG_STREAMED;
use folio::messages::heads::{Modify, Written};
use folio::messages::opcode::{Opcode, Role};
use std::path::Path;

/// Has a change made by a mirror as soon as it takes it.
fn instead<T>(mut ask: impl FnMut() -> common::Outcome<T>) -> T {
    insist(|| match ask() {
        Err(ErrorCode::Busy) => Err(ErrorCode::Unavailable),
        other => other,
    })
}

/// Two storages; what the first says to the second goes through a wire.
fn wired(dir: &Path, extra: &[(&str, &str)]) -> (TrackerNode, Proxy, Vec<Machine>) {
    let (tracker, proxy) = (TrackerNode::start(), Proxy::start());
    let one = Machine::new(dir, 1, tracker.address, extra);
    let advertise = proxy.address.to_string();
    let mut extra = extra.to_vec();
    extra.push(("advertise", &advertise));
    let two = Machine::new(dir, 2, tracker.address, &extra);
    proxy.to(two.listen.parse().unwrap());
    let machines = vec![one, two];
    until_live(&machines);
    (tracker, proxy, machines)
}

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
    let told = instead(|| {
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
