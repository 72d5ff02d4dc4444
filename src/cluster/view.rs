//! What a tracker publishes and what a storage says of itself.
//!
//! All structures travel as maps of field names: fields are only ever added, with `#[serde(default)]`, and those of a
//! newer minor are skipped. Enumerations travel as one byte; a value that a newer minor introduced reads as the most
//! careful one known here (never "writable", never "online").
//!
//! Invariants
//! - The view is a hash tree group -> syncgroup -> machine id -> storage. A machine id stands once in a group.
//! - `epoch` rises with every change that matters to routing (who, where, state, writable); the free space and load
//!   in it are as of the last publication and do not raise it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::format::file_id::is_name;
use crate::format::ids::{MachineId, MountIndex};

/// One life of a storage's identity: drawn at its birth, kept in its state directory.
pub type Instance = [u8; 16];

/// Longest address, version or reason that is kept, in bytes.
pub const TEXT_LEN_MAX: usize = 256;
/// Most mounts of one storage.
pub const MOUNTS_MAX: usize = 256;

/// Makes an enumeration that travels as one byte and is shown by a word.
macro_rules! byte_enum {
    ($(#[$meta:meta])* $name:ident, unknown = $unknown:ident { $($(#[$vmeta:meta])* $variant:ident = $byte:literal $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(from = "u8", into = "u8")]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// The word that people and configuration files use.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Every value, in the order of the bytes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
        }

        impl From<u8> for $name {
            fn from(byte: u8) -> Self {
                match byte { $($byte => Self::$variant,)+ _ => Self::$unknown }
            }
        }

        impl From<$name> for u8 {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => $byte),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            /// The word back. The error lists what is allowed.
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("expected one of {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}

byte_enum! {
    /// How the tracker judges a storage, see [`super::liveness`].
    State, unknown = Offline {
        /// Heard of again after it was offline, not yet steady.
        Joining = 1 "joining",
        /// Steady heartbeats, takes everything.
        Online = 2 "online",
        /// Silent for `suspect_after`: no new puts, everything else still goes there.
        Suspect = 3 "suspect",
        /// Silent for `offline_after`.
        Offline = 4 "offline",
        /// Steady, and says that it is rebuilding all of its mounts.
        Recovering = 5 "recovering",
        /// Steady, and takes no changes (operator).
        ReadOnly = 6 "readonly",
        /// Steady, and about to stop or to be emptied: no new puts.
        Draining = 7 "draining",
    }
}

byte_enum! {
    /// What a storage declares of itself as a whole.
    Service, unknown = ReadOnly {
        /// Everything.
        Serving = 1 "serving",
        /// No mount of it serves; it rebuilds them.
        Recovering = 2 "recovering",
        /// No changes.
        ReadOnly = 3 "readonly",
        /// No new objects.
        Draining = 4 "draining",
        /// Not yet.
        Starting = 5 "starting",
    }
}

byte_enum! {
    /// State of one mount.
    MountState, unknown = Failed {
        /// Reads and changes.
        Online = 1 "online",
        /// Being rebuilt from its mirrors: not routed to.
        Recovering = 2 "recovering",
        /// Reads only.
        ReadOnly = 3 "readonly",
        /// Fenced (P6): missing, not mounted, foreign, or a failed fsync (R9).
        Failed = 4 "failed",
    }
}

byte_enum! {
    /// How the storage of a put is chosen.
    PutPolicy, unknown = RoundRobin {
        /// One after the other.
        RoundRobin = 1 "round_robin",
        /// The one with the most free bytes above its reserve.
        MostFree = 2 "most_free",
        /// In proportion to the configured `weight`.
        Weighted = 3 "weighted",
    }
}

/// One mount of a storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountView {
    /// Mount index.
    pub index: MountIndex,
    /// Its state.
    pub state: MountState,
    /// Size of the file system, bytes.
    pub total: u64,
    /// Free for an unprivileged writer, bytes.
    pub free: u64,
    /// `reserve_free`, bytes: refused to inserts.
    pub reserved: u64,
    /// Whether it takes new objects now (the storage's own judgement; it enforces it, too).
    pub writable: bool,
    /// Why it is not `online`; empty if it is. At most [`TEXT_LEN_MAX`] bytes.
    #[serde(default)]
    pub reason: String,
}

impl MountView {
    /// Bytes that inserts may still take.
    #[must_use]
    pub const fn usable(&self) -> u64 {
        self.free.saturating_sub(self.reserved)
    }
}

/// How busy a storage is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Requests answered per second, over the last few seconds.
    pub requests_per_second: u64,
    /// Requests in flight.
    pub in_flight_requests: u64,
    /// Bytes in flight.
    pub in_flight_bytes: u64,
    /// How long a change waits before it is begun, microseconds.
    pub queue_delay_us: u64,
}

/// What a storage says of itself in every heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageReport {
    /// Group.
    pub group: String,
    /// Syncgroup.
    pub syncgroup: String,
    /// Machine id, unique in the group.
    pub machine: MachineId,
    /// Instance uuid: tells two machines with the same id apart.
    #[serde(with = "serde_bytes")]
    pub instance: Instance,
    /// Address that peers and clients are told, `HOST:PORT`.
    pub advertise: String,
    /// Address of its admin console.
    pub admin: String,
    /// Version of the software.
    pub version: String,
    /// Weight for the `weighted` policy.
    pub weight: u32,
    /// Its own declaration.
    pub service: Service,
    /// Its mounts, at most [`MOUNTS_MAX`].
    pub mounts: Vec<MountView>,
    /// Its load.
    pub load: Load,
    /// Its wall clock, milliseconds since 1970; 0: not told.
    #[serde(default)]
    pub clock_ms: u64,
}

