//! A crank's two halves (law L4): what is handed to a vat, and the one transaction that takes its whole answer.

use crate::fault::Corrupt;
use crate::flight::{InFlight, Staged, Work};
use crate::route::Route;
use crate::syscall::{self, Applied, SyscallError};
use crate::turn::Turn;
use crate::{clist, counts, gc, notify, promise, queue, route, vat};
use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::error::KernelError;
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, VatId};
use capstan_model::refs::{ERef, Side, VRef};
use capstan_model::vat::{VatDelivery, VatReply};
use capstan_store::overlay::Tx;
use capstan_store::schema::{Decider, GcKind, PromiseState, Promises, QueueItem, RunQueue, SendItem, Vats};

/// After this many deliveries a vat is asked to collect garbage (02 §7.5).
const DELIVERIES_PER_REAP: u64 = 100;

/// A delivery put together, not yet handed over.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) work: Work,
    pub(crate) mentions: Vec<(KRef, VRef)>,
    pub(crate) delivery: VatDelivery,
}

impl Prepared {
    /// The asynchronous crank of 02 §6. It goes through the same hand-over as everything else for its vat, so that it
    /// mixes with no other crank and its place among them is certain.
    pub(crate) fn wake() -> Self {
        Prepared { work: Work::Wake, mentions: Vec::new(), delivery: VatDelivery::Wake }
    }
}

/// What can be done with the oldest item that waits for a vat.
#[derive(Debug)]
pub(crate) enum Preparation {
    /// Hand it over.
    Deliver(Prepared),
    /// It goes elsewhere by now: route it again.
    Reroute,
    /// It depends on a delivery of this batch: wait for its answer.
    Wait,
}

/// Translates names for one delivery, noting every mention.
struct Translation<'t, 's, 'x> {
    tx: &'t Tx<'x>,
    vat: VatId,
    staged: &'s mut Staged,
    mentions: Vec<(KRef, VRef)>,
}

impl Translation<'_, '_, '_> {
    fn name(&mut self, kref: KRef) -> VRef {
        let vref = self.staged.name(kref, stored_name(self.tx, self.vat, kref));
        self.mentions.push((kref, vref));
        vref
    }

    fn value(&mut self, value: &CapData<KRef>) -> CapData<VRef> {
        value.map(|kref| self.name(*kref))
    }
}

fn stored_name(tx: &Tx<'_>, vat: VatId, kref: KRef) -> Option<VRef> {
    match clist::entry(tx, vat.into(), kref)?.eref {
        ERef::Vat(vref) => Some(vref),
        ERef::Remote(_) => None,
    }
}

/// The dispatch half for an item of the run queue: reads and translates, writes nothing.
pub(crate) fn prepare(
    tx: &Tx<'_>,
    vat: VatId,
    position: u64,
    staged: &mut Staged,
) -> Result<Preparation, Corrupt> {
    let translation = Translation { tx, vat, staged, mentions: Vec::new() };
    match tx.get::<RunQueue>(&position) {
        None => Ok(Preparation::Reroute),
        Some(QueueItem::Unreadable(why)) => Err(Corrupt::Unreadable(why.clone())),
        Some(QueueItem::Notify { promise, .. }) => {
            if translation.staged.is_retired(KRef::Promise(*promise)) {
                return Ok(Preparation::Wait);
            }
            if clist::entry(tx, vat.into(), KRef::Promise(*promise)).is_none() {
                return Ok(Preparation::Reroute);
            }
            prepare_notify(translation, position, *promise).map(Preparation::Deliver)
        }
        Some(QueueItem::Send(item)) => match route::route(tx, item.target) {
            Route::Vat(owner, ko) if owner == vat => {
                prepare_message(translation, position, item, ko).map(Preparation::Deliver)
            }
            Route::Vat(..) | Route::Remote(..) | Route::Service(..) | Route::Park(_) | Route::Splat(_) => {
                Ok(Preparation::Reroute)
            }
        },
    }
}

fn prepare_message(
    mut translation: Translation<'_, '_, '_>,
    position: u64,
    item: &SendItem,
    ko: ObjectId,
) -> Result<Prepared, Corrupt> {
    let tx = translation.tx;
    let endpoint = EndpointId::Vat(translation.vat);
    let target = stored_name(tx, translation.vat, KRef::Object(ko));
    let target = target.ok_or(Corrupt::NoEntry(endpoint, KRef::Object(ko)))?;
    translation.mentions.push((KRef::Object(ko), target));
    let methargs = translation.value(&item.methargs);
    let wanted = match item.result {
        Some(kp) if !promise::is_settled(tx, kp)? => Some(kp),
        Some(_) | None => None,
    };
    let result = wanted.map(|kp| (kp, translation.name(KRef::Promise(kp))));
    if result.is_some() {
        // The result is entered by itself at completion, since by then it may have been settled.
        translation.mentions.pop();
    }
    let message = Message { methargs, result: result.map(|(_, vref)| vref) };
    Ok(Prepared {
        work: Work::Message { position, result },
        mentions: translation.mentions,
        delivery: VatDelivery::Message { target, message },
    })
}

