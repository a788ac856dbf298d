//! Who this kernel is, and which life of it this is (03 A-1… …A-14): three rows of the store.

use crate::config::SeedSource;
use crate::error::HostError;
use capstan_model::peer::{Incarnation, PeerId};
use capstan_store::schema::{ChangeSet, Tables};
use capstan_wire::identity::{KeySeed, mnemonic_from_entropy};
use std::sync::Arc;

const SEED: &str = "keySeed";
const PEER: &str = "peerId";
const LIFE: &str = "incarnation";
/// The words the seed was made from, until somebody has asked for them; none if it was not made from words.
const PHRASE: &str = "recoveryPhrase";
const RESTORED: &str = "restored";

/// The stored identity, read or just made.
pub(crate) struct Identity {
    pub(crate) seed: KeySeed,
    pub(crate) peer: PeerId,
    pub(crate) life: Incarnation,
}

impl Identity {
    /// The seed as a network node takes it.
    pub(crate) fn seed_bytes(&self) -> Result<[u8; 32], HostError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(self.seed.to_hex(), &mut bytes).map_err(|error| refused(&error.to_string()))?;
        Ok(bytes)
    }
}

/// What chance gives a kernel that has no identity yet.
pub(crate) struct Fresh {
    pub(crate) entropy: [u8; 16],
    pub(crate) life: Incarnation,
}

/// Reads the identity, and says which rows must be written for it to be complete.
///
/// A stored identity is never replaced: a given seed is then ignored, a given mnemonic refused.
pub(crate) fn establish(
    tables: &Tables,
    source: Option<&SeedSource>,
    fresh: Fresh,
) -> Result<(Identity, ChangeSet), HostError> {
    let mut changes = ChangeSet::default();
    let (seed, peer) = match (meta(tables, PEER), source) {
        (Some(_), Some(SeedSource::Mnemonic(_))) => return Err(refused(MNEMONIC_REFUSED)),
        (Some(peer), _) => {
            let seed = meta(tables, SEED).ok_or_else(|| refused("no record matching key 'keySeed'"))?;
            let seed = KeySeed::from_hex(&seed).map_err(|error| refused(&error.to_string()))?;
            if seed.peer_id().as_str() != &*peer {
                return Err(refused("the stored key seed is not that of the stored peer id"));
            }
            (seed, PeerId::new(peer))
        }
        (None, source) => {
            let (seed, words) = made_from(source, &fresh.entropy)?;
            let peer = seed.peer_id();
            changes.meta.insert(PHRASE.into(), words.map(Into::into));
            write(&mut changes, &seed, &peer);
            (seed, peer)
        }
    };
    let life = match meta(tables, LIFE) {
        Some(life) => Incarnation::new(life),
        None => {
            changes.meta.extend(begin(&fresh.life).meta);
            fresh.life
        }
    };
    Ok((Identity { seed, peer, life }, changes))
}

/// The seed of a new identity, with the words it was made from.
fn made_from(
    source: Option<&SeedSource>,
    entropy: &[u8; 16],
) -> Result<(KeySeed, Option<String>), HostError> {
    let words = match source {
        Some(SeedSource::Seed(seed)) => return Ok((seed.clone(), None)),
        Some(SeedSource::Mnemonic(words)) => words.split_whitespace().collect::<Vec<_>>().join(" "),
        None => mnemonic_from_entropy(entropy).map_err(|error| refused(&error.to_string()))?,
    };
    let seed = KeySeed::from_mnemonic(&words).map_err(|error| refused(&error.to_string()))?;
    Ok((seed, Some(words)))
}

/// The rows that carry a stored identity, without the life, into another store; `None` if there is none.
pub(crate) fn keep(tables: &Tables) -> Option<ChangeSet> {
    let mut changes = ChangeSet::default();
    for key in [SEED, PEER] {
        changes.meta.insert(key.into(), Some(meta(tables, key)?));
    }
    changes.meta.insert(PHRASE.into(), meta(tables, PHRASE));
    Some(changes)
}

/// The row that begins a life, whatever the store holds.
pub(crate) fn begin(life: &Incarnation) -> ChangeSet {
    let mut changes = ChangeSet::default();
    changes.meta.insert(LIFE.into(), Some(life.as_str().into()));
    changes
}

/// The rows that put a restored state under a life of its own. The kernel ends at its next start what the life it was
/// taken from shared with peers (03 G.4).
pub(crate) fn restored(life: &Incarnation) -> ChangeSet {
    let mut changes = begin(life);
    changes.meta.insert(RESTORED.into(), Some("1".into()));
    changes
}

/// The row that the present life is under.
pub(crate) fn life_key() -> Arc<str> {
    LIFE.into()
}

const MNEMONIC_REFUSED: &str =
    "Cannot use mnemonic: kernel identity already exists. Use resetStorage to clear existing identity first.";

fn refused(why: &str) -> HostError {
    HostError::Identity(why.to_owned())
}

