//! TLS, over real sockets in one process: what must not be served, believed, read or interrupted.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::err_expect,
    reason = "a test fails here"
)]

#[path = "../common/certificates.rs"]
mod certificates;
mod cluster;
mod rotation;

use certificates::{Authority, Files, write_secret};
use cluster::{Cluster, NOW_S, PATIENCE, get, machine, noise, put, run, start_tracker};
use folio::actors::caller::{Caller, Identity};
use folio::actors::session::{self, KeyRing, SessionConfig};
use folio::client::{Client, ClientOptions, ErrorCode, GetOptions};
use folio::cluster::view::{Load, Service, StorageReport};
use folio::messages::heads::{Heartbeat, NodeIdentity, Uuid, encode_map};
use folio::messages::opcode::{Daemon, Opcode, Role};
use folio::settings::TlsSettings;
use folio::tls::{ClientTls, MachineName, Material, Tls};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Small and large, in one frame and streamed, on every mirror.
#[test]
fn what_is_stored_through_tls_is_on_every_mirror() {
    run(async {
        let cluster = Cluster::start(3, &[]).await;
        let client = Client::connect(cluster.options()).await.expect("connects");
        for (seed, len) in [0, 1, 4096, 70_000, 256 << 10, 3_000_000].into_iter().enumerate() {
            let bytes = noise(len, seed as u64);
            let id = put(&client, &bytes).await.expect("stored");
            for machine in 1..=3 {
                let from = GetOptions { from: Some(machine), ..GetOptions::default() };
                assert!(get(&client, &id, from).await == bytes, "{len} bytes from {machine}");
            }
        }
        drop(client);
        cluster.stop().await;
    });
}

/// Frames, console and metrics of both daemons.
#[test]
fn nobody_in_plaintext_is_served_and_everybody_is_told_why() {
    run(async {
        let cluster = Cluster::start(1, &[("limits.handshake_timeout", "500ms")]).await;
        let refused = Client::connect(cluster.plain()).await.err().expect("refused");
        assert_eq!(refused.code, ErrorCode::Unauthorized);
        let text = format!("{} {}", refused.message, refused.remedy);
        assert!(text.contains("TLS") && text.contains("--ca"), "{text}");

        let storage = &cluster.storages[0];
        let (consoles, pages) = (
            [storage.admin_address(), cluster.tracker.admin_address()],
            [storage.metrics_address(), cluster.tracker.metrics_address()],
        );
        let asked = tokio::task::spawn_blocking(move || {
            for console in consoles {
                for line in ["", "status\n"] {
                    let said = say(console.expect("on"), line);
                    assert!(said.starts_with("error:") && said.contains("--ca"), "{said:?}");
                }
            }
            for page in pages {
                let said = say(page.expect("on"), "GET /metrics HTTP/1.1\r\n\r\n");
                assert!(said.starts_with("HTTP/1.1 400") && said.contains("https"), "{said:?}");
            }
        });
        asked.await.expect("told");
        cluster.stop().await;
    });
}

fn say(address: SocketAddr, text: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("connects");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.write_all(text.as_bytes()).expect("sent");
    let mut said = String::new();
    socket.read_to_string(&mut said).expect("told, then closed");
    said
}

#[test]
fn tls_towards_a_plaintext_port_fails_at_once_with_the_cause() {
    run(async {
        let dir = tempfile::tempdir().expect("folder");
        Authority::new("test CA").write(&dir.path().join("ca.pem"));
        let tracker = start_tracker(&[]);
        let tls = ClientTls::of_ca_file(&dir.path().join("ca.pem")).expect("a CA");
        let trackers = vec![tracker.address().to_string()];
        let timeout = Duration::from_secs(1);
        let options =
            ClientOptions { trackers, tls: Some(tls.clone()), timeout, ..Default::default() };
        let refused = Client::connect(options).await.err().expect("refused");
        assert!(refused.message.contains("TLS"), "{}", refused.message);
        let console = tracker.admin_address().expect("on");
        let refused = tokio::task::spawn_blocking(move || {
            let socket = TcpStream::connect(console).expect("connects");
            tls.connect_blocking(socket, &console.to_string()).err().expect("refused").to_string()
        });
        let refused = refused.await.expect("no panic");
        assert!(refused.contains("speaks no TLS"), "{refused}");
        tracker.stop(PATIENCE).await;
    });
}

