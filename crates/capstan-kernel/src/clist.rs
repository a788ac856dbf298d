//! C-lists: per endpoint, a bijection between kernel names and the endpoint's own names (01 §3).
//!
//! What an entry contributes to the counts (02 §7.1): an import of an object is one reachable edge, or one
//! recognisable edge while its bit is clear; an import or export of a promise is one; the owner's entry of an
//! object contributes nothing. Insertion, removal and the bit move the counts here and nowhere else.

use crate::counts::{self, Weight};
use crate::fault::Corrupt;
use crate::promise;
use crate::turn::{Turn, next_number};
use capstan_model::id::{EndpointId, KRef, ObjectId};
use capstan_model::peer::Seq;
use capstan_model::refs::{ERef, RRef, RefKind, Side, VObject, VRef};
use capstan_store::overlay::Tx;
use capstan_store::schema::{
    Clist, ClistByEref, ClistRow, Decider, Importers, ObjectRow, Objects, Owner, Remotes, Vats,
};

/// Why an endpoint's name could not be taken: the endpoint's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForeignName {
    /// It names an import that it was never given, or has retired.
    #[error("unknown import {0}")]
    Unknown(ERef),
    /// It names an import that it has dropped.
    #[error("{0} was dropped")]
    Dropped(ERef),
    /// Ours, not theirs.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Returns the endpoint's entry for `kref`.
pub(crate) fn entry<'t>(tx: &'t Tx<'_>, endpoint: EndpointId, kref: KRef) -> Option<&'t ClistRow> {
    tx.get::<Clist>(&(endpoint, kref))
}

/// Returns what the endpoint's `eref` stands for.
pub(crate) fn kref_of(tx: &Tx<'_>, endpoint: EndpointId, eref: ERef) -> Option<KRef> {
    tx.get::<ClistByEref>(&(endpoint, eref)).copied()
}

/// Returns every endpoint that has imported `ko`.
pub(crate) fn importers(tx: &Tx<'_>, ko: ObjectId) -> Vec<EndpointId> {
    let first = (ko, EndpointId::Vat(capstan_model::id::VatId(0)));
    tx.range::<Importers>(first..).take_while(|((k, _), ())| *k == ko).map(|((_, e), ())| *e).collect()
}

/// Whether the endpoint has no entry.
pub(crate) fn is_empty(tx: &Tx<'_>, endpoint: EndpointId) -> bool {
    tx.range::<Clist>((endpoint, KRef::Object(ObjectId(0)))..).next().is_none_or(|((e, _), _)| *e != endpoint)
}

/// Returns every entry of the endpoint, in kref order.
pub(crate) fn entries(tx: &Tx<'_>, endpoint: EndpointId) -> Vec<(KRef, ClistRow)> {
    let first = (endpoint, KRef::Object(ObjectId(0)));
    let own = tx.range::<Clist>(first..).take_while(|((e, _), _)| *e == endpoint);
    own.map(|((_, kref), row)| (*kref, row.clone())).collect()
}

/// Inserts an entry with its bit set and moves the counts.
pub(crate) fn insert(tx: &mut Tx<'_>, endpoint: EndpointId, kref: KRef, eref: ERef) -> Result<(), Corrupt> {
    let taken = tx.get::<Clist>(&(endpoint, kref)).is_some() || kref_of(tx, endpoint, eref).is_some();
    if taken || eref.is_object() != matches!(kref, KRef::Object(_)) {
        return Err(Corrupt::DoubleEntry(endpoint, kref, eref));
    }
    if counted(kref, eref) {
        counts::hold(tx, kref)?;
    }
    tx.put::<Clist>((endpoint, kref), ClistRow { eref, reachable: true, last_mention: Seq(0) });
    tx.put::<ClistByEref>((endpoint, eref), kref);
    if eref.side() == Side::Import {
        if let KRef::Object(ko) = kref {
            tx.put::<Importers>((ko, endpoint), ());
        }
        spend_number(tx, endpoint, eref)?;
    }
    Ok(())
}

