//! Where each field of a log lies: the drawings of docs/FORMAT.md once more, read without the decoders.

use folio::format::log::{BATCH_HEADER_LEN, BatchHeader, RECORD_HEADER_LEN, padding};
use folio::format::log::{SEGMENT_HEADER_LEN, SegmentHeader};

/// One field of one structure in a file of a log.
#[derive(Clone, Debug)]
pub struct Field {
    /// Structure and field, for messages: "edit: home length".
    pub name: String,
    pub path: String,
    pub offset: u64,
    pub len: u64,
}

/// A segment header.
const SEGMENT: &[(&str, u64)] = &[
    ("magic", 4),
    ("major", 1),
    ("minor", 1),
    ("mount", 1),
    ("zero", 1),
    ("machine", 2),
    ("zero", 2),
    ("log id", 4),
    ("first", 8),
    ("predecessor", 8),
    ("secret", 16),
    ("mount uuid", 16),
    ("length", 8),
    ("checksum", 4),
];

const BATCH: &[(&str, u64)] = &[
    ("magic", 4),
    ("major", 1),
    ("minor", 1),
    ("zero", 2),
    ("log id", 4),
    ("records", 4),
    ("first", 8),
    ("last", 8),
    ("predecessor", 8),
    ("body length", 4),
    ("body checksum", 4),
    ("zero", 8),
    ("seal", 8),
];

const RECORD: &[(&str, u64)] = &[
    ("kind", 1),
    ("zero", 3),
    ("head length", 4),
    ("sequence", 8),
    ("payload length", 4),
    ("payload checksum", 4),
    ("zero", 4),
    ("checksum", 4),
];

const SLOT: &[(&str, u64)] = &[
    ("magic", 4),
    ("major", 1),
    ("role", 1),
    ("state", 1),
    ("body", 1),
    ("mount", 1),
    ("extra entries", 1),
    ("creation machine", 2),
    ("creation log id", 4),
    ("creation sequence", 8),
    ("cookie", 8),
    ("address machine", 2),
    ("vector entries", 1),
    ("kind", 1),
    ("address log id", 4),
    ("address chunk", 4),
    ("address offset", 4),
    ("life", 4),
    ("term", 4),
    ("n", 8),
    ("tag machine", 2),
    ("zero", 2),
    ("tag log id", 4),
    ("tag sequence", 8),
    ("vector entry 1", 16),
    ("vector entry 2", 16),
    ("token client", 16),
    ("token sequence", 8),
    ("created", 4),
    ("birth units", 4),
    ("modified", 8),
    ("capacity", 4),
    ("payload checksum", 4),
    ("length", 8),
    ("forward machine", 2),
    ("zero", 2),
    ("forward log id", 4),
    ("forward", 8),
    ("seal", 8),
];

const CHUNKFILE: &[(&str, u64)] =
    &[("machine", 2), ("log id", 4), ("chunk", 4), ("size", 4), ("created", 8), ("secret", 16)];

const ARCHIVED: &[(&str, u64)] = &[
    ("object", 45),
    ("state", 1),
    ("zero", 2),
    ("life", 4),
    ("term", 4),
    ("n", 8),
    ("tag machine", 2),
    ("zero", 2),
    ("tag log id", 4),
    ("tag sequence", 8),
    ("modified", 8),
    ("length", 8),
    ("single machine", 2),
    ("zero", 2),
    ("single log id", 4),
    ("single sequence", 8),
    ("content checksum", 4),
    ("zero", 8),
    ("checksum", 4),
];

const POSITION: &[(&str, u64)] = &[("machine", 2), ("log id", 4), ("sequence", 8)];
const ADDRESS: &[(&str, u64)] = &[("machine", 2), ("log id", 4), ("chunk", 4), ("offset", 4)];

/// Walks the fields of one record head, noting them.
struct Walk<'a> {
    bytes: &'a [u8],
    at: u64,
    what: &'static str,
    path: &'a str,
    found: &'a mut Vec<Field>,
}

