//! How long an acknowledged put takes until every other mirror shows it.
//!
//! A watcher puts an object, and from the acknowledgement on asks each other member of the syncgroup, from its local
//! bytes only, until it has the object. One at a time: the load comes from the other connections.

use super::super::context::Context;
use super::super::exit::{Failure, Outcome};
use super::meter::Meter;
use super::wire::Wire;
use crate::format::crc::crc32c;
use crate::messages::heads::{Get, IdBytes, Put, WINDOW, Written, decode};
use crate::messages::opcode::Opcode;
use std::time::{Duration, Instant};

/// Watchers for each target.
const WATCHERS: usize = 2;
/// A mirror that does not show an object for so long does not get it any more.
const LIMIT: Duration = Duration::from_secs(30);
/// Pause of a watcher between two objects: it must not be the load.
const PAUSE: Duration = Duration::from_millis(5);

/// One watcher.
pub(super) struct Watcher {
    wire: Wire,
    mirrors: Vec<Wire>,
    payload: Vec<u8>,
}

/// Watchers of each of `targets`.
pub(super) async fn open(
    context: &Context,
    targets: &[String],
    size: u64,
) -> Outcome<Vec<Watcher>> {
    let (view, keys) = (context.connect().await?.view().await?, context.keys()?);
    let tls = context.tls()?;
    let all: Vec<(String, String)> = view
        .storages()
        .map(|(group, syncgroup, storage)| {
            (format!("{group}/{syncgroup}"), storage.advertise.clone())
        })
        .collect();
    let mut watchers = Vec::new();
    for target in targets.iter().flat_map(|target| std::iter::repeat_n(target, WATCHERS)) {
        let Some((home, _)) = all.iter().find(|(_, address)| address == target) else { continue };
        let mut mirrors = Vec::new();
        for (_, address) in all.iter().filter(|(group, address)| group == home && address != target)
        {
            mirrors
                .push(Wire::open(address, (keys.as_ref(), tls.as_ref()), context.timeout).await?);
        }
        if mirrors.is_empty() {
            return Err(Failure::usage(
                format!("{target} has no other mirror"),
                "--lag needs a syncgroup of at least two storages",
            ));
        }
        let wire = Wire::open(target, (keys.as_ref(), tls.as_ref()), context.timeout).await?;
        watchers.push(Watcher {
            wire,
            mirrors,
            payload: vec![7; usize::try_from(size).unwrap_or(0)],
        });
    }
    Ok(watchers)
}

impl Watcher {
    /// Watches until the load ends.
    pub(super) async fn run(mut self, load: &Meter, lags: &Meter) -> Outcome {
        for wire in self.mirrors.iter_mut().chain([&mut self.wire]) {
            wire.end_with(load.end());
        }
        while !load.is_over() {
            let crc = crc32c(&self.payload);
            let head = Put {
                token: self.wire.token(),
                mount: None,
                reserve: None,
                length: Some(self.payload.len() as u64),
            };
            let frame = self.wire.call(Opcode::Put, &head, &self.payload, crc).await?;
            let acknowledged = Instant::now();
            let written: Written = decode(frame.head()).map_err(crate::client::Error::from)?;
            let shown = self.mirrors.iter_mut().map(|mirror| shown(mirror, written.id));
            for shown in futures_util::future::join_all(shown).await {
                shown?;
            }
            lags.done(acknowledged.elapsed(), 0);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

async fn shown(mirror: &mut Wire, id: IdBytes) -> Outcome {
    let begun = Instant::now();
    let head = Get { id, first: 0, last: None, min_opver: None, local_only: true, window: WINDOW };
    loop {
        match mirror.call(Opcode::Get, &head, &[], 0).await {
            Ok(_) => return Ok(()),
            Err(failure) if begun.elapsed() > LIMIT => return Err(failure),
            Err(failure) if failure.message.starts_with("connection lost") => return Err(failure),
            // Not there yet.
            Err(_) => {}
        }
    }
}
