//! The writer thread: makes batches durable, strictly in order, while the kernel goes on (laws L2, L3).

use crate::error::StoreError;
use crate::schema::ChangeSet;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What a writer writes to.
pub trait Backend: Send + 'static {
    /// Writes a batch durably, or nothing of it.
    fn apply(&mut self, changes: &ChangeSet) -> Result<(), StoreError>;
    /// Tidies up; called when there is nothing to write.
    fn checkpoint(&mut self) -> Result<(), StoreError>;
}

/// A writer's patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Further attempts at a write that failed for a transient reason.
    pub retries_max: u32,
    /// The pause before the first of them; each further one is twice as long.
    pub pause: Duration,
    /// After this long without a batch the store is tidied up.
    pub idle: Duration,
}

impl Default for Pace {
    /// Six attempts with 3 seconds of pauses in all: a full disk is not emptied sooner, and meanwhile the
    /// kernel runs ahead of its store.
    fn default() -> Self {
        Pace { retries_max: 5, pause: Duration::from_millis(100), idle: Duration::from_secs(1) }
    }
}

/// A batch could not be written, nor anything after it. Memory is ahead of the store for good: the kernel must
/// stop, and start again from the store.
#[derive(Debug, thiserror::Error)]
#[error("batch {batch} could not be stored")]
pub struct WriterFault {
    /// The first batch that is not durable.
    pub batch: u64,
    /// Why.
    #[source]
    pub source: StoreError,
}

/// The writer's thread is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the writer has ended")]
pub struct WriterEnded;

struct Submission {
    number: u64,
    changes: ChangeSet,
}

/// The handle to a writer thread. Dropping it flushes, as [`Writer::stop`] does.
#[derive(Debug)]
pub struct Writer {
    /// `None` once stopping: hanging up is the signal to finish.
    submissions: Option<Sender<Submission>>,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Writer {
    /// Starts a thread that owns `store`.
    ///
    /// `sink` is called on that thread, and should do no more than pass on what it is told: `Ok(n)` when all
    /// batches up to `n` are durable, `Err` at most once and then nothing more.
    pub fn spawn(
        store: impl Backend,
        sink: impl FnMut(Result<u64, WriterFault>) + Send + 'static,
    ) -> io::Result<Writer> {
        Writer::spawn_at(store, Pace::default(), sink)
    }

    /// Starts a thread with a patience other than the default.
    pub fn spawn_at(
        store: impl Backend,
        pace: Pace,
        sink: impl FnMut(Result<u64, WriterFault>) + Send + 'static,
    ) -> io::Result<Writer> {
        let (submissions, incoming) = mpsc::channel();
        let thread = thread::Builder::new().name("store-writer".into());
        let thread = thread.spawn(move || run(store, pace, &incoming, sink))?;
        Ok(Writer { submissions: Some(submissions), thread: Some(thread) })
    }

    /// Hands over the next batch and returns at once. Numbers rise from call to call.
    pub fn submit(&self, number: u64, changes: ChangeSet) -> Result<(), WriterEnded> {
        let submissions = self.submissions.as_ref().ok_or(WriterEnded)?;
        submissions.send(Submission { number, changes }).map_err(|_| WriterEnded)
    }

    /// Waits until everything submitted is durable or has failed, empties the log and closes the store.
    ///
    /// What became of the batches goes to the sink as ever; an error here means that only the log is untidy.
    pub fn stop(mut self) -> Result<(), StoreError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        self.submissions = None;
        // A thread that panicked in its sink has nothing left to say.
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap_or(Ok(())))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

fn run(
    mut store: impl Backend,
    pace: Pace,
    incoming: &Receiver<Submission>,
    mut sink: impl FnMut(Result<u64, WriterFault>),
) -> Result<(), StoreError> {
    let mut tidy = false;
    loop {
        let first = if tidy {
            incoming.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            incoming.recv_timeout(pace.idle)
        };
        let first = match first {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                // If this fails, so will the next write, which is better placed to say so.
                let _ = store.checkpoint();
                tidy = true;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return store.checkpoint(),
        };
        let lowest = first.number;
        let merged = merge_waiting(first, incoming);
        match write(&mut store, pace, &merged.changes) {
            Ok(()) => sink(Ok(merged.number)),
            Err(source) => {
                sink(Err(WriterFault { batch: lowest, source }));
                // Take in and forget what still comes, so that submitters see one fault and not two.
                incoming.iter().for_each(drop);
                return Ok(());
            }
        }
        tidy = false;
    }
}

/// Joins all batches that wait into one.
fn merge_waiting(first: Submission, incoming: &Receiver<Submission>) -> Submission {
    let mut merged = first;
    loop {
        match incoming.try_recv() {
            Ok(next) => {
                merged.number = next.number;
                merged.changes.merge(next.changes);
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return merged,
        }
    }
}

fn write(store: &mut impl Backend, pace: Pace, changes: &ChangeSet) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut pause = pace.pause;
    for _ in 0..pace.retries_max {
        match store.apply(changes) {
            Err(error) if error.is_transient() => thread::sleep(pause),
            done => return done,
        }
        pause = pause.saturating_mul(2);
    }
    store.apply(changes)
}
