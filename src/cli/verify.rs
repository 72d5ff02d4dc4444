//! `folio verify MANIFEST`: reads every object again and compares length and hash.
//!
//! The last line is `N ok, N missing, N different`. An object that cannot be had, for whatever reason, is missing; bytes
//! that are not those of the manifest, and damage, are different. With `--all-mirrors` every copy counts by itself. A
//! machine that is silent is not waited for with every object; see [`silent`].

mod silent;

use super::args;
use super::context::Context;
use super::exit::{Failure, Outcome};
use super::manifest::{Entry, Manifest, Sha256Bytes, encode_path};
use super::progress::Progress;
use crate::client::{Client, Error, GetOptions};
use crate::cluster::view::ClusterView;
use crate::format::ids::MachineId;
use crate::messages::error::ErrorCode;
use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};
use silent::Silent;
use tokio::time::Instant;

/// What one reading found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Ok,
    Missing(String),
    Different(String),
}

/// `folio verify`.
pub(super) async fn verify(context: &Context, args: args::Verify) -> Outcome {
    let manifest = Manifest::load(&args.manifest)?;
    let client = context.connect_with(args.jobs.div_ceil(16)).await?;
    let view = client.view().await?;
    let progress = Progress::files();
    let mut tasks = Vec::new();
    for entry in &manifest.entries {
        match (args.from, args.all_mirrors) {
            (Some(machine), _) => tasks.push((entry, Some(machine))),
            (None, false) => tasks.push((entry, None)),
            (None, true) => {
                tasks.extend(members(&view, entry).into_iter().map(|m| (entry, Some(m))));
            }
        }
    }
    progress.start(tasks.len() as u64);
    let (mut ok, mut missing, mut different) = (0u64, 0u64, 0u64);
    let reader = &Reader { client, silent: Silent::new(context.timeout) };
    let mut results = stream::iter(tasks)
        .map(|(entry, from)| async move { (entry, from, reader.compare(entry, from).await) })
        .buffer_unordered(args.jobs);
    while let Some((entry, from, found)) = results.next().await {
        progress.step();
        let (count, word, why) = match found {
            Found::Ok => {
                ok += 1;
                continue;
            }
            Found::Missing(why) => (&mut missing, "missing", why),
            Found::Different(why) => (&mut different, "different", why),
        };
        *count += 1;
        let at = from.map(|machine| format!(" on machine {machine}")).unwrap_or_default();
        progress.problem(&format!("{word}{at}: {}: {}: {why}", encode_path(&entry.path), entry.id));
    }
    drop(progress);
    context.print(
        &serde_json::json!({"ok": ok, "missing": missing, "different": different}),
        format!("{ok} ok, {missing} missing, {different} different"),
    )?;
    if missing + different > 0 {
        return Err(Failure::failed(
            format!("{missing} missing and {different} different"),
            "each is named above; `folio df` shows which storages are down",
        ));
    }
    Ok(())
}

/// Who should have a copy. The owner always counts, even if no tracker has heard of it.
fn members(view: &ClusterView, entry: &Entry) -> Vec<MachineId> {
    let id = &entry.id;
    let known = view.groups.get(&id.group).and_then(|group| group.syncgroups.get(&id.syncgroup));
    let mut members: Vec<MachineId> =
        known.map(|syncgroup| syncgroup.storages.keys().copied().collect()).unwrap_or_default();
    if !members.contains(&id.object.machine) {
        members.push(id.object.machine);
    }
    members
}

/// A machine of a syncgroup of a group.
type Machine<'a> = (&'a str, &'a str, MachineId);

/// Who reads.
struct Reader<'a> {
    client: Client,
    silent: Silent<Machine<'a>>,
}

impl<'a> Reader<'a> {
    async fn compare(&self, entry: &'a Entry, from: Option<MachineId>) -> Found {
        let Some(machine) = from else {
            return judge(entry, read(&self.client, entry, None).await);
        };
        let machine = (entry.id.group.as_str(), entry.id.syncgroup.as_str(), machine);
        let begun = Instant::now();
        if let Some(why) = self.silent.why_not(&machine, begun) {
            return Found::Missing(why);
        }
        let answer = read(&self.client, entry, from).await;
        self.silent.learn(&machine, &answer, (begun, Instant::now()));
        judge(entry, answer)
    }
}

fn judge(entry: &Entry, answer: Result<(u64, Sha256Bytes), Error>) -> Found {
    match answer {
        Ok((length, sha256)) if (length, sha256) == (entry.length, entry.sha256) => Found::Ok,
        Ok((length, _)) if length != entry.length => {
            Found::Different(format!("{length} bytes instead of {}", entry.length))
        }
        Ok(_) => Found::Different("another content of the same length".to_owned()),
        Err(error) if matches!(error.code, ErrorCode::Damaged | ErrorCode::Corrupted) => {
            Found::Different(error.message)
        }
        Err(error) => Found::Missing(error.message),
    }
}

async fn read(
    client: &Client,
    entry: &Entry,
    from: Option<MachineId>,
) -> Result<(u64, Sha256Bytes), Error> {
    let options = GetOptions { from, ..GetOptions::default() };
    let mut object = client.get(&entry.id, options).await?;
    let mut hash = Sha256::new();
    let mut length = 0;
    while let Some(bytes) = object.chunk().await? {
        hash.update(&bytes);
        length += bytes.len() as u64;
    }
    Ok((length, hash.finalize().into()))
}
