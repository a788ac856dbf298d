//! The overlay: all rows in memory, transactions with undo, and the net difference for the disk.
//!
//! A [`Tx`] that is dropped without [`Tx::commit`] undoes everything. Committed transactions gather in a
//! batch; [`Db::take_changes`] hands over the net difference since it was last called, so that a row that
//! came and went within a batch never reaches a disk.

use crate::chunks::Chunks;
use crate::schema::{ChangeSet, Tables, Undo};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;

/// One table: its name, whether it is kept on disk, and the types of its keys and rows.
pub trait Table: Sized + 'static {
    /// The name, as in SQL.
    const NAME: &'static str;
    /// Whether rows survive the process. Others exist for the sake of undo.
    const DURABLE: bool;
    /// What rows are found by; its order is the order of ranges.
    type Key: Ord + Clone + Debug;
    /// What a row holds.
    type Row: Clone + PartialEq + Debug;

    /// The table's place among all.
    #[doc(hidden)]
    fn of(tables: &Tables) -> &Rows<Self>;
    /// The table's place among all.
    #[doc(hidden)]
    fn of_mut(tables: &mut Tables) -> &mut Rows<Self>;
    /// Wraps an undo entry: what the key held before.
    #[doc(hidden)]
    fn undo(key: Self::Key, before: Option<Self::Row>, dirtied: bool) -> Undo;
}

/// The rows of one table, and which keys differ from the last hand-over.
#[derive(Debug)]
pub struct Rows<T: Table> {
    rows: Chunks<T::Key, T::Row>,
    /// For each key changed since the last hand-over, what it held then.
    dirty: BTreeMap<T::Key, Option<T::Row>>,
}

impl<T: Table> Default for Rows<T> {
    fn default() -> Self {
        Rows { rows: Chunks::default(), dirty: BTreeMap::new() }
    }
}

impl<T: Table> Rows<T> {
    fn replace(&mut self, key: T::Key, row: Option<T::Row>) -> Undo {
        let before = match row {
            Some(row) => self.rows.insert(key.clone(), row),
            None => self.rows.remove(&key),
        };
        let dirtied = T::DURABLE && !self.dirty.contains_key(&key);
        if dirtied {
            self.dirty.insert(key.clone(), before.clone());
        }
        T::undo(key, before, dirtied)
    }

    pub(crate) fn revert(&mut self, key: T::Key, before: Option<T::Row>, dirtied: bool) {
        if dirtied {
            self.dirty.remove(&key);
        }
        match before {
            Some(row) => self.rows.insert(key, row),
            None => self.rows.remove(&key),
        };
    }

    /// Returns the net difference since the last call, and starts a new one.
    pub(crate) fn take_changes(&mut self) -> BTreeMap<T::Key, Option<T::Row>> {
        let dirty = std::mem::take(&mut self.dirty);
        let changed = dirty.into_iter().filter_map(|(key, before)| {
            let row = self.rows.get(&key).cloned();
            (row != before).then_some((key, row))
        });
        changed.collect()
    }

    pub(crate) fn load(&mut self, rows: impl IntoIterator<Item = (T::Key, T::Row)>) {
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        self.rows.extend(rows);
    }

    pub(crate) fn apply(&mut self, changes: &BTreeMap<T::Key, Option<T::Row>>) {
        for (key, row) in changes {
            match row {
                Some(row) => self.rows.insert(key.clone(), row.clone()),
                None => self.rows.remove(key),
            };
        }
    }

    /// All rows as new ones; none if the table is not durable.
    pub(crate) fn snapshot(&self) -> BTreeMap<T::Key, Option<T::Row>> {
        let rows = self.rows.iter().filter(|_| T::DURABLE);
        rows.map(|(key, row)| (key.clone(), Some(row.clone()))).collect()
    }

    /// All rows in key order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&T::Key, &T::Row)> {
        self.rows.iter()
    }
}

/// The whole state of one kernel.
#[derive(Debug, Default)]
pub struct Db {
    tables: Tables,
    /// Of the transaction in progress; empty between transactions. Kept for its room: it grows with every transaction
    /// otherwise.
    undo: Vec<Undo>,
}

/// Room for so many undo entries is kept: more than all but the largest transactions need.
const UNDO_KEPT: usize = 256;

