//! `subcluster terminate`.

use super::super::ctx::Ctx;
use super::super::text::Done;
use super::vat::parse_id;
use crate::error::CliError;
use capstan_model::id::SubclusterId;
use clap::Subcommand;
use serde_json::json;

/// `subcluster …`
#[derive(Debug, Subcommand)]
pub enum SubclusterCommand {
    /// End a subcluster and all its vats
    Terminate {
        /// The subcluster, e.g. s1
        id: String,
    },
}

pub(super) async fn run(ctx: &mut Ctx, command: SubclusterCommand) -> Result<Done, CliError> {
    let SubclusterCommand::Terminate { id } = command;
    let subcluster: SubclusterId = parse_id(&id)?;
    ctx.call("terminateSubcluster", json!({"id": subcluster})).await?;
    Ok(Done::new(format!("{subcluster} was terminated")))
}
