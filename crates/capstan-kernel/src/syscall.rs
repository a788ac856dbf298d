//! Syscalls of vats (02 §6), applied in the order of issue inside the transaction of their crank.

use crate::clist::{self, ForeignName};
use crate::effect::Effect;
use crate::fault::Corrupt;
use crate::promise::{self, SettleError};
use crate::queue;
use crate::turn::Turn;
use crate::vat;
use capstan_model::capdata::{CapData, Message, Resolution};
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, VatId};
use capstan_model::refs::{Side, VRef};
use capstan_model::vat::{StoreChanges, VatSyscall};
use capstan_store::schema::{Decider, PromiseState, SendItem, VatStore};

/// Why a syscall could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SyscallError {
    /// The vat broke the rules: its crank is undone and it ends.
    #[error("{0}")]
    Illegal(String),
    /// Ours, not the vat's.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

impl From<ForeignName> for SyscallError {
    fn from(error: ForeignName) -> Self {
        match error {
            ForeignName::Corrupt(corrupt) => SyscallError::Corrupt(corrupt),
            ForeignName::Unknown(_) | ForeignName::Dropped(_) => SyscallError::Illegal(error.to_string()),
        }
    }
}

impl From<SettleError> for SyscallError {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::Corrupt(corrupt) => SyscallError::Corrupt(corrupt),
            SettleError::AlreadySettled(_) | SettleError::NotDecider(..) => {
                SyscallError::Illegal(error.to_string())
            }
        }
    }
}

/// What the syscalls of a crank leave to be done at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The vat wants to end: as a failure, with this. The first such wish stands.
    pub(crate) exit: Option<(bool, CapData<KRef>)>,
    /// Promises that the vat settled; its runtime has forgotten their names.
    pub(crate) settled: Vec<PromiseId>,
}

/// Applies the syscalls of one crank. After the first illegal one nothing more is looked at.
pub(crate) fn apply_all(
    turn: &mut Turn<'_>,
    vat: VatId,
    syscalls: &[VatSyscall],
) -> Result<Applied, SyscallError> {
    let mut applied = Applied::default();
    for syscall in syscalls {
        apply(turn, vat, syscall, &mut applied)?;
    }
    Ok(applied)
}

/// Writes through what the vat changed in its own store (02 §13).
pub(crate) fn write_store(turn: &mut Turn<'_>, vat: VatId, changes: &StoreChanges) {
    for (key, value) in &changes.sets {
        turn.tx.put::<VatStore>((vat, key.clone()), value.clone());
    }
    for key in &changes.deletes {
        turn.tx.delete::<VatStore>(&(vat, key.clone()));
    }
}

fn apply(
    turn: &mut Turn<'_>,
    vat: VatId,
    syscall: &VatSyscall,
    applied: &mut Applied,
) -> Result<(), SyscallError> {
    match syscall {
        VatSyscall::Send { target, message } => send(turn, vat, *target, message),
        VatSyscall::Subscribe(vref) => {
            let kp = promise_of(turn, vat, *vref)?;
            Ok(promise::subscribe(&mut turn.tx, kp, vat.into())?)
        }
        VatSyscall::Resolve(resolutions) => resolve(turn, vat, resolutions, applied),
        VatSyscall::Exit { failure, info } => {
            let info = values(turn, vat, info)?;
            applied.exit.get_or_insert((*failure, info));
            Ok(())
        }
        VatSyscall::DropImports(vrefs) => vrefs.iter().try_for_each(|vref| {
            let (ko, _) = known_object(turn, vat, *vref, Side::Import)?;
            Ok(clist::set_reachable(&mut turn.tx, vat.into(), ko, false)?)
        }),
        VatSyscall::RetireImports(vrefs) => vrefs.iter().try_for_each(|vref| {
            let ko = unreachable_object(turn, vat, *vref, Side::Import)?;
            clist::remove(&mut turn.tx, vat.into(), KRef::Object(ko))?;
            Ok(())
        }),
        VatSyscall::RetireExports(vrefs) => vrefs.iter().try_for_each(|vref| {
            let ko = unreachable_object(turn, vat, *vref, Side::Export)?;
            Ok(clist::disown(&mut turn.tx, ko)?)
        }),
        VatSyscall::Fetch { id, request } => {
            let incarnation = vat::row(&turn.tx, vat)?.incarnation;
            let request = (**request).clone();
            turn.effects.push(Effect::Fetch { vat, incarnation, id: *id, request });
            Ok(())
        }
        VatSyscall::Look { id, request } => {
            let incarnation = vat::row(&turn.tx, vat)?.incarnation;
            turn.effects.push(Effect::Look { vat, incarnation, id: *id, request: request.clone() });
            Ok(())
        }
        VatSyscall::AbandonExports(vrefs) => vrefs.iter().try_for_each(|vref| {
            let (ko, _) = known_object(turn, vat, *vref, Side::Export)?;
            if *vref == VRef::ROOT {
                return Err(SyscallError::Illegal("a vat cannot abandon its root".into()));
            }
            Ok(clist::disown(&mut turn.tx, ko)?)
        }),
    }
}

