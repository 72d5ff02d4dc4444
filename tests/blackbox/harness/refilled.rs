//! Scenes with mounts that are refilled, small in `cargo test` and large as campaigns.

use super::cluster::{Cluster, Node};
use super::eventually;
use super::mirrored::json;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// A recovery of a small mount, all of it, on a machine that is busy with other things.
pub const RECOVERED: Duration = Duration::from_secs(60);

/// What a lost disk leaves: an empty folder.
pub fn empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path).expect("folder");
        } else {
            std::fs::remove_file(&path).expect("file");
        }
    }
}

/// What `recover` says of a mount.
pub fn recovery(node: &Node, mount: usize) -> Value {
    json(&node.admin("recover json"))["recoveries"][mount].clone()
}

/// Waits until a mount that was lost serves, and has proved that it is whole.
pub fn until_recovered(node: &Node, mount: usize) -> Value {
    until_recovered_within(node, mount, RECOVERED)
}

/// The same for a large one.
pub fn until_recovered_within(node: &Node, mount: usize, patience: Duration) -> Value {
    until_answers(node);
    eventually("the mount is refilled", patience, || {
        let now = recovery(node, mount);
        is_proved(&now).then_some(now)
    })
}

/// Waits for the console of a daemon that was just started.
pub fn until_answers(node: &Node) {
    drop(Console::connect(node));
}

/// Whether it serves, and has proved that it is whole.
pub fn is_proved(now: &Value) -> bool {
    let proved = now["why"].as_str().is_some_and(|why| why.starts_with("identical with machine"));
    now["state"] == "online" && now["phase"] == "online" && proved
}

/// A connection to a console that is kept: it can be asked often.
pub struct Console(BufReader<TcpStream>);

impl Console {
    /// To a daemon whose console answers.
    pub fn connect(node: &Node) -> Self {
        let stream = eventually("the console answers", super::PATIENCE, || {
            TcpStream::connect(node.console()).ok()
        });
        stream.set_nodelay(true).expect("a socket");
        let mut console = Self(BufReader::new(stream));
        let mut banner = String::new();
        console.0.read_line(&mut banner).expect("a banner");
        console
    }

    /// The answer to `COMMAND json`; `None` when the daemon is gone.
    pub fn ask(&mut self, command: &str) -> Option<Value> {
        self.0.get_mut().write_all(format!("{command} json\n").as_bytes()).ok()?;
        let mut answer = None;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "." => return answer,
                text if text.starts_with('{') => answer = serde_json::from_str(text).ok(),
                _ => {}
            }
        }
    }

    /// What `recover` says of a mount.
    pub fn recovery(&mut self, mount: usize) -> Option<Value> {
        self.ask("recover").map(|all| all["recoveries"][mount].clone())
    }
}

/// Where a kill struck, and what it cost.
#[derive(Debug)]
pub struct Killed {
    /// The phase that was last seen before.
    pub phase: String,
    /// Bytes that were transferred in both lives together.
    pub transferred: u64,
}

/// Loses the disk of storage 2 and, while it is refilled, kills it (or its source, storage 1) once: when it is in `phase`,
/// and, if that copies, when `part` of 100 is done.
pub fn killed_once(cluster: &mut Cluster, phase: &str, part: u64, kill_source: bool) -> Killed {
    cluster.storages[1].take().kill();
    empty(&cluster.mount_path(1, 0));
    cluster.storages[1].spawn();
    let mut console = Console::connect(&cluster.storages[1]);
    let mut seen = Value::Null;
    while let Some(now) = console.recovery(0) {
        let due = now["done"].as_u64() >= now["total"].as_u64().map(|total| total * part / 100);
        let passed = order(&now) > order_of(phase);
        let here = now["phase"] == phase && (phase != "pull_data" || due && now["total"] != 0);
        seen = now;
        if here || passed {
            break;
        }
    }
    let copied = |said: &Value| said["copied"].as_u64().unwrap_or(0);
    let before = copied(&seen);
    let mut lost = 0;
    if kill_source {
        cluster.storages[0].take().kill();
        cluster.storages[0].start();
    } else {
        cluster.storages[1].take().kill();
        cluster.storages[1].spawn();
        let mut console = Console::connect(&cluster.storages[1]);
        // What was not counted durably is added to what it says.
        let resumed = eventually("it goes on", RECOVERED, || {
            console.recovery(0).filter(|now| now["phase"] != "none" || now["state"] == "online")
        });
        if resumed["phase"] != "none" {
            lost = before.saturating_sub(copied(&resumed));
        }
    }
    let ended = eventually("it is refilled all the same", 4 * RECOVERED, || {
        let now = recovery(&cluster.storages[1], 0);
        // One that was whole before it was killed has nothing to say any more.
        (is_proved(&now) || now["phase"] == "none" && now["state"] == "online").then_some(now)
    });
    let transferred = if ended["phase"] == "none" { before } else { copied(&ended) + lost };
    Killed { phase: seen["phase"].as_str().unwrap_or("none").to_owned(), transferred }
}

/// The phases in their order.
pub const PHASES: [&str; 6] =
    ["assess", "pull_logs", "verify_logs", "pull_data", "catch_up", "online"];

fn order(said: &Value) -> usize {
    said["phase"].as_str().map_or(0, order_of)
}

fn order_of(phase: &str) -> usize {
    PHASES.iter().position(|known| *known == phase).unwrap_or(0)
}
