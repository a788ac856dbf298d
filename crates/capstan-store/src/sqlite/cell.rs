//! How values become columns and come back. Whatever is read was checked: a column that holds something else
//! is a [`BadCell`], never a panic or a silent default.

use capstan_model::id::{EndpointId, GrantId, KRef, ObjectId, PromiseId, RemoteId, SubclusterId, VatId};
use capstan_model::peer::{Digest, Epoch, Hint, Incarnation, Millis, PeerId, Seq};
use capstan_model::refs::ERef;
use capstan_model::vat::{CodeFormat, Endowments, VatIncarnation};
use rusqlite::Statement;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::schema::{Decider, GcKind, HoldKind, Owner};

/// A value in one column.
pub(super) trait Cell: Sized {
    fn to_cell(&self) -> ToSqlOutput<'_>;
    /// Fails with a phrase that says what is wrong with the column.
    fn from_cell(cell: ValueRef<'_>) -> Result<Self, String>;
}

/// A value in several columns, or one, or none.
pub(super) trait Cells: Sized {
    fn put(&self, to: &mut Bind<'_, '_>) -> rusqlite::Result<()>;
    fn take(from: &mut Fields<'_>) -> Result<Self, BadCell>;
}

/// Binds a statement's parameters in turn.
pub(super) struct Bind<'a, 'c> {
    statement: &'a mut Statement<'c>,
    /// Counted from 1; the last one bound.
    last: usize,
}

impl<'a, 'c> Bind<'a, 'c> {
    pub(super) fn new(statement: &'a mut Statement<'c>) -> Self {
        Bind { statement, last: 0 }
    }

    pub(super) fn put(&mut self, value: &impl Cells) -> rusqlite::Result<()> {
        value.put(self)
    }

    /// Binds the next parameter.
    pub(super) fn cell(&mut self, cell: ToSqlOutput<'_>) -> rusqlite::Result<()> {
        self.last += 1;
        self.statement.raw_bind_parameter(self.last, cell)
    }

    /// Binds the next parameter to a fixed text.
    pub(super) fn word(&mut self, word: &str) -> rusqlite::Result<()> {
        self.cell(borrowed(word))
    }

    /// Binds the next `count` parameters to NULL.
    pub(super) fn nulls(&mut self, count: usize) -> rusqlite::Result<()> {
        (0..count).try_for_each(|_| self.cell(ToSqlOutput::Owned(Value::Null)))
    }
}

/// What is wrong with which column, counted from 0.
#[derive(Debug)]
pub(super) struct BadCell {
    pub(super) column: usize,
    pub(super) reason: String,
}

/// Reads a row's columns in turn.
pub(super) struct Fields<'a> {
    row: &'a rusqlite::Row<'a>,
    next: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(row: &'a rusqlite::Row<'a>) -> Self {
        Fields { row, next: 0 }
    }

    pub(super) fn take<C: Cells>(&mut self) -> Result<C, BadCell> {
        C::take(self)
    }

    /// Blames the column read last.
    pub(super) fn bad(&self, reason: impl Into<String>) -> BadCell {
        BadCell { column: self.next.saturating_sub(1), reason: reason.into() }
    }

    /// Passes over `count` columns that must be NULL.
    pub(super) fn nulls(&mut self, count: usize) -> Result<(), BadCell> {
        (0..count).try_for_each(|_| match self.cell()? {
            ValueRef::Null => Ok(()),
            ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => {
                Err(self.bad("holds a value in a row that has none"))
            }
        })
    }

    fn cell(&mut self) -> Result<ValueRef<'a>, BadCell> {
        let column = self.next;
        self.next += 1;
        self.row.get_ref(column).map_err(|error| BadCell { column, reason: error.to_string() })
    }
}

impl<C: Cell> Cells for C {
    fn put(&self, to: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
        to.cell(self.to_cell())
    }
    fn take(from: &mut Fields<'_>) -> Result<Self, BadCell> {
        let cell = from.cell()?;
        C::from_cell(cell).map_err(|reason| from.bad(reason))
    }
}

