//! Mirrors as clients and operators see them: real daemons from config files, killed, paused and brought back.

use crate::harness::cluster::Cluster;
use crate::harness::mirrored::{count_up, json, machine_burns, until_live, writers_survive};
use crate::harness::run::Cli;
use crate::harness::{PATIENCE, eventually, from_env};
use serde_json::Value;

fn mirrors(count: usize) -> Cluster {
    crate::harness::mirrored::mirrors(tempfile::TempDir::new().expect("temporary folder"), count)
}

/// Puts an object on machine 1, on both storages when it returns.
pub fn put_on_first(cluster: &Cluster, bytes: &[u8]) -> String {
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
pub fn conflict(cluster: &mut Cluster, id: &str, loses: &[u8], wins: &[u8]) {
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

/// Compare-and-swap is exact, whoever dies meanwhile: a share of the campaign of the same name.
#[test]
fn no_contended_increment_is_lost_or_counted_twice() {
    let seed = from_env("FOLIO_COUNT_SEED", 1);
    let mut cluster = mirrors(2);
    let tally = count_up(&mut cluster, 8, 30, 3, seed);
    println!("{tally:?}");
    cluster.stop_all();
}

/// One of two storages dies under unconditional writes: no edit fails, the answers and `status` say that there is one copy,
/// and redundancy comes back by itself. The gap is judged in the campaign.
#[test]
fn no_edit_fails_because_a_storage_dies() {
    let mut cluster = mirrors(2);
    let fared = writers_survive(&mut cluster, 4, 200);
    println!("{fared:?}");
    cluster.stop_all();
}

/// The bytes really are on every mirror: with the other machines stopped each one answers everything from its own.
#[test]
fn no_mirror_needs_the_others_to_answer() {
    let cluster = mirrors(3);
    let cli = cluster.cli();
    let all: Vec<(String, Vec<u8>)> = (0..24_usize)
        .map(|n| {
            let bytes = vec![b'a' + n as u8; [10, 3000, 200_000][n % 3]];
            (cli.put(bytes.clone()), bytes)
        })
        .collect();
    for machine in 1..=3 {
        let from = machine.to_string();
        for (id, bytes) in &all {
            eventually("it is on the mirror", PATIENCE, || {
                let answer = cli.run(["get", id, "--from", &from]);
                (answer.code == 0 && answer.stdout == *bytes).then_some(())
            });
        }
    }
    for machine in 0..3 {
        let others = || (0..3).filter(|other| *other != machine);
        others().for_each(|other| cluster.storages[other].daemon().pause());
        let from = (machine + 1).to_string();
        for (id, bytes) in &all {
            assert!(cli.run(["get", id, "--from", &from]).ok().stdout == *bytes, "{id}");
        }
        let patient = Cli { timeout: Some("1s"), ..cli.clone() };
        let silent = (others().next().expect("there are others") + 1).to_string();
        patient.run(["get", &all[0].0, "--from", &silent]).exits(5);
        others().for_each(|other| cluster.storages[other].daemon().resume());
    }
}

/// A check of all copies ends soon though one member stands still: it is not waited for with every object.
#[test]
fn no_silent_member_is_waited_for_with_every_object() {
    let cluster = mirrors(2);
    let (cli, tree) = (cluster.cli(), cluster.dir.path().join("tree"));
    let manifest = cluster.dir.path().join("M");
    std::fs::create_dir(&tree).expect("folder");
    for n in 0..200 {
        std::fs::write(tree.join(n.to_string()), format!("object {n}")).expect("write");
    }
    cli.import(&tree, &manifest).ok();
    let manifest = manifest.to_str().expect("text");
    let verify = ["verify", manifest, "--all-mirrors", "--jobs", "2"];
    eventually("every mirror has all", PATIENCE, || (cli.run(verify).code == 0).then_some(()));
    cluster.storages[1].daemon().pause();
    // Two at a time: waiting for each would take 200 seconds.
    let begun = std::time::Instant::now();
    let answer = Cli { timeout: Some("2s"), ..cli.clone() }.run(verify).exits(1);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    assert_eq!(answer.last_line(), "200 ok, 200 missing, 0 different");
    answer.says(&["missing on machine 2", "no answer in time; it is asked again every 10 s"]);
    cluster.storages[1].daemon().resume();
    cli.run(verify).ok();
}

/// A machine that never comes back is forgotten by a command: nothing waits for it, trackers show it no more, and as it was
/// it is refused.
#[test]
fn no_dead_machine_is_waited_for_once_it_is_forgotten() {
    let mut cluster = Cluster::new(1, &["a"; 3], 1).storages_with("durability.acks", "\"all\"");
    cluster.trackers[0].config.set("liveness.offline_after", "\"1s\"");
    cluster.trackers[0].config.set("liveness.suspect_after", "\"500ms\"");
    let mut cluster = cluster.started();
    until_live(&cluster);
    let cli = Cli { timeout: Some("20s"), ..cluster.cli() };
    let ids: Vec<String> = (0..6).map(|n| cli.put(format!("object {n}"))).collect();
    let console = |cluster: &Cluster, command: &str| {
        let mut args = vec!["admin".to_owned(), cluster.storages[0].console()];
        args.extend(command.split(' ').map(str::to_owned));
        Cli::default().run(args)
    };
    console(&cluster, "forget 3").exits(1).says(&["stop it first", "silent for 3 s"]);
    console(&cluster, "forget 1").exits(1).says(&["this is that machine"]);
    console(&cluster, "forget 9").exits(1).says(&["no member"]);
    cluster.storages[2].take().kill();
    let impatient = Cli { timeout: Some("1s"), ..cli.clone() };
    impatient.run_with(["put", "-"], "all three").exits(5);
    eventually("it is silent", PATIENCE, || {
        (console(&cluster, "forget 3").code == 0).then_some(())
    });
    assert!(cluster.storages[0].admin("nodes").contains("forgotten"));
    eventually("it is waited for no more", PATIENCE, || {
        (impatient.run_with(["put", "-"], "both").code == 0).then_some(())
    });
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(cli.get(id), format!("object {n}").as_bytes());
        let opver = cli.opver(id);
        cli.run_with(["modify", id, "-", "--if-opver", &opver], format!("again {n}")).ok();
    }
    let address = cluster.storages[2].address();
    eventually("the tracker shows it no more", PATIENCE, || {
        (!cluster.trackers[0].admin("nodes").contains(&address)).then_some(())
    });
    cluster.storages[2].spawn();
    let daemon = cluster.storages[2].daemon();
    daemon.wait_stderr("it is told", |text| text.contains("forgotten"));
    assert!(cluster.storages[2].admin("mounts").contains("forgotten"));
    // What is advised helps, and what would do nothing is refused.
    let said = cluster.storages[2].admin("status");
    assert!(said.contains("state_dir") && !said.contains("check the disk"), "{said}");
    let own = cluster.storages[2].console();
    let refused = Cli::default().run(["admin", &own, "recover", "0", "start", "--confirm"]);
    refused.exits(1).says(&["forgotten", "state_dir"]);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(cli.get(id), format!("again {n}").as_bytes());
    }
}

/// A share of the campaign.
#[test]
fn no_change_with_two_copies_dies_with_a_machine() {
    let seed = from_env("FOLIO_BURN_SEED", 1);
    let report = machine_burns(tempfile::TempDir::new().expect("temporary folder"), seed);
    println!("{report}");
}
