//! File systems that a test mounts, where the machine permits it.

use std::path::PathBuf;
use std::process::Command;

/// Runs a system command; `false` (with its words) when it fails: the test is then skipped.
pub fn permitted(program: &str, args: &[&str]) -> bool {
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            println!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            println!("{program}: {error}");
            false
        }
    }
}

/// A file system that is unmounted when the test ends, however it ends.
pub struct Mounted(pub PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone_already = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
