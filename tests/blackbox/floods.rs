//! Floods: of data while an operator looks, of consoles while data goes in and out, of answers that nobody reads.
//!
//! Nothing here judges time (that is the campaign of the same name): a flood is held until what it must not disturb
//! has been answered.

use crate::harness::cluster::{Cluster, Node};
use crate::harness::mirrored::{json, runtime};
use crate::harness::wire::Console;
use crate::harness::{PATIENCE, eventually};
use folio::client::{Body, PutOptions};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Sessions of one console at a time (docs/CONSOLE.md).
const SESSIONS: usize = 64;
/// What one too many is told.
const TOO_MANY: &str = "error: too many console sessions are open\n.\n";

fn status(node: &Node) -> Value {
    json(&node.admin("status json"))
}

/// Uploads that hold every request of the budget, as long as we like: who looks and who operates is answered meanwhile.
#[test]
fn no_exhausted_budget_silences_the_console() {
    const BUDGET: usize = 8;
    const LENGTH: usize = 4 << 20;
    let mut cluster = Cluster::new(1, &["a"], 1)
        .storages_with("limits.in_flight_requests", &BUDGET.to_string())
        .started();
    let storage = &cluster.storages[0];
    let before = cluster.cli().put("before");
    let runtime = runtime();
    let mut held = Vec::new();
    for _ in 0..BUDGET {
        let (sender, reader) = tokio::io::duplex(64 << 10);
        let mut sender = sender;
        let client = runtime.block_on(cluster.client(4 * PATIENCE));
        let put = runtime.spawn(async move {
            let body = Body::reader(Box::new(reader), Some(LENGTH as u64));
            client.put(body, PutOptions::default()).await
        });
        // More than a short body, so that it is on its way; the rest is held back.
        runtime.block_on(sender.write_all(&vec![7; LENGTH / 2])).expect("it is read");
        held.push((sender, put));
    }
    eventually("the uploads hold the whole budget", PATIENCE, || {
        (status(storage)["in_flight_requests"] == BUDGET).then_some(())
    });
    let busy = status(storage)["busy_answers"].as_u64().expect("a number");
    let quick = crate::harness::run::Cli { timeout: Some("2s"), ..cluster.cli() };
    quick.run_with(["put", "-"], b"one too many".to_vec()).exits(5);
    quick.run(["get", &before]).exits(5);

    let mut open = Console::connect(&storage.console());
    for _ in 0..20 {
        for command in ["status", "mounts", "peers", "requests", "scrub", "config show limits"] {
            let answer = open.ask(command).join("\n");
            assert!(!answer.is_empty() && !answer.starts_with("error:"), "{command}: {answer}");
        }
        // By a connection of its own as well.
        let now = status(storage);
        assert_eq!(now["in_flight_requests"], BUDGET, "the flood goes on: {now}");
    }
    assert!(status(storage)["busy_answers"].as_u64() > Some(busy), "nobody was told `busy`");
    let warnings = status(storage)["warnings"].to_string();
    assert!(warnings.contains("`busy`") && warnings.contains("in_flight"), "{warnings}");
    assert!(cluster.trackers[0].admin("status").contains("up"), "the tracker is asked, too");
    // What the warning names mends it at once.
    open.ask("config set limits.in_flight_requests 64");
    assert_eq!(quick.get(&before), b"before");

    for (mut sender, put) in held {
        runtime.block_on(sender.write_all(&vec![7; LENGTH / 2])).expect("it is still read");
        drop(sender);
        let put = runtime.block_on(put).expect("no panic").expect("stored");
        assert_eq!(cluster.cli().get(&put.id.to_string()), vec![7; LENGTH]);
    }
    eventually("all is given back", PATIENCE, || {
        (status(&cluster.storages[0])["in_flight_requests"] == 0).then_some(())
    });
    cluster.stop_all();
}

/// What a console said first; `None`: it is closed, and this was all.
fn greeting(stream: &mut TcpStream) -> (String, bool) {
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut text = Vec::new();
    let mut byte = [0; 1];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return (String::from_utf8(text).expect("text"), false),
            Ok(_) => text.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return (String::from_utf8(text).expect("text"), false);
            }
            Err(error) => panic!("neither a banner nor an end: {error}"),
        }
        if text.starts_with(b"folio ") && byte == *b"\n" {
            return (String::from_utf8(text).expect("text"), true);
        }
    }
}

