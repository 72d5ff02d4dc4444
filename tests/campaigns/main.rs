//! The long campaigns: too long, too large or too privileged for every `cargo test`, so each is `#[ignore]`d.
//!
//! ```text
//! cargo test --release --test campaigns -- --ignored --nocapture --test-threads 1 [NAME]
//! ```
//! docs/TESTING.md has a row per campaign: what it shows, its knobs, how long it takes, what it needs. What a machine
//! does not permit is skipped with a line "skipped: ...". FOLIO_CAMPAIGN_DIR chooses the disk.

#![allow(clippy::disallowed_methods, reason = "tests may touch files, clock and threads")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]

mod console;
mod edits;
#[path = "../common/files.rs"]
mod files;
mod full;
#[path = "../blackbox/harness/mod.rs"]
mod harness;
mod mirrors;
mod partition;
mod refill;
mod returning;
mod rot;
mod scale;
mod tree;
mod upgrade;

use harness::cluster::Cluster;
use std::path::Path;
use tempfile::TempDir;

/// A folder on the disk that the campaign is to use.
fn campaign_dir() -> TempDir {
    match std::env::var_os("FOLIO_CAMPAIGN_DIR") {
        Some(parent) => TempDir::new_in(parent).expect("temporary folder"),
        None => TempDir::new().expect("temporary folder"),
    }
}

/// A cluster on that disk: one tracker, one storage per syncgroup.
fn cluster(syncgroups: &[&str], mounts: u64) -> Cluster {
    Cluster::in_dir(campaign_dir(), 1, syncgroups, mounts)
}

/// Space that files below a folder take on the disk, in bytes.
fn disk_usage(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    let mut todo = vec![dir.to_owned()];
    while let Some(folder) = todo.pop() {
        // A file or folder may go away while we look.
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            match std::fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => todo.push(path),
                Ok(meta) => sum += meta.blocks() * 512,
                Err(_) => {}
            }
        }
    }
    sum
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
