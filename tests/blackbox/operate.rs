//! What an operator does on the console of a running cluster, and what is left of it in the log.

use crate::harness::cluster::Cluster;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn two_mirrors() -> Cluster {
    Cluster::new(1, &["a", "a"], 1).started()
}

#[test]
fn readonly_refuses_changes_with_the_reason_and_never_reads() {
    let mut cluster = Cluster::small();
    let cli = cluster.cli();
    let id = cli.put(b"before".to_vec());
    cluster.storages[0].admin("readonly on");
    assert!(cluster.storages[0].admin("status").contains("readonly"));
    assert_eq!(cli.get(&id), b"before");
    let quick = crate::harness::run::Cli { timeout: Some("2s"), ..cluster.cli() };
    quick
        .run_with(["modify", &id, "-"], b"after".to_vec())
        .exits(5)
        .says(&["read-only", "readonly off"]);
    quick.run(["delete", &id]).exits(5);
    quick.run_with(["put", "-"], b"new".to_vec()).exits(5);
    assert_eq!(cli.get(&id), b"before");
    cluster.storages[0].admin("readonly off");
    cli.run_with(["modify", &id, "-"], b"after".to_vec()).ok();
    // Every change of the operator is in the log; looking at something is not.
    let log = cluster.storages[0].daemon().stderr();
    for command in ["readonly on", "readonly off"] {
        let line = log
            .lines()
            .find(|line| line.contains(command))
            .unwrap_or_else(|| panic!("{command}: {log}"));
        assert!(line.contains("peer=") && line.contains("127.0.0.1"), "{line}");
    }
    assert!(!log.contains("command=\"status\""), "{log}");
    cluster.stop_all();
}

#[test]
fn a_drained_storage_may_be_stopped_and_nothing_is_missing() {
    let mut cluster = two_mirrors();
    let cli = cluster.cli();
    let ids: Vec<String> = (0..20).map(|n: u8| cli.put(vec![n; 3_000])).collect();
    let said = cluster.storages[0].admin("drain");
    assert!(said.contains("may_be_stopped") && said.contains("yes"), "{said}");
    crate::harness::eventually("the tracker hears of it", PATIENCE, || {
        cluster.trackers[0].admin("nodes").contains("draining").then_some(())
    });
    // New objects go elsewhere, old ones are still edited.
    let new = cli.put(b"elsewhere".to_vec());
    assert_eq!(cli.stat(&new)["owner"], 2);
    cli.run_with(["modify", &ids[0], "-"], b"changed".to_vec()).ok();
    let said = cluster.storages[0].admin("drain");
    assert!(said.contains("yes"), "{said}");
    cluster.storages[0].admin("shutdown");
    let (status, stderr) = cluster.storages[0].take().wait_end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(
        stderr.contains("shutdown") && stderr.contains("drain"),
        "not in the audit log: {stderr}"
    );
    for (n, id) in ids.iter().enumerate().skip(1) {
        assert_eq!(cli.get(id), vec![u8::try_from(n).expect("small"); 3_000]);
    }
    assert_eq!(cli.get(&ids[0]), b"changed");
    cluster.stop_all();
}

#[test]
fn a_storage_alone_is_never_said_to_be_drained() {
    let mut cluster = Cluster::small();
    let mut console = crate::harness::wire::Console::connect(&cluster.storages[0].console());
    // It waits for a mirror that never comes, and says so.
    let said = console.ask("drain").join("\n");
    assert!(
        said.contains("may_be_stopped") && said.contains("no other machine mirrors it"),
        "{said}"
    );
    let said = console.ask("drain off").join("\n");
    assert!(said.contains("takes new objects"), "{said}");
    cluster.stop_all();
}

#[test]
fn the_console_tells_where_an_object_lies_and_who_asked_for_it() {
    let mut cluster = Cluster::small();
    let cli = cluster.cli();
    let id = cli.put(vec![3; 5_000]);
    cli.run_with(["modify", &id, "-"], vec![4; 20_000]).ok();
    assert_eq!(cli.get(&id), vec![4; 20_000]);
    let node = &cluster.storages[0];
    let found = node.admin(&format!("find {id}"));
    assert!(found.contains("moved to chunks/1/") && found.contains("live"), "{found}");
    let page = node.admin("chunk 0 0");
    assert!(page.contains("moved to chunks/1/"), "{page}");
    let asked = node.admin("requests op=modify");
    assert!(
        asked.contains(&id) && asked.contains("client folio") && asked.contains("127.0.0.1:"),
        "{asked}"
    );
    assert!(!node.admin("requests op=delete").contains(&id));
    assert!(node.admin("requests result=ok last=1").lines().count() < 6);
    // Keys: what holds, what can be set, what cannot.
    let shown = node.admin("config show in_flight");
    assert!(shown.contains("limits.in_flight_bytes"), "{shown}");
    node.admin("config set limits.in_flight_requests 77");
    assert!(node.admin("status").contains("77"));
    let mut console = crate::harness::wire::Console::connect(&node.console());
    let refused = console.ask("config set machine_id 9").join("\n");
    assert!(refused.starts_with("error:") && refused.contains("start it again"), "{refused}");
    assert!(!node.daemon().stderr().contains("DEBUG"));
    node.admin("log debug");
    cli.put(b"x".to_vec());
    node.daemon().wait_stderr("a debug line", |text| text.contains("DEBUG"));
    node.admin("log info");
    let tracker = &cluster.trackers[0];
    assert!(tracker.admin("config show put_policy").contains("round_robin"));
    assert!(tracker.admin("drain").contains("may_be_stopped"));
    cluster.stop_all();
}
