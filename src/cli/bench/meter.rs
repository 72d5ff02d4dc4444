//! Counts, times and ends a benchmark. One thread, so plain cells.

use super::super::exit::Failure;
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// Longest time that is told apart.
const LATENCY_MAX_NS: u64 = 60_000_000_000;
/// So many errors end it: there is nothing to measure.
const ERRORS_MAX: u64 = 10_000;

/// Shared by all connections of one run.
pub(super) struct Meter {
    /// Operations still to be begun; `None`: until `end`.
    left: Cell<Option<u64>>,
    /// When the next operation is due, and how long after it the one behind it.
    due: Cell<Option<(Instant, Duration)>>,
    end: Cell<Option<Instant>>,
    latency: RefCell<Histogram<u64>>,
    ops: Cell<u64>,
    bytes: Cell<u64>,
    errors: Cell<u64>,
    first_error: RefCell<Option<Failure>>,
}

impl Meter {
    /// Ends after `count` operations, or after `duration`; at most `rate` of them a second.
    pub(super) fn new(
        count: Option<u64>,
        duration: Duration,
        rate: Option<u64>,
    ) -> Result<Self, Failure> {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3)
            .map_err(|e| Failure::failed(e.to_string(), ""))?;
        let end = if count.is_some() { None } else { Instant::now().checked_add(duration) };
        let pace = rate.map(|rate| Duration::from_nanos(1_000_000_000 / rate.max(1)));
        Ok(Self {
            due: Cell::new(pace.map(|pace| (Instant::now(), pace))),
            left: Cell::new(count),
            end: Cell::new(end),
            latency: RefCell::new(latency),
            ops: Cell::new(0),
            bytes: Cell::new(0),
            errors: Cell::new(0),
            first_error: RefCell::new(None),
        })
    }

    /// When another operation begins, or was due; `None`: no more.
    pub(super) async fn turn(&self) -> Option<Instant> {
        let Some((due, pace)) = self.due.get() else {
            return self.take().then(Instant::now);
        };
        // Connections that wait for their turns in a slow pace would outlast the load.
        if self.end.get().is_some_and(|end| due >= end) {
            return None;
        }
        self.due.set(Some((due + pace, pace)));
        tokio::time::sleep_until(due.into()).await;
        self.take().then_some(due)
    }

    /// Whether another operation is to be begun.
    pub(super) fn take(&self) -> bool {
        if let Some(left) = self.left.get() {
            self.left.set(Some(left.saturating_sub(1)));
            return left > 0;
        }
        self.end.get().is_none_or(|end| Instant::now() < end)
    }

    /// From when on no operation is begun, if that is known.
    pub(super) fn end(&self) -> Option<Instant> {
        self.end.get()
    }

    /// Whether no operation is begun any more.
    pub(super) fn is_over(&self) -> bool {
        match (self.left.get(), self.end.get()) {
            (Some(left), _) => left == 0,
            (None, end) => end.is_some_and(|end| Instant::now() >= end),
        }
    }

    pub(super) fn done(&self, took: Duration, bytes: u64) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(LATENCY_MAX_NS);
        self.latency.borrow_mut().saturating_record(ns.clamp(1, LATENCY_MAX_NS));
        self.ops.set(self.ops.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// Whether the connection is to give up.
    pub(super) fn failed(&self, failure: &Failure) -> bool {
        self.errors.set(self.errors.get() + 1);
        let lost = failure.message.starts_with("connection lost");
        self.first_error.borrow_mut().get_or_insert_with(|| failure.clone());
        lost || self.errors.get() >= ERRORS_MAX
    }

    pub(super) fn ops(&self) -> u64 {
        self.ops.get()
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors.get()
    }

    pub(super) fn first_error(&self) -> Option<Failure> {
        self.first_error.borrow().clone()
    }

    /// What came out after `took`.
    pub(super) fn report(&self, took: Duration) -> Report {
        let seconds = took.as_secs_f64().max(1e-9);
        let latency = self.latency.borrow();
        let us = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1000.0;
        Report {
            ops: self.ops.get(),
            seconds,
            ops_per_s: self.ops.get() as f64 / seconds,
            mb_per_s: self.bytes.get() as f64 / seconds / 1e6,
            errors: self.errors.get(),
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: if latency.is_empty() { 0.0 } else { latency.max() as f64 / 1000.0 },
            lag: None,
        }
    }
}

/// The figures of one run; the names are those of the JSON.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Report {
    pub ops: u64,
    pub seconds: f64,
    pub ops_per_s: f64,
    pub mb_per_s: f64,
    pub errors: u64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    /// From the acknowledgement of a put until every other mirror shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<Box<Report>>,
}

impl Report {
    /// The same with the lag of the mirrors.
    pub(super) fn with_lag(self, lag: Option<Self>) -> Self {
        Self { lag: lag.map(Box::new), ..self }
    }

    fn times(&self) -> String {
        let Self { p50_us, p90_us, p99_us, p999_us, max_us, .. } = self;
        let ms = [p50_us, p90_us, p99_us, p999_us, max_us].map(|us| *us / 1000.0);
        let [p50, p90, p99, p999, max] = ms;
        format!("p50 {p50:.3} ms, p90 {p90:.3}, p99 {p99:.3}, p99.9 {p999:.3}, max {max:.3}")
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} operations in {:.1} s: {:.0} ops/s, {:.1} MB/s, {} errors",
            self.ops, self.seconds, self.ops_per_s, self.mb_per_s, self.errors
        )?;
        f.write_str(&self.times())?;
        match &self.lag {
            Some(lag) => write!(
                f,
                "\nfrom the acknowledgement until every other mirror shows it ({} of them watched):\n{}",
                lag.ops,
                lag.times()
            ),
            None => Ok(()),
        }
    }
}
