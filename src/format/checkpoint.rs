//! The checkpoint: from where the log must be replayed, and the allocator's state at that point.
//!
//! ```text
//!   0  magic u32 "FoCk", major u8, minor u8, mount u8, 0 u8
//!   8  length of the whole u64
//!  16  mount uuid 16
//!  32  machine u16, 0 u16, log id u32
//!  40  applied u64                    every record up to here is in its slot, durably
//!  48  segment u64, offset u64        where the next batch begins
//!  64  next chunkfile u32, chunkfiles u32
//!  72  holes u32, freed u32, tokens u32, folded u32
//!  88  live objects u64, live bytes u64, deleted objects u64, deleted bytes u64, single bytes u64
//! 128  greatest issue time of a forgotten token u64
//! 136  chunkfiles: machine u16, log id u32, chunk u32, size units u32, used units u32, oldest tombstone ms u64
//!      holes:      chunk u32, offset units u32, units u32
//!      freed:      machine u16, log id u32, chunk u32, offset units u32, capacity units u32, superseded by u64
//!      tokens:     client 16, sequence u64, lowest u64, issued u64, object 45, life u32, term u32, n u64,
//!                  machine u16, log id u32, sequence u64
//!   -  minor 1: received logs u32; of each: machine u16, 0 u16, log id u32, applied u64, segment u64, offset u64
//!   -  CRC32C of everything before u32
//! ```
//!
//! Invariant: it is written only after the fdatasync of everything that it covers (R8).

use super::bytes::{Reader, Short, Writer};
use super::crc::crc32c;
use super::file_id::{OBJECT_ID_LEN, ObjectId};
use super::ids::{ChunkNumber, ChunkfileId, LogId, MachineId, Place, Sequence, Tag, Token};
use super::record::{put_address, take_address};

const MAGIC: u32 = u32::from_le_bytes(*b"FoCk");
const MAJOR: u8 = 1;
const MINOR: u8 = 1;

/// A chunkfile as the allocator knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkfileState {
    /// Which.
    pub id: ChunkfileId,
    /// Its size, chunkfile header included.
    pub size_units: u32,
    /// Everything below was handed out at some time; above is fresh space.
    pub used_units: u32,
    /// When the oldest tombstone in it was made (ms since 1970); `u64::MAX` if there is none.
    pub oldest_tombstone_ms: u64,
}

/// A place that waits for R12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreedPlace {
    /// Where.
    pub place: Place,
    /// The edit that superseded it.
    pub superseded_by: Sequence,
}

/// How far a received log was applied, and where its next batch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedLog {
    /// Origin.
    pub machine: MachineId,
    /// Its log id.
    pub log_id: LogId,
    /// Everything up to here is applied, durably: an entry of the coverage.
    pub applied: Sequence,
    /// First sequence (the name) of the segment with the next batch; 0 if there is none.
    pub segment: Sequence,
    /// Offset of the next batch in it.
    pub offset: u64,
}

/// An answered mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredToken {
    /// The request's token.
    pub token: Token,
    /// The object of the answer.
    pub object: ObjectId,
    /// The version of the answer.
    pub tag: Tag,
}

/// Numbers shown to people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Objects that answer.
    pub live_objects: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Tombstones that can be undeleted.
    pub deleted_objects: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Bytes of live and deleted objects that lie in singlefiles.
    pub single_bytes: u64,
}

/// A checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Mount index.
    pub mount: u8,
    /// Mount.
    pub mount_uuid: [u8; 16],
    /// Machine.
    pub machine: MachineId,
    /// The log it belongs to.
    pub log_id: LogId,
    /// Last record that it covers.
    pub applied: Sequence,
    /// First sequence (the name) of the segment with the next batch.
    pub segment: Sequence,
    /// Offset of the next batch in it.
    pub offset: u64,
    /// Number for the next new chunkfile.
    pub next_chunk: ChunkNumber,
    /// Chunkfiles of every log id on this mount.
    pub chunkfiles: Vec<ChunkfileState>,
    /// Free places below our current log id: chunkfile, offset, length in units.
    pub holes: Vec<(ChunkNumber, u32, u32)>,
    /// Places that wait.
    pub freed: Vec<FreedPlace>,
    /// Answers for retries (R2).
    pub tokens: Vec<AnsweredToken>,
    /// Records before `applied` that could not be read; already reported.
    pub folded_damage: u32,
    /// Numbers.
    pub counters: Counters,
    /// Tokens issued up to here may have been forgotten.
    pub forgotten_ms: u64,
    /// What of other logs it covers.
    pub received: Vec<ReceivedLog>,
}

