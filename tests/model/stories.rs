//! For each rule that chance finds too seldom, a short story that needs it: harmless with all rules, and with this one
//! switched off the unchanged checks object.

use super::history::Kind::{Delete, Modify, Move, Purge, Undelete};
use super::rules::Off;
use super::world::Step::{
    self, Cable, Deliver, Edit, Forget, Lose, Mend, Pull, Put, Recover, Recycle, Report, Return,
};

/// One story: the rule, how many mirrors, and what happens once everybody has heard of everybody.
pub struct Story {
    pub off: Off,
    pub mirrors: usize,
    pub steps: &'static [Step],
}

pub const STORIES: &[Story] = &[
    // The disk of 1 is lost between its report and the end of the round; its copy comes from 2, which lags; it edits
    // where the object lay before.
    Story {
        off: Off::Lives,
        mirrors: 3,
        steps: &[
            Put(0, false),
            Edit(0, 0, Move, false),
            Pull(0, 1),
            Pull(0, 2),
            Edit(0, 0, Move, false),
            Pull(0, 1),
            Report(0, 0),
            Report(1, 0),
            Cable(0, 1, true),
            Lose(1),
            Recover(1, 0b100, 0),
            Pull(1, 2),
            Report(2, 1),
            Edit(1, 0, Modify, false),
            Cable(0, 1, false),
            Pull(2, 0),
            Pull(0, 2),
            Report(2, 0),
            Pull(0, 1),
            Report(0, 0),
            Report(1, 0),
            Report(2, 0),
            Put(0, false),
            Pull(0, 1),
        ],
    },
    // 1 edits in the old place and loses its disk; only 2 has that edit, and it is in nobody's own log any more.
    Story {
        off: Off::ThirdParties,
        mirrors: 3,
        steps: &[
            Put(0, false),
            Edit(0, 0, Move, false),
            Pull(0, 1),
            Pull(0, 2),
            Edit(1, 0, Modify, false),
            Pull(1, 2),
            Edit(0, 0, Move, false),
            Cable(1, 2, true),
            Lose(1),
            Recover(1, 0b001, 0),
            Pull(1, 0),
            Report(0, 1),
            Pull(0, 2),
            Deliver(2, 0, 3),
            Pull(0, 1),
            Report(0, 0),
            Report(1, 0),
            Report(2, 0),
            Report(0, 0),
            Report(1, 0),
            Report(2, 0),
            Put(0, false),
            Pull(2, 0),
        ],
    },
    // 1 sees its own edit lose, goes on from the winner, and loses its disk: what beat the edit is everywhere.
    Story {
        off: Off::ArchiveWithState,
        mirrors: 3,
        steps: &[
            Put(0, false),
            Pull(0, 1),
            Pull(0, 2),
            Edit(1, 0, Modify, false),
            Pull(1, 2),
            Edit(0, 0, Delete, false),
            Pull(0, 1),
            Edit(1, 0, Undelete, false),
            Mend(1, 2, 0),
            Recycle(2),
            Lose(1),
        ],
    },
    Story {
        off: Off::LoggedArchive,
        mirrors: 3,
        steps: &[
            Put(0, false),
            Pull(0, 1),
            Pull(0, 2),
            Edit(1, 0, Modify, false),
            Pull(1, 2),
            Edit(0, 0, Delete, false),
            Pull(0, 1),
            Edit(1, 0, Undelete, false),
            Deliver(1, 2, 1),
            Deliver(1, 2, 1),
            Recycle(2),
            Lose(1),
        ],
    },
    // Sequences begin anew in a new life: the entry of the new log covers the lost one's edit by number.
    Story {
        off: Off::LogIds,
        mirrors: 3,
        steps: &[
            Put(0, false),
            Pull(0, 1),
            Pull(0, 2),
            Edit(1, 0, Modify, false),
            Pull(1, 2),
            Cable(1, 2, true),
            Lose(1),
            Recover(1, 0b001, 0),
            Pull(1, 0),
            Report(0, 1),
            Edit(1, 0, Modify, false),
            Pull(1, 0),
            Pull(0, 2),
        ],
    },
    // Counted, the edit after the loss is the same as the one before it.
    Story {
        off: Off::LogPositions,
        mirrors: 3,
        steps: &[
            Put(0, false),
            Pull(0, 1),
            Pull(0, 2),
            Edit(1, 0, Modify, false),
            Pull(1, 2),
            Cable(1, 2, true),
            Lose(1),
            Recover(1, 0b001, 0),
            Pull(1, 0),
            Report(0, 1),
            Edit(1, 0, Modify, false),
            Pull(1, 0),
            Pull(0, 2),
        ],
    },
    // The place is left, used again by an early edit that wins, and left again: the first wait ends in between.
    Story {
        off: Off::LastSupersession,
        mirrors: 2,
        steps: &[
            Put(0, false),
            Edit(0, 0, Move, false),
            Pull(0, 1),
            Edit(1, 0, Modify, false),
            Edit(0, 0, Move, false),
            Report(0, 0),
            Pull(1, 0),
            Edit(0, 0, Move, false),
            Deliver(0, 1, 0),
            Report(1, 0),
            Pull(1, 0),
            Report(0, 0),
            Report(1, 0),
            Edit(1, 0, Modify, false),
            Put(0, false),
            Pull(1, 0),
        ],
    },
    // The machine that was forgotten still has the object in the place that was handed on.
    Story {
        off: Off::BlankReturn,
        mirrors: 3,
        steps: &[
            Put(0, false),
            Edit(0, 0, Move, false),
            Pull(0, 1),
            Pull(0, 2),
            Cable(0, 1, true),
            Cable(1, 2, true),
            Edit(0, 0, Move, false),
            Forget(0, 1),
            Pull(0, 2),
            Pull(2, 0),
            Report(2, 0),
            Report(0, 0),
            Report(2, 0),
            Report(0, 0),
            Report(2, 0),
            Put(0, false),
            Return(1, true),
            Edit(1, 0, Modify, false),
        ],
    },
    // The new machine's copy is from before the object left a place that has been handed on since.
    Story {
        off: Off::Join,
        mirrors: 2,
        steps: &[
            Put(1, false),
            Forget(1, 0),
            Return(0, true),
            Put(1, false),
            Recover(0, 50, 0),
            Edit(1, 0, Delete, false),
            Edit(1, 0, Purge, false),
            Recycle(1),
            Report(1, 1),
            Edit(1, 1, Move, false),
        ],
    },
];

/// Everybody hears of everybody.
pub fn warm_up(mirrors: usize) -> Vec<Step> {
    let pairs = (0..mirrors).flat_map(|a| (0..mirrors).map(move |b| (a, b)));
    pairs.filter(|(a, b)| a != b).map(|(a, b)| Pull(a, b)).collect()
}
