//! Floor 2: blocking IO behind [`disk::Disk`]. No threads, no actors.
pub mod disk;
#[cfg(test)]
mod disk_conformance;
pub mod os_disk;
pub mod sim_disk;
mod alloc;
mod checkpoints;
mod chunks;
pub mod clock;
mod core;
pub mod error;
mod log;
mod log_scan;
mod maintain;
pub mod mount;
pub mod open;
pub mod options;
mod rebuild;
mod space;
mod stage;
pub mod tokens;
