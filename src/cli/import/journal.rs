//! `MANIFEST.folio-journal`: what an import is about to store, written before it is stored.
//!
//! Invariants:
//! - Before a put leaves, its intent is durable here: where it goes and with which token. After the put is acknowledged its
//!   line is durable in the manifest. So after a kill at any instant each object is in the manifest, or the intent tells how
//!   to ask again: the same token at the same storage answers with the same id and stores nothing twice (R2).
//! - An intent is settled exactly when the manifest has a line for its path. The last intent of a path counts: a later one
//!   is only written when the former was certainly not carried out.
//! - The open journal is locked (`flock`): one import per manifest.
//!
//! The first line says that the manifest was found whole: only then a torn line in it can be ours. After it there is one
//! intent per line, tab separated, the last field a CRC32C of all before it. From the first line that does not check
//! on, nothing was ever acknowledged by `fdatasync`, and nothing was sent: it is cut off.

use crate::cli::exit::{Failure, Outcome};
use crate::cli::manifest::{Sha256Bytes, decode_path, encode_path, lines};
use crate::client::Place;
use crate::format::crc::crc32c;
use crate::format::ids::Token;
use data_encoding::HEXLOWER;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One put that may have been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Intent {
    /// With which token.
    pub token: Token,
    /// To where.
    pub place: Place,
    /// Bytes.
    pub length: u64,
    /// Of the content.
    pub sha256: Sha256Bytes,
    /// Below the imported folder.
    pub path: PathBuf,
}

impl Intent {
    pub(super) fn line(&self) -> String {
        let body = format!(
            "put\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            HEXLOWER.encode(&self.token.client),
            self.token.sequence,
            self.token.lowest_unanswered,
            self.token.issued_ms,
            self.place.group,
            self.place.syncgroup,
            self.place.machine,
            self.length,
            HEXLOWER.encode(&self.sha256),
            encode_path(&self.path),
        );
        checked(&body)
    }

    fn parse(body: &str) -> Option<Self> {
        let fields: Vec<&str> = body.split('\t').collect();
        let [kind, client, sequence, lowest, issued, group, syncgroup, machine, length, sha, path] =
            fields.as_slice()
        else {
            return None;
        };
        if *kind != "put" {
            return None;
        }
        Some(Self {
            token: Token {
                client: HEXLOWER.decode(client.as_bytes()).ok()?.try_into().ok()?,
                sequence: sequence.parse().ok()?,
                lowest_unanswered: lowest.parse().ok()?,
                issued_ms: issued.parse().ok()?,
            },
            place: Place {
                group: (*group).to_owned(),
                syncgroup: (*syncgroup).to_owned(),
                machine: machine.parse().ok()?,
            },
            length: length.parse().ok()?,
            sha256: HEXLOWER.decode(sha.as_bytes()).ok()?.try_into().ok()?,
            path: decode_path(path).ok()?,
        })
    }
}

/// What the first line says.
const BEGUN: &str = "begun";

/// A line with its checksum and its end.
fn checked(body: &str) -> String {
    format!("{body}\t{:08x}\n", crc32c(body.as_bytes()))
}

/// What a line says, if it checks.
fn body_of(line: &[u8]) -> Option<&str> {
    let (body, check) = std::str::from_utf8(line).ok()?.rsplit_once('\t')?;
    (format!("{:08x}", crc32c(body.as_bytes())) == check).then_some(body)
}

/// The open, locked journal of one manifest.
pub(super) struct Journal {
    path: PathBuf,
    /// Positioned at its end.
    file: File,
    /// Last intent of each path.
    pub intents: HashMap<PathBuf, Intent>,
    /// Whether there was one before: an import was interrupted, or left something unsettled.
    pub resumed: bool,
}

impl Journal {
    /// Where the journal of a manifest lies.
    pub(super) fn path_for(manifest: &Path) -> PathBuf {
        let mut name = manifest.as_os_str().to_owned();
        name.push(".folio-journal");
        PathBuf::from(name)
    }

