//! Questions in SQL: answered, refused, stopped.

use capstan_model::id::ObjectId;
use capstan_store::overlay::Db;
use capstan_store::schema::{Meta, ObjectRow, Objects, Owner};
use capstan_store::sqlite::query::{QueryError, QueryLimits, read_only_query};
use capstan_store::sqlite::{SqliteStore, Sync};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A store with three objects, in use.
struct Fixture {
    dir: TempDir,
    store: SqliteStore,
}

impl Fixture {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (mut store, _) = SqliteStore::open(&dir.path().join("kernel.sqlite"), Sync::Full).unwrap();
        let mut db = Db::default();
        let mut tx = db.begin();
        for n in 1..=3 {
            let owner = Some(Owner::Kernel);
            tx.put::<Objects>(
                ObjectId(n),
                ObjectRow { owner, reachable: n, recognizable: n, revoked: n == 2 },
            );
        }
        tx.commit();
        store.apply(&db.take_changes()).unwrap();
        Fixture { dir, store }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("kernel.sqlite")
    }

    fn ask_within(&self, sql: &str, limits: QueryLimits) -> Result<Vec<Map<String, Value>>, QueryError> {
        read_only_query(&self.path(), sql, limits)
    }

    fn ask(&self, sql: &str) -> Result<Vec<Map<String, Value>>, QueryError> {
        self.ask_within(sql, QueryLimits::default())
    }
}

#[test]
fn a_query_answers_with_records_in_column_order() {
    let store = Fixture::new();
    let answer =
        store.ask("SELECT kref, reachable, reachable, owner FROM objects WHERE revoked = 0 ORDER BY ko;");
    let answer = serde_json::to_string(&answer.unwrap()).unwrap();
    assert_eq!(
        answer,
        r#"[{"kref":"ko1","reachable":1,"reachable:1":1,"owner":"kernel"},{"kref":"ko3","reachable":3,"reachable:1":3,"owner":"kernel"}]"#
    );
    assert_eq!(store.ask("SELECT * FROM vat").unwrap(), []);
    assert_eq!(store.ask(" ; SELECT * FROM vat ; ").unwrap(), []);
    let kinds = store.ask("SELECT x'00ff' AS a, NULL AS b, 1.5 AS c, -1 AS d -- the end").unwrap();
    assert_eq!(json!(kinds), json!([{"a": "00ff", "b": null, "c": 1.5, "d": -1}]));
    assert!(!store.ask("EXPLAIN QUERY PLAN SELECT * FROM objects").unwrap().is_empty());
    assert_eq!(
        store
            .ask("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 5) SELECT * FROM n")
            .unwrap()
            .len(),
        5
    );
}

#[test]
fn whatever_is_not_a_question_is_refused() {
    let store = Fixture::new();
    let elsewhere = store.dir.path().join("elsewhere");
    for sql in [
        "INSERT INTO meta VALUES ('a', 'b')",
        "EXPLAIN INSERT INTO meta VALUES ('a', 'b')",
        "UPDATE objects SET reachable = 0",
        "DELETE FROM objects",
        "DELETE FROM objects RETURNING ko",
        "WITH x AS (SELECT 1) DELETE FROM objects",
        "CREATE TABLE t (x)",
        "CREATE TEMP TABLE t (x)",
        "DROP TABLE objects",
        &format!("ATTACH '{}' AS other", elsewhere.display()),
        &format!("VACUUM INTO '{}'", elsewhere.display()),
        "VACUUM",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA query_only = 0",
        "PRAGMA user_version",
        "SELECT * FROM pragma_journal_mode",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "SAVEPOINT s",
        "REINDEX",
        "ANALYZE",
        "SELECT load_extension('x')",
    ] {
        let refusal = store.ask(sql);
        assert!(
            matches!(refusal, Err(QueryError::NotReadOnly | QueryError::Refused(_))),
            "{sql}: {refusal:?}"
        );
    }
    assert!(matches!(store.ask("INSERT INTO meta VALUES ('a', 'b')"), Err(QueryError::NotReadOnly)));
    assert!(!elsewhere.exists());
    assert_eq!(store.ask("SELECT * FROM objects").unwrap().len(), 3);
    assert_eq!(store.ask("SELECT * FROM meta").unwrap(), []);
}

