//! A page of metrics in the text format of Prometheus, version 0.0.4.
//!
//! Invariants: a family is named once and its samples stand together; names are constants of this program, label values
//! are escaped, whatever a stranger put into them.

use crate::store::histogram::Counted;
use std::fmt::Write as _;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values by size.
    Histogram,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Labels of a sample.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// A page in the making.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    family: &'static str,
}

impl Page {
    /// Nothing on it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a family. `help` is one line.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> &mut Self {
        debug_assert!(!help.contains(['\n', '\\']), "{name}: one plain line");
        self.family = name;
        self.add(format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.word()));
        self
    }

    /// One sample of the family.
    pub fn sample(&mut self, labels: Labels<'_>, value: u64) -> &mut Self {
        self.line("", labels, None, format_args!("{value}"))
    }

    /// One sample that is no whole number. Seconds, mostly.
    pub fn seconds(&mut self, labels: Labels<'_>, value: f64) -> &mut Self {
        self.line("", labels, None, format_args!("{value}"))
    }

    /// A histogram of the family; its values are divided by `scale` (1e6: microseconds are told as seconds).
    #[allow(clippy::cast_precision_loss, reason = "a chart does not show the 53rd bit")]
    pub fn histogram(&mut self, labels: Labels<'_>, counted: &Counted, scale: f64) -> &mut Self {
        let mut so_far = 0;
        for (bound, count) in counted.bounds.iter().zip(&counted.buckets) {
            so_far += count;
            let bound = format!("{}", *bound as f64 / scale);
            self.line("_bucket", labels, Some(&bound), format_args!("{so_far}"));
        }
        let all: u64 = counted.buckets.iter().sum();
        self.line("_bucket", labels, Some("+Inf"), format_args!("{all}"));
        self.line("_sum", labels, None, format_args!("{}", counted.sum as f64 / scale));
        self.line("_count", labels, None, format_args!("{all}"))
    }

    /// The page.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: Labels<'_>,
        le: Option<&str>,
        value: std::fmt::Arguments<'_>,
    ) -> &mut Self {
        let family = self.family;
        self.add(format_args!("{family}{suffix}"));
        let all = labels.iter().copied().chain(le.map(|le| ("le", le)));
        let mut begun = false;
        for (name, value) in all {
            let sign = if begun { ',' } else { '{' };
            begun = true;
            self.add(format_args!("{sign}{name}=\"{}\"", escaped(value)));
        }
        self.add(format_args!("{} {value}\n", if begun { "}" } else { "" }));
        self
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into memory does not fail.
        self.text.write_fmt(text).unwrap_or_default();
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What every daemon says of itself: build, uptime, memory, threads, descriptors, CPU time.
pub fn process(page: &mut Page, role: &str, uptime_ms: u64) {
    let (version, revision) = (env!("CARGO_PKG_VERSION"), env!("FOLIO_GIT_REVISION"));
    page.family("folio_build_info", Kind::Gauge, "Always 1; which program this is.")
        .sample(&[("version", version), ("revision", revision), ("role", role)], 1);
    page.family("folio_uptime_seconds", Kind::Gauge, "Since the daemon started.")
        .sample(&[], uptime_ms / 1_000);
    let Some(usage) = super::ambient::usage() else { return };
    page.family("process_resident_memory_bytes", Kind::Gauge, "Memory in use.")
        .sample(&[], usage.resident_bytes);
    page.family("process_threads", Kind::Gauge, "Threads.").sample(&[], usage.threads);
    page.family("process_open_fds", Kind::Gauge, "Open files and sockets.")
        .sample(&[], usage.descriptors);
    page.family("process_cpu_seconds_total", Kind::Counter, "CPU time used.")
        .seconds(&[], usage.cpu_seconds);
}

/// Requests by opcode and result, and how long they took.
pub fn requests(page: &mut Page, meter: &super::meter::Meter) {
    let counted = meter.counted();
    page.family(
        "folio_requests_total",
        Kind::Counter,
        "Requests answered, by what became of them.",
    );
    for row in &counted {
        let op = row.opcode.name();
        page.sample(&[("op", op), ("result", "ok")], row.done);
        for (code, count) in &row.refused {
            page.sample(&[("op", op), ("result", code.name())], *count);
        }
    }
    page.family("folio_request_seconds", Kind::Histogram, "From the frame to its answer.");
    for row in &counted {
        page.histogram(&[("op", row.opcode.name())], &row.latency.counted(), 1e6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::histogram::Histogram;

    #[test]
    fn a_page_is_what_the_format_says() {
        let mut page = Page::new();
        page.family("a_total", Kind::Counter, "Things.").sample(&[], 3);
        page.family("b", Kind::Gauge, "Others.").sample(&[("x", "q\"\\\n"), ("y", "")], 4);
        let histogram = Histogram::new(&[100, 1_000_000]);
        histogram.record(100);
        histogram.record(5_000_000);
        page.family("c_seconds", Kind::Histogram, "Times.");
        page.histogram(&[("op", "get")], &histogram.counted(), 1e6);
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total 3\n\
            # HELP b Others.\n# TYPE b gauge\nb{x=\"q\\\"\\\\\\n\",y=\"\"} 4\n\
            # HELP c_seconds Times.\n# TYPE c_seconds histogram\n\
            c_seconds_bucket{op=\"get\",le=\"0.0001\"} 1\nc_seconds_bucket{op=\"get\",le=\"1\"} 1\n\
            c_seconds_bucket{op=\"get\",le=\"+Inf\"} 2\nc_seconds_sum{op=\"get\"} 5.0001\n\
            c_seconds_count{op=\"get\"} 2\n";
        assert_eq!(page.finish(), expected);
    }
}
