//! What an operator waits for while data floods in, and what data lose to a thousand consoles. Judges time.

use crate::harness::cluster::{Cluster, Node};
use crate::harness::from_env;
use crate::harness::mirrored::{json, until_live};
use crate::harness::wire::Console;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The bound of `status`.
const LIMIT: Duration = Duration::from_millis(100);
const CONSOLES: usize = 1000;

fn scene() -> Cluster {
    let cluster =
        super::cluster(&["a", "a"], 1).storages_with("limits.in_flight_requests", "256").started();
    until_live(&cluster);
    cluster
}

fn bench(cluster: &Cluster, args: &[&str]) -> Child {
    let mut command = cluster.cli().command(["bench"].iter().chain(args));
    command.arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("the program starts")
}

/// Operations a second that went well; whoever was told `busy` does not count.
fn rate(child: Child) -> f64 {
    let output = child.wait_with_output().expect("our child");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    json(text.lines().last().expect("a report"))["ops_per_s"].as_f64().expect("a number")
}

/// How long `status` took each time, a connection each, shortest first.
fn statuses(node: &Node, count: u64) -> Vec<Duration> {
    let mut took: Vec<Duration> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            let mut console = Console::connect(&node.console());
            assert!(console.ask("status").join("\n").contains("state"));
            let took = begun.elapsed();
            std::thread::sleep(Duration::from_millis(20));
            took
        })
        .collect();
    took.sort();
    took
}

fn said(what: &str, took: &[Duration]) -> (Duration, Duration) {
    let at = |part: usize| took[(took.len() - 1) * part / 100];
    println!("{what}: {} calls, p50 {:?}, p99 {:?}, max {:?}", took.len(), at(50), at(99), at(100));
    (at(99), at(100))
}

#[test]
#[ignore = "judges time: needs an idle machine"]
fn no_flood_of_data_keeps_an_operator_waiting() {
    let calls = from_env("FOLIO_CONSOLE_CALLS", 200);
    let cluster = scene();
    let node = &cluster.storages[0];
    said("quiet", &statuses(node, calls));
    let put = ["put", "--size", "4k", "--connections", "512", "--duration", "20s"];
    let get = ["get", "--size", "4k", "--connections", "512", "--duration", "20s"];
    let gets = bench(&cluster, &get);
    let status = || json(&node.admin("status json"));
    crate::harness::eventually("objects are read", Duration::from_secs(60), || {
        (status()["gets"].as_u64() > Some(1000)).then_some(())
    });
    // What is read was made before: from now on most are told `busy`.
    node.admin("config set limits.in_flight_requests 64");
    let flood = [gets, bench(&cluster, &put)];
    crate::harness::eventually("the budget is used up", Duration::from_secs(20), || {
        (status()["busy_answers"].as_u64() > Some(1000)).then_some(())
    });
    let flooded = said("flooded", &statuses(node, calls));
    let busy = status()["busy_answers"].clone();
    let rates: Vec<f64> = flood.into_iter().map(rate).collect();
    println!("puts and gets a second: {rates:.0?}; {busy} were told `busy`");
    assert!(flooded.1 <= LIMIT, "p99 and slowest: {flooded:?}");
}

/// A thousand connections: those that are served ask for `status` `pause` apart, the others come again.
struct Crowd {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn gather(node: &Node, pause: Duration) -> Self {
        let (stop, asked, refused) = Default::default();
        let mut crowd = Self { stop, asked, refused, threads: Vec::new() };
        for _ in 0..CONSOLES / 10 {
            let (stop, asked) = (Arc::clone(&crowd.stop), Arc::clone(&crowd.asked));
            let (refused, address) = (Arc::clone(&crowd.refused), node.console());
            let guests = move || {
                let mut guests: Vec<Option<TcpStream>> = (0..10).map(|_| None).collect();
                while !stop.load(Ordering::SeqCst) {
                    for guest in &mut guests {
                        if ask(guest, &address) { &asked } else { &refused }
                            .fetch_add(1, Ordering::SeqCst);
                    }
                    std::thread::sleep(pause);
                }
            };
            crowd.threads.push(std::thread::spawn(guests));
        }
        crowd
    }

    fn leave(self) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        (self.asked.load(Ordering::SeqCst), self.refused.load(Ordering::SeqCst))
    }
}

/// Whether it was answered.
fn ask(guest: &mut Option<TcpStream>, address: &str) -> bool {
    let stream = guest.take().or_else(|| TcpStream::connect(address).ok());
    let Some(mut stream) = stream else { return false };
    let mut answer = [0; 8 << 10];
    if stream.write_all(b"status\n").is_err() {
        return false;
    }
    let mut text = Vec::new();
    while !text.ends_with(b"\n.\n") {
        match stream.read(&mut answer) {
            Ok(count @ 1..) => text.extend_from_slice(&answer[..count]),
            Ok(0) | Err(_) => return false,
        }
    }
    let served = !text.starts_with(b"error:");
    *guest = served.then_some(stream);
    served
}

#[test]
#[ignore = "judges time: needs an idle machine"]
fn no_thousand_consoles_slow_the_data_down() {
    let rounds = from_env("FOLIO_CONSOLE_ROUNDS", 3);
    let pause = Duration::from_millis(from_env("FOLIO_CONSOLE_PAUSE_MS", 1000));
    let cluster = scene();
    let put = ["put", "--size", "4k", "--connections", "64", "--duration", "5s"];
    let get = ["get", "--size", "4k", "--connections", "64", "--duration", "5s"];
    for load in [&put, &get] {
        let (mut alone, mut crowded) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            alone.push(rate(bench(&cluster, load)));
            let crowd = Crowd::gather(&cluster.storages[0], pause);
            crowded.push(rate(bench(&cluster, load)));
            let (asked, refused) = crowd.leave();
            println!("{}: {asked} answers to consoles, {refused} turned away", load[0]);
        }
        println!("{} a second, alone {alone:.0?}, with {CONSOLES} consoles {crowded:.0?}", load[0]);
        let share = super::median(crowded) / super::median(alone);
        println!("{}: {share:.2} of the rate alone", load[0]);
        assert!(share >= 0.8, "{}: {share:.2}", load[0]);
    }
}
