//! The steps that copy state, lose disks and change the members.

use super::*;
use crate::mirror::Slot;
use folio::cluster::evidence::Evidence;

impl World {
    // ---- state

    pub(super) fn mend(&mut self, from: M, to: M, x: ObjectId) -> bool {
        let Some(home) = self.history.objects.get(x).map(|object| object.home) else {
            return false;
        };
        if !self.reach(from, to) || self.shut_out(from, self.mirrors[from].log_id, to) {
            return false;
        }
        let Some(image) =
            self.mirrors[from].image(home).filter(|_| self.mirrors[from].is_whole(home))
        else {
            return false;
        };
        self.notes.by_state = true;
        if !self.rules.is_off(Off::ArchiveWithState) {
            let of_object =
                |edit: &EditId| self.history.edits[*edit].object as u64 + 1 == image.tenant.cookie;
            let archive = self.mirrors[from].archive;
            let edits = (0..self.history.edits.len()).filter(of_object);
            self.mirrors[to].archive |= edits.map(bit).fold(0, |all, edit| all | edit & archive);
        }
        self.mirrors[to].store(&image, &self.rules, &self.history, &mut self.notes);
        self.promote(to);
        self.note_secured();
        true
    }

    /// `to` takes over all that `from` has, and what it covers.
    pub fn exchange(&mut self, from: M, to: M) -> bool {
        if self.shut_out(from, self.mirrors[from].log_id, to) {
            return false;
        }
        self.notes.by_state = true;
        let source = self.mirrors[from].clone();
        if !source
            .slots
            .keys()
            .all(|home| source.slots[home].head.is_none() || source.is_whole(*home))
        {
            return false;
        }
        for forget in &source.forgets {
            self.learn_forget(to, forget.clone());
        }
        let mirror = &mut self.mirrors[to];
        mirror.archive |= source.archive;
        if mirror.catching_up.is_some() {
            // Half a copy of a source that is gone: those chunkfiles are copied anew.
            let whole: BTreeSet<Address> =
                mirror.slots.keys().filter(|home| mirror.is_whole(**home)).copied().collect();
            mirror.slots.retain(|home, slot| slot.head.is_none() || whole.contains(home));
            // An earlier copy may have what was purged, and its place used again, before anybody counted us: no record
            // of that comes after a copy. Who is in service and covers the creation knows that it is gone.
            let rules = &self.rules;
            let gone = |home: &Address, slot: &Slot| {
                let other = source
                    .slots
                    .get(home)
                    .is_none_or(|there| there.tenant != slot.tenant || there.head.is_none());
                other && source.read(&slot.tenant, *home, rules).0 == Evidence::Gone
            };
            mirror.slots.retain(|home, slot| slot.head.is_none() || !gone(home, slot));
        }
        if self.rules.is_off(Off::AbsenceProvesNothing) {
            mirror
                .slots
                .retain(|home, slot| slot.head.is_none() || source.slots.contains_key(home));
        }
        for home in source.slots.keys() {
            if let Some(image) = source.image(*home) {
                mirror.store(&image, &self.rules, &self.history, &mut self.notes);
            }
        }
        mirror.reach_as_far_as(&source.coverage);
        mirror.hear_who_counts_us(&source);
        mirror.meet_members(&source.members);
        if mirror.catching_up.is_some() {
            // A whole copy of one source: what another one had, and lost since, is not waited for.
            mirror.catching_up = Some(source.coverage);
        }
        self.promote(to);
        self.note_secured();
        true
    }

    pub(super) fn start(&mut self, m: M, back: u8) -> bool {
        if self.mirrors[m].up || self.mirrors[m].outcast {
            return false;
        }
        self.mirrors[m].up = true;
        if self.mirrors[m].blank {
            return true;
        }
        self.mirrors[m].restart(&self.rules);
        self.notes.by_state |= back > 0;
        let applied = &self.mirrors[m].applied;
        let from = applied.len().saturating_sub(usize::from(back));
        let mut again: Vec<_> = applied[from..].to_vec();
        if back % 2 == 1 {
            // Log after log.
            again.sort_by_key(|record| (record.at.machine, record.at.log_id));
        }
        for record in again {
            self.apply_again(m, &record);
        }
        true
    }

