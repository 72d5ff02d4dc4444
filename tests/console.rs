//! The fear: an operator asks a daemon what is wrong and is told nothing, or something else than is true.
//!
//! A tracker and storages in this process, their consoles over real sockets.
#![allow(clippy::expect_used, reason = "a test")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use folio::actors::threads::Threads;
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

async fn ask_json(address: SocketAddr, command: &str) -> Value {
    let text = ask(address, &format!("{command} json")).await;
    serde_json::from_str(text.lines().next().expect("an answer")).expect("JSON")
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
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        let full =
            |warning: &serde_json::Value| warning["what"].to_string().contains("nearly full");
        assert!(warnings.iter().all(full), "{status}");
        assert_eq!(status["logs"][0]["log_id"].as_str().map(str::len), Some(8));
        let mounts = ask_json(at_one, "mounts").await;
        assert_eq!(mounts["mounts"][0]["state"], "online");

        let nodes = ask_json(at_tracker, "nodes").await;
        assert_eq!(nodes["nodes"][0]["address"], one.address().to_string());
        assert_eq!(nodes["nodes"][0]["admin"], at_one.to_string());
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
