//! `fsck` finds what was planted, says nothing about healthy mounts, and changes nothing.
//!
//! A mount with everything on it is made by the engine once; each test plants one kind of damage into a copy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests")]

mod damage;
mod template;

use folio::fsck::finding::{Kept, Kind};
use folio::fsck::medium::Folder;
use folio::fsck::{MemoryFile, Options, Summary, check};
use std::path::Path;

fn look(mount: &Path) -> (Kept, Summary) {
    look_with(mount, Options::default(), None)
}

fn look_with(mount: &Path, options: Options, memory: Option<&[u8]>) -> (Kept, Summary) {
    let folder = Folder::open(mount).unwrap();
    let mut kept = Kept::default();
    let memory = memory.map(|bytes| MemoryFile { path: "memory", bytes });
    let summary = check(&folder, memory, options, &mut kept);
    (kept, summary)
}

fn kinds(kept: &Kept) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = kept.findings.iter().map(|finding| finding.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

fn all(kept: &Kept) -> String {
    kept.findings.iter().map(|finding| format!("{finding}\n")).collect()
}

/// The same whichever part is looked at together, and in a few rounds.
#[test]
fn nothing_is_said_of_a_healthy_mount() {
    let template = template::Template::make();
    for mount in [template.owner(), template.mirror(), template.fresh()] {
        let (kept, summary) = look(&mount);
        assert_eq!(all(&kept), "", "{}", mount.display());
        assert_eq!(kept.notes, Vec::<String>::new());
        let small = Options { together: 1 };
        let (again, same) = look_with(&mount, small, None);
        assert_eq!(all(&again), "");
        assert_eq!(same, summary);
    }
    let (_, summary) = look(&template.owner());
    assert!(summary.objects > 50 && summary.singles >= 2 && summary.conflicts == 2, "{summary:?}");
    let (_, mirror) = look(&template.mirror());
    assert_eq!(mirror.objects, summary.objects);
}

/// What the log has and the checkpoint has not is no finding: the next start applies it.
#[test]
fn a_mount_before_its_replay_is_not_called_damaged() {
    let template = template::Template::make();
    let (kept, summary) = look(&template.killed());
    assert_eq!(all(&kept), "");
    assert!(summary.to_replay > 10, "{summary:?}");
    assert!(kept.notes.iter().any(|note| note.contains("needs replay")), "{:?}", kept.notes);
    // Not even when the slots that are to be written again never reached the disk.
    let (kept, _) = look(&template.cut_off());
    assert_eq!(all(&kept), "");
}

#[test]
fn every_kind_of_planted_damage_is_found() {
    let template = template::Template::make();
    let mut missed = Vec::new();
    let planted = damage::all();
    assert!(planted.len() >= 15, "the list is shorter than promised");
    for damage in &planted {
        let mount = if damage.on_mirror { template.mirror() } else { template.owner() };
        (damage.plant)(&mount, &template);
        let before = template::digest(&mount);
        let (kept, _) = look(&mount);
        assert_eq!(template::digest(&mount), before, "{}: fsck wrote something", damage.name);
        let kinds = kinds(&kept);
        if !kinds.contains(&damage.finds) {
            missed.push(format!("{}: found {kinds:?}, not {:?}", damage.name, damage.finds));
        }
        // One damage does not set off a flood.
        if kept.count > damage.at_most {
            missed.push(format!("{}: {} findings:\n{}", damage.name, kept.count, all(&kept)));
        }
        for finding in &kept.findings {
            let texts = [finding.kind.name(), finding.kind.means(), finding.kind.remedy()];
            assert!(texts.iter().all(|text| !text.is_empty()), "{finding}");
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// Any single flipped bit in what is in use is found, wherever it is; elsewhere it does no harm and no flood.
#[test]
fn no_flipped_bit_in_a_slot_or_a_large_object_goes_unseen() {
    let template = template::Template::make();
    let seed = std::env::var("FOLIO_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("FOLIO_SEED={seed}");
    damage::flips(&template, seed, |mount, what| {
        let (kept, _) = look(mount);
        assert!(kept.count > 0, "{what}: nothing was found");
        assert!(kept.count <= 3, "{what}: {}", all(&kept));
    });
}

#[test]
fn a_memory_that_does_not_fit_is_found() {
    let template = template::Template::make();
    let memory = template.memory();
    let mount = template.owner();
    let (kept, _) = look_with(&mount, Options::default(), Some(&memory));
    assert_eq!(all(&kept), "");
    let mut bad = memory.clone();
    bad[20] ^= 1;
    let (kept, _) = look_with(&mount, Options::default(), Some(&bad));
    assert_eq!(kinds(&kept), [Kind::MemoryDamaged]);
    let (kept, _) = look_with(&mount, Options::default(), Some(&template.memory_of_another()));
    assert_eq!(kinds(&kept), [Kind::MemoryDisagrees]);
    let (kept, _) = look_with(&mount, Options::default(), Some(&template.later_memory()));
    assert_eq!(kinds(&kept), [Kind::LabelOlder]);
}

/// Whatever bytes lie on a disk: an answer, never a panic.
#[test]
fn no_garbage_makes_it_panic() {
    let template = template::Template::make();
    let mut dice = 7u64;
    for path in template::files(&template.owner()) {
        let mount = template.owner();
        let file = mount.join(&path);
        let mut bytes = std::fs::read(&file).unwrap();
        for byte in bytes.iter_mut().step_by(97) {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = dice.to_le_bytes()[7];
        }
        std::fs::write(&file, &bytes).unwrap();
        look(&mount);
        std::fs::write(&file, &bytes[..bytes.len() / 3]).unwrap();
        look(&mount);
        std::fs::write(&file, b"").unwrap();
        look(&mount);
    }
}

/// What Folio itself leaves on a mount is named, and is no finding; the same names made by others are strangers.
#[test]
fn what_folio_itself_leaves_is_no_stranger() {
    let template = template::Template::make();
    let mount = template.owner();
    std::fs::create_dir_all(mount.join("set-aside-1700000000000/chunks/x")).unwrap();
    std::fs::write(mount.join("set-aside-1700000000000/folio.mount"), b"old").unwrap();
    std::fs::write(mount.join("binlog/0000abcd-0001000000000001.log.damaged"), b"x").unwrap();
    let (kept, _) = look(&mount);
    assert_eq!(all(&kept), "");
    for named in ["set-aside-1700000000000", "0001000000000001.log.damaged"] {
        assert!(kept.notes.iter().any(|note| note.contains(named)), "{:?}", kept.notes);
    }
    std::fs::write(mount.join("set-aside-5"), b"a file").unwrap();
    assert_eq!(kinds(&look(&mount).0), [Kind::Stranger]);
}

/// A pipe in the place of a file: it is said, and fsck ends.
#[test]
fn no_pipe_makes_it_hang() {
    let template = template::Template::make();
    for name in ["checkpoint", "folio.mount.copy", "folio.forgotten"] {
        let mount = template.owner();
        let path = mount.join(name);
        if path.exists() {
            std::fs::remove_file(&path).unwrap();
        }
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // The test that gave up does not hear it.
            drop(told.send(look(&mount).0));
        });
        let kept = heard.recv_timeout(std::time::Duration::from_secs(60)).expect("fsck ends");
        assert!(all(&kept).contains("no regular file"), "{name}: {}", all(&kept));
    }
}
