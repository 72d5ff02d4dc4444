//! import, verify, export: a tree comes back as it was, also when the import is shot again and again.

use crate::harness::cluster::Cluster;
use crate::harness::content::{below, content};
use crate::harness::run::Cli;
use crate::harness::{PATIENCE, eventually, from_env};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Regular files below a folder with their contents.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).expect("readable") {
            let entry = entry.expect("entry");
            let kind = entry.file_type().expect("type");
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let inner = path.strip_prefix(dir).expect("below").to_owned();
                found.insert(inner, std::fs::read(&path).expect("readable"));
            }
        }
    }
    found
}

/// path -> id of a manifest; a path that stands twice is a failure.
fn manifest(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).expect("a manifest is UTF-8");
    let mut entries = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!(fields.len(), 4, "id, length, sha256, path: {line:?}");
        assert!(fields[1].parse::<u64>().is_ok() && fields[2].len() == 64, "{line:?}");
        let doubled = entries.insert(fields[3].to_owned(), fields[0].to_owned());
        assert_eq!(doubled, None, "{} stands twice", fields[3]);
    }
    entries
}

fn odd_tree(dir: &Path) {
    let names: [&[u8]; 16] = [
        b"plain.txt",
        b"a b",
        b"tab\there",
        b"new\nline",
        b"100%",
        b"%41",
        b"%",
        b"\xff\xfe\x80",
        b"caf\xc3\xa9",
        b"-dash",
        b"#comment",
        b" leading",
        b"trailing ",
        b"quote'\"",
        b"cr\rcr",
        b"x.tar.gz-with-a-very-long-extension.abcdefghijklmnopqrstuvwxyz",
    ];
    for folder in [b"".as_slice(), b"sub dir", b"deep/er/and\ndeeper", b"\xfa%\t"] {
        let folder = dir.join(OsStr::from_bytes(folder));
        std::fs::create_dir_all(&folder).expect("folder");
        for (n, name) in names.iter().enumerate() {
            let bytes = content(n as u64, folder.as_os_str().len() as u64, 28 + n * 700);
            std::fs::write(folder.join(OsStr::from_bytes(name)), bytes).expect("file");
        }
        std::fs::write(folder.join("empty"), b"").expect("file");
    }
    std::fs::write(dir.join("one byte"), b"1").expect("file");
    std::fs::write(dir.join("large"), content(99, 1, (2 << 20) + 17)).expect("file");
    std::fs::create_dir(dir.join("empty dir")).expect("folder");
    std::os::unix::fs::symlink("plain.txt", dir.join("link")).expect("link");
    std::os::unix::fs::symlink("/etc", dir.join("link to a folder")).expect("link");
}

/// Regular files of a tree of odd names come back, all of them and nothing else, and a second run has nothing to do.
#[test]
fn no_name_and_no_content_is_changed_by_import_and_export() {
    let cluster = Cluster::new(1, &["a"], 2).started();
    let cli = cluster.cli();
    let (tree, list) = (cluster.dir.path().join("tree"), cluster.dir.path().join("list.tsv"));
    std::fs::create_dir(&tree).expect("folder");
    odd_tree(&tree);
    let wanted = files(&tree);
    cli.import(&tree, &list).ok();
    let entries = manifest(&list);
    assert_eq!(entries.len(), wanted.len());
    for path in ["100%25", "tab%09here", "new%0Aline", "%2541", "%FF%FE%80", "café", "a b"] {
        assert!(entries.contains_key(path), "{path:?} in {:?}", entries.keys());
    }
    let before = std::fs::read(&list).expect("manifest");
    cli.import(&tree, &list).ok();
    assert!(manifest(&list) == entries, "a second import of the same tree changed something");
    let _same_or_reordered = before;
    assert_eq!(cli.list().len(), wanted.len());

    let verified = cli.run([OsStr::new("verify"), list.as_os_str()]).ok();
    assert_eq!(verified.last_line(), format!("{} ok, 0 missing, 0 different", wanted.len()));
    let json = cli.run([OsStr::new("verify"), list.as_os_str(), OsStr::new("--json")]).ok().json();
    assert_eq!(json["ok"], wanted.len());
    assert_eq!((&json["missing"], &json["different"]), (&0.into(), &0.into()));
    let out = cluster.dir.path().join("out");
    cli.run([OsStr::new("export"), list.as_os_str(), out.as_os_str()]).ok();
    assert!(files(&out) == wanted, "the exported tree differs");

    // A changed file is modified: same id. A new one is added, the others are left alone.
    std::fs::write(tree.join("plain.txt"), b"changed").expect("file");
    std::fs::write(tree.join("added"), b"added").expect("file");
    cli.import(&tree, &list).ok();
    let after = manifest(&list);
    assert_eq!(after.len(), entries.len() + 1);
    assert!(entries.iter().all(|(path, id)| after.get(path) == Some(id)), "an id changed");
    assert_eq!(cli.get(&after["plain.txt"]), b"changed");
    assert_eq!(cli.list().len(), after.len());

    // What is missing or different is counted, named, and is exit 1.
    cli.run(["delete", &after["a b"]]).ok();
    cli.run_with(["modify", &after["100%25"], "-"], "other").ok();
    let verified = cli.run([OsStr::new("verify"), list.as_os_str()]).exits(1);
    let ok = after.len() - 2;
    assert_eq!(verified.last_line(), format!("{ok} ok, 1 missing, 1 different"));
}

