//! One task that owns the swarm and the link machine.

use crate::address;
use crate::channels;
use crate::config::{NetError, NodeConfig};
use crate::fault;
use crate::gate::Gate;
use crate::reference::{self, Reference};
use crate::relays::Relays;
use crate::stream::{OpenChannel, Writing};
use capstan_model::peer::{ChannelId, Hint, Millis};
use capstan_wire::link::{Action, DialFault, FaultCode, LinkFact, Links};
use capstan_wire::seam::{LinkEvent, LinkOrder};
use futures::{AsyncRead, AsyncWrite, FutureExt, StreamExt};
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, NetworkBehaviour, StreamProtocol, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, dcutr, identify, noise, ping, relay, tcp, yamux};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Streams of one connection: ours, identify, ping and a few crossing.
const STREAMS_PER_CONNECTION_MAX: usize = 64;
/// Inbound streams of one connection in negotiation.
const NEGOTIATING_MAX: usize = 16;
/// A connection without a stream ends after this.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);
/// How often a port that is to be freed is looked at.
const PORT_LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Stopping takes no longer (03 B-50).
const STOP_MAX: Duration = Duration::from_secs(2);
/// Peers remembered by the protocol name they know.
const NAMES_MAX: usize = 1024;
/// How often a silent peer is asked for a sign of life, and how long it may take.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The link machine is told the time at least this often: it ends silent channels and forgets stale peers.
const TICK: Duration = Duration::from_secs(5);

/// Channel numbers are unique in the process, whatever nodes it has.
static NEXT_CHANNEL: AtomicU64 = AtomicU64::new(1);

enum Command {
    Order(LinkOrder),
    Consumed(ChannelId),
    Ping(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// A running node. Dropping it stops the node without waiting.
#[derive(Debug)]
pub struct Node {
    peer: capstan_model::peer::PeerId,
    commands: mpsc::UnboundedSender<Command>,
}

impl Node {
    /// Binds the listen addresses and starts the node's task on the current tokio runtime. `sink` is called from that
    /// task for every event, in order, and must not block.
    pub fn spawn(
        config: NodeConfig,
        sink: impl Fn(LinkEvent) + Send + Sync + 'static,
    ) -> Result<Node, NetError> {
        let mut seed = config.seed; // zeroed by the call
        let key = Keypair::ed25519_from_bytes(&mut seed).map_err(NetError::Key)?;
        let protocol =
            StreamProtocol::try_from_owned(config.protocol.to_owned()).map_err(NetError::Protocol)?;
        let (reference, channels) = Reference::start(&key, &config.listen_reference)?;
        let mut swarm = swarm(key, protocol)?;
        for address in &config.listen {
            let parsed: Multiaddr =
                address.parse().map_err(|source| NetError::Address { address: address.clone(), source })?;
            bind(&mut swarm, parsed).map_err(|source| NetError::Bind { address: address.clone(), source })?;
        }
        let relays = Relays::new(&config.relays)?;
        let gate = Gate::new(&config.allowed_ws_hosts, relays.addresses());
        NEXT_CHANNEL.fetch_max(config.first_channel, Ordering::Relaxed);
        let peer = capstan_model::peer::PeerId::new(swarm.local_peer_id().to_string());
        let (commands, inbox) = mpsc::unbounded_channel();
        let (facts, observed) = mpsc::unbounded_channel();
        let driver = Driver {
            swarm,
            links: Links::new(peer.clone(), config.links),
            sink: Box::new(sink),
            facts,
            frame_bytes_max: config.frame_bytes_max,
            write_timeout: config.write_timeout,
            started: Instant::now(),
            ticked: Instant::now(),
            listening: Vec::new(),
            listening_reference: Vec::new(),
            relays,
            gate,
            reference,
            listens_for_reference: !config.listen_reference.is_empty(),
            only_reference: HashSet::new(),
            know_ours: HashSet::new(),
            open: BTreeMap::new(),
            connections: HashMap::new(),
            learned: HashMap::new(),
            dials: HashMap::new(),
            closing: Vec::new(),
        };
        tokio::spawn(driver.run(inbox, observed, channels));
        Ok(Node { peer, commands })
    }

    /// This node's peer id.
    pub fn peer(&self) -> &capstan_model::peer::PeerId {
        &self.peer
    }

    /// Hands over an order; never blocks. After a stop it is dropped.
    pub fn order(&self, order: LinkOrder) {
        let _ = self.commands.send(Command::Order(order));
    }

    /// Gives back the credit of one [`LinkEvent::FramesRead`] of this channel, once it has been dealt with.
    pub fn consumed(&self, channel: ChannelId) {
        let _ = self.commands.send(Command::Consumed(channel));
    }

    /// Waits until the node has taken what it was told before; after a stop, for nothing.
    pub async fn ping(&self) {
        let (pong, heard) = oneshot::channel();
        if self.commands.send(Command::Ping(pong)).is_ok() {
            let _ = heard.await;
        }
    }

    /// Closes every channel cleanly and ends the node, within two seconds; idempotent.
    pub async fn stop(&self) {
        let (done, ended) = oneshot::channel();
        if self.commands.send(Command::Stop(done)).is_ok() {
            let _ = ended.await;
        }
    }
}

#[derive(NetworkBehaviour)]
struct Behaviours {
    channels: channels::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    relay: relay::client::Behaviour,
    /// Tries for a direct connection where a relayed one stands.
    punching: dcutr::Behaviour,
}

fn swarm(key: Keypair, protocol: StreamProtocol) -> Result<Swarm<Behaviours>, NetError> {
    let muxing = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_PER_CONNECTION_MAX);
        config
    };
    let unavailable = |error: &dyn std::fmt::Display| NetError::Transport(error.to_string());
    let behaviours = |key: &Keypair, relay| Behaviours {
        channels: channels::Behaviour::new(protocol),
        identify: identify::Behaviour::new(identify::Config::new("/ipfs/0.1.0".to_owned(), key.public())),
        ping: ping::Behaviour::new(
            ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT),
        ),
        relay,
        punching: dcutr::Behaviour::new(key.public().to_peer_id()),
    };
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, muxing)
        .map_err(|error| unavailable(&error))?
        .with_quic()
        .with_dns()
        .map_err(|error| unavailable(&error))?
        .with_websocket(noise::Config::new, muxing)
        .now_or_never()
        .ok_or_else(|| unavailable(&"WebSocket cannot be set up at once"))?
        .map_err(|error| unavailable(&error))?
        .with_relay_client(noise::Config::new, muxing)
        .map_err(|error| unavailable(&error))?
        .with_behaviour(behaviours)
        .map_err(|error| unavailable(&error))?
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(IDLE_CONNECTION)
                .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
        })
        .build();
    Ok(swarm)
}

