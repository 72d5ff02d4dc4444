//! Folio: a store for hundreds of millions of small objects that are edited all the time.
//!
//! This page is the map of the house. Two kinds of daemon live in it: a *tracker*, who knows who is alive, and a
//! *storage*, who keeps the bytes. There is no metadata server: the file id itself says where an object is.
//!
//! # Floors
//!
//! A lower floor never names a higher one; `tests/layers.rs` checks that.
//!
//! | floor | room | what is in it |
//! |---|---|---|
//! | 1 | [`mod@format`] | bytes: every structure on disk, and the file id. The same drawings are in `docs/FORMAT.md` |
//! | 1 | [`cluster`] | decisions between machines: versions, coverage, reuse of places, liveness, routing |
//! | 1 | [`recovery`] | decisions about a mount: new, known, lost, foreign |
//! | 2 | [`store`] | the engine: log, slots, free space, replay; blocking IO behind one small trait, [`store::disk::Disk`] |
//! | 3 | [`messages`] | what travels: frames, opcodes, heads. The same is in `docs/PROTOCOL.md` |
//! | 3 | [`settings`] | the configuration of both daemons, checked; key files |
//! | 4 | [`tls`] | certificates: whose is whose, and a stream that is encrypted or not |
//! | 4 | [`actors`] | who owns what, on which thread: a row per actor at its top |
//! | roof | `tracker.rs`, `storage.rs` | a daemon each, put together |
//! | roof | [`fsck`] | looks at a mount from outside, by the format document and not through the engine |
//! | roof | [`rotation`] | keys and certificates are replaced while a daemon runs |
//! | roof | [`operate`] | what an operator may change while a daemon runs |
//! | roof | `client/` | the library that programs use to talk to a cluster |
//! | roof | `cli/`, `main.rs` | the binary `folio` |
//!
//! # The way of a put
//!
//! 1. A `Connection` takes a frame off its socket, checks who asks, and takes the request's bytes out of the budget: if
//!    that is exhausted the answer is `Busy`, and nothing queues without bound (R1).
//! 2. It hands the request to the mount's disk thread. There the `ChunkFile` that owns the place checks the
//!    precondition and [`store`] *stages* the edit: place, version, sequence, one log record with the whole payload.
//! 3. When the mailboxes of the thread are drained the `Binlog` commits the batch: one write, one fdatasync (R8). A
//!    failed one fences the mount for good (R9); the other mounts serve on.
//! 4. Only then the slots are written, and every request of the batch is answered: durable (P1).
//!
//! A get makes no hop: the connection reads header and payload with one positioned read through a shared handle, checks
//! identity and checksum (P2), and only asks the owner of the file when they do not fit.
//!
//! # Where to start reading
//!
//! [`format::ids`] for the words, [`format::slot`] and [`format::log`] for the bytes, `store/mount.rs` for the engine,
//! [`actors`] for the threads. What must never happen is in `tests/`, one file per fear.

#![cfg_attr(
    not(test),
    deny(
        clippy::print_stdout,
        clippy::print_stderr,
        reason = "they panic where nobody can be told; cli/say.rs does not"
    )
)]

pub mod actors;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod daemon;
pub mod format;
pub mod fsck;
pub mod messages;
pub mod operate;
pub mod recovery;
pub mod rotation;
pub mod settings;
pub mod storage;
pub mod store;
pub mod tls;
pub mod tracker;
