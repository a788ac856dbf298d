//! How often something may happen: at most so many times within a sliding window (03 B-35).

use capstan_model::peer::Millis;
use std::collections::VecDeque;
use std::num::NonZeroU32;

/// The window of dials.
pub(super) const MINUTE: Millis = Millis(60_000);
/// The window of messages.
pub(super) const SECOND: Millis = Millis(1_000);

/// An event came too early. It is not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Rate limit exceeded: {max}/{max} {kind} in {}ms window", window.0)]
pub struct TooFast {
    /// Of what, for people.
    pub kind: &'static str,
    /// How many are allowed.
    pub max: u32,
    /// Within how long.
    pub window: Millis,
    /// When the next one is allowed.
    pub until: Millis,
}

/// The times of the last events of one kind with one peer.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    kind: &'static str,
    max: u32,
    window: Millis,
    times: VecDeque<Millis>,
}

impl RateLimiter {
    /// Allows `max` events in any `window`, of which a millisecond is the shortest.
    pub fn new(kind: &'static str, max: NonZeroU32, window: Millis) -> Self {
        let window = window.max(Millis(1));
        RateLimiter { kind, max: max.get(), window, times: VecDeque::new() }
    }

    /// Records an event at `now`, or says until when it has to wait.
    pub fn allow(&mut self, now: Millis) -> Result<(), TooFast> {
        self.forget(now);
        match self.next(now) {
            at if at <= now => {
                self.times.push_back(now);
                Ok(())
            }
            until => Err(TooFast { kind: self.kind, max: self.max, window: self.window, until }),
        }
    }

    /// When the next event is allowed: `now`, or later.
    pub fn next(&self, now: Millis) -> Millis {
        let full = self.times.len() >= self.max as usize;
        let hindrance = self.times.front().filter(|_| full);
        hindrance.map_or(now, |time| now.max(time.after(self.window)))
    }

    /// Forgets what is outside the window; a clock that was set back forgets everything.
    fn forget(&mut self, now: Millis) {
        if self.times.back().is_some_and(|last| *last > now) {
            self.times.clear();
        }
        while self.times.front().is_some_and(|time| time.after(self.window) <= now) {
            self.times.pop_front();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn allowing(max: u32, window: u64) -> RateLimiter {
        RateLimiter::new("messages", NonZeroU32::new(max).unwrap(), Millis(window))
    }

    #[test]
    fn r45_a_window_allows_so_many_and_slides() {
        let mut limiter = allowing(3, 1_000);
        let mut other = limiter.clone();
        for at in [0, 400, 900] {
            assert_eq!(limiter.allow(Millis(at)), Ok(()));
        }
        let refused = limiter.allow(Millis(999)).unwrap_err();
        assert_eq!(refused.until, Millis(1_000));
        assert_eq!(refused.to_string(), "Rate limit exceeded: 3/3 messages in 1000ms window");
        // What was refused is not recorded: the next is allowed as soon as the first is outside.
        assert_eq!(limiter.allow(Millis(1_000)), Ok(()));
        assert_eq!(limiter.allow(Millis(1_001)).unwrap_err().until, Millis(1_400));
        assert_eq!(other.allow(Millis(1_001)), Ok(()), "each has its own window");
        // There is no limit of nothing, and none within no time.
        assert!(allowing(1, 0).allow(Millis(7)).is_ok());
        assert_eq!(allowing(1, 0).window, Millis(1));
    }

    #[test]
    fn a_clock_that_goes_back_blocks_nobody() {
        let mut limiter = allowing(1, MINUTE.0);
        assert_eq!(limiter.allow(Millis(500_000)), Ok(()));
        assert_eq!(limiter.allow(Millis(7)), Ok(()));
    }
}
