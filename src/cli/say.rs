//! What a command says, in one place: answers go to standard output, everything else to standard error.
//!
//! Invariants: nothing here panics, whatever becomes of the two (a full disk, a pipe that nobody reads). An answer that
//! cannot be written fails the command. What goes to standard error never stops or fails the work. So `print!` and its
//! kin, which panic, are forbidden in this crate (see `lib.rs`).

use super::exit::{Failure, Outcome};
use std::fmt::Display;
use std::io::Write;

/// A line of the answer.
///
/// # Errors
/// It cannot be written.
pub(super) fn line(text: impl Display) -> Outcome {
    whole(format_args!("{text}\n"))
}

/// Text of the answer as it stands. One write, so that what is read is not torn between two commands.
///
/// # Errors
/// It cannot be written.
pub(super) fn whole(text: impl Display) -> Outcome {
    let text = text.to_string();
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| unwritten(&e))
}

/// A line for whoever watches; if nobody can be told, nobody is.
pub(super) fn aside(text: impl Display) {
    let text = format!("{text}\n");
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

/// Standard output cannot be written.
pub(super) fn unwritten(error: &std::io::Error) -> Failure {
    Failure::failed(
        format!("cannot write to standard output: {error}"),
        "its disk is full, or whoever read it has ended",
    )
}
