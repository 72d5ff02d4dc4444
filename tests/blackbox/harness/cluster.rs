//! A cluster from config files: trackers and storages, each a process of its own.

use super::ports::free_port;
use super::process::{Daemon, clean, folio};
use super::run::Cli;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A config file in the making: lines at the top, lines per section, mounts.
#[derive(Clone, Debug, Default)]
pub struct ConfigFile {
    top: BTreeMap<String, String>,
    sections: BTreeMap<String, BTreeMap<String, String>>,
    mounts: Vec<(u64, PathBuf)>,
}

impl ConfigFile {
    /// Sets `key` or `section.key` to a value as it stands in TOML.
    pub fn set(&mut self, path: &str, value: &str) -> &mut Self {
        match path.split_once('.') {
            None => self.top.insert(path.to_owned(), value.to_owned()),
            Some((section, key)) => self
                .sections
                .entry(section.to_owned())
                .or_default()
                .insert(key.to_owned(), value.to_owned()),
        };
        self
    }

    /// Takes a key out.
    pub fn unset(&mut self, path: &str) -> &mut Self {
        match path.split_once('.') {
            None => self.top.remove(path),
            Some((section, key)) => {
                self.sections.get_mut(section).and_then(|keys| keys.remove(key))
            }
        };
        self
    }

    /// Adds a mount.
    pub fn mount(&mut self, index: u64, path: &Path) -> &mut Self {
        self.mounts.push((index, path.to_owned()));
        self
    }

    /// The same with a mount in another place.
    pub fn moved(mut self, from: &Path, to: &Path) -> Self {
        for (_, path) in self.mounts.iter_mut().filter(|(_, path)| path == from) {
            *path = to.to_owned();
        }
        self
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let keys = |text: &mut String, keys: &BTreeMap<String, String>| {
            for (key, value) in keys {
                writeln!(text, "{key} = {value}").expect("memory");
            }
        };
        keys(&mut text, &self.top);
        for (index, path) in &self.mounts {
            writeln!(text, "[[mounts]]\nindex = {index}\npath = {path:?}").expect("memory");
        }
        for (section, body) in &self.sections {
            writeln!(text, "[{section}]").expect("memory");
            keys(&mut text, body);
        }
        text
    }
}

/// One daemon, running or not.
pub struct Node {
    pub name: String,
    pub config: ConfigFile,
    pub port: u16,
    pub admin: u16,
    pub metrics: u16,
    /// Another program than the one under test, at its next start.
    pub program: Option<PathBuf>,
    role: &'static str,
    file: PathBuf,
    env: Vec<(String, String)>,
    daemon: Option<Daemon>,
}

impl Node {
    fn new(dir: &Path, role: &'static str, name: String) -> Self {
        let (port, admin, metrics) = (free_port(), free_port(), free_port());
        let mut config = ConfigFile::default();
        for (key, port) in [("listen", port), ("admin_listen", admin), ("metrics_listen", metrics)]
        {
            config.set(key, &format!("\"127.0.0.1:{port}\""));
        }
        let file = dir.join(format!("{name}.toml"));
        let (program, env, daemon) = (None, Vec::new(), None);
        Self { name, config, port, admin, metrics, program, role, file, env, daemon }
    }

    /// `HOST:PORT` of its listener.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `HOST:PORT` of its console.
    pub fn console(&self) -> String {
        format!("127.0.0.1:{}", self.admin)
    }

    /// An environment variable for its next start.
    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The key file of its configuration.
    pub fn key_file(&self) -> Option<String> {
        let keys = self.config.sections.get("auth")?.get("key_file")?;
        Some(keys.trim_matches('"').to_owned())
    }

