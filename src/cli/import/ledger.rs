//! Opening a manifest to go on with it, and putting it in order at the end.
//!
//! A kill can leave a torn last line; power loss a few. They are told from a person's mistake by the journal: it is there
//! exactly while an import has not ended. What is cut off has its intent in the journal, or is the newer line of a file
//! that will be found changed once more, so cutting loses nothing.

use super::journal::{Intent, sync_folder};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::manifest::{Manifest, broken_line, lines, parse_line};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A manifest that can be appended to.
pub(super) struct Ledger {
    /// Positioned at its end.
    pub file: File,
    /// What it says.
    pub manifest: Manifest,
}

impl Ledger {
    /// Opens or creates a manifest. `resumed`: an import was interrupted; `intents`: what it was about to store.
    pub(super) fn open(
        path: &Path,
        resumed: bool,
        intents: &HashMap<PathBuf, Intent>,
    ) -> Outcome<Self> {
        let io = |e: std::io::Error| Failure::io("open manifest", path, &e);
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let keep = good_len(&bytes, resumed, intents)
            .map_err(|(line, problem)| broken_line(path, line, &problem))?;
        bytes.truncate(keep);
        let manifest =
            Manifest::parse(&bytes).map_err(|(line, problem)| broken_line(path, line, &problem))?;
        file.set_len(keep as u64).map_err(io)?;
        file.seek(SeekFrom::Start(keep as u64)).map_err(io)?;
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            file.write_all(b"\n").map_err(io)?;
        }
        file.sync_all().map_err(io)?;
        sync_folder(path)?;
        Ok(Self { file, manifest })
    }
}

/// How many bytes from the beginning are whole lines.
fn good_len(
    bytes: &[u8],
    resumed: bool,
    intents: &HashMap<PathBuf, Intent>,
) -> Result<usize, (usize, String)> {
    let mut at = 0;
    let mut broken: Option<(usize, usize, String)> = None;
    for (number, line) in lines(bytes) {
        let start = at;
        at += line.len() + 1;
        let parsed = parse_line(line);
        let unfinished = at > bytes.len();
        let problem = match parsed {
            Ok(Some(entry)) if unfinished && resumed => {
                // Cut inside the path it would still look like a line.
                let whole = intents.get(&entry.path).is_some_and(|intent| {
                    (intent.length, intent.sha256) == (entry.length, entry.sha256)
                });
                (!whole).then(|| "it is torn".to_owned())
            }
            Ok(_) => None,
            Err(problem) => Some(problem),
        };
        match (problem, &broken) {
            (Some(problem), None) => broken = Some((number, start, problem)),
            (None, Some((number, _, problem))) => return Err((*number, problem.clone())),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    match broken {
        None => Ok(bytes.len()),
        Some((_, start, _)) if resumed => Ok(start),
        Some((number, _, problem)) => Err((number, problem)),
    }
}

/// Rewrites a manifest without the lines that later ones superseded; comments and order stay.
pub(super) fn compact(path: &Path) -> Outcome {
    let bytes = std::fs::read(path).map_err(|e| Failure::io("read manifest", path, &e))?;
    let mut last: HashMap<PathBuf, usize> = HashMap::new();
    let mut all = Vec::new();
    for (number, line) in lines(&bytes) {
        let entry = parse_line(line).map_err(|problem| broken_line(path, number, &problem))?;
        let file = entry.map(|entry| entry.path);
        if let Some(file) = &file {
            last.insert(file.clone(), number);
        }
        all.push((number, line, file));
    }
    let mut out = Vec::with_capacity(bytes.len());
    for (number, line, file) in all {
        if file.is_none_or(|file| last.get(&file) == Some(&number)) {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".folio-tmp");
    let temporary = PathBuf::from(name);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.set_permissions(std::fs::metadata(path)?.permissions())?;
        file.write_all(&out)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|e| Failure::io("rewrite manifest", path, &e))?;
    sync_folder(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::manifest::Entry;
    use crate::cli::manifest::tests::id;

    fn entry(path: &str, length: u64) -> Entry {
        Entry { id: id(1), length, sha256: [1; 32], path: PathBuf::from(path) }
    }

    fn intents_of(entries: &[Entry]) -> HashMap<PathBuf, Intent> {
        let intent = |e: &Entry| Intent {
            token: crate::format::ids::Token::default(),
            place: crate::client::Place { group: "g".into(), syncgroup: "a".into(), machine: 1 },
            length: e.length,
            sha256: e.sha256,
            path: e.path.clone(),
        };
        entries.iter().map(|e| (e.path.clone(), intent(e))).collect()
    }

    #[test]
    fn a_torn_last_line_never_becomes_an_entry_of_another_path() {
        let entries = [entry("first", 1), entry("second/long name", 2)];
        let whole = format!("{}{}", entries[0].line(), entries[1].line());
        let first = entries[0].line().len();
        let intents = intents_of(&entries);
        for cut in first..whole.len() {
            let kept = good_len(&whole.as_bytes()[..cut], true, &intents).expect("repaired");
            // Without its line end the last line counts only when it is all there.
            let expected = if cut == whole.len() - 1 { cut } else { first };
            assert_eq!(kept, expected, "cut at {cut}");
        }
    }

    #[test]
    fn without_an_interrupted_import_nothing_is_cut_and_the_line_is_named() {
        let line = entry("a", 1).line();
        let none = HashMap::new();
        let hand_made = line.trim_end();
        assert_eq!(good_len(hand_made.as_bytes(), false, &none), Ok(hand_made.len()));
        let broken = format!("{line}garbage\n");
        assert_eq!(good_len(broken.as_bytes(), false, &none).expect_err("broken").0, 2);
        assert_eq!(good_len(broken.as_bytes(), true, &none), Ok(line.len()));
        let middle = format!("garbage\n{line}");
        assert_eq!(good_len(middle.as_bytes(), true, &none).expect_err("broken").0, 1);
    }

    #[test]
    fn compacting_keeps_comments_and_the_last_line_of_each_path() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("M");
        let text = format!(
            "# mine\n{}{}{}",
            entry("a", 1).line(),
            entry("b", 1).line(),
            entry("a", 2).line()
        );
        std::fs::write(&path, text).expect("write");
        compact(&path).expect("compacts");
        let expected = format!("# mine\n{}{}", entry("b", 1).line(), entry("a", 2).line());
        assert_eq!(std::fs::read_to_string(&path).expect("read"), expected);
    }
}
