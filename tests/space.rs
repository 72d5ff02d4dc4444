//! Modified without end, a mount takes no more space than its content justifies, and it does not creep.
//!
//! `FOLIO_SPACE_OBJECTS` and `FOLIO_SPACE_EDITS` scale it up (10,000 and 1,000,000 in the longer campaign).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests")]

use bytes::Bytes;
use folio::format::crc::crc32c;
use folio::format::ids::Token;
use folio::format::label::Label;
use folio::store::clock::SystemClock;
use folio::store::mount::{Body, Mount, PutRequest, TempSingle};
use folio::store::options::{MountOptions, SyncMode};
use folio::store::os_disk::OsDisk;
use folio::store::single_writer::SingleWriter;
use folio::store::tokens::TokenTable;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

fn from_env(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn blocks(path: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let meta = entry.metadata().unwrap();
        sum += if meta.is_dir() { blocks(&entry.path()) } else { meta.blocks() * 512 };
    }
    sum
}

fn label() -> Label {
    Label::blank("g", "a", 1, 0, [3; 16], [4; 16])
}

#[test]
fn endless_edits_do_not_eat_the_disk() {
    let objects = from_env("FOLIO_SPACE_OBJECTS", 300);
    let edits = from_env("FOLIO_SPACE_EDITS", 6_000);
    let seed = from_env("FOLIO_SEED", 1) as u64;
    println!("FOLIO_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let disk = OsDisk::open(dir.path()).unwrap();
    let options = MountOptions {
        chunkfile_size: if objects > 5_000 { 64 << 20 } else { 4 << 20 },
        single_file_threshold: 192 << 10,
        reserve_free: 0,
        undelete_window_ms: 0,
        segment_len_max: 16 << 20,
        checkpoint_bytes: 8 << 20,
        sync: SyncMode::Os,
        ..MountOptions::default()
    };
    let tokens = Arc::new(TokenTable::default());
    let mut mount =
        Mount::create(disk.clone(), label(), options, Arc::new(SystemClock), tokens).unwrap();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut noise = vec![0; 1 << 20];
    rng.fill_bytes(&mut noise);
    let body = |mount: &Mount<OsDisk>, len: usize, rng: &mut StdRng| {
        let from = rng.random_range(0..noise.len() - len);
        let bytes = Bytes::copy_from_slice(&noise[from..from + len]);
        if len as u64 <= mount.options().single_file_threshold {
            return Body::Inline { crc: crc32c(&bytes), bytes };
        }
        let content = mount.content_ids().next();
        let mut writer = SingleWriter::create(disk.clone(), 0, content).unwrap();
        writer.write(&bytes).unwrap();
        let done = writer.finish().unwrap();
        let (length, crc) = (done.length, done.crc);
        Body::Single(TempSingle { content, length, crc })
    };
    let mut live = Vec::new();
    let mut lengths = Vec::new();
    for lane in 0..objects {
        let base = rng.random_range(4 << 10..=64 << 10);
        let body = body(&mount, base, &mut rng);
        let put = PutRequest { token: Token::default(), body, reserve: None, lane };
        live.push((mount.stage_put(put).unwrap().id, base));
        lengths.push(base as u64);
        mount.commit().unwrap();
    }
    let mut peaks = [0f64; 2];
    for edit in 0..edits {
        let index = rng.random_range(0..objects);
        let (id, base) = live[index];
        let len = rng.random_range(base / 5..=base * 5);
        let content = body(&mount, len, &mut rng);
        if rng.random_range(0..20) == 0 {
            mount.stage_delete(&id, Token::default(), None).unwrap();
            let put =
                PutRequest { token: Token::default(), body: content, reserve: None, lane: edit };
            live[index].0 = mount.stage_put(put).unwrap().id;
        } else {
            mount.stage_modify(&id, Token::default(), content, None).unwrap();
        }
        lengths[index] = len as u64;
        if edit % 8 == 0 {
            mount.commit().unwrap();
            while mount.maintain().unwrap() {}
            if mount.checkpoint_due() {
                mount.checkpoint_step().unwrap();
            }
        }
        if edit % (edits / 20) == edits / 20 - 1 {
            mount.commit().unwrap();
            while mount.maintain().unwrap() {}
            let payload: u64 = lengths.iter().sum();
            let used = blocks(&dir.path().join("chunks")) + blocks(&dir.path().join("singles"));
            let ratio = used as f64 / payload as f64;
            let stats = mount.stats();
            println!(
                "{edit}: payload {payload} used {used} ratio {ratio:.3} holes {} hole bytes {} \
                 waiting {} log {}",
                stats.holes, stats.hole_bytes, stats.waiting_bytes, stats.log_bytes
            );
            assert!(stats.log_bytes <= 6 * (16 << 20), "the log is bounded");
            let half = usize::from(edit >= edits / 2);
            peaks[half] = f64::max(peaks[half], ratio);
        }
    }
    assert!(peaks[1] <= 1.6, "{} bytes on disk per byte of content", peaks[1]);
    assert!(peaks[1] <= peaks[0] * 1.05, "it creeps: {} then {}", peaks[0], peaks[1]);
    mount.finish_checkpoint().unwrap();
    for (index, (id, _)) in live.iter().enumerate() {
        assert_eq!(mount.read_whole(id).unwrap().len() as u64, lengths[index]);
    }
}
