//! The command blocks of docs/OPERATIONS.md, run verbatim: a cluster with TLS is set up, grows by a machine, is upgraded
//! under load, gets new certificates and a new disk, on one machine and on drawn ports.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, reason = "a test")]

#[path = "blackbox/harness/ports.rs"]
#[allow(dead_code, reason = "one block is drawn, single ports are not")]
mod ports;

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The blocks that are fenced as `sh`, with their indentation in lists taken off.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for line in page.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        match &mut open {
            None if trimmed == "```sh" => open = Some((indent, String::new())),
            None => {}
            Some(_) if trimmed == "```" => blocks.extend(open.take().map(|(_, block)| block)),
            Some((indent, block)) => {
                block.push_str(line.get(*indent..).unwrap_or(trimmed));
                block.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

#[test]
fn no_command_of_the_page_fails() {
    let page = std::fs::read_to_string(root().join("docs/OPERATIONS.md")).expect("the page");
    let blocks = blocks(&page);
    assert!(blocks.len() >= 9, "{} blocks", blocks.len());
    let dir = tempfile::tempdir().expect("folder");
    for name in ["ops", "docs", "README.md"] {
        std::os::unix::fs::symlink(root().join(name), dir.path().join(name)).expect("link");
    }
    // What still runs at the end is ended, whatever happened; what was printed says where it stood.
    let mut script = "set -euo pipefail\n\
        trap 'touch enough; for f in *.pid; do kill -9 \"$(cat \"$f\")\" 2>/dev/null || true; done' EXIT\n"
        .to_owned();
    for (number, block) in blocks.iter().enumerate() {
        script.push_str(&format!("echo '--- block {number}' >&2\n{block}"));
    }
    script.push_str("echo '--- all done' >&2\n");
    std::fs::write(dir.path().join("page.sh"), script).expect("written");
    let program = Path::new(env!("CARGO_BIN_EXE_folio")).parent().expect("its folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FOLIO_")) {
        command.env_remove(name);
    }
    command.arg("page.sh").current_dir(dir.path());
    command
        .env("PATH", format!("{}:{path}", program.display()))
        .env("port", ports::free_block().to_string());
    let done = assert_cmd::Command::from_std(command)
        .timeout(std::time::Duration::from_secs(180))
        .output()
        .expect("bash");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && err.contains("--- all done"), "{out}\n{err}");
}
