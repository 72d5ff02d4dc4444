//! One mirror: its slots, logs, archive, and what it knows of the others. What a record or a copied object does here.
//!
//! A slot is a home (header, and content unless that moved) or the target of a move. A record carries the whole new
//! version, content included, so applying is idempotent. Bytes are stood for by the edit that wrote them.

use super::history::{EditId, EditSet, History, ObjectId, bit};
use super::places::Rounds;
use super::rules::{Off, Rules};
use folio::cluster::archive::{EditToken, Loser};
use folio::cluster::coverage::Coverage;
use folio::cluster::evidence::{AtHome, Evidence};
use folio::cluster::members::Forget;
use folio::cluster::reuse::MemberReport;
use folio::cluster::tenancy::{Claim, Tenant};
use folio::cluster::version::{Decision, Winner};
use folio::format::ids::{Address, LogId, MachineId, Position, Sequence, Version, first_sequence};
use folio::format::slot::State;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A home header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    pub version: Version,
    pub purged: bool,
    /// Where the content lies: the home itself, or a target.
    pub at: Address,
    /// Its stay there.
    pub stay: Tenant,
    pub bytes: EditId,
    pub token: EditToken,
    /// Which edit this version really is.
    pub edit: EditId,
}

impl Head {
    pub fn state(&self) -> State {
        match (self.purged, self.version.tag.is_deleted()) {
            (true, _) => State::Purged,
            (false, true) => State::Deleted,
            (false, false) => State::Live,
        }
    }
}

/// What lies at an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    pub tenant: Tenant,
    /// `None`: the target of a move.
    pub head: Option<Head>,
    /// Content behind the header, if any.
    pub bytes: Option<EditId>,
}

/// One whole version of one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    pub home: Address,
    pub tenant: Tenant,
    pub head: Head,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// The first record of every life of a log.
    Announce,
    Edit(Image),
    Archive(EditId),
    Forget(Forget),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub at: Position,
    pub prev: Sequence,
    pub what: What,
}

/// What is held of one log: everything after `base`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Log {
    pub base: Sequence,
    pub records: Vec<Rc<Record>>,
}

/// What the checks want to know of the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Notes {
    /// Purged versions whose home has a later tenant.
    pub graves: EditSet,
    /// A conflict was seen between a version and its own ancestor.
    pub false_conflict: bool,
    /// Why that may happen: something was applied again, or came by state.
    pub by_state: bool,
    pub conflicts: u32,
    pub fault: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mirror {
    pub machine: MachineId,
    pub log_id: LogId,
    pub last: Sequence,
    next: Sequence,
    starts: u16,
    pub up: bool,
    /// Has nothing: a new or a lost disk.
    pub blank: bool,
    /// Recovered, but not yet as far as its sources were.
    pub catching_up: Option<Coverage>,
    /// Not one of the founders, who know each other.
    pub newcomer: bool,
    /// Members that count a newcomer, as others say.
    pub counted_by: BTreeSet<MachineId>,
    pub outcast: bool,
    pub slots: BTreeMap<Address, Slot>,
    pub logs: BTreeMap<(MachineId, LogId), Log>,
    /// The last records in the order in which they were applied: what a start may apply again. A recovery ends with
    /// a checkpoint, and nothing from before it is ever applied again.
    pub applied: Vec<Rc<Record>>,
    pub coverage: Coverage,
    pub archive: EditSet,
    pub members: BTreeSet<MachineId>,
    pub forgets: Vec<Forget>,
    pub rounds: Rounds,
    /// Places that lost their last use, and the round that they wait for.
    pub waiting: BTreeMap<Address, u64>,
    pub free: BTreeSet<Address>,
    next_place: u32,
    /// The last report of each other one, since this start.
    pub known: BTreeMap<MachineId, Coverage>,
    /// The first report of each, in its life, that knows this life of ours.
    pub confirmed: BTreeMap<MachineId, (LogId, Coverage)>,
    /// A report that is still under way.
    pub stashed: Option<(LogId, Coverage, Coverage)>,
}

