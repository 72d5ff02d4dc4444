//! From a request to its result: route, attempt, fall back, wait a little, try again, until the deadline.
//!
//! Invariants:
//! - A mutation keeps its token through all attempts (R2). Once an attempt may have been executed, only an answer
//!   ends the doubt: else the result is `UnknownOutcome`, never "failed".
//! - A put that may have been executed is first tried again where it was; then at the mirrors of that machine, which
//!   know its token if the change reached them; only when all of them stay away for half of the time is it stored
//!   elsewhere (which may leave one object without a reference, never two ids).
//! - A body that cannot be read again is not sent again.

use super::connection::Connection;
use super::error::{Error, Failure, Left, Result};
use super::pool::Pool;
use super::random;
use super::views::Views;
use crate::cluster::routing::{NoRoute, Route};
use crate::cluster::view::ClusterView;
use crate::format::ids::MachineId;
use crate::messages::error::{ErrorCode, Retry};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// First pause between two rounds; doubles.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How long a cluster view that names nobody is doubted: a heartbeat may be on its way. If the view has been the same
/// for so long already, not at all.
const SETTLE: Duration = Duration::from_secs(3);
/// A put in doubt goes to the mirrors of the machine that is silent for so long: by then they have what it had sent them.
const MIRRORS_AFTER: Duration = Duration::from_millis(300);
/// How often a fresh token is taken before the clock of the storage is given up on.
const RENEWALS_MAX: u32 = 3;

/// A storage to go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    pub(super) group: String,
    pub(super) syncgroup: String,
    pub(super) machine: MachineId,
    pub(super) address: String,
}

impl Goal {
    /// The targets of a route, in order.
    pub(super) fn of_route(group: &str, route: &Route) -> Vec<Self> {
        route
            .targets()
            .map(|target| Self {
                group: group.to_owned(),
                syncgroup: target.syncgroup.clone(),
                machine: target.machine,
                address: target.advertise.clone(),
            })
            .collect()
    }

    fn is(&self, connection: &Connection) -> bool {
        let identity = &connection.identity;
        identity.group == self.group
            && identity.syncgroup == self.syncgroup
            && identity.machine == self.machine
    }
}

/// Nowhere to go, and how long that is doubted.
#[derive(Debug)]
pub(super) struct Nowhere {
    pub(super) error: Error,
    pub(super) doubt: Duration,
}

impl From<NoRoute> for Nowhere {
    fn from(no_route: NoRoute) -> Self {
        let (code, doubt, remedy) = match &no_route {
            NoRoute::NoStorages => {
                (ErrorCode::Unavailable, Duration::MAX, "start a storage, or wait for it")
            }
            NoRoute::GroupNeeded { .. } => (ErrorCode::Usage, Duration::ZERO, ""),
            NoRoute::UnknownGroup { .. } => (
                ErrorCode::UnknownGroup,
                SETTLE,
                "check the name; a group is known once a storage of it runs",
            ),
            NoRoute::UnknownSyncgroup { .. } => (
                ErrorCode::Unavailable,
                SETTLE,
                "check that this is the cluster of the id, and that its storages run",
            ),
            NoRoute::NotWritable { .. } => {
                (ErrorCode::Unavailable, SETTLE, "see what the trackers' consoles say of it")
            }
            NoRoute::Full { .. } => {
                (ErrorCode::NoSpace, SETTLE, "make room, or add a mount or a storage")
            }
            NoRoute::AllDown { .. } => {
                (ErrorCode::Unavailable, SETTLE, "start the storage again, or mend its mount")
            }
        };
        Self { error: Error::new(code, no_route.to_string()).remedy(remedy), doubt }
    }
}

/// One kind of request.
pub(super) trait Operation: Send {
    /// What it gives.
    type Output: Send;

    /// Where to go, in this order.
    fn goals(&mut self, view: &ClusterView) -> std::result::Result<Vec<Goal>, Nowhere>;

    /// One attempt.
    fn attempt(
        &mut self,
        connection: &Arc<Connection>,
        goal: &Goal,
        deadline: Instant,
    ) -> impl Future<Output = std::result::Result<Self::Output, Failure>> + Send;

    /// What it is.
    fn nature(&self) -> Nature;

    /// Whether another attempt is possible.
    fn replayable(&self) -> bool {
        true
    }

    /// Takes a fresh issue time for the token.
    fn renew(&mut self) {}
}

/// How an operation bears failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// Changes nothing.
    Read,
    /// Changes nothing, and one machine that is not there is an answer.
    ReadOnce,
    /// Changes an object that exists.
    Edit,
    /// Makes an object, anywhere.
    Create,
}

impl Nature {
    const fn mutation(self) -> bool {
        matches!(self, Self::Edit | Self::Create)
    }
}

/// What all operations need.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) pool: Arc<Pool>,
    pub(super) views: Arc<Views>,
    pub(super) timeout: Duration,
}

