//! What goes to every storage: list and df.

use super::connection::Connection;
use super::drive::{Driver, Goal, Nature, Nowhere, Operation};
use super::error::{Error, Failure, Result};
use super::mutate::name;
use crate::cluster::view::{ClusterView, MountView, State};
use crate::format::file_id::FileId;
use crate::format::ids::{MachineId, Tag};
use crate::messages::error::ErrorCode;
use crate::messages::heads::{self, DfAnswer, DfMount, LIST_PAGE_MAX, ListAnswer, ListItem};
use crate::messages::opcode::Opcode;
use bytes::Bytes;
use serde_bytes::ByteBuf;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::time::Instant;

/// A question to one machine.
enum Question {
    Page { cursor: ByteBuf, since_ms: Option<u64> },
    Space,
}

struct Ask {
    goal: Goal,
    question: Question,
}

enum Told {
    Page(ListAnswer),
    Space(DfAnswer),
}

impl Operation for Ask {
    type Output = Told;

    fn goals(&mut self, _view: &ClusterView) -> std::result::Result<Vec<Goal>, Nowhere> {
        Ok(vec![self.goal.clone()])
    }

    async fn attempt(
        &mut self,
        connection: &Arc<Connection>,
        _goal: &Goal,
        deadline: Instant,
    ) -> std::result::Result<Told, Failure> {
        let unreadable =
            |error: heads::HeadError| Failure::answered(Error::from(error).at(connection.node()));
        match &self.question {
            Question::Page { cursor, since_ms } => {
                let head = heads::List {
                    cursor: cursor.clone(),
                    since_ms: *since_ms,
                    limit: LIST_PAGE_MAX,
                };
                let reply = connection.call(Opcode::List, &head, Bytes::new(), 0, deadline).await?;
                heads::decode(reply.frame.head()).map(Told::Page).map_err(unreadable)
            }
            Question::Space => {
                let head = heads::Df {};
                let reply = connection.call(Opcode::Df, &head, Bytes::new(), 0, deadline).await?;
                heads::decode(reply.frame.head()).map(Told::Space).map_err(unreadable)
            }
        }
    }

    fn nature(&self) -> Nature {
        Nature::ReadOnce
    }
}

/// One object of a list. The extension is not stored: the id comes without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The object.
    pub id: FileId,
    /// Bytes of content.
    pub length: u64,
    /// Its version.
    pub opver: Tag,
    /// When this version was made, milliseconds since 1970.
    pub modified_ms: u64,
}

/// Every live object, storage by storage, page by page.
#[derive(Debug)]
pub struct ListStream {
    driver: Arc<Driver>,
    group: Option<String>,
    since_ms: Option<u64>,
    /// Still to be asked; `None` before the first call.
    storages: Option<VecDeque<Goal>>,
    /// Where the page at hand ended; empty if it is the last one of its storage.
    cursor: ByteBuf,
    /// Whether the storage in front has been asked.
    begun: bool,
    page: VecDeque<ListItem>,
}

impl ListStream {
    pub(super) fn new(driver: Arc<Driver>, group: Option<String>, since_ms: Option<u64>) -> Self {
        let (storages, cursor, page) = (None, ByteBuf::new(), VecDeque::new());
        Self { driver, group, since_ms, storages, cursor, begun: false, page }
    }

