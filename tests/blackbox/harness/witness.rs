//! A load that knows at each moment what a storage may answer.
//!
//! Each object has a line of states: what is there after its operation 0, 1, 2 ... Operations of one object follow each
//! other. `acked` is the last one that was acknowledged, `attempted` the last one that was sent. A read that began at
//! `acked = lo` and ended at `attempted = hi` must show exactly one of the states lo..=hi, whole. What one reader has
//! seen is never unseen. An operation with unknown outcome stays open until [`Witness::settle`] after the next kill.

use super::cluster::Cluster;
use super::content::{below, content, identify};
use super::mirrored::runtime;
use super::{PATIENCE, from_env};
use folio::client::{Body, Client, Error, ErrorCode, GetOptions, PutOptions, Written};
use folio::format::file_id::FileId;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Size of the load.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Tasks that change objects, each its own.
    pub workers: u64,
    /// Tasks that read objects of all workers.
    pub readers: u64,
    /// Objects that a worker has in use at a time.
    pub objects_per_worker: u64,
    /// Longest content.
    pub size_max: usize,
    /// With fewer copies an acknowledgement promises nothing: a machine is going to be lost for good.
    pub copies: u8,
}

/// Storages that are going to be killed under load, again and again.
pub struct Scene {
    pub cluster: Cluster,
    pub runtime: Runtime,
    pub witness: Witness,
    /// For the moments.
    pub dice: u64,
}

/// Started; the seed is that of FOLIO_KILL_SEED.
pub fn scene(syncgroups: &[&str], workers: u64, readers: u64) -> Scene {
    let dice = from_env("FOLIO_KILL_SEED", 1);
    let mut cluster = Cluster::new(1, syncgroups, 2)
        .storages_with("store.single_file_threshold", "\"32KiB\"")
        .storages_with("store.chunkfile_size", "\"4MiB\"");
    cluster.start();
    let plan = Plan { workers, readers, objects_per_worker: 24, size_max: 48 << 10, copies: 1 };
    Scene { cluster, runtime: runtime(), witness: Witness::new(plan, dice), dice }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Never stored.
    Nothing,
    /// This version of the content.
    Live(u64),
    /// Deleted; undelete brings this version back.
    Deleted(u64),
}

#[derive(Debug)]
struct Object {
    index: u64,
    id: Option<FileId>,
    states: Vec<State>,
    acked: usize,
    /// The least state that a later read may show because an earlier one showed it.
    seen: usize,
}

impl Object {
    fn new(index: u64) -> Self {
        Self { index, id: None, states: vec![State::Nothing], acked: 0, seen: 0 }
    }

    fn attempted(&self) -> usize {
        self.states.len() - 1
    }

    fn current(&self) -> State {
        self.states[self.acked]
    }
}

type Shared = Arc<Mutex<Object>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no task panics while it holds it")
}

/// What was promised so far.
#[derive(Debug)]
pub struct Witness {
    plan: Plan,
    dice: u64,
    common: Arc<Common>,
}

#[derive(Debug, Default)]
struct Common {
    objects: Mutex<Vec<Shared>>,
    next_index: AtomicU64,
    operations: AtomicU64,
    reads: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
    /// What was seen and not acknowledged may be lost with the only machine that had it: it may be unseen.
    unseen: bool,
    failures: Mutex<Vec<String>>,
}

/// A load that runs.
pub struct Load {
    common: Arc<Common>,
    tasks: Vec<JoinHandle<()>>,
}

/// What a load did.
pub struct Report {
    operations: u64,
    reads: u64,
    unknown: u64,
    refused: u64,
    objects: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, reads, unknown, refused, objects } = self;
        write!(
            f,
            "so far {operations} operations, {unknown} of unknown outcome, {refused} refused, {reads} reads, {objects} objects"
        )
    }
}

impl Witness {
    /// Nothing was promised yet.
    pub fn new(plan: Plan, seed: u64) -> Self {
        let common = Common { unseen: plan.copies > 1, ..Common::default() };
        Self { plan, dice: seed, common: Arc::new(common) }
    }

    /// Starts workers and readers.
    pub fn start(&mut self, runtime: &Runtime, client: &Client) -> Load {
        let common = &self.common;
        common.stop.store(false, Ordering::SeqCst);
        let plan = self.plan;
        let mut tasks = Vec::new();
        for _ in 0..plan.workers {
            let dice = super::content::next(&mut self.dice);
            let (client, common) = (client.clone(), Arc::clone(common));
            tasks.push(runtime.spawn(work(client, common, plan, dice)));
        }
        for _ in 0..plan.readers {
            let dice = super::content::next(&mut self.dice);
            tasks.push(runtime.spawn(read(client.clone(), Arc::clone(common), dice)));
        }
        Load { common: Arc::clone(common), tasks }
    }

