//! Storages that mirror each other, in this process, over real sockets and disks: what must not happen between them.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails here"
)]

mod common;

use common::content;
use common::machines::{Machine, honest, insist, put_copies, syncgroup, until, until_live, wired};
use common::proxy::Wire;
use folio::actors::peers::SyncState;
use folio::messages::error::ErrorCode;
use folio::messages::heads::{Acks, Delete, Written};
use folio::messages::opcode::Opcode;

#[test]
fn what_was_acknowledged_by_all_is_on_all() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, machines) = syncgroup(dir.path(), 3, &[("durability.acks", "all")]);
    for (turn, machine) in machines.iter().enumerate() {
        let mut client = machine.client();
        for len in [0, 1, 4096, 200_000, 300_000, 1_500_000] {
            let first = content(len + turn, len);
            let written = insist(|| client.put(&first));
            assert_eq!((written.acks, written.copies, written.degraded), (Acks::All, 3, false));
            for mirror in &machines {
                assert_eq!(
                    mirror.reads(&written.id),
                    Some(first.to_vec()),
                    "{len} on {}",
                    mirror.id
                );
            }
            let second = content(len + 7, len / 2 + 10);
            let edited = insist(|| client.modify(&written.id, &second));
            assert_eq!(edited.copies, 3);
            for mirror in &machines {
                assert_eq!(
                    mirror.reads(&written.id),
                    Some(second.to_vec()),
                    "{len} on {}",
                    mirror.id
                );
            }
            let unsure = |done: common::Outcome<Written>| {
                assert!(matches!(done, Ok(_) | Err(ErrorCode::UnknownOutcome)), "{done:?}");
                if done.is_err() {
                    until_live(&machines);
                }
            };
            unsure(client.delete(&written.id));
            until("it is deleted everywhere", || {
                machines.iter().all(|mirror| mirror.reads(&written.id).is_none())
            });
            let undeleted = client.undelete(&written.id);
            assert!(!matches!(undeleted, Err(ErrorCode::NotFound)), "{undeleted:?}");
            if undeleted.is_err() {
                continue;
            }
            for mirror in &machines {
                assert_eq!(
                    mirror.reads(&written.id),
                    Some(second.to_vec()),
                    "{len} on {}",
                    mirror.id
                );
            }
        }
    }
}

#[test]
fn a_mirror_that_was_away_catches_up_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, mut machines) = syncgroup(dir.path(), 3, &[]);
    machines[2].stop();
    let mut written: Vec<(Written, Vec<u8>)> = Vec::new();
    for (turn, machine) in machines.iter().take(2).enumerate() {
        let mut client = machine.client();
        for i in 0..200 {
            let bytes = content(i + turn, 1000 + i * 37).to_vec();
            let put = client.put(&bytes).expect("stored");
            honest(&put);
            written.push((put, bytes));
        }
        let large = content(turn, 3_000_000);
        let put = client.put_stream(None, &large).expect("stored");
        written.push((put, large.to_vec()));
    }
    machines[2].start();
    until_live(&machines);
    for (put, bytes) in &written {
        assert_eq!(machines[2].reads(&put.id).as_ref(), Some(bytes));
    }
}

#[test]
fn with_all_trackers_down_mirrors_find_each_other_again() {
    let dir = tempfile::tempdir().unwrap();
    let (tracker, mut machines) = syncgroup(dir.path(), 2, &[]);
    drop(tracker);
    machines[1].stop();
    machines[0].stop();
    // Same addresses: nobody is there to tell of new ones.
    machines[0].start();
    machines[1].start();
    until_live(&machines);
    let put = put_copies(&machines[0], 0, 2);
    assert_eq!(machines[1].reads(&put.id).as_deref(), Some(&b"enough copies"[..]));
}

