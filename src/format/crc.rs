//! The two checks of every structure: CRC32C against damage (P2), SipHash against imitation.
//!
//! A checksum says that bytes are as they were written. It does not say that *we* wrote them: the payload of an
//! object may itself look like a slot header or a log batch, complete with a right CRC. Whatever is found by
//! scanning is therefore also sealed with [`mac64`] under a secret that no client ever sees.

use siphasher::sip::SipHasher24;
use siphasher::sip128::{self, Hasher128};
use std::hash::Hasher;

const ALGORITHM: crc_fast::CrcAlgorithm = crc_fast::CrcAlgorithm::Crc32Iscsi;

/// CRC32C (CRC-32/ISCSI) of `bytes`. Of nothing: 0.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC32C of `parts` as if they stood one after the other.
#[must_use]
pub fn crc32c_parts(parts: &[&[u8]]) -> u32 {
    match parts {
        [] => 0,
        [one] => crc32c(one),
        many => {
            let mut crc = Crc32c::new();
            for part in many {
                crc.update(part);
            }
            crc.value()
        }
    }
}

/// CRC32C of `first` followed by `second`, from their checksums and the length of the second, in bytes.
#[must_use]
pub fn crc32c_combine(first: u32, second: u32, second_len: u64) -> u32 {
    truncate(crc_fast::checksum_combine(ALGORITHM, first.into(), second.into(), second_len))
}

/// A CRC32C that grows with a stream.
#[derive(Clone, Debug)]
pub struct Crc32c(crc_fast::Digest);

impl Crc32c {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(crc_fast::Digest::new(ALGORITHM))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far; more may follow.
    #[must_use]
    pub fn value(&self) -> u32 {
        truncate(self.0.finalize())
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

/// The library widens every checksum to 64 bits; ours has 32.
#[allow(clippy::cast_possible_truncation)]
const fn truncate(wide: u64) -> u32 {
    wide as u32
}

/// SipHash-2-4 of `parts` as if they stood one after the other, under a secret `key`.
#[must_use]
pub fn mac64(key: &[u8; 16], parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(key);
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}

/// 128 bits that tell whether two machines have the same bytes (no secret: both must come to the same).
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint(sip128::SipHasher24);

impl Fingerprint {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(sip128::SipHasher24::new_with_key(b"Folio digest 1.0"))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The fingerprint of all bytes so far; more may follow.
    #[must_use]
    pub fn value(&self) -> [u8; 16] {
        let hash = self.0.finish128();
        let mut out = [0; 16];
        out[..8].copy_from_slice(&hash.h1.to_le_bytes());
        out[8..].copy_from_slice(&hash.h2.to_le_bytes());
        out
    }
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn checksum_is_the_published_one() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn mac_is_the_published_one() {
        // The reference vector of the SipHash paper: key 00..0f, input 00..0e.
        let key: [u8; 16] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let input: Vec<u8> = (0..15).collect();
        assert_eq!(mac64(&key, &[&input]), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn a_fingerprint_depends_on_every_byte_and_not_on_the_cuts() {
        let value = |parts: &[&[u8]]| {
            let mut fingerprint = Fingerprint::new();
            parts.iter().for_each(|part| fingerprint.update(part));
            fingerprint.value()
        };
        // Machines of all versions must come to the same.
        assert_eq!(u128::from_le_bytes(value(&[b"folio"])), FOLIO, "{:#x?}", value(&[b"folio"]));
        assert_eq!(value(&[b"fo", b"", b"lio"]), value(&[b"folio"]));
        assert_ne!(value(&[b"folii"]), value(&[b"folio"]));
        assert_ne!(value(&[b"folio\0"]), value(&[b"folio"]));
    }

    /// What was computed first.
    const FOLIO: u128 = 0x376a_d876_6bff_dad2_a446_219c_5872_edca;

    proptest! {
        #[test]
        fn where_the_parts_are_cut_does_not_matter(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            cuts in proptest::collection::vec(0usize..3000, 0..5),
            key in any::<[u8; 16]>(),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut parts: Vec<&[u8]> = Vec::new();
            let mut from = 0;
            for cut in cuts {
                parts.push(&bytes[from..cut]);
                from = cut;
            }
            let (head, tail) = bytes.split_at(from);
            parts.push(tail);
            prop_assert_eq!(crc32c_parts(&parts), crc32c(&bytes));
            prop_assert_eq!(crc32c_combine(crc32c(head), crc32c(tail), tail.len() as u64), crc32c(&bytes));
            prop_assert_eq!(mac64(&key, &parts), mac64(&key, &[&bytes]));
        }
    }
}
