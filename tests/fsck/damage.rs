//! The kinds of damage that are planted.

use crate::template::{Template, chunkfile, files, read_home};
use folio::format::file_id::ObjectId;
use folio::format::ids::{Address, UNIT};
use folio::format::paths;
use folio::format::slot::{Body, HEADER_LEN, SlotHeader};
use folio::fsck::finding::Kind;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// One kind.
pub struct Damage {
    /// What happened.
    pub name: &'static str,
    /// To the mirror's mount instead of the owner's.
    pub on_mirror: bool,
    /// Does it.
    pub plant: fn(&Path, &Template),
    /// What must be found.
    pub finds: Kind,
    /// How many findings it may set off.
    pub at_most: u64,
}

const fn damage(name: &'static str, plant: fn(&Path, &Template), finds: Kind) -> Damage {
    Damage { name, on_mirror: false, plant, finds, at_most: 4 }
}

const fn on_mirror(name: &'static str, plant: fn(&Path, &Template), finds: Kind) -> Damage {
    Damage { name, on_mirror: true, plant, finds, at_most: 4 }
}

/// With so many findings at most.
const fn many(damage: Damage, at_most: u64) -> Damage {
    Damage { at_most, ..damage }
}

/// All of them.
pub fn all() -> Vec<Damage> {
    let mut all = about_the_mount();
    all.extend(about_logs());
    all.extend(about_slots());
    all.extend(about_files());
    all
}

fn about_the_mount() -> Vec<Damage> {
    vec![
        damage("label gone", |m, _| remove(m, "folio.mount"), Kind::LabelMissing),
        damage("bit in the label", |m, _| flip(m, "folio.mount", 30), Kind::LabelDamaged),
        damage(
            "bit in the copy of the label",
            |m, _| flip(m, "folio.mount.copy", 30),
            Kind::LabelCopyDamaged,
        ),
        damage(
            "label of a newer format",
            |m, _| write(m, "folio.mount", 4, &[2]),
            Kind::NewerFormat,
        ),
        damage(
            "a file that is nobody's",
            |m, _| std::fs::write(m.join("chunks/x"), b"x").unwrap(),
            Kind::Stranger,
        ),
        damage("label older than the log", an_older_label, Kind::LabelOlder),
        damage("bit in the checkpoint", |m, _| flip(m, "checkpoint", 200), Kind::CheckpointDamaged),
        damage("checkpoint of another mount", checkpoint_of_another, Kind::CheckpointForeign),
        damage(
            "bit in a chunkfile's header",
            |m, _| flip(m, &first(m, "chunks"), 41),
            Kind::ChunkfileHeader,
        ),
        damage("chunkfile gone", |m, _| remove(m, &first(m, "chunks")), Kind::ChunkfileMissing),
        damage("two chunkfiles changed places", chunkfiles_swapped, Kind::ChunkfileMisplaced),
        damage("chunkfile of another mount", chunkfile_of_another, Kind::ChunkfileForeign),
        damage("bytes behind a chunkfile", bytes_behind, Kind::ChunkfileLong),
    ]
}

fn about_logs() -> Vec<Damage> {
    vec![
        damage(
            "bit in the middle of the log",
            |m, _| flip(m, &first(m, "binlog"), 9_000),
            Kind::LogDamage,
        ),
        damage("last batch of the log damaged", log_tail, Kind::LogTailLost),
        damage("log segment gone", segment_missing, Kind::LogGap),
        damage(
            "bit in a segment's header",
            |m, _| flip(m, &first(m, "binlog"), 33),
            Kind::SegmentHeader,
        ),
        damage("segment under a wrong name", segment_renamed, Kind::SegmentForeign),
        on_mirror(
            "bit in the middle of a synclog",
            |m, _| flip(m, &first(m, "synclog"), 9_000),
            Kind::LogDamage,
        ),
        on_mirror("end of a synclog lost", synclog_tail, Kind::LogTailLost),
    ]
}