impl<C: Cell> Cells for Option<C> {
    fn put(&self, to: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
        match self {
            Some(value) => to.cell(value.to_cell()),
            None => to.nulls(1),
        }
    }
    fn take(from: &mut Fields<'_>) -> Result<Self, BadCell> {
        let cell = from.cell()?;
        if cell == ValueRef::Null {
            return Ok(None);
        }
        C::from_cell(cell).map(Some).map_err(|reason| from.bad(reason))
    }
}

impl Cells for () {
    fn put(&self, _: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
        Ok(())
    }
    fn take(_: &mut Fields<'_>) -> Result<Self, BadCell> {
        Ok(())
    }
}

impl<A: Cells, B: Cells> Cells for (A, B) {
    fn put(&self, to: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
        to.put(&self.0)?;
        to.put(&self.1)
    }
    fn take(from: &mut Fields<'_>) -> Result<Self, BadCell> {
        Ok((from.take()?, from.take()?))
    }
}

impl<A: Cells, B: Cells, C: Cells> Cells for (A, B, C) {
    fn put(&self, to: &mut Bind<'_, '_>) -> rusqlite::Result<()> {
        to.put(&self.0)?;
        to.put(&self.1)?;
        to.put(&self.2)
    }
    fn take(from: &mut Fields<'_>) -> Result<Self, BadCell> {
        Ok((from.take()?, from.take()?, from.take()?))
    }
}

fn wrong_type(wanted: &str, cell: ValueRef<'_>) -> String {
    format!("is {}, not {wanted}", cell.data_type())
}

fn text(cell: ValueRef<'_>) -> Result<&str, String> {
    match cell {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".into()),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => {
            Err(wrong_type("text", cell))
        }
    }
}

fn number(cell: ValueRef<'_>) -> Result<u64, String> {
    match cell {
        ValueRef::Integer(bits) => Ok(bits.cast_unsigned()),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => {
            Err(wrong_type("a number", cell))
        }
    }
}

fn borrowed(text: &str) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
}

/// The same 64 bits, so that no number is refused or changed; those above 2^63 look negative in SQL.
fn bits(number: u64) -> ToSqlOutput<'static> {
    ToSqlOutput::Owned(Value::Integer(number.cast_signed()))
}

impl Cell for u64 {
    fn to_cell(&self) -> ToSqlOutput<'_> {
        bits(*self)
    }
    fn from_cell(cell: ValueRef<'_>) -> Result<Self, String> {
        number(cell)
    }
}

impl Cell for u32 {
    fn to_cell(&self) -> ToSqlOutput<'_> {
        bits(u64::from(*self))
    }
    fn from_cell(cell: ValueRef<'_>) -> Result<Self, String> {
        u32::try_from(number(cell)?).map_err(|_| "is above 2^32".into())
    }
}

impl Cell for bool {
    fn to_cell(&self) -> ToSqlOutput<'_> {
        bits(u64::from(*self))
    }
    fn from_cell(cell: ValueRef<'_>) -> Result<Self, String> {
        match number(cell)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("is neither 0 nor 1".into()),
        }
    }
}

impl Cell for Arc<str> {
    fn to_cell(&self) -> ToSqlOutput<'_> {
        borrowed(self)
    }
    fn from_cell(cell: ValueRef<'_>) -> Result<Self, String> {
        text(cell).map(Into::into)
    }
}

impl Cell for String {
    fn to_cell(&self) -> ToSqlOutput<'_> {
        borrowed(self)
    }
    fn from_cell(cell: ValueRef<'_>) -> Result<Self, String> {
        text(cell).map(Into::into)
    }
}

impl Cell for [u8; 32] {
    fn to_cell(&self) -> ToSqlOutput<'_> {
        ToSqlOutput::Borrowed(ValueRef::Blob(self))
    }
    fn from_cell(cell: ValueRef<'_>) -> Result<Self, String> {
        match cell {
            ValueRef::Blob(bytes) => bytes.try_into().map_err(|_| "is not 32 bytes long".into()),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) => {
                Err(wrong_type("a blob", cell))
            }
        }
    }
}

