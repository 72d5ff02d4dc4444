//! One operator's session on the console, over TCP lines that a person can type with `nc`.
//!
//! The actor owns its socket; the daemon's commands are [`ConsoleSource`], the same for all sessions.
//!
//! Invariants (P7)
//! - Without a key the console listens on loopback only ([`check_address`]). With one, nothing but `auth`, `help` and
//!   `quit` is answered before the proof.
//! - One command at a time; a command that does not answer within [`COMMAND_LIMIT`] is given up with an error.
//! - Who is silent for `idle_timeout`, has not proved the key within [`LOGIN_LIMIT`], or does not read an answer within [`WRITE_TIMEOUT`], is cut off.
//! - Errors start with `error:`; every answer ends with a line `.`.
//! - Every command that changes something, and every proof of the key, leaves a line in the log (target `audit`).

pub mod answer;
pub mod commands;
pub mod lines;
pub mod login;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

pub use self::answer::{ConsoleAnswer, Value};
pub use self::commands::{CommandResult, ConsoleSource, changes, no_arguments};
use self::lines::{LineError, Lines, seal};
use self::login::Login;
use super::acceptor::{Accepted, Acceptor, AcceptorConfig, Permit};
use super::ambient;
use super::session::{KeyRing, WRITE_TIMEOUT};
use crate::tls::Tls;

/// How long a command may work before its session gives it up.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// How long a session lasts before the admin key is proved: strangers do not keep operators out.
pub const LOGIN_LIMIT: Duration = Duration::from_secs(60);
/// Most sessions at a time.
pub const SESSIONS_MAX: usize = 64;
/// What one session too many is told.
pub const TOO_MANY: &[u8] = b"error: too many console sessions are open\n.\n";

/// What somebody in plaintext is told by a console with TLS.
const SPEAKS_TLS: &[u8] =
    b"error: this console speaks TLS: `folio admin --ca CA.pem HOST:PORT`, or \
`openssl s_client -quiet -CAfile CA.pem -connect HOST:PORT`\n.\n";

/// What all sessions of one daemon share.
pub struct ConsoleConfig {
    /// Who answers.
    pub source: ConsoleSource,
    /// Keys of the daemon; those of the role admin count.
    pub keys: KeyRing,
    /// Certificates of the daemon.
    pub tls: Tls,
    /// Until then TLS must have begun.
    pub handshake_timeout: Duration,
    /// A session without a command for so long ends.
    pub idle_timeout: Duration,
}

/// Whether a console may listen at `address`.
///
/// # Errors
/// Beyond loopback without a key: what to change.
pub fn check_address(address: SocketAddr, keys: &KeyRing) -> Result<(), String> {
    if address.ip().is_loopback() || !keys.is_open() {
        return Ok(());
    }
    Err(format!(
        "`admin_listen` = {address}: without `auth.key_file` the console listens on loopback only"
    ))
}

/// One session.
pub struct AdminConsole {
    config: Arc<ConsoleConfig>,
    connection: Option<(std::net::TcpStream, Permit)>,
    peer: SocketAddr,
}

impl AdminConsole {
    /// For an accepted socket.
    #[must_use]
    pub fn new(config: Arc<ConsoleConfig>, accepted: Accepted) -> Self {
        let Accepted { stream, peer, permit } = accepted;
        Self { config, connection: Some((stream, permit)), peer }
    }
}

impl Actor for AdminConsole {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some((stream, permit)) = self.connection.take() else { return ctx.stop() };
        let (config, peer) = (Arc::clone(&self.config), self.peer);
        let served = async move {
            let ended = session(stream, &config, peer).await;
            drop(permit);
            ended
        };
        ctx.spawn(served.into_actor(self).map(|ended, actor, ctx| {
            if let Err(error) = ended {
                tracing::debug!(peer = %actor.peer, %error, "console session ended");
            }
            ctx.stop();
        }));
    }
}

/// Serves one socket: TLS where it is on, then lines.
async fn session(
    stream: std::net::TcpStream,
    config: &ConsoleConfig,
    peer: SocketAddr,
) -> Result<(), LineError> {
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let secured = config.tls.accept_or_tell(stream, config.handshake_timeout, SPEAKS_TLS).await;
    let (stream, _) = secured.map_err(io::Error::other)?;
    serve(stream, config, &peer.to_string()).await
}

/// Starts the console of a daemon on its control arbiter: `listener` from [`super::acceptor::bind`], its address
/// checked with [`check_address`]. Stop it with [`super::acceptor::StopAccepting`]; sessions end with the arbiter.
pub fn start(
    listener: std::net::TcpListener,
    config: ConsoleConfig,
    control: &ArbiterHandle,
) -> Addr<Acceptor> {
    let config = Arc::new(config);
    // In the middle of a TLS handshake it would be noise.
    let too_many = if config.tls.is_on() { &[][..] } else { TOO_MANY };
    let acceptor = AcceptorConfig {
        listener,
        name: "console",
        max_connections: SESSIONS_MAX,
        too_many: bytes::Bytes::from_static(too_many),
    };
    let begin = Box::new(move |accepted| {
        AdminConsole::new(Arc::clone(&config), accepted).start();
    });
    Acceptor::start_in_arbiter(control, move |_| Acceptor::new(acceptor, begin))
}

