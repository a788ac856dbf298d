//! `types`.

use crate::error::CliError;
use capstan_host::VAT_TYPES;
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// `types`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  capstan types > capstan.d.ts
  capstan types types/")]
pub struct TypesArgs {
    /// Where to write `capstan.d.ts`; without it, the text goes to standard output
    dir: Option<PathBuf>,
}

/// The declarations, or the file they went to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Declarations {
    /// Printed.
    Text(&'static str),
    /// Written.
    File(String),
}

impl fmt::Display for Declarations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Declarations::Text(text) => f.write_str(text),
            Declarations::File(file) => write!(f, "written to {file}"),
        }
    }
}

/// Needs no daemon and starts none.
pub(super) fn run(args: &TypesArgs) -> Result<Declarations, CliError> {
    let Some(dir) = &args.dir else { return Ok(Declarations::Text(VAT_TYPES)) };
    let file = dir.join("capstan.d.ts");
    std::fs::create_dir_all(dir).map_err(|error| CliError::io(dir.display(), error))?;
    std::fs::write(&file, VAT_TYPES).map_err(|error| CliError::io(file.display(), error))?;
    Ok(Declarations::File(file.display().to_string()))
}
