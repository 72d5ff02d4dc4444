//! One mount's log on its way to one mirror: meet, send from where the mirror has it, keep a window in flight, count what
//! comes back.
//!
//! Invariants: what is in flight stays within the window and in the order of the log; an answer that is not "covered"
//! empties the pipe, and sending begins again from what the mirror says it has; *live* is said when the mirror had everything
//! that was there when it connected, and lacks nothing older than [`LATE`] since.

use super::session::Session;
use super::{Need, backoff};
use crate::actors::ambient;
use crate::actors::binlog::{PeerAcked, PeerReport};
use crate::actors::caller::CallError;
use crate::actors::incoming_slice::outcome;
use crate::actors::mirror::Tail;
use crate::actors::mount_mirror::Meeting;
use crate::actors::peer_link::{Answer, Link};
use crate::actors::peer_requests::{forgotten, hello, meet, member, push_head};
use crate::actors::peers::{PeerMount, SyncState};
use crate::actors::shared_mount::SharedMount;
use crate::cluster::acks::PATIENCE_MS;
use crate::cluster::reuse::MemberReport;
use crate::cluster::view::MountState;
use crate::format::ids::Sequence;
use crate::messages::error::ErrorCode;
use crate::messages::heads::{self, SyncHello, SyncPushed};
use crate::messages::opcode::Opcode;
use crate::store::forget::FORGOTTEN;
use crate::store::log_reader::{LogCursor, LogRead};
use crate::store::read::ReadError;
use crate::store::sync::{LogName, LogSlice, Received};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Bytes of records that are read and sent at once.
pub const SLICE_BYTES: usize = 1 << 20;
/// More chunkfiles than this do not fit the head of a push.
const CHUNKFILES_MAX: usize = 512;
/// How long a mirror may take to say hello: it waits for its disk.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// A mirror that lacks something older than this is catching up.
const LATE: Duration = Duration::from_millis(PATIENCE_MS);
/// Pause before a busy mirror is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// A mirror whose coverage does not move after so many refusals is left alone for a while; being busy is no refusal.
const REFUSALS_MAX: u32 = 5;

/// Why feeding stopped; it begins again after a pause.
pub enum Stop {
    /// Something failed, at our end or theirs.
    Failed(SyncState, String),
    /// The log no longer holds what the mirror lacks.
    NeedsState(Need),
    /// The connection broke: the whole line begins again.
    Broken,
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Self {
        match &error {
            CallError::Refused { problem, .. } => {
                let state = match problem.code {
                    ErrorCode::Fenced | ErrorCode::WrongNode => SyncState::Away,
                    _other => SyncState::Disconnected,
                };
                Self::Failed(state, error.to_string())
            }
            CallError::Nonsense { .. } | CallError::Timeout(_) => {
                Self::Failed(SyncState::Disconnected, error.to_string())
            }
            CallError::Connect { .. } | CallError::Handshake { .. } | CallError::Broken { .. } => {
                Self::Broken
            }
        }
    }
}

/// Feeds one mount of the mirror for as long as the connection lives.
pub async fn run(
    session: Arc<Session>,
    link: Arc<Link>,
    mount: Arc<SharedMount>,
    known: Arc<PeerMount>,
) {
    let mut feed = Feed { session, link, mount, known, live: false, refilling: false, failures: 0 };
    loop {
        let stop = match feed.introduce().await {
            Ok((log, covered)) => match feed.push(log, covered).await {
                Ok(never) => match never {},
                Err(stop) => stop,
            },
            Err(stop) => stop,
        };
        feed.say(false, None);
        let pause = feed.pause(stop).await;
        feed.rest(pause).await;
    }
}

/// What comes of one thing that happened.
enum Step {
    /// It goes on.
    On,
    /// The mirror has no room at this moment: sending begins again from what it had.
    Busy,
    /// The mirror took nothing more: sending begins again from what it has.
    Again(Sequence),
}

/// Something that does not happen.
enum Never {}

