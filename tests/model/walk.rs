//! Random walks: seeded runs of the world, each healed and judged at its end, and cut down to few steps if it fails.

use super::checks::{Broken, at_every_step, heal, when_healed};
use super::dice::Dice;
use super::history::Kind;
use super::rules::Rules;
use super::world::{Step, World};

/// What a walk is like. Everything is drawn from the seed, the weights of the steps too: a walk in which one thing
/// happens often and another never reaches corners that an even mixture does not.
#[derive(Clone, Copy, Debug)]
struct Temper {
    mirrors: usize,
    blank: usize,
    steps: usize,
    objects: usize,
    losses: usize,
    fresh: bool,
    /// Whether things happen that put old versions beside new ones: copies by state, repeated records.
    by_state: bool,
    weights: [usize; KINDS],
}

/// Kinds of steps that are drawn, with their usual weights.
const USUAL: [usize; KINDS] = [3, 16, 2, 20, 8, 4, 6, 16, 2, 2, 3, 1, 1, 2, 2, 2, 2, 4, 1, 1];
const KINDS: usize = 20;

impl Temper {
    fn draw(dice: &mut Dice) -> Self {
        let mirrors = if dice.one_in(4) { 2 } else { 3 };
        let mut weights = USUAL.map(|usual| usual * [0, 1, 1, 4][dice.below(4)]);
        for always in [PUT, EDIT, DELIVER] {
            weights[always] = weights[always].max(USUAL[always]);
        }
        let by_state = dice.one_in(2);
        if !by_state {
            for kind in [MEND, EXCHANGE, RECYCLE] {
                weights[kind] = 0;
            }
        }
        let losses = [0, 0, 1, 1, 3][dice.below(5)];
        if losses == 0 {
            weights[LOSE] = 0;
            weights[FORGET] = 0;
        }
        Self {
            mirrors,
            blank: usize::from(mirrors == 3 && dice.one_in(8)),
            steps: [20, 40, 80][dice.below(3)],
            objects: 1 + dice.below(3),
            losses,
            by_state,
            fresh: dice.one_in(4),
            weights,
        }
    }

    fn kind(&self, dice: &mut Dice) -> usize {
        let mut left = dice.below(self.weights.iter().sum());
        for (kind, weight) in self.weights.iter().enumerate() {
            if left < *weight {
                return kind;
            }
            left -= weight;
        }
        DELIVER
    }
}

const PUT: usize = 0;
const EDIT: usize = 1;
const DELIVER: usize = 3;
const MEND: usize = 10;
const EXCHANGE: usize = 11;
const RECYCLE: usize = 12;
const LOSE: usize = 16;
const FORGET: usize = 18;

/// A walk that broke a promise.
#[derive(Clone, Debug)]
pub struct Finding {
    pub seed: u64,
    pub mirrors: usize,
    /// The last so many of them have yet to join.
    pub blank: usize,
    pub broken: Broken,
    pub steps: Vec<Step>,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (mirrors, blank) = (self.mirrors, self.blank);
        writeln!(f, "{}\n  at FOLIO_MODEL_SEED={}", self.broken, self.seed)?;
        writeln!(f, "  {mirrors} mirrors, {blank} of them blank; cut down to:")?;
        self.steps.iter().try_for_each(|step| writeln!(f, "    {step:?}"))
    }
}

/// Walks once. `Ok` is how many steps were possible and how many conflicts there were.
pub fn walk(seed: u64, rules: Rules) -> Result<(usize, u32), Box<Finding>> {
    let mut dice = Dice::new(seed);
    let temper = Temper::draw(&mut dice);
    let mut world = World::new(rules, temper.mirrors, temper.blank);
    let mut steps = warm_up(&mut world, &mut dice);
    let mut losses = temper.losses;
    let mut broken = at_every_step(&world).err();
    let mut draws = 0;
    while steps.len() < temper.steps && draws < 10 * temper.steps && broken.is_none() {
        draws += 1;
        let step = draw(&mut dice, &temper, &world);
        let costs = usize::from(matches!(step, Step::Lose(_) | Step::Forget(..)));
        if costs > losses || !world.step(step) {
            continue;
        }
        losses -= costs;
        steps.push(step);
        broken = at_every_step(&world).err();
    }
    let broken = match broken {
        Some(broken) => broken,
        None => match end(&mut world) {
            Ok(()) => return Ok((steps.len(), world.notes.conflicts)),
            Err(broken) => broken,
        },
    };
    let steps = shrink(steps, temper, rules);
    let broken = replay(&steps, temper.mirrors, temper.blank, rules).err().unwrap_or(broken);
    let Temper { mirrors, blank, .. } = temper;
    Err(Box::new(Finding { seed, mirrors, blank, broken, steps }))
}

