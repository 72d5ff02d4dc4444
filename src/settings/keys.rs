//! Shared keys of a cluster: who may speak as client, peer or admin.
//!
//! A key file has lines `client|peer|admin HEX`, up to two per role so that a key can be rotated, `#` comments, and mode
//! 0600. Secrets never reach a log: [`Secret`] prints as dots, and errors name lines, not contents.

use super::error::KeysError;
use crate::messages::opcode::Role;
use data_encoding::HEXLOWER_PERMISSIVE;
use rand::TryRngCore;
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Shortest secret in bytes.
pub const SECRET_LEN_MIN: usize = 16;
/// Longest secret in bytes.
pub const SECRET_LEN_MAX: usize = 64;
/// Length of the secrets that `folio keygen` makes.
pub const SECRET_LEN: usize = 32;
/// Keys of one role: the new one and the one that is being replaced.
pub const KEYS_PER_ROLE_MAX: usize = 2;
/// No key file is longer than this.
const FILE_LEN_MAX: u64 = 64 << 10;

/// A shared secret. Prints as dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes that go into the HMAC.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// What a key file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    client: Vec<Secret>,
    peer: Vec<Secret>,
    admin: Vec<Secret>,
}

impl Keys {
    /// Reads a key file.
    ///
    /// # Errors
    /// Not readable, not a regular file, open to others, a line that is no key, no key at all.
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let io = |source| KeysError::Io { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(KeysError::NotAFile { path: path.to_owned() });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o177 != 0 {
            return Err(KeysError::Mode { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(FILE_LEN_MAX).read_to_string(&mut text).map_err(io)?;
        Self::parse(path, &text)
    }

    /// The keys of a text; `path` is for the errors only.
    ///
    /// # Errors
    /// As [`Keys::load`], from the first bad line on.
    pub fn parse(path: &Path, text: &str) -> Result<Self, KeysError> {
        let mut keys = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            keys.add(line).map_err(|problem| KeysError::Line {
                path: path.to_owned(),
                line: number + 1,
                problem,
            })?;
        }
        if Role::ALL.iter().all(|role| keys.of(*role).is_empty()) {
            return Err(KeysError::Empty { path: path.to_owned() });
        }
        Ok(keys)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_ascii_whitespace();
        let (Some(role), Some(hex), None) = (words.next(), words.next(), words.next()) else {
            return Err("allowed: `client|peer|admin HEX`".to_owned());
        };
        let Some(role) = Role::ALL.into_iter().find(|known| known.name() == role) else {
            return Err("the role must be client, peer or admin".to_owned());
        };
        let Ok(bytes) = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()) else {
            return Err("the key must be hexadecimal digits, two per byte".to_owned());
        };
        if !(SECRET_LEN_MIN..=SECRET_LEN_MAX).contains(&bytes.len()) {
            return Err(format!(
                "the key has {} bytes; allowed: {SECRET_LEN_MIN} to {SECRET_LEN_MAX}",
                bytes.len()
            ));
        }
        let secrets = self.of_mut(role);
        if secrets.len() == KEYS_PER_ROLE_MAX {
            return Err(format!("more than {KEYS_PER_ROLE_MAX} keys for {}", role.name()));
        }
        secrets.push(Secret(bytes));
        Ok(())
    }

    /// The secrets of a role, newest first by convention of the file; empty when it has none.
    #[must_use]
    pub fn of(&self, role: Role) -> &[Secret] {
        match role {
            Role::Client => &self.client,
            Role::Peer => &self.peer,
            Role::Admin => &self.admin,
        }
    }

    fn of_mut(&mut self, role: Role) -> &mut Vec<Secret> {
        match role {
            Role::Client => &mut self.client,
            Role::Peer => &mut self.peer,
            Role::Admin => &mut self.admin,
        }
    }

    /// Makes one fresh key per role and writes them to a new file of mode 0600, durably.
    ///
    /// # Errors
    /// The file exists, cannot be written, or the system has no randomness.
    pub fn generate(path: &Path) -> Result<(), KeysError> {
        let mut text = String::from(
            "# Folio keys: `client|peer|admin HEX`, up to two per role (to rotate, put the new one first).\n\
             # Clients need the client line only; daemons need peer, and what they are to accept.\n",
        );
        for role in Role::ALL {
            let mut secret = [0u8; SECRET_LEN];
            rand::rngs::OsRng
                .try_fill_bytes(&mut secret)
                .map_err(|e| KeysError::Random(e.to_string()))?;
            text.push_str(&format!("{} {}\n", role.name(), HEXLOWER_PERMISSIVE.encode(&secret)));
        }
        let io = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AlreadyExists => KeysError::Exists { path: path.to_owned() },
            _ => KeysError::Io { path: path.to_owned(), source },
        };
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        file.write_all(text.as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::fs::PermissionsExt;

    const HEX: &str = "00112233445566778899aabbccddeeff";

    #[rstest]
    #[case("client\n", 1, "allowed")]
    #[case("# fine\n\nclient zz\n", 3, "hexadecimal")]
    #[case("client 0011\n", 1, "16 to 64")]
    #[case("root 00112233445566778899aabbccddeeff\n", 1, "client, peer or admin")]
    #[case("client 00112233445566778899aabbccddeeff extra\n", 1, "allowed")]
    fn a_bad_line_is_named_by_number(
        #[case] text: &str,
        #[case] number: usize,
        #[case] says: &str,
    ) {
        let Err(KeysError::Line { line, problem, .. }) = Keys::parse(Path::new("k"), text) else {
            panic!("accepted {text:?}");
        };
        assert_eq!(line, number);
        assert!(problem.contains(says), "{problem}");
    }

    #[test]
    fn a_third_key_of_a_role_is_refused() {
        let two = format!("peer {HEX}\npeer {HEX}\n");
        assert_eq!(Keys::parse(Path::new("k"), &two).expect("two").of(Role::Peer).len(), 2);
        let three = format!("{two}peer {HEX}\n");
        assert!(matches!(
            Keys::parse(Path::new("k"), &three),
            Err(KeysError::Line { line: 3, .. })
        ));
    }

    #[test]
    fn a_secret_never_reaches_a_log() {
        let keys = Keys::parse(Path::new("k"), &format!("admin {HEX}\n")).expect("keys");
        let printed = format!("{keys:?}");
        assert!(!printed.contains("0011") && !printed.contains("17, 34"), "{printed}");
        let error =
            Keys::parse(Path::new("k"), &format!("admin {HEX}f\n")).expect_err("odd digits");
        assert!(!format!("{error} {error:?}").contains("0011"));
    }

    #[test]
    fn a_key_file_open_to_others_or_empty_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("keys");
        std::fs::write(&path, format!("client {HEX}\n")).expect("write");
        for mode in [0o644, 0o640, 0o604, 0o700] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
            assert!(matches!(Keys::load(&path), Err(KeysError::Mode { mode: m, .. }) if m == mode));
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        assert_eq!(Keys::load(&path).expect("keys").of(Role::Client).len(), 1);
        std::fs::write(&path, "# nothing\n").expect("write");
        assert!(matches!(Keys::load(&path), Err(KeysError::Empty { .. })));
        assert!(matches!(Keys::load(dir.path()), Err(KeysError::NotAFile { .. })));
    }

    #[test]
    fn keygen_never_overwrites_and_never_writes_an_open_file() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("keys");
        Keys::generate(&path).expect("generated");
        let mode = std::fs::metadata(&path).expect("stat").mode() & 0o7777;
        assert_eq!(mode, 0o600);
        let keys = Keys::load(&path).expect("loads");
        assert!(Role::ALL.iter().all(|role| keys.of(*role).len() == 1));
        assert_ne!(keys.of(Role::Client), keys.of(Role::Peer));
        assert!(matches!(Keys::generate(&path), Err(KeysError::Exists { .. })));
        assert_eq!(Keys::load(&path).expect("unchanged"), keys);
    }
}
