//! A cluster with TLS in this process, and what is done with it.

use crate::certificates::{Authority, Files};
use folio::actors::threads::Threads;
use folio::client::{Body, Client, ClientOptions, GetOptions, PutOptions};
use folio::format::file_id::FileId;
use folio::settings::{Environment, Source, StorageSettings, TrackerSettings};
use folio::storage::{self, StartOptions, Storage};
use folio::tls::ClientTls;
use folio::tracker::{self, Tracker};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const NOW_S: u64 = 1_790_000_000;

pub fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}

pub async fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ask() {
        assert!(begun.elapsed() < PATIENCE, "it never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn pairs(fixed: &[(&str, &str)], more: &[(String, String)]) -> Vec<(String, String)> {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    fixed.iter().map(own).chain(more.iter().cloned()).collect()
}

pub fn start_tracker(more: &[(String, String)]) -> Tracker {
    let keys = pairs(
        &[
            ("listen", "127.0.0.1:0"),
            ("admin_listen", "127.0.0.1:0"),
            ("metrics_listen", "127.0.0.1:0"),
            ("liveness.heartbeat_interval", "100ms"),
        ],
        more,
    );
    let source = Source::Given { name: "test", keys: &keys };
    let settings = TrackerSettings::load(source, &Environment::default()).expect("settings");
    tracker::start(&settings.settings, Threads::new()).expect("starts")
}

pub async fn start_storage(
    dir: &Path,
    tracker: SocketAddr,
    machine: u16,
    more: &[(String, String)],
) -> Storage {
    let home = dir.join(format!("s{machine}"));
    let keys = pairs(
        &[
            ("listen", "127.0.0.1:0"),
            ("admin_listen", "127.0.0.1:0"),
            ("metrics_listen", "127.0.0.1:0"),
            ("group", "books"),
            ("syncgroup", "a"),
            ("machine_id", &machine.to_string()),
            ("trackers", &tracker.to_string()),
            ("state_dir", &home.join("state").display().to_string()),
            ("mounts[0].index", "0"),
            ("mounts[0].path", &home.join("m0").display().to_string()),
            ("store.chunkfile_size", "4MiB"),
            ("store.reserve_free", "64MiB"),
            ("store.single_file_threshold", "256KiB"),
            ("durability.acks", "all"),
        ],
        more,
    );
    let source = Source::Given { name: "test", keys: &keys };
    let settings = StorageSettings::load(source, &Environment::default()).expect("settings");
    let options = StartOptions { create_folders: true, found_after: PATIENCE };
    storage::start(settings.settings, options).await.expect("starts")
}

pub fn machine(authority: &Authority, dir: &Path, id: u16, ends: i32) -> Files {
    let uri = format!("folio://books/a/{id}");
    authority.sign(dir, &format!("s{id}"), &["127.0.0.1", "localhost"], &[&uri], ends)
}

pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub authority: Authority,
    pub tracker: Tracker,
    pub storages: Vec<Storage>,
}

impl Cluster {
    pub async fn start(count: u16, more: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let authority = Authority::new("test CA");
        let certificate = authority.sign(dir.path(), "tracker", &["127.0.0.1"], &[], 2090);
        let tracker = start_tracker(&pairs(more, &certificate.keys()));
        let mut storages = Vec::new();
        for id in 1..=count {
            let keys = pairs(more, &machine(&authority, dir.path(), id, 2090).keys());
            storages.push(start_storage(dir.path(), tracker.address(), id, &keys).await);
        }
        for storage in &storages {
            storage.ready().await;
        }
        Self { dir, authority, tracker, storages }
    }

    pub fn options(&self) -> ClientOptions {
        let tls = ClientTls::of_ca_file(&self.dir.path().join("ca.pem")).expect("a CA");
        ClientOptions { tls: Some(tls), ..self.plain() }
    }

    pub fn plain(&self) -> ClientOptions {
        let trackers = vec![self.tracker.address().to_string()];
        ClientOptions { trackers, timeout: Duration::from_secs(20), ..ClientOptions::default() }
    }

    pub async fn stop(self) {
        for storage in self.storages {
            storage.stop(PATIENCE).await;
        }
        self.tracker.stop(PATIENCE).await;
    }
}

pub async fn put(client: &Client, bytes: &[u8]) -> folio::client::Result<FileId> {
    let body = Body::bytes(bytes.to_vec());
    client.put(body, PutOptions::default()).await.map(|written| written.id)
}

pub async fn get(client: &Client, id: &FileId, options: GetOptions) -> Vec<u8> {
    let object = client.get(id, options).await.expect("it is there");
    object.bytes(u64::MAX).await.expect("whole").to_vec()
}

pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mix = |i: u64| ((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed) >> 56) as u8;
    (0..len as u64).map(mix).collect()
}
