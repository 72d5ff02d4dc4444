//! The fear: an operator asks a daemon what is wrong and is told nothing, or something else than is true.
//!
//! A tracker and storages in this process, their consoles over real sockets.
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use folio::actors::threads::Threads;
use folio::format::file_id::{FileId, ObjectId, ObjectKind};
use folio::settings::{Environment, Source, StorageSettings, TrackerSettings};
use folio::storage::{self, StartOptions, Storage};
use folio::tracker::{self, Tracker};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMIT: Duration = Duration::from_secs(20);

fn start_tracker() -> Tracker {
    let text = "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nmetrics_listen = \"\"\n";
    let source = Source::Text { name: "tracker", text };
    let settings = TrackerSettings::load(source, &Environment::default()).expect("good settings");
    tracker::start(&settings.settings, Threads::new()).expect("the tracker starts")
}

async fn start_storage(dir: &Path, tracker: SocketAddr, machine: u16) -> Storage {
    let root = dir.display();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nmetrics_listen = \"\"\n\
         group = \"books\"\nsyncgroup = \"a\"\nmachine_id = {machine}\ntrackers = [\"{tracker}\"]\n\
         state_dir = \"{root}/state\"\n\
         [[mounts]]\nindex = 0\npath = \"{root}/m0\"\n\
         [store]\nchunkfile_size = \"4MiB\"\nreserve_free = \"64MiB\"\n"
    );
    let source = Source::Text { name: "storage", text: &text };
    let settings = StorageSettings::load(source, &Environment::default()).expect("good settings");
    let options = StartOptions { create_folders: true, found_after: Duration::ZERO };
    storage::start(settings.settings, options).await.expect("the storage starts")
}

/// Asks one console and gives what it says, the banner left out.
async fn ask(address: SocketAddr, commands: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    stream.write_all(format!("{commands}\nquit\n").as_bytes()).await.expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read to the end");
    text.split_once('\n').expect("a banner").1.to_owned()
}

