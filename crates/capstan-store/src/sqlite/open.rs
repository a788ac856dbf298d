//! Opening a store: what the file is, its settings, its schema.

use super::{BUSY_WAIT, Sync};
use crate::error::StoreError;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

/// Marks the file as ours: "Cpst".
pub(super) const APPLICATION_ID: i32 = 0x4370_7374;

/// From each schema to the next; the first makes the first. Never changed, only added to.
const MIGRATIONS: &[&str] =
    &[include_str!("v1.sql"), include_str!("v2.sql"), include_str!("v3.sql"), include_str!("v4.sql")];

/// The newest schema we know, kept in the file's `user_version`.
pub(super) const SCHEMA: i32 = MIGRATIONS.len() as i32;

/// The first release of SQLite without the WAL-reset bug.
const ENGINE_MIN: i32 = 3_051_003;

/// Pages of the log after which a commit moves them to the database: 16 MB. Four times the default halves
/// the cost of a busy store; the log is emptied when the kernel is idle anyway.
const CHECKPOINT_PAGES: i32 = 4000;

/// To what the log file is cut back after a checkpoint, bytes: 64 MB.
const LOG_BYTES_MAX: i32 = 64 << 20;

/// Memory for pages, in the unit of `cache_size`, negative KiB: 64 MB; 2 MB while everything is read once.
const CACHE: i32 = -65536;
const CACHE_AT_OPENING: i32 = -2048;

/// Two statements for each of the tables, and room.
const STATEMENTS_CACHED: usize = 64;

/// Says what kind of failure SQLite's is.
pub(super) fn engine(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy,
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Damaged(source.to_string()),
        _ => StoreError::Engine { doing, source },
    }
}

/// Opens, makes or migrates a store for its one writer.
pub(super) fn open_writer(path: &Path, sync: Sync) -> Result<Connection, StoreError> {
    if rusqlite::version_number() < ENGINE_MIN {
        return Err(StoreError::OldEngine { found: rusqlite::version().into() });
    }
    let in_memory = path == Path::new(":memory:");
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if in_memory {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    } else {
        make_private(path)?;
    }
    let mut connection = Connection::open_with_flags(path, flags).map_err(engine("open"))?;
    connection.busy_timeout(BUSY_WAIT).map_err(engine("open"))?;
    let found = identify(&connection, path)?;
    configure(&connection, sync, in_memory)?;
    migrate(&mut connection, found)?;
    Ok(connection)
}

/// Opens a store of the present schema for reading.
pub(super) fn open_reader(path: &Path, wait: Duration) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(engine("open"))?;
    connection.busy_timeout(wait).map_err(engine("open"))?;
    let found = identify(&connection, path)?;
    if found != SCHEMA {
        return Err(StoreError::OlderSchema { found, known: SCHEMA });
    }
    connection.pragma_update(None, "query_only", true).map_err(engine("open"))?;
    Ok(connection)
}

/// Makes the file, and the directories above it, if need be; closes the file to others in any case.
///
/// SQLite gives its log and index files the mode of the database. An existing database is not opened here:
/// closing it again would drop the locks of every connection in this process.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(file("create", dir))?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        // The names must survive a power cut as well as what is written under them.
        Ok(_) => dir
            .ancestors()
            .take(2)
            .filter(|dir| !dir.as_os_str().is_empty())
            .try_for_each(|dir| File::open(dir).and_then(|dir| dir.sync_all()).map_err(file("sync", dir))),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let metadata = path.metadata().map_err(file("look at", path))?;
            if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
                let private = Permissions::from_mode(0o600);
                std::fs::set_permissions(path, private).map_err(file("protect", path))?;
            }
            Ok(())
        }
        Err(error) => Err(file("create", path)(error)),
    }
}

/// Wraps a failure of the file system.
pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::File { doing, path: path.to_owned(), source }
}

/// Returns the schema of a store of ours, 0 for an empty file; refuses what is not ours or too new.
fn identify(connection: &Connection, path: &Path) -> Result<i32, StoreError> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i32>(0));
    let facts = || {
        let schema = number("PRAGMA user_version")?;
        Ok((number("PRAGMA application_id")?, schema, number("SELECT count(*) FROM sqlite_schema")?))
    };
    let (application_id, schema, entries) =
        facts().map_err(|error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => StoreError::NotADatabase(path.to_owned()),
            _ => engine("open")(error),
        })?;
    match (application_id, schema, entries) {
        (0, 0, 0) => Ok(0),
        (APPLICATION_ID, SCHEMA.., _) if schema > SCHEMA => {
            Err(StoreError::NewerSchema { found: schema, known: SCHEMA })
        }
        (APPLICATION_ID, 1.., _) => Ok(schema),
        _ => Err(StoreError::Foreign { path: path.to_owned(), application_id }),
    }
}

fn configure(connection: &Connection, sync: Sync, in_memory: bool) -> Result<(), StoreError> {
    let pragma = |name, value: i32| connection.pragma_update(None, name, value).map_err(engine("configure"));
    let mode: String =
        connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).map_err(engine("configure"))?;
    if mode != if in_memory { "memory" } else { "wal" } {
        return Err(StoreError::NoWriteAheadLog(mode));
    }
    pragma(
        "synchronous",
        match sync {
            Sync::Full => 2,
            Sync::Normal => 1,
        },
    )?;
    pragma("wal_autocheckpoint", CHECKPOINT_PAGES)?;
    pragma("journal_size_limit", LOG_BYTES_MAX)?;
    pragma("cache_size", CACHE_AT_OPENING)?;
    pragma("temp_store", 2)?;
    // Only there does an ordinary sync leave data in the disk's own cache; elsewhere these do nothing.
    pragma("fullfsync", 1)?;
    pragma("checkpoint_fullfsync", 1)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(())
}

/// Gives the connection the memory for pages that its work wants.
pub(super) fn keep_pages(connection: &Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "cache_size", CACHE).map_err(engine("configure"))
}

/// Brings the store to the present schema, in one transaction.
fn migrate(connection: &mut Connection, found: i32) -> Result<(), StoreError> {
    let missing = MIGRATIONS.get(usize::try_from(found).unwrap_or_default()..).unwrap_or_default();
    if missing.is_empty() {
        return Ok(());
    }
    let mut migrate = || {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for step in missing {
            tx.execute_batch(step)?;
        }
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", SCHEMA)?;
        tx.commit()
    };
    migrate().map_err(engine("migrate"))
}
