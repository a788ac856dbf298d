//! `rpc`.

use super::super::ctx::Ctx;
use crate::error::{CliError, Code};
use clap::Args;
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::fmt;

/// `rpc`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  capstan rpc getStatus
  capstan rpc pingVat '{\"id\": \"v1\"}'")]
pub struct RpcArgs {
    /// The method
    method: String,
    /// Its parameters, JSON
    params: Option<String>,
}

/// A result as it came.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct RawResult(Json);

impl fmt::Display for RawResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

pub(super) async fn run(ctx: &mut Ctx, args: RpcArgs) -> Result<RawResult, CliError> {
    let params = match &args.params {
        None => json!([]),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| CliError::new(Code::BadJson, format!("parameters are not JSON: {error}")))?,
    };
    ctx.call(&args.method, params).await.map(RawResult)
}
