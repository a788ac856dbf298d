//! `send`.

use super::super::ctx::Ctx;
use crate::error::{CliError, Code};
use crate::value;
use capstan_model::capdata::CapData;
use capstan_model::id::KRef;
use capstan_model::smallcaps::render;
use clap::Args;
use serde::{Serialize, Serializer};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;

/// `send`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  capstan send ko3 bump 5
  capstan send ko3 greet Ann
  capstan send ocap:z… meet '{\"@kref\": \"ko4\"}'

Values that JSON lacks: {\"@kref\": \"ko12\"}, {\"@url\": \"ocap:…\"} (redeemed first), {\"@bigint\": \"123\"},
{\"@undefined\": true}, {\"@number\": \"NaN\"}, {\"@error\": {\"name\": \"Error\", \"message\": \"…\"}},
{\"@tagged\": {\"tag\": \"copyMap\", \"payload\": …}}; a plain object with an @ key: {\"@object\": {…}}.
An argument that begins with { [ or \" must be JSON.")]
pub struct SendArgs {
    /// A kref such as ko12, or an ocap: URL
    target: String,
    /// The method to call
    method: String,
    /// Arguments: JSON, or bare strings
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    arguments: Vec<String>,
}

/// What a call fulfilled with.
pub(super) struct Fulfilled(CapData<KRef>);

impl Serialize for Fulfilled {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        value::value_json(&self.0).serialize(serializer)
    }
}

impl fmt::Display for Fulfilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render(&self.0).unwrap_or_else(|_| self.0.body.to_string()))
    }
}

pub(super) async fn run(ctx: &mut Ctx, args: SendArgs) -> Result<Fulfilled, CliError> {
    check_target(&args.target)?;
    let none = BTreeMap::new();
    let mut arguments = Vec::new();
    for text in &args.arguments {
        let json = value::parse_argument(text)?;
        value::argument(&json, &none)?;
        arguments.push(json);
    }
    let value = ctx.call_as("queueMessage", json!([args.target, args.method, arguments])).await?;
    Ok(Fulfilled(value))
}

fn check_target(target: &str) -> Result<(), CliError> {
    if crate::url::looks_like_one(target) {
        return crate::url::check(target).map_err(|why| CliError::new(Code::BadUrl, why));
    }
    let parsed = target.parse::<KRef>();
    parsed.map(drop).map_err(|error| CliError::new(Code::BadReference, error.to_string()))
}
