//! Every opcode at the doors of running daemons, storage and tracker, with and without keys: whoever has no key, the
//! wrong one, the wrong role, a body cut short or too long is told so, changes nothing, and costs no memory beyond the
//! limits (P7). `wire_limits` asks the same of the decoder alone.
//!
//! One test only in this binary: its allocator counts the memory of the daemons, and of nobody else.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a test writes a key file and starts threads"
)]

mod common;

use common::{Client, Node};
use folio::actors::threads::Threads;
use folio::cluster::coverage::Coverage;
use folio::cluster::view::MountState;
use folio::format::crc::crc32c;
use folio::format::ids::{ChunkfileId, Position, Token};
use folio::messages::error::ErrorCode;
use folio::messages::frame::{Frame, HEADER_LEN, Kind, MAGIC, MAJOR, MINOR};
use folio::messages::handshake::{Auth, Hello, Nonce, Proof};
use folio::messages::heads::{
    self, Delete, Df, ErrorHead, Get, Heartbeat, IdBytes, Info, List, ListAnswer, Modify, Ping,
    Put, Route, Stat, SyncArchive, SyncArchived, SyncChunkfiles, SyncContent, SyncCopies,
    SyncDigest, SyncHello, SyncMarks, SyncMember, SyncOffer, SyncPull, SyncPush, SyncStatus,
    Undelete, Uuid, View,
};
use folio::messages::opcode::{Daemon, Entry, Opcode, PAYLOAD_MAX, Role, Stage};
use folio::settings::{Environment, Source, TrackerSettings};
use peak_alloc::PeakAlloc;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What one refusal may cost in the whole process for a moment, bytes: read buffers of both ends and small change.
const REFUSAL_MAX: usize = 512 << 10;

const KEYS: [(Role, &[u8]); 3] =
    [(Role::Client, &[1; 32]), (Role::Peer, &[2; 32]), (Role::Admin, &[3; 32])];

/// One daemon under test.
struct Door {
    what: &'static str,
    daemon: Daemon,
    address: SocketAddr,
    keyed: bool,
}

impl Door {
    fn key(&self, role: Role) -> Option<&'static [u8]> {
        let (_, key) = KEYS.into_iter().find(|(of, _)| *of == role).expect("each role has one");
        self.keyed.then_some(key)
    }

    fn session(&self, role: Role) -> Client {
        Client::connect_with(self.address, role, self.key(role))
    }

    /// Runs with the memory watched: `allowed` bytes on top of what a refusal costs.
    fn watched(&self, case: &str, allowed: usize, run: impl FnOnce()) {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        run();
        let rise = MEMORY.peak_usage().saturating_sub(before);
        assert!(rise <= REFUSAL_MAX + allowed, "{}, {case}: {rise} bytes", self.what);
    }
}

/// A tracker on a thread of its own.
struct TrackerNode {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TrackerNode {
    fn start(keys: Option<&Path>) -> Self {
        let auth = keys.map_or_else(String::new, |path| {
            format!("[auth]\nkey_file = \"{}\"\n", path.display())
        });
        let text =
            format!("listen = \"127.0.0.1:0\"\nadmin_listen = \"\"\nmetrics_listen = \"\"\n{auth}");
        let source = Source::Text { name: "test", text: &text };
        let settings =
            TrackerSettings::load(source, &Environment::of(&[])).expect("settings").settings;
        let (tell, hear) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix::System::new().block_on(async move {
                let tracker =
                    folio::tracker::start(&settings, Threads::new()).expect("tracker starts");
                tell.send(tracker.address()).expect("the test waits");
                let _ = stopped.await;
                let errors = tracker.stop(Duration::from_secs(30)).await;
                assert!(errors.is_empty(), "{errors:?}");
            });
        });
        let address = hear.recv().expect("tracker starts");
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for TrackerNode {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the tracker panicked");
        }
    }
}

fn key_file(dir: &Path) -> PathBuf {
    let path = dir.join("keys");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .expect("key file");
    for (role, key) in KEYS {
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        std::io::Write::write_all(&mut file, format!("{role} {hex}\n").as_bytes()).expect("write");
    }
    path
}

fn bytes_of<H: serde::Serialize>(head: &H) -> Vec<u8> {
    rmp_serde::to_vec(head).expect("encodes")
}

