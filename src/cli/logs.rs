//! Where the daemons' logs go: stderr, as text or JSON. Clients print what they have to say and log nothing.

use crate::settings::{LogFormat, LogSettings};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Begins to log. A second call in one process changes nothing.
pub(super) fn start(settings: &LogSettings) {
    let filter = EnvFilter::new(settings.level.word());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let begun = match settings.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if begun.is_err() {
        tracing::debug!("logging has already begun");
    }
}
