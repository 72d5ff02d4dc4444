//! A mount with everything on it, and its mirror, made by the engine.

use bytes::Bytes;
use folio::format::conflict::Conflict;
use folio::format::crc::crc32c;
use folio::format::file_id::ObjectId;
use folio::format::ids::{ChunkfileId, Position, Tag, Token};
use folio::format::label::Label;
use folio::format::members::Member;
use folio::format::memory::Memory;
use folio::format::paths::{self, MountFile};
use folio::store::clock::SystemClock;
use folio::store::label_file::read_label;
use folio::store::log_reader::{LogCursor, LogRead};
use folio::store::mount::{Body, Mount, PutRequest, TempSingle};
use folio::store::options::MountOptions;
use folio::store::os_disk::OsDisk;
use folio::store::reader::Reader;
use folio::store::single_writer::SingleWriter;
use folio::store::tokens::TokenTable;
use std::cell::Cell;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Longest content in a slot.
const THRESHOLD: u64 = 64 << 10;

/// What was stored, by what happened to it.
pub struct Template {
    dir: TempDir,
    copies: Cell<usize>,
    /// Whole, never touched again.
    pub plain: ObjectId,
    /// A long one, followed by others.
    pub long: ObjectId,
    /// Grew and moved.
    pub moved: ObjectId,
    /// Deleted, not purged.
    pub deleted: ObjectId,
    /// The content of a large one.
    pub large_content: Position,
}

fn label(machine: u16) -> Label {
    let member = |machine: u16| Member {
        machine,
        address: format!("127.0.0.1:{machine}"),
        mount_uuid: [machine as u8; 16],
        instance: [machine as u8 + 10; 16],
        log_ids: Vec::new(),
    };
    Label {
        group: "g".into(),
        syncgroup: "a".into(),
        machine,
        mount: 0,
        mount_uuid: [machine as u8; 16],
        instance: [machine as u8 + 10; 16],
        log_id: 0,
        start_count: 0,
        was_mountpoint: false,
        created_ms: 0,
        generation: 0,
        members: vec![member(1), member(2)],
    }
}

fn options(seed: u8) -> MountOptions {
    MountOptions {
        chunkfile_size: 512 << 10,
        single_file_threshold: THRESHOLD,
        reserve_free: 0,
        segment_len_min: 256 << 10,
        segment_len_max: 256 << 10,
        checkpoint_bytes: 1 << 20,
        seed: [seed; 32],
        ..MountOptions::default()
    }
}

fn open(path: &Path, machine: u16) -> Mount<OsDisk> {
    let disk = OsDisk::open(path).unwrap();
    let (clock, tokens) = (Arc::new(SystemClock), Arc::new(TokenTable::default()));
    if path.join(paths::LABEL).exists() {
        return Mount::open(disk, options(machine as u8 + 40), clock, tokens).unwrap();
    }
    Mount::create(disk, label(machine), options(machine as u8), clock, tokens).unwrap()
}

fn content(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes = (0..len).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_le_bytes()[6]
    });
    bytes.collect()
}

fn body(mount: &Mount<OsDisk>, disk: &OsDisk, bytes: Bytes) -> Body {
    if bytes.len() as u64 <= THRESHOLD {
        return Body::Inline { crc: crc32c(&bytes), bytes };
    }
    let content = mount.content_ids().next();
    let mut writer = SingleWriter::create(disk.clone(), 0, content).unwrap();
    writer.write(&bytes).unwrap();
    let done = writer.finish().unwrap();
    Body::Single(TempSingle { content, length: done.length, crc: done.crc })
}

fn put(mount: &mut Mount<OsDisk>, path: &Path, bytes: Bytes, lane: usize) -> ObjectId {
    let disk = OsDisk::open(path).unwrap();
    let body = body(mount, &disk, bytes);
    let request = PutRequest { token: Token::default(), body, reserve: None, lane };
    let id = mount.stage_put(request).unwrap().id;
    mount.commit().unwrap();
    id
}

fn modify(mount: &mut Mount<OsDisk>, path: &Path, id: &ObjectId, bytes: Bytes) {
    let disk = OsDisk::open(path).unwrap();
    let body = body(mount, &disk, bytes);
    mount.stage_modify(id, Token::default(), body, None).unwrap();
    mount.commit().unwrap();
}

