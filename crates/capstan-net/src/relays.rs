//! The relays through which we can be reached, and when each is asked for that again (03 B-47).

use crate::address;
use crate::config::NetError;
use crate::gate::Gate;
use capstan_model::peer::{Hint, Millis};
use capstan_wire::link::{LinkOptions, delay};
use libp2p::Multiaddr;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;

/// Refusals in a row after which a relay is left alone.
const ATTEMPTS_MAX: u32 = 10;
/// Relays at once, given and learned.
const RELAYS_MAX: usize = 64;
/// The back-off between attempts.
const RETRY: LinkOptions = LinkOptions {
    retry_base: Millis(5_000),
    retry_cap: Millis(60_000),
    max_retry_attempts: ATTEMPTS_MAX,
    ..LinkOptions::DEFAULT
};

/// How it stands with one relay.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// To be asked at this time.
    Due(Millis),
    /// Asked, or serving.
    Listening(ListenerId),
    /// Refused too often.
    GivenUp,
}

#[derive(Debug)]
struct Relay {
    address: Multiaddr,
    standing: Standing,
    refusals: u32,
}

/// All relays of a node.
#[derive(Debug)]
pub(crate) struct Relays {
    all: Vec<Relay>,
}

impl Relays {
    /// Takes the configured addresses; each must say who the relay is.
    pub(crate) fn new(configured: &[String]) -> Result<Self, NetError> {
        let mut all: Vec<Relay> = Vec::new();
        for text in configured {
            let malformed = |reason: String| NetError::Relay { address: text.clone(), reason };
            let address: Multiaddr = text.parse().map_err(|error| malformed(format!("{error}")))?;
            if !address::is_relay(&address) {
                return Err(malformed("it must end in /p2p/ and the relay's peer id".to_owned()));
            }
            if all.iter().all(|known| known.address != address) {
                all.push(Relay { address, standing: Standing::Due(Millis(0)), refusals: 0 });
            }
        }
        Ok(Relays { all })
    }

    /// Adds relays that became known later; malformed ones, and those that may not be dialled, are skipped.
    pub(crate) fn learn(&mut self, known: &[Hint], gate: &Gate, now: Millis) {
        for text in known {
            let address = text.parse::<Multiaddr>().ok().filter(address::is_relay);
            let Some(address) = address else {
                tracing::warn!(relay = %text, "a relay's address is malformed, or does not say who it is");
                continue;
            };
            if !gate.admits(&address) {
                tracing::debug!(relay = %text, "a relay may not be dialled by WebSocket without TLS");
                continue;
            }
            let fresh = self.all.iter().all(|known| known.address != address);
            if fresh && self.all.len() < RELAYS_MAX {
                self.all.push(Relay { address, standing: Standing::Due(now), refusals: 0 });
            }
        }
    }

    /// The relays' own addresses, as configured.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Multiaddr> {
        self.all.iter().map(|relay| relay.address.clone())
    }

    /// When the next relay is to be asked.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        let due = self.all.iter().filter_map(|relay| match relay.standing {
            Standing::Due(at) => Some(at),
            Standing::Listening(_) | Standing::GivenUp => None,
        });
        due.min()
    }

    /// The addresses to listen on now.
    pub(crate) fn due(&self, now: Millis) -> Vec<Multiaddr> {
        let due = self.all.iter().filter(|relay| matches!(relay.standing, Standing::Due(at) if at <= now));
        due.map(|relay| relay.address.clone().with(Protocol::P2pCircuit)).collect()
    }

    /// Notes what came of listening on `address`, one of [`Relays::due`].
    pub(crate) fn asked(
        &mut self,
        address: &Multiaddr,
        listener: Option<ListenerId>,
        now: Millis,
        chance: u64,
    ) {
        let asked = |relay: &&mut Relay| relay.address.clone().with(Protocol::P2pCircuit) == *address;
        let Some(relay) = self.all.iter_mut().find(asked) else { return };
        match listener {
            Some(listener) => relay.standing = Standing::Listening(listener),
            None => relay.refused(now, chance),
        }
    }

    /// Notes that a listener has an address: the relay serves us.
    pub(crate) fn serves(&mut self, listener: ListenerId) {
        let serving = |relay: &&mut Relay| relay.standing == Standing::Listening(listener);
        if let Some(relay) = self.all.iter_mut().find(serving) {
            relay.refusals = 0;
        }
    }

    /// Notes the end of a listener; returns the relay behind it, if there was one.
    pub(crate) fn lost(&mut self, listener: ListenerId, now: Millis, chance: u64) -> Option<Multiaddr> {
        let relay = self.all.iter_mut().find(|relay| relay.standing == Standing::Listening(listener))?;
        relay.refused(now, chance);
        Some(relay.address.clone())
    }
}