/// A head that the opcode would take, and how many fields of it there are.
fn good_head(opcode: Opcode) -> Vec<u8> {
    let token = Token { client: [5; 16], sequence: 1, lowest_unanswered: 1, issued_ms: 1 };
    let id = IdBytes::new([0; heads::ID_LEN]);
    let chunkfile = ChunkfileId { machine: 9, log_id: 3, chunk: 0 };
    let hello = Hello {
        major: MAJOR,
        minor: MINOR,
        role: Role::Client as u8,
        nonce: Nonce::new([1; 32]),
        name: "test".to_owned(),
        instance: Uuid::new([1; 16]),
    };
    match opcode {
        Opcode::Hello => bytes_of(&hello),
        Opcode::Auth => bytes_of(&Auth { proof: Proof::new([1; 32]), second: None }),
        Opcode::Ping => bytes_of(&Ping {}),
        Opcode::Info => bytes_of(&Info {}),
        Opcode::Put => bytes_of(&Put { token, mount: None, reserve: None, length: Some(100) }),
        Opcode::Get => bytes_of(&Get {
            id,
            first: 0,
            last: None,
            min_opver: None,
            local_only: false,
            window: 0,
        }),
        Opcode::Modify => bytes_of(&Modify { id, token, if_opver: None, length: Some(100) }),
        Opcode::Delete => bytes_of(&Delete { id, token, if_opver: None }),
        Opcode::Undelete => bytes_of(&Undelete { id, token }),
        Opcode::Stat => bytes_of(&Stat { id, local_only: false }),
        Opcode::List => bytes_of(&List {
            cursor: serde_bytes::ByteBuf::new(),
            since_ms: None,
            limit: 10,
            of: None,
        }),
        Opcode::Df => bytes_of(&Df {}),
        Opcode::View => bytes_of(&View { known_epoch: 0, known_tracker: Uuid::new([0; 16]) }),
        Opcode::Route => bytes_of(&Route {
            group: None,
            syncgroup: None,
            machine: None,
            mount: None,
            length: 100,
        }),
        Opcode::Heartbeat => bytes_of(&Heartbeat { members: Vec::new(), forgotten: Vec::new() }),
        Opcode::SyncHello => bytes_of(&SyncHello {
            group: "g".to_owned(),
            syncgroup: "a".to_owned(),
            mount: 0,
            state: MountState::Online,
            this: SyncMember {
                machine: 9,
                address: "127.0.0.1:1".to_owned(),
                mount_uuid: Uuid::new([1; 16]),
                instance: Uuid::new([2; 16]),
                log_ids: vec![3],
            },
            start_count: 1,
            coverage: Coverage::new(),
            tails: Coverage::new(),
            members: Vec::new(),
            forgotten: Vec::new(),
        }),
        Opcode::SyncPush => bytes_of(&SyncPush {
            mount: 0,
            machine: 9,
            log_id: 3,
            from: 0,
            to: 1,
            chunkfiles: Vec::new(),
        }),
        Opcode::SyncStatus => bytes_of(&SyncStatus { machine: 9 }),
        Opcode::SyncContent => bytes_of(&SyncContent {
            machine: 9,
            mount: 0,
            content: Position::default(),
            offset: 0,
            length: 100,
        }),
        Opcode::SyncOffer => {
            bytes_of(&SyncOffer { machine: 9, mount: 0, content: Position::default(), length: 100 })
        }
        Opcode::SyncChunkfiles => bytes_of(&SyncChunkfiles { machine: 9, mount: 0, after: None }),
        Opcode::SyncDigest => bytes_of(&SyncDigest { machine: 9, mount: 0, chunkfile }),
        Opcode::SyncMarks => bytes_of(&SyncMarks { machine: 9, mount: 0, chunkfile, from: 0 }),
        Opcode::SyncCopies => bytes_of(&SyncCopies {
            machine: 9,
            mount: 0,
            chunkfile,
            from: 0,
            homes: vec![2, 5],
            runs: false,
        }),
        Opcode::SyncArchive => bytes_of(&SyncArchive { machine: 9, mount: 0, after: None }),
        Opcode::SyncArchived => bytes_of(&SyncArchived { machine: 9, mount: 0, names: Vec::new() }),
        Opcode::SyncPull => {
            bytes_of(&SyncPull { machine: 9, mount: 0, origin: 9, log_id: 3, from: 1 })
        }
    }
}

