//! A cluster of an older build is upgraded to this one, machine by machine, under load: no operation may fail.

use crate::harness::load::Load;
use crate::harness::mirrored::{json, until_live};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Built and upgraded from unless told otherwise: the commit that ended the third part (mirrors and recovery), before TLS,
/// scrub and the console's operations had all come together.
const FROM: &str = "6b30b04";

/// The program of an older commit: `FOLIO_UPGRADE_BINARY`, or built from `FOLIO_UPGRADE_FROM` in a scratch folder. `None`:
/// this machine does not have that commit.
fn older(scratch: &Path) -> Option<PathBuf> {
    if let Some(binary) = std::env::var_os("FOLIO_UPGRADE_BINARY") {
        return Some(binary.into());
    }
    let from = std::env::var("FOLIO_UPGRADE_FROM").unwrap_or_else(|_| FROM.to_owned());
    println!("FOLIO_UPGRADE_FROM={from}");
    let source = scratch.join("source");
    std::fs::create_dir(&source).expect("folder");
    let mut archive = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "archive", &from])
        .stdout(Stdio::piped())
        .spawn()
        .expect("git");
    let tree = archive.stdout.take().expect("piped");
    let unpacked = Command::new("tar").arg("-x").arg("-C").arg(&source).stdin(tree).status();
    let archived = archive.wait().expect("git").success();
    if !(archived && unpacked.expect("tar").success()) {
        println!("skipped: there is no commit {from} here");
        return None;
    }
    let target = scratch.join("target");
    let built = Command::new("cargo")
        .args(["build", "--locked", "--bin", "folio"])
        .current_dir(&source)
        .env("CARGO_TARGET_DIR", &target)
        .status();
    assert!(built.expect("cargo").success(), "{from} does not build");
    Some(target.join("debug/folio"))
}

#[test]
#[ignore = "compiles another commit"]
fn no_upgrade_from_an_older_build_fails_an_operation() {
    let scratch = super::campaign_dir();
    let Some(older) = older(scratch.path()) else { return };
    let said = Command::new(&older).arg("--version").output().expect("it runs");
    println!("from {}", String::from_utf8_lossy(&said.stdout).trim());
    let mut cluster = super::cluster(&["a", "a", "a"], 1)
        .storages_with("store.single_file_threshold", "\"64KiB\"");
    for node in cluster.trackers.iter_mut().chain(&mut cluster.storages) {
        node.program = Some(older.clone());
    }
    cluster.start();
    until_live(&cluster);
    let load = Load::begin(&cluster, 16, Duration::from_millis(1));
    load.go_on(500);
    // The tracker somewhere in the middle: old storages with a new one, and new storages with it.
    for step in ["storage 0", "tracker", "storage 1", "storage 2"] {
        let number = step.strip_prefix("storage ").map(|n| n.parse::<usize>().expect("small"));
        let node = match number {
            Some(n) => &mut cluster.storages[n],
            None => &mut cluster.trackers[0],
        };
        if number.is_some() {
            let answer = json(&node.admin("drain json"));
            assert_eq!(answer["may_be_stopped"], true, "{answer}");
        }
        node.stop();
        load.go_on(200);
        node.program = None;
        node.start();
        load.go_on(500);
        until_live(&cluster);
        println!("{step}: {} changes so far", load.changes());
    }
    let (changes, objects) = (load.changes(), load.end(3));
    println!("{changes} changes of {objects} objects, none failed, all on every mirror");
    cluster.stop_all();
}
