//! `DiskRecovery`: refills one mount from the other members. It runs the machine of [`recovery`](crate::recovery): tells it
//! what is to be seen, does what it says, and says how far it is.
//!
//! | thread | a net arbiter; reads through the pool of the mount, changes through its `Binlog` |
//! |---|---|
//! | order | one thing at a time, as the machine says |
//! | bound | what [`state_pull`](super::state_pull) holds: some megabytes, whatever the mount holds |
//! | from | its own clock; `AdminConsole` (an operator) |
//! | to | the other members; `Binlog` (save, serve) |
//!
//! Invariants (R5): supervised, and nothing that fails ends it: a member that is away is a state with a pause. Every step is
//! durable before the next one is begun, so a kill costs a comparison and no copy. No phase is asked for here.

mod work;

use super::binlog::{BeginRefill, EndRefill, SaveRecovery};
use super::peers::PeerTable;
use super::session::Problem;
use super::shared_mount::{Refill, SharedMount};
use super::state_pull::Progress;
use crate::format::ids::MachineId;
use crate::format::recovery_state::Cause;
use crate::messages::error::ErrorCode;
use crate::recovery::{Action, Ending, Event, Recovery, Rules, Standing};
use actix::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;
use work::Work;

/// How often it looks around.
const LOOK: Duration = Duration::from_millis(200);
/// A member that failed as a source is left alone for so long.
const RETRY: Duration = Duration::from_secs(2);
/// What was copied is counted durably every so many looks.
const SAVE_LOOKS: u32 = 5;

/// What an operator may change while it runs.
#[derive(Debug)]
pub struct Limits {
    /// Bytes per second that may come in; 0: no limit.
    pub bandwidth: Arc<AtomicU64>,
    /// Chunkfiles at a time; those of the next source.
    pub streams: AtomicUsize,
    /// How long members that do not come are waited for.
    pub base_wait: Duration,
}

/// Who refills, and from where.
#[derive(Clone)]
pub struct RecoveryConfig {
    /// Whose mount.
    pub mount: Arc<SharedMount>,
    /// The other members.
    pub table: Arc<PeerTable>,
    /// How fast.
    pub limits: Arc<Limits>,
    /// Our group and syncgroup.
    pub names: (String, String),
}

/// See the module.
pub struct DiskRecovery {
    config: RecoveryConfig,
    machine: Option<Recovery>,
    queue: VecDeque<Action>,
    /// The state is being made durable.
    saving: bool,
    at_work: Option<SpawnHandle>,
    progress: Arc<Progress>,
    /// Bytes of `progress` that the machine has counted.
    counted: u64,
    /// This run goes on with copies that a crash may have damaged.
    unsure: bool,
    listening: bool,
    looks: u32,
    rate: Rate,
    ended: String,
}

