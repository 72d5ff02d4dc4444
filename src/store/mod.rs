//! Floor 2: blocking IO behind [`disk::Disk`]. No threads, no actors.
pub mod disk;
#[cfg(test)]
mod disk_conformance;
pub mod os_disk;
pub mod sim_disk;
