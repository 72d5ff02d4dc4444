//! What really happened, as nobody in the model can see it: every edit, what it was made on top of, and which edits
//! may be missing because the disks that held them are gone.

use folio::format::ids::{Address, MachineId, Position};

/// Index into [`History::edits`]; also stands for the bytes that the edit wrote.
pub type EditId = usize;
/// Index into [`History::objects`]; the object's cookie is this plus one.
pub type ObjectId = usize;
/// A set of edits.
pub type EditSet = u128;
/// Edits that a run may make: as many as a set has room for.
pub const EDITS_MAX: usize = 128;

/// What a client, or the owner's purge, did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Put,
    Modify,
    Move,
    Delete,
    Undelete,
    Purge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Edit {
    pub object: ObjectId,
    pub kind: Kind,
    pub at: Position,
    /// Deletes and undeletes on the way here; odd = deleted.
    pub life: u32,
    /// Itself and everything that it was made on top of.
    pub ancestors: EditSet,
    /// Client token; a retry elsewhere carries the same.
    pub token: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    pub home: Address,
    pub creation: Position,
    pub creator: MachineId,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    pub edits: Vec<Edit>,
    pub objects: Vec<Object>,
    /// Edits that at some time lay on two disks.
    pub secured: EditSet,
    /// Edits that went down with disks in a way that nothing is promised for.
    pub exempt: EditSet,
    pub disks_lost: u32,
    /// Whether any edit was retried elsewhere.
    pub retried: bool,
}

pub const fn bit(edit: EditId) -> EditSet {
    1 << edit
}

impl History {
    /// Notes an edit made on top of `prev`.
    pub fn edit(
        &mut self,
        object: ObjectId,
        kind: Kind,
        at: Position,
        prev: Option<EditId>,
        token: Option<u64>,
    ) -> EditId {
        let id = self.edits.len();
        let (life, ancestors) =
            prev.map_or((0, 0), |prev| (self.edits[prev].life, self.edits[prev].ancestors));
        let life = match kind {
            Kind::Delete => life | 1,
            Kind::Undelete => life + 1,
            Kind::Put | Kind::Modify | Kind::Move | Kind::Purge => life,
        };
        self.retried |= token.is_some();
        let token = token.unwrap_or(id as u64 + 1);
        self.edits.push(Edit { object, kind, at, life, ancestors: ancestors | bit(id), token });
        id
    }

    /// These versions and everything that they were made on top of.
    pub fn ancestry(&self, versions: EditSet) -> EditSet {
        let of =
            |(id, edit): (EditId, &Edit)| if versions & bit(id) != 0 { edit.ancestors } else { 0 };
        self.edits.iter().enumerate().fold(0, |all, edit| all | of(edit))
    }

    /// Everything that is accounted for when these versions are: their ancestry and, since a retried edit is one
    /// edit, that of their twins.
    pub fn closure(&self, versions: EditSet) -> EditSet {
        let mut all = self.ancestry(versions);
        if !self.retried {
            return all;
        }
        loop {
            let before = all;
            for twin in &self.edits {
                let known = |(id, edit): (EditId, &Edit)| {
                    all & bit(id) != 0 && edit.token == twin.token && edit.object == twin.object
                };
                let missing = all & twin.ancestors != twin.ancestors;
                if missing && self.edits.iter().enumerate().any(known) {
                    all |= twin.ancestors;
                }
            }
            if all == before {
                return all;
            }
        }
    }

    /// Whether anybody ever deleted it.
    pub fn was_deleted(&self, object: ObjectId) -> bool {
        self.edits.iter().any(|edit| edit.object == object && edit.kind == Kind::Delete)
    }
}