fn write(changes: &mut ChangeSet, seed: &KeySeed, peer: &PeerId) {
    changes.meta.insert(SEED.into(), Some(seed.to_hex().into()));
    changes.meta.insert(PEER.into(), Some(peer.as_str().into()));
}

fn meta(tables: &Tables, key: &str) -> Option<Arc<str>> {
    tables.meta.iter().find(|(name, _)| &***name == key).map(|(_, text)| text.clone())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const WORDS: &str =
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

    fn fresh(byte: u8) -> Fresh {
        Fresh { entropy: [byte; 16], life: Incarnation::new(format!("life-{byte}")) }
    }

    /// Establishes on `tables` and keeps the rows there.
    fn on(tables: &mut Tables, source: Option<SeedSource>, byte: u8) -> Result<Identity, String> {
        let (identity, changes) =
            establish(tables, source.as_ref(), fresh(byte)).map_err(|error| error.to_string())?;
        tables.apply(&changes);
        Ok(identity)
    }

    fn names(identity: Result<Identity, String>) -> Result<(PeerId, String), String> {
        identity.map(|identity| (identity.peer, identity.life.as_str().to_owned()))
    }

    #[test]
    fn r2_an_identity_is_made_once_and_stays() {
        let mut tables = Tables::default();
        let words = mnemonic_from_entropy(&[1; 16]).unwrap();
        let peer = KeySeed::from_mnemonic(&words).unwrap().peer_id();
        assert_eq!(names(on(&mut tables, None, 1)), Ok((peer.clone(), "life-1".to_owned())));
        assert_eq!(names(on(&mut tables, None, 2)), Ok((peer.clone(), "life-1".to_owned())));
        let other = SeedSource::Seed(KeySeed::new([3; 32]));
        assert_eq!(names(on(&mut tables, Some(other), 3)), Ok((peer, "life-1".to_owned())));
    }

    #[test]
    fn r4_r5_r6_r7_a_given_seed_or_mnemonic_makes_the_first_identity() {
        let given = KeySeed::new([7; 32]);
        let by_seed = on(&mut Tables::default(), Some(SeedSource::Seed(given.clone())), 1);
        assert_eq!(names(by_seed).map(|(peer, _)| peer), Ok(given.peer_id()));
        let mnemonic = SeedSource::Mnemonic(WORDS.to_owned());
        let mut tables = Tables::default();
        let by_words = names(on(&mut tables, Some(mnemonic.clone()), 1)).map(|(peer, _)| peer);
        assert_eq!(by_words, Ok(KeySeed::from_mnemonic(WORDS).unwrap().peer_id()));
        assert_eq!(names(on(&mut tables, Some(mnemonic), 1)), Err(MNEMONIC_REFUSED.to_owned()));
        let bad = SeedSource::Mnemonic("abandon".to_owned());
        assert_eq!(names(on(&mut Tables::default(), Some(bad), 1)), Err("Invalid BIP39 mnemonic".to_owned()));
    }

    #[test]
    fn r27_without_its_identity_no_kernel_starts() {
        let with_meta = |rows: &[(&str, &str)]| {
            let mut changes = ChangeSet::default();
            for (key, text) in rows {
                changes.meta.insert((*key).into(), Some((*text).into()));
            }
            let mut tables = Tables::default();
            tables.apply(&changes);
            tables
        };
        let without = names(on(&mut with_meta(&[(PEER, "12D3")]), None, 1));
        assert_eq!(without, Err("no record matching key 'keySeed'".to_owned()));
        let seed = KeySeed::new([1; 32]).to_hex();
        let foreign = names(on(&mut with_meta(&[(PEER, "12D3"), (SEED, &seed)]), None, 1));
        assert_eq!(foreign, Err("the stored key seed is not that of the stored peer id".to_owned()));
    }

    #[test]
    fn the_words_of_an_identity_are_kept_where_it_was_made_from_words() {
        let kept = |source| {
            let mut tables = Tables::default();
            on(&mut tables, source, 1).unwrap();
            meta(&tables, PHRASE).map(|words| words.to_string())
        };
        assert_eq!(kept(None), Some(mnemonic_from_entropy(&[1; 16]).unwrap()));
        let spaced = WORDS.replace(' ', "\n  ");
        assert_eq!(kept(Some(SeedSource::Mnemonic(spaced))), Some(WORDS.to_owned()));
        assert_eq!(kept(Some(SeedSource::Seed(KeySeed::new([7; 32])))), None);
    }

    #[test]
    fn what_is_kept_is_the_peer_and_not_the_life() {
        let mut tables = Tables::default();
        assert_eq!(keep(&tables), None);
        let before = names(on(&mut tables, None, 1)).unwrap();
        let mut wiped = Tables::default();
        wiped.apply(&keep(&tables).unwrap());
        assert_eq!(names(on(&mut wiped, None, 2)), Ok((before.0, "life-2".to_owned())));
    }
}
