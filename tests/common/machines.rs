//! Storages of one syncgroup in this process, over real sockets and disks, with a tracker.

use super::proxy::Proxy;
use super::{Client, Node, Outcome, settings};
use folio::actors::peers::SyncState;
use folio::actors::storage_room::StorageRoom;
use folio::actors::threads::Threads;
use folio::format::file_id::ObjectId;
use folio::messages::error::ErrorCode;
use folio::messages::heads::{IdBytes, Written};
use folio::settings::{Environment, Source, TrackerSettings};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Nothing in these tests takes so long unless it never happens.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must become true.
pub fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !true_now() {
        assert!(begun.elapsed() < PATIENCE, "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A tracker on its own thread.
pub struct TrackerNode {
    pub address: SocketAddr,
    pub stop: Option<oneshot::Sender<()>>,
    pub thread: Option<std::thread::JoinHandle<()>>,
}

impl TrackerNode {
    pub fn start() -> Self {
        let (tell, hear) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            actix::System::new().block_on(async move {
                let text = "listen = \"127.0.0.1:0\"\nadmin_listen = \"\"\nmetrics_listen = \"\"\n\
                            [liveness]\nheartbeat_interval = \"100ms\"\n";
                let source = Source::Text { name: "tracker", text };
                let settings = TrackerSettings::load(source, &Environment::default());
                let settings = settings.expect("good settings").settings;
                let tracker = folio::tracker::start(&settings, Threads::new()).expect("starts");
                tell.send(tracker.address()).expect("the test waits");
                stopped.await.unwrap_or_default();
                tracker.stop(PATIENCE).await;
            });
        });
        let address = hear.recv().expect("the tracker starts");
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for TrackerNode {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the tracker panicked");
        }
    }
}

/// One storage of the syncgroup; may be stopped and started again.
pub struct Machine {
    pub id: u16,
    pub dir: PathBuf,
    pub tracker: String,
    pub extra: Vec<(String, String)>,
    pub running: Option<(Node, Arc<StorageRoom>)>,
    pub listen: String,
}

impl Machine {
    pub fn new(dir: &Path, id: u16, tracker: SocketAddr, extra: &[(&str, &str)]) -> Self {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let mut machine = Self {
            id,
            dir: dir.join(format!("s{id}")),
            tracker: tracker.to_string(),
            extra: extra.iter().map(own).collect(),
            running: None,
            listen: "127.0.0.1:0".to_owned(),
        };
        machine.start();
        machine
    }

    pub fn start(&mut self) {
        let id = self.id.to_string();
        let mut extra = vec![
            ("machine_id", id.as_str()),
            ("trackers", self.tracker.as_str()),
            ("listen", self.listen.as_str()),
            ("sync.retry_max", "200ms"),
        ];
        extra.extend(self.extra.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let settings = settings(&self.dir, 2, &extra);
        let (tell, hear) = mpsc::channel();
        let node = Node::start_found_after(settings, PATIENCE, move |storage| {
            tell.send(Arc::clone(storage.room())).expect("the test waits");
        });
        let room = hear.recv().expect("it starts");
        self.listen = node.address.to_string();
        self.running = Some((node, room));
    }

    pub fn stop(&mut self) {
        self.running = None;
    }

    pub fn room(&self) -> &Arc<StorageRoom> {
        &self.running.as_ref().expect("it runs").1
    }

    pub fn client(&self) -> Client {
        self.running.as_ref().expect("it runs").0.client()
    }

    /// A put to a mount.
    pub fn put(&self, mount: u8, bytes: &[u8]) -> Outcome<Written> {
        let mut client = self.client();
        let id = client.send_put(bytes, Some(mount));
        client.outcome(id)
    }

    /// The content of an object as it lies here.
    pub fn reads(&self, id: &IdBytes) -> Option<Vec<u8>> {
        let id = ObjectId::decode(id).expect("an id");
        let mount = self.room().placement.mount(id.mount).expect("the mount");
        let shelf = Arc::clone(&mount.open().expect("it serves").shelf);
        let mut buffer = Vec::new();
        let got = shelf.get(&id, &mut buffer).ok()?;
        match got.content {
            folio::store::reader::Content::Buffer(at) => Some(buffer[at].to_vec()),
            folio::store::reader::Content::Single(content) => {
                let single = shelf.open_single(&got.home, content).ok()?;
                let mut bytes = Vec::new();
                let at = single.read(0..got.home.length, &mut bytes).ok()?;
                Some(bytes[at].to_vec())
            }
        }
    }

    pub fn holds_live(&self, other: u16) -> bool {
        self.states(other).iter().all(|state| *state == SyncState::Live)
    }

    /// How it stands with each mount of another machine.
    pub fn states(&self, other: u16) -> Vec<SyncState> {
        let Some(peer) = self.room().peers.get(other) else { return vec![SyncState::Disconnected] };
        peer.mounts().map(|(_, mount)| mount.state()).collect()
    }
}

/// So many storages that all hold each other for live.
pub fn syncgroup(dir: &Path, count: u16, extra: &[(&str, &str)]) -> (TrackerNode, Vec<Machine>) {
    let tracker = TrackerNode::start();
    let machines: Vec<Machine> =
        (1..=count).map(|id| Machine::new(dir, id, tracker.address, extra)).collect();
    until_live(&machines);
    (tracker, machines)
}

/// Two storages; what the first says to the second goes through a wire.
pub fn wired(dir: &Path, extra: &[(&str, &str)]) -> (TrackerNode, Proxy, Vec<Machine>) {
    let (tracker, proxy) = (TrackerNode::start(), Proxy::start());
    let one = Machine::new(dir, 1, tracker.address, extra);
    let advertise = proxy.address.to_string();
    let mut extra = extra.to_vec();
    extra.push(("advertise", &advertise));
    let two = Machine::new(dir, 2, tracker.address, &extra);
    proxy.to(two.listen.parse().expect("an address"));
    let machines = vec![one, two];
    until_live(&machines);
    (tracker, proxy, machines)
}

/// Asks until it is done. A mirror that is about to write for a silent owner is busy; a disk that stalls for half a second makes an outcome unknown, and a mirror late.
pub fn insist<T>(mut ask: impl FnMut() -> Outcome<T>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(done) => return done,
            Err(ErrorCode::UnknownOutcome | ErrorCode::Unavailable | ErrorCode::Busy) => {}
            Err(code) => panic!("refused: {code}"),
        }
        assert!(begun.elapsed() < PATIENCE, "it is never done");
    }
}

/// Puts until an answer says that there are so many copies.
pub fn put_copies(machine: &Machine, mount: u8, copies: u8) -> Written {
    insist(|| match machine.put(mount, b"enough copies") {
        Ok(put) if put.copies == copies => Ok(put),
        Ok(put) => {
            assert_eq!(put.degraded, put.copies < 2, "{put:?}");
            Err(ErrorCode::Unavailable)
        }
        Err(code) => Err(code),
    })
}

/// An answer says what it is: two copies, or degraded.
pub fn honest(put: &Written) {
    assert_eq!(put.degraded, put.copies < 2, "{put:?}");
}

pub fn until_live(machines: &[Machine]) {
    let ids: Vec<u16> = machines.iter().map(|machine| machine.id).collect();
    until("every mirror is live", || {
        machines.iter().all(|machine| {
            ids.iter().all(|other| *other == machine.id || machine.holds_live(*other))
        })
    });
}