/// A losing version, as the engine keeps it.
fn archive(mount: &Path, object: ObjectId, n: u64, bytes: &[u8]) {
    let tag = Tag { life: 0, term: 0, n, machine: 2, log_id: 77, sequence: n };
    let lost = Conflict {
        object,
        tag,
        modified_ms: 1,
        length: bytes.len() as u64,
        payload_crc: crc32c(bytes),
        single: None,
    };
    std::fs::create_dir_all(mount.join(paths::CONFLICTS)).unwrap();
    let mut file = lost.encode_file();
    file.extend_from_slice(bytes);
    std::fs::write(mount.join(MountFile::Conflict(object, tag.position()).path()), file).unwrap();
}

/// Everything that `from` has logged goes to `to`.
fn mirror(from: &Mount<OsDisk>, from_path: &Path, to: &mut Mount<OsDisk>, to_path: &Path) {
    let reader = Reader::new(OsDisk::open(from_path).unwrap(), 0, 16);
    copy(&from_path.join("singles"), &to_path.join("singles"));
    let mut cursor = LogCursor::new(true, from.own_log(), 0);
    loop {
        match reader.read_log(&mut cursor, from.durable(), 32 << 10).unwrap() {
            LogRead::Slice(slice) => {
                let told = to.receive(&[slice]).unwrap();
                assert!(matches!(told[..], [folio::store::sync::Received::Covered(_)]), "{told:?}");
            }
            _ => return,
        }
    }
}

impl Template {
    /// Makes it: 60 objects, edits, moves, deletes, large ones; log segments and chunkfiles are changed on the way.
    pub fn make() -> Self {
        let dir = TempDir::new().unwrap();
        let (one, two, new) =
            (dir.path().join("one"), dir.path().join("two"), dir.path().join("new"));
        for path in [&one, &two, &new] {
            std::fs::create_dir(path).unwrap();
        }
        open(&new, 1).finish_checkpoint().unwrap();
        let mut mount = open(&one, 1);
        let plain = put(&mut mount, &one, content(1, 3_000), 0);
        let long = put(&mut mount, &one, content(2, 40_000), 0);
        let moved = put(&mut mount, &one, content(3, 500), 0);
        let deleted = put(&mut mount, &one, content(4, 2_000), 0);
        let large = put(&mut mount, &one, content(5, 200_000), 0);
        let mut others = Vec::new();
        for n in 0..60 {
            let len = usize::try_from(100 + n * 331 % 9_000).unwrap();
            others.push(put(&mut mount, &one, content(100 + n, len), n as usize % 2));
        }
        put(&mut mount, &one, content(6, 70_000), 0);
        modify(&mut mount, &one, &moved, content(7, 20_000));
        for (n, id) in others.iter().enumerate() {
            match n % 6 {
                0 => modify(&mut mount, &one, id, content(n as u64, 12_000)),
                1 => modify(&mut mount, &one, id, content(n as u64, 10)),
                2 => {
                    mount.stage_delete(id, Token::default(), None).unwrap();
                    mount.stage_purge(id).unwrap();
                    mount.commit().unwrap();
                }
                _ => {}
            }
        }
        mount.stage_delete(&deleted, Token::default(), None).unwrap();
        mount.commit().unwrap();
        archive(&one, plain, 3, b"a version that lost");
        archive(&one, moved, 4, &content(9, 5_000));
        while mount.maintain().unwrap() {}
        mount.finish_checkpoint().unwrap();
        let mut other = open(&two, 2);
        let mut members = other.label().members.clone();
        for (member, label) in members.iter_mut().zip([mount.label(), other.label()]) {
            member.log_ids = vec![label.log_id];
        }
        other.set_members(members).unwrap();
        mirror(&mount, &one, &mut other, &two);
        other.finish_checkpoint().unwrap();
        let home = read_home(&one, &large);
        let folio::format::slot::Body::Single(large_content) = home.body else {
            panic!("{home:?}")
        };
        drop((mount, other));
        Self { dir, copies: Cell::new(0), plain, long, moved, deleted, large_content }
    }

