//! One round over a mount, slice by slice: checkpoint, logs and conflict archive, then chunkfile headers, slots, the contents of large objects; then the comparison of the
//! chunkfile with the mirrors (a part of [`scrubber`](super)).

use super::Opening;
use super::judge::words;
use crate::actors::content_fetch::on_pool;
use crate::actors::mend_room::SynclogEnd;
use crate::actors::state_pull::repair;
use crate::cluster::scrub::Damage;
use crate::format::chunkfile::CHUNKFILE_HEADER_LEN;
use crate::format::ids::ChunkfileId;
use crate::format::paths::CHECKPOINT;
use crate::store::archive::ArchivedName;
use crate::store::damaged::Stretch;
use crate::store::log_check::{Durable, SegmentRef, SegmentState};
use crate::store::read::ReadError;
use crate::store::renew::Part;
use crate::store::scrub::{Large, LargeCheck, LargeState};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes that one slice reads, about.
const SLICE: u64 = 1 << 20;

/// Where a round is.
pub(super) struct Round {
    /// What comes before the chunkfiles.
    front: VecDeque<Front>,
    files: VecDeque<ChunkfileId>,
    /// The unit that is looked at next in the first of them.
    unit: u32,
    /// Where the slots end whose large contents are being looked at; `None`: at the end of the chunkfile.
    then: Option<u32>,
    larges: VecDeque<Large>,
    check: Option<(Large, LargeCheck)>,
    /// All slots of the first file are verified.
    slots_done: bool,
}

/// What is verified first.
enum Front {
    Checkpoint,
    /// A segment of a log, and the one behind it.
    Segment(SegmentRef, Option<SegmentRef>),
    /// The header of a chunkfile: before any object is judged, since one may lie in a file that comes later than its home.
    Header(ChunkfileId),
    /// An entry of the conflict archive.
    Archived(ArchivedName),
}

impl Round {
    fn over(files: VecDeque<ChunkfileId>, unit: u32) -> Self {
        let (larges, check) = (VecDeque::new(), None);
        Self { front: VecDeque::new(), files, unit, then: None, larges, check, slots_done: false }
    }

    /// One chunkfile, out of turn.
    pub fn near(id: ChunkfileId) -> Self {
        Self::over([id].into(), 0)
    }

    /// Where to go on after a restart.
    pub fn position(&self) -> Option<(ChunkfileId, u32)> {
        if !self.front.is_empty() {
            return None;
        }
        self.files.front().map(|id| (*id, self.unit))
    }

    fn next_file(&mut self) {
        self.files.pop_front();
        (self.unit, self.then, self.slots_done) = (0, None, false);
    }
}

impl Opening {
    /// The round from where it stands in the durable state.
    pub(super) async fn list(&mut self) -> Result<Round, String> {
        let shelf = Arc::clone(&self.shelf);
        let files = on_pool(&self.config.mount, move || shelf.chunkfiles()).await?;
        let mut files = files.map_err(|error| error.to_string())?;
        files.extend(self.lost_files().await?);
        files.sort_unstable();
        let mut files: VecDeque<ChunkfileId> = files.into();
        let (first, unit) = self.state.next.unwrap_or_default();
        files.retain(|id| *id >= first);
        let same = files.front() == Some(&first);
        let mut round = Round::over(files, if same { unit } else { 0 });
        if self.state.next.is_none() {
            round.front = self.list_front().await?;
            round.front.extend(round.files.iter().copied().map(Front::Header));
        }
        Ok(round)
    }

