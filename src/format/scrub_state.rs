//! How far the verification of a mount has come, `<mount>/scrub.state`: so that a restart does not begin anew.
//!
//! ```text
//!  0  magic u32 "FoSc", major u8, minor u8, 0 u16
//!  8  length of the body u32, CRC32C of 0..12 and the body u32
//! 16  flags u8 (1: a round runs, 2: paused, 4: at full speed, 8: somewhere in the chunkfiles), 0 u8, machine u16, log id u32
//! 24  chunk u32, unit u32                              where it goes on, if in the chunkfiles
//! 32  begun u64, finished u64                          ms since 1970; of this round or the last, of the last; 0: never
//! 48  bytes u64                                        verified in this round
//! 56  found u64, repaired u64, gone u64, by reads u64  damages, since the mount is there
//! 88  open u32, 0 u32
//! 96  open: kind u8 (1: an object by its home, 2: a chunkfile's header), 0 u8, machine u16, log id u32, chunk u32,
//!     unit u32; or kind u8 (3: an object by its id), 0 u8, object id 45, as in a file id
//! ```
//!
//! Invariants: replaced as a whole; nothing depends on it: one that is missing or cannot be read is a round that begins
//! anew. Damage of logs, label and checkpoint is not noted here: it is looked for at the front of every round.

use super::bytes::{Reader, Short, Writer};
use super::envelope::{FormatError, Kind};
use super::file_id::{OBJECT_ID_LEN, ObjectId};
use super::ids::{Address, ChunkfileId};

/// Longest such file that is read, bytes.
pub const SCRUB_STATE_LEN_MAX: usize = 1 << 20;
/// Open damages that are noted; more are found again.
pub const SCRUB_OPEN_MAX: usize = 4096;

const KIND: Kind = Kind { magic: *b"FoSc", what: "state of a scrub" };
const RUNNING: u8 = 1;
const PAUSED: u8 = 2;
const AT_ONCE: u8 = 4;
const IN_CHUNKS: u8 = 8;
const OBJECT: u8 = 1;
const CHUNKFILE: u8 = 2;
const BY_ID: u8 = 3;

/// Damage that is known and not repaired yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OpenDamage {
    /// Header or content of the object whose home this is.
    Object(Address),
    /// The same of an object whose id is known.
    Known(ObjectId),
    /// The header of a chunkfile.
    Chunkfile(ChunkfileId),
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubState {
    /// A round has begun and not ended.
    pub running: bool,
    /// An operator paused it.
    pub paused: bool,
    /// An operator wants this round at full speed.
    pub at_once: bool,
    /// Where in the chunkfiles it goes on; `None`: at the front.
    pub next: Option<(ChunkfileId, u32)>,
    /// When this round, or the last one, began.
    pub begun_ms: u64,
    /// When the last round ended; 0: never.
    pub finished_ms: u64,
    /// Bytes verified in this round.
    pub bytes: u64,
    /// Damages found.
    pub found: u64,
    /// Of those, repaired.
    pub repaired: u64,
    /// Of those, overwritten or removed before they were repaired.
    pub gone: u64,
    /// Of those found, met by reads.
    pub by_reads: u64,
    /// What is known and not repaired.
    pub open: Vec<OpenDamage>,
}

