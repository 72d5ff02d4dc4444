//! The command line: one binary, `folio`. `docs` of every command are its `--help`.
//!
//! | module | commands |
//! |---|---|
//! | `objects` | `put get modify delete undelete stat` |
//! | `survey` | `list df` |
//! | `import` `verify` `export` | a tree of files and its `manifest` |
//! | `bench` | `bench` |
//! | `admin` | `admin` |
//! | `fsck` | `fsck` |
//! | `daemon` `dev` | `tracker storage dev` |
//!
//! Results go to stdout, everything else to stderr. [`exit`] has the exit codes.
#![allow(
    clippy::disallowed_methods,
    reason = "the command line is where files, the clock and randomness come in"
)]

mod admin;
mod args;
mod bench;
mod context;
mod daemon;
mod dev;
pub mod exit;
mod export;
mod fsck;
mod import;
mod logs;
pub mod manifest;
mod objects;
mod output;
mod progress;
mod say;
mod survey;
mod verify;

use args::{Cli, Command};
use clap::{CommandFactory, FromArgMatches};
use context::Context;
use exit::{Failure, Outcome};
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs one command with the arguments of the process.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, json),
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(json);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Options of clients are refused where a configuration file says the same: an option that is ignored would mislead.
fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut matches = Cli::command().try_get_matches_from(arguments)?;
    if let Some(("admin", given)) = matches.subcommand() {
        let words = given.get_many::<String>("command").map_or(0, Iterator::count);
        if let Some(arguments) = admin::words::sorted(arguments, words) {
            matches = Cli::command().try_get_matches_from(arguments)?;
        }
    }
    if let Some((name @ ("dev" | "tracker" | "storage"), given)) = matches.subcommand() {
        for (option, id) in [("--tracker", "trackers"), ("--timeout", "timeout")] {
            if given.value_source(id) == Some(clap::parser::ValueSource::CommandLine) {
                return Err(Cli::command().error(
                    clap::error::ErrorKind::ArgumentConflict,
                    format!("{option} is for clients; `folio {name}` does not know it"),
                ));
            }
        }
        let own = name != "dev";
        if own && given.value_source("ca") == Some(clap::parser::ValueSource::CommandLine) {
            return Err(Cli::command().error(
                clap::error::ErrorKind::ArgumentConflict,
                "--ca is for clients; a daemon has `tls.ca` in its configuration",
            ));
        }
        if given.value_source("key_file") == Some(clap::parser::ValueSource::CommandLine) {
            return Err(Cli::command().error(
                clap::error::ErrorKind::ArgumentConflict,
                "--key-file is for clients; a daemon has `auth.key_file` or FOLIO_KEY_FILE",
            ));
        }
    }
    Cli::from_arg_matches(&matches)
}

/// Help and version are answers; everything else is a usage error.
fn not_understood(error: &clap::Error, json: bool) -> ExitCode {
    use clap::error::ErrorKind;
    let answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if json && !answer {
        let text = error.render().to_string();
        let first: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
        let message = first.join(" ");
        let message = message.strip_prefix("error: ").unwrap_or(&message);
        Failure::usage(message, "folio --help").print(true);
        return ExitCode::from(2);
    }
    match error.print() {
        Err(error) if answer => {
            let failure = say::unwritten(&error);
            failure.print(json);
            ExitCode::from(failure.exit_code())
        }
        Ok(()) if answer => ExitCode::SUCCESS,
        // The exit code tells, also where standard error cannot be written.
        Ok(()) | Err(_) => ExitCode::from(2),
    }
}

fn execute(cli: Cli) -> Outcome {
    let args::Global { trackers, key_file, ca, timeout, json } = cli.global;
    let trackers = trackers.into_iter().map(|tracker| tracker.trim().to_owned()).collect();
    let context = Context { trackers, key_file, ca, timeout, json };
    match cli.command {
        Command::Keygen { file } => {
            crate::settings::Keys::generate(&file)?;
            let shown = file.display().to_string();
            context.print(&serde_json::json!({"key_file": shown}), &shown)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "folio", &mut script);
            say::whole(String::from_utf8_lossy(&script))
        }
        Command::Admin(args) => admin::admin(&context, &args),
        Command::Fsck(args) => fsck::fsck(&context, &args),
        Command::Dev(args) => dev::dev(&context, &args),
        Command::Tracker(args) => daemon::tracker(&args),
        Command::Storage(args) => daemon::storage(&args),
        other => client_command(&context, other),
    }
}

/// Commands that talk to a cluster, on a runtime of their own.
fn client_command(context: &Context, command: Command) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("cannot start: {e}"), ""))?;
    let local = tokio::task::LocalSet::new();
    let result = local.block_on(&runtime, async {
        match command {
            Command::Put(args) => objects::put(context, args).await,
            Command::Get(args) => objects::get(context, args).await,
            Command::Modify(args) => objects::modify(context, args).await,
            Command::Delete(args) => objects::delete(context, args).await,
            Command::Undelete(args) => objects::undelete(context, args).await,
            Command::Stat(args) => objects::stat(context, args).await,
            Command::List(args) => survey::list(context, args).await,
            Command::Df => survey::df(context).await,
            Command::Import(args) => {
                let args::Import { dir, manifest, jobs, group } = args;
                import::run(context, &dir, &manifest, group, jobs).await
            }
            Command::Export(args) => export::export(context, args).await,
            Command::Verify(args) => verify::verify(context, args).await,
            Command::Bench(args) => bench::bench(context, args).await,
            Command::Dev(_)
            | Command::Tracker(_)
            | Command::Storage(_)
            | Command::Keygen { .. }
            | Command::Completions { .. }
            | Command::Fsck(_)
            | Command::Admin(_) => Err(Failure::failed("not a command of a client", "")),
        }
    });
    // A read of a terminal that never comes must not hold the exit up.
    runtime.shutdown_background();
    result
}
