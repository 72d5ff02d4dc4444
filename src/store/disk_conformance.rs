//! What every [`Disk`] must do alike. Both implementations run the same list, so that what the engine was crashed on is
//! what it runs on.
#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;

use super::disk::{Disk, DiskFile, Entry, Open};

/// Runs everything on a blank disk.
pub fn all(disk: &impl Disk) {
    files_are_created_once_and_found_again(disk);
    bytes_are_where_they_were_put(disk);
    gaps_and_extensions_read_as_zeros(disk);
    a_cut_file_does_not_remember(disk);
    vectored_writes_are_one_run_of_bytes(disk);
    allocation_changes_nothing_that_is_read(disk);
    punched_ranges_read_as_zeros(disk);
    names_move_and_go(disk);
    an_open_file_survives_its_name(disk);
    a_second_name_is_the_same_file(disk);
    folders_are_made_and_listed(disk);
    paths_cannot_leave_the_mount(disk);
    read_handles_do_not_write(disk);
    space_is_told(disk);
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.err().map_or(ErrorKind::Other, |e| e.kind())
}

fn content<D: Disk>(disk: &D, path: &str) -> Vec<u8> {
    let file = disk.open(path, Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap() + 1];
    let n = file.read_full_at(0, &mut bytes).unwrap();
    bytes.truncate(n);
    bytes
}

fn files_are_created_once_and_found_again(disk: &impl Disk) {
    assert_eq!(kind(disk.open("once", Open::Read)), ErrorKind::NotFound);
    assert_eq!(kind(disk.open("once", Open::Write)), ErrorKind::NotFound);
    assert_eq!(disk.stat("once").unwrap(), None);
    let file = disk.open("once", Open::Create).unwrap();
    assert!(file.is_empty().unwrap());
    assert_eq!(kind(disk.open("once", Open::Create)), ErrorKind::AlreadyExists);
    file.write_all_at(0, b"here").unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    assert_eq!(disk.stat("once").unwrap(), Some(4));
    assert_eq!(content(disk, "once"), b"here");
    let again = disk.open("once", Open::Write).unwrap();
    again.write_all_at(0, b"H").unwrap();
    assert_eq!(content(disk, "once"), b"Here");
    assert_eq!(kind(disk.open("no/such/folder", Open::Create)), ErrorKind::NotFound);
    assert_eq!(kind(disk.open("once/below", Open::Create)), ErrorKind::NotADirectory);
}

fn bytes_are_where_they_were_put(disk: &impl Disk) {
    let file = disk.open("bytes", Open::Create).unwrap();
    let big: Vec<u8> = (0..20_000_u32).map(|i| (i % 251) as u8).collect();
    file.write_all_at(1000, &big).unwrap();
    file.write_all_at(5000, b"patched").unwrap();
    let mut expected = vec![0; 1000];
    expected.extend_from_slice(&big);
    expected[5000..5007].copy_from_slice(b"patched");
    assert_eq!(content(disk, "bytes"), expected);
    let mut part = [0; 100];
    assert_eq!(file.read_at(20_950, &mut part).unwrap(), 50, "short at the end");
    assert_eq!(file.read_at(21_000, &mut part).unwrap(), 0);
    assert_eq!(file.read_at(99_000, &mut part).unwrap(), 0);
    assert_eq!(file.read_at(0, &mut []).unwrap(), 0);
    assert_eq!(file.write_at(99_000, &[]).unwrap(), 0);
    assert_eq!(file.len().unwrap(), 21_000, "an empty write does not extend");
    file.write_back(0, 21_000).unwrap();
    file.write_back(0, 0).unwrap();
}

fn gaps_and_extensions_read_as_zeros(disk: &impl Disk) {
    let file = disk.open("gaps", Open::Create).unwrap();
    file.write_all_at(10_000, b"x").unwrap();
    file.set_len(12_000).unwrap();
    let mut expected = vec![0; 12_000];
    expected[10_000] = b'x';
    assert_eq!(content(disk, "gaps"), expected);
}

fn a_cut_file_does_not_remember(disk: &impl Disk) {
    let file = disk.open("cut", Open::Create).unwrap();
    file.write_all_at(0, &[7; 9000]).unwrap();
    file.set_len(100).unwrap();
    assert_eq!(file.len().unwrap(), 100);
    file.set_len(9000).unwrap();
    let mut expected = vec![7; 100];
    expected.resize(9000, 0);
    assert_eq!(content(disk, "cut"), expected);
}

fn vectored_writes_are_one_run_of_bytes(disk: &impl Disk) {
    let file = disk.open("parts", Open::Create).unwrap();
    let many: Vec<Vec<u8>> = (0..2500_u32).map(|i| vec![i as u8; (i % 4) as usize]).collect();
    let parts: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    file.write_all_vectored_at(3, &parts).unwrap();
    let expected: Vec<u8> = [0; 3].into_iter().chain(many.concat()).collect();
    assert_eq!(content(disk, "parts"), expected);
}

fn allocation_changes_nothing_that_is_read(disk: &impl Disk) {
    let file = disk.open("allocated", Open::Create).unwrap();
    file.write_all_at(0, b"before").unwrap();
    file.allocate(0, 50_000).unwrap();
    file.allocate(100, 10).unwrap();
    file.allocate(7, 0).unwrap();
    assert_eq!(file.len().unwrap(), 50_000);
    let mut expected = b"before".to_vec();
    expected.resize(50_000, 0);
    assert_eq!(content(disk, "allocated"), expected);
}

