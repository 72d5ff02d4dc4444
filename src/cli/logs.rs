//! Where the daemons' logs go: stderr, as text or JSON. Clients print what they have to say and log nothing.
//!
//! Lines of the target `audit` (what operators changed) are logged at every level.

use crate::operate;
use crate::settings::{LogFormat, LogSettings};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Begins to log. A second call in one process changes nothing.
pub(super) fn start(settings: &LogSettings) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(settings.level.word()))
        .with_ansi(std::io::stderr().is_terminal())
        // A line that cannot be written is lost. To say so on the same standard error would panic, and end the daemon.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let begun = match settings.format {
        LogFormat::Text => {
            let builder = builder.with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            operate::logs_are_set_by(Box::new(move |level| {
                handle.reload(filter(level)).map_err(|error| error.to_string())
            }));
            builder.try_init()
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            operate::logs_are_set_by(Box::new(move |level| {
                handle.reload(filter(level)).map_err(|error| error.to_string())
            }));
            builder.try_init()
        }
    };
    if begun.is_err() {
        tracing::debug!("logging has already begun");
    }
}

fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!("{level},audit=info"))
}
