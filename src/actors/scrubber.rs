//! `Scrubber`: verifies one mount in the background, over and over, and has what is damaged repaired from a mirror (P3).
//!
//! | thread | a net arbiter; reads through the pool of the mount, looks again and repairs through its `Binlog` |
//! |---|---|
//! | order | what reads have met, what could not be repaired before, the neighbours of a hit, then the round, slice by slice |
//! | bound | one slice of a chunkfile or of a large content at a time |
//! | from | its own clock; whoever met damage ([`scrub_desk`](super::scrub_desk)); `AdminConsole` (an operator) |
//! | to | the mount's pool and `Binlog`; the other members, when something is to be repaired or compared |
//!
//! Invariants (R5): supervised, and nothing that fails ends it: a mount that is out of service is waited for, a repair that
//! fails is tried again later. Where it is survives a restart. A reader's suspicion becomes a damage only when the mount has
//! looked again in line with its changes.

mod judge;
mod round;

use super::ambient;
use super::content_fetch::on_pool;
use super::peers::PeerTable;
use super::scrub_desk::ScrubStatus;
use super::shared_mount::SharedMount;
use super::shelf::Shelf;
use crate::cluster::scrub::{Damage, Pace, time_for};
use crate::format::scrub_state::{OpenDamage, ScrubState};
use actix::prelude::*;
use round::Round;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often it looks whether there is anything to do.
const LOOK: Duration = Duration::from_secs(1);
/// Its state is kept so often.
const SAVE: Duration = Duration::from_secs(5);
/// Damages that are tried again at a time.
const RETRIES: usize = 16;

/// How all mounts of a storage are verified; may change while it runs.
#[derive(Debug)]
pub struct ScrubLimits {
    /// Whether rounds begin by themselves.
    pub enabled: AtomicBool,
    /// A round takes so long, ms.
    pub period_ms: AtomicU64,
    /// Bytes per second and mount; 0: no limit.
    pub bandwidth: AtomicU64,
}

/// Whose mount is verified, and how.
#[derive(Clone)]
pub struct ScrubConfig {
    /// The mount.
    pub mount: Arc<SharedMount>,
    /// The other members.
    pub table: Arc<PeerTable>,
    /// How fast.
    pub limits: Arc<ScrubLimits>,
}

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum Operate {
    /// A round, now and as fast as it may; what could not be repaired is tried again.
    Start,
    /// Nothing is read until `Resume`. What reads meet is repaired all the same.
    Pause,
    /// On with it.
    Resume,
}

/// See the module.
pub struct Scrubber {
    config: ScrubConfig,
    orders: Arc<std::sync::Mutex<Vec<Operate>>>,
}

impl Scrubber {
    /// Of one mount.
    #[must_use]
    pub fn new(config: ScrubConfig) -> Self {
        Self { config, orders: Arc::default() }
    }
}

impl Actor for Scrubber {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let worker = Worker { config: self.config.clone(), orders: Arc::clone(&self.orders) };
        ctx.spawn(actix::fut::wrap_future(worker.run()));
    }
}

impl Supervised for Scrubber {}

impl Handler<Operate> for Scrubber {
    type Result = ();

    fn handle(&mut self, order: Operate, _: &mut Context<Self>) {
        let mut orders = lock(&self.orders);
        orders.push(order);
        self.config.mount.scrub.set_ordered(true);
        drop(orders);
        self.config.mount.scrub.wake();
    }
}

