//! The parameters of methods, each with its fields and no others.

use super::super::error::RpcError;
use capstan_model::id::KRef;
use capstan_model::peer::{Hint, PeerId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use std::num::NonZeroU64;

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
pub(super) struct Name {
    pub(super) name: String,
}

/// What a client may say about the network (05 §2).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RemoteComms {
    #[serde(default)]
    relays: Vec<Hint>,
    #[serde(default)]
    pub(super) direct_listen_addresses: Vec<String>,
    max_retry_attempts: Option<u32>,
    max_queue: Option<u64>,
    max_url_relay_hints: Option<NonZeroU64>,
    max_known_relays: Option<NonZeroU64>,
    allowed_ws_hosts: Option<Vec<String>>,
}

impl RemoteComms {
    /// The first thing asked for that a running network cannot change.
    pub(super) fn fixed_at_start(&self) -> Option<&'static str> {
        let fixed = [
            (!self.relays.is_empty(), "relays"),
            (self.max_retry_attempts.is_some(), "maxRetryAttempts"),
            (self.max_queue.is_some(), "maxQueue"),
            (self.max_url_relay_hints.is_some(), "maxUrlRelayHints"),
            (self.max_known_relays.is_some(), "maxKnownRelays"),
            (self.allowed_ws_hosts.is_some(), "allowedWsHosts"),
        ];
        fixed.into_iter().find(|(asked, _)| *asked).map(|(_, name)| name)
    }
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
