//! `folio fsck`: prints what is found as it is found, and at the end `clean` or how much it was.
//!
//! Exit 0: clean. 1: findings. 2: usage, or a daemon serves the mount.

use super::args::Fsck as Arguments;
use super::context::Context;
use super::exit::{Failure, Outcome};
use super::say;
use crate::fsck::finding::{Finding, Kept, Kind, Sink};
use crate::fsck::medium::Folder;
use crate::fsck::{MemoryFile, Options, Summary, check, storage_of};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Findings of one mount that are printed; of the others only the number.
const PRINTED_MAX: u64 = 1_000;

/// Prints while it collects.
struct Printer {
    kept: Kept,
    json: bool,
    /// Whether what was printed so far could be written; the check goes on all the same.
    said: Outcome,
}

impl Printer {
    fn say(&mut self, text: std::fmt::Arguments<'_>) {
        if !self.json && self.said.is_ok() {
            self.said = say::line(text);
        }
    }
}

impl Sink for Printer {
    fn finding(&mut self, finding: Finding) {
        if self.kept.count < PRINTED_MAX {
            self.say(format_args!("{finding}"));
        }
        self.kept.finding(finding);
    }

    fn note(&mut self, note: String) {
        self.say(format_args!("note: {note}"));
        self.kept.note(note);
    }
}

/// Checks mounts.
///
/// # Errors
/// Exit 2: a folder cannot be read, or a daemon has it. Exit 1: something was found.
pub(super) fn fsck(context: &Context, arguments: &Arguments) -> Outcome {
    let mut folders = Vec::new();
    for path in &arguments.mounts {
        folders.push((path, open(path)?));
    }
    let mut mounts = Vec::new();
    let (mut total, mut seen) = (0, Vec::<String>::new());
    for (path, folder) in &folders {
        let mut printer = Printer { kept: Kept::default(), json: context.json, said: Ok(()) };
        printer.say(format_args!("{}:", path.display()));
        let summary = one(folder, path, arguments.state_dir.as_deref(), &mut printer)?;
        if !summary.mount_uuid.is_empty() && seen.contains(&summary.mount_uuid) {
            printer.finding(Finding {
                kind: Kind::TwoMountsAlike,
                path: "folio.mount".to_owned(),
                offset: None,
                what: format!("mount {} stands in two of these folders", summary.mount_uuid),
            });
        }
        seen.push(summary.mount_uuid.clone());
        if folder.is_served().map_err(|error| Failure::io("read", path, &error))? {
            return Err(served(
                path,
                "began to serve this mount meanwhile: what was found may be wrong",
            ));
        }
        total += printer.kept.count;
        report(&summary, &mut printer);
        printer.said.clone()?;
        mounts.push(document(path, &summary, &printer.kept));
    }
    if context.json {
        say::line(json!({"findings": total, "clean": total == 0, "mounts": mounts}))?;
    } else {
        say::line(verdict(total))?;
    }
    match total {
        0 => Ok(()),
        _ => Err(Failure::failed(verdict(total), "each finding says what it means and what to do")),
    }
}

fn open(path: &Path) -> Outcome<Folder> {
    let unreadable = |error: std::io::Error| {
        let message = format!("cannot read {}: {error}", path.display());
        Failure::usage(message, "name the folders of mounts, as in the storage's configuration")
    };
    let folder = Folder::open(path).map_err(unreadable)?;
    if folder.is_served().map_err(unreadable)? {
        return Err(served(path, "serves this mount"));
    }
    Ok(folder)
}

fn served(path: &Path, what: &str) -> Failure {
    let message = format!("{}: a daemon {what}", path.display());
    Failure::usage(message, "stop the storage first (`systemctl stop folio-storage`, or SIGTERM)")
}

fn one(
    folder: &Folder,
    path: &Path,
    state_dir: Option<&Path>,
    printer: &mut Printer,
) -> Outcome<Summary> {
    let place = storage_of(folder).and_then(|storage| memory_of(path, state_dir, &storage));
    let bytes = match &place {
        Some(place) => match std::fs::read(place) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::io("read", place, &error)),
        },
        None => None,
    };
    let shown = place.unwrap_or_default().display().to_string();
    let memory = bytes.as_deref().map(|bytes| MemoryFile { path: &shown, bytes });
    Ok(check(folder, memory, Options::default(), printer))
}

fn memory_of(mount: &Path, state_dir: Option<&Path>, storage: &str) -> Option<PathBuf> {
    let state = match state_dir {
        Some(state) => state.to_owned(),
        None => mount.canonicalize().ok()?.parent()?.join(".folio-state"),
    };
    Some(state.join(storage).join("memory"))
}

fn verdict(total: u64) -> String {
    match total {
        0 => "clean".to_owned(),
        1 => "1 finding".to_owned(),
        n => format!("{n} findings"),
    }
}

fn report(summary: &Summary, printer: &mut Printer) {
    let count = printer.kept.count;
    if count > PRINTED_MAX {
        printer.say(format_args!("... and {} more", count - PRINTED_MAX));
    }
    let Summary { chunkfiles, objects, bytes, singles, segments, records, conflicts, .. } = summary;
    printer.say(format_args!(
        "  {objects} objects with {bytes} bytes in {chunkfiles} chunkfiles and {singles} singlefiles, \
         {records} records in {segments} log segments, {conflicts} conflicts"
    ));
}

fn document(path: &Path, summary: &Summary, kept: &Kept) -> Value {
    let findings: Vec<Value> = kept
        .findings
        .iter()
        .map(|finding| {
            json!({
                "kind": finding.kind.name(),
                "path": finding.path,
                "offset": finding.offset,
                "what": finding.what,
                "means": finding.kind.means(),
                "remedy": finding.kind.remedy(),
            })
        })
        .collect();
    json!({
        "path": path,
        "mount_uuid": summary.mount_uuid,
        "storage": summary.storage,
        "findings": findings,
        "findings_total": kept.count,
        "notes": kept.notes,
        "chunkfiles": summary.chunkfiles,
        "objects": summary.objects,
        "bytes": summary.bytes,
        "singlefiles": summary.singles,
        "segments": summary.segments,
        "records": summary.records,
        "records_to_replay": summary.to_replay,
        "conflicts": summary.conflicts,
    })
}
