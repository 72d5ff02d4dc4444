//! Opens a mount's folder: looks, has [`recovery`](crate::recovery) judge, and does what it says.
//!
//! Invariants: the folder is locked before anything in it is believed; label before memory at birth, memory before
//! serving at an adoption; every failure names the mount's path, and what mends it.

use super::folder;
use super::memory_file::MemoryFile;
use super::remains;
use crate::actors::ambient;
use crate::actors::mount_mirror::{MountIdentity, Remember};
use crate::actors::mount_room::{OpenFailure, Opened, Opener, Watch};
use crate::actors::problems::fence_remedy;
use crate::actors::shared_mount::{OpenMount, SharedMount};
use crate::actors::shelf::Shelf;
use crate::cluster::view::MountState;
use crate::format::ids::MountIndex;
use crate::format::label::Label;
use crate::format::members::Member;
use crate::format::recovery_state::{Cause, RecoveryState};
use crate::recovery::{Failure, Folder, LabelFact, MountFacts, Verdict, Wanted, assess};
use crate::settings::{StorageSettings, SyncMode};
use crate::store::clock::SystemClock;
use crate::store::error::StoreError;
use crate::store::forget::FORGOTTEN;
use crate::store::histogram::Histogram;
use crate::store::label_file::read_label;
use crate::store::mount::Mount;
use crate::store::options::{MountOptions, Reserve};
use crate::store::os_disk::{Identity, LockError, OsDisk, is_mount_root};
use crate::store::reader::Reader;
use crate::store::recovery_file::{read_recovery, write_recovery};
use crate::store::tokens::TokenTable;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest log segment, in bytes.
const SEGMENT_MAX: u64 = 64 << 20;
/// Shortest, in bytes.
const SEGMENT_MIN: u64 = 1 << 20;

/// Everything that opening one mount takes.
pub struct MountOpener {
    pub settings: Arc<StorageSettings>,
    pub index: MountIndex,
    pub path: PathBuf,
    pub memory: Arc<MemoryFile>,
    pub tokens: Arc<TokenTable>,
    pub create_folder: bool,
    /// What an operator wants of it.
    pub shared: Arc<SharedMount>,
    /// Chunkfiles kept open for reading.
    pub handles: usize,
    pub seed: [u8; 32],
    /// Counts how long each fdatasync takes.
    pub syncs: Arc<Histogram>,
}

impl MountOpener {
    /// As the mount's actors call it, now and after each failure.
    pub fn into_opener(mut self) -> Opener {
        Box::new(move || {
            let opened = self.open();
            // Names and secrets of one opening are never those of another.
            if let Ok(seed) = ambient::random() {
                self.seed = seed;
            }
            opened
        })
    }

    fn open(&self) -> Result<Opened, OpenFailure> {
        let disk = self.folder()?;
        match disk.as_ref().map(OsDisk::lock) {
            Some(Err(LockError::Held)) => {
                return Err(OpenFailure {
                    state: MountState::Failed,
                    why: format!("{} is locked by another daemon", self.path.display()),
                    remedy: "stop the other daemon, or give this mount a folder of its own"
                        .to_owned(),
                    retry: false,
                });
            }
            Some(Err(LockError::Io(error))) => return Err(self.cannot("lock", &error)),
            Some(Ok(())) | None => {}
        }
        let verdict = self.judge(disk.as_ref())?;
        match (verdict, disk) {
            (Verdict::Serve | Verdict::Adopt, Some(disk)) => self.serve(disk),
            (Verdict::New, Some(disk)) => self.found(disk),
            (Verdict::BlankRemembered { .. }, Some(disk)) => self.refill(disk),
            (
                Verdict::Failed(Failure::NotMounted | Failure::Foreign(_) | Failure::Damaged(_)),
                Some(disk),
            ) if self.shared.take_confirmed() => self.refill_anyway(disk),
            (Verdict::Failed(failure), _) => Err(OpenFailure {
                state: MountState::Failed,
                why: format!("{}: {failure}", self.path.display()),
                remedy: failure.remedy().replace("MOUNT", &self.index.to_string()),
                retry: true,
            }),
            (
                Verdict::Serve | Verdict::Adopt | Verdict::New | Verdict::BlankRemembered { .. },
                None,
            ) => Err(self.cannot("open", &io::ErrorKind::NotFound.into())),
        }
    }