impl Walk<'_> {
    /// Notes a field; its value, of the first eight bytes.
    fn field(&mut self, name: &str, len: u64) -> u64 {
        let from = usize::try_from(self.at).unwrap();
        let mut value = [0; 8];
        for (to, byte) in value.iter_mut().zip(&self.bytes[from..from + len as usize]) {
            *to = *byte;
        }
        if len > 0 {
            let name = format!("{}: {name}", self.what);
            self.found.push(Field { name, path: self.path.to_owned(), offset: self.at, len });
        }
        self.at += len;
        u64::from_le_bytes(value)
    }

    fn all(&mut self, of: &str, fields: &[(&str, u64)]) {
        for (name, len) in fields {
            let name = if of.is_empty() { (*name).to_owned() } else { format!("{of} {name}") };
            self.field(&name, *len);
        }
    }

    fn places(&mut self, count: u64) {
        for _ in 0..count {
            self.all("place", ADDRESS);
            self.field("place capacity", 4);
        }
    }

    fn slot(&mut self, of: &str, len: u64) {
        let end = self.at + len;
        self.all(of, SLOT);
        self.field(&format!("{of} extra vector entries"), end - self.at);
    }

    fn edit(&mut self) {
        self.all("", &[("lowest unanswered", 8), ("issued", 8), ("replaced length", 8)]);
        self.all("", &[("replaced state", 1), ("flags", 1)]);
        let places = self.field("freed places", 1);
        let singles = self.field("freed singlefile", 1);
        self.places(places);
        if singles > 0 {
            self.all("singlefile", POSITION);
        }
        self.all("home", ADDRESS);
        let home = self.field("home length", 2);
        let target = self.field("target length", 2);
        if target > 0 {
            self.all("target", ADDRESS);
        }
        self.slot("home", home);
        if target > 0 {
            self.slot("target", target);
        }
    }

    /// Record header, head and payload; the kind.
    fn record(&mut self) -> u8 {
        let header = usize::try_from(self.at).unwrap();
        let kind = self.bytes[header];
        let u32_at = |at: usize| {
            u64::from(u32::from_le_bytes(self.bytes[header + at..][..4].try_into().unwrap()))
        };
        let (head, payload) = (u32_at(4), u32_at(16));
        self.what = match kind {
            1 => "edit",
            2 => "chunkfile",
            3 => "archived",
            4 => "dropped",
            5 => "begun",
            6 => "forgotten",
            128 => "settled",
            129 => "image",
            130 => "reached",
            other => panic!("no drawing for kind {other}"),
        };
        self.all("record", RECORD);
        let end = self.at + head;
        match kind {
            1 | 129 => self.edit(),
            2 => self.all("", CHUNKFILE),
            3 => self.all("", ARCHIVED),
            4 => {
                self.all("", &[("object", 45), ("zero", 1)]);
                self.all("edit", POSITION);
            }
            5 => self.all("", &[("mount uuid", 16), ("instance", 16), ("when", 8)]),
            6 => {
                self.field("machine", 2);
                let ids = self.field("log ids", 2);
                self.all("", &[("zero", 4), ("instance", 16), ("logged machine", 2), ("zero", 2)]);
                self.all("logged", &[("log id", 4), ("sequence", 8)]);
                self.field("log id", ids * 4);
            }
            128 => {
                self.all("edit", POSITION);
                let places = self.field("places", 1);
                self.field("zero", 1);
                self.places(places);
            }
            130 => {
                let entries = self.field("entries", 2);
                self.field("zero", 2);
                for _ in 0..entries {
                    self.all("entry", &[("machine", 2), ("zero", 2)]);
                    self.all("entry", &[("log id", 4), ("sequence", 8)]);
                }
            }
            _ => {}
        }
        assert_eq!(self.at, end, "the drawing of {} is not what is on the disk", self.what);
        self.field("payload", payload);
        let len = RECORD_HEADER_LEN as u64 + head + payload;
        self.at += padding(usize::try_from(len).unwrap()) as u64;
        kind
    }
}

/// Every field of every batch in a file of a log, batch by batch; the header of the segment is one of its own.
pub fn batches(path: &str, bytes: &[u8]) -> Vec<Vec<Field>> {
    let Some(Ok(header)) = bytes.get(..SEGMENT_HEADER_LEN).map(SegmentHeader::decode) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut walk = Walk { bytes, at: 0, what: "segment", path, found: &mut found };
    walk.all("", SEGMENT);
    let mut all = vec![found];
    let mut at = SEGMENT_HEADER_LEN as u64;
    while let Some(front) = bytes.get(at as usize..at as usize + BATCH_HEADER_LEN)
        && let Ok(batch) = BatchHeader::decode(front, &header.secret)
    {
        let mut found = Vec::new();
        let mut walk = Walk { bytes, at, what: "batch", path, found: &mut found };
        walk.all("", BATCH);
        let end = walk.at + u64::from(batch.body_len);
        while walk.at < end {
            walk.record();
        }
        all.push(found);
        at += batch.stride();
    }
    all
}
