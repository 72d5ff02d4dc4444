//! Take-over and return with acks = "mirror": machines stop one at a time, cables are whole, and clients write at
//! the owner while it is up, else anywhere. An edit is acknowledged when a second machine has it.
//!
//! The promise is more than in the wild walks: an acknowledged edit is not even *reported* as lost. It stays an
//! ancestor of what stands, whoever was stopped, and whatever a stopped *owner* had written and never sent. (What a
//! mirror had written for a silent owner, and never sent, may still beat the owner's next edits: that is archived and
//! reported, and only a majority could prevent it.)

use super::checks::{Broken, at_every_step, heal, when_healed};
use super::dice::Dice;
use super::history::{EditSet, Kind, bit};
use super::rules::{Off, Rules};
use super::world::{M, Step, World};

const MIRRORS: usize = 3;
const OWNER: M = 0;

struct Cluster {
    world: World,
    down: Option<M>,
    /// Has pulled what the others know since it last had a reason to.
    asked: [bool; MIRRORS],
    acknowledged: EditSet,
    told: Vec<String>,
}

/// One run; the number of acknowledged edits.
pub fn run(seed: u64, rules: Rules) -> Result<u32, Broken> {
    let mut dice = Dice::new(seed);
    let mut cluster = Cluster {
        world: World::new(rules, MIRRORS, 0),
        down: None,
        asked: [true; MIRRORS],
        acknowledged: 0,
        told: Vec::new(),
    };
    cluster.begin();
    for _ in 0..30 {
        cluster.event(&mut dice);
        at_every_step(&cluster.world)?;
    }
    let acknowledged = cluster.acknowledged;
    cluster.end().map(|()| acknowledged.count_ones())
}

impl Cluster {
    fn begin(&mut self) {
        for a in 0..MIRRORS {
            (0..MIRRORS).for_each(|b| {
                self.world.pull(a, b);
            });
        }
        self.world.step(Step::Put(OWNER, false));
        (1..MIRRORS).for_each(|m| {
            self.world.pull(OWNER, m);
        });
        self.acknowledged |= bit(0);
    }

    fn event(&mut self, dice: &mut Dice) {
        let m = dice.below(MIRRORS);
        match (dice.below(10), self.down) {
            (0, None) => {
                self.stop(m);
            }
            (0 | 1, Some(down)) => {
                self.tell(format!("{down} starts"));
                self.world.step(Step::Start(down, 0));
                self.down = None;
                self.asked[down] = false;
            }
            (2 | 3, _) => {
                self.world.pull(m, dice.below(MIRRORS));
            }
            (4 | 5, _) => {
                self.world.step(Step::Report(m, dice.below(MIRRORS)));
            }
            _ => self.write(dice),
        }
    }

    fn write(&mut self, dice: &mut Dice) {
        let live: Vec<M> = (0..MIRRORS).filter(|m| self.down != Some(*m)).collect();
        let writer = if self.down == Some(OWNER) { live[dice.below(live.len())] } else { OWNER };
        if !self.asked[writer] && !self.world.rules.is_off(Off::Barrier) {
            live.iter().for_each(|from| {
                self.world.pull(*from, writer);
            });
        }
        self.asked[writer] = true;
        // Several edits may be under way before the first is acknowledged, or the machine stops.
        let first = self.world.history.edits.len();
        for _ in 0..=dice.below(3) {
            self.world.step(Step::Edit(writer, 0, Kind::Modify, false));
        }
        let last = self.world.history.edits.len();
        let others: Vec<M> = live.into_iter().filter(|m| *m != writer).collect();
        if writer == OWNER && dice.one_in(3) && self.down.is_none() {
            self.tell(format!("{writer} writes {first}..{last}, sends nothing"));
            self.stop(writer);
            return;
        }
        let other = others[dice.below(others.len())];
        self.tell(format!("{writer} writes {first}..{last}, acknowledged by {other}"));
        self.world.pull(writer, other);
        (first..last).for_each(|edit| self.acknowledged |= bit(edit));
    }

    fn stop(&mut self, m: M) {
        self.tell(format!("{m} stops"));
        self.world.step(Step::Stop(m));
        self.down = Some(m);
        if m == OWNER {
            // Whoever writes for the owner now asks first.
            self.asked = [false; MIRRORS];
        }
    }

    fn tell(&mut self, what: String) {
        self.told.push(what);
    }

    fn end(mut self) -> Result<(), Broken> {
        let told = self.told.join("\n    ");
        heal(&mut self.world)?;
        when_healed(&self.world)?;
        let history = &self.world.history;
        let home = history.objects[0].home;
        let head = self.world.mirrors[0].slots[&home].head.as_ref().ok_or("no object")?;
        let missing = self.acknowledged & !history.edits[head.edit].ancestors;
        if missing != 0 {
            let edit = missing.trailing_zeros();
            return Err(format!(
                "edit {edit} was acknowledged by two machines and lost against {}:\n    {told}",
                head.edit
            ));
        }
        Ok(())
    }
}
