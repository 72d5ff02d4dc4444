//! A whole tracker on the test's own thread, with real sockets and real frames, under a paused clock: five seconds
//! pass in no time and nothing depends on how fast the machine is.

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::actors::caller::{CallError, Caller, Identity};
use crate::actors::reporter::{
    Registration, ReportSource, Reporter, ReporterStatus, StopReporting,
};
use crate::cluster::routing::Route;
use crate::cluster::view::{
    ClusterView, Load, MountState, MountView, Service, State, StorageReport,
};
use crate::messages::error::ErrorCode;
use crate::messages::heads;
use crate::messages::opcode::{Opcode, Role};
use crate::settings::{Environment, Source};

const LIMIT: Duration = Duration::from_secs(2);

fn settings(listen: &str) -> TrackerSettings {
    let text =
        format!("listen = \"{listen}\"\nadmin_listen = \"127.0.0.1:0\"\nmetrics_listen = \"\"\n");
    let source = Source::Text { name: "test", text: &text };
    TrackerSettings::load(source, &Environment::default()).expect("good settings").settings
}

fn tracker() -> Tracker {
    start(&settings("127.0.0.1:0"), Threads::inline()).expect("starts")
}

/// What a fake storage says of itself.
fn report(syncgroup: &str, machine: u16, instance: u8) -> StorageReport {
    StorageReport {
        group: "books".into(),
        syncgroup: syncgroup.into(),
        machine,
        instance: [instance; 16],
        advertise: format!("10.0.0.{instance}:7411"),
        admin: format!("10.0.0.{instance}:7511"),
        version: "1".into(),
        weight: 1,
        service: Service::Serving,
        mounts: vec![MountView {
            index: 0,
            state: MountState::Online,
            total: 1 << 40,
            free: 1 << 39,
            reserved: 1 << 32,
            writable: true,
            reason: String::new(),
        }],
        load: Load::default(),
        clock_ms: 0,
    }
}

fn identity(role: Role, instance: u8) -> Identity {
    Identity {
        role,
        name: "test".into(),
        instance: [instance; 16],
        keys: Default::default(),
        tls: Default::default(),
    }
}

struct Fake {
    reporter: Addr<Reporter>,
    status: watch::Receiver<ReporterStatus>,
}

impl Fake {
    fn start(tracker: SocketAddr, report: StorageReport) -> Self {
        let identity = identity(Role::Peer, report.instance[0]);
        let source: ReportSource = Arc::new(move || {
            let head = heads::Heartbeat { members: Vec::new(), forgotten: Vec::new() };
            (report.clone(), head)
        });
        let (reporter, status) = Reporter::new(tracker.to_string(), identity, source);
        Self { reporter: reporter.start(), status }
    }

    async fn until(&mut self, wanted: fn(&Registration) -> bool) -> Registration {
        let status = self.status.wait_for(|status| wanted(&status.registration)).await;
        status.expect("the reporter lives").registration.clone()
    }

    async fn registered(&mut self) {
        self.until(|registration| *registration == Registration::Registered).await;
    }
}

async fn client(tracker: &Tracker) -> Caller {
    let address = tracker.address().to_string();
    Caller::connect(&address, &identity(Role::Client, 200), LIMIT).await.expect("connects")
}

async fn route(client: &mut Caller, head: &heads::Route) -> Result<Route, CallError> {
    let frame = client.call(Opcode::Route, head, b"", LIMIT).await?;
    client.read_payload(&frame)
}

fn put() -> heads::Route {
    heads::Route { group: None, syncgroup: None, machine: None, mount: None, length: 4096 }
}

fn object(syncgroup: &str, machine: u16) -> heads::Route {
    heads::Route {
        group: Some("books".into()),
        syncgroup: Some(syncgroup.into()),
        machine: Some(machine),
        mount: Some(0),
        length: 0,
    }
}

