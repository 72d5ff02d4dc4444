use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;

use tokio::io::AsyncReadExt;

use super::*;
use crate::actors::acceptor::bind;
use crate::actors::threads::Threads;
use crate::settings::Keys;

const ADMIN: &str = "admin 101112131415161718191a1b1c1d1e1f\n";

fn source() -> ConsoleSource {
    ConsoleSource::new("tracker@test", "tracker", "9.9.9")
        .command("status", "", "how it is", |words| async move {
            no_arguments(&words)?;
            Ok(ConsoleAnswer::new().fact("state", "well").fact("dots", ".hidden"))
        })
        .command("fail", "", "always", |_| async { Err("broken\nin two".to_owned()) })
        .command("hang", "", "for ever", |_| std::future::pending())
}

fn config(keys: KeyRing) -> ConsoleConfig {
    ConsoleConfig {
        source: source(),
        keys,
        tls: Tls::default(),
        handshake_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(60),
    }
}

fn admin_keys() -> KeyRing {
    KeyRing::new(Some(Keys::parse(Path::new("test"), ADMIN).expect("keys")))
}

/// Everything that the console says to `input`.
async fn talk(keys: KeyRing, input: &[u8]) -> String {
    let (near, far) = tokio::io::duplex(1 << 20);
    let served =
        actix_rt::spawn(async move { serve(far, &config(keys), "a test").await.map_err(drop) });
    let (mut read, mut write) = tokio::io::split(near);
    write.write_all(input).await.expect("written");
    write.shutdown().await.expect("half closed");
    let mut text = String::new();
    read.read_to_string(&mut text).await.expect("text");
    served.await.expect("no panic").unwrap_or_default();
    text
}

#[actix_rt::test]
async fn a_session_by_hand_reads_as_promised() {
    let text = talk(KeyRing::default(), b"status\r\nstatus json\nquit\n").await;
    let want = "folio node=tracker@test role=tracker version=9.9.9\nstate: well\ndots:  .hidden\n.\n\
                {\"dots\":\".hidden\",\"state\":\"well\"}\n.\nbye\n.\n";
    assert_eq!(text, want);
}

#[actix_rt::test]
async fn every_error_is_one_line_that_starts_with_error() {
    let text =
        talk(KeyRing::default(), b"fail\nreboot\nstatus now\n\xff\nauth 00\nfail json\n").await;
    let lines: Vec<_> = text.lines().skip(1).filter(|line| *line != ".").collect();
    assert_eq!(lines.len(), 6, "{text}");
    for line in &lines {
        assert!(line.starts_with("error: "), "{line}");
    }
    assert_eq!(lines[0], "error: broken in two");
}

#[actix_rt::test]
async fn nothing_is_told_before_the_proof() {
    let text = talk(admin_keys(), b"status\nnodes json\nhelp auth\nhelp\nquit\n").await;
    assert!(!text.contains("well"), "{text}");
    let banner = text.lines().next().expect("a banner");
    let challenge = banner.rsplit_once(" challenge=").expect("a challenge").1;
    assert_eq!(challenge.len(), 32);
    assert!(text.contains(&format!("printf %s {challenge} | openssl dgst -sha256 -mac HMAC")));
}

#[actix_rt::test]
async fn three_wrong_proofs_end_the_session() {
    let text = talk(admin_keys(), b"auth 00\nauth 11\nauth 22\nauth 33\nhelp\n").await;
    assert_eq!(text.matches("error: wrong proof").count(), 3);
    assert!(!text.contains("one command a line"));
}

#[actix_rt::test]
async fn the_silent_and_the_stuck_are_given_up() {
    tokio::time::pause();
    let (near, far) = tokio::io::duplex(1 << 20);
    let served =
        actix_rt::spawn(async move { serve(far, &config(KeyRing::default()), "a test").await });
    let (mut read, mut write) = tokio::io::split(near);
    write.write_all(b"hang\n").await.expect("written");
    let mut text = String::new();
    read.read_to_string(&mut text).await.expect("until the idle timeout");
    assert!(text.contains("error: hang: no answer within 30s"), "{text}");
    assert!(text.contains("error: idle for too long"), "{text}");
    assert!(served.await.expect("no panic").is_ok());
}

#[actix_rt::test]
async fn who_never_reads_is_cut_off() {
    tokio::time::pause();
    let (near, far) = tokio::io::duplex(256);
    let served =
        actix_rt::spawn(async move { serve(far, &config(KeyRing::default()), "a test").await });
    let (_unread, mut write) = tokio::io::split(near);
    for _ in 0..20 {
        write.write_all(b"help\n").await.unwrap_or_default();
    }
    assert!(matches!(served.await.expect("no panic"), Err(LineError::Io(_))));
}

#[test]
fn without_a_key_only_loopback_listens() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 7500));
    let here = SocketAddr::from(([127, 0, 0, 1], 7500));
    assert!(check_address(everywhere, &KeyRing::default()).is_err());
    assert!(check_address(here, &KeyRing::default()).is_ok());
    assert!(check_address(everywhere, &admin_keys()).is_ok());
}

#[test]
fn over_a_real_socket_with_the_key() {
    actix::System::new().block_on(async {
        let listener = bind("admin_listen", SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let address = listener.local_addr().expect("address");
        let control = Threads::inline().start("control").expect("the caller's arbiter");
        let _acceptor = start(listener, config(admin_keys()), &control);
        let operator = tokio::task::spawn_blocking(move || {
            let stream = TcpStream::connect(address).expect("connects");
            let mut out = stream.try_clone().expect("a second handle");
            let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
            let banner = lines.next().expect("a banner");
            let challenge = banner.rsplit_once("challenge=").expect("a challenge").1.to_owned();
            let key: Vec<u8> = (16..32).collect();
            let proof = login::proof(&key, &challenge).expect("a proof");
            writeln!(out, "auth {proof}").expect("sent");
            assert_eq!(lines.next().as_deref(), Some("ok"));
            assert_eq!(lines.next().as_deref(), Some("."));
            writeln!(out, "status").expect("sent");
            lines.next().expect("an answer")
        });
        assert_eq!(operator.await.expect("no panic"), "state: well");
    });
}
