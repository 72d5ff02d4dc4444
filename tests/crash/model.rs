//! What a store may answer: the last acknowledged version of an object or a later one that is in doubt (P1), whole (P2);
//! deleted stays deleted and no id is issued twice (P5).

use std::collections::BTreeSet;
use std::fmt::Debug;

use folio::store::sim_disk::Dice;

use super::engine::{Content, Edit, Ticket};

/// Ticket of an edit that may or may not have been made.
const UNSURE: Ticket = 0;

/// One edit of an object.
#[derive(Clone, Debug)]
struct Version {
    /// `None`: deleted.
    content: Option<Content>,
    ticket: Ticket,
    acknowledged: bool,
}

/// One object, for as long as its id is known.
#[derive(Clone, Debug)]
pub struct Object<Id> {
    /// Its id, for life.
    pub id: Id,
    versions: Vec<Version>,
    purge: Purge,
}

/// Whether a deleted object can still come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purge {
    /// It must.
    No,
    /// The purge is in doubt.
    Maybe,
    /// It must not.
    Done,
}

impl<Id> Object<Id> {
    /// Content after the last edit that was submitted.
    pub fn latest(&self) -> Option<&Content> {
        self.versions.last().and_then(|version| version.content.as_ref())
    }

    /// What an undelete would bring back.
    fn before_delete(&self) -> Option<&Content> {
        self.versions.iter().rev().find_map(|version| version.content.as_ref())
    }

    /// The first version that an answer may show; `None`: the object need not exist at all.
    fn first_allowed(&self) -> Option<usize> {
        self.versions.iter().rposition(|version| version.acknowledged)
    }

    /// Which version this answer is, if any that it may be. The latest one that fits.
    fn matching(&self, answer: Option<&[u8]>) -> Option<usize> {
        let from = self.first_allowed().unwrap_or(0);
        let fits = |version: &Version| version.content.as_deref() == answer;
        self.versions.iter().skip(from).rposition(fits).map(|at| at + from)
    }
}

/// Everything that clients know.
#[derive(Clone, Debug)]
pub struct Model<Id> {
    /// Objects in order of creation.
    pub objects: Vec<Object<Id>>,
    issued: BTreeSet<Id>,
    next_ticket: Ticket,
    /// Edits that no crash has left a trace of.
    undone: Vec<Ticket>,
    /// Edits and acknowledgements so far: equal counts of one run mean equal expectations.
    pub events: u64,
}

impl<Id> Default for Model<Id> {
    fn default() -> Self {
        Self {
            objects: Vec::new(),
            issued: BTreeSet::new(),
            next_ticket: 1,
            undone: Vec::new(),
            events: 0,
        }
    }
}

impl<Id: Clone + Ord + Debug> Model<Id> {
    /// The ticket of the next edit, and so the stamp of its content.
    pub const fn next_ticket(&self) -> Ticket {
        self.next_ticket
    }

    fn object_mut(&mut self, id: &Id) -> Option<&mut Object<Id>> {
        self.objects.iter_mut().find(|object| object.id == *id)
    }

    fn object(&self, id: &Id) -> Option<&Object<Id>> {
        self.objects.iter().find(|object| object.id == *id)
    }

