//! The SQLite backend: what is written is read, and what is not ours is refused.

use crate::rows::changes;
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, VatId};
use capstan_store::error::StoreError;
use capstan_store::memory::MemoryStore;
use capstan_store::overlay::Db;
use capstan_store::schema::*;
use capstan_store::sqlite::copy::backup_into;
use capstan_store::sqlite::{SqliteStore, Sync, load_read_only};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

/// Everything, mirrors included, as text: two equal states have equal texts.
fn shown(tables: &Tables) -> String {
    // Rows that a load has not dirtied and rows that a batch applied look the same.
    format!("{tables:#?}")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_row_of_every_table_is_read_as_it_was_written(batches in prop::collection::vec(changes(), 1..4)) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("kernel.sqlite");
        let mut memory = MemoryStore::default();
        {
            let (mut store, tables) = SqliteStore::open(&path, Sync::Normal).unwrap();
            prop_assert!(tables.snapshot().is_empty());
            for batch in &batches {
                store.apply(batch).unwrap();
                memory.apply(batch).unwrap();
            }
        }
        let expected = memory.reload();
        prop_assert_eq!(load_read_only(&path).unwrap().snapshot(), expected.snapshot());
        let (_store, read) = SqliteStore::open(&path, Sync::Full).unwrap();
        prop_assert_eq!(read.snapshot(), expected.snapshot());
        prop_assert_eq!(shown(&read), shown(&expected));
    }
}

#[test]
fn k27_a_missing_directory_is_made_and_memory_is_in_memory() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a/b/kernel.sqlite");
    let (mut store, _) = SqliteStore::open(&path, Sync::Full).unwrap();
    let mut db = Db::default();
    let mut tx = db.begin();
    tx.put::<Counters>("object".into(), 1);
    tx.commit();
    store.apply(&db.take_changes()).unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for file in ["kernel.sqlite", "kernel.sqlite-wal", "kernel.sqlite-shm"] {
        assert_eq!(mode(&path.with_file_name(file)), 0o600, "{file}");
    }

    let (_store, tables) = SqliteStore::open(Path::new(":memory:"), Sync::Full).unwrap();
    assert!(tables.snapshot().is_empty());
    assert!(!Path::new(":memory:").exists());
}

#[test]
fn a_store_open_to_others_is_closed_to_them() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("kernel.sqlite");
    drop(SqliteStore::open(&path, Sync::Full).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(SqliteStore::open(&path, Sync::Full).unwrap());
    assert_eq!(mode(&path), 0o600);
}

/// Makes a store, lets `spoil` do something to it, and opens it again.
fn spoilt(spoil: &str) -> Result<(SqliteStore, Tables), StoreError> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("kernel.sqlite");
    drop(SqliteStore::open(&path, Sync::Full)?);
    rusqlite::Connection::open(&path).unwrap().execute_batch(spoil).unwrap();
    let before = fs::read(&path).unwrap();
    let opened = SqliteStore::open(&path, Sync::Full);
    if opened.is_err() {
        assert_eq!(fs::read(&path).unwrap(), before, "a refused store is not touched");
    }
    opened
}

#[test]
fn a_newer_schema_is_refused() {
    let error = spoilt("PRAGMA user_version = 5").unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 5, known: 4 }), "{error}");
}

#[test]
fn the_database_of_another_program_is_refused() {
    let error = spoilt("PRAGMA application_id = 7").unwrap_err();
    assert!(matches!(error, StoreError::Foreign { application_id: 7, .. }), "{error}");
    let error = spoilt("PRAGMA application_id = 0").unwrap_err();
    assert!(matches!(error, StoreError::Foreign { application_id: 0, .. }), "{error}");
    let error = spoilt("PRAGMA user_version = 0").unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");

    let dir = TempDir::new().unwrap();
    let path = dir.path().join("letter.txt");
    fs::write(&path, "Dear Ann,\n".repeat(1000)).unwrap();
    let error = SqliteStore::open(&path, Sync::Full).unwrap_err();
    assert!(matches!(error, StoreError::NotADatabase(_)), "{error}");
}