/// Who may call what, written down once more: the daemons' own table is what is on trial here.
fn expected(opcode: Opcode, daemon: Daemon, role: Role) -> Result<(), ErrorCode> {
    use Role::{Admin, Client, Peer};
    const EVERYBODY: &[Role] = &[Client, Peer, Admin];
    let (server, roles) = match opcode {
        Opcode::Hello | Opcode::Auth => return Err(ErrorCode::BadRequest),
        Opcode::Ping | Opcode::Info => (daemon, EVERYBODY),
        Opcode::Get | Opcode::Stat => (Daemon::Storage, EVERYBODY),
        Opcode::Put => (Daemon::Storage, &[Client][..]),
        Opcode::Modify | Opcode::Delete | Opcode::Undelete => {
            (Daemon::Storage, &[Client, Peer][..])
        }
        Opcode::List | Opcode::Df => (Daemon::Storage, &[Client, Admin][..]),
        Opcode::View => (Daemon::Tracker, EVERYBODY),
        Opcode::Route => (Daemon::Tracker, &[Client, Admin][..]),
        Opcode::Heartbeat => (Daemon::Tracker, &[Peer][..]),
        Opcode::SyncHello
        | Opcode::SyncPush
        | Opcode::SyncStatus
        | Opcode::SyncContent
        | Opcode::SyncOffer
        | Opcode::SyncChunkfiles
        | Opcode::SyncDigest
        | Opcode::SyncMarks
        | Opcode::SyncCopies
        | Opcode::SyncArchive
        | Opcode::SyncArchived
        | Opcode::SyncPull => (Daemon::Storage, &[Peer][..]),
    };
    if !roles.contains(&role) {
        return Err(ErrorCode::Forbidden);
    }
    if server == daemon { Ok(()) } else { Err(ErrorCode::UnknownOpcode) }
}

/// A body that belongs to [`good_head`].
fn good_body(entry: &Entry) -> Vec<u8> {
    vec![7; entry.payload_max.min(100) as usize]
}

