//! The fear: a chart stays empty, or a scraper refuses the page, in the one hour in which somebody needs it.
//!
//! A tracker and two storages in this process. The page is read by a strict parser of the text format (0.0.4), and every
//! metric that `ops/` names must be on one of the pages.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod common;

use common::{Client, Node, content, settings};
use folio::actors::threads::Threads;
use folio::messages::opcode::{Opcode, Role};
use folio::settings::{Environment, Source, TrackerSettings};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// A page, strictly read: samples by family, with the family's type.
#[derive(Debug, Default)]
struct Parsed {
    types: BTreeMap<String, String>,
    /// Name as it stands (with `_bucket` and the like), labels in order, value.
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

fn is_name(text: &str, colon: bool) -> bool {
    let mut chars = text.chars();
    let first =
        chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || colon && c == ':');
    first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || colon && c == ':')
}

/// Reads a page as the exposition format says; every deviation is an error with its line.
fn parse(page: &str) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let (mut family, mut helped, mut closed) = (String::new(), BTreeSet::new(), BTreeSet::new());
    if !page.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    for line in page.lines() {
        let bad = |why: &str| Err(format!("{why}: {line}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let Some((name, help)) = rest.split_once(' ') else { return bad("help without text") };
            if !is_name(name, true) || help.is_empty() || !helped.insert(name.to_owned()) {
                return bad("a bad name, or a second help");
            }
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { return bad("no type") };
            if !["counter", "gauge", "histogram"].contains(&kind) || !helped.contains(name) {
                return bad("an unknown type, or no help before it");
            }
            closed.insert(std::mem::replace(&mut family, name.to_owned()));
            if closed.contains(name)
                || parsed.types.insert(name.to_owned(), kind.to_owned()).is_some()
            {
                return bad("a family in two places");
            }
            continue;
        }
        let (name, labels, value) = sample(line).ok_or_else(|| format!("no sample: {line}"))?;
        let kind = parsed.types.get(&family).map_or("", String::as_str);
        let belongs = match kind {
            "histogram" => {
                ["_bucket", "_sum", "_count"].iter().any(|end| name == format!("{family}{end}"))
            }
            _ => name == family,
        };
        if !belongs {
            return bad("a sample outside of its family");
        }
        if kind == "counter" && !family.ends_with("_total") {
            return bad("a counter that is not called one");
        }
        if parsed.samples.iter().any(|(n, l, _)| (n, l) == (&name, &labels)) {
            return bad("twice");
        }
        parsed.samples.push((name, labels, value));
    }
    parsed.check_histograms()?;
    Ok(parsed)
}

fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next()?.1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        _ => return None,
                    }),
                    (_, '\n') => return None,
                    (_, c) => value.push(c),
                }
            };
            if !is_name(label, false) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    is_name(name, true).then(|| (name.to_owned(), labels, value))
}

impl Parsed {
    /// Buckets grow with their bounds, the last one is +Inf and equals the count.
    fn check_histograms(&self) -> Result<(), String> {
        let mut series: BTreeMap<(String, BTreeMap<String, String>), Vec<(f64, f64)>> =
            BTreeMap::new();
        for (name, labels, value) in &self.samples {
            if let (Some(family), Some(le)) = (name.strip_suffix("_bucket"), labels.get("le")) {
                let mut labels = labels.clone();
                labels.remove("le");
                let bound = if le == "+Inf" {
                    f64::INFINITY
                } else {
                    le.parse().map_err(|_| le.clone())?
                };
                series.entry((family.to_owned(), labels)).or_default().push((bound, *value));
            }
        }
        for ((family, labels), buckets) in series {
            let grows = buckets.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1);
            let last = buckets.last().copied().unwrap_or_default();
            let count = self.value(&format!("{family}_count"), &labels);
            if !grows || last.0.is_finite() || count != Some(last.1) {
                return Err(format!("{family} {labels:?}: {buckets:?}, count {count:?}"));
            }
        }
        Ok(())
    }

    fn value(&self, name: &str, labels: &BTreeMap<String, String>) -> Option<f64> {
        self.samples.iter().find(|(n, l, _)| n == name && l == labels).map(|(_, _, value)| *value)
    }

    /// All samples of a name whose labels contain these.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |l: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| l.get(*key).is_some_and(|v| v == value))
        };
        self.samples.iter().filter(|(n, l, _)| n == name && fits(l)).map(|(_, _, v)| v).sum()
    }
}

