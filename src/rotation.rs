//! Keys and certificates are replaced while a daemon runs: their files are read again when they change, and on SIGHUP.
//!
//! Invariants
//! - What is in use is replaced as a whole or not at all: a bad file, or a certificate whose key is not there yet, changes
//!   nothing; it is logged once and stands in `status` until the files are good.
//! - New connections use the new ones, open ones go on: nothing is cut off.
//! - Whether there are keys or TLS at all is a matter of the configuration and never changes here.

#![allow(clippy::disallowed_methods, reason = "looks at key files, which are no data")]

use crate::actors::ambient;
use crate::actors::session::KeyRing;
use crate::settings::{AuthSettings, Keys, TlsSettings};
use crate::tls::{MachineName, Material, Tls, TlsProblem};
use actix::ArbiterHandle;
use arc_swap::ArcSwapOption;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A certificate that ends within this is a warning, seconds.
const EXPIRES_SOON_S: u64 = 14 * 86_400;

/// What a daemon proves itself with, and where it comes from.
#[derive(Debug)]
pub struct Rotation {
    /// Shared keys.
    pub keys: KeyRing,
    /// Certificates.
    pub tls: Tls,
    key_file: Option<PathBuf>,
    files: Option<TlsSettings>,
    machine: Option<MachineName>,
    /// Why the files are not used as they are.
    problem: ArcSwapOption<String>,
    asked: Notify,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    len: u64,
    /// A key file that others can read is refused: a changed mode is news, in both directions.
    mode: u32,
    owner: (u32, u32),
    /// Last change of the contents.
    mtime: (i64, i64),
    /// Last change of whatever is said of it: what the rest does not show.
    ctime: (i64, i64),
}

/// All files, in order; `None`: it is not there.
type Sight = Vec<Option<Seen>>;

impl Rotation {
    /// Takes the keys of the configuration and reads the certificates. `machine`: who a storage is.
    ///
    /// # Errors
    /// A file of `[tls]` cannot be used: the daemon does not start.
    pub fn begin(
        auth: &AuthSettings,
        files: Option<&TlsSettings>,
        machine: Option<MachineName>,
    ) -> Result<Arc<Self>, TlsProblem> {
        let tls = match files {
            Some(files) => Tls::new(Material::load(files, machine.as_ref(), now_s())?),
            None => Tls::default(),
        };
        Ok(Arc::new(Self {
            keys: KeyRing::new(auth.keys.clone()),
            tls,
            key_file: auth.key_file.clone().filter(|_| auth.keys.is_some()),
            files: files.cloned(),
            machine,
            problem: ArcSwapOption::empty(),
            asked: Notify::new(),
        }))
    }

    /// Watches the files on the control arbiter, for as long as it lives.
    pub fn watch(self: &Arc<Self>, control: &ArbiterHandle) {
        if self.key_file.is_none() && self.files.is_none() {
            return;
        }
        let this = Arc::clone(self);
        control.spawn(async move {
            let mut seen = this.look().await;
            loop {
                let asked = tokio::time::timeout(LOOK_EVERY, this.asked.notified()).await.is_ok();
                let now = this.look().await;
                if asked || now != seen {
                    seen = now;
                    this.read_again().await;
                }
            }
        });
    }

    /// Reads the files soon, changed or not.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// What an operator should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<(String, String)> {
        let mut warnings = Vec::new();
        if let Some(problem) = self.problem.load_full() {
            warnings.push((
                format!("new keys or certificates are not used: {problem}"),
                "mend the file; it is read again by itself".to_owned(),
            ));
        }
        if let Some(material) = self.tls.now()
            && material.expires_s < now_s().saturating_add(EXPIRES_SOON_S)
        {
            warnings.push((
                format!("the certificate of this daemon ends on {}", material.expires()),
                "put a new `tls.cert` and `tls.key` in place; no restart is needed".to_owned(),
            ));
        }
        warnings
    }

    /// Off the arbiter: a file may be on a disk that hangs.
    async fn look(self: &Arc<Self>) -> Sight {
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || this.sight()).await.unwrap_or_default()
    }

    fn sight(&self) -> Sight {
        let files = self.files.iter().flat_map(|files| {
            [Some(&files.cert), Some(&files.key), files.ca.as_ref()].into_iter().flatten()
        });
        let seen = |path: &PathBuf| {
            let file = std::fs::metadata(path).ok()?;
            Some(Seen {
                inode: file.ino(),
                len: file.len(),
                mode: file.mode(),
                owner: (file.uid(), file.gid()),
                mtime: (file.mtime(), file.mtime_nsec()),
                ctime: (file.ctime(), file.ctime_nsec()),
            })
        };
        self.key_file.iter().chain(files).map(seen).collect()
    }

    async fn read_again(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || this.read()).await;
        match read {
            Ok(Ok((keys, material))) => {
                if let Some(keys) = keys {
                    self.keys.replace(keys);
                }
                let expires = material.as_ref().map(Material::expires);
                if let Some(material) = material {
                    self.tls.replace(material);
                }
                self.problem.store(None);
                tracing::info!(target: "audit", expires, "keys and certificates were read again");
            }
            Ok(Err(why)) => {
                tracing::warn!(why, "keys and certificates stay as they were");
                self.problem.store(Some(Arc::new(why)));
            }
            // The runtime ends.
            Err(_) => {}
        }
    }

    fn read(&self) -> Result<(Option<Keys>, Option<Material>), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let keys = self.key_file.as_deref().map(Keys::load).transpose().map_err(|e| text(&e))?;
        let load = |files| Material::load(files, self.machine.as_ref(), now_s());
        let material = self.files.as_ref().map(load).transpose().map_err(|e| text(&e))?;
        Ok((keys, material))
    }
}

fn now_s() -> u64 {
    ambient::wall_ms() / 1000
}
