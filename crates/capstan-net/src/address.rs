//! Hints as addresses, and back.

use capstan_model::peer::Hint;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// Addresses taken from one peer's own account.
const LEARNED_MAX: usize = 8;

/// The direct addresses among the hints for a peer; malformed ones, relayed ones and those of other peers are skipped.
pub(crate) fn direct(peer: PeerId, hints: &[Hint]) -> Vec<Multiaddr> {
    let parse = |hint: &Hint| match hint.parse::<Multiaddr>() {
        Ok(address) => Some(address),
        Err(error) => {
            tracing::debug!(%hint, %error, "malformed hint skipped");
            None
        }
    };
    let ours = |address: &Multiaddr| match address.iter().last() {
        Some(Protocol::P2p(named)) if named != peer => false,
        Some(_) => !address.iter().any(|part| matches!(part, Protocol::P2pCircuit)),
        None => false,
    };
    hints.iter().filter_map(parse).filter(ours).collect()
}

/// How a peer can be reached through relays: those its hints name first, then our own (03 B-7).
///
/// A hint names a relay either with the circuit spelt out or, as the reference does, by the relay's address alone.
pub(crate) fn relayed(peer: PeerId, hints: &[Hint], own: impl Iterator<Item = Multiaddr>) -> Vec<Multiaddr> {
    let hinted = hints.iter().filter_map(|hint| hint.parse::<Multiaddr>().ok());
    let mut found = Vec::new();
    for relay in hinted.filter_map(|hint| relay_of(peer, hint)).chain(own) {
        let circuit = relay.with(Protocol::P2pCircuit).with(Protocol::P2p(peer));
        if !found.contains(&circuit) {
            found.push(circuit);
        }
    }
    found
}

/// The relay that a hint for `peer` names, if it names one.
fn relay_of(peer: PeerId, hint: Multiaddr) -> Option<Multiaddr> {
    let before: Multiaddr = hint.iter().take_while(|part| !matches!(part, Protocol::P2pCircuit)).collect();
    let spelt_out = before.len() < hint.len();
    let target = hint.iter().last();
    let ours = match target {
        Some(Protocol::P2p(named)) => spelt_out == (named == peer),
        _ => spelt_out,
    };
    (ours && is_relay(&before)).then_some(before)
}

/// Whether the address ends in the name of whoever is there, and leads somewhere.
pub(crate) fn is_relay(address: &Multiaddr) -> bool {
    address.iter().count() > 1 && matches!(address.iter().last(), Some(Protocol::P2p(_)))
}

/// What a peer says of itself, as hints.
pub(crate) fn learned(peer: PeerId, addresses: Vec<Multiaddr>) -> Vec<Hint> {
    let usable = |address: &Multiaddr| {
        address.iter().any(|part| matches!(part, Protocol::Tcp(port) | Protocol::Udp(port) if port != 0))
    };
    addresses.into_iter().filter(usable).filter_map(|address| text(peer, address)).take(LEARNED_MAX).collect()
}

/// Our own addresses: the nearest first, relayed ones last.
pub(crate) fn own(peer: PeerId, addresses: &[Multiaddr]) -> Vec<Hint> {
    let mut sorted = addresses.to_vec();
    sorted.sort_by_key(|address| (is_relayed(address), !is_loopback(address), address.to_string()));
    sorted.into_iter().filter_map(|address| text(peer, address)).collect()
}

/// The socket a plain TCP address names.
pub(crate) fn socket(address: &Multiaddr) -> Option<std::net::SocketAddr> {
    let mut parts = address.iter();
    match (parts.next()?, parts.next()?) {
        (Protocol::Ip4(ip), Protocol::Tcp(port)) => Some((ip, port).into()),
        (Protocol::Ip6(ip), Protocol::Tcp(port)) => Some((ip, port).into()),
        _ => None,
    }
}

/// The socket a QUIC address names.
pub(crate) fn quic(address: &Multiaddr) -> Option<std::net::SocketAddr> {
    let mut parts = address.iter();
    match (parts.next()?, parts.next()?, parts.next()?) {
        (Protocol::Ip4(ip), Protocol::Udp(port), Protocol::QuicV1) => Some((ip, port).into()),
        (Protocol::Ip6(ip), Protocol::Udp(port), Protocol::QuicV1) => Some((ip, port).into()),
        _ => None,
    }
}

fn text(peer: PeerId, address: Multiaddr) -> Option<Hint> {
    address.with_p2p(peer).ok().map(|address| address.to_string().into())
}

/// Whether it is a plain TCP address, with nothing on top.
pub(crate) fn is_tcp(address: &Multiaddr) -> bool {
    let bare = |part: &Protocol<'_>| matches!(part, Protocol::P2p(_));
    socket(address).is_some() && address.iter().skip(2).all(|part| bare(&part))
}

fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::P2pCircuit))
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}
