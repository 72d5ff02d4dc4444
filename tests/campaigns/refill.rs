//! Mounts that are refilled: how fast, with how much memory, and killed in every phase.

use crate::files::files_below;
use crate::harness::cluster::Cluster;
use crate::harness::load::Load;
use crate::harness::mirrored::until_live;
use crate::harness::refilled::{self, Console, PHASES, empty, killed_once};
use crate::harness::{content, eventually, from_env};
use crate::{campaign_dir, median};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// Nothing takes so long.
const LIMIT: Duration = Duration::from_secs(1800);

fn fill(cluster: &Cluster, sizes: &[&str], count: u64) {
    let count = count.to_string();
    let mut args = vec!["bench", "put", "--connections", "64", "--count", &count, "--json"];
    args.extend(sizes);
    let mut command = cluster.cli().command(args);
    let status = command.stdout(std::process::Stdio::null()).status().expect("bench");
    assert!(status.success(), "{status}");
}

/// Waits until nothing of `folder` is left to be written by the system: neither side pays for what was before.
fn settle(folder: &Path) {
    let folder = File::open(folder).expect("folder");
    rustix::fs::syncfs(&folder).expect("syncfs");
}

/// Bytes per second of copying the mount's chunkfiles as they lie there, each with an fsync.
fn copy(mount: &Path, to: &Path) -> f64 {
    std::fs::create_dir_all(to).expect("folder");
    settle(to);
    let (begun, mut bytes) = (Instant::now(), 0);
    for (number, file) in files_below(&mount.join("chunks")).iter().enumerate() {
        let copied = to.join(number.to_string());
        bytes += std::fs::copy(file, &copied).expect("copied");
        File::open(&copied).and_then(|file| file.sync_all()).expect("synced");
    }
    let rate = bytes as f64 / begun.elapsed().as_secs_f64();
    std::fs::remove_dir_all(to).expect("removed");
    rate
}

struct Refilled {
    /// From the first phase to proof and service.
    took: Duration,
    /// MiB of memory in use at most: the source, the one that is refilled.
    memory: (u64, u64),
    /// Processor time of each since it was started for this, milliseconds.
    cpu_ms: (u64, u64),
}

fn refill(cluster: &mut Cluster) -> Refilled {
    cluster.storages[1].take().kill();
    empty(&cluster.mount_path(1, 0));
    settle(&cluster.mount_path(1, 0));
    cluster.storages[0].stop();
    cluster.storages[0].start();
    cluster.storages[1].spawn();
    let mut console = Console::connect(&cluster.storages[1]);
    let (mut begun, mut memory) = (None, (0, 0));
    let took = eventually("it is refilled", LIMIT, || {
        let now = console.recovery(0).expect("it runs");
        if begun.is_none() && now["phase"] != "none" {
            begun = Some(Instant::now());
        }
        let rss = |storage: usize| cluster.storages[storage].daemon().proc_status("VmRSS") / 1024;
        memory = (memory.0.max(rss(0)), memory.1.max(rss(1)));
        refilled::is_proved(&now).then(|| begun.map_or(Duration::ZERO, |at| at.elapsed()))
    });
    let cpu_ms = |storage: usize| cluster.storages[storage].daemon().cpu_ms();
    Refilled { took, memory, cpu_ms: (cpu_ms(0), cpu_ms(1)) }
}

