//! One run of the command line.

use super::process::folio;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

/// No command in these tests takes longer, unless it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// The command line towards one cluster.
#[derive(Clone, Debug, Default)]
pub struct Cli {
    /// `--tracker` of each run.
    pub trackers: Vec<String>,
    /// `--key-file` of each run.
    pub key_file: Option<String>,
    /// `--ca` of each run.
    pub ca: Option<String>,
    /// `--timeout` of each run, as text.
    pub timeout: Option<&'static str>,
}

/// What a run answered.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
    what: String,
}

impl Cli {
    /// Runs `folio ARGS --tracker ..`.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Answer {
        self.run_with(args, Vec::new())
    }

    /// The same with bytes on stdin.
    pub fn run_with<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        stdin: impl Into<Vec<u8>>,
    ) -> Answer {
        let command = self.command(args);
        let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
        let output = assert_cmd::Command::from_std(command)
            .write_stdin(stdin)
            .timeout(HANGS_AFTER)
            .output()
            .expect("the program starts");
        let code = output.status.code().unwrap_or_else(|| {
            panic!("{what} {}: {}", output.status, String::from_utf8_lossy(&output.stderr))
        });
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{what} panicked: {stderr}");
        Answer { code, stdout: output.stdout, stderr, what }
    }

    /// The command, to be started by the caller.
    pub fn command<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> std::process::Command {
        let mut command = folio();
        for tracker in &self.trackers {
            command.args(["--tracker", tracker]);
        }
        if let Some(file) = &self.key_file {
            command.args(["--key-file", file]);
        }
        if let Some(file) = &self.ca {
            command.args(["--ca", file]);
        }
        if let Some(timeout) = self.timeout {
            command.args(["--timeout", timeout]);
        }
        command.args(args);
        command
    }

    /// Stores bytes and returns the id.
    pub fn put(&self, bytes: impl Into<Vec<u8>>) -> String {
        self.run_with(["put", "-"], bytes).ok().line()
    }

    /// The content of an object.
    pub fn get(&self, id: &str) -> Vec<u8> {
        self.run(["get", id]).ok().stdout
    }

    /// `stat --json`.
    pub fn stat(&self, id: &str) -> Value {
        self.run(["stat", id, "--json"]).ok().json()
    }

    /// The current version of an object.
    pub fn opver(&self, id: &str) -> String {
        self.stat(id)["opver"].as_str().expect("opver is a token").to_owned()
    }

    /// Ids of all live objects, as `list --json` tells them.
    pub fn list(&self) -> Vec<String> {
        let answer = self.run(["list", "--json"]).ok();
        let text = String::from_utf8(answer.stdout).expect("UTF-8");
        text.lines()
            .map(|line| {
                let value: Value = serde_json::from_str(line).expect("one document per line");
                value["id"].as_str().expect("each has its id").to_owned()
            })
            .collect()
    }

    /// Imports a folder.
    pub fn import(&self, dir: &Path, manifest: &Path) -> Answer {
        let manifest = manifest.as_os_str();
        self.run([OsStr::new("import"), dir.as_os_str(), OsStr::new("-m"), manifest])
    }
}

impl Answer {
    /// It must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// It must have ended with this code; an error must have said something on stderr and nothing on stdout.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}: stderr: {}", self.what, self.stderr);
        if code != 0 {
            assert!(!self.stderr.trim().is_empty(), "{}: fails without a word", self.what);
        }
        self
    }

    /// Stderr must contain each of these.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "{}: no {word:?} in: {}", self.what, self.stderr);
        }
        self
    }

    /// Stdout as one line.
    #[track_caller]
    pub fn line(&self) -> String {
        let text = String::from_utf8(self.stdout.clone()).expect("UTF-8");
        let line = text.trim_end_matches('\n').to_owned();
        assert!(!line.is_empty() && !line.contains('\n'), "{}: not one line: {text:?}", self.what);
        line
    }

    /// Stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The last line of stdout.
    pub fn last_line(&self) -> String {
        self.text().lines().last().unwrap_or_default().to_owned()
    }

    /// Stdout as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|e| panic!("{}: no JSON ({e}): {}", self.what, self.text()))
    }

    /// The error document that `--json` leaves on stderr.
    #[track_caller]
    pub fn error_json(&self) -> Value {
        let line = self.stderr.lines().rev().find(|line| line.starts_with('{'));
        let line =
            line.unwrap_or_else(|| panic!("{}: no error document: {}", self.what, self.stderr));
        let value: Value = serde_json::from_str(line).expect("JSON");
        for key in ["code", "message", "remedy"] {
            assert!(value["error"][key].is_string(), "{}: no {key} in {line}", self.what);
        }
        value["error"].clone()
    }
}
