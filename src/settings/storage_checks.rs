//! Rules of `storage.toml` across keys: mounts apart from each other, sizes that fit into each other.

use super::reader::Reader;
use super::storage::{MountSettings, StorageSettings};
use super::units::size_text;
use std::path::{Path, PathBuf};

/// How many mounts a storage can have (`mount index` is one byte).
const MOUNTS_MAX: usize = 256;

/// `.folio-state` beside the mount with the lowest index.
pub(super) fn state_dir_beside(mounts: &[MountSettings]) -> PathBuf {
    let first = mounts.iter().min_by_key(|mount| mount.index).map(|mount| plain(&mount.path));
    first.as_deref().and_then(Path::parent).unwrap_or_else(|| Path::new(".")).join(".folio-state")
}

pub(super) fn check(reader: &mut Reader, settings: &StorageSettings) {
    check_mounts(reader, settings);
    check_store(reader, settings);
    if settings.sync.retry_max < settings.sync.retry_min {
        reader.refuse(
            "sync.retry_max",
            format!("{:?}", settings.sync.retry_max),
            format!("at least `sync.retry_min` ({:?})", settings.sync.retry_min),
        );
    }
    if settings.advertise.is_none() && settings.listen.data.ip().is_unspecified() {
        reader.refuse(
            "advertise",
            format!("nothing, with `listen` on {}", settings.listen.data),
            "HOST:PORT at which peers and clients reach this machine",
        );
    }
    if let Some(advertise) = &settings.advertise
        && (advertise.starts_with("0.0.0.0:") || advertise.starts_with("[::]:"))
    {
        reader.refuse("advertise", advertise.clone(), "HOST:PORT that others can connect to");
    }
}

fn check_mounts(reader: &mut Reader, settings: &StorageSettings) {
    let mounts = &settings.mounts;
    if mounts.is_empty() || mounts.len() > MOUNTS_MAX {
        reader.refuse(
            "mounts",
            mounts.len().to_string(),
            format!("1 to {MOUNTS_MAX} of [[mounts]]"),
        );
    }
    let paths: Vec<PathBuf> = mounts.iter().map(|mount| plain(&mount.path)).collect();
    for (i, mount) in mounts.iter().enumerate() {
        for (j, other) in mounts[..i].iter().enumerate() {
            if mount.index == other.index {
                reader.refuse(
                    &format!("mounts[{i}].index"),
                    format!("{}, as in mounts[{j}]", mount.index),
                    "an index that no other mount has",
                );
            }
            if paths[i].starts_with(&paths[j]) || paths[j].starts_with(&paths[i]) {
                reader.refuse(
                    &format!("mounts[{i}].path"),
                    format!("{:?}, and mounts[{j}] is {:?}", mount.path, other.path),
                    "a folder that is neither another mount, nor in one, nor around one",
                );
            }
        }
    }
    let state_dir = plain(&settings.state_dir);
    if let Some(i) = paths.iter().position(|path| state_dir.starts_with(path)) {
        reader.refuse(
            "state_dir",
            format!("{:?}, inside mounts[{i}]", settings.state_dir),
            "a folder outside of every mount: what it remembers must survive the loss of a disk",
        );
    }
}

fn check_store(reader: &mut Reader, settings: &StorageSettings) {
    let store = &settings.store;
    let half = store.chunkfile_size / 2;
    if store.single_file_threshold > half {
        reader.refuse(
            "store.single_file_threshold",
            size_text(store.single_file_threshold),
            format!("at most half of `store.chunkfile_size`, {}", size_text(half)),
        );
    }
    let grown = store.reserve.bytes_for(store.single_file_threshold);
    if store.single_file_threshold.saturating_add(grown) > store.chunkfile_size * 3 / 4 {
        reader.refuse(
            "store.reserve",
            format!("{} more for {}", size_text(grown), size_text(store.single_file_threshold)),
            "so much that the largest object of a chunkfile fits into three quarters of it",
        );
    }
    if settings.limits.in_flight_bytes < store.single_file_threshold * 2 {
        reader.refuse(
            "limits.in_flight_bytes",
            size_text(settings.limits.in_flight_bytes),
            "at least twice `store.single_file_threshold`",
        );
    }
}

/// A path as the system would see it as far as it exists: absolute, links resolved, `.` and `..` removed.
fn plain(path: &Path) -> PathBuf {
    if let Ok(resolved) = path.canonicalize() {
        return resolved;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut out = PathBuf::new();
    for part in absolute.components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            std::path::Component::CurDir => {}
            part => out.push(part),
        }
    }
    // What exists of it may be reached by a link.
    match (out.parent(), out.file_name()) {
        (Some(parent), Some(name)) => match parent.canonicalize() {
            Ok(parent) => parent.join(name),
            Err(_) => out,
        },
        _ => out,
    }
}
