//! What the storages of a syncgroup tell each other of themselves, so that an operator hears of what should be the same
//! and is not: clocks, settings, mounts, versions. Nothing rests on it but words in `status`.
//!
//! Invariants: a storage that tells nothing (an older minor) differs in nothing. What is kept of another machine is
//! bounded, whatever it sends (P7).

use crate::format::ids::MountIndex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Clocks that are further apart than this are named, milliseconds. Far above what a busy machine takes to answer.
pub const CLOCK_OFF_MS: u64 = 10_000;

/// Keys whose values should be the same on all members: what an acknowledgement means, and what becomes of an object, would
/// else depend on who happened to be asked.
pub const COMMON_KEYS: [&str; 7] = [
    "durability.acks",
    "durability.when_alone",
    "durability.sync",
    "store.chunkfile_size",
    "store.single_file_threshold",
    "store.undelete_window",
    "store.reserve_free",
];

/// Longest text that is kept of another machine, bytes.
const TEXT_MAX: usize = 64;

/// What a storage tells of itself; travels as a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Particulars {
    /// Its wall clock, milliseconds since 1970; 0: not told.
    #[serde(default)]
    pub clock_ms: u64,
    /// Version of its software; empty: not told.
    #[serde(default)]
    pub version: String,
    /// The mounts of its configuration; empty: not told.
    #[serde(default)]
    pub mounts: BTreeSet<MountIndex>,
    /// Values of [`COMMON_KEYS`].
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

impl Particulars {
    /// The same within bounds: only known keys, only short printable text.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let fits = |text: &str| text.len() <= TEXT_MAX && !text.chars().any(char::is_control);
        self.settings.retain(|key, value| COMMON_KEYS.contains(&key.as_str()) && fits(value));
        if !fits(&self.version) {
            self.version = String::new();
        }
        self
    }
}

/// Something in which two members differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unlike {
    /// A key of the configuration.
    Setting {
        /// Which.
        key: String,
        /// Its value here.
        here: String,
        /// And there.
        there: String,
    },
    /// Mounts that only one of them has.
    Mounts {
        /// Only here.
        here: Vec<MountIndex>,
        /// Only there.
        there: Vec<MountIndex>,
    },
    /// The software.
    Version {
        /// Here.
        here: String,
        /// There.
        there: String,
    },
}

/// In what two members differ that should not.
#[must_use]
pub fn unlike(here: &Particulars, there: &Particulars) -> Vec<Unlike> {
    let mut found = Vec::new();
    if !here.mounts.is_empty() && !there.mounts.is_empty() && here.mounts != there.mounts {
        found.push(Unlike::Mounts {
            here: here.mounts.difference(&there.mounts).copied().collect(),
            there: there.mounts.difference(&here.mounts).copied().collect(),
        });
    }
    for (key, ours) in &here.settings {
        if let Some(theirs) = there.settings.get(key).filter(|theirs| *theirs != ours) {
            found.push(Unlike::Setting {
                key: key.clone(),
                here: ours.clone(),
                there: theirs.clone(),
            });
        }
    }
    if !here.version.is_empty() && !there.version.is_empty() && here.version != there.version {
        found.push(Unlike::Version { here: here.version.clone(), there: there.version.clone() });
    }
    found
}

/// By how many milliseconds another clock is ahead of ours (negative: behind); 0 if it was not told.
#[must_use]
pub fn clock_ahead(ours_ms: u64, theirs_ms: u64) -> i64 {
    if theirs_ms == 0 { 0 } else { theirs_ms.cast_signed().saturating_sub(ours_ms.cast_signed()) }
}

/// Says that a clock is far off, in seconds; `None` if it is not.
#[must_use]
pub fn clock_far_off(ahead_ms: i64) -> Option<String> {
    let seconds = ahead_ms.unsigned_abs() / 1_000;
    let way = if ahead_ms > 0 { "ahead" } else { "behind" };
    (ahead_ms.unsigned_abs() > CLOCK_OFF_MS).then(|| format!("{seconds} s {way}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(mounts: &[MountIndex], acks: &str, version: &str) -> Particulars {
        Particulars {
            clock_ms: 1,
            version: version.to_owned(),
            mounts: mounts.iter().copied().collect(),
            settings: [("durability.acks".to_owned(), acks.to_owned())].into(),
        }
    }

    #[test]
    fn what_differs_is_named_and_nothing_else() {
        let ours = told(&[0, 1], "mirror", "1.2");
        assert_eq!(unlike(&ours, &ours), []);
        let theirs = told(&[1, 2], "all", "1.3");
        let found = unlike(&ours, &theirs);
        assert_eq!(found[0], Unlike::Mounts { here: vec![0], there: vec![2] });
        let setting = Unlike::Setting {
            key: "durability.acks".into(),
            here: "mirror".into(),
            there: "all".into(),
        };
        assert_eq!(found[1], setting);
        assert_eq!(found[2], Unlike::Version { here: "1.2".into(), there: "1.3".into() });
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn who_tells_nothing_is_never_called_different() {
        let ours = told(&[0], "mirror", "1");
        assert_eq!(unlike(&ours, &Particulars::default()), []);
        assert_eq!(unlike(&Particulars::default(), &ours), []);
        assert_eq!(clock_ahead(1_000_000, 0), 0);
    }

    #[test]
    fn what_is_kept_of_another_machine_is_bounded() {
        let mut theirs = told(&[0], &"x".repeat(TEXT_MAX + 1), "\u{1b}[2J");
        theirs.settings.insert("made.up".into(), "1".into());
        theirs.settings.insert("durability.sync".into(), "fsync".into());
        let kept = theirs.bounded();
        assert_eq!(kept.version, "");
        assert_eq!(kept.settings.keys().collect::<Vec<_>>(), ["durability.sync"]);
    }

    #[test]
    fn a_clock_is_named_only_when_it_is_far_off() {
        assert_eq!(clock_far_off(clock_ahead(50_000, 59_000)), None);
        assert_eq!(clock_far_off(clock_ahead(50_000, 41_000)), None);
        assert_eq!(clock_far_off(clock_ahead(0, 86_400_000)).as_deref(), Some("86400 s ahead"));
        assert_eq!(clock_far_off(clock_ahead(86_400_000, 1)).as_deref(), Some("86399 s behind"));
        assert_eq!(clock_ahead(0, u64::MAX), -1, "nonsense from the wire does not overflow");
    }
}
