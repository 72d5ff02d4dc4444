//! The steps of workloads, and a session that runs them on an engine and on the model side by side.

use folio::store::sim_disk::{Dice, SimDisk};

use super::engine::{Content, Edit, Engine, Ticket, Trouble};
use super::model::{Model, content};
use super::note;

/// Payloads above this are singlefiles in the campaign.
pub const THRESHOLD: usize = 8192;
/// What small objects start with.
const SMALL: usize = 600;
/// What large objects have.
const LARGE: usize = THRESHOLD + 1000;

/// One thing to do. The object in question is the session's subject unless it is in the wrong state for the step; then
/// the first that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Put,
    InPlace,
    Grow,
    Shrink,
    ThresholdUp,
    ThresholdDown,
    Delete,
    Undelete,
    /// Delete, let the window pass, put something into the freed place.
    Reuse,
    Checkpoint,
}

/// All of them.
pub const STEPS: [Step; 10] = [
    Step::Put,
    Step::InPlace,
    Step::Grow,
    Step::Shrink,
    Step::ThresholdUp,
    Step::ThresholdDown,
    Step::Delete,
    Step::Undelete,
    Step::Reuse,
    Step::Checkpoint,
];

/// Why a session ended.
#[derive(Debug)]
pub enum Stop {
    /// The machine died or the mount fenced itself.
    Dead,
    /// Something that must not happen.
    Finding(String),
}

/// A disk as it was at a point of a session, and what was known to clients then.
pub struct CrashPoint<Id> {
    pub disk: SimDisk,
    pub model: Model<Id>,
}

/// An engine and the model of what it owes.
pub struct Session<E: Engine> {
    pub engine: E,
    pub model: Model<E::Id>,
    disk: SimDisk,
    /// Collected while the disk records forks.
    pub points: Vec<CrashPoint<E::Id>>,
    /// Whether edits are committed one by one.
    pub commit_each: bool,
    /// The disk fails calls: edits may be refused for that, and the mount may fence itself.
    pub disk_fails: bool,
}

impl<E: Engine> Session<E> {
    pub fn new(engine: E, model: Model<E::Id>, disk: SimDisk) -> Self {
        if *super::TALKS {
            disk.start_trace();
        }
        Self { engine, model, disk, points: Vec::new(), commit_each: true, disk_fails: false }
    }

    /// Takes in what an engine call did: crash points first, under what was known before its acknowledgements.
    fn settle(&mut self, result: Result<(), Trouble>) -> Result<(), Stop> {
        for call in self.disk.take_trace() {
            note!("        {call:?}");
        }
        if let Err(trouble) = &result {
            note!("      {trouble:?}");
        }
        for disk in self.disk.take_forks() {
            self.points.push(CrashPoint { disk, model: self.model.clone() });
        }
        for ticket in self.engine.acknowledged() {
            self.model.acknowledge(ticket);
        }
        result.map_err(|trouble| match trouble {
            Trouble::Dead(_) if self.disk.has_crashed() || self.disk_fails => Stop::Dead,
            Trouble::Dead(why) | Trouble::Refused(why) | Trouble::Damaged(why) => {
                Stop::Finding(format!("trouble without a reason: {why}"))
            }
        })
    }

    /// The disk as it is now, and what is known now.
    pub fn last_point(&self) -> CrashPoint<E::Id> {
        CrashPoint { disk: self.disk.fork(), model: self.model.clone() }
    }

    pub fn edit(&mut self, edit: &Edit<E::Id>) -> Result<(), Stop> {
        let ticket = self.model.begin(edit);
        note!("    ticket {ticket}: {}", brief(edit));
        let outcome = match self.engine.submit(ticket, edit) {
            Ok(id) => {
                if let Edit::Put(content) = edit {
                    self.model.issue(ticket, id, content.clone()).map_err(Stop::Finding)?;
                }
                self.model.accepted(edit).map_err(Stop::Finding)?;
                Ok(())
            }
            Err(Trouble::Refused(why)) => {
                let refused = self.model.refuse(ticket, edit, &why);
                if !self.disk_fails {
                    refused.map_err(Stop::Finding)?;
                }
                Ok(())
            }
            Err(trouble) => Err(trouble),
        };
        self.settle(outcome)?;
        if self.commit_each { self.commit() } else { Ok(()) }
    }

    pub fn commit(&mut self) -> Result<(), Stop> {
        let result = self.engine.commit();
        self.settle(result)
    }

    pub fn checkpoint(&mut self) -> Result<(), Stop> {
        note!("    checkpoint");
        self.commit()?;
        let result = self.engine.checkpoint();
        self.settle(result)
    }

