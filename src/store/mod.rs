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
pub mod handles;
pub mod list;
mod log;
mod log_scan;
mod maintain;
pub mod mount;
pub mod open;
pub mod options;
pub mod os_disk;
pub mod read;
mod read_whole;
pub mod reader;
mod rebuild;
pub mod sim_disk;
pub mod single_reader;
pub mod single_writer;
mod space;
mod stage;
pub mod tokens;