#[test]
fn third_machines_pass_on_what_a_lost_origin_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, mut machines) = syncgroup(dir.path(), 3, &[]);
    machines[2].stop();
    let put = put_copies(&machines[0], 0, 2);
    machines[0].stop();
    machines[2].start();
    until("the record comes from the mirror", || {
        machines[2].reads(&put.id).as_deref() == Some(&b"enough copies"[..])
    });
}

#[test]
fn an_answer_never_claims_a_copy_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, mut machines) = syncgroup(dir.path(), 2, &[]);
    assert_eq!(put_copies(&machines[0], 0, 2).acks, Acks::Mirror);
    machines[1].stop();
    until("the loss is seen", || !machines[0].holds_live(2));
    let put = machines[0].client().put(b"one").expect("stored all the same");
    assert_eq!((put.copies, put.degraded), (1, true));
    assert!(machines[0].room().is_degraded());
    machines[1].start();
    until_live(&machines);
    until("it is not degraded any more", || !machines[0].room().is_degraded());
    assert_eq!(machines[1].reads(&put.id).as_deref(), Some(&b"one"[..]));
}

#[test]
fn who_asks_for_copies_that_cannot_be_had_is_refused_before_anything_is_done() {
    for (acks, alone) in [("mirror", "refuse"), ("all", "accept")] {
        let dir = tempfile::tempdir().unwrap();
        let extra = [("durability.acks", acks), ("durability.when_alone", alone)];
        let (_tracker, mut machines) = syncgroup(dir.path(), 2, &extra);
        put_copies(&machines[0], 0, 2);
        machines[1].stop();
        until("the loss is seen", || !machines[0].holds_live(2));
        until("it is refused", || {
            machines[0].client().put(b"x").err() == Some(ErrorCode::Unavailable)
        });
        let before = machines[0].room().placement.mounts()[0].mirror.tail().borrow().unwrap();
        assert_eq!(machines[0].client().put(b"x").err(), Some(ErrorCode::Unavailable));
        let after = machines[0].room().placement.mounts()[0].mirror.tail().borrow().unwrap();
        assert_eq!(before, after, "nothing was done");
        machines[1].start();
        until_live(&machines);
        until("it is taken again", || machines[0].client().put(b"again").is_ok());
    }
}

#[test]
fn a_sole_member_is_not_degraded() {
    let dir = tempfile::tempdir().unwrap();
    for (acks, alone) in [("mirror", "refuse"), ("all", "refuse")] {
        let extra = [("durability.acks", acks), ("durability.when_alone", alone)];
        let (_tracker, machines) = syncgroup(&dir.path().join(acks), 1, &extra);
        let put = machines[0].client().put(b"alone").expect("stored");
        assert_eq!((put.copies, put.degraded), (1, false));
    }
}

#[test]
fn a_mirror_that_falls_silent_holds_up_nobody_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, proxy, machines) = wired(dir.path(), &[]);
    put_copies(&machines[0], 0, 2);
    proxy.set(Wire::Holds);
    // It waits its patience, once.
    let put = machines[0].put(0, b"silence").expect("stored all the same");
    assert_eq!((put.copies, put.degraded), (1, true));
    let mirror = &machines[0].room().placement.mounts()[0].mirror;
    assert!(mirror.is_late(2) || !machines[0].holds_live(2), "nothing waits for it now");
    let put = machines[0].put(0, b"again").expect("stored all the same");
    assert_eq!((put.copies, put.degraded), (1, true));
    proxy.set(Wire::Passes);
    until("it is waited for again", || {
        machines[0].put(0, b"again").is_ok_and(|put| (put.copies, put.degraded) == (2, false))
    });
    until("it has what it missed", || machines[1].reads(&put.id).as_deref() == Some(&b"again"[..]));
}