    async fn list_front(&self) -> Result<VecDeque<Front>, String> {
        let (shelf, us) = (Arc::clone(&self.shelf), self.config.table.us);
        let segments = on_pool(&self.config.mount, move || shelf.log_segments(us)).await?;
        let segments = segments.map_err(|error| words(&error))?;
        let mut front = VecDeque::from([Front::Checkpoint]);
        for (n, segment) in segments.iter().enumerate() {
            let next = segments.get(n + 1).copied();
            let next = next.filter(|next| (next.own, next.log) == (segment.own, segment.log));
            front.push_back(Front::Segment(*segment, next));
        }
        let shelf = Arc::clone(&self.shelf);
        let names = on_pool(&self.config.mount, move || shelf.archive_names()).await?;
        front.extend(names.map_err(|error| words(&error))?.kept.into_iter().map(Front::Archived));
        Ok(front)
    }

    async fn step_front(&mut self, round: &mut Round, front: Front) -> Result<u64, String> {
        let shelf = Arc::clone(&self.shelf);
        let (segment, next) = match front {
            Front::Checkpoint => {
                let right = on_pool(&self.config.mount, move || shelf.check_checkpoint()).await?;
                if matches!(right, Ok(Some(false))) {
                    let aside = vec![Stretch::whole(CHECKPOINT)];
                    let why = "its checksum is wrong";
                    self.renew(Damage::Checkpoint, Part::Checkpoint, why, aside).await;
                }
                return Ok(0);
            }
            Front::Header(id) => {
                if let Err(why) = self.look_at_header(id).await {
                    // It stays among the findings, and is tried again.
                    tracing::debug!(chunkfile = ?id, why, "not mended yet");
                }
                return Ok(CHUNKFILE_HEADER_LEN as u64);
            }
            Front::Archived(name) => return self.look_at_archived(name).await,
            Front::Segment(segment, next) => (segment, next),
        };
        match self.check_segment(segment, next).await? {
            SegmentState::Changed => Ok(0),
            SegmentState::Whole(bytes) => Ok(bytes),
            SegmentState::Damaged(why, places) => {
                let aside = self.damage_of_log(round, segment, places).await?;
                let log = segment.log;
                let (damage, part) = if segment.own {
                    (Damage::Binlog(log.log_id), Part::Binlog)
                } else {
                    (Damage::Synclog(log.machine, log.log_id), Part::Synclog(log))
                };
                self.renew(damage, part, why, aside).await;
                Ok(0)
            }
        }
    }

    async fn check_segment(
        &self,
        segment: SegmentRef,
        next: Option<SegmentRef>,
    ) -> Result<SegmentState, String> {
        let tail = *self.config.mount.mirror.tail().borrow();
        let durable = match tail {
            Some(tail) if segment.own && tail.log == segment.log => {
                Durable { last: tail.sequence, end: 0 }
            }
            // Of a log of before nothing is known.
            Some(_) | None if segment.own => Durable::default(),
            Some(_) | None => {
                let end = self.tell(SynclogEnd(segment.log, segment.first)).await?;
                Durable { last: 0, end }
            }
        };
        let shelf = Arc::clone(&self.shelf);
        let state =
            on_pool(&self.config.mount, move || shelf.check_segment(segment, next, durable))
                .await?;
        state.map_err(|error| words(&error))
    }

    /// Everything that is damaged of the log of this segment, which is about to go as a whole: the others are looked at now.
    async fn damage_of_log(
        &self,
        round: &mut Round,
        of: SegmentRef,
        places: Vec<(u64, u64)>,
    ) -> Result<Vec<Stretch>, String> {
        let stretch =
            |segment: SegmentRef, (from, until)| Stretch { path: segment.path(), from, until };
        let mut aside: Vec<Stretch> = places.into_iter().map(|place| stretch(of, place)).collect();
        let (log, rest) = std::mem::take(&mut round.front).into_iter().partition(|front| {
            matches!(front, Front::Segment(other, _) if (other.own, other.log) == (of.own, of.log))
        });
        round.front = rest;
        let log: VecDeque<Front> = log;
        for front in log {
            if let Front::Segment(other, next) = front
                && let SegmentState::Damaged(_, places) = self.check_segment(other, next).await?
            {
                aside.extend(places.into_iter().map(|place| stretch(other, place)));
            }
        }
        Ok(aside)
    }