#[test]
fn a_row_that_cannot_be_understood_is_named() {
    for (sql, message) in [
        (
            "INSERT INTO objects VALUES (3, 'x9', 1, 1, 0)",
            "table objects, row 3: column owner has an invalid reference \"x9\": expected an endpoint such as v1 or r1",
        ),
        (
            "INSERT INTO clist VALUES ('v1', 'ko01', 'o+0', 1, 0)",
            "table clist, row v1 / ko01: column kref has an invalid reference \"ko01\": expected a kref such as ko12 or kp7",
        ),
        (
            "INSERT INTO objects VALUES (3, NULL, 1, 1, 2)",
            "table objects, row 3: column revoked is neither 0 nor 1",
        ),
        (
            "INSERT INTO promises VALUES (5, 'fulfilled', 'v1', NULL, '#1', '[]', 1)",
            "table promises, row 5: column decider holds a value in a row that has none",
        ),
        (
            "INSERT INTO promises VALUES (5, 'maybe', NULL, NULL, NULL, NULL, 1)",
            "table promises, row 5: column state is no state of a promise: \"maybe\"",
        ),
        (
            "INSERT INTO hold VALUES ('ko1', 'lost', 1)",
            "table hold, row ko1 / lost: column kind is none of [\"waiting\", \"handed\"]: \"lost\"",
        ),
        (
            "INSERT INTO url VALUES (1, x'00', 'ko1', 0, NULL, NULL, NULL, NULL, 0)",
            "table url, row 1: column secret_hash is not 32 bytes long",
        ),
        (
            "INSERT INTO meta VALUES ('k', CAST(x'ff' AS TEXT))",
            "table meta, row k: column value is not UTF-8",
        ),
    ] {
        let error = spoilt(sql).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn k40_a_queue_row_of_an_unknown_kind_is_read_for_the_kernel_to_set_aside() {
    let (_store, tables) = spoilt(
        "INSERT INTO queue VALUES (1, 'notify', NULL, NULL, NULL, NULL, 'v1', NULL),
             (2, 'riddle', NULL, NULL, NULL, NULL, NULL, NULL), (3, 'notify', NULL, NULL, NULL, NULL, 'v1', 'kp4')",
    )
    .unwrap();
    let notify = QueueItem::Notify { endpoint: EndpointId::Vat(VatId(1)), promise: PromiseId(4) };
    let expected = [
        (1, QueueItem::Unreadable("column promise is Null, not text".into())),
        (2, QueueItem::Unreadable("column kind is no kind of queue item: \"riddle\"".into())),
        (3, notify),
    ];
    let read: Vec<_> = tables.run_queue.iter().map(|(number, item)| (*number, item.clone())).collect();
    assert_eq!(read, expected);
}

/// The reference builds the text `v1 dropExport ko5`. Here an action is a key of three types, so that one for a
/// promise cannot be made; the columns read the same, and one that somebody else wrote is not taken.
#[test]
fn k4_a_gc_action_reads_as_endpoint_kind_and_object_and_names_objects_only() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("kernel.sqlite");
    let (mut store, _) = SqliteStore::open(&path, Sync::Full).unwrap();
    let mut changes = ChangeSet::default();
    changes.gc_actions.insert((EndpointId::Vat(VatId(1)), GcKind::DropExport, ObjectId(5)), Some(()));
    store.apply(&changes).unwrap();
    drop(store);
    let read = rusqlite::Connection::open(&path).unwrap();
    let sql = "SELECT endpoint || ' ' || kind || ' ' || object FROM gc_action";
    let text: String = read.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(text, "v1 dropExport ko5");
    let error = spoilt("INSERT INTO gc_action VALUES ('v1', 'dropExport', 'kp5')").unwrap_err();
    let expected = "column object has an invalid reference \"kp5\": expected an object such as ko12";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[test]
fn rows_that_contradict_each_other_are_read_as_they_are() {
    let (_store, tables) = spoilt(
        "INSERT INTO clist VALUES ('v1', 'kp9', 'p+5', 1, 0), ('v1', 'kp8', 'p+5', 1, 0);
         INSERT INTO objects VALUES (3, 'v77', 5, -1, 0)",
    )
    .unwrap();
    let v1 = EndpointId::Vat(VatId(1));
    let db = Db::load(tables);
    assert!(db.get::<Clist>(&(v1, KRef::Promise(PromiseId(9)))).is_some());
    assert!(db.get::<Clist>(&(v1, KRef::Promise(PromiseId(8)))).is_some());
    assert_eq!(db.get::<Objects>(&ObjectId(3)).unwrap().recognizable, u64::MAX);
}

#[test]
fn a_checkpoint_empties_the_log_and_waits_for_no_reader() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("kernel.sqlite");
    let (mut store, _) = SqliteStore::open(&path, Sync::Full).unwrap();
    let log = || fs::metadata(path.with_file_name("kernel.sqlite-wal")).unwrap().len();
    let pins = (0..1000).map(|n| (ObjectId(n), Some(n)));
    let changes = ChangeSet { pins: pins.collect(), ..ChangeSet::default() };
    let reader = rusqlite::Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM meta").unwrap();
    store.apply(&changes).unwrap();
    assert!(log() > 0);
    let since = std::time::Instant::now();
    store.checkpoint().unwrap();
    assert!(since.elapsed() < std::time::Duration::from_secs(4), "the reader was waited for");
    assert!(log() > 0, "the reader still needs the log");
    drop(reader);
    store.checkpoint().unwrap();
    assert_eq!(log(), 0);
    assert_eq!(load_read_only(&path).unwrap().snapshot(), changes);
}

#[test]
fn a_damaged_file_is_no_store() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("kernel.sqlite");
    drop(SqliteStore::open(&path, Sync::Full).unwrap());
    let mut bytes = fs::read(&path).unwrap();
    for byte in bytes.iter_mut().skip(4096) {
        *byte ^= 0x5a;
    }
    fs::write(&path, bytes).unwrap();
    let error = load_read_only(&path).unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
}