#[test]
fn silence_of_a_mirror_that_must_have_it_is_an_unknown_outcome_and_no_lie() {
    for (acks, alone) in [("mirror", "refuse"), ("all", "accept")] {
        let dir = tempfile::tempdir().unwrap();
        let extra = [("durability.acks", acks), ("durability.when_alone", alone)];
        let (_tracker, proxy, machines) = wired(dir.path(), &extra);
        put_copies(&machines[0], 0, 2);
        proxy.set(Wire::Holds);
        assert_eq!(machines[0].put(0, b"silence").err(), Some(ErrorCode::UnknownOutcome), "{acks}");
        assert_eq!(machines[0].put(0, b"silence").err(), Some(ErrorCode::Unavailable), "{acks}");
        proxy.set(Wire::Passes);
        until("it is taken again", || machines[0].put(0, b"again").is_ok());
    }
}

#[test]
fn a_flapping_link_costs_a_window_and_loses_nothing() {
    const FLAPS: u64 = 8;
    let dir = tempfile::tempdir().unwrap();
    let window = 256 * 1024;
    let (_tracker, proxy, machines) =
        wired(dir.path(), &[("sync.window_bytes", "256KiB"), ("sync.retry_min", "10ms")]);
    let peer = machines[0].room().peers.get(2).unwrap();
    let sent = || peer.mount(0).unwrap().sent_bytes();
    let before = sent();
    let (mut written, mut bytes) = (Vec::new(), 0);
    let mut client = machines[0].client();
    for flap in 0..FLAPS {
        proxy.set(if flap % 2 == 0 { Wire::Cut } else { Wire::Passes });
        for i in 0..50 {
            let payload = content(i + flap as usize, 5000).to_vec();
            let id = client.send_put(&payload, Some(0));
            let put: Written = client.outcome(id).expect("stored all the same");
            if put.copies == 2 {
                let there = machines[1].reads(&put.id);
                assert_eq!(there.as_ref(), Some(&payload), "it was counted as a copy");
            }
            bytes += payload.len() as u64 + 600;
            written.push((put, payload));
        }
        if flap % 2 == 1 {
            until("it has caught up", || machines[0].holds_live(2));
        }
    }
    proxy.set(Wire::Passes);
    until_live(&machines);
    for (put, payload) in &written {
        until("it is there", || machines[1].reads(&put.id).as_ref() == Some(payload));
    }
    // Less than a window and one slice, which is no larger, were on their way at each cut.
    let most = bytes + FLAPS / 2 * 2 * window;
    let cost = sent() - before;
    assert!(cost <= most, "{cost} bytes sent for {bytes}, at most {most} expected");
}

#[test]
fn a_failed_mount_of_a_mirror_stops_only_that_mounts_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, machines) = syncgroup(dir.path(), 2, &[]);
    machines[1].room().placement.mounts()[1].fence("a test".to_owned());
    until("it is away", || machines[0].states(2) == [SyncState::Live, SyncState::Away]);
    let put = machines[0].put(1, b"alone").expect("stored all the same");
    assert_eq!((put.copies, put.degraded), (1, true));
    for _ in 0..20 {
        put_copies(&machines[0], 0, 2);
    }
}

#[test]
fn a_large_object_that_nobody_has_any_more_holds_up_no_mirror() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, mut machines) = syncgroup(dir.path(), 2, &[]);
    machines[1].stop();
    let mut client = machines[0].client();
    let put = client.put_stream(None, &content(1, 2_000_000)).expect("stored");
    let deleted = client.put_stream(None, &content(2, 1_000_000)).expect("stored");
    client.modify(&put.id, b"small now").expect("edited");
    client.modify(&deleted.id, b"small now").expect("edited");
    client.delete(&deleted.id).expect("deleted");
    let last = client.put(b"behind them").expect("stored");
    machines[1].start();
    until_live(&machines);
    assert_eq!(machines[1].reads(&put.id).as_deref(), Some(&b"small now"[..]));
    assert_eq!(machines[1].reads(&deleted.id), None);
    assert_eq!(machines[1].reads(&last.id).as_deref(), Some(&b"behind them"[..]));
}

