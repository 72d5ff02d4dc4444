//! What a key is: its path, what is allowed in it, and what holds when it is not given.
//!
//! The tables [`TRACKER_KEYS`] and [`STORAGE_KEYS`] are the one place that knows every key. The reader takes defaults and
//! bounds from here, the shipped files in `conf/` are compared with it by a test, and so is what the errors say.

use super::units::{RESERVE_BYTES_MAX, RESERVE_PERCENT_MAX, parse_duration, parse_size, size_text};
use crate::format::file_id::{self, NAME_LEN_MAX};
use std::time::Duration;

/// What may stand in a key.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Bytes, between the bounds (texts).
    Size(&'static str, &'static str),
    /// Bytes per second; `0` means no limit, otherwise at least [`BANDWIDTH_MIN`].
    Bandwidth,
    /// Time, between the bounds (texts).
    Duration(&'static str, &'static str),
    /// A whole number, between the bounds.
    Integer(u64, u64),
    /// true or false.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A group or syncgroup: safe in a URL and as a folder.
    Name,
    /// An IP address and port to listen on.
    Listen,
    /// The same, or empty for "do not listen".
    ListenOrOff,
    /// Where others find it: host and port, or empty.
    HostPortOrEmpty,
    /// One to [`HOST_PORTS_MAX`] of host and port.
    HostPorts,
    /// A path that must be given.
    Path,
    /// A path, or empty.
    PathOrEmpty,
    /// Percent of the length or bytes.
    Reserve,
}

/// The slowest bandwidth that may be set; below that a recovery would never end.
pub const BANDWIDTH_MIN: u64 = 64 << 10;
/// The most trackers that one storage or client reports to.
pub const HOST_PORTS_MAX: usize = 16;

/// What holds when a key is not given.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// This text, parsed like a given one.
    Value(&'static str),
    /// Nothing: it must be given.
    Required,
    /// Empty, and then this rule.
    Derived(&'static str),
}

/// One key of a config file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Full path, `section.key`; `mounts[].index` for a key of each mount.
    pub path: &'static str,
    /// What may stand in it.
    pub kind: Kind,
    /// What holds without it.
    pub default: Fallback,
}

const fn key(path: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { path, kind, default: Fallback::Value(default) }
}

const fn required(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, default: Fallback::Required }
}

const fn derived(path: &'static str, kind: Kind, rule: &'static str) -> Key {
    Key { path, kind, default: Fallback::Derived(rule) }
}

/// Keys that both daemons have (the addresses to listen on differ in their defaults).
const fn shared() -> [Key; 12] {
    [
        derived("auth.key_file", Kind::PathOrEmpty, "no key: loopback or insecure only"),
        key("auth.insecure", Kind::Switch, "false"),
        key("limits.max_connections", Kind::Integer(1, 100_000), "4096"),
        key("limits.in_flight_requests", Kind::Integer(1, 1_000_000), "4096"),
        key("limits.in_flight_bytes", Kind::Size("4MiB", "64GiB"), "256MiB"),
        key("limits.idle_timeout", Kind::Duration("1s", "1d"), "300s"),
        key("limits.handshake_timeout", Kind::Duration("100ms", "60s"), "5s"),
        derived("tls.cert", Kind::PathOrEmpty, "no TLS"),
        derived("tls.key", Kind::PathOrEmpty, "no TLS"),
        derived("tls.ca", Kind::PathOrEmpty, "no TLS"),
        key("log.level", Kind::Choice(&["error", "warn", "info", "debug", "trace"]), "info"),
        key("log.format", Kind::Choice(&["text", "json"]), "text"),
    ]
}

const SHARED: [Key; 12] = shared();

const TRACKER_OWN: [Key; 8] = [
    key("listen", Kind::Listen, "127.0.0.1:7400"),
    key("admin_listen", Kind::ListenOrOff, "127.0.0.1:7500"),
    key("metrics_listen", Kind::ListenOrOff, "127.0.0.1:7600"),
    key("liveness.heartbeat_interval", Kind::Duration("50ms", "10s"), "1s"),
    key("liveness.suspect_after", Kind::Duration("100ms", "29s"), "3s"),
    key("liveness.offline_after", Kind::Duration("200ms", "30s"), "5s"),
    key("liveness.readmit_after", Kind::Duration("0s", "10m"), "5s"),
    key(
        "routing.put_policy",
        Kind::Choice(&["round_robin", "most_free", "weighted"]),
        "round_robin",
    ),
];

