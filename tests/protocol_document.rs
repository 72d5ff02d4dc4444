//! docs/PROTOCOL.md says what the code does: nothing of the tables is missing, and its bytes are real.
#![allow(clippy::expect_used, reason = "a test")]

use bytes::BytesMut;
use folio::messages::error::{ErrorCode, Retry};
use folio::messages::frame::{FrameDecoder, Kind, Limits, Meta};
use folio::messages::heads::{self, Put, Reserve};
use folio::messages::opcode::{Opcode, Role, ServedBy, Stage};

const DOCUMENT: &str = include_str!("../docs/PROTOCOL.md");

/// The cells of the table row that begins with these.
fn row(first: &str, second: &str) -> Vec<String> {
    let start = format!("| {first} | `{second}` |");
    let line = DOCUMENT.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("no row {start} in docs/PROTOCOL.md"));
    line.split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn no_opcode_is_undocumented() {
    for entry in Opcode::TABLE {
        let cells = row(&format!("{:#06x}", entry.opcode.as_u16()), entry.name);
        let served_by = match entry.served_by {
            ServedBy::Both => "both",
            ServedBy::Tracker => "tracker",
            ServedBy::Storage => "storage",
        };
        let roles: Vec<&str> = [(Role::Client, "c"), (Role::Peer, "p"), (Role::Admin, "a")]
            .into_iter()
            .filter(|(role, _)| entry.roles.contains(*role))
            .map(|(_, letter)| letter)
            .collect();
        let roles = if entry.stage == Stage::Handshake { "-".to_owned() } else { roles.join(" ") };
        let mutation = if entry.mutation { "yes" } else { "" };
        let expected = [
            served_by,
            &roles,
            &entry.head_max.to_string(),
            &entry.payload_max.to_string(),
            mutation,
        ];
        assert_eq!(cells[3..8], expected, "{}", entry.name);
        // And somewhere it says which fields it has.
        assert!(DOCUMENT.lines().any(|line| line.starts_with(&format!("| `{}` |", entry.name))));
    }
}

#[test]
fn no_error_code_is_undocumented() {
    for code in ErrorCode::ALL {
        let cells = row(&code.as_u16().to_string(), code.name());
        assert_eq!(cells[3], code.exit_code().to_string(), "{code}");
        if code.retry() == Retry::Same {
            assert!(cells[4].contains("the same again"), "{code}");
        }
    }
}

fn bytes_of(name: &str) -> BytesMut {
    let start = format!("```hex {name}\n");
    let at = DOCUMENT.find(&start).expect("the example is there") + start.len();
    let text = DOCUMENT[at..].split("```").next().expect("it ends");
    text.split_whitespace().map(|hex| u8::from_str_radix(hex, 16).expect("hexadecimal")).collect()
}

#[test]
fn the_examples_are_frames() {
    let mut decoder = FrameDecoder::new(Limits::SESSION);
    let ping = decoder.decode(&mut bytes_of("ping")).expect("good").expect("whole");
    assert_eq!(ping.header.meta, Meta::request(Opcode::Ping.as_u16(), 1));
    heads::decode::<heads::Ping>(ping.head()).expect("a ping");

    let put = decoder.decode(&mut bytes_of("put")).expect("good").expect("whole");
    assert_eq!(put.header.meta.kind, Kind::Request);
    assert_eq!(put.header.meta.opcode, Opcode::Put.as_u16());
    assert_eq!(put.payload(), b"hello");
    let head: Put = heads::decode(put.head()).expect("a put");
    assert_eq!(head.token.client[15], 15);
    assert_eq!((head.token.sequence, head.token.issued_ms), (1, 1_790_000_000_000));
    assert_eq!((head.mount, head.reserve), (None, Some(Reserve::Percent(20))));
    assert_eq!(head.length, Some(5));
}
