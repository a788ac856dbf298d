//! Reference counts. They move with edges (law L6): only the functions that insert or remove a counted edge
//! (c-list entry, queue item, settlement slot, pin, hold, grant) call these.
//!
//! Sources of counts: the table of 02 §7.1, nothing else.

use crate::fault::Corrupt;
use capstan_model::id::{KRef, ObjectId, PromiseId};
use capstan_store::overlay::Tx;
use capstan_store::schema::{Candidates, ObjectRow, Objects, Promises};

/// What one edge contributes to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Reachable and recognisable.
    Reach,
    /// Recognisable only.
    Recognize,
}

fn change_object(
    tx: &mut Tx<'_>,
    ko: ObjectId,
    change: impl FnOnce(&mut ObjectRow) -> Option<()>,
) -> Result<(), Corrupt> {
    let count = Corrupt::Count(KRef::Object(ko));
    let row = tx.get::<Objects>(&ko).ok_or(Corrupt::NoObject(ko))?;
    let mut row = row.clone();
    change(&mut row).filter(|()| row.reachable <= row.recognizable).ok_or(count)?;
    let candidate = row.reachable == 0;
    tx.put::<Objects>(ko, row);
    if candidate {
        tx.put::<Candidates>(KRef::Object(ko), ());
    }
    Ok(())
}

fn change_promise(tx: &mut Tx<'_>, kp: PromiseId, up: bool) -> Result<(), Corrupt> {
    let row = tx.get::<Promises>(&kp).ok_or(Corrupt::NoPromise(kp))?;
    let mut row = row.clone();
    let count = if up { row.count.checked_add(1) } else { row.count.checked_sub(1) };
    row.count = count.ok_or(Corrupt::Count(KRef::Promise(kp)))?;
    let candidate = row.count == 0;
    tx.put::<Promises>(kp, row);
    if candidate {
        tx.put::<Candidates>(KRef::Promise(kp), ());
    }
    Ok(())
}

/// Adds an edge that makes `kref` reachable.
pub(crate) fn hold(tx: &mut Tx<'_>, kref: KRef) -> Result<(), Corrupt> {
    match kref {
        KRef::Object(ko) => change_object(tx, ko, |row| {
            row.reachable = row.reachable.checked_add(1)?;
            row.recognizable = row.recognizable.checked_add(1)?;
            Some(())
        }),
        KRef::Promise(kp) => change_promise(tx, kp, true),
    }
}

/// Removes an edge that made `kref` reachable. At zero it becomes a candidate for collection.
pub(crate) fn release(tx: &mut Tx<'_>, kref: KRef) -> Result<(), Corrupt> {
    match kref {
        KRef::Object(ko) => change_object(tx, ko, |row| {
            row.reachable = row.reachable.checked_sub(1)?;
            row.recognizable = row.recognizable.checked_sub(1)?;
            Some(())
        }),
        KRef::Promise(kp) => change_promise(tx, kp, false),
    }
}

/// Removes the recognisable-only edge of an importer that had dropped the object.
pub(crate) fn unrecognize(tx: &mut Tx<'_>, ko: ObjectId) -> Result<(), Corrupt> {
    change_object(tx, ko, |row| {
        row.recognizable = row.recognizable.checked_sub(1)?;
        Some(())
    })
}

/// Turns an importer's edge from recognisable to reachable, or back.
pub(crate) fn reweigh(tx: &mut Tx<'_>, ko: ObjectId, to: Weight) -> Result<(), Corrupt> {
    change_object(tx, ko, |row| {
        row.reachable = match to {
            Weight::Reach => row.reachable.checked_add(1)?,
            Weight::Recognize => row.reachable.checked_sub(1)?,
        };
        Some(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_model::id::PromiseId;
    use capstan_store::overlay::Db;
    use capstan_store::schema::{PromiseRow, PromiseState};

    #[test]
    fn k111_counts_that_make_no_sense_are_refused() {
        let mut db = Db::default();
        let (ko, kp) = (ObjectId(1), PromiseId(1));
        let counted =
            |reachable, recognizable| ObjectRow { owner: None, reachable, recognizable, revoked: false };
        let refused = |change: fn(&mut Tx<'_>, ObjectId) -> Result<(), Corrupt>, row: ObjectRow| {
            let mut tx = db.begin();
            tx.put::<Objects>(ko, row.clone());
            let outcome = change(&mut tx, ko);
            assert_eq!(tx.get::<Objects>(&ko), Some(&row).filter(|_| outcome.is_err()));
            outcome == Err(Corrupt::Count(ko.into()))
        };
        let mut refused = refused;
        assert!(refused(|tx, ko| release(tx, ko.into()), counted(0, 0)));
        assert!(refused(|tx, ko| release(tx, ko.into()), counted(0, 1)));
        assert!(refused(|tx, ko| hold(tx, ko.into()), counted(u64::MAX, u64::MAX)));
        assert!(refused(unrecognize, counted(1, 1)));
        assert!(refused(unrecognize, counted(0, 0)));
        assert!(refused(|tx, ko| reweigh(tx, ko, Weight::Reach), counted(1, 1)));
        assert!(refused(|tx, ko| reweigh(tx, ko, Weight::Recognize), counted(0, 1)));
        let mut tx = db.begin();
        assert_eq!(hold(&mut tx, ko.into()), Err(Corrupt::NoObject(ko)));
        assert_eq!(hold(&mut tx, kp.into()), Err(Corrupt::NoPromise(kp)));
        for (count, up) in [(0, false), (u64::MAX, true)] {
            let state = PromiseState::Fulfilled(capstan_model::capdata::CapData::data("#1"));
            tx.put::<Promises>(kp, PromiseRow { state, count });
            let outcome = if up { hold(&mut tx, kp.into()) } else { release(&mut tx, kp.into()) };
            assert_eq!(outcome, Err(Corrupt::Count(kp.into())));
        }
    }
}
