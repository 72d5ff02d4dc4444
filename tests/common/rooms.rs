//! Mounts and their actors without a socket: tasks in, answers out.

use folio::actors::binlog::Binlog;
use folio::actors::budget::Budget;
use folio::actors::mount_mirror::MountIdentity;
use folio::actors::mount_room::{MountRoom, Opened};
use folio::actors::outbox::{Out, Outbox, RequestTag};
use folio::actors::placement::Placement;
use folio::actors::read_pool::{Limit, ReadPool};
use folio::actors::reply::Reply;
use folio::actors::shared_mount::{OpenMount, SharedMount};
use folio::actors::task::{Change, Content, Task, What};
use folio::actors::threads::Threads;
use folio::format::crc::crc32c;
use folio::format::file_id::ObjectId;
use folio::format::ids::{MountIndex, Tag, Token};
use folio::format::label::Label;
use folio::messages::error::ErrorCode;
use folio::messages::opcode::Opcode;
use folio::settings::MountPolicy;
use folio::store::clock::SystemClock;
use folio::store::mount::Mount;
use folio::store::options::MountOptions;
use folio::store::reader::Reader;
use folio::store::sim_disk::SimDisk;
use folio::store::tokens::TokenTable;
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// What came back for a request.
pub type Told = Result<(ObjectId, Tag), ErrorCode>;

/// Whoever asks, and hears the answers.
pub struct Asker {
    pub outbox: Arc<Outbox>,
    pub budget: Arc<Budget>,
    pub tokens: Arc<TokenTable>,
    next: u64,
}

impl Asker {
    pub fn new(tokens: Arc<TokenTable>) -> Self {
        let budget = Budget::new(1 << 20, 1 << 40);
        Self { outbox: Arc::default(), budget, tokens, next: 1 }
    }

    /// The reply of a new request, and its number.
    pub fn reply(&mut self) -> (u64, Reply) {
        let id = self.next;
        self.next += 1;
        let tag = RequestTag { opcode: Opcode::Modify.as_u16(), id, came_us: 0 };
        let permit = self.budget.take(0).expect("a large budget");
        let tokens = Arc::clone(&self.tokens);
        (id, Reply::new(Arc::clone(&self.outbox), tag, Token::default(), tokens, permit))
    }

    pub fn put(&mut self, bytes: &[u8]) -> (u64, Task) {
        let what = What::Put { content: inline(bytes), reserve: None, lane: 0, others: 0 };
        let (id, reply) = self.reply();
        (id, Task::Change(Change { what, reply }))
    }

    pub fn modify(&mut self, object: ObjectId, bytes: &[u8]) -> (u64, Task) {
        let what = What::Modify { id: object, content: inline(bytes), if_opver: None };
        let (id, reply) = self.reply();
        (id, Task::Change(Change { what, reply }))
    }

    /// Waits for `count` answers; by request number.
    pub fn answers(&self, count: usize) -> Vec<(u64, Told)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (mut told, mut taken) = (Vec::new(), Vec::new());
        runtime.block_on(poll_fn(|cx| {
            self.outbox.register(cx.waker());
            self.outbox.take(&mut taken);
            told.extend(taken.drain(..).map(|out| match out {
                Out::Written { tag, id, opver, .. } => (tag.id, Ok((id, opver))),
                Out::Refused { tag, problem, .. } => (tag.id, Err(problem.code)),
                other => panic!("not asked for: {other:?}"),
            }));
            if told.len() >= count { Poll::Ready(()) } else { Poll::Pending }
        }));
        told.sort_unstable_by_key(|(id, _)| *id);
        told
    }
}

fn inline(bytes: &[u8]) -> Content {
    Content::Inline { bytes: bytes::Bytes::copy_from_slice(bytes), crc: crc32c(bytes) }
}