fn end(world: &mut World) -> Result<(), Broken> {
    heal(world)?;
    at_every_step(world)?;
    when_healed(world)
}

/// Does these steps, heals, and judges.
pub fn replay(steps: &[Step], mirrors: usize, blank: usize, rules: Rules) -> Result<(), Broken> {
    let mut world = World::new(rules, mirrors, blank);
    for step in steps {
        world.step(*step);
        at_every_step(&world)?;
    }
    end(&mut world)
}

/// Leaves out what the failure does not need.
fn shrink(mut steps: Vec<Step>, temper: Temper, rules: Rules) -> Vec<Step> {
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            if replay(&fewer, temper.mirrors, temper.blank, rules).is_err() {
                steps = fewer;
            } else {
                at += size;
            }
        }
        size = if size == 1 && steps.len() < 2 { 0 } else { size / 2 };
    }
    steps
}

/// Most walks begin when everybody has heard of everybody, and of an object.
fn warm_up(world: &mut World, dice: &mut Dice) -> Vec<Step> {
    let n = world.mirrors.len();
    let mut steps = Vec::new();
    if dice.one_in(8) {
        return steps;
    }
    let pairs = |steps: &mut Vec<Step>| {
        for a in 0..n {
            steps.extend((0..n).filter(|b| *b != a).map(|b| Step::Pull(a, b)));
        }
    };
    pairs(&mut steps);
    if !dice.one_in(4) {
        steps.push(Step::Put(dice.below(n), false));
        pairs(&mut steps);
    }
    steps.retain(|step| world.step(*step));
    steps
}

fn draw(dice: &mut Dice, temper: &Temper, world: &World) -> Step {
    let n = temper.mirrors;
    let a = dice.below(n);
    let b = (a + 1 + dice.below(n - 1)) % n;
    let x = dice.below(world.history.objects.len());
    let any = dice.roll() as u8;
    let fresh = temper.fresh && dice.one_in(2);
    match temper.kind(dice) {
        PUT if live_objects(world) < temper.objects => Step::Put(a, fresh),
        PUT | EDIT => Step::Edit(a, x, edit(dice), fresh),
        2 => Step::Retry(a, x),
        DELIVER => Step::Deliver(a, b, any),
        4 => Step::Pull(a, b),
        5 => Step::Send(a, b, any),
        6 => Step::Arrive(any, dice.one_in(4)),
        7 => Step::Report(a, if dice.one_in(3) { a } else { b }),
        8 => Step::StashReport(a),
        9 => Step::LateReport(a, b),
        MEND => Step::Mend(a, b, x),
        EXCHANGE => Step::Exchange(a, b),
        RECYCLE => Step::Recycle(a),
        13 => Step::Cable(a, b, dice.one_in(2)),
        14 => Step::Stop(a),
        15 => Step::Start(a, if temper.by_state { dice.below(8) as u8 } else { 0 }),
        LOSE => Step::Lose(a),
        17 => Step::Recover(a, any, if dice.one_in(2) { any | 1 } else { 0 }),
        FORGET => Step::Forget(a, b),
        _ => Step::Return(a, dice.one_in(2)),
    }
}

fn live_objects(world: &World) -> usize {
    let object = |x: &usize| {
        let home = world.history.objects[*x].home;
        world.mirrors.iter().any(|mirror| mirror.visible(home, *x).is_some())
    };
    (0..world.history.objects.len()).filter(object).count()
}

fn edit(dice: &mut Dice) -> Kind {
    match dice.below(16) {
        0..6 => Kind::Modify,
        6..10 => Kind::Move,
        10..12 => Kind::Delete,
        12 => Kind::Undelete,
        _ => Kind::Purge,
    }
}
