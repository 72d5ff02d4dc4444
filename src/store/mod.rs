//! Floor 2: blocking IO behind [`disk::Disk`]. No threads, no actors.
mod alloc;
mod checkpoints;
mod chunks;
pub mod clock;
mod core;
pub mod disk;
#[cfg(test)]
mod disk_conformance;
pub mod error;
mod log;
mod log_scan;
mod maintain;
pub mod mount;
pub mod open;
pub mod options;
pub mod os_disk;
mod read_whole;
mod rebuild;
pub mod sim_disk;
mod space;
mod stage;
pub mod tokens;
