//! What the two ends ask of each other: the methods of 03 D.9, and those that the session generation adds.
//!
//! Where D.9 names a peer, a channel is named too: addressed by peer alone, a message of an ended session could be
//! written on the channel of the next one (03 D-14). Members that there are not are refused, here and there.

use crate::fault::Fault;
use crate::rpc;
use capstan_model::peer::{ChannelId, Hint, Incarnation, PeerId};
use capstan_wire::facts::Facts;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::num::NonZeroU32;
use std::sync::Arc;

/// The secret key of the network's identity. It crosses the hop and is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySeed(pub [u8; 32]);

impl std::fmt::Debug for KeySeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySeed(…)")
    }
}

impl Serialize for KeySeed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
        let text: String = self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        serializer.serialize_str(&text)
    }
}

/// 64 hexadecimal digits. Whatever else it is, the error does not repeat it.
impl<'de> Deserialize<'de> for KeySeed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let refused = || serde::de::Error::custom("keySeed is not 64 hexadecimal digits");
        let given = Value::deserialize(deserializer)?;
        let text = given.as_str().filter(|text| text.len() == 64).ok_or_else(refused)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = pair.iter().map(|digit| char::from(*digit).to_digit(16));
            let value = digits.into_iter().try_fold(0, |sum, digit| Some(16 * sum + digit?));
            *byte = value.and_then(|value| value.try_into().ok()).ok_or_else(refused)?;
        }
        Ok(KeySeed(bytes))
    }
}

/// Everything a network is told at its start (03 B-34): one type, and what is not said has its default there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Who we are.
    pub key_seed: KeySeed,
    /// Multiaddrs to listen on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub direct_listen_addresses: Vec<String>,
    /// Multiaddrs to listen on for kernels of the reference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reference_listen_addresses: Vec<String>,
    /// Circuit relays to be reachable through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<String>,
    /// Hosts that may be dialled by WebSocket without TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_ws_hosts: Vec<String>,
    /// Dials in vain after which a peer is given up; 0: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retry_attempts: Option<u32>,
    /// The back-off before the first retry is below this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnection_base_delay_ms: Option<u64>,
    /// No back-off is longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnection_max_delay_ms: Option<u64>,
    /// How long a peer may take for its part of a handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_timeout_ms: Option<u64>,
    /// The longest frame accepted, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_message_size_bytes: Option<u64>,
    /// How long a peer may take nothing that is written to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_timeout_ms: Option<u64>,
    /// Peers talked to at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_connections: Option<u64>,
    /// Dials of one peer in any minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connection_attempts_per_minute: Option<NonZeroU32>,
    /// Frames written to one peer in any second; not said: as many as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_messages_per_second: Option<NonZeroU32>,
    /// How long a connection may show no sign of life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_inactivity_timeout_ms: Option<u64>,
    /// What nobody needed for so long about a peer is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_peer_timeout_ms: Option<u64>,
    /// Channels are numbered from here, so that no number is used again after a restart of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_channel: Option<u64>,
}

impl Options {
    /// The defaults of the network for this identity; listens nowhere.
    pub fn new(key_seed: KeySeed) -> Self {
        Options {
            key_seed,
            direct_listen_addresses: Vec::new(),
            reference_listen_addresses: Vec::new(),
            relays: Vec::new(),
            allowed_ws_hosts: Vec::new(),
            max_retry_attempts: None,
            reconnection_base_delay_ms: None,
            reconnection_max_delay_ms: None,
            handshake_timeout_ms: None,
            max_message_size_bytes: None,
            write_timeout_ms: None,
            max_concurrent_connections: None,
            max_connection_attempts_per_minute: None,
            max_messages_per_second: None,
            stream_inactivity_timeout_ms: None,
            stale_peer_timeout_ms: None,
            first_channel: None,
        }
    }
}

/// What the kernel asks of the network. The result is null everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "method",
    content = "params",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum NetworkCall {
    /// Start; once, until stopped.
    InitializeRemoteComms(Box<Options>),
    /// Write one message on a classic channel; answered when it is written, or with why it was not (03 S12).
    SendRemoteMessage {
        /// Whom.
        to: PeerId,
        /// On which of its channels.
        channel: ChannelId,
        /// What.
        message: Arc<str>,
    },
    /// Close all channels to a peer and refuse it (03 B-48).
    CloseConnection {
        /// Whom.
        peer_id: PeerId,
    },
    /// Undo that, and dial (03 B-49).
    ReconnectPeer {
        /// Whom.
        peer_id: PeerId,
        /// Where it might be found.
        hints: Vec<Hint>,
    },
    /// Where a peer might be found, for the next dial.
    RegisterLocationHints {
        /// Whom.
        peer_id: PeerId,
        /// Where.
        hints: Vec<Hint>,
    },
    /// Try again now, everywhere (03 B-45).
    ResetAllBackoffs(),
    /// Answer once what was asked before has reached the network: a process that does not is stuck.
    Ping(),
    /// Close everything and end.
    StopRemoteComms(),
    /// Keep a link to this peer.
    WantLink {
        /// Whom.
        peer_id: PeerId,
        /// Whether something waits to be sent.
        for_send: bool,
    },
    /// Dial this peer once.
    KnockLink {
        /// Whom.
        peer_id: PeerId,
        /// Where it might be found.
        hints: Vec<Hint>,
    },
    /// Be reachable through these relays too.
    UseRelays {
        /// Their addresses, each ending in `/p2p/…`.
        relays: Vec<Hint>,
    },
    /// No link is needed.
    UnwantLink {
        /// Whom.
        peer_id: PeerId,
    },
    /// Write these messages together on a registered channel, unacknowledged here: the session sees to that.
    SendFrames {
        /// Which channel.
        channel: ChannelId,
        /// Their texts.
        frames: Vec<Arc<str>>,
    },
    /// Close one channel.
    CloseChannel {
        /// Which.
        channel: ChannelId,
        /// For the log.
        reason: String,
    },
    /// Drop all memory of a peer.
    ForgetPeer {
        /// Whom.
        peer_id: PeerId,
    },
    /// Drop the note of a peer's last incarnation, and its back-off (03 S9).
    ForgetIncarnation {
        /// Whom.
        peer_id: PeerId,
    },
}

