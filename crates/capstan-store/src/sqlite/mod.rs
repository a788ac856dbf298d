//! The store on disk: SQLite with one typed table for each durable table of the schema.
//!
//! [`SqliteStore`] is the one writer, used by one thread. Everything else ([`query`], [`copy`]) opens a
//! connection of its own that cannot write.
//!
//! **Invariant:** SQL reads and writes rows; it decides nothing. What a row means is known to the kernel alone.

mod cell;
pub mod copy;
mod open;
pub mod query;
mod row;

use self::cell::{BadCell, Bind, Fields};
use self::open::{engine, keep_pages, open_reader, open_writer};
use self::row::SqlTable;
use crate::error::StoreError;
use crate::overlay::Table;
use crate::schema::*;
use crate::writer::Backend;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, TransactionBehavior};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How long a write waits for another connection before it is [`StoreError::Busy`].
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// When a batch counts as durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// When the disk says that it has it.
    #[default]
    Full,
    /// When the operating system has it. Survives the end of the process, but a power cut may take back what
    /// was acknowledged since the last checkpoint, so peers may have heard what this kernel has forgotten.
    Normal,
}

/// The writing connection to a store.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
}

impl SqliteStore {
    /// Opens a store, making or migrating it if need be, and reads all of it.
    ///
    /// `:memory:` is a store that is gone when it is closed. For any other path, missing directories are made
    /// (mode 0700) and the files are closed to other users (mode 0600). The caller holds the home's lock.
    /// Nothing is deleted or repaired; rows that contradict each other are read as they are, a row that
    /// cannot be understood is [`StoreError::Corrupt`], except that one of the run queue is read as
    /// [`QueueItem::Unreadable`].
    pub fn open(path: &Path, sync: Sync) -> Result<(SqliteStore, Tables), StoreError> {
        let connection = open_writer(path, sync)?;
        let tables = read_tables(&connection)?;
        // Only now: one look at each page needs no memory for pages.
        keep_pages(&connection)?;
        Ok((SqliteStore { connection }, tables))
    }

    /// Writes a batch in one durable transaction. If it fails, nothing of it is written and it may be tried again.
    pub fn apply(&mut self, changes: &ChangeSet) -> Result<(), StoreError> {
        let mut write = || {
            let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            write_changes(&tx, changes)?;
            tx.commit()
        };
        write().map_err(engine("write"))
    }

    /// Moves what the log holds into the database and empties the log, unless somebody reads just now.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        let checkpoint = || {
            // A reader is not waited for: batches would wait too.
            self.connection.busy_timeout(Duration::ZERO)?;
            let done = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            self.connection.busy_timeout(BUSY_WAIT)?;
            done
        };
        match checkpoint().map_err(engine("checkpoint")) {
            Err(StoreError::Busy) => Ok(()),
            other => other,
        }
    }
}

impl Backend for SqliteStore {
    fn apply(&mut self, changes: &ChangeSet) -> Result<(), StoreError> {
        SqliteStore::apply(self, changes)
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        SqliteStore::checkpoint(self)
    }
}

/// Reads all of a store that nobody writes just now, or a copy of one, without changing it.
///
/// The file as such is checked first: [`StoreError::Damaged`] says what is wrong with it. A store of an older
/// schema must be opened once by [`SqliteStore::open`].
pub fn load_read_only(path: &Path) -> Result<Tables, StoreError> {
    let connection = open_reader(path, BUSY_WAIT)?;
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(engine("check"))?;
    if verdict != "ok" {
        return Err(StoreError::Damaged(verdict));
    }
    read_tables(&connection)
}

macro_rules! durable_tables {
    ($($table:ident $field:ident)*) => {
        fn read_tables(connection: &Connection) -> Result<Tables, StoreError> {
            let mut tables = Tables::default();
            $( tables.$field.load(read_table::<$table>(connection)?); )*
            tables.rebuild_mirrors();
            Ok(tables)
        }

        fn write_changes(connection: &Connection, changes: &ChangeSet) -> rusqlite::Result<()> {
            // Exhaustive: a new table must be stored, or named among those that are not.
            let ChangeSet {
                $($field,)*
                clist_by_eref: _,
                importers: _,
                promises_by_decider: _,
                queued_results: _,
                reaps_by_endpoint: _,
                gc_due: _,
                vats_to_clean: _,
                remotes_by_peer: _,
                grants_by_hash: _,
                candidates: _,
                subcluster_vats: _,
                waiters: _,
                handlers: _,
                service_calls: _,
            } = changes;
            $( write_table::<$table>(connection, $field)?; )*
            Ok(())
        }
    };
}