/// A thousand consoles, idle, half-written and busy: as many as are documented are served, the others are told so, and
/// clients of the data do not notice.
#[test]
fn no_thousand_consoles_disturb_the_data_or_each_other() {
    const CONSOLES: usize = 1000;
    let mut cluster = Cluster::small();
    let console = cluster.storages[0].console();
    let (mut served, mut refused) = (Vec::new(), 0);
    for n in 0..CONSOLES {
        let mut stream = TcpStream::connect(&console).expect("the console listens");
        match greeting(&mut stream) {
            (_, true) => {
                if n % 3 == 1 {
                    stream.write_all(b"stat").expect("half a line");
                }
                served.push((n, stream));
            }
            (text, false) => {
                assert_eq!(text, TOO_MANY, "console {n}");
                refused += 1;
            }
        }
    }
    assert_eq!((served.len(), refused), (SESSIONS, CONSOLES - SESSIONS));

    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (busy, quiet): (Vec<_>, Vec<_>) = served.into_iter().partition(|(n, _)| n % 3 == 2);
    let mut crowd: Vec<_> =
        busy.into_iter().map(|(_, stream)| busy_guest(stream, &stop, &asked)).collect();
    // The others keep coming.
    for _ in 0..4 {
        let (console, stop) = (console.clone(), Arc::clone(&stop));
        crowd.push(std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let mut stream = TcpStream::connect(&console).expect("the console listens");
                assert_eq!(greeting(&mut stream).0, TOO_MANY);
            }
        }));
    }
    let cli = cluster.cli();
    for n in 0..20_u8 {
        let id = cli.put(vec![n; 3000]);
        cli.run_with(["modify", &id, "-"], vec![n; 2000]).ok();
        assert_eq!(cli.get(&id), vec![n; 2000]);
        let due = asked.load(Ordering::SeqCst) + 20;
        eventually("the busy ones are answered, too", PATIENCE, || {
            (asked.load(Ordering::SeqCst) >= due).then_some(())
        });
    }
    stop.store(true, Ordering::SeqCst);
    crowd.into_iter().for_each(|guest| guest.join().expect("every guest was answered"));
    // Whoever leaves makes room for the next one; half a line disturbs nobody but its writer.
    drop(quiet);
    eventually("there is room again", PATIENCE, || {
        let mut stream = TcpStream::connect(&console).expect("the console listens");
        greeting(&mut stream).1.then_some(())
    });
    cluster.stop_all();
}

fn busy_guest(
    stream: TcpStream,
    stop: &Arc<AtomicBool>,
    asked: &Arc<AtomicU64>,
) -> std::thread::JoinHandle<()> {
    let (stop, asked) = (Arc::clone(stop), Arc::clone(asked));
    std::thread::spawn(move || {
        let mut console = Console::after_banner(stream);
        while !stop.load(Ordering::SeqCst) {
            let answer = console.ask("status").join("\n");
            assert!(answer.contains("state"), "{answer}");
            asked.fetch_add(1, Ordering::SeqCst);
        }
    })
}

/// Guests that ask for much and never read are dropped, all of them, and leave no memory behind; the next operator is served.
#[test]
fn no_console_guest_that_never_reads_stays_or_fills_the_memory() {
    let mut cluster = Cluster::small();
    let storage = &cluster.storages[0];
    // So that there is much to tell.
    cluster
        .cli()
        .run(["bench", "put", "--size", "100", "--count", "6000", "--connections", "8"])
        .ok();
    let much = storage.admin("requests last=4096 json").len();
    assert!(much > 256 << 10, "an answer of {much} bytes");
    let before = storage.daemon().proc_status("VmRSS");
    let mut guests: Vec<TcpStream> = (0..SESSIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(storage.console()).expect("the console listens");
            assert!(greeting(&mut stream).1, "one of the first");
            stream.set_nonblocking(true).expect("a socket");
            stream
        })
        .collect();
    let mut highest = before;
    let line = b"requests last=4096 json\n".repeat(40);
    eventually("who never reads is cut off", 4 * PATIENCE, || {
        guests.retain_mut(|guest| match guest.write(&line) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        highest = highest.max(storage.daemon().proc_status("VmRSS"));
        std::thread::sleep(Duration::from_millis(20));
        guests.is_empty().then_some(())
    });
    println!(
        "{SESSIONS} guests, answers of {much} bytes: {before} kB before, {highest} kB at most"
    );
    // One answer each, and what the allocator keeps of others: not one for each of their lines.
    let most = before + (SESSIONS * much * 3 / 1024) as u64 + (32 << 10);
    assert!(highest <= most, "{before} kB before, {highest} kB at most, {most} allowed");
    let storage = &cluster.storages[0];
    assert!(storage.admin("status").contains("serving"));
    let id = cluster.cli().put("afterwards");
    assert_eq!(cluster.cli().get(&id), b"afterwards");
    cluster.stop_all();
}
