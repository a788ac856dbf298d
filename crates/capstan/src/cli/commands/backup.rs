//! `backup` and `restore`.

use super::super::ctx::Ctx;
use crate::error::{CliError, Code};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;
use std::path::{Path, PathBuf};

/// `backup`, `restore`
#[derive(Debug, Args)]
pub struct FileArgs {
    /// The file
    file: PathBuf,
}

/// A copy of a store.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Copied {
    bytes: u64,
    sha256: String,
    /// What people should know besides.
    #[serde(skip)]
    remark: Option<String>,
}

impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, SHA-256 {}", self.bytes, self.sha256)?;
        self.remark.as_ref().map_or(Ok(()), |remark| write!(f, "\n{remark}"))
    }
}

fn absolute(file: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(file).map_err(|error| CliError::io(file.display(), error))
}

pub(super) async fn backup(ctx: &mut Ctx, args: FileArgs) -> Result<Copied, CliError> {
    let file = absolute(&args.file)?;
    if file.exists() {
        return Err(CliError::io(file.display(), "exists already").hint("choose another name"));
    }
    ctx.call_as("backup", json!({"file": file.to_string_lossy()})).await
}

/// Needs no daemon and starts none.
pub(super) async fn restore(ctx: &Ctx, args: FileArgs) -> Result<Copied, CliError> {
    let (file, home) = (absolute(&args.file)?, ctx.home.clone());
    let shown = home.dir().display().to_string();
    home.create()?;
    let _turn = home.turn().await?;
    let restored = tokio::task::spawn_blocking(move || capstan_host::restore(&file, home.dir())).await;
    let restored = restored.map_err(|error| CliError::internal(error.to_string()))?;
    let from = restored.map_err(|error| CliError::new(Code::Io, crate::daemon::with_sources(&error)))?;
    let remark = Some(format!("restored to {shown}; the next start begins a new incarnation"));
    Ok(Copied { bytes: from.bytes, sha256: from.sha256, remark })
}