    fn cannot(&self, what: &str, error: &io::Error) -> OpenFailure {
        OpenFailure {
            state: MountState::Failed,
            why: format!("cannot {what} {}: {error}", self.path.display()),
            remedy: "check the folder and its rights; it is looked at again by itself".to_owned(),
            retry: true,
        }
    }

    fn folder(&self) -> Result<Option<OsDisk>, OpenFailure> {
        let known = self.memory.with(|memory| memory.mount(self.index).is_some());
        let opened = if self.create_folder && !known {
            folder::create(&self.path)
        } else {
            OsDisk::open(&self.path)
        };
        match opened {
            Ok(disk) => Ok(Some(disk.measured(Arc::clone(&self.syncs)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.cannot("open", &error)),
        }
    }

    fn judge(&self, disk: Option<&OsDisk>) -> Result<Verdict, OpenFailure> {
        let settings = &self.settings;
        let wanted = Wanted {
            group: &settings.group,
            syncgroup: &settings.syncgroup,
            machine: settings.machine_id,
            mount: self.index,
        };
        let (mut folder, mut label, mut names) = (Folder::Absent, LabelFact::Missing, Vec::new());
        let mut refilling = false;
        if let Some(disk) = disk {
            folder = match is_mount_root(&self.path) {
                Ok(mount_root) => Folder::Present { mount_root },
                Err(error) => Folder::Unreadable(error.to_string()),
            };
            label = label_fact(disk);
            if label == LabelFact::Missing {
                names = remains::names(disk).map_err(|error| self.cannot("list", &error))?;
            }
            refilling = read_recovery(disk).map_err(|error| self.refused(&error))?.is_some();
            if !disk.writable().map_err(|error| self.cannot("look at", &error))? {
                return Err(OpenFailure {
                    state: MountState::Failed,
                    why: format!("{} is not writable", self.path.display()),
                    remedy:
                        "give the daemon's user the right to write there, or mount it read-write"
                            .to_owned(),
                    retry: true,
                });
            }
        }
        let facts = MountFacts { wanted, folder, label, names: &names, refilling };
        Ok(self.memory.with(|memory| assess(&facts, Some(memory))))
    }

    fn serve(&self, disk: OsDisk) -> Result<Opened, OpenFailure> {
        let label = read_label(&disk).map_err(|error| self.refused(&error))?;
        self.memory
            .remember(&label, &self.path)
            .map_err(|error| self.cannot("remember", &error))?;
        let known = self.memory.with(|memory| {
            memory.mount(self.index).map_or(0, |known| known.starts_of(label.log_id))
        });
        if known > label.start_count {
            tracing::error!(
                mount = self.index,
                path = %self.path.display(),
                starts = label.start_count,
                known,
                "the mount is an old copy of itself: what it lacks of its own log comes from its mirrors"
            );
        }
        let (clock, tokens) = (Arc::new(SystemClock), Arc::clone(&self.tokens));
        let options = MountOptions { starts_known: known, ..self.options() };
        let mount = match Mount::open(disk.clone(), options, clock, tokens) {
            Ok(mount) => mount,
            Err(_) if self.shared.take_confirmed() => return self.refill_anyway(disk),
            Err(error) => return Err(self.not_opened(&error, label.members.len() > 1)),
        };
        // Before a position of this start is given to anybody.
        self.memory
            .remember(mount.label(), &self.path)
            .map_err(|error| self.cannot("remember", &error))?;
        self.enter(disk, mount)
    }

    fn found(&self, disk: OsDisk) -> Result<Opened, OpenFailure> {
        let mount = self.create(&disk, Vec::new())?;
        tracing::info!(mount = self.index, path = %self.path.display(), "new mount");
        self.enter(disk, mount)
    }

    /// An empty folder that was in use: labelled anew, under a log id that was never used, and refilled from the mirrors
    /// before it serves.
    fn refill(&self, disk: OsDisk) -> Result<Opened, OpenFailure> {
        let known = self.memory.with(|memory| memory.mount(self.index).cloned());
        let members = known.map_or_else(Vec::new, |known| known.members);
        // What was done before nobody here remembers: of older tokens it says so, and does nothing twice.
        self.tokens.restore(&[], ambient::wall_ms());
        remains::clear(&disk).map_err(|error| self.cannot("clear", &error))?;
        let state = RecoveryState::begin(Cause::Blank, ambient::wall_ms());
        write_recovery(&disk, &state).map_err(|error| self.refused(&error))?;
        let mount = self.create(&disk, members)?;
        tracing::warn!(
            mount = self.index,
            path = %self.path.display(),
            "the mount is empty although it was in use: it is refilled from its mirrors"
        );
        self.enter(disk, mount)
    }

    /// An operator said so: what the folder holds is set aside, nothing of it is lost.
    fn refill_anyway(&self, disk: OsDisk) -> Result<Opened, OpenFailure> {
        let aside = remains::set_aside(&disk, ambient::wall_ms());
        let aside = aside.map_err(|error| self.cannot("set aside the content of", &error))?;
        tracing::warn!(
            target: "audit",
            mount = self.index,
            path = %self.path.display(),
            aside,
            "an operator has the mount refilled"
        );
        match self.memory.with(|memory| memory.mount(self.index).is_some()) {
            true => self.refill(disk),
            false => self.found(disk),
        }
    }

    fn create(&self, disk: &OsDisk, members: Vec<Member>) -> Result<Mount<OsDisk>, OpenFailure> {
        let random = |error| self.cannot("draw a name for", &error);
        let mount_root =
            is_mount_root(&self.path).map_err(|error| self.cannot("look at", &error))?;
        let label = Label {
            was_mountpoint: mount_root,
            members,
            ..Label::blank(
                &self.settings.group,
                &self.settings.syncgroup,
                self.settings.machine_id,
                self.index,
                ambient::random().map_err(random)?,
                self.memory.instance(),
            )
        };
        let (clock, tokens) = (Arc::new(SystemClock), Arc::clone(&self.tokens));
        let mount = Mount::create(disk.clone(), label, self.options(), clock, tokens);
        let mount = mount.map_err(|error| self.refused(&error))?;
        self.memory
            .remember(mount.label(), &self.path)
            .map_err(|error| self.cannot("remember", &error))?;
        Ok(mount)
    }

    fn refused(&self, error: &StoreError) -> OpenFailure {
        if let StoreError::Fenced(why) = error
            && why.starts_with(FORGOTTEN)
        {
            let remedy = fence_remedy(why).to_owned();
            return OpenFailure {
                state: MountState::Failed,
                why: why.clone(),
                remedy,
                retry: true,
            };
        }
        OpenFailure {
            state: MountState::Failed,
            why: format!("{}: {error}", self.path.display()),
            remedy: "`folio fsck` says what is damaged; the system's log may tell about the disk"
                .to_owned(),
            retry: true,
        }
    }

    /// It is ours, and damaged too badly to be opened.
    fn not_opened(&self, error: &StoreError, mirrored: bool) -> OpenFailure {
        let failure = self.refused(error);
        let forgotten = matches!(error, StoreError::Fenced(_));
        if forgotten || !mirrored {
            return failure;
        }
        let index = self.index;
        let remedy = format!(
            "check the disk (dmesg, smartctl); `recover {index} start --confirm` on the console sets aside what it holds \
             and refills it from its mirrors; `folio fsck` says what is damaged"
        );
        OpenFailure { remedy, ..failure }
    }

    fn enter(&self, disk: OsDisk, mut mount: Mount<OsDisk>) -> Result<Opened, OpenFailure> {
        for warning in mount.take_warnings() {
            tracing::warn!(mount = self.index, warning, "found while opening");
        }
        let mode = disk.probe_nowait().map_err(|error| self.cannot("read", &error))?;
        let shelf: Arc<dyn Shelf> =
            Arc::new(Reader::of_os(disk.clone(), self.index, mode, self.handles));
        let open = OpenMount { shelf, content_ids: mount.content_ids() };
        let label = mount.label().clone();
        let identity = MountIdentity {
            machine: label.machine,
            mount_uuid: label.mount_uuid,
            instance: label.instance,
        };
        let (memory, index) = (Arc::clone(&self.memory), self.index);
        let remember: Remember = Box::new(move |members| {
            memory.remember_members(index, members).map_err(|error| error.to_string())
        });
        let refill = read_recovery(&disk).map_err(|error| self.refused(&error))?;
        let watch = watch(disk, self.path.clone(), label);
        Ok(Opened { engine: Box::new(mount), open, watch, identity, remember, refill })
    }

    fn options(&self) -> MountOptions {
        let store = &self.settings.store;
        // Small chunkfiles mean small disks, or many of them: their logs are small, too.
        let segment_len_max = (store.chunkfile_size).clamp(SEGMENT_MIN, SEGMENT_MAX);
        MountOptions {
            chunkfile_size: store.chunkfile_size,
            single_file_threshold: store.single_file_threshold,
            reserve: match store.reserve {
                crate::settings::Reserve::Percent(percent) => Reserve::Percent(percent),
                crate::settings::Reserve::Bytes(bytes) => Reserve::Bytes(bytes),
            },
            reserve_free: self.shared.reserve_free(),
            undelete_window_ms: u64::try_from(store.undelete_window.as_millis())
                .unwrap_or(u64::MAX),
            active_chunkfiles: usize::from(store.active_chunkfiles_per_mount),
            sync: match self.settings.durability.sync {
                SyncMode::Fsync => crate::store::options::SyncMode::Fsync,
                SyncMode::Os => crate::store::options::SyncMode::Os,
            },
            segment_len_max,
            log_retention_bytes: self.settings.sync.log_retention_bytes,
            segment_len_min: (segment_len_max / 16).max(SEGMENT_MIN),
            seed: self.seed,
            ..MountOptions::default()
        }
    }
}

fn label_fact(disk: &OsDisk) -> LabelFact {
    match read_label(disk) {
        Ok(label) => LabelFact::Found(label),
        Err(StoreError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            LabelFact::Missing
        }
        Err(StoreError::Format(error)) => LabelFact::Bad(error),
        Err(error) => LabelFact::Unreadable(error.to_string()),
    }
}

/// Looks whether `path` still leads to the folder that is open, and whether its label is still ours.
fn watch(disk: OsDisk, path: PathBuf, label: Label) -> Watch {
    Box::new(move || look(&disk, &path, &label))
}

fn look(disk: &OsDisk, path: &Path, label: &Label) -> Result<(), String> {
    let shown = path.display();
    let opened =
        disk.identity().map_err(|error| format!("{shown} cannot be looked at: {error}"))?;
    match Identity::of_path(path) {
        Ok(now) if now == opened => {}
        Ok(_) => return Err(format!("{shown} was unmounted or replaced")),
        Err(error) => return Err(format!("{shown} is gone: {error}")),
    }
    match read_label(disk) {
        Ok(now) if now.mount_uuid == label.mount_uuid && now.log_id == label.log_id => Ok(()),
        Ok(_) => Err(format!("{shown} has another label than it had")),
        Err(error) => Err(format!("the label of {shown} cannot be read: {error}")),
    }
}
