//! `fsck`.

use super::super::ctx::Ctx;
use super::super::printer::Printer;
use crate::error::{CliError, Code};
use crate::rpc::client::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use std::fmt;
use std::process::ExitCode;

/// What an audit found.
#[derive(Debug, Deserialize, Serialize)]
struct Report {
    ok: bool,
    problems: Vec<Problem>,
    checked: Map<String, Json>,
}

/// One thing found wrong.
#[derive(Debug, Deserialize, Serialize)]
struct Problem {
    invariant: u8,
    #[serde(rename = "where")]
    place: String,
    what: String,
    advice: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "invariant {}: {}: {}", self.invariant, self.place, self.what)?;
        writeln!(f, "  advice: {}", self.advice)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            write!(f, "{problem}")?;
        }
        let checked = self.checked.iter().map(|(table, rows)| format!("{rows} {table}"));
        let checked = checked.collect::<Vec<_>>().join(", ");
        let verdict = if self.ok { "All is well." } else { "The store is damaged." };
        write!(f, "{verdict} Checked: {checked}")
    }
}

/// Checks the store through the daemon that runs, or else from its files; no daemon is started.
pub(super) async fn run(ctx: &mut Ctx, printer: &mut Printer) -> Result<ExitCode, CliError> {
    let found = match Client::connect(&ctx.home).await? {
        Some(mut client) => client.call("fsck", json!([])).await?,
        None => offline(ctx).await?,
    };
    let report: Report =
        serde_json::from_value(found).map_err(|error| CliError::internal(error.to_string()))?;
    let sound = report.ok;
    printer.result(&report)?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn offline(ctx: &Ctx) -> Result<Json, CliError> {
    let dir = ctx.home.dir().to_owned();
    if !dir.join("kernel.sqlite").exists() {
        return Err(CliError::new(Code::Io, format!("there is no store under {}", dir.display())));
    }
    let checked = tokio::task::spawn_blocking(move || capstan_host::fsck(&dir)).await;
    let report = checked.map_err(|error| CliError::internal(error.to_string()))?;
    let report = report.map_err(|error| CliError::new(Code::Io, crate::daemon::with_sources(&error)))?;
    Ok(crate::rpc::methods::views::fsck(&report))
}
