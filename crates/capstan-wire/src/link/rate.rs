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

/// A bucket of tokens that fills evenly: a few events may come at once, all others one after the other. Unlike a window
/// it never allows two full bursts in a row, so that what it lets go still fits a window of somebody else's after a
/// journey on which some were held up.
#[derive(Clone, Debug)]
pub(super) struct TokenBucket {
    /// How long one token takes, microseconds.
    every_us: u64,
    /// How many the full bucket holds.
    burst: u64,
    /// When it will be full again, microseconds.
    full_at_us: u64,
}

impl TokenBucket {
    /// A full bucket for `burst` events at once and `per_second` in the long run.
    pub(super) fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let every_us = 1_000_000 / u64::from(per_second.get());
        TokenBucket { every_us, burst: u64::from(burst.get()), full_at_us: 0 }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Millis) -> bool {
        let taken = self.has_one(now);
        if taken {
            let (now_us, full_at_us) = (now.0.saturating_mul(1_000), self.full_at_us);
            let full_at_us = if self.was_set_back(now) { now_us } else { full_at_us.max(now_us) };
            self.full_at_us = full_at_us.saturating_add(self.every_us);
        }
        taken
    }

    pub(super) fn has_one(&self, now: Millis) -> bool {
        self.due() <= now || self.was_set_back(now)
    }

    /// When there is, or was, the next token.
    pub(super) fn due(&self) -> Millis {
        let others_us = self.every_us.saturating_mul(self.burst.saturating_sub(1));
        Millis(self.full_at_us.saturating_sub(others_us).div_ceil(1_000))
    }

    /// A clock that was set back would keep the bucket empty for long.
    fn was_set_back(&self, now: Millis) -> bool {
        let emptied_us = self.every_us.saturating_mul(self.burst);
        self.full_at_us > now.0.saturating_mul(1_000).saturating_add(emptied_us)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_burst_and_then_one_after_the_other() {
        let mut bucket = TokenBucket::new(NonZeroU32::new(80).unwrap(), NonZeroU32::new(16).unwrap());
        let mut times = Vec::new();
        for now in (5_000..15_000).map(Millis) {
            while bucket.take(now) {
                times.push(now.0);
            }
            assert!(bucket.due() > now);
        }
        assert_eq!(times.iter().filter(|at| **at == 5_000).count(), 16);
        let in_a_second = |from: &u64| times.iter().filter(|at| (*from..from + 1_000).contains(at)).count();
        assert!(times.iter().map(in_a_second).all(|count| count <= 96));
        assert_eq!(times.len(), 16 + 10 * 80 - 1);
        // An idle bucket fills, and one whose clock was set back is full.
        for now in [Millis(90_000), Millis(7)] {
            assert_eq!(std::iter::repeat_with(|| bucket.take(now)).take_while(|taken| *taken).count(), 16);
        }
    }

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
