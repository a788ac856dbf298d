//! Copies of a store that may be in use.

use super::BUSY_WAIT;
use super::open::{engine, file, open_reader};
use crate::error::StoreError;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a consistent copy of the store at `path` to the new file `dest` (mode 0600) and returns its size in bytes.
///
/// The copy is on the disk when this returns, and `dest` does not exist before. It holds everything, secrets
/// included. A kernel that starts from it regresses toward its peers unless it is given a new incarnation.
pub fn backup_into(path: &Path, dest: &Path) -> Result<u64, StoreError> {
    if dest.symlink_metadata().is_ok() {
        return Err(StoreError::Exists(dest.to_owned()));
    }
    let part = partial_name(dest);
    let copied = copy(path, &part).and_then(|bytes| {
        std::fs::rename(&part, dest).map_err(file("rename", &part))?;
        let dir = dest.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(file("sync", dir))?;
        Ok(bytes)
    });
    if copied.is_err() {
        // What is left of a failed attempt is useless; that it cannot be removed is the lesser news.
        let _ = std::fs::remove_file(&part);
    }
    copied
}

fn partial_name(dest: &Path) -> PathBuf {
    let mut name = OsString::from(dest.as_os_str());
    name.push(".partial");
    name.into()
}

fn copy(path: &Path, part: &Path) -> Result<u64, StoreError> {
    match std::fs::remove_file(part) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(file("remove", part)(error)),
        _ => {}
    }
    // SQLite takes an empty file for a new one, and this one has the right mode from the start.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part);
    let made = made.map_err(file("create", part))?;
    let name = part.to_str().ok_or(ErrorKind::InvalidFilename);
    let name = name.map_err(|kind| file("name", part)(kind.into()))?;
    let connection = open_reader(path, BUSY_WAIT)?;
    connection.pragma_update(None, "query_only", false).map_err(engine("copy"))?;
    connection.execute("VACUUM INTO ?1", [name]).map_err(engine("copy"))?;
    made.sync_all().map_err(file("sync", part))?;
    Ok(made.metadata().map_err(file("look at", part))?.len())
}
