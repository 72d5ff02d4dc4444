//! What an operator may change while a daemon runs, the same on both kinds: how much it logs, a few keys of its
//! configuration, its end.
//!
//! Invariants: a key that a running daemon cannot change is refused with what to do instead; nothing secret is shown (of
//! keys only the name of their file).

use crate::actors::admin_console::{CommandResult, ConsoleAnswer, Value};
use crate::settings::Shown;
use crate::settings::spec::storage_number;
use std::sync::OnceLock;

/// Sets what is logged: `error`, `warn`, `info`, `debug`, `trace`.
pub type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// One logger for each process, however many daemons are in it.
static SET_LEVEL: OnceLock<SetLevel> = OnceLock::new();

/// Words that `log` takes.
pub const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Says how the level of the log is set. Only the first call of a process counts.
pub fn logs_are_set_by(set: SetLevel) {
    // A second daemon in this process logs to the same place.
    SET_LEVEL.set(set).unwrap_or_default();
}

/// `log LEVEL`.
///
/// # Errors
/// No such level, or nothing is logged.
pub fn log(words: &[String]) -> CommandResult {
    let [level] = words else {
        return Err(format!("expected one of {}", LEVELS.join(", ")));
    };
    set_level(level)?;
    Ok(ConsoleAnswer::new()
        .fact("log", level.as_str())
        .fact("until", "the next start; `log.level` in the configuration keeps it"))
}

fn set_level(level: &str) -> Result<(), String> {
    if !LEVELS.contains(&level) {
        return Err(format!("{level:?} is none of {}", LEVELS.join(", ")));
    }
    match SET_LEVEL.get() {
        Some(set) => set(level),
        None => Err("this process does not log".to_owned()),
    }
}

/// A key of a storage that can be changed at run time: its name, and how. The bounds are those of the configuration, so
/// that nothing holds until the next start that could not be written there.
pub type Changeable<'a> = (&'a str, &'a dyn Fn(u64));

/// `config [show [PART]|set KEY VALUE]`.
///
/// # Errors
/// An unknown key, one that needs a restart, or a bad value.
pub fn config(words: &[String], shown: &[Shown], own: &[Changeable<'_>]) -> CommandResult {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["show"] => Ok(show(shown, "", own)),
        ["show", part] => Ok(show(shown, part, own)),
        ["set", key, value] => set(key, value, shown, own),
        _ => Err("expected `config [show [PART] | set KEY VALUE]`".to_owned()),
    }
}

fn show(shown: &[Shown], part: &str, own: &[Changeable<'_>]) -> ConsoleAnswer {
    let rows = shown.iter().filter(|shown| shown.key.contains(part)).map(|shown| {
        let Shown { key, value, source } = shown;
        let changes = key == "log.level" || own.iter().any(|(name, _)| name == key);
        vec![
            key.as_str().into(),
            value.as_str().into(),
            source.as_str().into(),
            Value::Flag(changes),
        ]
    });
    ConsoleAnswer::new().table("keys", &["key", "value", "source", "can_be_set"], rows.collect())
}

fn set(key: &str, value: &str, shown: &[Shown], own: &[Changeable<'_>]) -> CommandResult {
    if key == "log.level" {
        set_level(value)?;
    } else if let Some((_, change)) = own.iter().find(|(name, _)| *name == key) {
        change(storage_number(key, value).map_err(|why| format!("{key}: {why}"))?);
    } else if shown.iter().any(|shown| shown.key == key) {
        return Err(format!(
            "{key} cannot be changed while the daemon runs: change its configuration and start it again"
        ));
    } else {
        return Err(format!("there is no key {key:?}; `config show` lists them"));
    }
    Ok(ConsoleAnswer::new()
        .fact("key", key)
        .fact("value", value)
        .fact("until", "the next start; write it into the configuration to keep it"))
}

/// `shutdown`: the process ends in order, as by SIGTERM.
///
/// # Errors
/// The signal cannot be sent.
pub fn shutdown(words: &[String]) -> CommandResult {
    crate::actors::admin_console::no_arguments(words)?;
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::TERM)
        .map_err(|error| format!("cannot signal process {own:?}: {error}"))?;
    Ok(ConsoleAnswer::new().fact("state", "stopping in order: what is in hand is finished first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Vec<Shown> {
        let key = |key: &str, value: &str| Shown {
            key: key.to_owned(),
            value: value.to_owned(),
            source: "default".to_owned(),
        };
        vec![key("listen", "127.0.0.1:1"), key("recovery.streams", "3")]
    }

    fn ask(line: &str, own: &[Changeable<'_>]) -> Result<String, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        config(&words, &shown(), own).map(|answer| answer.text())
    }

    #[test]
    fn a_key_that_cannot_be_set_is_refused_with_what_to_do() {
        let taken = std::cell::Cell::new(0);
        let change = |value: u64| taken.set(value);
        let reserve = |value: u64| taken.set(value);
        let own: &[Changeable<'_>] =
            &[("recovery.streams", &change), ("store.reserve_free", &reserve)];
        assert!(ask("set recovery.streams 7", own).is_ok());
        assert_eq!(taken.get(), 7);
        for (key, value, allowed) in [
            ("recovery.streams", "y", "a whole number from 1 to 32"),
            ("recovery.streams", "33", "a whole number from 1 to 32"),
            ("store.reserve_free", "99PiB", "a size from 0 to 1PiB"),
        ] {
            let why = ask(&format!("set {key} {value}"), own).expect_err("out of bounds");
            assert_eq!(why, format!("{key}: {value:?} is not {allowed}"));
            assert_eq!(taken.get(), 7);
        }
        assert!(ask("set listen 1", own).is_err_and(|why| why.contains("start it again")));
        assert!(ask("set nothing 1", own).is_err_and(|why| why.contains("no key")));
        let all = ask("show", own).expect("shown");
        assert!(all.contains("recovery.streams") && all.contains("127.0.0.1:1"), "{all}");
        assert!(!ask("show recovery", own).expect("shown").contains("listen"));
        assert!(log(&["loud".to_owned()]).is_err_and(|why| why.contains("debug")));
    }
}
