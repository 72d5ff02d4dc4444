//! A file that appears whole or not at all: written beside its place, then renamed over it.

use super::exit::{Failure, Outcome};
use std::path::{Path, PathBuf};

/// A file being written.
pub(super) struct File {
    writer: tokio::fs::File,
    place: PathBuf,
    /// Where the bytes are until [`File::finish`]; `None` for what is no regular file (a pipe, /dev/null).
    temporary: Option<PathBuf>,
}

impl File {
    /// Begins a file; what was there stays until [`File::finish`].
    ///
    /// # Errors
    /// It cannot be created there.
    pub(super) async fn create(path: &Path) -> Outcome<Self> {
        let io = |e: std::io::Error| Failure::io("write", path, &e);
        // A link is written through, as `>` does.
        let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        match std::fs::metadata(&place) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(Failure::usage(
                    format!("{} is a folder", path.display()),
                    "name a file",
                ));
            }
            Ok(metadata) if !metadata.is_file() => {
                let writer =
                    tokio::fs::OpenOptions::new().write(true).open(&place).await.map_err(io)?;
                return Ok(Self { writer, place, temporary: None });
            }
            Ok(_) | Err(_) => {}
        }
        let name = place.file_name().ok_or_else(|| {
            Failure::usage(format!("{} names no file", path.display()), "name a file")
        })?;
        for attempt in 0..100u32 {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{attempt}.tmp", std::process::id()));
            // A long name would not bear the rest.
            if hidden.len() > 255 {
                hidden = format!(".folio-{}-{attempt}.tmp", std::process::id()).into();
            }
            let temporary = place.with_file_name(hidden);
            let created =
                tokio::fs::OpenOptions::new().write(true).create_new(true).open(&temporary).await;
            match created {
                Ok(writer) => return Ok(Self { writer, place, temporary: Some(temporary) }),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io(e)),
            }
        }
        Err(Failure::failed(
            format!("cannot find a name beside {}", path.display()),
            "remove the files named .*.tmp that were left there, or name another path",
        ))
    }

    /// Where to write.
    pub(super) const fn writer(&mut self) -> &mut tokio::fs::File {
        &mut self.writer
    }

    /// Puts it in its place, on stable storage.
    ///
    /// # Errors
    /// It cannot be synced or renamed.
    pub(super) async fn finish(mut self) -> Outcome {
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        let done = match self.writer.sync_all().await {
            Ok(()) => std::fs::rename(&temporary, &self.place),
            Err(e) => Err(e),
        };
        done.map_err(|e| {
            self.temporary = Some(temporary);
            Failure::io("write", &self.place, &e)
        })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nothing more can be done about a file that does not go away.
            drop(std::fs::remove_file(temporary));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn an_unfinished_file_never_replaces_and_never_stays() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("f");
        std::fs::write(&path, b"old").expect("write");
        let mut file = File::create(&path).await.expect("create");
        file.writer().write_all(b"half").await.expect("write");
        file.writer().flush().await.expect("flush");
        drop(file);
        assert_eq!(std::fs::read(&path).expect("read"), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 1);
        let mut file = File::create(&path).await.expect("create");
        file.writer().write_all(b"new").await.expect("write");
        file.finish().await.expect("finish");
        assert_eq!(std::fs::read(&path).expect("read"), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[tokio::test]
    async fn what_is_no_file_is_never_renamed_over() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(File::create(dir.path()).await.err().map(|e| e.exit_code()), Some(2));
        let file = File::create(Path::new("/dev/null")).await.expect("a device is written");
        assert!(file.temporary.is_none());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("target", &link).expect("link");
        std::fs::write(dir.path().join("target"), b"old").expect("write");
        File::create(&link).await.expect("create").finish().await.expect("finish");
        assert!(std::fs::symlink_metadata(&link).expect("stat").is_symlink());
    }
}