impl Mirror {
    /// A blank one, at the beginning of this life of its log.
    pub fn blank(
        machine: MachineId,
        log_id: LogId,
        members: &BTreeSet<MachineId>,
        rules: &Rules,
    ) -> Self {
        Self {
            machine,
            log_id,
            last: 0,
            next: first_sequence(1),
            starts: 1,
            up: true,
            blank: true,
            catching_up: None,
            newcomer: false,
            counted_by: BTreeSet::new(),
            outcast: false,
            slots: BTreeMap::new(),
            logs: BTreeMap::new(),
            applied: Vec::new(),
            coverage: Coverage::new(),
            archive: 0,
            members: members.clone(),
            forgets: Vec::new(),
            rounds: Rounds::new(rules, members),
            waiting: BTreeMap::new(),
            free: BTreeSet::new(),
            next_place: 0,
            known: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            stashed: None,
        }
    }

    /// Complete: the others can be rebuilt from here. A loss of all of them is left out of the model.
    pub fn is_base(&self) -> bool {
        !self.blank && !self.outcast && self.catching_up.is_none()
    }

    /// In service: may be read, written, and copied from. Who hears that it was forgotten is not any more.
    pub fn serves(&self) -> bool {
        let forgotten = self.refuses(self.machine, self.log_id);
        self.up && !self.blank && self.catching_up.is_none() && !forgotten
    }

    pub fn next_position(&self) -> Position {
        Position { machine: self.machine, log_id: self.log_id, sequence: self.next }
    }

    /// Appends to the own log; durable and applied at once.
    pub fn append(&mut self, what: What) -> Position {
        let at = self.next_position();
        let record = Record { at, prev: self.last, what };
        let record = Rc::new(record);
        self.note_applied(&record);
        self.logs.entry((at.machine, at.log_id)).or_default().records.push(record);
        self.last = at.sequence;
        self.next += 1;
        self.coverage.raise(at);
        at
    }

    pub fn note_applied(&mut self, record: &Rc<Record>) {
        if self.applied.len() == 8 {
            self.applied.remove(0);
        }
        self.applied.push(Rc::clone(record));
    }

    /// A new start: sequences leap, what was only in memory is gone.
    pub fn restart(&mut self, rules: &Rules) {
        self.starts += 1;
        self.next = first_sequence(self.starts);
        self.known.clear();
        self.rounds = Rounds::new(rules, &self.members);
        let mut round = 0;
        for position in self.coverage.iter() {
            round = self.rounds.superseded(position);
        }
        let used = self.used();
        let own = |number| Address {
            machine: self.machine,
            log_id: self.log_id,
            chunk: 0,
            offset_units: number,
        };
        self.free.clear();
        self.waiting = (0..self.next_place)
            .map(own)
            .filter(|place| !used.contains(place))
            .map(|place| (place, round))
            .collect();
    }

    /// Places in which current versions lie.
    pub fn used(&self) -> BTreeSet<Address> {
        let mut used = BTreeSet::new();
        for (address, slot) in &self.slots {
            if let Some(head) = slot.head.as_ref().filter(|head| !head.purged) {
                used.extend([*address, head.at]);
            }
        }
        used
    }

    /// Hands out a place: a free one, or one that was never used.
    pub fn allocate(&mut self, fresh: bool) -> Address {
        if !fresh && let Some(place) = self.free.pop_first() {
            return place;
        }
        self.next_place += 1;
        Address {
            machine: self.machine,
            log_id: self.log_id,
            chunk: 0,
            offset_units: self.next_place - 1,
        }
    }

    /// Whether this life of that machine is shut out here.
    pub fn refuses(&self, machine: MachineId, log_id: LogId) -> bool {
        self.forgets.iter().any(|forget| forget.refuses(machine, log_id))
    }

    /// The image of an object that has its home here.
    pub fn image(&self, home: Address) -> Option<Image> {
        let slot = self.slots.get(&home)?;
        Some(Image { home, tenant: slot.tenant, head: slot.head.clone()? })
    }

