//! The cluster view that a client routes by: fetched from any tracker, kept while all of them are down.

use super::error::{Error, Failure, Result};
use super::pool::Pool;
use crate::cluster::view::ClusterView;
use crate::messages::error::ErrorCode;
use crate::messages::heads::{self, Uuid, View, ViewAnswer};
use crate::messages::opcode::{Daemon, Opcode};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the view is looked at again.
const REFRESH: Duration = Duration::from_secs(1);
/// Every so many looks the whole view is fetched even if nothing that matters to routing changed: for the free space.
const WHOLE_EVERY: u32 = 5;
/// How long one tracker may take before the next is asked.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// A tracker that has just started has not heard of everybody yet: for so long its view does not displace a larger
/// one.
const SETTLE: Duration = Duration::from_secs(5);

/// A view, and since when nothing in it has changed that matters to routing.
#[derive(Debug)]
struct Known {
    view: Arc<ClusterView>,
    since: Instant,
}

/// The view and where it comes from.
#[derive(Debug)]
pub(super) struct Views {
    pool: Arc<Pool>,
    trackers: Vec<String>,
    /// Which tracker answered last: asked first.
    good: AtomicUsize,
    current: ArcSwapOption<Known>,
    /// One fetches at a time; the life of a tracker that is not yet trusted, and since when it is known.
    fetching: Mutex<Option<([u8; 16], Instant)>>,
}

impl Views {
    pub(super) fn new(pool: Arc<Pool>, trackers: Vec<String>) -> Self {
        Self {
            pool,
            trackers,
            good: AtomicUsize::new(0),
            current: ArcSwapOption::empty(),
            fetching: Mutex::new(None),
        }
    }

    /// The view as last fetched.
    pub(super) fn current(&self) -> Option<Arc<ClusterView>> {
        self.current.load().as_ref().map(|known| Arc::clone(&known.view))
    }

    /// For how long nothing in it has changed that matters to routing.
    pub(super) fn steady(&self) -> Duration {
        self.current.load().as_ref().map_or(Duration::ZERO, |known| known.since.elapsed())
    }

    /// Fetches the view from the first tracker that answers. `whole`: also if its epoch is the known one.
    ///
    /// # Errors
    /// No tracker answered: the one of the last tracker, or the first refusal (a wrong key).
    pub(super) async fn refresh(&self, whole: bool, deadline: Instant) -> Result<Arc<ClusterView>> {
        let asked = Instant::now();
        let mut newcomer = self.fetching.lock().await;
        if self.trackers.is_empty() {
            return Err(Error::new(ErrorCode::Usage, "no tracker is named")
                .remedy("name one with --tracker HOST:PORT or FOLIO_TRACKERS"));
        }
        let first = self.good.load(Ordering::Relaxed);
        let mut problem: Option<Error> = None;
        for turn in 0..self.trackers.len() {
            let index = (first + turn) % self.trackers.len();
            let deadline = deadline.min(asked.max(Instant::now()) + ANSWER_MAX);
            match self.fetch(&self.trackers[index], whole, deadline).await {
                Ok(fetched) => {
                    self.good.store(index, Ordering::Relaxed);
                    return Ok(self.accept(fetched, &mut newcomer));
                }
                Err(failure) => {
                    // A refusal says more than a machine that is down.
                    let keep = problem.as_ref().is_some_and(|p| p.code != ErrorCode::Unavailable);
                    if !keep {
                        problem = Some(failure.error);
                    }
                }
            }
        }
        let none = || Error::new(ErrorCode::Unavailable, "no tracker answers");
        Err(problem.unwrap_or_else(none))
    }

    /// `None`: the known view is still the right one.
    async fn fetch(
        &self,
        tracker: &str,
        whole: bool,
        deadline: Instant,
    ) -> std::result::Result<Option<ClusterView>, Failure> {
        let connection = self.pool.get(tracker, deadline).await?;
        let known = if whole { None } else { self.current() };
        let head = View {
            known_epoch: known.as_ref().map_or(0, |view| view.epoch),
            known_tracker: Uuid::new(known.as_ref().map_or([0; 16], |view| view.tracker)),
        };
        let called = connection.call(Opcode::View, &head, Bytes::new(), 0, deadline).await;
        let reply = called.map_err(|failure| match failure.error.code {
            ErrorCode::UnknownOpcode if connection.identity.kind == Daemon::Storage => {
                let error = Error::new(ErrorCode::UnknownOpcode, "this is a storage, no tracker");
                let remedy =
                    "--tracker takes the `listen` address of a tracker: by default port 7400";
                Failure::answered(error.remedy(remedy).at(connection.node()))
            }
            _other => failure,
        })?;
        let understood = |error| Failure::answered(Error::from(error).at(connection.node()));
        let answer: ViewAnswer = heads::decode(reply.frame.head()).map_err(understood)?;
        if !answer.changed && known.is_some() {
            return Ok(None);
        }
        heads::decode(reply.frame.payload()).map(Some).map_err(understood)
    }

    fn accept(
        &self,
        fetched: Option<ClusterView>,
        newcomer: &mut Option<([u8; 16], Instant)>,
    ) -> Arc<ClusterView> {
        let current = self.current();
        let fetched = match (fetched, &current) {
            (Some(fetched), _) => fetched,
            (None, Some(current)) => return Arc::clone(current),
            (None, None) => {
                ClusterView::empty([0; 16], crate::cluster::view::PutPolicy::RoundRobin)
            }
        };
        if let Some(current) = &current
            && fetched.tracker != current.tracker
            && fetched.storages().count() < current.storages().count()
        {
            let since = match newcomer {
                Some((life, since)) if *life == fetched.tracker => *since,
                _ => newcomer.insert((fetched.tracker, Instant::now())).1,
            };
            if since.elapsed() < SETTLE {
                return Arc::clone(current);
            }
        }
        *newcomer = None;
        let unchanged = current.is_some_and(|current| {
            (current.tracker, current.epoch) == (fetched.tracker, fetched.epoch)
        });
        let since = match &*self.current.load() {
            Some(known) if unchanged => known.since,
            Some(_) | None => Instant::now(),
        };
        let fetched = Arc::new(fetched);
        self.current.store(Some(Arc::new(Known { view: Arc::clone(&fetched), since })));
        let known = |address: &str| {
            self.trackers.iter().any(|tracker| tracker == address)
                || fetched.storages().any(|(_, _, storage)| storage.advertise == address)
        };
        self.pool.retain(known);
        fetched
    }

    /// Keeps the view fresh until the client is dropped.
    pub(super) async fn keep_fresh(self: Arc<Self>) {
        let mut ticks = interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = 0u32;
        let mut silent = false;
        loop {
            ticks.tick().await;
            count = count.wrapping_add(1);
            let whole = count.is_multiple_of(WHOLE_EVERY);
            match self.refresh(whole, Instant::now() + ANSWER_MAX * 2).await {
                Ok(_) => silent = false,
                Err(error) if !silent => {
                    silent = true;
                    tracing::debug!(%error, "no tracker answers, the known view stays in use");
                }
                Err(_) => {}
            }
        }
    }
}
