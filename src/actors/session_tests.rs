use std::path::Path;

use tokio::io::DuplexStream;

use super::*;
use crate::messages::handshake::{Auth, AuthAnswer, ClientHandshake, HelloAnswer, Next};
use crate::messages::heads::{self, Ping, Pong, Uuid};
use crate::settings::Keys;

struct Echo;

impl Service for Echo {
    async fn call(&self, _: &Session, opcode: Opcode, request: Frame) -> Result<Answer, Problem> {
        match opcode {
            Opcode::Ping => {
                heads::decode::<Ping>(request.head())
                    .map_err(|e| Problem::new(e.code(), e.to_string()))?;
                Answer::new(request.header.meta, &Pong { server_time_ms: 7 }, &Bytes::new())
            }
            _ => Err(Problem::new(ErrorCode::Failed, "reached the service")),
        }
    }
}

fn config(keys: KeyRing) -> Arc<SessionConfig> {
    // A dropped sender means that the daemon is gone.
    let (running, stopping) = watch::channel(false);
    std::mem::forget(running);
    Arc::new(SessionConfig {
        tls: crate::tls::Tls::default(),
        node: NodeIdentity {
            kind: Daemon::Tracker,
            group: String::new(),
            syncgroup: String::new(),
            machine: 0,
            instance: Uuid::new([1; 16]),
            version: "1".into(),
        },
        name: "tracker test".into(),
        keys,
        handshake_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(300),
        stopping,
    })
}

fn keys(text: &str) -> KeyRing {
    KeyRing::new(Some(Keys::parse(Path::new("test"), text).expect("keys")))
}

const ALL: &str =
    "client 000102030405060708090a0b0c0d0e0f\npeer 101112131415161718191a1b1c1d1e1f\n";

/// A client around a pipe whose other end is served.
fn connect(keys: KeyRing) -> (Wire<DuplexStream>, tokio::task::JoinHandle<Ended>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let served = actix_rt::spawn(async move {
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        serve(far, from, &Certified::NotAsked, config(keys), &Echo).await
    });
    (Wire::new(near, Limits::SESSION), served)
}

async fn ask<H: Serialize>(wire: &mut Wire<DuplexStream>, opcode: u16, head: &H) -> Frame {
    let mut out = BytesMut::new();
    encode(&mut out, Meta::request(opcode, 9), head, b"", 0).expect("encodes");
    wire.write(&out).await.expect("written");
    wire.read().await.expect("an answer").expect("an answer")
}

fn error(frame: &Frame) -> (ErrorCode, String) {
    let head: ErrorHead = heads::decode(frame.head()).expect("an error head");
    assert_eq!(frame.header.meta.status, head.code);
    (ErrorCode::of_status(head.code), head.message)
}

async fn begin(wire: &mut Wire<DuplexStream>, role: Role, key: &[u8]) -> Result<(), ErrorCode> {
    let keys = if key.is_empty() { vec![] } else { vec![key.to_vec()] };
    let mut client = ClientHandshake::new(role, "test", [3; 16], keys, [4; 32]);
    let frame = ask(wire, Opcode::Hello.as_u16(), client.hello()).await;
    if frame.header.meta.status != 0 {
        return Err(error(&frame).0);
    }
    let answer: HelloAnswer = heads::decode(frame.head()).expect("an answer to hello");
    let Next::Prove(auth) = client.on_hello_answer(answer).map_err(|r| r.code)? else {
        return Ok(());
    };
    let auth: Auth = auth;
    let frame = ask(wire, Opcode::Auth.as_u16(), &auth).await;
    if frame.header.meta.status != 0 {
        return Err(error(&frame).0);
    }
    let answer: AuthAnswer = heads::decode(frame.head()).expect("an answer to auth");
    client.on_auth_answer(&answer).map(|_| ()).map_err(|r| r.code)
}

#[actix_rt::test]
async fn a_session_serves_requests_until_the_other_end_closes() {
    let (mut wire, served) = connect(KeyRing::default());
    begin(&mut wire, Role::Client, b"").await.expect("keyless");
    for _ in 0..3 {
        let frame = ask(&mut wire, Opcode::Ping.as_u16(), &Ping {}).await;
        assert_eq!(heads::decode::<Pong>(frame.head()).expect("pong").server_time_ms, 7);
    }
    drop(wire);
    assert!(matches!(served.await.expect("no panic"), Ended::Closed));
}

