//! `folio admin HOST:PORT [COMMAND ...]`: the console of a daemon, one command or a conversation.
//!
//! The protocol is lines: a banner, then per command an answer that ends with a line `.`; a leading dot of an answer line
//! is doubled. With a key the banner ends in `challenge=HEX`, which is answered with `auth HEX` first.

mod complete;
pub(super) mod words;

use self::complete::Commands;
use super::args;
use super::context::Context;
use super::exit::{Failure, Outcome};
use super::say;
use crate::actors::admin_console::login::proof;
use crate::messages::error::ErrorCode;
use crate::messages::opcode::Role;
use crate::tls::connect::broken;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// An answer may take longer than a connection: some commands work for a while.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// What is given in place of a console.
const WHICH: &str = "give its admin_listen address: by default 7500 (tracker) or 7511 (storage)";
/// Longest line that is taken from the other end.
const LINE_MAX: u64 = 16 << 20;

/// `folio admin`.
pub(super) fn admin(context: &Context, args: &args::Admin) -> Outcome {
    let (mut console, banner) = Console::open(context, &args.address)?;
    if !args.command.is_empty() {
        let mut command = args.command.join(" ");
        if context.json && args.command.last().is_none_or(|word| word != "json") {
            command.push_str(" json");
        }
        return say::whole(console.ask(&command)?);
    }
    say::aside(&banner);
    if std::io::stdin().is_terminal() {
        converse(&mut console, &args.address)
    } else {
        batch(&mut console)
    }
}

/// A prompt with history and completion.
fn converse(console: &mut Console, address: &str) -> Outcome {
    use rustyline::error::ReadlineError;
    use rustyline::history::DefaultHistory;
    use rustyline::{CompletionType, Config, Editor};
    let broken = |e: ReadlineError| Failure::failed(format!("cannot read: {e}"), "");
    // Without the list there is no completion, and nothing else is lost.
    let commands = Commands::read(&console.ask("help json").unwrap_or_default());
    let config = Config::builder().completion_type(CompletionType::List).build();
    let mut editor = Editor::<Commands, DefaultHistory>::with_config(config).map_err(broken)?;
    editor.set_helper(Some(commands));
    let prompt = format!("{address}> ");
    loop {
        let line = match editor.readline(&prompt) {
            Ok(line) => line,
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => return Ok(()),
            Err(e) => return Err(broken(e)),
        };
        let command = line.trim();
        if command.is_empty() {
            continue;
        }
        // Without history the console works all the same.
        editor.add_history_entry(command).unwrap_or_default();
        match console.ask(command) {
            Ok(answer) => say::whole(answer)?,
            Err(failure) if failure.code == ErrorCode::Unavailable => return Err(failure),
            Err(failure) => failure.print(false),
        }
        if command == "quit" {
            return Ok(());
        }
    }
}

/// Commands from a file or a pipe; the first that fails ends it.
fn batch(console: &mut Console) -> Outcome {
    for line in std::io::stdin().lines() {
        let line = line.map_err(|e| Failure::failed(format!("cannot read: {e}"), ""))?;
        let command = line.trim();
        if command.is_empty() || command.starts_with('#') {
            continue;
        }
        say::whole(console.ask(command)?)?;
        if command == "quit" {
            break;
        }
    }
    Ok(())
}

struct Console {
    address: String,
    reader: BufReader<Box<dyn Channel>>,
}

/// A socket, encrypted or not.
trait Channel: Read + Write {}

impl<C: Read + Write> Channel for C {}