    /// Puts a recovered or new machine into service, once it has what its sources covered when it began, whole, and
    /// the live members know it.
    pub(super) fn promote(&mut self, m: M) {
        let mirror = &self.mirrors[m];
        let Some(goal) = &mirror.catching_up else { return };
        let live = |n: &M| {
            *n != m && self.linked(*n, m) && self.mirrors[*n].serves() && !self.mirrors[*n].outcast
        };
        let live: Vec<M> = (0..self.mirrors.len()).filter(live).collect();
        let (machine, log_id) = (mirror.machine, mirror.log_id);
        // Who cannot be asked now counts a founder, but need not know of a new machine: the one who would tell may be
        // forgotten there before it does.
        let unheard = mirror.newcomer
            && (0..self.mirrors.len()).any(|n| {
                let other = &self.mirrors[n];
                let counts = mirror.confirmed.contains_key(&other.machine)
                    || mirror.counted_by.contains(&other.machine);
                // Who is gone for good frees nothing any more: an operator says so, if nobody has yet.
                let away = (!self.linked(n, m) || !other.up) && !other.outcast;
                n != m && mirror.members.contains(&other.machine) && away && !counts
            });
        let known = if self.rules.is_off(Off::Join) {
            live.iter().all(|n| self.mirrors[*n].coverage.get(machine, log_id) > 0)
        } else {
            let confirmed = live.iter().map(|n| {
                let of = mirror.confirmed.get(&self.mirrors[*n].machine);
                of.filter(|(life, _)| *life == self.mirrors[*n].log_id)
                    .map(|(_, coverage)| coverage)
            });
            !unheard && may_serve(machine, log_id, &mirror.coverage, confirmed)
        };
        let damaged = |home| mirror.slots[home].head.is_some() && !mirror.is_whole(*home);
        let complete = mirror.coverage.covers_all(goal) && !mirror.slots.keys().any(damaged);
        // It has more of a forgotten machine than anybody in service, who count without that: it begins anew.
        let ahead = mirror.forgets.iter().any(|forget| {
            // A copy of one object says more than the coverage does.
            let of = |m: &Mirror, id| {
                m.coverage.get(forget.machine, id).max(m.copied_of(forget.machine, id))
            };
            let more =
                |id: &LogId| live.iter().all(|n| of(&self.mirrors[*n], *id) < of(mirror, *id));
            forget.log_ids.iter().any(more)
        });
        if known && complete && ahead {
            self.reset(m);
        } else if mirror.last > 0 && (known && complete || self.rules.is_off(Off::CatchUp)) {
            self.mirrors[m].catching_up = None;
        }
    }

    /// Notes which edits lie on two disks now: what is promised for them is more.
    pub(super) fn note_secured(&mut self) {
        let mut seen = 0;
        for mirror in self.mirrors.iter().filter(|mirror| mirror.is_base()) {
            let held = mirror.holds(&self.history);
            self.history.secured |= seen & held;
            seen |= held;
        }
    }

    // ---- disks and members

    /// The disk of `m` is gone. What may be missing for it: everything that lay nowhere else, but the first lost
    /// disk takes nothing along that ever was on two.
    pub(super) fn lose_disk(&mut self, m: M) {
        let history = &self.history;
        let lost = self.mirrors[m].holds(history);
        let others =
            self.mirrors.iter().enumerate().filter(|(n, other)| *n != m && other.is_base());
        let kept = others.fold(history.ancestry(self.notes.graves), |all, (_, other)| {
            all | other.holds(history)
        });
        let gone = lost & !kept | history.closure(lost | kept) & !history.closure(kept);
        self.history.disks_lost += 1;
        let promised = if self.history.disks_lost == 1 { self.history.secured } else { 0 };
        self.history.exempt |= gone & !promised;
        self.notes.by_state = true;
    }

    pub(super) fn lose(&mut self, m: M) -> bool {
        let others = |n: &M| *n != m && self.mirrors[*n].is_base();
        let mirror = &self.mirrors[m];
        if mirror.blank || mirror.outcast || !(0..self.mirrors.len()).any(|n| others(&n)) {
            return false;
        }
        self.lose_disk(m);
        self.reset(m);
        true
    }

    /// A new life, with nothing but the members.
    pub(super) fn reset(&mut self, m: M) {
        let old = &self.mirrors[m];
        let (machine, members) = (old.machine, old.members.clone());
        let (stashed, same) = (old.stashed.clone(), self.rules.is_off(Off::NewLogId));
        let newcomer = old.newcomer;
        let life = if same { old.log_id } else { old.log_id + 1 };
        self.lives.insert((machine, life));
        self.mirrors[m] = Mirror::blank(machine, life, &members, &self.rules);
        self.mirrors[m].stashed = stashed;
        self.mirrors[m].newcomer = newcomer;
    }