fn prepare_notify(
    mut translation: Translation<'_, '_, '_>,
    position: u64,
    kp: PromiseId,
) -> Result<Prepared, Corrupt> {
    let members = notify::batch(translation.tx, kp)?;
    let mut resolutions = Vec::with_capacity(members.len());
    for &member in &members {
        let (rejected, value) =
            notify::value_of(translation.tx, member)?.ok_or(Corrupt::WrongState(member))?;
        let promise = translation.name(KRef::Promise(member));
        resolutions.push(Resolution { promise, rejected, value: translation.value(value) });
    }
    for &member in &members {
        translation.staged.retire(KRef::Promise(member));
    }
    Ok(Prepared {
        work: Work::Notify { position, members },
        mentions: translation.mentions,
        delivery: VatDelivery::Notify(resolutions),
    })
}

/// The dispatch half for a group of GC actions.
pub(crate) fn prepare_gc(
    tx: &Tx<'_>,
    vat: VatId,
    kind: GcKind,
    objects: Vec<ObjectId>,
) -> Result<Prepared, Corrupt> {
    let name = |ko: &ObjectId| {
        let kref = KRef::Object(*ko);
        stored_name(tx, vat, kref).ok_or(Corrupt::NoEntry(vat.into(), kref))
    };
    let names = objects.iter().map(name).collect::<Result<Vec<_>, _>>()?;
    let delivery = match kind {
        GcKind::DropExport => VatDelivery::DropExports(names),
        GcKind::RetireExport => VatDelivery::RetireExports(names),
        GcKind::RetireImport => VatDelivery::RetireImports(names),
    };
    Ok(Prepared { work: Work::Gc { kind, objects }, mentions: Vec::new(), delivery })
}

/// Whether the vat goes on after a crank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It does.
    GoesOn,
    /// It was terminated in the same transaction.
    Terminated,
}

/// The completion half: takes the item, enters the names it brought, applies the answer, and judges it (02 §8).
pub(crate) fn complete(
    turn: &mut Turn<'_>,
    vat: VatId,
    flight: &InFlight,
    reply: &VatReply,
) -> Result<Ending, Corrupt> {
    let mark = turn.mark();
    let members = take_item(turn, vat, flight)?;
    let verdict = match (syscall::apply_all(turn, vat, &reply.syscalls), &reply.outcome) {
        (Err(SyscallError::Corrupt(corrupt)), _) => return Err(corrupt),
        (Err(SyscallError::Illegal(text)), _) => {
            let error = KernelError::illegal_syscall();
            Err((error.to_capdata(), format!("{error}: {text}")))
        }
        (Ok(_), Err(fault)) => {
            let error = KernelError::internal_error(fault.to_string());
            Err((error.to_capdata(), error.to_string()))
        }
        (Ok(Applied { exit: Some((true, info)), .. }), Ok(())) => {
            let text = vat::reason_text(&info);
            Err((info, text))
        }
        (Ok(applied), Ok(())) => Ok(applied),
    };
    match verdict {
        Err((info, text)) => {
            turn.rollback_to(mark);
            abort(turn, vat, Some(&flight.work), info, &text)?;
            Ok(Ending::Terminated)
        }
        Ok(applied) => {
            syscall::write_store(turn, vat, &reply.store);
            vat::retire_settled(turn, vat, &applied.settled)?;
            vat::retire_settled(turn, vat, &members)?;
            count_delivery(turn, vat, &flight.work);
            if let Some((_, info)) = applied.exit {
                vat::terminate(turn, vat, &vat::reason_text(&info))?;
                return Ok(Ending::Terminated);
            }
            Ok(Ending::GoesOn)
        }
    }
}

/// The end of a vat whose crank was undone. A host that waits for the very message is told the cause, not the
/// consequence; the message itself stays on the queue, to be dropped when it comes up.
pub(crate) fn abort(
    turn: &mut Turn<'_>,
    vat: VatId,
    work: Option<&Work>,
    info: CapData<KRef>,
    text: &str,
) -> Result<(), Corrupt> {
    if let Some(Work::Message { position, .. }) = work
        && let Some(QueueItem::Send(item)) = turn.tx.get::<RunQueue>(position).cloned()
        && let Some(kp) = item.result
        && let PromiseState::Unresolved { decider: None, .. } = promise::row(&turn.tx, kp)?.state
    {
        // What the undone crank introduced does not exist any more.
        let whole = info.slots.iter().all(|&slot| exists(&turn.tx, slot));
        let info = if whole { info } else { KernelError::vat_terminated(text).to_capdata() };
        promise::reject_as_decider(turn, kp, info)?;
    }
    turn.log(crate::effect::LogLevel::Warn, format!("{vat} terminated: {text}"));
    vat::terminate(turn, vat, text)
}

