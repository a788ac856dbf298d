//! The relays a kernel knows: those it was given and those it learned, which go into the URLs it issues (03 A.6).
//!
//! Pure rules over a list. Whoever keeps the list stores what comes out.

use capstan_model::peer::{Hint, Millis, PeerId};
use serde_json::Value;
use std::cmp::Reverse;

/// One relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownRelay {
    /// Its address, ending in `/p2p/…`.
    pub address: Hint,
    /// When it was last named to us; 0: unknown.
    pub last_seen: Millis,
    /// The operator gave it at the last start that gave any.
    pub bootstrap: bool,
}

/// What a rule made of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The list, in the order in which relays became known.
    pub relays: Vec<KnownRelay>,
    /// How many had to go because there were too many.
    pub evicted: usize,
    /// There are more given relays than the list may hold.
    pub cut: bool,
}

/// The list after a start with these relays given; none given: as it was.
///
/// Every given one is known and marked from now on; one that was given before and is not any more stays, unmarked.
pub fn started(mut relays: Vec<KnownRelay>, given: &[Hint], now: Millis, cap: usize) -> Pool {
    if given.is_empty() {
        return Pool { relays, evicted: 0, cut: false };
    }
    for known in &mut relays {
        known.bootstrap = false;
    }
    for address in given {
        let known = see(&mut relays, address, now);
        known.bootstrap = true;
    }
    enforce(relays, cap)
}

/// The list after these relays were named to us.
pub fn learned(mut relays: Vec<KnownRelay>, named: &[Hint], now: Millis, cap: usize) -> Pool {
    for address in named {
        see(&mut relays, address, now);
    }
    enforce(relays, cap)
}

/// The relay with this address, which is as good as new.
fn see<'r>(relays: &'r mut Vec<KnownRelay>, address: &Hint, now: Millis) -> &'r mut KnownRelay {
    let at = relays.iter().position(|known| known.address == *address).unwrap_or_else(|| {
        relays.push(KnownRelay { address: address.clone(), last_seen: now, bootstrap: false });
        relays.len() - 1
    });
    let known = &mut relays[at];
    known.last_seen = now;
    known
}

/// Keeps the best `cap`: given ones before learned ones, the newest first.
fn enforce(relays: Vec<KnownRelay>, cap: usize) -> Pool {
    let given = relays.iter().filter(|known| known.bootstrap).count();
    let mut order: Vec<usize> = (0..relays.len()).collect();
    order.sort_by_key(|at| relays.get(*at).map(rank));
    order.truncate(cap);
    let evicted = relays.len() - order.len();
    let relays = relays.into_iter().enumerate().filter(|(at, _)| order.contains(at));
    Pool { relays: relays.map(|(_, known)| known).collect(), evicted, cut: given > cap }
}

fn rank(known: &KnownRelay) -> (bool, Reverse<Millis>) {
    (!known.bootstrap, Reverse(known.last_seen))
}

/// What goes into a URL: our own direct addresses, most useful first, but never so many that no relay has a place, then
/// relays, those that were given first and the newest before the others; at most `max` in all.
pub fn url_hints(direct: &[Hint], relays: &[KnownRelay], max: usize) -> Vec<Hint> {
    let mut sorted: Vec<&KnownRelay> = relays.iter().collect();
    sorted.sort_by_key(|known| rank(known));
    let direct = direct.iter().take(max.saturating_sub(sorted.len().min(1)));
    let relays = sorted.into_iter().map(|known| &known.address);
    direct.chain(relays).take(max).cloned().collect()
}

/// The relay that a hint for `peer` names, if it names one: whoever it ends at is another, or the circuit is spelt out
/// (03 A-34).
pub fn relay_of(hint: &Hint, peer: &PeerId) -> Option<Hint> {
    let relay: Hint = match hint.split_once("/p2p-circuit") {
        Some((relay, _)) => relay.into(),
        None => hint.clone(),
    };
    let (place, name) = relay.rsplit_once("/p2p/")?;
    let is_another = !name.is_empty() && !name.contains('/') && name != peer.as_str();
    (is_another && place.starts_with('/')).then_some(relay)
}

/// Whether the address leads through a relay.
pub fn is_relayed(address: &Hint) -> bool {
    address.contains("/p2p-circuit")
}

/// A list of relays, as text, that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored list of relays may be corrupted: {0}")]
pub struct BadList(String);

