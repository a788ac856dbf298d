//! How a node is set up, and why that may fail.

use capstan_wire::link::LinkOptions;
use std::time::Duration;

/// How a node is set up.
// No `Debug`: the seed must not reach a log.
#[derive(Clone)]
pub struct NodeConfig {
    /// The secret key (ed25519); the peer id follows from it.
    pub seed: [u8; 32],
    /// Multiaddrs to listen on: TCP, WebSocket (`/tcp/…/ws`), or QUIC (`/udp/…/quic-v1`).
    pub listen: Vec<String>,
    /// Circuit relays to be reachable through, each ending in `/p2p/…`. One that is down does not hinder the start.
    pub relays: Vec<String>,
    /// Hosts that may be dialled by WebSocket without TLS, besides near ones and given relays.
    pub allowed_ws_hosts: Vec<String>,
    /// TCP multiaddrs to listen on for kernels of the reference, which negotiate channels by another name.
    pub listen_reference: Vec<String>,
    /// The name channels are negotiated by; begins with a slash.
    pub protocol: &'static str,
    /// The longest frame accepted, bytes.
    pub frame_bytes_max: usize,
    /// A peer that takes nothing that is written to it for so long is lost.
    pub write_timeout: Duration,
    /// The link machine's options.
    pub links: LinkOptions,
    /// No channel gets a smaller number: those of an earlier process may still be known to somebody.
    pub first_channel: u64,
}

impl NodeConfig {
    /// The defaults between session kernels; listens nowhere.
    pub fn new(seed: [u8; 32]) -> Self {
        NodeConfig {
            seed,
            listen: Vec::new(),
            relays: Vec::new(),
            allowed_ws_hosts: Vec::new(),
            listen_reference: Vec::new(),
            protocol: "/ocap/2",
            frame_bytes_max: 16 << 20,
            write_timeout: Duration::from_secs(10),
            links: LinkOptions::default(),
            first_channel: 1,
        }
    }
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Not 32 bytes of a secret key.
    #[error("malformed key")]
    Key(#[source] libp2p::identity::DecodingError),
    /// The protocol name does not begin with a slash.
    #[error("malformed protocol name")]
    Protocol(#[source] libp2p::swarm::InvalidProtocol),
    /// A transport could not be set up.
    #[error("transport unavailable: {0}")]
    Transport(String),
    /// A listen address is malformed.
    #[error("malformed listen address {address}")]
    Address {
        /// As configured.
        address: String,
        /// Why.
        #[source]
        source: libp2p::multiaddr::Error,
    },
    /// A relay's address is malformed, or does not end in `/p2p/…`.
    #[error("malformed relay address {address}: {reason}")]
    Relay {
        /// As configured.
        address: String,
        /// Why.
        reason: String,
    },
    /// A listen address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// As configured.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
