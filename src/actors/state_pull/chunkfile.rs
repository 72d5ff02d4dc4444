//! Pulling one chunkfile: compare, tell apart, copy what is news.
//!
//! Invariants: while one page of copies is taken here the next one is on its way, and no more; a page is taken only after
//! the archive entries that were at its source when it was read; a home that changes while it is copied is asked for again.

use super::source::{Copied, Source};
use super::{Pull, lock};
use crate::actors::absorb_room::Absorb;
use crate::actors::content_fetch::{Fetched, fetch, on_pool};
use crate::format::ids::{ChunkfileId, Position};
use crate::format::record::ChunkfileCreated;
use crate::format::slot::{Body, SlotHeader};
use crate::messages::heads::COPIES_MAX;
use crate::store::digest::{ChunkDigest, DigestCursor};
use crate::store::slot_copy::SlotCopy;
use futures_util::future::{OptionFuture, join, try_join};
use futures_util::{StreamExt, stream};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bytes that a step of our own digest reads.
const DIGEST_STEP: u64 = 4 << 20;
/// Bytes that a step over our own marks reads, and how many it takes.
const MARKS_STEP: (u64, usize) = (4 << 20, 65_536);
/// Contents that are asked for at once; how many come at once is decided elsewhere.
const FETCHES: usize = 8;
/// How often homes are asked for again that were being changed, or whose large content was replaced.
const AGAIN_MAX: u32 = 4;
/// Before that.
const AGAIN_PAUSE: Duration = Duration::from_millis(100);

