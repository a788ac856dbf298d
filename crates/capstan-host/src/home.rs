//! The directory of a kernel: opening it, and what is done to it while no host works on it.

use crate::chance;
use crate::error::{HostError, QueryError};
use crate::identity::{self, Fresh, Identity};
use crate::outcome::{Backup, FsckReport, Record};
use crate::{SeedSource, Sync};
use capstan_kernel::audit::{Invariant, Problem, audit};
use capstan_model::peer::PeerId;
use capstan_store::error::StoreError;
use capstan_store::home::HomeLock;
use capstan_store::schema::{ChangeSet, Tables};
use capstan_store::sqlite::copy::backup_into;
use capstan_store::sqlite::query::{self, QueryLimits, read_only_query};
use capstan_store::sqlite::{SqliteStore, load_read_only};
use capstan_wire::identity::KeySeed;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The store's file name in its home (05 §4).
pub const STORE_FILE: &str = "kernel.sqlite";
/// What SQLite keeps beside a store.
const JOURNALS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// A store being made, before it takes the place of the old one.
const NEW_STORE_FILE: &str = "kernel.sqlite.new";
/// A copy that is being checked.
const SNAPSHOT_FILE: &str = "fsck.snapshot";
/// What a daemon keeps beside its store: deleted with it.
const DAEMON_FILES: [&str; 3] = ["daemon.sock", "daemon.pid", "daemon.log"];
/// The cache of bundles.
const BUNDLES: &str = "bundles";

/// A home that is ours, and what it holds.
pub(crate) struct Opened {
    pub(crate) lock: HomeLock,
    pub(crate) store: SqliteStore,
    pub(crate) tables: Tables,
    pub(crate) identity: Identity,
}

/// Opens the store of a locked home, and sees to it that it has an identity and a life.
pub(crate) fn open(
    lock: HomeLock,
    home: &Path,
    sync: Sync,
    source: Option<&SeedSource>,
) -> Result<Opened, HostError> {
    let (mut store, mut tables) = SqliteStore::open(&store_path(home), sync)?;
    let fresh = Fresh { entropy: entropy()?, life: chance::life().map_err(no_chance)? };
    let (identity, changes) = identity::establish(&tables, source, fresh)?;
    store.apply(&changes)?;
    tables.apply(&changes);
    Ok(Opened { lock, store, tables, identity })
}

/// Deletes the state kept under `home`: the store with its journals, socket, pid file, logs, bundles.
///
/// `keep_identity` leaves a fresh store with the same keys, so the peer id stays and the next start begins a new
/// life. Refused while a host runs there. Interrupted, it leaves the old state or the new.
pub fn purge(home: &Path, keep_identity: bool) -> Result<(), HostError> {
    if !home.try_exists().map_err(file(home))? {
        return Ok(());
    }
    let _lock = HomeLock::acquire(home)?;
    wipe(home, keep_identity)?;
    for name in DAEMON_FILES {
        remove(&home.join(name))?;
    }
    for name in rotated_logs(home)? {
        remove(&name)?;
    }
    match fs::remove_dir_all(home.join(BUNDLES)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(file(&home.join(BUNDLES))(error)),
        _ => Ok(()),
    }
}

/// Deletes the store of a locked home, or leaves a fresh one with the same keys. Interrupted, it leaves the old state or
/// the new.
pub(crate) fn wipe(home: &Path, keep_identity: bool) -> Result<(), HostError> {
    let path = store_path(home);
    let identity = if keep_identity && path.exists() {
        // Opened for writing and closed, it leaves no journal that a later store could be taken to own.
        let (store, tables) = SqliteStore::open(&path, Sync::Full)?;
        drop(store);
        identity::keep(&tables)
    } else {
        None
    };
    match identity {
        Some(identity) => put_in_place(home, None, &identity),
        None => remove_store(&path),
    }
}

/// Puts a backup into an empty home under a new life, for a restored state is an older one than peers have seen.
/// Returns what it was restored from.
pub fn restore(from: &Path, home: &Path) -> Result<Backup, HostError> {
    if !from.is_file() {
        return Err(HostError::NoStore(from.to_owned()));
    }
    let _lock = HomeLock::acquire(home)?;
    if store_path(home).exists() {
        return Err(HostError::HasStore(home.to_owned()));
    }
    let life = chance::life().map_err(no_chance)?;
    put_in_place(home, Some(from), &identity::restored(&life))?;
    describe(from)
}

/// Makes the identity of an empty home from a recovery phrase of 12 to 24 words (03 A-5). Returns the peer id.
pub fn restore_identity(home: &Path, words: &str) -> Result<PeerId, HostError> {
    // Words that are none leave nothing behind.
    KeySeed::from_mnemonic(words).map_err(|error| HostError::Identity(error.to_string()))?;
    let source = SeedSource::Mnemonic(words.to_owned());
    let lock = HomeLock::acquire(home)?;
    if store_path(home).exists() {
        return Err(HostError::HasStore(home.to_owned()));
    }
    open(lock, home, Sync::Full, Some(&source)).map(|opened| opened.identity.peer)
}

/// Checks every invariant of the store under `home`, which no host may be running on. Changes nothing.
pub fn fsck(home: &Path) -> Result<FsckReport, HostError> {
    let path = store_path(home);
    if !path.is_file() {
        return Err(HostError::NoStore(home.to_owned()));
    }
    let _lock = HomeLock::acquire(home)?;
    check(&path)
}