impl Console {
    /// Connects, reads the banner, proves the key. The banner comes without its challenge.
    fn open(context: &Context, address: &str) -> Outcome<(Self, String)> {
        let stream = connect(address, context.timeout)?;
        let io = |e: std::io::Error| lost(address, &e);
        let clock = stream.try_clone().map_err(io)?;
        // A console speaks first, and at once; other ports wait to be spoken to.
        clock.set_read_timeout(Some(context.timeout.max(Duration::from_millis(1)))).map_err(io)?;
        clock.set_write_timeout(Some(ANSWER_MAX)).map_err(io)?;
        let stream: Box<dyn Channel> = match context.tls()? {
            None => Box::new(stream),
            Some(tls) => {
                let secured = tls.connect_blocking(stream, address);
                Box::new(secured.map_err(|e| no_tls(address, &e))?)
            }
        };
        let mut console = Self { address: address.to_owned(), reader: BufReader::new(stream) };
        let banner = console.read().map_err(|e| {
            let message = format!("{address} does not greet as a console does: {}", why(&e));
            let remedy = format!("this is probably no admin_listen port; {WHICH}");
            Failure::new(ErrorCode::Unavailable, message, remedy)
        })?;
        if !banner.starts_with("folio ") {
            return Err(match banner.strip_prefix("error: ") {
                Some(error) => Failure::failed(error, "ask again when that is mended"),
                None => Failure::failed(format!("{address} is no Folio console"), WHICH),
            });
        }
        clock.set_read_timeout(Some(ANSWER_MAX)).map_err(io)?;
        let Some((shown, challenge)) = banner.rsplit_once(" challenge=") else {
            return Ok((console, banner));
        };
        let keys = context.keys()?;
        let secrets = keys.as_ref().map(|keys| keys.of(Role::Admin)).unwrap_or_default();
        let mut refusal = Failure::new(
            ErrorCode::Unauthorized,
            format!("{address} asks for an admin key"),
            "name a key file with an `admin` line: --key-file or FOLIO_KEY_FILE",
        );
        for secret in secrets {
            let Some(proof) = proof(secret.bytes(), challenge) else { continue };
            match console.ask(&format!("auth {proof}")) {
                Ok(_) => return Ok((console, shown.to_owned())),
                Err(failure) if failure.code == ErrorCode::Unavailable => return Err(failure),
                Err(failure) => refusal.message = failure.message,
            }
        }
        Err(refusal)
    }

    /// One command, its answer without the dot.
    fn ask(&mut self, command: &str) -> Outcome<String> {
        let stream = self.reader.get_mut();
        let line = format!("{command}\n");
        let sent = stream.write_all(line.as_bytes()).and_then(|()| stream.flush());
        sent.map_err(|e| lost(&self.address, &e))?;
        let mut answer = String::new();
        loop {
            let line = self.line()?;
            if line == "." {
                break;
            }
            answer.push_str(line.strip_prefix('.').unwrap_or(&line));
            answer.push('\n');
        }
        match answer.strip_prefix("error:") {
            Some(error) => Err(Failure::failed(error.trim(), "")),
            None => Ok(answer),
        }
    }

    fn line(&mut self) -> Outcome<String> {
        self.read().map_err(|e| lost(&self.address, &e))
    }

    fn read(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if (&mut self.reader).take(LINE_MAX).read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\n', '\r']).to_owned())
    }
}

fn why(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
            "no answer in time".to_owned()
        }
        _other => broken(error),
    }
}

fn no_tls(address: &str, error: &std::io::Error) -> Failure {
    let message = format!("cannot talk to the console at {address}: {error}");
    let code = match error.kind() {
        std::io::ErrorKind::InvalidData => ErrorCode::Unauthorized,
        _other => ErrorCode::Unavailable,
    };
    Failure::new(code, message, "check the CA (--ca, FOLIO_CA_FILE) and the address")
}

fn lost(address: &str, error: &std::io::Error) -> Failure {
    let message = format!("the console at {address} went away: {}", why(error));
    Failure::new(ErrorCode::Unavailable, message, "see whether the daemon runs, and ask again")
}

fn connect(address: &str, timeout: Duration) -> Outcome<TcpStream> {
    let remedy = WHICH;
    let addresses = address
        .to_socket_addrs()
        .map_err(|e| Failure::usage(format!("{address:?} is no HOST:PORT: {e}"), remedy))?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, timeout.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = Some(e),
        }
    }
    let why = last.map_or_else(|| "no address".to_owned(), |e| e.to_string());
    Err(Failure::new(ErrorCode::Unavailable, format!("cannot reach {address}: {why}"), remedy))
}
