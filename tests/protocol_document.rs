//! docs/PROTOCOL.md says what the code does: nothing of the tables is missing, and its bytes are real.
#![allow(clippy::expect_used, reason = "a test")]

use bytes::BytesMut;
use folio::messages::error::{ErrorCode, Retry};
use folio::messages::frame::{FrameDecoder, Kind, Limits, Meta};
use folio::messages::handshake::{Auth, AuthAnswer, Hello, HelloAnswer};
use folio::messages::heads::{self, Put, Reserve};
use folio::messages::opcode::{Opcode, Role, ServedBy, Stage};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor, value};

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

/// Asks a head for the names of its fields, in order, and gives nothing to it.
struct Names<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        Err(value::Error::custom("not a head"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, value::Error> {
        self.0.extend(fields);
        Err(value::Error::custom("only the names"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields_of<'a, T: Deserialize<'a>>() -> Vec<&'static str> {
    let mut names = Vec::new();
    assert!(T::deserialize(Names(&mut names)).is_err());
    names
}

/// The names in `name type (remark), name type; payload: ...`.
fn names_in(text: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut depth = 0;
    for c in text.split("; payload").next().expect("something").chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    let plain = plain.split(". ").next().expect("something");
    let word =
        |part: &str| part.split_whitespace().next().map(|w| w.trim_matches(['?', '.']).to_owned());
    plain.split(',').filter_map(word).collect()
}

fn request<'a, T: Deserialize<'a>>(name: &str) {
    let start = format!("| `{name}` |");
    let line = DOCUMENT.lines().find(|line| line.starts_with(&start)).expect("a row");
    let cell = line.split('|').nth(2).expect("a cell");
    assert_eq!(names_in(cell), fields_of::<T>(), "request {name}");
}

fn answer<'a, T: Deserialize<'a>>(name: &str) {
    let start = format!("| `{name}` |");
    let line = DOCUMENT.lines().find(|line| line.starts_with(&start)).expect("a row");
    let cell = line.split('|').nth(3).expect("a cell");
    assert_eq!(names_in(cell), fields_of::<T>(), "answer to {name}");
}

/// A head in the list below the table, over as many lines as it takes.
fn listed<'a, T: Deserialize<'a>>(name: &str) {
    let start = format!("\n- {name}: ");
    let at = DOCUMENT.find(&start).expect("an entry") + start.len();
    let text = DOCUMENT[at..].split("\n-").next().and_then(|text| text.split("\n\n").next());
    let text = text.expect("something").replace('\n', " ");
    assert_eq!(names_in(&text), fields_of::<T>(), "{name}");
}

#[test]
fn no_field_of_a_head_is_undocumented_or_out_of_order() {
    request::<Hello>("hello");
    answer::<HelloAnswer>("hello");
    request::<Auth>("auth");
    answer::<AuthAnswer>("auth");
    request::<heads::Ping>("ping");
    answer::<heads::Pong>("ping");
    request::<heads::Info>("info");
    answer::<heads::NodeIdentity>("info");
    request::<Put>("put");
    request::<heads::Modify>("modify");
    request::<heads::Delete>("delete");
    request::<heads::Undelete>("undelete");
    request::<heads::Get>("get");
    request::<heads::Stat>("stat");
    request::<heads::List>("list");
    request::<heads::Df>("df");
    request::<heads::View>("view");
    answer::<heads::ViewAnswer>("view");
    request::<heads::Route>("route");
    answer::<heads::RouteAnswer>("route");
    request::<heads::Heartbeat>("heartbeat");
    answer::<heads::HeartbeatAnswer>("heartbeat");
    request::<heads::SyncChunkfiles>("sync_chunkfiles");
    answer::<heads::SyncChunkfileList>("sync_chunkfiles");
    request::<heads::SyncDigest>("sync_digest");
    answer::<heads::SyncDigested>("sync_digest");
    request::<heads::SyncMarks>("sync_marks");
    answer::<heads::SyncMarked>("sync_marks");
    request::<heads::SyncCopies>("sync_copies");
    answer::<heads::SyncCopied>("sync_copies");
    request::<heads::SyncArchive>("sync_archive");
    answer::<heads::SyncArchiveList>("sync_archive");
    request::<heads::SyncArchived>("sync_archived");
    answer::<heads::SyncArchivedEntries>("sync_archived");
    request::<heads::SyncPull>("sync_pull");
    answer::<heads::SyncPulling>("sync_pull");
    listed::<heads::SyncCopy>("copy");
    listed::<heads::SyncTarget>("target");
    listed::<heads::SyncArchivedName>("archived name");
    listed::<heads::SyncEntry>("entry");
    listed::<heads::Written>("written");
    listed::<heads::ObjectHead>("object");
    listed::<heads::StatAnswer>("stat");
    listed::<heads::ListAnswer>("page");
    listed::<heads::ListItem>("item");
    listed::<heads::DfAnswer>("space");
    listed::<heads::DfMount>("mount");
    listed::<heads::Member>("member");
    listed::<heads::ErrorHead>("error");
    listed::<heads::DataEnd>("end");
    listed::<heads::WindowHead>("window");
}