/// Checks a snapshot of a store that is in use.
pub(crate) fn fsck_snapshot(home: &Path) -> Result<FsckReport, HostError> {
    let copy = home.join(format!("{SNAPSHOT_FILE}.{}", chance::key().map_err(no_chance)?));
    let checked = backup_into(&store_path(home), &copy).map_err(HostError::from).and_then(|_| check(&copy));
    remove_store(&copy)?;
    checked
}

/// Copies a store that may be in use.
pub(crate) fn backup(home: &Path, to: &Path) -> Result<Backup, HostError> {
    backup_into(&store_path(home), to)?;
    describe(to)
}

/// The length and the hash of a copy.
fn describe(copy: &Path) -> Result<Backup, HostError> {
    let mut hash = Sha256::new();
    let read = File::open(copy).and_then(|mut copy| io::copy(&mut copy, &mut Hashing(&mut hash)));
    Ok(Backup { bytes: read.map_err(file(copy))?, sha256: hex::encode(hash.finalize()) })
}

/// Answers one read-only SQL statement.
pub(crate) fn query(home: &Path, sql: &str) -> Result<Vec<Record>, QueryError> {
    let answer = read_only_query(&store_path(home), sql, QueryLimits::default());
    answer.map_err(|error| match error {
        query::QueryError::Store(error) => QueryError::Failed(error.to_string()),
        refused => QueryError::Refused(refused.to_string()),
    })
}

fn check(path: &Path) -> Result<FsckReport, HostError> {
    let tables = match load_read_only(path) {
        Ok(tables) => tables,
        Err(error @ (StoreError::Damaged(_) | StoreError::Corrupt { .. })) => {
            let place = "store file".to_owned();
            let problem = Problem { invariant: Invariant::File, place, what: error.to_string() };
            return Ok(FsckReport { problems: vec![problem], checked: Vec::new() });
        }
        Err(error) => return Err(error.into()),
    };
    Ok(FsckReport { problems: audit(&tables), checked: counts(&tables) })
}

fn counts(tables: &Tables) -> Vec<(&'static str, u64)> {
    let count = |rows: usize| u64::try_from(rows).unwrap_or(u64::MAX);
    vec![
        ("objects", count(tables.objects.iter().count())),
        ("promises", count(tables.promises.iter().count())),
        ("clist", count(tables.clist.iter().count())),
        ("queue", count(tables.run_queue.iter().count() + tables.promise_queue.iter().count())),
        ("gcActions", count(tables.gc_actions.iter().count())),
        ("vats", count(tables.vats.iter().count())),
        ("vatStore", count(tables.vat_store.iter().count())),
        ("subclusters", count(tables.subclusters.iter().count())),
        ("remotes", count(tables.remotes.iter().count())),
        ("outbox", count(tables.outbox.iter().count())),
        ("grants", count(tables.grants.iter().count())),
    ]
}

/// Makes a store under another name, from a copy if there is one to start from, and renames it into place.
fn put_in_place(home: &Path, from: Option<&Path>, changes: &ChangeSet) -> Result<(), HostError> {
    let (path, new) = (store_path(home), home.join(NEW_STORE_FILE));
    remove_store(&new)?;
    if let Some(from) = from {
        backup_into(from, &new)?;
    }
    let (mut store, _) = SqliteStore::open(&new, Sync::Full)?;
    store.apply(changes)?;
    store.checkpoint()?;
    drop(store);
    for suffix in JOURNALS {
        remove(&beside(&path, suffix))?;
    }
    fs::rename(&new, &path).map_err(file(&new))?;
    for suffix in JOURNALS {
        remove(&beside(&new, suffix))?;
    }
    File::open(home).and_then(|dir| dir.sync_all()).map_err(file(home))
}

/// Removes a store, and its journals after it: without the file they belong to they mean nothing.
fn remove_store(path: &Path) -> Result<(), HostError> {
    remove(path)?;
    JOURNALS.iter().try_for_each(|suffix| remove(&beside(path, suffix)))
}

fn remove(path: &Path) -> Result<(), HostError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(file(path)(error)),
        _ => Ok(()),
    }
}

/// `daemon.log.1` and the like.
fn rotated_logs(home: &Path) -> Result<Vec<PathBuf>, HostError> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(home).map_err(file(home))? {
        let entry = entry.map_err(file(home))?;
        if entry.file_name().to_string_lossy().starts_with("daemon.log.") {
            logs.push(entry.path());
        }
    }
    Ok(logs)
}

fn store_path(home: &Path) -> PathBuf {
    home.join(STORE_FILE)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> HostError {
    let path = path.to_owned();
    move |source| HostError::File { path, source }
}

fn entropy() -> Result<[u8; 16], HostError> {
    let bytes: [u8; 32] = chance::bytes().map_err(no_chance)?;
    let (entropy, _) = bytes.split_first_chunk().ok_or_else(|| HostError::System("random bytes".into()))?;
    Ok(*entropy)
}

fn no_chance(error: getrandom::Error) -> HostError {
    HostError::System(format!("random bytes: {error}"))
}

/// Feeds what is written to it to a hash.
struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
