//! `tracker.toml`.

use super::environment::Environment;
use super::error::SettingsError;
use super::reader::{Reader, Shown};
use super::shared::{self, AuthSettings, LimitSettings, ListenSettings, LogSettings, TlsSettings};
use super::spec::{STORAGE_KEYS, TRACKER_KEYS};
use super::{Loaded, Source};
use crate::cluster::view::PutPolicy;
use std::time::Duration;

/// Everything that a tracker can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerSettings {
    /// Where it listens.
    pub listen: ListenSettings,
    /// Keys.
    pub auth: AuthSettings,
    /// Certificates; `None`: plaintext.
    pub tls: Option<TlsSettings>,
    /// Who counts as alive.
    pub liveness: LivenessSettings,
    /// Where a put goes.
    pub put_policy: PutPolicy,
    /// What it takes.
    pub limits: LimitSettings,
    /// What it says.
    pub log: LogSettings,
    /// Every key with what holds and why, for `config show`.
    pub shown: Vec<Shown>,
    /// What an operator should hear about the configuration; nothing that stops the daemon.
    pub warnings: Vec<String>,
}

/// `[liveness]`, on a monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivenessSettings {
    /// How often storages report; they are told in the answer to each report.
    pub heartbeat_interval: Duration,
    /// Silent for so long: no new puts.
    pub suspect_after: Duration,
    /// Silent for so long: not routed to.
    pub offline_after: Duration,
    /// Steady for so long after `offline_after`: routed to again.
    pub readmit_after: Duration,
}

impl TrackerSettings {
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
            Reader::new(&name, &text, &given, environment, &TRACKER_KEYS, &STORAGE_KEYS)?;
        let mut settings = Self {
            listen: shared::read_listen(&mut reader),
            auth: shared::read_auth(&mut reader),
            tls: shared::read_tls(&mut reader, false),
            liveness: LivenessSettings {
                heartbeat_interval: reader.duration("liveness.heartbeat_interval"),
                suspect_after: reader.duration("liveness.suspect_after"),
                offline_after: reader.duration("liveness.offline_after"),
                readmit_after: reader.duration("liveness.readmit_after"),
            },
            put_policy: reader.choice(
                "routing.put_policy",
                PutPolicy::RoundRobin,
                &[("most_free", PutPolicy::MostFree), ("weighted", PutPolicy::Weighted)],
            ),
            limits: shared::read_limits(&mut reader),
            log: shared::read_log(&mut reader),
            shown: Vec::new(),
            warnings: Vec::new(),
        };
        if reader.is_clean() {
            shared::check_listen(&mut reader, &settings.listen, &settings.auth);
            check_liveness(&mut reader, &settings.liveness);
        }
        let (shown, warnings) = reader.finish()?;
        settings.shown = shown;
        settings.warnings.clone_from(&warnings);
        shared::load_keys(&mut settings.auth)?;
        Ok(Loaded { settings, warnings })
    }
}

/// One lost heartbeat changes nothing, and each state lasts a while.
fn check_liveness(reader: &mut Reader, liveness: &LivenessSettings) {
    if liveness.suspect_after < liveness.heartbeat_interval * 2 {
        reader.refuse(
            "liveness.suspect_after",
            format!("{:?}", liveness.suspect_after),
            "at least twice `liveness.heartbeat_interval`, so that one lost report changes nothing",
        );
    }
    if liveness.offline_after <= liveness.suspect_after {
        reader.refuse(
            "liveness.offline_after",
            format!("{:?}", liveness.offline_after),
            format!("more than `liveness.suspect_after` ({:?})", liveness.suspect_after),
        );
    }
}
