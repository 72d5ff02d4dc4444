//! `folio tracker` and `folio storage`: settings, logs, start, ready, signal, ordered stop.

use super::args;
use super::exit::{Failure, Outcome};
use super::logs;
use crate::settings::{Environment, Source, StorageSettings, TrackerSettings};
use crate::storage;
use crate::tracker;

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
    storage::run(loaded.settings).map_err(not_started)
}

/// What an operator should hear about the configuration.
pub(super) fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// A daemon that did not start.
pub(super) fn not_started(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("not started: {error}"), "")
}