#[actix_rt::test]
async fn nobody_gets_in_without_the_key_of_the_role() {
    let right: Vec<u8> = (0..16).collect();
    let (mut wire, _served) = connect(keys(ALL));
    assert_eq!(begin(&mut wire, Role::Client, &right).await, Ok(()));
    let (mut wire, served) = connect(keys(ALL));
    assert_eq!(begin(&mut wire, Role::Peer, &right).await, Err(ErrorCode::Unauthorized));
    assert!(matches!(served.await.expect("no panic"), Ended::Refused(_)));
    let (mut wire, _served) = connect(keys(ALL));
    assert_eq!(begin(&mut wire, Role::Admin, &right).await, Err(ErrorCode::Unauthorized));
    let (mut wire, _served) = connect(keys(ALL));
    let frame = ask(&mut wire, Opcode::Ping.as_u16(), &Ping {}).await;
    assert_eq!(error(&frame).0, ErrorCode::Unauthorized);
}

#[actix_rt::test]
async fn every_opcode_and_role_that_the_table_forbids_stops_before_the_service() {
    for entry in Opcode::TABLE {
        for role in Role::ALL {
            let (mut wire, _served) = connect(KeyRing::default());
            begin(&mut wire, role, b"").await.expect("keyless");
            let number = entry.opcode.as_u16();
            let frame = ask(&mut wire, number, &Ping {}).await;
            let allowed = authorize(number, Daemon::Tracker, Some(role)).is_ok();
            let reached = frame.header.meta.status == 0 || error(&frame).1 == "reached the service";
            assert_eq!(reached, allowed, "{} {role}", entry.name);
            let again = ask(&mut wire, Opcode::Ping.as_u16(), &Ping {}).await;
            assert_eq!(again.header.meta.status, 0, "a refused request does not end the session");
        }
    }
}

#[actix_rt::test]
async fn garbage_and_oversized_frames_are_answered_and_cut() {
    let (mut wire, served) = connect(KeyRing::default());
    wire.write(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    assert!(wire.read().await.expect("closed").is_none());
    assert!(matches!(served.await.expect("no panic"), Ended::Frame(FrameError::Magic)));

    let (mut wire, served) = connect(KeyRing::default());
    begin(&mut wire, Role::Client, b"").await.expect("keyless");
    let frame = ask(&mut wire, Opcode::Ping.as_u16(), &"x".repeat(60_000)).await;
    assert_eq!(error(&frame).0, ErrorCode::TooLarge);
    assert!(matches!(served.await.expect("no panic"), Ended::Frame(FrameError::TooLarge { .. })));
}

#[actix_rt::test]
async fn a_malformed_head_is_answered_and_the_session_goes_on() {
    let (mut wire, _served) = connect(KeyRing::default());
    begin(&mut wire, Role::Client, b"").await.expect("keyless");
    let frame = ask(&mut wire, Opcode::Ping.as_u16(), &"no array").await;
    assert_eq!(error(&frame).0, ErrorCode::BadRequest);
    let frame = ask(&mut wire, Opcode::Ping.as_u16(), &Ping {}).await;
    assert_eq!(frame.header.meta.status, 0);
}

#[actix_rt::test]
async fn the_silent_are_cut_off() {
    tokio::time::pause();
    let (_wire, served) = connect(KeyRing::default());
    assert!(matches!(served.await.expect("no panic"), Ended::Silent("handshake")));
    let (mut wire, served) = connect(KeyRing::default());
    begin(&mut wire, Role::Client, b"").await.expect("keyless");
    assert!(matches!(served.await.expect("no panic"), Ended::Silent("request")));
}

#[actix_rt::test]
async fn who_drips_bytes_is_cut_off_too() {
    tokio::time::pause();
    let (mut wire, served) = connect(KeyRing::default());
    let mut out = BytesMut::new();
    encode(&mut out, Meta::request(1, 1), &Ping {}, b"", 0).expect("encodes");
    for byte in out.iter().take(20) {
        wire.write(&[*byte]).await.unwrap_or_default();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(matches!(served.await.expect("no panic"), Ended::Silent("handshake")));
}
