//! A page of live ids, scanned on pool threads.
//!
//! The cursor that travels is opaque to clients: mount u8, then, unless the mount is still to be begun, machine u16, log
//! id u32, chunk u32, unit u32, little endian.

use super::budget::Permit;
use super::outbox::{Out, Outbox, RequestTag};
use super::placement::Placement;
use super::problems;
use super::session::Problem;
use super::shared_mount::SharedMount;
use crate::format::bytes::{Reader, Short, Writer};
use crate::format::ids::{ChunkfileId, MachineId, MountIndex};
use crate::messages::error::ErrorCode;
use crate::messages::frame::{Meta, encode};
use crate::messages::heads::{IdBytes, LIST_PAGE_MAX, List, ListAnswer, ListItem};
use crate::store::list::{Cursor, Page};
use bytes::{Bytes, BytesMut};
use serde_bytes::ByteBuf;
use std::sync::Arc;

/// One page to be made.
pub struct ListJob {
    /// The mount where it goes on.
    mount: Arc<SharedMount>,
    at: Option<Cursor>,
    since_ms: u64,
    limit: usize,
    machine: MachineId,
    /// The mount after that.
    next: Option<MountIndex>,
    /// With the first page: mounts that are asked whose objects they hold.
    others: Vec<Arc<SharedMount>>,
}

impl ListJob {
    /// Understands a request; `None`: there is nothing (more) to list.
    ///
    /// # Errors
    /// A cursor that was not ours.
    pub fn new(
        placement: &Placement,
        machine: MachineId,
        list: &List,
    ) -> Result<Option<Self>, Problem> {
        let bad =
            |_: Short| Problem::new(ErrorCode::BadRequest, "this cursor was not given out here");
        // Who is asked for the next page need not be who gave the first.
        let (index, of, at) = match list.cursor.as_slice() {
            [] => (placement.mounts().first().map(|mount| mount.index), None, None),
            cursor => {
                let (index, of, at) = read_cursor(cursor).map_err(bad)?;
                (Some(index), of, at)
            }
        };
        let Some(index) = index else { return Ok(None) };
        let mount = Arc::clone(placement.mount(index)?);
        let next = placement.mounts().iter().map(|mount| mount.index).find(|other| *other > index);
        let limit = list.limit.clamp(1, LIST_PAGE_MAX) as usize;
        let since_ms = list.since_ms.unwrap_or(0);
        let others = match list.cursor.is_empty() {
            true => placement.mounts().to_vec(),
            false => Vec::new(),
        };
        let machine = list.of.or(of).unwrap_or(machine);
        Ok(Some(Self { mount, at, since_ms, limit, machine, next, others }))
    }

    /// Has a pool thread make the page and answer.
    pub fn to_pool(self, to: Arc<Outbox>, tag: RequestTag, permit: Permit) {
        let pool = Arc::clone(&self.mount.pool);
        pool.run(Box::new(move || {
            let out = match self.frame(tag) {
                Ok(frame) => {
                    Out::Answer { tag, frame: frame.freeze(), payload: Bytes::new(), permit }
                }
                Err(problem) => {
                    Out::Refused { tag, problem: Box::new(problem), permit: Some(permit) }
                }
            };
            to.push(out);
        }));
    }

    fn frame(&self, tag: RequestTag) -> Result<BytesMut, Problem> {
        let open = self.mount.open()?;
        let page = open
            .shelf
            .list(self.machine, self.at, self.since_ms, self.limit)
            .map_err(|error| problems::of_read(&error, &self.mount))?;
        let mut machines: Vec<MachineId> = Vec::new();
        for mount in self.others.iter().filter(|mount| mount.is_online()) {
            let found = mount.open()?.shelf.creators();
            machines.extend(found.map_err(|error| problems::of_read(&error, mount))?);
        }
        machines.sort_unstable();
        machines.dedup();
        encode_page(tag, &ListAnswer { machines, ..self.answer(page) })
    }

    fn answer(&self, page: Page) -> ListAnswer {
        let next = match (page.next, self.next) {
            (Some(cursor), _) => Some(write_cursor(self.mount.index, self.machine, Some(cursor))),
            (None, Some(index)) => Some(write_cursor(index, self.machine, None)),
            (None, None) => None,
        };
        let item = |listed: crate::store::list::Listed| ListItem {
            id: IdBytes::new(listed.id.encode()),
            length: listed.length,
            opver: listed.tag,
            modified_ms: listed.modified_ms,
        };
        ListAnswer { items: page.items.into_iter().map(item).collect(), next, machines: Vec::new() }
    }
}

/// The frame of a page.
///
/// # Errors
/// It does not fit (it always does: a page is bounded).
pub fn encode_page(tag: RequestTag, answer: &ListAnswer) -> Result<BytesMut, Problem> {
    let mut frame = BytesMut::new();
    encode(&mut frame, Meta::answer(tag.opcode, tag.id), answer, b"", 0)
        .map_err(|error| Problem::new(ErrorCode::Failed, error.to_string()))?;
    Ok(frame)
}

/// Mount, machine whose objects they are, and where it goes on: the beginning, or a place.
fn write_cursor(mount: MountIndex, machine: MachineId, at: Option<Cursor>) -> ByteBuf {
    let mut out = Vec::with_capacity(15);
    let mut w = Writer::new(&mut out);
    w.u8(mount).u16(machine);
    if let Some(Cursor { chunkfile: c, offset_units }) = at {
        w.u32(c.log_id).u32(c.chunk).u32(offset_units);
    }
    ByteBuf::from(out)
}

/// The machine is absent in what an older storage gave out at the beginning of a mount.
type Place = (MountIndex, Option<MachineId>, Option<Cursor>);

fn read_cursor(bytes: &[u8]) -> Result<Place, Short> {
    let mut r = Reader::new(bytes);
    let mount = r.u8()?;
    if r.is_empty() {
        return Ok((mount, None, None));
    }
    let machine = r.u16()?;
    if r.is_empty() {
        return Ok((mount, Some(machine), None));
    }
    let chunkfile = ChunkfileId { machine, log_id: r.u32()?, chunk: r.u32()? };
    let cursor = Cursor { chunkfile, offset_units: r.u32()? };
    if r.is_empty() { Ok((mount, Some(machine), Some(cursor))) } else { Err(Short) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_nonsense_is_refused() {
        let chunkfile = ChunkfileId { machine: 1, log_id: 2, chunk: 3 };
        for at in [None, Some(Cursor { chunkfile, offset_units: 4 })] {
            assert_eq!(read_cursor(&write_cursor(9, 1, at)), Ok((9, Some(1), at)));
        }
        assert_eq!(read_cursor(&[9]), Ok((9, None, None)), "of an older storage");
        let whole = write_cursor(9, 1, Some(Cursor { chunkfile, offset_units: 4 }));
        for cut in (2..whole.len()).filter(|cut| *cut != 3) {
            assert!(read_cursor(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read_cursor(&[&whole[..], b"x"].concat()).is_err());
    }
}
