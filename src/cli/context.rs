//! What every client command shares: how the cluster is found, how results are printed.

use super::exit::{Failure, Outcome};
use super::say;
use crate::client::{Client, ClientOptions, Error};
use crate::format::file_id::FileId;
use crate::settings::Keys;
use crate::settings::spec::is_host_port;
use crate::tls::{ClientTls, TlsProblem};
use std::path::PathBuf;
use std::time::Duration;

/// The global options.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// `HOST:PORT` of each tracker.
    pub trackers: Vec<String>,
    /// Where the keys are.
    pub key_file: Option<PathBuf>,
    /// Where the CA of the cluster is.
    pub ca: Option<PathBuf>,
    /// How long a client waits, also for a cluster that is just starting.
    pub timeout: Duration,
    /// One JSON document instead of text.
    pub json: bool,
}

impl Context {
    /// The keys, if a file is named.
    pub(super) fn keys(&self) -> Outcome<Option<Keys>> {
        Ok(self.key_file.as_deref().map(Keys::load).transpose()?)
    }

    /// Whom to trust, if a CA is named.
    pub(super) fn tls(&self) -> Outcome<Option<ClientTls>> {
        let tls = self.ca.as_deref().map(ClientTls::of_ca_file).transpose();
        tls.map_err(|problem| {
            let TlsProblem { key, path, why, remedy } = problem;
            Failure::usage(format!("{key} {}: {why}", path.display()), remedy)
        })
    }

    /// A client of the cluster.
    pub(super) async fn connect(&self) -> Outcome<Client> {
        self.connect_with(1).await
    }

    /// A client with so many connections to each node.
    pub(super) async fn connect_with(&self, connections_per_node: usize) -> Outcome<Client> {
        if let Some(bad) = self.trackers.iter().find(|tracker| !is_host_port(tracker)) {
            return Err(Failure::usage(
                format!("{bad:?} is no tracker address"),
                "--tracker HOST:PORT, or FOLIO_TRACKERS=HOST:PORT,HOST:PORT",
            ));
        }
        let options = ClientOptions {
            trackers: self.trackers.clone(),
            keys: self.keys()?,
            tls: self.tls()?,
            timeout: self.timeout,
            connections_per_node,
        };
        Ok(Client::connect(options).await?)
    }

    /// Prints one result: JSON, or the text.
    ///
    /// # Errors
    /// It cannot be written; the result is then in the remedy, so that it is not lost.
    pub(super) fn print(&self, json: &serde_json::Value, text: impl std::fmt::Display) -> Outcome {
        let text = if self.json { json.to_string() } else { text.to_string() };
        say::line(&text).map_err(|mut failure| {
            failure.remedy = format!("it was done; the answer was: {text}");
            failure
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let Error { code, message, remedy, node, id } = error;
        let mut text = String::new();
        if let Some(id) = id {
            text = format!("{id}: ");
        }
        text.push_str(&message);
        if let Some(node) = node {
            text.push_str(&format!(" ({node})"));
        }
        Self { code, message: text, remedy }
    }
}

/// An id as it was typed.
pub(super) fn parse_id(text: &str) -> Outcome<FileId> {
    text.parse().map_err(|e| Failure::from(e).about(format!("{text:?}")))
}

/// A wall clock time in milliseconds since 1970 as RFC 3339.
pub(super) fn time_text(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| ms.to_string(), |time| time.to_string())
}
