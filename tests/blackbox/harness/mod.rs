//! What the black-box tests stand on: real `folio` processes on free ports and temporary folders.
//!
//! - [`process`]: one child; its "ready" line, its stderr, its end. It ends only children that it started.
//! - [`cluster`]: config files, and the daemons that they describe.
//! - [`run`]: one run of the command line, with a bound on its time.
//! - [`mirrored`]: scenes with mirrors, small here and large as campaigns.
//! - [`damage`]: bits that are changed on a disk, and what may come of it.
//! - [`mounting`]: file systems that a test mounts.
//! - [`load`]: clients that store and edit all the time.
//! - [`refilled`]: the same with mounts that are refilled.
//! - [`content`]: bytes that say of which object and version they are.
//!
//! Waiting is for something that will be said (a line, the end of a pipe) or for a condition that is asked again
//! until a deadline; the length of a pause never decides a test.

#![allow(dead_code, reason = "two test binaries share it, and neither uses all")]

pub mod cluster;
pub mod content;
pub mod damage;
pub mod load;
pub mod mirrored;
pub mod mounting;
pub mod ports;
pub mod process;
pub mod refilled;
pub mod run;
pub mod wire;
pub mod witness;

use std::time::{Duration, Instant};

/// How long something may take that normally takes milliseconds, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until the answer is `Some` or the deadline has passed; then the last `None` is a failure that says what was
/// waited for.
pub fn eventually<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number from the environment, or the default. For seeds and rounds: the value is printed, so that a failing run
/// can be repeated.
pub fn from_env(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    println!("{name}={value}");
    value
}
