//! The numbers and pure rules of the link machine.

use capstan_model::peer::Millis;
use std::num::NonZeroU32;

/// What may be chosen about links. The defaults are those between session kernels (03 B-33a).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// The back-off before the first retry is below this.
    pub retry_base: Millis,
    /// No back-off is longer.
    pub retry_cap: Millis,
    /// Give up after so many dials without a registered channel; 0: never.
    pub max_retry_attempts: u32,
    /// How long the peer may take for its part of a handshake.
    pub handshake_timeout: Millis,
    /// Channels in use at once, all peers. A dial beyond it waits for room, an inbound channel is refused.
    pub connections_max: usize,
    /// Dials of one peer in any minute; one more waits.
    pub dials_per_minute: NonZeroU32,
    /// Frames written to one peer in any second; one more waits. `None`: as many as the peer's credit allows.
    pub messages_per_second: Option<NonZeroU32>,
    /// A channel on which nothing was heard or said for so long is lost; never below five seconds.
    pub inactivity_timeout: Millis,
    /// A peer without a channel that nobody wanted for so long is forgotten.
    pub stale_timeout: Millis,
}

impl LinkOptions {
    /// The defaults.
    pub const DEFAULT: LinkOptions = LinkOptions {
        retry_base: Millis(25),
        retry_cap: Millis(2_000),
        max_retry_attempts: 0,
        handshake_timeout: Millis(10_000),
        connections_max: 1024,
        // In a constant: the compiler proves it.
        dials_per_minute: NonZeroU32::new(600).expect("not zero"),
        messages_per_second: None,
        inactivity_timeout: Millis(120_000),
        stale_timeout: Millis(3_600_000),
    };

    /// How long a channel may be silent.
    pub(super) fn silence_max(&self) -> Millis {
        self.inactivity_timeout.max(INACTIVITY_MIN)
    }
}

impl Default for LinkOptions {
    fn default() -> Self {
        LinkOptions::DEFAULT
    }
}

/// No channel is given up for a shorter silence, whatever the options say (03 B-7).
pub(super) const INACTIVITY_MIN: Millis = Millis(5_000);
/// Equal refusals in a row after which a peer is taken to be down (03 B-44).
pub(super) const REFUSALS_DOWN: u32 = 5;
/// The pause after a failure that trying again will hardly mend.
pub(super) const HOPELESS_PAUSE: Millis = Millis(30_000);

/// Channels of one peer in handshake: two crossing dials and a re-dial of each fit.
pub(super) const HANDSHAKES_PER_PEER_MAX: usize = 4;
/// Inbound channels in handshake, all peers: bounds what strangers can hold open.
pub(super) const INBOUND_HANDSHAKES_MAX: usize = 256;
/// Frames kept before the verdict: a dialler may send at once, but not for long. The reference may have 200 messages
/// under way, and says a handshake for each.
pub(super) const KEPT_FRAMES_MAX: usize = 256;
/// Bytes kept before the verdict.
pub(super) const KEPT_BYTES_MAX: usize = 1 << 20;
/// Addresses remembered per peer.
pub(super) const HINTS_MAX: usize = 16;
/// For so long after we registered our own dial, one from the larger peer id is taken for a crossing dial.
pub(super) const CROSSING: Millis = Millis(2_000);

/// Frames a second to a kernel of the reference, acknowledgements among them: below the 100 that it sends to one peer
/// in a second (03 B-7). It answers most of what it gets, and loses what would be beyond that.
pub(super) const CLASSIC_FRAMES_PER_SECOND: NonZeroU32 = NonZeroU32::new(80).expect("not zero");
/// Frames that it is given at once; with those of the second that follows still below its limit.
pub(super) const CLASSIC_BURST: NonZeroU32 = NonZeroU32::new(16).expect("not zero");

/// The back-off before retry number `attempt` (from 1), with full jitter: `chance / 2^64` of the doubled base,
/// capped (03 B-38).
pub fn delay(options: &LinkOptions, attempt: u32, chance: u64) -> Millis {
    let base = options.retry_base.0.max(1);
    let cap = options.retry_cap.0.max(base);
    let doubled =
        1_u64.checked_shl(attempt.saturating_sub(1)).map_or(u64::MAX, |factor| base.saturating_mul(factor));
    let scaled = u128::from(chance) * u128::from(doubled.min(cap));
    Millis(u64::try_from(scaled >> 64).unwrap_or(cap))
}
