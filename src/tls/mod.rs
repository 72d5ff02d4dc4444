//! TLS: whose certificate is whose, the files of a daemon, and a stream that is encrypted or not.
//!
//! One switch for a whole cluster: with `[tls]` every listener of a daemon speaks TLS 1.3 only, without it none does.
//! A key of the cluster is still needed beyond loopback: TLS says *which machine* this is and keeps the bytes private,
//! the key says what a connection may do.
//!
//! Invariants
//! - Whoever calls checks the chain up to the CA **and** the host of the address that it called. There is no way to
//!   leave that out.
//! - Whoever takes the role `peer` from a daemon that has a CA shows a certificate that names its machine
//!   ([`names`]); so does a storage that is called by another.
//! - What is used may be replaced while a daemon runs ([`Tls::replace`]); open connections keep what they began with.
//! - Sessions are never resumed: a certificate is looked at on every connection.

pub mod accept;
pub mod connect;
mod explain;
pub mod material;
pub mod names;
pub mod stream;

pub use connect::ClientTls;
pub use material::{Material, TlsProblem};
pub use names::{Certified, MachineName};
pub use stream::{ReadEnd, Stream, WriteEnd};

use arc_swap::ArcSwap;
use std::sync::Arc;

/// The TLS of one daemon: off, or what it shows and trusts now. Clones share what is replaced.
#[derive(Clone, Debug, Default)]
pub struct Tls(Option<Arc<ArcSwap<Material>>>);

impl Tls {
    /// On, with this.
    #[must_use]
    pub fn new(material: Material) -> Self {
        Self(Some(Arc::new(ArcSwap::from_pointee(material))))
    }

    /// Whether it is on.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What is used now.
    #[must_use]
    pub fn now(&self) -> Option<Arc<Material>> {
        self.0.as_ref().map(|material| material.load_full())
    }

    /// New connections use this. Off stays off: that is a matter of the configuration, not of files.
    pub fn replace(&self, material: Material) {
        if let Some(now) = &self.0 {
            now.store(Arc::new(material));
        }
    }

    /// For calls to others; `None`: plaintext.
    #[must_use]
    pub fn client(&self) -> Option<ClientTls> {
        self.now().and_then(|material| material.client.clone())
    }
}
