//! Hints as addresses, and back.

use capstan_model::peer::Hint;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// Addresses taken from one peer's own account.
const LEARNED_MAX: usize = 8;

/// The direct addresses among the hints for a peer; malformed ones and those of other peers are skipped.
pub(crate) fn direct(peer: PeerId, hints: &[Hint]) -> Vec<Multiaddr> {
    let parse = |hint: &Hint| match hint.parse::<Multiaddr>() {
        Ok(address) => Some(address),
        Err(error) => {
            tracing::debug!(%hint, %error, "malformed hint skipped");
            None
        }
    };
    let ours = |address: &Multiaddr| match address.iter().last() {
        Some(Protocol::P2p(named)) => named == peer,
        Some(_) => !address.iter().any(|part| matches!(part, Protocol::P2pCircuit)),
        None => false,
    };
    hints.iter().filter_map(parse).filter(ours).collect()
}

/// What a peer says of itself, as hints.
pub(crate) fn learned(peer: PeerId, addresses: Vec<Multiaddr>) -> Vec<Hint> {
    let tcp =
        |address: &Multiaddr| address.iter().any(|part| matches!(part, Protocol::Tcp(port) if port != 0));
    addresses.into_iter().filter(tcp).filter_map(|address| text(peer, address)).take(LEARNED_MAX).collect()
}

/// Our own addresses, the nearest first.
pub(crate) fn own(peer: PeerId, addresses: &[Multiaddr]) -> Vec<Hint> {
    let mut sorted = addresses.to_vec();
    sorted.sort_by_key(|address| (!is_loopback(address), address.to_string()));
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

fn text(peer: PeerId, address: Multiaddr) -> Option<Hint> {
    address.with_p2p(peer).ok().map(|address| address.to_string().into())
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}
