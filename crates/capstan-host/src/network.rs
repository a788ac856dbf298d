//! Where the network runs: in this process, or in one of its own behind the hop (03 D.9).

use crate::config::HostConfig;
use crate::error::HostError;
use capstan_hop::message::{KeySeed, Options};
use capstan_hop::{NetworkProcess, Sink, serve};
use capstan_model::peer::{ChannelId, Millis};
use capstan_net::{Node, NodeConfig};
use capstan_wire::link::LinkOptions;
use capstan_wire::seam::{LinkEvent, LinkOrder};
use std::io;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// The network of one host.
#[derive(Debug)]
pub(crate) enum Network {
    InProcess(Node),
    Worker(NetworkProcess),
}

impl Network {
    /// Starts it; `sink` is told every event, in order, and must not block.
    pub(crate) async fn start(
        config: &HostConfig,
        seed: [u8; 32],
        sink: impl Fn(LinkEvent) + Send + Sync + 'static,
    ) -> Result<Network, HostError> {
        let node = node_config(config, seed);
        match &config.network_program {
            None => Ok(Network::InProcess(Node::spawn(node, sink)?)),
            Some(program) => {
                let process = NetworkProcess::start(program.clone(), options(node), Arc::new(sink)).await;
                Ok(Network::Worker(process.map_err(HostError::NetworkProcess)?))
            }
        }
    }

    /// Hands over an order; never blocks.
    pub(crate) fn order(&self, order: LinkOrder) {
        match self {
            Network::InProcess(node) => node.order(order),
            Network::Worker(process) => process.order(order),
        }
    }

    /// Gives back the credit of one batch of frames of this channel.
    pub(crate) fn consumed(&self, channel: ChannelId) {
        match self {
            Network::InProcess(node) => node.consumed(channel),
            Network::Worker(process) => process.consumed(channel),
        }
    }

    /// Closes every channel cleanly and ends it, within seconds; idempotent.
    pub(crate) async fn stop(&self) {
        match self {
            Network::InProcess(node) => node.stop().await,
            Network::Worker(process) => process.stop().await,
        }
    }
}

/// What of the host's options concerns the network. Of the identity it gets the seed, never a mnemonic (03 A-7).
fn node_config(config: &HostConfig, seed: [u8; 32]) -> NodeConfig {
    let links = LinkOptions {
        retry_base: config.retry_base,
        retry_cap: config.retry_cap,
        max_retry_attempts: config.max_retry_attempts,
        handshake_timeout: config.handshake_timeout,
        connections_max: config.connections_max,
        dials_per_minute: config.dials_per_minute,
        messages_per_second: config.messages_per_second,
        inactivity_timeout: config.inactivity_timeout,
        stale_timeout: config.stale_peer_timeout,
    };
    NodeConfig {
        listen: config.listen.clone(),
        relays: config.relays.clone(),
        allowed_ws_hosts: config.allowed_ws_hosts.clone(),
        listen_reference: config.listen_reference.clone(),
        frame_bytes_max: usize::try_from(config.frame_bytes_max).unwrap_or(usize::MAX),
        write_timeout: Duration::from_millis(config.write_timeout.0),
        links,
        ..NodeConfig::new(seed)
    }
}

/// The same for a network in another process. Every field is named, so that none is forgotten here or there.
fn options(node: NodeConfig) -> Options {
    let NodeConfig {
        seed,
        listen,
        relays,
        allowed_ws_hosts,
        listen_reference,
        protocol: _, // the same in both processes
        frame_bytes_max,
        write_timeout,
        links,
        first_channel,
    } = node;
    let LinkOptions {
        retry_base,
        retry_cap,
        max_retry_attempts,
        handshake_timeout,
        connections_max,
        dials_per_minute,
        messages_per_second,
        inactivity_timeout,
        stale_timeout,
    } = links;
    Options {
        key_seed: KeySeed(seed),
        direct_listen_addresses: listen,
        reference_listen_addresses: listen_reference,
        relays,
        allowed_ws_hosts,
        max_retry_attempts: Some(max_retry_attempts),
        reconnection_base_delay_ms: Some(retry_base.0),
        reconnection_max_delay_ms: Some(retry_cap.0),
        handshake_timeout_ms: Some(handshake_timeout.0),
        max_message_size_bytes: u64::try_from(frame_bytes_max).ok(),
        write_timeout_ms: u64::try_from(write_timeout.as_millis()).ok(),
        max_concurrent_connections: u64::try_from(connections_max).ok(),
        max_connection_attempts_per_minute: Some(dials_per_minute),
        max_messages_per_second: messages_per_second,
        stream_inactivity_timeout_ms: Some(inactivity_timeout.0),
        stale_peer_timeout_ms: Some(stale_timeout.0),
        first_channel: Some(first_channel),
    }
}

