//! Floor 1: decisions. Pure functions over what machines know of each other.
//!
//! | module | decides |
//! |---|---|
//! | [`version`] | tag and vector of the next edit; which of two versions stands (design section 5) |
//! | [`opver`] | how a tag is written for people |
//! | [`coverage`] | what "has applied without a gap" means; all else compares coverages |
//! | [`acks`] | when a change may be acknowledged, and with how many copies (P1) |
//! | [`growth`] | whether a mount that only some members have takes new objects |
//! | [`meeting`] | what becomes of two lists of members that meet |
//! | [`pace`] | how a member that is copied from shares its time with its clients |
//! | [`relay`] | which logs of third machines are passed on |
//! | [`lag`] | how far a mirror is behind |
//! | [`reuse`] | when a place that nobody needs may be used again (R12) |
//! | [`tenancy`] | which tenant of a place stands, and whose records are dropped |
//! | [`archive`] | which loser of a conflict is kept |
//! | [`members`] | join, forget, who owns what is orphaned, when a vector may shrink |
//! | [`alike`] | in what members differ that should not: clocks, settings, mounts |
//! | [`evidence`] | when "not found" may be said |
//! | [`view`] | what a tracker publishes, what a storage says of itself |
//! | [`liveness`] | who is up, with hysteresis |
//! | [`nodes`] | the tracker's node table: admission, duplicates, the view made from it |
//! | [`routing`] | which storage a request goes to, and where else |
//! | [`room`] | how much new objects may take, by the least free space over the members |
//! | [`scrub`] | how fast a mount is verified, and what is known to be damaged |
//! | [`takeover`] | who may change an object, and when a mirror does |
pub mod acks;
pub mod alike;
pub mod archive;
pub mod coverage;
pub mod evidence;
pub mod growth;
pub mod lag;
pub mod liveness;
pub mod meeting;
pub mod members;
pub mod nodes;
pub mod opver;
pub mod pace;
pub mod relay;
pub mod reuse;
pub mod room;
pub mod routing;
pub mod scrub;
pub mod takeover;
pub mod tenancy;
pub mod version;
pub mod view;
