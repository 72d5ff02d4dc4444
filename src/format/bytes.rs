//! Little-endian fields, read and written one after the other. Never panics: too short is a value.

/// The structure ended before the field did, or its bytes are no possible value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the structure ends too early")]
pub struct Short;

/// Reads fields from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Passes over `len` bytes.
    pub fn skip(&mut self, len: usize) -> Result<(), Short> {
        self.take(len).map(|_| ())
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Short> {
        self.array().map(u8::from_le_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_le_bytes)
    }

    /// A short text: one byte of length, then UTF-8.
    pub fn text8(&mut self) -> Result<&'a str, Short> {
        let len = self.u8()?;
        std::str::from_utf8(self.take(usize::from(len))?).map_err(|_| Short)
    }
}

/// Appends fields to a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Length of the whole buffer so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether the buffer is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// What was written so far, the bytes before us included.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.out
    }

    /// Bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// A short text: one byte of length, then UTF-8. What is beyond 255 bytes is cut at a character's border;
    /// the callers' bounds keep that from happening.
    pub fn text8(&mut self, text: &str) -> &mut Self {
        let cut = text.floor_char_boundary(usize::from(u8::MAX));
        let bytes = &text.as_bytes()[..cut];
        self.u8(u8::try_from(bytes.len()).unwrap_or(u8::MAX)).put(bytes)
    }

    /// Zeros until the buffer is `len` bytes long; nothing if it is longer.
    pub fn zeros_to(&mut self, len: usize) -> &mut Self {
        if self.out.len() < len {
            self.out.resize(len, 0);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_little_endian() {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.u8(1).u16(0x0203).u32(0x0405_0607).u64(0x0809_0a0b_0c0d_0e0f).text8("ä").put(b"xy");
        assert_eq!(out[..7], [1, 3, 2, 7, 6, 5, 4]);
        let mut r = Reader::new(&out);
        assert_eq!(r.u8(), Ok(1));
        assert_eq!(r.u16(), Ok(0x0203));
        assert_eq!(r.u32(), Ok(0x0405_0607));
        assert_eq!(r.u64(), Ok(0x0809_0a0b_0c0d_0e0f));
        assert_eq!(r.text8(), Ok("ä"));
        assert_eq!(r.array::<2>(), Ok(*b"xy"));
        assert!(r.is_empty());
        assert_eq!(r.u8(), Err(Short));
    }

    #[test]
    fn a_field_that_does_not_fit_takes_nothing() {
        let mut r = Reader::new(&[5, 1, 2]);
        assert_eq!(r.u32(), Err(Short));
        assert_eq!(r.rest(), [5, 1, 2]);
        assert_eq!(r.text8(), Err(Short));
        assert_eq!(Reader::new(&[1, 0xff]).text8(), Err(Short));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut out = Vec::new();
        Writer::new(&mut out).text8(&"ä".repeat(200));
        assert_eq!(Reader::new(&out).text8(), Ok("ä".repeat(127).as_str()));
    }
}
