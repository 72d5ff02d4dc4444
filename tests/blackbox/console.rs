//! The admin console, by `folio admin` and by hand.

use crate::harness::cluster::{Cluster, Node};
use crate::harness::run::Cli;
use crate::harness::wire::Console;
use serde_json::Value;

fn by_hand(node: &Node, role: &str, commands: &[&str]) {
    let mut console = Console::connect(&node.console());
    assert!(
        console.banner.contains("folio") || console.banner.contains(role),
        "{}",
        console.banner
    );
    assert!(console.banner.contains(env!("CARGO_PKG_VERSION")), "{}", console.banner);
    assert!(!console.banner.contains("challenge="), "no key is set: {}", console.banner);
    let help = console.ask("help").join("\n");
    for command in commands {
        assert!(help.contains(command), "help has no {command}: {help}");
        let text = console.ask(command).join("\n");
        assert!(!text.is_empty() && !text.starts_with("error:"), "{command}: {text}");
        let json = console.ask(&format!("{command} json"));
        assert_eq!(json.len(), 1, "{command} json is one line: {json:?}");
        serde_json::from_str::<Value>(&json[0]).expect("JSON");
    }
    for wrong in ["frobnicate", "", "status please now", "\u{7f}\u{1b}[A", &"x".repeat(3000)] {
        let answer = console.ask(wrong).join("\n");
        assert!(wrong.is_empty() || answer.starts_with("error:"), "{wrong:?}: {answer}");
    }
    assert!(!console.ask("help status").join("\n").starts_with("error:"));
    // Still alive after nonsense; ends when asked to.
    assert!(!console.ask("status").is_empty());
    console.ask_last("quit");
}

/// Both daemons answer what they document, to a person and as JSON.
#[test]
fn no_console_command_is_missing_or_breaks_the_framing() {
    let cluster = Cluster::new(1, &["a"], 2).started();
    by_hand(&cluster.storages[0], "storage", &["status", "mounts", "nodes"]);
    by_hand(&cluster.trackers[0], "tracker", &["status", "nodes"]);

    // One shot.
    let mounts = cluster.storages[0].admin("mounts");
    for index in 0..2 {
        let path = cluster.mount_path(0, index);
        assert!(mounts.contains(path.to_str().expect("text")), "{mounts}");
    }
    let nodes = cluster.trackers[0].admin("nodes");
    assert!(nodes.contains(&cluster.storages[0].address()), "{nodes}");
    let json = cluster.trackers[0].admin("nodes json");
    serde_json::from_str::<Value>(json.trim()).expect("JSON");
    Cli::default().run(["admin", &cluster.storages[0].console(), "frobnicate"]).exits(1);
    let nobody = format!("127.0.0.1:{}", crate::harness::ports::free_port());
    Cli::default().run(["admin", &nobody, "status"]).exits(5).says(&[&nobody]);
}

/// A console that sends rubbish, or half a line for ever, or leaves, disturbs nobody.
#[test]
fn no_console_guest_disturbs_the_daemon() {
    use std::io::Write;
    let cluster = Cluster::small();
    for node in [&cluster.storages[0], &cluster.trackers[0]] {
        let mut half = std::net::TcpStream::connect(node.console()).expect("connect");
        half.write_all(b"stat").expect("write");
        let mut rubbish = std::net::TcpStream::connect(node.console()).expect("connect");
        // It may close on us in the middle of that.
        let _closed = rubbish.write_all(&[0xff; 1 << 20]);
        drop(std::net::TcpStream::connect(node.console()).expect("connect"));
        let mut wire = std::net::TcpStream::connect(node.address()).expect("connect");
        let _closed = wire.write_all(b"GET / HTTP/1.1\r\n\r\n");
        assert!(!node.admin("status").is_empty());
    }
    let cli = cluster.cli();
    assert_eq!(cli.get(&cli.put("x")), b"x");
}