impl DiskRecovery {
    /// Of one mount. Does nothing until the mount is to be refilled.
    #[must_use]
    pub fn new(config: RecoveryConfig) -> Self {
        Self {
            config,
            machine: None,
            queue: VecDeque::new(),
            saving: false,
            at_work: None,
            progress: Arc::default(),
            counted: 0,
            unsure: false,
            listening: false,
            looks: 0,
            rate: Rate::default(),
            ended: String::new(),
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let mount = Arc::clone(&self.config.mount);
        if !mount.is_refilling() {
            self.forget(ctx);
            return;
        }
        if self.saving || !self.queue.is_empty() {
            return;
        }
        self.begin_machine();
        let event = Event::Look {
            now_ms: self.config.table.clock.now_ms(),
            ours: mount.mirror.report().coverage.clone(),
            members: self.members(),
        };
        self.count();
        self.looks = self.looks.wrapping_add(1);
        if self.at_work.is_some() && self.looks.is_multiple_of(SAVE_LOOKS) {
            self.queue.push_back(Action::Save);
        }
        self.step(event, ctx);
    }

    /// Something is done: looks at once whether the next thing can be begun, instead of at the next tick.
    fn look_on(&mut self, ctx: &mut Context<Self>) {
        if self.at_work.is_none() && self.machine.is_some() {
            self.look(ctx);
        }
    }

    /// Goes on from the durable state, if the mount is to be refilled.
    fn begin_machine(&mut self) {
        let mount = &self.config.mount;
        if self.machine.is_some() || !mount.is_refilling() {
            return;
        }
        let Some(state) = mount.refill().state.clone() else { return };
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let rules = Rules {
            own: self.config.table.us,
            base_wait_ms: millis(self.config.limits.base_wait),
            retry_ms: millis(RETRY),
        };
        let (phase, cause) = (state.phase.name(), state.cause.name());
        tracing::info!(mount = mount.index, phase, cause, "refilling the mount");
        self.ended.clear();
        self.unsure = state.may_have_unsynced_copies();
        self.machine = Some(Recovery::new(rules, state));
    }

    /// Every other configured member, as it stands now.
    fn members(&self) -> BTreeMap<MachineId, Standing> {
        let (table, index) = (&self.config.table, self.config.mount.index);
        let members = Arc::clone(&self.config.mount.mirror.members().borrow());
        let others = members.iter().filter(|member| member.machine != table.us);
        let standing = |machine: MachineId| {
            let Some(peer) = table.get(machine).filter(|peer| peer.is_connected()) else {
                return Standing::Away;
            };
            match peer.mount(index) {
                Some(mount) if mount.is_refilling() => {
                    Standing::Recovering((*mount.coverage()).clone())
                }
                Some(mount) if mount.is_serving() => Standing::Serving((*mount.coverage()).clone()),
                Some(_) | None => Standing::Away,
            }
        };
        others.map(|member| (member.machine, standing(member.machine))).collect()
    }

    /// The mount is not refilled (any more).
    fn forget(&mut self, ctx: &mut Context<Self>) {
        if let Some(handle) = self.at_work.take() {
            ctx.cancel_future(handle);
        }
        self.machine = None;
        self.listening = false;
        self.queue.clear();
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let Some(machine) = &mut self.machine else { return };
        let before = machine.state().phase;
        let actions = machine.step(event);
        let (mount, after) = (self.config.mount.index, machine.state().phase);
        if before != after {
            tracing::info!(mount, from = before.name(), to = after.name(), "refilling");
        }
        self.queue.extend(actions);
        self.publish();
        self.act(ctx);
    }

    /// Does what is to be done, in its order.
    fn act(&mut self, ctx: &mut Context<Self>) {
        while !self.saving
            && let Some(action) = self.queue.pop_front()
        {
            match action {
                Action::Save => self.save(ctx),
                Action::Cancel => {
                    if let Some(handle) = self.at_work.take() {
                        ctx.cancel_future(handle);
                    }
                }
                Action::Listen => self.listening = true,
                Action::Serve(ending) => self.serve(ending, ctx),
                Action::PullLogs(from) => {
                    let said =
                        self.members().into_iter().filter_map(
                            |(machine, standing)| match standing {
                                Standing::Serving(has) if from.contains(&machine) => {
                                    Some((machine, has))
                                }
                                Standing::Serving(_) | Standing::Recovering(_) | Standing::Away => {
                                    None
                                }
                            },
                        );
                    let event = Event::Logs(said.collect());
                    self.step(event, ctx);
                }
                Action::PullData { from, lenient } => {
                    let verify = self.unsure;
                    self.begin(Work::Copy { from, lenient, verify }, ctx);
                }
                Action::Introduce(to) => self.begin(Work::Introduce(to), ctx),
                Action::Compare(with) => self.begin(Work::Compare(with), ctx),
            }
        }
        self.publish();
    }

    fn begin(&mut self, work: Work, ctx: &mut Context<Self>) {
        self.count();
        self.progress = Arc::default();
        self.counted = 0;
        let (config, progress) = (self.config.clone(), Arc::clone(&self.progress));
        let done = async move { work::run(&config, work, &progress).await };
        let handle = ctx.spawn(done.into_actor(self).map(|event, actor, ctx| {
            actor.at_work = None;
            actor.count();
            actor.step(event, ctx);
            actor.look_on(ctx);
        }));
        self.at_work = Some(handle);
    }

    fn save(&mut self, ctx: &mut Context<Self>) {
        let Some(machine) = &self.machine else { return };
        let Some(binlog) = self.config.mount.registry.binlog() else { return };
        self.saving = true;
        let saved = binlog.send(SaveRecovery(machine.state().clone()));
        ctx.spawn(saved.into_actor(self).map(|saved, actor, ctx| {
            actor.saving = false;
            match saved {
                Ok(Ok(())) => {
                    actor.act(ctx);
                    actor.look_on(ctx);
                }
                // The mount is out of service: it is looked at again when it is opened again.
                Ok(Err(_)) | Err(_) => actor.forget(ctx),
            }
        }));
    }

    fn serve(&mut self, ending: Ending, ctx: &mut Context<Self>) {
        let Some(binlog) = self.config.mount.registry.binlog() else { return };
        let ended = self.told(&ending);
        self.saving = true;
        ctx.spawn(binlog.send(EndRefill).into_actor(self).map(|done, actor, ctx| {
            actor.saving = false;
            if let Ok(Ok(())) = done {
                tracing::info!(mount = actor.config.mount.index, "refilled: {ended}");
                actor.ended = ended;
                actor.publish();
            }
            actor.forget(ctx);
        }));
    }

    /// How it ended, for people.
    fn told(&self, ending: &Ending) -> String {
        let mut told = match ending {
            Ending::Proved(proof) => {
                let mut told = format!(
                    "identical with machine {}: {} objects, digest {}",
                    proof.with, proof.objects, proof.digest
                );
                if proof.busy > 0 {
                    told.push_str(&format!(
                        "; nothing missing of {} chunkfiles that were being edited",
                        proof.busy
                    ));
                }
                told
            }
            Ending::Base => {
                "no member serves, and this one has the most: the others follow it".into()
            }
            Ending::LossAccepted => {
                "begun anew, the loss of what nobody has was accepted".to_owned()
            }
        };
        let Some(machine) = &self.machine else { return told };
        if !machine.state().missing.is_empty() {
            told.push_str(&format!("; not asked: machines {:?}", machine.state().missing));
        }
        if machine.given_up() > 0 {
            told.push_str(&format!("; damaged everywhere: {} objects", machine.given_up()));
        }
        told
    }

    /// Counts what came since.
    fn count(&mut self) {
        let received = self.progress.received();
        if let Some(machine) = &mut self.machine {
            machine.count(received.saturating_sub(self.counted), 0);
            self.rate.note(self.config.table.clock.now_ms(), machine.state().bytes);
        }
        self.counted = received;
    }

    fn publish(&self) {
        // The machine does not know which mount it is.
        let named = |words: &str| words.replace("MOUNT", &self.config.mount.index.to_string());
        let refill = match &self.machine {
            Some(machine) => Refill {
                state: Some(machine.state().clone()),
                with: machine.with(),
                why: if self.ended.is_empty() { named(machine.why()) } else { self.ended.clone() },
                remedy: named(machine.remedy()),
                total: self.progress.total(),
                done: self.progress.done(),
                rate: self.rate.bytes_per_second(),
                listening: self.listening,
            },
            None => return,
        };
        self.config.mount.publish_refill(refill);
    }
}

impl Actor for DiskRecovery {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(LOOK, Self::look);
    }
}