/// Reads a list in the reference's form: JSON, an array of entries or, older, of addresses alone. The second value says
/// that it was the older form.
pub fn read_list(text: &str) -> Result<(Vec<KnownRelay>, bool), BadList> {
    let bad = |what: String| BadList(what);
    let value: Value = serde_json::from_str(text).map_err(|error| bad(format!("it is no JSON: {error}")))?;
    let Value::Array(entries) = value else { return Err(bad("it is no array".to_owned())) };
    let older = !entries.is_empty() && entries.iter().all(Value::is_string);
    let mut relays: Vec<KnownRelay> = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let known = match entry.as_str().filter(|_| older) {
            Some(address) => {
                Some(KnownRelay { address: address.into(), last_seen: Millis(0), bootstrap: false })
            }
            None => read_entry(entry),
        };
        let known = known.filter(|known| !known.address.is_empty());
        let known = known.ok_or_else(|| bad(format!("entry {at} is no relay")))?;
        if relays.iter().all(|other| other.address != known.address) {
            relays.push(known);
        }
    }
    Ok((relays, older))
}

fn read_entry(entry: &Value) -> Option<KnownRelay> {
    let last_seen = entry.get("lastSeen")?.as_f64().filter(|time| *time >= 0.0)?;
    Some(KnownRelay {
        address: entry.get("addr")?.as_str()?.into(),
        last_seen: Millis(last_seen as u64),
        bootstrap: entry.get("isBootstrap")?.as_bool()?,
    })
}

/// How much of the list is kept and told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    url_hints: usize,
    known: usize,
}

/// A limit is no positive integer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("maxUrlRelayHints ({url_hints}) and maxKnownRelays ({known}) must be positive integers")]
pub struct BadLimits {
    url_hints: String,
    known: String,
}

impl RelayLimits {
    /// Three hints in a URL, twenty relays.
    pub const DEFAULT: RelayLimits = RelayLimits { url_hints: 3, known: 20 };

    /// Takes two numbers as people write them.
    pub fn new(url_hints: f64, known: f64) -> Result<Self, BadLimits> {
        // What is positive, whole and finite fits; a limit beyond all numbers is none.
        let integer = |limit: f64| (limit >= 1.0 && limit.fract() == 0.0).then_some(limit as usize);
        match (integer(url_hints), integer(known)) {
            (Some(url_hints), Some(known)) => Ok(RelayLimits { url_hints, known }),
            _ => Err(BadLimits { url_hints: url_hints.to_string(), known: known.to_string() }),
        }
    }

    /// Hints in a URL.
    pub fn url_hints(self) -> usize {
        self.url_hints
    }