/// Asks until the answer is one: a daemon may not have heard of the others yet.
async fn ask_json(address: SocketAddr, command: &str) -> Value {
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let text = ask(address, &format!("{command} json")).await;
        match serde_json::from_str(text.lines().next().expect("an answer")) {
            Ok(answer) => return answer,
            Err(error) => {
                assert!(std::time::Instant::now() < deadline, "{command}: {error}: {text}")
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn both_consoles_tell_the_same_story_as_the_daemons() {
    let dir = tempfile::tempdir().expect("a folder");
    actix::System::new().block_on(async {
        let tracker = start_tracker();
        let one = start_storage(&dir.path().join("s1"), tracker.address(), 1).await;
        one.ready().await;
        let (at_tracker, at_one) =
            (tracker.admin_address().expect("a console"), one.admin_address().expect("a console"));

        let status = ask_json(at_one, "status").await;
        assert_eq!(status["state"], "serving");
        assert_eq!(status["node"], "books/a/1");
        assert_eq!(status["trackers"][0]["state"], "registered");
        // Of the disk of whoever runs the tests nothing is said here.
        let warnings = status["warnings"].as_array().cloned().expect("a list, also when empty");
        let full =
            |warning: &serde_json::Value| warning["what"].to_string().contains("nearly full");
        assert!(warnings.iter().all(full), "{status}");
        assert_eq!(status["logs"][0]["log_id"].as_str().map(str::len), Some(8));
        assert!(status["queue_delay_us"].is_u64(), "{status}");
        assert!(ask_json(at_one, "scrub").await["damaged"].is_array());
        let tracker_status = ask_json(at_tracker, "status").await;
        assert!(tracker_status["warnings"].is_array(), "{tracker_status}");
        let mounts = ask_json(at_one, "mounts").await;
        assert_eq!(mounts["mounts"][0]["state"], "online");

        let nodes = ask_json(at_tracker, "nodes").await;
        assert_eq!(nodes["nodes"][0]["address"], one.address().to_string());
        assert_eq!(nodes["nodes"][0]["admin"], at_one.to_string());
        assert!(nodes["nodes"][0]["queue_delay_us"].is_u64(), "{nodes}");
        let seen = ask_json(at_tracker, "mounts").await;
        assert_eq!(seen["mounts"][0]["total"], mounts["mounts"][0]["total"]);

        // Another machine with the same id: refused, and both ends say so.
        let other = start_storage(&dir.path().join("s2"), tracker.address(), 1).await;
        let mut refusal = other.trackers().remove(0);
        let refused = refusal.wait_for(|status| {
            matches!(
                &status.registration,
                folio::actors::reporter::Registration::Refused(why)
                    if why.contains("duplicate machine id")
            )
        });
        drop(tokio::time::timeout(LIMIT, refused).await.expect("refused in time"));
        let text = ask(other.admin_address().expect("a console"), "status").await;
        assert!(text.contains("refuses this storage: duplicate machine id"), "{text}");
        let text = ask(at_tracker, "status").await;
        assert!(text.contains("duplicate machine id books/1"), "{text}");

        assert_eq!(other.stop(LIMIT).await, []);
        assert_eq!(one.stop(LIMIT).await, []);
        assert_eq!(tracker.stop(LIMIT).await, []);
    });
}

/// An object that machine 1 made on mount 0.
fn some_id() -> String {
    let object = ObjectId {
        kind: ObjectKind::Chunk,
        machine: 1,
        mount: 0,
        log_id: 0x00ab_cdef,
        sequence: 1,
        created_s: 1,
        chunk: 7,
        offset_units: 2,
        capacity_units: 3,
        cookie: 9,
    };
    FileId::new("books", "a", object, None).expect("an id").to_string()
}

#[test]
fn a_tracker_knows_which_storages_hold_an_object_or_a_chunkfile() {
    let dir = tempfile::tempdir().expect("a folder");
    actix::System::new().block_on(async {
        let tracker = start_tracker();
        let one = start_storage(&dir.path().join("s1"), tracker.address(), 1).await;
        one.ready().await;
        let two = start_storage(&dir.path().join("s2"), tracker.address(), 2).await;
        two.ready().await;
        let (at, at_one) =
            (tracker.admin_address().expect("a console"), one.admin_address().expect("a console"));
        let id = some_id();
        let deadline = std::time::Instant::now() + LIMIT;
        let found = loop {
            // An error until the tracker has heard of them.
            let text = ask(at, &format!("find {id} json")).await;
            let line = text.lines().next().unwrap_or_default();
            let found: Value = serde_json::from_str(line).unwrap_or_default();
            if found["storages"].as_array().is_some_and(|rows| rows.len() == 2) {
                break found;
            }
            assert!(std::time::Instant::now() < deadline, "{found}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let rows = &found["storages"];
        assert_eq!((&rows[0]["machine"], &rows[1]["machine"]), (&1.into(), &2.into()), "{found}");
        assert_eq!(rows[0]["role"], "owner");
        assert_eq!(rows[1]["role"], "mirror");
        assert_eq!(rows[0]["syncgroup"], "a");
        assert_eq!(rows[0]["address"], one.address().to_string());
        assert_eq!(rows[0]["mount_state"], "online");
        assert_eq!(rows[0]["next"], format!("folio admin {at_one} find {id}"));
        // The name that it gives is taken by both consoles.
        let name = found["chunkfile"].as_str().expect("a name").to_owned();
        assert_eq!(name, "1/00abcdef/7");
        let chunk = ask_json(at, &format!("chunk 0 {name}")).await;
        assert_eq!(chunk["storages"].as_array().map(Vec::len), Some(2), "{chunk}");
        assert_eq!((&chunk["storages"][0]["role"], &chunk["owner"]), (&"owner".into(), &1.into()));
        let text = ask(at_one, &format!("chunk 0 {name}")).await;
        assert!(text.starts_with("error: there is no"), "{text}");
        let by_number = ask(at, "chunk 0 7").await;
        assert!(by_number.contains("owner of its own"), "{by_number}");
        for wrong in ["find", "find x", "chunk 0", "chunk 0 x", "chunk 9 1", "chunk 0 1 books/b"] {
            let text = ask(at, wrong).await;
            assert!(text.starts_with("error:") && !text.contains("unknown command"), "{wrong}: {text}");
        }
        // Without any tracker a storage tells the same order.
        let route = ask_json(at_one, &format!("route {id}")).await;
        // The log names an object without its group; `find` takes that and gives the id.
        let object = id.parse::<FileId>().expect("an id").object;
        let by_text = ask_json(at_one, &format!("find {object:?}")).await;
        assert_eq!(by_text["id"], id, "{by_text}");
        assert_eq!(route["targets"][0]["role"], "owner", "{route}");
        assert_eq!(route["targets"][0]["this"], true, "{route}");
        for (console, commands) in [
            (at, "status mounts nodes route find chunk drain readonly config log shutdown help quit"),
            (
                at_one,
                "status mounts peers sync recover scrub conflicts find chunk nodes route forget drain readonly \
                 config log shutdown help quit",
            ),
        ] {
            let help = ask(console, "help").await;
            let there: Vec<_> = help.lines().filter_map(|l| l.split_whitespace().next()).collect();
            for command in commands.split_whitespace() {
                assert!(there.contains(&command), "{command} is missing: {help}");
            }
        }
        assert_eq!(two.stop(LIMIT).await, []);
        assert_eq!(one.stop(LIMIT).await, []);
        assert_eq!(tracker.stop(LIMIT).await, []);
    });
}
