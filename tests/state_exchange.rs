//! Mirrors whose logs do not tell them what they lack: they come back whole all the same, and damage never spreads.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails here"
)]

mod common;

use common::machines::{Machine, insist, syncgroup, until, until_live};
use common::{Outcome, content};
use folio::actors::peers::SyncState;
use folio::actors::state_pull::compare::Compared;
use folio::format::file_id::ObjectId;
use folio::format::paths;
use folio::messages::error::ErrorCode;
use folio::messages::heads::{IdBytes, Written};
use folio::store::archive::ArchiveNames;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longer than this no log of these tests reaches.
const SHORT_LOG: &[(&str, &str)] = &[("sync.log_retention_bytes", "16MiB")];
/// Bytes of objects that are more than such a log.
const BURST: usize = 40 << 20;

/// What must be there: content, or deleted.
type Expected = BTreeMap<IdBytes, Option<Vec<u8>>>;

/// Writes more to mount 0 than a short log holds.
fn burst(machine: &Machine, seed: usize, expected: &mut Expected) {
    let mut client = machine.client();
    let (mut bytes, mut asked) = (0, Vec::new());
    for turn in 0.. {
        if bytes >= BURST {
            break;
        }
        let payload = content(seed + turn, 20_000 + turn * 977 % 200_000).to_vec();
        bytes += payload.len();
        asked.push((client.send_put(&payload, Some(0)), payload));
        if asked.len() == 16 {
            for (id, payload) in asked.drain(..) {
                let put: Written = client.outcome(id).expect("stored");
                expected.insert(put.id, Some(payload));
            }
        }
    }
    for (id, payload) in asked {
        let put: Written = client.outcome(id).expect("stored");
        expected.insert(put.id, Some(payload));
    }
}

fn has_all(machine: &Machine, expected: &Expected) -> bool {
    expected.iter().all(|(id, content)| machine.reads(id) == *content)
}

fn until_all(machines: &[&Machine], expected: &Expected) {
    for machine in machines {
        until(&format!("machine {} has all", machine.id), || has_all(machine, expected));
    }
}

fn archive(machine: &Machine) -> ArchiveNames {
    let mount = &machine.room().placement.mounts()[0];
    let shelf = Arc::clone(&mount.open().unwrap().shelf);
    shelf.archive_names().unwrap()
}

/// A change that a mirror makes as soon as it may.
fn instead<T>(mut ask: impl FnMut() -> Outcome<T>) -> T {
    insist(|| match ask() {
        Err(ErrorCode::WrongNode) => Err(ErrorCode::Unavailable),
        other => other,
    })
}