/// Serves one session to its end. `Ok`: the operator left.
///
/// # Errors
/// The line that ended it, or the socket.
pub async fn serve<S>(stream: S, config: &ConsoleConfig, peer: &str) -> Result<(), LineError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut login = Login::new(&config.keys, ambient::random()?);
    let mut lines = Lines::new(stream);
    let ConsoleSource { node, role, version, .. } = &config.source;
    let mut banner = format!("folio node={node} role={role} version={version}");
    if let Some(challenge) = login.challenge() {
        banner.push_str(" challenge=");
        banner.push_str(challenge);
    }
    banner.push('\n');
    write(&mut lines, banner).await?;
    let came = tokio::time::Instant::now();
    loop {
        let patience = if login.is_in() {
            config.idle_timeout
        } else {
            config.idle_timeout.min(LOGIN_LIMIT.saturating_sub(came.elapsed()))
        };
        let line = match tokio::time::timeout(patience, lines.next()).await {
            Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some(line))) => line,
            Ok(Err(LineError::NotText)) => {
                write(&mut lines, seal(&error(&LineError::NotText.to_string()))).await?;
                continue;
            }
            Ok(Err(LineError::TooLong)) => {
                write(&mut lines, seal(&error(&LineError::TooLong.to_string()))).await?;
                return Err(LineError::TooLong);
            }
            Ok(Err(broken)) => return Err(broken),
            Err(_) => {
                let why =
                    if login.is_in() { "idle for too long" } else { "no proof of the admin key" };
                write(&mut lines, seal(&error(why))).await?;
                return Ok(());
            }
        };
        let Some(text) = respond(&line, config, &mut login, peer).await else {
            return write(&mut lines, seal("bye\n")).await;
        };
        let answer = seal(&text);
        // Whoever reads slowly holds one answer, once.
        drop(text);
        write(&mut lines, answer).await?;
        if login.is_out() {
            return Ok(());
        }
    }
}

/// Does what one line says; `None` is `quit`.
async fn respond(
    line: &str,
    config: &ConsoleConfig,
    login: &mut Login,
    peer: &str,
) -> Option<String> {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let json = words.len() > 1 && words.last().is_some_and(|word| word == "json");
    if json {
        words.pop();
    }
    let name = if words.is_empty() { String::new() } else { words.remove(0) };
    let result = match name.as_str() {
        "" => return Some(String::new()),
        "quit" | "exit" => return None,
        "auth" => {
            let given = words.first().map_or("", String::as_str);
            let node = config.source.node.as_str();
            return Some(match login.try_proof(&config.keys, given) {
                Ok(()) => {
                    tracing::info!(target: "audit", node, peer, "console: the admin key is proved");
                    "ok\n".to_owned()
                }
                Err(why) => {
                    tracing::warn!(target: "audit", node, peer, "console: a wrong proof of the admin key");
                    error(&why)
                }
            });
        }
        "help" if words.first().is_some_and(|word| word == "auth") => return Some(login.help()),
        "help" => config.source.help(words.first().map(String::as_str)),
        _ if !login.is_in() => {
            Err("prove the admin key first: `auth HEX`; `help auth` shows how".to_owned())
        }
        _ => {
            let changes = changes(&name, &words).then(|| line.trim().to_owned());
            let result = run(&config.source, &name, words).await;
            if let Some(command) = changes {
                audit(&config.source.node, peer, &command, &result);
            }
            result
        }
    };
    Some(match result {
        Ok(answer) if json => format!("{}\n", answer.json()),
        Ok(answer) => answer.text(),
        Err(why) => error(&why),
    })
}

/// A line in the log for each command that changes something: who, from where, what, and what became of it.
fn audit(node: &str, peer: &str, command: &str, result: &CommandResult) {
    match result {
        Ok(_) => tracing::info!(target: "audit", node, peer, command, "console: done"),
        Err(why) => tracing::warn!(target: "audit", node, peer, command, %why, "console: not done"),
    }
}

async fn run(source: &ConsoleSource, name: &str, words: Vec<String>) -> CommandResult {
    let command = source.start(name, words)?;
    tokio::time::timeout(COMMAND_LIMIT, command)
        .await
        .unwrap_or_else(|_| Err(format!("{name}: no answer within {COMMAND_LIMIT:?}")))
}

/// One line, whatever the message holds.
fn error(why: &str) -> String {
    format!("error: {}\n", why.replace(char::is_control, " "))
}

async fn write<S>(lines: &mut Lines<S>, text: String) -> Result<(), LineError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let written = async {
        lines.stream().write_all(text.as_bytes()).await?;
        lines.stream().flush().await
    };
    match tokio::time::timeout(WRITE_TIMEOUT, written).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

#[cfg(test)]
mod tests;
