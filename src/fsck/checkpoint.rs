//! The checkpoint: how far the logs are in the slots, and which space is free (docs/FORMAT.md, "Checkpoint").

use super::bytes::{Address, Bad, ChunkId, Flaw, Take, crc32c};
use super::finding::Kind;
use super::{Run, hex};
use std::collections::BTreeMap;

/// A chunkfile as the checkpoint knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub size_units: u32,
    pub used_units: u32,
}

/// How far a received log is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub applied: u64,
    /// Name of the segment with the next batch, 0 if there is none; where in it.
    pub segment: u64,
    pub offset: u64,
}

/// A checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub mount_uuid: [u8; 16],
    pub machine: u16,
    pub log_id: u32,
    pub applied: u64,
    pub chunkfiles: BTreeMap<ChunkId, Known>,
    /// Free places below the log of the checkpoint: chunkfile, unit, units.
    pub holes: Vec<(u32, u32, u32)>,
    /// Places there that no version used when they were freed; looked at again before they become holes.
    pub waiting: Vec<(u32, u32, u32)>,
    pub received: BTreeMap<(u16, u32), Reached>,
}

/// Name of the checkpoint.
pub const CHECKPOINT: &str = "checkpoint";

/// Reads a checkpoint.
pub fn decode(bytes: &[u8]) -> Result<Checkpoint, Flaw> {
    if bytes.get(..4) != Some(b"FoCk") {
        return Err(Flaw::NotThis);
    }
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(Flaw::Damaged)?;
    if crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(Flaw::Damaged);
    }
    let mut take = Take(&body[4..]);
    let (major, minor, _mount, _) = (take.u8()?, take.u8()?, take.u8()?, take.u8()?);
    if major != 1 {
        return Err(Flaw::Newer(major));
    }
    if take.u64()? != bytes.len() as u64 {
        return Err(Flaw::Damaged);
    }
    let mount_uuid = take.raw16()?;
    let (machine, _, log_id) = (take.u16()?, take.u16()?, take.u32()?);
    let (applied, _segment, _offset) = (take.u64()?, take.u64()?, take.u64()?);
    let (_next, chunkfiles) = (take.u32()?, take.u32()?);
    let (holes, freed, tokens, _folded) = (take.u32()?, take.u32()?, take.u32()?, take.u32()?);
    take.bytes(5 * 8 + 8)?;
    let mut found = Checkpoint { mount_uuid, machine, log_id, applied, ..Checkpoint::default() };
    for _ in 0..chunkfiles {
        let id = ChunkId { machine: take.u16()?, log_id: take.u32()?, number: take.u32()? };
        let known = Known { size_units: take.u32()?, used_units: take.u32()? };
        take.u64()?;
        found.chunkfiles.insert(id, known);
    }
    for _ in 0..holes {
        found.holes.push((take.u32()?, take.u32()?, take.u32()?));
    }
    for _ in 0..freed {
        let (address, units, _superseded) = (Address::take(&mut take)?, take.u32()?, take.u64()?);
        if (address.chunk.machine, address.chunk.log_id) == (machine, log_id) {
            found.waiting.push((address.chunk.number, address.unit, units));
        }
    }
    take.bytes(TOKEN_LEN * usize::try_from(tokens).map_err(|_| Bad)?)?;
    if minor >= 1 {
        for _ in 0..take.u32()? {
            let (machine, _, log_id) = (take.u16()?, take.u16()?, take.u32()?);
            let reached =
                Reached { applied: take.u64()?, segment: take.u64()?, offset: take.u64()? };
            found.received.insert((machine, log_id), reached);
        }
    }
    Ok(found)
}

/// Bytes of an answered token.
const TOKEN_LEN: usize = 16 + 3 * 8 + 45 + 4 + 4 + 8 + 2 + 4 + 8;

impl Run<'_> {
    /// Reads the checkpoint and says what is wrong with it.
    pub fn read_checkpoint(&mut self) {
        let len = match self.medium.len(CHECKPOINT) {
            Ok(Some(len)) => usize::try_from(len).unwrap_or(usize::MAX),
            Ok(None) => return,
            Err(error) => {
                return self.found(Kind::Unreadable, CHECKPOINT, None, error.to_string());
            }
        };
        let mut bytes = vec![0; len];
        if let Err(error) = self.medium.read(CHECKPOINT, 0, &mut bytes) {
            return self.found(Kind::Unreadable, CHECKPOINT, None, error.to_string());
        }
        match decode(&bytes) {
            Ok(found) if found.mount_uuid == self.label.mount_uuid => self.checkpoint = Some(found),
            Ok(found) => {
                let what = format!("it is of mount {}", hex(&found.mount_uuid));
                self.found(Kind::CheckpointForeign, CHECKPOINT, None, what);
            }
            Err(Flaw::Newer(major)) => {
                self.found(Kind::NewerFormat, CHECKPOINT, None, format!("format {major}"));
            }
            Err(Flaw::NotThis | Flaw::Damaged) => {
                let what = "its checksum is wrong".to_owned();
                self.found(Kind::CheckpointDamaged, CHECKPOINT, None, what);
            }
        }
    }

    /// How far a log was applied when the checkpoint was made.
    pub fn applied(&self, machine: u16, log_id: u32) -> u64 {
        let Some(checkpoint) = &self.checkpoint else { return 0 };
        let own = if (checkpoint.machine, checkpoint.log_id) == (machine, log_id) {
            checkpoint.applied
        } else {
            0
        };
        checkpoint.received.get(&(machine, log_id)).map_or(own, |r| r.applied.max(own))
    }
}
