//! What can be typed.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("FOLIO_GIT_REVISION"), ")");

/// A store for very many small objects that are edited all the time.
#[derive(Debug, Parser)]
#[command(name = "folio", version = VERSION, propagate_version = true, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// How the cluster is found.
#[derive(Clone, Debug, Args)]
pub(super) struct Global {
    /// A tracker of the cluster; may be given several times
    #[arg(
        long = "tracker",
        value_name = "HOST:PORT",
        env = "FOLIO_TRACKERS",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400",
        global = true
    )]
    pub trackers: Vec<String>,
    /// Keys of the cluster, as `folio keygen` writes them
    #[arg(long, value_name = "FILE", env = "FOLIO_KEY_FILE", global = true)]
    pub key_file: Option<PathBuf>,

    /// CA of the cluster in PEM, where it speaks TLS: the certificates of all nodes are checked with it
    #[arg(long, value_name = "FILE", env = "FOLIO_CA_FILE", global = true)]
    pub ca: Option<PathBuf>,
    /// How long to wait, also for a cluster that is just starting
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, global = true)]
    pub timeout: Duration,
    /// Print one JSON document, or one per line for lists
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a whole cluster in one process, for trying and developing
    Dev(Dev),
    /// Run a tracker
    Tracker(Daemon),
    /// Run a storage
    Storage(Daemon),
    /// Store a file; prints its id
    Put(Put),
    /// Read an object
    Get(Get),
    /// Replace the content of an object; the id stays
    Modify(Modify),
    /// Delete an object
    Delete(Delete),
    /// Bring a deleted object back
    Undelete(Undelete),
    /// Tell what is known about an object
    Stat(Stat),
    /// List every live object; its id comes without an extension
    List(List),
    /// Show the space of the cluster
    Df,
    /// Store every regular file below a folder
    Import(Import),
    /// Write the files of a manifest below a folder
    Export(Export),
    /// Read all objects of a manifest again and compare
    Verify(Verify),
    /// Write a new key file
    Keygen {
        /// Where; must not exist
        file: PathBuf,
    },
    /// Measure a cluster
    Bench(Bench),
    /// Speak with a daemon's console
    Admin(Admin),
    /// Check mounts whose daemon is stopped; only reads
    Fsck(Fsck),
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Debug, Args)]
pub(super) struct Dev {
    /// Where the data lies; the same folder carries on where it stopped
    #[arg(long, default_value = "./folio-data")]
    pub dir: PathBuf,
    /// How many storages, with machine ids from 1
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=89))]
    pub storages: u16,
    /// Mounts of each storage
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub mounts: u16,
    /// How many trackers
    #[arg(id = "tracker_count", long = "trackers", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10))]
    pub trackers: u16,
    /// Trackers listen from here on, storage N on this + 10 + N, consoles + 100, metrics + 200
    #[arg(long, default_value_t = 7400, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub port: u16,
}

