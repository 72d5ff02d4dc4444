//! Sections that both daemons have: `[auth]`, `[limits]`, `[tls]`, `[log]`, and the rules about who may listen where.

use super::error::KeysError;
use super::keys::{Keys, Secret};
use super::reader::Reader;
use crate::messages::handshake::KeyCheck;
use crate::messages::opcode::Role;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `[auth]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthSettings {
    /// Where the keys come from; `None`: keyless.
    pub key_file: Option<PathBuf>,
    /// The keys themselves; `None` when keyless.
    pub keys: Option<Keys>,
    /// Whether plaintext without a key is allowed beyond loopback.
    pub insecure: bool,
}

impl AuthSettings {
    /// What this daemon asks of a connection that declares `role`.
    #[must_use]
    pub fn key_check(&self, role: Role) -> KeyCheck {
        match &self.keys {
            None => KeyCheck::Open,
            Some(keys) if keys.of(role).is_empty() => KeyCheck::Shut,
            Some(_) => KeyCheck::Required,
        }
    }

    /// The secrets of a role; none when keyless.
    #[must_use]
    pub fn secrets(&self, role: Role) -> Vec<Secret> {
        self.keys.as_ref().map(|keys| keys.of(role).to_vec()).unwrap_or_default()
    }
}

/// `[limits]`: what a daemon takes before it answers `Busy` (R1, P7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// Connections at a time.
    pub max_connections: usize,
    /// Requests taken and not answered.
    pub in_flight_requests: usize,
    /// Bytes of payload taken and not answered.
    pub in_flight_bytes: u64,
    /// A connection without a request for so long is closed.
    pub idle_timeout: Duration,
    /// A connection must have introduced itself by then.
    pub handshake_timeout: Duration,
}

/// `[tls]`: files in PEM, read at the start and again whenever they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate of this machine, and those between it and the CA.
    pub cert: PathBuf,
    /// Its private key, mode 0600.
    pub key: PathBuf,
    /// Who signs the certificates of the cluster; a storage always has one.
    pub ca: Option<PathBuf>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: LogLevel,
    /// How lines look.
    pub format: LogFormat,
}

/// Least important line that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something needs attention.
    Warn,
    /// What a person following along wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Its word in the configuration, also understood by `tracing`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The addresses that a daemon listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenSettings {
    /// Frames.
    pub data: SocketAddr,
    /// Console; `None`: off.
    pub admin: Option<SocketAddr>,
    /// `GET /metrics`; `None`: off.
    pub metrics: Option<SocketAddr>,
}

pub(super) fn read_listen(reader: &mut Reader) -> ListenSettings {
    ListenSettings {
        data: reader.listen("listen"),
        admin: reader.listen_or_off("admin_listen"),
        metrics: reader.listen_or_off("metrics_listen"),
    }
}

pub(super) fn read_auth(reader: &mut Reader) -> AuthSettings {
    AuthSettings {
        key_file: reader.path("auth.key_file"),
        keys: None,
        insecure: reader.switch("auth.insecure"),
    }
}

pub(super) fn read_limits(reader: &mut Reader) -> LimitSettings {
    LimitSettings {
        max_connections: reader.integer::<u32>("limits.max_connections") as usize,
        in_flight_requests: reader.integer::<u32>("limits.in_flight_requests") as usize,
        in_flight_bytes: reader.size("limits.in_flight_bytes"),
        idle_timeout: reader.duration("limits.idle_timeout"),
        handshake_timeout: reader.duration("limits.handshake_timeout"),
    }
}

pub(super) fn read_log(reader: &mut Reader) -> LogSettings {
    LogSettings {
        level: reader.choice(
            "log.level",
            LogLevel::Info,
            &[
                ("error", LogLevel::Error),
                ("warn", LogLevel::Warn),
                ("info", LogLevel::Info),
                ("debug", LogLevel::Debug),
                ("trace", LogLevel::Trace),
            ],
        ),
        format: reader.choice(
            "log.format",
            LogFormat::Text,
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        ),
    }
}

/// All of `[tls]` that the daemon needs, or nothing of it: half of it would be plaintext where somebody counts on TLS.
/// A storage calls others, so it needs the CA (`calls`).
pub(super) fn read_tls(reader: &mut Reader, calls: bool) -> Option<TlsSettings> {
    let [cert, key, ca] = ["tls.cert", "tls.key", "tls.ca"].map(|key| reader.path(key));
    if cert.is_none() && key.is_none() && ca.is_none() {
        return None;
    }
    let missing = [("tls.cert", &cert, true), ("tls.key", &key, true), ("tls.ca", &ca, calls)];
    for (name, path, needed) in missing {
        if needed && path.is_none() {
            let found = "nothing, while other keys of [tls] are set";
            reader.refuse(name, found.to_owned(), "a file in PEM, or no [tls] at all");
        }
    }
    Some(TlsSettings { cert: cert?, key: key?, ca })
}

/// No two listeners on one address; beyond loopback only with a key, or plaintext by explicit wish; the console beyond
/// loopback only with a key.
pub(super) fn check_listen(reader: &mut Reader, listen: &ListenSettings, auth: &AuthSettings) {
    let all = [
        ("listen", Some(listen.data)),
        ("admin_listen", listen.admin),
        ("metrics_listen", listen.metrics),
    ];
    for (i, (key, addr)) in all.iter().enumerate() {
        for (earlier, other) in &all[..i] {
            if let (Some(addr), Some(other)) = (addr, other)
                && addr.port() != 0
                && addr.port() == other.port()
                && (addr.ip() == other.ip()
                    || addr.ip().is_unspecified()
                    || other.ip().is_unspecified())
            {
                reader.refuse(
                    key,
                    addr.to_string(),
                    format!("another address than `{earlier}` ({other})"),
                );
            }
        }
    }
    let keyless = auth.key_file.is_none();
    if keyless && !listen.data.ip().is_loopback() && !auth.insecure {
        reader.refuse(
            "listen",
            format!("{} without a key", listen.data),
            "a loopback address, or `auth.key_file`, or `auth.insecure = true` on a network that you trust",
        );
    }
    // The page has numbers and no contents, but there is no key on it.
    if let Some(metrics) = listen.metrics
        && keyless
        && !metrics.ip().is_loopback()
        && !auth.insecure
    {
        reader.refuse(
            "metrics_listen",
            format!("{metrics} without a key"),
            "a loopback address, or `auth.key_file`, or `auth.insecure = true` on a network that you trust",
        );
    }
    if let Some(admin) = listen.admin
        && keyless
        && !admin.ip().is_loopback()
    {
        reader.refuse(
            "admin_listen",
            format!("{admin} without a key"),
            "a loopback address, or `auth.key_file` (`folio keygen FILE` writes one)",
        );
    }
}

/// Reads the key file last, when everything else is in order.
pub(super) fn load_keys(auth: &mut AuthSettings) -> Result<(), KeysError> {
    if let Some(path) = &auth.key_file {
        auth.keys = Some(Keys::load(path)?);
    }
    Ok(())
}