    fn copy_of(&self, name: &str) -> PathBuf {
        let number = self.copies.get();
        self.copies.set(number + 1);
        // The copy before is not needed any more.
        if number > 4 {
            let old = self.dir.path().join(format!("copy{}", number - 5));
            if old.exists() {
                std::fs::remove_dir_all(old).unwrap();
            }
        }
        let to = self.dir.path().join(format!("copy{number}"));
        copy(&self.dir.path().join(name), &to);
        to
    }

    /// A copy of the owner's mount.
    pub fn owner(&self) -> PathBuf {
        self.copy_of("one")
    }

    /// A copy of the mirror's.
    pub fn mirror(&self) -> PathBuf {
        self.copy_of("two")
    }

    /// A copy of one that was only just made.
    pub fn fresh(&self) -> PathBuf {
        self.copy_of("new")
    }

    /// The owner's mount after more edits and a kill: no checkpoint covers them.
    pub fn killed(&self) -> PathBuf {
        let path = self.owner();
        let mut mount = open(&path, 1);
        for n in 0..30 {
            let id = put(&mut mount, &path, content(n, 5_000), 0);
            if n % 3 == 0 {
                modify(&mut mount, &path, &id, content(n, 9_000));
            }
        }
        modify(&mut mount, &path, &self.plain, content(50, 3_100));
        path
    }

    /// The same, and what was written to the slots since the checkpoint is gone.
    pub fn cut_off(&self) -> PathBuf {
        let path = self.killed();
        let before = self.owner();
        for file in files(&before) {
            if file.starts_with("chunks") {
                std::fs::copy(before.join(&file), path.join(&file)).unwrap();
            }
        }
        path
    }

    /// The memory that fits the owner's mount.
    pub fn memory(&self) -> Vec<u8> {
        self.memory_with(|_| {})
    }

    /// One that remembers another mount at its place.
    pub fn memory_of_another(&self) -> Vec<u8> {
        self.memory_with(|label| label.mount_uuid = [99; 16])
    }

    /// One that knows a log which came after the label's.
    pub fn later_memory(&self) -> Vec<u8> {
        let mut memory = self.remembered(|_| {});
        let mut later = read_label(&OsDisk::open(&self.dir.path().join("one")).unwrap()).unwrap();
        later.log_id ^= 1;
        memory.remember(&later, "/m0");
        memory.encode()
    }

    fn memory_with(&self, change: impl FnOnce(&mut Label)) -> Vec<u8> {
        self.remembered(change).encode()
    }

    fn remembered(&self, change: impl FnOnce(&mut Label)) -> Memory {
        let mut label = read_label(&OsDisk::open(&self.dir.path().join("one")).unwrap()).unwrap();
        change(&mut label);
        let mut memory = Memory::of_instance(&label);
        memory.remember(&label, "/m0");
        memory
    }
}

/// The home header of an object.
pub fn read_home(mount: &Path, id: &ObjectId) -> folio::format::slot::SlotHeader {
    let (file, secret) = chunkfile(mount, id.home().address.chunkfile());
    let mut bytes = vec![0; 8_192];
    let got = file.read_at(&mut bytes, id.home().address.offset()).unwrap();
    folio::format::slot::SlotHeader::decode(&bytes[..got], &secret).unwrap()
}

/// A chunkfile, open for damage, and its secret.
pub fn chunkfile(mount: &Path, id: ChunkfileId) -> (std::fs::File, [u8; 16]) {
    let path = mount.join(paths::chunk(id));
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut head = vec![0; 4_096];
    file.read_exact_at(&mut head, 0).unwrap();
    let header = folio::format::chunkfile::ChunkfileHeader::decode(&head).unwrap();
    (file, header.secret)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// Every file below a mount, relative to it, sorted.
pub fn files(mount: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![mount.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(mount).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort_unstable();
    found
}

/// Names and contents of everything on a mount.
pub fn digest(mount: &Path) -> u32 {
    let mut all = Vec::new();
    for file in files(mount) {
        all.extend(crc32c(&std::fs::read(mount.join(&file)).unwrap()).to_le_bytes());
        all.extend(file.into_bytes());
    }
    crc32c(&all)
}
