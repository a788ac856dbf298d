//! Names of settled promises toward classic peers (03 E-10).
//!
//! A session peer and we retire such a name by the acknowledgement of the settlement (see `outbox`). A classic peer may go
//! on using it: what waited in its queues when it was told of the settlement still carries the name. So the name outlives
//! some reaps, each of which the other side learns of by a request to collect:
//! - once it has been told, or has told us, the bit of the promise's entry is clear;
//! - after one reap we do not use the name any more: a later mention is a new promise with the same settlement;
//! - at the third, if the peer has acknowledged the first, it is forgotten. Who still uses it is given a promise that is
//!   rejected.

use super::facts;
use super::outbox;
use crate::clist;
use crate::fault::Corrupt;
use crate::promise;
use crate::turn::Turn;
use capstan_model::error::KernelError;
use capstan_model::id::{EndpointId, KRef, PromiseId, RemoteId};
use capstan_model::peer::Seq;
use capstan_model::refs::RRef;
use capstan_store::overlay::Tx;
use capstan_store::schema::{Clist, Meta, Remotes};
use std::sync::Arc;

fn key(rid: RemoteId) -> Arc<str> {
    format!("settledNames {rid}").into()
}

/// What had been sent at the last reap, and at the one before.
fn marks(tx: &Tx<'_>, rid: RemoteId) -> (Seq, Seq) {
    let text = tx.get::<Meta>(&key(rid));
    let marks = text.and_then(|text| text.split_once(' '));
    let mark = |text: &str| Seq(text.parse().unwrap_or(0));
    marks.map_or((Seq(0), Seq(0)), |(last, before)| (mark(last), mark(before)))
}

/// The peer knows how this promise of ours was settled, or has told us how its own was.
pub(super) fn told(turn: &mut Turn<'_>, rid: RemoteId, kp: PromiseId, at: Seq) {
    turn.tx.update::<Clist, _>(&(EndpointId::Remote(rid), KRef::Promise(kp)), |row| {
        row.reachable = false;
        row.last_mention = at.max(Seq(1));
    });
}

/// Whether the peer has been told of the settlement and a later mention needs another name.
pub(super) fn is_old(tx: &Tx<'_>, rid: RemoteId, kp: PromiseId) -> bool {
    clist::entry(tx, EndpointId::Remote(rid), KRef::Promise(kp))
        .is_some_and(|row| !row.reachable && row.last_mention <= marks(tx, rid).0)
}

/// The peer is reaped: names that were settled some reaps ago are forgotten.
pub(crate) fn age(turn: &mut Turn<'_>, rid: RemoteId) -> Result<(), Corrupt> {
    let Some(peer) = turn.tx.get::<Remotes>(&rid).map(|row| row.peer.clone()) else { return Ok(()) };
    if !outbox::keeps_names(turn, &peer) {
        return Ok(());
    }
    let session = facts::session(&turn.tx, &peer);
    let (last, before) = marks(&turn.tx, rid);
    let endpoint = EndpointId::Remote(rid);
    if before > Seq(0) && before < session.una {
        let promises = turn.tx.range::<Clist>((endpoint, KRef::Promise(PromiseId(0)))..);
        let own = promises.take_while(|((whose, _), _)| *whose == endpoint);
        let old = own.filter(|(_, row)| !row.reachable && row.last_mention <= before);
        let old: Vec<KRef> = old.map(|((_, kref), _)| *kref).collect();
        for kref in old {
            clist::remove(&mut turn.tx, endpoint, kref)?;
        }
    }
    turn.tx.put::<Meta>(key(rid), format!("{} {}", session.sent, last).into());
    Ok(())
}

/// Forgets the marks: numbers begin again.
pub(super) fn forget(turn: &mut Turn<'_>, rid: RemoteId) {
    turn.tx.delete::<Meta>(&key(rid));
}

/// What a classic peer gets that names a promise of ours which is forgotten.
pub(super) fn stand_in(turn: &mut Turn<'_>, name: RRef) -> Result<KRef, Corrupt> {
    let kp = promise::create(&mut turn.tx, None);
    let reason = KernelError::delivery_failed(format!("{name} was settled long ago"));
    match promise::settle(turn, kp, None, true, reason.to_capdata()) {
        Ok(()) => Ok(KRef::Promise(kp)),
        Err(promise::SettleError::Corrupt(corrupt)) => Err(corrupt),
        Err(promise::SettleError::AlreadySettled(_) | promise::SettleError::NotDecider(..)) => {
            Err(Corrupt::WrongState(kp))
        }
    }
}
