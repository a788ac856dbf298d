//! `identity show`.

use super::super::ctx::Ctx;
use crate::error::CliError;
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;

/// `identity …`
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Print the peer id
    Show,
}

/// Who a kernel is.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Identity {
    #[serde(rename = "peerId")]
    peer: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.peer)
    }
}

pub(super) async fn run(ctx: &mut Ctx, command: IdentityCommand) -> Result<Identity, CliError> {
    let IdentityCommand::Show = command;
    ctx.call_as("daemonStatus", json!([])).await
}
