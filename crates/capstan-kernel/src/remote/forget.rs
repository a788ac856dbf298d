//! Taking down what a peer contributed, and what the user may do to a peer (03 D.5, D.10, C-24a, B-48, B-49).

use super::channels::Channels;
use super::restart::{Ending, end_session, finalize_peer_restart};
use super::{facts, outbox, settled, unconfirmed};
use crate::effect::{Effect, LogLevel};
use crate::fault::Corrupt;
use crate::host_op::Refusal;
use crate::turn::Turn;
use crate::{clist, counts, queue};
use capstan_model::error::{IntentionalCloseError, KernelError};
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, RemoteId};
use capstan_model::peer::{Hint, PeerId, Seq};
use capstan_model::refs::Side;
use capstan_store::schema::{
    Candidates, Clist, ClistByEref, Meta, Objects, Outbox, Owner, PeerIncarnations, PromiseState, Promises,
    QueueItem, Remotes, RemotesByPeer, RunQueue, Sessions,
};
use capstan_wire::seam::LinkOrder;
use std::sync::Arc;

/// Takes down what the peer introduced; what we exported to it stays (03 D.5).
///
/// Promises that the peer decided are settled before: settlement, and only settlement, releases the decider's claim.
#[doc(alias = "forgetEndpointImports")]
pub(super) fn forget_endpoint_imports(turn: &mut Turn<'_>, rid: RemoteId) -> Result<(), Corrupt> {
    let endpoint = EndpointId::Remote(rid);
    skip_half_pairs(turn, endpoint);
    for (kref, row) in clist::entries(&turn.tx, endpoint) {
        let whole = clist::kref_of(&turn.tx, endpoint, row.eref) == Some(kref);
        if row.eref.side() == Side::Import || !whole {
            continue;
        }
        match kref {
            KRef::Promise(kp) => {
                unsubscribe(turn, kp, endpoint);
                clist::remove(&mut turn.tx, endpoint, kref)?;
            }
            KRef::Object(ko) => forget_object(turn, endpoint, ko)?,
        }
    }
    Ok(())
}

fn forget_object(turn: &mut Turn<'_>, endpoint: EndpointId, ko: ObjectId) -> Result<(), Corrupt> {
    match turn.tx.get::<Objects>(&ko).ok_or(Corrupt::NoObject(ko))?.owner {
        Some(Owner::Endpoint(owner)) if owner == endpoint => clist::disown(&mut turn.tx, ko),
        None => {
            clist::remove(&mut turn.tx, endpoint, KRef::Object(ko))?;
            turn.tx.put::<Candidates>(KRef::Object(ko), ());
            Ok(())
        }
        Some(Owner::Endpoint(_) | Owner::Kernel) => {
            clist::remove(&mut turn.tx, endpoint, KRef::Object(ko))?;
            turn.log(
                LogLevel::Warn,
                format!("{ko} of {endpoint} has another owner; only its name is dropped"),
            );
            Ok(())
        }
    }
}

/// Says which entries lack their other half; they are left alone.
fn skip_half_pairs(turn: &mut Turn<'_>, endpoint: EndpointId) {
    let halves = turn.tx.iter::<ClistByEref>().filter(|((owner, eref), kref)| {
        *owner == endpoint && clist::entry(&turn.tx, endpoint, **kref).is_none_or(|row| row.eref != *eref)
    });
    let mut found: Vec<String> = halves.map(|((_, eref), _)| eref.to_string()).collect();
    let entries = turn.tx.range::<Clist>((endpoint, KRef::Object(ObjectId(0)))..);
    let own = entries.take_while(|((owner, _), _)| *owner == endpoint);
    let lone = own.filter(|((_, kref), row)| clist::kref_of(&turn.tx, endpoint, row.eref) != Some(*kref));
    found.extend(lone.map(|(_, row)| row.eref.to_string()));
    for eref in found {
        turn.log(LogLevel::Warn, format!("half an entry {eref} of {endpoint} is skipped"));
    }
}

fn echo_key(rid: RemoteId) -> Arc<str> {
    format!("gcEcho {rid}").into()
}

/// The next reap of this remote was asked for by the peer: it is not sent back (03 E-13).
pub(super) fn set_echo(turn: &mut Turn<'_>, rid: RemoteId) {
    turn.tx.put::<Meta>(echo_key(rid), "1".into());
}

/// Clears the mark of [`set_echo`]; says whether it was there.
pub(super) fn clear_echo(turn: &mut Turn<'_>, rid: RemoteId) -> bool {
    turn.tx.delete::<Meta>(&echo_key(rid)).is_some()
}

/// Deletes a remote's record and all sequence state; only the epochs survive (03 D.10, S14).
#[doc(alias = "deleteRemoteInfo")]
pub(super) fn delete_remote_info(turn: &mut Turn<'_>, rid: RemoteId) {
    match turn.tx.delete::<Remotes>(&rid) {
        Some(row) => {
            turn.tx.delete::<RemotesByPeer>(&row.peer);
            turn.tx.delete::<PeerIncarnations>(&row.peer);
            facts::forget_limits(turn, &row.peer);
            let session = facts::session(&turn.tx, &row.peer);
            if session.epoch.0 == 0 && session.left.is_none() {
                turn.tx.delete::<Sessions>(&row.peer);
            }
        }
        None => turn.log(LogLevel::Error, format!("{rid} has no record; what is keyed by it is removed")),
    }
    let rows: Vec<_> =
        turn.tx.range::<Outbox>((rid, Seq(0))..=(rid, Seq(u64::MAX))).map(|(key, _)| *key).collect();
    for key in rows {
        turn.tx.delete::<Outbox>(&key);
    }
    crate::gc::forget_endpoint(&mut turn.tx, EndpointId::Remote(rid));
    unconfirmed::forget(turn, rid);
    settled::forget(turn, rid);
    clear_echo(turn, rid);
}

