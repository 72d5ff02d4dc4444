//! A storage in this process, and a client that speaks raw frames: what tests of the daemon start with.
#![allow(dead_code, missing_docs, reason = "each test file uses a part of it")]
#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "a test fails here")]

pub mod cables;
pub mod files;
pub mod machines;
pub mod proxy;
pub mod rooms;

use bytes::{Bytes, BytesMut};
use folio::format::crc::crc32c;
use folio::format::ids::Token;
use folio::messages::frame::{
    FLAG_LAST, FLAG_STREAMED, Frame, FrameDecoder, Kind, Limits, Meta, encode,
};
use folio::messages::handshake::{Auth, ClientHandshake, HelloAnswer, Next};
use folio::messages::heads::{
    self, DataEnd, Delete, Get, IdBytes, Modify, ObjectHead, Put, Undelete, WINDOW, WindowHead,
    Written,
};
use folio::messages::opcode::{Opcode, Role};
use folio::settings::{Environment, Source, StorageSettings};
use folio::storage::{StartOptions, Storage};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// A running storage; stopped in order when dropped.
pub struct Node {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Settings of a storage with `mounts` mounts below `dir`, some keys changed.
pub fn settings(dir: &Path, mounts: usize, extra: &[(&str, &str)]) -> StorageSettings {
    let mut keys: Vec<(String, String)> = [
        ("listen", "127.0.0.1:0"),
        ("admin_listen", ""),
        ("metrics_listen", ""),
        ("group", "test"),
        ("syncgroup", "a"),
        ("machine_id", "1"),
        ("trackers", "127.0.0.1:1"),
        ("store.reserve_free", "0"),
        ("store.chunkfile_size", "4MiB"),
        ("store.single_file_threshold", "256KiB"),
    ]
    .into_iter()
    .chain(extra.iter().copied())
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    for index in 0..mounts {
        keys.push((format!("mounts[{index}].index"), index.to_string()));
        let path = dir.join(format!("m{index}"));
        keys.push((format!("mounts[{index}].path"), path.display().to_string()));
    }
    let source = Source::Given { name: "test", keys: &keys };
    StorageSettings::load(source, &Environment::of(&[])).expect("settings").settings
}

impl Node {
    pub fn start(dir: &Path, mounts: usize, extra: &[(&str, &str)]) -> Self {
        Self::start_with(settings(dir, mounts, extra), |_| {})
    }

    /// `look` sees the running storage before anything is asked of it.
    pub fn start_with(
        settings: StorageSettings,
        look: impl FnOnce(&Storage) + Send + 'static,
    ) -> Self {
        Self::start_found_after(settings, Duration::ZERO, look)
    }

    /// A new mount waits so long for the word of a tracker.
    pub fn start_found_after(
        settings: StorageSettings,
        found_after: Duration,
        look: impl FnOnce(&Storage) + Send + 'static,
    ) -> Self {
        let (tell, hear) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix::System::new().block_on(async move {
                let options = StartOptions { create_folders: true, found_after };
                let storage =
                    folio::storage::start(settings, options).await.expect("storage starts");
                storage.joined().await;
                look(&storage);
                tell.send(storage.address()).expect("the test waits");
                let _ = stopped.await;
                let errors = storage.stop(Duration::from_secs(60)).await;
                assert!(errors.is_empty(), "{errors:?}");
            });
        });
        let address = hear.recv().expect("storage starts");
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address, Role::Client)
    }

    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the storage panicked");
        }
    }
}

static CLIENTS: AtomicU64 = AtomicU64::new(1);

/// Blocking, one connection, answers in any order.
pub struct Client {
    stream: TcpStream,
    decoder: FrameDecoder,
    buffer: BytesMut,
    next_id: u64,
    uuid: [u8; 16],
    sequence: u64,
    pub server_time_ms: u64,
    kept: VecDeque<Frame>,
}

/// Status and frame.
pub type Outcome<T> = Result<T, folio::messages::error::ErrorCode>;

impl Client {
    pub fn connect(address: SocketAddr, role: Role) -> Self {
        Self::connect_with(address, role, None)
    }

    /// With the key of the role, where one is asked for.
    pub fn connect_with(address: SocketAddr, role: Role, key: Option<&[u8]>) -> Self {
        let mut client = Self::raw(address);
        if let Some((mut handshake, proof)) = client.hello(role, key) {
            let id = client.send(Opcode::Auth, 0, &proof, b"");
            let answer = client.outcome(id).expect("the key is right");
            handshake.on_auth_answer(&answer).expect("the node knows the key");
        }
        client
    }