/// A broken manifest line stops verify, export and import before they do anything, and is named.
#[test]
fn no_broken_manifest_line_is_passed_over() {
    let cluster = Cluster::small();
    let cli = cluster.cli();
    let dir = cluster.dir.path();
    let tree = dir.join("tree");
    std::fs::create_dir(&tree).expect("folder");
    for n in 0..3 {
        std::fs::write(tree.join(format!("f{n}")), format!("{n}")).expect("file");
    }
    let list = dir.join("list.tsv");
    cli.import(&tree, &list).ok();
    let good = std::fs::read_to_string(&list).expect("manifest");
    let lines: Vec<&str> = good.lines().collect();
    let second: Vec<&str> = lines[1].split('\t').collect();
    let broken = [
        "no tabs at all".to_owned(),
        second[..3].join("\t"),
        format!("{}\textra", lines[1]),
        lines[1].replace(second[0], "g/a/AAAA"),
        [second[0], "-5", second[2], second[3]].join("\t"),
        [second[0], second[1], "beef", second[3]].join("\t"),
        [second[0], second[1], second[2], "../escape"].join("\t"),
        [second[0], second[1], second[2], "/etc/passwd"].join("\t"),
        [second[0], second[1], second[2], "bad%zz"].join("\t"),
    ];
    for line in broken {
        std::fs::write(&list, [lines[0], line.as_str(), lines[2], ""].join("\n")).expect("write");
        let out = dir.join("out");
        let runs = [
            cli.run([OsStr::new("verify"), list.as_os_str()]),
            cli.run([OsStr::new("export"), list.as_os_str(), out.as_os_str()]),
            cli.import(&tree, &list),
        ];
        for run in runs {
            assert!([1, 2].contains(&run.code), "{line:?}: exit {}: {}", run.code, run.stderr);
            run.says(&["line 2"]);
        }
        assert!(!out.exists() || files(&out).is_empty(), "{line:?}: exported something");
    }
    assert_eq!(cli.list().len(), 3);
    cli.run([OsStr::new("verify"), dir.join("absent").as_os_str()]).exits(1);
}

/// Unreadable files are named and end in exit 1; all others are stored.
#[test]
fn no_file_that_vanishes_or_changes_stops_the_others() {
    let cluster = Cluster::small();
    let cli = cluster.cli();
    let (tree, list) = (cluster.dir.path().join("tree"), cluster.dir.path().join("list.tsv"));
    std::fs::create_dir(&tree).expect("folder");
    for n in 0..200u64 {
        std::fs::write(tree.join(format!("f{n:03}")), content(n, 1, 4000)).expect("file");
    }
    // One file grows and shrinks for as long as the import runs.
    let busy = tree.join("f100");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut version = 1;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                version += 1;
                let size = 30_000 + (version as usize % 7) * 30_000;
                std::fs::write(&busy, content(100, version, size)).expect("file");
            }
        });
        let answer = cli.import(&tree, &list);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!([0, 1].contains(&answer.code), "{}: {}", answer.code, answer.stderr);
        if answer.code == 1 {
            answer.says(&["f100"]);
        }
    });
    let entries = manifest(&list);
    assert!(entries.len() >= 199, "{} of 200", entries.len());
    // What the manifest says is what is stored, for the busy file too.
    cli.run([OsStr::new("verify"), list.as_os_str()]).ok();
    cli.import(&tree, &list).ok();
    assert_eq!(manifest(&list).len(), 200);
    assert_eq!(cli.list().len(), 200, "nothing is doubled");
    cli.run([OsStr::new("verify"), list.as_os_str()]).ok();
    assert!(cli.get(&manifest(&list)["f100"]) == std::fs::read(&busy).expect("file"));
}