/// Binds an address. The transport shares ports, so a port that another process listens on would be taken without
/// a complaint; binding it once without sharing finds that out.
pub(crate) fn bind<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    address: Multiaddr,
) -> std::io::Result<ListenerId> {
    if let Some(socket) = address::socket(&address).filter(|socket| socket.port() != 0) {
        drop(std::net::TcpListener::bind(socket)?);
    }
    match swarm.listen_on(address) {
        Ok(listener) => Ok(listener),
        Err(libp2p::TransportError::Other(error)) => Err(error),
        Err(other) => Err(std::io::Error::other(other)),
    }
}

struct Driver {
    swarm: Swarm<Behaviours>,
    links: Links,
    sink: Box<dyn Fn(LinkEvent) + Send + Sync>,
    facts: mpsc::UnboundedSender<LinkFact>,
    frame_bytes_max: usize,
    write_timeout: Duration,
    started: Instant,
    ticked: Instant,
    listening: Vec<Multiaddr>,
    listening_reference: Vec<Multiaddr>,
    relays: Relays,
    gate: Gate,
    reference: Reference,
    listens_for_reference: bool,
    /// Peers that did not know our protocol name.
    only_reference: HashSet<PeerId>,
    /// Peers that did.
    know_ours: HashSet<PeerId>,
    open: BTreeMap<ChannelId, OpenChannel>,
    /// Live connections of each peer, the newest last.
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    /// What connected peers said of their addresses, which may come before their first channel.
    learned: HashMap<PeerId, Vec<Hint>>,
    /// Unanswered dials.
    dials: HashMap<PeerId, Dialing>,
    /// Writers that still empty their queues.
    closing: Vec<JoinHandle<()>>,
}

/// A dial and what is left to try.
struct Dialing {
    /// The connection it waits for; none: it goes on below the swarm.
    connection: Option<ConnectionId>,
    /// The peer's own TCP addresses.
    tcp: Vec<Multiaddr>,
    /// Addresses not yet dialled, those to be tried first last: TCP, QUIC, through relays.
    stages: Vec<Vec<Multiaddr>>,
}

