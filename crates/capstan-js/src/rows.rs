//! A vat's store on this side of its engine (02 §13): an ordered map text → text, read and written by the runtime in
//! the realm while it runs, outside the vat's own heap.
//!
//! Keys that begin with [`SCRATCH`] belong to this run alone: they are never reported, so they end with it.

use capstan_model::vat::StoreChanges;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::mem;
use std::ops::Bound;
use std::sync::Arc;

/// The first character of keys that are not durable: state of virtual objects and collections.
pub(crate) const SCRATCH: char = '~';

/// A key. Ordered as JavaScript orders strings, by UTF-16 code units.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key(Arc<str>);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        // Bytes of UTF-8 sort by code point. In UTF-16 all of U+10000 and above (first byte from 0xF0) starts with a
        // surrogate, which is less than U+E000 to U+FFFF (first byte 0xEE or 0xEF).
        let rank = |byte: u8| {
            if byte >= 0xF0 {
                byte - 0x10
            } else if byte >= 0xEE {
                byte + 0x10
            } else {
                byte
            }
        };
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        match a.iter().zip(b).find(|(a, b)| a != b) {
            Some((&a, &b)) => rank(a).cmp(&rank(b)),
            None => a.len().cmp(&b.len()),
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Key(text.into())
    }
}

/// What became of a key since the last report.
struct Change {
    existed: bool,
    now: Option<Arc<str>>,
}

/// The store and its changes.
pub(crate) struct Rows {
    rows: BTreeMap<Key, Arc<str>>,
    bytes: u64,
    changed: BTreeMap<Key, Change>,
}

impl Rows {
    pub(crate) fn new(store: Vec<(Arc<str>, Arc<str>)>) -> Rows {
        let bytes = store.iter().map(|(key, value)| row_bytes(key, value)).sum();
        let rows = store.into_iter().map(|(key, value)| (Key(key), value)).collect();
        Rows { rows, bytes, changed: BTreeMap::new() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<str>> {
        self.rows.get(&Key::from(key))
    }

    /// Writes a row, unless the store would then hold more than `bytes_max`.
    #[must_use]
    pub(crate) fn set(&mut self, key: &str, value: &str, bytes_max: u64) -> bool {
        let key = Key::from(key);
        let old = self.rows.get(&key);
        if old.is_some_and(|old| **old == *value) {
            return true;
        }
        let before = old.map_or(0, |old| row_bytes(&key.0, old));
        let bytes = self.bytes.saturating_sub(before).saturating_add(row_bytes(&key.0, value));
        if bytes > bytes_max {
            return false;
        }
        self.bytes = bytes;
        let value: Arc<str> = value.into();
        let existed = self.rows.insert(key.clone(), value.clone()).is_some();
        self.note(key, existed, Some(value));
        true
    }

    pub(crate) fn delete(&mut self, key: &str) {
        let key = Key::from(key);
        if let Some(old) = self.rows.remove(&key) {
            self.bytes = self.bytes.saturating_sub(row_bytes(&key.0, &old));
            self.note(key, true, None);
        }
    }

    /// The smallest key strictly greater than this one.
    pub(crate) fn next(&self, key: &str) -> Option<&str> {
        let mut above = self.rows.range((Bound::Excluded(Key::from(key)), Bound::Unbounded));
        above.next().map(|(key, _)| &*key.0)
    }

    /// How many keys lie in `from..to`. Takes time in proportion.
    pub(crate) fn count(&self, from: &str, to: &str) -> usize {
        let (from, to) = (Key::from(from), Key::from(to));
        if from >= to { 0 } else { self.rows.range(from..to).count() }
    }

    /// What is different from the last time; a row that came and went is not mentioned.
    pub(crate) fn take_changes(&mut self) -> StoreChanges {
        let mut changes = StoreChanges::default();
        for (Key(key), Change { existed, now }) in mem::take(&mut self.changed) {
            match now {
                Some(value) => changes.sets.push((key, value)),
                None if existed => changes.deletes.push(key),
                None => {}
            }
        }
        changes
    }

    fn note(&mut self, key: Key, existed: bool, now: Option<Arc<str>>) {
        if !key.0.starts_with(SCRATCH) {
            self.changed.entry(key).or_insert(Change { existed, now: None }).now = now;
        }
    }
}

fn row_bytes(key: &str, value: &str) -> u64 {
    (key.len() as u64).saturating_add(value.len() as u64)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should fail")]
mod tests {
    use super::*;

    const MAX: u64 = 1 << 20;

    fn rows(list: &[(&str, &str)]) -> Rows {
        Rows::new(list.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
    }

    fn changes(sets: &[(&str, &str)], deletes: &[&str]) -> StoreChanges {
        StoreChanges {
            sets: sets.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            deletes: deletes.iter().map(|key| (*key).into()).collect(),
        }
    }

    #[test]
    fn k156_reports_say_what_is_different_and_clear() {
        let mut rows = rows(&[("a", "1"), ("b", "2")]);
        assert!(rows.set("c", "3", MAX));
        rows.delete("c");
        rows.delete("c");
        assert!(rows.set("a", "4", MAX));
        rows.delete("b");
        rows.delete("b");
        assert_eq!(rows.take_changes(), changes(&[("a", "4")], &["b"]));
        assert_eq!(rows.take_changes(), StoreChanges::default());
        rows.delete("a");
        assert!(rows.set("a", "", MAX), "the empty text is a value");
        assert_eq!(rows.get("a").map(|value| &**value), Some(""));
        assert_eq!(rows.take_changes(), changes(&[("a", "")], &[]));
        let long = "x".repeat(100_000);
        assert!(rows.set("", &long, MAX), "the empty key is a key");
        assert_eq!(rows.get("").unwrap().len(), long.len());
        assert!(!rows.set("more", &long.repeat(11), MAX), "not beyond the limit");
        assert_eq!(rows.get("more"), None);
    }

    #[test]
    fn k156_the_next_key_follows_changes_in_order_of_code_units() {
        let mut rows = rows(&[("", "0"), ("b", "1"), ("\u{fffd}", "2"), ("\u{1f600}", "3"), ("ä", "4")]);
        let walk = |rows: &Rows| {
            let mut seen = vec![String::new()];
            while let Some(next) = rows.next(seen.last().unwrap()) {
                seen.push(next.to_owned());
            }
            seen
        };
        let by_units = |keys: &[String]| {
            let mut sorted = keys.to_vec();
            sorted.sort_by_key(|key| key.encode_utf16().collect::<Vec<_>>());
            sorted
        };
        let seen = walk(&rows);
        assert_eq!(seen, ["", "b", "ä", "\u{1f600}", "\u{fffd}"]);
        assert_eq!(seen, by_units(&seen));
        rows.delete("ä");
        assert!(rows.set("c", "", MAX));
        assert_eq!(rows.next("b"), Some("c"));
        assert_eq!(rows.next("c"), Some("\u{1f600}"));
        assert_eq!((rows.count("b", "d"), rows.count("d", "b")), (2, 0));
    }

    #[test]
    fn what_belongs_to_the_run_is_counted_but_not_reported() {
        let mut rows = rows(&[]);
        assert!(rows.set("~a", "1", 4));
        assert!(!rows.set("~b", "12", 4));
        assert_eq!(rows.get("~a").map(|value| &**value), Some("1"));
        assert_eq!(rows.take_changes(), StoreChanges::default());
    }
}
