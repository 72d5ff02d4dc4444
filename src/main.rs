//! The binary `folio`; everything is in [`folio::cli`].
use std::process::ExitCode;

fn main() -> ExitCode {
    folio::cli::run(std::env::args_os())
}
