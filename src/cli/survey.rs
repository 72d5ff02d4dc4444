//! `list` and `df`: what the whole cluster holds.

use super::args;
use super::context::{Context, time_text};
use super::exit::{Failure, Outcome};
use super::say;
use crate::client::{Df, DfStorage};
use crate::cluster::opver::Opver;
use crate::messages::heads::DfMount;
use crate::settings::units::parse_duration;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;
use std::io::Write;

/// `folio list`: a line per object, `id length opver modified`, tab separated.
pub(super) async fn list(context: &Context, args: args::List) -> Outcome {
    let since_ms = args.since.as_deref().map(parse_since).transpose()?;
    let client = context.connect().await?;
    let mut list = client.list(args.group.as_deref(), since_ms);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let cannot = |e: std::io::Error| say::unwritten(&e);
    let mut failed: Option<Failure> = None;
    while let Some(listed) = list.next().await {
        let object = match listed {
            Ok(object) => object,
            Err(error) => {
                // The other storages are listed all the same; the exit code tells that it is not all.
                let failure = Failure::from(error);
                if let Some(earlier) = failed.replace(failure) {
                    earlier.print(context.json);
                }
                continue;
            }
        };
        let (id, opver) = (object.id.to_string(), Opver(object.opver).to_string());
        let (length, modified) = (object.length, time_text(object.modified_ms));
        let line = if context.json {
            json!({"id": id, "length": length, "opver": opver, "modified": modified}).to_string()
        } else {
            format!("{id}\t{length}\t{opver}\t{modified}")
        };
        writeln!(out, "{line}").map_err(cannot)?;
    }
    out.flush().map_err(cannot)?;
    failed.map_or(Ok(()), |failure| Err(failure.about("the list is not complete")))
}

/// A time, a date (midnight UTC), or how long ago.
fn parse_since(text: &str) -> Outcome<u64> {
    let ms = |time: jiff::Timestamp| u64::try_from(time.as_millisecond()).ok();
    if let Some(ago) = parse_duration(text) {
        let now = ms(jiff::Timestamp::now()).unwrap_or_default();
        return Ok(now.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)));
    }
    let time = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let date = text.parse::<jiff::civil::Date>().ok()?;
        Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    });
    time.and_then(ms).ok_or_else(|| {
        Failure::usage(
            format!("{text:?} is no time"),
            "--since 2026-11-22T10:00:00Z, 2026-11-22, or ago: 90m, 7d",
        )
    })
}

/// `folio df`.
pub(super) async fn df(context: &Context) -> Outcome {
    let client = context.connect().await?;
    let df = client.df().await?;
    for storage in &df.storages {
        if let Some(error) = &storage.error {
            say::aside(format_args!(
                "folio: {}: as last told to the tracker: {error}",
                name(storage)
            ));
        }
    }
    if context.json { say::line(df_json(&df)) } else { say::line(df_table(&df)) }
}

fn name(storage: &DfStorage) -> String {
    format!("{}/{} machine {}", storage.group, storage.syncgroup, storage.machine)
}

/// Sums over mounts.
#[derive(Clone, Copy, Default)]
struct Space {
    total: u64,
    free: u64,
    reserved: u64,
    live: u64,
    dead: u64,
    chunkfiles: u64,
}

impl Space {
    fn add(&mut self, mount: &DfMount) {
        self.total = self.total.saturating_add(mount.total);
        self.free = self.free.saturating_add(mount.free);
        self.reserved = self.reserved.saturating_add(mount.reserved);
        self.live = self.live.saturating_add(mount.live);
        self.dead = self.dead.saturating_add(mount.dead);
        self.chunkfiles = self.chunkfiles.saturating_add(mount.chunkfiles.into());
    }

    fn of<'a>(mounts: impl Iterator<Item = &'a DfMount>) -> Self {
        let mut sum = Self::default();
        mounts.for_each(|mount| sum.add(mount));
        sum
    }

    fn cells(&self) -> [String; 6] {
        let size = |bytes: u64| bytesize::ByteSize::b(bytes).display().iec().to_string();
        let Self { total, free, reserved, live, dead, chunkfiles } = *self;
        [size(total), size(free), size(reserved), size(live), size(dead), chunkfiles.to_string()]
    }
}

