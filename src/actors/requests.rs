//! What a connection does with each request (the other half of [`connection`](super::connection)).
//!
//! A get that needs no waiting is answered here, on the connection's thread, from a buffer that is used again: no hop,
//! no allocation but the answer. Everything else is handed on with a permit.

use super::ask_others::Question;
use super::binlog::AnswerAgain;
use super::connection::{Connection, Done, busy};
use super::forward::{Edit, wrong_node};
use super::get_job::{Ask, GetJob, object_head};
use super::list_job::{ListJob, encode_page};
use super::outbox::RequestTag;
use super::problems;
use super::reply::Reply;
use super::session::Problem;
use super::shared_mount::SharedMount;
use super::storage_room::StorageRoom;
use super::task::{Change, Content, Task, What};
use super::upload::{Intent, Upload};
use super::{ambient, budget::Permit};
use crate::cluster::view::MountState;
use crate::format::checkpoint::AnsweredToken;
use crate::format::crc::crc32c;
use crate::format::file_id::ObjectId;
use crate::format::ids::Token;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{FLAG_STREAMED, Frame, Meta};
use crate::messages::heads::{
    Delete, DfAnswer, DfMount, Get, INLINE_MAX, List, ListAnswer, Modify, Pong, Put, Stat,
    Undelete, WINDOW,
};
use crate::messages::opcode::{Daemon, Opcode, Role, authorize};
use crate::store::mount::Staged;
use crate::store::options::Reserve;
use crate::store::read::ReadError;
use crate::store::reader::{Content as Found, FIRST_READ_MAX, Fast, Got};
use crate::store::tokens::Begin;
use bytes::Bytes;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Unsent bytes beyond which even an inline get takes a permit.
const OUT_FREE: usize = 32 << 10;
/// A buffer of more bytes is not kept for the next get.
const SCRATCH_KEEP: usize = 2 << 20;

