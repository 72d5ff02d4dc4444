//! One member: the real engine on a simulated disk, and what a peer's sender would read from it.

use bytes::Bytes;
use folio::cluster::coverage::Coverage;
use folio::format::chunkfile::{CHUNKFILE_HEADER_LEN, ChunkfileHeader};
use folio::format::crc::crc32c;
use folio::format::file_id::ObjectId;
use folio::format::ids::{Address, ChunkfileId, MachineId, Position, Sequence, Tag, Token};
use folio::format::label::Label;
use folio::format::log::{
    BATCH_HEADER_LEN, BatchHeader, RECORD_HEADER_LEN, RawRecord, Records, SEGMENT_HEADER_LEN,
    SegmentHeader, padding,
};
use folio::format::members::Member;
use folio::format::paths;
use folio::format::record::{ChunkfileCreated, KIND_LOCAL, Record, SlotImage};
use folio::format::slot::{Body as SlotBody, SlotHeader, State};
use folio::fsck::finding::{Kept, Kind};
use folio::fsck::medium::{Medium, Name};
use folio::fsck::{Options, check};
use folio::store::clock::ManualClock;
use folio::store::disk::{Disk, DiskFile, Open};
use folio::store::log_reader::{LogCursor, LogRead};
use folio::store::mount::{Body, Mount, PutRequest, Staged, TempSingle};
use folio::store::options::MountOptions;
use folio::store::read::ReadError;
use folio::store::reader::{Content, Reader};
use folio::store::sim_disk::{Dice, SimDisk, SimOptions};
use folio::store::single_writer::SingleWriter;
use folio::store::slot_copy::SlotCopy;
use folio::store::sync::{LogName, LogSlice, Received};
use folio::store::tokens::TokenTable;
use smallvec::SmallVec;
use std::io;
use std::sync::Arc;

/// Longest content in a slot.
pub const THRESHOLD: usize = 4 << 10;

/// Everything was delivered, and a checkpoint covers it.
pub const AT_THE_END: &str = "at the end";

pub struct Node {
    pub machine: MachineId,
    pub disk: SimDisk,
    pub mount: Mount<SimDisk>,
    pub clock: Arc<ManualClock>,
    pub tokens: Arc<TokenTable>,
    opened: u64,
    retention: u64,
    token: u64,
}

/// The disk, for fsck.
struct Outside<'a>(&'a SimDisk);

