//! Vats: created, started, restarted, terminated, cleaned up (02 §9).

use crate::effect::{Dispatch, LogLevel};
use crate::fault::Corrupt;
use crate::host_op::VatConfig;
use crate::syscall::{self, SyscallError};
use crate::turn::Turn;
use crate::{clist, counts, gc, promise, queue};
use capstan_model::capdata::CapData;
use capstan_model::error::KernelError;
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, SubclusterId, VatId};
use capstan_model::refs::{ERef, Side, VObject, VRef};
use capstan_model::vat::{VatIncarnation, VatStart, VatStarted};
use capstan_store::overlay::{Db, Tx};
use capstan_store::schema::{
    Code, Decider, Owner, PromiseState, Promises, SubclusterVats, Subclusters, VatPhase, VatRow, VatStore,
    Vats, VatsToClean,
};
use std::sync::Arc;

/// C-list entries and store rows removed in one transaction (02 §9.5).
pub(crate) const CLEANUP_BUDGET: usize = 100;

/// Creates a vat and orders its first start.
pub(crate) fn create(
    turn: &mut Turn<'_>,
    subcluster: SubclusterId,
    config: &VatConfig,
) -> Result<VatId, Corrupt> {
    let number = turn.next_number("vat").try_into();
    let vat = VatId(number.map_err(|_| Corrupt::Impossible("vat numbers are used up"))?);
    if turn.tx.get::<Code>(&config.code_hash).is_none() {
        turn.tx.put::<Code>(config.code_hash.clone(), config.code.clone());
    }
    let row = VatRow {
        subcluster,
        name: config.name.clone(),
        code: config.code_hash.clone(),
        parameters: config.parameters.clone(),
        limits: config.limits,
        endowments: config.endowments.clone(),
        phase: VatPhase::Launching,
        incarnation: VatIncarnation(1),
        next_object: 1,
        next_promise: 1,
        deliveries: 0,
    };
    turn.tx.put::<Vats>(vat, row);
    turn.tx.put::<SubclusterVats>((subcluster, vat), ());
    order_start(turn, vat)?;
    Ok(vat)
}

/// Returns the row.
pub(crate) fn row<'t>(tx: &'t Tx<'_>, vat: VatId) -> Result<&'t VatRow, Corrupt> {
    tx.get::<Vats>(&vat).ok_or(Corrupt::NoEndpoint(vat.into()))
}

/// Whether the vat has a record and is not on its way out.
pub(crate) fn lives(db: &Db, vat: VatId) -> bool {
    db.get::<Vats>(&vat).is_some_and(|row| row.phase != VatPhase::Terminated)
}

/// Returns the vat's root object, if it was ever up.
pub(crate) fn root(tx: &Tx<'_>, vat: VatId) -> Option<ObjectId> {
    clist::kref_of(tx, vat.into(), VRef::ROOT.into()).and_then(KRef::object)
}

fn order_start(turn: &mut Turn<'_>, vat: VatId) -> Result<(), Corrupt> {
    let row = row(&turn.tx, vat)?;
    let code = turn.tx.get::<Code>(&row.code).ok_or(Corrupt::Impossible("a vat's code is missing"))?;
    let start = VatStart {
        vat,
        incarnation: row.incarnation,
        code: code.clone(),
        parameters: row.parameters.clone(),
        store: own_store(&turn.tx, vat).map(|(key, value)| (key.clone(), value.clone())).collect(),
        limits: row.limits,
        endowments: row.endowments.clone(),
    };
    turn.dispatches.push(Dispatch::Start(start));
    Ok(())
}

fn own_store<'t>(tx: &'t Tx<'_>, vat: VatId) -> impl Iterator<Item = (&'t Arc<str>, &'t Arc<str>)> {
    let first = (vat, Arc::from(""));
    tx.range::<VatStore>(first..).take_while(move |((v, _), _)| *v == vat).map(|((_, k), v)| (k, v))
}

