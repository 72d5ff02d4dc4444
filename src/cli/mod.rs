//! The command line.
#![allow(
    clippy::disallowed_methods,
    reason = "the command line is where files, the clock and randomness come in"
)]
pub mod exit;
mod import;
pub mod manifest;
mod progress;
