//! What must not happen: bytes of another content, of another place or of a cut file that verify.

use super::*;
use proptest::prelude::*;

const CONTENT: Position = Position { machine: 3, log_id: 0x1234_5678, sequence: (2 << 48) | 9 };

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 31 + i / 251) % 256).unwrap()).collect()
}

fn file(content: Position, payload: &[u8], pieces: usize) -> (Vec<u8>, Footer) {
    let mut builder = TrailerBuilder::new(content, 5);
    for piece in payload.chunks(pieces.max(1)) {
        builder.update(piece);
    }
    let (trailer, footer) = builder.finish();
    ([payload, &trailer].concat(), footer)
}

fn read_footer(file: &[u8]) -> Result<Footer, FormatError> {
    Footer::decode(file.last_chunk().unwrap(), file.len() as u64)
}

fn part(file: &[u8], range: Range<u64>) -> &[u8] {
    &file[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
}

#[test]
fn every_length_around_a_block_comes_back() {
    let block = BLOCK_LEN;
    for len in [0, 1, block - 1, block, block + 1, 3 * block, 3 * block + 5] {
        let payload = payload(len);
        let (file, footer) = file(CONTENT, &payload, 1000);
        assert_eq!(file.len() as u64, file_len(len as u64).unwrap());
        assert_eq!(read_footer(&file), Ok(footer));
        assert_eq!((footer.length, footer.payload_crc), (len as u64, crc32c(&payload)));
        let all = footer.blocks(0..u64::MAX);
        assert_eq!(all, 0..block_count(len as u64));
        let (bytes, checks) = (footer.payload_range(all.clone()), footer.table_range(all));
        assert_eq!(part(&file, bytes.clone()), payload);
        assert!(footer.table_is_whole(part(&file, checks.clone())));
        assert_eq!(footer.verify(0, part(&file, bytes), part(&file, checks)), Ok(()));
    }
}

#[test]
fn a_block_of_another_place_or_content_does_not_verify() {
    // All blocks have the same bytes, so only where they belong tells them apart.
    let payload = vec![7; 3 * BLOCK_LEN];
    let (file_a, footer_a) = file(CONTENT, &payload, BLOCK_LEN);
    let other = Position { sequence: CONTENT.sequence + 1, ..CONTENT };
    let (file_b, footer_b) = file(other, &payload, BLOCK_LEN);
    let block = &payload[..BLOCK_LEN];
    let checks = |file: &[u8], n: u64| part(file, footer_a.table_range(n..n + 1)).to_vec();
    assert_eq!(footer_a.verify(1, block, &checks(&file_a, 1)), Ok(()));
    assert_eq!(footer_a.verify(1, block, &checks(&file_a, 0)), Err(1));
    assert_eq!(footer_a.verify(1, block, &checks(&file_b, 1)), Err(1));
    assert_eq!(footer_b.verify(1, block, &checks(&file_a, 1)), Err(1));
    // Lost writes read as zeros.
    assert_eq!(footer_a.verify(1, &vec![0; BLOCK_LEN], &[0; 4]), Err(1));
    // Too little, too much, nothing.
    assert_eq!(footer_a.verify(1, &block[1..], &checks(&file_a, 1)), Err(1));
    assert_eq!(footer_a.verify(1, block, &[]), Err(1));
    assert_eq!(footer_a.verify(2, &payload[..2 * BLOCK_LEN], &[0; 8]), Err(2));
    assert_eq!(footer_a.verify(1, &[], &checks(&file_a, 1)), Err(1));
    assert_eq!(footer_a.verify(u64::MAX, block, &checks(&file_a, 1)), Err(u64::MAX));
}

#[test]
fn a_cut_or_grown_file_and_every_flipped_bit_of_the_footer_are_seen() {
    let (file, _) = file(CONTENT, &payload(100_000), 4096);
    let footer: [u8; FOOTER_LEN] = *file.last_chunk().unwrap();
    let len = file.len() as u64;
    for wrong in [0, len - 1, len + 1, u64::MAX] {
        assert_eq!(Footer::decode(&footer, wrong), Err(FormatError::Damaged("singlefile")));
    }
    for bit in 0..FOOTER_LEN * 8 {
        let mut bad = footer;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Footer::decode(&bad, len).is_err(), "bit {bit}");
    }
}

#[test]
fn a_newer_major_is_refused_and_a_newer_minor_is_read() {
    let (file, expected) = file(CONTENT, &payload(10), 10);
    let with = |major, minor| {
        let mut footer: [u8; FOOTER_LEN] = *file.last_chunk().unwrap();
        (footer[4], footer[5], footer[60]) = (major, minor, 1);
        let crc = crc32c(&footer[..76]);
        footer[76..].copy_from_slice(&crc.to_le_bytes());
        Footer::decode(&footer, file.len() as u64)
    };
    assert!(matches!(with(2, 0), Err(FormatError::Newer { major: 2, .. })));
    assert_eq!(with(1, 1), Ok(expected));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_sub_range_is_covered_by_its_blocks_and_every_flip_in_it_is_found(
        len in 0usize..300_000, start in 0u64..300_000, count in 0u64..200_000,
        flip in any::<prop::sample::Index>(), pieces in 1usize..100_000,
    ) {
        let payload = payload(len);
        let (mut file, footer) = file(CONTENT, &payload, pieces);
        prop_assert_eq!(footer.payload_crc, crc32c(&payload));
        let blocks = footer.blocks(start..start + count);
        let bytes = footer.payload_range(blocks.clone());
        let checks = footer.table_range(blocks.clone());
        let wanted_end = (start + count).min(len as u64);
        if start < wanted_end {
            prop_assert!(bytes.start <= start && bytes.end >= wanted_end);
        } else {
            prop_assert!(bytes.is_empty());
        }
        let table = part(&file, checks.clone()).to_vec();
        prop_assert_eq!(footer.verify(blocks.start, part(&file, bytes.clone()), &table), Ok(()));
        if !bytes.is_empty() {
            let at = usize::try_from(bytes.start).unwrap() + flip.index(usize::try_from(bytes.end - bytes.start).unwrap());
            file[at] ^= 0x40;
            let found = footer.verify(blocks.start, part(&file, bytes), &table);
            prop_assert_eq!(found, Err((at / BLOCK_LEN) as u64));
        }
    }

    #[test]
    fn footers_from_anywhere_are_no_danger(bytes in proptest::collection::vec(any::<u8>(), FOOTER_LEN), len: u64) {
        let mut footer: [u8; FOOTER_LEN] = bytes.try_into().unwrap();
        footer[..6].copy_from_slice(b"FoSi\x01\x00");
        let crc = crc32c(&footer[..76]);
        footer[76..].copy_from_slice(&crc.to_le_bytes());
        prop_assert!(Footer::decode(&footer, len).is_err());
    }
}
