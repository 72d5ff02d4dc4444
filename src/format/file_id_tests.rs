//! What must not happen: a typo that is taken, two texts for one id, a panic.

use super::*;
use proptest::prelude::*;

fn sample() -> FileId {
    let object = ObjectId {
        kind: ObjectKind::Chunk,
        machine: 1,
        mount: 0,
        log_id: 0x5a40_1111,
        sequence: (1 << 48) | 7,
        created_s: 1_750_000_000,
        chunk: 3,
        offset_units: 64,
        capacity_units: 80,
        cookie: 0x0123_4567_89ab_cdef,
    };
    FileId::new("books", "a", object, Some("txt")).unwrap()
}

fn objects() -> impl Strategy<Value = ObjectId> {
    let place = (any::<u32>(), any::<u32>(), 1..=u32::MAX)
        .prop_map(|(chunk, offset, capacity)| (chunk, offset.min(u32::MAX - capacity), capacity));
    let birth = (1..=u32::MAX, 1..=u64::MAX, any::<u32>());
    (any::<bool>(), any::<u16>(), any::<u8>(), birth, place, any::<u64>()).prop_map(
        |(single, machine, mount, (log_id, sequence, created_s), place, cookie)| ObjectId {
            kind: if single { ObjectKind::Single } else { ObjectKind::Chunk },
            machine,
            mount,
            log_id,
            sequence,
            created_s,
            chunk: place.0,
            offset_units: place.1,
            capacity_units: place.2,
            cookie,
        },
    )
}

fn file_ids() -> impl Strategy<Value = FileId> {
    let name = "[a-z0-9_-][a-z0-9._-]{0,31}";
    (name, name, objects(), proptest::option::of("[A-Za-z0-9]{1,16}"))
        .prop_map(|(g, s, object, ext)| FileId::new(&g, &s, object, ext.as_deref()).unwrap())
}

#[test]
fn the_text_is_the_documented_one() {
    let text = sample().to_string();
    assert_eq!(text, "books/a/AQEBAAAREUBaBwAAAAAAAQCA4U5oAwAAAEAAAABQAAAA782riWdFIwFQd2-i.txt");
    assert_eq!(text.parse::<FileId>().unwrap(), sample());
    assert_eq!(sample().object.encode()[..41], sample().object.checked_bytes());
}

#[test]
fn a_newer_format_says_so_whatever_its_length() {
    let newer = |bytes: &[u8]| format!("books/a/{}", BASE64URL_NOPAD.encode(bytes));
    for len in [3, 20, 45, 60, 90] {
        let mut bytes = vec![7; len];
        bytes[0] = 2;
        assert_eq!(newer(&bytes).parse::<FileId>(), Err(IdError::NewerVersion { found: 2 }));
    }
    let mut bytes = sample().object.encode();
    bytes[0] = 9;
    // The check still fits version 1: somebody changed one byte.
    assert_eq!(ObjectId::decode(&bytes), Err(IdError::Typo));
}

#[test]
fn values_that_no_id_has_are_refused_although_the_check_fits() {
    let object = sample().object;
    for bad in [
        ObjectId { log_id: 0, ..object },
        ObjectId { sequence: 0, ..object },
        ObjectId { capacity_units: 0, ..object },
        ObjectId { offset_units: u32::MAX, ..object },
    ] {
        assert!(matches!(ObjectId::decode(&bad.encode()), Err(IdError::Malformed(_))), "{bad:?}");
    }
    let mut bytes = object.encode();
    bytes[1] = 3;
    let check = crc32c(&bytes[..41]);
    bytes[41..].copy_from_slice(&check.to_le_bytes());
    assert_eq!(ObjectId::decode(&bytes), Err(IdError::Malformed("unknown kind")));
}

