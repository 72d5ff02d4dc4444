//! What becomes of a suspicion: looked at again in line with the changes, then repaired from a mirror, or kept in the list (a
//! part of [`scrubber`](super)).

use super::Opening;
use crate::actors::ambient;
use crate::actors::binlog::Binlog;
use crate::actors::content_fetch::{fetch_anew, on_pool};
use crate::actors::mend_room::{
    LOOKS_MAX, LookAgain, LookAtArchived, LookForFiles, MendArchived, MendChunkfile, MendContent,
    Renew,
};
use crate::actors::session::Problem;
use crate::actors::state_pull::repair;
use crate::cluster::coverage::Coverage;
use crate::cluster::scrub::Damage;
use crate::format::file_id::ObjectId;
use crate::format::ids::{Address, ChunkfileId};
use crate::store::archive::ArchivedName;
use crate::store::archive_check::ArchivedState;
use crate::store::damaged::Stretch;
use crate::store::mend::Look;
use crate::store::read::ReadError;
use crate::store::renew::{Part, Renewal};
use crate::store::scrub::{Large, LargeCheck, LargeState};
use crate::store::sync::LogName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes that are read at a time of a large content that is looked at again.
const SLICE: u64 = 4 << 20;
/// Files that are looked for at a time.
const FILES_MAX: usize = 256;
/// Slices of a renewal at most: checkpoints of a whole mount, several times over.
const RENEWAL_SLICES: u32 = 100_000;

pub(super) fn words(error: &ReadError) -> String {
    error.to_string()
}

/// A home, with its object if that is known.
type Home = (Address, Option<ObjectId>);

impl Opening {
    pub(super) fn found(&self, damage: Damage, why: &str) {
        self.config.mount.scrub.found(self.config.mount.index, damage, None, why);
    }

    fn failed(&self, damage: Damage, why: &str) {
        let (mount, now_ms) = (&self.config.mount, ambient::wall_ms());
        tracing::debug!(mount = mount.index, %damage, why, "not repaired yet");
        mount.scrub.findings().failed(damage, why, now_ms);
    }

    /// Asks the mount something, in line with its changes.
    pub(super) async fn tell<M, T>(&self, message: M) -> Result<T, String>
    where
        M: actix::Message<Result = Result<T, Problem>> + Send + 'static,
        T: Send + 'static,
        Binlog: actix::Handler<M>,
    {
        let gone = || "the mount is not in service".to_owned();
        let binlog = self.config.mount.registry.binlog().ok_or_else(gone)?;
        match binlog.send(message).await {
            Ok(done) => done.map_err(|problem| problem.message),
            Err(_) => Err(gone()),
        }
    }

    /// A reader found these homes of a chunkfile wrong.
    pub(super) async fn judge(&self, id: ChunkfileId, suspects: &[u32]) -> Result<(), String> {
        let ChunkfileId { machine, log_id, chunk } = id;
        let home = |offset_units: &u32| {
            (Address { machine, log_id, chunk, offset_units: *offset_units }, None)
        };
        let homes: Vec<Home> = suspects.iter().map(home).collect();
        for homes in homes.chunks(LOOKS_MAX) {
            self.judge_homes(homes, false).await?;
        }
        Ok(())
    }

    /// A read met damage of an object.
    pub(super) async fn judge_suspect(&mut self, object: ObjectId) {
        let home = object.home().address;
        let before = self.config.mount.scrub.findings().found;
        // What fails stays in the list, or is met again.
        if let Err(why) = self.judge_homes(&[(home, Some(object))], true).await {
            tracing::debug!(mount = self.config.mount.index, why, "a suspect is not judged");
        }
        let mut findings = self.config.mount.scrub.findings();
        if findings.found > before {
            findings.look_near(home.chunkfile());
        }
    }

