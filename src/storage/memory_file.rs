//! The storage's memory on disk: `state_dir/<group>.<syncgroup>.<machine>/memory`.
//!
//! Invariants: one daemon at a time (the folder is locked); replaced as a whole; a memory that cannot be understood ends
//! the start, because without it an unmounted disk would pass for a new one.

use super::folder;
use crate::actors::ambient;
use crate::format::envelope::FormatError;
use crate::format::ids::MountIndex;
use crate::format::label::Label;
use crate::format::members::Member;
use crate::format::memory::{MEMORY, MEMORY_LEN_MAX, MEMORY_TMP, Memory};
use crate::settings::StorageSettings;
use crate::store::disk::{Disk, DiskFile, Open};
use crate::store::label_file::read_label;
use crate::store::os_disk::{LockError, OsDisk};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be created, read or written.
    #[error("`state_dir`: {}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error(
        "`state_dir`: {}: in use by another daemon; give each storage a machine_id of its own, or stop the other one",
        path.display()
    )]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// What is in it cannot be understood.
    #[error(
        "`state_dir`: {}/{MEMORY}: {source}; {}",
        path.display(),
        match source {
            FormatError::Newer { .. } => "start the newer program that wrote it",
            _ => "move the file away and start again: the labels of the mounts are adopted, nothing that is stored is lost",
        }
    )]
    Format {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: FormatError,
    },
}

/// The memory, in RAM and on disk.
#[derive(Debug)]
pub struct MemoryFile {
    disk: OsDisk,
    memory: Mutex<Memory>,
    instance: [u8; 16],
}

impl MemoryFile {
    /// Reads the memory. If there is none, the labels of the mounts at `paths` say who we are; if they do not either,
    /// we are somebody new.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(settings: &StorageSettings, paths: &[PathBuf]) -> Result<Self, StateError> {
        let (group, syncgroup) = (settings.group.clone(), settings.syncgroup.clone());
        let machine = settings.machine_id;
        let path = settings.state_dir.join(format!("{group}.{syncgroup}.{machine}"));
        let io = |source| StateError::Io { path: path.clone(), source };
        let disk = folder::create(&path).map_err(io)?;
        disk.lock().map_err(|error| match error {
            LockError::Held => StateError::Locked { path: path.clone() },
            LockError::Io(source) => StateError::Io { path: path.clone(), source },
        })?;
        let memory = match read(&disk).map_err(io)? {
            Some(bytes) => Memory::decode(&bytes)
                .map_err(|source| StateError::Format { path: path.clone(), source })?,
            None => {
                let ours = |label: &Label| {
                    label.group == group && label.syncgroup == syncgroup && label.machine == machine
                };
                match paths.iter().filter_map(|path| label_at(path)).find(ours) {
                    Some(label) => Memory::of_instance(&label),
                    None => Memory {
                        group: group.clone(),
                        syncgroup: syncgroup.clone(),
                        machine,
                        instance: ambient::random().map_err(io)?,
                        generation: 0,
                        mounts: Vec::new(),
                    },
                }
            }
        };
        let instance = memory.instance;
        Ok(Self { disk, memory: Mutex::new(memory), instance })
    }

    /// Who this storage is, for as long as it lives.
    #[must_use]
    pub const fn instance(&self) -> [u8; 16] {
        self.instance
    }

    /// A look at the memory.
    pub fn with<T>(&self, look: impl FnOnce(&Memory) -> T) -> T {
        look(&self.lock())
    }

    /// Takes over what a label says, durably.
    ///
    /// # Errors
    /// The memory could not be written.
    pub fn remember(&self, label: &Label, path: &Path) -> io::Result<()> {
        let mut memory = self.lock();
        if memory.remember(label, &path.to_string_lossy()) {
            write(&self.disk, &memory.encode())?;
        }
        Ok(())
    }

    /// Takes over who mirrors a mount, durably.
    ///
    /// # Errors
    /// The memory could not be written.
    pub fn remember_members(&self, index: MountIndex, members: &[Member]) -> io::Result<()> {
        let mut memory = self.lock();
        let known = memory.mounts.iter_mut().find(|mount| mount.index == index);
        let Some(known) = known.filter(|known| known.members != members) else { return Ok(()) };
        known.members = members.to_vec();
        memory.generation = memory.generation.saturating_add(1);
        write(&self.disk, &memory.encode())
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn label_at(path: &Path) -> Option<Label> {
    read_label(&OsDisk::open(path).ok()?).ok()
}

fn read(disk: &OsDisk) -> io::Result<Option<Vec<u8>>> {
    let file = match Disk::open(disk, MEMORY, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(MEMORY_LEN_MAX);
    let mut bytes = vec![0; len];
    let got = file.read_full_at(0, &mut bytes)?;
    bytes.truncate(got);
    Ok(Some(bytes))
}

fn write(disk: &OsDisk, bytes: &[u8]) -> io::Result<()> {
    match disk.unlink(MEMORY_TMP) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = Disk::open(disk, MEMORY_TMP, Open::Create)?;
    file.write_all_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(MEMORY_TMP, MEMORY)?;
    disk.sync_dir("")
}
