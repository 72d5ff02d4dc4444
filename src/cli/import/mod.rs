//! `folio import DIR -m MANIFEST`: every regular file below DIR becomes an object, once.
//!
//! Promise: stopped at any instant, also by `kill -9`, and repeated, it neither loses nor doubles anything. See
//! [`journal`] for how. A file whose content differs from its line is modified: same id, newer line. Files that cannot be
//! read or that change meanwhile are reported and counted, the others go on.

mod append;
mod cluster;
mod content;
mod journal;
mod ledger;
#[cfg(test)]
mod tests;
mod walk;

use super::exit::{Failure, Outcome};
use super::manifest::Entry;
use super::progress::Progress;
use super::say;
use crate::client::Place;
use crate::format::file_id::{FileId, is_ext};
use crate::format::ids::Token;
use crate::messages::error::{ErrorCode, Retry};
use append::Appender;
pub(super) use cluster::run;
use content::Content;
use futures_util::{StreamExt, stream};
use journal::{Intent, Journal};
use ledger::Ledger;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What an import needs of a cluster.
pub(super) trait ObjectStore {
    /// Keeps a token alive: as long as it is held, storages remember what was done with the token.
    type Lease;

    /// A storage that takes a new object of so many bytes now.
    async fn place(&self, length: u64) -> Outcome<Place>;
    /// A fresh token for a put there.
    async fn lease(&self, place: &Place) -> Outcome<(Token, Self::Lease)>;
    /// Stores a content at that storage; the same token again answers with the same id.
    async fn put(
        &self,
        content: &Content,
        place: &Place,
        token: Token,
        ext: Option<&str>,
    ) -> Outcome<FileId>;
    /// Replaces a content.
    async fn modify(&self, id: &FileId, content: &Content) -> Outcome;
    /// Whether the object has this length and checksum.
    async fn holds(&self, id: &FileId, content: &Content) -> Outcome<bool>;
    /// Deletes.
    async fn delete(&self, id: &FileId) -> Outcome;
}

/// What became of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// New objects.
    pub stored: u64,
    /// Objects with a new content.
    pub modified: u64,
    /// Files that are as the manifest says.
    pub unchanged: u64,
    /// Files that were not stored.
    pub failed: u64,
    /// Links, pipes, sockets and devices.
    pub left_out: u64,
}

/// What became of one file.
enum Done {
    Stored,
    Modified,
    Unchanged,
}

/// Why one file was not stored.
enum Problem {
    /// The others go on.
    File(Failure),
    /// Manifest or journal cannot be written: nothing can go on.
    Fatal(Failure),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::File(failure)
    }
}

/// So many files in a row that found no cluster end an import; it goes on when it is repeated.
const UNAVAILABLE_MAX: u32 = 32;
/// Storages tried for one new object.
const PLACES_MAX: u32 = 8;
/// First pause after a storage that could not be reached; doubles, so that a storage that is restarted is waited for.
const PAUSE_MIN: Duration = Duration::from_millis(50);

struct Import<'a, S: ObjectStore> {
    store: &'a S,
    root: &'a Path,
    journal: Appender,
    manifest: Appender,
    /// Lines of the manifest when the import began.
    known: HashMap<PathBuf, Entry>,
    /// Intents of an interrupted import.
    intents: HashMap<PathBuf, Intent>,
    /// Paths with an intent and without a line.
    pending: RefCell<HashSet<PathBuf>>,
    /// Of puts that may have been carried out: their tokens must not be forgotten.
    unsettled: RefCell<Vec<S::Lease>>,
    /// Whether a line was superseded.
    superseded: RefCell<bool>,
}

