//! Floor 1: decisions. Pure functions over what machines know of each other.
//!
//! | module | decides |
//! |---|---|
//! | [`version`] | tag and vector of the next edit; which of two versions stands (design section 5) |
//! | [`opver`] | how a tag is written for people |
//! | [`coverage`] | what "has applied without a gap" means; all else compares coverages |
//! | [`reuse`] | when a place that nobody needs may be used again (R12) |
//! | [`view`] | what a tracker publishes, what a storage says of itself |
//! | [`liveness`] | who is up, with hysteresis |
//! | [`nodes`] | the tracker's node table: admission, duplicates, the view made from it |
//! | [`routing`] | which storage a request goes to, and where else |
pub mod coverage;
pub mod liveness;
pub mod nodes;
pub mod opver;
pub mod reuse;
pub mod routing;
pub mod version;
pub mod view;