fn about_slots() -> Vec<Damage> {
    vec![
        damage(
            "bit in a content",
            |m, t| at_home(m, &t.plain, HEADER_LEN as u64 + 900, None),
            Kind::SlotPayload,
        ),
        damage("bit in a deleted content", deleted_content, Kind::SlotPayload),
        damage("bit in a slot header", |m, t| at_home(m, &t.plain, 160, None), Kind::SlotHeader),
        damage(
            "slot header full of zeros",
            |m, t| at_home(m, &t.plain, 0, Some(&[0; 512])),
            Kind::SpaceLost,
        ),
        damage("a write that came to the wrong place", misdirected, Kind::SlotMisdirected),
        damage("a write that never came", lost_write, Kind::SlotOlder),
        damage("slots over each other", overlap, Kind::SlotOverlap),
        damage("target of a move gone", |m, t| wipe(m, target(m, &t.moved)), Kind::ForwardBroken),
        damage("content of a moved object damaged", moved_content, Kind::SlotPayload),
        damage("chunkfile cut in the middle of a slot", cut_chunkfile, Kind::SlotPayload),
        damage("home forgot its target", orphan, Kind::Orphan),
        damage("a slot in use is called free", hole_over_a_slot, Kind::SlotInFreeSpace),
        on_mirror(
            "bit in a mirror's slot header",
            |m, t| at_home(m, &t.plain, 160, None),
            Kind::SlotHeader,
        ),
        on_mirror(
            "bit in the magic of a slot",
            |m, t| at_home(m, &t.plain, 2, None),
            Kind::SlotHeader,
        ),
        on_mirror(
            "slot header of a mirror full of zeros",
            |m, t| at_home(m, &t.plain, 0, Some(&[0; 512])),
            Kind::SlotGone,
        ),
        on_mirror(
            "bit in a mirror's content",
            |m, t| at_home(m, &t.long, 30_000, None),
            Kind::SlotPayload,
        ),
    ]
}

fn about_files() -> Vec<Damage> {
    vec![
        damage("bit in a large content", |m, t| flip(m, &single(t), 100_000), Kind::SingleDamaged),
        damage(
            "bit in the checks of a large content",
            |m, t| flip(m, &single(t), 200_003),
            Kind::SingleDamaged,
        ),
        damage("large content gone", |m, t| remove(m, &single(t)), Kind::SingleMissing),
        damage("large content cut", |m, t| cut(m, &single(t), 150_000), Kind::SingleLength),
        many(damage("two large contents changed places", singles_swapped, Kind::SingleWrong), 2),
        damage("a large content that nobody names", unnamed_single, Kind::SingleUnreferenced),
        damage(
            "bit in an archived conflict",
            |m, _| flip(m, &first(m, "conflicts"), 150),
            Kind::ConflictDamaged,
        ),
        damage(
            "bit in the head of an archived conflict",
            |m, _| flip(m, &first(m, "conflicts"), 60),
            Kind::ConflictDamaged,
        ),
        damage("archived conflicts changed places", conflicts_swapped, Kind::ConflictMisnamed),
    ]
}

fn open(mount: &Path, path: &str) -> std::fs::File {
    OpenOptions::new().read(true).write(true).open(mount.join(path)).unwrap()
}

fn write(mount: &Path, path: &str, offset: u64, bytes: &[u8]) {
    open(mount, path).write_all_at(bytes, offset).unwrap();
}