/// Another CA; a certificate for another host.
#[test]
fn no_client_believes_a_certificate_that_is_not_the_nodes() {
    run(async {
        let dir = tempfile::tempdir().expect("folder");
        let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
        theirs.write(&dir.path().join("theirs.pem"));
        let files = ours.sign(dir.path(), "elsewhere", &["10.9.8.7", "books.example"], &[], 2090);
        let tracker = start_tracker(&files.keys());
        for (ca, says) in [("theirs.pem", "not signed by the CA"), ("ca.pem", "books.example")] {
            let tls = ClientTls::of_ca_file(&dir.path().join(ca)).expect("a CA");
            let trackers = vec![tracker.address().to_string()];
            let options = ClientOptions { trackers, tls: Some(tls), ..Default::default() };
            let begun = Instant::now();
            let refused = Client::connect(options).await.err().expect("refused");
            assert_eq!(refused.code, ErrorCode::Unauthorized, "{}", refused.message);
            assert!(refused.message.contains(says), "{}", refused.message);
            assert!(begun.elapsed() < Duration::from_secs(9), "it is not tried again and again");
        }
        tracker.stop(PATIENCE).await;
    });
}

fn load(files: &Files, machine: Option<&str>) -> String {
    let settings = TlsSettings {
        cert: files.cert.clone(),
        key: files.key.clone(),
        ca: Some(files.ca.clone()),
    };
    let machine = machine.and_then(MachineName::parse);
    match Material::load(&settings, machine.as_ref(), NOW_S) {
        Ok(_) => "good".to_owned(),
        Err(problem) => problem.to_string(),
    }
}

