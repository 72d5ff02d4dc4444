//! Long drawn workloads: several objects, batches of several edits, up to three lives, kills and power cuts mixed,
//! crashes in recoveries. A seed stands for all of it.

use folio::store::sim_disk::{Dice, Fault, NameOrder, Op, Rule, SimDisk, SimOptions};

use super::engine::{Engine, Trouble};
use super::judge::{check_all, complaint, judge};
use super::model::Model;
use super::workload::{Session, Stop};
use super::{Finding, Tally, note};

/// Power cuts that are taken of each last crash.
const CUTS_PER_CRASH: usize = 4;

/// Runs seeds from `first` on until that many power cuts were taken.
pub fn run<E: Engine>(first: u64, cuts: u64, setup: &E::Setup) -> Result<Tally, Finding> {
    let mut tally = Tally::default();
    let mut seed = first;
    while tally.cuts < cuts {
        one::<E>(seed, setup, &mut tally)
            .map_err(|what| Finding { what, at: format!("FOLIO_CRASH_SEED={seed}") })?;
        seed += 1;
    }
    Ok(tally)
}

/// Runs one seed.
pub fn one<E: Engine>(seed: u64, setup: &E::Setup, tally: &mut Tally) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    E::begin(setup, 0, dice.next());
    let options = SimOptions {
        sector: if dice.chance(50) { 512 } else { 4096 },
        names: if dice.chance(75) { NameOrder::PerFolder } else { NameOrder::Independent },
        ..SimOptions::default()
    };
    let mut disk = SimDisk::new(options);
    E::prepare(setup, &disk);
    let mut model = Model::default();
    tally.workloads += 1;
    let lives = 1 + dice.below(3);
    for life in 1..=lives {
        // Most lives are short, so that there are many; some are long enough for logs and places to turn over.
        let (steps, calls) = if dice.chance(6) { (250, 2000) } else { (14, 120) };
        if dice.chance(90) {
            disk.crash_at_call(1 + dice.below(calls));
        }
        if dice.chance(20) {
            write_short(&disk, &mut dice);
        }
        model = live::<E>(&disk, model, setup, steps, &mut dice)?;
        disk.crash();
        tally.crash_points += 1;
        if life < lives {
            tally.cuts += 1;
            let kill = dice.chance(25);
            note!("  {}", if kill { "kill" } else { "power cut" });
            disk = if kill { disk.kill() } else { disk.power_cut(&mut dice) };
        }
    }
    for picks in disk.power_cuts(CUTS_PER_CRASH, &mut dice).iter().take(CUTS_PER_CRASH * 2) {
        tally.cuts += 1;
        tally.judged += 1;
        let after = disk.power_cut_with(picks);
        let nested = dice.chance(15);
        note!("  last power cut: {picks:?}");
        let again = nested.then_some(&mut dice);
        judge::<E>(&after, &model, setup, again).map_err(|what| format!("{what}; {picks:?}"))?;
    }
    Ok(())
}

/// A few writes take less than they were given, as any write may.
fn write_short(disk: &SimDisk, dice: &mut Dice) {
    let short = Fault::Short(1 + dice.below(600) as usize);
    let rule = Rule::once("", Op::Write, short);
    disk.fail_when(Rule { after: dice.below(40), times: 1 + dice.below(3), ..rule });
}

/// One life of the daemon: opens, finds everything, works until it dies or has had enough.
fn live<E: Engine>(
    disk: &SimDisk,
    mut model: Model<E::Id>,
    setup: &E::Setup,
    steps: u64,
    dice: &mut Dice,
) -> Result<Model<E::Id>, String> {
    note!("  opening; calls so far {}", disk.calls());
    let mut engine = match E::open(disk, setup) {
        Ok(engine) => engine,
        Err(Trouble::Dead(_)) if disk.has_crashed() => return Ok(model),
        Err(trouble) => return Err(format!("the mount does not open: {trouble:?}")),
    };
    if !disk.has_crashed() {
        check_all(&mut engine, &mut model)?;
    }
    let mut session = Session::new(engine, model, disk.clone());
    let run = (|| {
        for _ in 0..dice.below(steps) {
            session.drawn_step(dice)?;
        }
        if dice.chance(50) { session.commit() } else { Ok(()) }
    })();
    match run {
        Ok(()) | Err(Stop::Dead) => Ok(session.model),
        Err(stop) => Err(complaint(stop).unwrap_or_default()),
    }
}
