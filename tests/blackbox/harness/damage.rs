//! Damage done to a mount under, or beside, its daemon, and what may come of it: small in the black-box tests, large as a
//! campaign.

use super::cluster::{Cluster, Node};
use super::content::{below, content};
use super::mirrored::{json, until_live};
use super::run::Cli;
use super::{eventually, from_env};
use folio::client::GetOptions;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A whole round over a mount, on a machine that is busy with other things.
const ROUND: Duration = Duration::from_secs(120);

/// What is given back to the file system at once.
const BLOCK: usize = 4096;

/// Which files of a mount are hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// Chunkfiles and singlefiles.
    Data,
    /// The first bytes of chunkfiles: their headers.
    Headers,
    /// Our own log and what is kept of others'.
    Logs,
}

/// A bit that was changed.
#[derive(Clone, Debug)]
pub struct Flip {
    pub path: PathBuf,
    pub offset: u64,
}

/// Storages of one syncgroup with mirrors, and what was stored there.
pub struct Scene {
    pub cluster: Cluster,
    pub manifest: PathBuf,
    /// Deleted: it must stay so.
    pub deleted: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
}

impl Scene {
    /// `files` objects of up to `size_max` bytes, one in twenty a large one of up to ten times that.
    pub fn new(cluster: Cluster, files: u64, size_max: u64) -> Self {
        let mut cluster = cluster
            .storages_with("store.single_file_threshold", "\"64KiB\"")
            .storages_with("durability.acks", "\"all\"");
        cluster.start();
        until_live(&cluster);
        let tree = cluster.dir.path().join("tree");
        std::fs::create_dir(&tree).expect("folder");
        let mut seed = from_env("FOLIO_SEED", 1);
        let write = |index: u64, version: u64, length: u64| {
            let bytes = content(index, version, usize::try_from(28 + length).expect("small"));
            std::fs::write(tree.join(format!("f{index}")), bytes).expect("file");
        };
        for index in 0..files {
            let large = index % 20 == 0;
            let length = if large {
                65_536 + below(&mut seed, 10 * size_max)
            } else {
                below(&mut seed, size_max)
            };
            write(index, 0, length);
        }
        let manifest = cluster.dir.path().join("manifest");
        let cli = Cli { timeout: Some("60s"), ..cluster.cli() };
        cli.import(&tree, &manifest).ok();
        // Grown, shrunk, moved.
        for index in (0..files).step_by(7) {
            write(index, 1, below(&mut seed, 2 * size_max));
        }
        cli.import(&tree, &manifest).ok();
        let deleted: Vec<String> =
            (0..10).map(|n| cli.put(content(1_000_000 + n, 0, 500))).collect();
        for id in &deleted {
            cli.run(["delete", id]).ok();
        }
        let text = std::fs::read_to_string(&manifest).expect("manifest");
        let mut latest: BTreeMap<String, String> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split('\t').collect();
            latest.insert(fields[3].to_owned(), fields[0].to_owned());
        }
        let bytes = |path: &str| std::fs::read(tree.join(path)).expect("file");
        let files = latest.into_iter().map(|(path, id)| (id, bytes(&path))).collect();
        Self { cluster, manifest, deleted, files }
    }

    pub fn cli(&self) -> Cli {
        Cli { timeout: Some("60s"), ..self.cluster.cli() }
    }

    /// Reads everything from one machine: what comes is right, or nothing comes. How many did not come.
    pub fn nothing_wrong_from(&self, machine: u16) -> usize {
        let runtime = super::mirrored::runtime();
        runtime.block_on(async {
            let client = self.cluster.client(Duration::from_secs(20)).await;
            let mut refused = 0;
            for (id, right) in &self.files {
                let id = id.parse().expect("an id");
                let options = GetOptions { from: Some(machine), ..GetOptions::default() };
                let Ok(mut object) = client.get(&id, options).await else {
                    refused += 1;
                    continue;
                };
                let mut got = Vec::new();
                let whole = loop {
                    match object.chunk().await {
                        Ok(Some(bytes)) => got.extend_from_slice(&bytes),
                        Ok(None) => break true,
                        Err(_) => break false,
                    }
                };
                // Also the front of what broke off must be right.
                assert!(right.starts_with(&got), "{id} from {machine}: wrong bytes");
                assert!(!whole || got.len() == right.len(), "{id} from {machine}: cut short");
                refused += usize::from(!whole);
            }
            refused
        })
    }

    /// Every mirror has everything, and nothing that was deleted.
    pub fn is_whole(&self) {
        let manifest = self.manifest.to_str().expect("a path");
        let verified = self.cli().run(["verify", manifest, "--all-mirrors"]).ok().last_line();
        assert!(verified.ends_with("ok, 0 missing, 0 different"), "{verified}");
        for id in &self.deleted {
            for machine in 1..=self.cluster.storages.len() {
                self.cli().run(["get", id, "--from", &machine.to_string()]).exits(3);
            }
        }
    }

    /// `folio fsck` of a mount whose daemon is stopped; its last line.
    pub fn fsck(&self, storage: usize) -> (String, String) {
        let state = self.cluster.dir.path().join(format!("s{}", storage + 1)).join("state");
        let mount = self.cluster.mount_path(storage, 0);
        let answer = self.cli().run(["fsck".into(), "--state-dir".into(), state, mount]);
        (answer.last_line(), answer.text())
    }
}

