//! Heads of the requests that a tracker serves, and of their answers. What `cluster/` decides about travels beside
//! them, in the payload, see [`encode_map`](super::encode_map).

use super::{Uuid, heads};
use crate::format::ids::{MachineId, MountIndex};

heads! {
    /// A configured member of a syncgroup as somebody remembers it.
    pub struct Member {
        /// Machine id.
        pub machine: MachineId,
        /// Its instance.
        pub instance: Uuid,
        /// Where it listens.
        pub address: String,
    }

    /// Request `heartbeat`: a storage reports, by default each second. The payload is its
    /// [`StorageReport`](crate::cluster::view::StorageReport) as a map.
    pub struct Heartbeat {
        /// Members of its syncgroup as it remembers them.
        pub members: Vec<Member>,
        /// Members that were removed for good, one for each instance.
        pub forgotten: Vec<Member> = Vec::new(),
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
        /// How often this tracker wants a report, milliseconds; 0: as before.
        pub interval_ms: u32 = 0,
        /// The tracker's wall clock, milliseconds since 1970; 0: not told.
        pub clock_ms: u64 = 0,
    }

    /// Request `view`.
    pub struct View {
        /// Epoch of the view that the caller has; 0: none.
        pub known_epoch: u64,
        /// The tracker from which it has it, as named in that view: epochs of different ones cannot be compared.
        pub known_tracker: Uuid,
    }

    /// Answer to `view`. The payload is the [`ClusterView`](crate::cluster::view::ClusterView) as a map; empty if
    /// `changed` is false.
    pub struct ViewAnswer {
        /// Epoch of the tracker's view.
        pub epoch: u64,
        /// Whether it differs from the one that the caller has.
        pub changed: bool,
    }

    /// Request `route`: without `machine` for a put, else for an object.
    pub struct Route {
        /// Group; may be left out for a put when there is only one.
        pub group: Option<String>,
        /// Syncgroup of the object.
        pub syncgroup: Option<String>,
        /// Owner of the object.
        pub machine: Option<MachineId>,
        /// Mount of the object.
        pub mount: Option<MountIndex>,
        /// Length of what is to be put, bytes.
        pub length: u64,
    }

    /// Answer to `route`. The payload is the [`Route`](crate::cluster::routing::Route) as a map.
    pub struct RouteAnswer {
        /// Epoch of the view that it was taken from.
        pub epoch: u64,
    }
}
