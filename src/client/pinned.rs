//! Puts that can be repeated by a later process: the place and the token are chosen, and may be written down, before
//! the object is sent.
//!
//! Invariant: as long as a [`Lease`] is held no storage is told that its token may be forgotten. So a process that has
//! written place and token down can be killed at any instant; the next one sends the same put with the same token to the
//! same place and is answered with the same id (R2).

use super::drive::{Goal, Nowhere};
use super::error::{Error, Result};
use super::tokens::Ticket;
use super::{Client, routing_error};
use crate::cluster::routing;
use crate::cluster::view::ClusterView;
use crate::format::ids::{MachineId, Token};
use crate::messages::error::ErrorCode;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// A storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its group.
    pub group: String,
    /// Its syncgroup.
    pub syncgroup: String,
    /// Its machine id.
    pub machine: MachineId,
}

/// Where a put goes, and as which one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// There and nowhere else.
    pub place: Place,
    /// Its token, as the [`Lease`] gave it, now or in an earlier process.
    pub token: Token,
}

/// A token of this client that is not forgotten while this is held.
#[derive(Debug)]
pub struct Lease {
    token: Token,
    _ticket: Ticket,
}

impl Lease {
    /// The token.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.token
    }
}

impl Place {
    /// How long an unknown place is doubted: its heartbeat may be on its way.
    const DOUBT: Duration = Duration::from_secs(3);

    pub(super) fn goals(&self, view: &ClusterView) -> std::result::Result<Vec<Goal>, Nowhere> {
        let Self { group, syncgroup, machine } = self;
        let storage = view.storage(group, syncgroup, *machine).ok_or_else(|| {
            let text = format!("machine {machine} of {group}/{syncgroup} is not known");
            let error = Error::new(ErrorCode::Unavailable, text);
            Nowhere { error: error.remedy("start it, or wait for it"), doubt: Self::DOUBT }
        })?;
        let (group, syncgroup) = (group.clone(), syncgroup.clone());
        let address = storage.advertise.clone();
        Ok(vec![Goal { group, syncgroup, machine: *machine, address }])
    }
}

impl Client {
    /// A storage that takes a new object of so many bytes now, by the policy of the cluster.
    ///
    /// # Errors
    /// `UnknownGroup`, `Unavailable`.
    pub async fn place(&self, group: Option<&str>, length: u64) -> Result<Place> {
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
        let driver = &self.inner.driver;
        let deadline = Instant::now() + driver.timeout;
        let mut view = match driver.views.current() {
            Some(view) => view,
            None => driver.views.refresh(false, deadline).await?,
        };
        loop {
            match routing::put(&view, group, length, turn) {
                Ok(route) => {
                    let group = match group {
                        Some(group) => group.to_owned(),
                        None => view.groups.keys().next().cloned().unwrap_or_default(),
                    };
                    let routing::Target { syncgroup, machine, .. } = route.choice;
                    return Ok(Place { group, syncgroup, machine });
                }
                Err(none) => {
                    let Nowhere { error, doubt } = routing_error(none);
                    let waited = driver.timeout.saturating_sub(deadline - Instant::now());
                    if waited >= doubt.min(driver.timeout) || Instant::now() >= deadline {
                        return Err(error);
                    }
                }
            }
            tokio::time::sleep(super::FIRST_VIEW_PAUSE).await;
            if let Ok(fresh) = driver.views.refresh(true, deadline).await {
                view = fresh;
            }
        }
    }

    /// A fresh token for one put there, issued by that storage's clock.
    ///
    /// # Errors
    /// `Unavailable`: it cannot be reached.
    pub async fn lease(&self, place: &Place) -> Result<Lease> {
        let driver = &self.inner.driver;
        let deadline = Instant::now() + driver.timeout;
        let view = match driver.views.current() {
            Some(view) => view,
            None => driver.views.refresh(false, deadline).await?,
        };
        let goals = place.goals(&view).map_err(|nowhere| nowhere.error)?;
        let unreachable = || Error::new(ErrorCode::Unavailable, "no storage");
        let goal = goals.first().ok_or_else(unreachable)?;
        let connection =
            driver.pool.get(&goal.address, deadline).await.map_err(|failure| failure.error)?;
        let mut ticket = self.inner.tokens.issue();
        let token = ticket.token(connection.server_time_ms());
        Ok(Lease { token, _ticket: ticket })
    }
}
