//! Whether what was said on a channel still holds when its decision is to be committed.

use super::{Decision, Party};
use crate::facts::Facts;
use capstan_model::peer::{Epoch, Incarnation};

/// What to do with [`Decision::New`] given the rows as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewVerdict {
    /// Nothing that matters has changed: commit it.
    Commit,
    /// The session it names is mine already, and nothing has been exchanged in it: only bind the channel.
    Bind,
    /// Another handshake won meanwhile: close, conclude nothing.
    Close,
}

/// Whether both describe one session of mine with the peer.
fn same_session(said: &Facts, now: &Facts) -> bool {
    let (said, now) = match (Party::of(said), Party::of(now)) {
        (Some(said), Some(now)) => (said, now),
        _ => return said.incarnation == now.incarnation && said.session.is_none() == now.session.is_none(),
    };
    said.life == now.life
        && said.facts.believes == now.facts.believes
        && said.facts.epoch == now.facts.epoch
        && said.facts.classic_born == now.facts.classic_born
}

/// Whether the session of `now` is the one named by my life, `peer` and `epoch`.
fn names(now: &Facts, peer: &Incarnation, epoch: Epoch) -> bool {
    now.session
        .as_ref()
        .is_some_and(|session| session.believes.as_ref() == Some(peer) && session.epoch == epoch)
}

fn confirmed(facts: &Facts) -> bool {
    facts.session.as_ref().is_some_and(|session| session.confirmed())
}

/// Judges a decision `New { epoch, .. }` toward `peer`: what I said in this exchange against what holds now.
pub fn stale_new(said: &Facts, now: &Facts, peer: &Incarnation, epoch: Epoch) -> NewVerdict {
    if said.incarnation == now.incarnation && names(now, peer, epoch) {
        return if confirmed(now) { NewVerdict::Close } else { NewVerdict::Bind };
    }
    if same_session(said, now) && confirmed(said) == confirmed(now) {
        NewVerdict::Commit
    } else {
        NewVerdict::Close
    }
}

/// Whether a decision `Resume` has become stale: the session, `una` or `recv` changed. (`sent` may grow.)
pub fn stale_resume(said: &Facts, now: &Facts) -> bool {
    let marks = |facts: &Facts| facts.session.as_ref().map(|session| (session.una, session.recv));
    !same_session(said, now) || marks(said) != marks(now)
}

/// Whether a classic exchange that observed `peer` has become stale: my life or epoch changed, or my record of the
/// peer did and is not what was observed.
pub fn stale_classic(said: &Facts, now: &Facts, peer: &Incarnation) -> bool {
    let epoch = |facts: &Facts| facts.session.as_ref().map(|session| session.epoch);
    let believes = |facts: &Facts| facts.session.as_ref().and_then(|session| session.believes.clone());
    said.incarnation != now.incarnation
        || epoch(said) != epoch(now)
        || (believes(said) != believes(now) && believes(now).as_ref() != Some(peer))
}

/// Whether a responder must wait for the dialler's `confirm` before it commits: its session would change.
pub fn awaits_confirm(decision: &Decision, now: &Facts, peer: &Incarnation) -> bool {
    match decision {
        Decision::New { epoch, .. } => !names(now, peer, *epoch),
        Decision::Clone | Decision::Classic | Decision::Resume { .. } => false,
        Decision::IRegressed { .. } | Decision::Close(_) => false,
    }
}