/// A mount of 4 KiB objects, refilled from one other storage, against a plain copy of the same files on the same disk;
/// and the memory of both sides for each size.
#[test]
#[ignore = "long, judges time: see docs/TESTING.md"]
fn no_refill_is_much_slower_than_cp_or_takes_memory_by_size() {
    let rounds = from_env("FOLIO_REFILL_ROUNDS", 5);
    let sizes = std::env::var("FOLIO_REFILL_MIB").unwrap_or_else(|_| "1024,4096".to_owned());
    println!("FOLIO_REFILL_MIB={sizes}");
    let mut all = Vec::new();
    for mib in sizes.split(',').map(|mib| mib.trim().parse::<u64>().expect("MiB")) {
        let mut cluster = Cluster::in_dir(campaign_dir(), 1, &["a", "a"], 1)
            .storages_with("sync.log_retention_bytes", "\"64MiB\"")
            .started();
        until_live(&cluster);
        fill(&cluster, &["--size", "4k"], mib * 256);
        let payload = (mib << 20) as f64;
        let (mut refills, mut copies, mut memory) = (Vec::new(), Vec::new(), (0, 0));
        let mut cpu = Vec::new();
        for round in 0..rounds {
            let files = files_below(&cluster.mount_path(0, 0).join("chunks"));
            let bytes: u64 = files.iter().map(|file| file.metadata().expect("stat").len()).sum();
            let copied = copy(&cluster.mount_path(0, 0), &cluster.dir.path().join("copy"));
            let refilled = refill(&mut cluster);
            let rate = bytes as f64 / refilled.took.as_secs_f64();
            let micros = |ms: u64| ms as f64 * 1000.0 / (mib * 256) as f64;
            let (source, target) = (micros(refilled.cpu_ms.0), micros(refilled.cpu_ms.1));
            println!(
                "{mib} MiB, round {round}: refilled in {:.2} s, {:.0} MB/s of files ({:.0} MB/s of payload); cp + fsync \
                 {:.0} MB/s; {:.0} %; memory {} and {} MiB; {source:.1} and {target:.1} us of processor an object",
                refilled.took.as_secs_f64(),
                rate / 1e6,
                payload / refilled.took.as_secs_f64() / 1e6,
                copied / 1e6,
                rate / copied * 100.0,
                refilled.memory.0,
                refilled.memory.1,
            );
            cpu.push(source + target);
            refills.push(rate);
            copies.push(copied);
            memory = (memory.0.max(refilled.memory.0), memory.1.max(refilled.memory.1));
        }
        let (refilled, copied) = (median(refills), median(copies));
        println!(
            "{mib} MiB of 4 KiB objects, medians of {rounds}: refilled at {:.0} MB/s, cp + fsync at {:.0} MB/s: {:.0} %; \
             memory at most {} MiB (source) and {} MiB (refilled); {:.1} us of processor an object",
            refilled / 1e6,
            copied / 1e6,
            refilled / copied * 100.0,
            memory.0,
            memory.1,
            median(cpu)
        );
        all.push((mib, refilled / copied, memory));
        cluster.stop_all();
    }
    for (mib, ratio, memory) in &all {
        assert!(*ratio >= 0.6, "{mib} MiB: {:.0} % of cp", ratio * 100.0);
        assert!(memory.0 <= all[0].2.0 + 32, "{mib} MiB: the source grows with the size");
        assert!(memory.1 <= all[0].2.1 + 32, "{mib} MiB: what is refilled grows with the size");
    }
}

/// Source or target killed once in each recovery, in every phase.
#[test]
#[ignore = "long: see docs/TESTING.md"]
fn no_kill_makes_a_refill_begin_anew() {
    let rounds = from_env("FOLIO_REFILL_KILLS", 40);
    let mib = from_env("FOLIO_REFILL_KILL_MIB", 500);
    let mut seed = from_env("FOLIO_SEED", 1);
    let mut cluster = Cluster::in_dir(campaign_dir(), 1, &["a", "a"], 1)
        .storages_with("recovery.base_wait", "\"60s\"")
        .storages_with("store.single_file_threshold", "\"512KiB\"")
        .started();
    until_live(&cluster);
    // 114 KiB on average, large objects among them.
    fill(&cluster, &["--sizes", "4k:60,32k:30,1m:10"], mib * 1024 / 114);
    until_live(&cluster);
    let data: u64 = ["chunks", "singles"]
        .iter()
        .flat_map(|folder| files_below(&cluster.mount_path(0, 0).join(folder)))
        .map(|file| file.metadata().expect("stat").len())
        .sum();
    let mut worst: f64 = 0.0;
    for round in 0..rounds {
        // Copying is where there is most to lose.
        let phase = if round % 2 == 0 { "pull_data" } else { PHASES[(round / 2 % 6) as usize] };
        let part = content::below(&mut seed, 100);
        let source = content::below(&mut seed, 2) == 0;
        let killed = killed_once(&mut cluster, phase, part, source);
        until_live(&cluster);
        let share = killed.transferred as f64 / data as f64;
        worst = worst.max(share);
        println!(
            "round {round}: {} killed in {} ({part} %): {} MiB of {} MiB transferred, {share:.2}",
            if source { "source" } else { "target" },
            killed.phase,
            killed.transferred >> 20,
            data >> 20,
        );
        assert!(share <= 1.2, "{share:.2} times the data was transferred");
    }
    println!("{rounds} kills: at most {worst:.2} times the data was transferred");
    cluster.stop_all();
}