/// What the other process makes of it.
fn configured(options: Options) -> NodeConfig {
    let Options {
        key_seed: KeySeed(seed),
        direct_listen_addresses: listen,
        reference_listen_addresses: listen_reference,
        relays,
        allowed_ws_hosts,
        max_retry_attempts,
        reconnection_base_delay_ms,
        reconnection_max_delay_ms,
        handshake_timeout_ms,
        max_message_size_bytes,
        write_timeout_ms,
        max_concurrent_connections,
        max_connection_attempts_per_minute,
        max_messages_per_second,
        stream_inactivity_timeout_ms,
        stale_peer_timeout_ms,
        first_channel,
    } = options;
    let usual = NodeConfig::new(seed);
    let size = |given: Option<u64>, usual| given.map_or(usual, |size| size.try_into().unwrap_or(usize::MAX));
    let links = LinkOptions {
        retry_base: reconnection_base_delay_ms.map_or(usual.links.retry_base, Millis),
        retry_cap: reconnection_max_delay_ms.map_or(usual.links.retry_cap, Millis),
        max_retry_attempts: max_retry_attempts.unwrap_or(usual.links.max_retry_attempts),
        handshake_timeout: handshake_timeout_ms.map_or(usual.links.handshake_timeout, Millis),
        connections_max: size(max_concurrent_connections, usual.links.connections_max),
        dials_per_minute: max_connection_attempts_per_minute.unwrap_or(usual.links.dials_per_minute),
        messages_per_second: max_messages_per_second,
        inactivity_timeout: stream_inactivity_timeout_ms.map_or(usual.links.inactivity_timeout, Millis),
        stale_timeout: stale_peer_timeout_ms.map_or(usual.links.stale_timeout, Millis),
    };
    NodeConfig {
        listen,
        relays,
        allowed_ws_hosts,
        listen_reference,
        frame_bytes_max: size(max_message_size_bytes, usual.frame_bytes_max),
        write_timeout: write_timeout_ms.map_or(usual.write_timeout, Duration::from_millis),
        links,
        first_channel: first_channel.unwrap_or(usual.first_channel),
        ..usual
    }
}

/// A node as the hop drives it.
struct Hopped(Arc<Node>);

impl capstan_hop::Network for Hopped {
    fn order(&self, order: LinkOrder) {
        self.0.order(order);
    }
    fn consumed(&self, channel: ChannelId) {
        self.0.consumed(channel);
    }
    fn ping(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let node = self.0.clone();
        Box::pin(async move { node.ping().await })
    }
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let node = self.0.clone();
        Box::pin(async move { node.stop().await })
    }
}

/// Is the network of a host in another process: serves that host over `stream` until it is gone. To be called on a tokio
/// runtime.
pub async fn network_worker(stream: UnixStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let (reader, writer) = tokio::net::UnixStream::from_std(stream)?.into_split();
    let start = |options, sink: Sink| {
        let node = Node::spawn(configured(options), move |event| sink(event));
        node.map(|node| Hopped(Arc::new(node))).map_err(|error| with_source(&error))
    };
    serve(reader, writer, start).await
}

/// The text of an error with that of its cause.
fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    #[test]
    fn r29_r169_every_option_of_the_network_reaches_it_in_whatever_process_and_no_secret_but_the_seed() {
        let strings = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        let config = HostConfig {
            listen: strings(["/one", "/two"]),
            relays: strings(["/relay", "/other"]),
            allowed_ws_hosts: strings(["near.example", "far.example"]),
            listen_reference: strings(["/three", "/four"]),
            handshake_timeout: Millis(1),
            retry_base: Millis(2),
            retry_cap: Millis(3),
            max_retry_attempts: 4,
            connections_max: 5,
            dials_per_minute: NonZeroU32::new(6).unwrap_or(NonZeroU32::MIN),
            messages_per_second: NonZeroU32::new(7),
            inactivity_timeout: Millis(8),
            stale_peer_timeout: Millis(9),
            write_timeout: Millis(10),
            frame_bytes_max: 11,
            ..HostConfig::new("/nowhere")
        };
        let made = node_config(&config, [12; 32]);
        let links = LinkOptions {
            handshake_timeout: Millis(1),
            retry_base: Millis(2),
            retry_cap: Millis(3),
            max_retry_attempts: 4,
            connections_max: 5,
            dials_per_minute: NonZeroU32::new(6).unwrap_or(NonZeroU32::MIN),
            messages_per_second: NonZeroU32::new(7),
            inactivity_timeout: Millis(8),
            stale_timeout: Millis(9),
        };
        assert_eq!(made.links, links);
        assert_eq!((made.write_timeout, made.frame_bytes_max), (Duration::from_millis(10), 11));
        let addresses = [&made.listen, &made.relays, &made.listen_reference, &made.allowed_ws_hosts];
        let asked = [&config.listen, &config.relays, &config.listen_reference, &config.allowed_ws_hosts];
        assert_eq!(addresses, asked);
        let there = NodeConfig { first_channel: 13, ..made.clone() };
        let crossed = configured(options(there.clone()));
        assert_eq!((crossed.seed, crossed.links, crossed.frame_bytes_max), (there.seed, links, 11));
        assert_eq!((crossed.write_timeout, crossed.first_channel), (there.write_timeout, 13));
        let addresses =
            [&crossed.listen, &crossed.relays, &crossed.listen_reference, &crossed.allowed_ws_hosts];
        assert_eq!(addresses, asked);
        // What is not said is as it would be without the hop.
        let (bare, usual) = (configured(Options::new(KeySeed([8; 32]))), NodeConfig::new([8; 32]));
        assert_eq!((bare.links, bare.frame_bytes_max), (usual.links, usual.frame_bytes_max));
        assert_eq!((bare.write_timeout, bare.first_channel), (usual.write_timeout, usual.first_channel));
        // The whole of what the network is told: a field for a mnemonic would have to be named here.
        let NodeConfig {
            seed,
            listen: _,
            relays: _,
            allowed_ws_hosts: _,
            listen_reference: _,
            protocol: _,
            frame_bytes_max: _,
            write_timeout: _,
            links: _,
            first_channel: _,
        } = made;
        assert_eq!(seed, [12; 32]);
    }
}
