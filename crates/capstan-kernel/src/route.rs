//! Routing: where an item of the run queue goes (02 §4.1).

use crate::fault::Corrupt;
use crate::flight::Work;
use crate::remote::{self, Delivered, RemoteDelivery};
use crate::turn::Turn;
use crate::{clist, counts, gc, notify, promise, queue, service};
use capstan_model::capdata::CapData;
use capstan_model::error::KernelError;
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, RemoteId, VatId};
use capstan_model::smallcaps::single_reference;
use capstan_store::overlay::Tx;
use capstan_store::schema::{
    Decider, Objects, Owner, PromiseState, Promises, QueueItem, Remotes, RunQueue, SendItem, VatPhase, Vats,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To this object of this vat, which runs or will run.
    Vat(VatId, ObjectId),
    /// To this object of this remote.
    Remote(RemoteId, ObjectId),
    /// To this kernel service, by its name and object.
    Service(Arc<str>, ObjectId),
    /// Onto the queue of this unresolved promise.
    Park(PromiseId),
    /// Nowhere: its result is rejected with this.
    Splat(CapData<KRef>),
}

/// Decides where a message to `target` goes; follows chains of promises, also long and circular ones.
pub(crate) fn route(tx: &Tx<'_>, target: KRef) -> Route {
    let mut target = target;
    let mut seen = BTreeSet::new();
    loop {
        let kp = match target {
            KRef::Object(ko) => return route_object(tx, ko),
            KRef::Promise(kp) => kp,
        };
        if !seen.insert(kp) {
            return splat_with(&KernelError::bad_promise_resolution());
        }
        match tx.get::<Promises>(&kp).map(|row| &row.state) {
            None => return splat_with(&KernelError::object_deleted()),
            Some(PromiseState::Unresolved { .. }) => return Route::Park(kp),
            Some(PromiseState::Rejected(reason)) => return Route::Splat(reason.clone()),
            Some(PromiseState::Fulfilled(value)) => match single_reference(value) {
                Some(kref) => target = kref,
                None => return splat_with(&KernelError::bad_promise_resolution()),
            },
        }
    }
}

fn splat_with(error: &KernelError) -> Route {
    Route::Splat(error.to_capdata())
}

fn route_object(tx: &Tx<'_>, ko: ObjectId) -> Route {
    let Some(row) = tx.get::<Objects>(&ko) else {
        return splat_with(&KernelError::object_deleted());
    };
    if row.revoked {
        return splat_with(&KernelError::object_revoked());
    }
    match row.owner {
        None => splat_with(&KernelError::object_deleted()),
        Some(Owner::Kernel) => match service::serving(tx, ko) {
            Some(name) => Route::Service(name, ko),
            None => splat_with(&KernelError::object_deleted()),
        },
        Some(Owner::Endpoint(EndpointId::Vat(vat))) => match tx.get::<Vats>(&vat).map(|row| &row.phase) {
            Some(VatPhase::Launching | VatPhase::Starting | VatPhase::Running) => Route::Vat(vat, ko),
            Some(VatPhase::Failed(_) | VatPhase::Terminated) | None => {
                splat_with(&KernelError::endpoint_unreachable())
            }
        },
        Some(Owner::Endpoint(EndpointId::Remote(rid))) if tx.get::<Remotes>(&rid).is_some() => {
            Route::Remote(rid, ko)
        }
        Some(Owner::Endpoint(EndpointId::Remote(_))) => splat_with(&KernelError::endpoint_unreachable()),
    }
}

/// What became of an item of the run queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Examined {
    /// It was handled, and is gone.
    Handled,
    /// It waits for this endpoint.
    Waits(EndpointId),
    /// It waits for this kernel service, which has too many calls in progress.
    Service(Arc<str>),
}