    /// Whether the content that a home names is there.
    pub fn is_whole(&self, home: Address) -> bool {
        let Some(head) = self.slots.get(&home).and_then(|slot| slot.head.as_ref()) else {
            return false;
        };
        head.purged
            || self
                .slots
                .get(&head.at)
                .is_some_and(|slot| slot.tenant == head.stay && slot.bytes == Some(head.bytes))
    }

    /// What somebody reads who asks for this object: evidence and, if it is here, whose bytes.
    pub fn read(
        &self,
        tenant: &Tenant,
        home: Address,
        rules: &Rules,
    ) -> (Evidence, Option<EditId>) {
        let slot = self.slots.get(&home);
        let found = match slot {
            None => AtHome::Hole,
            Some(Slot { tenant: found, head: Some(head), .. }) if found == tenant => {
                if self.is_whole(home) { AtHome::Object(head.state()) } else { AtHome::Damaged }
            }
            Some(other) => AtHome::Other { since: other.tenant.since },
        };
        let evidence = rules.evidence(tenant.creation, found, &self.coverage);
        let at = slot.and_then(|slot| slot.head.as_ref()).map_or(home, |head| head.at);
        let bytes = self.slots.get(&at).and_then(|slot| slot.bytes);
        (evidence, bytes.filter(|_| evidence == Evidence::Here))
    }

    /// Takes one version: decides by place and by version, archives a loser, writes.
    pub fn store(&mut self, image: &Image, rules: &Rules, history: &History, notes: &mut Notes) {
        let tenant_at =
            |slots: &BTreeMap<Address, Slot>, at| slots.get(&at).map(|slot: &Slot| slot.tenant);
        let home_claim = rules.claim(tenant_at(&self.slots, image.home).as_ref(), &image.tenant);
        let content_claim = if image.head.purged || image.head.at == image.home {
            Claim::Same
        } else {
            rules.claim(tenant_at(&self.slots, image.head.at).as_ref(), &image.head.stay)
        };
        if home_claim == Claim::Older || content_claim == Claim::Older {
            return;
        }
        // What cannot be read counts for nothing (R8).
        let whole = self.is_whole(image.home);
        let local =
            self.slots.get(&image.home).and_then(|slot| slot.head.clone()).filter(|_| whole);
        let mut image = image.clone();
        if home_claim == Claim::Same
            && let Some(local) = local
        {
            let decision = rules.judge(&local.version, &image.head.version);
            self.keep_loser(decision, &local, &image.head, rules, history, notes);
            match decision {
                Decision::Ignore => return,
                Decision::Apply => {}
                Decision::Conflict { winner } => {
                    let (old, new) = (&local.version, &image.head.version);
                    if winner == Winner::Local {
                        let vector = rules.stored_vector(old, new);
                        let head =
                            self.slots.get_mut(&image.home).and_then(|slot| slot.head.as_mut());
                        if let Some(head) = head {
                            head.version.vector = vector;
                        }
                        return;
                    }
                    image.head.version.vector = rules.stored_vector(new, old);
                }
            }
        }
        self.write(&image, rules, notes);
    }

    fn keep_loser(
        &mut self,
        decision: Decision,
        local: &Head,
        incoming: &Head,
        rules: &Rules,
        history: &History,
        notes: &mut Notes,
    ) {
        if let Decision::Conflict { .. } = decision {
            notes.conflicts += 1;
            let (a, b) = (&history.edits[local.edit], &history.edits[incoming.edit]);
            let related =
                a.ancestors & bit(incoming.edit) != 0 || b.ancestors & bit(local.edit) != 0;
            notes.false_conflict |= related && !notes.by_state;
            if a.token == b.token && rules.loser(decision, &local.token, &incoming.token).is_some()
            {
                notes.fault = Some("an edit that was retried was archived as lost".to_owned());
            }
        }
        let lost = match rules.loser(decision, &local.token, &incoming.token) {
            None => return,
            Some(Loser::Local) => local.edit,
            Some(Loser::Incoming) => incoming.edit,
        };
        self.archive |= bit(lost);
        if !rules.is_off(Off::LoggedArchive) {
            self.append(What::Archive(lost));
        }
    }

