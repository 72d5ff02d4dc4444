//! `storage.toml`.

use super::environment::Environment;
use super::error::SettingsError;
use super::reader::{Reader, Shown};
use super::shared::{self, AuthSettings, LimitSettings, ListenSettings, LogSettings, TlsSettings};
use super::spec::{STORAGE_KEYS, TRACKER_KEYS};
use super::storage_checks;
use super::units::Reserve;
use super::{Loaded, Source};
use std::path::PathBuf;
use std::time::Duration;

/// Everything that a storage can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageSettings {
    /// Where it listens.
    pub listen: ListenSettings,
    /// Where peers and clients find it; `None`: at the address that `listen` was bound to.
    pub advertise: Option<String>,
    /// Its group.
    pub group: String,
    /// Its syncgroup.
    pub syncgroup: String,
    /// Its number in the group, `1..=65535`.
    pub machine_id: u16,
    /// Whom it reports to.
    pub trackers: Vec<String>,
    /// What it remembers apart from the mounts; never inside one.
    pub state_dir: PathBuf,
    /// Share of new objects under `put_policy = "weighted"`.
    pub weight: u32,
    /// Its disks, by index, `1..=256` of them.
    pub mounts: Vec<MountSettings>,
    /// Keys.
    pub auth: AuthSettings,
    /// Certificates; `None`: plaintext.
    pub tls: Option<TlsSettings>,
    /// What an acknowledgement means (P1).
    pub durability: DurabilitySettings,
    /// How objects lie on disk.
    pub store: StoreSettings,
    /// Mirroring.
    pub sync: SyncSettings,
    /// Refilling a lost disk.
    pub recovery: RecoverySettings,
    /// Looking for damage.
    pub scrub: ScrubSettings,
    /// What it takes.
    pub limits: LimitSettings,
    /// Its threads.
    pub threads: ThreadSettings,
    /// What it says.
    pub log: LogSettings,
    /// Every key with what holds and why, for `config show`.
    pub shown: Vec<Shown>,
    /// What an operator should hear about the configuration; nothing that stops the daemon.
    pub warnings: Vec<String>,
}

/// One of `[[mounts]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSettings {
    /// Mirrors mirror the mount of the same index.
    pub index: u8,
    /// Its folder.
    pub path: PathBuf,
}

/// `[durability]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurabilitySettings {
    /// Whom an acknowledgement waits for.
    pub acks: Acks,
    /// What to do when `acks` cannot be had.
    pub when_alone: WhenAlone,
    /// What counts as written.
    pub sync: SyncMode,
}

/// Whom an acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// This machine's disk.
    Local,
    /// One mirror too.
    Mirror,
    /// Every configured member.
    All,
}

/// What to do when no mirror is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAlone {
    /// Acknowledge with `copies = 1`, marked degraded.
    Accept,
    /// Refuse.
    Refuse,
}

/// What counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// On stable storage: survives power loss.
    Fsync,
    /// In the page cache: survives kill -9, not power loss.
    Os,
}

/// Which mount takes a new object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountPolicy {
    /// One after the other.
    RoundRobin,
    /// The one with the most free bytes.
    MostFree,
}

/// `[store]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Bytes that a new chunkfile is preallocated to.
    pub chunkfile_size: u64,
    /// A payload of more bytes becomes a file of its own.
    pub single_file_threshold: u64,
    /// Room for edits in place.
    pub reserve: Reserve,
    /// Free bytes that inserts never eat.
    pub reserve_free: u64,
    /// How long a deleted object can be brought back.
    pub undelete_window: Duration,
    /// Chunkfiles that take fresh space at a time, `1..=64`.
    pub active_chunkfiles_per_mount: u8,
    /// Where a new object goes.
    pub mount_policy: MountPolicy,
}

/// `[sync]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncSettings {
    /// Unacknowledged bytes per peer and mount.
    pub window_bytes: u64,
    /// First wait before a lost peer is tried again.
    pub retry_min: Duration,
    /// Longest such wait.
    pub retry_max: Duration,
    /// Log kept per mount for a mirror that is away; beyond that it catches up by state.
    pub log_retention_bytes: u64,
    /// How often mirrors compare what they have, at most.
    pub compare_period: Duration,
}

/// `[recovery]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverySettings {
    /// Bytes per second; `None`: no limit.
    pub bandwidth: Option<u64>,
    /// Chunkfiles pulled at a time.
    pub streams: u8,
    /// How long to wait for members that are away.
    pub base_wait: Duration,
}

/// `[scrub]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubSettings {
    /// Whether it runs by itself.
    pub enabled: bool,
    /// Everything is read once in this time.
    pub period: Duration,
    /// Bytes per second per mount at most; `None`: no limit.
    pub bandwidth: Option<u64>,
}

