//! Disks that fail, fill up, or lie.
//!
//! After a failed call nothing may be acknowledged that a power cut can take back (R9), and a disk that was full goes on
//! where it stopped. From a disk that lies (flipped bits, lost, torn and misdirected writes) nobody can have the last
//! version back without a mirror; but what is answered is a whole version of the object that was asked for (P2).

use folio::store::disk::Disk;
use folio::store::sim_disk::{Dice, Fault, Op, Rule, SimDisk, SimOptions};

use super::engine::{Engine, Trouble};
use super::judge::{check_all, complaint, judge};
use super::model::Model;
use super::note;
use super::workload::{Session, Stop};

/// Steps of one workload.
const STEPS: u64 = 16;

fn fault(dice: &mut Dice) -> Fault {
    match dice.below(4) {
        0 | 1 => Fault::Eio,
        2 => Fault::Enospc,
        _ => Fault::Short(dice.below(700) as usize + 1),
    }
}

/// A call fails once, at a drawn moment. Whatever the engine makes of it: what it acknowledged before, and after, is
/// there after a power cut.
pub fn failing_call<E: Engine>(seed: u64, setup: &E::Setup) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    E::begin(setup, 0, 0);
    let disk = SimDisk::new(SimOptions::default());
    let mut session = open::<E>(&disk, Model::default(), setup)?;
    let (call, fault) = (disk.calls() + 1 + dice.below(100), fault(&mut dice));
    note!("  call {call} (now {}): {fault:?}", disk.calls());
    disk.fail_call(call, fault);
    session.disk_fails = true;
    let dead = work(&mut session, &mut dice)?;
    if dead {
        fenced_means_fenced(&mut session)?;
    }
    let model = session.model.clone();
    drop(session);
    for picks in disk.power_cuts(4, &mut dice).iter().take(8) {
        note!("  power cut {picks:?}");
        judge::<E>(&disk.power_cut_with(picks), &model, setup, None)
            .map_err(|what| format!("{what}; {picks:?}"))?;
    }
    Ok(())
}

fn open<E: Engine>(
    disk: &SimDisk,
    model: Model<E::Id>,
    setup: &E::Setup,
) -> Result<Session<E>, String> {
    let engine = E::open(disk, setup).map_err(|trouble| format!("no mount: {trouble:?}"))?;
    Ok(Session::new(engine, model, disk.clone()))
}

/// Runs drawn steps; whether the mount fenced itself.
fn work<E: Engine>(session: &mut Session<E>, dice: &mut Dice) -> Result<bool, String> {
    for _ in 0..STEPS {
        match session.drawn_step(dice) {
            Ok(()) => {}
            Err(Stop::Dead) => return Ok(true),
            Err(stop) => return Err(complaint(stop).unwrap_or_default()),
        }
    }
    Ok(false)
}

/// R9: after the error the disk is fine again, and still nothing more is acknowledged.
fn fenced_means_fenced<E: Engine>(session: &mut Session<E>) -> Result<(), String> {
    for _ in 0..3 {
        let events = session.model.events;
        match session.put(100) {
            Err(Stop::Dead) => {}
            Ok(()) => return Err("a fenced mount took an edit".into()),
            Err(stop) => return Err(complaint(stop).unwrap_or_default()),
        }
        if session.model.events != events + 1 {
            return Err("a fenced mount acknowledged".into()); // begin() counts as one
        }
    }
    Ok(())
}

/// The disk fills up and is given room again: refusals in between, nothing lost, no restart needed.
pub fn full_disk<E: Engine>(seed: u64, setup: &E::Setup) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    E::begin(setup, 0, 0);
    let small = SimOptions { capacity: (200 + dice.below(300)) << 10, ..SimOptions::default() };
    let disk = SimDisk::new(small);
    let mut session = open::<E>(&disk, Model::default(), setup)?;
    session.disk_fails = true;
    for _ in 0..4 {
        if work(&mut session, &mut dice)? {
            return Err("a full disk fenced the mount".into());
        }
        session.commit().map_err(|stop| format!("commit on a full disk: {stop:?}"))?;
        check_all(&mut session.engine, &mut session.model)
            .map_err(|what| format!("on a full disk: {what}"))?;
    }
    disk.set_capacity(1 << 30);
    session.disk_fails = false;
    session.commit_each = true;
    session.put(3000).map_err(|stop| format!("with room again: {stop:?}"))?;
    let model = session.model.clone();
    drop(session);
    judge::<E>(&disk.power_cut(&mut dice), &model, setup, None)
}

/// Damages a store behind its back and reads everything. True if any answer was missing.
pub fn lying_disk<E: Engine>(seed: u64, setup: &E::Setup) -> Result<bool, String> {
    let mut dice = Dice::new(seed);
    E::begin(setup, 0, 0);
    let disk = SimDisk::new(SimOptions::default());
    let mut session = open::<E>(&disk, Model::default(), setup)?;
    let lies_in_writes = dice.chance(60);
    if lies_in_writes {
        disk.fail_when(drawn_lie(&mut dice));
    }
    session.disk_fails = true;
    for _ in 0..STEPS {
        if let Err(stop) = session.drawn_step(&mut dice) {
            // The engine may have found the damage.
            note!("    stopped: {stop:?}");
            break;
        }
    }
    let model = session.model.clone();
    drop(session);
    disk.heal();
    let disk = disk.kill();
    if !lies_in_writes {
        flip_some(&disk, &mut dice);
    }
    let mut engine = match E::open(&disk, setup) {
        Ok(engine) => engine,
        Err(Trouble::Damaged(why) | Trouble::Dead(why) | Trouble::Refused(why)) => {
            note!("  does not open: {why}");
            return Ok(true); // it says so: fenced, and a mirror helps
        }
    };
    let mut missing = false;
    for (at, object) in model.objects.iter().enumerate() {
        let Ok(answer) = engine.get(&object.id) else {
            missing = true;
            continue;
        };
        if !model.is_a_version_of(at, answer.as_deref()) {
            return Err(format!("{:?} answers bytes that are no version of it", object.id));
        }
        missing |= answer.as_deref() != object.latest().map(|content| &**content);
    }
    Ok(missing)
}

fn drawn_lie(dice: &mut Dice) -> Rule {
    let path = ["chunk", "single", "binlog", ""][dice.below(4) as usize];
    let fault = match dice.below(3) {
        0 => Fault::Lost,
        1 => Fault::Torn { keep: dice.below(1500) as usize },
        _ => Fault::Misdirect { path: None, offset: 4096 + dice.below(100) * 64 },
    };
    Rule { after: dice.below(12), ..Rule::once(path, Op::Write, fault) }
}

/// Flips up to three bits of files that hold content or log.
fn flip_some(disk: &SimDisk, dice: &mut Dice) {
    let files = files_below(disk, "");
    for _ in 0..1 + dice.below(3) {
        let Some((path, len)) = dice.pick(&files) else { return };
        // Most of a preallocated file is empty: aim where something is.
        let offset =
            if dice.chance(80) { dice.below((*len).min(12 << 10)) } else { dice.below(*len) };
        let flipped = disk.flip(path, offset, dice.below(8) as u8);
        note!("  flip {path} at {offset}: {flipped}");
    }
}

fn files_below(disk: &SimDisk, folder: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in disk.list(folder).unwrap_or_default() {
        let path = if folder.is_empty() { entry.name } else { format!("{folder}/{}", entry.name) };
        if entry.is_dir {
            found.extend(files_below(disk, &path));
        } else {
            found.push((path, entry.len));
        }
    }
    found
}