    /// What could not be repaired before.
    pub(super) async fn retry(&mut self, damages: &[Damage]) {
        let mut homes: Vec<Home> = Vec::new();
        for damage in damages {
            match *damage {
                Damage::Object(home) => {
                    let findings = self.config.mount.scrub.findings();
                    homes.push((home, findings.known(*damage).and_then(|open| open.object)));
                }
                Damage::Chunkfile(id) => {
                    self.mend_chunkfile(id).await;
                }
                Damage::Binlog(_) => self.renew(*damage, Part::Binlog, "tried again", vec![]).await,
                Damage::Synclog(machine, log_id) => {
                    let log = LogName { machine, log_id };
                    self.renew(*damage, Part::Synclog(log), "tried again", vec![]).await;
                }
                Damage::Checkpoint => {
                    self.renew(*damage, Part::Checkpoint, "tried again", vec![]).await;
                }
                Damage::Archived(object, edit) => {
                    if let Err(why) = self.look_at_archived((object, edit)).await {
                        self.failed(*damage, &why);
                    }
                }
                // They are looked at all the time.
                Damage::Label | Damage::Forgotten => {
                    self.config.mount.scrub.findings().is_whole(*damage)
                }
            }
        }
        for homes in homes.chunks(LOOKS_MAX) {
            if let Err(why) = self.judge_homes(homes, false).await {
                for (home, _) in homes {
                    self.failed(Damage::Object(*home), &why);
                }
            }
        }
    }

    /// Looks again, has repaired what is damaged, and says what became of it.
    async fn judge_homes(&self, homes: &[Home], by_read: bool) -> Result<(), String> {
        let files: BTreeSet<ChunkfileId> = homes.iter().map(|(home, _)| home.chunkfile()).collect();
        for id in files {
            self.look_at_header(id).await?;
        }
        let (mut looks, mut covered) = self.tell(LookAgain(homes.to_vec())).await?;
        let hidden = looks.iter().filter_map(|look| match look {
            Look::Hidden(id) => Some(*id),
            _ => None,
        });
        let hidden: BTreeSet<ChunkfileId> = hidden.collect();
        if !hidden.is_empty() {
            for id in hidden {
                self.look_at_header(id).await?;
            }
            (looks, covered) = self.tell(LookAgain(homes.to_vec())).await?;
        }
        let mut damaged: BTreeMap<ChunkfileId, Vec<u32>> = BTreeMap::new();
        let mut larges = Vec::new();
        for ((home, object), look) in homes.iter().zip(looks) {
            let damage = Damage::Object(*home);
            match look {
                Look::Whole(None) => self.config.mount.scrub.findings().is_whole(damage),
                Look::Whole(Some(large)) => larges.push((large, *object)),
                Look::Gone => self.config.mount.scrub.findings().gone(damage),
                Look::Damaged(why) => {
                    let object = object.filter(|_| by_read);
                    self.config.mount.scrub.found(self.config.mount.index, damage, object, why);
                    damaged.entry(home.chunkfile()).or_default().push(home.offset_units);
                }
                // Somebody may have it; if nobody does, nothing is wrong.
                Look::NoContent | Look::Hidden(_) => {
                    damaged.entry(home.chunkfile()).or_default().push(home.offset_units);
                }
            }
        }
        for (large, object) in larges {
            self.look_at_large(large, object.filter(|_| by_read)).await?;
        }
        for (id, mut units) in damaged {
            units.sort_unstable();
            self.repair_homes(id, &units, homes, &covered).await?;
        }
        Ok(())
    }

    /// Without its header nothing can be said of what is in a chunkfile.
    pub(super) async fn look_at_header(&self, id: ChunkfileId) -> Result<(), String> {
        let shelf = Arc::clone(&self.shelf);
        let right = on_pool(&self.config.mount, move || shelf.check_chunkfile(id)).await?;
        let why = match right {
            Ok(Some(false)) => "its checksum is wrong",
            Ok(None) if self.is_lost(id).await? => "the file is gone",
            Ok(Some(true) | None) | Err(_) => return Ok(()),
        };
        self.found(Damage::Chunkfile(id), why);
        if self.mend_chunkfile(id).await {
            Ok(())
        } else {
            Err(format!("its chunkfile is damaged: {why}"))
        }
    }

    /// Whether the mount has this chunkfile, but no file of it.
    async fn is_lost(&self, id: ChunkfileId) -> Result<bool, String> {
        let (lost, _) = self.tell(LookForFiles(id, 1)).await?;
        Ok(lost.contains(&id))
    }

