//! The run queue and the queues of unresolved promises. An item holds one reference to each thing it names.

use crate::counts;
use crate::fault::Corrupt;
use crate::turn::next_number;
use capstan_model::id::{EndpointId, KRef, PromiseId};
use capstan_store::overlay::Tx;
use capstan_store::schema::{PromiseQueue, QueueItem, RunQueue, SendItem};

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
    tx.put::<RunQueue>(position, item);
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
    tx.put::<PromiseQueue>((kp, position), item);
    Ok(())
}

/// Moves all messages of the promise's queue, with their references, to the run queue, in order.
pub(crate) fn unpark_all(tx: &mut Tx<'_>, kp: PromiseId) {
    let parked: Vec<_> = parked(tx, kp).into_iter().map(|(position, _)| position).collect();
    for position in parked {
        if let Some(item) = tx.delete::<PromiseQueue>(&(kp, position)) {
            append(tx, QueueItem::Send(item));
        }
    }
}

/// Returns the messages parked on a promise, oldest first.
pub(crate) fn parked(tx: &Tx<'_>, kp: PromiseId) -> Vec<(u64, SendItem)> {
    let range = tx.range::<PromiseQueue>((kp, 0)..=(kp, u64::MAX));
    range.map(|((_, position), item)| (*position, item.clone())).collect()
}
