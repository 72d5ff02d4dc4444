//! `folio tracker` and `folio storage`: settings, logs, start, ready, signal, ordered stop.

use super::args;
use super::exit::{Failure, Outcome};
use super::logs;
use crate::daemon::{StopSignals, announce_ready, announce_stopping};
use crate::settings::{Environment, Source, StorageSettings, TrackerSettings};
use crate::storage::{self, StartOptions};
use crate::tracker;
use std::time::Duration;

/// How long an ordered stop of a storage may take.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(20);

/// `folio tracker --config FILE`.
pub(super) fn tracker(args: &args::Daemon) -> Outcome {
    let source = Source::File(&args.config);
    let loaded = TrackerSettings::load(source, &Environment::from_process())?;
    logs::start(&loaded.settings.log);
    warn(&loaded.warnings);
    tracker::run(&loaded.settings).map_err(not_started)
}

/// `folio storage --config FILE`.
pub(super) fn storage(args: &args::Daemon) -> Outcome {
    let source = Source::File(&args.config);
    let loaded = StorageSettings::load(source, &Environment::from_process())?;
    logs::start(&loaded.settings.log);
    warn(&loaded.warnings);
    actix::System::new().block_on(run_storage(loaded.settings))
}

async fn run_storage(settings: StorageSettings) -> Outcome {
    let mut signals = StopSignals::listen().map_err(not_started)?;
    let starting = storage::start(settings, StartOptions::default());
    let storage = starting.await.map_err(not_started)?;
    // It serves already; ready is for who waits until others find it.
    let early = tokio::select! {
        () = storage.registered() => None,
        signal = signals.wait() => Some(signal),
    };
    let signal = match early {
        Some(signal) => signal,
        None => {
            announce_ready(&format!("storage={}", storage.address()));
            signals.wait().await
        }
    };
    tracing::info!(signal, "stopping");
    announce_stopping();
    for error in storage.stop(STOP_LIMIT).await {
        tracing::warn!(%error, "at the stop");
    }
    Ok(())
}

pub(super) fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

pub(super) fn not_started(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("not started: {error}"), "")
}
