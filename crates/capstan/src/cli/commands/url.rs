//! `url issue|redeem|list|revoke`.

use super::super::ctx::Ctx;
use super::super::printer::Output;
use super::super::text::{Done, Listing};
use super::vat::parse_id;
use crate::error::{CliError, Code};
use capstan_model::id::{GrantId, ObjectId};
use clap::Subcommand;
use serde::Serialize;
use serde_json::json;
use std::fmt;

/// `url …`
#[derive(Debug, Subcommand)]
pub enum UrlCommand {
    /// Issue an ocap: URL for an object; whoever knows it may use the object
    Issue {
        /// The object, e.g. ko12
        kref: String,
    },
    /// Redeem an ocap: URL, ours or a peer's
    Redeem {
        /// The URL
        url: String,
    },
    /// List the grants behind issued URLs; never their secrets
    List,
    /// End a grant: its URL is worth nothing afterwards
    Revoke {
        /// The grant, e.g. g3
        grant: String,
    },
}

#[derive(Debug, Serialize)]
struct Issued {
    url: String,
}

impl fmt::Display for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[derive(Debug, Serialize)]
struct Redeemed {
    kref: String,
}

impl fmt::Display for Redeemed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kref)
    }
}

pub(super) async fn run(ctx: &mut Ctx, command: UrlCommand) -> Result<Box<dyn Output>, CliError> {
    Ok(match command {
        UrlCommand::Issue { kref } => {
            let object: ObjectId = parse_id(&kref)?;
            let url = ctx.call_as("issueOcapURL", json!({"kref": object})).await?;
            Box::new(Issued { url })
        }
        UrlCommand::Redeem { url } => {
            crate::url::check(&url).map_err(|why| CliError::new(Code::BadUrl, why))?;
            let kref = ctx.call_as("redeemOcapURL", json!({"url": url})).await?;
            Box::new(Redeemed { kref })
        }
        UrlCommand::List => {
            let grants = ctx.call("listOcapURLs", json!([])).await?;
            Box::new(Listing::new(grants, "No URLs were issued."))
        }
        UrlCommand::Revoke { grant } => {
            let grant: GrantId = parse_id(&grant)?;
            ctx.call("revokeOcapURL", json!({"id": grant})).await?;
            Box::new(Done::new(format!("{grant} is revoked")))
        }
    })
}
