//! What goes wrong, when, and what the record of it is.

use std::io;
use std::sync::Arc;

use super::dice::Dice;

/// `EIO`.
const EIO: i32 = 5;
/// `ENOSPC`.
const ENOSPC: i32 = 28;

/// Kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // named for the calls of `Disk` and `DiskFile`
pub enum Op {
    Open,
    Create,
    Read,
    Write,
    SyncData,
    WriteBack,
    Allocate,
    Punch,
    SetLen,
    Rename,
    Link,
    Unlink,
    CreateFolder,
    SyncDir,
    List,
    Stat,
}

impl Op {
    /// Whether the call can change something, or make it durable: those are counted, and can be crashed at.
    #[must_use]
    pub const fn mutates(self) -> bool {
        !matches!(self, Self::Open | Self::Read | Self::List | Self::Stat)
    }
}

/// One call, as the trace has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub op: Op,
    /// On which path; for a rename or link the old one. A file is called by the last name it was given.
    pub path: Arc<str>,
    /// The new path of a rename or link.
    pub to: Option<Arc<str>>,
    /// Offset, where the call has one.
    pub offset: u64,
    /// Bytes, where the call has a length.
    pub len: u64,
}

/// What happens instead of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails with EIO and does nothing. A failed `sync_data` or `write_back` drops the dirty state as Linux does: it
    /// counts as clean from then on, is never written by a later sync, and may be on the medium or not.
    Eio,
    /// The same with ENOSPC.
    Enospc,
    /// Reads or writes at most so many bytes and says so.
    Short(usize),
    /// Says it is done, and nothing happened (a lost write; a sync that lies; a rename that is forgotten).
    Lost,
    /// A write says it is done and lands elsewhere.
    Misdirect {
        /// In this file; `None`: the same.
        path: Option<String>,
        /// At this offset.
        offset: u64,
    },
    /// A write says it is done, but of the sector in which its byte `keep` lies only what is before that byte is new.
    Torn {
        /// Offset in the written bytes.
        keep: usize,
    },
}

/// Tells which calls a rule is for.
pub type Matches = Arc<dyn Fn(&Call) -> bool + Send + Sync>;

/// A fault for calls that match.
#[derive(Clone)]
pub struct Rule {
    /// Which calls.
    pub matches: Matches,
    /// How many matching calls go well first.
    pub after: u64,
    /// How many matching calls then fail.
    pub times: u64,
    /// How.
    pub fault: Fault,
}

impl Rule {
    /// The next call of this kind on a path that contains `path` fails so, once.
    #[must_use]
    pub fn once(path: &str, op: Op, fault: Fault) -> Self {
        Self { matches: on(path, op), after: 0, times: 1, fault }
    }

    /// Every call of this kind on a path that contains `path` fails so.
    #[must_use]
    pub fn always(path: &str, op: Op, fault: Fault) -> Self {
        Self { matches: on(path, op), after: 0, times: u64::MAX, fault }
    }
}

/// Calls of this kind on a path (old or new) that contains `path`.
#[must_use]
pub fn on(path: &str, op: Op) -> Matches {
    let path = path.to_owned();
    Arc::new(move |call| {
        let new_path = call.to.as_ref().is_some_and(|to| to.contains(&path));
        call.op == op && (call.path.contains(&path) || new_path)
    })
}

/// Whether this error is the simulated crash and no fault that an engine should live with.
#[must_use]
pub fn is_crashed(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Crashed>())
}

#[derive(Debug, thiserror::Error)]
#[error("the simulated machine has crashed")]
struct Crashed;

pub fn crashed() -> io::Error {
    io::Error::other(Crashed)
}

/// How the call under way is to go.
pub enum Verdict {
    /// Well.
    Go,
    /// The machine dies in it: apply so much of it, then fail. The share is in 1/256.
    Crash(u64),
    /// Otherwise.
    Fault(Fault),
}

/// Counter, rules and trace of one disk.
#[derive(Clone, Default)]
pub struct Control {
    pub calls: u64,
    pub crash_at: Option<u64>,
    pub crashed: bool,
    pub at_call: Vec<(u64, Fault)>,
    pub rules: Vec<Rule>,
    /// Syncs that are planted to do nothing. They survive a reboot: they stand for a bug in the program.
    pub ignored_syncs: Vec<Matches>,
    pub trace: Option<Vec<Call>>,
}

impl Control {
    /// What a reboot leaves.
    pub fn rebooted(&self) -> Self {
        Self { ignored_syncs: self.ignored_syncs.clone(), ..Self::default() }
    }

    pub fn begin(&mut self, call: Call) -> io::Result<Verdict> {
        if self.crashed {
            return Err(crashed());
        }
        if let Some(trace) = &mut self.trace {
            trace.push(call.clone());
        }
        if call.op.mutates() {
            self.calls += 1;
            if self.crash_at == Some(self.calls) {
                self.crashed = true;
                return Ok(Verdict::Crash(Dice::new(self.calls).below(257)));
            }
            if let Some(at) = self.at_call.iter().position(|(n, _)| *n == self.calls) {
                return Ok(Verdict::Fault(self.at_call.swap_remove(at).1));
            }
        }
        for rule in &mut self.rules {
            if rule.times == 0 || !(rule.matches)(&call) {
                continue;
            }
            if rule.after > 0 {
                rule.after -= 1;
                continue;
            }
            rule.times -= 1;
            return Ok(Verdict::Fault(rule.fault.clone()));
        }
        let ignored = self.ignored_syncs.iter().any(|matches| matches(&call));
        Ok(if ignored { Verdict::Fault(Fault::Lost) } else { Verdict::Go })
    }
}

pub fn eio() -> io::Error {
    io::Error::from_raw_os_error(EIO)
}

pub fn enospc() -> io::Error {
    io::Error::from_raw_os_error(ENOSPC)
}