/// `[threads]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadSettings {
    /// Threads that serve sockets.
    pub net: u8,
    /// Readers of one mount at most; they start when a read has to wait for the disk.
    pub read_per_mount: u8,
}

impl StorageSettings {
    /// Reads, merges and checks.
    ///
    /// # Errors
    /// The file cannot be read or is not TOML; any key is unknown, of the wrong type or out of bounds; keys contradict
    /// each other; the key file is bad.
    pub fn load(
        source: Source<'_>,
        environment: &Environment,
    ) -> Result<Loaded<Self>, SettingsError> {
        let (name, text, given) = source.read()?;
        let mut reader =
            Reader::new(&name, &text, &given, environment, &STORAGE_KEYS, &TRACKER_KEYS)?;
        let mounts = read_mounts(&mut reader);
        let state_dir = reader.path("state_dir");
        let mut settings = Self {
            listen: shared::read_listen(&mut reader),
            advertise: reader.host_port("advertise"),
            group: reader.name("group"),
            syncgroup: reader.name("syncgroup"),
            machine_id: reader.integer("machine_id"),
            trackers: reader.host_ports("trackers"),
            state_dir: state_dir.unwrap_or_else(|| storage_checks::state_dir_beside(&mounts)),
            weight: reader.integer("weight"),
            mounts,
            auth: shared::read_auth(&mut reader),
            tls: shared::read_tls(&mut reader, true),
            durability: read_durability(&mut reader),
            store: read_store(&mut reader),
            sync: SyncSettings {
                window_bytes: reader.size("sync.window_bytes"),
                retry_min: reader.duration("sync.retry_min"),
                retry_max: reader.duration("sync.retry_max"),
                log_retention_bytes: reader.size("sync.log_retention_bytes"),
                compare_period: reader.duration("sync.compare_period"),
            },
            recovery: RecoverySettings {
                bandwidth: reader.bandwidth("recovery.bandwidth"),
                streams: reader.integer("recovery.streams"),
                base_wait: reader.duration("recovery.base_wait"),
            },
            scrub: ScrubSettings {
                enabled: reader.switch("scrub.enabled"),
                period: reader.duration("scrub.period"),
                bandwidth: reader.bandwidth("scrub.bandwidth"),
            },
            limits: shared::read_limits(&mut reader),
            threads: ThreadSettings {
                net: reader.integer("threads.net"),
                read_per_mount: reader.integer("threads.read_per_mount"),
            },
            log: shared::read_log(&mut reader),
            shown: Vec::new(),
            warnings: Vec::new(),
        };
        if reader.is_clean() {
            shared::check_listen(&mut reader, &settings.listen, &settings.auth);
            storage_checks::check(&mut reader, &settings);
        }
        let (shown, warnings) = reader.finish()?;
        settings.shown = shown;
        settings.warnings.clone_from(&warnings);
        settings.mounts.sort_by_key(|mount| mount.index);
        shared::load_keys(&mut settings.auth)?;
        Ok(Loaded { settings, warnings })
    }
}

fn read_mounts(reader: &mut Reader) -> Vec<MountSettings> {
    let mut mounts = Vec::new();
    for i in 0..reader.mounts() {
        mounts.push(MountSettings {
            index: reader.integer(&format!("mounts[{i}].index")),
            path: reader.path(&format!("mounts[{i}].path")).unwrap_or_default(),
        });
    }
    mounts
}

fn read_durability(reader: &mut Reader) -> DurabilitySettings {
    DurabilitySettings {
        acks: reader.choice(
            "durability.acks",
            Acks::Mirror,
            &[("local", Acks::Local), ("all", Acks::All)],
        ),
        when_alone: reader.choice(
            "durability.when_alone",
            WhenAlone::Accept,
            &[("refuse", WhenAlone::Refuse)],
        ),
        sync: reader.choice("durability.sync", SyncMode::Fsync, &[("os", SyncMode::Os)]),
    }
}

fn read_store(reader: &mut Reader) -> StoreSettings {
    StoreSettings {
        chunkfile_size: reader.size("store.chunkfile_size"),
        single_file_threshold: reader.size("store.single_file_threshold"),
        reserve: reader.reserve("store.reserve"),
        reserve_free: reader.size("store.reserve_free"),
        undelete_window: reader.duration("store.undelete_window"),
        active_chunkfiles_per_mount: reader.integer("store.active_chunkfiles_per_mount"),
        mount_policy: reader.choice(
            "store.mount_policy",
            MountPolicy::RoundRobin,
            &[("most_free", MountPolicy::MostFree)],
        ),
    }
}