    /// All that are so. There is nothing on the disk that a round would come upon.
    pub(super) async fn lost_files(&self) -> Result<Vec<ChunkfileId>, String> {
        let (mut all, mut from) = (Vec::new(), Some(ChunkfileId::default()));
        while let Some(begin) = from {
            let (lost, next) = self.tell(LookForFiles(begin, FILES_MAX)).await?;
            all.extend(lost);
            from = next;
        }
        Ok(all)
    }

    async fn repair_homes(
        &self,
        id: ChunkfileId,
        units: &[u32],
        homes: &[Home],
        covered: &Coverage,
    ) -> Result<(), String> {
        let (table, mount) = (&self.config.table, &self.config.mount);
        let why = match repair::homes(table, mount, (id, units), covered).await {
            Ok(why) | Err(why) => why,
        };
        let of_file = |(home, _): &&Home| {
            home.chunkfile() == id && units.binary_search(&home.offset_units).is_ok()
        };
        let again: Vec<Home> = homes.iter().filter(of_file).copied().collect();
        let (looks, _) = self.tell(LookAgain(again.clone())).await?;
        for ((home, _), look) in again.into_iter().zip(looks) {
            let damage = Damage::Object(home);
            match look {
                Look::Whole(_) => mount.scrub.findings().is_whole(damage),
                Look::Gone => mount.scrub.findings().gone(damage),
                Look::NoContent => {}
                Look::Hidden(_) => {
                    self.failed(damage, "the header of the chunkfile of its content is damaged");
                }
                Look::Damaged(what) => {
                    let why = if why.is_empty() { what } else { &why };
                    self.failed(damage, why);
                }
            }
        }
        Ok(())
    }

    /// The content of a large object may be damaged: it is read as a whole.
    async fn look_at_large(&self, large: Large, object: Option<ObjectId>) -> Result<(), String> {
        let why = match self.read_large(LargeCheck::new(large)).await?.0 {
            LargeState::Whole | LargeState::More => {
                let damage = Damage::Object(large.home);
                self.config.mount.scrub.findings().is_whole(damage);
                return Ok(());
            }
            LargeState::Missing if large.deleted => return Ok(()),
            LargeState::Missing => "the singlefile is gone".to_owned(),
            LargeState::Damaged(why) => why,
        };
        self.mend_large(large, object, &why).await
    }

    /// A reader found the content of a large object wrong.
    pub(super) async fn judge_large(&self, large: Large, why: &str) -> Result<(), String> {
        self.mend_large(large, None, why).await
    }

    async fn mend_large(
        &self,
        large: Large,
        object: Option<ObjectId>,
        why: &str,
    ) -> Result<(), String> {
        let (looks, _) = self.tell(LookAgain(vec![(large.home, object)])).await?;
        if !looks.contains(&Look::Whole(Some(large))) {
            // Edited or removed meanwhile.
            return Ok(());
        }
        let (mount, damage) = (&self.config.mount, Damage::Object(large.home));
        mount.scrub.found(mount.index, damage, object, why);
        let Large { home, content, length, .. } = large;
        match fetch_anew(&self.config.table, mount, (content, length)).await {
            Ok(()) => match self.tell(MendContent { home, content }).await {
                Ok(true) => mount.scrub.findings().is_whole(damage),
                Ok(false) => mount.scrub.findings().gone(damage),
                Err(why) => self.failed(damage, &why),
            },
            Err(why) => self.failed(damage, &why),
        }
        Ok(())
    }

    /// What is damaged of a log or of the checkpoint says nothing that the slots do not have: it is given up.
    pub(super) async fn renew(&self, damage: Damage, part: Part, why: &str, aside: Vec<Stretch>) {
        self.found(damage, why);
        let mut renewal = Renewal::of(part, aside);
        for _ in 0..RENEWAL_SLICES {
            match self.tell(Renew(renewal)).await {
                Ok((_, true)) => return self.config.mount.scrub.findings().is_whole(damage),
                Ok((on, false)) => renewal = on,
                Err(why) => return self.failed(damage, &why),
            }
        }
        self.failed(damage, "there is no space for a checkpoint");
    }