/// Kills an import when its manifest has grown beyond `size` bytes, or lets it end.
fn import_shot_at(cli: &Cli, tree: &Path, list: &Path, size: u64) -> bool {
    let args = [OsStr::new("import"), tree.as_os_str(), OsStr::new("-m"), list.as_os_str()];
    let mut command = cli.command(args);
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    let grown = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    let ended = eventually("the import gets there", PATIENCE, || {
        if child.try_wait().expect("our child").is_some() {
            return Some(true);
        }
        (grown(list) > size).then_some(false)
    });
    child.kill().expect("our child");
    child.wait().expect("our child");
    ended
}

/// SIGKILL at many points; each repetition goes on. In the end each path stands once, and the cluster has exactly one
/// object per file.
#[test]
fn no_interrupted_import_loses_or_doubles_a_file() {
    let seed = from_env("FOLIO_IMPORT_SEED", 1);
    let shots = from_env("FOLIO_IMPORT_SHOTS", 12);
    let cluster = Cluster::new(1, &["a", "b"], 1).started();
    let cli = cluster.cli();
    let (tree, list) = (cluster.dir.path().join("tree"), cluster.dir.path().join("list.tsv"));
    std::fs::create_dir(&tree).expect("folder");
    let count = 1500u64;
    for n in 0..count {
        let size = if n % 300 == 7 { 2 << 20 } else { 28 + (n as usize * 37) % 5000 };
        std::fs::write(tree.join(format!("f{n:04}")), content(n, 1, size)).expect("file");
    }
    let mut dice = seed;
    let mut kills = 0;
    for _ in 0..shots {
        // Lines are about 160 bytes: between none and a few hundred files further.
        let size = std::fs::metadata(&list).map_or(0, |meta| meta.len());
        let further = below(&mut dice, 2 * count * 160 / shots);
        if import_shot_at(&cli, &tree, &list, size + further) {
            break;
        }
        kills += 1;
    }
    println!("{kills} kills");
    assert!(kills > 0, "no import was shot");
    cli.import(&tree, &list).ok();
    let entries = manifest(&list);
    assert_eq!(entries.len() as u64, count);
    assert_eq!(entries.values().collect::<BTreeSet<_>>().len() as u64, count);
    let verified = cli.run([OsStr::new("verify"), list.as_os_str()]).ok();
    assert_eq!(verified.last_line(), format!("{count} ok, 0 missing, 0 different"));
    let listed = cli.list();
    let known: BTreeSet<&String> = entries.values().collect();
    let stray = listed.iter().filter(|id| !known.contains(id)).count();
    assert_eq!((listed.len() as u64, stray), (count, 0), "objects in the cluster, strays");
}

/// The cluster dies and comes back while an import runs: the import goes on or says that it could not, and a
/// repetition ends with one object per file.
#[test]
fn no_import_doubles_a_file_when_the_cluster_is_shot() {
    let mut cluster = Cluster::new(1, &["a"], 1).started();
    let cli = cluster.cli();
    let (tree, list) = (cluster.dir.path().join("tree"), cluster.dir.path().join("list.tsv"));
    std::fs::create_dir(&tree).expect("folder");
    let count = 1500u64;
    for n in 0..count {
        std::fs::write(tree.join(format!("f{n:04}")), content(n, 1, 3000)).expect("file");
    }
    let args = [OsStr::new("import"), tree.as_os_str(), OsStr::new("-m"), list.as_os_str()];
    let mut child = cli.command(args).stdout(Stdio::null()).spawn().expect("the program starts");
    for round in 1..4 {
        eventually("the import gets on", PATIENCE, || {
            let size = std::fs::metadata(&list).map_or(0, |meta| meta.len());
            let ended = child.try_wait().expect("our child").is_some();
            (ended || size > round * count * 30).then_some(())
        });
        cluster.kill_all();
        cluster.start();
    }
    let status = child.wait().expect("our child");
    println!("the import under fire ended with {status}");
    cli.import(&tree, &list).ok();
    assert_eq!(manifest(&list).len() as u64, count);
    cli.run([OsStr::new("verify"), list.as_os_str()]).ok();
    assert_eq!(cli.list().len() as u64, count, "objects in the cluster");
}

/// Links are neither followed nor stored.
#[test]
fn no_import_follows_links_or_leaves_its_folder() {
    let cluster = Cluster::small();
    let cli = cluster.cli();
    let tree = cluster.dir.path().join("tree");
    std::fs::create_dir(&tree).expect("folder");
    std::fs::write(cluster.dir.path().join("outside"), b"secret").expect("file");
    std::os::unix::fs::symlink("../outside", tree.join("link")).expect("link");
    std::os::unix::fs::symlink(".", tree.join("loop")).expect("link");
    std::fs::write(tree.join(OsString::from_vec(vec![0xff])), b"x").expect("file");
    let list = cluster.dir.path().join("list.tsv");
    cli.import(&tree, &list).ok();
    assert_eq!(manifest(&list).keys().collect::<Vec<_>>(), ["%FF"]);
}
