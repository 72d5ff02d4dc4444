//! The real engine, as the campaign sees it: one mount on a simulated disk, small files so that everything turns over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use folio::format::crc::crc32c;
use folio::format::file_id::ObjectId;
use folio::format::ids::{Sequence, Token};
use folio::format::label::Label;
use folio::format::paths;
use folio::store::clock::ManualClock;
use folio::store::disk::Disk;
use folio::store::error::StoreError;
use folio::store::label_file::read_label;
use folio::store::mount::{Body, Mount, PutRequest, TempSingle};
use folio::store::options::{MountOptions, Planted};
use folio::store::read::ReadError;
use folio::store::reader::{Content as InBuffer, Reader};
use folio::store::sim_disk::{Op, SimDisk, on};
use folio::store::single_writer::{Finished, SingleWriter};
use folio::store::tokens::{Begin, TokenTable};

use super::engine::{Content, Edit, Engine, Ticket, Trouble};
use super::note;
use super::workload::THRESHOLD;

/// How long deletes can be taken back, in ms of simulated time.
const WINDOW_MS: u64 = 1_000_000;

/// Settings of a campaign.
#[derive(Clone, Default)]
pub struct Setup {
    /// A deliberate bug in the engine.
    pub planted: Option<Planted>,
    /// A call that the engine forgets, on paths that contain this: it says it was done, and nothing happens.
    pub forgets: Option<(Op, &'static str)>,
    /// Simulated time.
    pub now_ms: Arc<AtomicU64>,
    /// The daemon finds no time for checkpoints between batches.
    pub never_idle: Arc<AtomicBool>,
}

impl Setup {
    /// With a bug.
    pub fn planted(bug: Planted) -> Self {
        Self { planted: Some(bug), ..Self::default() }
    }

    /// With a forgotten call.
    pub fn forgetting(op: Op, path: &'static str) -> Self {
        Self { forgets: Some((op, path)), ..Self::default() }
    }

    fn options(&self, seed: u64) -> MountOptions {
        let mut options = MountOptions {
            chunkfile_size: 64 << 10,
            single_file_threshold: THRESHOLD as u64,
            reserve_free: 0,
            undelete_window_ms: WINDOW_MS,
            active_chunkfiles: 2,
            segment_len_min: 16 << 10,
            segment_len_max: 16 << 10,
            checkpoint_bytes: 10 << 10,
            planted: self.planted,
            ..MountOptions::default()
        };
        options.seed[..8].copy_from_slice(&seed.to_le_bytes());
        options
    }
}

/// One mount.
pub struct Folio {
    disk: SimDisk,
    mount: Mount<SimDisk>,
    reader: Reader<SimDisk>,
    tokens: Arc<TokenTable>,
    clock: Arc<ManualClock>,
    now_ms: Arc<AtomicU64>,
    waiting: Vec<(Ticket, Sequence)>,
    never_idle: bool,
}

impl Folio {
    fn trouble(&self, error: StoreError) -> Trouble {
        match trouble(&self.disk, error) {
            // The disk said no to something that nothing rested upon yet.
            Trouble::Dead(why) if !self.disk.has_crashed() && self.mount.fenced().is_none() => {
                Trouble::Refused(why)
            }
            trouble => trouble,
        }
    }

    fn pass(&self, ms: u64) {
        let now = self.now_ms.fetch_add(ms, Ordering::Relaxed) + ms;
        self.clock.set(now);
    }

    fn body(&self, content: &Content) -> Result<Body, StoreError> {
        let crc = crc32c(content);
        if content.len() <= THRESHOLD {
            return Ok(Body::Inline { bytes: Bytes::copy_from_slice(content), crc });
        }
        let id = self.mount.content_ids().next();
        let write = || {
            let mut writer = SingleWriter::create(self.disk.clone(), 0, id)?;
            writer.write(content)?;
            writer.finish()
        };
        let Finished { content, length, crc } =
            write().map_err(StoreError::io("write a large object"))?;
        Ok(Body::Single(TempSingle { content, length, crc }))
    }

