use super::*;
use crate::format::ids::{ChunkfileId, Position, Tag, Token};
use serde::Serialize;
use std::fmt::Debug;

fn tag() -> Tag {
    Tag { life: 1, term: 0, n: 300, machine: 7, log_id: 0xdead_beef, sequence: (1 << 48) | 5 }
}

fn token() -> Token {
    Token { client: [3; 16], sequence: 9, lowest_unanswered: 8, issued_ms: 1_790_000_000_000 }
}

fn bytes_of<T: Serialize>(head: &T) -> Vec<u8> {
    rmp_serde::to_vec(head).expect("encodes")
}

/// Whole: the same. Cut anywhere: an error. With more fields than we know: the same.
fn check<T: Serialize + for<'a> Deserialize<'a> + PartialEq + Debug>(head: &T) {
    let bytes = bytes_of(head);
    assert_eq!(&decode::<T>(&bytes).expect("whole"), head);
    for cut in 0..bytes.len() {
        assert!(decode::<T>(&bytes[..cut]).is_err(), "{head:?} cut at {cut}");
    }
    let count = bytes[0] & 0x0f;
    assert!(bytes[0] & 0xf0 == 0x90 && count < 15, "a fixarray");
    let mut newer = bytes.clone();
    newer[0] = 0x90 | (count + 1);
    newer.extend_from_slice(&[0x92, 0xc0, 0xa1, b'x']);
    assert_eq!(&decode::<T>(&newer).expect("a newer minor"), head);
    if count > 0 {
        let mut short = bytes;
        short[0] = 0x90;
        assert!(decode::<T>(&short[..1]).is_err(), "{head:?} without its fields");
    }
}

#[test]
fn no_head_is_misread_cut_or_newer() {
    let id = IdBytes::new([5; ID_LEN]);
    check(&Put {
        token: token(),
        mount: Some(3),
        reserve: Some(Reserve::Percent(20)),
        length: None,
    });
    check(&Modify { id, token: token(), if_opver: Some(tag()), length: Some(u64::MAX) });
    check(&Delete { id, token: token(), if_opver: None });
    check(&Undelete { id, token: token() });
    check(&Written { id, opver: tag(), acks: Acks::Mirror, copies: 2, degraded: true });
    check(&Get {
        id,
        first: 1,
        last: Some(2),
        min_opver: Some(tag()),
        local_only: true,
        window: WINDOW,
    });
    check(&ObjectHead {
        opver: tag(),
        length: 10,
        first: 0,
        count: 10,
        crc32c: 1,
        created_ms: 2,
        modified_ms: 3,
    });
    check(&Stat { id, local_only: false });
    check(&StatAnswer {
        kind: ObjectKind::Single,
        mount: 255,
        length: 1,
        capacity: 2,
        opver: tag(),
        created_ms: 3,
        modified_ms: 4,
        crc32c: 5,
        state: ObjectState::Deleted,
        forwarded: true,
    });
    check(&List { cursor: vec![1, 2].into(), since_ms: Some(1), limit: 100, of: Some(3) });
    let item = ListItem { id, length: 1, opver: tag(), modified_ms: 4 };
    check(&ListAnswer {
        items: vec![item.clone(), item],
        next: Some(vec![9].into()),
        machines: vec![7],
    });
    check(&Df {});
    check(&ErrorHead { code: 3, message: "m".into(), remedy: String::new(), node: "g/a/1".into() });
    check(&DataEnd { length: 1, crc32c: 2 });
    check(&View { known_epoch: 1, known_tracker: Uuid::new([1; 16]) });
}

#[test]
fn no_head_among_storages_is_misread_cut_or_newer() {
    let at = Position { machine: 1, log_id: 2, sequence: u64::MAX };
    let member = SyncMember {
        machine: 7,
        address: "a:1".into(),
        mount_uuid: Uuid::new([1; 16]),
        instance: Uuid::new([2; 16]),
        log_ids: vec![3, 4],
    };
    check(&member);
    check(&SyncHello {
        group: "g".into(),
        syncgroup: "a".into(),
        mount: 3,
        state: crate::cluster::view::MountState::Online,
        this: member.clone(),
        start_count: 9,
        coverage: [at].into_iter().collect(),
        tails: [at].into_iter().collect(),
        members: vec![member],
        forgotten: Vec::new(),
    });
    let chunkfile = SyncChunkfile {
        machine: 1,
        log_id: 2,
        chunk: 3,
        size_units: 4,
        created_ms: 5,
        secret: Uuid::new([6; 16]),
    };
    check(&chunkfile);
    let chunkfiles = vec![chunkfile];
    check(&SyncPush { mount: 1, machine: 2, log_id: 3, from: 4, to: 5, chunkfiles });
    check(&SyncPushed { outcome: 2, covered: 1, content: Some(at), length: 2, why: "w".into() });
    check(&SyncStatus { machine: 1 });
    check(&SyncContent { machine: 1, mount: 2, content: at, offset: 3, length: 4 });
    check(&SyncPiece { total: None });
    check(&SyncOffer { machine: 1, mount: 2, content: at, length: 3 });
    check(&SyncOffered { there: false, why: "w".into() });
}

