//! The engine against a map in memory: whatever is put, modified, moved, deleted, brought back, purged, checkpointed
//! or restarted, every id answers with its last content and nothing else does.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use bytes::Bytes;
use folio::format::crc::crc32c;
use folio::format::file_id::ObjectId;
use folio::format::ids::Token;
use folio::format::label::Label;
use folio::format::paths;
use folio::format::single::TrailerBuilder;
use folio::format::slot::HEADER_LEN;
use folio::store::clock::{Clock, ManualClock};
use folio::store::disk::{Disk, DiskFile, Open};
use folio::store::error::StoreError;
use folio::store::mount::{Body, Mount, PutRequest, TempSingle};
use folio::store::options::MountOptions;
use folio::store::sim_disk::SimDisk;
use folio::store::tokens::TokenTable;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::collections::HashMap;
use std::sync::Arc;

fn options(window_ms: u64) -> MountOptions {
    MountOptions {
        chunkfile_size: 1 << 20,
        single_file_threshold: 64 << 10,
        reserve_free: 0,
        undelete_window_ms: window_ms,
        segment_len_max: 1 << 20,
        segment_len_min: 256 << 10,
        checkpoint_bytes: 300 << 10,
        batch_bytes_max: 128 << 10,
        ..MountOptions::default()
    }
}

fn label() -> Label {
    Label::blank("g", "a", 1, 0, [3; 16], [4; 16])
}

struct World {
    disk: SimDisk,
    mount: Option<Mount<SimDisk>>,
    clock: Arc<ManualClock>,
    live: HashMap<ObjectId, Vec<u8>>,
    deleted: HashMap<ObjectId, Vec<u8>>,
    gone: Vec<ObjectId>,
    rng: StdRng,
    window_ms: u64,
    tokens: u64,
}

impl World {
    fn mount(&mut self) -> &mut Mount<SimDisk> {
        self.mount.as_mut().unwrap()
    }

