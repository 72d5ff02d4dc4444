//! The shipped files never drift from the code: every key is there, with the default and the bounds that hold.

use super::spec::{Fallback, Key, STORAGE_KEYS, TRACKER_KEYS};
use super::*;
use std::collections::BTreeMap;

const TRACKER: &str = include_str!("../../conf/tracker.toml");
const STORAGE: &str = include_str!("../../conf/storage.toml");

/// Key path -> (comment above it, text after `=`).
fn documented(text: &str) -> BTreeMap<String, (String, String)> {
    let mut out = BTreeMap::new();
    let mut section = String::new();
    let mut comment = String::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix('#') {
            comment.push_str(rest.trim());
            comment.push(' ');
        } else if let Some(name) = line.strip_prefix("[[").and_then(|l| l.strip_suffix("]]")) {
            section = format!("{name}[].");
        } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, value)) = line.split_once('=') {
            let told = (std::mem::take(&mut comment), value.trim().to_owned());
            assert!(
                out.insert(format!("{section}{}", key.trim()), told).is_none(),
                "twice: {line}"
            );
        } else {
            assert!(line.is_empty(), "{line}");
            comment.clear();
        }
    }
    out
}

fn compare(text: &str, keys: &[Key]) {
    let mut documented = documented(text);
    for key in keys {
        let (comment, value) = documented
            .remove(key.path)
            .unwrap_or_else(|| panic!("{} is not in the file", key.path));
        let allowed = format!("Allowed: {}.", key.kind.allowed());
        assert!(comment.contains(&allowed), "{}: {comment:?} lacks {allowed:?}", key.path);
        let told = match key.default {
            Fallback::Value(text) => format!("Default: {text}."),
            Fallback::Required => "Required.".to_owned(),
            Fallback::Derived(rule) => format!("Default: {rule}."),
        };
        assert!(comment.contains(&told), "{}: {comment:?} lacks {told:?}", key.path);
        let meaning = comment.split(&told).next().unwrap_or_default();
        assert!(meaning.len() > 20, "{} has no meaning told", key.path);
        let plain = value.trim_matches(['[', ']', '"', ' ']);
        match key.default {
            Fallback::Value(text) => assert_eq!(plain, text, "{}", key.path),
            Fallback::Derived(_) => assert_eq!(plain, "", "{}", key.path),
            Fallback::Required => {}
        }
    }
    assert!(documented.is_empty(), "keys that the code does not know: {documented:?}");
}

#[test]
fn the_shipped_files_never_drift_from_the_code() {
    compare(TRACKER, &TRACKER_KEYS);
    compare(STORAGE, &STORAGE_KEYS);
}

#[test]
fn the_shipped_files_load_as_they_are() {
    let environment = Environment::default();
    let tracker = TrackerSettings::load(Source::Text { name: "t", text: TRACKER }, &environment);
    let shipped = tracker.expect("tracker.toml").settings;
    let bare = TrackerSettings::load(Source::Text { name: "t", text: "" }, &environment);
    let mut bare = bare.expect("empty").settings;
    bare.shown.clone_from(&shipped.shown);
    assert_eq!(shipped, bare);
    let storage = StorageSettings::load(Source::Text { name: "s", text: STORAGE }, &environment);
    let shipped = storage.expect("storage.toml").settings;
    let least = "group = \"books\"\nsyncgroup = \"a\"\nmachine_id = 1\n[[mounts]]\nindex = 0\npath = \"/srv/folio/m0\"";
    let least = StorageSettings::load(Source::Text { name: "s", text: least }, &environment);
    let mut least = least.expect("least").settings;
    least.shown.clone_from(&shipped.shown);
    assert_eq!(shipped, least);
}
