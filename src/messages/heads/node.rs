//! Heads that every node speaks: who it is, whether it lives, what went wrong.

use super::{Uuid, heads};
use crate::format::ids::MachineId;
use crate::messages::opcode::Daemon;

heads! {
    /// Request `ping`.
    pub struct Ping {}

    /// Answer to `ping`.
    pub struct Pong {
        /// The server's wall clock, milliseconds since 1970.
        pub server_time_ms: u64,
    }

    /// Request `info`.
    pub struct Info {}

    /// Who a node is; answer to `info`, and part of the answer to `hello`.
    pub struct NodeIdentity {
        /// Kind of daemon.
        pub kind: Daemon,
        /// Its group; empty for a tracker.
        pub group: String,
        /// Its syncgroup; empty for a tracker.
        pub syncgroup: String,
        /// Its machine id; 0 for a tracker.
        pub machine: MachineId,
        /// Drawn at its birth: tells a replaced machine from the one before.
        pub instance: Uuid,
        /// Version of the program, for people.
        pub version: String,
    }

    /// Head of every answer whose `status` is not 0.
    pub struct ErrorHead {
        /// The same number as `status`.
        pub code: u16,
        /// What failed, on what.
        pub message: String,
        /// What to do about it; may be empty.
        pub remedy: String,
        /// Who says so: `group/syncgroup/machine` or `tracker`, as the node calls itself.
        pub node: String,
    }
}
