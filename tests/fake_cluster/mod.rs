//! A storage and a tracker in memory, over real sockets, that misbehave on order. Speaks the wire by the same heads, but
//! keeps its objects in a map: what is tested is the client.
#![allow(clippy::expect_used, reason = "a test")]
#![allow(dead_code, reason = "not every test binary uses all of it")]

use bytes::{Bytes, BytesMut};
use folio::cluster::view::{
    ClusterView, GroupView, Load, MountState, MountView, PutPolicy, State, StorageView,
};
use folio::format::crc::{Crc32c, crc32c};
use folio::format::file_id::{ObjectId, ObjectKind};
use folio::format::ids::{MachineId, Tag, Token};
use folio::messages::error::ErrorCode;
use folio::messages::frame::{
    FLAG_LAST, FLAG_STREAMED, Frame, FrameDecoder, Kind, Limits, Meta, encode,
};
use folio::messages::handshake::{Auth, Hello, KeyCheck, ServerHandshake};
use folio::messages::heads::{self, Acks, DataEnd, ErrorHead, IdBytes, Uuid, WindowHead};
use folio::messages::opcode::{Daemon, Opcode, Role};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error answer, nothing done.
    Say(ErrorCode),
    /// The connection breaks, nothing done.
    LoseBefore,
    /// It is done, then the connection breaks.
    LoseAfter,
    /// No answer, ever.
    Silent,
    /// The payload of the answer is damaged on the way.
    Damage,
    /// The answer waits until the next request was answered.
    AfterNext,
    /// A download breaks off after its first pieces.
    Break,
}

/// What a storage holds and has seen.
#[derive(Default)]
pub struct Store {
    pub objects: BTreeMap<[u8; 45], (Bytes, Tag)>,
    pub tokens: HashMap<([u8; 16], u64), heads::Written>,
    /// Tokens of all mutations, in the order in which they came.
    pub seen: Vec<Token>,
    pub faults: VecDeque<Fault>,
    pub cancelled: u32,
    /// Most bytes of a download that were on their way.
    pub outstanding_max: u64,
    pub connections: u32,
    last: u64,
}

/// A running storage or tracker.
pub struct Node {
    pub address: String,
    pub machine: MachineId,
    pub store: Arc<Mutex<Store>>,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    pub fn fault(&self, fault: Fault) {
        self.store.lock().expect("store").faults.push_back(fault);
    }

    pub fn objects(&self) -> usize {
        self.store.lock().expect("store").objects.len()
    }

    pub fn seen(&self) -> Vec<Token> {
        self.store.lock().expect("store").seen.clone()
    }

    /// Stops listening and breaks every connection.
    pub async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }
}

/// Who a node is.
#[derive(Clone)]
struct Shared {
    kind: Daemon,
    machine: MachineId,
    syncgroup: String,
    keys: Vec<Vec<u8>>,
    store: Arc<Mutex<Store>>,
    view: Arc<Mutex<ClusterView>>,
}

pub type View = Arc<Mutex<ClusterView>>;

pub fn empty_view() -> View {
    Arc::new(Mutex::new(ClusterView::empty([7; 16], PutPolicy::RoundRobin)))
}

/// A storage of group "g", syncgroup named like its machine, and its entry in the view.
pub async fn storage(machine: MachineId, view: &View) -> Node {
    storage_with(machine, view, Vec::new()).await
}

pub async fn storage_with(machine: MachineId, view: &View, keys: Vec<Vec<u8>>) -> Node {
    let node = start(Daemon::Storage, machine, keys, view, Place::of(machine)).await;
    set_state(view, machine, &node.address, State::Online);
    node
}

/// A mirror of a storage: holds what that holds, and answers to what it is asked by the same orders.
pub async fn mirror_of(storage: &Node, machine: MachineId, view: &View) -> Node {
    let place = Place { syncgroup: syncgroup(storage.machine), store: Arc::clone(&storage.store) };
    let node = start(Daemon::Storage, machine, Vec::new(), view, place).await;
    set_state_in(view, &syncgroup(storage.machine), machine, &node.address, State::Online);
    node
}

