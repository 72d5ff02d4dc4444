//! Folio: a store for hundreds of millions of small objects that are edited all the time.

pub mod actors;
pub mod cluster;
pub mod format;
pub mod messages;
pub mod recovery;
pub mod settings;
pub mod store;