impl Pull<'_> {
    /// Has everything here that a source's chunkfile holds. The homes that cannot be had from it.
    pub(super) async fn copy_chunkfile(
        &self,
        source: &Source,
        created: &ChunkfileCreated,
    ) -> Result<BTreeSet<u32>, String> {
        let id = created.id;
        let shelf = Arc::clone(&self.shelf);
        let here = on_pool(&self.plan.mount, move || shelf.chunkfile_created(id)).await?;
        match here {
            Ok(Some(here)) if here == *created => {}
            Ok(Some(_)) => {
                self.missing(format!("{id:?} here is another chunkfile of the same name"));
                return Ok(BTreeSet::new());
            }
            Ok(None) => {
                self.tally().different += 1;
                return self.copy_all(source, id).await;
            }
            Err(error) => {
                self.missing(format!("{id:?} here: {error}"));
                return Ok(BTreeSet::new());
            }
        }
        let (theirs, (ours, lacking)) = try_join(source.digest(id), self.own_digest(id)).await?;
        self.compared(id, theirs.objects, theirs.fingerprint.into_array());
        if theirs.fingerprint.into_array() == ours.fingerprint && lacking.is_empty() {
            return Ok(BTreeSet::new());
        }
        self.tally().different += 1;
        self.copy_news(source, id, &lacking).await
    }

    /// Our own digest, and the homes whose content is not here: of large objects, or, if they are verified, of all.
    pub(super) async fn own_digest(
        &self,
        id: ChunkfileId,
    ) -> Result<(ChunkDigest, BTreeSet<u32>), String> {
        let verify = self.plan.verify;
        let mut cursor =
            if verify { DigestCursor::new(id, true) } else { DigestCursor::with_large(id) };
        loop {
            let shelf = Arc::clone(&self.shelf);
            let step = move || {
                let digest = shelf.digest_step(&mut cursor, DIGEST_STEP);
                (cursor, digest)
            };
            let (back, digest) = on_pool(&self.plan.mount, step).await?;
            cursor = back;
            if let Some(digest) = digest.map_err(|error| error.to_string())? {
                let lacking = cursor.take_damaged();
                return Ok((digest, lacking.iter().map(|home| home.offset_units).collect()));
            }
        }
    }

    /// Our own marks in a range.
    pub(super) async fn own_marks(
        &self,
        id: ChunkfileId,
        from: u32,
        until: u32,
    ) -> Result<HashMap<u32, u64>, String> {
        let (mut all, mut from) = (HashMap::new(), from);
        while from < until {
            let shelf = Arc::clone(&self.shelf);
            let (bytes, count) = MARKS_STEP;
            let page = on_pool(&self.plan.mount, move || shelf.marks(id, from, count, bytes));
            let page = page.await?.map_err(|error| error.to_string())?;
            all.extend(page.marks.into_iter().filter(|(offset, _)| *offset < until));
            match page.next {
                Some(next) if next > from => from = next,
                Some(_) | None => break,
            }
        }
        Ok(all)
    }

    /// Copies what differs. `lacking`: homes whose large content is not here.
    async fn copy_news(
        &self,
        source: &Source,
        id: ChunkfileId,
        lacking: &BTreeSet<u32>,
    ) -> Result<BTreeSet<u32>, String> {
        let (mut from, mut damaged) = (0, BTreeSet::new());
        loop {
            let (theirs, page) = source.marks(id, from).await?;
            let ours = self.own_marks(id, from, page.next.unwrap_or(u32::MAX)).await?;
            damaged.extend(page.damaged);
            let differs =
                |(home, mark): &(u32, u64)| ours.get(home) != Some(mark) || lacking.contains(home);
            let mut wanted: Vec<(u32, u64)> = theirs.into_iter().filter(|i| differs(i)).collect();
            if !wanted.is_empty() && !self.plan.patience.is_zero() {
                self.let_settle(source, id, (from, page.next), &mut wanted).await?;
            }
            let wanted: Vec<u32> = wanted.into_iter().map(|(home, _)| home).collect();
            for homes in wanted.chunks(COPIES_MAX) {
                damaged.extend(self.copy_some(source, id, homes).await?);
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(damaged),
            }
        }
    }

    /// Leaves of what differs only what is the same there after a while, and still is not here.
    async fn let_settle(
        &self,
        source: &Source,
        id: ChunkfileId,
        (from, until): (u32, Option<u32>),
        wanted: &mut Vec<(u32, u64)>,
    ) -> Result<(), String> {
        tokio::time::sleep(self.plan.patience).await;
        let (theirs, page) = source.marks(id, from).await?;
        let theirs: HashMap<u32, u64> = theirs.into_iter().collect();
        let end = page.next.or(until).unwrap_or(u32::MAX);
        let ours = self.own_marks(id, from, end).await?;
        wanted.retain(|(home, mark)| {
            *home >= end || (theirs.get(home) == Some(mark) && ours.get(home) != Some(mark))
        });
        Ok(())
    }

    /// Copies these homes from another member; those that it has.
    pub(super) async fn copy_homes(
        &self,
        source: &Source,
        created: &ChunkfileCreated,
        homes: &[u32],
    ) -> Result<BTreeSet<u32>, String> {
        let mut had = BTreeSet::new();
        for homes in homes.chunks(COPIES_MAX) {
            let (seen, again) = self.copy_pages(source, created.id, homes).await?;
            had.extend(seen.difference(&again));
        }
        Ok(had)
    }

    async fn copy_all(&self, source: &Source, id: ChunkfileId) -> Result<BTreeSet<u32>, String> {
        let (_, again) = self.copy_pages(source, id, &[]).await?;
        self.ask_again(source, id, again).await
    }

    async fn copy_some(
        &self,
        source: &Source,
        id: ChunkfileId,
        homes: &[u32],
    ) -> Result<BTreeSet<u32>, String> {
        let (_, again) = self.copy_pages(source, id, homes).await?;
        self.ask_again(source, id, again).await
    }

    /// What could not be copied may have been changing: asks for it some times more. What is left is damaged there.
    async fn ask_again(
        &self,
        source: &Source,
        id: ChunkfileId,
        mut again: BTreeSet<u32>,
    ) -> Result<BTreeSet<u32>, String> {
        for _ in 0..AGAIN_MAX {
            if again.is_empty() {
                break;
            }
            tokio::time::sleep(AGAIN_PAUSE).await;
            let homes: Vec<u32> = again.iter().copied().collect();
            again.clear();
            for homes in homes.chunks(COPIES_MAX) {
                again.extend(self.copy_pages(source, id, homes).await?.1);
            }
        }
        Ok(again)
    }

    /// Copies all pages of these homes (of all, if there are none). The homes that came, and those that could not be taken.
    async fn copy_pages(
        &self,
        source: &Source,
        id: ChunkfileId,
        homes: &[u32],
    ) -> Result<(BTreeSet<u32>, BTreeSet<u32>), String> {
        let (mut seen, mut again) = (BTreeSet::new(), BTreeSet::new());
        let runs = self.plan.blank;
        let mut page = source.copies(id, 0, homes, runs).await?;
        loop {
            let ahead = page.next.map(|next| {
                let rest = homes.partition_point(|home| *home < next);
                source.copies(id, next, &homes[rest..], runs)
            });
            again.extend(page.damaged.iter().copied());
            if !homes.is_empty() {
                seen.extend(page.copies.iter().map(|copy| copy.home.address.offset_units));
            }
            let taken = self.take_page(source, id, &page);
            let (taken, ahead) = join(taken, OptionFuture::from(ahead)).await;
            again.extend(taken?);
            match ahead {
                Some(next) => page = next?,
                None => return Ok((seen, again)),
            }
        }
    }

    /// Takes one page, and what it only names. The homes that could not be taken.
    async fn take_page(
        &self,
        source: &Source,
        id: ChunkfileId,
        page: &Copied,
    ) -> Result<BTreeSet<u32>, String> {
        let mut again = self.take(source, page).await?;
        for homes in page.others.chunks(COPIES_MAX) {
            again.extend(Box::pin(self.copy_pages(source, id, homes)).await?.1);
        }
        Ok(again)
    }

    /// Takes one page. The homes that have changed since.
    pub(super) async fn take(
        &self,
        source: &Source,
        page: &Copied,
    ) -> Result<BTreeSet<u32>, String> {
        self.progress.received.fetch_add(page.bytes, Ordering::Relaxed);
        let mut again = BTreeSet::new();
        if page.copies.is_empty() && page.run.is_none() {
            return Ok(again);
        }
        self.copy_archive(source, Some(page.archive)).await?;
        let absorb = || Absorb {
            chunkfiles: Arc::clone(&page.chunkfiles),
            copies: Arc::clone(&page.copies),
            blank: self.plan.blank,
            run: page.run.clone(),
        };
        let mut absorbed = self.tell(absorb()).await?;
        let mut taken = absorbed.taken;
        if !absorbed.needs.is_empty() {
            let gone = self.fetch_all(source, &absorbed.needs).await?;
            absorbed = self.tell(absorb()).await?;
            taken += absorbed.taken;
            let left = absorbed.needs.iter().map(|(content, _)| *content);
            let left: BTreeSet<Position> = gone.into_iter().chain(left).collect();
            again.extend(homes_of(page, &left));
        }
        if absorbed.refused > 0 {
            let (count, machine) = (absorbed.refused, source.machine());
            self.missing(format!("machine {machine}: {count} copies make no sense here"));
        }
        lock(&self.tally).taken += taken;
        self.limiter.spend(page.bytes).await;
        Ok(again)
    }

    /// Has large contents here; those that are nowhere any more, because their objects have changed since.
    async fn fetch_all(
        &self,
        source: &Source,
        needs: &[(Position, u64)],
    ) -> Result<Vec<Position>, String> {
        let fetched = stream::iter(needs.iter().copied()).map(|large| async move {
            let fetched = fetch(self.table, &self.plan.mount, large, source.machine()).await;
            self.progress.received.fetch_add(large.1, Ordering::Relaxed);
            self.limiter.spend(large.1).await;
            (large.0, fetched)
        });
        let (mut fetched, mut gone) = (fetched.buffer_unordered(FETCHES), Vec::new());
        while let Some((content, fetched)) = fetched.next().await {
            match fetched {
                Ok(Fetched::Here) => {}
                // Damaged there, or not to be had just now: it is named, and the others are taken.
                Ok(Fetched::Gone) | Err(_) => gone.push(content),
            }
        }
        Ok(gone)
    }
}

/// The homes of copies that name these contents.
fn homes_of(page: &Copied, contents: &BTreeSet<Position>) -> Vec<u32> {
    let names = |copy: &&SlotCopy| {
        let id = copy.home.address.chunkfile();
        let Some(file) = page.chunkfiles.iter().find(|file| file.id == id) else { return false };
        match SlotHeader::decode(&copy.home.header, &file.secret) {
            Ok(SlotHeader { body: Body::Single(content), .. }) => contents.contains(&content),
            Ok(_) | Err(_) => false,
        }
    };
    page.copies.iter().filter(names).map(|copy| copy.home.address.offset_units).collect()
}
