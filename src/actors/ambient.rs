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

    /// Milliseconds since the start.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
