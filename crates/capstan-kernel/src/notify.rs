//! Notifies: an endpoint is told of a settled promise and of all settled promises in its value (02 §4.2).

use crate::fault::Corrupt;
use crate::remote::{self, RemoteDelivery};
use crate::turn::Turn;
use crate::{clist, counts, queue};
use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, KRef, PromiseId};
use capstan_model::peer::Seq;
use capstan_model::refs::Side;
use capstan_store::overlay::Tx;
use capstan_store::schema::{PromiseState, Promises, Remotes, VatPhase, Vats};
use std::collections::BTreeSet;

/// Looks at a notify: handles it at once, or returns the endpoint for which it must wait.
pub(crate) fn examine(
    turn: &mut Turn<'_>,
    position: u64,
    endpoint: EndpointId,
    kp: PromiseId,
) -> Result<Option<EndpointId>, Corrupt> {
    if value_of(&turn.tx, kp)?.is_none() {
        return Err(Corrupt::WrongState(kp));
    }
    let entry = clist::entry(&turn.tx, endpoint, KRef::Promise(kp));
    match endpoint {
        EndpointId::Vat(vat) => {
            let lives = turn.tx.get::<Vats>(&vat).is_some_and(|row| row.phase != VatPhase::Terminated);
            if entry.is_some() && lives {
                return Ok(Some(endpoint));
            }
        }
        EndpointId::Remote(rid) => {
            // A name of ours that was said to an earlier life of the peer only: this one would not understand, and what
            // the value carries would count as held there for ever (03 D-9).
            let is_known =
                entry.is_some_and(|row| row.eref.side() == Side::Export || row.last_mention != Seq(0));
            if is_known && turn.tx.get::<Remotes>(&rid).is_some() {
                let members = batch(&turn.tx, kp)?;
                // What the peer cannot be told it will never be told: there is nobody to reject to.
                remote::deliver(turn, rid, RemoteDelivery::Notify(members))?;
            }
        }
    }
    queue::take(&mut turn.tx, position);
    counts::release(&mut turn.tx, KRef::Promise(kp))?;
    Ok(None)
}

/// Returns `kp` and every settled promise that is reachable from its value through settled promises, in the order
/// of discovery.
pub(crate) fn batch(tx: &Tx<'_>, kp: PromiseId) -> Result<Vec<PromiseId>, Corrupt> {
    let mut members = vec![kp];
    let mut seen = BTreeSet::from([kp]);
    let mut next = 0;
    while let Some(&member) = members.get(next) {
        next += 1;
        let Some((_, value)) = value_of(tx, member)? else {
            return Err(Corrupt::WrongState(member));
        };
        for slot in value.slots.iter().filter_map(|slot| slot.promise()) {
            if value_of(tx, slot)?.is_some() && seen.insert(slot) {
                members.push(slot);
            }
        }
    }
    Ok(members)
}

/// Returns whether a settled promise is rejected, and its value; `None` while unresolved.
pub(crate) fn value_of<'t>(
    tx: &'t Tx<'_>,
    kp: PromiseId,
) -> Result<Option<(bool, &'t CapData<KRef>)>, Corrupt> {
    Ok(match &tx.get::<Promises>(&kp).ok_or(Corrupt::NoPromise(kp))?.state {
        PromiseState::Unresolved { .. } => None,
        PromiseState::Fulfilled(value) => Some((false, value)),
        PromiseState::Rejected(value) => Some((true, value)),
    })
}