/// Removes an entry and what it contributed. Says nothing of ownership: see [`disown`].
pub(crate) fn remove(tx: &mut Tx<'_>, endpoint: EndpointId, kref: KRef) -> Result<ClistRow, Corrupt> {
    let row = tx.delete::<Clist>(&(endpoint, kref)).ok_or(Corrupt::NoEntry(endpoint, kref))?;
    tx.delete::<ClistByEref>(&(endpoint, row.eref));
    if let (KRef::Object(ko), Side::Import) = (kref, row.eref.side()) {
        tx.delete::<Importers>(&(ko, endpoint));
    }
    if counted(kref, row.eref) {
        match kref {
            KRef::Object(ko) if !row.reachable => counts::unrecognize(tx, ko)?,
            KRef::Object(_) | KRef::Promise(_) => counts::release(tx, kref)?,
        }
    }
    Ok(row)
}

/// Sets or clears the bit of an object's entry; for an import the counts move.
pub(crate) fn set_reachable(
    tx: &mut Tx<'_>,
    endpoint: EndpointId,
    ko: ObjectId,
    reachable: bool,
) -> Result<(), Corrupt> {
    let key = (endpoint, KRef::Object(ko));
    let row = tx.get::<Clist>(&key).ok_or(Corrupt::NoEntry(endpoint, KRef::Object(ko)))?.clone();
    if row.reachable == reachable {
        return Ok(());
    }
    if counted(KRef::Object(ko), row.eref) {
        counts::reweigh(tx, ko, if reachable { Weight::Reach } else { Weight::Recognize })?;
    }
    tx.put::<Clist>(key, ClistRow { reachable, ..row });
    Ok(())
}

/// Takes the object from its owner: it becomes an orphan. The owner's entry, if any, goes too.
pub(crate) fn disown(tx: &mut Tx<'_>, ko: ObjectId) -> Result<(), Corrupt> {
    let row = tx.get::<Objects>(&ko).ok_or(Corrupt::NoObject(ko))?.clone();
    if let Some(Owner::Endpoint(endpoint)) = row.owner
        && entry(tx, endpoint, KRef::Object(ko)).is_some_and(|row| row.eref.side() == Side::Export)
    {
        remove(tx, endpoint, KRef::Object(ko))?;
    }
    tx.put::<Objects>(ko, ObjectRow { owner: None, ..row });
    tx.put::<capstan_store::schema::Candidates>(KRef::Object(ko), ());
    Ok(())
}

/// Translates kernel to endpoint where importing is allowed: finds the entry, or allocates a `-` name. An object
/// that the endpoint had dropped becomes reachable for it again.
pub(crate) fn import(turn: &mut Turn<'_>, endpoint: EndpointId, kref: KRef) -> Result<ERef, Corrupt> {
    if let Some(row) = entry(&turn.tx, endpoint, kref) {
        let (eref, reachable) = (row.eref, row.reachable);
        if let (KRef::Object(ko), false) = (kref, reachable) {
            set_reachable(&mut turn.tx, endpoint, ko, true)?;
        }
        return Ok(eref);
    }
    let kind = if kref.object().is_some() { RefKind::Object } else { RefKind::Promise };
    let eref = next_import(&turn.tx, endpoint, kind)?;
    insert(&mut turn.tx, endpoint, kref, eref)?;
    if let (KRef::Promise(kp), EndpointId::Remote(_)) = (kref, endpoint) {
        // A peer is told of every promise it has been shown, and has no verb to ask (02 §5, 03 C-4).
        promise::subscribe(&mut turn.tx, kp, endpoint)?;
    }
    Ok(eref)
}

