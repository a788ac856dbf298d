//! The end of a session: one transaction, then what the process must do about it (03 D.3, S8–S10).
//!
//! Ending a session for any reason is the same work: promises the peer decides are rejected, the outbox and the
//! counters go, what the peer introduced is taken down. Our exports to the peer stay (03 D.4).

use super::{facts, forget, settled, unconfirmed};
use crate::effect::Effect;
use crate::fault::Corrupt;
use crate::host_op::Refusal;
use crate::input::RequestId;
use crate::promise;
use crate::queue;
use crate::turn::Turn;
use capstan_model::capdata::CapData;
use capstan_model::error::KernelError;
use capstan_model::id::{EndpointId, KRef, RemoteId};
use capstan_model::peer::{Digest, PeerId, Seq};
use capstan_store::schema::{Decider, Outbox, Redemptions, Remotes, SessionRow, Sessions};
use capstan_wire::seam::LinkOrder;

/// Why a session ended, as those who waited are told.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// What calls reject with.
    pub(super) error: KernelError,
    /// What redemptions are refused with.
    pub(super) refusal: Refusal,
}

impl Ending {
    pub(super) fn restarted() -> Self {
        Ending { error: KernelError::peer_restarted(), refusal: Refusal::PeerRestarted }
    }
}

/// What a committed transition still has to tell the process; rows need nothing more.
#[derive(Debug)]
#[must_use]
pub(crate) struct RestartOutcome {
    pub(super) peer: PeerId,
    /// Requests whose redemption ended with the session, with what they are told.
    pub(super) refused: Vec<(RequestId, Refusal)>,
}

/// Rows only, undone by a rollback: the peer behind `rid` lost its state (03 D.3, lines 3–7 and 13).
#[doc(alias = "persistPeerRestart")]
pub(crate) fn persist_peer_restart(turn: &mut Turn<'_>, rid: RemoteId) -> Result<RestartOutcome, Corrupt> {
    let outcome = end_session(turn, rid, &Ending::restarted())?;
    turn.tx.update::<Remotes, _>(&rid, |row| row.restarts_seen = row.restarts_seen.saturating_add(1));
    Ok(outcome)
}

/// What the process does once the transition is durable: it gets no transaction (03 S9).
#[doc(alias = "finalizePeerRestart")]
pub(crate) fn finalize_peer_restart(outcome: RestartOutcome) -> Vec<Effect> {
    let RestartOutcome { peer, refused } = outcome;
    let answer = |(request, refusal)| Effect::Answer { request, answer: Err(refusal) };
    let mut effects: Vec<Effect> = refused.into_iter().map(answer).collect();
    effects.push(Effect::Link(LinkOrder::ResetNote { peer }));
    effects
}

/// Both in one, where no transaction is open around it.
#[doc(alias = "handlePeerRestart")]
#[cfg_attr(not(test), expect(dead_code, reason = "the handshake needs the two phases apart"))]
pub(crate) fn handle_peer_restart(turn: &mut Turn<'_>, rid: RemoteId) -> Result<(), Corrupt> {
    let outcome = persist_peer_restart(turn, rid)?;
    turn.effects.extend(finalize_peer_restart(outcome));
    Ok(())
}

/// Ends the session with the peer behind `rid`. Order: snapshot, sequence rows and outbox, settlements, tear-down.
/// The incarnation on record is the caller's.
pub(super) fn end_session(
    turn: &mut Turn<'_>,
    rid: RemoteId,
    ending: &Ending,
) -> Result<RestartOutcome, Corrupt> {
    let endpoint = EndpointId::Remote(rid);
    let peer = turn.tx.get::<Remotes>(&rid).ok_or(Corrupt::NoEndpoint(endpoint))?.peer.clone();
    let decided = promise::decided_by(&turn.tx, Decider::Endpoint(endpoint));
    clear_sequence(turn, Some(rid), &peer);
    forget::clear_echo(turn, rid);
    // Messages of the dead life that still wait here are delivered without a result (03 D-24).
    decided.iter().try_for_each(|&kp| queue::strike_result(&mut turn.tx, kp))?;
    for kp in decided {
        promise::reject_as_decider(turn, kp, ending.error.to_capdata())?;
    }
    forget::forget_endpoint_imports(turn, rid)?;
    // The other side does the same, so it holds nothing of ours any more either.
    unconfirmed::begin(turn, rid);
    let refused = refuse_redemptions(turn, rid, ending)?;
    Ok(RestartOutcome { peer, refused })
}

/// Deletes the outbox and sets the counters back; remembers a confirmed session as left.
pub(super) fn clear_sequence(turn: &mut Turn<'_>, rid: Option<RemoteId>, peer: &PeerId) {
    if let Some(rid) = rid {
        let all = turn.tx.range::<Outbox>((rid, Seq(0))..=(rid, Seq(u64::MAX)));
        let keys: Vec<_> = all.map(|(key, _)| *key).collect();
        for key in keys {
            turn.tx.delete::<Outbox>(&key);
        }
        settled::forget(turn, rid);
    }
    let old = facts::session(&turn.tx, peer);
    let life = facts::believes(&turn.tx, peer);
    // An epoch that a classic exchange made up was agreed by nobody and must not be held against the peer.
    let left = match life {
        Some(life) if facts::confirmed(&old) && !old.classic_born => Some((life, old.epoch)),
        Some(_) | None => old.left,
    };
    let fresh = SessionRow {
        epoch: old.epoch,
        base: old.epoch,
        una: Seq(1),
        sent: Seq(0),
        una_digest: Digest::default(),
        recv: Seq(0),
        recv_digest: Digest::default(),
        left,
        classic_born: false,
        outbox_bytes: 0,
    };
    turn.tx.put::<Sessions>(peer.clone(), fresh);
}

pub(super) fn refuse_redemptions(
    turn: &mut Turn<'_>,
    rid: RemoteId,
    ending: &Ending,
) -> Result<Vec<(RequestId, Refusal)>, Corrupt> {
    let keys: Vec<_> = turn
        .tx
        .iter::<Redemptions>()
        .filter(|(_, row)| row.remote == rid)
        .map(|(key, _)| key.clone())
        .collect();
    let mut refused = Vec::new();
    for key in keys {
        let text = ending.refusal.to_string();
        let waiting = super::redeem::end_redemption(turn, &key, Err(text))?;
        refused.extend(waiting.into_iter().map(|request| (request, ending.refusal.clone())));
    }
    Ok(refused)
}

/// An ordinary `Error` with this message, as a value.
pub(super) fn error_value(message: &str) -> CapData<KRef> {
    let message = serde_json::Value::from(message);
    CapData::data(format!(r##"#{{"#error":{message},"name":"Error"}}"##))
}
