//! Floor 1: bytes. Layouts of everything on disk, and of the file id. Pure: no IO, no clock, no actor.
pub mod bytes;
pub mod checkpoint;
pub mod chunkfile;
pub mod conflict;
pub mod crc;
pub mod envelope;
pub mod file_id;
pub mod forgotten;
pub mod ids;
pub mod label;
pub mod log;
pub mod members;
pub mod memory;
pub mod paths;
pub mod record;
pub mod single;
pub mod slot;