fn punched_ranges_read_as_zeros(disk: &impl Disk) {
    let file = disk.open("punched", Open::Create).unwrap();
    file.write_all_at(0, &[9; 20_000]).unwrap();
    file.punch(100, 12_000).unwrap();
    file.punch(19_000, 50_000).unwrap();
    file.punch(0, 0).unwrap();
    let mut expected = vec![9; 20_000];
    expected[100..12_100].fill(0);
    expected[19_000..].fill(0);
    assert_eq!(content(disk, "punched"), expected, "and the length stays");
}

fn names_move_and_go(disk: &impl Disk) {
    disk.open("old", Open::Create).unwrap().write_all_at(0, b"old").unwrap();
    disk.open("new", Open::Create).unwrap().write_all_at(0, b"new").unwrap();
    disk.rename("old", "new").unwrap();
    assert_eq!(content(disk, "new"), b"old");
    assert_eq!(disk.stat("old").unwrap(), None);
    assert_eq!(kind(disk.rename("old", "new")), ErrorKind::NotFound);
    disk.create_dir_all("moved/deep").unwrap();
    disk.rename("new", "moved/deep/new").unwrap();
    assert_eq!(content(disk, "moved/deep/new"), b"old");
    assert_eq!(kind(disk.rename("moved/deep/new", "nowhere/new")), ErrorKind::NotFound);
    disk.unlink("moved/deep/new").unwrap();
    assert_eq!(kind(disk.unlink("moved/deep/new")), ErrorKind::NotFound);
    assert!(disk.unlink("moved/deep").is_err(), "unlink is for files");
    assert!(disk.list("moved/deep").unwrap().is_empty());
}

fn an_open_file_survives_its_name(disk: &impl Disk) {
    let file = disk.open("doomed", Open::Create).unwrap();
    file.write_all_at(0, b"still here").unwrap();
    disk.open("heir", Open::Create).unwrap().write_all_at(0, b"heir").unwrap();
    disk.rename("heir", "doomed").unwrap();
    let mut bytes = [0; 10];
    assert_eq!(file.read_full_at(0, &mut bytes).unwrap(), 10);
    assert_eq!(&bytes, b"still here");
    disk.unlink("doomed").unwrap();
    file.write_all_at(0, b"STILL").unwrap();
    file.read_full_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"STILL here");
}

fn a_second_name_is_the_same_file(disk: &impl Disk) {
    disk.open("first", Open::Create).unwrap().write_all_at(0, b"one").unwrap();
    disk.link("first", "second").unwrap();
    assert_eq!(kind(disk.link("first", "second")), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.link("none", "third")), ErrorKind::NotFound);
    disk.open("second", Open::Write).unwrap().write_all_at(0, b"two").unwrap();
    assert_eq!(content(disk, "first"), b"two");
    disk.unlink("first").unwrap();
    assert_eq!(content(disk, "second"), b"two");
    disk.unlink("second").unwrap();
}

fn folders_are_made_and_listed(disk: &impl Disk) {
    assert_eq!(kind(disk.list("a")), ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir("a")), ErrorKind::NotFound);
    disk.create_dir_all("a/b/c").unwrap();
    disk.create_dir_all("a/b/c").unwrap();
    disk.create_dir_all("a/b/d").unwrap();
    disk.create_dir_all("").unwrap();
    disk.open("a/b/file", Open::Create).unwrap().write_all_at(0, b"123").unwrap();
    disk.sync_dir("a/b").unwrap();
    let entry = |name: &str, is_dir, len| Entry { name: name.into(), is_dir, len };
    let expected = vec![entry("c", true, 0), entry("d", true, 0), entry("file", false, 3)];
    assert_eq!(disk.list("a/b").unwrap(), expected);
    assert!(disk.list("").unwrap().contains(&entry("a", true, 0)));
    assert_eq!(kind(disk.list("a/b/file")), ErrorKind::NotADirectory);
    assert_eq!(disk.stat("a/b").unwrap(), None, "a folder is no file");
    assert_eq!(disk.stat("x/y/z").unwrap(), None);
    assert_eq!(kind(disk.open("a/b", Open::Read)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.open("a/b", Open::Write)), ErrorKind::IsADirectory);
    assert!(disk.create_dir_all("a/b/file").is_err());
    assert!(disk.create_dir_all("a/b/file/below").is_err());
}

fn paths_cannot_leave_the_mount(disk: &impl Disk) {
    for path in ["/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/", "nul\0"] {
        assert_eq!(kind(disk.open(path, Open::Read)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(disk.open(path, Open::Create)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(disk.create_dir_all(path)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(disk.rename(path, "x")), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(disk.unlink(path)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(disk.list(path)), ErrorKind::InvalidInput, "{path:?}");
    }
}

fn read_handles_do_not_write(disk: &impl Disk) {
    disk.open("guarded", Open::Create).unwrap().write_all_at(0, b"safe").unwrap();
    let file = disk.open("guarded", Open::Read).unwrap();
    assert!(file.write_at(0, b"evil").is_err());
    assert!(file.set_len(0).is_err());
    assert!(file.allocate(0, 100).is_err());
    assert!(file.punch(0, 100).is_err());
    assert_eq!(content(disk, "guarded"), b"safe");
}

fn space_is_told(disk: &impl Disk) {
    let space = disk.space().unwrap();
    assert!(space.total > 0 && space.free > 0 && space.free <= space.total);
}