fn exists(tx: &Tx<'_>, kref: KRef) -> bool {
    match kref {
        KRef::Object(ko) => tx.get::<capstan_store::schema::Objects>(&ko).is_some(),
        KRef::Promise(kp) => tx.get::<Promises>(&kp).is_some(),
    }
}

/// Removes the item with its references, after the names of the delivery were entered. Returns the promises to
/// retire afterwards.
fn take_item(turn: &mut Turn<'_>, vat: VatId, flight: &InFlight) -> Result<Vec<PromiseId>, Corrupt> {
    for &(kref, vref) in &flight.mentions {
        enter(turn, vat, kref, vref)?;
    }
    match &flight.work {
        Work::Message { position, result } => {
            let Some(QueueItem::Send(item)) = queue::take(&mut turn.tx, *position) else {
                return Err(Corrupt::Impossible("a delivered message is not on the queue"));
            };
            if let Some((kp, vref)) = *result {
                enter_result(turn, vat, item.result, kp, vref)?;
            }
            queue::release_send(&mut turn.tx, &item)?;
            Ok(Vec::new())
        }
        Work::Notify { position, members } => {
            let Some(QueueItem::Notify { promise, .. }) = queue::take(&mut turn.tx, *position) else {
                return Err(Corrupt::Impossible("a delivered notify is not on the queue"));
            };
            counts::release(&mut turn.tx, KRef::Promise(promise))?;
            Ok(members.clone())
        }
        Work::Gc { kind, objects } => {
            gc::perform(turn, vat.into(), *kind, objects)?;
            Ok(Vec::new())
        }
        Work::Reap => {
            gc::end_reap(&mut turn.tx, vat.into());
            Ok(Vec::new())
        }
        Work::Wake => Ok(Vec::new()),
    }
}

/// Enters a name that the vat was told. An earlier answer of the same batch may have removed an entry that the
/// delivery still used: the vat has then been told of it anew.
fn enter(turn: &mut Turn<'_>, vat: VatId, kref: KRef, vref: VRef) -> Result<(), Corrupt> {
    let endpoint = EndpointId::Vat(vat);
    if let Some(entry) = clist::entry(&turn.tx, endpoint, kref) {
        return match kref {
            KRef::Object(ko) if entry.eref == vref.into() => {
                clist::set_reachable(&mut turn.tx, endpoint, ko, true)
            }
            KRef::Object(_) | KRef::Promise(_) => Ok(()),
        };
    }
    let abandoned = vref.is_object() && vref.side() == Side::Export;
    if abandoned || clist::kref_of(&turn.tx, endpoint, vref.into()).is_some() {
        return Ok(());
    }
    clist::insert(&mut turn.tx, endpoint, kref, vref.into())
}

/// Makes the vat the decider of the result. If that was settled while the delivery was in flight, the vat is given a
/// promise of its own under the name it was told, so that its answer goes nowhere.
fn enter_result(
    turn: &mut Turn<'_>,
    vat: VatId,
    still: Option<PromiseId>,
    kp: PromiseId,
    vref: VRef,
) -> Result<(), Corrupt> {
    let endpoint = EndpointId::Vat(vat);
    let decider = Some(Decider::Endpoint(endpoint));
    if still == Some(kp) && !promise::is_settled(&turn.tx, kp)? {
        promise::set_decider(&mut turn.tx, kp, decider)?;
        return enter(turn, vat, KRef::Promise(kp), vref);
    }
    if let Some(old) = clist::kref_of(&turn.tx, endpoint, vref.into()) {
        clist::remove(&mut turn.tx, endpoint, old)?;
    }
    let own = promise::create(&mut turn.tx, decider);
    clist::insert(&mut turn.tx, endpoint, KRef::Promise(own), vref.into())
}

fn count_delivery(turn: &mut Turn<'_>, vat: VatId, work: &Work) {
    let reaped = matches!(work, Work::Reap);
    let deliveries = turn.tx.update::<Vats, _>(&vat, |row| {
        row.deliveries = if reaped { 0 } else { row.deliveries.saturating_add(1) };
        row.deliveries
    });
    if deliveries.is_some_and(|deliveries| deliveries > 0 && deliveries % DELIVERIES_PER_REAP == 0) {
        gc::schedule_reap(&mut turn.tx, vat.into());
    }
}