    pub(super) fn recover(&mut self, m: M, sources: u8, mixed: u8) -> bool {
        let usable = |n: &M| {
            sources & (1 << n) != 0
                && *n != m
                && self.linked(*n, m)
                && self.mirrors[*n].serves()
                && !self.shut_out(m, self.mirrors[m].log_id, *n)
        };
        let mut from: Vec<M> = (0..self.mirrors.len()).filter(usable).collect();
        // Who is forgotten by one source is none.
        let forgotten = |n: &M| {
            let (machine, life) = (self.mirrors[*n].machine, self.mirrors[*n].log_id);
            from.iter().any(|source| self.mirrors[*source].refuses(machine, life))
        };
        if !self.rules.is_off(Off::BlankReturn) {
            from = from.iter().filter(|n| !forgotten(n)).copied().collect();
        }
        if !self.mirrors[m].blank
            || !self.mirrors[m].up
            || self.mirrors[m].outcast
            || from.is_empty()
        {
            return false;
        }
        self.notes.by_state = true;
        self.mirrors[m].blank = false;
        self.mirrors[m].catching_up = Some(Coverage::new());
        let sources: Vec<Mirror> = from.iter().map(|n| self.mirrors[*n].clone()).collect();
        let mut most = Coverage::new();
        let mut least = sources[0].coverage.clone();
        for source in &sources {
            most.join(&source.coverage);
            least.meet(&source.coverage);
        }
        let piecemeal = mixed != 0 && sources.len() > 1;
        if piecemeal {
            self.copy_pieces(m, &sources, mixed);
        } else {
            for n in &from {
                self.exchange(*n, m);
            }
        }
        let mirror = &mut self.mirrors[m];
        let reached = if piecemeal { &least } else { &most };
        mirror.reach_as_far_as(reached);
        for source in &sources {
            for (key, log) in &source.logs {
                let end = reached.get(key.0, key.1);
                if source.coverage.get(key.0, key.1) >= end && log.base <= end {
                    let mut log = log.clone();
                    log.records.retain(|record| record.at.sequence <= end);
                    mirror.logs.insert(*key, log);
                }
            }
        }
        for source in &sources {
            mirror.hear_who_counts_us(source);
            mirror.meet_members(&source.members);
        }
        mirror.members.insert(mirror.machine);
        mirror.catching_up = Some(most);
        mirror.applied.clear();
        mirror.append(What::Announce);
        mirror.rounds = crate::places::Rounds::new(&self.rules, &mirror.members);
        self.promote(m);
        self.note_secured();
        true
    }

    /// Slot by slot, each from another source, as whole chunkfiles would come.
    pub(super) fn copy_pieces(&mut self, m: M, sources: &[Mirror], mixed: u8) {
        let mirror = &mut self.mirrors[m];
        for source in sources {
            mirror.archive |= source.archive;
            for forget in &source.forgets {
                if !mirror.forgets.contains(forget) {
                    mirror.forgets.push(forget.clone());
                }
            }
        }
        let places: BTreeSet<Address> =
            sources.iter().flat_map(|s| s.slots.keys().copied()).collect();
        for place in places {
            let spread = place.offset_units as usize * 7 + usize::from(place.machine) * 3;
            let source = &sources[(spread + usize::from(mixed)) % sources.len()];
            if let Some(slot) = source.slots.get(&place) {
                mirror.slots.insert(place, slot.clone());
            }
        }
    }

    pub(super) fn report(&mut self, from: M, to: M) -> bool {
        if from != to && !self.linked(from, to) || !self.mirrors[from].serves() || !self.takes(to) {
            return false;
        }
        let report = self.mirrors[from].report();
        self.take_report(from, self.mirrors[from].log_id, to, &report);
        true
    }

    pub(super) fn late_report(&mut self, from: M, to: M) -> bool {
        let Some((life, coverage, tails)) = self.mirrors[from].stashed.clone() else {
            return false;
        };
        let report = MemberReport { coverage, tails };
        let able = from != to && self.takes(to) && self.linked(from, to);
        if able {
            self.take_report(from, life, to, &report);
        }
        able
    }

    pub(super) fn take_report(&mut self, from: M, life: LogId, to: M, report: &MemberReport) {
        if self.shut_out(from, life, to) {
            return;
        }
        let member = self.mirrors[from].machine;
        let mirror = &mut self.mirrors[to];
        if report.coverage.get(mirror.machine, mirror.log_id) > 0 {
            let (of, _) = mirror.confirmed.entry(member).or_insert((life, report.coverage.clone()));
            if *of != life {
                mirror.confirmed.insert(member, (life, report.coverage.clone()));
            }
        }
        mirror.known.insert(member, report.coverage.clone());
        mirror.rounds.report(member, report);
        mirror.look_again();
        mirror.end_forgets();
        self.promote(to);
    }

