//! `docs/FORMAT.md` shows the same bytes as the code: whoever writes a reader from it must not be led astray.
//!
//! `cargo test --test format_doc -- --ignored` copies changed drawings into the document; the words around them are
//! for a person to mend.
#![allow(clippy::disallowed_methods, reason = "a test that reads the sources")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use folio::format::{chunkfile, crc, envelope, file_id, ids, label, log, memory, single, slot};
use std::path::{Path, PathBuf};

const OPEN: &str = "```text\n";
const CLOSE: &str = "```";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn document() -> String {
    std::fs::read_to_string(root().join("docs/FORMAT.md")).unwrap()
}

/// The drawing in the documentation at the top of a source file.
fn drawing(source: &Path) -> Option<String> {
    let text = std::fs::read_to_string(source).unwrap();
    let doc: String = text
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    let from = doc.find(OPEN)? + OPEN.len();
    let len = doc[from..].find(CLOSE)?;
    Some(doc[from..from + len].to_owned())
}

/// Every room of `format/` that draws something: name of the file, drawing.
fn drawings() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = std::fs::read_dir(root().join("src/format"))
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            Some((name, drawing(&path)?))
        })
        .collect();
    all.sort();
    all
}

/// Where the document shows the drawing of this source: behind `<!-- src/format/<name> -->`.
fn shown(document: &str, name: &str) -> Option<std::ops::Range<usize>> {
    let marker = format!("<!-- src/format/{name} -->\n{OPEN}");
    let from = document.find(&marker)? + marker.len();
    Some(from..from + document[from..].find(CLOSE)?)
}

#[test]
fn the_document_shows_no_other_bytes_than_the_code() {
    let document = document();
    let all = drawings();
    assert!(all.len() >= 11, "drawings were not found");
    for (name, drawn) in &all {
        let shown = shown(&document, name).unwrap_or_else(|| panic!("FORMAT.md lacks {name}"));
        assert_eq!(document[shown], *drawn, "{name}: cargo test --test format_doc -- --ignored");
    }
    assert_eq!(document.matches("<!-- src/format/").count(), all.len(), "a drawing of nothing");
}

#[test]
#[ignore = "writes docs/FORMAT.md"]
fn copy_changed_drawings() {
    let mut document = document();
    for (name, drawn) in drawings() {
        let shown = shown(&document, &name).unwrap_or_else(|| panic!("FORMAT.md lacks {name}"));
        document.replace_range(shown, &drawn);
    }
    std::fs::write(root().join("docs/FORMAT.md"), document).unwrap();
}

/// The numbers of the document's table of structures: `| name | `magic` | version | length |`.
#[test]
fn the_table_of_structures_is_right() {
    let document = document();
    let row = |name: &str| -> Vec<String> {
        let start = format!("| {name} |");
        let line = document.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("no row {name}"));
        line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).skip(2).collect()
    };
    let golden = |name: &str| {
        std::fs::read(root().join("tests/golden").join(format!("{name}.bin"))).unwrap()
    };
    for (name, file, length) in [
        ("label", "label-v1.0", "variable".to_owned()),
        ("memory", "memory-v1.1", "variable".to_owned()),
        ("state of a recovery", "recovery-state-v1.0", "variable".to_owned()),
        ("chunkfile header", "chunkfile-v1.0", chunkfile::CHUNKFILE_HEADER_LEN.to_string()),
        ("slot header", "slot-v1", slot::HEADER_LEN.to_string()),
        ("log segment header", "segment-v1.0", log::SEGMENT_HEADER_LEN.to_string()),
        ("log batch header", "batch-v1.0", log::BATCH_HEADER_LEN.to_string()),
        ("checkpoint", "checkpoint-v1.1", "variable".to_owned()),
    ] {
        let (row, bytes) = (row(name), golden(file));
        assert_eq!(row[0].as_bytes(), &bytes[..4], "{name}");
        assert!(row[1].starts_with(&bytes[4].to_string()), "{name}");
        if let Some((_, minor)) = row[1].split_once('.') {
            assert_eq!(minor, bytes[5].to_string(), "{name}");
        }
        assert_eq!(row[2], length, "{name}");
    }
    let single_footer = row("singlefile footer");
    assert_eq!(single_footer[2], single::FOOTER_LEN.to_string());
    let trailer = golden("single-v1.0");
    assert_eq!(single_footer[0].as_bytes(), &trailer[trailer.len() - single::FOOTER_LEN..][..4]);
    assert_eq!(row("file id")[2], file_id::OBJECT_ID_LEN.to_string());
    assert_eq!(row("log record header")[2], log::RECORD_HEADER_LEN.to_string());
}

#[test]
fn the_numbers_in_the_words_are_right() {
    let document = document().split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        format!("units of {} bytes", ids::UNIT),
        format!("CRC32C of `123456789` is `{:#010x}`", crc::crc32c(b"123456789")),
        format!(
            "at most {} bytes, a memory at most {}",
            label::LABEL_LEN_MAX,
            memory::MEMORY_LEN_MAX
        ),
        format!("the first slot begins at {}", chunkfile::CHUNKFILE_HEADER_LEN),
        format!("blocks of {} bytes", single::BLOCK_LEN),
        format!("batches begin at multiples of {} bytes", log::BATCH_ALIGN),
        format!("records at multiples of {}", log::RECORD_ALIGN),
        format!("format {}.{}", envelope::MAJOR, envelope::MINOR),
    ] {
        assert!(document.contains(&words), "FORMAT.md does not say {words:?}");
    }
}
