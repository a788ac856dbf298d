//! An ordered map that wastes little memory: entries lie densely in sorted chunks.
//!
//! Most rows here have keys that only grow, and a B-tree filled in that order is left half empty by its splits. Here a
//! full chunk at the end is left full and the next one begun.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};

/// Entries of a full chunk. More save little memory; an insertion moves half of them.
const CHUNK_MAX: usize = 64;
/// A chunk that shrinks to this, or to half of it, is joined with a neighbour that is at most half full.
const CHUNK_MIN: usize = CHUNK_MAX / 4;

/// A map in key order.
#[derive(Clone, Debug)]
pub(crate) struct Chunks<K, V> {
    /// With a lower bound of their keys, above all keys of the chunk before. None is empty.
    ///
    /// A sorted list and no tree: what changes is most often at its end or its beginning, and a tree looks for both ends
    /// of a range from its root.
    chunks: VecDeque<(K, Vec<(K, V)>)>,
    len: usize,
}

impl<K, V> Default for Chunks<K, V> {
    fn default() -> Self {
        Chunks { chunks: VecDeque::new(), len: 0 }
    }
}

impl<K: Ord + Clone, V> Chunks<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunk where the key is or belongs; `None`: below all of them.
    fn place(&self, key: &K) -> Option<usize> {
        match self.chunks.back() {
            // New keys are most often the highest, and what is new changes most.
            Some((bound, _)) if bound <= key => self.chunks.len(),
            _ => self.chunks.partition_point(|(bound, _)| bound <= key),
        }
        .checked_sub(1)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let (_, chunk) = self.chunks.get(self.place(key)?)?;
        let at = find(chunk, key).ok()?;
        chunk.get(at).map(|(_, value)| value)
    }

    /// Puts an entry in and returns what the key held before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let place = self.place(&key);
        let Some((place, (_, chunk))) = place.and_then(|place| Some((place, self.chunks.get_mut(place)?)))
        else {
            self.insert_first(key, value);
            return None;
        };
        match find(chunk, &key) {
            Ok(at) => return chunk.get_mut(at).map(|(_, held)| std::mem::replace(held, value)),
            Err(at) if chunk.len() < CHUNK_MAX => chunk.insert(at, (key, value)),
            Err(at) if at == chunk.len() => {
                self.chunks.insert(place.saturating_add(1), (key.clone(), vec![(key, value)]));
            }
            Err(at) => {
                let mut upper = chunk.split_off(CHUNK_MAX / 2);
                match at.checked_sub(CHUNK_MAX / 2) {
                    Some(at) => upper.insert(at, (key, value)),
                    None => chunk.insert(at, (key, value)),
                }
                chunk.shrink_to_fit();
                if let Some((first, _)) = upper.first() {
                    self.chunks.insert(place.saturating_add(1), (first.clone(), upper));
                }
            }
        }
        self.len += 1;
        None
    }

    /// Puts in an entry below all others.
    fn insert_first(&mut self, key: K, value: V) {
        self.len += 1;
        match self.chunks.front_mut() {
            Some((bound, chunk)) if chunk.len() < CHUNK_MAX => {
                *bound = key.clone();
                chunk.insert(0, (key, value));
            }
            _ => self.chunks.push_front((key.clone(), vec![(key, value)])),
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(key)?;
        let (_, chunk) = self.chunks.get_mut(place)?;
        let at = find(chunk, key).ok()?;
        let (_, value) = chunk.remove(at);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(place);
        } else if chunk.len() == CHUNK_MIN || chunk.len() == CHUNK_MIN / 2 {
            self.join(place);
        }
        Some(value)
    }

    /// Joins a small chunk with a neighbour that has room, or gives back what it does not need itself.
    fn join(&mut self, place: usize) {
        let small =
            |place: &usize| self.chunks.get(*place).is_some_and(|(_, chunk)| chunk.len() <= CHUNK_MAX / 2);
        let next = Some(place.saturating_add(1)).filter(small);
        let before = place.checked_sub(1).filter(small);
        let (keep, give) = match (before, next) {
            (_, Some(next)) => (place, Some(next)),
            (Some(before), None) => (before, Some(place)),
            (None, None) => (place, None),
        };
        let mut given =
            give.and_then(|place| self.chunks.remove(place)).map_or_else(Vec::new, |(_, chunk)| chunk);
        if let Some((_, chunk)) = self.chunks.get_mut(keep) {
            chunk.append(&mut given);
            if chunk.capacity() > 2 * chunk.len() {
                chunk.shrink_to_fit();
            }
        }
    }

    /// All entries in key order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|(_, chunk)| chunk).map(|(key, value)| (key, value))
    }

    /// The entries whose keys lie in `range`, in key order; none if it ends before it begins.
    pub(crate) fn range<R: RangeBounds<K>>(&self, range: R) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        let first = match range.start_bound() {
            Bound::Included(key) | Bound::Excluded(key) => self.place(key).unwrap_or(0),
            Bound::Unbounded => 0,
        };
        // One beyond the last.
        let end = match range.end_bound() {
            Bound::Included(key) | Bound::Excluded(key) => {
                self.place(key).map_or(0, |place| place.saturating_add(1))
            }
            Bound::Unbounded => self.chunks.len(),
        };
        let chunks = (first < end).then(|| self.chunks.range(first..end));
        let slices = chunks.into_iter().flatten().map(move |(_, chunk)| {
            let start = match range.start_bound() {
                Bound::Included(key) => chunk.partition_point(|(k, _)| k < key),
                Bound::Excluded(key) => chunk.partition_point(|(k, _)| k <= key),
                Bound::Unbounded => 0,
            };
            let end = match range.end_bound() {
                Bound::Included(key) => chunk.partition_point(|(k, _)| k <= key),
                Bound::Excluded(key) => chunk.partition_point(|(k, _)| k < key),
                Bound::Unbounded => chunk.len(),
            };
            chunk.get(start..end).unwrap_or_default()
        });
        slices.flatten().map(|(key, value)| (key, value))
    }

    /// Puts entries in; best in key order.
    pub(crate) fn extend(&mut self, entries: impl IntoIterator<Item = (K, V)>) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