const STORAGE_OWN: [Key; 35] = [
    key("listen", Kind::Listen, "127.0.0.1:7411"),
    key("admin_listen", Kind::ListenOrOff, "127.0.0.1:7511"),
    key("metrics_listen", Kind::ListenOrOff, "127.0.0.1:7611"),
    derived("advertise", Kind::HostPortOrEmpty, "the address of `listen`"),
    required("group", Kind::Name),
    required("syncgroup", Kind::Name),
    required("machine_id", Kind::Integer(1, 65_535)),
    key("trackers", Kind::HostPorts, "127.0.0.1:7400"),
    derived("state_dir", Kind::PathOrEmpty, "`.folio-state` beside the first mount"),
    key("weight", Kind::Integer(1, 1000), "1"),
    required("mounts[].index", Kind::Integer(0, 255)),
    required("mounts[].path", Kind::Path),
    key("durability.acks", Kind::Choice(&["local", "mirror", "all"]), "mirror"),
    key("durability.when_alone", Kind::Choice(&["accept", "refuse"]), "accept"),
    key("durability.sync", Kind::Choice(&["fsync", "os"]), "fsync"),
    key("store.chunkfile_size", Kind::Size("4MiB", "1GiB"), "64MiB"),
    key("store.single_file_threshold", Kind::Size("1KiB", "16MiB"), "1MiB"),
    key("store.reserve", Kind::Reserve, "20%"),
    key("store.reserve_free", Kind::Size("0", "1PiB"), "4GiB"),
    key("store.undelete_window", Kind::Duration("0s", "3650d"), "24h"),
    key("store.active_chunkfiles_per_mount", Kind::Integer(1, 64), "2"),
    key("store.mount_policy", Kind::Choice(&["round_robin", "most_free"]), "round_robin"),
    key("sync.window_bytes", Kind::Size("64KiB", "256MiB"), "8MiB"),
    key("sync.retry_min", Kind::Duration("10ms", "10s"), "100ms"),
    key("sync.retry_max", Kind::Duration("100ms", "10m"), "10s"),
    key("sync.log_retention_bytes", Kind::Size("16MiB", "1TiB"), "1GiB"),
    key("sync.compare_period", Kind::Duration("1s", "30d"), "10m"),
    key("recovery.bandwidth", Kind::Bandwidth, "0"),
    key("recovery.streams", Kind::Integer(1, 32), "4"),
    key("recovery.base_wait", Kind::Duration("0s", "1d"), "120s"),
    key("scrub.enabled", Kind::Switch, "true"),
    key("scrub.period", Kind::Duration("1m", "365d"), "21d"),
    key("scrub.bandwidth", Kind::Bandwidth, "32MiB"),
    key("threads.net", Kind::Integer(1, 64), "1"),
    key("threads.read_per_mount", Kind::Integer(1, 64), "4"),
];

const fn joined<const A: usize, const N: usize>(own: [Key; A]) -> [Key; N] {
    let mut all = [SHARED[0]; N];
    let mut i = 0;
    while i < N {
        all[i] = if i < A { own[i] } else { SHARED[i - A] };
        i += 1;
    }
    all
}

/// Every key of `tracker.toml`.
pub static TRACKER_KEYS: [Key; 20] = joined(TRACKER_OWN);
/// Every key of `storage.toml`.
pub static STORAGE_KEYS: [Key; 47] = joined(STORAGE_OWN);

/// The key of a table that a concrete path (`mounts[3].path`) belongs to.
#[must_use]
pub fn find(keys: &'static [Key], path: &str) -> Option<&'static Key> {
    let general = generalised(path);
    keys.iter().find(|key| key.path == general)
}

/// The number that a text means as the value of a storage's key.
///
/// # Errors
/// It is out of bounds: what was found, and what is allowed.
pub fn storage_number(path: &str, text: &str) -> Result<u64, String> {
    let key = find(&STORAGE_KEYS, path).ok_or_else(|| format!("there is no key {path:?}"))?;
    key.kind.number(text).ok_or_else(|| format!("{text:?} is not {}", key.kind.allowed()))
}

/// `mounts[3].path` as it stands in the tables: `mounts[].path`.
fn generalised(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => {
                inside = true;
                out.push(c);
            }
            ']' => {
                inside = false;
                out.push(c);
            }
            c if inside && c.is_ascii_digit() => {}
            c => out.push(c),
        }
    }
    out
}

