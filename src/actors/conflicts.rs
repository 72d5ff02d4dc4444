//! The conflict archive in an operator's hands: look at it, put a losing version back, give one up (P4).
//!
//! Invariants: a version is given up only by its own name or by a number made from that name, so what was read in an old
//! list never means another version; what is put back is durable before its entry goes; nothing here blocks but on
//! threads of the mount's pool.

use super::binlog::DropArchived;
use super::outbox::{Out, Outbox, RequestTag};
use super::problems;
use super::reply::{Copies, Reply};
use super::session::Problem;
use super::shared_mount::SharedMount;
use super::shelf::Shelf;
use super::storage_room::StorageRoom;
use super::task::{Change, Content, Task, TempGuard, What};
use crate::format::conflict::Conflict;
use crate::format::crc::crc32c;
use crate::format::file_id::ObjectId;
use crate::format::ids::{Tag, Token};
use crate::format::paths::{self, MountFile};
use crate::format::record::Dropped;
use crate::format::slot::State;
use crate::messages::error::ErrorCode;
use crate::messages::opcode::Opcode;
use crate::store::archive::FRONT;
use crate::store::mount::TempSingle;
use crate::store::read::ReadError;
use bytes::Bytes;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::oneshot;

/// Bytes of a large version that are copied at a time.
const PIECE: u64 = 1 << 20;
/// How often a change that must wait a moment is tried, and the pause between.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// A losing version.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Where it is.
    pub mount: Arc<SharedMount>,
    /// What it is.
    pub lost: Conflict,
    /// What stands in its stead.
    pub stands: Stands,
}

/// What an object is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// Live, with this version.
    Live(Tag),
    /// Deleted; undelete may bring it back.
    Deleted(Tag),
    /// Deleted for good.
    Gone,
    /// It cannot be read here.
    Unreadable,
}

impl Kept {
    /// The name of its file: no other version ever has it, on any mirror.
    #[must_use]
    pub fn name(&self) -> String {
        let path = MountFile::Conflict(self.lost.object, self.lost.tag.position()).path();
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// A number made from its name: short enough to be typed, the same on all mirrors and for ever.
    #[must_use]
    pub fn number(&self) -> u32 {
        crc32c(self.name().as_bytes())
    }

    /// The file with its bytes, at which byte they begin, and how many there are.
    #[must_use]
    pub fn bytes_at(&self) -> (String, u64, u64) {
        let length = self.lost.length;
        let below = |path: String| format!("{}/{path}", self.mount.path);
        match self.lost.single {
            Some(content) => (below(paths::conflict_single(content)), 0, length),
            None => (below(format!("{}/{}", paths::CONFLICTS, self.name())), FRONT as u64, length),
        }
    }
}

/// Every losing version of all mounts that serve: oldest edit first, mount by mount.
///
/// # Errors
/// A mount that serves cannot be read.
pub async fn list(room: &StorageRoom) -> Result<Vec<Kept>, Problem> {
    let mut all = Vec::new();
    for mount in room.placement.mounts().iter().filter(|mount| mount.is_online()) {
        let found = in_pool(mount, |shelf| {
            let archived = shelf.archived()?;
            let stands = |lost: &Conflict| stands(shelf, &lost.object);
            Ok(archived.into_iter().map(|lost| (stands(&lost), lost)).collect::<Vec<_>>())
        });
        let found = found.await?.map_err(|error| problems::of_read(&error, mount))?;
        let kept = |(stands, lost)| Kept { mount: Arc::clone(mount), lost, stands };
        all.extend(found.into_iter().map(kept));
    }
    Ok(all)
}

/// Gives a version up, on all mirrors.
///
/// # Errors
/// The mount is out of service; somebody else gave it up before.
pub async fn give_up(kept: &Kept) -> Result<(), Problem> {
    let mount = &kept.mount;
    let Some(binlog) = mount.registry.binlog() else { return Err(mount.out_of_service()) };
    let dropped = Dropped { object: kept.lost.object, edit: kept.lost.tag.position() };
    // An actor that is gone closed its mount.
    match binlog.send(DropArchived(dropped)).await.unwrap_or_else(|_| Err(mount.out_of_service())) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Problem::new(ErrorCode::NotFound, "somebody has dropped it meanwhile")),
        Err(problem) => Err(problem),
    }
}

