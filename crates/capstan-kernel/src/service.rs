//! Kernel services: objects of the kernel itself, served by code of the host (02 §10.2).
//!
//! The kernel knows a name, an object and whether this process has code for it. A call takes its message off the
//! queue in a transaction of its own and leaves as an effect, so the code runs only for what is durable; the answer
//! comes back as an input. The kernel decides the result meanwhile: after a crash it rejects it.

use crate::effect::{Effect, LogLevel, Step};
use crate::fault::Corrupt;
use crate::host_op::Refusal;
use crate::input::CallId;
use crate::kernel::Kernel;
use crate::promise::{self, SettleError};
use crate::turn::{Turn, transact};
use crate::{clist, counts, host, queue};
use capstan_model::capdata::CapData;
use capstan_model::error::KernelError;
use capstan_model::id::{KRef, ObjectId, PromiseId};
use capstan_model::peer::Millis;
use capstan_model::smallcaps::decode;
use capstan_store::overlay::Tx;
use capstan_store::schema::{
    Decider, HandlerRow, Handlers, HoldKind, Owner, PromiseState, Promises, SendItem, ServiceCallRow,
    ServiceCalls, Services,
};
use std::sync::Arc;

/// Calls of one service in progress; more wait in the run queue. A service may well keep calls for long, such as one
/// that waits for a line to read.
pub(crate) const CALLS_MAX: u64 = 256;

impl Kernel {
    /// Takes the answer to a call; one that is not in progress is ignored.
    pub(crate) fn service_replied(
        &mut self,
        now: Millis,
        call: CallId,
        outcome: Result<CapData<KRef>, String>,
        step: &mut Step,
    ) {
        let Some(service) = self.db.get::<ServiceCalls>(&call.0).map(|row| row.service.clone()) else {
            return;
        };
        let item = || format!("answer of kernel service '{service}' to {call:?}");
        let kept = transact(&mut self.db, &self.config, now, step, item, |turn| finish(turn, call, outcome));
        if kept.is_err() {
            let outcome = Err("the answer was set aside".to_owned());
            let _ = transact(&mut self.db, &self.config, now, step, item, |turn| finish(turn, call, outcome));
        }
    }

    /// Looks again at what waits for services that can take calls, or are gone.
    pub(crate) fn feed_services(&mut self) -> bool {
        let mut progress = false;
        for (name, lane) in &mut self.volatile.service_lanes {
            let calls = self.db.get::<Handlers>(name).map_or(0, |handler| handler.calls);
            let open = usize::try_from(CALLS_MAX.saturating_sub(calls)).unwrap_or(usize::MAX);
            let freed = open.min(lane.len());
            progress |= freed > 0;
            self.volatile.recheck.extend(lane.drain(..freed));
        }
        self.volatile.service_lanes.retain(|_, lane| !lane.is_empty());
        progress
    }
}

/// Notes that this process has code for the service. Its object is made when it is first named.
pub(crate) fn register(
    tx: &mut Tx<'_>,
    name: &Arc<str>,
    system_only: bool,
    holds: Option<ObjectId>,
) -> Result<Result<(), Refusal>, Corrupt> {
    if tx.get::<Handlers>(name).is_some() {
        return Ok(Err(Refusal::ServiceRegistered(name.clone())));
    }
    if let Some(ko) = holds {
        if !host::is_held(tx, KRef::Object(ko)) {
            return Ok(Err(Refusal::BadReference(ko.to_string())));
        }
        promise::hold_for_control(tx, KRef::Object(ko), HoldKind::Waiting)?;
    }
    tx.put::<Handlers>(name.clone(), HandlerRow { system_only, holds, calls: 0 });
    Ok(Ok(()))
}

/// Returns the object of a service: the same one as long as the name is not unregistered.
pub(crate) fn object(tx: &mut Tx<'_>, name: &Arc<str>) -> Result<ObjectId, Corrupt> {
    if let Some(ko) = tx.get::<Services>(name) {
        return Ok(*ko);
    }
    let ko = clist::new_object(tx, Some(Owner::Kernel));
    tx.put::<Services>(name.clone(), ko);
    counts::hold(tx, KRef::Object(ko))?;
    Ok(ko)
}

/// Forgets a service and its object; does nothing if there is none. Calls in progress may still be answered.
pub(crate) fn unregister(tx: &mut Tx<'_>, name: &Arc<str>) -> Result<(), Corrupt> {
    if let Some(ko) = tx.delete::<Handlers>(name).and_then(|handler| handler.holds) {
        promise::release_for_control(tx, KRef::Object(ko), HoldKind::Waiting)?;
    }
    let Some(ko) = tx.delete::<Services>(name) else { return Ok(()) };
    counts::release(tx, KRef::Object(ko))?;
    clist::disown(tx, ko)
}

