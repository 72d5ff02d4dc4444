//! The metrics page of a tracker.

use crate::actors::acceptor::Connections;
use crate::actors::ambient::Monotonic;
use crate::actors::heartbeat::{Heartbeat, ShowTable, Table};
use crate::actors::meter::Meter;
use crate::actors::metrics_page::{self, Kind, Page};
use crate::actors::metrics_server::PageSource;
use crate::actors::router::{Router, ShowView};
use crate::cluster::view::State;
use actix::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All of them, so that a state with no node is told as 0.
const STATES: [State; 7] = [
    State::Joining,
    State::Online,
    State::Suspect,
    State::Offline,
    State::Recovering,
    State::ReadOnly,
    State::Draining,
];

/// Makes the page whenever it is asked for.
pub(super) fn source(
    heartbeat: Addr<Heartbeat>,
    router: Addr<Router>,
    connections: Arc<Connections>,
    meter: Arc<Meter>,
    clock: Monotonic,
) -> PageSource {
    Arc::new(move || {
        let (heartbeat, router) = (heartbeat.clone(), router.clone());
        let (connections, meter) = (Arc::clone(&connections), Arc::clone(&meter));
        Box::pin(async move {
            let mut page = Page::new();
            metrics_page::process(&mut page, "tracker", clock.now_ms());
            metrics_page::requests(&mut page, &meter);
            page.family("folio_connections", Kind::Gauge, "Connections of all kinds.")
                .sample(&[], connections.count() as u64);
            // An actor that is gone: the daemon stops.
            if let (Ok(table), Ok(published)) =
                (heartbeat.send(ShowTable).await, router.send(ShowView).await)
            {
                nodes(&mut page, &table);
                page.family("folio_tracker_epoch", Kind::Gauge, "Number of the published view.")
                    .sample(&[], published.view.epoch);
            }
            page.finish()
        })
    })
}

fn nodes(page: &mut Page, table: &Table) {
    let mut counts: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    for row in &table.rows {
        let key = (row.report.group.as_str(), row.report.syncgroup.as_str());
        let counts = counts.entry(key).or_insert_with(|| vec![0; STATES.len()]);
        let at = STATES.iter().position(|state| *state == row.state);
        if let Some(count) = at.and_then(|at| counts.get_mut(at)) {
            *count += 1;
        }
    }
    page.family("folio_tracker_nodes", Kind::Gauge, "Storages by syncgroup and state.");
    for ((group, syncgroup), counts) in &counts {
        for (state, count) in STATES.iter().zip(counts) {
            let labels = [("group", *group), ("syncgroup", *syncgroup), ("state", state.as_str())];
            page.sample(&labels, *count);
        }
    }
    page.family("folio_tracker_silence_seconds", Kind::Gauge, "Since a storage was last heard.");
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of silence")]
    for row in &table.rows {
        let machine = row.report.machine.to_string();
        let (group, syncgroup) = (row.report.group.as_str(), row.report.syncgroup.as_str());
        let labels = [("group", group), ("syncgroup", syncgroup), ("machine", machine.as_str())];
        page.seconds(&labels, row.silence_ms as f64 / 1e3);
    }
    page.family(
        "folio_tracker_duplicates",
        Kind::Gauge,
        "Storages refused for a machine id in use.",
    )
    .sample(&[], table.duplicates.len() as u64);
}
