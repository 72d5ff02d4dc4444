//! Large contents: one file each, checked block by block (docs/FORMAT.md, "Singlefile").

use super::Run;
use super::bytes::{Bad, Crc, Flaw, Position, Take, crc32c};
use super::finding::Kind;
use super::names::{self, Named};
use super::slot::Slot;

const FOOTER: u64 = 80;
const BLOCK: u64 = 65_536;
/// Blocks read at a time.
const AT_ONCE: u64 = 32;

/// Footer of a singlefile.
struct Footer {
    mount: u8,
    content: Position,
    /// The content id as it stands: part of every block's check.
    content_bytes: [u8; 16],
    length: u64,
    payload_crc: u32,
    table_crc: u32,
}

fn footer(bytes: &[u8]) -> Result<Footer, Flaw> {
    if bytes.get(..4) != Some(b"FoSi") {
        return Err(Flaw::NotThis);
    }
    let mut take = Take(&bytes[4..]);
    let (major, _minor, mount, _) = (take.u8()?, take.u8()?, take.u8()?, take.u8()?);
    if major != 1 {
        return Err(Flaw::Newer(major));
    }
    let content_bytes = take.raw16()?;
    let content = Position::take(&mut Take(&content_bytes))?;
    let (length, trailer, payload_crc, table_crc) =
        (take.u64()?, take.u64()?, take.u32()?, take.u32()?);
    let (block, _) = (take.u32()?, take.u32()?);
    take.bytes(16)?;
    let (len, crc) = (take.u32()?, take.u32()?);
    let right = crc == crc32c(bytes.get(..76).ok_or(Bad)?);
    let sizes = u64::from(block) == BLOCK && u64::from(len) == FOOTER;
    if !right || !sizes || trailer != length.div_ceil(BLOCK) * 4 + FOOTER {
        return Err(Flaw::Damaged);
    }
    Ok(Footer { mount, content, content_bytes, length, payload_crc, table_crc })
}

/// What is wrong with a file of content: kind, where, what.
type Wrong = (Kind, Option<u64>, String);

impl Run<'_> {
    /// The content that a home names.
    pub fn named_single(&mut self, home: &Slot, content: Position) {
        self.summary.singles += 1;
        let path = names::single(content);
        let about = Some((home.length, home.payload_crc));
        if let Err((kind, offset, what)) = self.single_file(&path, content, about) {
            let what = format!("{}: {what}", home.object());
            self.unless_replayed(home, kind, &path, offset, what);
        }
    }

    /// Checks a file of content, against length and checksum if whoever names it knows them.
    pub fn single_file(
        &mut self,
        path: &str,
        content: Position,
        named: Option<(u64, u32)>,
    ) -> Result<(), Wrong> {
        let Some(len) = self.len(path) else {
            return Err((Kind::SingleMissing, None, "there is no such file".to_owned()));
        };
        let Some(at) = len.checked_sub(FOOTER) else {
            return Err((Kind::SingleLength, None, format!("only {len} bytes")));
        };
        let bytes = self.read(path, at, FOOTER as usize);
        let footer = match footer(&bytes) {
            Ok(footer) => footer,
            Err(Flaw::Newer(major)) => {
                return Err((Kind::NewerFormat, Some(at), format!("format {major}")));
            }
            Err(_) => return Err(no_footer(len, named)),
        };
        let whole = footer.length + footer.length.div_ceil(BLOCK) * 4 + FOOTER;
        if footer.content != content || footer.mount != self.label.mount {
            let other = footer.content;
            let what = format!(
                "it is content {}-{:08x}-{:x}",
                other.machine, other.log_id, other.sequence
            );
            return Err((Kind::SingleWrong, Some(at), what));
        }
        if whole != len {
            let what = format!("{len} bytes instead of {whole}");
            return Err((Kind::SingleLength, Some(at), what));
        }
        if named.is_some_and(|named| named != (footer.length, footer.payload_crc)) {
            let what = "length or checksum are not those that its object names".to_owned();
            return Err((Kind::SingleWrong, Some(at), what));
        }
        self.blocks(path, &footer)
    }

    fn blocks(&mut self, path: &str, footer: &Footer) -> Result<(), Wrong> {
        let (mut all, mut table) = (Crc::new(), Crc::new());
        let (mut bad, mut first_bad) = (0, None);
        let count = footer.length.div_ceil(BLOCK);
        let mut number = 0;
        while number < count {
            let blocks = AT_ONCE.min(count - number);
            let from = number * BLOCK;
            let len = (blocks * BLOCK).min(footer.length - from);
            let payload = self.read(path, from, usize::try_from(len).unwrap_or(0));
            let checks = self.read(
                path,
                footer.length + number * 4,
                usize::try_from(blocks * 4).unwrap_or(0),
            );
            all.add(&payload);
            table.add(&checks);
            let mut checks = Take(&checks);
            for block in payload.chunks(usize::try_from(BLOCK).unwrap_or(1)) {
                let mut check = Crc::new();
                check.add(&footer.content_bytes).add(&number.to_le_bytes());
                check.add(&crc32c(block).to_le_bytes());
                if checks.u32() != Ok(check.value()) {
                    bad += 1;
                    first_bad = first_bad.or(Some(number * BLOCK));
                }
                number += 1;
            }
        }
        if bad > 0 {
            let what = format!("{bad} of {count} blocks, the first one at this byte");
            return Err((Kind::SingleDamaged, first_bad, what));
        }
        if table.value() != footer.table_crc {
            let what = "the checksum of the table of blocks is wrong".to_owned();
            return Err((Kind::SingleDamaged, Some(footer.length), what));
        }
        if all.value() != footer.payload_crc {
            let what = "the checksum of the whole is wrong".to_owned();
            return Err((Kind::SingleDamaged, None, what));
        }
        Ok(())
    }

    /// Contents that no home named. Those with a second name in the archive are kept for it.
    pub fn unreferenced_singles(&mut self) {
        let mut folders = vec!["singles".to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in self.list(&folder) {
                let path = format!("{folder}/{}", entry.name);
                if entry.is_dir {
                    folders.push(path);
                } else if let Some(Named::Single(content)) = names::parse(&path) {
                    self.unreferenced(&path, content, entry.len);
                }
            }
        }
    }

    fn unreferenced(&mut self, path: &str, content: Position, len: u64) {
        if self.large.may_have(content) || self.len(&names::conflict_single(content)).is_some() {
            return;
        }
        if self.behind.records > 0 {
            self.suppressed += 1;
            return;
        }
        self.found(Kind::SingleUnreferenced, path, None, format!("{len} bytes"));
    }
}

fn no_footer(len: u64, named: Option<(u64, u32)>) -> Wrong {
    let whole = named.map(|(length, _)| length + length.div_ceil(BLOCK) * 4 + FOOTER);
    match whole {
        Some(whole) if whole != len => {
            (Kind::SingleLength, None, format!("{len} bytes instead of {whole}"))
        }
        Some(_) | None => {
            (Kind::SingleDamaged, Some(len - FOOTER), "its footer is damaged".to_owned())
        }
    }
}
