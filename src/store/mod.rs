//! Floor 2: blocking IO behind [`disk::Disk`]. No threads, no actors.
pub mod disk;