impl ScrubState {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(96 + self.open.len() * 16);
        let mut w = Writer::new(&mut body);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.running, RUNNING)
            | flag(self.paused, PAUSED)
            | flag(self.at_once, AT_ONCE)
            | flag(self.next.is_some(), IN_CHUNKS);
        let (id, unit) = self.next.unwrap_or_default();
        w.u8(flags).u8(0).u16(id.machine).u32(id.log_id).u32(id.chunk).u32(unit);
        w.u64(self.begun_ms).u64(self.finished_ms).u64(self.bytes);
        w.u64(self.found).u64(self.repaired).u64(self.gone).u64(self.by_reads);
        let open = &self.open[..self.open.len().min(SCRUB_OPEN_MAX)];
        w.u32(u32::try_from(open.len()).unwrap_or(0)).u32(0);
        for damage in open {
            let (kind, id, unit) = match *damage {
                OpenDamage::Object(home) => (OBJECT, home.chunkfile(), home.offset_units),
                OpenDamage::Chunkfile(id) => (CHUNKFILE, id, 0),
                OpenDamage::Known(object) => {
                    w.u8(BY_ID).u8(0).put(&object.encode());
                    continue;
                }
            };
            w.u8(kind).u8(0).u16(id.machine).u32(id.log_id).u32(id.chunk).u32(unit);
        }
        KIND.seal(&body)
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`FormatError`]: not ours, newer, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        KIND.decode(bytes, Self::decode_body)
    }

    fn decode_body(body: &[u8]) -> Result<Option<Self>, Short> {
        let mut r = Reader::new(body);
        let (flags, _) = (r.u8()?, r.u8()?);
        let id = ChunkfileId { machine: r.u16()?, log_id: r.u32()?, chunk: r.u32()? };
        let unit = r.u32()?;
        let mut state = Self {
            running: flags & RUNNING != 0,
            paused: flags & PAUSED != 0,
            at_once: flags & AT_ONCE != 0,
            next: (flags & IN_CHUNKS != 0).then_some((id, unit)),
            begun_ms: r.u64()?,
            finished_ms: r.u64()?,
            bytes: r.u64()?,
            found: r.u64()?,
            repaired: r.u64()?,
            gone: r.u64()?,
            by_reads: r.u64()?,
            open: Vec::new(),
        };
        let (open, _) = (r.u32()?, r.u32()?);
        if open as usize > SCRUB_OPEN_MAX {
            return Ok(None);
        }
        for _ in 0..open {
            let (kind, _) = (r.u8()?, r.u8()?);
            if kind == BY_ID {
                let bytes: [u8; OBJECT_ID_LEN] = r.array()?;
                let Ok(object) = ObjectId::decode(&bytes) else { return Ok(None) };
                state.open.push(OpenDamage::Known(object));
                continue;
            }
            let id = ChunkfileId { machine: r.u16()?, log_id: r.u32()?, chunk: r.u32()? };
            let offset_units = r.u32()?;
            let ChunkfileId { machine, log_id, chunk } = id;
            state.open.push(match kind {
                OBJECT => OpenDamage::Object(Address { machine, log_id, chunk, offset_units }),
                CHUNKFILE => OpenDamage::Chunkfile(id),
                _ => return Ok(None),
            });
        }
        Ok(Some(state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::file_id::ObjectKind;

    fn object() -> ObjectId {
        ObjectId {
            kind: ObjectKind::Chunk,
            machine: 3,
            mount: 0,
            log_id: 0xabcd,
            sequence: 8,
            created_s: 9,
            chunk: 7,
            offset_units: 64,
            capacity_units: 3,
            cookie: 10,
        }
    }

    fn state() -> ScrubState {
        let id = ChunkfileId { machine: 3, log_id: 0xabcd, chunk: 7 };
        let home = Address { machine: 3, log_id: 0xabcd, chunk: 7, offset_units: 99 };
        ScrubState {
            running: true,
            paused: false,
            at_once: true,
            next: Some((id, 1234)),
            begun_ms: 5,
            finished_ms: 4,
            bytes: 1 << 40,
            found: 9,
            repaired: 6,
            gone: 1,
            by_reads: 2,
            open: vec![
                OpenDamage::Object(home),
                OpenDamage::Chunkfile(id),
                OpenDamage::Known(object()),
            ],
        }
    }

    #[test]
    fn what_was_written_is_read_and_no_changed_bit_passes() {
        for state in [ScrubState::default(), state()] {
            let bytes = state.encode();
            assert_eq!(ScrubState::decode(&bytes), Ok(state));
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(ScrubState::decode(&bad).is_err(), "bit {bit}");
            }
            for cut in 0..bytes.len() {
                assert!(ScrubState::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn the_drawing_above_is_true() {
        let bytes = state().encode();
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(&bytes[..4], b"FoSc");
        assert_eq!(bytes[16], RUNNING | AT_ONCE | IN_CHUNKS);
        assert_eq!((u64_at(32), u64_at(40), u64_at(48), u64_at(56)), (5, 4, 1 << 40, 9));
        assert_eq!(u64_at(88), 3);
        assert_eq!((bytes[96], bytes[112], bytes[128]), (OBJECT, CHUNKFILE, BY_ID));
        assert_eq!((&bytes[130..175], bytes.len()), (&object().encode()[..], 175));
    }
}