/// Why a checkpoint cannot be used. It is then rebuilt from the slots and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCheckpoint {
    /// Newer format: the mount is left untouched.
    #[error("the checkpoint has format version {0}, newer than this program's")]
    Newer(u8),
    /// Damaged.
    #[error("the checkpoint's checksum is wrong")]
    Broken,
}

impl From<Short> for BadCheckpoint {
    fn from(_: Short) -> Self {
        Self::Broken
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Checkpoint {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.u32(MAGIC).u8(MAJOR).u8(MINOR).u8(self.mount).u8(0).u64(0).put(&self.mount_uuid);
        w.u16(self.machine).u16(0).u32(self.log_id);
        w.u64(self.applied).u64(self.segment).u64(self.offset);
        w.u32(self.next_chunk).u32(count(self.chunkfiles.len()));
        w.u32(count(self.holes.len())).u32(count(self.freed.len()));
        w.u32(count(self.tokens.len())).u32(self.folded_damage);
        let c = &self.counters;
        w.u64(c.live_objects).u64(c.live_bytes).u64(c.deleted_objects).u64(c.deleted_bytes);
        w.u64(c.single_bytes).u64(self.forgotten_ms);
        for file in &self.chunkfiles {
            w.u16(file.id.machine).u32(file.id.log_id).u32(file.id.chunk);
            w.u32(file.size_units).u32(file.used_units).u64(file.oldest_tombstone_ms);
        }
        for (chunk, offset, units) in &self.holes {
            w.u32(*chunk).u32(*offset).u32(*units);
        }
        for freed in &self.freed {
            put_address(&mut w, freed.place.address);
            w.u32(freed.place.capacity_units).u64(freed.superseded_by);
        }
        for answered in &self.tokens {
            put_token(&mut w, answered);
        }
        w.u32(count(self.received.len()));
        for log in &self.received {
            w.u16(log.machine).u16(0).u32(log.log_id);
            w.u64(log.applied).u64(log.segment).u64(log.offset);
        }
        let len = w.len() as u64 + 4;
        out[8..16].copy_from_slice(&len.to_le_bytes());
        let crc = crc32c(&out);
        Writer::new(&mut out).u32(crc);
        out
    }

    /// Reads and checks a file's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadCheckpoint> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(BadCheckpoint::Broken)?;
        let mut r = Reader::new(body);
        if r.u32()? != MAGIC || crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(BadCheckpoint::Broken);
        }
        let (major, minor, mount, _) = (r.u8()?, r.u8()?, r.u8()?, r.u8()?);
        if major != MAJOR {
            return Err(BadCheckpoint::Newer(major));
        }
        if r.u64()? != bytes.len() as u64 {
            return Err(BadCheckpoint::Broken);
        }
        let mount_uuid = r.array()?;
        let (machine, _, log_id) = (r.u16()?, r.u16()?, r.u32()?);
        let (applied, segment, offset) = (r.u64()?, r.u64()?, r.u64()?);
        let (next_chunk, chunkfiles) = (r.u32()?, r.u32()?);
        let (holes, freed, tokens, folded_damage) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
        let counters = Counters {
            live_objects: r.u64()?,
            live_bytes: r.u64()?,
            deleted_objects: r.u64()?,
            deleted_bytes: r.u64()?,
            single_bytes: r.u64()?,
        };
        let forgotten_ms = r.u64()?;
        Ok(Self {
            mount,
            mount_uuid,
            machine,
            log_id,
            applied,
            segment,
            offset,
            next_chunk,
            chunkfiles: (0..chunkfiles)
                .map(|_| take_chunkfile(&mut r))
                .collect::<Result<_, _>>()?,
            holes: (0..holes)
                .map(|_| Ok((r.u32()?, r.u32()?, r.u32()?)))
                .collect::<Result<_, Short>>()?,
            freed: (0..freed).map(|_| take_freed(&mut r)).collect::<Result<_, _>>()?,
            tokens: (0..tokens).map(|_| take_token(&mut r)).collect::<Result<_, _>>()?,
            folded_damage,
            counters,
            forgotten_ms,
            received: match minor {
                0 => Vec::new(),
                _ => {
                    let logs = r.u32()?;
                    (0..logs).map(|_| take_received(&mut r)).collect::<Result<_, _>>()?
                }
            },
        })
    }
}

