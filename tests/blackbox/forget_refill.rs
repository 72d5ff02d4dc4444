//! `forget` while a mount is refilled: of a third machine, and of a source in the middle. The refill ends in proof with who is
//! left when `recovery.base_wait` is over, nothing acknowledged is lost, and who was forgotten is refused for ever.

use crate::harness::cluster::Cluster;
use crate::harness::content::{content, identify};
use crate::harness::mirrored::until_live;
use crate::harness::refilled::{Console, RECOVERED, empty, is_proved, until_recovered};
use crate::harness::run::Cli;
use crate::harness::{PATIENCE, eventually};

/// Objects, and their length: at the bandwidth of these tests a refill takes seconds.
const OBJECTS: u64 = 120;
const LENGTH: usize = 60_000;

/// Storages that refill slowly, and what is on all of them.
struct Scene {
    cluster: Cluster,
    ids: Vec<String>,
}

impl Scene {
    fn new(storages: usize) -> Self {
        let cluster = Cluster::new(1, &vec!["a"; storages], 1)
            .storages_with("store.chunkfile_size", "\"4MiB\"")
            .storages_with("store.single_file_threshold", "\"256KiB\"")
            .storages_with("durability.acks", "\"all\"")
            .storages_with("recovery.base_wait", "\"5s\"")
            .storages_with("recovery.bandwidth", "\"1MiB\"")
            .started();
        until_live(&cluster);
        let cli = Cli { timeout: Some("30s"), ..cluster.cli() };
        let ids = (0..OBJECTS).map(|n| cli.put(content(n, 0, LENGTH).to_vec())).collect();
        Self { cluster, ids }
    }

    /// Kills a machine and leaves it an empty disk.
    fn lose(&mut self, storage: usize) {
        self.cluster.storages[storage].take().kill();
        empty(&self.cluster.mount_path(storage, 0));
    }

    /// Starts a machine that has lost its disk; returns when it copies.
    fn refill(&mut self, storage: usize) {
        self.cluster.storages[storage].spawn();
        let mut console = Console::connect(&self.cluster.storages[storage]);
        eventually("it copies", RECOVERED, || {
            let now = console.recovery(0).expect("it runs");
            let copies = now["phase"] == "pull_data" && now["done"].as_u64() > Some(0);
            assert!(!is_proved(&now), "it was faster than it may be: {now}");
            copies.then_some(())
        });
    }

    /// `forget MACHINE` at a storage, as soon as the machine counts as silent.
    fn forget(&self, at: usize, machine: u64) {
        let console = self.cluster.storages[at].console();
        eventually("it is forgotten", PATIENCE, || {
            let forget = ["admin", &console, "forget", &machine.to_string()];
            (Cli::default().run(forget).code == 0).then_some(())
        });
    }

    /// Every object is on these machines.
    fn is_on(&self, machines: &[u64]) {
        let cli = Cli { timeout: Some("10s"), ..self.cluster.cli() };
        for (n, id) in self.ids.iter().enumerate() {
            for machine in machines {
                let got = cli.run(["get", id, "--from", &machine.to_string()]).ok();
                assert_eq!(identify(&got.stdout), Ok((n as u64, 0)), "{id} on {machine}");
            }
        }
    }

    /// What is stored now is acknowledged by all that are left.
    fn goes_on(&self, machines: &[u64]) {
        let cli = Cli { timeout: Some("20s"), ..self.cluster.cli() };
        let id = cli.put("after all of it");
        cli.run_with(["modify", &self.ids[0], "-"], content(0, 0, LENGTH).to_vec()).ok();
        for machine in machines {
            let got = cli.run(["get", &id, "--from", &machine.to_string()]).ok();
            assert_eq!(got.stdout, b"after all of it");
        }
    }

    /// As it was it is told what became of it, whenever it starts, and serves nothing.
    fn is_refused(&mut self, storage: usize) {
        for _ in 0..2 {
            self.cluster.storages[storage].spawn();
            let node = &self.cluster.storages[storage];
            node.daemon().wait_stderr("it is told", |text| text.contains("forgotten"));
            eventually("it says so", PATIENCE, || {
                node.admin("mounts").contains("forgotten").then_some(())
            });
            let machine = (storage + 1).to_string();
            let impatient = Cli { timeout: Some("1s"), ..self.cluster.cli() };
            assert_ne!(impatient.run(["get", &self.ids[0], "--from", &machine]).code, 0);
            self.cluster.storages[storage].take().kill();
        }
    }
}

/// The third one, with its disk, is away for good while the first is refilled from the second.
#[test]
fn no_refill_fails_because_a_third_machine_is_forgotten_meanwhile() {
    let mut scene = Scene::new(3);
    scene.cluster.storages[2].take().kill();
    scene.lose(0);
    scene.cluster.storages[0].spawn();
    let mut console = Console::connect(&scene.cluster.storages[0]);
    eventually("it waits for the third", RECOVERED, || {
        let now = console.recovery(0).expect("it runs");
        assert!(!is_proved(&now), "{now}");
        (now["state"] == "recovering").then_some(())
    });
    scene.forget(1, 3);
    until_recovered(&scene.cluster.storages[0], 0);
    scene.is_on(&[1, 2]);
    scene.goes_on(&[1, 2]);
    scene.is_refused(2);
    scene.is_on(&[1, 2]);
}

#[test]
fn no_refill_fails_because_one_of_its_sources_is_forgotten_in_the_middle() {
    let mut scene = Scene::new(3);
    scene.lose(0);
    scene.refill(0);
    scene.cluster.storages[2].take().kill();
    scene.forget(1, 3);
    until_recovered(&scene.cluster.storages[0], 0);
    scene.is_on(&[1, 2]);
    scene.goes_on(&[1, 2]);
    scene.is_refused(2);
}
