//! Members that were removed for good (design section 6; the rules are [`Forget`]'s).
//!
//! Invariants
//! - A forget is durable in `folio.forgotten` before anything follows from it, and is never taken back.
//! - The member counts (for R12, for vectors, for the retention of logs) until all other members know of it and hold the
//!   same prefix of its logs; then it leaves the label.
//! - A life that a forget names is refused for ever; a blank return, with a log of its own, may join.

use super::disk::{Disk, DiskFile, Open};
use super::error::{StoreError, StoreResult};
use super::label_file::{is_damage, replace_both};
use super::mount::Mount;
use crate::cluster::members::Forget;
use crate::format::forgotten::{FORGOTTEN_LEN_MAX, Forgotten, decode_file, encode_file};
use crate::format::ids::{LogId, MachineId};
use crate::format::paths;
use crate::format::record::Record;
use bytes::Bytes;

/// Longest record about a forgotten member, without its log ids.
const RECORD_MAX: usize = 128;

impl<D: Disk> Mount<D> {
    /// Members that were removed, as far as this mount has heard.
    #[must_use]
    pub fn forgotten(&self) -> &[Forgotten] {
        &self.forgotten
    }

    /// Whether this life of that machine is shut out.
    #[must_use]
    pub fn refuses(&self, machine: MachineId, log_id: LogId) -> bool {
        self.forgotten.iter().any(|forgotten| forgotten.refuses(machine, log_id))
    }

    /// Removes a member for good: logged, and so on all mirrors. Durable when it returns; `false`: it is no member.
    ///
    /// # Errors
    /// The mount is fenced.
    pub fn forget(&mut self, machine: MachineId) -> StoreResult<bool> {
        self.check_fence()?;
        let own = self.core.label.machine;
        let member = self.core.label.members.iter().find(|member| member.machine == machine);
        let Some(member) = member.filter(|member| member.machine != own).cloned() else {
            return Ok(false);
        };
        let mut log_ids = member.log_ids;
        let coverage = self.coverage();
        let heard = coverage.iter().filter(|at| at.machine == machine).map(|at| at.log_id);
        log_ids.extend(heard);
        log_ids.sort_unstable();
        log_ids.dedup();
        self.reserve_log(RECORD_MAX + log_ids.len() * 4)?;
        let sequence = self.take_sequence();
        let at = self.position(sequence);
        let forgotten = Forgotten { machine, instance: member.instance, log_ids, at };
        self.push_record(&Record::Forgotten(forgotten.clone()), sequence, Bytes::new(), 0);
        self.commit()?;
        self.learn_forgotten(&forgotten)?;
        Ok(true)
    }

    /// Hears that a member was removed.
    ///
    /// # Errors
    /// The mount is fenced: the list cannot be written, or it is this very mount that was removed.
    pub fn learn_forgotten(&mut self, forgotten: &Forgotten) -> StoreResult<()> {
        if !self.forgotten.contains(forgotten) {
            let mut all = self.forgotten.clone();
            all.push(forgotten.clone());
            if let Err(error) = write_forgotten(&self.core.disk, &all) {
                self.fence(error.to_string());
                return Err(error);
            }
            let (machine, by) = (forgotten.machine, forgotten.at.machine);
            tracing::warn!(mount = self.core.label.mount, machine, by, "a member is forgotten");
            self.forgotten = all;
        }
        let (own, log_id) = (self.core.label.machine, self.core.label.log_id);
        if forgotten.refuses(own, log_id) {
            let why = FORGOTTEN.to_owned();
            self.fence(why.clone());
            return Err(StoreError::Fenced(why));
        }
        self.end_forgets()
    }

    /// Members whose forget is complete are members no more.
    pub(super) fn end_forgets(&mut self) -> StoreResult<()> {
        let done: Vec<MachineId> = self
            .forgotten
            .iter()
            .filter(|forgotten| self.is_complete(forgotten))
            .map(|forgotten| forgotten.machine)
            .collect();
        let mut members = self.core.label.members.clone();
        members.retain(|member| !done.contains(&member.machine));
        if members.len() == self.core.label.members.len() {
            return Ok(());
        }
        tracing::info!(
            mount = self.core.label.mount,
            ?done,
            "forgotten members are members no more"
        );
        self.set_members(members)?;
        self.settle();
        Ok(())
    }

    fn is_complete(&self, forgotten: &Forgotten) -> bool {
        let machine = forgotten.machine;
        let mut members = self.core.label.members.iter();
        let renewed = |log_ids: &[LogId]| log_ids.iter().any(|id| !self.refuses(machine, *id));
        match members.find(|member| member.machine == machine) {
            // It came back blank: the forget is about who it was.
            Some(member) if renewed(&member.log_ids) => return false,
            Some(_) => {}
            None => return false,
        }
        let own = self.core.label.machine;
        let coverage = self.coverage();
        let others = self.core.label.members.iter().map(|member| member.machine);
        let others = others.filter(|member| *member != machine && *member != own);
        let coverages = others.map(|member| self.reports.get(&member).map(|r| &r.coverage));
        let forget = Forget {
            machine,
            log_ids: forgotten.log_ids.iter().copied().collect(),
            at: forgotten.at,
        };
        forget.is_complete(coverages.chain([Some(&coverage)]))
    }
}

/// What is said of a mount that was removed from its syncgroup.
pub const FORGOTTEN: &str =
    "forgotten: this machine was removed from its syncgroup for good (`forget`)";

/// Reads the list of a mount, or where it is damaged its copy; empty if there is none.
///
/// # Errors
/// `Io`, `Format`.
pub fn read_forgotten<D: Disk>(disk: &D) -> StoreResult<Vec<Forgotten>> {
    let first = read_list(disk, paths::FORGOTTEN);
    match &first {
        Err(error) if is_damage(error) && is_there(disk, paths::FORGOTTEN_COPY) => {
            read_list(disk, paths::FORGOTTEN_COPY).or(first)
        }
        Ok(_) | Err(_) => first,
    }
}

fn is_there<D: Disk>(disk: &D, path: &str) -> bool {
    matches!(disk.stat(path), Ok(Some(_)))
}

/// Reads one of the two; empty if there is none.
pub(super) fn read_list<D: Disk>(disk: &D, path: &str) -> StoreResult<Vec<Forgotten>> {
    let io = |what: &str| StoreError::io(format!("{what} {path}"));
    let file = match disk.open(path, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("open")(error)),
    };
    let len = usize::try_from(file.len().map_err(io("length of"))?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len.min(FORGOTTEN_LEN_MAX)];
    let got = file.read_full_at(0, &mut bytes).map_err(io("read"))?;
    Ok(decode_file(&bytes[..got])?)
}

/// Replaces the list and its copy, each as a whole; durable when it returns.
pub(super) fn write_forgotten<D: Disk>(disk: &D, all: &[Forgotten]) -> StoreResult<()> {
    let names = [paths::FORGOTTEN, paths::FORGOTTEN_COPY];
    replace_both(disk, paths::FORGOTTEN_TMP, names, &encode_file(all))
}
