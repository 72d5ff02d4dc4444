//! The slots of all chunkfiles: every header, every content, every forward (docs/FORMAT.md, "Slot").
//!
//! A scan jumps by capacity over slots in use, and goes on unit by unit elsewhere. Headers that nobody named are old
//! tenants of free space.

use super::bytes::{Address, ChunkId, Crc, UNIT, crc32c};
use super::finding::Kind;
use super::slot::{
    Body, FIRST_UNIT, HEADER, HEADER_MAX, HEADER_UNITS, NotASlot, ROLE_AT, Role, Slot, State,
    TARGET, content_of, looks_like,
};
use super::space::{Ground, LookAlike, Round};
use super::{Chunk, Run, names};

/// Bytes read at a time.
const WINDOW: usize = 4 << 20;

/// A window on a chunkfile.
struct Window {
    path: String,
    from: u64,
    bytes: Vec<u8>,
    /// Nothing lies behind the window.
    ends: bool,
}

impl Window {
    fn new(path: String) -> Self {
        Self { path, from: 0, bytes: Vec::new(), ends: false }
    }

    /// Bytes from `at` on: `len` of them, fewer at the end of the file.
    fn get(&mut self, run: &mut Run<'_>, at: u64, len: usize) -> &[u8] {
        let have = at.checked_sub(self.from).and_then(|skip| usize::try_from(skip).ok());
        let have = have.filter(|skip| {
            skip + len <= self.bytes.len() || (self.ends && *skip <= self.bytes.len())
        });
        let skip = match have {
            Some(skip) => skip,
            None => {
                let wanted = len.max(WINDOW);
                self.bytes = run.read(&self.path, at, wanted);
                self.ends = self.bytes.len() < wanted;
                self.from = at;
                0
            }
        };
        &self.bytes[skip..self.bytes.len().min(skip + len)]
    }
}

