//! TLS as an operator has it: config files, the command line, `folio admin`, a scraper, SIGHUP.

use crate::certificates::{Authority, Files};
use crate::harness::cluster::{Cluster, Node};
use crate::harness::process::folio;
use crate::harness::run::Cli;
use crate::harness::{PATIENCE, eventually};
use std::process::Command;

/// Three storages and two trackers with keys, each with a certificate of its own.
struct Secured {
    cluster: Cluster,
    authority: Authority,
}

impl Secured {
    fn start() -> Self {
        let mut cluster = Cluster::new(2, &["a", "a", "a"], 1);
        let authority = Authority::new("test CA");
        let keys = cluster.dir.path().join("keys");
        Cli::default().run(["keygen", keys.to_str().expect("text")]).ok();
        let dir = cluster.dir.path().to_owned();
        let certify = |node: &mut Node, uris: &[&str]| {
            let files = authority.sign(&dir, &node.name, &["127.0.0.1"], uris, 2090);
            for (key, value) in files.keys() {
                node.config.set(&key, &format!("{value:?}"));
            }
            node.config.set("auth.key_file", &format!("{keys:?}"));
        };
        for node in &mut cluster.trackers {
            certify(node, &[]);
        }
        for (machine, node) in cluster.storages.iter_mut().enumerate() {
            certify(node, &[&format!("folio://g/a/{}", machine + 1)]);
        }
        Self { cluster: cluster.started(), authority }
    }

    fn path(&self, name: &str) -> String {
        self.cluster.dir.path().join(name).to_str().expect("text").to_owned()
    }

    fn cli(&self) -> Cli {
        let (key_file, ca) = (Some(self.path("keys")), Some(self.path("ca.pem")));
        Cli { key_file, ca, ..self.cluster.cli() }
    }

    fn admin(&self, node: &Node, command: &str) -> String {
        let console = node.console();
        let args = [&["admin", &console], &command.split(' ').collect::<Vec<_>>()[..]].concat();
        self.cli().run(args).ok().text()
    }
}

#[test]
fn a_cluster_with_certificates_serves_those_who_know_its_ca_and_nobody_else() {
    let mut secured = Secured::start();
    let cli = secured.cli();
    let id = cli.put("through TLS");
    for machine in ["1", "2", "3"] {
        let read = || {
            let answer = cli.run(["get", &id, "--from", machine]);
            (answer.code == 0 && answer.stdout == b"through TLS").then_some(())
        };
        eventually("it is on every mirror", PATIENCE, read);
    }
    cli.run(["bench", "put", "--connections", "4", "--count", "40"]).ok();

    // The same by the environment, without a warning.
    let by_env = folio()
        .args(["--tracker", &cli.trackers[0], "get", &id])
        .env("FOLIO_CA_FILE", secured.path("ca.pem"))
        .env("FOLIO_KEY_FILE", secured.path("keys"))
        .output()
        .expect("runs");
    assert_eq!(
        (by_env.stdout.as_slice(), by_env.stderr.as_slice()),
        (&b"through TLS"[..], &b""[..])
    );

    let plain = Cli { ca: None, ..secured.cli() };
    plain.run(["get", &id]).exits(1).says(&["TLS", "--ca"]);
    Authority::new("another").write(&secured.cluster.dir.path().join("other.pem"));
    let wrong = Cli { ca: Some(secured.path("other.pem")), ..secured.cli() };
    wrong.run(["get", &id]).exits(1).says(&["not signed by the CA"]);
    let missing = Cli { ca: Some(secured.path("nothing.pem")), ..secured.cli() };
    missing.run(["get", &id]).exits(2).says(&["nothing.pem"]);

    // Consoles and metrics.
    let nodes = [&secured.cluster.trackers[0], &secured.cluster.storages[0]];
    for node in nodes {
        assert!(secured.admin(node, "status").contains("state"), "{}", node.name);
        wrong.run(["admin", &node.console(), "status"]).exits(1).says(&["not signed by the CA"]);
        scrape(&secured.path("ca.pem"), node);
    }

    // A storage with the certificate of another machine does not even start.
    secured.cluster.storages[0].stop();
    let files = secured.authority.sign(
        secured.cluster.dir.path(),
        "stolen",
        &["127.0.0.1"],
        &["folio://g/a/2"],
        2090,
    );
    let Files { cert, key, .. } = files;
    let node = &mut secured.cluster.storages[0];
    node.config.set("tls.cert", &format!("{cert:?}")).set("tls.key", &format!("{key:?}"));
    let (code, stderr) = node.start_fails();
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("folio://g/a/2") && stderr.contains("folio://g/a/1"), "{stderr}");
}

/// As Prometheus does, where curl is installed.
fn scrape(ca: &str, node: &Node) {
    let page = format!("https://127.0.0.1:{}/metrics", node.metrics);
    match Command::new("curl").args(["--silent", "--fail", "--cacert", ca, &page]).output() {
        Ok(got) => {
            let text = String::from_utf8_lossy(&got.stdout);
            assert!(got.status.success() && text.contains("# TYPE folio_"), "{got:?}");
        }
        Err(error) => println!("not scraped, there is no curl here: {error}"),
    }
}

#[test]
fn certificates_are_replaced_on_sighup_and_a_bad_one_is_reported() {
    let secured = Secured::start();
    let storage = &secured.cluster.storages[0];
    let shown = |word: &str| secured.admin(storage, "status").contains(word);
    assert!(!shown("certificate"), "{}", secured.admin(storage, "status"));

    let dir = secured.cluster.dir.path();
    let bad = secured.authority.sign(dir, "bad", &["127.0.0.1"], &["folio://g/a/3"], 2090);
    let own = dir.join(format!("{}.pem", storage.name));
    let good = std::fs::read(&own).expect("read");
    std::fs::copy(&bad.cert, &own).expect("copied");
    storage.daemon().hang_up();
    eventually("status says what is wrong", PATIENCE, || shown("folio://g/a/3").then_some(()));
    assert_eq!(secured.cli().get(&secured.cli().put("still served")), b"still served");
    std::fs::write(&own, good).expect("written");
    storage.daemon().hang_up();
    eventually("it is mended", PATIENCE, || (!shown("folio://g/a/3")).then_some(()));
    storage.daemon().wait_stderr("it is logged", |text| text.contains("were read again"));
}
