//! What the records of the logs say, held against the slots (docs/FORMAT.md, "Records").
//!
//! A record that the checkpoint covers is in its slot, or a later version or tenant is. What it does not cover the next
//! start applies, so its places are left alone.

use super::bytes::{Address, Bad, ChunkId, Position, Take};
use super::finding::Kind;
use super::logs::Pass;
use super::slot::{NotASlot, Role, Slot, State, Tag};
use super::{LIST_MAX, Run, names};

/// A record of a body.
pub struct Record<'a> {
    pub kind: u8,
    pub sequence: u64,
    pub head: &'a [u8],
    pub payload: &'a [u8],
}

/// Which record, and where it stands.
pub struct At<'a> {
    pub machine: u16,
    pub log_id: u32,
    pub sequence: u64,
    pub path: &'a str,
    pub offset: u64,
}

/// A slot that must be there, because a record says so.
#[derive(Clone, Debug)]
pub struct Expected {
    pub address: Address,
    pub creation: Position,
    pub tag: Tag,
    /// The record, for people.
    pub record: String,
}

/// An edit, as far as it matters here.
struct Edit<'a> {
    home: Address,
    home_header: &'a [u8],
    target: Option<(Address, &'a [u8])>,
    freed: Vec<Address>,
}

fn edit(head: &[u8]) -> Result<Edit<'_>, Bad> {
    let mut take = Take(head);
    let (_lowest, _issued, _replaced) = (take.u64()?, take.u64()?, take.u64()?);
    let (state, _flags, places, singles) = (take.u8()?, take.u8()?, take.u8()?, take.u8()?);
    if state > 3 || singles > 1 {
        return Err(Bad);
    }
    let mut freed = Vec::new();
    for _ in 0..places {
        freed.push(Address::take(&mut take)?);
        take.u32()?;
    }
    if singles == 1 {
        Position::take_packed(&mut take)?;
    }
    let home = Address::take(&mut take)?;
    let (home_len, target_len) = (take.u16()?, take.u16()?);
    let target = if target_len > 0 { Some(Address::take(&mut take)?) } else { None };
    let home_header = take.bytes(home_len.into())?;
    let target = match target {
        Some(address) => Some((address, take.bytes(target_len.into())?)),
        None => None,
    };
    Ok(Edit { home, home_header, target, freed })
}

