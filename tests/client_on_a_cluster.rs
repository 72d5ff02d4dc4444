//! The client library on real daemons in this process: trackers, storages, sockets, disks.
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test")]

use bytes::Bytes;
use folio::actors::threads::Threads;
use folio::client::{Body, Client, ClientOptions, Error, ErrorCode, GetOptions, PutOptions};
use folio::format::file_id::FileId;
use folio::messages::heads::ObjectState;
use folio::settings::keys::Keys;
use folio::settings::{Environment, Source, StorageSettings, TrackerSettings};
use folio::storage::{self, StartOptions, Storage};
use folio::tracker::{self, Tracker};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(30);
const HEX: &str = "00112233445566778899aabbccddeeff";
const OTHER: &str = "ffeeddccbbaa99887766554433221100";

fn start_tracker(auth: &str) -> Tracker {
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nmetrics_listen = \"\"\n{auth}"
    );
    let source = Source::Text { name: "tracker", text: &text };
    let settings = TrackerSettings::load(source, &Environment::default()).expect("good settings");
    tracker::start(&settings.settings, Threads::new()).expect("the tracker starts")
}

/// Storage `machine` in a syncgroup of its own.
async fn start_storage(
    dir: &Path,
    listen: &str,
    trackers: &[&Tracker],
    machine: u16,
    auth: &str,
) -> Storage {
    let root = dir.join(format!("s{machine}"));
    let root = root.display();
    let trackers: Vec<String> = trackers.iter().map(|t| format!("\"{}\"", t.address())).collect();
    let trackers = trackers.join(", ");
    let text = format!(
        "listen = \"{listen}\"\nadmin_listen = \"\"\nmetrics_listen = \"\"\n\
         group = \"books\"\nsyncgroup = \"s{machine}\"\nmachine_id = {machine}\n\
         trackers = [{trackers}]\nstate_dir = \"{root}/state\"\n\
         [[mounts]]\nindex = 0\npath = \"{root}/m0\"\n\
         [store]\nchunkfile_size = \"4MiB\"\nreserve_free = \"64MiB\"\n\
         single_file_threshold = \"256KiB\"\n{auth}"
    );
    let source = Source::Text { name: "storage", text: &text };
    let settings = StorageSettings::load(source, &Environment::default()).expect("good settings");
    let options = StartOptions { create_folders: true, found_after: Duration::ZERO };
    let storage = storage::start(settings.settings, options).await.expect("the storage starts");
    storage.ready().await;
    storage
}

async fn connect(trackers: &[SocketAddr], keys: Option<Keys>) -> folio::client::Result<Client> {
    let trackers = trackers.iter().map(ToString::to_string).collect();
    Client::connect(ClientOptions { trackers, keys, ..ClientOptions::default() }).await
}

async fn read(client: &Client, id: &FileId) -> Result<Bytes, Error> {
    client.get(id, GetOptions::default()).await?.bytes(u64::MAX).await
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mix = |i: u64| ((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed) >> 56) as u8;
    (0..len as u64).map(mix).collect()
}

/// Sizes around every border there is: slot, threshold of singlefiles, frame, pieces, window.
const SIZES: [usize; 12] = [
    0,
    1,
    63,
    4096,
    256 * 1024 - 1,
    256 * 1024,
    256 * 1024 + 1,
    1024 * 1024,
    1024 * 1024 + 1,
    3_000_000,
    5_000_000,
    20_000_000,
];