/// Takes down what we exported to the peer as well.
fn forget_exports(turn: &mut Turn<'_>, rid: RemoteId) -> Result<(), Corrupt> {
    let endpoint = EndpointId::Remote(rid);
    for (kref, _) in clist::entries(&turn.tx, endpoint) {
        if let KRef::Promise(kp) = kref {
            unsubscribe(turn, kp, endpoint);
        }
        clist::remove(&mut turn.tx, endpoint, kref)?;
    }
    let waiting = turn.tx.iter::<RunQueue>().filter_map(|(at, item)| match item {
        QueueItem::Notify { endpoint: whom, promise } if *whom == endpoint => Some((*at, *promise)),
        QueueItem::Notify { .. } | QueueItem::Send(_) | QueueItem::Unreadable(_) => None,
    });
    for (at, kp) in waiting.collect::<Vec<_>>() {
        queue::take(&mut turn.tx, at);
        counts::release(&mut turn.tx, KRef::Promise(kp))?;
    }
    Ok(())
}

/// The endpoint is not told when the promise settles.
pub(super) fn unsubscribe(turn: &mut Turn<'_>, kp: PromiseId, endpoint: EndpointId) {
    turn.tx.update::<Promises, _>(&kp, |row| match &mut row.state {
        PromiseState::Unresolved { subscribers, .. } => {
            subscribers.remove(&endpoint);
        }
        PromiseState::Fulfilled(_) | PromiseState::Rejected(_) => {}
    });
}

fn unknown(peer: &PeerId) -> Refusal {
    Refusal::PeerNotFound(peer.clone())
}

/// Remembers where a peer can be dialled; makes a remote for it if there is none.
pub(crate) fn peer_hint(
    turn: &mut Turn<'_>,
    peer: &PeerId,
    hints: Vec<Hint>,
) -> Result<Result<(), Refusal>, Corrupt> {
    if *peer == turn.config.peer {
        return Ok(Err(Refusal::BadReference(format!("{peer} is this kernel"))));
    }
    let rid = facts::ensure_remote(turn, peer, &hints)?;
    if outbox::wanted(&turn.tx, rid) {
        let for_send = outbox::pending(&turn.tx, rid);
        turn.link(LinkOrder::Want { peer: peer.clone(), hints, for_send });
    }
    Ok(Ok(()))
}

/// Ends the session with the peer and refuses it until [`peer_reconnect`] (03 B-48, C-24a).
pub(crate) fn peer_close(
    turn: &mut Turn<'_>,
    channels: &mut Channels,
    peer: &PeerId,
) -> Result<Result<(), Refusal>, Corrupt> {
    let Some(rid) = facts::remote_of(&turn.tx, peer) else { return Ok(Err(unknown(peer))) };
    let ending = Ending {
        error: KernelError::connection_lost(peer),
        refusal: Refusal::Redemption(IntentionalCloseError::MESSAGE.into()),
    };
    end_and_tell(turn, rid, peer, &ending)?;
    turn.tx.update::<Remotes, _>(&rid, |row| row.closed = true);
    turn.link(LinkOrder::ClosePeer { peer: peer.clone() });
    channels.forget_peer(peer);
    Ok(Ok(()))
}

/// Undoes a close and dials (03 B-49).
pub(crate) fn peer_reconnect(
    turn: &mut Turn<'_>,
    peer: &PeerId,
    hints: Vec<Hint>,
) -> Result<Result<(), Refusal>, Corrupt> {
    let Some(rid) = facts::remote_of(&turn.tx, peer) else { return Ok(Err(unknown(peer))) };
    facts::learn(turn, rid, &hints);
    turn.tx.update::<Remotes, _>(&rid, |row| row.closed = false);
    let known = turn.tx.get::<Remotes>(&rid).map(|row| row.hints.clone()).unwrap_or_default();
    turn.link(LinkOrder::Reopen { peer: peer.clone(), hints: known });
    Ok(Ok(()))
}

/// Deletes a remote and all that is kept about it but its epochs (03 C-42, S14).
pub(crate) fn peer_forget(
    turn: &mut Turn<'_>,
    channels: &mut Channels,
    peer: &PeerId,
) -> Result<Result<(), Refusal>, Corrupt> {
    let Some(rid) = facts::remote_of(&turn.tx, peer) else { return Ok(Err(unknown(peer))) };
    let ending = Ending {
        error: KernelError::connection_lost(peer),
        refusal: Refusal::Redemption(format!("Remote connection lost: {peer} was forgotten")),
    };
    end_and_tell(turn, rid, peer, &ending)?;
    forget_exports(turn, rid)?;
    delete_remote_info(turn, rid);
    turn.link(LinkOrder::ForgetPeer { peer: peer.clone() });
    channels.forget_peer(peer);
    Ok(Ok(()))
}

/// Ends the session so that we are nascent toward the peer, and tells those who waited.
pub(super) fn end_and_tell(
    turn: &mut Turn<'_>,
    rid: RemoteId,
    peer: &PeerId,
    ending: &Ending,
) -> Result<(), Corrupt> {
    let session = facts::session(&turn.tx, peer);
    if outbox::keeps_names(turn, peer) && (session.sent.0 > 0 || session.recv.0 > 0) {
        facts::rename_life(turn, peer);
    }
    let outcome = end_session(turn, rid, ending)?;
    facts::record_life(turn, peer, None);
    let effects = finalize_peer_restart(outcome);
    let told = effects.into_iter().filter(|effect| matches!(effect, Effect::Answer { .. }));
    turn.effects.extend(told);
    Ok(())
}
