//! An import that is stopped anywhere and repeated neither loses nor doubles anything.
//!
//! The cluster is a model that stops the world at its n-th event; what is on disk then is what a `kill -9` leaves.
//! `FOLIO_TEST_SEED` repeats one run.

use super::*;
use crate::cli::manifest::tests::id as object_named;
use crate::cli::manifest::{Manifest, Sha256Bytes};
use crate::format::crc::crc32c;
use content::Data;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tokio::sync::Notify;

/// What survives a client.
#[derive(Default)]
struct World {
    next: u64,
    live: BTreeMap<u64, Vec<u8>>,
    deleted: BTreeSet<u64>,
    tokens: HashMap<([u8; 16], u64), u64>,
    forgotten_below: HashMap<[u8; 16], u64>,
    /// Puts are refused with this.
    refuse: Option<ErrorCode>,
}

/// One life of a client.
struct Cluster {
    world: Rc<RefCell<World>>,
    client: [u8; 16],
    leases: Rc<RefCell<BTreeSet<u64>>>,
    sequence: RefCell<u64>,
    events: RefCell<u64>,
    kill_at: u64,
    killed: Notify,
}

struct Lease(u64, Rc<RefCell<BTreeSet<u64>>>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.1.borrow_mut().remove(&self.0);
    }
}

impl Cluster {
    fn new(world: &Rc<RefCell<World>>, life: u8, kill_at: u64) -> Self {
        Self {
            world: Rc::clone(world),
            client: [life; 16],
            leases: Rc::default(),
            sequence: RefCell::new(0),
            events: RefCell::new(0),
            kill_at,
            killed: Notify::new(),
        }
    }

