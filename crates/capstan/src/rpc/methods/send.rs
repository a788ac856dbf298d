//! `queueMessage`: a call with arguments in the JSON form of values.

use super::super::error::RpcError;
use crate::daemon::Daemon;
use crate::value;
use capstan_model::id::KRef;
use capstan_model::smallcaps::{Value, encode};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// `[target, method, [argument…]]`; the target is a kref, or a URL that is redeemed first.
pub(super) async fn queue_message(daemon: &Daemon, params: Json) -> Result<Json, RpcError> {
    let (target, method, arguments): (String, String, Vec<Json>) =
        serde_json::from_value(params).map_err(RpcError::params)?;
    // Everything is checked before anything is asked of the kernel.
    check(&arguments)?;
    let target = if crate::url::looks_like_one(&target) {
        super::redeem(daemon, &target).await?
    } else {
        let parsed = target.parse::<KRef>();
        parsed.map_err(|error| {
            RpcError::from(crate::error::CliError::new(crate::error::Code::BadReference, error.to_string()))
        })?
    };
    let arguments = redeemed(daemon, &arguments).await?;
    let methargs = encode(&Value::Array(vec![Value::String(method), Value::Array(arguments)]));
    let settled = daemon.host().send(target, methargs).await?;
    if settled.rejected { Err(RpcError::rejected(settled.value, None)) } else { Ok(json!(settled.value)) }
}

fn check(arguments: &[Json]) -> Result<(), RpcError> {
    let none = BTreeMap::new();
    for argument in arguments {
        value::argument(argument, &none).map_err(crate::error::CliError::from)?;
    }
    Ok(())
}

/// Reads the arguments, with every URL in them redeemed.
async fn redeemed(daemon: &Daemon, arguments: &[Json]) -> Result<Vec<value::Argument>, RpcError> {
    let mut urls = BTreeSet::new();
    arguments.iter().for_each(|argument| value::urls_of(argument, &mut urls));
    let mut known = BTreeMap::new();
    for url in urls {
        let kref = super::redeem(daemon, &url).await?;
        known.insert(url, kref);
    }
    let values = arguments.iter().map(|argument| value::argument(argument, &known));
    Ok(values.collect::<Result<_, _>>().map_err(crate::error::CliError::from)?)
}
