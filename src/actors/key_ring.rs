//! The keys that one daemon or client proves itself with, and asks others for.

use crate::messages::handshake::KeyCheck;
use crate::messages::opcode::Role;
use crate::settings::{Keys, Secret};
use arc_swap::ArcSwapOption;
use std::sync::Arc;

/// The keys of a daemon or client by role. Without any key, roles are believed (loopback or `insecure`). Clones share
/// what is replaced.
#[derive(Clone, Debug, Default)]
pub struct KeyRing(Arc<ArcSwapOption<Keys>>);

impl KeyRing {
    /// The keys of the configuration, if any.
    #[must_use]
    pub fn new(keys: Option<Keys>) -> Self {
        Self(Arc::new(ArcSwapOption::from_pointee(keys)))
    }

    /// New connections are asked for these.
    pub fn replace(&self, keys: Keys) {
        self.0.store(Some(Arc::new(keys)));
    }

    /// The secrets of a role.
    #[must_use]
    pub fn of(&self, role: Role) -> Vec<Secret> {
        self.0.load().as_ref().map(|keys| keys.of(role).to_vec()).unwrap_or_default()
    }

    /// Whether there is no key at all.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.load().is_none()
    }

    /// What is asked of a role.
    #[must_use]
    pub fn check(&self, role: Role) -> KeyCheck {
        match (self.is_open(), self.of(role).is_empty()) {
            (true, _) => KeyCheck::Open,
            (false, true) => KeyCheck::Shut,
            (false, false) => KeyCheck::Required,
        }
    }
}