/// Each is found at the start, and named with the key of the configuration, the file and what to do.
#[test]
fn no_bad_file_is_used() {
    let dir = tempfile::tempdir().expect("folder");
    let authority = Authority::new("ours");
    let good = machine(&authority, dir.path(), 1, 2090);
    assert_eq!(load(&good, Some("books/a/1")), "good");
    assert_eq!(load(&good, None), "good");
    let other = machine(&authority, dir.path(), 2, 2090);
    let expired = machine(&authority, dir.path(), 3, 2010);
    let foreign_dir = tempfile::tempdir().expect("folder");
    let foreign = machine(&Authority::new("theirs"), foreign_dir.path(), 1, 2090);
    let path = |name: &str, text: &str| {
        let path = dir.path().join(name);
        write_secret(&path, text);
        path
    };
    let loose = path("loose.key", &std::fs::read_to_string(&good.key).unwrap());
    std::fs::set_permissions(&loose, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let secret = "-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n";
    for (files, says) in [
        (other.clone(), "tls.cert|folio://books/a/2|subjectAltName URI:folio://books/a/1"),
        (expired, "tls.cert|expired on 2010-01-01|renew"),
        (Files { ca: good.ca.clone(), ..foreign }, "tls.cert|not signed by the CA|belong together"),
        (
            Files { key: other.key.clone(), ..good.clone() },
            "tls.key|not the key of the certificate",
        ),
        (Files { key: loose, ..good.clone() }, "tls.key|0640|chmod 600"),
        (Files { key: path("no.key", "nothing"), ..good.clone() }, "tls.key|no private key"),
        (Files { key: path("bad.key", secret), ..good.clone() }, "tls.key|give"),
        (Files { cert: path("no.pem", "nothing"), ..good.clone() }, "tls.cert|no certificate"),
        (Files { ca: path("no.ca", "nothing"), ..good.clone() }, "tls.ca|no certificate"),
        (Files { cert: dir.path().join("gone"), ..good.clone() }, "tls.cert|gone|may read it"),
        (Files { ca: dir.path().to_owned(), ..good.clone() }, "tls.ca|not a regular file"),
    ] {
        let found = load(&files, Some("books/a/1"));
        assert!(says.split('|').all(|word| found.contains(word)), "{says}: {found}");
        assert!(!found.contains("QUJD"), "{found}");
    }
}

fn identity(name: &str, files: Option<&Files>, ca: &Path) -> Identity {
    let settings = |files: &Files| TlsSettings {
        cert: files.cert.clone(),
        key: files.key.clone(),
        ca: Some(ca.to_owned()),
    };
    let tls = files.map(|files| Material::load(&settings(files), None, NOW_S).expect("good"));
    let tls = tls.map_or_else(Tls::default, Tls::new);
    let name = name.to_owned();
    Identity { role: Role::Peer, name, instance: [9; 16], keys: KeyRing::default(), tls }
}

fn report(machine: u16) -> StorageReport {
    StorageReport {
        group: "books".into(),
        syncgroup: "a".into(),
        machine,
        instance: [9; 16],
        advertise: "127.0.0.1:1".into(),
        admin: String::new(),
        version: String::new(),
        weight: 1,
        service: Service::Serving,
        mounts: Vec::new(),
        load: Load::default(),
        clock_ms: 0,
    }
}

/// With a good certificate of machine 7 nobody is machine 1, neither towards a storage nor towards a tracker.
#[test]
fn no_machine_passes_for_another() {
    run(async {
        let cluster = Cluster::start(1, &[]).await;
        let (storage, tracker) =
            (cluster.storages[0].address().to_string(), cluster.tracker.address().to_string());
        let seven = machine(&cluster.authority, cluster.dir.path(), 7, 2090);
        let ca = seven.ca.clone();
        for address in [&storage, &tracker] {
            let honest = identity("books/a/7", Some(&seven), &ca);
            Caller::connect(address, &honest, PATIENCE).await.map(drop).expect("it is machine 7");
            for claimed in ["books/a/1", "books/b/7", "someone"] {
                let liar = identity(claimed, Some(&seven), &ca);
                let refused = Caller::connect(address, &liar, PATIENCE).await.err();
                let refused = refused.expect("refused").to_string();
                assert!(refused.contains(claimed) && refused.contains("tls.cert"), "{refused}");
            }
        }

        // What a certificate names binds what is said later, too.
        let honest = identity("books/a/7", Some(&seven), &ca);
        let mut caller = Caller::connect(&tracker, &honest, PATIENCE).await.expect("machine 7");
        for (machine, good) in [(1, false), (7, true)] {
            let payload = encode_map(&report(machine)).expect("encodes");
            let head = Heartbeat { members: Vec::new(), forgotten: Vec::new() };
            let said = caller.call(Opcode::Heartbeat, &head, &payload, PATIENCE).await;
            assert_eq!(said.is_ok(), good, "{:?}", said.err().map(|error| error.to_string()));
        }
        cluster.stop().await;
    });
}

/// A peer shows a certificate; one that was signed by somebody else does not even get as far as saying a name.
#[test]
fn no_peer_without_a_certificate_of_ours_is_served() {
    run(async {
        let cluster = Cluster::start(1, &[]).await;
        let foreign = tempfile::tempdir().expect("folder");
        let theirs = machine(&Authority::new("theirs"), foreign.path(), 1, 2090);
        let ours = cluster.dir.path().join("ca.pem");
        for address in [cluster.storages[0].address(), cluster.tracker.address()] {
            let address = address.to_string();
            // Trusts us, and shows what its own CA signed.
            let both = foreign.path().join("both.pem");
            let text = [&ours, &theirs.ca].map(|path| std::fs::read_to_string(path).unwrap());
            std::fs::write(&both, text.concat()).unwrap();
            let stranger = identity("books/a/1", Some(&theirs), &both);
            let refused = Caller::connect(&address, &stranger, PATIENCE).await.err();
            let refused = refused.expect("refused").to_string();
            assert!(refused.contains("did not sign it"), "{refused}");

            let plain = identity("books/a/1", None, &ours);
            let refused = Caller::connect(&address, &plain, PATIENCE).await.err();
            let refused = refused.expect("refused").to_string();
            assert!(refused.contains("TLS"), "{refused}");

            // As a client does: TLS, and no certificate.
            let tls = ClientTls::of_ca_file(&ours).expect("a CA");
            let socket = tokio::net::TcpStream::connect(&address).await.expect("connects");
            let stream = tls.connect(socket, &address).await.expect("encrypted");
            let said = hello_as_peer(stream).await;
            assert!(said.contains("needs a certificate"), "{said}");
        }
        cluster.stop().await;
    });
}

/// What is answered to somebody who says that he is a peer.
async fn hello_as_peer(stream: folio::tls::Stream) -> String {
    use folio::messages::frame::{Limits, Meta, encode};
    use folio::messages::handshake::ClientHandshake;
    let mut wire = session::Wire::new(stream, Limits::SESSION);
    let keys: Vec<Vec<u8>> = Vec::new();
    let shake = ClientHandshake::new(Role::Peer, "books/a/1", [1; 16], keys, [2; 32]);
    let mut out = bytes::BytesMut::new();
    encode(&mut out, Meta::request(Opcode::Hello.as_u16(), 1), shake.hello(), b"", 0).unwrap();
    wire.write(&out).await.expect("sent");
    let frame = wire.read().await.expect("answered").expect("a frame");
    let head: folio::messages::heads::ErrorHead =
        folio::messages::heads::decode(frame.head()).expect("a refusal");
    head.message
}

/// The other direction: a daemon that calls itself machine 1 with the certificate of machine 7.
#[test]
fn no_storage_calls_one_that_is_not_the_machine_it_says() {
    run(async {
        let dir = tempfile::tempdir().expect("folder");
        let authority = Authority::new("ours");
        let seven = machine(&authority, dir.path(), 7, 2090);
        let one = machine(&authority, dir.path(), 1, 2090);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("an address").to_string();
        let (_stop, stopping) = tokio::sync::watch::channel(false);
        let config = SessionConfig {
            node: NodeIdentity {
                kind: Daemon::Storage,
                group: "books".into(),
                syncgroup: "a".into(),
                machine: 2,
                instance: Uuid::new([3; 16]),
                version: String::new(),
            },
            name: "books/a/2".into(),
            keys: KeyRing::default(),
            tls: identity("", Some(&seven), &seven.ca).tls,
            handshake_timeout: PATIENCE,
            idle_timeout: PATIENCE,
            stopping,
        };
        let served = actix::spawn(async move {
            let (socket, _) = listener.accept().await.expect("called");
            let (stream, certified) = session::secure(socket, &config).await.expect("encrypted");
            let limits = folio::messages::frame::Limits::HANDSHAKE;
            let mut wire = session::Wire::new(stream, limits);
            drop(session::begin(&mut wire, &config, &certified).await);
        });
        let caller = identity("books/a/1", Some(&one), &one.ca);
        let refused = Caller::connect(&address, &caller, PATIENCE).await.err();
        let refused = refused.expect("refused").to_string();
        assert!(refused.contains("folio://books/a/7"), "{refused}");
        served.await.expect("no panic");
    });
}

/// Sockets that never shake hands hold their places for `handshake_timeout` and no longer.
#[test]
fn silence_before_the_handshake_does_not_hold_a_place_for_long() {
    run(async {
        let more = [("limits.max_connections", "4"), ("limits.handshake_timeout", "300ms")];
        let cluster = Cluster::start(1, &more).await;
        let address = cluster.tracker.address();
        let silent = tokio::task::spawn_blocking(move || {
            let mut sockets: Vec<TcpStream> =
                (0..4).map(|_| TcpStream::connect(address).expect("connects")).collect();
            // One begins as TLS and goes no further.
            sockets[0].write_all(&[0x16, 3, 1, 2, 0]).unwrap_or_default();
            for mut socket in sockets {
                socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                let mut rest = Vec::new();
                // Closed, in order or by a reset.
                if let Err(error) = socket.read_to_end(&mut rest) {
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
                }
            }
        });
        silent.await.expect("all were closed");
        let client = Client::connect(cluster.options()).await.expect("served again");
        put(&client, b"after the silence").await.expect("stored");
        drop(client);
        cluster.stop().await;
    });
}