/// The machines that the next puts are sent to.
async fn put_targets(client: &mut Caller) -> BTreeSet<u16> {
    let mut machines = BTreeSet::new();
    for _ in 0..8 {
        machines.insert(route(client, &put()).await.expect("a route").choice.machine);
    }
    machines
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[actix_rt::test]
async fn a_stopped_storage_gets_no_puts_in_time_and_is_back_only_when_steady() {
    tokio::time::pause();
    let tracker = tracker();
    let mut one = Fake::start(tracker.address(), report("a", 1, 1));
    let mut two = Fake::start(tracker.address(), report("b", 2, 2));
    one.registered().await;
    two.registered().await;
    let mut client = client(&tracker).await;
    assert_eq!(put_targets(&mut client).await, [1, 2].into());

    two.reporter.send(StopReporting).await.expect("alive");
    pass(3_200).await;
    assert_eq!(put_targets(&mut client).await, [1].into(), "a suspect one gets no new puts");
    let suspect = route(&mut client, &object("b", 2)).await.expect("still asked for its objects");
    assert_eq!(suspect.choice.machine, 2);
    pass(2_000).await;
    match route(&mut client, &object("b", 2)).await {
        Err(CallError::Refused { problem, .. }) => {
            assert_eq!(problem.code, ErrorCode::Unavailable);
            assert!(
                problem.message.contains("machine 2 of b at 10.0.0.2:7411: offline"),
                "{problem}"
            );
        }
        other => panic!("{other:?}"),
    }

    let mut two = Fake::start(tracker.address(), report("b", 2, 2));
    two.registered().await;
    for _ in 0..4 {
        assert_eq!(put_targets(&mut client).await, [1].into(), "not steady yet");
        pass(1_000).await;
    }
    pass(2_200).await;
    assert_eq!(put_targets(&mut client).await, [1, 2].into());
    assert_eq!(tracker.stop(STOP_LIMIT).await, []);
}

#[actix_rt::test]
async fn two_trackers_know_nothing_of_each_other_and_one_may_go() {
    tokio::time::pause();
    let (left, right) = (tracker(), tracker());
    let mut to_left = Fake::start(left.address(), report("a", 1, 1));
    let mut to_right = Fake::start(right.address(), report("a", 1, 1));
    to_left.registered().await;
    to_right.registered().await;
    let address = left.address().to_string();
    assert_eq!(left.stop(STOP_LIMIT).await, []);
    to_left.until(|registration| matches!(registration, Registration::Unreachable { .. })).await;
    pass(20_000).await;
    assert_eq!(to_right.status.borrow().registration, Registration::Registered);
    let mut client = client(&right).await;
    assert_eq!(put_targets(&mut client).await, [1].into());

    // The tracker comes back empty, at the same address: complete again without anybody's help.
    let left = start(&settings(&address), Threads::inline()).expect("the port is free again");
    to_left.registered().await;
    let view = left.published();
    assert_eq!(view.view.storage("books", "a", 1).map(|s| s.state), Some(State::Online));
}

#[actix_rt::test]
async fn a_second_machine_with_the_same_id_is_refused_and_shown_until_the_first_is_gone() {
    tokio::time::pause();
    let tracker = tracker();
    let mut first = Fake::start(tracker.address(), report("a", 1, 1));
    first.registered().await;
    let mut second = Fake::start(tracker.address(), report("a", 1, 2));
    let refused =
        second.until(|registration| matches!(registration, Registration::Refused(_))).await;
    assert!(matches!(refused, Registration::Refused(why) if why.contains("duplicate machine id")));
    pass(10_000).await;
    let text = console(&tracker, "status\nnodes\nquit\n").await;
    assert!(text.contains("duplicate machine id books/1: 10.0.0.2:7411 is refused"), "{text}");
    assert!(text.contains("duplicate machine id:\n"), "{text}");
    let view = tracker.published();
    assert_eq!(view.view.storage("books", "a", 1).map(|s| s.instance), Some([1; 16]));

    first.reporter.send(StopReporting).await.expect("alive");
    second.registered().await;
    let view = tracker.published();
    assert_eq!(view.view.storage("books", "a", 1).map(|s| s.instance), Some([2; 16]));
}

#[actix_rt::test]
async fn the_view_reaches_storages_and_clients_and_is_not_sent_twice() {
    tokio::time::pause();
    let tracker = tracker();
    let mut one = Fake::start(tracker.address(), report("a", 1, 1));
    let mut two = Fake::start(tracker.address(), report("a", 2, 2));
    one.registered().await;
    two.registered().await;
    pass(1_100).await;
    let status = one.status.borrow().clone();
    assert_eq!(status.members.iter().map(|m| m.machine).collect::<Vec<_>>(), [1, 2]);
    assert!(status.view.is_some_and(|view| view.storage("books", "a", 2).is_some()));

    let mut client = client(&tracker).await;
    let fresh = heads::View { known_epoch: 0, known_tracker: Uuid::new([0; 16]) };
    let frame = client.call(Opcode::View, &fresh, b"", LIMIT).await.expect("a view");
    let view: ClusterView = client.read_payload(&frame).expect("decodes");
    assert_eq!(view.storages().count(), 2);
    let known = heads::View { known_epoch: view.epoch, known_tracker: Uuid::new(view.tracker) };
    let frame = client.call(Opcode::View, &known, b"", LIMIT).await.expect("an answer");
    let answer: heads::ViewAnswer = client.read(&frame).expect("decodes");
    assert!(!answer.changed && frame.payload().is_empty());
}

#[actix_rt::test]
async fn a_client_cannot_register_and_a_peer_cannot_register_another() {
    tokio::time::pause();
    let tracker = tracker();
    let payload = heads::encode_map(&report("a", 1, 1)).expect("encodes");
    let head = heads::Heartbeat { members: Vec::new(), forgotten: Vec::new() };
    let address = tracker.address().to_string();
    for (role, instance, code) in [
        (Role::Client, 1, ErrorCode::Forbidden),
        (Role::Admin, 1, ErrorCode::Forbidden),
        (Role::Peer, 9, ErrorCode::Refused),
    ] {
        let identity = identity(role, instance);
        let mut caller = Caller::connect(&address, &identity, LIMIT).await.expect("connects");
        match caller.call(Opcode::Heartbeat, &head, &payload, LIMIT).await {
            Err(CallError::Refused { problem, .. }) => assert_eq!(problem.code, code),
            other => panic!("{role}: {:?}", other.is_ok()),
        }
    }
    assert_eq!(tracker.published().view.storages().count(), 0);
}

/// Everything that the console says to `input`.
async fn console(tracker: &Tracker, input: &str) -> String {
    let address = tracker.admin_address().expect("a console");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    stream.write_all(input.as_bytes()).await.expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("until quit");
    text
}

#[actix_rt::test]
async fn the_console_tells_who_is_up_and_what_is_wrong() {
    tokio::time::pause();
    let tracker = tracker();
    let mut one = Fake::start(tracker.address(), report("a", 1, 1));
    let mut broken = report("a", 2, 2);
    broken.mounts[0].state = MountState::Failed;
    broken.mounts[0].reason = "fsync failed".into();
    let mut two = Fake::start(tracker.address(), broken);
    one.registered().await;
    two.registered().await;
    let text = console(&tracker, "status json\nmounts json\nnodes json\nhelp\nquit\n").await;
    let documents: Vec<serde_json::Value> = text
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("one JSON document a line"))
        .collect();
    assert_eq!(documents[0]["syncgroups"][0]["up"], 2);
    let warning = documents[0]["warnings"][0].clone();
    assert!(warning["what"].as_str().is_some_and(|what| what.contains("fsync failed")));
    assert_eq!(warning["remedy"], "folio admin 10.0.0.2:7511 status");
    assert_eq!(documents[1]["mounts"][1]["state"], "failed");
    assert_eq!(documents[2]["nodes"][0]["address"], "10.0.0.1:7411");
    for command in ["status", "mounts", "nodes", "route", "help", "quit"] {
        assert!(text.lines().any(|line| line.starts_with(command)), "{command} in\n{text}");
    }
    let text = console(&tracker, "route nonsense\nroute\nquit\n").await;
    assert_eq!(text.matches("error: ").count(), 2, "{text}");
}

#[actix_rt::test]
async fn a_port_in_use_ends_the_start_and_names_the_key() {
    let running = tracker();
    let address = running.address().to_string();
    let error = start(&settings(&address), Threads::inline()).err().expect("in use");
    assert!(error.to_string().contains("`listen`"), "{error}");
    assert!(error.to_string().contains("in use"), "{error}");
}

#[test]
fn with_real_threads_it_serves_and_stops_in_order() {
    actix::System::new().block_on(async {
        let tracker = start(&settings("127.0.0.1:0"), Threads::new()).expect("starts");
        let address = tracker.address();
        let mut one = Fake::start(address, report("a", 1, 1));
        one.registered().await;
        let mut client = client(&tracker).await;
        assert_eq!(put_targets(&mut client).await, [1].into());
        assert_eq!(tracker.stop(STOP_LIMIT).await, []);
        assert!(client.call(Opcode::Ping, &heads::Ping {}, b"", LIMIT).await.is_err());
        assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
    });
}
