//! What the engine and the read side say, in the words of the wire.

use super::session::Problem;
use super::shared_mount::SharedMount;
use crate::cluster::evidence::{AtHome, Evidence, evidence};
use crate::cluster::opver::Opver;
use crate::format::file_id::ObjectId;
use crate::messages::error::ErrorCode;
use crate::store::error::StoreError;
use crate::store::forget::FORGOTTEN;
use crate::store::read::ReadError;

/// A refusal of the engine: nothing was changed.
#[must_use]
pub fn of_store(error: &StoreError, mount: &SharedMount) -> Problem {
    let whole = |code| Problem::new(code, error.to_string());
    match error {
        StoreError::NotFound { deleted: true } => {
            Problem::new(ErrorCode::NotFound, "it is deleted")
                .remedy("`folio undelete` brings it back while its window lasts")
        }
        StoreError::NotFound { deleted: false } | StoreError::Foreign { .. } => {
            Problem::new(ErrorCode::NotFound, "there is no such object")
        }
        StoreError::Precondition { current } => Problem::new(
            ErrorCode::Precondition,
            format!("the object has the version {}", Opver(*current)),
        )
        .remedy("read it again, and make the change to what it is now"),
        StoreError::NotDeleted(_) => whole(ErrorCode::NotFound),
        StoreError::NoSpace { .. } => Problem::new(
            ErrorCode::NoSpace,
            format!("mount {} ({}): {error}", mount.index, mount.path),
        )
        .remedy("delete something, add a mount or a machine, or lower store.reserve_free"),
        StoreError::TooLarge { .. } => whole(ErrorCode::TooLarge),
        StoreError::Damaged(_) | StoreError::Format(_) => whole(ErrorCode::Damaged)
            .remedy("restore it from a copy; `folio fsck` lists all damage of a mount"),
        StoreError::Fenced(why) => fenced(mount, why),
        StoreError::Io { .. } => fenced(mount, &error.to_string()),
    }
}

/// A refused change of an object that exists, or not.
#[must_use]
pub fn of_change(error: &StoreError, mount: &SharedMount, id: &ObjectId) -> Problem {
    let absent = StoreError::NotFound { deleted: false };
    match error {
        StoreError::NotFound { deleted: false } | StoreError::Foreign { .. } => {
            unheard_of(mount, id).unwrap_or_else(|| of_store(&absent, mount))
        }
        _ => of_store(error, mount),
    }
}

/// A failed read.
#[must_use]
pub fn of_object(error: &ReadError, mount: &SharedMount, id: &ObjectId) -> Problem {
    match error {
        ReadError::NotFound { deleted: false } => {
            unheard_of(mount, id).unwrap_or_else(|| of_read(error, mount))
        }
        _ => of_read(error, mount),
    }
}

/// "Not found" is the truth only where everything that made the object was heard of; elsewhere it is this. What we made
/// in this life of our log we know; of a former one the end may be lost, and come back from others.
fn unheard_of(mount: &SharedMount, id: &ObjectId) -> Option<Problem> {
    let mirror = &mount.mirror;
    let known = !mirror.mirroring
        || mirror.is_ours(id.creation())
        || evidence(id.creation(), AtHome::Hole, &mirror.report().coverage) != Evidence::Unknown;
    (!known).then(|| {
        Problem::new(
            ErrorCode::Unavailable,
            format!("this mirror is behind machine {}, which owns the object", id.machine),
        )
        .remedy("start the owner, or wait until the mirror has caught up (`folio admin ... sync`)")
    })
}

/// Why something could not be read, whatever it was.
pub fn of_read(error: &ReadError, mount: &SharedMount) -> Problem {
    match error {
        ReadError::NotFound { deleted: true } => Problem::new(ErrorCode::NotFound, "it is deleted")
            .remedy("`folio undelete` brings it back while its window lasts"),
        ReadError::NotFound { deleted: false } => {
            Problem::new(ErrorCode::NotFound, "there is no such object")
        }
        ReadError::Unsettled(why) => {
            Problem::new(ErrorCode::Busy, format!("a change is in flight: {why}"))
                .remedy("ask again")
        }
        ReadError::Damaged(_) | ReadError::Newer(_) => {
            Problem::new(ErrorCode::Damaged, error.to_string())
                .remedy("restore it from a copy; `folio fsck` lists all damage of a mount")
        }
        ReadError::Fenced => match mount.open() {
            Err(problem) => problem,
            Ok(_) => fenced(mount, "it has just been opened again"),
        },
        ReadError::Io { .. } => Problem::new(
            ErrorCode::Damaged,
            format!("mount {} ({}): {error}", mount.index, mount.path),
        )
        .remedy("check the disk and the system's log"),
    }
}

/// What an operator does about a mount that was put out of service while it served.
#[must_use]
pub fn fence_remedy(why: &str) -> &'static str {
    if why.starts_with(FORGOTTEN) {
        // Nothing is wrong with the disk, and a restart changes nothing.
        "to have it join anew as a new machine, stop the daemon, empty all its mounts and its state_dir, and start it; or \
         leave it stopped and remove it"
    } else {
        "check the disk and the system's log; a folder that was only away is taken back by itself, after anything else \
         restart the daemon"
    }
}

fn fenced(mount: &SharedMount, why: &str) -> Problem {
    Problem::new(
        ErrorCode::Fenced,
        format!("mount {} ({}) is out of service: {why}", mount.index, mount.path),
    )
    .remedy(fence_remedy(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_machine_is_not_sent_to_look_at_its_disk() {
        let forgotten = fence_remedy(&format!("{FORGOTTEN}: empty its mounts"));
        assert!(forgotten.contains("state_dir") && !forgotten.contains("disk"), "{forgotten}");
        assert!(fence_remedy("fdatasync of the log failed").contains("check the disk"));
    }
}
