//! Recovers a crashed disk and holds every answer against the model; then works on, crashes it again, and looks again.

use std::collections::BTreeSet;

use folio::store::sim_disk::{Dice, SimDisk};

use super::engine::{Edit, Engine, Trouble};
use super::model::{Model, content};
use super::note;
use super::workload::{Session, Stop};

/// What a session says as a complaint; a death is none.
pub fn complaint(stop: Stop) -> Option<String> {
    match stop {
        Stop::Dead => None,
        Stop::Finding(what) => Some(what),
    }
}

/// Asks for every object. What is answered counts as settled from then on.
pub fn check_all<E: Engine>(engine: &mut E, model: &mut Model<E::Id>) -> Result<(), String> {
    for at in 0..model.objects.len() {
        let id = model.objects[at].id.clone();
        match engine.get(&id) {
            Ok(answer) => model.observe(at, answer.as_deref())?,
            Err(trouble) => return Err(format!("{id:?} cannot be read: {trouble:?}")),
        }
    }
    Ok(())
}

/// A scan must show every live object, and no other that a client knows.
fn check_list<E: Engine>(engine: &mut E, model: &Model<E::Id>) -> Result<(), String> {
    let listed = engine.list().map_err(|trouble| format!("no list: {trouble:?}"))?;
    let known: BTreeSet<E::Id> = listed.iter().filter(|id| model.knows(id)).cloned().collect();
    if listed.iter().collect::<BTreeSet<_>>().len() != listed.len() {
        return Err(format!("listed twice: {listed:?}"));
    }
    let live = model.live();
    if known == live { Ok(()) } else { Err(format!("listed {known:?}, live are {live:?}")) }
}

/// An edit that was made answers its retry with its object, one that was not is made now: never twice, never not at all.
fn check_retries<E: Engine>(engine: &mut E, model: &Model<E::Id>) -> Result<(), String> {
    let (made, undone) = model.retries();
    for (ticket, id) in made {
        let answer = engine.answer_to_retry(ticket);
        if answer.as_ref() != Some(&id) {
            return Err(format!("a retry of ticket {ticket} of {id:?} is answered {answer:?}"));
        }
    }
    for ticket in undone {
        if let Some(id) = engine.answer_to_retry(*ticket) {
            return Err(format!("ticket {ticket} of {id:?} is said to be done, and is not"));
        }
    }
    Ok(())
}

fn open<E: Engine>(disk: &SimDisk, setup: &E::Setup) -> Result<E, String> {
    note!("  judge opens");
    if *super::TALKS {
        disk.start_trace();
    }
    let opened = E::open(disk, setup);
    for call in disk.take_trace() {
        note!("        {call:?}");
    }
    opened.map_err(|trouble| format!("the mount does not open: {trouble:?}"))
}

/// Opens a crashed disk, judges all answers, edits, loses power, and judges again.
///
/// With `again` the recovery itself is crashed at a drawn call first.
pub fn judge<E: Engine>(
    disk: &SimDisk,
    model: &Model<E::Id>,
    setup: &E::Setup,
    again: Option<&mut Dice>,
) -> Result<(), String> {
    let mut disk = disk.clone();
    if let Some(dice) = again {
        disk = crash_recovery::<E>(&disk, setup, dice)?;
    }
    let mut model = model.clone();
    let mut engine = open::<E>(&disk, setup)?;
    check_all(&mut engine, &mut model)?;
    check_list(&mut engine, &model)?;
    check_retries(&mut engine, &model)?;

    // It must not only remember but work: new places must not be old ones, new ids not old ids.
    let mut session = Session::new(engine, model, disk.clone());
    let edits = (|| {
        session.put(700)?;
        let live = session.model.objects.iter().find(|object| object.latest().is_some());
        if let Some(id) = live.map(|object| object.id.clone()) {
            let new = content(session.model.next_ticket(), 650);
            session.edit(&Edit::Modify(id, new))?;
        }
        Ok(())
    })();
    edits.map_err(|stop| complaint(stop).unwrap_or_else(|| "it died by itself".into()))?;
    let Session { mut engine, mut model, .. } = session;
    check_all(&mut engine, &mut model)?;

    // And all of that, also what was seen but never acknowledged before, stays when nothing un-synced lands.
    let disk = disk.power_cut_with(&[]);
    drop(engine);
    let mut engine = open::<E>(&disk, setup).map_err(|what| format!("second recovery: {what}"))?;
    check_all(&mut engine, &mut model).map_err(|what| format!("second recovery: {what}"))?;
    check_retries(&mut engine, &model).map_err(|what| format!("second recovery: {what}"))?;
    check_list(&mut engine, &model).map_err(|what| format!("second recovery: {what}"))
}

/// A recovery that dies on the way; the disk after that.
fn crash_recovery<E: Engine>(
    disk: &SimDisk,
    setup: &E::Setup,
    dice: &mut Dice,
) -> Result<SimDisk, String> {
    let rehearsal = disk.fork();
    drop(open::<E>(&rehearsal, setup)?);
    let disk = disk.fork();
    disk.crash_at_call(1 + dice.below(rehearsal.calls()));
    match E::open(&disk, setup) {
        Ok(_) | Err(Trouble::Dead(_)) => {}
        Err(trouble) => return Err(format!("the mount does not open: {trouble:?}")),
    }
    Ok(if dice.chance(20) { disk.kill() } else { disk.power_cut(dice) })
}
