//! `forget`: a member that is removed for good holds up nobody, and never comes back as it was.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails here"
)]

mod common;

use common::machines::{Machine, insist, put_copies, syncgroup, until, until_live};
use folio::actors::binlog::ForgetMember;
use folio::format::ids::MachineId;
use folio::messages::error::ErrorCode;
use folio::messages::heads::{Modify, Written};
use folio::messages::opcode::Opcode;

/// The members of every mount of a machine.
fn members(machine: &Machine) -> Vec<Vec<MachineId>> {
    let mounts = machine.room().placement.mounts().iter();
    let of = |mount: &std::sync::Arc<folio::actors::shared_mount::SharedMount>| {
        let members = mount.mirror.members().borrow().clone();
        members.iter().map(|member| member.machine).collect()
    };
    mounts.map(of).collect()
}

fn forget(machine: &Machine, gone: MachineId) {
    for mount in machine.room().placement.mounts() {
        mount.registry.binlog().expect("it runs").do_send(ForgetMember(gone));
    }
}

#[test]
fn no_removed_member_holds_up_the_others_or_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, mut machines) = syncgroup(dir.path(), 3, &[("durability.acks", "all")]);
    let put = put_copies(&machines[2], 0, 3);
    machines[2].stop();
    let alone = |machine: &Machine| machine.put(0, b"all of three").map(|put| put.copies);
    until("all can not be had", || alone(&machines[0]) == Err(ErrorCode::Unavailable));
    forget(&machines[0], 3);
    until("nobody counts it any more", || {
        machines[..2].iter().all(|machine| members(machine) == [[1, 2], [1, 2]])
    });
    assert_eq!(insist(|| alone(&machines[0])), 2, "all are two now");
    until("nobody calls it any more", || {
        machines[..2].iter().all(|machine| machine.room().peers.get(3).is_none())
    });
    // What it owned has another owner, who compares.
    for machine in [1, 0] {
        let mut client = machines[machine].client();
        let head = folio::messages::heads::Stat { id: put.id, local_only: true };
        let request = client.send(Opcode::Stat, 0, &head, b"");
        let stat: folio::messages::heads::StatAnswer = client.outcome(request).expect("there");
        let token = client.token();
        let if_opver = Some(stat.opver);
        let head = Modify { id: put.id, token, if_opver, length: Some(8) };
        let edited: Written = insist(|| {
            let request = client.send(Opcode::Modify, 0, &head, b"compared");
            match client.outcome(request) {
                Err(ErrorCode::Busy) => Err(ErrorCode::Unavailable),
                other => other,
            }
        });
        assert_eq!(edited.opver.machine, 1, "the lowest member that is left");
        until("both have it", || {
            machines[..2].iter().all(|m| m.reads(&put.id) == Some(b"compared".to_vec()))
        });
    }
    // It survives a restart, and who comes back as it was is refused and serves nobody.
    machines[0].stop();
    machines[0].start();
    assert_eq!(members(&machines[0]), [[1, 2], [1, 2]]);
    machines[2].start();
    until("it is told", || {
        let mounts = machines[2].room().placement.mounts();
        mounts.iter().all(|m| !m.is_online() && m.published().why.contains("forgotten"))
    });
    let mut client = machines[2].client();
    assert_ne!(client.get(&put.id), Ok(b"enough copies".to_vec()), "it does not serve what it had");
    assert!(client.modify(&put.id, b"nor take anything").is_err());
    assert_eq!(members(&machines[0]), [[1, 2], [1, 2]]);
    assert_eq!(members(&machines[1]), [[1, 2], [1, 2]]);
    drop(client);
    // Blank it may join.
    machines[2].stop();
    std::fs::remove_dir_all(dir.path().join("s3")).unwrap();
    machines[2].start();
    until("it joined", || {
        machines.iter().all(|machine| members(machine) == [[1, 2, 3], [1, 2, 3]])
    });
    until_live(&machines);
    assert_eq!(insist(|| alone(&machines[0])), 3, "all are three again");
}

#[test]
fn a_member_that_was_away_holds_up_a_forget_and_learns_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, mut machines) = syncgroup(dir.path(), 3, &[]);
    let put = put_copies(&machines[2], 0, 2);
    until("it is everywhere", || machines.iter().all(|m| m.reads(&put.id).is_some()));
    machines[2].stop();
    machines[1].stop();
    forget(&machines[0], 3);
    until("it is known", || {
        let mounts = machines[0].room().placement.mounts();
        mounts.iter().all(|mount| mount.mirror.forgotten().len() == 1)
    });
    // It may have something of the removed one that nobody else has.
    assert_eq!(members(&machines[0]), [[1, 2, 3], [1, 2, 3]]);
    machines[0].stop();
    machines[0].start();
    assert_eq!(members(&machines[0]), [[1, 2, 3], [1, 2, 3]]);
    machines[1].start();
    until("nobody counts it any more", || {
        machines[..2].iter().all(|machine| members(machine) == [[1, 2], [1, 2]])
    });
}