    /// Relays kept.
    pub fn known(self) -> usize {
        self.known
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn hints(texts: &[&str]) -> Vec<Hint> {
        texts.iter().map(|text| (*text).into()).collect()
    }

    fn known(address: &str, last_seen: u64, bootstrap: bool) -> KnownRelay {
        KnownRelay { address: address.into(), last_seen: Millis(last_seen), bootstrap }
    }

    fn addresses(pool: &Pool) -> Vec<&str> {
        pool.relays.iter().map(|known| &*known.address).collect()
    }

    #[test]
    fn r15_urls_name_given_relays_first_then_the_newest_and_no_more_than_allowed() {
        let pool = [
            known("/old", 1, false),
            known("/given", 2, true),
            known("/new", 9, false),
            known("/also", 2, true),
        ];
        assert_eq!(url_hints(&[], &pool, 3), hints(&["/given", "/also", "/new"]));
        assert_eq!(url_hints(&[], &pool, 1), hints(&["/given"]));
        assert_eq!(url_hints(&[], &pool, 9), hints(&["/given", "/also", "/new", "/old"]));
        assert_eq!(url_hints(&hints(&["/a", "/b", "/c", "/d"]), &pool, 3), hints(&["/a", "/b", "/given"]));
        assert_eq!(url_hints(&hints(&["/a"]), &pool, 3), hints(&["/a", "/given", "/also"]));
    }

    #[test]
    fn r16_with_exactly_as_many_all_are_named_and_without_relays_addresses_have_the_places() {
        let pool = [known("/1", 3, false), known("/2", 2, false), known("/3", 1, false)];
        assert_eq!(url_hints(&[], &pool, 3), hints(&["/1", "/2", "/3"]));
        assert_eq!(url_hints(&hints(&["/a", "/b", "/c", "/d"]), &[], 3), hints(&["/a", "/b", "/c"]));
        assert!(url_hints(&[], &[], 3).is_empty());
    }

    #[test]
    fn r17_a_relay_that_is_named_again_is_newer_and_not_there_twice() {
        let pool = learned(vec![known("/a", 1, true)], &hints(&["/b", "/a", "/b"]), Millis(5), 20);
        assert_eq!(pool.relays, [known("/a", 5, true), known("/b", 5, false)]);
        let again = learned(pool.relays.clone(), &[], Millis(9), 20);
        assert_eq!((again.relays, again.evicted), (pool.relays, 0));
    }

    #[test]
    fn r18_a_full_list_loses_the_oldest_that_was_learned() {
        let full = vec![known("/given", 0, true), known("/old", 1, false), known("/newer", 2, false)];
        let pool = learned(full, &hints(&["/newest"]), Millis(3), 3);
        assert_eq!(
            (addresses(&pool), pool.evicted, pool.cut),
            (vec!["/given", "/newer", "/newest"], 1, false)
        );
    }

    #[test]
    fn r19_more_given_relays_than_the_list_holds_are_cut() {
        let pool = started(vec![known("/old", 1, false)], &hints(&["/1", "/2", "/3"]), Millis(3), 2);
        assert_eq!((addresses(&pool), pool.evicted, pool.cut), (vec!["/1", "/2"], 2, true));
    }

    #[test]
    fn r20_a_relay_that_is_not_given_any_more_stays_without_the_mark() {
        let before = vec![known("/a", 1, true), known("/b", 1, true), known("/c", 1, false)];
        let pool = started(before, &hints(&["/b", "/d"]), Millis(3), 20);
        let expected =
            [known("/a", 1, false), known("/b", 3, true), known("/c", 1, false), known("/d", 3, true)];
        assert_eq!((pool.relays.as_slice(), pool.cut), (&expected[..], false));
    }

    #[test]
    fn r21_limits_are_positive_integers() {
        for bad in [0.0, -1.0, 1.5, f64::NAN, f64::INFINITY] {
            let texts = [RelayLimits::new(bad, 20.0), RelayLimits::new(3.0, bad)]
                .map(|limits| limits.unwrap_err().to_string());
            let says = |url: f64, known: f64| {
                format!("maxUrlRelayHints ({url}) and maxKnownRelays ({known}) must be positive integers")
            };
            assert_eq!(texts, [says(bad, 20.0), says(3.0, bad)]);
        }
        let limits = RelayLimits::new(1.0, 7.0).unwrap();
        assert_eq!((limits.url_hints(), limits.known()), (1, 7));
        assert_eq!(RelayLimits::new(3.0, 20.0), Ok(RelayLimits::DEFAULT));
    }

    #[test]
    fn r22_a_list_of_addresses_alone_is_read() {
        let older = vec![known("/a", 0, false), known("/b", 0, false)];
        assert_eq!(read_list(r#"["/a","/b","/a"]"#), Ok((older, true)));
        let list = r#"[{"addr":"/a","lastSeen":7,"isBootstrap":true},{"addr":"/b","lastSeen":0,"isBootstrap":false}]"#;
        assert_eq!(read_list(list), Ok((vec![known("/a", 7, true), known("/b", 0, false)], false)));
        assert_eq!(read_list("[]"), Ok((vec![], false)));
    }

    #[test]
    fn r23_a_corrupt_list_is_an_error_that_says_where() {
        for (text, what) in [
            ("{", "it is no JSON: EOF while parsing an object at line 1 column 1"),
            (r#"{"addr":"/a"}"#, "it is no array"),
            (r#"["/a",{"addr":"/a","lastSeen":7,"isBootstrap":true}]"#, "entry 0 is no relay"),
            (r#"[{"addr":"/a","lastSeen":7,"isBootstrap":true},"/a"]"#, "entry 1 is no relay"),
            (r#"[""]"#, "entry 0 is no relay"),
            (r#"[{"addr":"","lastSeen":7,"isBootstrap":true}]"#, "entry 0 is no relay"),
            (r#"[{"addr":"/a","lastSeen":-1,"isBootstrap":true}]"#, "entry 0 is no relay"),
            (r#"[{"addr":"/a","lastSeen":"7","isBootstrap":true}]"#, "entry 0 is no relay"),
            (r#"[{"addr":"/a","lastSeen":7,"isBootstrap":1}]"#, "entry 0 is no relay"),
        ] {
            let told = read_list(text).unwrap_err().to_string();
            assert_eq!(told, format!("the stored list of relays may be corrupted: {what}"));
        }
    }

    #[test]
    fn r25_a_hint_is_an_address_of_the_peer_or_names_a_relay() {
        let peer = PeerId::new("12D3Peer");
        let relay = |hint: &str| relay_of(&hint.into(), &peer).map(|relay| relay.to_string());
        assert_eq!(relay("/ip4/1.2.3.4/tcp/9/p2p/12D3Peer"), None);
        let plain = "/ip4/1.2.3.4/tcp/9/p2p/12D3Relay";
        assert_eq!(relay(plain).as_deref(), Some(plain));
        assert_eq!(relay(&format!("{plain}/p2p-circuit/p2p/12D3Peer")).as_deref(), Some(plain));
        assert_eq!(relay(&format!("{plain}/p2p-circuit")).as_deref(), Some(plain));
        for nonsense in
            ["", "/p2p/", "/p2p/12D3Relay", "x/p2p/12D3Relay", "/ip4/1.2.3.4/tcp/9", "/p2p-circuit"]
        {
            assert_eq!(relay(nonsense), None, "{nonsense}");
        }
        assert_eq!(relay("/ip4/1.2.3.4/tcp/9/p2p/12D3Relay/tcp/1"), None);
    }
}