#[test]
fn no_size_and_no_edit_changes_a_byte() {
    let dir = tempfile::tempdir().expect("a folder");
    actix::System::new().block_on(async {
        let tracker = start_tracker("");
        let storage = start_storage(dir.path(), "127.0.0.1:0", &[&tracker], 1, "").await;
        let client = connect(&[tracker.address()], None).await.expect("connects");
        let mut ids = BTreeSet::new();
        for (turn, size) in SIZES.into_iter().enumerate() {
            let content = noise(size, turn as u64);
            let options = PutOptions { ext: Some("bin".into()), ..PutOptions::default() };
            let written = client.put(Body::bytes(content.clone()), options).await.expect("stored");
            let id = written.id.clone();
            assert!(read(&client, &id).await.expect("there") == content, "{size} bytes");
            part_is_the_part(&client, &id, &content).await;
            looks(&client, &id, size, ObjectState::Live).await;

            // Across the threshold, both ways, under the same id.
            for (step, next) in
                [SIZES[(turn * 5 + 3) % SIZES.len()], 100, 300_000, size].iter().enumerate()
            {
                let content = noise(*next, 100 + step as u64);
                let edited = client.modify(&id, Body::bytes(content.clone()), None).await;
                let edited = edited.unwrap_or_else(|e| panic!("{size} to {next}: {e}"));
                assert_eq!(edited.id, id);
                assert!(read(&client, &id).await.expect("there") == content, "{size} to {next}");
            }
            stale_edits_are_refused(&client, &id, written.opver).await;
            ids.insert(id);
        }
        deleted_is_gone_until_undeleted(&client, ids.first().expect("some")).await;
        nothing_is_missing_from_lists(&client, &ids).await;
        drop(client);
        assert_eq!(storage.stop(LIMIT).await, []);
        assert_eq!(tracker.stop(LIMIT).await, []);
    });
}

async fn part_is_the_part(client: &Client, id: &FileId, content: &[u8]) {
    let len = content.len() as u64;
    for (first, last) in
        [(0, Some(0)), (len / 3, Some(len / 2)), (len.saturating_sub(1), None), (0, Some(u64::MAX))]
    {
        if len == 0 {
            continue;
        }
        let options = GetOptions { range: Some((first, last)), ..GetOptions::default() };
        let part =
            client.get(id, options).await.expect("there").bytes(u64::MAX).await.expect("whole");
        let end = last.map_or(len, |last| len.min(last.saturating_add(1)));
        assert!(part == content[first as usize..end as usize], "{first}..{last:?} of {len}");
    }
    let beyond = GetOptions { range: Some((len + 1, None)), ..GetOptions::default() };
    let error = client.get(id, beyond).await.expect_err("beyond the end");
    assert_eq!((error.code, error.exit_code()), (ErrorCode::BadRange, 2));
}

async fn looks(client: &Client, id: &FileId, size: usize, state: ObjectState) {
    let stat = client.stat(id, Some(1)).await.expect("known").answer;
    assert_eq!((stat.length, stat.state), (size as u64, state));
    assert!(stat.capacity >= stat.length || stat.length > 256 * 1024, "{stat:?}");
}

async fn stale_edits_are_refused(client: &Client, id: &FileId, old: folio::format::ids::Tag) {
    let before = read(client, id).await.expect("there");
    let late = client.modify(id, Body::bytes("late"), Some(old)).await.expect_err("stale");
    assert_eq!((late.code, late.exit_code()), (ErrorCode::Precondition, 4));
    assert_eq!(client.delete(id, Some(old)).await.expect_err("stale").exit_code(), 4);
    assert!(read(client, id).await.expect("there") == before);
    let now = client.get(id, GetOptions::default()).await.expect("there").info.opver;
    client.modify(id, Body::bytes("in time"), Some(now)).await.expect("the current version");
}

async fn deleted_is_gone_until_undeleted(client: &Client, id: &FileId) {
    client.delete(id, None).await.expect("deleted");
    for _ in 0..2 {
        assert_eq!(read(client, id).await.expect_err("gone").exit_code(), 3);
        assert_eq!(
            client.modify(id, Body::bytes("x"), None).await.expect_err("gone").exit_code(),
            3
        );
    }
    client.undelete(id).await.expect("back");
    assert_eq!(read(client, id).await.expect("there"), "in time");
    // An id that was never given out, in the same place.
    let mut other = id.clone();
    other.object.cookie ^= 1;
    assert_eq!(read(client, &other).await.expect_err("another cookie").exit_code(), 3);
}

async fn nothing_is_missing_from_lists(client: &Client, ids: &BTreeSet<FileId>) {
    let cores: BTreeSet<_> = ids.iter().map(|id| id.object).collect();
    let mut listed = BTreeSet::new();
    let mut stream = client.list(None, None);
    while let Some(item) = stream.next().await {
        assert!(listed.insert(item.expect("listed").id.object), "twice");
    }
    assert_eq!(listed, cores);
    let df = client.df().await.expect("space");
    assert_eq!(df.storages.len(), 1);
    let mount = &df.storages[0].mounts[0];
    assert!(mount.total >= mount.free && mount.free > 0 && df.storages[0].error.is_none());
}

