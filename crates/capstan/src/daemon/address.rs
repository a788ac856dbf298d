//! The ports a daemon had last time. It takes them again where it may choose, so that its peers and the URLs it has
//! issued still find it after a restart.

use crate::home::Home;
use std::fs;
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// More addresses than anyone listens on.
const ADDRESSES_MAX: usize = 32;

fn file(home: &Home) -> PathBuf {
    home.dir().join("listen")
}

/// Notes the addresses that were bound. What cannot be noted is only not found again.
pub(super) fn remember(home: &Home, bound: &[String]) {
    let lines: Vec<&str> = bound.iter().filter_map(|address| address.split("/p2p/").next()).collect();
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file(home))
        .and_then(|mut file| io::Write::write_all(&mut file, lines.join("\n").as_bytes()));
    if let Err(error) = written {
        tracing::warn!(%error, "the listen addresses could not be noted");
    }
}

/// Forgets the addresses.
pub(super) fn forget(home: &Home) {
    let _ = fs::remove_file(file(home));
}

/// How a listen address names a port, before it and after it.
const PORTS: [(&str, &str); 2] = [("/tcp/", ""), ("/udp/", "/quic-v1")];

/// Puts the port of last time wherever a free port was to be chosen, if it is still free.
pub(super) fn recall(home: &Home, listen: &mut [String]) {
    let Ok(noted) = fs::read_to_string(file(home)) else { return };
    let mut noted: Vec<&str> = noted.lines().take(ADDRESSES_MAX).collect();
    for address in listen {
        let any = |(before, after): &(&'static str, &'static str)| {
            let place = address.strip_suffix(after)?.strip_suffix('0')?.strip_suffix(before)?;
            Some((ip(place)?, *before, *after))
        };
        let Some((place, before, after)) = PORTS.iter().find_map(any) else { continue };
        let same = |noted: &&str| {
            let noted = noted.strip_suffix(after).and_then(|noted| noted.rsplit_once(before));
            noted.is_some_and(|(at, port)| usable(place, before, at, port))
        };
        if let Some(found) = noted.iter().position(same) {
            *address = noted.swap_remove(found).to_owned();
        }
    }
}

/// The IP that a multiaddr such as `/ip4/127.0.0.1` names.
fn ip(address: &str) -> Option<IpAddr> {
    let text = address.strip_prefix("/ip4/").or_else(|| address.strip_prefix("/ip6/"))?;
    text.parse().ok()
}

/// Whether a noted address is at this place and can be bound.
fn usable(place: IpAddr, protocol: &str, at: &str, port: &str) -> bool {
    let Ok(port) = port.parse::<u16>() else { return false };
    let is_free = match protocol {
        "/udp/" => UdpSocket::bind((place, port)).is_ok(),
        _ => TcpListener::bind((place, port)).is_ok(),
    };
    ip(at) == Some(place) && is_free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_taken_again_unless_somebody_else_has_them() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let home = Home::new(dir.path())?;
        let any = || vec!["/ip4/127.0.0.1/tcp/0".to_owned(), "/ip4/127.0.0.1/tcp/0".to_owned()];
        let mut listen = any();
        recall(&home, &mut listen);
        assert_eq!(listen, any());

        let taken = TcpListener::bind(("127.0.0.1", 0))?;
        let taken = (taken.local_addr()?.port(), taken);
        let free = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let at = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}");
        remember(&home, &[format!("{}/p2p/12D3", at(taken.0)), at(free), "rubbish".to_owned()]);
        recall(&home, &mut listen);
        assert_eq!(listen, [at(free), "/ip4/127.0.0.1/tcp/0".to_owned()]);
        let mut elsewhere = ["/ip4/127.0.0.2/tcp/0".to_owned(), "/ip4/127.0.0.1/tcp/7".to_owned()];
        let before = elsewhere.clone();
        recall(&home, &mut elsewhere);
        assert_eq!(elsewhere, before);
        let quic = || ["/ip4/127.0.0.1/udp/0/quic-v1".to_owned()];
        let (mut listen, free) = (quic(), UdpSocket::bind(("127.0.0.1", 0))?.local_addr()?.port());
        let last_time = format!("/ip4/127.0.0.1/udp/{free}/quic-v1");
        remember(&home, &[at(free), format!("{last_time}/p2p/12D3")]);
        recall(&home, &mut listen);
        assert_eq!(listen, [last_time]);
        forget(&home);
        let mut listen = any();
        recall(&home, &mut listen);
        assert_eq!(listen, any());
        Ok(())
    }
}