    /// One slice; bytes that were verified. `None`: that was all.
    pub(super) async fn step(&mut self, round: &mut Round) -> Result<Option<u64>, String> {
        if round.check.is_none() {
            let next = round.larges.pop_front();
            round.check = next.map(|large| (large, LargeCheck::new(large)));
        }
        if let Some(front) = round.front.pop_front() {
            return self.step_front(round, front).await.map(Some);
        }
        if let Some((large, check)) = round.check.take() {
            return self.step_large(round, large, check).await.map(Some);
        }
        if let Some(then) = round.then.take() {
            round.unit = then;
        }
        let Some(id) = round.files.front().copied() else { return Ok(None) };
        if round.slots_done {
            // Whoever does not answer now is compared with in the next round; what differs is found elsewhere, too.
            if let Err(why) = repair::lacking(&self.config.table, &self.config.mount, id).await {
                tracing::debug!(mount = self.config.mount.index, why, "not compared");
            }
            round.next_file();
            return Ok(Some(0));
        }
        if round.unit == 0 && !self.step_header(id).await? {
            round.next_file();
            return Ok(Some(CHUNKFILE_HEADER_LEN as u64));
        }
        self.step_slots(round, id).await.map(Some)
    }

    /// Verifies the header of a chunkfile; whether its slots can be read.
    async fn step_header(&mut self, id: ChunkfileId) -> Result<bool, String> {
        let shelf = Arc::clone(&self.shelf);
        let right = on_pool(&self.config.mount, move || shelf.check_chunkfile(id)).await?;
        match right.map_err(|error| error.to_string())? {
            None => Ok(false),
            Some(true) => {
                self.config.mount.scrub.findings().is_whole(Damage::Chunkfile(id));
                Ok(true)
            }
            Some(false) => {
                self.found(Damage::Chunkfile(id), "its checksum is wrong");
                Ok(self.mend_chunkfile(id).await)
            }
        }
    }

    async fn step_slots(&mut self, round: &mut Round, id: ChunkfileId) -> Result<u64, String> {
        let (shelf, from) = (Arc::clone(&self.shelf), round.unit);
        let page = on_pool(&self.config.mount, move || shelf.check_slots(id, from, SLICE)).await?;
        let page = match page {
            Ok(page) => page,
            Err(ReadError::Fenced) => return Err(words(&ReadError::Fenced)),
            Err(error) => {
                // The rest of this chunkfile cannot be read now: the others are.
                self.found(Damage::Chunkfile(id), &words(&error));
                round.next_file();
                return Ok(0);
            }
        };
        if !page.suspects.is_empty() {
            self.judge(id, &page.suspects).await?;
        }
        round.larges = page.large.into();
        match page.next {
            Some(next) if next > from && round.larges.is_empty() => round.unit = next,
            Some(next) if next > from => round.then = Some(next),
            Some(_) | None => round.slots_done = true,
        }
        Ok(page.bytes)
    }

    async fn step_large(
        &mut self,
        round: &mut Round,
        large: Large,
        mut check: LargeCheck,
    ) -> Result<u64, String> {
        let shelf = Arc::clone(&self.shelf);
        let step = move || {
            let checked = shelf.check_large(&mut check, SLICE);
            (check, checked)
        };
        let (check, checked) = on_pool(&self.config.mount, step).await?;
        let (state, bytes) = checked.map_err(|error| words(&error))?;
        match state {
            LargeState::More => round.check = Some((large, check)),
            LargeState::Whole => {
                self.config.mount.scrub.findings().is_whole(Damage::Object(large.home));
            }
            LargeState::Missing if large.deleted => {}
            LargeState::Missing => self.judge_large(large, "the singlefile is gone").await?,
            LargeState::Damaged(why) => self.judge_large(large, &why).await?,
        }
        Ok(bytes)
    }
}
