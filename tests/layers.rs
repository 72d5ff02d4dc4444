//! The house stands: no floor names a higher one, pure rooms stay pure, and files stay small enough to read.
//!
//! Works on the words of the sources, comments and texts taken out, so a path counts however it is imported.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test that reads the sources")]

use std::path::{Path, PathBuf};

/// Rooms by floor; what is not named here is the roof, which may name everything.
const FLOORS: [(&str, u8); 8] = [
    ("format", 1),
    ("cluster", 1),
    ("recovery", 1),
    ("store", 2),
    ("messages", 3),
    ("settings", 3),
    ("tls", 4),
    ("actors", 4),
];
const ROOF: u8 = 5;
const LINES_MAX: usize = 600;

/// What a floor must not name besides higher floors.
const BANNED: [(u8, &[&str]); 3] = [
    (
        1,
        &[
            "actix",
            "actix_rt",
            "tokio",
            "tokio_util",
            "rustix",
            "std::fs",
            "std::net",
            "std::thread",
            "std::env",
        ],
    ),
    (2, &["actix", "actix_rt", "tokio", "tokio_util", "std::net"]),
    (3, &["actix_rt", "tokio"]),
];

/// One source file: where it is, and its words.
struct Source {
    path: PathBuf,
    /// Module path: `["store", "os_disk"]`.
    modules: Vec<String>,
    text: String,
    words: Vec<String>,
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut todo = vec![root.join(folder)];
    while let Some(folder) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_owned();
                let words = words(&text);
                found.push(Source { modules: modules(&path), path, text, words });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no sources below {folder}");
    found
}

fn modules(path: &Path) -> Vec<String> {
    let names = path.with_extension("");
    let names = names.iter().skip(1).map(|name| name.to_str().unwrap().to_owned());
    let mut names: Vec<String> = names.collect();
    if names.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        names.pop();
    }
    names
}

/// Identifiers and single signs, `::` as one word; comments, texts and characters left out.
fn words(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut words = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let c = at(i);
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            i += 2;
            while i < chars.len() && !(at(i) == '*' && at(i + 1) == '/') {
                i += 1;
            }
            i += 2;
        } else if c == '"'
            || (c == 'r'
                && (at(i + 1) == '"' || (at(i + 1) == '#' && matches!(at(i + 2), '"' | '#'))))
        {
            i = after_text(&chars, i);
        } else if c == '\'' {
            i = after_quote(&chars, i);
        } else if c.is_alphanumeric() || c == '_' {
            let from = i;
            while at(i).is_alphanumeric() || at(i) == '_' {
                i += 1;
            }
            words.push(chars[from..i].iter().collect());
        } else if c == ':' && at(i + 1) == ':' {
            words.push("::".to_owned());
            i += 2;
        } else {
            if !c.is_whitespace() {
                words.push(c.to_string());
            }
            i += 1;
        }
    }
    words
}

/// Behind the text that begins at `i`, raw or not.
fn after_text(chars: &[char], mut i: usize) -> usize {
    let raw = chars[i] == 'r';
    i += usize::from(raw);
    let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
    i += hashes + 1;
    while i < chars.len() {
        if !raw && chars[i] == '\\' {
            i += 2;
        } else if chars[i] == '"'
            && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
        {
            return i + 1 + hashes;
        } else {
            i += 1;
        }
    }
    i
}

/// Behind the character at `i`, or behind the quote of a lifetime.
fn after_quote(chars: &[char], i: usize) -> usize {
    if chars.get(i + 1) == Some(&'\\') {
        let end = chars[i + 3..].iter().position(|c| *c == '\'');
        return end.map_or(chars.len(), |end| i + 4 + end);
    }
    if chars.get(i + 2) == Some(&'\'') { i + 3 } else { i + 1 }
}

/// Rooms of our own crate that a file names: `crate::store`, `folio::{store, messages}`, `super::super::store`.
fn rooms_named(source: &Source) -> Vec<String> {
    let words = &source.words;
    let word = |i: usize| words.get(i).map_or("", String::as_str);
    let mut rooms = Vec::new();
    for i in 0..words.len() {
        let root = match word(i) {
            "crate" | "folio" if word(i + 1) == "::" && word(i.wrapping_sub(1)) != "::" => i + 2,
            "super" if word(i.wrapping_sub(1)) != "::" => {
                let mut at = i;
                let mut ups = 0;
                while word(at) == "super" && word(at + 1) == "::" {
                    ups += 1;
                    at += 2;
                }
                // Modules inside the file only make the way to the root longer.
                if ups < source.modules.len() {
                    continue;
                }
                at
            }
            _ => continue,
        };
        if word(root) == "{" {
            rooms.extend(group_heads(&words[root..]));
        } else {
            rooms.push(word(root).to_owned());
        }
    }
    rooms
}

/// First words of the elements of a `{...}` group.
fn group_heads(words: &[String]) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0;
    for (i, word) in words.iter().enumerate() {
        match word.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && matches!(words[i].as_str(), "{" | ",") {
            heads.extend(words.get(i + 1).cloned());
        }
    }
    heads
}

