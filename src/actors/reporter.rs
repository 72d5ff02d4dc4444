//! A storage's line to one tracker: heartbeats out, cluster view in.
//!
//! One per tracker; they know nothing of each other, and no tracker's absence matters to the others or to serving.
//!
//! Invariants
//! - One heartbeat at a time, one connection; the pace is the tracker's (`interval_ms` of its answer).
//! - A lost connection is made again with jittered backoff, [`BACKOFF_MIN`] to [`BACKOFF_MAX`], for ever.
//! - Being refused (a duplicate machine id) ends nothing: it is logged when it begins and when it ends, stands in the
//!   status, and is tried again at the same pace.
//! - What is reported is asked for at the instant of sending, never stored.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{mpsc, oneshot, watch};

use super::ambient;
use super::caller::{CallError, Caller, Identity};
use crate::cluster::alike::clock_ahead;
use crate::cluster::view::{ClusterView, StorageReport};
use crate::messages::heads::{self, HeartbeatAnswer, Member, Uuid, ViewAnswer, encode_map};
use crate::messages::opcode::Opcode;

/// First pause before connecting again.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause before connecting again: a tracker that comes back is complete after this.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Pace until the tracker has said its own.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How long a tracker may take to answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// What a storage says now. Called on the control arbiter; must not block.
pub type ReportSource = Arc<dyn Fn() -> (StorageReport, heads::Heartbeat) + Send + Sync>;

/// How it stands with one tracker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Registration {
    /// Not yet.
    #[default]
    Connecting,
    /// In its cluster view.
    Registered,
    /// It answers and does not take us.
    Refused(String),
    /// It does not answer.
    Unreachable {
        /// Why.
        why: String,
        /// What mends that.
        remedy: &'static str,
    },
}

/// What is known from one tracker.
#[derive(Clone, Debug, Default)]
pub struct ReporterStatus {
    /// How it stands.
    pub registration: Registration,
    /// Members of our syncgroup that it knows.
    pub members: Vec<Member>,
    /// Its last view; stays when the tracker goes away.
    pub view: Option<Arc<ClusterView>>,
    /// How often a connection was made.
    pub connects: u64,
    /// By how much its clock is ahead of ours, milliseconds.
    pub clock_ahead_ms: i64,
}

/// Reports to one tracker.
pub struct Reporter {
    line: Option<Line>,
    at_work: Option<SpawnHandle>,
    now: mpsc::Sender<oneshot::Sender<bool>>,
}

impl Reporter {
    /// Reports to `tracker` (`HOST:PORT`). What comes back is found in the receiver.
    #[must_use]
    pub fn new(
        tracker: String,
        identity: Identity,
        source: ReportSource,
    ) -> (Self, watch::Receiver<ReporterStatus>) {
        let (status, seen) = watch::channel(ReporterStatus::default());
        let (now, asked) = mpsc::channel(16);
        let interval = INTERVAL;
        let line = Line { tracker, identity, source, status, asked, interval };
        (Self { line: Some(line), at_work: None, now }, seen)
    }
}

impl Actor for Reporter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // Started once only: a tracker that is away is a state, not an end (R5).
        if let Some(line) = self.line.take() {
            self.at_work = Some(ctx.spawn(line.run().into_actor(self)));
        }
    }
}

/// Falls silent: closes the connection and ends.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopReporting;

impl Handler<StopReporting> for Reporter {
    type Result = ();

    fn handle(&mut self, _: StopReporting, ctx: &mut Context<Self>) {
        if let Some(at_work) = self.at_work.take() {
            ctx.cancel_future(at_work);
        }
        ctx.stop();
    }
}

/// Report at once, without waiting for the next interval (a mount failed, the storage is about to stop). The answer
/// says whether the tracker took it; `false` also while there is no connection.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct ReportNow;

impl Handler<ReportNow> for Reporter {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, _: ReportNow, _: &mut Context<Self>) -> ResponseFuture<bool> {
        let (answer, answered) = oneshot::channel();
        // Full: so many wait for a report already that one will be made.
        let queued = self.now.try_send(answer).is_ok();
        Box::pin(async move { queued && answered.await.unwrap_or(false) })
    }
}

/// The loop and all that it owns.
struct Line {
    tracker: String,
    identity: Identity,
    source: ReportSource,
    status: watch::Sender<ReporterStatus>,
    asked: mpsc::Receiver<oneshot::Sender<bool>>,
    interval: Duration,
}

impl Line {
    async fn run(mut self) {
        let mut failures: u32 = 0;
        loop {
            let error = match Caller::connect(&self.tracker, &self.identity, ANSWER_LIMIT).await {
                Ok(caller) => {
                    self.status.send_modify(|status| status.connects += 1);
                    let (error, answered) = self.report_until_it_breaks(caller).await;
                    if answered {
                        failures = 0;
                    }
                    error
                }
                Err(error) => error,
            };
            self.note_failure(&error);
            let pause = backoff(failures, ambient::random().map_or(0, u64::from_le_bytes));
            failures = failures.saturating_add(1);
            self.pause(pause).await;
        }
    }

