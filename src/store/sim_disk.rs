//! [`Disk`] in memory, for tests: it loses what was not synced, tears, flips, misdirects, fills up and fails the n-th
//! call. Deterministic: what happens follows from the calls and from seeds alone.
//!
//! What it promises about power cuts (nothing more, so an engine that survives here rests on nothing more):
//! - `sync_data` makes the content and length of that file durable; `sync_dir` makes the names in that folder durable;
//!   nothing else makes anything durable, and a name is nothing without the names of the folders above it.
//! - Every sector written since then lands or does not, each by itself; of several states that a sector had, any one
//!   lands. A changed length lands or does not. Un-synced names land in order per folder, or (on request) each by itself.
//! - A sector is atomic (see [`Fault::Torn`] for one that is not).
//!
//! A test runs its workload on one disk, with [`SimDisk::crash_at_call`] or taking [`SimDisk::fork`]s on the way, and then
//! looks at any number of [`SimDisk::power_cuts`] of it: they leave the disk itself as it is. Contents are shared until
//! written, so forks and cuts cost microseconds.

mod dice;
mod faults;
mod file;
mod inode;
mod medium;
#[cfg(test)]
mod tests;

pub use dice::Dice;
pub use faults::{Call, Fault, Matches, Op, Rule, is_crashed, on};
pub use file::SimFile;
pub use medium::NameOrder;

use std::hash::Hasher as _;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, Entry, Open, Space};
use faults::{Control, Verdict, crashed, eio, enospc};
use medium::Medium;

/// Up to that many un-synced things every combination of outcomes is tried, beyond a seeded sample.
pub const EXHAUSTIVE_THINGS: usize = 6;

/// What a [`SimDisk`] is like.
#[derive(Clone, Copy, Debug)]
pub struct SimOptions {
    /// What lands or does not land as a whole, in bytes: 512 or 4096.
    pub sector: u64,
    /// Size of the file system in bytes.
    pub capacity: u64,
    /// How names land.
    pub names: NameOrder,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self { sector: 512, capacity: 1 << 40, names: NameOrder::PerFolder }
    }
}

/// A simulated mount. Clones are the same disk; see [`SimDisk::fork`] for another one.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    medium: Medium,
    control: Control,
    /// The medium before each mutating call, while that is recorded.
    forks: Option<Vec<Medium>>,
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").field("calls", &self.calls()).finish_non_exhaustive()
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new(SimOptions::default())
    }
}

// --- what a test does to the disk ---

impl SimDisk {
    /// A blank disk.
    #[must_use]
    pub fn new(options: SimOptions) -> Self {
        let medium = Medium::new(options.sector, options.names, options.capacity);
        Self::with(medium, Control::default())
    }

    fn with(medium: Medium, control: Control) -> Self {
        Self { state: Arc::new(Mutex::new(State { medium, control, forks: None })) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mutating calls so far (writes, syncs, creates, renames ...).
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().control.calls
    }

    /// The machine dies in the mutating call that makes [`calls`](Self::calls) `n`: it is applied in part, wholly or not
    /// at all, and it and every later call of any kind fail with an error that [`is_crashed`] knows.
    pub fn crash_at_call(&self, n: u64) {
        self.state().control.crash_at = Some(n);
    }

    /// The machine is dead from now on.
    pub fn crash(&self) {
        self.state().control.crashed = true;
    }

    /// Whether it is dead.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.state().control.crashed
    }

    /// The n-th mutating call goes wrong.
    pub fn fail_call(&self, n: u64, fault: Fault) {
        self.state().control.at_call.push((n, fault));
    }

    /// Calls go wrong by rule. The first rule that matches decides.
    pub fn fail_when(&self, rule: Rule) {
        self.state().control.rules.push(rule);
    }

    /// Takes all faults away; dropped syncs stay dropped.
    pub fn heal(&self) {
        let control = &mut self.state().control;
        control.at_call.clear();
        control.rules.clear();
        control.crash_at = None;
    }

    /// Calls that match do nothing and say they did, also after a reboot: a sync that the program forgot.
    pub fn ignore(&self, matches: Matches) {
        self.state().control.ignored_syncs.push(matches);
    }

    /// `sync_data` of files on a path that contains `path` does nothing, also after a reboot.
    pub fn ignore_sync(&self, path: &str) {
        self.ignore(on(path, Op::SyncData));
    }

    /// `sync_dir` of folders on a path that contains `path` does nothing, also after a reboot; nor does the one that
    /// `create_dir_all` makes.
    pub fn ignore_sync_dir(&self, path: &str) {
        self.ignore(on(path, Op::SyncDir));
    }