/// Where the key is in a chunk, or where it belongs.
fn find<K: Ord, V>(chunk: &[(K, V)], key: &K) -> Result<usize, usize> {
    // New keys are most often the highest.
    match chunk.last() {
        Some((last, _)) if last < key => Err(chunk.len()),
        _ => chunk.binary_search_by(|(k, _)| k.cmp(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn bound() -> impl Strategy<Value = Bound<u16>> {
        prop_oneof![
            (0..300_u16).prop_map(Bound::Included),
            (0..300_u16).prop_map(Bound::Excluded),
            Just(Bound::Unbounded)
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_map(
            ops in vec((0..300_u16, prop::bool::weighted(0.6)), 0..1500),
            ranges in vec((bound(), bound()), 20),
        ) {
            let (mut map, mut model) = (Chunks::default(), BTreeMap::new());
            for (n, (key, put)) in ops.into_iter().enumerate() {
                let (ours, theirs) = match put {
                    true => (map.insert(key, n), model.insert(key, n)),
                    false => (map.remove(&key), model.remove(&key)),
                };
                prop_assert_eq!(ours, theirs);
                prop_assert_eq!(map.get(&key), model.get(&key));
            }
            prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
            prop_assert!(map.iter().eq(model.iter()) && map.iter().rev().eq(model.iter().rev()));
            for (from, to) in ranges {
                let within = |key: &u16| (from, to).contains(key);
                let expected: Vec<_> = model.iter().filter(|(key, _)| within(key)).collect();
                prop_assert_eq!(map.range((from, to)).collect::<Vec<_>>(), expected.clone());
                prop_assert!(map.range((from, to)).rev().eq(expected.into_iter().rev()));
            }
        }
    }

    #[test]
    fn growing_keys_leave_no_room_and_shrinking_gives_it_back() {
        let mut map = Chunks::default();
        map.extend((0..32_000_u64).map(|key| (key, ())));
        assert_eq!(map.chunks.len(), 32_000 / CHUNK_MAX);
        assert!(map.chunks.iter().all(|(_, chunk)| chunk.capacity() == CHUNK_MAX));
        (0..32_000).filter(|key| key % 16 != 0).for_each(|key| assert!(map.remove(&key).is_some()));
        let room: usize = map.chunks.iter().map(|(_, chunk)| chunk.capacity()).sum();
        assert!(map.len() == 2000 && map.chunks.len() < 400 && room < 6000, "{room} in {}", map.chunks.len());
    }
}
