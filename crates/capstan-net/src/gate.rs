//! What may be dialled (03 B-5): everything but unencrypted WebSocket to hosts that are neither near nor allowed.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

/// Decides by address alone; nothing is resolved.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Hosts that may be dialled by plain WebSocket wherever they are, in lower case.
    hosts: BTreeSet<String>,
}

impl Gate {
    /// Lets through what the operator allows, by a list of hosts or by giving relays.
    pub(crate) fn new(allowed: &[String], relays: impl Iterator<Item = Multiaddr>) -> Self {
        let allowed = allowed.iter().map(|host| host.to_ascii_lowercase());
        let relays = relays.filter(is_plain).filter_map(|relay| host(&relay));
        Gate { hosts: allowed.chain(relays).collect() }
    }

    /// Whether the address may be dialled.
    pub(crate) fn admits(&self, address: &Multiaddr) -> bool {
        !is_plain(address) || is_near(address) || host(address).is_some_and(|host| self.hosts.contains(&host))
    }
}

/// Whether its first hop is WebSocket without TLS.
fn is_plain(address: &Multiaddr) -> bool {
    let hop = || address.iter().take_while(|part| !matches!(part, Protocol::P2pCircuit));
    let secured = hop().any(|part| matches!(part, Protocol::Tls | Protocol::Wss(_)));
    hop().any(|part| matches!(part, Protocol::Ws(_))) && !secured
}

/// The host as written.
fn host(address: &Multiaddr) -> Option<String> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.to_string()),
        Protocol::Ip6(ip) => Some(ip.to_string()),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name) => {
            Some(name.to_ascii_lowercase())
        }
        _ => None,
    }
}

/// Whether the host is this machine or in a private network. Of names, only one is.
fn is_near(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => is_near_ip(ip.into()),
        Some(Protocol::Ip6(ip)) => is_near_ip(ip.to_canonical()),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => {
            name.eq_ignore_ascii_case("localhost")
        }
        _ => false,
    }
}

fn is_near_ip(ip: IpAddr) -> bool {
    let in_range = |ip: Ipv6Addr| ip.is_unique_local() || ip.is_unicast_link_local();
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || in_range(ip),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn r70_what_may_be_dialled() {
        let relay =
            "/dns4/relay.example/tcp/9001/ws/p2p/12D3KooWJBDqsyHQF2MWiCdU4kdqx4zTsSTLRdShg7Ui6CRWB4uc";
        let safe = "/dns4/safe.example/tcp/443/wss/p2p/12D3KooWJBDqsyHQF2MWiCdU4kdqx4zTsSTLRdShg7Ui6CRWB4uc";
        let given = [relay, safe].map(|text| text.parse().unwrap());
        let gate = Gate::new(&["Allowed.example".to_owned(), "203.0.113.7".to_owned()], given.into_iter());
        for (address, admitted) in [
            ("/ip4/127.0.0.1/tcp/1/ws", true),
            ("/ip4/127.9.9.9/tcp/1/ws", true),
            ("/ip4/10.1.2.3/tcp/1/ws", true),
            ("/ip4/172.16.0.1/tcp/1/ws", true),
            ("/ip4/172.31.255.255/tcp/1/ws", true),
            ("/ip4/172.15.0.1/tcp/1/ws", false),
            ("/ip4/172.32.0.1/tcp/1/ws", false),
            ("/ip4/192.168.7.7/tcp/1/ws", true),
            ("/ip4/192.169.7.7/tcp/1/ws", false),
            ("/ip4/203.0.113.9/tcp/1/ws", false),
            ("/ip4/203.0.113.7/tcp/1/ws", true),
            ("/ip6/::1/tcp/1/ws", true),
            ("/ip6/fc00::1/tcp/1/ws", true),
            ("/ip6/fdca::fe/tcp/1/ws", true),
            ("/ip6/fe80::1/tcp/1/ws", true),
            ("/ip6/2001:db8::1/tcp/1/ws", false),
            ("/ip6/::ffff:10.0.0.1/tcp/1/ws", true),
            ("/ip6/::ffff:203.0.113.9/tcp/1/ws", false),
            ("/dns4/localhost/tcp/1/ws", true),
            ("/dns4/LocalHost/tcp/1/ws", true),
            ("/dns4/localhost.example/tcp/1/ws", false),
            ("/dns4/fdcafe/tcp/1/ws", false),
            ("/dns4/fcevil.example/tcp/1/ws", false),
            ("/dns6/fe80.example/tcp/1/ws", false),
            ("/dns4/allowed.example/tcp/1/ws", true),
            ("/dns4/ALLOWED.example/tcp/1/ws", true),
            ("/dns4/relay.example/tcp/7/ws", true),
            ("/dns4/safe.example/tcp/7/ws", false),
            ("/dns4/any.example/tcp/443/wss", true),
            ("/dns4/any.example/tcp/443/tls/ws", true),
            ("/dns4/any.example/tcp/1", true),
            ("/ip4/203.0.113.9/tcp/1", true),
            ("/ip4/203.0.113.9/udp/1/quic-v1", true),
        ] {
            let parsed = address.parse().unwrap();
            assert_eq!(gate.admits(&parsed), admitted, "{address}");
        }
        let through = format!("{}/p2p-circuit", relay.replace("relay.example", "other.example"));
        assert!(!gate.admits(&through.parse().unwrap()), "a relay is dialled as well");
        assert!(gate.admits(&format!("{relay}/p2p-circuit").parse().unwrap()));
    }
}