/// The row of a mount's scrub.
pub fn scrub(node: &Node) -> Value {
    json(&node.admin("scrub json"))["scrubs"][0].clone()
}

/// What is damaged and not repaired.
pub fn open_damage(node: &Node) -> Vec<Value> {
    json(&node.admin("scrub json"))["damaged"].as_array().cloned().unwrap_or_default()
}

/// Has a whole round done; what the console says then.
pub fn scrubbed(node: &Node) -> Value {
    node.admin("scrub start");
    eventually("everything is verified", ROUND, || {
        let now = scrub(node);
        (now["state"] == "resting" || now["state"] == "off").then_some(now)
    })
}

/// Fingerprints of everything that a mount stores, block by block; logs and what changes by itself left out.
pub fn stored(mount: &Path) -> BTreeMap<PathBuf, Vec<u64>> {
    let data = files(mount, Where::Data);
    data.into_iter()
        .map(|path| {
            let bytes = std::fs::read(&path).expect("file");
            (path, bytes.chunks(BLOCK).map(fingerprint).collect())
        })
        .collect()
}

/// What a mount stores has not changed since then. Blocks of holes are given back to the file system when nobody can be
/// reading them any more, which may be later: what has become zeros is left to fsck.
pub fn unchanged_since(before: &BTreeMap<PathBuf, Vec<u64>>, mount: &Path) {
    let now = stored(mount);
    assert!(before.keys().eq(now.keys()), "files of {} came or went", mount.display());
    for ((path, before), now) in before.iter().zip(now.values()) {
        let zeros = |at: usize| now[at] == fingerprint(&[0; BLOCK]);
        let changed = (0..before.len()).find(|at| before[*at] != now[*at] && !zeros(*at));
        assert_eq!((changed, before.len()), (None, now.len()), "{} changed", path.display());
    }
}

fn fingerprint(block: &[u8]) -> u64 {
    let mut hash = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(block, &mut hash);
    std::hash::Hasher::finish(&hash)
}

/// The files of a mount that may be hit, in order.
pub fn files(mount: &Path, place: Where) -> Vec<PathBuf> {
    let folders: &[&str] = match place {
        Where::Data => &["chunks", "singles"],
        Where::Headers => &["chunks"],
        Where::Logs => &["binlog", "synclog"],
    };
    let (mut found, mut todo) = (Vec::new(), Vec::new());
    todo.extend(folders.iter().map(|folder| mount.join(folder)));
    while let Some(folder) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("entry").path()) {
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|end| end != "tmp") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Changes `count` bits at places drawn by chance, each byte of the files as likely as any other.
pub fn flip(mount: &Path, place: Where, count: u64, seed: &mut u64) -> Vec<Flip> {
    let files: Vec<(PathBuf, u64)> = files(mount, place)
        .into_iter()
        .map(|path| {
            let len = path.metadata().expect("file").len();
            // The envelope and the body of a header.
            let len = if place == Where::Headers { len.min(72) } else { len };
            (path, len)
        })
        .collect();
    let total: u64 = files.iter().map(|(_, len)| len).sum();
    let mut flips = Vec::new();
    for _ in 0..count {
        let mut offset = below(seed, total);
        let hit = files.iter().find(|(_, len)| match offset.checked_sub(*len) {
            Some(rest) => {
                offset = rest;
                false
            }
            None => true,
        });
        let (path, _) = hit.expect("within all");
        flip_bit(path, offset, below(seed, 8) as u8);
        flips.push(Flip { path: path.clone(), offset });
    }
    flips
}

/// Changes one bit of a file.
pub fn flip_bit(path: &Path, offset: u64, bit: u8) {
    let file = std::fs::File::options().read(true).write(true).open(path).expect("file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, offset).expect("a byte");
}
