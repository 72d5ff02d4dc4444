//! Floor 4: who owns what, on which thread. Thin: take a message, call down, pass on.
//!
//! | actor | thread | order | bound | from | to |
//! |---|---|---|---|---|---|
//! | [`acceptor::Acceptor`] | control | - | permits of `max_connections` | the socket | whatever is started for a socket |
//! | [`heartbeat::Heartbeat`] | control (tracker) | mailbox | one beat per connection | [`session`] | the published view |
//! | [`router::Router`] | control (tracker) | mailbox | one question per connection | [`session`], console | - |
//! | [`reporter::Reporter`] | control (storage) | its tracker | one beat in flight | its storage | a tracker |
//! | [`connection::Connection`] | net | its socket | budget; unsent bytes | a socket | `ChunkFile`, the read pool |
//! | [`sync_peer::SyncPeer`] | net (storage) | a mount's log; mounts apart | `window_bytes` for each mount and peer | `Binlog` (a hint), the pool | a mirror |
//! | [`state_pull`] (a task) | net | chunkfile by chunkfile | a page of copies on its way for each | a peer that has no log for us, comparisons | a mirror (questions), `Binlog` (what is news) |
//! | [`chunk_file::ChunkFile`] | disk of its mount | **FIFO: every change of every key in one chunkfile** | budget | [`connection`], the read pool | the engine, `Binlog` |
//! | [`binlog::Binlog`] | disk of its mount | one flush at a time | one flush outstanding | `ChunkFile` | the engine, the replies of a batch |
//! | [`disk_recovery::DiskRecovery`] | net; reads through the mount's pool | one thing at a time, as [`recovery`](crate::recovery) says | some megabytes | its own clock, `AdminConsole` | the other members (questions), `Binlog` (copies, saves) |
//! | [`scrubber::Scrubber`] | net; reads through the mount's pool | one slice at a time | one slice; the pace | its own clock, reads that met damage, `AdminConsole` | `Binlog` (second looks, repairs), a mirror (questions) |
//! | [`admin_console::AdminConsole`] | control | its socket | one command at a time | an operator | the daemon's commands |
//!
//! Who copies our state takes [`turns`] with our clients, which go first. Answers of a batch leave together ([`postman`]).
//!
//! The metrics page ([`metrics_server`]) is served on the control arbiter, from what [`meter`] counted.
//!
//! Control actors never share an arbiter with data actors (R3). `Addr`s come by constructor (R7); [`threads`] is the
//! one place that makes arbiters, [`ambient`] the one that reads the wall clock and draws random bytes.
mod absorb_room;
pub mod acceptor;
pub mod ack_room;
pub mod admin_console;
pub mod ambient;
pub mod ask_others;
pub mod binlog;
pub mod budget;
pub mod caller;
pub mod chunk_file;
pub mod conflicts;
pub mod connection;
pub mod content_fetch;
pub mod disk_recovery;
pub mod download;
pub mod engine;
mod forward;
pub mod get_job;
pub mod heartbeat;
mod incoming;
pub mod incoming_slice;
pub mod key_ring;
pub mod list_job;
mod mend_room;
pub mod meter;
pub mod metrics_page;
pub mod metrics_server;
pub mod mirror;
pub mod mount_mirror;
pub mod mount_refill;
pub mod mount_room;
pub mod offers;
pub mod out_buffer;
pub mod outbox;
pub mod peer_link;
mod peer_mount;
mod peer_requests;
pub mod peers;
pub mod placement;
pub mod postman;
pub mod problems;
pub mod read_pool;
pub mod registry;
pub mod reply;
pub mod reporter;
mod requests;
pub mod router;
pub mod scrub_desk;
pub mod scrubber;
pub mod session;
pub mod shared_mount;
pub mod shelf;
mod shelf_on_disk;
mod state_answers;
pub mod state_pull;
pub mod storage_room;
pub mod sync_peer;
pub mod task;
pub mod threads;
pub mod tracker_service;
pub mod turns;
pub mod upload;