fn lock<T>(of: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Worker {
    config: ScrubConfig,
    orders: Arc<std::sync::Mutex<Vec<Operate>>>,
}

/// One opening of the mount.
struct Opening {
    config: ScrubConfig,
    shelf: Arc<dyn Shelf>,
    state: ScrubState,
    round: Option<Round>,
    /// Out of turn, as fast as it may.
    near: Option<Round>,
    /// The pace allows the next slice then.
    not_before: Instant,
    saved: Instant,
    changed: bool,
    total: u64,
    why: String,
}

impl Worker {
    fn take_orders(&self, opening: &mut Opening) {
        let mut orders = lock(&self.orders);
        if !orders.is_empty() {
            opening.obey(&std::mem::take(&mut *orders));
            opening.publish();
            self.config.mount.scrub.set_ordered(false);
        }
    }

    async fn run(self) {
        loop {
            if let Ok(open) = self.config.mount.open() {
                let shelf = Arc::clone(&open.shelf);
                drop(open);
                if let Some(mut opening) = Opening::begin(&self.config, shelf).await {
                    while opening.is_current() {
                        self.take_orders(&mut opening);
                        opening.turn().await;
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Opening {
    async fn begin(config: &ScrubConfig, shelf: Arc<dyn Shelf>) -> Option<Self> {
        let reader = Arc::clone(&shelf);
        let state = on_pool(&config.mount, move || reader.load_scrub()).await.ok()?.ok()?;
        let known = state.is_some();
        let mut state = state.unwrap_or_default();
        if known {
            let mut findings = config.mount.scrub.findings();
            let nothing = findings.found == 0;
            if nothing {
                (findings.found, findings.repaired) = (state.found, state.repaired);
                (findings.gone, findings.by_reads) = (state.gone, state.by_reads);
                findings.remember(std::mem::take(&mut state.open).into_iter().map(
                    |open| match open {
                        OpenDamage::Object(home) => (Damage::Object(home), None),
                        OpenDamage::Known(id) => (Damage::Object(id.home().address), Some(id)),
                        OpenDamage::Chunkfile(id) => (Damage::Chunkfile(id), None),
                    },
                ));
            }
        }
        let now = Instant::now();
        let mut opening = Self {
            config: config.clone(),
            shelf,
            state,
            round: None,
            near: None,
            not_before: now,
            saved: now,
            changed: false,
            total: 0,
            why: String::new(),
        };
        opening.publish();
        Some(opening)
    }

    /// Whether the mount serves, and is the one that was opened.
    fn is_current(&self) -> bool {
        self.config.mount.open().is_ok_and(|open| Arc::ptr_eq(&open.shelf, &self.shelf))
    }

    fn obey(&mut self, orders: &[Operate]) {
        for order in orders {
            match order {
                Operate::Start => {
                    self.state.paused = false;
                    self.state.at_once = true;
                    self.state.running = false;
                    self.round = None;
                    self.config.mount.scrub.findings().retry_all();
                    self.start_round();
                }
                Operate::Pause => self.state.paused = true,
                Operate::Resume => self.state.paused = false,
            }
            self.not_before = Instant::now();
            self.changed = true;
        }
    }

    /// Does what is most urgent, or waits.
    async fn turn(&mut self) {
        if !self.attend().await {
            self.go_on().await;
        }
        if self.changed && self.saved.elapsed() >= SAVE {
            self.save().await;
        }
        self.publish();
    }

    /// What does not wait for the pace. Whether there was anything.
    async fn attend(&mut self) -> bool {
        let suspect = self.config.mount.scrub.findings().next_suspect();
        if let Some(object) = suspect {
            self.judge_suspect(object).await;
            self.changed = true;
            return true;
        }
        let now_ms = ambient::wall_ms();
        let retry = self.config.mount.scrub.findings().to_retry(now_ms, RETRIES);
        if !retry.is_empty() {
            self.retry(&retry).await;
            self.changed = true;
            return true;
        }
        false
    }

    /// The next slice, or a wait until there may be one.
    async fn go_on(&mut self) {
        let now = Instant::now();
        if now < self.not_before {
            return self.wait(self.not_before - now).await;
        }
        if self.near.is_none() {
            let near = self.config.mount.scrub.findings().next_near();
            self.near = near.map(Round::near);
        }
        if let Some(mut near) = self.near.take() {
            match self.step(&mut near).await {
                Ok(Some(bytes)) => {
                    self.near = Some(near);
                    self.spend(bytes, self.config.limits.bandwidth.load(Ordering::Relaxed));
                }
                Ok(None) => {}
                Err(why) => self.hold(why),
            }
            return;
        }
        if self.state.paused || !self.is_due() {
            return self.wait(LOOK).await;
        }
        self.round_slice().await;
    }

    async fn round_slice(&mut self) {
        let mut round = match self.round.take() {
            Some(round) => round,
            None => match self.list().await {
                Ok(round) => round,
                Err(why) => return self.hold(why),
            },
        };
        match self.step(&mut round).await {
            Ok(Some(bytes)) => {
                self.state.bytes += bytes;
                self.state.next = round.position();
                self.round = Some(round);
                self.changed = true;
                self.spend(bytes, self.rate());
            }
            Ok(None) => self.finish().await,
            Err(why) => {
                self.round = Some(round);
                self.hold(why);
            }
        }
    }

    /// Something is in the way: it is tried again after a while.
    fn hold(&mut self, why: String) {
        tracing::debug!(mount = self.config.mount.index, why, "the scrub waits");
        self.why = why;
        self.not_before = Instant::now() + LOOK;
    }

    fn spend(&mut self, bytes: u64, rate: u64) {
        self.why.clear();
        self.config.mount.scrub.count_verified(bytes);
        self.not_before = Instant::now() + Duration::from_millis(time_for(bytes, rate));
    }

    async fn wait(&self, most: Duration) {
        tokio::select! {
            () = tokio::time::sleep(most.min(LOOK)) => {}
            () = self.config.mount.scrub.woken() => {}
        }
    }

    fn pace(&self) -> Pace {
        let limits = &self.config.limits;
        Pace {
            period_ms: limits.period_ms.load(Ordering::Relaxed),
            bandwidth: limits.bandwidth.load(Ordering::Relaxed),
            at_once: self.state.at_once,
        }
    }

    fn rate(&self) -> u64 {
        let elapsed = ambient::wall_ms().saturating_sub(self.state.begun_ms);
        self.pace().rate(self.total.max(self.state.bytes), self.state.bytes, elapsed)
    }

    /// Whether a round runs, or the next one is due.
    fn is_due(&mut self) -> bool {
        if self.state.running {
            return true;
        }
        let never = self.state.begun_ms == 0;
        let due = never || ambient::wall_ms() >= self.pace().next_round(self.state.begun_ms);
        if due && self.config.limits.enabled.load(Ordering::Relaxed) {
            self.start_round();
            return true;
        }
        false
    }

    fn start_round(&mut self) {
        self.state.running = true;
        self.state.next = None;
        self.state.bytes = 0;
        self.state.begun_ms = ambient::wall_ms();
        self.changed = true;
    }

    async fn finish(&mut self) {
        let begun_ms = self.state.begun_ms;
        self.state.running = false;
        self.state.at_once = false;
        self.state.next = None;
        self.state.finished_ms = ambient::wall_ms().max(begun_ms);
        self.save().await;
        let (open, bytes) = (self.config.mount.scrub.findings().open_count(), self.state.bytes);
        tracing::info!(mount = self.config.mount.index, bytes, open, "everything was verified");
    }

    fn publish(&mut self) {
        let stats = self.config.mount.stats();
        let large = (stats.counters.live_bytes + stats.counters.deleted_bytes)
            .saturating_sub(stats.used_bytes);
        self.total = stats.used_bytes + large + stats.log_bytes;
        let state = &self.state;
        self.config.mount.scrub.publish(ScrubStatus {
            running: state.running,
            paused: state.paused,
            at_once: state.at_once,
            begun_ms: state.begun_ms,
            finished_ms: state.finished_ms,
            done: state.bytes,
            total: if state.running { self.total.max(state.bytes) } else { state.bytes },
            rate: if state.running && !state.paused { self.rate() } else { 0 },
            why: self.why.clone(),
        });
    }

    /// Keeps where it is. What fails is tried again.
    async fn save(&mut self) {
        {
            let findings = self.config.mount.scrub.findings();
            let state = &mut self.state;
            (state.found, state.repaired) = (findings.found, findings.repaired);
            (state.gone, state.by_reads) = (findings.gone, findings.by_reads);
            let open = findings.open().filter_map(|(damage, open)| match (damage, open.object) {
                (Damage::Object(_), Some(id)) => Some(OpenDamage::Known(id)),
                (Damage::Object(home), None) => Some(OpenDamage::Object(*home)),
                (Damage::Chunkfile(id), _) => Some(OpenDamage::Chunkfile(*id)),
                _ => None,
            });
            state.open = open.collect();
        }
        let (shelf, state) = (Arc::clone(&self.shelf), self.state.clone());
        let saved = on_pool(&self.config.mount, move || shelf.save_scrub(&state)).await;
        self.saved = Instant::now();
        match saved {
            Ok(Ok(())) => self.changed = false,
            Ok(Err(error)) => {
                tracing::debug!(mount = self.config.mount.index, %error, "the scrub's place is not kept");
            }
            Err(_) => {}
        }
    }
}
