//! New objects of a batch that lie side by side in a chunkfile are written with one call: a call for each costs more
//! than its bytes.
//!
//! ```text
//! place 1                      place 2                      place 3
//! | header payload | reserve | | header payload | reserve | | header payload |
//! '------------------------- one pwritev, reserves as zeros -----------------'
//! ```
//!
//! Invariants: only slots that nobody can know of yet are gathered, so no reader can meet them half written, and no order
//! among them matters; zeros go only to the reserve of a place that is written in the same call; whoever gathers
//! writes all runs before anything else is applied.

use super::chunks::Chunks;
use super::core::Core;
use super::disk::Disk;
use super::error::StoreResult;
use super::mount::{Mount, StagedEdit};
use super::options::Planted;
use crate::format::ids::{ChunkfileId, Place};
use crate::format::record::{Edit, Replaced};
use smallvec::SmallVec;

/// Reserve that is written as zeros to keep a run going, bytes: beyond it another call is cheaper.
const GAP_MAX: usize = 4096;
static ZEROS: [u8; GAP_MAX] = [0; GAP_MAX];

impl<D: Disk> Mount<D> {
    /// Applies the batch, which is durable in the log.
    pub(super) fn apply_staged(&mut self) -> StoreResult<()> {
        let mut runs = Runs::default();
        for staged in &self.staged {
            if fills_a_new_slot(&staged.edit) {
                self.core.apply_new(&mut runs, staged)?;
            } else {
                self.core.write_runs(&mut runs)?;
                let StagedEdit { edit, home, payload, sequence } = staged;
                self.core.apply(edit, home, payload, *sequence)?;
            }
        }
        self.core.write_runs(&mut runs)
    }
}

impl<D: Disk> Core<D> {
    fn apply_new<'a>(&mut self, runs: &mut Runs<'a>, staged: &'a StagedEdit) -> StoreResult<()> {
        let StagedEdit { edit, home, payload, sequence } = staged;
        let short_is_fine = self.options.planted(Planted::IgnoreShortWrite);
        runs.add(&mut self.chunks, home.place(), &edit.home.header, payload, short_is_fine)?;
        self.account(edit, home, *sequence);
        Ok(())
    }

    fn write_runs(&mut self, runs: &mut Runs<'_>) -> StoreResult<()> {
        runs.write(&mut self.chunks, self.options.planted(Planted::IgnoreShortWrite))
    }
}

/// Whether an edit does nothing but fill one slot that nobody knows of yet.
fn fills_a_new_slot(edit: &Edit) -> bool {
    edit.replaced == Replaced::Nothing
        && edit.target.is_none()
        && !edit.rename_single
        && edit.freed.is_empty()
        && edit.freed_single.is_none()
}

struct Run<'a> {
    chunkfile: ChunkfileId,
    offset: u64,
    /// End of what is gathered.
    end: u64,
    /// End of the last place.
    place_end: u64,
    parts: Vec<&'a [u8]>,
}

/// What is gathered: one run for each chunkfile.
#[derive(Default)]
struct Runs<'a> {
    open: SmallVec<[Run<'a>; 2]>,
}

impl<'a> Runs<'a> {
    /// Adds a slot: its place, header and payload. Writes the run of its chunkfile first if it does not continue it.
    fn add<D: Disk>(
        &mut self,
        chunks: &mut Chunks<D>,
        place: Place,
        header: &'a [u8],
        payload: &'a [u8],
        short_is_fine: bool,
    ) -> StoreResult<()> {
        let (chunkfile, offset) = (place.address.chunkfile(), place.address.offset());
        let len = (header.len() + payload.len()) as u64;
        let (end, place_end) = (offset + len, offset + place.capacity());
        let known = self.open.iter().position(|run| run.chunkfile == chunkfile);
        if let Some(index) = known {
            let run = &mut self.open[index];
            if let Some(gap) = run.gap_before(offset) {
                run.parts.extend([gap, header, payload]);
                (run.end, run.place_end) = (end, place_end);
                return Ok(());
            }
            self.open.swap_remove(index).write(chunks, short_is_fine)?;
        }
        self.open.push(Run { chunkfile, offset, end, place_end, parts: vec![header, payload] });
        Ok(())
    }

    /// Writes everything.
    fn write<D: Disk>(&mut self, chunks: &mut Chunks<D>, short_is_fine: bool) -> StoreResult<()> {
        self.open.drain(..).try_for_each(|run| run.write(chunks, short_is_fine))
    }
}