/// Makes the version the object's content again, as a new edit; when that is durable the entry goes.
///
/// # Errors
/// The object is gone for good; its owner is there, and so has to do it; any that a modify has.
pub async fn restore(room: &StorageRoom, kept: &Kept) -> Result<(Tag, Copies), Problem> {
    may_change(room, kept).await?;
    let object = kept.lost.object;
    let shelf = Arc::clone(&kept.mount.open()?.shelf);
    let now = in_pool(&kept.mount, move |shelf| stands(shelf, &object)).await?;
    match now {
        Stands::Live(_) | Stands::Unreadable => {}
        Stands::Deleted(_) => {
            let undelete = What::Undelete { id: object };
            ask(room, &kept.mount, object, undelete).await?;
        }
        Stands::Gone => {
            return Err(Problem::new(ErrorCode::NotFound, "the object was deleted for good")
                .remedy("`conflicts show` says where the bytes lie: put them as a new object"));
        }
    }
    let lost = kept.lost;
    let mount = Arc::clone(&kept.mount);
    let large = lost.length > room.threshold;
    let content = in_pool(&kept.mount, move |_| content(&mount, &shelf, &lost, large)).await??;
    if let Content::Single(_) = &content {
        announce(&kept.mount, &content).await;
    }
    let modify = What::Modify { id: object, content, if_opver: None };
    let written = ask(room, &kept.mount, object, modify).await?;
    match give_up(kept).await {
        // Somebody else dropped it meanwhile: as it should be.
        Ok(()) => Ok(written),
        Err(problem) if problem.code == ErrorCode::NotFound => Ok(written),
        Err(problem) => Err(Problem {
            message: format!("it was restored, but its entry is still there: {}", problem.message),
            ..problem
        }),
    }
}