    /// Waits, answering "no" to whoever wants a report meanwhile.
    async fn pause(&mut self, pause: Duration) {
        let end = tokio::time::sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                Some(asker) = self.asked.recv() => {
                    // Who asked may have gone.
                    asker.send(false).unwrap_or_default();
                }
            }
        }
    }

    /// Heartbeats on one connection. Whether there was an answer at all comes with the error.
    async fn report_until_it_breaks(&mut self, mut caller: Caller) -> (CallError, bool) {
        let mut waiting: Vec<oneshot::Sender<bool>> = Vec::new();
        let mut answered = false;
        loop {
            match self.beat(&mut caller).await {
                Ok(taken) => {
                    answered = true;
                    for asker in waiting.drain(..) {
                        asker.send(taken).unwrap_or_default();
                    }
                }
                Err(error) => return (error, answered),
            }
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                Some(asker) = self.asked.recv() => waiting.push(asker),
            }
        }
    }

    /// One heartbeat, and the view if it has changed. Whether the tracker took us.
    async fn beat(&mut self, caller: &mut Caller) -> Result<bool, CallError> {
        let (report, head) = (self.source)();
        let payload = encode_map(&report).map_err(|error| CallError::Nonsense {
            address: "this storage".to_owned(),
            what: error.to_string(),
        })?;
        let frame = caller.call(Opcode::Heartbeat, &head, &payload, ANSWER_LIMIT).await?;
        let answer: HeartbeatAnswer = caller.read(&frame)?;
        if answer.interval_ms != 0 {
            self.interval = Duration::from_millis(answer.interval_ms.into());
        }
        if answer.accepted {
            self.fetch_view(caller).await?;
        }
        let taken = answer.accepted;
        self.note_answer(answer);
        Ok(taken)
    }

    async fn fetch_view(&self, caller: &mut Caller) -> Result<(), CallError> {
        let known = self.status.borrow().view.clone();
        let head = heads::View {
            known_epoch: known.as_ref().map_or(0, |view| view.epoch),
            known_tracker: Uuid::new(known.as_ref().map_or([0; 16], |view| view.tracker)),
        };
        let frame = caller.call(Opcode::View, &head, b"", ANSWER_LIMIT).await?;
        let answer: ViewAnswer = caller.read(&frame)?;
        if answer.changed {
            let view: ClusterView = caller.read_payload(&frame)?;
            self.status.send_modify(|status| status.view = Some(Arc::new(view)));
        }
        Ok(())
    }

    fn note_answer(&self, answer: HeartbeatAnswer) {
        let tracker = &self.tracker;
        let now = if answer.accepted {
            Registration::Registered
        } else {
            Registration::Refused(answer.why.clone())
        };
        let before = self.status.borrow().registration.clone();
        match (&before, &now) {
            (Registration::Registered, Registration::Registered)
            | (Registration::Refused(_), Registration::Refused(_)) => {}
            (_, Registration::Refused(why)) => {
                tracing::error!(tracker, "the tracker REFUSES this storage, trying on: {why}");
            }
            (_, _) => tracing::info!(tracker, "registered"),
        }
        self.status.send_modify(|status| {
            status.registration = now;
            status.members = answer.members;
            status.clock_ahead_ms = clock_ahead(ambient::wall_ms(), answer.clock_ms);
        });
    }

    fn note_failure(&self, error: &CallError) {
        let why = error.to_string();
        let before = self.status.borrow().registration.clone();
        let now = Registration::Unreachable { why: why.clone(), remedy: error.remedy() };
        if before != now {
            tracing::warn!(
                tracker = self.tracker,
                "no connection to the tracker, trying on: {why}"
            );
        }
        self.status.send_modify(|status| status.registration = now);
    }
}

/// Pause before attempt `failures + 1`: doubling, between half and all of it by chance.
fn backoff(failures: u32, chance: u64) -> Duration {
    let whole = BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
    let half = whole / 2;
    let span = u64::try_from(half.as_nanos()).unwrap_or(0);
    half + Duration::from_nanos(chance.checked_rem(span).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_bound_and_never_to_nothing() {
        for chance in [0, 1, u64::MAX / 3, u64::MAX] {
            for failures in 0..100 {
                let pause = backoff(failures, chance);
                assert!(pause >= BACKOFF_MIN / 2 && pause <= BACKOFF_MAX, "{failures} {pause:?}");
            }
            assert!(backoff(50, chance) >= BACKOFF_MAX / 2);
        }
    }
}
