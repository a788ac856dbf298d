//! `vat restart|terminate|ping` and `revoke`.

use super::super::ctx::Ctx;
use super::super::text::Done;
use crate::error::{CliError, Code};
use capstan_model::id::{KRef, ParseRefError, VatId};
use clap::{Args, Subcommand};
use serde_json::json;
use std::str::FromStr;

/// `vat …`
#[derive(Debug, Subcommand)]
pub enum VatCommand {
    /// Stop the vat and start it again on its durable state
    Restart {
        /// The vat, e.g. v1
        id: String,
    },
    /// End the vat for good; calls it has not answered are rejected
    Terminate {
        /// The vat, e.g. v1
        id: String,
    },
    /// Check that the vat answers
    Ping {
        /// The vat, e.g. v1
        id: String,
    },
}

/// `revoke`
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The object, e.g. ko12
    kref: String,
}

/// Reads an identifier from the command line.
pub(super) fn parse_id<T: FromStr<Err = ParseRefError>>(text: &str) -> Result<T, CliError> {
    text.parse().map_err(|error: ParseRefError| CliError::new(Code::BadReference, error.to_string()))
}

pub(super) async fn run(ctx: &mut Ctx, command: VatCommand) -> Result<Done, CliError> {
    let (method, id, done) = match command {
        VatCommand::Restart { id } => ("restartVat", id, "was restarted"),
        VatCommand::Terminate { id } => ("terminateVat", id, "was terminated"),
        VatCommand::Ping { id } => ("pingVat", id, "answers"),
    };
    let vat: VatId = parse_id(&id)?;
    ctx.call(method, json!({"id": vat})).await?;
    Ok(Done::new(format!("{vat} {done}")))
}

pub(super) async fn revoke(ctx: &mut Ctx, args: RevokeArgs) -> Result<Done, CliError> {
    let kref: KRef = parse_id(&args.kref)?;
    if let KRef::Promise(kp) = kref {
        return Err(CliError::new(Code::BadReference, format!("cannot revoke promise {kp}")));
    }
    ctx.call("revoke", json!({"kref": kref})).await?;
    Ok(Done::new(format!("{kref} is revoked")))
}
