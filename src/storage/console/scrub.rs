//! `scrub`: what is verified in the background, what was found damaged, and what became of it.

use super::Sight;
use crate::actors::admin_console::{CommandResult, ConsoleAnswer, Value};
use crate::actors::ambient;
use crate::actors::content_fetch::on_pool;
use crate::actors::scrubber::Operate;
use crate::actors::shared_mount::SharedMount;
use crate::cluster::scrub::Pace;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const USAGE: &str = "expected `scrub [MOUNT] [status | start | pause | resume]`, with MOUNT an index out of `mounts`";
/// Damages that are named at a time.
const NAMED: usize = 100;

impl Sight {
    /// `scrub [MOUNT] [status|start|pause|resume]`; without a mount: of all.
    pub(super) async fn scrub(&self, words: &[String]) -> CommandResult {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (mount, rest) = match words.as_slice() {
            [first, rest @ ..] if first.bytes().all(|byte| byte.is_ascii_digit()) => {
                (Some(self.mount(first)?), rest)
            }
            all => (None, all),
        };
        let order = match rest {
            [] | ["status"] => return Ok(self.scrubs(mount).await),
            ["start"] => Operate::Start,
            ["pause"] => Operate::Pause,
            ["resume"] => Operate::Resume,
            _ => return Err(USAGE.to_owned()),
        };
        let all = self.room.placement.mounts().iter();
        for wanted in all.filter(|m| mount.is_none_or(|mount| mount.index == m.index)) {
            let index = wanted.index;
            let gone = || format!("nobody verifies mount {index}: the daemon is stopping");
            self.scrubs.of(index).ok_or_else(gone)?.send(order).await.map_err(|_| gone())?;
        }
        let said = match order {
            Operate::Start => "a round begins now, at the speed of scrub.bandwidth",
            Operate::Pause => "nothing is verified until `scrub resume`, also after a restart",
            Operate::Resume => "it goes on",
        };
        Ok(ConsoleAnswer::new().fact("scrub", said).fact("next", "`scrub` shows how far it is"))
    }

    async fn scrubs(&self, only: Option<&Arc<SharedMount>>) -> ConsoleAnswer {
        let mounts = self.room.placement.mounts().iter();
        let mounts: Vec<&Arc<SharedMount>> =
            mounts.filter(|m| only.is_none_or(|only| only.index == m.index)).collect();
        let mut rows = Vec::new();
        for mount in &mounts {
            let aside = kept_aside(mount).await;
            rows.push(self.scrub_row(mount, aside));
        }
        let columns = [
            "mount",
            "state",
            "done",
            "total",
            "rate",
            "eta_ms",
            "found",
            "repaired",
            "gone",
            "open",
            "by_reads",
            "last_finished",
            "kept_aside",
            "why",
        ];
        let answer = ConsoleAnswer::new().table("scrubs", &columns, rows);
        let mut open = Vec::new();
        for mount in mounts {
            for (damage, known) in mount.scrub.findings().open().take(NAMED) {
                open.push(vec![
                    mount.index.into(),
                    damage.to_string().into(),
                    since(known.since_ms).into(),
                    known.why.as_str().into(),
                ]);
            }
        }
        answer.table("damaged", &["mount", "what", "since", "why"], open)
    }

    fn scrub_row(&self, mount: &SharedMount, aside: Option<u64>) -> Vec<Value> {
        let status = mount.scrub.status();
        let enabled = self.scrubs.limits().enabled.load(Ordering::Relaxed);
        let state = match (mount.is_online(), status.paused, status.running) {
            (false, ..) => "waits for the mount",
            (true, ..) if mount.scrub.is_ordered() => "about to do as told",
            (true, true, _) => "paused",
            (true, false, true) if status.at_once => "running at full speed",
            (true, false, true) => "running",
            (true, false, false) if enabled => "resting",
            (true, false, false) => "off",
        };
        let left = status.total.saturating_sub(status.done);
        let running = status.running && !status.paused && mount.is_online();
        let eta = left.saturating_mul(1000).checked_div(status.rate).filter(|_| running);
        let findings = mount.scrub.findings();
        vec![
            mount.index.into(),
            state.into(),
            Value::Bytes(status.done),
            Value::Bytes(status.total),
            Value::Bytes(status.rate),
            eta.map_or(Value::Nothing, Value::Millis),
            findings.found.into(),
            findings.repaired.into(),
            findings.gone.into(),
            (findings.open_count() as u64).into(),
            findings.by_reads.into(),
            since(status.finished_ms).into(),
            aside.map_or(Value::Nothing, Value::Bytes),
            status.why.as_str().into(),
        ]
    }

    /// What is damaged and could not be repaired, and what was not verified for too long.
    pub(super) fn scrub_warnings(&self) -> Vec<(String, String)> {
        let limits = self.scrubs.limits();
        let pace = Pace {
            period_ms: limits.period_ms.load(Ordering::Relaxed),
            bandwidth: limits.bandwidth.load(Ordering::Relaxed),
            at_once: false,
        };
        let (mut all, now_ms) = (Vec::new(), ambient::wall_ms());
        for mount in self.room.placement.mounts().iter().filter(|mount| mount.is_online()) {
            let (index, status) = (mount.index, mount.scrub.status());
            let open = mount.scrub.findings().open_count();
            if open > 0 {
                let noun = if open == 1 { "damaged object" } else { "damaged objects" };
                all.push((
                    format!("{open} {noun} of mount {index} could not be repaired"),
                    format!(
                        "`scrub {index}` names them; bring back the mirrors that are away, then `scrub {index} start`; \
                         what no mirror has is put in again from a backup with `folio modify`, or deleted"
                    ),
                ));
            }
            let since_ms =
                if status.finished_ms == 0 { status.begun_ms } else { status.finished_ms };
            if since_ms > 0 && pace.is_overdue(since_ms, now_ms) {
                let days = now_ms.saturating_sub(since_ms) / 86_400_000;
                let remedy = if status.paused {
                    format!("`scrub {index} resume`")
                } else if limits.enabled.load(Ordering::Relaxed) {
                    format!(
                        "`scrub {index} start`; if that is too slow, `config set scrub.bandwidth`"
                    )
                } else {
                    format!("`scrub {index} start`, and set scrub.enabled = true")
                };
                let what =
                    format!("scrub overdue: mount {index} was not verified whole for {days} days");
                all.push((what, remedy));
            }
        }
        all
    }

    /// `config set scrub.bandwidth VALUE`.
    pub(super) fn set_scrub_bandwidth(&self, bytes: u64) {
        self.scrubs.limits().bandwidth.store(bytes, Ordering::Relaxed);
        for mount in self.room.placement.mounts() {
            mount.scrub.wake();
        }
    }
}

/// Bytes in `damaged/` of a mount; `None`: it is out of service.
async fn kept_aside(mount: &SharedMount) -> Option<u64> {
    let shelf = Arc::clone(&mount.open().ok()?.shelf);
    let (_, bytes) = on_pool(mount, move || shelf.kept_aside()).await.ok()?.ok()?;
    Some(bytes)
}

/// When, as people read it.
pub(super) fn since(ms: u64) -> String {
    if ms == 0 {
        return String::new();
    }
    let time = i64::try_from(ms / 1000).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    time.map_or_else(String::new, |time| time.to_string())
}