    pub fn age(&mut self) -> Result<(), Stop> {
        self.commit()?;
        note!("    age");
        self.model.age(false);
        let result = self.engine.age();
        self.settle(result)?;
        self.model.age(true);
        Ok(())
    }

    fn stamp(&self, len: usize) -> Content {
        content(self.stamp_number(), len)
    }

    const fn stamp_number(&self) -> Ticket {
        self.model.next_ticket()
    }

    pub fn put(&mut self, len: usize) -> Result<(), Stop> {
        self.edit(&Edit::Put(self.stamp(len)))
    }

    /// The object at `subject` if it fits, else the first that does.
    fn find(&self, subject: usize, fits: impl Fn(Option<usize>) -> bool) -> Option<(E::Id, usize)> {
        let objects = &self.model.objects;
        let order = objects.iter().skip(subject).chain(objects.iter().take(subject));
        order
            .map(|object| (object, object.latest().map(|content| content.len())))
            .find(|(_, len)| fits(*len))
            .map(|(object, len)| (object.id.clone(), len.unwrap_or(0)))
    }

    fn resize(
        &mut self,
        subject: usize,
        fits: impl Fn(usize) -> bool,
        len: impl Fn(usize) -> usize,
    ) -> Result<(), Stop> {
        match self.find(subject, |len| len.is_some_and(&fits)) {
            Some((id, now)) => self.edit(&Edit::Modify(id, self.stamp(len(now)))),
            None => self.put(SMALL),
        }
    }

    /// Does one step.
    pub fn step(&mut self, step: Step, subject: usize) -> Result<(), Stop> {
        let small = |len: usize| len <= THRESHOLD;
        match step {
            Step::Put => self.put(SMALL),
            Step::InPlace => self.resize(subject, |_| true, |len| len),
            Step::Grow => self.resize(subject, small, |len| len * 2 + 300),
            Step::Shrink => self.resize(subject, |_| true, |len| len / 3),
            Step::ThresholdUp => self.resize(subject, small, |_| LARGE),
            Step::ThresholdDown => self.resize(subject, |len| !small(len), |_| SMALL),
            Step::Delete => match self.find(subject, |len| len.is_some()) {
                Some((id, _)) => self.edit(&Edit::Delete(id)),
                None => self.put(SMALL),
            },
            Step::Undelete => match self.find(subject, |len| len.is_none()) {
                Some((id, _)) => self.edit(&Edit::Undelete(id)),
                None => self.put(SMALL),
            },
            Step::Reuse => self.reuse(subject),
            Step::Checkpoint => self.checkpoint(),
        }
    }

    /// Never the subject itself: its own freed places are what the put may find as well.
    fn reuse(&mut self, subject: usize) -> Result<(), Stop> {
        let mut len = SMALL;
        let other = subject + 1;
        let found = self.find(other, |len| len.is_some_and(|len| len <= THRESHOLD));
        if let Some((id, its_len)) = found {
            len = its_len;
            self.edit(&Edit::Delete(id))?;
        }
        self.age()?;
        self.put(len)
    }

    /// A drawn step with drawn sizes.
    pub fn drawn_step(&mut self, dice: &mut Dice) -> Result<(), Stop> {
        let subject = dice.below(self.model.objects.len() as u64) as usize;
        self.commit_each = dice.chance(60);
        if dice.chance(30) {
            let len = drawn_len(dice);
            return match self.find(subject, |len| len.is_some()) {
                Some((id, _)) if dice.chance(60) => self.edit(&Edit::Modify(id, self.stamp(len))),
                Some(_) | None => self.put(len),
            };
        }
        let step = *dice.pick(&STEPS).unwrap_or(&Step::Put);
        self.step(step, subject)
    }
}

/// Sizes at and around everything that has an edge.
fn drawn_len(dice: &mut Dice) -> usize {
    let edges = [0, 1, 8, 63, 64, 511, 512, 513, 4096, THRESHOLD - 1, THRESHOLD, THRESHOLD + 1];
    if dice.chance(40) {
        *dice.pick(&edges).unwrap_or(&0)
    } else {
        16 + dice.below(2 * THRESHOLD as u64) as usize
    }
}

fn brief<Id: std::fmt::Debug>(edit: &Edit<Id>) -> String {
    match edit {
        Edit::Put(content) => format!("put {} bytes", content.len()),
        Edit::Modify(id, content) => format!("modify {id:?} to {} bytes", content.len()),
        Edit::Delete(id) => format!("delete {id:?}"),
        Edit::Undelete(id) => format!("undelete {id:?}"),
    }
}
