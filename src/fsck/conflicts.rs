//! Versions that lost a conflict (docs/FORMAT.md, "Archived conflicts").

use super::Run;
use super::bytes::{Bad, Crc, Flaw, Position, Take, crc32c, envelope};
use super::finding::Kind;
use super::names::{self, Named};

const FRONT: usize = 16 + 128;
/// Bytes read at a time.
const WINDOW: usize = 4 << 20;

/// The head of an archived conflict.
struct Head {
    object: [u8; 45],
    edit: Position,
    length: u64,
    single: Option<Position>,
    payload_crc: u32,
}

fn decode(bytes: &[u8]) -> Result<Head, Flaw> {
    let head = envelope(b"FoCf", bytes)?;
    let (checked, crc) = head.split_last_chunk::<4>().ok_or(Flaw::Damaged)?;
    if head.len() != 128 || crc32c(checked) != u32::from_le_bytes(*crc) {
        return Err(Flaw::Damaged);
    }
    let object = *head.first_chunk::<45>().ok_or(Bad)?;
    let state = head[45];
    let edit = Position::take(&mut Take(&head[64..]))?;
    let mut take = Take(&head[88..]);
    let length = take.u64()?;
    let single = Position::take(&mut take)?;
    let payload_crc = take.u32()?;
    Ok(Head { object, edit, length, single: (state == 1).then_some(single), payload_crc })
}

impl Run<'_> {
    /// Every archived version.
    pub fn check_conflicts(&mut self) {
        for entry in self.list("conflicts") {
            let path = format!("conflicts/{}", entry.name);
            if let Some(Named::Conflict(object, edit)) = names::parse(&path) {
                self.summary.conflicts += 1;
                self.conflict(&path, entry.len, &object, edit);
            }
        }
    }

    fn conflict(&mut self, path: &str, len: u64, object: &[u8; 45], edit: Position) {
        let bytes = self.read(path, 0, FRONT);
        if bytes.len() < FRONT {
            // A process that was killed may have left it; whether it was told of, the log knows.
            self.short_conflicts.insert((*object, edit));
            return;
        }
        let head = match decode(&bytes) {
            Ok(head) => head,
            Err(Flaw::Newer(major)) => {
                return self.found(Kind::NewerFormat, path, Some(0), format!("format {major}"));
            }
            Err(_) => {
                let what = "its head cannot be read".to_owned();
                return self.found(Kind::ConflictDamaged, path, Some(0), what);
            }
        };
        if head.object != *object || head.edit != edit {
            let what = "it holds another version".to_owned();
            return self.found(Kind::ConflictMisnamed, path, None, what);
        }
        match head.single {
            None => self.conflict_content(path, len, &head),
            Some(content) => {
                let kept = names::conflict_single(content);
                let about = Some((head.length, head.payload_crc));
                if let Err((_, offset, what)) = self.single_file(&kept, content, about) {
                    self.found(Kind::ConflictContent, &kept, offset, what);
                }
            }
        }
    }

    fn conflict_content(&mut self, path: &str, len: u64, head: &Head) {
        let whole = FRONT as u64 + head.length;
        if len < whole {
            self.short_conflicts.insert((head.object, head.edit));
            return;
        }
        let mut crc = Crc::new();
        let mut at = FRONT as u64;
        while at < whole {
            let wanted = usize::try_from(whole - at).unwrap_or(WINDOW).min(WINDOW);
            let bytes = self.read(path, at, wanted);
            if bytes.is_empty() {
                break;
            }
            crc.add(&bytes);
            at += bytes.len() as u64;
        }
        if len != whole || crc.value() != head.payload_crc {
            let what = format!("its content of {} bytes is damaged", head.length);
            self.found(Kind::ConflictDamaged, path, Some(FRONT as u64), what);
        }
    }
}
