//! Beyond what every disk must do: links, locks, identity, read modes. On the temporary folder's file system and, where
//! there is one, on tmpfs.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::store::disk_conformance;

fn blank() -> (tempfile::TempDir, OsDisk) {
    let folder = tempfile::tempdir().unwrap();
    let disk = OsDisk::open(folder.path()).unwrap();
    (folder, disk)
}

/// A folder on tmpfs, where this machine has one that we may write to.
fn on_tmpfs() -> Option<(tempfile::TempDir, OsDisk)> {
    let folder = tempfile::tempdir_in("/dev/shm").ok()?;
    let disk = OsDisk::open(folder.path()).ok()?;
    (disk.probe_nowait().ok()? == ReadMode::InlinePlain).then_some((folder, disk))
}

#[test]
fn a_real_directory_does_what_every_disk_must() {
    let (_folder, disk) = blank();
    disk_conformance::all(&disk);
    match on_tmpfs() {
        Some((_folder, disk)) => disk_conformance::all(&disk),
        None => eprintln!("skipped on tmpfs: no writable /dev/shm here"),
    }
}

#[test]
fn walking_by_hand_finds_the_same_and_refuses_the_same() {
    let (folder, disk) = blank();
    disk.create_dir_all("a/b").unwrap();
    disk.open("a/b/c", Open::Create).unwrap().write_all_at(0, b"x").unwrap();
    symlink("b", folder.path().join("a/link")).unwrap();
    symlink("c", folder.path().join("a/b/link")).unwrap();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let walk = |path| disk.walk(path, flags, Mode::empty());
    assert!(walk("a/b/c").is_ok());
    assert!(walk("a").is_ok());
    assert!(walk("a/link/c").is_err());
    assert!(walk("a/b/link").is_err());
    assert_eq!(walk("a/x/c").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn links_and_odd_files_are_not_followed_nor_waited_for() {
    let (folder, disk) = blank();
    let root = folder.path();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), b"secret").unwrap();
    symlink(outside.path().join("secret"), root.join("file")).unwrap();
    symlink(outside.path(), root.join("folder")).unwrap();
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), FileType::Fifo, mode, 0).unwrap();

    assert!(disk.open("file", Open::Read).is_err());
    assert!(disk.open("file", Open::Write).is_err());
    assert_eq!(disk.open("file", Open::Create).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(disk.open("folder/secret", Open::Read).is_err());
    assert!(disk.open("folder/new", Open::Create).is_err());
    assert!(disk.list("folder").is_err());
    assert!(disk.create_dir_all("folder/new").is_err());
    assert!(disk.create_dir_all("folder").is_err());
    assert!(disk.rename("folder/secret", "stolen").is_err());
    assert!(disk.unlink("folder/secret").is_err());
    assert_eq!(disk.stat("file").unwrap(), None);
    assert!(disk.open("fifo", Open::Read).is_err(), "and it did not hang");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_replaced_directory_is_noticed_and_not_followed() {
    let outer = tempfile::tempdir().unwrap();
    let path = outer.path().join("mount");
    std::fs::create_dir(&path).unwrap();
    let disk = OsDisk::open(&path).unwrap();
    assert_eq!(disk.identity().unwrap(), Identity::of_path(&path).unwrap());

    std::fs::rename(&path, outer.path().join("moved away")).unwrap();
    assert_eq!(Identity::of_path(&path).unwrap_err().kind(), ErrorKind::NotFound);
    std::fs::create_dir(&path).unwrap();
    assert_ne!(disk.identity().unwrap(), Identity::of_path(&path).unwrap());
    disk.open("late", Open::Create).unwrap();
    assert!(!path.join("late").exists(), "nothing goes to whatever took the place");
    assert!(outer.path().join("moved away/late").exists());
}

#[test]
fn two_daemons_never_hold_one_directory() {
    let (folder, first) = blank();
    first.lock().unwrap();
    first.clone().lock().unwrap();
    let second = OsDisk::open(folder.path()).unwrap();
    assert!(matches!(second.lock(), Err(LockError::Held)));
    let clone = first.clone();
    drop(first);
    assert!(matches!(second.lock(), Err(LockError::Held)), "a clone still holds it");
    drop(clone);
    second.lock().unwrap();
}

#[test]
fn writability_and_mount_roots_are_told() {
    let (folder, disk) = blank();
    assert!(disk.writable().unwrap());
    assert!(!is_mount_root(folder.path()).unwrap());
    assert!(is_mount_root(Path::new("/")).unwrap());
    assert!(is_mount_root(Path::new("/proc")).unwrap());
    assert!(is_mount_root(&folder.path().join("none")).is_err());
    if let Ok(read_only) = OsDisk::open(Path::new("/sys")) {
        // Not writable for the daemon in one way or another; the call must say so or be allowed, never fail.
        read_only.writable().unwrap();
    }
}

#[test]
fn reading_without_waiting_gives_the_bytes_or_says_why_not() {
    let (folder, disk) = blank();
    let file = disk.open("f", Open::Create).unwrap();
    file.write_all_at(0, &[5; 5000]).unwrap();
    let mut bytes = [0; 6000];
    let mode = disk.probe_nowait().unwrap();
    match file.read_nowait(0, &mut bytes).unwrap() {
        Nowait::Read(n) => {
            assert_ne!(mode, ReadMode::Pool);
            assert_eq!(n, 5000, "it was just written, so it is in memory");
            assert!(bytes[..n].iter().all(|b| *b == 5));
        }
        Nowait::WouldBlock => assert_eq!(mode, ReadMode::Nowait),
        Nowait::Unsupported => assert_ne!(mode, ReadMode::Nowait),
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the probe left nothing");
}

#[test]
fn a_missing_or_odd_root_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    assert_eq!(OsDisk::open(&path).unwrap_err().kind(), ErrorKind::NotFound);
    std::fs::write(&path, b"a file").unwrap();
    assert_eq!(OsDisk::open(&path).unwrap_err().kind(), ErrorKind::NotADirectory);
}

#[test]
fn the_memory_of_durable_folders_is_bounded() {
    let (_folder, disk) = blank();
    for n in 0..=DURABLE_FOLDERS_MAX {
        disk.remember_durable(&n.to_string());
    }
    let known = disk.shared.durable_folders.lock().unwrap().len();
    assert!(known <= DURABLE_FOLDERS_MAX, "{known}");
}
