//! Of slot headers: what comes back, and what must not pass.

use super::*;

pub(crate) fn sample(vector: usize) -> SlotHeader {
    let tag = Tag { life: 0, term: 0, n: 7, machine: 3, log_id: 9, sequence: 77 };
    let mut entries: Vector = (1..vector as u64)
        .map(|i| Position { machine: 1, log_id: i as u32, sequence: i * 10 })
        .collect();
    entries.push(tag.position());
    SlotHeader {
        role: Role::Home,
        state: State::Live,
        body: Body::Inline,
        mount: 4,
        creation: Position { machine: 1, log_id: 2, sequence: 3 },
        cookie: 0xdead_beef,
        address: Address { machine: 1, log_id: 2, chunk: 5, offset_units: 64 },
        version: Version { tag, vector: entries },
        token_client: [7; 16],
        token_sequence: 12,
        kind: ObjectKind::Chunk,
        created_s: 1,
        birth_units: 10,
        modified_ms: 2,
        capacity_units: 10,
        payload_crc: crc32c(b"hello"),
        length: 5,
        stay: Stay::default(),
    }
}

#[test]
fn header_comes_back_with_any_vector() {
    for vector in 1..8 {
        for body in [
            Body::Inline,
            Body::Slot(Address::default()),
            Body::Single(Position { machine: 1, log_id: 2, sequence: 9 }),
        ] {
            let header = SlotHeader { body, ..sample(vector) };
            let mut bytes = header.encode(&[1; 16]);
            assert_eq!(bytes.len(), header.payload_offset());
            bytes.extend_from_slice(b"hello");
            let back = SlotHeader::decode(&bytes, &[1; 16]).unwrap();
            assert_eq!(back, header);
            assert_eq!(back.payload(&bytes), Some(&b"hello"[..]));
        }
    }
}

#[test]
fn a_target_tells_since_when_and_for_whom_it_is_there_and_an_early_one_does_not() {
    let stay = Stay { since: 1 << 48 | 9, home_chunk: 3, home_units: 70 };
    let address = Address { machine: 2, log_id: 8, chunk: 1, offset_units: 90 };
    let target = SlotHeader { role: Role::Target, address, stay, ..sample(2) };
    let back = SlotHeader::decode(&target.encode(&[1; 16]), &[1; 16]).unwrap();
    assert_eq!(back, target);
    assert_eq!(back.held_since(), Some(stay.since));
    let home = Address { machine: 1, log_id: 2, chunk: 3, offset_units: 70 };
    assert_eq!(back.home_address(), Some(home));
    let early = SlotHeader { stay: Stay::default(), ..target };
    let back = SlotHeader::decode(&early.encode(&[1; 16]), &[1; 16]).unwrap();
    assert_eq!((back.held_since(), back.home_address()), (None, None));
    let home = sample(2);
    assert_eq!(home.held_since(), Some(home.creation.sequence));
    assert_eq!(home.home_address(), Some(home.address));
}

#[test]
fn no_single_flipped_bit_passes_and_no_other_secret() {
    let header = sample(5);
    let mut bytes = header.encode(&[1; 16]);
    bytes.extend_from_slice(b"hello");
    assert_eq!(SlotHeader::decode(&bytes, &[2; 16]), Err(NotASlot::Broken));
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let read = SlotHeader::decode(&bytes, &[1; 16]);
        assert!(read.is_err() || read.unwrap().payload(&bytes).is_none(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}
