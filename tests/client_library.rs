//! The client library against nodes that break, lie and fall silent.
#![allow(clippy::expect_used, reason = "a test")]

mod fake_cluster;

use bytes::Bytes;
use fake_cluster::{
    Fault, Node, View, empty_view, mirror_of, set_state, storage, storage_with, tracker,
};
use folio::client::{Body, Client, ClientOptions, ErrorCode, GetOptions, PutOptions};
use folio::cluster::view::State;
use folio::settings::keys::Keys;
use std::path::Path;
use std::time::Duration;

async fn client(tracker: &Node) -> Client {
    client_for(tracker, Duration::from_secs(10), None).await.expect("connects")
}

async fn client_for(
    tracker: &Node,
    timeout: Duration,
    keys: Option<Keys>,
) -> folio::client::Result<Client> {
    let trackers = vec![tracker.address.clone()];
    Client::connect(ClientOptions { trackers, keys, timeout, ..ClientOptions::default() }).await
}

/// A tracker, one storage, a client.
async fn small() -> (View, Node, Node, Client) {
    let view = empty_view();
    let storage = storage(1, &view).await;
    let tracker = tracker(&view).await;
    let client = client(&tracker).await;
    (view, tracker, storage, client)
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

async fn read(client: &Client, id: &folio::format::file_id::FileId) -> Bytes {
    let object = client.get(id, GetOptions::default()).await.expect("is there");
    object.bytes(u64::MAX).await.expect("comes whole")
}

#[tokio::test]
async fn a_put_whose_answer_is_lost_is_not_stored_twice() {
    let (_view, _tracker, storage, client) = small().await;
    for fault in [Fault::LoseAfter, Fault::LoseBefore, Fault::Say(ErrorCode::Busy)] {
        let before = storage.objects();
        let seen = storage.seen().len();
        storage.fault(fault);
        let written = client.put(Body::bytes("one"), PutOptions::default()).await.expect("stored");
        assert_eq!(storage.objects(), before + 1, "{fault:?}");
        let tokens = storage.seen().split_off(seen);
        assert_eq!(tokens.len(), 2, "{fault:?}");
        assert_eq!(
            (tokens[0].client, tokens[0].sequence, tokens[0].issued_ms),
            (tokens[1].client, tokens[1].sequence, tokens[1].issued_ms)
        );
        assert_eq!(read(&client, &written.id).await, "one");
    }
}

#[tokio::test]
async fn a_put_with_a_lost_answer_does_not_wander_to_another_storage() {
    let view = empty_view();
    let (first, second) = (storage(1, &view).await, storage(2, &view).await);
    let tracker = tracker(&view).await;
    let client = client(&tracker).await;
    for _ in 0..4 {
        first.fault(Fault::LoseAfter);
        second.fault(Fault::LoseAfter);
        let before = first.objects() + second.objects();
        client.put(Body::bytes("x"), PutOptions::default()).await.expect("stored");
        assert_eq!(first.objects() + second.objects(), before + 1);
        for node in [&first, &second] {
            node.store.lock().expect("store").faults.clear();
        }
    }
}

#[tokio::test]
async fn a_storage_that_stops_costs_no_put() {
    let view = empty_view();
    let (first, second) = (storage(1, &view).await, storage(2, &view).await);
    let tracker = tracker(&view).await;
    let client = client(&tracker).await;
    for code in [ErrorCode::Stopped, ErrorCode::NoSpace, ErrorCode::Fenced, ErrorCode::ReadOnly] {
        for _ in 0..2 {
            first.fault(Fault::Say(code));
            client.put(Body::bytes("x"), PutOptions::default()).await.expect("elsewhere");
        }
    }
    first.kill().await;
    for _ in 0..3 {
        client.put(Body::bytes("x"), PutOptions::default()).await.expect("elsewhere");
    }
    assert!(second.objects() >= 7);
}

#[tokio::test]
async fn a_full_or_failed_storage_says_so_at_once() {
    let (_view, _tracker, storage, client) = small().await;
    for (turn, code) in [ErrorCode::NoSpace, ErrorCode::Fenced].into_iter().enumerate() {
        storage.fault(Fault::Say(code));
        let error = client.put(Body::bytes("x"), PutOptions::default()).await.expect_err("no");
        assert_eq!((error.code, storage.seen().len()), (code, turn + 1));
    }
}

#[tokio::test]
async fn an_edit_waits_until_a_mirror_makes_it_in_place_of_a_failed_mount() {
    let (view, _tracker, owner, client) = small().await;
    let written = client.put(Body::bytes("one"), PutOptions::default()).await.expect("stored");
    let _mirror = mirror_of(&owner, 2, &view).await;
    client.view().await.expect("heard");
    // The owner says so, and the mirror that hands the edit to it; each once more before the mirror has heard of it.
    for _ in 0..4 {
        owner.fault(Fault::Say(ErrorCode::Fenced));
    }
    client.modify(&written.id, Body::bytes("two"), None).await.expect("made by the mirror");
    assert_eq!((read(&client, &written.id).await, owner.seen().len()), (Bytes::from("two"), 6));
    owner.fault(Fault::Say(ErrorCode::NoSpace));
    owner.fault(Fault::Say(ErrorCode::NoSpace));
    let error = client.modify(&written.id, Body::bytes("three"), None).await.expect_err("full");
    assert_eq!((error.code, owner.seen().len()), (ErrorCode::NoSpace, 8));
}

#[tokio::test]
async fn a_put_whose_storage_freezes_is_done_by_a_mirror_in_time() {
    let (view, _tracker, storage, _client) = small().await;
    let _mirror = mirror_of(&storage, 2, &view).await;
    let tracker = tracker(&view).await;
    let client = client_for(&tracker, Duration::from_secs(4), None).await.expect("connects");
    // Neither the first attempt is answered, nor the next one in the same place.
    storage.fault(Fault::Silent);
    storage.fault(Fault::Silent);
    client.put(Body::bytes("x"), PutOptions::default()).await.expect("stored");
    assert_eq!(storage.objects(), 1);
}

#[tokio::test]
async fn an_unknown_token_is_renewed_only_if_nothing_can_have_been_done() {
    let (_view, _tracker, storage, client) = small().await;
    storage.fault(Fault::Say(ErrorCode::UnknownToken));
    client.put(Body::bytes("x"), PutOptions::default()).await.expect("with a fresh time");
    assert_eq!(storage.objects(), 1);

    storage.fault(Fault::LoseBefore);
    storage.fault(Fault::Say(ErrorCode::UnknownToken));
    let error = client.put(Body::bytes("x"), PutOptions::default()).await.expect_err("in doubt");
    assert_eq!((error.code, error.exit_code()), (ErrorCode::UnknownOutcome, 5));
    assert_eq!(storage.objects(), 1, "never done twice, here not even once");
}

#[tokio::test]
async fn a_put_whose_storage_is_gone_is_stored_elsewhere_with_a_fresh_token() {
    let view = empty_view();
    let (gone, other) = (storage(1, &view).await, storage(2, &view).await);
    let tracker = tracker(&view).await;
    let client = client_for(&tracker, Duration::from_secs(4), None).await.expect("connects");
    // The policy sends one of two puts to each.
    for _ in 0..2 {
        for _ in 0..200 {
            gone.fault(Fault::LoseBefore);
        }
        // It gave up so many tokens meanwhile that it cannot say that it never knew this one.
        other.fault(Fault::Say(ErrorCode::UnknownToken));
        client.put(Body::bytes("x"), PutOptions::default()).await.expect("stored elsewhere");
        other.store.lock().expect("store").faults.clear();
    }
    assert_eq!((gone.objects(), other.objects()), (0, 2));
}

#[tokio::test]
async fn a_mutation_without_an_answer_is_never_called_failed() {
    let view = empty_view();
    let storage = storage(1, &view).await;
    let tracker = tracker(&view).await;
    let client = client_for(&tracker, Duration::from_millis(300), None).await.expect("connects");
    storage.fault(Fault::Silent);
    let error = client.put(Body::bytes("x"), PutOptions::default()).await.expect_err("silence");
    assert_eq!(error.code, ErrorCode::UnknownOutcome);
    assert_eq!(storage.store.lock().expect("store").cancelled, 0, "a mutation is not cancelled");
}

#[tokio::test]
async fn who_is_down_is_named() {
    let (view, tracker, storage, client) = small().await;
    let written = client.put(Body::bytes("x"), PutOptions::default()).await.expect("stored");
    let address = storage.address.clone();
    storage.kill().await;
    set_state(&view, 1, &address, State::Offline);
    let short = client_for(&tracker, Duration::from_millis(300), None).await.expect("connects");
    for client in [&short, &client] {
        let error = client.get(&written.id, GetOptions::default()).await.expect_err("down");
        assert_eq!(error.exit_code(), 5);
        let text = error.to_string();
        assert!(text.contains("machine 1") && text.contains(&address), "{text}");
        assert!(text.contains(&written.id.to_string()), "{text}");
    }
    let from = GetOptions { from: Some(1), ..GetOptions::default() };
    assert_eq!(short.get(&written.id, from).await.expect_err("down").exit_code(), 5);
    let group = PutOptions { group: Some("nowhere".into()), ..PutOptions::default() };
    let error = short.put(Body::bytes("x"), group).await.expect_err("unknown group");
    assert_eq!((error.code, error.exit_code()), (ErrorCode::UnknownGroup, 5));
}

#[tokio::test]
async fn without_trackers_a_connected_client_goes_on() {
    let (_view, tracker, storage, client) = small().await;
    tracker.kill().await;
    storage.fault(Fault::LoseAfter);
    let written = client.put(Body::bytes("x"), PutOptions::default()).await.expect("stored");
    assert_eq!(read(&client, &written.id).await, "x");
    let view = client.view().await.expect("the known one");
    assert_eq!(view.storages().count(), 1);
}

#[tokio::test]
async fn a_large_object_streams_both_ways_within_its_window() {
    let (_view, _tracker, storage, client) = small().await;
    let content = noise(20_000_000);
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("large");
    tokio::fs::write(&path, &content).await.expect("writes");
    let reader = std::io::Cursor::new(content.clone());
    let (progress, mut told) = tokio::sync::mpsc::unbounded_channel();
    let bodies = [
        Body::bytes(content.clone()),
        Body::file(&path),
        Body::reader(Box::new(reader), None)
            .on_progress(move |sent| progress.send(sent).expect("heard")),
    ];
    for body in bodies {
        let written = client.put(body, PutOptions::default()).await.expect("stored");
        assert!(read(&client, &written.id).await == content);
        let range = GetOptions { range: Some((5, Some(3_000_004))), ..GetOptions::default() };
        let part = client.get(&written.id, range).await.expect("there");
        assert!(part.bytes(u64::MAX).await.expect("whole") == content[5..3_000_005]);
    }
    let mut last = 0;
    while let Some(sent) = told.recv().await {
        assert!(sent > last);
        last = sent;
    }
    assert_eq!(last, content.len() as u64);
    let outstanding = storage.store.lock().expect("store").outstanding_max;
    assert!(outstanding <= 4 << 20, "{outstanding}");
}

#[tokio::test]
async fn a_reader_is_not_sent_twice_and_a_file_is() {
    let (_view, _tracker, storage, client) = small().await;
    let content = noise(5_000_000);
    storage.fault(Fault::LoseBefore);
    let reader = Box::new(std::io::Cursor::new(content.clone()));
    let error = client
        .put(Body::reader(reader, Some(5_000_000)), PutOptions::default())
        .await
        .expect_err("cannot be read again");
    assert_eq!((error.code, storage.seen().len()), (ErrorCode::Unavailable, 1));
    assert!(error.remedy.contains("name a file"), "{error}");
    assert_eq!(storage.objects(), 0);

    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("large");
    tokio::fs::write(&path, &content).await.expect("writes");
    storage.fault(Fault::LoseBefore);
    let written = client.put(Body::file(&path), PutOptions::default()).await.expect("sent again");
    assert!(read(&client, &written.id).await == content);
}

/// What comes from a pipe is read first, up to a MiB: it is sent again like bytes at hand.
#[tokio::test]
async fn no_put_from_a_pipe_fails_because_its_storage_falls_silent() {
    let view = empty_view();
    let owner = storage(1, &view).await;
    let tracker = tracker(&view).await;
    let client = client_for(&tracker, Duration::from_secs(4), None).await.expect("connects");
    let _mirror = mirror_of(&owner, 2, &view).await;
    client.view().await.expect("heard");
    let content = noise(1 << 20);
    let pipe = || Body::reader(Box::new(std::io::Cursor::new(content.clone())), None);
    // Whichever of the two is asked first.
    owner.fault(Fault::Silent);
    let written = client.put(pipe(), PutOptions::default()).await.expect("by the other");
    assert!(read(&client, &written.id).await == content);
    owner.fault(Fault::Silent);
    client.modify(&written.id, pipe(), None).await.expect("by the mirror");
}

#[tokio::test]
async fn a_body_that_shrinks_is_not_stored() {
    let (_view, _tracker, storage, client) = small().await;
    let reader = Box::new(std::io::Cursor::new(noise(2_000_000)));
    let body = Body::reader(reader, Some(2_000_001));
    let error = client.put(body, PutOptions::default()).await.expect_err("too short");
    assert!(error.message.contains("2000001"), "{error}");
    // A read behind it on the same connection: the storage has seen the Cancel by then.
    drop(client.df().await.expect("space"));
    let store = storage.store.lock().expect("store");
    assert_eq!((store.objects.len(), store.cancelled), (0, 1));
}

#[tokio::test]
async fn damaged_bytes_are_never_given_out() {
    let (_view, _tracker, storage, client) = small().await;
    let written = client.put(Body::bytes("whole"), PutOptions::default()).await.expect("stored");
    storage.fault(Fault::Damage);
    assert_eq!(read(&client, &written.id).await, "whole");
}

#[tokio::test]
async fn half_a_download_is_an_error() {
    let (_view, _tracker, storage, client) = small().await;
    let body = Body::bytes(noise(3_000_000));
    let written = client.put(body, PutOptions::default()).await.expect("stored");
    storage.fault(Fault::Break);
    let object = client.get(&written.id, GetOptions::default()).await.expect("begins");
    assert_eq!(object.bytes(u64::MAX).await.expect_err("breaks off").exit_code(), 5);
    assert_eq!(read(&client, &written.id).await.len(), 3_000_000);
}

#[tokio::test]
async fn a_dropped_download_is_cancelled_and_the_connection_lives() {
    let (_view, _tracker, storage, client) = small().await;
    let body = Body::bytes(noise(10_000_000));
    let written = client.put(body, PutOptions::default()).await.expect("stored");
    let mut object = client.get(&written.id, GetOptions::default()).await.expect("begins");
    object.chunk().await.expect("a piece");
    drop(object);
    let connections = storage.store.lock().expect("store").connections;
    assert_eq!(read(&client, &written.id).await.len(), 10_000_000);
    let store = storage.store.lock().expect("store");
    assert_eq!((store.cancelled, store.connections), (1, connections));
}

#[tokio::test]
async fn answers_in_another_order_are_not_mixed_up() {
    let (_view, _tracker, storage, client) = small().await;
    let one = client.put(Body::bytes("one"), PutOptions::default()).await.expect("stored");
    let two = client.put(Body::bytes("two"), PutOptions::default()).await.expect("stored");
    storage.fault(Fault::AfterNext);
    let (first, second) = tokio::join!(read(&client, &one.id), read(&client, &two.id));
    assert_eq!((first, second), (Bytes::from("one"), Bytes::from("two")));
}

#[tokio::test]
async fn an_error_of_the_object_is_final_and_names_it() {
    let (_view, _tracker, storage, client) = small().await;
    let written = client.put(Body::bytes("x"), PutOptions::default()).await.expect("stored");
    storage.fault(Fault::Say(ErrorCode::Precondition));
    let error = client
        .modify(&written.id, Body::bytes("y"), Some(written.opver))
        .await
        .expect_err("another version");
    assert_eq!(error.exit_code(), 4);
    assert_eq!(error.id, Some(written.id.to_string()));
    client.delete(&written.id, None).await.expect("deleted");
    let error = client.get(&written.id, GetOptions::default()).await.expect_err("gone");
    assert_eq!(error.exit_code(), 3);
    assert_eq!(storage.seen().len(), 3, "no retry");
}

#[tokio::test]
async fn a_stranger_at_a_known_address_gets_nothing() {
    let view = empty_view();
    let tracker = tracker(&view).await;
    let other = storage(2, &view).await;
    set_state(&view, 2, "127.0.0.1:1", State::Offline);
    // The view names the address of machine 2 as that of machine 1.
    set_state(&view, 1, &other.address, State::Online);
    let client = client_for(&tracker, Duration::from_millis(300), None).await.expect("connects");
    let error = client.put(Body::bytes("x"), PutOptions::default()).await.expect_err("a stranger");
    assert_eq!((error.code, other.objects()), (ErrorCode::WrongNode, 0));
}

#[tokio::test]
async fn a_wrong_key_is_refused_without_a_wait() {
    let view = empty_view();
    let hex = "00112233445566778899aabbccddeeff";
    let secret: Vec<u8> = (0..16u8).map(|i| i * 0x11).collect();
    let locked = storage_with(1, &view, vec![secret]).await;
    let tracker = tracker(&view).await;
    let keys = |text: String| Keys::parse(Path::new("keys"), &text).expect("keys");
    let client = client(&tracker).await;
    let error = client.put(Body::bytes("x"), PutOptions::default()).await.expect_err("no key");
    assert_eq!(error.code, ErrorCode::Unauthorized);
    // The tracker of this test asks for no key: a client with one does not talk to it.
    let with_key =
        client_for(&tracker, Duration::from_secs(10), Some(keys(format!("client {hex}"))));
    assert_eq!(with_key.await.expect_err("no proof").code, ErrorCode::Unauthorized);
    assert_eq!(locked.objects(), 0);
}

#[tokio::test]
async fn no_object_is_missing_from_a_list() {
    let view = empty_view();
    let (first, second) = (storage(1, &view).await, storage(2, &view).await);
    let tracker = tracker(&view).await;
    let client = client(&tracker).await;
    let mut expected = std::collections::BTreeSet::new();
    for _ in 0..9 {
        let written = client.put(Body::bytes("x"), PutOptions::default()).await.expect("stored");
        expected.insert(written.id);
    }
    let mut listed = std::collections::BTreeSet::new();
    let mut stream = client.list(Some("g"), None);
    while let Some(item) = stream.next().await {
        assert!(listed.insert(item.expect("listed").id), "twice");
    }
    assert_eq!(listed, expected);
    assert!(first.objects() >= 4 && second.objects() >= 4);

    second.kill().await;
    let (mut good, mut bad) = (0, 0);
    let mut stream = client.list(None, None);
    while let Some(item) = stream.next().await {
        if item.is_ok() { good += 1 } else { bad += 1 }
    }
    assert_eq!((good, bad), (first.objects(), 1), "what is missing is said");
    let df = client.df().await.expect("space");
    let errors: Vec<bool> = df.storages.iter().map(|storage| storage.error.is_some()).collect();
    assert_eq!(errors, [false, true]);
}

#[tokio::test]
async fn without_a_tracker_there_is_a_clear_error() {
    let options = ClientOptions {
        trackers: vec!["127.0.0.1:1".into()],
        timeout: Duration::from_millis(200),
        ..ClientOptions::default()
    };
    let error = Client::connect(options).await.expect_err("nobody there");
    assert_eq!(error.exit_code(), 5);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}