    /// The first step of a handshake; what comes next if a key is asked for.
    pub fn hello(
        &mut self,
        role: Role,
        key: Option<&[u8]>,
    ) -> Option<(ClientHandshake<Vec<u8>>, Auth)> {
        let keys = key.map(<[u8]>::to_vec).into_iter().collect();
        let mut handshake = ClientHandshake::new(role, "test", self.uuid, keys, [7; 32]);
        let id = self.send(Opcode::Hello, 0, handshake.hello(), b"");
        let answer: HelloAnswer = self.outcome(id).expect("hello answer");
        self.server_time_ms = answer.server_time_ms;
        match handshake.on_hello_answer(answer).expect("both have a key, or none") {
            Next::Begin(_) => None,
            Next::Prove(proof) => Some((handshake, proof)),
        }
    }

    /// Connected, without a handshake.
    pub fn raw(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&CLIENTS.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        uuid[8..12].copy_from_slice(&std::process::id().to_le_bytes());
        Self {
            stream,
            decoder: FrameDecoder::new(Limits::SESSION),
            buffer: BytesMut::new(),
            next_id: 1,
            uuid,
            sequence: 0,
            server_time_ms: 0,
            kept: VecDeque::new(),
        }
    }

    pub fn token(&mut self) -> Token {
        self.sequence += 1;
        Token {
            client: self.uuid,
            sequence: self.sequence,
            lowest_unanswered: 1,
            issued_ms: self.server_time_ms,
        }
    }

    pub fn send<H: serde::Serialize>(
        &mut self,
        opcode: Opcode,
        flags: u8,
        head: &H,
        payload: &[u8],
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let meta = Meta::request(opcode.as_u16(), id).with_flags(flags);
        self.frame(meta, head, payload);
        id
    }

    pub fn frame<H: serde::Serialize>(&mut self, meta: Meta, head: &H, payload: &[u8]) {
        let mut out = BytesMut::new();
        encode(&mut out, meta, head, payload, crc32c(payload)).expect("a frame");
        self.stream.write_all(&out).expect("writes");
    }

    /// Many requests in one write.
    pub fn write_all(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("writes");
    }

