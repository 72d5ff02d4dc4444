//! The fear: a machine with very many disks needs a thread for everything, or fills one disk and leaves the others empty.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a test that looks at its own process"
)]

mod common;

use common::{Node, content};
use folio::format::file_id::ObjectId;
use folio::messages::heads::Written;

const MOUNTS: usize = 256;
const THREADS_MAX: usize = 700;
const ROUNDS: usize = 10;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count())
}

#[test]
fn two_hundred_and_fifty_six_mounts_are_even_and_need_few_threads() {
    let dir = tempfile::tempdir().expect("dir");
    let begun = std::time::Instant::now();
    let node = Node::start(dir.path(), MOUNTS, &[]);
    println!("{MOUNTS} new mounts serve after {} ms", begun.elapsed().as_millis());
    let mut client = node.client();
    let mut on_mount = [0_usize; MOUNTS];
    let mut ids = Vec::new();
    for i in 0..ROUNDS {
        let requests: Vec<u64> =
            (0..MOUNTS).map(|m| client.send_put(&content(i * MOUNTS + m, 1000), None)).collect();
        for (m, request) in requests.into_iter().enumerate() {
            let written: Written = client.outcome(request).expect("stored");
            on_mount[usize::from(ObjectId::decode(&written.id).expect("an id").mount)] += 1;
            ids.push((written.id, i * MOUNTS + m));
        }
    }
    assert!(
        on_mount.iter().all(|n| (ROUNDS * 9 / 10..=ROUNDS * 11 / 10).contains(n)),
        "{on_mount:?}"
    );
    assert!(threads() <= THREADS_MAX, "{} threads", threads());
    drop(client);
    node.stop();

    let begun = std::time::Instant::now();
    let node = Node::start(dir.path(), MOUNTS, &[]);
    println!("{MOUNTS} known mounts serve after {} ms", begun.elapsed().as_millis());
    let mut client = node.client();
    // The first read of each mount opens a file, which is what the read threads are for.
    for (id, seed) in &ids {
        assert_eq!(client.get(id).expect("read"), content(*seed, 1000));
    }
    println!("{} threads", threads());
    assert!(threads() <= THREADS_MAX, "{} threads", threads());
}
