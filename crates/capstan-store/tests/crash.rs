//! Processes that end in the middle of writing, and disks that are full.

use crate::child::{self, Spawned};
use capstan_model::id::{EndpointId, ObjectId, PromiseId, VatId};
use capstan_store::memory::MemoryStore;
use capstan_store::overlay::Db;
use capstan_store::schema::*;
use capstan_store::sqlite::{SqliteStore, Sync, load_read_only};
use capstan_store::writer::{Pace, Writer};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// Batches that may be handed over before the first of them is durable.
const LEAD: u64 = 40;

fn batch_of(db: &Db) -> u64 {
    db.get::<Counters>(&"batch".into()).copied().unwrap_or_default()
}

/// Makes the next batch: rows come, change and go in several tables, and one transaction is given up.
fn next_batch(db: &mut Db) -> (u64, ChangeSet) {
    let number = batch_of(db) + 1;
    let mut tx = db.begin();
    tx.put::<Counters>("batch".into(), number);
    let endpoint = EndpointId::Vat(VatId(1));
    tx.put::<RunQueue>(number, QueueItem::Notify { endpoint, promise: PromiseId(number) });
    tx.delete::<RunQueue>(&number.saturating_sub(5));
    tx.put::<Pins>(ObjectId(number % 50), number);
    tx.put::<VatStore>((VatId(1), format!("{number}").into()), "x".repeat(1000).into());
    tx.delete::<VatStore>(&(VatId(1), format!("{}", number.saturating_sub(500)).into()));
    tx.commit();
    let mut given_up = db.begin();
    given_up.put::<Counters>("batch".into(), 0);
    drop(given_up);
    (number, db.take_changes())
}

/// Writes batches until the writer fails, and tells of each how it went.
fn write_on(dir: &Path) {
    let (store, tables) = SqliteStore::open(&dir.join("kernel.sqlite"), Sync::Full).unwrap();
    let mut db = Db::load(tables);
    let mut durable = batch_of(&db);
    let (sink, news) = mpsc::channel();
    let pace = Pace { pause: Duration::from_millis(1), ..Pace::default() };
    let writer = Writer::spawn_at(store, pace, move |told| {
        match &told {
            Ok(number) => child::tell(&format!("durable {number}")),
            Err(fault) => child::tell(&format!("fault {}", fault.batch)),
        }
        sink.send(told).unwrap();
    });
    let writer = writer.unwrap();
    loop {
        let (number, changes) = next_batch(&mut db);
        writer.submit(number, changes).unwrap();
        while number >= durable + LEAD {
            match news.recv().unwrap() {
                Ok(number) => durable = number,
                Err(_) => {
                    (0..100).for_each(|n| writer.submit(number + 1 + n, next_batch(&mut db).1).unwrap());
                    writer.stop().unwrap();
                    assert!(news.try_recv().is_err(), "nothing is told after a fault");
                    return child::tell("end");
                }
            }
        }
    }
}

/// What a store must hold after each batch.
#[derive(Default)]
struct Model {
    db: Db,
    disk: MemoryStore,
}

impl Model {
    /// Compares the store with the batches up to the one it claims to hold, which is returned.
    fn check(&mut self, path: &Path) -> u64 {
        let tables = load_read_only(path).unwrap();
        let found = tables.counters.iter().find(|(name, _)| &***name == "batch").map_or(0, |(_, n)| *n);
        while batch_of(&self.db) < found {
            let (_, changes) = next_batch(&mut self.db);
            self.disk.apply(&changes).unwrap();
        }
        assert_eq!(tables.snapshot(), self.disk.reload().snapshot());
        found
    }
}

fn last(said: &[String]) -> Option<u64> {
    said.last().map(|number| number.parse().unwrap())
}

#[test]
fn a_killed_writer_leaves_whole_batches_and_all_it_acknowledged() {
    if let Some(dir) = child::workplace() {
        return write_on(&dir);
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("kernel.sqlite");
    let mut model = Model::default();
    let mut acknowledged = 0;
    for round in 0..10_u64 {
        let test = "crash::a_killed_writer_leaves_whole_batches_and_all_it_acknowledged";
        let mut writer = child::spawn(test, dir.path(), "");
        // Somewhere in a later commit, since the writer does nothing else.
        let commits = 1 + round * 7919 % 23;
        for _ in 0..commits {
            acknowledged = writer.hear("durable").unwrap().parse().unwrap();
        }
        thread::sleep(Duration::from_micros(round * 7919 % 4001));
        acknowledged = last(&writer.kill("durable")).unwrap_or(acknowledged);
        let found = model.check(&path);
        assert!(found >= acknowledged, "{found} on disk, {acknowledged} acknowledged");
        assert!(found <= acknowledged + 2 * LEAD);
    }
}

#[test]
fn a_full_disk_is_a_fault_and_releases_nothing() {
    if let Some(dir) = child::workplace() {
        return write_on(&dir);
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("kernel.sqlite");
    drop(SqliteStore::open(&path, Sync::Full).unwrap());
    let mut model = Model::default();
    for _ in 0..2 {
        // No file longer than some 2 MB; the signal that would come with it is ignored.
        let limited = "trap '' XFSZ; ulimit -f 4096";
        let test = "crash::a_full_disk_is_a_fault_and_releases_nothing";
        let writer: Spawned = child::spawn(test, dir.path(), limited);
        let said = writer.finish();
        let said_after = |word: &str| {
            said.iter().filter_map(|line| line.strip_prefix(word)).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(said_after("end").len(), 1, "{said:?}");
        let faults = said_after("fault ");
        let acknowledged = last(&said_after("durable ")).unwrap();
        assert_eq!(faults, [(acknowledged + 1).to_string()]);
        assert_eq!(model.check(&path), acknowledged, "a batch that failed is not there in part");
        // With room again, the store goes on where it was: the log is emptied at the latest when it is closed.
        let (mut store, tables) = SqliteStore::open(&path, Sync::Full).unwrap();
        let (_, changes) = next_batch(&mut Db::load(tables));
        store.apply(&changes).unwrap();
        drop(store);
        assert_eq!(model.check(&path), acknowledged + 1);
    }
}