    /// The world may end here.
    async fn event(&self) {
        let now = self.events.replace_with(|n| *n + 1);
        if now >= self.kill_at {
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

fn bytes_of(content: &Content) -> Vec<u8> {
    match &content.data {
        Data::Small(bytes) => bytes.to_vec(),
        Data::Large(path) => std::fs::read(path).expect("large file"),
    }
}

fn key(id: &FileId) -> u64 {
    id.object.sequence
}

impl ObjectStore for Cluster {
    type Lease = Lease;

    async fn place(&self, _: u64) -> Outcome<Place> {
        self.event().await;
        Ok(Place { group: "dev".into(), syncgroup: "a".into(), machine: 1 })
    }

    async fn lease(&self, _: &Place) -> Outcome<(Token, Lease)> {
        let sequence = self.sequence.replace_with(|n| *n + 1) + 1;
        self.leases.borrow_mut().insert(sequence);
        let lowest = self.leases.borrow().first().copied().unwrap_or(sequence);
        let token =
            Token { client: self.client, sequence, lowest_unanswered: lowest, issued_ms: 1 };
        Ok((token, Lease(sequence, Rc::clone(&self.leases))))
    }

    async fn put(
        &self,
        content: &Content,
        _place: &Place,
        token: Token,
        _ext: Option<&str>,
    ) -> Outcome<FileId> {
        self.event().await;
        if let Some(code) = self.world.borrow().refuse {
            return Err(Failure::new(code, "refused", ""));
        }
        let number = {
            let mut world = self.world.borrow_mut();
            let known = world.tokens.get(&(token.client, token.sequence)).copied();
            let forgotten = world.forgotten_below.get(&token.client).copied().unwrap_or(0);
            match known {
                Some(number) => number,
                None if token.sequence < forgotten => {
                    return Err(Failure::new(ErrorCode::UnknownToken, "forgotten", ""));
                }
                None => {
                    world.next += 1;
                    let number = world.next;
                    world.live.insert(number, bytes_of(content));
                    world.tokens.insert((token.client, token.sequence), number);
                    let lowest = token.lowest_unanswered;
                    world
                        .tokens
                        .retain(|(client, seq), _| *client != token.client || *seq >= lowest);
                    world.forgotten_below.insert(token.client, lowest.max(forgotten));
                    number
                }
            }
        };
        self.event().await;
        Ok(object_named(number))
    }

    async fn modify(&self, id: &FileId, content: &Content) -> Outcome {
        self.event().await;
        let found = self.world.borrow_mut().live.insert(key(id), bytes_of(content));
        assert!(found.is_some(), "modified what is not there");
        self.event().await;
        Ok(())
    }

    async fn holds(&self, id: &FileId, content: &Content) -> Outcome<bool> {
        self.event().await;
        let world = self.world.borrow();
        Ok(world.live.get(&key(id)).is_some_and(|bytes| crc32c(bytes) == content.crc32c))
    }

    async fn delete(&self, id: &FileId) -> Outcome {
        self.event().await;
        let mut world = self.world.borrow_mut();
        world.live.remove(&key(id));
        world.deleted.insert(key(id));
        Ok(())
    }
}

struct Scene {
    dir: tempfile::TempDir,
    world: Rc<RefCell<World>>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::create_dir_all(dir.path().join("root/sub")).expect("mkdir");
        Self { dir, world: Rc::default() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn manifest(&self) -> PathBuf {
        // Inside the tree, where it must not import itself.
        self.root().join("MANIFEST")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.root().join(name), bytes).expect("write");
    }

    /// Runs an import until it ends (`Some`) or the world does (`None`).
    async fn run(&self, life: u8, kill_at: u64, jobs: usize) -> Option<Outcome<Summary>> {
        let cluster = Cluster::new(&self.world, life, kill_at);
        let progress = Progress::silent();
        let (root, manifest) = (self.root(), self.manifest());
        tokio::select! {
            result = import(&cluster, &root, &manifest, jobs, &progress) => Some(result),
            () = cluster.killed.notified() => None,
        }
    }

    /// Repeats until the lock of the interrupted import is free: its last line may still be on its way to the disk.
    async fn finish(&self, life: u8) -> Summary {
        loop {
            match self.run(life, u64::MAX, 2).await.expect("nobody kills it") {
                Ok(summary) => return summary,
                Err(failure) if failure.message.contains("another import") => {
                    tokio::task::yield_now().await;
                }
                Err(failure) => panic!("{failure:?}"),
            }
        }
    }

    fn check(&self, context: &str) {
        let manifest = Manifest::load(&self.manifest()).expect("a whole manifest");
        assert_eq!(manifest.superseded, 0, "{context}");
        let own = [self.manifest(), Journal::path_for(&self.manifest())];
        let files = walk::walk(&self.root(), &own).expect("walk").files;
        assert_eq!(manifest.entries.len(), files.len(), "{context}: lost or doubled a line");
        let world = self.world.borrow();
        assert_eq!(world.live.len(), files.len(), "{context}: lost or doubled an object");
        for entry in &manifest.entries {
            let bytes = std::fs::read(self.root().join(&entry.path)).expect("file");
            assert_eq!(world.live.get(&key(&entry.id)), Some(&bytes), "{context}");
            assert_eq!(entry.sha256, <Sha256Bytes>::from(Sha256::digest(&bytes)), "{context}");
        }
        assert!(!own[1].exists(), "{context}: the journal stayed");
    }
}

fn tear(path: &Path, rng: &mut StdRng) {
    let Ok(mut bytes) = std::fs::read(path) else { return };
    let torn = b"put\tdev/a/AQEBAAAREUBaBwAAAAAAAQCA4U5oAwAAAEA\t12\tabc\tx\n";
    bytes.extend_from_slice(&torn[..rng.random_range(0..torn.len())]);
    std::fs::write(path, bytes).expect("tear");
}

async fn campaign(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let scene = Scene::new();
    for (i, name) in ["a", "b.txt", "sub/c", "sub/d", "e"].iter().enumerate() {
        scene.write(name, format!("content {}", i % 4).as_bytes());
    }
    let mut life = 0;
    for _ in 0..rng.random_range(1..4) {
        life += 1;
        let kill_at = rng.random_range(0..20);
        if scene.run(life, kill_at, rng.random_range(1..4)).await.is_none() {
            // The writers of the killed import have to be gone before the files are torn.
            while let Err(e) = Journal::open(&scene.manifest()) {
                assert!(e.message.contains("another import"), "{e:?}");
                tokio::task::yield_now().await;
            }
            tear(&scene.manifest(), &mut rng);
            tear(&Journal::path_for(&scene.manifest()), &mut rng);
        }
        match rng.random_range(0..3) {
            0 => scene.write("a", format!("changed {life}").as_bytes()),
            1 => scene.write(&format!("new{life}"), b"new"),
            2 if life == 1 => {
                // A file that is in no manifest yet may vanish; its object, if any, must go.
                let text = std::fs::read_to_string(scene.manifest()).unwrap_or_default();
                if !text.contains("\te\n") {
                    std::fs::remove_file(scene.root().join("e")).expect("remove");
                }
            }
            _ => {}
        }
    }
    scene.finish(100).await;
    scene.check(&format!("FOLIO_TEST_SEED={seed}"));
    let again = scene.finish(101).await;
    assert_eq!((again.stored, again.modified, again.failed), (0, 0, 0), "seed {seed}");
    scene.check(&format!("again, FOLIO_TEST_SEED={seed}"));
}

#[tokio::test]
async fn stopped_anywhere_and_repeated_nothing_is_lost_or_doubled() {
    let given = std::env::var("FOLIO_TEST_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    match given {
        Some(seed) => campaign(seed).await,
        None => {
            for seed in 0..40 {
                campaign(seed).await;
            }
        }
    }
}

#[tokio::test]
async fn unreadable_files_are_counted_and_the_others_go_on() {
    let scene = Scene::new();
    scene.write("a", b"a");
    scene.write("z", b"z");
    std::os::unix::fs::symlink("a", scene.root().join("link")).expect("link");
    let long = vec![b'x'; 300];
    scene.write("long", &long);
    let summary = scene.finish(1).await;
    assert_eq!((summary.stored, summary.left_out, summary.failed), (3, 1, 0));
    scene.world.borrow_mut().refuse = Some(ErrorCode::Failed);
    scene.write("new", b"n");
    let summary = scene.finish(2).await;
    assert_eq!((summary.unchanged, summary.failed), (3, 1));
    assert!(Journal::path_for(&scene.manifest()).exists(), "what is not settled stays");
    scene.world.borrow_mut().refuse = None;
    assert_eq!(scene.finish(3).await.stored, 1);
    scene.check("after the refusal");
}

#[tokio::test]
async fn a_cluster_that_is_gone_ends_the_import_with_its_exit_code() {
    let scene = Scene::new();
    for i in 0..100 {
        scene.write(&format!("f{i}"), b"x");
    }
    scene.world.borrow_mut().refuse = Some(ErrorCode::UnknownOutcome);
    let failure = scene.run(1, u64::MAX, 4).await.expect("ends").expect_err("gone");
    assert_eq!(failure.exit_code(), 5);
    scene.world.borrow_mut().refuse = None;
    scene.finish(2).await;
    scene.check("after the cluster came back");
}