#[test]
fn a_new_member_gets_what_was_there_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (tracker, mut machines) = syncgroup(dir.path(), 1, &[]);
    let put = machines[0].put(0, b"older").expect("stored");
    assert_eq!((put.copies, put.degraded), (1, false));
    machines.push(Machine::new(dir.path(), 2, tracker.address, &[]));
    // It takes changes only when the others know it, so its first change has a second copy to go to.
    let first = machines[1].put(0, b"newer").expect("stored");
    assert!(first.copies == 2 || first.degraded, "{first:?}");
    until_live(&machines);
    assert_eq!(machines[1].reads(&put.id).as_deref(), Some(&b"older"[..]));
    assert_eq!(machines[0].reads(&first.id).as_deref(), Some(&b"newer"[..]));
    put_copies(&machines[0], 0, 2);
}

#[test]
fn a_retry_is_answered_with_the_copies_that_there_are_now() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, proxy, machines) = wired(dir.path(), &[]);
    proxy.set(Wire::Holds);
    let mut client = machines[0].client();
    let token = client.token();
    let head =
        folio::messages::heads::Put { token, mount: Some(0), reserve: None, length: Some(3) };
    let opcode = folio::messages::opcode::Opcode::Put;
    let id = client.send(opcode, 0, &head, b"one");
    let first: Written = client.outcome(id).expect("stored");
    assert_eq!((first.copies, first.degraded), (1, true));
    proxy.set(Wire::Passes);
    until("it has two copies", || {
        let id = client.send(opcode, 0, &head, b"one");
        let again: Written = client.outcome(id).expect("answered again");
        assert_eq!((again.id, again.opver), (first.id, first.opver));
        (again.copies, again.degraded) == (2, false)
    });
}

#[test]
fn a_dead_owner_stops_no_edit_and_no_mirror_compares_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, mut machines) = syncgroup(dir.path(), 3, &[]);
    let put = put_copies(&machines[0], 0, 2);
    until("it is everywhere", || machines.iter().all(|m| m.reads(&put.id).is_some()));
    let mut mirror = machines[1].client();
    let beside = insist(|| mirror.modify(&put.id, b"enough copies"));
    assert_eq!(beside.opver.machine, 1, "the owner made it");
    until("it is everywhere", || machines.iter().all(|m| m.reads(&put.id).is_some()));
    machines[0].stop();
    assert_eq!(mirror.get(&put.id).expect("a mirror has it"), b"enough copies");
    let edited = insist(|| mirror.modify(&put.id, b"in its place"));
    let token = mirror.token();
    let head = Delete { id: put.id, token, if_opver: Some(edited.opver) };
    let request = mirror.send(Opcode::Delete, 0, &head, b"");
    assert_eq!(mirror.outcome::<Written>(request).err(), Some(ErrorCode::Unavailable));
    until("the other mirror has the edit", || {
        machines[2].reads(&put.id) == Some(b"in its place".to_vec())
    });
    machines[0].start();
    until_live(&machines);
    let last = insist(|| machines[0].client().modify(&put.id, b"by the owner again"));
    assert!(last.opver > edited.opver, "the owner builds on what was written in its place");
    until("all are the same", || {
        machines.iter().all(|m| m.reads(&put.id) == Some(b"by the owner again".to_vec()))
    });
}

#[test]
fn a_failed_mount_of_an_owner_that_is_heard_stops_no_edit() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, machines) = syncgroup(dir.path(), 2, &[]);
    let put = put_copies(&machines[1], 1, 2);
    machines[1].room().placement.mounts()[1].fence("a test".to_owned());
    until("it is away", || machines[0].states(2) == [SyncState::Live, SyncState::Away]);
    let mut mirror = machines[0].client();
    insist(|| mirror.modify(&put.id, b"in its place"));
    assert_eq!(mirror.get(&put.id).expect("read"), b"in its place");
}
