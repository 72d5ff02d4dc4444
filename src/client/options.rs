//! What a caller may choose.

use super::pinned::Pinned;
use crate::format::ids::{MachineId, Tag};
use crate::messages::heads::Reserve;
use crate::settings::keys::Keys;
use crate::tls::ClientTls;
use std::time::Duration;

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Trackers, `HOST:PORT`. One that answers is enough.
    pub trackers: Vec<String>,
    /// Keys of the cluster; `None` for one without (loopback).
    pub keys: Option<Keys>,
    /// Whom to trust, where the cluster speaks TLS; `None`: plaintext. Every node's certificate is checked up to this CA
    /// and for the host of the address under which it is called.
    pub tls: Option<ClientTls>,
    /// How long an operation goes on trying, also for a cluster that is just starting. While a body streams: how
    /// long without any progress.
    pub timeout: Duration,
    /// Connections to each node; requests are pipelined on each of them.
    pub connections_per_node: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            trackers: vec!["127.0.0.1:7400".to_owned()],
            keys: None,
            tls: None,
            timeout: Duration::from_secs(10),
            connections_per_node: 1,
        }
    }
}

/// Options of a put.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Group; may be left out where there is one.
    pub group: Option<String>,
    /// Extension to append to the id, without the dot.
    pub ext: Option<String>,
    /// Room to grow; `None`: what the storage is configured for.
    pub reserve: Option<Reserve>,
    /// To this place with this token, to be repeatable by a later process; see [`Client::lease`](super::Client::lease).
    pub pinned: Option<Pinned>,
}

/// Options of a get.
#[derive(Clone, Copy, Debug, Default)]
pub struct GetOptions {
    /// First byte and last byte (inclusive, `None`: to the end), from 0.
    pub range: Option<(u64, Option<u64>)>,
    /// From this machine's local bytes only, or fail.
    pub from: Option<MachineId>,
    /// This version or a later one (read your writes).
    pub min_opver: Option<Tag>,
}
