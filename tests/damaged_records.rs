//! Records in the middle of a log are damaged, a different field of each of them, under storages that run and under ones that
//! start: the mirrors end identical all the same, without a command, and nothing acknowledged is lost or wrong.
//!
//! `tests/mirror_walks/damage.rs` does it field by field on the engine alone; here everything takes part, over sockets.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails here"
)]
#![allow(dead_code, reason = "helpers that other tests use, too")]

mod common;
#[path = "mirror_walks/fields.rs"]
mod fields;

use common::content;
use common::files::segments;
use common::machines::{Machine, insist, syncgroup, until, until_live};
use fields::{Field, batches};
use folio::messages::heads::IdBytes;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What must be there: content, or deleted.
type Expected = BTreeMap<IdBytes, Option<Vec<u8>>>;

/// Batches at the end of a log that stay as they are.
const END: usize = 4;

/// Puts, edits in place and elsewhere, deletes, large ones; each in a batch of its own.
fn edits(machine: &Machine, seed: usize, expected: &mut Expected) {
    let mut client = machine.client();
    let mut ids: Vec<IdBytes> = Vec::new();
    for turn in 0..150 {
        let len = if turn % 40 == 7 { 1_200_000 } else { 200 + turn * 131 % 5000 };
        let bytes = content(seed + turn, len).to_vec();
        let id = if turn % 3 == 2 {
            let id = ids[turn / 2 % ids.len()];
            insist(|| client.modify(&id, &bytes));
            id
        } else {
            let put = insist(|| machine.put(0, &bytes));
            ids.push(put.id);
            put.id
        };
        expected.insert(id, Some(bytes));
    }
    for id in ids.iter().step_by(17) {
        insist(|| client.delete(id));
        expected.insert(*id, None);
    }
    for turn in 0..20 {
        let bytes = content(seed + 900 + turn, 100 + turn * 70).to_vec();
        expected.insert(insist(|| machine.put(0, &bytes)).id, Some(bytes));
    }
}

/// Flips a bit of one field of each batch that stands in the middle of the logs in a folder, every other one, another field
/// each time; how many different fields.
fn damage(folder: &Path) -> usize {
    let mut all: Vec<Vec<Field>> = Vec::new();
    for path in segments(folder) {
        let bytes = std::fs::read(&path).expect("a segment");
        all.extend(batches(path.to_str().expect("text"), &bytes));
    }
    assert!(all.len() > 2 * END, "{} batches in {}", all.len(), folder.display());
    all.truncate(all.len() - END);
    let mut done = BTreeSet::new();
    for (turn, fields) in all.iter().enumerate().skip(1).step_by(2) {
        let new = fields.iter().find(|field| !done.contains(&field.name));
        let Some(field) = new.or(fields.get(turn % fields.len())) else { continue };
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&field.path).unwrap();
        let at = field.offset + [0, field.len - 1, field.len / 2][turn % 3];
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << (turn * 5 % 8))], at).unwrap();
        done.insert(field.name.clone());
    }
    done.len()
}

fn until_all(machines: &[Machine], expected: &Expected) {
    for machine in machines {
        until(&format!("machine {} has all", machine.id), || {
            expected.iter().all(|(id, content)| machine.reads(id) == *content)
        });
    }
}

/// Both say of each other that nothing differs, and of the same.
fn until_identical(machines: &[Machine]) {
    let compared = |machine: &Machine, with: u16| {
        machine.room().peers.get(with).and_then(|peer| peer.mount(0)?.compared())
    };
    let mut seen = 0;
    until("they are found identical", || {
        let (one, two) = (compared(&machines[0], 2), compared(&machines[1], 1));
        let (Some(one), Some(two)) = (one, two) else { return false };
        let whole = [&one, &two].iter().all(|said| said.is_identical() && said.busy == 0);
        // Not the first one that says so: it may have begun before.
        let later = one.at_ms.min(two.at_ms) > seen + 3000;
        if seen == 0 {
            seen = one.at_ms.max(two.at_ms);
        }
        whole && later && one.digest == two.digest
    });
}

fn goes_on(machines: &[Machine], expected: &mut Expected) {
    for turn in 0..40 {
        let bytes = content(turn + 77, 60 + turn * 90).to_vec();
        let put = insist(|| machines[turn % 2].put(0, &bytes));
        expected.insert(put.id, Some(bytes));
    }
    until_all(machines, expected);
}

const OFTEN: &[(&str, &str)] = &[("sync.compare_period", "1s")];

#[test]
fn no_damaged_record_of_a_senders_log_keeps_its_mirror_from_what_stands() {
    for restarted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (_tracker, mut machines) = syncgroup(dir.path(), 2, OFTEN);
        machines[1].stop();
        let mut expected = Expected::new();
        edits(&machines[0], 1, &mut expected);
        if restarted {
            machines[0].stop();
        }
        let fields = damage(&machines[0].dir.join("m0/binlog"));
        println!("{fields} different fields, restarted {restarted}");
        assert!(fields > 60, "{fields}");
        if restarted {
            machines[0].start();
        }
        machines[1].start();
        until_live(&machines);
        until_all(&machines, &expected);
        goes_on(&machines, &mut expected);
        until_identical(&machines);
    }
}

#[test]
fn no_damaged_record_that_was_received_is_applied_or_passed_on() {
    for restarted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (tracker, mut machines) = syncgroup(dir.path(), 2, OFTEN);
        let mut expected = Expected::new();
        edits(&machines[0], 1, &mut expected);
        until_all(&machines, &expected);
        if restarted {
            machines[1].stop();
        }
        let fields = damage(&machines[1].dir.join("m0/synclog"));
        println!("{fields} different fields, restarted {restarted}");
        assert!(fields > 20, "{fields}");
        if restarted {
            machines[1].start();
            until_live(&machines);
        }
        // A third one, that has it from whoever is there.
        machines.push(Machine::new(dir.path(), 3, tracker.address, OFTEN));
        until_live(&machines);
        until_all(&machines, &expected);
        goes_on(&machines, &mut expected);
        until_identical(&machines);
    }
}
