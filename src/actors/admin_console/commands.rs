//! The commands of a daemon's console: one table, out of which `help` is made too, so that nothing is promised that is
//! not there.

use std::future::Future;
use std::pin::Pin;

use super::answer::{ConsoleAnswer, Value};

/// What a command gives: an answer, or what to print behind `error: `.
pub type CommandResult = Result<ConsoleAnswer, String>;
/// A command at work. Runs on the control arbiter, so it must never block there; may be dropped while it waits.
pub type CommandFuture = Pin<Box<dyn Future<Output = CommandResult>>>;
/// Starts a command with its words.
pub type CommandFn = Box<dyn Fn(Vec<String>) -> CommandFuture + Send + Sync>;

struct Command {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    run: CommandFn,
}

/// Who answers, and what it can.
pub struct ConsoleSource {
    /// The node as it calls itself: `tracker@127.0.0.1:7400`, `books/a/1`.
    pub node: String,
    /// `tracker` or `storage`.
    pub role: &'static str,
    /// Version of the program.
    pub version: String,
    commands: Vec<Command>,
}

impl ConsoleSource {
    /// A console that can `help` and `quit`.
    pub fn new(node: impl Into<String>, role: &'static str, version: impl Into<String>) -> Self {
        Self { node: node.into(), role, version: version.into(), commands: Vec::new() }
    }

    /// Adds a command. `usage` names its arguments (may be empty), `about` says in one line what it answers.
    #[must_use]
    pub fn command<F, T>(
        mut self,
        name: &'static str,
        usage: &'static str,
        about: &'static str,
        run: F,
    ) -> Self
    where
        F: Fn(Vec<String>) -> T + Send + Sync + 'static,
        T: Future<Output = CommandResult> + 'static,
    {
        debug_assert!(self.find(name).is_none(), "a command stands once");
        let run: CommandFn = Box::new(move |words| Box::pin(run(words)));
        self.commands.push(Command { name, usage, about, run });
        self
    }

    fn find(&self, name: &str) -> Option<&Command> {
        self.commands.iter().find(|command| command.name == name)
    }

    /// Starts a command.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn start(&self, name: &str, words: Vec<String>) -> Result<CommandFuture, String> {
        match self.find(name) {
            Some(command) => Ok((command.run)(words)),
            None => Err(format!("unknown command {name:?}; `help` lists what there is")),
        }
    }

    /// `help` and `help COMMAND`.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn help(&self, of: Option<&str>) -> CommandResult {
        let own = [
            ("auth", "HEX", "prove the admin key; `help auth` shows how"),
            ("help", "[COMMAND]", "what can be asked, one command a line"),
            ("quit", "", "end this session"),
        ];
        let table = self.commands.iter().map(|c| (c.name, c.usage, c.about));
        let mut rows: Vec<_> = table.chain(own).collect();
        rows.sort_unstable();
        if let Some(name) = of {
            rows.retain(|row| row.0 == name);
            if rows.is_empty() {
                return Err(format!("unknown command {name:?}; `help` lists what there is"));
            }
        }
        let rows = rows
            .into_iter()
            .map(|(name, usage, about)| vec![name.into(), Value::from(usage), Value::from(about)])
            .collect();
        Ok(ConsoleAnswer::new().list("commands", &["command", "arguments", "about"], rows))
    }
}

/// Whether a command changes something, so that it has to be in the audit log.
#[must_use]
pub fn changes(name: &str, words: &[String]) -> bool {
    let first = words.first().map_or("", String::as_str);
    match name {
        "drain" | "shutdown" | "forget" | "readonly" | "log" => true,
        "config" => first == "set",
        "conflicts" => matches!(first, "restore" | "drop"),
        // Whatever is added to them counts until it is known to look only.
        "recover" | "scrub" => {
            let looks = |word: &String| word == "status" || word.parse::<u8>().is_ok();
            !words.iter().all(looks)
        }
        _ => false,
    }
}

/// For commands without arguments.
///
/// # Errors
/// There are some.
pub fn no_arguments(words: &[String]) -> Result<(), String> {
    match words.first() {
        None => Ok(()),
        Some(word) => Err(format!("{word:?} is not expected here; this command takes no argument")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> ConsoleSource {
        ConsoleSource::new("tracker@here", "tracker", "1").command(
            "status",
            "",
            "how it is",
            |words| async move {
                no_arguments(&words)?;
                Ok(ConsoleAnswer::new().fact("state", "well"))
            },
        )
    }

    #[test]
    fn help_lists_exactly_what_can_be_asked() {
        let text = source().help(None).expect("help").text();
        let names: Vec<_> = text.lines().filter_map(|l| l.split_whitespace().next()).collect();
        assert_eq!(names, ["auth", "help", "quit", "status"]);
        assert_eq!(source().help(Some("status")).expect("help").text().lines().count(), 1);
        assert!(source().help(Some("reboot")).is_err());
    }

    #[actix_rt::test]
    async fn an_unknown_command_or_word_is_an_error() {
        assert!(source().start("reboot", Vec::new()).is_err());
        let status = source().start("status", vec!["now".into()]).expect("known");
        assert!(status.await.expect_err("a word too many").contains("now"));
    }
}