impl Driver {
    async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Command>,
        mut observed: mpsc::UnboundedReceiver<LinkFact>,
        mut channels: mpsc::UnboundedReceiver<reference::Event>,
    ) {
        loop {
            let due = [self.links.next_deadline(), self.relays.next_deadline()].into_iter().flatten().min();
            let wake = due.map(|at| self.started + Duration::from_millis(at.0));
            let latest = self.ticked + TICK;
            let timer = tokio::time::sleep_until(wake.map_or(latest, |at| at.min(latest)));
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Order(LinkOrder::UseRelays { relays })) => {
                        self.relays.learn(&relays, &self.gate, self.now());
                        self.reserve();
                    }
                    Some(Command::Order(order)) => {
                        let actions = self.links.order(self.now(), chance(), order);
                        self.execute(actions);
                    }
                    Some(Command::Consumed(channel)) => {
                        if let Some(open) = self.open.get(&channel) {
                            open.release();
                        }
                    }
                    Some(Command::Ping(pong)) => drop(pong.send(())),
                    Some(Command::Stop(done)) => {
                        self.stop().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return self.stop().await,
                },
                Some(fact) = observed.recv() => self.read(fact),
                Some(event) = channels.recv() => self.below(event),
                event = self.swarm.select_next_some() => self.happened(event),
                () = timer => {
                    self.ticked = Instant::now();
                    self.reserve();
                    self.observe(LinkFact::Tick);
                }
            }
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn observe(&mut self, fact: LinkFact) {
        let actions = self.links.observe(self.now(), chance(), fact);
        self.execute(actions);
    }

    /// A fact of a channel's own tasks. A batch the machine did not pass on at once costs no credit: what it keeps
    /// is bounded.
    fn read(&mut self, fact: LinkFact) {
        let channel = if let LinkFact::TextsRead { channel, .. } = &fact { Some(*channel) } else { None };
        if let LinkFact::ChannelDown { channel, .. } = &fact
            && let Some(open) = self.open.remove(channel)
        {
            self.closing.retain(|writer| !writer.is_finished());
            self.closing.push(open.close(true));
        }
        let actions = self.links.observe(self.now(), chance(), fact);
        let passed_on =
            actions.iter().any(|action| matches!(action, Action::Report(LinkEvent::FramesRead { .. })));
        self.execute(actions);
        if let Some(open) = channel.filter(|_| !passed_on).and_then(|channel| self.open.get(&channel)) {
            open.release();
        }
    }

    fn execute(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial { peer, hints } => self.dial(&peer, &hints),
                Action::Write { channel, texts, token } => {
                    if let Some(open) = self.open.get(&channel) {
                        open.write(Writing { texts, token });
                    }
                }
                Action::Close { channel, graceful } => {
                    if let Some(open) = self.open.remove(&channel) {
                        self.closing.retain(|writer| !writer.is_finished());
                        self.closing.push(open.close(graceful));
                    }
                }
                Action::Report(event) => (self.sink)(event),
            }
        }
    }

    fn dial(&mut self, peer: &capstan_model::peer::PeerId, hints: &[Hint]) {
        let Ok(target) = peer.as_str().parse::<PeerId>() else {
            let fault = DialFault::new(FaultCode::Malformed, "not a peer id of this network");
            return self.tell_dial_failed(peer.clone(), fault);
        };
        let admitted = |address: &Multiaddr| self.gate.admits(address);
        let (tcp, other): (Vec<_>, Vec<_>) =
            address::direct(target, hints).into_iter().filter(admitted).partition(address::is_tcp);
        let relayed: Vec<_> =
            address::relayed(target, hints, self.relays.addresses()).into_iter().filter(admitted).collect();
        // One kind after the other: a QUIC dial that loses a race keeps the listener's port busy for seconds.
        let stages = vec![relayed, other, tcp.clone()];
        let live = self.connections.get(&target).and_then(|live| live.last()).copied();
        self.dials.insert(target, Dialing { connection: live, tcp, stages });
        match live {
            Some(live) => self.swarm.behaviour_mut().channels.open(target, live),
            None => {
                self.dial_next(
                    target,
                    DialFault::new(FaultCode::NoAddress, "no address that may be dialled"),
                );
            }
        }
    }

    /// Tries the next stage of a dial. With nothing left it failed by `error`.
    fn dial_next(&mut self, target: PeerId, error: DialFault) {
        let Some(dial) = self.dials.get_mut(&target) else { return };
        // A kernel of the reference that dials us uses whatever connection there is, and the swarm does not know its
        // name. So where such kernels may dial us, no connection of the swarm is made before their name was tried.
        let below = self.only_reference.contains(&target)
            || (self.listens_for_reference && !self.know_ours.contains(&target));
        if below && !dial.tcp.is_empty() {
            dial.connection = None;
            let addresses = std::mem::take(&mut dial.tcp);
            return self.reference.dial(target, addresses);
        }
        let mut stages = std::iter::from_fn(|| dial.stages.pop());
        let Some(addresses) = stages.find(|stage| !stage.is_empty()) else {
            self.dials.remove(&target);
            return self.tell_dial_failed(named(target), error);
        };
        // A fresh port: two dials that cross between the listening ports would both fail.
        let options = DialOpts::peer_id(target)
            .addresses(addresses)
            .condition(PeerCondition::Always)
            .allocate_new_port()
            .build();
        dial.connection = Some(options.connection_id());
        if let Err(error) = self.swarm.dial(options) {
            self.dial_next(target, fault::of_dial(&error));
        }
    }

    /// Whether a dial waits for this connection.
    fn awaits(&self, peer: PeerId, connection: ConnectionId) -> bool {
        self.dials.get(&peer).is_some_and(|dial| dial.connection == Some(connection))
    }

    /// What happened below the swarm.
    fn below(&mut self, event: reference::Event) {
        match event {
            reference::Event::Opened { peer, we_opened, stream } => {
                if we_opened && self.dials.remove(&peer).is_none() {
                    return;
                }
                self.know_ours.remove(&peer);
                remember(&mut self.only_reference, peer);
                self.opened(peer, we_opened, true, stream);
            }
            reference::Event::DialFailed { peer, error } => {
                // It may speak our protocol by now, or be elsewhere.
                self.only_reference.remove(&peer);
                self.dial_next(peer, error);
            }
            reference::Event::Alive { peer } => self.observe(LinkFact::Alive { peer: named(peer) }),
            reference::Event::Listening(address) => {
                self.listening_reference.push(address);
                self.tell_listening();
            }
        }
    }

    /// Asks relays for what they owe us by now.
    fn reserve(&mut self) {
        for address in self.relays.due(self.now()) {
            let outcome = self.swarm.listen_on(address.clone());
            self.relays.asked(&address, outcome.ok(), self.now(), chance());
        }
    }

    /// Tells the machine through the queue: it may be in the middle of its actions.
    fn tell_dial_failed(&self, peer: capstan_model::peer::PeerId, error: DialFault) {
        tracing::debug!(%peer, %error, "dial failed");
        let _ = self.facts.send(LinkFact::DialFailed { peer, error });
    }

    /// Ends the dial that waits for this connection, if there is one.
    fn dial_ended(&mut self, peer: PeerId, connection: ConnectionId, error: DialFault) {
        if self.awaits(peer, connection) {
            self.dial_next(peer, error);
        }
    }

    fn happened(&mut self, event: SwarmEvent<BehavioursEvent>) {
        match event {
            SwarmEvent::Behaviour(BehavioursEvent::Channels(event)) => self.stream(event),
            SwarmEvent::Behaviour(BehavioursEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                let hints = address::learned(peer_id, info.listen_addrs);
                if self.connections.contains_key(&peer_id) {
                    self.learned.insert(peer_id, hints.clone());
                }
                self.observe(LinkFact::HintsSeen { peer: named(peer_id), hints });
            }
            SwarmEvent::Behaviour(BehavioursEvent::Ping(ping::Event { peer, connection, result })) => {
                match result {
                    Ok(_) => self.observe(LinkFact::Alive { peer: named(peer) }),
                    Err(ping::Failure::Timeout | ping::Failure::Other { .. }) => {
                        self.swarm.close_connection(connection);
                    }
                    Err(ping::Failure::Unsupported) => {}
                }
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.connections.entry(peer_id).or_default().push(connection_id);
                let ours = matches!(endpoint, ConnectedPoint::Dialer { .. });
                if ours && self.awaits(peer_id, connection_id) {
                    self.swarm.behaviour_mut().channels.open(peer_id, connection_id);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                if let Some(live) = self.connections.get_mut(&peer_id) {
                    live.retain(|id| *id != connection_id);
                    if live.is_empty() {
                        self.connections.remove(&peer_id);
                        self.learned.remove(&peer_id);
                    }
                }
                let fault = DialFault::new(FaultCode::Reset, "connection closed");
                self.dial_ended(peer_id, connection_id, fault);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), connection_id, error } => {
                self.dial_ended(peer, connection_id, fault::of_dial(&error));
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                if let Some(relay) = self.relays.lost(listener_id, self.now(), chance()) {
                    tracing::info!(%relay, ?reason, "the relay does not serve us any more");
                }
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.relays.serves(listener_id);
                self.listening.push(address);
                self.tell_listening();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening.retain(|known| *known != address);
                self.tell_listening();
            }
            other => tracing::trace!(?other, "swarm"),
        }
    }

    fn tell_listening(&self) {
        let own = *self.swarm.local_peer_id();
        // Kernels of the reference take the first address that leads to us, ours find the right one anyway.
        let mut addresses = address::own(own, &self.listening_reference);
        addresses.extend(address::own(own, &self.listening));
        (self.sink)(LinkEvent::Listening { addresses });
    }

    fn stream(&mut self, event: channels::Event) {
        match event {
            channels::Event::Opened { peer, connection, we_opened, stream } => {
                if we_opened {
                    if !self.awaits(peer, connection) {
                        return;
                    }
                    self.dials.remove(&peer);
                }
                self.only_reference.remove(&peer);
                remember(&mut self.know_ours, peer);
                self.opened(peer, we_opened, false, stream);
            }
            channels::Event::OpenFailed { peer, connection, error, unsupported } => {
                self.swarm.close_connection(connection);
                if unsupported && self.awaits(peer, connection) {
                    self.know_ours.remove(&peer);
                    remember(&mut self.only_reference, peer);
                    return self.dial_next(peer, error.as_str().into());
                }
                self.dial_ended(peer, connection, error.as_str().into());
            }
        }
    }

    /// A raw stream to a peer is there, wherever it came from.
    fn opened(
        &mut self,
        peer: PeerId,
        we_opened: bool,
        reference: bool,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) {
        let channel = ChannelId(NEXT_CHANNEL.fetch_add(1, Ordering::Relaxed));
        let open =
            OpenChannel::start(channel, stream, self.frame_bytes_max, self.write_timeout, self.facts.clone());
        self.open.insert(channel, open);
        self.observe(LinkFact::ChannelUp { channel, peer: named(peer), dialed: we_opened, reference });
        if let Some(hints) = self.learned.get(&peer).cloned() {
            self.observe(LinkFact::HintsSeen { peer: named(peer), hints });
        }
    }

    /// Lets writers finish, closes the connections, frees the ports; within [`STOP_MAX`].
    async fn stop(mut self) {
        let deadline = Instant::now() + STOP_MAX;
        let ports: Vec<_> = self.listening.iter().filter_map(address::quic).collect();
        let _ = tokio::time::timeout_at(deadline, self.disconnect()).await;
        drop(self);
        // A QUIC socket is closed by a task of its own, some time after whoever used it.
        for port in ports {
            while Instant::now() < deadline && std::net::UdpSocket::bind(port).is_err() {
                tokio::time::sleep(PORT_LOOK_AGAIN).await;
            }
        }
    }

    async fn disconnect(&mut self) {
        let actions = self.links.stop();
        self.execute(actions);
        let mut writers = futures::future::join_all(std::mem::take(&mut self.closing));
        let mut written = false;
        loop {
            tokio::select! {
                _ = &mut writers, if !written => {
                    written = true;
                    let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
                    for peer in peers {
                        // Fails only for a peer that is gone already.
                        let _ = self.swarm.disconnect_peer_id(peer);
                    }
                    if self.swarm.connected_peers().next().is_none() {
                        return;
                    }
                }
                event = self.swarm.select_next_some() => {
                    let closed = matches!(event, SwarmEvent::ConnectionClosed { .. });
                    if written && closed && self.swarm.connected_peers().next().is_none() {
                        return;
                    }
                }
            }
        }
    }
}

fn remember(peers: &mut HashSet<PeerId>, peer: PeerId) {
    if peers.len() >= NAMES_MAX {
        peers.clear();
    }
    peers.insert(peer);
}

fn named(peer: PeerId) -> capstan_model::peer::PeerId {
    capstan_model::peer::PeerId::new(peer.to_string())
}

/// A random number, good enough to spread retries.
fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}