/// A new mount on a simulated disk.
pub fn engine(disk: &SimDisk, index: MountIndex, tokens: &Arc<TokenTable>) -> Mount<SimDisk> {
    let label = Label::blank("test", "a", 1, index, [index; 16], [9; 16]);
    let options = MountOptions {
        chunkfile_size: 4 << 20,
        reserve_free: 0,
        segment_len_max: 4 << 20,
        segment_len_min: 1 << 20,
        seed: [index + 1; 32],
        ..MountOptions::default()
    };
    Mount::create(disk.clone(), label, options, Arc::new(SystemClock), Arc::clone(tokens))
        .expect("a mount")
}

pub fn opened(disk: &SimDisk, mount: Mount<SimDisk>, index: MountIndex) -> Opened {
    let open = OpenMount {
        shelf: Arc::new(Reader::new(disk.clone(), index, 16)),
        content_ids: mount.content_ids(),
    };
    let identity = MountIdentity { machine: 1, mount_uuid: [index; 16], instance: [9; 16] };
    let remember = Box::new(|_: &[_]| Ok(()));
    Opened {
        engine: Box::new(mount),
        open,
        watch: Box::new(|| Ok(())),
        identity,
        remember,
        refill: None,
    }
}

pub fn shared(index: MountIndex) -> Arc<SharedMount> {
    let pool = ReadPool::new(format!("read-{index}"), 1, Limit::new(0));
    Arc::new(SharedMount::new(index, format!("sim-{index}"), pool, 0))
}

/// Mounts with their actors, each on its own arbiter.
pub struct House {
    pub mounts: Vec<Arc<SharedMount>>,
    pub placement: Arc<Placement>,
    pub tokens: Arc<TokenTable>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl House {
    pub fn new(disks: Vec<SimDisk>) -> Self {
        let placement = Placement::new(MountPolicy::RoundRobin);
        let tokens = Arc::new(TokenTable::default());
        let mounts: Vec<_> = (0..disks.len()).map(|i| shared(i as MountIndex)).collect();
        placement.set(mounts.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell, hear) = std::sync::mpsc::channel();
        let house = (mounts.clone(), Arc::clone(&placement), Arc::clone(&tokens));
        let thread = std::thread::spawn(move || {
            actix::System::new().block_on(async move {
                let (mounts, placement, tokens) = house;
                let mut threads = Threads::new();
                let (first, mut opens) = tokio::sync::mpsc::unbounded_channel();
                for (disk, shared) in disks.into_iter().zip(mounts.clone()) {
                    let arbiter = threads.start("disk").expect("a thread");
                    let (placement, tokens) = (Arc::clone(&placement), Arc::clone(&tokens));
                    let first = first.clone();
                    arbiter.spawn_fn(move || {
                        use actix::Actor;
                        let index = shared.index;
                        let attach = Arc::clone(&shared);
                        let room = MountRoom::new(shared, placement);
                        let opener = Box::new(move || {
                            Ok(opened(&disk, engine(&disk, index, &tokens), index))
                        });
                        let binlog = Binlog::new(Rc::new(RefCell::new(room)), opener, first);
                        attach.registry.attach(binlog.start());
                    });
                }
                drop(first);
                while let Some((_, opened)) = opens.recv().await {
                    opened.expect("the mount opens");
                }
                tell.send(()).expect("the test waits");
                let _ = stopped.await;
                for mount in &mounts {
                    mount.registry.shut().await;
                    if let Some(binlog) = mount.registry.binlog() {
                        binlog.send(folio::actors::binlog::CloseMount).await.expect("closes");
                    }
                }
                let errors = threads.stop_and_join(Duration::from_secs(60));
                assert!(errors.is_empty(), "{errors:?}");
            });
        });
        hear.recv().expect("the mounts open");
        Self { mounts, placement, tokens, stop: Some(stop), thread: Some(thread) }
    }

    pub fn asker(&self) -> Asker {
        Asker::new(Arc::clone(&self.tokens))
    }
}

impl Drop for House {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "an actor panicked");
        }
    }
}