    /// Opens or creates it, takes the lock, reads what is pending.
    pub(super) fn open(manifest: &Path) -> Outcome<Self> {
        let path = Self::path_for(manifest);
        let io = |e: std::io::Error| Failure::io("open import journal", &path, &e);
        let mut file = loop {
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(io)?;
            lock(&file, manifest)?;
            // The import before us removes its journal while it holds the lock: then this one is nobody's.
            let same = |other: std::fs::Metadata| -> std::io::Result<bool> {
                let ours = file.metadata()?;
                Ok(ours.dev() == other.dev() && ours.ino() == other.ino())
            };
            if std::fs::metadata(&path).and_then(same).unwrap_or(false) {
                break file;
            }
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let (intents, good) = read_intents(&bytes);
        file.set_len(good).map_err(io)?;
        file.seek(SeekFrom::Start(good)).map_err(io)?;
        file.sync_all().map_err(io)?;
        sync_folder(&path)?;
        Ok(Self { path, file, intents, resumed: good > 0 })
    }

    /// The manifest was found whole and is about to grow.
    pub(super) fn begin(&mut self) -> Outcome {
        if self.resumed {
            return Ok(());
        }
        self.file
            .write_all(checked(BEGUN).as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|e| Failure::io("write import journal", &self.path, &e))
    }

    /// Another handle; the lock is held while any of them is open.
    pub(super) fn handle(&self) -> Outcome<File> {
        self.file.try_clone().map_err(|e| Failure::io("open import journal", &self.path, &e))
    }

    /// Everything is settled: the manifest alone tells the story.
    pub(super) fn remove(self) -> Outcome {
        std::fs::remove_file(&self.path)
            .map_err(|e| Failure::io("remove import journal", &self.path, &e))?;
        sync_folder(&self.path)
    }
}

fn lock(file: &File, manifest: &Path) -> Outcome {
    use rustix::fs::{FlockOperation, flock};
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
        rustix::io::Errno::WOULDBLOCK => Failure::failed(
            format!("another import is writing {}", manifest.display()),
            "wait until it has finished, or stop it",
        ),
        e => Failure::failed(format!("cannot lock the journal of {}: {e}", manifest.display()), ""),
    })
}

/// The intents, and how many bytes of the file they take up.
fn read_intents(bytes: &[u8]) -> (HashMap<PathBuf, Intent>, u64) {
    let mut intents = HashMap::new();
    let mut good = 0;
    for (_, line) in lines(bytes) {
        let end = good + line.len() + 1;
        // A line without its end is torn even if it happens to check.
        let Some(body) = (end <= bytes.len()).then(|| body_of(line)).flatten() else { break };
        if body != BEGUN {
            let Some(intent) = Intent::parse(body) else { break };
            intents.insert(intent.path.clone(), intent);
        }
        good = end;
    }
    (intents, good as u64)
}

/// Makes the name of a file durable.
pub(super) fn sync_folder(path: &Path) -> Outcome {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| Failure::io("sync folder", folder, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(path: &str, sequence: u64) -> Intent {
        Intent {
            token: Token { client: [9; 16], sequence, lowest_unanswered: 1, issued_ms: 5 },
            place: Place { group: "g".into(), syncgroup: "a".into(), machine: 2 },
            length: 3,
            sha256: [1; 32],
            path: PathBuf::from(path),
        }
    }

    #[test]
    fn a_torn_or_damaged_tail_is_never_an_intent() {
        let whole = format!("{}{}", intent("a", 1).line(), intent("b\tc", 2).line());
        let first = intent("a", 1).line().len();
        for cut in 0..=whole.len() {
            let (intents, good) = read_intents(&whole.as_bytes()[..cut]);
            let expected = usize::from(cut >= first) + usize::from(cut == whole.len());
            assert_eq!(intents.len(), expected, "cut at {cut}");
            assert!(good as usize <= cut);
        }
        let mut damaged = whole.clone().into_bytes();
        damaged[first + 10] ^= 1;
        assert_eq!(read_intents(&damaged).0.len(), 1);
        let (intents, _) = read_intents(whole.as_bytes());
        assert_eq!(intents[Path::new("b\tc")], intent("b\tc", 2));
    }

    #[test]
    fn only_an_import_that_began_counts_as_interrupted() {
        let dir = tempfile::tempdir().expect("dir");
        let manifest = dir.path().join("M");
        assert!(!Journal::open(&manifest).expect("first").resumed);
        let mut journal = Journal::open(&manifest).expect("second");
        assert!(!journal.resumed, "the first one found the manifest broken");
        journal.begin().expect("begins");
        drop(journal);
        assert!(Journal::open(&manifest).expect("third").resumed);
    }

    #[test]
    fn two_imports_never_share_a_manifest() {
        let dir = tempfile::tempdir().expect("dir");
        let manifest = dir.path().join("M");
        let first = Journal::open(&manifest).expect("first");
        assert!(!first.resumed);
        let second = Journal::open(&manifest).map(|_| ()).expect_err("locked");
        assert!(second.message.contains("another import"), "{second:?}");
        first.remove().expect("removed");
        assert!(!Journal::open(&manifest).expect("third").resumed);
    }
}