    /// Starts it without waiting for anything.
    pub fn spawn(&mut self) -> &mut Self {
        assert!(self.daemon.is_none(), "{} runs", self.name);
        std::fs::write(&self.file, self.config.text()).expect("config file");
        let mut command = match &self.program {
            Some(program) => clean(Command::new(program)),
            None => folio(),
        };
        command.arg(self.role).arg("--config").arg(&self.file);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        self.daemon = Some(Daemon::spawn(&self.name, command));
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(&mut self) -> &mut Self {
        self.spawn().daemon().wait_ready();
        self
    }

    /// Starts it and waits for the end that must follow: exit code and stderr.
    pub fn start_fails(&mut self) -> (i32, String) {
        let (status, stderr) = self.spawn().take().wait_end();
        assert!(!stderr.contains("panicked"), "{stderr}");
        (status.code().expect("it ended by itself"), stderr)
    }

    /// The process.
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// The process; this node counts as stopped from here on.
    pub fn take(&mut self) -> Daemon {
        self.daemon.take().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// Stops it in order: exit 0 or a failure.
    pub fn stop(&mut self) {
        let (status, stderr) = self.take().terminate();
        assert_eq!(status.code(), Some(0), "{} after SIGTERM ({status}):\n{stderr}", self.name);
    }

    /// The same as [`Self::admin`], if its console listens already.
    pub fn try_admin(&self, command: &str) -> Option<String> {
        let mut args = vec!["admin".to_owned(), self.console()];
        args.extend(command.split(' ').map(str::to_owned));
        let answer = Cli::default().run(args);
        (answer.code == 0).then(|| answer.text())
    }

    /// What `folio admin CONSOLE COMMAND` prints.
    pub fn admin(&self, command: &str) -> String {
        let mut args = vec!["admin".to_owned(), self.console()];
        args.extend(command.split(' ').map(str::to_owned));
        Cli::default().run(args).ok().text()
    }
}

/// Trackers and storages with their folder.
pub struct Cluster {
    pub dir: TempDir,
    pub trackers: Vec<Node>,
    pub storages: Vec<Node>,
}

impl Cluster {
    /// Nothing started yet: `trackers` trackers and one storage per syncgroup name, each with `mounts` mounts, in
    /// group "g", machine ids from 1.
    pub fn new(trackers: usize, syncgroups: &[&str], mounts: u64) -> Self {
        Self::in_dir(TempDir::new().expect("temporary folder"), trackers, syncgroups, mounts)
    }

    /// The same in a folder of one's own choice.
    pub fn in_dir(mut dir: TempDir, trackers: usize, syncgroups: &[&str], mounts: u64) -> Self {
        if std::env::var_os("FOLIO_KEEP").is_some() {
            println!("kept: {}", dir.path().display());
            dir.disable_cleanup(true);
        }
        let trackers = (0..trackers).map(|n| {
            let mut node = Node::new(dir.path(), "tracker", format!("tracker{n}"));
            node.config.set("liveness.heartbeat_interval", "\"200ms\"");
            node.config.set("liveness.readmit_after", "\"500ms\"");
            node
        });
        let trackers: Vec<Node> = trackers.collect();
        let mut cluster = Self { dir, trackers, storages: Vec::new() };
        for syncgroup in syncgroups {
            cluster.add_storage("g", syncgroup, mounts);
        }
        cluster
    }

    /// One tracker and one storage with one mount, ready.
    pub fn small() -> Self {
        Self::new(1, &["a"], 1).started()
    }

    /// Adds a storage, not started; returns its number.
    pub fn add_storage(&mut self, group: &str, syncgroup: &str, mounts: u64) -> usize {
        let number = self.storages.len();
        let machine = number + 1;
        let mut node = Node::new(self.dir.path(), "storage", format!("storage{machine}"));
        let trackers: Vec<String> = self.trackers.iter().map(Node::address).collect();
        let home = self.dir.path().join(format!("s{machine}"));
        node.config
            .set("group", &format!("{group:?}"))
            .set("syncgroup", &format!("{syncgroup:?}"))
            .set("machine_id", &machine.to_string())
            .set("trackers", &format!("{trackers:?}"))
            .set("state_dir", &format!("{:?}", home.join("state")))
            .set("store.reserve_free", "\"64MiB\"");
        for index in 0..mounts {
            let path = self.mount_path(number, index);
            std::fs::create_dir_all(&path).expect("mount folder");
            node.config.mount(index, &path);
        }
        self.storages.push(node);
        number
    }

    /// Folder of a mount of a storage.
    pub fn mount_path(&self, storage: usize, index: u64) -> PathBuf {
        self.dir.path().join(format!("s{}", storage + 1)).join(format!("m{index}"))
    }

    /// Sets a key in every storage's config.
    pub fn storages_with(mut self, path: &str, value: &str) -> Self {
        for node in &mut self.storages {
            node.config.set(path, value);
        }
        self
    }

    /// Starts all and waits until they are ready.
    pub fn started(mut self) -> Self {
        self.start();
        self
    }

    /// Starts all that do not run and waits until they are ready.
    pub fn start(&mut self) {
        let idle: Vec<&mut Node> = self.nodes().filter(|node| node.daemon.is_none()).collect();
        let spawned: Vec<&mut Node> = idle.into_iter().map(Node::spawn).collect();
        for node in spawned {
            node.daemon().wait_ready();
        }
    }

    fn nodes(&mut self) -> impl Iterator<Item = &mut Node> + '_ {
        self.trackers.iter_mut().chain(self.storages.iter_mut())
    }

    /// SIGKILL to all daemons at one moment.
    pub fn kill_all(&mut self) {
        let running: Vec<Daemon> = self.nodes().filter_map(|node| node.daemon.take()).collect();
        running.iter().for_each(Daemon::kill_now);
        running.into_iter().for_each(Daemon::kill);
    }

    /// SIGTERM to all; each must end with 0.
    pub fn stop_all(&mut self) {
        for node in self.storages.iter_mut().chain(self.trackers.iter_mut()) {
            if node.daemon.is_some() {
                node.stop();
            }
        }
    }

    /// The command line towards it.
    pub fn cli(&self) -> Cli {
        Cli { trackers: self.tracker_addresses(), ..Cli::default() }
    }

    /// `HOST:PORT` of each tracker.
    pub fn tracker_addresses(&self) -> Vec<String> {
        self.trackers.iter().map(Node::address).collect()
    }

    /// A client of the library.
    pub async fn client(&self, timeout: Duration) -> folio::client::Client {
        let options = folio::client::ClientOptions {
            trackers: self.tracker_addresses(),
            timeout,
            ..folio::client::ClientOptions::default()
        };
        folio::client::Client::connect(options).await.expect("the cluster answers")
    }
}

/// `folio dev` in a folder, not waited for.
pub fn spawn_dev(dir: &Path, port: u16, args: &[&str]) -> Daemon {
    let mut command = folio();
    command.arg("dev").arg("--dir").arg(dir).args(["--port", &port.to_string()]);
    command.args(args.iter().map(OsStr::new));
    Daemon::spawn("dev", command)
}
