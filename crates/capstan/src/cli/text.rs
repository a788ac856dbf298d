//! Results for people: tables, and values on one line.

use serde_json::Value as Json;
use std::fmt::{Display, Formatter, Result, Write};

/// What went well and has no more to say.
#[derive(Debug, serde::Serialize)]
pub(super) struct Done {
    ok: bool,
    #[serde(skip)]
    text: String,
}

impl Done {
    pub(super) fn new(text: impl Into<String>) -> Done {
        Done { ok: true, text: text.into() }
    }
}

impl Display for Done {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(&self.text)
    }
}

/// A list of records as the daemon gave it: an array for scripts, a table for people.
#[derive(Debug, serde::Serialize)]
#[serde(transparent)]
pub(super) struct Listing {
    rows: Json,
    #[serde(skip)]
    empty: &'static str,
}

impl Listing {
    /// `empty` is what people read when there are none.
    pub(super) fn new(rows: Json, empty: &'static str) -> Listing {
        Listing { rows, empty }
    }
}

impl Display for Listing {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let rows: Vec<_> = self.rows.as_array().into_iter().flatten().filter_map(Json::as_object).collect();
        if rows.is_empty() {
            return f.write_str(self.empty);
        }
        let mut columns: Vec<&str> = Vec::new();
        for key in rows.iter().flat_map(|row| row.keys()) {
            if !columns.contains(&key.as_str()) {
                columns.push(key);
            }
        }
        let mut table = vec![columns.iter().map(|column| heading(column)).collect::<Vec<_>>()];
        table.extend(rows.iter().map(|row| {
            columns.iter().map(|column| row.get(*column).map_or_else(String::new, cell)).collect::<Vec<_>>()
        }));
        let width = |column: usize| {
            let cells = table.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns.len()).map(width).collect();
        for row in &table {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `peerIncarnation` as `PEER INCARNATION`.
fn heading(key: &str) -> String {
    let mut heading = String::new();
    for letter in key.chars() {
        if letter.is_ascii_uppercase() {
            heading.push(' ');
        }
        heading.push(letter.to_ascii_uppercase());
    }
    heading
}

fn cell(value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::String(text) => text.replace(['\n', '\r'], " "),
        Json::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        Json::Object(entries) => {
            entries.iter().map(|(key, value)| format!("{key}={}", cell(value))).collect::<Vec<_>>().join(" ")
        }
        Json::Bool(_) | Json::Number(_) => value.to_string(),
    }
}

/// A record as the daemon gave it: an object for scripts, a line a field for people.
#[derive(Debug, serde::Serialize)]
#[serde(transparent)]
pub(super) struct Fields(pub(super) Json);

impl Display for Fields {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let entries: Vec<_> = self.0.as_object().into_iter().flatten().collect();
        let width = entries.iter().map(|(key, _)| heading(key).len()).max().unwrap_or(0);
        for (key, value) in entries {
            writeln!(f, "{:width$}  {}", heading(key).to_ascii_lowercase(), cell(value))?;
        }
        Ok(())
    }
}
