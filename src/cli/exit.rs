//! Exit codes, in one place, and what is printed when a command fails.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | usage; malformed, mistyped or foreign-format id; bad range; bad configuration |
//! | 3 | not found (also deleted) |
//! | 4 | precondition failed (`--if-opver`) |
//! | 5 | cluster unavailable, unknown group |
//!
//! What the cluster answers has its exit code in [`ErrorCode::exit_code`]; everything else is made here. Errors go to
//! stderr: as a sentence with what to do, or with `--json` as `{"error":{"code","message","remedy"}}`.

use super::say;
use crate::client::io_remedy;
use crate::format::file_id::IdError;
use crate::messages::error::ErrorCode;
use crate::settings::{KeysError, SettingsError};
use std::path::Path;

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its kind; decides the exit code.
    pub code: ErrorCode,
    /// What failed, on which object and node.
    pub message: String,
    /// What to do; empty if there is nothing to add.
    pub remedy: String,
}

/// What every command answers.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure of a kind.
    pub fn new(code: ErrorCode, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: remedy.into() }
    }

    /// Exit 2: what was typed makes no sense.
    pub fn usage(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorCode::Usage, message, remedy)
    }

    /// Exit 1: something went wrong here.
    pub fn failed(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorCode::Failed, message, remedy)
    }

    /// Exit 1: a file could not be read or written. `doing`: a verb, and what it is if the path does not say.
    pub fn io(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let remedy = match doing {
            "read manifest" if missing => {
                "check the path; `folio import DIR -m MANIFEST` writes a manifest"
            }
            "read folder" if missing => "check the path: name the folder that holds the files",
            // What is written need not be there; where it is to lie must.
            "write" | "open manifest" | "open import journal" if missing => {
                "create the folder that it is to lie in, or name another path"
            }
            _other => io_remedy(error),
        };
        Self::failed(format!("cannot {doing} {}: {error}", path.display()), remedy)
    }

    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        self.code.exit_code()
    }

    /// With what it was about in front: `ID: message`.
    #[must_use]
    pub fn about(mut self, what: impl std::fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Prints it to stderr.
    pub fn print(&self, json: bool) {
        if json {
            say::aside(self.json());
        } else if self.remedy.is_empty() {
            say::aside(format_args!("folio: {}", self.message));
        } else {
            say::aside(format_args!("folio: {}\n  {}", self.message, self.remedy));
        }
    }

    /// `{"error":{"code","message","remedy"}}`.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({"error": {
            "code": self.code.name(),
            "message": self.message,
            "remedy": self.remedy,
        }})
    }
}

impl From<IdError> for Failure {
    fn from(error: IdError) -> Self {
        Self::new(ErrorCode::BadId, error.to_string(), error.remedy())
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::Keys(error) => error.into(),
            SettingsError::Read { .. } => {
                Self::failed(error.to_string(), "give the path of a file that can be read")
            }
            SettingsError::Syntax { .. } | SettingsError::Invalid { .. } => Self::usage(
                error.to_string(),
                "conf/tracker.toml and conf/storage.toml show every key with its bounds",
            ),
        }
    }
}

impl From<KeysError> for Failure {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Io { .. } => Self::failed(
                error.to_string(),
                "name a file that this user may read (--key-file, FOLIO_KEY_FILE, a daemon's auth.key_file); \
                 `folio keygen FILE` writes one into a folder that is there",
            ),
            KeysError::Exists { .. } => {
                Self::failed(error.to_string(), "a key file that is in use is never replaced")
            }
            KeysError::Random(_) => Self::failed(error.to_string(), "see to the system"),
            KeysError::NotAFile { .. } | KeysError::Empty { .. } => Self::usage(
                error.to_string(),
                "name a key file: --key-file or FOLIO_KEY_FILE; `folio keygen FILE` writes one",
            ),
            KeysError::Mode { .. } => {
                Self::usage(error.to_string(), "nobody but its owner may read or write it")
            }
            KeysError::Line { .. } => {
                Self::usage(error.to_string(), "mend the line: `client|peer|admin HEX`")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_exit_code_leaves_the_table() {
        for code in ErrorCode::ALL {
            assert!((1..=5).contains(&code.exit_code()), "{code}");
        }
        assert_eq!(Failure::usage("x", "").exit_code(), 2);
        assert_eq!(Failure::failed("x", "").exit_code(), 1);
    }

    #[test]
    fn an_error_in_json_has_all_three_parts() {
        let failure = Failure::new(ErrorCode::NotFound, "gone", "look elsewhere").about("g/a/x");
        let error = &failure.json()["error"];
        assert_eq!(error["code"], "not_found");
        assert_eq!(error["message"], "g/a/x: gone");
        assert_eq!(error["remedy"], "look elsewhere");
    }
}
