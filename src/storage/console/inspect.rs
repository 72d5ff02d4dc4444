//! `find ID`, `route ID` and `chunk MOUNT NUMBER`: what lies where, for an operator. Reads run in the mount's pool.

use super::Sight;
use crate::actors::admin_console::{CommandResult, ConsoleAnswer, Value};
use crate::actors::shared_mount::SharedMount;
use crate::actors::shelf::Shelf;
use crate::cluster::opver::Opver;
use crate::format::file_id::{FileId, ObjectId};
use crate::format::ids::{Address, ChunkfileId};
use crate::format::paths;
use crate::format::slot::{Body, SlotHeader, State};
use crate::store::read::ReadError;
use crate::store::slot_copy::FIRST_READ;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Slots that one answer of `chunk` shows.
const PAGE: usize = 50;
/// Bytes that are looked through for one page.
const PAGE_BYTES: u64 = 64 << 20;

impl Sight {
    /// `find ID`: the home header of an object on this machine, and where its content lies.
    pub(super) async fn find(&self, words: &[String]) -> CommandResult {
        let [id] = words else { return Err("expected one id: find ID".to_owned()) };
        let id = self.named(id)?;
        let mount = self.room.placement.mount(id.object.mount).map_err(|p| p.message)?;
        let object = id.object;
        let found = in_pool(mount, move |shelf| shelf.head(&object)).await?;
        let answer = ConsoleAnswer::new()
            .fact("id", id.to_string())
            .fact("owner", object.machine)
            .fact("mount", object.mount)
            .fact("home", place(object.home().address));
        let header = match found {
            Ok(header) => header,
            // No such chunkfile is no header either; reads and the scrub ask the mount whether it was lost.
            Err(ReadError::NotFound { .. } | ReadError::Unsettled(_)) => {
                return Ok(answer.fact("state", "there is no header of this object here"));
            }
            Err(error) => return Err(error.to_string()),
        };
        Ok(answer
            .fact("state", state(&header))
            .fact("opver", Opver(header.version.tag).to_string())
            .fact("edited_by", header.version.tag.machine)
            .fact("length", Value::Bytes(header.length))
            .fact("capacity", Value::Bytes(header.place().capacity()))
            .fact("content", content(&header))
            .fact("crc32c", format!("{:08x}", header.payload_crc))
            .table("vector", &["machine", "log_id", "sequence"], vector(&header)))
    }

    /// `route ID`: who would be asked for an object, as the mount's label remembers its members. No tracker is asked: that
    /// is what counts with all of them down.
    pub(super) fn route(&self, words: &[String]) -> CommandResult {
        let [id] = words else { return Err("expected one id: route ID".to_owned()) };
        let id = self.named(id)?;
        let mount = self.room.placement.mount(id.object.mount).map_err(|p| p.message)?;
        let owner = mount.mirror.owner(id.object.machine);
        let members = Arc::clone(&mount.mirror.members().borrow());
        let mut members: Vec<_> = members.iter().collect();
        members.sort_by_key(|member| (member.machine != owner, member.machine));
        let rows = members.into_iter().enumerate().map(|(order, member)| {
            let this = member.machine == self.settings.machine_id;
            let peer = self.room.peers.get(member.machine);
            vec![
                (order + 1).into(),
                member.machine.into(),
                if member.machine == owner { "owner" } else { "mirror" }.into(),
                member.address.as_str().into(),
                this.into(),
                (this || peer.is_some_and(|peer| peer.is_connected())).into(),
            ]
        });
        Ok(ConsoleAnswer::new()
            .fact("group", id.group)
            .fact("syncgroup", id.syncgroup)
            .fact("owner", owner)
            .fact("mount", id.object.mount)
            .table(
                "targets",
                &["order", "machine", "role", "address", "this", "connected"],
                rows.collect(),
            ))
    }

    /// An object of ours: by its id, or by the part of it without names, as the log has it.
    fn named(&self, text: &str) -> Result<FileId, String> {
        let (group, syncgroup) = (&self.settings.group, &self.settings.syncgroup);
        if let Some(object) = ObjectId::from_text(text) {
            return FileId::new(group, syncgroup, object, None).map_err(|e| e.to_string());
        }
        let id: FileId = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
        if (&id.group, &id.syncgroup) != (group, syncgroup) {
            let (of, name) = (&id.group, &id.syncgroup);
            return Err(format!("{id} is of {of}/{name}, this is {group}/{syncgroup}"));
        }
        Ok(id)
    }

