//! The one place of the client library that draws randomness: nonces, the client's uuid, jitter.

use super::error::{Error, Result};
use crate::messages::error::ErrorCode;
use rand::TryRngCore;

/// Fresh random bytes of the operating system.
///
/// # Errors
/// The system gives none: without a nonce there is no connection.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut out = [0; N];
    rand::rngs::OsRng
        .try_fill_bytes(&mut out)
        .map_err(|e| Error::new(ErrorCode::Failed, format!("no randomness: {e}")))?;
    Ok(out)
}

/// A number below `max`, for spreading retries. 0 if the system gives no randomness: only slower under load.
pub(super) fn below(max: u64) -> u64 {
    rand::rngs::OsRng.try_next_u64().map_or(0, |number| number % max.max(1))
}
