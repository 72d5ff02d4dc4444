//! What lies below a folder.
#![allow(clippy::disallowed_methods, reason = "tests may touch files")]
#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::path::{Path, PathBuf};

/// All files below a folder, in the order of their paths; none if there is no such folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut todo) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                todo.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Segments of the logs below a folder, the oldest of each log first.
pub fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = files_below(folder).into_iter();
    files.filter(|path| path.extension().is_some_and(|ext| ext == "log")).collect()
}