/// Runs a whole import; `jobs` files at a time.
///
/// # Errors
/// The folder, the manifest or the journal cannot be used, or the cluster is gone.
pub(super) async fn import<S: ObjectStore>(
    store: &S,
    root: &Path,
    manifest_path: &Path,
    jobs: usize,
    progress: &Progress,
) -> Outcome<Summary> {
    drop(std::fs::read_dir(root).map_err(|e| Failure::io("read folder", root, &e))?);
    let mut journal = Journal::open(manifest_path)?;
    let ledger = match Ledger::open(manifest_path, journal.resumed, &journal.intents) {
        Ok(ledger) => ledger,
        Err(failure) if journal.resumed => return Err(failure),
        Err(failure) => {
            journal.remove()?;
            return Err(failure);
        }
    };
    journal.begin()?;
    let own = [manifest_path.to_owned(), Journal::path_for(manifest_path)];
    let found = walk::walk(root, &own).map_err(|e| Failure::io("read folder", root, &e))?;
    progress.start(found.files.len() as u64);
    let mut known = HashMap::new();
    for entry in ledger.manifest.entries {
        known.insert(entry.path.clone(), entry);
    }
    let intents: HashMap<_, _> = journal
        .intents
        .iter()
        .filter(|(path, _)| !known.contains_key(*path))
        .map(|(path, intent)| (path.clone(), intent.clone()))
        .collect();
    let import = Import {
        store,
        root,
        journal: Appender::new(journal.handle()?, journal.handle()?),
        manifest: Appender::new(ledger.file, journal.handle()?),
        pending: RefCell::new(intents.keys().cloned().collect()),
        known,
        intents,
        unsettled: RefCell::default(),
        superseded: RefCell::new(ledger.manifest.superseded > 0),
    };
    let mut summary = Summary { left_out: found.left_out as u64, ..Summary::default() };
    for (path, why) in &found.unreadable {
        summary.failed += 1;
        progress.problem(&format!("{}: {why}", root.join(path).display()));
    }
    import.all(&found.files, jobs, progress, &mut summary).await?;
    if found.unreadable.is_empty() {
        let seen: HashSet<&PathBuf> = found.files.iter().collect();
        import.withdraw_vanished(&seen, progress).await;
    }
    let settled = import.pending.borrow().is_empty();
    if *import.superseded.borrow() {
        ledger::compact(manifest_path)?;
    }
    drop(import);
    if settled {
        journal.remove()?;
    }
    Ok(summary)
}