/// Files of a folder of mount 0, and below.
fn files(machine: &Machine, folder: &str) -> Vec<PathBuf> {
    let (mut found, mut todo) = (Vec::new(), vec![machine.dir.join("m0").join(folder)]);
    while let Some(folder) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { todo.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn remove_all(machine: &Machine, folder: &str) {
    assert!(machine.running.is_none());
    let files = files(machine, folder);
    assert!(!files.is_empty(), "there is something in {folder}");
    for file in files {
        std::fs::remove_file(file).unwrap();
    }
}

/// Where the bytes of an object's home lie.
fn home(machine: &Machine, id: &IdBytes) -> (PathBuf, u64) {
    let home = ObjectId::decode(id).unwrap().home().address;
    (machine.dir.join("m0").join(paths::chunk(home.chunkfile())), home.offset())
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

fn read_at(path: &Path, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    std::fs::File::open(path).unwrap().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

#[test]
fn who_was_away_for_longer_than_the_log_reaches_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, mut machines) = syncgroup(dir.path(), 3, SHORT_LOG);
    let mut expected = Expected::new();
    let mut client = machines[0].client();
    let mut put = |bytes: &[u8]| {
        insist(|| {
            let id = client.send_put(bytes, Some(0));
            client.outcome::<Written>(id)
        })
    };
    let ids: Vec<IdBytes> = (0..40).map(|i| put(&content(i, 3000 + i * 100)).id).collect();
    let (both, large) = (put(b"edited on both sides").id, put(&content(9, 600_000)).id);
    for id in ids.iter().chain([&both, &large]) {
        until("it is everywhere", || machines.iter().all(|m| m.reads(id).is_some()));
    }
    machines[2].stop();
    // An edit on either side of a cut: one of the two goes to the archive, with its bytes.
    machines[0].stop();
    for id in [&both, &large] {
        instead(|| machines[1].client().modify(id, &content(id[20] as usize, 500_000)));
    }
    machines[1].stop();
    machines[0].start();
    for id in [&both, &large] {
        instead(|| machines[0].client().modify(id, &content(id[21] as usize, 400_000)));
    }
    machines[1].start();
    until("the two have met", || archive(&machines[0]).kept.len() == 2);
    until("both say so", || archive(&machines[1]) == archive(&machines[0]));
    for id in [both, large] {
        until("one has won", || machines[0].reads(&id) == machines[1].reads(&id));
        expected.insert(id, machines[0].reads(&id));
    }
    // Edits, moves, deletes, a large one, and more than the log holds.
    for (turn, id) in ids.iter().enumerate() {
        let mut client = machines[0].client();
        let bytes = content(turn + 100, 100 + turn * 400).to_vec();
        insist(|| client.modify(id, &bytes));
        expected.insert(*id, Some(bytes));
        if turn % 4 == 0 {
            insist(|| client.delete(id));
            expected.insert(*id, None);
        }
    }
    for (seed, machine) in machines.iter().take(2).enumerate() {
        burst(machine, seed * 1000, &mut expected);
    }
    machines[2].start();
    // It is served from, and edited, meanwhile.
    let mut client = machines[0].client();
    for turn in 0..200 {
        let id = ids[1 + turn % 3];
        let bytes = content(turn + 7, 2000).to_vec();
        insist(|| client.modify(&id, &bytes));
        expected.insert(id, Some(bytes));
        assert!(has_all(&machines[0], &BTreeMap::from([(id, expected[&id].clone())])));
    }
    until_live(&machines);
    until_all(&machines.iter().collect::<Vec<_>>(), &expected);
    until("the archive came along", || archive(&machines[2]) == archive(&machines[0]));
    for name in archive(&machines[2]).kept {
        let read = |machine: &Machine| {
            let shelf = Arc::clone(&machine.room().placement.mounts()[0].open().unwrap().shelf);
            let (lost, bytes) = shelf.archived_version(name).unwrap().expect("a whole one");
            let single = lost.single.map(|content| {
                let single = shelf.open_archived(&lost, content).unwrap();
                let mut bytes = Vec::new();
                let at = single.read(0..lost.length, &mut bytes).unwrap();
                bytes[at].to_vec()
            });
            (bytes, single)
        };
        assert_eq!(read(&machines[2]), read(&machines[0]));
    }
    // And the log goes on.
    let put = insist(|| machines[0].put(0, b"after all of it"));
    until("the log goes on", || machines[2].reads(&put.id).is_some());
}

#[test]
fn deleted_synclogs_cost_nothing_but_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, mut machines) = syncgroup(dir.path(), 2, SHORT_LOG);
    let mut expected = Expected::new();
    burst(&machines[0], 1, &mut expected);
    until_all(&[&machines[1]], &expected);
    machines[1].stop();
    burst(&machines[0], 5000, &mut expected);
    remove_all(&machines[1], "synclog");
    machines[1].start();
    until_live(&machines);
    until_all(&[&machines[1]], &expected);
    let put = insist(|| machines[0].put(0, b"after all of it"));
    until("the log goes on", || machines[1].reads(&put.id).is_some());
}

#[test]
fn a_deleted_binlog_costs_nothing_but_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, mut machines) = syncgroup(dir.path(), 2, SHORT_LOG);
    let mut expected = Expected::new();
    burst(&machines[0], 1, &mut expected);
    until_all(&[&machines[1]], &expected);
    machines[1].stop();
    burst(&machines[0], 5000, &mut expected);
    machines[0].stop();
    remove_all(&machines[0], "binlog");
    machines[0].start();
    machines[1].start();
    until_live(&machines);
    until_all(&[&machines[0], &machines[1]], &expected);
    for _ in 0..3 {
        let put = insist(|| machines[0].put(0, b"after all of it"));
        expected.insert(put.id, Some(b"after all of it".to_vec()));
        let put = insist(|| machines[1].put(0, b"the other way"));
        expected.insert(put.id, Some(b"the other way".to_vec()));
    }
    until_all(&[&machines[0], &machines[1]], &expected);
}

