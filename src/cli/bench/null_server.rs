//! The same frames without an engine: what the wire and the load alone can do, to hold the real figures against.

use super::super::exit::{Failure, Outcome};
use super::super::say;
use crate::actors::ambient;
use crate::client;
use crate::format::crc::crc32c;
use crate::format::ids::Tag;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{self, Frame, FrameDecoder, Limits, Meta};
use crate::messages::handshake::{self, Hello, KeyCheck, ServerHandshake};
use crate::messages::heads::{
    Acks, ErrorHead, ID_LEN, IdBytes, NodeIdentity, ObjectHead, Uuid, Written,
};
use crate::messages::opcode::{Daemon, Opcode};
use bytes::BytesMut;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Its group, by which a load knows that nothing is stored.
pub(super) const GROUP: &str = "null";

/// What every get is answered with.
struct Fixed {
    payload: Vec<u8>,
    crc: u32,
}

/// Serves until the process ends.
pub(super) async fn serve(listen: &str, size: u64) -> Outcome {
    let listener = TcpListener::bind(listen).await.map_err(|e| {
        Failure::failed(
            format!("cannot listen on {listen}: {e}"),
            "name another address with --listen",
        )
    })?;
    let address = listener.local_addr().map_err(|e| Failure::failed(e.to_string(), ""))?;
    say::line(format_args!("ready null-server={address}"))?;
    let payload = vec![0x5a; usize::try_from(size).unwrap_or(0)];
    let fixed = Rc::new(Fixed { crc: crc32c(&payload), payload });
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let fixed = Rc::clone(&fixed);
        tokio::task::spawn_local(async move {
            if let Err(failure) = connection(stream, &fixed).await {
                failure.print(false);
            }
        });
    }
}

async fn connection(mut stream: TcpStream, fixed: &Fixed) -> Outcome {
    let lost = |e: std::io::Error| Failure::failed(e.to_string(), "");
    stream.set_nodelay(true).map_err(lost)?;
    let node = NodeIdentity {
        kind: Daemon::Storage,
        group: GROUP.to_owned(),
        syncgroup: GROUP.to_owned(),
        machine: 1,
        instance: Uuid::new([0; 16]),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut hands = ServerHandshake::new(node, ambient::random().map_err(lost)?);
    let mut decoder = FrameDecoder::new(Limits::SESSION);
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    loop {
        output.clear();
        while let Some(frame) =
            FrameDecoder::decode(&mut decoder, &mut input).map_err(client::Error::from)?
        {
            answer(&frame, fixed, &mut hands, &mut output)?;
        }
        stream.write_all(&output).await.map_err(lost)?;
        input.reserve(64 << 10);
        if stream.read_buf(&mut input).await.map_err(lost)? == 0 {
            return Ok(());
        }
    }
}

fn answer(
    frame: &Frame,
    fixed: &Fixed,
    hands: &mut ServerHandshake,
    out: &mut BytesMut,
) -> Outcome {
    let Meta { opcode, request_id, .. } = frame.header.meta;
    let meta = Meta::answer(opcode, request_id);
    let encoded = match Opcode::from_u16(opcode) {
        Some(Opcode::Hello) => {
            let refused = |r: handshake::Refusal| Failure::new(r.code, r.message, r.remedy);
            let hello: Hello = handshake::read(frame.head()).map_err(refused)?;
            let now = ambient::wall_ms();
            let (head, _) = hands.on_hello(&hello, |_| KeyCheck::Open, now).map_err(refused)?;
            frame::encode(out, meta, &head, &[], 0)
        }
        Some(Opcode::Put | Opcode::Modify | Opcode::Delete) => {
            let head = Written {
                id: IdBytes::new([1; ID_LEN]),
                opver: Tag::default(),
                acks: Acks::Local,
                copies: 1,
                degraded: false,
            };
            frame::encode(out, meta, &head, &[], 0)
        }
        Some(Opcode::Get) => {
            let length = fixed.payload.len() as u64;
            let head = ObjectHead {
                opver: Tag::default(),
                length,
                first: 0,
                count: length,
                crc32c: fixed.crc,
                created_ms: 0,
                modified_ms: 0,
            };
            frame::encode(out, meta, &head, &fixed.payload, fixed.crc)
        }
        Some(_) | None => {
            let code = ErrorCode::UnknownOpcode;
            let head = ErrorHead {
                code: code.as_u16(),
                message: "the null-server only puts, gets, modifies and deletes".to_owned(),
                remedy: String::new(),
                node: GROUP.to_owned(),
            };
            frame::encode(out, Meta::refusal(opcode, request_id, code), &head, &[], 0)
        }
    };
    Ok(encoded.map_err(client::Error::from)?)
}
