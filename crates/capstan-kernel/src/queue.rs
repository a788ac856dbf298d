//! The run queue and the queues of unresolved promises. An item holds one reference to each thing it names.
//!
//! Items come and go here only, so that the index of the results they carry is always right.

use crate::counts;
use crate::fault::Corrupt;
use crate::turn::next_number;
use capstan_model::id::{EndpointId, KRef, PromiseId};
use capstan_store::overlay::Tx;
use capstan_store::schema::{
    PromiseQueue, PromiseState, Promises, QueueItem, QueuePlace, QueuedResults, RunQueue, SendItem,
};
use std::collections::BTreeSet;

/// Returns everything the item names, as often as it names it.
pub(crate) fn references(item: &SendItem) -> impl Iterator<Item = KRef> + '_ {
    let result = item.result.map(KRef::Promise);
    std::iter::once(item.target).chain(item.methargs.slots.iter().copied()).chain(result)
}

/// Appends a message to the run queue and takes its references.
pub(crate) fn enqueue_send(tx: &mut Tx<'_>, item: SendItem) -> Result<(), Corrupt> {
    for kref in references(&item) {
        counts::hold(tx, kref)?;
    }
    append(tx, QueueItem::Send(item));
    Ok(())
}

/// Appends a notify to the run queue and takes its reference.
pub(crate) fn enqueue_notify(
    tx: &mut Tx<'_>,
    endpoint: EndpointId,
    promise: PromiseId,
) -> Result<(), Corrupt> {
    counts::hold(tx, KRef::Promise(promise))?;
    append(tx, QueueItem::Notify { endpoint, promise });
    Ok(())
}

fn append(tx: &mut Tx<'_>, item: QueueItem) {
    let position = next_number(tx, "run");
    if let Some(kp) = result(&item) {
        tx.put::<QueuedResults>((kp, QueuePlace::Run(position)), ());
    }
    tx.put::<RunQueue>(position, item);
}

fn result(item: &QueueItem) -> Option<PromiseId> {
    match item {
        QueueItem::Send(item) => item.result,
        QueueItem::Notify { .. } | QueueItem::Unreadable(_) => None,
    }
}

/// Takes an item off the run queue; what it holds passes to the caller.
pub(crate) fn take(tx: &mut Tx<'_>, position: u64) -> Option<QueueItem> {
    let item = tx.delete::<RunQueue>(&position)?;
    if let Some(kp) = result(&item) {
        tx.delete::<QueuedResults>(&(kp, QueuePlace::Run(position)));
    }
    Some(item)
}

/// Releases the references of a message that is done with.
pub(crate) fn release_send(tx: &mut Tx<'_>, item: &SendItem) -> Result<(), Corrupt> {
    references(item).try_for_each(|kref| counts::release(tx, kref))
}

/// Moves a message, with its references, to the queue of the promise `kp`; `kp` replaces its target.
pub(crate) fn park(tx: &mut Tx<'_>, kp: PromiseId, mut item: SendItem) -> Result<(), Corrupt> {
    if item.target != KRef::Promise(kp) {
        counts::hold(tx, KRef::Promise(kp))?;
        counts::release(tx, item.target)?;
        item.target = KRef::Promise(kp);
    }
    let position = next_number(tx, "parked");
    if let Some(result) = item.result {
        tx.put::<QueuedResults>((result, QueuePlace::Parked(kp, position)), ());
    }
    tx.put::<PromiseQueue>((kp, position), item);
    Ok(())
}

/// Moves all messages of the promise's queue, with their references, to the run queue, in order.
pub(crate) fn unpark_all(tx: &mut Tx<'_>, kp: PromiseId) {
    let parked: Vec<_> = parked(tx, kp).into_iter().map(|(position, _)| position).collect();
    for position in parked {
        if let Some(item) = tx.delete::<PromiseQueue>(&(kp, position)) {
            if let Some(result) = item.result {
                tx.delete::<QueuedResults>(&(result, QueuePlace::Parked(kp, position)));
            }
            append(tx, QueueItem::Send(item));
        }
    }
}

/// Whether a queued message has `kp` for its answer: whoever receives it decides `kp` then.
pub(crate) fn is_result(tx: &Tx<'_>, kp: PromiseId) -> bool {
    places(tx, kp).next().is_some()
}

/// Whether the message that has `kp` for its answer waits for that very answer, by itself or through others that wait
/// in turn: of promises that only the receivers of messages can decide.
pub(crate) fn waits_for_itself(tx: &Tx<'_>, kp: PromiseId) -> bool {
    let mut seen = BTreeSet::new();
    let mut at = kp;
    while let Some(QueuePlace::Parked(on, _)) = places(tx, at).next() {
        if on == kp {
            return true;
        }
        let undecided = tx
            .get::<Promises>(&on)
            .is_some_and(|row| matches!(row.state, PromiseState::Unresolved { decider: None, .. }));
        if !undecided || !seen.insert(on) {
            return false;
        }
        at = on;
    }
    false
}

/// Takes a settled promise off the queued messages that had it for their answer.
pub(crate) fn strike_result(tx: &mut Tx<'_>, kp: PromiseId) -> Result<(), Corrupt> {
    let places: Vec<_> = places(tx, kp).collect();
    for place in places {
        tx.delete::<QueuedResults>(&(kp, place));
        match place {
            QueuePlace::Run(position) => tx.update::<RunQueue, _>(&position, |item| match item {
                QueueItem::Send(item) => item.result = None,
                QueueItem::Notify { .. } | QueueItem::Unreadable(_) => {}
            }),
            QueuePlace::Parked(on, at) => tx.update::<PromiseQueue, _>(&(on, at), |item| item.result = None),
        };
        counts::release(tx, KRef::Promise(kp))?;
    }
    Ok(())
}

fn places<'t>(tx: &'t Tx<'_>, kp: PromiseId) -> impl Iterator<Item = QueuePlace> + 't {
    let first = (kp, QueuePlace::Run(0));
    tx.range::<QueuedResults>(first..)
        .take_while(move |((of, _), ())| *of == kp)
        .map(|((_, place), ())| *place)
}

/// Returns the messages parked on a promise, oldest first.
pub(crate) fn parked(tx: &Tx<'_>, kp: PromiseId) -> Vec<(u64, SendItem)> {
    let range = tx.range::<PromiseQueue>((kp, 0)..=(kp, u64::MAX));
    range.map(|((_, position), item)| (*position, item.clone())).collect()
}