    pub(super) fn forget(&mut self, by: M, gone: M) -> bool {
        let target = self.mirrors[gone].machine;
        if by == gone || !self.may_write(by) || !self.mirrors[by].members.contains(&target) {
            return false;
        }
        let others = |n: &M| *n != gone && self.mirrors[*n].is_base();
        if !(0..self.mirrors.len()).any(|n| others(&n)) || self.mirrors[gone].outcast {
            return false;
        }
        if !self.mirrors[gone].blank {
            self.lose_disk(gone);
        }
        self.mirrors[gone].outcast = true;
        let log_ids = self.lives.iter().filter(|(m, _)| *m == target).map(|(_, id)| *id).collect();
        let at = self.mirrors[by].next_position();
        let forget = Forget { machine: target, log_ids, at };
        self.mirrors[by].append(What::Forget(forget.clone()));
        self.learn_forget(by, forget);
        true
    }

    pub(super) fn learn_forget(&mut self, to: M, forget: Forget) {
        let mirror = &mut self.mirrors[to];
        if !mirror.forgets.contains(&forget) {
            mirror.forgets.push(forget);
        }
        mirror.end_forgets();
    }

    pub(super) fn come_back(&mut self, m: M, with_disk: bool) -> bool {
        let with_disk = with_disk && self.rules.is_off(Off::BlankReturn);
        if !self.mirrors[m].outcast || with_disk && self.mirrors[m].blank {
            return false;
        }
        self.mirrors[m].outcast = false;
        self.mirrors[m].up = true;
        self.mirrors[m].newcomer = true;
        if !with_disk {
            self.reset(m);
        }
        true
    }
}

impl Mirror {
    /// Who has heard of any life of ours, by what it reported to somebody.
    pub(super) fn hear_who_counts_us(&mut self, source: &Self) {
        let of_us =
            |at: Position| at.machine == self.machine && !source.refuses(at.machine, at.log_id);
        let knows = |coverage: &Coverage| coverage.iter().any(of_us);
        let told = source.known.iter().filter(|(_, coverage)| knows(coverage));
        let told: Vec<MachineId> = told.map(|(machine, _)| *machine).collect();
        self.counted_by.extend(told);
    }

    /// Members that another one knows. One that is forgotten here must have come back in a new life.
    pub(super) fn meet_members(&mut self, members: &BTreeSet<MachineId>) {
        for member in members {
            if self.is_renewed(*member) || !self.forgets.iter().any(|f| f.machine == *member) {
                self.members.insert(*member);
            }
        }
        self.rounds.set_members(&self.members);
    }

    /// Whether we know of a life of that machine that no forget names.
    pub(super) fn is_renewed(&self, machine: MachineId) -> bool {
        let named = |at: Position| self.refuses(at.machine, at.log_id);
        self.coverage.iter().any(|at| at.machine == machine && !named(at))
    }

    /// The last edit in this log that made a version which stands here.
    fn copied_of(&self, machine: MachineId, log_id: LogId) -> folio::format::ids::Sequence {
        let heads = self.slots.values().filter_map(|slot| slot.head.as_ref());
        let tags = heads.map(|head| head.version.tag);
        let of_log = tags.filter(|tag| (tag.machine, tag.log_id) == (machine, log_id));
        of_log.map(|tag| tag.sequence).max().unwrap_or(0)
    }

    /// Coverage that came by state: the logs held here go on from there.
    pub(super) fn reach_as_far_as(&mut self, coverage: &Coverage) {
        for position in coverage.iter() {
            if !self.coverage.covers(position) {
                let log = self.logs.entry((position.machine, position.log_id)).or_default();
                log.records.clear();
                log.base = position.sequence;
                self.coverage.raise(position);
            }
        }
    }

    /// Members whose forget is complete are members no more.
    pub(super) fn end_forgets(&mut self) {
        let mut members = self.members.clone();
        for forget in &self.forgets {
            let others = self.members.iter().filter(|member| **member != forget.machine);
            let known: BTreeMap<MachineId, &Coverage> =
                self.known.iter().map(|(member, coverage)| (*member, coverage)).collect();
            let coverages = others.map(|member| {
                if *member == self.machine {
                    Some(&self.coverage)
                } else {
                    known.get(member).copied()
                }
            });
            if !self.is_renewed(forget.machine) && forget.is_complete(coverages) {
                members.remove(&forget.machine);
            }
        }
        if members != self.members {
            self.members = members;
            self.rounds.set_members(&self.members);
        }
    }
}
