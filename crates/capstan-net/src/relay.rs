//! A circuit relay for kernels that cannot reach each other directly (03 B.10).
//!
//! The limits of the library's relay would cut a session after 128 KiB or two minutes; ours lets circuits live, and
//! bounds how many there are.

use crate::config::NetError;
use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, identify, noise, ping, relay, tcp, yamux};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Peers that may be reachable through the relay at once.
const RESERVATIONS_MAX: usize = 4096;
/// Circuits open at once, in all and from one peer.
const CIRCUITS_MAX: usize = 4096;
const CIRCUITS_PER_PEER_MAX: usize = 256;
/// The library has no word for "no limit" (zero ends a circuit at once); the seconds must fit 32 bits.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);
/// A connection that holds no reservation and no circuit ends after this.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);
/// Binding and finding out the addresses takes no longer.
const START_MAX: Duration = Duration::from_secs(5);

/// How a relay is set up.
// No `Debug`: the seed must not reach a log.
#[derive(Clone)]
pub struct RelayConfig {
    /// The secret key (ed25519); the peer id follows from it.
    pub seed: [u8; 32],
    /// Multiaddrs to listen on, TCP or QUIC.
    pub listen: Vec<String>,
    /// The address under which the machine is known outside; replaces the listen addresses' own in what is told.
    pub public_ip: Option<Ipv4Addr>,
}

/// A relay with its listeners bound. It serves while [`Relay::run`] is polled.
#[allow(missing_debug_implementations, reason = "the swarm has none")]
pub struct Relay {
    swarm: Swarm<Behaviours>,
    addresses: Vec<String>,
}

#[derive(NetworkBehaviour)]
struct Behaviours {
    relay: relay::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

fn limits() -> relay::Config {
    relay::Config {
        max_reservations: RESERVATIONS_MAX,
        max_circuits: CIRCUITS_MAX,
        max_circuits_per_peer: CIRCUITS_PER_PEER_MAX,
        max_circuit_bytes: 0,
        max_circuit_duration: FOR_EVER,
        reservation_rate_limiters: Vec::new(),
        circuit_src_rate_limiters: Vec::new(),
        ..relay::Config::default()
    }
}

impl Relay {
    /// Binds the listeners; returns when their addresses are known.
    pub async fn start(config: RelayConfig) -> Result<Relay, NetError> {
        let mut seed = config.seed; // zeroed by the call
        let key = Keypair::ed25519_from_bytes(&mut seed).map_err(NetError::Key)?;
        let unavailable = |error: &dyn std::fmt::Display| NetError::Transport(error.to_string());
        let behaviours = |key: &Keypair| Behaviours {
            relay: relay::Behaviour::new(key.public().to_peer_id(), limits()),
            identify: identify::Behaviour::new(identify::Config::new("/ipfs/0.1.0".to_owned(), key.public())),
            ping: ping::Behaviour::new(ping::Config::new()),
        };
        let swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .map_err(|error| unavailable(&error))?
            .with_quic()
            .with_behaviour(behaviours)
            .map_err(|error| unavailable(&error))?
            .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_CONNECTION))
            .build();
        let mut relay = Relay { swarm, addresses: Vec::new() };
        relay.bind(&config).await?;
        Ok(relay)
    }

    async fn bind(&mut self, config: &RelayConfig) -> Result<(), NetError> {
        let mut waiting = Vec::new();
        for address in &config.listen {
            let parsed: Multiaddr =
                address.parse().map_err(|source| NetError::Address { address: address.clone(), source })?;
            let listener = crate::node::bind(&mut self.swarm, parsed)
                .map_err(|source| NetError::Bind { address: address.clone(), source })?;
            waiting.push((listener, address.clone()));
        }
        let own = *self.swarm.local_peer_id();
        let deadline = tokio::time::sleep(START_MAX);
        tokio::pin!(deadline);
        while let Some((_, late)) = waiting.last() {
            let timed_out = || NetError::Bind {
                address: late.clone(),
                source: std::io::Error::from(std::io::ErrorKind::TimedOut),
            };
            let event = tokio::select! {
                () = &mut deadline => return Err(timed_out()),
                event = self.swarm.select_next_some() => event,
            };
            if let SwarmEvent::NewListenAddr { listener_id, address } = event {
                waiting.retain(|(waiting, _)| *waiting != listener_id);
                let told = match config.public_ip {
                    Some(ip) => address.replace(0, |_| Some(Protocol::Ip4(ip))).unwrap_or(address),
                    None => address,
                };
                // Without an external address a reservation would carry none, and be refused by whoever made it.
                self.swarm.add_external_address(told.clone());
                self.addresses.extend(told.with_p2p(own).ok().map(|address| address.to_string()));
            }
        }
        Ok(())
    }

    /// The relay's peer id.
    pub fn peer(&self) -> String {
        self.swarm.local_peer_id().to_string()
    }

    /// Where it can be reached, each ending in `/p2p/…`; what a kernel is given as its relay.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Serves, for ever.
    pub async fn run(mut self) {
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::Behaviour(BehavioursEvent::Relay(event)) => tracing::info!(?event, "relay"),
                SwarmEvent::NewListenAddr { address, .. } => self.swarm.add_external_address(address),
                other => tracing::trace!(?other, "relay"),
            }
        }
    }
}