    /// Writes a version that stands.
    pub fn write(&mut self, image: &Image, rules: &Rules, notes: &mut Notes) {
        let before = self.slots.get(&image.home).cloned();
        let mut left = BTreeSet::new();
        if let Some(Slot { tenant, head: Some(head), .. }) = &before {
            if *tenant == image.tenant {
                if !head.purged {
                    left.extend([image.home, head.at]);
                }
            } else {
                self.evicted(head, notes);
            }
        }
        let same_home = before.as_ref().is_some_and(|slot| slot.tenant == image.tenant);
        let head = &image.head;
        let inline = head.at == image.home;
        let bytes = if inline && !head.purged {
            Some(head.bytes)
        } else {
            before.filter(|_| same_home).and_then(|slot| slot.bytes)
        };
        let slot = Slot { tenant: image.tenant, head: Some(head.clone()), bytes };
        self.slots.insert(image.home, slot);
        if !head.purged {
            left.remove(&image.home);
            left.remove(&head.at);
            if !rules.is_off(Off::LastSupersession) {
                self.waiting.remove(&image.home);
                self.waiting.remove(&head.at);
            }
            if !inline {
                if let Some(Slot { tenant, head: Some(old), .. }) =
                    self.slots.get(&head.at).cloned()
                    && tenant != head.stay
                {
                    self.evicted(&old, notes);
                }
                let content = Slot { tenant: head.stay, head: None, bytes: Some(head.bytes) };
                self.slots.insert(head.at, content);
            }
        }
        for place in left {
            self.leave(place, head.version.tag.position(), rules);
        }
    }

    /// A place lost its last use: it waits, if it is ours to hand out.
    fn leave(&mut self, place: Address, by: Position, rules: &Rules) {
        if place.machine != self.machine || place.log_id != self.log_id {
            return;
        }
        let round = self.rounds.superseded(by);
        if rules.is_off(Off::LastSupersession) {
            self.waiting.entry(place).or_insert(round);
        } else {
            self.waiting.insert(place, round);
        }
        self.look_again();
    }

    /// Frees the places whose waits are over and which are still unused.
    pub fn look_again(&mut self) {
        let completed = self.rounds.completed();
        let used = self.used();
        let over: Vec<Address> = self
            .waiting
            .iter()
            .filter(|(_, round)| **round <= completed)
            .map(|(place, _)| *place)
            .collect();
        for place in over {
            self.waiting.remove(&place);
            if !used.contains(&place) {
                self.free.insert(place);
            }
        }
    }

    /// A home was written over by a later tenant.
    fn evicted(&mut self, head: &Head, notes: &mut Notes) {
        if head.purged {
            notes.graves |= bit(head.edit);
        } else if self.serves() && !self.outcast {
            let machine = self.machine;
            notes.fault = Some(format!(
                "machine {machine} wrote over a home that nobody had purged: {head:?}"
            ));
        }
    }

    /// Edits whose bytes, or those of a later version, can be had from here.
    pub fn holds(&self, history: &History) -> EditSet {
        let whole = self.slots.iter().filter(|(home, _)| self.is_whole(**home));
        let heads = whole.filter_map(|(_, slot)| slot.head.as_ref());
        history.ancestry(heads.fold(self.archive, |all, head| all | bit(head.edit)))
    }

    pub fn report(&self) -> MemberReport {
        let own = |position: &Position| position.machine == self.machine;
        MemberReport {
            coverage: self.coverage.clone(),
            tails: self.coverage.iter().filter(own).collect(),
        }
    }

    /// Object at this home, as people see it: state, version, bytes. `None` for what is gone.
    pub fn visible(
        &self,
        home: Address,
        object: ObjectId,
    ) -> Option<(bool, Version, Option<EditId>)> {
        let slot = self.slots.get(&home)?;
        let head = slot.head.as_ref().filter(|head| !head.purged)?;
        if slot.tenant.cookie != object as u64 + 1 {
            return None;
        }
        let bytes = self.is_whole(home).then_some(head.bytes);
        Some((head.version.tag.is_deleted(), head.version.clone(), bytes))
    }
}