fn flip(mount: &Path, path: &str, offset: u64) {
    let file = open(mount, path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

fn remove(mount: &Path, path: &str) {
    std::fs::remove_file(mount.join(path)).unwrap();
}

fn cut(mount: &Path, path: &str, len: u64) {
    open(mount, path).set_len(len).unwrap();
}

fn nth(mount: &Path, folder: &str, n: usize) -> String {
    let mut found = files(mount)
        .into_iter()
        .filter(|file| file.starts_with(folder) && !file.ends_with("spare"));
    found.nth(n).unwrap_or_else(|| panic!("there are not so many files in {folder}"))
}

fn first(mount: &Path, folder: &str) -> String {
    nth(mount, folder, 0)
}

fn single(template: &Template) -> String {
    paths::single(template.large_content)
}

/// At an offset behind an object's home: a flipped bit, or other bytes.
fn at_home(mount: &Path, id: &ObjectId, offset: u64, bytes: Option<&[u8]>) {
    let address = id.home().address;
    let (path, at) = (paths::chunk(address.chunkfile()), address.offset() + offset);
    match bytes {
        Some(bytes) => write(mount, &path, at, bytes),
        None => flip(mount, &path, at),
    }
}

fn swap(mount: &Path, one: &str, other: &str) {
    let spare = mount.join("swap");
    std::fs::rename(mount.join(one), &spare).unwrap();
    std::fs::rename(mount.join(other), mount.join(one)).unwrap();
    std::fs::rename(spare, mount.join(other)).unwrap();
}

fn an_older_label(mount: &Path, _: &Template) {
    use folio::format::label::Label;
    let bytes = std::fs::read(mount.join("folio.mount")).unwrap();
    let label = Label::decode(&bytes).unwrap();
    std::fs::write(mount.join("folio.mount"), Label { start_count: 0, ..label }.encode()).unwrap();
}

fn checkpoint_of_another(mount: &Path, _: &Template) {
    use folio::format::checkpoint::Checkpoint;
    let bytes = std::fs::read(mount.join("checkpoint")).unwrap();
    let other = Checkpoint { mount_uuid: [88; 16], ..Checkpoint::decode(&bytes).unwrap() };
    std::fs::write(mount.join("checkpoint"), other.encode()).unwrap();
}

fn chunkfiles_swapped(mount: &Path, _: &Template) {
    swap(mount, &nth(mount, "chunks", 0), &nth(mount, "chunks", 1));
}

fn chunkfile_of_another(mount: &Path, template: &Template) {
    let path = first(mount, "chunks");
    let header = folio::format::chunkfile::ChunkfileHeader::decode(
        &std::fs::read(mount.join(&path)).unwrap(),
    )
    .unwrap();
    let other = folio::format::chunkfile::ChunkfileHeader { mount_uuid: [88; 16], ..header };
    assert!(template.plain.chunk == 0);
    write(mount, &path, 0, &other.encode());
}

fn bytes_behind(mount: &Path, _: &Template) {
    write(mount, &first(mount, "chunks"), 512 << 10, b"behind");
}

/// The last bytes of the log that are not zero.
fn end_of(mount: &Path, path: &str) -> u64 {
    let bytes = std::fs::read(mount.join(path)).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64
}

fn log_tail(mount: &Path, _: &Template) {
    let last =
        files(mount).into_iter().rfind(|f| f.starts_with("binlog") && f.ends_with(".log")).unwrap();
    flip(mount, &last, end_of(mount, &last));
}

fn synclog_tail(mount: &Path, _: &Template) {
    let last = files(mount).into_iter().rfind(|f| f.starts_with("synclog")).unwrap();
    flip(mount, &last, end_of(mount, &last));
}

/// The second segment says that it follows another one than the first.
fn segment_missing(mount: &Path, _: &Template) {
    use folio::format::log::SegmentHeader;
    let path = nth(mount, "binlog", 1);
    let mut head = vec![0; 4_096];
    open(mount, &path).read_exact_at(&mut head, 0).unwrap();
    let mut header = SegmentHeader::decode(&head).unwrap();
    header.predecessor -= 3;
    write(mount, &path, 0, &header.encode());
}

/// Its mount is the only one that has the object.
fn alone(mount: &Path) {
    use folio::format::label::Label;
    let bytes = std::fs::read(mount.join("folio.mount")).unwrap();
    let label = Label::decode(&bytes).unwrap();
    std::fs::write(mount.join("folio.mount"), Label { members: Vec::new(), ..label }.encode())
        .unwrap();
}

fn deleted_content(mount: &Path, template: &Template) {
    alone(mount);
    at_home(mount, &template.deleted, HEADER_LEN as u64 + 9, None);
}

fn segment_renamed(mount: &Path, _: &Template) {
    let path = first(mount, "binlog");
    let (head, _) = path.rsplit_once('-').unwrap();
    std::fs::rename(mount.join(&path), mount.join(format!("{head}-0000000000000000.log"))).unwrap();
}

/// A header of the same chunkfile into free space.
fn misdirected(mount: &Path, template: &Template) {
    let (file, secret) = chunkfile(mount, template.plain.home().address.chunkfile());
    let bytes = read_home(mount, &template.plain).encode(&secret);
    let unit = (64..8_000).find(|unit| is_free(mount, template, *unit)).expect("there is a hole");
    file.write_all_at(&bytes, u64::from(unit) * UNIT).unwrap();
}

fn is_free(mount: &Path, template: &Template, unit: u32) -> bool {
    use folio::format::checkpoint::Checkpoint;
    let checkpoint = Checkpoint::decode(&std::fs::read(mount.join("checkpoint")).unwrap()).unwrap();
    let chunk = template.plain.chunk;
    let waits = checkpoint
        .freed
        .iter()
        .map(|f| (f.place.address.chunk, f.place.address.offset_units, f.place.capacity_units));
    let mut free = checkpoint.holes.iter().copied().chain(waits);
    free.any(|(number, at, units)| number == chunk && at <= unit && unit + 3 <= at + units)
}

/// The version before the last one is back in its slot.
fn lost_write(mount: &Path, template: &Template) {
    let (file, secret) = chunkfile(mount, template.deleted.home().address.chunkfile());
    let mut header = read_home(mount, &template.deleted);
    header.state = folio::format::slot::State::Live;
    header.version.tag.life -= 1;
    header.version.tag.n -= 1;
    file.write_all_at(&header.encode(&secret), header.address.offset()).unwrap();
}

/// A home that claims the begin of its neighbour.
fn overlap(mount: &Path, template: &Template) {
    let (file, secret) = chunkfile(mount, template.moved.home().address.chunkfile());
    let at = target(mount, &template.moved);
    assert_eq!(at.chunkfile(), template.moved.home().address.chunkfile());
    let mut bytes = vec![0; 8_192];
    file.read_exact_at(&mut bytes, at.offset()).unwrap();
    let mut header = SlotHeader::decode(&bytes, &secret).unwrap();
    header.capacity_units += 40;
    file.write_all_at(&header.encode(&secret), at.offset()).unwrap();
}

fn target(mount: &Path, id: &ObjectId) -> Address {
    match read_home(mount, id).body {
        Body::Slot(address) => address,
        other => panic!("it did not move: {other:?}"),
    }
}

fn wipe(mount: &Path, at: Address) {
    write(mount, &paths::chunk(at.chunkfile()), at.offset(), &[0; HEADER_LEN]);
}

fn moved_content(mount: &Path, template: &Template) {
    let at = target(mount, &template.moved);
    flip(mount, &paths::chunk(at.chunkfile()), at.offset() + 5_000);
}

fn cut_chunkfile(mount: &Path, template: &Template) {
    let address = template.long.home().address;
    let header = read_home(mount, &template.long);
    assert_eq!(header.body, Body::Inline);
    // What is cut off with it is found, too; it is not what this test counts.
    let path = paths::chunk(address.chunkfile());
    let whole = std::fs::read(mount.join(&path)).unwrap();
    let end = usize::try_from(address.offset()).unwrap() + 20_000;
    assert!(whole.len() > end);
    let zeros = vec![0; 25_000];
    write(mount, &path, end as u64, &zeros);
}

fn orphan(mount: &Path, template: &Template) {
    let (file, secret) = chunkfile(mount, template.moved.home().address.chunkfile());
    let mut header = read_home(mount, &template.moved);
    header.state = folio::format::slot::State::Purged;
    header.body = Body::None;
    file.write_all_at(&header.encode(&secret), header.address.offset()).unwrap();
}

fn hole_over_a_slot(mount: &Path, template: &Template) {
    use folio::format::checkpoint::Checkpoint;
    let bytes = std::fs::read(mount.join("checkpoint")).unwrap();
    let mut checkpoint = Checkpoint::decode(&bytes).unwrap();
    let home = template.plain.home();
    checkpoint.holes.push((home.address.chunk, home.address.offset_units, 4));
    std::fs::write(mount.join("checkpoint"), checkpoint.encode()).unwrap();
}

fn singles_swapped(mount: &Path, _: &Template) {
    let all: Vec<String> = files(mount).into_iter().filter(|f| f.ends_with(".single")).collect();
    swap(mount, &all[0], &all[1]);
}

fn unnamed_single(mount: &Path, template: &Template) {
    let mut content = template.large_content;
    content.sequence += 1_000;
    let to = mount.join(paths::single(content));
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(mount.join(single(template)), to).unwrap();
}

fn conflicts_swapped(mount: &Path, _: &Template) {
    swap(mount, &nth(mount, "conflicts", 0), &nth(mount, "conflicts", 1));
}

/// Flips single bits at random places of what is in use, each in a copy of its own.
pub fn flips(template: &Template, seed: u64, mut judge: impl FnMut(&Path, &str)) {
    let mut dice = seed;
    let mut below = |bound: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % bound
    };
    for round in 0..120 {
        let mount = if round % 2 == 0 { template.owner() } else { template.mirror() };
        let (path, from, len) = match below(4) {
            0 => (
                single(template),
                0,
                std::fs::metadata(mount.join(single(template))).unwrap().len(),
            ),
            1 => in_slot(&template.long, &mount),
            2 => {
                alone(&mount);
                in_slot(&template.deleted, &mount)
            }
            _ => in_slot(&template.plain, &mount),
        };
        let (offset, bit) = (from + below(len), below(8));
        let file = open(&mount, &path);
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << bit)], offset).unwrap();
        judge(&mount, &format!("round {round}: bit {bit} of byte {offset} of {path}"));
    }
}

/// The bytes of a slot that mean something.
fn in_slot(id: &ObjectId, mount: &Path) -> (String, u64, u64) {
    let header = read_home(mount, id);
    let address = header.address;
    (
        paths::chunk(address.chunkfile()),
        address.offset(),
        header.payload_offset() as u64 + header.length,
    )
}
