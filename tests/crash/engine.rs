//! What the campaign needs of an engine.

use std::fmt::Debug;
use std::sync::Arc;

use folio::store::sim_disk::SimDisk;

/// Content of an object.
pub type Content = Arc<[u8]>;
/// Names one submitted edit.
pub type Ticket = u64;

/// A change that a client asks for.
#[derive(Clone, Debug)]
pub enum Edit<Id> {
    /// A new object.
    Put(Content),
    /// Whole new content.
    Modify(Id, Content),
    /// Gone, for the time being.
    Delete(Id),
    /// Back again.
    Undelete(Id),
}

/// Why an engine did not do as it was told.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// It says no and has changed nothing: no such object, deleted, no space.
    Refused(String),
    /// The simulated machine is dead, or the mount fenced itself: outcome unknown, nothing more will come.
    Dead(String),
    /// The bytes on the disk are not what was written.
    Damaged(String),
}

/// A store on one disk. Nothing of it may survive in memory from one [`Engine::open`] to the next.
pub trait Engine: Sized {
    /// Names of objects.
    type Id: Clone + Ord + Debug;
    /// Settings, planted bugs included.
    type Setup: Clone;

    /// Sets the simulated time at the beginning of a run, so that the run repeats exactly, and the mood: how the daemon
    /// around the engine behaves in it.
    fn begin(setup: &Self::Setup, ms: u64, mood: u64);
    /// Plants into a blank disk what the setup has planted in the disk's calls.
    fn prepare(setup: &Self::Setup, disk: &SimDisk);
    /// Opens what is on the disk, or founds a new store on a blank one.
    fn open(disk: &SimDisk, setup: &Self::Setup) -> Result<Self, Trouble>;
    /// Takes an edit. Gives the id, which is a new one after a `Put`.
    fn submit(&mut self, ticket: Ticket, edit: &Edit<Self::Id>) -> Result<Self::Id, Trouble>;
    /// Makes all that was submitted durable.
    fn commit(&mut self) -> Result<(), Trouble>;
    /// Edits that the engine has declared durable since the last time.
    fn acknowledged(&mut self) -> Vec<Ticket>;
    /// The content; `None`: there is no such object.
    fn get(&mut self, id: &Self::Id) -> Result<Option<Vec<u8>>, Trouble>;
    /// A whole checkpoint, if the mood allows.
    fn checkpoint(&mut self) -> Result<(), Trouble>;
    /// The undelete window passes for all that is deleted, and places that may be reused are free afterwards.
    fn age(&mut self) -> Result<(), Trouble>;
    /// What a client is told that sends an edit again: the object if the edit was made, else nothing.
    fn answer_to_retry(&mut self, ticket: Ticket) -> Option<Self::Id>;
    /// Every live object, as a scan of the disk finds them.
    fn list(&mut self) -> Result<Vec<Self::Id>, Trouble>;
}