pub struct Feed {
    session: Arc<Session>,
    link: Arc<Link>,
    mount: Arc<SharedMount>,
    known: Arc<PeerMount>,
    live: bool,
    /// The mirror was being refilled when it was judged.
    refilling: bool,
    failures: u32,
}

impl Feed {
    /// Notes why feeding stopped, does what can be done about it, and says how long to wait.
    async fn pause(&mut self, stop: Stop) -> Duration {
        let config = &self.session.config;
        self.failures = self.failures.saturating_add(1);
        match stop {
            Stop::Failed(state, why) => {
                if self.known.error().as_str() != why {
                    let (peer, mount) = (self.session.peer.machine, self.mount.index);
                    tracing::warn!(peer, mount, why, "a mirror's mount cannot be fed, trying on");
                }
                self.known.failed(state, &why);
            }
            Stop::NeedsState(need) => {
                let why = "our log no longer holds what it lacks: that comes by state";
                self.known.failed(SyncState::NeedsState, why);
                if let Some(mender) = &config.mender {
                    match mender(need).await {
                        Ok(()) => self.failures = 0,
                        Err(why) => self.known.failed(SyncState::NeedsState, &why),
                    }
                }
            }
            Stop::Broken => self.link.closed().await,
        }
        let chance = ambient::random().map_or(0, u64::from_le_bytes);
        backoff(self.failures, config.retry_min, config.retry_max, chance)
    }