/// The worker is up: the root gets its object at the first start, and what start-up asked for is applied.
/// The inner error is the vat's fault; nothing of the start is kept then.
pub(crate) fn came_up(
    turn: &mut Turn<'_>,
    vat: VatId,
    started: &VatStarted,
) -> Result<Result<(), String>, Corrupt> {
    let mark = turn.mark();
    if root(&turn.tx, vat).is_none() {
        let ko = clist::new_object(&mut turn.tx, Some(Owner::Endpoint(vat.into())));
        clist::insert(&mut turn.tx, vat.into(), KRef::Object(ko), VRef::ROOT.into())?;
        counts::hold(&mut turn.tx, KRef::Object(ko))?;
    }
    turn.tx.update::<Vats, _>(&vat, |row| row.phase = VatPhase::Running);
    match syscall::apply_all(turn, vat, &started.syscalls) {
        Err(SyscallError::Corrupt(corrupt)) => Err(corrupt),
        Err(SyscallError::Illegal(text)) => {
            turn.rollback_to(mark);
            Ok(Err(format!("{}: {text}", KernelError::illegal_syscall())))
        }
        Ok(applied) => {
            if let Some((_, info)) = applied.exit {
                turn.rollback_to(mark);
                return Ok(Err(format!("exited during start-up: {}", reason_text(&info))));
            }
            syscall::write_store(turn, vat, &started.store);
            retire_settled(turn, vat, &applied.settled)?;
            Ok(Ok(()))
        }
    }
}

/// Retires promises that the vat has settled from its c-list: its runtime has forgotten them.
pub(crate) fn retire_settled(turn: &mut Turn<'_>, vat: VatId, settled: &[PromiseId]) -> Result<(), Corrupt> {
    for &kp in settled {
        if clist::entry(&turn.tx, vat.into(), KRef::Promise(kp)).is_some() {
            clist::remove(&mut turn.tx, vat.into(), KRef::Promise(kp))?;
        }
    }
    Ok(())
}

/// Ends the present run and orders a new one on the same state (02 §9.3). What died with the memory of the old run
/// is given up: its ephemeral exports, and the promises that only it could have settled.
pub(crate) fn restart(turn: &mut Turn<'_>, vat: VatId) -> Result<(), Corrupt> {
    let old = row(&turn.tx, vat)?.clone();
    if matches!(old.phase, VatPhase::Running | VatPhase::Starting | VatPhase::Launching) {
        turn.dispatches.push(Dispatch::Stop { vat, incarnation: old.incarnation });
    }
    give_up_memory(turn, vat)?;
    let incarnation = VatIncarnation(old.incarnation.0.saturating_add(1));
    turn.tx.put::<Vats>(vat, VatRow { incarnation, phase: VatPhase::Starting, ..old });
    order_start(turn, vat)
}

fn give_up_memory(turn: &mut Turn<'_>, vat: VatId) -> Result<(), Corrupt> {
    for (kref, entry) in clist::entries(&turn.tx, vat.into()) {
        let ERef::Vat(VRef::Object(name)) = entry.eref else { continue };
        let ephemeral = match name {
            VObject::Ephemeral(index) => index != 0,
            VObject::Virtual(..) => true,
            VObject::Import(_) | VObject::Durable(..) => false,
        };
        if let (KRef::Object(ko), true) = (kref, ephemeral) {
            clist::disown(&mut turn.tx, ko)?;
        }
    }
    let decider = Decider::Endpoint(vat.into());
    for kp in promise::decided_by(&turn.tx, decider) {
        if queue::is_result(&turn.tx, kp) && !queue::waits_for_itself(&turn.tx, kp) {
            // Its message will still be delivered; the receiver decides then.
            promise::set_decider(&mut turn.tx, kp, None)?;
        } else {
            let reason = KernelError::vat_terminated("vat restarted").to_capdata();
            promise::reject_as_decider(turn, kp, reason)?;
            // The new run has never heard of it, and nobody else drops the name.
            retire_settled(turn, vat, &[kp])?;
        }
    }
    Ok(())
}

/// The vat could not be started: it keeps its state and may be restarted.
pub(crate) fn fail(turn: &mut Turn<'_>, vat: VatId, why: &str) -> Result<(), Corrupt> {
    let incarnation = row(&turn.tx, vat)?.incarnation;
    turn.dispatches.push(Dispatch::Stop { vat, incarnation });
    turn.tx.update::<Vats, _>(&vat, |row| row.phase = VatPhase::Failed(why.to_owned()));
    Ok(())
}

/// Ends a vat (02 §9.4); what it leaves in its c-list and store is cleaned up in slices by [`clean`].
pub(crate) fn terminate(turn: &mut Turn<'_>, vat: VatId, detail: &str) -> Result<(), Corrupt> {
    let old = row(&turn.tx, vat)?.clone();
    if old.phase == VatPhase::Terminated {
        return Ok(());
    }
    turn.dispatches.push(Dispatch::Stop { vat, incarnation: old.incarnation });
    let decided = promise::decided_by(&turn.tx, Decider::Endpoint(vat.into()));
    for &kp in &decided {
        promise::reject_as_decider(turn, kp, KernelError::vat_terminated(detail).to_capdata())?;
    }
    decided.iter().try_for_each(|&kp| queue::strike_result(&mut turn.tx, kp))?;
    gc::forget_endpoint(&mut turn.tx, vat.into());
    if let Some(ko) = root(&turn.tx, vat) {
        counts::release(&mut turn.tx, KRef::Object(ko))?;
    }
    let (subcluster, name) = (old.subcluster, old.name.clone());
    turn.tx.put::<Vats>(vat, VatRow { phase: VatPhase::Terminated, ..old });
    turn.tx.put::<VatsToClean>(vat, ());
    turn.tx.delete::<SubclusterVats>(&(subcluster, vat));
    leave(turn, subcluster, &name);
    Ok(())
}