#[test]
fn one_statement_is_expected() {
    let store = Fixture::new();
    let many = "SELECT 1;".repeat(7000);
    for sql in
        ["", " ;; ", "-- nothing", "SELECT 1; SELECT 2", "SELECT 1;;SELECT 2", "SELECT 1; nonsense", &many]
    {
        let refusal = store.ask(sql);
        assert!(matches!(refusal, Err(QueryError::NotOneStatement)), "{refusal:?}");
    }
    assert!(matches!(store.ask("SELEKT 1"), Err(QueryError::Refused(_))));
    assert!(matches!(store.ask("SELECT * FROM nowhere"), Err(QueryError::Refused(_))));
    let long = format!("SELECT '{}'", "x".repeat(70_000));
    assert!(matches!(store.ask(&long), Err(QueryError::TooLong { .. })));
}

#[test]
fn a_query_without_end_is_stopped() {
    let store = Fixture::new();
    let limits = QueryLimits { time_max: Duration::from_millis(100), ..QueryLimits::default() };
    let started = Instant::now();
    let endless = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    let refusal = store.ask_within(endless, limits);
    assert!(matches!(refusal, Err(QueryError::TooSlow { .. })), "{refusal:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_answer_has_limits() {
    let store = Fixture::new();
    let limits = QueryLimits { rows_max: 2, bytes_max: 1000, ..QueryLimits::default() };
    assert_eq!(store.ask_within("SELECT ko FROM objects LIMIT 2", limits).unwrap().len(), 2);
    let refusal = store.ask_within("SELECT ko FROM objects", limits);
    assert!(matches!(refusal, Err(QueryError::TooManyRows { rows_max: 2 })), "{refusal:?}");
    for sql in [
        "SELECT hex(zeroblob(400)) UNION ALL SELECT hex(zeroblob(400))",
        "SELECT zeroblob(2000)",
        "SELECT length(zeroblob(1000000000))",
    ] {
        let refusal = store.ask_within(sql, limits);
        assert!(matches!(refusal, Err(QueryError::TooLarge { bytes_max: 1000 })), "{sql}: {refusal:?}");
    }
}

#[test]
fn key_material_is_not_shown() {
    let mut store = Fixture::new();
    let mut db = Db::default();
    let mut tx = db.begin();
    for key in ["incarnation", "keySeed", "ocapURLKey", "mnemonic"] {
        tx.put::<Meta>(key.into(), "text".into());
    }
    tx.commit();
    store.store.apply(&db.take_changes()).unwrap();
    let shown = store.ask("SELECT value, count(*) AS n FROM meta GROUP BY value ORDER BY n").unwrap();
    assert_eq!(json!(shown), json!([{"value": "text", "n": 1}, {"value": null, "n": 3}]));
    for sql in [
        "SELECT value FROM main.meta",
        "SELECT count(*) FROM \"main\" . [meta]",
        "; SELECT m.key FROM main.meta AS m WHERE m.value LIKE '%'",
        "WITH meta AS (SELECT * FROM main.meta) SELECT * FROM meta",
        "SELECT * FROM (SELECT value FROM main.meta) AS meta",
        "SELECT a.key FROM meta AS a JOIN main.meta AS b USING (value)",
        "SELECT 1 FROM (SELECT 'text' AS value) AS a NATURAL JOIN main.meta AS b",
        "SELECT key FROM meta WHERE EXISTS (SELECT 1 FROM main.meta AS b WHERE b.key = meta.key AND b.value > '')",
        "SELECT (SELECT max(value) FROM main.meta)",
    ] {
        let refusal = store.ask(sql);
        assert!(matches!(refusal, Err(QueryError::KeyMaterial)), "{sql}: {refusal:?}");
    }
    let tight = QueryLimits { bytes_max: 200, ..QueryLimits::default() };
    let padded = format!("SELECT value FROM main.meta -- {}", "x".repeat(1000));
    assert!(store.ask_within(&padded, tight).is_err());
    assert!(!store.ask("EXPLAIN SELECT value FROM main.meta").unwrap().is_empty());
    assert!(store.ask("SELECT data FROM sqlite_dbpage").is_err(), "pages would show all");
}

#[test]
fn what_is_no_store_is_not_asked() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("kernel.sqlite");
    let refusal = read_only_query(&path, "SELECT 1", QueryLimits::default());
    assert!(matches!(refusal, Err(QueryError::Store(_))), "{refusal:?}");
    assert!(!path.exists());
}