impl Run<'_> {
    /// All chunkfiles, in rounds of as many as are looked at together.
    pub fn check_slots(&mut self) {
        let all: Vec<(ChunkId, Chunk)> = self.chunks.iter().map(|(id, c)| (*id, *c)).collect();
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let mut sum = 0;
            let fits = rest.iter().take_while(|(_, chunk)| {
                sum += u64::from(chunk.size_units) * UNIT;
                sum <= self.options.together
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            rest = later;
            let mut round: Round = now.iter().map(|(id, c)| (*id, Ground::new(*c))).collect();
            for (id, chunk) in &all {
                self.scan(*id, *chunk, &mut round);
            }
            self.end_round(round);
        }
    }

    fn scan(&mut self, id: ChunkId, chunk: Chunk, round: &mut Round) {
        let mut window = Window::new(names::chunk(id));
        let in_round = round.contains_key(&id);
        let mut unit = FIRST_UNIT;
        while unit < chunk.size_units {
            let here = Address { chunk: id, unit };
            let bytes = window.get(self, here.offset(), HEADER_MAX);
            if bytes.len() < HEADER {
                break;
            }
            let slot = match Slot::decode(bytes, &chunk.secret) {
                Ok(slot) => slot,
                Err(why) => {
                    if in_round {
                        let bytes = bytes.to_vec();
                        self.no_slot(&here, why, &bytes, chunk, round);
                    }
                    unit += 1;
                    continue;
                }
            };
            if slot.address != here || slot.mount != self.label.mount {
                if in_round {
                    let offset = slot.address.offset();
                    let what = format!(
                        "it belongs at byte {offset} of {}",
                        names::chunk(slot.address.chunk)
                    );
                    self.look_alike(round, here, Kind::SlotMisdirected, what);
                }
                unit += 1;
                continue;
            }
            if !slot.is_in_use() {
                unit += 1;
                continue;
            }
            let sane = self.home(&slot, chunk, round, &mut window);
            unit += if sane { slot.capacity_units.max(HEADER_UNITS) } else { 1 };
        }
    }

    /// Bytes that are no header: nothing, or what is left of one.
    fn no_slot(
        &mut self,
        here: &Address,
        why: NotASlot,
        bytes: &[u8],
        chunk: Chunk,
        round: &mut Round,
    ) {
        match why {
            NotASlot::Newer(major) => {
                let what = format!("a slot of format {major}");
                return self.look_alike(round, *here, Kind::NewerFormat, what);
            }
            NotASlot::Blank | NotASlot::Broken => {}
        }
        let Some((says, codes)) = looks_like(bytes) else { return };
        let magic = why == NotASlot::Broken;
        if says == *here && codes >= 2 {
            // What is left where a later slot began inside its header is no damage.
            let later = (1..HEADER_UNITS as usize).any(|n| {
                let behind = bytes.get(n * UNIT as usize..).unwrap_or_default();
                Slot::decode(behind, &chunk.secret).is_ok()
            });
            if !later && self.is_damaged_header(here, bytes, &chunk.secret) {
                let what = "its seal is broken".to_owned();
                self.look_alike(round, *here, Kind::SlotHeader, what);
            }
        } else if magic && codes == 3 {
            let secret = self.chunks.get(&says.chunk).map(|other| other.secret);
            if secret.is_some_and(|secret| Slot::decode(bytes, &secret).is_ok()) {
                let what =
                    format!("it belongs at byte {} of {}", says.offset(), names::chunk(says.chunk));
                self.look_alike(round, *here, Kind::SlotMisdirected, what);
            }
        }
    }

    /// Whether broken bytes were a header in use until they broke. In our own chunkfiles the account of the free space
    /// tells. In others free space is full of what is left of old tenants: there a header counts that one bit mends, or
    /// whose content is whole behind it.
    fn is_damaged_header(&mut self, here: &Address, bytes: &[u8], secret: &[u8; 16]) -> bool {
        let ours = (self.label.machine, self.label.log_id);
        let Address { chunk, .. } = here;
        if (chunk.machine, chunk.log_id) == ours && self.behind.records == 0 {
            return true;
        }
        let mut mended = bytes.to_vec();
        for bit in 0..HEADER * 8 {
            mended[bit / 8] ^= 1 << (bit % 8);
            if let Ok(slot) = Slot::decode(&mended, secret)
                && slot.address == *here
            {
                return slot.is_in_use();
            }
            mended[bit / 8] ^= 1 << (bit % 8);
        }
        // A target that is in use is named by its home, and found from there.
        if bytes.get(ROLE_AT) == Some(&TARGET) {
            return false;
        }
        let Some((crc, length, at)) = content_of(bytes) else { return false };
        let len = usize::try_from(length).unwrap_or(usize::MAX);
        if length == 0 || len > WINDOW {
            return false;
        }
        let path = names::chunk(*chunk);
        let content = self.read(&path, here.offset() + at, len);
        content.len() == len && crc32c(&content) == crc
    }

    fn look_alike(&mut self, round: &mut Round, here: Address, kind: Kind, what: String) {
        if let Some(ground) = round.get_mut(&here.chunk) {
            ground.note(LookAlike { unit: here.unit, what, kind });
        }
    }

    /// A home in use; `false` if its fields make no sense.
    fn home(&mut self, slot: &Slot, chunk: Chunk, round: &mut Round, window: &mut Window) -> bool {
        let in_round = round.contains_key(&slot.address.chunk);
        let (path, offset) = (names::chunk(slot.address.chunk), Some(slot.address.offset()));
        if let Some(nonsense) = slot.nonsense(chunk.size_units) {
            if in_round {
                self.found(
                    Kind::SlotFields,
                    &path,
                    offset,
                    format!("{}: {nonsense}", slot.object()),
                );
            }
            return false;
        }
        if in_round {
            self.summary.objects += 1;
            self.summary.bytes += slot.length;
            self.claim(round, slot);
        }
        match slot.body {
            Body::Inline if in_round => self.content(slot, slot, window),
            Body::Slot(target) if round.contains_key(&target.chunk) => {
                self.target(slot, target, round)
            }
            Body::Slot(target) if in_round && !self.chunks.contains_key(&target.chunk) => {
                let what = format!(
                    "{} names {}, which is not there",
                    slot.object(),
                    names::chunk(target.chunk)
                );
                self.unless_replayed(slot, Kind::ForwardBroken, &path, offset, what);
            }
            Body::Single(content) if in_round => {
                self.large.add(content);
                self.named_single(slot, content);
            }
            Body::Inline | Body::Slot(_) | Body::Single(_) | Body::None => {}
        }
        true
    }

    /// The slot that a home names.
    fn target(&mut self, home: &Slot, address: Address, round: &mut Round) {
        let Some(chunk) = self.chunks.get(&address.chunk).copied() else { return };
        let path = names::chunk(address.chunk);
        let mut window = Window::new(path.clone());
        let bytes = self.read(&path, address.offset(), HEADER_MAX);
        let what = match Slot::decode(&bytes, &chunk.secret) {
            Ok(target) if target.address != address => "its header belongs elsewhere".to_owned(),
            Ok(target) if !target.is_same_object(home) || target.role != Role::Target => {
                "another object lies there".to_owned()
            }
            Ok(target) => {
                if let Some(nonsense) = target.nonsense(chunk.size_units) {
                    nonsense
                } else {
                    let same =
                        target.payload_crc == home.payload_crc && target.length == home.length;
                    if same || home.state == State::Live {
                        self.claim(round, &target);
                    } else if let Some(ground) = round.get_mut(&address.chunk) {
                        // What a tombstone kept is gone, and its place may be anybody's.
                        ground.unsure.set(address.unit, target.capacity_units);
                    }
                    if same {
                        return self.content(home, &target, &mut window);
                    }
                    "another version lies there".to_owned()
                }
            }
            Err(_) => "there is no slot header".to_owned(),
        };
        if let Some(ground) = round.get_mut(&address.chunk) {
            ground.named.insert(address.unit);
        }
        let what = format!("{} moved here: {what}", home.object());
        self.unless_replayed(home, Kind::ForwardBroken, &path, Some(address.offset()), what);
    }

    /// The content behind a header, home or target.
    fn content(&mut self, home: &Slot, slot: &Slot, window: &mut Window) {
        let begin = slot.address.offset() + slot.payload_at();
        let mut crc = Crc::new();
        let mut done = 0;
        while done < slot.length {
            let len = usize::try_from(slot.length - done).unwrap_or(WINDOW).min(WINDOW);
            let bytes = window.get(self, begin + done, len);
            crc.add(bytes);
            let got = bytes.len();
            done += got as u64;
            if got < len {
                break;
            }
        }
        if done == slot.length && crc.value() == slot.payload_crc {
            return;
        }
        let what = if done < slot.length {
            format!("{}: {done} of {} bytes are there", home.object(), slot.length)
        } else {
            format!("{}: the checksum of {} bytes is wrong", home.object(), slot.length)
        };
        let path = names::chunk(slot.address.chunk);
        self.unless_replayed(home, Kind::SlotPayload, &path, Some(slot.address.offset()), what);
    }

    /// A finding about an object, unless the next start writes it again.
    pub fn unless_replayed(
        &mut self,
        home: &Slot,
        kind: Kind,
        path: &str,
        offset: Option<u64>,
        what: String,
    ) {
        let deleted = home.state == State::Deleted;
        if self.behind.covers(home.address.chunk, home.address.unit) {
            self.suppressed += 1;
        } else if deleted && self.label.members.len() > 1 {
            // A concurrent edit that lost may have taken the place of what a delete keeps.
            self.no_undelete += 1;
        } else {
            let state = if deleted { " (deleted)" } else { "" };
            self.found(kind, path, offset, format!("{what}{state}"));
        }
    }
}
