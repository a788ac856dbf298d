//! What batches hold, whatever transactions did; and the tables as a key/value store.

use capstan_model::id::{ObjectId, VatId};
use capstan_store::memory::MemoryStore;
use capstan_store::overlay::{Db, Table};
use capstan_store::schema::*;
use capstan_store::sqlite::{SqliteStore, Sync, load_read_only};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use tempfile::TempDir;

#[derive(Clone, Debug)]
enum Op {
    Put(u64, u64),
    Add(u64),
    Delete(u64),
    Mark,
    RollBack,
}

#[derive(Clone, Debug)]
struct Transaction {
    ops: Vec<Op>,
    commit: bool,
    hand_over: bool,
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let key = 0..5_u64;
    let op = prop_oneof![
        3 => (key.clone(), 0..3_u64).prop_map(|(key, value)| Op::Put(key, value)),
        1 => key.clone().prop_map(Op::Add),
        2 => key.prop_map(Op::Delete),
        1 => Just(Op::Mark),
        1 => Just(Op::RollBack),
    ];
    (vec(op, 0..8), any::<bool>(), prop::bool::weighted(0.3))
        .prop_map(|(ops, commit, hand_over)| Transaction { ops, commit, hand_over })
}

/// Performs `transaction` on the overlay and returns what a plain map makes of it.
fn perform(db: &mut Db, before: &BTreeMap<u64, u64>, transaction: &Transaction) -> BTreeMap<u64, u64> {
    let mut model = before.clone();
    let mut marks = Vec::new();
    let mut tx = db.begin();
    for op in &transaction.ops {
        match *op {
            Op::Put(key, value) => {
                tx.put::<Pins>(ObjectId(key), value);
                tx.put::<Candidates>(ObjectId(key).into(), ());
                model.insert(key, value);
            }
            Op::Add(key) => {
                tx.update::<Pins, ()>(&ObjectId(key), |count| *count += 1);
                model.entry(key).and_modify(|count| *count += 1);
            }
            Op::Delete(key) => {
                assert_eq!(tx.delete::<Pins>(&ObjectId(key)), model.remove(&key));
            }
            Op::Mark => marks.push((tx.savepoint(), model.clone())),
            Op::RollBack => {
                if let Some((mark, then)) = marks.pop() {
                    tx.rollback_to(mark);
                    model = then;
                }
            }
        }
        let seen = tx.iter::<Pins>().map(|(ko, count)| (ko.0, *count));
        assert_eq!(seen.collect::<BTreeMap<_, _>>(), model);
    }
    if !transaction.commit {
        return before.clone();
    }
    tx.commit();
    model
}

proptest! {
    #[test]
    fn a_batch_is_the_net_difference_and_aborts_leave_no_trace(transactions in vec(transaction(), 1..20)) {
        let mut db = Db::default();
        let mut disk = MemoryStore::default();
        let mut model = BTreeMap::new();
        let mut handed_over = BTreeMap::new();
        for transaction in &transactions {
            model = perform(&mut db, &model, transaction);
            if !transaction.hand_over {
                continue;
            }
            let changes = db.take_changes();
            prop_assert_eq!(changes.len(), changes.pins.len(), "only durable tables have changes");
            for (ko, row) in &changes.pins {
                prop_assert_eq!(row.as_ref(), model.get(&ko.0));
                prop_assert_ne!(row.as_ref(), handed_over.get(&ko.0), "only what differs is written");
            }
            disk.apply(&changes).unwrap();
            handed_over = model.clone();
            let read = Db::load(disk.reload());
            let read = read.iter::<Pins>().map(|(ko, count)| (ko.0, *count));
            prop_assert_eq!(&read.collect::<BTreeMap<_, _>>(), &model);
        }
    }

    #[test]
    fn merged_batches_do_what_they_did_apart(batches in vec(crate::rows::changes(), 1..4)) {
        let mut apart = MemoryStore::default();
        let mut merged = ChangeSet::default();
        for batch in batches {
            apart.apply(&batch).unwrap();
            merged.merge(batch);
        }
        let mut together = MemoryStore::default();
        together.apply(&merged).unwrap();
        prop_assert_eq!(together.reload().snapshot(), apart.reload().snapshot());
    }
}

