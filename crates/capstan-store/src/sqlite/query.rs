//! Questions in SQL from people, asked beside the running kernel.

use super::open::open_reader;
use crate::error::StoreError;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection, ErrorCode};
use serde_json::{Map, Value};
use std::path::Path;
use std::time::{Duration, Instant};

/// Virtual machine instructions between two looks at the clock: some microseconds.
const STEPS_PER_LOOK: i32 = 1000;

/// Bytes of a statement; nobody types more.
const SQL_BYTES_MAX: usize = 64 << 10;

/// Bytes of a pattern of `LIKE` or `GLOB`, whose cost is exponential in it and which cannot be interrupted.
const PATTERN_BYTES_MAX: i32 = 100;

/// Texts of the meta table that are key material. Queries come from a network port too, so they show NULL.
const SECRETS: &str = "'keySeed', 'mnemonic', 'ocapURLKey'";

/// What one query may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// Rows of the answer.
    pub rows_max: usize,
    /// Bytes of all values and names in the answer, and of each value on the way.
    pub bytes_max: usize,
    /// Wall time. A query is one read transaction, and the log of the store grows as long as it lasts.
    pub time_max: Duration,
}

impl Default for QueryLimits {
    fn default() -> Self {
        QueryLimits { rows_max: 10_000, bytes_max: 16 << 20, time_max: Duration::from_secs(2) }
    }
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It would do something other than read.
    #[error("only SELECT and EXPLAIN are allowed")]
    NotReadOnly,
    /// It reads the meta table past the copy that hides key material.
    #[error("main.meta holds key material: ask meta")]
    KeyMaterial,
    /// No statement, or more than one.
    #[error("expected one statement")]
    NotOneStatement,
    /// The statement is too long.
    #[error("the statement has {bytes} bytes, limit {SQL_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The answer has too many rows.
    #[error("more than {rows_max} rows: add a LIMIT")]
    TooManyRows {
        /// The limit.
        rows_max: usize,
    },
    /// The answer, or a value on the way to it, is too large.
    #[error("more than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The query took too long.
    #[error("stopped after {} ms", time_max.as_millis())]
    TooSlow {
        /// The limit.
        time_max: Duration,
    },
    /// SQLite refused it, e.g. for its syntax.
    #[error(transparent)]
    Refused(rusqlite::Error),
}

/// Answers one SQL query on a connection that cannot write.
///
/// Each row is a record of its columns in order; a second column of the same name is called `name:1`. Numbers
/// and text stay what they are, a blob becomes hexadecimal text. Key material shows as null. Blocks for up to
/// the time limit.
pub fn read_only_query(
    path: &Path,
    sql: &str,
    limits: QueryLimits,
) -> Result<Vec<Map<String, Value>>, QueryError> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(QueryError::TooLong { bytes: sql.len() });
    }
    let until = Instant::now().checked_add(limits.time_max);
    let mut connection = open_reader(path, limits.time_max)?;
    confine(&mut connection, limits, until).map_err(|source| named(source, limits))?;
    answer(&connection, sql, limits)
}

/// Sets the limits, and puts a copy of the meta table without the secrets before the true one.
fn confine(connection: &mut Connection, limits: QueryLimits, until: Option<Instant>) -> rusqlite::Result<()> {
    connection.pragma_update(None, "query_only", false)?;
    connection.execute_batch(&format!(
        "CREATE TEMP TABLE meta AS
         SELECT key, iif(key IN ({SECRETS}), NULL, value) AS value FROM main.meta;
         PRAGMA query_only = 1;"
    ))?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, i32::try_from(limits.bytes_max).unwrap_or(i32::MAX))?;
    connection.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES_MAX)?;
    let late = move || until.is_some_and(|until| Instant::now() >= until);
    connection.progress_handler(STEPS_PER_LOOK, Some(late))?;
    connection.authorizer(Some(authorize))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what is not known to read only is refused")]
fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Function { function_name } if function_name != "load_extension" => Authorization::Allow,
        _ => Authorization::Deny,
    }
}

