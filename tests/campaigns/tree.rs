//! A real tree of tens of thousands of files, and one object of 1 GiB.

use crate::cluster;
use crate::harness::content::next;
use crate::harness::from_env;
use crate::harness::mounting::permitted;
use crate::harness::process::proc_status;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Copies regular files of other trees below `to` until there are `count`.
fn gather(from: &Path, to: &Path, count: u64) -> u64 {
    let mut found = 0;
    let mut todo = vec![from.to_owned()];
    while let Some(folder) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                todo.push(path);
            } else if meta.is_file() && found < count {
                let target = to.join(path.strip_prefix(from).expect("below"));
                std::fs::create_dir_all(target.parent().expect("a folder")).expect("folder");
                std::fs::copy(&path, &target).expect("copy");
                found += 1;
            }
        }
    }
    found
}

fn noise(path: &Path, length: u64, seed: u64) {
    let mut state = seed;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("file"));
    let mut left = length;
    while left > 0 {
        let word = next(&mut state).to_le_bytes();
        let part = left.min(8) as usize;
        file.write_all(&word[..part]).expect("write");
        left -= part as u64;
    }
    file.flush().expect("write");
}

/// Runs a command to its end and returns the most memory it ever had, in KiB.
fn peak_of(mut command: Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).spawn().expect("starts");
    let mut peak = 0;
    loop {
        peak = proc_status(child.id(), "VmHWM").unwrap_or(0).max(peak);
        if let Some(status) = child.try_wait().expect("our child") {
            assert!(status.success(), "{status}");
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Import, verify, export, diff of at least 20,000 files; the 1 GiB object costs nobody more than 64 MiB.
#[test]
#[ignore = "long: see docs/TESTING.md"]
fn no_file_of_a_real_tree_is_lost_and_no_large_object_is_held_in_memory() {
    let count = from_env("FOLIO_TREE_FILES", 20_000);
    let large = from_env("FOLIO_TREE_LARGE", 1 << 30);
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).expect("home");
    let source = std::env::var_os("FOLIO_TREE").map_or(home.join("registry/src"), PathBuf::from);
    let cluster = cluster(&["a", "b"], 2).started();
    let cli = cluster.cli();
    let tree = cluster.dir.path().join("tree");
    std::fs::create_dir(&tree).expect("folder");
    let found = gather(&source, &tree, count);
    assert_eq!(found, count, "only {found} files below {}: set FOLIO_TREE", source.display());
    let threshold = 1 << 20;
    for size in [0, 1, threshold - 1, threshold, threshold + 1] {
        noise(&tree.join(format!("edge{size}")), size, size);
    }
    let list = cluster.dir.path().join("list.tsv");
    let import = [OsStr::new("import"), tree.as_os_str(), OsStr::new("-m"), list.as_os_str()];
    let began = std::time::Instant::now();
    let small_peak = peak_of(cli.command(import));
    println!("import of {} files: {:?}, client peak {small_peak} KiB", count + 5, began.elapsed());

    let peaks = || -> Vec<u64> {
        let nodes = cluster.trackers.iter().chain(&cluster.storages);
        nodes.map(|node| node.daemon().proc_status("VmHWM")).collect()
    };
    let one = cluster.dir.path().join("one");
    std::fs::write(&one, b"1").expect("file");
    let client_before = peak_of(cli.command([OsStr::new("put"), one.as_os_str()]));
    noise(&tree.join("large"), large, 77);
    let before = peaks();
    let import_peak = peak_of(cli.command(import));
    let put_peak = peak_of(cli.command([OsStr::new("put"), tree.join("large").as_os_str()]));
    let mut pipe = cli.command(["put", "-"]);
    pipe.stdin(std::fs::File::open(tree.join("large")).expect("file"));
    let pipe_peak = peak_of(pipe);
    let verify_peak = peak_of(cli.command([OsStr::new("verify"), list.as_os_str()]));
    let out = cluster.dir.path().join("out");
    let export = [OsStr::new("export"), list.as_os_str(), out.as_os_str()];
    let export_peak = peak_of(cli.command(export));
    let after = peaks();
    println!(
        "daemons (tracker, storages) {before:?} -> {after:?} KiB; client: one byte {client_before}, import {import_peak} (small files {small_peak}), put {put_peak}, from a pipe {pipe_peak}, verify {verify_peak}, export {export_peak} KiB"
    );
    assert!(permitted("diff", &["-r", tree.to_str().expect("text"), out.to_str().expect("text")]));
    let verified = cli.run([OsStr::new("verify"), list.as_os_str()]).ok();
    assert_eq!(verified.last_line(), format!("{} ok, 0 missing, 0 different", count + 6));
    let limit = 64 << 10;
    for (before, after) in before.iter().zip(&after) {
        assert!(*after <= before + limit, "a daemon grew from {before} to {after} KiB");
    }
    for peak in [put_peak, pipe_peak] {
        assert!(peak <= client_before + limit, "the client took {peak} KiB");
    }
    assert!(import_peak <= small_peak + limit, "import took {import_peak} KiB");
}
