//! The timers that one vat has set. They are the host's clock and die with the run of the vat.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Timers pending in one vat; they live outside its heap.
pub(crate) const PENDING_MAX: usize = 10_000;

/// Pending timers by the number that the vat's side gave them.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// Deadline, then order of setting.
    queue: BTreeSet<(Instant, u64, u32)>,
    pending: BTreeMap<u32, (Instant, u64)>,
    set: u64,
}

impl Timers {
    /// Lets the timer `id` come due after `delay`; returns false if there are too many.
    pub(crate) fn set(&mut self, now: Instant, id: u32, delay: Duration) -> bool {
        self.clear(id);
        let Some(at) = now.checked_add(delay).filter(|_| self.pending.len() < PENDING_MAX) else {
            return false;
        };
        self.set = self.set.saturating_add(1);
        self.queue.insert((at, self.set, id));
        self.pending.insert(id, (at, self.set));
        true
    }

    pub(crate) fn clear(&mut self, id: u32) {
        if let Some((at, order)) = self.pending.remove(&id) {
            self.queue.remove(&(at, order, id));
        }
    }

    /// Takes out what is due, in the order of deadlines.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<u32> {
        let due: Vec<u32> = self.queue.iter().take_while(|(at, ..)| *at <= now).map(|(.., id)| *id).collect();
        for &id in &due {
            self.clear(id);
        }
        due
    }

    /// Returns when the next one comes due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, ..)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn timers_come_due_by_deadline_then_by_age() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        for (id, delay) in [(1, 20), (2, 10), (3, 10), (4, 30), (5, 5)] {
            assert!(timers.set(start, id, ms(delay)));
        }
        timers.clear(5);
        assert_eq!(timers.next(), Some(start + ms(10)));
        assert!(timers.due(start + ms(9)).is_empty());
        assert_eq!(timers.due(start + ms(20)), [2, 3, 1]);
        assert!(timers.set(start, 4, ms(40)), "set again: later");
        assert_eq!((timers.due(start + ms(39)), timers.due(start + ms(40))), (vec![], vec![4]));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn the_number_of_pending_timers_is_bounded() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        assert!((0..PENDING_MAX as u32).all(|id| timers.set(start, id, ms(1))));
        assert!(!timers.set(start, u32::MAX, ms(1)) && timers.set(start, 0, ms(2)));
    }
}