#[test]
fn a_copy_is_complete_private_and_never_in_place_of_another_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("kernel.sqlite");
    let dest = dir.path().join("copy.sqlite");
    let (mut store, _) = SqliteStore::open(&path, Sync::Full).unwrap();
    let mut db = Db::default();
    let mut tx = db.begin();
    (0..1000).for_each(|n| tx.put::<Pins>(ObjectId(n), n));
    tx.commit();
    let changes = db.take_changes();
    store.apply(&changes).unwrap();
    // The store stays open and its log is not yet in the database file.
    fs::write(dir.path().join("copy.sqlite.partial"), "left over").unwrap();
    let bytes = backup_into(&path, &dest).unwrap();
    assert_eq!(bytes, fs::metadata(&dest).unwrap().len());
    assert_eq!(mode(&dest), 0o600);
    assert!(!dir.path().join("copy.sqlite.partial").exists());
    assert_eq!(load_read_only(&dest).unwrap().snapshot(), changes);
    let (_copy, tables) = SqliteStore::open(&dest, Sync::Full).unwrap();
    assert_eq!(tables.snapshot(), changes);

    let error = backup_into(&path, &dest).unwrap_err();
    assert!(matches!(error, StoreError::Exists(_)), "{error}");
    let error = backup_into(&dir.path().join("nothing"), &dir.path().join("copy2")).unwrap_err();
    assert!(matches!(error, StoreError::Engine { .. }), "{error}");
    assert!(!dir.path().join("copy2.partial").exists());
}
