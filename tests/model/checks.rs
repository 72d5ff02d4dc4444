//! What must never be seen, at any step and after healing. Written from the promises, not from the rules: nothing
//! here looks at vectors, rounds or coverages, only at what was done and what is read.

use super::history::{History, Kind, ObjectId, bit};
use super::mirror::Mirror;
use super::world::{M, World};
use folio::cluster::evidence::Evidence;
use folio::cluster::tenancy::Tenant;

/// A promise that was broken.
pub type Broken = String;

/// P2, P5: what is read at any mirror in service, at any time.
pub fn at_every_step(world: &World) -> Result<(), Broken> {
    if let Some(fault) = &world.notes.fault {
        return Err(fault.clone());
    }
    if world.notes.false_conflict {
        return Err("a version was archived as the loser against its own descendant, though nothing was lost or \
                    copied by state"
            .to_owned());
    }
    for mirror in world.mirrors.iter().filter(|mirror| mirror.serves() && !mirror.outcast) {
        for object in 0..world.history.objects.len() {
            reads_right(world, mirror, object)?;
        }
    }
    Ok(())
}

fn reads_right(world: &World, mirror: &Mirror, x: ObjectId) -> Result<(), Broken> {
    let object = &world.history.objects[x];
    let tenant =
        Tenant { since: object.creation.sequence, creation: object.creation, cookie: x as u64 + 1 };
    let machine = mirror.machine;
    let (evidence, bytes) = mirror.read(&tenant, object.home, &world.rules);
    if evidence == Evidence::Gone && !world.history.was_deleted(x) {
        return Err(format!(
            "machine {machine} says \"not found\" of object {x}, which nobody deleted"
        ));
    }
    if let Some(edit) = bytes
        && world.history.edits[edit].object != x
    {
        return Err(format!("machine {machine} shows the bytes of edit {edit} for object {x}"));
    }
    let here = mirror.slots.get(&object.home).is_some_and(|slot| slot.tenant == tenant);
    if here && !mirror.is_whole(object.home) {
        return Err(format!("machine {machine} has lost the content of object {x} to another"));
    }
    Ok(())
}

/// Lets the faults end: cables, machines, disks, records, state. No new edits.
pub fn heal(world: &mut World) -> Result<(), Broken> {
    let n = world.mirrors.len();
    world.cut.clear();
    world.on_the_way.clear();
    for m in 0..n {
        world.step(super::world::Step::Start(m, 0));
        world.mirrors[m].up &= !world.mirrors[m].outcast;
    }
    for _ in 0..12 {
        let mut moved = recover_all(world);
        for from in 0..n {
            for to in 0..n {
                moved |= world.pull(from, to);
            }
        }
        // Who comes into service by a report has one to give itself.
        for from in (0..n).chain(0..n).chain(0..n) {
            for to in 0..n {
                world.step(super::world::Step::Report(from, to));
            }
        }
        // A report may have told a joining machine to begin anew: then it is blank once more.
        let anew = world.mirrors.iter().any(|mirror| mirror.blank && mirror.up && !mirror.outcast);
        if moved || anew {
            continue;
        }
        if !exchange_all(world) {
            return Ok(());
        }
    }
    Err("the mirrors never come to rest".to_owned())
}

fn recover_all(world: &mut World) -> bool {
    let blank: Vec<M> = (0..world.mirrors.len()).filter(|m| world.mirrors[*m].blank).collect();
    blank
        .into_iter()
        .fold(false, |moved, m| moved | world.step(super::world::Step::Recover(m, u8::MAX, 0)))
}

/// State exchange between all pairs, both ways; whether it changed anything.
fn exchange_all(world: &mut World) -> bool {
    let before = world.mirrors.clone();
    for from in 0..world.mirrors.len() {
        for to in 0..world.mirrors.len() {
            world.step(super::world::Step::Exchange(from, to));
        }
    }
    before != world.mirrors
}

/// P1, P4, P5 after healing.
pub fn when_healed(world: &World) -> Result<(), Broken> {
    let history = &world.history;
    let members: Vec<&Mirror> = world.mirrors.iter().filter(|m| !m.outcast && m.up).collect();
    if let Some(late) = members.iter().find(|mirror| !mirror.serves()) {
        return Err(format!("machine {} never comes back into service", late.machine));
    }
    let Some(first) = members.first() else { return Ok(()) };
    for mirror in &members {
        let (a, b) = (first.machine, mirror.machine);
        for (x, object) in history.objects.iter().enumerate() {
            let (here, there) = (first.visible(object.home, x), mirror.visible(object.home, x));
            if here != there {
                return Err(format!(
                    "object {x} differs: machine {a} has {here:?}, machine {b} has {there:?}"
                ));
            }
        }
        if first.archive != mirror.archive {
            return Err(format!(
                "the archives of machines {a} and {b} differ: {:b} {:b}",
                first.archive, mirror.archive
            ));
        }
    }
    let found = history.closure(world.notes.graves | first.holds(history));
    for edit in 0..history.edits.len() {
        if bit(edit) & (found | history.exempt) == 0 {
            let what = &history.edits[edit];
            return Err(format!("edit {edit} is silently gone: {what:?}"));
        }
    }
    no_resurrection(first, history)
}

/// An object is live only if nobody deleted it, or an undelete stands above every delete (P5).
fn no_resurrection(mirror: &Mirror, history: &History) -> Result<(), Broken> {
    for (x, object) in history.objects.iter().enumerate() {
        let Some((false, ..)) = mirror.visible(object.home, x) else { continue };
        let Some(head) = mirror.slots[&object.home].head.as_ref() else { continue };
        // A retried edit also stands for what its twin was made on top of.
        let known = history.closure(bit(head.edit));
        let lives = history
            .edits
            .iter()
            .enumerate()
            .filter(|(id, edit)| known & bit(*id) != 0 && edit.life % 2 == 0);
        let life = lives.map(|(_, edit)| edit.life).max().unwrap_or(0);
        let deletes = history.edits.iter().enumerate().filter(|(id, edit)| {
            edit.object == x
                && matches!(edit.kind, Kind::Delete | Kind::Purge)
                && history.exempt & bit(*id) == 0
        });
        for (id, delete) in deletes {
            if life < delete.life {
                return Err(format!("object {x} lives although edit {id} deleted it: {head:?}"));
            }
        }
    }
    Ok(())
}
