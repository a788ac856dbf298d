//! The writer thread over a backend that fails on demand.

use capstan_store::error::StoreError;
use capstan_store::schema::ChangeSet;
use capstan_store::writer::{Backend, Pace, Writer, WriterFault};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

/// What the backend was told to do.
#[derive(Debug, PartialEq)]
enum Act {
    Applied(Box<ChangeSet>),
    Refused,
    Tidied,
}

/// Answers each write as the test says, and waits until it does.
struct Scripted {
    answers: Receiver<Result<(), StoreError>>,
    acts: Sender<Act>,
}

impl Backend for Scripted {
    fn apply(&mut self, changes: &ChangeSet) -> Result<(), StoreError> {
        let answer = self.answers.recv().unwrap();
        let act = if answer.is_ok() { Act::Applied(Box::new(changes.clone())) } else { Act::Refused };
        self.acts.send(act).unwrap();
        answer
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.acts.send(Act::Tidied).unwrap();
        Ok(())
    }
}

struct Fixture {
    writer: Writer,
    answers: Sender<Result<(), StoreError>>,
    acts: Receiver<Act>,
    news: Receiver<Result<u64, WriterFault>>,
}

impl Fixture {
    fn new(idle: Duration) -> Self {
        let (answers, script) = mpsc::channel();
        let (told, acts) = mpsc::channel();
        let (sink, news) = mpsc::channel();
        let pace = Pace { retries_max: 3, pause: Duration::from_millis(1), idle };
        let store = Scripted { answers: script, acts: told };
        let writer = Writer::spawn_at(store, pace, move |result| sink.send(result).unwrap()).unwrap();
        Fixture { writer, answers, acts, news }
    }

    fn never_idle() -> Self {
        Fixture::new(Duration::from_secs(3600))
    }

    /// Submits batches, which all wait before the first is answered for.
    fn submit(&self, batches: impl IntoIterator<Item = (u64, ChangeSet)>) {
        batches.into_iter().for_each(|(number, changes)| self.writer.submit(number, changes).unwrap());
    }

    /// Stops, and returns the sink's news and all that was done.
    fn stop(self) -> (Vec<Result<u64, String>>, Vec<Act>) {
        self.writer.stop().unwrap();
        let news = self.news.iter().map(|told| told.map_err(|fault| fault.to_string()));
        (news.collect(), self.acts.iter().collect())
    }
}

fn put(key: &str, value: u64) -> ChangeSet {
    ChangeSet { counters: [(key.into(), Some(value))].into(), ..ChangeSet::default() }
}

fn delete(key: &str) -> ChangeSet {
    ChangeSet { counters: [(key.into(), None)].into(), ..ChangeSet::default() }
}

fn applied(changes: ChangeSet) -> Act {
    Act::Applied(Box::new(changes))
}

#[test]
fn batches_that_wait_are_written_as_one_and_the_later_row_stands() {
    let world = Fixture::never_idle();
    world.submit([(1, put("a", 1))]);
    // An answer is taken only when the first batch, and perhaps more, is being written.
    world.answers.send(Ok(())).unwrap();
    assert_eq!(world.news.recv().unwrap().unwrap(), 1);
    let first = world.acts.recv().unwrap();
    assert_eq!(first, applied(put("a", 1)));

    world.submit([(2, put("b", 1)), (3, put("a", 2)), (4, delete("b")), (5, put("c", 1))]);
    // Two writes at most: what is being written, and all the rest.
    (0..4).for_each(|_| world.answers.send(Ok(())).unwrap());
    let (news, acts) = world.stop();
    assert_eq!(news.last(), Some(&Ok(5)));
    assert!(news.iter().map(|told| told.as_ref().unwrap()).is_sorted());
    let mut all = ChangeSet::default();
    for act in acts {
        match act {
            Act::Applied(changes) => all.merge(*changes),
            other => assert_eq!(other, Act::Tidied),
        }
    }
    assert_eq!(all.counters, [("a".into(), Some(2)), ("b".into(), None), ("c".into(), Some(1))].into());
}

#[test]
fn stopping_flushes_and_tidies_up() {
    let world = Fixture::never_idle();
    world.submit([(1, put("a", 1))]);
    world.answers.send(Ok(())).unwrap();
    let (news, acts) = world.stop();
    assert_eq!(news, [Ok(1)]);
    assert_eq!(acts, [applied(put("a", 1)), Act::Tidied]);
}

#[test]
fn an_empty_batch_is_durable_without_a_write() {
    let world = Fixture::never_idle();
    world.submit([(1, ChangeSet::default())]);
    let (news, acts) = world.stop();
    assert_eq!(news, [Ok(1)]);
    assert_eq!(acts, [Act::Tidied]);
}

#[test]
fn a_busy_store_is_tried_again() {
    let world = Fixture::never_idle();
    world.submit([(1, put("a", 1))]);
    for answer in [Err(StoreError::Busy), Err(StoreError::Busy), Err(StoreError::Busy), Ok(())] {
        world.answers.send(answer).unwrap();
    }
    let (news, acts) = world.stop();
    assert_eq!(news, [Ok(1)]);
    assert_eq!(acts, [Act::Refused, Act::Refused, Act::Refused, applied(put("a", 1)), Act::Tidied]);
}

#[test]
fn after_a_fault_nothing_is_written_and_nothing_is_told() {
    let world = Fixture::never_idle();
    world.submit([(1, put("a", 1))]);
    (0..4).for_each(|_| world.answers.send(Err(StoreError::Busy)).unwrap());
    let fault = world.news.recv().unwrap().unwrap_err();
    assert_eq!(fault.batch, 1);
    assert!(matches!(fault.source, StoreError::Busy));
    // The disk would take it now.
    world.answers.send(Ok(())).unwrap();
    world.submit([(2, put("b", 1)), (3, put("c", 1))]);
    let (news, acts) = world.stop();
    assert_eq!(news, []);
    assert_eq!(acts, [Act::Refused, Act::Refused, Act::Refused, Act::Refused]);
}

#[test]
fn what_will_not_pass_is_not_tried_again() {
    let world = Fixture::never_idle();
    world.submit([(7, put("a", 1))]);
    world.answers.send(Err(StoreError::Damaged("page 3".into()))).unwrap();
    let (news, acts) = world.stop();
    assert_eq!(news, [Err("batch 7 could not be stored".into())]);
    assert_eq!(acts, [Act::Refused]);
}

#[test]
fn an_idle_store_is_tidied_up_once() {
    let world = Fixture::new(Duration::from_millis(1));
    assert_eq!(world.acts.recv().unwrap(), Act::Tidied);
    world.submit([(1, put("a", 1))]);
    world.answers.send(Ok(())).unwrap();
    assert_eq!(world.acts.recv().unwrap(), applied(put("a", 1)));
    assert_eq!(world.acts.recv().unwrap(), Act::Tidied);
    let (_, acts) = world.stop();
    assert_eq!(acts, [Act::Tidied], "only that of the end");
}