    /// The next object; `None` after the last. After the error of one storage the next call goes on with the next
    /// storage: a list with an error in it is not complete.
    pub async fn next(&mut self) -> Option<Result<Listed>> {
        if self.storages.is_none() {
            match self.driver.storages(self.group.as_deref()).await {
                Ok(goals) => self.storages = Some(goals.into()),
                Err(error) => {
                    self.storages = Some(VecDeque::new());
                    return Some(Err(error));
                }
            }
        }
        loop {
            let storages = self.storages.as_mut()?;
            let goal = storages.front()?.clone();
            if let Some(item) = self.page.pop_front() {
                return Some(listed(&goal, &item));
            }
            // The cursor is empty before the first page, and again when the last one is used up.
            if self.cursor.is_empty() && std::mem::take(&mut self.begun) {
                storages.pop_front();
                continue;
            }
            self.begun = true;
            let question = Question::Page {
                cursor: std::mem::take(&mut self.cursor),
                since_ms: self.since_ms,
            };
            match self.driver.run(Ask { goal, question }).await {
                Ok(Told::Page(answer)) => {
                    self.page = answer.items.into();
                    self.cursor = answer.next.unwrap_or_default();
                }
                Ok(Told::Space(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn listed(goal: &Goal, item: &ListItem) -> Result<Listed> {
    Ok(Listed {
        id: name(&goal.group, &goal.syncgroup, &item.id, None)?,
        length: item.length,
        opver: item.opver,
        modified_ms: item.modified_ms,
    })
}

/// Space of the cluster, storage by storage.
#[derive(Clone, Debug, PartialEq)]
pub struct Df {
    /// Every storage that the tracker knows, by group, syncgroup and machine.
    pub storages: Vec<DfStorage>,
}

/// Space of one storage.
#[derive(Clone, Debug, PartialEq)]
pub struct DfStorage {
    /// Its group.
    pub group: String,
    /// Its syncgroup.
    pub syncgroup: String,
    /// Its machine id.
    pub machine: MachineId,
    /// Where it listens.
    pub address: String,
    /// What the tracker thinks of it.
    pub state: State,
    /// Its mounts: as it says itself, or if it did not answer as it last told the tracker (live, dead and
    /// chunkfiles are 0 then).
    pub mounts: Vec<DfMount>,
    /// Why it did not answer.
    pub error: Option<Error>,
}

impl Driver {
    /// Every storage of a group, or of all.
    async fn storages(&self, group: Option<&str>) -> Result<Vec<Goal>> {
        let view = self.views.refresh(true, Instant::now() + self.timeout).await;
        let view = match (view, self.views.current()) {
            (Ok(view), _) | (Err(_), Some(view)) => view,
            (Err(error), None) => return Err(error),
        };
        if let Some(group) = group
            && !view.groups.contains_key(group)
        {
            let known: Vec<_> = view.groups.keys().map(String::as_str).collect();
            return Err(Error::new(
                ErrorCode::UnknownGroup,
                format!("unknown group {group:?}; known: {}", known.join(", ")),
            ));
        }
        let goals = view.storages().filter(|(name, _, _)| group.is_none_or(|group| group == *name));
        Ok(goals
            .map(|(group, syncgroup, storage)| Goal {
                group: group.to_owned(),
                syncgroup: syncgroup.to_owned(),
                machine: storage.machine,
                address: storage.advertise.clone(),
            })
            .collect())
    }

    /// Asks every storage for its space, all at once.
    pub(super) async fn df(&self) -> Result<Df> {
        let goals = self.storages(None).await?;
        let view = self.views.current();
        let asked = goals.into_iter().map(|goal| async {
            let told = self.run(Ask { goal: goal.clone(), question: Question::Space }).await;
            (goal, told)
        });
        let answers = futures_util::future::join_all(asked).await;
        let storages = answers.into_iter().map(|(goal, told)| {
            let known = view
                .as_ref()
                .and_then(|view| view.storage(&goal.group, &goal.syncgroup, goal.machine));
            let remembered =
                || known.map_or_else(Vec::new, |s| s.mounts.iter().map(remembered).collect());
            let (mounts, error) = match told {
                Ok(Told::Space(answer)) => (answer.mounts, None),
                Ok(Told::Page(_)) => (remembered(), None),
                Err(error) => (remembered(), Some(error)),
            };
            DfStorage {
                state: known.map_or(State::Offline, |storage| storage.state),
                group: goal.group,
                syncgroup: goal.syncgroup,
                machine: goal.machine,
                address: goal.address,
                mounts,
                error,
            }
        });
        Ok(Df { storages: storages.collect() })
    }
}

fn remembered(mount: &MountView) -> DfMount {
    DfMount {
        index: mount.index,
        state: mount.state,
        why: mount.reason.clone(),
        total: mount.total,
        free: mount.free,
        reserved: mount.reserved,
        live: 0,
        dead: 0,
        chunkfiles: 0,
    }
}