impl NetworkCall {
    const METHODS: [&str; 16] = [
        "initializeRemoteComms",
        "sendRemoteMessage",
        "closeConnection",
        "reconnectPeer",
        "registerLocationHints",
        "resetAllBackoffs",
        "ping",
        "stopRemoteComms",
        "wantLink",
        "knockLink",
        "useRelays",
        "unwantLink",
        "sendFrames",
        "closeChannel",
        "forgetPeer",
        "forgetIncarnation",
    ];

    /// Reads a request.
    pub fn parse(method: &str, params: Value) -> Result<Self, Fault> {
        rpc::parse(&Self::METHODS, method, params)
    }
}

/// What the network asks of the kernel, or tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "method",
    content = "params",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum KernelCall {
    /// A message arrived on a classic channel. Null: acted on, and answered by messages of its own. The next of this channel is
    /// told when this one is answered.
    RemoteDeliver {
        /// From whom.
        from: PeerId,
        /// On which of its channels.
        channel: ChannelId,
        /// What.
        message: Arc<str>,
    },
    /// A peer is given up (03 B-38). Null.
    RemoteGiveUp {
        /// Whom.
        peer_id: PeerId,
    },
    /// A classic handshake showed this incarnation. True: do not use the channel (03 D-20).
    RemoteIncarnationChange {
        /// Whose.
        peer_id: PeerId,
        /// On which channel.
        channel: ChannelId,
        /// What it calls itself.
        observed_incarnation: Incarnation,
    },
    /// What shall be said in the handshake of this new channel? [`Facts`].
    RemoteGreeting {
        /// Which.
        channel: ChannelId,
        /// Whose.
        peer_id: PeerId,
        /// Whether we dialled it.
        dialed: bool,
    },
    /// The peer's handshake, of the session generation. [`capstan_wire::seam::Verdict`].
    RemoteHandshake {
        /// On which channel.
        channel: ChannelId,
        /// What the peer said.
        theirs: Facts,
        /// Whether the network has noted another incarnation before.
        note_changed: bool,
    },
    /// The peer has confirmed a session. [`capstan_wire::seam::Verdict`].
    RemoteConfirmed {
        /// On which channel.
        channel: ChannelId,
    },
    /// Messages arrived on a channel of a session, in order. Null: acted on. A few may be unanswered at a time.
    RemoteFrames {
        /// Where.
        channel: ChannelId,
        /// Their texts.
        frames: Vec<Arc<str>>,
    },
    /// Sending failed without a channel to blame. Null.
    RemoteSendFailed {
        /// To whom.
        peer_id: PeerId,
        /// Why, in the marshalled form (03 D.8).
        error: Value,
    },
    /// A channel is gone. Null.
    RemoteChannelClosed {
        /// Which.
        channel: ChannelId,
        /// For the log.
        reason: String,
    },
    /// A peer has closed us by intent. Null.
    RemoteDeclined {
        /// Who.
        peer_id: PeerId,
    },
    /// A peer showed where it can be dialled. Null.
    RemoteLocationHints {
        /// Who.
        peer_id: PeerId,
        /// Where.
        hints: Vec<Hint>,
    },
    /// Our own confirmed addresses, all of them. Null.
    ListenAddresses {
        /// Most useful first.
        addresses: Vec<Hint>,
    },
}

impl KernelCall {
    const METHODS: [&str; 12] = [
        "remoteDeliver",
        "remoteGiveUp",
        "remoteIncarnationChange",
        "remoteGreeting",
        "remoteHandshake",
        "remoteConfirmed",
        "remoteFrames",
        "remoteSendFailed",
        "remoteChannelClosed",
        "remoteDeclined",
        "remoteLocationHints",
        "listenAddresses",
    ];

    /// Reads a request.
    pub fn parse(method: &str, params: Value) -> Result<Self, Fault> {
        rpc::parse(&Self::METHODS, method, params)
    }
}
