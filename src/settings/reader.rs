//! From merged sources to typed values: each key is looked up in its table, checked, and counted as read.
//!
//! Nothing stops at the first fault: all findings are gathered, so that an operator mends a file in one go. Whatever was
//! not read in the end is an unknown key. A value that was refused reads as the key's default, which is never used because
//! `Reader::finish` then fails.

use super::environment::{Environment, Overrides};
use super::error::{Finding, SettingsError};
use super::spec::{self, Fallback, HOST_PORTS_MAX, Key, Kind};
use super::units::{Reserve, parse_duration};
use config::{Config, File, FileFormat, Value, ValueKind};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The list of tables that the daemons know.
const LIST: &str = "mounts";
/// Uri of the environment source in the `config` crate.
const ENVIRONMENT: &str = "the environment";

/// One effective value, as `config show` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Full path.
    pub key: String,
    /// What holds, as text.
    pub value: String,
    /// `default`, the file, or the variable.
    pub source: String,
}

struct Leaf {
    kind: ValueKind,
    source: String,
    from_environment: bool,
}

/// Reads one daemon's keys.
pub(super) struct Reader {
    name: String,
    keys: &'static [Key],
    leaves: BTreeMap<String, Leaf>,
    mounts: usize,
    findings: Vec<Finding>,
    shown: Vec<Shown>,
    warnings: Vec<String>,
}

impl Reader {
    /// Merges text, then `given` (key path, text) pairs, then the environment; later ones win.
    pub(super) fn new(
        name: &str,
        text: &str,
        given: &[(String, String)],
        environment: &Environment,
        own: &'static [Key],
        other: &'static [Key],
    ) -> Result<Self, SettingsError> {
        let overrides = environment.overrides(own, other);
        let syntax = |e: config::ConfigError| SettingsError::Syntax {
            name: name.to_owned(),
            message: e.to_string(),
        };
        let given: BTreeMap<String, String> = given.iter().cloned().collect();
        let source = |map: BTreeMap<String, String>| {
            config::Environment::default().separator(".").source(Some(map.into_iter().collect()))
        };
        let merged = Config::builder()
            .add_source(File::from_str(text, FileFormat::Toml))
            .add_source(source(given))
            .add_source(source(overrides.values.clone()))
            .build()
            .map_err(syntax)?;
        let mut reader = Self {
            name: name.to_owned(),
            keys: own,
            leaves: BTreeMap::new(),
            mounts: 0,
            findings: overrides.findings.clone(),
            shown: Vec::new(),
            warnings: overrides.warnings.clone(),
        };
        reader.flatten("", merged.cache, &overrides);
        Ok(reader)
    }

    /// Turns the tree into paths. Only [`LIST`] is a list of tables; other lists are values.
    fn flatten(&mut self, path: &str, value: Value, overrides: &Overrides) {
        let from_environment = value.origin() == Some(ENVIRONMENT);
        match value.kind {
            ValueKind::Table(table) => {
                for (key, value) in table {
                    let below = if path.is_empty() { key } else { format!("{path}.{key}") };
                    self.flatten(&below, value, overrides);
                }
            }
            ValueKind::Array(list) if path == LIST && !list.is_empty() => {
                self.mounts = list.len();
                for (index, value) in list.into_iter().enumerate() {
                    self.flatten(&format!("{path}[{index}]"), value, overrides);
                }
            }
            ValueKind::Nil => {}
            kind => {
                let source =
                    overrides.names.get(path).cloned().unwrap_or_else(|| self.name.clone());
                self.leaves.insert(path.to_owned(), Leaf { kind, source, from_environment });
            }
        }
    }

    /// How many `[[mounts]]` there are.
    pub(super) fn mounts(&self) -> usize {
        self.mounts
    }

    /// Adds a finding of a check across keys.
    pub(super) fn refuse(
        &mut self,
        key: &str,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        let source = self
            .shown
            .iter()
            .find(|shown| shown.key == key && shown.source != "default")
            .map(|shown| shown.source.clone());
        self.findings.push(Finding {
            key: key.to_owned(),
            found: found.into(),
            allowed: allowed.into(),
            source,
        });
    }