    /// Verifies an entry of the conflict archive, and has it mended; bytes that were read.
    pub(super) async fn look_at_archived(&self, name: ArchivedName) -> Result<u64, String> {
        let mount = &self.config.mount;
        let damage = Damage::Archived(name.0, name.1);
        let shelf = Arc::clone(&self.shelf);
        let state = on_pool(mount, move || shelf.check_archived(name)).await?;
        let mut state = state.map_err(|error| words(&error))?;
        if matches!(state, ArchivedState::Damaged(_)) {
            // It may just have been written.
            state = self.tell(LookAtArchived(name)).await?;
        }
        let why = match state {
            ArchivedState::Gone => {
                mount.scrub.findings().gone(damage);
                return Ok(0);
            }
            ArchivedState::Whole(bytes) => {
                mount.scrub.findings().is_whole(damage);
                return Ok(bytes);
            }
            ArchivedState::Damaged(why) => why.to_owned(),
            ArchivedState::Large(check) => match self.read_large(*check).await? {
                (LargeState::Damaged(why), _) => why,
                (LargeState::Missing, _) => "its content is gone".to_owned(),
                (LargeState::Whole | LargeState::More, bytes) => {
                    mount.scrub.findings().is_whole(damage);
                    return Ok(bytes);
                }
            },
        };
        if matches!(self.tell(LookAtArchived(name)).await?, ArchivedState::Gone) {
            mount.scrub.findings().gone(damage);
            return Ok(0);
        }
        self.found(damage, &why);
        match self.mend_archived(name).await {
            Ok(true) => mount.scrub.findings().is_whole(damage),
            Ok(false) => mount.scrub.findings().gone(damage),
            Err(why) => self.failed(damage, &why),
        }
        Ok(0)
    }

    async fn mend_archived(&self, name: ArchivedName) -> Result<bool, String> {
        let (table, mount) = (&self.config.table, &self.config.mount);
        let (lost, content) = repair::archived(table, mount, name).await?;
        if let Some(check) = LargeCheck::archived(&lost) {
            let (state, _) = self.read_large(check).await?;
            if let (Some(single), true) = (lost.single, state != LargeState::Whole) {
                fetch_anew(table, mount, (single, lost.length)).await?;
            }
        }
        self.tell(MendArchived(lost, content)).await
    }

    /// Reads a large content as a whole; how it is, and bytes that were read.
    async fn read_large(&self, mut check: LargeCheck) -> Result<(LargeState, u64), String> {
        let mut sum = 0;
        loop {
            let shelf = Arc::clone(&self.shelf);
            let step = move || {
                let checked = shelf.check_large(&mut check, SLICE);
                (check, checked)
            };
            let (back, checked) = on_pool(&self.config.mount, step).await?;
            check = back;
            let (state, bytes) = checked.map_err(|error| words(&error))?;
            sum += bytes;
            if state != LargeState::More {
                return Ok((state, sum));
            }
        }
    }

    /// Has the damaged header of a chunkfile written again; whether it is whole then.
    pub(super) async fn mend_chunkfile(&self, id: ChunkfileId) -> bool {
        let damage = Damage::Chunkfile(id);
        match self.try_chunkfile(id).await {
            Ok(true) => {
                self.config.mount.scrub.findings().is_whole(damage);
                true
            }
            Ok(false) => {
                self.config.mount.scrub.findings().gone(damage);
                false
            }
            Err(why) => {
                self.failed(damage, &why);
                false
            }
        }
    }

    async fn try_chunkfile(&self, id: ChunkfileId) -> Result<bool, String> {
        let shelf = Arc::clone(&self.shelf);
        let known = on_pool(&self.config.mount, move || {
            (shelf.check_chunkfile(id), shelf.chunkfile_created(id))
        });
        let created = match known.await? {
            (Ok(Some(true)), _) => return Ok(true),
            (Ok(None), _) if !self.is_lost(id).await? => return Ok(false),
            (_, Ok(Some(created))) => Some(created),
            (_, Ok(None) | Err(_)) => {
                repair::created(&self.config.table, &self.config.mount, id).await
            }
        };
        let created = created.ok_or("no member that is connected has this chunkfile")?;
        self.tell(MendChunkfile(created)).await?;
        let shelf = Arc::clone(&self.shelf);
        let right = on_pool(&self.config.mount, move || shelf.check_chunkfile(id)).await?;
        match right {
            Ok(Some(true)) => Ok(true),
            Ok(None) => Ok(false),
            Ok(Some(false)) | Err(_) => {
                Err("what is known of it does not fit what the mount knows".to_owned())
            }
        }
    }
}