/// A vat has left its subcluster, which goes with the last of them. Without its bootstrap vat it is no system
/// subcluster any more: its name stands for that vat's root, and the next start launches it anew.
fn leave(turn: &mut Turn<'_>, subcluster: SubclusterId, name: &Arc<str>) {
    let Some(row) = turn.tx.get::<Subclusters>(&subcluster).filter(|row| !row.launching) else { return };
    let lost = row.system.clone().filter(|_| row.bootstrap == *name);
    if members(&turn.tx, subcluster).is_empty() {
        turn.tx.delete::<Subclusters>(&subcluster);
    } else if let Some(system) = lost {
        turn.tx.update::<Subclusters, _>(&subcluster, |row| row.system = None);
        let text =
            format!("system subcluster {system:?} ({subcluster}) has lost its bootstrap vat, and its name");
        turn.log(LogLevel::Warn, text);
    }
}

/// Returns the vats of a subcluster that are not terminated, in launch order.
pub(crate) fn members(tx: &Tx<'_>, subcluster: SubclusterId) -> Vec<VatId> {
    let own = tx.range::<SubclusterVats>((subcluster, VatId(0))..=(subcluster, VatId(u32::MAX)));
    own.map(|((_, vat), ())| *vat).collect()
}

/// Removes a bounded part of what a terminated vat left; its record goes with the last of it.
pub(crate) fn clean(turn: &mut Turn<'_>, vat: VatId) -> Result<(), Corrupt> {
    let endpoint = EndpointId::Vat(vat);
    let mut budget = CLEANUP_BUDGET;
    let first = (endpoint, KRef::Object(ObjectId(0)));
    let slice: Vec<_> = turn
        .tx
        .range::<capstan_store::schema::Clist>(first..)
        .take_while(|((e, _), _)| *e == endpoint)
        .take(budget)
        .map(|((_, kref), row)| (*kref, row.eref.side()))
        .collect();
    budget = budget.saturating_sub(slice.len());
    for (kref, side) in slice {
        match kref {
            KRef::Object(ko) if side == Side::Export => clist::disown(&mut turn.tx, ko)?,
            KRef::Object(_) => {
                clist::remove(&mut turn.tx, endpoint, kref)?;
            }
            KRef::Promise(kp) => {
                unsubscribe(&mut turn.tx, kp, endpoint);
                clist::remove(&mut turn.tx, endpoint, kref)?;
            }
        }
    }
    let keys: Vec<_> = own_store(&turn.tx, vat).take(budget).map(|(key, _)| key.clone()).collect();
    budget = budget.saturating_sub(keys.len());
    for key in keys {
        turn.tx.delete::<VatStore>(&(vat, key));
    }
    if budget > 0 {
        forget(turn, vat);
    }
    Ok(())
}

fn unsubscribe(tx: &mut Tx<'_>, kp: PromiseId, endpoint: EndpointId) {
    tx.update::<Promises, _>(&kp, |row| match &mut row.state {
        PromiseState::Unresolved { subscribers, .. } => subscribers.remove(&endpoint),
        PromiseState::Fulfilled(_) | PromiseState::Rejected(_) => false,
    });
}

/// Removes the record, and its program if no other vat runs it.
fn forget(turn: &mut Turn<'_>, vat: VatId) {
    turn.tx.delete::<VatsToClean>(&vat);
    if let Some(row) = turn.tx.delete::<Vats>(&vat)
        && !turn.tx.iter::<Vats>().any(|(_, other)| other.code == row.code)
    {
        turn.tx.delete::<Code>(&row.code);
    }
}

/// Says for people what a vat gave as its reason.
pub(crate) fn reason_text(info: &CapData<KRef>) -> String {
    use capstan_model::smallcaps::{Value, decode, render};
    match decode(info) {
        Ok(Value::Error { message, .. } | Value::String(message)) => message,
        Ok(_) | Err(_) => render(info).unwrap_or_else(|_| info.body.to_string()),
    }
}
