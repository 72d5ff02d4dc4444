//! The simulator is believed by every crash test, so it is tested for both: that it takes away what may go, and that it
//! keeps what must stay.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;
use crate::store::disk::DiskFile as _;
use crate::store::disk_conformance;

fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(path, Open::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_full_at(0, &mut bytes).unwrap();
    Some(bytes)
}

/// A durable file of that content.
fn durable(disk: &SimDisk, path: &str, content: &[u8]) -> SimFile {
    let file = disk.open(path, Open::Create).unwrap();
    file.write_all_at(0, content).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(path.rsplit_once('/').map_or("", |(folder, _)| folder)).unwrap();
    file
}

/// Everything that `look` sees over all power cuts (which must be few enough to enumerate).
fn all_cuts<T: Ord>(disk: &SimDisk, look: impl Fn(&SimDisk) -> T) -> BTreeSet<T> {
    assert!(disk.unsynced() <= EXHAUSTIVE_THINGS, "{:?}", disk.outcomes());
    let cuts = disk.power_cuts(1000, &mut Dice::new(0));
    cuts.iter().map(|picks| look(&disk.power_cut_with(picks))).collect()
}

#[test]
fn the_simulator_does_what_every_disk_must() {
    for sector in [512, 4096] {
        for names in [NameOrder::PerFolder, NameOrder::Independent] {
            let disk = SimDisk::new(SimOptions { sector, names, capacity: 1 << 30 });
            disk_conformance::all(&disk);
        }
    }
}

#[test]
fn what_was_synced_stays_and_what_was_not_may_go() {
    let disk = SimDisk::default();
    let file = durable(&disk, "f", b"old");
    assert_eq!(disk.unsynced(), 0);
    assert_eq!(all_cuts(&disk, |after| read(after, "f")), [Some(b"old".to_vec())].into());

    file.write_all_at(0, b"new").unwrap();
    let seen = all_cuts(&disk, |after| read(after, "f"));
    assert_eq!(seen, [Some(b"old".to_vec()), Some(b"new".to_vec())].into());

    file.sync_data().unwrap();
    assert_eq!(all_cuts(&disk, |after| read(after, "f")), [Some(b"new".to_vec())].into());
}

#[test]
fn sectors_land_each_by_itself_but_never_in_halves() {
    for sector in [512_u64, 4096] {
        let disk = SimDisk::new(SimOptions { sector, ..SimOptions::default() });
        let size = sector as usize;
        let file = durable(&disk, "f", &vec![b'a'; 3 * size]);
        file.write_all_at(sector / 2, &vec![b'b'; 2 * size]).unwrap();
        let seen = all_cuts(&disk, |after| read(after, "f").unwrap());
        assert_eq!(seen.len(), 8, "all subsets of three sectors");
        for content in seen {
            for (n, half) in content.chunks(size / 2).enumerate() {
                assert!(half.iter().all(|byte| *byte == half[0]), "torn in half-sector {n}");
            }
            assert_eq!(content[..size / 2], vec![b'a'; size / 2]);
            assert_eq!(content[size], content[2 * size - 1], "the sector in the middle is one");
        }
    }
}

#[test]
fn of_several_states_of_a_sector_any_one_lands() {
    let disk = SimDisk::default();
    let file = durable(&disk, "f", b"0");
    for state in [b"1", b"2", b"3"] {
        file.write_all_at(0, state).unwrap();
    }
    let seen = all_cuts(&disk, |after| read(after, "f").unwrap());
    assert_eq!(seen, [b"0", b"1", b"2", b"3"].map(|state| state.to_vec()).into());
}

#[test]
fn a_changed_length_lands_or_not() {
    let disk = SimDisk::default();
    let file = durable(&disk, "f", b"abc");
    file.set_len(2000).unwrap();
    let seen = all_cuts(&disk, |after| read(after, "f").unwrap().len());
    assert_eq!(seen, [3, 2000].into());
    file.sync_data().unwrap();
    file.set_len(1).unwrap();
    let seen = all_cuts(&disk, |after| read(after, "f").unwrap());
    assert!(seen.contains(b"a".as_slice()) && seen.iter().any(|content| content.len() == 2000));
}