/// Runs came later than copies: who does not know them neither asks for one nor is sent one.
#[test]
fn a_member_from_before_runs_is_understood() {
    type Asked = (u16, u8, ChunkfileId, u32, Vec<u32>);
    type Answered = (Option<u32>, Vec<u32>, Uuid, Vec<SyncChunkfile>);
    let chunkfile = ChunkfileId { machine: 1, log_id: 2, chunk: 3 };
    let asked: Asked = (9, 0, chunkfile, 64, vec![70]);
    let head: SyncCopies = decode(&bytes_of(&asked)).expect("of the version before");
    assert!(!head.runs && head.homes == [70]);
    let answered: Answered = (Some(80), vec![70], Uuid::new([1; 16]), Vec::new());
    let head: SyncCopied = decode(&bytes_of(&answered)).expect("of the version before");
    assert_eq!((head.next, head.others), (Some(80), None));
    // And the other way round: what it does not know stands at the end.
    let asked = SyncCopies { machine: 9, mount: 0, chunkfile, from: 64, homes: vec![], runs: true };
    assert_eq!(array_len(&bytes_of(&asked)), 6);
    assert_eq!(asked.from, 64);
}

/// Elements of a short array.
fn array_len(bytes: &[u8]) -> u8 {
    assert_eq!(bytes[0] & 0xf0, 0x90);
    bytes[0] & 0x0f
}

#[test]
fn a_page_of_ids_fits_its_frame() {
    let item = ListItem {
        id: IdBytes::new([255; ID_LEN]),
        length: u64::MAX,
        opver: Tag {
            life: u32::MAX,
            term: u32::MAX,
            n: u64::MAX,
            machine: u16::MAX,
            log_id: u32::MAX,
            sequence: u64::MAX,
        },
        modified_ms: u64::MAX,
    };
    let page = ListAnswer {
        items: vec![item; LIST_PAGE_MAX as usize],
        next: Some(vec![0; 256].into()),
        machines: vec![u16::MAX; 256],
    };
    assert!(bytes_of(&page).len() <= crate::messages::opcode::HEAD_MAX as usize);
}

#[test]
fn an_id_of_another_length_is_refused() {
    for len in [0, 1, ID_LEN - 1, ID_LEN + 1] {
        let head = bytes_of(&(serde_bytes::ByteBuf::from(vec![1; len]), true));
        assert!(decode::<Stat>(&head).is_err(), "{len}");
    }
}

#[test]
fn a_deep_or_endless_head_is_an_error_and_not_a_crash() {
    let deep = [vec![0x91; 60_000], vec![0xc0]].concat();
    assert!(decode::<Df>(&deep).is_err());
    // An array of 2^32 - 1 elements of which none follows; a string of 4 GiB.
    assert!(decode::<ListAnswer>(&[0x92, 0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
    assert!(decode::<ErrorHead>(&[0x94, 0x01, 0xdb, 0xff, 0xff, 0xff, 0xff, b'x']).is_err());
}

#[test]
fn an_unknown_number_is_an_error_of_the_head() {
    assert!(decode::<Reserve>(&[0x92, 3, 1]).is_err());
    assert!(decode::<Reserve>(&bytes_of(&(1u8, u64::MAX))).is_err());
    assert!(decode::<Acks>(&[9]).is_err());
    for acks in Acks::ALL {
        assert_eq!(decode::<Acks>(&bytes_of(acks)), Ok(*acks));
    }
}

#[test]
fn a_map_of_a_newer_or_older_minor_is_read() {
    #[derive(Serialize)]
    struct Newer {
        index: u8,
        later: Vec<u8>,
        state: u8,
        total: u64,
        free: u64,
        reserved: u64,
        writable: bool,
    }
    let newer = Newer {
        index: 3,
        later: vec![1],
        state: 1,
        total: 9,
        free: 8,
        reserved: 7,
        writable: true,
    };
    let bytes = encode_map(&newer).expect("encodes");
    let view: crate::cluster::view::MountView = decode(&bytes).expect("one field more, one less");
    assert_eq!((view.index, view.reserved, view.reason.as_str()), (3, 7, ""));
}
