//! Promises: one transition, made by the decider of the moment (01 §6.2, 02 §5).
//!
//! While unresolved a promise carries one count for the decider's claim; settlement, and only settlement,
//! releases it. Slots of a settled value are one reference each.

use crate::effect::Effect;
use crate::fault::Corrupt;
use crate::host_op::Answer;
use crate::input::RequestId;
use crate::turn::{Turn, next_number};
use crate::{counts, queue};
use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, KRef, PromiseId};
use capstan_store::overlay::Tx;
use capstan_store::schema::{
    Decider, HoldKind, Holds, PromiseRow, PromiseState, Promises, PromisesByDecider, Waiters,
};
use std::collections::BTreeSet;

/// Why a settlement was refused: the settler's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettleError {
    /// It has had its one transition.
    #[error("{0} was already resolved")]
    AlreadySettled(PromiseId),
    /// Somebody else decides.
    #[error("not permitted to resolve {0}: its decider is {1}")]
    NotDecider(PromiseId, String),
    /// Ours, not theirs.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Creates an unresolved promise. Its only count is the decider's claim.
pub(crate) fn create(tx: &mut Tx<'_>, decider: Option<Decider>) -> PromiseId {
    let kp = PromiseId(next_number(tx, "promise"));
    let state = PromiseState::Unresolved { decider, subscribers: BTreeSet::new() };
    tx.put::<Promises>(kp, PromiseRow { state, count: 1 });
    if let Some(decider) = decider {
        tx.put::<PromisesByDecider>((decider, kp), ());
    }
    kp
}

/// Returns the row.
pub(crate) fn row<'t>(tx: &'t Tx<'_>, kp: PromiseId) -> Result<&'t PromiseRow, Corrupt> {
    tx.get::<Promises>(&kp).ok_or(Corrupt::NoPromise(kp))
}

/// Whether it has had its transition.
pub(crate) fn is_settled(tx: &Tx<'_>, kp: PromiseId) -> Result<bool, Corrupt> {
    Ok(!matches!(row(tx, kp)?.state, PromiseState::Unresolved { .. }))
}

/// Returns every unresolved promise that `decider` decides, in the order of their numbers.
pub(crate) fn decided_by(tx: &Tx<'_>, decider: Decider) -> Vec<PromiseId> {
    let all = tx.range::<PromisesByDecider>((decider, PromiseId(0))..=(decider, PromiseId(u64::MAX)));
    all.map(|((_, kp), ())| *kp).collect()
}

/// Hands an unresolved promise to another decider, or to nobody.
pub(crate) fn set_decider(tx: &mut Tx<'_>, kp: PromiseId, to: Option<Decider>) -> Result<(), Corrupt> {
    let mut changed = row(tx, kp)?.clone();
    let PromiseState::Unresolved { decider, .. } = &mut changed.state else {
        return Err(Corrupt::WrongState(kp));
    };
    if let Some(from) = std::mem::replace(decider, to) {
        tx.delete::<PromisesByDecider>(&(from, kp));
    }
    if let Some(to) = to {
        tx.put::<PromisesByDecider>((to, kp), ());
    }
    tx.put::<Promises>(kp, changed);
    Ok(())
}

/// Subscribes an endpoint; if the promise is settled already, a notify is queued instead.
pub(crate) fn subscribe(tx: &mut Tx<'_>, kp: PromiseId, endpoint: EndpointId) -> Result<(), Corrupt> {
    let mut changed = row(tx, kp)?.clone();
    match &mut changed.state {
        PromiseState::Unresolved { subscribers, .. } => {
            if subscribers.insert(endpoint) {
                tx.put::<Promises>(kp, changed);
            }
            Ok(())
        }
        PromiseState::Fulfilled(_) | PromiseState::Rejected(_) => queue::enqueue_notify(tx, endpoint, kp),
    }
}