    /// `chunk MOUNT NUMBER [FROM [MACHINE LOG_ID]]`: the homes of a chunkfile, a page at a time.
    pub(super) async fn chunk(&self, words: &[String]) -> CommandResult {
        let usage = || {
            "expected chunk MOUNT NUMBER [FROM [MACHINE LOG_ID]], or chunk MOUNT MACHINE/LOG_ID/NUMBER [FROM]"
                .to_owned()
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (index, number, rest) = match words.as_slice() {
            [index, number, rest @ ..] if rest.len() <= 3 && rest.len() != 2 => {
                (index, number, rest)
            }
            _ => return Err(usage()),
        };
        let index = index.parse().map_err(|_| usage())?;
        let named = number.parse::<ChunkfileId>().ok();
        let chunk = named.map_or_else(|| number.parse(), |id| Ok(id.chunk)).map_err(|_| usage())?;
        let from = rest.first().map_or(Ok(0), |from| from.parse()).map_err(|_| usage())?;
        let mount = self.room.placement.mount(index).map_err(|p| p.message)?;
        let (machine, log_id) = match (rest, named) {
            ([_, _, _], Some(_)) => return Err(usage()),
            ([_, machine, log_id], None) => (
                machine.parse().map_err(|_| usage())?,
                u32::from_str_radix(log_id, 16).map_err(|_| usage())?,
            ),
            (_, Some(id)) => (id.machine, id.log_id),
            (_, None) => {
                (self.settings.machine_id, self.own_log(index).ok_or("the mount has no log yet")?)
            }
        };
        let id = ChunkfileId { machine, log_id, chunk };
        let (rows, next) = in_pool(mount, move |shelf| page(shelf, id, from)).await??;
        let answer = ConsoleAnswer::new().fact("chunkfile", paths::chunk(id)).table(
            "slots",
            &["unit", "state", "length", "capacity", "edited_by", "opver", "content"],
            rows,
        );
        Ok(match next {
            Some(next) => {
                answer.fact("next", format!("chunk {index} {chunk} {next} {machine} {log_id:08x}"))
            }
            None => answer,
        })
    }

    fn own_log(&self, index: u8) -> Option<u32> {
        self.memory.with(|memory| {
            let mount = memory.mounts.iter().find(|mount| mount.index == index)?;
            mount.log_ids.last().copied()
        })
    }
}

/// Runs a read in the mount's pool.
async fn in_pool<T: Send + 'static>(
    mount: &Arc<SharedMount>,
    read: impl FnOnce(&dyn Shelf) -> T + Send + 'static,
) -> Result<T, String> {
    let shelf = Arc::clone(&mount.open().map_err(|problem| problem.message)?.shelf);
    let (tell, heard) = oneshot::channel();
    mount.pool.run(Box::new(move || {
        // An operator who is gone does not wait for it.
        drop(tell.send(read(&*shelf)));
    }));
    heard.await.map_err(|_| "the mount is closing".to_owned())
}

type Rows = (Vec<Vec<Value>>, Option<u32>);

fn page(shelf: &dyn Shelf, id: ChunkfileId, from: u32) -> Result<Rows, String> {
    let said = |error: ReadError| error.to_string();
    let Some(created) = shelf.chunkfile_created(id).map_err(said)? else {
        return Err(format!("there is no {}", paths::chunk(id)));
    };
    let page = shelf.marks(id, from, PAGE, PAGE_BYTES).map_err(said)?;
    let mut rows = Vec::new();
    let damaged = page.damaged.iter().map(|unit| (*unit, true));
    let mut units: Vec<(u32, bool)> = page.marks.iter().map(|(unit, _)| (*unit, false)).collect();
    units.extend(damaged);
    units.sort_unstable();
    for (unit, is_damaged) in units {
        let address =
            Address { machine: id.machine, log_id: id.log_id, chunk: id.chunk, offset_units: unit };
        let header = match shelf.copy_slot(address, FIRST_READ) {
            _ if is_damaged => None,
            Ok(copy) => SlotHeader::decode(&copy.home.header, &created.secret).ok(),
            Err(_) => None,
        };
        rows.push(match header {
            Some(header) => row(unit, &header),
            None => vec![unit.into(), "damaged, or being changed".into()],
        });
        let columns = 7;
        if let Some(row) = rows.last_mut() {
            row.resize(columns, Value::Nothing);
        }
    }
    Ok((rows, page.next))
}

fn row(unit: u32, header: &SlotHeader) -> Vec<Value> {
    vec![
        unit.into(),
        state(header).into(),
        Value::Bytes(header.length),
        Value::Bytes(header.place().capacity()),
        header.version.tag.machine.into(),
        Opver(header.version.tag).to_string().into(),
        content(header).into(),
    ]
}

const fn state(header: &SlotHeader) -> &'static str {
    match header.state {
        State::Live => "live",
        State::Deleted => "deleted",
        State::Purged => "purged",
    }
}

fn content(header: &SlotHeader) -> String {
    match header.body {
        Body::Inline => "behind its header".to_owned(),
        Body::Slot(address) => format!("moved to {}", place(address)),
        Body::Single(content) => paths::single(content),
        Body::None => "none".to_owned(),
    }
}

fn place(address: Address) -> String {
    format!("{} at byte {}", paths::chunk(address.chunkfile()), address.offset())
}

fn vector(header: &SlotHeader) -> Vec<Vec<Value>> {
    let entry = |p: &crate::format::ids::Position| {
        vec![
            p.machine.into(),
            format!("{:08x}", p.log_id).into(),
            format!("{:x}", p.sequence).into(),
        ]
    };
    header.version.vector.iter().map(entry).collect()
}
