//! Which effects may leave when: the order of batches, without a disk (laws L2, L3).

use std::time::{Duration, Instant};

/// Steps in one batch: more would delay their answers without saving a sync worth naming.
pub(crate) const STEPS_MAX: usize = 256;
/// Bytes that the inputs of one batch brought in: bounds memory while the disk is busy.
pub(crate) const BYTES_MAX: usize = 16 << 20;
/// Somebody waits for an effect of the batch: an idle writer waits no longer for more inputs to join.
const PRESSING_AGE_MAX: Duration = Duration::from_millis(2);
/// Nobody does, so nothing outside depends on it yet. Most often a vat is at work on an answer, and one commit
/// serves the question and the answer.
const AGE_MAX: Duration = Duration::from_millis(10);

/// The batch that gathers and the one on its way to the disk; there are never more.
#[derive(Debug)]
pub(crate) struct Batches<E> {
    gathering: Gathering<E>,
    in_flight: Option<(u64, Vec<E>)>,
    next: u64,
}

#[derive(Debug)]
struct Gathering<E> {
    effects: Vec<E>,
    steps: usize,
    bytes: usize,
    since: Option<Instant>,
    pressing: bool,
}

impl<E> Default for Gathering<E> {
    fn default() -> Self {
        Gathering { effects: Vec::new(), steps: 0, bytes: 0, since: None, pressing: false }
    }
}

/// What becomes of a batch that no more steps join.
#[derive(Debug, PartialEq)]
pub(crate) enum Closed<C, E> {
    /// Make these changes durable under this number; its effects wait.
    Commit(u64, C),
    /// It changed nothing, and nothing before it is undurable: execute these at once.
    Release(Vec<E>),
    /// An earlier batch is in flight: not closed.
    Busy,
}

impl<E> Batches<E> {
    pub(crate) fn new() -> Self {
        Batches { gathering: Gathering::default(), in_flight: None, next: 1 }
    }

    /// Adds one step to the batch that gathers. `bytes`: what its input brought in. `pressing`: somebody waits for
    /// its effects.
    pub(crate) fn gather(&mut self, now: Instant, bytes: usize, pressing: bool, effects: Vec<E>) {
        let batch = &mut self.gathering;
        batch.pressing |= pressing;
        batch.effects.extend(effects);
        batch.steps += 1;
        batch.bytes = batch.bytes.saturating_add(bytes);
        batch.since.get_or_insert(now);
    }

    /// Whether no commit is under way.
    pub(crate) fn writer_idle(&self) -> bool {
        self.in_flight.is_none()
    }

    /// Whether a step was taken since the last batch was closed.
    pub(crate) fn gathered(&self) -> bool {
        self.gathering.steps > 0
    }

    /// Whether no more steps may join.
    pub(crate) fn full(&self) -> bool {
        self.gathering.steps >= STEPS_MAX || self.gathering.bytes >= BYTES_MAX
    }

    /// Whether the batch is to be closed now. `more`: further inputs wait that could join it.
    pub(crate) fn due(&self, now: Instant, more: bool) -> bool {
        let hurry = self.gathering.pressing && !more;
        self.writer_idle()
            && self.gathered()
            && (hurry || self.full() || self.wait(now) == Some(Duration::ZERO))
    }

