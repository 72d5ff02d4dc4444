//! The scrubbers of a storage: one for each mount, on the net arbiters.

use crate::actors::scrubber::{ScrubConfig, ScrubLimits, Scrubber};
use crate::actors::storage_room::StorageRoom;
use crate::format::ids::MountIndex;
use crate::settings::ScrubSettings;
use actix::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// See the module.
pub struct Scrubs {
    actors: BTreeMap<MountIndex, Addr<Scrubber>>,
    limits: Arc<ScrubLimits>,
}

impl Scrubs {
    /// Starts them.
    pub fn start(
        settings: &ScrubSettings,
        room: &Arc<StorageRoom>,
        net: &[ArbiterHandle],
    ) -> Arc<Self> {
        let period_ms = u64::try_from(settings.period.as_millis()).unwrap_or(u64::MAX);
        let limits = Arc::new(ScrubLimits {
            enabled: AtomicBool::new(settings.enabled),
            period_ms: AtomicU64::new(period_ms),
            bandwidth: AtomicU64::new(settings.bandwidth.unwrap_or(0)),
        });
        let mut actors = BTreeMap::new();
        for mount in room.placement.mounts() {
            let Some(net) = net.get(usize::from(mount.index) % net.len().max(1)) else {
                continue;
            };
            let config = ScrubConfig {
                mount: Arc::clone(mount),
                table: Arc::clone(&room.peers),
                limits: Arc::clone(&limits),
            };
            let actor = Supervisor::start_in_arbiter(net, move |_| Scrubber::new(config));
            actors.insert(mount.index, actor);
        }
        Arc::new(Self { actors, limits })
    }

    /// Who verifies a mount.
    pub fn of(&self, mount: MountIndex) -> Option<&Addr<Scrubber>> {
        self.actors.get(&mount)
    }

    /// How fast mounts are verified.
    pub const fn limits(&self) -> &Arc<ScrubLimits> {
        &self.limits
    }
}