impl Db {
    /// Starts from rows read from a disk or handed over earlier.
    pub fn load(snapshot: Tables) -> Self {
        Db { tables: snapshot, undo: Vec::new() }
    }

    /// Starts a transaction. Dropping it without [`Tx::commit`] undoes it.
    ///
    /// There is one at a time, and it ends once:
    ///
    /// ```compile_fail,E0499
    /// let mut db = capstan_store::overlay::Db::default();
    /// let first = db.begin();
    /// let second = db.begin();
    /// first.commit();
    /// ```
    ///
    /// ```compile_fail,E0382
    /// let mut db = capstan_store::overlay::Db::default();
    /// let tx = db.begin();
    /// tx.commit();
    /// tx.commit();
    /// ```
    pub fn begin(&mut self) -> Tx<'_> {
        Tx { tables: &mut self.tables, undo: &mut self.undo }
    }

    /// Returns the row under `key` as of the last committed transaction.
    pub fn get<T: Table>(&self, key: &T::Key) -> Option<&T::Row> {
        T::of(&self.tables).rows.get(key)
    }

    /// All rows of a table in key order, as of the last committed transaction.
    pub fn iter<T: Table>(&self) -> impl DoubleEndedIterator<Item = (&T::Key, &T::Row)> {
        T::of(&self.tables).rows.iter()
    }

    /// Rows whose keys lie in `range`, in key order.
    pub fn range<T: Table>(
        &self,
        range: impl RangeBounds<T::Key>,
    ) -> impl DoubleEndedIterator<Item = (&T::Key, &T::Row)> {
        T::of(&self.tables).rows.range(range)
    }

    /// How many rows a table has.
    pub fn len<T: Table>(&self) -> usize {
        T::of(&self.tables).rows.len()
    }

    /// Whether a table has no rows.
    pub fn is_empty<T: Table>(&self) -> bool {
        T::of(&self.tables).rows.is_empty()
    }

    /// The keys of a durable table that were written since the changes were last taken, in order.
    pub fn changed<T: Table>(&self) -> impl Iterator<Item = &T::Key> {
        T::of(&self.tables).dirty.keys()
    }

    /// Returns the net difference of all transactions committed since the last call.
    pub fn take_changes(&mut self) -> ChangeSet {
        self.tables.take_changes()
    }

    /// All tables, for an audit or a backend.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }
}

/// A place in a transaction to come back to. It is given by [`Tx::savepoint`], and nothing else makes one:
///
/// ```compile_fail,E0308
/// let mut db = capstan_store::overlay::Db::default();
/// db.begin().rollback_to("a name; DROP TABLE clist");
/// ```
///
/// ```compile_fail,E0423
/// let mut db = capstan_store::overlay::Db::default();
/// db.begin().rollback_to(capstan_store::overlay::Savepoint(7));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Savepoint(usize);

/// One transaction. Reads see its own writes.
#[derive(Debug)]
pub struct Tx<'a> {
    tables: &'a mut Tables,
    undo: &'a mut Vec<Undo>,
}