impl Kind {
    /// What is allowed, as errors and the shipped files say it.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self {
            Self::Size(min, max) => format!("a size from {min} to {max}"),
            Self::Bandwidth => {
                format!(
                    "bytes per second, at least {}, or 0 for no limit",
                    size_text(BANDWIDTH_MIN)
                )
            }
            Self::Duration(min, max) => format!("a duration from {min} to {max}"),
            Self::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Self::Switch => "true or false".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Name => {
                format!("1 to {NAME_LEN_MAX} of a-z 0-9 . _ - with a letter or digit first")
            }
            Self::Listen => "IP:PORT".to_owned(),
            Self::ListenOrOff => "IP:PORT, or empty for off".to_owned(),
            Self::HostPortOrEmpty => "HOST:PORT, or empty".to_owned(),
            Self::HostPorts => format!("a list of 1 to {HOST_PORTS_MAX} HOST:PORT"),
            Self::Path => "a path".to_owned(),
            Self::PathOrEmpty => "a path, or empty".to_owned(),
            Self::Reserve => format!(
                "a percentage up to {RESERVE_PERCENT_MAX}% or a size up to {}",
                size_text(RESERVE_BYTES_MAX)
            ),
        }
    }

    /// Bounds of a size in bytes; `None` if it is no size.
    #[must_use]
    pub fn size_bounds(&self) -> Option<(u64, u64)> {
        match self {
            Self::Size(min, max) => Some((parse_size(min)?, parse_size(max)?)),
            _ => None,
        }
    }

    /// The number that a text means within the bounds: bytes, bytes per second (0: no limit), a count. `None`: it is out of
    /// them, or the kind is no number. The configuration and `config set` both ask here.
    #[must_use]
    pub fn number(&self, text: &str) -> Option<u64> {
        match self {
            Self::Size(..) => {
                let (min, max) = self.size_bounds()?;
                parse_size(text).filter(|bytes| (min..=max).contains(bytes))
            }
            Self::Bandwidth => {
                let bytes = parse_size(text.strip_suffix("/s").unwrap_or(text))?;
                (bytes == 0 || bytes >= BANDWIDTH_MIN).then_some(bytes)
            }
            Self::Integer(min, max) => {
                text.trim().parse().ok().filter(|number| (min..=max).contains(&number))
            }
            _ => None,
        }
    }

    /// Bounds of a duration; `None` if it is no duration.
    #[must_use]
    pub fn duration_bounds(&self) -> Option<(Duration, Duration)> {
        match self {
            Self::Duration(min, max) => Some((parse_duration(min)?, parse_duration(max)?)),
            _ => None,
        }
    }
}

/// Whether a name may be a group or syncgroup: safe in a URL, in a database column and as a folder.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let first = text.bytes().next();
    // A dash in front would look like an option where an id is typed.
    file_id::is_name(text) && first.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Whether a text is host and port: `name:1`, `10.0.0.1:7400`, `[::1]:7400`.
#[must_use]
pub fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err()
    {
        return false;
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    (1..=253).contains(&host.len())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::units::duration_text;
    use rstest::rstest;

    #[test]
    fn no_key_has_bounds_that_do_not_parse_or_is_listed_twice() {
        for keys in [TRACKER_KEYS.as_slice(), STORAGE_KEYS.as_slice()] {
            for (i, key) in keys.iter().enumerate() {
                match key.kind {
                    Kind::Size(..) => {
                        let (min, max) = key.kind.size_bounds().expect("bounds parse");
                        assert!(min < max, "{}", key.path);
                    }
                    Kind::Duration(min_text, _) => {
                        let (min, max) = key.kind.duration_bounds().expect("bounds parse");
                        assert!(min < max, "{}", key.path);
                        assert_eq!(duration_text(min), min_text);
                    }
                    _ => {}
                }
                assert!(keys[i + 1..].iter().all(|other| other.path != key.path), "{}", key.path);
            }
        }
    }

    #[rstest]
    #[case("books", true)]
    #[case("a", true)]
    #[case("a.b_c-9", true)]
    #[case("", false)]
    #[case(".", false)]
    #[case("..", false)]
    #[case(".hidden", false)]
    #[case("-flag", false)]
    #[case("Books", false)]
    #[case("a/b", false)]
    #[case("a b", false)]
    #[case("büch", false)]
    #[case("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false)]
    fn a_name_that_would_hurt_in_a_url_or_folder_is_refused(#[case] name: &str, #[case] ok: bool) {
        assert_eq!(is_name(name), ok);
    }

    #[rstest]
    #[case("127.0.0.1:7400", true)]
    #[case("localhost:7400", true)]
    #[case("[::1]:7400", true)]
    #[case("::1:7400", false)]
    #[case("localhost", false)]
    #[case(":7400", false)]
    #[case("host:", false)]
    #[case("host:65536", false)]
    #[case("host:+80", false)]
    #[case("http://host:80", false)]
    fn a_host_without_port_is_refused(#[case] text: &str, #[case] ok: bool) {
        assert_eq!(is_host_port(text), ok);
    }
}
