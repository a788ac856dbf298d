//! `bundle`.

use crate::error::CliError;
use crate::sources::{self, BUNDLE_EXTENSION};
use capstan_host::code_hash;
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// `bundle`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  capstan bundle counter.ts
  capstan bundle src/main.ts -o counter.bundle
  capstan launch counter.bundle")]
pub struct BundleArgs {
    /// The source of one vat (.ts, .mts, .js, .mjs, .cjs)
    file: PathBuf,
    /// Where to write the bundle [default: beside the source, ending in .bundle]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
}

/// What was written.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    bundle: String,
    bytes: usize,
    sha256: String,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wrote {}: {} bytes", self.bundle, self.bytes)
    }
}

/// Needs no daemon and starts none.
pub(super) fn run(args: BundleArgs) -> Result<Written, CliError> {
    let text = sources::bundle(&args.file)?;
    let output = args.output.unwrap_or_else(|| args.file.with_extension(BUNDLE_EXTENSION));
    std::fs::write(&output, &text).map_err(|error| CliError::io(output.display(), error))?;
    let bundle = output.display().to_string();
    Ok(Written { bundle, bytes: text.len(), sha256: code_hash(&text).to_string() })
}
