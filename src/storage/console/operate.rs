//! What an operator does to a storage: `readonly`, `drain`, `config`, `requests`.
//!
//! `readonly` refuses every change of an object; reads go on, and so does what mirrors send. `drain` refuses new objects
//! only, and says when the mirrors have everything that is here, so that the daemon may be stopped.

use super::Sight;
use crate::actors::admin_console::{CommandResult, ConsoleAnswer, Value};
use crate::actors::meter::{Answered, RECORDED};
use crate::actors::storage_room::Writes;
use crate::format::file_id::FileId;
use crate::messages::opcode::Opcode;
use crate::operate;
use crate::settings::units::parse_duration;
use crate::storage::hand_over;
use std::time::Duration;

/// How long `drain` waits before it says what is still missing.
const DRAIN_WAIT: Duration = Duration::from_secs(20);
/// How often it looks.
const DRAIN_LOOK: Duration = Duration::from_millis(100);
/// Requests that are shown unless told otherwise.
const REQUESTS: usize = 50;

impl Sight {
    /// `readonly on|off`.
    pub(super) fn readonly(&self, words: &[String]) -> CommandResult {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["on"] => self.room.set_writes(Writes::ReadOnly),
            ["off"] => self.room.set_writes(Writes::Taken),
            _ => return Err("expected `readonly on` or `readonly off`".to_owned()),
        }
        Ok(ConsoleAnswer::new()
            .fact("readonly", self.room.writes() == Writes::ReadOnly)
            .fact("until", "the next start, or `readonly off`"))
    }

    /// `drain [off]`.
    pub(super) async fn drain(&self, words: &[String]) -> CommandResult {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] => {}
            ["off"] => {
                self.room.set_writes(Writes::Taken);
                return Ok(ConsoleAnswer::new().fact("state", "it takes new objects again"));
            }
            _ => return Err("expected `drain` or `drain off`".to_owned()),
        }
        self.room.set_writes(Writes::Draining);
        let mut waited = Duration::ZERO;
        while !self.uncovered().is_empty() && waited < DRAIN_WAIT {
            tokio::time::sleep(DRAIN_LOOK).await;
            waited += DRAIN_LOOK;
        }
        let missing = self.uncovered();
        let answer = ConsoleAnswer::new().fact("state", "draining: no new objects are taken");
        let next = if missing.is_empty() {
            "`shutdown`; `drain off` takes it back"
        } else {
            "`drain` again, once the mirrors below have what is here"
        };
        Ok(answer.fact("may_be_stopped", missing.is_empty()).fact("next", next).table(
            "waits_for",
            &["mount", "why"],
            missing,
        ))
    }

    fn uncovered(&self) -> Vec<Vec<Value>> {
        let rows = hand_over::uncovered(&self.room).into_iter();
        rows.map(|(mount, why)| vec![mount.into(), why.into()]).collect()
    }

    /// `config [show [PART]|set KEY VALUE]`.
    pub(super) fn config(&self, words: &[String]) -> CommandResult {
        let budget = &self.room.budget;
        let requests =
            |number: u64| budget.set_requests_max(usize::try_from(number).unwrap_or(usize::MAX));
        let bytes = |bytes: u64| budget.set_bytes_max(bytes);
        let reserve = |bytes: u64| {
            for mount in self.room.placement.mounts() {
                mount.set_reserve_free(bytes);
            }
        };
        let scrub = |bytes: u64| self.set_scrub_bandwidth(bytes);
        let bandwidth = |bytes: u64| self.set_bandwidth(bytes);
        let streams = |streams: u64| self.set_streams(streams);
        let own: [operate::Changeable<'_>; 6] = [
            ("limits.in_flight_requests", &requests),
            ("limits.in_flight_bytes", &bytes),
            ("store.reserve_free", &reserve),
            ("scrub.bandwidth", &scrub),
            ("recovery.bandwidth", &bandwidth),
            ("recovery.streams", &streams),
        ];
        operate::config(words, &self.settings.shown, &own)
    }

    /// `requests [FILTER...]`: the flight recorder.
    pub(super) fn requests(&self, words: &[String]) -> CommandResult {
        let filter = Filter::parse(words)?;
        let pass = |answered: &Answered| filter.passes(answered, &self.id_text(answered));
        let found = self.room.meter.recorded(filter.last, pass);
        let rows = found.iter().map(|answered| {
            let stages = &answered.stages;
            let micros = |us: u64| if us == 0 { Value::Nothing } else { us.into() };
            let log = stages.durable_us.saturating_sub(stages.staged_us);
            let mirror = match stages.durable_us {
                0 => 0,
                durable => answered.total_us.saturating_sub(durable),
            };
            vec![
                time(answered.at_ms).into(),
                answered.who.as_ref().into(),
                op(answered.opcode).into(),
                self.id_text(answered).into(),
                Value::Bytes(answered.bytes),
                micros(stages.staged_us),
                micros(log),
                micros(mirror),
                answered.total_us.into(),
                answered.refused.map_or("ok", |code| code.name()).into(),
            ]
        });
        let columns = [
            "at",
            "who",
            "op",
            "id",
            "bytes",
            "queue_us",
            "log_us",
            "mirror_us",
            "total_us",
            "result",
        ];
        Ok(ConsoleAnswer::new().table("requests", &columns, rows.collect()))
    }

    fn id_text(&self, answered: &Answered) -> String {
        let Some(object) = answered.object else { return String::new() };
        let (group, syncgroup) = (&self.settings.group, &self.settings.syncgroup);
        FileId::new(group, syncgroup, object, None)
            .map_or_else(|error| error.to_string(), |id| id.to_string())
    }
}

/// What `requests` is asked for.
struct Filter {
    op: Option<String>,
    result: Option<String>,
    who: Option<String>,
    id: Option<String>,
    slower_us: u64,
    last: usize,
}

impl Filter {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut filter =
            Self { op: None, result: None, who: None, id: None, slower_us: 0, last: REQUESTS };
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match (name, value) {
                ("op", value) => filter.op = Some(value.to_owned()),
                ("result", value) => filter.result = Some(value.to_owned()),
                ("who", value) => filter.who = Some(value.to_owned()),
                ("id", value) => filter.id = Some(value.to_owned()),
                ("slower", value) => {
                    let time = parse_duration(value).ok_or("slower=TIME, as in slower=10ms")?;
                    filter.slower_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                }
                ("last", value) => {
                    let last = value.parse().ok().filter(|n| (1..=RECORDED).contains(n));
                    filter.last = last.ok_or(format!("last=N, up to {RECORDED}"))?;
                }
                _ => {
                    return Err(format!(
                        "{word:?} is no filter: op=NAME result=CODE who=TEXT id=TEXT slower=TIME last=N"
                    ));
                }
            }
        }
        Ok(filter)
    }

    fn passes(&self, answered: &Answered, id: &str) -> bool {
        let result = answered.refused.map_or("ok", |code| code.name());
        self.op.as_ref().is_none_or(|wanted| *wanted == op(answered.opcode))
            && self.result.as_ref().is_none_or(|wanted| wanted == result)
            && self.who.as_ref().is_none_or(|wanted| answered.who.contains(wanted.as_str()))
            && self.id.as_ref().is_none_or(|wanted| {
                !id.is_empty() && wanted.starts_with(id) || id.contains(wanted.as_str())
            })
            && answered.total_us >= self.slower_us
    }
}

fn op(opcode: u16) -> String {
    Opcode::from_u16(opcode).map_or_else(|| format!("{opcode:#06x}"), |op| op.name().to_owned())
}

fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| ms.to_string(), |time| time.to_string())
}
