//! Digest exchange: whether two mirrors are identical, chunkfile by chunkfile, found out without a log; what differs here is
//! mended as in any pull (design section 6).
//!
//! Invariants: what was edited in the last seconds is not judged; what differs is judged again after we have everything that
//! the other one had when it was asked; *identical* is said only when nothing differs, the archive included, and nothing of
//! either mount was left out but what was just being written. Only we are mended: what the other one lacks it finds itself.

use super::source::Source;
use super::{Plan, Progress, Pull, prepare};
use crate::actors::ambient;
use crate::actors::content_fetch::on_pool;
use crate::actors::peers::PeerTable;
use crate::cluster::coverage::Coverage;
use crate::format::crc::Fingerprint;
use crate::format::ids::ChunkfileId;
use crate::format::record::ChunkfileCreated;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What was edited since is not judged, milliseconds.
const QUIET_MS: u64 = 3000;
/// How long we wait for what the other one has before something that differs is judged.
const CATCH_UP: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// How a comparison ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// Objects in what is the same on both, live and deleted.
    pub objects: u64,
    /// Chunkfiles that were being written.
    pub busy: u64,
    /// What differed at first and is the same now.
    pub mended: u64,
    /// What differs still: chunkfiles, and the archive.
    pub different: u64,
    /// A fingerprint of everything that is the same.
    pub digest: [u8; 16],
}

impl Compared {
    /// Whether nothing differs, and all of it was looked at.
    #[must_use]
    pub const fn is_identical(&self) -> bool {
        self.different == 0
    }
}

/// What one chunkfile came to.
enum Verdict {
    Same { fingerprint: [u8; 16], objects: u64 },
    Busy,
    Different,
}

/// Compares our mount with that of the first source of a plan, mends what differs here, and compares again. On an arbiter.
///
/// # Errors
/// The other one does not answer, or a mount is out of service.
pub async fn compare(
    table: &Arc<PeerTable>,
    plan: &Plan,
    progress: &Progress,
) -> Result<Compared, String> {
    let pull = prepare(table, plan, progress).await?;
    let peer = plan.sources.first().ok_or("there is nobody to compare with")?;
    let source = pull.source(Arc::clone(peer));
    pull.compare(&source).await
}

impl Pull<'_> {
    async fn compare(&self, source: &Source) -> Result<Compared, String> {
        let theirs = self.look_at(source).await?;
        let theirs: BTreeMap<ChunkfileId, ChunkfileCreated> =
            theirs.into_iter().map(|created| (created.id, created)).collect();
        let shelf = Arc::clone(&self.shelf);
        let ours = on_pool(&self.plan.mount, move || shelf.chunkfiles()).await?;
        let ours = ours.map_err(|error| error.to_string())?;
        let mut all: Vec<ChunkfileId> = theirs.keys().copied().chain(ours).collect();
        all.sort_unstable();
        all.dedup();
        let (mut compared, mut digest) = (Compared::default(), Fingerprint::new());
        for id in all {
            let created = theirs.get(&id);
            let mut verdict = self.judge(source, id, created.is_some()).await?;
            if matches!(verdict, Verdict::Different) {
                self.catch_up(source).await;
                if let Some(created) = created {
                    // What is damaged there it mends itself.
                    self.copy_chunkfile(source, created).await?;
                }
                verdict = self.judge(source, id, created.is_some()).await?;
                if matches!(verdict, Verdict::Same { .. }) {
                    compared.mended += 1;
                }
            }
            match verdict {
                Verdict::Same { fingerprint, objects } => {
                    compared.objects += objects;
                    if objects > 0 {
                        digest.update(&id.machine.to_le_bytes());
                        digest.update(&id.log_id.to_le_bytes());
                        digest.update(&id.chunk.to_le_bytes());
                        digest.update(&fingerprint);
                    }
                }
                Verdict::Busy => compared.busy += 1,
                Verdict::Different => compared.different += 1,
            }
            // Somebody may be waiting for the disk: this is in no hurry.
            self.limiter.spend(created.map_or(0, super::bytes_of)).await;
        }
        let archive = self.archives(source, &mut compared).await?;
        digest.update(&archive);
        compared.at_ms = ambient::wall_ms();
        compared.digest = digest.value();
        Ok(compared)
    }

    async fn judge(
        &self,
        source: &Source,
        id: ChunkfileId,
        is_there: bool,
    ) -> Result<Verdict, String> {
        let (ours, lacking) = self.own_digest(id).await?;
        let (theirs, objects, newest_ms) = if is_there {
            let theirs = source.digest(id).await?;
            (theirs.fingerprint.into_array(), theirs.objects, theirs.newest_ms)
        } else {
            (Fingerprint::new().value(), 0, 0)
        };
        if theirs == ours.fingerprint && lacking.is_empty() {
            return Ok(Verdict::Same { fingerprint: theirs, objects });
        }
        let quiet_since = ambient::wall_ms().saturating_sub(QUIET_MS);
        let busy = newest_ms.max(ours.newest_ms) > quiet_since;
        Ok(if busy { Verdict::Busy } else { Verdict::Different })
    }

    /// Waits a while for what the other one covered when it was asked.
    async fn catch_up(&self, source: &Source) {
        let theirs: Option<Coverage> = super::lock(&self.covered).get(&source.machine()).cloned();
        let theirs = theirs.unwrap_or_default();
        let caught_up = async {
            while !self.plan.mount.mirror.report().coverage.covers_all(&theirs) {
                tokio::time::sleep(LOOK).await;
            }
        };
        // Without it the judgement may be that it differs, once more.
        tokio::time::timeout(CATCH_UP, caught_up).await.unwrap_or_default();
    }

    /// Compares the archives, and takes what is missing here; what both keep.
    async fn archives(&self, source: &Source, compared: &mut Compared) -> Result<[u8; 16], String> {
        let (theirs, _) = source.archive().await?;
        let mut ours = self.own_archive().await?;
        if theirs != ours {
            self.catch_up(source).await;
            self.copy_archive(source, None).await?;
            ours = self.own_archive().await?;
            let (theirs, _) = source.archive().await?;
            *(if theirs == ours { &mut compared.mended } else { &mut compared.different }) += 1;
        }
        Ok(ours)
    }

    async fn own_archive(&self) -> Result<[u8; 16], String> {
        let shelf = Arc::clone(&self.shelf);
        let names = on_pool(&self.plan.mount, move || shelf.archive_names()).await?;
        names.map(|names| names.fingerprint()).map_err(|error| error.to_string())
    }
}