impl Relay {
    fn refused(&mut self, now: Millis, chance: u64) {
        self.refusals = self.refusals.saturating_add(1);
        self.standing = if self.refusals >= ATTEMPTS_MAX {
            tracing::warn!(relay = %self.address, "given up after {ATTEMPTS_MAX} attempts");
            Standing::GivenUp
        } else {
            Standing::Due(now.after(delay(&RETRY, self.refusals, chance)))
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    const RELAY: &str = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWJBDqsyHQF2MWiCdU4kdqx4zTsSTLRdShg7Ui6CRWB4uc";

    #[test]
    fn r71_a_relay_is_asked_again_with_back_off_and_given_up_after_ten_refusals() {
        let mut relays = Relays::new(&[RELAY.to_owned(), RELAY.to_owned()]).unwrap();
        let mut now = Millis(0);
        for attempt in 1..=ATTEMPTS_MAX {
            now = relays.next_deadline().unwrap();
            let due = relays.due(now);
            assert_eq!(due.len(), 1, "{attempt}");
            let listener = ListenerId::next();
            relays.asked(&due[0], Some(listener), now, 1 << 63);
            assert!(relays.next_deadline().is_none());
            assert!(relays.lost(listener, now, 1 << 63).is_some());
            assert!(relays.lost(listener, now, 1 << 63).is_none(), "one pending timer each");
        }
        assert!(relays.next_deadline().is_none());
        assert!(now > Millis(60_000), "{now:?}");
    }

    #[test]
    fn r71_service_forgives_earlier_refusals() {
        let mut relays = Relays::new(&[RELAY.to_owned()]).unwrap();
        for _ in 0..3 * ATTEMPTS_MAX {
            let now = relays.next_deadline().unwrap();
            let listener = ListenerId::next();
            relays.asked(&relays.due(now)[0].clone(), Some(listener), now, 7);
            relays.serves(listener);
            relays.lost(listener, now, 7);
        }
        assert!(relays.next_deadline().is_some());
    }

    #[test]
    fn relays_learned_later_are_asked_once_each_and_malformed_ones_not() {
        let mut relays = Relays::new(&[RELAY.to_owned()]).unwrap();
        let other = RELAY.replace("tcp/9", "tcp/10");
        let plain = RELAY.replace("127.0.0.1/tcp/9", "203.0.113.9/tcp/9/ws");
        let known = [RELAY, &other, "/ip4/127.0.0.1/tcp/9", &plain].map(Hint::from);
        relays.learn(&known, &Gate::new(&[], std::iter::empty()), Millis(7));
        assert_eq!(
            relays.addresses().map(|address| address.to_string()).collect::<Vec<_>>(),
            [RELAY, &other]
        );
        assert_eq!(relays.due(Millis(7)).len(), 2);
    }

    #[test]
    fn relays_without_a_name_are_refused() {
        for bad in
            ["/ip4/127.0.0.1/tcp/9", "nonsense", "/p2p/12D3KooWJBDqsyHQF2MWiCdU4kdqx4zTsSTLRdShg7Ui6CRWB4uc"]
        {
            assert!(Relays::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