#[test]
fn what_is_down_costs_only_what_it_holds() {
    let dir = tempfile::tempdir().expect("a folder");
    actix::System::new().block_on(async {
        let (first, second) = (start_tracker(""), start_tracker(""));
        let trackers = [&first, &second];
        let one = start_storage(dir.path(), "127.0.0.1:0", &trackers, 1, "").await;
        let two = start_storage(dir.path(), "127.0.0.1:0", &trackers, 2, "").await;
        let client = connect(&[first.address(), second.address()], None).await.expect("connects");
        let mut ids = Vec::new();
        for turn in 0..20 {
            let body = Body::bytes(format!("object {turn}"));
            ids.push(client.put(body, PutOptions::default()).await.expect("stored").id);
        }
        let on_two: Vec<&FileId> = ids.iter().filter(|id| id.object.machine == 2).collect();
        // Not exactly ten: one of the trackers may not have heard of the second storage when the client asked it.
        assert!((8..=12).contains(&on_two.len()), "round robin: {} of 20", on_two.len());

        assert_eq!(first.stop(LIMIT).await, []);
        let address = two.address();
        assert_eq!(two.stop(LIMIT).await, []);
        for _ in 0..10 {
            let written = client.put(Body::bytes("x"), PutOptions::default()).await;
            assert_eq!(written.expect("on the other").id.object.machine, 1);
        }
        let error = read(&client, on_two[0]).await.expect_err("down");
        assert_eq!(error.exit_code(), 5);
        let text = error.to_string();
        assert!(text.contains("machine 2") && text.contains(&address.to_string()), "{text}");

        let two = start_storage(dir.path(), &address.to_string(), &[&second], 2, "").await;
        let start = Instant::now();
        while let Err(error) = read(&client, on_two[0]).await {
            assert_eq!(error.exit_code(), 5);
            assert!(start.elapsed() < LIMIT, "not served again: {error}");
        }
        assert_eq!(second.stop(LIMIT).await, []);
        for (turn, id) in ids.iter().enumerate() {
            assert_eq!(read(&client, id).await.expect("there"), format!("object {turn}"));
        }
        client.put(Body::bytes("no tracker"), PutOptions::default()).await.expect("stored");
        drop(client);
        assert_eq!(one.stop(LIMIT).await, []);
        assert_eq!(two.stop(LIMIT).await, []);
    });
}

#[test]
fn without_the_key_there_is_no_way_in() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("keys");
    let lines = format!("client {HEX}\nclient {OTHER}\npeer {HEX}\n");
    std::fs::write(&path, lines).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("closed");
    let auth = format!("[auth]\nkey_file = \"{}\"\n", path.display());
    actix::System::new().block_on(async {
        let tracker = start_tracker(&auth);
        let storage = start_storage(dir.path(), "127.0.0.1:0", &[&tracker], 1, &auth).await;
        let keys = |text: String| Some(Keys::parse(Path::new("keys"), &text).expect("keys"));
        let trackers = [tracker.address()];
        let wrong = "0123456789abcdef0123456789abcdef";
        let refused = [
            None,
            keys(format!("client {wrong}")),
            // The right secret for another role; and a role that has no key here.
            keys(format!("peer {HEX}")),
            keys(format!("admin {HEX}")),
        ];
        for keys in refused {
            let error = connect(&trackers, keys).await.expect_err("no key");
            assert_eq!(error.code, ErrorCode::Unauthorized, "{error}");
        }
        for good in [format!("client {HEX}"), format!("client {wrong}\nclient {OTHER}")] {
            let client = connect(&trackers, keys(good)).await.expect("connects");
            let id = client.put(Body::bytes("x"), PutOptions::default()).await.expect("stored").id;
            assert_eq!(read(&client, &id).await.expect("there"), "x");
        }
        assert_eq!(storage.stop(LIMIT).await, []);
        assert_eq!(tracker.stop(LIMIT).await, []);
    });
}