/// Translates endpoint to kernel: finds the entry, or, for a `+` name, creates what it exports.
pub(crate) fn export(turn: &mut Turn<'_>, endpoint: EndpointId, eref: ERef) -> Result<KRef, ForeignName> {
    let tx = &mut turn.tx;
    if let Some(kref) = kref_of(tx, endpoint, eref) {
        let row = entry(tx, endpoint, kref).ok_or(Corrupt::NoEntry(endpoint, kref))?;
        if let (KRef::Object(ko), false) = (kref, row.reachable) {
            if eref.side() == Side::Import {
                return Err(ForeignName::Dropped(eref));
            }
            set_reachable(tx, endpoint, ko, true)?;
        }
        return Ok(kref);
    }
    if eref.side() == Side::Import {
        return Err(ForeignName::Unknown(eref));
    }
    let kref = if eref.is_object() {
        KRef::Object(new_object(tx, Some(Owner::Endpoint(endpoint))))
    } else {
        KRef::Promise(promise::create(tx, Some(Decider::Endpoint(endpoint))))
    };
    insert(tx, endpoint, kref, eref)?;
    if let (KRef::Promise(kp), EndpointId::Remote(_)) = (kref, endpoint) {
        promise::subscribe(tx, kp, endpoint)?;
    }
    Ok(kref)
}

/// Creates an object row without any edge. It is a candidate until something holds it.
pub(crate) fn new_object(tx: &mut Tx<'_>, owner: Option<Owner>) -> ObjectId {
    let ko = ObjectId(next_number(tx, "object"));
    tx.put::<Objects>(ko, ObjectRow { owner, reachable: 0, recognizable: 0, revoked: false });
    tx.put::<capstan_store::schema::Candidates>(KRef::Object(ko), ());
    ko
}

/// Returns the name that the next import of this kind would get, without spending it.
pub(crate) fn next_import(tx: &Tx<'_>, endpoint: EndpointId, kind: RefKind) -> Result<ERef, Corrupt> {
    let pick = |object, promise| if kind == RefKind::Object { object } else { promise };
    let missing = Corrupt::NoEndpoint(endpoint);
    Ok(match endpoint {
        EndpointId::Vat(vat) => {
            let row = tx.get::<Vats>(&vat).ok_or(missing)?;
            vat_import(kind, pick(row.next_object, row.next_promise)).into()
        }
        EndpointId::Remote(rid) => {
            let row = tx.get::<Remotes>(&rid).ok_or(missing)?;
            RRef { kind, side: Side::Import, index: pick(row.next_object, row.next_promise) }.into()
        }
    })
}

/// `o-N` or `p-N`.
pub(crate) fn vat_import(kind: RefKind, index: u64) -> VRef {
    match kind {
        RefKind::Object => VRef::Object(VObject::Import(index)),
        RefKind::Promise => VRef::Promise(Side::Import, index),
    }
}

/// Whether an entry contributes to the counts: all but the owner's entry of an object.
fn counted(kref: KRef, eref: ERef) -> bool {
    kref.promise().is_some() || eref.side() == Side::Import
}

/// Moves the endpoint's counter past the number in `eref`, so that it is never given again.
fn spend_number(tx: &mut Tx<'_>, endpoint: EndpointId, eref: ERef) -> Result<(), Corrupt> {
    let (kind, index) = match eref {
        ERef::Vat(VRef::Object(VObject::Import(index))) => (RefKind::Object, index),
        ERef::Vat(VRef::Promise(Side::Import, index)) => (RefKind::Promise, index),
        ERef::Remote(rref) => (rref.kind, rref.index),
        ERef::Vat(VRef::Object(_) | VRef::Promise(Side::Export, _)) => return Ok(()),
    };
    let next = index.checked_add(1).ok_or(Corrupt::Impossible("import numbers are used up"))?;
    let raise = |object: &mut u64, promise: &mut u64| {
        let counter = if kind == RefKind::Object { object } else { promise };
        *counter = next.max(*counter);
    };
    match endpoint {
        EndpointId::Vat(vat) => {
            tx.update::<Vats, _>(&vat, |row| raise(&mut row.next_object, &mut row.next_promise))
        }
        EndpointId::Remote(rid) => {
            tx.update::<Remotes, _>(&rid, |row| raise(&mut row.next_object, &mut row.next_promise))
        }
    }
    .ok_or(Corrupt::NoEndpoint(endpoint))
}
