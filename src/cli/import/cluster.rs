//! The cluster as an import sees it, and the command itself.

use super::content::{Checked, Content, Data};
use super::{ObjectStore, Summary, import};
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::progress::Progress;
use crate::cli::say;
use crate::client::{Body, Client, Lease, Pinned, Place, PutOptions};
use crate::format::file_id::FileId;
use crate::format::ids::Token;
use crate::messages::error::ErrorCode;
use crate::messages::heads::ObjectState;
use std::path::Path;

struct Cluster {
    client: Client,
    group: Option<String>,
}

fn body(content: &Content) -> Outcome<Body> {
    match &content.data {
        Data::Small(bytes) => Ok(Body::bytes(bytes.clone())),
        Data::Large(path) => {
            let file = Checked::open(path, content).map_err(|e| Failure::io("read", path, &e))?;
            Ok(Body::reader(Box::new(file), Some(content.length)))
        }
    }
}

impl Cluster {
    /// A group that is not there, or one that has to be named, would fail every file for the same reason. Whatever else
    /// keeps new objects out does not matter yet: there may be none, and edits go elsewhere.
    async fn check_group(&self) -> Outcome {
        match self.client.place(self.group.as_deref(), 0).await {
            Err(error) if matches!(error.code, ErrorCode::UnknownGroup | ErrorCode::Usage) => {
                Err(error.into())
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl ObjectStore for Cluster {
    type Lease = Lease;

    async fn place(&self, length: u64) -> Outcome<Place> {
        Ok(self.client.place(self.group.as_deref(), length).await?)
    }

    async fn lease(&self, place: &Place) -> Outcome<(Token, Lease)> {
        let lease = self.client.lease(place).await?;
        Ok((lease.token(), lease))
    }

    async fn put(
        &self,
        content: &Content,
        place: &Place,
        token: Token,
        ext: Option<&str>,
    ) -> Outcome<FileId> {
        let options = PutOptions {
            ext: ext.map(str::to_owned),
            pinned: Some(Pinned { place: place.clone(), token }),
            ..PutOptions::default()
        };
        Ok(self.client.put(body(content)?, options).await?.id)
    }

    async fn modify(&self, id: &FileId, content: &Content) -> Outcome {
        self.client.modify(id, body(content)?, None).await?;
        Ok(())
    }

    async fn holds(&self, id: &FileId, content: &Content) -> Outcome<bool> {
        let found = self.client.stat(id, None).await?.answer;
        Ok(found.state == ObjectState::Live
            && (found.length, found.crc32c) == (content.length, content.crc32c))
    }

    async fn delete(&self, id: &FileId) -> Outcome {
        self.client.delete(id, None).await?;
        Ok(())
    }
}

/// `folio import DIR -m MANIFEST [--jobs N] [--group G]`.
///
/// # Errors
/// Nothing could be begun, or some files were not stored (exit 1, after all others).
pub(in crate::cli) async fn run(
    context: &Context,
    folder: &Path,
    manifest: &Path,
    group: Option<String>,
    jobs: usize,
) -> Outcome {
    let client = context.connect_with(jobs.div_ceil(16)).await?;
    let cluster = Cluster { client, group };
    cluster.check_group().await?;
    let progress = Progress::files();
    let summary = import(&cluster, folder, manifest, jobs, &progress).await?;
    drop(progress);
    let Summary { stored, modified, unchanged, failed, left_out } = summary;
    if left_out > 0 && !context.json {
        say::aside(format_args!(
            "folio: {left_out} links, pipes, sockets or devices were left out"
        ));
    }
    context.print(
        &serde_json::json!({"stored": stored, "modified": modified, "unchanged": unchanged,
            "failed": failed, "left_out": left_out}),
        format!("{stored} stored, {modified} modified, {unchanged} unchanged, {failed} failed"),
    )?;
    if failed > 0 {
        return Err(Failure::failed(
            format!("{failed} files were not stored; each is named above"),
            "mend them and repeat the same command: what is stored stays stored",
        ));
    }
    Ok(())
}
