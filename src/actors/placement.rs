//! Which mount takes a new object.
//!
//! Invariants: a mount that does not serve, or was found full, is passed over while another one is left; if all are
//! full the engine is asked all the same, so writing resumes by itself when space returns; a mount that too few members
//! have, or that a member has no room on, is never taken; `round_robin` counts over the writable mounts, so they stay even.

use super::problems;
use super::session::Problem;
use super::shared_mount::SharedMount;
use super::task::{Change, Task, What};
use crate::format::ids::MountIndex;
use crate::messages::error::ErrorCode;
use crate::settings::MountPolicy;
use crate::store::error::StoreError;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The mounts of a storage.
#[derive(Debug)]
pub struct Placement {
    policy: MountPolicy,
    turn: AtomicUsize,
    mounts: OnceLock<Vec<Arc<SharedMount>>>,
}

impl Placement {
    /// No mounts yet.
    #[must_use]
    pub fn new(policy: MountPolicy) -> Arc<Self> {
        Arc::new(Self { policy, turn: AtomicUsize::new(0), mounts: OnceLock::new() })
    }

    /// The mounts, in the order of their index; set once, before anything is served.
    pub fn set(&self, mounts: Vec<Arc<SharedMount>>) {
        if self.mounts.set(mounts).is_err() {
            tracing::error!("the mounts of a storage were given twice");
        }
    }

    /// All mounts, in the order of their index.
    #[must_use]
    pub fn mounts(&self) -> &[Arc<SharedMount>] {
        self.mounts.get().map_or(&[], Vec::as_slice)
    }

    /// The mount with this index.
    ///
    /// # Errors
    /// `WrongNode`: none is configured here.
    pub fn mount(&self, index: MountIndex) -> Result<&Arc<SharedMount>, Problem> {
        let mounts = self.mounts();
        // Mostly the index is the place in the list.
        let guess = mounts.get(usize::from(index)).filter(|mount| mount.index == index);
        guess.or_else(|| mounts.iter().find(|mount| mount.index == index)).ok_or_else(|| {
            Problem::new(ErrorCode::WrongNode, format!("there is no mount {index} on this storage"))
        })
    }

    /// The mount for a new object of so many bytes; `hint` if the client wants a certain one.
    ///
    /// # Errors
    /// No mount serves; the hint names none; too few members have the mount, or one has no room there.
    pub fn choose(
        &self,
        hint: Option<MountIndex>,
        length: u64,
    ) -> Result<&Arc<SharedMount>, Problem> {
        if let Some(index) = hint {
            let mount = self.mount(index)?;
            mount.check_spread()?;
            mount.check_room(length)?;
            return Ok(mount);
        }
        let fits = |mount: &SharedMount| mount.mirror.least_room() >= length.max(1);
        if let Some(mount) = self.best(|mount| mount.is_writable() && fits(mount)) {
            mount.check_room(length)?;
            return Ok(mount);
        }
        let Some(mount) =
            self.best(|mount| mount.is_online() && mount.mirror.takes_puts() && fits(mount))
        else {
            for mount in self.mounts().iter().filter(|mount| mount.is_online()) {
                mount.check_spread()?;
                if !fits(mount) {
                    return Err(mount.full_elsewhere());
                }
            }
            return Err(Problem::new(ErrorCode::Fenced, "no mount of this storage is in service")
                .remedy("`folio admin ... mounts` says what is wrong with each"));
        };
        Ok(mount)
    }

    fn best(&self, fits: impl Fn(&SharedMount) -> bool) -> Option<&Arc<SharedMount>> {
        let mounts = self.mounts();
        match self.policy {
            MountPolicy::MostFree => {
                mounts.iter().filter(|mount| fits(mount)).max_by_key(|mount| mount.free())
            }
            MountPolicy::RoundRobin => {
                let start = self.turn.fetch_add(1, Ordering::Relaxed);
                if let Some(mount) = mounts.get(start % mounts.len().max(1))
                    && fits(mount)
                {
                    return Some(mount);
                }
                let fitting = mounts.iter().filter(|mount| fits(mount)).count();
                mounts.iter().filter(|mount| fits(mount)).nth(start % fitting.max(1))
            }
        }
    }

    /// Hands a put that did not fit on `from` to another mount; refuses it with `error` if there is none.
    pub fn elsewhere(&self, from: MountIndex, change: Change, error: &StoreError) {
        let next = self.best(|mount| mount.index != from && mount.is_writable());
        match (next, &change.what) {
            (Some(mount), What::Put { lane, .. }) => mount.send_put(*lane, Task::Change(change)),
            (Some(_) | None, _) => {
                let problem = match self.mount(from) {
                    Ok(mount) => problems::of_store(error, mount),
                    Err(problem) => problem,
                };
                change.reply.refused(problem);
            }
        }
    }
}
