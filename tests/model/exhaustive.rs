//! Bounded exhaustive search: every order of the steps of a small alphabet, up to a depth, from a small beginning.
//! Every state that is reached is judged as it is, and healed and judged.

use super::checks::{Broken, at_every_step, heal, when_healed};
use super::history::Kind;
use super::rules::Rules;
use super::world::{Step, World};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A beginning, and what may happen then.
pub struct Corner {
    pub name: &'static str,
    pub mirrors: usize,
    pub begin: &'static [Step],
    pub alphabet: Vec<Step>,
    pub depth: usize,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Tally {
    pub states: usize,
    pub steps: usize,
}

/// Goes everywhere. The error names the way.
pub fn explore(corner: &Corner, rules: Rules) -> Result<Tally, Broken> {
    let mut world = World::new(rules, corner.mirrors, 0);
    for step in corner.begin {
        world.step(*step);
        at_every_step(&world)?;
    }
    let mut seen = HashMap::new();
    let mut tally = Tally::default();
    let mut way = Vec::new();
    go(corner, &world, corner.depth, &mut seen, &mut tally, &mut way).map_err(|broken| {
        format!("{broken}\n  in {}, after {:?}, then:\n  {way:?}", corner.name, corner.begin)
    })?;
    Ok(tally)
}

fn go(
    corner: &Corner,
    world: &World,
    depth: usize,
    seen: &mut HashMap<u128, usize>,
    tally: &mut Tally,
    way: &mut Vec<Step>,
) -> Result<(), Broken> {
    let known = seen.insert(fingerprint(world), depth + 1);
    match known {
        Some(left) if left > depth => {
            seen.insert(fingerprint(world), left);
            return Ok(());
        }
        Some(_) => {}
        None => {
            tally.states += 1;
            at_every_step(world)?;
            let mut healed = world.clone();
            heal(&mut healed)?;
            at_every_step(&healed)?;
            when_healed(&healed)?;
        }
    }
    if depth == 0 {
        return Ok(());
    }
    for step in &corner.alphabet {
        let mut next = world.clone();
        if next.step(*step) {
            tally.steps += 1;
            way.push(*step);
            go(corner, &next, depth - 1, seen, tally, way)?;
            way.pop();
        }
    }
    Ok(())
}

/// 128 bits: two states that share them by chance are not to be expected in any run.
fn fingerprint(world: &World) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        world.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

/// Two mirrors that know an object, edited on both sides.
pub fn two_writers(depth: usize) -> Corner {
    let mut alphabet = deliveries(2);
    for m in 0..2 {
        for kind in [Kind::Modify, Kind::Move, Kind::Delete, Kind::Undelete, Kind::Purge] {
            alphabet.push(Step::Edit(m, 0, kind, false));
        }
    }
    alphabet.extend([
        Step::Mend(0, 1, 0),
        Step::Mend(1, 0, 0),
        Step::Retry(0, 0),
        Step::Retry(1, 0),
    ]);
    Corner { name: "two writers", mirrors: 2, begin: KNOWN_BY_TWO, alphabet, depth }
}

/// Two mirrors, an object that moves, and another that takes the places it leaves.
pub fn places(depth: usize) -> Corner {
    let mut alphabet = deliveries(2);
    for (from, to) in [(0, 0), (1, 0), (1, 1), (0, 1)] {
        alphabet.push(Step::Report(from, to));
    }
    alphabet.extend([
        Step::Edit(0, 0, Kind::Move, false),
        Step::Edit(1, 0, Kind::Modify, false),
        Step::Edit(1, 0, Kind::Move, false),
        Step::Edit(0, 0, Kind::Delete, false),
        Step::Edit(0, 0, Kind::Purge, false),
        Step::Put(0, false),
    ]);
    Corner { name: "places", mirrors: 2, begin: KNOWN_BY_TWO, alphabet, depth }
}

/// Three mirrors, one of which loses its disk and comes back.
pub fn lost_disk(depth: usize) -> Corner {
    let mut alphabet = deliveries(3);
    alphabet.extend([
        Step::Edit(0, 0, Kind::Modify, false),
        Step::Edit(1, 0, Kind::Modify, false),
        Step::Edit(2, 0, Kind::Delete, false),
        Step::Lose(1),
        Step::Recover(1, 0b001, 0),
        Step::Recover(1, 0b100, 0),
        Step::Recover(1, 0b101, 1),
        Step::Report(0, 1),
        Step::Report(2, 1),
    ]);
    Corner { name: "a lost disk", mirrors: 3, begin: KNOWN_BY_THREE, alphabet, depth }
}

fn deliveries(mirrors: usize) -> Vec<Step> {
    let pairs = (0..mirrors).flat_map(|a| (0..mirrors).map(move |b| (a, b)));
    pairs
        .filter(|(a, b)| a != b)
        .flat_map(|(a, b)| (0..mirrors).map(move |log| Step::Deliver(a, b, log as u8)))
        .collect()
}

const KNOWN_BY_TWO: &[Step] =
    &[Step::Pull(0, 1), Step::Pull(1, 0), Step::Put(0, false), Step::Pull(0, 1)];
const KNOWN_BY_THREE: &[Step] = &[
    Step::Pull(0, 1),
    Step::Pull(0, 2),
    Step::Pull(1, 0),
    Step::Pull(1, 2),
    Step::Pull(2, 0),
    Step::Pull(2, 1),
    Step::Put(0, false),
    Step::Pull(0, 1),
    Step::Pull(0, 2),
];
