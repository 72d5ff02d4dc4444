//! Mirrors as clients and operators see them: real daemons from config files, killed, paused and brought back.

use crate::harness::cluster::Cluster;
use crate::harness::run::Cli;
use crate::harness::{PATIENCE, eventually};
use serde_json::Value;

/// So many storages of one syncgroup, all live to each other.
fn mirrors(count: usize) -> Cluster {
    let cluster = Cluster::new(1, &vec!["a"; count], 1)
        .storages_with("store.single_file_threshold", "\"32KiB\"")
        .started();
    until_live(&cluster);
    cluster
}

/// Waits until every storage holds every other for live.
fn until_live(cluster: &Cluster) {
    eventually("all mirrors are live", PATIENCE, || {
        let live = |node: &crate::harness::cluster::Node| {
            let peers = json(&node.admin("peers json"));
            let peers = peers["peers"].as_array().expect("a table").clone();
            peers.len() + 1 >= cluster.storages.len()
                && peers.iter().all(|peer| peer["state"] == "live")
        };
        cluster.storages.iter().all(live).then_some(())
    });
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Puts an object on machine 1, on both storages when it returns.
fn put_on_first(cluster: &Cluster, bytes: &[u8]) -> String {
    let cli = cluster.cli();
    let id = eventually("a put goes to machine 1", PATIENCE, || {
        let id = cli.put(bytes);
        (cli.stat(&id)["owner"] == 1).then_some(id)
    });
    for node in 1..=cluster.storages.len() {
        eventually("it is on every mirror", PATIENCE, || {
            let from = node.to_string();
            (cli.run(["get", &id, "--from", &from]).code == 0).then_some(())
        });
    }
    id
}

/// Edits one object on both sides: the owner's edit is acknowledged by it alone and loses. Both run when it returns.
fn conflict(cluster: &mut Cluster, id: &str, loses: &[u8], wins: &[u8]) {
    let cli = Cli { timeout: Some("20s"), ..cluster.cli() };
    cluster.storages[1].take().kill();
    let answer = cli.run_with(["--json", "modify", id, "-"], loses).ok();
    assert_eq!(answer.json()["degraded"], true, "nobody else can have it");
    cluster.storages[0].take().kill();
    cluster.storages[1].start();
    cli.run_with(["modify", id, "-"], wins).ok();
    cluster.storages[0].start();
    until_live(cluster);
}

fn listed(cluster: &Cluster, storage: usize) -> Vec<Value> {
    let all = json(&cluster.storages[storage].admin("conflicts list json"));
    all["versions"].as_array().expect("a table").clone()
}

/// An edit that lost is named in `status`, listed on both mirrors under the same number, its bytes lie where it is said,
/// `restore` makes them the content again, `drop` gives them up on both sides, and an old number means nothing else.
#[test]
fn no_losing_edit_vanishes_before_an_operator_says_so() {
    let mut cluster = mirrors(2);
    let cli = cluster.cli();
    let large = vec![b'L'; 100_000];
    for loses in [b"the edit that loses".to_vec(), large] {
        let id = put_on_first(&cluster, b"first");
        conflict(&mut cluster, &id, &loses, b"the edit that wins");
        for storage in [0, 1] {
            eventually("it is in the archive", PATIENCE, || {
                (listed(&cluster, storage).len() == 1).then_some(())
            });
            let all = listed(&cluster, storage);
            assert_eq!(all[0]["id"].as_str().expect("id"), id);
            eventually("status names it", PATIENCE, || {
                cluster.storages[storage].admin("status").contains("conflicts list").then_some(())
            });
            assert_eq!(
                cli.run(["get", &id, "--from", &(storage + 1).to_string()]).ok().stdout,
                b"the edit that wins"
            );
        }
        let number = listed(&cluster, 0)[0]["number"].to_string();
        assert_eq!(listed(&cluster, 1)[0]["number"].to_string(), number);
        let shown = json(&cluster.storages[1].admin(&format!("conflicts show {number} json")));
        let taken = std::process::Command::new("sh")
            .args(["-c", shown["bytes"].as_str().expect("a command")])
            .output()
            .expect("sh");
        assert!(taken.stdout == loses, "the bytes lie where it is said: {shown}");
        let restored =
            json(&cluster.storages[0].admin(&format!("conflicts restore {number} json")));
        assert_eq!(restored["copies"], 2, "{restored}");
        assert!(cli.get(&id) == loses);
        for storage in [0, 1] {
            eventually("the entry is gone", PATIENCE, || {
                listed(&cluster, storage).is_empty().then_some(())
            });
        }

        let refused = |command: &str| {
            let mut args = vec!["admin".to_owned(), cluster.storages[1].console()];
            args.extend(command.split(' ').map(str::to_owned));
            Cli::default().run(args).exits(1)
        };
        refused(&format!("conflicts drop {number}")).says(&["no conflict"]);
        refused("conflicts drop 1").says(&["no conflict"]);
        refused("conflicts drop").says(&["expected"]);
        conflict(&mut cluster, &id, b"lost again", b"wins again");
        let again = eventually("it is in the archive", PATIENCE, || listed(&cluster, 1).pop());
        assert_ne!(again["number"].to_string(), number, "a number never comes back");
        cluster.storages[1].admin(&format!("conflicts drop {}", again["number"]));
        for storage in [0, 1] {
            eventually("it is dropped everywhere", PATIENCE, || {
                listed(&cluster, storage).is_empty().then_some(())
            });
        }
        assert_eq!(cli.get(&id), b"wins again");
    }
    // What was dropped stays dropped.
    cluster.kill_all();
    cluster.start();
    until_live(&cluster);
    assert!(listed(&cluster, 0).is_empty() && listed(&cluster, 1).is_empty());
    cluster.stop_all();
}