    /// Flips one bit of a file, as the medium has it and as it is read. False if there is no such byte.
    #[must_use]
    pub fn flip(&self, path: &str, offset: u64, bit: u8) -> bool {
        let mut state = self.state();
        let Ok(ino) = state.medium.find_file(path) else { return false };
        state.medium.change(ino, |inode| inode.flip(offset, bit)).unwrap_or(false)
    }

    /// Changes the size of the file system; what is stored stays.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().medium.set_capacity(bytes);
    }

    /// From now on calls are recorded.
    pub fn start_trace(&self) {
        self.state().control.trace = Some(Vec::new());
    }

    /// What was recorded since the last time.
    #[must_use]
    pub fn take_trace(&self) -> Vec<Call> {
        self.state().control.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// How many ways each un-synced thing can turn out in a power cut now (always at least two). Things are groups of
    /// names, changed lengths and written sectors.
    #[must_use]
    pub fn outcomes(&self) -> Vec<usize> {
        self.state().medium.outcomes()
    }

    /// How many things are un-synced.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.outcomes().len()
    }

    /// The disk after a power cut and reboot, with one pick for each of [`outcomes`](Self::outcomes): 0 did not land, k:
    /// the k-th state (or the first k names of the group) did. Faults are gone, dropped syncs stay dropped.
    #[must_use]
    pub fn power_cut_with(&self, picks: &[usize]) -> Self {
        let state = self.state();
        Self::with(state.medium.after_power_cut(picks), state.control.rebooted())
    }

    /// The disk after a power cut in which every outcome was drawn.
    #[must_use]
    pub fn power_cut(&self, dice: &mut Dice) -> Self {
        self.power_cut_with(&draw(&self.outcomes(), dice))
    }

    /// Picks for power cuts. Up to [`EXHAUSTIVE_THINGS`] un-synced things: all combinations; where several states of the
    /// things make that more than `most` x 16, all subsets of the latest states, and drawn ones. More things: `most`
    /// in all: nothing landed, everything landed, and drawn ones.
    #[must_use]
    pub fn power_cuts(&self, most: usize, dice: &mut Dice) -> Vec<Vec<usize>> {
        let outcomes = self.outcomes();
        let few = outcomes.len() <= EXHAUSTIVE_THINGS;
        let all = outcomes.iter().try_fold(1_usize, |product, n| product.checked_mul(*n));
        if let Some(all) = all.filter(|all| few && *all <= most.saturating_mul(16)) {
            return (0..all).map(|number| digits(number, &outcomes)).collect();
        }
        let subset = |mask: usize| -> Vec<usize> {
            let latest = |(at, n): (usize, &usize)| if mask >> at & 1 == 1 { n - 1 } else { 0 };
            outcomes.iter().enumerate().map(latest).collect()
        };
        let mut cuts: Vec<Vec<usize>> = if few {
            (0..1 << outcomes.len()).map(subset).collect()
        } else {
            vec![vec![0; outcomes.len()], outcomes.iter().map(|n| n - 1).collect()]
        };
        let drawn = most.saturating_sub(if few { 0 } else { cuts.len() });
        cuts.extend((0..drawn).map(|_| draw(&outcomes, dice)));
        cuts
    }

    /// The disk after the process was killed: what was written is there, also what was not synced (a later power cut may
    /// still take that back). The old handles are dead.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut state = self.state();
        state.control.crashed = true;
        Self::with(state.medium.after_kill(), state.control.rebooted())
    }

    /// Another disk that is like this one now, as after [`kill`](Self::kill), but this one lives on.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.state();
        Self::with(state.medium.after_kill(), state.control.rebooted())
    }

    /// From now on the disk is remembered as it is before each mutating call: every point at which it could crash.
    pub fn start_forks(&self) {
        self.state().forks = Some(Vec::new());
    }

    /// A [`fork`](Self::fork) for each mutating call since the last time, as it was before that call. What a call did
    /// in part needs none of its own: a power cut takes back any part of what is not synced.
    #[must_use]
    pub fn take_forks(&self) -> Vec<Self> {
        let mut state = self.state();
        let media = state.forks.as_mut().map(std::mem::take).unwrap_or_default();
        let fork = |medium: Medium| Self::with(medium.after_kill(), state.control.rebooted());
        media.into_iter().map(fork).collect()
    }

    /// A hash of all that can be read from the disk now. Two disks that were rebooted and hash alike behave alike.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = siphasher::sip::SipHasher13::new();
        self.state().medium.digest(&mut hasher);
        hasher.finish()
    }
}

/// The `number`-th combination.
fn digits(mut number: usize, outcomes: &[usize]) -> Vec<usize> {
    let digit = |options: &usize| {
        let digit = number % options;
        number /= options;
        digit
    };
    outcomes.iter().map(digit).collect()
}