/// Looks at one item of the run queue: handles it at once, or says for whom it must wait. For those peers of which
/// `is_full` holds it waits in any case. A message for a vat for which as many are `waiting` as may is refused to its
/// sender (04 §8).
pub(crate) fn examine(
    turn: &mut Turn<'_>,
    position: u64,
    is_full: impl Fn(&Tx<'_>, RemoteId) -> bool,
    waiting: impl Fn(VatId) -> usize,
) -> Result<Examined, Corrupt> {
    match turn.tx.get::<RunQueue>(&position).cloned() {
        None => Ok(Examined::Handled),
        Some(QueueItem::Unreadable(why)) => Err(Corrupt::Unreadable(why)),
        Some(QueueItem::Notify { endpoint: EndpointId::Remote(rid), .. }) if is_full(&turn.tx, rid) => {
            Ok(Examined::Waits(rid.into()))
        }
        Some(QueueItem::Notify { endpoint, promise }) => {
            let waits_for = notify::examine(turn, position, endpoint, promise)?;
            Ok(waits_for.map_or(Examined::Handled, Examined::Waits))
        }
        Some(QueueItem::Send(item)) => match route(&turn.tx, item.target) {
            Route::Vat(vat, _) => {
                let max = turn.tx.get::<Vats>(&vat).map_or(0, |row| row.limits.queued_max);
                if waiting(vat) < max as usize {
                    return Ok(Examined::Waits(vat.into()));
                }
                queue::take(&mut turn.tx, position);
                let text = format!("limit of {max} messages queued for {vat} exceeded");
                splat(turn, &item, KernelError::delivery_failed(text).to_capdata())?;
                Ok(Examined::Handled)
            }
            Route::Remote(rid, _) if is_full(&turn.tx, rid) => Ok(Examined::Waits(rid.into())),
            Route::Service(name, ko) => {
                let begun = service::begin(turn, position, &name, ko, &item)?;
                Ok(if begun { Examined::Handled } else { Examined::Service(name) })
            }
            Route::Park(kp) => {
                queue::take(&mut turn.tx, position);
                let result = item.result;
                queue::park(&mut turn.tx, kp, item)?;
                if let Some(result) = result {
                    end_waiting_for_itself(turn, result)?;
                }
                Ok(Examined::Handled)
            }
            Route::Splat(reason) => {
                queue::take(&mut turn.tx, position);
                splat(turn, &item, reason)?;
                Ok(Examined::Handled)
            }
            Route::Remote(rid, ko) => {
                queue::take(&mut turn.tx, position);
                send_to_remote(turn, rid, ko, item)?;
                Ok(Examined::Handled)
            }
        },
    }
}

/// Rejects the result of a message that waits for it, where its sender was restarted: the sender could have settled it,
/// the receiver of the message never will.
fn end_waiting_for_itself(turn: &mut Turn<'_>, result: PromiseId) -> Result<(), Corrupt> {
    let undecided =
        matches!(promise::row(&turn.tx, result)?.state, PromiseState::Unresolved { decider: None, .. });
    if undecided && queue::waits_for_itself(&turn.tx, result) {
        let reason = KernelError::vat_terminated("vat restarted").to_capdata();
        promise::reject_as_decider(turn, result, reason)?;
    }
    Ok(())
}

/// Drops a message: rejects its result as whoever decides it, and releases what it held.
pub(crate) fn splat(turn: &mut Turn<'_>, item: &SendItem, reason: CapData<KRef>) -> Result<(), Corrupt> {
    if let Some(kp) = item.result {
        promise::reject_as_decider(turn, kp, reason)?;
    }
    queue::release_send(&mut turn.tx, item)
}

fn send_to_remote(turn: &mut Turn<'_>, rid: RemoteId, ko: ObjectId, item: SendItem) -> Result<(), Corrupt> {
    let endpoint = EndpointId::Remote(rid);
    if clist::entry(&turn.tx, endpoint, KRef::Object(ko)).is_none() {
        return Err(Corrupt::NoEntry(endpoint, KRef::Object(ko)));
    }
    let mut told = SendItem { target: KRef::Object(ko), ..item.clone() };
    if let Some(kp) = item.result {
        if promise::is_settled(&turn.tx, kp)? {
            told.result = None;
        } else {
            promise::set_decider(&mut turn.tx, kp, Some(Decider::Endpoint(endpoint)))?;
        }
    }
    match remote::deliver(turn, rid, RemoteDelivery::Message(told))? {
        Delivered::Queued => queue::release_send(&mut turn.tx, &item),
        Delivered::Refused(text) => splat(turn, &item, KernelError::delivery_failed(text).to_capdata()),
    }
}

/// Removes work of a vat that could not be done. The result of a message is rejected and references are released, as
/// far as that can be done.
pub(crate) fn discard(turn: &mut Turn<'_>, vat: VatId, work: &Work) -> Result<(), Corrupt> {
    match work {
        Work::Message { position, .. } | Work::Notify { position, .. } => {
            return discard_item(turn, *position);
        }
        Work::Gc { kind, objects } => gc::forget_actions(&mut turn.tx, vat.into(), *kind, objects),
        Work::Reap => gc::end_reap(&mut turn.tx, vat.into()),
        Work::Wake => {}
    }
    Ok(())
}

/// Removes an item of the run queue that could not be processed, likewise.
pub(crate) fn discard_item(turn: &mut Turn<'_>, position: u64) -> Result<(), Corrupt> {
    let Some(item) = queue::take(&mut turn.tx, position) else {
        return Ok(());
    };
    match &item {
        QueueItem::Send(item) => {
            if let Some(kp) = item.result {
                let reason = KernelError::delivery_failed("the message was set aside").to_capdata();
                attempt(turn, |turn| promise::reject_as_decider(turn, kp, reason));
            }
            for kref in queue::references(item) {
                attempt(turn, |turn| counts::release(&mut turn.tx, kref));
            }
        }
        QueueItem::Notify { promise, .. } => {
            attempt(turn, |turn| counts::release(&mut turn.tx, KRef::Promise(*promise)));
        }
        // What it held is not known; the audit finds the counts that nobody accounts for.
        QueueItem::Unreadable(_) => {}
    }
    Ok(())
}

/// Does what can be done, all of it or nothing: what cannot was said by the dead letter.
fn attempt(turn: &mut Turn<'_>, act: impl FnOnce(&mut Turn<'_>) -> Result<(), Corrupt>) {
    let mark = turn.mark();
    if act(turn).is_err() {
        turn.rollback_to(mark);
    }
}
