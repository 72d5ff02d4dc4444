//! Pulling the archive: the losing versions of a source that are not kept here.
//!
//! Invariant: what is absorbed is what its own head says: the checksum of its content is right, and a large content was
//! fetched and verified before.

use super::source::Source;
use super::{Pull, lock};
use crate::actors::absorb_room::AbsorbArchived;
use crate::actors::binlog::DropArchived;
use crate::actors::content_fetch::{Fetched, fetch};
use crate::format::conflict::Conflict;
use crate::format::crc::crc32c;
use crate::format::record::Dropped;
use crate::messages::heads::NAMES_MAX;
use crate::store::archive::ArchivedName;

impl Pull<'_> {
    /// Copies what the archive of a source has more than ours; not again if it is still the one with this fingerprint.
    pub(super) async fn copy_archive(
        &self,
        source: &Source,
        fingerprint: Option<[u8; 16]>,
    ) -> Result<(), String> {
        let mut kept = self.kept.lock().await;
        let known = kept.known.get(&source.machine());
        if known.is_some() && (fingerprint.is_none() || known == fingerprint.as_ref()) {
            return Ok(());
        }
        let (fingerprint, names) = source.archive().await?;
        for name in &names.dropped {
            if kept.names.remove(name) {
                kept.dropped.insert(*name);
                self.tell(DropArchived(Dropped { object: name.0, edit: name.1 })).await?;
            }
        }
        let news = |name: &ArchivedName| !kept.names.contains(name) && !kept.dropped.contains(name);
        let news: Vec<ArchivedName> = names.kept.into_iter().filter(news).collect();
        let mut rest = &news[..];
        while !rest.is_empty() {
            let (page, entries) = source.archived(&rest[..rest.len().min(NAMES_MAX)]).await?;
            for (lost, content) in entries {
                let name = (lost.object, lost.tag.position());
                if rest.contains(&name) && self.keep(source, lost, content).await? {
                    kept.names.insert(name);
                }
            }
            if page.damaged > 0 {
                // It is no part of what is covered: nobody is kept from going on for it.
                let (peer, mount) = (source.machine(), self.plan.mount.index);
                tracing::warn!(peer, mount, page.damaged, "losing versions cannot be copied");
            }
            rest = &rest[rest.len().min((page.done as usize).max(1))..];
        }
        kept.known.insert(source.machine(), fingerprint);
        Ok(())
    }

    /// `false`: it makes no sense, or its content is nowhere any more.
    async fn keep(
        &self,
        source: &Source,
        lost: Conflict,
        content: Vec<u8>,
    ) -> Result<bool, String> {
        let bytes = content.len() as u64;
        match lost.single {
            Some(single) => {
                let large = (single, lost.length);
                let from = source.machine();
                match fetch(self.table, &self.plan.mount, large, from).await? {
                    Fetched::Here => {}
                    Fetched::Gone => return Ok(false),
                }
            }
            None if bytes != lost.length || crc32c(&content) != lost.payload_crc => {
                return Ok(false);
            }
            None => {}
        }
        self.tell(AbsorbArchived(lost, content)).await?;
        lock(&self.tally).archived += 1;
        self.limiter.spend(bytes).await;
        Ok(true)
    }
}