    /// An edit of a known object is about to be submitted: from now on it is in doubt.
    pub fn begin(&mut self, edit: &Edit<Id>) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.events += 1;
        let (id, content) = match edit {
            Edit::Put(_) => return ticket,
            Edit::Modify(id, content) => (id, Some(content.clone())),
            Edit::Delete(id) => (id, None),
            Edit::Undelete(id) => {
                (id, self.object(id).and_then(|object| object.before_delete().cloned()))
            }
        };
        if let Some(object) = self.object_mut(id) {
            object.versions.push(Version { content, ticket, acknowledged: false });
        }
        ticket
    }

    /// A put was given its id.
    pub fn issue(&mut self, ticket: Ticket, id: Id, content: Content) -> Result<(), String> {
        self.events += 1;
        if !self.issued.insert(id.clone()) {
            return Err(format!("the id {id:?} was issued twice"));
        }
        let first = Version { content: Some(content), ticket, acknowledged: false };
        self.objects.push(Object { id, versions: vec![first], purge: Purge::No });
        Ok(())
    }

    /// The engine refused an edit. It may only refuse what cannot be done.
    pub fn refuse(&mut self, ticket: Ticket, edit: &Edit<Id>, why: &str) -> Result<(), String> {
        self.events += 1;
        let id = match edit {
            Edit::Put(_) => return Err(format!("a put was refused: {why}")),
            Edit::Modify(id, _) | Edit::Delete(id) | Edit::Undelete(id) => id,
        };
        let Some(object) = self.object_mut(id) else { return Ok(()) };
        object.versions.retain(|version| version.ticket != ticket);
        let is_live = object.latest().is_some();
        let may_refuse = match edit {
            Edit::Undelete(_) => is_live || object.purge != Purge::No,
            Edit::Put(_) | Edit::Modify(..) | Edit::Delete(_) => !is_live,
        };
        if may_refuse { Ok(()) } else { Err(format!("{edit:?} was refused: {why}")) }
    }

    /// The engine took an edit. It may only take what can be done.
    pub fn accepted(&self, edit: &Edit<Id>) -> Result<(), String> {
        let (Edit::Modify(id, _) | Edit::Delete(id) | Edit::Undelete(id)) = edit else {
            return Ok(());
        };
        let Some(object) = self.object(id) else { return Ok(()) };
        let before = object.versions.len().checked_sub(2).and_then(|at| object.versions.get(at));
        let was_live = before.is_some_and(|version| version.content.is_some());
        match edit {
            Edit::Modify(..) if !was_live => Err(format!("{id:?} was modified while deleted")),
            Edit::Undelete(_) if object.purge == Purge::Done => {
                Err(format!("{id:?} came back from a purge"))
            }
            Edit::Put(_) | Edit::Modify(..) | Edit::Delete(_) | Edit::Undelete(_) => Ok(()),
        }
    }

    /// The engine declared an edit durable.
    pub fn acknowledge(&mut self, ticket: Ticket) {
        self.events += 1;
        for version in self.objects.iter_mut().flat_map(|object| &mut object.versions) {
            if version.ticket == ticket {
                version.acknowledged = true;
            }
        }
    }

    /// The undelete window passes: what is deleted may be purged from now on, and is if `done`.
    pub fn age(&mut self, done: bool) {
        self.events += 1;
        for object in self.objects.iter_mut().filter(|object| object.latest().is_none()) {
            if done || object.purge == Purge::No {
                object.purge = if done { Purge::Done } else { Purge::Maybe };
            }
        }
    }

    /// Judges one answer, and takes it as the truth from now on: what was seen once does not change by itself.
    pub fn observe(&mut self, at: usize, answer: Option<&[u8]>) -> Result<(), String> {
        let object = &mut self.objects[at];
        let may_not_exist = object.first_allowed().is_none();
        if let Some(seen) = object.matching(answer) {
            // Where several versions look alike, there is no telling which edits were made.
            let alike = |version: &Version| version.content.as_deref() == answer;
            let first = object.first_allowed().unwrap_or(0);
            let sure = if may_not_exist && answer.is_none() {
                0
            } else {
                object.versions.iter().skip(first).position(alike).map_or(0, |at| first + at + 1)
            };
            for version in object.versions.iter_mut().take(seen + 1).skip(sure) {
                version.ticket = UNSURE;
            }
            self.undone.extend(object.versions.drain(seen + 1..).map(|version| version.ticket));
            object.versions[seen].acknowledged = true;
            if answer.is_some() {
                object.purge = Purge::No;
            } else if may_not_exist {
                object.purge = Purge::Maybe; // deleted, or never there: no telling
            }
            return Ok(());
        }
        if answer.is_none() && may_not_exist {
            // A put that nobody was promised.
            self.undone.extend(object.versions.drain(..).map(|version| version.ticket));
            object.purge = Purge::Done;
            return Ok(());
        }
        Err(complaint(object, answer))
    }

    /// Judges an answer under damage: any version ever written of this object, or none.
    pub fn is_a_version_of(&self, at: usize, answer: Option<&[u8]>) -> bool {
        let object = &self.objects[at];
        answer.is_none() || object.versions.iter().any(|v| v.content.as_deref() == answer)
    }

    /// Every edit that was made, and of which object; and every one that turned out never to have been.
    pub fn retries(&self) -> (Vec<(Ticket, Id)>, &[Ticket]) {
        let of = |object: &Object<Id>| {
            let id = object.id.clone();
            object.versions.iter().map(move |v| (v.ticket, id.clone())).collect::<Vec<_>>()
        };
        let made = self.objects.iter().flat_map(of).filter(|(ticket, _)| *ticket != UNSURE);
        (made.collect(), &self.undone)
    }

    /// Ids of objects that are live now, when nothing is in doubt.
    pub fn live(&self) -> BTreeSet<Id> {
        let live = self.objects.iter().filter(|object| object.latest().is_some());
        live.map(|object| object.id.clone()).collect()
    }

    /// Whether this id was ever given to a client.
    pub fn knows(&self, id: &Id) -> bool {
        self.issued.contains(id)
    }
}

fn complaint<Id: Debug>(object: &Object<Id>, answer: Option<&[u8]>) -> String {
    let told = match answer {
        None => "not found".to_owned(),
        Some(bytes) => {
            let known = |version: &&Version| version.content.as_deref() == Some(bytes);
            match object.versions.iter().find(known) {
                Some(version) => format!("the old version of ticket {}", version.ticket),
                None => format!("{} bytes that nobody wrote: {}", bytes.len(), prints(bytes)),
            }
        }
    };
    let versions: Vec<String> = object
        .versions
        .iter()
        .map(|version| {
            let state = if version.acknowledged { "acknowledged" } else { "in doubt" };
            let content = version.content.as_ref();
            let content = content.map_or("deleted".into(), |c| format!("{} bytes", c.len()));
            format!("ticket {}: {content}, {state}", version.ticket)
        })
        .collect();
    format!("{:?} answers {told}; its versions: [{}]", object.id, versions.join("; "))
}

/// The first bytes, and of whom they may be.
fn prints(bytes: &[u8]) -> String {
    format!("{:02x?}...", &bytes[..bytes.len().min(16)])
}

/// Content that no other stamp has (from 8 bytes on).
pub fn content(stamp: Ticket, len: usize) -> Content {
    let mut dice = Dice::new(stamp);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&dice.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}