impl<'a> Run<'a> {
    /// The zeros between the run and a slot that begins where its last place ends.
    fn gap_before(&self, offset: u64) -> Option<&'a [u8]> {
        let gap = usize::try_from(offset.checked_sub(self.end)?).ok()?;
        (offset == self.place_end).then(|| ZEROS.get(..gap)).flatten()
    }

    fn write<D: Disk>(self, chunks: &mut Chunks<D>, short_is_fine: bool) -> StoreResult<()> {
        chunks.write(self.chunkfile, self.offset, &self.parts, short_is_fine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ids::Address;
    use crate::format::record::ChunkfileCreated;
    use crate::store::sim_disk::{Op, SimDisk, SimOptions};

    const CHUNKFILE: ChunkfileId = ChunkfileId { machine: 1, log_id: 1, chunk: 0 };

    fn place(offset_units: u32, capacity_units: u32) -> Place {
        let ChunkfileId { machine, log_id, chunk } = CHUNKFILE;
        Place { address: Address { machine, log_id, chunk, offset_units }, capacity_units }
    }

    /// A chunkfile that is full of `0xee`.
    fn chunkfile(number: u32) -> (SimDisk, Chunks<SimDisk>, ChunkfileId) {
        let disk = SimDisk::new(SimOptions::default());
        let mut chunks = Chunks::new(disk.clone(), 0, [7; 16]);
        let id = ChunkfileId { chunk: number, ..CHUNKFILE };
        let created = ChunkfileCreated { id, size_units: 4096, created_ms: 1, secret: [5; 16] };
        chunks.create(&created, true).unwrap();
        chunks.write(id, 64 * 64, &[&[0xee; 64 * 1000]], false).unwrap();
        disk.start_trace();
        (disk, chunks, id)
    }

    fn writes(disk: &SimDisk) -> usize {
        disk.take_trace().iter().filter(|call| call.op == Op::Write).count()
    }

    #[test]
    fn no_neighbour_is_touched_and_side_by_side_is_one_write() {
        let payload = [3; 100];
        let (disk, mut chunks, id) = chunkfile(0);
        let mut runs = Runs::default();
        // Two side by side, one behind a place of somebody else, one behind a reserve too long for zeros.
        for (at, capacity) in [(100, 5), (105, 90), (200, 90), (290, 5)] {
            runs.add(&mut chunks, place(at, capacity), &[1; 128], &payload, false).unwrap();
        }
        assert_eq!(writes(&disk), 2, "what is not continued is written at once");
        runs.write(&mut chunks, false).unwrap();
        assert_eq!(writes(&disk), 1);
        let bytes = chunks.read(id, 0, 64 * 400).unwrap();
        let at = |unit: usize| &bytes[unit * 64..];
        for slot in [100, 105, 200, 290] {
            assert_eq!(at(slot)[..228], [[1; 128].as_slice(), &payload].concat(), "{slot}");
        }
        assert_eq!(at(100)[228..5 * 64], [0; 5 * 64 - 228], "its reserve");
        for (from, to) in [(64, 100), (195, 200), (295, 400)] {
            assert!(bytes[from * 64..to * 64].iter().all(|b| *b == 0xee), "{from}..{to}");
        }
    }

    #[test]
    fn no_run_goes_on_in_another_chunkfile() {
        let marks = [[1; 128], [2; 128]];
        let (disk, mut chunks, id) = chunkfile(0);
        let other = ChunkfileId { chunk: 1, ..CHUNKFILE };
        let created =
            ChunkfileCreated { id: other, size_units: 4096, created_ms: 1, secret: [6; 16] };
        chunks.create(&created, true).unwrap();
        disk.start_trace();
        let mut runs = Runs::default();
        for step in 0..10 {
            for (chunk, mark) in (0..).zip(&marks) {
                let mut place = place(100 + step * 5, 5);
                place.address.chunk = chunk;
                runs.add(&mut chunks, place, mark, &[9], false).unwrap();
            }
        }
        assert_eq!(writes(&disk), 0);
        runs.write(&mut chunks, false).unwrap();
        assert_eq!(writes(&disk), 2);
        for (id, mark) in [id, other].into_iter().zip(marks) {
            for step in 0..10 {
                assert_eq!(chunks.read(id, 64 * (100 + step * 5), 128).unwrap(), mark);
            }
        }
    }
}