    fn content(&mut self) -> Vec<u8> {
        let len = match self.rng.random_range(0..10) {
            0 => 0,
            1 => self.rng.random_range(0..64),
            2..8 => self.rng.random_range(0..8 << 10),
            8 => self.rng.random_range(0..64 << 10),
            _ => self.rng.random_range(60 << 10..200 << 10),
        };
        let mut bytes = vec![0; len];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    fn body(&mut self, bytes: &[u8]) -> Body {
        let crc = crc32c(bytes);
        if bytes.len() as u64 <= self.mount().options().single_file_threshold {
            return Body::Inline { bytes: Bytes::copy_from_slice(bytes), crc };
        }
        let content = self.mount().content_ids().next();
        let path = paths::single_tmp(content);
        let file = self.disk.open(&path, Open::Create).unwrap();
        let mut trailer = TrailerBuilder::new(content, 0);
        trailer.update(bytes);
        let (trailer, _) = trailer.finish();
        file.write_all_at(0, bytes).unwrap();
        file.write_all_at(bytes.len() as u64, &trailer).unwrap();
        file.sync_data().unwrap();
        self.disk.sync_dir(paths::SINGLES_TMP).unwrap();
        Body::Single(TempSingle { content, length: bytes.len() as u64, crc })
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        let issued_ms = self.clock.now_ms();
        let sequence = self.tokens;
        Token { client: [1; 16], sequence, lowest_unanswered: sequence, issued_ms }
    }

    fn some(&mut self, which: fn(&Self) -> &HashMap<ObjectId, Vec<u8>>) -> Option<ObjectId> {
        let mut ids: Vec<ObjectId> = which(self).keys().copied().collect();
        ids.sort_unstable();
        (!ids.is_empty()).then(|| ids[self.rng.random_range(0..ids.len())])
    }

    fn read(&mut self, id: &ObjectId) -> Result<Vec<u8>, StoreError> {
        self.mount().read_whole(id)
    }

    fn step(&mut self) {
        let token = self.token();
        match self.rng.random_range(0..100) {
            0..25 => {
                let bytes = self.content();
                let body = self.body(&bytes);
                let lane = self.rng.random_range(0..4);
                let put = PutRequest { token, body, reserve: None, lane };
                let staged = self.mount().stage_put(put).unwrap();
                assert!(self.live.insert(staged.id, bytes).is_none(), "an id was issued twice");
            }
            25..65 => {
                let Some(id) = self.some(|w| &w.live) else { return };
                let bytes = self.content();
                let body = self.body(&bytes);
                self.mount().stage_modify(&id, token, body, None).unwrap();
                self.live.insert(id, bytes);
            }
            65..77 => {
                let Some(id) = self.some(|w| &w.live) else { return };
                self.mount().stage_delete(&id, token, None).unwrap();
                let bytes = self.live.remove(&id).unwrap();
                if self.window_ms == 0 {
                    self.gone.push(id);
                } else {
                    self.deleted.insert(id, bytes);
                }
            }
            77..82 => {
                let Some(id) = self.some(|w| &w.deleted) else { return };
                self.mount().stage_undelete(&id, token).unwrap();
                let bytes = self.deleted.remove(&id).unwrap();
                self.live.insert(id, bytes);
            }
            82..84 => {
                let Some(id) = self.some(|w| &w.deleted) else { return };
                self.mount().stage_purge(&id).unwrap();
                self.deleted.remove(&id);
                self.gone.push(id);
            }
            84..90 => {
                self.mount().commit().unwrap();
            }
            90..96 => {
                self.mount().maintain().unwrap();
                if self.mount().checkpoint_due() {
                    self.mount().checkpoint_step().unwrap();
                }
            }
            96..98 => self.mount().finish_checkpoint().unwrap(),
            _ => self.restart(),
        }
    }

    fn restart(&mut self) {
        self.mount().commit().unwrap();
        drop(self.mount.take());
        if self.rng.random_range(0..4) == 0 {
            self.disk.unlink(paths::CHECKPOINT).ok();
        }
        self.open();
    }

    fn open(&mut self) {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let mut options = options(self.window_ms);
        self.rng.fill_bytes(&mut options.seed);
        let tokens = Arc::new(TokenTable::default());
        self.mount = Some(Mount::open(self.disk.clone(), options, clock, tokens).unwrap());
    }

    fn check(&mut self) {
        self.mount().commit().unwrap();
        let live: Vec<(ObjectId, Vec<u8>)> =
            self.live.iter().map(|(id, bytes)| (*id, bytes.clone())).collect();
        for (id, bytes) in live {
            match self.read(&id) {
                Ok(read) => {
                    assert!(read == bytes, "{id:?}: {} against {}", read.len(), bytes.len())
                }
                Err(error) => panic!("{id:?} of {} bytes: {error}", bytes.len()),
            }
        }
        for id in self.gone.clone() {
            let read = self.read(&id);
            assert!(matches!(read, Err(StoreError::NotFound { .. })), "{id:?}: {read:?}");
            assert!(self.mount().is_gone(&id).unwrap());
        }
        for id in self.deleted.keys().copied().collect::<Vec<_>>() {
            assert!(matches!(self.read(&id), Err(StoreError::NotFound { deleted: true })));
        }
        self.check_lost_headers();
        let counters = self.mount().stats().counters;
        assert_eq!(counters.live_objects, self.live.len() as u64);
        let bytes: usize = self.live.values().map(Vec::len).sum();
        assert_eq!(counters.live_bytes, bytes as u64);
    }
}

impl World {
    /// Takes the home headers of some objects away, each in another manner: damage, and never "not found".
    fn check_lost_headers(&mut self) {
        for manner in 0..6 {
            let (Some(id), Some(other)) = (self.some(|w| &w.live), self.some(|w| &w.live)) else {
                return;
            };
            let file = |id: &ObjectId| {
                let path = paths::chunk(id.home().address.chunkfile());
                self.disk.open(&path, Open::Write).unwrap()
            };
            let (home, at) = (file(&id), id.home().address.offset());
            let mut good = [0; HEADER_LEN];
            home.read_full_at(at, &mut good).unwrap();
            let mut bad = good;
            match manner {
                0 => bad[self.rng.random_range(0..4)] ^= 1 << self.rng.random_range(0..8),
                1 => bad[self.rng.random_range(4..HEADER_LEN)] ^= 1,
                2 => bad.fill(0),
                3 => self.rng.fill_bytes(&mut bad),
                4 => bad[..64].fill(0),
                _ if other == id => continue,
                _ => {
                    file(&other).read_full_at(other.home().address.offset(), &mut bad).unwrap();
                }
            }
            home.write_all_at(at, &bad).unwrap();
            let damaged = |read: Result<_, StoreError>, what: &str| {
                assert!(
                    matches!(read, Err(StoreError::Damaged(_))),
                    "{what} {id:?}, manner {manner}: {read:?}"
                );
            };
            damaged(self.read(&id).map(|_| ()), "read");
            assert!(!self.mount().is_gone(&id).unwrap(), "{id:?}, manner {manner}");
            let token = self.token();
            damaged(self.mount().stage_delete(&id, token, None).map(|_| ()), "delete");
            home.write_all_at(at, &good).unwrap();
        }
    }
}

#[test]
fn no_id_ever_answers_with_anything_but_its_last_content() {
    let base: u64 = std::env::var("FOLIO_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    for seed in base..base + 12 {
        println!("FOLIO_SEED={seed}");
        let disk = SimDisk::default();
        let clock = Arc::new(ManualClock::at(1_000_000));
        let window_ms = if seed % 2 == 0 { 0 } else { 3_600_000 };
        let mount = Mount::create(
            disk.clone(),
            label(),
            options(window_ms),
            clock.clone(),
            Arc::new(TokenTable::default()),
        )
        .unwrap();
        let mut world = World {
            disk,
            mount: Some(mount),
            clock,
            live: HashMap::new(),
            deleted: HashMap::new(),
            gone: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            window_ms,
            tokens: 0,
        };
        for step in 0..3_000 {
            world.clock.set(1_000_000 + step);
            world.step();
            if step % 500 == 499 {
                world.check();
            }
        }
        world.restart();
        world.check();
    }
}
