//! The parameters of methods, each with its fields and no others.

use super::super::error::RpcError;
use capstan_model::id::KRef;
use capstan_model::peer::{Hint, PeerId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound = "T: DeserializeOwned")]
pub(super) struct Id<T> {
    pub(super) id: T,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kref {
    pub(super) kref: KRef,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Url {
    pub(super) url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backup {
    pub(super) file: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sql {
    pub(super) sql: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Peer {
    pub(super) peer_id: PeerId,
    #[serde(default)]
    pub(super) hints: Vec<Hint>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Launch {
    pub(super) config: Json,
    /// A root without a method `bootstrap` is launched without the call (07 "Vats").
    #[serde(default)]
    pub(super) bootstrap_optional: bool,
}

pub(super) fn parse<T: DeserializeOwned>(params: Json) -> Result<T, RpcError> {
    if !params.is_object() {
        return Err(RpcError::params("expected an object"));
    }
    serde_json::from_value(params).map_err(RpcError::params)
}
