//! The process environment as far as it concerns the configuration.
//!
//! Only names with `__` override keys (`FOLIO_STORE__RESERVE`, `FOLIO_MOUNTS__0__PATH`, `FOLIO__LISTEN` for a key without
//! section); [`TRACKERS`] and [`KEY_FILE`] mean the same for daemons and clients, [`CA_FILE`] is for clients; any other `FOLIO_*` is a warning. The
//! `config` crate's own prefix matching would swallow all of them, so names are sorted here.

use super::error::Finding;
use super::spec::{self, Key};
use std::collections::BTreeMap;

/// Comma separated trackers, for clients and storages.
pub const TRACKERS: &str = "FOLIO_TRACKERS";
/// The key file, for clients and daemons.
pub const KEY_FILE: &str = "FOLIO_KEY_FILE";
/// The CA of the cluster, for clients; daemons have it in their configuration.
pub const CA_FILE: &str = "FOLIO_CA_FILE";
const PREFIX: &str = "FOLIO_";
/// Highest list index that a name may carry; a larger one would only allocate.
const INDEX_MAX: usize = 255;

/// The `FOLIO_*` variables of a process.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    unreadable: Vec<String>,
}

/// What the environment says about one table of keys.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// Key path -> text.
    pub values: BTreeMap<String, String>,
    /// Key path -> variable that set it, for messages.
    pub names: BTreeMap<String, String>,
    /// Names that mean nothing.
    pub warnings: Vec<String>,
    /// Names with `__` that no daemon knows.
    pub findings: Vec<Finding>,
}

impl Environment {
    /// What this process was started with.
    #[must_use]
    pub fn from_process() -> Self {
        let mut found = Self::default();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(found.variables.insert(name.to_owned(), value)),
                Err(_) => found.unreadable.push(name.to_owned()),
            }
        }
        found
    }

    /// Exactly these variables, for tests.
    #[must_use]
    pub fn of(variables: &[(&str, &str)]) -> Self {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Self { variables, unreadable: Vec::new() }
    }

    /// Without one of them.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    /// Sorts the variables for a daemon whose keys are `own`. Keys of `other` daemons are left alone, so that one
    /// environment can serve both.
    pub(super) fn overrides(&self, own: &'static [Key], other: &'static [Key]) -> Overrides {
        let mut out = Overrides::default();
        for name in &self.unreadable {
            out.findings.push(Finding {
                key: name.clone(),
                found: "bytes that are not UTF-8".to_owned(),
                allowed: "text".to_owned(),
                source: Some("the environment".to_owned()),
            });
        }
        for (name, value) in &self.variables {
            let path = match name.as_str() {
                TRACKERS => "trackers".to_owned(),
                KEY_FILE => "auth.key_file".to_owned(),
                CA_FILE => continue,
                name if name.contains("__") => key_path(&name[PREFIX.len()..]),
                name => {
                    out.warnings.push(format!("{name} has no meaning; {}", meaning()));
                    continue;
                }
            };
            if spec::find(own, &path).is_some() {
                out.names.insert(path.clone(), name.clone());
                out.values.insert(path, value.clone());
            } else if spec::find(other, &path).is_none() {
                out.findings.push(Finding {
                    key: path,
                    found: format!("{value:?}"),
                    allowed: format!("nothing: there is no such key; {}", meaning()),
                    source: Some(name.clone()),
                });
            }
        }
        out
    }
}

fn meaning() -> String {
    format!("variables are FOLIO_SECTION__KEY, {TRACKERS}, {KEY_FILE} and {CA_FILE}")
}

/// `STORE__RESERVE` as a key path: `store.reserve`, `_LISTEN` as `listen`; numbers become list indices.
fn key_path(rest: &str) -> String {
    let mut path = String::new();
    for part in rest.trim_start_matches('_').split("__").filter(|part| !part.is_empty()) {
        match part.parse::<usize>() {
            Ok(index) if index <= INDEX_MAX => path.push_str(&format!("[{index}]")),
            Ok(_) | Err(_) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&part.to_ascii_lowercase());
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::spec::{STORAGE_KEYS, TRACKER_KEYS};

    fn overrides(variables: &[(&str, &str)]) -> Overrides {
        Environment::of(variables).overrides(&STORAGE_KEYS, &TRACKER_KEYS)
    }

    #[test]
    fn the_client_variables_never_become_unknown_keys() {
        let found = overrides(&[(TRACKERS, "a:1,b:2"), (KEY_FILE, "/k"), (CA_FILE, "/ca")]);
        assert!(found.findings.is_empty() && found.warnings.is_empty());
        assert_eq!(found.values["trackers"], "a:1,b:2");
        assert_eq!(found.values["auth.key_file"], "/k");
    }

    #[test]
    fn a_variable_without_double_underscore_never_changes_a_key() {
        let found = overrides(&[("FOLIO_GROUP", "x"), ("FOLIO_SEED", "1")]);
        assert!(found.values.is_empty() && found.findings.is_empty());
        assert_eq!(found.warnings.len(), 2);
    }

    #[test]
    fn a_misspelt_override_is_never_silent() {
        let found = overrides(&[("FOLIO_STORE__RESERV", "10%")]);
        assert_eq!(found.findings.len(), 1);
        assert_eq!(found.findings[0].source.as_deref(), Some("FOLIO_STORE__RESERV"));
    }

    #[test]
    fn keys_of_the_other_daemon_are_left_alone() {
        let found = overrides(&[("FOLIO_LIVENESS__OFFLINE_AFTER", "9s")]);
        assert!(found.values.is_empty() && found.findings.is_empty() && found.warnings.is_empty());
    }

    #[test]
    fn lists_and_keys_without_section_have_names_too() {
        let found = overrides(&[("FOLIO_MOUNTS__0__PATH", "/a"), ("FOLIO__LISTEN", "127.0.0.1:1")]);
        assert_eq!(found.values["mounts[0].path"], "/a");
        assert_eq!(found.values["listen"], "127.0.0.1:1");
        let found = overrides(&[("FOLIO_MOUNTS__4000000000__PATH", "/a")]);
        assert_eq!(found.findings.len(), 1, "an absurd index is refused and not allocated");
    }
}
