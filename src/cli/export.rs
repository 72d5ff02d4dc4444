//! `folio export MANIFEST DIR`: the files of a manifest, below DIR.
//!
//! Invariant: nothing is written outside of DIR. Paths of a manifest have no `..` and no leading `/`
//! ([`decode_path`](super::manifest::decode_path)), and folders below DIR are never reached through a link. Each file
//! appears whole, with the hash of the manifest, or not at all.

use super::args;
use super::context::Context;
use super::exit::{Failure, Outcome};
use super::manifest::{Entry, Manifest, Sha256Bytes};
use super::output;
use super::progress::Progress;
use crate::client::{Client, GetOptions};
use crate::messages::error::ErrorCode;
use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;

/// `folio export`.
pub(super) async fn export(context: &Context, args: args::Export) -> Outcome {
    let manifest = Manifest::load(&args.manifest)?;
    let client = context.connect_with(args.jobs.div_ceil(16)).await?;
    std::fs::create_dir_all(&args.dir).map_err(|e| Failure::io("create", &args.dir, &e))?;
    let progress = Progress::files();
    progress.start(manifest.entries.len() as u64);
    let (client, root) = (&client, &args.dir);
    let mut results = stream::iter(&manifest.entries)
        .map(|entry| async move { (entry, one(client, root, entry).await) })
        .buffer_unordered(args.jobs);
    let (mut written, mut failures) = (0u64, Vec::new());
    while let Some((entry, result)) = results.next().await {
        progress.step();
        match result {
            Ok(()) => written += 1,
            Err(failure) => {
                let failure = failure.about(root.join(&entry.path).display());
                progress.problem(&failure.message);
                failures.push(failure);
            }
        }
    }
    drop(progress);
    let failed = failures.len();
    context.print(
        &serde_json::json!({"written": written, "failed": failed}),
        format!("{written} written, {failed} failed"),
    )?;
    // One kind of failure keeps its exit code: a cluster that is away is 5, an object that is gone 3.
    let Some(first) = failures.first() else { return Ok(()) };
    let alike = failures.iter().all(|failure| failure.exit_code() == first.exit_code());
    Err(Failure::new(
        if alike { first.code } else { ErrorCode::Failed },
        format!("{failed} files were not written; each is named above"),
        "repeat the same command when that is mended",
    ))
}

async fn one(client: &Client, root: &Path, entry: &Entry) -> Outcome {
    let place = make_folders(root, &entry.path)?;
    let mut object = client.get(&entry.id, GetOptions::default()).await?;
    let mut file = output::File::create(&place).await?;
    let mut hash = Sha256::new();
    while let Some(bytes) = object.chunk().await? {
        hash.update(&bytes);
        file.writer().write_all(&bytes).await.map_err(|e| Failure::io("write", &place, &e))?;
    }
    file.writer().flush().await.map_err(|e| Failure::io("write", &place, &e))?;
    let found: Sha256Bytes = hash.finalize().into();
    if found != entry.sha256 {
        return Err(Failure::failed(
            format!("{} has another content than the manifest says", entry.id),
            "it was modified since; import again, or write a manifest of what is there",
        ));
    }
    file.finish().await
}

/// Creates the folders above a file, refusing links on the way.
fn make_folders(root: &Path, path: &Path) -> Outcome<PathBuf> {
    let mut folder = root.to_owned();
    if let Some(parent) = path.parent() {
        for part in parent.components() {
            folder.push(part);
            match std::fs::create_dir(&folder) {
                Ok(()) => continue,
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Failure::io("create", &folder, &e)),
            }
            let metadata = std::fs::symlink_metadata(&folder);
            if !metadata.is_ok_and(|metadata| metadata.is_dir()) {
                return Err(Failure::failed(
                    format!("{} is in the way and no folder", folder.display()),
                    "export into an empty folder",
                ));
            }
        }
    }
    let place = root.join(path);
    match std::fs::symlink_metadata(&place) {
        Ok(metadata) if !metadata.is_file() => Err(Failure::failed(
            format!("{} is in the way and no regular file", place.display()),
            "export into an empty folder",
        )),
        Ok(_) | Err(_) => Ok(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_below_the_folder_never_leads_out_of_it() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().join("root");
        std::fs::create_dir(&root).expect("mkdir");
        std::fs::create_dir(dir.path().join("outside")).expect("mkdir");
        std::os::unix::fs::symlink("../outside", root.join("in")).expect("link");
        std::os::unix::fs::symlink("../outside/f", root.join("g")).expect("link");
        assert!(make_folders(&root, Path::new("in/f")).is_err());
        assert!(make_folders(&root, Path::new("g")).is_err());
        assert_eq!(make_folders(&root, Path::new("a/b/f")).expect("fine"), root.join("a/b/f"));
        assert!(root.join("a/b").is_dir());
    }
}