#[test]
fn shapes_that_are_no_id_are_malformed() {
    let whole = sample().to_string();
    let cut = whole.trim_end_matches(".txt");
    for text in [
        "",
        "/",
        "//",
        "///",
        "books",
        "books/a",
        "books/a/",
        "books/a/.txt",
        &whole.replacen("books", "", 1),
        &whole.replacen("books", "..", 1),
        &format!("/{whole}"),
        &format!("{whole}/"),
        &format!("{whole}\n"),
        &format!(" {whole}"),
        &format!("{cut}="),
        &format!("{cut}A"),
        &cut[..cut.len() - 1],
    ] {
        let error = text.parse::<FileId>().unwrap_err();
        assert!(matches!(error, IdError::Malformed(_) | IdError::Typo), "{text:?}: {error}");
    }
    for (name, right) in [("a", true), ("A", false), ("a b", false), (".", false), ("..", false)] {
        assert_eq!(is_name(name), right, "{name}");
    }
    assert!(is_name(&"x".repeat(32)) && !is_name(&"x".repeat(33)));
    assert!(is_ext(&"x".repeat(16)) && !is_ext(&"x".repeat(17)) && !is_ext("tar.gz"));
}

#[test]
fn another_case_or_another_name_is_a_typo_and_no_miss() {
    let text = sample().to_string();
    for wrong in [
        text.replacen("books", "book5", 1),
        text.replacen("/a/", "/b/", 1),
        text.replacen("txt", "tXt", 1),
        text.replacen(".txt", "", 1),
        text.replacen("AQEB", "AQeB", 1),
        text.replacen("books/a", "bo/oksa", 1),
    ] {
        assert_eq!(wrong.parse::<FileId>(), Err(IdError::Typo), "{wrong}");
    }
}

proptest! {
    #[test]
    fn an_id_comes_back_as_it_was(id in file_ids()) {
        let text = id.to_string();
        prop_assert!(text.len() - id.group.len() - id.syncgroup.len() <= 96);
        prop_assert_eq!(text.parse::<FileId>().unwrap(), id.clone());
        prop_assert_eq!(ObjectId::decode(&id.object.encode()).unwrap(), id.object);
        let wire = rmp_serde::to_vec(&id.object).unwrap();
        prop_assert_eq!(wire.len(), 2 + OBJECT_ID_LEN);
        prop_assert_eq!(rmp_serde::from_slice::<ObjectId>(&wire).unwrap(), id.object);
    }

    #[test]
    fn no_changed_character_is_taken(id in file_ids()) {
        let text = id.to_string();
        for at in 0..text.len() {
            for with in (0u8..=127).map(char::from).filter(|c| !text[at..].starts_with(*c)) {
                let mut wrong = text.clone();
                wrong.replace_range(at..=at, with.encode_utf8(&mut [0; 4]));
                prop_assert!(wrong.parse::<FileId>().is_err(), "{} taken for {}", wrong, text);
            }
        }
    }

    #[test]
    fn neither_a_missing_nor_a_doubled_nor_a_swapped_character_is_taken(id in file_ids()) {
        let text = id.to_string();
        for at in 0..text.len() {
            let mut shorter = text.clone();
            shorter.remove(at);
            prop_assert!(shorter.parse::<FileId>().is_err(), "{} taken for {}", shorter, text);
            let mut longer = text.clone();
            longer.insert(at, char::from(text.as_bytes()[at]));
            prop_assert!(longer.parse::<FileId>().is_err(), "{} taken for {}", longer, text);
            let mut swapped = text.clone().into_bytes();
            let with = (at + 1) % swapped.len();
            if swapped[at] != swapped[with] {
                swapped.swap(at, with);
                let swapped = String::from_utf8(swapped).unwrap();
                prop_assert!(swapped.parse::<FileId>().is_err(), "{} taken for {}", swapped, text);
            }
        }
    }

    #[test]
    fn what_is_taken_prints_as_it_was_given(text in "\\PC{0,100}|[a-z]/[a-z]/[A-Za-z0-9_-]{60}(\\.[a-z]{1,3})?") {
        if let Ok(id) = text.parse::<FileId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn bytes_from_anywhere_are_no_danger(bytes in any::<[[u8; 15]; 3]>()) {
        let flat: [u8; 45] = std::array::from_fn(|i| bytes[i / 15][i % 15]);
        if let Ok(id) = ObjectId::decode(&flat) {
            prop_assert_eq!(id.encode(), flat);
        }
    }
}
