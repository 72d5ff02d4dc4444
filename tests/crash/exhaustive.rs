//! All workloads of a few steps x every crash point x all outcomes of up to six un-synced things, else drawn ones.
//!
//! Runs are deterministic, so the crash points of all but the last step of a workload are those of a shorter one and are
//! tried there. Disks that turn out alike under the same expectations are judged once.

use std::collections::HashSet;

use folio::store::sim_disk::{Dice, NameOrder, SimDisk, SimOptions};

use super::engine::{Edit, Engine};
use super::judge::{complaint, judge};
use super::model::Model;
use super::workload::{STEPS, Session, Step, THRESHOLD};
use super::{Finding, Tally};

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Longest workload.
    pub steps: usize,
    /// Sector of the disk.
    pub sector: u64,
    /// How names land.
    pub names: NameOrder,
    /// Outcomes tried where there are too many.
    pub drawn_cuts: usize,
    /// Of so many judged disks one has its recovery crashed too.
    pub nested_one_in: u64,
}

/// Index of the object that most steps work on.
const SUBJECT: usize = 0;

/// When the workloads begin; the base was made before.
const BASE_AGE_MS: u64 = 10_000;

/// A synced store with something for every step, and what is in it.
fn base<E: Engine>(extent: &Extent, setup: &E::Setup) -> Result<(SimDisk, Model<E::Id>), String> {
    let options =
        SimOptions { sector: extent.sector, names: extent.names, ..SimOptions::default() };
    let disk = SimDisk::new(options);
    E::prepare(setup, &disk);
    E::begin(setup, 0, 0);
    let engine = E::open(&disk, setup).map_err(|trouble| format!("no new store: {trouble:?}"))?;
    let mut session = Session::<E>::new(engine, Model::default(), disk.clone());
    let run = (|| {
        session.put(600)?; // the subject
        session.put(THRESHOLD + 500)?; // a large one
        session.put(500)?; // a deleted one
        let id = session.model.objects[2].id.clone();
        session.edit(&Edit::Delete(id))?;
        session.put(700)?;
        session.put(700)?;
        session.checkpoint()
    })();
    run.map_err(|stop| complaint(stop).unwrap_or_else(|| "it died by itself".into()))?;
    let model = session.model;
    drop(session.engine);
    let all_landed: Vec<usize> = disk.outcomes().into_iter().map(|options| options - 1).collect();
    Ok((disk.power_cut_with(&all_landed), model))
}

/// Every sequence of exactly `len` steps.
fn workloads(len: usize) -> impl Iterator<Item = Vec<Step>> {
    let count = STEPS.len().pow(u32::try_from(len).unwrap());
    (0..count).map(move |mut number| {
        let mut steps = Vec::with_capacity(len);
        for _ in 0..len {
            steps.push(STEPS[number % STEPS.len()]);
            number /= STEPS.len();
        }
        steps
    })
}

/// Tries them all, shortest first.
pub fn run<E: Engine>(extent: &Extent, setup: &E::Setup) -> Result<Tally, Finding> {
    let at_base = |what| Finding { what, at: format!("the base of {extent:?}") };
    let (base_disk, base_model) = base::<E>(extent, setup).map_err(at_base)?;
    let mut tally = Tally::default();
    for len in 0..=extent.steps {
        for steps in workloads(len) {
            one::<E>(extent, setup, &base_disk, &base_model, &steps, &mut tally)?;
        }
    }
    Ok(tally)
}

fn one<E: Engine>(
    extent: &Extent,
    setup: &E::Setup,
    base_disk: &SimDisk,
    base_model: &Model<E::Id>,
    steps: &[Step],
    tally: &mut Tally,
) -> Result<(), Finding> {
    let place = |what: String, point: String| Finding {
        what,
        at: format!("workload {steps:?}, {point}, {extent:?}"),
    };
    E::begin(setup, BASE_AGE_MS, 0);
    let disk = base_disk.fork();
    if steps.is_empty() {
        disk.start_forks(); // the crash points of opening
    }
    let engine = E::open(&disk, setup)
        .map_err(|trouble| place(format!("the base does not open: {trouble:?}"), "open".into()))?;
    let mut session = Session::new(engine, base_model.clone(), disk.clone());
    for (n, step) in steps.iter().enumerate() {
        if n + 1 == steps.len() {
            disk.start_forks();
        }
        if let Err(stop) = session.step(*step, SUBJECT) {
            let what = complaint(stop).unwrap_or_else(|| "it died by itself".into());
            return Err(place(what, format!("step {n}, no crash")));
        }
    }
    session.commit().map_err(|stop| place(format!("{stop:?}"), "last commit".into()))?;
    let mut points = std::mem::take(&mut session.points);
    points.push(session.last_point());
    drop(session);

    tally.workloads += 1;
    let mut seen = HashSet::new();
    for (n, point) in points.iter().enumerate() {
        tally.crash_points += 1;
        let mut dice = Dice::new(n as u64);
        for picks in point.disk.power_cuts(extent.drawn_cuts, &mut dice) {
            tally.cuts += 1;
            let after = point.disk.power_cut_with(&picks);
            if !seen.insert((after.digest(), point.model.events)) {
                continue;
            }
            tally.judged += 1;
            let nested = tally.judged.is_multiple_of(extent.nested_one_in);
            judge::<E>(&after, &point.model, setup, nested.then_some(&mut dice)).map_err(
                |what| {
                    place(what, format!("crash point {n} of {}, outcomes {picks:?}", points.len()))
                },
            )?;
        }
    }
    Ok(())
}