impl Run<'_> {
    /// One record of a log.
    pub fn record(&mut self, at: &At<'_>, record: &Record<'_>, pass: Pass) {
        let covered = at.sequence <= self.applied(at.machine, at.log_id);
        if pass == Pass::Check {
            self.summary.records += 1;
            if !covered {
                self.behind.records += 1;
            }
        }
        let understood = match record.kind {
            1 | 129 => edit(record.head).map(|edit| self.edit(at, record, &edit, covered, pass)),
            2 => chunkfile(record.head).map(|id| {
                if !covered {
                    self.behind.chunkfiles.insert(id);
                }
            }),
            3 => archived(record.head).map(|key| {
                if pass == Pass::Explain && self.short_conflicts.remove(&key) {
                    let path = names::conflict(&key.0, key.1);
                    let what = "it is cut short".to_owned();
                    self.found(Kind::ConflictDamaged, &path, None, what);
                }
            }),
            5 | 6 => Take(record.head).bytes(40).map(|_| ()),
            4 => (record.head.len() >= 60).then_some(()).ok_or(Bad),
            128 => Take(record.head).bytes(16).map(|_| ()),
            130 => Take(record.head).u32().map(|_| ()),
            // A newer minor's: passed over.
            _ => Ok(()),
        };
        if understood.is_err() {
            let what = format!("record {:x} of kind {} is cut short", at.sequence, record.kind);
            self.bad_record(at.path, at.offset, what, pass);
        }
    }

    fn edit(
        &mut self,
        at: &At<'_>,
        record: &Record<'_>,
        edit: &Edit<'_>,
        covered: bool,
        pass: Pass,
    ) {
        if !covered {
            self.behind(edit);
        }
        let Some(chunk) = self.chunks.get(&edit.home.chunk).copied() else { return };
        let home = match Slot::decode(edit.home_header, &chunk.secret) {
            Ok(home) if home.address == edit.home => home,
            Ok(_) | Err(_) => {
                let what = format!("record {:x} carries a header of another place", at.sequence);
                return self.bad_record(at.path, at.offset, what, pass);
            }
        };
        let here = (home.tag.machine, home.tag.log_id, home.tag.sequence);
        if record.kind == 1 && here != (at.machine, at.log_id, at.sequence) {
            let what = format!("record {:x} carries the edit of another record", at.sequence);
            return self.bad_record(at.path, at.offset, what, pass);
        }
        if let Some((address, header)) = edit.target
            && let Some(chunk) = self.chunks.get(&address.chunk)
            && Slot::decode(header, &chunk.secret).map(|slot| slot.address) != Ok(address)
        {
            let what = format!("record {:x} carries a target of another place", at.sequence);
            self.bad_record(at.path, at.offset, what, pass);
        }
        match pass {
            Pass::Check if covered && record.kind == 1 => {
                self.is_in_its_slot(at, &home, &chunk.secret)
            }
            Pass::Explain if home.state == State::Purged => {
                let gone = (home.address, home.creation);
                self.expected.retain(|e| (e.address, e.creation) != gone);
            }
            Pass::Check | Pass::Explain => {}
        }
        if pass == Pass::Check
            && record.kind == 1
            && home.state == State::Live
            && !record.payload.is_empty()
        {
            let right = super::bytes::crc32c(record.payload) == home.payload_crc;
            if !right || record.payload.len() as u64 != home.length {
                let what = format!(
                    "record {:x} carries another content than its header says",
                    at.sequence
                );
                self.bad_record(at.path, at.offset, what, pass);
            }
        }
    }

    fn behind(&mut self, edit: &Edit<'_>) {
        if self.behind.places.len() >= LIST_MAX {
            self.behind.too_many = true;
            return;
        }
        let target = edit.target.map(|(address, _)| address);
        for address in [edit.home].into_iter().chain(target).chain(edit.freed.iter().copied()) {
            self.behind.places.insert((address.chunk, address.unit));
        }
    }

    /// A covered record of a log that is still written to: the slot holds it, or what came after it.
    fn is_in_its_slot(&mut self, at: &At<'_>, home: &Slot, secret: &[u8; 16]) {
        if self.label.current_log(at.machine) != Some(at.log_id) || home.state == State::Purged {
            return;
        }
        let path = names::chunk(home.address.chunk);
        let bytes = self.read(&path, home.address.offset(), super::slot::HEADER_MAX);
        let record =
            format!("record {:x} of machine {}'s log {:08x}", at.sequence, at.machine, at.log_id);
        match Slot::decode(&bytes, secret) {
            Ok(there) if there.address != home.address => {}
            Ok(there) if there.is_same_object(home) && there.role == Role::Home => {
                if there.tag < home.tag {
                    let what = format!("{} is older here than {record}", home.object());
                    self.found(Kind::SlotOlder, &path, Some(home.address.offset()), what);
                }
            }
            Ok(there) => {
                let before = there.creation.sequence < home.creation.sequence;
                let same_log = there.creation.log_id == home.creation.log_id;
                if there.role == Role::Home && same_log && before {
                    let what =
                        format!("an older object stands where {record} put {}", home.object());
                    self.found(Kind::SlotOlder, &path, Some(home.address.offset()), what);
                }
            }
            Err(NotASlot::Newer(_)) => {}
            Err(NotASlot::Blank | NotASlot::Broken) => {
                // Whoever purges it logs that in the log of its owner: only there the record of the purge is kept as
                // long as this one.
                let owner = (home.creation.machine, home.creation.log_id);
                if owner == (at.machine, at.log_id) && self.expected.len() < LIST_MAX {
                    let (address, creation, tag) = (home.address, home.creation, home.tag);
                    self.expected.push(Expected { address, creation, tag, record });
                }
            }
        }
    }
}

fn chunkfile(head: &[u8]) -> Result<ChunkId, Bad> {
    let mut take = Take(head);
    let id = ChunkId { machine: take.u16()?, log_id: take.u32()?, number: take.u32()? };
    take.bytes(4 + 8 + 16)?;
    Ok(id)
}

fn archived(head: &[u8]) -> Result<([u8; 45], Position), Bad> {
    let object = head.first_chunk::<45>().ok_or(Bad)?;
    Ok((*object, Position::take(&mut Take(head.get(64..).ok_or(Bad)?))?))
}