fn df_json(df: &Df) -> serde_json::Value {
    let storages: Vec<_> = df
        .storages
        .iter()
        .map(|s| {
            let mounts: Vec<_> = s
                .mounts
                .iter()
                .map(|m| {
                    json!({"mount": m.index, "state": m.state.to_string(), "why": m.why,
                        "total": m.total, "free": m.free, "reserved": m.reserved, "live": m.live,
                        "dead": m.dead, "chunkfiles": m.chunkfiles})
                })
                .collect();
            json!({"group": s.group, "syncgroup": s.syncgroup, "machine": s.machine,
                "address": s.address, "state": s.state.to_string(), "mounts": mounts,
                "error": s.error.as_ref().map(ToString::to_string)})
        })
        .collect();
    json!({"storages": storages})
}

/// A line per mount, and sums wherever there is something to add up.
fn df_table(df: &Df) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "GROUP",
        "SYNCGROUP",
        "MACHINE",
        "MOUNT",
        "STATE",
        "TOTAL",
        "FREE",
        "RESERVED",
        "LIVE",
        "DEAD",
        "CHUNKFILES",
    ]);
    let mut row = |names: [String; 5], space: Space| {
        table.add_row(names.into_iter().chain(space.cells()));
    };
    for (i, storage) in df.storages.iter().enumerate() {
        let DfStorage { group, syncgroup, machine, state, mounts, .. } = storage;
        for mount in mounts {
            let what = match (storage.error.is_some(), mount.why.as_str()) {
                (true, _) => format!("{state}"),
                (false, "") => mount.state.to_string(),
                (false, why) => format!("{}: {why}", mount.state),
            };
            let names = [group, syncgroup].map(Clone::clone);
            let [group, syncgroup] = names;
            let (machine, index) = (machine.to_string(), mount.index.to_string());
            row([group, syncgroup, machine, index, what], Space::of(std::iter::once(mount)));
        }
        if mounts.len() > 1 {
            let names = [group.clone(), syncgroup.clone(), machine.to_string()];
            let [group, syncgroup, machine] = names;
            let names = [group, syncgroup, machine, "*".to_owned(), state.to_string()];
            row(names, Space::of(mounts.iter()));
        }
        let next = df.storages.get(i + 1);
        let inside = |other: &&DfStorage| other.group == *group && other.syncgroup == *syncgroup;
        let star = || "*".to_owned();
        if !next.as_ref().is_some_and(inside) && df.storages.iter().filter(inside).count() > 1 {
            let names = [group.clone(), syncgroup.clone(), star(), star(), String::new()];
            row(names, Space::of(df.storages.iter().filter(inside).flat_map(|s| &s.mounts)));
        }
        let inside = |other: &&DfStorage| other.group == *group;
        let groups = df.storages.iter().filter(inside);
        let several = groups.clone().any(|other| other.syncgroup != *syncgroup);
        if !next.as_ref().is_some_and(inside) && several {
            let names = [group.clone(), star(), star(), star(), String::new()];
            row(names, Space::of(groups.flat_map(|s| &s.mounts)));
        }
        if next.is_none() && df.storages.iter().any(|other| other.group != *group) {
            let names = [star(), star(), star(), star(), String::new()];
            row(names, Space::of(df.storages.iter().flat_map(|s| &s.mounts)));
        }
    }
    for column in table.column_iter_mut().skip(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_never_misread() {
        assert_eq!(parse_since("1970-01-02").ok(), Some(86_400_000));
        assert_eq!(parse_since("1970-01-01T00:00:01Z").ok(), Some(1000));
        assert!(parse_since("7d").is_ok());
        for bad in ["", "yesterday", "2026-13-01", "12", "1969-01-01T00:00:00Z"] {
            assert_eq!(parse_since(bad).err().map(|e| e.exit_code()), Some(2), "{bad}");
        }
    }
}