    /// Waits, unless the mirror's mount comes back before.
    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Never in a tight circle, whatever it says.
            () = self.known.came_back() => tokio::time::sleep(self.session.config.retry_min).await,
        }
    }

    /// The two mounts meet. Our log, and what the mirror has of it.
    async fn introduce(&mut self) -> Result<(LogName, Sequence), Stop> {
        self.known.set_state(SyncState::Handshake);
        let mut tail = self.mount.mirror.tail();
        if tail.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
        let ours = |why: String| Stop::Failed(SyncState::Disconnected, why);
        let presence =
            meet(&self.mount, Meeting::default()).await.map_err(|problem| ours(problem.message))?;
        let (group, syncgroup) = &self.session.config.names;
        let head = hello(group, syncgroup, &self.mount, &presence);
        let answer = self.link.call(Opcode::SyncHello, &head, Bytes::new(), HELLO_LIMIT).await;
        if let Err(CallError::Refused { problem, .. }) = &answer
            && problem.code == ErrorCode::Forgotten
        {
            // What we have may be wrong by now: nobody is served from it, and nothing is written to it.
            self.mount.fence(format!("{FORGOTTEN}: {}", problem.remedy));
        }
        let frame = answer?;
        let theirs: SyncHello =
            heads::decode(frame.head()).map_err(|error| ours(error.to_string()))?;
        let machine = self.session.peer.machine;
        if theirs.this.machine != machine || theirs.mount != self.mount.index {
            return Err(ours("it speaks for somebody else".to_owned()));
        }
        self.known.set_refilling(theirs.state == MountState::Recovering);
        if !matches!(theirs.state, MountState::Online | MountState::Recovering) {
            return Err(Stop::Failed(SyncState::Away, format!("its mount is {}", theirs.state)));
        }
        let sound = |problem: crate::actors::session::Problem| ours(problem.message);
        let from = member(&theirs.this).map_err(sound)?;
        let others =
            theirs.members.iter().map(member).collect::<Result<Vec<_>, _>>().map_err(sound)?;
        let log = LogName { machine: presence.this.machine, log_id: presence.log_id };
        let knows_us = others
            .iter()
            .any(|member| member.machine == log.machine && member.log_ids.contains(&log.log_id));
        let forgotten = theirs.forgotten.iter().map(forgotten).collect();
        meet(&self.mount, Meeting { from: Some(from), others, forgotten, join: false })
            .await
            .map_err(sound)?;
        let covered = log.covered_by(&theirs.coverage);
        self.known.set_away(false);
        self.known.set_coverage(theirs.coverage.clone());
        if let Some(binlog) = self.mount.registry.binlog() {
            let report = MemberReport { coverage: theirs.coverage, tails: theirs.tails };
            let refilling = self.known.is_refilling();
            binlog.do_send(PeerReport { machine, report, refilling });
        }
        self.known.set_introduced(knows_us);
        Ok((log, covered))
    }

    /// Tells whoever waits for copies.
    fn say(&mut self, live: bool, acked: Option<Sequence>) {
        self.live = live;
        // What a mount has that is being refilled is no copy yet.
        let acked = acked.filter(|_| !self.known.is_refilling());
        if let Some(binlog) = self.mount.registry.binlog() {
            let machine = self.session.peer.machine;
            binlog.do_send(PeerAcked { machine, live, acked });
        }
    }

    /// Sends, until something stops it.
    async fn push(&mut self, log: LogName, covered: Sequence) -> Result<Never, Stop> {
        self.known.set_state(SyncState::CatchingUp);
        self.known.set_acked(covered);
        self.say(false, Some(covered));
        let mut tail = self.mount.mirror.tail();
        let goal = own_tail(&mut tail, log)?;
        let mut pipe = Pipe::new(log, covered, goal);
        let (mut refused, mut refusals) = (covered, 0);
        loop {
            let now = own_tail(&mut tail, log)?;
            self.judge(&mut pipe, now);
            // With an empty pipe, sending begins again from what the mirror has.
            match self.step(&mut pipe, now, &mut tail).await? {
                Step::On => {}
                Step::Busy => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                    pipe = Pipe::new(log, pipe.acked, now);
                }
                Step::Again(covered) => {
                    refusals = if covered == refused { refusals + 1 } else { 0 };
                    refused = covered;
                    if refusals >= REFUSALS_MAX {
                        let why = format!("it does not take our log behind {covered:x}");
                        return Err(Stop::Failed(SyncState::CatchingUp, why));
                    }
                    pipe = Pipe::new(log, covered, now);
                }
            }
        }
    }

    /// Says whether the mirror is live.
    fn judge(&mut self, pipe: &mut Pipe, tail: Sequence) {
        let behind = self.mount.mirror.behind(pipe.acked);
        let idle = pipe.flight.is_empty() && pipe.reading.is_none();
        let everything = pipe.acked >= tail || (idle && pipe.read_to >= tail);
        let late = u128::from(behind.ms) >= LATE.as_millis();
        self.refilling = self.known.is_refilling();
        if self.refilling {
            if self.live {
                self.known.set_state(SyncState::CatchingUp);
                self.say(false, None);
            }
        } else if everything
            || (pipe.acked >= pipe.goal && u128::from(behind.ms) * 2 < LATE.as_millis())
        {
            if !self.live {
                self.failures = 0;
                self.known.set_state(SyncState::Live);
                self.say(true, Some(pipe.acked));
            }
        } else if self.live && late {
            pipe.goal = tail;
            self.known.set_state(SyncState::CatchingUp);
            self.say(false, Some(pipe.acked));
        }
    }

    /// One thing that happens. Unless it goes on, the pipe is empty.
    async fn step(
        &mut self,
        pipe: &mut Pipe,
        tail: Sequence,
        tails: &mut watch::Receiver<Option<Tail>>,
    ) -> Result<Step, Stop> {
        let window = self.session.config.window_bytes;
        if pipe.reading.is_none() && pipe.bytes < window && pipe.read_to < tail {
            self.read(pipe, tail)?;
        }
        tokio::select! {
            biased;
            answer = next_answer(&mut pipe.flight) => {
                let Some((to, bytes, answer)) = answer else { return Ok(Step::On) };
                pipe.bytes -= bytes;
                let step = self.answered(answer).await?;
                if let Step::On = step {
                    pipe.acked = pipe.acked.max(to);
                    self.known.set_acked(pipe.acked);
                    let live = self.live;
                    self.say(live, Some(pipe.acked));
                } else {
                    pipe.drain().await;
                }
                Ok(step)
            }
            read = next_read(&mut pipe.reading) => {
                pipe.reading = None;
                let Some((cursor, read)) = read else { return Err(closing()) };
                self.send(pipe, cursor, read, tail).await
            }
            changed = tails.changed() => match changed {
                Ok(()) => Ok(Step::On),
                Err(_) => Err(closing()),
            },
            () = self.known.went_away() => {
                Err(Stop::Failed(SyncState::Away, "its mount is out of service".to_owned()))
            }
            () = self.known.is_refilled(), if self.refilling => Ok(Step::On),
            () = tokio::time::sleep(LATE / 2), if self.live && !pipe.flight.is_empty() => Ok(Step::On),
        }
    }

    fn read(&self, pipe: &mut Pipe, up_to: Sequence) -> Result<(), Stop> {
        let Some(cursor) = pipe.cursor.take() else { return Ok(()) };
        // A small window is not overrun by a large slice.
        let window = usize::try_from(self.session.config.window_bytes).unwrap_or(SLICE_BYTES);
        pipe.reading = Some(start_read(&self.mount, cursor, up_to, SLICE_BYTES.min(window))?);
        Ok(())
    }

    async fn send(
        &mut self,
        pipe: &mut Pipe,
        cursor: LogCursor,
        read: Result<LogRead, ReadError>,
        tail: Sequence,
    ) -> Result<Step, Stop> {
        let (log, has) = (pipe.log, pipe.read_to);
        let need = |from| Need {
            machine: self.session.peer.machine,
            mount: self.mount.index,
            log,
            has,
            from,
        };
        match read {
            Ok(LogRead::Slice(slice)) => {
                let (to, bytes) = (slice.to, slice.records.len() as u64);
                pipe.cursor = Some(cursor);
                pipe.read_to = to;
                let answer = start_push(&self.link, &self.mount, slice)?;
                self.known.count_sent(bytes);
                pipe.flight.push_back((to, bytes, answer));
                pipe.bytes += bytes;
                Ok(Step::On)
            }
            Ok(LogRead::End) => {
                pipe.cursor = Some(cursor);
                pipe.read_to = tail;
                Ok(Step::On)
            }
            Ok(LogRead::Gone { oldest }) => Err(Stop::NeedsState(need(oldest))),
            Ok(LogRead::Damaged { before, .. }) => Err(Stop::NeedsState(need(before))),
            Err(ReadError::Unsettled(_)) => {
                tokio::time::sleep(BUSY_PAUSE).await;
                pipe.cursor = Some(cursor);
                Ok(Step::On)
            }
            Err(error) => {
                Err(Stop::Failed(SyncState::CatchingUp, format!("our log cannot be read: {error}")))
            }
        }
    }

    async fn answered(&mut self, answer: Result<Received, CallError>) -> Result<Step, Stop> {
        match answer {
            Ok(Received::Covered(_)) => Ok(Step::On),
            Ok(Received::Gap(covered)) => Ok(Step::Again(covered)),
            Ok(Received::NeedsContent { covered, content, length }) => {
                self.known.set_state(SyncState::CatchingUp);
                self.say(false, Some(covered));
                let (table, index) = (&self.session.config.table, self.mount.index);
                let offered =
                    table.offers.offer(&self.session.peer, table.us, index, content, length).await;
                offered.map_err(|why| {
                    let why = format!("a large object does not get there: {why}");
                    Stop::Failed(SyncState::CatchingUp, why)
                })?;
                Ok(Step::Again(covered))
            }
            Ok(Received::Broken(why)) => Err(Stop::Failed(
                SyncState::CatchingUp,
                format!("it cannot take our records: {why}"),
            )),
            Err(CallError::Refused { problem, .. }) if problem.code == ErrorCode::Busy => {
                Ok(Step::Busy)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What is on its way.
struct Pipe {
    log: LogName,
    cursor: Option<LogCursor>,
    reading: Option<Reading>,
    /// Up to where, how many bytes, and what comes back.
    flight: VecDeque<(Sequence, u64, Answer)>,
    bytes: u64,
    read_to: Sequence,
    acked: Sequence,
    /// Where our log ended when this began.
    goal: Sequence,
}

impl Pipe {
    fn new(log: LogName, covered: Sequence, goal: Sequence) -> Self {
        Self {
            log,
            cursor: Some(LogCursor::new(true, log, covered)),
            reading: None,
            flight: VecDeque::new(),
            bytes: 0,
            read_to: covered,
            acked: covered,
            goal,
        }
    }

    /// Lets everything that is on its way arrive.
    async fn drain(&mut self) {
        for (.., answer) in self.flight.drain(..) {
            // It was refused like the one before it, or is sent again.
            answer.await.map(drop).unwrap_or_default();
        }
        self.bytes = 0;
    }
}

/// A read of the log on the pool.
pub type Reading = oneshot::Receiver<(LogCursor, Result<LogRead, ReadError>)>;

/// Has the pool read on.
pub fn start_read(
    mount: &SharedMount,
    mut cursor: LogCursor,
    up_to: Sequence,
    max_bytes: usize,
) -> Result<Reading, Stop> {
    let shelf = Arc::clone(&mount.open().map_err(|_| closing())?.shelf);
    let (tell, hear) = oneshot::channel();
    mount.pool.run(Box::new(move || {
        let read = shelf.read_log(&mut cursor, up_to, max_bytes);
        // The line may be gone.
        tell.send((cursor, read)).map_err(drop).unwrap_or_default();
    }));
    Ok(hear)
}

/// Sends a slice; the answer comes later.
pub fn start_push(link: &Link, mount: &SharedMount, slice: LogSlice) -> Result<Answer, Stop> {
    if slice.chunkfiles.len() > CHUNKFILES_MAX {
        let why = format!("{} chunkfiles in one slice are too many", slice.chunkfiles.len());
        return Err(Stop::Failed(SyncState::CatchingUp, why));
    }
    let head = push_head(mount.index, &slice);
    Ok(link.start(Opcode::SyncPush, &head, slice.records)?)
}

/// What the mirror said.
pub fn received(frame: &crate::messages::frame::Frame, to: &str) -> Result<Received, CallError> {
    let nonsense = |what: String| CallError::Nonsense { address: to.to_owned(), what };
    let head: SyncPushed =
        heads::decode(frame.head()).map_err(|error| nonsense(error.to_string()))?;
    outcome(head).map_err(nonsense)
}

/// The oldest answer; waits for ever if nothing is on its way. It is taken out only when it is there.
async fn next_answer(
    flight: &mut VecDeque<(Sequence, u64, Answer)>,
) -> Option<(Sequence, u64, Result<Received, CallError>)> {
    let Some((.., answer)) = flight.front_mut() else { return std::future::pending().await };
    let answer = answer.await.and_then(|frame| received(&frame, "the mirror"));
    let (to, bytes, _) = flight.pop_front()?;
    Some((to, bytes, answer))
}

async fn next_read(
    reading: &mut Option<Reading>,
) -> Option<(LogCursor, Result<LogRead, ReadError>)> {
    match reading {
        Some(reading) => reading.await.ok(),
        None => std::future::pending().await,
    }
}

/// How far our log goes, if it is still the same.
fn own_tail(tail: &mut watch::Receiver<Option<Tail>>, log: LogName) -> Result<Sequence, Stop> {
    match *tail.borrow_and_update() {
        Some(tail) if tail.log == log => Ok(tail.sequence),
        Some(_) | None => Err(closing()),
    }
}

fn closing() -> Stop {
    Stop::Failed(SyncState::Disconnected, "our own mount is not in service".to_owned())
}
