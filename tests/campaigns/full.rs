//! Disks that are full and disks that go away. Both need the right to mount.

use crate::cluster;
use crate::harness::cluster::Cluster;
use crate::harness::content::{content, identify};
use crate::harness::eventually;
use crate::harness::mounting::{Mounted, permitted};
use std::path::Path;
use std::time::Duration;

fn free_bytes(path: &Path) -> u64 {
    let space = rustix::fs::statvfs(path).expect("statvfs");
    space.f_bavail * space.f_frsize
}

fn put(cluster: &Cluster, n: u64, size: usize) -> Option<String> {
    let answer = cluster.cli().run_with(["put", "-"], content(n, 1, size).to_vec());
    match answer.code {
        0 => Some(answer.line()),
        1 => {
            assert!(
                answer.stderr.contains("space") || answer.stderr.contains("room"),
                "{}",
                answer.stderr
            );
            None
        }
        code => panic!("exit {code}: {}", answer.stderr),
    }
}

fn is_whole(cluster: &Cluster, n: u64, id: &str) {
    assert_eq!(identify(&cluster.cli().get(id)), Ok((n, 1)), "{id}");
}

/// A small tmpfs filled up: inserts are refused before the reserve is eaten; reads and deletes work at 100 % full;
/// writing goes on unaided when there is space.
#[test]
#[ignore = "needs the right to mount: see docs/TESTING.md"]
fn no_full_disk_stops_reads_or_stays_closed() {
    let mut cluster = cluster(&["a"], 1)
        .storages_with("store.chunkfile_size", "\"4MiB\"")
        .storages_with("sync.log_retention_bytes", "\"16MiB\"")
        .storages_with("store.undelete_window", "\"0s\"");
    let mount = cluster.mount_path(0, 0);
    let path = mount.to_str().expect("text").to_owned();
    if !permitted("mount", &["-t", "tmpfs", "-o", "size=256m", "tmpfs", &path]) {
        println!("skipped: no right to mount a tmpfs");
        return;
    }
    let _mounted = Mounted(mount.clone());
    cluster.start();
    let reserve = 64u64 << 20;
    let mut ids = Vec::new();
    for n in 0..2000u64 {
        let size = if n % 10 == 9 { 1_500_000 } else { 300_000 };
        match put(&cluster, n, size) {
            Some(id) => ids.push((n, id)),
            None => break,
        }
        assert!(free_bytes(&mount) >= reserve, "the reserve is eaten: {}", free_bytes(&mount));
    }
    println!("{} objects, {} MiB free", ids.len(), free_bytes(&mount) >> 20);
    assert!(ids.len() > 100 && ids.len() < 2000, "{}", ids.len());
    assert!(
        cluster.storages[0].admin("status").to_lowercase().contains("warn"),
        "status is silent"
    );

    // Somebody else fills the rest.
    let filler = mount.join("filler");
    let rest = vec![0u8; 1 << 20];
    let mut file = std::fs::File::create(&filler).expect("file");
    while std::io::Write::write_all(&mut file, &rest).is_ok() {}
    drop(file);
    assert!(free_bytes(&mount) < 1 << 20, "{}", free_bytes(&mount));
    for (n, id) in &ids {
        is_whole(&cluster, *n, id);
    }
    assert_eq!(put(&cluster, 9999, 1000), None);
    let gone: Vec<_> = ids.drain(..ids.len() / 2).collect();
    for (_, id) in &gone {
        cluster.cli().run(["delete", id]).ok();
        cluster.cli().run(["get", id]).exits(3);
    }
    std::fs::remove_file(filler).expect("remove");
    let id = eventually("writing resumes", Duration::from_secs(30), || put(&cluster, 7, 300_000));
    is_whole(&cluster, 7, &id);
    for (n, id) in &ids {
        is_whole(&cluster, *n, id);
    }
    cluster.storages[0].take().kill();
    cluster.storages[0].start();
    for (n, id) in &ids {
        is_whole(&cluster, *n, id);
    }
    for (_, id) in &gone {
        cluster.cli().run(["get", id]).exits(3);
    }
    cluster.stop_all();
}

/// One of three mounts goes away (`umount -l` of a loop mount) under work: the others serve, nothing of theirs is
/// lost, it is reported, the daemon stays.
#[test]
#[ignore = "needs the right to mount: see docs/TESTING.md"]
fn no_lost_disk_takes_the_others_along() {
    let mut cluster = cluster(&["a"], 3);
    let mount = cluster.mount_path(0, 1);
    let image = cluster.dir.path().join("image");
    std::fs::File::create(&image).and_then(|file| file.set_len(1 << 30)).expect("image");
    let (image, path) =
        (image.to_str().expect("text").to_owned(), mount.to_str().expect("text").to_owned());
    if !permitted("mkfs.ext4", &["-q", "-F", &image])
        || !permitted("mount", &["-o", "loop", &image, &path])
    {
        println!("skipped: no right to make and mount a loop file system");
        return;
    }
    let _mounted = Mounted(mount.clone());
    cluster.start();
    let mut ids: Vec<(u64, String)> =
        (0..30).filter_map(|n| Some((n, put(&cluster, n, 5000)?))).collect();
    assert_eq!(ids.len(), 30);
    assert!(permitted("umount", &["-l", &path]));
    eventually("the mount is reported", Duration::from_secs(10), || {
        cluster.storages[0].admin("mounts").to_lowercase().contains("failed").then_some(())
    });
    for n in 30..60 {
        ids.push((n, put(&cluster, n, 5000).expect("the others take puts")));
    }
    let on = |id: &str| id.parse::<folio::format::file_id::FileId>().expect("an id").object.mount;
    for (n, id) in &ids {
        if on(id) == 1 {
            assert!(*n < 30, "a put went to the lost mount");
            let code = cluster.cli().run(["get", id]).code;
            assert!([0, 5].contains(&code), "exit {code}");
        } else {
            is_whole(&cluster, *n, id);
        }
    }
    // Restart without the disk: a mount point that is no mount must not be taken for an empty disk.
    cluster.storages[0].stop();
    cluster.storages[0].start();
    assert!(
        std::fs::read_dir(&mount).expect("folder").next().is_none(),
        "written below the mount point"
    );
    let text = cluster.storages[0].admin("mounts").to_lowercase();
    assert!(text.contains("failed") && text.contains("not mounted"), "{text}");
    assert!(permitted("mount", &["-o", "loop", &image, &path]));
    eventually("it is served again", Duration::from_secs(30), || {
        ids.iter().all(|(_, id)| cluster.cli().run(["get", id]).code == 0).then_some(())
    });
    for (n, id) in &ids {
        is_whole(&cluster, *n, id);
    }
    cluster.stop_all();
}
