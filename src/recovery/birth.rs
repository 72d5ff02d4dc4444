//! Decides what a mount is when a storage starts, or looks at it again: serve it, found it, or keep hands off.
//!
//! Pure: whoever calls has looked (facts) and remembers (memory); nothing here touches a disk. The rule behind all
//! rules: an empty folder is only *new* when nobody remembers it. Otherwise it is a disk that was not mounted, or
//! one that was lost, and serving it empty would turn a missing cable into deleted objects (P1, P3).
//!
//! | the mount's folder | nobody remembers it | remembered |
//! |---|---|---|
//! | right label | `Adopt` | `Serve` |
//! | cannot be read, or label and its copy damaged, or newer | `Failed` | `Failed` |
//! | another's label | `Failed: foreign` | `Failed: foreign` |
//! | absent | `Failed: missing` | `Failed: missing` |
//! | no label, was the root of a file system and is not now | - | `Failed: not mounted` |
//! | no label, but files | `Failed: foreign` | `Failed: foreign` |
//! | no label, empty | `New` | `BlankRemembered` |
//!
//! Memory is what the storage itself remembers, or else what its peers kept for it: the rules are the same.

use crate::format::envelope::FormatError;
use crate::format::ids::{MachineId, MountIndex};
use crate::format::label::Label;
use crate::format::memory::{Memory, RememberedMount};
use crate::format::paths::{LABEL, LABEL_TMP, LOST_AND_FOUND, RECOVERY_STATE, RECOVERY_STATE_TMP};
use std::fmt;

/// Which mount the configuration means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Group of the storage.
    pub group: &'a str,
    /// Its syncgroup.
    pub syncgroup: &'a str,
    /// Its machine id.
    pub machine: MachineId,
    /// Index of the mount.
    pub mount: MountIndex,
}

/// What stands at the mount's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// Nothing.
    Absent,
    /// It cannot be looked at, or is no folder; the reason as the system gave it.
    Unreadable(String),
    /// A folder.
    Present {
        /// Whether it is the root of a mounted file system.
        mount_root: bool,
    },
}

/// What was found of the label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelFact {
    /// There is no such file.
    Missing,
    /// The file cannot be read; the reason as the system gave it.
    Unreadable(String),
    /// It is no label that this program understands.
    Bad(FormatError),
    /// Read and checked.
    Found(Label),
}

/// What one look at a mount found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFacts<'a> {
    /// Which mount it should be.
    pub wanted: Wanted<'a>,
    /// What stands at its path.
    pub folder: Folder,
    /// Its label.
    pub label: LabelFact,
    /// Names in its root; only looked at when there is no label.
    pub names: &'a [String],
    /// Whether its refilling has begun ([`RECOVERY_STATE`] is there).
    pub refilling: bool,
}

/// What the mount is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The mount that we know: raise its start count and serve.
    Serve,
    /// Labelled by this storage, which has lost its memory (a moved container): remember it, then serve.
    Adopt,
    /// Nobody knows it: label it.
    New,
    /// Empty although it was in use: its content has to come from the mirrors before it serves.
    BlankRemembered {
        /// Uuid of the mount that was here.
        was: [u8; 16],
    },
    /// Hands off.
    Failed(Failure),
}

/// Why a mount is not touched. It is looked at again from time to time; the others serve meanwhile (P6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is nothing at its path.
    Missing,
    /// It was a mounted file system, and now its mount point is an ordinary folder.
    NotMounted,
    /// It belongs to somebody else.
    Foreign(Foreign),
    /// The folder or its label cannot be read.
    Unreadable(String),
    /// Its label and the copy of it are damaged: nothing proves whose it is.
    Damaged(FormatError),
    /// A later program labelled it.
    Newer(FormatError),
}

/// How a mount shows that it is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Its label names another cluster, machine or index.
    OtherPlace {
        /// `group/syncgroup, machine M, mount I` of the label.
        found: String,
    },
    /// Another storage with the same names labelled it.
    OtherInstance,
    /// This storage labelled it, but remembers another mount at this index.
    OtherMount,
    /// Files but no label; one of them.
    Leftovers(String),
}

/// Judges one mount.
///
/// `memory` is the storage's own or, if it has none, what its peers keep for it. While several mounts are judged
/// at a start, what was adopted counts as remembered for the next one.
#[must_use]
pub fn assess(facts: &MountFacts<'_>, memory: Option<&Memory>) -> Verdict {
    let known = memory.and_then(|memory| memory.mount(facts.wanted.mount));
    match (&facts.folder, &facts.label) {
        (Folder::Absent, _) => Verdict::Failed(Failure::Missing),
        (Folder::Unreadable(why), _) | (Folder::Present { .. }, LabelFact::Unreadable(why)) => {
            Verdict::Failed(Failure::Unreadable(why.clone()))
        }
        (Folder::Present { .. }, LabelFact::Bad(error)) => Verdict::Failed(bad_label(error)),
        (Folder::Present { .. }, LabelFact::Found(label)) => {
            judge_label(facts, label, memory, known)
        }
        (Folder::Present { mount_root }, LabelFact::Missing) => {
            judge_unlabelled(*mount_root, facts.names, known)
        }
    }
}

