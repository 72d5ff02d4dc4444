//! Sets that take a bounded amount of memory: a bit per unit of a chunkfile, and a sieve for names.

use super::bytes::Position;
use std::hash::{DefaultHasher, Hash, Hasher};

/// One bit per unit of one chunkfile.
#[derive(Clone, Debug)]
pub struct Units(Vec<u64>);

impl Units {
    pub fn new(units: u32) -> Self {
        Self(vec![0; (units as usize).div_ceil(64)])
    }

    pub fn get(&self, unit: u32) -> bool {
        self.0.get(unit as usize / 64).is_some_and(|word| word & (1 << (unit % 64)) != 0)
    }

    /// Sets `count` bits from `from` on; the first that was set before, if any. What lies behind the end is left out.
    pub fn set(&mut self, from: u32, count: u32) -> Option<u32> {
        let mut twice = None;
        for unit in from..from.saturating_add(count) {
            let Some(word) = self.0.get_mut(unit as usize / 64) else { break };
            let bit = 1 << (unit % 64);
            if *word & bit != 0 && twice.is_none() {
                twice = Some(unit);
            }
            *word |= bit;
        }
        twice
    }
}

/// A Bloom filter over content ids: what was put in is always found; of the others a few pass, too.
#[derive(Debug)]
pub struct Sieve(Vec<u64>);

/// Bits of the sieve: 16 MiB. Ten million contents let 1 in 30 others pass.
const BITS: u64 = 1 << 27;
/// Bits per content.
const MARKS: u64 = 4;

impl Sieve {
    pub fn new() -> Self {
        Self(vec![0; usize::try_from(BITS / 64).unwrap_or(0)])
    }

    fn marks(content: Position) -> impl Iterator<Item = (usize, u64)> {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let first = hasher.finish();
        content.sequence.rotate_left(17).hash(&mut hasher);
        let step = hasher.finish() | 1;
        (0..MARKS).map(move |n| {
            let bit = first.wrapping_add(step.wrapping_mul(n)) % BITS;
            (usize::try_from(bit / 64).unwrap_or(0), 1 << (bit % 64))
        })
    }

    pub fn add(&mut self, content: Position) {
        for (word, bit) in Self::marks(content) {
            if let Some(word) = self.0.get_mut(word) {
                *word |= bit;
            }
        }
    }

    pub fn may_have(&self, content: Position) -> bool {
        Self::marks(content).all(|(word, bit)| self.0.get(word).is_some_and(|w| w & bit != 0))
    }
}
