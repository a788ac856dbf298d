//! The directory under which a daemon keeps everything, and who holds it.
//!
//! The pid file is believed only while its owner holds a lock on it, so that a pid reused after a crash is never
//! taken for a daemon. Clients that start or purge a daemon take turns by a lock on the directory itself.

use crate::error::CliError;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a lock that a probe of another process may hold for a moment is tried again.
const LOCK_TRIES: u32 = 30;
/// How long is waited between two tries of a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// The longest path of a Unix socket that every system takes, bytes.
const SOCKET_PATH_MAX: usize = 100;

/// Files by which a directory is known to be a home of ours.
const OUR_FILES: [&str; 5] = ["lock", "kernel.sqlite", "daemon.log", "daemon.pid", "daemon.sock"];

/// A home directory; it may not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// The home at `dir`, made absolute.
    pub fn new(dir: &Path) -> Result<Home, CliError> {
        let dir = std::path::absolute(dir).map_err(|error| CliError::io(dir.display(), error))?;
        Ok(Home { dir })
    }

    /// The home in the platform's data directory. `variable` looks up the environment.
    pub fn in_data_directory(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Home, CliError> {
        let set = |name: &str| variable(name).filter(|path| path.is_absolute());
        let dir = if cfg!(target_os = "macos") {
            set("HOME").map(|home| home.join("Library/Application Support/capstan"))
        } else {
            let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
            data.map(|data| data.join("capstan"))
        };
        match dir {
            Some(dir) => Home::new(&dir),
            None => Err(CliError::io("no home", "neither $XDG_DATA_HOME nor $HOME names a directory")
                .hint("give one with --home DIR or $CAPSTAN_HOME")),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("daemon.sock")
    }

    /// The log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("daemon.pid")
    }

    /// Makes the directory, mode 0700. One that holds somebody else's files and is open to others is refused.
    pub fn create(&self) -> Result<(), CliError> {
        let failed = |error: io::Error| CliError::io(self.dir.display(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(failed)?;
        let metadata = fs::metadata(&self.dir).map_err(failed)?;
        if metadata.mode() & 0o077 == 0 {
            return Ok(());
        }
        let ours = OUR_FILES.iter().any(|name| self.dir.join(name).exists());
        let empty = fs::read_dir(&self.dir).map_err(failed)?.next().is_none();
        if !ours && !empty {
            return Err(CliError::io(
                self.dir.display(),
                "the directory is open to others and holds other files",
            )
            .hint("choose an empty directory, or one of mode 0700"));
        }
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700)).map_err(failed)
    }

    /// Calls `act` with a path of the control socket that is short enough for a socket address.
    pub fn with_socket_path<T>(&self, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        use std::os::fd::AsRawFd;
        let path = self.socket();
        if path.as_os_str().len() <= SOCKET_PATH_MAX {
            return act(&path);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.dir, flags, Mode::empty())?;
        act(Path::new(&format!("/proc/self/fd/{}/daemon.sock", dir.as_raw_fd())))
    }

    /// Waits for a turn at starting, stopping or purging; the turn ends when the file is dropped.
    pub async fn turn(&self) -> Result<File, CliError> {
        let failed = |error: io::Error| CliError::io(self.dir.display(), error);
        let dir = File::open(&self.dir).map_err(failed)?;
        loop {
            match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(dir),
                Err(Errno::WOULDBLOCK) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }

    /// Makes this process the home's daemon and writes its pid; `None` if another process is.
    pub async fn claim(&self) -> io::Result<Option<Claim>> {
        for _ in 0..LOCK_TRIES {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let mut file = options.open(self.pid_file())?;
            let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
            // The owner before us may have removed the file between our opening and locking it.
            let current = fs::metadata(self.pid_file()).map(|metadata| metadata.ino()).ok();
            if locked.is_ok() && current == Some(file.metadata()?.ino()) {
                file.set_len(0)?;
                file.rewind()?;
                write!(file, "{}", std::process::id())?;
                return Ok(Some(Claim { path: self.pid_file(), _file: file }));
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        Ok(None)
    }

    /// Returns the process that holds the home; a pid file without a living owner does not count.
    pub fn holder(&self) -> io::Result<Option<Holder>> {
        let mut file = match File::open(self.pid_file()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = String::new();
        (&mut file).take(32).read_to_string(&mut text)?;
        let holder = Holder { file, pid: text.trim().parse().unwrap_or(0) };
        Ok(if holder.is_gone() { None } else { Some(holder) })
    }
}

/// This process' right to the home. Dropped or not, it ends with the process.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    _file: File,
}

impl Claim {
    /// Removes the pid file; the lock stays until the process ends.
    pub fn remove_file(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Another process that holds the home.
#[derive(Debug)]
pub struct Holder {
    file: File,
    /// Its pid; 0 while it has not written it.
    pub pid: u32,
}

impl Holder {
    /// Whether the process has ended.
    pub fn is_gone(&self) -> bool {
        let free = flock(&self.file, FlockOperation::NonBlockingLockShared).is_ok();
        if free {
            let _ = flock(&self.file, FlockOperation::Unlock);
        }
        free
    }

    /// Waits for the process to end; `false` if it has not within `limit`.
    pub async fn ends_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while !self.is_gone() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        true
    }
}
