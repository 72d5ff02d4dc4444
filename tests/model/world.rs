//! The whole system: the mirrors, the cables between them, and every single step that the world can take.
//!
//! A step that is not possible in a world changes nothing, so any list of steps is a run, and a part of a run is
//! one too (`walk::shrink`).

use super::history::{EDITS_MAX, EditId, History, Kind, Object, ObjectId, bit};
use super::mirror::{Head, Image, Mirror, Notes, Record, What};
use super::rules::{Off, Rules};
use folio::cluster::archive::EditToken;
use folio::cluster::coverage::Coverage;
use folio::cluster::members::{Forget, may_serve, owner};
use folio::cluster::reuse::MemberReport;
use folio::cluster::tenancy::Tenant;
use folio::cluster::version::Edit;
use folio::format::ids::{Address, LogId, MachineId, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

mod disks;

/// Index of a mirror; its machine id is one more.
pub type M = usize;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A client stores an object; in fresh space even if a hole is free.
    Put(M, bool),
    /// A client's edit, or the owner's purge. `bool`: a move goes to fresh space.
    Edit(M, ObjectId, Kind, bool),
    /// The last modify of the object, made elsewhere and not known here, is tried again here.
    Retry(M, ObjectId),
    /// The next record of one log, by whoever holds it.
    Deliver(M, M, u8),
    /// All records of all logs that one has and the other lacks.
    Pull(M, M),
    /// The next record is put on the way.
    Send(M, M, u8),
    /// A record that is on the way arrives, perhaps not for the last time.
    Arrive(u8, bool),
    /// One object is copied by state.
    Mend(M, M, ObjectId),
    /// Everything is copied by state.
    Exchange(M, M),
    /// A machine recycles the log segments it holds.
    Recycle(M),
    /// A cable is cut, or mended.
    Cable(M, M, bool),
    /// A machine stops; it keeps its disk.
    Stop(M),
    /// It starts again, and applies the last records once more.
    Start(M, u8),
    /// A disk is lost.
    Lose(M),
    /// A blank machine copies from these others (bits); `u8` != 0: different slots from different ones.
    Recover(M, u8, u8),
    /// One machine tells another what it covers.
    Report(M, M),
    /// It says so, and that is under way for long.
    StashReport(M),
    LateReport(M, M),
    /// An operator forgets a member, for good.
    Forget(M, M),
    /// A forgotten machine is switched on again: blank, or with its disk.
    Return(M, bool),
}

/// A record that is on the way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    from: M,
    life: LogId,
    to: M,
    record: Rc<Record>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub rules: Rules,
    pub mirrors: Vec<Mirror>,
    pub cut: BTreeSet<(M, M)>,
    pub on_the_way: Vec<Message>,
    pub history: History,
    pub notes: Notes,
    /// Every life of every log: a forget names all of the machine's, by its instance uuid.
    lives: BTreeSet<(MachineId, LogId)>,
}

impl World {
    /// `members` mirrors, all in service but for the last `blank` ones, which may still join.
    pub fn new(rules: Rules, members: usize, blank: usize) -> Self {
        let ids: BTreeSet<MachineId> = (1..=members - blank).map(id_of).collect();
        let mirrors = (1..=members).map(|n| Mirror::blank(id_of(n), 1, &ids, &rules)).collect();
        let mut world = Self {
            rules,
            mirrors,
            cut: BTreeSet::new(),
            on_the_way: Vec::new(),
            history: History::default(),
            notes: Notes::default(),
            lives: (1..=members).map(|n| (id_of(n), 1)).collect(),
        };
        for mirror in world.mirrors.iter_mut().skip(members - blank) {
            mirror.newcomer = true;
        }
        for mirror in world.mirrors.iter_mut().take(members - blank) {
            mirror.blank = false;
            mirror.append(What::Announce);
        }
        world
    }

