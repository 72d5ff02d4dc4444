//! The clocks and the randomness of a running daemon. The one place of this floor that touches them; all else takes
//! the values as arguments.

use std::time::SystemTime;

use rand::TryRngCore;
use tokio::time::Instant;

/// The wall clock, milliseconds since 1970. For people and for tokens; no decision about liveness rests on it.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock on this floor"
)]
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Random bytes of the operating system, for nonces, instances and challenges.
///
/// # Errors
/// The system has none: nothing that needs a secret may go on.
pub fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// A monotonic clock that counts milliseconds from its creation. It follows tokio's time, so that a test may pause it.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic {
    start: Instant,
}

impl Monotonic {
    /// Starts at 0.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Microseconds since the start.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What this process uses.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Memory in use, bytes.
    pub resident_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open files and sockets.
    pub descriptors: u64,
    /// CPU time, user and system.
    pub cpu_seconds: f64,
}

/// What this process uses now; `None` where there is no `/proc`.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "the one place that reads what the system says of us")]
#[allow(clippy::cast_precision_loss, reason = "hundredths of seconds since the start")]
pub fn usage() -> Option<Usage> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything: state is field 3, utime and stime are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| -> Option<u64> { fields.get(at)?.parse().ok() };
    Some(Usage {
        resident_bytes: value("VmRSS:")? << 10,
        threads: value("Threads:")?,
        descriptors: std::fs::read_dir("/proc/self/fd").ok()?.count() as u64,
        cpu_seconds: (ticks(11)? + ticks(12)?) as f64
            / rustix::param::clock_ticks_per_second() as f64,
    })
}
