//! Black-box acceptance: only what a user sees. Processes, their exit codes, their output, their files' contents.
//!
//! One binary, so that it is linked once. docs/TESTING.md says what is where and which knobs there are.

#![allow(clippy::disallowed_methods, reason = "tests may touch files, clock and threads")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]

mod by_hand;
#[path = "../common/certificates.rs"]
mod certificates;
mod config_errors;
mod console;
mod dev;
mod faults;
mod floods;
mod forget_refill;
mod fsck;
mod growth;
mod harness;
mod keys;
mod kill;
mod membership;
mod mirrors;
mod mounts;
mod objects;
mod old_copy;
mod one_mount;
mod operate;
mod recovery;
mod rolling;
mod scrub;
mod secrets;
mod sources;
mod system_calls;
mod tls;
mod trees;