/// Damages batches in the middle of the log of a machine: each time something else of them.
fn damage_log(machine: &Machine) {
    let log = files(machine, "binlog");
    let segments: Vec<&PathBuf> =
        log.iter().filter(|path| path.extension().is_some_and(|ext| ext == "log")).collect();
    let mut damaged = 0;
    for segment in segments {
        let len = std::fs::metadata(segment).unwrap().len();
        for part in 1..6 {
            let at = len / 7 * part + part * 13;
            let bytes = read_at(segment, at, 3);
            if bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let flipped: Vec<u8> = bytes.iter().map(|byte| byte ^ 0x41).collect();
            overwrite(segment, at, &flipped);
            damaged += 1;
        }
    }
    assert!(damaged > 3, "{damaged}");
}

#[test]
fn damage_in_the_middle_of_a_log_keeps_nothing_from_a_mirror() {
    for restarted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (_tracker, mut machines) = syncgroup(dir.path(), 2, &[]);
        machines[1].stop();
        let mut expected = Expected::new();
        burst(&machines[0], 1, &mut expected);
        if restarted {
            machines[0].stop();
        }
        damage_log(&machines[0]);
        if restarted {
            machines[0].start();
        }
        machines[1].start();
        until_live(&machines);
        until_all(&[&machines[0], &machines[1]], &expected);
        let put = insist(|| machines[0].put(0, b"after all of it"));
        until("the log goes on", || machines[1].reads(&put.id).is_some());
    }
}

#[test]
fn a_source_with_damage_never_spreads_it_and_another_member_replaces_it() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, mut machines) = syncgroup(dir.path(), 3, SHORT_LOG);
    let mut expected = Expected::new();
    machines[2].stop();
    burst(&machines[0], 1, &mut expected);
    until_all(&[&machines[1]], &expected);
    machines[1].stop();
    let small: Vec<IdBytes> = expected.keys().copied().take(3).collect();
    // In the content, in the header, and in the seal of three objects of the only member that is there.
    let places = [(700, [1; 16]), (24, [2; 16]), (180, [3; 8].repeat(2).try_into().unwrap())];
    for (id, (offset, bytes)) in small.iter().zip(places) {
        let (path, at) = home(&machines[0], id);
        overwrite(&path, at + offset, &bytes);
    }
    let before: Vec<Vec<u8>> = small
        .iter()
        .map(|id| {
            let (path, at) = home(&machines[0], id);
            read_at(&path, at, 1024)
        })
        .collect();
    machines[2].start();
    let whole: Expected = expected
        .iter()
        .filter(|(id, _)| !small.contains(id))
        .map(|(i, c)| (*i, c.clone()))
        .collect();
    until_all(&[&machines[2]], &whole);
    until("it is said", || {
        let said = machines[2].room().peers.pulls.of(0, 1);
        said.is_some_and(|said| !said.why.is_empty())
    });
    assert_eq!(machines[0].states(3)[0], SyncState::NeedsState, "what it lacks is not forgotten");
    for id in &small {
        assert_eq!(machines[2].reads(id), None, "damage was copied");
    }
    // The other member has them whole.
    machines[1].start();
    until_live(&machines);
    until_all(&[&machines[1], &machines[2]], &expected);
    for (id, before) in small.iter().zip(before) {
        let (path, at) = home(&machines[0], id);
        let now = read_at(&path, at, 1024);
        assert!(
            now == before || has_all(&machines[0], &BTreeMap::from([(*id, expected[id].clone())]))
        );
    }
}

/// What the last comparison of one machine with another said of mount 0.
fn compared(machine: &Machine, with: u16) -> Option<Arc<Compared>> {
    machine.room().peers.get(with)?.mount(0)?.compared()
}