fn bad_label(error: &FormatError) -> Failure {
    match error {
        FormatError::Newer { .. } => Failure::Newer(error.clone()),
        FormatError::NotOurs(_) => Failure::Foreign(Foreign::Leftovers(LABEL.to_owned())),
        FormatError::Damaged(_) => Failure::Damaged(error.clone()),
    }
}

fn judge_label(
    facts: &MountFacts<'_>,
    label: &Label,
    memory: Option<&Memory>,
    known: Option<&RememberedMount>,
) -> Verdict {
    let wanted = facts.wanted;
    let same = label.group == wanted.group
        && label.syncgroup == wanted.syncgroup
        && label.machine == wanted.machine
        && label.mount == wanted.mount;
    let foreign = |how| Verdict::Failed(Failure::Foreign(how));
    if !same {
        let found = format!(
            "{}/{}, machine {}, mount {}",
            label.group, label.syncgroup, label.machine, label.mount
        );
        return foreign(Foreign::OtherPlace { found });
    }
    if memory.is_some_and(|memory| memory.instance != label.instance) {
        return foreign(Foreign::OtherInstance);
    }
    match known {
        None => Verdict::Adopt,
        Some(known) if known.uuid == label.mount_uuid => Verdict::Serve,
        // Killed between the label of a mount that is refilled, and the memory of it.
        Some(_) if facts.refilling => Verdict::Adopt,
        Some(_) => foreign(Foreign::OtherMount),
    }
}

fn judge_unlabelled(
    mount_root: bool,
    names: &[String],
    known: Option<&RememberedMount>,
) -> Verdict {
    if known.is_some_and(|known| known.was_mountpoint) && !mount_root {
        return Verdict::Failed(Failure::NotMounted);
    }
    if let Some(leftover) = leftovers(names).next() {
        return Verdict::Failed(Failure::Foreign(Foreign::Leftovers(leftover.to_owned())));
    }
    match known {
        Some(known) => Verdict::BlankRemembered { was: known.uuid },
        None => Verdict::New,
    }
}

/// What in a mount's root is neither the file system's own, nor a label that never got its name, nor the sign that it is
/// about to be refilled.
fn leftovers(names: &[String]) -> impl Iterator<Item = &str> {
    let ours = |name: &&str| {
        matches!(*name, LABEL_TMP | LOST_AND_FOUND | RECOVERY_STATE | RECOVERY_STATE_TMP)
    };
    names.iter().map(String::as_str).filter(move |name| !ours(name))
}

/// A uuid as people read it: 32 hexadecimal digits.
#[must_use]
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    data_encoding::HEXLOWER.encode(uuid)
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherPlace { found } => write!(f, "its label says {found}"),
            Self::OtherInstance => f.write_str("another storage with the same names labelled it"),
            Self::OtherMount => f.write_str("another mount was remembered at this index"),
            Self::Leftovers(name) => write!(f, "there is no label, but {name:?} is there"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing: there is nothing at its path"),
            Self::NotMounted => f.write_str(
                "not mounted: it was a mounted file system and is an ordinary folder now",
            ),
            Self::Foreign(how) => write!(f, "foreign: {how}"),
            Self::Unreadable(why) => write!(f, "unreadable: {why}"),
            Self::Damaged(error) => {
                write!(f, "unreadable: {error}, its copy too: nothing proves whose mount it is")
            }
            Self::Newer(error) => write!(f, "newer: {error}"),
        }
    }
}

impl Failure {
    /// What the operator can do.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Missing => "create or mount the folder; it is looked for again by itself",
            Self::NotMounted => {
                "mount its file system; it is looked at again by itself. If the folder is to take its place: `recover MOUNT \
                 start --confirm` on the console refills it from its mirrors"
            }
            Self::Foreign(Foreign::Leftovers(_)) => {
                "check the path in the configuration; a new mount starts from an empty folder. If it is the right folder: \
                 `recover MOUNT start --confirm` on the console sets aside what it holds and refills it from its mirrors"
            }
            Self::Foreign(
                Foreign::OtherPlace { .. } | Foreign::OtherInstance | Foreign::OtherMount,
            ) => {
                "check the path, machine_id and index in the configuration. If it is the right folder: `recover MOUNT start \
                 --confirm` on the console sets aside what it holds and refills it from its mirrors"
            }
            Self::Unreadable(_) => {
                "check the disk (dmesg, smartctl) and the permissions; after replacing the disk, mount an empty one"
            }
            Self::Damaged(_) => {
                "check the path and the disk (dmesg, smartctl); if it is this mount, `recover MOUNT start --confirm` on the \
                 console sets its files aside and refills it from its mirrors"
            }
            Self::Newer(_) => "start a folio that is at least as new; nothing here was changed",
        }
    }
}

#[cfg(test)]
#[path = "birth_tests.rs"]
mod tests;
