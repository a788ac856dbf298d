//! Commands that only show: `status`, `vats`, `subclusters`, `remotes`, `dead-letters`; and `gc`.

use super::super::ctx::Ctx;
use super::super::text::{Fields, Listing};
use crate::error::CliError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;

pub(super) async fn status(ctx: &mut Ctx) -> Result<Fields, CliError> {
    ctx.call("status", json!([])).await.map(Fields)
}

pub(super) async fn vats(ctx: &mut Ctx) -> Result<Listing, CliError> {
    Ok(Listing::new(ctx.call("listVats", json!([])).await?, "No vats."))
}

pub(super) async fn subclusters(ctx: &mut Ctx) -> Result<Listing, CliError> {
    Ok(Listing::new(ctx.call("listSubclusters", json!([])).await?, "No subclusters."))
}

pub(super) async fn remotes(ctx: &mut Ctx) -> Result<Listing, CliError> {
    Ok(Listing::new(ctx.call("listRemotes", json!([])).await?, "No remotes."))
}

pub(super) async fn dead_letters(ctx: &mut Ctx) -> Result<Listing, CliError> {
    Ok(Listing::new(ctx.call("deadLetters", json!([])).await?, "Nothing was set aside."))
}

/// What a collection came to.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Collected {
    objects_before: u64,
    objects_after: u64,
}

impl fmt::Display for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} objects before, {} after", self.objects_before, self.objects_after)
    }
}

pub(super) async fn gc(ctx: &mut Ctx) -> Result<Collected, CliError> {
    ctx.call_as("gc", json!([])).await
}
