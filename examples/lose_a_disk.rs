//! A disk dies while people write, and nobody types anything. Brings its own cluster: a tracker and three storages.
//!
//! ```text
//! cargo run --release --example lose_a_disk
//! ```
#![allow(clippy::disallowed_methods, reason = "an example that breaks a disk")]

use anyhow::{Context, ensure};
use folio::actors::threads::Threads;
use folio::client::{Body, Client, ClientOptions, GetOptions, PutOptions};
use folio::settings::{Environment, Source, StorageSettings, TrackerSettings};
use folio::storage::{self, StartOptions, Storage};
use folio::tracker;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const OBJECTS: u32 = 3000;
const LOST: u16 = 2;
/// Much longer than it takes.
const LIMIT: Duration = Duration::from_secs(50);

fn main() -> anyhow::Result<()> {
    let dir = std::env::temp_dir().join(format!("folio-lose-a-disk-{}", std::process::id()));
    let told = actix::System::new().block_on(story(&dir));
    std::fs::remove_dir_all(&dir).context("the example's folder")?;
    told
}

async fn story(dir: &Path) -> anyhow::Result<()> {
    let settings = TrackerSettings::load(source(&tracker_keys()), &Environment::default())?;
    let tracker = tracker::start(&settings.settings, Threads::new())?;
    let address = tracker.address().to_string();
    let mut storages = Vec::new();
    for machine in 1..=3 {
        let keys = storage_keys(dir, machine, &address);
        let settings = StorageSettings::load(source(&keys), &Environment::default())?.settings;
        let options = StartOptions { create_folders: true, ..StartOptions::default() };
        storages.push(storage::start(settings, options).await?);
    }
    for storage in &storages {
        storage.ready().await;
    }
    println!("Three storages mirror each other. Storing {OBJECTS} chapters ...");
    let options = ClientOptions { trackers: vec![address], ..ClientOptions::default() };
    let client = Client::connect(options).await?;
    let mut ids = Vec::new();
    for n in 0..OBJECTS {
        let written = client.put(Body::bytes(chapter(n, 0)), PutOptions::default()).await?;
        ids.push(written.id);
    }

    let disk = mount(dir, LOST);
    println!("The disk of machine {LOST} dies: everything in {} is gone.", disk.display());
    let begun = Instant::now();
    for entry in std::fs::read_dir(&disk)? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }

    println!("People go on writing meanwhile:");
    let storage = storages.get(usize::from(LOST) - 1).context("the storage")?;
    let (mut edited, mut shown) = (0, String::new());
    loop {
        let n = edited % OBJECTS;
        let id = ids.get(n as usize).context("an id")?;
        client.modify(id, Body::bytes(chapter(n, 1 + edited / OBJECTS)), None).await?;
        edited += 1;
        let line = line(storage)?;
        if line != shown {
            println!("  {:>5} ms  {line}", begun.elapsed().as_millis());
            shown = line;
        }
        if shown.contains("identical with") {
            break;
        }
        ensure!(begun.elapsed() < LIMIT, "it took longer than {LIMIT:?}");
    }
    println!(
        "{edited} edits were acknowledged meanwhile. Reading every chapter from machine {LOST} alone:"
    );
    let mut whole = 0;
    for (n, id) in (0..).zip(&ids) {
        let version = (edited + OBJECTS - 1 - n) / OBJECTS;
        let from = GetOptions { from: Some(LOST), ..GetOptions::default() };
        let bytes = client.get(id, from).await?.bytes(1 << 20).await?;
        ensure!(bytes == chapter(n, version), "chapter {n} is not its last version");
        whole += 1;
    }
    println!("{whole} chapters, each in its last version. Nobody typed a command.");
    for storage in storages {
        storage.stop(storage::STOP_LIMIT).await;
    }
    tracker.stop(tracker::STOP_LIMIT).await;
    Ok(())
}

/// The line of `recover status`, shortened.
fn line(storage: &Storage) -> anyhow::Result<String> {
    let mount = storage.room().placement.mount(0).map_err(|p| anyhow::anyhow!(p.message))?;
    let (state, refill) = (mount.published().state, mount.refill());
    let phase = refill.state.as_ref().map_or("not noticed yet", |state| state.phase.name());
    Ok(format!("mount 0 of machine {LOST}: {state}, {phase} {}", refill.why))
}

fn chapter(n: u32, version: u32) -> Vec<u8> {
    format!("Chapter {n}, version {version}. ").repeat(150).into_bytes()
}

fn mount(dir: &Path, machine: u16) -> PathBuf {
    dir.join(format!("s{machine}")).join("m0")
}

fn source(keys: &[(String, String)]) -> Source<'_> {
    Source::Given { name: "example", keys }
}

fn pair(key: &str, value: impl ToString) -> (String, String) {
    (key.to_owned(), value.to_string())
}

fn tracker_keys() -> Vec<(String, String)> {
    vec![
        pair("listen", "127.0.0.1:0"),
        pair("admin_listen", "127.0.0.1:0"),
        pair("metrics_listen", "127.0.0.1:0"),
    ]
}

fn storage_keys(dir: &Path, machine: u16, tracker: &str) -> Vec<(String, String)> {
    let mut keys = tracker_keys();
    keys.extend([
        pair("group", "books"),
        pair("syncgroup", "a"),
        pair("machine_id", machine),
        pair("trackers", tracker),
        pair("store.reserve_free", "64MiB"),
        pair("store.chunkfile_size", "4MiB"),
        pair("state_dir", dir.join(format!("s{machine}")).join("state").display()),
        pair("mounts[0].index", 0),
        pair("mounts[0].path", mount(dir, machine).display()),
    ]);
    keys
}
