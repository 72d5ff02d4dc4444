//! Why a configuration or a key file was refused. Every text names the key, what was found and what is allowed.

use std::fmt;
use std::path::PathBuf;

/// One thing wrong in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Full path of the key, `store.reserve`.
    pub key: String,
    /// What stands there.
    pub found: String,
    /// What may.
    pub allowed: String,
    /// The file or variable that it came from; `None` when it is simply missing.
    pub source: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}; allowed: {}", self.key, self.found, self.allowed)?;
        match &self.source {
            Some(source) => write!(f, " (from {source})"),
            None => Ok(()),
        }
    }
}

/// Why settings could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read configuration {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("configuration {name} is not valid TOML: {message}")]
    Syntax {
        /// Which.
        name: String,
        /// Where and why.
        message: String,
    },
    /// Keys are unknown, missing, of the wrong type, out of bounds, or contradict each other. All are listed.
    #[error("configuration {name} is refused:{}", listed(findings))]
    Invalid {
        /// Which.
        name: String,
        /// Everything that is wrong with it.
        findings: Vec<Finding>,
    },
    /// The key file that it names.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

fn listed(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("\n  {finding}")).collect()
}

/// Why a key file was refused. Secrets are never part of the text.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be opened, read or written.
    #[error("key file {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no regular file.
    #[error("key file {} is not a regular file", path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("key file {} has mode {mode:04o}; allowed: 0600 (chmod 600 {})", path.display(), path.display())]
    Mode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line is no key.
    #[error("key file {} line {line}: {problem}", path.display())]
    Line {
        /// Which.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, without the secret.
        problem: String,
    },
    /// No key in it.
    #[error("key file {} holds no key; `folio keygen FILE` writes one", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// `folio keygen` never overwrites.
    #[error("{} exists already and is not overwritten; choose another name", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// The system gave no randomness.
    #[error("no randomness from the system: {0}")]
    Random(String),
}
