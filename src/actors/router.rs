//! Answers where to go, from the last published view.
//!
//! Owns nothing but the turn of the puts. It never waits for anybody: a question costs one look at the view.

use std::sync::Arc;

use actix::prelude::*;

use super::heartbeat::{Publication, Published};
use crate::cluster::routing::{self, NoRoute, Route};
use crate::format::ids::{MachineId, MountIndex};

/// Owns the turn.
pub struct Router {
    publication: Publication,
    turn: u64,
}

impl Router {
    /// Answers from `publication`; `turn` is where the turn of the puts begins (random, so that several trackers do
    /// not send their first put to the same storage).
    #[must_use]
    pub const fn new(publication: Publication, turn: u64) -> Self {
        Self { publication, turn }
    }
}

impl Actor for Router {
    type Context = Context<Self>;
}

/// Where should a request go?
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(Route, u64), NoRoute>")]
pub enum Where {
    /// A new object.
    Put {
        /// Group; `None` takes the only one.
        group: Option<String>,
        /// Bytes.
        length: u64,
    },
    /// Something about an object.
    Object {
        /// Group of the id.
        group: String,
        /// Syncgroup of the id.
        syncgroup: String,
        /// Owner in the id.
        owner: MachineId,
        /// Mount in the id.
        mount: MountIndex,
    },
}

impl Handler<Where> for Router {
    type Result = Result<(Route, u64), NoRoute>;

    /// The route, and the epoch of the view that it was taken from.
    fn handle(&mut self, question: Where, _: &mut Context<Self>) -> Self::Result {
        let published = self.publication.load();
        let view = &published.view;
        let route = match question {
            Where::Put { group, length } => {
                self.turn = self.turn.wrapping_add(1);
                routing::put(view, group.as_deref(), length, self.turn)
            }
            Where::Object { group, syncgroup, owner, mount } => {
                routing::object(view, &group, &syncgroup, owner, mount)
            }
        };
        route.map(|route| (route, view.epoch))
    }
}

/// The whole view.
#[derive(Message)]
#[rtype(result = "Arc<Published>")]
pub struct ShowView;

impl Handler<ShowView> for Router {
    type Result = Arc<Published>;

    fn handle(&mut self, _: ShowView, _: &mut Context<Self>) -> Arc<Published> {
        self.publication.load_full()
    }
}