fn send(turn: &mut Turn<'_>, vat: VatId, target: VRef, message: &Message<VRef>) -> Result<(), SyscallError> {
    let target = clist::export(turn, vat.into(), target.into())?;
    let methargs = values(turn, vat, &message.methargs)?;
    let result = message.result.map(|vref| result_of(turn, vat, vref)).transpose()?;
    Ok(queue::enqueue_send(&mut turn.tx, SendItem { target, methargs, result })?)
}

/// The result of a message must be a promise that the vat decides and has not given to another message:
/// whoever receives the message decides it next, and there can be only one.
fn result_of(turn: &mut Turn<'_>, vat: VatId, vref: VRef) -> Result<PromiseId, SyscallError> {
    let fresh = clist::kref_of(&turn.tx, vat.into(), vref.into()).is_none();
    let kp = promise_of(turn, vat, vref)?;
    if fresh {
        return Ok(kp);
    }
    let decided = match promise::row(&turn.tx, kp)?.state {
        PromiseState::Unresolved { decider, .. } => decider == Some(Decider::Endpoint(vat.into())),
        PromiseState::Fulfilled(_) | PromiseState::Rejected(_) => false,
    };
    if !decided || queue::is_result(&turn.tx, kp) {
        return Err(SyscallError::Illegal(format!("{vref} cannot be the result of a message")));
    }
    Ok(kp)
}

fn resolve(
    turn: &mut Turn<'_>,
    vat: VatId,
    resolutions: &[Resolution<VRef>],
    applied: &mut Applied,
) -> Result<(), SyscallError> {
    let mut translated = Vec::with_capacity(resolutions.len());
    for resolution in resolutions {
        let kp = promise_of(turn, vat, resolution.promise)?;
        translated.push((kp, resolution.rejected, values(turn, vat, &resolution.value)?));
    }
    for (kp, rejected, value) in translated {
        promise::settle(turn, kp, Some(Decider::Endpoint(vat.into())), rejected, value)?;
        applied.settled.push(kp);
    }
    Ok(())
}

fn values(turn: &mut Turn<'_>, vat: VatId, value: &CapData<VRef>) -> Result<CapData<KRef>, SyscallError> {
    Ok(value.try_map(|vref| clist::export(turn, vat.into(), (*vref).into()))?)
}

fn promise_of(turn: &mut Turn<'_>, vat: VatId, vref: VRef) -> Result<PromiseId, SyscallError> {
    if vref.is_object() {
        return Err(SyscallError::Illegal(format!("{vref} is not a promise")));
    }
    let kref = clist::export(turn, vat.into(), vref.into())?;
    kref.promise().ok_or_else(|| SyscallError::Illegal(format!("{vref} is not a promise")))
}

/// Returns the object behind a name of the wanted side and whether its bit is set; never creates anything.
fn known_object(
    turn: &Turn<'_>,
    vat: VatId,
    vref: VRef,
    side: Side,
) -> Result<(ObjectId, bool), SyscallError> {
    let endpoint = EndpointId::Vat(vat);
    let known = clist::kref_of(&turn.tx, endpoint, vref.into()).filter(|_| vref.side() == side);
    let ko = known.and_then(KRef::object);
    let ko = ko.ok_or_else(|| SyscallError::Illegal(format!("{vref} cannot be dropped or retired")))?;
    let row = clist::entry(&turn.tx, endpoint, KRef::Object(ko));
    let row = row.ok_or(Corrupt::NoEntry(endpoint, KRef::Object(ko)))?;
    Ok((ko, row.reachable))
}

fn unreachable_object(turn: &Turn<'_>, vat: VatId, vref: VRef, side: Side) -> Result<ObjectId, SyscallError> {
    match known_object(turn, vat, vref, side)? {
        (ko, false) => Ok(ko),
        (_, true) => Err(SyscallError::Illegal(format!("{vref} is still reachable"))),
    }
}