macro_rules! as_number {
    ($($type:ident)*) => { $(
        impl Cell for $type {
            fn to_cell(&self) -> ToSqlOutput<'_> {
                bits(self.0)
            }
            fn from_cell(cell: ValueRef<'_>) -> Result<Self, String> {
                number(cell).map($type)
            }
        }
    )* };
}
as_number!(Seq Epoch Millis VatIncarnation);

/// Types with a strict text form of their own.
macro_rules! as_text {
    ($($type:ident)*) => { $(
        impl Cell for $type {
            fn to_cell(&self) -> ToSqlOutput<'_> {
                ToSqlOutput::Owned(Value::Text(self.to_string()))
            }
            fn from_cell(cell: ValueRef<'_>) -> Result<Self, String> {
                text(cell)?.parse().map_err(|error| format!("has an {error}"))
            }
        }
    )* };
}
as_text!(VatId RemoteId SubclusterId ObjectId PromiseId GrantId EndpointId KRef ERef Digest);

macro_rules! as_opaque {
    ($($type:ident)*) => { $(
        impl Cell for $type {
            fn to_cell(&self) -> ToSqlOutput<'_> {
                borrowed(self.as_str())
            }
            fn from_cell(cell: ValueRef<'_>) -> Result<Self, String> {
                text(cell).map($type::new)
            }
        }
    )* };
}
as_opaque!(PeerId Incarnation);

/// An endpoint, or the kernel.
macro_rules! as_party {
    ($($type:ident)*) => { $(
        impl Cell for $type {
            fn to_cell(&self) -> ToSqlOutput<'_> {
                match self {
                    $type::Kernel => borrowed("kernel"),
                    $type::Endpoint(endpoint) => ToSqlOutput::Owned(Value::Text(endpoint.to_string())),
                }
            }
            fn from_cell(cell: ValueRef<'_>) -> Result<Self, String> {
                match text(cell)? {
                    "kernel" => Ok($type::Kernel),
                    _ => EndpointId::from_cell(cell).map($type::Endpoint),
                }
            }
        }
    )* };
}
as_party!(Owner Decider);

/// Enumerations by word.
macro_rules! as_word {
    ($type:ident { $($variant:ident = $word:literal),* }) => {
        impl Cell for $type {
            fn to_cell(&self) -> ToSqlOutput<'_> {
                borrowed(match self { $( $type::$variant => $word, )* })
            }
            fn from_cell(cell: ValueRef<'_>) -> Result<Self, String> {
                match text(cell)? {
                    $( $word => Ok($type::$variant), )*
                    other => Err(format!("is none of {:?}: {other:?}", [$($word),*])),
                }
            }
        }
    };
}
as_word!(GcKind { DropExport = "dropExport", RetireExport = "retireExport", RetireImport = "retireImport" });
as_word!(HoldKind { Waiting = "waiting", Handed = "handed" });
as_word!(CodeFormat { Module = "module", Bundle = "bundle" });

/// Lists, as JSON arrays of text.
macro_rules! as_json {
    ($($type:ty),*) => { $(
        impl Cell for $type {
            fn to_cell(&self) -> ToSqlOutput<'_> {
                let texts = self.iter().map(|item| serde_json::Value::String(item.to_string()));
                ToSqlOutput::Owned(Value::Text(serde_json::Value::Array(texts.collect()).to_string()))
            }
            fn from_cell(cell: ValueRef<'_>) -> Result<Self, String> {
                serde_json::from_str(text(cell)?).map_err(|error| format!("is no list of names: {error}"))
            }
        }
    )* };
}
as_json!(Vec<KRef>, Vec<PromiseId>, Vec<Hint>, BTreeSet<EndpointId>);

/// One JSON object; what it leaves out is as by default.
impl Cell for Endowments {
    fn to_cell(&self) -> ToSqlOutput<'_> {
        // Text under text keys always serialises.
        ToSqlOutput::Owned(Value::Text(serde_json::to_string(self).unwrap_or_default()))
    }
    fn from_cell(cell: ValueRef<'_>) -> Result<Self, String> {
        serde_json::from_str(text(cell)?).map_err(|error| format!("is no record of endowments: {error}"))
    }
}