/// Why a report is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReport {
    /// A field is empty, too long or not printable; a name is none that an id could hold.
    #[error("heartbeat refused: {field} is empty, longer than allowed or not printable")]
    Field {
        /// Which one.
        field: &'static str,
    },
    /// More than [`MOUNTS_MAX`] mounts, or one twice.
    #[error("heartbeat refused: mounts are listed twice or are more than 256")]
    Mounts,
}

impl StorageReport {
    /// Checks every bound (P7: what a heartbeat makes a tracker remember is limited).
    pub fn validate(&self) -> Result<(), BadReport> {
        for (field, name) in [("group", &self.group), ("syncgroup", &self.syncgroup)] {
            if !is_name(name) {
                return Err(BadReport::Field { field });
            }
        }
        let texts = [
            ("advertise", &self.advertise, true),
            ("admin", &self.admin, false),
            ("version", &self.version, false),
        ];
        for (field, text, needed) in texts {
            if text.len() > TEXT_LEN_MAX
                || (needed && text.is_empty())
                || text.chars().any(char::is_control)
            {
                return Err(BadReport::Field { field });
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        if self.mounts.len() > MOUNTS_MAX || !self.mounts.iter().all(|m| seen.insert(m.index)) {
            return Err(BadReport::Mounts);
        }
        if self
            .mounts
            .iter()
            .any(|m| m.reason.len() > TEXT_LEN_MAX || m.reason.chars().any(char::is_control))
        {
            return Err(BadReport::Field { field: "mount reason" });
        }
        Ok(())
    }
}

/// A storage as the tracker sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageView {
    /// Machine id, unique in the group.
    pub machine: MachineId,
    /// Instance uuid.
    #[serde(with = "serde_bytes")]
    pub instance: Instance,
    /// Where it serves.
    pub advertise: String,
    /// Where its console is.
    pub admin: String,
    /// The tracker's judgement.
    pub state: State,
    /// Weight for the `weighted` policy.
    pub weight: u32,
    /// Version of its software.
    pub version: String,
    /// Its mounts by index.
    pub mounts: Vec<MountView>,
    /// Its load.
    pub load: Load,
}

impl StorageView {
    /// One of its mounts.
    #[must_use]
    pub fn mount(&self, index: MountIndex) -> Option<&MountView> {
        self.mounts.iter().find(|mount| mount.index == index)
    }
}

/// The storages that mirror each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncgroupView {
    /// By machine id.
    pub storages: BTreeMap<MachineId, StorageView>,
}

/// A named set of storages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// By name.
    pub syncgroups: BTreeMap<String, SyncgroupView>,
}