    /// The next frame, `None` at the end.
    pub fn read(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).expect("a whole frame") {
                return Some(frame);
            }
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&bytes[..n]),
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// The next frame, `None` when the other end has closed, even in the middle of what we sent.
    pub fn read_or_end(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).expect("a whole frame") {
                return Some(frame);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("neither an answer nor an end: {error}"),
            }
        }
    }

    /// Writes, if the other end still listens.
    pub fn try_write(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
                ),
                "{error}"
            ),
        }
    }

    /// Nothing more will be sent.
    pub fn half_close(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("shut down");
    }

    /// The next frame of this request and kind; others are kept.
    pub fn wait(&mut self, id: u64, kind: Kind) -> Frame {
        let fits = |frame: &Frame| {
            let meta = frame.header.meta;
            meta.request_id == id && (meta.kind == kind || meta.kind == Kind::Answer)
        };
        if let Some(at) = self.kept.iter().position(&fits) {
            return self.kept.remove(at).expect("it is there");
        }
        loop {
            let frame = self.read().expect("an answer");
            if fits(&frame) {
                return frame;
            }
            self.kept.push_back(frame);
        }
    }

    pub fn answer(&mut self, id: u64) -> Frame {
        self.wait(id, Kind::Answer)
    }

    pub fn outcome<T: for<'a> serde::Deserialize<'a>>(&mut self, id: u64) -> Outcome<T> {
        let frame = self.answer(id);
        outcome_of(&frame)
    }

    pub fn put(&mut self, payload: &[u8]) -> Outcome<Written> {
        let id = self.send_put(payload, None);
        self.outcome(id)
    }

    pub fn send_put(&mut self, payload: &[u8], mount: Option<u8>) -> u64 {
        let token = self.token();
        let length = Some(payload.len() as u64);
        self.send(Opcode::Put, 0, &Put { token, mount, reserve: None, length }, payload)
    }

    pub fn modify(&mut self, id: &IdBytes, payload: &[u8]) -> Outcome<Written> {
        let id = self.send_modify(id, payload);
        self.outcome(id)
    }

    pub fn send_modify(&mut self, id: &IdBytes, payload: &[u8]) -> u64 {
        let token = self.token();
        let length = Some(payload.len() as u64);
        self.send(Opcode::Modify, 0, &Modify { id: *id, token, if_opver: None, length }, payload)
    }

    pub fn delete(&mut self, id: &IdBytes) -> Outcome<Written> {
        let token = self.token();
        let id = self.send(Opcode::Delete, 0, &Delete { id: *id, token, if_opver: None }, b"");
        self.outcome(id)
    }

    pub fn undelete(&mut self, id: &IdBytes) -> Outcome<Written> {
        let token = self.token();
        let id = self.send(Opcode::Undelete, 0, &Undelete { id: *id, token }, b"");
        self.outcome(id)
    }

    pub fn get(&mut self, id: &IdBytes) -> Outcome<Vec<u8>> {
        self.get_range(id, 0, None).map(|(_, bytes)| bytes)
    }

    /// Small answers and streamed ones.
    pub fn get_range(
        &mut self,
        id: &IdBytes,
        first: u64,
        last: Option<u64>,
    ) -> Outcome<(ObjectHead, Vec<u8>)> {
        let head = Get { id: *id, first, last, min_opver: None, local_only: false, window: WINDOW };
        let request = self.send(Opcode::Get, 0, &head, b"");
        let frame = self.answer(request);
        let object: ObjectHead = outcome_of(&frame)?;
        if !frame.header.has(FLAG_STREAMED) {
            return Ok((object, frame.into_payload().to_vec()));
        }
        let mut bytes = Vec::new();
        loop {
            let frame = self.wait(request, Kind::Data);
            if frame.header.meta.kind == Kind::Answer {
                return Err(outcome_of::<()>(&frame).expect_err("an error ends a stream"));
            }
            bytes.extend_from_slice(frame.payload());
            if frame.header.has(FLAG_LAST) {
                let end: DataEnd = heads::decode(frame.head()).expect("the end");
                assert_eq!((end.length, end.crc32c), (bytes.len() as u64, crc32c(&bytes)));
                return Ok((object, bytes));
            }
            let meta = Meta::of_kind(Kind::Window, Opcode::Get.as_u16(), request);
            let taken = u32::try_from(frame.payload().len()).expect("a frame");
            self.frame(meta, &WindowHead { bytes: taken }, b"");
        }
    }

    /// Begins a streamed put; sends `bytes` as the window allows, without the end.
    pub fn begin_stream(&mut self, length: Option<u64>, bytes: &[u8]) -> u64 {
        let token = self.token();
        let head = Put { token, mount: None, reserve: None, length };
        let request = self.send(Opcode::Put, FLAG_STREAMED, &head, b"");
        self.pieces(request, bytes).expect("the upload goes on");
        request
    }

    fn pieces(&mut self, request: u64, bytes: &[u8]) -> Result<(), Frame> {
        let mut allowed = 0_usize;
        for piece in bytes.chunks(100_000) {
            while allowed < piece.len() {
                let frame = self.wait(request, Kind::Window);
                if frame.header.meta.kind == Kind::Answer {
                    return Err(frame);
                }
                let window: WindowHead = heads::decode(frame.head()).expect("a window");
                allowed += window.bytes as usize;
            }
            allowed -= piece.len();
            let meta = Meta::of_kind(Kind::Data, Opcode::Put.as_u16(), request);
            self.frame(meta, &(), piece);
        }
        Ok(())
    }

    /// A whole streamed put.
    pub fn put_stream(&mut self, length: Option<u64>, bytes: &[u8]) -> Outcome<Written> {
        let token = self.token();
        let head = Put { token, mount: None, reserve: None, length };
        let request = self.send(Opcode::Put, FLAG_STREAMED, &head, b"");
        if let Err(frame) = self.pieces(request, bytes) {
            return outcome_of(&frame);
        }
        self.end_stream(request, bytes);
        self.outcome(request)
    }

    pub fn end_stream(&mut self, request: u64, bytes: &[u8]) {
        let meta = Meta::of_kind(Kind::Data, Opcode::Put.as_u16(), request);
        let end = DataEnd { length: bytes.len() as u64, crc32c: crc32c(bytes) };
        self.frame(meta.with_flags(FLAG_LAST), &end, b"");
    }
}

pub fn outcome_of<T: for<'a> serde::Deserialize<'a>>(frame: &Frame) -> Outcome<T> {
    match frame.header.meta.status {
        0 => Ok(heads::decode(frame.head()).expect("the head of the answer")),
        status => Err(folio::messages::error::ErrorCode::of_status(status)),
    }
}

/// Bytes that differ from one number to the next.
pub fn content(seed: usize, len: usize) -> Bytes {
    (0..len).map(|i| (i.wrapping_mul(31) ^ seed.wrapping_mul(7) ^ (i >> 8)) as u8).collect()
}
