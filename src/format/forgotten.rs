//! Members that were removed for good: `folio.forgotten`, and the head of the log record that spreads it (design
//! section 6, Members).
//!
//! ```text
//! forgotten: machine u16, log ids u16, 0 u32
//!   8  instance uuid 16
//!  24  where it is logged: machine u16, 0 u16, log id u32, sequence u64
//!  40  log ids, u32 each: every life of the member's mount that whoever forgot it knew of
//!
//! file: magic u32 "FoFg", major u8, minor u8, 0 u16, length u32, CRC32C u32; count u16, 0 u16; the forgotten
//! ```
//!
//! Invariants: entries are only ever added; the file is replaced as a whole and durable before anything is refused, or
//! anybody ceases to be a member, for what is in it.

use super::bytes::{Reader, Short, Writer};
use super::envelope::{FormatError, Kind};
use super::ids::{LogId, MachineId, Position};
use super::members::{count, put_log_ids, take_log_ids};

/// Longest file that is read, in bytes.
pub const FORGOTTEN_LEN_MAX: usize = 1 << 20;

const KIND: Kind = Kind { magic: *b"FoFg", what: "list of forgotten members" };

/// A member that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Its machine id.
    pub machine: MachineId,
    /// Its storage.
    pub instance: [u8; 16],
    /// The lives of its mount; whoever comes with another one came back blank.
    pub log_ids: Vec<LogId>,
    /// Where it is logged: who covers this knows of it.
    pub at: Position,
}

impl Forgotten {
    /// Whether this life of that machine is shut out.
    #[must_use]
    pub fn refuses(&self, machine: MachineId, log_id: LogId) -> bool {
        self.machine == machine && self.log_ids.contains(&log_id)
    }

    /// Head of the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.put(&mut Writer::new(out));
    }

    fn put(&self, w: &mut Writer<'_>) {
        w.u16(self.machine).u16(count(self.log_ids.len())).u32(0).put(&self.instance);
        w.u16(self.at.machine).u16(0).u32(self.at.log_id).u64(self.at.sequence);
        put_log_ids(w, &self.log_ids);
    }

    /// Reads a head of a record.
    ///
    /// # Errors
    /// [`Short`]: cut off.
    pub fn decode(head: &[u8]) -> Result<Self, Short> {
        Self::take(&mut Reader::new(head))
    }

    fn take(r: &mut Reader<'_>) -> Result<Self, Short> {
        let (machine, log_ids, _) = (r.u16()?, r.u16()?, r.u32()?);
        let instance = r.array()?;
        let (at_machine, _, at_log, sequence) = (r.u16()?, r.u16()?, r.u32()?, r.u64()?);
        let at = Position { machine: at_machine, log_id: at_log, sequence };
        Ok(Self { machine, instance, at, log_ids: take_log_ids(r, log_ids)? })
    }
}

/// The file's bytes.
#[must_use]
pub fn encode_file(all: &[Forgotten]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut w = Writer::new(&mut body);
    w.u16(count(all.len())).u16(0);
    for forgotten in all.iter().take(usize::from(count(all.len()))) {
        forgotten.put(&mut w);
    }
    KIND.seal(&body)
}

/// Reads the file.
///
/// # Errors
/// [`FormatError`]: not ours, newer, or damaged.
pub fn decode_file(bytes: &[u8]) -> Result<Vec<Forgotten>, FormatError> {
    let mut r = Reader::new(KIND.open(bytes)?);
    let read = |r: &mut Reader<'_>| {
        let (entries, _) = (r.u16()?, r.u16()?);
        (0..entries).map(|_| Forgotten::take(r)).collect::<Result<Vec<_>, Short>>()
    };
    read(&mut r).map_err(|Short| FormatError::Damaged(KIND.what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Forgotten> {
        let at = Position { machine: 1, log_id: 7, sequence: 9 };
        let one = Forgotten { machine: 3, instance: [4; 16], log_ids: vec![5, 6], at };
        vec![one.clone(), Forgotten { machine: 8, log_ids: Vec::new(), ..one }]
    }

    #[test]
    fn a_list_comes_back_and_no_flipped_bit_passes() {
        let bytes = encode_file(&all());
        assert_eq!(decode_file(&bytes), Ok(all()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(decode_file(&bad), Ok(all()), "bit {bit}");
        }
        let mut head = Vec::new();
        all()[0].encode(&mut head);
        assert_eq!(Forgotten::decode(&head).as_ref(), Ok(&all()[0]));
        assert!(Forgotten::decode(&head[..head.len() - 1]).is_err());
    }

    #[test]
    fn only_a_life_that_is_named_is_shut_out() {
        let one = &all()[0];
        assert!(one.refuses(3, 5) && one.refuses(3, 6));
        assert!(!one.refuses(3, 7) && !one.refuses(2, 5));
    }
}