/// Some cuts come early, some late: how much landed is drawn first.
fn draw(outcomes: &[usize], dice: &mut Dice) -> Vec<usize> {
    let landed_percent = [10, 50, 50, 90][(dice.next() % 4) as usize];
    let pick = |options: &usize| {
        if !dice.chance(landed_percent) {
            0
        } else if dice.chance(50) {
            options - 1
        } else {
            1 + (dice.below(*options as u64 - 1)) as usize
        }
    };
    outcomes.iter().map(pick).collect()
}

// --- what the engine does with it ---

impl State {
    /// Every call passes here.
    fn begin(&mut self, call: Call) -> io::Result<Verdict> {
        if let Some(forks) = &mut self.forks
            && call.op.mutates()
            && !self.control.crashed
        {
            forks.push(self.medium.clone());
        }
        self.control.begin(call)
    }

    /// A call on names. `apply` is what it does when it goes well.
    fn name_call<T: Default>(
        &mut self,
        op: Op,
        path: &str,
        to: Option<&str>,
        apply: impl FnOnce(&mut Medium) -> io::Result<T>,
    ) -> io::Result<T> {
        let call = Call { op, path: path.into(), to: to.map(Into::into), offset: 0, len: 0 };
        match self.begin(call)? {
            Verdict::Go | Verdict::Fault(Fault::Short(_) | Fault::Torn { .. }) => {
                apply(&mut self.medium)
            }
            Verdict::Crash(share) => {
                if share >= 128 {
                    apply(&mut self.medium)?;
                }
                Err(crashed())
            }
            Verdict::Fault(Fault::Eio) => Err(eio()),
            Verdict::Fault(Fault::Enospc) => Err(enospc()),
            Verdict::Fault(Fault::Lost | Fault::Misdirect { .. }) => Ok(T::default()),
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn open(&self, path: &str, how: Open) -> io::Result<SimFile> {
        check_path(path)?;
        let mut state = self.state();
        let ino = match how {
            Open::Create => {
                let made = state.name_call(Op::Create, path, None, |m| m.create(path).map(Some))?;
                // A lost create is a file that is there for its creator and nowhere else; nothing needs that.
                made.ok_or_else(eio)?
            }
            Open::Read | Open::Write => {
                let found = state.name_call(Op::Open, path, None, |m| m.find_file(path).map(Some));
                found?.ok_or_else(eio)?
            }
        };
        state.medium.count_handle(ino, true);
        Ok(SimFile::new(self.clone(), ino, how != Open::Read))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_path(from)?;
        check_path(to)?;
        self.state().name_call(Op::Rename, from, Some(to), |medium| medium.rename(from, to))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        check_path(from)?;
        check_path(to)?;
        self.state().name_call(Op::Link, from, Some(to), |medium| medium.link(from, to))
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        check_path(path)?;
        self.state().name_call(Op::Unlink, path, None, |medium| medium.unlink(path))
    }

    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        check_path(path)?;
        let mut state = self.state();
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for folder in ends.map(|end| &path[..end]) {
            let parent = folder.rsplit_once('/').map_or("", |(parent, _)| parent);
            if state.medium.folder_is_durable(folder)? {
                continue;
            }
            state.name_call(Op::CreateFolder, folder, None, |m| m.create_folder(folder))?;
            state.name_call(Op::SyncDir, parent, None, |medium| medium.sync_folder(parent))?;
        }
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        check_folder(path)?;
        self.state().name_call(Op::SyncDir, path, None, |medium| medium.sync_folder(path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        check_folder(path)?;
        self.state().name_call(Op::List, path, None, |medium| medium.list(path))
    }

    fn stat(&self, path: &str) -> io::Result<Option<u64>> {
        check_path(path)?;
        self.state().name_call(Op::Stat, path, None, |medium| match medium.find_file(path) {
            Ok(ino) => medium.file(ino).map(|inode| Some(inode.len())),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => Ok(None),
            Err(e) => Err(e),
        })
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.state();
        if state.control.crashed { Err(crashed()) } else { Ok(state.medium.space()) }
    }
}

fn check_folder(path: &str) -> io::Result<()> {
    if path.is_empty() { Ok(()) } else { check_path(path) }
}

/// As strict as the real one.
fn check_path(path: &str) -> io::Result<()> {
    if path.is_empty() {
        return Err(ErrorKind::IsADirectory.into());
    }
    let fine = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if path.split('/').all(fine) {
        Ok(())
    } else {
        Err(io::Error::new(ErrorKind::InvalidInput, "not a path below the mount"))
    }
}
