//! What the daemon asks of the system, as strace sees it: one positioned read per get, and no answer before the log is
//! durable. Where strace is missing or not allowed, a test is skipped with a line that says so.

use crate::harness::cluster::Cluster;
use crate::harness::content::content;
use crate::harness::mounting::{Mounted, permitted};
use crate::harness::{PATIENCE, eventually};
use folio::client::{Body, Client, GetOptions, PutOptions};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// strace on a running daemon.
struct Trace {
    child: Child,
    out: PathBuf,
}

/// A call, when it began and when it had its result.
#[derive(Debug)]
struct Event {
    text: String,
    begun: usize,
    done: usize,
}

impl Trace {
    /// Attached to every thread of the process when this returns. `None`, said on stdout: not possible here.
    fn of(pid: u32, calls: &str, dir: &Path) -> Option<Self> {
        let (out, err) = (dir.join("strace.out"), dir.join("strace.err"));
        let messages = std::fs::File::create(&err).expect("file");
        let spawned = Command::new("strace")
            .args(["-f", "-y", "-s", "64", "-e", &format!("trace={calls}"), "-p"])
            .arg(pid.to_string())
            .arg("-o")
            .arg(&out)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(messages)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                println!("skipped: strace: {error}");
                return None;
            }
        };
        let attached = eventually("strace attaches", PATIENCE, || {
            let said = std::fs::read_to_string(&err).unwrap_or_default();
            if said.contains("attached") {
                return Some(Ok(()));
            }
            child.try_wait().expect("our child").map(|_| Err(said))
        });
        match attached {
            Ok(()) => Some(Self { child, out }),
            Err(said) => {
                println!("skipped: strace may not attach: {}", said.trim());
                None
            }
        }
    }

    /// Detaches; the calls in the order in which they began.
    fn end(mut self) -> Vec<Event> {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("our child");
        self.child.wait().expect("our child");
        let text = std::fs::read_to_string(&self.out).expect("what strace wrote");
        events(&text)
    }
}

/// Lines `PID call(...) = result`, or in two halves: `PID call(... <unfinished ...>`, `PID <... call resumed>...`.
fn events(text: &str) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut halves: HashMap<&str, usize> = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if call.starts_with("<... ") {
            if let Some(event) = halves.remove(pid) {
                events[event].done = at;
                events[event].text.push_str(call);
            }
            continue;
        }
        let unfinished = call.ends_with("<unfinished ...>");
        if unfinished {
            halves.insert(pid, events.len());
        }
        let done = if unfinished { usize::MAX } else { at };
        events.push(Event { text: call.to_owned(), begun: at, done });
    }
    events
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime")
}

/// Gets of objects that never moved, on a cluster whose mounts are in `dir`.
fn one_read_per_get(what: &str, dir: TempDir) {
    const GETS: usize = 20;
    let cluster = Cluster::in_dir(dir, 1, &["a"], 1).started();
    let runtime = runtime();
    let client: Client = runtime.block_on(cluster.client(Duration::from_secs(10)));
    let ids: Vec<_> = (0..5u64)
        .map(|n| {
            let bytes = content(n, 1, 4096);
            runtime.block_on(client.put(Body::bytes(bytes), PutOptions::default())).expect("put").id
        })
        .collect();
    let get = |n: usize| {
        let n = n % ids.len();
        runtime.block_on(async {
            let found = client.get(&ids[n], GetOptions::default()).await.expect("there");
            let bytes = found.bytes(1 << 20).await.expect("whole");
            assert_eq!(bytes, content(n as u64, 1, 4096));
        });
    };
    // Each chunkfile is opened once.
    for n in 0..ids.len() {
        get(n);
    }
    let pid = cluster.storages[0].daemon().pid();
    let calls = "read,readv,pread64,preadv,preadv2,openat,open";
    let Some(trace) = Trace::of(pid, calls, cluster.dir.path()) else { return };
    for n in 0..GETS {
        get(n);
    }
    let events = trace.end();
    let of_files: Vec<&str> = events
        .iter()
        .map(|event| event.text.as_str())
        .filter(|text| text.contains(".chunk") || text.contains(".single"))
        .collect();
    println!("{what}: {GETS} gets, {} calls, such as {:?}", of_files.len(), of_files.first());
    assert_eq!(of_files.len(), GETS, "{what}: {of_files:#?}");
    for call in of_files {
        assert!(call.starts_with("pread"), "{what}: {call}");
    }
}

#[test]
fn no_get_takes_more_than_one_positioned_read() {
    one_read_per_get("plain", TempDir::new().expect("folder"));
}

/// Where "read only what is in memory" is not known to the file system.
#[test]
fn nor_on_a_tmpfs() {
    match TempDir::new_in("/dev/shm") {
        Ok(dir) => one_read_per_get("tmpfs", dir),
        Err(error) => println!("skipped: no /dev/shm: {error}"),
    }
}

#[test]
fn nor_on_an_overlay() {
    let base = TempDir::new().expect("folder");
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| {
        let path = base.path().join(name);
        std::fs::create_dir(&path).expect("folder");
        path
    });
    let [lower, upper, work] = [lower, upper, work].map(|path| path.display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let at = merged.to_str().expect("text");
    if !permitted("mount", &["-t", "overlay", "overlay", "-o", &options, at]) {
        return println!("skipped: no right to mount an overlay");
    }
    let overlay = Mounted(merged);
    one_read_per_get("overlay", TempDir::new_in(&overlay.0).expect("folder"));
}

/// The record is written, the log is synced, and only then does the answer leave (P1, R8).
#[test]
fn no_answer_leaves_before_its_record_is_durable() {
    const PUTS: u64 = 20;
    let mut cluster = Cluster::small();
    let runtime = runtime();
    let client: Client = runtime.block_on(cluster.client(Duration::from_secs(10)));
    let put = |n: u64| {
        let bytes = content(n, 1, 4096);
        runtime.block_on(client.put(Body::bytes(bytes), PutOptions::default())).expect("put");
    };
    put(0);
    // Nobody else to write to: what leaves through a socket is an answer.
    cluster.trackers[0].take().kill();
    let pid = cluster.storages[0].daemon().pid();
    let calls = "write,writev,sendto,sendmsg,pwrite64,pwritev,pwritev2,fdatasync,fsync";
    let Some(trace) = Trace::of(pid, calls, cluster.dir.path()) else { return };
    for n in 1..=PUTS {
        put(n);
    }
    let events = trace.end();
    let of_log = |event: &&Event, call: &str| {
        event.text.starts_with(call) && event.text.contains("/binlog/") && event.done != usize::MAX
    };
    let mut answers = 0;
    let mut last_answer = 0;
    for answer in events.iter().filter(|event| event.text.contains("\"FOLI")) {
        let written = events
            .iter()
            .filter(|event| of_log(event, "pwrite") && event.begun >= last_answer)
            .find(|event| event.done < answer.begun);
        let written = written.unwrap_or_else(|| panic!("no record before {answer:?}: {events:#?}"));
        let synced = events
            .iter()
            .find(|event| of_log(event, "fdatasync") && event.begun > written.done)
            .unwrap_or_else(|| panic!("no sync after {written:?}: {events:#?}"));
        assert!(synced.done < answer.begun, "{answer:?} left before {synced:?}");
        if answers == 0 {
            println!("{}\n{}\n{}", written.text, synced.text, answer.text);
        }
        answers += 1;
        last_answer = answer.begun;
    }
    assert_eq!(answers, PUTS, "{events:#?}");
}
