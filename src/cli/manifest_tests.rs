//! No name of a file is ever mangled, and no broken line is ever believed.

use super::*;
use crate::format::file_id::{ObjectId, ObjectKind};
use proptest::prelude::*;
use rstest::rstest;

pub(in crate::cli) fn id(sequence: u64) -> FileId {
    let object = ObjectId {
        kind: ObjectKind::Chunk,
        machine: 1,
        mount: 0,
        log_id: 7,
        sequence,
        created_s: 1,
        chunk: 1,
        offset_units: 64,
        capacity_units: 80,
        cookie: 42,
    };
    FileId::new("dev", "a", object, Some("txt")).expect("valid")
}

fn entry(path: &str) -> Entry {
    Entry { id: id(1), length: 3, sha256: [0xab; 32], path: PathBuf::from(path) }
}

#[test]
fn a_line_comes_back_as_the_same_entry() {
    let e = entry("sub/a b.txt");
    assert_eq!(Entry::parse(e.line().trim_end_matches('\n')), Ok(e));
}

#[rstest]
#[case("a%b", "a%25b")]
#[case("a\tb", "a%09b")]
#[case("a\nb", "a%0Ab")]
#[case("a\r", "a\r")]
#[case("grün/ü", "grün/ü")]
#[case("# not a comment", "# not a comment")]
fn names_are_encoded_as_documented(#[case] path: &str, #[case] text: &str) {
    assert_eq!(encode_path(Path::new(path)), text);
    assert_eq!(decode_path(text).as_deref(), Ok(Path::new(path)));
}

#[test]
fn bytes_that_are_no_text_survive() {
    let path = PathBuf::from(OsString::from_vec(b"a\xff\xfe/\xc3b".to_vec()));
    assert_eq!(encode_path(&path), "a%FF%FE/%C3b");
    assert_eq!(decode_path("a%FF%FE/%C3b"), Ok(path));
}

#[rstest]
#[case("")]
#[case("/etc/passwd")]
#[case("../x")]
#[case("a/../../x")]
#[case("a/..")]
#[case("a/%2E%2E/b")]
#[case("./a")]
#[case("a//b")]
#[case("a/")]
#[case("a%00b")]
#[case("a%2")]
#[case("a%zz")]
#[case("%")]
fn a_path_that_could_leave_the_folder_is_refused(#[case] text: &str) {
    assert!(decode_path(text).is_err(), "{text}");
}

#[test]
fn a_broken_line_is_named_by_its_number() {
    let good = entry("a").line();
    let text = format!("# comment\n\n{good}nonsense\n");
    assert_eq!(Manifest::parse(text.as_bytes()).map(|_| ()).expect_err("broken").0, 4);
    for broken in [
        good.replace('\t', " "),
        good.replace("\t3\t", "\t-3\t"),
        good.replace("\t3\t", "\t\t"),
        good.replace("abab", "abxx"),
        good.replace("abab", ""),
        good.replace("dev/", "de/"),
        format!("{}\textra", good.trim_end()),
    ] {
        assert!(Manifest::parse(broken.as_bytes()).is_err(), "{broken}");
    }
}

#[test]
fn the_last_line_of_a_path_holds() {
    let mut later = entry("a");
    later.length = 9;
    let text = format!("{}{}{}", entry("a").line(), entry("b").line(), later.line());
    let manifest = Manifest::parse(text.as_bytes()).expect("parses");
    assert_eq!(manifest.superseded, 1);
    assert_eq!(manifest.entries, [entry("b"), later]);
    assert!(Manifest::parse(b"").expect("empty").entries.is_empty());
}

proptest! {
    #[test]
    fn any_name_comes_back(bytes in proptest::collection::vec(1u8..=255, 1..40)) {
        let path = PathBuf::from(OsString::from_vec(bytes));
        let text = encode_path(&path);
        prop_assert!(!text.contains(['\t', '\n']));
        // Names that a walk below a folder never yields are refused, all others come back.
        if let Ok(back) = decode_path(&text) {
            prop_assert_eq!(back, path);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::parse(&bytes).is_ok();
    }
}