/// Says which limit a failure of SQLite was.
fn named(source: rusqlite::Error, limits: QueryLimits) -> QueryError {
    match source.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => QueryError::TooSlow { time_max: limits.time_max },
        Some(ErrorCode::TooBig) => QueryError::TooLarge { bytes_max: limits.bytes_max },
        Some(ErrorCode::AuthorizationForStatementDenied | ErrorCode::ReadOnly) => QueryError::NotReadOnly,
        Some(ErrorCode::DatabaseBusy) => QueryError::Store(StoreError::Busy),
        _ => QueryError::Refused(source),
    }
}

fn answer(
    connection: &Connection,
    sql: &str,
    limits: QueryLimits,
) -> Result<Vec<Map<String, Value>>, QueryError> {
    let named = |source| named(source, limits);
    // A batch parses one statement after the other, `Connection::prepare` would recurse.
    let mut statements = Batch::new(connection, sql);
    let Some(mut statement) = statements.next().map_err(named)? else {
        return Err(QueryError::NotOneStatement);
    };
    // A second one that is no SQL, or not allowed, is still a second one.
    if !matches!(statements.next(), Ok(None)) {
        return Err(QueryError::NotOneStatement);
    }
    if !statement.readonly() {
        return Err(QueryError::NotReadOnly);
    }
    if statement.is_explain() == 0 {
        let text = statement.expanded_sql();
        let text = text.ok_or(QueryError::TooLarge { bytes_max: limits.bytes_max })?;
        if reads_true_meta(connection, &text).map_err(named)? {
            return Err(QueryError::KeyMaterial);
        }
    }
    let names = distinct(statement.column_names());
    let mut rows = statement.raw_query();
    let mut records = Vec::new();
    let mut bytes = 0_usize;
    while let Some(row) = rows.next().map_err(named)? {
        if records.len() >= limits.rows_max {
            return Err(QueryError::TooManyRows { rows_max: limits.rows_max });
        }
        let mut record = Map::with_capacity(names.len());
        for (column, name) in names.iter().enumerate() {
            let value = row.get_ref(column).map_err(named)?;
            bytes = bytes.saturating_add(name.len()).saturating_add(length(value));
            if bytes > limits.bytes_max {
                return Err(QueryError::TooLarge { bytes_max: limits.bytes_max });
            }
            record.insert(name.clone(), json(value));
        }
        records.push(record);
    }
    Ok(records)
}

/// Whether a statement opens the meta table itself. SQLite's authorizer cannot say: it is not asked about the
/// columns of `USING` and `NATURAL`. The compiled statement can: a table is opened by the number of its root page.
fn reads_true_meta(connection: &Connection, text: &str) -> rusqlite::Result<bool> {
    let root = "SELECT rootpage FROM main.sqlite_schema WHERE name = 'meta'";
    let root: i64 = connection.query_row(root, [], |row| row.get(0))?;
    // SQLite takes empty statements before one for a part of it; after EXPLAIN they are none.
    let text = text.trim_start_matches(|c: char| c == ';' || c.is_ascii_whitespace());
    let mut program = connection.prepare(&format!("EXPLAIN {text}"))?;
    let mut steps = program.raw_query();
    while let Some(step) = steps.next()? {
        let (opcode, page, database): (String, i64, i64) = (step.get(1)?, step.get(3)?, step.get(4)?);
        let opens = opcode.starts_with("Open") || opcode.starts_with("Reopen");
        if opens && page == root && database == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn distinct<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let mut candidates = (1_u32..).map(|n| format!("{name}:{n}"));
        let mut unique = name.to_owned();
        while distinct.contains(&unique) {
            unique = candidates.next().unwrap_or_default();
        }
        distinct.push(unique);
    }
    distinct
}

/// Bytes of a value in the answer, roughly.
fn length(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) => bytes.len(),
        ValueRef::Blob(bytes) => bytes.len().saturating_mul(2),
    }
}

fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        // An infinity has no JSON form and becomes null.
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into(),
        ValueRef::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
}
