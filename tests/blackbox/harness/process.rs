//! One `folio` daemon as a child process.

use super::{PATIENCE, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running daemon. Dropping it kills it.
pub struct Daemon {
    child: Child,
    lines: Receiver<String>,
    stderr: Arc<Mutex<String>>,
    /// Ends when the daemon has closed its stderr.
    listener: Option<JoinHandle<()>>,
    name: String,
}

/// A command that runs the program under test, without this process's own settings.
pub fn folio() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_folio")))
}

/// Without the settings of this process.
pub fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FOLIO_")) {
        command.env_remove(name);
    }
    command.env_remove("NOTIFY_SOCKET");
    command
}

impl Daemon {
    /// Starts it. Its output is read all the time, so it never waits for us.
    pub fn spawn(name: &str, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let collected = Arc::clone(&stderr);
        let mut pipe = child.stderr.take().expect("piped");
        let listener = std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                collected.lock().expect("lock").push_str(&text);
            }
        });
        Self { child, lines, stderr, listener: Some(listener), name: name.to_owned() }
    }

    /// Waits for the line that starts with "ready" and returns it.
    pub fn wait_ready(&self) -> String {
        self.ready_within(PATIENCE).unwrap_or_else(|| {
            panic!("{} did not say ready; its stderr:\n{}", self.name, self.stderr())
        })
    }

    /// The line that starts with "ready", if it comes in time.
    pub fn ready_within(&self, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.starts_with("ready") => return Some(line),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("lock").clone()
    }

    /// Waits until stderr satisfies a condition.
    pub fn wait_stderr(&self, what: &str, says: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !says(&self.stderr()) {
            assert!(
                Instant::now() < deadline,
                "{}: {what}: not within {PATIENCE:?}; stderr:\n{}",
                self.name,
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Is it still there? (Not reaped by this question, so its id stays its own.)
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    fn signal(&self, signal: Signal) {
        // It is our child and not reaped yet, so the id cannot belong to anybody else.
        let _gone_already = kill_process(Pid::from_child(&self.child), signal);
    }

    /// SIGKILL: nothing is written, nothing is closed in order.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("our child");
    }

    /// SIGKILL without waiting for the end, for killing many at one moment.
    pub fn kill_now(&self) {
        self.signal(Signal::KILL);
    }

    /// SIGSTOP: it stands still and keeps its sockets.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGTERM, and the end that follows from it.
    pub fn terminate(self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        self.wait_end()
    }

    /// Waits for its end by itself.
    pub fn wait_end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        // The end of its stdout is its end.
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{} did not end; its stderr:\n{}", self.name, self.stderr())
                }
            }
        }
        let status = self.child.wait().expect("our child");
        if let Some(listener) = self.listener.take() {
            listener.join().expect("it only reads");
        }
        (status, self.stderr())
    }

    /// A line of /proc/PID/status in kB, for instance `VmRSS` or `VmHWM`; or `Threads`.
    pub fn proc_status(&self, key: &str) -> u64 {
        proc_status(self.pid(), key).expect("it runs")
    }

    /// Milliseconds of processor time that it has taken, in the system's calls too, to ten.
    pub fn cpu_ms(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        // Behind the name, which may hold anything: state, ten numbers, then user and system time in hundredths of a second.
        let fields = text.rsplit_once(')').expect("a name").1.split_ascii_whitespace();
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number") * 10).sum()
    }
}

/// A number from /proc/PID/status; `None` when the process is gone.
pub fn proc_status(pid: u32, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(key))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
            let _reaped = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- stderr of {}:\n{}", self.name, self.stderr());
        }
    }
}

/// Waits until nobody listens on a port any more.
pub fn wait_port_free(port: u16) {
    eventually("the port is free", PATIENCE, || {
        std::net::TcpListener::bind(("127.0.0.1", port)).ok()
    });
}
