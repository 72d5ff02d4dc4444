//! What goes to every storage: list and df.

use super::connection::Connection;
use super::drive::{Driver, Goal, Nature, Nowhere, Operation};
use super::error::{Error, Failure, Result};
use super::mutate::name;
use crate::cluster::view::{ClusterView, MountView, State, StorageView};
use crate::format::file_id::FileId;
use crate::format::ids::{MachineId, Tag};
use crate::messages::error::ErrorCode;
use crate::messages::heads::{self, DfAnswer, DfMount, LIST_PAGE_MAX, ListAnswer, ListItem};
use crate::messages::opcode::Opcode;
use bytes::Bytes;
use serde_bytes::ByteBuf;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::time::Instant;

/// A question to one machine.
enum Question {
    Page { cursor: ByteBuf, since_ms: Option<u64>, of: MachineId },
    Space,
}

struct Ask {
    /// Who is asked, in this order.
    goals: Vec<Goal>,
    question: Question,
}

/// The objects that one machine created, and who is asked for them.
#[derive(Clone, Debug)]
struct Source {
    group: String,
    syncgroup: String,
    of: MachineId,
    /// It itself if it is there, then its mirrors.
    goals: Vec<Goal>,
}

impl Source {
    fn new(view: &ClusterView, (group, syncgroup): (&str, &str), of: MachineId) -> Self {
        let members = view.storages().filter(|(g, s, _)| (*g, *s) == (group, syncgroup));
        let mut goals: Vec<_> = members.map(|(_, _, storage)| storage).collect();
        goals.sort_by_key(|storage| (storage.machine != of, storage.state != State::Online));
        let goals = goals.into_iter().map(|storage| goal(group, syncgroup, storage)).collect();
        Self { group: group.to_owned(), syncgroup: syncgroup.to_owned(), of, goals }
    }
}

fn goal(group: &str, syncgroup: &str, storage: &StorageView) -> Goal {
    Goal {
        group: group.to_owned(),
        syncgroup: syncgroup.to_owned(),
        machine: storage.machine,
        address: storage.advertise.clone(),
    }
}

enum Told {
    Page(ListAnswer),
    Space(DfAnswer),
}

impl Operation for Ask {
    type Output = Told;

    fn goals(&mut self, _view: &ClusterView) -> std::result::Result<Vec<Goal>, Nowhere> {
        Ok(self.goals.clone())
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
            Question::Page { cursor, since_ms, of } => {
                let head = heads::List {
                    cursor: cursor.clone(),
                    since_ms: *since_ms,
                    limit: LIST_PAGE_MAX,
                    of: Some(*of),
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

/// Every live object, by the machine that created it, page by page. What a machine created that is away, or gone for good, is
/// listed by a mirror, as far as that has it.
#[derive(Debug)]
pub struct ListStream {
    driver: Arc<Driver>,
    group: Option<String>,
    since_ms: Option<u64>,
    /// Still to be asked; `None` before the first call.
    storages: Option<VecDeque<Source>>,
    /// Whose objects are listed, or will be.
    known: BTreeSet<(String, String, MachineId)>,
    view: Option<Arc<ClusterView>>,
    /// Where the page at hand ended; empty if it is the last one of its storage.
    cursor: ByteBuf,
    /// Whether the storage in front has been asked.
    begun: bool,
    page: VecDeque<ListItem>,
}

impl ListStream {
    pub(super) fn new(driver: Arc<Driver>, group: Option<String>, since_ms: Option<u64>) -> Self {
        let (storages, cursor, page) = (None, ByteBuf::new(), VecDeque::new());
        let (known, view) = (BTreeSet::new(), None);
        Self { driver, group, since_ms, storages, known, view, cursor, begun: false, page }
    }

    /// The next object; `None` after the last. After the error of one storage the next call goes on with the next
    /// storage: a list with an error in it is not complete.
    pub async fn next(&mut self) -> Option<Result<Listed>> {
        if self.storages.is_none() {
            let view = self.driver.fresh_view(self.group.as_deref()).await;
            self.storages = Some(VecDeque::new());
            match view {
                Ok(view) => self.begin(view),
                Err(error) => return Some(Err(error)),
            }
        }
        loop {
            let storages = self.storages.as_mut()?;
            let source = storages.front()?.clone();
            if let Some(item) = self.page.pop_front() {
                return Some(listed(&source, &item));
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
                of: source.of,
            };
            match self.driver.run(Ask { goals: source.goals.clone(), question }).await {
                Ok(Told::Page(answer)) => {
                    self.page = answer.items.into();
                    self.cursor = answer.next.unwrap_or_default();
                    for machine in answer.machines {
                        self.also(&source.group, &source.syncgroup, machine);
                    }
                }
                Ok(Told::Space(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn begin(&mut self, view: Arc<ClusterView>) {
        let wanted = |group: &str| self.group.as_deref().is_none_or(|wanted| wanted == group);
        let all: Vec<_> = view
            .storages()
            .filter(|(group, _, _)| wanted(group))
            .map(|(group, syncgroup, storage)| {
                (group.to_owned(), syncgroup.to_owned(), storage.machine)
            })
            .collect();
        self.view = Some(view);
        for (group, syncgroup, machine) in all {
            self.also(&group, &syncgroup, machine);
        }
    }

    /// Lists what this machine created, too.
    fn also(&mut self, group: &str, syncgroup: &str, machine: MachineId) {
        let (Some(view), Some(storages)) = (&self.view, &mut self.storages) else { return };
        if self.known.insert((group.to_owned(), syncgroup.to_owned(), machine)) {
            storages.push_back(Source::new(view, (group, syncgroup), machine));
        }
    }
}

fn listed(source: &Source, item: &ListItem) -> Result<Listed> {
    Ok(Listed {
        id: name(&source.group, &source.syncgroup, &item.id, None)?,
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
    /// The view as it is now, and that it knows the group.
    async fn fresh_view(&self, group: Option<&str>) -> Result<Arc<ClusterView>> {
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
        Ok(view)
    }

    /// Asks every storage for its space, all at once.
    pub(super) async fn df(&self) -> Result<Df> {
        let view = self.fresh_view(None).await?;
        let goals: Vec<Goal> =
            view.storages().map(|(group, syncgroup, s)| goal(group, syncgroup, s)).collect();
        let asked = goals.into_iter().map(|goal| async {
            let goals = vec![goal.clone()];
            let told = self.run(Ask { goals, question: Question::Space }).await;
            (goal, told)
        });
        let answers = futures_util::future::join_all(asked).await;
        let storages = answers.into_iter().map(|(goal, told)| {
            let known = view.storage(&goal.group, &goal.syncgroup, goal.machine);
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
