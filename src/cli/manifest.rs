//! MANIFEST: which file became which object. One line per file, tab separated:
//!
//! ```text
//! books/a/AQEBAAAR...d2-i.txt    1234    9f86d081...15b0f00a08    sub/folder/file%09name.txt
//! id                              length  sha256 (64 hex)           path below DIR
//! ```
//! No header; `#` starts a comment line. The path percent-encodes `%`, TAB, LF and every byte that is not UTF-8. A path that stands twice: the last line holds.

use super::exit::Failure;
use crate::format::file_id::FileId;
use data_encoding::HEXLOWER;
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// SHA-256 of a content.
pub type Sha256Bytes = [u8; 32];

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its object.
    pub id: FileId,
    /// Bytes.
    pub length: u64,
    /// Of the content.
    pub sha256: Sha256Bytes,
    /// Below the imported folder.
    pub path: PathBuf,
}

impl Entry {
    /// The line, with its end.
    #[must_use]
    pub fn line(&self) -> String {
        let sha256 = HEXLOWER.encode(&self.sha256);
        format!("{}\t{}\t{sha256}\t{}\n", self.id, self.length, encode_path(&self.path))
    }

    /// Reads a line without its end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        let mut fields = line.split('\t');
        let (Some(id), Some(length), Some(sha256), Some(path), None) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err("it needs id, length, sha256 and path, separated by tabs".to_owned());
        };
        let id: FileId = id.parse().map_err(|e| format!("{e}"))?;
        let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        let length = plain
            .then(|| length.parse::<u64>().ok())
            .flatten()
            .ok_or_else(|| format!("{length:?} is no length in bytes"))?;
        let sha256 = HEXLOWER
            .decode(sha256.as_bytes())
            .ok()
            .and_then(|bytes| Sha256Bytes::try_from(bytes).ok())
            .ok_or("the sha256 must be 64 hexadecimal digits in lower case")?;
        let path = decode_path(path)?;
        Ok(Self { id, length, sha256, path })
    }
}

/// A whole manifest.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    /// One entry per path, in the order of the lines that hold.
    pub entries: Vec<Entry>,
    /// How many lines were superseded by later ones.
    pub superseded: usize,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// It cannot be read, or a line is broken (exit 2, with its number).
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let bytes = std::fs::read(path).map_err(|e| Failure::io("read manifest", path, &e))?;
        Self::parse(&bytes).map_err(|(line, problem)| broken_line(path, line, &problem))
    }

    /// Reads the lines.
    ///
    /// # Errors
    /// Number (from 1) and problem of the first broken line.
    pub fn parse(bytes: &[u8]) -> Result<Self, (usize, String)> {
        let mut entries: Vec<Option<Entry>> = Vec::new();
        let mut by_path: HashMap<PathBuf, usize> = HashMap::new();
        let mut superseded = 0;
        for (number, line) in lines(bytes) {
            let Some(entry) = parse_line(line).map_err(|problem| (number, problem))? else {
                continue;
            };
            if let Some(earlier) = by_path.insert(entry.path.clone(), entries.len()) {
                entries[earlier] = None;
                superseded += 1;
            }
            entries.push(Some(entry));
        }
        Ok(Self { entries: entries.into_iter().flatten().collect(), superseded })
    }
}

/// A line of a manifest; `None` for a comment or an empty one.
pub(super) fn parse_line(line: &[u8]) -> Result<Option<Entry>, String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    Entry::parse(text).map(Some)
}

/// Lines with their numbers from 1; a last one without end counts too.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let count = if body.is_empty() && bytes.is_empty() { 0 } else { usize::MAX };
    body.split(|b| *b == b'\n').take(count).enumerate().map(|(i, line)| (i + 1, line))
}

pub(super) fn broken_line(path: &Path, line: usize, problem: &str) -> Failure {
    Failure::usage(
        format!("manifest {} line {line}: {problem}", path.display()),
        "mend or remove the line; nothing was done",
    )
}

/// A path as it stands in a manifest.
#[must_use]
pub fn encode_path(path: &Path) -> String {
    let mut out = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '%' | '\t' | '\n' => out.push_str(&format!("%{:02X}", u32::from(c))),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The path of a manifest line. It stays below the folder: never absolute, never with `..`, `.` or empty parts.
///
/// # Errors
/// What is wrong with it.
pub fn decode_path(text: &str) -> Result<PathBuf, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err("a % in the path must be followed by two hexadecimal digits".to_owned());
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    if bytes.contains(&0) {
        return Err("the path has a zero byte".to_owned());
    }
    let path = PathBuf::from(OsString::from_vec(bytes));
    // `components` drops `.` and doubled slashes; comparing with the bytes refuses these spellings as well.
    let clean: PathBuf =
        path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    if clean.as_os_str().is_empty() || clean.as_os_str() != path.as_os_str() {
        return Err("the path must lie below the folder: no leading /, no `..`, `.` or empty part"
            .to_owned());
    }
    Ok(path)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
pub(in crate::cli) mod tests;
