//! The clock and the dice: what the kernel is told as part of its inputs (law L9).

use capstan_model::peer::{Incarnation, Millis};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch; 0 for a clock set before it.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    wall: Millis,
    steady: Instant,
}

impl Clocks {
    pub(crate) fn now() -> Self {
        Clocks { wall: now(), steady: Instant::now() }
    }

    /// How long since then, by the clock that stands still while the machine is suspended.
    pub(crate) fn awake(&self, now: &Clocks) -> Duration {
        now.steady.saturating_duration_since(self.steady)
    }

    /// By how much the wall clock has gone further than the time spent awake.
    pub(crate) fn asleep(&self, now: &Clocks) -> Duration {
        let wall = Duration::from_millis(now.wall.0.saturating_sub(self.wall.0));
        wall.saturating_sub(self.awake(now))
    }
}

/// Random bytes of the system.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A random 128-bit text.
pub(crate) fn key() -> Result<String, getrandom::Error> {
    Ok(hex::encode(bytes::<16>()?))
}

/// The name of a new life: a random UUID (03 A-12).
pub(crate) fn life() -> Result<Incarnation, getrandom::Error> {
    Ok(Incarnation::new(uuid(bytes()?)))
}

/// The text of a version 4 UUID with these random bits.
fn uuid(bytes: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(bytes);
    let bits = bits & !(0xf << 76) | (4 << 76);
    let bits = bits & !(0b11 << 62) | (0b10 << 62);
    let digits = format!("{bits:032x}");
    let mut text = String::with_capacity(36);
    for (at, digit) in digits.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_alone_tells_of_sleep() {
        let before = Clocks::now();
        let later = |wall, steady| Clocks {
            wall: Millis(before.wall.0 + wall),
            steady: before.steady + Duration::from_millis(steady),
        };
        assert_eq!(before.asleep(&later(60_000, 1_000)), Duration::from_secs(59));
        assert_eq!(before.asleep(&later(60_000, 60_000)), Duration::ZERO);
        assert_eq!(before.asleep(&later(0, 60_000)), Duration::ZERO);
    }

    #[test]
    fn lives_are_uuids_of_version_4() {
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_ne!(life(), life());
    }
}
