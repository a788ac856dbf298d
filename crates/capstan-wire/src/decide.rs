//! What two handshakes mean together: the session generation's total function, and the classic verdict (03 G.3, D.2, D.6).
//!
//! **Invariant:** each side judges only itself: nothing here concludes that the *peer* regressed.

use crate::facts::{Facts, SessionFacts};
use capstan_model::peer::{Digest, Epoch, Incarnation, Seq};

mod classic;
mod stale;

pub use classic::{KernelVerdict, channel_verdict, restart_verdict};
pub use stale::{NewVerdict, awaits_confirm, stale_classic, stale_new, stale_resume};

/// My rows at the moment of deciding, as far as they may have moved since my frame was built.
pub struct Standing<'n> {
    /// The last number I assigned.
    pub sent: Seq,
    /// The last contiguous number I received.
    pub recv: Seq,
    /// The digest of my frames `1..=n`; `None` below `una - 1`, where it is no longer kept.
    pub digest_at: &'n dyn Fn(Seq) -> Option<Digest>,
}

/// What becomes of the session between two kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// My own peer id at the other end: refuse, alarm.
    Clone,
    /// One side speaks the classic generation: [`restart_verdict`] applies.
    Classic,
    /// Go on where we were.
    Resume {
        /// The session's epoch; differs from mine only if the session is classic-born.
        epoch: Epoch,
    },
    /// I am a restored backup: end every session with this peer, become a new incarnation.
    IRegressed {
        /// The epoch to go on from.
        epoch: Epoch,
    },
    /// The peer judges itself, or its frame is old: close and try again.
    Close(&'static str),
    /// Another session starts.
    New {
        /// Its epoch; both sides compute the same.
        epoch: Epoch,
        /// My outbox belongs to the old session and is rejected; otherwise it is carried over.
        reset: bool,
    },
}

/// One side's facts, known to be of the session generation.
#[derive(Clone, Copy)]
struct Party<'f> {
    life: &'f Incarnation,
    facts: &'f SessionFacts,
}

impl<'f> Party<'f> {
    fn of(facts: &'f Facts) -> Option<Self> {
        Some(Party { life: &facts.incarnation, facts: facts.session.as_ref()? })
    }

    /// Whether I hold a record of this life of theirs.
    fn believes_in(self, other: Party<'_>) -> bool {
        self.facts.believes.as_ref() == Some(other.life)
    }

    /// Whether I remember having left a confirmed session with that life, later than `epoch`.
    fn left_after(self, other: Party<'_>, epoch: Epoch) -> bool {
        self.facts.left.as_ref().is_some_and(|left| left.life == *other.life && left.epoch > epoch)
    }
}

/// Decides from what I said on this channel (`me`), what the peer said (`th`), and my rows now.
///
/// Total, and for honest peers mirrored: `decide(a, b)` and `decide(b, a)` name the same session.
pub fn decide(me: &Facts, th: &Facts, now: &Standing<'_>, own_peer: bool) -> Decision {
    if own_peer {
        return Decision::Clone;
    }
    let (Some(me), Some(th)) = (Party::of(me), Party::of(th)) else {
        return Decision::Classic;
    };
    let (mine, theirs) = (me.believes_in(th), th.believes_in(me));
    let (my_epoch, their_epoch) = (me.facts.epoch, th.facts.epoch);
    let epoch = my_epoch.max(their_epoch);
    let classic_born = me.facts.classic_born || th.facts.classic_born;
    if mine && theirs && (my_epoch == their_epoch || classic_born) {
        return same_session(me.facts, th.facts, now, epoch);
    }
    if theirs && their_epoch > my_epoch && th.facts.confirmed() {
        return Decision::IRegressed { epoch };
    }
    if mine && my_epoch > their_epoch && me.facts.confirmed() {
        return Decision::Close("the peer is in an older session than the one it confirmed");
    }
    if th.left_after(me, my_epoch) {
        return Decision::IRegressed { epoch };
    }
    if me.left_after(th, their_epoch) {
        return Decision::Close("the peer is in an older session than the one we left");
    }
    let join = if mine && my_epoch > their_epoch {
        carries(me, th)
    } else if theirs && their_epoch > my_epoch {
        carries(th, me)
    } else {
        false
    };
    let epoch = if join { epoch } else { Epoch(epoch.0.saturating_add(1)) };
    Decision::New { epoch, reset: !carries(me, th) }
}

/// Both name the same session: resume, unless the watermarks or digests tell that one of us went back.
fn same_session(me: &SessionFacts, th: &SessionFacts, now: &Standing<'_>, epoch: Epoch) -> Decision {
    let last_acked = |facts: &SessionFacts| Seq(facts.una.0.saturating_sub(1));
    if th.recv > now.sent || last_acked(th) > now.recv {
        return Decision::IRegressed { epoch };
    }
    match (now.digest_at)(th.recv) {
        None => return Decision::Close("the peer is behind what it acknowledged"),
        Some(digest) if digest != th.digest => return Decision::IRegressed { epoch },
        Some(_) => {}
    }
    if th.recv < last_acked(me) || th.sent < me.recv {
        return Decision::Close("the peer is behind what it acknowledged or sent");
    }
    Decision::Resume { epoch }
}

/// Whether `a` may keep its outbox in a new session, given what `b` says it has processed.
///
/// False where either side is classic.
pub fn can_carry(a: &Facts, b: &Facts) -> bool {
    Party::of(a).zip(Party::of(b)).is_some_and(|(a, b)| carries(a, b))
}

fn carries(a: Party<'_>, b: Party<'_>) -> bool {
    if a.facts.believes.is_none() {
        return true; // nascent: its entries have been offered to nobody
    }
    if !a.believes_in(b) || a.facts.confirmed() {
        return false;
    }
    if b.facts.left.as_ref().is_some_and(|left| left.life == *a.life && left.epoch >= a.facts.base) {
        return false;
    }
    !(b.believes_in(a) && b.facts.recv > Seq(0) && b.facts.epoch >= a.facts.base)
}

#[cfg(test)]
mod tests;
