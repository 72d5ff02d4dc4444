//! Completion at the console's prompt: the commands that this console itself lists.

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

/// What can be asked, from the answer to `help json`.
#[derive(Debug, Default)]
pub(super) struct Commands(Vec<String>);

impl Commands {
    /// Reads the answer; what is no such answer completes nothing.
    pub(super) fn read(help: &str) -> Self {
        let document: serde_json::Value = serde_json::from_str(help).unwrap_or_default();
        let rows = document["commands"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self(rows.iter().filter_map(|row| row["command"].as_str()).map(str::to_owned).collect())
    }

    /// Where the word at the cursor begins, and what it may become.
    fn of(&self, line: &str, cursor: usize) -> (usize, Vec<String>) {
        let before = line.get(..cursor).unwrap_or(line);
        let begin = before.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let (earlier, word) = before.split_at(begin);
        let first = earlier.split_whitespace().next();
        let json = "json".to_owned();
        let candidates: Vec<&String> = match first {
            None => self.0.iter().collect(),
            Some("help") => self.0.iter().chain([&json]).collect(),
            Some(_) => vec![&json],
        };
        let fits = |candidate: &&String| candidate.starts_with(word);
        (begin, candidates.into_iter().filter(fits).cloned().collect())
    }
}

impl Completer for Commands {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.of(line, cursor))
    }
}

impl Hinter for Commands {
    type Hint = String;
}

impl Highlighter for Commands {}

impl Validator for Commands {}

impl Helper for Commands {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_console_lists_is_offered() {
        let help = r#"{"commands":[{"command":"status"},{"command":"mounts"},{"command":"help"}]}"#;
        let commands = Commands::read(help);
        assert_eq!(commands.of("st", 2), (0, vec!["status".to_owned()]));
        assert_eq!(commands.of("help mo", 7), (5, vec!["mounts".to_owned()]));
        assert_eq!(commands.of("status ", 7), (7, vec!["json".to_owned()]));
        assert_eq!(commands.of("reb", 3), (0, Vec::new()));
        assert_eq!(commands.of("é", 1), (0, Vec::new()), "a cursor inside a letter does no harm");
        assert_eq!(Commands::read("error: no").of("st", 2), (0, Vec::new()));
    }
}
