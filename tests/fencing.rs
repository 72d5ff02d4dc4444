//! The fear: a disk that fails takes more with it than itself, or something is acknowledged that it does not hold (R9,
//! P6); a request is forgotten and its client waits for ever.
#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "tests start threads")]

mod common;

use common::content;
use common::rooms::House;
use folio::actors::task::{Change, Task, What};
use folio::cluster::view::MountState;
use folio::messages::error::ErrorCode;
use folio::store::sim_disk::{Fault, Op, Rule, SimDisk};

#[test]
fn a_failed_sync_fences_one_mount_and_nothing_of_its_batch_is_acknowledged() {
    let disks = vec![SimDisk::default(), SimDisk::default()];
    let house = House::new(disks.clone());
    let (mut asker, mounts) = (house.asker(), &house.mounts);
    for mount in mounts {
        mount.send_put(0, asker.put(b"before").1);
    }
    assert!(asker.answers(2).iter().all(|(_, told)| told.is_ok()));

    disks[0].fail_when(Rule::always("binlog/", Op::SyncData, Fault::Eio));
    for i in 0..20 {
        mounts[0].send_put(0, asker.put(&content(i, 100)).1);
        mounts[1].send_put(0, asker.put(&content(i, 100)).1);
    }
    let answers = asker.answers(40);
    for (request, told) in answers {
        // 1 and 2 were before; odd requests went to the failing mount.
        if request % 2 == 1 {
            let code = told.expect_err("nothing is acknowledged after a failed sync");
            assert!(matches!(code, ErrorCode::UnknownOutcome | ErrorCode::Fenced), "{code}");
        } else {
            assert!(told.is_ok(), "the other mount serves");
        }
    }
    assert_eq!(mounts[0].published().state, MountState::Failed);
    assert!(!mounts[0].published().why.is_empty());
    assert!(mounts[0].open().is_err(), "its reads are refused, too");
    assert!(mounts[1].is_writable());
    for _ in 0..4 {
        assert_eq!(house.placement.choose(None, 0).expect("one serves").index, 1);
    }
    // Healed or not: it stays out until a restart.
    disks[0].heal();
    mounts[0].send_put(0, asker.put(b"after").1);
    assert_eq!(asker.answers(1)[0].1, Err(ErrorCode::Fenced));
}

#[test]
fn a_message_that_is_dropped_still_answers() {
    let house = House::new(vec![SimDisk::default()]);
    let mut asker = house.asker();
    let (_, task) = asker.put(b"never sent");
    drop(task);
    assert_eq!(asker.answers(1)[0].1, Err(ErrorCode::Stopped));
    let (_, mut reply) = asker.reply();
    reply.begun();
    drop(reply);
    assert_eq!(asker.answers(1)[0].1, Err(ErrorCode::UnknownOutcome));
    assert_eq!(asker.budget.in_flight(), (0, 0), "and gives back what it held");
}

#[test]
fn what_arrives_while_the_daemon_stops_is_answered() {
    let house = House::new(vec![SimDisk::default()]);
    let mut asker = house.asker();
    let mount = std::sync::Arc::clone(&house.mounts[0]);
    mount.send_put(0, asker.put(b"x").1);
    let object = asker.answers(1)[0].1.expect("stored").0;
    for i in 0..50 {
        mount.send(object.home().address.chunkfile(), asker.modify(object, &content(i, 30)).1);
    }
    drop(house);
    // Everything that was taken is durable; everything after that is refused. Nobody waits.
    let told = asker.answers(50);
    assert!(told.iter().all(|(_, told)| told.is_ok()));
    let (_, reply) = asker.reply();
    let what = What::Undelete { id: object };
    mount.send(object.home().address.chunkfile(), Task::Change(Change { what, reply }));
    assert_eq!(asker.answers(1)[0].1, Err(ErrorCode::Stopped));
}
