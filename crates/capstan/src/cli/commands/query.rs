//! `query`.

use super::super::ctx::Ctx;
use super::super::text::Listing;
use crate::error::CliError;
use clap::Args;
use serde_json::json;

/// `query`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  capstan query 'select name from sqlite_schema'
  capstan --json query 'select * from remote'")]
pub struct QueryArgs {
    /// One SQL statement that only reads
    sql: String,
}

pub(super) async fn run(ctx: &mut Ctx, args: QueryArgs) -> Result<Listing, CliError> {
    let rows = ctx.call("query", json!({"sql": args.sql})).await?;
    Ok(Listing::new(rows, "No rows."))
}
