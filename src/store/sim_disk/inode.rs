//! One simulated file: what the page cache holds, what the medium holds, and every un-synced state of every sector in
//! between.
//!
//! Invariants:
//! - Without an entry in `dirty` a sector is the same in the cache and on the medium.
//! - Bytes at and past the length are zero in the cache; a page that is missing is zeros.
//! - Pages are shared between snapshots and copied when written.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a page, the unit in which content is shared; also of a block, the unit in which space is taken.
pub const PAGE: u64 = 4096;
const PAGE_BYTES: usize = 4096;

/// Sparse content.
#[derive(Clone, Debug, Default)]
pub struct Pages(BTreeMap<u64, Arc<[u8; PAGE_BYTES]>>);

impl Pages {
    /// The bytes from `offset` on, at most `len` and never past the end of the page; `None` stands for zeros.
    fn run(&self, offset: u64, len: usize) -> (Option<&[u8]>, usize) {
        let at = (offset % PAGE) as usize;
        let n = len.min(PAGE_BYTES - at);
        (self.0.get(&(offset / PAGE)).map(|page| &page[at..at + n]), n)
    }

    fn read(&self, mut offset: u64, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let (found, n) = self.run(offset, buffer.len());
            let (head, rest) = buffer.split_at_mut(n);
            match found {
                Some(bytes) => head.copy_from_slice(bytes),
                None => head.fill(0),
            }
            buffer = rest;
            offset += n as u64;
        }
    }

    fn holds(&self, mut offset: u64, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let (found, n) = self.run(offset, data.len());
            let same = match found {
                Some(bytes) => bytes == &data[..n],
                None => data[..n].iter().all(|byte| *byte == 0),
            };
            if !same {
                return false;
            }
            data = &data[n..];
            offset += n as u64;
        }
        true
    }

    fn write(&mut self, mut offset: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let at = (offset % PAGE) as usize;
            let n = data.len().min(PAGE_BYTES - at);
            let page = self.0.entry(offset / PAGE).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[at..at + n].copy_from_slice(&data[..n]);
            data = &data[n..];
            offset += n as u64;
        }
    }

    /// Drops everything at and past `len`.
    fn cut(&mut self, len: u64) {
        let at = (len % PAGE) as usize;
        self.0.split_off(&len.div_ceil(PAGE));
        if at != 0
            && let Some(page) = self.0.get_mut(&(len / PAGE))
        {
            Arc::make_mut(page)[at..].fill(0);
        }
    }
}

/// The un-synced states of one sector.
#[derive(Clone, Debug)]
struct Dirty {
    /// Each content it had since it was last durable, oldest first; the last one is what the cache holds.
    generations: Vec<Arc<[u8]>>,
    /// An fsync failed: the sector counts as clean, later syncs pass it by (as Linux does), it may be on the medium or not.
    abandoned: bool,
}

/// The content of a file.
#[derive(Clone, Debug)]
pub struct Inode {
    sector: u64,
    cached: Pages,
    cached_len: u64,
    durable: Pages,
    durable_len: u64,
    dirty: BTreeMap<u64, Dirty>,
    blocks: Blocks,
}

impl Inode {
    pub fn new(sector: u64) -> Self {
        Self {
            sector,
            cached: Pages::default(),
            cached_len: 0,
            durable: Pages::default(),
            durable_len: 0,
            dirty: BTreeMap::new(),
            blocks: Blocks::default(),
        }
    }

    pub const fn len(&self) -> u64 {
        self.cached_len
    }

    pub fn blocks(&self) -> u64 {
        self.blocks.count()
    }

    /// Blocks that writing the range would newly take.
    pub fn blocks_missing(&self, offset: u64, len: u64) -> u64 {
        Blocks::touched(offset, len).filter(|block| !self.blocks.has(*block)).count() as u64
    }

    /// How much of a write fits if only `free` blocks are left.
    pub fn fits(&self, offset: u64, len: u64, mut free: u64) -> u64 {
        for block in Blocks::touched(offset, len) {
            if self.blocks.has(block) {
                continue;
            }
            if free == 0 {
                return (block * PAGE).saturating_sub(offset);
            }
            free -= 1;
        }
        len
    }

    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let left = usize::try_from(self.cached_len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let n = buffer.len().min(left);
        self.cached.read(offset, &mut buffer[..n]);
        n
    }