impl Medium for Outside<'_> {
    fn list(&self, folder: &str) -> io::Result<Vec<Name>> {
        match self.0.list(folder) {
            Ok(entries) => Ok(entries
                .into_iter()
                .map(|e| Name { name: e.name, is_dir: e.is_dir, len: e.len })
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn len(&self, path: &str) -> io::Result<Option<u64>> {
        self.0.stat(path)
    }

    fn read(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.open(path, Open::Read)?.read_full_at(offset, buffer)
    }
}

fn options(machine: MachineId, opened: u64, retention: u64) -> MountOptions {
    let mut options = MountOptions {
        chunkfile_size: 64 << 10,
        single_file_threshold: THRESHOLD as u64,
        reserve_free: 0,
        undelete_window_ms: 1_000,
        segment_len_min: 16 << 10,
        segment_len_max: 16 << 10,
        checkpoint_bytes: 10 << 10,
        log_retention_bytes: retention,
        ..MountOptions::default()
    };
    options.seed[..2].copy_from_slice(&machine.to_le_bytes());
    options.seed[2..10].copy_from_slice(&opened.to_le_bytes());
    options
}

impl Node {
    pub fn new(machine: MachineId, retention: u64) -> Self {
        Self::of_life(machine, retention, 0)
    }

    /// A machine that has lost its disk so many times.
    pub fn of_life(machine: MachineId, retention: u64, life: u64) -> Self {
        let disk = SimDisk::new(SimOptions::default());
        let clock = Arc::new(ManualClock::default());
        let tokens = Arc::new(TokenTable::default());
        let label =
            Label::blank("g", "a", machine, 0, [u8::try_from(machine).unwrap(); 16], [9; 16]);
        let opened = life << 32;
        let options = options(machine, opened, retention);
        let mount =
            Mount::create(disk.clone(), label, options, clock.clone(), tokens.clone()).unwrap();
        Self { machine, disk, mount, clock, tokens, opened, retention, token: 0 }
    }

    pub fn member(&self) -> Member {
        let label = self.mount.label();
        Member {
            machine: self.machine,
            address: format!("127.0.0.1:{}", 7000 + self.machine),
            mount_uuid: label.mount_uuid,
            instance: label.instance,
            log_ids: vec![label.log_id],
        }
    }

    /// Loses power now.
    pub fn power_cut(&mut self, dice: &mut Dice) {
        self.disk = self.disk.power_cut(dice);
        self.fsck("after a power cut");
        self.reopen();
    }

    /// As by `kill -9`: what was written stays.
    pub fn kill(&mut self) {
        self.disk = self.disk.kill();
        self.fsck("after a kill");
        self.reopen();
    }

    /// Another machine with a copy of this disk.
    pub fn fork(&self, seed: u64) -> Self {
        self.fork_after(seed, |_| {})
    }

    /// The same, after something was done to the disk while nobody looked.
    pub fn fork_after(&self, seed: u64, happens: impl FnOnce(&SimDisk)) -> Self {
        let disk = self.disk.fork();
        happens(&disk);
        let opened = self.opened + (seed << 8) + 1;
        let (clock, tokens) = (Arc::new(ManualClock::default()), Arc::new(TokenTable::default()));
        let options = options(self.machine, opened, self.retention);
        let mount = Mount::open(disk.clone(), options, clock.clone(), tokens.clone()).unwrap();
        let (machine, retention, token) = (self.machine, self.retention, self.token);
        Self { machine, disk, mount, clock, tokens, opened, retention, token }
    }

    /// What a look from outside finds.
    pub fn findings(&self) -> Kept {
        let mut kept = Kept::default();
        let options = Options { together: 100 << 10 };
        check(&Outside(&self.disk), None, options, &mut kept);
        kept
    }

    /// A look from outside finds nothing wrong: replayed or not, the mount is healthy.
    pub fn fsck(&self, when: &str) {
        let mut kept = self.findings();
        // On the way, a version may stand here whose large content no mirror has any more: a later one will come.
        let on_the_way = when != AT_THE_END;
        kept.findings.retain(|found| !(on_the_way && found.kind == Kind::SingleMissing));
        // Known: a large content that lost a conflict around a power cut may stay behind. It takes space, no more.
        kept.findings.retain(|found| found.kind != Kind::SingleUnreferenced);
        let findings: Vec<String> = kept.findings.iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "machine {} {when}: {findings:#?}", self.machine);
    }

    pub fn reopen(&mut self) {
        self.opened += 1;
        self.tokens = Arc::new(TokenTable::default());
        let options = options(self.machine, self.opened, self.retention);
        let (clock, tokens) = (self.clock.clone(), self.tokens.clone());
        self.mount = Mount::open(self.disk.clone(), options, clock, tokens).unwrap();
        if std::env::var("FOLIO_MIRRORS_TRACE").is_ok() {
            eprintln!("REOPEN {} {:?}", self.machine, self.mount.take_warnings());
        }
    }

    fn token(&mut self) -> Token {
        self.token += 1;
        let mut client = [0; 16];
        client[..2].copy_from_slice(&self.machine.to_le_bytes());
        client[2..10].copy_from_slice(&self.opened.to_le_bytes());
        Token { client, sequence: self.token, lowest_unanswered: self.token, issued_ms: 1 }
    }

    fn body(&mut self, bytes: &[u8]) -> Body {
        if bytes.len() <= THRESHOLD {
            return Body::Inline { bytes: Bytes::copy_from_slice(bytes), crc: crc32c(bytes) };
        }
        let content = self.mount.content_ids().next();
        let mut writer = SingleWriter::create(self.disk.clone(), 0, content).unwrap();
        writer.write(bytes).unwrap();
        let done = writer.finish().unwrap();
        Body::Single(TempSingle { content, length: done.length, crc: done.crc })
    }

    pub fn put(&mut self, bytes: &[u8]) -> Staged {
        let request =
            PutRequest { token: self.token(), body: self.body(bytes), reserve: None, lane: 0 };
        let staged = self.mount.stage_put(request).unwrap();
        self.mount.commit().unwrap();
        staged
    }

    pub fn modify(&mut self, id: &ObjectId, bytes: &[u8]) -> Option<Staged> {
        let (token, body) = (self.token(), self.body(bytes));
        let staged = self.mount.stage_modify(id, token, body, None).ok();
        self.mount.commit().unwrap();
        staged
    }

    pub fn delete(&mut self, id: &ObjectId) -> Option<Staged> {
        let token = self.token();
        let staged = self.mount.stage_delete(id, token, None).ok();
        self.mount.commit().unwrap();
        staged
    }

    pub fn undelete(&mut self, id: &ObjectId) -> Option<Staged> {
        let token = self.token();
        let staged = self.mount.stage_undelete(id, token).ok();
        self.mount.commit().unwrap();
        staged
    }

    pub fn head(&self, id: &ObjectId) -> Option<SlotHeader> {
        Reader::new(self.disk.clone(), 0, 16).head(id).ok()
    }

    /// Where the content is.
    pub fn home_body(&self, id: &ObjectId) -> SlotBody {
        self.slot(id.home().address).unwrap().body
    }

    /// For messages.
    pub fn explain(&self, id: &ObjectId) -> String {
        match self.slot(id.home().address).filter(|head| head.is_object(id)) {
            Some(head) => format!(
                "{:?} {:?} {:?} {} units {} bytes",
                head.state, head.version.tag, head.body, head.capacity_units, head.length
            ),
            None => "nothing".to_owned(),
        }
    }

    pub fn tag(&self, id: &ObjectId) -> Option<Tag> {
        self.head(id).map(|head| head.version.tag)
    }

    /// Header and content as a mirror's state exchange would read them.
    pub fn copy(&self, id: &ObjectId) -> Option<SlotCopy> {
        let head = self.slot(id.home().address).filter(|head| head.is_object(id))?;
        let image = |header: &SlotHeader| {
            let secret = self.chunkfile(header.address.chunkfile()).unwrap().secret;
            let header_bytes = SmallVec::from_vec(header.encode(&secret));
            SlotImage { address: header.address, header: header_bytes }
        };
        let home = image(&head);
        let (target, payload) = match head.body {
            SlotBody::Single(_) | SlotBody::None => (None, Some(Vec::new())),
            SlotBody::Inline => (None, self.payload(&head)),
            SlotBody::Slot(address) => {
                let there =
                    self.slot(address).filter(|there| there.payload_crc == head.payload_crc);
                let payload = there.as_ref().and_then(|there| self.payload(there));
                (there.filter(|_| payload.is_some()).as_ref().map(image), payload)
            }
        };
        // A tombstone whose content was overwritten by a concurrent edit.
        assert!(payload.is_some() || head.state == State::Deleted, "{head:?}");
        let payload = payload.unwrap_or_default();
        Some(SlotCopy { home, target, payload: Bytes::from(payload) })
    }

    pub fn slot(&self, address: Address) -> Option<SlotHeader> {
        let created = self.chunkfile(address.chunkfile())?;
        let file = self.disk.open(&paths::chunk(created.id), Open::Read).unwrap();
        let mut head = vec![0; 1024];
        let got = file.read_full_at(address.offset(), &mut head).unwrap();
        SlotHeader::decode(&head[..got], &created.secret).ok()
    }

    fn payload(&self, header: &SlotHeader) -> Option<Vec<u8>> {
        let path = paths::chunk(header.address.chunkfile());
        let file = self.disk.open(&path, Open::Read).unwrap();
        let mut payload = vec![0; usize::try_from(header.length).unwrap()];
        let from = header.address.offset() + header.payload_offset() as u64;
        let got = file.read_full_at(from, &mut payload).unwrap();
        (got == payload.len() && crc32c(&payload) == header.payload_crc).then_some(payload)
    }

    /// The content; `Err` says why not.
    pub fn read(&self, id: &ObjectId) -> Result<Vec<u8>, ReadError> {
        let reader = Reader::new(self.disk.clone(), 0, 16);
        let mut buffer = Vec::new();
        let got = reader.get(id, &mut buffer)?;
        match got.content {
            Content::Buffer(range) => Ok(buffer[range].to_vec()),
            Content::Single(content) => {
                let single = reader.open_single(&got.home, content)?;
                let mut buffer = Vec::new();
                let range = single.read(0..got.home.length, &mut buffer)?;
                Ok(buffer[range].to_vec())
            }
        }
    }

    /// The logs that it holds: its own and the received ones, with how far.
    pub fn logs(&self) -> Vec<(LogName, Sequence)> {
        let own = self.mount.own_log();
        let mut logs = vec![(own, self.mount.durable())];
        for position in self.mount.coverage().iter() {
            let log = LogName::of(position);
            if log != own {
                logs.push((log, position.sequence));
            }
        }
        logs
    }

    /// What follows `after` in a log, at most `batches` of it; `None`: nothing, or this node does not hold it.
    pub fn slice(&self, log: LogName, after: Sequence, batches: usize) -> Option<LogSlice> {
        let own = log == self.mount.own_log();
        let folder = if own { "binlog".to_owned() } else { format!("synclog/{}", log.machine) };
        let mut slice =
            LogSlice { log, from: after, to: after, chunkfiles: Vec::new(), records: Bytes::new() };
        let mut bytes = Vec::new();
        let mut segments: Vec<SegmentHeader> = Vec::new();
        let mut files = Vec::new();
        for entry in self.disk.list(&folder).ok()? {
            let Ok(file) = self.disk.open(&format!("{folder}/{}", entry.name), Open::Read) else {
                continue;
            };
            let mut head = vec![0; SEGMENT_HEADER_LEN];
            let Ok(_) = file.read_full_at(0, &mut head) else { continue };
            if let Ok(header) = SegmentHeader::decode(&head)
                && header.log_id == log.log_id
            {
                segments.push(header.clone());
                files.push((header, file));
            }
        }
        files.sort_by_key(|(header, _)| header.first);
        let up_to = if own { self.mount.durable() } else { log.covered_by(&self.mount.coverage()) };
        let mut left = batches;
        for (header, file) in files {
            let mut at = SEGMENT_HEADER_LEN as u64;
            loop {
                let mut head = vec![0; BATCH_HEADER_LEN];
                file.read_full_at(at, &mut head).unwrap();
                let Ok(batch) = BatchHeader::decode(&head, &header.secret) else { break };
                let mut body = vec![0; batch.body_len as usize];
                file.read_full_at(at + BATCH_HEADER_LEN as u64, &mut body).unwrap();
                at += batch.stride();
                if batch.last <= slice.to || batch.last > up_to || left == 0 {
                    continue;
                }
                if crc32c(&body) != batch.body_crc || batch.predecessor > slice.to {
                    slice.records = Bytes::from(bytes);
                    return (slice.to > after).then_some(slice);
                }
                left -= 1;
                for record in Records::new(&body).map(Result::unwrap) {
                    if record.sequence > slice.to && record.kind < KIND_LOCAL {
                        self.note_chunkfiles(&record, &mut slice.chunkfiles);
                        push(&mut bytes, &record);
                    }
                }
                slice.to = batch.last;
            }
        }
        slice.records = Bytes::from(bytes);
        (slice.to > after).then_some(slice)
    }

    /// What follows `after` in a log, as the product reads it for a mirror.
    pub fn read_on(&self, log: LogName, after: Sequence, up_to: Sequence) -> LogRead {
        let own = log == self.mount.own_log();
        let reader = Reader::new(self.disk.clone(), 0, 16);
        let mut cursor = LogCursor::new(own, log, after);
        reader.read_log(&mut cursor, up_to, 4 << 10).unwrap()
    }

    fn note_chunkfiles(&self, raw: &RawRecord<'_>, all: &mut Vec<ChunkfileCreated>) {
        let Ok(Some(Record::Edit(edit))) = Record::decode(raw.kind, raw.head) else { return };
        for image in [Some(&edit.home), edit.target.as_ref()].into_iter().flatten() {
            let id = image.address.chunkfile();
            if all.iter().all(|known| known.id != id) {
                all.extend(self.chunkfile(id));
            }
        }
    }

    pub fn chunkfile(&self, id: ChunkfileId) -> Option<ChunkfileCreated> {
        let file = self.disk.open(&paths::chunk(id), Open::Read).ok()?;
        let mut head = vec![0; CHUNKFILE_HEADER_LEN];
        file.read_full_at(0, &mut head).ok()?;
        let header = ChunkfileHeader::decode(&head).ok()?;
        Some(ChunkfileCreated {
            id,
            size_units: header.size_units,
            created_ms: header.created_ms,
            secret: header.secret,
        })
    }

    /// Takes a slice; fetches contents of large objects from whoever has them as they are asked for.
    pub fn receive(&mut self, slice: &LogSlice, sources: &[SimDisk]) -> Received {
        for _ in 0..100 {
            let received = self.mount.receive(std::slice::from_ref(slice)).unwrap().remove(0);
            let Received::NeedsContent { content, .. } = received else { return received };
            if !self.fetch(content, sources) {
                self.mount.content_is_gone(content);
            }
        }
        panic!("contents without end");
    }

    pub fn fetch(&self, content: Position, sources: &[SimDisk]) -> bool {
        let paths =
            [paths::single(content), paths::single_tmp(content), paths::conflict_single(content)];
        let found = sources
            .iter()
            .find_map(|disk| paths.iter().find_map(|path| disk.open(path, Open::Read).ok()));
        let Some(from) = found else { return false };
        let mut bytes = vec![0; usize::try_from(from.len().unwrap()).unwrap()];
        from.read_full_at(0, &mut bytes).unwrap();
        self.disk.create_dir_all(paths::SINGLES_TMP).unwrap();
        let tmp = paths::single_tmp(content);
        if self.disk.stat(&tmp).unwrap().is_some() {
            self.disk.unlink(&tmp).unwrap();
        }
        let file = self.disk.open(&tmp, Open::Create).unwrap();
        file.write_all_at(0, &bytes).unwrap();
        file.sync_data().unwrap();
        self.disk.sync_dir(paths::SINGLES_TMP).unwrap();
        true
    }

    pub fn covers(&self) -> Coverage {
        self.mount.coverage()
    }
}

fn push(out: &mut Vec<u8>, raw: &RawRecord<'_>) {
    let payload_len = u32::try_from(raw.payload.len()).unwrap();
    let header = folio::format::log::record_header(
        raw.kind,
        raw.sequence,
        raw.head,
        payload_len,
        raw.payload_crc,
    );
    out.extend_from_slice(&header);
    out.extend_from_slice(raw.head);
    out.extend_from_slice(raw.payload);
    let len = RECORD_HEADER_LEN + raw.head.len() + raw.payload.len();
    out.resize(out.len() + padding(len), 0);
}