    /// Whether nothing was found so far: checks across keys would only repeat what is wrong already.
    pub(super) fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// The text of a key after its type was checked, and its kind. Empty text for a missing one without default.
    fn text(&mut self, path: &str) -> (String, Kind) {
        let Some(key) = spec::find(self.keys, path) else {
            self.refuse(path, "a key that no table lists", "keys of the table");
            return (String::new(), Kind::PathOrEmpty);
        };
        let leaf = self.leaves.remove(path);
        let (text, source) = match leaf {
            Some(leaf) => {
                let Some(text) = leaf_text(key.kind, &leaf) else {
                    self.findings.push(Finding {
                        key: path.to_owned(),
                        found: described(&leaf.kind),
                        allowed: key.kind.allowed(),
                        source: Some(leaf.source),
                    });
                    return (default_text(key).to_owned(), key.kind);
                };
                (text, leaf.source)
            }
            None => {
                if matches!(key.default, Fallback::Required) {
                    self.refuse(path, "nothing", key.kind.allowed());
                }
                (default_text(key).to_owned(), "default".to_owned())
            }
        };
        self.shown.push(Shown { key: path.to_owned(), value: text.clone(), source });
        (text, key.kind)
    }

    /// Reads a key with `parse`; what it refuses becomes a finding and `instead` is answered.
    fn parsed<T>(
        &mut self,
        path: &str,
        instead: T,
        parse: impl FnOnce(&str, Kind) -> Option<T>,
    ) -> T {
        let before = self.findings.len();
        let (text, kind) = self.text(path);
        if self.findings.len() > before {
            return instead;
        }
        match parse(&text, kind) {
            Some(value) => value,
            None => {
                self.refuse(path, format!("{text:?}"), kind.allowed());
                instead
            }
        }
    }

    pub(super) fn size(&mut self, path: &str) -> u64 {
        self.parsed(path, 0, |text, kind| kind.number(text))
    }

    /// `None`: no limit.
    pub(super) fn bandwidth(&mut self, path: &str) -> Option<u64> {
        self.parsed(path, None, |text, kind| {
            let bytes = kind.number(text)?;
            Some((bytes > 0).then_some(bytes))
        })
    }

    pub(super) fn duration(&mut self, path: &str) -> Duration {
        self.parsed(path, Duration::ZERO, |text, kind| {
            let (min, max) = kind.duration_bounds()?;
            parse_duration(text).filter(|duration| (min..=max).contains(duration))
        })
    }

    pub(super) fn integer<T: TryFrom<u64> + Default>(&mut self, path: &str) -> T {
        self.parsed(path, T::default(), |text, kind| T::try_from(kind.number(text)?).ok())
    }

    pub(super) fn switch(&mut self, path: &str) -> bool {
        self.parsed(path, false, |text, _| text.trim().parse().ok())
    }

    /// The value that belongs to the word found.
    pub(super) fn choice<T: Copy>(&mut self, path: &str, first: T, others: &[(&str, T)]) -> T {
        self.parsed(path, first, |text, kind| {
            let Kind::Choice(words) = kind else { return None };
            let word = words.iter().find(|word| **word == text)?;
            others
                .iter()
                .find(|(known, _)| known == word)
                .map_or(Some(first), |(_, value)| Some(*value))
        })
    }

    pub(super) fn name(&mut self, path: &str) -> String {
        self.parsed(path, String::new(), |text, _| spec::is_name(text).then(|| text.to_owned()))
    }

    pub(super) fn listen(&mut self, path: &str) -> SocketAddr {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        self.parsed(path, nowhere, |text, _| socket_addr(text))
    }

    /// `None`: off.
    pub(super) fn listen_or_off(&mut self, path: &str) -> Option<SocketAddr> {
        self.parsed(path, None, |text, _| {
            if text.is_empty() { Some(None) } else { socket_addr(text).map(Some) }
        })
    }

    /// `None`: not given.
    pub(super) fn host_port(&mut self, path: &str) -> Option<String> {
        self.parsed(path, None, |text, _| match text {
            "" => Some(None),
            text => spec::is_host_port(text).then(|| Some(text.to_owned())),
        })
    }