fn take_received(r: &mut Reader<'_>) -> Result<ReceivedLog, Short> {
    let (machine, _, log_id) = (r.u16()?, r.u16()?, r.u32()?);
    let (applied, segment, offset) = (r.u64()?, r.u64()?, r.u64()?);
    Ok(ReceivedLog { machine, log_id, applied, segment, offset })
}

fn take_chunkfile(r: &mut Reader<'_>) -> Result<ChunkfileState, Short> {
    let id = ChunkfileId { machine: r.u16()?, log_id: r.u32()?, chunk: r.u32()? };
    let (size_units, used_units) = (r.u32()?, r.u32()?);
    Ok(ChunkfileState { id, size_units, used_units, oldest_tombstone_ms: r.u64()? })
}

fn take_freed(r: &mut Reader<'_>) -> Result<FreedPlace, Short> {
    let place = Place { address: take_address(r)?, capacity_units: r.u32()? };
    Ok(FreedPlace { place, superseded_by: r.u64()? })
}

fn put_token(w: &mut Writer<'_>, answered: &AnsweredToken) {
    let AnsweredToken { token, object, tag } = answered;
    w.put(&token.client).u64(token.sequence).u64(token.lowest_unanswered).u64(token.issued_ms);
    w.put(&object.encode()).u32(tag.life).u32(tag.term).u64(tag.n);
    w.u16(tag.machine).u32(tag.log_id).u64(tag.sequence);
}

fn take_token(r: &mut Reader<'_>) -> Result<AnsweredToken, Short> {
    let token = Token {
        client: r.array()?,
        sequence: r.u64()?,
        lowest_unanswered: r.u64()?,
        issued_ms: r.u64()?,
    };
    let object = ObjectId::decode(&r.array::<OBJECT_ID_LEN>()?).map_err(|_| Short)?;
    let (life, term, n) = (r.u32()?, r.u32()?, r.u64()?);
    let (machine, log_id, sequence) = (r.u16()?, r.u32()?, r.u64()?);
    Ok(AnsweredToken { token, object, tag: Tag { life, term, n, machine, log_id, sequence } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_comes_back_and_no_damaged_one_does() {
        let checkpoint = Checkpoint {
            mount: 3,
            applied: 77,
            chunkfiles: vec![ChunkfileState {
                id: ChunkfileId { machine: 1, log_id: 2, chunk: 3 },
                size_units: 4,
                used_units: 5,
                oldest_tombstone_ms: u64::MAX,
            }],
            holes: vec![(1, 2, 3), (4, 5, 6)],
            freed: vec![FreedPlace { place: Place::default(), superseded_by: 9 }],
            received: vec![ReceivedLog {
                machine: 1,
                log_id: 2,
                applied: 3,
                segment: 4,
                offset: 5,
            }],
            ..Checkpoint::default()
        };
        let bytes = checkpoint.encode();
        assert_eq!(Checkpoint::decode(&bytes), Ok(checkpoint));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Checkpoint::decode(&bad).is_err(), "bit {bit}");
        }
        assert!(Checkpoint::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
