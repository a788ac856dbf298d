//! Pins: objects kept alive, durably and as often as asked, because the host says so (02 §7.6).

use crate::fault::Corrupt;
use crate::host_op::{Answer, Refusal};
use crate::{counts, host, vat};
use capstan_model::id::{KRef, ObjectId, VatId};
use capstan_store::overlay::Tx;
use capstan_store::schema::{Pins, VatPhase, Vats};

/// Adds one pin. What nobody reaches is being collected, and is refused.
pub(crate) fn pin(tx: &mut Tx<'_>, object: ObjectId) -> Result<Result<(), Refusal>, Corrupt> {
    if !host::is_held(tx, KRef::Object(object)) {
        return Ok(Err(Refusal::BadReference(object.to_string())));
    }
    counts::hold(tx, KRef::Object(object))?;
    let times = tx.get::<Pins>(&object).copied().unwrap_or(0);
    tx.put::<Pins>(object, times.saturating_add(1));
    Ok(Ok(()))
}

/// Ends one pin; does nothing to what is not pinned.
pub(crate) fn unpin(tx: &mut Tx<'_>, object: ObjectId) -> Result<(), Corrupt> {
    match tx.get::<Pins>(&object).copied() {
        None => return Ok(()),
        Some(0 | 1) => {
            tx.delete::<Pins>(&object);
        }
        Some(times) => tx.put::<Pins>(object, times - 1),
    }
    counts::release(tx, KRef::Object(object))
}

/// Pins the root of a vat and says which it is.
pub(crate) fn pin_root(tx: &mut Tx<'_>, vat: VatId) -> Result<Result<Answer, Refusal>, Corrupt> {
    match live_root(tx, vat) {
        Ok(object) => Ok(pin(tx, object)?.map(|()| Answer::Object { object })),
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// Ends one pin of the root of a vat and says which it is.
pub(crate) fn unpin_root(tx: &mut Tx<'_>, vat: VatId) -> Result<Result<Answer, Refusal>, Corrupt> {
    match live_root(tx, vat) {
        Ok(object) => {
            unpin(tx, object)?;
            Ok(Ok(Answer::Object { object }))
        }
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// The root of a vat that has come up and is not terminated.
fn live_root(tx: &Tx<'_>, vat: VatId) -> Result<ObjectId, Refusal> {
    let lives = tx.get::<Vats>(&vat).is_some_and(|row| row.phase != VatPhase::Terminated);
    vat::root(tx, vat).filter(|_| lives).ok_or(Refusal::VatNotFound(vat))
}