/// A request with right checksums, whatever its head and payload are; its lengths may be lies.
fn request(opcode: Opcode, id: u64, head: &[u8], payload: &[u8], claims: (u32, u32)) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[MAJOR, MINOR, Kind::Request as u8, 0]);
    out.extend_from_slice(&opcode.as_u16().to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&claims.0.to_le_bytes());
    out.extend_from_slice(&claims.1.to_le_bytes());
    out.extend_from_slice(&crc32c(payload).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    assert_eq!(out.len(), HEADER_LEN);
    out.extend_from_slice(head);
    let crc = crc32c(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(payload);
    out
}

fn honest(opcode: Opcode, id: u64, head: &[u8], payload: &[u8]) -> Vec<u8> {
    request(opcode, id, head, payload, (head.len() as u32, payload.len() as u32))
}

/// A refusal that helps: the right code, for the right request, in words, by a node that says who it is.
fn refusal(frame: Option<Frame>, id: u64, code: ErrorCode, case: &str) {
    let frame = frame.unwrap_or_else(|| panic!("{case}: closed without a word"));
    let meta = frame.header.meta;
    let head: Result<ErrorHead, _> = heads::decode(frame.head());
    assert_eq!(ErrorCode::of_status(meta.status), code, "{case}: {head:?}");
    let head = head.expect("the head of a refusal");
    assert_ne!(meta.status, 0, "{case}: no refusal");
    assert_eq!((meta.request_id, head.code), (id, code.as_u16()), "{case}");
    assert!(!head.message.is_empty() && !head.node.is_empty(), "{case}: {head:?}");
}

fn is_closed(client: &mut Client, case: &str) {
    assert!(client.read_or_end().is_none(), "{case}: the connection goes on");
}

fn goes_on(client: &mut Client, case: &str) {
    client.try_write(&honest(Opcode::Ping, 77, &bytes_of(&Ping {}), b""));
    let frame = client.read_or_end().unwrap_or_else(|| panic!("{case}: closed"));
    assert_eq!((frame.header.meta.request_id, frame.header.meta.status), (77, 0), "{case}");
}

/// No handshake, half of one, or one with somebody else's key: nothing is answered but the refusal.
fn no_key_and_wrong_key(door: &Door, entry: &Entry) {
    let (opcode, head) = (entry.opcode, good_head(entry.opcode));
    let case = format!("{} {} without a key", door.what, entry.name);
    let in_session = entry.stage == Stage::Session;
    door.watched(&case, 0, || {
        let mut client = Client::raw(door.address);
        client.try_write(&honest(opcode, 9, &head, b""));
        match opcode {
            Opcode::Hello => {
                let frame = client.read_or_end().expect("an answer");
                let answer: heads::NodeIdentity = {
                    let hello: folio::messages::handshake::HelloAnswer =
                        heads::decode(frame.head()).expect("hello answer");
                    assert_eq!(hello.key_required, door.keyed, "{case}");
                    hello.node
                };
                assert_eq!(answer.kind, door.daemon);
                return;
            }
            Opcode::Auth => refusal(client.read_or_end(), 9, ErrorCode::BadRequest, &case),
            _ => refusal(client.read_or_end(), 9, ErrorCode::Unauthorized, &case),
        }
        is_closed(&mut client, &case);
    });
    if !door.keyed {
        return;
    }
    for role in Role::ALL {
        // Hello is said, the proof is left out.
        if in_session {
            let case = format!("{case}, as {role} after hello");
            door.watched(&case, 0, || {
                let mut client = Client::raw(door.address);
                client.hello(role, door.key(role)).expect("a key is asked for");
                client.try_write(&honest(opcode, 9, &head, b""));
                refusal(client.read_or_end(), 9, ErrorCode::Unauthorized, &case);
                is_closed(&mut client, &case);
            });
        }
        // A key that nobody has, and the right key of another role.
        let others = KEYS.into_iter().filter(|(of, _)| *of != role).map(|(_, key)| key);
        for key in others.chain([&[9; 32][..]]) {
            let case = format!("{} {} as {role} with a wrong key", door.what, entry.name);
            door.watched(&case, 0, || {
                let mut client = Client::raw(door.address);
                let (_, proof) = client.hello(role, Some(key)).expect("a key is asked for");
                // The request does not wait for the word on the proof.
                let mut both = honest(Opcode::Auth, 8, &bytes_of(&proof), b"");
                both.extend_from_slice(&honest(opcode, 9, &head, b""));
                client.try_write(&both);
                // What was still unread when they closed may cost us the answer, never give us one.
                if let Some(frame) = client.read_or_end() {
                    refusal(Some(frame), 8, ErrorCode::Unauthorized, &case);
                    is_closed(&mut client, &case);
                }
                let mut client = Client::raw(door.address);
                let (_, proof) = client.hello(role, Some(key)).expect("a key is asked for");
                client.try_write(&honest(Opcode::Auth, 8, &bytes_of(&proof), b""));
                refusal(client.read_or_end(), 8, ErrorCode::Unauthorized, &case);
                is_closed(&mut client, &case);
            });
        }
    }
}

/// Each role in a session of its own: what the table does not give it, it does not get.
fn wrong_role(door: &Door, entry: &Entry) {
    let (head, body) = (good_head(entry.opcode), good_body(entry));
    for role in Role::ALL {
        let Err(code) = expected(entry.opcode, door.daemon, role) else { continue };
        let case = format!("{} {} as {role}", door.what, entry.name);
        door.watched(&case, 0, || {
            let mut client = door.session(role);
            client.try_write(&honest(entry.opcode, 9, &head, &body));
            refusal(client.read_or_end(), 9, code, &case);
            goes_on(&mut client, &case);
        });
    }
}

/// Roles that may call it here.
fn allowed_roles(door: &Door, entry: &Entry) -> impl Iterator<Item = Role> {
    let (opcode, daemon) = (entry.opcode, door.daemon);
    Role::ALL.into_iter().filter(move |role| expected(opcode, daemon, *role).is_ok())
}

/// The stream ends inside the frame; the head ends inside a field; the body is shorter than the head says.
fn truncated(door: &Door, entry: &Entry) {
    let (head, body) = (good_head(entry.opcode), good_body(entry));
    let whole = honest(entry.opcode, 9, &head, &body);
    let after_head = HEADER_LEN + head.len();
    for role in allowed_roles(door, entry) {
        let case = format!("{} {} as {role}, cut short", door.what, entry.name);
        for cut in [1, 3, 4, 20, HEADER_LEN - 1, HEADER_LEN, after_head - 1, whole.len() - 1] {
            door.watched(&case, 0, || {
                let mut client = door.session(role);
                client.try_write(&whole[..cut]);
                client.half_close();
                is_closed(&mut client, &format!("{case} at {cut}"));
            });
        }
        // Right checksums around half a head: an honest fool.
        for len in 0..head.len() {
            door.watched(&case, 0, || {
                let mut client = door.session(role);
                client.try_write(&honest(entry.opcode, 9, &head[..len], &body));
                let case = format!("{case}: head of {len} bytes");
                if matches!(entry.opcode, Opcode::Ping | Opcode::Info | Opcode::Df) {
                    // Nothing is in the head, so nothing is missing.
                    assert_eq!(client.read_or_end().expect("an answer").header.meta.status, 0);
                } else {
                    refusal(client.read_or_end(), 9, ErrorCode::BadRequest, &case);
                }
                goes_on(&mut client, &case);
            });
        }
        if entry.mutation && !body.is_empty() {
            door.watched(&case, 0, || {
                let mut client = door.session(role);
                client.try_write(&honest(entry.opcode, 9, &head, &body[..50]));
                let frame = client.read_or_end().expect("an answer");
                assert_ne!(frame.header.meta.status, 0, "{case}: half a body is taken");
                goes_on(&mut client, &case);
            });
        }
    }
}

/// Lengths beyond the limits, claimed or sent; before the handshake and after it.
fn oversized(door: &Door, entry: &Entry) {
    let head = good_head(entry.opcode);
    let claims = |max: u32| [max + 1, 1 << 24, i32::MAX as u32, u32::MAX];
    let heads = claims(entry.head_max).map(|claim| (claim, 0));
    let bodies = claims(entry.payload_max).map(|claim| (head.len() as u32, claim));
    for claimed in heads.into_iter().chain(bodies) {
        let case = format!("{} {} of {claimed:?} bytes", door.what, entry.name);
        door.watched(&case, 0, || {
            let mut client = Client::raw(door.address);
            client.try_write(&request(entry.opcode, 9, b"", b"", claimed));
            refusal(client.read_or_end(), 9, ErrorCode::TooLarge, &case);
            is_closed(&mut client, &case);
        });
        for role in Role::ALL {
            door.watched(&case, 0, || {
                let mut client = door.session(role);
                client.try_write(&request(entry.opcode, 9, b"", b"", claimed));
                refusal(client.read_or_end(), 9, ErrorCode::TooLarge, &case);
                is_closed(&mut client, &case);
            });
        }
    }
    // The longest that is allowed, of which only the header comes: at most itself, and given back.
    let longest = (entry.head_max, entry.payload_max);
    for role in Role::ALL {
        let case = format!("{} {} as {role}, announced only", door.what, entry.name);
        let announced = entry.payload_max as usize + entry.head_max as usize;
        door.watched(&case, announced, || {
            let mut client = door.session(role);
            client.try_write(&request(entry.opcode, 9, b"", b"", longest));
            client.half_close();
            is_closed(&mut client, &case);
        });
    }
    assert!(entry.payload_max <= PAYLOAD_MAX);
}

/// After all of it: nothing was stored, everybody is still served.
fn is_unharmed(door: &Door) {
    let mut client = door.session(Role::Client);
    goes_on(&mut client, door.what);
    if door.daemon == Daemon::Tracker {
        return;
    }
    let list = List { cursor: serde_bytes::ByteBuf::new(), since_ms: None, limit: 10, of: None };
    let id = client.send(Opcode::List, 0, &list, b"");
    let page: ListAnswer = client.outcome(id).expect("a page");
    assert!(page.items.is_empty(), "{}: somebody stored {:?}", door.what, page.items);
    let written = client.put(b"a word").expect("stored");
    assert_eq!(client.get(&written.id).expect("read"), b"a word");
}

#[test]
fn no_opcode_of_a_running_daemon_lets_a_stranger_in_or_takes_memory_for_a_claim() {
    let dir = tempfile::tempdir().expect("dir");
    let keys = key_file(dir.path());
    let text = keys.display().to_string();
    let open = Node::start(&dir.path().join("open"), 1, &[]);
    let shut = Node::start(&dir.path().join("shut"), 1, &[("auth.key_file", &text)]);
    let (open_tracker, shut_tracker) = (TrackerNode::start(None), TrackerNode::start(Some(&keys)));
    let door = |what, daemon, address, keyed| Door { what, daemon, address, keyed };
    let doors = [
        door("storage", Daemon::Storage, open.address, false),
        door("storage with keys", Daemon::Storage, shut.address, true),
        door("tracker", Daemon::Tracker, open_tracker.address, false),
        door("tracker with keys", Daemon::Tracker, shut_tracker.address, true),
    ];
    for door in &doors {
        // Buffers that are made once.
        is_answering(door);
        for entry in Opcode::TABLE {
            no_key_and_wrong_key(door, entry);
            wrong_role(door, entry);
            truncated(door, entry);
            oversized(door, entry);
        }
        is_unharmed(door);
    }
}

fn is_answering(door: &Door) {
    for role in Role::ALL {
        goes_on(&mut door.session(role), door.what);
    }
}