#[test]
fn bytes_past_a_length_that_did_not_land_are_never_seen() {
    let disk = SimDisk::default();
    let file = durable(&disk, "f", b"abc");
    file.write_all_at(3, b"secret").unwrap();
    for picks in disk.power_cuts(100, &mut Dice::new(1)) {
        let after = disk.power_cut_with(&picks);
        let file = after.open("f", Open::Write).unwrap();
        if file.len().unwrap() == 3 {
            file.set_len(9).unwrap();
            assert_eq!(read(&after, "f").unwrap(), b"abc\0\0\0\0\0\0");
        }
    }
}

#[test]
fn names_are_nothing_before_their_folder_is_synced() {
    let disk = SimDisk::default();
    let file = disk.open("f", Open::Create).unwrap();
    file.write_all_at(0, b"x").unwrap();
    file.sync_data().unwrap();
    let seen = all_cuts(&disk, |after| read(after, "f"));
    assert_eq!(seen, [None, Some(b"x".to_vec())].into(), "synced data, but under no sure name");
    disk.sync_dir("").unwrap();
    assert_eq!(all_cuts(&disk, |after| read(after, "f")), [Some(b"x".to_vec())].into());

    disk.rename("f", "g").unwrap();
    let seen = all_cuts(&disk, |after| (read(after, "f").is_some(), read(after, "g").is_some()));
    assert_eq!(seen, [(true, false), (false, true)].into(), "moved or not, never both or none");
    disk.sync_dir("").unwrap();
    disk.unlink("g").unwrap();
    assert_eq!(all_cuts(&disk, |after| read(after, "g").is_some()), [true, false].into());
    disk.link("g", "h").unwrap_err();
    disk.sync_dir("").unwrap();
    assert_eq!(all_cuts(&disk, |after| read(after, "g").is_some()), [false].into());
}

#[test]
fn a_name_without_synced_data_can_be_an_empty_file() {
    let disk = SimDisk::default();
    let file = disk.open("f", Open::Create).unwrap();
    file.write_all_at(0, b"x").unwrap();
    disk.sync_dir("").unwrap();
    let seen = all_cuts(&disk, |after| read(after, "f"));
    assert!(seen.contains(&Some(Vec::new())) && seen.contains(&Some(b"x".to_vec())), "{seen:?}");
    assert!(seen.contains(&Some(vec![0])), "the length landed and the sector did not: {seen:?}");
    assert!(!seen.contains(&None));
}