    /// After a kill: what is there, looked at by a client that knows nothing, is what was promised; open outcomes are
    /// closed by what is seen.
    pub async fn settle(&self, client: &Client) {
        let mut listed = BTreeMap::new();
        let mut list = client.list(None, None);
        while let Some(item) = list.next().await {
            let item = item.expect("list");
            let doubled = listed.insert(item.id.to_string(), item.id);
            assert_eq!(doubled, None, "listed twice");
        }
        let objects = lock(&self.common.objects).clone();
        for object in &objects {
            let Some(id) = lock(object).id.clone() else { continue };
            let found = match look(client, &id).await {
                Ok(found) => found,
                // Stored on the machine that is gone, and nowhere else, as the answer said.
                Err(error) if is_refusal(error.code) && lock(object).acked == 0 => continue,
                Err(error) => panic!("{id}: {error}"),
            };
            let is_listed = listed.remove(&id.to_string()).is_some();
            assert_eq!(is_listed, matches!(found, State::Live(_)), "{id}: {found:?} and listed");
            let mut object = lock(object);
            let range = object_range(&object);
            check(&mut object, range, found, self.common.unseen)
                .unwrap_or_else(|e| panic!("{id}: {e}"));
            object.states.push(found);
            object.acked = object.attempted();
        }
        // What is left was stored by puts whose answer was lost.
        for id in listed.into_values() {
            let found = client.get(&id, GetOptions::default()).await.expect("listed, so there");
            let bytes = found.bytes(1 << 30).await.expect("whole");
            let (index, version) = identify(&bytes).unwrap_or_else(|e| panic!("{id}: {e}"));
            let owner = objects.iter().find(|object| lock(object).index == index);
            let mut object = lock(owner.unwrap_or_else(|| panic!("{id}: of nobody: {index}")));
            let open = object.id.is_none() && object.states.contains(&State::Live(version));
            assert!(open, "{id}: object {index} version {version} is stored twice: {object:?}");
            object.id = Some(id);
            object.states.push(State::Live(version));
            object.acked = object.attempted();
        }
    }
}

fn object_range(object: &Object) -> (usize, usize) {
    (object.acked.max(object.seen), object.attempted())
}

/// Is `found` one of the states that may be seen? Then nothing older may be seen any more.
fn check(
    object: &mut Object,
    (lo, hi): (usize, usize),
    found: State,
    unseen: bool,
) -> Result<(), String> {
    let fits = |state: &State| match (state, found) {
        (State::Live(a), State::Live(b)) => *a == b,
        (State::Deleted(_) | State::Nothing, State::Deleted(_)) => true,
        _ => false,
    };
    let at = (lo..=hi).find(|at| object.states.get(*at).is_some_and(fits));
    let at =
        at.ok_or_else(|| format!("{found:?} is none of the states {lo}..={hi} of {object:?}"))?;
    if !unseen {
        object.seen = object.seen.max(at);
    }
    Ok(())
}

/// The state of an object as a client sees it; the error is one that must not be.
async fn look(client: &Client, id: &FileId) -> Result<State, Error> {
    let object = match client.get(id, GetOptions::default()).await {
        Ok(object) => object,
        Err(error) if error.code == ErrorCode::NotFound => return Ok(State::Deleted(0)),
        Err(error) => return Err(error),
    };
    let bytes = object.bytes(1 << 30).await?;
    let (_, version) = identify(&bytes)
        .map_err(|text| Error::new(ErrorCode::Damaged, format!("no whole version: {text}")))?;
    Ok(State::Live(version))
}

/// Nothing was changed, and the caller may come again.
const fn is_refusal(code: ErrorCode) -> bool {
    use ErrorCode::{Busy, Fenced, Stopped, Unavailable, WrongNode};
    matches!(code, Unavailable | Busy | Stopped | WrongNode | Fenced)
}

impl Common {
    fn fail(&self, text: String) {
        lock(&self.failures).push(text);
    }

