//! Garbage collection: what becomes of things whose counts reached zero, and the GC actions (02 §7.3–7.5).

use crate::fault::Corrupt;
use crate::remote::{self, RemoteDelivery};
use crate::turn::{Turn, next_number};
use crate::{clist, counts, service};
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId, RemoteId};
use capstan_model::refs::Side;
use capstan_store::overlay::{Db, Tx};
use capstan_store::schema::{
    Candidates, GcActions, GcDue, GcKind, Objects, Owner, PromiseState, Promises, Reaps, ReapsByEndpoint,
    Remotes, VatPhase, Vats,
};

/// Objects of one GC delivery, and of the transaction that takes its answer: no vat is kept busy for long by what
/// others have let go of.
const GROUP_MAX: usize = 1000;

/// A GC action: whom to tell what about which object.
pub(crate) type Action = (EndpointId, GcKind, ObjectId);

/// Decides about every candidate of the transaction, with fresh counts; new ones may appear on the way.
pub(crate) fn judge_candidates(tx: &mut Tx<'_>) -> Result<(), Corrupt> {
    loop {
        let Some(kref) = tx.iter::<Candidates>().next().map(|(kref, ())| *kref) else {
            return Ok(());
        };
        tx.delete::<Candidates>(&kref);
        match kref {
            KRef::Object(ko) => judge_object(tx, ko),
            KRef::Promise(kp) => judge_promise(tx, kp)?,
        }
    }
}

fn judge_promise(tx: &mut Tx<'_>, kp: PromiseId) -> Result<(), Corrupt> {
    if tx.get::<Promises>(&kp).is_none_or(|row| row.count > 0) {
        return Ok(());
    }
    let Some(row) = tx.delete::<Promises>(&kp) else {
        return Ok(());
    };
    match row.state {
        PromiseState::Unresolved { .. } => Err(Corrupt::WrongState(kp)),
        PromiseState::Fulfilled(value) | PromiseState::Rejected(value) => {
            value.slots.iter().try_for_each(|&slot| counts::release(tx, slot))
        }
    }
}

fn judge_object(tx: &mut Tx<'_>, ko: ObjectId) {
    let Some(row) = tx.get::<Objects>(&ko).filter(|row| row.reachable == 0).cloned() else {
        return;
    };
    let recognized = row.recognizable > 0;
    match row.owner {
        Some(Owner::Endpoint(endpoint)) => {
            if !lives(tx, endpoint) {
                return; // Its clean-up will disown the object and ask again.
            }
            if clist::entry(tx, endpoint, KRef::Object(ko)).is_some_and(|entry| entry.reachable) {
                order(tx, (endpoint, GcKind::DropExport, ko));
            }
            if !recognized {
                order(tx, (endpoint, GcKind::RetireExport, ko));
            }
        }
        Some(Owner::Kernel) if service::is_service(tx, ko) => {}
        Some(Owner::Kernel) | None if recognized => {
            for importer in clist::importers(tx, ko) {
                if lives(tx, importer) {
                    order(tx, (importer, GcKind::RetireImport, ko));
                }
            }
        }
        Some(Owner::Kernel) | None => {
            tx.delete::<Objects>(&ko);
        }
    }
}

/// Whether the endpoint has a record and is not on its way out.
pub(crate) fn lives(tx: &Tx<'_>, endpoint: EndpointId) -> bool {
    match endpoint {
        EndpointId::Vat(vat) => tx.get::<Vats>(&vat).is_some_and(|row| row.phase != VatPhase::Terminated),
        EndpointId::Remote(rid) => tx.get::<Remotes>(&rid).is_some(),
    }
}

/// Adds an action, to be looked at by work selection.
fn order(tx: &mut Tx<'_>, action: Action) {
    tx.put::<GcActions>(action, ());
    tx.put::<GcDue>(action.0, ());
}

/// Whether the endpoint has GC actions.
pub(crate) fn has_actions(db: &Db, endpoint: EndpointId) -> bool {
    let first = (endpoint, GcKind::DropExport, ObjectId(0));
    db.range::<GcActions>(first..=(endpoint, GcKind::RetireImport, ObjectId(u64::MAX))).next().is_some()
}

/// Returns the first kind of action due for the endpoint and objects for which it is still true, in order, at most
/// [`GROUP_MAX`]; removes those before them for which it is not. The rest stay until [`perform`].
pub(crate) fn next_group(turn: &mut Turn<'_>, endpoint: EndpointId) -> Option<(GcKind, Vec<ObjectId>)> {
    let lives = lives(&turn.tx, endpoint);
    for kind in [GcKind::DropExport, GcKind::RetireExport, GcKind::RetireImport] {
        loop {
            let range = (endpoint, kind, ObjectId(0))..=(endpoint, kind, ObjectId(u64::MAX));
            let actions = turn.tx.range::<GcActions>(range).take(GROUP_MAX);
            let all: Vec<_> = actions.map(|((.., ko), ())| *ko).collect();
            if all.is_empty() {
                break;
            }
            let (valid, stale): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|&ko| lives && is_due(&turn.tx, endpoint, kind, ko));
            forget_actions(&mut turn.tx, endpoint, kind, &stale);
            if !valid.is_empty() {
                return Some((kind, valid));
            }
        }
    }
    None
}

