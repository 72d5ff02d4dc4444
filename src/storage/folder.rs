//! Folders by the operator's paths.

use crate::store::disk::Disk;
use crate::store::os_disk::OsDisk;
use std::io;
use std::path::{Path, PathBuf};

/// Opens a folder, creating it and those above it if need be, durably.
///
/// # Errors
/// Those of the system.
pub fn create(path: &Path) -> io::Result<OsDisk> {
    match OsDisk::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let mut above: PathBuf = path.to_owned();
    let mut below: Vec<String> = Vec::new();
    loop {
        let Some(name) = above.file_name() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        below.push(name.to_string_lossy().into_owned());
        if !above.pop() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let there = if above.as_os_str().is_empty() { Path::new(".") } else { &above };
        match OsDisk::open(there) {
            Ok(disk) => {
                below.reverse();
                disk.create_dir_all(&below.join("/"))?;
                return OsDisk::open(path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}
