//! Why a store could not be opened, read or written.

use std::io;
use std::path::PathBuf;

/// Why a store could not be opened, read or written. Unless a variant says otherwise, the store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another connection kept the store locked for longer than we wait.
    #[error("the store is locked by another process")]
    Busy,
    /// A directory or file could not be made, protected, synced or renamed.
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
    /// The database engine failed, e.g. since the disk is full.
    #[cfg(feature = "sqlite")]
    #[error("cannot {doing} the store")]
    Engine {
        /// The verb, e.g. "write".
        doing: &'static str,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The engine this was built with corrupts stores under rare races; see `sqlite.org/wal.html#walresetbug`.
    #[error("SQLite {found} is too old: at least 3.51.3 is needed")]
    OldEngine {
        /// Its version.
        found: String,
    },
    /// Write-ahead logging could not be switched on, e.g. on a network file system.
    #[error("the store needs write-ahead logging, but the file system offers only journal mode {0:?}")]
    NoWriteAheadLog(String),
    /// The file is no SQLite database.
    #[error("{} is not a database", .0.display())]
    NotADatabase(PathBuf),
    /// The file is the database of another program.
    #[error("{} is not a capstan store (application id {application_id:#010x})", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What it carries in place of ours.
        application_id: i32,
    },
    /// The store was written by a newer program.
    #[error("the store has schema {found}, this program knows {known}: use a newer capstan")]
    NewerSchema {
        /// The store's.
        found: i32,
        /// The newest we know.
        known: i32,
    },
    /// The store was written by an older program and cannot be migrated without writing to it.
    #[error("the store has schema {found}, not {known}: start a kernel on it once")]
    OlderSchema {
        /// The store's.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// A row holds something no version of this program writes.
    #[error("table {table}, row {key}: column {column} {reason}")]
    Corrupt {
        /// Which table.
        table: &'static str,
        /// The row's key as it is on disk, parts separated by ` / `.
        key: String,
        /// Which column.
        column: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The database file itself is damaged.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The destination of a copy exists already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
}

impl StoreError {
    /// Whether the same write may succeed a little later: another's lock, a full disk, an I/O fault.
    pub fn is_transient(&self) -> bool {
        match self {
            StoreError::Busy => true,
            #[cfg(feature = "sqlite")]
            StoreError::Engine { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(
                    rusqlite::ErrorCode::SystemIoFailure
                        | rusqlite::ErrorCode::DiskFull
                        | rusqlite::ErrorCode::CannotOpen
                        | rusqlite::ErrorCode::OutOfMemory
                )
            ),
            StoreError::File { .. }
            | StoreError::OldEngine { .. }
            | StoreError::NoWriteAheadLog(_)
            | StoreError::NotADatabase(_)
            | StoreError::Foreign { .. }
            | StoreError::NewerSchema { .. }
            | StoreError::OlderSchema { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Damaged(_)
            | StoreError::Exists(_) => false,
        }
    }
}