impl Tx<'_> {
    /// Returns the row under `key`.
    pub fn get<T: Table>(&self, key: &T::Key) -> Option<&T::Row> {
        T::of(self.tables).rows.get(key)
    }

    /// Writes a row, replacing what was there.
    pub fn put<T: Table>(&mut self, key: T::Key, row: T::Row) {
        let undo = T::of_mut(self.tables).replace(key, Some(row));
        self.undo.push(undo);
    }

    /// Removes a row and returns it; absent: nothing happens.
    pub fn delete<T: Table>(&mut self, key: &T::Key) -> Option<T::Row> {
        let row = T::of(self.tables).rows.get(key).cloned()?;
        let undo = T::of_mut(self.tables).replace(key.clone(), None);
        self.undo.push(undo);
        Some(row)
    }

    /// Removes every row of a table.
    pub fn delete_all<T: Table>(&mut self) {
        let keys: Vec<T::Key> = self.iter::<T>().map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.delete::<T>(&key);
        }
    }

    /// Changes the row under `key` in place and returns what `change` returns; `None` if there is no row.
    pub fn update<T: Table, O>(&mut self, key: &T::Key, change: impl FnOnce(&mut T::Row) -> O) -> Option<O> {
        let mut row = T::of(self.tables).rows.get(key).cloned()?;
        let out = change(&mut row);
        self.put::<T>(key.clone(), row);
        Some(out)
    }

    /// Rows whose keys lie in `range`, in key order.
    pub fn range<T: Table>(
        &self,
        range: impl RangeBounds<T::Key>,
    ) -> impl DoubleEndedIterator<Item = (&T::Key, &T::Row)> {
        T::of(self.tables).rows.range(range)
    }

    /// All rows of a table in key order.
    pub fn iter<T: Table>(&self) -> impl DoubleEndedIterator<Item = (&T::Key, &T::Row)> {
        T::of(self.tables).rows.iter()
    }

    /// All tables, for an audit inside the transaction.
    pub fn tables(&self) -> &Tables {
        self.tables
    }

    /// Marks a place to come back to.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint(self.undo.len())
    }

    /// Undoes everything since `savepoint`; a place that was undone itself is where the transaction is already.
    pub fn rollback_to(&mut self, savepoint: Savepoint) {
        while self.undo.len() > savepoint.0 {
            if let Some(undo) = self.undo.pop() {
                self.tables.revert(undo);
            }
        }
    }

    /// Keeps everything.
    pub fn commit(self) {
        self.undo.clear();
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        self.rollback_to(Savepoint(0));
        self.undo.shrink_to(UNDO_KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Counters;

    #[test]
    fn k22_k23_rolled_back_changes_are_gone_and_outer_ones_stay() {
        let mut db = Db::default();
        let mut tx = db.begin();
        tx.put::<Counters>("object".into(), 1);
        let inner = tx.savepoint();
        tx.put::<Counters>("object".into(), 2);
        tx.delete::<Counters>(&"object".into());
        tx.rollback_to(inner);
        tx.commit();
        assert_eq!(db.get::<Counters>(&"object".into()), Some(&1));
        let mut tx = db.begin();
        tx.put::<Counters>("object".into(), 9);
        drop(tx);
        assert_eq!(db.get::<Counters>(&"object".into()), Some(&1));
    }

    /// The reference names savepoints by text and releases them. Here one is a value: there is no name to quote, and
    /// nothing to release, so an unknown name cannot be said (see the examples at [`Savepoint`]). Left are a place
    /// that was undone itself, and nesting.
    #[test]
    fn k24_k25_a_savepoint_is_a_place_and_not_a_name() {
        let mut db = Db::default();
        let mut tx = db.begin();
        tx.put::<Counters>("a".into(), 1);
        let outer = tx.savepoint();
        tx.put::<Counters>("b".into(), 1);
        let inner = tx.savepoint();
        tx.put::<Counters>("c".into(), 1);
        tx.rollback_to(outer);
        tx.rollback_to(inner);
        tx.rollback_to(outer);
        let rows: Vec<_> = tx.iter::<Counters>().map(|(key, _)| key.to_string()).collect();
        assert_eq!(rows, ["a"]);
        tx.put::<Counters>("d".into(), 1);
        tx.rollback_to(outer);
        tx.commit();
        assert_eq!(db.len::<Counters>(), 1);
    }

    /// The reference refuses a second crank, a crank ended twice, and a savepoint outside a crank at run time. Here
    /// they cannot be written (see the examples at [`Db::begin`]); a transaction that is only dropped has not been.
    #[test]
    fn k28_a_transaction_ends_once_and_another_follows() {
        let mut db = Db::default();
        for kept in [false, true, false] {
            let mut tx = db.begin();
            let next = tx.get::<Counters>(&"a".into()).copied().unwrap_or(0) + 1;
            tx.put::<Counters>("a".into(), next);
            if kept {
                tx.commit();
            }
        }
        assert_eq!(db.get::<Counters>(&"a".into()), Some(&1));
    }

    #[test]
    fn a_row_that_came_and_went_within_a_batch_is_no_change() {
        let mut db = Db::default();
        let mut tx = db.begin();
        tx.put::<Counters>("a".into(), 1);
        tx.put::<Counters>("b".into(), 1);
        tx.commit();
        let mut tx = db.begin();
        tx.delete::<Counters>(&"a".into());
        tx.commit();
        let changes = db.take_changes();
        assert_eq!(changes.counters, [("b".into(), Some(1))].into());
        assert!(db.take_changes().is_empty());
    }
}