fn is_due(tx: &Tx<'_>, endpoint: EndpointId, kind: GcKind, ko: ObjectId) -> bool {
    let Some(entry) = clist::entry(tx, endpoint, KRef::Object(ko)) else {
        return false;
    };
    let counts = tx.get::<Objects>(&ko).map(|row| (row.reachable, row.recognizable));
    match kind {
        GcKind::DropExport => {
            entry.reachable && entry.eref.side() == Side::Export && counts.is_some_and(|(r, _)| r == 0)
        }
        GcKind::RetireExport => entry.eref.side() == Side::Export && counts == Some((0, 0)),
        GcKind::RetireImport => entry.eref.side() == Side::Import,
    }
}

/// The effect of a delivered group on the c-list; the actions are done with.
pub(crate) fn perform(
    turn: &mut Turn<'_>,
    endpoint: EndpointId,
    kind: GcKind,
    objects: &[ObjectId],
) -> Result<(), Corrupt> {
    forget_actions(&mut turn.tx, endpoint, kind, objects);
    for &ko in objects {
        if clist::entry(&turn.tx, endpoint, KRef::Object(ko)).is_none() {
            continue;
        }
        match kind {
            GcKind::DropExport => clist::set_reachable(&mut turn.tx, endpoint, ko, false)?,
            GcKind::RetireExport => clist::disown(&mut turn.tx, ko)?,
            GcKind::RetireImport => {
                clist::remove(&mut turn.tx, endpoint, KRef::Object(ko))?;
            }
        }
    }
    Ok(())
}

/// The actions are done with.
pub(crate) fn forget_actions(tx: &mut Tx<'_>, endpoint: EndpointId, kind: GcKind, objects: &[ObjectId]) {
    for &ko in objects {
        tx.delete::<GcActions>(&(endpoint, kind, ko));
    }
}

/// Performs one group of actions toward a remote, or, when there is none, its reap; returns whether more may follow.
pub(crate) fn tell_remote(turn: &mut Turn<'_>, rid: RemoteId) -> Result<bool, Corrupt> {
    let Some((kind, objects)) = next_group(turn, rid.into()) else {
        let asked = turn.tx.get::<ReapsByEndpoint>(&rid.into()).is_some();
        end_reap(&mut turn.tx, rid.into());
        if asked && turn.tx.get::<Remotes>(&rid).is_some() {
            remote::deliver(turn, rid, RemoteDelivery::BringOutYourDead)?;
            remote::age_settled_names(turn, rid)?;
        }
        return Ok(false);
    };
    let delivery = match kind {
        GcKind::DropExport => RemoteDelivery::DropExports(objects.clone()),
        GcKind::RetireExport => RemoteDelivery::RetireExports(objects.clone()),
        GcKind::RetireImport => RemoteDelivery::RetireImports(objects.clone()),
    };
    remote::deliver(turn, rid, delivery)?;
    perform(turn, rid.into(), kind, &objects)?;
    Ok(true)
}

/// Asks an endpoint to collect garbage, once however often it is asked.
pub(crate) fn schedule_reap(tx: &mut Tx<'_>, endpoint: EndpointId) {
    if tx.get::<ReapsByEndpoint>(&endpoint).is_none() {
        let number = next_number(tx, "reap");
        tx.put::<Reaps>(number, endpoint);
        tx.put::<ReapsByEndpoint>(endpoint, number);
        tx.put::<GcDue>(endpoint, ());
    }
}

/// A peer asks us to collect what we hold of its objects: vats that worked since they last did do so again.
pub(crate) fn schedule_reaps_toward(tx: &mut Tx<'_>, rid: RemoteId) {
    schedule_reap(tx, rid.into());
    let worked = tx.iter::<Vats>().filter(|(_, row)| row.phase == VatPhase::Running && row.deliveries > 0);
    let worked: Vec<_> = worked.map(|(vat, _)| *vat).collect();
    worked.into_iter().for_each(|vat| schedule_reap(tx, vat.into()));
}

/// The endpoint was asked, or is not to be asked any more.
pub(crate) fn end_reap(tx: &mut Tx<'_>, endpoint: EndpointId) {
    if let Some(number) = tx.delete::<ReapsByEndpoint>(&endpoint) {
        tx.delete::<Reaps>(&number);
    }
}

/// Forgets everything that was to be said to an endpoint about garbage.
pub(crate) fn forget_endpoint(tx: &mut Tx<'_>, endpoint: EndpointId) {
    let first = (endpoint, GcKind::DropExport, ObjectId(0));
    let last = (endpoint, GcKind::RetireImport, ObjectId(u64::MAX));
    let actions: Vec<_> = tx.range::<GcActions>(first..=last).map(|(key, ())| *key).collect();
    for key in actions {
        tx.delete::<GcActions>(&key);
    }
    end_reap(tx, endpoint);
}

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_model::id::VatId;

    #[test]
    fn k106_reaps_are_queued_in_the_order_first_asked_each_endpoint_once() {
        let mut db = Db::default();
        let mut tx = db.begin();
        let (v1, v2, r1) =
            (EndpointId::from(VatId(1)), EndpointId::from(VatId(2)), EndpointId::from(RemoteId(1)));
        let queued = |tx: &Tx<'_>| tx.iter::<Reaps>().map(|(_, endpoint)| *endpoint).collect::<Vec<_>>();
        for endpoint in [v2, r1, v2, v1, r1] {
            schedule_reap(&mut tx, endpoint);
        }
        assert_eq!(queued(&tx), [v2, r1, v1]);
        end_reap(&mut tx, v2);
        schedule_reap(&mut tx, v2);
        assert_eq!(queued(&tx), [r1, v1, v2]);
        forget_endpoint(&mut tx, v1);
        assert_eq!(queued(&tx), [r1, v2]);
        assert_eq!(tx.iter::<ReapsByEndpoint>().count(), 2);
    }
}