/// Waits until an edit may be made here.
async fn may_change(room: &StorageRoom, kept: &Kept) -> Result<(), Problem> {
    room.check_writes()?;
    kept.mount.mirror.check_writes()?;
    let mut tries = TRIES;
    loop {
        match room.may_change(&kept.lost.object, false) {
            Err(problem) if problem.code == ErrorCode::Busy && tries > 0 => tries -= 1,
            Err(problem) if problem.code == ErrorCode::WrongNode => {
                let owner = kept.lost.object.machine;
                let remedy = format!(
                    "`conflicts restore {}` on the console of machine {owner}: its number is the same there",
                    kept.number()
                );
                return Err(problem.remedy(remedy));
            }
            other => return other,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn stands(shelf: &dyn Shelf, object: &ObjectId) -> Stands {
    match shelf.head(object) {
        Ok(home) => match home.state {
            State::Live => Stands::Live(home.version.tag),
            State::Deleted => Stands::Deleted(home.version.tag),
            State::Purged => Stands::Gone,
        },
        Err(ReadError::NotFound { .. }) => Stands::Gone,
        Err(_) => Stands::Unreadable,
    }
}

/// The bytes of a version, ready to be taken by the engine. On a pool thread.
fn content(
    mount: &Arc<SharedMount>,
    shelf: &Arc<dyn Shelf>,
    lost: &Conflict,
    large: bool,
) -> Result<Content, Problem> {
    let of_read = |error: ReadError| problems::of_read(&error, mount);
    let of_disk = |error: std::io::Error| {
        problems::of_read(&ReadError::Io { what: "copy it".to_owned(), error }, mount)
    };
    let gone = || {
        Problem::new(ErrorCode::Damaged, "its bytes are damaged here, or somebody dropped it")
            .remedy("try it on the console of another mirror")
    };
    let (single, whole) = match lost.single {
        Some(content) => (Some(shelf.open_archived(lost, content).map_err(of_read)?), Vec::new()),
        None => (None, shelf.archived_content(lost).map_err(of_read)?.ok_or_else(gone)?),
    };
    if single.is_none() && !large {
        return Ok(Content::Inline { bytes: Bytes::from(whole), crc: lost.payload_crc });
    }
    let mut sink = shelf.create_single(mount.open()?.content_ids.next()).map_err(of_disk)?;
    let (mut at, mut buffer) = (0, Vec::new());
    while at < lost.length {
        let until = (at + PIECE).min(lost.length);
        let written = match &single {
            Some(single) => match single.read(at..until, &mut buffer) {
                Ok(range) => sink.write(&buffer[range]).map_err(of_disk),
                Err(error) => Err(of_read(error)),
            },
            None => {
                let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(whole.len());
                sink.write(&whole[index(at)..index(until)]).map_err(of_disk)
            }
        };
        if let Err(problem) = written {
            sink.abort();
            return Err(problem);
        }
        at = until;
    }
    let done = sink.finish().map_err(of_disk)?;
    let temp = TempSingle { content: done.content, length: done.length, crc: done.crc };
    let guard = TempGuard::new(temp, Arc::clone(shelf));
    if done.crc != lost.payload_crc {
        return Err(gone());
    }
    Ok(Content::Single(guard))
}

/// Has the mirrors fetch a large content before a record names it.
async fn announce(mount: &SharedMount, content: &Content) {
    let crate::store::mount::Body::Single(temp) = content.body() else { return };
    let (tell, hear) = oneshot::channel();
    let then = Box::new(move || tell.send(()).unwrap_or_default());
    mount.mirror.announce(mount.index, temp.content, temp.length, then);
    // Who announces may stop with the daemon; the edit then finds that out.
    hear.await.unwrap_or_default();
}

/// Has the object's chunkfile make a change, and waits for its copies.
async fn ask(
    room: &StorageRoom,
    mount: &SharedMount,
    object: ObjectId,
    what: What,
) -> Result<(Tag, Copies), Problem> {
    let permit = room.budget.take(what.bytes()).ok_or_else(super::connection::busy)?;
    let outbox = Arc::new(Outbox::default());
    let tag = RequestTag { opcode: Opcode::Modify.as_u16(), id: 1, came_us: 0 };
    let tokens = Arc::clone(&room.tokens);
    let reply = Reply::new(Arc::clone(&outbox), tag, Token::default(), tokens, permit);
    mount.send(object.home().address.chunkfile(), Task::Change(Change { what, reply }));
    let mut taken = Vec::new();
    poll_fn(|cx| {
        outbox.register(cx.waker());
        outbox.take(&mut taken);
        match taken.pop() {
            Some(Out::Written { opver, copies, .. }) => Poll::Ready(Ok((opver, copies))),
            Some(Out::Refused { problem, .. }) => Poll::Ready(Err(*problem)),
            // A change has no other answer.
            Some(_) | None => Poll::Pending,
        }
    })
    .await
}

/// Does something that may wait for the disk on a thread of the mount's pool.
pub(super) async fn in_pool<T: Send + 'static>(
    mount: &SharedMount,
    job: impl FnOnce(&dyn Shelf) -> T + Send + 'static,
) -> Result<T, Problem> {
    let shelf = Arc::clone(&mount.open()?.shelf);
    let (tell, hear) = oneshot::channel();
    // Who asked may have given up.
    mount.pool.run(Box::new(move || drop(tell.send(job(&*shelf)))));
    hear.await.map_err(|_| Problem::new(ErrorCode::Stopped, "the daemon is stopping"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::read_pool::{Limit, ReadPool};
    use crate::format::file_id::ObjectKind;

    fn kept(object: u64, sequence: u64) -> Kept {
        let pool = ReadPool::new("t".to_owned(), 1, Limit::new(1));
        let object = ObjectId {
            kind: ObjectKind::Chunk,
            machine: 1,
            mount: 0,
            log_id: 1,
            sequence: object,
            created_s: 1,
            chunk: 0,
            offset_units: 64,
            capacity_units: 8,
            cookie: object,
        };
        let tag = Tag { machine: 2, log_id: 3, sequence, ..Tag::default() };
        let lost =
            Conflict { object, tag, modified_ms: 0, length: 5, payload_crc: 0, single: None };
        let mount = Arc::new(SharedMount::new(0, "/m".to_owned(), pool, 0));
        Kept { mount, lost, stands: Stands::Gone }
    }

    #[test]
    fn a_number_never_means_another_version_in_another_list() {
        let one = kept(7, 9);
        assert_eq!(one.number(), kept(7, 9).number(), "it does not depend on what else is there");
        let mut seen = std::collections::BTreeSet::new();
        for object in 1..40 {
            for sequence in 1..40 {
                assert!(seen.insert(kept(object, sequence).number()), "{object} {sequence}");
            }
        }
    }

    #[test]
    fn the_bytes_are_said_to_lie_where_they_do() {
        let mut one = kept(7, 9);
        let (path, from, length) = one.bytes_at();
        assert_eq!((path, from, length), (format!("/m/conflicts/{}", one.name()), 144, 5));
        let content = crate::format::ids::Position { machine: 2, log_id: 3, sequence: 1 };
        one.lost.single = Some(content);
        assert_eq!(one.bytes_at().0, "/m/conflicts/2-00000003-0000000000000001.single");
        assert_eq!(one.bytes_at().1, 0);
    }
}