fn floor(room: &str) -> u8 {
    FLOORS.iter().find(|(name, _)| *name == room).map_or(ROOF, |(_, floor)| *floor)
}

/// Whether a `a::b` path is named, directly or as `a::{.., b, ..}`.
fn names_path(words: &[String], path: &str) -> bool {
    let wanted: Vec<&str> = path.split("::").collect();
    (0..words.len()).any(|i| {
        let starts =
            words[i] == wanted[0] && (i == 0 || words[i - 1] != "::" && words[i - 1] != ".");
        match wanted.as_slice() {
            // A crate counts only as the head of a path or in a `use`.
            [_] => {
                starts
                    && (words.get(i + 1).is_some_and(|w| w == "::")
                        || i > 0 && words[i - 1] == "use")
            }
            [_, inner] => {
                starts
                    && words.get(i + 1).is_some_and(|w| w == "::")
                    && (words.get(i + 2).is_some_and(|w| w == inner)
                        || words.get(i + 2).is_some_and(|w| w == "{")
                            && group_heads(&words[i + 2..]).iter().any(|head| head == inner))
            }
            _ => false,
        }
    })
}

#[test]
fn no_floor_names_a_higher_one() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        let Some(room) = source.modules.first() else { continue };
        let own = floor(room);
        let top: Vec<String> = top_rooms();
        for named in rooms_named(&source) {
            if top.contains(&named) && floor(&named) > own {
                wrong.push(format!("{} (floor {own}) names {named}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Top modules of the crate, so that `super::super::x` inside a room is not taken for a room.
fn top_rooms() -> Vec<String> {
    let mut rooms: Vec<String> =
        sources("src").iter().filter_map(|source| source.modules.first().cloned()).collect();
    rooms.dedup();
    rooms
}

#[test]
fn pure_rooms_stay_pure() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        let Some(room) = source.modules.first() else { continue };
        for (_, banned) in BANNED.iter().filter(|(of, _)| *of == floor(room) && room != "settings")
        {
            for path in banned.iter().filter(|path| names_path(&source.words, path)) {
                let codec = *path == "tokio_util" && room == "messages";
                if !codec {
                    wrong.push(format!("{} names {path}", source.path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The offline check reads a mount by the format document; through the engine it would share the engine's errors.
#[test]
fn fsck_does_not_lean_on_the_engine() {
    let wrong: Vec<String> = sources("src")
        .iter()
        .filter(|source| source.modules.iter().any(|module| module == "fsck"))
        .filter(|source| rooms_named(source).iter().any(|room| room == "store" || room == "format"))
        .map(|source| source.path.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "these name store or format: {}", wrong.join(", "));
}

#[test]
fn files_stay_readable() {
    let mut wrong = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        let path = source.path.display();
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{path} has {lines} lines, more than {LINES_MAX}"));
        }
        // A module of unit tests belongs to the file that names it.
        let unit_tests = source.path.file_stem().is_some_and(|stem| {
            stem.to_str().is_some_and(|stem| stem.split('_').any(|word| word == "tests"))
        });
        if !source.text.starts_with("//!") && !unit_tests {
            wrong.push(format!("{path} does not say at its top what it is"));
        }
        let stub = |i: usize, word: &str| {
            matches!(word, "todo" | "unimplemented")
                && source.words.get(i + 1).is_some_and(|next| next == "!")
        };
        if source.words.iter().enumerate().any(|(i, word)| stub(i, word)) {
            wrong.push(format!("{path} has a stub"));
        }
        let notes = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
        if notes.iter().any(|note| source.text.contains(note.as_str())) {
            wrong.push(format!("{path} has a note of something unfinished"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_tests_above_would_notice() {
    let source = |path: &str, text: &str| Source {
        path: PathBuf::from(path),
        modules: modules(Path::new(path)),
        text: text.to_owned(),
        words: words(text),
    };
    let named = |path, text| rooms_named(&source(path, text)).join(" ");
    assert_eq!(named("src/store/a.rs", "use crate::actors::x;"), "actors");
    assert_eq!(
        named("src/store/a.rs", "use crate::{format::{a, b}, messages};"),
        "format messages"
    );
    assert_eq!(named("src/store/a.rs", "let a = crate :: actors::b();"), "actors");
    assert_eq!(named("src/store/a.rs", "use super::super::actors;"), "actors");
    assert_eq!(named("src/store/a.rs", "use super::b;"), "");
    assert_eq!(
        named("src/store/a.rs", "// crate::actors\n/* crate::x */ \"crate::y\" r#\"crate::\"z\"#"),
        ""
    );
    assert_eq!(named("src/store/a.rs", "let q = '\"'; let b = b'\\''; crate::actors"), "actors");
    assert!(names_path(&words("use std::{io, fs};"), "std::fs"));
    assert!(names_path(&words("std::fs::read()"), "std::fs"));
    assert!(
        names_path(&words("use tokio;"), "tokio") && names_path(&words("tokio::spawn"), "tokio")
    );
    assert!(!names_path(&words("self.tokio.x; crate::tokio::y"), "tokio"));
    assert_eq!((floor("store"), floor("cli")), (2, ROOF));
}
