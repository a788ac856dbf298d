//! How fast: model cranks through the overlay into SQLite, by batch size and through the writer thread; opening a
//! store of a million objects, and the memory each takes. No vat code runs, so these are ceilings.
//! `cargo bench -p capstan-store --features sqlite`
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for people to read")]

use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, VatId};
use capstan_model::peer::Seq;
use capstan_model::refs::{ERef, VObject, VRef};
use capstan_store::overlay::Db;
use capstan_store::schema::*;
use capstan_store::sqlite::{SqliteStore, Sync};
use capstan_store::writer::Writer;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use std::collections::BTreeSet;
use std::env;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Instant;
use tempfile::TempDir;

/// Objects in the store that cranks work on.
const OBJECTS: u64 = 100_000;
/// Objects in the store that is opened.
const MANY: u64 = 1_000_000;
/// Tells this program to fill the store at a path and do nothing else.
const FILL: &str = "CAPSTAN_BENCH_FILL";
/// Cranks that may be handed over before the first of them is durable.
const LEAD: u64 = 256;

fn endpoint(n: u64) -> EndpointId {
    EndpointId::Vat(VatId((n % 100) as u32))
}

fn object(n: u64) -> ObjectRow {
    let owner = Some(Owner::Endpoint(endpoint(n)));
    ObjectRow { owner, reachable: n, recognizable: n, revoked: false }
}

fn entry(object: VObject) -> ClistRow {
    ClistRow { eref: ERef::Vat(VRef::Object(object)), reachable: true, last_mention: Seq(0) }
}

fn clist(n: u64) -> ClistRow {
    entry(VObject::Import(n))
}

/// Objects, each exported by one vat and imported by another.
fn populate(db: &mut Db, objects: u64) {
    let mut tx = db.begin();
    for n in 0..objects {
        let kref = KRef::Object(ObjectId(n));
        tx.put::<Objects>(ObjectId(n), object(1));
        tx.put::<Clist>((endpoint(n), kref), entry(VObject::Ephemeral(n)));
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
    tx.put::<VatStore>((VatId((n % 100) as u32), format!("key{}", n % 500).into()), "z".repeat(200).into());
    tx.put::<VatStore>((VatId((n % 100) as u32), "last".into()), n.to_string().into());
    tx.put::<Counters>("promise".into(), n + 1);
    tx.commit();
}

fn open(path: &Path, sync: Sync) -> (SqliteStore, Db) {
    let (store, tables) = SqliteStore::open(path, sync).unwrap();
    (store, Db::load(tables))
}

fn scratch() -> TempDir {
    TempDir::new_in(env!("CARGO_MANIFEST_DIR")).unwrap()
}

/// A new store with so many objects.
fn filled(path: &Path, objects: u64) -> (SqliteStore, Db) {
    let (mut store, mut db) = open(path, Sync::Full);
    populate(&mut db, objects);
    store.apply(&db.take_changes()).unwrap();
    store.checkpoint().unwrap();
    (store, db)
}

fn commits(c: &mut Criterion) {
    let dir = scratch();
    let mut group = c.benchmark_group("commit");
    group.throughput(Throughput::Elements(1));
    for (name, sync) in [("full", Sync::Full), ("normal", Sync::Normal)] {
        let path = dir.path().join(name);
        let (mut store, mut db) = filled(&path, OBJECTS);
        drop((store, db));
        let mut next = 10;
        for size in [1, 16, 64, 256] {
            (store, db) = open(&path, sync);
            group.bench_function(BenchmarkId::new(name, format_args!("cranks in batches of {size}")), |b| {
                b.iter_custom(|cranks| {
                    let (end, since) = (next + cranks, Instant::now());
                    while next < end {
                        let batch = size.min(end - next);
                        (0..batch).for_each(|k| crank(&mut db, next + k));
                        next += batch;
                        store.apply(&db.take_changes()).unwrap();
                    }
                    since.elapsed()
                });
            });
            drop((store, db));
        }
        let (sink, durable) = channel();
        (store, db) = open(&path, sync);
        let writer = Writer::spawn(store, move |told| drop(sink.send(told))).unwrap();
        group.bench_function(BenchmarkId::new(name, "cranks through the writer"), |b| {
            b.iter_custom(|cranks| {
                let (end, since, mut done) = (next + cranks, Instant::now(), next);
                while done < end {
                    if next < end && next - done < LEAD {
                        crank(&mut db, next);
                        writer.submit(next, db.take_changes()).unwrap();
                        next += 1;
                    } else {
                        done = durable.recv().unwrap().unwrap() + 1;
                    }
                }
                since.elapsed()
            });
        });
        writer.stop().unwrap();
    }
    group.finish();
}

fn opening(c: &mut Criterion) {
    let dir = scratch();
    let path = dir.path().join("kernel.sqlite");
    // By another process: this one is to have no memory that it has used and freed.
    let filler = Command::new(env::current_exe().unwrap()).env(FILL, &path).status().unwrap();
    assert!(filler.success());
    let before = resident_bytes();
    let opened = open(&path, Sync::Full);
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        println!("memory of an idle object: {} bytes", after.saturating_sub(before) / MANY);
    }
    drop(opened);
    let mut group = c.benchmark_group("open");
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("objects", MANY), |b| b.iter(|| open(&path, Sync::Full)));
    group.finish();
}

/// What the process occupies, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

criterion_group!(benches, opening, commits);

fn main() {
    if let Some(path) = env::var_os(FILL) {
        drop(filled(Path::new(&path), MANY));
        return;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