thread_local! {
    /// Where inline gets of this thread read to.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Connection {
    pub(super) fn request(&mut self, tag: RequestTag, frame: Frame) {
        if self.session.role == Role::Client {
            let bytes = frame.payload().len() as u64;
            self.room.meter.bytes_in.fetch_add(bytes, Ordering::Relaxed);
        }
        if let Err(problem) = self.dispatch(tag, frame) {
            self.refuse(tag, &problem);
        }
    }

    fn dispatch(&mut self, tag: RequestTag, frame: Frame) -> Result<(), Problem> {
        let role = Some(self.session.role);
        let entry = authorize(tag.opcode, Daemon::Storage, role)
            .map_err(|(code, message)| Problem::new(code, message))?;
        if tag.id == 0 || self.uploads.contains_key(&tag.id) {
            return Err(Problem::new(
                ErrorCode::BadRequest,
                format!("the request id {} is 0 or in use", tag.id),
            ));
        }
        let room = Arc::clone(&self.room);
        let count = &room.counters;
        match entry.opcode {
            Opcode::Get => {
                count.gets.fetch_add(1, Ordering::Relaxed);
                self.get(tag, &StorageRoom::head(frame.head())?)
            }
            Opcode::Put => {
                count.puts.fetch_add(1, Ordering::Relaxed);
                let head: Put = StorageRoom::head(frame.head())?;
                self.put(tag, &head, frame)
            }
            Opcode::Modify => {
                count.modifies.fetch_add(1, Ordering::Relaxed);
                let head: Modify = StorageRoom::head(frame.head())?;
                self.modify(tag, head, frame)
            }
            Opcode::Delete => {
                count.deletes.fetch_add(1, Ordering::Relaxed);
                let head: Delete = StorageRoom::head(frame.head())?;
                let id = room.object(&head.id)?;
                if let Some(owner) = self.owner_of(&id, head.if_opver.is_some())? {
                    let (opcode, token) = (entry.opcode, head.token);
                    let edit = Edit { id, opcode, token, head, payload: Bytes::new() };
                    return self.forward(tag, owner, &edit);
                }
                let what = What::Delete { id, if_opver: head.if_opver };
                self.change(tag, head.token, &id, what)
            }
            Opcode::Undelete => {
                count.deletes.fetch_add(1, Ordering::Relaxed);
                let head: Undelete = StorageRoom::head(frame.head())?;
                let id = room.object(&head.id)?;
                if let Some(owner) = self.owner_of(&id, false)? {
                    let (opcode, token) = (entry.opcode, head.token);
                    let edit = Edit { id, opcode, token, head, payload: Bytes::new() };
                    return self.forward(tag, owner, &edit);
                }
                self.change(tag, head.token, &id, What::Undelete { id })
            }
            opcode @ (Opcode::Stat | Opcode::List | Opcode::Df | Opcode::Ping | Opcode::Info) => {
                count.others.fetch_add(1, Ordering::Relaxed);
                self.question(opcode, tag, &frame)
            }
            Opcode::SyncHello
            | Opcode::SyncPush
            | Opcode::SyncStatus
            | Opcode::SyncContent
            | Opcode::SyncOffer => self.of_peer(entry.opcode, tag, frame),
            Opcode::SyncChunkfiles
            | Opcode::SyncDigest
            | Opcode::SyncMarks
            | Opcode::SyncCopies
            | Opcode::SyncArchive
            | Opcode::SyncArchived
            | Opcode::SyncPull => self.of_puller(entry.opcode, tag, &frame),
            Opcode::Hello | Opcode::Auth | Opcode::View | Opcode::Route | Opcode::Heartbeat => {
                Err(Problem::new(ErrorCode::UnknownOpcode, "a storage does not serve this"))
            }
        }
    }

    fn question(&mut self, opcode: Opcode, tag: RequestTag, frame: &Frame) -> Result<(), Problem> {
        let meta = Meta::answer(tag.opcode, tag.id);
        match opcode {
            Opcode::Stat => {
                let head: Stat = StorageRoom::head(frame.head())?;
                let id = self.room.object(&head.id)?;
                let mount = Arc::clone(self.room.placement.mount(id.mount)?);
                let asks_others = self.asks_others(head.local_only);
                match self.hand_on(&mount, id, Ask::Stat, tag, None) {
                    Ok(job) => job.asking_others(asks_others).to_pool(),
                    Err(problem) if asks_others => {
                        let question = Question { id, ask: Ask::Stat, problem };
                        self.read_failed(tag, question, None)?;
                    }
                    Err(problem) => return Err(problem),
                }
            }
            Opcode::List => {
                let head: List = StorageRoom::head(frame.head())?;
                match ListJob::new(&self.room.placement, self.room.machine, &head)? {
                    Some(job) => {
                        let permit = self.permit(0)?;
                        self.in_hand += 1;
                        job.to_pool(Arc::clone(&self.outbox), tag, permit);
                    }
                    None => {
                        let nothing =
                            ListAnswer { items: Vec::new(), next: None, machines: Vec::new() };
                        self.out.push(encode_page(tag, &nothing)?.freeze());
                        self.done(tag, Done::default());
                    }
                }
            }
            Opcode::Df => {
                let mounts = self.room.placement.mounts();
                let answer = DfAnswer { mounts: mounts.iter().map(|m| space_of(m)).collect() };
                self.encode_copy(meta, &answer, b"", 0);
                self.done(tag, Done::default());
            }
            Opcode::Info => {
                let node = self.room.session.node.clone();
                self.encode_copy(meta, &node, b"", 0);
                self.done(tag, Done::default());
            }
            // Ping; no other opcode gets here.
            _other => {
                let server_time_ms = ambient::wall_ms();
                self.encode_copy(meta, &Pong { server_time_ms }, b"", 0);
                self.done(tag, Done::default());
            }
        }
        Ok(())
    }

    pub(super) fn permit(&self, bytes: u64) -> Result<Permit, Problem> {
        self.budget.take(bytes).ok_or_else(busy)
    }

    // --- reads ---

    fn get(&mut self, tag: RequestTag, head: &Get) -> Result<(), Problem> {
        let id = self.room.object(&head.id)?;
        let room = Arc::clone(&self.room);
        let mount = room.placement.mount(id.mount)?;
        let mut permit = None;
        let expected = id.home().capacity().min(FIRST_READ_MAX);
        if self.out.len() > OUT_FREE || expected > OUT_FREE as u64 {
            permit = Some(self.permit(expected)?);
        }
        let mut scratch = SCRATCH.take();
        let fast = mount.with_open(|open| open.shelf.get_fast(&id, &mut scratch));
        let result = fast.and_then(|fast| self.got(tag, head, id, mount, fast, &scratch, permit));
        if scratch.capacity() <= SCRATCH_KEEP {
            SCRATCH.set(scratch);
        }
        match result {
            Err(problem) if self.asks_others(head.local_only) => {
                self.read_failed(tag, Question { id, ask: ask_of(head), problem }, None)
            }
            result => result,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the second half of `get`")]
    fn got(
        &mut self,
        tag: RequestTag,
        head: &Get,
        id: ObjectId,
        mount: &Arc<SharedMount>,
        fast: Fast,
        scratch: &[u8],
        permit: Option<Permit>,
    ) -> Result<(), Problem> {
        let ask = ask_of(head);
        let asks_others = self.asks_others(head.local_only);
        match fast {
            Fast::Done(Got { home, content: Found::Buffer(at), .. }) => {
                let object = object_head(&home, head.first, head.last, head.min_opver)?;
                if object.count > INLINE_MAX as u64 {
                    self.hand_on(mount, id, ask, tag, permit)?.asking_others(asks_others).to_pool();
                    return Ok(());
                }
                let whole = &scratch[at];
                // The object is in memory, so offsets in it fit a usize.
                let from = usize::try_from(object.first).unwrap_or(usize::MAX).min(whole.len());
                let count = usize::try_from(object.count).unwrap_or(usize::MAX);
                let payload = &whole[from..from.saturating_add(count).min(whole.len())];
                let all = object.count == object.length;
                let crc = if all { object.crc32c } else { crc32c(payload) };
                self.encode_copy(Meta::answer(tag.opcode, tag.id), &object, payload, crc);
                self.done(tag, Done { object: Some(id), bytes: object.count, ..Done::default() });
                if let Some(permit) = permit {
                    self.out.hold(permit);
                }
            }
            Fast::Done(Got { content: Found::Single(_), .. }) | Fast::WouldBlock => {
                self.hand_on(mount, id, ask, tag, permit)?.asking_others(asks_others).to_pool();
            }
            Fast::Failed(ReadError::Unsettled(_)) => {
                let job = self.hand_on(mount, id, ask, tag, permit)?;
                job.asking_others(asks_others).to_chunk_file();
            }
            Fast::Failed(error) => {
                return Err(problems::of_object(&error, mount, &id));
            }
        }
        Ok(())
    }

    /// A read that leaves this thread, with its share of the budget.
    fn hand_on(
        &mut self,
        mount: &Arc<SharedMount>,
        id: ObjectId,
        ask: Ask,
        tag: RequestTag,
        permit: Option<Permit>,
    ) -> Result<GetJob, Problem> {
        let shelf = Arc::clone(&mount.open()?.shelf);
        let permit = match permit {
            Some(permit) => permit,
            None => self.permit(id.home().capacity().min(FIRST_READ_MAX))?,
        };
        self.in_hand += 1;
        let answer = (Arc::clone(&self.outbox), tag, permit);
        Ok(GetJob::new(Arc::clone(mount), shelf, id, ask, answer))
    }

    // --- mutations ---

    /// The reply of a mutation that may begin; `of`: the object that it changes, if there is one. `None`: it was answered
    /// already.
    fn begin(
        &mut self,
        tag: RequestTag,
        token: Token,
        bytes: u64,
        mount: &SharedMount,
        of: Option<&ObjectId>,
    ) -> Result<Option<Reply>, Problem> {
        self.room.check_writes()?;
        let permit = match self.large.take() {
            Some(permit) => permit,
            None => self.permit(bytes)?,
        };
        let tokens = Arc::clone(&self.room.tokens);
        match tokens.begin(&token) {
            Begin::Fresh => {
                mount.mirror.check_writes().inspect_err(|_| tokens.abandon(&token))?;
                self.in_hand += 1;
                let to = Arc::clone(&self.outbox);
                Ok(Some(Reply::new(to, tag, token, tokens, permit)))
            }
            Begin::Answered(answered) => {
                same_change(&answered, of)?;
                self.again(tag, &answered, permit)?;
                Ok(None)
            }
            Begin::InFlight => Err(in_flight()),
            Begin::TooOld => Err(Problem::new(
                ErrorCode::UnknownToken,
                "the token is too old to know whether it was executed; it was not executed now",
            )
            .remedy("look whether the change is there, then ask with a fresh token")),
        }
    }

    /// The change was done before: it is answered with the copies that it has now.
    pub(super) fn again(
        &mut self,
        tag: RequestTag,
        answered: &AnsweredToken,
        permit: Permit,
    ) -> Result<(), Problem> {
        let mount = self.room.placement.mount(answered.object.mount)?;
        let Some(binlog) = mount.registry.binlog() else { return Err(mount.out_of_service()) };
        let sequence = answered.tag.sequence;
        let staged = Staged { sequence, id: answered.object, tag: answered.tag };
        let (to, tokens) = (Arc::clone(&self.outbox), Arc::clone(&self.room.tokens));
        // Whatever becomes of this answer, the token stays answered.
        let mut reply = Reply::new(to, tag, Token::default(), tokens, permit);
        reply.begun();
        binlog.do_send(AnswerAgain(staged, reply));
        self.in_hand += 1;
        Ok(())
    }

    fn put(&mut self, tag: RequestTag, head: &Put, frame: Frame) -> Result<(), Problem> {
        let room = Arc::clone(&self.room);
        room.check_puts()?;
        let mount = room.placement.choose(head.mount, head.length.unwrap_or(0))?;
        let reserve = head.reserve.map(|reserve| match reserve {
            crate::messages::heads::Reserve::Percent(percent) => Reserve::Percent(percent),
            crate::messages::heads::Reserve::Bytes(bytes) => Reserve::Bytes(bytes),
        });
        let others = if head.mount.is_some() { 0 } else { room.placement.mounts().len() - 1 };
        let others = u8::try_from(others).unwrap_or(u8::MAX);
        let intent = Intent::Put { reserve, lane: mount.next_lane(), others };
        self.body(tag, head.token, head.length, mount, intent, frame)
    }

    fn modify(&mut self, tag: RequestTag, head: Modify, frame: Frame) -> Result<(), Problem> {
        let room = Arc::clone(&self.room);
        let id = room.object(&head.id)?;
        if let Some(owner) = self.owner_of(&id, head.if_opver.is_some())? {
            if frame.header.has(FLAG_STREAMED) {
                return Err(wrong_node(&owner));
            }
            let (opcode, token) = (Opcode::Modify, head.token);
            let edit = Edit { id, opcode, token, head, payload: frame.into_payload() };
            return self.forward(tag, owner, &edit);
        }
        let mount = room.placement.mount(id.mount)?;
        let intent = Intent::Modify { id, if_opver: head.if_opver };
        self.body(tag, head.token, head.length, mount, intent, frame)
    }

    /// A mutation with a body: in this frame, or in those that follow.
    fn body(
        &mut self,
        tag: RequestTag,
        token: Token,
        length: Option<u64>,
        mount: &Arc<SharedMount>,
        intent: Intent,
        frame: Frame,
    ) -> Result<(), Problem> {
        let threshold = self.room.threshold;
        let here = frame.payload().len() as u64;
        let streamed = frame.header.has(FLAG_STREAMED);
        if streamed && here > 0 || !streamed && length.is_some_and(|length| length != here) {
            return Err(Problem::new(
                ErrorCode::BadRequest,
                "the body is not as long as the head says, or stands in a streamed request",
            ));
        }
        if !mount.is_online() {
            mount.open()?;
        }
        if streamed && self.uploads.len() >= UPLOADS_MAX {
            return Err(Problem::new(
                ErrorCode::Busy,
                format!("{UPLOADS_MAX} bodies are on their way on this connection"),
            )
            .remedy("end one of them first, or use another connection"));
        }
        let needs = if streamed { Upload::memory(length, threshold) } else { here };
        let of = intent.object();
        let is_new = of.is_none();
        let Some(mut reply) = self.begin(tag, token, needs, mount, of)? else { return Ok(()) };
        if is_new {
            reply.coming(mount, length.unwrap_or(here));
        }
        let crc = frame.header.payload_crc;
        if !streamed && here <= threshold {
            let content = Content::Inline { bytes: frame.into_payload(), crc };
            intent.send(mount, content, reply);
            return Ok(());
        }
        let upload = Upload::new(Arc::clone(mount), intent, length, threshold, reply);
        if streamed {
            self.uploads.insert(tag.id, upload);
            self.watch_body();
            self.window(tag, WINDOW);
        } else {
            upload.whole(frame.into_payload(), crc, &self.outbox);
        }
        Ok(())
    }

    /// A mutation without a body.
    fn change(
        &mut self,
        tag: RequestTag,
        token: Token,
        id: &ObjectId,
        what: What,
    ) -> Result<(), Problem> {
        let room = Arc::clone(&self.room);
        let mount = room.placement.mount(id.mount)?;
        if !mount.is_online() {
            mount.open()?;
        }
        if let Some(reply) = self.begin(tag, token, 0, mount, Some(id))? {
            mount.send(id.home().address.chunkfile(), Task::Change(Change { what, reply }));
        }
        Ok(())
    }
}

const fn ask_of(head: &Get) -> Ask {
    let Get { first, last, min_opver, window, .. } = *head;
    Ask::Get { first, last, min_opver, window }
}

/// Bodies that one connection may stream at once, so that it does not hold everybody's budget.
const UPLOADS_MAX: usize = 32;

/// A token stands for one change: whoever uses it for another one is not told that this was done.
pub(super) fn same_change(answered: &AnsweredToken, of: Option<&ObjectId>) -> Result<(), Problem> {
    let created = answered.tag.position() == answered.object.creation();
    let same = match of {
        Some(id) => !created && answered.object == *id,
        None => created,
    };
    if same {
        return Ok(());
    }
    Err(Problem::new(
        ErrorCode::BadRequest,
        "the token was used before, for a change of another object or a put; nothing was done now",
    )
    .remedy("every change needs a token of its own: count `sequence` up"))
}

/// A retry came while the first attempt is at work.
pub(super) fn in_flight() -> Problem {
    Problem::new(ErrorCode::UnknownOutcome, "the same request is being executed")
        .remedy("ask again with the same token")
}

/// Space of a mount as `df` shows it.
fn space_of(mount: &SharedMount) -> DfMount {
    let (stats, published) = (mount.stats(), mount.published());
    let counters = &stats.counters;
    let dead = stats.hole_bytes + stats.waiting_bytes + counters.deleted_bytes;
    let in_chunks = stats.used_bytes.saturating_sub(dead);
    DfMount {
        index: mount.index,
        state: if published.state == MountState::Online && !mount.is_online() {
            MountState::Failed
        } else {
            published.state
        },
        why: published.why.clone(),
        total: stats.space.total,
        free: stats.space.free,
        reserved: mount.reserve_free(),
        live: in_chunks + counters.single_bytes,
        dead,
        chunkfiles: u32::try_from(stats.chunkfiles).unwrap_or(u32::MAX),
    }
}