    /// Writes into the cache.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.blocks.set(Blocks::touched(offset, data.len() as u64));
        self.cached_len = self.cached_len.max(offset + data.len() as u64);
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let n = rest.len().min((self.sector - at % self.sector) as usize);
            self.write_in_sector(at, &rest[..n]);
            at += n as u64;
            rest = &rest[n..];
        }
    }

    fn write_in_sector(&mut self, offset: u64, data: &[u8]) {
        let number = offset / self.sector;
        if self.cached.holds(offset, data) {
            // No new state, but it would be written again: a failed fsync does not stick to it.
            if let Some(dirty) = self.dirty.get_mut(&number) {
                dirty.abandoned = false;
            }
            return;
        }
        self.cached.write(offset, data);
        let mut now = vec![0; self.sector as usize];
        self.cached.read(number * self.sector, &mut now);
        let dirty = self
            .dirty
            .entry(number)
            .or_insert_with(|| Dirty { generations: Vec::new(), abandoned: false });
        dirty.generations.push(now.into());
        dirty.abandoned = false;
    }

    fn zero(&mut self, offset: u64, end: u64) {
        let zeros = vec![0; self.sector as usize];
        let mut at = offset;
        while at < end {
            let n = (self.sector - at % self.sector).min(end - at);
            self.write_in_sector(at, &zeros[..n as usize]);
            at += n;
        }
    }

    pub fn set_len(&mut self, len: u64) {
        self.zero(len, self.cached_len);
        self.blocks.clear(len.div_ceil(PAGE), self.cached_len.div_ceil(PAGE));
        self.cached.cut(len);
        self.cached_len = len;
    }

    /// Makes it at least so long.
    pub fn extend(&mut self, len: u64) {
        self.cached_len = self.cached_len.max(len);
    }

    pub fn allocate(&mut self, offset: u64, len: u64) {
        self.blocks.set(Blocks::touched(offset, len));
        self.cached_len = self.cached_len.max(offset + len);
    }

    pub fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.cached_len);
        self.zero(offset, end);
        self.blocks.clear(offset.div_ceil(PAGE), end / PAGE);
    }

    /// fdatasync that works.
    pub fn sync(&mut self) {
        let mut now = vec![0; self.sector as usize];
        let (cached, durable, sector) = (&self.cached, &mut self.durable, self.sector);
        self.dirty.retain(|number, dirty| {
            if !dirty.abandoned {
                cached.read(number * sector, &mut now);
                durable.write(number * sector, &now);
            }
            dirty.abandoned
        });
        self.durable_len = self.cached_len;
    }

    /// fdatasync that fails: what was dirty counts as clean from now on and is never written again.
    pub fn abandon(&mut self) {
        for dirty in self.dirty.values_mut() {
            dirty.abandoned = true;
        }
    }

    /// Flips a bit wherever the sector is kept. False if it lies past the end.
    pub fn flip(&mut self, offset: u64, bit: u8) -> bool {
        if offset >= self.cached_len {
            return false;
        }
        let mask = 1_u8 << (bit % 8);
        for pages in [&mut self.cached, &mut self.durable] {
            let mut byte = [0];
            pages.read(offset, &mut byte);
            pages.write(offset, &[byte[0] ^ mask]);
        }
        if let Some(dirty) = self.dirty.get_mut(&(offset / self.sector)) {
            for content in &mut dirty.generations {
                let mut bytes = content.to_vec();
                bytes[(offset % self.sector) as usize] ^= mask;
                *content = bytes.into();
            }
        }
        true
    }

    /// How many ways each un-synced thing of this file can turn out: the length, if it changed, then each sector.
    pub fn outcomes(&self) -> impl Iterator<Item = usize> + '_ {
        let len = (self.cached_len != self.durable_len).then_some(2);
        len.into_iter().chain(self.dirty.values().map(|dirty| 1 + dirty.generations.len()))
    }

    /// The file after a power cut, with one pick per outcome: 0 did not land, k = the k-th state did.
    pub fn after_power_cut(&self, picks: &[usize]) -> Self {
        let mut picks = picks.iter().copied();
        let mut len = self.durable_len;
        if self.cached_len != self.durable_len && picks.next().unwrap_or(0) > 0 {
            len = self.cached_len;
        }
        let mut content = self.durable.clone();
        for ((number, dirty), pick) in self.dirty.iter().zip(picks) {
            if let Some(landed) = pick.checked_sub(1).and_then(|k| dirty.generations.get(k)) {
                content.write(number * self.sector, landed);
            }
        }
        content.cut(len);
        let mut blocks = self.blocks.clone();
        blocks.clear(len.div_ceil(PAGE), u64::MAX);
        blocks.set(content.0.keys().copied());
        Self {
            sector: self.sector,
            cached: content.clone(),
            cached_len: len,
            durable: content,
            durable_len: len,
            dirty: BTreeMap::new(),
            blocks,
        }
    }

    /// Whether nothing of it can get lost.
    pub fn is_synced(&self) -> bool {
        self.dirty.is_empty() && self.cached_len == self.durable_len
    }

    /// Feeds everything that can ever be read from it to a hash (snapshots that hash alike behave alike).
    pub fn digest(&self, into: &mut impl std::hash::Hasher) {
        use std::hash::Hash as _;
        self.cached_len.hash(into);
        for (number, page) in &self.cached.0 {
            if page.iter().any(|byte| *byte != 0) {
                number.hash(into);
                page.hash(into);
            }
        }
    }
}

/// Which blocks of a file take space: a bitmap.
#[derive(Clone, Debug, Default)]
struct Blocks(Vec<u64>);

impl Blocks {
    fn touched(offset: u64, len: u64) -> std::ops::Range<u64> {
        if len == 0 { 0..0 } else { offset / PAGE..(offset + len).div_ceil(PAGE) }
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    fn has(&self, block: u64) -> bool {
        self.0.get((block / 64) as usize).is_some_and(|word| word >> (block % 64) & 1 == 1)
    }

    fn set(&mut self, blocks: impl IntoIterator<Item = u64>) {
        for block in blocks {
            let word = (block / 64) as usize;
            if word >= self.0.len() {
                self.0.resize(word + 1, 0);
            }
            self.0[word] |= 1 << (block % 64);
        }
    }

    fn clear(&mut self, from: u64, to: u64) {
        for block in from..to.min(self.0.len() as u64 * 64) {
            self.0[(block / 64) as usize] &= !(1 << (block % 64));
        }
    }
}