/// What has happened so far.
#[derive(Debug, Default)]
struct Story {
    /// An attempt may have been executed.
    doubt: bool,
    /// Where and since when, for a put.
    stuck: Option<(Goal, Instant)>,
    last: Option<Error>,
    renewals: u32,
    /// All goals of the round answered, and nothing that a pause would change.
    settled: bool,
    /// The round has other goals, who may soon do what this one cannot.
    shared: bool,
}

/// What follows from a failed attempt.
#[derive(Debug)]
enum Then {
    /// The next goal.
    Next,
    /// The same goal at once.
    Again,
    /// A pause, then a new round.
    Pause,
    /// That was it.
    Stop(Error),
}

impl Driver {
    /// Runs an operation to its result.
    pub(super) async fn run<O: Operation>(&self, mut operation: O) -> Result<O::Output> {
        let start = Instant::now();
        let deadline = start + self.timeout;
        let mut story = Story::default();
        let mut pause = PAUSE_MIN;
        loop {
            let view = match self.views.current() {
                Some(view) => view,
                None => self.views.refresh(false, deadline).await?,
            };
            match operation.goals(&view) {
                Ok(goals) => {
                    let now = Instant::now();
                    let others = goals.len() > 1;
                    let goals = story.narrow(goals, now, start + self.timeout / 2);
                    // Who is asked alone only for a while gets no more of the time than that: it may be frozen.
                    let last = story.alone_until().filter(|until| others && now < *until);
                    let last = last.map_or(deadline, |until| until.min(deadline));
                    match self.round(&mut operation, &goals, &mut story, last).await {
                        Ok(Some(output)) => return Ok(output),
                        Ok(None) => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(nowhere) if start.elapsed().max(self.views.steady()) >= nowhere.doubt => {
                    return Err(story.end(operation.nature(), Some(nowhere.error)));
                }
                Err(nowhere) => story.last = Some(nowhere.error),
            }
            if Instant::now() + pause >= deadline {
                return Err(story.end(operation.nature(), None));
            }
            sleep_until(Instant::now() + pause / 2 + jitter(pause / 2)).await;
            pause = (pause * 2).min(PAUSE_MAX);
            // Without a tracker the known view has to do.
            drop(self.views.refresh(true, deadline).await);
        }
    }

    /// Tries each goal once.
    async fn round<O: Operation>(
        &self,
        operation: &mut O,
        goals: &[Goal],
        story: &mut Story,
        deadline: Instant,
    ) -> Result<Option<O::Output>> {
        story.settled = !goals.is_empty();
        story.shared = goals.len() > 1;
        for (index, goal) in goals.iter().enumerate() {
            let now = Instant::now();
            // A silent machine must not use up the time of those behind it.
            let share = if index + 1 < goals.len() {
                now + deadline.saturating_duration_since(now) / 2
            } else {
                deadline
            };
            loop {
                let failure = match self.attempt(operation, goal, share).await {
                    Ok(output) => return Ok(Some(output)),
                    Err(failure) => failure,
                };
                match story.judge(failure, operation, goal) {
                    Then::Next => break,
                    Then::Again => {}
                    Then::Pause => return Ok(None),
                    Then::Stop(error) => return Err(error),
                }
            }
        }
        let nature = operation.nature();
        if story.settled || nature == Nature::ReadOnce {
            return Err(story.end(nature, None));
        }
        Ok(None)
    }

    async fn attempt<O: Operation>(
        &self,
        operation: &mut O,
        goal: &Goal,
        deadline: Instant,
    ) -> std::result::Result<O::Output, Failure> {
        let connection = self.pool.get(&goal.address, deadline).await.map_err(|mut failure| {
            failure.error.node = Some(format!(
                "machine {} of {}/{} at {}",
                goal.machine, goal.group, goal.syncgroup, goal.address
            ));
            failure
        })?;
        if !goal.is(&connection) {
            let error = Error::new(
                ErrorCode::WrongNode,
                format!(
                    "another node answers in place of {}/{} machine {}",
                    goal.group, goal.syncgroup, goal.machine
                ),
            );
            return Err(Failure::nothing(error.at(connection.node())));
        }
        operation.attempt(&connection, goal, deadline).await
    }
}

impl Story {
    /// A put that may have been stored stays where it was for a while, and among its mirrors until `until`.
    fn narrow(&self, goals: Vec<Goal>, now: Instant, until: Instant) -> Vec<Goal> {
        let Some((stuck, _)) = &self.stuck else { return goals };
        if self.alone_until().is_some_and(|until| now < until) {
            return vec![stuck.clone()];
        }
        let home = (&stuck.group, &stuck.syncgroup);
        let others = goals.into_iter().filter(|goal| goal != stuck);
        let (near, far): (Vec<_>, Vec<_>) =
            others.partition(|goal| (&goal.group, &goal.syncgroup) == home);
        // The machine itself comes after its mirrors: if it is frozen, asking it takes long.
        let near = near.into_iter().chain([stuck.clone()]);
        if now < until { near.collect() } else { near.chain(far).collect() }
    }

    /// Until when a put in doubt is tried only where it was.
    fn alone_until(&self) -> Option<Instant> {
        self.stuck.as_ref().map(|(_, since)| *since + MIRRORS_AFTER)
    }

    /// Whether a put that may have been stored is about to be stored at others, who never knew its token.
    fn is_elsewhere(&self, goal: &Goal) -> bool {
        self.stuck.as_ref().is_some_and(|(stuck, _)| {
            (&stuck.group, &stuck.syncgroup) != (&goal.group, &goal.syncgroup)
        })
    }

    fn judge<O: Operation>(&mut self, failure: Failure, operation: &mut O, goal: &Goal) -> Then {
        let Failure { error, left } = failure;
        let nature = operation.nature();
        let lasting = match error.code {
            ErrorCode::NoSpace | ErrorCode::ReadOnly | ErrorCode::Damaged => true,
            // Mirrors hand an edit to the owner, and answer with its answer, until they have heard of its failed mount:
            // then one of them makes the edit.
            ErrorCode::Fenced => !(nature == Nature::Edit && self.shared),
            _ => false,
        };
        self.settled &= lasting && left == Left::Answered;
        let code = error.code;
        let mut first_doubt = false;
        if left == Left::Unknown || (left == Left::Answered && code == ErrorCode::UnknownOutcome) {
            self.doubt |= nature.mutation();
            if nature == Nature::Create && self.stuck.is_none() {
                self.stuck = Some((goal.clone(), Instant::now()));
                first_doubt = true;
            }
        }
        let retry = code.retry();
        if left == Left::BodySpent || (left == Left::Answered && retry == Retry::Never) {
            return Then::Stop(error);
        }
        if left == Left::Answered && retry == Retry::FreshToken {
            let doubted = self.doubt && !self.is_elsewhere(goal);
            if doubted || self.renewals == RENEWALS_MAX {
                return Then::Stop(self.end(nature, Some(error)));
            }
            self.renewals += 1;
            operation.renew();
            return Then::Again;
        }
        self.last = Some(error);
        if !operation.replayable() {
            let error = self.end(nature, None);
            return Then::Stop(match error.code {
                ErrorCode::UnknownOutcome => error,
                _other => error.remedy(
                    "what is read from a pipe cannot be sent again: repeat the command, or name a file",
                ),
            });
        }
        match (left, retry) {
            (Left::Answered, Retry::Same) => Then::Pause,
            // Not to the next storage: see `narrow`.
            _ if first_doubt => Then::Pause,
            _ => Then::Next,
        }
    }

    /// The error at the end: doubt wins.
    fn end(&mut self, nature: Nature, error: Option<Error>) -> Error {
        let error = error
            .or_else(|| self.last.take())
            .unwrap_or_else(|| Error::new(ErrorCode::Unavailable, "no answer in time"));
        if !(self.doubt && nature.mutation()) {
            return error;
        }
        Error {
            code: ErrorCode::UnknownOutcome,
            message: format!("it is not known whether this was done: {}", error.message),
            remedy: match nature {
                Nature::Create => {
                    "put it again; at worst one object stays that no id was given out for"
                }
                Nature::Edit | Nature::Read | Nature::ReadOnce => {
                    "read the object to see, or do it again"
                }
            }
            .to_owned(),
            node: error.node,
            id: error.id,
        }
    }
}

fn jitter(max: Duration) -> Duration {
    Duration::from_micros(random::below(u64::try_from(max.as_micros()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(syncgroup: &str, machine: MachineId) -> Goal {
        let address = format!("{syncgroup}{machine}");
        Goal { group: "g".to_owned(), syncgroup: syncgroup.to_owned(), machine, address }
    }

    #[test]
    fn a_put_in_doubt_goes_to_mirrors_soon_and_elsewhere_late() {
        let start = Instant::now();
        let until = start + Duration::from_secs(5);
        let goals = || vec![goal("b", 1), goal("a", 1), goal("a", 2), goal("b", 2)];
        let mut story = Story::default();
        assert_eq!(story.narrow(goals(), start, until), goals(), "no doubt");
        story.stuck = Some((goal("a", 1), start));
        let after = |ms| story.narrow(goals(), start + Duration::from_millis(ms), until);
        assert_eq!(after(299), [goal("a", 1)]);
        for ms in [300, 4_999] {
            assert_eq!(after(ms), [goal("a", 2), goal("a", 1)], "{ms}");
        }
        assert_eq!(after(5_000), [goal("a", 2), goal("a", 1), goal("b", 1), goal("b", 2)]);
    }

    #[test]
    fn a_put_in_doubt_without_mirrors_stays_where_it_was_for_half_of_the_time() {
        let start = Instant::now();
        let until = start + Duration::from_secs(5);
        let story = Story { stuck: Some((goal("a", 1), start)), ..Story::default() };
        let goals = || vec![goal("b", 1)];
        let after = |ms| story.narrow(goals(), start + Duration::from_millis(ms), until);
        assert_eq!(after(4_999), [goal("a", 1)]);
        assert_eq!(after(5_000), [goal("a", 1), goal("b", 1)]);
    }
}
