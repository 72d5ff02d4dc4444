//! `folio bench`: operations per second and percentiles, with one outstanding request per connection.
//!
//! Everything runs on one thread with raw frames ([`wire`]): the load must not take the cores from what it measures.
//! What is read is checked ([`worker`]). `null-server` and `--target` measure the same frames without an engine.

mod lag;
mod meter;
mod null_server;
mod wire;
mod worker;

use super::args::{Bench, Load, Mix};
use super::context::Context;
use super::exit::{Failure, Outcome};
use super::say;
use crate::cluster::view::State;
use crate::messages::heads::INLINE_MAX;
use meter::Meter;
use std::rc::Rc;
use std::time::{Duration, Instant};
use wire::Wire;
use worker::Worker;

/// `folio bench`. Must run inside a `LocalSet`.
pub(super) async fn bench(context: &Context, args: Bench) -> Outcome {
    let sizes = args.sizes.clone().unwrap_or_else(|| Mix::only(args.size));
    if sizes.max() > INLINE_MAX as u64 {
        return Err(Failure::usage(
            format!("{} bytes are too large", sizes.max()),
            format!(
                "at most {INLINE_MAX} bytes: larger objects are streamed, which is not measured here"
            ),
        ));
    }
    if args.load == Load::NullServer {
        return null_server::serve(&args.listen, args.size).await;
    }
    if args.lag && args.load != Load::Put {
        return Err(Failure::usage("--lag is measured with `put`", "folio bench put --lag"));
    }
    let targets = targets(context, &args).await?;
    let watchers =
        if args.lag { lag::open(context, &targets, args.size).await? } else { Vec::new() };
    let workers = prepare(context, &args, &sizes, &targets).await?;
    let meter = Rc::new(Meter::new(args.count, args.duration, args.rate)?);
    let lags = Rc::new(Meter::new(None, args.duration, None)?);
    let begun = Instant::now();
    let watching: Vec<_> = watchers
        .into_iter()
        .map(|watcher| {
            let (meter, lags) = (Rc::clone(&meter), Rc::clone(&lags));
            tokio::task::spawn_local(async move { watcher.run(&meter, &lags).await })
        })
        .collect();
    let ticker = tokio::task::spawn_local(tick(Rc::clone(&meter), begun));
    let mut running = Vec::new();
    for mut worker in workers {
        let meter = Rc::clone(&meter);
        running.push(tokio::task::spawn_local(async move { worker.run(&meter).await }));
    }
    for worker in running {
        worker.await.map_err(|e| Failure::failed(e.to_string(), ""))?;
    }
    let took = begun.elapsed();
    for watcher in watching {
        let watched = watcher.await.map_err(|e| Failure::failed(e.to_string(), ""))?;
        if let Err(failure) = watched {
            meter.failed(&failure);
        }
    }
    let report = meter.report(took).with_lag(args.lag.then(|| lags.report(took)));
    ticker.abort();
    let json = serde_json::to_value(&report).map_err(|e| Failure::failed(e.to_string(), ""))?;
    context.print(&json, &report)?;
    match meter.first_error() {
        None => Ok(()),
        Some(first) => Err(Failure::failed(
            format!("{} operations failed, the first one: {}", meter.errors(), first.message),
            first.remedy,
        )),
    }
}

/// Storages that take puts, by the tracker, or the one that was named.
async fn targets(context: &Context, args: &Bench) -> Outcome<Vec<String>> {
    if let Some(target) = &args.target {
        return Ok(vec![target.clone()]);
    }
    let view = context.connect().await?.view().await?;
    let targets: Vec<String> = view
        .storages()
        .filter(|(_, _, storage)| {
            storage.state == State::Online && storage.mounts.iter().any(|mount| mount.writable)
        })
        .map(|(_, _, storage)| storage.advertise.clone())
        .collect();
    if targets.is_empty() {
        return Err(Failure::new(
            crate::messages::error::ErrorCode::Unavailable,
            "no storage takes new objects",
            "`folio df` shows them",
        ));
    }
    Ok(targets)
}

/// Connects, and makes the objects that reads and modifies need.
async fn prepare(
    context: &Context,
    args: &Bench,
    sizes: &Mix,
    targets: &[String],
) -> Outcome<Vec<Worker>> {
    let (keys, tls) = (context.keys()?, context.tls()?);
    let needs_objects = matches!(args.load, Load::Get | Load::Modify | Load::Mixed);
    let each = if needs_objects { args.objects.div_ceil(args.connections as u64) } else { 0 };
    if each > 0 {
        let count = each * args.connections as u64;
        let max = sizes.max();
        say::aside(format_args!("making {count} objects of up to {max} bytes ..."));
    }
    let mut preparing = Vec::new();
    for (number, target) in (0..args.connections as u64).zip(targets.iter().cycle()) {
        let wire = Wire::open(target, (keys.as_ref(), tls.as_ref()), context.timeout).await?;
        let mut worker = Worker::new(wire, args, sizes.clone(), number);
        preparing.push(tokio::task::spawn_local(async move {
            worker.prepare(each).await.map(|()| worker)
        }));
    }
    let mut workers = Vec::new();
    for worker in preparing {
        workers.push(worker.await.map_err(|e| Failure::failed(e.to_string(), ""))??);
    }
    Ok(workers)
}

/// A line each second.
async fn tick(meter: Rc<Meter>, begun: Instant) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.tick().await;
    let mut before = 0;
    loop {
        interval.tick().await;
        let now = meter.ops();
        let (second, errors) = (begun.elapsed().as_secs(), meter.errors());
        let done = now - before;
        say::aside(format_args!("{second:4} s  {done:8} ops/s  {errors} errors"));
        before = now;
    }
}