    /// How long the batch may still wait for more; `None` if there is no writer or nothing to close.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(self.gathering.since?);
        let allowed = if self.gathering.pressing { PRESSING_AGE_MAX } else { AGE_MAX };
        self.writer_idle().then(|| allowed.saturating_sub(age))
    }

    /// Closes the batch, if the writer is idle. `take_changes` is then called once and returns `None` if there are none.
    pub(crate) fn close<C>(&mut self, take_changes: impl FnOnce() -> Option<C>) -> Closed<C, E> {
        if !self.writer_idle() {
            return Closed::Busy;
        }
        let effects = std::mem::take(&mut self.gathering).effects;
        let Some(changes) = take_changes() else { return Closed::Release(effects) };
        let number = self.next;
        self.next += 1;
        self.in_flight = Some((number, effects));
        Closed::Commit(number, changes)
    }

    /// A commit is durable: returns the effects to execute, in order. A number that is not in flight releases nothing.
    pub(crate) fn durable(&mut self, number: u64) -> Vec<E> {
        match self.in_flight.take_if(|(flying, _)| *flying == number) {
            Some((_, effects)) => effects,
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: fn() -> Option<&'static str> = || None;
    const ROWS: fn() -> Option<&'static str> = || Some("rows");

    fn with_steps(count: usize) -> Batches<usize> {
        let mut batches = Batches::new();
        let now = Instant::now();
        (0..count).for_each(|n| batches.gather(now, 0, true, vec![n]));
        batches
    }

    #[test]
    fn effects_wait_for_their_own_commit() {
        let mut batches = with_steps(2);
        assert_eq!(batches.close(ROWS), Closed::Commit(1, "rows"));
        assert_eq!(batches.durable(2), [0; 0]);
        assert_eq!(batches.durable(1), [0, 1]);
        assert_eq!(batches.durable(1), [0; 0]);
    }

    #[test]
    fn a_batch_without_changes_leaves_at_once_but_overtakes_nothing() {
        let mut batches = with_steps(1);
        assert_eq!(batches.close(NOTHING), Closed::Release(vec![0]));
        batches.gather(Instant::now(), 0, true, vec![1]);
        assert_eq!(batches.close(ROWS), Closed::Commit(1, "rows"));
        batches.gather(Instant::now(), 0, true, vec![2]);
        assert_eq!(batches.close(|| -> Option<()> { panic!("changes taken while busy") }), Closed::Busy);
        assert_eq!(batches.durable(1), [1]);
        assert_eq!(batches.close(NOTHING), Closed::Release(vec![2]));
    }

    #[test]
    fn every_effect_leaves_once_in_order_whatever_the_disk_does() {
        // All schedules of eight choices among: a step, a close with or without changes, a commit that returns.
        for schedule in 0..4_u32.pow(8) {
            let (mut batches, mut out, mut made) = (Batches::new(), Vec::new(), 0);
            let mut flying = None;
            for turn in 0..8 {
                match schedule / 4_u32.pow(turn) % 4 {
                    0 => {
                        batches.gather(Instant::now(), 0, true, vec![made]);
                        made += 1;
                    }
                    3 => {
                        if let Some(number) = flying.take() {
                            out.extend(batches.durable(number));
                        }
                    }
                    choice => match batches.close(if choice == 1 { ROWS } else { NOTHING }) {
                        Closed::Commit(number, _) => flying = Some(number),
                        Closed::Release(effects) => out.extend(effects),
                        Closed::Busy => assert!(flying.is_some()),
                    },
                }
            }
            out.extend(flying.map(|number| batches.durable(number)).unwrap_or_default());
            if let Closed::Release(effects) = batches.close(NOTHING) {
                out.extend(effects);
            }
            assert_eq!(out, (0..made).collect::<Vec<_>>(), "schedule {schedule}");
        }
    }

    #[test]
    fn a_batch_is_due_when_full_or_old_or_pressing_and_the_writer_is_idle() {
        let mut batches = Batches::new();
        let now = Instant::now();
        assert!(!batches.due(now, false));
        batches.gather(now, 0, false, vec![0]);
        assert!(!batches.due(now, false) && batches.due(now + AGE_MAX, true));
        assert_eq!(batches.wait(now), Some(AGE_MAX));
        batches.gather(now, 0, true, vec![0]);
        assert!(batches.due(now, false) && !batches.due(now, true));
        assert!(batches.due(now + PRESSING_AGE_MAX, true));
        (2..STEPS_MAX).for_each(|_| batches.gather(now, 0, false, Vec::new()));
        assert!(batches.full() && batches.due(now, true));
        assert_eq!(batches.close(ROWS), Closed::Commit(1, "rows"));
        assert!(!batches.gathered() && !batches.due(now + AGE_MAX, false));
        batches.gather(now, BYTES_MAX, true, vec![0]);
        assert!(batches.full() && !batches.due(now + AGE_MAX, false));
        assert_eq!(batches.wait(now), None);
    }
}