#[test]
fn names_of_one_folder_land_in_order_unless_asked_otherwise() {
    for (names, expected) in [
        (NameOrder::PerFolder, vec![(false, false), (true, false), (true, true)]),
        (NameOrder::Independent, vec![(false, false), (false, true), (true, false), (true, true)]),
    ] {
        let disk = SimDisk::new(SimOptions { names, ..SimOptions::default() });
        for name in ["a", "b"] {
            let file = disk.open(name, Open::Create).unwrap();
            file.write_all_at(0, b"x").unwrap();
            file.sync_data().unwrap();
        }
        let seen =
            all_cuts(&disk, |after| (read(after, "a").is_some(), read(after, "b").is_some()));
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_rename_between_folders_is_durable_with_either_and_drags_what_it_rests_on() {
    for synced in ["from", "to"] {
        for names in [NameOrder::PerFolder, NameOrder::Independent] {
            let disk = SimDisk::new(SimOptions { names, ..SimOptions::default() });
            disk.create_dir_all("from").unwrap();
            disk.create_dir_all("to").unwrap();
            let file = disk.open("from/f", Open::Create).unwrap();
            file.write_all_at(0, b"x").unwrap();
            file.sync_data().unwrap();
            disk.rename("from/f", "to/f").unwrap();
            let look =
                |after: &SimDisk| (read(after, "from/f").is_some(), read(after, "to/f").is_some());
            assert_eq!(
                all_cuts(&disk, look),
                [(false, false), (true, false), (false, true)].into()
            );
            disk.sync_dir(synced).unwrap();
            assert_eq!(all_cuts(&disk, look), [(false, true)].into());
        }
    }
}

#[test]
fn syncing_one_folder_does_nothing_for_another() {
    let disk = SimDisk::default();
    disk.create_dir_all("a/b").unwrap();
    disk.open("a/f", Open::Create).unwrap();
    disk.open("a/b/f", Open::Create).unwrap();
    disk.sync_dir("a/b").unwrap();
    let seen =
        all_cuts(&disk, |after| (read(after, "a/f").is_some(), read(after, "a/b/f").is_some()));
    assert_eq!(seen, [(false, true), (true, true)].into());
}

#[test]
fn folders_are_durable_once_created_even_by_one_that_was_killed() {
    let disk = SimDisk::default();
    disk.create_dir_all("a/b").unwrap();
    let before = disk.calls();
    disk.create_dir_all("a/b").unwrap();
    assert_eq!(disk.calls(), before, "nothing to do");
    assert_eq!(disk.unsynced(), 0);

    // Crash between each mkdir and the sync of its parent, restart, create again, cut.
    for n in 1..=4 {
        let disk = SimDisk::default();
        disk.crash_at_call(n);
        assert!(is_crashed(&disk.create_dir_all("a/b").unwrap_err()));
        let disk = disk.kill();
        disk.create_dir_all("a/b").unwrap();
        assert!(all_cuts(&disk, |after| after.list("a/b").is_ok()).into_iter().all(|there| there));
    }
}

#[test]
fn a_folder_whose_name_is_lost_takes_its_content_along() {
    let disk = SimDisk::default();
    disk.ignore_sync_dir("");
    disk.create_dir_all("a").unwrap();
    assert_eq!(all_cuts(&disk, |after| after.list("a").is_ok()), [false, true].into());
}

#[test]
fn a_kill_keeps_the_cache_but_a_later_cut_may_still_take_it() {
    let disk = SimDisk::default();
    let file = durable(&disk, "f", b"old");
    file.write_all_at(0, b"new").unwrap();
    let after = disk.kill();
    assert!(is_crashed(&file.write_at(0, b"zombie").unwrap_err()));
    assert!(is_crashed(&disk.open("f", Open::Read).unwrap_err()));
    assert_eq!(read(&after, "f").unwrap(), b"new");
    let seen = all_cuts(&after, |cut| read(cut, "f").unwrap());
    assert_eq!(seen, [b"old".to_vec(), b"new".to_vec()].into());
}

#[test]
fn a_crash_stops_everything_and_applies_in_part() {
    let mut lengths = BTreeSet::new();
    for n in 1..=40 {
        let disk = SimDisk::default();
        let file = durable(&disk, "f", b"");
        let first = disk.calls();
        disk.crash_at_call(first + n);
        let error = (0..100)
            .map(|k| file.write_at(k * 1000, &[1; 1000]))
            .find_map(Result::err)
            .expect("it dies");
        assert!(is_crashed(&error));
        assert_eq!(disk.calls(), first + n);
        assert!(disk.has_crashed());
        assert!(is_crashed(&file.read_at(0, &mut [0]).unwrap_err()));
        assert!(is_crashed(&file.sync_data().unwrap_err()));
        assert!(is_crashed(&file.len().unwrap_err()));
        assert!(is_crashed(&disk.list("").unwrap_err()));
        assert!(is_crashed(&disk.space().unwrap_err()));
        let len = read(&disk.kill(), "f").unwrap().len() as u64;
        assert!(len >= (n - 1) * 1000 && len <= n * 1000);
        lengths.insert(len - (n - 1) * 1000);
    }
    assert!(lengths.len() > 20, "not always the same part: {lengths:?}");
    assert!(!is_crashed(&eio()));
}

#[test]
fn a_failed_sync_drops_what_was_dirty_and_a_second_sync_does_not_help() {
    let disk = SimDisk::default();
    let file = durable(&disk, "f", &[b'a'; 1024]);
    file.write_all_at(0, &[b'b'; 512]).unwrap();
    disk.fail_when(Rule::once("f", Op::SyncData, Fault::Eio));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    assert_eq!(read(&disk, "f").unwrap()[0], b'b', "the cache still shows it");
    file.sync_data().unwrap();
    let seen = all_cuts(&disk, |after| read(after, "f").unwrap()[0]);
    assert_eq!(seen, [b'a', b'b'].into(), "yet it is not durable");
    file.write_all_at(0, &[b'c'; 512]).unwrap();
    file.sync_data().unwrap();
    assert_eq!(all_cuts(&disk, |after| read(after, "f").unwrap()[0]), [b'c'].into());
}

#[test]
fn faults_strike_the_call_they_were_meant_for() {
    let disk = SimDisk::default();
    let (f, g) = (durable(&disk, "f", b"f"), durable(&disk, "g", b"g"));
    disk.fail_call(disk.calls() + 2, Fault::Eio);
    f.write_all_at(0, b"1").unwrap();
    assert_eq!(f.write_at(0, b"2").unwrap_err().raw_os_error(), Some(5));
    f.write_all_at(0, b"3").unwrap();

    disk.fail_when(Rule { after: 1, times: 2, ..Rule::once("g", Op::Write, Fault::Enospc) });
    f.write_all_at(0, b"4").unwrap();
    g.write_all_at(0, b"4").unwrap();
    assert_eq!(g.write_at(0, b"5").unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(g.write_at(0, b"6").unwrap_err().kind(), ErrorKind::StorageFull);
    g.write_all_at(0, b"7").unwrap();

    disk.fail_when(Rule::always("f", Op::Read, Fault::Eio));
    assert!(f.read_at(0, &mut [0]).is_err());
    disk.fail_when(Rule::once("h", Op::Rename, Fault::Eio));
    assert!(disk.rename("g", "h").is_err());
    disk.rename("g", "h").unwrap();
    disk.heal();
    assert_eq!(read(&disk, "f").unwrap(), b"4");
    assert_eq!(read(&disk, "h").unwrap(), b"7");
}

#[test]
fn short_lost_torn_and_misdirected_writes_are_what_they_say() {
    let disk = SimDisk::default();
    let file = durable(&disk, "f", &[b'a'; 2048]);
    let other = durable(&disk, "g", b"");
    let next = |fault| disk.fail_call(disk.calls() + 1, fault);

    next(Fault::Short(3));
    assert_eq!(file.write_at(0, b"12345").unwrap(), 3);
    assert_eq!(&read(&disk, "f").unwrap()[..5], b"123aa");
    next(Fault::Short(1));
    file.write_all_at(0, b"12345").unwrap();
    assert_eq!(&read(&disk, "f").unwrap()[..5], b"12345", "a short write is continued");

    next(Fault::Lost);
    assert_eq!(file.write_at(0, b"lost").unwrap(), 4);
    assert_eq!(&read(&disk, "f").unwrap()[..4], b"1234");

    next(Fault::Torn { keep: 600 });
    assert_eq!(file.write_at(0, &[b'x'; 1600]).unwrap(), 1600);
    let content = read(&disk, "f").unwrap();
    assert!(content[..600].iter().all(|b| *b == b'x'));
    assert!(content[600..1024].iter().all(|b| *b == b'a'), "the rest of that sector is old");
    assert!(content[1024..1600].iter().all(|b| *b == b'x'), "the next one is new");

    next(Fault::Misdirect { path: None, offset: 100 });
    assert_eq!(file.write_at(0, b"astray").unwrap(), 6);
    assert_eq!(&read(&disk, "f").unwrap()[100..106], b"astray");
    next(Fault::Misdirect { path: Some("g".into()), offset: 1 });
    file.write_all_at(0, b"there").unwrap();
    assert_eq!(read(&disk, "g").unwrap(), b"\0there");
    drop(other);
}

#[test]
fn a_flipped_bit_is_flipped_in_the_cache_and_on_the_medium() {
    let disk = SimDisk::default();
    let file = durable(&disk, "f", b"abc");
    assert!(disk.flip("f", 1, 1));
    assert_eq!(read(&disk, "f").unwrap(), b"a`c");
    assert_eq!(all_cuts(&disk, |after| read(after, "f").unwrap()), [b"a`c".to_vec()].into());
    file.write_all_at(0, b"x").unwrap();
    assert!(disk.flip("f", 2, 1));
    let seen = all_cuts(&disk, |after| read(after, "f").unwrap());
    assert_eq!(seen, [b"a`a".to_vec(), b"x`a".to_vec()].into());
    assert!(!disk.flip("f", 3, 0));
    assert!(!disk.flip("none", 0, 0));
}

#[test]
fn dropped_syncs_do_nothing_and_stay_dropped_after_a_reboot() {
    let disk = SimDisk::default();
    let file = durable(&disk, "f", b"old");
    disk.ignore_sync("f");
    file.write_all_at(0, b"new").unwrap();
    file.sync_data().unwrap();
    let old = [b"old".to_vec(), b"new".to_vec()];
    assert_eq!(all_cuts(&disk, |after| read(after, "f").unwrap()), old.into());
    let disk = disk.power_cut_with(&[]);
    let file = disk.open("f", Open::Write).unwrap();
    file.write_all_at(0, b"two").unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.unsynced(), 1);
}

#[test]
fn a_full_disk_takes_what_fits_and_gets_its_space_back() {
    let page = inode::PAGE;
    let disk = SimDisk::new(SimOptions { capacity: 10 * page, ..SimOptions::default() });
    let file = durable(&disk, "f", &[1; 4096 * 4]);
    let free = |disk: &SimDisk| disk.space().unwrap().free / page;
    assert_eq!(free(&disk), 6);
    assert_eq!(file.allocate(0, 20 * page).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(free(&disk), 6);
    file.allocate(0, 8 * page).unwrap();
    file.write_all_at(0, &[2; 4096 * 8]).unwrap();
    assert_eq!(free(&disk), 2, "what was reserved is not taken twice");

    assert_eq!(file.write_at(8 * page + 100, &[3; 4096 * 4]).unwrap() as u64, 2 * page - 100);
    let error = file.write_all_at(10 * page, b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    file.write_all_at(0, &[4; 4096]).unwrap();

    file.punch(100, 3 * page).unwrap();
    assert_eq!(free(&disk), 2, "only whole blocks are given back");
    file.set_len(5 * page).unwrap();
    assert_eq!(free(&disk), 7);
    disk.unlink("f").unwrap();
    assert_eq!(free(&disk), 7, "still open");
    drop(file);
    assert_eq!(free(&disk), 10);
    disk.set_capacity(page);
    assert_eq!(disk.space().unwrap(), Space { total: page, free: page });
}

#[test]
fn space_is_right_again_after_a_reboot() {
    let disk = SimDisk::default();
    let page = inode::PAGE;
    let used = |disk: &SimDisk| disk.space().map(|s| (s.total - s.free) / page).unwrap();
    let file = durable(&disk, "f", &[1; 4096 * 4]);
    disk.link("f", "g").unwrap();
    durable(&disk, "gone", &[1; 4096]);
    disk.unlink("gone").unwrap();
    disk.sync_dir("").unwrap();
    assert_eq!(used(&disk), 4);
    assert_eq!(used(&disk.power_cut_with(&[])), 4);
    disk.unlink("f").unwrap();
    disk.unlink("g").unwrap();
    assert_eq!(used(&disk), 4, "open");
    assert_eq!(used(&disk.fork()), 0);
    assert_eq!(used(&disk.power_cut_with(&[])), 4, "the removal did not land");
    drop(file);
    assert_eq!(used(&disk), 0);
}

#[test]
fn the_trace_tells_the_order() {
    let disk = SimDisk::default();
    disk.open("unseen", Open::Create).unwrap();
    disk.start_trace();
    let file = durable(&disk, "log", b"abc");
    disk.rename("log", "old").unwrap();
    file.punch(1, 2).unwrap();
    let calls: Vec<_> = disk
        .take_trace()
        .into_iter()
        .map(|call| (call.op, call.path.to_string(), call.offset, call.len))
        .collect();
    let call = |op, path: &str, offset, len| (op, path.to_owned(), offset, len);
    assert_eq!(
        calls,
        [
            call(Op::Create, "log", 0, 0),
            call(Op::Write, "log", 0, 3),
            call(Op::SyncData, "log", 0, 0),
            call(Op::SyncDir, "", 0, 0),
            call(Op::Rename, "log", 0, 0),
            call(Op::Punch, "old", 1, 2),
        ]
    );
    assert!(disk.take_trace().is_empty());
}

#[test]
fn forks_and_cuts_leave_the_disk_alone() {
    let disk = SimDisk::default();
    let file = durable(&disk, "f", b"base");
    file.write_all_at(0, b"dirt").unwrap();
    let fork = disk.fork();
    fork.open("f", Open::Write).unwrap().write_all_at(0, b"fork").unwrap();
    let cut = disk.power_cut_with(&[0]);
    cut.open("f", Open::Write).unwrap().write_all_at(0, b"cut!").unwrap();
    assert_eq!(read(&disk, "f").unwrap(), b"dirt");
    assert_eq!(read(&fork, "f").unwrap(), b"fork");
    assert_eq!(read(&cut, "f").unwrap(), b"cut!");
    file.sync_data().unwrap();
}

#[test]
fn every_crash_point_is_remembered_as_it_was() {
    let disk = SimDisk::default();
    let file = durable(&disk, "f", b"0");
    disk.start_forks();
    file.write_all_at(0, b"1").unwrap();
    file.sync_data().unwrap();
    file.write_all_at(0, b"2").unwrap();
    let forks = disk.take_forks();
    let seen: Vec<_> =
        forks.iter().map(|fork| all_cuts(fork, |after| read(after, "f").unwrap()[0])).collect();
    assert_eq!(seen, [[b'0'].into(), [b'0', b'1'].into(), [b'1'].into()]);
    assert!(disk.take_forks().is_empty());
}

#[test]
fn equal_contents_hash_alike_and_others_do_not() {
    let make = |content: &[u8], name: &str| {
        let disk = SimDisk::default();
        durable(&disk, name, content);
        disk.digest()
    };
    assert_eq!(make(b"x", "f"), make(b"x", "f"));
    assert_ne!(make(b"x", "f"), make(b"y", "f"));
    assert_ne!(make(b"x", "f"), make(b"x", "g"));
    assert_ne!(make(b"x", "f"), make(b"x\0", "f"));
}

#[test]
fn the_same_seed_draws_the_same_and_covers_the_extremes() {
    let disk = SimDisk::default();
    let file = durable(&disk, "f", &[0; 512 * 20]);
    for n in 0..20 {
        file.write_all_at(n * 512, &[1; 512]).unwrap();
    }
    let cuts = disk.power_cuts(64, &mut Dice::new(7));
    assert_eq!(cuts.len(), 64);
    assert_eq!(cuts, disk.power_cuts(64, &mut Dice::new(7)));
    assert_ne!(cuts, disk.power_cuts(64, &mut Dice::new(8)));
    assert!(cuts[0].iter().all(|pick| *pick == 0));
    assert_eq!(read(&disk.power_cut_with(&cuts[1]), "f").unwrap(), [1; 512 * 20]);
    let distinct: BTreeSet<u64> =
        cuts.iter().map(|picks| disk.power_cut_with(picks).digest()).collect();
    assert!(distinct.len() > 40, "{}", distinct.len());
}

#[test]
fn few_things_with_many_states_are_still_tried_in_every_subset() {
    let disk = SimDisk::default();
    let file = durable(&disk, "f", &[0; 512 * 6]);
    for round in 1..=9 {
        for sector in 0..6 {
            file.write_all_at(sector * 512, &[round; 512]).unwrap();
        }
    }
    assert_eq!(disk.outcomes(), [10; 6]);
    let cuts = disk.power_cuts(64, &mut Dice::new(1));
    assert_eq!(cuts.len(), 128, "64 subsets and 64 drawn ones");
    let subsets: BTreeSet<_> =
        cuts.iter().filter(|picks| picks.iter().all(|pick| [0, 9].contains(pick))).collect();
    assert_eq!(subsets.len(), 64);
}

#[test]
fn deleted_files_do_not_pile_up() {
    let disk = SimDisk::default();
    for _ in 0..1000 {
        durable(&disk, "f", &[1; 4096]);
        disk.unlink("f").unwrap();
        disk.sync_dir("").unwrap();
    }
    assert!(disk.state().medium.nodes() < 100);
}