pub async fn tracker(view: &View) -> Node {
    start(Daemon::Tracker, 0, Vec::new(), view, Place::of(0)).await
}

/// The syncgroup of a node, and what it holds.
struct Place {
    syncgroup: String,
    store: Arc<Mutex<Store>>,
}

impl Place {
    fn of(machine: MachineId) -> Self {
        Self { syncgroup: syncgroup(machine), store: Arc::default() }
    }
}

pub fn syncgroup(machine: MachineId) -> String {
    format!("s{machine}")
}

pub fn set_state(view: &View, machine: MachineId, address: &str, state: State) {
    set_state_in(view, &syncgroup(machine), machine, address, state);
}

fn set_state_in(view: &View, syncgroup: &str, machine: MachineId, address: &str, state: State) {
    let mount = MountView {
        index: 0,
        state: MountState::Online,
        total: 1 << 40,
        free: 1 << 40,
        reserved: 0,
        writable: true,
        reason: String::new(),
    };
    let storage = StorageView {
        machine,
        instance: [machine as u8; 16],
        advertise: address.to_owned(),
        admin: String::new(),
        state,
        weight: 1,
        version: "1".into(),
        mounts: vec![mount],
        load: Load::default(),
    };
    let mut view = view.lock().expect("view");
    view.epoch += 1;
    let group: &mut GroupView = view.groups.entry("g".into()).or_default();
    let members = group.syncgroups.entry(syncgroup.to_owned()).or_default();
    members.storages.insert(machine, storage);
}

async fn start(
    kind: Daemon,
    machine: MachineId,
    keys: Vec<Vec<u8>>,
    view: &View,
    place: Place,
) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    let Place { syncgroup, store } = place;
    let view = Arc::clone(view);
    let shared = Shared { kind, machine, syncgroup, keys, store: Arc::clone(&store), view };
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            shared.store.lock().expect("store").connections += 1;
            connections.spawn(serve(stream, shared.clone()));
        }
    });
    Node { address, machine, store, task }
}

/// One connection: its buffers and what streams on it.
struct Session {
    stream: TcpStream,
    shared: Shared,
    out: BytesMut,
    /// Answer that waits for the next one.
    held: Option<BytesMut>,
    uploads: HashMap<u64, Upload>,
    downloads: HashMap<u64, Download>,
}

struct Upload {
    frame: Frame,
    body: BytesMut,
    granted: u64,
    fault: Option<Fault>,
}

struct Download {
    body: Bytes,
    sent: usize,
    window: u64,
    /// Sent so far and allowed so far.
    allowed: u64,
    crc: Crc32c,
    breaks: bool,
}

/// A small window, so that it matters.
const UPLOAD_WINDOW: u32 = 512 * 1024;