impl<S: ObjectStore> Import<'_, S> {
    async fn all(
        &self,
        files: &[PathBuf],
        jobs: usize,
        progress: &Progress,
        summary: &mut Summary,
    ) -> Outcome {
        let mut results =
            stream::iter(files).map(|path| async move { (path, self.file(path).await) });
        let mut results = std::pin::pin!(results.by_ref().buffer_unordered(jobs));
        let mut unavailable = 0;
        while let Some((path, result)) = results.next().await {
            progress.step();
            match result {
                Ok(Done::Stored) => summary.stored += 1,
                Ok(Done::Modified) => summary.modified += 1,
                Ok(Done::Unchanged) => summary.unchanged += 1,
                Err(Problem::Fatal(failure)) => return Err(failure),
                Err(Problem::File(failure)) => {
                    summary.failed += 1;
                    progress
                        .problem(&failure.clone().about(self.root.join(path).display()).message);
                    unavailable += 1;
                    if failure.exit_code() != ErrorCode::Unavailable.exit_code() {
                        unavailable = 0;
                    } else if unavailable >= UNAVAILABLE_MAX {
                        return Err(Failure::new(
                            failure.code,
                            format!("import stopped: {}", failure.message),
                            "repeat the same command when the cluster is back; it goes on where it stopped",
                        ));
                    }
                    continue;
                }
            }
            unavailable = 0;
        }
        Ok(())
    }

    async fn file(&self, path: &Path) -> Result<Done, Problem> {
        let full = self.root.join(path);
        let content = tokio::task::spawn_blocking(move || Content::read(&full))
            .await
            .map_err(|e| Failure::failed(e.to_string(), ""))?
            .map_err(|why| Failure::failed(why, ""))?;
        if let Some(entry) = self.known.get(path) {
            if (entry.length, entry.sha256) == (content.length, content.sha256) {
                return Ok(Done::Unchanged);
            }
            self.store.modify(&entry.id, &content).await.map_err(|failure| {
                let mut failure = failure.about(&entry.id);
                if failure.code == ErrorCode::NotFound {
                    failure.remedy =
                        "remove its line from the manifest to store it anew".to_owned();
                }
                failure
            })?;
            self.superseded.replace(true);
            self.record(path, entry.id.clone(), &content).await?;
            return Ok(Done::Modified);
        }
        let ext = path.extension().and_then(|ext| ext.to_str()).filter(|ext| is_ext(ext));
        if let Some(intent) = self.intents.get(path)
            && let Some(id) = self.settle(intent, &content, ext).await?
        {
            self.record(path, id, &content).await?;
            return Ok(Done::Stored);
        }
        self.put_new(path, &content, ext).await?;
        Ok(Done::Stored)
    }

    async fn put_new(
        &self,
        path: &Path,
        content: &Content,
        ext: Option<&str>,
    ) -> Result<(), Problem> {
        let mut last = None;
        for attempt in 0..PLACES_MAX {
            let place = self.store.place(content.length).await?;
            let (token, lease) = match self.store.lease(&place).await {
                Ok(leased) => leased,
                // It went away just now: the view will name others soon.
                Err(failure) if failure.code.retry() == Retry::Elsewhere => {
                    last = Some(failure);
                    tokio::time::sleep(PAUSE_MIN * 2u32.pow(attempt)).await;
                    continue;
                }
                Err(failure) => return Err(failure.into()),
            };
            let intent = Intent {
                token,
                place,
                length: content.length,
                sha256: content.sha256,
                path: path.to_owned(),
            };
            self.pending.borrow_mut().insert(path.to_owned());
            self.journal.append(intent.line()).await.map_err(|e| fatal("import journal", &e))?;
            match self.store.put(content, &intent.place, token, ext).await {
                Ok(id) => {
                    self.record(path, id, content).await?;
                    // Only now may storages forget the token.
                    drop(lease);
                    return Ok(());
                }
                // Certainly not carried out: another intent may take its place.
                Err(failure)
                    if matches!(failure.code.retry(), Retry::Elsewhere | Retry::FreshToken) =>
                {
                    last = Some(failure);
                }
                Err(failure) => {
                    self.unsettled.borrow_mut().push(lease);
                    return Err(failure.into());
                }
            }
        }
        Err(last.unwrap_or_else(|| Failure::failed("no storage takes it", "")).into())
    }

    /// Asks again for what an interrupted import may have stored. `None`: it was not, store it anew.
    async fn settle(
        &self,
        intent: &Intent,
        content: &Content,
        ext: Option<&str>,
    ) -> Outcome<Option<FileId>> {
        let same = (intent.length, intent.sha256) == (content.length, content.sha256);
        match self.store.put(content, &intent.place, intent.token, ext).await {
            Ok(id) => {
                // The file may have changed since: the token then answers for the former content.
                if !same && !self.store.holds(&id, content).await? {
                    self.store.modify(&id, content).await?;
                }
                Ok(Some(id))
            }
            // Not carried out now, and the storage no longer knows whether it was: at worst one object stays that
            // nobody refers to. Looking for it by its content might find somebody else's.
            Err(failure) if failure.code.retry() == Retry::FreshToken => {
                say::aside(format_args!(
                    "folio: {}: the storage no longer knows whether the interrupted import stored it; storing it anew",
                    intent.path.display()
                ));
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    async fn record(&self, path: &Path, id: FileId, content: &Content) -> Result<(), Problem> {
        let entry =
            Entry { id, length: content.length, sha256: content.sha256, path: path.to_owned() };
        self.manifest.append(entry.line()).await.map_err(|e| fatal("manifest", &e))?;
        self.pending.borrow_mut().remove(path);
        Ok(())
    }

    /// Intents whose file is gone: whatever they stored would be an object that nobody knows.
    async fn withdraw_vanished(&self, seen: &HashSet<&PathBuf>, progress: &Progress) {
        let vanished: Vec<&Intent> =
            self.intents.values().filter(|intent| !seen.contains(&intent.path)).collect();
        for intent in vanished {
            let id = match self.settle(intent, &Content::empty(), None).await {
                Ok(id) => id,
                Err(failure) => {
                    progress.problem(&failure.about(intent.path.display()).message);
                    continue;
                }
            };
            let gone = match id {
                Some(id) => self.store.delete(&id).await,
                None => Ok(()),
            };
            match gone {
                Ok(()) => drop(self.pending.borrow_mut().remove(&intent.path)),
                Err(failure) => progress.problem(&failure.about(intent.path.display()).message),
            }
        }
    }
}

fn fatal(what: &str, why: &str) -> Problem {
    Problem::Fatal(Failure::failed(
        format!("cannot write the {what}: {why}"),
        "repeat the same command when it can be written; it goes on where it stopped",
    ))
}
