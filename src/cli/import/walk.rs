//! The regular files below a folder, in a stable order. Links are not followed, other kinds are left out.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Regular files, relative to the folder, sorted folder by folder.
    pub files: Vec<PathBuf>,
    /// Folders and names that could not be read, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Links, pipes, sockets and devices.
    pub left_out: usize,
}

/// Walks a folder. `own` are files of the import itself, to be left out wherever they lie. Blocking.
///
/// # Errors
/// The folder itself cannot be read.
pub(super) fn walk(root: &Path, own: &[PathBuf]) -> std::io::Result<Found> {
    let own: Vec<(u64, u64)> = own
        .iter()
        .filter_map(|path| std::fs::metadata(path).ok())
        .map(|metadata| (metadata.dev(), metadata.ino()))
        .collect();
    // The folder itself may be a link; nothing below it.
    drop(std::fs::read_dir(root)?);
    let mut found = Found::default();
    let mut todo = vec![PathBuf::new()];
    while let Some(folder) = todo.pop() {
        let mut folders = Vec::new();
        let mut names = match read_names(&root.join(&folder)) {
            Ok(names) => names,
            Err(e) => {
                found.unreadable.push((folder, e.to_string()));
                continue;
            }
        };
        names.sort();
        for name in names {
            let path = folder.join(name);
            match std::fs::symlink_metadata(root.join(&path)) {
                Ok(metadata) if metadata.is_dir() => folders.push(path),
                Ok(metadata) if own.contains(&(metadata.dev(), metadata.ino())) => {}
                Ok(metadata) if metadata.is_file() => found.files.push(path),
                Ok(_) => found.left_out += 1,
                Err(e) => found.unreadable.push((path, e.to_string())),
            }
        }
        todo.extend(folders.into_iter().rev());
    }
    Ok(found)
}

fn read_names(folder: &Path) -> std::io::Result<Vec<std::ffi::OsString>> {
    std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn links_are_not_followed_and_own_files_not_imported() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("b/c")).expect("mkdir");
        std::fs::write(root.join("b/c/x"), b"x").expect("write");
        std::fs::write(root.join("a"), b"a").expect("write");
        std::fs::write(root.join("MANIFEST"), b"").expect("write");
        let odd = PathBuf::from(std::ffi::OsString::from_vec(b"\xff\n".to_vec()));
        std::fs::write(root.join(&odd), b"odd").expect("write");
        std::os::unix::fs::symlink(&root, root.join("loop")).expect("link");
        std::os::unix::fs::symlink(root.join("a"), root.join("z")).expect("link");
        let found = walk(&root, &[root.join("MANIFEST")]).expect("walks");
        assert_eq!(found.files, [PathBuf::from("a"), odd, PathBuf::from("b/c/x")]);
        assert_eq!((found.left_out, found.unreadable.len()), (2, 0));
        assert!(walk(&root.join("a"), &[]).is_err());
    }
}
