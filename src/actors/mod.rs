//! Floor 4: who owns what, on which thread. Thin: take a message, call down, pass on.
//!
//! | actor | thread | order | bound | from | to |
//! |---|---|---|---|---|---|
//! | [`acceptor::Acceptor`] | control | - | permits of `max_connections` | the socket | whatever is started for a socket |
//! | [`heartbeat::Heartbeat`] | control (tracker) | mailbox | one beat per connection | [`session`] | the published view |
//! | [`router::Router`] | control (tracker) | mailbox | one question per connection | [`session`], console | - |
//! | [`reporter::Reporter`] | control (storage) | its tracker | one beat in flight | its storage | a tracker |
//! | [`admin_console::AdminConsole`] | control | its socket | one command at a time | an operator | the daemon's commands |
//!
//! Control actors never share an arbiter with data actors (R3). `Addr`s come by constructor (R7); [`threads`] is the
//! one place that makes arbiters, [`ambient`] the one that reads the wall clock and draws random bytes.
pub mod acceptor;
pub mod ambient;
pub mod caller;
pub mod heartbeat;
pub mod reporter;
pub mod router;

pub mod session;
pub mod threads;
pub mod tracker_service;