async fn serve(stream: TcpStream, shared: Shared) {
    let mut session = Session {
        stream,
        shared,
        out: BytesMut::new(),
        held: None,
        uploads: HashMap::new(),
        downloads: HashMap::new(),
    };
    let mut decoder = FrameDecoder::new(Limits::SESSION);
    let mut buffer = BytesMut::new();
    let identity = heads::NodeIdentity {
        kind: session.shared.kind,
        group: if session.shared.kind == Daemon::Storage { "g".into() } else { String::new() },
        syncgroup: session.shared.syncgroup.clone(),
        machine: session.shared.machine,
        instance: Uuid::new([session.shared.machine as u8; 16]),
        version: "1".into(),
    };
    let mut shake = ServerHandshake::new(identity, [5; 32]);
    loop {
        while let Ok(Some(frame)) = decoder.decode(&mut buffer) {
            if session.take(frame, &mut shake).is_none() {
                return;
            }
        }
        session.pump();
        let out = session.out.split();
        if session.stream.write_all(&out).await.is_err() {
            return;
        }
        if session.downloads.values().any(|download| download.breaks && download.sent > 0) {
            return;
        }
        match session.stream.read_buf(&mut buffer).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
}

impl Session {
    fn answer<H: Serialize>(&mut self, frame: &Frame, head: &H, payload: &[u8]) {
        let meta = frame.header.meta;
        let meta = Meta::answer(meta.opcode, meta.request_id);
        encode(&mut self.out, meta, head, payload, crc32c(payload)).expect("encodes");
    }

    fn refuse(&mut self, frame: &Frame, code: ErrorCode) {
        let meta = frame.header.meta;
        let head = ErrorHead {
            code: code.as_u16(),
            message: format!("told to say {code}"),
            remedy: String::new(),
            node: String::new(),
        };
        let meta = Meta::refusal(meta.opcode, meta.request_id, code);
        encode(&mut self.out, meta, &head, &[], 0).expect("encodes");
    }

    /// `None`: the connection breaks.
    fn take(&mut self, frame: Frame, shake: &mut ServerHandshake) -> Option<()> {
        let meta = frame.header.meta;
        match meta.kind {
            Kind::Request => {}
            Kind::Data => return self.upload_piece(frame),
            Kind::Window => {
                let head: WindowHead = heads::decode(frame.head()).expect("window");
                if let Some(download) = self.downloads.get_mut(&meta.request_id) {
                    download.allowed += u64::from(head.bytes);
                }
                return Some(());
            }
            Kind::Cancel => {
                self.downloads.remove(&meta.request_id);
                self.uploads.remove(&meta.request_id);
                self.shared.store.lock().expect("store").cancelled += 1;
                return Some(());
            }
            Kind::Answer => panic!("a client answers"),
        }
        let opcode = Opcode::from_u16(meta.opcode).expect("known");
        match opcode {
            Opcode::Hello => {
                let hello: Hello = heads::decode(frame.head()).expect("hello");
                let open = self.shared.keys.is_empty();
                let check = if open { KeyCheck::Open } else { KeyCheck::Required };
                let (answer, _) = shake.on_hello(&hello, |_| check, 1_000_000).expect("hello");
                self.answer(&frame, &answer, &[]);
            }
            Opcode::Auth => {
                let auth: Auth = heads::decode(frame.head()).expect("auth");
                let keys = self.shared.keys.clone();
                match shake.on_auth(&auth, |_: Role| keys) {
                    Ok((answer, _)) => self.answer(&frame, &answer, &[]),
                    Err(refusal) => self.refuse(&frame, refusal.code),
                }
            }
            Opcode::View => {
                let view = self.shared.view.lock().expect("view").clone();
                let payload = heads::encode_map(&view).expect("encodes");
                let head = heads::ViewAnswer { epoch: view.epoch, changed: true };
                self.answer(&frame, &head, &payload);
            }
            _ => return self.storage_request(opcode, frame),
        }
        Some(())
    }

    fn storage_request(&mut self, opcode: Opcode, frame: Frame) -> Option<()> {
        let fault = self.shared.store.lock().expect("store").faults.pop_front();
        if opcode.entry().mutation {
            let token = token_of(opcode, frame.head());
            self.shared.store.lock().expect("store").seen.push(token);
            if frame.header.has(FLAG_STREAMED) && fault.is_none_or(|f| !matches!(f, Fault::Say(_)))
            {
                let head = WindowHead { bytes: UPLOAD_WINDOW };
                let meta = Meta::of_kind(
                    Kind::Window,
                    frame.header.meta.opcode,
                    frame.header.meta.request_id,
                );
                encode(&mut self.out, meta, &head, &[], 0).expect("encodes");
                let upload =
                    Upload { body: BytesMut::new(), granted: UPLOAD_WINDOW.into(), fault, frame };
                self.uploads.insert(upload.frame.header.meta.request_id, upload);
                return Some(());
            }
        }
        let body = Bytes::copy_from_slice(frame.payload());
        self.execute(opcode, &frame, body, fault)
    }

    fn upload_piece(&mut self, frame: Frame) -> Option<()> {
        let meta = frame.header.meta;
        let Some(upload) = self.uploads.get_mut(&meta.request_id) else { return Some(()) };
        upload.body.extend_from_slice(frame.payload());
        assert!(upload.body.len() as u64 <= upload.granted, "more than the window allows");
        // Late enough that a reader is spent: what fits a frame is kept by the client.
        if upload.fault == Some(Fault::LoseBefore) && upload.body.len() > 2_000_000 {
            return None;
        }
        if !frame.header.has(FLAG_LAST) {
            let bytes = frame.payload().len() as u32;
            upload.granted += u64::from(bytes);
            let window = Meta::of_kind(Kind::Window, meta.opcode, meta.request_id);
            encode(&mut self.out, window, &WindowHead { bytes }, &[], 0).expect("encodes");
            return Some(());
        }
        let end: DataEnd = heads::decode(frame.head()).expect("the end");
        let upload = self.uploads.remove(&meta.request_id).expect("there");
        let body = upload.body.freeze();
        assert_eq!((end.length, end.crc32c), (body.len() as u64, crc32c(&body)));
        let opcode = Opcode::from_u16(meta.opcode).expect("known");
        self.execute(opcode, &upload.frame, body, upload.fault)
    }

    fn execute(
        &mut self,
        opcode: Opcode,
        frame: &Frame,
        body: Bytes,
        fault: Option<Fault>,
    ) -> Option<()> {
        match fault {
            Some(Fault::Say(code)) => {
                self.refuse(frame, code);
                return Some(());
            }
            Some(Fault::LoseBefore) => return None,
            Some(Fault::Silent) => return Some(()),
            _ => {}
        }
        let before = self.out.len();
        match opcode {
            Opcode::Get => self.get(frame, fault == Some(Fault::Break)),
            Opcode::List => self.list(frame),
            Opcode::Df => self.answer(frame, &heads::DfAnswer { mounts: Vec::new() }, &[]),
            _ => self.mutate(opcode, frame, body),
        }
        match fault {
            Some(Fault::LoseAfter) => return None,
            Some(Fault::Damage) => {
                let last = self.out.len() - 1;
                self.out[last] ^= 1;
            }
            Some(Fault::AfterNext) => self.held = Some(self.out.split_off(before)),
            _ => {
                if let Some(held) = self.held.take() {
                    self.out.unsplit(held);
                }
            }
        }
        Some(())
    }

    fn mutate(&mut self, opcode: Opcode, frame: &Frame, body: Bytes) {
        let token = token_of(opcode, frame.head());
        let store = Arc::clone(&self.shared.store);
        let mut store = store.lock().expect("store");
        if let Some(written) = store.tokens.get(&(token.client, token.sequence)) {
            let written = written.clone();
            self.answer(frame, &written, &[]);
            return;
        }
        store.last += 1;
        let id = match opcode {
            Opcode::Put => new_id(self.shared.machine, store.last),
            _ => id_of(opcode, frame.head()),
        };
        let n = store.objects.get(&*id).map_or(0, |(_, tag)| tag.n);
        let opver = Tag { n: n + 1, machine: self.shared.machine, log_id: 1, ..Tag::default() };
        if opcode == Opcode::Delete {
            store.objects.remove(&*id);
        } else {
            store.objects.insert(*id, (body, opver));
        }
        let written = heads::Written { id, opver, acks: Acks::Local, copies: 1, degraded: false };
        store.tokens.insert((token.client, token.sequence), written.clone());
        self.answer(frame, &written, &[]);
    }

    fn get(&mut self, frame: &Frame, breaks: bool) {
        let head: heads::Get = heads::decode(frame.head()).expect("get");
        let found = self.shared.store.lock().expect("store").objects.get(&*head.id).cloned();
        let Some((body, opver)) = found else { return self.refuse(frame, ErrorCode::NotFound) };
        let last = head.last.map_or(body.len(), |last| body.len().min(last as usize + 1));
        let part = body.slice(head.first as usize..last);
        let object = heads::ObjectHead {
            opver,
            length: body.len() as u64,
            first: head.first,
            count: part.len() as u64,
            crc32c: crc32c(&body),
            created_ms: 1,
            modified_ms: 2,
        };
        if part.len() <= heads::INLINE_MAX {
            return self.answer(frame, &object, &part);
        }
        let meta = frame.header.meta;
        let answer = Meta::answer(meta.opcode, meta.request_id).with_flags(FLAG_STREAMED);
        encode(&mut self.out, answer, &object, &[], 0).expect("encodes");
        let allowed = head.window.into();
        let download =
            Download { body: part, sent: 0, window: allowed, allowed, crc: Crc32c::new(), breaks };
        self.downloads.insert(meta.request_id, download);
    }

    /// Sends what the windows allow.
    fn pump(&mut self) {
        for (id, download) in &mut self.downloads {
            let meta = Meta::of_kind(Kind::Data, Opcode::Get.as_u16(), *id);
            while download.sent < download.body.len() && (download.sent as u64) < download.allowed {
                let room = (download.allowed - download.sent as u64) as usize;
                let len = room.min(100_000).min(download.body.len() - download.sent);
                let piece = &download.body[download.sent..download.sent + len];
                download.crc.update(piece);
                encode(&mut self.out, meta, &(), piece, crc32c(piece)).expect("encodes");
                download.sent += len;
                if download.breaks {
                    return;
                }
            }
            let granted = download.allowed - download.window;
            let outstanding = (download.sent as u64).saturating_sub(granted);
            let mut store = self.shared.store.lock().expect("store");
            store.outstanding_max = store.outstanding_max.max(outstanding);
            drop(store);
            if download.sent == download.body.len() {
                let end = DataEnd { length: download.sent as u64, crc32c: download.crc.value() };
                encode(&mut self.out, meta.with_flags(FLAG_LAST), &end, &[], 0).expect("encodes");
            }
        }
        self.downloads.retain(|_, download| download.sent < download.body.len());
    }

    fn list(&mut self, frame: &Frame) {
        let head: heads::List = heads::decode(frame.head()).expect("list");
        let store = Arc::clone(&self.shared.store);
        let store = store.lock().expect("store");
        // Two a page, so that there are pages.
        let after =
            |id: &&[u8; 45]| head.cursor.is_empty() || id.as_slice() > head.cursor.as_slice();
        let ids: Vec<[u8; 45]> = store.objects.keys().filter(after).take(2).copied().collect();
        let next = (ids.len() == 2).then(|| ids[1].to_vec().into());
        let item = |id: &[u8; 45]| heads::ListItem {
            id: IdBytes::new(*id),
            length: store.objects[id].0.len() as u64,
            opver: store.objects[id].1,
            modified_ms: 0,
        };
        let answer =
            heads::ListAnswer { items: ids.iter().map(item).collect(), next, machines: Vec::new() };
        self.answer(frame, &answer, &[]);
    }
}

fn new_id(machine: MachineId, sequence: u64) -> IdBytes {
    let id = ObjectId {
        kind: ObjectKind::Chunk,
        machine,
        mount: 0,
        log_id: 1,
        sequence,
        created_s: 1,
        chunk: 0,
        offset_units: 1,
        capacity_units: 1,
        cookie: 9,
    };
    IdBytes::new(id.encode())
}

fn token_of(opcode: Opcode, head: &[u8]) -> Token {
    match opcode {
        Opcode::Put => heads::decode::<heads::Put>(head).expect("put").token,
        Opcode::Modify => heads::decode::<heads::Modify>(head).expect("modify").token,
        Opcode::Delete => heads::decode::<heads::Delete>(head).expect("delete").token,
        Opcode::Undelete => heads::decode::<heads::Undelete>(head).expect("undelete").token,
        other => panic!("{other} is no mutation"),
    }
}

fn id_of(opcode: Opcode, head: &[u8]) -> IdBytes {
    match opcode {
        Opcode::Modify => heads::decode::<heads::Modify>(head).expect("modify").id,
        Opcode::Delete => heads::decode::<heads::Delete>(head).expect("delete").id,
        Opcode::Undelete => heads::decode::<heads::Undelete>(head).expect("undelete").id,
        other => panic!("{other} names no object"),
    }
}