impl Supervised for DiskRecovery {
    fn restarting(&mut self, _: &mut Context<Self>) {
        // What was begun is dropped with the old context; the durable state is where it goes on.
        self.machine = None;
        self.at_work = None;
        self.saving = false;
        self.listening = false;
        self.queue.clear();
    }
}

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<(), Problem>")]
pub enum Operate {
    /// Take the mount out of service and refill it.
    Start,
    /// Stop for a while.
    Pause,
    /// Go on.
    Resume,
    /// What nobody has is lost.
    AcceptLoss,
}

impl Handler<Operate> for DiskRecovery {
    type Result = ResponseActFuture<Self, Result<(), Problem>>;

    fn handle(&mut self, wanted: Operate, ctx: &mut Context<Self>) -> Self::Result {
        let event = match wanted {
            Operate::Start => {
                self.ended.clear();
                let mount = Arc::clone(&self.config.mount);
                let begun = async move {
                    let Some(binlog) = mount.registry.binlog() else {
                        return Err(mount.out_of_service());
                    };
                    let begun = binlog.send(BeginRefill(Cause::Command)).await;
                    begun.unwrap_or_else(|_| Err(mount.out_of_service()))
                };
                return Box::pin(begun.into_actor(self));
            }
            Operate::Pause => Event::Pause,
            Operate::Resume => Event::Resume,
            Operate::AcceptLoss => Event::AcceptLoss,
        };
        let index = self.config.mount.index;
        self.begin_machine();
        let done = if self.machine.is_some() {
            self.step(event, ctx);
            Ok(())
        } else {
            Err(Problem::new(ErrorCode::BadRequest, format!("mount {index} is not being refilled"))
                .remedy("`recover status` shows every mount"))
        };
        Box::pin(actix::fut::ready(done))
    }
}

/// Bytes per second over the last seconds.
#[derive(Clone, Debug, Default)]
struct Rate {
    samples: VecDeque<(u64, u64)>,
}

impl Rate {
    /// Looks that it spans.
    const SPAN: usize = 25;

    fn note(&mut self, now_ms: u64, bytes: u64) {
        self.samples.push_back((now_ms, bytes));
        if self.samples.len() > Self::SPAN {
            self.samples.pop_front();
        }
    }

    fn bytes_per_second(&self) -> u64 {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return 0;
        };
        let bytes = last.1.saturating_sub(first.1);
        (bytes * 1000).checked_div(last.0.saturating_sub(first.0)).unwrap_or(0)
    }
}