fn scrape(address: SocketAddr) -> Parsed {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("timeout");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: folio\r\nAccept: */*\r\n\r\n")
        .expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, page) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", page.len())), "{head}");
    parse(page).unwrap_or_else(|why| panic!("{why}"))
}

/// A tracker on a thread of its own: its frames and its metrics.
fn tracker() -> (SocketAddr, SocketAddr) {
    let (tell, hear) = mpsc::channel();
    std::thread::spawn(move || {
        actix::System::new().block_on(async move {
            let text = "listen = \"127.0.0.1:0\"\nadmin_listen = \"\"\nmetrics_listen = \"127.0.0.1:0\"\n\
                        [liveness]\nheartbeat_interval = \"100ms\"\n";
            let source = Source::Text { name: "tracker", text };
            let settings = TrackerSettings::load(source, &Environment::default()).expect("settings");
            let tracker = folio::tracker::start(&settings.settings, Threads::new()).expect("starts");
            tell.send((tracker.address(), tracker.metrics_address().expect("metrics"))).unwrap();
            std::future::pending::<()>().await;
        });
    });
    hear.recv().expect("the tracker starts")
}

fn storage(dir: &Path, machine: &str, tracker: &str) -> (Node, SocketAddr) {
    let extra = [("machine_id", machine), ("trackers", tracker), ("metrics_listen", "127.0.0.1:0")];
    let settings = settings(&dir.join(machine), 2, &extra);
    let (tell, hear) = mpsc::channel();
    let node = Node::start_found_after(settings, LIMIT, move |storage| {
        tell.send(storage.metrics_address().expect("metrics")).unwrap();
    });
    (node, hear.recv().expect("the storage starts"))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Names in an expression: `folio_...` and `process_...`, without the suffix of a histogram.
fn named(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("folio_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn no_chart_and_no_alert_names_what_is_not_there() {
    let (tracker, tracker_page) = tracker();
    let dir = tempfile::tempdir().expect("dir");
    let at = tracker.to_string();
    let (one, page) = storage(dir.path(), "1", &at);
    let (_two, other_page) = storage(dir.path(), "2", &at);
    until("the two mirror each other", || {
        scrape(page).sum("folio_mirror_state", &[("state", "live")]) >= 2.0
    });
    let mut client = Client::connect(one.address, Role::Client);
    for n in 0..20 {
        let id = client.put(&content(n, 5_000)).expect("stored");
        assert_eq!(client.get(&id.id).expect("read"), content(n, 5_000));
    }
    let now = scrape(page);
    // What was done is counted, once.
    assert_eq!(now.sum("folio_requests_total", &[("op", "put"), ("result", "ok")]), 20.0);
    assert_eq!(now.sum("folio_requests_total", &[("op", "get"), ("result", "ok")]), 20.0);
    assert_eq!(now.sum("folio_request_seconds_count", &[("op", "put")]), 20.0);
    assert_eq!(now.sum("folio_queue_seconds_count", &[]), 20.0);
    assert_eq!(now.sum("folio_commit_changes_sum", &[]), 20.0);
    assert!(now.sum("folio_sync_seconds_count", &[]) >= now.sum("folio_commit_changes_count", &[]));
    assert_eq!(now.sum("folio_content_bytes_total", &[("direction", "in")]), 100_000.0);
    assert_eq!(now.sum("folio_content_bytes_total", &[("direction", "out")]), 100_000.0);
    assert!(now.sum("process_resident_memory_bytes", &[]) > 1e6);
    assert!(now.sum("folio_mount_total_bytes", &[]) > 1e6);
    until("the objects are counted", || {
        scrape(page).sum("folio_mount_objects", &[("state", "live")]) == 20.0
    });
    until("the other has them", || {
        scrape(other_page).sum("folio_mount_objects", &[("state", "live")]) == 20.0
    });
    let nodes = scrape(tracker_page);
    assert_eq!(nodes.sum("folio_tracker_nodes", &[("state", "online")]), 2.0);
    assert!(nodes.sum("folio_requests_total", &[("op", "heartbeat")]) > 2.0);
    // Everything that ops/ names is on one of the pages.
    let mut known: BTreeSet<String> = BTreeSet::new();
    for page in [&now, &nodes] {
        known.extend(page.types.keys().cloned());
        known.extend(page.samples.iter().map(|(name, _, _)| name.clone()));
    }
    let ops = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops");
    for file in ["grafana.json", "alerts.yml"] {
        let text = std::fs::read_to_string(ops.join(file)).expect(file);
        let names = named(&text);
        assert!(names.len() > 10, "{file} names {}", names.len());
        let missing: Vec<_> = names.difference(&known).collect();
        assert!(missing.is_empty(), "{file} names what no page has: {missing:?}");
    }
    let dashboard = std::fs::read_to_string(ops.join("grafana.json")).expect("dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    assert!(dashboard["panels"].as_array().expect("panels").len() > 20);
    assert_eq!(Opcode::Put.name(), "put");
}

#[test]
fn the_parser_is_strict() {
    let head = "# HELP a_total A.\n# TYPE a_total counter\n";
    assert!(parse(&format!("{head}a_total 1\n")).is_ok());
    for bad in [
        "a_total 1\n",
        &format!("{head}a_total 1"),
        &format!("{head}a_total\n"),
        &format!("{head}a_total x\n"),
        &format!("{head}b 1\n"),
        &format!("{head}a_total 1\na_total 2\n"),
        &format!("{head}a_total{{x=\"1\",x=\"2\"}} 1\n"),
        &format!("{head}a_total{{x=1}} 1\n"),
        &format!("{head}a_total{{x=\"a\"b\"}} 1\n"),
        &format!("{head}{head}a_total 1\n"),
        "# HELP b B.\n# TYPE b counter\nb 1\n",
        "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 2\nh_sum 1\nh_count 2\n",
        "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
