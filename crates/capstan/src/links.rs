//! What holds for the links of a daemon with its peers, all of them: limits, and which hosts may be dialled (03 B.7).

use crate::limit::{self, Limit};
use capstan_host::{HostConfig, RelayLimits};
use capstan_model::peer::Millis;

use serde::Deserialize;
use std::num::NonZeroU32;

/// The rules of one daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkRules {
    /// Limits other than the usual ones; of several for one thing the last counts.
    pub limits: Vec<Limit<LinkLimits>>,
    /// Hosts that may be dialled by WebSocket without TLS, besides near ones and given relays.
    pub ws_hosts: Vec<String>,
}

/// The names of the limits; what is left out stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LinkLimits {
    max_concurrent_connections: Option<NonZeroU32>,
    max_connection_attempts_per_minute: Option<NonZeroU32>,
    max_messages_per_second: Option<NonZeroU32>,
    max_message_size_bytes: Option<NonZeroU32>,
    max_url_relay_hints: Option<NonZeroU32>,
    max_known_relays: Option<NonZeroU32>,
    reconnection_base_delay_ms: Option<u32>,
    reconnection_max_delay_ms: Option<u32>,
    handshake_timeout_ms: Option<NonZeroU32>,
    write_timeout_ms: Option<NonZeroU32>,
    ack_timeout_ms: Option<NonZeroU32>,
    stream_inactivity_timeout_ms: Option<NonZeroU32>,
    stale_peer_timeout_ms: Option<NonZeroU32>,
}

impl LinkRules {
    /// Lets a host go by them.
    pub(crate) fn apply(&self, config: &mut HostConfig) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        let limits = limit::together(&self.limits);
        let millis = |value: Option<NonZeroU32>| value.map(|value| Millis(value.get().into()));
        let delay = |value: Option<u32>| value.map(|value| Millis(value.into()));
        set(&mut config.connections_max, limits.max_concurrent_connections.map(|max| max.get() as usize));
        set(&mut config.dials_per_minute, limits.max_connection_attempts_per_minute);
        set(&mut config.messages_per_second, limits.max_messages_per_second.map(Some));
        set(&mut config.frame_bytes_max, limits.max_message_size_bytes.map(|max| max.get().into()));
        set(&mut config.retry_base, delay(limits.reconnection_base_delay_ms));
        set(&mut config.retry_cap, delay(limits.reconnection_max_delay_ms));
        set(&mut config.handshake_timeout, millis(limits.handshake_timeout_ms));
        set(&mut config.write_timeout, millis(limits.write_timeout_ms));
        set(&mut config.ack_timeout, millis(limits.ack_timeout_ms));
        set(&mut config.inactivity_timeout, millis(limits.stream_inactivity_timeout_ms));
        set(&mut config.stale_peer_timeout, millis(limits.stale_peer_timeout_ms));
        let usual = config.relay_limits;
        let relays =
            |limit: Option<NonZeroU32>, usual: usize| limit.map_or(usual as f64, |limit| limit.get().into());
        let url_hints = relays(limits.max_url_relay_hints, usual.url_hints());
        let known = relays(limits.max_known_relays, usual.known());
        // Neither is zero.
        set(&mut config.relay_limits, RelayLimits::new(url_hints, known).ok());
        config.allowed_ws_hosts.clone_from(&self.ws_hosts);
    }

    /// The options of `daemon start` that say the same.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let hosts = self.ws_hosts.iter().flat_map(|host| ["--ws-host".to_owned(), host.clone()]);
        limit::options("--link-limit", &self.limits).chain(hosts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_holds_and_everything_else_stays() {
        let text = [
            "maxConcurrentConnections=2",
            "reconnectionBaseDelayMs=0",
            "maxKnownRelays=7",
            "ackTimeoutMs=900",
        ];
        let limits = text.into_iter().flat_map(str::parse).collect();
        let rules = LinkRules { limits, ws_hosts: vec!["relay.example".into()] };
        let mut config = HostConfig::new("/nowhere");
        rules.apply(&mut config);
        let usual = HostConfig::new("/nowhere");
        assert_eq!(
            (config.connections_max, config.retry_base, config.ack_timeout),
            (2, Millis(0), Millis(900))
        );
        assert_eq!(config.relay_limits, RelayLimits::new(3.0, 7.0).unwrap_or(RelayLimits::DEFAULT));
        assert_eq!((config.retry_cap, config.dials_per_minute), (usual.retry_cap, usual.dials_per_minute));
        assert_eq!(config.allowed_ws_hosts, ["relay.example"]);
        let arguments = rules.arguments();
        assert_eq!(arguments[..2], ["--link-limit", "maxConcurrentConnections=2"]);
        assert_eq!(arguments[8..], ["--ws-host", "relay.example"]);
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, why) in [
            ("maxQueue=1", "unknown field `maxQueue`"),
            ("maxKnownRelays=0", "nonzero"),
            ("ackTimeoutMs=soon", "not a number"),
        ] {
            assert!(text.parse::<Limit<LinkLimits>>().is_err_and(|error| error.contains(why)), "{text}");
        }
    }
}