/// Three storages with three mounts each under load: one mount's content removed under the live process, one while it is
/// down, and a whole machine.
#[test]
#[ignore = "long: see docs/TESTING.md"]
fn no_lost_disk_or_machine_loses_a_change() {
    let mib = from_env("FOLIO_REFILL_LOSE_MIB", 2048);
    let mut cluster = Cluster::in_dir(campaign_dir(), 1, &["a"; 3], 3)
        .storages_with("sync.log_retention_bytes", "\"64MiB\"")
        .storages_with("store.single_file_threshold", "\"512KiB\"")
        .started();
    until_live(&cluster);
    fill(&cluster, &["--sizes", "4k:60,32k:30,1m:10"], mib * 1024 / 114);
    let load = Load::begin(&cluster, 4, Duration::from_millis(5));
    load.go_on(100);
    let lost = |cluster: &Cluster, storage: usize, mounts: &[usize], what: &str, begun: Instant| {
        let node = &cluster.storages[storage];
        refilled::until_answers(node);
        let begins = |mount: &usize| refilled::recovery(node, *mount)["phase"] != "none";
        eventually("it begins by itself", LIMIT, || mounts.iter().all(begins).then_some(()));
        let noticed = begun.elapsed();
        load.go_on(200);
        let ended =
            mounts.iter().map(|mount| refilled::until_recovered_within(node, *mount, LIMIT));
        let ended: Vec<_> = ended.map(|ended| ended["why"].to_string()).collect();
        println!(
            "{what}: begun after {:.1} s, refilled after {:.1} s, {} changes meanwhile and before: {}",
            noticed.as_secs_f64(),
            begun.elapsed().as_secs_f64(),
            load.changes(),
            ended.join("; ")
        );
        assert!(noticed < Duration::from_secs(10), "{what}: noticed after {noticed:?}");
    };
    let begun = Instant::now();
    empty(&cluster.mount_path(0, 1));
    lost(&cluster, 0, &[1], "a mount under the live process", begun);
    cluster.storages[1].take().kill();
    empty(&cluster.mount_path(1, 2));
    let begun = Instant::now();
    cluster.storages[1].spawn();
    lost(&cluster, 1, &[2], "a mount while it was down", begun);
    until_live(&cluster);
    cluster.storages[2].take().kill();
    for mount in 0..3 {
        empty(&cluster.mount_path(2, mount));
    }
    empty(&cluster.dir.path().join("s3").join("state"));
    let begun = Instant::now();
    cluster.storages[2].spawn();
    lost(&cluster, 2, &[0, 1, 2], "a whole machine", begun);
    until_live(&cluster);
    let changes = load.changes();
    let objects = load.end(3);
    println!("{changes} changes of {objects} objects: the last of each on all three machines");
    cluster.stop_all();
}

/// 99th percentile in milliseconds of a steady load against storage 1.
fn latency(cluster: &Cluster, load: &str) -> f64 {
    let target = cluster.storages[0].address();
    let mut args = vec!["bench", load, "--size", "4k", "--connections", "16", "--rate", "1000"];
    args.extend(["--objects", "2000", "--duration", "8s", "--target", &target, "--json"]);
    let said = cluster.cli().run(args).ok().json();
    said["p99_us"].as_f64().expect("a number") / 1000.0
}

/// Clients of the storage that another one copies from.
#[test]
#[ignore = "long, judges time: see docs/TESTING.md"]
fn no_refill_makes_the_clients_of_its_source_wait() {
    let rounds = from_env("FOLIO_REFILL_ROUNDS", 3);
    let mib = from_env("FOLIO_REFILL_SOURCE_MIB", 1024);
    let mut cluster = Cluster::in_dir(campaign_dir(), 1, &["a", "a"], 1)
        .storages_with("sync.log_retention_bytes", "\"64MiB\"")
        .storages_with("durability.acks", "\"local\"")
        .started();
    until_live(&cluster);
    fill(&cluster, &["--size", "4k"], mib * 256);
    let mut worst: f64 = 0.0;
    for load in ["get", "mixed"] {
        let (mut alone, mut copied) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            cluster.storages[1].take().kill();
            alone.push(latency(&cluster, load));
            empty(&cluster.mount_path(1, 0));
            cluster.storages[1].spawn();
            let node = &cluster.storages[1];
            refilled::until_answers(node);
            eventually("it copies", LIMIT, || {
                (refilled::recovery(node, 0)["phase"] == "pull_data").then_some(())
            });
            copied.push(latency(&cluster, load));
            let now = refilled::recovery(node, 0);
            println!("{load}: {} is at {} of {} bytes", now["phase"], now["done"], now["total"]);
            refilled::until_recovered_within(node, 0, LIMIT);
        }
        let (alone, copied) = (median(alone), median(copied));
        println!(
            "{load}, medians of {rounds}: p99 {alone:.2} ms, while a mirror copies {copied:.2} ms"
        );
        worst = worst.max(copied / alone);
    }
    assert!(worst <= 2.0, "p99 is {worst:.1} times what it was");
    cluster.stop_all();
}