/// Waits for a comparison that begins from now on and finds no difference and nothing busy; its digest.
fn until_identical(machine: &Machine, with: u16) -> Arc<Compared> {
    let ended = || compared(machine, with).map_or(0, |c| c.at_ms);
    // The next one that ends may have begun before, and have passed what was stored since: the one after it is meant.
    let before = ended();
    until("a comparison ends", || ended() > before);
    let seen = ended();
    let mut found = None;
    until("they are found identical", || {
        found = compared(machine, with).filter(|now| {
            now.at_ms > seen && now.is_identical() && now.busy == 0 && now.mended == 0
        });
        found.is_some()
    });
    found.unwrap()
}

const OFTEN: &[(&str, &str)] = &[("sync.compare_period", "1s")];

#[test]
fn a_planted_difference_is_found_and_mended_and_the_good_mirror_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, mut machines) = syncgroup(dir.path(), 2, OFTEN);
    let mut expected = Expected::new();
    for turn in 0..60 {
        // Large ones, too.
        let len = if turn % 10 == 3 { 300_000 + turn } else { 2000 + turn * 900 };
        let bytes = content(turn, len).to_vec();
        let put = insist(|| machines[turn % 2].put(0, &bytes));
        expected.insert(put.id, Some(bytes));
    }
    until_all(&[&machines[0], &machines[1]], &expected);
    let whole = until_identical(&machines[0], 2);
    assert_eq!((whole.objects, whole.different), (60, 0));
    assert_eq!(until_identical(&machines[1], 1).digest, whole.digest, "both say the same");
    machines[1].stop();
    // The headers of three objects, of both machines; a large content; nothing of machine 1.
    let ids: Vec<IdBytes> = expected.keys().copied().collect();
    for (turn, id) in [ids[0], ids[30], ids[59]].iter().enumerate() {
        let (path, at) = home(&machines[1], id);
        overwrite(&path, at + [0, 60, 190][turn], &[[0; 64], [0x55; 64], [0xff; 64]][turn][..2]);
    }
    let single = files(&machines[1], "singles")
        .into_iter()
        .find(|p| p.to_string_lossy().ends_with(".single"));
    std::fs::remove_file(single.expect("a large one")).unwrap();
    let good: Vec<Vec<u8>> =
        files(&machines[0], "chunks").iter().map(|path| std::fs::read(path).unwrap()).collect();
    machines[1].start();
    until_live(&machines);
    until_all(&[&machines[1]], &expected);
    assert_eq!(until_identical(&machines[1], 1).digest, whole.digest);
    assert_eq!(until_identical(&machines[0], 2).digest, whole.digest);
    let now: Vec<Vec<u8>> =
        files(&machines[0], "chunks").iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(good == now, "the good mirror was changed");
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[test]
fn a_binlog_that_is_lost_in_a_crash_gives_no_name_a_second_time() {
    let dir = tempfile::tempdir().unwrap();
    let (_tracker, mut machines) = syncgroup(dir.path(), 2, &[]);
    let mut expected = Expected::new();
    burst(&machines[0], 1, &mut expected);
    until_all(&[&machines[1]], &expected);
    // As a killed process leaves its disk; and then the log is gone.
    let (mount, crashed) = (machines[0].dir.join("m0"), dir.path().join("crashed"));
    copy_folder(&mount, &crashed);
    machines[0].stop();
    std::fs::remove_dir_all(&mount).unwrap();
    copy_folder(&crashed, &mount);
    remove_all(&machines[0], "binlog");
    machines[0].start();
    until_live(&machines);
    until_all(&[&machines[0], &machines[1]], &expected);
    burst(&machines[0], 7000, &mut expected);
    let mut client = machines[0].client();
    for id in expected.keys().copied().step_by(40).collect::<Vec<_>>() {
        let bytes = content(id[40] as usize, 30_000).to_vec();
        insist(|| client.modify(&id, &bytes));
        expected.insert(id, Some(bytes));
    }
    until_all(&[&machines[0], &machines[1]], &expected);
}