/// The cluster as one tracker sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Rises with every change that matters to routing. Comparable between answers of one tracker life only.
    pub epoch: u64,
    /// Drawn at the tracker's start, so that a cached epoch of a former life or of another tracker is not mistaken.
    #[serde(with = "serde_bytes")]
    pub tracker: Instance,
    /// The tracker's put policy.
    pub put_policy: PutPolicy,
    /// By name.
    pub groups: BTreeMap<String, GroupView>,
}

impl ClusterView {
    /// A view of nothing.
    #[must_use]
    pub const fn empty(tracker: Instance, put_policy: PutPolicy) -> Self {
        Self { epoch: 0, tracker, put_policy, groups: BTreeMap::new() }
    }

    /// A storage by its names.
    #[must_use]
    pub fn storage(
        &self,
        group: &str,
        syncgroup: &str,
        machine: MachineId,
    ) -> Option<&StorageView> {
        self.groups.get(group)?.syncgroups.get(syncgroup)?.storages.get(&machine)
    }

    /// Every storage with the names that lead to it.
    pub fn storages(&self) -> impl Iterator<Item = (&str, &str, &StorageView)> {
        self.groups.iter().flat_map(|(group, view)| {
            view.syncgroups.iter().flat_map(move |(syncgroup, view)| {
                view.storages.values().map(move |s| (group.as_str(), syncgroup.as_str(), s))
            })
        })
    }

    /// Whether a client or storage that routes by `other` would be told something else by this view. Free space and
    /// load do not count.
    #[must_use]
    pub fn routes_alike(&self, other: &Self) -> bool {
        let key = |(group, syncgroup, s): (&str, &str, &StorageView)| {
            let mounts: Vec<_> =
                s.mounts.iter().map(|m| (m.index, m.state, m.writable, m.reason.clone())).collect();
            let names = (group.to_owned(), syncgroup.to_owned(), s.machine, s.instance);
            (
                names,
                s.advertise.clone(),
                s.admin.clone(),
                s.state,
                s.weight,
                s.version.clone(),
                mounts,
            )
        };
        self.put_policy == other.put_policy
            && self.storages().map(key).eq(other.storages().map(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_state_of_a_newer_minor_never_reads_as_usable() {
        assert_eq!(State::from(200), State::Offline);
        assert_eq!(Service::from(200), Service::ReadOnly);
        assert_eq!(MountState::from(0), MountState::Failed);
        for state in State::ALL {
            assert_eq!(State::from(u8::from(*state)), *state);
            assert_eq!(state.as_str().parse(), Ok(*state));
        }
        assert_eq!(
            "best".parse::<PutPolicy>(),
            Err("expected one of round_robin, most_free, weighted".to_owned())
        );
    }

    #[test]
    fn a_report_without_bounds_is_refused() {
        let good = StorageReport {
            group: "g".into(),
            syncgroup: "a".into(),
            machine: 1,
            instance: [1; 16],
            advertise: "127.0.0.1:1".into(),
            admin: String::new(),
            version: "1".into(),
            weight: 1,
            service: Service::Serving,
            mounts: Vec::new(),
            load: Load::default(),
            clock_ms: 0,
        };
        assert_eq!(good.validate(), Ok(()));
        let empty = StorageReport { group: String::new(), ..good.clone() };
        assert_eq!(empty.validate(), Err(BadReport::Field { field: "group" }));
        let long = StorageReport { advertise: "x".repeat(TEXT_LEN_MAX + 1), ..good.clone() };
        assert_eq!(long.validate(), Err(BadReport::Field { field: "advertise" }));
        let escape = StorageReport { version: "\u{1b}[2J".into(), ..good.clone() };
        assert_eq!(escape.validate(), Err(BadReport::Field { field: "version" }));
        let mount = MountView {
            index: 0,
            state: MountState::Online,
            total: 0,
            free: 0,
            reserved: 0,
            writable: true,
            reason: String::new(),
        };
        let twice = StorageReport { mounts: vec![mount.clone(), mount], ..good };
        assert_eq!(twice.validate(), Err(BadReport::Mounts));
    }
}
