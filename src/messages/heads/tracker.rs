//! Heads of the requests that a tracker serves, and of their answers.

use super::{MountState, NodeState, Uuid, heads};
use crate::format::ids::{MachineId, MountIndex};

heads! {
    /// One mount in a heartbeat; space in bytes.
    pub struct MountReport {
        /// Which.
        pub index: MountIndex,
        /// What it is doing.
        pub state: MountState,
        /// Whether it takes new objects now.
        pub writable: bool,
        /// Size of the file system.
        pub total: u64,
        /// Free in it.
        pub free: u64,
        /// Kept free: refused to inserts.
        pub reserved: u64,
    }

    /// A configured member of a syncgroup as somebody remembers it.
    pub struct Member {
        /// Machine id.
        pub machine: MachineId,
        /// Its instance.
        pub instance: Uuid,
        /// Where it listens.
        pub address: String,
    }

    /// Request `heartbeat`: a storage reports, by default each second.
    pub struct Heartbeat {
        /// Its group.
        pub group: String,
        /// Its syncgroup.
        pub syncgroup: String,
        /// Its machine id.
        pub machine: MachineId,
        /// Its instance.
        pub instance: Uuid,
        /// What peers and clients are told.
        pub advertise: String,
        /// Its admin console.
        pub admin: String,
        /// Version of the program, for people.
        pub version: String,
        /// For the policy `weighted`.
        pub weight: u32,
        /// What it is doing.
        pub state: NodeState,
        /// Every configured mount.
        pub mounts: Vec<MountReport>,
        /// Requests in flight.
        pub in_flight: u32,
        /// Requests answered per second, lately.
        pub ops_per_s: u32,
        /// Members of its syncgroup as it remembers them.
        pub members: Vec<Member>,
    }

    /// Answer to `heartbeat`.
    pub struct HeartbeatAnswer {
        /// `false`: not in the cluster view; the storage keeps trying and says why.
        pub accepted: bool,
        /// Why not; empty if accepted.
        pub why: String,
        /// Epoch of the view with this heartbeat in it.
        pub epoch: u64,
        /// Members of the same syncgroup that this tracker knows.
        pub members: Vec<Member>,
    }

    /// Request `view`.
    pub struct View {
        /// Epoch of the view that the caller has *from this tracker*; 0: none.
        pub known_epoch: u64,
    }

    /// Answer to `view`. The payload is the cluster view as a MessagePack map; empty if `changed` is false.
    pub struct ViewAnswer {
        /// Epoch of the tracker's view. Epochs of different trackers cannot be compared.
        pub epoch: u64,
        /// Whether it differs from the one that the caller has.
        pub changed: bool,
    }

    /// Request `route`: without `machine` for a put, else for what that machine created.
    pub struct Route {
        /// Group; may be left out for a put when there is only one.
        pub group: Option<String>,
        /// Syncgroup of the object.
        pub syncgroup: Option<String>,
        /// Owner of the object.
        pub machine: Option<MachineId>,
    }

    /// A storage to go to.
    pub struct RouteTarget {
        /// Group.
        pub group: String,
        /// Syncgroup.
        pub syncgroup: String,
        /// Machine id.
        pub machine: MachineId,
        /// Where it listens.
        pub address: String,
    }

    /// Answer to `route`.
    pub struct RouteAnswer {
        /// Where to go.
        pub choice: RouteTarget,
        /// Where to go if that is down, in this order.
        pub fallbacks: Vec<RouteTarget>,
    }
}