/// Whether a launch may ask for the service.
pub(crate) fn is_offered(tx: &Tx<'_>, name: &str, system: bool) -> bool {
    tx.get::<Handlers>(&Arc::from(name)).is_some_and(|handler| system || !handler.system_only)
}

/// Whether the object is that of a service, registered in this run or not.
pub(crate) fn is_service(tx: &Tx<'_>, ko: ObjectId) -> bool {
    name_of(tx, ko).is_some()
}

/// Returns the service behind an object, if this process has code for it.
pub(crate) fn serving(tx: &Tx<'_>, ko: ObjectId) -> Option<Arc<str>> {
    name_of(tx, ko).filter(|name| tx.get::<Handlers>(*name).is_some()).cloned()
}

fn name_of<'t>(tx: &'t Tx<'_>, ko: ObjectId) -> Option<&'t Arc<str>> {
    tx.iter::<Services>().find(|(_, service)| **service == ko).map(|(name, _)| name)
}

/// Hands out the call that the message at `position` makes; `false`: the service is busy, and the message stays.
pub(crate) fn begin(
    turn: &mut Turn<'_>,
    position: u64,
    service: &Arc<str>,
    object: ObjectId,
    item: &SendItem,
) -> Result<bool, Corrupt> {
    let handler = turn.tx.get::<Handlers>(service).cloned();
    let handler = handler.ok_or(Corrupt::Impossible("a call of a service without code"))?;
    if handler.calls >= CALLS_MAX {
        return Ok(false);
    }
    turn.tx.put::<Handlers>(service.clone(), HandlerRow { calls: handler.calls + 1, ..handler });
    queue::take(&mut turn.tx, position);
    let result = match item.result {
        Some(kp) if !promise::is_settled(&turn.tx, kp)? => Some(kp),
        Some(_) | None => None,
    };
    if let Some(kp) = result {
        promise::set_decider(&mut turn.tx, kp, Some(Decider::Kernel))?;
    }
    let slots = item.methargs.slots.clone();
    for &slot in &slots {
        promise::hold_for_control(&mut turn.tx, slot, HoldKind::Waiting)?;
    }
    queue::release_send(&mut turn.tx, item)?;
    turn.tx.put::<ServiceCalls>(position, ServiceCallRow { object, service: service.clone(), result, slots });
    let methargs = item.methargs.clone();
    turn.effects.push(Effect::ServiceCall { call: CallId(position), service: service.clone(), methargs });
    Ok(true)
}

/// Ends a call: its result is settled, what it named is released.
fn finish(turn: &mut Turn<'_>, call: CallId, outcome: Result<CapData<KRef>, String>) -> Result<(), Corrupt> {
    let Some(row) = turn.tx.delete::<ServiceCalls>(&call.0) else { return Ok(()) };
    if turn.tx.get::<Services>(&row.service) == Some(&row.object) {
        turn.tx
            .update::<Handlers, _>(&row.service, |handler| handler.calls = handler.calls.saturating_sub(1));
    }
    let outcome = outcome.and_then(|value| sound(&turn.tx, value));
    match row.result.filter(|&kp| is_ours(&turn.tx, kp)) {
        Some(kp) => {
            let (rejected, value) = match outcome {
                Ok(value) => (false, value),
                Err(text) => (true, KernelError::delivery_failed(text).to_capdata()),
            };
            match promise::settle(turn, kp, Some(Decider::Kernel), rejected, value) {
                Ok(()) => {}
                Err(SettleError::Corrupt(corrupt)) => return Err(corrupt),
                Err(SettleError::AlreadySettled(_) | SettleError::NotDecider(..)) => {
                    return Err(Corrupt::WrongState(kp));
                }
            }
        }
        None => {
            if let Err(text) = outcome {
                turn.log(
                    LogLevel::Warn,
                    format!("a call of kernel service '{}' failed: {text}", row.service),
                );
            }
        }
    }
    row.slots.iter().try_for_each(|&slot| promise::release_for_control(&mut turn.tx, slot, HoldKind::Waiting))
}

fn is_ours(tx: &Tx<'_>, kp: PromiseId) -> bool {
    matches!(
        tx.get::<Promises>(&kp).map(|row| &row.state),
        Some(PromiseState::Unresolved { decider: Some(Decider::Kernel), .. })
    )
}

/// A value as the host gives it: one that decodes, and names only what somebody holds.
fn sound(tx: &Tx<'_>, value: CapData<KRef>) -> Result<CapData<KRef>, String> {
    if let Err(error) = decode(&value) {
        return Err(format!("the service gave no value: {error}"));
    }
    match value.slots.iter().find(|slot| !host::is_held(tx, **slot)) {
        Some(slot) => Err(format!("the service gave {slot}, which does not exist")),
        None => Ok(value),
    }
}
