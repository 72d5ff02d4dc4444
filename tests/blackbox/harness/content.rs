//! Bytes that say of which object and version they are, so that a mixture of two is never taken for either.
//!
//! ```text
//! index u64 | version u64 | length u64 | noise from (index, version) | CRC32C of all before
//! ```

use bytes::Bytes;

/// The shortest content.
pub const CONTENT_MIN: usize = 28;

/// The content of a version of an object, `length` bytes.
pub fn content(index: u64, version: u64, length: usize) -> Bytes {
    assert!(length >= CONTENT_MIN, "{length} is too short to tell");
    let mut bytes = Vec::with_capacity(length + 8);
    for number in [index, version, length as u64] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let mut state = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ version.rotate_left(32);
    while bytes.len() < length - 4 {
        bytes.extend_from_slice(&next(&mut state).to_le_bytes());
    }
    bytes.truncate(length - 4);
    let crc = folio::format::crc::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    Bytes::from(bytes)
}

/// Which (index, version) these bytes are, whole and unchanged.
///
/// # Errors
/// They are no version of anything.
pub fn identify(bytes: &[u8]) -> Result<(u64, u64), String> {
    let number = |at: usize| {
        let raw = bytes.get(at..at + 8).and_then(|raw| raw.try_into().ok());
        raw.map(u64::from_le_bytes).ok_or_else(|| format!("only {} bytes", bytes.len()))
    };
    let (index, version, length) = (number(0)?, number(8)?, number(16)?);
    if length != bytes.len() as u64 || bytes.len() < CONTENT_MIN {
        return Err(format!("{} bytes that say they are {length}", bytes.len()));
    }
    if content(index, version, bytes.len()) != bytes {
        return Err(format!("damaged bytes of object {index} version {version}"));
    }
    Ok((index, version))
}

/// A step of splitmix64: enough for noise and for choices, and the same on each run of a seed.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number below `bound`.
pub fn below(state: &mut u64, bound: u64) -> u64 {
    next(state) % bound
}