    pub fn linked(&self, a: M, b: M) -> bool {
        !self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn reach(&self, from: M, to: M) -> bool {
        from != to && self.linked(from, to) && self.mirrors[from].serves() && self.takes(to)
    }

    /// Whether it takes records and copies.
    fn takes(&self, to: M) -> bool {
        self.mirrors[to].up && !self.mirrors[to].blank
    }

    /// Does one step, if it is possible. Whether it was.
    pub fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Put(m, fresh) => self.put(m, fresh),
            Step::Edit(m, x, kind, fresh) => self.edit(m, x, kind, fresh, None),
            Step::Retry(m, x) => self.retry(m, x),
            Step::Deliver(from, to, log) => self.next_record(from, to, log).is_some_and(|record| {
                self.apply(to, &record);
                true
            }),
            Step::Pull(from, to) => self.pull(from, to),
            Step::Send(from, to, log) => self.send(from, to, log),
            Step::Arrive(which, again) => self.arrive(which, again),
            Step::Mend(from, to, x) => self.mend(from, to, x),
            Step::Exchange(from, to) => self.reach(from, to) && self.exchange(from, to),
            Step::Recycle(m) => self.recycle(m),
            Step::Cable(a, b, cut) => {
                let cable = (a.min(b), a.max(b));
                a != b && if cut { self.cut.insert(cable) } else { self.cut.remove(&cable) }
            }
            Step::Stop(m) => std::mem::replace(&mut self.mirrors[m].up, false),
            Step::Start(m, back) => self.start(m, back),
            Step::Lose(m) => self.lose(m),
            Step::Recover(m, sources, mixed) => self.recover(m, sources, mixed),
            Step::Report(from, to) => self.report(from, to),
            Step::StashReport(m) => {
                let report = self.mirrors[m].report();
                let life = self.mirrors[m].log_id;
                self.mirrors[m].stashed = Some((life, report.coverage, report.tails));
                self.mirrors[m].serves()
            }
            Step::LateReport(from, to) => self.late_report(from, to),
            Step::Forget(by, gone) => self.forget(by, gone),
            Step::Return(m, with_disk) => self.come_back(m, with_disk),
        }
    }

    // ---- edits

    fn may_write(&self, m: M) -> bool {
        let mirror = &self.mirrors[m];
        mirror.serves() && !mirror.outcast && self.history.edits.len() < EDITS_MAX
    }

    fn put(&mut self, m: M, fresh: bool) -> bool {
        if !self.may_write(m) {
            return false;
        }
        let object = self.history.objects.len();
        let home = self.mirrors[m].allocate(fresh);
        let at = self.mirrors[m].next_position();
        let tenant = Tenant { since: at.sequence, creation: at, cookie: object as u64 + 1 };
        let creator = self.mirrors[m].machine;
        self.history.objects.push(Object { home, creation: at, creator });
        let edit = self.history.edit(object, Kind::Put, at, None, None);
        let version = self.rules.next(None, Edit::Content, at, &[], creator);
        let token = token_of(self.history.edits[edit].token);
        let head =
            Head { version, purged: false, at: home, stay: tenant, bytes: edit, token, edit };
        self.commit(m, Image { home, tenant, head });
        true
    }

    fn edit(&mut self, m: M, x: ObjectId, kind: Kind, fresh: bool, token: Option<u64>) -> bool {
        let Some(image) = self.editable(m, x, kind) else { return false };
        let mirror = &mut self.mirrors[m];
        let at = mirror.next_position();
        let old = &image.head;
        let mut head = old.clone();
        if kind == Kind::Move {
            head.at = mirror.allocate(fresh);
            head.stay = Tenant { since: at.sequence, ..image.tenant };
        }
        let coverages: Vec<Option<&Coverage>> = mirror
            .members
            .iter()
            .map(|member| match mirror.known.get(member) {
                _ if *member == mirror.machine => Some(&mirror.coverage),
                known => known,
            })
            .collect();
        let owner = owner(self.history.objects[x].creator, &mirror.members);
        head.version = self.rules.next(Some(&old.version), what(kind), at, &coverages, owner);
        let edit = self.history.edit(x, kind, at, Some(old.edit), token);
        head.edit = edit;
        head.token = token_of(self.history.edits[edit].token);
        head.purged = kind == Kind::Purge;
        if matches!(kind, Kind::Modify | Kind::Move) {
            head.bytes = edit;
        }
        self.commit(m, Image { head, ..image });
        true
    }

    /// What a client that may do this edits, if it may.
    fn editable(&self, m: M, x: ObjectId, kind: Kind) -> Option<Image> {
        let object = self.history.objects.get(x)?;
        let mirror = &self.mirrors[m];
        let image = mirror.image(object.home)?;
        let alive = !image.head.version.tag.is_deleted();
        let fits = match kind {
            Kind::Put => false,
            Kind::Modify | Kind::Move | Kind::Delete => alive,
            Kind::Undelete => !alive,
            Kind::Purge => !alive && owner(object.creator, &mirror.members) == mirror.machine,
        };
        let same = image.tenant.cookie == x as u64 + 1;
        (self.may_write(m) && same && fits && !image.head.purged && mirror.is_whole(object.home))
            .then_some(image)
    }

    /// Logs an edit, then applies it.
    fn commit(&mut self, m: M, image: Image) {
        let mirror = &mut self.mirrors[m];
        mirror.append(What::Edit(image.clone()));
        mirror.write(&image, &self.rules, &mut self.notes);
        self.note_secured();
    }

    fn retry(&mut self, m: M, x: ObjectId) -> bool {
        let machine = self.mirrors[m].machine;
        let Some((id, last)) = self.history.edits.iter().enumerate().rev().find(|(_, edit)| {
            edit.object == x && edit.kind == Kind::Modify && edit.at.machine != machine
        }) else {
            return false;
        };
        let (token, at) = (last.token, last.at);
        let knows = self.editable(m, x, Kind::Modify).is_none_or(|image| {
            self.history.closure(bit(image.head.edit) | self.mirrors[m].archive) & bit(id) != 0
        });
        !knows
            && !self.mirrors[m].coverage.covers(at)
            && self.edit(m, x, Kind::Modify, false, Some(token))
    }

    // ---- logs

    /// The next record of the `log`-th log of `from` that `to` can take.
    fn next_record(&self, from: M, to: M, log: u8) -> Option<Rc<Record>> {
        let open = from != to && self.linked(from, to) && self.takes(from) && self.takes(to);
        if !open || self.shut_out(from, self.mirrors[from].log_id, to) {
            return None;
        }
        let logs = &self.mirrors[from].logs;
        let (key, log) = logs.iter().nth(usize::from(log) % logs.len().max(1))?;
        // Who is not in service yet passes its own announcement on, and nothing of others.
        if !self.mirrors[from].serves() && key.0 != self.mirrors[from].machine {
            return None;
        }
        let reached = self.mirrors[to].coverage.get(key.0, key.1);
        let record = log.records.iter().find(|record| record.at.sequence > reached)?;
        (record.prev <= reached).then(|| Rc::clone(record))
    }

    /// Whether `to` takes nothing from that life of `from`: forgotten, or it knows a newer one.
    fn shut_out(&self, from: M, life: LogId, to: M) -> bool {
        let (machine, to) = (self.mirrors[from].machine, &self.mirrors[to]);
        let newer = |at: Position| at.machine == machine && at.log_id > life;
        to.refuses(machine, life) && !self.rules.is_off(Off::BlankReturn)
            || to.coverage.iter().any(newer)
    }

    pub fn pull(&mut self, from: M, to: M) -> bool {
        let mut any = false;
        for log in 0..self.mirrors[from].logs.len() {
            while let Some(record) = self.next_record(from, to, log as u8) {
                self.apply(to, &record);
                any = true;
            }
        }
        any
    }

    fn send(&mut self, from: M, to: M, log: u8) -> bool {
        if self.on_the_way.len() >= 6 {
            return false;
        }
        let Some(record) = self.next_record(from, to, log) else { return false };
        let life = self.mirrors[from].log_id;
        self.on_the_way.push(Message { from, life, to, record });
        true
    }

    fn arrive(&mut self, which: u8, again: bool) -> bool {
        if self.on_the_way.is_empty() {
            return false;
        }
        let which = usize::from(which) % self.on_the_way.len();
        let message = self.on_the_way[which].clone();
        if !again {
            self.on_the_way.remove(which);
        }
        let (at, to) = (message.record.at, message.to);
        let reached = self.mirrors[to].coverage.get(at.machine, at.log_id);
        let fits = self.takes(to)
            && !self.shut_out(message.from, message.life, to)
            && reached < at.sequence
            && reached >= message.record.prev;
        if fits {
            self.apply(to, &message.record);
        }
        fits
    }

    /// A record in sequence: logged, applied, covered.
    fn apply(&mut self, to: M, record: &Rc<Record>) {
        let mirror = &mut self.mirrors[to];
        let key = (record.at.machine, record.at.log_id);
        mirror.logs.entry(key).or_default().records.push(Rc::clone(record));
        mirror.note_applied(record);
        self.apply_again(to, record);
        self.mirrors[to].coverage.raise(record.at);
        self.promote(to);
        self.note_secured();
    }

    fn apply_again(&mut self, to: M, record: &Record) {
        let mirror = &mut self.mirrors[to];
        match &record.what {
            What::Announce => {
                let gone = mirror.refuses(record.at.machine, record.at.log_id);
                if !gone && mirror.members.insert(record.at.machine) {
                    mirror.rounds.set_members(&mirror.members);
                }
            }
            What::Archive(edit) => mirror.archive |= bit(*edit),
            What::Forget(forget) => self.learn_forget(to, forget.clone()),
            What::Edit(image) => mirror.store(image, &self.rules, &self.history, &mut self.notes),
        }
    }

    fn recycle(&mut self, m: M) -> bool {
        let mirror = &mut self.mirrors[m];
        if !mirror.serves() {
            return false;
        }
        for (key, log) in &mut mirror.logs {
            log.records.clear();
            log.base = mirror.coverage.get(key.0, key.1);
        }
        true
    }
}

fn id_of(number: usize) -> MachineId {
    MachineId::try_from(number).expect("a handful of machines")
}

fn token_of(token: u64) -> EditToken {
    EditToken { client: [1; 16], sequence: token }
}

const fn what(kind: Kind) -> Edit {
    match kind {
        Kind::Put | Kind::Modify | Kind::Move => Edit::Content,
        Kind::Delete => Edit::Delete,
        Kind::Undelete => Edit::Undelete,
        Kind::Purge => Edit::Purge,
    }
}
