//! The crash campaign: workloads on an engine on a [`SimDisk`], a crash at every point, every way in which it can turn
//! out, and a model that knows what a read may then answer.
//!
//! | file | what |
//! |---|---|
//! | `engine.rs` | what the campaign needs of an engine |
//! | `bound.rs` | that, bound to the real one |
//! | `model.rs` | what was acknowledged, what is in doubt, what an answer may be (P1, P2, P5) |
//! | `workload.rs` | the steps, and how they run on an engine and the model side by side |
//! | `judge.rs` | recovers a crashed disk and holds every answer against the model |
//! | `exhaustive.rs` | all short workloads x all crash points x all outcomes |
//! | `seeded.rs` | long drawn workloads with several lives |
//! | `faults.rs` | disks that fail, fill up, or lie |
//!
//! The same code looks for crashes that lose something and, in `planted_bugs.rs`, proves that it would find them.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

pub mod bound;
pub mod engine;
pub mod exhaustive;
pub mod faults;
pub mod judge;
pub mod model;
pub mod seeded;
pub mod workload;

use std::fmt;
use std::sync::LazyLock;

/// Whether to tell what happens, for looking into one seed: `FOLIO_CRASH_LOG=1`.
pub static TALKS: LazyLock<bool> = LazyLock::new(|| std::env::var_os("FOLIO_CRASH_LOG").is_some());

/// Tells what happens, if anyone wants to know.
macro_rules! note {
    ($($what:tt)*) => {
        if *$crate::crash::TALKS {
            eprintln!($($what)*);
        }
    };
}
pub(crate) use note;

/// Something that must not happen did.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What.
    pub what: String,
    /// Where: enough to repeat it.
    pub at: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  at {}", self.what, self.at)
    }
}

/// How much was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Workloads run.
    pub workloads: u64,
    /// Points at which they were crashed.
    pub crash_points: u64,
    /// Power cuts taken.
    pub cuts: u64,
    /// Of those, disks that had not been judged before under the same expectations.
    pub judged: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workloads, crash_points, cuts, judged } = self;
        write!(
            f,
            "{workloads} workloads, {crash_points} crash points, {cuts} power cuts, {judged} different disks"
        )
    }
}