    pub(super) fn host_ports(&mut self, path: &str) -> Vec<String> {
        self.parsed(path, Vec::new(), |text, _| {
            let list: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
            let fine =
                list.len() <= HOST_PORTS_MAX && list.iter().all(|part| spec::is_host_port(part));
            fine.then_some(list)
        })
    }

    /// `None`: empty, where that is allowed.
    pub(super) fn path(&mut self, path: &str) -> Option<PathBuf> {
        self.parsed(path, None, |text, kind| match (text, kind) {
            ("", Kind::PathOrEmpty) => Some(None),
            ("", _) => None,
            (text, _) => (!text.contains('\0')).then(|| Some(PathBuf::from(text))),
        })
    }

    pub(super) fn reserve(&mut self, path: &str) -> Reserve {
        self.parsed(path, Reserve::Percent(20), |text, _| Reserve::parse(text))
    }

    /// Everything left over is unknown; any finding refuses the whole.
    pub(super) fn finish(mut self) -> Result<(Vec<Shown>, Vec<String>), SettingsError> {
        for (path, leaf) in std::mem::take(&mut self.leaves) {
            self.findings.push(Finding {
                allowed: known_near(self.keys, &path),
                found: format!("{}, an unknown key", described(&leaf.kind)),
                key: path,
                source: Some(leaf.source),
            });
        }
        if self.findings.is_empty() {
            return Ok((self.shown, self.warnings));
        }
        Err(SettingsError::Invalid { name: self.name, findings: self.findings })
    }
}

fn default_text(key: &Key) -> &'static str {
    match key.default {
        Fallback::Value(text) => text,
        Fallback::Required | Fallback::Derived(_) => "",
    }
}

/// `IP:PORT`, and `localhost:PORT` because everybody writes it.
fn socket_addr(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?)),
        None => text.parse().ok(),
    }
}

/// The text of a value of the right type; `None` if the type is wrong. The environment only has texts.
fn leaf_text(kind: Kind, leaf: &Leaf) -> Option<String> {
    match (&leaf.kind, kind) {
        (ValueKind::String(text), _) if leaf.from_environment => Some(text.clone()),
        (ValueKind::Boolean(value), Kind::Switch) => Some(value.to_string()),
        (ValueKind::I64(value), Kind::Integer(..) | Kind::Size(..) | Kind::Bandwidth) => {
            Some(value.to_string())
        }
        (ValueKind::Array(list), Kind::HostPorts) => {
            let parts: Option<Vec<String>> = list
                .iter()
                .map(|value| match &value.kind {
                    ValueKind::String(text) if !text.contains(',') => Some(text.clone()),
                    _ => None,
                })
                .collect();
            parts.map(|parts| parts.join(","))
        }
        (ValueKind::String(_), Kind::Switch | Kind::Integer(..) | Kind::HostPorts) => None,
        (ValueKind::String(text), _) => Some(text.clone()),
        _ => None,
    }
}

fn described(kind: &ValueKind) -> String {
    match kind {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(_) => "a list".to_owned(),
        ValueKind::Table(_) => "a table".to_owned(),
        other => format!("{other}"),
    }
}

/// What may stand where an unknown key was found.
fn known_near(keys: &'static [Key], path: &str) -> String {
    let section = match path.rsplit_once('.') {
        Some((section, _)) if section.starts_with(LIST) => "mounts[]",
        Some((section, _)) => section,
        None => "",
    };
    let names: Vec<&str> = keys
        .iter()
        .filter_map(|key| match key.path.rsplit_once('.') {
            Some((of, name)) => (of == section).then_some(name),
            None => section.is_empty().then_some(key.path),
        })
        .collect();
    if names.is_empty() || path == LIST {
        let mut sections: Vec<&str> =
            keys.iter().filter_map(|key| key.path.split_once('.')).map(|(of, _)| of).collect();
        sections.dedup();
        let sections: Vec<String> = sections
            .into_iter()
            .map(|of| of.strip_suffix("[]").map_or(format!("[{of}]"), |of| format!("[[{of}]]")))
            .collect();
        return format!("the sections {}", sections.join(" "));
    }
    format!("the keys {}", names.join(", "))
}
