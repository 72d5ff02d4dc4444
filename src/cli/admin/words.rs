//! Which words behind `folio admin HOST:PORT` are the program's own options, and which are the console's command.
//!
//! Every command of the program takes its options in any place. A console's commands have options of their own
//! (`recover 0 start --confirm`), so the parser leaves every word from the first one of the command on as it is. Here the
//! program's options are taken out from behind it. Words after `--` are the console's, whatever they look like.

use clap::CommandFactory;
use std::ffi::{OsStr, OsString};

/// The same arguments with the program's own options in front of the command, which are the last `words` of them.
/// `None`: they are in their places already.
pub(in crate::cli) fn sorted(arguments: &[OsString], words: usize) -> Option<Vec<OsString>> {
    let (front, command) = arguments.split_at_checked(arguments.len().checked_sub(words)?)?;
    // The parser has taken out a `--` in front of the command: all of it is the console's.
    if front.last().is_some_and(|word| word == "--") {
        return None;
    }
    let (mut options, mut rest) = (Vec::new(), Vec::new());
    let mut todo = command.iter();
    let mut escaped = false;
    while let Some(word) = todo.next() {
        if word == "--" {
            escaped = true;
            rest.extend(todo.by_ref().cloned());
            break;
        }
        match own(word) {
            None => rest.push(word.clone()),
            Some(Own::Alone) => options.push(word.clone()),
            Some(Own::BeforeValue) => {
                options.push(word.clone());
                options.extend(todo.next().cloned());
            }
        }
    }
    if options.is_empty() && !escaped {
        return None;
    }
    let separator = std::iter::once(OsString::from("--"));
    Some(front.iter().cloned().chain(options).chain(separator).chain(rest).collect())
}

/// An option of the program.
enum Own {
    /// All in one word.
    Alone,
    /// The next word is its value.
    BeforeValue,
}

fn own(word: &OsStr) -> Option<Own> {
    let name = word.to_str()?.strip_prefix("--")?;
    let (name, valued) = name.split_once('=').map_or((name, false), |(name, _)| (name, true));
    let program = super::super::args::Cli::command();
    let option = program
        .get_arguments()
        .find(|option| option.is_global_set() && option.get_long() == Some(name))?;
    let alone = valued || !option.get_action().takes_values();
    Some(if alone { Own::Alone } else { Own::BeforeValue })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[rstest]
    #[case("status --json", "--json -- status")]
    #[case("status --key-file K", "--key-file K -- status")]
    #[case("recover 0 --timeout 3s start --confirm", "--timeout 3s -- recover 0 start --confirm")]
    #[case("find --tracker=a:1 x --ca C", "--tracker=a:1 --ca C -- find x")]
    #[case("find -- --json", "-- find --json")]
    #[case("status --json -- --json", "--json -- status --json")]
    #[case("status --key-file", "--key-file -- status")]
    fn an_option_of_the_program_is_never_taken_for_a_word_of_the_console(
        #[case] typed: &str,
        #[case] sorted_line: &str,
    ) {
        let front = "folio admin a:1";
        let typed = words(&format!("{front} {typed}"));
        let found = sorted(&typed, typed.len() - 3).expect("something to do");
        assert_eq!(found, words(&format!("{front} {sorted_line}")));
    }

    #[rstest]
    #[case("folio admin a:1 recover 0 start --confirm", 4)]
    #[case("folio admin a:1 -- status --json", 2)]
    #[case("folio admin a:1 --json", 0)]
    #[case("folio admin a:1 log --level", 2)]
    fn what_is_the_consoles_stays_as_it_is(#[case] line: &str, #[case] count: usize) {
        assert_eq!(sorted(&words(line), count), None);
    }
}