durable_tables! {
    Meta meta
    Counters counters
    Objects objects
    Promises promises
    Clist clist
    RunQueue run_queue
    PromiseQueue promise_queue
    GcActions gc_actions
    Reaps reaps
    Vats vats
    Code code
    VatStore vat_store
    Subclusters subclusters
    Services services
    Remotes remotes
    Sessions sessions
    Outbox outbox
    PeerIncarnations peer_incarnations
    Relays relays
    Redemptions redemptions
    Grants grants
    Pins pins
    Holds holds
    DeadLetters dead_letters
}

/// A table's rows as they come.
type Entries<T> = Vec<(<T as Table>::Key, <T as Table>::Row)>;

fn read_table<T: SqlTable>(connection: &Connection) -> Result<Entries<T>, StoreError> {
    let columns = [T::KEY_COLUMNS, T::ROW_COLUMNS].concat();
    let sql = format!("SELECT {} FROM {}", columns.join(", "), T::NAME);
    let mut statement = connection.prepare(&sql).map_err(engine("read"))?;
    let mut rows = statement.raw_query();
    let mut read = Vec::new();
    while let Some(row) = rows.next().map_err(engine("read"))? {
        let mut fields = Fields::new(row);
        let column = |bad: &BadCell| columns.get(bad.column).copied().unwrap_or_default();
        let entry = T::take_key(&mut fields).and_then(|key| {
            let taken: Result<T::Row, BadCell> = fields.take();
            taken
                .or_else(|bad| T::unreadable(format!("column {} {}", column(&bad), bad.reason)).ok_or(bad))
                .map(|taken| (key, taken))
        });
        read.push(entry.map_err(|bad| StoreError::Corrupt {
            table: T::NAME,
            key: shown_key(row, T::KEY_COLUMNS.len()),
            column: column(&bad),
            reason: bad.reason,
        })?);
    }
    Ok(read)
}

/// The key as it is on disk, whether or not it can be understood.
fn shown_key(row: &rusqlite::Row<'_>, columns: usize) -> String {
    let shown = (0..columns).map(|column| match row.get_ref(column) {
        Ok(ValueRef::Integer(number)) => number.to_string(),
        Ok(ValueRef::Text(bytes)) => String::from_utf8_lossy(bytes).chars().take(100).collect(),
        Ok(other @ (ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_))) => other.data_type().to_string(),
        Err(error) => error.to_string(),
    });
    shown.collect::<Vec<_>>().join(" / ")
}

/// Deletes come first, so that a value unique within the table can move from one key to another in one batch.
fn write_table<T: SqlTable>(
    connection: &Connection,
    changes: &BTreeMap<T::Key, Option<T::Row>>,
) -> rusqlite::Result<()> {
    const { assert!(T::DURABLE) };
    if changes.values().any(Option::is_none) {
        let sql = format!("DELETE FROM {} WHERE {} = ?", T::NAME, T::KEY_COLUMNS.join(" = ? AND "));
        let mut statement = connection.prepare_cached(&sql)?;
        for key in changes.iter().filter(|(_, row)| row.is_none()).map(|(key, _)| key) {
            T::put_key(key, &mut Bind::new(&mut statement))?;
            statement.raw_execute()?;
        }
    }
    if changes.values().any(Option::is_some) {
        let columns = [T::KEY_COLUMNS, T::ROW_COLUMNS].concat();
        let places = vec!["?"; columns.len()].join(", ");
        let sql = format!("INSERT OR REPLACE INTO {} ({}) VALUES ({places})", T::NAME, columns.join(", "));
        let mut statement = connection.prepare_cached(&sql)?;
        for (key, row) in changes.iter().filter_map(|(key, row)| Some((key, row.as_ref()?))) {
            let mut bind = Bind::new(&mut statement);
            T::put_key(key, &mut bind)?;
            bind.put(row)?;
            statement.raw_execute()?;
        }
    }
    Ok(())
}