/// Settles a promise as `by`: checks the right to, tells subscribers and waiters, moves parked messages on.
pub(crate) fn settle(
    turn: &mut Turn<'_>,
    kp: PromiseId,
    by: Option<Decider>,
    rejected: bool,
    value: CapData<KRef>,
) -> Result<(), SettleError> {
    let tx = &mut turn.tx;
    let PromiseState::Unresolved { decider, subscribers } = row(tx, kp)?.state.clone() else {
        return Err(SettleError::AlreadySettled(kp));
    };
    if decider != by {
        let name = decider.map_or_else(
            || "nobody".to_owned(),
            |decider| match decider {
                Decider::Endpoint(endpoint) => endpoint.to_string(),
                Decider::Kernel => "the kernel".to_owned(),
            },
        );
        return Err(SettleError::NotDecider(kp, name));
    }
    for &slot in &value.slots {
        counts::hold(tx, slot)?;
    }
    if let Some(decider) = decider {
        tx.delete::<PromisesByDecider>(&(decider, kp));
    }
    let state =
        if rejected { PromiseState::Rejected(value.clone()) } else { PromiseState::Fulfilled(value.clone()) };
    // Read again: the value may contain the promise itself.
    let count = row(tx, kp)?.count;
    tx.put::<Promises>(kp, PromiseRow { state, count });
    for endpoint in subscribers {
        queue::enqueue_notify(tx, endpoint, kp)?;
    }
    queue::unpark_all(tx, kp);
    answer_waiters(turn, kp, rejected, &value)?;
    // The decider's claim ends last, so that nothing above can find the promise collected.
    counts::release(&mut turn.tx, KRef::Promise(kp))?;
    Ok(())
}

/// Settles a promise as whoever decides it at this moment; does nothing if it is settled.
pub(crate) fn reject_as_decider(
    turn: &mut Turn<'_>,
    kp: PromiseId,
    reason: CapData<KRef>,
) -> Result<(), Corrupt> {
    let PromiseState::Unresolved { decider, .. } = row(&turn.tx, kp)?.state else {
        return Ok(());
    };
    match settle(turn, kp, decider, true, reason) {
        Ok(()) => Ok(()),
        Err(SettleError::Corrupt(corrupt)) => Err(corrupt),
        Err(SettleError::AlreadySettled(_) | SettleError::NotDecider(..)) => Err(Corrupt::WrongState(kp)),
    }
}

/// Lets the request wait for the promise; answers at once if it is settled.
pub(crate) fn wait(turn: &mut Turn<'_>, kp: PromiseId, request: RequestId) -> Result<(), Corrupt> {
    hold_for_control(&mut turn.tx, KRef::Promise(kp), HoldKind::Waiting)?;
    turn.tx.put::<Waiters>((kp, request.0), ());
    match row(&turn.tx, kp)?.state.clone() {
        PromiseState::Unresolved { .. } => Ok(()),
        PromiseState::Fulfilled(value) => answer_waiters(turn, kp, false, &value),
        PromiseState::Rejected(value) => answer_waiters(turn, kp, true, &value),
    }
}

fn answer_waiters(
    turn: &mut Turn<'_>,
    kp: PromiseId,
    rejected: bool,
    value: &CapData<KRef>,
) -> Result<(), Corrupt> {
    let waiting: Vec<_> =
        turn.tx.range::<Waiters>((kp, 0)..=(kp, u64::MAX)).map(|((_, request), ())| *request).collect();
    for request in waiting {
        turn.tx.delete::<Waiters>(&(kp, request));
        release_for_control(&mut turn.tx, KRef::Promise(kp), HoldKind::Waiting)?;
        for &slot in &value.slots {
            hand_out(&mut turn.tx, slot)?;
        }
        let answer = Ok(Answer::Settled { rejected, value: value.clone() });
        turn.effects.push(Effect::Answer { request: RequestId(request), answer });
    }
    Ok(())
}

/// Holds a reference for the control surface until it is released by `gc` (02 §12.3); once is enough.
pub(crate) fn hand_out(tx: &mut Tx<'_>, kref: KRef) -> Result<(), Corrupt> {
    if tx.get::<Holds>(&(kref, HoldKind::Handed)).is_some() {
        return Ok(());
    }
    hold_for_control(tx, kref, HoldKind::Handed)
}

/// Adds one hold of the control surface.
pub(crate) fn hold_for_control(tx: &mut Tx<'_>, kref: KRef, kind: HoldKind) -> Result<(), Corrupt> {
    counts::hold(tx, kref)?;
    let times = tx.get::<Holds>(&(kref, kind)).copied().unwrap_or(0);
    tx.put::<Holds>((kref, kind), times.saturating_add(1));
    Ok(())
}

/// Ends one hold of the control surface; nothing happens if there is none.
pub(crate) fn release_for_control(tx: &mut Tx<'_>, kref: KRef, kind: HoldKind) -> Result<(), Corrupt> {
    match tx.get::<Holds>(&(kref, kind)).copied() {
        None => return Ok(()),
        Some(0 | 1) => {
            tx.delete::<Holds>(&(kref, kind));
        }
        Some(times) => tx.put::<Holds>((kref, kind), times - 1),
    }
    counts::release(tx, kref)
}
