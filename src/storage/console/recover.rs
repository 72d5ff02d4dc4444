//! `recover`: mounts that are refilled from their mirrors.

use super::Sight;
use crate::actors::admin_console::{CommandResult, ConsoleAnswer, Value};
use crate::actors::disk_recovery::Operate;
use crate::actors::shared_mount::SharedMount;
use crate::cluster::view::MountState;
use crate::format::ids::MountIndex;
use crate::settings::spec::storage_number;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const USAGE: &str = "expected `recover [MOUNT] [status | start [--confirm] | pause | resume | accept-loss | bandwidth RATE | streams N]`, with \
                     MOUNT an index out of `mounts`";

impl Sight {
    /// `recover [MOUNT] [status|start [--confirm]|pause|resume|accept-loss]`.
    pub(super) async fn recover(&self, words: &[String]) -> CommandResult {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (mount, rest) = match words.as_slice() {
            [first, rest @ ..] if first.bytes().all(|byte| byte.is_ascii_digit()) => {
                (Some(self.mount(first)?), rest)
            }
            all => (None, all),
        };
        let (wanted, confirmed) = match rest {
            ["bandwidth", rate] => return self.limit_bandwidth(rate),
            ["streams", count] => return self.limit_streams(count),
            [] | ["status"] => return Ok(self.recoveries(mount)),
            ["start"] => (Operate::Start, false),
            ["start", "--confirm"] => (Operate::Start, true),
            ["pause"] => (Operate::Pause, false),
            ["resume"] => (Operate::Resume, false),
            ["accept-loss"] => (Operate::AcceptLoss, false),
            _ => return Err(USAGE.to_owned()),
        };
        let mount = match mount {
            Some(mount) => mount,
            None => self.only_mount()?,
        };
        self.operate(mount, wanted, confirmed).await
    }

    /// For all mounts, until the daemon is restarted.
    pub(super) fn limit_bandwidth(&self, rate: &str) -> CommandResult {
        let bytes = storage_number("recovery.bandwidth", rate)
            .map_err(|why| format!("{why}; as in `recover bandwidth 50MiB`"))?;
        self.set_bandwidth(bytes);
        Ok(ConsoleAnswer::new().fact("bandwidth", Value::Bytes(bytes)))
    }

    pub(super) fn limit_streams(&self, count: &str) -> CommandResult {
        let streams = storage_number("recovery.streams", count)
            .map_err(|why| format!("{why}; as in `recover streams 4`"))?;
        self.set_streams(streams);
        Ok(ConsoleAnswer::new().fact("streams", streams))
    }

    /// Bytes per second; 0: no limit.
    pub(super) fn set_bandwidth(&self, bytes: u64) {
        self.mirrors.limits().bandwidth.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn set_streams(&self, streams: u64) {
        let streams = usize::try_from(streams).unwrap_or(usize::MAX);
        self.mirrors.limits().streams.store(streams, Ordering::Relaxed);
    }

    async fn operate(
        &self,
        mount: &Arc<SharedMount>,
        wanted: Operate,
        confirmed: bool,
    ) -> CommandResult {
        let index = mount.index;
        if wanted == Operate::Start && !mount.is_online() && !mount.is_refilling() {
            return self.start_closed(mount, confirmed);
        }
        if wanted == Operate::Start && !confirmed {
            return Err(format!(
                "mount {index} serves: refilling takes it out of service until it was compared with a mirror, byte for \
                 byte of what differs; `recover {index} start --confirm` does it"
            ));
        }
        let gone = || format!("mount {index} has nobody who refills it: the daemon is stopping");
        let recovery = self.mirrors.recovery(index).ok_or_else(gone)?;
        let done = recovery.send(wanted).await.map_err(|_| gone())?;
        done.map_err(|problem| match problem.remedy.as_str() {
            "" => problem.message,
            remedy => format!("{}; {remedy}", problem.message),
        })?;
        Ok(self.recoveries(Some(mount)))
    }

    /// A mount that is out of service: an empty folder starts by itself, anything else needs the operator's word.
    fn start_closed(&self, mount: &SharedMount, confirmed: bool) -> CommandResult {
        let (index, published) = (mount.index, mount.published());
        let command = format!("recover {index} start --confirm");
        // The remedy names the command exactly where it does something: any other mount that is out of service is not
        // opened again for being told to.
        if published.state == MountState::Failed && !published.remedy.contains(&command) {
            return Err(format!(
                "mount {index} cannot be refilled as it is: {}; {}",
                published.why, published.remedy
            ));
        }
        if !confirmed {
            return Err(format!(
                "mount {index} is out of service: {} ({}). If it is to be refilled as it is, `recover {index} start \
                 --confirm` sets aside what its folder holds and begins",
                published.why, published.remedy
            ));
        }
        if published.state != MountState::Failed {
            return Err(format!("mount {index} is {}: {}", published.state, published.why));
        }
        mount.confirm_refill();
        Ok(ConsoleAnswer::new()
            .fact("mount", index)
            .fact("confirmed", true)
            .fact("next", "it begins within 10 s; `recover status` shows how far it is"))
    }

    pub(super) fn mount(&self, index: &str) -> Result<&Arc<SharedMount>, String> {
        let unknown = || format!("there is no mount {index}; `mounts` has their numbers");
        let index: MountIndex = index.parse().map_err(|_| unknown())?;
        self.room.placement.mount(index).map_err(|_| unknown())
    }

    fn only_mount(&self) -> Result<&Arc<SharedMount>, String> {
        match self.room.placement.mounts() {
            [mount] => Ok(mount),
            _ => Err("which mount? `recover MOUNT ...`, see `mounts`".to_owned()),
        }
    }

    fn recoveries(&self, only: Option<&Arc<SharedMount>>) -> ConsoleAnswer {
        let mounts = self.room.placement.mounts().iter();
        let wanted = |mount: &&Arc<SharedMount>| only.is_none_or(|only| only.index == mount.index);
        let rows = mounts.filter(wanted).map(|mount| row(mount)).collect();
        let columns = [
            "mount", "state", "phase", "cause", "source", "done", "total", "copied", "rate",
            "eta_ms", "missing", "why",
        ];
        ConsoleAnswer::new().table("recoveries", &columns, rows)
    }
}

fn row(mount: &SharedMount) -> Vec<Value> {
    let (refill, published) = (mount.refill(), mount.published());
    let state = refill.state.as_ref();
    let left = refill.total.saturating_sub(refill.done);
    let eta = left.saturating_mul(1000).checked_div(refill.rate);
    let busy = mount.is_refilling() && left > 0;
    let missing = state.map_or_else(String::new, |state| {
        let missing: Vec<String> = state.missing.iter().map(ToString::to_string).collect();
        missing.join(" ")
    });
    let why = if refill.why.is_empty() { &published.why } else { &refill.why };
    vec![
        mount.index.into(),
        published.state.as_str().into(),
        state.map_or("none", |state| state.phase.name()).into(),
        state.map_or("", |state| state.cause.name()).into(),
        refill.with.map_or(Value::Nothing, Into::into),
        Value::Bytes(refill.done),
        Value::Bytes(refill.total),
        Value::Bytes(state.map_or(0, |state| state.bytes)),
        Value::Bytes(if mount.is_refilling() { refill.rate } else { 0 }),
        eta.filter(|_| busy).map_or(Value::Nothing, Value::Millis),
        missing.into(),
        why.as_str().into(),
    ]
}
