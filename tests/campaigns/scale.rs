//! What must not grow with the number of objects or mounts.

use crate::harness::run::Cli;
use crate::harness::{eventually, from_env};
use crate::{cluster, median};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

fn fill(cli: &Cli, count: u64) {
    let count = count.to_string();
    let args =
        ["bench", "put", "--size", "256", "--connections", "64", "--count", &count, "--json"];
    let mut command = cli.command(args);
    let status = command.stdout(std::process::Stdio::null()).status().expect("bench");
    assert!(status.success(), "{status}");
}

struct Measured {
    rss_loaded: u64,
    rss_restarted: u64,
    ready_term_ms: f64,
    ready_kill_ms: f64,
}

fn measure(count: u64) -> Measured {
    let mut cluster = cluster(&["a"], 1).started();
    fill(&cluster.cli(), count);
    let rss_loaded = cluster.storages[0].daemon().proc_status("VmRSS");
    let (mut term, mut kill, mut rss) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..10 {
        if round % 2 == 0 {
            cluster.storages[0].stop();
        } else {
            cluster.storages[0].take().kill();
        }
        let began = Instant::now();
        cluster.storages[0].start();
        let took = began.elapsed().as_secs_f64() * 1000.0;
        if round % 2 == 0 {
            term.push(took)
        } else {
            kill.push(took)
        }
        rss.push(cluster.storages[0].daemon().proc_status("VmRSS") as f64);
        // Something to replay after each kill, the same for both sizes.
        fill(&cluster.cli(), 1000);
    }
    let measured = Measured {
        rss_loaded,
        rss_restarted: median(rss) as u64,
        ready_term_ms: median(term),
        ready_kill_ms: median(kill),
    };
    println!(
        "{count} objects: RSS {} KiB loaded, {} KiB restarted; ready after {:.0} ms (SIGTERM), {:.0} ms (SIGKILL)",
        measured.rss_loaded, measured.rss_restarted, measured.ready_term_ms, measured.ready_kill_ms
    );
    measured
}

/// Restart to "ready" at most 1.2x + 50 ms, and RSS at most 16 MiB more, with a hundred times the objects.
#[test]
#[ignore = "long: see docs/TESTING.md"]
fn no_number_of_objects_slows_the_start_or_takes_memory() {
    let (few, many) = (from_env("FOLIO_FEW", 10_000), from_env("FOLIO_MANY", 1_000_000));
    let (few, many) = (measure(few), measure(many));
    for (what, few, many) in [
        ("SIGTERM", few.ready_term_ms, many.ready_term_ms),
        ("SIGKILL", few.ready_kill_ms, many.ready_kill_ms),
    ] {
        assert!(many <= few * 1.2 + 50.0, "ready after {what}: {few:.0} ms, {many:.0} ms");
    }
    assert!(many.rss_loaded <= few.rss_loaded + (16 << 10), "RSS after the load");
    assert!(many.rss_restarted <= few.rss_restarted + (16 << 10), "RSS after a restart");
}

/// 256 mounts: ready within 5 s, at most 700 threads, `round_robin` even within 10 %.
#[test]
#[ignore = "long: see docs/TESTING.md"]
fn no_number_of_mounts_slows_the_start() {
    let mut cluster = cluster(&["a"], 256).storages_with("store.chunkfile_size", "\"4MiB\"");
    cluster.trackers[0].start();
    for start in ["new", "again"] {
        let began = Instant::now();
        cluster.storages[0].start();
        let took = began.elapsed();
        let threads = cluster.storages[0].daemon().proc_status("Threads");
        let rss = cluster.storages[0].daemon().proc_status("VmRSS");
        println!("{start}: ready after {took:?}, {threads} threads, RSS {rss} KiB");
        assert!(took <= Duration::from_secs(5), "{start}: {took:?}");
        assert!(threads <= 700, "{start}: {threads} threads");
        if start == "new" {
            cluster.storages[0].stop();
        }
    }
    let each = 20;
    let cli = cluster.cli();
    fill(&cli, 256 * each);
    let threads = cluster.storages[0].daemon().proc_status("Threads");
    println!("loaded: {threads} threads");
    assert!(threads <= 700, "{threads} threads");
    let mut per_mount: BTreeMap<u8, u64> = BTreeMap::new();
    for id in cli.list() {
        let id: folio::format::file_id::FileId = id.parse().expect("an id");
        *per_mount.entry(id.object.mount).or_default() += 1;
    }
    let (least, most) = (per_mount.values().min(), per_mount.values().max());
    println!("{} mounts, {least:?} to {most:?} objects each", per_mount.len());
    assert_eq!(per_mount.len(), 256);
    assert!(per_mount.values().all(|n| n * 10 >= each * 9 && n * 10 <= each * 11), "{per_mount:?}");
    eventually("it stops in order", Duration::from_secs(1), || {
        cluster.storages[0].stop();
        Some(())
    });
}
