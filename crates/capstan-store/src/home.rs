//! One kernel per home: the directory and its lock.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The lock's file name. A side file, never the database: closing any descriptor of the database would drop
/// the locks that SQLite holds on it for the whole process.
const LOCK_FILE: &str = "lock";

/// Set on directories such as `/tmp`, where everybody may put files.
const STICKY: u32 = 0o1000;

/// Why a home could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use{}", home.display(), pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Held {
        /// Which home.
        home: PathBuf,
        /// Who, as far as it said; for people only, since a number may have been reused.
        pid: Option<u32>,
    },
    /// The directory is everybody's, such as `/tmp`; making it private would hurt others.
    #[error("{} is a shared directory: name one for this kernel alone", .0.display())]
    Shared(PathBuf),
    /// The system refused.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// The verb, e.g. "create".
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The exclusive right to a home, until it is dropped or the process ends in whatever way.
#[derive(Debug)]
pub struct HomeLock {
    dir: PathBuf,
    /// Holds the lock by being open.
    _file: File,
}

impl HomeLock {
    /// Makes the directory if need be, takes its lock, and closes it to other users (mode 0700).
    ///
    /// To be called before anything else in the home is looked at. Never waits. If the home is held by
    /// another, nothing has changed.
    pub fn acquire(dir: &Path) -> Result<HomeLock, LockError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| LockError::File { doing, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))?;
        let mode = dir.metadata().map_err(failed("look at", dir))?.permissions().mode();
        if mode & STICKY != 0 {
            return Err(LockError::Shared(dir.to_owned()));
        }
        let path = dir.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { home: dir.to_owned(), pid: read_pid(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
        if mode & 0o077 != 0 {
            std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed("protect", dir))?;
        }
        let noted = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        noted.map_err(failed("write", &path))?;
        Ok(HomeLock { dir: dir.to_owned(), _file: file })
    }

    /// Which home this is the lock of.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
