//! `folio dev`: a whole cluster in one process.
//!
//! Trackers on PORT.., storage n on PORT+10+n, consoles on the same ports + 100, metrics on + 200. Group "dev", syncgroup
//! "a", mount m of machine n in `DIR/s<n>/m<m>`. Keys are overridden by the environment as for any daemon, except
//! `trackers`: the storages report to the trackers of this process.

use super::args;
use super::context::Context;
use super::daemon::{not_started, warn};
use super::exit::{Failure, Outcome};
use super::logs;
use crate::actors::threads::Threads;
use crate::client::{Client, ClientOptions};
use crate::daemon::{StopSignals, announce_ready, announce_stopping};
use crate::settings::{Environment, Keys, Source, StorageSettings, TrackerSettings, environment};
use crate::storage::{self, StartOptions, Storage};
use crate::tls::ClientTls;
use crate::tracker::{self, Tracker};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Consoles listen so many ports above.
const ADMIN: u16 = 100;
/// Metrics so many.
const METRICS: u16 = 200;
/// Storage n so many plus n.
const STORAGES: u16 = 10;
/// How long the first put may be waited for before it is said that something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is run.
struct Plan {
    trackers: Vec<TrackerSettings>,
    storages: Vec<StorageSettings>,
    warnings: Vec<String>,
}

/// `folio dev`.
pub(super) fn dev(context: &Context, args: &args::Dev) -> Outcome {
    let plan = plan(args)?;
    if let Some(first) = plan.trackers.first() {
        logs::start(&first.log);
    }
    warn(&plan.warnings);
    for storage in &plan.storages {
        let folder = args.dir.join(format!("s{}", storage.machine_id));
        std::fs::create_dir_all(&folder).map_err(|e| Failure::io("create", &folder, &e))?;
    }
    actix::System::new().block_on(run((context.keys()?, context.tls()?), plan))
}

fn plan(args: &args::Dev) -> Outcome<Plan> {
    let environment = Environment::from_process().without(environment::TRACKERS);
    let dir = absolute(&args.dir)?;
    let mut plan = Plan { trackers: Vec::new(), storages: Vec::new(), warnings: Vec::new() };
    let mut trackers = Vec::new();
    for n in 0..args.trackers {
        let mut keys = listen(args.port, n)?;
        keys.push(pair("log.level", "warn"));
        let source = Source::Given { name: "dev", keys: &keys };
        let loaded = TrackerSettings::load(source, &environment)?;
        trackers.push(format!("127.0.0.1:{}", args.port + n));
        plan.warnings = loaded.warnings;
        plan.trackers.push(loaded.settings);
    }
    for n in 1..=args.storages {
        let mut keys = listen(args.port, STORAGES + n)?;
        keys.push(pair("log.level", "warn"));
        keys.push(pair("group", "dev"));
        keys.push(pair("syncgroup", "a"));
        keys.push(pair("machine_id", &n.to_string()));
        keys.push(pair("trackers", &trackers.join(",")));
        keys.push(pair("store.reserve_free", "64MiB"));
        for m in 0..args.mounts {
            let path = dir.join(format!("s{n}")).join(format!("m{m}"));
            let path = path.to_str().ok_or_else(|| not_text(&path))?;
            keys.push(pair(&format!("mounts[{m}].index"), &m.to_string()));
            keys.push(pair(&format!("mounts[{m}].path"), path));
        }
        let source = Source::Given { name: "dev", keys: &keys };
        plan.storages.push(StorageSettings::load(source, &environment)?.settings);
    }
    Ok(plan)
}

fn listen(port: u16, offset: u16) -> Outcome<Vec<(String, String)>> {
    let at = |more: u16| {
        let sum = port.checked_add(offset).and_then(|port| port.checked_add(more));
        sum.map(|port| format!("127.0.0.1:{port}")).ok_or_else(|| {
            Failure::usage(format!("--port {port} is too high"), "ports end at 65535")
        })
    };
    Ok(vec![
        pair("listen", &at(0)?),
        pair("admin_listen", &at(ADMIN)?),
        pair("metrics_listen", &at(METRICS)?),
    ])
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn absolute(path: &Path) -> Outcome<PathBuf> {
    std::path::absolute(path).map_err(|e| Failure::io("find", path, &e))
}

fn not_text(path: &Path) -> Failure {
    Failure::usage(format!("{} is not UTF-8", path.display()), "name another --dir")
}

/// With what our own client proves itself, and whom it trusts.
type Proofs = (Option<Keys>, Option<ClientTls>);

/// Everything that runs.
struct Running {
    trackers: Vec<Tracker>,
    storages: Vec<Storage>,
}

async fn run(proofs: Proofs, plan: Plan) -> Outcome {
    let mut signals = StopSignals::listen().map_err(not_started)?;
    let mut running = Running { trackers: Vec::new(), storages: Vec::new() };
    let signal = {
        let begun = tokio::select! {
            begun = start(plan, &mut running, proofs) => Ok(begun),
            signal = signals.wait() => Err(signal),
        };
        match begun {
            Err(signal) => signal,
            Ok(Err(failure)) => {
                stop(running).await;
                return Err(failure);
            }
            Ok(Ok(trackers)) => {
                announce_ready(&format!("tracker={trackers}"));
                signals.wait().await
            }
        }
    };
    tracing::info!(signal, "stopping");
    announce_stopping();
    stop(running).await;
    Ok(())
}

/// Starts all and waits until a put would succeed. The trackers' addresses.
async fn start(plan: Plan, running: &mut Running, (keys, tls): Proofs) -> Outcome<String> {
    let mut addresses = Vec::new();
    for settings in &plan.trackers {
        let tracker = tracker::start(settings, Threads::new()).map_err(not_started)?;
        addresses.push(tracker.address().to_string());
        running.trackers.push(tracker);
    }
    let options = StartOptions { create_folders: true, ..StartOptions::default() };
    let starting = plan.storages.into_iter().map(|settings| storage::start(settings, options));
    for storage in futures_util::future::join_all(starting).await {
        running.storages.push(storage.map_err(not_started)?);
    }
    let ready = running.storages.iter().map(Storage::ready);
    let all = futures_util::future::join_all(ready);
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        tracing::warn!("not every storage is ready yet");
    }
    let timeout = PATIENCE;
    let trackers = addresses.clone();
    let options = ClientOptions { trackers, keys, tls, timeout, ..ClientOptions::default() };
    let client = Client::connect(options).await?;
    client.place(None, 0).await?;
    Ok(addresses.join(","))
}

async fn stop(running: Running) {
    let stopping = running.storages.into_iter().map(|storage| storage.stop(storage::STOP_LIMIT));
    let mut errors: Vec<_> =
        futures_util::future::join_all(stopping).await.into_iter().flatten().collect();
    for tracker in running.trackers {
        errors.extend(tracker.stop(tracker::STOP_LIMIT).await);
    }
    for error in errors {
        tracing::warn!(%error, "at the stop");
    }
}