    fn new_object(&self) -> Shared {
        let index = self.next_index.fetch_add(1, Ordering::SeqCst);
        let object = Arc::new(Mutex::new(Object::new(index)));
        lock(&self.objects).push(Arc::clone(&object));
        object
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// What is to be done next with an object, or `None` while its last outcome is open.
fn plan_next(object: &mut Object, dice: &mut u64) -> Option<State> {
    if object.acked != object.attempted() {
        return None;
    }
    let version = object.states.len() as u64;
    let next = match object.current() {
        State::Nothing => State::Live(version),
        State::Live(now) if below(dice, 8) == 0 => State::Deleted(now),
        State::Live(_) => State::Live(version),
        State::Deleted(old) => State::Live(old),
    };
    object.states.push(next);
    Some(next)
}

async fn work(client: Client, common: Arc<Common>, plan: Plan, mut dice: u64) {
    let mut mine: Vec<Shared> = Vec::new();
    while !common.stopping() {
        if (mine.len() as u64) < plan.objects_per_worker && below(&mut dice, 3) == 0
            || mine.is_empty()
        {
            mine.push(common.new_object());
        }
        let at = below(&mut dice, mine.len() as u64) as usize;
        let object = Arc::clone(&mine[at]);
        let deleted = matches!(lock(&object).current(), State::Deleted(_));
        if deleted && below(&mut dice, 2) == 0 {
            // Left deleted for good; it is looked at until the end.
            mine.swap_remove(at);
            continue;
        }
        let (before, next) = {
            let mut object = lock(&object);
            let before = object.current();
            match plan_next(&mut object, &mut dice) {
                Some(next) => (before, next),
                None => {
                    drop(object);
                    mine.swap_remove(at);
                    continue;
                }
            }
        };
        let size_bits = below(&mut dice, (plan.size_max as u64).ilog2().into()) as u32;
        let size = 28 + below(&mut dice, (2u64 << size_bits).min(plan.size_max as u64)) as usize;
        let result = change(&client, &object, before, next, size).await;
        let lonely = result.as_ref().is_ok_and(|written| written.copies < plan.copies);
        let result = result.map(|written| written.id);
        settle_one(&common, &object, before, next, result, lonely);
    }
}

async fn change(
    client: &Client,
    object: &Shared,
    before: State,
    next: State,
    size: usize,
) -> Result<Written, Error> {
    let (index, id) = {
        let object = lock(object);
        (object.index, object.id.clone())
    };
    match (before, next, id) {
        (State::Nothing, State::Live(version), _) => {
            client.put(Body::bytes(content(index, version, size)), PutOptions::default()).await
        }
        (State::Live(_), State::Live(version), Some(id)) => {
            client.modify(&id, Body::bytes(content(index, version, size)), None).await
        }
        (State::Live(_), _, Some(id)) => client.delete(&id, None).await,
        (State::Deleted(_), _, Some(id)) => client.undelete(&id).await,
        (before, next, id) => panic!("no operation leads from {before:?} to {next:?} of {id:?}"),
    }
}

fn settle_one(
    common: &Common,
    object: &Shared,
    before: State,
    next: State,
    result: Result<FileId, Error>,
    lonely: bool,
) {
    let mut object = lock(object);
    match result {
        Ok(id) if lonely => {
            // It may be lost with its machine: its outcome stays open.
            object.id = Some(id);
            common.unknown.fetch_add(1, Ordering::SeqCst);
        }
        Ok(id) => {
            if let Some(known) = &object.id
                && *known != id
            {
                common.fail(format!("{known} became {id}"));
            }
            object.id = Some(id);
            object.acked = object.attempted();
            common.operations.fetch_add(1, Ordering::SeqCst);
        }
        Err(error) if is_refusal(error.code) => {
            // "Nothing was changed": held to its word.
            object.states.pop();
            common.refused.fetch_add(1, Ordering::SeqCst);
        }
        Err(error) if matches!(error.code, ErrorCode::UnknownOutcome | ErrorCode::UnknownToken) => {
            common.unknown.fetch_add(1, Ordering::SeqCst);
        }
        Err(error) => {
            common.fail(format!("{before:?} to {next:?} of {object:?}: {error}"));
        }
    }
}

async fn read(client: Client, common: Arc<Common>, mut dice: u64) {
    while !common.stopping() {
        let object = {
            let objects = lock(&common.objects);
            match objects.len() as u64 {
                0 => None,
                count => Some(Arc::clone(&objects[below(&mut dice, count) as usize])),
            }
        };
        let known = object.and_then(|object| {
            let (id, lo) = {
                let object = lock(&object);
                (object.id.clone(), object_range(&object).0)
            };
            id.map(|id| (object, id, lo))
        });
        let Some((object, id, lo)) = known else {
            tokio::task::yield_now().await;
            continue;
        };
        match look(&client, &id).await {
            Ok(found) => {
                common.reads.fetch_add(1, Ordering::SeqCst);
                let mut object = lock(&object);
                let hi = object.attempted();
                // A refused operation takes its state away again; nobody can have seen it.
                if let Err(text) = check(&mut object, (lo.min(hi), hi), found, common.unseen) {
                    common.fail(format!("{id}: a read: {text}"));
                }
            }
            Err(error) if is_refusal(error.code) || error.code == ErrorCode::UnknownOutcome => {}
            Err(error) => common.fail(format!("{id}: a read: {error}")),
        }
    }
}

impl Load {
    /// Waits until so many more operations were acknowledged.
    pub fn wait_operations(&self, count: u64) {
        let goal = self.common.operations.load(Ordering::SeqCst) + count;
        let deadline = Instant::now() + PATIENCE;
        while self.common.operations.load(Ordering::SeqCst) < goal {
            let failures = lock(&self.common.failures).clone();
            assert!(failures.is_empty(), "{failures:#?}");
            assert!(Instant::now() < deadline, "the load stands still");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Lets each task end what it has in hand.
    pub fn stop(self, runtime: &Runtime) -> Report {
        let common = &self.common;
        common.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            runtime.block_on(task).expect("no task panics");
        }
        let failures = lock(&common.failures).clone();
        assert!(failures.is_empty(), "{failures:#?}");
        Report {
            operations: common.operations.load(Ordering::SeqCst),
            reads: common.reads.load(Ordering::SeqCst),
            unknown: common.unknown.load(Ordering::SeqCst),
            refused: common.refused.load(Ordering::SeqCst),
            objects: lock(&common.objects).len(),
        }
    }
}
