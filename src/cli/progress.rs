//! A bar on a terminal, nothing elsewhere; problems go to stderr without tearing the bar.

use super::say;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;

/// How far a long command is.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Counts files on a terminal.
    pub(super) fn files() -> Self {
        Self::styled("{bar:40} {pos}/{len} files  {per_sec}  {eta} left  {msg}")
    }

    /// Counts bytes on a terminal.
    pub(super) fn bytes() -> Self {
        Self::styled("{bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}")
    }

    /// Says nothing.
    #[cfg(test)]
    pub(super) const fn silent() -> Self {
        Self { bar: None }
    }

    fn styled(template: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar: Some(bar) }
    }

    /// How much there is to do.
    pub(super) fn start(&self, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// One more is done.
    pub(super) fn step(&self) {
        self.advance(1);
    }

    /// So many more are done.
    pub(super) fn advance(&self, by: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(by);
        }
    }

    /// Something went wrong with one of them.
    pub(super) fn problem(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say::aside(format_args!("folio: {text}"))),
            None => say::aside(format_args!("folio: {text}")),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