    /// As a connection reads: past the engine, from the files alone.
    fn read(&self, id: &ObjectId) -> Result<Option<Vec<u8>>, ReadError> {
        let mut buffer = Vec::new();
        let got = match self.reader.get(id, &mut buffer) {
            Ok(got) => got,
            Err(ReadError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let range = match got.content {
            InBuffer::Buffer(range) => range,
            InBuffer::Single(content) => {
                let single = self.reader.open_single(&got.home, content)?;
                single.read(0..single.length(), &mut buffer)?
            }
        };
        Ok(Some(buffer[range].to_vec()))
    }
}

fn trouble(disk: &SimDisk, error: StoreError) -> Trouble {
    if disk.has_crashed() {
        return Trouble::Dead(error.to_string());
    }
    match error {
        StoreError::NotFound { .. }
        | StoreError::Precondition { .. }
        | StoreError::NotDeleted(_)
        | StoreError::NoSpace { .. } => Trouble::Refused(error.to_string()),
        StoreError::Fenced(_) | StoreError::Io { .. } => Trouble::Dead(error.to_string()),
        StoreError::TooLarge { .. }
        | StoreError::Foreign { .. }
        | StoreError::Damaged(_)
        | StoreError::Format(_) => Trouble::Damaged(error.to_string()),
    }
}

fn token(ticket: Ticket) -> Token {
    Token { client: *b"the one campaign", sequence: ticket, lowest_unanswered: 1, issued_ms: 1 }
}

fn new_label() -> Label {
    Label::blank("g", "s", 1, 0, [7; 16], [8; 16])
}

impl Engine for Folio {
    type Id = ObjectId;
    type Setup = Setup;

    fn begin(setup: &Setup, ms: u64, mood: u64) {
        setup.now_ms.store(ms, Ordering::Relaxed);
        setup.never_idle.store(mood % 4 == 1, Ordering::Relaxed);
    }

    fn prepare(setup: &Setup, disk: &SimDisk) {
        if let Some((op, path)) = setup.forgets {
            disk.ignore(on(path, op));
        }
    }

    fn open(disk: &SimDisk, setup: &Setup) -> Result<Self, Trouble> {
        let now = setup.now_ms.fetch_add(1, Ordering::Relaxed) + 1;
        let clock = Arc::new(ManualClock::at(now));
        let tokens = Arc::new(TokenTable::default());
        let label = match disk.stat(paths::LABEL) {
            Ok(Some(_)) => Some(read_label(disk).map_err(|error| trouble(disk, error))?),
            Ok(None) => None,
            Err(error) => return Err(trouble(disk, StoreError::io("stat")(error))),
        };
        let mount = match label {
            Some(label) => {
                let options = setup.options(u64::from(label.start_count));
                Mount::open(disk.clone(), options, clock.clone(), tokens.clone())
            }
            None => {
                let (clock, tokens) = (clock.clone(), tokens.clone());
                Mount::create(disk.clone(), new_label(), setup.options(0), clock, tokens)
            }
        };
        let mut mount = mount.map_err(|error| trouble(disk, error))?;
        for warning in mount.take_warnings() {
            note!("      warning: {warning}");
        }
        let now_ms = Arc::clone(&setup.now_ms);
        let reader = Reader::new(disk.clone(), 0, 16);
        let (disk, waiting) = (disk.clone(), Vec::new());
        let never_idle = setup.never_idle.load(Ordering::Relaxed);
        Ok(Self { disk, mount, reader, tokens, clock, now_ms, waiting, never_idle })
    }

    fn submit(&mut self, ticket: Ticket, edit: &Edit<ObjectId>) -> Result<ObjectId, Trouble> {
        self.pass(1);
        let token = token(ticket);
        let mount = &mut self.mount;
        let staged = match edit {
            Edit::Put(content) => self.body(content).and_then(|body| {
                let lane = usize::try_from(ticket % 2).unwrap_or(0);
                self.mount.stage_put(PutRequest { token, body, reserve: None, lane })
            }),
            Edit::Modify(id, content) => {
                self.body(content).and_then(|body| self.mount.stage_modify(id, token, body, None))
            }
            Edit::Delete(id) => mount.stage_delete(id, token, None),
            Edit::Undelete(id) => mount.stage_undelete(id, token),
        };
        let staged = staged.map_err(|error| self.trouble(error))?;
        self.waiting.push((ticket, staged.sequence));
        Ok(staged.id)
    }

    fn commit(&mut self) -> Result<(), Trouble> {
        self.mount.commit().map(|_| ()).map_err(|error| self.trouble(error))?;
        if !self.never_idle && self.mount.checkpoint_due() {
            self.mount.checkpoint_step().map_err(|error| self.trouble(error))?;
        }
        Ok(())
    }

    fn acknowledged(&mut self) -> Vec<Ticket> {
        let durable = self.mount.durable();
        let (done, waiting) =
            self.waiting.drain(..).partition(|(_, sequence)| *sequence <= durable);
        self.waiting = waiting;
        let done: Vec<(Ticket, Sequence)> = done;
        done.into_iter().map(|(ticket, _)| ticket).collect()
    }

    fn get(&mut self, id: &ObjectId) -> Result<Option<Vec<u8>>, Trouble> {
        let in_line = match self.mount.read_whole(id) {
            Ok(content) => Some(content),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(self.trouble(error)),
        };
        match self.read(id) {
            Ok(answer) if answer == in_line => Ok(answer),
            // It says that it does not know, and the engine is asked: see there.
            Err(ReadError::Unsettled(_)) if in_line.is_none() => Ok(None),
            Ok(answer) => {
                let (reader, engine) = (answer.map(|a| a.len()), in_line.map(|a| a.len()));
                let what = format!("{reader:?} bytes by the reader, {engine:?} by the engine");
                Err(Trouble::Damaged(what))
            }
            Err(error) => Err(Trouble::Damaged(format!("the reader only: {error}"))),
        }
    }

    fn checkpoint(&mut self) -> Result<(), Trouble> {
        if self.never_idle {
            // It only gets a little further each time.
            return self.mount.checkpoint_step().map(|_| ()).map_err(|error| self.trouble(error));
        }
        self.mount.finish_checkpoint().map_err(|error| self.trouble(error))
    }

    fn age(&mut self) -> Result<(), Trouble> {
        self.pass(2 * WINDOW_MS);
        while self.mount.maintain().map_err(|error| self.trouble(error))? {}
        self.mount.commit().map(|_| ()).map_err(|error| self.trouble(error))
    }

    fn list(&mut self) -> Result<Vec<ObjectId>, Trouble> {
        let mut ids = Vec::new();
        let mut from = None;
        loop {
            let page = self.reader.list(1, from, 0, 20);
            let page = page.map_err(|error| Trouble::Damaged(error.to_string()))?;
            ids.extend(page.items.iter().map(|item| item.id));
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(ids),
            }
        }
    }

    fn answer_to_retry(&mut self, ticket: Ticket) -> Option<ObjectId> {
        match self.tokens.begin(&token(ticket)) {
            Begin::Answered(answer) => Some(answer.object),
            Begin::Fresh => {
                self.tokens.abandon(&token(ticket));
                None
            }
            Begin::InFlight | Begin::TooOld => None,
        }
    }
}
