//! How fast: model cranks through the overlay into SQLite, by batch size and through the writer thread; and
//! reading a large store. No vat code runs, so these are ceilings. `cargo bench -p capstan-store --features sqlite`
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for people to read")]

use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, VatId};
use capstan_model::peer::Seq;
use capstan_model::refs::{ERef, VObject, VRef};
use capstan_store::overlay::Db;
use capstan_store::schema::*;
use capstan_store::sqlite::{SqliteStore, Sync};
use capstan_store::writer::Writer;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const OBJECTS: u64 = 100_000;
const RUN: Duration = Duration::from_secs(2);

fn endpoint(n: u64) -> EndpointId {
    EndpointId::Vat(VatId(n % 100))
}

fn object(n: u64) -> ObjectRow {
    let owner = Some(Owner::Endpoint(endpoint(n)));
    ObjectRow { owner, reachable: n, recognizable: n, revoked: false }
}

fn clist(n: u64) -> ClistRow {
    let eref = ERef::Vat(VRef::Object(VObject::Import(n)));
    ClistRow { eref, reachable: true, last_mention: Seq(0) }
}

fn populate(db: &mut Db) {
    let mut tx = db.begin();
    for n in 0..OBJECTS {
        let kref = KRef::Object(ObjectId(n));
        tx.put::<Objects>(ObjectId(n), object(1));
        tx.put::<Clist>((endpoint(n), kref), clist(n));
        tx.put::<Clist>((endpoint(n + 1), kref), clist(n));
    }
    tx.commit();
}

/// One crank: a message taken from the queue, one sent on, a promise made and an older one settled and gone,
/// counts and c-list entries moved, two values stored. 17 rows.
fn crank(db: &mut Db, n: u64) {
    let hot = |k: u64| ObjectId((n * 31 + k * 977) % if k == 0 { OBJECTS } else { 2000 });
    let promise = |n: u64| KRef::Promise(PromiseId(n));
    let vat = endpoint(n);
    let mut tx = db.begin();
    tx.delete::<RunQueue>(&(2 * n.saturating_sub(3)));
    tx.delete::<RunQueue>(&(2 * n.saturating_sub(3) + 1));
    let methargs = CapData { body: "x".repeat(200).into(), slots: vec![hot(0).into(), promise(n)] };
    let send = SendItem { target: hot(1).into(), methargs, result: Some(PromiseId(n)) };
    tx.put::<RunQueue>(2 * n, QueueItem::Send(send));
    tx.put::<RunQueue>(2 * n + 1, QueueItem::Notify { endpoint: vat, promise: PromiseId(n) });
    let state = PromiseState::Unresolved { decider: None, subscribers: BTreeSet::from([vat]) };
    tx.put::<Promises>(PromiseId(n), PromiseRow { state, count: 2 });
    let state = PromiseState::Fulfilled(CapData::data("y".repeat(100)));
    tx.put::<Promises>(PromiseId(n.saturating_sub(3)), PromiseRow { state, count: 1 });
    tx.delete::<Promises>(&PromiseId(n.saturating_sub(8)));
    tx.put::<Clist>((vat, promise(n)), clist(n));
    tx.put::<Clist>((endpoint(n + 1), promise(n)), clist(n));
    tx.delete::<Clist>(&(endpoint(n.wrapping_sub(8)), promise(n.saturating_sub(8))));
    tx.delete::<Clist>(&(endpoint(n.wrapping_sub(7)), promise(n.saturating_sub(8))));
    (0..3).for_each(|k| tx.put::<Objects>(hot(k), object(n)));
    tx.put::<VatStore>((VatId(n % 100), format!("key{}", n % 500).into()), "z".repeat(200).into());
    tx.put::<VatStore>((VatId(n % 100), "last".into()), n.to_string().into());
    tx.put::<Counters>("promise".into(), n + 1);
    tx.commit();
}

fn open(path: &Path, sync: Sync) -> (SqliteStore, Db) {
    let (store, tables) = SqliteStore::open(path, sync).unwrap();
    (store, Db::load(tables))
}

fn in_batches(path: &Path, sync: Sync, size: u64) -> f64 {
    let (mut store, mut db) = open(path, sync);
    let first = db.get::<Counters>(&"promise".into()).copied().unwrap_or(10);
    let (mut next, since) = (first, Instant::now());
    while since.elapsed() < RUN {
        (0..size).for_each(|k| crank(&mut db, next + k));
        next += size;
        store.apply(&db.take_changes()).unwrap();
    }
    (next - first) as f64 / since.elapsed().as_secs_f64()
}

/// Each crank is a batch of its own; the writer merges what gathers while it writes, at most `ahead`.
fn through_the_writer(path: &Path, sync: Sync, ahead: u64) -> f64 {
    let (store, mut db) = open(path, sync);
    let first = db.get::<Counters>(&"promise".into()).copied().unwrap_or(10);
    let (sink, durable) = channel();
    let writer = Writer::spawn(store, move |told| drop(sink.send(told))).unwrap();
    let (mut next, mut done, since) = (first, first, Instant::now());
    while since.elapsed() < RUN {
        crank(&mut db, next);
        writer.submit(next, db.take_changes()).unwrap();
        next += 1;
        while next - done > ahead {
            done = durable.recv().unwrap().unwrap() + 1;
        }
    }
    writer.stop().unwrap();
    (next - first) as f64 / since.elapsed().as_secs_f64()
}

fn main() {
    let dir = TempDir::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = dir.path().join("kernel.sqlite");
    {
        let (mut store, mut db) = open(&path, Sync::Full);
        populate(&mut db);
        let changes = db.take_changes();
        let since = Instant::now();
        store.apply(&changes).unwrap();
        println!("write {} rows at once: {:?}", changes.len(), since.elapsed());
    }
    let since = Instant::now();
    let (_, db) = open(&path, Sync::Full);
    println!("open and read {} rows: {:?}", db.tables().snapshot().len(), since.elapsed());
    for (name, sync) in [("full", Sync::Full), ("normal", Sync::Normal)] {
        for size in [1, 16, 64, 256] {
            println!("{name}, batches of {size}: {:.0} cranks/s", in_batches(&path, sync, size));
        }
        for ahead in [16, 256] {
            let rate = through_the_writer(&path, sync, ahead);
            println!("{name}, through the writer, at most {ahead} ahead: {rate:.0} cranks/s");
        }
    }
}
