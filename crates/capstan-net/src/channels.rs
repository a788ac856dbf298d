//! A network behaviour that hands raw streams to the driver, one protocol name, each stream with its connection.

use libp2p::core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::VecDeque;
use std::task::{Context, Poll};

/// What became of a stream.
#[derive(Debug)]
pub(crate) enum Event {
    Opened {
        peer: PeerId,
        connection: ConnectionId,
        we_opened: bool,
        stream: Stream,
    },
    /// `unsupported`: the peer does not know the protocol.
    OpenFailed {
        peer: PeerId,
        connection: ConnectionId,
        error: String,
        unsupported: bool,
    },
}

pub(crate) struct Behaviour {
    name: StreamProtocol,
    queue: VecDeque<ToSwarm<Event, Open>>,
}

/// Asks a connection for one stream.
#[derive(Debug)]
pub(crate) struct Open;

impl Behaviour {
    pub(crate) fn new(name: StreamProtocol) -> Self {
        Behaviour { name, queue: VecDeque::new() }
    }
    /// Opens a stream on an established connection; answered by one event, or by the connection's end.
    pub(crate) fn open(&mut self, peer: PeerId, connection: ConnectionId) {
        let handler = NotifyHandler::One(connection);
        self.queue.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: Open });
    }
    fn streams(&self) -> Streams {
        Streams { name: self.name.clone(), wanted: 0, out: VecDeque::new() }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Streams;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.streams())
    }
    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.streams())
    }
    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}
    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.queue.push_back(ToSwarm::GenerateEvent(match event {
            Out::Opened { we_opened, stream } => Event::Opened { peer, connection, we_opened, stream },
            Out::Failed { error, unsupported } => Event::OpenFailed { peer, connection, error, unsupported },
        }));
    }
    // No waker: the queue grows only from the swarm itself and from `open`, called by the task that polls it next.
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[derive(Debug)]
pub(crate) enum Out {
    Opened { we_opened: bool, stream: Stream },
    Failed { error: String, unsupported: bool },
}

/// The streams of one connection.
pub(crate) struct Streams {
    name: StreamProtocol,
    wanted: usize,
    out: VecDeque<Out>,
}

impl Streams {
    fn protocol(&self) -> SubstreamProtocol<ReadyUpgrade<StreamProtocol>> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.name.clone()), ())
    }
}

impl ConnectionHandler for Streams {
    type FromBehaviour = Open;
    type ToBehaviour = Out;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        self.protocol()
    }
    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if let Some(event) = self.out.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if self.wanted > 0 {
            self.wanted -= 1;
            let protocol = self.protocol();
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }
    fn on_behaviour_event(&mut self, _: Open) {
        self.wanted += 1;
    }
    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                self.out.push_back(Out::Opened { we_opened: false, stream });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream, ..
            }) => {
                self.out.push_back(Out::Opened { we_opened: true, stream });
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                let unsupported = matches!(error, StreamUpgradeError::NegotiationFailed);
                self.out.push_back(Out::Failed { error: error.to_string(), unsupported });
            }
            // The other events tell of addresses and protocols, which nobody here decides by.
            _ => {}
        }
    }
}
