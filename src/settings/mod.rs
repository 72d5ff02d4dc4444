//! What a daemon is told: config files, environment, keys. Read once, at the start; only the files that keys and
//! certificates are in are read again when they change (`rotation.rs`).
//!
//! A daemon's keys stand in one table ([`spec`]). The `config` crate merges the file and the environment, [`reader`] turns
//! the result into the plain structs [`TrackerSettings`] and [`StorageSettings`] and refuses what is unknown, of the wrong
//! type or out of bounds: with the key's name, what was found and what is allowed. Nothing is ever silently ignored.

#![allow(
    clippy::disallowed_methods,
    reason = "configuration and key files are read once, before any mount is touched"
)]

pub mod environment;
pub mod error;
pub mod keys;
pub mod reader;
pub mod shared;
pub mod spec;
pub mod storage;
mod storage_checks;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_shipped;
pub mod tracker;
pub mod units;

pub use crate::cluster::view::PutPolicy;
pub use environment::Environment;
pub use error::{Finding, KeysError, SettingsError};
pub use keys::{Keys, Secret};
pub use reader::Shown;
pub use shared::{
    AuthSettings, LimitSettings, ListenSettings, LogFormat, LogLevel, LogSettings, TlsSettings,
};
pub use storage::{
    Acks, DurabilitySettings, MountPolicy, MountSettings, RecoverySettings, ScrubSettings,
    StorageSettings, StoreSettings, SyncMode, SyncSettings, ThreadSettings, WhenAlone,
};
pub use tracker::{LivenessSettings, TrackerSettings};
pub use units::Reserve;

use std::path::Path;

/// Settings, and what an operator should hear about them.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// What holds.
    pub settings: T,
    /// Nothing that stops the daemon.
    pub warnings: Vec<String>,
}

/// Where settings come from, below the environment.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A TOML file.
    File(&'a Path),
    /// TOML text, with a name for messages.
    Text {
        /// For messages.
        name: &'a str,
        /// The TOML.
        text: &'a str,
    },
    /// Key paths and texts, as `folio dev` gives them.
    Given {
        /// For messages.
        name: &'a str,
        /// `("mounts[0].path", "/srv/m0")`.
        keys: &'a [(String, String)],
    },
}

/// Name, TOML text, and pairs of key path and text.
type Parts = (String, String, Vec<(String, String)>);

impl Source<'_> {
    fn read(self) -> Result<Parts, SettingsError> {
        match self {
            Self::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
                Ok((path.display().to_string(), text, Vec::new()))
            }
            Self::Text { name, text } => Ok((name.to_owned(), text.to_owned(), Vec::new())),
            Self::Given { name, keys } => Ok((name.to_owned(), String::new(), keys.to_vec())),
        }
    }
}