#[derive(Debug, Args)]
pub(super) struct Daemon {
    /// Its configuration; conf/ has one with every key explained
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Put {
    /// What to store; - for standard input
    pub file: PathBuf,
    /// In which group; may be left out when there is one
    #[arg(long)]
    pub group: Option<String>,
    /// Extension to append to the id
    #[arg(long)]
    pub ext: Option<String>,
    /// Room to grow in place: percent of the length, or bytes
    #[arg(long, value_name = "20%|512", value_parser = reserve)]
    pub reserve: Option<crate::settings::Reserve>,
}

#[derive(Debug, Args)]
pub(super) struct Get {
    /// Which object
    pub id: String,
    /// Where to; - or nothing for standard output
    #[arg(short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only these bytes, from 0, both inclusive
    #[arg(long, value_name = "FIRST-LAST", allow_hyphen_values = true)]
    pub range: Option<String>,
    /// From this machine's own disk, or fail
    #[arg(long, value_name = "MACHINE_ID")]
    pub from: Option<u16>,
    /// This version or a later one: read your writes
    #[arg(long, value_name = "OPVER")]
    pub min_opver: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Modify {
    /// Which object
    pub id: String,
    /// The new content; - for standard input
    pub file: PathBuf,
    /// Only if this is the current version
    #[arg(long, value_name = "OPVER")]
    pub if_opver: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Which object
    pub id: String,
    /// Only if this is the current version
    #[arg(long, value_name = "OPVER")]
    pub if_opver: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Undelete {
    /// Which object
    pub id: String,
}

#[derive(Debug, Args)]
pub(super) struct Stat {
    /// Which object
    pub id: String,
    /// From this machine's own disk, or fail
    #[arg(long, value_name = "MACHINE_ID")]
    pub from: Option<u16>,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Of this group only
    #[arg(long)]
    pub group: Option<String>,
    /// Modified since then: 2026-11-22T10:00:00Z, 2026-11-22, or ago: 90m, 7d
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The folder
    pub dir: PathBuf,
    /// What was stored as which object: id, length, sha256, path
    #[arg(short, long, value_name = "FILE")]
    pub manifest: PathBuf,
    /// Files at a time
    #[arg(long, default_value_t = 16, value_parser = jobs)]
    pub jobs: usize,
    /// In which group; may be left out when there is one
    #[arg(long)]
    pub group: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// As import wrote it
    pub manifest: PathBuf,
    /// Where to; is created
    pub dir: PathBuf,
    /// Files at a time
    #[arg(long, default_value_t = 16, value_parser = jobs)]
    pub jobs: usize,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// As import wrote it
    pub manifest: PathBuf,
    /// Read from this machine's own disk
    #[arg(long, value_name = "MACHINE_ID", conflicts_with = "all_mirrors")]
    pub from: Option<u16>,
    /// Read every copy
    #[arg(long)]
    pub all_mirrors: bool,
    /// Objects at a time
    #[arg(long, default_value_t = 16, value_parser = jobs)]
    pub jobs: usize,
}

#[derive(Debug, Args)]
pub(super) struct Admin {
    /// Address of the console
    pub address: String,
    /// One command; without it the console is interactive
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Fsck {
    /// Folders of the mounts
    #[arg(required = true)]
    pub mounts: Vec<PathBuf>,
    /// Where the storage keeps its memory; by default `.folio-state` beside the mount
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Load {
    /// New objects
    Put,
    /// Reads
    Get,
    /// New contents of the same length
    Modify,
    /// Deletes; each needs a put, which is not counted
    Delete,
    /// Reads and modifies
    Mixed,
    /// Serve the same frames without an engine, to compare with
    #[value(hide = true)]
    NullServer,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Bench {
    /// What to do
    pub load: Load,
    /// Bytes of an object, at most 1MiB
    #[arg(long, default_value = "4k", value_parser = size)]
    pub size: u64,
    /// Several sizes with their shares instead, such as 1k:50,4k:40,64k:10
    #[arg(long, value_name = "SIZE:SHARE,...", value_parser = Mix::parse, conflicts_with = "size")]
    pub sizes: Option<Mix>,
    /// Connections, each with one outstanding request
    #[arg(long, default_value_t = 64, value_parser = jobs)]
    pub connections: usize,
    /// How long
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// How many operations instead of how long
    #[arg(long)]
    pub count: Option<u64>,
    /// So many operations a second in all, evenly; times count from when one was due
    #[arg(long, value_name = "OPS", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,
    /// With `put`: also how long an acknowledged put takes until every other mirror shows it
    #[arg(long)]
    pub lag: bool,
    /// Share of reads in `mixed`
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub read_percent: u8,
    /// Objects made beforehand for get, modify and mixed
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub objects: u64,
    /// Go straight to this storage (or null-server)
    #[arg(long, value_name = "HOST:PORT")]
    pub target: Option<String>,
    /// Where null-server listens
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7399", hide = true)]
    pub listen: String,
}

/// Sizes with their shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mix(Vec<(u64, u64)>);

impl Mix {
    /// One size only.
    pub fn only(size: u64) -> Self {
        Self(vec![(size, 1)])
    }

    fn parse(text: &str) -> Result<Self, String> {
        let expected = || "sizes with shares, such as 1k:50,4k:40,64k:10".to_owned();
        let part = |part: &str| {
            let (bytes, share) = part.split_once(':').ok_or_else(expected)?;
            let share = share.parse().ok().filter(|share| (1..=1_000_000).contains(share));
            Ok((size(bytes)?, share.ok_or_else(expected)?))
        };
        text.split(',').map(part).collect::<Result<_, String>>().map(Self)
    }

    /// The largest.
    pub fn max(&self) -> u64 {
        self.0.iter().map(|(size, _)| *size).max().unwrap_or(0)
    }

    /// The size that `draw` falls on, of all numbers.
    pub fn pick(&self, draw: u64) -> u64 {
        let all: u64 = self.0.iter().map(|(_, share)| share).sum();
        let mut left = draw % all.max(1);
        for (size, share) in &self.0 {
            match left.checked_sub(*share) {
                Some(rest) => left = rest,
                None => return *size,
            }
        }
        self.max()
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::settings::units::parse_duration(text)
        .filter(|duration| *duration <= Duration::from_secs(365 * 86_400))
        .ok_or_else(|| "a duration: 500ms, 10s, 5m, 1h30m".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    crate::settings::units::parse_size(text)
        .ok_or_else(|| "a size: 4k, 64KiB, 1MiB, or bytes".to_owned())
}

fn reserve(text: &str) -> Result<crate::settings::Reserve, String> {
    crate::settings::Reserve::parse(text)
        .ok_or_else(|| "a percentage up to 400% or a size up to 16MiB".to_owned())
}

fn jobs(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=4096).contains(n)).ok_or_else(|| "1 to 4096".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn no_option_contradicts_another() {
        Cli::command().debug_assert();
        // Two arguments of one name in different commands are only found when they are read.
        for line in [
            "dev",
            "dev --trackers 2 --storages 1 --mounts 2 --port 9000 --dir d",
            "put f --group g --ext txt --reserve 20%",
            "get x -o f --range 0-1 --from 3 --min-opver v",
            "modify x - --if-opver v",
            "stat x --from 1",
            "list --group g --since 7d",
            "df --tracker a:1 --tracker b:2 --json --timeout 3s",
            "import d -m m --jobs 3",
            "verify m --all-mirrors",
            "export m d",
            "bench put --size 4k --connections 8 --count 5",
            "admin a:1 status --json",
            "fsck m0 m1 --state-dir s --json",
        ] {
            let words = std::iter::once("folio").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }
}