fn key(name: &str) -> (VatId, Arc<str>) {
    (VatId(1), name.into())
}

#[test]
fn k20_values_are_got_set_and_deleted_and_a_missing_one_is_none() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("kernel.sqlite");
    let (mut store, tables) = SqliteStore::open(&path, Sync::Full).unwrap();
    let mut db = Db::load(tables);
    let mut tx = db.begin();
    assert_eq!(tx.get::<Meta>(&"a".into()), None);
    assert_eq!(tx.delete::<Meta>(&"a".into()), None);
    tx.put::<Meta>("a".into(), "1".into());
    tx.put::<Meta>("b".into(), "2".into());
    tx.commit();
    store.apply(&db.take_changes()).unwrap();
    let mut tx = db.begin();
    tx.put::<Meta>("a".into(), "3".into());
    assert_eq!(tx.delete::<Meta>(&"b".into()), Some("2".into()));
    tx.commit();
    store.apply(&db.take_changes()).unwrap();
    let read = Db::load(load_read_only(&path).unwrap());
    assert_eq!(read.get::<Meta>(&"a".into()), Some(&"3".into()));
    assert_eq!(read.get::<Meta>(&"b".into()), None);
}

#[test]
fn k21_the_next_key_follows_whether_or_not_the_key_is_there() {
    let mut db = Db::default();
    let mut tx = db.begin();
    for name in ["a", "b", "d"] {
        tx.put::<VatStore>(key(name), "".into());
    }
    let next = |name| {
        let mut after = tx.range::<VatStore>((Bound::Excluded(key(name)), Bound::Unbounded));
        after.next().map(|((_, key), _)| key.to_string())
    };
    assert_eq!(
        [next("a"), next("b"), next("c"), next("d")].map(Option::unwrap_or_default),
        ["b", "d", "d", ""]
    );
}

#[test]
fn k26_deleting_a_vats_store_leaves_the_others() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("kernel.sqlite");
    let (mut store, tables) = SqliteStore::open(&path, Sync::Full).unwrap();
    let mut db = Db::load(tables);
    let mut tx = db.begin();
    // By text, v10 lies between v1 and v2.
    for vat in [1, 2, 10] {
        tx.put::<VatStore>((VatId(vat), "a".into()), "1".into());
        tx.put::<VatStore>((VatId(vat), "b".into()), "2".into());
    }
    tx.commit();
    store.apply(&db.take_changes()).unwrap();
    let mut tx = db.begin();
    let doomed = tx.range::<VatStore>((VatId(1), "".into())..(VatId(2), "".into()));
    let doomed: Vec<_> = doomed.map(|(key, _)| key.clone()).collect();
    doomed.iter().for_each(|key| assert!(tx.delete::<VatStore>(key).is_some()));
    tx.commit();
    store.apply(&db.take_changes()).unwrap();
    let read = load_read_only(&path).unwrap();
    let left = read.vat_store.iter().map(|((vat, key), value)| format!("{vat}.{key}={value}"));
    assert_eq!(left.collect::<Vec<_>>(), ["v2.a=1", "v2.b=2", "v10.a=1", "v10.b=2"]);
}

#[test]
fn an_idle_object_takes_less_than_300_bytes() {
    fn entry<T: Table>() -> usize {
        size_of::<(T::Key, T::Row)>()
    }
    // One that is exported by one endpoint and imported by another. The chunks themselves take a few more.
    let rows = entry::<Objects>() + 2 * (entry::<Clist>() + entry::<ClistByEref>()) + entry::<Importers>();
    assert!(rows <= 285, "{rows}");
}
